"""Layers of transformers around Hopfield associations, with hflayers' arguments, parameters and outputs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from sparsehopfield._engine.text import short
from sparsehopfield.torch.modules import Hopfield

__all__ = ["HopfieldDecoderLayer", "HopfieldEncoderLayer"]


def _activation(activation: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function of torch by its name, or one that is given."""
    if callable(activation):
        return activation
    for functions in (torch, nn.functional):
        function = getattr(functions, str(activation), None)
        if callable(function):
            return function
    raise ValueError(f"activation: must be the name of a function of torch, or a function, got {short(activation)}")


class _TransformerLayer(nn.Module):
    """What encoder and decoder layers share: the feed-forward part, and what torch's containers look for."""

    activation_residual: Callable[[Tensor], Tensor]
    linear_residual: nn.Linear
    dropout_residual: nn.Dropout
    linear_output: nn.Linear
    norm_output: nn.LayerNorm
    dropout_output: nn.Dropout

    @property
    def self_attn(self) -> Hopfield:
        """Return the association of the layer's input with itself, by the name that torch's containers look for."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Begin anew: draw the weights from torch's generator, as hflayers draws them.

        See Also
        --------
        torch.nn.Module.load_state_dict : Set weights that are given.

        Examples
        --------
        >>> import torch
        >>> from sparsehopfield.torch import Hopfield
        >>> layer = HopfieldEncoderLayer(Hopfield(8), dim_feedforward=16)
        >>> before = layer.linear_output.weight.clone()
        >>> layer.reset_parameters()
        >>> torch.equal(before, layer.linear_output.weight)
        False
        """
        for module in self.children():
            if not isinstance(module, nn.Dropout):
                module.reset_parameters()  # type: ignore[operator]

    def _feed_forward(self, x: Tensor) -> Tensor:
        """Return the layer's output (B, N, e) from what the associations made of its input."""
        inner = self.dropout_residual(self.activation_residual(self.linear_residual(x)))
        return self.norm_output(x + self.dropout_output(self.linear_output(inner)))

    @property
    def batch_first(self) -> bool:
        """Return whether samples are the first axis."""
        return self.self_attn.batch_first

    @property
    def input_size(self) -> int | None:
        """Return how many features inputs have."""
        return self.self_attn.input_size

    @property
    def output_size(self) -> int:
        """Return how many features outputs have."""
        return self.linear_output.out_features


def _width(association: Any, name: str) -> int:
    """Return how many features go into an association, and come out."""
    if not isinstance(association, Hopfield):
        raise TypeError(f"{name}: must be a Hopfield module, got {short(type(association).__name__)}")
    width, out = association.input_size, association.output_size
    if association.association_core.out_proj is None and association.pattern_size is not None:
        out = association.num_heads * association.pattern_size
    if width is None or out != width:
        raise ValueError(f"{name}: must give as many features as it takes, takes {width} and gives {out}")
    return int(width)


def _copied(association: Hopfield, backend: str | None) -> Hopfield:
    """Return a copy of an association, with a backend of its own if one is given."""
    copied = deepcopy(association)
    if backend is not None:
        copied.backend = backend
    return copied


class HopfieldEncoderLayer(_TransformerLayer):
    """An encoder layer of a transformer, with a Hopfield association in place of self-attention.

    Parameters
    ----------
    hopfield_association : Hopfield
        The association; the layer keeps a copy, its weights drawn anew. Its output has as many features as its input.
    dim_feedforward : int, at least 1
        Features within the feed-forward part.
    dropout : float from 0 to 1
        Rate of dropout, in training: of what association and feed-forward part add to the input, and within the latter.
    activation : str or callable
        Of the feed-forward part: the name of a function in `torch` or `torch.nn.functional`, or a function.
    backend : {"core", "torch"}, optional
        What computes the association; by default that of `hopfield_association`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.HopfieldDecoderLayer : The layer that looks at what encoders made.
    torch.nn.TransformerEncoder : Stack such layers.

    Notes
    -----
    Usable in `torch.nn.TransformerEncoder`; `is_causal` is but a hint there, which needs `src_mask`. A boolean mask is
    True where there is no attention, as in hflayers and in torch's transformer layers.

    References
    ----------
    Vaswani et al. 2017, "Attention is all you need"; Ramsauer et al. 2021, "Hopfield networks is all you need".

    Examples
    --------
    >>> import torch
    >>> from sparsehopfield.torch import SparseHopfield
    >>> layer = HopfieldEncoderLayer(SparseHopfield(8, num_heads=2), dim_feedforward=16)
    >>> encoder = torch.nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
    >>> encoder(torch.ones(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        hopfield_association: Hopfield,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        e = _width(hopfield_association, "hopfield_association")
        self.hopfield_association = _copied(hopfield_association, backend)
        self.linear_residual = nn.Linear(e, dim_feedforward)
        self.dropout_residual = nn.Dropout(dropout)
        self.linear_output = nn.Linear(dim_feedforward, e)
        self.norm_residual = nn.LayerNorm(e)
        self.norm_output = nn.LayerNorm(e)
        self.dropout_hopfield_association = nn.Dropout(dropout)
        self.dropout_output = nn.Dropout(dropout)
        self.activation_residual = _activation(activation)
        self.reset_parameters()

    @property
    def self_attn(self) -> Hopfield:
        """Return the association, by the name that torch's containers look for."""
        return self.hopfield_association

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Encode a sequence.

        Parameters
        ----------
        src : Tensor of shape (B, N, e), or (N, B, e) unless batch_first
            The source sequence.
        src_mask : Tensor, shape (N, N) or as `association_mask` of `Hopfield.forward`, optional
            True where a position must not look at another; or numbers added to the scores.
        src_key_padding_mask : Tensor, shape (B, N), optional
            True where a position is none; or the numbers that torch's containers make of that, -inf there and else 0.
        is_causal : bool
            A hint that `src_mask` is causal; without effect.

        Returns
        -------
        Tensor, shaped as `src`
            What the layer makes of the source.

        Raises
        ------
        ValueError
            If `is_causal` has no mask beside it.

        See Also
        --------
        sparsehopfield.torch.HopfieldEncoderLayer.get_association_matrix : Compute the weights of the association.

        Examples
        --------
        >>> import torch
        >>> from sparsehopfield.torch import SparseHopfield
        >>> layer = HopfieldEncoderLayer(SparseHopfield(8), dim_feedforward=16)
        >>> causal = torch.ones(5, 5, dtype=torch.bool).triu(1)  # no position looks at later ones
        >>> layer(torch.ones(3, 5, 8), causal, is_causal=True).shape
        torch.Size([3, 5, 8])
        """
        _check_hint("is_causal", is_causal, src_mask)
        padding = _as_bool("src_key_padding_mask", src_key_padding_mask)
        associated = self.hopfield_association(src, padding, src_mask)
        return self._feed_forward(self.norm_residual(src + self.dropout_hopfield_association(associated)))

    def get_association_matrix(self, input: Any) -> Tensor:
        """Compute the weights of the association, without gradient and dropout.

        Parameters
        ----------
        input : Tensor, or tuple of three
            As of `Hopfield.forward`: the layer's input, `src`.

        Returns
        -------
        Tensor of shape (B, H, N, M)
            A row for each state pattern, whose weights sum to 1.

        See Also
        --------
        sparsehopfield.torch.Hopfield.get_association_matrix : Do the same with masks.

        Examples
        --------
        >>> import torch
        >>> from sparsehopfield.torch import SparseHopfield
        >>> layer = HopfieldEncoderLayer(SparseHopfield(8, num_heads=2), dim_feedforward=16)
        >>> layer.get_association_matrix(torch.ones(3, 5, 8)).shape
        torch.Size([3, 2, 5, 5])
        """
        return self.hopfield_association.get_association_matrix(input)


class HopfieldDecoderLayer(_TransformerLayer):
    """A decoder layer of a transformer, with Hopfield associations in place of self- and cross-attention.

    Parameters
    ----------
    hopfield_association_self, hopfield_association_cross : Hopfield
        The associations of the target with itself and with the memory, of one width; the layer keeps copies, their
        weights drawn anew.
    dim_feedforward, dropout, activation, backend : int, float, str and str, optional
        As of `HopfieldEncoderLayer`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument at fault.

    See Also
    --------
    sparsehopfield.torch.HopfieldEncoderLayer : The layer that makes the memory.
    torch.nn.TransformerDecoder : Stack such layers.

    Notes
    -----
    Usable in `torch.nn.TransformerDecoder`.

    References
    ----------
    Vaswani et al. 2017, "Attention is all you need"; Ramsauer et al. 2021, "Hopfield networks is all you need".

    Examples
    --------
    >>> import torch
    >>> from sparsehopfield.torch import SparseHopfield
    >>> layer = HopfieldDecoderLayer(SparseHopfield(8), SparseHopfield(8), dim_feedforward=16)
    >>> layer(torch.ones(3, 5, 8), torch.ones(3, 7, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        hopfield_association_self: Hopfield,
        hopfield_association_cross: Hopfield,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        e = _width(hopfield_association_self, "hopfield_association_self")
        if _width(hopfield_association_cross, "hopfield_association_cross") != e:
            raise ValueError(f"hopfield_association_cross: must take {e} features, as hopfield_association_self does")
        self.hopfield_association_self = _copied(hopfield_association_self, backend)
        self.hopfield_association_cross = _copied(hopfield_association_cross, backend)
        self.linear_residual = nn.Linear(e, dim_feedforward)
        self.dropout_residual = nn.Dropout(dropout)
        self.linear_output = nn.Linear(dim_feedforward, e)
        self.norm_residual_self = nn.LayerNorm(e)
        self.norm_residual_cross = nn.LayerNorm(e)
        self.norm_output = nn.LayerNorm(e)
        self.dropout_hopfield_association_self = nn.Dropout(dropout)
        self.dropout_hopfield_association_cross = nn.Dropout(dropout)
        self.dropout_output = nn.Dropout(dropout)
        self.activation_residual = _activation(activation)
        self.reset_parameters()

    @property
    def self_attn(self) -> Hopfield:
        """Return the self-association, by the name that torch's containers look for."""
        return self.hopfield_association_self

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Decode a sequence beside a memory.

        Parameters
        ----------
        tgt : Tensor of shape (B, N, e), or (N, B, e) unless batch_first
            The target sequence.
        memory : Tensor of shape (B, M, e), or (M, B, e)
            What the encoder made of the source.
        tgt_mask, memory_mask : Tensor, shape (N, N) and (N, M), optional
            `association_mask` of `Hopfield.forward`, of the two associations.
        tgt_key_padding_mask, memory_key_padding_mask : Tensor, shape (B, N) and (B, M), optional
            True where a position is none; or numbers, -inf there and else 0.
        tgt_is_causal, memory_is_causal : bool
            Hints that masks are causal; without effect.

        Returns
        -------
        Tensor, shaped as `tgt`
            What the layer makes of the target.

        Raises
        ------
        ValueError
            If a hint has no mask beside it.

        See Also
        --------
        sparsehopfield.torch.HopfieldDecoderLayer.get_association_matrix_cross : Compute the memory's weights.

        Examples
        --------
        >>> import torch
        >>> from sparsehopfield.torch import SparseHopfield
        >>> layer = HopfieldDecoderLayer(SparseHopfield(8), SparseHopfield(8), dim_feedforward=16)
        >>> target, memory = torch.ones(3, 5, 8), torch.ones(3, 7, 8)
        >>> layer(target, memory, tgt_mask=torch.ones(5, 5, dtype=torch.bool).triu(1)).shape
        torch.Size([3, 5, 8])
        """
        _check_hint("tgt_is_causal", tgt_is_causal, tgt_mask)
        _check_hint("memory_is_causal", memory_is_causal, memory_mask)
        padding = _as_bool("tgt_key_padding_mask", tgt_key_padding_mask)
        associated = self.hopfield_association_self(tgt, padding, tgt_mask)
        tgt = self.norm_residual_self(tgt + self.dropout_hopfield_association_self(associated))
        padding = _as_bool("memory_key_padding_mask", memory_key_padding_mask)
        associated = self.hopfield_association_cross((memory, tgt, memory), padding, memory_mask)
        tgt = self.norm_residual_cross(tgt + self.dropout_hopfield_association_cross(associated))
        return self._feed_forward(tgt)

    def get_association_matrix_self(self, input: Any) -> Tensor:
        """Compute the weights of the self-association, without gradient and dropout.

        Parameters
        ----------
        input : Tensor, or tuple of three
            As of `Hopfield.forward`: the target, `tgt`.

        Returns
        -------
        Tensor of shape (B, H, N, N)
            A row for each position of the target, whose weights sum to 1.

        See Also
        --------
        sparsehopfield.torch.Hopfield.get_association_matrix : Do the same with masks.

        Examples
        --------
        >>> import torch
        >>> from sparsehopfield.torch import SparseHopfield
        >>> layer = HopfieldDecoderLayer(SparseHopfield(8), SparseHopfield(8), dim_feedforward=16)
        >>> layer.get_association_matrix_self(torch.ones(3, 5, 8)).shape
        torch.Size([3, 1, 5, 5])
        """
        return self.hopfield_association_self.get_association_matrix(input)

    def get_association_matrix_cross(self, input: Any) -> Tensor:
        """Compute the weights of the cross-association, without gradient and dropout.

        Parameters
        ----------
        input : Tensor, or tuple of three
            As of `Hopfield.forward`: (memory, normalised target, memory).

        Returns
        -------
        Tensor of shape (B, H, N, M)
            A row for each position of the target, whose weights of the memory's rows sum to 1.

        See Also
        --------
        sparsehopfield.torch.Hopfield.get_association_matrix : Do the same with masks.

        Examples
        --------
        >>> import torch
        >>> from sparsehopfield.torch import SparseHopfield
        >>> layer = HopfieldDecoderLayer(SparseHopfield(8), SparseHopfield(8), dim_feedforward=16)
        >>> target, memory = torch.ones(3, 5, 8), torch.ones(3, 7, 8)
        >>> layer.get_association_matrix_cross((memory, target, memory)).shape
        torch.Size([3, 1, 5, 7])
        """
        return self.hopfield_association_cross.get_association_matrix(input)


def _as_bool(name: str, padding: Tensor | None) -> Tensor | None:
    """Return a padding mask as bool; torch's containers make numbers of it, 0 and -inf."""
    if padding is None or not padding.is_floating_point():
        return padding
    left_out = padding == -torch.inf
    if padding.is_cpu and not torch.compiler.is_compiling() and not ((padding == 0) | left_out).all():
        raise ValueError(f"{name}: numbers in a padding mask must be 0 or -inf")
    return left_out


def _check_hint(name: str, is_causal: bool, mask: Tensor | None) -> None:
    """Raise ValueError if a mask is said to be causal, and there is none."""
    if is_causal and mask is None:
        raise ValueError(f"{name}: is a hint about a mask; give the mask, too")
