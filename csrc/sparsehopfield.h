/* sparsehopfield.h: the C interface of the associative memory library. Usable from C alone.
 *
 * Letters, used everywhere:  M stored patterns, N queries, d features of a pattern, v features of a value,
 *                            s a score, beta the inverse temperature, z = beta (s - max s), p weights.
 *
 * Conventions
 *  1. Arrays are row major, one row a pattern or a query. Queries and outputs are contiguous and of the
 *     memory's compute type (float or double); `void *` stands for either.
 *  2. Every function returns a status. Outputs hold results only after SH_OK. Bad arguments and damaged
 *     input are found before an output is touched; after SH_NO_MEMORY, SH_INTERRUPTED or SH_FORKED outputs
 *     may be partly written.
 *  3. After a failure, `argument` and `row` of the context say what was at fault.
 *  4. One context serves one call at a time; a memory may serve many calls at once.
 *  5. The calling thread is taken to have the floating-point settings that C starts with: round to nearest, keep
 *     subnormal numbers, no traps. The library's own threads have them, whatever the caller's are.
 *  6. A process may end while other threads are within calls: they do not return.
 */
#ifndef SPARSEHOPFIELD_H
#define SPARSEHOPFIELD_H

#include <stddef.h>
#include <stdint.h>

#if defined(SH_API) /* by a build that exports none of these functions */
#elif defined(__GNUC__)
#define SH_API __attribute__((visibility("default")))
#else
#define SH_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    SH_OK = 0,
    SH_NO_MEMORY,    /* an allocation failed */
    SH_INTERRUPTED,  /* the context's `interrupted` asked to stop */
    SH_NOT_FINITE,   /* NaN or infinity in `argument`, first seen in `row` */
    SH_OVERFLOW,     /* a score of `row` of `argument` may exceed the largest number of the type */
    SH_ZERO_ROW,     /* cosine similarity of a pattern of length 0 */
    SH_BAD_ARGUMENT, /* a value out of its range */
    SH_UNDEFINED,    /* the separation map has no such thing (the energy of a polynomial) */
    SH_SINGULAR,     /* a fixed point that is not isolated, or not stable: it has no gradient */
    SH_FORKED        /* `interrupted` forked: the other threads of the call are not in the child */
} sh_status;

typedef enum { SH_FLOAT32, SH_FLOAT64, SH_UINT8, SH_FLOAT16 } sh_type;
/* The score of pattern xi at x: <x, xi>; -|x - xi|^2/2, for the polynomial <x, xi> - |xi|^2/2; <x, xi/|xi|>. */
typedef enum { SH_DOT, SH_EUCLIDEAN, SH_COSINE } sh_similarity;
typedef enum { SH_SPARSEMAX, SH_SOFTMAX, SH_ENTMAX, SH_POLYNOMIAL } sh_separation;

/* n rows of d elements; a row is contiguous, rows lie `stride` bytes apart. Elements of a narrow type (uint8,
 * float16) are widened where they are used: q stands for the float32 number q * scale, rounded once. */
typedef struct {
    const void *data;
    int64_t n, d, stride;
    sh_type type;
    float scale;   /* of a narrow type; 0 means 1 */
    int unchecked; /* of values: 1 leaves out the pass that looks for NaN and infinity */
} sh_rows;

/* The way that maps with a window are taken. The results are the same bits; only AUTO looks for the fastest. */
typedef enum {
    SH_PATH_AUTO,
    SH_PATH_SCAN,   /* no index */
    SH_PATH_LINES,  /* an index of rotated 8-bit codes, one cache line a pattern; built if need be */
    SH_PATH_COLUMNS /* an index of all features in 8 bits */
} sh_path;

/* What a call may use. Zero-filled, it means: malloc and free, one thread, no interruption, the fastest way. */
typedef struct sh_context {
    void *(*allocate)(void *user, size_t bytes); /* called from any thread */
    void (*release)(void *user, void *block);
    int (*interrupted)(void *user); /* asked after every tile, in the calling thread only */
    void *user;
    int threads;
    sh_path path;
    const char *argument; /* set on failure */
    int64_t row;
} sh_context;

/* The model: how scores become weights. `parameter` is alpha of SH_ENTMAX or the order of SH_POLYNOMIAL. */
typedef struct {
    sh_separation separation;
    double parameter;
} sh_model;

typedef struct sh_memory sh_memory;

/* sh_memory_new: stored patterns made ready for retrieval: norms, biases, checks. The rows are borrowed.
 *
 * Given      patterns  M >= 1 rows; float32, float64, or of a narrow type (widened tile by tile)
 *            values    M rows, or NULL: the patterns themselves
 *            type      SH_FLOAT32 or SH_FLOAT64: the compute type; rows have it or are narrow
 * Returned   memory    to be given back to sh_memory_free
 * Errors     SH_NOT_FINITE, SH_ZERO_ROW, SH_OVERFLOW (euclidean bias), SH_BAD_ARGUMENT, SH_NO_MEMORY
 * Cost       one pass over the patterns; allocates 12 to 16 bytes a pattern (euclidean, cosine), else O(1)
 */
SH_API sh_status sh_memory_new(sh_context *context, const sh_rows *patterns, const sh_rows *values,
                               sh_similarity similarity, sh_type type, sh_memory **memory);
/* sh_memory_extend: a memory over more rows, the first of which are those of an old one, unchanged, though they may
 * lie elsewhere by now. It answers, bit for bit, as one made anew.
 *
 * Given      old       a memory; it stays as it is, and may serve calls meanwhile
 *            patterns, values  at least as many rows as the old ones, of the same types, widths and scales
 * Returned   memory    to be given back to sh_memory_free; it and the old one may go in any order
 * Errors     those of sh_memory_new; rows are counted from the first new one
 * Cost       one pass over the new rows; what is kept of the old ones is shared, and copied only now and then, so
 *            that growing row by row costs O(1) a row
 */
SH_API sh_status sh_memory_extend(sh_context *context, const sh_memory *old, const sh_rows *patterns,
                                  const sh_rows *values, sh_memory **memory);
/* sh_memory_index: builds the index now, if there is none; otherwise it is built by the call for which it pays.
 *
 * Errors     SH_NO_MEMORY, SH_INTERRUPTED, SH_NOT_FINITE where patterns have changed. Where no index can be had (extreme norms, more than 66,000 features
 *            without structure) there is none, and every call scans.
 * Cost       some 300 M d products; 64 bytes a pattern and a second line of at most 256, or d + 8 bytes
 * Notes      Calls that run while it is built do without. */
SH_API sh_status sh_memory_index(sh_context *context, const sh_memory *memory);
SH_API int64_t sh_memory_index_bytes(const sh_memory *memory);
/* sh_memory_use_index: whether calls build an index by themselves. Only before the memory serves calls.
 *   AUTO    where it pays, if it takes at most half of the memory that is left to the process (by its limits, its control
 *           groups and the machine); so is every memory made, and one that extends another uses what that does
 *   ALWAYS  where it pays, however little is left
 *   NEVER   they scan; an index that there is goes */
typedef enum { SH_INDEX_AUTO, SH_INDEX_ALWAYS, SH_INDEX_NEVER } sh_index_use;
SH_API void sh_memory_use_index(sh_context *context, sh_memory *memory, sh_index_use use);
/* sh_memory_fingerprint: a number that changes, but for a chance of 2^-64, when any stored byte does. One pass. */
SH_API sh_status sh_memory_fingerprint(sh_context *context, const sh_memory *memory, uint64_t *fingerprint);
SH_API void sh_memory_free(sh_context *context, sh_memory *memory);

/* Which pairs of queries and patterns are looked at. The place of a query is position[i], or i where that is NULL.
 *   TOP     the k best scores of each query, ties by position
 *   WINDOW  patterns place + t dilation, |t| <= width, and those in `column`; causal: none after place
 *   RANDOM  k patterns, drawn anew for every `rows` places by `seed`
 *   BLOCKS  of block row r = place / rows the blocks column[start[r]] .. column[start[r + 1] - 1], each `columns` wide */
typedef enum { SH_PAIRS_ALL, SH_PAIRS_TOP, SH_PAIRS_WINDOW, SH_PAIRS_RANDOM, SH_PAIRS_BLOCKS } sh_pairs;
typedef struct {
    sh_pairs pairs;
    int64_t k;               /* 1 to M */
    int64_t width, dilation; /* 0 to M, 1 to M */
    int causal;
    uint64_t seed;
    int64_t rows, columns;   /* at least 1 */
    const int64_t *position; /* (N) */
    const int64_t *start;    /* (start_n + 1) from 0 up */
    const int64_t *column;   /* (column_n), ascending within a row */
    int64_t start_n, column_n;
} sh_structure;

/* N queries of d numbers, and their inverse temperatures: beta[i * beta_stride] > 0 (stride 0 or 1). */
typedef struct {
    const void *data;
    int64_t n;
    const double *beta;
    int64_t beta_stride;
    const sh_structure *structure; /* which patterns they look at; NULL: all. Of update, energy, retrieve, associate */
} sh_queries;

/* sh_update: one retrieval step T(x) = Xi^T p(beta s(x)) for each query (paper eq. 2.5).
 *
 * Returned   states        (N, v), not overlapping any input
 *            support_size  (N) number of weights > 0, or NULL
 * Errors     SH_NOT_FINITE and SH_OVERFLOW of "queries", before anything is written; SH_NOT_FINITE of "patterns" and
 *            "values" that were written into since they were checked, as far as a score or a state shows it: then what
 *            is returned is not to be used. SH_BAD_ARGUMENT, SH_NO_MEMORY, SH_INTERRUPTED. So of all that score queries.
 * Cost       at most one matrix product N x M x d, with an index and a map with a window a small part of it;
 *            per query, a double precision dot product for each pattern within the window of the map;
 *            full-support maps two products.
 *            Memory: 5 MiB a thread (8 in double), and for small beta at most 48 MiB more (or 12 bytes a pattern,
 *            where that is larger).
 * Notes      1. No N x M array exists at any time.
 *            2. For sparsemax and entmax the bits do not depend on threads, tiles or instruction sets while
 *               the support has at most SH_EXACT_SUPPORT patterns: scores found by the matrix product only
 *               filter, a canonical dot product decides (retrieval/finish.c).
 *            3. With a structure of windows, blocks or random subsets the cost follows the pairs alone. A query that
 *               looks at no pattern gets a state of zeros, support 0 and the energy |x|^2/2, whose gradient is x - 0.
 */
#define SH_EXACT_SUPPORT 1024
SH_API sh_status sh_update(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                           void *states, int64_t *support_size);

/* sh_energy: E_beta(x) = -Psi*(beta s)/beta + |x|^2/2, in double (theory: the paper's (2.1) with its 1/beta).
 * Errors     SH_UNDEFINED for SH_POLYNOMIAL, whose update is not a gradient step of any energy.
 */
SH_API sh_status sh_energy(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                           double *energy);

/* sh_retrieve: the update repeated until a state moves by at most tol * max|xi| (or not at all).
 *
 * Given      max_steps >= 0, tol >= 0
 * Returned   states        (N, d) where each query came to rest
 *            steps         (N) updates made
 *            converged     (N) 1 if it came to rest, else 0
 *            support_size  (N) of the last update
 *            before        (N, d) the states that the last update began from, or NULL: their association is the
 *                          last one, from which values are mixed
 * Cost       that of the updates of the queries still moving; 16 MiB of work space
 */
SH_API sh_status sh_retrieve(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                             int64_t max_steps, double tol, void *states, int64_t *steps, uint8_t *converged,
                             int64_t *support_size, void *before);

/* Rows of (position, score, weight), by query; freed as one by sh_entries_free. */
typedef struct {
    int64_t n;         /* queries */
    int64_t *start;    /* (n + 1) */
    int64_t *position; /* (start[n]) ascending within a query */
    double *score;     /* s, canonical for maps with a window */
    double *weight;    /* p, rounded to the compute type */
} sh_entries;

/* sh_associate: the weights themselves, as lists.
 *
 * Given      top         keep the `top` largest weights of a query (ties: lowest position), 0 for all
 *            min_weight  keep weights of at least this, 0 for all
 *                        maps with full support need one of the two, unless the queries have a structure
 */
SH_API sh_status sh_associate(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                              int64_t top, double min_weight, sh_entries *entries);
SH_API void sh_entries_free(sh_context *context, sh_entries *entries);

/* sh_survey: how many patterns each stage of the chosen way leaves of each query: listed by their bounds, still
 * there after closer bounds, scored canonically, in the support. The scan knows the last alone, the others are
 * -1. Given counts (N, 4). */
SH_API sh_status sh_survey(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                           int64_t *counts);

/* sh_bounds: the bounds themselves, for whoever does not trust them: of each query and pattern a number that the
 * canonical score cannot pass, by the first code and by the second (the first again, where there is none), and one
 * that it cannot be below.
 *
 * Given      bounds  (N, M, 3); INFINITY, and -INFINITY, where the index has no bound for a query (extreme norms)
 * Errors     SH_BAD_ARGUMENT where there is no index (the context's path says of which kind)
 */
SH_API sh_status sh_bounds(sh_context *context, const sh_memory *memory, sh_queries queries, double *bounds);

/* sh_margins: of every pattern, its own score less the largest score with another (theory: Delta; cosine: of the
 * unit rows). Infinite where there is no other; 0 or less means it is not stored at any beta.
 * Cost       that of M queries; the index is built where it pays. 16 MiB of work space.
 */
SH_API sh_status sh_margins(sh_context *context, const sh_memory *memory, double *margins);

/* sh_radii: how large a ball around some patterns goes to them: the least (lead over nu - need) / sqrt(D^2 + slack) over
 * the others nu, where the lead is the score of the pattern with itself less that with nu, and D = |xi - xi_nu| (cosine:
 * of the unit rows).
 *
 * Given      which   (n) positions
 *            need    (n) finite
 *            slack   finite, >= 0: D^2 is a difference of scores, which rounding may make too small by as much
 * Returned   radius  (n) INFINITY where there is no other; with slack 0, copies have a radius beyond all bounds, of the
 *                    sign of -need
 *            rival   (n) whose quotient it is, or -1
 * Errors     SH_BAD_ARGUMENT, SH_NOT_FINITE; those of sh_nearest
 * Cost       that of sh_nearest; more where lengths differ much, as longer patterns may be rivals from farther away
 */
SH_API sh_status sh_radii(sh_context *context, const sh_memory *memory, int64_t n, const int64_t *which,
                          const double *need, double slack, double *radius, int64_t *rival);

/* sh_nearest: the best patterns of each query and their canonical scores, from the best down, ties by position.
 *
 * Given      count     1 to SH_NEAREST
 * Returned   position  (N, count), -1 where there are fewer patterns
 *            score     (N, count), -INFINITY there
 * Cost       at most one matrix product N x M x d, with an index a small part of it; beta is not looked at
 */
#define SH_NEAREST 32
SH_API sh_status sh_nearest(sh_context *context, const sh_memory *memory, sh_queries queries, int64_t count,
                            int64_t *position, double *score);

/* sh_solve: weights of given scores, list by list (the merge of maps with a window: adding scores never
 * lowers the threshold, so lists of partial supports may be joined and solved again).
 * Given      start (n + 1), score (start[n]); Returned weight (start[n]), 0 outside the support
 * Errors     SH_NOT_FINITE of a list with a score that is NaN or infinite, SH_BAD_ARGUMENT of a beta, SH_NO_MEMORY
 */
SH_API sh_status sh_solve(sh_context *context, sh_model model, sh_type type, int64_t n, const double *beta,
                          int64_t beta_stride, const int64_t *start, const double *score, double *weight);

/* sh_mix: states from lists of weights, sum of weight x value in double in the order given.
 * Errors     SH_BAD_ARGUMENT if a position is outside the memory; SH_NOT_FINITE of "patterns" or "values" with NaN or
 *            infinity in a row that a state shows, SH_NO_MEMORY
 */
SH_API sh_status sh_mix(sh_context *context, const sh_memory *memory, int64_t n, const int64_t *start,
                        const int64_t *position, const double *weight, void *states);

/* The partial result of maps with full support: {scale, sum, mixture} of each query.
 * softmax: scale = max s, sum = sum exp(beta (s - scale)), mixture = sum exp(..) value.
 * polynomial: scale = max |s|, sum = sum (s/scale)^order, mixture = sum (..) value. */
typedef struct {
    double *scale, *sum; /* (N) */
    void *mixture;       /* (N, v) of the compute type, or NULL: sums only */
} sh_partial;
SH_API sh_status sh_accumulate(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                               sh_partial partial);
/* sh_merge: a becomes the partial result of both parts. Cost O(N v), no allocation. */
SH_API sh_status sh_merge(sh_model model, sh_type type, int64_t n, int64_t v, const double *beta, int64_t beta_stride,
                          sh_partial a, sh_partial b);

/* Kernels that are a product of features, k(x, xi) = <phi(x), phi(xi)> (features/): D sums stand for any number of
 * patterns. Features are phi = exp(exponent) factor, and the sums of feature f are in units of exp(top[f]), top the largest
 * exponent of a pattern so far, so that nothing overflows, nor does all of it underflow:
 *   total[f] = sum over j of phi_f(xi_j) / exp(top[f]),  sum[f] = sum over j of phi_f(xi_j) v_j / exp(top[f])
 *
 *   RELU    phi_f = max(x_f, 0), and top is 0
 *   ELU     phi_f = exp(u) for u <= 0, 1 + u for u > 0, with u = sqrt(beta) x_f
 *   RANDOM  phi_f(x) = exp(<projection_f, x>), of patterns exp(<projection_f, xi> - bias |xi|^2) */
typedef enum { SH_RELU, SH_ELU, SH_RANDOM } sh_feature_map;
typedef struct {
    sh_type type; /* SH_FLOAT32 or SH_FLOAT64: of queries, outputs and products; exponents and sums are double */
    sh_feature_map map;
    int64_t d, size, v; /* size, or D: as d unless RANDOM */
    double beta;
    const double *projection; /* (D, d) of RANDOM, with sqrt(beta) in it */
    double bias;
    int cosine; /* patterns are taken at length 1 */
} sh_features;
typedef struct {
    double *top, *total, *sum; /* (D), (D), (D, v); of nothing: -INFINITY, 0, 0 */
} sh_feature_state;

/* sh_features_add: adds patterns to a state.
 *
 * Given      patterns  rows of the compute type, or of a narrow one
 *            values    as many rows, or NULL: the patterns themselves (v is d)
 * Returned   products  multiplications made, or NULL
 * Errors     SH_NOT_FINITE, SH_ZERO_ROW; SH_OVERFLOW of a squared length ("patterns", "values") or its product with beta
 *            ("beta"); SH_BAD_ARGUMENT, SH_NO_MEMORY, SH_INTERRUPTED
 * Cost       D v multiplications a row, RANDOM D d more, in double. Memory: at most 16 states, and some rows a thread.
 * Notes      The same bits for any number of threads: rows are cut into at most 16 parts by their number, whose sums are
 *            added in order. */
SH_API sh_status sh_features_add(sh_context *context, const sh_features *features, const sh_rows *patterns,
                                 const sh_rows *values, sh_feature_state state, int64_t *products);
/* sh_features_mix: sum_f w_f sum[f] / total[f], with w_f proportional to phi_f(x) exp(top[f]) total[f], of each query.
 *
 * Given      queries  rows of the compute type
 *            stride   numbers from one row of out to the next
 * Returned   out      zeros where a query shares no positive feature with a pattern, or there is none
 * Errors     as above */
SH_API sh_status sh_features_mix(sh_context *context, const sh_features *features, sh_feature_state state,
                                 const sh_rows *queries, void *out, int64_t stride, int64_t *products);
/* sh_features_causal: the same of as many queries as patterns, query i of patterns 0 to i.
 *
 * Given      faint  where a query's sum, in units of the largest features of 128 patterns, is below this, patterns after
 *                   it drown those that it sees: half of them are taken at a time
 * Errors     as above; SH_OVERFLOW of sums over pairs ("kernels") and of outputs ("sums", unless values are unchecked) */
SH_API sh_status sh_features_causal(sh_context *context, const sh_features *features, const sh_rows *queries,
                                    const sh_rows *patterns, const sh_rows *values, double faint, void *out,
                                    int64_t stride, int64_t *products);

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
    double faint;           /* of causal functions, as above */
} sh_feature_sets;

/* sh_feature_sets_few: the answers to few queries from few rows, at most 256 of each set, by their pairs, which cost
 * N M (D + v); sums would cost (N + M) D v.
 *
 * sh_feature_sets_sum: the sums over the rows of every set; state: (B, H, D), (B, H, D), (B, H, D, v).
 * sh_feature_sets_mix: what they answer; out as the queries lie.
 * sh_feature_sets_causal: the answer to query i from rows 0 to i of its set.
 *
 * The gradients of sum(grad out): of queries, and of sums (total and sum of dstate; NULL: not wanted), which are added
 * to; from these those of rows. Few and causal: all at once.
 * Given      grad     as out
 *            dkeys    gradients of sums of keys as values, (B, H, D, d), or NULL: added to those of keys
 * Returned   dquery, dkey, dvalue  one for each set, though sets may share rows
 *            along    (H) added to: the sum over rows of <gradient, row>, of queries, and of keys by their features
 * Errors     SH_OVERFLOW of sums over pairs ("kernels"), SH_BAD_ARGUMENT, SH_NO_MEMORY, SH_INTERRUPTED. Rows must be finite,
 *            and beta |x|^2 at most 1e70 (double: 1e300): they are not looked at.
 * Cost       of gradients some three times that of what they are gradients of. Memory: some rows and a state for each
 *            thread, at most 2 * 16 states, and, causal, D numbers for every 128 rows.
 * Notes      The same bits for any number of threads. */
SH_API sh_status sh_feature_sets_few(sh_context *context, const sh_feature_sets *sets, sh_stack out);
SH_API sh_status sh_feature_sets_few_back(sh_context *context, const sh_feature_sets *sets, sh_stack grad,
                                          sh_stack dquery, sh_stack dkey, sh_stack dvalue, double *along);
SH_API sh_status sh_feature_sets_sum(sh_context *context, const sh_feature_sets *sets, sh_feature_state state);
SH_API sh_status sh_feature_sets_mix(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                     sh_stack out);
SH_API sh_status sh_feature_sets_causal(sh_context *context, const sh_feature_sets *sets, sh_stack out);
SH_API sh_status sh_feature_sets_mix_back(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                          sh_stack grad, const sh_feature_state *dstate, sh_stack dquery,
                                          double *along);
SH_API sh_status sh_feature_sets_sum_back(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                          sh_feature_state dstate, const double *dkeys, sh_stack dkey, sh_stack dvalue,
                                          double *along);
SH_API sh_status sh_feature_sets_causal_back(sh_context *context, const sh_feature_sets *sets, sh_stack grad,
                                             sh_stack dquery, sh_stack dkey, sh_stack dvalue, double *along);

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

typedef struct sh_trail sh_trail;

/* sh_association_forward: out[b, n, h] = sum_j p_j value_j, with p the last association of x <- sum_j p_j key_j,
 * p = separation(beta key x + mask), which begins at the query and is made steps + 1 times, or until at rest.
 *
 * Given      association  its arrays must stay as they are until the trail is freed
 * Returned   out    (B, N, H, v)
 *            trail  what the gradient needs, or NULL if it is not wanted: of each update the state, the thresholds and
 *                   the rows with weight; to be given back to sh_trail_free
 *            unsettled  queries that were still moving after 10,000 updates
 * Errors     SH_NOT_FINITE, SH_OVERFLOW, SH_NO_MEMORY, SH_INTERRUPTED, SH_BAD_ARGUMENT
 * Cost       2 (steps + 1) B N H M d multiplications for maps of full support; for the others the mixtures, and all of
 *            the backward pass, follow the rows with weight in any of some 16 queries. With a key_map the products run
 *            in the `from` features of the rows, which are not projected at all: right for few queries and many rows.
 *            No N x M array exists at any time. With a structure but TOP, the work and the memory follow the rows that
 *            any of some 16 queries, neighbours in place, look at.
 * Notes      1. A query with no row to look at (no rows, all masked) gets zeros, and no gradient passes.
 *            2. The same bits for any number of threads; not across instruction sets. */
SH_API sh_status sh_association_forward(sh_context *context, const sh_association *association, void *out,
                                        sh_trail **trail, int64_t *unsettled);

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
SH_API sh_status sh_association_backward(sh_context *context, const sh_trail *trail, const void *grad,
                                         const sh_gradients *gradients);
/* sh_association_weights: of every query in the order b, h, n its last association, before dropout. The scores of the
 * entries are 0. */
SH_API sh_status sh_association_weights(sh_context *context, const sh_trail *trail, sh_entries *entries);
/* sh_association_steps: of every query (B, N, H) the updates it made. */
SH_API void sh_association_steps(const sh_trail *trail, int64_t *steps);
SH_API void sh_trail_free(sh_context *context, sh_trail *trail);

/* What layers need besides (association/dense.c). Matrices are contiguous, n rows of e numbers, o outputs; NULL where
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

/* Row maps: `rows` rows of n scores each (separation/rows.c). Rows of inputs and outputs are contiguous. */
typedef enum {
    SH_ROW_SOFTMAX,
    SH_ROW_SPARSEMAX,
    SH_ROW_ENTMAX,              /* parameter alpha >= 1 */
    SH_ROW_POLYNOMIAL,          /* parameter order >= 1 */
    SH_ROW_TOPK_SOFTMAX,        /* parameter k >= 1 */
    SH_ROW_TOPK_SPARSEMAX,      /* parameter k >= 1 */
    SH_ROW_SPARSEMAX_THRESHOLD, /* out[0] tau, out[1] int64 support size */
    SH_ROW_ENTMAX_THRESHOLD,
    SH_ROW_SOFTMAX_VJP, /* in: p, g */
    SH_ROW_SPARSEMAX_VJP,
    SH_ROW_ENTMAX_VJP,
    SH_ROW_ENTMAX_VJP_ALPHA,  /* in: p, g; out[0] one number */
    SH_ROW_POLYNOMIAL_VJP,    /* in: z, p, g */
    SH_ROW_SOFTMAX_CONJUGATE, /* out[0] one number */
    SH_ROW_SPARSEMAX_CONJUGATE,
    SH_ROW_ENTMAX_CONJUGATE,
    SH_ROW_MAPS
} sh_row_op;

/* sh_row: one row. Scratch: sh_row_scratch(n) bytes. Errors: SH_BAD_ARGUMENT for the parameter.
 * Notes      1. NaN makes its whole row NaN. -inf is a mask and gets weight 0; a row all -inf gives zeros
 *               and tau = +inf. +inf shares the weight with its equals.
 *            2. out[0] may be in[0].
 */
SH_API sh_status sh_row(sh_row_op op, sh_type type, int64_t n, double parameter, const void *const in[],
                        void *const out[], void *scratch);
SH_API size_t sh_row_scratch(int64_t n);

/* Configuration. Threads: set > SPARSEHOPFIELD_NUM_THREADS > OMP_NUM_THREADS > processors allowed. */
SH_API int sparsehopfield_get_num_threads(void);
SH_API int sparsehopfield_set_num_threads(int threads); /* 1 to 64, clipped; returns what it was */
/* Lists what sh_initialise read in the environment and does not follow, and how it may be. Returns how many there are. */
typedef struct {
    const char *name;
    char value[64]; /* cut where it is longer */
    const char *allowed;
} sh_ignored;
SH_API int sh_ignored_settings(const sh_ignored **list);
SH_API const char *sh_simd_level(void);     /* chosen: "base", "avx2", "avx512", "vnni" */
SH_API const char *sh_simd_available(void); /* those that this machine runs, by space */
SH_API const char *sh_blas_core(void);
SH_API const char *sh_blas_version(void);
SH_API int sh_blas_threads(void);
/* sh_initialise: once, before anything else: chooses kernels, pins BLAS to one thread and probes that its
 * float32 products are not computed in a shorter format. SH_UNDEFINED if they are. */
SH_API sh_status sh_initialise(void);
SH_API const char *sh_status_name(sh_status status);

#ifdef __cplusplus
}
#endif
#endif
