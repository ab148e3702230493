"""What the tests share: families of data, arithmetic without rounding, bounds with their reasons, layouts."""

import contextlib
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import warnings
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import sparsehopfield as sh
from sparsehopfield import reference
from sparsehopfield._engine.separations import FAMILIES, ROWS, cutoff_of, row_of, separation_code
from sparsehopfield._engine.structure import KINDS
from sparsehopfield.structures import Pairs

FLOATS = [np.float32, np.float64]
ROUNDOFF = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}
SIMILARITIES = ["dot", "euclidean", "cosine"]
#: The rows of the core's table beyond those that are named here: maps with an alpha.
TABLE_ROWS = [row for row in ROWS if row.name not in ("sparsemax", "softmax", "entmax", "polynomial")]
TABLE_MAPS = [FAMILIES[row.name](alpha) for row in TABLE_ROWS for alpha in (1.25, 2.0, 3.0)]
CUTOFF_MAPS = ["sparsemax", "entmax15", sh.Entmax(1.25), sh.Entmax(2.0), sh.Entmax(3.0), *TABLE_MAPS]
ENERGY_MAPS = ["sparsemax", "softmax", "entmax15", sh.Entmax(1.25), sh.Entmax(3.0), *TABLE_MAPS]
ALL_MAPS = [*ENERGY_MAPS, sh.Polynomial(10), sh.Polynomial(2)]

# Ways to hold the same numbers in memory; every one must give the same result.
LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda a: _spread(a, 2),
    "negative": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "offset": lambda a: _offset(a),
    "readonly": lambda a: _readonly(a),
}


def _spread(a, step):
    """Return the same numbers as every `step`-th element of a larger array in both directions."""
    big = np.zeros((a.shape[0] * step, a.shape[1] * step), dtype=a.dtype)
    big[::step, ::step] = a
    return big[::step, ::step]


def _offset(a):
    """Return the same numbers one element past a boundary of 64 bytes."""
    raw = np.empty(a.nbytes + 128, dtype=np.uint8)
    start = (-raw.ctypes.data) % 64 + a.itemsize
    out = raw[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


def _readonly(a):
    a = np.array(a)
    a.flags.writeable = False
    return a


def sized_pairs(n, m, pairs=6):
    """Return one of every kind of pairs, for n queries of m patterns, by name; at places in no order unless n is m."""
    places = None if n == m else np.random.default_rng(9).integers(0, m, n)
    all_kinds = {name: kind.sized(pairs, m, places, 5) for name, kind in KINDS.items()}
    return {name: structure for name, structure in all_kinds.items() if isinstance(structure, Pairs)}


def name_of(option):
    """Return a short name for pytest's parameter ids."""
    return str(option).replace(" ", "")


@contextlib.contextmanager
def threads(n):
    """Use n threads, and put back what was there."""
    before = sh.get_num_threads()
    sh.set_num_threads(n)
    try:
        yield
    finally:
        sh.set_num_threads(before)


@contextlib.contextmanager
def path(name):
    """Force a path, and put back what was there."""
    before = sh._core._path(name)
    try:
        yield
    finally:
        sh._core._path(before)


def hook(name):
    """Return what the core has for tests alone, or skip the test where it was built without that."""
    if not hasattr(sh._core, name):
        pytest.skip("the core has no hooks for tests: SPARSEHOPFIELD_TESTING=1 pip install -e . builds one that has")
    return getattr(sh._core, name)


@contextlib.contextmanager
def quiet():
    """Say nothing of queries that do not settle, where that is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fails_without_memory(call):
    """Check that a call raises MemoryError whichever of its allocations fails, and makes some."""
    fail = hook("_fail_allocation")
    fail(-1)
    call()
    made = fail(-1)
    try:
        for n in range(made):
            fail(n)
            try:
                call()
            except MemoryError:
                continue
            return False
    finally:
        fail(-1)
    return made > 0


def digest(*arrays):
    """Hash the bits of arrays (sparse ones by their parts)."""
    h = hashlib.sha256()
    for a in arrays:
        parts = [a.indptr, a.indices, a.data] if hasattr(a, "indptr") else [a]
        for part in parts:
            part = np.ascontiguousarray(part)
            if part.dtype.kind == "i":  # scipy chooses the width of indices
                part = part.astype(np.int64)
            h.update(str((part.shape, part.dtype)).encode())
            h.update(part.tobytes())
    return h.hexdigest()


#: Where tests and what they share are, for processes that import them.
FOLDERS = [str(path) for path in (Path(__file__).parent, *Path(__file__).parent.iterdir()) if path.is_dir()]


def run_python(code, *arguments, timeout=120, **environment):
    """Run a piece of Python in a fresh process and return what it printed as JSON in its last line."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=env,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def bits_at_level(module, level, core="", threads=None):
    """Run `bits` of a test module in a process of its own, by a level of instructions and OpenBLAS's kernels of a core.

    Skip where this machine has no such instructions.
    """
    if level not in sh.show_config(mode="dict")["simd"]["available"]:
        pytest.skip(f"this machine has no {level}")
    wanted = {"SPARSEHOPFIELD_SIMD": level, "OPENBLAS_CORETYPE": core, "SPARSEHOPFIELD_NUM_THREADS": str(threads or "")}
    code = f"import json, {module} as t; print(json.dumps([t.sh.show_config(mode='dict'), t.bits()]))"
    config, found = run_python(code, **{name: value for name, value in wanted.items() if value})
    assert config["simd"]["chosen"] == level
    assert threads is None or config["threads"] == threads
    return found


def command(*arguments, encoding="utf-8", errors="strict", **environment):
    """Run the command line within this process, on streams as PYTHONIOENCODING makes them.

    Return what `subprocess.run` would, with what was printed as bytes.
    """
    from sparsehopfield.__main__ import main  # loads every study

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, how, newline="") for how in (errors, "backslashreplace"))
    with (
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        threads(sh.get_num_threads()),  # what --threads asks for ends with the command
    ):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as end:
            status = end.code or 0
        printed = []
        for stream in (out, err):
            stream.flush()
            printed.append(stream.buffer.getvalue())
    return subprocess.CompletedProcess(arguments, status, *printed)


def undrawn(figure, path):
    """Write empty files for a figure, named as `plotting.save` does, and draw none: that takes longest."""
    files = [Path(f"{path}.{kind}") for kind in ("png", "svg")]
    for file in files:
        file.touch()
    return files


def same_bits(a, b):
    """Check that two arrays are equal in shape, dtype and every bit."""
    return digest(a) == digest(b)


# --- data ------------------------------------------------------------------------------------------


def families(dtype=np.float32, m=20, d=17, n=3):
    """Give name -> (queries, patterns), made to break a filter or a sum."""
    rng = np.random.default_rng(5)
    info = np.finfo(dtype)

    def gauss(*shape):
        return rng.normal(size=shape)

    base = gauss(m, d)
    queries = base[:n] + 0.3 * gauss(n, d)
    one = gauss(d)
    made = {
        "gaussian": (queries, base),
        "near ties": (queries, one * (1 + 4 * float(info.eps) * rng.integers(-3, 4, size=(m, d)))),
        "ties": (rng.integers(-2, 3, size=(n, d)), rng.integers(-1, 2, size=(m, d))),
        "duplicates": (queries, base[rng.integers(4, size=m)]),
        "all the same": (queries, np.repeat(one[None], m, axis=0)),
        "norms from 1e-12 to 1e12": (queries, base * 10.0 ** rng.integers(-12, 13, size=(m, 1))),
        "cancelling": (
            np.concatenate([queries[:, : d // 2] * 1e6, -queries[:, : d - d // 2] * 1e6], axis=1),
            np.concatenate([base[:, : d // 2], base[:, : d - d // 2]], axis=1),
        ),
        "subnormal": (queries, base * float(info.smallest_subnormal) * 100),
        "subnormal queries": (queries * float(info.smallest_subnormal) * 100, base),
        "negative scores": (-np.abs(queries), np.abs(base)),
        "0.5 +- 0.01": (0.5 + 0.01 * gauss(n, d), 0.5 + 0.01 * base),
        "1000 +- 0.01": (1000 + 0.01 * gauss(n, d), 1000 + 0.01 * base),
        "rank 1": (queries, gauss(m, 1) * one),
        "rank 2": (queries, gauss(m, 1) * one + gauss(m, 1) * gauss(d)),
        "one pattern": (queries, base[:1]),
        "two patterns": (queries, base[:2]),
        "one feature": (queries[:, :1], base[:, :1]),
        "zero query": (np.zeros((1, d)), base),
        "zero patterns": (queries, np.concatenate([np.zeros((3, d)), base[3:]])),
        "bytes": (rng.integers(0, 256, size=(n, d)), rng.integers(0, 256, size=(m, d))),
        "only large": (queries * 1e15, base * 1e15),
    }
    return {name: (q.astype(dtype), x.astype(dtype)) for name, (q, x) in made.items()}


def betas_for(queries, patterns, similarity):
    """Give inverse temperatures at which supports of a few, some and all patterns occur."""
    scores = reference.canonical_scores(queries, patterns, similarity)  # without BLAS, so alike on all machines
    spread = np.median(scores.max(axis=1) - scores.min(axis=1)) or 1.0
    with np.errstate(over="ignore"):
        return np.minimum([c / spread for c in (0.05, 3.0, 40.0)], 1e300).tolist()


def patterns_for(similarity, patterns):
    """Leave out the rows that have no cosine."""
    if similarity != "cosine":
        return patterns
    lengths = np.linalg.norm(patterns.astype(float), axis=1)
    if (lengths < 1e-35).all():
        pytest.skip("cosine: 1 / |xi| overflows")
    return patterns[lengths > 0]


def sparse_weights(queries, patterns, beta, similarity, separation):
    """Return the weights as a dense array."""
    return sh.associate(queries, patterns, beta, similarity=similarity, separation=separation).toarray()


# --- arithmetic without rounding ------------------------------------------------------------------

_SCALE = 1074  # every float64 is an integer times 2^-1074


def _integers(a):
    """Return the stored numbers times 2^1074, as Python integers."""
    result = []
    for x in np.asarray(a).ravel().tolist():
        numerator, denominator = float(x).as_integer_ratio()
        result.append(numerator * ((1 << _SCALE) // denominator))
    return np.array(result, dtype=object).reshape(np.shape(a))


def _root(square):
    """Return the square root of a fraction, to 120 decimal places."""
    shift = 400
    return Fraction(math.isqrt(square.numerator * (1 << 2 * shift) // square.denominator), 1 << shift)


def exact_scores(queries, patterns, similarity="dot"):
    """Compute scores as fractions of the stored numbers (cosine: to 120 decimal places); a list of rows."""
    x, xi = _integers(queries), _integers(patterns)
    unit = 1 << 2 * _SCALE
    norms = [sum(v * v for v in row) for row in xi]
    rows = []
    for query in x:
        row = [Fraction(sum(a * b for a, b in zip(query, pattern, strict=True) if a and b), unit) for pattern in xi]
        if similarity == "euclidean":  # -|x - xi|^2 / 2
            own = sum(v * v for v in query)
            row = [s - Fraction(n + own, 2 * unit) for s, n in zip(row, norms, strict=True)]
        elif similarity == "cosine":
            row = [s / _root(Fraction(n, unit)) for s, n in zip(row, norms, strict=True)]
        rows.append(row)
    return rows


def exact_sparsemax(z):
    """Compute weights, tau and kappa of the closed form (2.3) for a list of fractions, None standing for a mask."""
    ordered = sorted((v for v in z if v is not None), reverse=True)
    total, tau, kappa = Fraction(0), None, 0
    for k, v in enumerate(ordered, 1):
        if 1 + k * v <= total + v:
            break
        total += v
        tau, kappa = (total - 1) / k, k
    return [max(v - tau, Fraction(0)) if v is not None else Fraction(0) for v in z], tau, kappa


def _decimal(fraction):
    return Decimal(fraction.numerator) / Decimal(fraction.denominator)


def exact_entmax(z, alpha):
    """Compute weights (fractions good to some 40 digits), threshold in units of z, support size; 1 < alpha <= 3."""
    if alpha == 2:
        return exact_sparsemax(z)
    with localcontext() as context:
        context.prec = 60
        top = max(z)
        a = Decimal(alpha) - 1
        u = [_decimal(v - top) for v in z]
        near = [v for v in u if 1 + a * v > 0]
        low, high = Decimal(0), 1 / a

        def powers(theta):
            bases = [1 + a * (v - theta) for v in near]
            if alpha == 1.5:
                return sum(b * b for b in bases if b > 0)
            if alpha == 3:
                return sum(b.sqrt() for b in bases if b > 0)
            return sum(b ** (1 / a) for b in bases if b > 0)

        for _ in range(160):
            theta = (low + high) / 2
            low, high = (theta, high) if powers(theta) > 1 else (low, theta)
        p = [(1 + a * (v - high)) ** (1 / a) if 1 + a * (v - high) > 0 else Decimal(0) for v in u]
        return [Fraction(v) for v in p], top + Fraction(high) - 1 / Fraction(alpha - 1), sum(v > 0 for v in p)


# --- bounds ---------------------------------------------------------------------------------------


def alpha_of(separation):
    """Return the alpha of a separation map with an energy."""
    return separation_code(separation)[1]


def cutoff(separation):
    """Return how far below the best a score must be to have no weight."""
    return cutoff_of(separation_code(separation))


def score_error(query, patterns, similarity, unit=2.0**-53, terms=2, by_product=False):
    """Bound the error of a query's scores: (d + terms) u max(|x| |xi_i|), any order of summation.

    Canonical euclidean scores, from differences, are off by (d + terms) u max |x - xi_i|^2 / 2; those of products
    (`by_product`) by (d + terms) u max(|x| |xi_i| + |xi_i|^2 / 2).
    """
    x, xi = np.asarray(query, dtype=np.float64), np.asarray(patterns, dtype=np.float64)
    lengths = np.linalg.norm(xi, axis=1)
    bias = lengths**2 / 2 if similarity == "euclidean" else 0.0
    if similarity == "cosine":  # the scale 1 / |xi| is itself rounded, and multiplied in
        lengths, terms = np.ones_like(lengths), terms + x.size + 4
    underflow = x.size * (5e-324 if unit < 2.0**-50 else 1.5e-45)  # of products, where numbers are that small
    size = np.linalg.norm(x) * lengths + bias
    if similarity == "euclidean":
        apart = np.linalg.norm(x - xi, axis=1) ** 2 / 2
        size = np.maximum(apart, size) if by_product else apart
    return (x.size + terms) * unit * float(size.max()) + underflow


def weight_error(z, tau, kappa, alpha, spread, dtype):
    """Bound |p - p*|_1, property P2 of the engine, given the exact scores z, threshold and support size.

    spread is the error of the scores in units of z. Weights are rounded once to dtype, relatively, so that
    costs u in l1 as the weights sum to 1; the solution itself runs in double.
    """
    near = sum(1 for v in z if v > tau - 2 * Fraction(spread))  # kappa+
    return near ** (alpha - 1) * spread + ROUNDOFF[np.dtype(dtype)] + (kappa + 4) * kappa * 2.0**-53


def distance(p, exact):
    """Compute the l1 distance of floats to fractions, without rounding on the way."""
    return float(sum(abs(Fraction(float(a)) - b) for a, b in zip(p, exact, strict=True)))


def weight_bounds(queries, patterns, beta, similarity, separation, dtype):
    """Bound the l1 distance of an operation's weights to those of `reference`, one number a query.

    With scores off by e on either side, |p - p'|_1 <= kappa+^(alpha-1) beta e (exactness, section 2). Scores
    are of double precision for a support of at most 1,024 patterns of a map with a cutoff, else of the
    compute type. For alpha > 2 weights are not Lipschitz, but the powers p^(alpha-1) are: they move by at
    most 2 (alpha-1) beta e. For a polynomial the relative error of a power is order e / |s|. Of maps p = u / sum u,
    u = [z - tau]_+^(1/a) with sum u >= 1, as normmax, u moves by at most 2 beta e / a, and beyond alpha = 2 by
    (2 beta e)^(1/a); dividing by the sum at most doubles that.
    """
    x, rows, bias, beta, _ = reference._prepare(queries, patterns, beta, similarity)
    scores, row = x @ rows.T + bias, row_of(separation_code(separation))
    m, unit, bounds = len(rows), ROUNDOFF[np.dtype(dtype)], []
    for query, s, b in zip(x, scores, beta, strict=True):
        own = score_error(query, patterns, similarity, 2.0**-53, terms=4, by_product=True)
        if row.signed_weights:
            e, order = own + score_error(query, patterns, similarity, unit, terms=4, by_product=True), separation.order
            if not s.any():  # no weight at all
                bounds.append(0.0)
                continue
            size = np.abs(s) / np.abs(s).max()
            spread = 2 * order * e / np.abs(s).max() * (size ** (order - 1)).sum() / abs((size**order).sum())
            bounds.append(min(spread + (m + 4 * order) * unit, 2.0))
            continue
        alpha = alpha_of(separation)
        a, z = alpha - 1, b * (s - s.max())
        if alpha > 1:
            family = "entmax" if row.name == "sparsemax" else row.name
            tau = getattr(reference, f"{family}_threshold")(z, alpha)[0] * cutoff(separation)
            exact = np.count_nonzero(z > tau) <= 1000
            e = b * (own + score_error(query, patterns, similarity, 2.0**-53 if exact else unit, 4, True))
            near = np.count_nonzero(z > tau - 2 * e)
        else:
            e, near = b * (own + score_error(query, patterns, similarity, unit, terms=4, by_product=True)), 1
        if row in TABLE_ROWS:
            spread = 2 * near * (2 * e / a if alpha <= 2 else (2 * e) ** (1 / a))
        else:
            spread = near**a * e if alpha <= 2 else near * (2 * a * e) ** (1 / a)
        # Rounded once; and the sums of the solution, which for a large support and softmax have m terms.
        bounds.append(min(spread + (1 if alpha > 1 and exact else m + 8) * unit + (near + 4) * near * 2.0**-53, 2.0))
    return np.array(bounds)


def state_bounds(weights, queries, values, dtype):
    """Bound the largest error of a state's entries, from the bounds on its weights (l1)."""
    largest = np.abs(np.asarray(values, dtype=np.float64)).max()
    return (weights + (len(values) + 2) * ROUNDOFF[np.dtype(dtype)]) * largest
