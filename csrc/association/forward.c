/* forward.c: the forward pass of an association, the tape that it leaves, and the weights read from it (tape.h).
 *
 * Notes  1. Every query of a tile converges by itself. Its lane then keeps its state while others go on, so the weights
 *           that are computed for it again are the same.
 *        2. With a key_map, s = q (W r + b) = (W^T q) r + const, so the scores need no projected rows. The mixture
 *           z = sum p_j r_j becomes the state W^T (W z + b), since sum p = 1. Only small vectors meet W. */
#include "association/tape.h"
#include "runtime/workspace.h"
#include "separation/separation.h"
#include <math.h>
#include <string.h>

enum { BYTES_IN_CACHE = 256 << 10, LEAST_VECTORS_OF_PART = 2 };

/* Tells whether the sizes and numbers of an association are in range. */
static int shapes_are_sound(const sh_association *a) {
    const int64_t sizes[] = {a->samples, a->queries, a->stored, a->heads, a->d, a->v};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] < (i >= 3) || sizes[i] > INT32_MAX / 2) return 0;
    return (a->type == SH_FLOAT32 || a->type == SH_FLOAT64) && a->dropout >= 0 && a->dropout < 1 && a->eps >= 0 &&
           a->appended >= 0;
}

/* Plans the sets, their tiles and parts, from the shapes alone. */
static void plan_tiles(sh_tape *t) {
    const sh_association *a = &t->a;
    t->e = a->key_map.weight ? a->key_map.from : a->d;
    t->f = a->value_map.weight ? a->value_map.from : a->v;
    t->shared_by_samples = !a->key.sample && !a->value.sample && !a->offsets && !a->padding && a->samples > 1;
    t->shared_by_heads = !a->key.head && !a->value.head && (a->heads > 1 || a->key_map.weight);
    const int64_t queries = a->queries * (t->shared_by_samples ? a->samples : 1);
    t->lanes = sh_lanes_for(a->type, queries * (t->shared_by_heads ? a->heads : 1));
    if (a->key_map.weight) t->lanes = sh_lanes_for(a->type, a->heads);
    t->widest = sh_lanes_for(a->type, INT64_MAX);
    const int64_t L = t->lanes->lanes;
    t->padded_heads = a->key_map.weight && t->shared_by_heads ? sh_ceil_div(a->heads, L) * L : a->heads;
    t->lanes_of_set = queries * (t->shared_by_heads ? t->padded_heads : 1);
    t->set_heads = t->shared_by_heads ? 1 : a->heads;
    t->sets = (t->shared_by_samples ? 1 : a->samples) * t->set_heads;
    /* rows that no cache holds are read once for many queries, by the BLAS */
    const int64_t bytes = t->most_rows * sh_max(t->e, t->f) * (int64_t)t->lanes->size;
    const int most = SH_MOST_WIDTH / SH_MOST_LANES; /* or half as many, so that there are four tiles at least */
    t->vectors = a->key_map.weight || t->restricted || bytes <= BYTES_IN_CACHE || t->lanes_of_set < 4 * L ? 1
                 : t->lanes_of_set < 4 * most * L                                                         ? most / 2
                                                                                                          : most;
    t->width = t->vectors * L;
    t->tiles = sh_ceil_div(t->lanes_of_set, t->width);
    t->most_visible = t->most_rows;
    const int64_t grads = t->most_rows * (t->e + t->f) * (int64_t)t->lanes->size;
    int64_t parts = sh_min(sh_ceil_div(32, sh_max(t->sets, 1)), sh_max(SH_MOST_BYTES_OF_PARTS / sh_max(grads, 1), 1));
    /* each part clears and sums gradients of all rows, which takes about as long as one vector's share of them */
    const int64_t least = t->restricted || a->key_map.weight ? 1 : sh_ceil_div(LEAST_VECTORS_OF_PART, t->vectors);
    t->parts = sh_max(sh_min(parts, sh_ceil_div(t->tiles, least)), 1);
    t->tiles_of_part = sh_ceil_div(t->tiles, t->parts);
    t->parts = sh_max(sh_ceil_div(t->tiles, sh_max(t->tiles_of_part, 1)), 1);
}

/* Reads the structure and the rows of the largest sample. Returns the argument that is wrong, or NULL. */
static const char *read_structure(sh_tape *t) {
    const sh_association *a = &t->a;
    const sh_structure *s = a->structure;
    int64_t rows = a->stored;
    for (int64_t b = 0; a->offsets && b < a->samples; b++)
        rows = sh_max(b ? rows : 0, a->offsets[b + 1] - a->offsets[b]);
    t->most_rows = rows;
    if (a->appended > rows) return "appended";
    t->biased = a->mask != NULL;
    if (s && s->pairs == SH_PAIRS_TOP) {
        if (s->k < 1) return "k";
        t->top_k = s->k < rows ? s->k : 0;
    }
    if (!sh_by_place(s) || a->samples == 0 || a->queries == 0) return NULL;
    rows -= a->appended;
    const char *wrong = sh_structure_fault(s, a->queries, rows);
    for (int64_t b = 0; !wrong && a->offsets && sh_kind_of(s)->fixed_patterns && b < a->samples; b++)
        if (a->offsets[b + 1] - a->offsets[b] - a->appended != rows) wrong = sh_kind_of(s)->lists;
    if (wrong) return wrong;
    t->per_lane = sh_is_per_query(s);
    t->restricted = t->biased = 1;
    t->structure = *s;
    return NULL;
}

/* Computes the first states W^T q of one query, of all heads. */
static sh_status project_queries(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const sh_tape *t = user;
    const sh_association *a = &t->a;
    const int64_t e = t->e, d = a->d, b = item / a->queries, n = item % a->queries;
    for (int64_t h = 0; h < a->heads; h++)
        t->widest->project_back(sh_at(a->key_map.weight, t, h * d * e), d, e,
                                sh_at(a->query.data, t, b * a->query.sample + n * a->query.row + h * a->query.head),
                                sh_at(t->first_states, t, (item * a->heads + h) * e));
    return SH_OK;
}

/* Computes the first states W^T q and, for few features, W^T W and W^T b of all heads, one in each lane. */
static sh_status prepare_key_map(sh_context *context, sh_tape *t) {
    const sh_association *a = &t->a;
    const int64_t e = t->e, d = a->d, H = a->heads, L = t->lanes->lanes, samples = a->query.sample ? a->samples : 1;
    const size_t size = t->lanes->size;
    t->first_states = sh_allocate(context, samples * a->queries * H * e, size);
    if (!t->first_states) return SH_NO_MEMORY;
    sh_status status = sh_each(context, samples * a->queries, 0, (double)(samples * a->queries * H * e) * (double)d,
                               project_queries, t);
    if (status != SH_OK) return status;
    if (a->steps) {
        const int64_t count = a->steps * a->samples * a->queries * H * e;
        if (!(t->mixtures = sh_allocate(context, count, size))) return SH_NO_MEMORY;
        memset(t->mixtures, 0, (size_t)count * size);
    }
    if (e > 2 * d || !a->steps) return SH_OK;
    const int64_t vectors = t->padded_heads / L;
    t->wtw = sh_allocate(context, vectors * e * e * L, size);
    t->wtb = sh_allocate(context, vectors * e * L, size);
    char *of_head = sh_allocate(context, (e + 1) * e, size);
    if (t->wtw && t->wtb && of_head) {
        memset(t->wtw, 0, (size_t)(vectors * e * e * L) * size);
        memset(t->wtb, 0, (size_t)(vectors * e * L) * size);
        for (int64_t h = 0; h < H; h++) {
            const char *w = sh_at(a->key_map.weight, t, h * d * e);
            t->k->gemm_tn(e, e, d, w, e, w, e, 0, of_head, e);
            t->widest->project_back(w, d, e, sh_at(a->key_map.bias, t, h * d), sh_at(of_head, t, e * e));
            for (int64_t c = 0; c < e * e; c++)
                memcpy(sh_at(t->wtw, t, (h / L * e * e + c) * L + h % L), sh_at(of_head, t, c), size);
            for (int64_t c = 0; c < e; c++)
                memcpy(sh_at(t->wtb, t, (h / L * e + c) * L + h % L), sh_at(of_head, t, e * e + c), size);
        }
    }
    sh_release(context, of_head);
    return t->wtw && t->wtb && of_head ? SH_OK : SH_NO_MEMORY;
}

/* Fails with SH_NOT_FINITE where a number of a projection (heads, rows, columns) is not. */
static sh_status check_map(sh_context *context, const sh_tape *t, const sh_projection *map, int64_t rows,
                           int64_t columns, const char *argument) {
    if (!map->weight) return SH_OK;
    rows *= t->a.heads;
    if (t->lanes->finite(map->weight, rows * columns) && t->lanes->finite(map->bias, rows)) return SH_OK;
    int64_t i = 0;
    while (t->lanes->finite(sh_at(map->weight, t, i * columns), columns) && t->lanes->finite(sh_at(map->bias, t, i), 1))
        i++;
    return sh_fail(context, SH_NOT_FINITE, argument, i);
}

/* Checks an association and makes its tape, which is to be freed even after a failure. */
static sh_status tape_new(sh_context *context, const sh_association *association, sh_tape **tape) {
    sh_tape *t = sh_allocate(context, 1, sizeof *t);
    if (!t) return SH_NO_MEMORY;
    memset(t, 0, sizeof *t);
    *tape = t;
    t->a = *association;
    const sh_association *a = &t->a;
    sh_model model = a->model;
    t->map = sh_map_of(&model);
    if (!t->map || !shapes_are_sound(a)) return sh_fail(context, SH_BAD_ARGUMENT, "association", 0);
    t->parameter = model.parameter;
    const char *wrong = read_structure(t);
    if (wrong) return sh_fail(context, SH_BAD_ARGUMENT, wrong, 0);
    plan_tiles(t);
    if (t->restricted) {
        sh_status planned = sh_plan_visible_rows(context, t);
        if (planned != SH_OK) return planned;
    }
    if (a->padding && a->samples > 1 && a->stored > 0 && !a->key.sample)
        return sh_fail(context, SH_BAD_ARGUMENT, "padding_mask", 0);
    if (a->implicit && !t->map->has_energy) return sh_fail(context, SH_UNDEFINED, "gradient", 0);
    if (a->key_map.weight && (a->steps < 0 || !t->map->shift_invariant || !t->shared_by_heads))
        return sh_fail(context, SH_BAD_ARGUMENT, "key_projection", 0);
    sh_status status = check_map(context, t, &a->key_map, a->d, t->e, "key_projection");
    if (status == SH_OK) status = check_map(context, t, &a->value_map, a->v, t->f, "value_projection");
    if (status != SH_OK) return status;
    t->k = sh_kernels_of(a->type);
    t->tile_tapes = sh_allocate(context, t->sets * t->tiles, sizeof *t->tile_tapes);
    if (!t->tile_tapes) return SH_NO_MEMORY;
    memset(t->tile_tapes, 0, (size_t)(t->sets * t->tiles) * sizeof *t->tile_tapes);
    const int64_t all = a->samples * a->queries * a->heads;
    if (!(t->updates = sh_allocate(context, all, sizeof *t->updates))) return SH_NO_MEMORY;
    memset(t->updates, 0, (size_t)all * sizeof *t->updates);
    if (a->value_map.weight) {
        t->mixed_values = sh_allocate(context, all * t->f, t->lanes->size);
        t->weight_sums = sh_allocate(context, all, t->lanes->size);
        if (!t->mixed_values || !t->weight_sums) return SH_NO_MEMORY;
    }
    return a->key_map.weight ? prepare_key_map(context, t) : SH_OK;
}

/* Releases the updates on the tape of a tile. */
static void release_updates(sh_context *context, sh_tile_tape *tape) {
    for (void *block = tape->block, *before; block; block = before) {
        before = *(void **)block;
        sh_release(context, block);
    }
    *tape = (sh_tile_tape){.steps = tape->steps};
}

void sh_tape_free(sh_context *context, sh_tape *t) {
    if (!t) return;
    for (int64_t i = 0; t->tile_tapes && i < t->sets * t->tiles; i++) release_updates(context, &t->tile_tapes[i]);
    void *blocks[] = {t->query_order, t->part_first, t->part_offset, t->tile_tapes,   t->updates,     t->first_states,
                      t->wtw,         t->wtb,        t->mixtures,    t->mixed_values, t->weight_sums, t};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) sh_release(context, blocks[i]);
}

/* --- a tile --------------------------------------------------------------------------------------- */

/* Computes the next state from the mixture w->z: z, or W^T (W z + b) with a key_map. Inactive lanes keep u. */
static void next_state(sh_tape *t, const sh_tile_queries *q, const sh_scratch *w, int64_t step, const char *active,
                       const char *beta, const char *u, char *next) {
    const sh_association *a = &t->a;
    const int64_t e = t->e;
    const char *z = w->z;
    if (a->key_map.weight) {
        char *mixtures = sh_at(t->mixtures, t, step * a->samples * a->queries * a->heads * e);
        sh_lanes_to_rows(t, q, w->z, e, sh_rows_of_queries(t, mixtures, a->heads * e, e));
        sh_apply_key_map(t, q, w, w->z, mixtures, 1, w->x);
        z = w->x;
    }
    sh_choose_lanes(t, active, z, beta, u, next);
}

/* The weights of one update of a tile. */
typedef struct {
    char *p; /* (n, width) */
    int64_t n;
    const int32_t *list;       /* (n) rows with weight in any lane, ascending; NULL: all */
    int32_t *list_memory;      /* for a list */
    const uint16_t *top_lanes; /* as on the tape */
} tile_weights;

#ifndef NDEBUG
/* Tells whether a list of rows ascends from 0 or above to below `rows`. */
static int is_ascending(const int32_t *list, int64_t n, int64_t rows) {
    for (int64_t i = 0; i < n; i++)
        if (list[i] < (i ? list[i - 1] + 1 : 0) || list[i] >= rows) return 0;
    return 1;
}
#endif

/* Computes from the scores w->s (rows, width) the thresholds w->th, the list of rows with weight, and their weights. */
static sh_status compute_weights(sh_context *context, sh_tape *t, const sh_tile_queries *q, const sh_scratch *w,
                                 int64_t rows, tile_weights *current) {
    const int64_t L = t->lanes->lanes;
    const size_t size = t->lanes->size;
    const int selects = t->top_k && rows > t->top_k;
    int32_t *list = current->list_memory;
    int64_t *n = &current->n;
    if (selects) {
        /* not in the memory of the weights before, which this update's are compared with */
        char *space = current->p == w->s ? w->p : current->p;
        sh_status status = sh_select_top_k(context, t, q, w, rows, space, &rows);
        if (status != SH_OK) return status;
    }
    const sh_lane_call call = sh_map_call(t, w);
    *n = t->map->cutoff ? 0 : rows;
    if (t->vectors > 1 && t->map->cutoff) memset(list, 0, (size_t)rows * sizeof *list);
    for (int64_t g = 0; g < t->vectors; g++) {
        int32_t *list_of_vector = t->vectors > 1 ? w->list_of_vector : list;
        char *best = w->per_query;
        const int64_t found = sh_lane_threshold(&call, sh_at(w->s, t, g * L), t->width, rows,
                                                w->th + (size_t)(2 * g * L) * size, list_of_vector, best);
        for (int64_t l = 0; l < L; l++) {
            const double top = sh_get(t, best, l);
            if (top < INFINITY && (top > -INFINITY || t->biased || !rows)) continue;
            if (q->head[g * L + l] < 0) continue;
            return sh_fail(context, SH_OVERFLOW, "queries", q->number[g * L + l] / t->a.heads);
        }
        if (t->vectors == 1)
            *n = found;
        else if (t->map->cutoff)
            for (int64_t i = 0; i < found; i++) list[list_of_vector[i]] = 1;
    }
    if (t->vectors > 1 && t->map->cutoff) /* the union, in place: entry i is read before it is written */
        for (int64_t j = 0; j < rows; j++)
            if (list[j]) list[(*n)++] = (int32_t)j;
    assert(*n <= rows && (*n == rows || is_ascending(list, *n, rows)));
    current->list = *n < rows ? list : NULL;
    current->top_lanes = selects ? w->top_lanes : NULL;
    for (int64_t g = 0; g < t->vectors; g++)
        sh_lane_finish(&call, sh_at(w->s, t, g * L), t->width, current->list, *n, w->th + (size_t)(2 * g * L) * size,
                       sh_at(current->p, t, g * L), t->width);
    if (!selects) return SH_OK;
    for (int64_t i = 0; i < *n; i++) { /* from numbers among the selected rows to numbers of rows */
        const int64_t j = current->list ? list[i] : i;
        memmove(w->top_lanes + i * t->vectors, w->top_lanes + j * t->vectors,
                (size_t)t->vectors * sizeof *w->top_lanes);
        list[i] = w->top_rows[j];
    }
    current->list = list;
    assert(is_ascending(list, *n, t->most_visible));
    return SH_OK;
}

/* Lays an update with these weights out on a block, or only counts its bytes where that is NULL. Returns the bytes. */
static size_t lay_out_update(const sh_tape *t, const tile_weights *current, void *block, sh_taped_update *update) {
    sh_workspace w = {block, 0};
    sh_take(&w, 1, sizeof *update);
    update->u = sh_take(&w, t->e * t->width, t->lanes->size);
    update->th = sh_take(&w, 2 * t->width, t->lanes->size);
    if (current->list) update->list = sh_take(&w, current->n, sizeof *update->list);
    if (current->top_lanes) update->top_lanes = sh_take(&w, current->n * t->vectors, sizeof *update->top_lanes);
    return w.used;
}

/* Returns memory for an update of so many bytes at the end of the tape of a tile, or NULL. The implicit gradient needs
 * the last update alone, which takes the place of the one before. */
static void *extend(sh_context *context, const sh_tape *t, sh_tile_tape *tape, size_t bytes) {
    enum { LINE = 64, UPDATES_OF_BLOCK = 4 };
    const int64_t to_come = t->a.implicit ? 1 : t->a.steps < 0 ? UPDATES_OF_BLOCK : t->a.steps + 1 - tape->steps;
    if (t->a.implicit && tape->block) tape->used = LINE;
    if (bytes > tape->bytes - tape->used) {
        if (t->a.implicit) release_updates(context, tape);
        const int64_t updates = sh_min(to_come, UPDATES_OF_BLOCK);
        void **block = sh_allocate(context, updates, bytes + LINE);
        if (!block) return NULL;
        *block = tape->block;
        tape->block = block;
        tape->bytes = (size_t)updates * (bytes + LINE);
        tape->used = LINE;
    }
    tape->used += bytes;
    return (char *)tape->block + tape->used - bytes;
}

/* Appends an update to the tape of a tile. */
static sh_status append_update(sh_context *context, const sh_tape *t, const sh_scratch *w, sh_tile_tape *tape,
                               const char *u, const uint64_t *moved, const tile_weights *current) {
    sh_taped_update update = {.previous = t->a.implicit ? NULL : tape->last, .n = current->n};
    void *block = extend(context, t, tape, lay_out_update(t, current, NULL, &update));
    if (!block) return SH_NO_MEMORY;
    lay_out_update(t, current, block, &update);
    memcpy(update.moved, moved, sizeof update.moved);
    memcpy(update.u, u, (size_t)(t->e * t->width) * t->lanes->size);
    memcpy(update.th, w->th, (size_t)(2 * t->width) * t->lanes->size);
    if (update.list) memcpy(update.list, current->list, (size_t)update.n * sizeof *update.list);
    if (update.top_lanes)
        memcpy(update.top_lanes, current->top_lanes, (size_t)(update.n * t->vectors) * sizeof *update.top_lanes);
    tape->last = memcpy(block, &update, sizeof update);
    return SH_OK;
}

/* Makes queries inactive whose weights have moved by at most eps. Returns how many are active still. */
static int count_active(const sh_tape *t, const tile_weights *current, const tile_weights *previous, char *active) {
    const int64_t L = t->lanes->lanes;
    _Alignas(64) char d2[SH_MOST_LANES * sizeof(double)];
    int count = 0;
    for (int64_t g = 0; g < t->vectors; g++) {
        t->lanes->distance(sh_at(current->p, t, g * L), current->list, current->n, sh_at(previous->p, t, g * L),
                           previous->list, previous->n, t->width, d2);
        for (int64_t l = 0; l < L; l++) {
            const int moves = sh_get(t, active, g * L + l) > 0 && sh_get(t, d2, l) > t->a.eps * t->a.eps;
            sh_put(t, active, g * L + l, moves);
            count += moves;
        }
    }
    return count;
}

/* Computes values^T p of the last weights after dropout, and with a value_map the sums of these weights. */
static void mix_values(sh_tape *t, const sh_tile_queries *q, const sh_scratch *w, const sh_stored_rows *s,
                       const tile_weights *last, char *out) {
    const int64_t L = t->lanes->lanes, width = t->width;
    if (t->a.dropout > 0) {
        sh_dropout_factors(t, q, s, last->list, last->n, w->factor);
        sh_multiply_tile(t, last->p, w->factor, last->n);
    }
    sh_mix_tile(t, s, SH_VALUES, last->list, last->n, last->p, w->z, w->gathered);
    char *mixed = t->mixed_values ? t->mixed_values : out;
    sh_lanes_to_rows(t, q, w->z, t->f, sh_rows_of_queries(t, mixed, t->a.heads * t->f, t->f));
    for (int64_t at = 0; t->weight_sums && at < width; at += L) {
        t->lanes->total(sh_at(last->p, t, at), width, last->n, w->per_query);
        for (int64_t l = 0; l < L; l++)
            if (q->head[at + l] >= 0) sh_put(t, t->weight_sums, q->number[at + l], sh_get(t, w->per_query, l));
    }
}

/* Makes all updates of a tile, and mixes its values. Adds the queries that have not converged to a count. */
static sh_status tile_forward(sh_context *context, sh_tape *t, sh_scratch *w, const sh_stored_rows *stored, int64_t set,
                              int64_t tile, char *out, int with_tape, int64_t *unconverged) {
    const sh_association *a = &t->a;
    const int64_t width = t->width, e = t->e;
    sh_tile_tape *tape = &t->tile_tapes[set * t->tiles + tile];
    sh_tile_queries q;
    if (!sh_queries_of_tile(t, set, tile, &q)) return SH_OK;
    const sh_stored_rows visible = sh_visible_rows(t, &q, stored, w), *s = &visible;
    _Alignas(64) char beta[SH_MOST_WIDTH * sizeof(double)], active[SH_MOST_WIDTH * sizeof(double)];
    for (int64_t l = 0; l < width; l++) {
        sh_put(t, beta, l, q.head[l] < 0 ? 0 : a->beta[q.head[l]]);
        sh_put(t, active, l, q.head[l] >= 0);
    }
    char *u = w->u, *next = w->next;
    /* without updates weights take the place of scores: entry i of an ascending list is row i or one behind it */
    tile_weights current = {.p = a->steps ? w->p : w->s, .list_memory = w->list},
                 previous = {.p = w->p_before, .list_memory = w->list_before};
    uint64_t moved[SH_MOST_WIDTH / 64] = {0};
    sh_stack first = a->query;
    if (t->first_states) first = sh_rows_of_queries(t, t->first_states, a->heads * e, e);
    if (!a->query.sample) first.sample = 0;
    sh_rows_to_lanes(t, &q, first, e, beta, u);
    if (!t->lanes->finite(u, e * width)) {
        int64_t l = 0;
        for (int64_t c = 0; c < e * width; c++)
            if (!isfinite(sh_get(t, u, c))) l = c % width;
        return sh_fail(context, SH_NOT_FINITE, "queries", q.number[l] / a->heads);
    }
    for (tape->steps = 0;; tape->steps++) {
        sh_score_tile(t, w, s, u, NULL, s->rows);
        sh_status status = compute_weights(context, t, &q, w, s->rows, &current);
        if (status == SH_OK && with_tape) status = append_update(context, t, w, tape, u, moved, &current);
        if (status != SH_OK) return status;
        if (tape->steps == a->steps) break;
        const int moving = tape->steps ? count_active(t, &current, &previous, active) : 1;
        if (!moving) break;
        if (tape->steps == SH_MOST_STEPS) {
            *unconverged += moving;
            break;
        }
        if (tape->steps % 64 == 63 && sh_stopped(context)) return SH_INTERRUPTED;
        memset(moved, 0, sizeof moved);
        for (int64_t l = 0; l < width; l++)
            if (sh_get(t, active, l) > 0) {
                moved[l / 64] |= UINT64_C(1) << (l % 64);
                t->updates[q.number[l]]++;
            }
        sh_mix_tile(t, s, SH_KEYS, current.list, current.n, current.p, w->z, w->gathered);
        next_state(t, &q, w, tape->steps, active, beta, u, next);
        char *state = u;
        u = next;
        next = state;
        const tile_weights swap = current;
        current = previous;
        previous = swap;
    }
    mix_values(t, &q, w, s, &current, out);
    return SH_OK;
}

/* --- the call ------------------------------------------------------------------------------------- */

typedef struct {
    sh_tape *t;
    char *out;     /* (B, N, H, v) */
    int with_tape; /* whether updates are taped */
    _Atomic int64_t unconverged;
} job;

/* Makes the forward pass of one part of a set. */
static sh_status item_forward(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    sh_tape *t = j->t;
    const int64_t set = item / t->parts, part = item % t->parts;
    sh_scratch w;
    sh_lay_out_scratch(t, 0, scratch, &w);
    sh_stored_rows s;
    sh_status status = sh_rows_of_set(context, t, set, part == 0, &w, &s);
    int64_t unconverged = 0;
    for (int64_t i = part * t->tiles_of_part; status == SH_OK && i < sh_min((part + 1) * t->tiles_of_part, t->tiles);
         i++) {
        status = sh_stopped(context) ? SH_INTERRUPTED
                                     : tile_forward(context, t, &w, &s, set, i, j->out, j->with_tape, &unconverged);
    }
    j->unconverged += unconverged;
    return status;
}

/* Computes out = mixed values W^T + sum of weights b, of one head. */
static sh_status apply_value_map(void *user, int64_t h, void *scratch, sh_context *context) {
    (void)scratch;
    job *j = user;
    const sh_tape *t = j->t;
    const sh_association *a = &t->a;
    const int64_t rows = a->samples * a->queries, H = a->heads, v = a->v;
    const char *bias = sh_at(a->value_map.bias, t, h * v);
    char *out = sh_at(j->out, t, h * v);
    sh_status status =
        sh_product(context, t->k->gemm_nt, t->k->size, 0, rows, v, t->f, sh_at(t->mixed_values, t, h * t->f), H * t->f,
                   sh_at(a->value_map.weight, t, h * v * t->f), t->f, 0, out, H * v);
    if (status != SH_OK) return status;
    for (int64_t i = 0; i < rows; i++) {
        const double sum = sh_get(t, t->weight_sums, i * H + h);
        for (int64_t c = 0; c < v; c++)
            sh_put(t, out, i * H * v + c, sh_get(t, out, i * H * v + c) + sum * sh_get(t, bias, c));
    }
    return SH_OK;
}

sh_status sh_association_forward(sh_context *context, const sh_association *association, void *out, sh_tape **tape,
                                 int64_t *unconverged) {
    sh_tape *t = NULL;
    sh_status status = tape_new(context, association, &t);
    if (status == SH_OK) {
        job j = {.t = t, .out = out, .with_tape = tape != NULL};
        if (t->lanes_of_set) {
            status = sh_each(context, t->sets * t->parts, sh_scratch_size(t, 0), sh_work_of(t), item_forward, &j);
            if (status == SH_OK && t->mixed_values)
                status = sh_each(context, t->a.heads, 0, sh_work_of(t) / (double)sh_max(t->most_rows, 1),
                                 apply_value_map, &j);
        }
        *unconverged = j.unconverged;
    }
    if (status == SH_OK && tape) {
        *tape = t;
        return SH_OK;
    }
    sh_status failure = status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
    sh_tape_free(context, t);
    return failure;
}

/* --- weights and counts read from a tape ---------------------------------------------------------- */

void sh_association_steps(const sh_tape *t, int64_t *steps) {
    memcpy(steps, t->updates, (size_t)(t->a.samples * t->a.queries * t->a.heads) * sizeof *steps);
}

typedef struct {
    const sh_tape *t;
    sh_entries *entries;
    int count; /* whether to count the entries of each query, into start[row + 1], instead of writing them */
} weights_job;

/* Counts or writes the weights of the queries of one set. */
static sh_status set_weights(void *user, int64_t set, void *scratch, sh_context *context) {
    const weights_job *r = user;
    const sh_tape *t = r->t;
    const sh_association *a = &t->a;
    const int64_t L = t->lanes->lanes;
    sh_scratch w;
    sh_lay_out_scratch(t, 1, scratch, &w);
    sh_stored_rows stored;
    sh_status status = sh_rows_of_set(context, t, set, 0, &w, &stored);
    for (int64_t tile = 0; status == SH_OK && tile < t->tiles; tile++) {
        sh_tile_queries q;
        if (!sh_queries_of_tile(t, set, tile, &q)) continue;
        const sh_taped_update *last = t->tile_tapes[set * t->tiles + tile].last;
        const sh_stored_rows s = sh_visible_rows(t, &q, &stored, &w);
        sh_score_tile_again(t, &w, &s, last);
        const sh_lane_call call = sh_map_call(t, &w);
        for (int64_t at = 0; at < t->width; at += L)
            sh_lane_weights(&call, sh_at(w.s, t, at), t->width, last->n, sh_at(last->th, t, 2 * at), sh_at(w.p, t, at),
                            t->width);
        for (int64_t l = 0; l < t->width; l++) {
            if (q.head[l] < 0) continue;
            const int64_t row = (q.sample[l] * a->heads + q.head[l]) * a->queries + q.query[l];
            int64_t to = r->count ? 0 : r->entries->start[row];
            for (int64_t i = 0; i < last->n; i++) {
                const double p = sh_get(t, w.p, i * t->width + l);
                if (p == 0) continue;
                if (!r->count) {
                    const int64_t j = sh_row_of(t, &s, last->list, i, l);
                    r->entries->position[to] = s.position && !s.per_lane ? s.position[j] : j;
                    r->entries->score[to] = 0;
                    r->entries->weight[to] = p;
                }
                to++;
            }
            if (r->count) r->entries->start[row + 1] = to;
        }
    }
    return status;
}

sh_status sh_association_weights(sh_context *context, const sh_tape *t, sh_entries *entries) {
    const int64_t rows = t->a.samples * t->a.queries * t->a.heads;
    *entries = (sh_entries){.n = rows};
    weights_job r = {.t = t, .entries = entries, .count = 1};
    sh_status status = SH_NO_MEMORY;
    if ((entries->start = sh_allocate(context, rows + 1, sizeof(int64_t)))) {
        memset(entries->start, 0, (size_t)(rows + 1) * sizeof(int64_t));
        status = t->lanes_of_set ? sh_for_each(context, t->sets, sh_scratch_size(t, 1), set_weights, &r) : SH_OK;
    }
    for (int64_t i = 0; status == SH_OK && i < rows; i++) entries->start[i + 1] += entries->start[i];
    if (status == SH_OK) {
        const int64_t n = entries->start[rows];
        entries->position = sh_allocate(context, n + 1, sizeof(int64_t));
        entries->score = sh_allocate(context, n + 1, sizeof(double));
        entries->weight = sh_allocate(context, n + 1, sizeof(double));
        r.count = 0;
        status = !entries->position || !entries->score || !entries->weight ? SH_NO_MEMORY
                 : t->lanes_of_set ? sh_for_each(context, t->sets, sh_scratch_size(t, 1), set_weights, &r)
                                   : SH_OK;
    }
    if (status != SH_OK) sh_entries_free(context, entries);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
