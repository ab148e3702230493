"""Who computes: the core or plain torch, and by what way the core is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from sparsehopfield._engine.separations import as_choice
from sparsehopfield.torch._custom_op import constant_result

__all__ = [
    "EAGER",
    "OPERATOR",
    "PLAIN",
    "TRANSFORMED",
    "as_backend",
    "check_devices",
    "is_batched",
    "is_transformed",
    "route_of",
]

EAGER = "eager"  # the core on CPU tensors, now
TRANSFORMED = "transformed"  # the core under the transforms of torch.func, but for forward mode
OPERATOR = "operator"  # the core as an operator of torch: compiled, exported, traced, on meta, or watched by a mode
PLAIN = "plain"  # plain torch

_ORDINARY = Tensor, Parameter


def as_backend(backend: Any) -> str | None:
    """Return who is to compute, checked: None for whoever can, "core" or "torch"."""
    return None if backend is None else as_choice("backend", backend, ("core", "torch"))


@constant_result  # compilers guard it, and older ones cannot call it
def is_transformed() -> bool:
    """Tell whether a transform of torch.func is at work."""
    return torch._C._are_functorch_transforms_active()


def is_batched(grad: Tensor) -> bool:
    """Tell whether a gradient is a batch of them, as `torch.autograd.grad(..., is_grads_batched=True)` passes on."""
    return torch._C._functorch.is_legacy_batchedtensor(grad)


def _foreign_transform() -> str:
    """Return a transform of torch.func at work that the core's functions have no rule for, in words; "" for none."""
    if torch.autograd.forward_ad._current_level >= 0:  # dual numbers, too
        return "forward-mode derivatives"
    kind = torch._C._functorch.TransformType
    interpreters: Any = torch._C._functorch.get_interpreter_stack()
    for i in interpreters or ():
        if i.key() not in (kind.Grad, kind.Vmap):
            return "forward-mode derivatives" if i.key() == kind.Jvp else f"transform {i.key().name.lower()}"
    return ""


def _is_watched(tensors: Sequence[Tensor | None]) -> bool:
    """Tell whether somebody looks at operators: FakeTensorMode, counters, torch.jit.trace, subclasses of tensors."""
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None:
        return True
    return any(t is not None and type(t) not in _ORDINARY for t in tensors)


def check_devices(names: Iterable[str], tensors: Iterable[Tensor | None]) -> None:
    """Raise ValueError unless tensors lie on one device; a seed may lie on the CPU."""
    first: tuple[str, torch.device] | None = None
    for name, t in zip(names, tensors, strict=True):
        if t is None or (name == "seed" and t.is_cpu):
            continue
        if first is None:
            first = name, t.device
        elif t.device != first[1]:
            raise ValueError(f"{name}: is on {t.device}, but {first[0]} on {first[1]}; bring both to one device")


def route_of(
    names: Iterable[str], tensors: Sequence[Tensor | None], backend: str | None = None, lacking: str = ""
) -> str:
    """Return who computes with these tensors, and how.

    Parameters
    ----------
    names : iterable of str
        Of the tensors, for errors.
    tensors : sequence of Tensor or None
    backend : {None, "core", "torch"}
        None takes the core where it can compute.
    lacking : str
        What is asked for that the core lacks, in words; "" for nothing.

    Raises
    ------
    ValueError
        If the core is asked for where it cannot compute, or tensors lie on several devices.
    """
    away = [t for t in tensors if t is not None and not t.is_cpu]
    if away:
        check_devices(names, tensors)
    if backend == "torch":
        return PLAIN
    on_meta = bool(away) and away[0].is_meta
    if away and not on_meta:
        lacking = f"tensors on {away[0].device.type}"
    route = EAGER
    transformed = is_transformed()
    if torch.compiler.is_compiling():
        lacking = lacking or ("transforms of torch.func in a compiled function" if transformed else "")
        route = OPERATOR
    elif transformed or torch.autograd.forward_ad._current_level >= 0:
        lacking = lacking or _foreign_transform()
        if not lacking and (on_meta or _is_watched(tensors)):
            lacking = "transforms of torch.func where operators are watched"
        route = TRANSFORMED
    elif on_meta or _is_watched(tensors):
        route = OPERATOR
    if not lacking:
        return route
    if backend == "core":
        raise ValueError(f"backend: the core has no {lacking}; leave it to torch by backend=None")
    return PLAIN
