"""Hopfield modules that are compiled and exported: one graph, the eager numbers, no pass made twice."""

import io
import shutil

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from layer_cases import LAYERS, B, E, M, assert_close, assert_no_tapes, input_of, leaves_of, made  # noqa: E402
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

import sparsehopfield.torch as sht  # noqa: E402
from sparsehopfield.structures import Window  # noqa: E402
from sparsehopfield.torch import _native  # noqa: E402

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
SAMPLES = [3, 4, 6]
KINDS = ["self", "appended", "samples second", "pooling", "lookup, separated", "encoder", "decoder"]
OTHERS = ["self, softmax, 2 more steps", "three inputs", "connected", "normalised in association space", "top k",
          "static pooling, samples second", "learned scaling", "a scaling a head"]  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh_compiler():
    """Forget what was compiled, and check that a test leaves no tape."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    assert_no_tapes()


def case(name):
    """Return a module, and what gives its arguments for a number of samples."""
    if name in LAYERS:
        return made(name)[0], lambda samples: (input_of(name, samples, seed=samples),)
    torch.manual_seed(0)
    association = sht.SparseHopfield(E, num_heads=2, dtype=torch.float64)
    if name == "encoder":
        return sht.HopfieldEncoderLayer(association, 8, 0.0).double(), lambda n: (input_of("self", n),)
    layer = sht.HopfieldDecoderLayer(association, sht.Hopfield(E), 8, 0.0).double()
    return layer, lambda n: (input_of("self", n), input_of("self", n, seed=2))


def run(name, backend):
    """Compile a module for numbers of samples that follow one another, forwards and backwards."""
    module, arguments = case(name)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    again = _native.counts["forward again"]
    for samples in SAMPLES:
        given = arguments(samples)
        leaves = [x for x in (*given, *module.parameters()) if not isinstance(x, tuple) and x.requires_grad]
        leaves += [x for x in given if isinstance(x, tuple) for x in x]
        expected, found = module(*given), compiled(*given)
        assert_close(found, expected)
        grad = torch.randn_like(expected)
        for a, b in zip(*(torch.autograd.grad(y, leaves, grad) for y in (found, expected)), strict=True):
            assert_close(a, b)
    assert _native.counts["forward again"] == again
    assert counter.frame_count <= 2  # for the first number of samples, and for any


@pytest.mark.parametrize("name", KINDS)
def test_one_graph(name):
    run(name, "aot_eager")


@pytest.mark.depth
@pytest.mark.parametrize("name", OTHERS)
def test_one_graph_of_other_options(name):
    run(name, "aot_eager")


@needs_compiler
def test_inductor():
    run("pooling", "inductor")


@needs_compiler
@pytest.mark.depth
@pytest.mark.parametrize("name", [name for name in KINDS if name != "pooling"])
def test_inductor_on_other_modules(name):
    run(name, "inductor")


def test_masks_offsets_and_dropout():
    """What comes beside the input is compiled, too; the numbers of offsets are seen when the graph runs."""
    module, _ = made("pooling", dropout=0.3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    rows = torch.randn(9, E, dtype=torch.float64)
    mask = torch.randn(2, 4, dtype=torch.float64)
    for offsets in (torch.tensor([0, 4, 4, 9]), torch.tensor([0, 1, 6, 9])):
        mask = torch.randn(2, int(offsets.diff().max()), dtype=torch.float64)
        torch.manual_seed(1)
        expected = module(rows, association_mask=mask, offsets=offsets)
        torch.manual_seed(1)
        assert_close(compiled(rows, association_mask=mask, offsets=offsets), expected)
    padding = torch.rand(B, M) < 0.3
    x = input_of("pooling")
    module.eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, padding), module(x, padding))


def test_plain_torch_is_one_graph():
    module, _ = made("self", backend="torch")
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = input_of("self")
    found, expected = (torch.autograd.grad(f(x).square().sum(), leaves_of(module, x)) for f in (compiled, module))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


CHANGES = {
    "of numbers": [("scaling", 3.0), ("dropout", 0.5), ("training", False)],
    "of structures": [("structure", Window(1)), ("structure", None)],
    "of updates": [("separation", "softmax"), ("scaling", 0.2), ("update_steps_max", 3), ("update_steps_eps", 1e9),
                   ("gradient", "implicit")],
}  # fmt: skip


TAKE_STRUCTURES = pytest.mark.skipif(
    [*map(int, torch.__version__.split(".")[:2])] < [2, 13],
    reason="tried with PyTorch 2.13: 2.4 compiles no structures",
)


@pytest.mark.parametrize("which", ["of numbers", pytest.param("of structures", marks=TAKE_STRUCTURES), "of updates"])
def test_changed_options_are_seen(which):
    module, _ = made("self")
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = input_of("self")

    def found(f):
        torch.manual_seed(1)  # of dropout
        out = f(x)
        return out, *torch.autograd.grad(out.square().sum(), x)

    before = found(compiled)
    for name, value in CHANGES[which]:
        setattr(module, name, value)
        now = found(compiled)
        assert not all(map(torch.equal, now, before)), name
        for a, b in zip(now, found(module), strict=True):
            assert_close(a, b)
        before = now
    core = _native.counts["forward"]
    module.backend = "torch"
    assert_close(found(compiled)[0], before[0])
    assert _native.counts["forward"] == core


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["self", "pooling", "lookup"])
def test_export(name, strict):
    """A program for any number of samples, saved and loaded."""
    module, _ = made(name)
    module.eval()
    samples = torch.export.Dim("samples", min=2, max=1000)
    given = (input_of(name).detach(),)
    program = torch.export.export(module, given, dynamic_shapes={"input": {0: samples}}, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for n in SAMPLES:
        x = input_of(name, n).detach()
        assert_close(loaded(x), module(x))
