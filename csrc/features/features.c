/* features.c: kernels that are a product of features (sparsehopfield.h): sums of patterns, and what they answer.
 *
 * Rows go through in blocks that stay in cache: features of a block, then its products, one pass over the rows. Blocks
 * follow each other within a part, which has sums of its own; parts are cut by the number of rows alone.
 *
 * Exponents are double: they may be large, and their rounding errors are relative errors of weights. */
#include "features/sums.h"
#include "kernels/lanes.h"
#include <math.h>
#include <string.h>

typedef sh_feature_job job;
typedef sh_feature_room room;
typedef sh_block block;
enum { BLOCK = SH_FEATURE_BLOCK, CAUSAL = SH_CAUSAL_BLOCK, PARTS = SH_FEATURE_PARTS };

size_t sh_feature_room_of(const job *j, char *base, room *r) {
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
        {(char **)&r->wide, (j->f->map == SH_RANDOM ? n * d : d) * wide},
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

/* --- rows ----------------------------------------------------------------------------------------- */

/* Refuses rows whose squared lengths, or exponents at this beta, cannot be computed with. */
static sh_status check(const job *j, const char *name, double beta, block b, int64_t n, int64_t d, int64_t first,
                       sh_context *context) {
    const double most = j->f->type == SH_FLOAT32 ? 1e70 : 1e300; /* so that features are finite */
    double squares = 0;
    if (j->checked) return SH_OK;
    if (b.ld == d)
        squares = j->k->squares(b.data, n * d);
    else
        for (int64_t i = 0; i < n; i++) squares += j->k->squares(sh_at(j, b.data, i * b.ld), d);
    if (squares < INFINITY && beta * squares <= most) return SH_OK;
    for (int64_t i = 0; i < n; i++) {
        const char *row = sh_at(j, b.data, i * b.ld);
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
        return (block){from, rows->stride / size, NULL};
    const float scale = rows->scale != 0 ? rows->scale : 1;
    for (int64_t i = 0; i < n; i++, from += rows->stride) {
        char *to = sh_at(j, copy, i * rows->d);
        if (rows->type == SH_UINT8)
            j->k->from_uint8(to, (const uint8_t *)from, rows->d, scale);
        else if (rows->type == SH_FLOAT16)
            j->k->from_float16(to, (const uint16_t *)from, rows->d, scale);
        else
            memcpy(to, from, (size_t)(rows->d * size));
    }
    return (block){copy, rows->d, NULL};
}

/* Rows that are none have features 0: they take part in no maximum and in no sum. */
static void leave_out(const job *j, block *x, int64_t first, int64_t n, room *r) {
    x->absent = j->absent + first;
    for (int64_t i = 0; i < j->f->d; i++) r->wide[i] = -INFINITY;
    for (int64_t i = 0; j->f->map != SH_RANDOM && i < n; i++)
        if (x->absent[i]) j->k->from_double(r->patterns + (size_t)(i * j->f->d) * j->k->size, r->wide, j->f->d);
}

sh_status sh_some_patterns(const job *j, int64_t first, int64_t n, room *r, block *x, block *v, sh_context *context) {
    const int64_t d = j->f->d;
    *x = some(j, j->patterns, first, n, j->f->cosine || j->absent, r->patterns);
    sh_status status = check(j, "patterns", j->f->cosine ? 0 : j->f->beta, *x, n, d, first, context);
    for (int64_t i = 0; j->f->cosine && status == SH_OK && i < n; i++)
        if (!unit(j, sh_at(j, r->patterns, i * d), r->exponent, d))
            status = sh_fail(context, SH_ZERO_ROW, "patterns", first + i);
    if (j->f->cosine && status == SH_OK) status = check(j, "patterns", j->f->beta, *x, n, d, first, context);
    *v = *x;
    if (status == SH_OK && j->absent) leave_out(j, x, first, n, r);
    if (status != SH_OK || !j->values) return status;
    *v = some(j, j->values, first, n, 0, r->values);
    return j->values->unchecked ? SH_OK : check(j, "values", 0, *v, n, j->f->v, first, context);
}

sh_status sh_some_queries(const job *j, int64_t first, int64_t n, room *r, block *q, sh_context *context) {
    *q = some(j, j->queries, first, n, 0, r->queries);
    return check(j, "queries", j->f->beta, *q, n, j->f->d, first, context);
}

/* --- states --------------------------------------------------------------------------------------- */

double sh_shrink(double old, double top) { return old == top ? 1 : exp(old - top); }

void sh_clear_sums(const sh_features *f, sh_feature_state s) {
    for (int64_t i = 0; i < f->size; i++) s.top[i] = -INFINITY;
    memset(s.total, 0, (size_t)f->size * sizeof(double));
    memset(s.sum, 0, (size_t)(f->size * f->v) * sizeof(double));
}

void sh_raise_sums(const job *j, sh_feature_state s, const double *top) {
    for (int64_t i = 0; i < j->f->size; i++) {
        if (s.top[i] == top[i]) continue;
        const double less = sh_shrink(s.top[i], top[i]);
        s.top[i] = top[i];
        s.total[i] *= less;
        j->wide->scale(s.sum + i * j->f->v, less, j->f->v);
    }
}

void sh_merge_sums(const job *j, sh_feature_state s, sh_feature_state more, double *top) {
    for (int64_t i = 0; i < j->f->size; i++) top[i] = s.top[i] > more.top[i] ? s.top[i] : more.top[i];
    sh_raise_sums(j, s, top);
    for (int64_t i = 0; i < j->f->size; i++) {
        const double less = sh_shrink(more.top[i], top[i]);
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
            for (int64_t i = 0; i < n; i++) j->k->to_double(r->wide + i * d, sh_at(j, x.data, i * x.ld), d);
        w = (block){(const char *)r->wide, d, x.absent};
    }
    sh_times(j, j->wide->gemm_nt, n, j->f->size, d, w.data, w.ld, j->f->projection, d, 0, r->exponent, j->f->size);
    for (int64_t i = 0; patterns && i < n; i++) {
        const double *row = (const double *)w.data + i * w.ld;
        r->less[i] = x.absent && x.absent[i] ? INFINITY : j->f->bias * j->wide->dot(row, row, d);
    }
}

void sh_of_patterns(job *j, sh_feature_state s, block x, int64_t n, room *r) {
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
    double *units = (double *)r->most;
    for (int64_t i = 0; i < f->size; i++) {
        r->top[i] = s.top[i] > r->top[i] ? s.top[i] : r->top[i];
        units[i] = r->top[i] > -INFINITY ? r->top[i] : 0; /* of rows none of which is there */
    }
    j->k->features(r->phi, f->map == SH_ELU ? x.data : NULL, x.ld, j->root, r->exponent, n, f->size, units);
}

void sh_of_queries(job *j, block q, int64_t n, room *r, const double *more, int normed, char *ask) {
    const sh_features *f = j->f;
    if (f->map == SH_RELU)
        j->k->relu(ask, q.data, q.ld, r->exponent, n, f->size, more, 1);
    else {
        if (f->map == SH_RANDOM) project(j, q, n, r, 0);
        j->k->mixing(ask, f->map == SH_ELU ? q.data : NULL, q.ld, j->root, r->exponent, n, f->size, more, normed);
    }
}

void sh_add_features(job *j, sh_feature_state s, block v, int64_t n, room *r) {
    const int64_t D = j->f->size, width = j->f->v;
    sh_raise_sums(j, s, r->top);
    j->k->columns(s.total, r->phi, n, D);
    sh_times(j, j->k->gemm_tn, D, width, n, r->phi, D, v.data, v.ld, 0, r->product, width);
    j->k->accumulate(s.sum, 1, r->product, D * width);
}

sh_status sh_sum_rows(job *j, sh_feature_state s, int64_t first, int64_t end, room *r, sh_context *context) {
    for (; first < end; first += j->rows) {
        const int64_t n = sh_min(j->rows, end - first);
        block x, v;
        sh_status status = sh_some_patterns(j, first, n, r, &x, &v, context);
        if (status != SH_OK) return status;
        sh_of_patterns(j, s, x, n, r);
        sh_add_features(j, s, v, n, r);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

static sh_status add_part(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    room r;
    sh_feature_room_of(j, scratch, &r);
    sh_clear_sums(j->f, j->states[item]);
    return sh_sum_rows(j, j->states[item], item * j->part, sh_min((item + 1) * j->part, j->patterns->n), &r, context);
}

void sh_ask_state(job *j, sh_feature_state s, double *mean) {
    const int64_t D = j->f->size, v = j->f->v;
    double largest = 0x1p-1022;
    for (int64_t i = 0; i < D; i++) largest = fmax(largest, s.total[i]);
    for (int64_t i = 0; i < D; i++) {
        const double total = s.total[i];
        j->more[i] = j->f->map == SH_RELU ? total / largest : total > 0 ? s.top[i] + log(total) : -INFINITY;
        for (int64_t c = 0; c < v; c++) mean[c] = total > 0 ? s.sum[i * v + c] / total : 0;
        j->k->from_double(sh_at(j, j->means, i * v), mean, v);
    }
}

sh_status sh_mix_rows(job *j, int64_t first, int64_t end, room *r, sh_context *context) {
    for (; first < end; first += j->rows) {
        const int64_t n = sh_min(j->rows, end - first);
        block q;
        sh_status status = sh_some_queries(j, first, n, r, &q, context);
        if (status != SH_OK) return status;
        sh_of_queries(j, q, n, r, j->more, 1, r->phi);
        sh_times(j, j->k->gemm_nn, n, j->f->v, j->f->size, r->phi, j->f->size, j->means, j->f->v, 0,
                 sh_at(j, j->out, first * j->stride), j->stride);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

static sh_status mix_block(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    room r;
    sh_feature_room_of(j, scratch, &r);
    return sh_mix_rows(j, item * j->rows, sh_min((item + 1) * j->rows, j->queries->n), &r, context);
}

/* --- causal --------------------------------------------------------------------------------------- */

void sh_lower(const job *j, char *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) memset(sh_at(j, y, i * n + i + 1), 0, (size_t)(n - i - 1) * j->k->size);
}

/* The features of n queries and m rows, their pairs and what queries see in all; returns whether no sum is faint. */
static int meet(job *j, sh_feature_state s, block q, block x, int64_t n, int64_t m, int causal, room *r) {
    const int64_t D = j->f->size;
    sh_of_patterns(j, s, x, m, r);
    sh_of_queries(j, q, n, r, j->f->map == SH_RELU ? NULL : r->top, 0, r->ask);
    double *less = r->less, *total = (double *)r->most, least = INFINITY;
    char *seen = sh_at(j, r->pairs, n * m);
    for (int64_t i = 0; i < D; i++) total[i] = s.total[i] * sh_shrink(s.top[i], r->top[i]);
    j->k->from_double(r->before, total, D);
    sh_times(j, j->k->gemm_nt, n, m, D, r->ask, D, r->phi, D, 0, r->pairs, m);
    sh_times(j, j->k->gemm_nt, n, 1, D, r->ask, D, r->before, D, 0, seen, 1);
    j->k->to_double(less, seen, n);
    int there = s.top[0] > -INFINITY; /* whether the query sees a row */
    for (int64_t i = 0; i < n; i++) {
        less[i] += j->k->sum(sh_at(j, r->pairs, i * m), causal ? i + 1 : m);
        if (!causal) continue;
        there |= !(x.absent && x.absent[i]);
        if (there) least = less[i] >= least ? least : less[i];
    }
    if (causal) sh_lower(j, r->pairs, n);
    return !causal || j->f->map == SH_RELU || least >= j->faint;
}

void sh_meet_all(job *j, sh_feature_state s, block q, block x, int64_t n, int64_t m, room *r) {
    meet(j, s, q, x, n, m, 0, r);
}

int64_t sh_meet(job *j, sh_feature_state s, block q, block x, int64_t at, int64_t n, room *r) {
    if (at > 0) n = sh_min(n, at & -at); /* halves, and halves of these */
    while (!meet(j, s, q, x, n, n, 1, r) && n > 1) {
        int64_t half = 1;
        while (2 * half < n) half *= 2;
        n = half;
    }
    return n;
}

static sh_status causal_block(job *j, sh_feature_state s, block q, block x, block v, int64_t rows, char *out, room *r,
                              sh_context *context) {
    const int64_t D = j->f->size, width = j->f->v;
    const sh_lanes *lanes = sh_lanes_for(j->f->type, INT64_MAX);
    for (int64_t at = 0, n; at < rows; at += n) {
        const block some = sh_block_from(j, v, at);
        n = sh_meet(j, s, sh_block_from(j, q, at), sh_block_from(j, x, at), at, rows - at, r);
        double most = 0;
        for (int64_t i = 0; i < n; i++) most = r->less[i] <= most ? most : r->less[i];
        if (!(most <= j->k->largest)) return sh_fail(context, SH_OVERFLOW, "kernels", 0);
        sh_raise_sums(j, s, r->top);
        j->k->from_double(r->product, s.sum, D * width);
        char *to = sh_at(j, out, at * j->stride);
        sh_times(j, j->k->gemm_nn, n, width, n, r->pairs, n, some.data, some.ld, 0, to, j->stride);
        sh_times(j, j->k->gemm_nn, n, width, D, r->ask, D, r->product, width, 1, to, j->stride);
        for (int64_t i = 0; i < n; i++, to = sh_at(j, to, j->stride)) {
            if (r->less[i] > 0)
                j->k->divide(to, r->less[i], width);
            else
                memset(to, 0, (size_t)width * j->k->size);
            if (!(j->values && j->values->unchecked) && !lanes->finite(to, width))
                return sh_fail(context, SH_OVERFLOW, "sums", 0);
        }
        sh_add_features(j, s, some, n, r);
    }
    return SH_OK;
}

sh_status sh_causal_rows(job *j, sh_feature_state s, int64_t first, int64_t end, room *r, sh_context *context) {
    for (; first < end; first += j->rows) {
        const int64_t n = sh_min(j->rows, end - first);
        block x, v, q;
        sh_status status = sh_some_patterns(j, first, n, r, &x, &v, context);
        if (status == SH_OK) status = sh_some_queries(j, first, n, r, &q, context);
        if (status == SH_OK) status = causal_block(j, s, q, x, v, n, sh_at(j, j->out, first * j->stride), r, context);
        if (status != SH_OK) return status;
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

static sh_status causal_part(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    room r;
    sh_feature_room_of(j, scratch, &r);
    return sh_causal_rows(j, j->states[item], item * j->part, sh_min((item + 1) * j->part, j->patterns->n), &r,
                          context);
}

/* --- operations ----------------------------------------------------------------------------------- */

job sh_feature_begin(const sh_features *f) {
    return (job){
        .f = f, .k = sh_kernels_of(f->type), .wide = sh_kernels_of(SH_FLOAT64), .root = sqrt(f->beta), .rows = BLOCK};
}

int sh_features_are_sound(const sh_features *f) {
    const int64_t most = INT32_MAX / 2;
    if (f->d < 1 || f->size < 1 || f->v < 1 || f->d > most || f->size > most || f->v > most) return 0;
    if (f->type != SH_FLOAT32 && f->type != SH_FLOAT64) return 0;
    return f->map == SH_RANDOM ? f->projection != NULL : f->size == f->d && (f->map == SH_ELU || f->map == SH_RELU);
}

static int sound_rows(const sh_features *f, const sh_rows *rows, int64_t n, int64_t d, int narrow) {
    if (rows->type != f->type && !(narrow && (rows->type == SH_UINT8 || rows->type == SH_FLOAT16))) return 0;
    if (rows->n != n || rows->d != d || (!rows->data && n > 0)) return 0;
    const int64_t size = sh_size_of(rows->type);
    if (rows->stride % size != 0 || rows->stride < -INT64_MAX) return 0;
    return sh_can_be(n, sh_max(d * size, rows->stride < 0 ? -rows->stride : rows->stride));
}

/* Checks what is given; rows that a function does not take are NULL. */
static sh_status sound(sh_context *context, const sh_features *f, const sh_rows *patterns, const sh_rows *values,
                       const sh_rows *queries) {
    SH_REQUIRE(context, f && f->beta > 0 && !isinf(f->beta) && sh_features_are_sound(f), "features");
    SH_REQUIRE(context, !patterns || sound_rows(f, patterns, patterns->n, f->d, 1), "patterns");
    SH_REQUIRE(context, !patterns || (values ? sound_rows(f, values, patterns->n, f->v, 1) : f->v == f->d), "values");
    SH_REQUIRE(context, !queries || sound_rows(f, queries, patterns ? patterns->n : queries->n, f->d, 0), "queries");
    return SH_OK;
}

static int is_state(sh_feature_state state) { return state.top && state.total && state.sum; }
static int is_out(const sh_features *f, int64_t n, const void *out, int64_t stride) {
    return (out || n == 0) && stride >= f->v && sh_can_be(n, stride) && sh_can_be(n * stride, sh_size_of(f->type));
}

/* Cuts n rows into parts of whole blocks, each with room for a state. */
static double *states_of_parts(sh_context *context, job *j, int64_t n, int64_t *parts, sh_feature_state *states) {
    const int64_t D = j->f->size, each = D * (j->f->v + 2);
    j->part = sh_max(sh_ceil_div(sh_ceil_div(n, PARTS), j->rows) * j->rows, 1);
    *parts = sh_ceil_div(n, j->part);
    double *numbers = sh_allocate(context, *parts + 1, (size_t)each * sizeof(double)); /* the last: room for tops */
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
    sh_status status = sound(context, f, patterns, values, NULL);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, is_state(state), "state");
    job j = sh_feature_begin(f);
    j.patterns = patterns;
    j.values = values;
    int64_t parts;
    sh_feature_state states[PARTS];
    double *numbers = states_of_parts(context, &j, patterns->n, &parts, states);
    if (!numbers) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    status = sh_each(context, parts, sh_feature_room_of(&j, NULL, &(room){0}), sh_feature_work(f, patterns->n),
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
    sh_status status = sound(context, f, NULL, NULL, queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, is_state(state), "state");
    SH_REQUIRE(context, is_out(f, queries->n, out, stride), "out");
    job j = sh_feature_begin(f);
    j.queries = queries;
    j.out = out;
    j.stride = stride;
    j.more = sh_allocate(context, f->size + f->v, sizeof(double));
    j.means = sh_allocate(context, f->size * f->v, j.k->size);
    if (!j.more || !j.means)
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    else {
        sh_ask_state(&j, state, j.more + f->size);
        status = sh_each(context, sh_ceil_div(queries->n, j.rows), sh_feature_room_of(&j, NULL, &(room){0}),
                         sh_feature_work(f, queries->n), mix_block, &j);
    }
    sh_release(context, j.more);
    sh_release(context, j.means);
    if (products) *products = atomic_load(&j.products);
    return status;
}

sh_status sh_features_causal(sh_context *context, const sh_features *f, const sh_rows *queries, const sh_rows *patterns,
                             const sh_rows *values, double faint, void *out, int64_t stride, int64_t *products) {
    SH_REQUIRE(context, patterns, "patterns");
    SH_REQUIRE(context, queries, "queries");
    sh_status status = sound(context, f, patterns, values, queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, is_out(f, queries->n, out, stride), "out");
    job j = sh_feature_begin(f);
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
    const size_t scratch = sh_feature_room_of(&j, NULL, &(room){0});
    /* the sums of every part but the last; then, in its place, those of all parts before it */
    status = sh_each(context, parts - 1, scratch, sh_feature_work(f, patterns->n), add_part, &j);
    if (status == SH_OK && parts > 0) {
        const int64_t D = f->size, each = D * (f->v + 2);
        double *top = numbers + parts * each;
        for (int64_t p = parts - 1; p > 0; p--) {
            /* states move one on: part p begins with what part p - 1 adds to what it begins with */
            memcpy(states[p].top, states[p - 1].top, (size_t)each * sizeof(double));
        }
        sh_clear_sums(f, states[0]);
        for (int64_t p = 2; p < parts; p++) sh_merge_sums(&j, states[p], states[p - 1], top);
        status = sh_each(context, parts, scratch, 2 * sh_feature_work(f, patterns->n), causal_part, &j);
    }
    sh_release(context, numbers);
    if (products) *products = atomic_load(&j.products);
    return status;
}
