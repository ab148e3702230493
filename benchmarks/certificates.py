"""Certificates against one matrix product of all patterns with all patterns: margins, radii, the whole report.

    python benchmarks/certificates.py --data folder --output certificates.json
    python benchmarks/certificates.py --data folder --only mnist

"The sgemm" is np.matmul of all patterns with all, in float32, in blocks into one reused output, by NumPy's OpenBLAS, in
the same round as what it is compared with; the first 10,000 rows stand for all, as each block costs the same. In every
round each contender gets a new HopfieldMemory. Indexes are built outside the clock, but for the report, whose time has
everything. Before anything is timed, some of the results are compared with plain double arithmetic.
"""

import harness
import numpy as np

QUERIES = 10_000  # rows of the product that are measured


def unit(patterns):
    """The patterns at length 1, in their own precision."""
    return (patterns / np.linalg.norm(patterns.astype(np.float64), axis=1, keepdims=True)).astype(patterns.dtype)


def chosen(patterns, count=100):
    """Give some positions, from everywhere."""
    return np.arange(0, len(patterns), max(1, len(patterns) // count))


def check(sh, patterns, similarity, beta):
    """Compare some margins and radii with those of plain double arithmetic."""
    memory = sh.HopfieldMemory(patterns, beta, similarity=similarity)
    at, squares = chosen(patterns), np.einsum("ij,ij->i", patterns, patterns, dtype=np.float64)
    x = patterns[at].astype(np.float64)
    scores = np.concatenate([x @ part.astype(np.float64).T for part in np.array_split(patterns, 12)], axis=1)
    distances = np.sqrt(np.maximum(squares[at, None] + squares - 2 * scores, 0))
    lead = distances**2 / 2 if similarity == "euclidean" else squares[at, None] - scores
    lead[np.arange(len(at)), at] = np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        radii = ((lead - 1 / beta) / distances).min(axis=1, where=np.isfinite(lead), initial=np.inf)
    rounding = 1e-12 * squares.max()
    assert (np.abs(memory.margin()[at] - lead.min(axis=1)) <= rounding).all(), "the margins are others"
    got = memory.exact_radius()[at]
    sure = lead.min(axis=1) - 1 / beta > 1e-9 * squares.max()
    assert (got[sure] <= radii[sure]).all(), "a radius is too large"
    assert (got[sure] >= radii[sure] * (1 - 1e-6) - 1e-6).all(), "a radius is too small"
    assert (got[lead.min(axis=1) < 1 / beta] == -np.inf).all(), "a radius that is none"


def measure(sh, table, arguments, patterns, name, beta, *, similarities=("dot", "euclidean")):
    """Margins, radii and the report under each similarity, beside the sgemm."""
    part = min(len(patterns), QUERIES)
    scale = len(patterns) / part
    contenders = {"sgemm": harness.Contender(harness.one_sgemm(patterns, patterns[:part]), factor=scale)}

    def ready(similarity, *, margins):
        def prepare():
            memory = sh.HopfieldMemory(patterns, beta, similarity=similarity)
            memory.build_index()
            if margins:
                memory.margin()
            return memory

        return prepare

    for similarity in similarities:
        check(sh, patterns, similarity, beta)
        contenders["margins", similarity] = harness.Contender(lambda m: m.margin(), ready(similarity, margins=False))
        contenders["radii", similarity] = harness.Contender(lambda m: m.exact_radius(), ready(similarity, margins=True))
        contenders["report", similarity] = lambda similarity=similarity: sh.HopfieldMemory(
            patterns, beta, similarity=similarity
        ).report()
    times = harness.interleaved(contenders, max(1, round(0.6 * arguments.rounds)))
    size = f"{name}, beta {beta:g}"
    for similarity in similarities:
        memory = sh.HopfieldMemory(patterns, beta, similarity=similarity)
        certified = int(np.count_nonzero(memory.is_certified()))
        for what, limit, note in (
            ("margins", 0.35, ""),
            ("radii", None, f"{certified:,} certified"),
            ("report", 1.0, "everything in it"),
        ):
            table.add(
                f"{what}, {similarity}, {size}",
                times[what, similarity],
                "the sgemm",
                times["sgemm"],
                at_most=limit,
                note=note,
            )


def mnist(sh, table, arguments):
    """MNIST's training images as they are."""
    patterns, _, name = harness.mnist(arguments)
    measure(sh, table, arguments, patterns, f"{len(patterns):,} of {name}", 1.0)


def unit_length(sh, table, arguments):
    """The same at length 1, where nearly all are certified and have a radius."""
    patterns, _, name = harness.mnist(arguments)
    measure(sh, table, arguments, unit(patterns), f"{len(patterns):,} of {name}, length 1", 100.0)


def gaussian(sh, table, arguments):
    """Independent Gaussian features, where no structure helps and lengths differ."""
    count = 3000 if arguments.quick else 60_000
    patterns = np.random.default_rng(0).standard_normal((count, 784), dtype=np.float32)
    measure(sh, table, arguments, patterns, f"{count:,} Gaussian", 0.05)


GROUPS = {f.__name__: f for f in (mnist, unit_length, gaussian)}


def main():
    """Measure and print."""

    def options(parser):
        harness.data_option(parser)
        harness.groups_option(parser, GROUPS)

    arguments = harness.start(__doc__.splitlines()[0], options)
    import sparsehopfield as sh

    table = harness.Table(harness.set_up(arguments))
    for name in arguments.only or GROUPS:
        GROUPS[name](sh, table, arguments)
    table.finish(arguments.output)


if __name__ == "__main__":
    main()
