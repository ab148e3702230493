"""What callers do with their tensors and devices beside the package: resize storages, shard, set default devices."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from helpers import run_python  # noqa: E402

from sparsehopfield.torch import (  # noqa: E402
    Hopfield,
    associate,
    energy,
    entmax,
    entmax_loss,
    hopfield_attention,
    normmax,
    retrieve,
    softmax,
    sparsemax,
    sparsemax_loss,
    update,
)


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = rows(5, 4)
CALLS = {
    "associate": lambda x: associate(x[None, :, None], x[None, :, None], x[None, :, None], 1.0),
    "hopfield_attention": lambda x: hopfield_attention(x, x, x, x @ x.mT > 0),
    "retrieve": lambda x: retrieve(x, x, values=x),
    "update": lambda x: update(x, x, similarity="euclidean"),
    "energy": lambda x: energy(x, x),
    "softmax": softmax,
    "sparsemax": sparsemax,
    "entmax": entmax,
    "normmax": normmax,
    "sparsemax_loss": lambda x: sparsemax_loss(x, torch.zeros(5, dtype=torch.int64, device="cpu")),
    "entmax_loss": lambda x: entmax_loss(x, torch.zeros(5, dtype=torch.int64, device="cpu")),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("with_gradient", [False, True])
def test_storages_can_be_resized_after_a_call(name, with_gradient):
    x = X.clone().requires_grad_(with_gradient)
    out = CALLS[name](x)
    if with_gradient:
        out.sum().backward()
    x.untyped_storage().resize_(1000)


@pytest.mark.parametrize("whole_layer", [False, True])
def test_a_storage_that_moves_before_the_backward_pass(whole_layer):
    """The tape, which read it in place, is made again."""
    layer = Hopfield(4)
    x = X[None].clone()
    mask = torch.zeros(5, 5, dtype=torch.bool)
    weight = layer.in_proj_weight

    def output():
        if whole_layer:
            return layer(x, association_mask=mask)
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
print(len(list(whole.parameters())))
"""


@pytest.mark.skipif(
    not torch.distributed.is_available() or [*map(int, torch.__version__.split(".")[:2])] < [2, 6],
    reason="torch.distributed.fsdp has fully_shard from PyTorch 2.6 on",
)
def test_sharded_layers():
    """FSDP2 frees the storages of parameters after the forward pass, and fills them again for the backward pass."""
    assert run_python(SHARDED) == 6
