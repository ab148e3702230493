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

static sh_bench lay_out(const sh_trail *t, int backward, char *memory, size_t *size) {
    sh_bench b = {0};
    char *at = memory;
    const size_t number = t->lanes->size, wide = (size_t)t->wide, rows = (size_t)t->most_seen;
    const size_t all = (size_t)t->most_rows;
    const size_t keys = (size_t)sh_padded(t, t->e), values = (size_t)sh_padded(t, t->f),
                 most = keys > values ? keys : values;
    const size_t panel = (rows + 1) * wide * number;
    lay(&at, &b.s, panel);
    lay(&at, &b.p, panel);
    lay(&at, backward ? &b.g : &b.before, panel);
    if (t->a.dropout > 0) lay(&at, &b.factor, panel);
    if (t->biased) lay(&at, &b.bias, panel);
    lay(&at, &b.keys, rows * (size_t)t->e * number);
    lay(&at, &b.values, rows * (size_t)t->f * number);
    if (t->groups > 1 || t->owns) lay(&at, &b.some, (t->owns ? wide : rows) * most * number);
    if (backward) {
        if (!t->looks || t->parts == 1) {
            lay(&at, &b.dkey, all * keys * number);
            lay(&at, &b.dvalue, all * values * number);
        }
        if (t->looks && !t->owns) {
            lay(&at, &b.dkey_seen, rows * keys * number);
            lay(&at, &b.dvalue_seen, rows * values * number);
        }
        b.dkey_ld = (int64_t)keys;
        b.dvalue_ld = (int64_t)values;
    }
    lay(&at, &b.u, most * wide * number);
    lay(&at, &b.next, most * wide * number);
    lay(&at, &b.z, most * wide * number);
    lay(&at, &b.x, most * wide * number);
    lay(&at, &b.y, ((size_t)t->a.d + most) * number);
    lay(&at, &b.rows, most * wide * number);
    lay(&at, (char **)&b.list, (rows + 1) * sizeof(int32_t));
    lay(&at, (char **)&b.before_list, (rows + 1) * sizeof(int32_t));
    if (t->groups > 1) lay(&at, (char **)&b.group_list, (rows + 1) * sizeof(int32_t));
    if (t->a.padding) lay(&at, (char **)&b.position, (rows + 1) * sizeof(int32_t));
    lay(&at, &b.th, 2 * wide * number);
    lay(&at, &b.best, 2 * wide * number);
    if (t->looks) {
        lay(&at, (char **)&b.seen, (rows + 1) * (t->owns ? wide : 1) * sizeof(int32_t));
        if (!t->owns) lay(&at, (char **)&b.slot, (all + 1) * sizeof(int32_t));
    }
    if (t->best) {
        lay(&at, (char **)&b.chosen, (rows + 1) * sizeof(int32_t));
        lay(&at, (char **)&b.kept, (rows + 1) * (size_t)t->groups * sizeof(uint16_t));
    }
    *size = (size_t)(at - memory);
    return b;
}

size_t sh_bench_size(const sh_trail *t, int backward) {
    size_t size;
    lay_out(t, backward, NULL, &size);
    return size;
}

sh_bench sh_bench_at(const sh_trail *t, int backward, char *memory) {
    size_t size;
    return lay_out(t, backward, memory, &size);
}

/* --- stored rows ---------------------------------------------------------------------------------- */

sh_status sh_stored_of(sh_context *context, const sh_trail *t, int64_t set, int check, sh_bench *bench, sh_stored *s) {
    const sh_association *a = &t->a;
    const int64_t heads = t->fold_heads ? 1 : a->heads, b = set / heads, h = set % heads;
    const int64_t begin = a->offsets ? a->offsets[b] : 0, all = a->offsets ? a->offsets[b + 1] - begin : a->stored;
    s->first = a->offsets ? begin : (a->key.sample ? b * a->stored : 0);
    s->rows = all;
    s->position = NULL;
    s->at = 0;
    s->step = 1;
    s->own = 0;
    if (t->looks && !t->owns) memset(bench->slot, 0xff, (size_t)all * sizeof *bench->slot);
    if (a->padding && !t->looks) {
        const uint8_t *padding = a->padding + b * a->stored;
        s->rows = 0;
        for (int64_t j = 0; j < all; j++) {
            bench->position[s->rows] = (int32_t)j;
            s->rows += !padding[j];
        }
        if (s->rows < all) s->position = bench->position;
    }
    const struct {
        const sh_stack *stack;
        int64_t d;
        char *copy;
        const char *argument;
        const char **rows;
        int64_t *ld;
    } both[2] = {{&a->key, t->e, bench->keys, "stored", &s->key, &s->key_ld},
                 {&a->value, t->f, bench->values, "values", &s->value, &s->value_ld}};
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
        if (s->position || (t->groups == 1 && stack->row > d && !t->looks)) {
            t->lanes->copy(from, stack->row, s->position, s->rows, d, both[i].copy);
            *both[i].rows = both[i].copy;
            *both[i].ld = d;
        }
        if (!check) continue;
        const uint8_t *padding = t->looks && a->padding ? a->padding + b * a->stored : NULL;
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

void sh_bias_of(const sh_trail *t, const sh_crew *crew, const sh_stored *s, int begun, char *bias) {
    const sh_association *a = &t->a;
    for (int64_t l = 0; l < t->wide; l++) {
        const int64_t at = crew->head[l] < 0 ? 0
                                             : crew->sample[l] * a->mask_sample + crew->head[l] * a->mask_head +
                                                   crew->query[l] * a->mask_query;
        for (int64_t j = 0; j < s->rows; j++) {
            const int64_t row = s->own ? sh_row_of(t, s, NULL, j, l) : s->position ? s->position[j] : j;
            const int64_t from = at + row, to = j * t->wide + l;
            if (row < 0) continue;
            sh_put(t, bias, to,
                   (begun ? sh_number(t, bias, to) : 0) + (crew->head[l] < 0 ? 0
                                                           : a->mask_is_bool
                                                               ? (((const uint8_t *)a->mask)[from] ? -INFINITY : 0)
                                                               : sh_number(t, a->mask, from)));
        }
    }
}

static uint32_t mix(uint32_t x) {
    SH_HASH(x);
    return x;
}

void sh_drop_factors(const sh_trail *t, const sh_crew *crew, const sh_stored *s, const int32_t *list, int64_t n,
                     char *factor) {
    const int64_t L = t->lanes->lanes;
    const double rate = t->a.dropout;
    const uint32_t threshold = (uint32_t)fmin(nearbyint(rate * 0x1p32), 0xFFFFFFFFp0);
    for (int64_t g = 0; g < t->groups; g++) {
        uint32_t key[SH_MOST_LANES];
        for (int64_t l = 0; l < L; l++) {
            const uint64_t number = (uint64_t)crew->number[g * L + l], seed = t->a.seed;
            key[l] = mix(mix((uint32_t)number ^ (uint32_t)seed) ^ (uint32_t)(number >> 32) ^ (uint32_t)(seed >> 32));
        }
        t->lanes->drop(list, s->position, s->own, n, key, threshold, 1 / (1 - rate), sh_at(factor, t, g * L), t->wide);
    }
}

/* --- queries on lanes ----------------------------------------------------------------------------- */

sh_visit sh_visit_at(const sh_trail *t, const sh_path_of_tile *path, int64_t at) {
    sh_visit v = {.record = (const sh_record *)(path->records + at)};
    v.u = (const char *)(v.record + 1);
    v.th = sh_at(v.u, t, t->e * t->wide);
    v.n = v.record->n;
    v.list = !v.record->listed ? NULL : (const int32_t *)sh_at(v.th, t, 2 * t->wide);
    v.kept = v.record->chosen ? (const uint16_t *)(v.list + v.n) : NULL;
    return v;
}

void sh_rows_to_lanes(const sh_trail *t, const sh_crew *crew, const char *rows, int64_t d, char *lanes) {
    const int64_t L = t->lanes->lanes;
    for (int64_t g = 0; g < t->groups; g++) {
        const void *from[SH_MOST_LANES] = {0};
        for (int64_t l = 0; l < L; l++)
            if (crew->head[g * L + l] >= 0) from[l] = sh_at(rows, t, crew->number[g * L + l] * d);
        t->lanes->gather(from, d, NULL, sh_at(lanes, t, g * L), t->wide);
    }
}

void sh_lanes_to_rows(const sh_trail *t, const sh_crew *crew, const char *lanes, int64_t d, int64_t row, char *rows) {
    const int64_t L = t->lanes->lanes;
    for (int64_t g = 0; g < t->groups; g++) {
        void *to[SH_MOST_LANES] = {0};
        for (int64_t l = 0; l < L; l++)
            if (crew->head[g * L + l] >= 0)
                to[l] = sh_at(rows, t,
                              (crew->sample[g * L + l] * t->a.queries + crew->query[g * L + l]) * row +
                                  crew->head[g * L + l] * d);
        t->lanes->scatter(sh_at(lanes, t, g * L), t->wide, d, NULL, to);
    }
}

void sh_through_key_map(const sh_trail *t, const sh_crew *crew, const sh_bench *w, const char *lanes, const char *rows,
                        int biased, char *out) {
    const sh_projection *map = &t->a.key_map;
    const int64_t L = t->lanes->lanes, d = t->a.d, e = t->e;
    if (t->square) {
        const int64_t vector = crew->head[0] / L;
        t->lanes->apply(sh_at(t->square, t, vector * e * e * L), e, lanes,
                        biased ? sh_at(t->shift, t, vector * e * L) : NULL, out);
        return;
    }
    const void *from[SH_MOST_LANES] = {0};
    for (int64_t l = 0; l < L; l++) {
        const int64_t h = crew->head[l];
        if (h < 0) continue;
        const char *weight = sh_at(map->weight, t, h * d * e);
        char *x = sh_at(w->rows, t, l * e);
        t->widest->project(weight, d, e, sh_at(rows, t, crew->number[l] * e),
                           biased ? sh_at(map->bias, t, h * d) : NULL, w->y);
        t->widest->project_back(weight, d, e, w->y, x);
        from[l] = x;
    }
    t->lanes->gather(from, e, NULL, out, t->wide);
}

/* --- products ------------------------------------------------------------------------------------- */

/* listed rows, one behind the other */
static const char *listed(const sh_trail *t, const char *rows, int64_t *ld, const int32_t *list, int64_t n, int64_t d,
                          char *some) {
    if (!list) return rows;
    t->lanes->copy(rows, *ld, list, n, d, some);
    *ld = d;
    return some;
}

/* lanes (d x wide) as rows, padded with zeros */
static void turned(const sh_trail *t, const char *lanes, int64_t d, char *rows) {
    const int64_t padded = sh_padded(t, d), L = t->lanes->lanes;
    if (padded > d) memset(rows, 0, (size_t)(padded * t->wide) * t->lanes->size);
    for (int64_t group = 0; group < t->groups; group++) {
        void *to[SH_MOST_LANES];
        for (int64_t l = 0; l < L; l++) to[l] = sh_at(rows, t, (group * L + l) * padded);
        t->lanes->scatter(sh_at(lanes, t, group * L), t->wide, d, NULL, to);
    }
}

void sh_lane_scores(const sh_trail *t, const sh_stored *stored, int values, const int32_t *list, int64_t n,
                    const char *u, char *s, char *some) {
    const char *rows = values ? stored->value : stored->key;
    int64_t ld = values ? stored->value_ld : stored->key_ld, d = values ? t->f : t->e;
    if (stored->own) {
        turned(t, u, d, some);
        t->lanes->own_scores(rows, ld, stored->position, list, n, d, some, sh_padded(t, d), s, t->wide);
    } else if (t->groups == 1) {
        t->lanes->scores(rows, ld, list, n, d, u, s, t->wide);
    } else if (n) {
        rows = listed(t, rows, &ld, list, n, d, some);
        t->k->gemm_nn(n, t->wide, d, rows, ld, u, t->wide, 0, s, t->wide);
    }
}

void sh_lane_mix(const sh_trail *t, const sh_stored *stored, int values, const int32_t *list, int64_t n, const char *p,
                 char *z, char *some) {
    const char *rows = values ? stored->value : stored->key;
    int64_t ld = values ? stored->value_ld : stored->key_ld, d = values ? t->f : t->e;
    if (stored->own) {
        const int64_t padded = sh_padded(t, d);
        const void *from[SH_MOST_LANES];
        t->lanes->own_mix(rows, ld, stored->position, list, n, d, p, t->wide, some, padded);
        for (int64_t l = 0; l < t->lanes->lanes; l++) from[l] = sh_at(some, t, l * padded);
        t->lanes->gather(from, d, NULL, z, t->wide);
    } else if (t->groups == 1) {
        t->lanes->mix(rows, ld, list, n, d, p, t->wide, z);
    } else if (n) {
        rows = listed(t, rows, &ld, list, n, d, some);
        t->k->gemm_tn(d, t->wide, n, rows, ld, p, t->wide, 0, z, t->wide);
    } else {
        memset(z, 0, (size_t)(d * t->wide) * t->lanes->size);
    }
}

void sh_lane_spread(const sh_trail *t, const sh_stored *s, int values, const char *g, const int32_t *list, int64_t n,
                    const char *u, const sh_bench *w) {
    const int64_t padded = sh_padded(t, values ? t->f : t->e), ld = values ? w->dvalue_ld : w->dkey_ld;
    char *rows = values ? w->dvalue : w->dkey, *x = w->rows;
    turned(t, u, values ? t->f : t->e, x);
    if (s->own) {
        t->lanes->own_spread(g, t->wide, s->position, list, n, x, padded, rows, ld);
    } else if (t->groups == 1) {
        t->lanes->spread(g, t->wide, list, n, x, padded, rows, ld);
    } else if (!list) {
        t->k->gemm_nn(n, padded, t->wide, g, t->wide, x, padded, 1, rows, ld);
    } else if (n) {
        t->k->gemm_nn(n, padded, t->wide, g, t->wide, x, padded, 0, w->some, padded);
        for (int64_t i = 0; i < n; i++)
            t->lanes->add_rows(sh_at(rows, t, list[i] * ld), sh_at(w->some, t, i * padded), padded);
    }
}

void sh_tile_scores_of(const sh_trail *t, const sh_bench *w, const sh_stored *s, const char *u, const int32_t *list,
                       int64_t n) {
    const int64_t L = t->lanes->lanes;
    sh_lane_scores(t, s, 0, list, n, u, w->s, w->some);
    for (int64_t g = 0; t->biased && g < t->groups; g++)
        t->lanes->add(sh_at(w->s, t, g * L), sh_at(w->bias, t, g * L), list, n, t->wide, t->wide);
}

void sh_scores_again(const sh_trail *t, const sh_bench *w, const sh_stored *s, const sh_visit *v) {
    const int64_t L = t->lanes->lanes;
    sh_tile_scores_of(t, w, s, v->u, v->list, v->n);
    for (int64_t i = 0; v->kept && i < v->n * t->groups; i++)
        for (int64_t l = 0; l < L; l++)
            if (!(v->kept[i] >> l & 1)) sh_put(t, w->s, i * L + l, -INFINITY);
}
