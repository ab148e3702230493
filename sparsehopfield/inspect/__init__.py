"""Ways to inspect a memory: certificates, explanations, reports, figures."""

import typing as _typing

from sparsehopfield._engine.lazy import lazy_attributes as _lazy_attributes

_LAZY = {name: name for name in ("certificates", "explain", "paths", "plots", "plotting", "report")}

if _typing.TYPE_CHECKING:  # for type checkers and editors
    from sparsehopfield.inspect import certificates as certificates
    from sparsehopfield.inspect import explain as explain
    from sparsehopfield.inspect import paths as paths
    from sparsehopfield.inspect import plots as plots
    from sparsehopfield.inspect import plotting as plotting
    from sparsehopfield.inspect import report as report
else:  # unseen by type checkers, which would take any name for an attribute
    __getattr__, __dir__ = _lazy_attributes(__name__, _LAZY)
