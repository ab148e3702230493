/* index.h: patterns in 8 bits, and bounds on scores that are right whatever the rounding (retrieval/index/build.c has the proofs). */
#ifndef SH_INDEX_H
#define SH_INDEX_H
#include "kernels/codes.h"
#include "retrieval/job.h"

typedef enum {
    SH_LINES,   /* one cache line a pattern: leading columns of a rotated basis; and a longer second line */
    SH_COLUMNS, /* every feature in 8 bits: for patterns without structure */
    SH_EITHER   /* to sh_index_new: whichever suits the patterns */
} sh_index_kind;

enum {
    SH_FIRST = 56,         /* columns of a rotated code that is one cache line with radius and bias, */
    SH_WIDE = 120,         /* or two */
    SH_LARGEST_GRAM = 1024 /* of matrices whose eigenvectors are computed */
};

/* sh_leading_directions: of n sampled rows s (n, d); n <= SH_LARGEST_GRAM if d is larger than it.
 *
 * Given      wanted    rows of `basis` (wanted, d)
 * Returned   rank      of them that were found; 0 if LAPACK failed
 *            left_out  share of the sample's squares outside the first SH_FIRST of them
 *            eta       |V V^T - I|_F, not below it
 * Cost       n d min(n, d) + 9 min(n, d)^3 in double */
sh_status sh_leading_directions(sh_context *context, const double *s, int64_t n, int64_t d, int64_t wanted,
                                float *basis, int64_t *rank, double *left_out, double *eta);

/* How rows of numbers become codes, and what is known of what they lose. */
typedef struct {
    int64_t columns;       /* K; 0: there is no such code */
    int rotated;           /* whether the numbers are products with the basis, or the features themselves */
    float *step, *inverse; /* (K) the unit of each column, and 1 / unit */
    double error;          /* e: numbers are off by at most e |y| in l2 */
    double eta;            /* |V V^T - I|_F of the basis, 0 for the features themselves */
    double phi;            /* (I - V^T V) y has at most the square |y|^2 - |a|^2 + phi |y|^2 */
    double weight[4];      /* of the merged radius */
} sh_coding;

typedef struct sh_index {
    _Atomic int64_t references; /* memories that keep it, and wider indexes */
    struct sh_index *base;      /* of a wider index: whose centre, basis and second lines it shares; else NULL */
    sh_index_kind kind;
    int64_t patterns;            /* as many as it covers: the first */
    int64_t d;                   /* features looked at */
    int32_t *kept;               /* (d) which; NULL: all */
    double power;                /* 2^-e with |y| <= 1 after scaling */
    double *centre;              /* (d) */
    double centre2, centre_norm; /* |mu|^2; not below |mu| */
    double first_apart;          /* not below |x0 - mu|, x0 the first pattern */
    int64_t rank;
    float *basis; /* (rank, d), or NULL */
    sh_coding first, second;
    int64_t quads;
    uint8_t *groups; /* codes of `first` (kernels/codes.h) */
    size_t line_bytes;
    char *lines; /* codes of `second`, a pattern a line: K codes, then from line_bytes - 8 radius and bias */
    size_t bytes;
} sh_index;

/* sh_index_new: an index of all patterns; `kept` ascending features, or NULL for all (then d is the patterns').
 * *index is NULL where there is none to be had: extreme norms, too many features for 8-bit sums.
 * Errors     SH_NO_MEMORY also where it, or what it takes to make it, would have more than `most` bytes: so all three
 * Cost       4 to 12 % of the scan of 10,000 queries; 64 bytes a pattern and a second line of at most 256, or d + 8 */
sh_status sh_index_new(sh_context *context, const sh_memory *memory, sh_index_kind kind, const int32_t *kept, int64_t d,
                       int64_t most, sh_index **index);
/* sh_index_grow: an older index of the memory's first patterns and the codes of the others. NULL where they do not fit
 * its scale, or are more than it has. Cost: a copy of its codes, and the coding of the new. */
sh_status sh_index_grow(sh_context *context, const sh_memory *memory, const sh_index *older, int64_t most,
                        sh_index **index);
/* sh_index_widen: an index with SH_WIDE columns in its first codes, for queries that leave long lists by SH_FIRST; the
 * rest is that of `base`, which it keeps. NULL where the basis has not so many. Cost: 128 bytes a pattern, and their
 * coding. */
sh_status sh_index_widen(sh_context *context, const sh_memory *memory, sh_index *base, int64_t most, sh_index **index);
/* sh_index_free: gives up one hold on it; sh_index_new and sh_index_grow give the first. */
void sh_index_free(sh_context *context, sh_index *index);
/* Whether a second index of the other kind stays within the budget: all codes at most 40 % of the patterns. */
int sh_index_may_add_columns(const sh_memory *memory, const sh_index *lines);

/* What the index sees of a block of queries. */
typedef struct {
    double length;   /* |w| scaled; 0 < length, or the query is not for the index */
    double constant; /* score = <w, y> + bias + constant */
    double slack;    /* rounding of canonical scores, biases and constants; in units of scores */
    float step, radius, threshold_slack;
    int32_t start;
    float second_radius; /* NaN until the second code is made */
} sh_look;
typedef struct {
    float *y;      /* (rows, d) centred and scaled */
    float *a;      /* (rows, rank) products with the basis */
    int8_t *codes; /* (rows, 4 quads) */
    float *second; /* (rows, K of second) numbers times steps */
    sh_look *look; /* (rows) */
    void *work;
} sh_looks;
size_t sh_looks_bytes(const sh_index *index, const sh_memory *memory, int64_t rows);
sh_looks sh_looks_at(const sh_index *index, const sh_memory *memory, int64_t rows, void *scratch);
/* sh_look_at: takes in `rows` queries; query i is row order[i] of the job's, or first + i if order is NULL. */
void sh_look_at(const sh_index *index, const sh_job *job, const int64_t *order, int64_t first, int64_t rows,
                sh_looks *looks);
/* makes the second code of one query, if it has none yet */
void sh_look_closer(const sh_index *index, sh_looks *looks, int64_t row);
/* Of n patterns and their bounds by first codes: those from below (retrieval/index/build.c, note 6). */
void sh_code_bounds_below(const sh_index *index, const sh_looks *looks, int64_t row, const int32_t *position, int64_t n,
                          const float *bound, float *below);
/* Both bounds by their second lines. */
void sh_line_bounds(const sh_index *index, const sh_looks *looks, int64_t row, const int32_t *position, int64_t n,
                    float *bound, float *below);
/* the scaled bound that a pattern of canonical score `score` cannot be below */
float sh_look_threshold(const sh_index *index, const sh_look *look, double score);
/* the canonical score that a pattern of this scaled bound from below has at least */
double sh_look_floor(const sh_index *index, const sh_look *look, float below);

/* sh_screen_by: n queries of a job through one index: the rows `order` of the job's, or the first n if it is NULL.
 * Those whose lists outgrow sh_most_listed, or that the index cannot serve, are appended to `left`. `counts` (N of
 * order, 4) or NULL. */
sh_status sh_screen_by(sh_job *job, const sh_index *index, const int64_t *order, int64_t n, int64_t (*counts)[4],
                       int64_t *left, _Atomic int64_t *left_count);
int64_t sh_most_listed(const sh_index *index);
#endif
