/* margins.c: the best scores, and how far every pattern stands out from the others: of the two best scores of it as a
 * query at least one is of another. */
#include "engine.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { MARGIN_BYTES = 16 * 1024 * 1024 }; /* of patterns asked at a time */

sh_status sh_margins(sh_context *context, const sh_memory *m, double *margins) {
    const sh_kernels *k = m->k;
    int64_t n = m->patterns.n, d = m->patterns.d, size = (int64_t)k->size;
    int64_t count = sh_min(n, sh_max(SH_BLOCK, MARGIN_BYTES / (d * size)));
    char *rows = sh_allocate(context, count, (size_t)(d * size)), *buffer = sh_allocate(context, d, (size_t)size);
    sh_candidate *best = sh_allocate(context, count, 2 * sizeof *best);
    int32_t *self = sh_allocate(context, count, SH_CARRIED * sizeof *self);
    double one = 1;
    sh_status status = SH_OK;
    if (!rows || !buffer || !best || !self) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    atomic_fetch_add(&m->shelf->asked, n); /* so that the index is built at once, if it will pay */
    for (int64_t first = 0; status == SH_OK && first < n; first += count) {
        int64_t some = sh_min(count, n - first);
        for (int64_t i = 0; i < some; i++) {
            char *row = rows + i * d * size;
            memcpy(row, sh_row_at(k, &m->patterns, first + i, buffer), (size_t)(d * size));
            if (m->scale) k->scale(row, m->scale[first + i], d);
            for (int l = 0; l < SH_CARRIED; l++)
                self[i * SH_CARRIED + l] = l ? -1 : (int32_t)sh_min(first + i, INT32_MAX);
            for (int l = 0; l < 2; l++) best[2 * i + l] = (sh_candidate){-INFINITY, -1};
        }
        sh_job job = {.context = context, .memory = m, .model = {SH_SPARSEMAX, 2}, .nearest = 2, .nearest_out = best};
        job.queries = (sh_queries){rows, some, &one, 0};
        job.carried = self;
        status = sh_run(&job);
        for (int64_t i = 0; status == SH_OK && i < some; i++) {
            sh_candidate own = {.position = first + i};
            sh_rescore(&job, i, &own, 1, buffer);
            margins[first + i] = own.score - best[2 * i + (best[2 * i].position == first + i)].score;
        }
        if (status != SH_OK && context->argument) sh_fail(context, status, "patterns", first + context->row);
    }
    sh_release(context, rows);
    sh_release(context, buffer);
    sh_release(context, best);
    sh_release(context, self);
    return status;
}

sh_status sh_nearest(sh_context *context, const sh_memory *memory, sh_queries queries, int64_t count, int64_t *position,
                     double *score) {
    if (count < 1 || count > SH_NEAREST) return sh_fail(context, SH_BAD_ARGUMENT, "count", 0);
    int64_t n = queries.n * count;
    sh_candidate *best = sh_allocate(context, sh_max(n, 1), sizeof *best);
    if (!best) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; i < n; i++) best[i] = (sh_candidate){-INFINITY, -1};
    sh_job job = {.context = context, .memory = memory, .model = {SH_SPARSEMAX, 2}, .queries = queries};
    job.nearest = count;
    job.nearest_out = best;
    sh_status status = sh_run(&job);
    for (int64_t i = 0; status == SH_OK && i < n; i++) {
        position[i] = best[i].position;
        score[i] = best[i].score;
    }
    sh_release(context, best);
    return status;
}
