"""The association as operators: torch's own checks, compilers, export, tensors without data, modes."""

import io

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from association_cases import (  # noqa: E402
    FEATURES,
    FORMS,
    MAPS,
    STRUCTURES,
    association,
    is_valid,
    leaves,
    no_living_tape,  # noqa: F401
    outcome,
    passes,  # noqa: F401
    with_gradients,
)
from helpers import run_python  # noqa: E402
from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.library import opcheck  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from sparsehopfield.structures import Window  # noqa: E402
from sparsehopfield.torch import _native, _tape, associate, hopfield_attention  # noqa: E402
from sparsehopfield.torch._operators import associate as associated  # noqa: E402

UTILITIES = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
CHECKED = [  # of every form sparsemax in both dtypes and moving queries, of every map the most important forms
    *(
        (separation, form, steps, torch.float64)
        for form in FORMS
        for separation in ("sparsemax", "softmax")
        for steps in (0, 2)
    ),
    *(("entmax15", form, 1, torch.float32) for form in FORMS),
    *((separation, form, 0, torch.float64) for separation in MAPS[3:] for form in ("all", "bool (N, M)")),
]
CHECKED = [case for case in CHECKED if is_valid(*case[:3])]
BACKENDS = ["aot_eager", "inductor"]
COMPILERS = [*map(int, torch.__version__.split(".")[:2])]  # older ones follow less
TAKE_STRUCTURES = pytest.mark.skipif(COMPILERS < [2, 13], reason="tried with PyTorch 2.13: 2.4 compiles no structures")
TAKE_AUTOCAST = pytest.mark.skipif(COMPILERS < [2, 13], reason="tried with PyTorch 2.13: 2.4 compiles no plain torch")


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_there_are_enough_arguments():
    assert len(CHECKED) >= 144


@pytest.mark.parametrize("form", FORMS)
def test_torchs_checks_of_an_operator(form):
    """Schema, registration of the gradient, shapes without data, compilation with dynamic shapes."""
    for separation, other, steps, dtype in CHECKED:
        if other == form:
            tensors, options = association(separation, form, steps, dtype=dtype)
            opcheck(
                torch.ops.sparsehopfield.associate.default,
                (*with_gradients(tensors), *options, True),
                test_utils=UTILITIES,
            )


@pytest.mark.parametrize("form", ["all", "projected", "ragged", "shared queries"])
def test_torchs_checks_of_the_gradients_operator(form):
    """The operator has no gradient of its own, so that nothing needs one."""
    tensors, options = association("entmax15", form, 1)
    out, handle = _native.forward(tensors, options, True)
    for needs in ((True, True), (False, False)):
        arguments = (torch.ones_like(out), handle, *tensors, *options, *needs)
        opcheck(torch.ops.sparsehopfield.associate_backward.default, arguments, test_utils=UTILITIES)


def test_operators_return_what_compilers_are_told():
    """Contiguous tensors, however the given ones lie."""
    tensors, options = association("sparsemax", "all", 1)
    first = [t.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0) for t in tensors[:3]]
    shared = [t[:1, :1].expand(*t.shape) for t in tensors[:3]]
    for rows, dtype in ((first, torch.float64), (shared, torch.float64), (first, torch.bfloat16)):
        given = *(t.to(dtype) for t in rows), *tensors[3:]
        out, handle = torch.ops.sparsehopfield.associate(*given, *options, True)
        for operator, arguments in (
            (torch.ops.sparsehopfield.associate, (*given, *options, True)),
            (
                torch.ops.sparsehopfield.associate_backward,
                (out.expand(*out.shape), handle, *given, *options, True, True),
            ),
        ):
            opcheck(operator.default, arguments, test_utils="test_faketensor")


def compiled(function, backend, sizes, make):
    """Compile with dynamic shapes, and compare with the function itself for several sizes without a recompilation."""
    torch._dynamo.reset()
    fast = torch.compile(function, backend=backend, fullgraph=True, dynamic=True)
    for i, size in enumerate(sizes):
        given = [t.requires_grad_() for t in make(size)]
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            out = fast(*given)
            found = torch.autograd.grad(out.square().sum(), given)
        expected = function(*given)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
        for a, b in zip(found, torch.autograd.grad(expected.square().sum(), given), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch._dynamo.reset()


STRUCTURE = Window(1)
FUNCTIONS = {
    "sparsemax": lambda q, k, v: hopfield_attention(q, k, v, update_steps_max=1),
    "causal softmax": lambda q, k, v: hopfield_attention(q, k, v, separation="softmax", is_causal=True),
    "mask": lambda q, k, v: hopfield_attention(q, k, v, torch.ones(5, 5, dtype=torch.bool).tril()),
    "structure": lambda q, k, v: hopfield_attention(q, k, v, structure=STRUCTURE, separation="entmax15"),
    "within others": lambda q, k, v: hopfield_attention((2 * q).relu(), k.sin(), v.cos(), scale=0.5).tanh() + q,
    "learned mask": lambda q, k, v: hopfield_attention(q, k, v, (q @ k.mT).tanh(), separation="softmax"),
    "associate": lambda q, k, v: associate(q, k, v, (v**2).mean() + 1, update_steps_max=2, update_steps_eps=0.0),
}


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks={"structure": TAKE_STRUCTURES, "learned mask": TAKE_AUTOCAST}.get(name, ()))
        for name in FUNCTIONS
        for backend in BACKENDS
        if (name, backend) != ("learned mask", "inductor")  # all of plain torch, which takes long
    ],
)
def test_compiled_functions_take_any_batch(name, backend, passes):  # noqa: F811
    compiled(FUNCTIONS[name], backend, (2, 3, 5), lambda b: [rows(b, 3, 5, 4, seed=i) for i in range(3)])
    assert passes["forward again"] == 0  # the tapes were found
    assert (passes["forward"] > 0) == (name != "learned mask")


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_dropout_is_the_same_forward_and_backward(backend):
    torch._dynamo.reset()
    fast = torch.compile(
        lambda q, k, v: hopfield_attention(q, k, v, dropout_p=0.5, separation="softmax"),
        backend=backend,
        fullgraph=True,
    )
    q, k, v = (rows(2, 3, 5, 4, seed=i).requires_grad_() for i in range(3))
    torch.manual_seed(0)
    out = fast(q, k, v)
    weight = rows(2, 3, 5, 4, seed=7)
    (gradient,) = torch.autograd.grad(out, v, weight)  # linear in v
    torch.testing.assert_close((gradient * v).sum(), (out * weight).sum())
    assert not torch.equal(out, fast(q, k, v))
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_gradient_is_right_where_memory_is_used_again(backend, passes):  # noqa: F811
    """Queries that are computed for the call lie in memory that a compiler may use for something else."""

    def function(q, k, v):
        x = torch.sin(q) * 2
        out = hopfield_attention(x, k * 1.5, v + 1, separation="softmax")
        y = torch.cos(out) + torch.sin(q)
        return hopfield_attention(y, torch.sin(k), y, separation="softmax") * x

    compiled(function, backend, (4,), lambda b: [rows(b, 2, 64, 16, seed=i) for i in range(3)])


@TAKE_AUTOCAST
def test_transforms_within_compiled_functions_are_plain_torchs(passes):  # noqa: F811
    def function(x):
        return torch.func.grad(lambda x: hopfield_attention(x, x, x).square().sum())(x)

    x = rows(2, 2, 4, 3)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(function, backend="aot_eager", fullgraph=True)(x), function(x))
    assert passes["forward"] == 1  # of the function itself
    torch._dynamo.reset()


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.options = options

    def forward(self, x):
        return hopfield_attention(self.linear(x), x, x, **self.options)


EXPORTED = {
    "causal": {"is_causal": True},
    "blocks": {"structure": Window(2, causal=True), "separation": "softmax", "update_steps_max": 1},
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["causal", pytest.param("blocks", marks=TAKE_STRUCTURES)])
def test_an_exported_program_takes_any_batch(name, strict):
    module = Attention(**EXPORTED[name])
    sizes = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(module, (rows(2, 3, 5, 4),), dynamic_shapes=sizes, strict=strict)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    again = torch.export.load(buffer).module()
    for batch in (1, 2, 7):
        x = rows(batch, 3, 5, 4, seed=batch)
        torch.testing.assert_close(again(x), module(x))
    assert _tape.alive() == 0


@TAKE_STRUCTURES
def test_an_exported_program_runs_in_another_process(tmp_path):
    """Which knows structures by their descriptions."""
    module = Attention(**EXPORTED["blocks"])
    x = rows(2, 3, 5, 4)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "program.pt2")
    code = """
import json, sys, torch, sparsehopfield.torch
x = torch.randn((2, 3, 5, 4), generator=torch.Generator().manual_seed(0))
print(json.dumps(torch.export.load(sys.argv[1]).module()(x).tolist()))
"""
    torch.testing.assert_close(torch.tensor(run_python(code, tmp_path / "program.pt2")), module(x).detach())


@pytest.mark.parametrize("form", ["all", "shared queries", "ragged", "projected", *STRUCTURES, *FEATURES])
def test_tensors_without_data_have_shapes(form):
    """On meta, and fake ones, within their mode and without."""
    tensors, options = association("softmax", form, 1)
    expected, gradients = outcome(tensors, options)
    meta = with_gradients(type(tensors)(*(t if t is None else t.to("meta") for t in tensors)))
    tensors = with_gradients(tensors)
    with FakeTensorMode() as mode:
        fake = type(tensors)(*(t if t is None else mode.from_tensor(t) for t in tensors))
        inside = associated(fake, options)
    for given, out in ((meta, associated(meta, options)), (fake, inside), (fake, associated(fake, options))):
        assert out.shape == expected.shape
        assert out.dtype == expected.dtype
        for a, b in zip(torch.autograd.grad(out.sum(), leaves(given)), gradients, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_modes_see_the_operators(passes):  # noqa: F811
    q = rows(1, 2, 4, 3).requires_grad_()
    with FlopCounterMode(display=False):
        out = hopfield_attention(q, q, q)
        (gradient,) = torch.autograd.grad(out.square().sum(), q)
    assert [passes[name] for name in ("forward", "backward", "forward again")] == [1, 1, 0]
    torch.testing.assert_close(gradient, torch.autograd.grad(hopfield_attention(q, q, q).square().sum(), q)[0])
    graph = make_fx(lambda x: hopfield_attention(x, x, x))(q.detach()).graph
    assert torch.ops.sparsehopfield.associate.default in [node.target for node in graph.nodes]


SEEN = []


class Wrapped(torch.Tensor):
    """A tensor that holds another, and notes what is called with it."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, strides=inner.stride())

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, f, types, args=(), kwargs=None):
        SEEN.append(f)
        plain = pytree.tree_map_only(Wrapped, lambda t: t.inner, (args, kwargs or {}))
        return pytree.tree_map_only(torch.Tensor, Wrapped, f(*plain[0], **plain[1]))


def test_subclasses_of_tensors_see_the_operators():
    x = rows(1, 2, 4, 3)
    out = hopfield_attention(Wrapped(x), Wrapped(x), Wrapped(x))
    torch.testing.assert_close(out.inner, hopfield_attention(x, x, x))
    assert torch.ops.sparsehopfield.associate.default in SEEN


def test_operators_are_not_public():
    """torch.func cannot differentiate them, and jvp of them would be 0."""
    import sparsehopfield.torch as public

    assert not any(isinstance(getattr(public, name), torch._library.custom_ops.CustomOpDef) for name in public.__all__)
