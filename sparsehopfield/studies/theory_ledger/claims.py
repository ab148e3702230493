"""The ledger: the claims of the paper, and what is true instead, with what is expected of each and its examples."""

from __future__ import annotations

import math

from sparsehopfield.studies.theory_ledger import checks
from sparsehopfield.studies.theory_ledger.trials import FAILS, HOLDS, INFEASIBLE, UNDEFINED, VACUOUS, Claim, Example

_PLANE = ((0.0, 1.0), (0.6, 0.8), (-0.8, 0.6))
_LINE = ((1.0,), (3.0,))
_EVEN = ((0.0, 1.0), (0.6, 0.8), (-0.6, 0.8))
_FAN = ((1.0, 0.0), (-1.0, 0.0), (-math.cos(0.1), math.sin(0.1)))
_WORSE = (Example(_PLANE, _PLANE[0], 2.0), Example(_LINE, (1.0,), 1.0), Example(_EVEN, (0.27, 0.87), 1.0))
_BOUNDS = ("majorisation", "alignment", "mean distance", "sharp bound")
_BALLS = ("gap of 1/beta", "ball of radius R", "exact radius", "exact radius is tight")

#: In the paper's order, then what is true instead.
CLAIMS = (
    Claim(
        "definition 2.1",
        "sparsemax is [z - tau]_+ with the tau of (2.3), the projection on the simplex",
        checks.closed_form,
    ),
    Claim("theorem 2.1", "the conjugate of Psi is |z|^2/2 - |p - z|^2/2 + 1/2 (2.4)", checks.conjugate),
    Claim("corollary 2.1.1", "its gradient is sparsemax", checks.gradient),
    Claim("remark 2.1", "one step is sparsemax attention", checks.attention),
    Claim(
        "lemma 2.1",
        "a step T never raises the energy (2.1), which has no 1/beta",
        checks.printed_energy,
        FAILS,
        ("lemma 2.1, beta = 1", "energy falls", "energy is bounded"),
        (Example(((1.0,),), (2.0,), 2.0), Example(((1.0,),), (0.5,), 0.5)),
    ),
    Claim(
        "lemma 2.2",
        "limits of retrieval are stationary points of the energy (2.1): its gradient there is 0",
        checks.printed_stationary,
        FAILS,
        ("limits are stationary", "contraction"),
        (Example(((1.0,),), (1.0,), 2.0),),
    ),
    Claim(
        "section 2.2",
        "retrieval converges to a local optimum: from no limit does the energy (with the 1/beta) fall away",
        checks.local_optimum,
        FAILS,
        ("limits are stationary",),
        (Example(((1.0,), (-1.0,)), (0.0,), 1.0),),
        slack=1e-6,
    ),
    Claim(
        "definition 2.2",
        "footnote: in the sphere of a pattern the error is at most max(|x - xi|, |xi - x*|), x* the limit",
        checks.footnote,
        FAILS,
        ("sharp bound",),
        (Example(((-0.8, -0.2), (1.6, 0.2), (-0.8, 1.0)), (-0.3, 0.1), 0.25),),
    ),
    Claim(
        "theorem 2.2",
        "in the sphere of a pattern the sparse error is at most the dense error",
        checks.sparse_below_dense,
        FAILS,
        _BOUNDS,
        _WORSE,
    ),
    Claim(
        "(2.6)",
        "the error is at most m + sqrt(d) m (beta kappa (s_(1) - s_(kappa)) + 1)",
        checks.bounded("printed", near=True),
        VACUOUS,
        ("sharp bound",),
        bound=True,
    ),
    Claim(
        "(2.7), left", "the sparse error is at most the dense error", checks.sparse_below_dense, FAILS, _BOUNDS, _WORSE
    ),
    Claim(
        "(2.7), right",
        "the dense error is at most 2m (M - 1) exp(-beta (<xi, x> - max_nu <xi, xi_nu>))",
        checks.bounded("printed exponential", near=True, dense=True, sparse=False),
        FAILS,
        ("exponential bound",),
        (Example(((1.0, 0.0), (0.96, 0.28)), (1.1, 0.0), 100.0),),
        bound=True,
    ),
    Claim(
        "(2.7), nu != mu",
        "the same, with the maximum over the other patterns only",
        checks.exponential_without_itself,
        FAILS,
        ("exponential bound",),
        (Example(((1.0, 0.0), (0.0, 1.0)), (0.5, 0.5), 10.0),),
        bound=True,
    ),
    Claim(
        "section 2.2, noise",
        f"noise (here {checks.NOISE:g} m) in a query near its pattern changes the sparse error no more than the dense",
        checks.noise_weighs_less,
        FAILS,
        ("noise in the query", "noise in the pattern", "exact radius"),
        (Example(((1.0,), (-1.0,)), (0.25,), 1.0),),
    ),
    Claim(
        "section 2.2, linear",
        "noise in a query changes the bound (2.6) linearly: at most by its steepest slope times the noise",
        checks.printed_bound_is_linear,
        FAILS,
        ("sharp bound",),
        (Example(((1.0,), (-1.0,)), (0.995,), 0.5),),
    ),
    Claim(
        "theorem 3.1",
        "where patterns are well separated, queries in the sphere of a pattern are sent into it",
        checks.stays("theorem 3.1"),
        HOLDS,
        _BALLS,
        (Example(_FAN, _FAN[0], 0.9), Example(_FAN, _FAN[0], 0.5)),
    ),
    Claim(
        "theorem 3.1, closest pair",
        "the same, for the two patterns that are closest to one another",
        checks.stays("theorem 3.1", closest=True),
        INFEASIBLE,
        _BALLS,
    ),
    Claim(
        "theorem 3.1, necessary",
        "the condition is necessary: it is met wherever a query in a sphere is sent into it",
        checks.necessary,
        FAILS,
        ("margin of 1/beta",),
        (Example(_FAN, _FAN[0], 0.5),),
    ),
    Claim(
        "corollary 3.1.1",
        "the same as theorem 3.1, where Delta >= ln(2 (M - 1) m/(R + delta))/beta + 2mR",
        checks.stays("corollary 3.1.1"),
        HOLDS,
        _BALLS,
        (Example(_FAN, _FAN[0], 10.0),),
    ),
    Claim(
        "corollary 3.1.1, closest pair",
        "the same, for the two patterns that are closest to one another",
        checks.stays("corollary 3.1.1", closest=True),
        INFEASIBLE,
        _BALLS,
    ),
    Claim(
        "observation 2",
        "theorem 3.1 asks at most for 2m (n + R) + (1 + 1/sqrt(d))/beta, whatever M; corollary 3.1.1 at least for "
        "ln(2 (M - 1)/3)/beta + 2mR",
        checks.saturates,
        HOLDS,
        ("margin of 1/beta", "dense floor"),
    ),
    Claim(
        "observation 2, last term",
        "of what theorem 3.1 asks for only three terms are left: where it is met the last one is below 1/beta",
        checks.last_term_goes,
        FAILS,
        ("margin of 1/beta",),
        (Example(_FAN, _FAN[0], 0.9),),
    ),
    Claim(
        "observation 2, many patterns",
        "theorem 3.1 asks for no more than corollary 3.1.1 would with a million patterns in the place of M",
        checks.sparse_asks_less,
        FAILS,
        ("margin of 1/beta", "dense floor"),
        (Example(((1.0, 0.0), (0.0, 1.0)), (0.8, 0.3), 1000.0),),
    ),
    Claim(
        "(3.3)", "where R >= m sqrt(d) (1 + alpha beta n m kappa) + m, sparsity pays", checks.sparsity_pays, INFEASIBLE
    ),
    Claim(
        "observation 3",
        "as beta grows without limit every pattern is retrieved without error (here beta m^2 = 1e12)",
        checks.cold,
        FAILS,
        ("margin of 1/beta",),
        (Example(_LINE, (1.0,), 1.0),),
    ),
    Claim(
        "lemma 3.1",
        f"M >= sqrt(p) C^((d-1)/4) patterns are stored (p = {checks.RISK:g}), at most the nearly tight exact capacity",
        checks.printed_capacity,
        UNDEFINED,
        ("exact capacity",),
    ),
    Claim(
        "lemma 3.1, M_dense",
        "the number of patterns promised, corrected, is at least that with delta = 0, which is the dense model's",
        checks.more_than_dense,
        FAILS,
        ("gain over dense", "exact capacity"),
        (Example(_PLANE, _PLANE[0], 2.0), Example(_EVEN, (0.27, 0.87), 1.0)),
    ),
    Claim(
        "lemma 3.1, large beta",
        "for sufficiently large beta (here beta m^2 = 1e12) it is at least the literature's number for the dense model",
        checks.more_than_dense_when_cold,
        FAILS,
        ("exact capacity",),
        (Example(_PLANE, _PLANE[0], 1.0),),
    ),
    Claim(
        "corollary 3.1.2",
        "the error is at most 2m (M - 1) exp(-beta (Delta - 2m max(|x - xi|, |x - x*|)))",
        checks.corollary_312,
        HOLDS,
        ("separation bound",),
        bound=True,
    ),
    # What is true instead.
    Claim(
        "lemma 2.1, beta = 1",
        "the printed energy never rises where beta = 1",
        checks.printed_energy_at_one,
        printed=False,
    ),
    Claim(
        "energy falls",
        "-Psi*(beta Xi^T x)/beta + |x|^2/2 falls by at least half the squared step",
        checks.energy_falls,
        printed=False,
    ),
    Claim("energy is bounded", "it is at least -m^2/2 - (M - 1)/(2 M beta)", checks.energy_bounded, printed=False),
    Claim("limits are stationary", "its gradient x - T(x) is 0 at limits", checks.stationary, printed=False),
    Claim(
        "contraction",
        "T stretches distances at most by beta times the largest eigenvalue of the scatter matrix",
        checks.contraction,
        printed=False,
    ),
    Claim("majorisation", "sparsemax majorises softmax", checks.majorised, printed=False),
    Claim("alignment", "<x, T(x)> is at least that of the dense step", checks.aligned, printed=False),
    Claim(
        "mean distance",
        "asked with itself, at equal lengths: the mean distance under sparse weights is at most that under dense ones",
        checks.mean_distance,
        printed=False,
    ),
    Claim(
        "sharp bound",
        "the error is at most max_nu |xi_nu - xi| (1 - 1/kappa) max(0, 1 - beta gap)",
        checks.bounded("sharp"),
        bound=True,
        printed=False,
    ),
    Claim(
        "exponential bound",
        "both errors are at most 2m (M - 1) exp(-beta gap), the gap that of the pattern at x",
        checks.bounded("exponential", dense=True),
        bound=True,
        printed=False,
    ),
    Claim(
        "separation bound",
        "the error is at most 2m (M - 1) exp(-beta (Delta - 2m |x - xi|))",
        checks.bounded("separation"),
        bound=True,
        printed=False,
    ),
    Claim(
        "noise in the query",
        "it changes the sparse error at most by the contraction's bound times its length, the dense by half of that",
        checks.query_noise,
        printed=False,
    ),
    Claim(
        "noise in the pattern",
        "it changes the errors at most by 1 + n c beta sqrt(lambda) times its length, c = 1 sparse and 1/2 dense",
        checks.pattern_noise,
        printed=False,
    ),
    Claim(
        "dense floor",
        "the dense error is at least gap/n (M - 1)/(M - 1 + exp(beta w)), w the best score less the lowest one",
        checks.dense_floor,
        printed=False,
    ),
    Claim(
        "gap of 1/beta",
        "where the gap at x is at least 1/beta, one step arrives exactly",
        checks.exactly("exact"),
        printed=False,
    ),
    Claim(
        "ball of radius R",
        "where the exact radius is at least R, all of the sphere arrives exactly",
        checks.exactly("ball"),
        printed=False,
    ),
    Claim(
        "exact radius",
        "all of its ball is sent to exactly the pattern (tried at 0.999 of it)",
        checks.inside_radius,
        printed=False,
    ),
    Claim(
        "exact radius is tight",
        "just outside, in the worst direction, queries are not",
        checks.radius_is_tight,
        printed=False,
    ),
    Claim(
        "gain over dense",
        "where delta is positive it multiplies the patterns promised by lemma 3.1, corrected, by at most 1 + delta/R",
        checks.gain_over_dense,
        printed=False,
    ),
    Claim(
        "margin of 1/beta",
        "patterns are fixed points if their margin is at least 1/beta; extreme ones without copies, only if",
        checks.certified_iff_fixed,
        printed=False,
    ),
)
