"""The retrieval studies, capacity and robustness: one protocol, one grid of settings, one report."""

from sparsehopfield.studies.retrieval.study import METRICS, Options, add_options, run

__all__ = ["METRICS", "Options", "add_options", "run"]
