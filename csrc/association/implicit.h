/* implicit.h: the gradient at a fixed point x = T(x) of the update T. With J the Jacobian of T, which is symmetric for
 * maps that are invariant to shifts, the solution l of (1 - J) l = dx passes through one update in place of dx. */
#ifndef SH_IMPLICIT_H
#define SH_IMPLICIT_H
#include "association/tape.h"

/* sh_solve_fixed_points: solves (1 - J) l = dx for every query of a tile.
 *
 * Given      p (n, width)  weights of the listed rows at the fixed points;  dx (e, width)
 * Returned   l (e, width)
 * Errors     SH_SINGULAR, row the query's number, where 1 - J is not positive definite, or its reciprocal condition
 *            number is below 1e-10: the fixed point is not a strict minimum of the energy
 * Cost       for a query with k rows in its support and m the smaller of k and e: O(m^2 (k + e) + m^3) multiplications,
 *            O(k e + m^2) memory
 * Source     Bai, Kolter & Koltun 2019, "Deep equilibrium models", theorem 1 */
sh_status sh_solve_fixed_points(sh_context *context, const sh_tape *t, const sh_tile_queries *q,
                                const sh_stored_rows *s, const char *p, const int32_t *list, int64_t n, const char *dx,
                                char *l);
#endif
