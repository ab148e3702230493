/* tiles.c: the queries of a tile, the stored rows of a set, and the products between them (tape.h). */
#include "association/tape.h"
#include "runtime/workspace.h"
#include <math.h>
#include <string.h>

size_t sh_lay_out_scratch(const sh_tape *t, int backward, void *block, sh_scratch *w) {
    sh_workspace space = {block, 0};
    const size_t size = t->lanes->size;
    const int64_t width = t->width, rows = t->most_visible + 1, d[SH_SIDES] = {t->e, t->f},
                  most = sh_padded(t, sh_max(t->e, t->f));
    *w = (sh_scratch){0};
    w->s = sh_take(&space, rows * width, size);
    w->p = sh_take(&space, rows * width, size);
    if (backward)
        w->g = sh_take(&space, rows * width, size);
    else
        w->p_before = sh_take(&space, rows * width, size);
    if (t->a.dropout > 0) w->factor = sh_take(&space, rows * width, size);
    if (t->biased) w->bias = sh_take(&space, rows * width, size);
    if (t->vectors > 1 || t->per_lane) w->gathered = sh_take(&space, (t->per_lane ? width : rows) * most, size);
    for (int i = 0; i < SH_SIDES; i++) {
        w->copies[i] = sh_take(&space, rows * d[i], size);
        w->gradient[i] = (sh_matrix){NULL, sh_padded(t, d[i]), d[i]};
        if (backward && (!t->restricted || t->parts == 1))
            w->gradient[i].data = sh_take(&space, t->most_rows * w->gradient[i].ld, size);
        if (backward && t->restricted && !t->per_lane)
            w->gradient_visible[i] = sh_take(&space, rows * w->gradient[i].ld, size);
    }
    w->u = sh_take(&space, most * width, size);
    w->next = sh_take(&space, most * width, size);
    w->z = sh_take(&space, most * width, size);
    w->x = sh_take(&space, most * width, size);
    w->turned = sh_take(&space, most * width, size);
    w->projected = sh_take(&space, t->a.d, size);
    w->th = sh_take(&space, 2 * width, size);
    w->per_query = sh_take(&space, 2 * width, size);
    w->list = sh_take(&space, rows, sizeof *w->list);
    w->list_before = sh_take(&space, rows, sizeof *w->list);
    if (t->vectors > 1) w->list_of_vector = sh_take(&space, rows, sizeof *w->list);
    if (t->a.padding) w->position = sh_take(&space, rows, sizeof *w->position);
    if (t->restricted) w->visible = sh_take(&space, rows * (t->per_lane ? width : 1), sizeof *w->visible);
    if (t->restricted && !t->per_lane) w->slot = sh_take(&space, t->most_rows, sizeof *w->slot);
    if (t->top_k) {
        w->top_rows = sh_take(&space, rows, sizeof *w->top_rows);
        w->top_lanes = sh_take(&space, rows * t->vectors, sizeof *w->top_lanes);
    }
    w->lane = sh_take(&space, sh_lane_scratch(t->map, rows), sizeof *w->lane);
    return space.used;
}

/* --- the queries of a tile ------------------------------------------------------------------------ */

int64_t sh_queries_of_tile(const sh_tape *t, int64_t set, int64_t tile, sh_tile_queries *q) {
    const sh_association *a = &t->a;
    const int64_t first = tile * t->width;
    int64_t h = t->shared_by_heads ? first % t->padded_heads : set % t->set_heads,
            n = t->shared_by_heads ? first / t->padded_heads : first;
    int64_t b = set / t->set_heads, count = 0;
    assert(set < t->sets && tile < t->tiles && t->width <= SH_MOST_WIDTH);
    if (t->shared_by_samples) {
        b = n / sh_max(a->queries, 1);
        n %= sh_max(a->queries, 1);
    }
    for (int64_t l = 0; l < t->width; l++) { /* heads vary fastest, then queries, then samples */
        const int exists = first + l < t->lanes_of_set && h < a->heads;
        assert(!exists || (b < a->samples && n < a->queries));
        q->sample[l] = exists ? b : 0;
        q->query[l] = !exists ? 0 : t->query_order ? t->query_order[n] : n;
        q->head[l] = exists ? h : -1;
        q->number[l] = exists ? (b * a->queries + q->query[l]) * a->heads + h : -1;
        count += exists;
        if (t->shared_by_heads && ++h < t->padded_heads) continue;
        if (t->shared_by_heads) h = 0;
        if (++n < a->queries || !t->shared_by_samples) continue;
        n = 0;
        b++;
    }
    return count;
}

/* Finds the rows of the queries of a vector, whose first lane is `first`; NULL for a lane without a query. */
static void find_rows(const sh_tape *t, const sh_tile_queries *q, int64_t first, sh_stack rows, void **row) {
    for (int64_t l = first; l < first + t->lanes->lanes; l++) {
        const int64_t at = q->sample[l] * rows.sample + q->query[l] * rows.row + q->head[l] * rows.head;
        row[l - first] = q->head[l] < 0 ? NULL : sh_at(rows.data, t, at);
    }
}

void sh_rows_to_lanes(const sh_tape *t, const sh_tile_queries *q, sh_stack rows, int64_t d, const char *factor,
                      char *lanes) {
    for (int64_t first = 0; first < t->width; first += t->lanes->lanes) {
        void *row[SH_MOST_LANES];
        find_rows(t, q, first, rows, row);
        t->lanes->gather((const void *const *)row, d, factor ? sh_at(factor, t, first) : NULL, sh_at(lanes, t, first),
                         t->width);
    }
}

void sh_lanes_to_rows(const sh_tape *t, const sh_tile_queries *q, const char *lanes, int64_t d, sh_stack rows) {
    for (int64_t first = 0; first < t->width; first += t->lanes->lanes) {
        void *row[SH_MOST_LANES];
        find_rows(t, q, first, rows, row);
        t->lanes->scatter(sh_at(lanes, t, first), t->width, d, NULL, row);
    }
}

void sh_apply_key_map(const sh_tape *t, const sh_tile_queries *q, const sh_scratch *w, const char *lanes,
                      const char *rows, int biased, char *out) {
    const sh_projection *map = &t->a.key_map;
    const int64_t L = t->lanes->lanes, d = t->a.d, e = t->e;
    assert(t->vectors == 1);
    if (t->wtw) {
        const int64_t vector = q->head[0] / L;
        t->lanes->apply(sh_at(t->wtw, t, vector * e * e * L), e, lanes,
                        biased ? sh_at(t->wtb, t, vector * e * L) : NULL, out);
        return;
    }
    const void *from[SH_MOST_LANES] = {0};
    for (int64_t l = 0; l < L; l++) {
        const int64_t h = q->head[l];
        if (h < 0) continue;
        const char *weight = sh_at(map->weight, t, h * d * e);
        char *x = sh_at(w->turned, t, l * e);
        t->widest->project(weight, d, e, sh_at(rows, t, q->number[l] * e), biased ? sh_at(map->bias, t, h * d) : NULL,
                           w->projected);
        t->widest->project_back(weight, d, e, w->projected, x);
        from[l] = x;
    }
    t->lanes->gather(from, e, NULL, out, t->width);
}

/* --- stored rows ---------------------------------------------------------------------------------- */

void sh_number_rows(const sh_tape *t, int64_t set, const sh_scratch *w, sh_stored_rows *s) {
    const sh_association *a = &t->a;
    const int64_t b = set / t->set_heads;
    *s = (sh_stored_rows){.stride = 1};
    const int64_t all = s->rows = sh_rows_of_sample(a, b, &s->first);
    const uint8_t *padding = a->padding && !t->restricted ? a->padding + b * a->stored : NULL;
    assert(all <= t->most_rows);
    if (!padding) return;
    s->rows = 0;
    for (int64_t j = 0; j < all; j++) {
        w->position[s->rows] = (int32_t)j;
        s->rows += !padding[j];
    }
    if (s->rows < all) s->position = w->position;
}

sh_status sh_rows_of_set(sh_context *context, const sh_tape *t, int64_t set, int check, sh_scratch *w,
                         sh_stored_rows *s) {
    const sh_association *a = &t->a;
    const int64_t b = set / t->set_heads, h = set % t->set_heads;
    sh_number_rows(t, set, w, s);
    if (t->restricted && !t->per_lane) memset(w->slot, 0xff, (size_t)s->rows * sizeof *w->slot);
    const uint8_t *padding =
        a->padding && t->restricted ? a->padding + b * a->stored : NULL; /* else they are left out */
    const int64_t reads = a->steps < 0 ? INT64_MAX : sh_min(t->tiles_of_part, t->tiles) * (a->steps + 1);
    const sh_stack *stacks[SH_SIDES] = {&a->key, &a->value};
    for (int i = 0; i < SH_SIDES; i++) {
        const sh_stack *stack = stacks[i];
        const int64_t d = i == SH_KEYS ? t->e : t->f, sample = a->offsets ? s->first * stack->row : b * stack->sample;
        sh_matrix *m = &s->side[i];
        *m = (sh_matrix){sh_at(stack->data, t, sample + h * stack->head), stack->row, d};
        if (i == SH_VALUES && stack->data == a->key.data && stack->row == a->key.row && stack->head == a->key.head &&
            t->f == t->e) {
            *m = s->side[SH_KEYS];
            continue;
        }
        /* rows far apart fall into the same sets of the cache, which matters where they are read again and again */
        if (s->position || (t->vectors == 1 && stack->row > d && !t->restricted && reads > 2)) {
            t->lanes->copy(m->data, m->ld, s->position, s->rows, d, w->copies[i]);
            *m = (sh_matrix){w->copies[i], d, d};
        }
        if (!check) continue;
        const int whole = m->ld == d && !padding;
        for (int64_t j = 0; j < (whole ? 1 : s->rows); j++) {
            const char *row = sh_at(m->data, t, j * m->ld);
            if (s->rows == 0 || (padding && padding[j]) || t->lanes->finite(row, whole ? s->rows * d : d)) continue;
            while (whole && t->lanes->finite(sh_at(row, t, j * d), d)) j++;
            return sh_fail(context, SH_NOT_FINITE, i == SH_KEYS ? "stored" : "values",
                           s->first + (s->position ? s->position[j] : j));
        }
    }
    return SH_OK;
}

void sh_mask_to_bias(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *s, int add, char *bias) {
    const sh_association *a = &t->a;
    for (int64_t l = 0; l < t->width; l++) {
        const int64_t first =
            q->head[l] < 0 ? 0
                           : q->sample[l] * a->mask_sample + q->head[l] * a->mask_head + q->query[l] * a->mask_query;
        for (int64_t i = 0; i < s->rows; i++) {
            const int64_t row = s->per_lane ? sh_row_of(t, s, NULL, i, l) : s->position ? s->position[i] : i;
            if (row < 0) continue;
            double mask = 0;
            if (q->head[l] >= 0 && a->mask_is_bool)
                mask = ((const uint8_t *)a->mask)[first + row] ? -INFINITY : 0;
            else if (q->head[l] >= 0)
                mask = sh_get(t, a->mask, first + row);
            sh_put(t, bias, i * t->width + l, (add ? sh_get(t, bias, i * t->width + l) : 0) + mask);
        }
    }
}

/* Returns a hash of 32 bits. */
static uint32_t hash(uint32_t x) {
    SH_HASH(x);
    return x;
}

void sh_dropout_factors(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *s, const int32_t *list,
                        int64_t n, char *factor) {
    const int64_t L = t->lanes->lanes;
    const double rate = t->a.dropout;
    const uint32_t threshold = (uint32_t)fmin(nearbyint(rate * 0x1p32), 0xFFFFFFFFp0);
    for (int64_t first = 0; first < t->width; first += L) {
        uint32_t key[SH_MOST_LANES];
        for (int64_t l = 0; l < L; l++) {
            const uint64_t number = (uint64_t)q->number[first + l], seed = t->a.seed;
            key[l] = hash(hash((uint32_t)number ^ (uint32_t)seed) ^ (uint32_t)(number >> 32) ^ (uint32_t)(seed >> 32));
        }
        t->lanes->drop(list, s->position, s->per_lane, n, key, threshold, 1 / (1 - rate), sh_at(factor, t, first),
                       t->width);
    }
}

/* --- products ------------------------------------------------------------------------------------- */

/* Returns the n listed rows of a matrix, one behind the other. */
static sh_matrix gather_rows(const sh_tape *t, sh_matrix m, const int32_t *list, int64_t n, char *gathered) {
    if (!list) return m;
    t->lanes->copy(m.data, m.ld, list, n, m.d, gathered);
    return (sh_matrix){gathered, m.d, m.d};
}

/* Copies lanes (d, width) to rows (width, d), padded with zeros to whole vectors. */
static void turn_lanes(const sh_tape *t, const char *lanes, int64_t d, char *rows) {
    const int64_t padded = sh_padded(t, d), L = t->lanes->lanes;
    if (padded > d) memset(rows, 0, (size_t)(padded * t->width) * t->lanes->size);
    for (int64_t first = 0; first < t->width; first += L) {
        void *to[SH_MOST_LANES];
        for (int64_t l = 0; l < L; l++) to[l] = sh_at(rows, t, (first + l) * padded);
        t->lanes->scatter(sh_at(lanes, t, first), t->width, d, NULL, to);
    }
}

void sh_dot_tile(const sh_tape *t, const sh_stored_rows *stored, int side, const int32_t *list, int64_t n,
                 const char *u, char *s, char *gathered) {
    sh_matrix m = stored->side[side];
    if (stored->per_lane) {
        turn_lanes(t, u, m.d, gathered);
        t->lanes->per_lane_scores(m.data, m.ld, stored->position, list, n, m.d, gathered, sh_padded(t, m.d), s,
                                  t->width);
    } else if (t->vectors == 1) {
        t->lanes->scores(m.data, m.ld, list, n, m.d, u, s, t->width);
    } else if (n) {
        m = gather_rows(t, m, list, n, gathered);
        t->k->gemm_nn(n, t->width, m.d, m.data, m.ld, u, t->width, 0, s, t->width);
    }
}

void sh_mix_tile(const sh_tape *t, const sh_stored_rows *stored, int side, const int32_t *list, int64_t n,
                 const char *p, char *z, char *gathered) {
    sh_matrix m = stored->side[side];
    if (stored->per_lane) {
        const int64_t padded = sh_padded(t, m.d);
        const void *from[SH_MOST_LANES];
        t->lanes->per_lane_mix(m.data, m.ld, stored->position, list, n, m.d, p, t->width, gathered, padded);
        for (int64_t l = 0; l < t->lanes->lanes; l++) from[l] = sh_at(gathered, t, l * padded);
        t->lanes->gather(from, m.d, NULL, z, t->width);
    } else if (t->vectors == 1) {
        t->lanes->mix(m.data, m.ld, list, n, m.d, p, t->width, z);
    } else if (n) {
        m = gather_rows(t, m, list, n, gathered);
        t->k->gemm_tn(m.d, t->width, n, m.data, m.ld, p, t->width, 0, z, t->width);
    } else {
        memset(z, 0, (size_t)(m.d * t->width) * t->lanes->size);
    }
}

void sh_outer_tile(const sh_tape *t, const sh_stored_rows *s, int side, const char *g, const int32_t *list, int64_t n,
                   const char *u, const sh_scratch *w) {
    const sh_matrix *m = &w->gradient[side];
    const int64_t padded = sh_padded(t, m->d);
    turn_lanes(t, u, m->d, w->turned);
    if (s->per_lane) {
        t->lanes->per_lane_spread(g, t->width, s->position, list, n, w->turned, padded, m->data, m->ld);
    } else if (t->vectors == 1) {
        t->lanes->spread(g, t->width, list, n, w->turned, padded, m->data, m->ld);
    } else if (!list) {
        t->k->gemm_nn(n, padded, t->width, g, t->width, w->turned, padded, 1, m->data, m->ld);
    } else if (n) {
        t->k->gemm_nn(n, padded, t->width, g, t->width, w->turned, padded, 0, w->gathered, padded);
        for (int64_t i = 0; i < n; i++)
            t->lanes->add_rows(sh_at(m->data, t, list[i] * m->ld), sh_at(w->gathered, t, i * padded), padded);
    }
}

void sh_score_tile(const sh_tape *t, const sh_scratch *w, const sh_stored_rows *s, const char *u, const int32_t *list,
                   int64_t n) {
    assert(n <= s->rows && s->rows <= t->most_visible);
    sh_dot_tile(t, s, SH_KEYS, list, n, u, w->s, w->gathered);
    for (int64_t first = 0; t->biased && first < t->width; first += t->lanes->lanes)
        t->lanes->add(sh_at(w->s, t, first), sh_at(w->bias, t, first), list, n, t->width, t->width);
}

void sh_score_tile_again(const sh_tape *t, const sh_scratch *w, const sh_stored_rows *s,
                         const sh_taped_update *update) {
    const int64_t L = t->lanes->lanes;
    sh_score_tile(t, w, s, update->u, update->list, update->n);
    for (int64_t i = 0; update->top_lanes && i < update->n * t->vectors; i++)
        for (int64_t l = 0; l < L; l++)
            if (!(update->top_lanes[i] >> l & 1)) sh_put(t, w->s, i * L + l, -INFINITY);
}
