/* run.c: one call, from the public function to the job and back: update, energy, associate, accumulate; and the
 * two halves of a merge, solve and mix. */
#include "retrieval/job.h"
#include <math.h>
#include <string.h>

/* Queries are checked before anything is written, and their slack is taken (scan.c, note 1). */
enum { CHECKED = 256 };
static sh_status check_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch;
    sh_job *job = pointer;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    double unit = (1.05 * (double)m->patterns.d + 16) * k->unit, share = unit / (1 - unit);
    if (!(unit < 0.5)) share = INFINITY;
    int64_t first = item * CHECKED, last = sh_min(first + CHECKED, job->queries.n), d = m->patterns.d;
    for (int64_t i = first; i < last; i++) {
        const void *x = sh_query(job, i);
        double beta = sh_beta(job, i), largest = k->max_abs(x, d);
        if (largest - largest != 0) return sh_fail(context, SH_NOT_FINITE, "queries", i);
        if (!(beta > 0) || isinf(beta)) return sh_fail(context, SH_BAD_ARGUMENT, "beta", i);
        double squares = k->dot(x, x, d), length = sqrt(squares);
        if (!(squares >= 0x1p-900) || isinf(squares)) length = largest * sqrt((double)d); /* never too small */
        double half = job->shift ? squares / 2 : 0, norm = m->max_norm, bias = m->max_bias;
        if (!(length * m->max_raw_norm + m->max_bias + half < k->largest))
            return sh_fail(context, SH_OVERFLOW, "queries", i);
        if (job->differences) {
            void *difference = sh_at(k, job->differences, i * d);
            memcpy(difference, x, (size_t)d * k->size);
            k->add(difference, -1, job->centre, d);
            half = k->distance2(x, job->centre, d) / 2;
            length = sqrt(2 * half);
            norm = m->max_spread;
            bias = norm * norm / 2;
        }
        double underflow = 2 * (double)(d + 8) * k->smallest * m->max_scale;
        job->slack[i] = share * (length * norm + bias + half) + underflow;
        if (job->shift) job->shift[i] = -half;
    }
    return SH_OK;
}

/* Rows of what may not be finite any more; `argument` is their name. */
typedef struct {
    const sh_kernels *k;
    sh_rows rows;
    const char *argument;
} looking;

static sh_status look_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    const looking *l = pointer;
    for (int64_t i = item * CHECKED; i < sh_min((item + 1) * CHECKED, l->rows.n); i++) {
        double largest = l->k->max_abs(sh_row_at(l->k, &l->rows, i, scratch), l->rows.d);
        if (largest - largest != 0) return sh_fail(context, SH_NOT_FINITE, l->argument, i);
    }
    return SH_OK;
}

/* Finds what holds the NaN or infinity that a score or a state of query `row` has shown. Where nothing does, rows were
 * replaced by larger ones, whose scores overflow; a state may have overflowed by itself. */
static sh_status look_for_odd(sh_job *job, int odd, int64_t row) {
    const sh_memory *m = job->memory;
    int64_t n = job->queries.n, stride = m->patterns.d * (int64_t)m->k->size;
    looking all[] = {{m->k, {.data = job->queries.data, .n = n, .d = m->patterns.d, .stride = stride}, "queries"},
                     {m->k, m->patterns, "patterns"},
                     {m->k, m->values, "values"}};
    all[0].rows.type = m->type;
    for (int i = 0; i < 2 + (m->own_values && !m->values.unchecked); i++) {
        size_t bytes = (size_t)all[i].rows.d * m->k->size;
        sh_status status = sh_for_each(job->context, sh_ceil_div(all[i].rows.n, CHECKED), bytes, look_item, &all[i]);
        if (status != SH_OK) return status;
    }
    return odd & SH_ODD_SCORE ? sh_fail(job->context, SH_OVERFLOW, "queries", row) : SH_OK;
}

void sh_set_grid(sh_job *job, int64_t n) {
    job->blocks = sh_ceil_div(n, SH_BLOCK);
    job->block_rows = sh_ceil_div(n, job->blocks);
    job->blocks = sh_ceil_div(n, job->block_rows);
    job->tiles = sh_ceil_div(job->memory->patterns.n, SH_TILE);
    job->ranges = sh_min(job->tiles, sh_ceil_div(SH_ITEMS, job->blocks));
}

sh_status sh_check_call(sh_context *context, const sh_memory *memory, const sh_queries *queries) {
    SH_REQUIRE(context, (unsigned)context->path <= SH_PATH_COLUMNS, "path");
    SH_REQUIRE(context, memory, "memory");
    const int64_t widest = sh_max(sh_max(memory->patterns.d, memory->values.d), SH_CARRIED);
    SH_REQUIRE(context, sh_can_be(queries->n, widest * (int64_t)sizeof(double)), "queries");
    if (queries->n == 0) return SH_OK;
    SH_REQUIRE(context, queries->data, "queries");
    SH_REQUIRE(context, queries->beta, "beta");
    SH_REQUIRE(context, queries->beta_stride == 0 || queries->beta_stride == 1, "beta_stride");
    return SH_OK;
}

sh_status sh_run(sh_job *job) {
    sh_context *context = job->context;
    const sh_memory *m = job->memory;
    int64_t n = job->queries.n;
    sh_status status = sh_check_call(context, m, &job->queries);
    if (status != SH_OK) return status;
    _Atomic int odd = 0;
    job->odd = &odd;
    const sh_kernels *k = job->k = m->k;
    job->map = sh_map_of(&job->model);
    if (!job->map) return sh_fail(context, SH_BAD_ARGUMENT, "separation", 0);
    if (job->energy && !job->map->has_energy) return sh_fail(context, SH_UNDEFINED, "separation", 0);
    if (n == 0) return SH_OK;
    if (!job->mixed) job->mixed = &m->values;
    int own_rows = job->mixed == &m->patterns || !m->own_values;
    job->mixed_scale = own_rows ? m->scale : NULL;
    job->mixed_tile_scale = own_rows ? m->tile_scale : NULL;

    const sh_structure *pairs = job->queries.structure;
    if (pairs && pairs->pairs == SH_PAIRS_TOP) {
        if (pairs->k < 1 || pairs->k > m->patterns.n) return sh_fail(context, SH_BAD_ARGUMENT, "k", 0);
        job->nearest = pairs->k < m->patterns.n ? pairs->k : 0;
        pairs = NULL;
    }

    sh_set_grid(job, n);
    job->slack = sh_allocate(context, n, sizeof(double));
    void *biases = NULL;
    int by_distance = sh_by_distance(job), differ = by_distance && m->centred;
    job->tile_bias = m->tile_bias;
    job->centre = differ ? m->centre : NULL;
    job->mixed_centre = own_rows ? job->centre : NULL;
    if (by_distance) job->shift = sh_allocate(context, n, sizeof(double));
    if (differ) job->differences = sh_allocate(context, n * m->patterns.d, k->size);
    if (m->centred && !by_distance) { /* the polynomial */
        job->tile_bias = biases = sh_allocate(context, m->patterns.n, k->size);
        if (biases) k->from_double(biases, m->bias, m->patterns.n);
    }
    job->wide = sh_allocate(context, n, sizeof(int64_t));
    for (int64_t i = 0; job->carry && i < n * SH_CARRIED; i++)
        job->carry[i] = -1; /* whoever finishes may know better */
    if (!job->slack || !job->wide || by_distance != !!job->shift || differ != !!job->differences ||
        !m->tile_bias != !job->tile_bias)
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    if (status == SH_OK) status = sh_for_each(context, sh_ceil_div(n, CHECKED), 0, check_item, job);
    int checked = status == SH_OK;
    if (status == SH_OK && pairs && pairs->pairs != SH_PAIRS_ALL) {
        status = sh_look_at_pairs(job);
    } else if (status == SH_OK && job->nearest <= SH_NEAREST && (job->map->cutoff || job->nearest)) {
        status = sh_screen(job);
        if (status == SH_OK) status = sh_scan(job);
        if (status == SH_OK) status = sh_wide(job);
    } else if (status == SH_OK && (job->lists || job->nearest)) { /* lists of the scan do not hold so many */
        for (int64_t i = 0; i < n; i++) job->wide[i] = i;
        atomic_store(&job->wide_count, n);
        status = sh_wide(job);
    } else if (status == SH_OK) {
        int64_t coarse = 0;
        for (int64_t i = 0; i < n; i++)
            if (sh_is_coarse(job, i)) job->wide[coarse++] = i;
        atomic_store(&job->wide_count, coarse);
        if (coarse < n) status = sh_stream(job);
        if (status == SH_OK) status = sh_wide(job); /* in place of what the stream gave these */
    }
    if (checked && status == SH_NOT_FINITE)
        status = look_for_odd(job, SH_ODD_SCORE, context->row);
    else if (status == SH_OK && atomic_load(&odd))
        status = look_for_odd(job, atomic_load(&odd), 0);
    job->odd = NULL;
    sh_release(context, job->slack);
    sh_release(context, job->shift);
    sh_release(context, job->differences);
    sh_release(context, biases);
    job->shift = NULL;
    job->differences = NULL;
    sh_release(context, job->left);
    sh_release(context, job->wide);
    return status;
}

sh_status sh_update(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries, void *states,
                    int64_t *support_size) {
    sh_job job = {.context = context, .memory = memory, .model = model, .queries = queries};
    SH_REQUIRE(context, states || queries.n <= 0, "states");
    job.states = states;
    job.support_size = support_size;
    return sh_run(&job);
}

sh_status sh_energy(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries, double *energy) {
    sh_job job = {.context = context, .memory = memory, .model = model, .queries = queries};
    SH_REQUIRE(context, energy || queries.n <= 0, "energy");
    job.energy = energy;
    return sh_run(&job);
}

sh_status sh_accumulate(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                        sh_partial partial) {
    const sh_map *map = sh_map_of(&model);
    if (!map || map->cutoff) return sh_fail(context, SH_BAD_ARGUMENT, "separation", 0);
    SH_REQUIRE(context, (partial.scale && partial.sum) || queries.n <= 0, "partial");
    queries.structure = NULL;
    sh_job job = {.context = context, .memory = memory, .model = model, .queries = queries, .partial = &partial};
    return sh_run(&job);
}

sh_status sh_survey(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries, int64_t *counts) {
    const sh_map *map = sh_map_of(&model);
    if (!map || !map->cutoff) return sh_fail(context, SH_BAD_ARGUMENT, "separation", 0);
    sh_status status = sh_check_call(context, memory, &queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, counts || queries.n == 0, "counts");
    for (int64_t i = 0; i < 4 * queries.n; i++) counts[i] = -1;
    queries.structure = NULL;
    sh_job job = {.context = context, .memory = memory, .model = model, .queries = queries};
    job.counts = (int64_t (*)[4])counts;
    return sh_run(&job);
}

void sh_entries_free(sh_context *context, sh_entries *entries) {
    if (!entries) return;
    sh_release(context, entries->start);
    sh_release(context, entries->position);
    sh_release(context, entries->score);
    sh_release(context, entries->weight);
    *entries = (sh_entries){0};
}

static sh_status join_lists(sh_context *context, const sh_entry_list *lists, int64_t n, sh_entries *entries) {
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++) total += lists[i].n;
    *entries = (sh_entries){.n = n};
    entries->start = sh_allocate(context, n + 1, sizeof(int64_t));
    entries->position = sh_allocate(context, sh_max(total, 1), sizeof(int64_t));
    entries->score = sh_allocate(context, sh_max(total, 1), sizeof(double));
    entries->weight = sh_allocate(context, sh_max(total, 1), sizeof(double));
    if (!entries->start || !entries->position || !entries->score || !entries->weight) {
        sh_entries_free(context, entries);
        return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    }
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        entries->start[i] = at;
        for (int64_t j = 0; j < lists[i].n; j++, at++) {
            entries->position[at] = lists[i].entry[j].position;
            entries->score[at] = lists[i].entry[j].score;
            entries->weight[at] = lists[i].entry[j].weight;
        }
    }
    entries->start[n] = at;
    return SH_OK;
}

sh_status sh_associate(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries, int64_t top,
                       double min_weight, sh_entries *entries) {
    const sh_map *map = sh_map_of(&model);
    if (!map) return sh_fail(context, SH_BAD_ARGUMENT, "separation", 0);
    sh_status status = sh_check_call(context, memory, &queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, entries, "entries");
    if (top < 0 || (!map->cutoff && top == 0 && !(min_weight > 0) && !queries.structure))
        return sh_fail(context, SH_BAD_ARGUMENT, "top", 0);
    if (!(min_weight >= 0)) return sh_fail(context, SH_BAD_ARGUMENT, "min_weight", 0);
    sh_job job = {.context = context, .memory = memory, .model = model, .queries = queries, .top = top};
    job.min_weight = min_weight;
    job.lists = sh_allocate(context, sh_max(queries.n, 1), sizeof *job.lists);
    if (!job.lists) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    memset(job.lists, 0, (size_t)sh_max(queries.n, 1) * sizeof *job.lists);
    status = sh_run(&job);
    if (status == SH_OK) status = join_lists(context, job.lists, queries.n, entries);
    for (int64_t i = 0; i < queries.n; i++) sh_release(context, job.lists[i].entry);
    sh_release(context, job.lists);
    return status;
}

/* Tells whether n lists lie one after the other: start (n + 1) goes from 0 up. */
static int are_lists(int64_t n, const int64_t *start) {
    if (!start || start[0] != 0) return 0;
    for (int64_t i = 0; i < n; i++)
        if (start[i] > start[i + 1]) return 0;
    return 1;
}

sh_status sh_solve(sh_context *context, sh_model model, sh_type type, int64_t n, const double *beta,
                   int64_t beta_stride, const int64_t *start, const double *score, double *weight) {
    const sh_map *map = sh_map_of(&model);
    if (!map || !map->cutoff) return sh_fail(context, SH_BAD_ARGUMENT, "separation", 0);
    SH_REQUIRE(context, type == SH_FLOAT32 || type == SH_FLOAT64, "type");
    SH_REQUIRE(context, sh_can_be(n, sizeof *start), "n");
    if (n == 0) return SH_OK;
    SH_REQUIRE(context, beta, "beta");
    SH_REQUIRE(context, beta_stride == 0 || beta_stride == 1, "beta_stride");
    SH_REQUIRE(context, are_lists(n, start), "start");
    SH_REQUIRE(context, score || start[n] == 0, "score");
    SH_REQUIRE(context, weight || start[n] == 0, "weight");
    int64_t longest = 1;
    for (int64_t i = 0; i < n; i++) longest = sh_max(longest, start[i + 1] - start[i]);
    double *z = sh_allocate(context, longest, sizeof(double));
    if (!z) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; i < n; i++) {
        int64_t count = start[i + 1] - start[i];
        const double *s = score + start[i];
        double best = -INFINITY, inverse = beta[i * beta_stride], sum = 0;
        if (!(inverse > 0) || isinf(inverse)) {
            sh_release(context, z);
            return sh_fail(context, SH_BAD_ARGUMENT, "beta", i);
        }
        if (count == 0) continue;
        for (int64_t j = 0; j < count; j++) {
            best = fmax(best, s[j]);
            sum += s[j] - s[j];
        }
        if (sum != 0) {
            sh_release(context, z);
            return sh_fail(context, SH_NOT_FINITE, "score", i);
        }
        for (int64_t j = 0; j < count; j++) z[j] = inverse * (s[j] - best);
        sh_threshold t;
        map->threshold(model.parameter, count, z, &t);
        for (int64_t j = 0; j < count; j++) z[j] = inverse * (s[j] - best);
        map->weights(&t, count, z);
        for (int64_t j = 0; j < count; j++) weight[start[i] + j] = type == SH_FLOAT32 ? (double)(float)z[j] : z[j];
    }
    sh_release(context, z);
    return SH_OK;
}

/* Fails with SH_NOT_FINITE if rows of a list hold NaN or infinity, and says which. */
static sh_status look_at_rows(sh_context *context, const sh_memory *memory, int64_t n, const int64_t *position,
                              void *buffer) {
    for (int64_t i = 0; i < n; i++) {
        double largest =
            memory->k->max_abs(sh_row_at(memory->k, &memory->values, position[i], buffer), memory->values.d);
        if (largest - largest != 0)
            return sh_fail(context, SH_NOT_FINITE, memory->own_values ? "values" : "patterns", position[i]);
    }
    return SH_OK;
}

sh_status sh_mix(sh_context *context, const sh_memory *memory, int64_t n, const int64_t *start, const int64_t *position,
                 const double *weight, void *states) {
    SH_REQUIRE(context, memory, "memory");
    SH_REQUIRE(context, sh_can_be(n, sh_max(memory->values.d, 1) * (int64_t)sizeof(double)), "n");
    if (n == 0) return SH_OK;
    SH_REQUIRE(context, are_lists(n, start), "start");
    SH_REQUIRE(context, position || start[n] == 0, "positions");
    SH_REQUIRE(context, weight || start[n] == 0, "weight");
    SH_REQUIRE(context, states, "states");
    const sh_kernels *k = memory->k;
    int64_t width = memory->values.d;
    for (int64_t i = 0; i < start[n]; i++)
        if (position[i] < 0 || position[i] >= memory->patterns.n)
            return sh_fail(context, SH_BAD_ARGUMENT, "positions", i);
    double *sum = sh_allocate(context, width, sizeof(double));
    void *buffer = sh_allocate(context, width, k->size);
    sh_status status = SH_OK;
    if (!sum || !buffer) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; status == SH_OK && i < n; i++) {
        for (int64_t j = 0; j < width; j++) sum[j] = -0.0; /* as in rescore.c */
        for (int64_t e = start[i]; e < start[i + 1]; e++) {
            double w = weight[e];
            if (memory->scale && !memory->own_values) w *= memory->scale[position[e]];
            k->accumulate(sum, w, sh_row_at(k, &memory->values, position[e], buffer), width);
        }
        if (start[i] == start[i + 1]) memset(sum, 0, (size_t)width * sizeof(double));
        void *state = sh_at(k, states, i * width);
        k->from_double(state, sum, width);
        double largest = k->max_abs(state, width);
        if (largest - largest != 0 && !memory->values.unchecked)
            status = look_at_rows(context, memory, start[i + 1] - start[i], position + start[i], buffer);
    }
    sh_release(context, sum);
    sh_release(context, buffer);
    return status;
}
