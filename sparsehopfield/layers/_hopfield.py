"""Hopfield layers: the association between normalised, projected inputs, and back.

A layer is its spec (`_spec`), its parameters, and the two passes (`_passes`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsehopfield._engine.checks import Array, as_float_dtype, as_whole, as_writeable
from sparsehopfield._engine.docstrings import with_sections
from sparsehopfield._engine.separations import separation_code
from sparsehopfield._engine.structure import Structure, as_structure
from sparsehopfield.layers import _passes
from sparsehopfield.layers._inputs import INPUTS, as_arrays
from sparsehopfield.layers._module import Module, Parameter
from sparsehopfield.layers._options import HopfieldOptions
from sparsehopfield.layers._passes import Tape
from sparsehopfield.layers._spec import HopfieldSpec, as_scaling

__all__ = ["Hopfield", "SparseHopfield"]


class Hopfield(HopfieldOptions, Module):
    """The Hopfield association as a layer: state patterns move to mixtures of stored patterns, and pattern projections
    are mixed by the last association.

    Arguments and defaults are those of hflayers; the keyword-only ones at the end are this package's own.

    Parameters
    ----------
    input_size : int, optional
        Features e of the state patterns. May only be left out when nothing is projected (all `*_as_static`,
        `disable_out_projection`).
    hidden_size : int, optional
        Features d of a head in the association space; `input_size // num_heads` by default.
    output_size : int, optional
        Features of the output; `input_size` by default.
    pattern_size : int, optional
        Features p of a head's projected patterns; `hidden_size` by default.
    num_heads : int, at least 1
        Heads of the association.
    scaling : float or array_like of shape (num_heads,), optional
        The inverse temperature beta, positive; 1 / sqrt(hidden_size) by default. May be changed later.
    update_steps_max : int or None
        How many updates follow the first association; negative or None: until every query rests.
    update_steps_eps : float, positive
        A query rests when its association moves by at most this, in the Euclidean norm.
    normalize_stored_pattern, normalize_stored_pattern_affine, normalize_stored_pattern_eps : bool, bool and float
        Whether stored patterns pass a layer normalisation first; whether that has gain and shift, which are learned
        (without the normalisation this must be False); and what it adds to the variance.
    normalize_state_pattern, normalize_state_pattern_affine, normalize_state_pattern_eps : bool, bool and float
        The same of state patterns.
    normalize_pattern_projection, normalize_pattern_projection_affine : bool
        The same of pattern projections.
    normalize_pattern_projection_eps : float, positive
        What the normalisation of pattern projections adds to the variance.
    normalize_hopfield_space, normalize_hopfield_space_affine, normalize_hopfield_space_eps : bool, bool and float
        The same of state and stored patterns in the association space, by one normalisation for both and all heads.
    stored_pattern_as_static, state_pattern_as_static, pattern_projection_as_static : bool
        Whether these inputs are already in the association space, that is, not projected. All heads share them.
    pattern_projection_as_connected : bool
        Whether pattern projections pass the stored patterns' projection before their own.
    stored_pattern_size, pattern_projection_size : int, optional
        Features of these inputs; `input_size` by default.
    batch_first : bool
        Whether samples are the first axis of inputs and output, or the second.
    association_activation : {"relu", "tanh", "sigmoid"}, optional
        A function that is applied to the output.
    dropout : float from 0 to below 1
        Rate at which weights of the last association are dropped in training.
    input_bias : bool
        Whether projections have a bias.
    concat_bias_pattern : bool
        Whether to append a learned stored pattern and pattern projection in the association space.
    add_zero_association : bool
        Whether to append a stored pattern and a pattern projection of zeros.
    disable_out_projection : bool
        Whether to return the heads' mixtures side by side, (B, N, num_heads * p), instead of a projection of them.
    separation : {"softmax", "sparsemax", "entmax15"}, Entmax, Normmax or Polynomial, optional
        The separation map; softmax here, sparsemax in the `Sparse...` twins. May be changed later.
    structure : Structure, optional
        The stored patterns that a state pattern attends to (`sparsehopfield.structures`); all by default. State pattern
        n of every bag is query n. Each sees the appended patterns, too, and `TopK` chooses its k best among all; a k
        beyond these means all. May be changed later.
    gradient : {"unrolled", "implicit"}
        Whether it goes through all updates, or is that of the fixed point that they reach.
    learnable_scaling : bool
        Whether beta is learned, one a head, by its logarithm: parameter `log_scaling`.
    initial_std : float, at least 0
        Standard deviation of the normal numbers that weights begin with.
    dtype : {float32, float64}
        Of parameters and outputs; inputs are cast to it.
    random_state : None, int or numpy.random.Generator
        Draws the initial weights, and what dropout drops.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.layers.SparseHopfield : The same with sparsemax.
    sparsehopfield.layers.HopfieldPooling : A layer with learned state patterns, which makes a vector of each bag.
    sparsehopfield.torch.Hopfield : The same as a module of PyTorch.

    Notes
    -----
    A query whose stored patterns are all masked, or whose bag is empty, has no association: it counts as zeros, so the
    output is what the output projection makes of zeros (its bias), and no gradient flows.

    It differs from hflayers where that has faults: a `scaling` array counts per head; static patterns are given to all
    heads of their own sample; `concat_bias_pattern` does what it says; every query stops by itself, so no result
    depends on its companions in the batch. `update_steps_max` and `update_steps_eps` are one number for all heads.

    References
    ----------
    Ramsauer et al. 2021, "Hopfield networks is all you need"; Hu et al. 2023, "On sparse modern Hopfield model",
    section 4.

    Examples
    --------
    >>> layer = Hopfield(4, num_heads=2, random_state=0)
    >>> layer.forward(np.ones((3, 5, 4))).shape
    (3, 5, 4)
    >>> stored, state = np.ones((3, 7, 4)), np.ones((3, 5, 4))
    >>> layer.forward((stored, state, stored)).shape
    (3, 5, 4)
    """

    _part = "_spec"
    _takes_masks = True
    _last_tape: Tape | None = None  # of the last forward pass, for `gradient_health`
    _last_gradients: tuple[Array, Array] | None = None  # in the queries and the association, of its backward pass

    def __init__(
        self,
        input_size: int | None = None,
        hidden_size: int | None = None,
        output_size: int | None = None,
        pattern_size: int | None = None,
        num_heads: int = 1,
        scaling: ArrayLike | None = None,
        update_steps_max: int | None = 0,
        update_steps_eps: float = 1e-4,
        normalize_stored_pattern: bool = True,
        normalize_stored_pattern_affine: bool = True,
        normalize_stored_pattern_eps: float = 1e-5,
        normalize_state_pattern: bool = True,
        normalize_state_pattern_affine: bool = True,
        normalize_state_pattern_eps: float = 1e-5,
        normalize_pattern_projection: bool = True,
        normalize_pattern_projection_affine: bool = True,
        normalize_pattern_projection_eps: float = 1e-5,
        normalize_hopfield_space: bool = False,
        normalize_hopfield_space_affine: bool = False,
        normalize_hopfield_space_eps: float = 1e-5,
        stored_pattern_as_static: bool = False,
        state_pattern_as_static: bool = False,
        pattern_projection_as_static: bool = False,
        pattern_projection_as_connected: bool = False,
        stored_pattern_size: int | None = None,
        pattern_projection_size: int | None = None,
        batch_first: bool = True,
        association_activation: str | None = None,
        dropout: float = 0.0,
        input_bias: bool = True,
        concat_bias_pattern: bool = False,
        add_zero_association: bool = False,
        disable_out_projection: bool = False,
        *,
        separation: Any = None,
        structure: Structure | None = None,
        gradient: str = "unrolled",
        learnable_scaling: bool = False,
        initial_std: float = 0.02,
        dtype: Any = "float32",
        random_state: Any = None,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        options["dtype"] = as_float_dtype(dtype).name
        super().__init__(options, dtype, random_state)
        self._spec = spec = HopfieldSpec(**options)
        self.separation = self._default_separation if separation is None else separation
        self.structure = structure
        self._log_scaling: Parameter | None = None
        self.scaling = spec.default_scaling if scaling is None else scaling
        draws: dict[str, Any] = {
            "normal": self._normal(spec.initial_std),
            "ones": np.ones,
            "zeros": np.zeros,
            "scaling": lambda shape: np.full(shape, np.log(self._scaling)),
        }
        for name, draw in spec.draws.items():
            self._parameter(name, spec.shapes[name], draws[draw])
        self._log_scaling = self._own.get("log_scaling")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set what `__getstate__` returned; the spec is made anew for pickles of before, which hold none."""
        self.__dict__.update(state)
        if "_spec" not in state:
            self._spec = HopfieldSpec(**state["_config"])

    # --- what may be changed later ----------------------------------------------------------------

    @property
    def scaling(self) -> float | Array:
        """Return beta, a number or one for each head."""
        if self._log_scaling is not None:
            return np.exp(self._log_scaling.value.astype(np.float64))
        return self._scaling

    @scaling.setter
    def scaling(self, scaling: ArrayLike) -> None:
        b = as_scaling(scaling, self.num_heads, self.dtype)
        if self._log_scaling is not None:
            as_writeable("scaling", self._log_scaling.value)
            self._log_scaling.change(np.log(b))
        self._scaling = self._config["scaling"] = b

    @property
    def separation(self) -> Any:
        """Return the separation map, which turns scores into weights."""
        return self._separation

    @separation.setter
    def separation(self, separation: Any) -> None:
        separation_code(separation)
        self._separation = self._config["separation"] = separation

    @property
    def structure(self) -> Structure | None:
        """Return the structure, which says to which stored patterns a state pattern attends; None: all."""
        return self._structure

    @structure.setter
    def structure(self, structure: Structure | None) -> None:
        self._structure = self._config["structure"] = as_structure(structure)

    def _change(self, name: str, value: Any) -> None:
        """Set an option of the spec to another value, checked, which a saved layer has, too."""
        super()._change(name, value)
        self._config[name] = value

    # --- the public passes ------------------------------------------------------------------------

    def forward(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        train: bool = False,
    ) -> Array:
        """Compute the layer's output.

        Parameters
        ----------
        input : array_like, or tuple of three
            One array in all three roles, or (stored pattern, state pattern, pattern projection), shaped (B, M, e),
            (B, N, e), (B, M, e); in a tuple, an array of two axes is shared by all samples, and never copied for them.
            Any of B, N and M may be 0. Ragged bags: lists of one (M_i, e) array a bag, or arrays (R, e) of all rows
            with `offsets`; state patterns are then (B, N, e), or (N, e) for all, or the very array of the stored
            patterns.
        stored_pattern_padding_mask : array_like of bool, shape (B, M), optional
            True where a stored pattern is none.
        association_mask : array_like, shape (N, M), (B, N, M), (B, H, N, M) or (B * H, N, M), optional
            Of bool, True where a state pattern must not attend to a stored one; or numbers added to the scores. M is
            the largest bag's size where bags are ragged.
        offsets : array_like of int, shape (B + 1,), optional
            Bag b has rows offsets[b] to offsets[b + 1].
        train : bool
            Whether dropout acts.

        Returns
        -------
        ndarray of shape (B, N, output_size)
            (R, output_size) where the state patterns are ragged.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault.

        See Also
        --------
        sparsehopfield.layers.Hopfield.backward : Pass a gradient of the output back.
        sparsehopfield.layers.Hopfield.associations : Compute the weights by which the output was mixed.

        Examples
        --------
        >>> layer = Hopfield(4, random_state=0)
        >>> layer.forward([np.ones((7, 4)), np.ones((2, 4))]).shape  # two bags, each associated with itself
        (9, 4)
        >>> queries = np.ones((1, 4))  # of two axes: shared by all bags
        >>> layer.forward((np.ones((2, 7, 4)), queries, np.ones((2, 7, 4)))).shape
        (2, 1, 4)
        """
        options = {"stored_pattern_padding_mask": stored_pattern_padding_mask, "association_mask": association_mask}
        return self._pass(input, train, options | {"offsets": offsets})

    def _forward(
        self,
        input: Any,
        stored_pattern_padding_mask: Any = None,
        association_mask: Any = None,
        *,
        offsets: Any = None,
        train: bool = False,
        learned: tuple[Array, ...] = (),
    ) -> tuple[Array, tuple[Tape, bool]]:
        """Compute the output; `learned` are the input arrays that are values of parameters."""
        spec = self._spec
        as_they_are = spec.query.eps is None or spec.key.eps is None or spec.value.eps is None  # the tape keeps them

        def as_kept(name: str, x: Any) -> Array:
            return self._cast(name, x, copy=as_they_are and not any(x is y for y in learned))

        self._last_tape = self._last_gradients = None
        inputs, offsets, from_tuple = as_arrays(input, offsets, self._cast, as_kept)
        masks = stored_pattern_padding_mask, association_mask, offsets
        dropout = self.dropout if train else 0.0
        seed = int(self._random.integers(2**62)) if dropout else 0
        tape = self._last_tape = self._run(inputs, *masks, dropout=dropout, seed=seed)
        return tape.result, (tape, from_tuple)

    def _run(
        self, inputs: Any, padding: Any, mask: Any, offsets: Any, spec: HopfieldSpec | None = None, **options: Any
    ) -> Tape:
        """Run the forward pass with the layer's numbers."""
        return _passes.forward(
            spec or self._spec,
            {name: p.value for name, p in self._own.items()},
            inputs,
            padding=padding,
            mask=mask,
            offsets=offsets,
            scaling=self._scaling,
            separation=self._separation,
            structure=self._structure,
            **options,
        )

    def backward(self, grad: ArrayLike, need_input_grad: bool = True) -> Any:
        """Add to the parameters' gradients; return that of the input, or None where it is not needed.

        Parameters
        ----------
        grad : array_like, of the output's shape
            The gradient of a loss in the output of the last forward pass.
        need_input_grad : bool
            Whether to compute the gradient of the input.

        Returns
        -------
        None, ndarray, or tuple of three
            The gradient of the input, as it was given, ragged bags as one array (R, e). In a tuple an array that was
            given more than once has its whole gradient at its first place and None at the others.

        Raises
        ------
        RuntimeError
            If there was no forward pass since the last backward pass, or parameters have changed since.
        ValueError
            If `grad` does not have the output's shape.

        See Also
        --------
        sparsehopfield.layers.Hopfield.forward : Make the forward pass that it needs.
        sparsehopfield.layers.gradient_health : Look whether gradients have died in the association.

        Examples
        --------
        >>> layer, stored, state = Hopfield(4, random_state=0), np.ones((3, 7, 4)), np.ones((3, 5, 4))
        >>> out = layer.forward((stored, state, stored))
        >>> of_stored, of_state, none = layer.backward(np.ones_like(out))  # stored was given twice
        >>> of_stored.shape, of_state.shape, none
        ((3, 7, 4), (3, 5, 4), None)
        """
        return super().backward(grad, need_input_grad)

    def _backward(self, saved: tuple[Tape, bool], grad: Array, need_input_grad: bool) -> Any:
        tape, from_tuple = saved
        grads = self._backward_inputs(tape, grad, INPUTS if need_input_grad else ())
        if not need_input_grad:
            return None
        return grads if from_tuple else grads[0]

    def _backward_inputs(self, tape: Tape, grad: Array, needs: tuple[str, ...]) -> tuple[Array | None, ...]:
        """Add to the parameters' gradients; return those in (stored, state, projection) that are needed.

        An array in several roles has its whole gradient in the first of them.
        """
        found = _passes.backward(tape, grad, (*needs, "queries", "association"))
        last = found.pop("queries"), found.pop("association")
        if tape is self._last_tape:
            self._last_gradients = last
        inputs = tuple(found.pop(name, None) for name in INPUTS)
        for name, d in found.items():
            self._own[name].add(d)
        return inputs

    def associations(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Any:
        """Compute the last association: what hflayers calls the association matrix.

        Parameters
        ----------
        input, stored_pattern_padding_mask, association_mask, offsets : array_like, optional but the first
            As of `forward`.

        Returns
        -------
        ndarray of shape (B, H, N, M), or csr_array of shape (B * H * N, M)
            CSR where the separation is sparse, rows in that order. M is the largest bag's size where bags are ragged,
            with the appended patterns behind each bag's own. Ragged state patterns are padded to the longest bag, with
            rows of zeros.

        See Also
        --------
        sparsehopfield.layers.Hopfield.get_association_matrix : Return the same, dense in any case.
        sparsehopfield.layers.Hopfield.retrieve : Mix the stored patterns themselves by it.

        Examples
        --------
        >>> bags = np.random.default_rng(0).standard_normal((2, 5, 4))
        >>> dense = Hopfield(4, random_state=0).associations(bags)
        >>> sparse = SparseHopfield(4, scaling=1e6, random_state=0).associations(bags)
        >>> dense.shape, sparse.shape, sparse.nnz  # each of the ten state patterns attends to one stored pattern
        ((2, 1, 5, 5), (10, 5), 10)
        """
        return self._associations(input, stored_pattern_padding_mask, association_mask, offsets)[0]

    def get_association_matrix(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Array:
        """Return `associations` as hflayers does: dense, whatever the separation.

        Parameters
        ----------
        input, stored_pattern_padding_mask, association_mask, offsets : array_like, optional but the first
            As of `forward`.

        Returns
        -------
        ndarray of shape (B, H, N, M)
            The weights of samples, heads, state patterns and stored patterns.

        See Also
        --------
        sparsehopfield.layers.Hopfield.associations : Return the weights sparse where the separation is.
        sparsehopfield.torch.Hopfield.get_association_matrix : Compute the same in PyTorch.

        Examples
        --------
        >>> SparseHopfield(4, random_state=0).get_association_matrix(np.ones((2, 5, 4))).shape
        (2, 1, 5, 5)
        """
        weights, shape = self._associations(input, stored_pattern_padding_mask, association_mask, offsets)
        return weights if isinstance(weights, np.ndarray) else weights.toarray().reshape(shape)

    def get_projected_pattern_matrix(
        self,
        input: Any,
        stored_pattern_padding_mask: ArrayLike | None = None,
        association_mask: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
    ) -> Array:
        """Return the projected patterns, which the association mixes, appended ones behind them.

        Parameters
        ----------
        input : array_like
            As of `forward`.
        stored_pattern_padding_mask, association_mask : array_like, optional
            As of `forward`; without effect here.
        offsets : array_like of int, optional
            As of `forward`.

        Returns
        -------
        ndarray of shape (B, H, M, p), or (H, R, p) for ragged bags
            The projected patterns of samples and heads.

        See Also
        --------
        sparsehopfield.layers.Hopfield.get_association_matrix : Return the weights by which they are mixed.

        Examples
        --------
        >>> Hopfield(4, num_heads=2, random_state=0).get_projected_pattern_matrix(np.ones((3, 5, 4))).shape
        (3, 2, 5, 2)
        """
        inputs, offsets, _ = as_arrays(input, offsets, self._cast)
        return _passes.projected_patterns(
            self._spec,
            {name: p.value for name, p in self._own.items()},
            inputs,
            padding=stored_pattern_padding_mask,
            mask=association_mask,
            offsets=offsets,
        )

    def _associations(self, input: Any, padding: Any, mask: Any, offsets: Any) -> tuple[Any, tuple[int, ...]]:
        """Return `associations`, and the dense shape (B, H, N, M)."""
        inputs, offsets, _ = as_arrays(input, offsets, self._cast)
        return _passes.associations(self._run(inputs, padding, mask, offsets))

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
        """Retrieve the stored patterns that the state patterns recall.

        State patterns are moved in the association space, to rest by default; what is returned is the mixture of the
        stored patterns as they came in (neither normalised nor projected) by the association that is reached.
        Appended patterns count as zeros.

        Parameters
        ----------
        input, stored_pattern_padding_mask, association_mask, offsets : array_like, optional but the first
            As of `forward`.
        per_head : bool
            Whether to return a mixture for each head; their mean by default.
        update_steps_max : int or None
            How many updates follow the first association; negative or None: until every query rests.

        Returns
        -------
        ndarray of shape (B, N, e), or (B, N, H, e) per head
            Beginning with (R,) in place of (B, N) where the state patterns are ragged.

        See Also
        --------
        sparsehopfield.layers.Hopfield.forward : Compute the layer's output, in its own number of updates.
        sparsehopfield.retrieve : Retrieve patterns without a layer.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> stored, state = rng.standard_normal((1, 100, 4)), rng.standard_normal((1, 2, 4))
        >>> layer = SparseHopfield(4, num_heads=2, random_state=0)
        >>> layer.retrieve((stored, state, stored)).shape
        (1, 2, 4)
        """
        inputs, offsets, _ = as_arrays(input, offsets, self._cast)
        steps = None if update_steps_max is None else as_whole("update_steps_max", update_steps_max, least=None)
        steps = None if steps is None or steps < 0 else steps
        masks = stored_pattern_padding_mask, association_mask, offsets
        tape = self._run(inputs, *masks, self._spec.changed(update_steps_max=steps), recall=True)
        out = tape.out if tape.padded is None else tape.out[tape.padded]
        out = out if per_head else out.mean(axis=-2)
        return out if self.batch_first or tape.padded is not None else out.swapaxes(0, 1)


@with_sections(Hopfield, "Parameters")
class SparseHopfield(Hopfield):
    """`Hopfield` with the sparsemax association of the main paper (Hu et al. 2023, section 4).

    See Also
    --------
    sparsehopfield.layers.Hopfield : The same with softmax.
    sparsehopfield.layers.SparseHopfieldPooling : A layer with learned state patterns, which makes a vector of each bag.

    Examples
    --------
    >>> layer = SparseHopfield(4, random_state=0)
    >>> layer.separation, layer.forward(np.ones((3, 5, 4))).shape
    ('sparsemax', (3, 5, 4))
    """

    _default_separation = "sparsemax"
