/* features.c: kernels that are a product of features (sparsehopfield.h): sums of patterns, and what they answer.
 *
 * Rows go through in blocks that stay in cache: features of a block, then its products, one pass over the rows. Blocks
 * follow each other within a part, which has sums of its own; parts are cut by the number of rows alone.
 *
 * Exponents are double: they may be large, and their rounding errors are relative errors of weights. */
#include "../kernels/kernels.h"
#include "../kernels/lanes.h"
#include "../runtime/runtime.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { BLOCK = 256, CAUSAL = 128, PARTS = 16 };

typedef struct {
    const sh_features *f;
    const sh_kernels *k, *wide; /* of the compute type and of double */
    double root;
    const sh_rows *patterns, *values, *queries;
    sh_feature_state *states; /* of the parts; or what is asked */
    int64_t rows, part;       /* rows of a block and of a part */
    char *means;              /* (D, v) */
    double *more;             /* (D) what is added to a query's exponents, or multiplied with its features */
    double faint;
    char *out;
    int64_t stride;
    _Atomic int64_t products;
} job;

/* What a worker needs: blocks of `rows` rows */
typedef struct {
    char *patterns, *values, *queries;                 /* widened */
    char *phi, *ask, *product, *pairs, *before, *most; /* features of patterns and queries, ... */
    double *wide, *exponent, *top, *less;
} room;

/* Lays the room out from `base`, which may be NULL; returns how many bytes it takes. */
static size_t lay_out(const job *j, char *base, room *r) {
    const size_t size = j->k->size, wide = sizeof(double), D = (size_t)j->f->size, d = (size_t)j->f->d,
                 v = (size_t)j->f->v, n = (size_t)j->rows, causal = j->patterns && j->queries;
    const struct {
        char **place;
        size_t bytes;
    } parts[] = {
        {&r->patterns, n * d * size},
        {&r->values, n * v * size},
        {&r->queries, n * d * size},
        {&r->phi, n * D * size},
        {&r->ask, causal ? n * D * size : 0},
        {&r->product, D * v * size},
        {&r->pairs, causal ? n * (n + 1) * size : 0},
        {&r->before, causal ? D * size : 0},
        {&r->most, D * wide},
        {(char **)&r->wide, j->f->map == SH_RANDOM ? n * d * wide : 0},
        {(char **)&r->exponent, (j->f->map == SH_RANDOM ? n * D : D) * wide},
        {(char **)&r->top, D * wide},
        {(char **)&r->less, n * wide},
    };
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base) *parts[i].place = base + bytes;
        bytes += sh_align(parts[i].bytes);
    }
    return bytes;
}

static char *at(const job *j, const void *p, int64_t i) { return (char *)p + i * (int64_t)j->k->size; }

typedef void (*gemm)(int64_t, int64_t, int64_t, const void *, int64_t, const void *, int64_t, int, void *, int64_t);
static void times(job *j, gemm product, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b,
                  int64_t ldb, int add, void *c, int64_t ldc) {
    product(m, n, k, a, lda, b, ldb, add, c, ldc);
    atomic_fetch_add_explicit(&j->products, m * n * k, memory_order_relaxed);
}

/* --- rows ----------------------------------------------------------------------------------------- */

typedef struct {
    const char *data;
    int64_t ld;
} block;

/* Refuses rows whose squared lengths, or exponents at this beta, cannot be computed with. */
static sh_status check(const job *j, const char *name, double beta, block b, int64_t n, int64_t d, int64_t first,
                       sh_context *context) {
    const double most = j->f->type == SH_FLOAT32 ? 1e70 : 1e300; /* so that features are finite */
    double squares = 0;
    if (b.ld == d)
        squares = j->k->squares(b.data, n * d);
    else
        for (int64_t i = 0; i < n; i++) squares += j->k->squares(at(j, b.data, i * b.ld), d);
    if (squares < INFINITY && beta * squares <= most) return SH_OK;
    for (int64_t i = 0; i < n; i++) {
        const char *row = at(j, b.data, i * b.ld);
        squares = j->k->dot(row, row, d);
        if (!(squares < INFINITY))
            return sh_fail(context, j->k->max_abs(row, d) < INFINITY ? SH_OVERFLOW : SH_NOT_FINITE, name, first + i);
        if (beta * squares > most) return sh_fail(context, SH_OVERFLOW, "beta", first + i);
    }
    return SH_OK;
}

/* Row i at length 1, in place. */
static int unit(const job *j, char *row, double *wide, int64_t d) {
    double largest = j->k->max_abs(row, d);
    if (!(largest > 0)) return 0;
    j->k->to_double(wide, row, d);
    for (int64_t c = 0; c < d; c++) wide[c] /= largest; /* so that no square underflows */
    const double length = sqrt(j->wide->dot(wide, wide, d));
    for (int64_t c = 0; c < d; c++) wide[c] /= length;
    j->k->from_double(row, wide, d);
    return 1;
}

/* n rows from the first on: where they are, or in `copy`, widened. */
static block some(const job *j, const sh_rows *rows, int64_t first, int64_t n, int always, char *copy) {
    const char *from = (const char *)rows->data + first * rows->stride;
    const int64_t size = (int64_t)j->k->size;
    if (rows->type == j->f->type && rows->stride >= rows->d * size && rows->stride % size == 0 && !always)
        return (block){from, rows->stride / size};
    const float scale = rows->scale != 0 ? rows->scale : 1;
    for (int64_t i = 0; i < n; i++, from += rows->stride) {
        char *to = at(j, copy, i * rows->d);
        if (rows->type == SH_UINT8)
            j->k->from_uint8(to, (const uint8_t *)from, rows->d, scale);
        else if (rows->type == SH_FLOAT16)
            j->k->from_float16(to, (const uint16_t *)from, rows->d, scale);
        else
            memcpy(to, from, (size_t)(rows->d * size));
    }
    return (block){copy, rows->d};
}

static sh_status some_patterns(const job *j, int64_t first, int64_t n, room *r, block *x, block *v,
                               sh_context *context) {
    const int64_t d = j->f->d;
    *x = some(j, j->patterns, first, n, j->f->cosine, r->patterns);
    sh_status status = check(j, "patterns", j->f->cosine ? 0 : j->f->beta, *x, n, d, first, context);
    for (int64_t i = 0; j->f->cosine && status == SH_OK && i < n; i++)
        if (!unit(j, at(j, r->patterns, i * d), r->exponent, d))
            status = sh_fail(context, SH_ZERO_ROW, "patterns", first + i);
    if (j->f->cosine && status == SH_OK) status = check(j, "patterns", j->f->beta, *x, n, d, first, context);
    *v = *x;
    if (status != SH_OK || !j->values) return status;
    *v = some(j, j->values, first, n, 0, r->values);
    return j->values->unchecked ? SH_OK : check(j, "values", 0, *v, n, j->f->v, first, context);
}

static sh_status some_queries(const job *j, int64_t first, int64_t n, room *r, block *q, sh_context *context) {
    *q = some(j, j->queries, first, n, 0, r->queries);
    return check(j, "queries", j->f->beta, *q, n, j->f->d, first, context);
}

/* --- states --------------------------------------------------------------------------------------- */

static double shrink(double old, double top) { return old == top ? 1 : exp(old - top); }

static void clear(const sh_features *f, sh_feature_state s) {
    for (int64_t i = 0; i < f->size; i++) s.top[i] = -INFINITY;
    memset(s.total, 0, (size_t)f->size * sizeof(double));
    memset(s.sum, 0, (size_t)(f->size * f->v) * sizeof(double));
}

/* Count in units of exp(top), no lower than they were. */
static void rise(const job *j, sh_feature_state s, const double *top) {
    for (int64_t i = 0; i < j->f->size; i++) {
        if (s.top[i] == top[i]) continue;
        const double less = shrink(s.top[i], top[i]);
        s.top[i] = top[i];
        s.total[i] *= less;
        j->wide->scale(s.sum + i * j->f->v, less, j->f->v);
    }
}

static void merge(const job *j, sh_feature_state s, sh_feature_state more, double *top) {
    for (int64_t i = 0; i < j->f->size; i++) top[i] = s.top[i] > more.top[i] ? s.top[i] : more.top[i];
    rise(j, s, top);
    for (int64_t i = 0; i < j->f->size; i++) {
        const double less = shrink(more.top[i], top[i]);
        s.total[i] += less * more.total[i];
        j->wide->accumulate(s.sum + i * j->f->v, less, more.sum + i * j->f->v, j->f->v);
    }
}

/* --- features ------------------------------------------------------------------------------------- */

/* Of RANDOM: exponents <projection, x>, and of patterns bias |x|^2 into `less`. */
static void project(job *j, block x, int64_t n, room *r, int patterns) {
    const int64_t d = j->f->d;
    block w = x;
    if (j->f->type != SH_FLOAT64) {
        if (x.ld == d)
            j->k->to_double(r->wide, x.data, n * d);
        else
            for (int64_t i = 0; i < n; i++) j->k->to_double(r->wide + i * d, at(j, x.data, i * x.ld), d);
        w = (block){(const char *)r->wide, d};
    }
    times(j, j->wide->gemm_nt, n, j->f->size, d, w.data, w.ld, j->f->projection, d, 0, r->exponent, j->f->size);
    for (int64_t i = 0; patterns && i < n; i++) {
        const double *row = (const double *)w.data + i * w.ld;
        r->less[i] = j->f->bias * j->wide->dot(row, row, d);
    }
}

/* Features of patterns, phi, in units of exp(top): the larger of what the state has and what they have. */
static void of_patterns(job *j, sh_feature_state s, block x, int64_t n, room *r) {
    const sh_features *f = j->f;
    if (f->map == SH_RELU) {
        memset(r->top, 0, (size_t)f->size * sizeof(double));
        j->k->relu(r->phi, x.data, x.ld, r->exponent, n, f->size, NULL, 0);
        return;
    }
    if (f->map == SH_RANDOM) {
        project(j, x, n, r, 1);
        j->wide->peaks(r->exponent, f->size, n, f->size, r->less, r->top);
    } else {
        j->k->peaks((char *)x.data, x.ld, n, f->size, NULL, r->most);
        j->k->to_double(r->top, r->most, f->size);
        for (int64_t i = 0; i < f->size; i++) r->top[i] = fmin(j->root * r->top[i], 0);
    }
    for (int64_t i = 0; i < f->size; i++) r->top[i] = s.top[i] > r->top[i] ? s.top[i] : r->top[i];
    j->k->features(r->phi, f->map == SH_ELU ? x.data : NULL, x.ld, j->root, r->exponent, n, f->size, r->top);
}

/* What queries ask: their features times what the state adds. */
static void of_queries(job *j, block q, int64_t n, room *r, const double *more, int normed, char *ask) {
    const sh_features *f = j->f;
    if (f->map == SH_RELU)
        j->k->relu(ask, q.data, q.ld, r->exponent, n, f->size, more, 1);
    else {
        if (f->map == SH_RANDOM) project(j, q, n, r, 0);
        j->k->mixing(ask, f->map == SH_ELU ? q.data : NULL, q.ld, j->root, r->exponent, n, f->size, more, normed);
    }
}

/* Adds patterns whose features are there. */
static void fold(job *j, sh_feature_state s, block v, int64_t n, room *r) {
    const int64_t D = j->f->size, width = j->f->v;
    rise(j, s, r->top);
    j->k->columns(s.total, r->phi, n, D);
    times(j, j->k->gemm_tn, D, width, n, r->phi, D, v.data, v.ld, 0, r->product, width);
    j->k->accumulate(s.sum, 1, r->product, D * width);
}

static sh_status add_part(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    const int64_t end = sh_min((item + 1) * j->part, j->patterns->n);
    sh_feature_state s = j->states[item];
    room r;
    lay_out(j, scratch, &r);
    clear(j->f, s);
    for (int64_t first = item * j->part; first < end; first += j->rows) {
        const int64_t n = sh_min(j->rows, end - first);
        block x, v;
        sh_status status = some_patterns(j, first, n, &r, &x, &v, context);
        if (status != SH_OK) return status;
        of_patterns(j, s, x, n, &r);
        fold(j, s, v, n, &r);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

static sh_status mix_block(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    const int64_t first = item * j->rows, n = sh_min(j->rows, j->queries->n - first);
    room r;
    lay_out(j, scratch, &r);
    block q;
    sh_status status = some_queries(j, first, n, &r, &q, context);
    if (status != SH_OK) return status;
    of_queries(j, q, n, &r, j->more, 1, r.phi);
    times(j, j->k->gemm_nn, n, j->f->v, j->f->size, r.phi, j->f->size, j->means, j->f->v, 0,
          at(j, j->out, first * j->stride), j->stride);
    return SH_OK;
}

/* --- causal --------------------------------------------------------------------------------------- */

static sh_status causal_block(job *j, sh_feature_state s, block q, block x, block v, int64_t n, char *out, room *r,
                              sh_context *context) {
    const int64_t D = j->f->size, width = j->f->v;
    of_patterns(j, s, x, n, r);
    of_queries(j, q, n, r, j->f->map == SH_RELU ? NULL : r->top, 0, r->ask);
    double *less = r->less; /* the totals of queries, from here on */
    char *seen = at(j, r->pairs, n * n);
    /* the state in the new units, rounded */
    double *total = (double *)r->most;
    for (int64_t i = 0; i < D; i++) total[i] = s.total[i] * shrink(s.top[i], r->top[i]);
    j->k->from_double(r->before, total, D);
    times(j, j->k->gemm_nt, n, n, D, r->ask, D, r->phi, D, 0, r->pairs, n);
    times(j, j->k->gemm_nt, n, 1, D, r->ask, D, r->before, D, 0, seen, 1);
    j->k->to_double(less, seen, n);
    double least = INFINITY, most = 0;
    for (int64_t i = 0; i < n; i++) {
        memset(at(j, r->pairs, i * n + i + 1), 0, (size_t)(n - i - 1) * j->k->size);
        less[i] += j->k->sum(at(j, r->pairs, i * n), i + 1);
        least = less[i] >= least ? least : less[i];
        most = less[i] <= most ? most : less[i];
    }
    if (j->f->map != SH_RELU && n > 1 && !(least >= j->faint)) {
        const int64_t half = n / 2;
        sh_status status = causal_block(j, s, q, x, v, half, out, r, context);
        q.data = at(j, q.data, half * q.ld);
        x.data = at(j, x.data, half * x.ld);
        v.data = at(j, v.data, half * v.ld);
        out = at(j, out, half * j->stride);
        return status == SH_OK ? causal_block(j, s, q, x, v, n - half, out, r, context) : status;
    }
    if (!(most <= j->k->largest)) return sh_fail(context, SH_OVERFLOW, "kernels", 0);
    rise(j, s, r->top);
    j->k->from_double(r->product, s.sum, D * width);
    times(j, j->k->gemm_nn, n, width, n, r->pairs, n, v.data, v.ld, 0, out, j->stride);
    times(j, j->k->gemm_nn, n, width, D, r->ask, D, r->product, width, 1, out, j->stride);
    const sh_lanes *lanes = sh_lanes_for(j->f->type, INT64_MAX);
    for (int64_t i = 0; i < n; i++) {
        char *row = at(j, out, i * j->stride);
        if (less[i] > 0)
            j->k->divide(row, less[i], width);
        else
            memset(row, 0, (size_t)width * j->k->size);
        if (!(j->values && j->values->unchecked) && !lanes->finite(row, width))
            return sh_fail(context, SH_OVERFLOW, "sums", 0);
    }
    fold(j, s, v, n, r);
    return SH_OK;
}

static sh_status causal_part(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    const int64_t end = sh_min((item + 1) * j->part, j->patterns->n);
    room r;
    lay_out(j, scratch, &r);
    for (int64_t first = item * j->part; first < end; first += j->rows) {
        const int64_t n = sh_min(j->rows, end - first);
        block x, v, q;
        sh_status status = some_patterns(j, first, n, &r, &x, &v, context);
        if (status == SH_OK) status = some_queries(j, first, n, &r, &q, context);
        if (status == SH_OK)
            status = causal_block(j, j->states[item], q, x, v, n, at(j, j->out, first * j->stride), &r, context);
        if (status != SH_OK) return status;
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* --- operations ----------------------------------------------------------------------------------- */

static job begin(const sh_features *f) {
    return (job){
        .f = f, .k = sh_kernels_of(f->type), .wide = sh_kernels_of(SH_FLOAT64), .root = sqrt(f->beta), .rows = BLOCK};
}

static int sound_rows(const sh_features *f, const sh_rows *rows, int64_t n, int64_t d, int narrow) {
    return rows->n == n && rows->d == d &&
           (rows->type == f->type || (narrow && (rows->type == SH_UINT8 || rows->type == SH_FLOAT16)));
}

static sh_status sound(sh_context *context, const sh_features *f, const sh_rows *patterns, const sh_rows *values,
                       const sh_rows *queries) {
    const int64_t most = INT32_MAX / 2;
    if (f->d < 1 || f->size < 1 || f->v < 1 || f->d > most || f->size > most || f->v > most || !(f->beta > 0) ||
        (f->type != SH_FLOAT32 && f->type != SH_FLOAT64) ||
        (f->map == SH_RANDOM ? !f->projection : f->size != f->d || (f->map != SH_ELU && f->map != SH_RELU)))
        return sh_fail(context, SH_BAD_ARGUMENT, "features", 0);
    if (patterns && !sound_rows(f, patterns, patterns->n, f->d, 1))
        return sh_fail(context, SH_BAD_ARGUMENT, "patterns", 0);
    if (patterns && (values ? !sound_rows(f, values, patterns->n, f->v, 1) : f->v != f->d))
        return sh_fail(context, SH_BAD_ARGUMENT, "values", 0);
    if (queries && !sound_rows(f, queries, patterns ? patterns->n : queries->n, f->d, 0))
        return sh_fail(context, SH_BAD_ARGUMENT, "queries", 0);
    return SH_OK;
}

/* Cuts n rows into parts of whole blocks, each with room for a state. */
static double *states_of_parts(sh_context *context, job *j, int64_t n, int64_t *parts, sh_feature_state *states) {
    const int64_t D = j->f->size, each = D * (j->f->v + 2);
    j->part = sh_max(sh_ceil_div(sh_ceil_div(n, PARTS), j->rows) * j->rows, 1);
    *parts = sh_ceil_div(n, j->part);
    double *numbers = sh_allocate(context, (*parts + 1) * each, sizeof(double)); /* the last: room for tops */
    for (int64_t p = 0; numbers && p < *parts; p++)
        states[p] = (sh_feature_state){numbers + p * each, numbers + p * each + D, numbers + p * each + 2 * D};
    j->states = states;
    return numbers;
}

static double work(const sh_features *f, int64_t n) {
    return (double)n * (double)f->size * (double)(f->v + 4 + (f->map == SH_RANDOM ? f->d : 0));
}

sh_status sh_features_add(sh_context *context, const sh_features *f, const sh_rows *patterns, const sh_rows *values,
                          sh_feature_state state, int64_t *products) {
    sh_status status = sound(context, f, patterns, values, NULL);
    if (status != SH_OK) return status;
    job j = begin(f);
    j.patterns = patterns;
    j.values = values;
    int64_t parts;
    sh_feature_state states[PARTS];
    double *numbers = states_of_parts(context, &j, patterns->n, &parts, states);
    if (!numbers) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    status = sh_each(context, parts, lay_out(&j, NULL, &(room){0}), work(f, patterns->n), add_part, &j);
    for (int64_t p = 0; status == SH_OK && p < parts; p++)
        merge(&j, state, states[p], numbers + parts * f->size * (f->v + 2));
    sh_release(context, numbers);
    if (products) *products = atomic_load(&j.products);
    return status;
}

sh_status sh_features_mix(sh_context *context, const sh_features *f, sh_feature_state state, const sh_rows *queries,
                          void *out, int64_t stride, int64_t *products) {
    sh_status status = sound(context, f, NULL, NULL, queries);
    if (status != SH_OK) return status;
    job j = begin(f);
    j.queries = queries;
    j.out = out;
    j.stride = stride;
    j.more = sh_allocate(context, f->size + f->v, sizeof(double));
    j.means = sh_allocate(context, f->size * f->v, j.k->size);
    if (!j.more || !j.means)
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    else {
        double largest = 0x1p-1022, *mean = j.more + f->size;
        for (int64_t i = 0; i < f->size; i++) largest = fmax(largest, state.total[i]);
        for (int64_t i = 0; i < f->size; i++) {
            const double total = state.total[i];
            j.more[i] = f->map == SH_RELU ? total / largest : total > 0 ? state.top[i] + log(total) : -INFINITY;
            for (int64_t c = 0; c < f->v; c++) mean[c] = total > 0 ? state.sum[i * f->v + c] / total : 0;
            j.k->from_double(at(&j, j.means, i * f->v), mean, f->v);
        }
        status = sh_each(context, sh_ceil_div(queries->n, j.rows), lay_out(&j, NULL, &(room){0}), work(f, queries->n),
                         mix_block, &j);
    }
    sh_release(context, j.more);
    sh_release(context, j.means);
    if (products) *products = atomic_load(&j.products);
    return status;
}

sh_status sh_features_causal(sh_context *context, const sh_features *f, const sh_rows *queries, const sh_rows *patterns,
                             const sh_rows *values, double faint, void *out, int64_t stride, int64_t *products) {
    sh_status status = sound(context, f, patterns, values, queries);
    if (status != SH_OK) return status;
    job j = begin(f);
    j.patterns = patterns;
    j.values = values;
    j.queries = queries;
    j.faint = faint;
    j.out = out;
    j.stride = stride;
    j.rows = CAUSAL;
    int64_t parts;
    sh_feature_state states[PARTS + 1];
    double *numbers = states_of_parts(context, &j, patterns->n, &parts, states);
    if (!numbers) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    const size_t scratch = lay_out(&j, NULL, &(room){0});
    /* the sums of every part but the last; then, in its place, those of all parts before it */
    status = sh_each(context, parts - 1, scratch, work(f, patterns->n), add_part, &j);
    if (status == SH_OK && parts > 0) {
        const int64_t D = f->size, each = D * (f->v + 2);
        double *top = numbers + parts * each;
        for (int64_t p = parts - 1; p > 0; p--) {
            /* states move one on: part p begins with what part p - 1 adds to what it begins with */
            memcpy(states[p].top, states[p - 1].top, (size_t)each * sizeof(double));
        }
        clear(f, states[0]);
        for (int64_t p = 2; p < parts; p++) merge(&j, states[p], states[p - 1], top);
        status = sh_each(context, parts, scratch, 2 * work(f, patterns->n), causal_part, &j);
    }
    sh_release(context, numbers);
    if (products) *products = atomic_load(&j.products);
    return status;
}
