/* margins.c: queries for the best scores; patterns as queries: how far each stands out from the others (margins), and
 * the radius of a ball around it that is retrieved as it (radii.c). */
#include "retrieval/job.h"

enum {
    QUERY_BYTES = 16 * 1024 * 1024, /* of patterns copied as queries at a time */
    CHUNK = 256,                    /* patterns a work item */
};

/* Completes a job whose queries are some patterns, each with itself as hint, runs it and reads its outputs. `self` (n)
 * and `self_score` (n) are their positions and scores with themselves, `first` how many patterns earlier jobs have had. */
typedef sh_status run_patterns(sh_job *job, const int64_t *self, const double *self_score, int64_t first,
                               void *results);

/* Runs jobs for n patterns, as many at a time as fit QUERY_BYTES: those of the positions `which`, or 0 .. n-1 if it is NULL. */
static sh_status for_patterns(sh_context *context, const sh_memory *m, const int64_t *which, int64_t n,
                              run_patterns *run, void *results) {
    const sh_kernels *k = m->k;
    if (n == 0) return SH_OK;
    int64_t d = m->patterns.d, size = (int64_t)k->size;
    int64_t count = sh_progress_step(context, sh_min(n, sh_max(SH_BLOCK, QUERY_BYTES / (d * size))), n, SH_BLOCK);
    char *rows = sh_allocate(context, count, (size_t)(d * size)), *widened_row = sh_allocate(context, d, (size_t)size);
    int64_t *self = sh_allocate(context, count, sizeof *self);
    double *self_score = sh_allocate(context, count, sizeof *self_score);
    int32_t *hints = sh_allocate(context, count, SH_HINTS * sizeof *hints);
    double beta = 1;
    sh_status status = SH_OK;
    if (!rows || !widened_row || !self || !self_score || !hints) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    atomic_fetch_add(&m->indexes->queries_asked, n); /* so that the index is built at once, if it will pay */
    sh_context inner = *context;
    inner.progress = NULL; /* which that of an index built on the way is not */
    for (int64_t first = 0; status == SH_OK && first < n; first += count) {
        sh_job job = {.context = &inner,
                      .memory = m,
                      .k = k,
                      .model = {SH_SPARSEMAX, 2},
                      .map = &sh_map_sparsemax,
                      .hints = hints};
        job.queries = (sh_queries){.data = rows, .n = sh_min(count, n - first), .beta = &beta};
        for (int64_t i = 0; i < job.queries.n; i++) {
            char *row = rows + i * d * size;
            self[i] = which ? which[first + i] : first + i;
            sh_candidate c = {.position = sh_row_of(m, self[i])};
            memcpy(row, sh_row_at(k, &m->patterns, c.position, widened_row), (size_t)(d * size));
            if (m->scale) k->multiply_by(row, m->scale[c.position], d);
            sh_score_canonically(&job, i, &c, 1, widened_row);
            self_score[i] = c.score;
            for (int l = 0; l < SH_HINTS; l++) hints[i * SH_HINTS + l] = l ? -1 : (int32_t)sh_min(self[i], INT32_MAX);
        }
        status = run(&job, self, self_score, first, results);
        if (status != SH_OK && sh_is_query_failure(&inner))
            sh_fail(context, status, "patterns", self[inner.row]);
        else if (status != SH_OK)
            sh_fail(context, status, inner.argument, inner.row);
        else
            status = sh_progress(context, first + job.queries.n, n);
    }
    sh_release(context, rows);
    sh_release(context, widened_row);
    sh_release(context, self);
    sh_release(context, self_score);
    sh_release(context, hints);
    return status;
}

/* Finds the `count` best patterns of each query of a job, from the best down, in *best (n, count), which the caller
 * releases; position -1 and score -INFINITY where there are fewer. */
static sh_status find_nearest(sh_job *job, int64_t count, sh_candidate **best) {
    *best = sh_allocate(job->context, job->queries.n, (size_t)count * sizeof **best);
    if (!*best) return sh_fail(job->context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; i < job->queries.n * count; i++) (*best)[i] = (sh_candidate){-INFINITY, -1};
    job->goal = SH_GOAL_NEAREST;
    job->count = count;
    job->out.nearest = *best;
    return sh_run(job);
}

/* Computes margins (M) from the two best of each query, one of which at least is another pattern. */
static sh_status find_margins(sh_job *job, const int64_t *self, const double *self_score, int64_t first,
                              void *margins) {
    sh_candidate *best;
    sh_status status = find_nearest(job, 2, &best);
    for (int64_t i = 0; status == SH_OK && i < job->queries.n; i++)
        ((double *)margins)[first + i] = self_score[i] - best[2 * i + (best[2 * i].position == self[i])].score;
    sh_release(job->context, best);
    return status;
}

sh_status sh_margins(sh_context *context, const sh_memory *memory, double *margins) {
    SH_REQUIRE(context, memory, "memory");
    SH_REQUIRE(context, margins, "margins");
    return for_patterns(context, memory, /* all */ NULL, sh_count(memory), find_margins, margins);
}

typedef struct {
    const sh_memory *memory;
    double *offset; /* (M) */
} norm_offsets;

/* Computes the norm offsets (radii.c) of a chunk of patterns. */
static sh_status compute_offsets(void *pointer, int64_t item, void *scratch, sh_context *context) {
    const norm_offsets *o = pointer;
    const sh_memory *m = o->memory;
    int64_t d = m->patterns.d, last = sh_min((item + 1) * CHUNK, sh_count(m));
    for (int64_t i = item * CHUNK; i < last; i++) {
        const int64_t at = sh_row_of(m, i);
        const void *row = sh_row_at(m->k, &m->patterns, at, scratch);
        double norm2 = m->k->dot(row, row, d);
        if (m->scale) norm2 = norm2 * m->scale[at] * m->scale[at];
        if (!isfinite(norm2)) return sh_fail(context, SH_NOT_FINITE, "patterns", i);
        o->offset[i] = norm2 + (m->bias ? 2 * m->bias[at] : 0);
    }
    return SH_OK;
}

typedef struct {
    sh_radius_search search; /* of all patterns wanted */
    double *radius;
    int64_t *rival;
} radii;

/* Finds the rivals of some patterns and writes their radii. */
static sh_status find_radii(sh_job *job, const int64_t *self, const double *self_score, int64_t first, void *results) {
    const radii *r = results;
    int64_t n = job->queries.n;
    sh_radius_search search = r->search;
    search.self = self;
    search.self_score = self_score;
    search.required_gap += first;
    job->goal = SH_GOAL_RADIUS;
    job->radius_search = &search;
    job->out.rival = sh_allocate(job->context, n, sizeof *job->out.rival);
    if (!job->out.rival) return sh_fail(job->context, SH_NO_MEMORY, NULL, 0);
    sh_status status = sh_run(job);
    for (int64_t i = 0; status == SH_OK && i < n; i++) {
        r->radius[first + i] = job->out.rival[i].score;
        r->rival[first + i] = job->out.rival[i].position;
    }
    sh_release(job->context, job->out.rival);
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
    int64_t patterns = sh_count(m);
    if (!(slack >= 0) || isinf(slack)) return sh_fail(context, SH_BAD_ARGUMENT, "slack", 0);
    for (int64_t i = 0; i < n; i++) {
        if (which[i] < 0 || which[i] >= patterns) return sh_fail(context, SH_BAD_ARGUMENT, "which", i);
        if (!isfinite(need[i])) return sh_fail(context, SH_NOT_FINITE, "need", i);
    }
    norm_offsets o = {m, sh_allocate(context, patterns, sizeof *o.offset)};
    if (!o.offset) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    size_t row_bytes = (size_t)m->patterns.d * m->k->size;
    sh_status status = sh_for_each(context, sh_ceil_div(patterns, CHUNK), row_bytes, compute_offsets, &o);
    radii r = {
        .search = {.required_gap = need, .norm_offset = o.offset, .slack = slack}, .radius = radius, .rival = rival};
    r.search.min_offset = INFINITY;
    r.search.max_offset = -INFINITY;
    for (int64_t i = 0; status == SH_OK && i < patterns; i++) {
        r.search.min_offset = fmin(r.search.min_offset, o.offset[i]);
        r.search.max_offset = fmax(r.search.max_offset, o.offset[i]);
    }
    if (status == SH_OK) status = for_patterns(context, m, which, n, find_radii, &r);
    sh_release(context, o.offset);
    return status;
}

sh_status sh_nearest(sh_context *context, const sh_memory *memory, sh_queries queries, int64_t count, int64_t *position,
                     double *score) {
    if (count < 1 || count > SH_NEAREST) return sh_fail(context, SH_BAD_ARGUMENT, "count", 0);
    static const double one = 1;
    queries.beta = &one; /* the order of scores is the same for all */
    queries.beta_stride = 0;
    queries.structure = NULL;
    sh_status status = sh_check_call(context, memory, &queries);
    if (status != SH_OK || queries.n == 0) return status;
    SH_REQUIRE(context, position, "position");
    SH_REQUIRE(context, score, "score");
    sh_job job = {.context = context, .memory = memory, .model = {SH_SPARSEMAX, 2}, .queries = queries};
    sh_candidate *best;
    status = find_nearest(&job, count, &best);
    for (int64_t i = 0; status == SH_OK && i < queries.n * count; i++) {
        position[i] = best[i].position;
        score[i] = best[i].score;
    }
    sh_release(context, best);
    return status;
}
