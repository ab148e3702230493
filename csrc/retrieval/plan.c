/* plan.c: which path a call takes, and the indexes of a memory: built when they pay, stored once, then only read.
 *
 * Notes  1. The cheapest path is found by counting: a pilot of a few queries tells how long their lists are, and the
 *           work is estimated in multiplications of the matrix product. No clock is read. Means are compared: where a few
 *           queries have most of the candidates, they have most of the work.
 *        2. For queries with long lists there are longer filter codes, in an index that shares all else.
 *        3. A call builds an index by itself only if half of the available memory holds it; sh_memory_index and a path
 *           asked for by name build it wherever it can be.
 *        4. Queries that are zero in many features (masked ones) are unlike the patterns, and the principal directions
 *           of these serve them badly. For enough of them an index of the other features is built for the call.
 */
#include "retrieval/index/index.h"
#include <math.h>
#include <string.h>

enum {
    PILOT = 16,                  /* queries of a pilot, */
    PILOT_QUERIES = 256,         /* if the call has at least so many */
    CALL_INDEX_QUERIES = 1000,   /* queries for which an index of their own features may be built, */
    CALL_INDEX_BYTES = 32 << 20, /* if the memory's has at most so many bytes */
    INDEX_PATTERNS = 1024,       /* with fewer, the scan is as good */
    INDEX_QUERIES = 256,         /* asked before an index is built */
};
/* Work, in units of one multiplication of the matrix product. */
static const double MIX_WORK = 8000;   /* to mix a row that softmax has scored: nearly all of these have weight */
static const double LIST_WORK = 18000; /* to list one of the k best for a while, in the scan */
static const double INDEX_WORK = 300;  /* to build an index, for every number of the patterns, but for its directions */
static const double READ_WORK = 40;    /* to read a number that is in no cache */
static const double LEAST_WORK = 2e7;  /* of a scan that is worth the overhead of an index */
static const double INDEX_GAIN = 0.8;  /* of the scan's work, below which an index is taken */

/* The work of the queries of a pilot through an index, and which of them it leaves to the next path. */
typedef struct {
    double work[PILOT];
    int left[PILOT];
} trial;

/* Tells whether streaming.c answers what an index leaves; else it is the scan. */
static int is_streamed(const sh_job *job) { return job->plan.reach > 0 && job->goal != SH_GOAL_CANDIDATES; }

/* Estimates the work of a pilot's queries through an index. */
static sh_status pilot(sh_job *job, const sh_index *index, trial *t) {
    int64_t queries[PILOT], unserved[PILOT], counts[PILOT][SH_STAGES];
    _Atomic int64_t unserved_count = 0;
    sh_job pilot_job = *job;
    pilot_job.out = (sh_outputs){0};
    for (int64_t i = 0; i < PILOT; i++) {
        queries[i] = i * job->queries.n / PILOT;
        counts[i][SH_LISTED] = -1; /* which stays where the index does not serve the query */
    }
    sh_status status = sh_index_search(&pilot_job, index, queries, PILOT, counts, t->work, unserved, &unserved_count);
    for (int i = 0; i < PILOT; i++) {
        t->left[i] = counts[i][SH_LISTED] < 0;
        if (is_streamed(job) && !t->left[i]) t->work[i] += MIX_WORK * (double)counts[i][SH_SCORED];
    }
    return status;
}

/* Returns the mean work of a pilot's queries, if each that the index leaves takes work `next` more, or, by the index
 * of another pilot, what that says, and `next` more where it leaves the query, too. */
static double mean_work(const trial *t, const trial *other, double next) {
    double sum = 0;
    for (int i = 0; i < PILOT; i++) {
        sum += t->work[i];
        if (t->left[i]) sum += other ? other->work[i] + (other->left[i] ? next : 0) : next;
    }
    return sum / PILOT;
}

/* Returns the median of their work; INFINITY if most are left. */
static double median_work(const trial *t) {
    double work[PILOT];
    for (int i = 0; i < PILOT; i++) work[i] = t->left[i] ? INFINITY : t->work[i];
    sh_sort_descending(work, PILOT);
    return work[PILOT / 2];
}

/* Other calls need memory, too. */
int64_t sh_index_budget(sh_index_use use) { return use == SH_INDEX_AUTO ? sh_available_memory() / 2 : INT64_MAX; }

/* Returns how many bytes an index may have that a call builds by itself. */
static int64_t index_budget(const sh_memory *m) { return sh_index_budget(m->indexes->use); }

/* The features that a call uses, and what it takes to find them. */
typedef struct {
    int32_t *features;               /* (d) those that are not zero in every query */
    uint8_t *used;                   /* (d) 1 for these */
    double *widened, *mean, *square; /* (d) a pattern; means and mean squares of some patterns */
    void *row;                       /* (d) one widened row */
} feature_scratch;

static size_t lay_out(const sh_memory *m, void *memory, feature_scratch *f) {
    const int64_t d = m->patterns.d;
    sh_workspace w = {memory, 0};
    f->features = sh_take(&w, d, sizeof *f->features);
    f->used = sh_take(&w, d, sizeof *f->used);
    f->widened = sh_take(&w, d, sizeof(double));
    f->mean = sh_take(&w, d, sizeof(double));
    f->square = sh_take(&w, d, sizeof(double));
    f->row = sh_take(&w, d, m->k->size);
    return w.used;
}

/* Lists the features that are not zero in every query; returns how many. */
static int64_t find_used_features(const sh_job *job, feature_scratch *f) {
    int64_t d = job->memory->patterns.d, n = 0;
    memset(f->used, 0, (size_t)d);
    for (int64_t i = 0; i < job->queries.n; i++) {
        job->k->to_double(f->widened, sh_query(job, i), d);
        for (int64_t j = 0; j < d; j++) f->used[j] |= f->widened[j] != 0;
    }
    for (int64_t j = 0; j < d; j++)
        if (f->used[j]) f->features[n++] = (int32_t)j;
    return n;
}

/* Computes the share of some patterns' squares (about their mean) that lies in features which are not used. */
static double share_of_unused(const sh_memory *m, feature_scratch *f) {
    enum { SAMPLE = 256 };
    int64_t n = sh_min(m->patterns.n, SAMPLE), d = m->patterns.d;
    double used = 0, unused = 0;
    for (int64_t j = 0; j < d; j++) f->mean[j] = f->square[j] = 0;
    for (int64_t i = 0; i < n; i++) {
        m->k->to_double(f->widened, sh_row_at(m->k, &m->patterns, i * m->patterns.n / n, f->row), d);
        for (int64_t j = 0; j < d; j++) {
            f->mean[j] += f->widened[j] / (double)n;
            f->square[j] += f->widened[j] * f->widened[j] / (double)n;
        }
    }
    for (int64_t j = 0; j < d; j++) *(f->used[j] ? &used : &unused) += f->square[j] - f->mean[j] * f->mean[j];
    return unused > 0 ? unused / (used + unused) : 0;
}

/* Builds an index of the features that a call uses, if many are not used and it would pay; else *index is NULL. `work`
 * is that of one query by the memory's index of leading columns. */
static sh_status build_call_index(sh_job *job, const sh_index *leading, double work, sh_index **index) {
    const sh_memory *m = job->memory;
    sh_context *context = job->context;
    int64_t d = m->patterns.d;
    *index = NULL;
    if (!leading->basis || job->queries.n < CALL_INDEX_QUERIES || leading->bytes > CALL_INDEX_BYTES) return SH_OK;
    double scan = (double)m->patterns.n * (double)d, saved = fmin(work, scan) - sh_work_of_codes(leading);
    if (!((double)job->queries.n * saved > INDEX_WORK * scan)) return SH_OK;
    feature_scratch f;
    void *memory = sh_allocate(context, 1, lay_out(m, NULL, &f));
    if (!memory) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    lay_out(m, memory, &f);
    int64_t n = find_used_features(job, &f);
    sh_status status = SH_OK;
    if (n > 0 && n < d && share_of_unused(m, &f) > 0.1)
        status = sh_index_new(context, m, SH_LEADING_COLUMNS, f.features, n, index_budget(m), index);
    sh_release(context, memory);
    return status;
}

/* Builds an index of at most most_bytes, or grows that of an older memory, and stores it, unless another thread was
 * faster. */
static sh_status build_index(sh_context *context, const sh_memory *m, sh_index_kind kind, int64_t most_bytes) {
    sh_index *index = NULL, *expected = NULL;
    sh_status status = SH_OK;
    for (int i = 0; i < SH_LONGER_INDEX && status == SH_OK && !index; i++) {
        if (kind != SH_EITHER_COLUMNS && i != (kind == SH_ALL_COLUMNS ? SH_ALL_INDEX : SH_LEADING_INDEX)) continue;
        sh_index *older = atomic_exchange(&m->indexes->older[i], NULL);
        if (older) status = sh_index_grow(context, m, older, most_bytes, &index);
        sh_index_free(context, older);
    }
    if (status == SH_OK && !index) status = sh_index_new(context, m, kind, NULL, m->patterns.d, most_bytes, &index);
    if (status != SH_OK) return status;
    if (!index) {
        atomic_store(&m->indexes->queries_asked, INT64_MIN / 2); /* none can be built, however many queries are asked */
        return SH_OK;
    }
    assert(index->patterns == m->patterns.n);
    if (!atomic_compare_exchange_strong(&m->indexes->index[index->kind == SH_ALL_COLUMNS], &expected, index))
        sh_index_free(context, index);
    return SH_OK;
}

sh_status sh_memory_index(sh_context *context, const sh_memory *m) {
    SH_REQUIRE(context, m, "memory");
    if (sh_memory_index_bytes(m) > 0) return SH_OK;
    return build_index(context, m, SH_EITHER_COLUMNS, INT64_MAX);
}

/* An index is made of the patterns' numbers and of their scales and biases in double, and the slack of bounds is that of
 * sums in double: no compute type changes them (bounds.c). */
sh_status sh_memory_share_index(sh_context *context, const sh_memory *m, const sh_memory *other) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context, other, "other");
    const sh_rows *mine = &m->patterns, *theirs = &other->patterns;
    SH_REQUIRE(context,
               mine->data == theirs->data && mine->n == theirs->n && mine->d == theirs->d &&
                   mine->stride == theirs->stride && mine->type == theirs->type && mine->scale == theirs->scale &&
                   m->similarity == other->similarity,
               "other");
    for (int i = 0; i < SH_INDEXES; i++) {
        sh_index *index = atomic_load(&other->indexes->index[i]), *expected = NULL;
        if (!index || atomic_load(&m->indexes->index[i])) continue;
        sh_index_retain(index);
        if (!atomic_compare_exchange_strong(&m->indexes->index[i], &expected, index)) sh_index_free(context, index);
    }
    return SH_OK;
}

sh_status sh_bounds(sh_context *context, const sh_memory *m, sh_queries queries, double *bounds) {
    static const double one = 1;
    queries.beta = &one; /* bounds are of scores */
    queries.beta_stride = 0;
    sh_status status = sh_check_call(context, m, &queries);
    if (status == SH_OK && m->removed) status = sh_pack(context, m, &m);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, sh_can_be(queries.n, 3 * m->patterns.n * (int64_t)sizeof *bounds), "queries");
    SH_REQUIRE(context, bounds || queries.n == 0, "bounds");
    for (int64_t i = 0; i < queries.n; i++) {
        const double largest = m->k->max_abs(sh_at(m->k, queries.data, i * m->patterns.d), m->patterns.d);
        if (!isfinite(largest)) return sh_fail(context, SH_NOT_FINITE, "queries", i);
    }
    int number = context->path == SH_PATH_COLUMNS ? SH_ALL_INDEX : SH_LEADING_INDEX;
    if (!atomic_load(&m->indexes->index[number]))
        status = build_index(context, m, number == SH_ALL_INDEX ? SH_ALL_COLUMNS : SH_LEADING_COLUMNS, INT64_MAX);
    const sh_index *x = atomic_load(&m->indexes->index[number]);
    if (status == SH_OK && !x) status = sh_fail(context, SH_BAD_ARGUMENT, "index", 0);
    if (status != SH_OK) return status;
    sh_job job = {.context = context, .memory = m, .k = m->k, .map = &sh_map_sparsemax, .queries = queries};
    return sh_index_bounds(&job, x, bounds);
}

int64_t sh_memory_index_bytes(const sh_memory *m) {
    int64_t bytes = 0;
    for (int i = 0; m && i < SH_INDEXES; i++) {
        const sh_index *x = atomic_load(&m->indexes->index[i]);
        if (x) bytes += (int64_t)x->bytes;
    }
    return bytes;
}

/* Finds out whether most queries of a pilot have more candidates than an index serves: then no bound excludes many
 * patterns. Of softmax more than a third of them must have few patterns within reach, or of the last stream's, if there
 * was one. */
static sh_status find_overflow(sh_job *job, int *most_overflow) {
    int64_t queries[PILOT], overflow[PILOT];
    const _Atomic double *share = &job->memory->indexes->share_in_reach;
    const int in_reach = is_streamed(job);
    sh_status status = SH_OK;
    sh_job pilot_job = *job;
    pilot_job.out = (sh_outputs){0};
    for (int64_t i = 0; i < PILOT; i++) queries[i] = i * job->queries.n / PILOT;
    pilot_job.plan.longest_list = SH_EXACT_SUPPORT;
    pilot_job.plan.scan_queries = queries;
    pilot_job.plan.overflow_queries = overflow;
    atomic_store(&pilot_job.plan.scan_count, PILOT);
    atomic_store(&pilot_job.plan.overflow_count, 0);
    if (!in_reach)
        status = sh_scan(&pilot_job);
    else if (isnan(atomic_load(share)))
        status = sh_stream(&pilot_job);
    *most_overflow = in_reach ? !(3 * atomic_load(share) > 1) : atomic_load(&pilot_job.plan.overflow_count) > PILOT / 2;
    return status;
}

/* Finds out whether an index pays: whether to scan for the queries so far costs twice as much as to build it. */
static sh_status find_whether_index_pays(sh_job *job, int *pays) {
    const sh_memory *m = job->memory;
    int64_t d = m->patterns.d, asked = atomic_fetch_add(&m->indexes->queries_asked, job->queries.n) + job->queries.n;
    int64_t older = m->indexes->older_patterns;
    *pays = 0;
    if (m->patterns.n < INDEX_PATTERNS || (asked < INDEX_QUERIES && !older)) return SH_OK;
    double features = (double)d, gram_rows = fmin(features, SH_LARGEST_GRAM), n = (double)m->patterns.n;
    /* Too low for short rows, whose index so comes with INDEX_QUERIES: to build that of image patches takes what 560
     * queries take of the matrix product. */
    double build = d <= 120 ? 20 * n * features : INDEX_WORK * n * features + 60 * gram_rows * gram_rows * gram_rows;
    if (older) build = 100 * n + INDEX_WORK * features * (double)(m->patterns.n - older);
    if (!((double)asked * n * features > 2 * build)) return SH_OK;
    int most_overflow = 0;
    sh_status status = job->queries.n >= PILOT_QUERIES ? find_overflow(job, &most_overflow) : SH_OK;
    if (most_overflow) atomic_store(&m->indexes->queries_asked, 0); /* try again only after as many */
    *pays = !most_overflow;
    return status;
}

/* The indexes that a memory has, then those that a call takes: first the leading one, then, for what that leaves, the
 * other. NULL: none. */
typedef struct {
    const sh_index *leading; /* of leading columns, or another in its place */
    const sh_index *all;     /* of all columns */
    const sh_index *longer;  /* of leading columns, with longer filter codes */
    sh_index *of_call;       /* of the features that the call uses; freed at its end */
} choice;

static void load_indexes(const sh_memory *m, choice *c) {
    c->leading = atomic_load(&m->indexes->index[SH_LEADING_INDEX]);
    c->all = atomic_load(&m->indexes->index[SH_ALL_INDEX]);
    c->longer = atomic_load(&m->indexes->index[SH_LONGER_INDEX]);
}

/* Builds longer filter codes and stores them, unless another thread was faster. */
static sh_status build_longer_codes(sh_context *context, const sh_memory *m, choice *c) {
    sh_index *base = atomic_load(&m->indexes->index[SH_LEADING_INDEX]), *index, *expected = NULL;
    sh_status status = sh_index_lengthen_codes(context, m, base, index_budget(m), &index);
    if (index && !atomic_compare_exchange_strong(&m->indexes->index[SH_LONGER_INDEX], &expected, index))
        sh_index_free(context, index);
    c->longer = atomic_load(&m->indexes->index[SH_LONGER_INDEX]);
    return status;
}

/* Estimates a query's share of the scan. In any order of the patterns, k log(M / k) of them are among the k best for a
 * while. */
static double work_of_scan(const sh_job *job) {
    const double n = (double)job->memory->patterns.n, k = (double)job->plan.k_best;
    return n * (double)job->memory->patterns.d + (k > 0 ? LIST_WORK * k * log(n / k + 1) : 0);
}

/* Takes an index, unless it is NULL, in place of *best, if a pilot finds it cheaper than that one's pilot says. */
static sh_status try_index(sh_job *job, const sh_index *index, const sh_index **best, trial *t) {
    trial other;
    if (!index) return SH_OK;
    sh_status status = pilot(job, index, &other);
    if (status != SH_OK || !(mean_work(&other, NULL, work_of_scan(job)) < mean_work(t, NULL, work_of_scan(job))))
        return status;
    *best = index;
    *t = other;
    return SH_OK;
}

/* Chooses by pilots: leading columns, longer codes of them, those of the call's own features, all columns, or none. */
static sh_status choose_by_pilots(sh_job *job, choice *c) {
    const sh_memory *m = job->memory;
    const double numbers = (double)m->patterns.n * (double)m->patterns.d;
    const double all_codes = numbers * sh_code_kernels_chosen()->cost, scan = work_of_scan(job);
    trial leading, all;
    double by_leading = INFINITY, by_all = INFINITY, by_both = INFINITY;
    sh_status status = SH_OK;
    if (c->leading) {
        const sh_index *base = c->leading;
        status = pilot(job, base, &leading);
        if (status == SH_OK && !c->longer && mean_work(&leading, NULL, scan) > 2 * sh_work_of_codes(base))
            status = build_longer_codes(job->context, m, c);
        if (status == SH_NO_MEMORY) status = SH_OK; /* then by what there is */
        if (status == SH_OK) status = try_index(job, c->longer, &c->leading, &leading);
        if (status == SH_OK) status = build_call_index(job, base, mean_work(&leading, NULL, scan), &c->of_call);
        if (status == SH_NO_MEMORY) status = SH_OK;
        if (status == SH_OK) status = try_index(job, c->of_call, &c->leading, &leading);
        if (status == SH_OK && !c->all && median_work(&leading) > 1.2 * all_codes && all_codes < 0.6 * scan &&
            sh_may_add_all_columns(m, base)) {
            status = build_index(job->context, m, SH_ALL_COLUMNS, index_budget(m));
            if (status == SH_NO_MEMORY) status = SH_OK;
            c->all = atomic_load(&m->indexes->index[SH_ALL_INDEX]);
        }
        by_leading = mean_work(&leading, NULL, scan);
    }
    if (status == SH_OK && c->all) {
        status = pilot(job, c->all, &all);
        by_all = mean_work(&all, NULL, scan);
        if (c->leading) by_both = mean_work(&leading, &all, scan);
    }
    const double least = fmin(by_both, fmin(by_leading, by_all));
    if (!(least < INDEX_GAIN * scan) || least == by_all) c->leading = NULL;
    if (!(least < INDEX_GAIN * scan) || (least == by_leading && least < by_both)) c->all = NULL;
    return status;
}

/* Chooses the indexes that a call takes, and builds what the path asks for or what pays. */
static sh_status choose_indexes(sh_job *job, choice *c) {
    const sh_memory *m = job->memory;
    sh_path path = job->context->path;
    const int automatic = path == SH_PATH_AUTO;
    int64_t n = job->queries.n;
    int build = path == SH_PATH_LINES ? !c->leading : path == SH_PATH_COLUMNS ? !c->all : 0;
    sh_status status = SH_OK;
    if (automatic) {
        double work = fmax((double)n, READ_WORK) * (double)m->patterns.n * (double)m->patterns.d;
        if (!c->leading && !c->all) status = find_whether_index_pays(job, &build);
        int small = work < LEAST_WORK || m->patterns.n < INDEX_PATTERNS;
        if (small && !build && job->goal != SH_GOAL_SURVEY) *c = (choice){0};
    }
    if (status == SH_OK && build) {
        status = build_index(job->context, m,
                             automatic               ? SH_EITHER_COLUMNS
                             : path == SH_PATH_LINES ? SH_LEADING_COLUMNS
                                                     : SH_ALL_COLUMNS,
                             automatic ? index_budget(m) : INT64_MAX);
        load_indexes(m, c);
    }
    if (path == SH_PATH_LINES && c->leading) c->all = NULL;
    if (path == SH_PATH_COLUMNS && c->all) c->leading = NULL;
    return status == SH_OK && automatic && n >= PILOT_QUERIES ? choose_by_pilots(job, c) : status;
}

sh_status sh_answer_by_index(sh_job *job) {
    sh_context *context = job->context;
    sh_plan *plan = &job->plan;
    const int automatic = context->path == SH_PATH_AUTO;
    if (context->path == SH_PATH_SCAN || (automatic && job->memory->indexes->use == SH_INDEX_NEVER)) return SH_OK;
    int64_t n = job->queries.n, unserved = n;
    choice c = {0};
    load_indexes(job->memory, &c);
    sh_status status = choose_indexes(job, &c);
    if (status == SH_NO_MEMORY && automatic) { /* the scan needs less */
        c.leading = c.all = NULL;
        atomic_store(&job->memory->indexes->queries_asked, 0); /* try again only after as many */
        status = SH_OK;
    }
    if (status == SH_OK && (c.leading || c.all)) {
        plan->scan_queries = plan->unserved;
        if (c.leading) {
            status = sh_index_search(job, c.leading, /* all */ NULL, n, job->out.counts, /* work */ NULL,
                                     plan->scan_queries, &plan->scan_count);
            unserved = atomic_load(&plan->scan_count);
        }
        assert(unserved >= 0 && unserved <= n);
        if (status == SH_OK && c.all && unserved) {
            int64_t *queries = NULL; /* all, or those that c.leading left */
            if (c.leading)
                queries = memcpy(plan->scan_queries + n, plan->scan_queries, (size_t)unserved * sizeof *queries);
            atomic_store(&plan->scan_count, 0);
            status = sh_index_search(job, c.all, queries, unserved, queries ? NULL : job->out.counts,
                                     /* work */ NULL, plan->scan_queries, &plan->scan_count);
        }
    }
    sh_index_free(context, c.of_call);
    return status;
}
