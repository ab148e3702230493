"""scikit-learn estimators: retrieve, classify, and learn from bags. They need the extra: "sparsehopfield[sklearn]"."""

from sparsehopfield._engine.optional import require

require("sklearn", purpose="sparsehopfield.estimators", extra="sklearn")

from sparsehopfield.estimators._forecaster import Analogues, HopfieldForecaster  # noqa: E402
from sparsehopfield.estimators._memory import HopfieldClassifier, HopfieldRetriever  # noqa: E402
from sparsehopfield.estimators._mil import HopfieldMILClassifier  # noqa: E402

__all__ = ["Analogues", "HopfieldClassifier", "HopfieldForecaster", "HopfieldMILClassifier", "HopfieldRetriever"]
