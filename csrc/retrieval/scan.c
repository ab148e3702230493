/* scan.c: the pass over all patterns for maps with a cutoff: tiles of scores, lists of candidates.
 *
 * Queries come in blocks, patterns in tiles. One single-threaded product writes a tile of scores that stays in the
 * cache. For each query the tile's maximum is compared with the least score that counts, min_score; nearly always that
 * is joined. Else the scores that reach it are appended to the query's list. A full list is cut down by solving for the
 * threshold of its candidates: scores seen later only raise the threshold, so what is below it is dropped for good. If
 * that leaves more than half of it, the list gets twice as long: each candidate is solved for a few times, however long
 * the list becomes.
 *
 * Notes  1. Tiles hold scores rounded by the product in an unknown order. They differ from the exact ones by at
 *           most slack = g(1.05 d + 16) (|x| max|xi| + max|bias| + |shift|) + underflow, g(n) = n u / (1 - n u),
 *           whatever the blocking or contraction (Higham 2002, section 3.1); the 5 % are the canonical score's own.
 *           Outliers have a slack of their own, and all others the one that this makes possible (outliers.c).
 *        2. A pattern can matter only if its exact score is within cutoff/beta of the best exact score. So a
 *           tile score below (best tile score - slack) - cutoff/beta - slack is out. Compared with >=, and the
 *           slack counted twice, this can never drop the best itself, however large beta is.
 *        3. With few queries the tiles are divided into ranges; their lists are joined and solved once more.
 *        4. Lists grow as far as supports are decided canonically (sh_exact_support), while there is memory. How far that
 *           goes, and so what is left to overflow.c, changes no result: the rule for what is canonical is there.
 *        5. Scores of patterns that are hidden from a query, as they are removed or excluded, are -inf, and so below every
 *           min_score (excluded.c).
 *        6. Where candidates are wanted (SH_GOAL_CANDIDATES), the reach of softmax is its cutoff, and min_score begins at
 *           the floor, less the slack: of patterns far from a query, or better known elsewhere, nothing is listed.
 */
#include "retrieval/job.h"
#include <math.h>
#include <string.h>

enum {
    CAPACITY = 128,   /* candidates that a list holds at first */
    PIECE = 64,       /* scores collected between two checks that the list has space for as many; CAPACITY / 2 */
    LONGER = 1 << 21, /* candidates (32 MiB) by which the lists of a block may grow, all together, */
    LONGER_ALL = 16,  /* or for every pattern (256 bytes) those of all threads, where that is more */
    HANDED = 1 << 22, /* candidates (64 MiB) that all ranges hand over, at most */
    THREAD_ITEMS = 4, /* work items wanted a thread, where tiles are divided for that */
    TOO_MANY = -1,    /* in place of a list's length: it is left to overflow.c */
};

/* The list that a range hands over for one query. */
typedef struct {
    int64_t n; /* or TOO_MANY */
    sh_candidate *list;
} range_list;

typedef struct {
    sh_job *job;
    int64_t n;              /* queries: all, or those that no index serves */
    range_list *lists;      /* (n, ranges), or NULL if there is one range */
    _Atomic int64_t handed; /* candidates in them */
} scan;

typedef struct {
    void *scores;             /* (block_rows, SH_TILE) */
    void *tile_rows;          /* of sh_tile_scores */
    void *queries;            /* (block_rows, d) gathered; of no use where all queries are scanned */
    sh_candidate *candidates; /* (block_rows, CAPACITY) of lists that have not grown */
    sh_candidate_list *lists; /* (block_rows) */
    double *outliers;         /* (SH_TILE) scores of those of a tile */
    sh_result_scratch results;
    /* not in the workspace: */
    int64_t most;    /* candidates of the longest list that there may be */
    int64_t grown;   /* candidates by which lists have grown */
    int64_t budget;  /* by which they may */
    double *longer;  /* results.z where it has grown with the longest list; else NULL */
    int64_t numbers; /* that results.z holds */
} item_scratch;

/* Returns how many candidates a query may have in the end, given how many its support may have. */
static int64_t longest_list(const sh_job *job, int64_t exact_support) {
    const int64_t in_reach = sh_max(SH_EXACT_SUPPORT, job->plan.most_in_reach); /* some of which may be out of it */
    const int64_t most = job->plan.reach > 0 ? in_reach : exact_support;
    return job->plan.longest_list ? sh_min(job->plan.longest_list, most) : most;
}

static size_t lay_out(const sh_job *job, void *memory, item_scratch *s) {
    sh_workspace w = {memory, 0};
    int64_t rows = job->plan.block_rows;
    s->scores = sh_take(&w, rows * SH_TILE, job->k->size);
    s->tile_rows = sh_take(&w, (int64_t)sh_tile_row_bytes(job->memory), 1);
    s->candidates = sh_take(&w, rows * CAPACITY, sizeof *s->candidates);
    s->lists = sh_take(&w, rows, sizeof *s->lists);
    s->queries = sh_take(&w, job->plan.scan_queries ? rows * job->memory->patterns.d : 0, job->k->size);
    s->outliers = sh_take(&w, job->plan.outliers ? SH_TILE : 0, sizeof *s->outliers);
    s->results = sh_take_result_scratch(job, &w, CAPACITY);
    s->most = 2 * longest_list(job, sh_exact_support_of(sh_whole_count(job->memory)));
    s->grown = 0;
    s->budget = sh_max(LONGER, LONGER_ALL * job->memory->patterns.n / sh_max(job->context->threads, 1));
    s->longer = NULL;
    s->numbers = CAPACITY;
    return w.used;
}

void sh_compact(const sh_job *job, int64_t query, sh_candidate_list *l, double *z) {
    double slack = job->plan.slack[query];
    if (l->n == 0) return;
    l->min_score = fmax(l->min_score, sh_min_score(job, query, l->list, l->n, z, slack));
    l->n = sh_keep_above(job, query, l->list, l->n, l->min_score, slack);
}

int sh_make_room(const sh_job *job, int64_t query, sh_candidate_list *l, int64_t more, double *z) {
    assert(l->n >= 0 && l->n <= l->capacity && more <= l->capacity);
    if (l->n > l->capacity - more) sh_compact(job, query, l, z);
    l->overflows = l->n > l->capacity - more;
    return !l->overflows;
}

void sh_raise_min_score(const sh_job *job, int64_t query, sh_candidate_list *l, double best) {
    double slack = job->plan.slack[query];
    if (!sh_has_cutoff(job) || !(best - slack > l->best)) return;
    double cutoff = sh_cutoff(job, query) / sh_beta(job, query);
    l->best = best - slack;
    l->min_score = fmax(l->min_score, l->best - cutoff - slack - 0x1p-50 * (fabs(l->best) + cutoff));
}

/* Gives back what a list has grown by; it is empty then. */
static void release_grown(sh_candidate_list *l, item_scratch *v, sh_context *context) {
    if (l->capacity > CAPACITY) {
        sh_release(context, l->list);
        v->grown -= l->capacity;
    }
    *l = (sh_candidate_list){.overflows = l->overflows};
}

/* Makes a list twice as long, and the scratch that solves it. Returns 0 where that is too long, or there is no memory. */
static int lengthen(sh_candidate_list *l, item_scratch *v, sh_context *context) {
    int64_t capacity = sh_min(2 * l->capacity, v->most);
    if (capacity <= l->capacity || v->grown + capacity > v->budget) return 0;
    if (capacity > v->numbers) {
        double *z = sh_allocate(context, capacity, sizeof *z);
        if (!z) return 0;
        sh_release(context, v->longer);
        v->results.z = v->longer = z;
        v->numbers = capacity;
    }
    sh_candidate_list longer = *l;
    longer.capacity = capacity;
    longer.list = sh_allocate(context, capacity, sizeof *longer.list);
    if (!longer.list) return 0;
    memcpy(longer.list, l->list, (size_t)l->n * sizeof *l->list);
    release_grown(l, v, context);
    v->grown += capacity;
    *l = longer;
    return 1;
}

/* Makes room for PIECE candidates, or sets `overflows` and returns 0. */
static int make_room(const sh_job *job, int64_t query, sh_candidate_list *l, item_scratch *v, sh_context *context) {
    if (l->n <= l->capacity - PIECE) return 1;
    sh_compact(job, query, l, v->results.z);
    if (2 * l->n <= l->capacity || lengthen(l, v, context)) return 1;
    l->overflows = 1;
    release_grown(l, v, context);
    return 0;
}

/* Adds to a query's list what reaches min_score in a tile that begins with pattern `first`, and has this best score. */
static void collect(const sh_job *job, int64_t query, sh_candidate_list *l, const void *scores, int64_t n,
                    double tile_best, int64_t first, item_scratch *v, sh_context *context) {
    sh_raise_min_score(job, query, l, tile_best);
    for (int64_t j = 0; j < n && make_room(job, query, l, v, context);) {
        int64_t some = sh_min((l->capacity - l->n) / PIECE * PIECE, n - j);
        l->n += job->k->collect(sh_at(job->k, scores, j), some, l->min_score, first + j, l->list + l->n);
        j += some;
    }
}

/* Adds the outliers of a tile, of these scores, that may reach min_score with their own slack, by canonical scores. */
static void collect_outliers(const sh_job *job, int64_t query, sh_candidate_list *l, sh_outlier_range o,
                             const double *scores, item_scratch *v, sh_context *context) {
    for (int64_t i = 0; i < o.n; i++) {
        if (sh_is_hidden(job, query, o.outlier[i].position)) continue;
        if (scores[i] + sh_outlier_slack(job, query, o.outlier[i].score) < l->min_score) continue;
        sh_candidate c = {0, o.outlier[i].position};
        sh_score_canonically(job, query, &c, 1, v->results.widened_row);
        if (c.score < l->min_score) continue;
        if (!make_room(job, query, l, v, context)) return;
        sh_raise_min_score(job, query, l, c.score);
        l->list[l->n++] = c;
    }
}

sh_candidate *sh_copy_handed(sh_context *context, _Atomic int64_t *handed, const sh_candidate_list *l) {
    if (l->n == 0 || atomic_fetch_add(handed, l->n) + l->n > HANDED) return NULL;
    sh_candidate *copy = sh_allocate(context, l->n, sizeof *copy);
    if (copy) memcpy(copy, l->list, (size_t)l->n * sizeof *copy);
    return copy;
}

/* Copies a query's list of a range to where join_item finds it. */
static void hand_over(scan *s, range_list *to, const sh_candidate_list *l, sh_context *context) {
    if (!l->overflows) to->list = sh_copy_handed(context, &s->handed, l);
    to->n = l->overflows || (l->n && !to->list) ? TOO_MANY : l->n;
}

/* Answers a query by the candidates that no score of a tile excludes, in order of position. */
static sh_status answer(sh_job *job, int64_t query, sh_candidate_list *l, sh_result_scratch results,
                        sh_context *context) {
    if (l->overflows || l->n > longest_list(job, sh_exact_support(job, query))) {
        sh_leave_to_overflow(job, query);
        return SH_OK;
    }
    int answered; /* or else there are too many */
    if (job->plan.reach > 0) return sh_answer_in_reach(job, query, l->list, l->n, results, context, &answered);
    sh_score_canonically(job, query, l->list, l->n, results.widened_row);
    if (job->out.counts) job->out.counts[query][SH_SCORED] = l->n;
    l->n = sh_keep_in_reach(job, query, l->list, l->n);
    return sh_store_results(job, query, l->list, l->n, results, context);
}

/* Scores a block of queries with a range of tiles, and collects their candidates. */
static sh_status scan_tiles(sh_job *job, const sh_grid_item *g, item_scratch *v, sh_context *context) {
    const sh_memory *m = job->memory;
    int64_t active = g->rows;
    const void *queries = job->plan.scan_queries ? v->queries : sh_tile_query(job, g->first_query);
    for (int64_t tile = g->first_tile; tile < g->last_tile && active; tile++) {
        int64_t first = tile * SH_TILE, n = sh_min(SH_TILE, m->patterns.n - first);
        if (sh_position_of(m, first) == sh_position_of(m, first + n)) continue; /* all are removed */
        const sh_outlier_range outliers = sh_outliers_of(job, first, n);
        sh_tile_scores(job, &m->patterns, queries, g->rows, first, n, v->scores, SH_TILE, v->tile_rows);
        for (int64_t i = 0; i < g->rows; i++) {
            sh_candidate_list *l = &v->lists[i];
            if (l->overflows) continue;
            int64_t query = sh_scan_query(job, g->first_query + i);
            void *scores = sh_at(job->k, v->scores, i * SH_TILE);
            const int is_hidden = sh_hide_excluded(job, query, first, n, scores);
            double best =
                job->k->affine_max(scores, sh_tile_scale(m, first), sh_tile_bias(job, first), sh_shift(job, query), n);
            if (is_hidden && sh_sees_none(job, query, first, n)) continue;
            if (!isfinite(best)) return sh_fail(context, SH_NOT_FINITE, "queries", query);
            if (outliers.n) best = sh_hide_outliers(job, outliers, first, n, scores, best, v->outliers);
            if (best >= l->min_score) collect(job, query, l, scores, n, best, first, v, context);
            if (outliers.n && !l->overflows) collect_outliers(job, query, l, outliers, v->outliers, v, context);
            active -= l->overflows;
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Scans a range of tiles for a block of queries, and stores the results or, of several ranges, hands lists over. */
static sh_status scan_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    scan *s = pointer;
    sh_job *job = s->job;
    const sh_grid_item g = sh_item_of_grid(job, item, s->n);
    item_scratch v;
    lay_out(job, scratch, &v);
    const double least = sh_least_score(job);
    for (int64_t i = 0; i < g.rows; i++) {
        const int64_t query = sh_scan_query(job, g.first_query + i);
        v.lists[i] = (sh_candidate_list){.capacity = CAPACITY, .best = -INFINITY, .list = v.candidates + i * CAPACITY};
        v.lists[i].min_score = fmax(least, sh_floor(job, query, job->plan.slack[query]));
    }
    if (job->plan.scan_queries) sh_gather_queries(job, job->plan.scan_queries + g.first_query, g.rows, v.queries);
    sh_status status = scan_tiles(job, &g, &v, context);
    for (int64_t i = 0; i < g.rows; i++) {
        sh_candidate_list *l = &v.lists[i];
        int64_t query = sh_scan_query(job, g.first_query + i);
        if (status == SH_OK) sh_compact(job, query, l, v.results.z);
        if (status == SH_OK && job->plan.outliers) sh_sort_by_position(l->list, l->n);
        if (status == SH_OK && s->lists)
            hand_over(s, &s->lists[(g.first_query + i) * job->plan.ranges + g.range], l, context);
        else if (status == SH_OK)
            status = answer(job, query, l, v.results, context);
        release_grown(l, &v, context);
    }
    assert(v.grown == 0);
    sh_release(context, v.longer);
    return status;
}

/* Joins one query's lists of all ranges: ranges ascend, so positions do. */
static sh_status join_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch;
    scan *s = pointer;
    sh_job *job = s->job;
    int64_t query = sh_scan_query(job, item), total = 0;
    sh_candidate_list joined = {.min_score = -INFINITY};
    for (int64_t r = 0; r < job->plan.ranges; r++) {
        const range_list *l = &s->lists[item * job->plan.ranges + r];
        joined.overflows |= l->n == TOO_MANY;
        total += l->n;
    }
    sh_long_list memory = {0};
    if (joined.overflows || !sh_lengthen_list(job, context, &memory, 0, sh_max(total, 1))) {
        sh_leave_to_overflow(job, query);
        return SH_OK;
    }
    joined.list = memory.list;
    for (int64_t r = 0; r < job->plan.ranges; r++) {
        const range_list *l = &s->lists[item * job->plan.ranges + r];
        assert(l->n == 0 || joined.n == 0 || joined.list[joined.n - 1].position < l->list[0].position);
        if (l->n) memcpy(joined.list + joined.n, l->list, (size_t)l->n * sizeof(sh_candidate));
        joined.n += l->n;
    }
    sh_compact(job, query, &joined, memory.scratch.z);
    sh_status status = answer(job, query, &joined, memory.scratch, context);
    sh_release_list(context, &memory);
    return status;
}

/* Scans all patterns for the queries that no index served. */
sh_status sh_scan(sh_job *job) {
    scan s = {.job = job, .n = sh_scan_count(job)};
    sh_context *context = job->context;
    if (s.n == 0) return SH_OK;
    sh_set_grid(job, s.n);
    /* each range's lists begin without a threshold: there are no more ranges than it takes to occupy all threads */
    const int64_t threads = sh_max(context->threads, 1);
    if (threads == 1) job->plan.ranges = 1;
    job->plan.ranges = sh_min(job->plan.ranges, sh_ceil_div(THREAD_ITEMS * threads, job->plan.blocks));
    int64_t items = job->plan.blocks * job->plan.ranges, lists = s.n * job->plan.ranges;
    if (job->plan.ranges > 1) {
        s.lists = sh_allocate(context, lists, sizeof *s.lists);
        if (!s.lists) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
        memset(s.lists, 0, (size_t)lists * sizeof *s.lists);
    }
    sh_status status = sh_for_each(context, items, lay_out(job, NULL, &(item_scratch){0}), scan_item, &s);
    if (status == SH_OK && s.lists) status = sh_for_each(context, s.n, 0, join_item, &s);
    for (int64_t i = 0; s.lists && i < lists; i++) sh_release(context, s.lists[i].list);
    sh_release(context, s.lists);
    return status;
}
