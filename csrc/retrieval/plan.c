/* plan.c: which way a call takes, and the indexes of a memory: built when they pay, put up once, then only read.
 *
 * Notes  1. Which way is cheapest is decided by counting: a pilot of a few queries tells how long the lists are, and
 *           the work is reckoned in products of the matrix product. No clock is read.
 *        2. Queries that leave long lists get first codes of more columns, in an index that shares all else.
 *        3. An index is made only where half of the memory that is left holds it; asked for by name, it is made
 *           wherever it can be.
 *        4. Queries that are zero in many features (masked ones) are unlike the patterns, and the basis of the
 *           patterns serves them badly. For enough of them an index of the other features is made for the call.
 */
#include "retrieval/index/index.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum {
    PILOT = 16,             /* queries of a pilot, */
    PILOTED = 256,          /* where there are at least so many */
    BATCH = 1000,           /* queries that may have an index of their own features */
    BATCH_BYTES = 32 << 20, /* of it */
    LEAST_PATTERNS = 1024,  /* below this the scan is as good */
    LEAST_QUERIES = 256,    /* asked before an index is made */
};
/* Work in units of one product of the matrix product. */
static const double LINE_WORK = 2400, SHARED_WORK = 1600; /* to bound by a second line, one that a block shares */
static const double ROW_WORK = 12000;                     /* to score */
static const double QUERY_WORK = 5e4;                     /* to begin and end a query */
static const double KEEP_WORK = 18000;                    /* to keep one of the k best for a while, in the scan */
static const double INDEX_WORK = 300;                     /* to build an index, for every number of the patterns */
static const double READ_WORK = 40;                       /* to read a number that is in no cache */
static const double LEAST_WORK = 2e7;                     /* of a scan that is worth the overhead of a screen */

static double work_of_codes(const sh_index *x) {
    double own = QUERY_WORK + (double)(x->rank * x->d);
    return own + (double)(x->patterns * (x->first.columns + 4)) * sh_code_kernels_chosen()->cost;
}

/* The work of one query through an index, the middle of a few; INFINITY if most of them would be left over. */
static sh_status pilot(sh_job *job, const sh_index *index, double *work) {
    int64_t order[PILOT], left[PILOT], counts[PILOT][4];
    double each[PILOT], line = !index->lines ? 0 : job->plan.nearest && !sh_has_cutoff(job) ? SHARED_WORK : LINE_WORK;
    _Atomic int64_t left_count = 0;
    sh_job trial = *job;
    trial.out = (sh_outputs){0};
    for (int64_t i = 0; i < PILOT; i++) {
        order[i] = i * job->queries.n / PILOT;
        counts[i][0] = -1;
    }
    sh_status status = sh_screen_by(&trial, index, order, PILOT, counts, left, &left_count);
    for (int i = 0; i < PILOT; i++)
        each[i] = counts[i][0] < 0
                      ? INFINITY
                      : line * (double)counts[i][0] + ROW_WORK * (double)counts[i][2] + work_of_codes(index);
    sh_sort_descending(each, PILOT);
    *work = each[PILOT / 2];
    return status;
}

/* Bytes that an index made by a call may have: others need memory, too. */
static int64_t room_for_index(const sh_memory *m) {
    return m->indexes->use == SH_INDEX_AUTO ? sh_memory_left() / 2 : INT64_MAX;
}

/* features that are not zero in every query; how many */
static int64_t features_asked(const sh_job *job, int32_t *kept, uint8_t *seen) {
    int64_t d = job->memory->patterns.d, n = 0;
    memset(seen, 0, (size_t)d);
    for (int64_t i = 0; i < job->queries.n; i++) {
        const void *x = sh_query(job, i);
        if (job->k->size == sizeof(float))
            for (int64_t j = 0; j < d; j++) seen[j] |= ((const float *)x)[j] != 0;
        else
            for (int64_t j = 0; j < d; j++) seen[j] |= ((const double *)x)[j] != 0;
    }
    for (int64_t j = 0; j < d; j++)
        if (seen[j]) kept[n++] = (int32_t)j;
    return n;
}

/* the share of some patterns' squares (about their mean) that lies in features outside of `kept` */
static double share_outside(const sh_memory *m, const uint8_t *seen, double *sums, void *row) {
    enum { SOME = 256 };
    int64_t n = sh_min(m->patterns.n, SOME), d = m->patterns.d;
    double *wide = sums, *mean = sums + d, *square = sums + 2 * d, inside = 0, outside = 0;
    memset(mean, 0, 2 * (size_t)d * sizeof *mean);
    for (int64_t i = 0; i < n; i++) {
        m->k->to_double(wide, sh_row_at(m->k, &m->patterns, i * m->patterns.n / n, row), d);
        for (int64_t j = 0; j < d; j++) {
            mean[j] += wide[j] / (double)n;
            square[j] += wide[j] * wide[j] / (double)n;
        }
    }
    for (int64_t j = 0; j < d; j++) *(seen[j] ? &inside : &outside) += square[j] - mean[j] * mean[j];
    return outside > 0 ? outside / (inside + outside) : 0;
}

/* An index of the features that this call asks for, where many are not and it would pay; else NULL. */
static sh_status index_of_batch(sh_job *job, const sh_index *lines, double work, sh_index **own) {
    const sh_memory *m = job->memory;
    sh_context *context = job->context;
    int64_t d = m->patterns.d;
    *own = NULL;
    if (!lines->basis || job->queries.n < BATCH || lines->bytes > BATCH_BYTES) return SH_OK;
    double scan = (double)m->patterns.n * (double)d, saved = fmin(work, scan) - work_of_codes(lines);
    if (!((double)job->queries.n * saved > INDEX_WORK * scan)) return SH_OK;
    int32_t *kept = sh_allocate(context, d, sizeof *kept);
    uint8_t *seen = sh_allocate(context, d, 1);
    double *sums = sh_allocate(context, 3 * d, sizeof *sums);
    void *row = sh_allocate(context, d, m->k->size);
    sh_status status = SH_OK;
    if (!kept || !seen || !sums || !row) {
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    } else {
        int64_t n = features_asked(job, kept, seen);
        if (n > 0 && n < d && share_outside(m, seen, sums, row) > 0.1)
            status = sh_index_new(context, m, SH_LINES, kept, n, room_for_index(m), own);
    }
    sh_release(context, kept);
    sh_release(context, seen);
    sh_release(context, sums);
    sh_release(context, row);
    return status;
}

static sh_status put_up(sh_context *context, const sh_memory *m, sh_index_kind kind, int64_t most) {
    sh_index *index = NULL, *none = NULL;
    sh_status status = SH_OK;
    for (int i = 0; i < 2 && status == SH_OK && !index; i++) {
        if (kind != SH_EITHER && i != (kind == SH_COLUMNS)) continue;
        sh_index *older = atomic_exchange(&m->indexes->older[i], NULL);
        if (older) status = sh_index_grow(context, m, older, most, &index);
        sh_index_free(context, older);
    }
    if (status == SH_OK && !index) status = sh_index_new(context, m, kind, NULL, m->patterns.d, most, &index);
    if (status != SH_OK) return status;
    if (!index) {
        atomic_store(&m->indexes->queries_asked, INT64_MIN / 2); /* there is none to be had, however many ask */
        return SH_OK;
    }
    if (!atomic_compare_exchange_strong(&m->indexes->index[index->kind == SH_COLUMNS], &none, index))
        sh_index_free(context, index); /* another thread was faster */
    return SH_OK;
}

sh_status sh_memory_index(sh_context *context, const sh_memory *m) {
    SH_REQUIRE(context, m, "memory");
    if (atomic_load(&m->indexes->index[0]) || atomic_load(&m->indexes->index[1])) return SH_OK;
    return put_up(context, m, SH_EITHER, INT64_MAX);
}

/* what the threshold test of a scaled bound means in units of scores: it survives any threshold up to this */
static double unscaled(const sh_index *x, const sh_look *look, float bound) {
    return ((double)bound + (1 + look->length) * 0x1p-90) / (x->power * x->power) + look->slack + look->constant;
}

sh_status sh_bounds(sh_context *context, const sh_memory *m, sh_queries queries, double *bounds) {
    static const double any = 1;
    queries.beta = &any; /* bounds are of scores */
    queries.beta_stride = 0;
    sh_status status = sh_check_call(context, m, &queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, sh_can_be(queries.n, 3 * m->patterns.n * (int64_t)sizeof *bounds), "queries");
    SH_REQUIRE(context, bounds || queries.n == 0, "bounds");
    for (int64_t i = 0; i < queries.n; i++) {
        const double largest = m->k->max_abs(sh_at(m->k, queries.data, i * m->patterns.d), m->patterns.d);
        if (largest - largest != 0) return sh_fail(context, SH_NOT_FINITE, "queries", i);
    }
    int wanted = context->path == SH_PATH_COLUMNS;
    if (!atomic_load(&m->indexes->index[wanted]))
        status = put_up(context, m, wanted ? SH_COLUMNS : SH_LINES, INT64_MAX);
    const sh_index *x = atomic_load(&m->indexes->index[wanted]);
    if (status == SH_OK && !x) status = sh_fail(context, SH_BAD_ARGUMENT, "index", 0);
    if (status != SH_OK) return status;
    const sh_code_kernels *k = sh_code_kernels_chosen();
    sh_job job = {.context = context, .memory = m, .k = m->k, .queries = queries};
    int64_t groups = sh_ceil_div(x->patterns, SH_GROUP);
    char *scratch = sh_allocate(context, 1, sh_looks_bytes(x, m, 1));
    int32_t *position = sh_allocate(context, groups * SH_GROUP, sizeof *position);
    float *bound = sh_allocate(context, groups * SH_GROUP, sizeof *bound);
    if (!scratch || !position || !bound) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; status == SH_OK && i < queries.n; i++) {
        double *out = bounds + i * 3 * x->patterns;
        for (int64_t j = 0; j < 3 * x->patterns; j++) out[j] = j % 3 == 2 ? -INFINITY : INFINITY;
        sh_looks looks = sh_looks_at(x, m, 1, scratch);
        sh_look_at(x, &job, NULL, i, 1, &looks);
        const sh_look *look = looks.look;
        if (look->length == 0) continue;
        sh_screened asked = {.code = looks.codes, .start = look->start, .step = look->step, .radius = look->radius};
        asked.threshold = -FLT_MAX;
        asked.position = position;
        asked.bound = bound;
        k->screen(x->groups, x->quads, 0, groups, &asked, 1);
        if (x->lines) sh_look_closer(x, &looks, 0);
        for (int64_t j = 0; j < asked.found; j++) {
            int64_t at = position[j];
            float closer = bound[j], below;
            if (x->lines)
                sh_line_bounds(x, &looks, 0, &position[j], 1, &closer, &below);
            else
                sh_code_bounds_below(x, &looks, 0, &position[j], 1, &bound[j], &below);
            out[3 * at] = unscaled(x, look, bound[j]);
            out[3 * at + 1] = unscaled(x, look, closer);
            out[3 * at + 2] = sh_look_floor(x, look, below);
        }
    }
    sh_release(context, scratch);
    sh_release(context, position);
    sh_release(context, bound);
    return status;
}

int64_t sh_memory_index_bytes(const sh_memory *m) {
    int64_t bytes = 0;
    for (int i = 0; m && i < 3; i++) {
        const sh_index *x = atomic_load(&m->indexes->index[i]);
        if (x) bytes += (int64_t)x->bytes;
    }
    return bytes;
}

/* Whether most of a few queries have more candidates than the scan's lists hold: then no bound excludes much. */
static sh_status is_wide(sh_job *job, int *answer) {
    int64_t order[PILOT], overflow[PILOT];
    sh_job trial = *job;
    trial.out = (sh_outputs){0};
    for (int64_t i = 0; i < PILOT; i++) order[i] = i * job->queries.n / PILOT;
    trial.plan.scan_queries = order;
    trial.plan.overflow_queries = overflow;
    atomic_store(&trial.plan.scan_count, PILOT);
    atomic_store(&trial.plan.overflow_count, 0);
    sh_status status = sh_scan(&trial);
    *answer = atomic_load(&trial.plan.overflow_count) > PILOT / 2;
    return status;
}

/* Whether an index pays: what was asked so far costs the scan twice as much as building it. */
static sh_status pays(sh_job *job, int *answer) {
    const sh_memory *m = job->memory;
    int64_t d = m->patterns.d, asked = atomic_fetch_add(&m->indexes->queries_asked, job->queries.n) + job->queries.n;
    int64_t older = m->indexes->older_patterns;
    *answer = 0;
    if (m->patterns.n < LEAST_PATTERNS || (asked < LEAST_QUERIES && !older)) return SH_OK;
    double features = (double)d, small = fmin(features, 1024), n = (double)m->patterns.n;
    double build = d <= 120 ? 20 * n * features : INDEX_WORK * n * features + 60 * small * small * small;
    if (older) build = 100 * n + INDEX_WORK * features * (double)(m->patterns.n - older);
    if (!((double)asked * n * features > 2 * build)) return SH_OK;
    int hopeless = 0;
    sh_status status = job->queries.n >= PILOTED ? is_wide(job, &hopeless) : SH_OK;
    if (hopeless) atomic_store(&m->indexes->queries_asked, 0); /* not so soon again */
    *answer = !hopeless;
    return status;
}

typedef struct {
    const sh_index *lines, *columns, *wide; /* what there is, then what is to be taken: lines (or wide ones), columns */
    sh_index *own;                          /* of this call alone */
} choice;

static void look_up(const sh_memory *m, choice *c) {
    c->lines = atomic_load(&m->indexes->index[0]);
    c->columns = atomic_load(&m->indexes->index[1]);
    c->wide = atomic_load(&m->indexes->index[2]);
}

/* codes of more columns, where those of few leave long lists */
static sh_status put_up_wide(sh_context *context, const sh_memory *m, choice *c) {
    sh_index *base = atomic_load(&m->indexes->index[0]), *index, *none = NULL;
    sh_status status = sh_index_widen(context, m, base, room_for_index(m), &index);
    if (index && !atomic_compare_exchange_strong(&m->indexes->index[2], &none, index)) sh_index_free(context, index);
    c->wide = atomic_load(&m->indexes->index[2]);
    return status;
}

/* A query's share of the scan. In any order of the patterns k log(M / k) of them are among the k best for a while. */
static double work_of_scan(const sh_job *job) {
    const double n = (double)job->memory->patterns.n, k = (double)job->plan.nearest;
    return n * (double)job->memory->patterns.d + (k > 0 ? KEEP_WORK * k * log(n / k + 1) : 0);
}

/* By a pilot: the lines, wider ones, those of the call's own features, all columns, or neither. */
static sh_status weigh(sh_job *job, choice *c) {
    const sh_memory *m = job->memory;
    const double all = (double)m->patterns.n * (double)m->patterns.d, codes = all * sh_code_kernels_chosen()->cost;
    double scan = work_of_scan(job), work;
    sh_status status = SH_OK;
    if (c->lines) {
        const sh_index *lines = c->lines;
        status = pilot(job, lines, &work);
        if (status == SH_OK && !c->wide && work > 2 * work_of_codes(lines)) status = put_up_wide(job->context, m, c);
        if (status == SH_NO_MEMORY) status = SH_OK; /* then by what there is */
        if (status == SH_OK && c->wide) {
            double before = work;
            status = pilot(job, c->wide, &work);
            if (work < before)
                c->lines = c->wide;
            else
                work = before;
        }
        if (status == SH_OK) status = index_of_batch(job, lines, work, &c->own);
        if (status == SH_NO_MEMORY) status = SH_OK;
        if (status == SH_OK && c->own) {
            double before = work;
            status = pilot(job, c->own, &work);
            if (work < before)
                c->lines = c->own;
            else
                work = before;
        }
        if (status == SH_OK && !c->columns && work > 1.2 * codes && codes < 0.6 * scan &&
            sh_index_may_add_columns(m, lines)) {
            status = put_up(job->context, m, SH_COLUMNS, room_for_index(m));
            if (status == SH_NO_MEMORY) status = SH_OK;
            c->columns = atomic_load(&m->indexes->index[1]);
        }
        if (status != SH_OK) return status;
        if (work > (c->columns ? codes : 0.8 * scan)) c->lines = NULL;
    }
    if (c->columns) {
        status = pilot(job, c->columns, &work);
        if (work > 0.8 * scan) c->columns = NULL;
    }
    return status;
}

static sh_status choose(sh_job *job, choice *c) {
    const sh_memory *m = job->memory;
    sh_path path = job->context->path;
    int64_t n = job->queries.n;
    int build = path == SH_PATH_LINES ? !c->lines : path == SH_PATH_COLUMNS ? !c->columns : 0;
    sh_status status = SH_OK;
    if (path == SH_PATH_AUTO) {
        double work = fmax((double)n, READ_WORK) * (double)m->patterns.n * (double)m->patterns.d;
        if (!c->lines && !c->columns) status = pays(job, &build);
        int small = work < LEAST_WORK || m->patterns.n < LEAST_PATTERNS;
        if (small && !build && job->goal != SH_GOAL_SURVEY) *c = (choice){0};
    }
    if (status == SH_OK && build) {
        status = put_up(job->context, m,
                        path == SH_PATH_AUTO    ? SH_EITHER
                        : path == SH_PATH_LINES ? SH_LINES
                                                : SH_COLUMNS,
                        path == SH_PATH_AUTO ? room_for_index(m) : INT64_MAX);
        look_up(m, c);
    }
    if (path == SH_PATH_LINES && c->lines) c->columns = NULL;
    if (path == SH_PATH_COLUMNS && c->columns) c->lines = NULL;
    return status == SH_OK && path == SH_PATH_AUTO && n >= PILOTED ? weigh(job, c) : status;
}

sh_status sh_answer_by_index(sh_job *job) {
    sh_context *context = job->context;
    const int free_to_choose = context->path == SH_PATH_AUTO;
    if (context->path == SH_PATH_SCAN || (free_to_choose && job->memory->indexes->use == SH_INDEX_NEVER)) return SH_OK;
    int64_t n = job->queries.n, some = n;
    choice c = {0};
    look_up(job->memory, &c);
    sh_status status = choose(job, &c);
    if (status == SH_NO_MEMORY && free_to_choose) { /* the scan needs less */
        c.lines = c.columns = NULL;
        atomic_store(&job->memory->indexes->queries_asked, 0); /* not so soon again */
        status = SH_OK;
    }
    if (status == SH_OK && (c.lines || c.columns)) {
        job->plan.scan_queries = sh_allocate(context, 2 * n, sizeof *job->plan.scan_queries);
        if (!job->plan.scan_queries) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
        if (status == SH_OK && c.lines) {
            status =
                sh_screen_by(job, c.lines, NULL, n, job->out.counts, job->plan.scan_queries, &job->plan.scan_count);
            some = atomic_load(&job->plan.scan_count);
        }
        if (status == SH_OK && c.columns && some) {
            int64_t *order = NULL;
            if (c.lines)
                order = memcpy(job->plan.scan_queries + n, job->plan.scan_queries, (size_t)some * sizeof *order);
            atomic_store(&job->plan.scan_count, 0);
            status = sh_screen_by(job, c.columns, order, some, order ? NULL : job->out.counts, job->plan.scan_queries,
                                  &job->plan.scan_count);
        }
    }
    sh_index_free(context, c.own);
    return status;
}
