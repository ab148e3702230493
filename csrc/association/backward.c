/* backward.c: the gradients of the association, from its trail (sparsehopfield_layers.h).
 *
 * With u = beta x, s = k u, p = separation(s) and dp given:  ds = vjp(dp),  dk_j += ds_j u,  dx = beta sum_j ds_j k_j,
 * dbeta = <ds, k x>. The last association has dp_j = <value_j, g> and dvalue_j += p_j g; an update z = sum_j p_j k_j has
 * dp_j = <k_j, dz> and dk_j += p_j dz. Weights are not kept: scores are computed again for the rows that had weight, and
 * the thresholds give the weights.
 *
 * Gradients of stored rows are summed by the items of work, each in memory of its own, and then in order of the items:
 * the same bits for any number of threads.
 *
 * With a key_map an update is z -> W^T (W z + b): the tiles carry gradients through W^T W and keep them (`passed`), and
 * the gradients of W and b are a few products of small matrices at the end. */
#include "association/tape.h"
#include "association/implicit.h"
#include <string.h>

enum { SOME_ROWS = 1024 };

typedef struct {
    const sh_trail *t;
    const sh_gradients *out;
    const char *given;  /* the gradient in out */
    char *grad;         /* in the mixtures: the same, or pulled back through the value_map */
    char *grad_of_mass; /* (B, N, H) or NULL */
    char *passed;       /* (steps + 1, B, N, H, e) gradients of the states, with a key_map */
    /* Where a set has several parts, (sets, kept, most_rows, padded) of the last `kept` of them: with `direct` all but
     * the first, else all. Where tiles see some rows, of each part those that it may see: (sets, part_at[parts], padded) */
    char *dkey, *dvalue;
    int64_t kept;
    int wants_rows;
    int direct; /* gradients of rows grow where they belong: of large sets, where whole vectors fit */
} job;

/* --- one association of a tile -------------------------------------------------------------------- */

/* w->s: the weights, compact; w->g: from the gradient in the weights to that in the scores. */
static void through_map(const sh_trail *t, const sh_bench *w, const sh_visit *v) {
    const int64_t L = t->lanes->lanes;
    for (int64_t g = 0; g < t->groups; g++)
        t->map->vjp(sh_at(w->s, t, g * L), sh_at(w->g, t, g * L), t->wide, v->n, t->parameter,
                    v->th + (size_t)(2 * g * L) * t->lanes->size);
}

/* From w->g, the gradient in the scores: that in u (into w->x), and in keys and beta, where wanted. */
static void from_scores(const job *j, const sh_crew *crew, const sh_bench *w, const sh_stored *s, const sh_visit *v) {
    const sh_trail *t = j->t;
    const int64_t L = t->lanes->lanes;
    sh_lane_mix(t, s, 0, v->list, v->n, w->g, w->x, w->some);
    if (j->wants_rows) sh_lane_spread(t, s, 0, w->g, v->list, v->n, v->u, w);
    for (int64_t at = 0; j->out->beta && at < t->wide; at += L) {
        t->lanes->inner(sh_at(w->x, t, at), sh_at(v->u, t, at), t->wide, t->e, w->best);
        for (int64_t l = at; l < at + L; l++)
            if (crew->head[l] >= 0)
                j->out->beta[crew->number[l]] += sh_number(t, w->best, l - at) / t->a.beta[crew->head[l]];
    }
}

/* Through the mixture of keys by the weights of this update, from the gradient in the mixture (w->z): that in u into w->x;
 * those of keys and beta grow. */
static void through_update(const job *j, const sh_crew *crew, const sh_bench *w, const sh_stored *s,
                           const sh_visit *v) {
    const sh_trail *t = j->t;
    sh_scores_again(t, w, s, v);
    sh_lane_scores(t, s, 0, v->list, v->n, w->z, w->g, w->some);
    through_map(t, w, v);
    if (j->wants_rows) sh_lane_spread(t, s, 0, w->s, v->list, v->n, w->z, w);
    from_scores(j, crew, w, s, v);
}

/* Through the values mixed by the last association, from the gradient in the mixture: that in u into w->x; those of
 * values, keys and beta grow. */
static void through_values(const job *j, const sh_crew *crew, const sh_bench *w, const sh_stored *s,
                           const sh_visit *v) {
    const sh_trail *t = j->t;
    const int64_t L = t->lanes->lanes, wide = t->wide;
    sh_rows_to_lanes(t, crew, j->grad, t->f, w->z);
    sh_scores_again(t, w, s, v);
    sh_lane_scores(t, s, 1, v->list, v->n, w->z, w->g, w->some);
    for (int64_t at = 0; j->grad_of_mass && at < wide; at += L) {
        for (int64_t l = 0; l < L; l++)
            sh_put(t, w->best, l, crew->head[at + l] < 0 ? 0 : sh_number(t, j->grad_of_mass, crew->number[at + l]));
        t->lanes->add(sh_at(w->g, t, at), w->best, NULL, v->n, wide, 0);
    }
    const int drops = t->a.dropout > 0;
    if (drops) sh_drop_factors(t, crew, s, v->list, v->n, w->factor);
    for (int64_t at = 0; drops && at < wide; at += L)
        t->lanes->multiply(sh_at(w->g, t, at), sh_at(w->factor, t, at), v->n, wide, wide);
    through_map(t, w, v);
    /* the weights are needed no more: from_scores begins at w->g */
    for (int64_t at = 0; drops && j->wants_rows && at < wide; at += L)
        t->lanes->multiply(sh_at(w->s, t, at), sh_at(w->factor, t, at), v->n, wide, wide);
    if (j->wants_rows) sh_lane_spread(t, s, 1, w->s, v->list, v->n, w->z, w);
    from_scores(j, crew, w, s, v);
}

/* --- a tile --------------------------------------------------------------------------------------- */

/* Gradients of the rows that a tile sees grow in place where they are a stretch, else beside: then they are added. */
static int64_t first_of_part(const sh_trail *t, int64_t tile) {
    return t->parts > 1 ? t->part_first[tile / t->tiles_of_part] : 0;
}

static void begin_rows(const sh_trail *t, const sh_stored *s, int64_t tile, sh_bench *w) {
    if (s->at >= 0) {
        const int64_t at = s->at - first_of_part(t, tile);
        w->dkey = sh_at(w->dkey, t, at * w->dkey_ld);
        w->dvalue = sh_at(w->dvalue, t, at * w->dvalue_ld);
        w->dkey_ld *= s->step;
        w->dvalue_ld *= s->step;
        return;
    }
    w->dkey = w->dkey_seen;
    w->dvalue = w->dvalue_seen;
    memset(w->dkey, 0, (size_t)(s->rows * w->dkey_ld) * t->lanes->size);
    memset(w->dvalue, 0, (size_t)(s->rows * w->dvalue_ld) * t->lanes->size);
}

static void end_rows(const sh_trail *t, const sh_stored *s, int64_t tile, const sh_bench *of_set, const sh_bench *w) {
    const int64_t first = first_of_part(t, tile);
    for (int64_t i = 0; s->at < 0 && i < s->rows; i++) {
        const int64_t at = s->position[i] - first;
        t->lanes->add_rows(sh_at(of_set->dkey, t, at * w->dkey_ld), sh_at(w->dkey, t, i * w->dkey_ld), w->dkey_ld);
        t->lanes->add_rows(sh_at(of_set->dvalue, t, at * w->dvalue_ld), sh_at(w->dvalue, t, i * w->dvalue_ld),
                           w->dvalue_ld);
    }
}

/* out = a factor where `where` is above 0, else `otherwise`; all (e x wide) */
static void choose(const sh_trail *t, const char *where, const char *a, const char *factor, const char *otherwise,
                   char *out) {
    for (int64_t at = 0; at < t->wide; at += t->lanes->lanes)
        t->lanes->choose(sh_at(where, t, at), sh_at(a, t, at), sh_at(factor, t, at), sh_at(otherwise, t, at), t->e,
                         sh_at(out, t, at), t->wide);
}

static sh_status tile_backward(sh_context *context, job *j, const sh_bench *of_set, const sh_stored *stored,
                               int64_t set, int64_t tile) {
    const sh_trail *t = j->t;
    const sh_association *a = &t->a;
    const int64_t wide = t->wide, e = t->e, all = a->samples * a->queries * a->heads;
    const size_t bytes = (size_t)(e * wide) * t->lanes->size;
    const sh_path_of_tile *path = &t->paths[set * t->tiles + tile];
    sh_crew crew;
    if (!sh_crew_at(t, set, tile, &crew)) return SH_OK;
    const sh_stored seen = sh_seen_of(t, &crew, stored, of_set), *s = &seen;
    sh_bench own = *of_set, *w = &own;
    if (t->looks && j->wants_rows) begin_rows(t, s, tile, w);
    _Alignas(64) char beta[SH_MOST_WIDE * sizeof(double)], where[SH_MOST_WIDE * sizeof(double)],
        one[SH_MOST_WIDE * sizeof(double)];
    for (int64_t l = 0; l < wide; l++) {
        sh_put(t, beta, l, crew.head[l] < 0 ? 0 : a->beta[crew.head[l]]);
        sh_put(t, one, l, 1);
    }
    char *state = w->u, *zeros = w->next; /* the gradient in the state x */
    memset(zeros, 0, bytes);
    sh_visit v = sh_visit_at(t, path, path->last);
    through_values(j, &crew, w, s, &v);
    choose(t, one, w->x, beta, w->x, state);
    if (a->implicit && path->steps) {
        sh_scores_again(t, w, s, &v);
        for (int64_t at = 0; at < wide; at += t->lanes->lanes)
            t->map->weights(sh_at(w->s, t, at), wide, NULL, v.n, t->parameter, sh_at(v.th, t, 2 * at),
                            sh_at(w->s, t, at), wide);
        sh_status status = sh_solve_fixed_points(context, t, &crew, s, w->s, v.list, v.n, state, w->z);
        if (status != SH_OK) return status;
        through_update(j, &crew, w, s, &v);
        memset(state, 0, bytes); /* where the query began has no influence */
    }
    for (int64_t step = path->steps - 1; !a->implicit && step >= 0; step--) {
        for (int64_t l = 0; l < wide; l++) sh_put(t, where, l, v.record->moved[l / 64] >> (l % 64) & 1);
        /* a query that did not move passes its gradient on */
        char *mixture = j->passed ? w->x : w->z;
        choose(t, where, state, one, zeros, mixture);
        if (j->passed) {
            char *rows = sh_at(j->passed, t, (step + 1) * all * e);
            sh_lanes_to_rows(t, &crew, mixture, e, a->heads * e, rows);
            sh_through_key_map(t, &crew, w, mixture, rows, 0, w->z);
        }
        v = sh_visit_at(t, path, v.record->before);
        through_update(j, &crew, w, s, &v);
        choose(t, where, w->x, beta, state, state);
    }
    if (t->looks && j->wants_rows) end_rows(t, s, tile, of_set, w);
    char *first = j->passed ? j->passed : j->out->query;
    if (first) sh_lanes_to_rows(t, &crew, state, e, j->passed ? a->heads * e : j->out->query_row, first);
    return SH_OK;
}

/* --- sums over tiles and items -------------------------------------------------------------------- */

/* Where a part of a set has the gradients of its rows. */
static void give_room(const job *j, sh_bench *w, const sh_stored *s, int64_t set, int64_t part) {
    const sh_trail *t = j->t;
    const int64_t first = t->parts - j->kept, at = set * j->kept + part - first, heads = t->fold_heads ? 1 : t->a.heads;
    if (t->looks && t->parts > 1) {
        const int64_t row = set * t->part_at[t->parts] + t->part_at[part];
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
static void deliver(const job *j, const sh_bench *w, const sh_stored *s, int64_t set) {
    const sh_trail *t = j->t;
    const int64_t heads = t->fold_heads ? 1 : t->a.heads, h = set % heads;
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
    const sh_trail *t = j->t;
    const int64_t set = item / t->parts, part = item % t->parts;
    sh_bench w = sh_bench_at(t, 1, scratch);
    sh_stored s;
    sh_status status = sh_stored_of(context, t, set, 0, &w, &s);
    give_room(j, &w, &s, set, part);
    const int64_t rows = t->looks && t->parts > 1 ? t->part_at[part + 1] - t->part_at[part] : s.rows;
    for (int64_t r = 0; j->wants_rows && r < rows; r++) {
        memset(sh_at(w.dkey, t, r * w.dkey_ld), 0, (size_t)sh_padded(t, t->e) * t->lanes->size);
        memset(sh_at(w.dvalue, t, r * w.dvalue_ld), 0, (size_t)sh_padded(t, t->f) * t->lanes->size);
    }
    for (int64_t i = part * t->tiles_of_part; status == SH_OK && i < sh_min((part + 1) * t->tiles_of_part, t->tiles);
         i++)
        status = sh_stopped(context) ? SH_INTERRUPTED : tile_backward(context, j, &w, &s, set, i);
    if (status == SH_OK && j->wants_rows && !j->direct && t->parts == 1) deliver(j, &w, &s, set);
    return status;
}

/* The parts of one set, summed in order. */
static sh_status set_together(void *user, int64_t set, void *scratch, sh_context *context) {
    job *j = user;
    const sh_trail *t = j->t;
    sh_bench w = sh_bench_at(t, 1, scratch), more = w;
    sh_stored s;
    sh_status status = sh_stored_of(context, t, set, 0, &w, &s);
    give_room(j, &w, &s, set, 0);
    for (int64_t part = 1; part < t->parts; part++) {
        give_room(j, &more, &s, set, part);
        for (int64_t r = 0; r < s.rows; r++) {
            t->lanes->add_rows(sh_at(w.dkey, t, r * w.dkey_ld), sh_at(more.dkey, t, r * more.dkey_ld),
                               sh_padded(t, t->e));
            t->lanes->add_rows(sh_at(w.dvalue, t, r * w.dvalue_ld), sh_at(more.dvalue, t, r * more.dvalue_ld),
                               sh_padded(t, t->f));
        }
    }
    if (status == SH_OK && !j->direct) deliver(j, &w, &s, set);
    return status;
}

/* Some rows of one set, of what the parts that may see them have; rows that are in no part's reach get 0. */
static void add_row(const sh_trail *t, char *to, const char *from, int64_t d) {
    const int64_t whole = d / t->lanes->lanes * t->lanes->lanes;
    t->lanes->add_rows(to, from, whole);
    for (int64_t c = whole; c < d; c++) sh_put(t, to, c, sh_number(t, to, c) + sh_number(t, from, c));
}

static sh_status some_rows_together(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const job *j = user;
    const sh_trail *t = j->t;
    const sh_association *a = &t->a;
    const int64_t pieces = sh_ceil_div(t->most_rows, SOME_ROWS), heads = t->fold_heads ? 1 : a->heads;
    const int64_t set = item / pieces, begin = item % pieces * SOME_ROWS, b = set / heads, h = set % heads;
    const int64_t rows = a->offsets ? a->offsets[b + 1] - a->offsets[b] : a->stored;
    const int64_t above = a->offsets ? a->offsets[b] : a->key.sample ? b * a->stored : 0;
    const int64_t end = sh_min(begin + SOME_ROWS, rows);
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
            const int64_t first = t->part_first[part], last = first + t->part_at[part + 1] - t->part_at[part];
            const char *from = sh_at(both[i].from, t, (set * t->part_at[t->parts] + t->part_at[part]) * both[i].ld);
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
    const sh_trail *t = j->t;
    const sh_association *a = &t->a;
    const int64_t rows = a->samples * a->queries, H = a->heads, v = a->v, f = t->f;
    const char *grad = sh_at(j->given, t, h * v), *weight = sh_at(a->value_map.weight, t, h * v * f);
    const char *bias = sh_at(a->value_map.bias, t, h * v);
    sh_status status = sh_product(context, t->k->gemm_nn, t->k->size, 0, rows, f, v, grad, H * v, weight, f, 0,
                                  sh_at(j->grad, t, h * f), H * f);
    if (status == SH_OK && j->out->value_weight)
        status = sh_product(context, t->k->gemm_tn, t->k->size, 1, v, f, rows, grad, H * v, sh_at(t->mixed, t, h * f),
                            H * f, 0, sh_at(j->out->value_weight, t, h * v * f), f);
    if (status != SH_OK) return status;
    for (int64_t c = 0; j->out->value_bias && c < v; c++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++) sum += sh_number(t, t->mass, i * H + h) * sh_number(t, grad, i * H * v + c);
        sh_put(t, j->out->value_bias, h * v + c, sum);
    }
    for (int64_t i = 0; i < rows; i++) {
        double dot = 0;
        for (int64_t c = 0; c < v; c++) dot += sh_number(t, bias, c) * sh_number(t, grad, i * H * v + c);
        sh_put(t, j->grad_of_mass, i * H + h, dot);
    }
    return SH_OK;
}

/* Of u_0 = W^T q and u_t = W^T (W z_t + b): gradients of q, W and b of one head, from those of the states. Updates and
 * queries are rows of one matrix each: those of the head lie H e numbers apart. */
static sh_status head_keys(void *user, int64_t h, void *scratch, sh_context *context) {
    job *j = user;
    const sh_trail *t = j->t;
    const sh_association *a = &t->a;
    const int64_t first = a->samples * a->queries, later = a->steps * first, H = a->heads, d = a->d, e = t->e;
    const char *weight = sh_at(a->key_map.weight, t, h * d * e), *bias = sh_at(a->key_map.bias, t, h * d);
    const char *du = sh_at(j->passed, t, h * e), *z = later ? sh_at(t->states, t, h * e) : NULL;
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

sh_status sh_association_backward(sh_context *context, const sh_trail *t, const void *grad,
                                  const sh_gradients *gradients) {
    const sh_association *a = &t->a;
    const size_t number = t->lanes->size;
    const int64_t all = a->samples * a->queries * a->heads;
    const int64_t rows =
        a->offsets ? a->offsets[a->samples] : a->stored * (a->key.sample ? a->samples : a->samples > 0);
    const int64_t heads = t->fold_heads ? 1 : a->heads;
    job j = {.t = t,
             .out = gradients,
             .given = grad,
             .grad = (char *)grad,
             .wants_rows = gradients->key || gradients->value};
    sh_status status = SH_NO_MEMORY;
    char *mixed = NULL;
    /* what no query has looked at has no gradient */
    for (int64_t r = 0; (a->padding || !t->lanes_of_set) && r < rows; r++) {
        if (gradients->key)
            memset(sh_at(gradients->key, t, r * gradients->key_row), 0, (size_t)(heads * t->e) * number);
        if (gradients->value)
            memset(sh_at(gradients->value, t, r * gradients->value_row), 0, (size_t)(heads * t->f) * number);
    }
    if (gradients->beta) memset(gradients->beta, 0, (size_t)all * sizeof(double));
    if (t->mixed) {
        mixed = sh_allocate(context, all * t->f, number);
        j.grad_of_mass = sh_allocate(context, all, number);
        if (!mixed || !j.grad_of_mass) goto end;
        j.grad = mixed;
        if ((status = sh_each(context, a->heads, 0, sh_work_of(t) / (double)sh_max(t->most_rows, 1), head_values,
                              &j)) != SH_OK)
            goto end;
        status = SH_NO_MEMORY;
    }
    if (a->key_map.weight) {
        const int64_t count = (a->steps + 1) * all * t->e;
        if (!(j.passed = sh_allocate(context, count, number))) goto end;
        memset(j.passed, 0, (size_t)count * number);
    }
    j.direct = t->groups > 1 && gradients->key && gradients->value && !a->padding && sh_padded(t, t->e) == t->e &&
               sh_padded(t, t->f) == t->f;
    if (j.wants_rows && t->parts > 1) {
        j.kept = t->parts - j.direct;
        const int64_t rows_of_set = t->looks ? t->part_at[t->parts] : j.kept * t->most_rows;
        j.dkey = sh_allocate(context, t->sets * rows_of_set * sh_padded(t, t->e), number);
        j.dvalue = sh_allocate(context, t->sets * rows_of_set * sh_padded(t, t->f), number);
        if (!j.dkey || !j.dvalue) goto end;
    }
    status = SH_OK;
    if (t->lanes_of_set)
        status = sh_each(context, t->sets * t->parts, sh_bench_size(t, 1), 2 * sh_work_of(t), item_backward, &j);
    if (status == SH_OK && j.dkey && t->lanes_of_set && t->looks)
        status = sh_for_each(context, t->sets * sh_ceil_div(t->most_rows, SOME_ROWS), 0, some_rows_together, &j);
    else if (status == SH_OK && j.dkey && t->lanes_of_set)
        status = sh_for_each(context, t->sets, sh_bench_size(t, 1), set_together, &j);
    if (status == SH_OK && a->key_map.weight)
        status = sh_each(context, a->heads, (size_t)(2 * (a->steps + 1) * a->samples * a->queries * a->d + 1) * number,
                         sh_work_of(t), head_keys, &j);
end:
    sh_release(context, mixed);
    sh_release(context, j.grad_of_mass);
    sh_release(context, j.passed);
    sh_release(context, j.dkey);
    sh_release(context, j.dvalue);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
