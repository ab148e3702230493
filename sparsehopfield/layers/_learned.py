"""Hopfield layers with learned patterns: state patterns for pooling, stored patterns for lookup."""

from __future__ import annotations

import math
from itertools import compress
from typing import Any

from numpy.typing import ArrayLike

from sparsehopfield._engine.checks import Array, as_whole
from sparsehopfield._engine.docstrings import with_sections
from sparsehopfield.layers._hopfield import Hopfield
from sparsehopfield.layers._inputs import INPUTS
from sparsehopfield.layers._module import Module, Parameter
from sparsehopfield.layers._options import Delegated, HopfieldOptions

__all__ = ["HopfieldLayer", "HopfieldPooling", "SparseHopfieldLayer", "SparseHopfieldPooling"]


class _WithLearnedPatterns(HopfieldOptions, Module):
    """A Hopfield layer, some of whose inputs are learned patterns."""

    _part = "hopfield"
    _takes_masks = True
    hopfield: Hopfield

    scaling = Delegated()
    separation = Delegated()
    structure = Delegated()

    def __init__(self, config: dict[str, Any], options: dict[str, Any]) -> None:
        random_state = options.pop("random_state", None)
        options.setdefault("separation", self._default_separation)
        super().__init__({**config, "random_state": random_state}, options.get("dtype", "float32"), random_state)
        sizes = {
            name: config[name] for name in ("input_size", "hidden_size", "output_size", "pattern_size", "num_heads")
        }
        self.hopfield = Hopfield(**sizes, **options, random_state=self._random)
        self._inner = {"hopfield": self.hopfield}
        self.quantity = as_whole("quantity", config["quantity"], least=1)

    def _arguments(self) -> dict[str, Any]:
        return {**self.hopfield._arguments(), **self._config}

    def _settings(self) -> dict[str, Any]:
        own = {name: value for name, value in super()._settings().items() if name in self._config}
        return {**self.hopfield._settings(), **own}

    def _learned_patterns(self, shapes: dict[str, tuple[int, ...]], name: str, trainable: bool) -> Parameter:
        """Make learned patterns, shaped as in hflayers."""
        return self._parameter(name, shapes[name], self._normal(self.hopfield._spec.initial_std), trainable)

    def _complete_input(self, input: Any, offsets: Any) -> Any:
        """Return the tuple for the Hopfield layer. Learned patterns have two axes, so that all samples share them."""
        raise NotImplementedError

    def forward(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        train: bool = False,
    ) -> Array:
        """Look up state patterns among the learned patterns.

        Parameters
        ----------
        input : array_like of shape (B, N, e), or (N, e) of one sample
            State patterns, a row of e features each.
        stored_pattern_padding_mask : array_like of bool, shape (B, quantity), optional
            True where a sample does not have a stored pattern.
        association_mask : array_like, shape (N, quantity) or as of `Hopfield.forward`, optional
            Of bool, True where a state pattern must not attend to a stored one; or numbers added to the scores.
        offsets : None
            As of the other layers; here there are no ragged bags.
        train : bool
            Whether dropout acts.

        Returns
        -------
        ndarray of shape (B, N, output_size)
            The mixture for each state pattern, projected.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.layers.Hopfield.forward : Do the same with stored patterns that are given.

        Examples
        --------
        >>> import numpy as np
        >>> lookup = HopfieldLayer(4, quantity=3, random_state=0)
        >>> absent = [[False, False, True]]  # as if the last stored pattern were not there
        >>> lookup.forward(np.ones((1, 5, 4)), absent).shape
        (1, 5, 4)
        """
        options = {"stored_pattern_padding_mask": stored_pattern_padding_mask, "association_mask": association_mask}
        return self._pass(input, train, options | {"offsets": offsets})

    def _forward(self, input: Any, *, offsets: Any = None, **options: Any) -> tuple[Array, Any]:
        """Run the Hopfield layer's forward pass on the completed input."""
        completed, passed = self._complete_input(input, offsets), input if isinstance(input, tuple) else (input,)
        learned = tuple(x for x in completed if not any(x is y for y in passed))
        return self.hopfield._forward(completed, offsets=offsets, learned=learned, **options)

    @with_sections(Hopfield.associations, "Parameters", "Returns")
    def associations(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Any:
        """Compute `Hopfield.associations` from this layer's input.

        See Also
        --------
        sparsehopfield.layers.Hopfield.associations : Compute it without learned patterns.

        Examples
        --------
        >>> import numpy as np
        >>> SparseHopfieldPooling(4, random_state=0).associations(np.ones((3, 5, 4))).shape
        (3, 5)
        """
        return self.hopfield.associations(
            self._complete_input(input, offsets), stored_pattern_padding_mask, association_mask, offsets=offsets
        )

    @with_sections(Hopfield.get_association_matrix, "Parameters", "Returns")
    def get_association_matrix(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Array:
        """Compute `Hopfield.get_association_matrix` from this layer's input.

        See Also
        --------
        sparsehopfield.layers.Hopfield.get_association_matrix : Compute it without learned patterns.

        Examples
        --------
        >>> import numpy as np
        >>> SparseHopfieldPooling(4, random_state=0).get_association_matrix(np.ones((3, 5, 4))).shape
        (3, 1, 1, 5)
        """
        return self.hopfield.get_association_matrix(
            self._complete_input(input, offsets), stored_pattern_padding_mask, association_mask, offsets=offsets
        )

    @with_sections(Hopfield.get_projected_pattern_matrix, "Parameters", "Returns")
    def get_projected_pattern_matrix(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Array:
        """Compute `Hopfield.get_projected_pattern_matrix` from this layer's input.

        See Also
        --------
        sparsehopfield.layers.Hopfield.get_projected_pattern_matrix : Compute it without learned patterns.

        Examples
        --------
        >>> import numpy as np
        >>> SparseHopfieldPooling(4, random_state=0).get_projected_pattern_matrix(np.ones((3, 5, 4))).shape
        (3, 1, 5, 4)
        """
        return self.hopfield.get_projected_pattern_matrix(
            self._complete_input(input, offsets), stored_pattern_padding_mask, association_mask, offsets=offsets
        )

    @with_sections(Hopfield.retrieve, "Parameters", "Returns")
    def retrieve(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        per_head: bool = False,
        update_steps_max: int | None = None,
    ) -> Array:
        """Retrieve as `Hopfield.retrieve` does, from this layer's input.

        See Also
        --------
        sparsehopfield.layers.Hopfield.retrieve : Retrieve without learned patterns.

        Examples
        --------
        >>> import numpy as np
        >>> SparseHopfieldPooling(4, random_state=0).retrieve(np.ones((3, 5, 4))).shape
        (3, 1, 4)
        """
        return self.hopfield.retrieve(
            self._complete_input(input, offsets),
            stored_pattern_padding_mask,
            association_mask,
            offsets=offsets,
            per_head=per_head,
            update_steps_max=update_steps_max,
        )


class HopfieldPooling(_WithLearnedPatterns):
    """Bags to vectors: learned state patterns attend to the instances of every bag.

    Parameters
    ----------
    input_size, hidden_size, output_size, pattern_size, num_heads : int, optional but the first
        As of `Hopfield`.
    quantity : int, at least 1
        How many state patterns there are, each of which gives `output_size` features.
    trainable : bool
        Whether the state patterns are learned.
    **options
        All others of `Hopfield`.

    See Also
    --------
    sparsehopfield.layers.SparseHopfieldPooling : The same with sparsemax.
    sparsehopfield.layers.Hopfield : The layer inside, which says what the other arguments are.
    sparsehopfield.torch.HopfieldPooling : The same as a module of PyTorch.

    Notes
    -----
    `forward` takes one array of bags (B, M, e), or (stored pattern, pattern projection), or ragged bags as `Hopfield`
    does, and returns (B, quantity * output_size). Rows (M, e) are one bag, B = 1. For an empty or fully masked bag see
    `Hopfield`.

    Examples
    --------
    >>> import numpy as np
    >>> pooling = HopfieldPooling(4, hidden_size=8, num_heads=2, output_size=3, random_state=0)
    >>> pooling.forward(np.ones((5, 10, 4))).shape
    (5, 3)
    >>> pooling.forward(np.ones((10, 4))).shape  # one bag
    (1, 3)
    >>> pooling.forward([np.ones((7, 4)), np.ones((2, 4))]).shape
    (2, 3)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        output_size: int | None = None,
        pattern_size: int | None = None,
        num_heads: int = 1,
        *,
        quantity: int = 1,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        sizes = (input_size, hidden_size, output_size, pattern_size, num_heads)
        names = ("input_size", "hidden_size", "output_size", "pattern_size", "num_heads")
        super().__init__(
            {**dict(zip(names, sizes, strict=True)), "quantity": quantity, "trainable": trainable}, options
        )
        shapes = self.hopfield._spec.pooling_shapes(self.quantity)
        self.pooling_weights = self._learned_patterns(shapes, "pooling_weights", trainable)

    def _complete_input(self, input: Any, offsets: Any) -> Any:
        state = self.pooling_weights.value.reshape(self.quantity, -1)
        if isinstance(input, tuple):
            if len(input) != 2:
                raise ValueError(
                    f"input: must be one array or a tuple (stored pattern, pattern projection), got {len(input)}"
                )
            return input[0], state, input[1]
        return input, state, input

    def forward(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        train: bool = False,
    ) -> Array:
        """Pool each bag to one vector.

        Parameters
        ----------
        input : array_like, list of array_like, or tuple of two
            Bags (B, M, e), one bag (M, e), or ragged bags: a list of one (M_i, e) array a bag, or all rows (R, e) with
            `offsets`. A tuple is (stored pattern, pattern projection).
        stored_pattern_padding_mask : array_like of bool, shape (B, M), optional
            True where a row of a bag is none.
        association_mask : array_like, shape (quantity, M) or as of `Hopfield.forward`, optional
            Of bool, True where a state pattern must not attend to a row; or numbers added to the scores.
        offsets : array_like of int, shape (B + 1,), optional
            Bag b has rows offsets[b] to offsets[b + 1].
        train : bool
            Whether dropout acts.

        Returns
        -------
        ndarray of shape (B, quantity * output_size)
            The heads' mixtures, projected, of one state pattern after another.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.layers.Hopfield.forward : Do the same with state patterns that are given.

        Examples
        --------
        >>> import numpy as np
        >>> pooling = HopfieldPooling(4, quantity=2, random_state=0)
        >>> bags, padding = np.ones((3, 6, 4)), np.zeros((3, 6), bool)
        >>> padding[:, 5:] = True  # the last row of each bag is none
        >>> pooling.forward(bags, padding).shape
        (3, 8)
        """
        return super().forward(input, stored_pattern_padding_mask, association_mask, offsets=offsets, train=train)

    def _forward(self, input: Any, *masks: Any, **options: Any) -> tuple[Array, Any]:
        out, tape = super()._forward(input, *masks, **options)
        return out.reshape(len(out), math.prod(out.shape[1:])), (tape, out.shape, isinstance(input, tuple))

    def _backward(self, saved: Any, grad: Array, need_input_grad: bool) -> Any:
        (tape, _), shape, both = saved
        needs = tuple(compress(INPUTS, (need_input_grad, self.pooling_weights.trainable, need_input_grad)))
        dk, dq, dv = self.hopfield._backward_inputs(tape, grad.reshape(shape), needs)
        if dq is not None:
            self.pooling_weights.add(dq.reshape(self.pooling_weights.value.shape))
        if not need_input_grad:
            return None
        return (dk, dv) if both else dk


@with_sections(HopfieldPooling, "Parameters")
class SparseHopfieldPooling(HopfieldPooling):
    """`HopfieldPooling` with the sparsemax association of the main paper (Hu et al. 2023, section 4).

    See Also
    --------
    sparsehopfield.layers.HopfieldPooling : The same with softmax.
    sparsehopfield.estimators.HopfieldMILClassifier : A classifier of bags around it.

    Examples
    --------
    >>> import numpy as np
    >>> pooling = SparseHopfieldPooling(4, random_state=0)
    >>> pooling.separation, pooling.forward(np.ones((5, 10, 4))).shape
    ('sparsemax', (5, 4))
    """

    _default_separation = "sparsemax"


class HopfieldLayer(_WithLearnedPatterns):
    """Lookup: the input's state patterns attend to learned stored patterns, which are never copied for the samples.

    Parameters
    ----------
    input_size, hidden_size, output_size, pattern_size, num_heads : int, optional but the first
        As of `Hopfield`.
    lookup_weights_as_separated : bool
        Whether pattern projections are learned beside the stored patterns; else they are these.
    lookup_targets_as_trainable : bool
        Whether these separate pattern projections are learned.
    quantity : int, at least 1
        How many stored patterns there are.
    trainable : bool
        Whether the stored patterns are learned.
    **options
        All others of `Hopfield`.

    See Also
    --------
    sparsehopfield.layers.SparseHopfieldLayer : The same with sparsemax.
    sparsehopfield.layers.Hopfield : The layer inside, which says what the other arguments are.
    sparsehopfield.torch.HopfieldLayer : The same as a module of PyTorch.

    Notes
    -----
    `forward` takes the state patterns (B, N, e), or (N, e) of one sample, B = 1, and returns (B, N, output_size).

    Examples
    --------
    >>> import numpy as np
    >>> lookup = HopfieldLayer(4, quantity=100, random_state=0)
    >>> lookup.forward(np.ones((5, 1, 4))).shape
    (5, 1, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        output_size: int | None = None,
        pattern_size: int | None = None,
        num_heads: int = 1,
        *,
        lookup_weights_as_separated: bool = False,
        lookup_targets_as_trainable: bool = True,
        quantity: int = 1,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        config = {name: value for name, value in locals().items() if name not in ("self", "options", "__class__")}
        super().__init__(config, options)
        shapes = self.hopfield._spec.lookup_shapes(self.quantity, lookup_weights_as_separated)
        self.lookup_weights = self._learned_patterns(shapes, "lookup_weights", trainable)
        self.target_weights = None
        if lookup_weights_as_separated:
            self.target_weights = self._learned_patterns(shapes, "target_weights", lookup_targets_as_trainable)

    def _complete_input(self, input: Any, offsets: Any) -> Any:
        if isinstance(input, tuple):
            raise TypeError("input: must be one array of state patterns, got a tuple")
        if offsets is not None:
            raise ValueError("offsets: the stored patterns are learned, so there are no ragged bags of them")
        stored = self.lookup_weights.value.reshape(self.quantity, -1)
        targets = stored if self.target_weights is None else self.target_weights.value.reshape(self.quantity, -1)
        return stored, input, targets

    def _backward(self, saved: Any, grad: Array, need_input_grad: bool) -> Array | None:
        lookup, targets = self.lookup_weights, self.target_weights
        needed = lookup.trainable, need_input_grad, (lookup if targets is None else targets).trainable
        dk, dq, dv = self.hopfield._backward_inputs(saved[0], grad, tuple(compress(INPUTS, needed)))
        if dk is not None:
            lookup.add(dk.reshape(lookup.value.shape))
        if dv is not None and targets is not None:
            targets.add(dv.reshape(targets.value.shape))
        return dq


@with_sections(HopfieldLayer, "Parameters")
class SparseHopfieldLayer(HopfieldLayer):
    """`HopfieldLayer` with the sparsemax association of the main paper (Hu et al. 2023, section 4).

    See Also
    --------
    sparsehopfield.layers.HopfieldLayer : The same with softmax.
    sparsehopfield.estimators.HopfieldPrototypeClassifier : A classifier by learned patterns.

    Examples
    --------
    >>> import numpy as np
    >>> lookup = SparseHopfieldLayer(4, quantity=100, random_state=0)
    >>> lookup.separation, lookup.forward(np.ones((5, 1, 4))).shape
    ('sparsemax', (5, 1, 4))
    """

    _default_separation = "sparsemax"
