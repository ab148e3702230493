"""The papers' claims about sparse modern Hopfield networks, as functions: each claim, its verdict, its correction.

Every function computes in float64, whatever comes in. Numbers of lemmas, theorems and equations are those of "On
Sparse Modern Hopfield Model" (Hu et al. 2023). Each docstring says which claim it computes and its verdict: *holds*,
*fails* (with a counterexample), *vacuous* (true, but can never be informative) or *infeasible* (nothing meets its
condition). Where the paper needs a correction the function computes the corrected form, and the printed one on request.

| claim | verdict | here |
|---|---|---|
| energy (2.1), lemma 2.1: it falls along retrieval | fails unless beta = 1 | `energy_as_printed` |
| lemma 2.2: limits are stationary | fails unless beta = 1; of `energy` they are | `energy_as_printed` |
| definition 2.2: R, and a bound on the error | fails | `min_half_distance` |
| theorem 2.2: sparse error <= dense error | fails | `retrieval_error`, `majorises` |
| (2.6): bound by the size of the support | vacuous | `retrieval_bound(rule="printed")`; better "sharp" |
| (2.7): exponential bound | fails | `retrieval_bound(rule="printed exponential")`; better "exponential" |
| theorem 3.1, corollary 3.1.1: well separated | hold, not for the closest pair | `well_separated`, `exact_radius` |
| section 2.2: noise is linear (sparse), exponential (dense) | fails: linear in both | `contraction` |
| observation 2: only the dense condition grows with M | holds; nothing else of it | `required_margin` |
| (3.3): where sparsity pays | infeasible | `well_separated(rule="equation 3.3")` |
| lemma 3.1: capacity | undefined as printed | `capacity_bound`, `exact_capacity` |
| lemma 3.1, M >= M_dense | fails where delta < 0, and for large beta | `capacity_bound`, `dense_capacity_bound` |
| corollary 3.1.2: exponentially small error | holds | `retrieval_bound(rule="separation")` |

What structures (masks, top-K, linear and random features) do is in `sparsehopfield.theory.structures`.

Letters: x a query and n its length, xi_mu pattern mu of M, m = max |xi|, s_nu = <x, xi_nu> the scores, kappa the size
of the support, T the update with sparsemax, R a radius of retrieval. The gap of mu at x is its score less the best
other one; the margin of mu, the papers' Delta, is its gap at x = xi_mu.
"""

from sparsehopfield.theory._barriers import EnergyBarriers, StationaryStates, energy_barriers, stationary_states
from sparsehopfield.theory._capacity import (
    CapacityBound,
    ExactCapacity,
    capacity_bound,
    dense_capacity_bound,
    exact_capacity,
)
from sparsehopfield.theory._conditions import CONDITIONS as CONDITIONS
from sparsehopfield.theory._conditions import REQUIREMENTS as REQUIREMENTS
from sparsehopfield.theory._conditions import required_margin, well_separated
from sparsehopfield.theory._energy import contraction, energy_as_printed, energy_offset
from sparsehopfield.theory._errors import BOUNDS as BOUNDS
from sparsehopfield.theory._errors import dense_error_floor, retrieval_bound, retrieval_error
from sparsehopfield.theory._flips import exact_flips, exact_recall
from sparsehopfield.theory._majorisation import majorises
from sparsehopfield.theory._margins import (
    critical_beta,
    exact_radius,
    is_certified,
    is_fixed_point,
    margin,
    margin_at,
    min_half_distance,
)
from sparsehopfield.theory._supports import expected_support

__all__ = [
    "CapacityBound",
    "EnergyBarriers",
    "ExactCapacity",
    "StationaryStates",
    "capacity_bound",
    "contraction",
    "critical_beta",
    "dense_capacity_bound",
    "dense_error_floor",
    "energy_as_printed",
    "energy_barriers",
    "energy_offset",
    "exact_capacity",
    "exact_flips",
    "exact_radius",
    "exact_recall",
    "expected_support",
    "is_certified",
    "is_fixed_point",
    "majorises",
    "margin",
    "margin_at",
    "min_half_distance",
    "required_margin",
    "retrieval_bound",
    "retrieval_error",
    "stationary_states",
    "well_separated",
]
