"""Settings that fit data: similarity, beta, separation map and structure, with their reasons and what was measured."""

from sparsehopfield.suggestion._betas import best_beta, storing_beta
from sparsehopfield.suggestion._study import suggest
from sparsehopfield.suggestion._table import Suggestion, SuggestionRow

__all__ = ["Suggestion", "SuggestionRow", "best_beta", "storing_beta", "suggest"]
