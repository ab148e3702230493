"""scikit-learn estimators: retrieve, classify, predict numbers, find outliers, learn prototypes, learn from bags.

They need the extra: "sparsehopfield[sklearn]".
"""

from sparsehopfield._engine.optional import require

require("sklearn", purpose="sparsehopfield.estimators", extra="sklearn")

from sparsehopfield.estimators._classifier import HopfieldClassifier  # noqa: E402
from sparsehopfield.estimators._forecaster import Analogues, HopfieldForecaster  # noqa: E402
from sparsehopfield.estimators._mil import HopfieldMILClassifier  # noqa: E402
from sparsehopfield.estimators._outliers import HopfieldOutlierDetector  # noqa: E402
from sparsehopfield.estimators._prototypes import HopfieldPrototypeClassifier, PrototypeUsage  # noqa: E402
from sparsehopfield.estimators._regressor import HopfieldRegressor  # noqa: E402
from sparsehopfield.estimators._retriever import HopfieldRetriever  # noqa: E402

__all__ = [
    "Analogues",
    "HopfieldClassifier",
    "HopfieldForecaster",
    "HopfieldMILClassifier",
    "HopfieldOutlierDetector",
    "HopfieldPrototypeClassifier",
    "HopfieldRegressor",
    "HopfieldRetriever",
    "PrototypeUsage",
]
