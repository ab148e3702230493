/* normmax.c: p = u / sum u, u = [z - tau]_+^(1/(alpha-1)) with |u|_alpha = 1: the map of Omega(p) = |p|_alpha - 1, alpha > 1.
 *
 * Given      z[n]  scores relative to the best, any order
 * Returned   tau, as theta = tau + 1; the lowest score of the support, and sum u
 * Cost       O(n) to prune, then a sort of what may be in the support and O(k) evaluations; no allocation
 * Notes      1. With a = alpha - 1 and r = alpha/a the sum M = sum [z - tau]_+^r = sum u (z - tau) is 1. As the best score is 0
 *               it is at least 1 at tau = -1, so the cutoff is 1. M falls with theta and is convex, and its slope is
 *               -r sum u: Newton's steps from theta = 0 come up to the solution, one power a score, and end where rounding
 *               turns them. At alpha = 2 it is a sum of squares, and the solution a square root.
 *            2. The support is decided by a rule on sorted prefixes: the k-th best is in it exactly if for those before it
 *               M is below 1 at tau = z_k. theta and sum u are then found from the support alone. So candidates outside
 *               the support change no bit.
 *            3. u = (1 + (z - theta))^(1/a), by our own powers (powers.h): near in sums that decide, rounded correctly in
 *               weights and in sum u.
 *            4. Omega*(z) = max <p, z> - |p| + 1 over the simplex = tau + 1: with |u| = 1 and q = alpha/a the dual exponent,
 *               <p, z - tau> = sum u (z - tau) / sum u = |p|, as |p| = |u| / sum u = 1 / sum u. So its shares are p theta.
 *            5. du/dz = u^(2-alpha)/a and dtau/dz = p, which gives dp/dz = sum_i w_i (e_i - p) (e_i - p)^T,
 *               w = u^(2-alpha) / (a sum u), with u = p / |p| and sum u = 1 / |p|.
 * Source     Santos, Niculae, McNamee & Martins 2024; Blondel, Martins & Niculae 2020
 */
#include "separation/powers.h"
#include "separation/separation.h"
#include "runtime/runtime.h"
#include <float.h>
#include <math.h>

enum { BLOCK = 64 }; /* numbers that are raised to a power at a time */

/* A map of the family: alpha, a = alpha - 1, and the exponent 1/a; without it where a = 1 */
typedef struct {
    double alpha, a;
    sh_exponent root;
} curve;

static curve curve_of(double alpha) {
    curve c = {.alpha = alpha, .a = alpha - 1};
    if (c.a != 1) c.root = sh_exponent_of(1, c.a);
    return c;
}

static double cutoff(double alpha) {
    (void)alpha;
    return 1;
}

/* Puts u of n <= BLOCK numbers y = z - theta into u; -1 <= y. */
static void roots(const curve *c, const double *y, int64_t n, double *u, sh_rounding rounding) {
    if (c->a != 1)
        sh_powers_1p(u, y, n, &c->root, rounding);
    else
        for (int64_t i = 0; i < n; i++) u[i] = 1 + y[i];
}

/* The sums of u (z - tau), which is M of note 1, and of u. */
typedef struct {
    double m, u;
} sums;

static sums evaluate(const curve *c, const double *z, int64_t n, double theta, sh_rounding rounding) {
    sums s = {0};
    double y[BLOCK], u[BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t size = sh_min(BLOCK, n - first);
        int64_t found = 0;
        for (int64_t i = 0; i < size; i++) { /* without a branch, which could not be predicted */
            y[found] = z[first + i] - theta;
            found += y[found] > -1;
        }
        roots(c, y, found, u, rounding);
        for (int64_t i = 0; i < found; i++) {
            s.m += u[i] * (1 + y[i]);
            s.u += u[i];
        }
    }
    return s;
}

/* Returns theta after some of Newton's steps from the left (note 1); it never exceeds the solution but by rounding. */
static double newton(const curve *c, const double *z, int64_t n, double theta, int steps) {
    const double r = c->alpha / c->a;
    for (int step = 0; step < steps && !sh_pass_stopped(n); step++) {
        const sums s = evaluate(c, z, n, theta, SH_NEAR);
        const double next = theta + (s.m - 1) / (r * s.u);
        if (!(next > theta)) break;
        const double moved = next - theta;
        theta = next;
        if (moved <= 0x1p-54 * theta) break;
    }
    return theta;
}

/* Computes a lower bound by three of Newton's steps, less an allowance for rounding. */
static double bound(double alpha, int64_t n, const double *z) {
    const curve c = curve_of(alpha);
    return newton(&c, z, n, 0, 3) - 1 - 1e-9;
}

/* Tells whether M of the k best is below 1 at tau = z[k]. */
static int leaves_weight(const void *pointer, const double *z, int64_t k) {
    const curve *c = pointer;
    double y[BLOCK], u[BLOCK], m = 0;
    for (int64_t first = 0; first < k && m < 1; first += BLOCK) {
        const int64_t size = sh_min(BLOCK, k - first);
        for (int64_t i = 0; i < size; i++) y[i] = z[first + i] - z[k];
        if (c->a != 1) sh_powers(u, y, size, &c->root, SH_NEAR);
        for (int64_t i = 0; i < size; i++) m += (c->a != 1 ? u[i] : y[i]) * y[i];
    }
    return m < 1;
}

/* Returns theta of a support at alpha = 2, in closed form: with mean and spread of the scores, tau = mean - sqrt((1 - k
 * var) / k). */
static double solve_squares(const double *z, int64_t k) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < k; i++) sum += z[i];
    const double mean = sum / (double)k;
    for (int64_t i = 0; i < k; i++) squares += (z[i] - mean) * (z[i] - mean);
    const double under_root = (1 - squares) / (double)k;
    return 1 + (mean - sqrt(under_root > 0 ? under_root : 0));
}

static void threshold(double alpha, int64_t n, double *z, sh_threshold *t) {
    const curve c = curve_of(alpha);
    int64_t candidates = sh_numbers_above(z, n, -1);
    if (candidates > 48) candidates = sh_numbers_above(z, candidates, bound(alpha, candidates, z));
    sh_sort_descending(z, candidates);
    const int64_t size = candidates > 1 ? sh_support_size(leaves_weight, &c, z, candidates) : candidates;
    double theta = 0;
    if (size > 1) theta = c.a == 1 ? solve_squares(z, size) : newton(&c, z, size, 0, 200);
    *t = (sh_threshold){.parameter = alpha, .theta = theta, .tau = theta - 1, .unit = 1};
    t->lowest = candidates ? z[size - 1] : 0;
    t->sum = evaluate(&c, z, size, theta, SH_ROUNDED).u;
}

static void weights(const sh_threshold *t, int64_t n, double *z) {
    const curve c = curve_of(t->parameter);
    double y[BLOCK], u[BLOCK];
    int index[BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t size = sh_min(BLOCK, n - first);
        double *out = z + first;
        int64_t found = 0;
        for (int i = 0; i < size; i++) {
            y[found] = out[i] - t->theta;
            index[found] = i;
            found += out[i] >= t->lowest && y[found] > -1;
            out[i] = 0;
        }
        roots(&c, y, found, u, SH_ROUNDED);
        for (int64_t i = 0; i < found; i++) out[index[i]] = u[i] / t->sum;
    }
}

/* Computes the share of a weight in Psi* (note 4). */
static double conjugate_share(const sh_threshold *t, double z, double p) {
    (void)z;
    return p * t->theta;
}

/* Returns |p|_alpha of weights whose largest is `most`, which is not 0; scratch[n]. */
static double norm(double alpha, int64_t n, const double *p, double most, double *scratch) {
    double sum = 0;
    sh_weight_powers(alpha, most, n, p, scratch);
    for (int64_t i = 0; i < n; i++) sum += scratch[i];
    return most * pow(sum, 1 / alpha);
}

static double largest(int64_t n, const double *p) {
    double most = 0;
    for (int64_t i = 0; i < n; i++) most = p[i] > most ? p[i] : most;
    return most;
}

/* Computes slopes (note 5) in units of the largest, which is that of the least weight beyond alpha = 2. */
static double slopes(double alpha, int64_t n, const double *p, double *w) {
    const double most = largest(n, p), norm_p = most > 0 ? norm(alpha, n, p, most, w) : 1;
    double unit = most;
    for (int64_t i = 0; alpha > 2 && i < n; i++)
        if (p[i] > 0) unit = fmin(unit, p[i]);
    sh_weight_powers(2 - alpha, unit, n, p, w);
    return unit > 0 ? pow(unit / norm_p, (2 - alpha) / 2) * sqrt(norm_p / (alpha - 1)) : 0;
}

/* Computes the derivative in alpha. With x = z - tau = u^a: dtau/dalpha = -sum p x log u / alpha, and dp/dalpha = p (q
 * - <p, q>) with q = (-log u - dtau/dalpha / x) / a; p / x = |p| u^(2 - alpha). */
static double vjp_alpha(double alpha, int64_t n, const double *p, const double *g, double *dq) {
    const double most = largest(n, p), norm_p = most > 0 ? norm(alpha, n, p, most, dq) : 1, a = alpha - 1;
    double dtau = 0, sum = 0, mean = 0;
    for (int64_t i = 0; i < n; i++)
        if (p[i] > 0) dtau -= p[i] * pow(p[i] / norm_p, a) * log(p[i] / norm_p) / alpha;
    for (int64_t i = 0; i < n; i++) { /* p q */
        const double u = p[i] / norm_p;
        dq[i] = p[i] > 0 ? (-p[i] * log(u) - dtau * norm_p * pow(u, 2 - alpha)) / a : 0;
        mean += p[i] > 0 ? p[i] * g[i] : 0;
    }
    for (int64_t i = 0; i < n; i++) sum += p[i] > 0 ? dq[i] * (g[i] - mean) : 0;
    return sum;
}

static int powers_of(double alpha, sh_roots *powers) {
    const double a = alpha - 1;
    *powers = (sh_roots){.a = 1, .power = 1 / a, .form = SH_ROOT_POWER, .normed = 1};
    if (a == 1 || a == 0.5) powers->form = a == 1 ? SH_ROOT_LINE : SH_ROOT_SQUARE;
    return a >= 0x1p-5 && a <= 0x1p5;
}

const sh_map sh_map_normmax = {
    .name = "normmax",
    .alias = "normmax2",
    .formula = "u / sum u, u = [z - tau]_+^(1 / (alpha - 1)), |u|_alpha = 1",
    .regulariser = "|p|_alpha - 1",
    .source = "Santos, Niculae, McNamee & Martins 2024; Blondel, Martins & Niculae 2020",
    .parameter = {.name = "alpha", .standard = 2, .least = 1, .most = DBL_MAX, .above = 1},
    .has_energy = 1,
    .shift_invariant = 1,
    .cutoff = cutoff,
    .threshold = threshold,
    .weights = weights,
    .bound = bound,
    .conjugate_share = conjugate_share,
    .roots = powers_of,
    .slopes = slopes,
    .centre_is_weights = 1,
    .vjp_parameter = vjp_alpha,
};
