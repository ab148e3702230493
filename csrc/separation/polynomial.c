/* polynomial.c: p = s^order / sum s^order, the studies' comparator (Krotov & Hopfield 2016).
 *
 * Notes  1. Scores are divided by the largest magnitude before the power, so nothing overflows; beta cancels.
 *        2. No window, no conjugate, no energy: its Jacobian is not symmetric.
 *        3. Where the sum is exactly 0 (all scores 0, or odd powers that cancel) all weights are 0.
 */
#include "separation/separation.h"
#include <math.h>

static double row_scale(const sh_kernels *k, const void *s, int64_t n) { return k->max_abs(s, n); }

static double row_weights(const sh_kernels *k, void *s, int64_t n, double beta, double order, double scale) {
    (void)beta;
    return k->power(s, n, (int64_t)order, scale > 0 ? scale : 1);
}

static double rescale(double beta, double order, double from, double to) {
    (void)beta;
    return from == to ? 1 : pow(from / to, order);
}

const sh_map sh_map_polynomial = {
    .name = "polynomial",
    .row_scale = row_scale,
    .row_weights = row_weights,
    .rescale = rescale,
};
