/* entmax.c: p = [(alpha-1) z - tau]_+^(1/(alpha-1)) with sum 1, for alpha > 1 other than 2.
 *
 * Given      z[n]  scores relative to the best, any order
 * Returned   tau
 * Cost       O(n) to prune, then a sort of what may be in the support and O(k) evaluations; no allocation
 * Notes      1. The unknown is u = tau for 1.5 <= alpha < 2, where p = (a z - u)^(1/a), a = alpha - 1, keeps the digits
 *               of small weights, and u = theta = (tau + 1)/a below, where p = exp(log1p(a (z - u)) / a) goes over into
 *               softmax as a -> 0 without cancellation. Beyond alpha = 2 the root is steep where r = a z - u is small:
 *               one rounding of u would change weights by (2^-53)^(1/a), and -u may be as small as k^-a. There the
 *               unknown is the least weight of the support, q: with e its score, r = a (z - e) + q^a, so that
 *               p = (c^a + q^a)^(1/a) with c = (a (z - e))^(1/a), in which no digit is lost.
 *            2. The support is decided by a rule on sorted prefixes: the k-th best is in it exactly if those
 *               before it have a mass below 1 at the threshold that would give it weight 0. u is then found
 *               from the support alone. So candidates outside the support change no bit.
 * Source     Peters, Niculae & Martins 2019; Correia, Niculae & Martins 2019
 */
#include "separation.h"
#include "../runtime/runtime.h"
#include <math.h>

static double window(double alpha) { return 1 / (alpha - 1); }

static inline int near_softmax(double a) { return a < 0.5; }

/* r = 1 + a (z - theta) = a z - tau */
static inline double root(double a, double z, double u) { return near_softmax(a) ? 1 + a * (z - u) : a * z - u; }

/* p = r^(1/a) */
static inline double power(double a, double z, double u) {
    double r = root(a, z, u);
    if (r <= 0) return 0;
    if (near_softmax(a)) return exp(log1p(a * (z - u)) / a);
    return a == 0.5 ? r * r : pow(r, 1 / a);
}

/* The same beyond alpha = 2 (note 1): c of a score `above` the lowest of the support, and (c^a + q^a)^(1/a). */
static double part_above(double a, double above) { return pow(a * above, 1 / a); }
static double joined(double a, double c, double q, double *ratio) {
    double most = fmax(c, q);
    *ratio = most > 0 ? pow(fmin(c, q) / most, a) : 0;
    return most * exp(log1p(*ratio) / a);
}

static double weight(const sh_threshold *t, double z) {
    double a = t->parameter - 1, ratio;
    if (a > 1) return z < t->lowest ? 0 : joined(a, part_above(a, z - t->lowest), t->least, &ratio);
    return power(a, z, near_softmax(a) ? t->theta : t->tau);
}

/* sum p and its slope -d/du sum p, which is sum p / r in theta and sum p / (a r) in tau */
typedef struct {
    double mass, slope;
} sums;

static sums evaluate(double a, const double *z, int64_t n, double u) {
    sums s = {0};
    if (a == 0.5) {
        enum { SUMS = 4 };
        double mass[SUMS] = {0}, slope[SUMS] = {0};
        for (int64_t i = 0; i < n; i += SUMS)
            for (int l = 0; l < SUMS && i + l < n; l++) {
                double r = 0.5 * z[i + l] - u;
                r = r > 0 ? r : 0;
                mass[l] += r * r;
                slope[l] += 2 * r;
            }
        s.mass = (mass[0] + mass[1]) + (mass[2] + mass[3]);
        s.slope = (slope[0] + slope[1]) + (slope[2] + slope[3]);
        return s;
    }
    for (int64_t i = 0; i < n; i++) {
        double p = power(a, z[i], u);
        s.mass += p;
        if (p > 0) s.slope += p / root(a, z[i], u);
    }
    if (!near_softmax(a)) s.slope /= a;
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
    while (outside - inside > 1 && !sh_called_off(n)) {
        int64_t k = inside + (outside - inside) / 2;
        if (prefix_mass(a, z, k - 1) < 1)
            inside = k;
        else
            outside = k;
    }
    return inside;
}

/* sum p - 1 falls with u and is convex for alpha <= 2: Newton, kept inside a bracket. 1/k <= max p <= 1 gives theta in
 * [0, (1 - k^-a)/a]. */
static double solve(double a, const double *z, int64_t k) {
    double low = near_softmax(a) ? 0 : -1;
    if (k == 1) return low;
    double high = near_softmax(a) ? -expm1(-a * log((double)k)) / a : -pow((double)k, -a), u = low;
    for (int step = 0; step < 200 && !sh_called_off(k); step++) {
        sums s = evaluate(a, z, k, u);
        if (s.mass > 1)
            low = u;
        else
            high = u;
        double next = u + (s.mass - 1) / s.slope;
        if (!(next > low && next < high)) next = low + (high - low) / 2;
        if (next == u || next <= low || next >= high || fabs(next - u) <= 0x1p-54 * fabs(next)) return next;
        u = next;
    }
    return u;
}

/* The least weight q of a support of k sorted scores, alpha > 2; z is destroyed. The sum of (c^a + q^a)^(1/a) grows with q,
 * is convex, and its slope lies between 1 and k: Newton's steps from 1/k, where it is at least 1, come down to the
 * solution, and end where rounding turns them. */
static double solve_steep(double a, double *z, int64_t k) {
    double lowest = z[k - 1], q = 1 / (double)k;
    for (int64_t i = 0; i < k; i++) z[i] = part_above(a, z[i] - lowest);
    for (int step = 0; step < 200 && !sh_called_off(k); step++) {
        sums s = {0};
        for (int64_t i = 0; i < k; i++) {
            double ratio, p = joined(a, z[i], q, &ratio);
            s.mass += p;
            s.slope += (z[i] < q ? 1 : ratio) / (1 + ratio) * (p / q); /* (q / p)^(a - 1) */
        }
        double next = q - (s.mass - 1) / s.slope;
        if (!(next < q)) return q;
        if (!(next > 0)) return 0;
        q = next;
    }
    return q;
}

/* alpha = 1.5 in closed form: with y = z/2, mean and spread over the support, tau = mean - sqrt((1 - k var)/k),
 * polished by Newton's steps against the cancellation in the sums. */
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
    double tau = mean - sqrt(rest > 0 ? rest : 0);
    for (int step = 0; step < 2; step++) {
        sums s = evaluate(0.5, z, k, tau);
        tau += (s.mass - 1) / s.slope;
    }
    return tau;
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

/* Newton's steps from the left never pass the solution where the sum is convex, so what is at or below their
 * threshold (less a margin for rounding) is outside the support. Only an economy before the sort. */
static int64_t prune(double a, double *z, int64_t n) {
    if (a > 1) return n;
    double u = near_softmax(a) ? 0 : -1;
    for (int step = 0; step < 8 && n > 48 && !sh_called_off(n); step++) {
        sums s = evaluate(a, z, n, u);
        if (!(s.mass > 1)) break;
        u += (s.mass - 1) / s.slope;
        double bottom = near_softmax(a) ? u - 1 / a : u / a;
        n = keep_above(z, n, bottom - 1e-9 * (1 + 1 / a));
        if (s.mass < 1.1) break;
    }
    return n;
}

/* Three of Newton's steps from the left, where the sum is convex. */
static double bound(double alpha, int64_t n, const double *z) {
    double a = alpha - 1, u = near_softmax(a) ? 0 : -1;
    for (int step = 0; step < 3 && a <= 1; step++) {
        sums s = evaluate(a, z, n, u);
        if (s.mass > 1) u += (s.mass - 1) / s.slope;
    }
    return (near_softmax(a) ? u - 1 / a : u / a) - 1e-9 * (1 + 1 / a);
}

static void threshold(double alpha, int64_t n, double *z, sh_threshold *t) {
    double a = alpha - 1;
    int64_t left = prune(a, z, keep_above(z, n, -1 / a));
    sh_sort_descending(z, left);
    int64_t size = left > 1 && a != 0.5 ? support(a, z, left) : 1;
    double u;
    if (a > 1) {
        t->lowest = left ? z[size - 1] : 0;
        t->least = size > 1 ? solve_steep(a, z, size) : 1;
        u = a * t->lowest - pow(t->least, a);
    } else {
        u = left > 1 && a == 0.5 ? solve_half(z, left) : solve(a, z, size);
    }
    t->parameter = alpha;
    t->theta = near_softmax(a) ? u : (u + 1) / a;
    t->tau = near_softmax(a) ? a * u - 1 : u;
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
    .bound = bound,
    .omega = omega,
};
