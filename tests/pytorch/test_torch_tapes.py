"""Tapes of the association on tensors: who keeps them, when they are found, and that none outlives its use."""

import copy
import gc
import io
import os
import pickle
import threading

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from association_cases import association, leaves, no_living_tape, outcome, passes, with_gradients  # noqa: E402, F401
from helpers import run_python  # noqa: E402
from torch import nn  # noqa: E402
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import sparsehopfield as sh  # noqa: E402
from sparsehopfield.torch import _native, _tape, associate, hopfield_attention  # noqa: E402
from sparsehopfield.torch._operators import associate as associated  # noqa: E402


def rows(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def counted(passes):  # noqa: F811
    return [passes[name] for name in ("forward", "backward", "forward again")]


X = rows(2, 3, 5, 4)


def attend(x, **options):
    return hopfield_attention(x, x.sin(), x.cos(), update_steps_max=1, separation="entmax15", **options)


def gradient_of(function, x=X):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).square().sum(), x)[0]


# --- the tensor that owns a tape --------------------------------------------------------------------------------------


def test_a_tape_lives_as_long_as_its_tensor():
    handle = _tape.keep("tape", [X], (True,))
    assert _tape.alive() == 1
    assert _tape.find(handle, [X]) == "tape"
    assert _tape.find(handle.view(1), [X]) == "tape"  # the storage counts, not the object
    del handle
    assert _tape.alive() == 0


def test_all_such_tensors_are_equal():
    """torch.library.opcheck compares the results of two calls."""
    handles = [_tape.keep("tape", [X], (True,)) for _ in range(3)]
    assert all(torch.equal(handle, _tape.empty()) for handle in handles)
    assert len({handle.data_ptr() for handle in handles}) == 3


def test_a_copy_has_no_tape():
    handle = _tape.keep("tape", [X], (True,))
    buffer = io.BytesIO()
    torch.save(handle, buffer)
    buffer.seek(0)
    copies = handle.clone(), copy.deepcopy(handle), pickle.loads(pickle.dumps(handle)), torch.load(buffer)
    assert all(_tape.find(other, [X]) is None for other in copies)
    assert _tape.find(_tape.empty(), [X]) is None


def test_a_tape_is_found_only_where_its_tensors_lie_as_they_lay():
    handle = _tape.keep("tape", [X, X], (True, False))
    assert _tape.find(handle, [X, X.clone()]) == "tape"
    for other in (X.clone(), X[:1], X.transpose(0, 1), X.reshape(3, 2, 5, 4)):
        assert _tape.find(handle, [other, X]) is None


@pytest.mark.parametrize("form", ["all", "ragged", "projected", "mask and padding", "dropout", "linear features"])
def test_without_a_tape_the_forward_pass_is_made_again(form, passes):  # noqa: F811
    """From the tensors that the backward pass is given, whatever has become of the first ones."""
    tensors, options = association("softmax", form, 1)
    out, handle = _native.forward(tensors, options, True)
    grad = torch.ones_like(out)
    expected = _native.backward(grad, handle, tensors, options, True, True)
    assert counted(passes) == [1, 1, 0]
    moved = type(tensors)(*(t if t is None else t.clone() for t in tensors))
    for t in tensors[:3]:
        t.fill_(7)  # as a compiler does that uses the memory again
    found = _native.backward(grad, handle, moved, options, True, True)
    assert counted(passes) == [2, 2, 1]
    for a, b in zip(found, expected, strict=True):
        assert a is b is None or torch.equal(a, b)


# --- autograd ---------------------------------------------------------------------------------------------------------


def test_a_graph_may_be_used_again(passes):  # noqa: F811
    x = X.clone().requires_grad_()
    loss = attend(x).square().sum()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second)
    assert counted(passes) == [1, 2, 0]
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, x)


def test_several_forward_passes_before_their_backward_passes(passes):  # noqa: F811
    xs = [rows(2, 3, 5, 4, seed=i).requires_grad_() for i in range(4)]
    losses = [attend(x).square().sum() for x in xs]
    for i in (2, 0, 3, 1):
        (found,) = torch.autograd.grad(losses[i], xs[i])
        assert torch.equal(found, gradient_of(attend, xs[i].detach()))
    assert passes["forward again"] == 0


def test_a_tape_goes_with_its_graph():
    x = X.clone().requires_grad_()
    out = attend(x)
    assert _tape.alive() == 1
    out.sum().backward()
    assert _tape.alive() == 0  # though `out` is there
    out = attend(x)
    assert _tape.alive() == 1
    del out
    assert _tape.alive() == 0
    with torch.no_grad():
        attend(x)
    assert attend(x.detach()).grad_fn is None
    assert _tape.alive() == 0


@pytest.mark.parametrize(
    "name", ["queries", "stored", "values", "beta", "key_weight", "padding_mask", "mask", "offsets"]
)
def test_a_change_in_place_before_the_backward_pass_raises(name):
    forms = {"key_weight": "projected", "padding_mask": "padding", "mask": "bool (N, M)", "offsets": "ragged"}
    tensors, options = association("softmax", forms.get(name, "all"))
    tensors = with_gradients(tensors)
    out = associated(tensors, options)
    with torch.no_grad():
        getattr(tensors, name).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_second_derivatives_of_a_deep_graph():
    x = X.clone().requires_grad_()
    (first,) = torch.autograd.grad(attend(attend(x)).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    y = X.clone().requires_grad_()
    plain = attend(attend(y, backend="torch"), backend="torch")
    (first,) = torch.autograd.grad(plain.square().sum(), y, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), y)
    torch.testing.assert_close(second, expected)
    del first, plain
    gc.collect()


# --- who keeps saved tensors elsewhere ----------------------------------------------------------------------------


def pickled(t):
    return pickle.dumps(t)


HOOKS = {
    "copies": (lambda t: t.clone(), lambda t: t),
    "pickles": (pickled, pickle.loads),
    "the tensors themselves": (lambda t: t, lambda t: t),
}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_may_keep_saved_tensors(name, passes):  # noqa: F811
    expected = gradient_of(attend)
    with saved_tensors_hooks(*HOOKS[name]):
        found = gradient_of(attend)
    assert torch.equal(found, expected)
    assert passes["forward again"] == (name != "the tensors themselves")


def test_saved_tensors_may_be_offloaded():
    expected = gradient_of(attend)
    with save_on_cpu():
        found = gradient_of(attend)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints_keep_no_tape(use_reentrant, passes):  # noqa: F811
    """Dropout, whose seed is drawn outside the operator, is the same when the forward pass is made again."""

    def function(x):
        return attend(x, dropout_p=0.4)

    torch.manual_seed(3)
    expected = gradient_of(function)
    torch.manual_seed(3)
    x = X.clone().requires_grad_()
    loss = checkpoint(function, x, use_reentrant=use_reentrant).square().sum()
    assert _tape.alive() == 0
    before = passes["forward"]
    (found,) = torch.autograd.grad(loss, x) if not use_reentrant else (loss.backward(), x.grad)[1:]
    assert torch.equal(found, expected)
    assert passes["forward"] == before + 1
    assert passes["forward again"] == 0


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4, dtype=torch.float64)
        self.scale = nn.Parameter(torch.tensor(0.6, dtype=torch.float64))

    def forward(self, x):
        return hopfield_attention(self.linear(x), x, x, scale=self.scale)


def test_modules_with_associations_are_copied_and_pickled():
    layer = Layer()
    layer(X).square().sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(X), layer(X))
        other.zero_grad()
        other(X).square().sum().backward()
        for a, b in zip(other.parameters(), layer.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)


def test_a_halved_module_keeps_a_beta_of_float64():
    """Which is a tensor made for the call; the parameter of a module is halved with it."""
    layer = Layer().to(torch.float16)
    out = layer(X.to(torch.float16))
    assert out.dtype == torch.float16
    expected = hopfield_attention(layer.linear(X.half()).float(), X.half().float(), X.half().float(), scale=layer.scale)
    torch.testing.assert_close(out, expected.half(), rtol=0, atol=0)
    x = X.half()
    torch.testing.assert_close(
        hopfield_attention(x, x, x, scale=1 / 3).float(),
        hopfield_attention(x.double(), x.double(), x.double(), scale=1 / 3).float(),
        rtol=2e-3,
        atol=2e-3,
    )


# --- threads and processes --------------------------------------------------------------------------------------------


def test_threads_do_not_disturb_one_another():
    xs = [rows(2, 3, 40, 4, seed=i) for i in range(8)]
    expected = [gradient_of(attend, x) for x in xs]
    failures = []

    def work(i):
        try:
            for _ in range(5):
                assert torch.equal(gradient_of(attend, xs[i]), expected[i])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("separation", ["softmax", "sparsemax", "entmax15"])
def test_any_number_of_threads_gives_the_same_bits(separation):
    tensors = [rows(8, 64, 4, 16, seed=i, dtype=torch.float32) for i in range(3)]
    results = []
    before = sh.get_num_threads()
    try:
        for threads in (1, 2):
            sh.set_num_threads(threads)
            given = [t.clone().requires_grad_() for t in tensors]
            out = associate(*given, 0.5, separation=separation, update_steps_max=2)
            results.append((out, *torch.autograd.grad(out.square().sum(), given)))
    finally:
        sh.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


FORKED = """
import json, os, torch
from torch.utils.data import DataLoader, Dataset
from sparsehopfield.torch import hopfield_attention

def gradient(i):
    x = torch.randn((2, 3, 64, 8), generator=torch.Generator().manual_seed(i)).requires_grad_()
    return torch.autograd.grad(hopfield_attention(x, x, x, update_steps_max=1).square().sum(), x)[0]

class Data(Dataset):
    def __len__(self): return 6
    def __getitem__(self, i): return gradient(i)

here = torch.stack([gradient(i) for i in range(6)])  # both pools of threads have begun
loader = DataLoader(Data(), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
there = torch.cat(list(loader))
print(json.dumps(torch.equal(here, there)))
"""

DISTRIBUTED = """
import json, os, sys, tempfile, torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from sparsehopfield.torch import hopfield_attention

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.tensor(0.6))
    def forward(self, x):
        return hopfield_attention(self.linear(x), x, x, scale=self.scale)

def gradients(model, x):
    model(x).square().sum().backward()
    return [p.grad for p in model.parameters()]

def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    x = torch.randn((4, 3, 5, 4), generator=torch.Generator().manual_seed(0))
    found = gradients(DistributedDataParallel(Layer()), x[2 * rank : 2 * rank + 2])
    whole = gradients(Layer(), x)
    for a, b in zip(found, whole):
        torch.testing.assert_close(2 * a, b)
    dist.destroy_process_group()

with tempfile.TemporaryDirectory() as folder:
    mp.start_processes(work, (folder,), nprocs=2, start_method="fork")
print(json.dumps(True))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("script", [FORKED, DISTRIBUTED], ids=["workers of a data loader", "data parallel"])
def test_forked_processes(script):
    assert run_python(script, timeout=120)
