"""The study of efficiency: the members of the family, PyTorch beside them, and what is measured of each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from sparsehopfield import _core
from sparsehopfield._engine import resources
from sparsehopfield._engine.association import associate_backward, associate_forward
from sparsehopfield._engine.structure import KINDS, Cost, Structure
from sparsehopfield.config import set_num_threads
from sparsehopfield.functional import update
from sparsehopfield.structures import BlockSparse, LinearFeatures, Pairs, RandomFeatures, RandomMask, TopK, Window
from sparsehopfield.structures._features import Features

#: The members, and the power of the length that their multiplications grow with.
MEMBERS = {
    "softmax": 2,
    "sparsemax": 2,
    "top-k": 2,
    "window": 1,
    "random-mask": 1,
    "blocks": 1,
    "linear-features": 1,
    "random-features": 1,
    "torch": 2,
    "torch-window": 1,
}
SHOWN = {"TopK", "Window", "RandomMask", "BlockSparse", "LinearFeatures", "RandomFeatures"}  # by names of their own
MEMBERS |= {name: 1 for name in KINDS if name not in SHOWN}
DIRECTIONS = ("forward", "backward")
COUNTED = 2048  # the largest length whose multiplications are counted: masks are made for it
WARM = 64  # rows of the call that warms up

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sizes:
    """The sizes of the members.

    Attributes
    ----------
    d : int
        Features.
    k : int
        Patterns that top-k and random masks keep for each query.
    window : int
        Patterns on each side of a window.
    block : int
        Rows and columns of a block; its neighbours take part, too.
    features : int
        Random features.
    """

    d: int = 64
    k: int = 32
    window: int = 64
    block: int = 64
    features: int = 256


def is_torch(member: str) -> bool:
    """Return whether a member is PyTorch's."""
    return member.startswith("torch")


def torch_version() -> str | None:
    """Return the version of PyTorch; None if it is not installed."""
    return None if find_spec("torch") is None else str(import_module("importlib.metadata").version("torch"))


def structure(member: str, length: int, sizes: Sizes) -> Structure | None:
    """Return the structure of a member for as many queries as patterns; None for all pairs."""
    if member == "top-k":
        return TopK(min(sizes.k, length))
    if member == "window":
        return Window(sizes.window)
    if member == "random-mask":
        return RandomMask(min(sizes.k, length))
    if member == "blocks":
        return _band(length, sizes.block)
    if member == "linear-features":
        return LinearFeatures()
    if member == "random-features":
        return RandomFeatures(sizes.features)
    return KINDS[member].sized(sizes.k, length) if member in KINDS else None


def _band(length: int, block: int) -> BlockSparse:
    """Make a mask of the blocks on the diagonal and beside it."""
    from scipy.sparse import diags_array

    block = min(block, length)
    count = length // block
    band = diags_array([1, 1, 1], offsets=[-1, 0, 1], shape=(count, count), dtype=np.int8)
    return BlockSparse(band.astype(bool).tocsr(), block)


def cost(member: str, length: int, sizes: Sizes) -> Cost:
    """Return the multiplications and bytes that one update is promised to take; 0 bytes where nothing is promised."""
    chosen_structure = structure(member, length, sizes)
    if isinstance(chosen_structure, (Pairs, Features)):
        return chosen_structure.cost(length, length, sizes.d)
    pairs = length**2
    if member == "torch-window":
        width = min(sizes.window, length)
        pairs = -(-length // width) * width * 3 * width
    return Cost(2 * pairs * sizes.d, 0)


def counts(member: str, length: int) -> bool:
    """Return whether multiplications of a member are counted, too."""
    return length <= COUNTED and MEMBERS[member] == 1 and not is_torch(member)


class Arrays:
    """Queries, patterns, values and the gradient of the output: independent normal numbers."""

    def __init__(self, length: int, sizes: Sizes, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.length = length
        self.q, self.k, self.v, self.g = (rng.standard_normal((length, sizes.d), dtype=np.float32) for _ in range(4))

    @property
    def beta(self) -> float:
        """Return the beta of scaled dot-product attention."""
        return float(self.q.shape[1] ** -0.5)


def _package_passes(member: str, a: Arrays, sizes: Sizes) -> Callable[[], Callable[[], Any]]:
    """Return a forward pass of the association, which returns the backward pass."""
    chosen_structure = structure(member, a.length, sizes)
    separation = "sparsemax" if member == "sparsemax" else "softmax"
    q, k, v, g = (x[None, :, None] for x in (a.q, a.k, a.v, a.g))

    def forward() -> Callable[[], Any]:
        out, saved = associate_forward(q, k, v, a.beta, separation=separation, structure=chosen_structure)
        return lambda: (out, associate_backward(saved, g))

    return forward


def _torch_passes(member: str, a: Arrays, sizes: Sizes) -> Callable[[], Callable[[], Any]]:
    """Return a forward pass of PyTorch, which returns the backward pass."""
    torch = import_module("torch")
    q, k, v = (torch.from_numpy(x).requires_grad_() for x in (a.q, a.k, a.v))
    g = torch.from_numpy(a.g)

    def forward() -> Callable[[], Any]:
        out = _attention(torch, member, q, k, v, a.beta, sizes)
        return lambda: (out, torch.autograd.grad(out, (q, k, v), g, retain_graph=True))

    return forward


def _attention(torch: Any, member: str, q: Any, k: Any, v: Any, beta: float, sizes: Sizes) -> Any:
    """Compute attention by PyTorch."""
    if member == "torch":
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(q[None, None], k[None, None], v[None, None], scale=beta)[0, 0]
    return torch_window(q, k, v, beta, sizes.window)


def torch_window(q: Any, k: Any, v: Any, beta: float, w: int) -> Any:
    """Compute attention of each query to the keys at most w places away, by blocks of w queries and three blocks of
    keys.

    Parameters
    ----------
    q, k, v : torch.Tensor of shape (N, d)
    beta : float
    w : int, at least 1

    Returns
    -------
    torch.Tensor of shape (N, d)
    """
    torch = import_module("torch")
    functional = torch.nn.functional
    n, d = q.shape
    w = min(w, n)
    count = -(-n // w)
    rest = count * w - n
    queries = functional.pad(q, (0, 0, 0, rest)).reshape(count, w, d)
    keys, values = (functional.pad(x, (0, 0, w, w + rest)).unfold(0, 3 * w, w) for x in (k, v))  # (count, d, 3 w)
    place = torch.arange(3 * w) - w  # of a key, from its block's first query
    near = (place - torch.arange(w)[:, None]).abs() <= w
    key = place + w * torch.arange(count)[:, None]
    allowed = near & ((key >= 0) & (key < n))[:, None]
    scores = torch.baddbmm(_penalty(torch, allowed), queries, keys, alpha=beta)
    return (torch.softmax(scores, dim=-1) @ values.transpose(1, 2)).reshape(-1, d)[:n]


def _penalty(torch: Any, allowed: Any) -> Any:
    """Return 0 where a key is allowed, else minus infinity."""
    return torch.zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)


def _update(member: str, a: Arrays, sizes: Sizes) -> Callable[[], Any]:
    """Return one update, which keeps nothing for a gradient."""
    if is_torch(member):
        torch = import_module("torch")
        q, k = (torch.from_numpy(x) for x in (a.q, a.k))
        return lambda: _attention(torch, member, q, k, k, a.beta, sizes)
    chosen_structure = structure(member, a.length, sizes)
    separation = "sparsemax" if member == "sparsemax" else "softmax"
    return lambda: update(a.q, a.k, a.beta, separation=separation, structure=chosen_structure)


def make_passes(member: str, a: Arrays, sizes: Sizes) -> Callable[[], Callable[[], Any]]:
    """Return the forward pass of a member."""
    return (_torch_passes if is_torch(member) else _package_passes)(member, a, sizes)


def measure(
    member: str, direction: str, length: int, sizes: Sizes, *, seed: int, threads: int, repeats: int
) -> dict[str, float]:
    """Measure one member in this process, which must not have done anything before.

    Parameters
    ----------
    member, direction : str
        Of `MEMBERS` and `DIRECTIONS`.
    length : int
        Queries, and patterns.
    sizes : Sizes
    seed, threads, repeats : int

    Returns
    -------
    dict
        `time` in seconds: of an update, or of the backward pass alone; the `spread` of its repeats. `memory` in bytes
        beyond the arrays that come in and go out: of an update, or of a forward pass that keeps what the backward one
        needs, and of this one. Of an update also the `multiplications` and `bytes` promised, and those `counted`.
    """
    set_num_threads(threads)
    if is_torch(member):
        import_module("torch").set_num_threads(threads)
    warm_up, all_rows = Arrays(WARM, sizes, seed), Arrays(length, sizes, seed)
    results = (1 if direction == "forward" else 4) * all_rows.q.nbytes
    if direction == "forward":
        _update(member, warm_up, sizes)()
        call = whole = _update(member, all_rows, sizes)
    else:
        make_passes(member, warm_up, sizes)()()
        forward = make_passes(member, all_rows, sizes)

        def whole() -> Any:
            return forward()()

    found = {"memory": float(max(resources.peak(whole) - results, 0))}
    if direction == "backward":
        call = forward()
    found["time"], found["spread"] = resources.seconds(call, repeats)
    if direction == "forward":
        promised = cost(member, length, sizes)
        found |= {"multiplications": promised.multiplications, "bytes": promised.bytes}
        if counts(member, length):
            found["counted"] = count_multiplications(member, length, sizes)
    return found


def count_multiplications(member: str, length: int, sizes: Sizes) -> int:
    """Count the multiplications of an update: of the pairs of a mask, or of the products of features."""
    chosen_structure = structure(member, length, sizes)
    if isinstance(chosen_structure, Pairs):
        return 2 * int(chosen_structure.mask(length, length).sum()) * sizes.d
    made: list[int] = []

    def counting(operation: Any) -> Any:
        return lambda *arguments: made.append(operation(*arguments))

    call = _update(member, Arrays(length, sizes, 0), sizes)
    core: Any = _core
    with ExitStack() as stack:
        for name in ("features_add", "features_mix", "features_causal"):  # which say how many they make
            stack.enter_context(mock.patch.object(core, name, counting(getattr(core, name))))
        call()
    return sum(made)


@contextmanager
def fresh_processes(torch: bool) -> Iterator[Callable[..., dict[str, float]]]:
    """Yield `measure`, run for each call in a new process, forked from one that has only imported what is needed."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *["torch"] * torch])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        yield lambda *arguments, **options: pool.submit(measure, *arguments, **options).result()
