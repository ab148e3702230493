/* forward.c: the association of the layers, and the trail that it leaves for its gradient (sparsehopfield_layers.h).
 *
 * A tile makes all its updates before the next begins. Every query stops by itself: its lane keeps its state while
 * others go on, so the weights that are computed for it again are the same ones.
 *
 * With a key_map, s = q (W r + b) = (W^T q) r + const: the scores need no projected rows, the mixture z = sum p_j r_j
 * becomes the next state W^T (W z + b), since sum p = 1, and only small vectors meet a weight matrix. */
#include "association/tape.h"
#include "separation/separation.h"
#include <math.h>
#include <string.h>

enum { ROWS_IN_CACHE = 256 << 10 };

static int shapes_are_sound(const sh_association *a) {
    const int64_t sizes[] = {a->samples, a->queries, a->stored, a->heads, a->d, a->v};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] < (i >= 3) || sizes[i] > INT32_MAX / 2) return 0;
    return (a->type == SH_FLOAT32 || a->type == SH_FLOAT64) && a->dropout >= 0 && a->dropout < 1 && a->eps >= 0 &&
           a->appended >= 0;
}

/* How queries are put on lanes, and tiles on items of work: from the shapes alone. */
static void plan(sh_trail *t) {
    const sh_association *a = &t->a;
    t->e = a->key_map.weight ? a->key_map.from : a->d;
    t->f = a->value_map.weight ? a->value_map.from : a->v;
    t->fold_samples = !a->key.sample && !a->value.sample && !a->offsets && !a->padding && a->samples > 1;
    t->fold_heads = !a->key.head && !a->value.head && (a->heads > 1 || a->key_map.weight);
    t->most_rows = a->stored;
    for (int64_t b = 0; a->offsets && b < a->samples; b++)
        t->most_rows = sh_max(b ? t->most_rows : 0, a->offsets[b + 1] - a->offsets[b]);
    const int64_t own = a->queries * (t->fold_samples ? a->samples : 1);
    t->lanes = sh_lanes_for(a->type, own * (t->fold_heads ? a->heads : 1));
    if (a->key_map.weight) t->lanes = sh_lanes_for(a->type, a->heads);
    t->widest = sh_lanes_for(a->type, INT64_MAX);
    const int64_t L = t->lanes->lanes;
    t->padded_heads = a->key_map.weight && t->fold_heads ? sh_ceil_div(a->heads, L) * L : a->heads;
    t->lanes_of_set = own * (t->fold_heads ? t->padded_heads : 1);
    t->sets = (t->fold_samples ? 1 : a->samples) * (t->fold_heads ? 1 : a->heads);
    /* rows that no cache holds are read once for many queries, by the BLAS */
    const int64_t bytes = t->most_rows * sh_max(t->e, t->f) * (int64_t)t->lanes->size;
    const int most = SH_MOST_WIDE / SH_MOST_LANES; /* or half as many, so that there are four tiles at least */
    t->groups = a->key_map.weight || t->looks || bytes <= ROWS_IN_CACHE || t->lanes_of_set < 4 * L ? 1
                : t->lanes_of_set < 4 * most * L                                                   ? most / 2
                                                                                                   : most;
    t->wide = t->groups * L;
    t->tiles = sh_ceil_div(t->lanes_of_set, t->wide);
    t->most_seen = t->most_rows;
    const int64_t grads = t->most_rows * (t->e + t->f) * (int64_t)t->lanes->size;
    int64_t parts = sh_min(sh_ceil_div(32, sh_max(t->sets, 1)), sh_max(SH_MOST_BYTES_OF_PARTS / sh_max(grads, 1), 1));
    t->parts = sh_max(sh_min(parts, t->tiles), 1);
    t->tiles_of_part = sh_ceil_div(t->tiles, t->parts);
    t->parts = sh_max(sh_ceil_div(t->tiles, sh_max(t->tiles_of_part, 1)), 1);
}

/* What the structure asks for; the argument that is wrong, or NULL. Rows of most samples may be fewer (ragged bags). */
static const char *take_structure(sh_trail *t) {
    const sh_association *a = &t->a;
    const sh_structure *s = a->structure;
    int64_t rows = a->stored;
    for (int64_t b = 0; a->offsets && b < a->samples; b++)
        rows = sh_max(b ? rows : 0, a->offsets[b + 1] - a->offsets[b]);
    if (a->appended > rows) return "appended";
    t->biased = a->mask != NULL;
    if (!s || s->pairs == SH_PAIRS_ALL) return NULL;
    if (s->pairs == SH_PAIRS_TOP) {
        if (s->k < 1) return "k";
        t->best = s->k < rows ? s->k : 0;
        return NULL;
    }
    rows -= a->appended;
    if (s->pairs == SH_PAIRS_BLOCKS)
        for (int64_t b = 0; a->offsets && b < a->samples; b++)
            if (a->offsets[b + 1] - a->offsets[b] - a->appended != rows) return "mask";
    enum { HARDLY_SHARED = 4 };
    t->owns = (s->pairs == SH_PAIRS_RANDOM || s->pairs == SH_PAIRS_BLOCKS) && s->rows < HARDLY_SHARED;
    t->looks = t->biased = 1;
    t->structure = *s;
    return a->samples && a->queries ? sh_structure_fault(s, a->queries, rows) : NULL;
}

/* of query `item` of all samples, one state a head */
static sh_status first_states(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const sh_trail *t = user;
    const sh_association *a = &t->a;
    const int64_t e = t->e, d = a->d, b = item / a->queries, n = item % a->queries;
    for (int64_t h = 0; h < a->heads; h++)
        t->widest->project_back(sh_at(a->key_map.weight, t, h * d * e), d, e,
                                sh_at(a->query.data, t, b * a->query.sample + n * a->query.row + h * a->query.head),
                                sh_at(t->start, t, (item * a->heads + h) * e));
    return SH_OK;
}

/* First states W^T q, and for few features the matrices W^T W and W^T b on lanes. */
static sh_status prepare_key_map(sh_context *context, sh_trail *t) {
    const sh_association *a = &t->a;
    const int64_t e = t->e, d = a->d, H = a->heads, L = t->lanes->lanes, samples = a->query.sample ? a->samples : 1;
    const size_t number = t->lanes->size;
    t->start = sh_allocate(context, samples * a->queries * H * e, number);
    if (!t->start) return SH_NO_MEMORY;
    sh_status status =
        sh_each(context, samples * a->queries, 0, (double)(samples * a->queries * H * e) * (double)d, first_states, t);
    if (status != SH_OK) return status;
    if (a->steps) {
        const int64_t count = a->steps * a->samples * a->queries * H * e;
        if (!(t->states = sh_allocate(context, count, number))) return SH_NO_MEMORY;
        memset(t->states, 0, (size_t)count * number);
    }
    if (e > 2 * d || !a->steps) return SH_OK;
    const int64_t vectors = t->padded_heads / L;
    t->square = sh_allocate(context, vectors * e * e * L, number);
    t->shift = sh_allocate(context, vectors * e * L, number);
    char *one = sh_allocate(context, (e + 1) * e, number);
    if (t->square && t->shift && one) {
        memset(t->square, 0, (size_t)(vectors * e * e * L) * number);
        memset(t->shift, 0, (size_t)(vectors * e * L) * number);
        for (int64_t h = 0; h < H; h++) {
            const char *w = sh_at(a->key_map.weight, t, h * d * e);
            t->k->gemm_tn(e, e, d, w, e, w, e, 0, one, e);
            t->widest->project_back(w, d, e, sh_at(a->key_map.bias, t, h * d), sh_at(one, t, e * e));
            for (int64_t c = 0; c < e * e; c++)
                memcpy(sh_at(t->square, t, (h / L * e * e + c) * L + h % L), sh_at(one, t, c), number);
            for (int64_t c = 0; c < e; c++)
                memcpy(sh_at(t->shift, t, (h / L * e + c) * L + h % L), sh_at(one, t, e * e + c), number);
        }
    }
    sh_release(context, one);
    return t->square && t->shift && one ? SH_OK : SH_NO_MEMORY;
}

/* Heads' maps of `rows` outputs and `columns` inputs: weights and biases. */
static sh_status check_map(sh_context *context, const sh_trail *t, const sh_projection *map, int64_t rows,
                           int64_t columns, const char *argument) {
    if (!map->weight) return SH_OK;
    rows *= t->a.heads;
    if (t->lanes->finite(map->weight, rows * columns) && t->lanes->finite(map->bias, rows)) return SH_OK;
    int64_t i = 0;
    while (t->lanes->finite(sh_at(map->weight, t, i * columns), columns) && t->lanes->finite(sh_at(map->bias, t, i), 1))
        i++;
    return sh_fail(context, SH_NOT_FINITE, argument, i);
}

static sh_status trail_new(sh_context *context, const sh_association *association, sh_trail **trail) {
    sh_trail *t = sh_allocate(context, 1, sizeof *t);
    if (!t) return SH_NO_MEMORY;
    memset(t, 0, sizeof *t);
    *trail = t;
    t->a = *association;
    const sh_association *a = &t->a;
    sh_model model = a->model;
    const sh_map *map = sh_map_of(&model);
    if (!map || !shapes_are_sound(a)) return sh_fail(context, SH_BAD_ARGUMENT, "association", 0);
    t->parameter = model.parameter;
    const char *wrong = take_structure(t);
    if (wrong) return sh_fail(context, SH_BAD_ARGUMENT, wrong, 0);
    plan(t);
    if (t->looks) {
        sh_status planned = sh_plan_sight(context, t);
        if (planned != SH_OK) return planned;
    }
    if (a->padding && a->samples > 1 && !a->key.sample) return sh_fail(context, SH_BAD_ARGUMENT, "padding_mask", 0);
    if (a->implicit && !map->has_energy) return sh_fail(context, SH_UNDEFINED, "gradient", 0);
    if (a->key_map.weight && (a->steps < 0 || !map->shift_invariant || !t->fold_heads))
        return sh_fail(context, SH_BAD_ARGUMENT, "key_projection", 0);
    sh_status status = check_map(context, t, &a->key_map, a->d, t->e, "key_projection");
    if (status == SH_OK) status = check_map(context, t, &a->value_map, a->v, t->f, "value_projection");
    if (status != SH_OK) return status;
    t->k = sh_kernels_of(a->type);
    t->map = &t->lanes->map[map->lanes];
    t->paths = sh_allocate(context, t->sets * t->tiles, sizeof *t->paths);
    if (!t->paths) return SH_NO_MEMORY;
    memset(t->paths, 0, (size_t)(t->sets * t->tiles) * sizeof *t->paths);
    const int64_t all = a->samples * a->queries * a->heads;
    if (!(t->made = sh_allocate(context, all, sizeof *t->made))) return SH_NO_MEMORY;
    memset(t->made, 0, (size_t)all * sizeof *t->made);
    if (a->value_map.weight) {
        t->mixed = sh_allocate(context, all * t->f, t->lanes->size);
        t->mass = sh_allocate(context, all, t->lanes->size);
        if (!t->mixed || !t->mass) return SH_NO_MEMORY;
    }
    return a->key_map.weight ? prepare_key_map(context, t) : SH_OK;
}

void sh_trail_free(sh_context *context, sh_trail *t) {
    if (!t) return;
    for (int64_t i = 0; t->paths && i < t->sets * t->tiles; i++) sh_release(context, t->paths[i].records);
    void *blocks[] = {t->order,  t->part_first, t->part_at, t->paths, t->made, t->start,
                      t->square, t->shift,      t->states,  t->mixed, t->mass, t};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) sh_release(context, blocks[i]);
}

/* --- a tile --------------------------------------------------------------------------------------- */

/* Room for a record with `more` bytes behind states and thresholds at the end of a path. */
static sh_record *append(sh_context *context, const sh_trail *t, sh_path_of_tile *path, size_t more) {
    const int64_t fixed = (int64_t)sizeof(sh_record) + (int64_t)(t->e + 2) * t->wide * (int64_t)t->lanes->size;
    const int64_t size = (int64_t)sh_align((size_t)fixed + more);
    if (path->used + size > path->room) {
        int64_t room = path->room ? 2 * path->room : sh_min(sh_max(t->a.steps, 0), 3) * (fixed + 256);
        room = sh_max(room, path->used + size);
        char *records = sh_allocate(context, room, 1);
        if (!records) return NULL;
        if (path->used) memcpy(records, path->records, (size_t)path->used);
        sh_release(context, path->records);
        path->records = records;
        path->room = room;
    }
    sh_record *record = (sh_record *)(path->records + path->used);
    *record = (sh_record){.before = path->last};
    return record;
}

/* The state after a mixture w->z, where it moved; with a key_map W^T (W z + b). */
static void next_state(sh_trail *t, const sh_crew *crew, const sh_bench *w, int64_t step, const char *where,
                       const char *beta, const char *u, char *next) {
    const sh_association *a = &t->a;
    const int64_t L = t->lanes->lanes, e = t->e;
    const char *z = w->z;
    if (a->key_map.weight) {
        char *states = sh_at(t->states, t, step * a->samples * a->queries * a->heads * e);
        sh_lanes_to_rows(t, crew, w->z, e, a->heads * e, states);
        sh_through_key_map(t, crew, w, w->z, states, 1, w->x);
        z = w->x;
    }
    for (int64_t at = 0; at < t->wide; at += L)
        t->lanes->choose(sh_at(where, t, at), sh_at(z, t, at), sh_at(beta, t, at), sh_at(u, t, at), e,
                         sh_at(next, t, at), t->wide);
}

/* The weights of one association: p (n x wide) of the n listed rows. */
typedef struct {
    char *p;
    const int32_t *list;  /* NULL: all rows */
    const uint16_t *kept; /* by which lanes; NULL: by all */
    int32_t *room;        /* for a list */
    int64_t n;
} weighing;

/* Thresholds of a tile's scores, and its weights: compact by the list of rows with weight in any lane. */
static sh_status weigh(sh_context *context, sh_trail *t, const sh_crew *crew, const sh_bench *w, int64_t rows,
                       weighing *now) {
    const int64_t L = t->lanes->lanes;
    const size_t number = t->lanes->size;
    const int chosen = t->best && rows > t->best;
    int32_t *list = now->room;
    int64_t *n = &now->n;
    if (chosen) {
        sh_status status = sh_keep_best(context, t, crew, w, rows, &rows);
        if (status != SH_OK) return status;
    }
    *n = t->map->full ? rows : 0;
    if (t->groups > 1 && !t->map->full) memset(list, 0, (size_t)rows * sizeof *list);
    for (int64_t g = 0; g < t->groups; g++) {
        int32_t *own = t->groups > 1 ? w->group_list : list;
        char *best = w->best;
        const int64_t found = t->map->threshold(sh_at(w->s, t, g * L), t->wide, rows, t->parameter,
                                                w->th + (size_t)(2 * g * L) * number, own, best);
        for (int64_t l = 0; l < L; l++) {
            const double top = sh_number(t, best, l);
            if (top < INFINITY && (top > -INFINITY || t->biased || !rows)) continue;
            if (crew->head[g * L + l] < 0) continue;
            return sh_fail(context, SH_OVERFLOW, "queries", crew->number[g * L + l] / t->a.heads);
        }
        if (t->groups == 1)
            *n = found;
        else if (!t->map->full)
            for (int64_t i = 0; i < found; i++) list[own[i]] = 1;
    }
    if (t->groups > 1 && !t->map->full) /* the union, in place: entry i is read before it is written */
        for (int64_t j = 0; j < rows; j++)
            if (list[j]) list[(*n)++] = (int32_t)j;
    now->list = *n < rows ? list : NULL;
    now->kept = chosen ? w->kept : NULL;
    for (int64_t g = 0; g < t->groups; g++)
        t->map->finish(sh_at(w->s, t, g * L), t->wide, now->list, *n, t->parameter,
                       w->th + (size_t)(2 * g * L) * number, sh_at(now->p, t, g * L), t->wide);
    if (!chosen) return SH_OK;
    for (int64_t i = 0; i < *n; i++) { /* from numbers among the chosen rows to numbers of rows */
        const int64_t j = now->list ? list[i] : i;
        memmove(w->kept + i * t->groups, w->kept + j * t->groups, (size_t)t->groups * sizeof *w->kept);
        list[i] = w->chosen[j];
    }
    now->list = list;
    return SH_OK;
}

static void first_state(const sh_trail *t, const sh_crew *crew, const char *beta, char *u) {
    const sh_association *a = &t->a;
    const int64_t L = t->lanes->lanes;
    for (int64_t g = 0; g < t->groups; g++) {
        const void *rows[SH_MOST_LANES] = {0};
        for (int64_t l = 0; l < L; l++) {
            const int64_t i = g * L + l, b = crew->sample[i], n = crew->query[i], h = crew->head[i];
            if (h < 0) continue;
            rows[l] = t->start
                          ? sh_at(t->start, t, (((a->query.sample ? b : 0) * a->queries + n) * a->heads + h) * t->e)
                          : sh_at(a->query.data, t, b * a->query.sample + n * a->query.row + h * a->query.head);
        }
        t->lanes->gather(rows, t->e, sh_at(beta, t, g * L), sh_at(u, t, g * L), t->wide);
    }
}

/* Puts the update behind those that the path has, or in their place. */
static sh_status keep_update(sh_context *context, const sh_trail *t, const sh_bench *w, sh_path_of_tile *path, int only,
                             const char *u, const uint64_t *moved, const weighing *now) {
    const size_t number = t->lanes->size, state = (size_t)(t->e * t->wide) * number;
    const size_t thresholds = (size_t)(2 * t->wide) * number;
    const int64_t rows = now->list ? now->n : 0;
    const size_t lists = (size_t)rows * sizeof *now->list;
    const size_t lanes = now->kept ? (size_t)(rows * t->groups) * sizeof *now->kept : 0;
    if (only) {
        path->used = 0;
        path->last = -1;
    }
    sh_record *record = append(context, t, path, lists + lanes);
    if (!record) return SH_NO_MEMORY;
    record->n = now->n;
    record->listed = rows;
    record->chosen = now->kept != NULL;
    memcpy(record->moved, moved, sizeof record->moved);
    char *to = (char *)(record + 1);
    memcpy(to, u, state);
    memcpy(to + state, w->th, thresholds);
    if (rows) memcpy(to + state + thresholds, now->list, lists);
    if (lanes) memcpy(to + state + thresholds + lists, now->kept, lanes);
    path->last = path->used;
    path->used += (int64_t)sh_align(sizeof *record + state + thresholds + lists + lanes);
    return SH_OK;
}

/* How many queries still move; `where` forgets those that do not. */
static int still_moving(const sh_trail *t, const weighing *now, const weighing *before, char *where) {
    const int64_t L = t->lanes->lanes;
    _Alignas(64) char d2[SH_MOST_LANES * sizeof(double)];
    int moving = 0;
    for (int64_t g = 0; g < t->groups; g++) {
        t->lanes->distance(sh_at(now->p, t, g * L), now->list, now->n, sh_at(before->p, t, g * L), before->list,
                           before->n, t->wide, d2);
        for (int64_t l = 0; l < L; l++) {
            const int moves = sh_number(t, where, g * L + l) > 0 && sh_number(t, d2, l) > t->a.eps * t->a.eps;
            sh_put(t, where, g * L + l, moves);
            moving += moves;
        }
    }
    return moving;
}

/* The values mixed by the last association, after dropout, and what the weights then sum to. */
static void mix_values(sh_trail *t, const sh_crew *crew, const sh_bench *w, const sh_stored *s, const weighing *last,
                       char *out) {
    const int64_t L = t->lanes->lanes, wide = t->wide;
    if (t->a.dropout > 0) {
        sh_drop_factors(t, crew, s, last->list, last->n, w->factor);
        for (int64_t at = 0; at < wide; at += L)
            t->lanes->multiply(sh_at(last->p, t, at), sh_at(w->factor, t, at), last->n, wide, wide);
    }
    sh_lane_mix(t, s, 1, last->list, last->n, last->p, w->z, w->some);
    sh_lanes_to_rows(t, crew, w->z, t->f, t->a.heads * t->f, t->mixed ? t->mixed : out);
    for (int64_t at = 0; t->mass && at < wide; at += L) {
        t->lanes->total(sh_at(last->p, t, at), wide, last->n, w->best);
        for (int64_t l = 0; l < L; l++)
            if (crew->head[at + l] >= 0) sh_put(t, t->mass, crew->number[at + l], sh_number(t, w->best, l));
    }
}

static sh_status tile_forward(sh_context *context, sh_trail *t, sh_bench *w, const sh_stored *stored, int64_t set,
                              int64_t tile, char *out, int keep, int64_t *unsettled) {
    const sh_association *a = &t->a;
    const int64_t wide = t->wide, e = t->e;
    sh_path_of_tile *path = &t->paths[set * t->tiles + tile];
    sh_crew crew;
    if (!sh_crew_at(t, set, tile, &crew)) return SH_OK;
    const sh_stored seen = sh_seen_of(t, &crew, stored, w), *s = &seen;
    _Alignas(64) char beta[SH_MOST_WIDE * sizeof(double)], where[SH_MOST_WIDE * sizeof(double)];
    for (int64_t l = 0; l < wide; l++) {
        sh_put(t, beta, l, crew.head[l] < 0 ? 0 : a->beta[crew.head[l]]);
        sh_put(t, where, l, crew.head[l] >= 0);
    }
    char *u = w->u, *next = w->next;
    /* with one association, weights take the place of the scores: a list's i-th row is never before the i-th row */
    weighing now = {.p = a->steps ? w->p : w->s, .room = w->list}, before = {.p = w->before, .room = w->before_list};
    uint64_t moved[SH_MOST_WIDE / 64] = {0};
    path->last = -1;
    path->used = 0;
    first_state(t, &crew, beta, u);
    if (!t->lanes->finite(u, e * wide)) {
        int64_t l = 0;
        for (int64_t c = 0; c < e * wide; c++)
            if (!isfinite(sh_number(t, u, c))) l = c % wide;
        return sh_fail(context, SH_NOT_FINITE, "queries", crew.number[l] / a->heads);
    }
    for (path->steps = 0;; path->steps++) {
        sh_tile_scores_of(t, w, s, u, NULL, s->rows);
        sh_status status = weigh(context, t, &crew, w, s->rows, &now);
        if (status == SH_OK && keep) status = keep_update(context, t, w, path, a->implicit, u, moved, &now);
        if (status != SH_OK) return status;
        if (path->steps == a->steps) break;
        const int moving = path->steps ? still_moving(t, &now, &before, where) : 1;
        if (!moving) break;
        if (path->steps == SH_MOST_STEPS) {
            *unsettled += moving;
            break;
        }
        if (path->steps % 64 == 63 && sh_stopped(context)) return SH_INTERRUPTED;
        memset(moved, 0, sizeof moved);
        for (int64_t l = 0; l < wide; l++)
            if (sh_number(t, where, l) > 0) {
                moved[l / 64] |= UINT64_C(1) << (l % 64);
                t->made[crew.number[l]]++;
            }
        sh_lane_mix(t, s, 0, now.list, now.n, now.p, w->z, w->some);
        next_state(t, &crew, w, path->steps, where, beta, u, next);
        char *state = u;
        u = next;
        next = state;
        const weighing swap = now;
        now = before;
        before = swap;
    }
    mix_values(t, &crew, w, s, &now, out);
    return SH_OK;
}

/* --- the call ------------------------------------------------------------------------------------- */

typedef struct {
    sh_trail *t;
    char *out;
    int keep;
    _Atomic int64_t unsettled;
} job;

static sh_status item_forward(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    sh_trail *t = j->t;
    const int64_t set = item / t->parts, part = item % t->parts;
    sh_bench w = sh_bench_at(t, 0, scratch);
    sh_stored s;
    sh_status status = sh_stored_of(context, t, set, part == 0, &w, &s);
    int64_t unsettled = 0;
    for (int64_t i = part * t->tiles_of_part; status == SH_OK && i < sh_min((part + 1) * t->tiles_of_part, t->tiles);
         i++) {
        status = sh_stopped(context) ? SH_INTERRUPTED
                                     : tile_forward(context, t, &w, &s, set, i, j->out, j->keep, &unsettled);
    }
    j->unsettled += unsettled;
    return status;
}

/* out = mixed W^T + mass b, head by head */
static sh_status head_values(void *user, int64_t h, void *scratch, sh_context *context) {
    (void)scratch;
    job *j = user;
    const sh_trail *t = j->t;
    const sh_association *a = &t->a;
    const int64_t rows = a->samples * a->queries, H = a->heads, v = a->v;
    const char *bias = sh_at(a->value_map.bias, t, h * v);
    char *out = sh_at(j->out, t, h * v);
    sh_status status = sh_product(context, t->k->gemm_nt, t->k->size, 0, rows, v, t->f, sh_at(t->mixed, t, h * t->f),
                                  H * t->f, sh_at(a->value_map.weight, t, h * v * t->f), t->f, 0, out, H * v);
    if (status != SH_OK) return status;
    for (int64_t i = 0; i < rows; i++) {
        const double mass = sh_number(t, t->mass, i * H + h);
        for (int64_t c = 0; c < v; c++)
            sh_put(t, out, i * H * v + c, sh_number(t, out, i * H * v + c) + mass * sh_number(t, bias, c));
    }
    return SH_OK;
}

sh_status sh_association_forward(sh_context *context, const sh_association *association, void *out, sh_trail **trail,
                                 int64_t *unsettled) {
    sh_trail *t = NULL;
    sh_status status = trail_new(context, association, &t);
    if (status == SH_OK) {
        job j = {.t = t, .out = out, .keep = trail != NULL};
        if (t->lanes_of_set) {
            status = sh_each(context, t->sets * t->parts, sh_bench_size(t, 0), sh_work_of(t), item_forward, &j);
            if (status == SH_OK && t->mixed)
                status =
                    sh_each(context, t->a.heads, 0, sh_work_of(t) / (double)sh_max(t->most_rows, 1), head_values, &j);
        }
        *unsettled = j.unsettled;
    }
    if (status == SH_OK && trail) {
        *trail = t;
        return SH_OK;
    }
    sh_status failure = status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
    sh_trail_free(context, t);
    return failure;
}

/* --- what a trail tells --------------------------------------------------------------------------- */

void sh_association_steps(const sh_trail *t, int64_t *steps) {
    memcpy(steps, t->made, (size_t)(t->a.samples * t->a.queries * t->a.heads) * sizeof *steps);
}

typedef struct {
    const sh_trail *t;
    sh_entries *entries;
    int count; /* only how many entries each query has, into start[1 + row] */
} reading;

static sh_status set_weights(void *user, int64_t set, void *scratch, sh_context *context) {
    const reading *r = user;
    const sh_trail *t = r->t;
    const sh_association *a = &t->a;
    const int64_t L = t->lanes->lanes;
    sh_bench w = sh_bench_at(t, 1, scratch);
    sh_stored stored;
    sh_status status = sh_stored_of(context, t, set, 0, &w, &stored);
    for (int64_t tile = 0; status == SH_OK && tile < t->tiles; tile++) {
        sh_crew crew;
        if (!sh_crew_at(t, set, tile, &crew)) continue;
        const sh_path_of_tile *path = &t->paths[set * t->tiles + tile];
        const sh_visit v = sh_visit_at(t, path, path->last);
        const sh_stored s = sh_seen_of(t, &crew, &stored, &w);
        sh_scores_again(t, &w, &s, &v);
        for (int64_t at = 0; at < t->wide; at += L)
            t->map->weights(sh_at(w.s, t, at), t->wide, NULL, v.n, t->parameter, sh_at(v.th, t, 2 * at),
                            sh_at(w.p, t, at), t->wide);
        for (int64_t l = 0; l < t->wide; l++) {
            if (crew.head[l] < 0) continue;
            const int64_t row = (crew.sample[l] * a->heads + crew.head[l]) * a->queries + crew.query[l];
            int64_t to = r->count ? 0 : r->entries->start[row];
            for (int64_t i = 0; i < v.n; i++) {
                const double p = sh_number(t, w.p, i * t->wide + l);
                if (p == 0) continue;
                if (!r->count) {
                    const int64_t j = sh_row_of(t, &s, v.list, i, l);
                    r->entries->position[to] = s.position && !s.own ? s.position[j] : j;
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

sh_status sh_association_weights(sh_context *context, const sh_trail *t, sh_entries *entries) {
    const int64_t rows = t->a.samples * t->a.queries * t->a.heads;
    *entries = (sh_entries){.n = rows};
    reading r = {.t = t, .entries = entries, .count = 1};
    sh_status status = SH_NO_MEMORY;
    if ((entries->start = sh_allocate(context, rows + 1, sizeof(int64_t)))) {
        memset(entries->start, 0, (size_t)(rows + 1) * sizeof(int64_t));
        status = t->lanes_of_set ? sh_for_each(context, t->sets, sh_bench_size(t, 1), set_weights, &r) : SH_OK;
    }
    for (int64_t i = 0; status == SH_OK && i < rows; i++) entries->start[i + 1] += entries->start[i];
    if (status == SH_OK) {
        const int64_t n = entries->start[rows];
        entries->position = sh_allocate(context, n + 1, sizeof(int64_t));
        entries->score = sh_allocate(context, n + 1, sizeof(double));
        entries->weight = sh_allocate(context, n + 1, sizeof(double));
        r.count = 0;
        status = !entries->position || !entries->score || !entries->weight ? SH_NO_MEMORY
                 : t->lanes_of_set ? sh_for_each(context, t->sets, sh_bench_size(t, 1), set_weights, &r)
                                   : SH_OK;
    }
    if (status != SH_OK) sh_entries_free(context, entries);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
