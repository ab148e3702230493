/* entmax.c: p = [(alpha-1) z - tau]_+^(1/(alpha-1)) with sum 1, for alpha > 1 other than 2.
 *
 * Given      z[n]  scores relative to the best, any order
 * Returned   tau
 * Cost       O(n) to prune, then a sort of what may be in the support and O(k) evaluations; no allocation
 * Notes      1. With a = alpha - 1 and theta = (tau + 1)/a the map is p = exp(log1p(a (z - theta)) / a), which
 *               goes over into softmax as a -> 0 without cancellation.
 *            2. The support is decided by a rule on sorted prefixes: the k-th best is in it exactly if those
 *               before it have a mass below 1 at the threshold that would give it weight 0. theta is then found
 *               from the support alone. So candidates outside the support change no bit.
 *            3. theta lies in [0, (1 - k^-a)/a], since 1/k <= max p <= 1.
 * Source     Peters, Niculae & Martins 2019; Correia, Niculae & Martins 2019
 */
#include "separation.h"
#include <math.h>

static double window(double alpha) { return 1 / (alpha - 1); }

/* p = r^(1/a) for r = 1 + a (z - theta) */
static inline double power(double a, double r_less_1) {
    double r = 1 + r_less_1;
    if (r <= 0) return 0;
    if (a == 0.5) return r * r;
    return exp(log1p(r_less_1) / a);
}

static double weight(const sh_threshold *t, double z) {
    double a = t->parameter - 1;
    return power(a, a * (z - t->theta));
}

/* sum p and its slope, -d/dtheta sum p = sum p^(1-a) = sum p / r */
typedef struct {
    double mass, slope;
} sums;

static sums evaluate(double a, const double *z, int64_t n, double theta) {
    sums s = {0};
    if (a == 0.5) {
        enum { SUMS = 4 };
        double mass[SUMS] = {0}, slope[SUMS] = {0};
        for (int64_t i = 0; i < n; i += SUMS)
            for (int l = 0; l < SUMS && i + l < n; l++) {
                double r = 1 + 0.5 * (z[i + l] - theta);
                r = r > 0 ? r : 0;
                mass[l] += r * r;
                slope[l] += r;
            }
        s.mass = (mass[0] + mass[1]) + (mass[2] + mass[3]);
        s.slope = (slope[0] + slope[1]) + (slope[2] + slope[3]);
        return s;
    }
    for (int64_t i = 0; i < n; i++) {
        double x = a * (z[i] - theta), p = power(a, x);
        s.mass += p;
        if (p > 0) s.slope += p / (1 + x);
    }
    return s;
}

/* mass of the k best at the theta under which z[k] has weight 0 */
static double prefix_mass(double a, const double *z, int64_t k) {
    double mass = 0;
    for (int64_t i = 0; i < k && mass < 1; i++) mass += pow(a * (z[i] - z[k]), 1 / a);
    return mass;
}

/* The size of the support of sorted scores: prefix masses grow with k, so it is found by bisection. */
static int64_t support(double a, const double *z, int64_t n) {
    int64_t inside = 1, outside = n + 1;
    while (outside - inside > 1) {
        int64_t k = inside + (outside - inside) / 2;
        if (prefix_mass(a, z, k - 1) < 1)
            inside = k;
        else
            outside = k;
    }
    return inside;
}

/* f(theta) = sum p - 1 falls. For alpha <= 2 it is convex: Newton, kept inside a bracket; beyond, its slope has
 * poles where a pattern enters: bisection. */
static double solve(double a, const double *z, int64_t k) {
    if (k == 1) return 0;
    double low = 0, high = -expm1(-a * log((double)k)) / a, theta = low;
    for (int step = 0; step < 200; step++) {
        sums s = evaluate(a, z, k, theta);
        if (s.mass > 1)
            low = theta;
        else
            high = theta;
        double next = theta + (s.mass - 1) / s.slope;
        if (a > 1 || !(next > low && next < high)) next = low + (high - low) / 2;
        if (next == theta || next <= low || next >= high || fabs(next - theta) <= 0x1p-54 * next) return next;
        theta = next;
    }
    return theta;
}

/* alpha = 1.5 in closed form: with y = z/2, mean and spread over the support, tau = mean - sqrt((1 - k var)/k).
 * Returns theta, polished by Newton's steps against the cancellation in the sums. */
static double solve_half(const double *z, int64_t n) {
    double sum = 0, squares = 0;
    int64_t k = 0;
    for (; k < n; k++) { /* the rule of note 2, from running sums */
        double y = z[k] / 2;
        if (k && (double)k * y * y - 2 * y * sum + squares >= 1) break;
        sum += y;
        squares += y * y;
    }
    double mean = sum / (double)k, rest = (1 - (squares - sum * mean)) / (double)k;
    double theta = 2 * (mean - sqrt(rest > 0 ? rest : 0) + 1);
    for (int step = 0; step < 2; step++) {
        sums s = evaluate(0.5, z, k, theta);
        theta += (s.mass - 1) / s.slope;
    }
    return theta;
}

static int64_t keep_above(double *z, int64_t n, double bottom) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) { /* without a branch, which could not be predicted */
        double x = z[i];
        z[kept] = x;
        kept += x > bottom;
    }
    return kept;
}

/* Newton's steps from the left never pass the solution where f is convex, so what is at or below their
 * threshold (less a margin for rounding) is outside the support. Only an economy before the sort. */
static int64_t prune(double a, double *z, int64_t n) {
    if (a > 1) return n;
    double theta = 0;
    for (int step = 0; step < 8 && n > 16; step++) {
        sums s = evaluate(a, z, n, theta);
        if (!(s.mass > 1)) break;
        theta += (s.mass - 1) / s.slope;
        double bottom = theta - 1 / a - 1e-9 * (1 + 1 / a);
        n = keep_above(z, n, bottom);
        if (s.mass < 1.1) break;
    }
    return n;
}

static void threshold(double alpha, int64_t n, double *z, sh_threshold *t) {
    double a = alpha - 1;
    int64_t left = prune(a, z, keep_above(z, n, -1 / a));
    sh_sort_descending(z, left);
    t->parameter = alpha;
    t->theta = left == 1 ? 0 : a == 0.5 ? solve_half(z, left) : solve(a, z, support(a, z, left));
    t->tau = a * t->theta - 1;
}

/* Omega(p) = sum (p^alpha - p) / (alpha (alpha - 1)), stable as alpha -> 1 */
static double omega(double alpha, double p) {
    return p > 0 ? p * expm1((alpha - 1) * log(p)) / (alpha * (alpha - 1)) : 0;
}

const sh_map sh_map_entmax = {
    .name = "entmax",
    .has_energy = 1,
    .window = window,
    .threshold = threshold,
    .weight = weight,
    .omega = omega,
};
