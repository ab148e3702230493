"""Fenchel-Young losses: what softmax, sparsemax and entmax predict is compared with what is true.

Of a class y that is true, L(z; y) = Omega*(z) - z_y = <p, z - z_y> - Omega(p), with the weights p of the map and its
regulariser Omega. Its gradient is p - e_y, so that it is 0 once the true class has all weight: for sparsemax and entmax
at a finite margin. Of a distribution q it is L(z; q) = Omega*(z) + Omega(q) - <z, q>, and its gradient p - q.
`sparsehopfield.losses` has the same for NumPy arrays.

References: Martins & Astudillo 2016 for sparsemax; Blondel, Martins & Niculae 2020, "Learning with Fenchel-Young
losses".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from sparsehopfield._engine.checks import as_whole
from sparsehopfield._engine.separations import MAPS, as_choice
from sparsehopfield.losses import MOST_OFF, REDUCTIONS
from sparsehopfield.torch import _maps, row_maps
from sparsehopfield.torch._arguments import as_dense
from sparsehopfield.torch._arrays import compute_dtype
from sparsehopfield.torch._backend import as_backend, check_devices

__all__ = ["EntmaxLoss", "SoftmaxLoss", "SparsemaxLoss", "entmax_loss", "softmax_loss", "sparsemax_loss"]


def _share(p: Tensor, alpha: float) -> Tensor:
    """Return (p^(alpha - 1) - 1) / (alpha (alpha - 1)), log p at 1, whose mean under p is the regulariser Omega(p)."""
    if alpha == 1:
        return torch.where(p > 0, p, torch.ones_like(p)).log()
    scale = 1 / (alpha * (alpha - 1))
    if alpha == 2:
        return p * scale - scale
    if alpha == 1.5:
        return p.sqrt().sub_(1).mul_(scale)
    return torch.expm1((alpha - 1) * torch.where(p > 0, p, torch.ones_like(p)).log()).mul_(scale)


class _Loss(Function):
    """The loss of scores z (..., n), given their weights p, which only second derivatives differentiate."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, p: Tensor, target: Tensor, alpha: float) -> Tensor:
        true = z.gather(-1, target[..., None])
        most = torch.finfo(z.dtype).max
        above = (z - true).clamp(-most, most)  # masked classes have p = 0 and z = -inf
        loss = above.logsumexp(-1) if alpha == 1 else above.sub_(_share(p, alpha)).mul_(p).sum(-1)
        return loss.masked_fill(true[..., 0] == -torch.inf, torch.inf)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, p, target, _ = inputs
        ctx.save_for_backward(p, target)
        ctx.save_for_forward(p, target)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        p, target = ctx.saved_tensors
        g = g[..., None]
        return (g * p).scatter_add(-1, target[..., None], -g), None, None, None


class _LossBothWays(_Loss):
    """The same with forward mode, which Dynamo does not take."""

    @staticmethod
    def jvp(ctx: Any, dz: Tensor, *_: Any) -> Tensor:
        p, target = ctx.saved_tensors
        return (p * dz).sum(-1) - dz.gather(-1, target[..., None])[..., 0]


class _SoftLoss(Function):
    """The loss of scores z and distributions q (..., n), given the weights p of the scores, as for `_Loss`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, p: Tensor, q: Tensor, alpha: float) -> Tensor:
        best = z.amax(-1, keepdim=True)
        above = (z - best.masked_fill(best == -torch.inf, 0)).clamp_min(torch.finfo(z.dtype).min)
        conjugate = above.logsumexp(-1) if alpha == 1 else ((above - _share(p, alpha)) * p).sum(-1)
        loss = conjugate + ((_share(q, alpha) - above) * q).sum(-1)
        return loss.clamp_min(0).masked_fill(((q > 0) & (z == -torch.inf)).any(-1), torch.inf)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, p, q, _ = inputs
        ctx.save_for_backward(p, q)
        ctx.save_for_forward(p, q)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        p, q = ctx.saved_tensors
        return g[..., None] * (p - q), None, None, None


class _SoftLossBothWays(_SoftLoss):
    """The same with forward mode, which Dynamo does not take."""

    @staticmethod
    def jvp(ctx: Any, dz: Tensor, *_: Any) -> Tensor:
        p, q = ctx.saved_tensors
        return ((p - q) * dz).sum(-1)


def _as_distributions(z: Tensor, target: Tensor) -> Tensor:
    """Return what is true as distributions (..., n) in the dtype that scores are computed in, checked."""
    if target.shape != z.shape:
        raise ValueError(f"target: distributions must be of z's shape {tuple(z.shape)}, got {tuple(target.shape)}")
    if target.requires_grad:
        raise TypeError("target: must not require a gradient, as none is taken of it; see detach()")
    q = target.to(compute_dtype(z))
    if _maps.can_look(q):
        wrong = (q < 0).any(-1) | ~((q.sum(-1) - 1).abs() <= MOST_OFF)
        if bool(wrong.any()):
            row = int(wrong.flatten().nonzero()[0])
            raise ValueError(f"target: must be distributions, numbers of at least 0 whose sum is 1; row {row} is none")
    return q


def _of_distributions(z: Tensor, target: Tensor, alpha: float, backend: str | None) -> Tensor:
    """Return the losses of rows z (..., n) and distributions (..., n)."""
    q, scores = _as_distributions(z, target), z.to(compute_dtype(z))
    p = row_maps.entmax(scores, alpha, backend=backend)
    loss = _SoftLoss if torch.compiler.is_compiling() else _SoftLossBothWays
    return loss.apply(scores, p, q, alpha).to(z.dtype)  # type: ignore[no-untyped-call]


def _of_classes(z: Tensor, target: Tensor, ignored: Tensor, alpha: float, backend: str | None) -> Tensor:
    """Return the losses of rows z (..., n) and classes (...); 0 for rows that are ignored."""
    target, classes = target.masked_fill(ignored, 0), z.shape[-1]
    if target.numel() and _maps.can_look(target):
        least, most = (int(t) for t in target.aminmax())
        if least < 0 or most >= classes:
            raise ValueError(f"target: must be classes from 0 to {classes - 1}, got {least if least < 0 else most}")
    scores = z.to(compute_dtype(z))
    if not (_maps.can_look(ignored) and not bool(ignored.any())):
        scores = scores.masked_fill(ignored[..., None], 0)  # whose NaN would pass into the gradient, times 0
    p = row_maps.entmax(scores, alpha, backend=backend)
    loss = _Loss if torch.compiler.is_compiling() else _LossBothWays
    losses = loss.apply(scores, p, target, alpha)  # type: ignore[no-untyped-call]
    return losses.masked_fill(ignored, 0).to(z.dtype)


def _reduced(z: Any, target: Any, alpha: float, ignore_index: int, reduction: str, backend: str | None) -> Tensor:
    """Return the losses of rows z (..., n) and classes (...) or distributions (..., n), reduced."""
    as_choice("reduction", reduction, REDUCTIONS)
    if not as_dense("z", z).is_floating_point() or z.dim() == 0:
        raise TypeError(
            f"z: must be a tensor of floating numbers with an axis of classes, got {z.dtype} of {tuple(z.shape)}"
        )
    as_dense("target", target)
    check_devices(("z", "target"), (z, target))
    if target.is_floating_point() and target.dim() == z.dim():
        losses, ignored = _of_distributions(z, target, alpha, backend), None
    else:
        if target.dtype != torch.int64:
            raise TypeError(f"target: must be a tensor of int64, got {target.dtype}")
        if target.shape != z.shape[:-1]:
            raise ValueError(f"target: must be of shape {tuple(z.shape[:-1])}, got {tuple(target.shape)}")
        ignored = target == ignore_index
        losses = _of_classes(z, target, ignored, alpha, backend)
    if reduction == "none":
        return losses
    if ignored is None:
        return losses.sum() if reduction == "sum" else losses.mean()
    total = losses.sum()
    return total if reduction == "sum" else total / (~ignored).sum()


def softmax_loss(
    z: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "none", backend: str | None = None
) -> Tensor:
    """Return the loss of softmax, which is cross entropy: log sum e^z - z_y.

    Parameters
    ----------
    z : Tensor, shape (..., n)
        Scores of n classes; -inf is a mask, and its gradient 0. A row whose true class is masked, as in a row that is
        all masked, has the loss +inf, and the finite gradient p - e_y.
    target : Tensor of int64, shape (...), or of floating numbers, shape (..., n)
        The true classes, from 0 to n - 1, or `ignore_index`; or what is true as distributions, without a gradient.
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"none", "sum", "mean"}
        What is returned: the losses of all rows, their sum, or the mean of those that count; "elementwise_mean" is the
        mean, too.
    backend : {None, "core", "torch"}
        Who computes the weights; None: torch, which is faster here.

    Returns
    -------
    Tensor
        In the dtype of `z`, of shape (...) if `reduction` is "none", else one number.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.SoftmaxLoss : The same as a module.
    sparsehopfield.torch.sparsemax_loss : The loss that is 0 from a finite margin on.
    sparsehopfield.softmax_loss : The same of arrays.

    Examples
    --------
    >>> softmax_loss(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6931])
    """
    return _reduced(z, target, 1.0, ignore_index, reduction, backend)


def sparsemax_loss(
    z: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "none", backend: str | None = None
) -> Tensor:
    """Return the loss of sparsemax: 0 where the score of the true class is at least 1 above all others.

    Parameters
    ----------
    z : Tensor, shape (..., n)
        Scores of n classes; -inf is a mask, as in `softmax_loss`.
    target : Tensor of int64, shape (...), or of floating numbers, shape (..., n)
        The true classes, from 0 to n - 1, or `ignore_index`; or what is true as distributions, without a gradient.
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"none", "sum", "mean"}
        What is returned: the losses of all rows, their sum, or the mean of those that count; "elementwise_mean" is the
        mean, too.
    backend : {None, "core", "torch"}
        Who computes the weights; None: the core on the CPU, else plain torch.

    Returns
    -------
    Tensor
        In the dtype of `z`, of shape (...) if `reduction` is "none", else one number.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.SparsemaxLoss : The same as a module.
    sparsehopfield.torch.sparsemax : The weights that it compares with the target.
    sparsehopfield.sparsemax_loss : The same of arrays.

    References
    ----------
    Martins & Astudillo 2016, "From softmax to sparsemax", section 3.

    Examples
    --------
    >>> sparsemax_loss(torch.tensor([[2.0, 1.0], [0.0, 0.0]]), torch.tensor([0, 0]))
    tensor([0.0000, 0.2500])
    """
    return _reduced(z, target, 2.0, ignore_index, reduction, backend)


def entmax_loss(
    z: Tensor,
    target: Tensor,
    alpha: float = 1.5,
    *,
    ignore_index: int = -100,
    reduction: str = "none",
    backend: str | None = None,
) -> Tensor:
    """Return the loss of alpha-entmax: 0 where the score of the true class is 1 / (alpha - 1) above all others.

    Parameters
    ----------
    z : Tensor, shape (..., n)
        Scores of n classes; -inf is a mask, as in `softmax_loss`.
    target : Tensor of int64, shape (...), or of floating numbers, shape (..., n)
        The true classes, from 0 to n - 1, or `ignore_index`; or what is true as distributions, without a gradient.
    alpha : float, at least 1
        Which map of the family: 1 is softmax, and its loss cross entropy; 2 is sparsemax.
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"none", "sum", "mean"}
        What is returned: the losses of all rows, their sum, or the mean of those that count; "elementwise_mean" is the
        mean, too.
    backend : {None, "core", "torch"}
        Who computes the weights; None: the core on the CPU, else plain torch.

    Returns
    -------
    Tensor
        In the dtype of `z`, of shape (...) if `reduction` is "none", else one number.

    Raises
    ------
    TypeError, ValueError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.EntmaxLoss : The same as a module.
    sparsehopfield.torch.entmax : The weights that it compares with the target.
    sparsehopfield.entmax_loss : The same of arrays.

    References
    ----------
    Peters, Niculae & Martins 2019, "Sparse sequence-to-sequence models".

    Examples
    --------
    >>> entmax_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))
    tensor([0.0000, 0.3905])
    """
    return _reduced(z, target, _as_alpha(alpha), ignore_index, reduction, backend)


def _as_alpha(alpha: Any) -> float:
    """Return the number that alpha is; raise TypeError for one that is learned."""
    if isinstance(alpha, Tensor) and alpha.requires_grad:
        raise TypeError("alpha: losses take a number; of a tensor that is learned take the weights by `entmax`")
    parameter = MAPS["entmax"].parameter
    assert parameter is not None
    return float(parameter.checked(alpha))


class EntmaxLoss(nn.Module):
    """The loss of alpha-entmax as a module, see `entmax_loss`.

    Parameters
    ----------
    alpha : float, at least 1
        Which map of the family: 1 is softmax, and its loss cross entropy; 2 is sparsemax.
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"mean", "sum", "none"}
        What is returned: the losses of all rows, their sum, or the mean of those that count; "elementwise_mean" is the
        mean, too.
    backend : {None, "core", "torch"}
        Who computes the weights; None: the core on the CPU, else plain torch.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.entmax_loss : The same as a function.
    sparsehopfield.torch.SparsemaxLoss : The loss of alpha 2.

    Examples
    --------
    >>> EntmaxLoss(1.5)(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))
    tensor(0.1953)
    """

    def __init__(
        self, alpha: float = 1.5, *, ignore_index: int = -100, reduction: str = "mean", backend: str | None = None
    ) -> None:
        super().__init__()
        self.alpha = _as_alpha(alpha)
        self.ignore_index = as_whole("ignore_index", ignore_index, None)
        self.reduction = as_choice("reduction", reduction, REDUCTIONS)
        self.backend = as_backend(backend)

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        """Return the loss of scores and what is true.

        Parameters
        ----------
        z : Tensor, shape (..., n)
            Scores of n classes; -inf is a mask, as in `softmax_loss`.
        target : Tensor of int64, shape (...), or of floating numbers, shape (..., n)
            The true classes, from 0 to n - 1, or `ignore_index`; or what is true as distributions, without a gradient.

        Returns
        -------
        Tensor
            In the dtype of `z`, of shape (...) if `reduction` is "none", else one number.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.torch.entmax_loss : The function that computes it.

        Examples
        --------
        >>> loss = EntmaxLoss(1.5, reduction="none")
        >>> loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))  # the first row's margin is wide enough
        tensor([0.0000, 0.3905])
        """
        return _reduced(z, target, self.alpha, self.ignore_index, self.reduction, self.backend)

    def extra_repr(self) -> str:
        """Return the options, for `repr`.

        Returns
        -------
        str
            The options by name.

        See Also
        --------
        torch.nn.Module.extra_repr : Say what `repr` makes of it.

        Examples
        --------
        >>> EntmaxLoss(1.5)
        EntmaxLoss(alpha=1.5, ignore_index=-100, reduction='mean')
        """
        return f"alpha={self.alpha:g}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"


class SparsemaxLoss(EntmaxLoss):
    """The loss of sparsemax as a module, see `sparsemax_loss`.

    Parameters
    ----------
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"mean", "sum", "none"}
        What is returned: the losses of all rows, their sum, or the mean of those that count; "elementwise_mean" is the
        mean, too.
    backend : {None, "core", "torch"}
        Who computes the weights; None: the core on the CPU, else plain torch.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.sparsemax_loss : The same as a function.
    sparsehopfield.torch.SoftmaxLoss : Cross entropy, which is never 0.

    Examples
    --------
    >>> SparsemaxLoss()(torch.tensor([[2.0, 1.0], [0.0, 0.0]]), torch.tensor([0, 0]))
    tensor(0.1250)
    """

    def __init__(self, *, ignore_index: int = -100, reduction: str = "mean", backend: str | None = None) -> None:
        super().__init__(2.0, ignore_index=ignore_index, reduction=reduction, backend=backend)


class SoftmaxLoss(EntmaxLoss):
    """The loss of softmax, cross entropy, as a module, see `softmax_loss`.

    Parameters
    ----------
    ignore_index : int
        A class that marks rows without a loss: they give 0, and do not count in the mean.
    reduction : {"mean", "sum", "none"}
        What is returned: the losses of all rows, their sum, or the mean of those that count; "elementwise_mean" is the
        mean, too.
    backend : {None, "core", "torch"}
        Who computes the weights; None: torch, which is faster here.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.softmax_loss : The same as a function.
    sparsehopfield.torch.SparsemaxLoss : The loss that is 0 from a finite margin on.

    Examples
    --------
    >>> SoftmaxLoss()(torch.zeros(1, 2), torch.tensor([0]))
    tensor(0.6931)
    """

    def __init__(self, *, ignore_index: int = -100, reduction: str = "mean", backend: str | None = None) -> None:
        super().__init__(1.0, ignore_index=ignore_index, reduction=reduction, backend=backend)
