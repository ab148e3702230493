/* screen.c: maps with a window below the cost of the matrix product: bounds first, scores of what is left.
 *
 *   1. Every pattern's bound from its 8-bit code is compared with the query's threshold in registers; survivors
 *      are listed. As tiles of patterns pass, the best bound among the new ones is scored canonically, and the
 *      threshold rises.
 *   2. What is still above the threshold is bounded again, closer, by its second line.
 *   3. Best bound first, patterns are scored canonically, and the support is solved as it grows, until the next
 *      bound is below the threshold. No order scores fewer rows, but for the seeds of step 1: whatever is scored
 *      while a supported pattern waits has a larger bound than it, so one above the final threshold.
 *
 * Bounds are right whatever the rounding (index.c), and the scores are those of every other path (finish.c): what
 * comes out is the same bit for bit. Queries whose lists outgrow their room are left to the scan.
 *
 * Notes  1. Which way is cheapest is decided by counting: a pilot of a few queries tells how long the lists are, and
 *           the work is reckoned in products of the matrix product. No clock is read.
 *        2. Queries that are zero in many features (masked ones) are unlike the patterns, and the basis of the
 *           patterns serves them badly. For enough of them an index of the other features is made for the call.
 */
#include "index.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 64,              /* queries that share a pass over the codes */
    FIRST_TILE = 512,        /* patterns that the first seed is taken from */
    TILE_BYTES = 256 * 1024, /* of codes, to stay in the cache for a block */
    SEEDS = 32,              /* patterns scored before the lists are complete, at most */
    EXACT = 2048,            /* scored patterns kept at a time */
    FEW = 8,                 /* so short a list is scored without a second line */
    PILOT = 16,              /* queries of a pilot, */
    PILOTED = 256,           /* where there are at least so many */
    BATCH = 1000,            /* queries that may have an index of their own features */
    BATCH_BYTES = 32 << 20,  /* of it */
    LEAST_PATTERNS = 1024,   /* below this the scan is as good */
    LEAST_QUERIES = 256,     /* asked before an index is made */
};
/* Work in units of one product of the matrix product. */
static const double LINE_WORK = 2400, ROW_WORK = 12000; /* to bound by a second line; to score */
static const double INDEX_WORK = 300;                   /* to build an index, for every number of the patterns */
static const double READ_WORK = 40;                     /* to read a number that is in no cache */
static const double LEAST_WORK = 2e7;                   /* of a scan that is worth the overhead of a screen */

static int64_t most_listed(const sh_index *x) { return sh_min(sh_max(x->patterns / 16, 1024), 8192); }
static int64_t tile_groups(const sh_index *x) { return sh_max(1, TILE_BYTES / (int64_t)sh_group_bytes(x->quads)); }
static int64_t list_room(const sh_index *x) {
    int64_t all = sh_ceil_div(x->patterns, SH_GROUP) * SH_GROUP;
    return sh_min(most_listed(x) + sh_max(tile_groups(x) * SH_GROUP, FIRST_TILE), sh_max(all, 1024));
}

/* What is known of one query while patterns pass. */
typedef struct {
    double floor; /* canonical scores below this are out */
    int64_t n;
    sh_candidate seed[SEEDS]; /* scored canonically */
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
    sh_finish_space finish;
} space;

static int64_t query_at(const screening *s, int64_t i) { return s->order ? s->order[i] : i; }

static size_t space_bytes(const screening *s, int64_t rows) {
    size_t list = (size_t)(rows * list_room(s->index));
    return sh_looks_bytes(s->index, s->job->memory, rows) + sh_align((size_t)rows * sizeof(tracker)) +
           sh_align((size_t)rows * sizeof(sh_screened)) + sh_align((size_t)rows * sizeof(int32_t)) +
           sh_align(list * sizeof(int32_t)) + sh_align(list * sizeof(float)) +
           sh_align((EXACT + SEEDS) * sizeof(sh_candidate)) + sh_finish_bytes(s->job, EXACT + SEEDS);
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
    w.finish = sh_finish_space_at(s->job, at);
    return w;
}

static void leave(const screening *s, int64_t query) { s->left[atomic_fetch_add(s->left_count, 1)] = query; }

/* scores one more pattern; the floor rises */
static void seed(const screening *s, int64_t query, tracker *t, int64_t position, const sh_finish_space *finish) {
    if (t->n == SEEDS) return;
    for (int64_t i = 0; i < t->n; i++)
        if (t->seed[i].position == position) return;
    sh_candidate *c = &t->seed[t->n++];
    c->position = position;
    sh_rescore(s->job, query, c, 1, finish->buffer);
    if (c->score >= t->floor) t->floor = fmax(t->floor, sh_support_floor(s->job, query, t->seed, t->n, finish->z, 0));
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

/* seeds from the newly listed; returns 0 if the list is too long */
static int take_in(const screening *s, int64_t query, const sh_look *look, tracker *t, sh_screened *q, int64_t before,
                   const sh_finish_space *finish) {
    int64_t wanted = sh_max(1, 2 * s->job->nearest - t->n); /* the k best need k scores before there is a floor */
    for (; wanted > 0 && q->found > before; wanted--) {
        int64_t best = before;
        for (int64_t i = before + 1; i < q->found; i++)
            if (q->bound[i] > q->bound[best]) best = i;
        seed(s, query, t, q->position[best], finish);
        if (wanted > 1) { /* out of the way of the next */
            int32_t position = q->position[best];
            float bound = q->bound[best];
            q->position[best] = q->position[before];
            q->bound[best] = q->bound[before];
            q->position[before] = position;
            q->bound[before++] = bound;
        }
    }
    q->threshold = sh_look_threshold(s->index, look, t->floor);
    if (q->found > most_listed(s->index)) q->found = keep_bounds(q->position, q->bound, q->found, q->threshold);
    return q->found <= most_listed(s->index);
}

/* Passes the groups [first, last) by some queries of `looks`; their lists end up in `asked`, found = -1 where too
 * long. w->row says whose they are. */
static sh_status pass(const screening *s, int64_t first_query, int64_t rows, int64_t first, int64_t last, space *w,
                      const sh_looks *looks, sh_context *context) {
    const sh_index *x = s->index;
    int64_t room = list_room(x), active = 0, passive = rows;
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
    for (int64_t g = first, step = FIRST_TILE / SH_GROUP; g < last && active; g += step) {
        if (g > first) step = tile_groups(x);
        for (int64_t i = 0; i < active; i++) before[i] = w->asked[i].found;
        s->k->screen(x->groups, x->quads, g, sh_min(g + step, last), w->asked, active);
        for (int64_t i = active - 1; i >= 0; i--) {
            sh_screened *q = &w->asked[i];
            int64_t row = w->row[i];
            if (q->found == before[i]) continue;
            int fits = take_in(s, query_at(s, first_query + row), &looks->look[row], &w->trackers[row], q, before[i],
                               &w->finish);
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

static int by_position(const void *a, const void *b) {
    int64_t i = ((const sh_candidate *)a)->position, j = ((const sh_candidate *)b)->position;
    return (i > j) - (i < j);
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
    counts[0] = n = keep_bounds(position, bound, n, threshold);
    if (x->lines && n > FEW) {
        enum { AHEAD = 8, LINE = 64 };
        sh_look_closer(x, looks, row);
        for (int64_t j = 0; j < n; j++) {
            if (j + AHEAD < n)
                for (size_t b = 0; b < x->line_bytes; b += LINE)
                    __builtin_prefetch(x->lines + (size_t)position[j + AHEAD] * x->line_bytes + b);
            float closer = sh_line_bound(x, s->k, looks, row, position[j]);
            if (closer < bound[j]) bound[j] = closer;
        }
        n = keep_bounds(position, bound, n, threshold);
    }
    counts[1] = n;
    int64_t found = 0, solved = 0;
    for (int64_t j = 0; j < t->n; j++)
        if (t->seed[j].score >= floor) w->exact[found++] = t->seed[j];
    solved = found;
    counts[2] = t->n;
    for (int64_t j = n / 2 - 1; j >= 0; j--) sift(position, bound, j, n);
    while (n > 0 && !(bound[0] < threshold)) {
        sh_candidate c = {.position = position[0]};
        position[0] = position[--n];
        bound[0] = bound[n];
        sift(position, bound, 0, n);
        int known = 0;
        for (int64_t j = 0; j < t->n; j++) known |= t->seed[j].position == c.position;
        if (known) continue;
        sh_rescore(job, query, &c, 1, w->finish.buffer);
        counts[2]++;
        if (c.score < floor) continue;
        w->exact[found++] = c;
        if (found < solved + 1 + solved / 8 && found < EXACT) continue; /* solving costs as much as it has scores */
        floor = fmax(floor, sh_support_floor(job, query, w->exact, found, w->finish.z, 0));
        solved = found = sh_keep_above(w->exact, found, floor);
        threshold = sh_look_threshold(x, look, floor);
        if (found == EXACT) break;
    }
    if (found > SH_EXACT_SUPPORT) { /* perhaps the second product is due (wide.c) */
        leave(s, query);
        return SH_OK;
    }
    if (s->counts) memcpy(s->counts[i], counts, sizeof counts);
    qsort(w->exact, (size_t)found, sizeof *w->exact, by_position);
    return sh_finish(job, query, w->exact, found, w->finish, context);
}

/* what a query begins with: the patterns that carried the last step */
static void begin_trackers(const screening *s, int64_t first, int64_t rows, tracker *trackers, const space *w) {
    for (int64_t i = 0; i < rows; i++) {
        int64_t query = query_at(s, first + i);
        trackers[i].floor = -INFINITY;
        trackers[i].n = 0;
        for (int l = 0; s->job->carried && l < SH_CARRIED; l++) {
            int64_t position = s->job->carried[query * SH_CARRIED + l];
            if (position >= 0) seed(s, query, &trackers[i], position, &w->finish);
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

static sh_status look_item(void *pointer, int64_t block, void *scratch, sh_context *context) {
    screening *s = pointer;
    const sh_index *x = s->index;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    space w = space_at(s, s->block_rows, scratch);
    sh_looks looks = sh_looks_at(x, s->job->memory, s->block_rows,
                                 s->looks + (size_t)block * sh_looks_bytes(x, s->job->memory, s->block_rows));
    sh_look_at(x, s->job, s->order ? s->order + first : NULL, first, rows, &looks);
    begin_trackers(s, first, rows, w.trackers, &w);
    int64_t groups = sh_min(sh_ceil_div(x->patterns, SH_GROUP), FIRST_TILE / SH_GROUP);
    sh_status status = pass(s, first, rows, 0, groups, &w, &looks, context); /* for its seeds */
    memcpy(s->trackers + first, w.trackers, (size_t)rows * sizeof(tracker));
    return status;
}

static sh_status range_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    screening *s = pointer;
    const sh_index *x = s->index;
    int64_t block = item / s->ranges, range = item % s->ranges;
    int64_t first = block * s->block_rows, rows = sh_min(s->block_rows, s->n - first);
    space w = space_at(s, s->block_rows, scratch);
    sh_looks looks = sh_looks_at(x, s->job->memory, s->block_rows,
                                 s->looks + (size_t)block * sh_looks_bytes(x, s->job->memory, s->block_rows));
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
    sh_looks looks = sh_looks_at(x, s->job->memory, s->block_rows,
                                 s->looks + (size_t)block * sh_looks_bytes(x, s->job->memory, s->block_rows));
    tracker t = s->trackers[i];
    const sh_look *look = &looks.look[i % s->block_rows];
    handed *h = &s->handed[i * s->ranges];
    for (int64_t r = 0; r < s->ranges; r++) t.floor = fmax(t.floor, h[r].tracker.floor);
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

/* n queries through one index; those left over are appended to `left` */
static sh_status run(sh_job *job, const sh_index *index, const int64_t *order, int64_t n, int64_t (*counts)[4],
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

/* --- which way ------------------------------------------------------------------------------------ */

/* the job without its results */
static sh_job silent_copy(const sh_job *job) {
    sh_job silent = *job;
    silent.states = NULL;
    silent.support_size = NULL;
    silent.energy = NULL;
    silent.lists = NULL;
    silent.counts = NULL;
    silent.carry = NULL;
    silent.nearest_out = NULL;
    return silent;
}

/* The middle of how many patterns a few queries list; INFINITY if most lists are too long. */
static sh_status pilot(sh_job *job, const sh_index *index, double *listed) {
    int64_t order[PILOT], left[PILOT], counts[PILOT][4];
    _Atomic int64_t left_count = 0;
    sh_job silent = silent_copy(job);
    for (int64_t i = 0; i < PILOT; i++) {
        order[i] = i * job->queries.n / PILOT;
        counts[i][0] = INT64_MAX;
    }
    sh_status status = run(&silent, index, order, PILOT, counts, left, &left_count);
    if (status != SH_OK) return status;
    for (int i = 1; i < PILOT; i++) /* insertion: there are few */
        for (int j = i; j > 0 && counts[j][0] < counts[j - 1][0]; j--) {
            int64_t swap = counts[j][0];
            counts[j][0] = counts[j - 1][0];
            counts[j - 1][0] = swap;
        }
    *listed = counts[PILOT / 2][0] == INT64_MAX ? INFINITY : (double)counts[PILOT / 2][0];
    return SH_OK;
}

static double work_of(const sh_index *x, double listed) {
    double codes = (double)(x->patterns * (x->first.columns + 4)) * sh_code_kernels_chosen()->cost;
    return codes + listed * (x->lines ? LINE_WORK : ROW_WORK);
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
static sh_status index_of_batch(sh_job *job, const sh_index *lines, double listed, sh_index **own) {
    const sh_memory *m = job->memory;
    sh_context *context = job->context;
    int64_t d = m->patterns.d;
    *own = NULL;
    if (!lines->basis || job->queries.n < BATCH || lines->bytes > BATCH_BYTES) return SH_OK;
    double spent = (double)job->queries.n * fmin(listed, (double)most_listed(lines)) * LINE_WORK;
    if (!(spent > INDEX_WORK * (double)m->patterns.n * (double)d / 2)) return SH_OK;
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
            status = sh_index_new(context, m, SH_LINES, kept, n, own);
    }
    sh_release(context, kept);
    sh_release(context, seen);
    sh_release(context, sums);
    sh_release(context, row);
    return status;
}

static sh_status put_up(sh_context *context, const sh_memory *m, sh_index_kind kind) {
    sh_index *index = NULL, *none = NULL;
    sh_status status = SH_OK;
    for (int i = 0; i < 2 && status == SH_OK && !index; i++) {
        if (kind != SH_EITHER && i != (kind == SH_COLUMNS)) continue;
        sh_index *older = atomic_exchange(&m->shelf->older[i], NULL);
        if (older) status = sh_index_grow(context, m, older, &index);
        sh_index_free(context, older);
    }
    if (status == SH_OK && !index) status = sh_index_new(context, m, kind, NULL, m->patterns.d, &index);
    if (status != SH_OK || !index) return status;
    if (!atomic_compare_exchange_strong(&m->shelf->index[index->kind == SH_COLUMNS], &none, index))
        sh_index_free(context, index); /* another thread was faster */
    return SH_OK;
}

sh_status sh_memory_index(sh_context *context, const sh_memory *m) {
    if (atomic_load(&m->shelf->index[0]) || atomic_load(&m->shelf->index[1])) return SH_OK;
    return put_up(context, m, SH_EITHER);
}

/* what the threshold test of a scaled bound means in units of scores: it survives any threshold up to this */
static double unscaled(const sh_index *x, const sh_look *look, float bound) {
    return ((double)bound + (1 + look->length) * 0x1p-90) / (x->power * x->power) + look->slack + look->constant;
}

sh_status sh_bounds(sh_context *context, const sh_memory *m, sh_queries queries, double *bounds) {
    int wanted = context->path == SH_PATH_COLUMNS;
    sh_status status = SH_OK;
    if (!atomic_load(&m->shelf->index[wanted])) status = put_up(context, m, wanted ? SH_COLUMNS : SH_LINES);
    const sh_index *x = atomic_load(&m->shelf->index[wanted]);
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
        double *out = bounds + i * 2 * x->patterns;
        for (int64_t j = 0; j < 2 * x->patterns; j++) out[j] = INFINITY;
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
            out[2 * at] = unscaled(x, look, bound[j]);
            out[2 * at + 1] = x->lines ? unscaled(x, look, sh_line_bound(x, k, &looks, 0, at)) : out[2 * at];
        }
    }
    sh_release(context, scratch);
    sh_release(context, position);
    sh_release(context, bound);
    return status;
}

int64_t sh_memory_index_bytes(const sh_memory *m) {
    int64_t bytes = 0;
    for (int i = 0; i < 2; i++) {
        const sh_index *x = atomic_load(&m->shelf->index[i]);
        if (x) bytes += (int64_t)x->bytes;
    }
    return bytes;
}

/* Whether most of a few queries have more candidates than the scan's lists hold: then no bound excludes much. */
static sh_status is_wide(sh_job *job, int *answer) {
    int64_t order[PILOT], wide[PILOT];
    sh_job few = silent_copy(job);
    for (int64_t i = 0; i < PILOT; i++) order[i] = i * job->queries.n / PILOT;
    few.left = order;
    few.wide = wide;
    atomic_store(&few.left_count, PILOT);
    atomic_store(&few.wide_count, 0);
    sh_status status = sh_scan(&few);
    *answer = atomic_load(&few.wide_count) > PILOT / 2;
    return status;
}

/* Whether an index pays: what was asked so far costs the scan twice as much as building it. */
static sh_status pays(sh_job *job, int *answer) {
    const sh_memory *m = job->memory;
    int64_t d = m->patterns.d, asked = atomic_fetch_add(&m->shelf->asked, job->queries.n) + job->queries.n;
    int64_t older = m->shelf->older_patterns;
    *answer = 0;
    if (m->patterns.n < LEAST_PATTERNS || (asked < LEAST_QUERIES && !older)) return SH_OK;
    double features = (double)d, small = fmin(features, 1024), n = (double)m->patterns.n;
    double build = d <= 120 ? 20 * n * features : INDEX_WORK * n * features + 60 * small * small * small;
    if (older) build = 100 * n + INDEX_WORK * features * (double)(m->patterns.n - older);
    if (!((double)asked * n * features > 2 * build)) return SH_OK;
    int hopeless = 0;
    sh_status status = job->queries.n >= PILOTED ? is_wide(job, &hopeless) : SH_OK;
    *answer = !hopeless;
    return status;
}

sh_status sh_screen(sh_job *job) {
    sh_context *context = job->context;
    const sh_memory *m = job->memory;
    sh_path path = context->path;
    int64_t n = job->queries.n;
    if (path == SH_PATH_SCAN) return SH_OK;
    sh_index *lines = atomic_load(&m->shelf->index[0]), *columns = atomic_load(&m->shelf->index[1]), *own = NULL;
    sh_status status = SH_OK;
    int build = path == SH_PATH_LINES ? !lines : path == SH_PATH_COLUMNS ? !columns : 0;
    if (path == SH_PATH_AUTO && !lines && !columns) {
        status = pays(job, &build);
        if (status != SH_OK) return status;
    }
    double scan = (double)m->patterns.n * (double)m->patterns.d;
    if (path == SH_PATH_AUTO && !build && fmax((double)n, READ_WORK) * scan < LEAST_WORK) return SH_OK;
    if (build) {
        status = put_up(context, m, path == SH_PATH_AUTO ? SH_EITHER : path == SH_PATH_LINES ? SH_LINES : SH_COLUMNS);
        if (status != SH_OK) return status;
        lines = atomic_load(&m->shelf->index[0]);
        columns = atomic_load(&m->shelf->index[1]);
    }
    if (path == SH_PATH_LINES && lines) columns = NULL;
    if (path == SH_PATH_COLUMNS && columns) lines = NULL;
    if (!lines && !columns) return SH_OK;

    if (path == SH_PATH_AUTO && n >= PILOTED) {
        double listed;
        if (lines) {
            status = pilot(job, lines, &listed);
            if (status != SH_OK) return status;
            status = index_of_batch(job, lines, listed, &own);
            if (status == SH_OK && own) {
                double with_own;
                status = pilot(job, own, &with_own);
                if (with_own < listed) {
                    lines = own;
                    listed = with_own;
                }
            }
            if (status != SH_OK) goto done;
            double codes = scan * sh_code_kernels_chosen()->cost;
            if (work_of(lines, listed) > 1.2 * codes && codes < 0.6 * scan && !columns &&
                sh_index_may_add_columns(m, lines)) {
                status = put_up(context, m, SH_COLUMNS);
                if (status != SH_OK) goto done;
                columns = atomic_load(&m->shelf->index[1]);
            }
            if (work_of(lines, listed) > (columns ? codes : 0.8 * scan)) lines = NULL;
        }
        if (columns) {
            status = pilot(job, columns, &listed);
            if (status != SH_OK) goto done;
            if (work_of(columns, listed) > 0.8 * scan) columns = NULL;
        }
        if (!lines && !columns) goto done;
    }
    job->left = sh_allocate(context, 2 * n, sizeof *job->left);
    if (!job->left) {
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
        goto done;
    }
    if (lines) status = run(job, lines, NULL, n, job->counts, job->left, &job->left_count);
    if (status == SH_OK && columns) {
        int64_t some = atomic_load(&job->left_count);
        if (lines) memcpy(job->left + n, job->left, (size_t)some * sizeof *job->left);
        atomic_store(&job->left_count, 0);
        if (!lines || some)
            status = run(job, columns, lines ? job->left + n : NULL, lines ? some : n, lines ? NULL : job->counts,
                         job->left, &job->left_count);
    }
done:
    sh_index_free(context, own);
    return status;
}
