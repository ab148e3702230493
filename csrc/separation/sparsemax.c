/* sparsemax.c: p = [z - tau]_+ with sum 1, the Euclidean projection onto the simplex.
 *
 * Given      z[n]  scores relative to the best, any order
 * Returned   tau, as an integer and a fraction of the unit 2^-62
 * Cost       O(n) expected (Michelot's passes over what is left), no allocation
 * Notes      1. Scores are rounded to multiples of 2^-62, below the rounding of z itself for |z| > 2^-9, and
 *               then everything is integer arithmetic. The support is exact, sums have no order, and neither
 *               candidates outside the support nor the way a set was split can change a bit.
 *            2. p = z - tau is rounded once. It is positive exactly on the support, and 1 for a single pattern.
 *            3. tau >= max z - 1, so only z > -1 is looked at.
 * Source     Martins & Astudillo 2016, proposition 1; Michelot 1986; paper eq. (2.3)
 */
#include "separation/separation.h"
#include "runtime/runtime.h"
#include <math.h>
#include <string.h>

static const double UNIT = 0x1p-62;
static const int64_t ONE = (int64_t)1 << 62;

static double cutoff(double alpha) {
    (void)alpha;
    return 1;
}

static inline int64_t grid(double z) { return z > -1 ? (int64_t)(z * 0x1p62) : -ONE; }

/* Michelot's passes in doubles: whatever is below their threshold by more than its rounding is outside the
 * support. Only an economy: what is left is decided exactly. */
static int64_t prune(double *z, int64_t n) {
    while (!sh_called_off(n)) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += z[i];
        double floor = (sum - 1) / (double)n - (double)(n + 4) * 0x1p-52;
        const int64_t kept = sh_numbers_above(z, n, floor);
        if (kept == n) break;
        n = kept;
    }
    return n;
}

static void threshold(double alpha, int64_t n, double *z, sh_threshold *t) {
    _Static_assert(sizeof(double) == sizeof(int64_t), "the scores' memory is used again for integers");
    int64_t left = 0;
    for (int64_t i = 0; i < n; i++)
        if (z[i] > -1) z[left++] = z[i];
    if (left > 16) left = prune(z, left);
    __int128 sum = 0;
    for (int64_t i = 0; i < left; i++) {
        int64_t q = grid(z[i]);
        sum += q;
        memcpy(&z[i], &q, sizeof q);
    }
    t->parameter = alpha;
    t->whole = 0;
    t->part = 0;
    while (left > 0 && !sh_called_off(left)) { /* nothing is left of scores that are not numbers */
        /* tau = (sum - 1) / left; the support of the rest is q > tau, that is q > floor(tau) */
        __int128 numerator = sum - ONE;
        __int128 floor = numerator / left;
        if (floor * left > numerator) floor--;
        t->whole = (int64_t)floor;
        t->part = (double)(int64_t)(numerator - floor * left) / (double)left;
        int64_t kept = 0;
        for (int64_t i = 0; i < left; i++) {
            int64_t q;
            memcpy(&q, &z[i], sizeof q);
            if (q <= t->whole)
                sum -= q;
            else
                memcpy(&z[kept++], &q, sizeof q);
        }
        if (kept == left) break;
        left = kept;
    }
    t->tau = ((double)t->whole + t->part) * UNIT;
    t->unit = 1;
}

/* Two of Michelot's passes: thresholds of all and of those above it, both from below. */
static double bound(double alpha, int64_t n, const double *z) {
    (void)alpha;
    double tau = -1;
    for (int pass = 0; pass < 2; pass++) {
        double sum[2] = {0}, count[2] = {0};
        for (int64_t i = 0; i < n; i++) {
            int above = z[i] > tau;
            sum[i & 1] += above ? z[i] : 0;
            count[i & 1] += above;
        }
        tau = (sum[0] + sum[1] - 1) / (count[0] + count[1]);
    }
    return tau - (double)(n + 4) * 0x1p-52;
}

static void weights(const sh_threshold *t, int64_t n, double *z) {
    for (int64_t i = 0; i < n; i++) {
        int64_t q = grid(z[i]);
        z[i] = q > t->whole ? ((double)(q - t->whole) - t->part) * UNIT : 0;
    }
}

/* Psi(p) = |p|^2/2 - 1/2 = sum (p^2 - p)/2 on the simplex (paper, definition 2.1) */
static double conjugate_share(const sh_threshold *t, double z, double p) {
    (void)t;
    return p * z - (p * p - p) / 2;
}

static double slopes(double alpha, int64_t n, const double *p, double *w) {
    (void)alpha;
    return sh_slopes_of_powers(0, n, p, w);
}

static void vjp(double alpha, int64_t n, const double *z, const double *p, const double *g, double *dz) {
    (void)alpha, (void)z;
    sh_vjp_of_powers(0, n, p, g, dz);
}

const sh_map sh_map_sparsemax = {
    .name = "sparsemax",
    .alias = "sparsemax",
    .formula = "[z - tau]_+",
    .regulariser = "(|p|^2 - 1) / 2",
    .source = "Martins & Astudillo 2016; Hu et al. 2023",
    .parameter = {.standard = 2}, /* sparsemax is 2-entmax */
    .has_energy = 1,
    .shift_invariant = 1,
    .cutoff = cutoff,
    .threshold = threshold,
    .weights = weights,
    .bound = bound,
    .conjugate_share = conjugate_share,
    .slopes = slopes,
    .vjp = vjp,
    .lanes = SH_LANES_SPARSEMAX,
};
