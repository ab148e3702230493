"""Operators of torch, defined alike for all its releases."""

import typing
from collections.abc import Callable
from typing import Any

import torch
from torch._library.custom_ops import CustomOpDef

__all__ = ["custom_op"]


def custom_op(name: str, device_types: str | None = None) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """Return what makes an operator, which changes no argument, of a function with annotations.

    torch 2.4 reads annotations as they are, and those of modules with postponed ones are strings: they are evaluated. A
    list that an operator returns it knows by its name in `typing`.
    """

    def define(function: Callable[..., Any]) -> CustomOpDef:
        hints = typing.get_type_hints(function)
        if hints["return"] == list[torch.Tensor]:
            hints["return"] = typing.List[torch.Tensor]  # noqa: UP006
        function.__annotations__ = hints
        return torch.library.custom_op(name, function, mutates_args=(), device_types=device_types)

    return define
