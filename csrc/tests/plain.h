/* plain.h: the maps from scores to weights as their definitions have them, in double and without haste: what the tests
 * compare the library with. */
#ifndef SH_PLAIN_H
#define SH_PLAIN_H
#include "check.h"

/* Returns the alpha of a map: 1 of softmax, 2 of sparsemax; 0 of the polynomial, which has none. */
static inline double plain_alpha(sh_model m) {
    return m.separation == SH_SOFTMAX     ? 1
           : m.separation == SH_SPARSEMAX ? 2
           : m.separation == SH_ENTMAX    ? m.parameter
                                          : 0;
}

/* Returns the weight of z, at most 0, under the threshold tau of entmax. */
static inline double plain_entmax(double alpha, double z, double tau) {
    const double base = (alpha - 1) * z - tau;
    return base <= 0 ? 0 : alpha == 2 ? base : alpha == 1.5 ? base * base : pow(base, 1 / (alpha - 1));
}

/* Finds the weights p (n) of the scores z (n), beta included, of which -INFINITY have none. The threshold of entmax is found
 * by bisection; returned relative to 0, as sh_row has it. Maps that are not here are taken from the library. */
static inline double plain_weights(sh_model m, int64_t n, const double *z, double *p) {
    const double alpha = plain_alpha(m);
    double top = -INFINITY, largest = 0, sum = 0, low = -1, high = 0;
    if (m.separation > SH_POLYNOMIAL) { /* maps of the table that are not here: rows have tests of their own */
        void *scratch = own(1, (int64_t)sh_row_scratch(n));
        CHECK_OK(sh_map_row(m, SH_ROW_PART_WEIGHTS, SH_FLOAT64, n, (const void *[]){z}, (void *[]){p}, scratch));
        free(scratch);
        return NAN;
    }
    for (int64_t i = 0; i < n; i++) {
        top = larger(top, z[i]);
        largest = larger(largest, isinf(z[i]) ? 0 : fabs(z[i]));
    }
    for (int step = 0; alpha > 1 && step < 64; step++) {
        const double tau = low + (high - low) / 2;
        sum = 0;
        for (int64_t i = 0; i < n; i++) sum += plain_entmax(alpha, z[i] - top, tau);
        if (sum > 1)
            low = tau;
        else
            high = tau;
    }
    sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (alpha > 1)
            p[i] = plain_entmax(alpha, z[i] - top, low);
        else if (alpha == 1)
            p[i] = exp(z[i] - top);
        else
            p[i] = isinf(z[i]) || largest == 0 ? 0 : pow(z[i] / largest, m.parameter);
        sum += p[i];
    }
    for (int64_t i = 0; i < n; i++) p[i] = sum != 0 ? p[i] / sum : 0;
    return alpha > 1 ? (alpha - 1) * top + low : -INFINITY;
}

/* Returns Psi*(z) = <p, z> - Omega(p), with Omega the negative Tsallis entropy, or Shannon's at alpha = 1. */
static inline double plain_conjugate(sh_model m, int64_t n, const double *z, const double *p) {
    const double alpha = plain_alpha(m);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (p[i] == 0) continue;
        sum += alpha == 1 ? p[i] * (z[i] - log(p[i])) /* of close numbers: their difference first */
                          : p[i] * z[i] - (pow(p[i], alpha) - p[i]) / (alpha * (alpha - 1));
    }
    return sum;
}
#endif
