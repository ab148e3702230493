/* sparsehopfield_layers.h: what neural layers need of the library: associations with gradients, features of many
 * samples and heads at a time, linear maps, layer normalisation and AdamW.
 *
 * UNSTABLE. Everything here may change or go with any version, without a new soname: a program that uses it is built
 * anew for every version, or linked with the static library. The conventions are those of sparsehopfield.h, but that
 * pointers are not checked for NULL. Every function allocates from its context alone, and gives the same bits for any
 * number of threads, but not across instruction sets.
 */
#ifndef SPARSEHOPFIELD_LAYERS_H
#define SPARSEHOPFIELD_LAYERS_H

#include "sparsehopfield.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of samples and heads: feature c of row i of head h of sample b is data[b * sample + i * row + h * head + c].
 * Strides are in numbers, 0 where samples or heads share their rows. */
typedef struct {
    const void *data;
    int64_t sample, row, head;
} sh_stack;

/* The association of the layers by features: B samples and H heads, each N queries and M stored rows of its own, at a
 * time. What belongs to a set (sample b, head h) lies in order of b, then h. */
typedef struct {
    sh_features features; /* of all; beta and bias are not read, projection is (H, D, d), with sqrt(beta_h) in it */
    const double *beta;   /* (H); the bias of patterns is half of it */
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
 *            and beta |x|^2 at most 1e70 (double: 1e300): this is not checked.
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
 * Letters: B samples, H heads, N queries and M stored rows of each sample, d features of a key, v of a value. */

/* Rows mapped for every head h: weight[h] row + bias[h], with weight (H, to, from) and bias (H, to), contiguous. */
typedef struct {
    const void *weight, *bias; /* NULL: rows as they are */
    int64_t from;
} sh_projection;

/* An association. Arrays are of its type but where a type is given. */
typedef struct {
    sh_type type; /* SH_FLOAT32 or SH_FLOAT64 */
    sh_model model;
    int64_t samples, queries, stored, heads, d, v; /* B, N, M, H, d, v */
    sh_stack query, key, value; /* keys and values: both shared by samples or neither, and so by heads */
    const int64_t *offsets;     /* (B + 1) or NULL: ragged bags, of which sample b has rows offsets[b] .. [b + 1] - 1 */
    const double *beta;         /* (H) */
    const uint8_t *padding;     /* (B, M) or NULL: not 0 where a row is none; only where no samples share rows */
    const void *mask;           /* NULL, or M contiguous entries for each query: */
    int mask_is_bool;           /*   bytes, not 0 for a row that it does not see; else numbers added to scores */
    int64_t mask_sample, mask_head, mask_query; /*   strides in entries */
    /* Which rows of its sample query n sees; NULL: all. Each ragged bag has its own: k is at most its rows, and a window
     * at a place that it does not have is empty. All queries see the appended rows, the last of each sample, whatever the
     * structure; SH_PAIRS_TOP chooses among all rows, these included. */
    const sh_structure *structure;
    int64_t appended;
    int64_t steps;                    /* updates after the first association; < 0: until converged */
    double eps;                       /* converged: the weights have moved by at most this, in the Euclidean norm */
    double dropout;                   /* rate, 0 <= rate < 1, of weights of the last association */
    uint64_t seed;                    /* of dropout */
    int implicit;                     /* whether the gradient is that of the fixed point, not through all updates */
    sh_projection key_map, value_map; /* with a key_map only maps that are invariant to shifts, and steps >= 0 */
} sh_association;

/* The tape that a forward pass leaves for its gradient: of each update the states, the thresholds and the rows with weight. */
typedef struct sh_tape sh_tape;

/* sh_association_forward: computes out[b, n, h] = sum_j p_j value_j, with p the weights of the last association of the
 * updates x <- sum_j p_j key_j, p = separation(beta key x + mask). These begin at the query and are `steps`, or go on
 * until converged, at most 10,000.
 *
 * Given      association  its arrays must stay as they are until the tape is freed
 * Returned   out          (B, N, H, v)
 *            tape         to be freed by sh_tape_free; NULL: not wanted
 *            unconverged  how many queries still moved after 10,000 updates
 * Errors     SH_NOT_FINITE, SH_OVERFLOW, SH_NO_MEMORY, SH_INTERRUPTED, SH_BAD_ARGUMENT, or SH_UNDEFINED for an implicit
 *            gradient of a map without energy
 * Cost       2 (steps + 1) B N H M d multiplications for maps of full support. For the others the mixtures, and the
 *            whole backward pass, follow the rows with weight in any of some 16 queries. With a key_map the products run
 *            in the `from` features of rows, which are not projected: right for few queries and many rows. With a
 *            structure other than SH_PAIRS_TOP the work follows the rows that any of some 16 queries, neighbours in
 *            place, sees. Memory: the tape, (steps + 1) B N H (d + 2) numbers and the lists of rows with weight; for
 *            each thread some arrays of M rows of 16 to 256 queries. No N x M array exists at any time.
 * Notes      A query that sees no row gets zeros, and no gradient passes.
 * Source     Ramsauer et al. 2021, "Hopfield Networks is All You Need"; Hu et al. 2023, "On Sparse Modern Hopfield
 *            Model"; Blondel, Martins & Niculae 2020, "Learning with Fenchel-Young Losses", for maps and Jacobians */
SH_API sh_status sh_association_forward(sh_context *context, const sh_association *association, void *out,
                                        sh_tape **tape, int64_t *unconverged);

/* Where gradients of sum(grad * out) go; NULL: not wanted. */
typedef struct {
    void *query;                           /* (B, N, H, d) */
    void *key, *value;                     /* (rows, heads, features); rows and heads as the stacks have them */
    int64_t query_row, key_row, value_row; /* numbers from row to row, whose heads lie side by side */
    double *beta;                          /* (B, N, H): to be summed over b and n */
    void *key_weight, *key_bias;           /* as in key_map */
    void *value_weight, *value_bias;       /* as in value_map */
} sh_gradients;

/* sh_association_backward: computes the gradients of sum(grad * out), grad (B, N, H, v). The tape can be used again.
 *
 * Errors     SH_SINGULAR, row the query's number: the fixed point of an implicit gradient is not isolated or unstable;
 *            SH_NO_MEMORY, SH_INTERRUPTED
 * Cost       about two forward passes. Memory: gradients of rows for at most 32 parts of the work, up to 128 MiB, and
 *            with a key_map (steps + 1) B N H `from` numbers */
SH_API sh_status sh_association_backward(sh_context *context, const sh_tape *tape, const void *grad,
                                         const sh_gradients *gradients);
/* sh_association_weights: computes the weights of the last association, before dropout, of every query in the order b,
 * h, n. The scores of the entries are 0. Free them by sh_entries_free. Costs one association. */
SH_API sh_status sh_association_weights(sh_context *context, const sh_tape *tape, sh_entries *entries);
/* sh_association_steps: copies how many updates every query made, (B, N, H). */
SH_API void sh_association_steps(const sh_tape *tape, int64_t *steps);
/* sh_tape_free: frees a tape, or nothing where it is NULL. */
SH_API void sh_tape_free(sh_context *context, sh_tape *tape);

/* Linear maps, layer normalisation and AdamW (association/dense.c). Matrices are contiguous: n rows of e numbers, o
 * outputs. Gradients that are NULL are not wanted. Errors: SH_NO_MEMORY, SH_INTERRUPTED. */
/* sh_linear: computes y (n, o) = x (n, e) weight (o, e)^T + bias (o), or no bias where it is NULL; n e o
 * multiplications. */
SH_API sh_status sh_linear(sh_context *context, sh_type type, int64_t n, int64_t e, int64_t o, const void *x,
                           const void *weight, const void *bias, void *y);
/* sh_linear_backward: computes from grad (n, o) the gradients dx (n, e), dweight (o, e) and dbias (o); 2 n e o
 * multiplications, and memory for at most 16 dweight. */
SH_API sh_status sh_linear_backward(sh_context *context, sh_type type, int64_t n, int64_t e, int64_t o, const void *x,
                                    const void *weight, const void *grad, void *dx, void *dweight, void *dbias);
/* sh_normalize: computes of every row xhat (n, e) = (x - mean) rstd, with rstd (n) = 1 / sqrt(variance + eps).
 * sh_normalize_backward: computes dx from the gradient in xhat. */
SH_API sh_status sh_normalize(sh_context *context, sh_type type, int64_t n, int64_t e, double eps, const void *x,
                              void *xhat, void *rstd);
SH_API sh_status sh_normalize_backward(sh_context *context, sh_type type, int64_t n, int64_t e, const void *xhat,
                                       const void *rstd, const void *grad, void *dx);
/* sh_fold: computes one linear map from an affine and a linear one: weight (gain x + shift) + bias = folded x + moved,
 * with folded (o, e) and moved (o).
 * sh_unfold: computes the gradients of weight, which may take the place of dfolded, of gain (e) and of shift (e). */
SH_API sh_status sh_fold(sh_context *context, sh_type type, int64_t e, int64_t o, const void *weight, const void *bias,
                         const void *gain, const void *shift, void *folded, void *moved);
SH_API sh_status sh_unfold(sh_context *context, sh_type type, int64_t e, int64_t o, const void *dfolded,
                           const void *dmoved, const void *weight, const void *gain, const void *shift, void *dweight,
                           void *dgain, void *dshift);
typedef struct {
    double learning_rate, beta1, beta2, eps, weight_decay;
} sh_adamw_options;
/* sh_adamw: makes step number `step` >= 1 of AdamW (Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization",
 * algorithm 2) on n numbers, their first and their second moments, in place. */
SH_API sh_status sh_adamw(sh_context *context, sh_type type, int64_t n, void *parameter, const void *grad, void *first,
                          void *second, int64_t step, sh_adamw_options options);

#ifdef __cplusplus
}
#endif
#endif
