"""The maps in plain torch: against the reference, whether Python may look or not, and their derivatives."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the extra torch")

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from sparsehopfield import reference  # noqa: E402
from sparsehopfield._engine.separations import ROWS  # noqa: E402
from sparsehopfield.torch import _maps  # noqa: E402

CODES = [
    (_maps.SPARSEMAX, 2.0),
    (_maps.SOFTMAX, 1.0),
    *((_maps.ENTMAX, alpha) for alpha in (1.0, 1.0001, 1.1, 1.5, 1.8, 1.99, 2.0, 2.01, 2.5, 4.0, 20.0)),
    *((_maps.NORMMAX, alpha) for alpha in (1.01, 1.5, 2.0, 3.0, 30.0)),
    (_maps.POLYNOMIAL, 2.0),
    (_maps.POLYNOMIAL, 3.0),
]
# without those whose weights change so fast that differences tell nothing
SMOOTH = [code for code in CODES if code[1] not in (1.0001, 1.01, 1.99, 2.01, 4.0, 20.0, 30.0)]


def by_reference(z, code, parameter):
    """The weights of scores by the reference."""
    row = ROWS[code]
    return getattr(reference, row.name)(z, *([parameter] if row.parameter else []))


@pytest.fixture(params=["look", "fixed"])
def looks(request, monkeypatch):
    """Whether loops may look when to stop, as on the CPU, or take their fixed number of steps, as on a device."""
    if request.param == "fixed":
        monkeypatch.setattr(_maps, "can_look", lambda t: False)
    return request.param


def families(size):
    """Rows of scores (n, size) of every kind: spread and dense, equal, geometric, with ties and masks."""
    rng = np.random.default_rng(size)
    rows = [rng.standard_normal((4, size)) * scale for scale in (1e-3, 0.1, 1.0, 10.0, 1e3)]
    places = np.arange(size)
    rows += [np.ones((1, size)), -(2.0**-places)[None], (2.0**-places)[None], np.log1p(places)[None]]
    rows.append(rng.integers(0, 4, (4, size)).astype(float))
    rows.append(np.where(rng.random((4, size)) < 0.5, -np.inf, rng.standard_normal((4, size))))
    return np.concatenate(rows)


@pytest.mark.parametrize(("code", "parameter"), CODES)
def test_weights_are_those_of_the_reference(code, parameter, looks):
    for size in (1, 2, 7, 300):
        z = families(size)
        if code == _maps.POLYNOMIAL and parameter == 3:
            z = np.abs(z)  # powers that cancel are as ill-conditioned as their sum
        p = _maps.weights(torch.from_numpy(z), code, parameter).numpy()
        np.testing.assert_allclose(p, by_reference(z, code, parameter), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize(("code", "parameter"), CODES)
def test_weights_in_float32_are_near(code, parameter, looks):
    z = families(40)[:-8].astype(np.float32)
    z = np.abs(z) if code == _maps.POLYNOMIAL else z
    p = _maps.weights(torch.from_numpy(z), code, parameter)
    assert p.dtype == torch.float32
    # scores beyond 1,000 have digits of 6e-5, and a steep root at the edge of a support loses half of the digits
    np.testing.assert_allclose(p, by_reference(z, code, parameter), atol=2e-3 if parameter > 2 else 2e-4)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(("code", "parameter"), SMOOTH)
def test_what_is_not_finite_follows_the_rules(code, parameter, looks):
    inf, nan = np.inf, np.nan
    z = np.array([[inf, 0, 1], [inf, inf, -inf], [nan, 0, 1], [-inf, nan, inf], [-inf, -inf, -inf], [0, -inf, 1]])
    p = _maps.weights(torch.from_numpy(z), code, parameter).numpy()
    np.testing.assert_allclose(p, by_reference(z, code, parameter), atol=1e-12)


@pytest.mark.parametrize(("code", "parameter"), SMOOTH)
def test_derivatives_of_first_and_second_order(code, parameter):
    z = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 4)) * 0.7)
    z[0, 2], z[1] = -torch.inf, -torch.inf
    fixed = z.isinf()

    def weights(x):
        return _maps.weights(torch.where(fixed, z, x), code, parameter)

    x = z.masked_fill(fixed, 0).requires_grad_()
    assert gradcheck(weights, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(weights, x)


@pytest.mark.parametrize(("code", "shape"), [(_maps.ENTMAX, (3, 1)), (_maps.ENTMAX, (1, 1)), (_maps.NORMMAX, (3, 1))])
def test_derivatives_by_a_learned_parameter(code, shape):
    alpha = torch.tensor([1.2, 1.5, 2.6], dtype=torch.float64)[: shape[0], None].requires_grad_()
    z = torch.from_numpy(np.random.default_rng(2).standard_normal((3, 3)) * 0.7).requires_grad_()

    def weights(z, alpha):
        return _maps.weights(z, code, alpha)

    assert gradcheck(weights, (z, alpha), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(weights, (z, alpha))


def test_a_learned_parameter_gives_the_weights_of_numbers():
    alphas = torch.tensor([1.0, 1.3, 1.5, 2.0, 2.5, 7.0], dtype=torch.float64)
    z = torch.from_numpy(np.random.default_rng(3).standard_normal((6, 9)))
    for code, kept in ((_maps.ENTMAX, slice(None)), (_maps.NORMMAX, slice(1, None))):
        p = _maps.weights(z[kept], code, alphas[kept, None])
        for row, alpha, got in zip(z[kept], alphas[kept], p, strict=True):
            np.testing.assert_allclose(got, by_reference(row.numpy(), code, float(alpha)), atol=1e-10)


@example(seed=2_654_435_769)  # alpha = 20, where the slope of one weight is all that counts
@given(seed=st.integers(0, 2**32 - 1))
def test_products_with_jacobians_are_those_of_the_reference(seed):
    rng = np.random.default_rng(seed)
    code, parameter = CODES[rng.integers(len(CODES) - 2)]
    if parameter == 1.0:
        code = _maps.SOFTMAX
    z = rng.standard_normal((3, rng.integers(1, 30))) * 10 ** rng.uniform(-2, 1)
    p, g = by_reference(z, code, parameter), rng.standard_normal(z.shape)
    row = ROWS[code]
    want = getattr(reference, f"{row.name}_vjp")(p, g, *([parameter] if row.parameter else []))
    got = _maps.jacobian_product(torch.from_numpy(p), torch.from_numpy(g), code, parameter).numpy()
    np.testing.assert_allclose(got, want, atol=1e-9 * max(1, np.abs(want).max()))
    w, c = (a.numpy() for a in _maps.slopes(torch.from_numpy(p), code, parameter))
    mean = (c * g).sum(-1, keepdims=True)
    by_slopes = w * (g - mean) - c * (w * (g - mean)).sum(-1, keepdims=True)
    np.testing.assert_allclose(by_slopes, want, atol=1e-7 * max(1, w.max(), np.abs(want).max()))
    if row.parameter and parameter > 1:
        by_alpha = getattr(reference, f"{row.name}_vjp_alpha")(p, g, parameter)
        alpha = torch.full((1, 1), parameter, dtype=torch.float64)
        got = (torch.from_numpy(g) * _maps.parameter_derivative(torch.from_numpy(p), code, alpha)).sum(-1).numpy()
        np.testing.assert_allclose(got, by_alpha, atol=1e-8 * max(1, np.abs(by_alpha).max()))


def test_no_scores_and_no_rows():
    for shape in ((3, 0), (0, 4), (0, 0)):
        z = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        for code, parameter in CODES:
            p = _maps.weights(z, code, parameter)
            assert p.shape == z.shape
            p.sum().backward()


def test_looking_is_refused_where_numbers_are_not_there():
    seen = []

    def look(x):
        seen.append(_maps.can_look(x))
        return x

    x = torch.ones(2)
    look(x)
    torch.func.vmap(look)(x)
    torch.func.grad(lambda x: look(x).sum())(x)
    torch.func.vmap(torch.func.grad(lambda x: look(x).sum()))(torch.ones(2, 2))
    look(x.to("meta"))
    torch.compile(look, backend="eager", fullgraph=True)(x)
    assert seen == [True, False, True, False, False, False]
