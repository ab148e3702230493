/* rows.c: the row maps, their thresholds, vector-Jacobian products and conjugates, for one row of scores.
 *
 * Notes  1. NaN makes its whole row NaN (support size 0). -inf is a mask: weight 0. A row with nothing but -inf
 *           gives zeros, tau = +inf, conjugate -inf. +inf shares the weight with its equals, tau = +inf.
 *        2. Thresholds and weights are solved in double from the candidates near the best and rounded once.
 *        3. p = entmax(z, alpha): dp/dz = diag(s) - s s^T / sum s with s = p^(2 - alpha) on the support; alpha = 1
 *           is softmax, alpha = 2 sparsemax.
 * Source Martins & Astudillo 2016; Peters, Niculae & Martins 2019; Correia, Niculae & Martins 2019 (gradient in
 *        alpha); Blondel, Martins & Niculae 2020 (conjugates)
 */
#include "separation/separation.h"
#include <math.h>
#include <string.h>

enum { SH_LANES = 64 }; /* at least the lanes of any kernel */

typedef struct {
    const sh_kernels *k;
    int64_t n;
    double parameter;
    const void *in[3];
    void *out[2];
    void *scratch;
    double top;            /* largest entry of in[0]; NaN if any is */
    double best[SH_LANES]; /* the best of its parts, of the row's type */
} row;

typedef sh_status (*row_function)(row *r);

size_t sh_row_scratch(int64_t n) { return ((size_t)n + 1) * (sizeof(sh_candidate) + 4 * sizeof(double)); }

static sh_candidate *candidates_of(const row *r) { return r->scratch; }
static double *doubles_of(const row *r, int which) {
    return (double *)(candidates_of(r) + r->n) + (size_t)which * (size_t)r->n;
}
static const double *input(const row *r, int which) {
    double *x = doubles_of(r, which);
    r->k->to_double(x, r->in[which], r->n);
    return x;
}

static void put(const row *r, int which, int64_t at, double value) {
    r->k->from_double((char *)r->out[which] + (size_t)at * r->k->size, &value, 1);
}
static void fill(const row *r, double value) {
    if (value == 0)
        memset(r->out[0], 0, (size_t)r->n * r->k->size);
    else
        for (int64_t j = 0; j < r->n; j++) put(r, 0, j, value);
}
static void put_support(const row *r, double tau, int64_t support) {
    put(r, 0, 0, tau);
    memcpy(r->out[1], &support, sizeof support);
}

/* Rows without an ordinary maximum: NaN, all masked, or infinite. */
static int ordinary(const row *r) { return r->top - r->top == 0; }
static sh_status put_special_weights(row *r) {
    if (r->top != r->top) {
        fill(r, NAN);
    } else if (r->top < 0 || r->n == 0) {
        fill(r, 0);
    } else {
        int64_t n = r->k->collect(r->in[0], r->n, INFINITY, 0, candidates_of(r));
        fill(r, 0);
        for (int64_t i = 0; i < n; i++) put(r, 0, candidates_of(r)[i].position, 1 / (double)n);
    }
    return SH_OK;
}
static sh_status put_special_threshold(row *r) {
    int nan = r->top != r->top;
    put_support(r, nan ? NAN : INFINITY, nan || r->top < 0 ? 0 : r->k->count(r->in[0], r->n, INFINITY));
    return SH_OK;
}
static sh_status put_special_number(row *r) {
    put(r, 0, 0, r->top);
    return SH_OK;
}

/* z of the candidates among n scores at or above `floor`, z = score - top; one rounding of it is allowed for */
static int64_t candidates_above(const row *r, const void *scores, int64_t n, double floor) {
    sh_candidate *c = candidates_of(r);
    double *z = doubles_of(r, 0);
    int64_t found = r->k->collect(scores, n, floor - 0x1p-50 * (fabs(r->top) + fabs(floor)), 0, c);
    for (int64_t i = 0; i < found; i++) z[i] = c[i].score - r->top;
    return found;
}

/* The candidates that can have weight, and their threshold. The threshold of some scores is a lower bound of that of
 * all, and that of the best of each part of the row is a good one, so few others are looked at. */
static int64_t solve(const row *r, const sh_map *map, double alpha, sh_threshold *t) {
    double reach = map->window(alpha), floor = r->top - reach;
    if (r->n >= 4 * r->k->lanes) {
        int64_t found = candidates_above(r, r->best, r->k->lanes, r->top - reach / 2);
        floor = r->top + map->bound(alpha, found, doubles_of(r, 0));
    }
    int64_t n = candidates_above(r, r->in[0], r->n, floor);
    map->threshold(alpha, n, doubles_of(r, 0), t);
    return n;
}

/* Return the weights of the first n candidates under a threshold. */
static const double *weights_of(const row *r, const sh_map *map, const sh_threshold *t, int64_t n) {
    const sh_candidate *c = candidates_of(r);
    double *p = doubles_of(r, 0);
    for (int64_t i = 0; i < n; i++) p[i] = c[i].score - r->top;
    map->weights(t, n, p);
    return p;
}

static sh_status put_weights(row *r, const sh_map *map, double alpha) {
    if (!ordinary(r)) return put_special_weights(r);
    sh_threshold t;
    sh_candidate *c = candidates_of(r);
    int64_t n = solve(r, map, alpha, &t);
    const double *weight = weights_of(r, map, &t, n);
    fill(r, 0);
    if (r->k->size == sizeof(float)) {
        float *p = r->out[0];
        for (int64_t i = 0; i < n; i++) p[c[i].position] = (float)weight[i];
    } else {
        double *p = r->out[0];
        for (int64_t i = 0; i < n; i++) p[c[i].position] = weight[i];
    }
    return SH_OK;
}

static sh_status softmax(row *r) {
    if (!ordinary(r)) return put_special_weights(r);
    if (r->out[0] != r->in[0]) memcpy(r->out[0], r->in[0], (size_t)r->n * r->k->size);
    double sum = r->k->exponentiate(r->out[0], r->n, 1, r->top);
    r->k->scale(r->out[0], 1 / sum, r->n);
    return SH_OK;
}

static sh_status sparsemax(row *r) { return put_weights(r, &sh_map_sparsemax, 2); }

static const sh_map *entmax_map(row *r) {
    sh_model model = {SH_ENTMAX, r->parameter};
    return sh_map_of(&model);
}
static sh_status entmax(row *r) {
    const sh_map *map = entmax_map(r);
    if (!map) return SH_BAD_ARGUMENT;
    return map->window ? put_weights(r, map, r->parameter) : softmax(r);
}

static sh_status polynomial(row *r) {
    sh_model model = {SH_POLYNOMIAL, r->parameter};
    if (!sh_map_of(&model)) return SH_BAD_ARGUMENT;
    if (r->top != r->top || r->top == INFINITY) return put_special_weights(r);
    double *p = doubles_of(r, 0), largest = 0, sum = 0;
    r->k->to_double(p, r->in[0], r->n);
    for (int64_t j = 0; j < r->n; j++) {
        if (isinf(p[j])) p[j] = 0; /* a masked score counts as 0 */
        largest = fmax(largest, fabs(p[j]));
    }
    for (int64_t j = 0; j < r->n; j++) sum += p[j] = largest > 0 ? pow(p[j] / largest, r->parameter) : 0;
    for (int64_t j = 0; j < r->n; j++) p[j] = sum != 0 ? p[j] / sum : 0;
    r->k->from_double(r->out[0], p, r->n);
    return SH_OK;
}

/* Only the k best scores, ties by the lower index; -inf is never among them. */
static sh_status put_top(row *r, int sparse) {
    if (!(r->parameter >= 1)) return SH_BAD_ARGUMENT;
    if (r->top != r->top || r->top == -INFINITY) return put_special_weights(r);
    sh_candidate *c = candidates_of(r);
    double *z = doubles_of(r, 0), sum = 0, top = r->top;
    int64_t n = r->k->collect(r->in[0], r->n, -r->k->largest, 0, c);
    n = sh_select_top(c, n, r->parameter < (double)n ? (int64_t)r->parameter : n);
    if (top == INFINITY) { /* those of the k best that are +inf share the weight */
        int64_t infinite = 0;
        for (int64_t i = 0; i < n; i++) infinite += isinf(c[i].score);
        fill(r, 0);
        for (int64_t i = 0; i < n; i++)
            if (isinf(c[i].score)) put(r, 0, c[i].position, 1 / (double)infinite);
        return SH_OK;
    }
    sh_threshold t;
    for (int64_t i = 0; i < n; i++) z[i] = c[i].score - top;
    if (sparse)
        sh_map_sparsemax.threshold(2, n, z, &t);
    else
        for (int64_t i = 0; i < n; i++) sum += exp(z[i]);
    if (sparse) weights_of(r, &sh_map_sparsemax, &t, n);
    fill(r, 0);
    for (int64_t i = 0; i < n; i++) put(r, 0, c[i].position, sparse ? z[i] : exp(z[i]) / sum);
    return SH_OK;
}
static sh_status topk_softmax(row *r) { return put_top(r, 0); }
static sh_status topk_sparsemax(row *r) { return put_top(r, 1); }

static sh_status put_threshold(row *r, const sh_map *map, double alpha) {
    if (r->n == 0 || !ordinary(r)) return put_special_threshold(r);
    if (!map->window) { /* softmax: no threshold; every score that is not masked has weight */
        put_support(r, -INFINITY, r->k->count(r->in[0], r->n, -r->k->largest));
        return SH_OK;
    }
    sh_threshold t;
    int64_t n = solve(r, map, alpha, &t), support = 0;
    const double *p = weights_of(r, map, &t, n);
    for (int64_t i = 0; i < n; i++) support += p[i] > 0;
    put_support(r, (alpha - 1) * r->top + t.tau, support);
    return SH_OK;
}
static sh_status sparsemax_threshold(row *r) { return put_threshold(r, &sh_map_sparsemax, 2); }
static sh_status entmax_threshold(row *r) {
    const sh_map *map = entmax_map(r);
    return map ? put_threshold(r, map, r->parameter) : SH_BAD_ARGUMENT;
}

/* s = p^(2 - alpha) on the support */
static inline double slope(double p, double alpha) {
    if (p == 0) return 0;
    return alpha == 2 ? 1 : alpha == 1 ? p : alpha == 1.5 ? sqrt(p) : pow(p, 2 - alpha);
}
static sh_status put_vjp(row *r, double alpha) {
    const double *p = input(r, 0), *g = input(r, 1);
    double *dz = doubles_of(r, 2), sum = 0, weighted = 0;
    int bad = 0;
    for (int64_t j = 0; j < r->n; j++) {
        double s = slope(p[j], alpha);
        bad |= p[j] != p[j] || g[j] != g[j];
        sum += s;
        weighted += s != 0 ? s * g[j] : 0;
        dz[j] = s;
    }
    double mean = sum > 0 ? weighted / sum : 0;
    for (int64_t j = 0; j < r->n; j++) dz[j] = bad ? NAN : dz[j] != 0 ? dz[j] * (g[j] - mean) : 0;
    r->k->from_double(r->out[0], dz, r->n);
    return SH_OK;
}
/* The same beyond alpha = 2, where small weights have large s, which may leave the range: s is taken in units of that of
 * the least weight, so that it is at most 1, and the unit comes last, in two factors. Equal g give 0 whatever they are
 * multiplied by, so the mean is taken of what g is above that of one pattern. */
static sh_status put_steep_vjp(row *r, double alpha) {
    const double *p = input(r, 0), *g = input(r, 1);
    double *dz = doubles_of(r, 2), sum = 0, weighted = 0, least = INFINITY, from = 0;
    sh_candidate *c = candidates_of(r); /* the support, and s */
    int64_t n = 0;
    int bad = 0;
    for (int64_t j = 0; j < r->n; j++) {
        bad |= p[j] != p[j] || g[j] != g[j];
        dz[j] = 0;
        c[n].position = j;
        n += p[j] > 0;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!(p[c[i].position] < least)) continue;
        least = p[c[i].position];
        from = g[c[i].position];
    }
    for (int64_t i = 0; i < n; i++) {
        double s = c[i].score = pow(p[c[i].position] / least, 2 - alpha);
        sum += s;
        weighted += s != 0 ? s * (g[c[i].position] - from) : 0;
    }
    double mean = sum > 0 ? weighted / sum : 0, factor = pow(least, (2 - alpha) / 2);
    for (int64_t i = 0; i < n; i++) {
        double d = c[i].score != 0 ? c[i].score * (g[c[i].position] - from - mean) : 0;
        dz[c[i].position] = d != 0 ? d * factor * factor : 0;
    }
    if (bad)
        fill(r, NAN);
    else
        r->k->from_double(r->out[0], dz, r->n);
    return SH_OK;
}
static sh_status softmax_vjp(row *r) { return put_vjp(r, 1); }
static sh_status sparsemax_vjp(row *r) { return put_vjp(r, 2); }
static sh_status entmax_vjp(row *r) {
    if (!entmax_map(r)) return SH_BAD_ARGUMENT;
    return r->parameter > 2 ? put_steep_vjp(r, r->parameter) : put_vjp(r, r->parameter);
}

/* phi(x) e^-m, phi(x) = (e^x - 1 - x) / x^2 */
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

/* <g, dp/dalpha>. With u = log p, a = alpha - 1, q = u^2 phi(-a u), H = -sum p u, Q = sum p q, D = sum p e^(-a u):
 * dp_i/dalpha = p_i ((Q - q_i) - a (u_i Q + H q_i)) / D, which is Correia et al.'s proposition 1 with its
 * cancelling powers of 1/a divided out; at a = 0 it is the softmax limit. Q, q and D are in units of e^m, where the
 * largest of them would leave the range. */
static sh_status entmax_vjp_alpha(row *r) {
    enum { LARGE = 600 };
    if (!entmax_map(r)) return SH_BAD_ARGUMENT;
    const double *p = input(r, 0), *g = input(r, 1);
    double *q = doubles_of(r, 2), a = fmin(r->parameter - 1, 1e300), H = 0, Q = 0, D = 0, result = 0, most = 0;
    int bad = 0;
    for (int64_t j = 0; a > 1 && j < r->n; j++)
        if (p[j] > 0) most = fmax(most, -a * log(p[j]));
    double m = most > LARGE ? most : 0;
    for (int64_t j = 0; j < r->n; j++) {
        bad |= p[j] != p[j] || g[j] != g[j];
        q[j] = 0;
        if (!(p[j] > 0)) continue;
        double u = log(p[j]);
        /* of weights above the least, e^-m is 0 beside it, as is what is divided by u^2 = 0 */
        q[j] = u != 0 || m == 0 ? u * u * phi(-a * u, m) : 0;
        H -= p[j] * u;
        Q += p[j] * q[j];
        D += p[j] * exp(-a * u - m);
    }
    for (int64_t j = 0; j < r->n; j++)
        if (p[j] > 0) result += g[j] * p[j] * ((Q - q[j]) - a * (log(p[j]) * Q + H * q[j])) / D;
    put(r, 0, 0, bad ? NAN : result);
    return SH_OK;
}

/* p = z^n / sum z^n: dz_j = n z_j^(n-1) / (sum z^n) (g_j - <p, g>), with r = z / max|z| against overflow */
static sh_status polynomial_vjp(row *r) {
    sh_model model = {SH_POLYNOMIAL, r->parameter};
    if (!sh_map_of(&model)) return SH_BAD_ARGUMENT;
    const double *z = input(r, 0), *p = input(r, 1), *g = input(r, 2);
    double *dz = doubles_of(r, 3), order = r->parameter, largest = 0, sum = 0, mean = 0;
    int bad = 0;
    for (int64_t j = 0; j < r->n; j++) {
        bad |= z[j] != z[j] || p[j] != p[j] || g[j] != g[j] || z[j] == INFINITY;
        if (!isinf(z[j])) largest = fmax(largest, fabs(z[j]));
        mean += p[j] != 0 ? p[j] * g[j] : 0;
    }
    for (int64_t j = 0; j < r->n; j++) sum += isinf(z[j]) || largest == 0 ? 0 : pow(z[j] / largest, order);
    for (int64_t j = 0; j < r->n; j++) {
        double unit = isinf(z[j]) || sum == 0 ? 0 : order * pow(z[j] / largest, order - 1) / (sum * largest);
        dz[j] = bad ? NAN : unit != 0 ? unit * (g[j] - mean) : 0;
    }
    r->k->from_double(r->out[0], dz, r->n);
    return SH_OK;
}

/* Psi*(z) = z_max + sum (p (z - z_max) - omega(p)): no difference of large squares (theory: theorem 2.1) */
static sh_status put_conjugate(row *r, const sh_map *map, double alpha) {
    if (!ordinary(r)) return put_special_number(r);
    double rest = 0;
    if (!map->window) {
        const double *z = input(r, 0);
        for (int64_t j = 0; j < r->n; j++) rest += exp(z[j] - r->top);
        rest = log(rest);
    } else {
        sh_threshold t;
        int64_t n = solve(r, map, alpha, &t);
        const double *p = weights_of(r, map, &t, n);
        for (int64_t i = 0; i < n; i++)
            rest += p[i] > 0 ? p[i] * (candidates_of(r)[i].score - r->top) - map->omega(alpha, p[i]) : 0;
    }
    put(r, 0, 0, r->top + rest);
    return SH_OK;
}
static sh_status softmax_conjugate(row *r) { return put_conjugate(r, &sh_map_softmax, 1); }
static sh_status sparsemax_conjugate(row *r) { return put_conjugate(r, &sh_map_sparsemax, 2); }
static sh_status entmax_conjugate(row *r) {
    const sh_map *map = entmax_map(r);
    return map ? put_conjugate(r, map, r->parameter) : SH_BAD_ARGUMENT;
}

static const row_function functions[SH_ROW_MAPS] = {
    [SH_ROW_SOFTMAX] = softmax,
    [SH_ROW_SPARSEMAX] = sparsemax,
    [SH_ROW_ENTMAX] = entmax,
    [SH_ROW_POLYNOMIAL] = polynomial,
    [SH_ROW_TOPK_SOFTMAX] = topk_softmax,
    [SH_ROW_TOPK_SPARSEMAX] = topk_sparsemax,
    [SH_ROW_SPARSEMAX_THRESHOLD] = sparsemax_threshold,
    [SH_ROW_ENTMAX_THRESHOLD] = entmax_threshold,
    [SH_ROW_SOFTMAX_VJP] = softmax_vjp,
    [SH_ROW_SPARSEMAX_VJP] = sparsemax_vjp,
    [SH_ROW_ENTMAX_VJP] = entmax_vjp,
    [SH_ROW_ENTMAX_VJP_ALPHA] = entmax_vjp_alpha,
    [SH_ROW_POLYNOMIAL_VJP] = polynomial_vjp,
    [SH_ROW_SOFTMAX_CONJUGATE] = softmax_conjugate,
    [SH_ROW_SPARSEMAX_CONJUGATE] = sparsemax_conjugate,
    [SH_ROW_ENTMAX_CONJUGATE] = entmax_conjugate,
};

sh_status sh_row(sh_row_op op, sh_type type, int64_t n, double parameter, const void *const in[], void *const out[],
                 void *scratch) {
    if ((unsigned)op >= SH_ROW_MAPS || n < 0 || type > SH_FLOAT64) return SH_BAD_ARGUMENT;
    int inputs = op == SH_ROW_POLYNOMIAL_VJP ? 3 : op >= SH_ROW_SOFTMAX_VJP && op < SH_ROW_POLYNOMIAL_VJP ? 2 : 1;
    int outputs = op == SH_ROW_SPARSEMAX_THRESHOLD || op == SH_ROW_ENTMAX_THRESHOLD ? 2 : 1;
    row r = {.k = sh_kernels_of(type), .n = n, .parameter = parameter, .scratch = scratch};
    for (int i = 0; i < inputs; i++) r.in[i] = in[i];
    for (int i = 0; i < outputs; i++) r.out[i] = out[i];
    r.top = inputs == 1 ? r.k->maximum(in[0], n, r.best) : 0;
    return functions[op](&r);
}
