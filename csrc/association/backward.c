/* backward.c: the gradients of the association, from its trail (sparsehopfield_layers.h).
 *
 * With u = beta x, s = k u, p = separation(s) and dp given:  ds = vjp(dp),  dk_j += ds_j u,  dx = beta sum_j ds_j k_j,
 * dbeta = <ds, k x>. The last association has dp_j = <value_j, g> and dvalue_j += p_j g; an update z = sum_j p_j k_j has
 * dp_j = <k_j, dz> and dk_j += p_j dz. Weights are not kept: scores are computed again for the rows that had weight, and
 * the thresholds give the weights.
 *
 * Gradients of stored rows are summed by the items of work, each in memory of its own, and then in order of the items:
 * the same bits for any size of threads.
 *
 * With a key_map an update is z -> W^T (W z + b): the tiles carry gradients through W^T W and keep them (`grad_states`), and
 * the gradients of W and b are a few products of small matrices at the end. */
#include "association/tape.h"
#include "association/implicit.h"
#include <string.h>

enum { ROWS_OF_ITEM = 1024 };

typedef struct {
    const sh_tape *t;
    const sh_gradients *out;
    const char *grad_out;   /* the gradient in out */
    char *grad_mixed;       /* in the mixtures: the same, or pulled back through the value_map */
    char *grad_weight_sums; /* (B, N, H) or NULL */
    char *grad_states;      /* (steps + 1, B, N, H, e) gradients of the states, with a key_map */
    /* Where a set has several parts, (sets, kept, most_rows, padded) of the last `kept` of them: with `direct` all but
     * the first, else all. Where tiles see some rows, of each part those that it may see: (sets, part_offset[parts], padded) */
    char *dkey, *dvalue;
    int64_t separate_parts;
    int wants_rows;
    int direct; /* gradients of rows grow where they belong: of large sets, where whole vectors fit */
} job;

/* --- one association of a tile -------------------------------------------------------------------- */

/* w->s: the weights, compact; w->g: from the gradient in the weights to that in the scores. */
static void through_map(const sh_tape *t, const sh_scratch *w, const sh_taped_update *v) {
    const int64_t L = t->lanes->lanes;
    const sh_lane_call call = sh_map_call(t, w);
    for (int64_t g = 0; g < t->vectors; g++)
        sh_lane_vjp(&call, sh_at(w->s, t, g * L), sh_at(w->g, t, g * L), t->width, v->n,
                    v->th + (size_t)(2 * g * L) * t->lanes->size);
}

/* From w->g, the gradient in the scores: that in u (into w->x), and in keys and beta, where wanted. */
static void through_scores(const job *j, const sh_tile_queries *q, const sh_scratch *w, const sh_stored_rows *s,
                           const sh_taped_update *v) {
    const sh_tape *t = j->t;
    const int64_t L = t->lanes->lanes;
    sh_mix_tile(t, s, 0, v->list, v->n, w->g, w->x, w->gathered);
    if (j->wants_rows) sh_outer_tile(t, s, 0, w->g, v->list, v->n, v->u, w);
    for (int64_t at = 0; j->out->beta && at < t->width; at += L) {
        t->lanes->inner(sh_at(w->x, t, at), sh_at(v->u, t, at), t->width, t->e, w->per_query);
        for (int64_t l = at; l < at + L; l++)
            if (q->head[l] >= 0) j->out->beta[q->number[l]] += sh_get(t, w->per_query, l - at) / t->a.beta[q->head[l]];
    }
}

/* Through the mixture of keys by the weights of this update, from the gradient in the mixture (w->z): that in u into w->x;
 * those of keys and beta grow. */
static void through_update(const job *j, const sh_tile_queries *q, const sh_scratch *w, const sh_stored_rows *s,
                           const sh_taped_update *v) {
    const sh_tape *t = j->t;
    sh_score_tile_again(t, w, s, v);
    sh_dot_tile(t, s, 0, v->list, v->n, w->z, w->g, w->gathered);
    through_map(t, w, v);
    if (j->wants_rows) sh_outer_tile(t, s, 0, w->s, v->list, v->n, w->z, w);
    through_scores(j, q, w, s, v);
}

/* Through the values mixed by the last association, from the gradient in the mixture: that in u into w->x; those of
 * values, keys and beta grow. */
static void through_values(const job *j, const sh_tile_queries *q, const sh_scratch *w, const sh_stored_rows *s,
                           const sh_taped_update *v) {
    const sh_tape *t = j->t;
    const int64_t L = t->lanes->lanes, width = t->width;
    sh_rows_to_lanes(t, q, j->grad_mixed, t->f, w->z);
    sh_score_tile_again(t, w, s, v);
    sh_dot_tile(t, s, 1, v->list, v->n, w->z, w->g, w->gathered);
    for (int64_t at = 0; j->grad_weight_sums && at < width; at += L) {
        for (int64_t l = 0; l < L; l++)
            sh_put(t, w->per_query, l, q->head[at + l] < 0 ? 0 : sh_get(t, j->grad_weight_sums, q->number[at + l]));
        t->lanes->add(sh_at(w->g, t, at), w->per_query, NULL, v->n, width, 0);
    }
    const int drops = t->a.dropout > 0;
    if (drops) sh_dropout_factors(t, q, s, v->list, v->n, w->factor);
    for (int64_t at = 0; drops && at < width; at += L)
        t->lanes->multiply(sh_at(w->g, t, at), sh_at(w->factor, t, at), v->n, width, width);
    through_map(t, w, v);
    /* the weights are needed no more: through_scores begins at w->g */
    for (int64_t at = 0; drops && j->wants_rows && at < width; at += L)
        t->lanes->multiply(sh_at(w->s, t, at), sh_at(w->factor, t, at), v->n, width, width);
    if (j->wants_rows) sh_outer_tile(t, s, 1, w->s, v->list, v->n, w->z, w);
    through_scores(j, q, w, s, v);
}

/* --- a tile --------------------------------------------------------------------------------------- */

/* Gradients of the rows that a tile sees grow in place where they are a range, else beside: then they are added. */
static int64_t first_of_part(const sh_tape *t, int64_t tile) {
    return t->parts > 1 ? t->part_first[tile / t->tiles_of_part] : 0;
}

static void begin_visible_gradients(const sh_tape *t, const sh_stored_rows *s, int64_t tile, sh_scratch *w) {
    if (s->start >= 0) {
        const int64_t at = s->start - first_of_part(t, tile);
        w->dkey = sh_at(w->dkey, t, at * w->dkey_ld);
        w->dvalue = sh_at(w->dvalue, t, at * w->dvalue_ld);
        w->dkey_ld *= s->stride;
        w->dvalue_ld *= s->stride;
        return;
    }
    w->dkey = w->dkey_visible;
    w->dvalue = w->dvalue_visible;
    memset(w->dkey, 0, (size_t)(s->rows * w->dkey_ld) * t->lanes->size);
    memset(w->dvalue, 0, (size_t)(s->rows * w->dvalue_ld) * t->lanes->size);
}

static void add_visible_gradients(const sh_tape *t, const sh_stored_rows *s, int64_t tile, const sh_scratch *of_set,
                                  const sh_scratch *w) {
    const int64_t first = first_of_part(t, tile);
    for (int64_t i = 0; s->start < 0 && i < s->rows; i++) {
        const int64_t at = s->position[i] - first;
        t->lanes->add_rows(sh_at(of_set->dkey, t, at * w->dkey_ld), sh_at(w->dkey, t, i * w->dkey_ld), w->dkey_ld);
        t->lanes->add_rows(sh_at(of_set->dvalue, t, at * w->dvalue_ld), sh_at(w->dvalue, t, i * w->dvalue_ld),
                           w->dvalue_ld);
    }
}

/* out = a factor where `moved` is above 0, else `otherwise`; all (e x width) */
static void select_lanes(const sh_tape *t, const char *moved, const char *a, const char *factor, const char *otherwise,
                         char *out) {
    for (int64_t at = 0; at < t->width; at += t->lanes->lanes)
        t->lanes->choose(sh_at(moved, t, at), sh_at(a, t, at), sh_at(factor, t, at), sh_at(otherwise, t, at), t->e,
                         sh_at(out, t, at), t->width);
}

static sh_status tile_backward(sh_context *context, job *j, const sh_scratch *of_set, const sh_stored_rows *stored,
                               int64_t set, int64_t tile) {
    const sh_tape *t = j->t;
    const sh_association *a = &t->a;
    const int64_t width = t->width, e = t->e, all = a->samples * a->queries * a->heads;
    const size_t bytes = (size_t)(e * width) * t->lanes->size;
    const sh_tile_tape *tape = &t->tile_tapes[set * t->tiles + tile];
    sh_tile_queries q;
    if (!sh_queries_of_tile(t, set, tile, &q)) return SH_OK;
    const sh_stored_rows visible = sh_visible_rows(t, &q, stored, of_set), *s = &visible;
    sh_scratch local = *of_set, *w = &local;
    if (t->restricted && j->wants_rows) begin_visible_gradients(t, s, tile, w);
    _Alignas(64) char beta[SH_MOST_WIDTH * sizeof(double)], moved[SH_MOST_WIDTH * sizeof(double)],
        one[SH_MOST_WIDTH * sizeof(double)];
    for (int64_t l = 0; l < width; l++) {
        sh_put(t, beta, l, q.head[l] < 0 ? 0 : a->beta[q.head[l]]);
        sh_put(t, one, l, 1);
    }
    char *state = w->u, *zeros = w->next; /* the gradient in the state x */
    memset(zeros, 0, bytes);
    sh_taped_update v = sh_read_update(t, tape, tape->last);
    through_values(j, &q, w, s, &v);
    select_lanes(t, one, w->x, beta, w->x, state);
    if (a->implicit && tape->steps) {
        sh_score_tile_again(t, w, s, &v);
        const sh_lane_call call = sh_map_call(t, w);
        for (int64_t at = 0; at < width; at += t->lanes->lanes)
            sh_lane_weights(&call, sh_at(w->s, t, at), width, v.n, sh_at(v.th, t, 2 * at), sh_at(w->s, t, at), width);
        sh_status status = sh_solve_fixed_points(context, t, &q, s, w->s, v.list, v.n, state, w->z);
        if (status != SH_OK) return status;
        through_update(j, &q, w, s, &v);
        memset(state, 0, bytes); /* where the query began has no influence */
    }
    for (int64_t step = tape->steps - 1; !a->implicit && step >= 0; step--) {
        for (int64_t l = 0; l < width; l++) sh_put(t, moved, l, v.header->moved[l / 64] >> (l % 64) & 1);
        /* a query that did not move passes its gradient on */
        char *mixture = j->grad_states ? w->x : w->z;
        select_lanes(t, moved, state, one, zeros, mixture);
        if (j->grad_states) {
            char *rows = sh_at(j->grad_states, t, (step + 1) * all * e);
            sh_lanes_to_rows(t, &q, mixture, e, a->heads * e, rows);
            sh_apply_key_map(t, &q, w, mixture, rows, 0, w->z);
        }
        v = sh_read_update(t, tape, v.header->previous);
        through_update(j, &q, w, s, &v);
        select_lanes(t, moved, w->x, beta, state, state);
    }
    if (t->restricted && j->wants_rows) add_visible_gradients(t, s, tile, of_set, w);
    char *first = j->grad_states ? j->grad_states : j->out->query;
    if (first) sh_lanes_to_rows(t, &q, state, e, j->grad_states ? a->heads * e : j->out->query_row, first);
    return SH_OK;
}

/* --- sums over tiles and items -------------------------------------------------------------------- */

/* Where a part of a set has the gradients of its rows. */
static void place_row_gradients(const job *j, sh_scratch *w, const sh_stored_rows *s, int64_t set, int64_t part) {
    const sh_tape *t = j->t;
    const int64_t first = t->parts - j->separate_parts, at = set * j->separate_parts + part - first,
                  heads = t->shared_by_heads ? 1 : t->a.heads;
    if (t->restricted && t->parts > 1) {
        const int64_t row = set * t->part_offset[t->parts] + t->part_offset[part];
        w->dkey = sh_at(j->dkey, t, row * w->dkey_ld);
        w->dvalue = sh_at(j->dvalue, t, row * w->dvalue_ld);
    } else if (part >= first) { /* else in memory of the worker */
        w->dkey = sh_at(j->dkey, t, at * t->most_rows * w->dkey_ld);
        w->dvalue = sh_at(j->dvalue, t, at * t->most_rows * w->dvalue_ld);
    } else if (j->direct) {
        w->dkey_ld = j->out->key_row;
        w->dvalue_ld = j->out->value_row;
        w->dkey = sh_at(j->out->key, t, s->first * w->dkey_ld + set % heads * t->e);
        w->dvalue = sh_at(j->out->value, t, s->first * w->dvalue_ld + set % heads * t->f);
    }
}

/* Gradients of a set's rows to where they belong: those of padded rows stay 0. */
static void store_row_gradients(const job *j, const sh_scratch *w, const sh_stored_rows *s, int64_t set) {
    const sh_tape *t = j->t;
    const int64_t heads = t->shared_by_heads ? 1 : t->a.heads, h = set % heads;
    const struct {
        char *to, *from;
        int64_t d, row, ld;
    } both[2] = {{j->out->key, w->dkey, t->e, j->out->key_row, w->dkey_ld},
                 {j->out->value, w->dvalue, t->f, j->out->value_row, w->dvalue_ld}};
    for (int i = 0; i < 2; i++)
        for (int64_t r = 0; both[i].to && r < s->rows; r++)
            memcpy(sh_at(both[i].to, t, (s->first + (s->position ? s->position[r] : r)) * both[i].row + h * both[i].d),
                   sh_at(both[i].from, t, r * both[i].ld), (size_t)both[i].d * t->lanes->size);
}

static sh_status item_backward(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    const sh_tape *t = j->t;
    const int64_t set = item / t->parts, part = item % t->parts;
    sh_scratch w = sh_scratch_at(t, 1, scratch);
    sh_stored_rows s;
    sh_status status = sh_rows_of_set(context, t, set, 0, &w, &s);
    place_row_gradients(j, &w, &s, set, part);
    const int64_t rows = t->restricted && t->parts > 1 ? t->part_offset[part + 1] - t->part_offset[part] : s.rows;
    for (int64_t r = 0; j->wants_rows && r < rows; r++) {
        memset(sh_at(w.dkey, t, r * w.dkey_ld), 0, (size_t)sh_padded(t, t->e) * t->lanes->size);
        memset(sh_at(w.dvalue, t, r * w.dvalue_ld), 0, (size_t)sh_padded(t, t->f) * t->lanes->size);
    }
    for (int64_t i = part * t->tiles_of_part; status == SH_OK && i < sh_min((part + 1) * t->tiles_of_part, t->tiles);
         i++)
        status = sh_stopped(context) ? SH_INTERRUPTED : tile_backward(context, j, &w, &s, set, i);
    if (status == SH_OK && j->wants_rows && !j->direct && t->parts == 1) store_row_gradients(j, &w, &s, set);
    return status;
}

/* The parts of one set, summed in order. */
static sh_status sum_parts_of_set(void *user, int64_t set, void *scratch, sh_context *context) {
    job *j = user;
    const sh_tape *t = j->t;
    sh_scratch w = sh_scratch_at(t, 1, scratch), more = w;
    sh_stored_rows s;
    sh_status status = sh_rows_of_set(context, t, set, 0, &w, &s);
    place_row_gradients(j, &w, &s, set, 0);
    for (int64_t part = 1; part < t->parts; part++) {
        place_row_gradients(j, &more, &s, set, part);
        for (int64_t r = 0; r < s.rows; r++) {
            t->lanes->add_rows(sh_at(w.dkey, t, r * w.dkey_ld), sh_at(more.dkey, t, r * more.dkey_ld),
                               sh_padded(t, t->e));
            t->lanes->add_rows(sh_at(w.dvalue, t, r * w.dvalue_ld), sh_at(more.dvalue, t, r * more.dvalue_ld),
                               sh_padded(t, t->f));
        }
    }
    if (status == SH_OK && !j->direct) store_row_gradients(j, &w, &s, set);
    return status;
}

/* Some rows of one set, of what the parts that may see them have; rows that are in no part's reach get 0. */
static void add_row(const sh_tape *t, char *to, const char *from, int64_t d) {
    const int64_t whole = d / t->lanes->lanes * t->lanes->lanes;
    t->lanes->add_rows(to, from, whole);
    for (int64_t c = whole; c < d; c++) sh_put(t, to, c, sh_get(t, to, c) + sh_get(t, from, c));
}

static sh_status sum_parts_of_rows(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const job *j = user;
    const sh_tape *t = j->t;
    const sh_association *a = &t->a;
    const int64_t pieces = sh_ceil_div(t->most_rows, ROWS_OF_ITEM), heads = t->shared_by_heads ? 1 : a->heads;
    const int64_t set = item / pieces, begin = item % pieces * ROWS_OF_ITEM, b = set / heads, h = set % heads;
    const int64_t rows = a->offsets ? a->offsets[b + 1] - a->offsets[b] : a->stored;
    const int64_t above = a->offsets ? a->offsets[b] : a->key.sample ? b * a->stored : 0;
    const int64_t end = sh_min(begin + ROWS_OF_ITEM, rows);
    const struct {
        char *to, *from;
        int64_t d, row, ld;
    } both[2] = {{j->out->key, j->dkey, t->e, j->out->key_row, sh_padded(t, t->e)},
                 {j->out->value, j->dvalue, t->f, j->out->value_row, sh_padded(t, t->f)}};
    for (int i = 0; i < 2; i++) {
        if (!both[i].to) continue;
        char *to = sh_at(both[i].to, t, above * both[i].row + h * both[i].d);
        for (int64_t r = begin; r < end; r++)
            memset(sh_at(to, t, r * both[i].row), 0, (size_t)both[i].d * t->lanes->size);
        for (int64_t part = 0; part < t->parts; part++) {
            const int64_t first = t->part_first[part], last = first + t->part_offset[part + 1] - t->part_offset[part];
            const char *from =
                sh_at(both[i].from, t, (set * t->part_offset[t->parts] + t->part_offset[part]) * both[i].ld);
            for (int64_t r = sh_max(begin, first); r < sh_min(end, last); r++)
                add_row(t, sh_at(to, t, r * both[i].row), sh_at(from, t, (r - first) * both[i].ld), both[i].d);
        }
    }
    return SH_OK;
}

/* --- projections ---------------------------------------------------------------------------------- */

/* Through out = mixed W^T + mass b, of one head: gradients of W and b, and of what was mixed. */
static sh_status head_values(void *user, int64_t h, void *scratch, sh_context *context) {
    (void)scratch;
    job *j = user;
    const sh_tape *t = j->t;
    const sh_association *a = &t->a;
    const int64_t rows = a->samples * a->queries, H = a->heads, v = a->v, f = t->f;
    const char *grad = sh_at(j->grad_out, t, h * v), *weight = sh_at(a->value_map.weight, t, h * v * f);
    const char *bias = sh_at(a->value_map.bias, t, h * v);
    sh_status status = sh_product(context, t->k->gemm_nn, t->k->size, 0, rows, f, v, grad, H * v, weight, f, 0,
                                  sh_at(j->grad_mixed, t, h * f), H * f);
    if (status == SH_OK && j->out->value_weight)
        status = sh_product(context, t->k->gemm_tn, t->k->size, 1, v, f, rows, grad, H * v,
                            sh_at(t->mixed_values, t, h * f), H * f, 0, sh_at(j->out->value_weight, t, h * v * f), f);
    if (status != SH_OK) return status;
    for (int64_t c = 0; j->out->value_bias && c < v; c++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++) sum += sh_get(t, t->weight_sums, i * H + h) * sh_get(t, grad, i * H * v + c);
        sh_put(t, j->out->value_bias, h * v + c, sum);
    }
    for (int64_t i = 0; i < rows; i++) {
        double dot = 0;
        for (int64_t c = 0; c < v; c++) dot += sh_get(t, bias, c) * sh_get(t, grad, i * H * v + c);
        sh_put(t, j->grad_weight_sums, i * H + h, dot);
    }
    return SH_OK;
}

/* Of u_0 = W^T q and u_t = W^T (W z_t + b): gradients of q, W and b of one head, from those of the states. Updates and
 * queries are rows of one matrix each: those of the head lie H e numbers apart. */
static sh_status head_keys(void *user, int64_t h, void *scratch, sh_context *context) {
    job *j = user;
    const sh_tape *t = j->t;
    const sh_association *a = &t->a;
    const int64_t first = a->samples * a->queries, later = a->steps * first, H = a->heads, d = a->d, e = t->e;
    const char *weight = sh_at(a->key_map.weight, t, h * d * e), *bias = sh_at(a->key_map.bias, t, h * d);
    const char *du = sh_at(j->grad_states, t, h * e), *z = later ? sh_at(t->mixtures, t, h * e) : NULL;
    char *q = scratch, *later_q = sh_at(q, t, first * d), *dq = sh_at(later_q, t, later * d);
    const char *later_dq = sh_at(dq, t, first * d);
    sh_status status =
        sh_product(context, t->k->gemm_nt, t->k->size, 0, first + later, d, e, du, H * e, weight, e, 0, dq, d);
    for (int64_t i = 0; i < first; i++) {
        const int64_t b = i / a->queries, n = i % a->queries;
        memcpy(sh_at(q, t, i * d), sh_at(a->query.data, t, b * a->query.sample + n * a->query.row + h * a->query.head),
               (size_t)d * t->lanes->size);
        if (j->out->query)
            memcpy(sh_at(j->out->query, t, i * j->out->query_row + h * d), sh_at(dq, t, i * d),
                   (size_t)d * t->lanes->size);
    }
    for (int64_t i = 0; i < later; i++) memcpy(sh_at(later_q, t, i * d), bias, (size_t)d * t->lanes->size);
    if (later && status == SH_OK)
        status = sh_product(context, t->k->gemm_nt, t->k->size, 0, later, d, e, z, H * e, weight, e, 1, later_q, d);
    if (j->out->key_weight && status == SH_OK) {
        char *dweight = sh_at(j->out->key_weight, t, h * d * e);
        status = sh_product(context, t->k->gemm_tn, t->k->size, 1, d, e, first + later, q, d, du, H * e, 0, dweight, e);
        if (later && status == SH_OK)
            status =
                sh_product(context, t->k->gemm_tn, t->k->size, 1, d, e, later, later_dq, d, z, H * e, 1, dweight, e);
    }
    if (j->out->key_bias) {
        char *dbias = sh_at(j->out->key_bias, t, h * d);
        t->lanes->sum_rows(later_dq, d, later, d, dbias);
    }
    return status;
}

/* --- the call ------------------------------------------------------------------------------------- */

sh_status sh_association_backward(sh_context *context, const sh_tape *t, const void *grad,
                                  const sh_gradients *gradients) {
    const sh_association *a = &t->a;
    const size_t size = t->lanes->size;
    const int64_t all = a->samples * a->queries * a->heads;
    const int64_t rows =
        a->offsets ? a->offsets[a->samples] : a->stored * (a->key.sample ? a->samples : a->samples > 0);
    const int64_t heads = t->shared_by_heads ? 1 : a->heads;
    job j = {.t = t,
             .out = gradients,
             .grad_out = grad,
             .grad_mixed = (char *)grad,
             .wants_rows = gradients->key || gradients->value};
    sh_status status = SH_NO_MEMORY;
    char *mixed = NULL;
    /* what no query has looked at has no gradient */
    for (int64_t r = 0; (a->padding || !t->lanes_of_set) && r < rows; r++) {
        if (gradients->key) memset(sh_at(gradients->key, t, r * gradients->key_row), 0, (size_t)(heads * t->e) * size);
        if (gradients->value)
            memset(sh_at(gradients->value, t, r * gradients->value_row), 0, (size_t)(heads * t->f) * size);
    }
    if (gradients->beta) memset(gradients->beta, 0, (size_t)all * sizeof(double));
    if (t->mixed_values) {
        mixed = sh_allocate(context, all * t->f, size);
        j.grad_weight_sums = sh_allocate(context, all, size);
        if (!mixed || !j.grad_weight_sums) goto end;
        j.grad_mixed = mixed;
        if ((status = sh_each(context, a->heads, 0, sh_work_of(t) / (double)sh_max(t->most_rows, 1), head_values,
                              &j)) != SH_OK)
            goto end;
        status = SH_NO_MEMORY;
    }
    if (a->key_map.weight) {
        const int64_t count = (a->steps + 1) * all * t->e;
        if (!(j.grad_states = sh_allocate(context, count, size))) goto end;
        memset(j.grad_states, 0, (size_t)count * size);
    }
    j.direct = t->vectors > 1 && gradients->key && gradients->value && !a->padding && sh_padded(t, t->e) == t->e &&
               sh_padded(t, t->f) == t->f;
    if (j.wants_rows && t->parts > 1) {
        j.separate_parts = t->parts - j.direct;
        const int64_t rows_of_set = t->restricted ? t->part_offset[t->parts] : j.separate_parts * t->most_rows;
        j.dkey = sh_allocate(context, t->sets * rows_of_set * sh_padded(t, t->e), size);
        j.dvalue = sh_allocate(context, t->sets * rows_of_set * sh_padded(t, t->f), size);
        if (!j.dkey || !j.dvalue) goto end;
    }
    status = SH_OK;
    if (t->lanes_of_set)
        status = sh_each(context, t->sets * t->parts, sh_scratch_size(t, 1), 2 * sh_work_of(t), item_backward, &j);
    if (status == SH_OK && j.dkey && t->lanes_of_set && t->restricted)
        status = sh_for_each(context, t->sets * sh_ceil_div(t->most_rows, ROWS_OF_ITEM), 0, sum_parts_of_rows, &j);
    else if (status == SH_OK && j.dkey && t->lanes_of_set)
        status = sh_for_each(context, t->sets, sh_scratch_size(t, 1), sum_parts_of_set, &j);
    if (status == SH_OK && a->key_map.weight)
        status = sh_each(context, a->heads, (size_t)(2 * (a->steps + 1) * a->samples * a->queries * a->d + 1) * size,
                         sh_work_of(t), head_keys, &j);
end:
    sh_release(context, mixed);
    sh_release(context, j.grad_weight_sums);
    sh_release(context, j.grad_states);
    sh_release(context, j.dkey);
    sh_release(context, j.dvalue);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
