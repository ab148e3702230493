/* scan.c: the pass over all patterns for maps with a window; tiles of scores, short lists of candidates.
 *
 * Queries in blocks, patterns in tiles. One single-threaded product writes a tile of scores that stays in the
 * cache; for each query the tile's maximum is compared with a floor first, and nearly always that ends it.
 * What passes is appended to a short list, cut down by solving for the threshold when full: scores seen later
 * only raise the threshold, so what falls below is dropped for good.
 *
 * Notes  1. Tiles hold scores rounded by the product in an unknown order. They differ from the exact ones by at
 *           most slack = g(1.05 d + 16) (|x| max|xi| + max|bias| + |shift|) + underflow, g(n) = n u / (1 - n u),
 *           whatever the blocking or contraction (Higham 2002, section 3.1); the 5 % are the canonical score's own.
 *        2. A pattern can matter only if its exact score is within window/beta of the best exact score. So a
 *           tile score below (best tile score - slack) - window/beta - slack is out. Compared with >=, and the
 *           slack counted twice, this can never drop the best itself, however large beta is.
 *        3. With few queries the tiles are shared out in ranges; their lists are joined and solved once more.
 */
#include "retrieval/job.h"
#include <math.h>
#include <string.h>

enum {
    LIST = 128, /* candidates a list holds */
    CHUNK = 64, /* scores looked at between two checks that the list has room; LIST / 2 */
    SHORT = 64, /* candidates a range may hand over */
};

typedef struct {
    sh_job *job;
    int64_t n;             /* queries: all, or those left by the screen */
    sh_candidate **handed; /* [query * ranges + range]: what ranges hand over; NULL if there is one range */
    int64_t *handed_n;
} scan;

typedef struct {
    void *scores, *pack, *queries; /* queries: gathered, where the screen left some */
    sh_candidate *lists;
    sh_candidate_list *trackers;
    sh_result_space finish;
} space;

static size_t space_bytes(const sh_job *job) {
    size_t rows = (size_t)job->plan.block_rows;
    return sh_align(rows * SH_TILE * job->k->size) + sh_align(sh_tile_row_bytes(job->memory)) +
           sh_align(rows * LIST * sizeof(sh_candidate)) + sh_align(rows * sizeof(sh_candidate_list)) +
           (job->plan.scan_queries ? sh_align(rows * (size_t)job->memory->patterns.d * job->k->size) : 0) +
           sh_result_space_bytes(job, sh_max(LIST, SHORT * job->plan.ranges));
}

static space space_at(const sh_job *job, void *scratch) {
    size_t rows = (size_t)job->plan.block_rows;
    char *at = scratch;
    space s = {.scores = at};
    at += sh_align(rows * SH_TILE * job->k->size);
    s.pack = at;
    at += sh_align(sh_tile_row_bytes(job->memory));
    s.lists = (sh_candidate *)at;
    at += sh_align(rows * LIST * sizeof(sh_candidate));
    s.trackers = (sh_candidate_list *)at;
    at += sh_align(rows * sizeof(sh_candidate_list));
    s.queries = at;
    if (job->plan.scan_queries) at += sh_align(rows * (size_t)job->memory->patterns.d * job->k->size);
    s.finish = sh_result_space_at(job, at, sh_max(LIST, SHORT * job->plan.ranges));
    return s;
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
    double reach = job->map->window(job->model.parameter) / sh_beta(job, query);
    l->best = best - slack;
    l->min_score = fmax(l->min_score, l->best - reach - slack - 0x1p-50 * (fabs(l->best) + reach));
}

/* takes in one query's scores of one tile */
static void take(const sh_job *job, int64_t query, sh_candidate_list *t, const void *scores, int64_t n,
                 double tile_best, int64_t first, double *z) {
    sh_raise_min_score(job, query, t, tile_best);
    for (int64_t j = 0; j < n && sh_make_room(job, query, t, CHUNK, z); j += CHUNK)
        t->n +=
            job->k->collect(sh_at(job->k, scores, j), sh_min(CHUNK, n - j), t->min_score, first + j, t->list + t->n);
}

static int64_t query_at(const sh_job *job, int64_t i) { return job->plan.scan_queries ? job->plan.scan_queries[i] : i; }

static void leave_wide(sh_job *job, int64_t query) {
    job->plan.overflow_queries[atomic_fetch_add(&job->plan.overflow_count, 1)] = query;
}

static sh_status hand_over(scan *s, int64_t i, int64_t range, const sh_candidate_list *t, sh_context *context) {
    int64_t at = i * s->job->plan.ranges + range;
    s->handed_n[at] = t->overflows || t->n > SHORT ? -1 : t->n;
    if (s->handed_n[at] <= 0) return SH_OK;
    s->handed[at] = sh_allocate(context, t->n, sizeof(sh_candidate));
    if (!s->handed[at]) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    memcpy(s->handed[at], t->list, (size_t)t->n * sizeof(sh_candidate));
    return SH_OK;
}

static sh_status scan_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    scan *s = pointer;
    sh_job *job = s->job;
    const sh_memory *m = job->memory;
    space work = space_at(job, scratch);
    const sh_grid_item g = sh_item_of_grid(job, item, s->n);
    const int64_t first_query = g.first_query, rows = g.rows;
    int64_t alive = rows;
    const void *queries = job->plan.scan_queries ? work.queries : sh_tile_query(job, first_query);
    size_t bytes = (size_t)m->patterns.d * job->k->size;
    for (int64_t i = 0; i < rows; i++) {
        work.trackers[i] = (sh_candidate_list){
            .capacity = LIST, .min_score = -INFINITY, .best = -INFINITY, .list = work.lists + i * LIST};
        if (job->plan.scan_queries)
            memcpy((char *)work.queries + (size_t)i * bytes,
                   sh_tile_query(job, job->plan.scan_queries[first_query + i]), bytes);
    }

    for (int64_t tile = g.first_tile; tile < g.last_tile && alive; tile++) {
        int64_t first = tile * SH_TILE, n = sh_min(SH_TILE, m->patterns.n - first);
        sh_tile_scores(job, &m->patterns, queries, rows, first, n, work.scores, SH_TILE, work.pack);
        for (int64_t i = 0; i < rows; i++) {
            sh_candidate_list *t = &work.trackers[i];
            if (t->overflows) continue;
            void *scores = sh_at(job->k, work.scores, i * SH_TILE);
            double best = job->k->affine_max(scores, sh_tile_scale(m, first), sh_tile_bias(job, first),
                                             sh_shift(job, query_at(job, first_query + i)), n);
            if (best - best != 0) return sh_fail(context, SH_NOT_FINITE, "queries", query_at(job, first_query + i));
            if (best < t->min_score) continue;
            take(job, query_at(job, first_query + i), t, scores, n, best, first, work.finish.z);
            alive -= t->overflows;
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    for (int64_t i = 0; i < rows; i++) {
        sh_candidate_list *t = &work.trackers[i];
        int64_t query = query_at(job, first_query + i);
        sh_status status = SH_OK;
        if (!t->overflows) sh_compact(job, query, t, work.finish.z);
        if (s->handed) {
            status = hand_over(s, first_query + i, g.range, t, context);
        } else if (t->overflows) {
            leave_wide(job, query);
        } else {
            sh_rescore(job, query, t->list, t->n, work.finish.buffer);
            status = sh_store_results(job, query, t->list, t->n, work.finish, context);
        }
        if (status != SH_OK) return status;
    }
    return SH_OK;
}

/* the lists of all ranges joined: ranges ascend, so positions do */
static sh_status join_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    scan *s = pointer;
    sh_job *job = s->job;
    int64_t query = query_at(job, item);
    sh_candidate_list t = {.capacity = SHORT * job->plan.ranges, .min_score = -INFINITY, .list = scratch};
    sh_result_space work = sh_result_space_at(job, t.list + SHORT * job->plan.ranges, SHORT * job->plan.ranges);
    for (int64_t r = 0; r < job->plan.ranges; r++) {
        int64_t n = s->handed_n[item * job->plan.ranges + r];
        if (n < 0) {
            leave_wide(job, query);
            return SH_OK;
        }
        if (n) memcpy(t.list + t.n, s->handed[item * job->plan.ranges + r], (size_t)n * sizeof(sh_candidate));
        t.n += n;
    }
    sh_compact(job, query, &t, work.z);
    sh_rescore(job, query, t.list, t.n, work.buffer);
    return sh_store_results(job, query, t.list, t.n, work, context);
}

sh_status sh_scan(sh_job *job) {
    scan s = {.job = job, .n = job->plan.scan_queries ? atomic_load(&job->plan.scan_count) : job->queries.n};
    sh_context *context = job->context;
    if (s.n == 0) return SH_OK;
    sh_set_grid(job, s.n);
    int64_t items = job->plan.blocks * job->plan.ranges, slots = s.n * job->plan.ranges;
    if (job->plan.ranges > 1) {
        s.handed = sh_allocate(context, slots, sizeof *s.handed);
        s.handed_n = sh_allocate(context, slots, sizeof *s.handed_n);
        if (!s.handed || !s.handed_n) {
            sh_release(context, s.handed);
            sh_release(context, s.handed_n);
            return sh_fail(context, SH_NO_MEMORY, NULL, 0);
        }
        memset(s.handed, 0, (size_t)slots * sizeof *s.handed);
    }
    sh_status status = sh_for_each(context, items, space_bytes(job), scan_item, &s);
    if (s.handed) {
        size_t bytes = (size_t)(SHORT * job->plan.ranges) * sizeof(sh_candidate) +
                       sh_result_space_bytes(job, SHORT * job->plan.ranges);
        if (status == SH_OK) status = sh_for_each(context, s.n, bytes, join_item, &s);
        for (int64_t i = 0; i < slots; i++) sh_release(context, s.handed[i]);
        sh_release(context, s.handed);
        sh_release(context, s.handed_n);
    }
    return status;
}
