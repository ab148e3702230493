/* retrieval/index/query.c: search by an index: bounds of all patterns, canonical scores of the few that these allow.
 *
 *   1. Filter. Every pattern's bound from its filter code is compared with the query's threshold in registers; patterns
 *      that reach it are listed. As tiles of panels pass, the listed pattern of the best bound is scored canonically (a
 *      "seed"), and the threshold rises. A list that grows too long on the way is refined at once, as in step 2.
 *      Where the k best are wanted, whatever their weight, all that are listed are refined at once, and the k-th best
 *      of the lower bounds is the threshold: it takes no scores.
 *   2. Refine. What is still above the threshold gets a closer bound from its refinement code.
 *   3. Score. Best bound first, patterns are scored canonically, and the support is solved as it grows, until the next
 *      bound is below the threshold. No order scores fewer rows, but for the seeds of step 1: whatever is scored
 *      while a supported pattern waits has a larger bound than it, so one above the final threshold.
 *
 * Bounds hold whatever is rounded (bounds.c), and the scores are those of every other path (rescore.c): the results are
 * the same bit for bit. Queries whose lists grow too long are left to the scan.
 *
 * Many queries: a block of them does all three steps (block_item). Few queries: the panels are divided into ranges,
 * which filter on their own (range_item); then each query's lists are joined (join_item).
 */
#include "retrieval/index/index.h"
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 64,              /* queries that share a pass over the codes */
    FIRST_TILE = 1024,       /* patterns that the first seed is taken from, */
    FIRST_LOWER_TILE = 256,  /* or the first lower bounds */
    TILE_BYTES = 256 * 1024, /* of codes, to stay in the cache for a block */
    SEEDS = 32,              /* most seeds */
    SCORED = 2048,           /* most scored patterns that are kept */
    RADIUS_SEEDS = 4,        /* seeds of a radius, the query itself among them */
    SHORT_LIST = 8,          /* so few patterns are scored without being refined */
    AT_ONCE = 8,             /* patterns scored together, so that their rows come from memory together */
    LEFT_TO_SCAN = -1,       /* in place of a list's length: it is too long, or the index cannot serve the query */
};

int64_t sh_candidate_limit(const sh_index *x) { return sh_min(sh_max(x->patterns / 16, 1024), 8192); }
static int64_t tile_panels(const sh_index *x) { return sh_max(1, TILE_BYTES / (int64_t)sh_panel_bytes(x->quads)); }
/* Returns the length of a list that holds all that is listed before it is checked for its length: a tile's patterns. */
static int64_t list_capacity(const sh_index *x) {
    int64_t patterns = sh_ceil_div(x->patterns, SH_PANEL) * SH_PANEL;
    return sh_min(sh_candidate_limit(x) + sh_max(tile_panels(x) * SH_PANEL, FIRST_TILE), sh_max(patterns, 1024));
}

/* What is known of one query while tiles of panels pass. */
typedef struct {
    double min_score; /* lower canonical scores are out; only rises */
    int64_t refined;  /* patterns refined; of maps with a cutoff, those that were dropped by it */
    int64_t seeds;
    sh_candidate seed[SEEDS]; /* scored canonically */
    int64_t lower_bounds;
    float lower[SH_NEAREST]; /* the k best lower bounds, descending */
} progress;

/* The list that a range hands over for one query. */
typedef struct {
    int64_t n; /* or LEFT_TO_SCAN */
    int32_t *position;
    float *bound;
    progress progress;
} range_list;

typedef struct {
    sh_job *job;
    const sh_index *index;
    const sh_code_kernels *k;
    const int64_t *queries; /* (n) their numbers in the job, or NULL for 0 .. n-1 */
    int64_t n, blocks, block_rows, ranges;
    int64_t (*counts)[SH_STAGES]; /* (n) or NULL */
    int64_t *unserved;            /* (unserved_count) the queries that are left to the scan */
    _Atomic int64_t *unserved_count;
    /* few queries: what blocks and ranges hand over */
    char *codes;        /* (blocks) lay_out_codes */
    progress *progress; /* (n) */
    range_list *lists;  /* (n, ranges) */
} search;

typedef struct {
    sh_query_codes codes;
    progress *progress;    /* (rows) */
    sh_filter_query *list; /* (rows) those of queries that the index serves first */
    int32_t *row_of_list;  /* (rows) the row of the block that each of `list` belongs to */
    int32_t *position;     /* (rows, list_capacity) */
    float *bound;          /* (rows, list_capacity) */
    sh_candidate *scored;  /* (SCORED + SEEDS) */
    sh_result_scratch results;
} item_scratch;

static size_t lay_out(const search *s, void *memory, item_scratch *v) {
    sh_workspace w = {memory, 0};
    int64_t rows = s->block_rows, capacity = list_capacity(s->index);
    sh_take_query_codes(&w, s->index, s->job->memory, rows, &v->codes);
    v->progress = sh_take(&w, rows, sizeof *v->progress);
    v->list = sh_take(&w, rows, sizeof *v->list);
    v->row_of_list = sh_take(&w, rows, sizeof *v->row_of_list);
    v->position = sh_take(&w, rows * capacity, sizeof *v->position);
    v->bound = sh_take(&w, rows * capacity, sizeof *v->bound);
    v->scored = sh_take(&w, SCORED + SEEDS, sizeof *v->scored);
    v->results = sh_take_result_scratch(s->job, &w, SCORED + SEEDS);
    return w.used;
}

static int64_t query_of(const search *s, int64_t i) { return s->queries ? s->queries[i] : i; }
static void leave_to_scan(const search *s, int64_t query) {
    s->unserved[atomic_fetch_add(s->unserved_count, 1)] = query;
}

/* Returns k if the k best are wanted, whatever their weight: it takes k scores or lower bounds to exclude a pattern.
 * Else returns 0: one score is enough. */
static int64_t wanted_nearest(const search *s) { return sh_has_cutoff(s->job) ? 0 : s->job->plan.k_best; }

/* --- lists of patterns and their bounds ----------------------------------------------------------- */

/* Moves entry `root` of a heap of bounds, the largest at the front, down to where it belongs. */
static void sift(int32_t *position, float *bound, int64_t root, int64_t n) {
    int32_t p = position[root];
    float b = bound[root];
    for (int64_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && bound[child + 1] > bound[child]) child++;
        if (!(bound[child] > b)) break;
        position[root] = position[child];
        bound[root] = bound[child];
    }
    position[root] = p;
    bound[root] = b;
}
static void heapify(int32_t *position, float *bound, int64_t n) {
    for (int64_t j = n / 2 - 1; j >= 0; j--) sift(position, bound, j, n);
}

/* Drops what is below a threshold; NaN excludes nothing, and becomes infinity. Returns how many stay. */
static int64_t drop_below(int32_t *position, float *bound, int64_t n, float threshold) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t p = position[i];
        float b = bound[i];
        position[kept] = p;
        bound[kept] = b != b ? INFINITY : b;
        kept += !(b < threshold);
    }
    return kept;
}

/* Drops removed patterns from a list, from entry `first` on. */
static void drop_removed(const sh_memory *m, sh_filter_query *list, int64_t first) {
    if (!m->removed) return;
    int64_t kept = first;
    for (int64_t i = first; i < list->found; i++) {
        if (sh_is_removed(m, list->position[i])) continue;
        list->position[kept] = list->position[i];
        list->bound[kept++] = list->bound[i];
    }
    list->found = kept;
}

/* Drops, of the patterns listed for a radius, those that are excluded by their own norm offset; the threshold is that
 * of the largest. */
static int64_t drop_by_offset(const search *s, int64_t query, const sh_query_code *q, const progress *t,
                              int32_t *position, float *bound, int64_t n) {
    double radius = sh_radius_bound(s->job, query, t->seed, t->seeds, /* slack */ 0);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        double min_score = sh_rival_min_score_at(s->job, query, radius, sh_norm_offset(s->job, position[i]));
        if (bound[i] < sh_bound_threshold(s->index, q, min_score)) continue;
        position[kept] = position[i];
        bound[kept++] = bound[i];
    }
    return kept;
}

/* Keeps a lower bound if it is among the k best. */
static void note_lower(progress *t, float lower, int64_t k) {
    assert(k <= SH_NEAREST && t->lower_bounds <= k);
    int64_t slot = sh_min(t->lower_bounds, k - 1);
    if (lower != lower || (t->lower_bounds == k && !(lower > t->lower[slot]))) return;
    t->lower_bounds = slot + 1;
    for (; slot > 0 && t->lower[slot - 1] < lower; slot--) t->lower[slot] = t->lower[slot - 1];
    t->lower[slot] = lower;
}

/* Brings the bounds of a list down by refinement codes, if there are any; with a state, notes lower bounds as well. */
static void refine_list(const search *s, sh_query_codes *codes, int64_t row, const int32_t *position, float *bound,
                        int64_t n, progress *t) {
    enum { PIECE = 256 };
    float upper[PIECE], lower[PIECE];
    const sh_index *x = s->index;
    if (x->records) sh_refine_query(x, codes, row);
    for (int64_t first = 0; first < n; first += PIECE) {
        int64_t count = sh_min(PIECE, n - first);
        if (x->records)
            sh_refined_bounds(x, codes, row, position + first, count, upper, lower);
        else
            sh_filter_lower_bounds(x, codes, row, position + first, count, bound + first, lower);
        for (int64_t j = 0; x->records && j < count; j++)
            if (upper[j] < bound[first + j]) bound[first + j] = upper[j];
        for (int64_t j = 0; t && j < count; j++) note_lower(t, lower[j], s->job->plan.k_best);
    }
}

/* --- seeds and thresholds ------------------------------------------------------------------------- */

/* Scores those of n patterns that are no seeds yet, as far as there is space for seeds, and raises the threshold. */
static void add_seeds(const search *s, int64_t query, progress *t, const int32_t *position, int64_t n,
                      const sh_result_scratch *results) {
    int64_t before = t->seeds;
    for (int64_t j = 0; j < n && t->seeds < SEEDS; j++) {
        int64_t i = 0;
        while (i < t->seeds && t->seed[i].position != position[j]) i++;
        if (i == t->seeds) t->seed[t->seeds++].position = position[j];
    }
    if (t->seeds == before) return;
    sh_score_canonically(s->job, query, t->seed + before, t->seeds - before, results->widened_row);
    t->min_score = fmax(t->min_score, sh_min_score(s->job, query, t->seed, t->seeds, results->z, /* slack */ 0));
}

/* Makes seeds of the `wanted` best of a list. */
static void seed_best(const search *s, int64_t query, progress *t, int64_t wanted, const int32_t *position,
                      const float *bound, int64_t n, const sh_result_scratch *results) {
    int32_t best[SEEDS];
    float best_bound[SEEDS], least = -INFINITY;
    int64_t found = 0;
    wanted = sh_min(wanted, SEEDS);
    for (int64_t i = 0; i < n; i++) {
        if (!(bound[i] > least)) continue;
        int64_t slot = found < wanted ? found++ : found - 1;
        for (; slot > 0 && best_bound[slot - 1] < bound[i]; slot--) {
            best[slot] = best[slot - 1];
            best_bound[slot] = best_bound[slot - 1];
        }
        best[slot] = position[i];
        best_bound[slot] = bound[i];
        if (found == wanted) least = best_bound[found - 1];
    }
    add_seeds(s, query, t, best, found, results);
}

/* Brings a list's threshold up to date, and drops what is below it from entry `first` on. */
static void trim(const search *s, const sh_query_code *q, const progress *t, sh_filter_query *list, int64_t first) {
    list->threshold = sh_bound_threshold(s->index, q, t->min_score);
    list->found = first + drop_below(list->position + first, list->bound + first, list->found - first, list->threshold);
}

/* Refines at once what a tile listed for a query of which the k best are wanted, while the queries of a
 * block share the records in the cache; the lower bounds raise the threshold before any is scored. Returns whether the
 * list may grow further. */
static int take_nearest(const search *s, sh_query_codes *codes, int64_t row, progress *t, sh_filter_query *list,
                        int64_t before) {
    const sh_index *x = s->index;
    const sh_query_code *q = &codes->query[row];
    int64_t k = wanted_nearest(s), n = list->found - before, limit = sh_candidate_limit(x);
    refine_list(s, codes, row, list->position + before, list->bound + before, n, t);
    t->refined += n;
    if (t->lower_bounds == k) t->min_score = fmax(t->min_score, sh_score_lower_bound(x, q, t->lower[k - 1]));
    trim(s, q, t, list, before);
    if (list->found > limit) trim(s, q, t, list, 0);
    return list->found <= limit;
}

/* Scores the best of what a tile listed for any other query as seeds, and refines lists that grow long. Returns whether
 * the list may grow further. */
static int take_support(const search *s, int64_t query, sh_query_codes *codes, int64_t row, progress *t,
                        sh_filter_query *list, int64_t before, const sh_result_scratch *results) {
    const sh_index *x = s->index;
    const sh_query_code *q = &codes->query[row];
    int64_t limit = sh_candidate_limit(x);
    /* a radius is soon as small as the nearest rivals make it */
    int64_t wanted = sh_max(1, (s->job->goal == SH_GOAL_RADIUS ? RADIUS_SEEDS : 0) - t->seeds);
    seed_best(s, query, t, wanted, list->position + before, list->bound + before, list->found - before, results);
    list->threshold = sh_bound_threshold(x, q, t->min_score);
    if (list->found <= limit) return 1;
    trim(s, q, t, list, 0);
    if (2 * list->found <= limit || !x->records) return list->found <= limit;
    refine_list(s, codes, row, list->position, list->bound, list->found, /* no lower bounds */ NULL);
    t->refined += list->found;
    seed_best(s, query, t, 1, list->position, list->bound, list->found, results);
    trim(s, q, t, list, 0);
    t->refined -= list->found;
    return 2 * list->found <= limit;
}

/* --- the three steps ------------------------------------------------------------------------------ */

/* Filters the panels [first, last) for the `rows` queries of `codes`, which begin with number first_query of the search.
 * Their progress is v->progress, and their lists are v->list, some LEFT_TO_SCAN. */
static sh_status filter_panels(const search *s, int64_t first_query, int64_t rows, int64_t first, int64_t last,
                               item_scratch *v, sh_query_codes *codes, sh_context *context) {
    const sh_index *x = s->index;
    int64_t k = wanted_nearest(s), capacity = list_capacity(x), active = 0, unserved = rows;
    for (int64_t i = 0; i < rows; i++) {
        const sh_query_code *q = &codes->query[i];
        int64_t l = q->norm > 0 ? active++ : --unserved;
        v->row_of_list[l] = (int32_t)i;
        v->list[l] = sh_start_list(x, codes, i, sh_bound_threshold(x, q, v->progress[i].min_score),
                                   v->position + i * capacity, v->bound + i * capacity);
        if (!(q->norm > 0)) v->list[l].found = LEFT_TO_SCAN;
    }
    int64_t before[BLOCK];
    int64_t step = (k ? FIRST_LOWER_TILE : FIRST_TILE) / SH_PANEL, most = tile_panels(x);
    for (int64_t g = first, next; g < last && active; g = next) {
        next = sh_min(g + step, last);
        for (int64_t i = 0; i < active; i++) before[i] = v->list[i].found;
        s->k->filter(x->panels, x->quads, g, next, v->list, active);
        if (g > first) step = k ? sh_min(2 * step, most) : most;
        for (int64_t i = active - 1; i >= 0; i--) {
            sh_filter_query *list = &v->list[i];
            int64_t row = v->row_of_list[i];
            assert(before[i] <= list->found && list->found <= capacity);
            drop_removed(s->job->memory, list, before[i]);
            if (list->found == before[i]) continue;
            int fits = k ? take_nearest(s, codes, row, &v->progress[row], list, before[i])
                         : take_support(s, query_of(s, first_query + row), codes, row, &v->progress[row], list,
                                        before[i], &v->results);
            if (fits) continue;
            list->found = LEFT_TO_SCAN;
            active--;
            sh_filter_query last_list = v->list[active];
            v->list[active] = *list;
            *list = last_list;
            v->row_of_list[i] = v->row_of_list[active];
            v->row_of_list[active] = (int32_t)row;
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Refines and scores one query's complete list, and writes its results. */
static sh_status refine_and_score(const search *s, int64_t i, const progress *t, sh_query_codes *codes, int64_t row,
                                  int32_t *position, float *bound, int64_t n, const item_scratch *v,
                                  sh_context *context) {
    sh_job *job = s->job;
    const sh_index *x = s->index;
    int64_t query = query_of(s, i), counts[SH_STAGES] = {0};
    const sh_query_code *q = &codes->query[row];
    double min_score = t->min_score;
    float threshold = sh_bound_threshold(x, q, min_score);
    n = drop_below(position, bound, n, threshold);
    counts[SH_LISTED] = wanted_nearest(s) ? t->refined : t->refined + n;
    if (x->records && n > SHORT_LIST && !wanted_nearest(s)) {
        refine_list(s, codes, row, position, bound, n, /* no lower bounds */ NULL);
        n = drop_below(position, bound, n, threshold);
    }
    if (job->goal == SH_GOAL_RADIUS) n = drop_by_offset(s, query, q, t, position, bound, n);
    counts[SH_AFTER_REFINEMENT] = n;
    int64_t found = 0, solved; /* kept in v->scored; of these, when min_score was last solved for */
    for (int64_t j = 0; j < t->seeds; j++)
        if (t->seed[j].score >= min_score) v->scored[found++] = t->seed[j];
    solved = found;
    counts[SH_SCORED] = t->seeds;
    heapify(position, bound, n);
    while (n > 0 && !(bound[0] < threshold) && found < SCORED) {
        /* solving costs as much as it has scores: until so many are found, the least score stays, and all above it may
         * be scored together */
        int64_t at_most = sh_min(sh_min(solved + 1 + solved / 8, SCORED) - found, AT_ONCE), fresh = 0;
        sh_candidate c[AT_ONCE];
        float upper[AT_ONCE];
        (void)upper; /* for the assertion alone */
        while (fresh < at_most && n > 0 && !(bound[0] < threshold)) {
            int is_seed = 0;
            c[fresh].position = position[0];
            upper[fresh] = bound[0];
            position[0] = position[--n];
            bound[0] = bound[n];
            sift(position, bound, 0, n);
            for (int64_t j = 0; j < t->seeds; j++) is_seed |= t->seed[j].position == c[fresh].position;
            fresh += !is_seed;
        }
        sh_score_canonically(job, query, c, fresh, v->results.widened_row);
        for (int64_t j = 0; j < fresh; j++) assert(!(upper[j] < sh_bound_threshold(x, q, c[j].score)));
        counts[SH_SCORED] += fresh;
        for (int64_t j = 0; j < fresh; j++)
            if (c[j].score >= min_score) v->scored[found++] = c[j];
        assert(found <= SCORED + SEEDS);
        if (found < solved + 1 + solved / 8 && found < SCORED) continue;
        min_score = fmax(min_score, sh_min_score(job, query, v->scored, found, v->results.z, /* slack */ 0));
        solved = found = sh_keep_above(job, query, v->scored, found, min_score, /* slack */ 0);
        threshold = sh_bound_threshold(x, q, min_score);
    }
    if (found > SH_EXACT_SUPPORT) { /* perhaps the second product is due (overflow.c) */
        leave_to_scan(s, query);
        return SH_OK;
    }
    if (s->counts) memcpy(s->counts[i], counts, sizeof counts);
    sh_sort_by_position(v->scored, found);
    return sh_store_results(job, query, v->scored, found, v->results, context);
}

/* Begins queries: makes seeds of their hints, the patterns of most weight in the last update. */
static void seed_from_hints(const search *s, int64_t first, int64_t rows, const item_scratch *v) {
    for (int64_t i = 0; i < rows; i++) {
        int64_t query = query_of(s, first + i);
        progress *t = &v->progress[i];
        t->min_score = -INFINITY;
        t->seeds = t->refined = t->lower_bounds = 0;
        for (int j = 0; s->job->hints && j < SH_HINTS; j++) {
            int32_t row = s->job->hints[query * SH_HINTS + j];
            if (row < 0) continue;
            row = (int32_t)sh_row_of(s->job->memory, row);
            add_seeds(s, query, t, &row, 1, &v->results);
        }
    }
}

/* --- many queries: a block does everything -------------------------------------------------------- */

/* Searches for a block of queries; leaves those whose lists are too long to the scan. */
static sh_status block_item(void *pointer, int64_t block, void *scratch, sh_context *context) {
    search *s = pointer;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    item_scratch v;
    lay_out(s, scratch, &v);
    sh_encode_queries(s->index, s->job, s->queries ? s->queries + first : NULL, first, rows, &v.codes);
    seed_from_hints(s, first, rows, &v);
    int64_t panels = sh_ceil_div(s->index->patterns, SH_PANEL);
    sh_status status = filter_panels(s, first, rows, 0, panels, &v, &v.codes, context);
    for (int64_t i = 0; status == SH_OK && i < rows; i++) {
        sh_filter_query *l = &v.list[i];
        int64_t row = v.row_of_list[i];
        if (l->found == LEFT_TO_SCAN)
            leave_to_scan(s, query_of(s, first + row));
        else
            status = refine_and_score(s, first + row, &v.progress[row], &v.codes, row, l->position, l->bound, l->found,
                                      &v, context);
    }
    return status;
}

/* --- few queries: the panels are divided into ranges ---------------------------------------------- */

/* Lays out the codes of a block of queries, which all ranges read; returns their bytes (memory NULL: these alone). */
static size_t lay_out_codes(const search *s, void *memory, sh_query_codes *codes) {
    sh_workspace w = {memory, 0};
    sh_take_query_codes(&w, s->index, s->job->memory, s->block_rows, codes);
    return w.used;
}

/* Gives the codes of a block's queries. */
static void codes_of(const search *s, int64_t block, sh_query_codes *codes) {
    lay_out_codes(s, s->codes + (size_t)block * lay_out_codes(s, NULL, codes), codes);
}

/* Encodes a block of queries, and finds their seeds among the first panels. */
static sh_status start_item(void *pointer, int64_t block, void *scratch, sh_context *context) {
    search *s = pointer;
    const sh_index *x = s->index;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    item_scratch v;
    lay_out(s, scratch, &v);
    sh_query_codes codes;
    codes_of(s, block, &codes);
    sh_encode_queries(x, s->job, s->queries ? s->queries + first : NULL, first, rows, &codes);
    for (int64_t i = 0; i < rows; i++) /* ranges only read the codes */
        if (x->records && codes.query[i].norm > 0) sh_refine_query(x, &codes, i);
    seed_from_hints(s, first, rows, &v);
    int64_t panels = sh_min(sh_ceil_div(x->patterns, SH_PANEL), FIRST_TILE / SH_PANEL);
    sh_status status = filter_panels(s, first, rows, 0, panels, &v, &codes, context); /* for the seeds */
    for (int64_t i = 0; i < rows; i++)
        v.progress[i].lower_bounds = v.progress[i].refined = 0; /* these panels pass once more */
    memcpy(s->progress + first, v.progress, (size_t)rows * sizeof *v.progress);
    return status;
}

/* Filters a range of panels for a block of queries, and hands the lists over. */
static sh_status range_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    search *s = pointer;
    const sh_index *x = s->index;
    int64_t block = item / s->ranges, range = item % s->ranges;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    item_scratch v;
    lay_out(s, scratch, &v);
    sh_query_codes codes;
    codes_of(s, block, &codes);
    memcpy(v.progress, s->progress + first, (size_t)rows * sizeof *v.progress);
    int64_t panels = sh_ceil_div(x->patterns, SH_PANEL);
    int64_t first_panel = panels * range / s->ranges, last_panel = panels * (range + 1) / s->ranges;
    sh_status status = filter_panels(s, first, rows, first_panel, last_panel, &v, &codes, context);
    for (int64_t i = 0; status == SH_OK && i < rows; i++) {
        sh_filter_query *l = &v.list[i];
        int64_t row = v.row_of_list[i];
        range_list *handed = &s->lists[(first + row) * s->ranges + range];
        handed->progress = v.progress[row];
        handed->n = l->found;
        if (l->found == LEFT_TO_SCAN || l->found == 0) continue;
        float threshold = sh_bound_threshold(x, &codes.query[row], handed->progress.min_score);
        handed->n = drop_below(l->position, l->bound, l->found, threshold);
        handed->position = sh_allocate(context, sh_max(handed->n, 1), sizeof(int32_t));
        handed->bound = sh_allocate(context, sh_max(handed->n, 1), sizeof(float));
        if (!handed->position || !handed->bound) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
        memcpy(handed->position, l->position, (size_t)handed->n * sizeof(int32_t));
        memcpy(handed->bound, l->bound, (size_t)handed->n * sizeof(float));
    }
    return status;
}

/* Joins the lists of query i of all ranges, and finishes it. */
static sh_status join_item(void *pointer, int64_t i, void *scratch, sh_context *context) {
    search *s = pointer;
    const sh_index *x = s->index;
    int64_t row = i % s->block_rows, n = 0;
    item_scratch v;
    lay_out(s, scratch, &v);
    sh_query_codes codes;
    codes_of(s, i / s->block_rows, &codes);
    progress t = s->progress[i];
    range_list *lists = &s->lists[i * s->ranges];
    for (int64_t r = 0; r < s->ranges; r++) {
        t.min_score = fmax(t.min_score, lists[r].progress.min_score);
        t.refined += lists[r].progress.refined;
    }
    float threshold = sh_bound_threshold(x, &codes.query[row], t.min_score);
    for (int64_t r = 0; r < s->ranges; r++) {
        range_list *l = &lists[r];
        int64_t kept = l->n == LEFT_TO_SCAN ? LEFT_TO_SCAN : drop_below(l->position, l->bound, l->n, threshold);
        if (kept == LEFT_TO_SCAN || n + kept > list_capacity(x) * s->block_rows) {
            leave_to_scan(s, query_of(s, i));
            return SH_OK;
        }
        if (kept) {
            memcpy(v.position + n, l->position, (size_t)kept * sizeof(int32_t));
            memcpy(v.bound + n, l->bound, (size_t)kept * sizeof(float));
        }
        n += kept;
    }
    /* seeds that ranges found and that there is no space for are scored again */
    for (int64_t r = 0; r < s->ranges; r++)
        for (int64_t j = s->progress[i].seeds; j < lists[r].progress.seeds && t.seeds < SEEDS; j++)
            t.seed[t.seeds++] = lists[r].progress.seed[j];
    return refine_and_score(s, i, &t, &codes, row, v.position, v.bound, n, &v, context);
}

/* Searches for few queries, in three passes over blocks, ranges and queries. */
static sh_status search_by_ranges(search *s) {
    sh_context *context = s->job->context;
    int64_t lists = s->n * s->ranges;
    s->codes = sh_allocate(context, s->blocks, lay_out_codes(s, NULL, &(sh_query_codes){0}));
    s->progress = sh_allocate(context, s->n, sizeof *s->progress);
    s->lists = sh_allocate(context, lists, sizeof *s->lists);
    sh_status status = SH_OK;
    if (!s->codes || !s->progress || !s->lists) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    if (s->lists) memset(s->lists, 0, (size_t)lists * sizeof *s->lists);
    size_t scratch = lay_out(s, NULL, &(item_scratch){0});
    if (status == SH_OK) status = sh_for_each(context, s->blocks, scratch, start_item, s);
    if (status == SH_OK) status = sh_for_each(context, s->blocks * s->ranges, scratch, range_item, s);
    if (status == SH_OK) status = sh_for_each(context, s->n, scratch, join_item, s);
    for (int64_t i = 0; s->lists && i < lists; i++) {
        sh_release(context, s->lists[i].position);
        sh_release(context, s->lists[i].bound);
    }
    sh_release(context, s->codes);
    sh_release(context, s->progress);
    sh_release(context, s->lists);
    return status;
}

sh_status sh_index_search(sh_job *job, const sh_index *index, const int64_t *queries, int64_t n,
                          int64_t (*counts)[SH_STAGES], int64_t *unserved, _Atomic int64_t *unserved_count) {
    search s = {.job = job, .index = index, .k = sh_code_kernels_chosen(), .queries = queries, .n = n};
    s.counts = counts;
    s.unserved = unserved;
    s.unserved_count = unserved_count;
    int64_t threads = sh_max(job->context->threads, 1);
    s.blocks = sh_ceil_div(n, BLOCK);
    s.block_rows = sh_ceil_div(n, s.blocks);
    s.blocks = sh_ceil_div(n, s.block_rows);
    if (s.blocks >= 2 * threads || threads == 1)
        return sh_for_each(job->context, s.blocks, lay_out(&s, NULL, &(item_scratch){0}), block_item, &s);
    int64_t panels = sh_ceil_div(index->patterns, SH_PANEL), tiles = sh_ceil_div(panels, FIRST_TILE / SH_PANEL);
    s.ranges = sh_max(1, sh_min(tiles, sh_ceil_div(2 * threads, s.blocks)));
    return search_by_ranges(&s);
}
