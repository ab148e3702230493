/* visible.c: the rows that a tile looks at, where a structure says which rows a query looks at.
 *
 * A tile's queries are neighbours in place. The union of their rows takes the place of the set: a stretch of rows in
 * place (windows; of dilated ones the queries of one residue class are neighbours), or scattered rows copied one behind
 * the other; what a query of the tile does not look at gets a score of -inf. So everything else about a tile stays as it
 * is, and its work follows the union. Where neighbours share hardly any rows (random subsets), row i of a tile is the
 * i-th row of every query, each in its place in the set.
 *
 * Notes  1. The same rows in the same order in every pass over a tile, whatever the thread.
 *        2. Rows appended to a set are seen by all queries, behind the others.
 *        3. Padded rows are never seen. */
#include "association/tape.h"
#include <math.h>
#include <string.h>

/* --- the plan ------------------------------------------------------------------------------------- */

static int64_t query_at(const sh_trail *t, int64_t n) { return t->order ? t->order[n] : n; }

static sh_status put_in_order(sh_context *context, sh_trail *t) {
    const sh_structure *s = &t->structure;
    const int64_t n = t->a.queries, apart = s->pairs == SH_PAIRS_WINDOW ? s->dilation : 1;
    if (apart == 1 && !s->position) return SH_OK;
    sh_caller *callers = sh_allocate(context, n, sizeof *callers);
    sh_status status = callers ? SH_OK : SH_NO_MEMORY;
    if (callers && !sh_in_order(s, apart, n, callers)) {
        t->order = sh_allocate(context, n, sizeof *t->order);
        if (!t->order) status = SH_NO_MEMORY;
        for (int64_t i = 0; t->order && i < n; i++) t->order[i] = callers[i].query;
    }
    sh_release(context, callers);
    return status;
}

/* The rows that a part of a set may see, as a stretch: few for windows and blocks near the diagonal. */
static void part_of_set(const sh_trail *t, int64_t part, int64_t *first, int64_t *end) {
    const sh_structure *s = &t->structure;
    const int64_t heads = t->fold_heads ? t->padded_heads : 1, lane = part * t->tiles_of_part * t->wide;
    const int64_t last = sh_min(lane + t->tiles_of_part * t->wide, t->lanes_of_set) - 1;
    *first = 0;
    *end = t->most_rows;
    if (t->a.appended || t->fold_samples || t->lanes_of_set == 0) return;
    const int64_t low = sh_place(s, query_at(t, lane / heads)), high = sh_place(s, query_at(t, last / heads));
    if (s->pairs == SH_PAIRS_WINDOW && s->dilation == 1 && !s->column_n) {
        *first = sh_min(sh_max(low - s->width, 0), t->most_rows);
        *end = sh_max(sh_min(high + (s->causal ? 0 : s->width) + 1, t->most_rows), *first);
    } else if (s->pairs == SH_PAIRS_BLOCKS) {
        *first = t->most_rows;
        *end = 0;
        for (int64_t r = low / s->rows; r <= high / s->rows; r++) {
            if (s->start[r] == s->start[r + 1]) continue;
            *first = sh_min(*first, s->column[s->start[r]] * s->columns);
            *end = sh_max(*end, (s->column[s->start[r + 1] - 1] + 1) * s->columns);
        }
        *first = sh_min(*first, *end);
    }
}

/* Cuts sets into parts, each with gradients of the rows that it may see: as many as fit into memory. */
static sh_status plan_parts(sh_context *context, sh_trail *t) {
    enum { MOST_PARTS = 32 };
    const int64_t row = (t->e + t->f) * (int64_t)t->lanes->size;
    const int64_t most = sh_max(SH_MOST_BYTES_OF_PARTS / row, 2 * t->most_rows);
    t->part_first = sh_allocate(context, MOST_PARTS, sizeof *t->part_first);
    t->part_at = sh_allocate(context, MOST_PARTS + 1, sizeof *t->part_at);
    if (!t->part_first || !t->part_at) return SH_NO_MEMORY;
    for (int64_t parts = sh_ceil_div(MOST_PARTS, sh_max(t->sets, 1)); parts; parts /= 2) {
        t->tiles_of_part = sh_max(sh_ceil_div(t->tiles, parts), 1);
        t->parts = sh_max(sh_ceil_div(t->tiles, t->tiles_of_part), 1);
        t->part_at[0] = 0;
        for (int64_t part = 0; part < t->parts; part++) {
            int64_t end;
            part_of_set(t, part, &t->part_first[part], &end);
            t->part_at[part + 1] = t->part_at[part] + end - t->part_first[part];
        }
        if (t->sets * t->part_at[t->parts] <= most) break;
    }
    return SH_OK;
}

sh_status sh_plan_sight(sh_context *context, sh_trail *t) {
    const sh_association *a = &t->a;
    const int64_t real = t->most_rows - a->appended, most = sh_min(sh_most_pairs(&t->structure), real);
    t->most_seen = t->owns ? most + a->appended : t->wide * (sh_min(most, INT32_MAX) + 2) + a->appended;
    t->most_seen = sh_min(t->most_seen, t->most_rows);
    const sh_status status = put_in_order(context, t);
    return status == SH_OK ? plan_parts(context, t) : status;
}

/* --- a tile --------------------------------------------------------------------------------------- */

/* What each lane looks at, of a stretch of n rows: from .. to - 1. */
#define STRETCH(R)                                                                                                     \
    static void stretch_##R(R *bias, int64_t n, int64_t wide, const int32_t *from, const int32_t *to) {                \
        for (int32_t i = 0; i < (int32_t)n; i++)                                                                       \
            for (int64_t l = 0; l < wide; l++) bias[i * wide + l] = ((i >= from[l]) & (i < to[l])) ? 0 : -(R)INFINITY; \
    }
STRETCH(float)
STRETCH(double)

typedef struct {
    int64_t place[SH_MOST_LANES]; /* -1: looks at nothing but what is appended */
    int64_t real;                 /* rows that are not appended */
    const uint8_t *padding;
} looking;

/* A row and every dilation-th behind it, if windows lie so. Counted in steps of the dilation from `first`. */
static int see_stretch(const sh_trail *t, const sh_stored *set, const sh_bench *w, const looking *l, sh_stored *seen) {
    const sh_structure *s = &t->structure;
    const int64_t step = s->dilation;
    if (s->pairs != SH_PAIRS_WINDOW || s->column_n || t->a.appended) return 0;
    int64_t class = -1, first = INT64_MAX, end = 0, least, most;
    int32_t from[SH_MOST_LANES] = {0}, to[SH_MOST_LANES] = {0};
    for (int64_t i = 0; i < t->wide; i++) {
        if (l->place[i] < 0) continue;
        if (class >= 0 && l->place[i] % step != class) return 0;
        class = l->place[i] % step;
        sh_window_steps(s, l->real, l->place[i], &least, &most);
        first = sh_min(first, l->place[i] / step + least);
        end = sh_max(end, l->place[i] / step + most + 1);
    }
    if (first >= end || end - first > 2 * (2 * s->width + 1) + t->wide || end - first > t->most_seen) return 0;
    for (int64_t j = first; l->padding && j < end; j++)
        if (l->padding[class + j * step]) return 0;
    for (int64_t i = 0; i < t->wide; i++) {
        if (l->place[i] < 0) continue;
        sh_window_steps(s, l->real, l->place[i], &least, &most);
        from[i] = (int32_t)(l->place[i] / step + least - first);
        to[i] = (int32_t)(l->place[i] / step + most + 1 - first);
    }
    seen->rows = end - first;
    seen->at = class + first * step;
    seen->step = step;
    for (int64_t i = 0; i < seen->rows; i++) w->seen[i] = (int32_t)(seen->at + i * step);
    if (t->lanes->size == sizeof(float))
        stretch_float((float *)w->bias, seen->rows, t->wide, from, to);
    else
        stretch_double((double *)w->bias, seen->rows, t->wide, from, to);
    seen->key = sh_at(set->key, t, seen->at * set->key_ld);
    seen->value = sh_at(set->value, t, seen->at * set->value_ld);
    seen->key_ld *= step;
    seen->value_ld *= step;
    return 1;
}

/* Every lane its own rows: the i-th of them in row i. */
static void see_own(const sh_trail *t, const sh_stored *set, const sh_bench *w, const looking *l, const sh_crew *crew,
                    sh_stored *seen) {
    sh_structure s = t->structure;
    int64_t at, found, pairs[SH_PIECE];
    if (s.pairs == SH_PAIRS_RANDOM) s.k = sh_min(s.k, l->real);
    seen->rows = 0;
    seen->own = 1;
    for (int64_t i = 0; i < t->wide; i++) {
        int64_t n = 0;
        for (at = 0; l->place[i] >= 0 && l->real && (found = sh_next_pairs(&s, l->real, l->place[i], &at, pairs)) > 0;)
            for (int64_t j = 0; j < found; j++)
                if (!l->padding || !l->padding[pairs[j]]) w->seen[n++ * t->wide + i] = (int32_t)pairs[j];
        for (int64_t j = l->real; crew->head[i] >= 0 && j < set->rows; j++)
            if (!l->padding || !l->padding[j]) w->seen[n++ * t->wide + i] = (int32_t)j;
        for (int64_t j = n; j < t->most_seen; j++) w->seen[j * t->wide + i] = -1;
        seen->rows = sh_max(seen->rows, n);
    }
    for (int64_t j = 0; j < seen->rows * t->wide; j++) sh_put(t, w->bias, j, w->seen[j] < 0 ? -INFINITY : 0);
}

/* Lane `i` looks at row j. */
static void look_at(const sh_trail *t, const sh_bench *w, const looking *l, int64_t *n, int64_t i, int64_t j) {
    if (l->padding && l->padding[j]) return;
    if (w->slot[j] < 0) {
        w->slot[j] = (int32_t)*n;
        w->seen[*n] = (int32_t)j;
        for (int64_t other = 0; other < t->wide; other++) sh_put(t, w->bias, *n * t->wide + other, -INFINITY);
        ++*n;
    }
    sh_put(t, w->bias, w->slot[j] * t->wide + i, 0);
}

static void see_scattered(const sh_trail *t, const sh_stored *set, const sh_bench *w, const looking *l,
                          const sh_crew *crew, sh_stored *seen) {
    sh_structure s = t->structure;
    int64_t n = 0, at, found, pairs[SH_PIECE], leader[SH_MOST_LANES];
    if (s.pairs == SH_PAIRS_RANDOM) s.k = sh_min(s.k, l->real);
    for (int64_t i = 0; i < t->wide; i++) { /* queries of one block look at the same rows as the first of them */
        leader[i] = i;
        if (l->place[i] < 0 || s.pairs == SH_PAIRS_WINDOW) continue;
        for (int64_t before = i - 1; before >= 0 && leader[i] == i; before--)
            if (l->place[before] >= 0 && l->place[before] / s.rows == l->place[i] / s.rows) leader[i] = leader[before];
    }
    for (int64_t i = 0; i < t->wide; i++) {
        if (l->place[i] < 0 || leader[i] != i || l->real == 0) continue;
        for (at = 0; (found = sh_next_pairs(&s, l->real, l->place[i], &at, pairs)) > 0;)
            for (int64_t j = 0; j < found; j++)
                if (pairs[j] < l->real) look_at(t, w, l, &n, i, pairs[j]); /* a smaller bag has not all global ones */
    }
    for (int64_t i = 0; i < t->wide; i++)
        for (int64_t j = 0; leader[i] != i && j < n; j++)
            sh_put(t, w->bias, j * t->wide + i, sh_number(t, w->bias, j * t->wide + leader[i]));
    for (int64_t j = l->real; j < set->rows; j++)
        for (int64_t i = 0; i < t->wide; i++)
            if (crew->head[i] >= 0) look_at(t, w, l, &n, i, j);
    for (int64_t i = 0; i < n; i++) w->slot[w->seen[i]] = -1;
    seen->rows = n;
    seen->at = -1;
    t->lanes->copy(set->key, set->key_ld, w->seen, n, t->e, w->keys);
    seen->key = w->keys;
    seen->key_ld = t->e;
    seen->value = w->keys;
    seen->value_ld = t->e;
    if (set->value == set->key) return;
    t->lanes->copy(set->value, set->value_ld, w->seen, n, t->f, w->values);
    seen->value = w->values;
    seen->value_ld = t->f;
}

sh_stored sh_seen_of(const sh_trail *t, const sh_crew *crew, const sh_stored *set, const sh_bench *w) {
    sh_stored seen = *set;
    if (t->looks) {
        looking l = {.real = sh_max(set->rows - t->a.appended, 0)};
        for (int64_t i = 0; i < t->wide; i++) {
            l.place[i] = crew->head[i] < 0 ? -1 : sh_place(&t->structure, crew->query[i]);
            if (t->structure.pairs == SH_PAIRS_WINDOW && l.place[i] >= l.real) l.place[i] = -1; /* a smaller bag */
            if (crew->head[i] >= 0 && t->a.padding) l.padding = t->a.padding + crew->sample[i] * t->a.stored;
        }
        seen.position = w->seen;
        if (t->owns)
            see_own(t, set, w, &l, crew, &seen);
        else if (!see_stretch(t, set, w, &l, &seen))
            see_scattered(t, set, w, &l, crew, &seen);
    }
    if (t->a.mask) sh_bias_of(t, crew, &seen, t->looks, w->bias);
    return seen;
}
