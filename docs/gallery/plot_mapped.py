"""
A memory in a file
==================

A memory that is saved may be mapped instead of read: its rows stay in the file, where a query reads only those that
the index cannot exclude. So it may be larger than the machine's memory.
"""

import pathlib
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np

import sparsehopfield as sh

# %%
# A hundred thousand rows of 64 numbers around a thousand centres.
rng = np.random.default_rng(0)
centres = rng.standard_normal((1000, 64), dtype=np.float32)
rows = centres[rng.integers(1000, size=100_000)] + 0.2 * rng.standard_normal((100_000, 64), dtype=np.float32)
queries = rows[:200] + 0.1 * rng.standard_normal((200, 64), dtype=np.float32)
memory = sh.HopfieldMemory(rows, beta=4.0, similarity="euclidean")
memory.build_index()
direct = memory.retrieve(queries)


def timed(call, *arguments, **options):
    began = time.perf_counter()
    result = call(*arguments, **options)
    return result, 1000 * (time.perf_counter() - began)


# %%
# What does it take to open the file, and to answer then?
took = {}
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "rows.safetensors"
    memory.save(path)
    print(f"{path.stat().st_size / 1e6:.0f} MB, the index among them")
    for name, mmap in (("read", False), ("mapped", True)):
        opened, load = timed(sh.HopfieldMemory.load, path, mmap=mmap)
        states, answer = timed(opened.retrieve, queries)
        assert (states == direct).all()  # the same bits
        took[name] = (load, answer)
        del opened  # before the file goes

# %%
# Times of this run, which the machine and what else it does decide.
figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
for part, (label, colour) in enumerate((("open", "#999999"), ("200 queries", "#0072B2"))):
    left = [sum(times[:part]) for times in took.values()]
    ax.barh(list(took), [times[part] for times in took.values()], left=left, color=colour, label=label)
ax.set(xlabel="milliseconds")
ax.legend(frameon=False)
plt.show()
