/* sets.c: the association of the layers by features: many samples and heads at a time, forward and backward.
 *
 * With w_f the weights of the means m_f = S_f / z_f, out = sum_f w_f m_f; from g, its gradient, with a_f = <g, m_f> and
 * r = <g, out>:
 *   logarithms of a query's features    w_f (a_f - r)
 *   S_f and z_f                         sum over queries of w_f / z_f g, and of -w_f / z_f r
 *   logarithms of a pattern's features  phi_f (<dS_f, v> + dz_f)
 * Causal, sums of patterns run from the first row to the last, in units of the largest features so far, and gradients
 * of sums from the last to the first, in units of their inverse: what is carried over only shrinks. Features are made
 * again, so nothing (N, D) is kept.
 *
 * An item is a part of a set's rows. Few sets have many parts, cut by the shapes alone and summed in order. */
#include "features/sums.h"
#include "sparsehopfield_layers.h"
#include <math.h>
#include <string.h>

typedef sh_feature_job job;
typedef sh_feature_room room;
typedef sh_block block;

typedef struct {
    const sh_feature_sets *s;
    const sh_kernels *k;
    int causal;                   /* queries meet patterns in blocks */
    int few;                      /* queries meet all patterns of their set at once */
    int64_t parts, part;          /* of a set; rows of one */
    sh_feature_state state;       /* of all sets */
    double *numbers;              /* states of all parts, where sets have several */
    const sh_feature_state *dsum; /* of all sets; NULL: not wanted */
    double *dnumbers;             /* of all parts: gradients of sums, and what they are in units of */
    const double *dkeys;
    sh_stack grad, out, dquery, dkey, dvalue;
    char *projection; /* (H, D, d) in the compute type */
    double *along;    /* (items) */
    /* causal: of every row what its query sees, r, and whether a block ends there; of blocks what the sums before are
     * in units of; where blocks of a sample begin */
    double *totals, *pulls, *tops;
    char *ends;
    int64_t *blocks;
} call;

typedef struct {
    int64_t sample, head, set, first, end, rows; /* rows: of the set, on the side that parts are cut from */
    int64_t start, from; /* where they, and the stored rows, begin in their sample, or in the list of all bags */
    sh_features f;
    sh_rows patterns, values, queries;
    job j;
    room r;
    /* room of one's own */
    char *slope, *mixed, *narrow, *column, *means, *keys;
    double *more, *pull, *inverse, *top, *later, *run;
    sh_feature_state own;
} item;

static int64_t rows_of(const sh_feature_sets *s, int64_t b) {
    return s->offsets ? s->offsets[b + 1] - s->offsets[b] : s->stored;
}

static char *place(const call *c, sh_stack s, const item *t, int64_t start, int64_t row) {
    return (char *)s.data + (t->sample * s.sample + (start + row) * s.row + t->head * s.head) * (int64_t)c->k->size;
}

static size_t numbers_of(const sh_features *f) { return (size_t)(f->size * (f->v + 2)); }

static sh_feature_state state_at(const sh_features *f, double *numbers, int64_t i) {
    double *n = numbers + i * (int64_t)numbers_of(f);
    return (sh_feature_state){n, n + f->size, n + 2 * f->size};
}

static sh_feature_state state_of(const sh_features *f, sh_feature_state s, int64_t set) {
    return (sh_feature_state){s.top ? s.top + set * f->size : NULL, s.total + set * f->size,
                              s.sum + set * f->size * f->v};
}

/* Lays out what an item needs; returns how many bytes. */
static size_t lay_out(const call *c, item *t, char *base) {
    const size_t size = c->k->size, wide = sizeof(double), D = (size_t)t->f.size, v = (size_t)t->f.v,
                 n = (size_t)t->j.rows;
    const struct {
        char **place;
        size_t bytes;
    } parts[] = {
        {&t->slope, n * D * size},           {&t->mixed, n * v * size},
        {&t->narrow, (n + D) * size},        {&t->column, D * size},
        {&t->means, D * v * size},           {&t->keys, c->dkeys ? D * (size_t)t->f.d * size : 0},
        {(char **)&t->more, (D + v) * wide}, {(char **)&t->pull, n * wide},
        {(char **)&t->inverse, D * wide},    {(char **)&t->top, D * wide},
        {(char **)&t->later, D * wide},      {(char **)&t->run, numbers_of(&t->f) * wide},
    };
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base) *parts[i].place = base + bytes;
        bytes += sh_align(parts[i].bytes);
    }
    return bytes + sh_feature_room_of(&t->j, base ? base + bytes : NULL, &t->r);
}

/* What is to be done for a part of a set: by whose rows, `queries` or patterns. */
static void begin(const call *c, item *t, int64_t number, int queries, char *scratch) {
    const sh_feature_sets *s = c->s;
    const int64_t size = (int64_t)c->k->size;
    t->set = number / c->parts;
    t->sample = t->set / s->heads;
    t->head = t->set % s->heads;
    t->start = s->offsets && (c->causal || !queries) ? s->offsets[t->sample] : 0;
    const int64_t stored = rows_of(s, t->sample), asking = c->causal ? stored : s->queries;
    t->rows = queries ? asking : stored;
    t->first = sh_min(number % c->parts * c->part, t->rows);
    t->end = sh_min(t->first + c->part, t->rows);
    t->f = s->features;
    t->f.beta = s->beta[t->head];
    t->f.bias = t->f.beta / 2;
    t->f.cosine = 0;
    if (t->f.projection) t->f.projection += t->head * t->f.size * t->f.d;
    const int64_t from = t->from = s->offsets ? s->offsets[t->sample] : 0;
    const sh_type type = t->f.type;
    t->patterns = (sh_rows){place(c, s->key, t, from, 0), stored, t->f.d, s->key.row * size, type, 0, 1};
    t->values = (sh_rows){place(c, s->value, t, from, 0), stored, t->f.v, s->value.row * size, type, 0, 1};
    t->queries =
        (sh_rows){place(c, s->query, t, c->causal ? from : 0, 0), asking, t->f.d, s->query.row * size, type, 0, 1};
    t->j = sh_feature_begin(&t->f);
    t->j.checked = 1;
    t->j.patterns = c->causal || c->few || !queries ? &t->patterns : NULL;
    t->j.values = c->causal || c->few || !queries ? &t->values : NULL;
    t->j.queries = c->causal || queries ? &t->queries : NULL;
    t->j.absent = s->padding ? s->padding + t->sample * s->stored : NULL;
    t->j.faint = s->faint;
    if (c->causal) t->j.rows = SH_CAUSAL_BLOCK;
    t->j.rows = sh_max(sh_min(t->j.rows, c->part), 1);
    if (!scratch) return;
    lay_out(c, t, scratch);
    t->j.means = t->means;
    t->j.more = t->more;
}

/* Rows at the end that are none need no work. */
static void trim(item *t) {
    while (t->j.absent && t->end > t->first && t->j.absent[t->end - 1]) t->end--;
}

static sh_status run(sh_context *context, call *c, int queries, double often, sh_work work) {
    item t;
    const int64_t items = c->s->samples * c->s->heads * c->parts;
    if (items == 0) return SH_OK; /* there is no first one to ask for its sizes */
    begin(c, &t, 0, queries, NULL);
    return sh_each(context, items, lay_out(c, &t, NULL), often * (double)items * sh_feature_work(&t.f, c->part), work,
                   c);
}

/* How sets are cut: the more of them, the fewer parts. */
static sh_status cut(sh_context *context, const sh_feature_sets *s, int queries, int causal, call *c) {
    const sh_features *f = &s->features;
    const int64_t sets = s->samples * s->heads, block = causal ? SH_CAUSAL_BLOCK : SH_FEATURE_BLOCK;
    *c = (call){.s = s, .k = sh_kernels_of(f->type), .causal = causal};
    int64_t longest = queries && !causal ? s->queries : 0;
    for (int64_t b = 0; b < s->samples && (causal || !queries); b++) longest = sh_max(longest, rows_of(s, b));
    SH_REQUIRE(context, sh_features_are_sound(f), "features");
    const int64_t wanted = sh_max(SH_FEATURE_PARTS / sh_max(sets, 1), 1);
    c->part = wanted == 1 ? sh_max(longest, 1) : sh_max(sh_ceil_div(sh_ceil_div(longest, wanted), block) * block, 1);
    c->parts = sh_max(sh_ceil_div(longest, c->part), 1);
    return SH_OK;
}

/* The projection in the compute type, for gradients. */
static sh_status narrow_projection(sh_context *context, call *c) {
    const sh_features *f = &c->s->features;
    const int64_t n = f->size * f->d * c->s->heads;
    if (f->map != SH_RANDOM) return SH_OK;
    if (!(c->projection = sh_allocate(context, n, c->k->size))) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    c->k->from_double(c->projection, f->projection, n);
    return SH_OK;
}

static sh_status make_numbers(sh_context *context, int64_t count, double **numbers) {
    *numbers = sh_allocate(context, sh_max(count, 1), sizeof(double));
    if (!*numbers) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    memset(*numbers, 0, (size_t)count * sizeof(double));
    return SH_OK;
}

static void release(sh_context *context, call *c) {
    sh_release(context, c->numbers);
    sh_release(context, c->dnumbers);
    sh_release(context, c->projection);
    sh_release(context, c->along);
    sh_release(context, c->totals);
    sh_release(context, c->pulls);
    sh_release(context, c->tops);
    sh_release(context, c->ends);
    sh_release(context, c->blocks);
}

static void add_along(const call *c, double *along) {
    for (int64_t i = 0; i < c->s->samples * c->s->heads * c->parts; i++)
        along[i / c->parts % c->s->heads] += c->along[i];
}

/* --- forward -------------------------------------------------------------------------------------- */

static sh_status sum_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 0, scratch);
    sh_feature_state s = c->parts == 1 ? state_of(&t.f, c->state, t.set) : state_at(&t.f, c->numbers, number);
    sh_clear_sums(&t.f, s);
    if (c->causal && number % c->parts == c->parts - 1) return SH_OK; /* there is nothing after it */
    trim(&t);
    return sh_sum_rows(&t.j, s, t.first, t.end, &t.r, context);
}

sh_status sh_feature_sets_sum(sh_context *context, const sh_feature_sets *sets, sh_feature_state state) {
    call c;
    const sh_features *f = &sets->features;
    const int64_t all = sets->samples * sets->heads;
    sh_status status = cut(context, sets, 0, 0, &c);
    if (status != SH_OK) return status;
    c.state = state;
    /* and room for tops */
    if (c.parts > 1) status = make_numbers(context, all * c.parts * (int64_t)numbers_of(f) + f->size, &c.numbers);
    if (status == SH_OK) status = run(context, &c, 0, 1, sum_item);
    const job j = sh_feature_begin(f);
    for (int64_t i = 0; status == SH_OK && c.parts > 1 && i < all; i++) {
        sh_feature_state s = state_of(f, state, i);
        sh_clear_sums(f, s);
        for (int64_t p = 0; p < c.parts; p++)
            sh_merge_sums(&j, s, state_at(f, c.numbers, i * c.parts + p), state_at(f, c.numbers, all * c.parts).top);
    }
    release(context, &c);
    return status;
}

static sh_status mix_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    sh_ask_state(&t.j, state_of(&t.f, c->state, t.set), t.more + t.f.size);
    t.j.out = place(c, c->out, &t, 0, 0);
    t.j.stride = c->out.row;
    return sh_mix_rows(&t.j, t.first, t.end, &t.r, context);
}

sh_status sh_feature_sets_mix(sh_context *context, const sh_feature_sets *sets, sh_feature_state state, sh_stack out) {
    call c;
    sh_status status = cut(context, sets, 1, 0, &c);
    if (status != SH_OK) return status;
    c.state = state;
    c.out = out;
    return run(context, &c, 1, 1, mix_item);
}

/* Every part gets the sums of those before it. */
static sh_status sums_before(sh_context *context, call *c) {
    const sh_features *f = &c->s->features;
    const int64_t all = c->s->samples * c->s->heads, each = (int64_t)numbers_of(f);
    if (c->parts == 1) return SH_OK;
    sh_status status = make_numbers(context, all * c->parts * each + f->size, &c->numbers);
    if (status == SH_OK) status = run(context, c, 0, 1, sum_item);
    const job j = sh_feature_begin(f);
    for (int64_t i = 0; status == SH_OK && i < all; i++) {
        double *own = c->numbers + i * c->parts * each;
        memmove(own + each, own, (size_t)((c->parts - 1) * each) * sizeof(double));
        sh_clear_sums(f, state_at(f, own, 0));
        for (int64_t p = 2; p < c->parts; p++)
            sh_merge_sums(&j, state_at(f, own, p), state_at(f, own, p - 1), c->numbers + all * c->parts * each);
    }
    return status;
}

static sh_feature_state before(const call *c, item *t, int64_t number) {
    sh_feature_state s = state_at(&t->f, c->parts == 1 ? t->run : c->numbers, c->parts == 1 ? 0 : number);
    if (c->parts == 1) sh_clear_sums(&t->f, s);
    return s;
}

static sh_status causal_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    t.j.out = place(c, c->out, &t, t.start, 0);
    t.j.stride = c->out.row;
    return sh_causal_rows(&t.j, before(c, &t, number), t.first, t.end, &t.r, context);
}

sh_status sh_feature_sets_causal(sh_context *context, const sh_feature_sets *sets, sh_stack out) {
    call c;
    sh_status status = cut(context, sets, 1, 1, &c);
    if (status != SH_OK) return status;
    c.out = out;
    status = sums_before(context, &c);
    if (status == SH_OK) status = run(context, &c, 1, 2, causal_item);
    release(context, &c);
    return status;
}

/* --- gradients ------------------------------------------------------------------------------------ */

/* From gradients of logarithms of features those of n rows; returns the sum of <gradient, row>. */
static double chain(const call *c, item *t, block x, int64_t n, char *to, int64_t ld, int patterns) {
    const int64_t D = t->f.size, d = t->f.d;
    job *j = &t->j;
    double along = 0;
    if (t->f.map == SH_RANDOM)
        sh_times(j, j->k->gemm_nn, n, d, D, t->slope, D, c->projection + t->head * D * d * (int64_t)c->k->size, d, 0,
                 to, ld);
    else
        j->k->chain(to, ld, t->slope, x.data, x.ld, j->root, t->f.map == SH_RELU, n, D);
    for (int64_t i = 0; i < n; i++, to = sh_at(j, to, ld)) {
        const char *row = sh_at(j, x.data, i * x.ld);
        if (patterns && t->f.map == SH_RANDOM)
            j->k->add(to, -2 * t->f.bias * j->k->sum(sh_at(j, t->slope, i * D), D), row, d);
        if (!(x.absent && x.absent[i])) along += j->k->dot(to, row, d);
    }
    return along;
}

/* Adds share^T g and -share^T r to gradients of sums. */
static void pull_sums(item *t, const char *share, block g, const double *r, int64_t n, const double *units,
                      double *total, double *sum) {
    const int64_t D = t->f.size, v = t->f.v;
    job *j = &t->j;
    j->k->from_double(t->narrow, r, n);
    sh_times(j, j->k->gemm_tn, D, 1, n, share, D, t->narrow, 1, 0, t->column, 1);
    sh_times(j, j->k->gemm_tn, D, v, n, share, D, g.data, g.ld, 0, t->r.product, v);
    if (!units) {
        j->k->accumulate(total, -1, t->column, D);
        j->k->accumulate(sum, 1, t->r.product, D * v);
        return;
    }
    for (int64_t f = 0; f < D; f++) {
        j->k->accumulate(total + f, -units[f], sh_at(j, t->column, f), 1);
        j->k->accumulate(sum + f * v, units[f], sh_at(j, t->r.product, f * v), v);
    }
}

static sh_status mix_back_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    job *j = &t.j;
    const int64_t D = t.f.size, v = t.f.v;
    sh_feature_state s = state_of(&t.f, c->state, t.set), to = {0};
    if (c->dsum) to = c->parts == 1 ? state_of(&t.f, *c->dsum, t.set) : state_at(&t.f, c->dnumbers, number);
    sh_ask_state(j, s, t.more + D);
    for (int64_t f = 0; f < D; f++) t.inverse[f] = s.total[f] > 0 ? 1 / s.total[f] : 0;
    double along = 0;
    for (int64_t first = t.first; first < t.end; first += j->rows) {
        const int64_t n = sh_min(j->rows, t.end - first);
        const block g = {place(c, c->grad, &t, 0, first), c->grad.row, NULL};
        block q;
        sh_status status = sh_some_queries(j, first, n, &t.r, &q, context);
        if (status != SH_OK) return status;
        sh_of_queries(j, q, n, &t.r, t.more, 1, t.r.phi);
        sh_times(j, j->k->gemm_nt, n, D, v, g.data, g.ld, t.means, v, 0, t.slope, D);
        for (int64_t i = 0; i < n; i++) t.pull[i] = -j->k->dot(sh_at(j, t.r.phi, i * D), sh_at(j, t.slope, i * D), D);
        j->k->slopes(t.slope, t.r.phi, t.pull, NULL, n, D);
        along += chain(c, &t, q, n, place(c, c->dquery, &t, 0, first), c->dquery.row, 0);
        if (c->dsum) {
            for (int64_t i = 0; i < n; i++) t.pull[i] = -t.pull[i];
            j->k->shares(t.r.phi, t.inverse, n, D);
            pull_sums(&t, t.r.phi, g, t.pull, n, NULL, to.total, to.sum);
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    c->along[number] = along;
    return SH_OK;
}

sh_status sh_feature_sets_mix_back(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                   sh_stack grad, const sh_feature_state *dstate, sh_stack dquery, double *along) {
    call c;
    const sh_features *f = &sets->features;
    const int64_t all = sets->samples * sets->heads;
    sh_status status = cut(context, sets, 1, 0, &c);
    if (status != SH_OK) return status;
    c.state = state;
    c.grad = grad;
    c.dquery = dquery;
    c.dsum = dstate;
    status = make_numbers(context, all * c.parts, &c.along);
    if (status == SH_OK && dstate && c.parts > 1)
        status = make_numbers(context, all * c.parts * (int64_t)numbers_of(f), &c.dnumbers);
    if (status == SH_OK) status = narrow_projection(context, &c);
    if (status == SH_OK) status = run(context, &c, 1, 3, mix_back_item);
    if (status == SH_OK) add_along(&c, along);
    const sh_kernels *wide = sh_kernels_of(SH_FLOAT64);
    for (int64_t i = 0; status == SH_OK && dstate && c.parts > 1 && i < all * c.parts; i++) {
        sh_feature_state to = state_of(f, *dstate, i / c.parts), from = state_at(f, c.dnumbers, i);
        wide->accumulate(to.total, 1, from.total, f->size);
        wide->accumulate(to.sum, 1, from.sum, f->size * f->v);
    }
    release(context, &c);
    return status;
}

static sh_status sum_back_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 0, scratch);
    job *j = &t.j;
    const int64_t D = t.f.size, v = t.f.v, d = t.f.d;
    const sh_feature_state s = state_of(&t.f, c->state, t.set), ds = state_of(&t.f, *c->dsum, t.set);
    j->k->from_double(t.means, ds.sum, D * v);
    j->k->from_double(t.column, ds.total, D);
    if (c->dkeys) j->k->from_double(t.keys, c->dkeys + t.set * D * d, D * d);
    double along = 0;
    for (int64_t first = t.first; first < t.end; first += j->rows) {
        const int64_t n = sh_min(j->rows, t.end - first);
        block x, values;
        sh_status status = sh_some_patterns(j, first, n, &t.r, &x, &values, context);
        if (status != SH_OK) return status;
        char *dkey = place(c, c->dkey, &t, t.start, first), *dvalue = place(c, c->dvalue, &t, t.start, first);
        sh_of_patterns(j, s, x, n, &t.r);
        sh_times(j, j->k->gemm_nt, n, D, v, values.data, values.ld, t.means, v, 0, t.slope, D);
        if (c->dkeys) sh_times(j, j->k->gemm_nt, n, D, d, x.data, x.ld, t.keys, d, 1, t.slope, D);
        j->k->slopes(t.slope, t.r.phi, NULL, t.column, n, D);
        for (int64_t i = 0; x.absent && i < n; i++)
            if (x.absent[i]) memset(sh_at(j, t.slope, i * D), 0, (size_t)D * c->k->size);
        along += chain(c, &t, x, n, dkey, c->dkey.row, 1);
        sh_times(j, j->k->gemm_nn, n, v, D, t.r.phi, D, t.means, v, 0, dvalue, c->dvalue.row);
        if (c->dkeys) sh_times(j, j->k->gemm_nn, n, d, D, t.r.phi, D, t.keys, d, 1, dkey, c->dkey.row);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    c->along[number] = along;
    return SH_OK;
}

sh_status sh_feature_sets_sum_back(sh_context *context, const sh_feature_sets *sets, sh_feature_state state,
                                   sh_feature_state dstate, const double *dkeys, sh_stack dkey, sh_stack dvalue,
                                   double *along) {
    call c;
    sh_status status = cut(context, sets, 0, 0, &c);
    if (status != SH_OK) return status;
    c.state = state;
    c.dsum = &dstate;
    c.dkeys = dkeys;
    c.dkey = dkey;
    c.dvalue = dvalue;
    status = make_numbers(context, sets->samples * sets->heads * c.parts, &c.along);
    if (status == SH_OK) status = narrow_projection(context, &c);
    if (status == SH_OK) status = run(context, &c, 0, 3, sum_back_item);
    if (status == SH_OK) add_along(&c, along);
    release(context, &c);
    return status;
}

/* --- few queries and rows ------------------------------------------------------------------------- */

/* ask / total, 0 where a query sees nothing */
static void share_rows(const item *t, char *ask, int64_t width, const double *total, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        char *row = sh_at(&t->j, ask, i * width);
        if (total[i] > 0)
            t->j.k->divide(row, total[i], width);
        else
            memset(row, 0, (size_t)width * t->j.k->size);
    }
}

static void nothing(const call *c, char *rows, int64_t ld, int64_t n, int64_t width) {
    for (int64_t i = 0; i < n; i++) memset(rows + (size_t)(i * ld) * c->k->size, 0, (size_t)width * c->k->size);
}

/* A whole set. Sums that few queries ask cost more than its pairs. */
static sh_status few_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    job *j = &t.j;
    room *r = &t.r;
    const int64_t n = t.queries.n, m = t.patterns.n, D = t.f.size, d = t.f.d, width = t.f.v;
    char *out = place(c, c->out, &t, 0, 0), *dquery = place(c, c->dquery, &t, 0, 0),
         *dkey = place(c, c->dkey, &t, t.from, 0), *dvalue = place(c, c->dvalue, &t, t.from, 0);
    const int back = c->grad.data != NULL;
    if (n == 0 || m == 0) {
        if (!back) nothing(c, out, c->out.row, n, width);
        if (back) nothing(c, dquery, c->dquery.row, n, d);
        if (back) nothing(c, dkey, c->dkey.row, m, d);
        if (back) nothing(c, dvalue, c->dvalue.row, m, width);
        return SH_OK;
    }
    const sh_feature_state none = state_at(&t.f, t.run, 0);
    sh_clear_sums(&t.f, none);
    block x, v, q;
    sh_status status = sh_some_patterns(j, 0, m, r, &x, &v, context);
    if (status == SH_OK) status = sh_some_queries(j, 0, n, r, &q, context);
    if (status != SH_OK) return status;
    sh_meet_all(j, none, q, x, n, m, r);
    const double *total = r->less;
    share_rows(&t, r->pairs, m, total, n);
    if (!back) {
        sh_times(j, j->k->gemm_nn, n, width, m, r->pairs, m, v.data, v.ld, 0, out, c->out.row);
        return SH_OK;
    }
    const block g = {place(c, c->grad, &t, 0, 0), c->grad.row, NULL};
    sh_times(j, j->k->gemm_nn, n, width, m, r->pairs, m, v.data, v.ld, 0, t.mixed, width);
    for (int64_t i = 0; i < n; i++)
        t.pull[i] = j->k->dot(sh_at(j, g.data, i * g.ld), sh_at(j, t.mixed, i * width), width);
    sh_times(j, j->k->gemm_tn, m, width, n, r->pairs, m, g.data, g.ld, 0, dvalue, c->dvalue.row);
    sh_times(j, j->k->gemm_nt, n, m, width, g.data, g.ld, v.data, v.ld, 0, r->pairs, m);
    j->k->less_rows(r->pairs, t.pull, n, m, 0);
    share_rows(&t, r->ask, D, total, n);
    /* before: there is nothing, so 0 is added */
    sh_times(j, j->k->gemm_nn, n, D, m, r->pairs, m, r->phi, D, 0, t.slope, D);
    j->k->slopes(t.slope, r->ask, NULL, r->before, n, D);
    c->along[number] = chain(c, &t, q, n, dquery, c->dquery.row, 0);
    sh_times(j, j->k->gemm_tn, m, D, n, r->pairs, m, r->ask, D, 0, t.slope, D);
    j->k->slopes(t.slope, r->phi, NULL, r->before, m, D);
    c->along[number] += chain(c, &t, x, m, dkey, c->dkey.row, 1);
    return SH_OK;
}

static sh_status few(sh_context *context, const sh_feature_sets *sets, call *c) {
    sh_status status = cut(context, sets, 1, 0, c);
    c->few = 1;
    c->parts = 1;
    for (int64_t b = 0; b < sets->samples; b++) c->part = sh_max(c->part, rows_of(sets, b));
    if (status == SH_OK && c->part > SH_FEATURE_BLOCK) status = sh_fail(context, SH_BAD_ARGUMENT, "sets", 0);
    return status;
}

sh_status sh_feature_sets_few(sh_context *context, const sh_feature_sets *sets, sh_stack out) {
    call c;
    sh_status status = few(context, sets, &c);
    if (status != SH_OK) return status;
    c.out = out;
    return run(context, &c, 1, 1, few_item);
}

sh_status sh_feature_sets_few_back(sh_context *context, const sh_feature_sets *sets, sh_stack grad, sh_stack dquery,
                                   sh_stack dkey, sh_stack dvalue, double *along) {
    call c;
    sh_status status = few(context, sets, &c);
    if (status != SH_OK) return status;
    c.grad = grad;
    c.dquery = dquery;
    c.dkey = dkey;
    c.dvalue = dvalue;
    status = make_numbers(context, sets->samples * sets->heads, &c.along);
    if (status == SH_OK) status = narrow_projection(context, &c);
    if (status == SH_OK) status = run(context, &c, 1, 2, few_item);
    if (status == SH_OK) add_along(&c, along);
    release(context, &c);
    return status;
}

/* --- causal --------------------------------------------------------------------------------------- */

/* Where numbers of a set's rows begin, and of its blocks. */
static int64_t row_at(const call *c, const item *t) {
    const sh_feature_sets *s = c->s;
    return (s->offsets ? s->offsets[t->sample] : t->sample * s->stored) * s->heads + t->head * t->rows;
}
static double *tops_at(const call *c, const item *t, int64_t row) {
    const int64_t of_head = c->blocks[t->sample + 1] - c->blocks[t->sample];
    return c->tops + (c->blocks[t->sample] * c->s->heads + t->head * of_head + row / SH_CAUSAL_BLOCK) * t->f.size;
}

/* n rows that have met: gradients of queries; the state goes on. */
static double pull_block(const call *c, item *t, sh_feature_state s, block q, block v, block g, int64_t first,
                         int64_t n) {
    const int64_t D = t->f.size, width = t->f.v, at = row_at(c, t) + first;
    job *j = &t->j;
    room *r = &t->r;
    double *total = c->totals + at, *pull = c->pulls + at;
    memcpy(total, r->less, (size_t)n * sizeof(double));
    c->ends[at + n - 1] = 1;
    sh_raise_sums(j, s, r->top);
    j->k->from_double(t->means, s.sum, D * width);
    sh_times(j, j->k->gemm_nn, n, width, n, r->pairs, n, v.data, v.ld, 0, t->mixed, width);
    sh_times(j, j->k->gemm_nn, n, width, D, r->ask, D, t->means, width, 1, t->mixed, width);
    for (int64_t i = 0; i < n; i++) {
        char *mixed = sh_at(j, t->mixed, i * width);
        if (total[i] > 0) j->k->divide(mixed, total[i], width);
        pull[i] = total[i] > 0 ? j->k->dot(sh_at(j, g.data, i * g.ld), mixed, width) : 0;
        t->pull[i] = -pull[i];
    }
    sh_times(j, j->k->gemm_nt, n, n, width, g.data, g.ld, v.data, v.ld, 0, r->pairs, n);
    j->k->less_rows(r->pairs, pull, n, n, 1);
    sh_times(j, j->k->gemm_nt, n, D, width, g.data, g.ld, t->means, width, 0, t->slope, D);
    sh_times(j, j->k->gemm_nn, n, D, n, r->pairs, n, r->phi, D, 1, t->slope, D);
    share_rows(t, r->ask, D, total, n);
    j->k->slopes(t->slope, r->ask, t->pull, r->before, n, D);
    const double along = chain(c, t, q, n, place(c, c->dquery, t, t->start, first), c->dquery.row, 0);
    sh_add_features(j, s, v, n, r);
    return along;
}

static sh_status pull_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    job *j = &t.j;
    const int64_t D = t.f.size;
    sh_feature_state s = before(c, &t, number), own = {0};
    if (c->parts > 1) own = state_at(&t.f, c->dnumbers, number);
    for (int64_t first = t.first, n; first < t.end; first += n) {
        n = sh_min(j->rows, t.end - first);
        block x, v, q, g = {place(c, c->grad, &t, t.start, first), c->grad.row, NULL};
        sh_status status = sh_some_patterns(j, first, n, &t.r, &x, &v, context);
        if (status == SH_OK) status = sh_some_queries(j, first, n, &t.r, &q, context);
        if (status != SH_OK) return status;
        memcpy(tops_at(c, &t, first), s.top, (size_t)D * sizeof(double));
        for (int64_t at = 0, m; at < n; at += m) {
            const block some = sh_block_from(j, q, at), pulls = sh_block_from(j, g, at);
            m = sh_meet(j, s, some, sh_block_from(j, x, at), at, n - at, &t.r);
            c->along[number] += pull_block(c, &t, s, some, sh_block_from(j, v, at), pulls, first + at, m);
            if (c->parts == 1) continue;
            /* of the whole part, in units of its first block */
            if (first + at == t.first) memcpy(own.top, s.top, (size_t)D * sizeof(double));
            for (int64_t f = 0; f < D; f++) t.inverse[f] = sh_shrink(own.top[f], s.top[f]);
            pull_sums(&t, t.r.ask, pulls, c->pulls + row_at(c, &t) + first + at, m, t.inverse, own.total, own.sum);
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Gradients of n patterns that have met their queries, which begin at `at` of a block, and of sums before them. */
static double push_block(const call *c, item *t, sh_feature_state run, block q, block x, block v, int64_t first,
                         int64_t at, int64_t n) {
    const int64_t D = t->f.size, width = t->f.v, row = row_at(c, t) + first + at;
    job *j = &t->j;
    room *r = &t->r;
    const double *total = c->totals + row, *pull = c->pulls + row;
    const block g = {place(c, c->grad, t, t->start, first + at), c->grad.row, NULL};
    const sh_feature_state units = {t->top, NULL, NULL};
    memcpy(t->top, tops_at(c, t, first), (size_t)D * sizeof(double));
    if (at > 0) { /* what those before them, in the same block, were in units of */
        sh_of_patterns(j, units, x, at, r);
        memcpy(t->top, r->top, (size_t)D * sizeof(double));
    }
    q = sh_block_from(j, q, at);
    x = sh_block_from(j, x, at);
    v = sh_block_from(j, v, at);
    sh_of_patterns(j, units, x, n, r);
    sh_of_queries(j, q, n, r, t->f.map == SH_RELU ? NULL : r->top, 0, r->ask);
    share_rows(t, r->ask, D, total, n);
    for (int64_t f = 0; f < D; f++) {
        const double less = sh_shrink(r->top[f], run.top[f]);
        run.top[f] = r->top[f];
        if (less == 1) continue;
        run.total[f] *= less;
        j->wide->scale(run.sum + f * width, less, width);
    }
    j->k->from_double(t->means, run.sum, D * width);
    j->k->from_double(t->column, run.total, D);
    sh_times(j, j->k->gemm_nt, n, n, width, g.data, g.ld, v.data, v.ld, 0, r->pairs, n);
    j->k->less_rows(r->pairs, pull, n, n, 1);
    sh_times(j, j->k->gemm_tn, n, D, n, r->pairs, n, r->ask, D, 0, t->slope, D);
    sh_times(j, j->k->gemm_nt, n, D, width, v.data, v.ld, t->means, width, 1, t->slope, D);
    j->k->slopes(t->slope, r->phi, NULL, t->column, n, D);
    const double along = chain(c, t, x, n, place(c, c->dkey, t, t->start, first + at), c->dkey.row, 1);
    char *dvalue = place(c, c->dvalue, t, t->start, first + at);
    sh_times(j, j->k->gemm_nt, n, n, D, r->ask, D, r->phi, D, 0, r->pairs, n);
    sh_lower(j, r->pairs, n);
    sh_times(j, j->k->gemm_tn, n, width, n, r->pairs, n, g.data, g.ld, 0, dvalue, c->dvalue.row);
    sh_times(j, j->k->gemm_nn, n, width, D, r->phi, D, t->means, width, 1, dvalue, c->dvalue.row);
    pull_sums(t, r->ask, g, pull, n, NULL, run.total, run.sum);
    return along;
}

static sh_status push_item(void *user, int64_t number, void *scratch, sh_context *context) {
    const call *c = user;
    item t;
    begin(c, &t, number, 1, scratch);
    job *j = &t.j;
    sh_feature_state run = state_at(&t.f, t.run, 0);
    if (c->parts == 1 || t.end == t.rows) {
        memset(t.run, 0, numbers_of(&t.f) * sizeof(double));
        for (int64_t f = 0; f < t.f.size; f++) run.top[f] = INFINITY; /* of nothing: it shrinks to 0 */
    } else
        memcpy(t.run, state_at(&t.f, c->dnumbers, number + 1).top, numbers_of(&t.f) * sizeof(double));
    const char *ends = c->ends + row_at(c, &t);
    const int64_t blocks = sh_ceil_div(t.end - t.first, j->rows);
    for (int64_t b = blocks - 1; b >= 0; b--) {
        const int64_t first = t.first + b * j->rows, n = sh_min(j->rows, t.end - first);
        block x, v, q;
        sh_status status = sh_some_patterns(j, first, n, &t.r, &x, &v, context);
        if (status == SH_OK) status = sh_some_queries(j, first, n, &t.r, &q, context);
        if (status != SH_OK) return status;
        for (int64_t end = n, at; end > 0; end = at) {
            for (at = end - 1; at > 0 && !ends[first + at - 1];) at--;
            c->along[number] += push_block(c, &t, run, q, x, v, first, at, end - at);
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Every part gets the gradients of sums of those after it, with its own. */
static void sums_after(call *c) {
    const sh_features *f = &c->s->features;
    const sh_kernels *wide = sh_kernels_of(SH_FLOAT64);
    for (int64_t i = 0; i < c->s->samples * c->s->heads; i++) {
        const int64_t rows = rows_of(c->s, i / c->s->heads);
        for (int64_t p = sh_ceil_div(rows, c->part) - 2; p >= 0; p--) {
            sh_feature_state s = state_at(f, c->dnumbers, i * c->parts + p),
                             more = state_at(f, c->dnumbers, i * c->parts + p + 1);
            for (int64_t e = 0; e < f->size; e++) {
                const double less = sh_shrink(s.top[e], more.top[e]);
                s.total[e] += less * more.total[e];
                wide->accumulate(s.sum + e * f->v, less, more.sum + e * f->v, f->v);
            }
        }
    }
}

sh_status sh_feature_sets_causal_back(sh_context *context, const sh_feature_sets *sets, sh_stack grad, sh_stack dquery,
                                      sh_stack dkey, sh_stack dvalue, double *along) {
    call c;
    const sh_features *f = &sets->features;
    const int64_t all = sets->samples * sets->heads;
    sh_status status = cut(context, sets, 1, 1, &c);
    if (status != SH_OK) return status;
    c.grad = grad;
    c.dquery = dquery;
    c.dkey = dkey;
    c.dvalue = dvalue;
    int64_t rows = 0;
    c.blocks = sh_allocate(context, sets->samples + 1, sizeof(int64_t));
    if (!c.blocks) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t b = 0; status == SH_OK && b <= sets->samples; b++) {
        c.blocks[b] = b ? c.blocks[b - 1] + sh_ceil_div(rows_of(sets, b - 1), SH_CAUSAL_BLOCK) : 0;
        rows += b ? rows_of(sets, b - 1) : 0;
    }
    if (status == SH_OK) status = make_numbers(context, c.blocks[sets->samples] * sets->heads * f->size, &c.tops);
    if (status == SH_OK) status = make_numbers(context, rows * sets->heads, &c.totals);
    if (status == SH_OK) status = make_numbers(context, rows * sets->heads, &c.pulls);
    if (status == SH_OK && !(c.ends = sh_allocate(context, rows * sets->heads + 1, 1)))
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    if (status == SH_OK) memset(c.ends, 0, (size_t)(rows * sets->heads));
    if (status == SH_OK) status = make_numbers(context, all * c.parts, &c.along);
    if (status == SH_OK) status = narrow_projection(context, &c);
    if (status == SH_OK && c.parts > 1)
        status = make_numbers(context, all * c.parts * (int64_t)numbers_of(f), &c.dnumbers);
    if (status == SH_OK) status = sums_before(context, &c);
    if (status == SH_OK) status = run(context, &c, 1, 4, pull_item);
    if (status == SH_OK && c.parts > 1) sums_after(&c);
    if (status == SH_OK) status = run(context, &c, 1, 4, push_item);
    if (status == SH_OK) add_along(&c, along);
    release(context, &c);
    return status;
}
