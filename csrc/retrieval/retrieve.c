/* retrieve.c: the update repeated until nothing moves. Queries that have converged leave the batch.
 *
 * The first step takes all queries from where they lie. Those that still move go on in groups whose two states (before
 * and after a step) fit GROUP_BYTES; within a group they are moved to the front.
 *
 * Notes  1. The patterns of most weight in a step are the hints to the next, which scores them first
 *           (retrieval/index/query.c): their exact scores are a threshold that few bounds pass.
 *        2. A state whose support was the single pattern j is the stored row j, bit for bit. Whether that is a fixed
 *           point is found once in a call and remembered for its other queries of the same beta. Where queries exclude
 *           patterns it may be one of some queries alone, and is not remembered.
 *        3. The tolerance is relative to the largest norm of the patterns that a query sees. It is another one only for
 *           queries that exclude the longest pattern.
 */
#include "retrieval/job.h"
#include "structure/structure.h"

enum { GROUP_BYTES = 8 * 1024 * 1024 };

/* The queries of a group, in arrays of `count` at most. */
typedef struct {
    char *now, *next; /* states before and after a step */
    double *beta;
    int64_t *place;   /* in the structure, or NULL */
    int64_t *exclude; /* positions, or NULL */
    int64_t *support;
    int32_t *hints, *next_hints; /* (count, SH_HINTS) */
    int32_t *stored;             /* the stored row that `now` is, or -1 */
} query_group;

typedef struct {
    sh_context *context;
    const sh_memory *memory;
    sh_model model;
    sh_queries queries;
    int64_t max_steps;
    double tolerance2;         /* a query has converged when the square of its move is at most this, */
    double tolerance2_of_rest; /* or this, if it excludes the pattern at `longest` (note 3) */
    int64_t longest;           /* -1: there is no such query */
    /* results */
    char *states, *before;
    int64_t *steps, *support;
    uint8_t *converged;
    int64_t *moving;   /* (N) the queries that still move, in order */
    int32_t *hints;    /* (N, SH_HINTS) of the first step */
    uint8_t *is_fixed; /* (M) 1 where a stored row is known to be a fixed point, or NULL */
    int use_places;    /* the structure tells queries apart by their places */
    query_group group;
} retrieval;

static size_t row_bytes(const retrieval *r) { return (size_t)r->memory->patterns.d * r->memory->k->size; }
/* Returns the stored row that a state is, given its support and hints, or -1. */
static int32_t stored_row(int64_t support, const int32_t *hints) { return support == 1 ? hints[0] : -1; }

/* Lays a group of `count` queries out; returns its bytes. */
static size_t lay_out(retrieval *r, void *memory, int64_t count) {
    sh_workspace w = {memory, 0};
    query_group *g = &r->group;
    g->now = sh_take(&w, count, row_bytes(r));
    g->next = sh_take(&w, count, row_bytes(r));
    g->beta = sh_take(&w, count, sizeof *g->beta);
    g->support = sh_take(&w, count, sizeof *g->support);
    g->hints = sh_take(&w, count, SH_HINTS * sizeof *g->hints);
    g->next_hints = sh_take(&w, count, SH_HINTS * sizeof *g->next_hints);
    g->stored = sh_take(&w, count, sizeof *g->stored);
    g->place = r->use_places ? sh_take(&w, count, sizeof *g->place) : NULL;
    g->exclude = r->queries.exclude ? sh_take(&w, count, sizeof *g->exclude) : NULL;
    return w.used;
}

/* Records the step of one query, from the state `before` to `after`, which are the stored rows row_before and row_after,
 * or -1. Returns whether the query goes on. */
static int record_step(retrieval *r, int64_t query, int64_t step, const char *before, const char *after,
                       int64_t support, int32_t row_before, int32_t row_after) {
    size_t bytes = row_bytes(r);
    double moved2 = r->memory->k->distance2(before, after, r->memory->patterns.d);
    const int64_t *exclude = r->queries.exclude;
    int converged = moved2 <= (exclude && exclude[query] >= 0 && exclude[query] == r->longest ? r->tolerance2_of_rest
                                                                                              : r->tolerance2);
    if (r->is_fixed && moved2 == 0 && row_after >= 0 && row_before == row_after) r->is_fixed[row_after] = 1;
    if (!converged && step < r->max_steps && r->is_fixed && row_after >= 0 &&
        r->is_fixed[row_after]) { /* it stays there */
        before = after;
        converged = 1;
        step++;
    }
    r->steps[query] = step;
    r->support[query] = support;
    r->converged[query] = (uint8_t)converged;
    if (!converged && step < r->max_steps) return 1;
    char *state = r->states + (size_t)query * bytes;
    if (state != after) memcpy(state, after, bytes);
    if (r->before) memcpy(r->before + (size_t)query * bytes, before, bytes);
    return 0;
}

/* Makes the first step of all queries; lists those that go on in `moving`, and counts them. */
static sh_status first_step(retrieval *r, int64_t *count) {
    sh_job job = {SH_GOAL_UPDATE, .context = r->context, .memory = r->memory, .model = r->model, .queries = r->queries};
    job.values = &r->memory->patterns;
    job.out = (sh_outputs){.states = r->states, .support_size = r->support, .hints = r->hints};
    sh_status status = sh_run(&job);
    size_t bytes = row_bytes(r);
    *count = 0;
    for (int64_t i = 0; status == SH_OK && i < r->queries.n; i++) {
        const char *before = (const char *)r->queries.data + (size_t)i * bytes;
        int32_t row = stored_row(r->support[i], r->hints + i * SH_HINTS);
        if (record_step(r, i, 1, before, r->states + (size_t)i * bytes, r->support[i], -1, row))
            r->moving[(*count)++] = i;
    }
    return status;
}

/* Makes all further steps of n queries; `query` (n) becomes scratch memory. */
static sh_status run_group(retrieval *r, int64_t *query, int64_t n) {
    query_group *g = &r->group;
    size_t bytes = row_bytes(r), hint_bytes = SH_HINTS * sizeof(int32_t);
    const int64_t *places = g->place ? r->queries.structure->position : NULL;
    for (int64_t i = 0; i < n; i++) {
        memcpy(g->now + (size_t)i * bytes, r->states + (size_t)query[i] * bytes, bytes);
        memcpy(g->hints + i * SH_HINTS, r->hints + query[i] * SH_HINTS, hint_bytes);
        g->stored[i] = stored_row(r->support[query[i]], g->hints + i * SH_HINTS);
        g->beta[i] = r->queries.beta[query[i] * r->queries.beta_stride];
        if (g->place) g->place[i] = places ? places[query[i]] : query[i];
        if (g->exclude) g->exclude[i] = r->queries.exclude[query[i]];
    }
    for (int64_t step = 2; n; step++) {
        sh_job job = {SH_GOAL_UPDATE, .context = r->context, .memory = r->memory, .model = r->model, .hints = g->hints};
        job.queries = (sh_queries){.data = g->now, .n = n, .beta = g->beta, .beta_stride = 1, .exclude = g->exclude};
        job.values = &r->memory->patterns;
        sh_structure structure;
        if (r->queries.structure) {
            structure = *r->queries.structure;
            structure.position = g->place;
            job.queries.structure = &structure;
        }
        job.out = (sh_outputs){.states = g->next, .support_size = g->support, .hints = g->next_hints};
        sh_status status = sh_run(&job);
        if (status != SH_OK) {
            if (sh_is_query_failure(r->context)) r->context->row = query[r->context->row];
            return status;
        }
        int64_t moving = 0;
        for (int64_t i = 0; i < n; i++) {
            const char *before = g->now + (size_t)i * bytes, *after = g->next + (size_t)i * bytes;
            const int32_t *hints = g->next_hints + i * SH_HINTS, row = stored_row(g->support[i], hints);
            if (!record_step(r, query[i], step, before, after, g->support[i], g->stored[i], row)) continue;
            memcpy(g->now + (size_t)moving * bytes, after, bytes);
            memcpy(g->hints + moving * SH_HINTS, hints, hint_bytes);
            g->beta[moving] = g->beta[i];
            if (g->place) g->place[moving] = g->place[i];
            if (g->exclude) g->exclude[moving] = g->exclude[i];
            g->stored[moving] = row;
            query[moving++] = query[i];
        }
        assert(step < r->max_steps || moving == 0);
        n = moving;
    }
    return SH_OK;
}

/* Derives the tolerances from that relative to the largest norm. */
static sh_status set_tolerances(retrieval *r, double tol) {
    const sh_memory *m = r->memory;
    const int64_t *exclude = r->queries.exclude;
    double max_norm = m->whole_max_norm, of_rest;
    sh_status status = SH_OK;
    if (!m->whole_count) status = sh_memory_max_norm(r->context, m, &max_norm);
    r->tolerance2 = tol * max_norm * (tol * max_norm);
    r->longest = -1;
    if (status != SH_OK || !exclude || m->whole_count || m->similarity == SH_COSINE) return status;
    const int64_t row = sh_longest_row(m), longest = sh_position_of(m, row);
    for (int64_t i = 0; i < r->queries.n && r->longest < 0; i++)
        if (exclude[i] == longest) r->longest = longest;
    if (r->longest < 0) return SH_OK;
    status = sh_max_norm_without(r->context, m, row, &of_rest);
    r->tolerance2_of_rest = tol * of_rest * (tol * of_rest);
    return status;
}

sh_status sh_retrieve(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                      int64_t max_steps, double tol, void *states, int64_t *steps, uint8_t *converged,
                      int64_t *support_size, void *before) {
    if (max_steps < 0) return sh_fail(context, SH_BAD_ARGUMENT, "max_steps", 0);
    if (!(tol >= 0) || isinf(tol)) return sh_fail(context, SH_BAD_ARGUMENT, "tol", 0);
    sh_status status = sh_check_call(context, memory, &queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, sh_map_of(&model), "separation");
    int64_t n = queries.n, d = memory->patterns.d, size = (int64_t)memory->k->size;
    if (n == 0) return SH_OK;
    SH_REQUIRE(context, states, "states");
    SH_REQUIRE(context, steps, "steps");
    SH_REQUIRE(context, converged, "converged");
    SH_REQUIRE(context, support_size, "support_size");
    if (max_steps == 0) {
        memcpy(states, queries.data, (size_t)(n * d * size));
        if (before) memcpy(before, queries.data, (size_t)(n * d * size));
        memset(steps, 0, (size_t)n * sizeof *steps);
        memset(support_size, 0, (size_t)n * sizeof *support_size);
        memset(converged, 0, (size_t)n);
        return SH_OK;
    }
    retrieval r = {.context = context, .memory = memory, .model = model, .queries = queries, .max_steps = max_steps};
    status = set_tolerances(&r, tol);
    if (status != SH_OK) return status;
    r.states = states, r.before = before, r.converged = converged;
    r.steps = steps, r.support = support_size;
    r.use_places = sh_by_place(queries.structure);
    int64_t moving = 0, count;
    void *group = NULL;
    status = SH_NO_MEMORY;
    r.moving = sh_allocate(context, n, sizeof *r.moving);
    r.hints = sh_allocate(context, n, SH_HINTS * sizeof *r.hints);
    if (!r.moving || !r.hints) goto done;
    if (n > 1 && max_steps > 1 && queries.beta_stride == 0 && !r.use_places && !queries.exclude) {
        r.is_fixed = sh_allocate(context, sh_count(memory), 1);
        if (!r.is_fixed) goto done;
        memset(r.is_fixed, 0, (size_t)sh_count(memory));
    }
    status = first_step(&r, &moving);
    if (status != SH_OK || moving == 0) goto done;
    count = sh_min(moving, sh_max(SH_BLOCK, GROUP_BYTES / (d * size)));
    group = sh_allocate(context, 1, lay_out(&r, NULL, count));
    if (!group) status = SH_NO_MEMORY;
    if (group) lay_out(&r, group, count);
    for (int64_t first = 0; status == SH_OK && first < moving; first += count)
        status = run_group(&r, r.moving + first, sh_min(count, moving - first));
done:
    sh_release(context, r.moving);
    sh_release(context, r.hints);
    sh_release(context, r.is_fixed);
    sh_release(context, group);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
