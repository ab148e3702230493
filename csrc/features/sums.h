/* sums.h: what the files of this room share: a job, the memory of a worker, and the steps that all operations are made
 * of. Rows go through in blocks; exponents are double, products of the compute type. */
#ifndef SH_SUMS_H
#define SH_SUMS_H
#include "kernels/kernels.h"
#include "runtime/runtime.h"
#include <stdatomic.h>

enum { SH_FEATURE_BLOCK = 256, SH_CAUSAL_BLOCK = 128, SH_FEATURE_PARTS = 16 };

typedef struct {
    const sh_features *f;
    const sh_kernels *k, *wide; /* of the compute type and of double */
    double root;
    const sh_rows *patterns, *values, *queries;
    const uint8_t *absent;    /* of patterns: not 0 where there is no row; or NULL */
    sh_feature_state *states; /* of the parts; or what is asked */
    int64_t rows, part;       /* rows of a block and of a part */
    char *means;              /* (D, v) */
    double *more;             /* (D) what is added to a query's exponents, or multiplied with its features */
    double faint;
    int checked; /* the caller has looked at all rows */
    char *out;
    int64_t stride;
    _Atomic int64_t products;
} sh_feature_job;

/* What a worker needs: blocks of `rows` rows */
typedef struct {
    char *patterns, *values, *queries;                 /* widened */
    char *phi, *ask, *product, *pairs, *before, *most; /* features of patterns and queries, ... */
    double *wide, *exponent, *top, *less;
} sh_feature_room;

typedef struct {
    const char *data;
    int64_t ld;
    const uint8_t *absent;
} sh_block;

static inline char *sh_at(const sh_feature_job *j, const void *p, int64_t i) {
    return (char *)p + i * (int64_t)j->k->size;
}
static inline sh_block sh_block_from(const sh_feature_job *j, sh_block b, int64_t i) {
    return (sh_block){sh_at(j, b.data, i * b.ld), b.ld, b.absent ? b.absent + i : NULL};
}

static inline void sh_times(sh_feature_job *j, sh_gemm product, int64_t m, int64_t n, int64_t k, const void *a,
                            int64_t lda, const void *b, int64_t ldb, int add, void *c, int64_t ldc) {
    product(m, n, k, a, lda, b, ldb, add, c, ldc);
    atomic_fetch_add_explicit(&j->products, m * n * k, memory_order_relaxed);
}

sh_feature_job sh_feature_begin(const sh_features *f);
/* Lays the room out from `base`, which may be NULL; returns how many bytes it takes. With patterns and queries there is
 * room for their pairs. */
size_t sh_feature_room_of(const sh_feature_job *j, char *base, sh_feature_room *r);
/* Tells whether sizes, type and map are possible, and a projection is there where the map has one. */
int sh_features_are_sound(const sh_features *f);
/* Multiplications and what else takes as long, of n rows */
double sh_feature_work(const sh_features *f, int64_t n);

/* n rows from the first on, checked */
sh_status sh_some_patterns(const sh_feature_job *j, int64_t first, int64_t n, sh_feature_room *r, sh_block *x,
                           sh_block *v, sh_context *context);
sh_status sh_some_queries(const sh_feature_job *j, int64_t first, int64_t n, sh_feature_room *r, sh_block *q,
                          sh_context *context);

/* exp(old - top), 1 where both are of nothing */
double sh_shrink(double old, double top);
/* States: of nothing; in units of exp(top), no lower than they were; with what another one has (top: room for D) */
void sh_clear_sums(const sh_features *f, sh_feature_state s);
void sh_raise_sums(const sh_feature_job *j, sh_feature_state s, const double *top);
void sh_merge_sums(const sh_feature_job *j, sh_feature_state s, sh_feature_state more, double *top);
/* Features of patterns, phi, in units of exp(top): the larger of what the state has and what they have. */
void sh_of_patterns(sh_feature_job *j, sh_feature_state s, sh_block x, int64_t n, sh_feature_room *r);
/* What queries ask: their features times what the state adds. */
void sh_of_queries(sh_feature_job *j, sh_block q, int64_t n, sh_feature_room *r, const double *more, int normed,
                   char *ask);
/* Adds patterns whose features are there. */
void sh_add_features(sh_feature_job *j, sh_feature_state s, sh_block v, int64_t n, sh_feature_room *r);
/* Adds rows first .. end - 1. */
sh_status sh_sum_rows(sh_feature_job *j, sh_feature_state s, int64_t first, int64_t end, sh_feature_room *r,
                      sh_context *context);
/* Makes `more` and `means` from a state; mean: room for v. */
void sh_ask_state(sh_feature_job *j, sh_feature_state s, double *mean);
/* Answers of queries first .. end - 1, after that. */
sh_status sh_mix_rows(sh_feature_job *j, int64_t first, int64_t end, sh_feature_room *r, sh_context *context);

/* Causal: as many of n rows as can be taken at a time, from row `at` of a block on, whose first n are left.
 *
 * Returned   phi, ask (n, D), pairs (n, n) on and below the diagonal, before (D) the totals of rows before these, and
 *            less[n] what queries see in all, all in units of exp(top)
 * Notes      Where a query's sum is faint, patterns after it drown those that it sees; fewer rows are then taken. */
int64_t sh_meet(sh_feature_job *j, sh_feature_state s, sh_block q, sh_block x, int64_t at, int64_t n,
                sh_feature_room *r);
/* The same of n queries that all see m rows, and nothing before these: pairs (n, m). */
void sh_meet_all(sh_feature_job *j, sh_feature_state s, sh_block q, sh_block x, int64_t n, int64_t m,
                 sh_feature_room *r);
/* y[i][l] for l > i is none */
void sh_lower(const sh_feature_job *j, char *y, int64_t n);
sh_status sh_causal_rows(sh_feature_job *j, sh_feature_state s, int64_t first, int64_t end, sh_feature_room *r,
                         sh_context *context);
#endif
