"""The association on tensors: the core against plain torch, derivatives, dtypes, and what is refused."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from association_cases import (  # noqa: E402
    FEATURES,
    FORMS,
    MAPS,
    B,
    D,
    H,
    M,
    N,
    V,
    association,
    is_valid,
    leaves,
    no_living_tape,  # noqa: F401
    outcome,
    passes,  # noqa: F401
    with_gradients,
)
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from sparsehopfield import Polynomial  # noqa: E402
from sparsehopfield._engine.association import associate_backward, associate_forward  # noqa: E402
from sparsehopfield.errors import RetrievalWarning  # noqa: E402
from sparsehopfield.structures import LinearFeatures, TopK  # noqa: E402
from sparsehopfield.torch import (  # noqa: E402
    Hopfield,
    associate,
    energy,
    entmax,
    entmax_loss,
    hopfield_attention,
    softmax_loss,
    update,
)
from sparsehopfield.torch._operators import associate as associated  # noqa: E402

ALL = [(form, steps) for form in FORMS for steps in (0, 2)]
DIFFERENTIATED = ["all", "bool (N, M)", "ragged", "padding", "dropout"]


def rows(*shape, seed=0, **options):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, **options)


@pytest.mark.parametrize(("form", "steps"), ALL)
def test_the_core_and_plain_torch_agree(form, steps):
    """Outputs and all gradients, for every map: to rounding, and where queries move, to what moves them apart."""
    tolerance = 1e-6 if steps else 1e-9
    compared = 0
    for separation in MAPS:
        if is_valid(separation, form, steps):
            case = association(separation, form, steps)
            out, gradients = outcome(*case, "core")
            expected, plain = outcome(*case, "torch")
            torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
            for gradient, other in zip(gradients, plain, strict=True):
                torch.testing.assert_close(gradient, other, rtol=tolerance, atol=tolerance)
            compared += 1
    assert compared >= (1 if form in FEATURES else 7)


@pytest.mark.parametrize("separation", MAPS[:7], ids=str)
def test_the_core_and_plain_torch_agree_at_rest(separation):
    """With unlimited updates, and with the implicit gradient there."""
    for implicit in (False, True):
        tensors, options = association(separation, "all", -1, implicit=implicit, eps=1e-13)
        case = tensors._replace(stored=tensors.stored * 0.6), options
        out, gradients = outcome(*case, "core")
        expected, plain = outcome(*case, "torch")
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
        for gradient, other in zip(gradients, plain, strict=True):
            torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-6)


def test_tensors_get_what_arrays_get():
    """To the bit: the same core computes them."""
    tensors, _ = association("sparsemax", "all")
    q, k, v, beta = (t.numpy() for t in tensors[:4])
    expected, saved = associate_forward(q, k, v, beta, update_steps_max=2, separation="entmax15")
    tensors = with_gradients(tensors)
    out = associate(*tensors[:4], update_steps_max=2, separation="entmax15")
    grads = torch.autograd.grad(out, leaves(tensors), torch.ones_like(out))
    np.testing.assert_array_equal(out.detach().numpy(), expected)
    for gradient, other in zip(grads, associate_backward(saved, np.ones_like(expected)), strict=True):
        np.testing.assert_array_equal(gradient.numpy(), other)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("form", DIFFERENTIATED)
def test_gradients_are_those_of_differences(form, steps):
    for separation in MAPS:
        tensors, options = association(separation, form, steps, seed=1, eps=0.0)
        tensors = with_gradients(tensors)

        def function(*given, tensors=tensors, options=options):
            return associated(tensors._replace(**dict(zip(tensors._fields[:4], given, strict=True))), options, "core")

        assert gradcheck(function, leaves(tensors), fast_mode=True, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("form", DIFFERENTIATED)
def test_second_derivatives_are_those_of_differences(form, steps):
    for separation in MAPS[:-1]:  # odd powers may add up to nearly 0, where differences tell nothing
        tensors, options = association(separation, form, steps, seed=1, eps=0.0)
        tensors = with_gradients(tensors)

        def function(*given, tensors=tensors, options=options):
            return associated(tensors._replace(**dict(zip(tensors._fields[:4], given, strict=True))), options, "core")

        assert gradgradcheck(function, leaves(tensors), fast_mode=True, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", ["projected", "appended", "window", "top k", "random", "blocks", "one head of values"])
def test_gradients_of_other_forms_are_those_of_differences(form):
    tensors, options = association("entmax15", form, 1, seed=2, eps=0.0)
    tensors = with_gradients(tensors)
    names = [name for name, t in zip(tensors._fields[:8], tensors, strict=False) if t is not None]

    def function(*given):
        return associated(tensors._replace(**dict(zip(names, given, strict=True))), options, "core")

    assert gradcheck(function, leaves(tensors), fast_mode=True, rtol=1e-4, atol=1e-6)
    assert gradgradcheck(function, leaves(tensors), fast_mode=True, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("separation", MAPS[:7], ids=str)
def test_implicit_gradients_are_those_of_differences(separation):
    q, k, v = rows(1, 2, 1, D, seed=3), 0.5 * rows(1, M, 1, D, seed=4), rows(1, M, 1, V, seed=5)
    beta = torch.tensor([0.6], dtype=torch.float64)
    given = [t.requires_grad_() for t in (q, k, v, beta)]

    def function(*given):
        return associate(
            *given, separation=separation, update_steps_max=None, update_steps_eps=1e-14, gradient="implicit"
        )

    assert gradcheck(function, given, rtol=1e-4, atol=1e-6)


def test_implicit_gradients_have_no_second_derivatives():
    q, k = rows(1, 2, 1, D).requires_grad_(), rows(1, M, 1, D, seed=1)
    out = associate(q, k, k, 0.5, separation="softmax", update_steps_max=None, gradient="implicit")
    (first,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        first.sum().backward()


@pytest.mark.parametrize("shape", [(), (1,), (H,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_beta_may_be_learned(shape, dtype):
    tensors, _ = association("softmax", "all")
    beta = torch.full(shape, 1.3, dtype=dtype, requires_grad=True)
    gradient = {}
    for backend in ("core", "torch"):
        out = associate(*tensors[:3], beta, separation="softmax", update_steps_max=1, backend=backend)
        (gradient[backend],) = torch.autograd.grad(out.square().sum(), beta)
        assert gradient[backend].shape == shape
        assert gradient[backend].dtype == dtype
    torch.testing.assert_close(gradient["core"], gradient["torch"])


def test_only_what_is_needed_is_computed():
    tensors, options = association("sparsemax", "all")
    for i in range(4):
        given = list(tensors)
        given[i] = given[i].clone().requires_grad_()
        out = associated(type(tensors)(*given), options)
        expected = outcome(tensors, options)[1][i]
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
        torch.testing.assert_close(torch.autograd.grad(out, given[i], weight)[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_tensors_are_computed_in_float32_and_returned_in_kind(dtype):
    tensors, options = association("sparsemax", "all", 1, dtype=dtype)
    out, gradients = outcome(tensors, options)
    wide = tensors._replace(**{name: getattr(tensors, name).float() for name in ("queries", "stored", "values")})
    expected, others = outcome(
        wide, options, weight=torch.linspace(-1, 1, out.numel(), dtype=dtype).reshape(out.shape).float()
    )
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype), rtol=0, atol=0)
    for gradient, other, t in zip(gradients, others, tensors, strict=False):
        assert gradient.dtype == t.dtype
        torch.testing.assert_close(gradient, other.to(t.dtype), rtol=0, atol=0)


def test_autocast_changes_nothing():
    tensors, options = association("softmax", "all", 1, dtype=torch.float32)
    expected, gradients = outcome(tensors, options)
    for backend in ("core", "torch"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            given = with_gradients(tensors)
            out = associated(given, options, backend)
        assert out.dtype == torch.float32
        others = torch.autograd.grad(out, leaves(given), torch.linspace(-1, 1, out.numel()).reshape(out.shape))
        torch.testing.assert_close(out, expected)
        for gradient, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(gradient, other.to(gradient.dtype), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["all", "ragged", "projected", "mask and padding"])
def test_memory_may_lie_anyhow(form):
    tensors, options = association("entmax15", form, 1)
    expected, gradients = outcome(tensors, options)
    spread = [
        t
        if t is None or t.dim() == 0
        else torch.stack([t, t], -1).movedim(-1, 0).transpose(0, -1)[..., 0].movedim(-1, 0)
        if t.dim() == 1
        else torch.stack([t, t], -1)[..., 0].transpose(0, 1).contiguous().transpose(0, 1)
        for t in tensors
    ]
    out, others = outcome(type(tensors)(*spread), options)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-12, atol=1e-12)


def test_a_negated_view_is_negated():
    q, k, v = rows(1, N, 1, 2), rows(1, M, 1, 2, seed=1), rows(1, M, 1, 2, seed=2)
    negated = torch.view_as_complex(q.reshape(1, N, 1, 1, 2).contiguous()).conj().imag  # of a conjugate
    assert negated.is_neg()
    both = torch.cat([negated, negated], -1)
    torch.testing.assert_close(associate(negated.expand_as(q), k, v, 1.0), associate(both, k, v, 1.0))


def test_masks_of_hflayers_have_samples_and_heads_in_one_axis():
    tensors, _ = association("softmax", "bool (B, H, N, M)")
    mask = tensors.mask
    expected = associate(*tensors[:4], separation="softmax", mask=mask)
    out = associate(*tensors[:4], separation="softmax", mask=mask.flatten(0, 1))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_dropout_is_drawn_by_torchs_generator():
    tensors, _ = association("softmax", "all")
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(associate(*tensors[:4], separation="softmax", dropout=0.5))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    given = [associate(*tensors[:4], dropout=0.5, seed=seed) for seed in (7, torch.tensor([7]), torch.tensor(7))]
    assert torch.equal(given[0], given[1])
    assert torch.equal(given[0], given[2])


def test_a_learned_mask_has_its_gradient(passes):  # noqa: F811
    tensors, _ = association("sparsemax", "numbers (N, M)")
    mask = torch.zeros(N, M, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda mask: associate(*tensors[:4], mask=mask), mask, fast_mode=True)
    assert passes["forward"] == 0
    with torch.no_grad():
        associate(*tensors[:4], mask=mask)
    assert passes["forward"] == 1
    with pytest.raises(ValueError, match=r"backend: the core has no gradient of a mask"):
        associate(*tensors[:4], mask=mask, backend="core")


def test_an_additive_mask_must_be_below_infinity():
    tensors, _ = association("sparsemax", "numbers (N, M)")
    for bad in (torch.nan, torch.inf):
        mask = tensors.mask.clone()
        mask[1, 2] = bad
        with pytest.raises(ValueError, match="mask: must be finite numbers or -inf"):
            associate(*tensors[:4], mask=mask)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"queries": torch.zeros(N, D)}, "queries: must be of shape"),
        ({"queries": torch.zeros(B, N, H, D, dtype=torch.int64)}, "queries: must be of floating numbers"),
        ({"queries": np.zeros((B, N, H, D))}, "queries: must be a tensor"),
        ({"queries": torch.zeros(B, N, H, D + 1)}, "queries: must have the features of the keys"),
        ({"queries": torch.zeros(B + 1, N, H, D)}, "queries: 3 samples, but there are 2"),
        ({"queries": torch.full((B, N, H, D), torch.nan)}, "queries: row \\d contains NaN"),
        ({"stored": torch.zeros(B, M, 3, D)}, "values: must have the rows|stored: must have the queries' 2 heads"),
        ({"values": torch.zeros(B, M + 1, H, V)}, "values: must have the rows of stored"),
        ({"values": torch.full((B, M, H, V), torch.inf)}, "values: row \\d contains NaN or infinity"),
        ({"beta": -1.0}, "beta: must be"),
        ({"beta": 0.0}, "beta: must be positive"),
        ({"beta": torch.tensor([1.0, -1.0])}, "beta: must be positive and finite"),
        ({"beta": torch.tensor(1)}, "beta: must be of floating numbers"),
        ({"beta": torch.ones(3)}, "beta: must be one number or one for each"),
        ({"separation": "sparsmax"}, "separation: unknown name 'sparsmax'; did you mean 'sparsemax'"),
        ({"separation": Polynomial(2), "gradient": "implicit"}, "gradient: a polynomial update"),
        ({"gradient": "exact"}, "gradient: unknown name"),
        ({"update_steps_max": 1.5}, "update_steps_max: must be a whole number"),
        ({"update_steps_eps": -1.0}, "update_steps_eps: must be"),
        ({"dropout": 1.0}, "dropout: must be below 1"),
        ({"dropout": 0.5, "seed": -1}, "seed: must be at least 0"),
        ({"dropout": 0.5, "seed": torch.zeros(2)}, "seed: must be one number"),
        ({"mask": torch.zeros(N, M, dtype=torch.int64)}, "mask: must be of bool or floating"),
        ({"mask": torch.zeros(N, M + 1)}, "mask: must have a column"),
        ({"mask": torch.zeros(3, N, M)}, "mask: must be of shape"),
        ({"padding_mask": torch.zeros(B, M + 1, dtype=torch.bool)}, "padding_mask: must be of bool and shape"),
        ({"padding_mask": torch.zeros(B, M)}, "padding_mask: must be of bool and shape"),
        ({"offsets": torch.tensor([0, 3])}, "offsets: need stored rows of shape"),
        ({"offsets": [0, 3]}, "^offsets: must be a tensor"),
        ({"mask": [[False]]}, "^mask: must be a tensor"),
        ({"padding_mask": np.zeros((B, M), bool)}, "^padding_mask: must be a tensor"),
        ({"key_projection": torch.zeros(H, D, 5)}, "^key_projection: must be a tuple of weight and bias"),
        ({"queries": torch.zeros(B, N, H, D).to_sparse()}, "^queries: must be a dense tensor, got one of torch.sparse"),
        ({"mask": torch.zeros(N, M).to_sparse_csr()}, "^mask: must be a dense tensor"),
        ({"values": torch.nested.nested_tensor([torch.zeros(2, 3)])}, "^values: must not be a nested tensor"),
        ({"values": torch.zeros(B, M, H, 0)}, "^values: at least one head and one feature are needed"),
        ({"queries": torch.zeros(B, N, H, 0), "stored": torch.zeros(B, M, H, 0)}, "^queries: at least one head"),
        ({"beta": 1e300}, "^beta: must be positive and finite in torch.float32"),
        ({"update_steps_max": "a"}, "^update_steps_max: must be a whole number or None"),
        ({"appended": 9}, "appended: must be at most the 6 rows"),
        ({"structure": TopK}, r"structure: must be None .*did you mean TopK"),
        ({"structure": LinearFeatures("elu+1")}, "separation: LinearFeatures stands in for softmax"),
        ({"structure": LinearFeatures("elu+1"), "separation": "softmax", "dropout": 0.5}, "dropout: not with Linear"),
        ({"key_projection": (torch.zeros(H, D, 5), torch.zeros(H, D))}, "key_projection: weight must be of shape"),
        ({"key_projection": (torch.zeros(H, D, D), None)}, "key_projection.bias: must be a tensor, got NoneType"),
        ({"mask": np.zeros((N, M), bool)}, "mask: must be a tensor, got ndarray"),
        ({"backend": "numpy"}, "backend: unknown name 'numpy'"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    given = {
        "queries": torch.zeros(B, N, H, D),
        "stored": torch.zeros(B, M, H, D),
        "values": torch.zeros(B, M, H, V),
        "beta": 1.0,
    }
    with pytest.raises((ValueError, TypeError), match=message):
        associate(**given | changed)


@pytest.mark.parametrize("backend", ["core", "torch"])
def test_offsets_must_rise_to_the_number_of_rows(backend):
    q, k = torch.zeros(2, N, 1, D), torch.zeros(7, 1, D)
    for offsets in ([0, 3, 8], [0, 3, 6], [0, 5, 3], [0, 9, 7], [1, 3, 7], [-1, 3, 7]):
        with pytest.raises(ValueError, match=r"^offsets: must rise from 0 to the number of rows, 7"):
            associate(q, k, k, 1.0, offsets=torch.tensor(offsets), backend=backend)
    with pytest.raises(ValueError, match=r"^mask: must have a column for each of 4 rows"):
        associate(q, k, k, 1.0, offsets=torch.tensor([0, 3, 7]), mask=torch.zeros(N, 5), backend=backend)


def test_a_seed_is_64_bits():
    q, k = rows(B, N, H, D), rows(B, M, H, D, seed=1)
    options = {"dropout": 0.5, "seed": torch.tensor(-3)}
    out = associate(q, k, k, 1.0, **options, backend="core")
    torch.testing.assert_close(out, associate(q, k, k, 1.0, **options, backend="torch"))
    arrays = associate_forward(q.numpy(), k.numpy(), k.numpy(), 1.0, dropout=0.5, seed=2**64 - 3)[0]
    torch.testing.assert_close(out, torch.from_numpy(arrays))


@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_warning_names_the_line_that_asked(with_gradient):
    """Softmax between two patterns +-1 at the critical beta 1 creeps to 0."""
    k = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    q = torch.full((1, 1, 1, 1), 0.5, requires_grad=with_gradient)
    options = {"separation": "softmax", "update_steps_max": None, "update_steps_eps": 1e-9}
    with pytest.warns(RetrievalWarning, match="1 queries were still moving") as warned:
        associate(q.double(), k.double(), k.double(), 1.0, **options)
    assert warned[0].filename == __file__


def test_no_samples_no_queries_and_no_rows_are_allowed():
    for shape in ((0, 4, 3), (2, 0, 3), (2, 4, 0)):
        b, n, m = shape
        q, k = rows(b, n, 1, D).requires_grad_(), rows(b, m, 1, D).requires_grad_()
        out = associate(q, k, k, 1.0)
        assert out.shape == (b, n, 1, D)
        assert not out.any() or m
        for gradient, t in zip(torch.autograd.grad(out.sum(), (q, k)), (q, k), strict=True):
            assert gradient.shape == t.shape


def on_several_devices():
    """Return calls with one tensor on another device, and how the error begins."""
    meta, q, k = {"device": "meta"}, rows(B, N, H, D), rows(B, M, H, D)
    hidden = torch.zeros(N, M, dtype=torch.bool, **meta)
    seed = torch.ones(1, dtype=torch.int64, **meta)
    x, far, layer = rows(2, 5, 6), rows(2, 5, 6).to("meta"), Hopfield(6, dtype=torch.float64)
    hooked = Hopfield(6, dtype=torch.float64)
    hooked.norm_state_pattern.register_forward_hook(lambda *_: None)
    classes = torch.zeros(2, 5, dtype=torch.int64, **meta)
    one = torch.ones((), **meta)
    return {
        "mask": (lambda: associate(q, k, k, 1.0, mask=hidden), "mask: is on meta, but queries on cpu"),
        "values": (lambda: associate(q, k, k.to("meta"), 1.0), "values: is on meta, but queries on cpu"),
        "stored": (lambda: associate(q, k.to("meta"), k, 1.0, backend="torch"), "stored: is on meta"),
        "beta": (lambda: associate(q, k, k, one), "beta: is on meta"),
        "seed": (lambda: associate(q, k, k, 1.0, dropout=0.1, seed=seed), "seed: is on meta"),
        "layer": (lambda: layer(far), "association_core.in_proj_weight: is on cpu, but stored pattern on meta"),
        "layer's mask": (lambda: layer(x, association_mask=torch.zeros(5, 5, **meta)), "association_mask: is on meta"),
        "layer's parts": (lambda: hooked(x, x[..., 0].to("meta") > 0), "stored_pattern_padding_mask: is on meta"),
        "projected": (lambda: layer.get_projected_pattern_matrix((x, x, far)), "pattern projection: is on meta"),
        "bags": (lambda: layer([x[0], far[1]]), r"input\[1\]: is on meta, but input\[0\] on cpu"),
        "offsets": (lambda: layer(x[0], offsets=torch.zeros(2, dtype=torch.int64, **meta)), "offsets: is on meta"),
        "attention": (lambda: hopfield_attention(x, x, far), "values?: is on meta"),
        "alpha": (lambda: entmax(x, one), "alpha: is on meta, but z on cpu"),
        "loss": (lambda: entmax_loss(x, classes), "target: is on meta, but z on cpu"),
        "cross entropy": (lambda: softmax_loss(x, classes), "target: is on meta, but z on cpu"),
        "update": (lambda: update(x, far[0], similarity="euclidean"), "patterns: is on meta, but queries on cpu"),
        "update's values": (lambda: update(x, x[0], values=far[0]), "values: is on meta"),
        "update's beta": (lambda: update(x, x[0], torch.ones(2, 5, **meta)), "beta: is on meta"),
        "energy": (lambda: energy(x, x[0], one), "beta: is on meta"),
    }


@pytest.mark.parametrize("name", on_several_devices())
def test_tensors_on_several_devices_are_refused_by_name(name):
    call, message = on_several_devices()[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_a_number_may_lie_on_the_cpu_beside_another_device():
    far = rows(B, N, H, D).to("meta")
    assert associate(far, far, far, torch.tensor(2.0), dropout=0.5).is_meta
    assert entmax(far, torch.tensor(1.5, requires_grad=True)).is_meta
