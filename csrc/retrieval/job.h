/* job.h: what the files of this room share: memories, the job of one call, tiles of scores, and how results are made.
 *
 * Every public function describes its call as a job and runs it by sh_run:
 *   maps with a cutoff   plan.c chooses an index or none; index/query.c answers the queries that the index can; scan.c
 *                        answers the others tile by tile; queries whose candidates outgrow its lists go to overflow.c,
 *                        which stores whole rows of scores; rescore.c turns candidates into results;
 *   full-support maps    streaming.c carries {scale, sum, mixture} over the tiles; of maps with a reach (softmax), queries
 *                        with few patterns within it are answered by an index, or from the candidates that
 *                        streaming.c lists meanwhile, and their results are canonical, too (rescore.c, note 2);
 *   structures           the k best are found as for maps with a cutoff, whatever the map; pairs.c does the others;
 *   candidates           of maps with a reach are found as those of a map whose cutoff it is, too.
 * The grid of blocks, ranges and tiles follows from the shapes alone, never from the number of threads; but for the
 * ranges of scan.c, whose number changes no result.
 *
 * Rows and positions: patterns are rows of the caller's array, some of which may be removed (removed.c). Candidates, tiles
 * and indexes name patterns by their rows; what a call takes in and gives out (hints, entries, radii ...) by their
 * positions, which count the rows that are left. Positions ascend with rows, so their order is the same.
 */
#ifndef SH_JOB_H
#define SH_JOB_H
#include "runtime/runtime.h"
#include "runtime/system.h"
#include "runtime/workspace.h"
#include "separation/separation.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    SH_TILE = 1024,                  /* patterns a tile */
    SH_BLOCK = 768,                  /* queries a block, at most */
    SH_PAIR_CAPACITY = 1024,         /* candidates that a list of pairs.c holds, at most */
    SH_ITEMS = 64,                   /* work items wanted, so that few queries still occupy all threads */
    SH_TILE_ROW_BYTES = 1024 * 1024, /* of a tile's rows that are widened at a time, at least 64 columns */
    SH_MIXED_TOGETHER = 4,           /* rows that kernels mix at a time, which decides how sums are rounded */
    SH_HINTS = 4,                    /* patterns that one update of a query suggests to the next */
};

/* The indexes of a memory: with filter codes of leading columns, of all columns, of more leading columns. */
enum { SH_LEADING_INDEX, SH_ALL_INDEX, SH_LONGER_INDEX, SH_INDEXES };

/* The indexes of a memory (index.h), which calls build once and then only read, and what removed rows make necessary
 * (removed.c). A call may take an index out of `older` and extend it to all rows. */
typedef struct {
    struct sh_index *_Atomic index[SH_INDEXES];      /* NULL: not built */
    struct sh_index *_Atomic older[SH_LONGER_INDEX]; /* the first two of the memory that this one extends */
    int64_t older_patterns;                          /* that these cover; 0: there are none */
    _Atomic int64_t queries_asked;                   /* so far, which decides when an index is built */
    _Atomic double share_in_reach; /* of softmax: the share of the last stream's queries that had few patterns within
                                      reach, or NaN */
    sh_index_use use;              /* whether calls build one */
    _Atomic int64_t longest;       /* a row of the largest norm; perhaps removed since */
    sh_memory *_Atomic packed;     /* the patterns that are left, copied together; NULL: not yet */
} sh_indexes;

typedef struct sh_row_terms sh_row_terms;

/* Which rows of a memory are removed; never changed once made. */
typedef struct {
    _Atomic int64_t references; /* memories that read it */
    int64_t rows;               /* it tells of the first so many; all later ones are left */
    int64_t count;              /* rows removed */
    uint64_t *bits;             /* (ceil(rows / 64)) 1: removed */
    int64_t *before;            /* (ceil(rows / SH_COUNTED_ROWS) + 1) removed ones before each so many rows, and all */
} sh_removed;
enum { SH_COUNTED_ROWS = 512 };

/* The sizes of a memory's patterns, and those that are much larger than nearly all others (outliers.c); never changed once
 * made. A pattern's size is its norm or, in a centred memory, its distance from the centre. */
enum { SH_SIZES = 256 };
typedef struct {
    _Atomic int64_t references;        /* memories that read it */
    _Atomic int64_t norms[SH_SIZES];   /* patterns by their norms, in powers of 2, */
    _Atomic int64_t spreads[SH_SIZES]; /* and by their distances from the centre; as the rest, of removed rows, too */
    int64_t n;                         /* outliers */
    double limit;                      /* sizes of outliers are at least this, all others less; or INFINITY */
    sh_candidate *outlier;             /* (n) by position; in place of its score, its size */
} sh_outliers;

struct sh_memory {
    const sh_kernels *k;
    sh_type type;
    sh_similarity similarity;
    sh_rows patterns, values;     /* values: the patterns if none were given; with the rows that are removed */
    int has_values;               /* values are not the patterns */
    int mapped;                   /* both lie in a mapped file */
    sh_removed *removed;          /* or NULL: no row is */
    void *packed_rows[2];         /* of a packed memory: the patterns and values that it owns; else NULL */
    double *bias, *scale;         /* (M) in double, or NULL: of canonical scores */
    void *tile_bias, *tile_scale; /* the same in the compute type: of tiles of scores */
    void *centre;                 /* (d) of the compute type, of euclidean memories: a copy of a pattern, */
    int64_t centre_row;           /* of this one, nearly always the first (memory.c, note 1) */
    int centred;                  /* whether tiles, and tile_bias, are of differences from it (memory.c, note 1) */
    double max_spread;            /* max |xi - centre|; where not centred, no less than it */
    int has_fingerprint;          /* whether that of the patterns is known since they were read: */
    uint64_t fingerprint;
    sh_row_terms *row_terms;    /* holds biases or scales; shared with the memories that this one extends */
    double max_norm;            /* max |xi| after scaling; as the next three, of removed rows, too */
    double max_bias, max_scale; /* max |bias|; max scale, at least 1 */
    double max_raw_norm;        /* max |xi| as stored, which bounds products */
    int64_t whole_count;        /* patterns of the whole that these are part of (sh_memory_set_whole); 0: of none, */
    double whole_max_norm;      /* and its max |xi| */
    sh_outliers *outliers;      /* or NULL: scores by cosine have none */
    sh_indexes *indexes;
};

/* One entry of a list that sh_associate returns. */
typedef struct {
    int64_t position;
    double score, weight;
} sh_entry;
typedef struct {
    int64_t n;
    sh_entry *entry;
} sh_entry_list;

/* The stages of a search, after each of which sh_survey counts the patterns of a query that are left. */
enum { SH_LISTED, SH_AFTER_REFINEMENT, SH_SCORED, SH_IN_SUPPORT, SH_STAGES };

/* What a job is to find of each query. Structures of pairs (pairs.c) answer goals up to SH_GOAL_WEIGHTS. */
typedef enum {
    SH_GOAL_UPDATE,     /* its new state, its support's size, hints for the next update */
    SH_GOAL_ENERGY,     /* its energy */
    SH_GOAL_WEIGHTS,    /* a list of patterns with score and weight */
    SH_GOAL_CANDIDATES, /* a list of those in the support, or within reach, that are not below its floor */
    SH_GOAL_NEAREST,    /* the `count` best patterns, whatever their weights */
    SH_GOAL_RADIUS,     /* of a query that is a pattern: the radius of a ball around it that is retrieved as it */
    SH_GOAL_PARTIAL,    /* scale, sum and mixture of a map with full support */
    SH_GOAL_SURVEY,     /* the patterns left after each stage of the search */
} sh_goal;

/* Inputs of SH_GOAL_RADIUS, whose queries are patterns. `self` and `norm_offset` go by positions. */
typedef struct {
    const int64_t *self;           /* (N) position of the query among the patterns */
    const double *self_score;      /* (N) its score with itself */
    const double *required_gap;    /* (N) by how much that must exceed other scores */
    const double *norm_offset;     /* (M) turns gaps of scores into squared distances */
    double min_offset, max_offset; /* of norm_offset */
    double slack;                  /* added to squared distances */
} sh_radius_search;

/* Where results go. NULL: not wanted. Trial runs (plan.c) have no outputs. */
typedef struct {
    void *states;                 /* (N, v) of the compute type */
    int64_t *support_size;        /* (N) */
    int32_t *hints;               /* (N, SH_HINTS) the patterns of most weight, or -1 */
    double *energy;               /* (N) */
    sh_entry_list *lists;         /* (N) zeroed */
    uint8_t *too_many;            /* (N) of SH_GOAL_CANDIDATES: 1, and 0 once a list is stored */
    sh_candidate *nearest;        /* (N, count) from the best down */
    sh_candidate *rival;          /* (N) the pattern of the least quotient; its score is the quotient */
    sh_partial partial;           /* of SH_GOAL_PARTIAL */
    int64_t (*counts)[SH_STAGES]; /* (N) those of sh_survey */
} sh_outputs;

/* Patterns, values and queries were finite when they were checked, but their owner may have written into them since. So
 * a score or state that is not finite is noted where it is computed, and sh_run then finds the input that caused it. */
enum { SH_SCORE_NOT_FINITE = 1, SH_STATE_NOT_FINITE = 2 };

/* What sh_run derives from the inputs, and the lists of queries that its steps hand on. */
typedef struct {
    int64_t k_best;        /* k > 0: only the k best scores count, ties by position */
    double reach;          /* of a map with full support: how far below the best, times beta, a score may lie and
                                     have weight in canonical results; 0: these are not for it */
    int64_t most_in_reach; /* for results of it to be canonical; both of a query that sees all patterns, */
    double reach_less_one; /* and of one that excludes a pattern */
    int64_t most_in_reach_less_one;
    int64_t *excluded;              /* (N) rows of the patterns that queries exclude, or -1; NULL: none does */
    _Atomic int64_t in_reach_count; /* queries that streaming.c has answered so */
    const double *value_scale;      /* (M) 1/|xi| where patterns are the values and scores are by cosine, or NULL */
    const void *tile_value_scale;   /* the same in the compute type */
    const void *value_centre;       /* (v) what tiles of values are taken from, or NULL */
    const void *centre;             /* (d) what tiles of patterns are taken from, or NULL */
    const void *tile_bias;          /* (M) of tiles of scores, or NULL */
    void *differences;              /* (N, d) queries less the centre, or NULL */
    double *slack;                  /* (N) how far a score of the tiles, but of an outlier, may be from the exact one */
    const sh_outliers *outliers;    /* NULL: there are none. Else: */
    double relative, *length;       /* (N) slack = relative (length size + ...): |x|, or |x - centre| */
    int allows_for_rounding;        /* sh_allow_for_rounding was here */
    double *shift;                  /* (N) -|x|^2 / 2, or -|x - centre|^2 / 2, where scores are by distance; or NULL */
    _Atomic int *not_finite;        /* SH_SCORE_NOT_FINITE, SH_STATE_NOT_FINITE: what was seen */
    int64_t *unserved;     /* (2 N) memory for the lists of queries that one index leaves, and the other reads */
    int64_t *scan_queries; /* (scan_count) those that no index serves, in any order; NULL: all */
    _Atomic int64_t scan_count;
    int64_t *overflow_queries; /* (N) queries with too many candidates for a list, for overflow.c */
    _Atomic int64_t overflow_count;
    int64_t longest_list; /* of the scan, if that is less than the largest sh_exact_support; 0: that */
    int64_t blocks, block_rows, ranges, tiles;
} sh_plan;

typedef struct {
    sh_goal goal;
    /* inputs */
    sh_context *context;
    const sh_memory *memory;
    sh_model model;
    sh_queries queries;
    const sh_rows *values;                 /* (M, v) what states mix; NULL: the memory's */
    const int32_t *hints;                  /* (N, SH_HINTS) patterns likely to score well, or -1; NULL: none */
    int64_t count;                         /* of SH_GOAL_NEAREST: 1 to SH_NEAREST */
    const sh_radius_search *radius_search; /* of SH_GOAL_RADIUS */
    int64_t top;                           /* of SH_GOAL_WEIGHTS: at most so many of the largest weights; 0: all */
    double min_weight;                     /* of SH_GOAL_WEIGHTS */
    const double *floor;                   /* (N) of SH_GOAL_CANDIDATES: lower scores are out; NULL: none is */
    int64_t most;                          /* of SH_GOAL_CANDIDATES: patterns within reach that a list may have */
    sh_outputs out;
    /* set by sh_run */
    const sh_kernels *k;
    const sh_map *map;
    sh_plan plan;
} sh_job;

/* Tells whether a failure is that of a query, whose number the context then has. */
static inline int sh_is_query_failure(const sh_context *context) {
    return context->argument && (!strcmp(context->argument, "queries") || !strcmp(context->argument, "beta"));
}

/* Returns how many queries no index has served, and which they are. */
static inline int64_t sh_scan_count(const sh_job *job) {
    return job->plan.scan_queries ? atomic_load(&job->plan.scan_count) : job->queries.n;
}
static inline int64_t sh_scan_query(const sh_job *job, int64_t i) {
    return job->plan.scan_queries ? job->plan.scan_queries[i] : i;
}
/* Leaves a query to sh_overflow; threads may do so in any order. */
static inline void sh_leave_to_overflow(sh_job *job, int64_t query) {
    job->plan.overflow_queries[atomic_fetch_add(&job->plan.overflow_count, 1)] = query;
}
/* sh_count: returns how many patterns there are: M, without those that are removed. */
static inline int64_t sh_count(const sh_memory *m) { return m->patterns.n - (m->removed ? m->removed->count : 0); }
/* Tells whether a row is removed. */
static inline int sh_is_removed(const sh_memory *m, int64_t row) {
    const sh_removed *r = m->removed;
    return r && row < r->rows && (r->bits[row / 64] >> (row % 64) & 1);
}
/* sh_position_of: returns the position of a row; of a removed one, that of the next row that is left. */
static inline int64_t sh_position_of(const sh_memory *m, int64_t row) {
    const sh_removed *r = m->removed;
    if (!r) return row;
    if (row >= r->rows) return row - r->count;
    int64_t before = r->before[row / SH_COUNTED_ROWS];
    for (int64_t word = row / SH_COUNTED_ROWS * (SH_COUNTED_ROWS / 64); word < row / 64; word++)
        before += __builtin_popcountll(r->bits[word]);
    return row - before - __builtin_popcountll(r->bits[row / 64] & (((uint64_t)1 << (row % 64)) - 1));
}
/* removed.c. sh_row_of: returns the row of a position. */
int64_t sh_row_of(const sh_memory *m, int64_t position);
/* sh_hide_removed: makes the scores (rows, n) of removed patterns among the rows [first, first + n) -inf. */
void sh_hide_removed(const sh_memory *m, int64_t rows, int64_t first, int64_t n, void *scores, int64_t ld);
/* sh_release_removed: gives up one reference; the last frees it. NULL is ignored. */
void sh_release_removed(sh_context *context, sh_removed *removed);
/* outliers.c. sh_new_outliers: returns sizes like those of an older memory (NULL: none), without outliers; or NULL.
 * sh_count_sizes: adds n sizes to counts. sh_outlier_limit: returns from which size on patterns are outliers, given those
 * counts; INFINITY: none is. sh_find_outliers: lists those of a memory whose sizes are counted; `old` is the memory that it
 * extends, or NULL. */
sh_outliers *sh_new_outliers(sh_context *context, const sh_outliers *old);
void sh_retain_outliers(sh_outliers *outliers);
void sh_release_outliers(sh_context *context, sh_outliers *outliers);
void sh_count_sizes(const double *size, int64_t n, _Atomic int64_t *counts);
double sh_outlier_limit(const _Atomic int64_t *counts, int64_t patterns, double largest);
sh_status sh_find_outliers(sh_context *context, sh_memory *m, const sh_memory *old, double centre_norm);
/* sh_longest_row: returns the row of a largest pattern, once sh_memory_max_norm was asked.
 * sh_max_norm_without: gives max |xi| of all patterns but that of one row; -1 of none. */
static inline int64_t sh_longest_row(const sh_memory *m) { return atomic_load(&m->indexes->longest); }
sh_status sh_max_norm_without(sh_context *context, const sh_memory *m, int64_t row, double *norm);
/* sh_pack: gives the memory of the patterns that are left, made anew of a copy that has them together. It stays with
 * the memory, and serves its later calls. */
sh_status sh_pack(sh_context *context, const sh_memory *m, const sh_memory **packed);
/* memory.c: sh_norm: computes |x|, also where the sum of squares leaves the range of double. NaN or inf if x has one. */
double sh_norm(const sh_kernels *k, const void *x, int64_t d);
/* sh_spread: computes the distance of a row of this norm from the centre; or, where it is so large that the memory is not
 * centred but for outliers, a bound on it. centre_norm: not below |centre|. */
double sh_spread(const sh_memory *m, const void *row, double norm, double centre_norm);
/* sh_share_indexes: takes references to the indexes of an old memory, whose rows are the first of these: to be used if
 * there are no others, else to be grown. */
void sh_share_indexes(sh_context *context, sh_memory *m, const sh_memory *old);
/* sh_retain_terms: adds a reference to the biases or scales of a memory, if it has any; sh_memory_free gives it up. */
void sh_retain_terms(sh_row_terms *terms);
/* sh_allocate_memory: returns a memory of zeros with space for its indexes, and for a centre if it is euclidean; or NULL. */
sh_memory *sh_allocate_memory(sh_context *context, sh_similarity similarity, int64_t d);

/* sh_run: does the whole job. Checks the queries (finite, no overflow) before any output is touched. */
sh_status sh_run(sh_job *job);
/* memory.c: computes a hash, which any change leaves with a chance of 2^-64; the sum of those of all rows of patterns, as
 * they are stored, is their fingerprint. */
uint64_t sh_hash(const char *data, size_t bytes, uint64_t seed);
sh_status sh_patterns_fingerprint(sh_context *context, const sh_memory *memory, uint64_t *fingerprint);
/* memory.c: sh_memory_make: does what sh_memory_new does; with_fingerprint: and computes that of the patterns in the same
 * pass, so that an import of indexes needs no other. */
sh_status sh_memory_make(sh_context *context, int with_fingerprint, const sh_rows *patterns, const sh_rows *values,
                         sh_similarity similarity, sh_type type, sh_memory **memory);
/* sh_check_call: refuses, by name, a path, a memory and queries that cannot be used; reads no number of them. */
sh_status sh_check_call(sh_context *context, const sh_memory *memory, const sh_queries *queries);
/* The steps of sh_run. Each answers the queries that it can. */
sh_status sh_answer_by_index(sh_job *job); /* plan.c; the others go to scan_queries */
sh_status sh_scan(sh_job *job);            /* those of scan_queries; the others go to overflow_queries */
sh_status sh_overflow(sh_job *job);        /* those of overflow_queries */
sh_status sh_stream(sh_job *job);          /* those of scan_queries; the others go to overflow_queries */
sh_status sh_answer_pairs(sh_job *job);
/* sh_raise_scale: brings the {scale, sum, mixture} of one query to the scale `row_scale` of more scores, if that is
 * larger; NaN is the scale of no scores. */
void sh_raise_scale(const sh_job *job, int64_t query, double *scale, double *sum, void *mixture, double row_scale);
/* sh_set_grid: sets blocks, ranges and tiles for n queries. */
void sh_set_grid(sh_job *job, int64_t n);
/* A work item of the grid: one block of queries, one range of tiles. */
typedef struct {
    int64_t range, first_query, rows, first_tile, last_tile;
} sh_grid_item;
static inline sh_grid_item sh_item_of_grid(const sh_job *job, int64_t item, int64_t n) {
    const sh_plan *p = &job->plan;
    sh_grid_item g = {.range = item % p->ranges, .first_query = item / p->ranges * p->block_rows};
    g.rows = sh_min(p->block_rows, n - g.first_query);
    g.first_tile = p->tiles * g.range / p->ranges;
    g.last_tile = p->tiles * (g.range + 1) / p->ranges;
    assert(g.rows >= 1 && g.rows <= SH_BLOCK && g.first_tile < g.last_tile && g.last_tile <= p->tiles);
    return g;
}

/* sh_tile_scores: computes the products of queries (rows, d) (sh_tile_query) with the patterns [first, first + n): scores
 * (rows, n), whose rows lie `ld` apart; -inf of removed ones. Scale and bias are the caller's, by affine_max.
 * tile_rows: sh_tile_row_bytes. */
void sh_tile_scores(const sh_job *job, const sh_rows *patterns, const void *queries, int64_t rows, int64_t first,
                    int64_t n, void *scores, int64_t ld, void *tile_rows);
/* excluded.c. sh_check_exclude: refuses what queries cannot exclude (sh_queries).
 * sh_hide_excluded: makes a query's score of the pattern that it excludes count for nothing, if that is among the rows
 * [first, first + n) of its scores; returns whether it is.
 * sh_sees_none: tells whether the pattern that a query excludes is the only one among these rows.
 * sh_least_score: returns a score that those of hidden patterns are below, and those of others are not. */
sh_status sh_check_exclude(sh_context *context, const sh_memory *memory, const sh_queries *queries);
int sh_hide_excluded(const sh_job *job, int64_t query, int64_t first, int64_t n, void *scores);
int sh_sees_none(const sh_job *job, int64_t query, int64_t first, int64_t n);
double sh_least_score(const sh_job *job);
/* Some outliers of a job: those among certain rows. */
typedef struct {
    const sh_candidate *outlier; /* (n) sizes in place of scores */
    int64_t n;
} sh_outlier_range;
/* outliers.c. sh_outliers_of: returns those among the rows [first, first + n).
 * sh_hide_outliers: moves their scores from a row of scores that begins with pattern `first` to scores (o.n), and makes
 * them -inf; returns the best of the others, given the best of all, or -INFINITY.
 * sh_outlier_slack: returns how far the score of an outlier of this size may be from the canonical one.
 * sh_settle_outliers: replaces the scores of outliers by canonical ones, rounded, where these can matter: in a row of at
 * most SH_TILE scores, less `shift`, of a query whose best score so far is `best` (NaN: there was none).
 * sh_allow_for_rounding: adds that rounding to the slack of all queries, once, before rows are settled. */
sh_outlier_range sh_outliers_of(const sh_job *job, int64_t first, int64_t n);
double sh_hide_outliers(const sh_job *job, sh_outlier_range o, int64_t first, int64_t n, void *row, double best,
                        double *scores);
double sh_outlier_slack(const sh_job *job, int64_t query, double size);
void sh_settle_outliers(const sh_job *job, int64_t query, int64_t first, int64_t n, void *row, double best,
                        double shift, void *widened_row);
void sh_allow_for_rounding(sh_job *job);
/* sh_tile_mix: out[rows x columns] (+)= p[rows x n] * values[first .. first + n, column .. column + columns), less
 * value_centre. As weights sum to 1, the caller adds the centre to what is mixed at the end. */
void sh_tile_mix(const sh_job *job, const void *p, int64_t ldp, int64_t rows, int64_t first, int64_t n, int64_t column,
                 int64_t columns, int add, void *out, int64_t ldo, void *tile_rows);
size_t sh_tile_row_bytes(const sh_memory *memory);
/* sh_mix_selected: adds to out (d) the sum of weights[i] x row number index[i]. Its bits are the same for float32 rows, which
 * double widens, as for those numbers in double. widened_rows: (SH_MIXED_TOGETHER, d), of narrow rows. */
void sh_mix_selected(const sh_kernels *k, const sh_rows *rows, const void *weights, const int32_t *index, int64_t n,
                     void *out, void *widened_rows);
/* Tells whether rows are of a type narrower than the compute type, to be widened where they are used. */
static inline int sh_is_narrow(const sh_kernels *k, const sh_rows *rows) {
    return sh_size_of(rows->type) < (int64_t)k->size;
}
/* Returns row i in the compute type: in place, or widened into `widened_row` (d). */
const void *sh_row_at(const sh_kernels *k, const sh_rows *rows, int64_t i, void *widened_row);
/* Fetches row i into the cache, where rows are read in no order. */
void sh_prefetch_row(const sh_rows *rows, int64_t i);
/* Has row i of a memory's patterns or values read from the file that it is mapped from, if it is. */
static inline void sh_expect_row(const sh_memory *m, const sh_rows *rows, int64_t i) {
    if (m->mapped)
        sh_expect_read((const char *)rows->data + i * rows->stride, (size_t)(rows->d * sh_size_of(rows->type)));
}
/* Returns how many rows ahead of their use it pays to fetch. */
int64_t sh_prefetch_distance(const sh_rows *rows);
/* Returns the address of element i of an array of the compute type. */
static inline void *sh_at(const sh_kernels *k, const void *base, int64_t i) {
    return (char *)base + i * (int64_t)k->size;
}
static inline const void *sh_query(const sh_job *job, int64_t i) {
    return sh_at(job->k, job->queries.data, i * job->memory->patterns.d);
}
/* Computes |x|^2 / 2 of a query. */
static inline double sh_half_square(const sh_job *job, int64_t i) {
    const void *x = sh_query(job, i);
    return job->k->dot(x, x, job->memory->patterns.d) / 2;
}
/* Notes a score that is not finite. */
static inline void sh_note_score_if_not_finite(const sh_job *job, double score) {
    if (!isfinite(score) && job->plan.not_finite) atomic_fetch_or(job->plan.not_finite, SH_SCORE_NOT_FINITE);
}
/* Notes rows of states that are not finite, where scores may not have shown it. */
static inline void sh_note_states_if_not_finite(const sh_job *job, const void *states, int64_t rows) {
    if (!job->values->unchecked && !isfinite(job->k->max_abs(states, rows * job->values->d)))
        atomic_fetch_or(job->plan.not_finite, SH_STATE_NOT_FINITE);
}
static inline double sh_beta(const sh_job *job, int64_t i) { return job->queries.beta[i * job->queries.beta_stride]; }
/* sh_whole_count: returns how many patterns there are of the whole, by which all limits go: M, unless these are part of
 * more (sh_memory_set_whole). */
static inline int64_t sh_whole_count(const sh_memory *m) { return m->whole_count ? m->whole_count : sh_count(m); }
/* Returns the row of the pattern that a query excludes, or -1 (excluded.c). */
static inline int64_t sh_excluded(const sh_job *job, int64_t query) {
    return job->plan.excluded ? job->plan.excluded[query] : -1;
}
/* Tells whether a row is removed, or its pattern excluded by a query. */
static inline int sh_is_hidden(const sh_job *job, int64_t query, int64_t row) {
    return sh_is_removed(job->memory, row) || row == sh_excluded(job, query);
}
/* Returns how many patterns of the whole a query sees, by which its limits go. */
static inline int64_t sh_seen_count(const sh_job *job, int64_t query) {
    return sh_whole_count(job->memory) - (sh_excluded(job, query) >= 0);
}
/* sh_exact_support: returns the largest support whose weights come from canonical scores, whichever path answers the query;
 * larger ones may take those of the product (overflow.c, note 2). sh_exact_support_of: of a query that sees so many
 * patterns. */
static inline int64_t sh_exact_support_of(int64_t patterns) { return sh_max(SH_EXACT_SUPPORT, patterns / 16); }
static inline int64_t sh_exact_support(const sh_job *job, int64_t query) {
    return sh_exact_support_of(sh_seen_count(job, query));
}
/* Returns reach, and most_in_reach, of a query (sh_plan). */
static inline double sh_reach_of(const sh_job *job, int64_t query) {
    return sh_excluded(job, query) < 0 ? job->plan.reach : job->plan.reach_less_one;
}
static inline int64_t sh_most_in_reach(const sh_job *job, int64_t query) {
    return sh_excluded(job, query) < 0 ? job->plan.most_in_reach : job->plan.most_in_reach_less_one;
}
/* Tells whether scores and weights are canonical, however large the support is: lists are wanted. */
static inline int sh_is_list(const sh_job *job) {
    return job->goal == SH_GOAL_WEIGHTS || job->goal == SH_GOAL_CANDIDATES;
}
/* Returns the floor of a query, less some slack; -INFINITY where there is none. */
static inline double sh_floor(const sh_job *job, int64_t query, double slack) {
    return job->floor ? job->floor[query] - slack : -INFINITY;
}
/* Tells whether scores below the map's cutoff, or out of reach, do not matter: weights are wanted, not ranks. */
static inline int sh_has_cutoff(const sh_job *job) {
    return (job->map->cutoff || job->plan.reach > 0) && job->goal != SH_GOAL_NEAREST && job->goal != SH_GOAL_RADIUS;
}
/* Returns how far below the best a canonical score of a query may lie, times beta, and have weight. */
static inline double sh_cutoff(const sh_job *job, int64_t query) {
    return job->map->cutoff ? job->map->cutoff(job->model.parameter) : sh_reach_of(job, query);
}
/* Tells whether scores are -|x - xi|^2/2 (rescore.c). */
static inline int sh_by_distance(const sh_job *job) {
    return job->memory->similarity == SH_EUCLIDEAN && job->map->shift_invariant;
}
/* Returns what is added to a score of a tile by distance; 0 for other scores. */
static inline double sh_shift(const sh_job *job, int64_t query) { return job->plan.shift ? job->plan.shift[query] : 0; }
/* Computes the energy of a query from its conjugate over beta. */
static inline double sh_energy_of(const sh_job *job, int64_t query, double conjugate) {
    return sh_by_distance(job) ? -conjugate : sh_half_square(job, query) - conjugate;
}
/* Tells whether scores of tiles are too inaccurate for weights, which then come from canonical ones: euclidean scores
 * cancel far from the origin. SH_WEIGHT_ERROR bounds the relative error that a weight may have; it has much less. */
#define SH_WEIGHT_ERROR 0x1p-6
static inline int sh_needs_canonical_scores(const sh_job *job, int64_t query) {
    return sh_by_distance(job) && sh_beta(job, query) * job->plan.slack[query] > SH_WEIGHT_ERROR;
}
/* Returns a query as tiles take it; sh_gather_queries copies those of these numbers together. */
static inline const void *sh_tile_query(const sh_job *job, int64_t i) {
    return job->plan.differences ? sh_at(job->k, job->plan.differences, i * job->memory->patterns.d) : sh_query(job, i);
}
static inline void sh_gather_queries(const sh_job *job, const int64_t *queries, int64_t n, void *gathered) {
    const int64_t d = job->memory->patterns.d;
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)gathered + i * d * (int64_t)job->k->size, sh_tile_query(job, queries[i]),
               (size_t)d * job->k->size);
}
static inline const void *sh_tile_bias(const sh_job *job, int64_t i) {
    return job->plan.tile_bias ? sh_at(job->k, job->plan.tile_bias, i) : NULL;
}
static inline const void *sh_tile_scale(const sh_memory *m, int64_t i) {
    return m->tile_scale ? sh_at(m->k, m->tile_scale, i) : NULL;
}

/* rescore.c: from candidates to results. Scratch of one worker: */
typedef struct {
    double *mixture;   /* (v) the state as it is summed */
    void *widened_row; /* (max(d, v)) */
    double *z;         /* (candidates) scaled scores, then the weights that they become in place */
} sh_result_scratch;
/* Takes it from a workspace, for at most so many candidates. */
sh_result_scratch sh_take_result_scratch(const sh_job *job, sh_workspace *w, int64_t candidates);
/* sh_min_score: returns the lowest score that can carry weight (or be among the nearest, or the rival) given these
 * approximate scores, less twice the slack, or the floor less the slack. More scores never lower it. z: scratch for n
 * numbers. */
double sh_min_score(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double *z, double slack);
/* sh_keep_above: removes candidates of less than `min_score`; of a search for radii, all that cannot be the rival. The
 * others stay in order. Returns how many. */
int64_t sh_keep_above(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, double min_score, double slack);
/* sh_score_canonically: gives candidates their canonical scores, whatever scores they have. */
void sh_score_canonically(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, void *widened_row);
/* sh_score_fetched: does the same where the caller has fetched the rows into the cache. */
void sh_score_fetched(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, void *widened_row);
/* sh_keep_in_reach: removes canonical candidates that are below the floor or, of a map with full support, out of reach of
 * the best. The others stay in order. Returns how many. */
int64_t sh_keep_in_reach(const sh_job *job, int64_t query, sh_candidate *c, int64_t n);
/* sh_answer_in_reach: of a map with full support, stores the results of one query from the candidates of all patterns, in
 * order of position, with scores of tiles, unless more than sh_most_in_reach of them are within reach of the best.
 * Returns whether it did in *answered. */
sh_status sh_answer_in_reach(sh_job *job, int64_t query, sh_candidate *c, int64_t n, sh_result_scratch scratch,
                             sh_context *context, int *answered);
/* Returns a score of tiles from which on patterns are certainly within this share of the reach, `best` the best of all, and
 * not below the floor. */
double sh_score_in_reach(const sh_job *job, int64_t query, double best, double share);
/* sh_store_results: writes the results of one query from canonical candidates in order of position (of the k best: any
 * order). */
sh_status sh_store_results(sh_job *job, int64_t query, sh_candidate *c, int64_t n, sh_result_scratch scratch,
                           sh_context *context);
/* sh_count_support: counts the patterns that have weight among canonical candidates. z: scratch for n numbers. */
int64_t sh_count_support(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double *z);
void sh_sort_by_position(sh_candidate *c, int64_t n);
/* The candidates of one query while scores of tiles pass; begun with min_score and best -INFINITY. */
typedef struct {
    int64_t capacity, n;
    double min_score; /* lower scores are out; only rises */
    double best;      /* the best exact score is at least this */
    int overflows;    /* there are more candidates than fit */
    sh_candidate *list;
} sh_candidate_list;
/* scan.c: raises min_score after a best score of some more patterns (note 2 there). */
void sh_raise_min_score(const sh_job *job, int64_t query, sh_candidate_list *l, double best);
/* Returns a copy of a list for another work item to join; NULL where it is empty, there is no memory, or all lists that
 * are handed over, whose candidates *handed counts, would take too much. */
sh_candidate *sh_copy_handed(sh_context *context, _Atomic int64_t *handed, const sh_candidate_list *l);
/* Removes candidates that cannot matter. z holds as many numbers as there are candidates. */
void sh_compact(const sh_job *job, int64_t query, sh_candidate_list *l, double *z);
/* Makes room for some more candidates, or sets `overflows` and returns 0. */
int sh_make_room(const sh_job *job, int64_t query, sh_candidate_list *l, int64_t more, double *z);
/* A list that grows with the support, and the scratch for its results; all zero at first. */
typedef struct {
    int64_t capacity;
    void *memory; /* in which the next two lie */
    sh_candidate *list;
    sh_result_scratch scratch;
} sh_long_list;
/* sh_lengthen_list: makes it twice as long, or `capacity` long at first; the first n candidates stay. Returns 0 where
 * there is no memory. */
int sh_lengthen_list(const sh_job *job, sh_context *context, sh_long_list *l, int64_t n, int64_t capacity);
void sh_release_list(sh_context *context, sh_long_list *l);
/* sh_insert_best: puts c into a list of at most `capacity`, best first, ties by position; returns its length. */
int64_t sh_insert_best(sh_candidate *list, int64_t n, int64_t capacity, sh_candidate c);
/* radii.c: bounds for SH_GOAL_RADIUS. sh_radius_bound: an upper bound on the radius, given these candidates.
 * sh_rival_min_score: the lowest score of a pattern that could give a smaller radius, whatever its norm offset;
 * sh_rival_min_score_at: of one with this offset. */
double sh_radius_bound(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double slack);
double sh_rival_min_score(const sh_job *job, int64_t query, double radius);
double sh_rival_min_score_at(const sh_job *job, int64_t query, double radius, double norm_offset);
/* Returns the norm offset of a row. */
static inline double sh_norm_offset(const sh_job *job, int64_t row) {
    return job->radius_search->norm_offset[sh_position_of(job->memory, row)];
}
/* Tells whether a row is the pattern that a query of a search for radii is. */
static inline int sh_is_self(const sh_job *job, int64_t query, int64_t row) {
    return sh_position_of(job->memory, row) == job->radius_search->self[query];
}
/* Stores the rival of a query, among canonical candidates. */
void sh_store_rival(sh_job *job, int64_t query, const sh_candidate *c, int64_t n);
/* sh_store_entries: stores those of the largest weights that `top` and `min_weight` allow; entries are destroyed. */
sh_status sh_store_entries(sh_job *job, int64_t query, sh_entry *entries, int64_t n, sh_context *context);
#endif
