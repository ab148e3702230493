/* backward.c: the gradients of an association, from its tape (tape.h).
 *
 * With u = beta x, s = k u and p = separation(s), the gradient dp in the weights gives
 *
 *     ds = vjp(dp)    dk_j += ds_j u    dx = beta sum_j ds_j k_j    dbeta = <ds, k x>
 *
 * The output sum_j p_j v_j with the gradient g has dp_j = <v_j, g> and dv_j += p_j g. An update z = sum_j p_j k_j with
 * the gradient dz has dp_j = <k_j, dz> and dk_j += p_j dz. Weights are not on the tape: the scores of the listed rows
 * are computed again, and their weights from the thresholds.
 *
 * Each part of a set sums the gradients of stored rows in memory of its own. These sums are added in order of the
 * parts: the same bits for any number of threads.
 *
 * With a key_map an update is z -> W^T (W z + b). The tiles pass gradients through W^T W and store them
 * (`grad_states`); a few products of small matrices give the gradients of W and b at the end. */
#include "association/tape.h"
#include "association/implicit.h"
#include <string.h>

enum { ROWS_OF_ITEM = 1024, ROWS_OF_SUM = 256 };

typedef struct {
    const sh_tape *t;
    const sh_gradients *out;
    sh_matrix rows[SH_SIDES]; /* where gradients of keys and values go in `out`, data NULL: not wanted */
    int wants_rows;           /* whether either is wanted */
    const char *grad_out;     /* (B, N, H, v) gradient in the output */
    char *grad_mixed;         /* (B, N, H, f) gradient in the mixed values: grad_out, but with a value_map */
    char *grad_weight_sums;   /* with a value_map, else NULL: (B, N, H) gradient in the sums of weights */
    char *grad_states;        /* with a key_map, else NULL: (steps + 1, B, N, H, e) gradients in the states */
    int direct; /* whether a set's first part sums in `out`: where rows are whole vectors, of large sets */
    /* Sums of the last `separate_parts` parts of each set, (sets, separate_parts, most_rows, padded features); under a
     * structure of the rows that each part may see, (sets, part_offset[parts], padded features). */
    char *parts[SH_SIDES];
    int64_t separate_parts;
} job;

/* --- one update of a tile ------------------------------------------------------------------------- */

/* Turns the scores w->s into weights, and the gradient w->g in the weights into the gradient in the scores. */
static void through_map(const sh_tape *t, const sh_scratch *w, const sh_taped_update *update) {
    const int64_t L = t->lanes->lanes;
    const sh_lane_call call = sh_map_call(t, w);
    for (int64_t g = 0; g < t->vectors; g++)
        sh_lane_vjp(&call, sh_at(w->s, t, g * L), sh_at(w->g, t, g * L), t->width, update->n,
                    update->th + (size_t)(2 * g * L) * t->lanes->size);
}

/* Passes the gradient in the scores (w->g) back to u (w->x), and adds to the gradients of keys and beta. */
static void through_scores(const job *j, const sh_tile_queries *q, const sh_scratch *w, const sh_stored_rows *s,
                           const sh_taped_update *update) {
    const sh_tape *t = j->t;
    const int64_t L = t->lanes->lanes;
    sh_mix_tile(t, s, SH_KEYS, update->list, update->n, w->g, w->x, w->gathered);
    if (j->wants_rows) sh_outer_tile(t, s, SH_KEYS, w->g, update->list, update->n, update->u, w);
    for (int64_t at = 0; j->out->beta && at < t->width; at += L) {
        t->lanes->inner(sh_at(w->x, t, at), sh_at(update->u, t, at), t->width, t->e, w->per_query);
        for (int64_t l = at; l < at + L; l++)
            if (q->head[l] >= 0) j->out->beta[q->number[l]] += sh_get(t, w->per_query, l - at) / t->a.beta[q->head[l]];
    }
}

/* Passes the gradient in the mixture of an update (w->z) back to its u (w->x), and adds to those of keys and beta. */
static void through_update(const job *j, const sh_tile_queries *q, const sh_scratch *w, const sh_stored_rows *s,
                           const sh_taped_update *update) {
    const sh_tape *t = j->t;
    sh_score_tile_again(t, w, s, update);
    sh_dot_tile(t, s, SH_KEYS, update->list, update->n, w->z, w->g, w->gathered);
    through_map(t, w, update);
    if (j->wants_rows) sh_outer_tile(t, s, SH_KEYS, w->s, update->list, update->n, w->z, w);
    through_scores(j, q, w, s, update);
}

/* Passes the gradient in the mixed values back to the last u (w->x), and adds to those of values, keys and beta. */
static void through_values(const job *j, const sh_tile_queries *q, const sh_scratch *w, const sh_stored_rows *s,
                           const sh_taped_update *update) {
    const sh_tape *t = j->t;
    const int64_t L = t->lanes->lanes, width = t->width;
    sh_rows_to_lanes(t, q, sh_rows_of_queries(t, j->grad_mixed, t->a.heads * t->f, t->f), t->f, NULL, w->z);
    sh_score_tile_again(t, w, s, update);
    sh_dot_tile(t, s, SH_VALUES, update->list, update->n, w->z, w->g, w->gathered);
    for (int64_t at = 0; j->grad_weight_sums && at < width; at += L) {
        for (int64_t l = 0; l < L; l++)
            sh_put(t, w->per_query, l, q->head[at + l] < 0 ? 0 : sh_get(t, j->grad_weight_sums, q->number[at + l]));
        t->lanes->add(sh_at(w->g, t, at), w->per_query, NULL, update->n, width, 0);
    }
    const int drops = t->a.dropout > 0;
    if (drops) sh_dropout_factors(t, q, s, update->list, update->n, w->factor);
    if (drops) sh_multiply_tile(t, w->g, w->factor, update->n);
    through_map(t, w, update);
    if (drops && j->wants_rows) sh_multiply_tile(t, w->s, w->factor, update->n);
    if (j->wants_rows) sh_outer_tile(t, s, SH_VALUES, w->s, update->list, update->n, w->z, w);
    through_scores(j, q, w, s, update);
}

/* --- a tile --------------------------------------------------------------------------------------- */

/* Points w->gradient at the rows that a tile sees. Those of a stretch lie among the rows of its part, from `first` on;
 * as do rows per lane, which are named by their numbers in the set; scattered ones in memory of their own. */
static void begin_visible_gradients(const sh_tape *t, const sh_stored_rows *s, int64_t first, sh_scratch *w) {
    for (int i = 0; i < SH_SIDES; i++) {
        sh_matrix *m = &w->gradient[i];
        if (s->start >= 0) {
            assert(s->start >= first || s->per_lane);
            m->data = sh_at(m->data, t, (s->start - first) * m->ld);
            m->ld *= s->stride;
        } else {
            m->data = w->gradient_visible[i];
            memset(m->data, 0, (size_t)(s->rows * m->ld) * t->lanes->size);
        }
    }
}

/* Adds the gradients of scattered rows to those of the part. */
static void add_visible_gradients(const sh_tape *t, const sh_stored_rows *s, int64_t first, const sh_scratch *of_part,
                                  const sh_scratch *w) {
    for (int side = 0; s->start < 0 && side < SH_SIDES; side++)
        for (int64_t i = 0; i < s->rows; i++) {
            const sh_matrix *to = &of_part->gradient[side], *from = &w->gradient[side];
            assert(s->position[i] >= first && s->position[i] < t->most_rows);
            t->lanes->add_rows(sh_at(to->data, t, (s->position[i] - first) * to->ld),
                               sh_at(from->data, t, i * from->ld), to->ld);
        }
}

/* Passes the gradient in the output of a tile back to its queries, and adds those of rows and beta. */
static sh_status tile_backward(sh_context *context, job *j, const sh_scratch *of_part, const sh_stored_rows *stored,
                               int64_t set, int64_t tile) {
    const sh_tape *t = j->t;
    const sh_association *a = &t->a;
    const int64_t width = t->width, e = t->e, all = a->samples * a->queries * a->heads;
    const size_t bytes = (size_t)(e * width) * t->lanes->size;
    const sh_tile_tape *tape = &t->tile_tapes[set * t->tiles + tile];
    sh_tile_queries q;
    if (!sh_queries_of_tile(t, set, tile, &q)) return SH_OK;
    const sh_stored_rows visible = sh_visible_rows(t, &q, stored, of_part), *s = &visible;
    sh_scratch local = *of_part, *w = &local;
    const int64_t first_row = t->restricted && t->parts > 1 ? t->part_first[tile / t->tiles_of_part] : 0;
    if (t->restricted && j->wants_rows) begin_visible_gradients(t, s, first_row, w);
    _Alignas(64) char beta[SH_MOST_WIDTH * sizeof(double)], moved[SH_MOST_WIDTH * sizeof(double)],
        one[SH_MOST_WIDTH * sizeof(double)];
    for (int64_t l = 0; l < width; l++) {
        sh_put(t, beta, l, q.head[l] < 0 ? 0 : a->beta[q.head[l]]);
        sh_put(t, one, l, 1);
    }
    char *dx = w->u, *zeros = w->next; /* gradient in the state x */
    memset(zeros, 0, bytes);
    const sh_taped_update *update = tape->last;
    through_values(j, &q, w, s, update);
    sh_choose_lanes(t, one, w->x, beta, w->x, dx);
    if (a->implicit && tape->steps) {
        sh_score_tile_again(t, w, s, update);
        const sh_lane_call call = sh_map_call(t, w);
        for (int64_t at = 0; at < width; at += t->lanes->lanes)
            sh_lane_weights(&call, sh_at(w->s, t, at), width, update->n, sh_at(update->th, t, 2 * at),
                            sh_at(w->s, t, at), width);
        sh_status status = sh_solve_fixed_points(context, t, &q, s, w->s, update->list, update->n, dx, w->z);
        if (status != SH_OK) return status;
        through_update(j, &q, w, s, update);
        memset(dx, 0, bytes); /* the query has no influence on its fixed point */
    }
    for (int64_t step = tape->steps - 1; !a->implicit && step >= 0; step--) {
        for (int64_t l = 0; l < width; l++) sh_put(t, moved, l, update->moved[l / 64] >> (l % 64) & 1);
        /* a query that did not move passes its gradient on */
        char *mixture = j->grad_states ? w->x : w->z;
        sh_choose_lanes(t, moved, dx, one, zeros, mixture);
        if (j->grad_states) {
            char *rows = sh_at(j->grad_states, t, (step + 1) * all * e);
            sh_lanes_to_rows(t, &q, mixture, e, sh_rows_of_queries(t, rows, a->heads * e, e));
            sh_apply_key_map(t, &q, w, mixture, rows, 0, w->z);
        }
        update = update->previous;
        through_update(j, &q, w, s, update);
        sh_choose_lanes(t, moved, w->x, beta, dx, dx);
    }
    assert(!update->previous);
    if (t->restricted && j->wants_rows) add_visible_gradients(t, s, first_row, of_part, w);
    char *first = j->grad_states ? j->grad_states : j->out->query;
    const int64_t row = j->grad_states ? a->heads * e : j->out->query_row;
    if (first) sh_lanes_to_rows(t, &q, dx, e, sh_rows_of_queries(t, first, row, e));
    return SH_OK;
}

/* --- sums over tiles and parts -------------------------------------------------------------------- */

/* Points w->gradient at the memory where a part of a set sums its rows' gradients; else it is the worker's own. */
static void place_row_gradients(const job *j, sh_scratch *w, const sh_stored_rows *s, int64_t set, int64_t part) {
    const sh_tape *t = j->t;
    const int64_t first = t->parts - j->separate_parts;
    const int64_t row = t->restricted ? set * t->part_offset[t->parts] + t->part_offset[part]
                                      : (set * j->separate_parts + part - first) * t->most_rows;
    for (int i = 0; i < SH_SIDES; i++) {
        sh_matrix *m = &w->gradient[i];
        if (j->parts[i] && part >= first) {
            m->data = sh_at(j->parts[i], t, row * m->ld);
        } else if (j->direct) {
            m->ld = j->rows[i].ld;
            m->data = sh_at(j->rows[i].data, t, s->first * m->ld + set % t->set_heads * m->d);
        }
    }
}

/* Stores the gradients of some of a set's rows where they are wanted. Those of padded rows stay 0. */
static void store_row_gradients(const job *j, const sh_scratch *w, const sh_stored_rows *s, int64_t set, int64_t begin,
                                int64_t end) {
    const sh_tape *t = j->t;
    const int64_t h = set % t->set_heads;
    for (int i = 0; i < SH_SIDES; i++) {
        const sh_matrix *to = &j->rows[i], *from = &w->gradient[i];
        for (int64_t r = begin; to->data && r < end; r++)
            memcpy(sh_at(to->data, t, (s->first + (s->position ? s->position[r] : r)) * to->ld + h * to->d),
                   sh_at(from->data, t, r * from->ld), (size_t)to->d * t->lanes->size);
    }
}

/* Makes the backward pass of one part of a set. */
static sh_status item_backward(void *user, int64_t item, void *scratch, sh_context *context) {
    job *j = user;
    const sh_tape *t = j->t;
    const int64_t set = item / t->parts, part = item % t->parts;
    sh_scratch w;
    sh_lay_out_scratch(t, 1, scratch, &w);
    sh_stored_rows s;
    sh_status status = sh_rows_of_set(context, t, set, 0, &w, &s);
    place_row_gradients(j, &w, &s, set, part);
    const int64_t rows = t->restricted && t->parts > 1 ? t->part_offset[part + 1] - t->part_offset[part] : s.rows;
    for (int i = 0; j->wants_rows && i < SH_SIDES; i++)
        sh_clear_rows(w.gradient[i].data, w.gradient[i].ld, rows, sh_padded(t, w.gradient[i].d), t->lanes->size);
    for (int64_t i = part * t->tiles_of_part; status == SH_OK && i < sh_min((part + 1) * t->tiles_of_part, t->tiles);
         i++)
        status = sh_stopped(context) ? SH_INTERRUPTED : tile_backward(context, j, &w, &s, set, i);
    if (status == SH_OK && j->wants_rows && !j->direct && t->parts == 1) store_row_gradients(j, &w, &s, set, 0, s.rows);
    return status;
}

/* Adds the gradients of some rows of a set in all its parts to those in its first part, in order, and stores them. */
static sh_status sum_parts_of_set(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)context;
    job *j = user;
    const sh_tape *t = j->t;
    const int64_t pieces = sh_ceil_div(t->most_rows, ROWS_OF_SUM), set = item / pieces;
    sh_scratch w, other;
    sh_lay_out_scratch(t, 1, scratch, &w);
    other = w;
    sh_stored_rows s;
    sh_number_rows(t, set, &w, &s);
    const int64_t begin = item % pieces * ROWS_OF_SUM, end = sh_min(begin + ROWS_OF_SUM, s.rows);
    place_row_gradients(j, &w, &s, set, 0);
    for (int64_t part = 1; part < t->parts; part++) {
        place_row_gradients(j, &other, &s, set, part);
        for (int i = 0; i < SH_SIDES; i++)
            for (int64_t r = begin; r < end; r++)
                t->lanes->add_rows(sh_at(w.gradient[i].data, t, r * w.gradient[i].ld),
                                   sh_at(other.gradient[i].data, t, r * other.gradient[i].ld),
                                   sh_padded(t, w.gradient[i].d));
    }
    if (!j->direct) store_row_gradients(j, &w, &s, set, begin, end);
    return SH_OK;
}

/* Adds d numbers to others. */
static void add_row(const sh_tape *t, char *to, const char *from, int64_t d) {
    const int64_t whole = d / t->lanes->lanes * t->lanes->lanes;
    t->lanes->add_rows(to, from, whole);
    for (int64_t c = whole; c < d; c++) sh_put(t, to, c, sh_get(t, to, c) + sh_get(t, from, c));
}

/* Sums, under a structure, the gradients of some rows of a set over the parts that may see them, which may be none. */
static sh_status sum_parts_of_rows(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const job *j = user;
    const sh_tape *t = j->t;
    const int64_t pieces = sh_ceil_div(t->most_rows, ROWS_OF_ITEM), set = item / pieces, h = set % t->set_heads;
    int64_t first_of_sample;
    const int64_t rows = sh_rows_of_sample(&t->a, set / t->set_heads, &first_of_sample);
    const int64_t begin = item % pieces * ROWS_OF_ITEM, end = sh_min(begin + ROWS_OF_ITEM, rows);
    for (int i = 0; i < SH_SIDES; i++) {
        const sh_matrix *m = &j->rows[i];
        if (!m->data) continue;
        const int64_t padded = sh_padded(t, m->d);
        char *to = sh_at(m->data, t, first_of_sample * m->ld + h * m->d);
        for (int64_t r = begin; r < end; r++) memset(sh_at(to, t, r * m->ld), 0, (size_t)m->d * t->lanes->size);
        for (int64_t part = 0; part < t->parts; part++) {
            const int64_t first = t->part_first[part], last = first + t->part_offset[part + 1] - t->part_offset[part];
            const char *from = sh_at(j->parts[i], t, (set * t->part_offset[t->parts] + t->part_offset[part]) * padded);
            for (int64_t r = sh_max(begin, first); r < sh_min(end, last); r++)
                add_row(t, sh_at(to, t, r * m->ld), sh_at(from, t, (r - first) * padded), m->d);
        }
    }
    return SH_OK;
}

/* --- projections ---------------------------------------------------------------------------------- */

/* Passes the gradient of one head back through out = mixed values W^T + sum of weights b, to all four. */
static sh_status value_map_backward(void *user, int64_t h, void *scratch, sh_context *context) {
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

/* Passes the gradients in the states x_0 = W^T q and x_t = W^T (W z_t + b) of one head back to q, W and b. The states
 * of all updates are rows of one matrix, those of a head H e numbers apart. */
static sh_status key_map_backward(void *user, int64_t h, void *scratch, sh_context *context) {
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
    job j = {.t = t,
             .out = gradients,
             .rows = {{gradients->key, gradients->key_row, t->e}, {gradients->value, gradients->value_row, t->f}},
             .grad_out = grad,
             .grad_mixed = (char *)grad,
             .wants_rows = gradients->key || gradients->value};
    sh_status status = SH_NO_MEMORY;
    char *mixed = NULL;
    /* rows that no query sees have no gradient */
    for (int i = 0; (a->padding || !t->lanes_of_set) && i < SH_SIDES; i++)
        if (j.rows[i].data) sh_clear_rows(j.rows[i].data, j.rows[i].ld, rows, t->set_heads * j.rows[i].d, size);
    if (gradients->beta) memset(gradients->beta, 0, (size_t)all * sizeof(double));
    if (t->mixed_values) {
        mixed = sh_allocate(context, all * t->f, size);
        j.grad_weight_sums = sh_allocate(context, all, size);
        if (!mixed || !j.grad_weight_sums) goto end;
        j.grad_mixed = mixed;
        if ((status = sh_each(context, a->heads, 0, sh_work_of(t) / (double)sh_max(t->most_rows, 1), value_map_backward,
                              &j)) != SH_OK)
            goto end;
        status = SH_NO_MEMORY;
    }
    if (a->key_map.weight) {
        const int64_t count = (a->steps + 1) * all * t->e;
        if (!(j.grad_states = sh_allocate(context, count, size))) goto end;
        memset(j.grad_states, 0, (size_t)count * size);
    }
    j.direct = (t->vectors > 1 || (t->parts > 1 && !t->restricted)) && gradients->key && gradients->value &&
               !a->padding && sh_padded(t, t->e) == t->e && sh_padded(t, t->f) == t->f;
    if (j.wants_rows && t->parts > 1) {
        j.separate_parts = t->parts - j.direct;
        const int64_t rows_of_set = t->restricted ? t->part_offset[t->parts] : j.separate_parts * t->most_rows;
        for (int i = 0; i < SH_SIDES; i++)
            if (!(j.parts[i] = sh_allocate(context, t->sets * rows_of_set * sh_padded(t, j.rows[i].d), size))) goto end;
    }
    status = SH_OK;
    if (t->lanes_of_set)
        status = sh_each(context, t->sets * t->parts, sh_scratch_size(t, 1), 2 * sh_work_of(t), item_backward, &j);
    if (status == SH_OK && j.parts[0] && t->lanes_of_set && t->restricted)
        status = sh_for_each(context, t->sets * sh_ceil_div(t->most_rows, ROWS_OF_ITEM), 0, sum_parts_of_rows, &j);
    else if (status == SH_OK && j.parts[0] && t->lanes_of_set)
        status = sh_each(context, t->sets * sh_ceil_div(t->most_rows, ROWS_OF_SUM), sh_scratch_size(t, 1),
                         (double)(t->sets * t->parts * t->most_rows) * (double)(t->e + t->f) * 4, sum_parts_of_set, &j);
    if (status == SH_OK && a->key_map.weight)
        status = sh_each(context, a->heads, (size_t)(2 * (a->steps + 1) * a->samples * a->queries * a->d + 1) * size,
                         sh_work_of(t), key_map_backward, &j);
end:
    sh_release(context, mixed);
    sh_release(context, j.grad_weight_sums);
    sh_release(context, j.grad_states);
    for (int i = 0; i < SH_SIDES; i++) sh_release(context, j.parts[i]);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
