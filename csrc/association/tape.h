/* tape.h: how the queries of an association are cut into tiles, and the tape that a forward pass leaves for its
 * gradient.
 *
 *     set    the stored rows of one sample and head, or rows that samples or heads share, with all queries of these
 *     part   some tiles of one set: an item of work, so that few large sets occupy all threads
 *     tile   `width` queries of one set side by side, in `vectors` vectors of `lanes` (kernels/lanes.h)
 *     lane   a query of a tile, or none: behind the last query, and where heads are padded to whole vectors
 *
 * A tile makes all its updates before the next tile begins, so that its rows stay in cache (forward.c):
 *
 *     u     (e, width)       the state x times beta; first the query, or W^T q with a key_map
 *     s     (rows, width)    scores, keys u + bias; under SH_PAIRS_TOP only rows that a lane selects stay
 *     th    (2, width)       thresholds of the map
 *     list  (n)              rows with weight in any lane
 *     p     (n, width)       weights of the listed rows
 *     z     (e, width)       keys^T p, the next state: back to u, `steps` times or until converged
 *     z     (f, width)       values^T p after the last update and dropout: the output
 *
 * The tape holds u, th and list of each update. The backward pass reads it from the last update to the first, computes
 * the scores of the listed rows again, and their weights from the thresholds (backward.c).
 */
#ifndef SH_TAPE_H
#define SH_TAPE_H
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "runtime/runtime.h"
#include "separation/separation.h"
#include "sparsehopfield_layers.h"
#include "structure/structure.h"
#include <assert.h>

enum { SH_MOST_LANES = 16, SH_MOST_WIDTH = 256, SH_MOST_STEPS = 10000 };
enum { SH_MOST_BYTES_OF_PARTS = 128 << 20 }; /* of gradients that parts sum separately */

/* Rows of d numbers, `ld` numbers from one to the next. */
typedef struct {
    char *data;
    int64_t ld, d;
} sh_matrix;
enum { SH_KEYS, SH_VALUES, SH_SIDES };

/* One update of one tile on the tape. Its arrays lie behind it. */
typedef struct sh_taped_update {
    struct sh_taped_update *previous;   /* NULL: the first */
    uint64_t moved[SH_MOST_WIDTH / 64]; /* bit l % 64 of entry l / 64: lane l has another state than before */
    char *u, *th;                       /* (e, width), (vectors, 2, lanes) */
    int64_t n;
    int32_t *list;       /* (n) rows with weight in any lane, ascending; NULL: all n rows */
    uint16_t *top_lanes; /* (n, vectors) bit l: the row is among the best of lane l; NULL: all rows count */
} sh_taped_update;

/* The updates of one tile. */
typedef struct {
    sh_taped_update *last;
    int64_t steps;      /* updates after the first association */
    void *block;        /* the newest block of memory, which begins with the address of the one before */
    size_t bytes, used; /* of that block */
} sh_tile_tape;

struct sh_tape {
    sh_association a;
    const sh_kernels *k;
    const sh_lanes *lanes, *widest; /* loops for queries side by side; for rows of numbers */
    const sh_map *map;
    double parameter;
    int64_t e, f;  /* features of a stored row as a key, and as a value, before any map */
    int vectors;   /* of a tile; where more than one, products are the BLAS's */
    int biased;    /* whether anything is added to scores: a mask, or -inf where a query does not see a row */
    int64_t top_k; /* best scores of a query that count; 0: all */
    /* sets and their tiles */
    int shared_by_samples, shared_by_heads; /* whether a set serves all samples, all heads */
    int64_t sets, set_heads;                /* samples with rows of their own times heads with rows of their own */
    int64_t padded_heads, lanes_of_set;     /* heads of a shared set, with a key_map up to whole vectors; its lanes */
    int64_t width, tiles, parts, tiles_of_part; /* of a set */
    int64_t most_rows;                          /* of any set */
    /* with a structure other than TOP (visible.c) */
    int restricted; /* whether queries see some rows of their set, not all */
    int per_lane;   /* whether each lane has its own rows; else a tile has those that any of its queries sees */
    sh_structure structure;
    int64_t most_visible; /* rows of a tile, or of a lane if per_lane; most_rows without structure */
    int64_t *query_order; /* (N) queries in ascending order of place; NULL: as they are */
    int64_t *part_first;  /* (parts) first row that a part of a set may see */
    int64_t *part_offset; /* (parts + 1) how many rows the parts before it may see, in all */
    /* the tape */
    sh_tile_tape *tile_tapes; /* (sets, tiles) */
    int64_t *updates;         /* (B, N, H) updates that each query made */
    /* with a key_map */
    void *first_states; /* (B or 1, N, H, e) W^T q */
    void *wtw, *wtb;    /* (vectors of heads, e, e, lanes) W^T W; (vectors of heads, e, lanes) W^T b; where e <= 2 d */
    void *mixtures;     /* (steps, B, N, H, e) the mixtures that became states */
    /* with a value_map */
    void *mixed_values; /* (B, N, H, f) mixtures of unprojected values */
    void *weight_sums;  /* (B, N, H) sums of weights after dropout */
};

/* The queries of one tile, by lane. */
typedef struct {
    int64_t sample[SH_MOST_WIDTH], query[SH_MOST_WIDTH];
    int64_t head[SH_MOST_WIDTH];   /* -1: a lane without a query */
    int64_t number[SH_MOST_WIDTH]; /* (sample * N + query) * H + head */
} sh_tile_queries;

/* Stored rows: of a set without padded ones (sh_rows_of_set), or those that a tile sees (sh_visible_rows). */
typedef struct {
    sh_matrix side[SH_SIDES]; /* keys and values, maybe the same array */
    int64_t rows;
    int64_t first;           /* number of the sample's first row among those of all samples */
    const int32_t *position; /* (rows) their numbers in the sample; NULL: 0, 1, ... */
    int64_t start, stride;   /* row i is start + i * stride of the set; start -1: rows are scattered */
    int per_lane;            /* whether row i is another for each lane: position (rows, width), -1: none */
} sh_stored_rows;

/* Scratch arrays of one worker; rows are those of most_visible. */
typedef struct {
    char *s, *p, *p_before;       /* (rows, width) scores; weights, of this update and of that before */
    char *g;                      /* (rows, width) gradients in weights, then in scores */
    char *factor, *bias;          /* (rows, width) factors of dropout; what is added to scores */
    char *u, *next, *z, *x;       /* (e or f, width) states, mixtures, their gradients */
    char *turned, *projected;     /* (width, e or f) lanes as rows; (d) one projected row */
    char *th, *per_query;         /* (vectors, 2, lanes) thresholds; (2, lanes) any numbers of queries */
    char *copies[SH_SIDES];       /* (rows, e or f) stored rows that are not read in place */
    char *gathered;               /* (rows, e or f) listed rows; (width, e or f) if per_lane */
    int32_t *list, *list_before;  /* (rows) rows with weight, of this update and of that before */
    int32_t *list_of_vector;      /* (rows) the same of one vector of a tile */
    int32_t *position;            /* (rows) numbers of rows that are not padded */
    int32_t *visible, *slot;      /* (rows) rows that the tile sees; (most_rows) where a row is among these, or -1 */
    int32_t *top_rows;            /* (rows) rows that any lane selects */
    uint16_t *top_lanes;          /* (rows, vectors) and which lanes do, as on the tape */
    sh_matrix gradient[SH_SIDES]; /* of the rows of a set, padded to whole vectors */
    char *gradient_visible[SH_SIDES]; /* of scattered rows that a tile sees */
    double *lane;                     /* scratch of maps without loops on lanes (separation/on_lanes.c) */
} sh_scratch;

/* Lays the arrays of a pass out on a block, or only counts its bytes where that is NULL. Returns the bytes. */
size_t sh_lay_out_scratch(const sh_tape *t, int backward, void *block, sh_scratch *w);
static inline size_t sh_scratch_size(const sh_tape *t, int backward) {
    sh_scratch w;
    return sh_lay_out_scratch(t, backward, NULL, &w);
}

/* Returns what the loops of the map on lanes need. */
static inline sh_lane_call sh_map_call(const sh_tape *t, const sh_scratch *w) {
    return (sh_lane_call){t->map, t->lanes, t->parameter, w->lane};
}

/* Fills in the queries of a tile. Returns how many lanes have one. */
int64_t sh_queries_of_tile(const sh_tape *t, int64_t set, int64_t tile, sh_tile_queries *q);

/* Finds which rows a set has; their numbers in w->position where padded ones are left out. */
void sh_number_rows(const sh_tape *t, int64_t set, const sh_scratch *w, sh_stored_rows *s);
/* Finds the stored rows of a set. Copies those that are not read in place, and leaves padded ones out. With `check`,
 * fails where a number is not finite. */
sh_status sh_rows_of_set(sh_context *context, const sh_tape *t, int64_t set, int check, sh_scratch *w,
                         sh_stored_rows *s);
/* Writes the mask of a tile to `bias` (rows, width), or adds it to what is there. */
void sh_mask_to_bias(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *s, int add, char *bias);

/* Plans which rows tiles and parts see (visible.c). */
sh_status sh_plan_visible_rows(sh_context *context, sh_tape *t);
/* Returns the rows that a tile sees of its set, and sets w->bias. */
sh_stored_rows sh_visible_rows(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *set,
                               const sh_scratch *w);
/* Selects the top_k best scores of each lane of w->s (rows, width); the others become -inf (top_k.c).
 * Given     space  scratch (rows, width)
 * Returned  n  the rows that any lane selects, which take the place of all in w->s; w->top_rows, w->top_lanes */
sh_status sh_select_top_k(sh_context *context, const sh_tape *t, const sh_tile_queries *q, const sh_scratch *w,
                          int64_t rows, char *space, int64_t *n);
/* Computes the factors (n, width) of dropout of the listed rows, as reference.dropout_factors does. */
void sh_dropout_factors(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *s, const int32_t *list,
                        int64_t n, char *factor);

/* Returns the address of number i of an array of the compute type; its value; and sets it. */
static inline char *sh_at(const void *p, const sh_tape *t, int64_t i) { return (char *)p + (size_t)i * t->lanes->size; }
static inline double sh_get(const sh_tape *t, const void *p, int64_t i) {
    return t->lanes->size == 4 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}
static inline void sh_put(const sh_tape *t, void *p, int64_t i, double x) {
    if (t->lanes->size == 4)
        ((float *)p)[i] = (float)x;
    else
        ((double *)p)[i] = x;
}

/* Returns rows of d numbers of all queries (B, N), `row` numbers apart, with heads side by side. */
static inline sh_stack sh_rows_of_queries(const sh_tape *t, const void *data, int64_t row, int64_t d) {
    return (sh_stack){data, t->a.queries * row, row, d};
}
/* Copies the rows of d numbers of a tile's queries to lanes (d, width), times a factor (width) or as they are (NULL). */
void sh_rows_to_lanes(const sh_tape *t, const sh_tile_queries *q, sh_stack rows, int64_t d, const char *factor,
                      char *lanes);
/* Copies lanes back to rows. */
void sh_lanes_to_rows(const sh_tape *t, const sh_tile_queries *q, const char *lanes, int64_t d, sh_stack rows);
/* Computes out (e, width) = a factor in lanes where `where` is above 0, else `otherwise`; where and factor (width). */
static inline void sh_choose_lanes(const sh_tape *t, const char *where, const char *a, const char *factor,
                                   const char *otherwise, char *out) {
    for (int64_t l = 0; l < t->width; l += t->lanes->lanes)
        t->lanes->choose(sh_at(where, t, l), sh_at(a, t, l), sh_at(factor, t, l), sh_at(otherwise, t, l), t->e,
                         sh_at(out, t, l), t->width);
}
/* Multiplies n rows of a tile by others, (n, width) both. */
static inline void sh_multiply_tile(const sh_tape *t, char *x, const char *y, int64_t n) {
    for (int64_t l = 0; l < t->width; l += t->lanes->lanes)
        t->lanes->multiply(sh_at(x, t, l), sh_at(y, t, l), n, t->width, t->width);
}

/* Computes W^T (W z + b), or without b, with a key_map. z is in `lanes` (e, width) and, the same, in `rows` (B, N, H,
 * e). */
void sh_apply_key_map(const sh_tape *t, const sh_tile_queries *q, const sh_scratch *w, const char *lanes,
                      const char *rows, int biased, char *out);

/* Products of a tile with its n listed keys or values (list NULL: all n). */
/* Computes scores (n, width) = rows u. */
void sh_dot_tile(const sh_tape *t, const sh_stored_rows *s, int side, const int32_t *list, int64_t n, const char *u,
                 char *scores, char *gathered);
/* Computes mixtures z (features, width) = rows^T p. */
void sh_mix_tile(const sh_tape *t, const sh_stored_rows *s, int side, const int32_t *list, int64_t n, const char *p,
                 char *z, char *gathered);
/* Adds g u^T, for g (n, width) and u (features, width), to the rows of w->gradient. */
void sh_outer_tile(const sh_tape *t, const sh_stored_rows *s, int side, const char *g, const int32_t *list, int64_t n,
                   const char *u, const sh_scratch *w);

/* Computes w->s (n, width): the scores of listed keys, with w->bias. */
void sh_score_tile(const sh_tape *t, const sh_scratch *w, const sh_stored_rows *s, const char *u, const int32_t *list,
                   int64_t n);
/* Computes w->s of an update on the tape again. */
void sh_score_tile_again(const sh_tape *t, const sh_scratch *w, const sh_stored_rows *s, const sh_taped_update *update);

/* Returns about how many multiplications a forward pass makes. */
static inline double sh_work_of(const sh_tape *t) {
    const sh_association *a = &t->a;
    const double updates = (double)(a->steps < 0 ? 8 : a->steps + 1), lanes = (double)(t->sets * t->lanes_of_set);
    const double rows = t->restricted ? (double)t->most_visible / 4
                        : a->offsets  ? (double)a->offsets[a->samples] / (double)a->samples
                                      : (double)a->stored;
    return updates * lanes * (double)(t->e + t->f) * (rows + (a->key_map.weight ? 2 * (double)a->d : 0));
}

/* Returns how many stored rows a sample has, and the number of its first row among those of all samples. */
static inline int64_t sh_rows_of_sample(const sh_association *a, int64_t sample, int64_t *first) {
    *first = a->offsets ? a->offsets[sample] : a->key.sample ? sample * a->stored : 0;
    return a->offsets ? a->offsets[sample + 1] - *first : a->stored;
}

/* Returns d rounded up to whole vectors. */
static inline int64_t sh_padded(const sh_tape *t, int64_t d) {
    return sh_ceil_div(d, t->lanes->lanes) * t->lanes->lanes;
}
/* Returns where entry i of a list is among the rows of s->side, for a lane. */
static inline int64_t sh_row_of(const sh_tape *t, const sh_stored_rows *s, const int32_t *list, int64_t i,
                                int64_t lane) {
    const int64_t j = list ? list[i] : i;
    assert(j >= 0 && j < s->rows);
    return s->per_lane ? s->position[j * t->width + lane] : j;
}
#endif
