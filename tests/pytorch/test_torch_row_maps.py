"""The row maps of tensors: against NumPy's, all routes, all derivatives, and as operators."""

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.library import opcheck  # noqa: E402

import sparsehopfield as sh  # noqa: E402
from sparsehopfield.torch import _maps, entmax, normmax, softmax, sparsemax  # noqa: E402

INF, NAN = np.inf, np.nan
FUNCTIONS = {
    "softmax": (softmax, sh.softmax),
    "sparsemax": (sparsemax, sh.sparsemax),
    "entmax15": (entmax, sh.entmax),
    "entmax 1.3": (lambda z, **k: entmax(z, 1.3, **k), lambda z, axis=-1: sh.entmax(z, 1.3, axis=axis)),
    "entmax 3": (lambda z, **k: entmax(z, 3, **k), lambda z, axis=-1: sh.entmax(z, 3, axis=axis)),
    "normmax": (normmax, sh.normmax),
}
BACKENDS = [None, "core", "torch"]


def scores(*shape, dtype=torch.float64):
    """Normal scores."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape)).to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_weights_are_those_of_numpy(name, backend):
    ours, numpys = FUNCTIONS[name]
    z = scores(3, 7, 4)
    z[0, :, 0], z[1, 2, 1:3], z[2, 0, 0], z[2, 3] = -INF, INF, NAN, -INF
    for dim in (-1, 1, 0):
        p = ours(z, dim=dim, backend=backend)
        np.testing.assert_allclose(p, numpys(z.numpy(), axis=dim), atol=1e-12)
        np.testing.assert_allclose(ours(z.float(), dim=dim, backend=backend), p, atol=1e-5)
        assert ours(z.bfloat16(), dim=dim, backend=backend).dtype == torch.bfloat16


@pytest.mark.parametrize("backend", [None, "torch"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(name, backend):
    def weights(z):
        return FUNCTIONS[name][0](z, dim=0, backend=backend)

    z = scores(4, 2).requires_grad_()
    assert gradcheck(weights, z, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(weights, z)
    assert torch.autograd.grad(weights(z)[:, 1].sum(), z)[0].abs().max() < 1e-12  # weights sum to 1


@pytest.mark.parametrize("backend", [None, "torch"])
@pytest.mark.parametrize("function", [entmax, normmax])
def test_derivatives_by_a_learned_alpha(function, backend):
    z = scores(3, 3).requires_grad_()
    for alpha, dim in ((torch.tensor(1.7), -1), (torch.tensor([[1.3], [1.5], [2.6]]), 1), (torch.full((1, 3), 1.4), 0)):
        alpha = alpha.double().requires_grad_()

        def weights(z, alpha, dim=dim):
            return function(z, alpha, dim, backend=backend)

        assert gradcheck(weights, (z, alpha), check_forward_ad=True, fast_mode=True)
        assert gradgradcheck(weights, (z, alpha), fast_mode=True)
        by_rows = [
            function(row, float(a))
            for row, a in zip(
                z.movedim(dim, -1),
                alpha.detach().movedim(dim, -1).expand(*z.movedim(dim, -1).shape[:-1], 1)
                if alpha.dim()
                else [alpha] * 3,
                strict=True,
            )
        ]
        torch.testing.assert_close(weights(z, alpha), torch.stack(by_rows).movedim(-1, dim), atol=1e-10, rtol=0)


def test_alpha_as_entmax_bisect_takes_it():
    package = pytest.importorskip("entmax", reason="compares with the package entmax")
    z, alpha = scores(2, 3, 5).requires_grad_(), torch.full((2, 1, 5), 1.6, dtype=torch.float64, requires_grad=True)
    ours, theirs = entmax(z, alpha, 1), package.entmax_bisect(z, alpha, 1)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    g = scores(2, 3, 5)
    for a, b in zip(*(torch.autograd.grad(p, (z, alpha), g) for p in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=0)
    torch.testing.assert_close(sparsemax(z), package.sparsemax(z), atol=1e-12, rtol=0)
    torch.testing.assert_close(entmax(z), package.entmax15(z), atol=1e-10, rtol=0)
    torch.testing.assert_close(normmax(z, 1.5), package.normmax_bisect(z, 1.5), atol=1e-9, rtol=0)


def test_the_guide_has_all_names_of_entmax():
    package = pytest.importorskip("entmax", reason="reads its names from the package entmax")
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "from-entmax.md").read_text(encoding="utf-8")
    names = [name for name, value in vars(package).items() if callable(value)]
    assert {"entmax15", "EntmaxBisectLoss", "budget_bisect"} < {*names}
    assert [name for name in names if not re.search(rf"`{name}\b", guide)] == []


OPERATORS = {
    "sparsemax": (None, 2.0, _maps.SPARSEMAX),
    "entmax15": (None, 1.5, _maps.ENTMAX),
    "entmax, learned": (torch.tensor([[1.3], [2.6]], dtype=torch.float64), 0.0, _maps.ENTMAX),
    "normmax": (None, 2.0, _maps.NORMMAX),
    "normmax, learned": (torch.tensor([[1.5]], dtype=torch.float64), 0.0, _maps.NORMMAX),
    "softmax": (None, 1.0, _maps.SOFTMAX),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    learned, parameter, code = OPERATORS[name]
    learned = None if learned is None else learned.clone().requires_grad_()
    for z in (scores(2, 5), scores(2, 5, dtype=torch.float32), scores(5, 2).T):
        z = z.requires_grad_()
        if learned is not None and z.dtype == torch.float32:
            continue
        opcheck(torch.ops.sparsehopfield.row_map.default, (z, learned, parameter, code))
        p = torch.ops.sparsehopfield.row_map(z, learned, parameter, code).detach().requires_grad_()
        g = torch.randn_like(p).requires_grad_()
        opcheck(torch.ops.sparsehopfield.row_map_backward.default, (p, g, learned, parameter, code))


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_return_what_compilers_are_told(name):
    """Contiguous tensors, however the given ones lie."""
    learned, parameter, code = OPERATORS[name]
    turned = scores(2, 3, 5).transpose(0, 1)
    for z in (turned, scores(1, 5).expand(2, 5), scores(5, 3, 2).permute(1, 2, 0)):
        opcheck(torch.ops.sparsehopfield.row_map.default, (z, learned, parameter, code), test_utils="test_faketensor")
        arguments = entmax(z), z, learned, parameter, code
        opcheck(torch.ops.sparsehopfield.row_map_backward.default, arguments, test_utils="test_faketensor")


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("softmax", None),
        ("sparsemax", None),
        ("sparsemax", "torch"),
        ("entmax15", "torch"),
        ("entmax 3", None),
        pytest.param(
            "normmax",
            "torch",
            marks=pytest.mark.skipif(
                [*map(int, torch.__version__.split(".")[:2])] < [2, 13],
                reason="tried with PyTorch 2.13: 2.4 takes minutes to trace the steps of this map",
            ),
        ),
    ],
)
def test_compiled_without_a_break(name, backend):
    function, z = FUNCTIONS[name][0], scores(3, 6).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(lambda z: function(z, dim=0, backend=backend), backend="aot_eager", fullgraph=True)
    p, g = compiled(z), scores(3, 6)
    torch.testing.assert_close(p, function(z, dim=0), atol=1e-10, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(p, z, g), torch.autograd.grad(function(z, dim=0), z, g), atol=1e-9, rtol=0
    )


def test_compiled_with_a_learned_alpha():
    z, alpha = scores(3, 6).requires_grad_(), torch.tensor(1.6, dtype=torch.float64, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(entmax, backend="aot_eager", fullgraph=True)
    for p in (compiled(z, alpha), entmax(z, alpha)):
        p[:, 0].sum().backward()
    torch.testing.assert_close(alpha.grad / 2, torch.autograd.grad(entmax(z, alpha)[:, 0].sum(), alpha)[0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_transforms_of_torch_func(name):
    function, z = FUNCTIONS[name][0], scores(3, 5)
    first = torch.func.vmap(torch.func.grad(lambda row: function(row)[0]))(z)
    leaf = z.clone().requires_grad_()
    torch.testing.assert_close(first, torch.autograd.grad(function(leaf)[:, 0].sum(), leaf)[0])
    torch.testing.assert_close(torch.func.vmap(function, in_dims=1, out_dims=1)(z.T.contiguous()), function(z).T)
    forward, reverse = torch.func.jacfwd(function)(z[0]), torch.func.jacrev(function)(z[0])
    torch.testing.assert_close(forward, reverse)
    assert torch.func.hessian(lambda row: function(row)[0])(z[0]).shape == (5, 5)


def test_vmap_over_alpha():
    z, alpha = scores(3, 5), torch.tensor([1.2, 1.5, 2.5], dtype=torch.float64)
    for backend in BACKENDS[::2]:
        p = torch.func.vmap(lambda row, a, backend=backend: entmax(row, a, backend=backend))(z, alpha)
        torch.testing.assert_close(p, entmax(z, alpha[:, None]), atol=1e-10, rtol=0)
        p = torch.func.vmap(lambda a, backend=backend: entmax(z, a, backend=backend))(alpha)
        torch.testing.assert_close(p[1], entmax(z, 1.5), atol=1e-10, rtol=0)


def test_on_meta_and_faked():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        faked = mode.from_tensor(scores(2, 3))
    for function, _ in FUNCTIONS.values():
        for backend in BACKENDS[::2]:
            assert function(scores(2, 3).to("meta"), dim=0, backend=backend).shape == (2, 3)
            with mode:
                assert function(faked, backend=backend).shape == (2, 3)


def test_no_scores():
    for function, _ in FUNCTIONS.values():
        for shape in ((2, 0), (0, 3)):
            z = torch.zeros(shape, requires_grad=True)
            function(z).sum().backward()
            assert z.grad.shape == shape


def test_what_is_wrong_is_named():
    z = torch.zeros(2, 3)
    for call, error, message in (
        (lambda: sparsemax(np.zeros(3)), TypeError, "z: must be a tensor"),
        (lambda: sparsemax(torch.zeros(3, dtype=torch.int64)), TypeError, "z: must be a tensor of floating"),
        (lambda: sparsemax(z.to_sparse()), TypeError, "^z: must be a dense tensor"),
        (lambda: softmax(torch.tensor(1.0)), ValueError, "dim: -1 is out of range"),
        (lambda: entmax(z, 0.5), ValueError, "alpha: must be a finite number of at least 1"),
        (lambda: entmax(z, torch.tensor(0.5)), ValueError, "alpha: must be a finite number of at least 1"),
        (lambda: normmax(z, 1.0), ValueError, "alpha: must be a finite number above 1"),
        (lambda: entmax(z, torch.ones(2, 3)), ValueError, "alpha: must be one number, or broadcast"),
        (lambda: sparsemax(z, 2), ValueError, "dim: 2 is out of range"),
        (lambda: sparsemax(z, backend="cuda"), ValueError, "backend: unknown name 'cuda'"),
    ):
        with pytest.raises(error, match=message):
            call()
