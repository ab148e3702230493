"""The Fenchel-Young losses of arrays: their definition, their gradients, masks, and other packages that have them."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import sparsehopfield as sh
from sparsehopfield import losses, reference

ALPHAS = [1.0, 1.2, 1.5, 2.0, 3.0]
ROWS, CLASSES = 30, 9


def problem(rows=ROWS, classes=CLASSES):
    """Return scores (rows, classes), classes (rows,), and distributions of which some classes have no part."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((rows, classes)) * 2
    return z, rng.integers(0, classes, rows), reference.sparsemax(rng.standard_normal((rows, classes)))


def distributions_of(classes, n):
    return np.eye(n)[classes]


# --- what they are ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_loss_is_the_conjugate_less_the_score_and_its_gradient_the_weights_less_the_class(alpha):
    z, target, q = problem()
    loss, gradient = sh.entmax_loss(z, target, alpha, return_gradient=True)
    np.testing.assert_allclose(loss, sh.entmax_conjugate(z, alpha) - z[np.arange(ROWS), target], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(gradient, sh.entmax(z, alpha) - distributions_of(target, CLASSES))
    assert (loss >= 0).all()
    loss, gradient = sh.entmax_loss(z, q, alpha, return_gradient=True)
    omega = (
        (np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0)) if alpha == 1 else (q**alpha - q) / alpha / (alpha - 1)
    )
    want = sh.entmax_conjugate(z, alpha) + omega.sum(axis=1) - (z * q).sum(axis=1)
    np.testing.assert_allclose(loss, want, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradient, sh.entmax(z, alpha) - q, rtol=0, atol=1e-16)


def test_the_three_are_one_family():
    z, target, q = problem()
    for true in (target, q):
        np.testing.assert_array_equal(sh.softmax_loss(z, true), sh.entmax_loss(z, true, 1))
        np.testing.assert_array_equal(sh.sparsemax_loss(z, true), sh.entmax_loss(z, true, 2))
        np.testing.assert_array_equal(sh.entmax_loss(z, true), sh.entmax_loss(z, true, 1.5))
        for alpha in (1 + 1e-9, 1 + 1e-6):
            np.testing.assert_allclose(sh.entmax_loss(z, true, alpha), sh.softmax_loss(z, true), atol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_class_is_the_distribution_that_has_all_of_it(alpha):
    z, target, _ = problem()
    z[::3, 2] = -np.inf
    for options in ({}, {"reduction": "mean"}, {"sample_weight": np.arange(ROWS)}):
        found = sh.entmax_loss(z, target, alpha, return_gradient=True, **options)
        want = sh.entmax_loss(z, distributions_of(target, CLASSES), alpha, return_gradient=True, **options)
        for a, b in zip(found, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_nothing_is_lost_where_the_weights_are_what_is_true(alpha):
    z, _, _ = problem()
    q = sh.entmax(z, alpha)
    loss, gradient = sh.entmax_loss(z, q, alpha, return_gradient=True)
    np.testing.assert_allclose(loss, 0, atol=1e-14)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)


def test_margins():
    z = np.array([[1.0, 0.0, 0.0], [0.999, 0.0, 0.0], [2.0, 0.0, 0.0], [1.99, 0.0, 0.0]])
    loss, gradient = sh.sparsemax_loss(z, [0] * 4, return_gradient=True)
    assert (loss[[0, 2]] == 0).all()
    assert not gradient[[0, 2]].any()
    assert loss[1] > 0
    loss, gradient = sh.entmax_loss(z, [0] * 4, return_gradient=True)
    assert loss[2] == 0
    assert not gradient[2].any()
    assert (loss[[0, 1, 3]] > 0).all()


# --- gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradients_are_those_of_difference_quotients(alpha, soft, reduction):
    z, target, q = problem(4, 5)
    true = q if soft else np.where(np.arange(4) == 2, -100, target)
    z[0, (target[0] + 1) % 5] = -np.inf
    true = np.where(np.isneginf(z), 0, true) if soft else true
    true = true / true.sum(axis=1, keepdims=True) if soft else true
    options = {"reduction": reduction, "sample_weight": [0.5, 2.0, 1.0, 0.0]}
    _, gradient = sh.entmax_loss(z, true, alpha, return_gradient=True, **options)
    step = 1e-6
    for i in zip(*np.nonzero(np.isfinite(z)), strict=True):
        sides = []
        for sign in (1, -1):
            moved = z.copy()
            moved[i] += sign * step
            sides.append(np.sum(sh.entmax_loss(moved, true, alpha, **options)))
        assert gradient[i] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=2e-8)
    assert not gradient[~np.isfinite(z)].any()
    assert not gradient[3].any()


# --- masks, rows that are ignored, numbers that are none ----------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_classes_are_as_if_they_were_not_there(alpha, dtype):
    z, target, q = problem()
    z, target = z.astype(dtype), target % (CLASSES - 2)
    kept = np.isin(np.arange(CLASSES), [CLASSES - 2, CLASSES - 1], invert=True)
    masked = np.where(kept, z, -np.inf).astype(dtype)
    q = np.where(kept, q, 0) + 1e-3 * kept
    q /= q.sum(axis=1, keepdims=True)
    for true, less in ((target, target), (q, q[:, kept])):
        loss, gradient = sh.entmax_loss(masked, true, alpha, return_gradient=True)
        want, want_gradient = sh.entmax_loss(z[:, kept], less, alpha, return_gradient=True)
        assert np.isfinite(loss).all()
        np.testing.assert_allclose(loss, want, rtol=1e-6 if dtype == np.float32 else 1e-13, atol=1e-14)
        np.testing.assert_allclose(gradient[:, kept], want_gradient, rtol=1e-6 if dtype == np.float32 else 1e-13)
        assert not gradient[:, ~kept].any()
    hidden = np.ma.array(np.where(kept, z, np.nan).astype(dtype), mask=np.broadcast_to(~kept, z.shape))
    np.testing.assert_array_equal(sh.entmax_loss(hidden, target, alpha), sh.entmax_loss(masked, target, alpha))


@pytest.mark.parametrize("module", [sh, reference], ids=["package", "reference"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_what_is_true_and_masked(alpha, module):
    """The loss is infinite, which it is in truth, and the gradient is finite."""
    z = np.array([[0.0, 1.0, -np.inf], [-np.inf, -np.inf, -np.inf], [1.0, 2.0, 3.0], [np.nan, 1.0, -np.inf]])
    target = np.array([2, 1, 0, 2])
    for true in (target, distributions_of(target, 3)):
        loss, gradient = module.entmax_loss(z, true, alpha, return_gradient=True)
        assert np.isposinf(loss[:2]).all()
        assert np.isfinite(loss[2])
        assert np.isnan(loss[3])
        np.testing.assert_allclose(gradient[0], sh.entmax(z[0], alpha) - [0, 0, 1])
        np.testing.assert_array_equal(gradient[1], [0, -1, 0])
        assert np.isfinite(gradient[:3]).all()
        assert np.isnan(gradient[3]).all()


@pytest.mark.parametrize("module", [sh, reference], ids=["package", "reference"])
@pytest.mark.parametrize("ignore_index", [-100, 3, 10**9])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_ignored_rows_count_nowhere(alpha, ignore_index, module):
    z, target, _ = problem()
    target[target == 3] = 4
    ignored = np.arange(ROWS) % 4 == 1
    z[1], z[5], z[9, 0] = np.nan, -np.inf, np.inf
    target[ignored] = ignore_index
    rest = z[~ignored], target[~ignored]
    for reduction in ("none", "sum", "mean", "elementwise_mean"):
        options = {"ignore_index": ignore_index, "reduction": reduction, "return_gradient": True}
        loss, gradient = module.entmax_loss(z, target, alpha, **options)
        want, want_gradient = module.entmax_loss(*rest, alpha, **options)
        if reduction == "none":
            assert not loss[ignored].any()
            loss = loss[~ignored]
        np.testing.assert_allclose(loss, want, rtol=1e-14)
        np.testing.assert_allclose(gradient[~ignored], want_gradient, rtol=1e-14)
        assert not gradient[ignored].any()


@pytest.mark.parametrize("module", [sh, reference], ids=["package", "reference"])
def test_nothing_to_take_the_mean_of(module):
    z = np.zeros((2, 3))
    for arguments in (
        {"z": z, "target": [-100, -100]},
        {"z": z[:0], "target": np.zeros(0, int)},
        {"z": z, "target": [0, 1], "sample_weight": [0, 0]},
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss, gradient = module.softmax_loss(**arguments, reduction="mean", return_gradient=True)
        assert np.isnan(loss)  # as PyTorch has it
        assert not gradient.any()
        assert module.softmax_loss(**arguments, reduction="sum") == 0


def test_rows_without_weight_are_ignored():
    z, target, _ = problem()
    z[4, target[4]] = -np.inf
    weight = np.random.default_rng(1).random(ROWS)
    weight[4] = 0
    loss, gradient = sh.entmax_loss(z, target, sample_weight=weight, return_gradient=True)
    plain, plain_gradient = sh.entmax_loss(z, target, return_gradient=True)
    rest = np.arange(ROWS) != 4
    np.testing.assert_allclose(loss[rest], weight[rest] * plain[rest], rtol=1e-15)
    np.testing.assert_allclose(gradient[rest], (weight[:, None] * plain_gradient)[rest], rtol=1e-15)
    assert loss[4] == 0
    assert not gradient[4].any()
    mean = sh.entmax_loss(z, target, sample_weight=weight, reduction="mean")
    assert mean == pytest.approx(loss.sum() / weight.sum(), rel=1e-15)
    doubled = sh.entmax_loss(np.repeat(z, 2, axis=0), np.repeat(target, 2), reduction="mean", ignore_index=target[4])
    weighted = sh.entmax_loss(z, target, sample_weight=np.full(ROWS, 2), reduction="mean", ignore_index=target[4])
    assert doubled == pytest.approx(weighted, rel=1e-14)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_weights(dtype, reduction):
    """No NaN comes of weights beyond float32, or whose sum is beyond float64; the mean goes by their quotients."""
    z, target, _ = problem(6)
    options = {"reduction": reduction, "return_gradient": True}
    large = sh.sparsemax_loss(z.astype(dtype), target, sample_weight=[1.5e308, 1.5e308, 1, 0, 1, 1], **options)
    assert not np.isnan(large[0]).any()
    assert not np.isnan(large[1]).any()
    if reduction == "mean":
        less = sh.sparsemax_loss(z.astype(dtype), target, sample_weight=[1, 1, 0, 0, 0, 0], **options)
        for a, b in zip(large, less, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("level", [1e4, 1e30, -1e30])
def test_large_scores(alpha, level):
    """Only differences count, so that no size of the scores costs digits."""
    z = np.array([[level, -level, 0.0], [level, level, level]])
    loss, gradient = sh.entmax_loss(z, [1, 2], alpha, return_gradient=True)
    assert loss[0] == pytest.approx(max(2 * level, 0), rel=1e-12)
    uniform = sh.entmax_loss(np.zeros((1, 3)), [0], alpha)[0]
    assert loss[1] == pytest.approx(uniform, rel=1e-14)
    assert np.isfinite(gradient).all()
    shifted = np.array([[0.0, 1.0, 3.0]]) + 2.0**40
    assert sh.entmax_loss(shifted, [1], alpha)[0] == sh.entmax_loss([[0.0, 1.0, 3.0]], [1], alpha)[0]


# --- shapes and dtypes --------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_axes(alpha, axis, reduction):
    z, target, q = problem(6, 5)
    z, target, q = z.reshape(2, 3, 5), target.reshape(2, 3), q.reshape(2, 3, 5)
    weight = np.arange(6).reshape(2, 3)
    options = {"reduction": reduction, "return_gradient": True, "sample_weight": weight}
    for true in (target, q):
        want, want_gradient = sh.entmax_loss(z, true, alpha, **options)
        moved = true if true is target else np.moveaxis(true, -1, axis)
        for scores in (np.moveaxis(z, -1, axis), np.ascontiguousarray(np.moveaxis(z, -1, axis))):
            loss, gradient = sh.entmax_loss(scores, moved, alpha, axis=axis, **options)
            np.testing.assert_array_equal(loss, want)
            np.testing.assert_array_equal(np.moveaxis(gradient, axis, -1), want_gradient)
    row, row_gradient = sh.entmax_loss(z[0, 1], target[0, 1], alpha, return_gradient=True)
    assert np.ndim(row) == 0
    np.testing.assert_array_equal(row, sh.entmax_loss(z, target, alpha)[0, 1])
    assert row_gradient.shape == (5,)


@pytest.mark.parametrize("integers", [np.int8, np.uint8, np.int32, np.uint64, np.int64])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.int8])
def test_dtypes(dtype, integers):
    z, target, q = problem()
    z = z.astype(dtype)
    computed = np.float64 if z.dtype.itemsize == 8 else np.float32
    for true in (target.astype(integers), q.astype(np.float16), q.astype(np.float32)):
        loss, gradient = sh.entmax_loss(z, true, return_gradient=True)
        assert loss.dtype == gradient.dtype == computed
        want, want_gradient = reference.entmax_loss(z.astype(float), true, return_gradient=True)
        eps = np.finfo(computed).eps
        np.testing.assert_allclose(loss, want, rtol=8 * eps, atol=8 * eps)
        np.testing.assert_allclose(gradient, want_gradient, rtol=8 * eps, atol=8 * eps)
    np.testing.assert_array_equal(
        sh.softmax_loss(z.tolist(), target.tolist()), sh.softmax_loss(z.astype(float), target)
    )


def test_gradients_have_the_bits_of_the_row_maps():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        z = rng.standard_normal((700, 600)).astype(dtype)  # more than one block
        target = rng.integers(0, 600, 700)
        for alpha in ALPHAS:
            _, gradient = sh.entmax_loss(z, target, alpha, return_gradient=True)
            p = sh.entmax(z, alpha)
            p[np.arange(700), target] -= 1
            np.testing.assert_array_equal(gradient, p)


def test_sums_are_taken_in_double():
    z = np.zeros((100_000, 2), np.float32)
    assert sh.softmax_loss(z, np.zeros(100_000, int), reduction="sum") == pytest.approx(1e5 * np.log(2), rel=1e-12)
    assert type(sh.softmax_loss(z, np.zeros(100_000, int), reduction="mean")) is float


def test_arguments_are_left_alone():
    z, target, q = problem()
    kept = [a.copy() for a in (z, target, q)]
    for a in (z, target, q):
        a.flags.writeable = False
    for true in (target, q):
        sh.entmax_loss(z, true, return_gradient=True, reduction="mean")
    for a, b in zip((z, target, q), kept, strict=True):
        np.testing.assert_array_equal(a, b)


# --- the reference, and other packages ----------------------------------------------------------------

scores = arrays.arrays(
    np.float64,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=5),
    elements=st.one_of(st.floats(-20, 20, width=32), st.just(-np.inf)),
)


@settings(max_examples=60, deadline=None)
@given(z=scores, alpha=st.sampled_from([*ALPHAS, 1.01, 1.9, 5.0]), data=st.data())
def test_agrees_with_the_reference(z, alpha, data):
    rows, n = z.shape
    if data.draw(st.booleans(), label="soft"):
        parts = data.draw(arrays.arrays(np.float64, z.shape, elements=st.integers(0, 3).map(float)))
        parts[:, 0] += ~parts.any(axis=1)
        true = parts / parts.sum(axis=1, keepdims=True)
    else:
        true = data.draw(arrays.arrays(np.int64, rows, elements=st.integers(-1, n - 1)))
    options = {
        "ignore_index": -1,
        "reduction": data.draw(st.sampled_from(losses.REDUCTIONS)),
        "sample_weight": data.draw(arrays.arrays(np.float64, rows, elements=st.sampled_from([0.0, 0.5, 3.0]))),
        "return_gradient": True,
    }
    found, want = sh.entmax_loss(z, true, alpha, **options), reference.entmax_loss(z, true, alpha, **options)
    np.testing.assert_allclose(found[0], want[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], want[1], rtol=1e-7, atol=1e-8)
    assert np.all(np.isnan(found[0]) | (found[0] >= 0))
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_values_of_the_losses_for_tensors(alpha, reduction, masked):
    torch = pytest.importorskip("torch", reason="compares with the losses for tensors")
    import sparsehopfield.torch as sht

    z, target, _ = problem()
    target[3] = target[7] = -100
    if masked:
        z[::2, 0] = -np.inf
        z[7] = -np.inf  # which is ignored
        if reduction == "none":
            z[5], z[11, target[11]] = -np.inf, -np.inf
    loss, gradient = sh.entmax_loss(z, target, alpha, reduction=reduction, return_gradient=True)
    leaf = torch.from_numpy(z).requires_grad_()
    other = sht.entmax_loss(leaf, torch.from_numpy(target), alpha, reduction=reduction)
    np.testing.assert_allclose(loss, other.detach().numpy(), rtol=1e-12, atol=1e-13)
    (other_gradient,) = torch.autograd.grad(other.sum(), leaf)
    np.testing.assert_allclose(gradient, other_gradient.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("classes", [2, 9, 300])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_values_of_the_package_entmax(scale, classes):
    torch = pytest.importorskip("torch", reason="compares with a package for PyTorch")
    package = pytest.importorskip("entmax", reason="compares with the package entmax")
    rng = np.random.default_rng(0)
    z, target = rng.standard_normal((40, classes)) * scale, rng.integers(0, classes, 40)
    for ours, theirs in (
        (sh.sparsemax_loss, package.sparsemax_loss),
        (sh.entmax_loss, package.entmax15_loss),
        (lambda z, y, **k: sh.entmax_loss(z, y, 1.2, **k), lambda z, y: package.entmax_bisect_loss(z, y, 1.2)),
        (lambda z, y, **k: sh.entmax_loss(z, y, 2.5, **k), lambda z, y: package.entmax_bisect_loss(z, y, 2.5)),
        (sh.softmax_loss, lambda z, y: torch.nn.functional.cross_entropy(z, y, reduction="none")),
    ):
        loss, gradient = ours(z, target, return_gradient=True)
        leaf = torch.from_numpy(z).requires_grad_()
        other = theirs(leaf, torch.from_numpy(target))
        np.testing.assert_allclose(loss, other.detach().numpy(), rtol=0, atol=1e-6)
        (other_gradient,) = torch.autograd.grad(other.sum(), leaf)
        np.testing.assert_allclose(gradient, other_gradient.numpy(), rtol=0, atol=1e-6)
        other = theirs(torch.from_numpy(z.astype(np.float32)), torch.from_numpy(target)).numpy()
        np.testing.assert_allclose(ours(z.astype(np.float32), target), other, rtol=1e-6, atol=1e-6 * max(1, scale))


def test_divergence_of_distributions_is_that_of_torch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    z, _, q = problem()
    log_p = torch.log_softmax(torch.from_numpy(z), -1)
    want = torch.nn.functional.kl_div(log_p, torch.from_numpy(q), reduction="none").sum(-1).numpy()
    np.testing.assert_allclose(sh.softmax_loss(z, q), want, rtol=1e-12, atol=1e-14)


# --- what is wrong ------------------------------------------------------------------------------------


def test_what_is_wrong_is_named():
    z, target, q = problem()
    negative, unequal = q.copy(), q.copy()
    negative[2, :2] = -0.5, 0.5
    unequal[4] *= 1.01
    for call, error, message in (
        (lambda: sh.sparsemax_loss("scores", target), TypeError, "^z: must be real numbers"),
        (lambda: sh.sparsemax_loss(3.0, 0), ValueError, "^z: must have at least one axis"),
        (lambda: sh.sparsemax_loss(z[:, :0], target), ValueError, "^z: needs at least one class"),
        (lambda: sh.sparsemax_loss(z, target + 9), ValueError, r"^target: must be classes from 0 to 8, got \d"),
        (lambda: sh.softmax_loss(z, target - 9), ValueError, "^target: must be classes from 0 to 8, got -"),
        (lambda: sh.softmax_loss(z, target.astype(float)), TypeError, "^target: must be whole numbers"),
        (lambda: sh.softmax_loss(z, target > 3), TypeError, "^target: must be whole numbers"),
        (lambda: sh.softmax_loss(z, np.ma.masked_equal(target, target[0])), ValueError, "^target: masks"),
        (lambda: sh.sparsemax_loss(z, target[:3]), ValueError, r"^target: must be of shape \(30,\), got \(3,\)"),
        (lambda: sh.sparsemax_loss(z, q[:3]), ValueError, r"^target: distributions must be of z's shape \(30, 9\)"),
        (lambda: sh.sparsemax_loss(z, negative), ValueError, "^target: must be distributions.*row 2 is none"),
        (lambda: sh.sparsemax_loss(z, unequal), ValueError, "^target: must be distributions.*row 4 is none"),
        (lambda: sh.sparsemax_loss(z, q * np.nan), ValueError, "^target: must be distributions.*row 0 is none"),
        (lambda: sh.sparsemax_loss(z, target, reduction="max"), ValueError, "^reduction: unknown name"),
        (lambda: sh.sparsemax_loss(z, target, reduction=None), TypeError, "^reduction: must be one of"),
        (lambda: sh.sparsemax_loss(z, target, ignore_index=1.5), TypeError, "^ignore_index: must be a whole number"),
        (lambda: sh.sparsemax_loss(z, target, axis=2), ValueError, "^axis: 2 is out of range for z"),
        (lambda: sh.sparsemax_loss(z, target, axis=0), ValueError, r"^target: must be of shape \(9,\)"),
        (lambda: sh.sparsemax_loss(z, target, sample_weight=[1, 2]), ValueError, "^sample_weight: must be of shape"),
        (lambda: sh.sparsemax_loss(z, target, sample_weight=-target - 1), ValueError, "^sample_weight: must be finite"),
        (lambda: sh.sparsemax_loss(z, target, sample_weight=z[:, 0] * np.nan), ValueError, "^sample_weight: must be"),
        (lambda: sh.entmax_loss(z, target, 0.5), ValueError, "^alpha: must be a finite number of at least 1"),
        (lambda: sh.entmax_loss(z, target, "two"), TypeError, "^alpha: must be"),
    ):
        with pytest.raises(error, match=message):
            call()
