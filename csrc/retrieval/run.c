/* run.c: one call, from the public function to the job and back: update, energy, associate, candidates, accumulate; and
 * the two halves of a merge, solve and mix. */
#include "retrieval/job.h"
#include "structure/structure.h"

enum { CHUNK = 256 }; /* rows a work item checks */

/* Returns the relative error of a score by a product (scan.c, note 1). */
static double relative_error(const sh_memory *m) {
    double roundings = (1.05 * (double)m->patterns.d + 16) * m->k->unit;
    return roundings < 0.5 ? roundings / (1 - roundings) : INFINITY;
}

/* Checks a chunk of queries before anything is written, and sets their slack (scan.c, note 1), shift and difference. */
static sh_status check_queries(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch;
    sh_job *job = pointer;
    sh_plan *plan = &job->plan;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    const double relative = plan->relative;
    int64_t first = item * CHUNK, last = sh_min(first + CHUNK, job->queries.n), d = m->patterns.d;
    for (int64_t i = first; i < last; i++) {
        const void *x = sh_query(job, i);
        double beta = sh_beta(job, i), largest = k->max_abs(x, d);
        if (!isfinite(largest)) return sh_fail(context, SH_NOT_FINITE, "queries", i);
        if (!(beta > 0) || isinf(beta)) return sh_fail(context, SH_BAD_ARGUMENT, "beta", i);
        double squares = k->dot(x, x, d), length = sqrt(squares);
        if (!(squares >= 0x1p-900) || isinf(squares)) length = largest * sqrt((double)d); /* never too small */
        double half = plan->shift ? squares / 2 : 0, norm = m->max_norm, bias = m->max_bias;
        if (!(length * m->max_raw_norm + m->max_bias + half < k->largest))
            return sh_fail(context, SH_OVERFLOW, "queries", i);
        if (plan->differences) {
            void *difference = sh_at(k, plan->differences, i * d);
            memcpy(difference, x, (size_t)d * k->size);
            k->add(difference, -1, plan->centre, d);
            half = k->distance2(x, plan->centre, d) / 2;
            length = sqrt(2 * half);
            norm = m->max_spread;
            bias = norm * norm / 2;
        }
        if (plan->outliers) {
            norm = plan->outliers->limit;
            bias = m->bias ? norm * norm / 2 : 0;
            plan->length[i] = length;
        }
        double underflow = 2 * (double)(d + 8) * k->smallest * m->max_scale;
        plan->slack[i] = relative * (length * norm + bias + half) + underflow;
        if (plan->shift) plan->shift[i] = -half;
        if (plan->excluded) {
            const int64_t position = job->queries.exclude[i];
            plan->excluded[i] = position < 0 ? -1 : sh_row_of(m, position);
        }
    }
    return SH_OK;
}

/* Rows that may not be finite any more; `argument` is their name. */
typedef struct {
    const sh_kernels *k;
    const sh_rows *rows;
    const char *argument;
    int64_t n;
    const int64_t *position; /* (n) which; NULL: the first n */
    const sh_memory *memory; /* whose patterns or values they are, by position; NULL: of queries, which are the rows */
} suspects;

static sh_status check_rows(void *pointer, int64_t item, void *scratch, sh_context *context) {
    const suspects *s = pointer;
    for (int64_t i = item * CHUNK; i < sh_min((item + 1) * CHUNK, s->n); i++) {
        const int64_t position = s->position ? s->position[i] : i;
        const void *row = sh_row_at(s->k, s->rows, s->memory ? sh_row_of(s->memory, position) : position, scratch);
        if (!isfinite(s->k->max_abs(row, s->rows->d))) return sh_fail(context, SH_NOT_FINITE, s->argument, position);
    }
    return SH_OK;
}

/* Fails if some of the rows are not finite. */
static sh_status check_suspects(sh_context *context, suspects s) {
    return sh_for_each(context, sh_ceil_div(s.n, CHUNK), (size_t)s.rows->d * s.k->size, check_rows, &s);
}

/* Finds the input that holds the NaN or infinity that a score or a state of query `row` has shown. If none does, a
 * score has overflowed, as rows were replaced by larger ones; a state may overflow by itself. */
static sh_status find_not_finite(sh_job *job, int not_finite, int64_t row) {
    const sh_memory *m = job->memory;
    const int64_t n = job->queries.n, M = sh_count(m), d = m->patterns.d, stride = d * (int64_t)m->k->size;
    const sh_rows queries = {.data = job->queries.data, .n = n, .d = d, .stride = stride, .type = m->type};
    sh_status status = check_suspects(job->context, (suspects){m->k, &queries, "queries", n, NULL, NULL});
    if (status == SH_OK) status = check_suspects(job->context, (suspects){m->k, &m->patterns, "patterns", M, NULL, m});
    if (status == SH_OK && m->has_values && !m->values.unchecked)
        status = check_suspects(job->context, (suspects){m->k, &m->values, "values", M, NULL, m});
    if (status != SH_OK || !(not_finite & SH_SCORE_NOT_FINITE)) return status;
    return sh_fail(job->context, SH_OVERFLOW, "queries", row);
}

void sh_set_grid(sh_job *job, int64_t n) {
    sh_plan *plan = &job->plan;
    plan->blocks = sh_ceil_div(n, SH_BLOCK);
    plan->block_rows = sh_ceil_div(n, plan->blocks);
    plan->blocks = sh_ceil_div(n, plan->block_rows);
    plan->tiles = sh_ceil_div(job->memory->patterns.n, SH_TILE);
    plan->ranges = sh_min(plan->tiles, sh_ceil_div(SH_ITEMS, plan->blocks));
    assert(plan->block_rows <= SH_BLOCK && plan->ranges >= 1 && plan->blocks * plan->block_rows >= n);
}

sh_status sh_check_call(sh_context *context, const sh_memory *memory, const sh_queries *queries) {
    SH_REQUIRE(context, (unsigned)context->path <= SH_PATH_COLUMNS, "path");
    SH_REQUIRE(context, memory, "memory");
    const int64_t widest = sh_max(sh_max(memory->patterns.d, memory->values.d), SH_HINTS);
    SH_REQUIRE(context, sh_can_be(queries->n, widest * (int64_t)sizeof(double)), "queries");
    if (queries->n == 0) return SH_OK;
    SH_REQUIRE(context, queries->data, "queries");
    SH_REQUIRE(context, queries->beta, "beta");
    SH_REQUIRE(context, queries->beta_stride == 0 || queries->beta_stride == 1, "beta_stride");
    return sh_check_exclude(context, memory, queries);
}

/* Lays out the plan's arrays, those that the job needs; returns their size. */
static size_t lay_out(sh_job *job, void *memory) {
    const sh_memory *m = job->memory;
    const int by_distance = sh_by_distance(job);
    const int64_t n = job->queries.n;
    sh_workspace w = {memory, 0};
    sh_plan *plan = &job->plan;
    plan->slack = sh_take(&w, n, sizeof *plan->slack);
    if (plan->outliers) plan->length = sh_take(&w, n, sizeof *plan->length);
    plan->unserved = sh_take(&w, 2 * n, sizeof *plan->unserved);
    plan->overflow_queries = sh_take(&w, n, sizeof *plan->overflow_queries);
    if (job->queries.exclude) plan->excluded = sh_take(&w, n, sizeof *plan->excluded);
    if (by_distance) plan->shift = sh_take(&w, n, sizeof *plan->shift);
    if (by_distance && m->centred) plan->differences = sh_take(&w, n * m->patterns.d, m->k->size);
    plan->tile_bias = m->tile_bias;
    if (!by_distance && m->centred) { /* the polynomial: tile_bias of the memory is of differences */
        void *biases = sh_take(&w, m->patterns.n, m->k->size);
        if (biases) m->k->from_double(biases, m->bias, m->patterns.n);
        plan->tile_bias = biases;
    }
    return w.used;
}

/* Returns how many patterns may be within reach for softmax to be canonical (rescore.c, note 2). It depends on nothing but
 * their number: to score so few in double, and to mix them one by one, costs less than the products that it saves. */
static int64_t most_in_reach_of(int64_t patterns) { return sh_max(16, patterns / 128); }

/* Returns how many may be for the results of a job, of a query that sees so many patterns. */
static int64_t most_in_reach(const sh_job *job, int64_t patterns) {
    const int64_t most = job->goal == SH_GOAL_CANDIDATES ? job->most : most_in_reach_of(patterns);
    return sh_min(most, sh_count(job->memory)); /* there are no more */
}

/* Returns how many patterns of the whole the queries of a job see, if all exclude one or none does. */
static int64_t seen_by_all(const sh_job *job) {
    const int64_t *exclude = job->queries.exclude;
    return sh_whole_count(job->memory) - (exclude && exclude[0] >= 0);
}

/* Derives the plan from the inputs, but for what check_queries sets. Its arrays lie in *memory. */
static sh_status make_plan(sh_job *job, void **memory) {
    const sh_memory *m = job->memory;
    const sh_structure *s = job->queries.structure;
    sh_plan *plan = &job->plan;
    if (!job->values) job->values = &m->values;
    if (job->goal == SH_GOAL_NEAREST) plan->k_best = job->count;
    if (s && s->pairs == SH_PAIRS_TOP) {
        SH_REQUIRE(job->context, s->k >= 1 && s->k <= sh_whole_count(m), "k");
        plan->k_best = s->k < seen_by_all(job) ? s->k : 0;
    }
    SH_REQUIRE(job->context, !sh_by_place(s) || !m->whole_count, "structure"); /* places are those of the whole */
    if (job->map->reach && job->goal <= SH_GOAL_CANDIDATES && !plan->k_best && !sh_by_place(s)) {
        const int64_t n = sh_whole_count(m), others = sh_max(n - 1, 1);
        plan->reach = job->map->reach(m->k->unit, n);
        plan->most_in_reach = most_in_reach(job, n);
        plan->reach_less_one = job->map->reach(m->k->unit, others);
        plan->most_in_reach_less_one = most_in_reach(job, others);
    }
    sh_set_grid(job, job->queries.n);
    plan->relative = relative_error(m);
    if (m->outliers && m->outliers->n && job->map->shift_invariant && !sh_by_place(s)) plan->outliers = m->outliers;
    plan->centre = sh_by_distance(job) && m->centred ? m->centre : NULL;
    if (job->values == &m->patterns || !m->has_values) {
        plan->value_scale = m->scale;
        plan->tile_value_scale = m->tile_scale;
        plan->value_centre = plan->centre;
    }
    *memory = sh_allocate(job->context, 1, lay_out(job, NULL));
    if (!*memory) return sh_fail(job->context, SH_NO_MEMORY, NULL, 0);
    lay_out(job, *memory);
    return SH_OK;
}

/* Tells whether a planned job is one of indexes and the scan, which leave to overflow.c what they cannot answer. */
static int is_searched(const sh_job *job) {
    const int64_t k = job->plan.k_best;
    if (sh_by_place(job->queries.structure)) return 0;
    return k ? k <= sh_exact_support_of(sh_whole_count(job->memory))
             : job->map->cutoff || job->goal == SH_GOAL_CANDIDATES;
}

/* Plans a job, and checks its queries; the plan's arrays lie in *memory. */
static sh_status prepare(sh_job *job, void **memory) {
    sh_status status = make_plan(job, memory);
    if (status != SH_OK) return status;
    return sh_for_each(job->context, sh_ceil_div(job->queries.n, CHUNK), 0, check_queries, job);
}

/* Goes on with the packed memory in place of one with removed rows: plans the job anew, with the same list of queries for
 * overflow.c. */
static sh_status take_packed(sh_job *job, void **memory) {
    const sh_memory *m = job->memory, *packed;
    const int64_t count = atomic_load(&job->plan.overflow_count), *overflow_queries = job->plan.overflow_queries;
    sh_status status = sh_pack(job->context, m, &packed);
    if (status != SH_OK) return status;
    job->memory = packed;
    if (job->values == &m->patterns) job->values = &packed->patterns;
    if (job->values == &m->values) job->values = &packed->values;
    void *old_memory = *memory;
    *memory = NULL;
    job->plan = (sh_plan){.not_finite = job->plan.not_finite};
    status = prepare(job, memory);
    if (status == SH_OK && count) {
        memcpy(job->plan.overflow_queries, overflow_queries, (size_t)count * sizeof *overflow_queries);
        atomic_store(&job->plan.overflow_count, count);
    }
    sh_release(job->context, old_memory);
    return status;
}

/* Answers checked queries by the steps that their structure, map and goal need. */
static sh_status answer_queries(sh_job *job, void **memory) {
    sh_plan *plan = &job->plan;
    int64_t n = job->queries.n;
    const int by_lists = is_searched(job);
    sh_status status = SH_OK;
    if (sh_by_place(job->queries.structure)) return sh_answer_pairs(job);
    if ((by_lists && plan->k_best <= SH_NEAREST) || plan->reach > 0) status = sh_answer_by_index(job);
    if (status != SH_OK) return status;
    if (by_lists) {
        status = sh_scan(job);
        if (status == SH_OK && job->memory->removed && atomic_load(&plan->overflow_count))
            status = take_packed(job, memory);
    } else {
        /* lists of weights, and of more than the scan's lists hold, need whole rows of scores; so do some others */
        const int whole_rows = sh_is_list(job) || plan->k_best;
        int64_t count = 0;
        n = sh_scan_count(job);
        sh_allow_for_rounding(job);
        for (int64_t i = 0; i < n; i++)
            if (whole_rows || sh_needs_canonical_scores(job, sh_scan_query(job, i)))
                plan->overflow_queries[count++] = sh_scan_query(job, i);
        atomic_store(&plan->overflow_count, count);
        if (count < n) status = sh_stream(job); /* of all queries: those of the list are overwritten */
    }
    assert(atomic_load(&plan->overflow_count) <= n);
    return status == SH_OK ? sh_overflow(job) : status;
}

/* Runs a checked job, whose queries all have the same k best. */
static sh_status run(sh_job *job) {
    sh_context *context = job->context;
    const sh_memory *m = job->memory;
    _Atomic int not_finite = 0;
    void *memory = NULL;
    job->plan = (sh_plan){.not_finite = &not_finite};
    sh_status status = prepare(job, &memory);
    if (m->removed && (status == SH_OVERFLOW || (status == SH_OK && !is_searched(job))))
        status = take_packed(job, &memory); /* removed.c, note 2 */
    if (status == SH_OK) {
        status = answer_queries(job, &memory);
        if (status == SH_NOT_FINITE)
            status = find_not_finite(job, SH_SCORE_NOT_FINITE, context->row);
        else if (status == SH_OK && atomic_load(&not_finite))
            status = find_not_finite(job, atomic_load(&not_finite), 0);
    }
    sh_release(context, memory);
    job->memory = m;
    job->plan = (sh_plan){0};
    return status;
}

/* Returns the job of some queries of a job, [first, first + n). */
static sh_job part_of(const sh_job *job, int64_t first, int64_t n) {
    const sh_queries *q = &job->queries;
    const int64_t width = job->values ? job->values->d : job->memory->values.d;
    sh_job part = *job;
    part.queries.data = sh_at(job->k, q->data, first * job->memory->patterns.d);
    part.queries.n = n;
    part.queries.beta = q->beta + first * q->beta_stride;
    if (q->exclude) part.queries.exclude = q->exclude + first;
    if (job->hints) part.hints = job->hints + first * SH_HINTS;
    if (job->floor) part.floor = job->floor + first;
    sh_outputs *out = &part.out;
    if (out->states) out->states = sh_at(job->k, out->states, first * width);
    if (out->support_size) out->support_size += first;
    if (out->hints) out->hints += first * SH_HINTS;
    if (out->energy) out->energy += first;
    if (out->lists) out->lists += first;
    if (out->too_many) out->too_many += first;
    return part;
}

/* Runs a job of the M - 1 best of M patterns. They are all that a query sees that excludes one, and not all to the others:
 * so successive queries of one kind go together, each as in a job of their own. */
static sh_status run_by_kinds(sh_job *job) {
    const int64_t n = job->queries.n, *exclude = job->queries.exclude;
    sh_status status = SH_OK;
    for (int64_t first = 0, end; status == SH_OK && first < n; first = end) {
        for (end = first + 1; end < n && (exclude[end] < 0) == (exclude[first] < 0); end++) continue;
        sh_job part = part_of(job, first, end - first);
        status = run(&part);
        if (status != SH_OK && sh_is_query_failure(job->context)) job->context->row += first;
    }
    return status;
}

sh_status sh_run(sh_job *job) {
    sh_context *context = job->context;
    const int64_t n = job->queries.n;
    const sh_structure *s = job->queries.structure;
    sh_status status = sh_check_call(context, job->memory, &job->queries);
    if (status != SH_OK) return status;
    assert(job->goal != SH_GOAL_NEAREST || (job->count >= 1 && job->count <= SH_NEAREST));
    job->k = job->memory->k;
    job->map = sh_map_of(&job->model);
    if (!job->map) return sh_fail(context, SH_BAD_ARGUMENT, "separation", 0);
    if (job->goal == SH_GOAL_ENERGY && !job->map->has_energy) return sh_fail(context, SH_UNDEFINED, "separation", 0);
    if (n == 0) return SH_OK;
    for (int64_t i = 0; job->out.hints && i < n * SH_HINTS; i++) job->out.hints[i] = -1; /* unless it is stored */
    if (job->queries.exclude && s && s->pairs == SH_PAIRS_TOP && s->k == sh_whole_count(job->memory) - 1)
        return run_by_kinds(job);
    return run(job);
}

sh_status sh_update(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries, void *states,
                    int64_t *support_size) {
    sh_job job = {SH_GOAL_UPDATE, .context = context, .memory = memory, .model = model, .queries = queries};
    SH_REQUIRE(context, states || queries.n <= 0, "states");
    job.out.states = states;
    job.out.support_size = support_size;
    return sh_run(&job);
}

sh_status sh_energy(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries, double *energy) {
    sh_job job = {SH_GOAL_ENERGY, .context = context, .memory = memory, .model = model, .queries = queries};
    SH_REQUIRE(context, energy || queries.n <= 0, "energy");
    job.out.energy = energy;
    return sh_run(&job);
}

sh_status sh_accumulate(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                        sh_partial partial) {
    const sh_map *map = sh_map_of(&model);
    if (!map || map->cutoff) return sh_fail(context, SH_BAD_ARGUMENT, "separation", 0);
    SH_REQUIRE(context, (partial.scale && partial.sum) || queries.n <= 0, "partial");
    queries.structure = NULL;
    sh_job job = {SH_GOAL_PARTIAL, .context = context, .memory = memory, .model = model, .queries = queries};
    job.out.partial = partial;
    return sh_run(&job);
}

sh_status sh_survey(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries, int64_t *counts) {
    const sh_map *map = sh_map_of(&model);
    if (!map || !map->cutoff) return sh_fail(context, SH_BAD_ARGUMENT, "separation", 0);
    sh_status status = sh_check_call(context, memory, &queries);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, counts || queries.n == 0, "counts");
    for (int64_t i = 0; i < SH_STAGES * queries.n; i++) counts[i] = -1;
    queries.structure = NULL;
    sh_job job = {SH_GOAL_SURVEY, .context = context, .memory = memory, .model = model, .queries = queries};
    job.out.counts = (int64_t (*)[SH_STAGES])counts;
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

/* Joins the lists of all queries in newly allocated entries. */
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
    int64_t end = 0; /* of the entries so far */
    for (int64_t i = 0; i < n; i++) {
        entries->start[i] = end;
        for (int64_t j = 0; j < lists[i].n; j++, end++) {
            assert(j == 0 || lists[i].entry[j].position > entries->position[end - 1]);
            entries->position[end] = lists[i].entry[j].position;
            entries->score[end] = lists[i].entry[j].score;
            entries->weight[end] = lists[i].entry[j].weight;
        }
    }
    entries->start[n] = end;
    return SH_OK;
}

/* Runs a job whose results are lists, and joins these in newly allocated entries. */
static sh_status run_lists(sh_job *job, sh_entries *entries) {
    sh_context *context = job->context;
    const int64_t n = job->queries.n;
    job->out.lists = sh_allocate(context, sh_max(n, 1), sizeof *job->out.lists);
    if (!job->out.lists) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    memset(job->out.lists, 0, (size_t)sh_max(n, 1) * sizeof *job->out.lists);
    sh_status status = sh_run(job);
    if (status == SH_OK) status = join_lists(context, job->out.lists, n, entries);
    for (int64_t i = 0; i < n; i++) sh_release(context, job->out.lists[i].entry);
    sh_release(context, job->out.lists);
    return status;
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
    sh_job job = {SH_GOAL_WEIGHTS, .context = context, .memory = memory, .model = model, .queries = queries};
    job.top = top;
    job.min_weight = min_weight > 0 ? min_weight : -INFINITY; /* 0 keeps negative weights, too */
    return run_lists(&job, entries);
}

sh_status sh_candidates(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                        const double *floor, int64_t most, sh_entries *entries, uint8_t *too_many) {
    const sh_map *map = sh_map_of(&model);
    sh_status status = sh_check_call(context, memory, &queries);
    if (status != SH_OK) return status;
    const sh_structure *s = queries.structure;
    const int64_t all = queries.exclude ? sh_whole_count(memory) - 1 : sh_whole_count(memory); /* to some query */
    const int by_rank = s && s->pairs == SH_PAIRS_TOP && s->k != all && s->k != sh_whole_count(memory);
    SH_REQUIRE(context, map && (map->cutoff || map->reach || by_rank), "separation");
    SH_REQUIRE(context, !sh_by_place(s), "structure");
    SH_REQUIRE(context, most >= 0, "most");
    SH_REQUIRE(context, entries, "entries");
    SH_REQUIRE(context, too_many || queries.n == 0, "too_many");
    for (int64_t i = 0; floor && i < queries.n; i++)
        if (!(floor[i] < INFINITY)) return sh_fail(context, SH_BAD_ARGUMENT, "floor", i);
    sh_job job = {SH_GOAL_CANDIDATES, .context = context, .memory = memory, .model = model, .queries = queries};
    job.floor = floor;
    job.most = most;
    job.min_weight = -INFINITY;
    job.out.too_many = too_many;
    if (queries.n) memset(too_many, 1, (size_t)queries.n);
    return run_lists(&job, entries);
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
    for (int64_t i = 0; i < n; i++) {
        double list_beta = beta[i * beta_stride], zero = 0; /* or NaN, where a score is not finite */
        if (!(list_beta > 0) || isinf(list_beta)) return sh_fail(context, SH_BAD_ARGUMENT, "beta", i);
        for (int64_t j = start[i]; j < start[i + 1]; j++) zero += score[j] - score[j];
        if (zero != 0) return sh_fail(context, SH_NOT_FINITE, "score", i);
        longest = sh_max(longest, start[i + 1] - start[i]);
    }
    double *z = sh_allocate(context, longest, sizeof(double));
    if (!z) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; i < n; i++) {
        int64_t count = start[i + 1] - start[i];
        const double *s = score + start[i], list_beta = beta[i * beta_stride];
        double best = -INFINITY;
        if (count == 0) continue;
        for (int64_t j = 0; j < count; j++) best = fmax(best, s[j]);
        for (int64_t j = 0; j < count; j++) z[j] = list_beta * (s[j] - best);
        sh_threshold t;
        map->threshold(model.parameter, count, z, &t); /* destroys z */
        for (int64_t j = 0; j < count; j++) z[j] = list_beta * (s[j] - best);
        map->weights(&t, count, z);
        for (int64_t j = 0; j < count; j++) weight[start[i] + j] = type == SH_FLOAT32 ? (double)(float)z[j] : z[j];
    }
    sh_release(context, z);
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
        if (position[i] < 0 || position[i] >= sh_count(memory))
            return sh_fail(context, SH_BAD_ARGUMENT, "positions", i);
    double *sum = sh_allocate(context, width, sizeof(double));
    void *widened_row = sh_allocate(context, width, k->size);
    sh_status status = SH_OK;
    if (!sum || !widened_row) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; status == SH_OK && i < n; i++) {
        for (int64_t j = 0; j < width; j++) sum[j] = -0.0; /* as in rescore.c */
        for (int64_t e = start[i]; e < start[i + 1]; e++) {
            const int64_t row = sh_row_of(memory, position[e]);
            double w = weight[e];
            if (memory->scale && !memory->has_values) w *= memory->scale[row];
            k->accumulate(sum, w, sh_row_at(k, &memory->values, row, widened_row), width);
        }
        if (start[i] == start[i + 1]) memset(sum, 0, (size_t)width * sizeof(double));
        void *state = sh_at(k, states, i * width);
        k->from_double(state, sum, width);
        if (!memory->values.unchecked && !isfinite(k->max_abs(state, width)))
            status = check_suspects(context, (suspects){k, &memory->values, memory->has_values ? "values" : "patterns",
                                                        start[i + 1] - start[i], position + start[i], memory});
    }
    sh_release(context, sum);
    sh_release(context, widened_row);
    return status;
}
