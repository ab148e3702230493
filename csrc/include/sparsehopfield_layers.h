/* sparsehopfield_layers.h: what neural layers need of the library: associations with gradients, features of many samples
 * and heads at a time, linear maps, normalisation and AdamW.
 *
 * UNSTABLE. Everything here may change or go with any version, without a new soname: a program that uses it is built
 * anew for every version, or linked with the static library. The conventions are those of sparsehopfield.h, but for
 * NULL: shapes are checked, pointers are not looked at.
 */
#ifndef SPARSEHOPFIELD_LAYERS_H
#define SPARSEHOPFIELD_LAYERS_H

#include "sparsehopfield.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of samples and heads: feature c of row i of head h of sample b is data[b * sample + i * row + h * head + c];
 * strides in numbers, 0 where samples or heads share their rows. */
typedef struct {
    const void *data;
    int64_t sample, row, head;
} sh_stack;

/* The association of the layers by features: B samples and H heads, each N queries and M stored rows of its own, at a
 * time. What belongs to a set (sample b, head h) lies in order of b, then h. */
typedef struct {
    sh_features
        features;       /* of all; beta and bias are not looked at, projection is (H, D, d), with sqrt(beta_h) in it */
    const double *beta; /* (H); the bias of patterns is half of it */
    int64_t samples, heads, queries, stored; /* B, H, N, M */
    sh_stack query, key, value;
    const int64_t *offsets; /* (B + 1) or NULL: ragged bags, of which sample b has rows offsets[b] .. [b + 1] - 1; so do
                             * the queries of causal functions */
    const uint8_t *padding; /* (B, M) or NULL: not 0 where there is no row; not with offsets */
    double least_normaliser; /* of causal functions, as of sh_features_causal */
} sh_feature_sets;

/* Associations of all sets; out lies as the queries do.
 *
 * sh_feature_sets_pairs: computes the outputs of few queries and stored rows, at most 256 in each set, by their pairs, which
 * costs N M (D + v) multiplications; by sums it would be (N + M) D v.
 *
 * sh_feature_sets_sum: computes the sums over the stored rows of every set; state: (B, H, D), (B, H, D), (B, H, D, v).
 * sh_feature_sets_mix: computes outputs from these sums.
 * sh_feature_sets_causal: computes the outputs of query i from rows 0 to i of its set.
 *
 * The functions *_backward compute gradients of sum(grad * out): mix_backward those by queries and adds those by the sums
 * (total and sum of dstate; NULL: not wanted), from which sum_backward computes those by rows; the others all at once.
 * Given      grad     as out
 *            dkeys    gradients by sums of keys as values, (B, H, D, d), or NULL: added to those by keys
 * Returned   dquery, dkey, dvalue  one for each set, though sets may share rows
 *            grad_dot  (H) added to: the sum over rows of <gradient, row>, of queries, and of keys by their features
 * Errors     SH_OVERFLOW of sums over pairs ("kernels"), SH_BAD_ARGUMENT, SH_NO_MEMORY, SH_INTERRUPTED. Rows must be finite,
 *            and beta |x|^2 at most 1e70 (double: 1e300): they are not looked at.
 * Cost       gradients some three times what the outputs do. Memory: some rows and a state for each thread, at most 2 * 16
 *            states, and, causal, D numbers for every 128 rows.
 * Notes      The same bits for any number of threads. */
SH_API sh_status sh_feature_sets_pairs(sh_context *context, const sh_feature_sets *sets, sh_stack out);
SH_API sh_status sh_feature_sets_pairs_backward(sh_context *context, const sh_feature_sets *sets, sh_stack grad,
                                                sh_stack dquery, sh_stack dkey, sh_stack dvalue, double *grad_dot);
SH_API sh_status sh_feature_sets_sum(sh_context *context, const sh_feature_sets *sets, sh_feature_state state);
SH_API sh_status sh_feature_sets_mix(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                     sh_stack out);
SH_API sh_status sh_feature_sets_causal(sh_context *context, const sh_feature_sets *sets, sh_stack out);
SH_API sh_status sh_feature_sets_mix_backward(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                              sh_stack grad, const sh_feature_state *dstate, sh_stack dquery,
                                              double *grad_dot);
SH_API sh_status sh_feature_sets_sum_backward(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                              sh_feature_state dstate, const double *dkeys, sh_stack dkey,
                                              sh_stack dvalue, double *grad_dot);
SH_API sh_status sh_feature_sets_causal_backward(sh_context *context, const sh_feature_sets *sets, sh_stack grad,
                                                 sh_stack dquery, sh_stack dkey, sh_stack dvalue, double *grad_dot);

/* The association of the layers (association/): queries that move to mixtures of stored rows, batched, with heads.
 *
 * Letters: B samples, N queries of each, M stored rows of each, H heads, d features of a key, v of a value, t an
 * update. Rows are of the compute type. */
/* Rows seen through a linear map, one for each head: weight (H, to, from) times row plus bias (H, to). */
typedef struct {
    const void *weight, *bias; /* NULL: the rows themselves */
    int64_t from;
} sh_projection;

typedef struct {
    sh_type type; /* SH_FLOAT32 or SH_FLOAT64, of every array but beta */
    sh_model model;
    int64_t samples, queries, stored, heads, d, v; /* B, N, M, H, d, v */
    sh_stack query, key, value; /* keys and values share rows by samples both or not at all, and by heads */
    const int64_t *offsets;     /* (B + 1) or NULL: ragged bags, of which sample b has rows offsets[b] .. [b + 1] - 1 */
    const double *beta;         /* (H) */
    const uint8_t *padding;     /* (B, M) or NULL: not 0 where there is no row; not with rows that samples share */
    const void *mask;           /* NULL, or of each query one contiguous row of M: */
    int mask_is_bool;           /*   bytes, not 0 where it must not look; else numbers added to the scores */
    int64_t mask_sample, mask_head, mask_query; /*   strides in entries */
    const sh_structure *structure; /* which rows of its sample query n looks at; NULL: all. Of ragged bags each has its
                                    * own: k is at most their rows, and a window at a place that a bag does not have is
                                    * empty */
    int64_t appended;              /* the last rows of each sample, at which all queries look whatever the structure */
    int64_t steps;                 /* updates after the first association; < 0: until at rest */
    double eps;                    /* at rest: the weights have moved by at most this (Euclidean) */
    double dropout;                /* 0 <= rate < 1, of weights of the last association */
    uint64_t seed;
    int implicit;                     /* the gradient at the fixed point, not through the updates */
    sh_projection key_map, value_map; /* with a key_map: maps that no shift changes, steps >= 0 */
} sh_association;

typedef struct sh_tape sh_tape;

/* sh_association_forward: out[b, n, h] = sum_j p_j value_j, with p the last association of x <- sum_j p_j key_j,
 * p = separation(beta key x + mask), which begins at the query and is made steps + 1 times, or until at rest.
 *
 * Given      association  its arrays must stay as they are until the tape is freed
 * Returned   out    (B, N, H, v)
 *            tape  what the gradient needs, or NULL if it is not wanted: of each update the state, the thresholds and
 *                   the rows with weight; to be given back to sh_tape_free
 *            unconverged  queries that were still moving after 10,000 updates
 * Errors     SH_NOT_FINITE, SH_OVERFLOW, SH_NO_MEMORY, SH_INTERRUPTED, SH_BAD_ARGUMENT
 * Cost       2 (steps + 1) B N H M d multiplications for maps of full support; for the others the mixtures, and all of
 *            the backward pass, follow the rows with weight in any of some 16 queries. With a key_map the products run
 *            in the `from` features of the rows, which are not projected at all: right for few queries and many rows.
 *            No N x M array exists at any time. With a structure but TOP, the work and the memory follow the rows that
 *            any of some 16 queries, neighbours in place, look at.
 * Notes      1. A query with no row to look at (no rows, all masked) gets zeros, and no gradient passes.
 *            2. The same bits for any number of threads; not across instruction sets. */
SH_API sh_status sh_association_forward(sh_context *context, const sh_association *association, void *out,
                                        sh_tape **tape, int64_t *unconverged);

/* Gradients of sum(grad * out). Each may be NULL: not wanted. */
typedef struct {
    void *query;                           /* (B, N, H, d) */
    void *key, *value;                     /* (rows, heads, features); rows and heads as the stacks have them */
    int64_t query_row, key_row, value_row; /* from one row of these to the next; its heads lie side by side */
    double *beta;                          /* (B, N, H): to be summed over b and n */
    void *key_weight, *key_bias;           /* as in key_map */
    void *value_weight, *value_bias;
} sh_gradients;

/* Errors     SH_SINGULAR: the implicit gradient at a fixed point that is not isolated or not stable; row is the
 *            query's number */
SH_API sh_status sh_association_backward(sh_context *context, const sh_tape *tape, const void *grad,
                                         const sh_gradients *gradients);
/* sh_association_weights: of every query in the order b, h, n its last association, before dropout. The scores of the
 * entries are 0. */
SH_API sh_status sh_association_weights(sh_context *context, const sh_tape *tape, sh_entries *entries);
/* sh_association_steps: of every query (B, N, H) the updates it made. */
SH_API void sh_association_steps(const sh_tape *tape, int64_t *steps);
SH_API void sh_tape_free(sh_context *context, sh_tape *tape);

/* These functions are what layers need besides (association/dense.c). Matrices are contiguous, n rows of e numbers, o outputs; NULL where
 * something is not there or not wanted. The same bits for any number of threads. */
/* y (n, o) = x (n, e) weight (o, e)^T + bias (o) */
SH_API sh_status sh_linear(sh_context *context, sh_type type, int64_t n, int64_t e, int64_t o, const void *x,
                           const void *weight, const void *bias, void *y);
/* From grad (n, o): dx (n, e), dweight (o, e), dbias (o). */
SH_API sh_status sh_linear_backward(sh_context *context, sh_type type, int64_t n, int64_t e, int64_t o, const void *x,
                                    const void *weight, const void *grad, void *dx, void *dweight, void *dbias);
/* Layer normalisation without its affine part: xhat (n, e), rstd (n); and the gradient in x. */
SH_API sh_status sh_normalize(sh_context *context, sh_type type, int64_t n, int64_t e, double eps, const void *x,
                              void *xhat, void *rstd);
SH_API sh_status sh_normalize_backward(sh_context *context, sh_type type, int64_t n, int64_t e, const void *xhat,
                                       const void *rstd, const void *grad, void *dx);
/* An affine map before a linear one is one linear map, W (gain x + shift) + b = folded x + moved: folded (o, e), moved
 * (o); and the gradients of W (dweight, which may be dfolded itself), gain and shift. */
SH_API sh_status sh_fold(sh_context *context, sh_type type, int64_t e, int64_t o, const void *weight, const void *bias,
                         const void *gain, const void *shift, void *folded, void *moved);
SH_API sh_status sh_unfold(sh_context *context, sh_type type, int64_t e, int64_t o, const void *dfolded,
                           const void *dmoved, const void *weight, const void *gain, const void *shift, void *dweight,
                           void *dgain, void *dshift);
/* One step of AdamW (Loshchilov & Hutter 2019, algorithm 2), number `step` >= 1, in place. */
typedef struct {
    double learning_rate, beta1, beta2, eps, weight_decay;
} sh_adamw_options;
SH_API sh_status sh_adamw(sh_context *context, sh_type type, int64_t n, void *parameter, const void *grad, void *first,
                          void *second, int64_t step, sh_adamw_options options);

#ifdef __cplusplus
}
#endif
#endif
