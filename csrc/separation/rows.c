/* rows.c: the separation maps, their thresholds, vector-Jacobian products and conjugates, for one row of scores.
 *
 * Notes  1. NaN makes its whole row NaN (support size 0). -inf is a mask: weight 0. A row with nothing but -inf
 *           gives zeros, tau = +inf, conjugate -inf. +inf shares the weight with its equals, tau = +inf.
 *        2. Thresholds and weights are solved in double from the candidates near the best and rounded once.
 */
#include "separation/separation.h"
#include <math.h>
#include <string.h>

enum { MOST_LANES = 64 }; /* of any kernel */

typedef struct {
    const sh_kernels *k;
    const sh_map *named, *map; /* that of its number; the special case that it is at its parameter, or the same */
    int64_t n;
    double parameter;
    const void *in[3];
    void *out[2];
    void *scratch;
    double top;              /* largest entry of in[0]; NaN if any is */
    double best[MOST_LANES]; /* the largest score of each part of the row (sh_kernels.maximum), in the row's type */
} row;

size_t sh_row_scratch(int64_t n) { return ((size_t)n + 1) * (sizeof(sh_candidate) + 4 * sizeof(double)); }

static sh_candidate *candidates_of(const row *r) { return r->scratch; }
/* Returns array `which` of n doubles of the scratch memory, 0 to 3. */
static double *scratch_of(const row *r, int which) {
    return (double *)(candidates_of(r) + r->n) + (size_t)which * (size_t)r->n;
}
/* Returns input `which` in double. */
static double *input(const row *r, int which) {
    double *x = scratch_of(r, which);
    r->k->to_double(x, r->in[which], r->n);
    return x;
}

/* Writes number i of output `which`. */
static void put(const row *r, int which, int64_t i, double value) {
    r->k->from_double((char *)r->out[which] + (size_t)i * r->k->size, &value, 1);
}
static void fill(const row *r, double value) {
    if (value == 0)
        memset(r->out[0], 0, (size_t)r->n * r->k->size);
    else
        for (int64_t j = 0; j < r->n; j++) put(r, 0, j, value);
}
/* Writes the outputs of a threshold: tau, and the size of the support. */
static void put_tau_and_size(const row *r, double tau, int64_t support) {
    put(r, 0, 0, tau);
    memcpy(r->out[1], &support, sizeof support);
}

/* Writes the values of the first n candidates where they stand, 0 elsewhere. */
static void put_candidates(const row *r, const double *value, int64_t n) {
    const sh_candidate *c = candidates_of(r);
    fill(r, 0);
    if (r->k->size == sizeof(float)) {
        float *y = r->out[0];
        for (int64_t i = 0; i < n; i++) y[c[i].position] = (float)value[i];
    } else {
        double *y = r->out[0];
        for (int64_t i = 0; i < n; i++) y[c[i].position] = value[i];
    }
}

/* Tells whether the largest score is finite; else a row has NaN or infinity, or is all masked (note 1). */
static int is_ordinary(const row *r) { return isfinite(r->top); }
/* Writes the weights of a row that is not ordinary (note 1). */
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
    put_tau_and_size(r, nan ? NAN : INFINITY, nan || r->top < 0 ? 0 : r->k->count(r->in[0], r->n, INFINITY));
    return SH_OK;
}

/* Returns a score less its rounding and that of the largest. */
static double less_rounding(const row *r, double score) { return score - 0x1p-50 * (fabs(r->top) + fabs(score)); }

/* Lists the candidates among n scores, those of at least `lowest` less its rounding, and writes z = score - top of each.
 * Returns how many. */
static int64_t candidates_above(const row *r, const void *scores, int64_t n, double lowest) {
    sh_candidate *c = candidates_of(r);
    double *z = scratch_of(r, 0);
    int64_t found = r->k->collect(scores, n, less_rounding(r, lowest), 0, c);
    for (int64_t i = 0; i < found; i++) z[i] = c[i].score - r->top;
    return found;
}

/* Returns a score that is at most the threshold. The threshold of some scores is a lower bound of that of all; that of the
 * best score of each part of the row is near it, so few other scores are candidates. */
static double least_candidate(const row *r) {
    double cutoff = r->map->cutoff(r->parameter);
    if (r->n < 4 * r->k->lanes) return r->top - cutoff;
    int64_t found = candidates_above(r, r->best, r->k->lanes, r->top - cutoff / 2);
    return r->top + r->map->bound(r->parameter, found, scratch_of(r, 0));
}

/* Finds the candidates that can have weight, and their threshold; returns how many. */
static int64_t solve(const row *r, double least, sh_threshold *t) {
    int64_t n = candidates_above(r, r->in[0], r->n, least);
    r->map->threshold(r->parameter, n, scratch_of(r, 0), t);
    return n;
}

/* Returns the weights of the first n candidates under a threshold. */
static const double *weights_of(const row *r, const sh_map *map, const sh_threshold *t, int64_t n) {
    const sh_candidate *c = candidates_of(r);
    double *p = scratch_of(r, 0);
    for (int64_t i = 0; i < n; i++) p[i] = c[i].score - r->top;
    map->weights(t, n, p);
    return p;
}

/* Writes the weights of a map with full support. */
static sh_status put_all_weights(row *r) {
    if (r->map->weights_in_double) {
        double *p = scratch_of(r, 0);
        r->k->to_double(p, r->in[0], r->n);
        r->map->weights_in_double(r->parameter, r->n, p);
        r->k->from_double(r->out[0], p, r->n);
        return SH_OK;
    }
    if (r->out[0] != r->in[0]) memcpy(r->out[0], r->in[0], (size_t)r->n * r->k->size);
    /* of maps that no shift changes the scale is the largest score */
    const double scale = r->map->shift_invariant ? r->top : r->map->row_scale(r->k, r->out[0], r->n);
    r->k->multiply_by(r->out[0], 1 / r->map->row_weights(r->k, r->out[0], r->n, /* beta */ 1, r->parameter, scale),
                      r->n);
    return SH_OK;
}

/* Writes the weights of a row of floats with many candidates, where a threshold near theirs tells them (near.c); returns
 * whether it does. */
static int put_near_weights(const row *r, double least) {
    enum { FEW = 32 };
    if (r->k->size != sizeof(float)) return 0;
    const double lowest = less_rounding(r, least);
    const int64_t candidates = r->k->count(r->in[0], r->n, lowest);
    const int all = candidates > r->n / 2;
    if (candidates < FEW) return 0;
    float *p = r->out[0], *scores = (float *)candidates_of(r), *near = scores + r->n;
    int32_t *index = (int32_t *)(near + r->n);
    if (all && r->in[0] != p) near = p;
    if (!all) r->k->compress(r->in[0], r->n, lowest, scores, index);
    if (!sh_near_weights(r->map, r->parameter, all ? r->in[0] : scores, all ? r->n : candidates, r->top, lowest,
                         scratch_of(r, 0), near))
        return 0;
    if (!all) {
        fill(r, 0);
        for (int64_t i = 0; i < candidates; i++) p[index[i]] = near[i];
    } else if (near != p) {
        memcpy(p, near, (size_t)r->n * sizeof *p);
    }
    return 1;
}

static sh_status put_weights(row *r) {
    if (r->map->signed_weights ? r->top != r->top || r->top == INFINITY : !is_ordinary(r))
        return put_special_weights(r);
    if (!r->map->cutoff) return put_all_weights(r);
    const double least = least_candidate(r);
    if (put_near_weights(r, least)) return SH_OK;
    sh_threshold t;
    const int64_t n = solve(r, least, &t);
    put_candidates(r, weights_of(r, r->map, &t, n), n);
    return SH_OK;
}

/* Writes the weights of the k best scores, ties by the lower index; -inf is never among them. */
static sh_status put_top(row *r) {
    if (r->top != r->top || r->top == -INFINITY) return put_special_weights(r);
    sh_candidate *c = candidates_of(r);
    double *z = scratch_of(r, 0), sum = 0, top = r->top;
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
    const int cutoff = r->map->cutoff != NULL;
    sh_threshold t;
    for (int64_t i = 0; i < n; i++) z[i] = c[i].score - top;
    if (cutoff)
        r->map->threshold(r->map->parameter.standard, n, z, &t);
    else
        for (int64_t i = 0; i < n; i++) sum += exp(z[i]);
    if (cutoff) weights_of(r, r->map, &t, n);
    fill(r, 0);
    for (int64_t i = 0; i < n; i++) put(r, 0, c[i].position, cutoff ? z[i] : exp(z[i]) / sum);
    return SH_OK;
}

static sh_status put_threshold(row *r) {
    if (r->n == 0 || !is_ordinary(r)) return put_special_threshold(r);
    if (!r->map->cutoff) { /* no threshold; every score that is not masked has weight */
        put_tau_and_size(r, -INFINITY, r->k->count(r->in[0], r->n, -r->k->largest));
        return SH_OK;
    }
    sh_threshold t;
    int64_t n = solve(r, least_candidate(r), &t), support = 0;
    const double *p = weights_of(r, r->map, &t, n);
    for (int64_t i = 0; i < n; i++) support += p[i] > 0;
    put_tau_and_size(r, t.unit * r->top + t.tau, support);
    return SH_OK;
}

/* Returns whether a row of doubles has NaN; or, of scores, +inf, too. */
static int not_numbers(const double *x, int64_t n, int scores) {
    int found = 0;
    for (int64_t j = 0; x && j < n; j++) found |= x[j] != x[j] || (scores && x[j] == INFINITY);
    return found;
}

static sh_status put_vjp(row *r) {
    if (r->map->row_vjp && r->map->row_vjp(r->k, r->parameter, r->n, r->in[0], r->in[1], scratch_of(r, 0), r->out[0]))
        return SH_OK;
    const int scores = r->map->vjp_takes_scores;
    double *z = scores ? input(r, 0) : NULL, *p = input(r, scores), *g = input(r, scores + 1);
    double *dz = scratch_of(r, 3);
    if (not_numbers(z, r->n, 1) || not_numbers(p, r->n, 0) || not_numbers(g, r->n, 0)) {
        fill(r, NAN);
        return SH_OK;
    }
    if (scores) {
        sh_map_vjp(r->map, r->parameter, r->n, z, p, g, dz);
        r->k->from_double(r->out[0], dz, r->n);
        return SH_OK;
    }
    sh_candidate *c = candidates_of(r); /* those with weight, moved to the front */
    int64_t found = 0;
    for (int64_t i = 0; i < r->n; i++) {
        const double weight = p[i], above = g[i];
        p[found] = weight;
        g[found] = above;
        c[found].position = i;
        found += weight != 0;
    }
    sh_map_vjp(r->map, r->parameter, found, NULL, p, g, dz);
    put_candidates(r, dz, found);
    return SH_OK;
}

static sh_status put_vjp_parameter(row *r) {
    if (!r->named->vjp_parameter) return SH_UNDEFINED;
    const double *p = input(r, 0), *g = input(r, 1);
    const int has_nan = not_numbers(p, r->n, 0) || not_numbers(g, r->n, 0);
    put(r, 0, 0, has_nan ? NAN : r->named->vjp_parameter(r->parameter, r->n, p, g, scratch_of(r, 2)));
    return SH_OK;
}

/* Writes Psi*(z) = max z + sum (p (z - max z) - omega(p)): no difference of large squares (theory: theorem 2.1). */
static sh_status put_conjugate(row *r) {
    if (!r->map->has_energy) return SH_UNDEFINED;
    double above_top = 0; /* also where top is not finite */
    if (is_ordinary(r) && !r->map->cutoff) {
        above_top = r->map->conjugate(r->n, input(r, 0), r->top);
    } else if (is_ordinary(r)) {
        sh_threshold t;
        int64_t n = solve(r, least_candidate(r), &t);
        const double *p = weights_of(r, r->map, &t, n);
        for (int64_t i = 0; i < n; i++)
            above_top += p[i] > 0 ? r->map->conjugate_share(&t, candidates_of(r)[i].score - r->top, p[i]) : 0;
    }
    put(r, 0, 0, r->top + above_top);
    return SH_OK;
}

static sh_status map_row(sh_model model, const sh_map *map, sh_row_part part, sh_type type, int64_t n,
                         const void *const in[], void *const out[], void *scratch) {
    static sh_status (*const functions[])(row *r) = {
        [SH_ROW_PART_WEIGHTS] = put_weights,
        [SH_ROW_PART_THRESHOLD] = put_threshold,
        [SH_ROW_PART_VJP] = put_vjp,
        [SH_ROW_PART_CONJUGATE] = put_conjugate,
        [SH_ROW_PART_VJP_PARAMETER] = put_vjp_parameter,
        [SH_ROW_PART_TOP] = put_top,
    };
    if ((unsigned)part >= SH_ROW_PARTS || n < 0 || type > SH_FLOAT64) return SH_BAD_ARGUMENT;
    const int vjp = part == SH_ROW_PART_VJP, inputs = vjp                                 ? 2 + map->vjp_takes_scores
                                                      : part == SH_ROW_PART_VJP_PARAMETER ? 2
                                                                                          : 1;
    row r; /* `best` is filled where it is read */
    r.k = sh_kernels_of(type);
    r.named = sh_map_numbered((int)model.separation);
    r.map = map;
    r.n = n;
    r.parameter = model.parameter;
    r.scratch = scratch;
    for (int i = 0; i < inputs; i++) r.in[i] = in[i];
    for (int i = 0; i < (part == SH_ROW_PART_THRESHOLD ? 2 : 1); i++) r.out[i] = out[i];
    r.top = inputs == 1 ? r.k->maximum(in[0], n, r.best) : 0;
    return functions[part](&r);
}

sh_status sh_map_row(sh_model model, sh_row_part part, sh_type type, int64_t n, const void *const in[],
                     void *const out[], void *scratch) {
    const sh_map *map;
    if (part == SH_ROW_PART_TOP) { /* the parameter is k, not that of the map */
        map = sh_map_numbered((int)model.separation);
        if (map && (map->parameter.name || !(model.parameter >= 1))) map = NULL;
    } else {
        map = sh_map_of(&model);
    }
    return map ? map_row(model, map, part, type, n, in, out, scratch) : SH_BAD_ARGUMENT;
}

sh_status sh_row(sh_row_op op, sh_type type, int64_t n, double parameter, const void *const in[], void *const out[],
                 void *scratch) {
    static const struct {
        sh_separation separation;
        sh_row_part part;
    } operations[SH_ROW_MAPS] = {
        [SH_ROW_SOFTMAX] = {SH_SOFTMAX, SH_ROW_PART_WEIGHTS},
        [SH_ROW_SPARSEMAX] = {SH_SPARSEMAX, SH_ROW_PART_WEIGHTS},
        [SH_ROW_ENTMAX] = {SH_ENTMAX, SH_ROW_PART_WEIGHTS},
        [SH_ROW_POLYNOMIAL] = {SH_POLYNOMIAL, SH_ROW_PART_WEIGHTS},
        [SH_ROW_TOPK_SOFTMAX] = {SH_SOFTMAX, SH_ROW_PART_TOP},
        [SH_ROW_TOPK_SPARSEMAX] = {SH_SPARSEMAX, SH_ROW_PART_TOP},
        [SH_ROW_SPARSEMAX_THRESHOLD] = {SH_SPARSEMAX, SH_ROW_PART_THRESHOLD},
        [SH_ROW_ENTMAX_THRESHOLD] = {SH_ENTMAX, SH_ROW_PART_THRESHOLD},
        [SH_ROW_SOFTMAX_VJP] = {SH_SOFTMAX, SH_ROW_PART_VJP},
        [SH_ROW_SPARSEMAX_VJP] = {SH_SPARSEMAX, SH_ROW_PART_VJP},
        [SH_ROW_ENTMAX_VJP] = {SH_ENTMAX, SH_ROW_PART_VJP},
        [SH_ROW_ENTMAX_VJP_ALPHA] = {SH_ENTMAX, SH_ROW_PART_VJP_PARAMETER},
        [SH_ROW_POLYNOMIAL_VJP] = {SH_POLYNOMIAL, SH_ROW_PART_VJP},
        [SH_ROW_SOFTMAX_CONJUGATE] = {SH_SOFTMAX, SH_ROW_PART_CONJUGATE},
        [SH_ROW_SPARSEMAX_CONJUGATE] = {SH_SPARSEMAX, SH_ROW_PART_CONJUGATE},
        [SH_ROW_ENTMAX_CONJUGATE] = {SH_ENTMAX, SH_ROW_PART_CONJUGATE},
    };
    if ((unsigned)op >= SH_ROW_MAPS) return SH_BAD_ARGUMENT;
    const sh_model model = {operations[op].separation, parameter};
    return sh_map_row(model, operations[op].part, type, n, in, out, scratch);
}
