/* tiles.c: queries on lanes, stored rows within reach, and the products between them. */
#include "association/tape.h"
#include <math.h>
#include <string.h>

/* --- memory of a worker --------------------------------------------------------------------------- */

static size_t lay(char **at, char **p, size_t bytes) {
    if (p) *p = *at;
    *at += sh_align(bytes);
    return sh_align(bytes);
}

static sh_scratch lay_out(const sh_tape *t, int backward, char *memory, size_t *size) {
    sh_scratch b = {0};
    char *at = memory;
    const size_t number = t->lanes->size, width = (size_t)t->width, rows = (size_t)t->most_visible;
    const size_t all = (size_t)t->most_rows;
    const size_t keys = (size_t)sh_padded(t, t->e), values = (size_t)sh_padded(t, t->f),
                 most = keys > values ? keys : values;
    const size_t panel = (rows + 1) * width * number;
    lay(&at, &b.s, panel);
    lay(&at, &b.p, panel);
    lay(&at, backward ? &b.g : &b.p_before, panel);
    if (t->a.dropout > 0) lay(&at, &b.factor, panel);
    if (t->biased) lay(&at, &b.bias, panel);
    lay(&at, &b.keys, rows * (size_t)t->e * number);
    lay(&at, &b.values, rows * (size_t)t->f * number);
    if (t->vectors > 1 || t->per_lane) lay(&at, &b.gathered, (t->per_lane ? width : rows) * most * number);
    if (backward) {
        if (!t->restricted || t->parts == 1) {
            lay(&at, &b.dkey, all * keys * number);
            lay(&at, &b.dvalue, all * values * number);
        }
        if (t->restricted && !t->per_lane) {
            lay(&at, &b.dkey_visible, rows * keys * number);
            lay(&at, &b.dvalue_visible, rows * values * number);
        }
        b.dkey_ld = (int64_t)keys;
        b.dvalue_ld = (int64_t)values;
    }
    lay(&at, &b.u, most * width * number);
    lay(&at, &b.next, most * width * number);
    lay(&at, &b.z, most * width * number);
    lay(&at, &b.x, most * width * number);
    lay(&at, &b.projected, ((size_t)t->a.d + most) * number);
    lay(&at, &b.turned, most * width * number);
    lay(&at, (char **)&b.list, (rows + 1) * sizeof(int32_t));
    lay(&at, (char **)&b.list_before, (rows + 1) * sizeof(int32_t));
    if (t->vectors > 1) lay(&at, (char **)&b.list_of_vector, (rows + 1) * sizeof(int32_t));
    if (t->a.padding) lay(&at, (char **)&b.position, (rows + 1) * sizeof(int32_t));
    lay(&at, &b.th, 2 * width * number);
    lay(&at, &b.per_query, 2 * width * number);
    if (t->restricted) {
        lay(&at, (char **)&b.visible, (rows + 1) * (t->per_lane ? width : 1) * sizeof(int32_t));
        if (!t->per_lane) lay(&at, (char **)&b.slot, (all + 1) * sizeof(int32_t));
    }
    if (t->top_k) {
        lay(&at, (char **)&b.top_rows, (rows + 1) * sizeof(int32_t));
        lay(&at, (char **)&b.top_lanes, (rows + 1) * (size_t)t->vectors * sizeof(uint16_t));
    }
    lay(&at, (char **)&b.lane, (size_t)sh_lane_scratch(t->map, (int64_t)rows + 1) * sizeof(double));
    *size = (size_t)(at - memory);
    return b;
}

size_t sh_scratch_size(const sh_tape *t, int backward) {
    size_t size;
    lay_out(t, backward, NULL, &size);
    return size;
}

sh_scratch sh_scratch_at(const sh_tape *t, int backward, char *memory) {
    size_t size;
    return lay_out(t, backward, memory, &size);
}

/* --- stored rows ---------------------------------------------------------------------------------- */

sh_status sh_rows_of_set(sh_context *context, const sh_tape *t, int64_t set, int check, sh_scratch *w,
                         sh_stored_rows *s) {
    const sh_association *a = &t->a;
    const int64_t heads = t->shared_by_heads ? 1 : a->heads, b = set / heads, h = set % heads;
    const int64_t begin = a->offsets ? a->offsets[b] : 0, all = a->offsets ? a->offsets[b + 1] - begin : a->stored;
    s->first = a->offsets ? begin : (a->key.sample ? b * a->stored : 0);
    s->rows = all;
    s->position = NULL;
    s->start = 0;
    s->stride = 1;
    s->per_lane = 0;
    if (t->restricted && !t->per_lane) memset(w->slot, 0xff, (size_t)all * sizeof *w->slot);
    if (a->padding && !t->restricted) {
        const uint8_t *padding = a->padding + b * a->stored;
        s->rows = 0;
        for (int64_t j = 0; j < all; j++) {
            w->position[s->rows] = (int32_t)j;
            s->rows += !padding[j];
        }
        if (s->rows < all) s->position = w->position;
    }
    const struct {
        const sh_stack *stack;
        int64_t d;
        char *copy;
        const char *argument;
        const char **rows;
        int64_t *ld;
    } both[2] = {{&a->key, t->e, w->keys, "stored", &s->key, &s->key_ld},
                 {&a->value, t->f, w->values, "values", &s->value, &s->value_ld}};
    for (int i = 0; i < 2; i++) {
        const sh_stack *stack = both[i].stack;
        const int64_t d = both[i].d;
        const char *from =
            sh_at(stack->data, t, (a->offsets ? begin * stack->row : b * stack->sample) + h * stack->head);
        *both[i].rows = from;
        *both[i].ld = stack->row;
        if (i == 1 && a->value.data == a->key.data && stack->row == a->key.row && t->f == t->e &&
            stack->head == a->key.head) { /* the same rows */
            *both[i].rows = s->key;
            *both[i].ld = s->key_ld;
            continue;
        }
        /* rows far apart fall into the same sets of the cache */
        if (s->position || (t->vectors == 1 && stack->row > d && !t->restricted)) {
            t->lanes->copy(from, stack->row, s->position, s->rows, d, both[i].copy);
            *both[i].rows = both[i].copy;
            *both[i].ld = d;
        }
        if (!check) continue;
        const uint8_t *padding = t->restricted && a->padding ? a->padding + b * a->stored : NULL;
        const int whole = *both[i].ld == d && !padding;
        for (int64_t j = 0; j < (whole ? 1 : s->rows); j++) {
            const char *row = sh_at(*both[i].rows, t, j * *both[i].ld);
            if (s->rows == 0 || (padding && padding[j]) || t->lanes->finite(row, whole ? s->rows * d : d)) continue;
            while (whole && t->lanes->finite(sh_at(row, t, j * d), d)) j++;
            return sh_fail(context, SH_NOT_FINITE, both[i].argument, s->first + (s->position ? s->position[j] : j));
        }
    }
    return SH_OK;
}

void sh_mask_to_bias(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *s, int add, char *bias) {
    const sh_association *a = &t->a;
    for (int64_t l = 0; l < t->width; l++) {
        const int64_t at =
            q->head[l] < 0 ? 0
                           : q->sample[l] * a->mask_sample + q->head[l] * a->mask_head + q->query[l] * a->mask_query;
        for (int64_t j = 0; j < s->rows; j++) {
            const int64_t row = s->per_lane ? sh_row_of(t, s, NULL, j, l) : s->position ? s->position[j] : j;
            const int64_t from = at + row, to = j * t->width + l;
            if (row < 0) continue;
            sh_put(t, bias, to,
                   (add ? sh_get(t, bias, to) : 0) + (q->head[l] < 0 ? 0
                                                      : a->mask_is_bool
                                                          ? (((const uint8_t *)a->mask)[from] ? -INFINITY : 0)
                                                          : sh_get(t, a->mask, from)));
        }
    }
}

static uint32_t mix(uint32_t x) {
    SH_HASH(x);
    return x;
}

void sh_dropout_factors(const sh_tape *t, const sh_tile_queries *q, const sh_stored_rows *s, const int32_t *list,
                        int64_t n, char *factor) {
    const int64_t L = t->lanes->lanes;
    const double rate = t->a.dropout;
    const uint32_t threshold = (uint32_t)fmin(nearbyint(rate * 0x1p32), 0xFFFFFFFFp0);
    for (int64_t g = 0; g < t->vectors; g++) {
        uint32_t key[SH_MOST_LANES];
        for (int64_t l = 0; l < L; l++) {
            const uint64_t number = (uint64_t)q->number[g * L + l], seed = t->a.seed;
            key[l] = mix(mix((uint32_t)number ^ (uint32_t)seed) ^ (uint32_t)(number >> 32) ^ (uint32_t)(seed >> 32));
        }
        t->lanes->drop(list, s->position, s->per_lane, n, key, threshold, 1 / (1 - rate), sh_at(factor, t, g * L),
                       t->width);
    }
}

/* --- queries on lanes ----------------------------------------------------------------------------- */

sh_taped_update sh_read_update(const sh_tape *t, const sh_tile_tape *tape, int64_t at) {
    sh_taped_update v = {.header = (const sh_update_header *)(tape->bytes + at)};
    v.u = (const char *)(v.header + 1);
    v.th = sh_at(v.u, t, t->e * t->width);
    v.n = v.header->n;
    v.list = !v.header->listed ? NULL : (const int32_t *)sh_at(v.th, t, 2 * t->width);
    v.top_lanes = v.header->has_top_lanes ? (const uint16_t *)(v.list + v.n) : NULL;
    return v;
}

void sh_rows_to_lanes(const sh_tape *t, const sh_tile_queries *q, const char *rows, int64_t d, char *lanes) {
    const int64_t L = t->lanes->lanes;
    for (int64_t g = 0; g < t->vectors; g++) {
        const void *from[SH_MOST_LANES] = {0};
        for (int64_t l = 0; l < L; l++)
            if (q->head[g * L + l] >= 0) from[l] = sh_at(rows, t, q->number[g * L + l] * d);
        t->lanes->gather(from, d, NULL, sh_at(lanes, t, g * L), t->width);
    }
}

void sh_lanes_to_rows(const sh_tape *t, const sh_tile_queries *q, const char *lanes, int64_t d, int64_t row,
                      char *rows) {
    const int64_t L = t->lanes->lanes;
    for (int64_t g = 0; g < t->vectors; g++) {
        void *to[SH_MOST_LANES] = {0};
        for (int64_t l = 0; l < L; l++)
            if (q->head[g * L + l] >= 0)
                to[l] =
                    sh_at(rows, t,
                          (q->sample[g * L + l] * t->a.queries + q->query[g * L + l]) * row + q->head[g * L + l] * d);
        t->lanes->scatter(sh_at(lanes, t, g * L), t->width, d, NULL, to);
    }
}

void sh_apply_key_map(const sh_tape *t, const sh_tile_queries *q, const sh_scratch *w, const char *lanes,
                      const char *rows, int biased, char *out) {
    const sh_projection *map = &t->a.key_map;
    const int64_t L = t->lanes->lanes, d = t->a.d, e = t->e;
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

/* --- products ------------------------------------------------------------------------------------- */

/* listed rows, one behind the other */
static const char *listed(const sh_tape *t, const char *rows, int64_t *ld, const int32_t *list, int64_t n, int64_t d,
                          char *gathered) {
    if (!list) return rows;
    t->lanes->copy(rows, *ld, list, n, d, gathered);
    *ld = d;
    return gathered;
}

/* lanes (d x width) as rows, padded with zeros */
static void turn_lanes(const sh_tape *t, const char *lanes, int64_t d, char *rows) {
    const int64_t padded = sh_padded(t, d), L = t->lanes->lanes;
    if (padded > d) memset(rows, 0, (size_t)(padded * t->width) * t->lanes->size);
    for (int64_t group = 0; group < t->vectors; group++) {
        void *to[SH_MOST_LANES];
        for (int64_t l = 0; l < L; l++) to[l] = sh_at(rows, t, (group * L + l) * padded);
        t->lanes->scatter(sh_at(lanes, t, group * L), t->width, d, NULL, to);
    }
}

void sh_dot_tile(const sh_tape *t, const sh_stored_rows *stored, int values, const int32_t *list, int64_t n,
                 const char *u, char *s, char *gathered) {
    const char *rows = values ? stored->value : stored->key;
    int64_t ld = values ? stored->value_ld : stored->key_ld, d = values ? t->f : t->e;
    if (stored->per_lane) {
        turn_lanes(t, u, d, gathered);
        t->lanes->scores_per_lane(rows, ld, stored->position, list, n, d, gathered, sh_padded(t, d), s, t->width);
    } else if (t->vectors == 1) {
        t->lanes->scores(rows, ld, list, n, d, u, s, t->width);
    } else if (n) {
        rows = listed(t, rows, &ld, list, n, d, gathered);
        t->k->gemm_nn(n, t->width, d, rows, ld, u, t->width, 0, s, t->width);
    }
}

void sh_mix_tile(const sh_tape *t, const sh_stored_rows *stored, int values, const int32_t *list, int64_t n,
                 const char *p, char *z, char *gathered) {
    const char *rows = values ? stored->value : stored->key;
    int64_t ld = values ? stored->value_ld : stored->key_ld, d = values ? t->f : t->e;
    if (stored->per_lane) {
        const int64_t padded = sh_padded(t, d);
        const void *from[SH_MOST_LANES];
        t->lanes->mix_per_lane(rows, ld, stored->position, list, n, d, p, t->width, gathered, padded);
        for (int64_t l = 0; l < t->lanes->lanes; l++) from[l] = sh_at(gathered, t, l * padded);
        t->lanes->gather(from, d, NULL, z, t->width);
    } else if (t->vectors == 1) {
        t->lanes->mix(rows, ld, list, n, d, p, t->width, z);
    } else if (n) {
        rows = listed(t, rows, &ld, list, n, d, gathered);
        t->k->gemm_tn(d, t->width, n, rows, ld, p, t->width, 0, z, t->width);
    } else {
        memset(z, 0, (size_t)(d * t->width) * t->lanes->size);
    }
}

void sh_outer_tile(const sh_tape *t, const sh_stored_rows *s, int values, const char *g, const int32_t *list, int64_t n,
                   const char *u, const sh_scratch *w) {
    const int64_t padded = sh_padded(t, values ? t->f : t->e), ld = values ? w->dvalue_ld : w->dkey_ld;
    char *rows = values ? w->dvalue : w->dkey, *x = w->turned;
    turn_lanes(t, u, values ? t->f : t->e, x);
    if (s->per_lane) {
        t->lanes->spread_per_lane(g, t->width, s->position, list, n, x, padded, rows, ld);
    } else if (t->vectors == 1) {
        t->lanes->spread(g, t->width, list, n, x, padded, rows, ld);
    } else if (!list) {
        t->k->gemm_nn(n, padded, t->width, g, t->width, x, padded, 1, rows, ld);
    } else if (n) {
        t->k->gemm_nn(n, padded, t->width, g, t->width, x, padded, 0, w->gathered, padded);
        for (int64_t i = 0; i < n; i++)
            t->lanes->add_rows(sh_at(rows, t, list[i] * ld), sh_at(w->gathered, t, i * padded), padded);
    }
}

void sh_score_tile(const sh_tape *t, const sh_scratch *w, const sh_stored_rows *s, const char *u, const int32_t *list,
                   int64_t n) {
    const int64_t L = t->lanes->lanes;
    sh_dot_tile(t, s, 0, list, n, u, w->s, w->gathered);
    for (int64_t g = 0; t->biased && g < t->vectors; g++)
        t->lanes->add(sh_at(w->s, t, g * L), sh_at(w->bias, t, g * L), list, n, t->width, t->width);
}

void sh_score_tile_again(const sh_tape *t, const sh_scratch *w, const sh_stored_rows *s, const sh_taped_update *v) {
    const int64_t L = t->lanes->lanes;
    sh_score_tile(t, w, s, v->u, v->list, v->n);
    for (int64_t i = 0; v->top_lanes && i < v->n * t->vectors; i++)
        for (int64_t l = 0; l < L; l++)
            if (!(v->top_lanes[i] >> l & 1)) sh_put(t, w->s, i * L + l, -INFINITY);
}
