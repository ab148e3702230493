/* retrieve.c: the update repeated until nothing moves. A query at rest leaves the batch.
 *
 * Queries are taken in groups whose two states (before and after a step) fit GROUP_BYTES; within a group the
 * states that still move are kept together at the front.
 */
#include "engine.h"
#include <math.h>
#include <string.h>

enum { GROUP_BYTES = 8 * 1024 * 1024 };

typedef struct {
    char *now, *next;
    double *beta;
    int64_t *query, *support;
} group;

static sh_status settle(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries, int64_t first,
                        int64_t count, int64_t max_steps, double reach2, group *g, void *states, int64_t *steps,
                        uint8_t *converged, int64_t *support_size, char *before_last) {
    const sh_kernels *k = memory->k;
    int64_t d = memory->patterns.d, moving = count;
    size_t bytes = (size_t)d * k->size;
    memcpy(g->now, sh_at(k, queries.data, first * d), (size_t)count * bytes);
    for (int64_t i = 0; i < count; i++) {
        g->query[i] = first + i;
        g->beta[i] = queries.beta[(first + i) * queries.beta_stride];
    }
    for (int64_t step = 1; moving && step <= max_steps; step++) {
        sh_job job = {.context = context, .memory = memory, .model = model, .mixed = &memory->patterns};
        job.queries = (sh_queries){g->now, moving, g->beta, 1};
        job.states = g->next;
        job.support_size = g->support;
        sh_status status = sh_run(&job);
        if (status != SH_OK) {
            if (context->argument && context->row < moving) context->row = g->query[context->row];
            return status;
        }
        int64_t left = 0;
        for (int64_t i = 0; i < moving; i++) {
            int64_t query = g->query[i];
            char *before = g->now + (size_t)i * bytes, *after = g->next + (size_t)i * bytes;
            int rests = k->distance2(before, after, d) <= reach2;
            steps[query] = step;
            support_size[query] = g->support[i];
            converged[query] = (uint8_t)rests;
            if (rests || step == max_steps) {
                memcpy((char *)states + (size_t)query * bytes, after, bytes);
                if (before_last) memcpy(before_last + (size_t)query * bytes, before, bytes);
                continue;
            }
            memcpy(g->now + (size_t)left * bytes, after, bytes);
            g->beta[left] = g->beta[i];
            g->query[left++] = query;
        }
        moving = left;
    }
    return SH_OK;
}

sh_status sh_retrieve(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                      int64_t max_steps, double tol, void *states, int64_t *steps, uint8_t *converged,
                      int64_t *support_size, void *before) {
    if (max_steps < 0) return sh_fail(context, SH_BAD_ARGUMENT, "max_steps", 0);
    if (!(tol >= 0) || isinf(tol)) return sh_fail(context, SH_BAD_ARGUMENT, "tol", 0);
    int64_t n = queries.n, d = memory->patterns.d, size = (int64_t)memory->k->size;
    if (n <= 0) return n < 0 ? sh_fail(context, SH_BAD_ARGUMENT, "queries", 0) : SH_OK;
    if (max_steps == 0) {
        memcpy(states, queries.data, (size_t)(n * d * size));
        if (before) memcpy(before, queries.data, (size_t)(n * d * size));
        memset(steps, 0, (size_t)n * sizeof *steps);
        memset(support_size, 0, (size_t)n * sizeof *support_size);
        memset(converged, 0, (size_t)n);
        return SH_OK;
    }
    double reach = tol * memory->max_norm;
    int64_t count = sh_min(n, sh_max(SH_BLOCK, GROUP_BYTES / (d * size)));
    group g = {0};
    g.now = sh_allocate(context, count, (size_t)(d * size));
    g.next = sh_allocate(context, count, (size_t)(d * size));
    g.beta = sh_allocate(context, count, sizeof(double));
    g.query = sh_allocate(context, count, sizeof(int64_t));
    g.support = sh_allocate(context, count, sizeof(int64_t));
    sh_status status = SH_OK;
    if (!g.now || !g.next || !g.beta || !g.query || !g.support) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t first = 0; status == SH_OK && first < n; first += count)
        status = settle(context, memory, model, queries, first, sh_min(count, n - first), max_steps, reach * reach, &g,
                        states, steps, converged, support_size, before);
    sh_release(context, g.now);
    sh_release(context, g.next);
    sh_release(context, g.beta);
    sh_release(context, g.query);
    sh_release(context, g.support);
    return status;
}
