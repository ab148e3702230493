/* retrieval/index/index.h: an index: patterns as 8-bit codes, and bounds on scores that follow from them.
 *
 * An index tells which patterns may reach a threshold of scores without reading their rows. It is a scalar quantiser
 * and its refinement (as vector databases filter and refine), with bounds that hold whatever is rounded, so that
 * nothing is lost: bounds.c has the proofs, quantise.c and build.c make the codes, query.c searches. Of M patterns it
 * holds
 *
 *   centre (d), scaling   rows are coded as y = (xi - centre) * scaling; scaling is a power of two such that |y| <= 1
 *   basis (rank, d)       V, the leading principal directions of a sample of y; none where they would not help
 *   order                 the pattern of each slot: patterns that are close together share panels
 *   boxes                 of every panel the least and the most of a few columns, by which a search passes panels over
 *   filter, panels        filter codes, which every search reads: of the first SH_SHORT_CODE columns of V y, which with
 *                         error radius and bias are 64 bytes a pattern; or of all d features, d + 8 bytes
 *   refinement, records   refinement codes, of the patterns that filter codes do not exclude: of all d features where those
 *                         are at most 244, else of up to 244 columns of V y: at most 256 bytes a pattern; none where
 *                         the filter codes have all features
 */
#ifndef SH_INDEX_H
#define SH_INDEX_H
#include "kernels/codes.h"
#include "retrieval/job.h"
#include "runtime/workspace.h"

typedef enum {
    SH_LEADING_COLUMNS, /* filter codes of leading columns, and refinement codes */
    SH_ALL_COLUMNS,     /* filter codes of every feature: for patterns without leading directions */
    SH_EITHER_COLUMNS   /* to sh_index_new: whichever suits the patterns */
} sh_index_kind;

enum {
    SH_SHORT_CODE = 56,     /* columns of a filter code that, with error radius and bias, is one cache line, */
    SH_LONG_CODE = 120,     /* or two */
    SH_LARGEST_GRAM = 1024, /* rows of the largest matrix whose eigenvectors are computed */
    SH_SEGMENTS = 32        /* each is larger than all that follow */
};

/* Finds the leading principal directions of n rows `sample` (n, d); n <= SH_LARGEST_GRAM if d is larger than it.
 *
 * Given      wanted    rows of `basis` (wanted, d)
 * Returned   rank      of them that were found; 0 if LAPACK failed
 *            left_out  share of the rows' squares outside the first SH_SHORT_CODE of them
 *            eta       |V V^T - I|_F, not below it
 * Cost       n d min(n, d) + 9 min(n, d)^3 in double */
sh_status sh_principal_directions(sh_context *context, const double *sample, int64_t n, int64_t d, int64_t wanted,
                                  float *basis, int64_t *rank, double *left_out, double *eta);

/* How columns become codes, and bounds on what that loses (bounds.c). */
typedef struct {
    int64_t columns;         /* K; 0: there are no such codes */
    int rotated;             /* whether columns are products with the basis, or the features themselves */
    float *step, *inverse;   /* (K) a code times its scale and step is its column; 1 / step */
    double projection_error; /* e: columns are off by at most e |y| in l2 */
    double eta;              /* |V V^T - I|_F of the basis, 0 for the features themselves */
    double phi;              /* |(I - V^T V) y|^2 <= |y|^2 - |a|^2 + phi |y|^2 */
    double weight[4];        /* of the four terms of the error radii */
} sh_quantiser;

typedef struct sh_index {
    _Atomic int64_t references; /* memories that use it, and indexes with longer codes */
    struct sh_index *base;      /* of one with longer codes: whose arrays it shares, but for the filter's; else NULL */
    int borrowed;               /* its own arrays lie in what sh_memory_index_import was given */
    sh_index_kind kind;
    int64_t patterns;                 /* M: it covers the first so many */
    int64_t d;                        /* features that it uses */
    int32_t *features;                /* (d) which, ascending; NULL: all */
    double scaling;                   /* 2^-e */
    double *centre;                   /* (d) mu: the mean of a sample, or zero */
    double centre_norm2, centre_norm; /* |mu|^2; not below |mu| */
    double first_distance;            /* not below |x0 - mu|, x0 the first pattern */
    int64_t rank;
    float *basis; /* (rank, d) V, or NULL */
    sh_quantiser filter, refinement;
    int64_t quads;                          /* ceil(filter.columns / 4) */
    int64_t panel_count;                    /* whose last slots may be empty: their bounds are -INFINITY */
    uint8_t *panels;                        /* (panel_count) filter codes (kernels/codes.h), */
    float *scales;                          /* (panel_count) and their scales */
    int32_t *order;                         /* (64 panel_count) the pattern of each slot; -1: the slot is empty */
    int boxes_by_distance;                  /* how the bounds of boxes are computed: every bias is -|y|^2 / 2 */
    float *boxes;                           /* (ceil(panel_count / SH_GROUP), SH_GROUP_FLOATS) */
    int64_t box_columns;                    /* at most 6: a box has these, and what of y lies outside of them */
    int32_t box_column[SH_BOX_COLUMNS - 1]; /* (box_columns) which of V y, or of y where there is no basis */
    double box_error, box_phi;              /* projection_error of one of these, phi of all (as of a quantiser) */
    int64_t segments;                       /* each of patterns that were ordered together, in panels of their own */
    int64_t segment_start[SH_SEGMENTS];     /* (segments) the first pattern of each, */
    int64_t segment_panel[SH_SEGMENTS];     /* and the first panel */
    size_t record_bytes;                    /* a multiple of 4; 0: there are no records */
    char *records; /* (64 panel_count) K refinement codes; in the last 12 bytes scale, error radius, bias */
    size_t bytes;  /* of all these arrays but `features` */
} sh_index;

/* Makes an index of all patterns, of the d features `features` (ascending), or of all if it is NULL.
 *
 * Returned   *index, which has one reference; or NULL where none can be: extreme norms, too many features for 8-bit
 *            sums
 * Errors     SH_NO_MEMORY also where the index, or what it takes to make it, would exceed most_bytes
 * Cost       5 to 7 % of the matrix product with 10,000 queries */
sh_status sh_index_new(sh_context *context, const sh_memory *memory, sh_index_kind kind, const int32_t *features,
                       int64_t d, int64_t most_bytes, sh_index **index);
/* Makes the index of a memory from that of its first patterns: copies the codes, and adds those of the others in panels of
 * their own, ordered among themselves. *index is NULL where these do not fit its scaling, or would be as many as the
 * patterns that the older index was made for. */
sh_status sh_index_grow(sh_context *context, const sh_memory *memory, const sh_index *older, int64_t most_bytes,
                        sh_index **index);
/* Makes the index of a memory that has the patterns which are left of another, in their order, from the other's: the slots
 * of removed ones become empty, and no pattern is read. `base`: of an index with longer codes, that made from its base.
 * *index is NULL where the patterns do not fit its scaling, or in a third more panels than they take. */
sh_status sh_index_pack(sh_context *context, const sh_memory *memory, const sh_memory *other, const sh_index *older,
                        sh_index *base, int64_t most_bytes, sh_index **index);
/* Does so for all indexes of `other`, unless the memory has its own or uses none, or there is no memory for them. */
sh_status sh_memory_pack_index(sh_context *context, const sh_memory *memory, const sh_memory *other);
/* Makes an index with filter codes of SH_LONG_CODE columns, for queries that too many patterns pass the short ones of;
 * the rest is shared with `base`. *index is NULL where the basis has not so many. Cost: 128 bytes a pattern. */
sh_status sh_index_lengthen_codes(sh_context *context, const sh_memory *memory, sh_index *base, int64_t most_bytes,
                                  sh_index **index);
/* Adds a reference; sh_index_free gives one up, and the last frees the index. */
static inline void sh_index_retain(sh_index *index) { atomic_fetch_add(&index->references, 1); }
void sh_index_free(sh_context *context, sh_index *index);
/* plan.c: returns how many bytes an index may have that is made without being asked for, under this use of indexes. */
int64_t sh_index_budget(sh_index_use use);
/* Tells whether a memory has an index that lies in what sh_memory_index_import was given. */
int sh_borrows_index(const sh_memory *memory);
/* Tells whether with a second index, of all columns, all codes are at most 40 % of the patterns. */
int sh_may_add_all_columns(const sh_memory *memory, const sh_index *leading);

/* Scratch memory of some rows on their way to codes. */
typedef struct {
    void *row;         /* (d of the memory) one widened row */
    void *gathered;    /* (d) of it the features that are used */
    const void *used;  /* (d) these, of the row that was loaded last, wherever they lie */
    double *in_double; /* (d) the same in double */
    float *y;          /* (rows, d) y of each */
    double *norm2;     /* (rows) |y|^2 */
    float *a;          /* (rows, rank) y V^T */
    double *sum;       /* (rows, rank) its sums over slabs of features, */
    float *slab;       /* (rows, rank) and the products of one slab */
} sh_coding_scratch;

/* One query as the index takes it: w = (x - centre) * scaling. */
typedef struct {
    double norm;     /* |w|; 0: the index cannot serve the query */
    double constant; /* score = (<w, y> + bias) / scaling^2 + constant */
    double slack;    /* not below the rounding of canonical scores, biases and constants, in units of scores */
    float step, error_radius;
    int32_t start; /* -128 times the sum of its filter code */
    sh_box_query box;
    float refined_error; /* its error radius for refinement codes; NaN until sh_refine_query */
} sh_query_code;

/* A block of queries. */
typedef struct {
    sh_coding_scratch scratch;
    int8_t *filter;       /* (rows, 4 quads) filter codes */
    float *scaled;        /* (rows, K of refinement) columns times steps, which refinement codes are multiplied by */
    sh_query_code *query; /* (rows) */
} sh_query_codes;
void sh_take_query_codes(sh_workspace *w, const sh_index *index, const sh_memory *memory, int64_t rows,
                         sh_query_codes *codes);
/* Encodes `rows` queries; row i is query queries[i] of the job, or first + i if `queries` is NULL. */
void sh_encode_queries(const sh_index *index, const sh_job *job, const int64_t *queries, int64_t first, int64_t rows,
                       sh_query_codes *codes);
/* Prepares one query for refinement codes, if it is not yet. */
void sh_refine_query(const sh_index *index, sh_query_codes *codes, int64_t row);
/* Computes lower bounds of n patterns from their upper bounds by filter codes (bounds.c, note 6). */
void sh_filter_lower_bounds(const sh_index *index, const sh_query_codes *codes, int64_t row, const int32_t *slot,
                            int64_t n, const float *upper, float *lower);
/* Computes both bounds of n patterns by their refinement codes. */
void sh_refined_bounds(const sh_index *index, const sh_query_codes *codes, int64_t row, const int32_t *slot, int64_t n,
                       float *upper, float *lower);
/* Returns the bound threshold of a score: no pattern of at least this canonical score has a bound below it. */
float sh_bound_threshold(const sh_index *index, const sh_query_code *query, double score);
/* Returns the canonical score that a pattern of this lower bound has at least. */
double sh_score_lower_bound(const sh_index *index, const sh_query_code *query, float lower);
/* Returns the empty list of one query, with its code, for the kernels that filter (kernels/codes.h). */
sh_filter_query sh_start_list(const sh_index *index, const sh_query_codes *codes, int64_t row, float threshold,
                              int32_t *slot, float *bound);
/* Returns the boxes of a group of panels: 0 to ceil(panel_count / SH_GROUP) - 1. */
static inline const float *sh_group(const sh_index *index, int64_t group) {
    return index->boxes + group * SH_GROUP_FLOATS;
}
/* Computes the bounds of sh_bounds (sparsehopfield.h) for all queries of a job. */
sh_status sh_index_bounds(const sh_job *job, const sh_index *index, double *bounds);

/* Estimates the work of one query that reads the filter codes of all patterns. */
double sh_work_of_codes(const sh_index *index);
/* Searches for n queries of a job: those of the numbers `queries`, or the first n if it is NULL. Queries that list more
 * patterns than pays, or that the index cannot serve, are appended to `unserved`.
 * Those of larger supports than sh_exact_support are left to overflow.c.
 *
 * Returned   counts  (n) those of sh_survey, of the queries that it answered; or NULL
 *            work    (n) estimates of what each took, in multiplications of the matrix product; or NULL */
sh_status sh_index_search(sh_job *job, const sh_index *index, const int64_t *queries, int64_t n,
                          int64_t (*counts)[SH_STAGES], double *work, int64_t *unserved,
                          _Atomic int64_t *unserved_count);
#endif
