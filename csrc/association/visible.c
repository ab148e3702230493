/* visible.c: the rows that a tile sees, where a structure says which rows each query sees.
 *
 * The queries of a tile are neighbours in place. The rows that any of them sees take the place of the set, and what one
 * query does not see gets the score -inf. So the rest of a pass stays as it is, and its work follows these rows. They
 * are
 *
 *     a stretch    one for each query (windows): every step-th row; queries of one residue class are neighbours
 *     scattered    the other structures: rows copied one behind the other, in the order in which the queries name them
 *     per lane     where neighbours share hardly any rows (random subsets): row i is the i-th row of each query
 *
 * Notes  1. A tile sees the same rows in the same order in every pass, whatever the thread.
 *        2. All queries see the rows appended to a set, which lie behind the others.
 *        3. No query sees a padded row. */
#include "association/tape.h"
#include <math.h>
#include <string.h>

/* --- the plan ------------------------------------------------------------------------------------- */

/* Returns the query that is n-th in order of place. */
static int64_t query_at(const sh_tape *t, int64_t n) { return t->query_order ? t->query_order[n] : n; }

/* Orders the queries by residue class and place, where they are not in that order. */
static sh_status order_queries(sh_context *context, sh_tape *t) {
    const sh_structure *s = &t->structure;
    const int64_t n = t->a.queries, step = sh_step(s);
    if (step == 1 && !s->position) return SH_OK;
    sh_placed *placed = sh_allocate(context, n, sizeof *placed);
    sh_status status = placed ? SH_OK : SH_NO_MEMORY;
    if (placed && !sh_in_order(s, step, n, placed)) {
        t->query_order = sh_allocate(context, n, sizeof *t->query_order);
        if (!t->query_order) status = SH_NO_MEMORY;
        for (int64_t i = 0; t->query_order && i < n; i++) t->query_order[i] = placed[i].query;
    }
    sh_release(context, placed);
    return status;
}

/* Finds the first row that a part of a set may see, and the end: few rows for windows and blocks near the diagonal. */
static void rows_of_part(const sh_tape *t, int64_t part, int64_t *first, int64_t *end) {
    const sh_structure *s = &t->structure;
    const int64_t heads = t->shared_by_heads ? t->padded_heads : 1, lane = part * t->tiles_of_part * t->width;
    const int64_t last = sh_min(lane + t->tiles_of_part * t->width, t->lanes_of_set) - 1;
    *first = 0;
    *end = t->most_rows;
    if (t->a.appended || t->shared_by_samples || t->lanes_of_set == 0) return;
    sh_reach(s, t->most_rows, sh_place(s, query_at(t, lane / heads)), sh_place(s, query_at(t, last / heads)), first,
             end);
}

/* Cuts sets into as many parts as fit into memory with the gradients of all rows that each may see. */
static sh_status plan_parts(sh_context *context, sh_tape *t) {
    enum { MOST_PARTS = 32 };
    const int64_t row = (t->e + t->f) * (int64_t)t->lanes->size;
    const int64_t most = sh_max(SH_MOST_BYTES_OF_PARTS / row, 2 * t->most_rows);
    t->part_first = sh_allocate(context, MOST_PARTS, sizeof *t->part_first);
    t->part_offset = sh_allocate(context, MOST_PARTS + 1, sizeof *t->part_offset);
    if (!t->part_first || !t->part_offset) return SH_NO_MEMORY;
    for (int64_t parts = sh_ceil_div(MOST_PARTS, sh_max(t->sets, 1)); parts; parts /= 2) {
        t->tiles_of_part = sh_max(sh_ceil_div(t->tiles, parts), 1);
        t->parts = sh_max(sh_ceil_div(t->tiles, t->tiles_of_part), 1);
        t->part_offset[0] = 0;
        for (int64_t part = 0; part < t->parts; part++) {
            int64_t end;
            rows_of_part(t, part, &t->part_first[part], &end);
            assert(t->part_first[part] >= 0 && t->part_first[part] <= end && end <= t->most_rows);
            t->part_offset[part + 1] = t->part_offset[part] + end - t->part_first[part];
        }
        if (t->sets * t->part_offset[t->parts] <= most) break;
    }
    return SH_OK;
}

sh_status sh_plan_visible_rows(sh_context *context, sh_tape *t) {
    const sh_association *a = &t->a;
    const int64_t most = sh_min(sh_most_pairs(&t->structure), t->most_rows - a->appended);
    t->most_visible = t->per_lane ? most + a->appended : t->width * (sh_min(most, INT32_MAX) + 2) + a->appended;
    t->most_visible = sh_min(t->most_visible, t->most_rows);
    const sh_status status = order_queries(context, t);
    return status == SH_OK ? plan_parts(context, t) : status;
}

/* --- a tile --------------------------------------------------------------------------------------- */

/* Sets the bias (n, width) of a stretch of n rows: 0 where lane l sees a row, from[l] to to[l] - 1, else -inf. */
#define STRETCH_BIAS(R)                                                                                                \
    static void stretch_bias_##R(R *bias, int64_t n, int64_t width, const int32_t *from, const int32_t *to) {          \
        for (int32_t i = 0; i < (int32_t)n; i++)                                                                       \
            for (int64_t l = 0; l < width; l++)                                                                        \
                bias[i * width + l] = ((i >= from[l]) & (i < to[l])) ? 0 : -(R)INFINITY;                               \
    }
STRETCH_BIAS(float)
STRETCH_BIAS(double)

/* The places of the queries of a tile. */
typedef struct {
    int64_t place[SH_MOST_LANES]; /* of each lane; -1: it sees no rows but those appended */
    int64_t rows;                 /* rows of the set that are not appended */
    const uint8_t *padding;       /* of the set's rows, or NULL */
} tile_places;

/* Finds the rows of a tile as a stretch, counted in steps in a residue class. Returns 0 where they are none. */
static int find_stretch(const sh_tape *t, const sh_stored_rows *set, const sh_scratch *w, const tile_places *p,
                        sh_stored_rows *visible) {
    const sh_structure *s = &t->structure;
    const sh_structure_kind *kind = sh_kind_of(s);
    const int64_t step = sh_step(s);
    if (!kind->one_stretch || s->column_n || t->a.appended) return 0;
    int64_t class = -1, first = INT64_MAX, end = 0;
    int32_t from[SH_MOST_LANES] = {0}, to[SH_MOST_LANES] = {0};
    for (int64_t i = 0, at = 0; i < t->width; i++, at = 0) {
        if (p->place[i] < 0) continue;
        if (class >= 0 && p->place[i] % step != class) return 0;
        class = p->place[i] % step;
        int64_t begin;
        const int64_t length = kind->next_stretch(s, p->rows, p->place[i], &at, &begin);
        from[i] = (int32_t)(begin / step);
        to[i] = (int32_t)(begin / step + length);
        first = sh_min(first, from[i]);
        end = sh_max(end, to[i]);
    }
    if (first >= end || end - first > 2 * sh_most_pairs(s) + t->width || end - first > t->most_visible) return 0;
    for (int64_t j = first; p->padding && j < end; j++)
        if (p->padding[class + j * step]) return 0;
    for (int64_t i = 0; i < t->width; i++) /* lanes without a place see nothing: from = to */
        from[i] -= (int32_t)first, to[i] -= (int32_t)first;
    visible->rows = end - first;
    visible->start = class + first * step;
    visible->stride = step;
    for (int64_t i = 0; i < visible->rows; i++) w->visible[i] = (int32_t)(visible->start + i * step);
    if (t->lanes->size == sizeof(float))
        stretch_bias_float((float *)w->bias, visible->rows, t->width, from, to);
    else
        stretch_bias_double((double *)w->bias, visible->rows, t->width, from, to);
    for (int i = 0; i < SH_SIDES; i++) {
        const sh_matrix *m = &set->side[i];
        visible->side[i] = (sh_matrix){sh_at(m->data, t, visible->start * m->ld), m->ld * step, m->d};
    }
    return 1;
}

/* Lists the rows of each lane: row i is its i-th, or -1. */
static void list_rows_of_lanes(const sh_tape *t, const sh_stored_rows *set, const sh_scratch *w, const tile_places *p,
                               const sh_tile_queries *q, sh_stored_rows *visible) {
    sh_structure s = t->structure;
    int64_t at, found, pairs[SH_PIECE];
    s.k = sh_min(s.k, p->rows);
    visible->rows = 0;
    visible->per_lane = 1;
    for (int64_t i = 0; i < t->width; i++) {
        int64_t n = 0;
        for (at = 0, found = p->place[i] >= 0 && p->rows ? SH_PIECE : 0; found == SH_PIECE;) {
            found = sh_next_pairs(&s, p->rows, p->place[i], &at, pairs);
            for (int64_t j = 0; j < found; j++)
                if (!p->padding || !p->padding[pairs[j]]) w->visible[n++ * t->width + i] = (int32_t)pairs[j];
        }
        for (int64_t j = p->rows; q->head[i] >= 0 && j < set->rows; j++)
            if (!p->padding || !p->padding[j]) w->visible[n++ * t->width + i] = (int32_t)j;
        for (int64_t j = n; j < t->most_visible; j++) w->visible[j * t->width + i] = -1;
        visible->rows = sh_max(visible->rows, n);
    }
    for (int64_t j = 0; j < visible->rows * t->width; j++) sh_put(t, w->bias, j, w->visible[j] < 0 ? -INFINITY : 0);
}

/* Makes row j of the set visible to lane i; *n counts the rows of the tile. */
static void mark_visible(const sh_tape *t, const sh_scratch *w, const tile_places *p, int64_t *n, int64_t i,
                         int64_t j) {
    if (p->padding && p->padding[j]) return;
    if (w->slot[j] < 0) {
        assert(*n < t->most_visible);
        w->slot[j] = (int32_t)*n;
        w->visible[*n] = (int32_t)j;
        for (int64_t other = 0; other < t->width; other++) sh_put(t, w->bias, *n * t->width + other, -INFINITY);
        ++*n;
    }
    sh_put(t, w->bias, w->slot[j] * t->width + i, 0);
}

/* Collects the rows that any lane sees, and copies them. */
static void collect_rows(const sh_tape *t, const sh_stored_rows *set, const sh_scratch *w, const tile_places *p,
                         const sh_tile_queries *q, sh_stored_rows *visible) {
    sh_structure s = t->structure;
    int64_t n = 0, at, found, pairs[SH_PIECE], same_as[SH_MOST_LANES];
    s.k = sh_min(s.k, p->rows);
    for (int64_t i = 0, last = -1; i < t->width; i++) { /* the first of neighbours that see the same rows */
        same_as[i] = i;
        if (p->place[i] < 0) continue;
        if (last >= 0 && sh_kind_of(&s)->overlap(&s, p->place[last], p->place[i]) == SH_SAME)
            same_as[i] = same_as[last];
        last = i;
    }
    for (int64_t i = 0; i < t->width; i++) {
        if (p->place[i] < 0 || same_as[i] != i || p->rows == 0) continue;
        for (at = 0, found = SH_PIECE; found == SH_PIECE;) {
            found = sh_next_pairs(&s, p->rows, p->place[i], &at, pairs);
            for (int64_t j = 0; j < found; j++) /* a smaller bag has not all global rows */
                if (pairs[j] < p->rows) mark_visible(t, w, p, &n, i, pairs[j]);
        }
    }
    for (int64_t i = 0; i < t->width; i++)
        for (int64_t j = 0; same_as[i] != i && j < n; j++)
            sh_put(t, w->bias, j * t->width + i, sh_get(t, w->bias, j * t->width + same_as[i]));
    for (int64_t j = p->rows; j < set->rows; j++)
        for (int64_t i = 0; i < t->width; i++)
            if (q->head[i] >= 0) mark_visible(t, w, p, &n, i, j);
    for (int64_t i = 0; i < n; i++) w->slot[w->visible[i]] = -1;
    visible->rows = n;
    visible->start = -1;
    for (int i = 0; i < SH_SIDES; i++) {
        const sh_matrix *m = &set->side[i], *keys = &set->side[SH_KEYS];
        const int same = i == SH_VALUES && m->data == keys->data && m->ld == keys->ld && m->d == keys->d;
        if (!same) t->lanes->copy(m->data, m->ld, w->visible, n, m->d, w->copies[i]);
        visible->side[i] = same ? visible->side[SH_KEYS] : (sh_matrix){w->copies[i], m->d, m->d};
    }
}

sh_stored_rows sh_visible_rows(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *set,
                               const sh_scratch *w) {
    sh_stored_rows visible = *set;
    if (t->restricted) {
        tile_places p = {.rows = sh_max(set->rows - t->a.appended, 0)};
        for (int64_t i = 0; i < t->width; i++) {
            p.place[i] = q->head[i] < 0 ? -1 : sh_place(&t->structure, q->query[i]);
            if (p.place[i] >= sh_kind_of(&t->structure)->places(&t->structure, p.rows))
                p.place[i] = -1; /* a smaller bag */
            if (q->head[i] >= 0 && t->a.padding) p.padding = t->a.padding + q->sample[i] * t->a.stored;
        }
        visible.position = w->visible;
        if (t->per_lane)
            list_rows_of_lanes(t, set, w, &p, q, &visible);
        else if (!find_stretch(t, set, w, &p, &visible))
            collect_rows(t, set, w, &p, q, &visible);
    }
    assert(visible.rows <= t->most_visible);
    if (t->a.mask) sh_mask_to_bias(t, q, &visible, t->restricted, w->bias);
    return visible;
}
