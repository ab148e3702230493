"""The Fenchel-Young losses: their definition, their gradients, and the package entmax."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import sparsehopfield as sh  # noqa: E402
from sparsehopfield.torch import (  # noqa: E402
    EntmaxLoss,
    SoftmaxLoss,
    SparsemaxLoss,
    entmax,
    entmax_loss,
    softmax_loss,
    sparsemax_loss,
)

ALPHAS = [1, 1.2, 1.5, 2, 3.0]


def problem(rows=30, classes=9):
    """Scores with a gradient, and classes."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.standard_normal((rows, classes)) * 2).requires_grad_()
    return z, torch.from_numpy(rng.integers(0, classes, rows))


@pytest.mark.parametrize("backend", [None, "core", "torch"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_loss_is_the_conjugate_less_the_score_and_its_gradient_the_weights_less_the_class(alpha, backend):
    z, target = problem()
    losses = entmax_loss(z, target, alpha, backend=backend)
    scores = z.detach().numpy()
    want = sh.entmax_conjugate(scores, float(alpha)) - scores[np.arange(len(scores)), target.numpy()]
    np.testing.assert_allclose(losses.detach(), want, atol=1e-12)
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    one_hot = torch.nn.functional.one_hot(target, 9)
    torch.testing.assert_close(gradient, entmax(z, alpha).detach() - one_hot, atol=1e-12, rtol=0)
    torch.testing.assert_close(entmax_loss(z.float(), target, alpha, backend=backend), losses.float())
    assert entmax_loss(z.bfloat16(), target, alpha, backend=backend).dtype == torch.bfloat16


@pytest.mark.parametrize("backend", [None, "torch"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_derivatives(alpha, backend):
    z, target = problem(3, 4)

    def losses(z):
        return entmax_loss(z, target, alpha, backend=backend)

    assert gradcheck(losses, z, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(losses, z)


def test_values_of_the_package_entmax():
    package = pytest.importorskip("entmax", reason="compares with the package entmax")
    z, target = problem()
    for ours, theirs in (
        (sparsemax_loss, package.sparsemax_loss),
        (entmax_loss, package.entmax15_loss),
        (lambda z, y: entmax_loss(z, y, 1.2), lambda z, y: package.entmax_bisect_loss(z, y, 1.2)),
        (lambda z, y: entmax_loss(z, y, 3), lambda z, y: package.entmax_bisect_loss(z, y, 3.0)),
    ):
        a, b = ours(z, target), theirs(z, target)
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
        torch.testing.assert_close(*(torch.autograd.grad(losses.sum(), z)[0] for losses in (a, b)), atol=1e-6, rtol=0)
    for reduction in ("sum", "none", "elementwise_mean"):
        for index in (-100, 3):
            options = {"ignore_index": index, "reduction": reduction}
            for ours, theirs in (
                (SparsemaxLoss(**options), package.SparsemaxLoss(**options)),
                (EntmaxLoss(**options), package.Entmax15Loss(**options)),
                (EntmaxLoss(1.3, **options), package.EntmaxBisectLoss(1.3, **options)),
            ):
                torch.testing.assert_close(ours(z, target), theirs(z, target), atol=1e-6, rtol=0)


def test_softmax_loss_is_cross_entropy():
    z, target = problem()
    target[3] = target[5] = -100
    for reduction in ("sum", "none", "mean"):
        want = torch.nn.functional.cross_entropy(z, target, reduction=reduction)
        torch.testing.assert_close(SoftmaxLoss(reduction=reduction)(z, target), want)
        torch.testing.assert_close(softmax_loss(z, target, reduction=reduction), want)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_classes_and_ignored_rows(alpha):
    z, target = problem(4, 5)
    masked = z.detach().clone()
    masked[:, 4] = -torch.inf
    target = target % 4
    masked.requires_grad_()
    losses = entmax_loss(masked, target, alpha)
    (gradient,) = torch.autograd.grad(losses.sum(), masked)
    torch.testing.assert_close(losses, entmax_loss(masked[:, :4], target, alpha))
    assert gradient.isfinite().all()
    assert not gradient[:, 4].any()
    assert entmax_loss(masked, torch.full((4,), 4), alpha).isposinf().all()  # the true class is masked
    target[1] = -100
    losses = entmax_loss(masked, target, alpha)
    assert losses[1] == 0
    assert not torch.autograd.grad(losses.sum(), masked)[0][1].any()
    mean = entmax_loss(masked, target, alpha, reduction="mean")
    torch.testing.assert_close(mean, losses.sum() / 3)


@pytest.mark.parametrize("backend", [None, "core", "torch"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradients_are_finite_whatever_is_masked(alpha, reduction, backend):
    """Of a true class that is masked the loss is infinite; a row that is ignored has none, whatever it holds."""
    z, target = problem(7, 5)
    z = z.detach().clone()
    z[0, target[0]] = z[1] = -torch.inf
    z[2, (target[2] + 1) % 5] = -torch.inf
    target[3:6] = -100
    z[3], z[4], z[5, 2] = -torch.inf, torch.nan, torch.inf
    if reduction != "none":
        z, target = z[2:], target[2:]
    z.requires_grad_()
    losses = entmax_loss(z, target, alpha, reduction=reduction, backend=backend)
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    assert gradient.isfinite().all()
    assert not gradient[-4:-1].any()
    assert losses[2:].isfinite().all() if reduction == "none" else losses.isfinite()
    if reduction == "none":
        assert losses[:2].isposinf().all()
        want = entmax(z.detach(), alpha) - torch.nn.functional.one_hot(target % 5, 5)
        torch.testing.assert_close(gradient[:3], want[:3])
    forward = torch.func.jvp(lambda z: entmax_loss(z, target, alpha, reduction=reduction), (z,), (torch.ones_like(z),))
    want = gradient.sum(-1) if reduction == "none" else gradient.sum()
    torch.testing.assert_close(forward[1], want, atol=1e-12, rtol=0)


def distributions(rows=30, classes=9):
    """Return distributions, of which some classes have no part."""
    rng = np.random.default_rng(1)
    return torch.from_numpy(sh.sparsemax(rng.standard_normal((rows, classes))))


@pytest.mark.parametrize("backend", [None, "core", "torch"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_distributions(alpha, backend):
    """Values and gradients are those of arrays; a class is the distribution that has all of it."""
    z, target = problem()
    q = distributions()
    for reduction in ("none", "sum", "mean"):
        loss = entmax_loss(z, q, alpha, backend=backend, reduction=reduction)
        want, gradient = sh.entmax_loss(z.detach(), q, float(alpha), reduction=reduction, return_gradient=True)
        np.testing.assert_allclose(loss.detach(), want, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(torch.autograd.grad(loss.sum(), z)[0], gradient, rtol=1e-12, atol=1e-13)
    one_hot = torch.nn.functional.one_hot(target, 9).double()
    torch.testing.assert_close(entmax_loss(z, one_hot, alpha, backend=backend), entmax_loss(z, target, alpha))
    near = entmax(z.detach(), alpha)
    assert entmax_loss(z, near, alpha, backend=backend).abs().max() < 1e-14
    assert entmax_loss(z.bfloat16(), q.float(), alpha, backend=backend).dtype == torch.bfloat16
    torch.testing.assert_close(EntmaxLoss(alpha, backend=backend)(z, q), entmax_loss(z, q, alpha).mean())


@pytest.mark.parametrize("backend", [None, "torch"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_derivatives_of_the_loss_of_distributions(alpha, backend):
    z, _ = problem(3, 4)
    q = distributions(3, 4)

    def losses(z):
        return entmax_loss(z, q, alpha, backend=backend)

    assert gradcheck(losses, z, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(losses, z)
    mapped = torch.func.vmap(torch.func.grad(lambda z, q: entmax_loss(z, q, alpha)))(z.detach(), q)
    torch.testing.assert_close(mapped, torch.autograd.grad(losses(z).sum(), z)[0])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_distributions(alpha):
    z, _ = problem(4, 5)
    z = z.detach().clone()
    z[:, 4], z[3] = -torch.inf, -torch.inf
    q = torch.tensor([[0.5, 0.5, 0, 0, 0], [0.2, 0.2, 0.2, 0.4, 0], [0, 0, 0, 0.5, 0.5], [1, 0, 0, 0, 0]]).double()
    z.requires_grad_()
    losses = entmax_loss(z, q, alpha)
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    want, want_gradient = sh.entmax_loss(z.detach(), q, float(alpha), return_gradient=True)
    np.testing.assert_allclose(losses.detach(), want, rtol=1e-12)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-12, atol=1e-14)
    assert losses[:2].isfinite().all()
    assert losses[2:].isposinf().all()
    assert gradient.isfinite().all()


def test_margins():
    z = torch.tensor([[1.0, 0.0, 0.0], [0.999, 0.0, 0.0]], dtype=torch.float64)
    losses = sparsemax_loss(z, torch.tensor([0, 0]))
    assert losses[0] == 0
    assert losses[1] > 0


def test_more_axes_and_transforms():
    z, target = problem(6, 4)
    losses = entmax_loss(z.reshape(2, 3, 4), target.reshape(2, 3))
    torch.testing.assert_close(losses.flatten(), entmax_loss(z, target))
    for alpha in ALPHAS:
        first = torch.func.vmap(torch.func.grad(lambda z, y, alpha=alpha: entmax_loss(z, y, alpha)))(z.detach(), target)
        torch.testing.assert_close(first, torch.autograd.grad(entmax_loss(z, target, alpha).sum(), z)[0])
        hessian = torch.func.hessian(lambda z, alpha=alpha: entmax_loss(z, target[0], alpha))(z[0].detach())
        torch.testing.assert_close(hessian, hessian.T)


@pytest.mark.parametrize("backend", [None, "torch"])
def test_compiled_without_a_break(backend):
    z, target = problem()
    for loss in (SparsemaxLoss(backend=backend), EntmaxLoss(backend=backend), SoftmaxLoss(backend=backend)):
        torch._dynamo.reset()
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(z, target), loss(z, target))
        torch.testing.assert_close(torch.autograd.grad(compiled(z, target), z), torch.autograd.grad(loss(z, target), z))
        q = distributions()
        torch.testing.assert_close(compiled(z, q), loss(z, q))
        torch.testing.assert_close(torch.autograd.grad(compiled(z, q), z), torch.autograd.grad(loss(z, q), z))


def test_what_is_wrong_is_named():
    z, target = problem()
    for call, error, message in (
        (lambda: sparsemax_loss(z.tolist(), target), TypeError, "z: must be a tensor"),
        (lambda: sparsemax_loss(z.detach().to_sparse(), target), TypeError, "^z: must be a dense tensor"),
        (lambda: sparsemax_loss(z, target + 9), ValueError, r"^target: must be classes from 0 to 8, got \d"),
        (lambda: softmax_loss(z, target - 9), ValueError, "^target: must be classes from 0 to 8, got -"),
        (lambda: sparsemax_loss(z, target.int()), TypeError, "target: must be a tensor of int64"),
        (lambda: sparsemax_loss(z, target[:3]), ValueError, r"target: must be of shape \(30,\)"),
        (lambda: sparsemax_loss(z, target.double()), TypeError, "target: must be a tensor of int64"),
        (lambda: sparsemax_loss(z, z.detach()), ValueError, "^target: must be distributions.*row 0 is none"),
        (lambda: sparsemax_loss(z, z.detach()[:3]), ValueError, "^target: distributions must be of z's shape"),
        (lambda: sparsemax_loss(z, entmax(z)), TypeError, "^target: must not require a gradient"),
        (lambda: sparsemax_loss(z, distributions() * torch.nan), ValueError, "^target: must be distributions"),
        (lambda: sparsemax_loss(z, target, reduction="max"), ValueError, "reduction: unknown name"),
        (lambda: entmax_loss(z, target, 0.5), ValueError, "alpha: must be a finite number of at least 1"),
        (lambda: EntmaxLoss(reduction="no"), ValueError, "reduction: unknown name"),
        (lambda: EntmaxLoss(0.9), ValueError, "alpha: must be"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert repr(EntmaxLoss(1.5)) == "EntmaxLoss(alpha=1.5, ignore_index=-100, reduction='mean')"
