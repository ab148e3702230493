"""Every row map of the C core against the reference: types, axes, strides, sizes, scales, rules, vjps."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import ROUNDOFF, TABLE_ROWS, exact_sparsemax, same_bits, threads
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sparsehopfield as sh
from sparsehopfield import reference

# name -> (function, its options); weights of one row of scores
WEIGHTS = {
    "softmax": ("softmax", ()),
    "sparsemax": ("sparsemax", ()),
    "entmax": ("entmax", ()),
    "entmax(1)": ("entmax", (1.0,)),
    "entmax(1+1e-9)": ("entmax", (1.0 + 1e-9,)),
    "entmax(1.05)": ("entmax", (1.05,)),
    "entmax(1.25)": ("entmax", (1.25,)),
    "entmax(1.8)": ("entmax", (1.8,)),
    "entmax(2)": ("entmax", (2.0,)),
    "entmax(3)": ("entmax", (3.0,)),
    "polynomial": ("polynomial", ()),
    "polynomial(2)": ("polynomial", (2,)),
    "polynomial(3)": ("polynomial", (3,)),
    "topk_softmax(3)": ("topk_softmax", (3,)),
    "topk_softmax(1000)": ("topk_softmax", (1000,)),
    "topk_sparsemax(3)": ("topk_sparsemax", (3,)),
}
NUMBERS = {
    "softmax_conjugate": ("softmax_conjugate", ()),
    "sparsemax_conjugate": ("sparsemax_conjugate", ()),
    "entmax_conjugate": ("entmax_conjugate", ()),
    "entmax_conjugate(1)": ("entmax_conjugate", (1.0,)),
    "entmax_conjugate(1.05)": ("entmax_conjugate", (1.05,)),
    "entmax_conjugate(2.5)": ("entmax_conjugate", (2.5,)),
}
THRESHOLDS = {
    "sparsemax_threshold": ("sparsemax_threshold", ()),
    "entmax_threshold": ("entmax_threshold", ()),
    "entmax_threshold(1.25)": ("entmax_threshold", (1.25,)),
    "entmax_threshold(3)": ("entmax_threshold", (3.0,)),
}
VJPS = {  # name -> (vjp, map, options)
    "softmax": ("softmax_vjp", "softmax", ()),
    "sparsemax": ("sparsemax_vjp", "sparsemax", ()),
    "entmax": ("entmax_vjp", "entmax", ()),
    "entmax(1)": ("entmax_vjp", "entmax", (1.0,)),
    "entmax(1.25)": ("entmax_vjp", "entmax", (1.25,)),
    "entmax(2)": ("entmax_vjp", "entmax", (2.0,)),
}
for row in TABLE_ROWS:
    for alpha in (1.05, 1.25, row.standard, 3.0):
        WEIGHTS[f"{row.name}({alpha})"] = row.name, (alpha,)
        NUMBERS[f"{row.name}_conjugate({alpha})"] = f"{row.name}_conjugate", (alpha,)
        THRESHOLDS[f"{row.name}_threshold({alpha})"] = f"{row.name}_threshold", (alpha,)
        if alpha <= 2:
            VJPS[f"{row.name}({alpha})"] = f"{row.name}_vjp", row.name, (alpha,)
IN_TABLE = {row.name for row in TABLE_ROWS}
SIZES = [*range(1, 71), *range(1023, 1031)]
FLOATS = [np.float32, np.float64]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def apply(table, name, z, module=sh, **keywords):
    function, options = table[name]
    return getattr(module, function)(z, *options, **keywords)


def is_polynomial(name):
    return name.startswith("polynomial")


def assert_weights(name, got, z, dtype, axis=-1):
    """Compare weights with the reference's, within what the arithmetic of dtype allows.

    softmax: the exponent z - max z is rounded by u |z - max z|, exp costs a few u more and the sum of n terms
    some n u / 16 (it is n u at worst), all relative.
    entmax: p moves by at most as much as the scores and the threshold in the window of width 1 / a, that is
    by p^(1-a) |z - theta| u <= 16 u, for alpha <= 2; for alpha > 2 it is p^a that does.
    polynomial: |order| times the relative error of r, and of the sum.
    """
    got = np.moveaxis(np.asarray(got, dtype=np.float64), axis, -1)
    z = np.moveaxis(np.asarray(z, dtype=np.float64), axis, -1)
    function, options = WEIGHTS[name]
    want = apply(WEIGHTS, name, z, reference)
    u = ROUNDOFF[np.dtype(dtype)]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got[z == -np.inf], 0 if not np.isnan(want).any() else got[z == -np.inf])
    # Below the smallest normal number weights may be flushed or rounded to a subnormal.
    tiny = float(np.finfo(dtype).tiny)
    if z.size == 0:
        assert got.shape == want.shape
        return
    if is_polynomial(name):
        order = options[0] if options else 10
        r = np.where(np.isfinite(z), z, 0)
        r = r / np.maximum(np.abs(r).max(axis=-1, keepdims=True), np.finfo(float).tiny)
        total = np.abs((r**order).sum(axis=-1, keepdims=True))
        cancelled = (np.abs(r) ** order).sum(axis=-1, keepdims=True) / np.where(total > 0, total, np.inf)
        limit = (4 * order + 16) * u * np.abs(want) * (1 + cancelled) + tiny
    elif function in ("softmax", "topk_softmax") or options == (1.0,):
        with np.errstate(over="ignore", invalid="ignore"):
            below = np.minimum(np.abs(z - z.max(axis=-1, keepdims=True)), 1000)
        limit = want * (16 + z.shape[-1] / 16 + np.nan_to_num(below, nan=0.0)) * u + tiny
    elif options and options[0] > 2 and function in {"entmax", *IN_TABLE}:
        a = options[0] - 1
        got, want, limit = got**a, want**a, (16 if function == "entmax" else 32) * a * u
    elif function in IN_TABLE:  # of maps p = u / sum u, u = x^(1/a), relative errors grow by 1/a
        limit = 16 * u * np.maximum(want, 0.5) / (options[0] - 1)
    else:
        limit = 16 * u * np.maximum(want, 0.5)
    finite = ~np.isnan(want)
    excess = (np.abs(got - want) - limit)[finite]
    assert excess.max(initial=-1) <= 0, f"{name}: off by {np.abs(got - want)[finite].max()}, {excess.max()} too much"


# --- types, axes, memory --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_every_size(name, dtype, rng):
    for n in SIZES:
        z = (rng.normal(size=(2, n)) * 2).astype(dtype)
        got = apply(WEIGHTS, name, z)
        assert got.dtype == dtype
        assert got.shape == z.shape
        assert_weights(name, got, z, dtype)


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e-2, 10.0, 1e3, 1e30])
def test_scales(name, scale, dtype, rng):
    z = (rng.normal(size=(6, 100)) * scale).astype(dtype)
    assert_weights(name, apply(WEIGHTS, name, z), z, dtype)
    if not is_polynomial(name):  # a common offset, as far from the origin as the type can tell scores apart
        z = (1000 + rng.normal(size=(6, 100))).astype(dtype)
        assert_weights(name, apply(WEIGHTS, name, z), z, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_largest_and_smallest_numbers(name, dtype):
    info = np.finfo(dtype)
    rows = [
        [info.max, info.max, -info.max],
        [info.max, 0, -info.max],
        [-info.max, -info.max, -info.max],
        [info.tiny, info.smallest_subnormal, 0],
        [0, 0, 0],
        [-0.0, 0.0, -0.0],
    ]
    for row in rows:
        z = np.array(row, dtype=dtype)
        got = apply(WEIGHTS, name, z)
        assert_weights(name, got, z, dtype)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize(
    ("dtype", "computed"),
    [
        ("float16", "float32"),
        ("int8", "float32"),
        ("uint8", "float32"),
        ("int16", "float32"),
        ("uint16", "float32"),
        ("int32", "float64"),
        ("uint32", "float64"),
        ("int64", "float64"),
        (">f4", "float32"),
        (">f8", "float64"),
    ],
)
def test_other_types(name, dtype, computed, rng):
    z = rng.integers(0, 6, size=(5, 40)).astype(dtype)
    got = apply(WEIGHTS, name, z)
    assert got.dtype == np.dtype(computed)
    assert got.dtype.isnative
    assert same_bits(got, apply(WEIGHTS, name, z.astype(computed)))


@pytest.mark.parametrize("name", WEIGHTS)
def test_lists_and_scalars(name):
    got = apply(WEIGHTS, name, [0.3, 0.1, -2.0])
    assert got.dtype == np.float64
    assert_weights(name, got, [0.3, 0.1, -2.0], np.float64)


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_axes_and_strides(name, dtype, rng):
    z = (rng.normal(size=(5, 37, 6)) * 2).astype(dtype)
    for axis in (0, 1, 2):
        got = apply(WEIGHTS, name, z, axis=axis)
        assert got.shape == z.shape
        assert_weights(name, got, z, dtype, axis=axis)
        np.testing.assert_array_equal(apply(WEIGHTS, name, z, axis=axis - 3), got)
        # How the rows lie in memory changes no bit of them.
        rows = apply(WEIGHTS, name, np.ascontiguousarray(np.moveaxis(z, axis, -1)))
        np.testing.assert_array_equal(np.moveaxis(got, axis, -1), rows)
    z = z.reshape(30, 37)
    want = apply(WEIGHTS, name, z)
    np.testing.assert_array_equal(apply(WEIGHTS, name, np.asfortranarray(z)), want)
    np.testing.assert_array_equal(apply(WEIGHTS, name, z[::-1])[::-1], want)
    np.testing.assert_array_equal(apply(WEIGHTS, name, z[::3]), want[::3])
    wide = np.zeros((30, 74), dtype)
    wide[:, ::2] = z
    np.testing.assert_array_equal(apply(WEIGHTS, name, wide[:, ::2]), want)
    # A reversed row is another order of summation, but not for what is decided.
    assert_weights(name, apply(WEIGHTS, name, z[:, ::-1]), z[:, ::-1], dtype)
    np.testing.assert_array_equal(apply(WEIGHTS, name, np.broadcast_to(z[0], (4, 37))), want[[0, 0, 0, 0]])
    for i in range(len(z)):  # a row knows nothing of the others
        np.testing.assert_array_equal(apply(WEIGHTS, name, z[i]), want[i])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_out(name, dtype, rng):
    z = rng.normal(size=(7, 33)).astype(dtype)
    want = apply(WEIGHTS, name, z)
    out = np.full_like(z, 9)
    assert apply(WEIGHTS, name, z, out=out) is out
    np.testing.assert_array_equal(out, want)
    transposed = np.full((33, 7), 9, dtype).T
    apply(WEIGHTS, name, z, out=transposed)
    np.testing.assert_array_equal(transposed, want)
    same = z.copy()
    apply(WEIGHTS, name, same, out=same)  # in place
    np.testing.assert_array_equal(same, want)
    base = np.concatenate([z, np.zeros((2, 33), dtype)])
    apply(WEIGHTS, name, base[:7], out=base[2:])  # overlapping, shifted
    np.testing.assert_array_equal(base[2:], want)


def test_options_broadcast(rng):
    z = rng.normal(size=(3, 1, 20))
    alphas = np.array([1.0, 1.3, 1.5, 2.0])
    got = sh.entmax(z, alphas)
    assert got.shape == (3, 4, 20)
    for j, alpha in enumerate(alphas):
        np.testing.assert_array_equal(got[:, j], sh.entmax(z[:, 0], alpha))
    got = sh.topk_softmax(z[:, 0], np.array([1, 2, 30]))
    np.testing.assert_array_equal(got[1], sh.topk_softmax(z[1, 0], 2))
    got = sh.polynomial(z, np.array([2, 4]))
    np.testing.assert_array_equal(got[2, 1], sh.polynomial(z[2, 0], 4))
    tau, kappa = sh.entmax_threshold(z, alphas)
    assert tau.shape == kappa.shape == (3, 4)
    assert kappa.dtype == np.int64
    p, g = sh.softmax(z), rng.normal(size=(1, 5, 20))
    assert sh.softmax_vjp(p, g).shape == (3, 5, 20)
    np.testing.assert_array_equal(sh.softmax_vjp(p, g)[1, 2], sh.softmax_vjp(p[1, 0], g[0, 2]))
    assert sh.entmax_vjp_alpha(p, g, 1.2).shape == (3, 5)
    # An option does not decide the type of the result.
    single = z.astype(np.float32)
    assert sh.entmax(single, 1.25).dtype == np.float32
    assert sh.entmax(single, np.float64(1.25)).dtype == np.float32
    assert sh.topk_softmax(single, 3).dtype == np.float32
    assert sh.polynomial(single, 4).dtype == np.float32


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_threads_change_no_bit(name, dtype, rng):
    z = (rng.normal(size=(3000, 130)) * 2).astype(dtype)  # enough work for two threads
    with threads(1):
        one = apply(WEIGHTS, name, z)
    for n in (2, 3):
        with threads(n):
            assert same_bits(apply(WEIGHTS, name, z), one)


@pytest.mark.parametrize("name", [*WEIGHTS, *NUMBERS, *THRESHOLDS])
def test_no_elements(name):
    table = WEIGHTS if name in WEIGHTS else NUMBERS if name in NUMBERS else THRESHOLDS
    for shape in ((0,), (0, 5), (5, 0), (2, 0, 3)):
        z = np.empty(shape, np.float32)
        got, want = apply(table, name, z), apply(table, name, z, reference)
        for a, b in zip(*((got, want) if table is THRESHOLDS else ((got,), (want,))), strict=True):
            assert np.shape(a) == np.shape(b)
            np.testing.assert_array_equal(a, b)


# --- the rules for NaN, infinities and ties -------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("n", [1, 2, 5, 16, 17, 64, 100])
def test_special_values(name, n, dtype, rng):
    base = rng.normal(size=n).astype(dtype)
    for place in {0, n // 2, n - 1}:
        for special in (np.nan, np.inf, -np.inf):
            z = base.copy()
            z[place] = special
            got = apply(WEIGHTS, name, z)
            if np.isnan(special):
                assert np.isnan(got).all()  # a NaN must not vanish in a maximum
            else:
                assert_weights(name, got, z, dtype)
            if special == np.inf:
                assert got[place] == 1
        mixed = np.full(n, -np.inf, dtype)
        mixed[place] = -3.0
        np.testing.assert_array_equal(apply(WEIGHTS, name, mixed), np.arange(n) == place)
    masks = np.full(n, -np.inf, dtype)
    np.testing.assert_array_equal(apply(WEIGHTS, name, masks), np.zeros(n))
    masks[n // 2] = np.nan
    assert np.isnan(apply(WEIGHTS, name, masks)).all()
    infinite = np.full(n, np.inf, dtype)
    assert_weights(name, apply(WEIGHTS, name, infinite), infinite, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [n for n in WEIGHTS if "topk" not in n])
def test_only_the_affected_rows_are_special(name, dtype, rng):
    z = rng.normal(size=(9, 30)).astype(dtype)
    want = apply(WEIGHTS, name, z)
    z[2, 3], z[4, :] = np.nan, -np.inf
    got = apply(WEIGHTS, name, z)
    rest = [0, 1, 3, 5, 6, 7, 8]
    np.testing.assert_array_equal(got[rest], want[rest])
    assert np.isnan(got[2]).all()
    np.testing.assert_array_equal(got[4], 0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [n for n in WEIGHTS if "topk" not in n])
def test_ties_share_equally(name, dtype):
    for n in (2, 3, 7, 16, 33, 100, 1025):
        z = np.full(n, 1.25, dtype)
        got = apply(WEIGHTS, name, z)
        assert (got == got[0]).all()
        assert_weights(name, got, z, dtype)
        z[: n // 2] -= dtype(0.25)
        got = apply(WEIGHTS, name, z)
        assert (got[: n // 2] == got[0]).all()
        assert (got[n // 2 :] == got[-1]).all()


@pytest.mark.parametrize("name", ["topk_softmax", "topk_sparsemax"])
def test_topk_ties_take_the_lowest_index(name, rng):
    for n in (4, 20, 70, 1030):
        z = rng.integers(0, 3, size=n).astype(np.float32)  # many ties
        for k in (1, 2, n // 2, n - 1, n, n + 1, 2**31):
            got = getattr(sh, name)(z, k)
            best = np.argsort(-z, kind="stable")[: min(k, n)]
            assert set(np.flatnonzero(got)) <= set(best.tolist())
            np.testing.assert_allclose(got, getattr(reference, name)(z, k), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [*NUMBERS, *THRESHOLDS])
def test_numbers_and_thresholds(name, dtype, rng):
    u = ROUNDOFF[np.dtype(dtype)]
    table = NUMBERS if name in NUMBERS else THRESHOLDS
    alpha = (table[name][1] or (2.0 if name.startswith("sparsemax") else 1.5,))[0]
    a = alpha - 1
    for n in (1, 2, 3, 15, 16, 17, 31, 64, 65, 1025):
        for scale in (1e-3, 1.0, 20.0):
            z = (rng.normal(size=(3, n)) * scale + 5).astype(dtype)
            got, want = apply(table, name, z), apply(table, name, z, reference)
            # max z is exact, the rest has a scale of 1 (log n for the log-sum-exp), rounded once.
            # For alpha > 2 the weights of a large support sum to 1 within n^a u only.
            atol = 16 * u * (np.abs(z).max() + 1 + np.log(n)) + (u * n**a if alpha > 2 else 0)
            if table is NUMBERS:
                assert got.dtype == dtype
                np.testing.assert_allclose(got, want, rtol=0, atol=atol)
                continue
            assert got[0].dtype == dtype
            assert got[1].dtype == np.int64
            np.testing.assert_allclose(got[0], want[0], rtol=0, atol=(1 + a) * atol)
            # The support may differ only by scores that lie at the threshold.
            unit = 1 if table[name][0].removesuffix("_threshold") in IN_TABLE else a
            base = unit * z.astype(float) - want[0][:, None]
            slack = 16 * (1 + a) * ROUNDOFF[np.dtype(dtype)] * 2
            assert ((base > slack).sum(axis=-1) <= got[1]).all()
            assert (got[1] <= (base > -slack).sum(axis=-1)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [*NUMBERS, *THRESHOLDS])
def test_numbers_of_special_rows(name, dtype):
    table = NUMBERS if name in NUMBERS else THRESHOLDS
    rows = [
        [1, np.nan, 2],
        [-np.inf] * 3,
        [np.inf, 1, np.inf],
        [np.nan, np.inf, -np.inf],
        [2, -np.inf, -np.inf],
    ]
    for row in rows:
        z = np.array(row, dtype)
        got, want = apply(table, name, z), apply(table, name, z, reference)
        if table is THRESHOLDS:
            assert got[1] == want[1]
            got, want = got[0], want[0]
        np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype).eps)


def test_threshold_of_softmax():
    tau, kappa = sh.entmax_threshold(np.array([1.0, 2.0, -np.inf]), 1.0)
    assert tau == -np.inf
    assert kappa == 2
    tau, kappa = sh.entmax_threshold(np.zeros(5, np.float32), 1.0)
    assert tau == -np.inf
    assert kappa == 5


# --- accuracy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_sparsemax_against_exact_arithmetic(dtype, rng):
    """Within one ulp of the true weight; where it is a small difference, within the rounding of double."""
    double = 2.0**-53
    for n in (1, 2, 3, 5, 8, 16, 33, 60):
        for scale in (0.01, 0.3, 1.0, 5.0, 100.0):
            for offset in (0.0, 0.5, 1000.0):
                z = (rng.normal(size=n) * scale + offset).astype(dtype)
                p, tau, kappa = exact_sparsemax([Fraction(float(v)) for v in z])
                got = sh.sparsemax(z)
                own_tau, own_kappa = sh.sparsemax_threshold(z)
                for mine, true in zip(got, p, strict=True):
                    ulp = float(np.spacing(dtype(float(true))))
                    assert abs(Fraction(float(mine)) - true) <= ulp + (kappa + 4) * double
                # z - max z is rounded once in double; a weight below that may be lost or won.
                sure = sum(v > 4 * kappa * double for v in p)
                assert (
                    sure <= own_kappa <= sum(v > tau - Fraction(4 * n * double) for v in map(Fraction, z.astype(float)))
                )
                assert own_kappa >= 1
                largest = max(abs(float(tau)), abs(float(z.max())))
                assert abs(Fraction(float(own_tau)) - tau) <= 2 * float(np.spacing(dtype(largest))) + kappa * double


@pytest.mark.parametrize("alpha", [1.0 + 2.0**-52, 1.0 + 1e-12, 1.0 + 1e-6, 1.001, 1.02])
def test_entmax_close_to_softmax(alpha, rng):
    """Alpha near 1 loses no digits; the C core and the bisection agree."""
    z = rng.normal(size=(20, 64)) * 4
    got = sh.entmax(z, alpha)
    np.testing.assert_allclose(got, reference.entmax(z, alpha), rtol=0, atol=1e-14)
    np.testing.assert_allclose(got, sh.softmax(z), rtol=0, atol=1e3 * (alpha - 1) + 1e-14)


def test_large_rows(rng):
    z = rng.normal(size=200_000).astype(np.float32) * 3
    for scale in (1.0, 1e-3, 1e-7):  # supports from a few to all
        y = z * np.float32(scale)
        p = sh.sparsemax(y)
        np.testing.assert_allclose(p.astype(float).sum(), 1, rtol=0, atol=1e-6)
        np.testing.assert_allclose(p, reference.sparsemax(y), rtol=2e-7, atol=1e-11)
        q = sh.entmax(y)
        np.testing.assert_allclose(q, reference.entmax(y), rtol=1e-6, atol=1e-10)


# --- wide supports ----------------------------------------------------------------------------------


WIDE = {
    "sparsemax": ("sparsemax", ()),
    **{f"entmax({a})": ("entmax", (a,)) for a in (1.0001, 1.05, 1.25, 1.5, 1.75, 1.9, 3.0)},
    **{f"{row.name}({a})": (row.name, (a,)) for row in TABLE_ROWS for a in (1.2, 1.5, 2.0, 3.0)},
}


def wide_rows(n, kind, scale, rng):
    """Return 16 rows of n scores, most of which have weight: of one kind of distribution, some masked or equal."""
    z = {
        "normal": rng.normal(size=(16, n)),
        "even": rng.uniform(size=(16, n)),
        "rounded": np.round(3 * rng.normal(size=(16, n))),
        "one far off": rng.normal(size=(16, n)) - 9 * (np.arange(n) > 0),
        "equal": np.zeros((16, n)),
    }[kind]
    z = (z * scale + rng.choice([0.0, 3.0, -50.0])).astype(np.float32)
    if n > 64:
        z[::2, ::7] = -np.inf
    return z


@pytest.mark.parametrize("name", WIDE)
def test_floats_have_the_weights_of_doubles_rounded_once(name, rng):
    row_map, options = WIDE[name]
    for n in (32, 33, 100, 257, 1024, 1500):
        for kind in ("normal", "even", "rounded", "one far off", "equal"):
            for scale in (1.0, 0.1, 0.01, 1e-3, 1e-5):
                z = wide_rows(n, kind, scale, rng)
                p = getattr(sh, row_map)(z, *options)
                exact = getattr(sh, row_map)(z.astype(np.float64), *options)
                assert same_bits(p, exact.astype(np.float32)), (n, kind, scale)
                np.testing.assert_allclose(exact.sum(axis=-1), 1, rtol=0, atol=1e-9)
                in_place = z.copy()
                assert getattr(sh, row_map)(in_place, *options, out=in_place) is in_place
                assert same_bits(in_place, p), (n, kind, scale)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", WIDE)
def test_wide_supports_match_the_reference(name, dtype, rng):
    row_map, options = WIDE[name]
    for n in (100, 1027):
        for scale in (0.3, 0.01, 1e-4):
            z = wide_rows(n, "normal", scale, rng)[:3].astype(dtype)
            p = getattr(sh, row_map)(z, *options)
            want = getattr(reference, row_map)(z.astype(np.float64), *options)
            np.testing.assert_allclose(p, want, rtol=1e-6 if dtype == np.float32 else 1e-9, atol=1e-12)


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", VJPS)
def test_vjps(name, dtype, rng):
    vjp, row_map, options = VJPS[name]
    alpha = options[0] if options else {"softmax": 1.0, "sparsemax": 2.0, "entmax": 1.5}[name]
    u = ROUNDOFF[np.dtype(dtype)]
    for n in (1, 2, 5, 16, 17, 40, 65, 1027):
        p = getattr(sh, row_map)((rng.normal(size=(4, n)) * 2).astype(dtype), *options)
        g = rng.normal(size=(4, n)).astype(dtype)
        got = getattr(sh, vjp)(p, g, *options)
        assert got.dtype == dtype
        want = getattr(reference, vjp)(p, g, *options)
        s = np.where(p > 0, np.where(p > 0, p, 1).astype(float) ** (2 - alpha), 0)
        mean = (s * np.abs(g)).sum(axis=-1, keepdims=True) / s.sum(axis=-1, keepdims=True)
        # s and the mean cost a few u each, relative to what is added up.
        limit = 16 * u * s * (np.abs(g) + mean) + np.finfo(dtype).tiny
        if row_map in IN_TABLE:  # whose slopes are at most s / (alpha - 1), and whose centre is p
            limit = limit + 64 * u * (s + p * s.sum(axis=-1, keepdims=True)) * np.abs(g).max() / (alpha - 1)
        assert (np.abs(got - want) <= limit).all()
        for axis in (0, 1):
            flipped = getattr(sh, vjp)(np.moveaxis(p, -1, axis), np.moveaxis(g, -1, axis), *options, axis=axis)
            np.testing.assert_array_equal(np.moveaxis(flipped, axis, -1), got)
        out = np.empty_like(p)
        assert getattr(sh, vjp)(p, g, *options, out=out) is out
        np.testing.assert_array_equal(out, got)
        np.testing.assert_array_equal(
            getattr(sh, vjp)(p, g[::-1], *options)[::-1], getattr(sh, vjp)(p[::-1], g, *options)
        )


@pytest.mark.parametrize("name", VJPS)
def test_vjps_against_differences(name, rng):
    vjp, row_map, options = VJPS[name]
    alpha = options[0] if options else {"softmax": 1.0, "sparsemax": 2.0, "entmax": 1.5}[name]
    done = 0
    while done < 5:
        z, g = rng.normal(size=9), rng.normal(size=9)
        if row_map in IN_TABLE:
            near = np.abs(z - getattr(reference, f"{row_map}_threshold")(z, alpha)[0]).min()
        else:
            near = np.abs((alpha - 1) * z - reference.entmax_threshold(z, alpha)[0]).min() if alpha > 1 else 1
        if near < 1e-3 or (row_map in IN_TABLE and near < 0.05):
            continue  # a kink is near
        done += 1
        steps = np.eye(9) * 1e-5
        numeric = (getattr(sh, row_map)(z + steps, *options) - getattr(sh, row_map)(z - steps, *options)) @ g / 2e-5
        # truncation: 1e-10 times a third derivative; rounding: 1e-16 / 1e-5
        np.testing.assert_allclose(
            getattr(sh, vjp)(getattr(sh, row_map)(z, *options), g, *options), numeric, rtol=0, atol=2e-6
        )


@pytest.mark.parametrize("name", VJPS)
def test_vjps_of_special_rows(name):
    vjp, _, options = VJPS[name]
    vjp = getattr(sh, vjp)
    assert np.isnan(vjp([0.5, 0.5, 0.0], [1.0, np.nan, 0.0], *options)).all()
    assert np.isnan(vjp([np.nan, np.nan, np.nan], [1.0, 2.0, 0.0], *options)).all()
    np.testing.assert_array_equal(vjp(np.zeros(4), np.arange(4.0), *options), np.zeros(4))
    got = vjp([0.25, 0.75, 0.0], [1.0, 2.0, 1e300], *options)  # a masked entry gets and gives nothing
    assert got[2] == 0
    np.testing.assert_allclose(got[:2], vjp([0.25, 0.75], [1.0, 2.0], *options), rtol=1e-15)
    assert vjp(np.empty((3, 0)), np.empty((3, 0)), *options).shape == (3, 0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", [1.0, 1.0 + 1e-9, 1.1, 1.5, 2.0, 2.5])
def test_gradient_in_alpha(alpha, dtype, rng):
    for n in (1, 2, 9, 33, 300):
        p = sh.entmax((rng.normal(size=(5, n)) * 2).astype(dtype), alpha)
        g = rng.normal(size=(5, n)).astype(dtype)
        got = sh.entmax_vjp_alpha(p, g, alpha)
        assert got.shape == (5,)
        assert got.dtype == dtype
        q = p.astype(float)
        log = np.log(np.where(q > 0, q, 1))
        size = (q * (1 + log**2) * np.maximum(np.where(q > 0, q, 1) ** (1 - alpha), 1) * np.abs(g)).sum(axis=-1)
        # Differences of terms of this size.
        np.testing.assert_array_less(
            np.abs(got - reference.entmax_vjp_alpha(p, g, alpha)),
            64 * ROUNDOFF[np.dtype(dtype)] * (size + np.abs(g).max()) * (1 + size.max()),
        )
    assert np.isnan(sh.entmax_vjp_alpha([0.5, np.nan], [1.0, 1.0], alpha))


def test_gradient_in_alpha_against_differences(rng):
    done = 0
    while done < 10:
        z, g, alpha, h = rng.normal(size=12), rng.normal(size=12), rng.uniform(1.01, 2.2), 1e-5
        if np.abs((alpha - 1) * z - reference.entmax_threshold(z, alpha)[0]).min() < 1e-3:
            continue
        done += 1
        numeric = (sh.entmax(z, alpha + h) - sh.entmax(z, alpha - h)) @ g / (2 * h)
        assert sh.entmax_vjp_alpha(sh.entmax(z, alpha), g, alpha) == pytest.approx(numeric, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("alpha", [1.05, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("name", sorted(IN_TABLE))
def test_gradient_in_alpha_of_other_maps(name, alpha, rng):
    row_map, derivative = getattr(sh, name), getattr(sh, f"{name}_vjp_alpha")
    done = 0
    while done < 10:
        z, g, h = rng.normal(size=12), rng.normal(size=12), 1e-6
        if np.abs(z - getattr(reference, f"{name}_threshold")(z, alpha)[0]).min() < 0.05:
            continue
        done += 1
        p = row_map(z, alpha)
        numeric = (row_map(z, alpha + h) - row_map(z, alpha - h)) @ g / (2 * h)
        assert derivative(p, g, alpha) == pytest.approx(numeric, rel=1e-5, abs=1e-7)
        want = getattr(reference, f"{name}_vjp_alpha")(p, g, alpha)
        assert derivative(p, g, alpha) == pytest.approx(want, rel=1e-12, abs=1e-13)
        assert derivative(p.astype(np.float32), g.astype(np.float32), alpha).dtype == np.float32
    assert np.isnan(derivative([0.5, np.nan], [1.0, 1.0], alpha))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", [1, 2, 3, 10])
def test_polynomial_vjp(order, dtype, rng):
    for n in (1, 2, 17, 100):
        z = rng.uniform(0.2, 3.0, size=(4, n)).astype(dtype)  # of one sign, so that no sum cancels
        z[:, :1] *= -1 if order % 2 == 0 else 1
        p, g = sh.polynomial(z, order), rng.normal(size=(4, n)).astype(dtype)
        got, want = sh.polynomial_vjp(z, p, g, order), reference.polynomial_vjp(z, p, g, order)
        assert got.dtype == dtype
        size = order * p / np.abs(z) * (np.abs(g) + (p * np.abs(g)).sum(axis=-1, keepdims=True))
        assert (np.abs(got - want) <= (16 + 4 * order) * ROUNDOFF[np.dtype(dtype)] * size).all()
    z = np.array([1.0, 2.0, -np.inf])
    got = sh.polynomial_vjp(z, sh.polynomial(z, order), np.array([1.0, 3.0, 5.0]), order)
    assert got[2] == 0
    z, g = rng.uniform(0.3, 2, size=6), rng.normal(size=6)
    steps = np.eye(6) * 1e-6
    numeric = (sh.polynomial(z + steps, order) - sh.polynomial(z - steps, order)) @ g / 2e-6
    np.testing.assert_allclose(sh.polynomial_vjp(z, sh.polynomial(z, order), g, order), numeric, rtol=1e-6, atol=1e-7)
    assert np.isnan(sh.polynomial_vjp([1.0, np.nan], [0.5, 0.5], [1.0, 1.0], order)).all()
    np.testing.assert_array_equal(sh.polynomial_vjp(np.zeros(3), np.zeros(3), np.ones(3), order), np.zeros(3))


@pytest.mark.parametrize("alpha", [1.0, 1.25, 1.5, 2.0, 2.5])
def test_conjugate_by_definition(alpha, rng):
    """<p, z> - Omega(p) at the C core's own weights, in float64, where nothing cancels."""
    z = rng.normal(size=(30, 15))
    p = sh.entmax(z, alpha)
    if alpha == 1:
        omega = np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)
    else:
        omega = ((p**alpha).sum(axis=-1) - p.sum(axis=-1)) / (alpha * (alpha - 1))
    np.testing.assert_allclose(sh.entmax_conjugate(z, alpha), (p * z).sum(axis=-1) - omega, rtol=0, atol=2e-14)
    if alpha == 1:
        np.testing.assert_allclose(sh.softmax_conjugate(z), sh.entmax_conjugate(z, 1.0), rtol=1e-15)
    if alpha == 2:
        np.testing.assert_allclose(sh.sparsemax_conjugate(z), sh.entmax_conjugate(z, 2.0), rtol=4e-16, atol=4e-16)


# --- errors ---------------------------------------------------------------------------------------

EVERY = {**WEIGHTS, **NUMBERS, **THRESHOLDS}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("z", [[1j, 2.0], [object(), object()], ["a", "b"]], ids=["complex", "object", "str"])
def test_wrong_kinds(name, z):
    with pytest.raises(TypeError):
        apply(EVERY, name, np.array(z))


@pytest.mark.parametrize(
    ("function", "option", "name"),
    [
        ("entmax", 0.999, "alpha"),
        ("entmax", np.nan, "alpha"),
        ("entmax", -np.inf, "alpha"),
        ("entmax_threshold", 0.5, "alpha"),
        ("entmax_conjugate", 0.5, "alpha"),
        ("polynomial", 0, "order"),
        ("polynomial", -1, "order"),
        ("topk_softmax", 0, "k"),
        ("topk_softmax", -1, "k"),
        ("topk_sparsemax", 0, "k"),
    ],
)
def test_options_out_of_range(function, option, name):
    kinds = {"order": ["2", 2.5, np.nan], "k": ["2", 2.5, np.nan], "alpha": ["1.5", 1j]}
    for wrong in kinds[name]:
        with pytest.raises(TypeError, match=rf"^{name}:"):
            getattr(sh, function)(np.arange(3.0), wrong)
    out = np.full(3, 7.0)
    keywords = {} if "threshold" in function or "conjugate" in function else {"out": out}
    with pytest.raises(ValueError, match=rf"^{name}:"):
        getattr(sh, function)(np.arange(3.0), option, **keywords)
    np.testing.assert_array_equal(out, 7)
    with pytest.raises(ValueError, match=rf"^{name}:"):  # one bad option among good ones
        getattr(sh, function)(np.ones((2, 3)), np.array([2, option]))


@pytest.mark.parametrize("function", ["entmax_vjp", "entmax_vjp_alpha"])
def test_vjp_options_out_of_range(function):
    for alpha in (0.5, np.nan):
        with pytest.raises(ValueError, match=r"^alpha:"):
            getattr(sh, function)([0.5, 0.5], [1.0, 2.0], alpha)


def test_shapes_that_do_not_match():
    with pytest.raises(ValueError):  # noqa: PT011 - NumPy's own message
        sh.softmax_vjp(np.ones(3), np.ones(4))
    with pytest.raises(ValueError):  # noqa: PT011
        sh.softmax(np.ones(3), out=np.ones(4))
    with pytest.raises((ValueError, TypeError)):
        sh.softmax(np.float64(1.0))  # a number is no row
    with pytest.raises(ValueError):  # noqa: PT011
        sh.softmax(np.ones((2, 3)), axis=2)
    readonly = np.ones(3)
    readonly.flags.writeable = False
    with pytest.raises(ValueError):  # noqa: PT011
        sh.softmax(np.ones(3), out=readonly)


def test_no_floating_point_warnings(recwarn):
    rows = ([np.nan, 1, 2], [np.inf, 1, 2], [-np.inf] * 3, [1e30, -1e30, 0], [0, 0, 0], [-200, 0, 1])
    with np.errstate(all="raise"):
        for name in EVERY:
            for row in rows:
                apply(EVERY, name, np.array([row] * 20, np.float32))
    assert not recwarn.list


# --- properties -----------------------------------------------------------------------------------

rows_of_scores = hnp.arrays(
    np.float64,
    st.integers(1, 40),
    elements=st.one_of(st.floats(-20, 20), st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-12, 1e6, -1e6])),
)
examples = settings(derandomize=True, database=None)


@examples
@given(rows_of_scores, st.floats(1, 4))
def test_weights_lie_on_the_simplex_in_the_order_of_scores(z, alpha):
    for p in (sh.softmax(z), sh.sparsemax(z), sh.entmax(z, alpha)):
        assert (p >= 0).all()
        # For alpha > 2 a weight at the threshold moves by u^(1 / (alpha - 1)) if the threshold moves by u.
        atol = max(1e-13, z.size * (8e-16 * alpha) ** (1 / max(alpha - 1, 1)))
        assert p.sum() == pytest.approx(1, abs=atol)
        order = np.argsort(z, kind="stable")
        assert (np.diff(p[order]) >= 0).all()
        assert (p[:, None] == p[None, :])[z[:, None] == z[None, :]].all()  # equal scores share equally


@examples
@given(rows_of_scores, st.floats(-1e3, 1e3), st.floats(1, 2))
def test_a_shift_changes_nothing(z, shift, alpha):
    shifted = z + shift
    # The shifted scores are rounded, each by this much, and weights move by at most 2 kappa as much.
    e = float(np.spacing(np.abs(shifted).max()))
    for row_map in (sh.softmax, sh.sparsemax, lambda y: sh.entmax(y, alpha)):
        assert np.abs(row_map(shifted) - row_map(z)).sum() <= 2 * z.size * e + 1e-13


@examples
@given(rows_of_scores)
def test_sparsemax_majorises_softmax(z):
    """Every sum of the k largest weights is at least softmax's (theory, section 1)."""
    sparse, soft = (np.cumsum(np.sort(row_map(z))[::-1]) for row_map in (sh.sparsemax, sh.softmax))
    assert (sparse >= soft - 1e-14).all()


@examples
@given(rows_of_scores)
def test_named_members_of_the_family(z):
    np.testing.assert_allclose(sh.entmax(z, 2.0), sh.sparsemax(z), rtol=0, atol=1e-15)
    np.testing.assert_allclose(sh.entmax(z, 1.0), sh.softmax(z), rtol=1e-15, atol=0)
    np.testing.assert_array_equal(sh.entmax(z), sh.entmax(z, 1.5))
    np.testing.assert_allclose(sh.topk_softmax(z, z.size), sh.softmax(z), rtol=1e-14, atol=1e-300)
    np.testing.assert_allclose(sh.topk_sparsemax(z, z.size), sh.sparsemax(z), rtol=0, atol=1e-15)
    _, kappa = sh.sparsemax_threshold(z)
    np.testing.assert_array_equal(sh.topk_sparsemax(z, int(kappa)) > 0, sh.sparsemax(z) > 0)


@examples
@given(rows_of_scores, st.floats(1, 2), st.floats(1e-9, 1e-3))
def test_continuity_in_alpha(z, alpha, gap):
    # |dp/d alpha|_1 <= 2 sum p q <= 2 max u^2 phi: below 2 (ln n)^2 + ... < 100 for the 40 weights of a row
    moved = sh.entmax(z, alpha + gap)
    assert np.abs(moved - sh.entmax(z, alpha)).sum() <= 100 * gap + 1e-12


@examples
@given(rows_of_scores, st.floats(0.1, 2.0))
def test_sparsemax_is_a_contraction(z, size):
    """|sparsemax(z) - sparsemax(y)|_2 <= |z - y|_2: it is a projection."""
    y = z + size * np.cos(np.arange(z.size))
    assert np.linalg.norm(sh.sparsemax(z) - sh.sparsemax(y)) <= np.linalg.norm(z - y) * (1 + 1e-14) + 1e-14


@examples
@given(hnp.mutually_broadcastable_shapes(signature="(n),()->(n)", max_dims=3, max_side=4))
def test_broadcasting(shapes):
    (first, second), result = shapes.input_shapes, shapes.result_shape
    rng = np.random.default_rng(1)
    z, alpha = rng.normal(size=first), rng.uniform(1, 2, size=second)
    got = sh.entmax(z, alpha)
    assert got.shape == result
    np.testing.assert_allclose(got, reference.entmax(z, alpha), rtol=0, atol=1e-14)
