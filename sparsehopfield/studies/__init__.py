"""The studies: one command, one function and one notebook each; see `sparsehopfield.studies._core.tables`."""

from sparsehopfield.studies import (
    bits,
    bounds,
    capacity_bound,
    citations,
    correlated,
    efficiency,
    family,
    flips,
    landscape,
    metastable,
    mil,
    mnist_bags,
    next_word,
    optimal,
    repertoire,
    series,
    theory_ledger,
    translation,
)
from sparsehopfield.studies.retrieval import capacity, robustness

__all__ = [
    "STUDIES",
    "bits",
    "bounds",
    "capacity",
    "capacity_bound",
    "citations",
    "correlated",
    "efficiency",
    "family",
    "flips",
    "landscape",
    "metastable",
    "mil",
    "mnist_bags",
    "next_word",
    "optimal",
    "repertoire",
    "robustness",
    "series",
    "theory_ledger",
    "translation",
]

#: The studies by their names on the command line. Each is a module whose docstring is its help, with
#: `EXAMPLES`, `add_options(parser)` and `run(output, **options)`, its options called as on the command line; a new
#: one is a module and a row here.
STUDIES = {
    "capacity": capacity,
    "robustness": robustness,
    "metastable": metastable,
    "bits": bits,
    "mil": mil,
    "mnist-bags": mnist_bags,
    "capacity-bound": capacity_bound,
    "theory": theory_ledger,
    "landscape": landscape,
    "correlated": correlated,
    "flips": flips,
    "bounds": bounds,
    "optimal": optimal,
    "efficiency": efficiency,
    "family": family,
    "series": series,
    "repertoire": repertoire,
    "citations": citations,
    "next-word": next_word,
    "translation": translation,
}
