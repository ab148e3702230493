/* overflow.c: queries with too many candidates for a list (small beta), and lists of full-support maps.
 *
 * A few queries at a time, whole rows of scores are kept: one product writes them, each row is solved, and a
 * second product mixes the rows that have become weights. Three products in all, with the scan that gave up.
 *
 * Notes  1. How many rows at a time is set by ROWS_BYTES, so memory does not grow with N or 1/beta; one row is the
 *           least there can be, 12 bytes a pattern.
 *        2. Weights of scores of the product are used only where the support has certainly more than
 *           SH_EXACT_SUPPORT patterns. Smaller supports are decided canonically, as everywhere: all that may be
 *           in the support is scored again, in order, keeping what is in the support of the scores so far.
 */
#include "retrieval/job.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_BYTES = 24 * 1024 * 1024, COLUMNS = 256 };

typedef struct {
    sh_job *job;
    int64_t first, rows; /* which of job->plan.overflow_queries */
    char *queries;       /* (rows, d) gathered */
    char *scores;        /* (rows, M) */
    char *states;        /* (rows, width) */
    char *by_product;    /* (rows) 1 if the row holds weights to be mixed by the product */
} wide;

static sh_status score_tile(void *pointer, int64_t tile, void *scratch, sh_context *context) {
    wide *w = pointer;
    const sh_memory *m = w->job->memory;
    const sh_kernels *k = w->job->k;
    int64_t first = tile * SH_TILE, n = sh_min(SH_TILE, m->patterns.n - first);
    sh_tile_scores(w->job, &m->patterns, w->queries, w->rows, first, n, sh_at(k, w->scores, first), m->patterns.n,
                   scratch);
    for (int64_t i = 0; i < w->rows; i++) {
        void *scores = sh_at(k, w->scores, i * m->patterns.n + first);
        int64_t query = w->job->plan.overflow_queries[w->first + i];
        double best =
            k->affine_max(scores, sh_tile_scale(m, first), sh_tile_bias(w->job, first), sh_shift(w->job, query), n);
        if (best - best != 0) return sh_fail(context, SH_NOT_FINITE, "queries", query);
    }
    return SH_OK;
}

/* weights in place of scores, in pieces that fit the stack */
typedef struct {
    int64_t support;
    double psi; /* sum p z - omega(p) */
} row_sums;

static row_sums weigh(const sh_job *job, void *row, const sh_threshold *t, double best, double beta) {
    enum { PIECE = 512 };
    const sh_kernels *k = job->k;
    double p[PIECE], z[PIECE];
    row_sums sums = {0};
    for (int64_t j = 0; j < job->memory->patterns.n; j += PIECE) {
        int64_t n = sh_min(PIECE, job->memory->patterns.n - j);
        k->to_double(p, sh_at(k, row, j), n);
        for (int64_t i = 0; i < n; i++) p[i] = z[i] = beta * (p[i] - best);
        job->map->weights(t, n, p);
        for (int64_t i = 0; i < n; i++) {
            sums.support += p[i] > 0;
            if (job->goal == SH_GOAL_ENERGY && p[i] > 0) sums.psi += p[i] * z[i] - job->map->omega(t->parameter, p[i]);
        }
        k->from_double(sh_at(k, row, j), p, n);
    }
    if (job->plan.tile_value_scale) k->multiply(row, job->plan.tile_value_scale, job->memory->patterns.n);
    return sums;
}

/* z of all scores within the window, in place of a list; returns how many */
static int64_t window_scores(const sh_job *job, const void *row, double best, double beta, double *z) {
    enum { PIECE = 512 };
    double s[PIECE], reach = job->map->window(job->model.parameter);
    int64_t found = 0;
    for (int64_t j = 0; j < job->memory->patterns.n; j += PIECE) {
        int64_t n = sh_min(PIECE, job->memory->patterns.n - j);
        job->k->to_double(s, sh_at(job->k, row, j), n);
        for (int64_t i = 0; i < n; i++) {
            double at = beta * (s[i] - best);
            if (at > -reach) z[found++] = at;
        }
    }
    return found;
}

/* The canonical way for any number of candidates: a list that grows only with the support. */
static sh_status settle_exactly(sh_job *job, int64_t query, const void *row, double floor, sh_context *context) {
    enum { PIECE = 1024 };
    int64_t n = 0;
    sh_long_list l = {0};
    sh_status status = SH_NO_MEMORY;
    if (!sh_lengthen_list(job, context, &l, 0, 4 * PIECE)) goto done;
    for (int64_t j = 0; j < job->memory->patterns.n; j += PIECE) {
        if (n + PIECE > l.capacity) {
            double cut = sh_min_score(job, query, l.list, n, l.space.z, 0);
            n = sh_keep_above(job, query, l.list, n, cut, 0);
            if (2 * n > l.capacity && !sh_lengthen_list(job, context, &l, n, 0)) goto done;
        }
        int64_t width = sh_min(PIECE, job->memory->patterns.n - j);
        int64_t found = job->k->collect(sh_at(job->k, row, j), width, floor, j, l.list + n);
        sh_rescore(job, query, l.list + n, found, l.space.buffer);
        n += found;
        if (sh_stopped(context)) {
            status = SH_INTERRUPTED;
            goto done;
        }
    }
    status = sh_store_results(job, query, l.list, n, l.space, context);
done:
    sh_release_list(context, &l);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

static int by_position(const void *a, const void *b) {
    int64_t i = ((const sh_entry *)a)->position, j = ((const sh_entry *)b)->position;
    return (i > j) - (i < j);
}

/* Full support: the row becomes weights; those asked for are listed with their canonical scores. */
static sh_status list_row(sh_job *job, int64_t query, void *row, sh_context *context) {
    const sh_kernels *k = job->k;
    int64_t n = job->memory->patterns.n;
    double scale = job->map->row_scale(k, row, n);
    double sum = job->map->row_weights(k, row, n, sh_beta(job, query), job->model.parameter, scale);
    k->scale(row, sum != 0 ? 1 / sum : 0, n);
    double least = job->min_weight > 0 ? job->min_weight : -INFINITY;
    int64_t found = k->count(row, n, least);
    sh_candidate *c = sh_allocate(context, sh_max(found, 1), sizeof *c);
    void *buffer = sh_allocate(context, job->memory->patterns.d, k->size);
    sh_entry *entries = NULL;
    sh_status status = SH_NO_MEMORY;
    if (!c || !buffer) goto done;
    k->collect(row, n, least, 0, c);
    if (job->top) found = sh_select_top(c, found, job->top);
    entries = sh_allocate(context, sh_max(found, 1), sizeof *entries);
    if (!entries) goto done;
    for (int64_t i = 0; i < found; i++) entries[i] = (sh_entry){c[i].position, 0, c[i].score};
    sh_rescore(job, query, c, found, buffer);
    for (int64_t i = 0; i < found; i++) entries[i].score = c[i].score;
    qsort(entries, (size_t)found, sizeof *entries, by_position);
    status = sh_store_entries(job, query, entries, found, context);
done:
    sh_release(context, c);
    sh_release(context, buffer);
    sh_release(context, entries);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

static sh_status solve_row(void *pointer, int64_t item, void *scratch, sh_context *context) {
    wide *w = pointer;
    sh_job *job = w->job;
    const sh_kernels *k = job->k;
    int64_t query = job->plan.overflow_queries[w->first + item], n = job->memory->patterns.n;
    void *row = sh_at(k, w->scores, item * n);
    w->by_product[item] = 0;
    double slack = job->plan.slack[query], *z = scratch;
    if (!job->map->window && !job->plan.nearest) {
        if (!sh_needs_canonical_scores(job, query)) return list_row(job, query, row, context);
        double floor = -INFINITY; /* of scores that count (streaming.c, note 3); lists may want others */
        if (job->goal != SH_GOAL_WEIGHTS)
            floor = k->maximum(row, n, NULL) - job->map->reach(sh_beta(job, query), k->unit / 2, n) - 2 * slack;
        sh_status status = settle_exactly(job, query, row, floor, context);
        if (job->out.support_size) job->out.support_size[query] = n;
        return status;
    }
    if (job->goal == SH_GOAL_RADIUS) {
        double radius = INFINITY;
        k->to_double(z, row, n);
        for (int64_t j = 0; j < n; j++) {
            sh_candidate c = {z[j], j};
            radius = fmin(radius, sh_radius_bound(job, query, &c, 1, slack));
        }
        return settle_exactly(job, query, row, sh_rival_min_score(job, query, radius) - slack, context);
    }
    if (job->plan.nearest) {
        k->to_double(z, row, n);
        double least = n < job->plan.nearest ? -INFINITY : sh_kth_largest(z, n, job->plan.nearest) - 2 * slack;
        return settle_exactly(job, query, row, least, context);
    }
    double best = k->maximum(row, n, NULL), beta = sh_beta(job, query), alpha = job->model.parameter;
    double reach = job->map->window(alpha) / beta;
    sh_threshold t;
    job->map->threshold(alpha, window_scores(job, row, best, beta, z), z, &t);
    double cut = best + t.tau / (alpha - 1) / beta, margin = 1e-12 * reach + 0x1p-50 * fabs(best);
    if (job->goal == SH_GOAL_WEIGHTS || sh_needs_canonical_scores(job, query) ||
        k->count(row, n, cut + 2 * slack + margin) <= SH_EXACT_SUPPORT)
        return settle_exactly(job, query, row, cut - 2 * slack - margin, context);

    row_sums sums = weigh(job, row, &t, best, beta);
    w->by_product[item] = 1;
    if (job->out.support_size) job->out.support_size[query] = sums.support;
    if (job->out.counts) job->out.counts[query][3] = sums.support;
    if (job->out.energy) {
        job->out.energy[query] = sh_energy_of(job, query, best + sums.psi / beta);
    }
    return SH_OK;
}

static sh_status mix_columns(void *pointer, int64_t item, void *scratch, sh_context *context) {
    wide *w = pointer;
    const sh_job *job = w->job;
    const sh_kernels *k = job->k;
    int64_t width = job->values->d, column = item * COLUMNS, columns = sh_min(COLUMNS, width - column);
    int64_t n = job->memory->patterns.n;
    for (int64_t first = 0; first < n; first += SH_TILE) {
        sh_tile_mix(job, sh_at(k, w->scores, first), n, w->rows, first, sh_min(SH_TILE, n - first), column, columns,
                    first > 0, sh_at(k, w->states, column), width, scratch);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* one group of queries: scores, weights, states */
static sh_status do_group(wide *w) {
    sh_job *job = w->job;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    size_t query_bytes = (size_t)m->patterns.d * k->size, state_bytes = (size_t)job->values->d * k->size;
    for (int64_t i = 0; i < w->rows; i++)
        memcpy(w->queries + (size_t)i * query_bytes, sh_tile_query(job, job->plan.overflow_queries[w->first + i]),
               query_bytes);
    size_t pack = sh_tile_row_bytes(m);
    sh_status status = sh_for_each(job->context, job->plan.tiles, pack, score_tile, w);
    if (status != SH_OK) return status;

    /* a row to solve needs M doubles: no more of them at once than fit the budget */
    sh_context few = *job->context;
    size_t row_bytes = (size_t)m->patterns.n * sizeof(double);
    few.threads = (int)sh_max(1, sh_min(few.threads, (int64_t)(ROWS_BYTES / row_bytes)));
    status = sh_for_each(&few, w->rows, row_bytes, solve_row, w);
    if (status != SH_OK) return sh_fail(job->context, status, few.argument, few.row);
    if (!job->out.states || !memchr(w->by_product, 1, (size_t)w->rows)) return SH_OK;

    status = sh_for_each(job->context, sh_ceil_div(job->values->d, COLUMNS), pack, mix_columns, w);
    if (status != SH_OK) return status;
    for (int64_t i = 0; i < w->rows; i++) {
        if (!w->by_product[i]) continue;
        char *state = w->states + (size_t)i * state_bytes;
        if (job->plan.value_centre) k->add(state, 1, job->plan.value_centre, job->values->d);
        sh_check_states(job, state, 1);
        memcpy((char *)job->out.states + (size_t)job->plan.overflow_queries[w->first + i] * state_bytes, state,
               state_bytes);
    }
    return SH_OK;
}

static int ascending(const void *a, const void *b) {
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    return (i > j) - (i < j);
}

sh_status sh_overflow(sh_job *job) {
    sh_context *context = job->context;
    const sh_memory *m = job->memory;
    int64_t count = atomic_load(&job->plan.overflow_count), size = (int64_t)job->k->size;
    if (count == 0) return SH_OK;
    qsort(job->plan.overflow_queries, (size_t)count, sizeof *job->plan.overflow_queries,
          ascending); /* threads found them in any order */
    int64_t bytes = (m->patterns.n + m->patterns.d + job->values->d) * size;
    int64_t rows = sh_min(count, sh_max(1, sh_min(SH_BLOCK, ROWS_BYTES / bytes)));
    wide w = {.job = job};
    w.queries = sh_allocate(context, rows, (size_t)(m->patterns.d * size));
    w.scores = sh_allocate(context, rows, (size_t)(m->patterns.n * size));
    w.states = sh_allocate(context, rows, (size_t)(job->values->d * size));
    w.by_product = sh_allocate(context, rows, 1);
    sh_status status = SH_OK;
    if (!w.queries || !w.scores || !w.states || !w.by_product) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (w.first = 0; status == SH_OK && w.first < count; w.first += rows) {
        w.rows = sh_min(rows, count - w.first);
        status = do_group(&w);
    }
    sh_release(context, w.queries);
    sh_release(context, w.scores);
    sh_release(context, w.states);
    sh_release(context, w.by_product);
    return status;
}
