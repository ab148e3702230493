/* retrieval/index/query.c: maps with a window below the cost of the matrix product: bounds first, scores of what is left.
 *
 *   1. Every pattern's bound from its 8-bit code is compared with the query's threshold in registers; survivors
 *      are listed. As tiles of patterns pass, the best bound among the new ones is scored canonically, and the
 *      threshold rises. A list that grows too long on the way is bounded closer at once, as in step 2.
 *      Where the k best are wanted, whatever their weight, all that are listed are bounded closer at once, from below
 *      as well, and the k-th best bound from below is the threshold: it takes no scores.
 *   2. What is still above the threshold is bounded again, closer, by its second line.
 *   3. Best bound first, patterns are scored canonically, and the support is solved as it grows, until the next
 *      bound is below the threshold. No order scores fewer rows, but for the seeds of step 1: whatever is scored
 *      while a supported pattern waits has a larger bound than it, so one above the final threshold.
 *
 * Bounds are right whatever the rounding (retrieval/index/build.c), and the scores are those of every other path (rescore.c): what
 * comes out is the same bit for bit. Queries whose lists outgrow their room are left to the scan.
 */
#include "retrieval/index/index.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 64,              /* queries that share a pass over the codes */
    FIRST_TILE = 1024,       /* patterns that the first seed is taken from, */
    CLOSE_TILE = 256,        /* or the first bounds from below */
    TILE_BYTES = 256 * 1024, /* of codes, to stay in the cache for a block */
    SEEDS = 32,              /* patterns scored before the lists are complete, and kept, at most */
    EXACT = 2048,            /* scored patterns kept at a time */
    BALL_SEEDS = 4,          /* of a ball's, itself among them */
    FEW = 8,                 /* so short a list is scored without a second line */
    TOGETHER = 8,            /* rows on their way from memory at a time */
};

int64_t sh_most_listed(const sh_index *x) { return sh_min(sh_max(x->patterns / 16, 1024), 8192); }
static int64_t tile_groups(const sh_index *x) { return sh_max(1, TILE_BYTES / (int64_t)sh_group_bytes(x->quads)); }
static int64_t list_room(const sh_index *x) {
    int64_t all = sh_ceil_div(x->patterns, SH_GROUP) * SH_GROUP;
    return sh_min(sh_most_listed(x) + sh_max(tile_groups(x) * SH_GROUP, FIRST_TILE), sh_max(all, 1024));
}

/* What is known of one query while patterns pass. */
typedef struct {
    double floor;   /* canonical scores below this are out */
    int64_t listed; /* and bounded closer at once; of maps with a window, those that were not to stay */
    int64_t n;
    sh_candidate seed[SEEDS]; /* scored canonically */
    int64_t sure;             /* how many of: */
    float below[SH_NEAREST];  /* the best bounds from below of patterns that passed: a heap, the least at the front */
} tracker;

typedef struct {
    sh_job *job;
    const sh_index *index;
    const sh_code_kernels *k;
    const int64_t *order; /* the queries, or NULL for 0 .. n-1 */
    int64_t n, blocks, block_rows, ranges;
    int64_t (*counts)[4]; /* (n): listed, bounded, scored, support; or NULL */
    int64_t *left;        /* queries left over */
    _Atomic int64_t *left_count;
    /* few queries: what their blocks and ranges hand on */
    char *looks;
    tracker *trackers;
    struct handed *handed;
} screening;

typedef struct handed {
    int64_t n; /* < 0: too many */
    int32_t *position;
    float *bound;
    tracker tracker;
} handed;

typedef struct {
    sh_looks looks;
    tracker *trackers;
    sh_screened *asked;
    int32_t *row; /* of the block, for each of `asked` */
    int32_t *position;
    float *bound;
    sh_candidate *exact;
    sh_result_space finish;
} space;

static int64_t query_at(const screening *s, int64_t i) { return s->order ? s->order[i] : i; }

static size_t space_bytes(const screening *s, int64_t rows) {
    size_t list = (size_t)(rows * list_room(s->index));
    return sh_looks_bytes(s->index, s->job->memory, rows) + sh_align((size_t)rows * sizeof(tracker)) +
           sh_align((size_t)rows * sizeof(sh_screened)) + sh_align((size_t)rows * sizeof(int32_t)) +
           sh_align(list * sizeof(int32_t)) + sh_align(list * sizeof(float)) +
           sh_align((EXACT + SEEDS) * sizeof(sh_candidate)) + sh_result_space_bytes(s->job, EXACT + SEEDS);
}

static space space_at(const screening *s, int64_t rows, void *scratch) {
    size_t list = (size_t)(rows * list_room(s->index));
    char *at = scratch;
    space w = {.looks = sh_looks_at(s->index, s->job->memory, rows, at)};
    at += sh_looks_bytes(s->index, s->job->memory, rows);
    w.trackers = (tracker *)(void *)at;
    at += sh_align((size_t)rows * sizeof(tracker));
    w.asked = (sh_screened *)(void *)at;
    at += sh_align((size_t)rows * sizeof(sh_screened));
    w.row = (int32_t *)(void *)at;
    at += sh_align((size_t)rows * sizeof(int32_t));
    w.position = (int32_t *)(void *)at;
    at += sh_align(list * sizeof(int32_t));
    w.bound = (float *)(void *)at;
    at += sh_align(list * sizeof(float));
    w.exact = (sh_candidate *)(void *)at;
    at += sh_align((EXACT + SEEDS) * sizeof(sh_candidate));
    w.finish = sh_result_space_at(s->job, at, EXACT + SEEDS);
    return w;
}

static void leave(const screening *s, int64_t query) { s->left[atomic_fetch_add(s->left_count, 1)] = query; }

/* how many best scores must be known before there is a floor; 0: every score gives one */
static int64_t best_wanted(const screening *s) { return sh_has_cutoff(s->job) ? 0 : s->job->plan.nearest; }

/* scores some more patterns; the floor rises */
static void seed(const screening *s, int64_t query, tracker *t, const int32_t *position, int64_t n,
                 const sh_result_space *finish) {
    int64_t before = t->n;
    for (int64_t j = 0; j < n && t->n < SEEDS; j++) {
        int64_t i = 0;
        while (i < t->n && t->seed[i].position != position[j]) i++;
        if (i == t->n) t->seed[t->n++].position = position[j];
    }
    if (t->n == before) return;
    sh_rescore(s->job, query, t->seed + before, t->n - before, finish->buffer);
    t->floor = fmax(t->floor, sh_min_score(s->job, query, t->seed, t->n, finish->z, 0));
}

/* A heap of bounds, the largest at the front. */
static void sift(int32_t *position, float *bound, int64_t at, int64_t n) {
    int32_t p = position[at];
    float b = bound[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && bound[child + 1] > bound[child]) child++;
        if (!(bound[child] > b)) break;
        position[at] = position[child];
        bound[at] = bound[child];
    }
    position[at] = p;
    bound[at] = b;
}
static void heapify(int32_t *position, float *bound, int64_t n) {
    for (int64_t j = n / 2 - 1; j >= 0; j--) sift(position, bound, j, n);
}

/* scores the best of a list */
static void seed_best(const screening *s, int64_t query, tracker *t, int64_t wanted, const int32_t *position,
                      const float *bound, int64_t n, const sh_result_space *finish) {
    int32_t best[SEEDS];
    float found[SEEDS], least = -INFINITY;
    int64_t m = 0;
    wanted = sh_min(wanted, SEEDS);
    for (int64_t i = 0; i < n; i++) {
        if (!(bound[i] > least)) continue;
        int64_t at = m < wanted ? m++ : m - 1;
        for (; at > 0 && found[at - 1] < bound[i]; at--) {
            best[at] = best[at - 1];
            found[at] = found[at - 1];
        }
        best[at] = position[i];
        found[at] = bound[i];
        if (m == wanted) least = found[m - 1];
    }
    seed(s, query, t, best, m, finish);
}

static int64_t keep_bounds(int32_t *position, float *bound, int64_t n, float threshold) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t p = position[i];
        float b = bound[i];
        position[kept] = p;
        bound[kept] = b != b ? INFINITY : b; /* what is not known is not excluded */
        kept += !(b < threshold);
    }
    return kept;
}

/* keeps the k best bounds from below */
static void note_below(tracker *t, float below, int64_t k) {
    float *heap = t->below;
    int64_t at = t->sure;
    if (!(at < k || below > heap[0]) || below != below) return;
    if (at < k) {
        for (t->sure++; at > 0 && heap[(at - 1) / 2] > below; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    } else {
        at = 0;
        for (int64_t child; (child = 2 * at + 1) < k; at = child) {
            if (child + 1 < k && heap[child + 1] < heap[child]) child++;
            if (!(heap[child] < below)) break;
            heap[at] = heap[child];
        }
    }
    heap[at] = below;
}

/* bounds a list closer by the second line, where there is one; with a tracker, from below as well */
static void look_closer(const screening *s, sh_looks *looks, int64_t row, const int32_t *position, float *bound,
                        int64_t n, tracker *t) {
    enum { PIECE = 256 };
    float closer[PIECE], below[PIECE];
    const sh_index *x = s->index;
    if (x->lines) sh_look_closer(x, looks, row);
    for (int64_t from = 0; from < n; from += PIECE) {
        int64_t some = sh_min(PIECE, n - from);
        if (x->lines)
            sh_line_bounds(x, looks, row, position + from, some, closer, below);
        else
            sh_code_bounds_below(x, looks, row, position + from, some, bound + from, below);
        for (int64_t j = 0; x->lines && j < some; j++)
            if (closer[j] < bound[from + j]) bound[from + j] = closer[j];
        for (int64_t j = 0; t && j < some; j++) note_below(t, below[j], s->job->plan.nearest);
    }
}

/* The newly listed where the k best are wanted, whatever their weight: their lines at once, while the queries of a
 * block share them in the cache; bounds from below give a floor before any is scored. 0 if the list is too long. */
static int take_in_closely(const screening *s, sh_looks *looks, int64_t row, tracker *t, sh_screened *q,
                           int64_t before) {
    const sh_index *x = s->index;
    const sh_look *look = &looks->look[row];
    int64_t k = best_wanted(s), n = q->found - before, most = sh_most_listed(x);
    look_closer(s, looks, row, q->position + before, q->bound + before, n, t);
    t->listed += n;
    if (t->sure == k) t->floor = fmax(t->floor, sh_look_floor(x, look, t->below[0]));
    q->threshold = sh_look_threshold(x, look, t->floor);
    n = keep_bounds(q->position + before, q->bound + before, n, q->threshold);
    q->found = before + n;
    if (q->found <= most) return 1;
    q->found = keep_bounds(q->position, q->bound, q->found, q->threshold);
    return q->found <= most;
}

/* seeds from the newly listed; returns 0 if the list is too long */
static int take_in(const screening *s, int64_t query, sh_looks *looks, int64_t row, tracker *t, sh_screened *q,
                   int64_t before, const sh_result_space *finish) {
    const sh_index *x = s->index;
    const sh_look *look = &looks->look[row];
    int64_t most = sh_most_listed(x);
    /* a ball is soon as small as its nearest rivals make it */
    int64_t wanted = sh_max(1, (s->job->goal == SH_GOAL_RADIUS ? BALL_SEEDS : 0) - t->n);
    seed_best(s, query, t, wanted, q->position + before, q->bound + before, q->found - before, finish);
    q->threshold = sh_look_threshold(x, look, t->floor);
    if (q->found <= most) return 1;
    q->found = keep_bounds(q->position, q->bound, q->found, q->threshold);
    if (2 * q->found <= most || !x->lines) return q->found <= most;
    look_closer(s, looks, row, q->position, q->bound, q->found, NULL);
    t->listed += q->found;
    seed_best(s, query, t, 1, q->position, q->bound, q->found, finish);
    q->threshold = sh_look_threshold(x, look, t->floor);
    q->found = keep_bounds(q->position, q->bound, q->found, q->threshold);
    t->listed -= q->found;
    return 2 * q->found <= most;
}

/* Passes the groups [first, last) by some queries of `looks`; their lists end up in `asked`, found = -1 where too
 * long. w->row says whose they are. */
static sh_status pass(const screening *s, int64_t first_query, int64_t rows, int64_t first, int64_t last, space *w,
                      sh_looks *looks, sh_context *context) {
    const sh_index *x = s->index;
    int64_t k = best_wanted(s), room = list_room(x), active = 0, passive = rows;
    for (int64_t i = 0; i < rows; i++) {
        const sh_look *look = &looks->look[i];
        int64_t at = look->length > 0 ? active++ : --passive;
        w->row[at] = (int32_t)i;
        w->asked[at] = (sh_screened){.code = looks->codes + i * x->quads * 4,
                                     .start = look->start,
                                     .step = look->step,
                                     .radius = look->radius,
                                     .threshold = sh_look_threshold(x, look, w->trackers[i].floor),
                                     .found = look->length > 0 ? 0 : -1,
                                     .position = w->position + i * room,
                                     .bound = w->bound + i * room};
    }
    int64_t before[BLOCK];
    int64_t step = (k ? CLOSE_TILE : FIRST_TILE) / SH_GROUP, most = tile_groups(x);
    for (int64_t g = first, next; g < last && active; g = next) {
        next = sh_min(g + step, last);
        for (int64_t i = 0; i < active; i++) before[i] = w->asked[i].found;
        s->k->screen(x->groups, x->quads, g, next, w->asked, active);
        if (g > first) step = best_wanted(s) ? sh_min(2 * step, most) : most;
        for (int64_t i = active - 1; i >= 0; i--) {
            sh_screened *q = &w->asked[i];
            int64_t row = w->row[i];
            if (q->found == before[i]) continue;
            int fits =
                k ? take_in_closely(s, looks, row, &w->trackers[row], q, before[i])
                  : take_in(s, query_at(s, first_query + row), looks, row, &w->trackers[row], q, before[i], &w->finish);
            if (fits) continue;
            q->found = -1;
            active--;
            sh_screened last_asked = w->asked[active];
            w->asked[active] = *q;
            *q = last_asked;
            w->row[i] = w->row[active];
            w->row[active] = (int32_t)row;
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* of what a ball has listed, by each pattern's own lift instead of the largest */
static int64_t keep_rivals(const screening *s, int64_t query, const sh_look *look, const tracker *t, int32_t *position,
                           float *bound, int64_t n) {
    double radius = sh_radius_bound(s->job, query, t->seed, t->n, 0);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        double floor = sh_rival_min_score_at(s->job, query, radius, s->job->radius_search->norm_offset[position[i]]);
        if (bound[i] < sh_look_threshold(s->index, look, floor)) continue;
        position[kept] = position[i];
        bound[kept++] = bound[i];
    }
    return kept;
}

/* One query, its list complete. */
static sh_status settle(const screening *s, int64_t i, const tracker *t, sh_looks *looks, int64_t row,
                        int32_t *position, float *bound, int64_t n, const space *w, sh_context *context) {
    sh_job *job = s->job;
    const sh_index *x = s->index;
    int64_t query = query_at(s, i), counts[4] = {0};
    const sh_look *look = &looks->look[row];
    double floor = t->floor;
    float threshold = sh_look_threshold(x, look, floor);
    n = keep_bounds(position, bound, n, threshold);
    counts[0] = best_wanted(s) ? t->listed : t->listed + n;
    if (x->lines && n > FEW && !best_wanted(s)) {
        look_closer(s, looks, row, position, bound, n, NULL);
        n = keep_bounds(position, bound, n, threshold);
    }
    if (job->goal == SH_GOAL_RADIUS) n = keep_rivals(s, query, look, t, position, bound, n);
    counts[1] = n;
    int64_t found = 0, solved = 0;
    for (int64_t j = 0; j < t->n; j++)
        if (t->seed[j].score >= floor) w->exact[found++] = t->seed[j];
    solved = found;
    counts[2] = t->n;
    heapify(position, bound, n);
    while (n > 0 && !(bound[0] < threshold) && found < EXACT) {
        /* solving costs as much as it has scores: until so many are found, the threshold stays, and all above it may
         * be scored together */
        int64_t together = sh_min(sh_min(solved + 1 + solved / 8, EXACT) - found, TOGETHER), fresh = 0;
        sh_candidate c[TOGETHER];
        while (fresh < together && n > 0 && !(bound[0] < threshold)) {
            int known = 0;
            c[fresh].position = position[0];
            position[0] = position[--n];
            bound[0] = bound[n];
            sift(position, bound, 0, n);
            for (int64_t j = 0; j < t->n; j++) known |= t->seed[j].position == c[fresh].position;
            fresh += !known;
        }
        sh_rescore(job, query, c, fresh, w->finish.buffer);
        counts[2] += fresh;
        for (int64_t j = 0; j < fresh; j++)
            if (c[j].score >= floor) w->exact[found++] = c[j];
        if (found < solved + 1 + solved / 8 && found < EXACT) continue;
        floor = fmax(floor, sh_min_score(job, query, w->exact, found, w->finish.z, 0));
        solved = found = sh_keep_above(job, query, w->exact, found, floor, 0);
        threshold = sh_look_threshold(x, look, floor);
    }
    if (found > SH_EXACT_SUPPORT) { /* perhaps the second product is due (overflow.c) */
        leave(s, query);
        return SH_OK;
    }
    if (s->counts) memcpy(s->counts[i], counts, sizeof counts);
    sh_sort_by_position(w->exact, found);
    return sh_store_results(job, query, w->exact, found, w->finish, context);
}

/* what a query begins with: the patterns that carried the last step */
static void begin_trackers(const screening *s, int64_t first, int64_t rows, tracker *trackers, const space *w) {
    for (int64_t i = 0; i < rows; i++) {
        int64_t query = query_at(s, first + i);
        trackers[i].floor = -INFINITY;
        trackers[i].n = trackers[i].listed = trackers[i].sure = 0;
        for (int l = 0; s->job->hints && l < SH_HINTS; l++) {
            int64_t position = s->job->hints[query * SH_HINTS + l];
            if (position >= 0) seed(s, query, &trackers[i], &(int32_t){(int32_t)position}, 1, &w->finish);
        }
    }
}

/* --- many queries: a block does everything -------------------------------------------------------- */

static sh_status block_item(void *pointer, int64_t block, void *scratch, sh_context *context) {
    screening *s = pointer;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    space w = space_at(s, s->block_rows, scratch);
    sh_look_at(s->index, s->job, s->order ? s->order + first : NULL, first, rows, &w.looks);
    begin_trackers(s, first, rows, w.trackers, &w);
    int64_t groups = sh_ceil_div(s->index->patterns, SH_GROUP);
    sh_status status = pass(s, first, rows, 0, groups, &w, &w.looks, context);
    for (int64_t i = 0; status == SH_OK && i < rows; i++) {
        sh_screened *q = &w.asked[i];
        int64_t row = w.row[i];
        if (q->found < 0)
            leave(s, query_at(s, first + row));
        else
            status =
                settle(s, first + row, &w.trackers[row], &w.looks, row, q->position, q->bound, q->found, &w, context);
    }
    return status;
}

/* --- few queries: the patterns are shared out ----------------------------------------------------- */

static sh_looks looks_of(const screening *s, int64_t block) {
    const sh_memory *m = s->job->memory;
    return sh_looks_at(s->index, m, s->block_rows,
                       s->looks + (size_t)block * sh_looks_bytes(s->index, m, s->block_rows));
}

static sh_status look_item(void *pointer, int64_t block, void *scratch, sh_context *context) {
    screening *s = pointer;
    const sh_index *x = s->index;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    space w = space_at(s, s->block_rows, scratch);
    sh_looks looks = looks_of(s, block);
    sh_look_at(x, s->job, s->order ? s->order + first : NULL, first, rows, &looks);
    for (int64_t i = 0; i < rows; i++) /* ranges only read them */
        if (x->lines && looks.look[i].length > 0) sh_look_closer(x, &looks, i);
    begin_trackers(s, first, rows, w.trackers, &w);
    int64_t groups = sh_min(sh_ceil_div(x->patterns, SH_GROUP), FIRST_TILE / SH_GROUP);
    sh_status status = pass(s, first, rows, 0, groups, &w, &looks, context);          /* for its seeds */
    for (int64_t i = 0; i < rows; i++) w.trackers[i].sure = w.trackers[i].listed = 0; /* they pass once more */
    memcpy(s->trackers + first, w.trackers, (size_t)rows * sizeof(tracker));
    return status;
}

static sh_status range_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    screening *s = pointer;
    const sh_index *x = s->index;
    int64_t block = item / s->ranges, range = item % s->ranges;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    space w = space_at(s, s->block_rows, scratch);
    sh_looks looks = looks_of(s, block);
    memcpy(w.trackers, s->trackers + first, (size_t)rows * sizeof(tracker));
    int64_t groups = sh_ceil_div(x->patterns, SH_GROUP);
    sh_status status =
        pass(s, first, rows, groups * range / s->ranges, groups * (range + 1) / s->ranges, &w, &looks, context);
    for (int64_t i = 0; status == SH_OK && i < rows; i++) {
        sh_screened *q = &w.asked[i];
        handed *h = &s->handed[(first + w.row[i]) * s->ranges + range];
        h->tracker = w.trackers[w.row[i]];
        h->n = q->found;
        if (q->found <= 0) continue;
        h->n =
            keep_bounds(q->position, q->bound, q->found, sh_look_threshold(x, &looks.look[w.row[i]], h->tracker.floor));
        h->position = sh_allocate(context, sh_max(h->n, 1), sizeof(int32_t));
        h->bound = sh_allocate(context, sh_max(h->n, 1), sizeof(float));
        if (!h->position || !h->bound) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
        memcpy(h->position, q->position, (size_t)h->n * sizeof(int32_t));
        memcpy(h->bound, q->bound, (size_t)h->n * sizeof(float));
    }
    return status;
}

static sh_status settle_item(void *pointer, int64_t i, void *scratch, sh_context *context) {
    screening *s = pointer;
    const sh_index *x = s->index;
    space w = space_at(s, s->block_rows, scratch);
    int64_t block = i / s->block_rows, n = 0;
    sh_looks looks = looks_of(s, block);
    tracker t = s->trackers[i];
    const sh_look *look = &looks.look[i % s->block_rows];
    handed *h = &s->handed[i * s->ranges];
    for (int64_t r = 0; r < s->ranges; r++) {
        t.floor = fmax(t.floor, h[r].tracker.floor);
        t.listed += h[r].tracker.listed;
    }
    float threshold = sh_look_threshold(x, look, t.floor);
    for (int64_t r = 0; r < s->ranges; r++) {
        int64_t kept = h[r].n < 0 ? -1 : keep_bounds(h[r].position, h[r].bound, h[r].n, threshold);
        if (kept < 0 || n + kept > list_room(x) * s->block_rows) {
            leave(s, query_at(s, i));
            return SH_OK;
        }
        if (kept) {
            memcpy(w.position + n, h[r].position, (size_t)kept * sizeof(int32_t));
            memcpy(w.bound + n, h[r].bound, (size_t)kept * sizeof(float));
        }
        n += kept;
    }
    /* seeds that ranges found and there is no room for are scored again */
    for (int64_t r = 0; r < s->ranges; r++)
        for (int64_t j = s->trackers[i].n; j < h[r].tracker.n && t.n < SEEDS; j++) t.seed[t.n++] = h[r].tracker.seed[j];
    return settle(s, i, &t, &looks, i % s->block_rows, w.position, w.bound, n, &w, context);
}

static sh_status share_out(screening *s) {
    sh_context *context = s->job->context;
    int64_t slots = s->n * s->ranges;
    size_t looks = sh_looks_bytes(s->index, s->job->memory, s->block_rows);
    s->looks = sh_allocate(context, s->blocks, looks);
    s->trackers = sh_allocate(context, s->n, sizeof *s->trackers);
    s->handed = sh_allocate(context, slots, sizeof *s->handed);
    sh_status status = SH_OK;
    if (!s->looks || !s->trackers || !s->handed) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    if (s->handed) memset(s->handed, 0, (size_t)slots * sizeof *s->handed);
    size_t scratch = space_bytes(s, s->block_rows);
    if (status == SH_OK) status = sh_for_each(context, s->blocks, scratch, look_item, s);
    if (status == SH_OK) status = sh_for_each(context, s->blocks * s->ranges, scratch, range_item, s);
    if (status == SH_OK) status = sh_for_each(context, s->n, scratch, settle_item, s);
    for (int64_t i = 0; s->handed && i < slots; i++) {
        sh_release(context, s->handed[i].position);
        sh_release(context, s->handed[i].bound);
    }
    sh_release(context, s->looks);
    sh_release(context, s->trackers);
    sh_release(context, s->handed);
    return status;
}

sh_status sh_screen_by(sh_job *job, const sh_index *index, const int64_t *order, int64_t n, int64_t (*counts)[4],
                       int64_t *left, _Atomic int64_t *left_count) {
    screening s = {.job = job, .index = index, .k = sh_code_kernels_chosen(), .order = order, .n = n};
    s.counts = counts;
    s.left = left;
    s.left_count = left_count;
    int64_t threads = sh_max(job->context->threads, 1);
    s.blocks = sh_ceil_div(n, BLOCK);
    s.block_rows = sh_ceil_div(n, s.blocks);
    s.blocks = sh_ceil_div(n, s.block_rows);
    if (s.blocks >= 2 * threads || threads == 1)
        return sh_for_each(job->context, s.blocks, space_bytes(&s, s.block_rows), block_item, &s);
    int64_t groups = sh_ceil_div(index->patterns, SH_GROUP), tiles = sh_ceil_div(groups, FIRST_TILE / SH_GROUP);
    s.ranges = sh_max(1, sh_min(tiles, sh_ceil_div(2 * threads, s.blocks)));
    return share_out(&s);
}
