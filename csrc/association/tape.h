/* tape.h: what the files of this room share: how queries are put on lanes, and what a forward pass leaves behind.
 *
 * A *set* is the stored rows of one sample and head, or shared by samples or heads; its queries are all that look at
 * them. A *tile* is `width` queries of one set side by side (kernels/lanes.h): `vectors` vectors of `lanes`. All updates
 * of a tile are made before the next tile's, so that the rows stay in cache. An *item* of work is some tiles of one set.
 */
#ifndef SH_TAPE_H
#define SH_TAPE_H
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "runtime/runtime.h"
#include "separation/separation.h"
#include "sparsehopfield_layers.h"
#include "structure/structure.h"

enum { SH_MOST_LANES = 16, SH_MOST_WIDTH = 256, SH_MOST_STEPS = 10000, SH_MOST_BYTES_OF_PARTS = 128 << 20 };

/* One update of one tile. Behind it: u (d x width, beta times the state), th (2 x lanes a group), list (listed), kept
 * (listed x vectors, where only the best scores count: bit l of a row's is set where lane l keeps it). */
typedef struct {
    int64_t previous;                   /* where the record of the update before begins; -1: none */
    int64_t n;                          /* rows with weight in any lane */
    int64_t listed;                     /* the same; 0: all rows have weight, there is no list */
    int64_t has_top_lanes;              /* whether there is kept */
    uint64_t moved[SH_MOST_WIDTH / 64]; /* lanes whose state is another than in the update before */
} sh_update_header;

typedef struct {
    char *bytes;
    int64_t used, capacity, last, steps; /* bytes; where the last record begins; updates made */
} sh_tile_tape;

struct sh_tape {
    sh_association a;
    const sh_kernels *k;
    const sh_lanes *lanes, *widest; /* for queries side by side; for rows of numbers */
    const sh_map *map;
    double parameter;
    int64_t e, f; /* features of stored rows in the association: keys, values as they are mixed */
    int shared_by_samples, shared_by_heads;     /* sets are shared by samples, by heads */
    int64_t padded_heads;                       /* heads of a folded set; with a key_map up to whole vectors */
    int64_t sets, lanes_of_set;                 /* queries of a set, lanes without one included */
    int vectors;                                /* vectors of a tile; above 1 the products go through the BLAS */
    int64_t width, tiles, parts, tiles_of_part; /* of a set: its tiles, cut into parts; sets * parts items */
    int64_t most_rows;                          /* of a set */
    int64_t top_k;                              /* how many scores of a query count (structure TOP); 0: all */
    sh_structure structure;                     /* where `looks` */
    int restricted;       /* whether a tile sees some of its set's rows (visible.c): those that its queries look at, */
    int per_lane;         /* each query its own ones, as neighbours share hardly any */
    int biased;           /* whether anything is added to scores */
    int64_t most_visible; /* rows that a tile sees; where `owns`, that a query sees */
    int64_t *query_order; /* (N) queries in order of their places; NULL: they are */
    int64_t *part_first,
        *part_offset;         /* where `looks`: of each part of a set the first row that it may see; and how many
                                    * the parts before it may, (parts + 1) */
    sh_tile_tape *tile_tapes; /* (sets * tiles) */
    int64_t *updates;         /* (B, N, H) updates that each query made */
    /* with a key_map */
    void *first_states; /* (B or 1, N, H, e) first states: W^T q */
    void *wtw, *wtb;    /* (vectors of heads, e, e, lanes), (.., e, lanes): W^T W, W^T b, where e <= 2 d */
    void *mixtures;     /* (steps, B, N, H, e): mixtures that became states */
    void *mixed_values; /* with a value_map: (B, N, H, f) mixtures of rows as they are */
    void *weight_sums;  /* (B, N, H) sums of weights after dropout */
};

/* The queries of one tile. */
typedef struct {
    int64_t sample[SH_MOST_WIDTH], query[SH_MOST_WIDTH], head[SH_MOST_WIDTH]; /* head -1: a lane without a query */
    int64_t number[SH_MOST_WIDTH];                                            /* (b * N + n) * H + h */
} sh_tile_queries;

static inline int64_t sh_queries_of_tile(const sh_tape *t, int64_t set, int64_t tile, sh_tile_queries *q) {
    const sh_association *a = &t->a;
    const int64_t heads = t->shared_by_heads ? 1 : a->heads, first = tile * t->width;
    int64_t h = t->shared_by_heads ? first % t->padded_heads : set % heads,
            n = t->shared_by_heads ? first / t->padded_heads : first;
    int64_t b = set / heads, some = 0;
    if (t->shared_by_samples) {
        b = n / sh_max(a->queries, 1);
        n %= sh_max(a->queries, 1);
    }
    for (int64_t l = 0; l < t->width; l++) {
        const int there = first + l < t->lanes_of_set && h < a->heads;
        q->sample[l] = there ? b : 0;
        q->query[l] = !there ? 0 : t->query_order ? t->query_order[n] : n;
        q->head[l] = there ? h : -1;
        q->number[l] = there ? (b * a->queries + q->query[l]) * a->heads + h : -1;
        some += there;
        if (t->shared_by_heads && ++h < t->padded_heads) continue; /* heads first, then queries, then samples */
        if (t->shared_by_heads) h = 0;
        if (++n < a->queries || !t->shared_by_samples) continue;
        n = 0;
        b++;
    }
    return some;
}

/* The stored rows of a set without the padded ones; or those that a tile sees. */
typedef struct {
    const char *key, *value;               /* (rows) */
    int64_t key_ld, value_ld, rows, first; /* row lengths; how many; number of the sample's first over all samples */
    const int32_t *position;               /* which rows of the sample they are; NULL: all */
    int64_t start, stride;                 /* of what a tile sees: a row and every step-th behind it; -1: scattered */
    int per_lane;                          /* each lane sees rows of its own: position (rows x width), -1 is none */
} sh_stored_rows;

/* Memory of one worker. */
typedef struct {
    char *s, *p, *p_before, *g, *factor, *bias; /* (rows x width) */
    char *keys, *values, *gathered;             /* rows copied: of a set; of a list */
    char *dkey, *dvalue;                        /* gradients of a set's rows, rows padded to whole vectors, */
    int64_t dkey_ld, dvalue_ld;                 /* so far apart */
    char *u, *next, *z, *x, *turned;            /* (features x width) */
    char *projected;                            /* (d) of one query */
    int32_t *list, *list_before, *list_of_vector, *position;
    char *th, *per_query;
    int32_t *visible, *slot; /* visible.c: the rows that a tile sees; of each row of the set where in these, or -1 */
    char *dkey_visible, *dvalue_visible; /* gradients of scattered rows */
    int32_t *top_rows;                   /* top_k.c: rows that any lane keeps, and by which it is kept */
    uint16_t *top_lanes;
    double *lane; /* of maps without loops on lanes (separation/on_lanes.c) */
} sh_scratch;

static inline sh_lane_call sh_map_call(const sh_tape *t, const sh_scratch *w) {
    return (sh_lane_call){t->map, t->lanes, t->parameter, w->lane};
}

size_t sh_scratch_size(const sh_tape *t, int backward);
sh_scratch sh_scratch_at(const sh_tape *t, int backward, char *memory);

/* Copies rows where they are not used in place, leaves out padded ones, finds what is not finite (if `check`). */
sh_status sh_rows_of_set(sh_context *context, const sh_tape *t, int64_t set, int check, sh_scratch *w,
                         sh_stored_rows *s);
/* What is added to the scores of a tile: the mask, where there is one; (rows x width). `add`: to what is there. */
void sh_mask_to_bias(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *s, int add, char *bias);

/* visible.c: what a tile sees of its set, w->bias with it. */
sh_status sh_plan_visible_rows(sh_context *context, sh_tape *t);
sh_stored_rows sh_visible_rows(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *set,
                               const sh_scratch *w);
/* top_k.c: of w->s (rows x width) each lane keeps its best scores, the others become -inf, and rows that no lane keeps go.
 * Returned  n  the rows that are left, w->top_rows, and which lanes keep them, w->top_lanes */
sh_status sh_select_top_k(sh_context *context, const sh_tape *t, const sh_tile_queries *q, const sh_scratch *w,
                          int64_t rows, int64_t *n);
/* Of reference.dropout_factors, for the listed rows of a tile: (n x width). */
void sh_dropout_factors(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *s, const int32_t *list,
                        int64_t n, char *factor);

/* Multiplications of a forward pass, or so. */
static inline double sh_work_of(const sh_tape *t) {
    const sh_association *a = &t->a;
    const double updates = (double)(a->steps < 0 ? 8 : a->steps + 1), lanes = (double)(t->sets * t->lanes_of_set);
    const double rows = t->restricted ? (double)t->most_visible / 4
                        : a->offsets  ? (double)a->offsets[a->samples] / (double)a->samples
                                      : (double)a->stored;
    return updates * lanes * (double)(t->e + t->f) * (rows + (a->key_map.weight ? 2 * (double)a->d : 0));
}

static inline int64_t sh_padded(const sh_tape *t, int64_t d) {
    return sh_ceil_div(d, t->lanes->lanes) * t->lanes->lanes;
}
static inline char *sh_at(const void *p, const sh_tape *t, int64_t number) {
    return (char *)p + (size_t)number * t->lanes->size;
}
static inline double sh_get(const sh_tape *t, const void *p, int64_t i) {
    return t->lanes->size == 4 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}
static inline void sh_put(const sh_tape *t, void *p, int64_t i, double x) {
    if (t->lanes->size == 4)
        ((float *)p)[i] = (float)x;
    else
        ((double *)p)[i] = x;
}

/* One update of a tile, as it was kept. */
typedef struct {
    const sh_update_header *header;
    const char *u, *th;
    const int32_t *list;       /* NULL: all rows */
    const uint16_t *top_lanes; /* NULL: by all lanes */
    int64_t n;
} sh_taped_update;
sh_taped_update sh_read_update(const sh_tape *t, const sh_tile_tape *tape, int64_t at);

/* Rows of d features, one for each query in the order of their numbers, to lanes (d x width), and back: to rows whose
 * heads lie side by side, `row` numbers from one query to the next. */
void sh_rows_to_lanes(const sh_tape *t, const sh_tile_queries *q, const char *rows, int64_t d, char *lanes);
void sh_lanes_to_rows(const sh_tape *t, const sh_tile_queries *q, const char *lanes, int64_t d, int64_t row,
                      char *rows);

/* W^T (W z + b), or without b, of what lies in lanes and, the same, in rows; out on lanes. With a key_map only. */
void sh_apply_key_map(const sh_tape *t, const sh_tile_queries *q, const sh_scratch *w, const char *lanes,
                      const char *rows, int biased, char *out);

/* w->s: the scores of listed rows, with the mask. */
void sh_score_tile(const sh_tape *t, const sh_scratch *w, const sh_stored_rows *s, const char *u, const int32_t *list,
                   int64_t n);
void sh_score_tile_again(const sh_tape *t, const sh_scratch *w, const sh_stored_rows *s, const sh_taped_update *v);

/* products on a tile: scores (n x width) of listed rows, mixtures (d x width) of weights, and their gradients */
void sh_dot_tile(const sh_tape *t, const sh_stored_rows *s, int values, const int32_t *list, int64_t n, const char *u,
                 char *scores, char *some);
void sh_mix_tile(const sh_tape *t, const sh_stored_rows *s, int values, const int32_t *list, int64_t n, const char *p,
                 char *z, char *some);
void sh_outer_tile(const sh_tape *t, const sh_stored_rows *s, int values, const char *g, const int32_t *list, int64_t n,
                   const char *u, const sh_scratch *w);

/* The number among a set's rows of row i of a list, for a lane. */
static inline int64_t sh_row_of(const sh_tape *t, const sh_stored_rows *s, const int32_t *list, int64_t i,
                                int64_t lane) {
    const int64_t j = list ? list[i] : i;
    return s->per_lane ? s->position[j * t->width + lane] : j;
}
#endif
