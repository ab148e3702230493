/* outliers.c: patterns that are much larger than nearly all others.
 *
 * The slack of scores goes by the sizes of patterns: their norms or, where tiles are of differences from a centre, their
 * distances from it. A few patterns of a thousand times the others' size would make the scores of all others too
 * inaccurate to tell these apart. So patterns of at least the size `limit` are outliers, for which every row of scores is
 * looked through one by one, with a slack of their own; and the slack of all others goes by `limit` (run.c).
 *
 * Notes  1. `limit` is a power of 2, the least for which at most one pattern in SHARE is as large; there are outliers only
 *           where one is GAIN times as large as it. It follows from how many patterns there are of each size, and so is
 *           the same however a memory has grown. Their number is taken down to a power of 2 for this: so outliers that
 *           more patterns make ordinary, and others that become ones, are rare as a memory grows.
 *        2. An outlier's score in a tile is off by at most the bound of scan.c, note 1, with its own size in place of the
 *           maxima. If score and slack are less than what can matter, it is out, as is any other pattern; else its score
 *           is replaced by the canonical one. The scan lists that as it is, in double.
 *        3. In rows of scores that become weights, canonical scores are rounded to the compute type, by at most u |s|.
 *           Scores by distance are replaced only where they are at most cutoff / beta below the best, so that |s| is at
 *           most (|x| + limit)^2 / 2 + cutoff / beta: that of any pattern that is no outlier, and below it. Else |s| is
 *           at most what the largest outlier has. sh_allow_for_rounding adds this to the slack. Outliers whose scores
 *           stay are below all that matters, by the score of the tile and by the exact one.
 */
#include "retrieval/job.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = 256,   /* rows a work item */
    SHARE = 32,    /* at most one pattern in so many is an outlier */
    GAIN = 4,      /* the largest is so many times as large as the limit, at least */
    SMALLEST = 128 /* sizes up to 2^-SMALLEST are counted together, and those from 2^(SMALLEST - 2) on */
};

static int bucket_of(double size) {
    uint64_t bits;
    memcpy(&bits, &size, sizeof bits);
    const int exponent = (int)(bits >> 52 & 0x7ff) - 1022; /* size < 2^exponent; frexp is a call */
    return exponent < -SMALLEST ? 0 : exponent >= SMALLEST ? SH_SIZES - 1 : exponent + SMALLEST;
}

sh_outliers *sh_new_outliers(sh_context *context, const sh_outliers *old) {
    sh_outliers *o = sh_allocate(context, 1, sizeof *o);
    if (!o) return NULL;
    memset(o, 0, sizeof *o);
    atomic_init(&o->references, 1);
    o->limit = INFINITY;
    for (int b = 0; old && b < SH_SIZES; b++) {
        atomic_init(&o->norms[b], atomic_load(&old->norms[b]));
        atomic_init(&o->spreads[b], atomic_load(&old->spreads[b]));
    }
    return o;
}

void sh_retain_outliers(sh_outliers *o) {
    if (o) atomic_fetch_add(&o->references, 1);
}

void sh_release_outliers(sh_context *context, sh_outliers *o) {
    if (!o || atomic_fetch_sub(&o->references, 1) > 1) return;
    sh_release(context, o->outlier);
    sh_release(context, o);
}

void sh_count_sizes(const double *size, int64_t n, _Atomic int64_t *counts) {
    for (int64_t i = 0; i < n;) { /* neighbours are mostly of one size */
        const int bucket = bucket_of(size[i]);
        int64_t end = i + 1;
        while (end < n && bucket_of(size[end]) == bucket) end++;
        atomic_fetch_add(&counts[bucket], end - i);
        i = end;
    }
}

double sh_outlier_limit(const _Atomic int64_t *counts, int64_t patterns, double largest) {
    int64_t most = 1, found = 0;
    while (2 * most <= patterns) most *= 2;
    most /= SHARE;
    int bucket = SH_SIZES;
    while (bucket > 0 && found + atomic_load(&counts[bucket - 1]) <= most) found += atomic_load(&counts[--bucket]);
    const double limit = ldexp(1, bucket - SMALLEST - 1);
    return largest >= GAIN * limit ? limit : INFINITY;
}

/* Returns how many patterns are of at least the size `limit`. */
static int64_t count_from(const _Atomic int64_t *counts, double limit) {
    int64_t n = 0;
    for (int b = bucket_of(limit); b < SH_SIZES; b++) n += atomic_load(&counts[b]);
    return n;
}

typedef struct {
    const sh_memory *m;
    double centre_norm, limit;
    int64_t first; /* rows before it have been looked through */
    sh_outliers *into;
    int64_t capacity;
    _Atomic int64_t found;
} search;

/* Lists the outliers of a chunk of rows, in any order. */
static sh_status find_in_chunk(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)context;
    search *s = pointer;
    const sh_memory *m = s->m;
    const int64_t first = s->first + item * CHUNK, last = sh_min(first + CHUNK, m->patterns.n);
    for (int64_t i = first; i < last; i++) {
        const void *row = sh_row_at(m->k, &m->patterns, i, scratch);
        double size = sh_norm(m->k, row, m->patterns.d);
        if (m->centred) size = sh_spread(m, row, size, s->centre_norm);
        if (!(size >= s->limit)) continue;
        const int64_t place = atomic_fetch_add(&s->found, 1);
        if (place < s->capacity) s->into->outlier[place] = (sh_candidate){size, i}; /* rows may change meanwhile */
    }
    return SH_OK;
}

sh_status sh_find_outliers(sh_context *context, sh_memory *m, const sh_memory *old, double centre_norm) {
    sh_outliers *o = m->outliers;
    const _Atomic int64_t *counts = m->centred ? o->spreads : o->norms;
    const double limit = sh_outlier_limit(counts, m->patterns.n, m->centred ? m->max_spread : m->max_norm);
    if (isinf(limit)) return SH_OK;
    const sh_outliers *before = old ? old->outliers : NULL;
    search s = {.m = m, .centre_norm = centre_norm, .limit = limit, .into = o, .capacity = count_from(counts, limit)};
    o->outlier = sh_allocate(context, sh_max(s.capacity, 1), sizeof *o->outlier);
    if (!o->outlier) return SH_NO_MEMORY;
    if (before && limit >= before->limit) { /* the older outliers have all of the older rows that are ones */
        for (int64_t i = 0; i < before->n; i++)
            if (before->outlier[i].score >= limit) o->outlier[s.found++] = before->outlier[i];
        s.first = old->patterns.n;
    } else if (before && count_from(m->centred ? before->spreads : before->norms, limit) == 0) {
        s.first = old->patterns.n;
    }
    const size_t row_bytes = (size_t)m->patterns.d * m->k->size;
    sh_status status = sh_for_each(context, sh_ceil_div(m->patterns.n - s.first, CHUNK), row_bytes, find_in_chunk, &s);
    o->n = sh_min(atomic_load(&s.found), s.capacity);
    o->limit = limit;
    sh_sort_by_position(o->outlier, o->n);
    return status;
}

/* --- in rows of scores ---------------------------------------------------------------------------- */

sh_outlier_range sh_outliers_of(const sh_job *job, int64_t first, int64_t n) {
    const sh_outliers *o = job->plan.outliers;
    int64_t low = 0, high = o ? o->n : 0;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (o->outlier[middle].position < first)
            low = middle + 1;
        else
            high = middle;
    }
    int64_t end = low;
    while (o && end < o->n && o->outlier[end].position < first + n) end++;
    return (sh_outlier_range){.outlier = o ? o->outlier + low : NULL, .n = end - low};
}

double sh_hide_outliers(const sh_job *job, sh_outlier_range o, int64_t first, int64_t n, void *row, double best,
                        double *scores) {
    const double lowest = -INFINITY;
    double most = -INFINITY;
    for (int64_t i = 0; i < o.n; i++) {
        void *score = sh_at(job->k, row, o.outlier[i].position - first);
        job->k->to_double(&scores[i], score, 1);
        job->k->from_double(score, &lowest, 1);
        most = scores[i] > most ? scores[i] : most;
    }
    return most < best ? best : job->k->maximum(row, n, NULL);
}

double sh_outlier_slack(const sh_job *job, int64_t query, double size) {
    const sh_plan *plan = &job->plan;
    const double bias = job->memory->bias ? size * size / 2 : 0;
    return plan->slack[query] + plan->relative * (plan->length[query] * size + bias);
}

/* Returns how far below the best, times beta, a score by distance may lie in a row that becomes weights, and matter. */
static double cutoff_of_rows(const sh_job *job) {
    enum { UNDERFLOWS = 750 }; /* exp(-750) is 0 */
    return job->map->cutoff ? job->map->cutoff(job->model.parameter) : UNDERFLOWS;
}

/* Tells whether outliers far below the best keep their scores (note 3). */
static int is_cut_off(const sh_job *job) {
    return sh_by_distance(job) && !job->plan.k_best && job->goal != SH_GOAL_NEAREST && job->goal != SH_GOAL_RADIUS;
}

void sh_allow_for_rounding(sh_job *job) {
    sh_plan *plan = &job->plan;
    const sh_memory *m = job->memory;
    if (!plan->outliers || plan->allows_for_rounding) return;
    plan->allows_for_rounding = 1;
    const int cut_off = is_cut_off(job);
    const double size = cut_off ? plan->outliers->limit : m->centred ? m->max_spread : m->max_norm;
    for (int64_t i = 0; i < job->queries.n; i++) {
        double largest = plan->length[i] * size + (m->bias ? size * size / 2 : 0) - sh_shift(job, i);
        if (cut_off) largest += cutoff_of_rows(job) / sh_beta(job, i);
        plan->slack[i] += 1.01 * job->k->unit * (largest - sh_shift(job, i)); /* streams leave the shift out */
    }
}

void sh_settle_outliers(const sh_job *job, int64_t query, int64_t first, int64_t n, void *row, double best,
                        double shift, void *widened_row) {
    const sh_outlier_range o = sh_outliers_of(job, first, n);
    const double slack = job->plan.slack[query], cutoff = cutoff_of_rows(job) / sh_beta(job, query);
    const int cut_off = is_cut_off(job);
    double scores[SH_TILE];
    assert(n <= SH_TILE);
    if (o.n == 0) return;
    best = fmax(best, sh_hide_outliers(job, o, first, n, row, -INFINITY, scores)); /* NaN: none so far */
    for (int64_t i = 0; i < o.n; i++) {
        const double least = best - (1 + 1e-12) * cutoff - 2 * slack - 0x1p-50 * fabs(best);
        double score = scores[i];
        if (!sh_is_hidden(job, query, o.outlier[i].position) &&
            (!cut_off || !(score + sh_outlier_slack(job, query, o.outlier[i].score) < least))) {
            sh_candidate canonical = {0, o.outlier[i].position};
            sh_score_canonically(job, query, &canonical, 1, widened_row);
            score = canonical.score - shift;
            best = fmax(best, score);
        }
        job->k->from_double(sh_at(job->k, row, o.outlier[i].position - first), &score, 1);
    }
}
