/* sets.c: the association of the layers by features: many samples and heads at a time, forward and backward.
 *
 * A set is one sample and head. Forward is as in features.c. Backward, with phi features of patterns, w_f the weights of a
 * query, m_f = S_f / z_f, out = sum_f w_f m_f and g the gradient of the loss by out; a_f = <g, m_f>, r = <g, out>:
 *   by log phi_f of a query      w_f (a_f - r)
 *   by S_f, and by z_f           sum over queries of w_f / z_f g, and of -w_f / z_f r
 *   by log phi_f of a pattern    phi_f (<dS_f, v> + dz_f)
 * and from gradients by log phi those by rows (rows_gradient). Features are computed again, so nothing (N, D) is stored.
 *
 * Causal: a first pass over the rows, upwards, gives the gradients of queries; a second, downwards, those of patterns, with
 * the gradients of sums over all later queries as its state. Sums are in units of exp(top), gradients of sums in units of
 * exp(-top). Both only shrink from block to block, as tops rise upwards. The first pass notes where blocks were cut.
 *
 * A work item is a part of a set's rows. Few sets have many parts, cut by the shapes alone, whose sums are added in order.
 */
#include "features/sums.h"
#include "runtime/workspace.h"
#include "sparsehopfield_layers.h"
#include <assert.h>
#include <math.h>
#include <string.h>

typedef sh_feature_job job;
typedef sh_feature_workspace workspace;
typedef sh_block block;

/* A call, and its memory. */
typedef struct {
    const sh_feature_sets *s;
    const sh_kernels *k;
    int causal;                     /* query i sees patterns 0 to i */
    int backward;                   /* gradients are wanted */
    int by_pairs;                   /* sets are computed by their kernels, without sums */
    int64_t parts, part;            /* of a set; rows of one */
    sh_feature_state state;         /* of all sets */
    double *part_states;            /* of all parts, where sets have several */
    const sh_feature_state *dstate; /* of all sets: gradients by sums; NULL: not wanted */
    double *part_dstates;           /* of all parts: gradients by sums, in units of exp(-top) */
    const double *dkeys;
    sh_stack grad, out, dquery, dkey, dvalue;
    void *memory;     /* holds the arrays below, and the states of parts with scratch (D) behind them */
    char *projection; /* (H, D, d) in the compute type */
    double *grad_dot; /* (items) the sum over rows of <gradient, row> */
    /* causal, of every row: the query's normaliser, its r, and whether a run of rows that were taken at a time ends */
    double *normalisers, *grad_dot_out;
    char *ends;
    double *tops;         /* (blocks, D) of every block the largest exponents of the rows before */
    int64_t *first_block; /* (B + 1) of every sample the number of its first block */
} call;

/* A part of a set: rows first .. end - 1 of its queries or its patterns, of which there are `rows`. */
typedef struct {
    int64_t sample, head, set, first, end, rows;
    int64_t start,
        stored_start; /* number of row 0, and of the set's first pattern, in the sample or the list of all bags */
    sh_features f;
    sh_rows patterns, values, queries;
    job j;
    workspace w;
    /* arrays for n rows of a block, of the compute type and of double */
    char *dlog_phi, *mixture;       /* (n, D) gradients by log phi, (n, v) outputs */
    char *by_row, *by_feature;      /* (n) and (D) intermediate results */
    char *means, *keys;             /* (D, v) means, sums or gradients by sums, (D, d) dkeys */
    double *log_weight;             /* (D), and scratch (v) */
    double *grad_dot_out;           /* (n) r, or -r */
    double *factor, *top, *running; /* (D) of a change of units; (D); a state */
} item;

static int64_t rows_of(const sh_feature_sets *s, int64_t b) {
    return s->offsets ? s->offsets[b + 1] - s->offsets[b] : s->stored;
}

/* Returns where a row of an item's set lies. */
static char *row_of(const call *c, sh_stack s, const item *t, int64_t start, int64_t row) {
    return (char *)s.data + (t->sample * s.sample + (start + row) * s.row + t->head * s.head) * (int64_t)c->k->size;
}

static size_t state_size(const sh_features *f) { return (size_t)(f->size * (f->v + 2)); }

static sh_feature_state state_at(const sh_features *f, double *numbers, int64_t i) {
    double *n = numbers + i * (int64_t)state_size(f);
    return (sh_feature_state){n, n + f->size, n + 2 * f->size};
}

static sh_feature_state state_of(const sh_features *f, sh_feature_state s, int64_t set) {
    return (sh_feature_state){s.top ? s.top + set * f->size : NULL, s.total + set * f->size,
                              s.sum + set * f->size * f->v};
}

/* Lays an item's memory out, or counts its bytes where there is none; returns them. */
static size_t lay_out(const call *c, item *t, void *memory) {
    const size_t size = c->k->size, wide = sizeof(double);
    const int64_t D = t->f.size, v = t->f.v, n = t->j.rows;
    sh_workspace s = {memory, 0};
    t->dlog_phi = sh_take(&s, n * D, size);
    t->mixture = sh_take(&s, n * v, size);
    t->by_row = sh_take(&s, n, size);
    t->by_feature = sh_take(&s, D, size);
    t->means = sh_take(&s, D * v, size);
    t->keys = sh_take(&s, c->dkeys ? D * t->f.d : 0, size);
    t->log_weight = sh_take(&s, D + v, wide);
    t->grad_dot_out = sh_take(&s, n, wide);
    t->factor = sh_take(&s, D, wide);
    t->top = sh_take(&s, D, wide);
    t->running = sh_take(&s, (int64_t)state_size(&t->f), wide);
    return s.used + sh_feature_layout(&t->j, memory ? (char *)memory + s.used : NULL, &t->w);
}

/* Makes item `number`: a part of a set's queries or patterns. Without scratch memory only its sizes are right. */
static void begin(const call *c, item *t, int64_t number, int queries, void *scratch) {
    const sh_feature_sets *s = c->s;
    const int64_t size = (int64_t)c->k->size;
    t->set = number / c->parts;
    t->sample = t->set / s->heads;
    t->head = t->set % s->heads;
    t->start = s->offsets && (c->causal || !queries) ? s->offsets[t->sample] : 0;
    const int64_t stored = rows_of(s, t->sample), n_queries = c->causal ? stored : s->queries;
    t->rows = queries ? n_queries : stored;
    t->first = sh_min(number % c->parts * c->part, t->rows);
    t->end = sh_min(t->first + c->part, t->rows);
    t->f = s->features;
    t->f.beta = s->beta[t->head];
    t->f.bias = t->f.beta / 2;
    t->f.cosine = 0;
    if (t->f.projection) t->f.projection += t->head * t->f.size * t->f.d;
    const int64_t from = t->stored_start = s->offsets ? s->offsets[t->sample] : 0;
    const sh_type type = t->f.type;
    t->patterns = (sh_rows){row_of(c, s->key, t, from, 0), stored, t->f.d, s->key.row * size, type, 0, 1};
    t->values = (sh_rows){row_of(c, s->value, t, from, 0), stored, t->f.v, s->value.row * size, type, 0, 1};
    t->queries =
        (sh_rows){row_of(c, s->query, t, c->causal ? from : 0, 0), n_queries, t->f.d, s->query.row * size, type, 0, 1};
    t->j = sh_feature_job_of(&t->f);
    t->j.checked = 1;
    t->j.patterns = c->causal || c->by_pairs || !queries ? &t->patterns : NULL;
    t->j.values = c->causal || c->by_pairs || !queries ? &t->values : NULL;
    t->j.queries = c->causal || queries ? &t->queries : NULL;
    t->j.padding = s->padding ? s->padding + t->sample * s->stored : NULL;
    t->j.least_normaliser = s->least_normaliser;
    if (c->causal) t->j.rows = SH_CAUSAL_BLOCK;
    t->j.rows = sh_max(sh_min(t->j.rows, c->part), 1);
    if (!scratch) return;
    lay_out(c, t, scratch);
    t->j.means = t->means;
    t->j.log_weight = t->log_weight;
}

/* Leaves out padding at the end. */
static void trim(item *t) {
    while (t->j.padding && t->end > t->first && t->j.padding[t->end - 1]) t->end--;
}

/* Does the work of all parts of queries or patterns; `passes`: what a row takes, in passes of sh_feature_work. */
static sh_status run(sh_context *context, call *c, int queries, double passes, sh_work work) {
    item t;
    const int64_t items = c->s->samples * c->s->heads * c->parts;
    if (items == 0) return SH_OK; /* there is no first one to ask for its sizes */
    begin(c, &t, 0, queries, NULL);
    return sh_each(context, items, lay_out(c, &t, NULL), passes * (double)items * sh_feature_work(&t.f, c->part), work,
                   c);
}

/* Makes a call whose sets are cut into parts of queries or patterns: the more sets, the fewer parts. */
static sh_status plan(sh_context *context, const sh_feature_sets *s, int queries, int causal, call *c) {
    const sh_features *f = &s->features;
    const int64_t sets = s->samples * s->heads, block = causal ? SH_CAUSAL_BLOCK : SH_FEATURE_BLOCK;
    *c = (call){.s = s, .k = sh_kernels_of(f->type), .causal = causal};
    int64_t longest = queries && !causal ? s->queries : 0;
    for (int64_t b = 0; b < s->samples && (causal || !queries); b++) longest = sh_max(longest, rows_of(s, b));
    SH_REQUIRE(context, sh_features_are_valid(f), "features");
    const int64_t wanted = sh_max(SH_FEATURE_PARTS / sh_max(sets, 1), 1);
    c->part = wanted == 1 ? sh_max(longest, 1) : sh_max(sh_ceil_div(sh_ceil_div(longest, wanted), block) * block, 1);
    c->parts = sh_max(sh_ceil_div(longest, c->part), 1);
    return SH_OK;
}

/* Lays a call's memory out, or counts its bytes where there is none; returns them. */
static size_t lay_out_call(call *c, void *memory) {
    const sh_feature_sets *s = c->s;
    const sh_features *f = &s->features;
    const int64_t sets = s->samples * s->heads, D = f->size;
    const int64_t states = c->parts > 1 ? sets * c->parts * (int64_t)state_size(f) : 0;
    const int both = c->causal && c->backward, adds_dstate = c->grad.data && c->dstate;
    int64_t rows = 0, blocks = 0;
    for (int64_t b = 0; both && b < s->samples; b++) {
        rows += rows_of(s, b) * s->heads;
        blocks += sh_ceil_div(rows_of(s, b), SH_CAUSAL_BLOCK) * s->heads;
    }
    sh_workspace w = {memory, 0};
    c->part_states = sh_take(&w, !c->backward || both ? states + D : 0, sizeof(double));
    c->part_dstates = sh_take(&w, both || adds_dstate ? states : 0, sizeof(double));
    c->projection = sh_take(&w, c->backward && f->map == SH_RANDOM ? s->heads * D * f->d : 0, c->k->size);
    c->grad_dot = sh_take(&w, c->backward ? sets * c->parts : 0, sizeof(double));
    c->normalisers = sh_take(&w, rows, sizeof(double));
    c->grad_dot_out = sh_take(&w, rows, sizeof(double));
    c->ends = sh_take(&w, rows, 1);
    c->tops = sh_take(&w, blocks * D, sizeof(double));
    c->first_block = sh_take(&w, s->samples + 1, sizeof(int64_t));
    return w.used;
}

/* Allocates a call's memory, of zeros but for the projection and the numbers of blocks. */
static sh_status allocate(sh_context *context, call *c) {
    const sh_features *f = &c->s->features;
    const size_t bytes = lay_out_call(c, NULL);
    if (!(c->memory = sh_allocate(context, 1, bytes))) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    memset(c->memory, 0, bytes);
    lay_out_call(c, c->memory);
    if (c->backward && f->map == SH_RANDOM)
        c->k->from_double(c->projection, f->projection, c->s->heads * f->size * f->d);
    for (int64_t b = 0; c->causal && c->backward && b < c->s->samples; b++)
        c->first_block[b + 1] = c->first_block[b] + sh_ceil_div(rows_of(c->s, b), SH_CAUSAL_BLOCK);
    return SH_OK;
}

/* Adds <gradient, row> of all items to that of their heads. */
static void add_grad_dot(const call *c, double *grad_dot) {
    for (int64_t i = 0; i < c->s->samples * c->s->heads * c->parts; i++)
        grad_dot[i / c->parts % c->s->heads] += c->grad_dot[i];
}

/* --- forward -------------------------------------------------------------------------------------- */

static sh_status sum_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 0, scratch);
    sh_feature_state s = c->parts == 1 ? state_of(&t.f, c->state, t.set) : state_at(&t.f, c->part_states, number);
    sh_clear_sums(&t.f, s);
    if (c->causal && number % c->parts == c->parts - 1) return SH_OK; /* no part begins with its sums */
    trim(&t);
    return sh_sum_rows(&t.j, s, t.first, t.end, &t.w, context);
}

sh_status sh_feature_sets_sum(sh_context *context, const sh_feature_sets *sets, sh_feature_state state) {
    call c;
    const sh_features *f = &sets->features;
    const int64_t all = sets->samples * sets->heads;
    sh_status status = plan(context, sets, 0, 0, &c);
    if (status != SH_OK) return status;
    c.state = state;
    status = allocate(context, &c);
    if (status == SH_OK) status = run(context, &c, 0, 1, sum_item);
    const job j = sh_feature_job_of(f);
    for (int64_t i = 0; status == SH_OK && c.parts > 1 && i < all; i++) {
        sh_feature_state s = state_of(f, state, i);
        sh_clear_sums(f, s);
        for (int64_t p = 0; p < c.parts; p++)
            sh_merge_sums(&j, s, state_at(f, c.part_states, i * c.parts + p),
                          state_at(f, c.part_states, all * c.parts).top);
    }
    sh_release(context, c.memory);
    return status;
}

static sh_status mix_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    sh_prepare_means(&t.j, state_of(&t.f, c->state, t.set), t.log_weight + t.f.size);
    t.j.out = row_of(c, c->out, &t, 0, 0);
    t.j.stride = c->out.row;
    return sh_mix_rows(&t.j, t.first, t.end, &t.w, context);
}

sh_status sh_feature_sets_mix(sh_context *context, const sh_feature_sets *sets, sh_feature_state state, sh_stack out) {
    call c;
    sh_status status = plan(context, sets, 1, 0, &c);
    if (status != SH_OK) return status;
    c.state = state;
    c.out = out;
    return run(context, &c, 1, 1, mix_item);
}

/* Computes for every part the sums of the rows before it. */
static sh_status prefix_sums(sh_context *context, call *c) {
    const sh_features *f = &c->s->features;
    const int64_t all = c->s->samples * c->s->heads, each = (int64_t)state_size(f);
    if (c->parts == 1) return SH_OK;
    sh_status status = run(context, c, 0, 1, sum_item);
    const job j = sh_feature_job_of(f);
    for (int64_t i = 0; status == SH_OK && i < all; i++) {
        double *states = c->part_states + i * c->parts * each;
        memmove(states + each, states, (size_t)((c->parts - 1) * each) * sizeof(double));
        sh_clear_sums(f, state_at(f, states, 0));
        for (int64_t p = 2; p < c->parts; p++)
            sh_merge_sums(&j, state_at(f, states, p), state_at(f, states, p - 1),
                          c->part_states + all * c->parts * each);
    }
    return status;
}

/* Returns the state that a causal item begins with. */
static sh_feature_state state_before(const call *c, item *t, int64_t number) {
    if (c->parts > 1) return state_at(&t->f, c->part_states, number);
    sh_clear_sums(&t->f, state_at(&t->f, t->running, 0));
    return state_at(&t->f, t->running, 0);
}

static sh_status causal_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    t.j.out = row_of(c, c->out, &t, t.start, 0);
    t.j.stride = c->out.row;
    return sh_causal_rows(&t.j, state_before(c, &t, number), t.first, t.end, &t.w, context);
}

sh_status sh_feature_sets_causal(sh_context *context, const sh_feature_sets *sets, sh_stack out) {
    call c;
    sh_status status = plan(context, sets, 1, 1, &c);
    if (status != SH_OK) return status;
    c.out = out;
    status = allocate(context, &c);
    if (status == SH_OK) status = prefix_sums(context, &c);
    if (status == SH_OK) status = run(context, &c, 1, 2, causal_item);
    sh_release(context, c.memory);
    return status;
}

/* --- gradients ------------------------------------------------------------------------------------ */

/* Computes gradients by n rows, `to`, from those by log phi, t->dlog_phi; returns the sum of <gradient, row>. */
static double rows_gradient(const call *c, item *t, block x, int64_t n, char *to, int64_t ld, int patterns) {
    const int64_t D = t->f.size, d = t->f.d;
    job *j = &t->j;
    double grad_dot = 0;
    if (t->f.map == SH_RANDOM)
        sh_multiply(j, j->k->gemm_nn, n, d, D, t->dlog_phi, D, c->projection + t->head * D * d * (int64_t)c->k->size, d,
                    0, to, ld);
    else
        j->k->chain(to, ld, t->dlog_phi, x.data, x.ld, j->root, t->f.map == SH_RELU, n, D);
    for (int64_t i = 0; i < n; i++, to = sh_feature_at(j, to, ld)) {
        const char *row = sh_feature_at(j, x.data, i * x.ld);
        if (patterns && t->f.map == SH_RANDOM)
            j->k->add(to, -2 * t->f.bias * j->k->sum(sh_feature_at(j, t->dlog_phi, i * D), D), row, d);
        if (!sh_is_padding(x, i)) grad_dot += j->k->dot(to, row, d);
    }
    return grad_dot;
}

/* Adds q^T g and -q^T r, in units of `factor` (D) where it is there, to the gradients by sums: of n queries with features
 * q (n, D) over their normalisers, gradients g by their outputs, and r = <g, out>. */
static void add_sum_gradients(item *t, const char *q, block g, const double *r, int64_t n, const double *factor,
                              double *total, double *sum) {
    const int64_t D = t->f.size, v = t->f.v;
    job *j = &t->j;
    j->k->from_double(t->by_row, r, n);
    sh_multiply(j, j->k->gemm_tn, D, 1, n, q, D, t->by_row, 1, 0, t->by_feature, 1);
    sh_multiply(j, j->k->gemm_tn, D, v, n, q, D, g.data, g.ld, 0, t->w.product, v);
    if (!factor) {
        j->k->accumulate(total, -1, t->by_feature, D);
        j->k->accumulate(sum, 1, t->w.product, D * v);
        return;
    }
    for (int64_t f = 0; f < D; f++) {
        j->k->accumulate(total + f, -factor[f], sh_feature_at(j, t->by_feature, f), 1);
        j->k->accumulate(sum + f * v, factor[f], sh_feature_at(j, t->w.product, f * v), v);
    }
}

static sh_status mix_backward_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    job *j = &t.j;
    const int64_t D = t.f.size, v = t.f.v;
    sh_feature_state s = state_of(&t.f, c->state, t.set), to = {0};
    if (c->dstate) to = c->parts == 1 ? state_of(&t.f, *c->dstate, t.set) : state_at(&t.f, c->part_dstates, number);
    sh_prepare_means(j, s, t.log_weight + D);
    for (int64_t f = 0; f < D; f++) t.factor[f] = s.total[f] > 0 ? 1 / s.total[f] : 0;
    double grad_dot = 0;
    for (int64_t first = t.first; first < t.end; first += j->rows) {
        const int64_t n = sh_min(j->rows, t.end - first);
        const block g = {row_of(c, c->grad, &t, 0, first), c->grad.row, NULL};
        block q;
        sh_status status = sh_load_queries(j, first, n, &t.w, &q, context);
        if (status != SH_OK) return status;
        sh_query_features(j, q, n, &t.w, t.log_weight, 1, t.w.phi);
        sh_multiply(j, j->k->gemm_nt, n, D, v, g.data, g.ld, t.means, v, 0, t.dlog_phi, D);
        for (int64_t i = 0; i < n; i++)
            t.grad_dot_out[i] = -j->k->dot(sh_feature_at(j, t.w.phi, i * D), sh_feature_at(j, t.dlog_phi, i * D), D);
        j->k->slopes(t.dlog_phi, t.w.phi, t.grad_dot_out, NULL, n, D);
        grad_dot += rows_gradient(c, &t, q, n, row_of(c, c->dquery, &t, 0, first), c->dquery.row, 0);
        if (c->dstate) {
            for (int64_t i = 0; i < n; i++) t.grad_dot_out[i] = -t.grad_dot_out[i];
            j->k->shares(t.w.phi, t.factor, n, D);
            add_sum_gradients(&t, t.w.phi, g, t.grad_dot_out, n, NULL, to.total, to.sum);
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    c->grad_dot[number] = grad_dot;
    return SH_OK;
}

sh_status sh_feature_sets_mix_backward(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                       sh_stack grad, const sh_feature_state *dstate, sh_stack dquery,
                                       double *grad_dot) {
    call c;
    const sh_features *f = &sets->features;
    const int64_t all = sets->samples * sets->heads;
    sh_status status = plan(context, sets, 1, 0, &c);
    if (status != SH_OK) return status;
    c.state = state;
    c.grad = grad;
    c.dquery = dquery;
    c.dstate = dstate;
    c.backward = 1;
    status = allocate(context, &c);
    if (status == SH_OK) status = run(context, &c, 1, 3, mix_backward_item);
    if (status == SH_OK) add_grad_dot(&c, grad_dot);
    const sh_kernels *k64 = sh_kernels_of(SH_FLOAT64);
    for (int64_t i = 0; status == SH_OK && dstate && c.parts > 1 && i < all * c.parts; i++) {
        sh_feature_state to = state_of(f, *dstate, i / c.parts), from = state_at(f, c.part_dstates, i);
        k64->accumulate(to.total, 1, from.total, f->size);
        k64->accumulate(to.sum, 1, from.sum, f->size * f->v);
    }
    sh_release(context, c.memory);
    return status;
}

static sh_status sum_backward_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 0, scratch);
    job *j = &t.j;
    const int64_t D = t.f.size, v = t.f.v, d = t.f.d;
    const sh_feature_state s = state_of(&t.f, c->state, t.set), ds = state_of(&t.f, *c->dstate, t.set);
    j->k->from_double(t.means, ds.sum, D * v);
    j->k->from_double(t.by_feature, ds.total, D);
    if (c->dkeys) j->k->from_double(t.keys, c->dkeys + t.set * D * d, D * d);
    double grad_dot = 0;
    for (int64_t first = t.first; first < t.end; first += j->rows) {
        const int64_t n = sh_min(j->rows, t.end - first);
        block x, values;
        sh_status status = sh_load_patterns(j, first, n, &t.w, &x, &values, context);
        if (status != SH_OK) return status;
        char *dkey = row_of(c, c->dkey, &t, t.start, first), *dvalue = row_of(c, c->dvalue, &t, t.start, first);
        sh_pattern_features(j, s, x, n, &t.w);
        sh_multiply(j, j->k->gemm_nt, n, D, v, values.data, values.ld, t.means, v, 0, t.dlog_phi, D);
        if (c->dkeys) sh_multiply(j, j->k->gemm_nt, n, D, d, x.data, x.ld, t.keys, d, 1, t.dlog_phi, D);
        j->k->slopes(t.dlog_phi, t.w.phi, NULL, t.by_feature, n, D);
        for (int64_t i = 0; x.padding && i < n; i++)
            if (x.padding[i]) memset(sh_feature_at(j, t.dlog_phi, i * D), 0, (size_t)D * c->k->size);
        grad_dot += rows_gradient(c, &t, x, n, dkey, c->dkey.row, 1);
        sh_multiply(j, j->k->gemm_nn, n, v, D, t.w.phi, D, t.means, v, 0, dvalue, c->dvalue.row);
        if (c->dkeys) sh_multiply(j, j->k->gemm_nn, n, d, D, t.w.phi, D, t.keys, d, 1, dkey, c->dkey.row);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    c->grad_dot[number] = grad_dot;
    return SH_OK;
}

sh_status sh_feature_sets_sum_backward(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                       sh_feature_state dstate, const double *dkeys, sh_stack dkey, sh_stack dvalue,
                                       double *grad_dot) {
    call c;
    sh_status status = plan(context, sets, 0, 0, &c);
    if (status != SH_OK) return status;
    c.state = state;
    c.dstate = &dstate;
    c.dkeys = dkeys;
    c.dkey = dkey;
    c.dvalue = dvalue;
    c.backward = 1;
    status = allocate(context, &c);
    if (status == SH_OK) status = run(context, &c, 0, 3, sum_backward_item);
    if (status == SH_OK) add_grad_dot(&c, grad_dot);
    sh_release(context, c.memory);
    return status;
}

/* --- by pairs: few queries and rows --------------------------------------------------------------- */

/* Divides n rows by the normalisers of their queries; 0 where a query sees no pattern. */
static void divide_rows(const item *t, char *rows, int64_t width, const double *normaliser, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        char *row = sh_feature_at(&t->j, rows, i * width);
        if (normaliser[i] > 0)
            t->j.k->divide(row, normaliser[i], width);
        else
            memset(row, 0, (size_t)width * t->j.k->size);
    }
}

/* Computes the outputs or the gradients of a whole set. */
static sh_status pairs_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    job *j = &t.j;
    workspace *w = &t.w;
    const int64_t n = t.queries.n, m = t.patterns.n, D = t.f.size, d = t.f.d, width = t.f.v;
    char *out = row_of(c, c->out, &t, 0, 0), *dquery = row_of(c, c->dquery, &t, 0, 0),
         *dkey = row_of(c, c->dkey, &t, t.stored_start, 0), *dvalue = row_of(c, c->dvalue, &t, t.stored_start, 0);
    if (n == 0 || m == 0) {
        if (!c->backward) sh_clear_rows(out, c->out.row, n, width, c->k->size);
        if (c->backward) sh_clear_rows(dquery, c->dquery.row, n, d, c->k->size);
        if (c->backward) sh_clear_rows(dkey, c->dkey.row, m, d, c->k->size);
        if (c->backward) sh_clear_rows(dvalue, c->dvalue.row, m, width, c->k->size);
        return SH_OK;
    }
    const sh_feature_state none = state_at(&t.f, t.running, 0);
    sh_clear_sums(&t.f, none);
    block x, v, q;
    sh_status status = sh_load_patterns(j, 0, m, w, &x, &v, context);
    if (status == SH_OK) status = sh_load_queries(j, 0, n, w, &q, context);
    if (status != SH_OK) return status;
    sh_all_pairs(j, none, q, x, n, m, w);
    const double *normaliser = w->normaliser;
    divide_rows(&t, w->kernels, m, normaliser, n);
    if (!c->backward) {
        sh_multiply(j, j->k->gemm_nn, n, width, m, w->kernels, m, v.data, v.ld, 0, out, c->out.row);
        return SH_OK;
    }
    const block g = {row_of(c, c->grad, &t, 0, 0), c->grad.row, NULL};
    sh_multiply(j, j->k->gemm_nn, n, width, m, w->kernels, m, v.data, v.ld, 0, t.mixture, width);
    for (int64_t i = 0; i < n; i++)
        t.grad_dot_out[i] =
            j->k->dot(sh_feature_at(j, g.data, i * g.ld), sh_feature_at(j, t.mixture, i * width), width);
    sh_multiply(j, j->k->gemm_tn, m, width, n, w->kernels, m, g.data, g.ld, 0, dvalue, c->dvalue.row);
    sh_multiply(j, j->k->gemm_nt, n, m, width, g.data, g.ld, v.data, v.ld, 0, w->kernels, m);
    j->k->less_rows(w->kernels, t.grad_dot_out, n, m, 0);
    divide_rows(&t, w->phi_q, D, normaliser, n);
    sh_multiply(j, j->k->gemm_nn, n, D, m, w->kernels, m, w->phi, D, 0, t.dlog_phi, D);
    j->k->slopes(t.dlog_phi, w->phi_q, NULL, w->prefix_total, n, D); /* which is 0: no rows come before */
    c->grad_dot[number] = rows_gradient(c, &t, q, n, dquery, c->dquery.row, 0);
    sh_multiply(j, j->k->gemm_tn, m, D, n, w->kernels, m, w->phi_q, D, 0, t.dlog_phi, D);
    j->k->slopes(t.dlog_phi, w->phi, NULL, w->prefix_total, m, D);
    c->grad_dot[number] += rows_gradient(c, &t, x, m, dkey, c->dkey.row, 1);
    return SH_OK;
}

/* Makes a call of sets that are computed by pairs. */
static sh_status plan_pairs(sh_context *context, const sh_feature_sets *sets, call *c) {
    sh_status status = plan(context, sets, 1, 0, c);
    c->by_pairs = 1;
    c->parts = 1;
    for (int64_t b = 0; b < sets->samples; b++) c->part = sh_max(c->part, rows_of(sets, b));
    if (status == SH_OK && c->part > SH_FEATURE_BLOCK) status = sh_fail(context, SH_BAD_ARGUMENT, "sets", 0);
    return status;
}

sh_status sh_feature_sets_pairs(sh_context *context, const sh_feature_sets *sets, sh_stack out) {
    call c;
    sh_status status = plan_pairs(context, sets, &c);
    if (status != SH_OK) return status;
    c.out = out;
    return run(context, &c, 1, 1, pairs_item);
}

sh_status sh_feature_sets_pairs_backward(sh_context *context, const sh_feature_sets *sets, sh_stack grad,
                                         sh_stack dquery, sh_stack dkey, sh_stack dvalue, double *grad_dot) {
    call c;
    sh_status status = plan_pairs(context, sets, &c);
    if (status != SH_OK) return status;
    c.grad = grad;
    c.dquery = dquery;
    c.dkey = dkey;
    c.dvalue = dvalue;
    c.backward = 1;
    status = allocate(context, &c);
    if (status == SH_OK) status = run(context, &c, 1, 2, pairs_item);
    if (status == SH_OK) add_grad_dot(&c, grad_dot);
    sh_release(context, c.memory);
    return status;
}

/* --- causal --------------------------------------------------------------------------------------- */

/* Returns where the numbers of an item's set begin among those of all rows. */
static int64_t first_row(const call *c, const item *t) {
    const sh_feature_sets *s = c->s;
    return (s->offsets ? s->offsets[t->sample] : t->sample * s->stored) * s->heads + t->head * t->rows;
}
/* Returns the tops of the block that begins with a row. */
static double *tops_at(const call *c, const item *t, int64_t row) {
    const int64_t blocks_of_head = c->first_block[t->sample + 1] - c->first_block[t->sample];
    return c->tops +
           (c->first_block[t->sample] * c->s->heads + t->head * blocks_of_head + row / SH_CAUSAL_BLOCK) * t->f.size;
}

/* Computes gradients by n queries whose kernels are there (sh_causal_pairs), and adds their patterns to the state; returns
 * the sum of <gradient, row>. */
static double queries_gradient(const call *c, item *t, sh_feature_state s, block q, block v, block g, int64_t first,
                               int64_t n) {
    const int64_t D = t->f.size, width = t->f.v, at = first_row(c, t) + first;
    job *j = &t->j;
    workspace *w = &t->w;
    double *normaliser = c->normalisers + at, *r = c->grad_dot_out + at;
    memcpy(normaliser, w->normaliser, (size_t)n * sizeof(double));
    c->ends[at + n - 1] = 1;
    sh_rescale_sums(j, s, w->top);
    j->k->from_double(t->means, s.sum, D * width);
    sh_multiply(j, j->k->gemm_nn, n, width, n, w->kernels, n, v.data, v.ld, 0, t->mixture, width);
    sh_multiply(j, j->k->gemm_nn, n, width, D, w->phi_q, D, t->means, width, 1, t->mixture, width);
    for (int64_t i = 0; i < n; i++) {
        char *mixture = sh_feature_at(j, t->mixture, i * width);
        if (normaliser[i] > 0) j->k->divide(mixture, normaliser[i], width);
        r[i] = normaliser[i] > 0 ? j->k->dot(sh_feature_at(j, g.data, i * g.ld), mixture, width) : 0;
        t->grad_dot_out[i] = -r[i];
    }
    sh_multiply(j, j->k->gemm_nt, n, n, width, g.data, g.ld, v.data, v.ld, 0, w->kernels, n);
    j->k->less_rows(w->kernels, r, n, n, 1);
    sh_multiply(j, j->k->gemm_nt, n, D, width, g.data, g.ld, t->means, width, 0, t->dlog_phi, D);
    sh_multiply(j, j->k->gemm_nn, n, D, n, w->kernels, n, w->phi, D, 1, t->dlog_phi, D);
    divide_rows(t, w->phi_q, D, normaliser, n);
    j->k->slopes(t->dlog_phi, w->phi_q, t->grad_dot_out, w->prefix_total, n, D);
    const double grad_dot = rows_gradient(c, t, q, n, row_of(c, c->dquery, t, t->start, first), c->dquery.row, 0);
    sh_add_block(j, s, v, n, w);
    return grad_dot;
}

static sh_status causal_queries_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    job *j = &t.j;
    const int64_t D = t.f.size;
    sh_feature_state s = state_before(c, &t, number), ds = {0};
    if (c->parts > 1) ds = state_at(&t.f, c->part_dstates, number);
    for (int64_t first = t.first, n; first < t.end; first += n) {
        n = sh_min(j->rows, t.end - first);
        block x, v, q, g = {row_of(c, c->grad, &t, t.start, first), c->grad.row, NULL};
        sh_status status = sh_load_patterns(j, first, n, &t.w, &x, &v, context);
        if (status == SH_OK) status = sh_load_queries(j, first, n, &t.w, &q, context);
        if (status != SH_OK) return status;
        memcpy(tops_at(c, &t, first), s.top, (size_t)D * sizeof(double));
        for (int64_t at = 0, m; at < n; at += m) {
            const block queries = sh_block_from(j, q, at), grads = sh_block_from(j, g, at);
            m = sh_causal_pairs(j, s, queries, sh_block_from(j, x, at), at, n - at, &t.w);
            c->grad_dot[number] += queries_gradient(c, &t, s, queries, sh_block_from(j, v, at), grads, first + at, m);
            if (c->parts == 1) continue;
            /* of the whole part, in units of its first block */
            if (first + at == t.first) memcpy(ds.top, s.top, (size_t)D * sizeof(double));
            for (int64_t f = 0; f < D; f++) t.factor[f] = sh_rescale_factor(ds.top[f], s.top[f]);
            add_sum_gradients(&t, t.w.phi_q, grads, c->grad_dot_out + first_row(c, &t) + first + at, m, t.factor,
                              ds.total, ds.sum);
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Computes gradients by n patterns, from row `at` of the block that begins with `first` on, and adds their queries to `run`,
 * the gradients by sums; returns the sum of <gradient, row>. */
static double patterns_gradient(const call *c, item *t, sh_feature_state run, block q, block x, block v, int64_t first,
                                int64_t at, int64_t n) {
    const int64_t D = t->f.size, width = t->f.v, row = first_row(c, t) + first + at;
    job *j = &t->j;
    workspace *w = &t->w;
    const double *normaliser = c->normalisers + row, *r = c->grad_dot_out + row;
    const block g = {row_of(c, c->grad, t, t->start, first + at), c->grad.row, NULL};
    const sh_feature_state units = {t->top, NULL, NULL};
    memcpy(t->top, tops_at(c, t, first), (size_t)D * sizeof(double));
    if (at > 0) { /* with those of the rows before them in the block */
        sh_pattern_features(j, units, x, at, w);
        memcpy(t->top, w->top, (size_t)D * sizeof(double));
    }
    q = sh_block_from(j, q, at);
    x = sh_block_from(j, x, at);
    v = sh_block_from(j, v, at);
    sh_pattern_features(j, units, x, n, w);
    sh_query_features(j, q, n, w, t->f.map == SH_RELU ? NULL : w->top, 0, w->phi_q);
    divide_rows(t, w->phi_q, D, normaliser, n);
    for (int64_t f = 0; f < D; f++) {
        assert(!(w->top[f] > run.top[f]));
        const double factor = sh_rescale_factor(w->top[f], run.top[f]);
        run.top[f] = w->top[f];
        if (factor == 1) continue;
        run.total[f] *= factor;
        j->k64->multiply_by(run.sum + f * width, factor, width);
    }
    j->k->from_double(t->means, run.sum, D * width);
    j->k->from_double(t->by_feature, run.total, D);
    sh_multiply(j, j->k->gemm_nt, n, n, width, g.data, g.ld, v.data, v.ld, 0, w->kernels, n);
    j->k->less_rows(w->kernels, r, n, n, 1);
    sh_multiply(j, j->k->gemm_tn, n, D, n, w->kernels, n, w->phi_q, D, 0, t->dlog_phi, D);
    sh_multiply(j, j->k->gemm_nt, n, D, width, v.data, v.ld, t->means, width, 1, t->dlog_phi, D);
    j->k->slopes(t->dlog_phi, w->phi, NULL, t->by_feature, n, D);
    const double grad_dot = rows_gradient(c, t, x, n, row_of(c, c->dkey, t, t->start, first + at), c->dkey.row, 1);
    char *dvalue = row_of(c, c->dvalue, t, t->start, first + at);
    sh_multiply(j, j->k->gemm_nt, n, n, D, w->phi_q, D, w->phi, D, 0, w->kernels, n);
    sh_clear_above_diagonal(j, w->kernels, n);
    sh_multiply(j, j->k->gemm_tn, n, width, n, w->kernels, n, g.data, g.ld, 0, dvalue, c->dvalue.row);
    sh_multiply(j, j->k->gemm_nn, n, width, D, w->phi, D, t->means, width, 1, dvalue, c->dvalue.row);
    add_sum_gradients(t, w->phi_q, g, r, n, NULL, run.total, run.sum);
    return grad_dot;
}

static sh_status causal_patterns_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    job *j = &t.j;
    sh_feature_state run = state_at(&t.f, t.running, 0);
    if (c->parts == 1 || t.end == t.rows) {
        memset(t.running, 0, state_size(&t.f) * sizeof(double));
        for (int64_t f = 0; f < t.f.size; f++) run.top[f] = INFINITY; /* of no queries: the first factor is 0 */
    } else
        memcpy(t.running, state_at(&t.f, c->part_dstates, number + 1).top, state_size(&t.f) * sizeof(double));
    const char *ends = c->ends + first_row(c, &t);
    const int64_t blocks = sh_ceil_div(t.end - t.first, j->rows);
    for (int64_t b = blocks - 1; b >= 0; b--) {
        const int64_t first = t.first + b * j->rows, n = sh_min(j->rows, t.end - first);
        block x, v, q;
        sh_status status = sh_load_patterns(j, first, n, &t.w, &x, &v, context);
        if (status == SH_OK) status = sh_load_queries(j, first, n, &t.w, &q, context);
        if (status != SH_OK) return status;
        for (int64_t end = n, at; end > 0; end = at) {
            for (at = end - 1; at > 0 && !ends[first + at - 1];) at--;
            c->grad_dot[number] += patterns_gradient(c, &t, run, q, x, v, first, at, end - at);
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Adds to every part's gradients by sums those of the parts after it. */
static void suffix_sums(call *c) {
    const sh_features *f = &c->s->features;
    const sh_kernels *k64 = sh_kernels_of(SH_FLOAT64);
    for (int64_t i = 0; i < c->s->samples * c->s->heads; i++) {
        const int64_t rows = rows_of(c->s, i / c->s->heads);
        for (int64_t p = sh_ceil_div(rows, c->part) - 2; p >= 0; p--) {
            sh_feature_state s = state_at(f, c->part_dstates, i * c->parts + p),
                             later = state_at(f, c->part_dstates, i * c->parts + p + 1);
            for (int64_t e = 0; e < f->size; e++) {
                const double factor = sh_rescale_factor(s.top[e], later.top[e]);
                s.total[e] += factor * later.total[e];
                k64->accumulate(s.sum + e * f->v, factor, later.sum + e * f->v, f->v);
            }
        }
    }
}

sh_status sh_feature_sets_causal_backward(sh_context *context, const sh_feature_sets *sets, sh_stack grad,
                                          sh_stack dquery, sh_stack dkey, sh_stack dvalue, double *grad_dot) {
    call c;
    sh_status status = plan(context, sets, 1, 1, &c);
    if (status != SH_OK) return status;
    c.grad = grad;
    c.dquery = dquery;
    c.dkey = dkey;
    c.dvalue = dvalue;
    c.backward = 1;
    status = allocate(context, &c);
    if (status == SH_OK) status = prefix_sums(context, &c);
    if (status == SH_OK) status = run(context, &c, 1, 4, causal_queries_item);
    if (status == SH_OK && c.parts > 1) suffix_sums(&c);
    if (status == SH_OK) status = run(context, &c, 1, 4, causal_patterns_item);
    if (status == SH_OK) add_grad_dot(&c, grad_dot);
    sh_release(context, c.memory);
    return status;
}
