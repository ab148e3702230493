/* sums.h: what the files of this room share: a job, the workspace of a worker, and the steps that all operations are made
 * of. features.c says how they compute; M and N count patterns and queries, n the rows of a block, D features. */
#ifndef SH_SUMS_H
#define SH_SUMS_H
#include "kernels/kernels.h"
#include "runtime/runtime.h"
#include <stdatomic.h>

enum { SH_FEATURE_BLOCK = 256, SH_CAUSAL_BLOCK = 128, SH_FEATURE_PARTS = 16 };

/* An operation over rows, of a whole call or of one set of rows. */
typedef struct {
    const sh_features *f;
    const sh_kernels *k, *k64;                  /* inner loops of the compute type and of double */
    double root;                                /* sqrt(beta) */
    const sh_rows *patterns, *values, *queries; /* NULL: not needed; values NULL: the patterns */
    const uint8_t *padding;                     /* (M) not 0 where there is no pattern; or NULL */
    sh_feature_state *states;                   /* one for each part */
    int64_t rows, part;                         /* rows of a block and of a part */
    char *means;                                /* (D, v) sum[f] / total[f], in the compute type */
    double *log_weight;                         /* (D) top[f] + log(total[f]); of RELU total[f], up to a factor */
    double least_normaliser;                    /* of causal operations, see sh_features_causal */
    int checked;                                /* rows are known to be finite, and short enough for beta */
    char *out;                                  /* (N, v), rows `stride` numbers apart */
    int64_t stride;
    _Atomic int64_t products; /* multiplications made */
} sh_feature_job;

/* A worker's memory, for blocks of n = job->rows rows. Arrays are of the compute type unless they are double. */
typedef struct {
    char *patterns, *values, *queries; /* (n, d), (n, v), (n, d) copies, where rows cannot be used in place */
    char *phi, *phi_q;                 /* (n, D) features of patterns, and of queries where both are needed */
    char *product;                     /* (D, v) */
    char *kernels;                     /* (n, n) k(query, pattern), and behind them (n) */
    char *prefix_total;                /* (D) totals of the rows before a causal block */
    void *by_feature;                  /* (D) doubles or numbers of the compute type: intermediate results */
    double *rows64, *exponents;        /* of RANDOM (n, d), (n, D); else room for one row */
    double *top;                       /* (D) what phi is in units of: the largest exponents so far */
    double *bias, *normaliser;         /* (n) exponents that patterns have less; sums of kernels of a query */
} sh_feature_workspace;

/* Rows of a block: row i begins at data + i ld numbers. */
typedef struct {
    const char *data;
    int64_t ld;
    const uint8_t *padding; /* not 0 where there is no row; or NULL */
} sh_block;

static inline char *sh_feature_at(const sh_feature_job *j, const void *p, int64_t i) {
    return (char *)p + i * (int64_t)j->k->size;
}
static inline sh_block sh_block_from(const sh_feature_job *j, sh_block b, int64_t i) {
    return (sh_block){sh_feature_at(j, b.data, i * b.ld), b.ld, b.padding ? b.padding + i : NULL};
}
static inline int sh_is_padding(sh_block b, int64_t i) { return b.padding && b.padding[i]; }

/* Computes a matrix product, and counts its multiplications. */
static inline void sh_multiply(sh_feature_job *j, sh_gemm product, int64_t m, int64_t n, int64_t k, const void *a,
                               int64_t lda, const void *b, int64_t ldb, int add, void *c, int64_t ldc) {
    product(m, n, k, a, lda, b, ldb, add, c, ldc);
    atomic_fetch_add_explicit(&j->products, m * n * k, memory_order_relaxed);
}

/* Returns a job without rows, with blocks of SH_FEATURE_BLOCK. */
sh_feature_job sh_feature_job_of(const sh_features *f);
/* Lays a workspace out in a block of memory, or counts its bytes where that is NULL; returns them. Jobs with patterns and
 * queries have room for their kernels. */
size_t sh_feature_layout(const sh_feature_job *j, void *block, sh_feature_workspace *w);
/* Tells whether sizes, type and map are possible, and a projection is there where the map has one. */
int sh_features_are_valid(const sh_features *f);
/* Returns how long n rows take, in multiplications. */
double sh_feature_work(const sh_features *f, int64_t n);

/* Give n rows from number `first` on, checked: patterns x and values v (patterns where there are none), or queries q. */
sh_status sh_load_patterns(const sh_feature_job *j, int64_t first, int64_t n, sh_feature_workspace *w, sh_block *x,
                           sh_block *v, sh_context *context);
sh_status sh_load_queries(const sh_feature_job *j, int64_t first, int64_t n, sh_feature_workspace *w, sh_block *q,
                          sh_context *context);

/* Returns exp(from - to), what sums in units of exp(from) are multiplied by to be in units of exp(to); 1 where both are
 * -INFINITY, of nothing. */
double sh_rescale_factor(double from, double to);
/* sh_clear_sums: makes a state that of no patterns.
 * sh_rescale_sums: changes a state's units to exp(top[f]), no smaller than they were.
 * sh_merge_sums: adds another state's patterns; top: scratch (D). */
void sh_clear_sums(const sh_features *f, sh_feature_state s);
void sh_rescale_sums(const sh_feature_job *j, sh_feature_state s, const double *top);
void sh_merge_sums(const sh_feature_job *j, sh_feature_state s, sh_feature_state other, double *top);

/* Computes features of n patterns, w->phi, in units of exp(w->top[f]): the larger of s.top[f] and their exponents. */
void sh_pattern_features(sh_feature_job *j, sh_feature_state s, sh_block x, int64_t n, sh_feature_workspace *w);
/* Computes phi (n, D), features of n queries times exp(log_weight[f]) (RELU: times log_weight[f], or 1 where it is NULL),
 * each row up to a factor of its own; if `normed`, rows sum to 1, or are 0. */
void sh_query_features(sh_feature_job *j, sh_block q, int64_t n, sh_feature_workspace *w, const double *log_weight,
                       int normed, char *phi);
/* Adds n patterns with values v, whose features are in w, to a state. */
void sh_add_block(sh_feature_job *j, sh_feature_state s, sh_block v, int64_t n, sh_feature_workspace *w);
/* Adds patterns first .. end - 1 to a state, block by block. */
sh_status sh_sum_rows(sh_feature_job *j, sh_feature_state s, int64_t first, int64_t end, sh_feature_workspace *w,
                      sh_context *context);
/* Computes the job's log_weight and means from a state; mean: scratch (v). */
void sh_prepare_means(sh_feature_job *j, sh_feature_state s, double *mean);
/* Computes the outputs of queries first .. end - 1, after that. */
sh_status sh_mix_rows(sh_feature_job *j, int64_t first, int64_t end, sh_feature_workspace *w, sh_context *context);

/* sh_causal_pairs: computes the kernels of queries and patterns of a causal block, from row `at` of it on, of which there
 * are n more; q and x begin there. Returns how many of these rows were taken: fewer where a query's normaliser is below
 * the job's least_normaliser.
 *
 * Given      s     the state of all rows before these
 * Returned   w     phi and phi_q (n, D); kernels (n, n), on and below the diagonal; prefix_total, s.total in the units of
 *                  phi; normaliser[i], the sum of the kernels of query i and all patterns up to i; all in units of exp(top) */
int64_t sh_causal_pairs(sh_feature_job *j, sh_feature_state s, sh_block q, sh_block x, int64_t at, int64_t n,
                        sh_feature_workspace *w);
/* Computes the same of n queries that all see m patterns; s is of none. */
void sh_all_pairs(sh_feature_job *j, sh_feature_state s, sh_block q, sh_block x, int64_t n, int64_t m,
                  sh_feature_workspace *w);
/* Sets y[i][l] = 0 for l > i; y (n, n) */
void sh_clear_above_diagonal(const sh_feature_job *j, char *y, int64_t n);
/* Computes the outputs of rows first .. end - 1 of a causal job; s: the state of all rows before, which goes on to that of
 * all rows up to `end`. */
sh_status sh_causal_rows(sh_feature_job *j, sh_feature_state s, int64_t first, int64_t end, sh_feature_workspace *w,
                         sh_context *context);
#endif
