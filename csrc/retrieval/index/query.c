/* retrieval/index/query.c: search by an index: bounds of all patterns, canonical scores of the few that these allow.
 *
 *   1. Place. The panels whose boxes have the largest bounds are found, the query's nearest ones. The best of their
 *      patterns by filter codes have their lower bounds computed by refinement codes; from these follows the threshold
 *      that the filter begins with.
 *   2. Filter. Panels pass. Those whose boxes have bounds below the threshold are passed over; every other pattern's
 *      bound from its filter code is compared with the threshold in registers, and patterns that reach it are listed.
 *      When a list has grown to twice its length, its new entries are refined: they get closer bounds from their
 *      refinement codes. The threshold rises to that of all lower bounds, and entries below it are dropped.
 *   3. Score. In rounds, the best bounds first, patterns are scored canonically, and the threshold rises to that of
 *      these scores and the other lower bounds, until the next bound is below it.
 *
 * Adding scores or raising them never lowers the threshold of a map (separation.h), nor the k-th best: so the threshold of
 * lower bounds of any patterns is below the one that is looked for. That of a radius does not come from lower bounds,
 * but from a few patterns that are scored canonically as lists grow, the seeds. So do patterns that the caller suggests.
 *
 * Bounds hold whatever is rounded (bounds.c), and the scores are those of every other path (rescore.c): the results are
 * the same bit for bit. Queries that list too many patterns are left to the scan.
 *
 * Many queries: they are ordered by their nearest panels, and a block of them does all three steps (block_item), so that
 * they need the same panels and records at about the same time. Few queries: the panels are divided into ranges, which
 * filter on their own (range_item); then each query's lists are joined (join_item).
 */
#include "retrieval/index/index.h"
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 256,          /* queries that share a pass over the codes, at most */
    LEAST_BLOCK = 64,     /* and at least, where there are as many */
    NEAR = 4,             /* nearest panels of a query */
    NEAR_PATTERNS = 32,   /* of their patterns that are refined, at least */
    FIRST_CAPACITY = 256, /* entries that a list has space for at first */
    FIRST_LENGTH = 64,    /* at which a list is refined first */
    LIST_BYTES = 8 << 20, /* of all lists of a block */
    SEEDS = 16,           /* most seeds */
    RADIUS_SEEDS = 4,     /* seeds of a radius, the query itself among them */
    SHORT_LIST = 8,       /* so few patterns are scored without being refined */
    FIRST_ROUND = 8,      /* patterns scored in the first round */
    LEAST_LISTED = 1024,  /* patterns that a query may always list */
    FEW_SCORED = 64,      /* so many scores are turned into results without a last threshold that drops some */
    LEFT_TO_SCAN = -1,    /* in place of a list's length: it is too long, or the index cannot serve the query; */
    NO_ROOM = -2,         /* or it needs memory that other lists of the block have; */
    DONE = -3,            /* or the query is answered */
    STOP_CHECKS = 4096    /* panels filtered for a query between two checks whether to stop */
};
/* Work, in multiplications of the matrix product. */
static const double REFINE_WORK = 2400; /* to refine a bound */
static const double ROW_WORK = 12000;   /* to score */
static const double QUERY_WORK = 5e4;   /* to begin and end a query */
static const double GROUP_WORK = 500;   /* to look at the boxes of a group */

/* The list of one query while panels pass: slots of patterns, and bounds. */
typedef struct {
    sh_filter_query filter; /* slots and upper bounds; found is the length, or one of the above */
    float *lower;           /* lower bounds of the entries before `refined` */
    void *memory;           /* in which these arrays lie */
    int64_t refined, capacity;
    int64_t next;     /* at which length it is refined next */
    int64_t listed;   /* entries that it has had, as far as they were refined */
    int64_t panels;   /* that were filtered for it */
    double min_score; /* lower canonical scores are out; only rises */
    int64_t seeds;
    sh_candidate seed[SEEDS]; /* scored canonically */
} query_list;

typedef struct {
    sh_job *job;
    const sh_index *index;
    const sh_code_kernels *k;
    const int64_t *queries; /* (n) their numbers in the job, or NULL for 0 .. n-1 */
    int64_t n, blocks, block_rows, ranges, groups;
    int64_t limit;                /* most_listed */
    int64_t (*counts)[SH_STAGES]; /* (n) or NULL */
    double *work;                 /* (n) or NULL */
    int64_t *unserved;            /* (unserved_count) the queries that are left to the scan */
    _Atomic int64_t *unserved_count;
    /* many queries: */
    int32_t (*near)[NEAR]; /* (n) the nearest panels, from the nearest on */
    int64_t *order;        /* (n) the queries by their nearest panels */
    /* few queries: what blocks and ranges hand over */
    char *codes;       /* (blocks) lay_out_codes */
    query_list *begun; /* (n) lists before any panel has passed, without memory */
    query_list *lists; /* (n, ranges) */
} search;

/* Scratch of one worker. */
typedef struct {
    sh_query_codes codes;
    int64_t *query;            /* (rows) their numbers in the job */
    int32_t (*near)[NEAR];     /* (rows) */
    query_list *list;          /* (rows) */
    int32_t *row;              /* (rows) first those of queries that panels are filtered for; */
    sh_filter_query **growing; /* (rows) their lists, */
    uint16_t *open;            /* (rows) and which panels of a group are open for each, a bit each */
    sh_filter_query **asking;  /* (SH_GROUP, rows) the lists of those that each panel is open for */
    void *widened_row;
    sh_long_list scored; /* canonical scores, and the lower bounds of others */
    size_t list_bytes;   /* of all lists */
} item_scratch;

static size_t lay_out(const search *s, void *memory, item_scratch *v) {
    sh_workspace w = {memory, 0};
    int64_t rows = s->block_rows;
    sh_take_query_codes(&w, s->index, s->job->memory, rows, &v->codes);
    v->query = sh_take(&w, rows, sizeof *v->query);
    v->near = sh_take(&w, rows, sizeof *v->near);
    v->list = sh_take(&w, rows, sizeof *v->list);
    v->row = sh_take(&w, rows, sizeof *v->row);
    v->growing = sh_take(&w, rows, sizeof *v->growing);
    v->open = sh_take(&w, rows, sizeof *v->open);
    v->asking = sh_take(&w, SH_GROUP * rows, sizeof *v->asking);
    v->widened_row = sh_take(&w, s->job->memory->patterns.d, s->job->k->size);
    v->scored = (sh_long_list){0};
    v->list_bytes = 0;
    return w.used;
}

static int64_t query_of(const search *s, int64_t i) { return s->queries ? s->queries[i] : i; }
static void leave_to_scan(const search *s, int64_t query) {
    s->unserved[atomic_fetch_add(s->unserved_count, 1)] = query;
}

/* Estimates the work of a query of which so many panels are filtered. */
static double work_of_panels(const sh_index *x, int64_t panels) {
    double groups = GROUP_WORK * (double)sh_ceil_div(x->panel_count, SH_GROUP);
    double codes = (double)(panels * SH_PANEL * (x->filter.columns + 4)) * sh_code_kernels_chosen()->cost;
    return QUERY_WORK + (double)(x->rank * x->d) + groups + codes;
}
double sh_work_of_codes(const sh_index *x) { return work_of_panels(x, x->panel_count); }

/* Returns how many patterns a query may list: to refine as many takes as long as to scan all. What is more is for the
 * scan. */
static int64_t most_listed(const sh_memory *m) {
    double scan = (double)m->patterns.n * (double)m->patterns.d;
    return sh_max(sh_min((int64_t)(scan / REFINE_WORK), m->patterns.n / 4), LEAST_LISTED);
}

/* --- lists of patterns and their bounds ----------------------------------------------------------- */

/* Lays out the arrays of a list; returns their bytes. */
static size_t lay_out_list(void *memory, query_list *l) {
    sh_workspace w = {memory, 0};
    l->memory = memory;
    l->filter.slot = sh_take(&w, l->capacity, sizeof *l->filter.slot);
    l->filter.bound = sh_take(&w, l->capacity, sizeof *l->filter.bound);
    l->lower = sh_take(&w, l->capacity, sizeof *l->lower);
    return w.used;
}

/* Returns the bytes of a list of so many entries. */
static size_t list_bytes(int64_t capacity) {
    return capacity ? lay_out_list(NULL, &(query_list){.capacity = capacity}) : 0;
}

static void release_list(query_list *l, item_scratch *v, sh_context *context) {
    v->list_bytes -= list_bytes(l->capacity);
    sh_release(context, l->memory);
    l->memory = NULL;
    l->capacity = 0;
}

/* Makes space for so many more entries. Returns 0 where lists may not have as much memory. */
static int make_room(query_list *l, int64_t more, item_scratch *v, sh_context *context) {
    int64_t needed = l->filter.found + more;
    if (needed <= l->capacity) return 1;
    query_list longer = *l;
    longer.capacity = sh_max(sh_max(needed, 2 * l->capacity), FIRST_CAPACITY);
    size_t bytes = v->list_bytes - list_bytes(l->capacity) + list_bytes(longer.capacity);
    void *memory = bytes > LIST_BYTES ? NULL : sh_allocate(context, 1, list_bytes(longer.capacity));
    if (!memory) return 0;
    v->list_bytes = bytes;
    lay_out_list(memory, &longer);
    size_t found = (size_t)l->filter.found;
    if (found) {
        memcpy(longer.filter.slot, l->filter.slot, found * sizeof *l->filter.slot);
        memcpy(longer.filter.bound, l->filter.bound, found * sizeof *l->filter.bound);
        memcpy(longer.lower, l->lower, (size_t)l->refined * sizeof *l->lower);
    }
    sh_release(context, l->memory);
    *l = longer;
    return 1;
}

/* Makes space for so many scores in v->scored. Returns 0 where there is no memory. */
static int make_room_for_scores(const search *s, int64_t n, int64_t used, item_scratch *v, sh_context *context) {
    while (v->scored.capacity < n)
        if (!sh_lengthen_list(s->job, context, &v->scored, used, FIRST_CAPACITY)) return 0;
    return 1;
}

/* Drops what is below the threshold; NaN excludes nothing, and becomes infinity. All entries are refined. */
static void drop_below_threshold(query_list *l) {
    sh_filter_query *f = &l->filter;
    int64_t kept = 0;
    assert(l->refined == f->found);
    for (int64_t i = 0; i < f->found; i++) {
        int32_t slot = f->slot[i];
        float upper = f->bound[i], lower = l->lower[i];
        f->slot[kept] = slot;
        f->bound[kept] = upper != upper ? INFINITY : upper;
        l->lower[kept] = lower;
        kept += !(upper < f->threshold);
    }
    f->found = l->refined = kept;
}

static void swap_entries(query_list *l, int64_t i, int64_t j) {
    sh_filter_query *f = &l->filter;
    int32_t slot = f->slot[i];
    float upper = f->bound[i], lower = l->lower[i];
    f->slot[i] = f->slot[j];
    f->bound[i] = f->bound[j];
    l->lower[i] = l->lower[j];
    f->slot[j] = slot;
    f->bound[j] = upper;
    l->lower[j] = lower;
}

/* Drops patterns that are hidden from the query from the entries that are not refined. */
static void drop_hidden(const search *s, int64_t query, query_list *l) {
    sh_filter_query *f = &l->filter;
    if (!s->job->memory->removed && sh_excluded(s->job, query) < 0) return;
    int64_t kept = l->refined;
    for (int64_t i = l->refined; i < f->found; i++) {
        f->slot[kept] = f->slot[i];
        f->bound[kept] = f->bound[i];
        kept += !sh_is_hidden(s->job, query, s->index->order[f->slot[i]]);
    }
    f->found = kept;
}

/* Moves the n entries of the largest upper bounds to the end. */
static void select_best(query_list *l, int64_t n) {
    const float *b = l->filter.bound;
    int64_t low = 0, high = l->filter.found - 1, first = l->filter.found - n; /* Hoare's selection */
    while (low < high) {
        float x = b[low], y = b[low + (high - low) / 2], z = b[high];
        float pivot = x < y ? (y < z ? y : x < z ? z : x) : (x < z ? x : y < z ? z : y);
        int64_t i = low, j = high;
        while (i <= j) {
            while (b[i] < pivot) i++;
            while (b[j] > pivot) j--;
            if (i <= j) swap_entries(l, i++, j--);
        }
        if (first <= j)
            high = j;
        else if (first >= i)
            low = i;
        else
            break;
    }
}

/* Gives the entries that are not refined closer upper bounds, if there are refinement codes, and lower bounds. */
static void refine_entries(const search *s, sh_query_codes *codes, int64_t row, query_list *l) {
    enum { PIECE = 256 };
    float upper[PIECE];
    const sh_index *x = s->index;
    sh_filter_query *f = &l->filter;
    if (x->records) sh_refine_query(x, codes, row);
    for (int64_t first = l->refined, n; first < f->found; first += n) {
        n = sh_min(PIECE, f->found - first);
        float *bound = f->bound + first;
        if (!x->records) {
            sh_filter_lower_bounds(x, codes, row, f->slot + first, n, bound, l->lower + first);
            continue;
        }
        sh_refined_bounds(x, codes, row, f->slot + first, n, upper, l->lower + first);
        for (int64_t j = 0; j < n; j++) bound[j] = upper[j] < bound[j] ? upper[j] : bound[j];
    }
    l->listed += f->found - l->refined;
    l->refined = f->found;
}

/* --- thresholds ----------------------------------------------------------------------------------- */

/* Raises the threshold to that of the first `scored` candidates of v->scored, whose scores are canonical, and of the
 * lower bounds of the list. Returns 0 where there is no memory. */
static int raise_threshold(const search *s, int64_t query, const sh_query_code *q, query_list *l, int64_t scored,
                           item_scratch *v, sh_context *context) {
    const sh_index *x = s->index;
    int64_t n = scored;
    if (!make_room_for_scores(s, scored + l->refined, scored, v, context)) return 0;
    sh_candidate *c = v->scored.list;
    /* the quotients of radii do not rise with scores; what is below the threshold cannot raise it */
    for (int64_t i = 0; s->job->goal != SH_GOAL_RADIUS && i < l->refined; i++)
        if (l->lower[i] >= l->filter.threshold)
            c[n++] = (sh_candidate){sh_score_lower_bound(x, q, l->lower[i]), x->order[l->filter.slot[i]]};
    if (n > 0) l->min_score = fmax(l->min_score, sh_min_score(s->job, query, c, n, v->scored.scratch.z, /* slack */ 0));
    l->filter.threshold = sh_bound_threshold(x, q, l->min_score);
    return 1;
}

static int is_seed(const query_list *l, int64_t position) {
    for (int64_t i = 0; i < l->seeds; i++)
        if (l->seed[i].position == position) return 1;
    return 0;
}

/* Scores those of n patterns that are no seeds yet, as far as there is space for seeds, and raises min_score. */
static void add_seeds(const search *s, int64_t query, query_list *l, const int32_t *position, int64_t n,
                      const item_scratch *v) {
    int64_t before = l->seeds;
    double z[SEEDS];
    for (int64_t j = 0; j < n && l->seeds < SEEDS; j++)
        if (!is_seed(l, position[j])) l->seed[l->seeds++].position = position[j];
    if (l->seeds == before) return;
    sh_score_canonically(s->job, query, l->seed + before, l->seeds - before, v->widened_row);
    l->min_score = fmax(l->min_score, sh_min_score(s->job, query, l->seed, l->seeds, z, /* slack */ 0));
}

/* Makes seeds of some of the best patterns of a list. */
static void seed_from_list(const search *s, int64_t query, query_list *l, const item_scratch *v) {
    int32_t best[RADIUS_SEEDS];
    /* a radius is soon as small as the nearest rivals make it */
    int64_t n = sh_min(sh_max(1, RADIUS_SEEDS - l->seeds), l->filter.found);
    select_best(l, n);
    for (int64_t j = 0; j < n; j++) best[j] = s->index->order[l->filter.slot[l->filter.found - n + j]];
    add_seeds(s, query, l, best, n, v);
}

/* Refines what is new in a list, raises the threshold, and drops what is below it. Returns whether the list may grow
 * further. */
static int refine_list(const search *s, int64_t query, sh_query_codes *codes, int64_t row, query_list *l,
                       item_scratch *v, sh_context *context) {
    drop_hidden(s, query, l);
    refine_entries(s, codes, row, l);
    if (s->job->goal == SH_GOAL_RADIUS) seed_from_list(s, query, l, v);
    if (!raise_threshold(s, query, &codes->query[row], l, 0, v, context)) return 0;
    drop_below_threshold(l);
    l->next = l->filter.found + sh_max(l->filter.found, FIRST_LENGTH);
    return l->listed <= s->limit;
}

/* --- 1. place ------------------------------------------------------------------------------------- */

/* Finds the panels of the largest bounds for each row: the best of each lane, and the best of these. -1: there is none. */
static void find_near_panels(const search *s, const sh_query_codes *codes, int64_t rows, int32_t (*near)[NEAR]) {
    const sh_index *x = s->index;
    for (int64_t i = 0; i < rows; i++) {
        float best[SH_GROUP];
        int32_t panel[SH_GROUP];
        int64_t groups = codes->query[i].norm > 0 ? s->groups : 0;
        s->k->best_panels(x->boxes, groups, x->boxes_by_distance, &codes->query[i].box, best, panel);
        for (int f = 0; f < NEAR; f++) {
            int top = 0;
            for (int l = 1; l < SH_GROUP; l++)
                if (best[l] > best[top]) top = l;
            near[i][f] = panel[top];
            best[top] = -INFINITY;
            panel[top] = -1;
        }
    }
}

/* Takes the threshold of the lower bounds of some patterns of the nearest panels, or makes seeds of them. */
static int start_from_near_panels(const search *s, int64_t query, sh_query_codes *codes, int64_t row,
                                  const int32_t near[NEAR], query_list *l, item_scratch *v, sh_context *context) {
    const sh_index *x = s->index;
    sh_filter_query *f = &l->filter;
    int64_t wanted = sh_max(NEAR_PATTERNS, s->job->plan.k_best);
    if (!make_room(l, NEAR * SH_PANEL, v, context)) return 0;
    for (int i = 0; i < NEAR; i++)
        if (near[i] >= 0) s->k->filter(x->panels, x->scales, x->quads, near[i], near[i] + 1, &f, 1);
    drop_hidden(s, query, l);
    if (s->job->goal == SH_GOAL_RADIUS) {
        if (f->found) seed_from_list(s, query, l, v);
    } else if (f->found) {
        if (x->records && f->found > wanted) { /* of the largest middles of bounds */
            sh_filter_lower_bounds(x, codes, row, f->slot, f->found, f->bound, l->lower);
            for (int64_t j = 0; j < f->found; j++) f->bound[j] += l->lower[j];
            select_best(l, wanted);
            memmove(f->slot, f->slot + f->found - wanted, (size_t)wanted * sizeof *f->slot);
            f->found = wanted;
            for (int64_t j = 0; j < wanted; j++) f->bound[j] = INFINITY;
        }
        refine_entries(s, codes, row, l);
        if (!raise_threshold(s, query, &codes->query[row], l, 0, v, context)) return 0;
    }
    f->threshold = sh_bound_threshold(x, &codes->query[row], l->min_score);
    f->found = l->refined = l->listed = 0; /* these panels pass once more */
    return 1;
}

/* Begins the list of a query: by its hints, the patterns of most weight in the last update, and by its nearest panels. */
static void start_list(const search *s, int64_t query, sh_query_codes *codes, int64_t row, const int32_t near[NEAR],
                       query_list *l, item_scratch *v, sh_context *context) {
    const sh_index *x = s->index;
    const sh_query_code *q = &codes->query[row];
    *l = (query_list){.filter = sh_start_list(x, codes, row, -FLT_MAX, NULL, NULL), .next = FIRST_LENGTH};
    l->min_score = sh_floor(s->job, query, /* slack */ 0);
    for (int j = 0; s->job->hints && j < SH_HINTS; j++) {
        const int32_t position = s->job->hints[query * SH_HINTS + j];
        if (position < 0) continue;
        const int32_t pattern = (int32_t)sh_row_of(s->job->memory, position);
        assert(pattern != sh_excluded(s->job, query)); /* it had no weight in the last update */
        add_seeds(s, query, l, &pattern, 1, v);
    }
    l->filter.threshold = sh_bound_threshold(x, q, l->min_score);
    if (!(q->norm > 0)) {
        l->filter.found = LEFT_TO_SCAN;
    } else if (!start_from_near_panels(s, query, codes, row, near, l, v, context)) {
        release_list(l, v, context);
        l->filter.found = NO_ROOM;
    }
}

/* --- 2. filter ------------------------------------------------------------------------------------ */

/* Filters the panels of the groups [first, last) for those of the lists of `rows` queries that may grow; some come to be
 * LEFT_TO_SCAN, or there is NO_ROOM. */
static sh_status filter_groups(const search *s, int64_t rows, int64_t first, int64_t last, item_scratch *v,
                               sh_query_codes *codes, sh_context *context) {
    const sh_index *x = s->index;
    int64_t n = 0, filtered = 0; /* lists that grow; panels since the last check */
    for (int64_t i = 0; i < rows; i++)
        if (v->list[i].filter.found >= 0) {
            v->growing[n] = &v->list[i].filter;
            v->row[n++] = (int32_t)i;
        }
    for (int64_t g = first; g < last && n; g++) {
        int64_t asking[SH_GROUP] = {0};
        s->k->open_panels(sh_group(x, g), x->boxes_by_distance, v->growing, n, v->open);
        for (int64_t i = 0; i < n; i++) {
            if (!v->open[i]) continue;
            query_list *l = &v->list[v->row[i]];
            int panels = __builtin_popcount(v->open[i]);
            l->panels += panels;
            if (!make_room(l, panels * SH_PANEL, v, context)) {
                l->filter.found = NO_ROOM;
                continue;
            }
            for (unsigned left = v->open[i]; left; left &= left - 1) {
                int place = __builtin_ctz(left);
                v->asking[place * s->block_rows + asking[place]++] = v->growing[i];
            }
        }
        for (int64_t l = 0, panel = g * SH_GROUP; l < SH_GROUP; l++, panel++) {
            if (asking[l])
                s->k->filter(x->panels, x->scales, x->quads, panel, panel + 1, v->asking + l * s->block_rows,
                             asking[l]);
            filtered += asking[l];
        }
        for (int64_t i = n - 1; i >= 0; i--) {
            int32_t row = v->row[i];
            query_list *l = &v->list[row];
            assert(l->filter.found <= l->capacity);
            if (l->filter.found >= l->next && !refine_list(s, v->query[row], codes, row, l, v, context))
                l->filter.found = LEFT_TO_SCAN;
            if (l->filter.found >= 0) continue;
            release_list(l, v, context);
            v->growing[i] = v->growing[--n];
            v->row[i] = v->row[n];
        }
        filtered += n;
        if (filtered < STOP_CHECKS) continue;
        if (sh_stopped(context)) return SH_INTERRUPTED;
        filtered = 0;
    }
    return SH_OK;
}

/* --- 3. score ------------------------------------------------------------------------------------- */

/* Drops, of the patterns listed for a radius, those that are excluded by their own norm offset; the threshold is that
 * of the largest. */
static void drop_by_offset(const search *s, int64_t query, const sh_query_code *q, query_list *l) {
    sh_filter_query *f = &l->filter;
    double radius = sh_radius_bound(s->job, query, l->seed, l->seeds, /* slack */ 0);
    int64_t kept = 0;
    for (int64_t i = 0; i < f->found; i++) {
        double offset = sh_norm_offset(s->job, s->index->order[f->slot[i]]);
        double min_score = sh_rival_min_score_at(s->job, query, radius, offset);
        if (!(f->bound[i] < sh_bound_threshold(s->index, q, min_score))) swap_entries(l, i, kept++);
    }
    f->found = l->refined = kept;
}

/* Moves the seeds that can still matter from a list to v->scored; returns how many. */
static int64_t move_seeds(const search *s, query_list *l, const item_scratch *v) {
    sh_filter_query *f = &l->filter;
    int64_t kept = 0, moved = 0;
    for (int64_t i = 0; i < f->found; i++)
        if (!is_seed(l, s->index->order[f->slot[i]])) swap_entries(l, i, kept++);
    f->found = l->refined = kept;
    for (int64_t i = 0; i < l->seeds; i++)
        if (l->seed[i].score >= l->min_score) v->scored.list[moved++] = l->seed[i];
    return moved;
}

/* Tells whether a query, all of whose support is among so many candidates, takes weights of the product (overflow.c,
 * note 2). */
static int takes_product(const search *s, int64_t query, int64_t scored, const item_scratch *v) {
    const sh_job *job = s->job;
    int64_t most = sh_exact_support(job, query);
    return scored > most && sh_has_cutoff(job) && !job->plan.k_best && !sh_is_list(job) &&
           !sh_needs_canonical_scores(job, query) &&
           sh_count_support(job, query, v->scored.list, scored, v->scored.scratch.z) > most;
}

/* Writes an estimate of the work of a query. */
static void note_work(const search *s, int64_t i, const query_list *l, int64_t scored) {
    double refined = s->index->records ? REFINE_WORK * (double)l->listed : 0;
    if (s->work) s->work[i] = work_of_panels(s->index, l->panels) + refined + ROW_WORK * (double)scored;
}

/* Refines the rest of a complete list, scores it, and writes the query's results. */
static sh_status score_list(const search *s, int64_t i, sh_query_codes *codes, int64_t row, query_list *l,
                            item_scratch *v, sh_context *context) {
    sh_job *job = s->job;
    const sh_index *x = s->index;
    sh_filter_query *f = &l->filter;
    const sh_query_code *q = &codes->query[row];
    int64_t query = query_of(s, i), counts[SH_STAGES] = {0}, scored;
    if (f->found < 0) goto leave;
    if (f->found - l->refined > SHORT_LIST) {
        refine_list(s, query, codes, row, l, v, context);
    } else {
        drop_hidden(s, query, l);
        l->listed += f->found - l->refined;
        for (; l->refined < f->found; l->refined++) l->lower[l->refined] = -INFINITY;
        drop_below_threshold(l);
    }
    if (job->goal == SH_GOAL_RADIUS) drop_by_offset(s, query, q, l);
    counts[SH_LISTED] = l->listed;
    counts[SH_AFTER_REFINEMENT] = f->found;
    counts[SH_SCORED] = l->seeds;
    if (!make_room_for_scores(s, l->seeds, 0, v, context)) goto leave;
    scored = move_seeds(s, l, v);
    /* of a map with full support: with more within reach the query is the stream's, which decides once more */
    const int64_t most = job->plan.reach > 0 ? sh_most_in_reach(job, query) + SEEDS : INT64_MAX;
    for (int64_t round = FIRST_ROUND; f->found > 0; round *= 2) {
        /* those of lower bounds that reach the threshold are scored whatever the others' scores are */
        int64_t certain = 0;
        for (int64_t j = 0; j < f->found; j++) certain += l->lower[j] >= f->threshold;
        if (certain > most - scored) goto leave;
        int64_t n = sh_min(sh_max(round, certain), f->found), first = f->found - n;
        if (!make_room_for_scores(s, scored + n, scored, v, context)) goto leave;
        if (first > 0) select_best(l, n);
        sh_candidate *c = v->scored.list + scored;
        for (int64_t j = 0; j < n; j++) c[j].position = x->order[f->slot[first + j]];
        sh_score_canonically(job, query, c, n, v->widened_row);
        for (int64_t j = 0; j < n; j++) assert(!(f->bound[first + j] < sh_bound_threshold(x, q, c[j].score)));
        for (int64_t j = 0; j < n; j++) assert(!(c[j].score < sh_score_lower_bound(x, q, l->lower[first + j])));
        counts[SH_SCORED] += n;
        scored += n;
        f->found = l->refined = first;
        if (first == 0 && scored <= FEW_SCORED) break;
        if (!raise_threshold(s, query, q, l, scored, v, context)) goto leave;
        drop_below_threshold(l);
        scored = sh_keep_above(job, query, v->scored.list, scored, l->min_score, /* slack */ 0);
        if (scored > most) goto leave;
    }
    scored = sh_keep_in_reach(job, query, v->scored.list, scored);
    if (job->plan.reach > 0 && scored > sh_most_in_reach(job, query)) goto leave;
    note_work(s, i, l, counts[SH_SCORED]);
    if (takes_product(s, query, scored, v)) {
        sh_leave_to_overflow(job, query);
        return SH_OK;
    }
    if (s->counts) memcpy(s->counts[i], counts, sizeof counts);
    sh_sort_by_position(v->scored.list, scored);
    return sh_store_results(job, query, v->scored.list, scored, v->scored.scratch, context);
leave:
    note_work(s, i, l, counts[SH_SCORED]);
    leave_to_scan(s, query);
    return SH_OK;
}

/* --- many queries: a block does everything -------------------------------------------------------- */

/* Prepares `rows` queries of the search, from `first` on in the order of blocks: their numbers and codes. */
static void encode_rows(const search *s, int64_t first, int64_t rows, item_scratch *v, sh_query_codes *codes) {
    for (int64_t i = 0; i < rows; i++) v->query[i] = query_of(s, s->order ? s->order[first + i] : first + i);
    sh_encode_queries(s->index, s->job, v->query, 0, rows, codes);
}

/* Begins those lists of `rows` queries that there was NO_ROOM for so far; their nearest panels are known. */
static void start_lists(const search *s, int64_t rows, int32_t (*near)[NEAR], item_scratch *v, sh_query_codes *codes,
                        sh_context *context) {
    for (int64_t i = 0; i < rows; i++)
        if (v->list[i].filter.found == NO_ROOM) start_list(s, v->query[i], codes, i, near[i], &v->list[i], v, context);
}

/* Finds the nearest panels of a block of queries. */
static sh_status place_item(void *pointer, int64_t block, void *scratch, sh_context *context) {
    search *s = pointer;
    (void)context;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    item_scratch v;
    lay_out(s, scratch, &v);
    encode_rows(s, first, rows, &v, &v.codes);
    find_near_panels(s, &v.codes, rows, s->near + first);
    return SH_OK;
}

/* Searches for a block of queries; leaves those whose lists are too long to the scan. */
static sh_status block_item(void *pointer, int64_t block, void *scratch, sh_context *context) {
    search *s = pointer;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    item_scratch v;
    lay_out(s, scratch, &v);
    encode_rows(s, first, rows, &v, &v.codes);
    if (s->order)
        for (int64_t i = 0; i < rows; i++) memcpy(v.near[i], s->near[s->order[first + i]], sizeof *v.near);
    else
        find_near_panels(s, &v.codes, rows, v.near);
    for (int64_t i = 0; i < rows; i++) v.list[i] = (query_list){.filter = {.found = NO_ROOM}};
    sh_status status = SH_OK;
    int64_t waiting = rows, before;
    do { /* once more for those that there was no room for */
        start_lists(s, rows, v.near, &v, &v.codes, context);
        status = filter_groups(s, rows, 0, s->groups, &v, &v.codes, context);
        before = waiting;
        waiting = 0;
        for (int64_t i = 0; i < rows; i++) waiting += v.list[i].filter.found == NO_ROOM;
        for (int64_t i = 0; i < rows; i++) {
            query_list *l = &v.list[i];
            int waits = l->filter.found == NO_ROOM && waiting < before;
            if (status == SH_OK && !waits && l->filter.found != DONE) {
                status = score_list(s, s->order ? s->order[first + i] : first + i, &v.codes, i, l, &v, context);
                l->filter.found = DONE;
            }
            release_list(l, &v, context);
        }
    } while (status == SH_OK && waiting && waiting < before);
    sh_release_list(context, &v.scored);
    return status;
}

/* Orders queries by their nearest panels. */
static sh_status order_queries(search *s) {
    sh_context *context = s->job->context;
    int64_t panels = s->index->panel_count;
    s->near = sh_allocate(context, s->n, sizeof *s->near);
    int64_t *order = sh_allocate(context, s->n, sizeof *order), *end = sh_allocate(context, panels + 2, sizeof *end);
    sh_status status = SH_OK;
    if (!s->near || !order || !end) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    if (status == SH_OK) status = sh_for_each(context, s->blocks, lay_out(s, NULL, &(item_scratch){0}), place_item, s);
    if (status == SH_OK) { /* a counting sort; -1 is first */
        memset(end, 0, (size_t)(panels + 2) * sizeof *end);
        for (int64_t i = 0; i < s->n; i++) end[s->near[i][0] + 2]++;
        for (int64_t panel = 0; panel <= panels; panel++) end[panel + 1] += end[panel];
        for (int64_t i = 0; i < s->n; i++) order[end[s->near[i][0] + 1]++] = i;
    }
    sh_release(context, end);
    s->order = order;
    return status;
}

static sh_status search_by_blocks(search *s) {
    sh_context *context = s->job->context;
    sh_status status = s->blocks > 1 ? order_queries(s) : SH_OK;
    if (status == SH_OK) status = sh_for_each(context, s->blocks, lay_out(s, NULL, &(item_scratch){0}), block_item, s);
    sh_release(context, s->near);
    sh_release(context, s->order);
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

/* Encodes a block of queries, and begins their lists. */
static sh_status start_item(void *pointer, int64_t block, void *scratch, sh_context *context) {
    search *s = pointer;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    item_scratch v;
    lay_out(s, scratch, &v);
    sh_query_codes codes;
    codes_of(s, block, &codes);
    encode_rows(s, first, rows, &v, &codes);
    for (int64_t i = 0; i < rows; i++) /* ranges only read the codes */
        if (s->index->records && codes.query[i].norm > 0) sh_refine_query(s->index, &codes, i);
    find_near_panels(s, &codes, rows, v.near);
    for (int64_t i = 0; i < rows; i++) v.list[i] = (query_list){.filter = {.found = NO_ROOM}};
    start_lists(s, rows, v.near, &v, &codes, context);
    for (int64_t i = 0; i < rows; i++) {
        release_list(&v.list[i], &v, context);
        s->begun[first + i] = v.list[i];
    }
    sh_release_list(context, &v.scored);
    return SH_OK;
}

/* Filters a range of groups for a block of queries, and hands the lists over. */
static sh_status range_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    search *s = pointer;
    int64_t block = item / s->ranges, range = item % s->ranges;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    item_scratch v;
    lay_out(s, scratch, &v);
    sh_query_codes codes;
    codes_of(s, block, &codes);
    for (int64_t i = 0; i < rows; i++) v.query[i] = query_of(s, first + i);
    memcpy(v.list, s->begun + first, (size_t)rows * sizeof *v.list);
    int64_t first_group = s->groups * range / s->ranges, last_group = s->groups * (range + 1) / s->ranges;
    sh_status status = filter_groups(s, rows, first_group, last_group, &v, &codes, context);
    for (int64_t i = 0; i < rows; i++) {
        query_list *l = &v.list[i];
        if (status == SH_OK && l->filter.found > 0 && !refine_list(s, v.query[i], &codes, i, l, &v, context))
            l->filter.found = LEFT_TO_SCAN;
        s->lists[(first + i) * s->ranges + range] = *l; /* with its memory */
    }
    sh_release_list(context, &v.scored);
    return status;
}

/* Joins the lists of query i of all ranges, and finishes it. */
static sh_status join_item(void *pointer, int64_t i, void *scratch, sh_context *context) {
    search *s = pointer;
    int64_t row = i % s->block_rows;
    item_scratch v;
    lay_out(s, scratch, &v);
    sh_query_codes codes;
    codes_of(s, i / s->block_rows, &codes);
    query_list l = s->begun[i], *lists = &s->lists[i * s->ranges];
    for (int64_t r = 0; r < s->ranges; r++) {
        const query_list *part = &lists[r];
        int64_t n = part->filter.found, found = l.filter.found;
        if (found < 0) break;
        if (n < 0 || !make_room(&l, n, &v, context)) {
            l.filter.found = LEFT_TO_SCAN;
            break;
        }
        if (n) {
            memcpy(l.filter.slot + found, part->filter.slot, (size_t)n * sizeof *l.filter.slot);
            memcpy(l.filter.bound + found, part->filter.bound, (size_t)n * sizeof *l.filter.bound);
            memcpy(l.lower + found, part->lower, (size_t)n * sizeof *l.lower);
        }
        l.filter.found = l.refined = found + n;
        l.min_score = fmax(l.min_score, part->min_score);
        l.listed += part->listed;
        l.panels += part->panels;
        /* seeds that ranges found and that there is no space for are scored again */
        for (int64_t j = s->begun[i].seeds; j < part->seeds && l.seeds < SEEDS; j++) l.seed[l.seeds++] = part->seed[j];
    }
    l.filter.threshold = sh_bound_threshold(s->index, &codes.query[row], l.min_score);
    if (l.filter.found > 0 && !refine_list(s, query_of(s, i), &codes, row, &l, &v, context))
        l.filter.found = LEFT_TO_SCAN;
    sh_status status = score_list(s, i, &codes, row, &l, &v, context);
    release_list(&l, &v, context);
    sh_release_list(context, &v.scored);
    return status;
}

/* Searches for few queries, in three passes over blocks, ranges and queries. */
static sh_status search_by_ranges(search *s) {
    sh_context *context = s->job->context;
    int64_t lists = s->n * s->ranges;
    s->codes = sh_allocate(context, s->blocks, lay_out_codes(s, NULL, &(sh_query_codes){0}));
    s->begun = sh_allocate(context, s->n, sizeof *s->begun);
    s->lists = sh_allocate(context, lists, sizeof *s->lists);
    sh_status status = SH_OK;
    if (!s->codes || !s->begun || !s->lists) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    if (s->lists) memset(s->lists, 0, (size_t)lists * sizeof *s->lists);
    size_t scratch = lay_out(s, NULL, &(item_scratch){0});
    if (status == SH_OK) status = sh_for_each(context, s->blocks, scratch, start_item, s);
    if (status == SH_OK) status = sh_for_each(context, s->blocks * s->ranges, scratch, range_item, s);
    if (status == SH_OK) status = sh_for_each(context, s->n, scratch, join_item, s);
    for (int64_t i = 0; s->lists && i < lists; i++) sh_release(context, s->lists[i].memory);
    sh_release(context, s->codes);
    sh_release(context, s->begun);
    sh_release(context, s->lists);
    return status;
}

sh_status sh_index_search(sh_job *job, const sh_index *index, const int64_t *queries, int64_t n,
                          int64_t (*counts)[SH_STAGES], double *work, int64_t *unserved,
                          _Atomic int64_t *unserved_count) {
    search s = {.job = job, .index = index, .k = sh_code_kernels_chosen(), .queries = queries, .n = n};
    s.counts = counts;
    s.work = work;
    s.unserved = unserved;
    s.unserved_count = unserved_count;
    s.groups = sh_ceil_div(index->panel_count, SH_GROUP);
    s.limit = most_listed(job->memory);
    int64_t threads = sh_max(job->context->threads, 1);
    s.block_rows = threads == 1 ? BLOCK : sh_min(sh_max(sh_ceil_div(n, 2 * threads), LEAST_BLOCK), BLOCK);
    s.blocks = sh_ceil_div(n, s.block_rows);
    s.block_rows = sh_ceil_div(n, s.blocks);
    s.blocks = sh_ceil_div(n, s.block_rows);
    if (s.blocks >= 2 * threads || threads == 1) return search_by_blocks(&s);
    s.ranges = sh_max(1, sh_min(s.groups, sh_ceil_div(2 * threads, s.blocks)));
    return search_by_ranges(&s);
}
