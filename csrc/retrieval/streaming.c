/* streaming.c: maps with full support (softmax, polynomial) in one pass, carrying {scale, sum, mixture}.
 *
 * A tile of scores becomes unnormalised weights in place and is multiplied with its values at once; when a
 * larger scale turns up, what was summed is brought down to it. Two products, no row of scores kept.
 *
 * Notes  1. The mixture is summed in the compute type, in the order of the tiles, the sum of weights in double.
 *           The grid follows from the shapes, so bits do not depend on the number of threads; they do on the
 *           instruction set and on the BLAS.
 *        2. The mixtures of the first range are summed in `states`; other ranges have mixtures of their own.
 *        3. Weights of softmax that all together stay below the rounding of the result are left out: scores more
 *           than ln(2 M / u)/beta below the best so far, which only rises. If few weights of a tile count, they are
 *           selected, and the second product, mostly of zeros, is not made.
 *        4. Meanwhile the candidates of canonical results (rescore.c, note 2) are listed, as the scan does, for a cutoff
 *           that follows the best score. A list that grows too long is given up; then patterns are counted that are
 *           within reach for certain: too many, and the streamed result stands. Where that cannot be told either, as
 *           the best score came late or too many scores lie within their slack, the query is left to overflow.c.
 *           Ranges tell each other the best scores, in any order: so what they list differs, but not what is decided.
 * Source Milakov & Gimelshein 2018; Rabe & Staats 2021
 */
#include "retrieval/job.h"
#include <stdlib.h>

enum {
    PARTIAL_BYTES = 16 * 1024 * 1024,
    FIRST_CAPACITY = 64, /* candidates that a list holds at first */
    LONGER = 1 << 21,    /* candidates (32 MiB) by which the lists of an item may grow, all together */
};
static const double LEVEL = 0.875; /* share of the reach in which patterns are counted, as the best may still rise */

/* The patterns within reach of one query, as far as a stream has met them (note 4). */
typedef struct {
    sh_candidate_list list; /* allocated where it is longer than at first; given up where it `overflows` */
    double lost;            /* then: scores that have passed and are not in the list are at most this, */
    double level;           /* and scores from here on are within reach for certain, unless the best rises; */
    int64_t count;          /* so many of these have passed */
} reached;

typedef struct {
    sh_job *job;
    int64_t n;         /* queries: all, or those that no index served */
    sh_partial *parts; /* (ranges); the first is the result */
    uint8_t *answered; /* (n) 1 where a result is canonical, and stored */
    /* of several ranges: */
    _Atomic double *best; /* (n) the best scores of tiles so far */
    reached *handed;      /* (n, ranges) */
    _Atomic int64_t handed_candidates;
} stream;

typedef struct {
    void *scores, *tile_rows; /* (block_rows, SH_TILE); of sh_tile_scores */
    void *values;             /* (SH_TILE) selected scores, then their weights, */
    int32_t *indices;         /* and which they are of the tile */
    void *queries;            /* (block_rows, d) gathered; of no use where all queries are streamed */
    void *row;                /* (d) a widened row */
    reached *reached;         /* (block_rows) */
    sh_candidate *candidates; /* (block_rows, FIRST_CAPACITY) */
    sh_result_scratch results;
} item_scratch;

/* Lays out the scratch of one worker; returns its bytes (memory NULL: these alone). */
static size_t lay_out(const sh_job *job, void *memory, item_scratch *s) {
    sh_workspace w = {memory, 0};
    const int64_t rows = job->plan.block_rows, listed = job->plan.reach > 0 ? rows : 0;
    s->scores = sh_take(&w, rows * SH_TILE, job->k->size);
    s->tile_rows = sh_take(&w, 1, sh_tile_row_bytes(job->memory));
    s->values = sh_take(&w, SH_TILE, job->k->size);
    s->indices = sh_take(&w, SH_TILE, sizeof *s->indices);
    s->queries = sh_take(&w, job->plan.scan_queries ? rows * job->memory->patterns.d : 0, job->k->size);
    s->row = sh_take(&w, job->plan.outliers ? job->memory->patterns.d : 0, job->k->size);
    s->reached = sh_take(&w, listed, sizeof *s->reached);
    s->candidates = sh_take(&w, listed * FIRST_CAPACITY, sizeof *s->candidates);
    if (listed) s->results = sh_take_result_scratch(job, &w, job->plan.most_in_reach);
    return w.used;
}

void sh_raise_scale(const sh_job *job, int64_t query, double *scale, double *sum, void *mixture, double row_scale) {
    if (*scale != *scale) *scale = row_scale;
    if (!(row_scale > *scale)) return;
    double factor = job->map->rescale(sh_beta(job, query), job->model.parameter, *scale, row_scale);
    *sum *= factor;
    if (mixture) job->k->multiply_by(mixture, factor, job->values->d);
    *scale = row_scale;
    assert(factor >= 0 && factor <= 1);
}

enum { DENSE = 8 }; /* if more than one weight in so many counts, a product is cheaper */

/* Adds the values of the n scores of one query and tile that are at least `min_score` to its mixture, one by one (note 3).
 * Returns the sum of their weights. */
static double add_selected(const sh_job *job, int64_t query, double scale, void *mixture, const void *row,
                           int64_t first, int64_t n, double min_score, item_scratch work) {
    const sh_kernels *k = job->k;
    int64_t found = k->compress(row, n, min_score, work.values, work.indices);
    double beta = sh_beta(job, query);
    double sum = job->map->row_weights(k, work.values, found, beta, job->model.parameter, scale);
    if (!mixture) return sum;
    if (job->plan.value_scale)
        for (int64_t i = 0; i < found; i++) {
            double w;
            k->to_double(&w, sh_at(k, work.values, i), 1);
            w *= job->plan.value_scale[first + work.indices[i]];
            k->from_double(sh_at(k, work.values, i), &w, 1);
        }
    sh_rows rows = *job->values;
    rows.data = (const char *)rows.data + first * rows.stride;
    rows.n -= first;
    sh_mix_selected(k, &rows, work.values, work.indices, found, mixture, work.tile_rows);
    return sum;
}

/* Tells whether candidates of a query are listed; of scores that are too inaccurate it is overflow.c's. */
static int is_listed(const sh_job *job, int64_t query) {
    return job->plan.reach > 0 && !sh_needs_canonical_scores(job, query);
}

/* Removes candidates that are out of reach of the best score so far. */
static void drop(const sh_job *job, int64_t query, sh_candidate_list *l) {
    l->n = sh_keep_above(job, query, l->list, l->n, l->min_score, job->plan.slack[query]);
}

/* Gives a list up, and counts what is within reach for certain. */
static void give_up(const sh_job *job, int64_t query, reached *r, double best) {
    r->level = sh_score_in_reach(job, query, best, LEVEL);
    r->count = 0;
    for (int64_t i = 0; i < r->list.n; i++) r->count += r->list.list[i].score >= r->level;
    r->lost = best;
    r->list.overflows = 1;
    r->list.n = 0;
}

/* Returns how many patterns are listed, or counted, that are within reach of the best score for certain. */
static int64_t certain(const sh_job *job, int64_t query, const reached *r, double best) {
    const double in_reach = sh_score_in_reach(job, query, best, /* share */ 1);
    int64_t n = r->level >= in_reach ? r->count : 0;
    for (int64_t i = 0; i < r->list.n; i++) n += r->list.list[i].score >= in_reach;
    return n;
}

/* Makes room for some more candidates in a list, which gets twice as long where more than half of it would be in use; all
 * lists of an item may take `left` more memory, in candidates. Returns 0 where there is no room, or there are too many
 * candidates, unless the best score still rises much. */
static int make_room(const sh_job *job, int64_t query, reached *r, int64_t more, double best, int64_t *left,
                     sh_context *context) {
    sh_candidate_list *l = &r->list;
    if (l->n + more <= l->capacity) return 1;
    drop(job, query, l);
    const int64_t most = sh_most_in_reach(job, query);
    if (l->n > most) {
        int64_t many = 0;
        const double level = sh_score_in_reach(job, query, best, LEVEL);
        for (int64_t i = 0; i < l->n; i++) many += l->list[i].score >= level;
        if (many > most) return 0;
    }
    const int64_t wanted = l->n + more, capacity = 2 * sh_max(wanted, l->capacity), grows_by = capacity - l->capacity;
    if (2 * wanted <= l->capacity) return 1;
    if (wanted > 2 * most + SH_TILE || grows_by > *left) return 0;
    sh_candidate *longer = sh_allocate(context, capacity, sizeof *longer);
    if (!longer) return 0;
    memcpy(longer, l->list, (size_t)l->n * sizeof *longer);
    if (l->capacity > FIRST_CAPACITY) sh_release(context, l->list);
    *left -= grows_by;
    l->list = longer;
    l->capacity = capacity;
    return 1;
}

/* A row of scores of a tile. */
typedef struct {
    const void *scores; /* (n) */
    int64_t n, first;   /* the pattern that the tile begins with */
    double best;        /* of these scores */
} tile_row;

/* Lists, or counts, what is within reach in a row of a tile. `best` is the best score so far, with those of the row. */
static void reach_into(const sh_job *job, int64_t query, reached *r, tile_row row, double best, int64_t *left,
                       sh_context *context) {
    sh_candidate_list *l = &r->list;
    const sh_kernels *k = job->k;
    sh_raise_min_score(job, query, l, best);
    if (l->overflows && l->min_score > r->lost) { /* nothing that was lost is within reach any more */
        l->overflows = 0;
        r->count = 0;
    }
    if (!l->overflows) {
        if (row.best < l->min_score) return;
        if (make_room(job, query, r, k->count(row.scores, row.n, l->min_score), best, left, context)) {
            l->n += k->collect(row.scores, row.n, l->min_score, row.first, l->list + l->n);
            return;
        }
        give_up(job, query, r, best);
    }
    if (r->level < sh_score_in_reach(job, query, best, 1)) {
        r->level = sh_score_in_reach(job, query, best, LEVEL);
        r->count = 0;
    }
    r->lost = fmax(r->lost, row.best);
    if (r->count <= sh_most_in_reach(job, query) && row.best >= r->level)
        r->count += k->count(row.scores, row.n, r->level);
}

/* Answers query i of the stream from its candidates, if they are known and few; else leaves it to overflow.c, unless they
 * are known to be many. */
static sh_status answer(stream *s, int64_t i, reached *r, double best, sh_result_scratch results, sh_context *context) {
    sh_job *job = s->job;
    const int64_t query = sh_scan_query(job, i);
    int answered = 0;
    sh_status status = SH_OK;
    if (!r->list.overflows)
        status = sh_answer_in_reach(job, query, r->list.list, r->list.n, results, context, &answered);
    else if (certain(job, query, r, best) <= sh_most_in_reach(job, query))
        sh_leave_to_overflow(job, query);
    s->answered[i] = (uint8_t)answered;
    atomic_fetch_add(&job->plan.in_reach_count, answered);
    return status;
}

/* Copies what a range has listed for query i to where join_item finds it. */
static void hand_over(stream *s, int64_t i, int64_t range, reached *r, double best, sh_context *context) {
    sh_candidate_list *l = &r->list;
    sh_candidate *copy = sh_copy_handed(context, &s->handed_candidates, l);
    if (l->n && !copy) give_up(s->job, sh_scan_query(s->job, i), r, best);
    reached *to = &s->handed[i * s->job->plan.ranges + range];
    *to = *r;
    to->list.list = copy;
}

/* Joins the lists of query i of all ranges, which ascend, and answers it. */
static sh_status join_item(void *pointer, int64_t i, void *scratch, sh_context *context) {
    (void)scratch;
    stream *s = pointer;
    sh_job *job = s->job;
    const int64_t query = sh_scan_query(job, i), ranges = job->plan.ranges;
    const double best = atomic_load(&s->best[i]);
    reached joined = {.list = {.min_score = sh_least_score(job), .best = -INFINITY}, .level = -INFINITY};
    sh_long_list l = {0};
    int64_t n = 0, in_reach = 0;
    if (!is_listed(job, query)) return SH_OK;
    for (int64_t r = 0; r < ranges; r++) {
        const reached *of_range = &s->handed[i * ranges + r];
        n += of_range->list.n;
        joined.list.overflows |= of_range->list.overflows;
        in_reach += certain(job, query, of_range, best);
    }
    if (in_reach > sh_most_in_reach(job, query)) return SH_OK;
    if (!joined.list.overflows) {
        if (!sh_lengthen_list(job, context, &l, 0, sh_max(n, 1))) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
        joined.list.list = l.list;
        for (int64_t r = 0; r < ranges; r++) {
            const sh_candidate_list *of_range = &s->handed[i * ranges + r].list;
            if (of_range->n) memcpy(l.list + joined.list.n, of_range->list, (size_t)of_range->n * sizeof *l.list);
            joined.list.n += of_range->n;
        }
        sh_raise_min_score(job, query, &joined.list, best);
        drop(job, query, &joined.list);
    }
    sh_status status = answer(s, i, &joined, best, l.scratch, context);
    sh_release_list(context, &l);
    return status;
}

/* Returns the best score of query i of the stream so far, given that of a range; ranges tell each other. */
static double best_so_far(stream *s, int64_t i, double best) {
    if (!s->best) return best;
    double other = atomic_load(&s->best[i]);
    while (other < best && !atomic_compare_exchange_weak(&s->best[i], &other, best)) continue;
    return fmax(other, best);
}

/* Streams a range of tiles past a block of queries. */
static sh_status stream_tiles(stream *s, const sh_grid_item *g, item_scratch work, sh_context *context) {
    const sh_job *job = s->job;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    const int64_t width = job->values->d, first_query = g->first_query, rows = g->rows;
    const void *queries = job->plan.scan_queries ? work.queries : sh_tile_query(job, first_query);
    sh_partial part = s->parts[g->range];
    void *mixture = part.mixture ? sh_at(k, part.mixture, first_query * width) : NULL;
    const int mixes_whole_tiles = job->values->type > SH_FLOAT64 || job->plan.value_centre; /* widened, or centred */
    const int may_select = job->map->reach && !(mixture && mixes_whole_tiles);
    const int map_hides = job->map->shift_invariant; /* scores of -inf; else they are 0, as any may be (excluded.c) */
    double min_scores[SH_BLOCK];                     /* INFINITY: the query sees none of the tile */
    int64_t left = LONGER;
    for (int64_t i = first_query; i < first_query + rows; i++) part.scale[i] = NAN, part.sum[i] = 0;

    for (int64_t tile = g->first_tile; tile < g->last_tile; tile++) {
        int64_t first = tile * SH_TILE, n = sh_min(SH_TILE, m->patterns.n - first), counted = 0;
        const int has_outliers = sh_outliers_of(job, first, n).n > 0;
        sh_tile_scores(job, &m->patterns, queries, rows, first, n, work.scores, SH_TILE, work.tile_rows);
        for (int64_t i = 0; i < rows; i++) {
            const int64_t number = first_query + i, query = sh_scan_query(job, number);
            void *row = sh_at(k, work.scores, i * SH_TILE);
            if (m->tile_scale || job->plan.tile_bias)
                k->affine_max(row, sh_tile_scale(m, first), sh_tile_bias(job, first), 0, n);
            const int is_hidden = sh_hide_excluded(job, query, first, n, row);
            min_scores[i] = -INFINITY;
            if (is_hidden && map_hides && sh_sees_none(job, query, first, n)) {
                memset(row, 0, (size_t)n * k->size); /* as weights */
                min_scores[i] = INFINITY;
                continue;
            }
            if (has_outliers)
                sh_settle_outliers(job, query, first, n, row, part.scale[number], sh_shift(job, query), work.row);
            double row_scale = job->map->row_scale(k, row, n);
            if (!isfinite(row_scale)) return sh_fail(context, SH_NOT_FINITE, "queries", query);
            void *mixed = mixture ? sh_at(k, mixture, i * width) : NULL;
            sh_raise_scale(job, query, &part.scale[number], &part.sum[number], mixed, row_scale);
            const tile_row passing = {row, n, first, row_scale};
            if (is_listed(job, query))
                reach_into(job, query, &work.reached[i], passing, best_so_far(s, number, part.scale[number]), &left,
                           context);
            if (!may_select) continue;
            min_scores[i] = part.scale[number] - job->map->reach(k->unit / 2, sh_whole_count(m)) / sh_beta(job, query);
            counted += k->count(row, n, min_scores[i]);
        }
        int sparse = may_select && counted * DENSE <= rows * n;
        if (sparse && mixture && tile == g->first_tile) memset(mixture, 0, (size_t)(rows * width) * k->size);
        for (int64_t i = 0; i < rows; i++) {
            const int64_t number = first_query + i, query = sh_scan_query(job, number);
            void *row = sh_at(k, work.scores, i * SH_TILE), *mixed = mixture ? sh_at(k, mixture, i * width) : NULL;
            if (min_scores[i] == INFINITY) continue; /* it sees none */
            if (sparse) {
                part.sum[number] +=
                    add_selected(job, query, part.scale[number], mixed, row, first, n, min_scores[i], work);
                continue;
            }
            part.sum[number] +=
                job->map->row_weights(k, row, n, sh_beta(job, query), job->model.parameter, part.scale[number]);
            if (mixture && job->plan.tile_value_scale) k->multiply(row, sh_at(k, job->plan.tile_value_scale, first), n);
        }
        if (mixture && !sparse)
            sh_tile_mix(job, work.scores, SH_TILE, rows, first, n, 0, width, tile > g->first_tile, mixture, width,
                        work.tile_rows);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    for (int64_t i = first_query; i < first_query + rows; i++) /* of a range of which the query sees none */
        if (isnan(part.scale[i])) part.scale[i] = -INFINITY;
    return SH_OK;
}

/* Streams one range of tiles past one block of queries, and answers what is canonical or, of several ranges, hands
 * lists over. */
static sh_status stream_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    stream *s = pointer;
    const sh_job *job = s->job;
    const sh_grid_item g = sh_item_of_grid(job, item, s->n);
    item_scratch work;
    lay_out(job, scratch, &work);
    if (job->plan.scan_queries) sh_gather_queries(job, job->plan.scan_queries + g.first_query, g.rows, work.queries);
    for (int64_t i = 0; job->plan.reach > 0 && i < g.rows; i++)
        work.reached[i] = (reached){.list = {.capacity = FIRST_CAPACITY,
                                             .min_score = sh_least_score(job),
                                             .best = -INFINITY,
                                             .list = work.candidates + i * FIRST_CAPACITY}};
    sh_status status = stream_tiles(s, &g, work, context);
    for (int64_t i = 0; job->plan.reach > 0 && i < g.rows; i++) {
        const int64_t number = g.first_query + i, query = sh_scan_query(job, number);
        const double best = s->parts[g.range].scale[number];
        reached *r = &work.reached[i];
        if (status == SH_OK && is_listed(job, query)) {
            drop(job, query, &r->list);
            if (s->handed)
                hand_over(s, number, g.range, r, best, context);
            else
                status = answer(s, number, r, best, work.results, context);
        }
        if (r->list.capacity > FIRST_CAPACITY) sh_release(context, r->list.list);
    }
    return status;
}

sh_status sh_merge(sh_model model, sh_type type, int64_t n, int64_t v, const double *beta, int64_t beta_stride,
                   sh_partial a, sh_partial b) {
    const sh_map *map = sh_map_of(&model);
    if (!map || !map->rescale || (type != SH_FLOAT32 && type != SH_FLOAT64)) return SH_BAD_ARGUMENT;
    if (v < 0 || !sh_can_be(n, sizeof(double)) || (beta_stride != 0 && beta_stride != 1)) return SH_BAD_ARGUMENT;
    if (n == 0) return SH_OK;
    if (!beta || !a.scale || !a.sum || !b.scale || !b.sum || !a.mixture != !b.mixture) return SH_BAD_ARGUMENT;
    const sh_kernels *k = sh_kernels_of(type);
    for (int64_t i = 0; i < n; i++) {
        double scale = fmax(a.scale[i], b.scale[i]), query_beta = beta[i * beta_stride];
        double factor_a = map->rescale(query_beta, model.parameter, a.scale[i], scale);
        double factor_b = map->rescale(query_beta, model.parameter, b.scale[i], scale);
        a.scale[i] = scale;
        a.sum[i] = factor_a * a.sum[i] + factor_b * b.sum[i];
        if (!a.mixture) continue;
        enum { PIECE = 256 };
        double mixture[PIECE];
        for (int64_t j = 0; j < v; j += PIECE) {
            int64_t width = sh_min(PIECE, v - j);
            void *row = sh_at(k, a.mixture, i * v + j);
            k->to_double(mixture, row, width);
            for (int64_t l = 0; l < width; l++) mixture[l] *= factor_a;
            k->accumulate(mixture, factor_b, sh_at(k, b.mixture, i * v + j), width);
            k->from_double(row, mixture, width);
        }
    }
    return SH_OK;
}

/* Writes the result of query i of the stream from the partial result of all patterns; divides by the sum of weights. */
static void store_result(const stream *s, int64_t i) {
    const sh_job *job = s->job;
    const sh_kernels *k = job->k;
    const sh_partial result = s->parts[0];
    const int64_t query = sh_scan_query(job, i), width = job->values->d;
    const double sum = result.sum[i];
    if (job->out.support_size) job->out.support_size[query] = sh_seen_count(job, query);
    if (job->out.energy)
        job->out.energy[query] = sh_energy_of(job, query, result.scale[i] + log(sum) / sh_beta(job, query));
    if (!job->out.states) return;
    void *state = sh_at(k, job->out.states, query * width), *mixture = sh_at(k, result.mixture, i * width);
    k->multiply_by(mixture, sum != 0 ? 1 / sum : 0, width);
    if (job->plan.value_centre) k->add(mixture, 1, job->plan.value_centre, width);
    if (state != mixture) memcpy(state, mixture, (size_t)width * k->size);
}

enum { CHECKED_NUMBERS = 2048 }; /* of states, checked together while they are in the cache */

/* Writes all results, but those that are canonical. */
static void store_results(const stream *s) {
    const int64_t width = s->job->values->d;
    int64_t checked = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (!s->answered[i]) store_result(s, i);
        if (!s->job->out.states || (i + 1 < s->n && (i + 1 - checked) * width < CHECKED_NUMBERS)) continue;
        sh_note_states_if_not_finite(s->job, sh_at(s->job->k, s->parts[0].mixture, checked * width), i + 1 - checked);
        checked = i + 1;
    }
}

sh_status sh_stream(sh_job *job) {
    sh_context *context = job->context;
    const sh_kernels *k = job->k;
    sh_plan *plan = &job->plan;
    const int64_t n = sh_scan_count(job), width = job->values->d;
    const int partial = job->goal == SH_GOAL_PARTIAL, gathered = plan->scan_queries != NULL;
    const int mixture = (partial ? job->out.partial.mixture : job->out.states) != NULL;
    if (n == 0) return SH_OK;
    if (gathered)
        qsort(plan->scan_queries, (size_t)n, sizeof *plan->scan_queries, sh_compare_numbers); /* threads left them */
    sh_set_grid(job, n);
    int64_t part_bytes = n * (mixture ? width * (int64_t)k->size + 16 : 16);
    plan->ranges = sh_min(plan->ranges, 1 + PARTIAL_BYTES / part_bytes);

    stream s = {.job = job, .n = n};
    const int64_t ranges = plan->ranges, handed = plan->reach > 0 && ranges > 1 ? n * ranges : 0;
    const int64_t own_mixtures = mixture ? (ranges - 1 + gathered) * n : 0;
    sh_status status = SH_NO_MEMORY;
    double *sums = sh_allocate(context, 2 * n * ranges, sizeof(double));
    double *beta = gathered ? sh_allocate(context, n, sizeof *beta) : NULL;
    char *mixtures = own_mixtures ? sh_allocate(context, own_mixtures, (size_t)width * k->size) : NULL;
    s.parts = sh_allocate(context, ranges, sizeof *s.parts);
    s.answered = sh_allocate(context, n, sizeof *s.answered);
    s.best = handed ? sh_allocate(context, n, sizeof *s.best) : NULL;
    s.handed = handed ? sh_allocate(context, handed, sizeof *s.handed) : NULL;
    if (s.handed) memset(s.handed, 0, (size_t)handed * sizeof *s.handed);
    if (!sums || !s.parts || !s.answered || (own_mixtures && !mixtures) || (gathered && !beta)) goto done;
    if (handed && (!s.best || !s.handed)) goto done;
    memset(s.answered, 0, (size_t)n);
    for (int64_t i = 0; s.best && i < n; i++) atomic_init(&s.best[i], -INFINITY);
    for (int64_t i = 0; beta && i < n; i++) beta[i] = sh_beta(job, sh_scan_query(job, i));
    for (int64_t r = 0; r < ranges; r++) {
        s.parts[r] = (sh_partial){.scale = sums + 2 * r * n, .sum = sums + (2 * r + 1) * n};
        if (!mixture) continue;
        s.parts[r].mixture = job->out.states;
        if (r || gathered) s.parts[r].mixture = mixtures + (size_t)((r - !gathered) * n * width) * k->size;
    }
    if (partial) s.parts[0] = job->out.partial;
    status = sh_for_each(context, plan->blocks * ranges, lay_out(job, NULL, &(item_scratch){0}), stream_item, &s);
    for (int64_t r = 1; status == SH_OK && r < ranges; r++)
        status = sh_merge(job->model, job->memory->type, n, width, beta ? beta : job->queries.beta,
                          beta ? 1 : job->queries.beta_stride, s.parts[0], s.parts[r]);
    for (int64_t i = 0; status == SH_OK && plan->shift && i < n; i++)
        s.parts[0].scale[i] += sh_shift(job, sh_scan_query(job, i));
    for (int64_t i = 0; status == SH_OK && partial && mixture && plan->value_centre && i < n; i++)
        k->add(sh_at(k, s.parts[0].mixture, i * width), s.parts[0].sum[i], plan->value_centre, width);
    if (status == SH_OK && !partial) store_results(&s);
    if (status == SH_OK && handed) status = sh_for_each(context, n, 0, join_item, &s);
    if (plan->reach > 0)
        atomic_store(&job->memory->indexes->share_in_reach, (double)atomic_load(&plan->in_reach_count) / (double)n);
done:
    for (int64_t i = 0; s.handed && i < handed; i++) sh_release(context, s.handed[i].list.list);
    sh_release(context, s.handed);
    sh_release(context, s.best);
    sh_release(context, s.answered);
    sh_release(context, beta);
    sh_release(context, sums);
    sh_release(context, mixtures);
    sh_release(context, s.parts);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
