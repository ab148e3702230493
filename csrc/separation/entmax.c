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

/* p for x = a (z - theta) */
static inline double power(double a, double x) {
    if (x <= -1) return 0;
    if (a == 0.5) return (1 + x) * (1 + x);
    return exp(log1p(x) / a);
}

static double weight(const sh_threshold *t, double z) {
    double a = t->parameter - 1;
    return power(a, a * (z - t->theta));
}

/* mass of the k best at the theta under which z[k] has weight 0 */
static double prefix_mass(double a, const double *z, int64_t k) {
    double mass = 0;
    for (int64_t i = 0; i < k && mass < 1; i++) {
        double gap = a * (z[i] - z[k]);
        mass += a == 0.5 ? gap * gap : pow(gap, 1 / a);
    }
    return mass;
}

/* f(theta) = sum p - 1 falls. For alpha <= 2 it is convex: Newton, kept inside a bracket; beyond, its slope has
 * poles where a pattern enters: bisection. */
static double solve(double a, const double *z, int64_t k) {
    double low = 0, high = -expm1(-a * log((double)k)) / a, theta = low;
    for (int step = 0; step < 200; step++) {
        double mass = 0, slope = 0;
        for (int64_t i = 0; i < k; i++) {
            double p = power(a, a * (z[i] - theta));
            mass += p;
            if (p > 0 && a <= 1) slope += a == 0.5 ? sqrt(p) : pow(p, 1 - a);
        }
        if (mass > 1)
            low = theta;
        else
            high = theta;
        double next = theta + (mass - 1) / slope;
        if (a > 1 || !(next > low && next < high)) next = low + (high - low) / 2;
        if (next == theta || next <= low || next >= high || fabs(next - theta) <= 0x1p-54 * next) return next;
        theta = next;
    }
    return theta;
}

/* Newton's steps from the left never pass the solution where f is convex, so what is at or below their
 * threshold (less a margin for rounding) is outside the support. Only an economy before the sort. */
static int64_t prune(double a, double *z, int64_t n) {
    if (a > 1) return n;
    double theta = 0;
    for (int step = 0; step < 8 && n > 16; step++) {
        double mass = 0, slope = 0;
        for (int64_t i = 0; i < n; i++) {
            double p = power(a, a * (z[i] - theta));
            mass += p;
            if (p > 0) slope += a == 0.5 ? sqrt(p) : pow(p, 1 - a);
        }
        if (!(mass > 1)) break;
        theta += (mass - 1) / slope;
        double bottom = theta - 1 / a - 1e-9 * (1 + 1 / a);
        int64_t kept = 0;
        for (int64_t i = 0; i < n; i++)
            if (z[i] > bottom) z[kept++] = z[i];
        n = kept;
        if (mass < 1.5) break;
    }
    return n;
}

static void threshold(double alpha, int64_t n, double *z, sh_threshold *t) {
    double a = alpha - 1;
    int64_t left = 0;
    for (int64_t i = 0; i < n; i++)
        if (z[i] > -1 / a) z[left++] = z[i];
    left = prune(a, z, left);
    sh_sort_descending(z, left);
    int64_t inside = 1, outside = left + 1; /* sizes: the best is in the support, and mass grows with k */
    while (outside - inside > 1) {
        int64_t k = inside + (outside - inside) / 2;
        if (prefix_mass(a, z, k - 1) < 1)
            inside = k;
        else
            outside = k;
    }
    t->parameter = alpha;
    t->theta = inside == 1 ? 0 : solve(a, z, inside);
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
