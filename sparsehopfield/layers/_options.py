"""The options of Hopfield layers as their attributes, of NumPy's and of torch's."""

from __future__ import annotations

from typing import Any, ClassVar

from sparsehopfield.layers._spec import HopfieldSpec

__all__ = ["Delegated", "HopfieldOptions"]


class Delegated:
    """An attribute that belongs to a part of the layer: its spec, or the Hopfield layer inside.

    It may be set if it may be set in that part; in a spec those may that are `changeable`.
    """

    def __init__(self, changeable: bool = False) -> None:
        self.changeable = changeable

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type[Any]) -> Any:
        return self if layer is None else getattr(getattr(layer, layer._part), self.name)

    def __set__(self, layer: Any, value: Any) -> None:
        part = getattr(layer, layer._part)
        if not isinstance(part, HopfieldSpec):
            setattr(part, self.name, value)
        elif self.changeable:
            layer._change(self.name, value)
        else:
            raise AttributeError(f"{self.name}: is fixed when the layer is made")


class HopfieldOptions:
    """The options of all Hopfield layers, as attributes."""

    _part: ClassVar[str]  # the attribute that holds what these belong to: "_spec", or the Hopfield layer inside
    _default_separation = "softmax"

    num_heads = Delegated()
    input_size = Delegated()
    hidden_size = Delegated()
    output_size = Delegated()
    pattern_size = Delegated()
    state_pattern_dim = Delegated()
    stored_pattern_dim = Delegated()
    pattern_projection_dim = Delegated()
    batch_first = Delegated()
    association_activation = Delegated()
    add_zero_association = Delegated()
    stored_pattern_as_static = Delegated()
    state_pattern_as_static = Delegated()
    pattern_projection_as_static = Delegated()
    normalize_stored_pattern = Delegated()
    normalize_stored_pattern_affine = Delegated()
    normalize_state_pattern = Delegated()
    normalize_state_pattern_affine = Delegated()
    normalize_pattern_projection = Delegated()
    normalize_pattern_projection_affine = Delegated()
    normalize_hopfield_space = Delegated()
    normalize_hopfield_space_affine = Delegated()
    update_steps_max = Delegated(changeable=True)
    update_steps_eps = Delegated(changeable=True)
    gradient = Delegated(changeable=True)
    dropout = Delegated(changeable=True)

    def _change(self, name: str, value: Any) -> None:
        """Set an option of the spec to another value, checked."""
        self._spec: HopfieldSpec = self._spec.changed(**{name: value})
