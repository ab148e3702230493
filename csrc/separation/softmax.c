/* softmax.c: p = exp(z) / sum exp(z), every pattern in the support. Source: Ramsauer et al. 2020. */
#include "separation/powers.h"
#include "separation/separation.h"
#include <math.h>

static double row_scale(const sh_kernels *k, const void *s, int64_t n) { return k->maximum(s, n, NULL); }

static double row_weights(const sh_kernels *k, void *s, int64_t n, double beta, double parameter, double scale) {
    (void)parameter;
    return k->exponentiate(s, n, beta, scale);
}

static double canonical_weights(int64_t n, double *z) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += z[i] = sh_exp(z[i]);
    return sum;
}

/* Solves M exp(-reach) = unit, as the largest weight is 1. */
static double reach(double unit, int64_t patterns) { return sh_log((double)patterns / unit); }

static double rescale(double beta, double parameter, double from, double to) {
    (void)parameter;
    return from == to ? 1 : exp(beta * (from - to));
}

static double conjugate(int64_t n, const double *z, double best) {
    double sum = 0;
    for (int64_t j = 0; j < n; j++) sum += exp(z[j] - best);
    return log(sum);
}

const sh_map sh_map_softmax = {
    .name = "softmax",
    .alias = "softmax",
    .formula = "exp(z) / sum exp(z)",
    .regulariser = "sum p log p",
    .source = "Ramsauer et al. 2020",
    .parameter = {.standard = 1}, /* softmax is 1-entmax */
    .has_energy = 1,
    .shift_invariant = 1,
    .row_scale = row_scale,
    .row_weights = row_weights,
    .canonical_weights = canonical_weights,
    .conjugate = conjugate,
    .reach = reach,
    .rescale = rescale,
    .slopes = sh_entmax_slopes,
    .row_vjp = sh_entmax_row_vjp,
    .lanes = SH_LANES_SOFTMAX,
};
