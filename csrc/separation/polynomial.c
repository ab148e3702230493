/* polynomial.c: p = s^order / sum s^order, the studies' comparator (Krotov & Hopfield 2016).
 *
 * Notes  1. Scores are divided by the largest magnitude before the power, so nothing overflows; beta cancels.
 *        2. No cutoff, no conjugate, no energy: its Jacobian is not symmetric.
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

/* Turns scores into weights, in double; masked ones count as 0. */
static void weights_in_double(double order, int64_t n, double *z) {
    double largest = 0, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        if (isinf(z[j])) z[j] = 0;
        largest = fmax(largest, fabs(z[j]));
    }
    for (int64_t j = 0; j < n; j++) sum += z[j] = largest > 0 ? pow(z[j] / largest, order) : 0;
    for (int64_t j = 0; j < n; j++) z[j] = sum != 0 ? z[j] / sum : 0;
}

/* Computes dz_j = order z_j^(order-1) / (sum z^order) (g_j - <p, g>), with z / max|z| against overflow */
static void vjp(double order, int64_t n, const double *z, const double *p, const double *g, double *dz) {
    double largest = 0, sum = 0, mean = 0;
    for (int64_t j = 0; j < n; j++) {
        if (!isinf(z[j])) largest = fmax(largest, fabs(z[j]));
        mean += p[j] != 0 ? p[j] * g[j] : 0;
    }
    for (int64_t j = 0; j < n; j++) sum += isinf(z[j]) || largest == 0 ? 0 : pow(z[j] / largest, order);
    for (int64_t j = 0; j < n; j++) {
        const double slope = isinf(z[j]) || sum == 0 ? 0 : order * pow(z[j] / largest, order - 1) / (sum * largest);
        dz[j] = slope != 0 ? slope * (g[j] - mean) : 0;
    }
}

const sh_map sh_map_polynomial = {
    .name = "polynomial",
    .formula = "z^order / sum z^order",
    .source = "Krotov & Hopfield 2016",
    .parameter = {.name = "order", .standard = 10, .least = 1, .most = 0x1p31, .whole = 1},
    .signed_weights = 1,
    .row_scale = row_scale,
    .row_weights = row_weights,
    .weights_in_double = weights_in_double,
    .rescale = rescale,
    .vjp = vjp,
    .vjp_takes_scores = 1,
    .lanes = SH_LANES_POLYNOMIAL,
};
