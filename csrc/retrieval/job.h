/* job.h: what the files of this room share: the memory made ready, the job of one call, its tiles.
 *
 * One call, by any of the public functions, is one job:
 *   maps with a cutoff   plan.c decides; retrieval/index/query.c finds candidates by the bounds of an index; what it leaves,
 *                        scan.c finds tile by tile; rescore.c re-scores and decides; queries whose candidates
 *                        outgrow their list go to overflow.c, which keeps a few whole rows of scores;
 *   full-support maps    streaming.c carries {scale, sum, mixture} over the tiles;
 *   structures           the k best take the way of maps with a cutoff, whatever the map; pairs.c does the others.
 * The grid of blocks, ranges and tiles follows from the shapes alone, never from the number of threads.
 */
#ifndef SH_ENGINE_H
#define SH_ENGINE_H
#include "runtime/runtime.h"
#include "separation/separation.h"
#include <stdatomic.h>
#include <string.h>

enum {
    SH_TILE = 1024,        /* patterns a tile */
    SH_BLOCK = 768,        /* queries a block, at most */
    SH_ITEMS = 64,         /* work items wanted, so that few queries still occupy all threads */
    SH_PACK = 1024 * 1024, /* bytes of widened rows at a time, at least a tile by 64 columns */
    SH_CARRIED = 4,        /* patterns that a step hands on to the next */
};

/* The indexes of a memory (index.h), put up once and then only read. */
typedef struct {
    struct sh_index *_Atomic index[3]; /* lines, columns, wide lines */
    struct sh_index *_Atomic older[2]; /* of the memory that this one extends: whoever takes it out may grow it */
    int64_t older_patterns;            /* that it covers; 0: there was none */
    _Atomic int64_t asked;             /* queries so far, for the choice of when to build */
    sh_index_use use;                  /* whether calls build it */
} sh_shelf;

typedef struct sh_norms sh_norms;

struct sh_memory {
    const sh_kernels *k;
    sh_type type;
    sh_similarity similarity;
    sh_rows patterns, values;     /* values: the patterns if none were given */
    int own_values;               /* values are not the patterns */
    double *bias, *scale;         /* of every pattern in double, or NULL (canonical scores) */
    void *tile_bias, *tile_scale; /* the same in the compute type (tiles of scores) */
    void *centre;                 /* (d) of the compute type, of euclidean memories: a copy of the first pattern; */
    int centred;                  /* whether tiles, and tile_bias, are of differences from it (memory.c, note 1) */
    double max_spread;            /* max |xi - centre|; where not centred, no less than it */
    sh_norms *norms;              /* where these lie, shared with the memories it grew from */
    double max_norm;              /* max |xi| after scaling */
    double max_bias, max_scale;   /* max |bias|; max scale, at least 1 */
    double max_raw_norm;          /* max |xi| as stored: what a product may reach */
    sh_shelf *shelf;
};

/* One entry of a list that sh_associate and sh_candidates return. */
typedef struct {
    int64_t position;
    double score, weight;
} sh_entry;
typedef struct {
    int64_t n;
    sh_entry *entry;
} sh_entry_list;

/* Not a support is wanted but how large a ball around each query, a pattern, goes to it (radii.c). */
typedef struct {
    const int64_t *own;  /* (N) position of the query */
    const double *score; /* (N) its score with itself */
    const double *need;  /* (N) the lead that it needs */
    const double *lift;  /* (M) what turns leads into squared distances */
    double least, most;  /* of lift */
    double slack;        /* of a squared distance */
} sh_balls;

/* Patterns, values and queries are finite when they are taken, but they stay their owner's, who may write into them. So
 * what is computed from them is looked at where it is at hand: a score or a state that is not finite is noted, and when
 * all is done sh_run looks for what holds it. */
enum { SH_ODD_SCORE = 1, SH_ODD_STATE = 2 };

typedef struct {
    sh_context *context;
    const sh_memory *memory;
    const sh_kernels *k;
    sh_model model;
    const sh_map *map;
    sh_queries queries;
    const sh_rows *mixed;         /* what states mix: the values, or the patterns themselves */
    const double *mixed_scale;    /* scale of the mixed rows (cosine), or NULL */
    const void *mixed_tile_scale; /* the same in the compute type */
    /* results wanted; NULL where not */
    void *states;
    int64_t *support_size;
    double *energy;
    sh_entry_list *lists; /* (N) zeroed */
    sh_partial *partial;
    int64_t top;
    double min_weight;
    int64_t (*counts)[4];      /* (N) sh_survey's */
    const int32_t *carried;    /* (N, SH_CARRIED) patterns likely to score well, or -1 */
    int32_t *carry;            /* (N, SH_CARRIED) those that did */
    int64_t nearest;           /* k > 0: only the k best scores count, ties by position: */
    int ranked;                /* they themselves are wanted, with weight or without: */
    sh_candidate *nearest_out; /* (N, k) from the best down, in place of the results above */
    const sh_balls *balls;     /* not NULL: not the support is wanted, but the least quotient */
    sh_candidate *rival;       /* (N) of whom it is; its score is the quotient */
    /* set up by sh_run */
    _Atomic int *odd;               /* SH_ODD_SCORE, SH_ODD_STATE: what was seen; see run.c */
    double *slack;                  /* (N) how far a score of the tiles may be from the exact one */
    double *shift;                  /* (N) -|x|^2 / 2, or -|x - centre|^2 / 2, where scores are by distance; or NULL */
    const void *mixed_centre;       /* of what tiles mix, or NULL */
    const void *centre, *tile_bias; /* of tiles: the memory's, or NULL; of all patterns, or NULL */
    void *differences;              /* (N, d) queries less the centre, or NULL */
    int64_t *left;                  /* queries that the screen leaves to the scan, or NULL: all */
    _Atomic int64_t left_count;
    int64_t *wide; /* (N) queries left for overflow.c */
    _Atomic int64_t wide_count;
    int64_t blocks, block_rows, ranges, tiles;
} sh_job;

/* Tells whether a failure is that of a query, of which it names the number. */
static inline int sh_is_of_query(const sh_context *context) {
    return context->argument && (!strcmp(context->argument, "queries") || !strcmp(context->argument, "beta"));
}

/* sh_run: the whole job. Checks the queries (finite, no overflow) before any output is touched. */
sh_status sh_run(sh_job *job);
/* sh_check_call: refuses a context's path, a memory and queries that cannot be used, by name; looks at no number of them. */
sh_status sh_check_call(sh_context *context, const sh_memory *memory, const sh_queries *queries);
/* The steps that sh_run is made of. */
sh_status sh_screen(sh_job *job);
sh_status sh_scan(sh_job *job);
sh_status sh_wide(sh_job *job);
sh_status sh_stream(sh_job *job);
sh_status sh_look_at_pairs(sh_job *job);
/* brings the {scale, sum, mixture} of one query to the scale of more scores; a scale of NaN is that of none */
void sh_rise(const sh_job *job, int64_t query, double *scale, double *sum, void *mixture, double here);
/* blocks, ranges and tiles for n queries */
void sh_set_grid(sh_job *job, int64_t n);

/* Scores of queries q[rows] (sh_tile_query) with the patterns [first, first + n) of some rows of the memory: products,
 * then scale and bias later by affine_max. `pack` holds sh_pack_bytes(memory). */
void sh_tile_scores(const sh_job *job, const sh_rows *patterns, const void *q, int64_t rows, int64_t first, int64_t n,
                    void *scores, int64_t ld, void *pack);
/* out[rows x columns] (+)= p[rows x n] * mixed[first .. first + n, column .. column + columns), less mixed_centre: weights
 * sum to 1, so it is added to what is mixed at the end */
void sh_tile_mix(const sh_job *job, const void *p, int64_t ldp, int64_t rows, int64_t first, int64_t n, int64_t column,
                 int64_t columns, int add, void *out, int64_t ldo, void *pack);
size_t sh_pack_bytes(const sh_memory *memory);
/* Whether rows are of a narrow type, to be widened where they are used. */
static inline int sh_is_narrow(const sh_rows *rows) { return rows->type > SH_FLOAT64; }
/* Row i, in the compute type: in place, or widened into buffer. */
const void *sh_row_at(const sh_kernels *k, const sh_rows *rows, int64_t i, void *buffer);
/* Rows that are read at no order are fetched before they are wanted: row i, on its way into the cache; and how many
 * rows ahead pay. */
void sh_fetch_row(const sh_rows *rows, int64_t i);
int64_t sh_rows_ahead(const sh_rows *rows);
static inline void *sh_at(const sh_kernels *k, const void *base, int64_t i) {
    return (char *)base + i * (int64_t)k->size;
}
static inline const void *sh_query(const sh_job *job, int64_t i) {
    return sh_at(job->k, job->queries.data, i * job->memory->patterns.d);
}
/* |x|^2 / 2 of a query */
static inline double sh_half_square(const sh_job *job, int64_t i) {
    const void *x = sh_query(job, i);
    return job->k->dot(x, x, job->memory->patterns.d) / 2;
}
static inline void sh_note_score(const sh_job *job, double score) {
    if (score - score != 0 && job->odd) atomic_fetch_or(job->odd, SH_ODD_SCORE);
}
/* of some rows of the result, where scores may not have shown it */
static inline void sh_note_states(const sh_job *job, const void *states, int64_t rows) {
    if (job->mixed->unchecked) return;
    double largest = job->k->max_abs(states, rows * job->mixed->d);
    if (largest - largest != 0) atomic_fetch_or(job->odd, SH_ODD_STATE);
}
static inline double sh_beta(const sh_job *job, int64_t i) { return job->queries.beta[i * job->queries.beta_stride]; }
/* Whether scores below the map's cutoff do not matter: weights are wanted, not ranks. */
static inline int sh_has_cutoff(const sh_job *job) { return job->map->cutoff && !job->ranked && !job->balls; }
/* Tells whether scores are -|x - xi|^2/2 (rescore.c). */
static inline int sh_by_distance(const sh_job *job) {
    return job->memory->similarity == SH_EUCLIDEAN && job->map->shift_invariant;
}
/* Gives the number that makes a score of a tile one by distance; 0 where scores are others. */
static inline double sh_shift(const sh_job *job, int64_t query) { return job->shift ? job->shift[query] : 0; }
/* The energy of a query whose conjugate over beta is `pull`. */
static inline double sh_energy_of(const sh_job *job, int64_t query, double pull) {
    return sh_by_distance(job) ? -pull : sh_half_square(job, query) - pull;
}
/* Tells whether scores of tiles are too coarse for weights, which then come from canonical ones: euclidean scores
 * cancel far from the origin. SH_COARSE is the most that a weight may be off by, relatively, by the bound; it is off by much
 * less. */
#define SH_COARSE 0x1p-6
static inline int sh_is_coarse(const sh_job *job, int64_t query) {
    return sh_by_distance(job) && sh_beta(job, query) * job->slack[query] > SH_COARSE;
}
/* A query as tiles take it. */
static inline const void *sh_tile_query(const sh_job *job, int64_t i) {
    return job->differences ? sh_at(job->k, job->differences, i * job->memory->patterns.d) : sh_query(job, i);
}
static inline const void *sh_tile_bias(const sh_job *job, int64_t i) {
    return job->tile_bias ? sh_at(job->k, job->tile_bias, i) : NULL;
}
static inline const void *sh_tile_scale(const sh_memory *m, int64_t i) {
    return m->tile_scale ? sh_at(m->k, m->tile_scale, i) : NULL;
}

/* rescore.c: from candidates to results. Work space of one worker: */
typedef struct {
    double *sum;  /* (width) of the state */
    void *buffer; /* (max(d, width)) one widened row */
    double *z;    /* room for as many as there are candidates */
} sh_finish_space;
size_t sh_finish_bytes(const sh_job *job, int64_t candidates);
sh_finish_space sh_finish_space_at(const sh_job *job, void *scratch);
/* the lowest score that can carry weight (or be among the nearest, or the rival) given these (approximate) scores, less
 * twice the slack */
double sh_support_floor(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double *z, double slack);
/* keeps what is at or above `floor`, in order; of balls, what may be the rival. Returns how many */
int64_t sh_keep_above(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, double floor, double slack);
/* replaces the scores by canonical ones */
void sh_rescore(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, void *buffer);
/* the same where the caller has fetched the rows */
void sh_score_fetched(const sh_job *job, int64_t query, sh_candidate *c, int64_t n, void *buffer);
/* writes the results of one query from canonical candidates in order of position (of the k best: any order) */
sh_status sh_finish(sh_job *job, int64_t query, sh_candidate *c, int64_t n, sh_finish_space space, sh_context *context);
void sh_sort_by_position(sh_candidate *c, int64_t n);
/* A list that grows with the support, and the space to finish it; all zero before the first, given back by sh_clear.
 * sh_lengthen: room for twice as many, or `room` at first; the first n stay. 0 where there is no memory. */
typedef struct {
    int64_t room;
    sh_candidate *list;
    void *scratch;
    sh_finish_space space;
} sh_long_list;
int sh_lengthen(const sh_job *job, sh_context *context, sh_long_list *l, int64_t n, int64_t room);
void sh_clear(sh_context *context, sh_long_list *l);
/* puts (score, position) into a list of at most `room`, best first, ties by position; returns its length */
int64_t sh_insert_best(sh_candidate *list, int64_t n, int64_t room, sh_candidate c);
/* radii.c: the same for balls; what the least quotient of these is at most, and the lowest score of a pattern of this
 * lift (or of any) that could have a lower one */
double sh_ball_radius(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double slack);
double sh_ball_floor_at(const sh_job *job, int64_t query, double radius, double lift);
double sh_ball_floor(const sh_job *job, int64_t query, double radius);
void sh_ball_finish(sh_job *job, int64_t query, const sh_candidate *c, int64_t n);
/* stores the weights chosen by top and min_weight; entries are destroyed */
sh_status sh_store_entries(sh_job *job, int64_t query, sh_entry *entries, int64_t n, sh_context *context);
#endif
