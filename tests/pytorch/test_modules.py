"""Hopfield modules: every option by every route against the NumPy layers, and what torch expects of modules."""

import copy
import io
import os
import pickle
import threading
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from layer_cases import (  # noqa: E402
    LAYERS,
    NO_NORMS,
    STATIC,
    B,
    E,
    M,
    N,
    array,
    assert_close,
    assert_no_tapes,
    by_parts,
    input_of,
    leaves_of,
    made,
)
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import sparsehopfield.torch as sht  # noqa: E402
from sparsehopfield.errors import RetrievalWarning  # noqa: E402
from sparsehopfield.structures import TopK, Window  # noqa: E402
from sparsehopfield.torch import _layer, _native  # noqa: E402

KINDS = [
    sht.Hopfield, sht.SparseHopfield, sht.HopfieldPooling, sht.SparseHopfieldPooling,
    sht.HopfieldLayer, sht.SparseHopfieldLayer,
]  # fmt: skip
ROUTES = ["whole", "parts", "torch"]


@pytest.fixture(autouse=True)
def _no_tapes_left():
    """Check that a test leaves no tape."""
    yield
    assert_no_tapes()


def on_route(route, monkeypatch):
    """Have calls take a route; return the options that modules need for it."""
    if route == "parts":
        by_parts(monkeypatch)
    return {"backend": "torch"} if route == "torch" else {}


def compare(module, layer, input, *, tol=1e-9, **options):
    """Check output, gradients and matrices against the NumPy layer."""
    out = module(input, **options)
    expected = layer.forward(array(input), **{name: array(value) for name, value in options.items()})
    assert out.shape == expected.shape
    assert_close(out, expected, tol)
    grad = torch.from_numpy(np.random.default_rng(2).standard_normal(expected.shape))
    layer.zero_grad()
    in_input = layer.backward(grad.numpy())
    inputs, in_inputs = (x if isinstance(x, tuple) else (x,) for x in (input, in_input))
    if isinstance(inputs[0], list):
        inputs, in_inputs = inputs[0], np.split(in_inputs[0], np.cumsum([len(bag) for bag in inputs[0]])[:-1])
    wanted = [(x, d) for x, d in zip(inputs, in_inputs, strict=True) if x.requires_grad and d is not None]
    wanted += [(p, layer.parameters()[name].grad) for name, p in module.named_parameters() if p.requires_grad]
    if wanted:
        found = torch.autograd.grad(out, [x for x, _ in wanted], grad, allow_unused=True)
        for d, (_, expected) in zip(found, wanted, strict=True):
            assert_close(d, expected, tol)
    if module.structure is None or module.structure.association() is None:  # features have no matrix
        matrix = layer.get_association_matrix(array(input), **{name: array(value) for name, value in options.items()})
        assert_close(module.get_association_matrix(input, **options), matrix, tol)
    patterns = layer.get_projected_pattern_matrix(
        array(input), **{name: array(value) for name, value in options.items()}
    )
    assert_close(module.get_projected_pattern_matrix(input, **options), patterns, tol)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", LAYERS)
def test_against_the_numpy_layer(name, route, monkeypatch):
    module, layer = made(name, **on_route(route, monkeypatch))
    compare(module, layer, input_of(name), tol=1e-6 if "implicit" in name else 1e-9)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("appended", [False, True])
def test_masks(route, appended, monkeypatch):
    name = "appended" if appended else "self"
    module, layer = made(name, **on_route(route, monkeypatch))
    rng = np.random.default_rng(3)
    padding = torch.from_numpy(rng.random((B, M)) < 0.3)
    padding[0] = True  # a sample without stored patterns
    for shape in ((M, M), (B, M, M), (B, 2, M, M), (B * 2, M, M)):
        left_out = torch.from_numpy(rng.random(shape) < 0.4)
        added = torch.from_numpy(rng.standard_normal(shape)).masked_fill(left_out, -torch.inf)
        for mask in (left_out, added):
            compare(module, layer, input_of(name), association_mask=mask, stored_pattern_padding_mask=padding)
    compare(module, layer, input_of(name), association_mask=left_out.to(torch.uint8))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["self", "appended", "window", "pooling", "pooling of many", "top k"])
def test_ragged_bags(name, route, monkeypatch):
    module, layer = made(name, **on_route(route, monkeypatch))
    sizes = [4, 0, 7, 1]
    rng = np.random.default_rng(4)
    bags = [torch.from_numpy(rng.standard_normal((size, E))).requires_grad_() for size in sizes]
    compare(module, layer, bags)
    rows = torch.from_numpy(rng.standard_normal((12, E))).requires_grad_()
    offsets = torch.tensor([0, 4, 4, 11, 12], dtype=torch.int32)
    compare(module, layer, rows, offsets=offsets)
    queries = 2 if "pooling" in name else 7
    mask = torch.from_numpy(rng.random((4, queries, 7)) < 0.4) if name != "pooling of many" else None
    compare(module, layer, rows, offsets=offsets, association_mask=mask)
    if "pooling" not in name and name != "window":
        state = torch.from_numpy(rng.standard_normal((4, 3, E))).requires_grad_()
        compare(module, layer, (rows, state, rows), offsets=offsets)
        compare(module, layer, (rows, state[0], rows), offsets=offsets)


@pytest.mark.parametrize("route", ROUTES)
def test_empty_inputs_and_shared_patterns(route, monkeypatch):
    module, layer = made("self", **on_route(route, monkeypatch))
    rng = np.random.default_rng(5)
    for samples, queries, rows in ((0, N, M), (B, 0, M), (B, N, 0)):
        stored, state = (torch.from_numpy(rng.standard_normal((samples, n, E))) for n in (rows, queries))
        expected = layer.forward((stored.numpy(), state.numpy(), stored.numpy()))
        assert_close(module((stored, state, stored)), expected)
    stored, state = (torch.from_numpy(rng.standard_normal((n, E))).requires_grad_() for n in (M, N))
    compare(module, layer, (stored, torch.from_numpy(rng.standard_normal((B, N, E))), stored))
    compare(module, layer, (stored, state, stored))


def test_dropout_is_the_same_by_all_routes(monkeypatch):
    module, _ = made("self", dropout=0.4)
    x = input_of("self")
    found = []
    for route in ROUTES:
        with monkeypatch.context() as patch:
            if route == "parts":
                by_parts(patch)
            module.backend = "torch" if route == "torch" else None
            torch.manual_seed(7)
            out = module(x)
            found.append((out, *torch.autograd.grad(out.square().sum(), leaves_of(module, x))))
            assert not torch.equal(module(x), out)  # another draw
            module.eval()
            assert torch.equal(module(x), module(x))
            module.train()
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert_close(a, b)


def test_differences():
    """Gradients of the whole layer are what differences are, once and twice."""
    module = sht.Hopfield(2, dtype=torch.float64, scaling=2.0, output_size=1)
    parameters = {name: torch.randn_like(p).requires_grad_() for name, p in module.named_parameters()}
    x = torch.randn(1, 2, 2, dtype=torch.float64).requires_grad_()

    def call(x, *values):
        return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("name", LAYERS)
def test_second_derivative(name):
    """The second derivative is that of plain torch."""
    module, _ = made(name)
    x = input_of(name)
    found = []
    for backend in (None, "torch"):
        module.backend = backend
        leaves = leaves_of(module, x)

        def second(leaves=leaves):
            first = torch.autograd.grad(module(x).tanh().square().sum(), leaves, create_graph=True, allow_unused=True)
            return torch.autograd.grad(sum(g.square().sum() for g in first if g is not None), leaves, allow_unused=True)

        if "implicit" in name:
            with pytest.raises(RuntimeError, match="implicit"):
                second()
        else:
            found.append(second())
    for a, b in zip(*found or ((), ()), strict=True):
        assert_close(a, b)


def test_second_derivative_where_an_input_is_made_from_a_parameter():
    module, _ = made("self")
    weight = module.association_core.out_proj.weight

    def penalty():
        x = (weight @ weight.T).expand(B, -1, -1) + input_of("self").detach()[:, :1]
        loss = module(x).square().sum()
        (g,) = torch.autograd.grad(loss, weight, create_graph=True)
        return g.square().sum()

    (first,) = torch.autograd.grad(penalty(), weight)
    module.backend = "torch"
    (second,) = torch.autograd.grad(penalty(), weight)
    assert_close(first, second)


def test_learned_mask():
    """The gradient of a mask is never dropped."""
    module, _ = made("self")
    mask = torch.randn(B, M, M, dtype=torch.float64).requires_grad_()
    module(input_of("self"), association_mask=mask).square().sum().backward()
    found = mask.grad
    shift = torch.zeros_like(mask)
    shift[1, 2, 3] = 1e-6
    with torch.no_grad():
        up, down = (module(input_of("self"), association_mask=mask + d).square().sum() for d in (shift, -shift))
    assert found[1, 2, 3].item() == pytest.approx(((up - down) / 2e-6).item(), abs=1e-5)
    module.backend = "core"
    with pytest.raises(ValueError, match="backend"):
        module(input_of("self"), association_mask=mask)


# --- parameters and state -----------------------------------------------------------------------------------


def test_parameters_are_those_of_hflayers():
    """Names, shapes and order; `test_hflayers` compares with hflayers itself."""
    module = sht.HopfieldLayer(6, hidden_size=2, num_heads=2, quantity=3, lookup_weights_as_separated=True)
    assert [(name, tuple(p.shape)) for name, p in module.named_parameters()] == [
        ("lookup_weights", (1, 3, 6)),
        ("target_weights", (1, 3, 6)),
        ("hopfield.association_core.in_proj_weight", (12, 6)),
        ("hopfield.association_core.in_proj_bias", (12,)),
        ("hopfield.association_core.out_proj.weight", (6, 4)),
        ("hopfield.association_core.out_proj.bias", (6,)),
        *(
            (f"hopfield.norm_{name}.{part}", (6,))
            for name in ("stored_pattern", "state_pattern", "pattern_projection")
            for part in ("weight", "bias")
        ),
    ]
    core = sht.Hopfield(6, pattern_size=3, normalize_hopfield_space=True, normalize_hopfield_space_affine=True,
                        hidden_size=6, concat_bias_pattern=True).association_core  # fmt: skip
    assert [name for name, _ in core.named_parameters()] == [
        "p_norm_weight", "p_norm_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k",
        "bias_v", "out_proj.weight", "out_proj.bias",
    ]  # fmt: skip
    assert core.in_proj_weight is None


@pytest.mark.parametrize("kind", KINDS)
def test_properties(kind):
    module = kind(6, num_heads=2)
    assert (module.input_size, module.hidden_size, module.pattern_size, module.output_size) == (6, 3, 3, 6)
    assert module.stored_pattern_dim == module.state_pattern_dim == module.pattern_projection_dim == 6
    assert module.scaling == pytest.approx(3**-0.5)
    assert (module.batch_first, module.update_steps_max, module.update_steps_eps) == (True, 0, 1e-4)
    assert (module.normalize_stored_pattern, module.normalize_hopfield_space) == (True, False)
    assert module.separation == ("sparsemax" if "Sparse" in kind.__name__ else "softmax")
    for name in ("input_size", "batch_first", "association_activation"):
        with pytest.raises(AttributeError, match=f"{name}: is fixed"):
            setattr(module, name, 3)
    for name, bad in {"update_steps_eps": 0, "gradient": "none", "dropout": 1.0, "backend": "cuda"}.items():
        before = getattr(module, name)
        with pytest.raises(ValueError, match=name):
            setattr(module, name, bad)
        assert getattr(module, name) == before
    module.update_steps_max, module.update_steps_eps, module.dropout = 2, 1e-3, 0.25
    module.gradient, module.backend = "implicit", "core"
    inner = getattr(module, "hopfield", module)
    assert (inner.update_steps_max, inner.update_steps_eps, inner.dropout) == (2, 1e-3, 0.25)
    assert (inner.gradient, inner.backend) == ("implicit", "core")
    assert "update_steps_max=2, update_steps_eps=0.001, dropout=0.25" in repr(module)
    module.scaling, module.separation, module.structure = torch.tensor([0.5, 2.0]), "entmax15", TopK(2)
    assert module.scaling.tolist() == [0.5, 2.0]
    assert (module.separation, module.structure) == ("entmax15", TopK(2))
    assert "entmax15" in repr(module)
    assert "TopK" in repr(module)


def test_repr_shows_what_is_not_as_by_default():
    plain = sht.Hopfield(4, dropout=float("0.0"), update_steps_eps=float("1e-4"), scaling=4**-0.5)
    assert plain.extra_repr() == sht.Hopfield(4).extra_repr()
    assert "input_size=4" in plain.extra_repr()
    plain.update_steps_max, plain.scaling = None, [0.25]
    assert "scaling=(0.25,), update_steps_max=None" in plain.extra_repr()


def test_options_come_in_hflayers_order():
    """The arguments by position, without the names that only this package has."""
    module = sht.HopfieldPooling(6, 3, 5, 4, 2, 0.3, 2, 1e-3, True, False, True, True, True, True, True, False)
    assert (module.hidden_size, module.output_size, module.pattern_size, module.num_heads) == (3, 5, 4, 2)
    assert (module.scaling, module.update_steps_max, module.update_steps_eps) == (0.3, 2, 1e-3)
    assert (module.normalize_stored_pattern_affine, module.normalize_hopfield_space) == (False, True)
    lookup = sht.HopfieldLayer(6, 3, 5, 4, 2, 0.3, 2, 1e-3, True, False)
    assert lookup.target_weights is not None
    assert not lookup.target_weights.requires_grad
    assert sht.Hopfield(6, 3, 5, 4, 2, 0.3, 2, 1e-3, True, True, 1e-2).norm_stored_pattern.eps == 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_begin_anew(kind):
    options = {"learnable_scaling": True, "concat_bias_pattern": True, "num_heads": 2, "scaling": 0.5}
    torch.manual_seed(3)
    module = kind(4, **options)
    begun = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(3)
    for name, value in kind(4, **options).state_dict().items():
        assert torch.equal(value, begun[name])
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(77)
    module.reset_parameters()
    for name, p in module.named_parameters():
        drawn = p.numel() > 1 and begun[name].std() > 0
        assert not (p == 77).any()
        assert torch.equal(p, begun[name]) != drawn
    with torch.device("meta"):
        empty = kind(4, **options)
    assert all(p.is_meta for p in empty.parameters())
    empty = empty.to_empty(device="cpu")
    empty.reset_parameters()
    assert all(torch.isfinite(p).all() for p in empty.parameters())


def test_state_goes_round():
    for name in ("three inputs", "appended", "lookup, separated", "learned scaling", "nothing learned"):
        module, _ = made(name)
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        other, _ = made(name)
        other.reset_parameters()
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        x = input_of(name)
        assert torch.equal(module(x), other(x))


def test_copies_and_pickles():
    for name in ("self", "window", "pooling", "a scaling a head", "features"):
        module, _ = made(name)
        x = input_of(name)
        out = module(x)  # with a tape that a copy must not take along
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch_saved(module)):
            assert torch.equal(other(x), out)
            other.scaling = 7.0
            other.separation = "softmax"
            with torch.no_grad():
                next(other.parameters()).add_(1)
            assert torch.equal(module(x), out)


def torch_saved(module):
    """Return a module as torch saves and loads it."""
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("route", ROUTES)
def test_half_precision(dtype, route, monkeypatch):
    """Computed in float32 and returned in kind; beta keeps its precision."""
    options = on_route(route, monkeypatch)
    for name in ("self", "pooling", "learned scaling", "lookup"):
        module, _ = made(name, **options)
        module = module.to(dtype)
        if name == "self":
            module.scaling = 0.1234567890123
            assert module.to(dtype).scaling == 0.1234567890123
        x = input_of(name, dtype=dtype)
        out = module(x)
        assert out.dtype == module.get_association_matrix(x).dtype == dtype
        out.float().sum().backward()
        assert x.grad.dtype == dtype
        assert all(p.grad is not None and p.grad.dtype == dtype for p in module.parameters() if p.requires_grad)
        exact = copy.deepcopy(module).float()(x.float())
        assert_close(out.float(), exact, 8 * torch.finfo(dtype).eps)


def test_autocast(monkeypatch):
    module, _ = made("self", dtype=torch.float32)
    x = input_of("self", dtype=torch.float32)
    exact = module(x)
    for route in ROUTES[:2]:
        with monkeypatch.context() as patch:
            if route == "parts":
                by_parts(patch)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = module(x)
                low = module(x.bfloat16())
                matrices = module.get_association_matrix(x), module.get_association_matrix(x.bfloat16())
            assert out.dtype == low.dtype == torch.bfloat16
            assert [matrix.dtype for matrix in matrices] == [torch.float32, torch.bfloat16]  # of the inputs
            assert_close(out.float(), exact, 0.05)
            out.float().sum().backward()
    with pytest.raises(TypeError, match="stored pattern"):
        module(x.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match="stored pattern"):
        module(x.double())


def test_meta():
    module = sht.SparseHopfieldPooling(E, hidden_size=3, quantity=2, device="meta")
    out = module(torch.empty(B, M, E, device="meta"))
    assert out.is_meta
    assert out.shape == (B, 2 * E)
    out.sum().backward()
    assert all(p.grad.is_meta for p in module.parameters())


def test_other_layouts():
    """Inputs and parameters that are not contiguous give what contiguous ones give."""
    module, layer = made("self")
    x = input_of("self").detach()
    for other in (x.transpose(0, 1).contiguous().transpose(0, 1), x.repeat(1, 2, 1)[:, ::2], x.flip(1).flip(1)):
        other = other.requires_grad_()
        compare(module, layer, x.clone().requires_grad_() if torch.equal(other, x) else other)
        assert_close(module(other), layer.forward(array(other)))
    expanded = x[:1].expand(B, -1, -1)
    assert_close(module(expanded), layer.forward(array(expanded)))
    weight = module.association_core.out_proj.weight
    module.association_core.out_proj.weight = nn.Parameter(weight.detach().T.contiguous().T)
    compare(module, layer, x.requires_grad_())


# --- how modules are used -----------------------------------------------------------------------------------


def test_train_and_forget():
    """A module learns, with an optimiser that changes parameters in place, and leaves no tape."""
    torch.manual_seed(0)
    module = nn.Sequential(sht.SparseHopfieldPooling(4, hidden_size=8, num_heads=2, dropout=0.1), nn.Linear(4, 1))
    bags, labels = torch.randn(16, 10, 4), (torch.arange(16) % 2).float()
    bags[labels > 0, 0, 0] += 6
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(module(bags)[:, 0], labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def passes_since(before):
    """Return how many passes of whole layers there were: forward, backward, forward again."""
    return [_layer.counts[name] - before[name] for name in ("forward", "backward", "forward again")]


def test_several_forwards_and_backwards():
    module, _ = made("self")
    before = dict(_layer.counts)
    x, y = input_of("self"), input_of("self", seed=2)
    first, second = module(x), module(y)
    first.sum().backward(retain_graph=True)
    once = [p.grad.clone() for p in module.parameters()]
    first.sum().backward()
    for p, g in zip(module.parameters(), once, strict=True):
        assert torch.equal(p.grad, 2 * g)
    second.sum().backward()
    assert passes_since(before) == [2, 3, 0]
    with pytest.raises(RuntimeError, match="second time"):
        second.sum().backward()


def test_change_in_place_is_noticed():
    module, _ = made("self")
    for changed in ("input", "parameter", "mask"):
        x, mask = input_of("self").detach().clone(), torch.zeros(M, M, dtype=torch.bool)
        out = module(x, association_mask=mask)
        with torch.no_grad():
            target = {"input": x, "parameter": module.norm_state_pattern.weight, "mask": mask}[changed]
            target[0] = 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant):
    """Checkpoints keep no tape between the passes, and replay dropout."""
    module, _ = made("self", dropout=0.3)
    x = input_of("self")
    torch.manual_seed(1)
    expected = torch.autograd.grad(module(x).square().sum(), leaves_of(module, x))
    torch.manual_seed(1)
    out = checkpoint(module, x, use_reentrant=reentrant)
    assert_no_tapes()
    x.grad = None
    for p in module.parameters():
        p.grad = None
    out.square().sum().backward()
    for leaf, g in zip(leaves_of(module, x), expected, strict=True):
        assert_close(leaf.grad, g)


def test_saved_tensors_that_lie_elsewhere():
    """Hooks that move what is saved lose the tape, and the forward pass is made again."""
    module, _ = made("appended")
    x, mask = input_of("appended"), torch.randn(M, M, dtype=torch.float64)
    expected = torch.autograd.grad(module(x, association_mask=mask).square().sum(), leaves_of(module, x))
    before = dict(_layer.counts)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        out = module(x, association_mask=mask)
    found = torch.autograd.grad(out.square().sum(), leaves_of(module, x))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)
    assert passes_since(before) == [2, 1, 1]


def test_threads():
    """Threads may use one module at once, with gradients of their own."""
    module, _ = made("self, softmax, 2 more steps")
    inputs = [input_of("self", seed=i) for i in range(4)]
    expected = [torch.autograd.grad(module(x).square().sum(), x)[0] for x in inputs]
    found = [None] * 4

    def work(i):
        for _ in range(20):
            (found[i],) = torch.autograd.grad(module(inputs[i]).square().sum(), inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_workers(work, count, *given):
    """Return what forked workers put into a queue, by their numbers."""
    context = torch.multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        workers = [context.Process(target=work, args=(i, queue, *given)) for i in range(count)]
        for worker in workers:
            worker.start()
    try:
        found = dict(queue.get(timeout=60) for _ in workers)
    finally:
        for worker in workers:
            worker.join(10)
            worker.kill()
    return [found[i] for i in range(count)]


def _gradients(i, queue, module, x):
    torch.set_num_threads(1)
    module(x).sum().backward()
    queue.put((i, [p.grad.numpy() for p in module.parameters()]))


@forks
def test_fork():
    """Forked workers compute what their parent does."""
    module, _ = made("self")
    x = input_of("self").detach()
    module(x).sum().backward()
    expected = [p.grad.numpy().copy() for p in module.parameters()]
    module.zero_grad()
    for found in in_workers(_gradients, 2, module, x):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def _gradients_of_half(i, queue, module, x, file):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=i, world_size=2)
    parallel = nn.parallel.DistributedDataParallel(module)
    parallel(x[2 * i : 2 * i + 2]).square().mean().backward()
    queue.put((i, [p.grad.numpy() for p in module.parameters()]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@forks
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_two_processes(tmp_path):
    """DistributedDataParallel averages the gradients of both halves of a batch."""
    module, _ = made("pooling")
    x = input_of("pooling", 4).detach()
    module(x).square().mean().backward()
    expected = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    for found in in_workers(_gradients_of_half, 2, module, x, tmp_path / "rendezvous"):
        for a, b in zip(found, expected, strict=True):
            assert_close(torch.from_numpy(a), b)


def test_functional_transforms():
    module, _ = made("self")
    parameters = dict(module.named_parameters())
    x = input_of("self").detach()

    def loss(parameters, x):
        return torch.func.functional_call(module, parameters, (x,)).square().sum()

    found = torch.func.grad(loss)(parameters, x)
    expected = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
    for (name, g), e in zip(found.items(), expected, strict=True):
        assert_close(g, e), name
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x[:, None])
    for name, g in each.items():
        one = torch.autograd.grad(loss(parameters, x[1:2]), parameters[name])[0]
        assert_close(g[1], one)
    tangent = torch.randn_like(x)
    _, along = torch.func.jvp(lambda x: loss(parameters, x), (x,), (tangent,))
    (g,) = torch.autograd.grad(loss(parameters, y := x.clone().requires_grad_()), y)
    assert along.item() == pytest.approx((g * tangent).sum().item())
    row = torch.func.jacrev(lambda x: torch.func.functional_call(module, parameters, (x,)).sum(dim=(0, 1)))(x)
    column = torch.func.jacfwd(lambda x: torch.func.functional_call(module, parameters, (x,)).sum(dim=(0, 1)))(x)
    assert_close(row, column)


def test_hooks_and_replaced_modules():
    """Inner modules that do more than their type says are called, with the same results."""
    module, layer = made("self")
    x = input_of("self")
    expected = module(x)
    seen = []
    module.norm_state_pattern.register_forward_hook(lambda *_: seen.append("norm"))
    module.association_core.out_proj.register_forward_pre_hook(lambda *_: seen.append("out"))
    assert_close(module(x), expected)
    assert seen == ["norm", "out"]
    compare(module, layer, x)

    module, _ = made("self")
    prune.l1_unstructured(module.association_core, "in_proj_weight", amount=0.5)
    prune.l1_unstructured(module.association_core.out_proj, "weight", amount=0.5)
    module(x).sum().backward()
    with torch.no_grad():
        module.association_core.in_proj_weight_orig.mul_(2)
        module.association_core.out_proj.weight_orig.mul_(2)
    out = module(x)
    assert torch.equal(module.association_core.in_proj_weight, 2 * prune_mask(module.association_core) / 2)
    plain, _ = made("self")
    with torch.no_grad():
        plain.association_core.in_proj_weight.copy_(module.association_core.in_proj_weight)
        plain.association_core.out_proj.weight.copy_(module.association_core.out_proj.weight)
    assert_close(out, plain(x))

    module, _ = made("self")
    parametrizations.weight_norm(module.association_core, "in_proj_weight")
    parametrizations.weight_norm(module.association_core.out_proj)
    assert_close(module(x), expected)
    module(x).sum().backward()
    assert module.association_core.parametrizations.in_proj_weight.original0.grad is not None

    module, _ = made("self")
    module.association_core.out_proj = nn.Sequential(module.association_core.out_proj, nn.Tanh())
    assert_close(module(x), expected.tanh())


def test_every_way_to_change_what_an_inner_module_does():
    """A forward of its own, as accelerate sets it, a forward before it by a subclass, hooks of all modules."""
    module, _ = made("self")
    x = input_of("self").detach()
    for inner in (module.association_core.out_proj, module.norm_state_pattern):
        own = inner.forward
        inner.forward = lambda y: y * 0
        changed = module(x)
        del inner.forward
        assert not torch.equal(changed, module(x))
        inner.forward = own
        assert_close(module(x), changed * 0 + made("self")[0](x))
        del inner.forward
    core = module.association_core
    own = core.forward
    core.forward = lambda: {name: None if p is None else p * 2 for name, p in own().items()}
    doubled = module(x)
    del core.forward
    with torch.no_grad():
        for p in core.parameters(recurse=False):
            p.mul_(2)
    assert_close(doubled, module(x))
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    module(x)
    handle.remove()
    assert seen == ["LayerNorm"] * 3 + ["Linear", "SparseHopfield"]


def replicas(module, count):
    """Return copies of a module as nn.DataParallel makes them: parameters are attributes, and no leaves."""
    made_from = list(module.modules())
    copies = []
    for _ in range(count):
        new = {part: part._replicate_for_data_parallel() for part in made_from}
        for part, replica in new.items():
            for name, child in part._modules.items():
                if child is None:
                    replica._modules[name] = None
                else:
                    setattr(replica, name, new[child])
            for name, p in part._parameters.items():
                if p is None:
                    replica._parameters[name] = None
                else:
                    setattr(replica, name, p.view_as(p))
        copies.append(new[module])
    return copies


@pytest.mark.parametrize(
    "name", ["self", "three inputs", "appended", "pooling", "lookup, separated", "learned scaling"]
)
def test_replicas_of_data_parallel(name):
    module, _ = made(name)
    x = input_of(name)
    leaves = leaves_of(module, x)
    expected = module(x)
    gradients = torch.autograd.grad(2 * expected.square().sum(), leaves)
    found = [replica(x) for replica in replicas(module, 2)]
    assert all(torch.equal(out, expected) for out in found)
    for a, b in zip(torch.autograd.grad(sum(out.square().sum() for out in found), leaves), gradients, strict=True):
        assert_close(a, b)


def prune_mask(core):
    """Return the pruned weight from what the core keeps of it."""
    return core.in_proj_weight_orig * core.in_proj_weight_mask


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_bad_inputs(route, monkeypatch):
    options = on_route(route, monkeypatch)
    module, _ = made("self", **options)
    x = input_of("self").detach()
    for call, error, message in (
        (lambda: module(x.numpy()), TypeError, "input: must be a tensor"),
        (lambda: module((x, x)), ValueError, "input: one tensor or a tuple"),
        (lambda: module(x[0]), ValueError, "input: must be"),
        (lambda: module(x[None]), ValueError, "must be .samples, patterns, features."),
        (lambda: module(x[..., 1:]), ValueError, "must have 6 features"),
        (lambda: module(x.float()), TypeError, "stored pattern: must be of torch.float64"),
        (lambda: module(x.long()), TypeError, "stored pattern: must be of torch.float64"),
        (lambda: module((x, x[:2].clone(), x)), ValueError, "state pattern: needs 3 samples"),
        (lambda: module((x, x, x[:, 1:])), ValueError, "pattern projection: needs one row"),
        (lambda: module(x, stored_pattern_padding_mask=x[..., 0]), ValueError, "padding_mask: must be bool"),
        (lambda: module(x, torch.zeros(B, M + 1, dtype=torch.bool)), ValueError, "padding_mask: must be bool"),
        (lambda: module(x, [True]), TypeError, "padding_mask: must be a tensor"),
        (lambda: module(x, association_mask=torch.zeros(M + 1, M)), ValueError, "association_mask: must have one of"),
        (lambda: module([x[0], x[1, :, 1:]]), ValueError, "^input: bags must have the same features"),
        (lambda: module([x[0], x[1].to_sparse()]), TypeError, r"^input\[1\]: must be a dense tensor"),
        (lambda: module((x, x.to_sparse(), x)), TypeError, "^state pattern: must be a dense tensor"),
        (lambda: module(torch.nested.nested_tensor([x[0], x[1]])), TypeError, "^input: must not be a nested tensor"),
        (lambda: module(x, association_mask=x[0, :, :1].to_sparse()), TypeError, "^association_mask: must be a dense"),
        (lambda: module(([*x], [*x], [*x])), ValueError, "state pattern: ragged bags of it must be the very list"),
        (lambda: module((x, [*x], x)), ValueError, "state pattern: ragged bags of it must be"),
        (lambda: module([x[0]], offsets=[0, M]), ValueError, "offsets: a list of bags has its own"),
        (lambda: module(x[0], offsets=[0, M + 1]), ValueError, "offsets: must rise"),
        (lambda: module(x[0], offsets=[0, 3, 2, M]), ValueError, "offsets: must rise"),
        (lambda: module(x[0], offsets=[0.0, M]), ValueError, "offsets: must be integers"),
        (lambda: module(x, offsets=[0, B]), ValueError, "input: stored patterns"),
        (
            lambda: module(x[0], torch.zeros(1, M, dtype=torch.bool), offsets=[0, M]),
            ValueError,
            "padding_mask: ragged bags",
        ),
        (
            lambda: made("no output projection, polynomial", gradient="implicit", **options)[0](x),
            ValueError,
            "gradient: a polynomial update",
        ),
        (lambda: made("lookup", **options)[0]((x, x)), TypeError, "input: must be one tensor of state patterns"),
        (lambda: made("lookup", **options)[0](x, offsets=[0, M]), ValueError, "offsets"),
        (lambda: made("pooling", **options)[0]((x, x, x)), ValueError, "input: must be one tensor or a tuple"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_heads": 4}, ValueError, "num_heads: must divide"),
        ({"hidden_size": 0}, ValueError, "hidden_size"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"separation": "argmax"}, ValueError, "separation"),
        ({"structure": "window"}, TypeError, "structure"),
        ({"gradient": "exact"}, ValueError, "gradient"),
        ({"backend": "cuda"}, ValueError, "backend"),
        ({"scaling": -1.0}, ValueError, "scaling"),
        ({"scaling": [1.0, 2.0, 3.0], "num_heads": 2}, ValueError, "scaling"),
        ({"scaling": torch.ones(1, requires_grad=True)}, ValueError, "learnable_scaling"),
        ({"update_steps_max": torch.tensor([1, 2])}, TypeError, "update_steps_max"),
        ({"update_steps_max": "a"}, TypeError, "^update_steps_max: must be a whole number or None"),
        ({"num_heads": 2**61, "hidden_size": 3}, ValueError, "^num_heads: 2305843009213693952 is too large"),
        ({"quantity": 2**61}, ValueError, "^quantity: 2305843009213693952 is too large"),
        ({"association_activation": "gelu"}, ValueError, "association_activation"),
        ({"normalize_stored_pattern": False}, ValueError, "normalize_stored_pattern_affine"),
        ({"input_size": None}, ValueError, "input_size"),
        ({"quantity": 0}, ValueError, "quantity"),
        ({"nothing": 1}, TypeError, "nothing"),
    ],
)
def test_bad_options(options, error, message):
    for kind in (sht.Hopfield, sht.HopfieldPooling, sht.HopfieldLayer):
        if "quantity" in options and kind is sht.Hopfield:
            continue
        with pytest.raises(error, match=message):
            kind(**{"input_size": 6} | options)


def test_numbers_that_are_not_finite():
    module, _ = made("self")
    x = input_of("self").detach()
    x[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="pattern: must be finite"):
        module(x)


def test_what_is_counted():
    """One pass through the core in each direction, of the whole layer."""
    for name in ("self", "three inputs", "samples second", "appended", "pooling", "lookup"):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            module = made(name, dtype=torch.float32 if dtype == torch.bfloat16 else dtype)[0].to(dtype)
            before, whole = dict(_native.counts), dict(_layer.counts)
            module(input_of(name, dtype=dtype)).sum().backward()
            assert _native.counts == before
            assert passes_since(whole) == [1, 1, 0]
    with torch.no_grad():
        module(input_of(name, dtype=dtype))
    assert passes_since(whole) == [2, 1, 0]
    assert isinstance(module(input_of(name, dtype=dtype)).grad_fn, _layer.WholeLayer._backward_cls)


def test_static_patterns_of_any_size():
    module = sht.Hopfield(structure=Window(1), **STATIC, **NO_NORMS, disable_out_projection=True)
    assert list(module.parameters()) == []
    assert module(torch.randn(2, 5, 3)).shape == (2, 5, 3)


def test_a_warning_names_the_line_that_asked():
    """Softmax between two patterns +-1 at the critical beta 1 creeps to 0."""
    stored, state = torch.tensor([1.0, -1.0]).reshape(1, 2, 1).double(), torch.full((1, 1, 1), 0.5).double()
    options = STATIC | NO_NORMS | {"disable_out_projection": True, "scaling": 1.0}
    options |= {"update_steps_max": None, "update_steps_eps": 1e-9}
    module = sht.Hopfield(1, **options)
    for needs_gradient in (False, True):
        with pytest.warns(RetrievalWarning, match="1 queries were still moving") as warned:
            module((stored, state.requires_grad_(needs_gradient), stored))
        assert warned[0].filename == __file__
