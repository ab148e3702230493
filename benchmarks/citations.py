"""Passages found by a memory, by scikit-learn's neighbours and by faiss, exact and approximate: recall and time.

    python benchmarks/citations.py --data folder [--dims 256] [--questions 1000] [--threads 1] [--output rows.json]

The vectors are those of `python -m sparsehopfield citations`: 31,014 captions of Multi30k, and two kinds of questions
about them, captions without half of their words, and captions in German. Everybody gets the same float32 arrays of unit
vectors, and gives the ten best by their cosines. "found" is the share of questions whose source is among the ten, "of
the exact ten" the share of those that an exact search finds. "citations" are the memory's weights (`associate`) with
the betas that the study chooses, which take the place of a number of neighbours. Times are processor times of all
questions at once, medians of the rounds; what is built is built before, and its time is told. faiss is imported where
it is installed (faiss-cpu), and left out where not; the package never needs it.
"""

import json
import statistics
import time

import harness
import numpy as np
from sklearn.neighbors import NearestNeighbors

from sparsehopfield import HopfieldMemory, set_num_threads
from sparsehopfield._engine.text import aligned
from sparsehopfield.studies.citations.task import Source

DEPTH = 10
#: The betas that the study chooses for 31,014 captions and 256 features.
BETAS = {"sparsemax": 4.0, "entmax15": 8.0}


def searches(vectors, faiss):
    """Yield names, processor seconds to build, and functions from queries to positions of the ten best."""

    def built(name, make, search):
        began = time.process_time()
        made = make()
        return name, time.process_time() - began, lambda queries: search(made, queries)

    def memory_of(separation="sparsemax", beta=1.0, index="auto"):
        memory = HopfieldMemory(vectors, beta, separation=separation, index=index)
        if index:
            memory.build_index()
        return memory

    def faiss_of(index):
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)
        return index

    def nearest(memory, queries):
        return memory.nearest(queries, DEPTH)[0]

    yield built("memory, nearest, with an index", memory_of, nearest)
    yield built("memory, nearest, scan", lambda: memory_of(index=False), nearest)
    for separation, beta in BETAS.items():
        yield built(
            f"memory, citations, {separation}",
            lambda separation=separation, beta=beta: memory_of(separation, beta),
            lambda memory, queries: memory.associate(queries),
        )
    neighbours = NearestNeighbors(n_neighbors=DEPTH, algorithm="brute", metric="cosine")
    yield built(
        "scikit-learn, brute force",
        lambda: neighbours.fit(vectors),
        lambda model, queries: model.kneighbors(queries, return_distance=False),
    )
    if faiss is None:
        return

    def search(index, queries):
        return index.search(queries, DEPTH)[1]

    d, lists = vectors.shape[1], int(len(vectors) ** 0.5)
    yield built("faiss, flat", lambda: faiss_of(faiss.IndexFlatIP(d)), search)
    for probes in (1, 4, 16):

        def inverted(probes=probes):
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, lists, faiss.METRIC_INNER_PRODUCT)
            index.nprobe = probes
            return faiss_of(index)

        yield built(f"faiss, {lists} inverted lists, {probes} probed", inverted, search)
    for width in (16, 64):

        def graph(width=width):
            index = faiss.IndexHNSWFlat(d, 32, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efSearch = width
            return faiss_of(index)

        yield built(f"faiss, graph (HNSW 32), {width} looked at", graph, search)


def main():
    """Print a table for each kind of questions."""

    def options(parser):
        harness.data_option(parser)
        parser.add_argument("--dims", type=int, default=256)
        parser.add_argument("--questions", type=int, default=1000)

    arguments = harness.start(__doc__, options)
    faiss = harness.peer("faiss")
    passages, questions = (2000, 100) if arguments.quick else (None, arguments.questions)
    config = harness.set_up(arguments)
    set_num_threads(arguments.threads)
    if faiss:
        faiss.omp_set_num_threads(arguments.threads)
    task = Source(str(harness.data_folder(arguments)), (), "lines", None, None, arguments.dims, passages).load()
    rows = []
    contenders = list(searches(task.vectors, faiss))
    for kind in ("without 0.5", "translated"):
        queries, at = task.ask(kind, questions, 0, part=1)
        known = queries.any(axis=1)
        queries, at = np.ascontiguousarray(queries[known]), at[known]
        timed = {
            name: harness.Contender(lambda search=search, queries=queries: search(queries))
            for name, _, search in contenders
        }
        harness.interleaved(timed, arguments.rounds)
        exact = contenders[0][2](queries)
        lines = [["", f"found in {DEPTH}", "of the exact ten", "passages", "processor ms", "to build"]]
        for name, build, search in contenders:
            answer = search(queries)
            if isinstance(answer, np.ndarray):
                found = (answer == at[:, None]).any(axis=1).mean()
                same = np.mean([len(set(a) & set(b)) / DEPTH for a, b in zip(answer, exact, strict=True)])
                many = DEPTH
            else:  # citations
                row = np.repeat(np.arange(len(at)), np.diff(answer.indptr))
                found, same = (answer.indices == at[row]).sum() / len(at), float("nan")
                many = answer.nnz / len(at)
            milliseconds = 1000 * statistics.median(timed[name].processor[1:])
            rows.append(
                {"questions": kind, "by": name, "found": float(found), "exact": float(same), "passages": float(many)}
                | {"ms": milliseconds, "build": build}
            )
            shown = "" if np.isnan(same) else f"{100 * same:.1f} %"
            lines.append([name, f"{100 * found:.1f} %", shown, f"{many:.1f}", f"{milliseconds:.0f}", f"{build:.2f} s"])
        print(f"{len(at)} questions {kind} about {len(task.vectors)} passages of {arguments.dims} features")
        print(aligned(lines), end="\n\n", flush=True)
    if arguments.output:
        kept = {k: v for k, v in config.items() if k != "limits"}
        arguments.output.write_text(json.dumps({"config": kept, "rows": rows}, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
