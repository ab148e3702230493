"""What callers do with their tensors and devices beside the package: resize storages, shard, set default devices."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from helpers import run_python  # noqa: E402

import sparsehopfield.torch  # noqa: E402
from sparsehopfield import torch as sht  # noqa: E402
from sparsehopfield.structures import BlockSparse, LinearFeatures, RandomFeatures, RandomMask, TopK, Window  # noqa: E402
from sparsehopfield.torch import Hopfield, HopfieldMemory, associate, hopfield_attention  # noqa: E402


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), device="cpu")


def association(x, **options):
    """Associate 4 rows of each of 2 samples with one another, or with ragged bags."""
    x = x[:, :, None]
    rows = x.flatten(0, 1) if "offsets" in options else x
    return associate(x, rows, rows, 1.0, **options)


def layer(kind, *sizes, **options):
    """Return a function that calls a layer with input patterns."""
    torch.manual_seed(0)
    made = getattr(sht, kind)(*sizes, dropout=0.3, **options)
    return lambda x, backend=None: _with_backend(made, backend)(x)


def _with_backend(made, backend):
    for module in made.modules():
        if hasattr(module, "backend"):
            module.backend = backend
    return made


X = rows(2, 4, 4)
OFFSETS = torch.tensor([0, 3, 8])
TARGET = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
FLAT = {  # of rows (8, 4)
    "energy": lambda x, **k: sht.energy(x, x, **k),
    "retrieve": lambda x: sht.retrieve(x, x, values=x),
    "update": lambda x, **k: sht.update(x, x, similarity="euclidean", **k),
}
CALLS = {
    **{name: lambda x, call=call, **k: call(x.flatten(0, 1), **k) for name, call in FLAT.items()},
    "associate": association,
    "hopfield_attention": lambda x, **k: hopfield_attention(x, x, x, x @ x.mT > 0, scale=0.5, **k),
    "causal": lambda x, **k: hopfield_attention(x, x, x, is_causal=True, **k),
    "dropout": lambda x, **k: hopfield_attention(x, x, x, dropout_p=0.3, **k),
    "dropout with a seed": lambda x, **k: association(x, dropout=0.3, seed=5, **k),
    "unlimited updates": lambda x, **k: association(x, update_steps_max=None, **k),
    "implicit": lambda x, **k: association(x, update_steps_max=99, gradient="implicit", **k),
    "ragged": lambda x, **k: association(x, offsets=OFFSETS, **k),
    "ragged, random": lambda x, **k: association(x, offsets=OFFSETS, structure=RandomMask(2, seed=1), **k),
    "window": lambda x, **k: association(x, structure=Window(1), **k),
    "top k": lambda x, **k: association(x, structure=TopK(2), **k),
    "random": lambda x, **k: association(x, structure=RandomMask(2, seed=1), **k),
    "blocks": lambda x, **k: association(x, structure=BlockSparse([[True, False], [True, True]], (2, 2)), **k),
    "features": lambda x, **k: association(x, separation="softmax", structure=LinearFeatures("elu+1"), **k),
    "random features": lambda x, **k: association(x, separation="softmax", structure=RandomFeatures(8, seed=3), **k),
    "softmax": sht.softmax,
    "sparsemax": sht.sparsemax,
    "entmax": sht.entmax,
    "entmax 1.3": lambda x, **k: sht.entmax(x, 1.3, **k),
    "normmax": sht.normmax,
    "softmax_loss": lambda x, **k: sht.softmax_loss(x, TARGET, **k),
    "sparsemax_loss": lambda x, **k: sht.sparsemax_loss(x, TARGET, **k),
    "entmax_loss": lambda x, **k: sht.entmax_loss(x, TARGET, **k),
    "Hopfield": layer("Hopfield", 4),
    "Hopfield, tuple of scalings": layer("Hopfield", 4, num_heads=2, scaling=(0.5, 1.0)),
    "HopfieldPooling": layer("HopfieldPooling", 4),
    "HopfieldLayer": layer("HopfieldLayer", 4),
    "SparseHopfield": layer("SparseHopfield", 4),
    "HopfieldEncoderLayer": layer("HopfieldEncoderLayer", Hopfield(4), dim_feedforward=8),
    "HopfieldMemory": lambda x: HopfieldMemory(x.detach()[0]).retrieve(x.detach()[1]),
}
NO_BACKEND = {"retrieve", "HopfieldMemory"}
PAIRS = [(name, backend) for name in CALLS for backend in (None, "torch") if backend is None or name not in NO_BACKEND]


def test_every_public_function_is_called():
    functions = {name for name in sparsehopfield.torch.__all__ if name[0].islower()}
    assert functions <= set(CALLS)


@pytest.mark.parametrize(("name", "backend"), PAIRS)
def test_the_default_device_is_of_no_concern_to_a_call(name, backend):
    """Everything is made on the device of the tensors that are given."""
    options = {} if backend is None else {"backend": backend}
    found = []
    for default in ("cpu", "meta"):
        torch.manual_seed(0)
        x = X.clone().requires_grad_()
        with torch.device(default):
            out = CALLS[name](x, **options)
            if out.requires_grad:
                out.sum().backward()
        found.append((out.detach(), x.grad))
        assert out.device.type == "cpu"
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", sorted(CALLS.keys() - {"HopfieldMemory"})
)  # which keeps what it reads in place from moving
@pytest.mark.parametrize("with_gradient", [False, True])
def test_storages_can_be_resized_after_a_call(name, with_gradient):
    x = X.clone().requires_grad_(with_gradient)
    out = CALLS[name](x)
    if out.requires_grad:
        out.sum().backward()
    x.untyped_storage().resize_(1000)


@pytest.mark.parametrize("whole_layer", [False, True])
def test_a_storage_that_moves_before_the_backward_pass(whole_layer):
    """The tape, which read it in place, is made again."""
    module = Hopfield(4)
    x = X.clone()
    mask = torch.ones(4, 4, dtype=torch.bool).triu(1)
    weight = dict(module.named_parameters())["association_core.in_proj_weight"]

    def output():
        if whole_layer:
            return module(x, association_mask=mask)
        w = weight[:4]
        return associate(x[:, :, None], (x @ w.mT)[:, :, None], x[:, :, None], 1.0, mask=mask)

    (expected,) = torch.autograd.grad(output().square().sum(), weight)
    out = output()
    for t in (x, mask, weight):
        storage = t.untyped_storage()
        numbers = t.detach().clone()
        kept = torch.empty(storage.nbytes(), dtype=torch.uint8)  # so that it is likely to move
        storage.resize_(0)
        storage.resize_(numbers.nbytes)
        with torch.autograd._unsafe_preserve_version_counter(t), torch.no_grad():
            t.copy_(numbers)
        del kept
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), weight)[0], expected)


SHARDED = """
import copy
import torch
from torch import nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from sparsehopfield.torch import Hopfield

init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
whole = nn.Sequential(Hopfield(6, num_heads=2), nn.Linear(6, 6))
sharded = copy.deepcopy(whole)
fully_shard(sharded[0], mesh=mesh)
fully_shard(sharded, mesh=mesh)
x = torch.randn(2, 3, 6)
for _ in range(2):
    for net in whole, sharded:
        net(x).square().sum().backward()
for p, q in zip(whole.parameters(), sharded.parameters()):
    torch.testing.assert_close(q.grad.full_tensor(), p.grad)
destroy_process_group()
print('true')
"""


@pytest.mark.skipif(
    not torch.distributed.is_available() or [*map(int, torch.__version__.split(".")[:2])] < [2, 6],
    reason="torch.distributed.fsdp has fully_shard from PyTorch 2.6 on",
)
def test_sharded_layers():
    """FSDP2 frees the storages of parameters after the forward pass, and fills them again for the backward pass."""
    assert run_python(SHARDED) is True
