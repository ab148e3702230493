/* implicit.h: the gradient at a fixed point x = T(x): with J the Jacobian of T, symmetric for maps that no shift
 * changes, (1 - J) l = dx gives the l that passes through one update in place of dx. */
#ifndef SH_IMPLICIT_H
#define SH_IMPLICIT_H
#include "association/tape.h"

/* sh_solve_fixed_points: l of every query of a tile.
 *
 * Given      p (n x width)  weights of the listed rows at the fixed points;  dx (e x width)
 * Returned   l (e x width)
 * Errors     SH_SINGULAR, row the query's number, where 1 - J is not positive definite, or its reciprocal condition
 *            number below 1e-10: the fixed point is not a strict minimum of the energy
 * Cost       O(m^2 (k + e) + m^3) a query with k rows in its support and m the smaller of k and e; as much memory */
sh_status sh_solve_fixed_points(sh_context *context, const sh_tape *t, const sh_tile_queries *q,
                                const sh_stored_rows *s, const char *p, const int32_t *list, int64_t n, const char *dx,
                                char *l);
#endif
