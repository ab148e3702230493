/* overflow.c: queries with too many candidates for a list (small beta), and lists of full-support maps.
 *
 * A few queries at a time, a batch, have whole rows of scores stored: one product writes them, each row is solved, and
 * a second product mixes the values where the row has become weights. With the scan that gave up, these are three
 * products; four where a batch turns out to have some queries that the second product does not mix.
 *
 * Notes  1. ROWS_BYTES decides how many rows there are at a time, so memory does not grow with N or 1/beta. A batch has
 *           at least one row, 12 bytes a pattern.
 *        2. Weights of scores of the product are used if and only if the support of the canonical scores has more than
 *           sh_exact_support patterns (and goal and scores allow it): a property of the query and the memory, and not of
 *           how the query came here. Unless scores of the product show it for certain, all that may be in the support is
 *           scored again, in order, keeping what is in the support of the scores so far.
 *        3. Bits of a product may depend on the rows that it has. So batches that a second product mixes are made of
 *           the queries of note 2 alone, in order: which others the scan has left changes nothing for them.
 */
#include "retrieval/job.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_BYTES = 24 << 20, COLUMNS = 256 }; /* of the rows of a batch; of states that an item of work mixes */

typedef struct {
    sh_job *job;
    int64_t first, rows; /* which of job->plan.overflow_queries */
    char *queries;       /* (rows, d) gathered */
    char *scores;        /* (rows, M) of tiles; then, of rows mixed by the product, weights */
    char *states;        /* (rows, v) */
    char *by_product;    /* (rows) 1 if the second product mixes the row, 0 if it was answered canonically */
    int decided;         /* all rows are to be mixed by it */
} batch;

static size_t lay_out(int64_t rows, void *memory, batch *b) {
    sh_workspace w = {memory, 0};
    const sh_memory *m = b->job->memory;
    size_t size = b->job->k->size;
    b->queries = sh_take(&w, rows * m->patterns.d, size);
    b->scores = sh_take(&w, rows * m->patterns.n, size);
    b->states = sh_take(&w, rows * b->job->values->d, size);
    b->by_product = sh_take(&w, rows, 1);
    return w.used;
}

static int64_t query_of(const batch *b, int64_t row) {
    assert(row < b->rows);
    return b->job->plan.overflow_queries[b->first + row];
}

/* --- rows of scores ------------------------------------------------------------------------------- */

/* Scores a tile of patterns with the queries of a batch: the first product. */
static sh_status score_tile(void *pointer, int64_t tile, void *scratch, sh_context *context) {
    batch *b = pointer;
    const sh_memory *m = b->job->memory;
    const sh_kernels *k = b->job->k;
    int64_t first = tile * SH_TILE, n = sh_min(SH_TILE, m->patterns.n - first);
    sh_tile_scores(b->job, &m->patterns, b->queries, b->rows, first, n, sh_at(k, b->scores, first), m->patterns.n,
                   scratch);
    for (int64_t i = 0; i < b->rows; i++) {
        void *scores = sh_at(k, b->scores, i * m->patterns.n + first);
        int64_t query = query_of(b, i);
        double best =
            k->affine_max(scores, sh_tile_scale(m, first), sh_tile_bias(b->job, first), sh_shift(b->job, query), n);
        if (!isfinite(best)) return sh_fail(context, SH_NOT_FINITE, "queries", query);
        sh_hide_excluded(b->job, query, first, n, scores);
    }
    return SH_OK;
}

typedef struct {
    int64_t support;
    double conjugate; /* beta times what the conjugate over beta exceeds the best score by */
} row_sums;

/* Turns a row of scores into weights in place, in pieces that fit the stack. */
static row_sums weigh_row(const sh_job *job, void *row, const sh_threshold *t, double best, double beta) {
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
            if (job->goal == SH_GOAL_ENERGY && p[i] > 0) sums.conjugate += job->map->conjugate_share(t, z[i], p[i]);
        }
        k->from_double(sh_at(k, row, j), p, n);
    }
    if (job->plan.tile_value_scale) k->multiply(row, job->plan.tile_value_scale, job->memory->patterns.n);
    return sums;
}

/* Writes z = beta (s - best) of all scores s within the cutoff. Returns how many. */
static int64_t scores_within_cutoff(const sh_job *job, const void *row, double best, double beta, double *z) {
    enum { PIECE = 512 };
    double s[PIECE], cutoff = job->map->cutoff(job->model.parameter);
    int64_t found = 0;
    for (int64_t j = 0; j < job->memory->patterns.n; j += PIECE) {
        int64_t n = sh_min(PIECE, job->memory->patterns.n - j);
        job->k->to_double(s, sh_at(job->k, row, j), n);
        for (int64_t i = 0; i < n; i++) {
            double scaled = beta * (s[i] - best);
            if (scaled > -cutoff) z[found++] = scaled;
        }
    }
    return found;
}

/* Solves a row by the canonical scores of all candidates that are not below min_score: a list that grows only with the
 * support. With `too_many`, it is set and nothing is stored if the support has more than sh_exact_support patterns. */
static sh_status solve_canonically(sh_job *job, int64_t query, const void *row, double min_score, int *too_many,
                                   sh_context *context) {
    enum { PIECE = 1024 };
    int64_t n = 0, scored = 0;
    sh_long_list l = {0};
    sh_status status = SH_NO_MEMORY;
    min_score = fmax(fmax(min_score, sh_least_score(job)), sh_floor(job, query, job->plan.slack[query]));
    if (!sh_lengthen_list(job, context, &l, 0, 4 * PIECE)) goto done;
    for (int64_t j = 0; j < job->memory->patterns.n; j += PIECE) {
        if (n + PIECE > l.capacity) {
            double threshold = sh_min_score(job, query, l.list, n, l.scratch.z, /* slack */ 0);
            n = sh_keep_above(job, query, l.list, n, threshold, /* slack */ 0);
            if (2 * n > l.capacity && !sh_lengthen_list(job, context, &l, n, 0)) goto done;
        }
        int64_t width = sh_min(PIECE, job->memory->patterns.n - j);
        int64_t found = job->k->collect(sh_at(job->k, row, j), width, min_score, j, l.list + n);
        sh_score_canonically(job, query, l.list + n, found, l.scratch.widened_row);
        n += found;
        scored += found;
        assert(n <= l.capacity);
        if (sh_stopped(context)) {
            status = SH_INTERRUPTED;
            goto done;
        }
    }
    if (job->out.counts) job->out.counts[query][SH_SCORED] = scored;
    n = sh_keep_in_reach(job, query, l.list, n);
    const int64_t most = too_many ? sh_exact_support(job, query) : n;
    if (n > most && sh_count_support(job, query, l.list, n, l.scratch.z) > most) {
        *too_many = 1;
        status = SH_OK;
    } else {
        status = sh_store_results(job, query, l.list, n, l.scratch, context);
    }
done:
    sh_release_list(context, &l);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

/* Answers a query of a map with full support canonically, if few patterns are within reach (rescore.c, note 2). */
static sh_status solve_in_reach(sh_job *job, int64_t query, const void *row, sh_context *context, int *answered) {
    const sh_kernels *k = job->k;
    const int64_t n = job->memory->patterns.n;
    const double best = k->maximum(row, n, NULL);
    sh_candidate_list in_reach = {.min_score = sh_least_score(job), .best = -INFINITY};
    *answered = 0;
    if (k->count(row, n, sh_score_in_reach(job, query, best, /* share */ 1)) > sh_most_in_reach(job, query))
        return SH_OK;
    sh_raise_min_score(job, query, &in_reach, best);
    in_reach.min_score = fmax(in_reach.min_score, sh_floor(job, query, job->plan.slack[query]));
    sh_long_list l = {0};
    if (!sh_lengthen_list(job, context, &l, 0, sh_max(1, k->count(row, n, in_reach.min_score))))
        return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    int64_t found = k->collect(row, n, in_reach.min_score, 0, l.list);
    sh_status status = sh_answer_in_reach(job, query, l.list, found, l.scratch, context, answered);
    sh_release_list(context, &l);
    return status;
}

typedef struct {
    sh_candidate *c;
    sh_entry *entries;
    void *widened_row; /* (d) */
} list_scratch;

static size_t lay_out_list(const sh_job *job, int64_t n, void *memory, list_scratch *s) {
    sh_workspace w = {memory, 0};
    s->c = sh_take(&w, n, sizeof *s->c);
    s->entries = sh_take(&w, n, sizeof *s->entries);
    s->widened_row = sh_take(&w, job->memory->patterns.d, job->k->size);
    return w.used;
}

/* Drops the pattern that a query excludes, whose weight of 0 may be listed; returns how many are left. */
static int64_t drop_excluded(const sh_job *job, int64_t query, sh_candidate *c, int64_t n) {
    const int64_t excluded = sh_excluded(job, query);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (c[i].position != excluded) c[kept++] = c[i];
    return kept;
}

/* Turns a row into weights of a map with full support, and stores those that are wanted with their canonical scores. */
static sh_status list_row(sh_job *job, int64_t query, void *row, sh_context *context) {
    const sh_kernels *k = job->k;
    int64_t n = job->memory->patterns.n;
    double scale = job->map->row_scale(k, row, n);
    double sum = job->map->row_weights(k, row, n, sh_beta(job, query), job->model.parameter, scale);
    k->multiply_by(row, sum != 0 ? 1 / sum : 0, n);
    int64_t found = k->count(row, n, job->min_weight);
    list_scratch s;
    void *memory = sh_allocate(context, 1, lay_out_list(job, found, NULL, &s));
    if (!memory) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    lay_out_list(job, found, memory, &s);
    k->collect(row, n, job->min_weight, 0, s.c); /* weights in place of scores */
    found = drop_excluded(job, query, s.c, found);
    if (job->top) found = sh_select_top(s.c, found, job->top);
    for (int64_t i = 0; i < found; i++) s.entries[i] = (sh_entry){s.c[i].position, 0, s.c[i].score};
    sh_score_canonically(job, query, s.c, found, s.widened_row);
    for (int64_t i = 0; i < found; i++) s.entries[i].score = s.c[i].score;
    qsort(s.entries, (size_t)found, sizeof *s.entries, sh_compare_numbers); /* by positions, which come first */
    sh_status status = sh_store_entries(job, query, s.entries, found, context);
    sh_release(context, memory);
    return status;
}

/* Settles the outliers of a row, tile by tile. */
static void settle_row(const sh_job *job, int64_t query, void *row, void *widened_row) {
    const sh_kernels *k = job->k;
    double best = NAN;
    for (int64_t first = 0; first < job->memory->patterns.n; first += SH_TILE) {
        const int64_t n = sh_min(SH_TILE, job->memory->patterns.n - first);
        void *scores = sh_at(k, row, first);
        sh_settle_outliers(job, query, first, n, scores, best, /* shift */ 0, widened_row);
        best = fmax(best, k->maximum(scores, n, NULL));
    }
}

/* Answers one query of a batch by its row of scores, or turns that into weights for the second product. */
static sh_status solve_row(void *pointer, int64_t item, void *scratch, sh_context *context) {
    batch *b = pointer;
    sh_job *job = b->job;
    const sh_kernels *k = job->k;
    int64_t query = query_of(b, item), n = job->memory->patterns.n;
    void *row = sh_at(k, b->scores, item * n); /* of scores */
    b->by_product[item] = 0;
    double slack = job->plan.slack[query], *z = scratch;
    if (job->plan.outliers) settle_row(job, query, row, scratch);
    if (!job->map->cutoff && !job->plan.k_best) {
        const int canonical = sh_needs_canonical_scores(job, query);
        int answered = 0;
        if (job->plan.reach > 0 && (!canonical || job->goal == SH_GOAL_CANDIDATES)) {
            sh_status status = solve_in_reach(job, query, row, context, &answered);
            if (status != SH_OK || answered || job->goal == SH_GOAL_CANDIDATES) return status;
        }
        if (!canonical) return job->goal == SH_GOAL_WEIGHTS ? list_row(job, query, row, context) : SH_OK; /* streamed */
        const double all = job->map->reach(k->unit / 2, sh_whole_count(job->memory));
        const double reach = job->plan.reach > 0 ? sh_reach_of(job, query) : all;
        const double best = k->maximum(row, n, NULL), cutoff = (1 + 1e-12) * reach / sh_beta(job, query);
        return solve_canonically(job, query, row, best - cutoff - 2 * slack - 0x1p-50 * fabs(best), NULL, context);
    }
    if (job->goal == SH_GOAL_RADIUS) {
        double radius = INFINITY;
        k->to_double(z, row, n);
        for (int64_t j = 0; j < n; j++) {
            sh_candidate c = {z[j], j};
            radius = fmin(radius, sh_radius_bound(job, query, &c, 1, slack));
        }
        return solve_canonically(job, query, row, sh_rival_min_score(job, query, radius) - slack, NULL, context);
    }
    if (job->plan.k_best) {
        k->to_double(z, row, n);
        double min_score = n < job->plan.k_best ? -INFINITY : sh_kth_largest(z, n, job->plan.k_best) - 2 * slack;
        return solve_canonically(job, query, row, min_score, NULL, context);
    }
    double best = k->maximum(row, n, NULL), beta = sh_beta(job, query), alpha = job->model.parameter;
    double cutoff = job->map->cutoff(alpha) / beta;
    sh_threshold t;
    job->map->threshold(alpha, scores_within_cutoff(job, row, best, beta, z), z, &t);
    double threshold = best + t.tau / t.unit / beta, rounding = 1e-12 * cutoff + 0x1p-50 * fabs(best);
    const int canonical = sh_is_list(job) || sh_needs_canonical_scores(job, query);
    if (canonical ||
        (!b->decided && k->count(row, n, threshold + 2 * slack + rounding) <= sh_exact_support(job, query))) {
        int too_many = 0;
        sh_status status =
            solve_canonically(job, query, row, threshold - 2 * slack - rounding, canonical ? NULL : &too_many, context);
        if (!too_many) return status;
    }
    row_sums sums = weigh_row(job, row, &t, best, beta);
    b->by_product[item] = 1;
    if (job->out.support_size) job->out.support_size[query] = sums.support;
    if (job->out.counts) job->out.counts[query][SH_IN_SUPPORT] = sums.support;
    if (job->out.energy) job->out.energy[query] = sh_energy_of(job, query, best + sums.conjugate / beta);
    return SH_OK;
}

/* Mixes some columns of the values by the weights of a batch: the second product. */
static sh_status mix_columns(void *pointer, int64_t item, void *scratch, sh_context *context) {
    batch *b = pointer;
    const sh_job *job = b->job;
    const sh_kernels *k = job->k;
    int64_t width = job->values->d, column = item * COLUMNS, columns = sh_min(COLUMNS, width - column);
    int64_t n = job->memory->patterns.n;
    for (int64_t first = 0; first < n; first += SH_TILE) {
        sh_tile_mix(job, sh_at(k, b->scores, first), n, b->rows, first, sh_min(SH_TILE, n - first), column, columns,
                    first > 0, sh_at(k, b->states, column), width, scratch);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* --- batches -------------------------------------------------------------------------------------- */

/* Scores the queries of a batch, and answers those that the second product is not to mix. Returns in *mixed how many it
 * is. */
static sh_status solve_batch(batch *b, int64_t *mixed) {
    sh_job *job = b->job;
    const sh_memory *m = job->memory;
    *mixed = 0;
    sh_gather_queries(job, job->plan.overflow_queries + b->first, b->rows, b->queries);
    sh_status status = sh_for_each(job->context, job->plan.tiles, sh_tile_row_bytes(m), score_tile, b);
    if (status != SH_OK) return status;

    /* a row to solve needs M doubles: no more threads at once than these fit the budget */
    sh_context limited = *job->context;
    size_t row_bytes = (size_t)sh_max(m->patterns.n, m->patterns.d) * sizeof(double);
    limited.threads = (int)sh_max(1, sh_min(limited.threads, (int64_t)(ROWS_BYTES / row_bytes)));
    status = sh_for_each(&limited, b->rows, row_bytes, solve_row, b);
    if (status != SH_OK) return sh_fail(job->context, status, limited.argument, limited.row);
    for (int64_t i = 0; i < b->rows; i++) *mixed += b->by_product[i];
    return SH_OK;
}

/* Mixes the states of a batch whose rows all are weights. */
static sh_status mix_batch(batch *b) {
    sh_job *job = b->job;
    size_t state_bytes = (size_t)job->values->d * job->k->size;
    if (!job->out.states) return SH_OK;
    sh_status status =
        sh_for_each(job->context, sh_ceil_div(job->values->d, COLUMNS), sh_tile_row_bytes(job->memory), mix_columns, b);
    for (int64_t i = 0; status == SH_OK && i < b->rows; i++) {
        char *state = b->states + (size_t)i * state_bytes;
        if (job->plan.value_centre) job->k->add(state, 1, job->plan.value_centre, job->values->d);
        sh_note_states_if_not_finite(job, state, 1);
        memcpy((char *)job->out.states + (size_t)query_of(b, i) * state_bytes, state, state_bytes);
    }
    return status;
}

sh_status sh_overflow(sh_job *job) {
    sh_context *context = job->context;
    const sh_memory *m = job->memory;
    int64_t count = atomic_load(&job->plan.overflow_count), *queries = job->plan.overflow_queries;
    if (count == 0) return SH_OK;
    sh_allow_for_rounding(job);
    qsort(queries, (size_t)count, sizeof *queries, sh_compare_numbers); /* threads found them in any order */
    for (int64_t i = 1; i < count; i++) assert(queries[i - 1] < queries[i]);
    int64_t bytes = (m->patterns.n + m->patterns.d + job->values->d) * (int64_t)job->k->size;
    int64_t rows = sh_min(count, sh_max(1, sh_min(SH_BLOCK, ROWS_BYTES / bytes)));
    batch b = {.job = job};
    void *memory = sh_allocate(context, 1, lay_out(rows, NULL, &b));
    if (!memory) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    lay_out(rows, memory, &b);
    sh_status status = SH_OK;
    int64_t later = 0, mixed;
    for (b.first = 0; status == SH_OK && b.first < count; b.first += rows) {
        b.rows = sh_min(rows, count - b.first);
        status = solve_batch(&b, &mixed);
        if (status == SH_OK && mixed == b.rows && later == 0)
            status = mix_batch(&b);
        else
            for (int64_t i = 0; status == SH_OK && i < b.rows; i++)
                if (b.by_product[i]) queries[later++] = query_of(&b, i);
    }
    b.decided = 1;
    for (b.first = 0; status == SH_OK && b.first < later; b.first += rows) {
        b.rows = sh_min(rows, later - b.first);
        status = solve_batch(&b, &mixed);
        assert(status != SH_OK || mixed == b.rows);
        if (status == SH_OK) status = mix_batch(&b);
    }
    sh_release(context, memory);
    return status;
}
