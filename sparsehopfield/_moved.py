"""Modules that have moved, under the paths that they had: programs and pickles that name these go on working."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

from sparsehopfield._engine import partial

#: Paths of before, below the package, and where each module is now.
MOVED = {
    "_content": "data._content",
    "_copying": "_engine.chunked",
    "_matlab": "data._matlab",
    "_optional": "_engine.optional",
    "_replacing": "_engine.atomic_files",
    "_resources": "_engine.resources",
    "_sharing": "_engine.concurrency",
    "_text": "_engine.text",
    "_threadpools": "_engine.threadpools",
    "association": "_engine.association",
    "bags": "data.bags",
    "candidates": "_engine.partial",
    "certificates": "inspect.certificates",
    "checks": "_engine.checks",
    "columns": "_engine.growable",
    "datasets": "data.datasets",
    "dense": "_engine.dense",
    "estimators._memory": "estimators",
    "explain": "inspect.explain",
    "files": "_engine.files",
    "labels": "_engine.labels",
    "plotting": "inspect.plotting",
    "report": "inspect.report",
    "separations": "_engine.separations",
    "stored": "_engine.call",
    "structure": "_engine.structure",
    "studies._families": "studies._core.families",
    "studies._means": "studies._core.means",
    "studies._run": "studies._core.tables",
    "studies._study": "studies._core.options",
    "studies.bits_protocol": "studies.bits.protocol",
    "studies.bits_report": "studies.bits.report",
    "studies.capacity": "studies.retrieval.capacity",
    "studies.efficiency_protocol": "studies.efficiency.protocol",
    "studies.efficiency_report": "studies.efficiency.report",
    "studies.family_bags": "studies.family.bags",
    "studies.family_protocol": "studies.family.protocol",
    "studies.family_report": "studies.family.report",
    "studies.landscape_protocol": "studies.landscape.protocol",
    "studies.metastable_protocol": "studies.metastable.protocol",
    "studies.metastable_report": "studies.metastable.report",
    "studies.mil_protocol": "studies.mil.protocol",
    "studies.mil_report": "studies.mil.report",
    "studies.mnist_bags_protocol": "studies.mnist_bags.protocol",
    "studies.mnist_bags_report": "studies.mnist_bags.report",
    "studies.retrieval_protocol": "studies.retrieval.protocol",
    "studies.retrieval_report": "studies.retrieval.report",
    "studies.retrieval_study": "studies.retrieval.study",
    "studies.robustness": "studies.retrieval.robustness",
    "studies.theory_ledger_checks": "studies.theory_ledger.checks",
    "studies.theory_ledger_claims": "studies.theory_ledger.claims",
    "studies.theory_ledger_report": "studies.theory_ledger.report",
    "studies.theory_ledger_trials": "studies.theory_ledger.trials",
    "theory_structures": "theory.structures",
}


class _Moved(MetaPathFinder, Loader):
    """Finds a module under its path of before: the module itself, not a copy."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        return ModuleSpec(name, self) if package == __package__ and rest in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"{__package__}.{MOVED[spec.name.partition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def get_code(self, name: str) -> CodeType | None:
        """Return the code of a module, for `python -m` with its path of before."""
        spec = find_spec(f"{__package__}.{MOVED[name.partition('.')[2]]}")
        assert spec is not None
        assert isinstance(spec.loader, InspectLoader)
        return spec.loader.get_code(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # the import has set that of the path of before


sys.meta_path.append(_Moved())
# An import sets the module as attribute of the package, where `candidates` is a function; of a module that is there
# already it does not.
sys.modules[f"{__package__}.candidates"] = partial
