/* margins.c: the best scores; how far every pattern stands out from the others (of the two best scores of it as a query
 * at least one is of another); and how large the ball around it is that goes to it (radii.c). */
#include "retrieval/job.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    ASKED_BYTES = 16 * 1024 * 1024, /* of patterns asked at a time */
    BATCH = 256,                    /* patterns lifted at a time */
};

/* Patterns as queries, some at a time: `ask` gets a job of theirs without results, begun at themselves, their positions
 * and own scores, and the number of the first. `which` (n) says whose, NULL: 0 .. n-1. */
typedef sh_status ask_pattern(sh_job *job, const int64_t *own, const double *score, int64_t first, void *pointer);

static sh_status ask_patterns(sh_context *context, const sh_memory *m, const int64_t *which, int64_t n,
                              ask_pattern *ask, void *pointer) {
    const sh_kernels *k = m->k;
    if (n == 0) return SH_OK;
    int64_t d = m->patterns.d, size = (int64_t)k->size;
    int64_t count = sh_min(n, sh_max(SH_BLOCK, ASKED_BYTES / (d * size)));
    char *rows = sh_allocate(context, count, (size_t)(d * size)), *buffer = sh_allocate(context, d, (size_t)size);
    int64_t *own = sh_allocate(context, count, sizeof *own);
    double *score = sh_allocate(context, count, sizeof *score);
    int32_t *self = sh_allocate(context, count, SH_CARRIED * sizeof *self);
    double one = 1;
    sh_status status = SH_OK;
    if (!rows || !buffer || !own || !score || !self) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    atomic_fetch_add(&m->shelf->asked, n); /* so that the index is built at once, if it will pay */
    for (int64_t first = 0; status == SH_OK && first < n; first += count) {
        sh_job job = {.context = context,
                      .memory = m,
                      .k = k,
                      .model = {SH_SPARSEMAX, 2},
                      .map = &sh_map_sparsemax,
                      .carried = self};
        job.queries = (sh_queries){.data = rows, .n = sh_min(count, n - first), .beta = &one};
        for (int64_t i = 0; i < job.queries.n; i++) {
            char *row = rows + i * d * size;
            own[i] = which ? which[first + i] : first + i;
            memcpy(row, sh_row_at(k, &m->patterns, own[i], buffer), (size_t)(d * size));
            if (m->scale) k->scale(row, m->scale[own[i]], d);
            sh_candidate c = {.position = own[i]};
            sh_rescore(&job, i, &c, 1, buffer);
            score[i] = c.score;
            for (int l = 0; l < SH_CARRIED; l++) self[i * SH_CARRIED + l] = l ? -1 : (int32_t)sh_min(own[i], INT32_MAX);
        }
        status = ask(&job, own, score, first, pointer);
        if (status != SH_OK && sh_is_of_query(context)) sh_fail(context, status, "patterns", own[context->row]);
    }
    sh_release(context, rows);
    sh_release(context, buffer);
    sh_release(context, own);
    sh_release(context, score);
    sh_release(context, self);
    return status;
}

static sh_status lead(sh_job *job, const int64_t *own, const double *score, int64_t first, void *margins) {
    int64_t n = job->queries.n;
    sh_candidate *best = sh_allocate(job->context, n, 2 * sizeof *best);
    if (!best) return sh_fail(job->context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; i < 2 * n; i++) best[i] = (sh_candidate){-INFINITY, -1};
    job->nearest = 2;
    job->ranked = 1;
    job->nearest_out = best;
    sh_status status = sh_run(job);
    for (int64_t i = 0; status == SH_OK && i < n; i++)
        ((double *)margins)[first + i] = score[i] - best[2 * i + (best[2 * i].position == own[i])].score;
    sh_release(job->context, best);
    return status;
}

sh_status sh_margins(sh_context *context, const sh_memory *memory, double *margins) {
    SH_REQUIRE(context, memory, "memory");
    SH_REQUIRE(context, margins, "margins");
    return ask_patterns(context, memory, NULL, memory->patterns.n, lead, margins);
}

typedef struct {
    const sh_memory *memory;
    double *lift;
} lifting;

static sh_status lift_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    lifting *l = pointer;
    const sh_memory *m = l->memory;
    int64_t d = m->patterns.d, last = sh_min((item + 1) * BATCH, m->patterns.n);
    for (int64_t i = item * BATCH; i < last; i++) {
        const void *row = sh_row_at(m->k, &m->patterns, i, scratch);
        double square = m->k->dot(row, row, d);
        if (m->scale) square = square * m->scale[i] * m->scale[i];
        if (square - square != 0) return sh_fail(context, SH_NOT_FINITE, "patterns", i);
        l->lift[i] = square + (m->bias ? 2 * m->bias[i] : 0);
    }
    return SH_OK;
}

typedef struct {
    sh_balls balls;
    double *radius;
    int64_t *rival;
} asking;

static sh_status measure(sh_job *job, const int64_t *own, const double *score, int64_t first, void *pointer) {
    asking *a = pointer;
    int64_t n = job->queries.n;
    sh_balls balls = a->balls;
    balls.own = own;
    balls.score = score;
    balls.need += first;
    job->balls = &balls;
    job->rival = sh_allocate(job->context, n, sizeof *job->rival);
    if (!job->rival) return sh_fail(job->context, SH_NO_MEMORY, NULL, 0);
    sh_status status = sh_run(job);
    for (int64_t i = 0; status == SH_OK && i < n; i++) {
        a->radius[first + i] = job->rival[i].score;
        a->rival[first + i] = job->rival[i].position;
    }
    sh_release(job->context, job->rival);
    return status;
}

sh_status sh_radii(sh_context *context, const sh_memory *m, int64_t n, const int64_t *which, const double *need,
                   double slack, double *radius, int64_t *rival) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context, sh_can_be(n, sizeof *which), "n");
    if (n == 0) return SH_OK;
    SH_REQUIRE(context, which, "which");
    SH_REQUIRE(context, need, "need");
    SH_REQUIRE(context, radius, "radius");
    SH_REQUIRE(context, rival, "rival");
    int64_t count = m->patterns.n;
    if (!(slack >= 0) || isinf(slack)) return sh_fail(context, SH_BAD_ARGUMENT, "slack", 0);
    for (int64_t i = 0; i < n; i++) {
        if (which[i] < 0 || which[i] >= count) return sh_fail(context, SH_BAD_ARGUMENT, "which", i);
        if (need[i] - need[i] != 0) return sh_fail(context, SH_NOT_FINITE, "need", i);
    }
    lifting l = {m, sh_allocate(context, count, sizeof(double))};
    if (!l.lift) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    size_t row = (size_t)m->patterns.d * m->k->size;
    sh_status status = sh_for_each(context, sh_ceil_div(count, BATCH), row, lift_item, &l);
    asking a = {.balls = {.need = need, .lift = l.lift, .slack = slack}, .radius = radius, .rival = rival};
    a.balls.least = INFINITY;
    a.balls.most = -INFINITY;
    for (int64_t i = 0; status == SH_OK && i < count; i++) {
        a.balls.least = fmin(a.balls.least, l.lift[i]);
        a.balls.most = fmax(a.balls.most, l.lift[i]);
    }
    if (status == SH_OK) status = ask_patterns(context, m, which, n, measure, &a);
    sh_release(context, l.lift);
    return status;
}

sh_status sh_nearest(sh_context *context, const sh_memory *memory, sh_queries queries, int64_t count, int64_t *position,
                     double *score) {
    if (count < 1 || count > SH_NEAREST) return sh_fail(context, SH_BAD_ARGUMENT, "count", 0);
    static const double any = 1;
    queries.beta = &any; /* the order of scores is the same for all */
    queries.beta_stride = 0;
    queries.structure = NULL;
    sh_status status = sh_check_call(context, memory, &queries);
    if (status != SH_OK || queries.n == 0) return status;
    SH_REQUIRE(context, position, "position");
    SH_REQUIRE(context, score, "score");
    sh_candidate *best = sh_allocate(context, queries.n, (size_t)count * sizeof *best);
    if (!best) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    int64_t n = queries.n * count;
    for (int64_t i = 0; i < n; i++) best[i] = (sh_candidate){-INFINITY, -1};
    sh_job job = {.context = context, .memory = memory, .model = {SH_SPARSEMAX, 2}, .queries = queries};
    job.nearest = count;
    job.ranked = 1;
    job.nearest_out = best;
    status = sh_run(&job);
    for (int64_t i = 0; status == SH_OK && i < n; i++) {
        position[i] = best[i].position;
        score[i] = best[i].score;
    }
    sh_release(context, best);
    return status;
}
