"""Orders of calls: whatever is done before, meanwhile or after, answers are those of a fresh object.

A case is one of these, at random:

- a machine of Hypothesis that adds to a memory, removes, asks, saves, copies, forks, in any order; a fresh memory of
  the same patterns must answer the same bits;
- one that runs layers forward and backward, saves and copies them; gradients must be those of a fresh layer;
- threads that ask, save and fork while another adds and removes: each sees what was there at one moment;
- interrupts in the middle of everything: a memory is as it was before the call, or as after it;
- saves that are killed at a random moment: the file is the old one or the new one.
"""

import contextlib
import copy
import dataclasses
import hashlib
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import scipy.sparse
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import sparsehopfield as sh
from sparsehopfield import layers, optim
from sparsehopfield.structures import BlockSparse, RandomFeatures, RandomMask, TopK, Window

from .engine import Flaw

EXAMPLES, STEPS = 8, 15  # of a machine, in one case
SHRINK = "FUZZ_ONLY" in os.environ  # takes minutes: only where one case is run alone
FORK = 60  # seconds for a forked child, which needs a millisecond


def digest(result: Any) -> str:
    """The bits of whatever a call returns."""
    h = hashlib.sha256()

    def add(value: Any) -> None:
        if scipy.sparse.issparse(value):
            value = [value.shape, value.indptr.astype(np.int64), value.indices.astype(np.int64), value.data]
        if isinstance(value, (tuple, list)):
            for one in value:
                add(one)
        elif isinstance(value, (np.ndarray, np.generic)):
            h.update(f"{value.dtype} {np.shape(value)}".encode() + value.tobytes())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            for f in dataclasses.fields(value):
                add(getattr(value, f.name))
        else:
            h.update(repr(value).encode())

    add(result)
    return h.hexdigest()


def outcome(call: Callable[[], Any]) -> tuple[str, ...]:
    """What a call returned, or how it refused."""
    try:
        return "returned", digest(call())
    except (ValueError, TypeError, OverflowError) as error:
        return "refused", type(error).__name__, str(error)


def in_a_child(call: Callable[[], Any]) -> str:
    """What a forked child makes of a call."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(0)
        try:
            os.write(writer, digest(call()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    end = time.monotonic() + FORK
    os.set_blocking(reader, False)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            raise Flaw("a forked child hangs")
        time.sleep(0.001)
    said = b""
    with contextlib.suppress(BlockingIOError):
        said = os.read(reader, 1000)
    os.close(reader)
    return said.decode()


# --- a memory ---------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 999)
D, V = 3, 2
SEPARATIONS = ("sparsemax", "softmax", "entmax15", sh.Entmax(1.25), sh.Polynomial(3))


def _rows(number: int, n: int, width: int, dtype: Any) -> Any:
    rng = np.random.default_rng(number)
    if np.dtype(dtype) == np.uint8:
        return rng.integers(0, 9, (n, width)).astype(np.uint8)
    kind = number % 4
    rows = rng.normal(size=(n, width))
    if kind == 1:
        rows = np.round(rows)  # ties and copies
    elif kind == 2:
        rows *= 10.0 ** rng.integers(-3, 4, size=(n, 1))
    return rows.astype(dtype)


class Memories(RuleBasedStateMachine):
    """A memory, and what a fresh one of the same patterns says."""

    folder = Path()

    @initialize(
        number=SEEDS,
        n=st.integers(1, 6),
        dtype=st.sampled_from((np.float32, np.float64, np.float16, np.uint8)),
        similarity=st.sampled_from(("dot", "euclidean", "cosine")),
        separation=st.sampled_from(SEPARATIONS),
        has_values=st.booleans(),
        has_ids=st.booleans(),
        copied=st.sampled_from((True, None)),
    )
    def begin(
        self,
        number: int,
        n: int,
        dtype: Any,
        similarity: str,
        separation: Any,
        has_values: bool,
        has_ids: bool,
        copied: Any,
    ) -> None:
        rows = _rows(number, n, D, dtype)
        if similarity == "cosine":
            rows = np.where((rows == 0).all(axis=1, keepdims=True), np.ones_like(rows), rows)
        self.similarity, self.separation, self.beta, self.structure = similarity, separation, 2.0, None
        self.rows, self.scale = rows, 0.5 if dtype in (np.uint8, np.float16) else None
        self.values = _rows(number + 1, n, V, np.float32) if has_values else None
        self.ids = list(range(7, 7 + 3 * n, 3)) if has_ids else list(range(n))
        self.named, self.moved = has_ids, False
        self.memory = self.fresh(copied)
        self.lent = [self.rows.copy(), self.rows]

    def fresh(self, copied: Any = True) -> sh.HopfieldMemory:
        return sh.HopfieldMemory(
            self.rows,
            self.beta,
            values=self.values,
            similarity=self.similarity,
            separation=self.separation,
            structure=self.structure,
            ids=self.ids if self.named else None,
            copy=copied,
            scale=self.scale,
        )

    def compare(self, what: str, call: Callable[[sh.HopfieldMemory], Any]) -> None:
        """Ask both."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = outcome(lambda: call(self.memory))
            if self.moved:
                if said[0] != "refused" or not said[2].startswith("structure:"):
                    raise Flaw(f"memory.{what}: answers under a structure whose places were moved: {said}")
                return
            wanted = outcome(lambda: call(self.fresh()))
        if said != wanted:
            raise Flaw(f"memory.{what}: {said}, and a fresh one {wanted}")

    def queries(self, number: int, n: int) -> Any:
        return _rows(number, n, D, np.float32 if self.rows.dtype.itemsize < 8 else np.float64)

    # what changes it

    @rule(number=SEEDS, n=st.integers(1, 5), named=st.booleans())
    def add(self, number: int, n: int, named: bool) -> None:
        if named:
            self.named = True
        rows, values = _rows(number, n, D, self.rows.dtype), _rows(number + 1, n, V, np.float32)
        if self.similarity == "cosine":
            rows = np.where((rows == 0).all(axis=1, keepdims=True), np.ones_like(rows), rows)
        ids = [max(self.ids) + 2 * i + 2 for i in range(n)] if named else None
        got = self.memory.add(rows, None if self.values is None else values, ids)
        wanted = ids or list(range(max(self.ids) + 1, max(self.ids) + 1 + n))
        if got.tolist() != wanted:
            raise Flaw(f"memory.add: ids {got.tolist()} instead of {wanted}")
        self.rows = np.concatenate([self.rows, rows])
        self.values = None if self.values is None else np.concatenate([self.values, values])
        self.ids = self.ids + wanted

    @rule(kind=st.integers(0, 4))
    def add_what_is_refused(self, kind: int) -> None:
        before = len(self.memory)
        rows: Any = np.ones((2, D), self.rows.dtype)
        values: Any = None if self.values is None else np.ones((2, V), np.float32)
        ids = None
        if kind == 0:
            rows = np.full((2, D), np.nan)
        elif kind == 1:
            rows = np.ones((2, D + 1), self.rows.dtype)
        elif kind == 2:
            ids = [max(self.ids) + 1, self.ids[0]]
        elif kind == 3:
            ids = [max(self.ids) + 1] * 2
        else:
            values = np.ones((1, V), np.float32) if self.values is None else None
        try:
            self.memory.add(rows, values, ids)
        except (ValueError, TypeError):
            if len(self.memory) != before:
                raise Flaw("memory.add: has added what it refused") from None
            return
        raise Flaw(f"memory.add: took what it must refuse ({kind})")

    @rule(number=SEEDS, kind=st.integers(0, 3))
    def remove(self, number: int, kind: int) -> None:
        m = len(self.rows)
        random = Random(number)
        mask = np.array([random.random() < 0.3 for _ in range(m)])
        positions: Any = mask
        if kind == 0:
            positions = random.randrange(-m, m)
            mask = np.zeros(m, bool)
            mask[positions] = True
        elif kind == 1:
            positions = np.flatnonzero(mask).tolist() * 2
        elif kind == 2:
            positions = slice(random.randrange(m), None)
            mask = np.zeros(m, bool)
            mask[positions] = True
        if mask.all():
            with contextlib.suppress(ValueError):
                self.memory.remove(positions)
                raise Flaw("memory.remove: has removed all patterns")
            return
        self.memory.remove(positions)
        kept = ~mask
        if mask.any():
            moves = not kept[: int(kept.sum())].all()
            self.moved |= bool(moves and self.structure is not None and self.structure.by_place)
            self.named = True  # ids stay with their patterns
        self.rows, self.ids = self.rows[kept], [i for i, k in zip(self.ids, kept, strict=True) if k]
        self.values = None if self.values is None else self.values[kept]

    @rule(beta=st.sampled_from((0.1, 1.0, 30.0, 1e-6, 1e6)))
    def set_beta(self, beta: float) -> None:
        self.memory.beta = self.beta = beta

    @rule(separation=st.sampled_from(SEPARATIONS))
    def set_separation(self, separation: Any) -> None:
        self.memory.separation = self.separation = separation

    @rule(
        structure=st.sampled_from(
            (
                None,
                TopK(1),
                TopK(3),
                RandomMask(2, 5),
                Window(1),
                Window(2, causal=True, positions=[0, 1]),
                BlockSparse([[True, False], [True, True]], 2),
            )
        )
    )
    def set_structure(self, structure: Any) -> None:
        self.memory.structure = self.structure = structure
        self.moved = False

    @rule(number=st.integers(-9, 9))
    def set_what_is_refused(self, number: int) -> None:
        for name, value in (("beta", -1.0), ("beta", np.nan), ("separation", "x"), ("structure", 3)):
            try:
                setattr(self.memory, name, value)
            except (ValueError, TypeError):
                continue
            raise Flaw(f"memory.{name}: took {value!r}")

    @rule()
    def build_index(self) -> None:
        self.memory.build_index()

    # what changes nothing

    @rule(mmap=st.booleans(), verify=st.booleans())
    def save_and_load(self, mmap: bool, verify: bool) -> None:
        path = self.folder / "memory"
        try:
            self.memory.save(path)
        except ValueError as error:
            if not (self.moved and str(error).startswith("structure:")):
                raise
            return
        self.memory = sh.HopfieldMemory.load(path, mmap=mmap, verify=verify)

    @rule(how=st.sampled_from((copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)))))
    def copy(self, how: Any) -> None:
        try:
            self.memory = how(self.memory)
        except ValueError as error:
            if not (self.moved and str(error).startswith("structure:")):
                raise

    @rule(n=st.integers(1, 3), way=st.sampled_from(("auto", "scan", "lines", "columns")))
    def set_threads_and_way(self, n: int, way: str) -> None:
        sh.set_num_threads(n)
        sh._core._path(way)

    @rule(number=SEEDS, n=st.integers(0, 4))
    def update(self, number: int, n: int) -> None:
        self.compare("update", lambda memory: memory.update(self.queries(number, n)))

    @rule(number=SEEDS, n=st.integers(1, 3))
    def retrieve(self, number: int, n: int) -> None:
        self.compare("retrieve", lambda memory: memory.retrieve(self.queries(number, n), max_steps=7, return_info=True))

    @rule(number=SEEDS, top=st.sampled_from((None, 1, 3)))
    def associate(self, number: int, top: Any) -> None:
        self.compare("associate", lambda memory: memory.associate(self.queries(number, 2), top=top))

    @rule(number=SEEDS)
    def energy(self, number: int) -> None:
        self.compare("energy", lambda memory: memory.energy(self.queries(number, 2)))

    @rule(number=SEEDS)
    def certify(self, number: int) -> None:
        self.compare("certify", lambda memory: memory.certify(self.queries(number, 2)))

    @rule(number=SEEDS)
    def explain(self, number: int) -> None:
        def told(memory: sh.HopfieldMemory) -> Any:  # all but what the stages left, which goes by the index
            why = memory.explain(self.queries(number, 1)[0], top=2)
            return why.positions, why.ids, why.scores, why.weights, why.threshold, why.miss, why.energy, why.state

        self.compare("explain", told)

    @rule(name=st.sampled_from(("critical_beta", "is_certified", "is_fixed_point", "stored_fraction", "exact_radius")))
    def certificates(self, name: str) -> None:
        self.compare(name, lambda memory: getattr(memory, name)())

    @precondition(lambda self: not self.moved)
    @rule(within=st.sampled_from((0.0, 0.5)))
    def margins(self, within: float) -> None:
        self.compare("margin", lambda memory: memory.margin())
        self.compare("duplicates", lambda memory: memory.duplicates(within).pairs)

    @precondition(lambda self: not self.moved)
    @rule(number=SEEDS)
    def ask_in_a_child(self, number: int) -> None:
        queries = self.queries(number, 2)
        here = outcome(lambda: self.memory.update(queries))
        if here[0] == "returned" and in_a_child(lambda: self.memory.update(queries)) != here[1]:
            raise Flaw("memory.update: a forked child gets another answer")

    @invariant()
    def holds_what_was_given(self) -> None:
        if not hasattr(self, "memory"):
            return
        same = self.memory.patterns.tobytes() == self.rows.tobytes() and self.memory.ids.tolist() == self.ids
        if not same or (self.values is not None and not np.array_equal(self.memory.values, self.values)):
            raise Flaw("memory: its patterns, ids or values are not those that it was given")
        if self.lent[0].tobytes() != self.lent[1].tobytes():
            raise Flaw("memory: has written into the caller's array")

    def teardown(self) -> None:
        sh.set_num_threads(1)
        sh._core._path("auto")


# --- layers -----------------------------------------------------------------------------------------------

E = 4
KINDS: dict[str, Callable[[], Any]] = {
    "Linear": lambda: layers.Linear(E, 3, random_state=0),
    "LayerNorm": lambda: layers.LayerNorm(E),
    "GELU": layers.GELU,
    "ReLU": layers.ReLU,
    "Flatten": layers.Flatten,
    "Dropout": lambda: layers.Dropout(0.5, random_state=0),
    "Hopfield": lambda: layers.Hopfield(E, hidden_size=2, num_heads=2, random_state=0),
    "sparse": lambda: layers.SparseHopfield(E, hidden_size=2, update_steps_max=2, dtype="float64", random_state=0),
    "entmax": lambda: layers.Hopfield(
        E, separation="entmax15", structure=TopK(2), concat_bias_pattern=True, random_state=0
    ),
    "rest": lambda: layers.SparseHopfield(
        E, update_steps_max=None, gradient="implicit", learnable_scaling=True, random_state=0
    ),
    "features": lambda: layers.Hopfield(E, structure=RandomFeatures(6, seed=1), random_state=0),
    "pooling": lambda: layers.SparseHopfieldPooling(E, hidden_size=2, quantity=2, random_state=0),
    "lookup": lambda: layers.HopfieldLayer(E, quantity=3, random_state=0),
    "Sequential": lambda: layers.Sequential(
        layers.Linear(E, E, random_state=0),
        layers.GELU(),
        layers.SparseHopfieldPooling(E, hidden_size=2, random_state=0),
        layers.LayerNorm(E),
        layers.Linear(E, 1, random_state=0),
    ),
}
HOPFIELD = ("Hopfield", "sparse", "entmax", "rest", "pooling", "lookup")


class Layers(RuleBasedStateMachine):
    """A layer, and of each forward pass that waits for its backward pass what is needed to make it again."""

    folder = Path()

    @initialize(kind=st.sampled_from(sorted(KINDS)))
    def begin(self, kind: str) -> None:
        self.kind, self.layer = kind, KINDS[kind]()
        self.waiting: list[tuple[Any, ...]] = []
        self.settings: dict[str, Any] = {}

    def twin(self, state: Any, options: dict[str, Any]) -> Any:
        twin = KINDS[self.kind]()
        twin.load_state_dict(state)
        for name, value in options.items():
            setattr(twin, name, value)
        return twin

    def run_forward(self, layer: Any, x: Any, masks: dict[str, Any]) -> Any:
        return layer.forward(x, **masks)

    @rule(number=SEEDS, n=st.integers(1, 3), m=st.integers(1, 4), ragged=st.booleans(), masked=st.booleans())
    def forward(self, number: int, n: int, m: int, ragged: bool, masked: bool) -> None:
        rng = np.random.default_rng(number)
        x = rng.normal(size=(n, m, E)).astype(np.float32)
        masks: dict[str, Any] = {}
        if self.kind in HOPFIELD and ragged:
            x, masks = x.reshape(n * m, E), {"offsets": np.arange(n + 1) * m}
        elif self.kind in HOPFIELD and masked and m > 1:
            padding = rng.random((n, m)) < 0.3
            padding[:, 0] = False
            masks = {"stored_pattern_padding_mask": padding}
        state = self.layer.state_dict()
        twin = self.twin(state, self.settings)
        here = outcome(lambda: self.run_forward(self.layer, x, masks))
        there = outcome(lambda: self.run_forward(twin, x.copy(), copy.deepcopy(masks)))
        if here != there:
            raise Flaw(f"{self.kind}.forward: {here}, and a fresh layer {there}")
        if here[0] == "returned":
            self.waiting.append((x, copy.deepcopy(masks), state, dict(self.settings)))
            for mask in masks.values():  # the caller's to do with as he likes
                self.spoil(mask)

    @staticmethod
    def spoil(mask: Any) -> None:
        if mask.dtype == bool:
            mask[:] = ~mask
        elif len(mask) > 2:
            mask[1:-1] = mask[-1]
        else:
            mask[:] = 10**6

    @precondition(lambda self: self.waiting)
    @rule(number=SEEDS, need=st.booleans())
    def backward(self, number: int, need: bool) -> None:
        x, masks, state, options = self.waiting.pop()
        twin = self.twin(state, options)
        out = self.run_forward(twin, x.copy(), masks)
        grad = np.random.default_rng(number).normal(size=out.shape).astype(out.dtype)

        def gradients(layer: Any) -> Any:
            layer.zero_grad()
            result = layer.backward(grad.copy(), need)
            return [result, sorted((name, digest(p.grad)) for name, p in layer.parameters().items())]

        wanted = outcome(lambda: gradients(twin))
        try:
            got = outcome(lambda: gradients(self.layer))
        except RuntimeError:  # an error, and no wrong gradient: what was waiting is gone
            self.waiting.clear()
            return
        if got != wanted:
            raise Flaw(f"{self.kind}.backward: another gradient than that of a fresh layer")

    @precondition(lambda self: not self.waiting)
    @rule()
    def backward_without_forward(self) -> None:
        """An error, or the gradient of the last forward pass once more; of which of them is looked at elsewhere."""
        with contextlib.suppress(RuntimeError, ValueError):
            self.layer.backward(np.ones((1, 1)))

    @rule(kind=st.integers(0, 3))
    def what_is_refused(self, kind: int) -> None:
        """A failed forward pass leaves those that wait alone, or they are gone."""
        bad: Any = (np.full((2, 2, E), "x"), np.ones((2, 2, E + 1), np.float32), None, np.ones(()))[kind]
        if kind == 1 and self.kind in ("GELU", "ReLU", "Flatten", "Dropout"):
            return
        try:
            self.layer.forward(bad)
        except (ValueError, TypeError):
            return
        if self.kind in ("GELU", "ReLU", "Dropout"):
            self.waiting.clear()  # they take numbers of any shape
            return
        raise Flaw(f"{self.kind}.forward: took {bad!r:.60}")

    @precondition(lambda self: self.layer.parameters())
    @rule()
    def step(self) -> None:
        """After a step what waits would have the gradients of other parameters."""
        self.waiting.clear()
        optim.AdamW(self.layer, learning_rate=1e-2).step()

    @precondition(lambda self: self.kind in HOPFIELD)
    @rule(separation=st.sampled_from(("sparsemax", "softmax", "entmax15")))
    def set_separation(self, separation: str) -> None:
        self.layer.separation = self.settings["separation"] = separation

    @precondition(lambda self: self.kind in HOPFIELD)
    @rule(structure=st.sampled_from((None, TopK(1), TopK(3))))
    def set_structure(self, structure: Any) -> None:
        self.layer.structure = self.settings["structure"] = structure

    @precondition(lambda self: self.kind in HOPFIELD and self.kind != "rest")
    @rule(scaling=st.sampled_from((0.3, 2.0)))
    def set_scaling(self, scaling: float) -> None:
        self.layer.scaling = self.settings["scaling"] = scaling

    @precondition(lambda self: self.layer.parameters() and not self.settings)
    @rule()
    def save_and_load(self) -> None:
        path = self.folder / "layer"
        self.layer.save(path)
        self.layer = layers.load(path)
        self.waiting.clear()

    @rule(how=st.sampled_from((copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)))))
    def copy(self, how: Any) -> None:
        self.layer = how(self.layer)
        self.waiting.clear()


def _machine(kind: type[RuleBasedStateMachine], random: Random, folder: Path) -> None:
    machine = type(kind.__name__, (kind,), {"folder": folder})
    seed(random.getrandbits(64))(machine)
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                database=None,
                deadline=None,
                print_blob=False,
                phases=[Phase.generate, Phase.shrink] if SHRINK else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        inner = error
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        notes = " | ".join(line.strip() for note in getattr(inner, "__notes__", []) for line in note.splitlines())
        raise Flaw(f"{inner if isinstance(inner, Flaw) else repr(inner)[:300]} <- {notes[:1500]}") from None


# --- threads ----------------------------------------------------------------------------------------------


def _threads(random: Random, folder: Path) -> None:
    """One thread adds and removes at the end, others ask, look, save and fork; each must see one moment."""
    rng = np.random.default_rng(random.getrandbits(32))
    most, d = 60, 5
    rows = rng.normal(size=(most, d)).astype(np.float32)
    queries = rng.normal(size=(4, d)).astype(np.float32)
    options: dict[str, Any] = {"similarity": random.choice(("dot", "euclidean", "cosine")), "separation": "sparsemax"}
    wanted = [digest(sh.HopfieldMemory(rows[:n], 2.0, **options).update(queries)) for n in range(1, most + 1)]
    memory = sh.HopfieldMemory(rows[:1], 2.0, **options)
    wrong: list[str] = []
    stop = threading.Event()

    def looking(what: str, look: Callable[[], str]) -> Callable[[], None]:
        def loop() -> None:
            while not stop.is_set():
                try:
                    if look() not in wanted:
                        wrong.append(f"{what} is of no moment")
                        return
                except Exception as error:
                    wrong.append(f"{what} raises {error!r:.200}")
                    return

        return loop

    def saved(name: str) -> str:
        memory.save(folder / name)
        return digest(sh.HopfieldMemory.load(folder / name, verify=True).update(queries))

    def certificates() -> str:
        memory.margin(), memory.critical_beta(), memory.duplicates(0.1), memory.build_index()
        return wanted[0]

    loops = [looking("an update", lambda: digest(memory.update(queries))) for _ in range(2)]
    loops.append(looking("a file", lambda: saved(random.choice(("a", "b")))))
    loops.append(looking("a certificate", certificates))
    if random.random() < 0.5:
        loops.append(looking("a child's update", lambda: in_a_child(lambda: memory.update(queries))))
    sh.set_num_threads(random.choice((1, 2, 3)))
    threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    moments = 0
    while moments < 40 and not wrong:
        n = len(memory)
        if n < most and random.random() < 0.7:
            memory.add(rows[n : n + random.randrange(1, 8)])
        elif n > 1:
            memory.remove(slice(random.randrange(1, n), None))
        moments += 1
    stop.set()
    for thread in threads:
        thread.join(60)
        if thread.is_alive():
            wrong.append("a thread does not end")
    sh.set_num_threads(1)
    if wrong:
        raise Flaw(f"threads: {wrong[0]}")


# --- interrupts -------------------------------------------------------------------------------------------


def _interrupts(random: Random, folder: Path) -> None:
    """Ctrl-C at a random moment: nothing is half done, and no lock stays held."""
    rng = np.random.default_rng(random.getrandbits(32))
    rows = rng.normal(size=(400, 16)).astype(np.float32)
    queries = rng.normal(size=(50, 16)).astype(np.float32)
    memory = sh.HopfieldMemory(rows[:300], 3.0, similarity="euclidean", copy=True)
    layer = layers.Linear(16, 4, random_state=0)
    path = folder / "memory"
    memory.save(path)

    def train() -> None:
        layer.backward(np.ones_like(layer.forward(queries)))
        layer.zero_grad()

    allowed = [memory.patterns.tobytes()]  # before the last change, and after it

    def add() -> None:
        more, now = rows[300 : 300 + random.randrange(1, 100)], memory.patterns.copy()
        allowed[:] = now.tobytes(), np.concatenate([now, more]).tobytes()
        memory.add(more)

    def remove() -> None:
        now = memory.patterns.copy()
        if len(now) > 100:
            allowed[:] = now.tobytes(), now[:-5].tobytes()
            memory.remove(slice(len(now) - 5, None))

    calls: list[Callable[[], Any]] = [
        add,
        remove,
        lambda: memory.save(path),
        lambda: memory.update(queries),
        lambda: memory.retrieve(queries, max_steps=5),
        lambda: memory.margin(),
        lambda: sh.HopfieldMemory.load(path, verify=True),
        lambda: memory.build_index(),
        lambda: copy.deepcopy(memory),
        lambda: sh.entmax(rows, 1.3),
        train,
    ]
    pid, fired = os.getpid(), 0
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(25):
            timer = threading.Timer(random.random() * 0.002, os.kill, (pid, signal.SIGINT))
            try:
                timer.start()
                for _ in range(6):
                    random.choice(calls)()
                timer.join()
                time.sleep(0.001)
            except KeyboardInterrupt:
                fired += 1
            finally:
                while True:
                    try:
                        timer.join()
                        break
                    except KeyboardInterrupt:
                        fired += 1
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(0.001)
            now = memory.patterns
            if now.tobytes() not in allowed or len(memory.ids) != len(now):
                raise Flaw("interrupts: patterns are neither those of before nor those of after")
            fresh = sh.HopfieldMemory(now.copy(), 3.0, similarity="euclidean")
            if digest(fresh.update(queries)) != digest(memory.update(queries)):
                raise Flaw("interrupts: another answer than a fresh memory")
            sh.HopfieldMemory.load(path, verify=True)
            memory.remove(len(memory) - 1)  # a lock that stayed held would hang here
            allowed[:] = [memory.patterns.tobytes()]
        if left := [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]:
            raise Flaw(f"interrupts: leave {left}")
    finally:
        signal.signal(signal.SIGINT, old)
    if fired == 0:
        raise Flaw("interrupts: none came through")


def _reentry(random: Random, folder: Path) -> None:
    """What a signal handler does to the memory that is being changed: an error or a result, and no wait for itself."""
    rng = np.random.default_rng(random.getrandbits(32))
    rows = rng.normal(size=(200, 8)).astype(np.float32)
    memory = sh.HopfieldMemory(rows[:50], 2.0, copy=True)
    path, odd = folder / "memory", []
    inside: list[Callable[[], Any]] = [
        lambda: memory.add(rows[:2]),
        lambda: memory.remove(len(memory) - 1),
        lambda: memory.save(path),
        lambda: memory.update(rows[:3]),
        lambda: memory.margin(),
        lambda: in_a_child(lambda: memory.update(rows[:3])),
    ]

    def handler(number: int, frame: Any) -> None:
        try:
            random.choice(inside)()
        except RuntimeError:
            pass  # says that it is in use
        except Exception as error:
            odd.append(repr(error)[:200])

    old = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(30):
            signal.setitimer(signal.ITIMER_REAL, 1e-5 + random.random() * 3e-4)
            for _ in range(3):
                memory.add(rows[: random.randrange(1, 30)])
                memory.margin()
                if len(memory) > 150:
                    memory.remove(slice(60, None))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    if odd:
        raise Flaw(f"reentry: {odd[0]}")
    fresh = sh.HopfieldMemory(memory.patterns.copy(), 2.0)
    if digest(fresh.update(rows[:5])) != digest(memory.update(rows[:5])):
        raise Flaw("reentry: another answer than a fresh memory")


def _kills(random: Random, folder: Path) -> None:
    """A child that saves is killed: the file is one of those that it wrote, whole."""
    rows = np.random.default_rng(random.getrandbits(32)).normal(size=(2000, 32)).astype(np.float32)
    memories = [sh.HopfieldMemory(rows[:n], float(n), copy=True) for n in (1, 700, 2000)]
    layer = layers.Linear(300, 50, random_state=0)
    path, other = folder / "memory", folder / "layer"
    memories[0].save(path)
    layer.save(other)
    for _ in range(6):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    for memory in memories:
                        memory.save(path)
                    layer.save(other)
            finally:
                os._exit(0)
        time.sleep(random.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = sh.HopfieldMemory.load(path, verify=True)
        if found.patterns.tobytes() != rows[: int(found.beta)].tobytes():
            raise Flaw("kills: a file that nobody wrote")
        layers.load(other)


WAYS: dict[str, Callable[[Random, Path], None]] = {
    "a memory": lambda random, folder: _machine(Memories, random, folder),
    "layers": lambda random, folder: _machine(Layers, random, folder),
    "threads": _threads,
    "interrupts": _interrupts,
    "reentry": _reentry,
    "kills": _kills,
}


def case(random: Random, folder: Path) -> str:
    """One of the ways above."""
    way = random.choice((*WAYS, *["a memory"] * 6, *["layers"] * 6))
    folder = folder.resolve()
    sh.set_num_threads(1)
    WAYS[way](random, folder)
    return way
