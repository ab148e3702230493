/* sparsemax.c: p = [z - tau]_+ with sum 1, the Euclidean projection onto the simplex.
 *
 * Given      z[n]  scores relative to the best, any order
 * Returned   tau, as an integer and a fraction of the unit 2^-62
 * Cost       O(n) expected (Michelot's passes, each over what the one before has left), no allocation
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

/* Returns a score in whole units of 2^-62. */
static inline int64_t units_of(double z) { return z > -1 ? (int64_t)(z * 0x1p62) : -ONE; }

/* Drops scores that are outside the support by Michelot's passes in doubles: those below their threshold by more than its
 * rounding. Only an economy: the others are decided exactly. Returns how many stay. */
static int64_t prune(double *z, int64_t n) {
    while (!sh_pass_stopped(n)) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += z[i];
        double lowest = (sum - 1) / (double)n - (double)(n + 4) * 0x1p-52;
        const int64_t kept = sh_numbers_above(z, n, lowest);
        if (kept == n) break;
        n = kept;
    }
    return n;
}

static void threshold(double alpha, int64_t n, double *z, sh_threshold *t) {
    _Static_assert(sizeof(double) == sizeof(int64_t), "the scores' memory is used again for integers");
    int64_t candidates = 0;
    for (int64_t i = 0; i < n; i++)
        if (z[i] > -1) z[candidates++] = z[i];
    if (candidates > 16) candidates = prune(z, candidates);
    __int128 sum = 0;
    for (int64_t i = 0; i < candidates; i++) {
        int64_t units = units_of(z[i]);
        sum += units;
        memcpy(&z[i], &units, sizeof units);
    }
    t->parameter = alpha;
    t->whole = 0;
    t->fraction = 0;
    while (candidates > 0 && !sh_pass_stopped(candidates)) { /* it is 0 of scores that are NaN */
        /* tau = (sum - 1) / candidates; the support is what exceeds tau, that is floor(tau) */
        __int128 numerator = sum - ONE;
        __int128 floor = numerator / candidates;
        if (floor * candidates > numerator) floor--;
        t->whole = (int64_t)floor;
        t->fraction = (double)(int64_t)(numerator - floor * candidates) / (double)candidates;
        int64_t kept = 0;
        for (int64_t i = 0; i < candidates; i++) {
            int64_t units;
            memcpy(&units, &z[i], sizeof units);
            if (units <= t->whole)
                sum -= units;
            else
                memcpy(&z[kept++], &units, sizeof units);
        }
        if (kept == candidates) break;
        candidates = kept;
    }
    t->tau = ((double)t->whole + t->fraction) * UNIT;
    t->unit = 1;
}

/* Computes a lower bound by two of Michelot's passes: the threshold of all, then of those above it. */
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
        int64_t units = units_of(z[i]);
        z[i] = units > t->whole ? ((double)(units - t->whole) - t->fraction) * UNIT : 0;
    }
}

/* Psi(p) = |p|^2/2 - 1/2 = sum (p^2 - p)/2 on the simplex (paper, definition 2.1) */
static double conjugate_share(const sh_threshold *t, double z, double p) {
    (void)t;
    return p * z - (p * p - p) / 2;
}

static int roots(double alpha, sh_roots *roots) {
    (void)alpha;
    *roots = (sh_roots){.a = 1, .power = 1, .form = SH_ROOT_LINE};
    return 1;
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
    .cutoff = sh_entmax_cutoff,
    .threshold = threshold,
    .weights = weights,
    .bound = bound,
    .conjugate_share = conjugate_share,
    .roots = roots,
    .slopes = sh_entmax_slopes,
    .row_vjp = sh_entmax_row_vjp,
    .lanes = SH_LANES_SPARSEMAX,
};
