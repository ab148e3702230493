/* entmax.c: p = [(alpha-1) z - tau]_+^(1/(alpha-1)) with sum 1, for alpha > 1 other than 2.
 *
 * Given      z[n]  scores relative to the best, any order
 * Returned   tau
 * Cost       O(n) to prune, then a sort of what may be in the support and O(k) evaluations; no allocation
 * Notes      1. The unknown is u = tau for 1.5 <= alpha < 2, where p = (a z - u)^(1/a), a = alpha - 1, keeps the digits
 *               of small weights, and u = theta = (tau + 1)/a below, where p = (1 + a (z - u))^(1/a) goes over into
 *               softmax as a -> 0 without cancellation. Beyond alpha = 2 the root is steep where r = a z - u is small:
 *               one rounding of u would change weights by (2^-53)^(1/a), and -u may be as small as k^-a. There the
 *               unknown is the least weight of the support, q: with e its score, r = a (z - e) + q^a, so that
 *               p = (c^a + q^a)^(1/a) with c = (a (z - e))^(1/a), in which no digit is lost.
 *            2. The support is decided by a rule on sorted prefixes: the k-th best is in it exactly if those
 *               before it have weights of a sum below 1 at the threshold that would give it weight 0. u is then found
 *               from the support alone. So candidates outside the support change no bit.
 *            3. Powers are our own (powers.h), so that bits do not depend on a C library. In sums, and in the factor that
 *               joins q to c, they are near, within (1 + |log p|) 2^-50 of p, which is at most 2^-50 of the sum. In the
 *               weights that are returned they are rounded correctly: below alpha = 2 the 1/a-th power, 1/a the exact
 *               quotient, of r = a z - u or of the exact sum 1 + y, y = a (z - u); beyond, c. r, y and a (z - e) are
 *               rounded as products and sums are.
 * Source     Peters, Niculae & Martins 2019; Correia, Niculae & Martins 2019 (gradient in alpha); Blondel, Martins & Niculae
 *            2020 (conjugate)
 */
#include "separation/powers.h"
#include "separation/separation.h"
#include "runtime/runtime.h"
#include <float.h>
#include <math.h>

double sh_entmax_cutoff(double alpha) { return 1 / (alpha - 1); }

static inline int near_softmax(double a) { return a < 0.5; }

/* A map of the family: a = alpha - 1, and the exponents 1/a and a; without exponents where a = 1/2, whose powers are squares */
typedef struct {
    double a;
    sh_exponent root, power;
} curve;

static curve curve_of(double alpha) {
    double a = alpha - 1;
    if (a == 0.5) return (curve){.a = a};
    return (curve){a, sh_exponent_of(1, a), sh_exponent_of(a, 1)};
}

enum { BLOCK = 64 }; /* numbers that are raised to a power at a time */

/* Raises n numbers to p = r^(1/a); they are r, or near softmax r - 1. */
static void roots(const curve *c, double *p, const double *x, int64_t n, sh_rounding rounding) {
    (near_softmax(c->a) ? sh_powers_1p : sh_powers)(p, x, n, &c->root, rounding);
}

/* Puts r = a z - u, or near softmax r - 1 = a (z - u), of those z with r > 0 in x, and their places in `index`, if that is
 * not NULL; returns how many. */
static int64_t positive_roots(const curve *c, const double *z, int64_t n, double u, double *x, int *index) {
    const int shifted = near_softmax(c->a);
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) { /* without a branch, which could not be predicted */
        x[found] = shifted ? c->a * (z[i] - u) : c->a * z[i] - u;
        if (index) index[found] = (int)i;
        found += x[found] > -shifted;
    }
    return found;
}

/* Puts (c^a + q^a)^(1/a) of n numbers c in p, beyond alpha = 2 (note 1), and (the lesser / the larger)^a in ratio. */
static void joined(const curve *curve, const double *c, int64_t n, double q, double *p, double *ratio) {
    for (int64_t i = 0; i < n; i++) {
        const double larger = c[i] > q ? c[i] : q;
        p[i] = larger > 0 ? (c[i] > q ? q : c[i]) / larger : 0;
    }
    sh_powers(ratio, p, n, &curve->power, SH_NEAR);
    sh_powers_1p(p, ratio, n, &curve->root, SH_NEAR);
    for (int64_t i = 0; i < n; i++) p[i] *= c[i] > q ? c[i] : q;
}

/* Puts (a (z - lowest))^(1/a) of n numbers z in c, which may be z. */
static void parts_above(const curve *curve, const double *z, int64_t n, double lowest, double *c,
                        sh_rounding rounding) {
    double above[BLOCK];
    for (int64_t i = 0; i < n; i++) above[i] = curve->a * (z[i] - lowest);
    sh_powers(c, above, n, &curve->root, rounding);
}

static void weights(const sh_threshold *t, int64_t n, double *z) {
    const curve curve = curve_of(t->parameter);
    const double u = near_softmax(curve.a) ? t->theta : t->tau;
    double x[BLOCK], p[BLOCK], part[BLOCK], ratio[BLOCK];
    int index[BLOCK];
    if (curve.a == 0.5) {
        for (int64_t i = 0; i < n; i++) {
            double r = 0.5 * z[i] - u;
            z[i] = r > 0 ? r * r : 0;
        }
        return;
    }
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t size = sh_min(BLOCK, n - first);
        double *out = z + first;
        int64_t found = 0;
        if (curve.a > 1) {
            for (int i = 0; i < size; i++) {
                x[found] = out[i];
                index[found] = i;
                found += out[i] > t->lowest;
                out[i] = out[i] == t->lowest ? t->least : 0;
            }
            parts_above(&curve, x, found, t->lowest, part, SH_ROUNDED);
            joined(&curve, part, found, t->least, p, ratio);
        } else {
            found = positive_roots(&curve, out, size, u, x, index);
            roots(&curve, p, x, found, SH_ROUNDED);
            for (int i = 0; i < size; i++) out[i] = 0;
        }
        for (int i = 0; i < found; i++) out[index[i]] = p[i];
    }
}

/* The sum of p, and its slope -d/du sum p, which is sum p / r in theta and sum p / (a r) in tau */
typedef struct {
    double total, slope;
} sums;

static sums evaluate(const curve *c, const double *z, int64_t n, double u) {
    sums s = {0};
    if (c->a == 0.5) {
        enum { SUMS = 4 };
        double total[SUMS] = {0}, slope[SUMS] = {0};
        for (int64_t i = 0; i < n; i += SUMS)
            for (int l = 0; l < SUMS && i + l < n; l++) {
                double r = 0.5 * z[i + l] - u;
                r = r > 0 ? r : 0;
                total[l] += r * r;
                slope[l] += 2 * r;
            }
        s.total = (total[0] + total[1]) + (total[2] + total[3]);
        s.slope = (slope[0] + slope[1]) + (slope[2] + slope[3]);
        return s;
    }
    const int shifted = near_softmax(c->a);
    double x[BLOCK], p[BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t found = positive_roots(c, z + first, sh_min(BLOCK, n - first), u, x, NULL);
        roots(c, p, x, found, SH_NEAR);
        for (int64_t i = 0; i < found; i++) x[i] = p[i] / (x[i] + shifted);
        for (int64_t i = 0; i < found; i++) {
            s.total += p[i];
            s.slope += x[i];
        }
    }
    if (!shifted) s.slope /= c->a;
    return s;
}

/* Tells whether the weights of the k best sum to less than 1 at the theta under which z[k] has weight 0. Where the sum
 * of r tells, no power is taken: r <= 1, so r^(1/a) >= r for a > 1, and the other way round. */
static int leaves_weight(const void *pointer, const double *z, int64_t k) {
    const curve *c = pointer;
    double x[BLOCK], p[BLOCK], total = 0, sum = 0;
    for (int64_t i = 0; i < k; i++) sum += c->a * (z[i] - z[k]);
    if ((c->a > 1) == (sum >= 1)) return sum < 1;
    if (k == 1 && c->a < 0x1p40 && sum < 0.999) return 1; /* the power does not round to 1 */
    for (int64_t first = 0; first < k && total < 1; first += BLOCK) {
        const int64_t size = sh_min(BLOCK, k - first);
        for (int64_t i = 0; i < size; i++) x[i] = c->a * (z[first + i] - z[k]);
        sh_powers(p, x, size, &c->root, SH_NEAR);
        for (int64_t i = 0; i < size; i++) total += p[i];
    }
    return total < 1;
}

/* Returns u of a support of k scores, alpha <= 2. sum p - 1 falls with u and is convex: Newton, kept inside a bracket.
 * 1/k <= max p <= 1 gives theta in [0, (1 - k^-a)/a]. */
static double solve(const curve *c, const double *z, int64_t k) {
    const double a = c->a;
    double low = near_softmax(a) ? 0 : -1;
    if (k == 1) return low;
    const sh_exponent fall = sh_exponent_of(-a, 1);
    double high = near_softmax(a) ? -sh_power_less_1((double)k, &fall) / a : -sh_power((double)k, &fall), u = low;
    for (int step = 0; step < 200 && !sh_pass_stopped(k); step++) {
        sums s = evaluate(c, z, k, u);
        if (s.total > 1)
            low = u;
        else
            high = u;
        double next = u + (s.total - 1) / s.slope;
        if (!(next > low && next < high)) next = low + (high - low) / 2;
        if (next == u || next <= low || next >= high || fabs(next - u) <= 0x1p-54 * fabs(next)) return next;
        u = next;
    }
    return u;
}

/* Returns the least weight q of a support of k sorted scores, alpha > 2; z is destroyed. The sum of (c^a + q^a)^(1/a)
 * grows with q, is convex, and its slope lies between 1 and k: Newton's steps from where it is at least 1 come down to
 * the solution. That is so at 1/k; and each term is at least c, and m (c + q) with m = 2^(1/a - 1) >= 1 + (1/a - 1) log
 * 2, which give two more such q. Steps end where rounding turns them, or where the next one, about (a - 1)/2 times the
 * square of this, would be below rounding. */
static double solve_steep(const curve *curve, double *z, int64_t k) {
    double lowest = z[k - 1], q = 1 / (double)k, p[BLOCK], ratio[BLOCK], sum_c = 0;
    for (int64_t first = 0; first < k; first += BLOCK) {
        const int64_t size = sh_min(BLOCK, k - first);
        parts_above(curve, z + first, size, lowest, z + first, SH_NEAR);
        for (int64_t i = 0; i < size; i++) sum_c += z[first + i];
    }
    const double mean = 1 + (1 / curve->a - 1) * 0.6931471806, rounding = (double)(k + 4) * 0x1p-50;
    q = fmin(q, fmin(1 - sum_c, (1 - mean * sum_c) / (1 + mean * (double)(k - 1))) + rounding);
    for (int step = 0; step < 200 && !sh_pass_stopped(k); step++) {
        sums s = {0};
        for (int64_t first = 0; first < k; first += BLOCK) {
            const int64_t size = sh_min(BLOCK, k - first);
            const double *c_of = z + first;
            joined(curve, c_of, size, q, p, ratio);
            for (int64_t i = 0; i < size; i++) {
                s.total += p[i];
                s.slope += (c_of[i] < q ? 1 : ratio[i]) / (1 + ratio[i]) * (p[i] / q); /* (q / p)^(a - 1) */
            }
        }
        double next = q - (s.total - 1) / s.slope, fall = (q - next) / q;
        if (!(next < q)) return q;
        if (!(next > 0)) return 0;
        q = next;
        if (fall * fall * curve->a < 0x1p-54) return q; /* the next step would be below rounding */
    }
    return q;
}

/* Returns tau at alpha = 1.5, in closed form: with y = z/2, mean and spread over the support, tau = mean - sqrt((1 - k var)/k),
 * polished by Newton's steps against the cancellation in the sums. */
static double solve_half(const curve *c, const double *z, int64_t n) {
    double sum = 0, squares = 0;
    int64_t k = 0;
    for (; k < n; k++) { /* the rule of note 2, from running sums */
        double y = z[k] / 2;
        if (k && (double)k * y * y - 2 * y * sum + squares >= 1) break;
        sum += y;
        squares += y * y;
    }
    double mean = sum / (double)k, under_root = (1 - (squares - sum * mean)) / (double)k;
    double tau = mean - sqrt(under_root > 0 ? under_root : 0);
    for (int step = 0; step < 2; step++) {
        sums s = evaluate(c, z, k, tau);
        tau += (s.total - 1) / s.slope;
    }
    return tau;
}

/* Returns how far a step goes from u, where sum p is s: Newton's on (sum p)^a, the norm of r with exponent 1/a. Below alpha
 * = 2 that is convex in u, so steps from the left never pass the solution; it is nearly a line, so they are few. */
static double norm_step(double a, sums s) { return -s.total * expm1(-a * log(s.total)) / (a * s.slope); }

/* Returns u where sum r is 1, or a little before. As r <= 1, r^(1/a) >= r beyond alpha = 2: sum p is at least 1 there. */
static double start_steep(double a, const double *z, int64_t n) {
    double u = -1;
    for (int step = 0; step < 8; step++) {
        double sum = 0, count = 0;
        for (int64_t i = 0; i < n; i++) {
            const double r = a * z[i] - u, in = r > 0;
            sum += in * r;
            count += in;
        }
        if (!(sum > 1 + 1e-9)) break;
        u += (sum - 1) / count;
    }
    return u;
}

/* Returns the score at u, less an allowance for rounding. */
static double score_at(double a, double u) { return (near_softmax(a) ? u - 1 / a : u / a) - 1e-9 * (1 + 1 / a); }

/* Returns a lower bound on u by at most `steps` steps; drops scores that lie below it from `dropped`, if that is not NULL:
 * of *left, which is n at first, those stay. z may be `dropped`. */
static double approach(const curve *c, const double *z, int64_t n, int steps, double *dropped, int64_t *left) {
    const double a = c->a;
    double u = near_softmax(a) ? 0 : a > 1 ? start_steep(a, z, n) : -1, next = u;
    for (int i = 0; i < steps && n > 0 && !sh_pass_stopped(n); i++) {
        if (dropped) *left = n = sh_numbers_above(dropped, n, score_at(a, u));
        const sums s = evaluate(c, z, n, next);
        if (s.total > 1) {
            u = next;
            next += norm_step(a, s);
            if (a <= 1) u = next; /* beyond alpha = 2 a step may go too far */
        } else {
            next = u + (next - u) / 4;
        }
        if (s.total < 1 + 1e-4 && (a <= 1 || s.total > 1)) break;
    }
    return u;
}

/* Drops scores at or below a lower bound on the threshold. Only an economy before the sort. Returns how many stay. */
static int64_t prune(const curve *c, double *z, int64_t n) {
    if (n <= 48) return n;
    const double u = approach(c, z, n, /* steps */ 8, z, &n);
    return sh_numbers_above(z, n, score_at(c->a, u));
}

static double bound(double alpha, int64_t n, const double *z) {
    const curve c = curve_of(alpha);
    return score_at(c.a, approach(&c, z, n, /* steps */ 3, NULL, NULL));
}

static void threshold(double alpha, int64_t n, double *z, sh_threshold *t) {
    const curve c = curve_of(alpha);
    const double a = c.a;
    int64_t candidates = prune(&c, z, sh_numbers_above(z, n, -1 / a));
    sh_sort_descending(z, candidates);
    int64_t size = candidates > 1 && a != 0.5 ? sh_support_size(leaves_weight, &c, z, candidates) : 1;
    double u;
    if (a > 1) {
        t->lowest = candidates ? z[size - 1] : 0;
        t->least = size > 1 ? solve_steep(&c, z, size) : 1;
        u = a * t->lowest - (size > 1 ? sh_power(t->least, &c.power) : 1);
    } else {
        u = candidates > 1 && a == 0.5 ? solve_half(&c, z, candidates) : solve(&c, z, size);
    }
    t->parameter = alpha;
    t->theta = near_softmax(a) ? u : (u + 1) / a;
    t->tau = near_softmax(a) ? a * u - 1 : u;
    t->unit = a;
}

/* Computes the share of a weight in Psi*, with Omega(p) = sum (p^alpha - p) / (alpha (alpha - 1)), stable as alpha -> 1 */
static double conjugate_share(const sh_threshold *t, double z, double p) {
    const double alpha = t->parameter;
    const sh_exponent e = sh_exponent_of(alpha - 1, 1);
    return p * z - (p > 0 ? p * sh_power_less_1(p, &e) / (alpha * (alpha - 1)) : 0);
}

/* Computes phi(x) e^-m, phi(x) = (e^x - 1 - x) / x^2 */
static double phi(double x, double m) {
    if (m > 0) return (exp(x - m) - (1 + x) * exp(-m)) / x / x;
    if (fabs(x) > 0.5) return (expm1(x) - x) / (x * x);
    double term = 0.5, sum = 0;
    for (int k = 3; k < 20; k++) {
        sum += term;
        term *= x / k;
    }
    return sum;
}

/* Computes the derivative in alpha. With u = log p, a = alpha - 1, q = u^2 phi(-a u), H = -sum p u, Q = sum p q, D =
 * sum p e^(-a u): dp_i/dalpha = p_i ((Q - q_i) - a (u_i Q + H q_i)) / D, which is Correia et al.'s proposition 1 with
 * its cancelling powers of 1/a divided out; at a = 0 it is the softmax limit. Q, q and D are in units of e^m, where the
 * largest of them would leave the range. */
static double vjp_alpha(double alpha, int64_t n, const double *p, const double *g, double *q) {
    enum { LARGE = 600 };
    double a = fmin(alpha - 1, 1e300), H = 0, Q = 0, D = 0, result = 0, most = 0;
    for (int64_t j = 0; a > 1 && j < n; j++)
        if (p[j] > 0) most = fmax(most, -a * log(p[j]));
    const double m = most > LARGE ? most : 0;
    for (int64_t j = 0; j < n; j++) {
        q[j] = 0;
        if (!(p[j] > 0)) continue;
        const double u = log(p[j]);
        /* of weights above the least, e^-m is 0 beside it, as is what is divided by u^2 = 0 */
        q[j] = u != 0 || m == 0 ? u * u * phi(-a * u, m) : 0;
        H -= p[j] * u;
        Q += p[j] * q[j];
        D += p[j] * exp(-a * u - m);
    }
    for (int64_t j = 0; j < n; j++)
        if (p[j] > 0) result += g[j] * p[j] * ((Q - q[j]) - a * (log(p[j]) * Q + H * q[j])) / D;
    return result;
}

/* Beyond alpha = 2 powers are too steep at r = 0, and as alpha -> 1 bounds on u too wide. */
static int powers_of(double alpha, sh_roots *powers) {
    const double a = alpha - 1;
    *powers = (sh_roots){.a = a, .power = 1 / a, .form = near_softmax(a) ? SH_ROOT_POWER_1P : SH_ROOT_POWER};
    if (a == 0.5) powers->form = SH_ROOT_SQUARE;
    return a >= 0x1p-20 && a <= 1;
}

static const sh_map *special_case(double alpha) {
    return alpha == 1 ? &sh_map_softmax : alpha == 2 ? &sh_map_sparsemax : NULL;
}

const sh_map sh_map_entmax = {
    .name = "entmax",
    .alias = "entmax15",
    .formula = "[(alpha - 1) z - tau]_+^(1 / (alpha - 1))",
    .regulariser = "(sum p^alpha - 1) / (alpha (alpha - 1))",
    .source = "Peters, Niculae & Martins 2019; Correia, Niculae & Martins 2019 (gradient in alpha); Blondel, Martins & "
              "Niculae 2020 (conjugate)",
    .parameter = {.name = "alpha", .standard = 1.5, .least = 1, .most = DBL_MAX},
    .special_case = special_case,
    .has_energy = 1,
    .shift_invariant = 1,
    .cutoff = sh_entmax_cutoff,
    .threshold = threshold,
    .weights = weights,
    .bound = bound,
    .conjugate_share = conjugate_share,
    .roots = powers_of,
    .slopes = sh_entmax_slopes,
    .row_vjp = sh_entmax_row_vjp,
    .vjp_parameter = vjp_alpha,
    .lanes = SH_LANES_ENTMAX,
};
