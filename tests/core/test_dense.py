"""The dense pieces against their formulas and finite differences, in both precisions, and odd shapes."""

import numpy as np
import pytest
from helpers import fails_without_memory
from hypothesis import given
from hypothesis import strategies as st

from sparsehopfield._engine import dense

DTYPES = [np.float32, np.float64]


def slope(f, x, direction, step=1e-6):
    """The derivative of f along a direction."""
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


def close(a, b, tolerance=1e-7):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (0, 6), (2, 0, 6)])
@pytest.mark.parametrize("biased", [False, True])
def test_linear(dtype, shape, biased):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.normal(size=s).astype(dtype) for s in (shape, (5, 6), (5,)))
    out = dense.linear(x, weight, bias if biased else None)
    assert out.dtype == dtype
    close(out, np.einsum("...e,oe->...o", x, weight) + bias * biased, 1e-5)
    grad = rng.normal(size=out.shape).astype(dtype)
    dx, dweight, dbias = dense.linear_backward(x, weight, grad)
    assert {a.dtype for a in (dx, dweight, dbias)} == {np.dtype(dtype)}
    close(dx, np.einsum("...o,oe->...e", grad, weight), 1e-5)
    close(dweight, np.einsum("no,ne->oe", grad.reshape(-1, 5), x.reshape(-1, 6)), 1e-5)
    close(dbias, grad.reshape(-1, 5).sum(axis=0), 1e-5)
    none, again, _ = dense.linear_backward(x, weight, grad, need_x=False)
    assert none is None
    assert np.array_equal(again, dweight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [255, 513, 1281, 5000])
def test_gradients_of_many_rows(dtype, rows):
    """They are cut into parts, whose gradients are summed; again the same bits."""
    rng = np.random.default_rng(0)
    x, weight, grad = (rng.normal(size=s).astype(dtype) for s in ((rows, 21), (70, 21), (rows, 70)))
    dx, dweight, dbias = dense.linear_backward(x, weight, grad)
    wide = grad.astype(np.float64)
    tolerance = 1e-3 if dtype == np.float32 else 1e-11
    close(dx, wide @ weight, tolerance)
    close(dweight, wide.T @ x, tolerance)
    close(dbias, wide.sum(axis=0), tolerance)
    assert all(map(np.array_equal, dense.linear_backward(x, weight, grad), (dx, dweight, dbias)))


def test_no_memory_for_the_parts():
    x, weight, grad = (np.ones(s, np.float32) for s in ((2000, 21), (70, 21), (2000, 70)))
    assert fails_without_memory(lambda: dense.linear_backward(x, weight, grad))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (0, 6), (3, 1)])
def test_normalize(dtype, shape):
    x = (3 + np.random.default_rng(0).normal(size=shape)).astype(dtype)
    before = x.copy()
    xhat, rstd = dense.normalize(x, 1e-3)
    assert np.array_equal(x, before)
    assert xhat.dtype == rstd.dtype == dtype
    assert rstd.shape == shape[:-1]
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-3)
    close(xhat, expected, 1e-5 if dtype == np.float32 else 1e-12)


def test_normalize_of_equal_numbers_is_zero():
    for value in (0.0, 1.0, -1e30):
        xhat, rstd = dense.normalize(np.full((2, 8), value, np.float32), 1e-5)
        assert not xhat.any()
        assert np.isfinite(rstd).all()
        assert not dense.normalize_backward(xhat, rstd, np.ones_like(xhat)).any()


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_gradient_of_normalize(rows, size, seed):
    rng = np.random.default_rng(seed)
    x, grad, direction = rng.normal(size=(3, rows, size))
    numeric = slope(lambda a: np.vdot(grad, dense.normalize(a, 0.1)[0]), x, direction)
    before = grad.copy()
    dx = dense.normalize_backward(*dense.normalize(x, 0.1), grad)
    assert np.array_equal(grad, before)
    close(np.vdot(dx, direction), numeric)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [False, True])
def test_fold(dtype, biased):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(4, 6)).astype(dtype), rng.normal(size=(5, 6)).astype(dtype)
    bias, (gain, shift) = rng.normal(size=5).astype(dtype), rng.normal(size=(2, 6)).astype(dtype)
    folded, moved = np.empty((5, 6), dtype), np.empty(5, dtype)
    dense.fold(weight, bias if biased else None, gain, shift, (folded, moved))
    close(dense.linear(x, folded, moved), dense.linear(x * gain + shift, weight, bias * biased), 1e-5)


@pytest.mark.parametrize("e", [6, 45])
def test_gradient_of_fold(e):
    rng = np.random.default_rng(0)
    weight, dweight, d_w = rng.normal(size=(3, 5, e))
    dbias, (gain, shift, d_g, d_s) = rng.normal(size=5), rng.normal(size=(4, e))

    def value(weight, gain, shift):
        folded, moved = np.empty((5, e)), np.empty(5)
        dense.fold(weight, None, gain, shift, (folded, moved))
        return np.vdot(dweight, folded) + np.vdot(dbias, moved)

    of_weight, of_gain, of_shift = dense.unfold(dweight, dbias, weight, gain, shift)
    close(np.vdot(of_weight, d_w), slope(lambda a: value(a, gain, shift), weight, d_w))
    close(np.vdot(of_gain, d_g), slope(lambda a: value(weight, a, shift), gain, d_g))
    close(np.vdot(of_shift, d_s), slope(lambda a: value(weight, gain, a), shift, d_s))


@pytest.mark.parametrize("dtype", DTYPES)
def test_adamw_is_its_algorithm(dtype):
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5,), (1, 1, 2)]
    values = [rng.normal(size=s).astype(dtype) for s in shapes]
    first, second = ([np.zeros(s, dtype) for s in shapes] for _ in range(2))
    theta = [v.astype(np.float64) for v in values]
    m, v = ([np.zeros(s) for s in shapes] for _ in range(2))
    rate, (b1, b2), eps, decay = 0.03, (0.8, 0.95), 1e-6, 0.1
    for t in range(1, 8):
        grads = [rng.normal(size=s).astype(dtype) for s in shapes]
        kept = [g.copy() for g in grads]
        dense.adamw(
            values, grads, first, second, t, learning_rate=rate, betas=(b1, b2), eps=eps, weight_decay=decay
        )  # fmt: skip
        assert all(np.array_equal(a, b) for a, b in zip(grads, kept, strict=True))
        for i, g in enumerate(grads):  # algorithm 2, lines 6 to 12
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g.astype(np.float64) ** 2
            mhat, vhat = m[i] / (1 - b1**t), v[i] / (1 - b2**t)
            theta[i] = theta[i] - rate * (mhat / (np.sqrt(vhat) + eps) + decay * theta[i])
            close(values[i], theta[i], 1e-5 if dtype == np.float32 else 1e-12)
            assert values[i].dtype == first[i].dtype == dtype
