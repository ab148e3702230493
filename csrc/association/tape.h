/* tape.h: what the files of this room share: how queries are put on lanes, and what a forward pass leaves behind.
 *
 * A *set* is the stored rows of one sample and head, or shared by samples or heads; its queries are all that look at
 * them. A *tile* is `wide` queries of one set side by side (kernels/lanes.h): `groups` vectors of `lanes`. All updates
 * of a tile are made before the next tile's, so that the rows stay in cache. An *item* of work is some tiles of one set.
 */
#ifndef SH_TRAIL_H
#define SH_TRAIL_H
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "runtime/runtime.h"
#include "sparsehopfield_layers.h"
#include "structure/structure.h"

enum { SH_MOST_LANES = 16, SH_MOST_WIDE = 256, SH_MOST_STEPS = 10000, SH_MOST_BYTES_OF_PARTS = 128 << 20 };

/* One update of one tile. Behind it: u (d x wide, beta times the state), th (2 x lanes a group), list (listed), kept
 * (listed x groups, where only the best scores count: bit l of a row's is set where lane l keeps it). */
typedef struct {
    int64_t before;                    /* where the record of the update before begins; -1: none */
    int64_t n;                         /* rows with weight in any lane */
    int64_t listed;                    /* the same; 0: all rows have weight, there is no list */
    int64_t chosen;                    /* whether there is kept */
    uint64_t moved[SH_MOST_WIDE / 64]; /* lanes whose state is another than in the update before */
} sh_record;

typedef struct {
    char *records;
    int64_t used, room, last, steps; /* bytes; where the last record begins; updates made */
} sh_path_of_tile;

struct sh_trail {
    sh_association a;
    const sh_kernels *k;
    const sh_lanes *lanes, *widest; /* for queries side by side; for rows of numbers */
    const sh_lane_map *map;
    double parameter;
    int64_t e, f;                 /* features of stored rows in the association: keys, values as they are mixed */
    int fold_samples, fold_heads; /* sets are shared by samples, by heads */
    int64_t padded_heads;         /* heads of a folded set; with a key_map up to whole vectors */
    int64_t sets, lanes_of_set;   /* queries of a set, lanes without one included */
    int groups;                   /* vectors of a tile; above 1 the products go through the BLAS */
    int64_t wide, tiles, parts, tiles_of_part; /* of a set: its tiles, cut into parts; sets * parts items */
    int64_t most_rows;                         /* of a set */
    int64_t best;                              /* how many scores of a query count (structure TOP); 0: all */
    sh_structure structure;                    /* where `looks` */
    int looks;         /* whether a tile sees some of its set's rows (visible.c): those that its queries look at, */
    int owns;          /* each query its own ones, as neighbours share hardly any */
    int biased;        /* whether anything is added to scores */
    int64_t most_seen; /* rows that a tile sees; where `owns`, that a query sees */
    int64_t *order;    /* (N) queries in order of their places; NULL: they are */
    int64_t *part_first, *part_at; /* where `looks`: of each part of a set the first row that it may see; and how many
                                    * the parts before it may, (parts + 1) */
    sh_path_of_tile *paths;        /* (sets * tiles) */
    int64_t *made;                 /* (B, N, H) updates that each query made */
    /* with a key_map */
    void *start;          /* (B or 1, N, H, e) first states: W^T q */
    void *square, *shift; /* (vectors of heads, e, e, lanes), (.., e, lanes): W^T W, W^T b, where e <= 2 d */
    void *states;         /* (steps, B, N, H, e): mixtures that became states */
    void *mixed;          /* with a value_map: (B, N, H, f) mixtures of rows as they are */
    void *mass;           /* (B, N, H) sums of weights after dropout */
};

/* The queries of one tile. */
typedef struct {
    int64_t sample[SH_MOST_WIDE], query[SH_MOST_WIDE], head[SH_MOST_WIDE]; /* head -1: a lane without a query */
    int64_t number[SH_MOST_WIDE];                                          /* (b * N + n) * H + h */
} sh_crew;

static inline int64_t sh_crew_at(const sh_trail *t, int64_t set, int64_t tile, sh_crew *crew) {
    const sh_association *a = &t->a;
    const int64_t heads = t->fold_heads ? 1 : a->heads, first = tile * t->wide;
    int64_t h = t->fold_heads ? first % t->padded_heads : set % heads,
            n = t->fold_heads ? first / t->padded_heads : first;
    int64_t b = set / heads, some = 0;
    if (t->fold_samples) {
        b = n / sh_max(a->queries, 1);
        n %= sh_max(a->queries, 1);
    }
    for (int64_t l = 0; l < t->wide; l++) {
        const int there = first + l < t->lanes_of_set && h < a->heads;
        crew->sample[l] = there ? b : 0;
        crew->query[l] = !there ? 0 : t->order ? t->order[n] : n;
        crew->head[l] = there ? h : -1;
        crew->number[l] = there ? (b * a->queries + crew->query[l]) * a->heads + h : -1;
        some += there;
        if (t->fold_heads && ++h < t->padded_heads) continue; /* heads first, then queries, then samples */
        if (t->fold_heads) h = 0;
        if (++n < a->queries || !t->fold_samples) continue;
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
    int64_t at, step;                      /* of what a tile sees: a row and every step-th behind it; -1: scattered */
    int own;                               /* each lane sees rows of its own: position (rows x wide), -1 is none */
} sh_stored;

/* Memory of one worker. */
typedef struct {
    char *s, *p, *before, *g, *factor, *bias; /* (rows x wide) */
    char *keys, *values, *some;               /* rows copied: of a set; of a list */
    char *dkey, *dvalue;                      /* gradients of a set's rows, rows padded to whole vectors, */
    int64_t dkey_ld, dvalue_ld;               /* so far apart */
    char *u, *next, *z, *x, *rows;            /* (features x wide) */
    char *y;                                  /* (d) of one query */
    int32_t *list, *before_list, *group_list, *position;
    char *th, *best;
    int32_t *seen, *slot; /* visible.c: the rows that a tile sees; of each row of the set where in these, or -1 */
    char *dkey_seen, *dvalue_seen; /* gradients of scattered rows */
    int32_t *chosen;               /* top_k.c: rows that any lane keeps, and by which it is kept */
    uint16_t *kept;
} sh_bench;

size_t sh_bench_size(const sh_trail *t, int backward);
sh_bench sh_bench_at(const sh_trail *t, int backward, char *memory);

/* Copies rows where they are not used in place, leaves out padded ones, finds what is not finite (if `check`). */
sh_status sh_stored_of(sh_context *context, const sh_trail *t, int64_t set, int check, sh_bench *bench, sh_stored *s);
/* What is added to the scores of a tile: the mask, where there is one; (rows x wide). `begun`: to what is there. */
void sh_bias_of(const sh_trail *t, const sh_crew *crew, const sh_stored *s, int begun, char *bias);

/* visible.c: what a tile sees of its set, w->bias with it. */
sh_status sh_plan_sight(sh_context *context, sh_trail *t);
sh_stored sh_seen_of(const sh_trail *t, const sh_crew *crew, const sh_stored *set, const sh_bench *w);
/* top_k.c: of w->s (rows x wide) each lane keeps its best scores, the others become -inf, and rows that no lane keeps go.
 * Returned  n  the rows that are left, w->chosen, and which lanes keep them, w->kept */
sh_status sh_keep_best(sh_context *context, const sh_trail *t, const sh_crew *crew, const sh_bench *w, int64_t rows,
                       int64_t *n);
/* Of reference.dropout_factors, for the listed rows of a tile: (n x wide). */
void sh_drop_factors(const sh_trail *t, const sh_crew *crew, const sh_stored *s, const int32_t *list, int64_t n,
                     char *factor);

/* Multiplications of a forward pass, or so. */
static inline double sh_work_of(const sh_trail *t) {
    const sh_association *a = &t->a;
    const double updates = (double)(a->steps < 0 ? 8 : a->steps + 1), lanes = (double)(t->sets * t->lanes_of_set);
    const double rows = t->looks     ? (double)t->most_seen / 4
                        : a->offsets ? (double)a->offsets[a->samples] / (double)a->samples
                                     : (double)a->stored;
    return updates * lanes * (double)(t->e + t->f) * (rows + (a->key_map.weight ? 2 * (double)a->d : 0));
}

static inline int64_t sh_padded(const sh_trail *t, int64_t d) {
    return sh_ceil_div(d, t->lanes->lanes) * t->lanes->lanes;
}
static inline char *sh_at(const void *p, const sh_trail *t, int64_t number) {
    return (char *)p + (size_t)number * t->lanes->size;
}
static inline double sh_number(const sh_trail *t, const void *p, int64_t i) {
    return t->lanes->size == 4 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}
static inline void sh_put(const sh_trail *t, void *p, int64_t i, double x) {
    if (t->lanes->size == 4)
        ((float *)p)[i] = (float)x;
    else
        ((double *)p)[i] = x;
}

/* One update of a tile, as it was kept. */
typedef struct {
    const sh_record *record;
    const char *u, *th;
    const int32_t *list;  /* NULL: all rows */
    const uint16_t *kept; /* NULL: by all lanes */
    int64_t n;
} sh_visit;
sh_visit sh_visit_at(const sh_trail *t, const sh_path_of_tile *path, int64_t at);

/* Rows of d features, one for each query in the order of their numbers, to lanes (d x wide), and back: to rows whose
 * heads lie side by side, `row` numbers from one query to the next. */
void sh_rows_to_lanes(const sh_trail *t, const sh_crew *crew, const char *rows, int64_t d, char *lanes);
void sh_lanes_to_rows(const sh_trail *t, const sh_crew *crew, const char *lanes, int64_t d, int64_t row, char *rows);

/* W^T (W z + b), or without b, of what lies in lanes and, the same, in rows; out on lanes. With a key_map only. */
void sh_through_key_map(const sh_trail *t, const sh_crew *crew, const sh_bench *w, const char *lanes, const char *rows,
                        int biased, char *out);

/* w->s: the scores of listed rows, with the mask. */
void sh_tile_scores_of(const sh_trail *t, const sh_bench *w, const sh_stored *s, const char *u, const int32_t *list,
                       int64_t n);
void sh_scores_again(const sh_trail *t, const sh_bench *w, const sh_stored *s, const sh_visit *v);

/* products on a tile: scores (n x wide) of listed rows, mixtures (d x wide) of weights, and their gradients */
void sh_lane_scores(const sh_trail *t, const sh_stored *s, int values, const int32_t *list, int64_t n, const char *u,
                    char *scores, char *some);
void sh_lane_mix(const sh_trail *t, const sh_stored *s, int values, const int32_t *list, int64_t n, const char *p,
                 char *z, char *some);
void sh_lane_spread(const sh_trail *t, const sh_stored *s, int values, const char *g, const int32_t *list, int64_t n,
                    const char *u, const sh_bench *w);

/* The number among a set's rows of row i of a list, for a lane. */
static inline int64_t sh_row_of(const sh_trail *t, const sh_stored *s, const int32_t *list, int64_t i, int64_t lane) {
    const int64_t j = list ? list[i] : i;
    return s->own ? s->position[j * t->wide + lane] : j;
}
#endif
