"""Leave-one-out of MNIST against one matrix product of all its images, and against scikit-learn's nearest neighbours.

    python benchmarks/leave_one_out.py --data folder --output leave_one_out.json

Each of the 60,000 training images is a query that excludes itself; what is mixed are the votes of the ten classes. Grey
levels go from 0 to 1, and scores are by distance. "One sgemm" is np.matmul(X[i : i + 2000], X.T, out=o) in float32 for
all i, by NumPy's OpenBLAS, in the same run. An ordinary step is the same update where no query excludes a pattern.
scikit-learn predicts by KNeighborsRegressor, brute force: the 6 nearest of a part of the images, less the image itself;
its time is scaled to all of them. The index is built by the first round, which does not count.
"""

from functools import partial

import harness
import numpy as np

K = 5  # neighbours of scikit-learn's


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0], harness.data_option)
    import sparsehopfield as sh

    table = harness.Table(harness.set_up(arguments))
    patterns, targets, name = images(arguments)
    m = len(patterns)
    size = f"{name} {m:,} x {patterns.shape[1]}"
    table.config["data"] = size
    memory = sh.HopfieldMemory(patterns, 1.0, values=targets, similarity="euclidean")

    def left_out(separation, beta):
        memory.separation, memory.beta = separation, beta
        return memory.leave_one_out()

    def ordinary():
        memory.separation, memory.beta = "sparsemax", 1.0
        return memory.update(patterns)

    settings = [("sparsemax", 1.0), ("entmax15", 1.0), ("sparsemax", 0.1)]
    contenders = {s: partial(left_out, *s) for s in settings}
    contenders |= {"ordinary": ordinary, "sgemm": harness.one_sgemm(patterns, patterns)}
    contenders["sklearn"] = neighbours(patterns, targets, min(m, 500 if arguments.quick else 5000))
    times = harness.interleaved(contenders, arguments.rounds)
    left_out("sparsemax", 1.0)
    check(sh, memory, patterns, targets)
    for s in settings:
        work = f"leave-one-out, {size}, {s[0]}, beta {s[1]:g}"
        table.add(work, times[s], "one sgemm", times["sgemm"], at_most=0.15 if s == settings[0] else None)
    work, ours = f"leave-one-out, {size}, {settings[0][0]}", times[settings[0]]
    table.add(work, ours, "an ordinary step of the same queries", times["ordinary"])
    note = "peer: a part of the queries, scaled"
    table.add(work, ours, "sklearn KNeighborsRegressor, brute force", times.get("sklearn"), note=note)
    table.finish(arguments.output)


def images(arguments):
    """Give the images to be left out, (m, 784), the votes of their classes, (m, 10), and a word on what they are."""
    patterns, _, name = harness.mnist(arguments)
    labels = np.random.default_rng(0).integers(10, size=len(patterns))
    if name == "MNIST":
        from sparsehopfield.data import datasets

        labels = datasets.load_labels("mnist", harness.data_folder(arguments), "train")[: len(patterns)]
    return patterns, np.eye(10, dtype=np.float32)[labels], name


def neighbours(patterns, targets, part):
    """Give scikit-learn's leave-one-out of some of the patterns; None where it is not there."""
    sklearn = harness.peer("sklearn.neighbors")
    if not sklearn:
        return None
    model = sklearn.KNeighborsRegressor(K, algorithm="brute").fit(patterns, targets)

    def run():
        near = model.kneighbors(patterns[:part], K + 1, return_distance=False)
        others = near != np.arange(part)[:, None]
        others[others.all(axis=1), K] = False  # a copy came first
        return targets[near[others].reshape(part, K)].mean(axis=1)

    return harness.Contender(run, factor=len(patterns) / part)


def check(sh, memory, patterns, targets):
    """Check some rows against memories made without them: the same bits."""
    some = np.arange(0, len(patterns), max(1, len(patterns) // 5))
    found = memory.leave_one_out(some)
    for i, row in zip(some, found, strict=True):
        left = np.arange(len(patterns)) != i
        one = sh.HopfieldMemory(patterns[left], 1.0, values=targets[left], similarity="euclidean", index=False)
        assert np.array_equal(one.update(patterns[i]), row), f"another result without image {i}"


if __name__ == "__main__":
    main()
