/* features.c: retrieval by kernels that are products of features, k(x, xi) = <phi(x), phi(xi)> (sparsehopfield.h).
 *
 *   T(x) = sum_j k(x, xi_j) v_j / sum_j k(x, xi_j) = <phi(x), S> / <phi(x), z>
 *
 * needs of the patterns the D sums S_f = sum_j phi_f(xi_j) v_j and z_f = sum_j phi_f(xi_j) alone.
 *
 * 1. Logarithms. phi_f = exp(exponent) factor, with exponents that may lie far beyond a number's range. S_f and z_f are
 *    therefore in units of exp(top_f), top_f the largest exponent of feature f so far, so that z_f is at least 1 (ELU,
 *    RANDOM). Patterns with a larger exponent first rescale the sums by exp(old top - new top). Exponents are double, as
 *    their rounding errors are relative errors of weights.
 * 2. Blocks. Rows go through in blocks that stay in cache: first the block's features phi (n, D), then S += phi^T V.
 * 3. Outputs. T(x) = sum_f w_f S_f / z_f, with weights w_f proportional to phi_f(x) exp(top_f) z_f, is a mean of D means.
 *    log(exp(top_f) z_f) is added to the query's exponents; their maximum is taken off, so that nothing overflows.
 * 4. Causal. Query i sees patterns 0 to i. Of a block of rows,
 *        T = (L V + Phi_q S) / (L 1 + Phi_q z),    L = the lower triangle of Phi_q Phi^T, and S, z of the rows before.
 *    Features are in units of the largest exponents of block and rows before. Where features of a later pattern of the
 *    block are far larger than those that a query sees, its normaliser, the denominator, is near underflow; then the
 *    rows are taken anew in halves of the block, in units of their own.
 * 5. Parts. Rows are cut into at most 16 parts, by their number alone. Parts have sums of their own, which are added in
 *    order: the same bits for any number of threads.
 */
#include "features/sums.h"
#include "kernels/lanes.h"
#include "runtime/workspace.h"
#include <assert.h>
#include <math.h>
#include <string.h>

typedef sh_feature_job job;
typedef sh_feature_workspace workspace;
typedef sh_block block;
enum { BLOCK = SH_FEATURE_BLOCK, CAUSAL = SH_CAUSAL_BLOCK, PARTS = SH_FEATURE_PARTS };

size_t sh_feature_layout(const job *j, void *memory, workspace *w) {
    const size_t size = j->k->size, wide = sizeof(double);
    const int64_t D = j->f->size, d = j->f->d, v = j->f->v, n = j->rows, both = j->patterns && j->queries,
                  random = j->f->map == SH_RANDOM;
    sh_workspace s = {memory, 0};
    w->patterns = sh_take(&s, n * d, size);
    w->values = sh_take(&s, n * v, size);
    w->queries = sh_take(&s, n * d, size);
    w->phi = sh_take(&s, n * D, size);
    w->phi_q = sh_take(&s, both ? n * D : 0, size);
    w->product = sh_take(&s, D * v, size);
    w->kernels = sh_take(&s, both ? n * (n + 1) : 0, size);
    w->prefix_total = sh_take(&s, both ? D : 0, size);
    w->by_feature = sh_take(&s, D, wide);
    w->rows64 = sh_take(&s, random ? n * d : d, wide);
    w->exponents = sh_take(&s, random ? n * D : D, wide);
    w->top = sh_take(&s, D, wide);
    w->bias = sh_take(&s, n, wide);
    w->normaliser = sh_take(&s, n, wide);
    return s.used;
}

/* --- rows ----------------------------------------------------------------------------------------- */

/* Checks that squared lengths, and exponents at this beta, are in range; `name` is the argument, row 0 its number `first`. */
static sh_status check_rows(const job *j, const char *name, double beta, block b, int64_t n, int64_t d, int64_t first,
                            sh_context *context) {
    const double most = j->f->type == SH_FLOAT32 ? 1e70 : 1e300; /* so that features are finite */
    double squares = 0;
    if (j->checked) return SH_OK;
    if (b.ld == d)
        squares = j->k->squares(b.data, n * d);
    else
        for (int64_t i = 0; i < n; i++) squares += j->k->squares(sh_feature_at(j, b.data, i * b.ld), d);
    if (squares < INFINITY && beta * squares <= most) return SH_OK;
    for (int64_t i = 0; i < n; i++) {
        const char *row = sh_feature_at(j, b.data, i * b.ld);
        squares = j->k->dot(row, row, d);
        if (!(squares < INFINITY))
            return sh_fail(context, j->k->max_abs(row, d) < INFINITY ? SH_OVERFLOW : SH_NOT_FINITE, name, first + i);
        if (beta * squares > most) return sh_fail(context, SH_OVERFLOW, "beta", first + i);
    }
    return SH_OK;
}

/* Scales a row of d numbers to length 1; returns 0 where it has none. row64: scratch (d). */
static int normalise(const job *j, char *row, double *row64, int64_t d) {
    double largest = j->k->max_abs(row, d);
    if (!(largest > 0)) return 0;
    j->k->to_double(row64, row, d);
    for (int64_t c = 0; c < d; c++) row64[c] /= largest; /* so that no square underflows */
    const double length = sqrt(j->k64->dot(row64, row64, d));
    for (int64_t c = 0; c < d; c++) row64[c] /= length;
    j->k->from_double(row, row64, d);
    return 1;
}

/* Gives n rows from number `first` on: where they lie, or copied and widened where they cannot be used in place or a copy
 * is wanted. */
static block load(const job *j, const sh_rows *rows, int64_t first, int64_t n, int want_copy, char *copy) {
    const char *from = (const char *)rows->data + first * rows->stride;
    const int64_t size = (int64_t)j->k->size;
    if (rows->type == j->f->type && rows->stride >= rows->d * size && rows->stride % size == 0 && !want_copy)
        return (block){from, rows->stride / size, NULL};
    for (int64_t i = 0; i < n; i++, from += rows->stride) {
        char *to = sh_feature_at(j, copy, i * rows->d);
        if (rows->type == j->f->type)
            memcpy(to, from, (size_t)(rows->d * size));
        else
            sh_widen(j->k, rows, from, rows->d, to);
    }
    return (block){copy, rows->d, NULL};
}

/* Gives padding features of 0, so that it has no part in a maximum or a sum: its numbers are -INFINITY. */
static void mask_padding(const job *j, block *x, int64_t first, int64_t n, workspace *w) {
    x->padding = j->padding + first;
    for (int64_t i = 0; i < j->f->d; i++) w->rows64[i] = -INFINITY;
    for (int64_t i = 0; j->f->map != SH_RANDOM && i < n; i++)
        if (x->padding[i]) j->k->from_double(sh_feature_at(j, w->patterns, i * j->f->d), w->rows64, j->f->d);
}

sh_status sh_load_patterns(const job *j, int64_t first, int64_t n, workspace *w, block *x, block *v,
                           sh_context *context) {
    const int64_t d = j->f->d;
    *x = load(j, j->patterns, first, n, j->f->cosine || j->padding, w->patterns);
    sh_status status = check_rows(j, "patterns", j->f->cosine ? 0 : j->f->beta, *x, n, d, first, context);
    for (int64_t i = 0; j->f->cosine && status == SH_OK && i < n; i++)
        if (!normalise(j, sh_feature_at(j, w->patterns, i * d), w->rows64, d))
            status = sh_fail(context, SH_ZERO_ROW, "patterns", first + i);
    if (j->f->cosine && status == SH_OK) status = check_rows(j, "patterns", j->f->beta, *x, n, d, first, context);
    *v = *x;
    if (status == SH_OK && j->padding) mask_padding(j, x, first, n, w);
    if (status != SH_OK || !j->values) return status;
    *v = load(j, j->values, first, n, 0, w->values);
    return j->values->unchecked ? SH_OK : check_rows(j, "values", 0, *v, n, j->f->v, first, context);
}

sh_status sh_load_queries(const job *j, int64_t first, int64_t n, workspace *w, block *q, sh_context *context) {
    *q = load(j, j->queries, first, n, 0, w->queries);
    return check_rows(j, "queries", j->f->beta, *q, n, j->f->d, first, context);
}

/* --- states --------------------------------------------------------------------------------------- */

double sh_rescale_factor(double from, double to) { return from == to ? 1 : exp(from - to); }

void sh_clear_sums(const sh_features *f, sh_feature_state s) {
    for (int64_t i = 0; i < f->size; i++) s.top[i] = -INFINITY;
    memset(s.total, 0, (size_t)f->size * sizeof(double));
    memset(s.sum, 0, (size_t)(f->size * f->v) * sizeof(double));
}

void sh_rescale_sums(const job *j, sh_feature_state s, const double *top) {
    for (int64_t i = 0; i < j->f->size; i++) {
        assert(!(top[i] < s.top[i]));
        if (s.top[i] == top[i]) continue;
        const double factor = sh_rescale_factor(s.top[i], top[i]);
        s.top[i] = top[i];
        s.total[i] *= factor;
        j->k64->multiply_by(s.sum + i * j->f->v, factor, j->f->v);
    }
}

void sh_merge_sums(const job *j, sh_feature_state s, sh_feature_state other, double *top) {
    for (int64_t i = 0; i < j->f->size; i++) top[i] = s.top[i] > other.top[i] ? s.top[i] : other.top[i];
    sh_rescale_sums(j, s, top);
    for (int64_t i = 0; i < j->f->size; i++) {
        const double factor = sh_rescale_factor(other.top[i], top[i]);
        s.total[i] += factor * other.total[i];
        j->k64->accumulate(s.sum + i * j->f->v, factor, other.sum + i * j->f->v, j->f->v);
    }
}

/* --- features ------------------------------------------------------------------------------------- */

/* Computes exponents of RANDOM, <projection_f, x_i>, and of patterns bias |x_i|^2. */
static void project(job *j, block x, int64_t n, workspace *w, int patterns) {
    const int64_t d = j->f->d;
    block x64 = x;
    if (j->f->type != SH_FLOAT64) {
        if (x.ld == d)
            j->k->to_double(w->rows64, x.data, n * d);
        else
            for (int64_t i = 0; i < n; i++) j->k->to_double(w->rows64 + i * d, sh_feature_at(j, x.data, i * x.ld), d);
        x64 = (block){(const char *)w->rows64, d, NULL};
    }
    sh_multiply(j, j->k64->gemm_nt, n, j->f->size, d, x64.data, x64.ld, j->f->projection, d, 0, w->exponents,
                j->f->size);
    for (int64_t i = 0; patterns && i < n; i++) {
        const double *row = (const double *)x64.data + i * x64.ld;
        w->bias[i] = sh_is_padding(x, i) ? INFINITY : j->f->bias * j->k64->dot(row, row, d);
    }
}

void sh_pattern_features(job *j, sh_feature_state s, block x, int64_t n, workspace *w) {
    const sh_features *f = j->f;
    if (f->map == SH_RELU) {
        memset(w->top, 0, (size_t)f->size * sizeof(double));
        j->k->relu(w->phi, x.data, x.ld, w->exponents, n, f->size, NULL, 0);
        return;
    }
    if (f->map == SH_RANDOM) {
        project(j, x, n, w, 1);
        j->k64->peaks(w->exponents, f->size, n, f->size, w->bias, w->top);
    } else {
        j->k->peaks((char *)x.data, x.ld, n, f->size, NULL, w->by_feature);
        j->k->to_double(w->top, w->by_feature, f->size);
        for (int64_t i = 0; i < f->size; i++) w->top[i] = fmin(j->root * w->top[i], 0);
    }
    double *units = w->by_feature;
    for (int64_t i = 0; i < f->size; i++) {
        w->top[i] = s.top[i] > w->top[i] ? s.top[i] : w->top[i];
        units[i] = w->top[i] > -INFINITY ? w->top[i] : 0; /* where all rows so far are padding */
    }
    j->k->features(w->phi, f->map == SH_ELU ? x.data : NULL, x.ld, j->root, w->exponents, n, f->size, units);
}

void sh_query_features(job *j, block q, int64_t n, workspace *w, const double *log_weight, int normed, char *phi) {
    const sh_features *f = j->f;
    if (f->map == SH_RELU)
        j->k->relu(phi, q.data, q.ld, w->exponents, n, f->size, log_weight, 1);
    else {
        if (f->map == SH_RANDOM) project(j, q, n, w, 0);
        j->k->mixing(phi, f->map == SH_ELU ? q.data : NULL, q.ld, j->root, w->exponents, n, f->size, log_weight,
                     normed);
    }
}

void sh_add_block(job *j, sh_feature_state s, block v, int64_t n, workspace *w) {
    const int64_t D = j->f->size, width = j->f->v;
    sh_rescale_sums(j, s, w->top);
    j->k->columns(s.total, w->phi, n, D);
    sh_multiply(j, j->k->gemm_tn, D, width, n, w->phi, D, v.data, v.ld, 0, w->product, width);
    j->k->accumulate(s.sum, 1, w->product, D * width);
}

sh_status sh_sum_rows(job *j, sh_feature_state s, int64_t first, int64_t end, workspace *w, sh_context *context) {
    for (; first < end; first += j->rows) {
        const int64_t n = sh_min(j->rows, end - first);
        block x, v;
        sh_status status = sh_load_patterns(j, first, n, w, &x, &v, context);
        if (status != SH_OK) return status;
        sh_pattern_features(j, s, x, n, w);
        sh_add_block(j, s, v, n, w);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

static sh_status add_part(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    workspace w;
    sh_feature_layout(j, scratch, &w);
    sh_clear_sums(j->f, j->states[item]);
    return sh_sum_rows(j, j->states[item], item * j->part, sh_min((item + 1) * j->part, j->patterns->n), &w, context);
}

void sh_prepare_means(job *j, sh_feature_state s, double *mean) {
    const int64_t D = j->f->size, v = j->f->v;
    double largest = 0x1p-1022; /* so that no total of RELU overflows */
    for (int64_t i = 0; i < D; i++) largest = fmax(largest, s.total[i]);
    for (int64_t i = 0; i < D; i++) {
        const double total = s.total[i];
        j->log_weight[i] = j->f->map == SH_RELU ? total / largest : total > 0 ? s.top[i] + log(total) : -INFINITY;
        for (int64_t c = 0; c < v; c++) mean[c] = total > 0 ? s.sum[i * v + c] / total : 0;
        j->k->from_double(sh_feature_at(j, j->means, i * v), mean, v);
    }
}

sh_status sh_mix_rows(job *j, int64_t first, int64_t end, workspace *w, sh_context *context) {
    for (; first < end; first += j->rows) {
        const int64_t n = sh_min(j->rows, end - first);
        block q;
        sh_status status = sh_load_queries(j, first, n, w, &q, context);
        if (status != SH_OK) return status;
        sh_query_features(j, q, n, w, j->log_weight, 1, w->phi);
        sh_multiply(j, j->k->gemm_nn, n, j->f->v, j->f->size, w->phi, j->f->size, j->means, j->f->v, 0,
                    sh_feature_at(j, j->out, first * j->stride), j->stride);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

static sh_status mix_block(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    workspace w;
    sh_feature_layout(j, scratch, &w);
    return sh_mix_rows(j, item * j->rows, sh_min((item + 1) * j->rows, j->queries->n), &w, context);
}

/* --- causal --------------------------------------------------------------------------------------- */

void sh_clear_above_diagonal(const job *j, char *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) memset(sh_feature_at(j, y, i * n + i + 1), 0, (size_t)(n - i - 1) * j->k->size);
}

/* Computes what sh_causal_pairs and sh_all_pairs return; tells whether no normaliser is too small. */
static int pairs(job *j, sh_feature_state s, block q, block x, int64_t n, int64_t m, int causal, workspace *w) {
    const int64_t D = j->f->size;
    assert(n <= j->rows && m <= j->rows && (!causal || n == m));
    sh_pattern_features(j, s, x, m, w);
    sh_query_features(j, q, n, w, j->f->map == SH_RELU ? NULL : w->top, 0, w->phi_q);
    double *normaliser = w->normaliser, *total = w->by_feature, least = INFINITY;
    char *from_prefix = sh_feature_at(j, w->kernels, n * m);
    for (int64_t i = 0; i < D; i++) total[i] = s.total[i] * sh_rescale_factor(s.top[i], w->top[i]);
    j->k->from_double(w->prefix_total, total, D);
    sh_multiply(j, j->k->gemm_nt, n, m, D, w->phi_q, D, w->phi, D, 0, w->kernels, m);
    sh_multiply(j, j->k->gemm_nt, n, 1, D, w->phi_q, D, w->prefix_total, D, 0, from_prefix, 1);
    j->k->to_double(normaliser, from_prefix, n);
    int sees_any = s.top[0] > -INFINITY; /* whether the query sees a pattern */
    for (int64_t i = 0; i < n; i++) {
        normaliser[i] += j->k->sum(sh_feature_at(j, w->kernels, i * m), causal ? i + 1 : m);
        if (!causal) continue;
        sees_any |= !sh_is_padding(x, i);
        if (sees_any) least = normaliser[i] >= least ? least : normaliser[i];
    }
    if (causal) sh_clear_above_diagonal(j, w->kernels, n);
    return !causal || j->f->map == SH_RELU || least >= j->least_normaliser;
}

void sh_all_pairs(job *j, sh_feature_state s, block q, block x, int64_t n, int64_t m, workspace *w) {
    pairs(j, s, q, x, n, m, 0, w);
}

int64_t sh_causal_pairs(job *j, sh_feature_state s, block q, block x, int64_t at, int64_t n, workspace *w) {
    if (at > 0) n = sh_min(n, at & -at); /* halves, and halves of these */
    while (!pairs(j, s, q, x, n, n, 1, w) && n > 1) {
        int64_t half = 1;
        while (2 * half < n) half *= 2;
        n = half;
    }
    return n;
}

static sh_status causal_block(job *j, sh_feature_state s, block q, block x, block v, int64_t rows, char *out,
                              workspace *w, sh_context *context) {
    const int64_t D = j->f->size, width = j->f->v;
    const sh_lanes *lanes = sh_lanes_for(j->f->type, INT64_MAX);
    for (int64_t at = 0, n; at < rows; at += n) {
        const block values = sh_block_from(j, v, at);
        n = sh_causal_pairs(j, s, sh_block_from(j, q, at), sh_block_from(j, x, at), at, rows - at, w);
        double most = 0;
        for (int64_t i = 0; i < n; i++) most = w->normaliser[i] <= most ? most : w->normaliser[i];
        if (!(most <= j->k->largest)) return sh_fail(context, SH_OVERFLOW, "kernels", 0);
        sh_rescale_sums(j, s, w->top);
        j->k->from_double(w->product, s.sum, D * width);
        char *to = sh_feature_at(j, out, at * j->stride);
        sh_multiply(j, j->k->gemm_nn, n, width, n, w->kernels, n, values.data, values.ld, 0, to, j->stride);
        sh_multiply(j, j->k->gemm_nn, n, width, D, w->phi_q, D, w->product, width, 1, to, j->stride);
        for (int64_t i = 0; i < n; i++, to = sh_feature_at(j, to, j->stride)) {
            if (w->normaliser[i] > 0)
                j->k->divide(to, w->normaliser[i], width);
            else
                memset(to, 0, (size_t)width * j->k->size);
            if (!(j->values && j->values->unchecked) && !lanes->finite(to, width))
                return sh_fail(context, SH_OVERFLOW, "sums", 0);
        }
        sh_add_block(j, s, values, n, w);
    }
    return SH_OK;
}

sh_status sh_causal_rows(job *j, sh_feature_state s, int64_t first, int64_t end, workspace *w, sh_context *context) {
    for (; first < end; first += j->rows) {
        const int64_t n = sh_min(j->rows, end - first);
        block x, v, q;
        sh_status status = sh_load_patterns(j, first, n, w, &x, &v, context);
        if (status == SH_OK) status = sh_load_queries(j, first, n, w, &q, context);
        if (status == SH_OK)
            status = causal_block(j, s, q, x, v, n, sh_feature_at(j, j->out, first * j->stride), w, context);
        if (status != SH_OK) return status;
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

static sh_status causal_part(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    workspace w;
    sh_feature_layout(j, scratch, &w);
    return sh_causal_rows(j, j->states[item], item * j->part, sh_min((item + 1) * j->part, j->patterns->n), &w,
                          context);
}

/* --- operations ----------------------------------------------------------------------------------- */

job sh_feature_job_of(const sh_features *f) {
    return (job){
        .f = f, .k = sh_kernels_of(f->type), .k64 = sh_kernels_of(SH_FLOAT64), .root = sqrt(f->beta), .rows = BLOCK};
}

int sh_features_are_valid(const sh_features *f) {
    const int64_t most = INT32_MAX / 2;
    if (f->d < 1 || f->size < 1 || f->v < 1 || f->d > most || f->size > most || f->v > most) return 0;
    if (f->type != SH_FLOAT32 && f->type != SH_FLOAT64) return 0;
    return f->map == SH_RANDOM ? f->projection != NULL : f->size == f->d && (f->map == SH_ELU || f->map == SH_RELU);
}

/* Tells whether rows are n of d numbers, of the compute type or, where they may be, of a narrow one. */
static int valid_rows(const sh_features *f, const sh_rows *rows, int64_t n, int64_t d, int narrow) {
    const int64_t size = sh_size_of(rows->type);
    if (size == 0 || (rows->type != f->type && !(narrow && size < sh_size_of(f->type)))) return 0;
    if (rows->n != n || rows->d != d || (!rows->data && n > 0)) return 0;
    if (rows->stride % size != 0 || rows->stride < -INT64_MAX) return 0;
    return sh_can_be(n, sh_max(d * size, rows->stride < 0 ? -rows->stride : rows->stride));
}

/* Checks the arguments; rows that an operation does not take are NULL. */
static sh_status check(sh_context *context, const sh_features *f, const sh_rows *patterns, const sh_rows *values,
                       const sh_rows *queries) {
    SH_REQUIRE(context, f && f->beta > 0 && !isinf(f->beta) && sh_features_are_valid(f), "features");
    SH_REQUIRE(context, !patterns || valid_rows(f, patterns, patterns->n, f->d, 1), "patterns");
    SH_REQUIRE(context, !patterns || (values ? valid_rows(f, values, patterns->n, f->v, 1) : f->v == f->d), "values");
    SH_REQUIRE(context, !queries || valid_rows(f, queries, patterns ? patterns->n : queries->n, f->d, 0), "queries");
    return SH_OK;
}

static int is_state(sh_feature_state state) { return state.top && state.total && state.sum; }
static int is_out(const sh_features *f, int64_t n, const void *out, int64_t stride) {
    return (out || n == 0) && stride >= f->v && sh_can_be(n, stride) && sh_can_be(n * stride, sh_size_of(f->type));
}

/* Cuts n rows into parts of whole blocks and allocates a state for each, and an array (D) behind them. */
static double *states_of_parts(sh_context *context, job *j, int64_t n, int64_t *parts, sh_feature_state *states) {
    const int64_t D = j->f->size, each = D * (j->f->v + 2);
    j->part = sh_max(sh_ceil_div(sh_ceil_div(n, PARTS), j->rows) * j->rows, 1);
    *parts = sh_ceil_div(n, j->part);
    double *numbers = sh_allocate(context, *parts + 1, (size_t)each * sizeof(double));
    for (int64_t p = 0; numbers && p < *parts; p++)
        states[p] = (sh_feature_state){numbers + p * each, numbers + p * each + D, numbers + p * each + 2 * D};
    j->states = states;
    return numbers;
}

double sh_feature_work(const sh_features *f, int64_t n) {
    return (double)n * (double)f->size * (double)(f->v + 4 + (f->map == SH_RANDOM ? f->d : 0));
}

sh_status sh_features_add(sh_context *context, const sh_features *f, const sh_rows *patterns, const sh_rows *values,
                          sh_feature_state state, int64_t *products) {
    SH_REQUIRE(context, patterns, "patterns");
    sh_status status = check(context, f, patterns, values, NULL);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, is_state(state), "state");
    job j = sh_feature_job_of(f);
    j.patterns = patterns;
    j.values = values;
    int64_t parts;
    sh_feature_state states[PARTS];
    double *numbers = states_of_parts(context, &j, patterns->n, &parts, states);
    if (!numbers) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    status = sh_each(context, parts, sh_feature_layout(&j, NULL, &(workspace){0}), sh_feature_work(f, patterns->n),
                     add_part, &j);
    for (int64_t p = 0; status == SH_OK && p < parts; p++)
        sh_merge_sums(&j, state, states[p], numbers + parts * f->size * (f->v + 2));
    sh_release(context, numbers);
    if (products) *products = atomic_load(&j.products);
    return status;
}

sh_status sh_features_mix(sh_context *context, const sh_features *f, sh_feature_state state, const sh_rows *queries,
                          void *out, int64_t stride, int64_t *products) {
    SH_REQUIRE(context, queries, "queries");
    sh_status status = check(context, f, NULL, NULL, queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, is_state(state), "state");
    SH_REQUIRE(context, is_out(f, queries->n, out, stride), "out");
    job j = sh_feature_job_of(f);
    j.queries = queries;
    j.out = out;
    j.stride = stride;
    j.log_weight = sh_allocate(context, f->size + f->v, sizeof(double));
    j.means = sh_allocate(context, f->size * f->v, j.k->size);
    if (!j.log_weight || !j.means)
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    else {
        sh_prepare_means(&j, state, j.log_weight + f->size);
        status = sh_each(context, sh_ceil_div(queries->n, j.rows), sh_feature_layout(&j, NULL, &(workspace){0}),
                         sh_feature_work(f, queries->n), mix_block, &j);
    }
    sh_release(context, j.log_weight);
    sh_release(context, j.means);
    if (products) *products = atomic_load(&j.products);
    return status;
}

sh_status sh_features_causal(sh_context *context, const sh_features *f, const sh_rows *queries, const sh_rows *patterns,
                             const sh_rows *values, double least_normaliser, void *out, int64_t stride,
                             int64_t *products) {
    SH_REQUIRE(context, patterns, "patterns");
    SH_REQUIRE(context, queries, "queries");
    sh_status status = check(context, f, patterns, values, queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, is_out(f, queries->n, out, stride), "out");
    job j = sh_feature_job_of(f);
    j.patterns = patterns;
    j.values = values;
    j.queries = queries;
    j.least_normaliser = least_normaliser;
    j.out = out;
    j.stride = stride;
    j.rows = CAUSAL;
    int64_t parts;
    sh_feature_state states[PARTS + 1];
    double *numbers = states_of_parts(context, &j, patterns->n, &parts, states);
    if (!numbers) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    const size_t scratch = sh_feature_layout(&j, NULL, &(workspace){0});
    /* the sums of every part but the last, which move one part on; then those of all parts before each */
    status = sh_each(context, parts - 1, scratch, sh_feature_work(f, patterns->n), add_part, &j);
    if (status == SH_OK && parts > 0) {
        const int64_t D = f->size, each = D * (f->v + 2);
        double *top = numbers + parts * each;
        for (int64_t p = parts - 1; p > 0; p--) memcpy(states[p].top, states[p - 1].top, (size_t)each * sizeof(double));
        sh_clear_sums(f, states[0]);
        for (int64_t p = 2; p < parts; p++) sh_merge_sums(&j, states[p], states[p - 1], top);
        status = sh_each(context, parts, scratch, 2 * sh_feature_work(f, patterns->n), causal_part, &j);
    }
    sh_release(context, numbers);
    if (products) *products = atomic_load(&j.products);
    return status;
}
