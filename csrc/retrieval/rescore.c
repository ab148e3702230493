/* rescore.c: from candidates to results: the canonical scores, the weights, the state. Exactness lives here.
 *
 * The tiles of the scan only filter. Each candidate is scored again by the canonical dot product (kernels.h), times its
 * scale, or by the canonical distance; z = beta (s - max s) in double; the map's threshold does not depend on candidates
 * outside the support; weights are rounded once to the compute type, and the state sums weight x row in double in order
 * of position. So every path gives the same bits.
 *
 * Note   Euclidean scores are -|x - xi|^2/2, computed from the differences: their error is relative to the distance, so
 *        it does not grow when patterns and queries lie far from the origin. <x, xi> - |xi|^2/2, the same but for |x|^2/2,
 *        cancels there. The polynomial is the one map that a shift of all scores changes; it keeps the latter form.
 */
#include "retrieval/job.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t widest(const sh_job *job) { return sh_max(job->memory->patterns.d, job->values->d); }

sh_result_space sh_take_result_space(const sh_job *job, sh_workspace *w, int64_t candidates) {
    return (sh_result_space){.sum = sh_take(w, job->values->d, sizeof(double)),
                             .buffer = sh_take(w, widest(job), job->k->size),
                             .z = sh_take(w, candidates, sizeof(double))};
}

size_t sh_result_space_bytes(const sh_job *job, int64_t candidates) {
    sh_workspace w = {0};
    sh_take_result_space(job, &w, candidates);
    return w.used;
}

sh_result_space sh_result_space_at(const sh_job *job, void *scratch, int64_t candidates) {
    sh_workspace w = {.block = scratch};
    return sh_take_result_space(job, &w, candidates);
}

/* The threshold rises with every score (its derivatives are weights' shares, >= 0), so exact scores within
 * `slack` of these have a threshold at most `slack` lower; and a pattern's own score may be `slack` higher.
 *
 * Of the k best: the support of all scores is the best kappa of them. If kappa <= k, the k best have the same threshold;
 * if kappa > k, each of the k best is above it. So what is below the threshold of all scores has no weight among the
 * k best either, and both floors hold. */
double sh_min_score(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double *z, double slack) {
    double best = -INFINITY, beta = sh_beta(job, query), alpha = job->model.parameter;
    if (job->goal == SH_GOAL_RADIUS)
        return sh_rival_min_score(job, query, sh_radius_bound(job, query, c, n, slack)) - slack;
    double least = -INFINITY;
    if (job->plan.nearest && n >= job->plan.nearest) {
        for (int64_t i = 0; i < n; i++) z[i] = c[i].score;
        least = sh_kth_largest(z, n, job->plan.nearest) - 2 * slack;
    }
    if (!sh_has_cutoff(job)) return least;
    for (int64_t i = 0; i < n; i++) best = fmax(best, c[i].score);
    for (int64_t i = 0; i < n; i++) z[i] = beta * (c[i].score - best);
    sh_threshold t;
    job->map->threshold(alpha, n, z, &t);
    double reach = job->map->window(alpha) / beta, cut = t.tau / (alpha - 1) / beta;
    return fmax(least, best + cut - 2 * slack - 1e-12 * reach - 0x1p-50 * fabs(best));
}

int64_t sh_keep_above(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, double floor, double slack) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (c[i].score >= floor) c[kept++] = c[i];
    if (job->goal != SH_GOAL_RADIUS) return kept;
    double radius = sh_radius_bound(job, query, c, kept, slack);
    n = kept;
    kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (c[i].score >=
            sh_rival_min_score_at(job, query, radius, job->radius_search->norm_offset[c[i].position]) - slack)
            c[kept++] = c[i];
    return kept;
}

static void score(const sh_job *job, const void *x, sh_candidate *c, void *buffer) {
    const sh_memory *m = job->memory;
    int64_t at = c->position;
    const void *row = sh_row_at(job->k, &m->patterns, at, buffer);
    if (sh_by_distance(job)) {
        c->score = 0 - job->k->distance2(x, row, m->patterns.d) / 2;
        sh_check_score(job, c->score);
        return;
    }
    double s = job->k->dot(x, row, m->patterns.d);
    if (m->scale) s *= m->scale[at];
    if (m->bias) s += m->bias[at];
    sh_check_score(job, s);
    c->score = s;
}

void sh_rescore(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, void *buffer) {
    const sh_rows *rows = &job->memory->patterns;
    int64_t ahead = sh_prefetch_distance(rows);
    for (int64_t i = 0; i < sh_min(ahead, n); i++) sh_prefetch_row(rows, c[i].position);
    for (int64_t i = 0; i < n; i++) {
        if (i + ahead < n) sh_prefetch_row(rows, c[i + ahead].position);
        score(job, sh_query(job, query), &c[i], buffer);
    }
}

void sh_rescore_prefetched(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, void *buffer) {
    for (int64_t i = 0; i < n; i++) score(job, sh_query(job, query), &c[i], buffer);
}

static double rounded(const sh_kernels *k, double p) { return k->size == sizeof(float) ? (double)(float)p : p; }

/* whether entry e comes after (weight, position) in the order of top-k: larger weights, then lower positions */
static int after(sh_entry e, sh_candidate last) {
    return e.weight < last.score || (e.weight == last.score && e.position > last.position);
}

sh_status sh_store_entries(sh_job *job, int64_t query, sh_entry *entries, int64_t n, sh_context *context) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (entries[i].weight >= job->min_weight) entries[kept++] = entries[i];
    if (job->top && kept > job->top) {
        sh_candidate *order = sh_allocate(context, kept, sizeof *order);
        if (!order) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
        for (int64_t i = 0; i < kept; i++) order[i] = (sh_candidate){entries[i].weight, entries[i].position};
        sh_select_top(order, kept, job->top);
        sh_candidate last = order[0];
        for (int64_t i = 1; i < job->top; i++)
            if (after((sh_entry){order[i].position, 0, order[i].score}, last)) last = order[i];
        sh_release(context, order);
        n = kept;
        kept = 0;
        for (int64_t i = 0; i < n; i++)
            if (!after(entries[i], last)) entries[kept++] = entries[i];
    }
    sh_entry_list *list = &job->out.lists[query];
    list->n = kept;
    list->entry = sh_allocate(context, sh_max(kept, 1), sizeof *entries);
    if (!list->entry) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    memcpy(list->entry, entries, (size_t)kept * sizeof *entries);
    return SH_OK;
}

int64_t sh_insert_best(sh_candidate *list, int64_t n, int64_t room, sh_candidate c) {
    if (n == room) {
        sh_candidate last = list[n - 1];
        if (c.score < last.score || (c.score == last.score && c.position > last.position)) return n;
        n--;
    }
    int64_t at = n;
    for (; at > 0 &&
           (list[at - 1].score < c.score || (list[at - 1].score == c.score && list[at - 1].position > c.position));
         at--)
        list[at] = list[at - 1];
    list[at] = c;
    return n + 1;
}

/* the patterns of most weight, for the next step to begin with */
static void carry(int32_t *out, const sh_candidate *c, const double *weight, int64_t n) {
    sh_candidate best[SH_HINTS];
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++)
        if (weight[i] > 0) found = sh_insert_best(best, found, SH_HINTS, (sh_candidate){weight[i], c[i].position});
    for (int64_t l = 0; l < SH_HINTS; l++)
        out[l] = l < found && best[l].position <= INT32_MAX ? (int32_t)best[l].position : -1;
}

static int by_position(const void *a, const void *b) {
    int64_t i = ((const sh_candidate *)a)->position, j = ((const sh_candidate *)b)->position;
    return (i > j) - (i < j);
}

void sh_sort_by_position(sh_candidate *c, int64_t n) {
    int64_t i = 1;
    while (i < n && c[i - 1].position < c[i].position) i++;
    if (i < n) qsort(c, (size_t)n, sizeof *c, by_position);
}

int sh_lengthen_list(const sh_job *job, sh_context *context, sh_long_list *l, int64_t n, int64_t capacity) {
    if (l->capacity) capacity = 2 * l->capacity;
    sh_candidate *longer = sh_allocate(context, capacity, sizeof *longer);
    if (longer && n) memcpy(longer, l->list, (size_t)n * sizeof *longer);
    sh_release_list(context, l);
    *l = (sh_long_list){.capacity = capacity, .list = longer};
    l->scratch = sh_allocate(context, 1, sh_result_space_bytes(job, capacity));
    if (!l->list || !l->scratch) return 0;
    l->space = sh_result_space_at(job, l->scratch, capacity);
    return 1;
}

void sh_release_list(sh_context *context, sh_long_list *l) {
    sh_release(context, l->list);
    sh_release(context, l->scratch);
}

/* The weights of a map with full support in double, in p; `best` and `rest` make up the conjugate, best + rest/beta. */
static void weigh_all(const sh_job *job, double beta, const sh_candidate *c, int64_t n, double *p, double *best,
                      double *rest) {
    const sh_kernels *k = sh_kernels_of(SH_FLOAT64);
    for (int64_t i = 0; i < n; i++) p[i] = c[i].score;
    *best = job->map->row_scale(k, p, n);
    double sum = job->map->row_weights(k, p, n, beta, job->model.parameter, *best);
    k->scale(p, sum != 0 ? 1 / sum : 0, n);
    *rest = log(sum);
}

/* the same for a map with a window; returns how many have weight */
static int64_t weigh_window(const sh_job *job, double beta, const sh_candidate *c, int64_t n, double *p, double *best,
                            double *rest) {
    const sh_map *map = job->map;
    double alpha = job->model.parameter;
    int64_t support = 0;
    *best = -INFINITY;
    *rest = 0;
    for (int64_t i = 0; i < n; i++) *best = fmax(*best, c[i].score);
    for (int64_t i = 0; i < n; i++) p[i] = beta * (c[i].score - *best);
    sh_threshold t;
    map->threshold(alpha, n, p, &t);
    for (int64_t i = 0; i < n; i++) p[i] = beta * (c[i].score - *best);
    map->weights(&t, n, p);
    for (int64_t i = 0; i < n; i++) {
        if (!(p[i] > 0)) continue;
        support++;
        if (job->goal == SH_GOAL_ENERGY) *rest += p[i] * (beta * (c[i].score - *best)) - map->omega(alpha, p[i]);
    }
    return support;
}

sh_status sh_store_results(sh_job *job, int64_t query, sh_candidate *c, int64_t n, sh_result_space space,
                           sh_context *context) {
    if (job->goal == SH_GOAL_RADIUS) {
        sh_store_rival(job, query, c, n);
        return SH_OK;
    }
    if (job->goal == SH_GOAL_NEAREST) {
        int64_t found = 0;
        sh_candidate *out = job->out.nearest + query * job->plan.nearest;
        for (int64_t i = 0; job->out.nearest && i < n; i++) found = sh_insert_best(out, found, job->plan.nearest, c[i]);
        return SH_OK;
    }
    if (job->plan.nearest) {
        n = sh_select_top(c, n, job->plan.nearest);
        sh_sort_by_position(c, n);
    }
    const sh_kernels *k = job->k;
    double beta = sh_beta(job, query), best = 0, rest = 0;
    int64_t width = job->values->d, support = n;
    void *out = job->goal == SH_GOAL_PARTIAL ? job->out.partial.mixture : job->out.states;
    int full = !job->map->window;
    if (n && full)
        weigh_all(job, beta, c, n, space.z, &best, &rest);
    else if (n)
        support = weigh_window(job, beta, c, n, space.z, &best, &rest);
    if (out)
        for (int64_t j = 0; j < width; j++) space.sum[j] = n && !full ? -0.0 : 0; /* -0.0 + x = x, also for x = -0.0 */
    for (int64_t i = 0; out && i < n; i++) {
        double p = space.z[i];
        if (!(p > 0) && !(full && p < 0)) continue;
        double w = rounded(k, p);
        if (job->plan.value_scale) w *= job->plan.value_scale[c[i].position];
        k->accumulate(space.sum, w, sh_row_at(k, job->values, c[i].position, space.buffer), width);
    }
    if (job->goal == SH_GOAL_PARTIAL) { /* of a map with full support: unnormalised */
        job->out.partial.scale[query] = best;
        double sum = job->out.partial.sum[query] = exp(rest);
        for (int64_t j = 0; out && j < width; j++) space.sum[j] *= sum;
    }
    if (out) {
        void *state = sh_at(k, out, query * width);
        k->from_double(state, space.sum, width);
        if (job->values->data != job->memory->patterns.data) sh_check_states(job, state, 1);
    }
    if (job->out.support_size) job->out.support_size[query] = support;
    if (job->out.counts) job->out.counts[query][3] = support;
    if (job->out.hints) carry(job->out.hints + query * SH_HINTS, c, space.z, n);
    if (job->out.energy) {
        job->out.energy[query] = n ? sh_energy_of(job, query, best + rest / beta) : sh_half_square(job, query);
    }
    if (!job->out.lists) return SH_OK;
    sh_entry *entries = sh_allocate(context, sh_max(support, 1), sizeof *entries);
    if (!entries) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (full || space.z[i] > 0) entries[kept++] = (sh_entry){c[i].position, c[i].score, rounded(k, space.z[i])};
    sh_status status = sh_store_entries(job, query, entries, kept, context);
    sh_release(context, entries);
    return status;
}
