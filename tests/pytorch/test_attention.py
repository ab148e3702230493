"""`hopfield_attention`: what `scaled_dot_product_attention` gives with softmax, and its arguments."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from association_cases import no_living_tape, passes  # noqa: E402, F401
from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

from sparsehopfield.structures import TopK, Window  # noqa: E402
from sparsehopfield.torch import associate, hopfield_attention  # noqa: E402
from sparsehopfield.torch._backend import EAGER, route_of  # noqa: E402

B, H, N, M, D, V = 2, 3, 4, 5, 6, 7
BACKENDS = ["core", "torch"]


def rows(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hidden(*shape, seed=0):
    """A mask in which every query sees the first row."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[..., 0] = True
    return mask


def compared(ours, theirs, *tensors):
    """Compare outputs and gradients of two functions of the same tensors."""
    given = [t.clone().requires_grad_() for t in tensors]
    out, expected = ours(*given), theirs(*given)
    torch.testing.assert_close(out, expected)
    weight = rows(*out.shape, seed=9)
    for a, b in zip(torch.autograd.grad(out, given, weight), torch.autograd.grad(expected, given, weight), strict=True):
        torch.testing.assert_close(a, b)


QKV = rows(B, H, N, D), rows(B, H, M, D, seed=1), rows(B, H, M, V, seed=2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "mask",
    [
        None,
        hidden(N, M),
        hidden(H, N, M),
        hidden(B, 1, N, M),
        hidden(B, H, N, M),
        hidden(B, H, 1, M),
        hidden(1, M),
        rows(N, M),
        rows(B, H, N, M),
        rows(H, 1, M),
        rows(B, 1, N, 1),
        rows(N, M).masked_fill(~hidden(N, M), -torch.inf),
    ],
    ids=lambda mask: "none" if mask is None else f"{mask.dtype} of {tuple(mask.shape)}",
)
def test_softmax_is_scaled_dot_product_attention(mask, backend):
    """Whatever the mask; True in one of bool takes part, which is not so in the layers."""
    compared(
        lambda *qkv: hopfield_attention(*qkv, mask, separation="softmax", backend=backend),
        lambda *qkv: scaled_dot_product_attention(*qkv, mask),
        *QKV,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("m", [N, M, 3])
def test_causal_attention_is_scaled_dot_product_attention(m, backend):
    """With as many rows as queries, for which there is a structure, and with others."""
    q, k, v = QKV[0], rows(B, H, m, D, seed=1), rows(B, H, m, V, seed=2)
    compared(
        lambda *qkv: hopfield_attention(*qkv, is_causal=True, separation="softmax", scale=0.7, backend=backend),
        lambda *qkv: scaled_dot_product_attention(*qkv, is_causal=True, scale=0.7),
        q,
        k,
        v,
    )


def test_causal_attention_under_a_structure_is_both():
    x = rows(B, H, N, D)
    out = hopfield_attention(x, x, x, is_causal=True, structure=Window(1), update_steps_max=1)
    expected = hopfield_attention(x, x, x, structure=Window(1, causal=True), update_steps_max=1)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lead", [(), (2, 3), (0,)], ids=str)
def test_leading_axes_may_be_any(lead, backend):
    q, k, v = rows(*lead, H, N, D), rows(*lead, H, M, D, seed=1), rows(*lead, H, M, V, seed=2)
    mask, padding = hidden(*lead, 1, N, M), ~hidden(*lead, M, seed=1)
    compared(
        lambda *qkv: hopfield_attention(*qkv, mask, separation="softmax", key_padding_mask=padding, backend=backend),
        lambda *qkv: scaled_dot_product_attention(*qkv, mask & ~padding[..., None, None, :]),
        q,
        k,
        v,
    )


def test_one_head_needs_no_axis():
    q, k, v = (t[0, 0] for t in QKV)
    compared(
        lambda *qkv: hopfield_attention(*qkv, separation="softmax"),
        lambda *qkv: scaled_dot_product_attention(*qkv),
        q,
        k,
        v,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_and_values_may_be_shared(backend):
    """By heads, by samples, one of them or both."""
    for k, v in (((B, 1), (B, 1)), ((1, H), (1, H)), ((B, 1), (B, H)), ((H,), (H,)), ((1,), (B, H))):
        k, v = rows(*k, M, D, seed=1), rows(*v, M, V, seed=2)
        compared(
            lambda *qkv: hopfield_attention(*qkv, separation="softmax", backend=backend),
            lambda q, k, v: scaled_dot_product_attention(
                q, k.expand(B, H, M, D).contiguous(), v.expand(B, H, M, V).contiguous()
            ),
            QKV[0],
            k,
            v,
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"attn_mask": hidden(N, M)}, {"attn_mask": rows(B, 6, N, M)}, {"scale": 0.5}],
    ids=lambda options: ", ".join(options),
)
def test_grouped_queries_are_scaled_dot_product_attention(options, groups, backend):
    """Which repeats the heads of keys and values, as here only what follows sample by sample or head by head."""
    given = rows(B, 6, N, D), rows(B, groups, M, D, seed=1), rows(B, groups, M, V, seed=2)

    def theirs(q, k, v):
        return scaled_dot_product_attention(q, *(t.repeat_interleave(6 // groups, -3) for t in (k, v)), **options)

    def ours(*qkv):
        return hopfield_attention(*qkv, separation="softmax", enable_gqa=True, backend=backend, **options)

    compared(ours, theirs, *given)
    within = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in given]
    torch.testing.assert_close(ours(*within), theirs(*given))


def test_groups_follow_one_scale_for_each_head_and_dropout():
    given = rows(B, 6, N, D), *QKV[1:]
    repeated = given[0], *(t.repeat_interleave(2, -3) for t in QKV[1:])
    for options in ({"scale": torch.arange(1.0, 7.0)}, {"dropout_p": 0.5}, {"update_steps_max": 2}):
        torch.manual_seed(0)
        out = hopfield_attention(*given, enable_gqa=True, **options)
        torch.manual_seed(0)
        torch.testing.assert_close(out, hopfield_attention(*repeated, **options))


@pytest.mark.parametrize("separation", ["softmax", "sparsemax", "entmax15"])
def test_layouts_give_the_same(separation):
    """Contiguous heads, which become samples, and heads within rows, as a linear map leaves them."""
    within = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in QKV]
    for options in ({}, {"update_steps_max": 2}, {"is_causal": False, "attn_mask": hidden(N, M)}):
        a = hopfield_attention(*QKV, separation=separation, **options)
        b = hopfield_attention(*within, separation=separation, **options)
        torch.testing.assert_close(a, b)


def test_gradients_lie_as_their_tensors_do():
    """So that none is copied on its way to a leaf."""
    for layout in (lambda t: t, lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)):
        given = [layout(t).detach().requires_grad_() for t in QKV]
        out = hopfield_attention(*given)
        for t, gradient in zip(given, torch.autograd.grad(out.sum(), given), strict=True):
            assert gradient.stride() == t.stride()


@pytest.mark.parametrize("shape", [(0, H, N, D), (2, 0, H, N, D), (B, H, 0, D), (0, N, D)])
def test_there_may_be_no_samples_no_queries_and_no_heads(shape):
    q, k = rows(*shape).requires_grad_(), rows(*shape[:-2], M, D).requires_grad_()
    if shape[-3] == 0:
        with pytest.raises(ValueError, match="at least one head"):
            hopfield_attention(q, k, k)
        return
    out = hopfield_attention(q, k, k)
    assert out.shape == shape
    assert [g.shape for g in torch.autograd.grad(out.sum(), (q, k))] == [q.shape, k.shape]


def test_it_is_the_association():
    q, k, v = (t.transpose(1, 2) for t in QKV)
    expected = associate(q, k, v, D**-0.5, update_steps_max=3, update_steps_eps=1e-3, structure=TopK(2))
    out = hopfield_attention(*QKV, update_steps_max=3, update_steps_eps=1e-3, structure=TopK(2))
    torch.testing.assert_close(out.transpose(1, 2), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(), (1,), (H,)])
def test_scale_may_be_learned(shape, backend):
    scale = torch.full(shape, 0.4, dtype=torch.float64)

    def theirs(scale, *qkv):
        return scaled_dot_product_attention(qkv[0] * scale.reshape(-1, 1, 1), *qkv[1:], scale=1.0)

    compared(
        lambda scale, *qkv: hopfield_attention(*qkv, scale=scale, separation="softmax", backend=backend),
        theirs,
        scale,
        *QKV,
    )


def test_dropout_follows_torchs_generator_whatever_the_backend():
    drawn = []
    for backend in (*BACKENDS, None):
        torch.manual_seed(4)
        drawn.append(hopfield_attention(*QKV, dropout_p=0.5, separation="softmax", backend=backend))
    torch.testing.assert_close(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.allclose(drawn[0], hopfield_attention(*QKV, dropout_p=0.5, separation="softmax"))


def test_the_mean_of_dropped_weights_is_their_value():
    x = rows(1, 1, 2, 3, dtype=torch.float32)
    out = hopfield_attention(*(x.expand(4000, 1, 2, 3),) * 3, dropout_p=0.3, separation="softmax")
    torch.testing.assert_close(out.mean(0), scaled_dot_product_attention(x, x, x)[0], atol=0.05, rtol=0)


def test_a_query_that_sees_nothing_gets_zeros():
    mask = torch.ones(N, M, dtype=torch.bool)
    mask[1] = False
    out = hopfield_attention(*QKV, mask)
    assert not out[:, :, 1].any()
    assert out[:, :, 0].any()


def test_eager_calls_take_the_function(passes):  # noqa: F811
    """Not the operator, which costs more than a small association."""
    assert route_of("qkv", QKV) is EAGER
    hopfield_attention(*QKV)
    assert passes["forward"] == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": rows(D)}, "query: must be of shape"),
        ({"query": torch.zeros(B, H, N, D, dtype=torch.int32)}, "query: must be of floating numbers"),
        ({"key": rows(B, H, M, D + 1)}, "query: must have the features of the keys"),
        ({"key": rows(B, 2, M, D)}, "key: must have 3 heads or one"),
        ({"key": rows(B, 2, M, D), "enable_gqa": True}, "key: needs a number of heads that divides the query's 3"),
        ({"value": rows(B, 2, M, V), "enable_gqa": True}, "value: must have 3 heads or one"),
        ({"key": rows(3, H, M, D)}, "key: must have the query's leading axes"),
        ({"value": rows(B, H, M + 1, V)}, "value: must have a row for each of 5 rows"),
        ({"attn_mask": hidden(N, M), "is_causal": True}, "attn_mask: not with is_causal"),
        ({"attn_mask": torch.ones(N, M, dtype=torch.int64)}, "attn_mask: must be of bool or floating"),
        ({"attn_mask": [[True] * M] * N}, "attn_mask: must be a tensor, got list"),
        ({"attn_mask": hidden(N, M + 1)}, "attn_mask: must broadcast to"),
        ({"attn_mask": hidden(2, N, M)}, "attn_mask: must broadcast to"),
        ({"attn_mask": hidden(3, H, N, M)}, "attn_mask: must broadcast to"),
        ({"key_padding_mask": hidden(M)}, "key_padding_mask: must be of bool and shape"),
        ({"scale": 0.0}, "scale: must be positive"),
        ({"scale": torch.tensor(-1.0)}, "^scale: must be positive and finite"),
        ({"query": torch.full((B, H, N, D), torch.nan)}, r"^query: row \d contains NaN"),
        ({"key": torch.full((B, H, M, D), torch.nan)}, r"^key: row \d contains NaN"),
        ({"value": rows(B, H, M, 0)}, "^value: at least one head and one feature"),
        ({"value": rows(B, H, M, V).to("meta")}, "^value: is on meta, but query on cpu"),
        ({"attn_mask": torch.full((N, M), torch.nan)}, "^attn_mask: must be finite numbers"),
        ({"attn_mask": [[True]]}, "^attn_mask: must be a tensor"),
        ({"key_padding_mask": hidden(B, M).to_sparse()}, "^key_padding_mask: must be a dense tensor"),
        ({"scale": torch.ones(2)}, "scale: must be one number or one for each"),
        ({"dropout_p": 1.0}, "dropout_p: must be below 1"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    given = dict(zip(("query", "key", "value"), QKV, strict=True)) | changed
    with pytest.raises((ValueError, TypeError), match=message):
        hopfield_attention(**given)
