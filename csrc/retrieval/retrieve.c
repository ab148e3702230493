/* retrieve.c: the update repeated until nothing moves. A query at rest leaves the batch.
 *
 * The first step takes all queries from where they lie. Those that still move go on in groups whose two states (before
 * and after a step) fit GROUP_BYTES; within a group they are kept together at the front.
 *
 * Notes  1. The patterns that carried a step are scored first in the next (retrieval/index/query.c): their exact scores are a
 *           threshold that few bounds pass.
 *        2. A state whose support was the single pattern j is the stored row j, bit for bit. Whether that is a fixed
 *           point is found once in a call and remembered for its other queries of the same beta.
 */
#include "retrieval/job.h"
#include <math.h>
#include <string.h>

enum { GROUP_BYTES = 8 * 1024 * 1024 };

typedef struct {
    sh_context *context;
    const sh_memory *memory;
    sh_model model;
    sh_queries queries;
    int64_t max_steps;
    double reach2;
    /* results */
    char *states, *before;
    int64_t *steps, *support;
    uint8_t *converged;
    /* (N) the queries that still move, and what carried their last step */
    int64_t *moving;
    int32_t *carry;
    uint8_t *fixed; /* (M) 1 where a stored row is known to be a fixed point, or NULL */
    /* the group: states before and after, temperatures, supports, carriers before and after */
    char *now, *next;
    double *beta;
    int64_t *place; /* in the structure, or NULL */
    int64_t *group_support;
    int32_t *carried, *carrying;
    int32_t *from; /* the stored row that `now` is, or -1 */
} retrieval;

static size_t row_bytes(const retrieval *r) { return (size_t)r->memory->patterns.d * r->memory->k->size; }
/* the stored row that a state is, or -1 */
static int32_t stored(int64_t support, const int32_t *carry) { return support == 1 ? carry[0] : -1; }

/* Notes the step of one query, from `before` (the stored row `from`, or -1) to `after` (`to`); whether it goes on. */
static int note(retrieval *r, int64_t query, int64_t step, const char *before, const char *after, int64_t support,
                int32_t from, int32_t to) {
    size_t bytes = row_bytes(r);
    double moved = r->memory->k->distance2(before, after, r->memory->patterns.d);
    int rests = moved <= r->reach2;
    if (r->fixed && moved == 0 && to >= 0 && from == to) r->fixed[to] = 1;
    if (!rests && step < r->max_steps && r->fixed && to >= 0 && r->fixed[to]) { /* it will rest where it is */
        before = after;
        rests = 1;
        step++;
    }
    r->steps[query] = step;
    r->support[query] = support;
    r->converged[query] = (uint8_t)rests;
    if (!rests && step < r->max_steps) return 1;
    char *state = r->states + (size_t)query * bytes;
    if (state != after) memcpy(state, after, bytes);
    if (r->before) memcpy(r->before + (size_t)query * bytes, before, bytes);
    return 0;
}

static sh_status first_step(retrieval *r, int64_t *left) {
    sh_job job = {.context = r->context, .memory = r->memory, .model = r->model, .values = &r->memory->patterns};
    job.queries = r->queries;
    job.out.states = r->states;
    job.out.support_size = r->support;
    job.out.hints = r->carry;
    sh_status status = sh_run(&job);
    size_t bytes = row_bytes(r);
    *left = 0;
    for (int64_t i = 0; status == SH_OK && i < r->queries.n; i++) {
        const char *before = (const char *)r->queries.data + (size_t)i * bytes;
        int32_t to = stored(r->support[i], r->carry + i * SH_HINTS);
        if (note(r, i, 1, before, r->states + (size_t)i * bytes, r->support[i], -1, to)) r->moving[(*left)++] = i;
    }
    return status;
}

/* The queries moving[0 .. n-1], from their second step on. */
static sh_status settle(retrieval *r, int64_t *query, int64_t n) {
    size_t bytes = row_bytes(r), carry_bytes = SH_HINTS * sizeof(int32_t);
    const int64_t *places = r->queries.structure ? r->queries.structure->position : NULL;
    for (int64_t i = 0; i < n; i++) {
        memcpy(r->now + (size_t)i * bytes, r->states + (size_t)query[i] * bytes, bytes);
        memcpy(r->carried + i * SH_HINTS, r->carry + query[i] * SH_HINTS, carry_bytes);
        r->from[i] = stored(r->support[query[i]], r->carried + i * SH_HINTS);
        r->beta[i] = r->queries.beta[query[i] * r->queries.beta_stride];
        if (r->place) r->place[i] = places ? places[query[i]] : query[i];
    }
    for (int64_t step = 2; n; step++) {
        sh_job job = {.context = r->context, .memory = r->memory, .model = r->model, .values = &r->memory->patterns};
        job.queries = (sh_queries){.data = r->now, .n = n, .beta = r->beta, .beta_stride = 1};
        sh_structure here;
        if (r->queries.structure) {
            here = *r->queries.structure;
            here.position = r->place;
            job.queries.structure = &here;
        }
        job.out.states = r->next;
        job.out.support_size = r->group_support;
        job.hints = r->carried;
        job.out.hints = r->carrying;
        sh_status status = sh_run(&job);
        if (status != SH_OK) {
            if (sh_is_query_failure(r->context)) r->context->row = query[r->context->row];
            return status;
        }
        int64_t left = 0;
        for (int64_t i = 0; i < n; i++) {
            const char *before = r->now + (size_t)i * bytes, *after = r->next + (size_t)i * bytes;
            int32_t *carrying = r->carrying + i * SH_HINTS, to = stored(r->group_support[i], carrying);
            if (!note(r, query[i], step, before, after, r->group_support[i], r->from[i], to)) continue;
            memcpy(r->now + (size_t)left * bytes, after, bytes);
            memcpy(r->carried + left * SH_HINTS, carrying, carry_bytes);
            r->beta[left] = r->beta[i];
            if (r->place) r->place[left] = r->place[i];
            r->from[left] = to;
            query[left++] = query[i];
        }
        n = left;
    }
    return SH_OK;
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
    double reach = tol * memory->max_norm;
    retrieval r = {.context = context, .memory = memory, .model = model, .queries = queries, .max_steps = max_steps};
    r.reach2 = reach * reach;
    r.states = states;
    r.before = before;
    r.steps = steps;
    r.support = support_size;
    r.converged = converged;
    int64_t left = 0, count = 0;
    r.moving = sh_allocate(context, n, sizeof *r.moving);
    r.carry = sh_allocate(context, n, SH_HINTS * sizeof *r.carry);
    status = SH_NO_MEMORY;
    if (!r.moving || !r.carry) goto done;
    int same = !queries.structure || queries.structure->pairs == SH_PAIRS_TOP; /* whichever query it is */
    if (n > 1 && max_steps > 1 && queries.beta_stride == 0 && same) {
        r.fixed = sh_allocate(context, memory->patterns.n, 1);
        if (!r.fixed) goto done;
        memset(r.fixed, 0, (size_t)memory->patterns.n);
    }
    status = first_step(&r, &left);
    if (status != SH_OK || left == 0) goto done;
    count = sh_min(left, sh_max(SH_BLOCK, GROUP_BYTES / (d * size)));
    status = SH_NO_MEMORY;
    r.now = sh_allocate(context, count, (size_t)(d * size));
    r.next = sh_allocate(context, count, (size_t)(d * size));
    r.beta = sh_allocate(context, count, sizeof *r.beta);
    r.group_support = sh_allocate(context, count, sizeof *r.group_support);
    r.carried = sh_allocate(context, 2 * count, SH_HINTS * sizeof *r.carried);
    r.from = sh_allocate(context, count, sizeof *r.from);
    if (!same && !(r.place = sh_allocate(context, count, sizeof *r.place))) goto done;
    if (!r.now || !r.next || !r.beta || !r.group_support || !r.carried || !r.from) goto done;
    r.carrying = r.carried + count * SH_HINTS;
    status = SH_OK;
    for (int64_t first = 0; status == SH_OK && first < left; first += count)
        status = settle(&r, r.moving + first, sh_min(count, left - first));
done:
    sh_release(context, r.moving);
    sh_release(context, r.carry);
    sh_release(context, r.fixed);
    sh_release(context, r.now);
    sh_release(context, r.next);
    sh_release(context, r.beta);
    sh_release(context, r.group_support);
    sh_release(context, r.carried);
    sh_release(context, r.from);
    sh_release(context, r.place);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
