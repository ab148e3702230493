/* Features: sums over patterns and what they answer, all at once and in turn (causal), for one memory and for the samples
 * and heads of layers, with gradients; against plain loops over pairs in double and difference quotients. */
#include "check.h"
#include "runtime/runtime.h"
#include "sparsehopfield_layers.h"

enum { B = 2, H = 2, N = 6, M = 7, D = 4, F = 6, V = 3, LARGE = 300 }; /* F features of a random map */
static uint64_t seed = 6;

/* k(x, xi) = <phi(x), phi(xi)>, by its definition. */
static double kernel(const sh_features *f, const double *projection, double beta, double bias, const double *x,
                     const double *xi) {
    double sum = 0, length2 = 0, unit[D];
    for (int c = 0; c < D; c++) length2 += xi[c] * xi[c];
    for (int c = 0; c < D; c++) unit[c] = f->cosine ? xi[c] / sqrt(length2) : xi[c];
    if (f->cosine) length2 = 1;
    for (int64_t i = 0; i < f->size; i++) {
        if (f->map == SH_RELU) {
            sum += larger(x[i], 0) * larger(unit[i], 0);
        } else if (f->map == SH_ELU) {
            const double u = sqrt(beta) * x[i], w = sqrt(beta) * unit[i];
            sum += exp(fmin(u, 0)) * (1 + larger(u, 0)) * exp(fmin(w, 0)) * (1 + larger(w, 0));
        } else {
            double u = 0, w = -bias * length2;
            for (int c = 0; c < D; c++) {
                u += projection[i * D + c] * x[c];
                w += projection[i * D + c] * unit[c];
            }
            sum += exp(u) * exp(w);
        }
    }
    return sum;
}

/* The answer to a query from `rows` rows, as arrays of double. */
static void answer(const sh_features *f, const double *projection, double beta, double bias, const double *x,
                   int64_t rows, const double *xi, int64_t xi_row, const double *values, int64_t value_row,
                   double *out) {
    double total = 0;
    for (int64_t c = 0; c < f->v; c++) out[c] = 0;
    for (int64_t j = 0; j < rows; j++) {
        const double k = kernel(f, projection, beta, bias, x, xi + j * xi_row);
        total += k;
        for (int64_t c = 0; c < f->v; c++) out[c] += k * values[j * value_row + c];
    }
    for (int64_t c = 0; c < f->v; c++) out[c] = total > 0 ? out[c] / total : 0;
}

/* --- one memory ------------------------------------------------------------------------------------------ */

typedef struct {
    sh_features f;
    sh_rows patterns, values, queries;
    double projection[F * D], exact[LARGE * D], exact_values[LARGE * V], exact_queries[LARGE * D];
    void *x, *v, *q;
} problem;

static void make(problem *p, sh_type type, sh_feature_map map, int cosine) {
    *p = (problem){.f = {.type = type,
                         .map = map,
                         .d = D,
                         .size = map == SH_RANDOM ? F : D,
                         .v = V,
                         .beta = 0.6,
                         .bias = 0.3,
                         .cosine = cosine}};
    for (int i = 0; i < F * D; i++) p->projection[i] = sqrt(0.6) * normal(&seed);
    p->f.projection = map == SH_RANDOM ? p->projection : NULL;
    p->x = normals(type, LARGE * D, 1, &seed);
    p->v = normals(type, LARGE * V, 1, &seed);
    p->q = normals(type, LARGE * D, 1, &seed);
    for (int i = 0; i < LARGE * D; i++) {
        p->exact[i] = get(p->x, type, i);
        p->exact_queries[i] = get(p->q, type, i);
    }
    for (int i = 0; i < LARGE * V; i++) p->exact_values[i] = get(p->v, type, i);
    const int64_t size = (int64_t)size_of(type);
    p->patterns = (sh_rows){.data = p->x, .n = LARGE, .d = D, .stride = D * size, .type = type};
    p->values = (sh_rows){.data = p->v, .n = LARGE, .d = V, .stride = V * size, .type = type};
    p->queries = (sh_rows){.data = p->q, .n = LARGE, .d = D, .stride = D * size, .type = type};
}

static void forget(problem *p) { free(p->x), free(p->v), free(p->q); }

typedef struct {
    double top[F], total[F], sum[F * V];
} numbers;

static sh_feature_state state_of(numbers *s) {
    for (int i = 0; i < F; i++) s->top[i] = -INFINITY, s->total[i] = 0;
    for (int i = 0; i < F * V; i++) s->sum[i] = 0;
    return (sh_feature_state){s->top, s->total, s->sum};
}

static void one_memory(sh_type type, sh_feature_map map, int cosine) {
    problem p;
    make(&p, type, map, cosine);
    const double tolerance = type == SH_FLOAT64 ? 1e-9 : 2e-4;
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 2);
    numbers all, parts;
    const sh_feature_state whole = state_of(&all), both = state_of(&parts);
    int64_t products = 0;
    void *out = own(LARGE * V, size_of(type)), *again = own(LARGE * V, size_of(type));
    CHECK_OK(sh_features_add(&context, &p.f, &p.patterns, &p.values, whole, &products));
    CHECK(products >= LARGE * p.f.size * V);
    sh_rows first = p.patterns, others = p.patterns, first_values = p.values, other_values = p.values;
    first.n = first_values.n = 101;
    others.n = other_values.n = LARGE - 101;
    others.data = (char *)p.x + 101 * others.stride;
    other_values.data = (char *)p.v + 101 * other_values.stride;
    CHECK_OK(sh_features_add(&context, &p.f, &first, &first_values, both, NULL));
    CHECK_OK(sh_features_add(&context, &p.f, &others, &other_values, both, NULL));
    for (int64_t i = 0; i < p.f.size; i++) {
        CHECK_NEAR(all.top[i], parts.top[i], tolerance);
        CHECK_NEAR(all.total[i], parts.total[i], tolerance * 10 * all.total[i]);
    }
    CHECK_OK(sh_features_mix(&context, &p.f, whole, &p.queries, out, V, &products));
    for (int64_t i = 0; i < LARGE; i += 7) {
        double want[V];
        answer(&p.f, p.projection, p.f.beta, p.f.bias, p.exact_queries + i * D, LARGE, p.exact, D, p.exact_values, V,
               want);
        for (int c = 0; c < V; c++) CHECK_NEAR(get(out, type, i * V + c), want[c], tolerance);
    }
    CHECK_OK(sh_features_causal(&context, &p.f, &p.queries, &p.patterns, &p.values, 1e-20, out, V, &products));
    sh_context alone = {.threads = 1};
    CHECK_OK(sh_features_causal(&alone, &p.f, &p.queries, &p.patterns, &p.values, 1e-20, again, V, &products));
    CHECK(!memcmp(out, again, (size_t)(LARGE * V) * size_of(type)));
    for (int64_t i = 0; i < LARGE; i += 7) {
        double want[V];
        answer(&p.f, p.projection, p.f.beta, p.f.bias, p.exact_queries + i * D, i + 1, p.exact, D, p.exact_values, V,
               want);
        for (int c = 0; c < V; c++) CHECK_NEAR(get(out, type, i * V + c), want[c], 10 * tolerance);
    }
    CHECK(l.live == 0);

    /* what is refused */
    sh_features bad = p.f;
    bad.v = 0;
    CHECK_REFUSED(context, sh_features_mix(&context, &bad, whole, &p.queries, out, V, NULL), SH_BAD_ARGUMENT,
                  "features");
    bad = p.f, bad.beta = NAN;
    CHECK_REFUSED(context, sh_features_add(&context, &bad, &p.patterns, &p.values, whole, NULL), SH_BAD_ARGUMENT,
                  "features");
    CHECK_REFUSED(context, sh_features_add(&context, &p.f, &p.patterns, NULL, whole, NULL), SH_BAD_ARGUMENT, "values");
    sh_rows narrow = p.patterns;
    narrow.d = D - 1;
    CHECK_REFUSED(context, sh_features_add(&context, &p.f, &narrow, &p.values, whole, NULL), SH_BAD_ARGUMENT,
                  "patterns");
    CHECK_REFUSED(context, sh_features_mix(&context, &p.f, whole, &narrow, out, V, NULL), SH_BAD_ARGUMENT, "queries");
    put(p.x, type, 5 * D, NAN);
    const numbers before = all;
    CHECK_REFUSED(context, sh_features_add(&context, &p.f, &p.patterns, &p.values, whole, NULL), SH_NOT_FINITE,
                  "patterns");
    CHECK(context.row == 5 && !memcmp(before.total, all.total, (size_t)p.f.size * sizeof *all.total));
    put(p.q, type, 8 * D, INFINITY);
    CHECK_REFUSED(context, sh_features_mix(&context, &p.f, whole, &p.queries, out, V, NULL), SH_NOT_FINITE, "queries");
    CHECK(context.row == 8);
    for (int c = 0; c < D; c++) put(p.x, type, 5 * D + c, 0);
    if (cosine)
        CHECK_REFUSED(context, sh_features_add(&context, &p.f, &p.patterns, &p.values, whole, NULL), SH_ZERO_ROW,
                      "patterns");
    free(out), free(again);
    forget(&p);
}

/* --- samples and heads ------------------------------------------------------------------------------------------ */

typedef struct {
    sh_feature_map map;
    int padded, causal;
    double query[B * N * H * D], key[B * N * H * D], value[B * N * H * V], beta[H], projection[H * F * D];
    uint8_t padding[B * M];
    int64_t stored; /* N for causal functions, else fewer */
} sets;

static void make_sets(sets *s, sh_feature_map map, int causal, int padded) {
    *s = (sets){.map = map, .causal = causal, .padded = padded, .stored = causal ? N : N - 1};
    for (int i = 0; i < B * N * H * D; i++) {
        s->query[i] = normal(&seed);
        s->key[i] = normal(&seed);
        if (map == SH_RELU) { /* no kinks near */
            s->query[i] = 0.1 + fabs(s->query[i]);
            s->key[i] = 0.1 + fabs(s->key[i]);
        }
    }
    for (int i = 0; i < B * N * H * V; i++) s->value[i] = normal(&seed);
    for (int h = 0; h < H; h++) s->beta[h] = 0.5 + uniform(&seed);
    for (int i = 0; i < H * F * D; i++) s->projection[i] = sqrt(s->beta[i / F / D]) * normal(&seed);
    for (int64_t b = 0; padded && b < B; b++) s->padding[b * s->stored + 1] = 1;
}

static sh_feature_sets sets_of(const sets *s) {
    const int64_t m = s->stored;
    return (sh_feature_sets){.features = {.type = SH_FLOAT64,
                                          .map = s->map,
                                          .d = D,
                                          .size = s->map == SH_RANDOM ? F : D,
                                          .v = V,
                                          .projection = s->map == SH_RANDOM ? s->projection : NULL},
                             .beta = s->beta,
                             .samples = B,
                             .heads = H,
                             .queries = N,
                             .stored = m,
                             .query = {s->query, N * H * D, H * D, D},
                             .key = {s->key, m * H * D, H * D, D},
                             .value = {s->value, m * H * V, H * V, V},
                             .padding = s->padded ? s->padding : NULL,
                             .least_normaliser = 1e-20};
}

static const sh_stack OUT = {NULL, N * H * V, H * V, V};
static sh_stack stack(const void *data, int64_t rows, int64_t width) {
    return (sh_stack){data, rows * H * width, H * width, width};
}

/* The answers of all queries, in order of b, n, h. */
static void plain_sets(const sets *s, double *out) {
    const sh_feature_sets given = sets_of(s);
    for (int64_t q = 0; q < B * N * H; q++) {
        const int64_t b = q / H / N, n = q / H % N, h = q % H;
        double keys[N * D], values[N * V];
        int64_t rows = 0;
        for (int64_t j = 0; j < (s->causal ? n + 1 : s->stored); j++) {
            if (s->padded && s->padding[b * s->stored + j]) continue;
            memcpy(keys + rows * D, s->key + ((b * s->stored + j) * H + h) * D, D * sizeof *keys);
            memcpy(values + rows * V, s->value + ((b * s->stored + j) * H + h) * V, V * sizeof *values);
            rows++;
        }
        answer(&given.features, s->projection + h * F * D, s->beta[h], s->beta[h] / 2, s->query + q * D, rows, keys, D,
               values, V, out + q * V);
    }
}

static double quotient(sets *s, double *number, const double *weight) {
    const double h = 1e-6, at = *number;
    double up[B * N * H * V], down[B * N * H * V], sum = 0;
    *number = at + h;
    plain_sets(s, up);
    *number = at - h;
    plain_sets(s, down);
    *number = at;
    for (int i = 0; i < B * N * H * V; i++) sum += weight[i] * (up[i] - down[i]) / (2 * h);
    return sum;
}

/* What a way to the answers returns: outputs, and gradients of sum(weight * outputs). */
typedef struct {
    double out[B * N * H * V], dquery[B * N * H * D], dkey[B * N * H * D], dvalue[B * N * H * V], along[H],
        weight[B * N * H * V];
} results;

static sh_status by_sums(sh_context *context, const sh_feature_sets *g, results *r) {
    static double numbers_of[2][B * H * F * (V + 2)];
    const int64_t D_all = B * H * g->features.size;
    double *a = numbers_of[0], *d = numbers_of[1];
    for (int64_t i = 0; i < D_all * (V + 2); i++) a[i] = i < D_all ? -INFINITY : 0, d[i] = 0;
    const sh_feature_state state = {a, a + D_all, a + 2 * D_all}, dstate = {d, d + D_all, d + 2 * D_all};
    sh_stack out = OUT;
    out.data = r->out;
    sh_status status = sh_feature_sets_sum(context, g, state);
    if (status == SH_OK) status = sh_feature_sets_mix(context, g, state, out);
    if (status == SH_OK)
        status = sh_feature_sets_mix_backward(context, g, state, stack(r->weight, N, V), &dstate,
                                              stack(r->dquery, N, D), r->along);
    if (status == SH_OK)
        status = sh_feature_sets_sum_backward(context, g, state, dstate, NULL, stack(r->dkey, g->stored, D),
                                              stack(r->dvalue, g->stored, V), r->along);
    return status;
}

/* Computes answers, and all gradients in one call. */
static sh_status at_once(sh_context *context, const sh_feature_sets *g, results *r,
                         sh_status (*answer)(sh_context *, const sh_feature_sets *, sh_stack),
                         sh_status (*back)(sh_context *, const sh_feature_sets *, sh_stack, sh_stack, sh_stack,
                                           sh_stack, double *)) {
    sh_stack out = OUT;
    out.data = r->out;
    sh_status status = answer(context, g, out);
    return status != SH_OK ? status
                           : back(context, g, stack(r->weight, N, V), stack(r->dquery, N, D),
                                  stack(r->dkey, g->stored, D), stack(r->dvalue, g->stored, V), r->along);
}

static sh_status by_pairs(sh_context *context, const sh_feature_sets *g, results *r) {
    return at_once(context, g, r, sh_feature_sets_pairs, sh_feature_sets_pairs_backward);
}

static sh_status in_turn(sh_context *context, const sh_feature_sets *g, results *r) {
    return at_once(context, g, r, sh_feature_sets_causal, sh_feature_sets_causal_backward);
}

typedef sh_status (*way)(sh_context *context, const sh_feature_sets *sets, results *r);

static void samples_and_heads(sh_feature_map map, way taken, int causal, int padded) {
    sets s;
    static results r;
    r = (results){0};
    make_sets(&s, map, causal, padded);
    double want[B * N * H * V], along[H] = {0};
    for (int i = 0; i < B * N * H * V; i++) r.weight[i] = normal(&seed);
    plain_sets(&s, want);
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 2);
    const sh_feature_sets g = sets_of(&s);
    if (!CHECK_OK(taken(&context, &g, &r))) return;
    for (int i = 0; i < B * N * H * V; i++) CHECK_NEAR(r.out[i], want[i], 1e-10);
    for (int i = 0; i < B * N * H * D; i++) {
        CHECK_NEAR(r.dquery[i], quotient(&s, &s.query[i], r.weight), 1e-6);
        along[i / D % H] += r.dquery[i] * s.query[i];
    }
    for (int64_t i = 0; i < B * s.stored * H * D; i++) {
        CHECK_NEAR(r.dkey[i], quotient(&s, &s.key[i], r.weight), 1e-6);
        along[i / D % H] += r.dkey[i] * s.key[i];
    }
    for (int64_t i = 0; i < B * s.stored * H * V; i++)
        CHECK_NEAR(r.dvalue[i], quotient(&s, &s.value[i], r.weight), 1e-6);
    for (int h = 0; h < H; h++) CHECK_NEAR(r.along[h], along[h], 1e-9);
    CHECK(l.live == 0);
}

/* --- failures ------------------------------------------------------------------------------------------ */

static sh_status call_all(sh_context *context, void *user) {
    problem *p = user;
    numbers all;
    const sh_feature_state state = state_of(&all);
    void *out = own(LARGE * V, size_of(p->f.type));
    static results r;
    sets s, turns;
    make_sets(&s, p->f.map, 0, 0);
    make_sets(&turns, p->f.map, 1, 0);
    const sh_feature_sets g = sets_of(&s), t = sets_of(&turns);
    sh_status status = sh_features_add(context, &p->f, &p->patterns, &p->values, state, NULL);
    if (status == SH_OK) status = sh_features_mix(context, &p->f, state, &p->queries, out, V, NULL);
    if (status == SH_OK)
        status = sh_features_causal(context, &p->f, &p->queries, &p->patterns, &p->values, 1e-20, out, V, NULL);
    if (status == SH_OK) status = by_sums(context, &g, &r);
    if (status == SH_OK) status = by_pairs(context, &g, &r);
    if (status == SH_OK) status = in_turn(context, &t, &r);
    free(out);
    return status;
}

/* Patterns that are scaled to length 1 and have more numbers than a block has features. */
static void few_features_of_wide_patterns(void) {
    enum { WIDE = 3000 };
    double *x = normals(SH_FLOAT64, 2 * WIDE, 1, &seed), top, total, sum[WIDE], projection[WIDE] = {1};
    const sh_features f = {.type = SH_FLOAT64,
                           .map = SH_RANDOM,
                           .d = WIDE,
                           .size = 1,
                           .v = WIDE,
                           .beta = 1,
                           .projection = projection,
                           .cosine = 1};
    const sh_rows patterns = {
        .data = x, .n = 2, .d = WIDE, .stride = WIDE * (int64_t)sizeof(double), .type = SH_FLOAT64};
    sh_context context = {.threads = 1};
    top = -INFINITY, total = 0;
    for (int i = 0; i < WIDE; i++) sum[i] = 0;
    CHECK_OK(sh_features_add(&context, &f, &patterns, NULL, (sh_feature_state){&top, &total, sum}, NULL));
    double exponent[2];
    for (int j = 0; j < 2; j++) {
        double squares = 0;
        for (int i = 0; i < WIDE; i++) squares += x[j * WIDE + i] * x[j * WIDE + i];
        exponent[j] = x[j * WIDE] / sqrt(squares);
    }
    CHECK_NEAR(total, 1 + exp(-fabs(exponent[0] - exponent[1])), 1e-12);
    free(x);
}

int main(void) {
    static const sh_feature_map maps[] = {SH_RELU, SH_ELU, SH_RANDOM};
    CHECK_OK(sh_initialise());
    for (int m = 0; m < 3; m++) {
        for (int t = 0; t < 4; t++) one_memory(t & 1 ? SH_FLOAT64 : SH_FLOAT32, maps[m], t >> 1);
        for (int padded = 0; padded < 2; padded++) {
            samples_and_heads(maps[m], by_sums, 0, padded);
            samples_and_heads(maps[m], by_pairs, 0, padded);
        }
        samples_and_heads(maps[m], in_turn, 1, 0);
        problem p;
        make(&p, SH_FLOAT32, maps[m], 0);
        fail_in_turn("features without memory", call_all, &p, 0);
        forget(&p);
    }
    few_features_of_wide_patterns();
    return checked("features");
}
