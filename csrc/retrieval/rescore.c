/* rescore.c: candidates become results: canonical scores, weights, states. What makes results exact is here.
 *
 * Scores of tiles only filter. Each candidate is scored again by the canonical dot product (kernels.h), times its
 * scale, or by the canonical distance; z = beta (s - max s) in double. The map's threshold does not depend on
 * candidates outside the support. Weights are rounded once to the compute type, and the state sums weight x row in
 * double in order of position. So every path gives the same bits.
 *
 * Notes  1. Euclidean scores are -|x - xi|^2/2, computed from the differences: their error is relative to the distance,
 *           so it does not grow when patterns and queries lie far from the origin. <x, xi> - |xi|^2/2, the same but for
 *           |x|^2/2, cancels there. The polynomial is the one map that a shift of all scores changes; it keeps the
 *           latter form.
 *        2. Softmax gives weight to all patterns, but next to none to most. With M patterns, those further than
 *           ln(M/u)/beta below the best have less than u of the weight together, u the unit roundoff of the compute type
 *           (2^-24, 2^-53). Where at most most_in_reach_of(M) canonical scores are above that (run.c), they alone get
 *           weights: these change by less than 2u in l1, and the energy by less than u/beta. Else all patterns do, by
 *           streaming.c. Which of the two it is, and everything in the first case, is decided by canonical scores, so by
 *           the query and the memory alone.
 */
#include "retrieval/job.h"
#include "separation/powers.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

sh_result_scratch sh_take_result_scratch(const sh_job *job, sh_workspace *w, int64_t candidates) {
    return (sh_result_scratch){.mixture = sh_take(w, job->values->d, sizeof(double)),
                               .widened_row = sh_take(w, sh_max(job->memory->patterns.d, job->values->d), job->k->size),
                               .z = sh_take(w, candidates, sizeof(double))};
}

/* The threshold rises with every score (its derivatives are weights' shares, >= 0), so exact scores within
 * `slack` of these have a threshold at most `slack` lower; and a pattern's own score may be `slack` higher.
 *
 * Of the k best: the support of all scores is the best kappa of them. If kappa <= k, the k best have the same
 * threshold; if kappa > k, each of the k best is above it. So what is below the threshold of all scores has no weight
 * among the k best either: it is out, and so is what is below the k-th best. */
double sh_min_score(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double *z, double slack) {
    enum { FEW = 64 };
    double best = -INFINITY, beta = sh_beta(job, query);
    if (job->goal == SH_GOAL_RADIUS)
        return sh_rival_min_score(job, query, sh_radius_bound(job, query, c, n, slack)) - slack;
    double least = sh_floor(job, query, slack);
    if (job->plan.k_best && n >= job->plan.k_best) {
        for (int64_t i = 0; i < n; i++) z[i] = c[i].score;
        least = fmax(least, sh_kth_largest(z, n, job->plan.k_best) - 2 * slack);
    }
    if (!sh_has_cutoff(job)) return least;
    for (int64_t i = 0; i < n; i++) best = c[i].score > best ? c[i].score : best; /* fmax is a call */
    double cutoff = sh_cutoff(job, query) / beta, threshold = -cutoff;            /* relative to the best */
    if (job->map->cutoff) {
        const double alpha = job->model.parameter;
        for (int64_t i = 0; i < n; i++) z[i] = beta * (c[i].score - best);
        if (n > FEW &&
            job->map != &sh_map_sparsemax) { /* the bound is near, and much cheaper; not so that of sparsemax */
            threshold = job->map->bound(alpha, n, z) / beta;
        } else {
            sh_threshold t;
            job->map->threshold(alpha, n, z, &t);
            threshold = t.tau / t.unit / beta;
        }
    }
    return fmax(least, best + threshold - 2 * slack - 1e-12 * cutoff - 0x1p-50 * fabs(best));
}

int64_t sh_keep_above(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, double min_score, double slack) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) { /* without a branch, which could not be predicted */
        const sh_candidate one = c[i];
        c[kept] = one;
        kept += one.score >= min_score;
    }
    if (job->goal != SH_GOAL_RADIUS) return kept;
    double radius = sh_radius_bound(job, query, c, kept, slack);
    n = kept;
    kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (c[i].score >= sh_rival_min_score_at(job, query, radius, sh_norm_offset(job, c[i].position)) - slack)
            c[kept++] = c[i];
    return kept;
}

/* Gives a candidate its canonical score at x. */
static void score(const sh_job *job, const void *x, sh_candidate *c, void *widened_row) {
    const sh_memory *m = job->memory;
    int64_t position = c->position;
    const void *row = sh_row_at(job->k, &m->patterns, position, widened_row);
    if (sh_by_distance(job)) {
        c->score = 0 - job->k->distance2(x, row, m->patterns.d) / 2;
        sh_note_score_if_not_finite(job, c->score);
        return;
    }
    double s = job->k->dot(x, row, m->patterns.d);
    if (m->scale) s *= m->scale[position];
    if (m->bias) s += m->bias[position];
    sh_note_score_if_not_finite(job, s);
    c->score = s;
}

void sh_score_canonically(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, void *widened_row) {
    const sh_rows *rows = &job->memory->patterns;
    int64_t ahead = sh_prefetch_distance(rows);
    for (int64_t i = 0; i < n; i++) sh_expect_row(job->memory, rows, c[i].position);
    for (int64_t i = 0; i < sh_min(ahead, n); i++) sh_prefetch_row(rows, c[i].position);
    for (int64_t i = 0; i < n; i++) {
        if (i + ahead < n) sh_prefetch_row(rows, c[i + ahead].position);
        score(job, sh_query(job, query), &c[i], widened_row);
    }
}

void sh_score_fetched(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, void *widened_row) {
    for (int64_t i = 0; i < n; i++) score(job, sh_query(job, query), &c[i], widened_row);
}

static double rounded_to_type(const sh_kernels *k, double p) { return k->size == sizeof(float) ? (double)(float)p : p; }

/* Tells whether entry e comes after (weight, position) in the order of top-k: larger weights, then lower positions. */
static int comes_after(sh_entry e, sh_candidate last) {
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
            if (comes_after((sh_entry){order[i].position, 0, order[i].score}, last)) last = order[i];
        sh_release(context, order);
        n = kept;
        kept = 0;
        for (int64_t i = 0; i < n; i++)
            if (!comes_after(entries[i], last)) entries[kept++] = entries[i];
    }
    sh_entry_list *list = &job->out.lists[query];
    list->n = kept;
    list->entry = sh_allocate(context, sh_max(kept, 1), sizeof *entries);
    if (!list->entry) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; i < kept; i++) {
        list->entry[i] = entries[i];
        list->entry[i].position = sh_position_of(job->memory, entries[i].position);
    }
    return SH_OK;
}

int64_t sh_insert_best(sh_candidate *list, int64_t n, int64_t capacity, sh_candidate c) {
    assert(capacity > 0 && n <= capacity);
    if (n == capacity) {
        sh_candidate last = list[n - 1];
        if (c.score < last.score || (c.score == last.score && c.position > last.position)) return n;
        n--;
    }
    int64_t slot = n;
    for (; slot > 0 && (list[slot - 1].score < c.score ||
                        (list[slot - 1].score == c.score && list[slot - 1].position > c.position));
         slot--)
        list[slot] = list[slot - 1];
    list[slot] = c;
    return n + 1;
}

/* Writes the patterns of most weight, which the next update scores first. */
static void store_hints(const sh_memory *m, int32_t *out, const sh_candidate *c, const double *weight, int64_t n) {
    sh_candidate best[SH_HINTS];
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++)
        if (weight[i] > 0) found = sh_insert_best(best, found, SH_HINTS, (sh_candidate){weight[i], c[i].position});
    for (int64_t l = 0; l < SH_HINTS; l++) {
        const int64_t position = l < found ? sh_position_of(m, best[l].position) : -1;
        out[l] = position <= INT32_MAX ? (int32_t)position : -1;
    }
}

static int compare_positions(const void *a, const void *b) {
    int64_t i = ((const sh_candidate *)a)->position, j = ((const sh_candidate *)b)->position;
    return (i > j) - (i < j);
}

/* Sorts by Hoare's partition, in place, so many levels deep: without a call for every comparison. */
static void sort_by_partition(sh_candidate *c, int64_t n, int levels) {
    enum { FEW = 16 };
    for (; n > FEW; levels--) {
        if (levels == 0) {
            qsort(c, (size_t)n, sizeof *c, compare_positions);
            return;
        }
        const int64_t x = c[0].position, y = c[n / 2].position, z = c[n - 1].position;
        const int64_t pivot = x < y ? (y < z ? y : sh_max(x, z)) : (x < z ? x : sh_max(y, z));
        int64_t i = 0, j = n - 1;
        while (i <= j) {
            while (c[i].position < pivot) i++;
            while (c[j].position > pivot) j--;
            if (i > j) break;
            const sh_candidate swapped = c[i];
            c[i++] = c[j];
            c[j--] = swapped;
        }
        sort_by_partition(c, j + 1, levels - 1);
        c += i;
        n -= i;
    }
    for (int64_t i = 1; i < n; i++) {
        const sh_candidate inserted = c[i];
        int64_t j = i;
        for (; j > 0 && c[j - 1].position > inserted.position; j--) c[j] = c[j - 1];
        c[j] = inserted;
    }
}

void sh_sort_by_position(sh_candidate *c, int64_t n) {
    int64_t i = 1;
    while (i < n && c[i - 1].position < c[i].position) i++;
    if (i < n) sort_by_partition(c, n, /* levels */ 64);
}

static size_t lay_out(const sh_job *job, void *memory, sh_long_list *l) {
    sh_workspace w = {memory, 0};
    l->memory = memory;
    l->list = sh_take(&w, l->capacity, sizeof *l->list);
    l->scratch = sh_take_result_scratch(job, &w, l->capacity);
    return w.used;
}

int sh_lengthen_list(const sh_job *job, sh_context *context, sh_long_list *l, int64_t n, int64_t capacity) {
    sh_long_list longer = {.capacity = l->capacity ? 2 * l->capacity : capacity};
    void *memory = sh_allocate(context, 1, lay_out(job, NULL, &longer));
    if (!memory) return 0;
    lay_out(job, memory, &longer);
    assert(n <= l->capacity);
    if (n) memcpy(longer.list, l->list, (size_t)n * sizeof *l->list);
    sh_release_list(context, l);
    *l = longer;
    return 1;
}

void sh_release_list(sh_context *context, sh_long_list *l) { sh_release(context, l->memory); }

/* Computes the weights p of a map with full support, in double, and the conjugate over beta, scale + above_scale / beta:
 * the scale is max s, or max |s|, and above_scale the logarithm of the sum of weights relative to it. */
static void weigh_all(const sh_job *job, double beta, const sh_candidate *c, int64_t n, double *p, double *scale,
                      double *above_scale) {
    const sh_kernels *k = sh_kernels_of(SH_FLOAT64);
    double sum;
    for (int64_t i = 0; i < n; i++) p[i] = c[i].score;
    *scale = job->map->row_scale(k, p, n);
    if (job->map->canonical_weights) {
        for (int64_t i = 0; i < n; i++) p[i] = beta * (p[i] - *scale);
        sum = job->map->canonical_weights(n, p);
        *above_scale = sh_log(sum);
    } else {
        sum = job->map->row_weights(k, p, n, beta, job->model.parameter, *scale);
        *above_scale = log(sum);
    }
    k->multiply_by(p, sum != 0 ? 1 / sum : 0, n);
}

double sh_score_in_reach(const sh_job *job, int64_t query, double best, double share) {
    const double cutoff = sh_reach_of(job, query) / sh_beta(job, query),
                 slack = job->plan.slack[query]; /* or infinity */
    const double in_reach = best - share * (1 - 1e-12) * cutoff + 2 * slack + 0x1p-50 * fabs(best);
    return fmax(in_reach, sh_floor(job, query, -slack));
}

int64_t sh_keep_in_reach(const sh_job *job, int64_t query, sh_candidate *c, int64_t n) {
    double best = -INFINITY, beta = sh_beta(job, query), reach = sh_reach_of(job, query);
    int64_t kept = 0;
    if (job->floor) n = sh_keep_above(job, query, c, n, job->floor[query], /* slack */ 0);
    if (!(job->plan.reach > 0)) return n;
    for (int64_t i = 0; i < n; i++) best = c[i].score > best ? c[i].score : best;
    for (int64_t i = 0; i < n; i++)
        if (beta * (c[i].score - best) >= -reach) c[kept++] = c[i];
    return kept;
}

sh_status sh_answer_in_reach(sh_job *job, int64_t query, sh_candidate *c, int64_t n, sh_result_scratch scratch,
                             sh_context *context, int *answered) {
    double best = -INFINITY;
    int64_t certain = 0;
    for (int64_t i = 0; i < n; i++) best = c[i].score > best ? c[i].score : best;
    const double in_reach = sh_score_in_reach(job, query, best, /* share */ 1);
    for (int64_t i = 0; i < n; i++) certain += c[i].score >= in_reach;
    *answered = certain <= sh_most_in_reach(job, query);
    if (!*answered) return SH_OK;
    sh_score_canonically(job, query, c, n, scratch.widened_row);
    n = sh_keep_in_reach(job, query, c, n);
    *answered = n <= sh_most_in_reach(job, query);
    return *answered ? sh_store_results(job, query, c, n, scratch, context) : SH_OK;
}

/* Does the same for a map with a cutoff, where the scale is max s, and above_scale the sum of the shares of the weights
 * (SH_GOAL_ENERGY; else 0). Returns how many have weight. */
static int64_t weigh_support(const sh_job *job, double beta, const sh_candidate *c, int64_t n, double *p, double *scale,
                             double *above_scale) {
    const sh_map *map = job->map;
    double alpha = job->model.parameter;
    int64_t support = 0;
    *scale = -INFINITY;
    *above_scale = 0;
    for (int64_t i = 0; i < n; i++) *scale = c[i].score > *scale ? c[i].score : *scale;
    for (int64_t i = 0; i < n; i++) p[i] = beta * (c[i].score - *scale);
    sh_threshold t;
    map->threshold(alpha, n, p, &t);
    for (int64_t i = 0; i < n; i++) p[i] = beta * (c[i].score - *scale);
    map->weights(&t, n, p);
    for (int64_t i = 0; i < n; i++) {
        if (!(p[i] > 0)) continue;
        support++;
        if (job->goal == SH_GOAL_ENERGY) *above_scale += map->conjugate_share(&t, beta * (c[i].score - *scale), p[i]);
    }
    return support;
}

int64_t sh_count_support(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double *z) {
    double scale, above_scale;
    return weigh_support(job, sh_beta(job, query), c, n, z, &scale, &above_scale);
}

sh_status sh_store_results(sh_job *job, int64_t query, sh_candidate *c, int64_t n, sh_result_scratch scratch,
                           sh_context *context) {
    if (job->goal == SH_GOAL_RADIUS) {
        sh_store_rival(job, query, c, n);
        return SH_OK;
    }
    if (job->goal == SH_GOAL_NEAREST) {
        int64_t found = 0;
        sh_candidate *out = job->out.nearest + query * job->plan.k_best;
        for (int64_t i = 0; job->out.nearest && i < n; i++)
            found = sh_insert_best(out, found, job->plan.k_best,
                                   (sh_candidate){c[i].score, sh_position_of(job->memory, c[i].position)});
        return SH_OK;
    }
    if (job->plan.k_best) {
        n = sh_select_top(c, n, job->plan.k_best);
        sh_sort_by_position(c, n);
    }
    for (int64_t i = 1; i < n; i++) assert(c[i - 1].position < c[i].position);
    const sh_kernels *k = job->k;
    double beta = sh_beta(job, query), scale = 0, above_scale = 0; /* weigh_all */
    int64_t width = job->values->d, support = n;
    double *weights = scratch.z, *mixture = scratch.mixture;
    void *out = job->goal == SH_GOAL_PARTIAL ? job->out.partial.mixture : job->out.states;
    int full = !job->map->cutoff;
    if (n && full)
        weigh_all(job, beta, c, n, weights, &scale, &above_scale);
    else if (n)
        support = weigh_support(job, beta, c, n, weights, &scale, &above_scale);
    if (out)
        for (int64_t j = 0; j < width; j++)
            mixture[j] = n && job->map->shift_invariant ? -0.0 : 0; /* -0.0 + x = x, also for x = -0.0 */
    for (int64_t i = 0; out && i < n && job->values->data != job->memory->patterns.data; i++)
        if (weights[i] != 0) sh_expect_row(job->memory, job->values, c[i].position);
    for (int64_t i = 0; out && i < n; i++) {
        double p = weights[i];
        if (!(p > 0) && !(job->map->signed_weights && p < 0)) continue;
        double w = rounded_to_type(k, p);
        if (job->plan.value_scale) w *= job->plan.value_scale[c[i].position];
        k->accumulate(mixture, w, sh_row_at(k, job->values, c[i].position, scratch.widened_row), width);
    }
    if (job->goal == SH_GOAL_PARTIAL) { /* of a map with full support: unnormalised */
        job->out.partial.scale[query] = scale;
        double sum = job->out.partial.sum[query] = exp(above_scale);
        for (int64_t j = 0; out && j < width; j++) mixture[j] *= sum;
    }
    if (out) {
        void *state = sh_at(k, out, query * width);
        k->from_double(state, mixture, width);
        if (job->values->data != job->memory->patterns.data) sh_note_states_if_not_finite(job, state, 1);
    }
    /* with full support all patterns count, also those whose weights are too small to be had */
    if (job->out.support_size)
        job->out.support_size[query] = full && !job->plan.k_best ? sh_seen_count(job, query) : support;
    if (job->out.counts) job->out.counts[query][SH_IN_SUPPORT] = support;
    if (job->out.hints) store_hints(job->memory, job->out.hints + query * SH_HINTS, c, weights, n);
    if (job->out.energy) {
        job->out.energy[query] = n ? sh_energy_of(job, query, scale + above_scale / beta) : sh_half_square(job, query);
    }
    if (job->out.too_many) job->out.too_many[query] = 0;
    if (!job->out.lists) return SH_OK;
    sh_entry *entries = sh_allocate(context, sh_max(support, 1), sizeof *entries);
    if (!entries) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (full || weights[i] > 0)
            entries[kept++] = (sh_entry){c[i].position, c[i].score, rounded_to_type(k, weights[i])};
    sh_status status = sh_store_entries(job, query, entries, kept, context);
    sh_release(context, entries);
    return status;
}
