/* sparsehopfield.h: the C interface of the associative memory library: memories, retrieval, features, row maps and
 * configuration. For programs in C11 and C++11; layers are in sparsehopfield_layers.h.
 *
 * Letters, used everywhere:  M stored patterns, N queries, d features of a pattern, v features of a value,
 *                            s a score, beta the inverse temperature, z = beta (s - max s), p weights.
 *
 * Conventions
 *  1. Arrays are row major, one row a pattern or a query. Queries and outputs are contiguous and of the
 *     memory's compute type (float or double); `void *` stands for either.
 *  2. A function that can fail returns a status. Outputs hold results only after SH_OK. Bad arguments and NaN or
 *     infinity in the input are found before an output is touched; after SH_NO_MEMORY, SH_INTERRUPTED or SH_FORKED
 *     outputs may be partly written.
 *  3. After a failure, `argument` of the context names the argument at fault, and `row` the number of its row. After
 *     SH_NO_MEMORY, SH_INTERRUPTED and SH_FORKED `argument` is NULL, as no argument is at fault.
 *  4. One context serves one call at a time; a memory may serve many calls at once.
 *  5. The calling thread is taken to have the floating-point settings that C starts with: round to nearest, keep
 *     subnormal numbers, no traps. The library's own threads have them, whatever the caller's are.
 *  6. A process may end while other threads are within calls: they do not return.
 *  7. Call sh_initialise first. Without it the kernels that every processor has are used, which are slow.
 *  8. A pointer may be NULL where its description says so, and arrays of length 0 may be. Everywhere else NULL is
 *     SH_BAD_ARGUMENT; but a context must always be there, and sh_row checks no pointer.
 *  9. Arrays begin at a multiple of their elements' size.
 *
 * Versions
 *  What this header declares is stable: as long as the soname of the shared library (libsparsehopfield.so.0) is the same, a
 *  program goes on working with a newer library without being compiled again. Functions, and values at the end of an
 *  enumeration, may be added under the same soname. A function that goes or takes other arguments, and a struct that gets
 *  another field, is a new soname. Fields are only ever added at the end of a struct, and 0 in a new one means what the
 *  version before did: a program that fills its structs with zeros first, or by designated initialisers, compiles and
 *  works as before. sh_memory is opaque, and may change at any time.
 */
#ifndef SPARSEHOPFIELD_H
#define SPARSEHOPFIELD_H

#include <stddef.h>
#include <stdint.h>

#if defined(SH_API) /* by a build that exports these functions in another way, or none */
#elif defined(__GNUC__) && !defined(_WIN32)
#define SH_API __attribute__((visibility("default")))
#else
#define SH_API
#endif

/* The version of this header; sh_version tells that of the library. */
#define SH_VERSION_MAJOR 0
#define SH_VERSION_MINOR 2
#define SH_VERSION_PATCH 0
#define SH_VERSION_STRING "0.2.0"
#define SH_VERSION_NUMBER (SH_VERSION_MAJOR * 10000 + SH_VERSION_MINOR * 100 + SH_VERSION_PATCH)

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
typedef enum { SH_SPARSEMAX, SH_SOFTMAX, SH_ENTMAX, SH_POLYNOMIAL, SH_NORMMAX } sh_separation;

/* n rows of d elements; a row is contiguous, rows lie `stride` bytes apart. Elements of a narrow type (uint8, float16, and
 * float32 where the compute type is float64) are widened where they are used: a uint8 or float16 q stands for the float32
 * number q * scale, rounded once. */
typedef struct {
    const void *data;
    int64_t n, d, stride;
    sh_type type;
    float scale;   /* of uint8 and float16; 0 means 1 */
    int unchecked; /* of values: 1 leaves out the pass that looks for NaN and infinity */
} sh_rows;

/* The path by which scores of maps with a cutoff are found. The results are the same bits; only AUTO looks for the fastest path. */
typedef enum {
    SH_PATH_AUTO,
    SH_PATH_SCAN,   /* no index */
    SH_PATH_LINES,  /* an index with filter codes of leading columns, one cache line a pattern; built if need be */
    SH_PATH_COLUMNS /* an index with filter codes of all columns; built if need be */
} sh_path;

/* The means that a call may use. Zero-filled, it means: malloc and free, one thread, no interruption, the fastest path. */
typedef struct sh_context {
    void *(*allocate)(void *user, size_t bytes); /* from any thread; blocks are aligned as malloc's, NULL: none left */
    void (*release)(void *user, void *block);    /* set both or neither: with one alone there is no memory */
    int (*interrupted)(void *user);              /* asked after every tile, in the calling thread only */
    void *user;
    int threads; /* at most so many, the caller among them; taken as 1 below 1, as 64 above 64 */
    sh_path path;
    const char *argument; /* set on failure: a constant, or NULL */
    int64_t row;
    /* Told in the calling thread only, by sh_memory_index, sh_margins and sh_radii, how many patterns of a pass are done;
     * NULL: nobody is. Results are the same. It may make other calls; to stop this one is for `interrupted`, asked next. */
    void (*progress)(void *user, int64_t done, int64_t total);
} sh_context;

/* The model: how scores become weights. `parameter` is alpha of SH_ENTMAX and SH_NORMMAX, or the order of SH_POLYNOMIAL. */
typedef struct {
    sh_separation separation;
    double parameter;
} sh_model;

typedef struct sh_memory sh_memory;

/* sh_memory_new: makes stored patterns ready for retrieval: takes their norms and checks them. The rows are borrowed:
 * they must stay where they are, unchanged, until the memory is freed.
 *
 * Given      patterns  M >= 1 rows; float32, float64, or of a narrow type (widened tile by tile)
 *            values    M rows, or NULL: the patterns themselves
 *            type      SH_FLOAT32 or SH_FLOAT64: the compute type; rows have it or are of a narrower one
 * Returned   memory    to be given back to sh_memory_free
 * Errors     SH_NOT_FINITE, SH_ZERO_ROW, SH_OVERFLOW (euclidean bias), SH_BAD_ARGUMENT, SH_NO_MEMORY
 * Cost       one pass over the patterns; allocates 12 to 16 bytes a pattern (euclidean, cosine), else O(1)
 */
SH_API sh_status sh_memory_new(sh_context *context, const sh_rows *patterns, const sh_rows *values,
                               sh_similarity similarity, sh_type type, sh_memory **memory);
/* sh_memory_extend: makes a memory over more rows, the first of which are those of an old one, unchanged, though they may
 * lie elsewhere by now. It answers, bit for bit, as one made anew.
 *
 * Given      old       a memory; it stays as it is, and may serve calls meanwhile
 *            patterns, values  at least as many rows as the old ones, those removed among them, of the same types, widths
 *                      and scales
 * Returned   memory    to be given back to sh_memory_free; it and the old one may go in any order
 * Errors     those of sh_memory_new; rows are counted from the first new one
 * Cost       one pass over the new rows; what was computed of the old ones is shared, and copied only now and then, so
 *            that growing row by row costs O(1) a row
 */
SH_API sh_status sh_memory_extend(sh_context *context, const sh_memory *old, const sh_rows *patterns,
                                  const sh_rows *values, sh_memory **memory);
/* sh_memory_remove: makes a memory without some patterns of an old one, over the same rows: those of removed patterns stay
 * where they are, unchanged, too. It answers, bit for bit, as one made anew of the rows that are left.
 *
 * Given      old        a memory; it stays as it is, and may serve calls meanwhile
 *            positions  (n) which patterns, in any order, some perhaps twice; those behind them move up
 * Returned   memory     to be given back to sh_memory_free; it and the old one may go in any order
 * Errors     SH_BAD_ARGUMENT of "positions" out of range, or of all patterns: a memory has at least one; SH_NO_MEMORY
 * Cost       an eighth of a byte a row, and a search of O(log M) for each position; all else is shared, indexes, too
 * Notes      1. Everywhere else M counts the patterns that are left, and a position is one among them.
 *            2. The first call of a map with full support, of a support of more than max(SH_EXACT_SUPPORT, M / 16), or of a
 *               structure of windows, blocks or random subsets copies the patterns that are left, and keeps the copy as
 *               long as the memory.
 *            3. Calls pass over removed rows. Where they have become many, make a new memory of the others. */
SH_API sh_status sh_memory_remove(sh_context *context, const sh_memory *old, int64_t n, const int64_t *positions,
                                  sh_memory **memory);
/* sh_memory_count: returns how many patterns a memory has: M; 0 where it is NULL. O(1), allocates nothing. */
SH_API int64_t sh_memory_count(const sh_memory *memory);
/* sh_memory_rows: tells which rows some patterns are.
 *
 * Given      positions  (n), or NULL: the first n
 * Returned   row        (n)
 * Errors     SH_BAD_ARGUMENT of "positions" out of range
 * Cost       a search of O(log M) for each position, O(1) where positions ascend one by one; allocates nothing */
SH_API sh_status sh_memory_rows(sh_context *context, const sh_memory *memory, int64_t n, const int64_t *positions,
                                int64_t *row);
/* sh_memory_max_norm: gives the largest length of a pattern, max |xi|; 1 under cosine similarity.
 * Errors     SH_NO_MEMORY, SH_INTERRUPTED
 * Cost       O(1); a pass over the patterns the first time after the longest one was removed */
SH_API sh_status sh_memory_max_norm(sh_context *context, const sh_memory *memory, double *norm);
/* sh_memory_set_whole: says that the patterns of a memory are part of a whole, of which there are more elsewhere: a shard of
 * a store, or those rows of it that matter to some queries. Every limit that goes by the number of patterns or by max |xi|
 * goes by the whole from then on: the support up to which weights are canonical, what is within reach of softmax, the
 * support of maps with full support, k of SH_PAIRS_TOP, the tolerance of sh_retrieve. So where a memory has all patterns of
 * the support (within reach, the k best) of a query, results are the bits of one memory of the whole. Only before the memory
 * serves calls; memories that extend it, or have patterns removed, know of no whole until they are told again.
 *
 * Given      count     patterns of the whole, at least the memory's
 *            max_norm  their max |xi|, finite and at least the memory's (sh_memory_max_norm)
 * Errors     SH_BAD_ARGUMENT of "count" and "max_norm"; those of sh_memory_max_norm
 * Cost       that of sh_memory_max_norm
 * Notes      Structures of windows, blocks and random subsets, which go by places in the whole, are refused afterwards
 *            ("structure"). */
SH_API sh_status sh_memory_set_whole(sh_context *context, sh_memory *memory, int64_t count, double max_norm);
/* sh_memory_index: builds the index now, if there is none; otherwise it is built by the call for which it pays.
 *
 * Errors     SH_NO_MEMORY, SH_INTERRUPTED, SH_NOT_FINITE where patterns have changed. Where no index can be had (extreme
 *            norms, more than 66,000 features without structure), it returns SH_OK, and every call scans.
 * Cost       some 300 M d products; filter codes of 64 bytes a pattern and refinement codes of at most 256, or d + 8 bytes
 * Notes      Calls that run while it is built do without. */
SH_API sh_status sh_memory_index(sh_context *context, const sh_memory *memory);
/* sh_memory_share_index: gives a memory those indexes of another that it has none of: one of the same patterns under the
 * same similarity, of either compute type. Both may serve calls meanwhile, and be freed in any order.
 *
 * Errors     SH_BAD_ARGUMENT where the patterns lie elsewhere, are more or fewer, or otherwise typed or scaled
 * Cost       O(1); allocates nothing */
SH_API sh_status sh_memory_share_index(sh_context *context, const sh_memory *memory, const sh_memory *other);
/* sh_memory_index_bytes: returns the bytes of the indexes that a memory has; 0 where it has none, or is NULL.
 * O(1), allocates nothing. */
SH_API int64_t sh_memory_index_bytes(const sh_memory *memory);
/* sh_memory_use_index: says whether calls build an index by themselves. Only before the memory serves calls.
 *   AUTO    where it pays, if it takes at most half of the memory that is available to the process (by its limits, its
 *           control groups and the machine); so is every memory made, and one that extends another uses what that does
 *   ALWAYS  where it pays, however little is available
 *   NEVER   they scan; an index that there is goes */
typedef enum { SH_INDEX_AUTO, SH_INDEX_ALWAYS, SH_INDEX_NEVER } sh_index_use;
SH_API void sh_memory_use_index(sh_context *context, sh_memory *memory, sh_index_use use);
/* sh_memory_use_map: says whether patterns and values lie in a mapped file, at first no. Then what reads scattered rows has
 * the system read these, many at a time, and nothing around them. Only before the memory serves calls. */
SH_API void sh_memory_use_map(sh_memory *memory, int is_mapped);
/* sh_memory_index_export: writes the indexes that a memory has as bytes, for a file; the same bytes for the same indexes.
 *
 * Given      file      memory for `capacity` bytes; NULL if that is 0
 * Returned   bytes     how many they take, at most some 100 more than sh_memory_index_bytes for each array, or 0 where there
 *                      is no index, or patterns are removed; they are written if `capacity` is no less
 * Errors     SH_NO_MEMORY, SH_INTERRUPTED
 * Cost       a pass over the patterns and one over the indexes */
SH_API sh_status sh_memory_index_export(sh_context *context, const sh_memory *memory, void *file, int64_t capacity,
                                        int64_t *bytes);
/* sh_memory_index_import: has a memory use what sh_memory_index_export wrote, in place of building it: in this or another
 * process, by whatever instruction set. Results are the same bits, as with any index.
 *
 * Given      file    `bytes` bytes at a multiple of 64, as a map of a file: borrowed, so they must stay there, unchanged, until
 *                    the memory, and those that extend it, are freed
 * Errors     SH_BAD_ARGUMENT of "file", which is cut or damaged; of "version", which another version wrote, or a machine of
 *            another byte order; of "patterns", which are not those that the indexes are of, or are compared or computed
 *            otherwise. SH_NO_MEMORY, SH_INTERRUPTED. The memory is then as it was.
 * Cost       a pass over the patterns and one over the bytes; M / 8 bytes meanwhile
 * Notes      1. Whatever the bytes are, nothing outside of them is read, then or later. Damage is told by a checksum. It does
 *               not help against those who make a checksum for numbers of their own: a search may then miss patterns.
 *            2. An index that the memory has stays, and where the use of indexes is NEVER nothing is done. */
SH_API sh_status sh_memory_index_import(sh_context *context, const sh_memory *memory, const void *file, int64_t bytes);
/* sh_memory_fingerprint: gives a number that changes, but for a chance of 2^-64, when any stored byte does, those of
 * removed rows among them.
 * Errors     SH_INTERRUPTED
 * Cost       one pass over patterns and values; allocates nothing */
SH_API sh_status sh_memory_fingerprint(sh_context *context, const sh_memory *memory, uint64_t *fingerprint);
/* sh_memory_free: gives a memory and its indexes back, by the `release` of a context whose allocator is that of the calls
 * that made them; not while a call uses it. NULL is ignored. O(1); the rows are the caller's. */
SH_API void sh_memory_free(sh_context *context, sh_memory *memory);

/* A structure: which patterns each query sees. The place of a query is position[i], or i where that is NULL.
 *   TOP     the k best scores of each query, ties by position
 *   WINDOW  patterns place + t dilation, |t| <= width, and those in `column`; causal: none after place
 *   RANDOM  k patterns, drawn anew for every `rows` places by `seed`
 *   BLOCKS  of block row r = place / rows the blocks column[start[r]] .. column[start[r + 1] - 1], each `columns` wide
 *   DILATED_BLOCKS  patterns place + t dilation of the block r = place / rows of `rows` patterns; causal: none after place
 * Calls refuse what is wrong with one by these names: "structure" (pairs), "k", "w" (width), "dilation", "positions"
 * (position), "global_positions" (column of a window), "block" (rows, columns), "mask" (start and column of blocks). */
typedef enum {
    SH_PAIRS_ALL,
    SH_PAIRS_TOP,
    SH_PAIRS_WINDOW,
    SH_PAIRS_RANDOM,
    SH_PAIRS_BLOCKS,
    SH_PAIRS_DILATED_BLOCKS
} sh_pairs;
typedef struct {
    sh_pairs pairs;
    int64_t k;               /* 1 to M, of TOP and RANDOM */
    int64_t width, dilation; /* 0 to M, 1 to M, of WINDOW and DILATED_BLOCKS */
    int causal;
    uint64_t seed;
    int64_t rows, columns;   /* at least 1; of DILATED_BLOCKS at most M */
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
    const sh_structure *structure; /* which patterns they see; NULL: all. Of update, energy, retrieve, associate */
    const int64_t *exclude;        /* (N) position of one pattern that each does not see, or -1; NULL: they see all */
} sh_queries;
/* A query that excludes a pattern gets the results of a memory without it, the same bits wherever these are promised (note 2
 * of sh_update): every limit that goes by M goes by M - 1 then, and the tolerance of sh_retrieve by the longest of the
 * others. Positions are those of all patterns. So n stored patterns that exclude themselves are left out one by one, at the
 * cost of n queries, and no memory is made anew.
 *   Of the k best, a query that excludes one of M patterns sees at most M - 1.
 *   SH_OVERFLOW goes by the lengths of all patterns, those excluded among them.
 *   In a memory of part of a whole (sh_memory_set_whole) the tolerance goes by max |xi| of the whole.
 *   sh_bounds gives the bounds of excluded patterns, too.
 * Calls refuse by "exclude" what is no position and not -1, the only pattern of a memory, and structures of windows, blocks
 * or random subsets beside it. */

/* sh_update: makes one retrieval step T(x) = Xi^T p(beta s(x)) for each query (paper eq. 2.5).
 *
 * Returned   states        (N, v), not overlapping any input
 *            support_size  (N) number of weights > 0, or M where the map has full support; or NULL
 * Errors     SH_NOT_FINITE and SH_OVERFLOW of "queries", before anything is written; SH_NOT_FINITE of "patterns" and
 *            "values" that were written into since they were checked, as far as a score or a state shows it: then what
 *            is returned is not to be used. SH_BAD_ARGUMENT, SH_NO_MEMORY, SH_INTERRUPTED. So of all that score queries.
 * Cost       at most one matrix product N x M x d, with an index and a map with a cutoff a small part of it;
 *            per query, a double precision dot product for each pattern within the cutoff of the map;
 *            full-support maps two products.
 *            Memory: 5 MiB a thread (8 in double). For supports of hundreds lists of up to 32 MiB a thread (or 256
 *            bytes a pattern for all threads, where that is larger) and 128 MiB; for more than fits these at most 48 MiB
 *            more (or 12 bytes a pattern, where that is larger).
 * Notes      1. No N x M array exists at any time.
 *            2. For maps with a cutoff the bits do not depend on threads, tiles or instruction sets while
 *               the support has at most max(SH_EXACT_SUPPORT, M / 16) patterns: scores found by the matrix product
 *               only filter, a canonical dot product decides (retrieval/rescore.c). Which of the two a query gets
 *               depends on its support by canonical scores alone. So of softmax, where at most max(16, M / 128) patterns
 *               have scores within ln(M / u) / beta of the best, u the unit roundoff of the compute type: these alone
 *               get weights then.
 *            3. With a structure of windows, blocks or random subsets the cost follows the pairs alone. A query that
 *               sees no pattern gets a state of zeros, support 0 and the energy |x|^2/2, whose gradient is x - 0.
 */
#define SH_EXACT_SUPPORT 1024
SH_API sh_status sh_update(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                           void *states, int64_t *support_size);

/* sh_energy: computes E_beta(x) = -Psi*(beta s)/beta + |x|^2/2, in double (the paper's (2.1) with its 1/beta).
 *
 * Returned   energy  (N)
 * Errors     SH_UNDEFINED for SH_POLYNOMIAL, whose update is not a gradient step of any energy; those of sh_update
 * Cost       that of sh_update
 */
SH_API sh_status sh_energy(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                           double *energy);

/* sh_retrieve: repeats the update of each query until its state moves by at most tol * max|xi|, or max_steps times.
 * States are mixed from the patterns, not from values.
 *
 * Given      max_steps >= 0, tol >= 0
 * Returned   states        (N, d) where each query converged, or the last
 *            steps         (N) updates made
 *            converged     (N) 1 if it converged, else 0
 *            support_size  (N) of the last update
 *            before        (N, d) the states that the last update began from, or NULL: their association is the
 *                          last one, from which values are mixed
 * Errors     SH_BAD_ARGUMENT of "max_steps" and "tol"; those of sh_update
 * Cost       that of the updates of the queries still moving; 16 MiB of scratch
 */
SH_API sh_status sh_retrieve(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                             int64_t max_steps, double tol, void *states, int64_t *steps, uint8_t *converged,
                             int64_t *support_size, void *before);

/* Rows of (position, score, weight), by query; freed as one by sh_entries_free. */
typedef struct {
    int64_t n;         /* queries */
    int64_t *start;    /* (n + 1) */
    int64_t *position; /* (start[n]) ascending within a query */
    double *score;     /* s, canonical for maps with a cutoff */
    double *weight;    /* p, rounded to the compute type */
} sh_entries;

/* sh_associate: gives the weights themselves, as lists.
 *
 * Given      top         keep the `top` largest weights of a query (ties: lowest position), 0 for all
 *            min_weight  keep weights of at least this, 0 for all
 *                        maps with full support need one of the two, unless the queries have a structure
 * Returned   entries     after SH_OK, to be given back to sh_entries_free
 * Errors     those of sh_update; SH_BAD_ARGUMENT of "top" and "min_weight"
 * Cost       that of sh_update, and 24 bytes a weight
 */
SH_API sh_status sh_associate(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                              int64_t top, double min_weight, sh_entries *entries);
/* sh_candidates: gives what the patterns of a memory contribute to results of a whole that they are part of
 * (sh_memory_set_whole), as lists with canonical scores: of each query those that would have weight if there were no others,
 * and that are not below a floor.
 *   maps with a cutoff  the support, whatever its size
 *   softmax             the patterns within reach of the best (note 2 of sh_update)
 *   with SH_PAIRS_TOP   those among the k best
 * Adding scores never lowers a threshold, a best score or a k-th best one. So the joined lists of all parts hold the whole's
 * support (patterns within reach, k best), if each floor is at most the least score that these have; and a threshold of any
 * scores of the whole is such a floor.
 *
 * Given      floor     (N) below infinity; -INFINITY excludes none. NULL: none does
 *            most      >= 0: how many patterns within reach of softmax (without SH_PAIRS_TOP) a list may have
 * Returned   entries   after SH_OK, to be given back to sh_entries_free; weight: among those that are listed
 *            too_many  (N) 1 where more than `most` patterns are within reach and not below the floor, and the list is empty
 * Errors     SH_BAD_ARGUMENT of "floor", "most", "separation" (the polynomial, but for the k best) and "structure" (one that
 *            goes by places); those of sh_update
 * Cost       that of sh_associate; where an index serves the query and the floor is far above its scores, that of a pass over
 *            the boxes of the index. Where there are too many, at most two matrix products, and few canonical scores.
 */
SH_API sh_status sh_candidates(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                               const double *floor, int64_t most, sh_entries *entries, uint8_t *too_many);
/* sh_entries_free: gives the arrays back, by the context's `release`, and leaves entries empty. */
SH_API void sh_entries_free(sh_context *context, sh_entries *entries);

/* sh_survey: counts, of each query, the patterns in each stage of the search: listed by their filter codes, still listed
 * after refinement, scored canonically, in the support. The scan knows the last two alone; the others are -1.
 * So is the third where weights come from scores of the product.
 * Returned   counts  (N, 4)
 * Errors     SH_BAD_ARGUMENT of a map with full support ("separation"); those of sh_update
 * Cost       that of sh_update */
SH_API sh_status sh_survey(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                           int64_t *counts);

/* sh_bounds: gives the index's bounds, so that they can be tested: of each query and pattern an upper bound on the canonical
 * score by filter code and box (the lesser), one by the refinement code (by the filter code, where there is none), and a
 * lower bound. The index is that of SH_PATH_COLUMNS where this is the context's path, else that of SH_PATH_LINES; it is
 * built if need be. beta is not used, and may be NULL.
 *
 * Returned   bounds  (N, M, 3); INFINITY, and -INFINITY, where the index has no bound for a query (extreme norms)
 * Errors     SH_BAD_ARGUMENT of "index" where none can be had; SH_NOT_FINITE of "queries"; those of sh_memory_index
 * Cost       12 bytes of scratch a pattern; some N M d products of bytes
 */
SH_API sh_status sh_bounds(sh_context *context, const sh_memory *memory, sh_queries queries, double *bounds);

/* sh_margins: gives of every pattern its own score less the largest score with another (the paper's Delta; cosine: of
 * the unit rows). Infinite where there is no other; 0 or less means it is not stored at any beta.
 * Returned   margins  (M)
 * Errors     those of sh_nearest, of "patterns"
 * Cost       that of M queries; the index is built where it pays. 16 MiB of scratch.
 */
SH_API sh_status sh_margins(sh_context *context, const sh_memory *memory, double *margins);

/* sh_radii: computes the radius of a ball around each of some patterns whose points are retrieved as the pattern: the least
 * (gap to nu - need) / sqrt(D^2 + slack) over the others nu, where the gap is the score of the pattern with itself less that
 * with nu, and D = |xi - xi_nu| (cosine: of the unit rows).
 *
 * Given      which   (n) positions
 *            need    (n) finite: the required gaps
 *            slack   finite, >= 0: D^2 is a difference of scores, which rounding may make too small by as much
 * Returned   radius  (n) INFINITY where there is no other; with slack 0, copies have a radius beyond all bounds, of the
 *                    sign of -need
 *            rival   (n) the pattern nu whose quotient it is, or -1
 * Errors     SH_BAD_ARGUMENT, SH_NOT_FINITE; those of sh_nearest
 * Cost       that of sh_nearest; more where lengths differ much, as longer patterns may be rivals from farther away
 */
SH_API sh_status sh_radii(sh_context *context, const sh_memory *memory, int64_t n, const int64_t *which,
                          const double *need, double slack, double *radius, int64_t *rival);

/* sh_nearest: finds the best patterns of each query and their canonical scores, from the best down, ties by position.
 *
 * Given      count     1 to SH_NEAREST
 * Returned   position  (N, count), -1 where there are fewer patterns
 *            score     (N, count), -INFINITY there
 * Cost       at most one matrix product N x M x d, with an index a small part of it; 16 bytes a pair found
 * Errors     SH_BAD_ARGUMENT of "count"; those of sh_update
 * Notes      beta is not used, and may be NULL.
 */
#define SH_NEAREST 32
SH_API sh_status sh_nearest(sh_context *context, const sh_memory *memory, sh_queries queries, int64_t count,
                            int64_t *position, double *score);

/* sh_solve: computes the weights of given scores, list by list. So results of maps with a cutoff are merged: adding
 * scores never lowers the threshold, so that lists of partial supports may be joined and solved again.
 *
 * Given      type    SH_FLOAT32 rounds the weights to float
 *            start   (n + 1) from 0 up; list i is score[start[i]] .. score[start[i + 1] - 1]
 *            beta    of list i beta[i * beta_stride], stride 0 or 1
 * Returned   weight  (start[n]), 0 outside the support
 * Errors     SH_NOT_FINITE of a list with a score that is NaN or infinite, SH_BAD_ARGUMENT of a beta, SH_NO_MEMORY
 * Cost       O(k) expected of a list of k (sparsemax), O(k log k) of one (entmax); 8 bytes for each score of the longest
 */
SH_API sh_status sh_solve(sh_context *context, sh_model model, sh_type type, int64_t n, const double *beta,
                          int64_t beta_stride, const int64_t *start, const double *score, double *weight);

/* sh_mix: mixes values by lists of weights: a state is the sum of weight x value, in double, in the order given.
 *
 * Given      start (n + 1) from 0 up; position and weight (start[n]), as sh_associate gives them
 * Returned   states (n, v)
 * Errors     SH_BAD_ARGUMENT of "positions" outside the memory; SH_NOT_FINITE of "patterns" or "values" with NaN or
 *            infinity in a row that a state shows, SH_NO_MEMORY
 * Cost       start[n] v products in double, in one thread; allocates a row in double and one of the compute type
 */
SH_API sh_status sh_mix(sh_context *context, const sh_memory *memory, int64_t n, const int64_t *start,
                        const int64_t *position, const double *weight, void *states);

/* The partial result of maps with full support, over a part of the patterns: of each query
 * softmax: scale = max s, sum = sum exp(beta (s - scale)), mixture = sum exp(..) value.
 * polynomial: scale = max |s|, sum = sum (s/scale)^order, mixture = sum (..) value. */
typedef struct {
    double *scale, *sum; /* (N) */
    void *mixture;       /* (N, v) of the compute type, or NULL: sums only */
} sh_partial;
/* sh_accumulate: computes the partial result of the memory's patterns, for a model with full support. The
 * arrays are the caller's.
 * Errors     SH_BAD_ARGUMENT of a map with a cutoff ("separation"); those of sh_update
 * Cost       that of sh_update */
SH_API sh_status sh_accumulate(sh_context *context, const sh_memory *memory, sh_model model, sh_queries queries,
                               sh_partial partial);
/* sh_merge: turns `a` into the partial result of both parts. The mixtures of both are there, or of neither. Returns
 * SH_BAD_ARGUMENT of a map with a cutoff, too. Cost O(N v), no allocation. */
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
/* sh_features_mix: computes sum_f w_f sum[f] / total[f], with w_f proportional to phi_f(x) exp(top[f]) total[f],
 * of each query.
 *
 * Given      queries  rows of the compute type
 *            stride   numbers from one row of out to the next, at least v
 * Returned   out      zeros where a query shares no positive feature with a pattern, or there is none
 * Errors     those of sh_features_add, of "queries"
 * Cost       D v multiplications a query, RANDOM D d more; allocates D v numbers of the compute type */
SH_API sh_status sh_features_mix(sh_context *context, const sh_features *features, sh_feature_state state,
                                 const sh_rows *queries, void *out, int64_t stride, int64_t *products);
/* sh_features_causal: computes the same of as many queries as patterns, query i of patterns 0 to i.
 *
 * Given      least_normaliser  rows are taken 128 at a time, in units of their largest features. Where the sum of a query's
 *                   kernels is below this, features of later patterns are so large that those it sees underflow: half of
 *                   the rows are then taken at a time. Some 1e-20 in float, 1e-200 in double
 * Errors     those of sh_features_add; SH_OVERFLOW of sums over pairs ("kernels") and of outputs ("sums", unless
 *            values are unchecked) */
SH_API sh_status sh_features_causal(sh_context *context, const sh_features *features, const sh_rows *queries,
                                    const sh_rows *patterns, const sh_rows *values, double least_normaliser, void *out,
                                    int64_t stride, int64_t *products);

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

/* sh_row: maps one row.
 *
 * Given      in, out  arrays of pointers to rows of n numbers, as many as the operation says, else one each
 *            scratch  sh_row_scratch(n) bytes, aligned for doubles; nothing else is allocated
 * Errors     SH_BAD_ARGUMENT of a parameter out of its range, a negative n or another type
 * Cost       O(n); O(n + k log k) for entmax and the k best, with k the scores that may have weight
 * Source     separation/rows.c
 * Notes      1. NaN makes its whole row NaN. -inf is a mask and gets weight 0; a row all -inf gives zeros
 *               and tau = +inf. +inf shares the weight with its equals.
 *            2. out[0] may be in[0].
 */
SH_API sh_status sh_row(sh_row_op op, sh_type type, int64_t n, double parameter, const void *const in[],
                        void *const out[], void *scratch);
/* sh_map_row: computes one part of a map of a row, for any map; errors, cost and notes as of sh_row.
 *
 * Given      model   its parameter is k of SH_ROW_PART_TOP, which only maps without a parameter have
 * Errors     SH_UNDEFINED of what a map does not have, besides */
typedef enum {
    SH_ROW_PART_WEIGHTS,       /* in: z */
    SH_ROW_PART_THRESHOLD,     /* in: z; out[0] tau, out[1] int64 support size */
    SH_ROW_PART_VJP,           /* in: p, g; of the polynomial z, p, g */
    SH_ROW_PART_VJP_PARAMETER, /* in: p, g; out[0] the derivative of <g, p> in the parameter */
    SH_ROW_PART_CONJUGATE,     /* in: z; out[0] one number */
    SH_ROW_PART_TOP,           /* in: z; the weights of the k best scores */
    SH_ROW_PARTS
} sh_row_part;
SH_API sh_status sh_map_row(sh_model model, sh_row_part part, sh_type type, int64_t n, const void *const in[],
                            void *const out[], void *scratch);
/* sh_row_scratch: returns the bytes of scratch memory that sh_row needs for rows of n >= 0 numbers. */
SH_API size_t sh_row_scratch(int64_t n);

/* Configuration of the process. None of these functions allocates; each costs O(1), but for the first sh_initialise. */

/* sh_initialise: prepares the library; call it once, before anything else. Again, from any thread, it returns what it
 * did. Chooses kernels by the processor
 * and by SPARSEHOPFIELD_SIMD, and tries whether the float32 products of the BLAS are computed in float32.
 *
 * Returns    SH_OK, or SH_UNDEFINED where they are computed in a shorter format, so that nothing could be exact
 * Cost       one small product; some milliseconds */
SH_API sh_status sh_initialise(void);

/* sh_version: returns the version of the library that was loaded, as "0.2.0";
 * sh_version_number: as SH_VERSION_NUMBER has it. A program may compare them with the macros above, which are those that it
 * was compiled with. */
SH_API const char *sh_version(void);
SH_API int sh_version_number(void);

/* sh_status_name: returns a status in words, as "no memory"; "unknown" for other numbers. A constant. */
SH_API const char *sh_status_name(sh_status status);

/* sh_get_num_threads: returns how many threads the process gives to a call, for programs that have no wish of their own:
 * what was set, else SPARSEHOPFIELD_NUM_THREADS, else OMP_NUM_THREADS, else the processors allowed. A call goes by the
 * `threads` of its context alone.
 * sh_set_num_threads: sets that number; what is below 1 or above 64 is taken as 1 or 64. Returns what it was before. */
SH_API int sh_get_num_threads(void);
SH_API int sh_set_num_threads(int threads);

/* sh_ignored_settings: lists what sh_initialise read in the environment and does not follow, and how it may be. Returns
 * how many there are; the list (NULL: not wanted) is constant, and the library's. */
typedef struct {
    const char *name;
    char value[64]; /* cut where it is longer */
    const char *allowed;
} sh_ignored;
SH_API int sh_ignored_settings(const sh_ignored **list);

SH_API const char *sh_simd_level(void);     /* chosen: "base", "avx2", "avx512", "vnni", "neon", "dotprod" */
SH_API const char *sh_simd_available(void); /* those that this machine runs, by space */
SH_API const char *sh_blas_core(void);      /* the processor that the BLAS has kernels for, by its name for it */
SH_API const char *sh_blas_version(void);   /* its name, version and options */
SH_API int sh_blas_threads(void);           /* threads of a product; the library sets 1 */

#ifdef __cplusplus
}
#endif
#endif
