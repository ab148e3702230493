"""Encoder and decoder layers: their state, their arithmetic, and torch's containers around them."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from torch import nn  # noqa: E402

import sparsehopfield.torch as sht  # noqa: E402
from sparsehopfield.torch import _layer, _native  # noqa: E402

B, N, M, E = 3, 5, 4, 6


def encoder(**options):
    torch.manual_seed(0)
    return sht.HopfieldEncoderLayer(sht.SparseHopfield(E, num_heads=2), 8, **{"dropout": 0.0} | options).double()


def decoder(**options):
    torch.manual_seed(0)
    association = sht.SparseHopfield(E, num_heads=2), sht.Hopfield(E, batch_first=options.pop("batch_first", True))
    return sht.HopfieldDecoderLayer(*association, 8, **{"dropout": 0.0} | options).double()


def test_state():
    core = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    norms = [f"norm_{name}" for name in ("stored_pattern", "state_pattern", "pattern_projection")]

    def association(name):
        return [
            *(f"{name}.association_core.{part}" for part in core),
            *(f"{name}.{norm}.{part}" for norm in norms for part in ("weight", "bias")),
        ]

    def both(*names):
        return [f"{name}.{part}" for name in names for part in ("weight", "bias")]

    assert list(encoder().state_dict()) == [
        *association("hopfield_association"),
        *both("linear_residual", "linear_output", "norm_residual", "norm_output"),
    ]
    assert list(decoder().state_dict()) == [
        *association("hopfield_association_self"),
        *association("hopfield_association_cross"),
        *both("linear_residual", "linear_output", "norm_residual_self", "norm_residual_cross", "norm_output"),
    ]


def test_encoder():
    """The layer is its parts, one after another."""
    layer = encoder()
    x = torch.randn(B, N, E, dtype=torch.float64)
    mask, padding = torch.ones(N, N, dtype=torch.bool).triu(1), torch.rand(B, N) < 0.3
    associated = layer.hopfield_association(x, padding, mask)
    y = layer.norm_residual(x + associated)
    expected = layer.norm_output(y + layer.linear_output(torch.relu(layer.linear_residual(y))))
    torch.testing.assert_close(layer(x, mask, padding), expected, rtol=0, atol=1e-14)
    assert layer.get_association_matrix(x).shape == (B, 2, N, N)
    assert (layer.batch_first, layer.input_size, layer.output_size) == (True, E, E)


def test_decoder():
    layer = decoder()
    x, memory = (torch.randn(B, n, E, dtype=torch.float64) for n in (N, M))
    masks = torch.ones(N, N, dtype=torch.bool).triu(1), torch.randn(N, M, dtype=torch.float64)
    paddings = torch.rand(B, N) < 0.3, torch.rand(B, M) < 0.3
    y = layer.norm_residual_self(x + layer.hopfield_association_self(x, paddings[0], masks[0]))
    crossed = layer.hopfield_association_cross((memory, y, memory), paddings[1], masks[1])
    y = layer.norm_residual_cross(y + crossed)
    expected = layer.norm_output(y + layer.linear_output(torch.relu(layer.linear_residual(y))))
    torch.testing.assert_close(layer(x, memory, *masks, *paddings), expected, rtol=0, atol=1e-14)
    assert layer.get_association_matrix_self(x).shape == (B, 2, N, N)
    assert layer.get_association_matrix_cross((memory, x, memory)).shape == (B, 1, N, M)
    assert (layer.batch_first, layer.input_size, layer.output_size) == (True, E, E)


def test_containers_of_torch():
    torch.manual_seed(0)
    stack = nn.TransformerEncoder(encoder(), 2, enable_nested_tensor=False)
    x = torch.randn(B, N, E, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(N, dtype=torch.float64)
    out = stack(x, mask, is_causal=True)
    expected = stack.layers[1](stack.layers[0](x, mask), mask)
    torch.testing.assert_close(out, expected)
    changed = x.clone()
    changed[:, -1] += 1
    torch.testing.assert_close(stack(changed, mask)[:, :-1], out[:, :-1])  # nothing comes from later positions
    padding = torch.zeros(B, N, dtype=torch.bool)
    padding[:, -1] = True
    torch.testing.assert_close(
        stack(changed, src_key_padding_mask=padding)[:, :-1], stack(x, src_key_padding_mask=padding)[:, :-1]
    )
    padding[0] = True
    layer = stack.layers[0]
    as_numbers = torch.zeros(B, N).masked_fill(padding, -torch.inf)
    torch.testing.assert_close(layer(x, mask, as_numbers), layer(x, mask, padding), rtol=0, atol=0)
    decoders = nn.TransformerDecoder(decoder(), 2)
    decoded = decoders(x, out, tgt_mask=mask, tgt_is_causal=True)
    torch.testing.assert_close(decoded, decoders.layers[1](decoders.layers[0](x, out, mask), out, mask))
    decoded.sum().backward()
    assert all(p.grad is not None for p in (*stack.parameters(), *decoders.parameters()))


def test_dropout_and_copies():
    association = sht.SparseHopfield(E)
    layer = sht.HopfieldEncoderLayer(association, 8, dropout=0.5, activation="gelu")
    assert layer.hopfield_association is not association
    x = torch.randn(B, N, E)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    layer.eval()
    assert torch.equal(layer(x), copy.deepcopy(layer)(x))


def test_backend():
    """One is passed on to the copies; by default they keep their own."""
    x = torch.randn(B, N, E, dtype=torch.float64)
    own = sht.SparseHopfield(E, num_heads=2, backend="core")
    kept, given = sht.HopfieldEncoderLayer(own, 8), encoder(backend="torch")
    assert (kept.self_attn.backend, given.self_attn.backend, own.backend) == ("core", "torch", "core")
    crossed = decoder(backend="torch")
    assert crossed.hopfield_association_self.backend == crossed.hopfield_association_cross.backend == "torch"
    before = _native.counts["forward"], _layer.counts["forward"]
    out = given(x), crossed(x, x)
    assert (_native.counts["forward"], _layer.counts["forward"]) == before
    for found, layer in zip(out, (encoder(backend="core")(x), decoder()(x, x)), strict=True):
        torch.testing.assert_close(found, layer)
    assert _layer.counts["forward"] == before[1] + 3
    with pytest.raises(ValueError, match="backend"):
        encoder(backend="cuda")


def test_samples_second():
    association = sht.SparseHopfield(E, num_heads=2, batch_first=False)
    layer = sht.HopfieldEncoderLayer(association, 8, 0.0, torch.tanh)
    first = sht.HopfieldEncoderLayer(sht.SparseHopfield(E, num_heads=2), 8, 0.0, "tanh")
    first.load_state_dict(layer.state_dict())
    x = torch.randn(B, N, E)
    torch.testing.assert_close(layer(x.transpose(0, 1)).transpose(0, 1), first(x))


def test_errors():
    x = torch.randn(B, N, E, dtype=torch.float64)
    with pytest.raises(ValueError, match="is_causal: is a hint"):
        encoder()(x, is_causal=True)
    with pytest.raises(ValueError, match="memory_is_causal: is a hint"):
        decoder()(x, x, memory_is_causal=True)
    with pytest.raises(ValueError, match="tgt_key_padding_mask: numbers"):
        decoder()(x, x, tgt_key_padding_mask=x[..., 0])
    with pytest.raises(TypeError, match="hopfield_association: must be a Hopfield module"):
        sht.HopfieldEncoderLayer(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="must give as many features"):
        sht.HopfieldEncoderLayer(sht.Hopfield(E, output_size=2))
    with pytest.raises(ValueError, match="hopfield_association_cross: must take 6 features"):
        sht.HopfieldDecoderLayer(sht.Hopfield(E), sht.Hopfield(4))
    with pytest.raises(ValueError, match="activation"):
        encoder(activation="relulu")
