"""The estimators on MNIST: rows left out against one matrix product, scikit-learn's neighbours, rows one by one.

    python benchmarks/estimators.py --data folder --output estimators.json

"One sgemm" is np.matmul(X[i : i + 2000], X.T, out=o) in float32 for all i, by NumPy's OpenBLAS, in the same run.
Targets of the regressor are the digits as numbers, in float32 and, as they often come, in float64, beside which rows
are computed with in float64, too. scikit-learn's neighbours are of brute force, 5 of each query, on a part of the
queries; their time is scaled. Rows that come one by one are early ones and the last ones, so that the cost of a row
can be seen not to grow. Beta 1 is for grey levels from 0 to 1 under euclidean similarity, sparsemax. Memories are
indexed by the first call, in the round that does not count; "from nothing" fits anew in every round.
"""

import harness
import numpy as np

K = 5  # neighbours of scikit-learn's


def main():
    """Measure and print."""
    arguments = harness.start(__doc__.splitlines()[0], harness.data_option)
    from sparsehopfield import estimators

    table = harness.Table(harness.set_up(arguments))
    data = images(arguments)
    table.config["data"] = f"{data[-1]} {len(data[0]):,} x {data[0].shape[1]}"
    leave_one_out(arguments, table, estimators, *data[:2], table.config["data"])
    predict(arguments, table, estimators, *data[:3], table.config["data"])
    weighted(arguments, table, estimators, *data[:3], table.config["data"])
    row_by_row(arguments, table, estimators, *data[:2])
    table.finish(arguments.output)


def images(arguments):
    """Give images (m, 784), their digits (m,), queries (n, 784), and a word on what they are."""
    patterns, queries, name = harness.mnist(arguments)
    digits = np.random.default_rng(0).integers(10, size=len(patterns))
    if name == "MNIST":
        from sparsehopfield.data import datasets

        digits = datasets.load_labels("mnist", harness.data_folder(arguments), "train")[: len(patterns)]
    return patterns, digits, queries, name


def leave_one_out(arguments, table, estimators, X, digits, size):
    """Predict every image by all others."""
    regressor = estimators.HopfieldRegressor().fit(X, digits.astype(np.float32))
    double = estimators.HopfieldRegressor().fit(X, digits.astype(np.float64))
    classifier = estimators.HopfieldClassifier().fit(X, digits)
    detector = estimators.HopfieldOutlierDetector()

    def from_nothing():
        estimators.HopfieldRegressor().fit(X, digits.astype(np.float32)).predict_leave_one_out()

    contenders = {
        "regressor": regressor.predict_leave_one_out,
        "float64": double.predict_leave_one_out,
        "from nothing": from_nothing,
        "classifier": classifier.predict_leave_one_out,
        "detector": lambda: detector.fit_predict(X),
        "sgemm": harness.one_sgemm(X, X),
    }
    times = harness.interleaved(contenders, arguments.rounds)
    sgemm = times["sgemm"]
    work = f"leave-one-out, {size}"
    table.add(f"HopfieldRegressor {work}", times["regressor"], "one sgemm", sgemm, at_most=0.15)
    table.add("the same from nothing, fit included", times["from nothing"], "one sgemm", sgemm)
    table.add("the same, targets of float64", times["float64"], "one sgemm", sgemm)
    table.add(f"HopfieldClassifier {work}", times["classifier"], "one sgemm", sgemm)
    table.add("HopfieldOutlierDetector.fit_predict", times["detector"], "one sgemm", sgemm)
    check(estimators, regressor, X, digits.astype(np.float32))


def check(estimators, regressor, X, y):
    """Check some rows against estimators that are fitted without them: the same bits."""
    found = regressor.predict_leave_one_out()
    for i in range(0, len(X), max(1, len(X) // 3)):
        left = np.arange(len(X)) != i
        refit = estimators.HopfieldRegressor().fit(X[left], y[left])
        assert np.array_equal(refit.predict(X[i : i + 1]), found[i : i + 1]), f"another result without image {i}"


def predict(arguments, table, estimators, X, digits, queries, size):
    """Predict queries, beside scikit-learn's neighbours."""
    neighbors = harness.peer("sklearn.neighbors")
    part = queries[: min(len(queries), 200 if arguments.quick else 2000)]
    for ours, theirs, y in (
        ("HopfieldClassifier", "KNeighborsClassifier", digits),
        ("HopfieldRegressor", "KNeighborsRegressor", digits.astype(np.float32)),
    ):
        model = getattr(estimators, ours)().fit(X, y)
        peer = getattr(neighbors, theirs)(K, algorithm="brute").fit(X, y)
        contenders = {
            "ours": lambda model=model: model.predict(queries),
            "theirs": harness.Contender(lambda peer=peer: peer.predict(part), factor=len(queries) / len(part)),
        }
        times = harness.interleaved(contenders, arguments.rounds)
        note = "peer: a part of the queries, scaled"
        work = f"{ours}.predict of {len(queries):,}, {size}"
        table.add(work, times["ours"], f"sklearn {theirs}, brute force", times["theirs"], note=note)


def weighted(arguments, table, estimators, X, digits, queries, size):
    """Predict queries where rows have weights, beside the same without."""
    y, weight = digits.astype(np.float32), np.random.default_rng(0).uniform(0.5, 2, len(X))
    for separation in ("sparsemax", "softmax"):
        plain = estimators.HopfieldRegressor(separation=separation).fit(X, y)
        model = estimators.HopfieldRegressor(separation=separation).fit(X, y, sample_weight=weight)
        contenders = {
            "ours": lambda model=model: model.predict(queries),
            "plain": lambda plain=plain: plain.predict(queries),
        }
        times = harness.interleaved(contenders, arguments.rounds)
        work = f"sample weights from 0.5 to 2, {separation}, {len(queries):,} queries, {size}"
        table.add(work, times["ours"], "the same without weights", times["plain"])


def row_by_row(arguments, table, estimators, X, digits):
    """Store rows one by one: the first and the last of them, and a fit of all at once."""
    few = len(X) // 20
    y = digits.astype(np.float32)

    def begun(n):
        return lambda: estimators.HopfieldRegressor().partial_fit(X[:n], y[:n]).partial_fit(X[n : n + 1], y[n : n + 1])

    def rows(model):
        n = len(model.memory_)
        for i in range(n, n + few):
            model.partial_fit(X[i : i + 1], y[i : i + 1])

    contenders = {
        "first": harness.Contender(rows, begun(few)),
        "last": harness.Contender(rows, begun(len(X) - few - 1)),
        "fit": harness.Contender(lambda: estimators.HopfieldRegressor().fit(X, y), factor=few / len(X)),
    }
    times = harness.interleaved(contenders, arguments.rounds)
    work = f"partial_fit of {few:,} rows, one by one, behind {len(X) - few:,}"
    table.add(work, times["last"], f"the same behind {few:,}", times["first"], at_most=1.5)
    table.add(work, times["last"], "fit of all at once, scaled to as many", times["fit"])


if __name__ == "__main__":
    main()
