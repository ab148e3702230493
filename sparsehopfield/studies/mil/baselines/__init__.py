"""Classifiers of bags by other authors, short and plain, to measure beside Hopfield networks.

Each follows one paper, and says where it is simpler. All have scikit-learn's interface on lists of bags, as
`HopfieldMILClassifier` has it, and take features as they are: the study scales them.
"""

from sparsehopfield.studies.mil.baselines._base import BagClassifier
from sparsehopfield.studies.mil.baselines.apr import APR
from sparsehopfield.studies.mil.baselines.citation_knn import CitationKNN
from sparsehopfield.studies.mil.baselines.em_dd import EMDD
from sparsehopfield.studies.mil.baselines.gated_attention import GatedAttention
from sparsehopfield.studies.mil.baselines.mi_svm import MiSVM
from sparsehopfield.studies.mil.baselines.miles import MILES
from sparsehopfield.studies.mil.baselines.mind import MInD
from sparsehopfield.studies.mil.baselines.path_encoding import PathEncoding

__all__ = ["APR", "EMDD", "MILES", "BagClassifier", "CitationKNN", "GatedAttention", "MInD", "MiSVM", "PathEncoding"]
