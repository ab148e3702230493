/* Tests the layers' association, forward and backward, linear maps, normalisation and AdamW against plain loops in
 * double and difference quotients. */
#include "plain.h"
#include "runtime/runtime.h"
#include "sparsehopfield_layers.h"

enum { B = 2, N = 5, M = 9, H = 2, D = 4, V = 3, ROWS = B * M, QUERIES = B * N * H };
static uint64_t seed = 5;
static const sh_model MODELS[] = {{SH_SPARSEMAX, 0}, {SH_SOFTMAX, 0},    {SH_ENTMAX, 1.5},
                                  {SH_ENTMAX, 1.25}, {SH_POLYNOMIAL, 3}, {SH_NORMMAX, 2}};
enum { MODEL_COUNT = sizeof MODELS / sizeof *MODELS };

/* An association in double, of which those of both types are made. */
typedef struct {
    sh_model model;
    double query[QUERIES * D], key[ROWS * H * D], value[ROWS * H * V], beta[H], mask[N * M];
    uint8_t padding[B * M];
    int steps, padded, masked, ragged;
    int64_t offsets[B + 1];
    const sh_structure *structure;
} problem;

/* Returns a problem of random numbers. */
static problem problem_of(sh_model m) {
    problem p = {.model = m, .offsets = {0, 3, ROWS}};
    for (int i = 0; i < QUERIES * D; i++) p.query[i] = normal(&seed);
    for (int i = 0; i < ROWS * H * D; i++) p.key[i] = normal(&seed);
    for (int i = 0; i < ROWS * H * V; i++) p.value[i] = normal(&seed);
    for (int i = 0; i < H; i++) p.beta[i] = 0.5 + uniform(&seed);
    for (int i = 0; i < N * M; i++) p.mask[i] = uniform(&seed) < 0.2 ? -INFINITY : normal(&seed);
    for (int i = 0; i < B * M; i++) p.padding[i] = uniform(&seed) < 0.2;
    return p;
}

/* Tells whether query n of sample b sees row j of the sample. */
static int sees(const problem *p, int64_t b, int64_t n, int64_t j) {
    if (p->ragged ? j >= p->offsets[b + 1] - p->offsets[b] : j >= M) return 0;
    if (p->padded && p->padding[b * M + j]) return 0;
    return !p->structure || llabs(n - j) <= p->structure->width;
}

/* Computes the weights of the last association of a query, over ROWS rows of its sample, and its output. Returns how
 * many updates it made. */
static int plain_associate(const problem *p, int64_t b, int64_t n, int64_t h, double *w, double *out) {
    double x[D], z[ROWS], before[ROWS] = {0};
    const int64_t first = p->ragged ? p->offsets[b] : b * M;
    int made = 0;
    memcpy(x, p->query + ((b * N + n) * H + h) * D, sizeof x);
    for (int step = 0;; step++) {
        int any = 0;
        for (int64_t j = 0; j < ROWS; j++) {
            z[j] = -INFINITY;
            if (!sees(p, b, n, j)) continue;
            z[j] = 0;
            for (int c = 0; c < D; c++) z[j] += p->beta[h] * x[c] * p->key[((first + j) * H + h) * D + c];
            if (p->masked) z[j] += p->mask[n * M + j];
            any |= z[j] > -INFINITY;
        }
        if (any)
            plain_weights(p->model, ROWS, z, w);
        else
            memset(w, 0, ROWS * sizeof *w);
        double moved = 0;
        for (int j = 0; j < ROWS; j++) moved += (w[j] - before[j]) * (w[j] - before[j]);
        if (p->steps >= 0 ? step == p->steps : step > 0 && sqrt(moved) <= 1e-13) break;
        memcpy(before, w, sizeof before);
        memset(x, 0, sizeof x);
        for (int64_t j = 0; j < ROWS; j++)
            for (int c = 0; w[j] != 0 && c < D; c++) x[c] += w[j] * p->key[((first + j) * H + h) * D + c];
        made++;
    }
    for (int c = 0; c < V; c++) out[c] = 0;
    for (int64_t j = 0; j < ROWS; j++)
        for (int c = 0; w[j] != 0 && c < V; c++) out[c] += w[j] * p->value[((first + j) * H + h) * V + c];
    return made;
}

/* A problem as the library takes it, of a type, with its arrays. */
typedef struct {
    sh_association a;
    void *query, *key, *value;
} arrays;

static void *copied(sh_type type, const double *x, int64_t n) {
    void *y = own(n, size_of(type));
    for (int64_t i = 0; i < n; i++) put(y, type, i, x[i]);
    return y;
}

static arrays arrays_of(const problem *p, sh_type type) {
    arrays g = {.query = copied(type, p->query, QUERIES * D),
                .key = copied(type, p->key, ROWS * H * D),
                .value = copied(type, p->value, ROWS * H * V)};
    g.a = (sh_association){.type = type,
                           .model = p->model,
                           .samples = B,
                           .queries = N,
                           .stored = M,
                           .heads = H,
                           .d = D,
                           .v = V,
                           .query = {g.query, N * H * D, H * D, D},
                           .key = {g.key, M * H * D, H * D, D},
                           .value = {g.value, M * H * V, H * V, V},
                           .beta = p->beta,
                           .steps = p->steps,
                           .eps = 1e-13,
                           .structure = p->structure};
    if (p->padded) g.a.padding = p->padding;
    if (p->ragged) {
        g.a.stored = ROWS; /* of all bags together */
        g.a.offsets = p->offsets;
        g.a.key.sample = g.a.value.sample = 0;
    }
    return g;
}

static void free_arrays(arrays *g) { free(g->query), free(g->key), free(g->value); }

/* Returns the sum of all outputs times weights. */
static double loss(const problem *p, const double *weight) {
    double sum = 0, w[ROWS], out[V];
    for (int64_t q = 0; q < QUERIES; q++) {
        plain_associate(p, q / H / N, q / H % N, q % H, w, out);
        for (int c = 0; c < V; c++) sum += weight[q * V + c] * out[c];
    }
    return sum;
}

/* Returns the difference quotient of the loss in one number. */
static double quotient(problem *p, double *number, const double *weight) {
    const double h = 1e-6, at = *number;
    *number = at + h;
    const double up = loss(p, weight);
    *number = at - h;
    const double down = loss(p, weight);
    *number = at;
    return (up - down) / (2 * h);
}

/* Checks outputs, weights and updates of a problem. */
static void forward(problem *p) {
    for (int t = 0; t < 2; t++) {
        const sh_type type = t ? SH_FLOAT64 : SH_FLOAT32;
        const double tolerance = t ? 1e-9 : 1e-3;
        arrays g = arrays_of(p, type);
        if (p->masked) {
            g.a.mask = copied(type, p->mask, N * M);
            g.a.mask_query = M;
        }
        void *out = own(QUERIES * V, size_of(type)), *again = own(QUERIES * V, size_of(type));
        ledger l = {.fail_at = -1};
        sh_context context = context_of(&l, 2);
        sh_tape *tape = NULL;
        int64_t unconverged, steps[QUERIES];
        sh_entries e = {0};
        CHECK_OK(sh_association_forward(&context, &g.a, again, NULL, &unconverged)); /* without a tape */
        if (CHECK_OK(sh_association_forward(&context, &g.a, out, &tape, &unconverged)) &&
            CHECK_OK(sh_association_weights(&context, tape, &e))) {
            sh_association_steps(tape, steps);
            CHECK(!memcmp(out, again, (size_t)(QUERIES * V) * size_of(type)) && e.n == QUERIES);
            for (int64_t b = 0; b < B; b++)
                for (int64_t n = 0; n < N; n++)
                    for (int64_t h = 0; h < H; h++) {
                        const int64_t q = (b * N + n) * H + h, row = (b * H + h) * N + n;
                        double w[ROWS], want[V], again_want[V], found[ROWS] = {0};
                        const int made = plain_associate(p, b, n, h, w, want);
                        double size = 1;
                        for (int j = 0; j < ROWS; j++) size += fabs(w[j]);
                        for (int c = 0; c < V; c++)
                            CHECK_NEAR(get(out, type, q * V + c), want[c], tolerance * size * size);
                        for (int64_t at = e.start[row]; at < e.start[row + 1]; at++)
                            if (CHECK(e.position[at] >= 0 && e.position[at] < ROWS))
                                found[e.position[at]] = e.weight[at];
                        for (int j = 0; j < ROWS; j++) CHECK_NEAR(found[j], w[j], tolerance * size * size);
                        if (p->steps < 0 || steps[q] == made) continue;
                        problem fewer = *p; /* it converged before */
                        fewer.steps = (int)steps[q];
                        CHECK(steps[q] < made);
                        plain_associate(&fewer, b, n, h, w, again_want);
                        for (int c = 0; c < V; c++) CHECK_NEAR(again_want[c], want[c], tolerance * size * size);
                    }
        }
        sh_entries_free(&context, &e);
        sh_tape_free(&context, tape);
        CHECK(l.live == 0);
        free(out), free(again), free((void *)g.a.mask);
        free_arrays(&g);
    }
}

/* Checks gradients by a third of all numbers, in double. */
static void backward(problem *p, int implicit) {
    arrays g = arrays_of(p, SH_FLOAT64);
    g.a.implicit = implicit;
    double out[QUERIES * V], weight[QUERIES * V], dquery[QUERIES * D], dkey[ROWS * H * D], dvalue[ROWS * H * V],
        dbeta[QUERIES];
    for (int i = 0; i < QUERIES * V; i++) weight[i] = normal(&seed);
    const sh_gradients gradients = {.query = dquery,
                                    .key = dkey,
                                    .value = dvalue,
                                    .query_row = H * D,
                                    .key_row = H * D,
                                    .value_row = H * V,
                                    .beta = dbeta};
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 2);
    sh_tape *tape = NULL;
    int64_t unconverged;
    if (CHECK_OK(sh_association_forward(&context, &g.a, out, &tape, &unconverged)) &&
        CHECK_OK(sh_association_backward(&context, tape, weight, &gradients))) {
        const double most = implicit ? 1e-4 : 2e-5;
        for (int i = 0; i < QUERIES * D; i += 3)
            CHECK_NEAR(dquery[i], implicit ? 0 : quotient(p, &p->query[i], weight), most * 10);
        for (int i = 1; i < ROWS * H * D; i += 3) {
            const double want = quotient(p, &p->key[i], weight);
            CHECK_NEAR(dkey[i], want, most * 10 * (1 + fabs(want)));
        }
        for (int i = 2; i < ROWS * H * V; i += 3) CHECK_NEAR(dvalue[i], quotient(p, &p->value[i], weight), most);
        for (int h = 0; h < H && !implicit; h++) {
            double sum = 0;
            for (int q = 0; q < B * N; q++) sum += dbeta[q * H + h]; /* (B, N, H) */
            CHECK_NEAR(sum, quotient(p, &p->beta[h], weight), most * 20);
        }
    }
    sh_tape_free(&context, tape);
    CHECK(l.live == 0);
    free_arrays(&g);
}

static void associations(void) {
    const sh_structure window = {.pairs = SH_PAIRS_WINDOW, .width = 2, .dilation = 1};
    for (int k = 0; k < MODEL_COUNT; k++)
        for (int which = 0; which < 6; which++) {
            problem p = problem_of(MODELS[k]);
            p.steps = which % 3;
            p.padded = which == 1;
            p.masked = which == 2 && MODELS[k].separation != SH_POLYNOMIAL;
            p.structure = which == 3 ? &window : NULL;
            p.ragged = which == 4;
            forward(&p);
            p.masked = 0;
            /* where a weight is near a kink of its map, difference quotients are wrong */
            if (MODELS[k].separation != SH_SPARSEMAX || which != 5) backward(&p, 0);
        }
    for (int k = 1; k < 3; k++) { /* softmax and 1.5-entmax, until converged */
        problem p = problem_of(MODELS[k]);
        for (int i = 0; i < ROWS * H * D; i++) p.key[i] *= 0.5;
        p.steps = -1;
        forward(&p);
        if (k == 1) backward(&p, 1);
    }
}

/* Checks that projections give what projected rows do, and that dropout leaves the other weights larger. */
static void projections_and_dropout(void) {
    enum { FROM = 6, LARGE = 400 };
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 2);
    for (int k = 0; k < 4; k++) { /* maps that no shift changes */
        problem p = problem_of(MODELS[k]);
        double raw[ROWS * FROM], weight[H * D * FROM], bias[H * D], vweight[H * V * FROM], vbias[H * V],
            out[QUERIES * V], w[ROWS], want[V];
        for (int i = 0; i < ROWS * FROM; i++) raw[i] = normal(&seed);
        for (int i = 0; i < H * D * FROM; i++) weight[i] = 0.4 * normal(&seed);
        for (int i = 0; i < H * V * FROM; i++) vweight[i] = normal(&seed);
        for (int i = 0; i < H * D; i++) bias[i] = normal(&seed);
        for (int i = 0; i < H * V; i++) vbias[i] = normal(&seed);
        for (int r = 0; r < ROWS; r++)
            for (int h = 0; h < H; h++) {
                for (int c = 0; c < D; c++) {
                    double sum = bias[h * D + c];
                    for (int f = 0; f < FROM; f++) sum += weight[(h * D + c) * FROM + f] * raw[r * FROM + f];
                    p.key[(r * H + h) * D + c] = sum;
                }
                for (int c = 0; c < V; c++) {
                    double sum = vbias[h * V + c];
                    for (int f = 0; f < FROM; f++) sum += vweight[(h * V + c) * FROM + f] * raw[r * FROM + f];
                    p.value[(r * H + h) * V + c] = sum;
                }
            }
        p.steps = k % 2;
        arrays g = arrays_of(&p, SH_FLOAT64);
        g.a.key = g.a.value = (sh_stack){raw, M * FROM, FROM, 0};
        g.a.key_map = (sh_projection){weight, bias, FROM};
        g.a.value_map = (sh_projection){vweight, vbias, FROM};
        int64_t unconverged;
        if (CHECK_OK(sh_association_forward(&context, &g.a, out, NULL, &unconverged)))
            for (int64_t q = 0; q < QUERIES; q++) {
                plain_associate(&p, q / H / N, q / H % N, q % H, w, want);
                for (int c = 0; c < V; c++) CHECK_NEAR(out[q * V + c], want[c], 1e-9);
            }
        free_arrays(&g);
    }
    /* values that are the rows of the identity show the weights themselves */
    double query[1] = {0}, *key = own(LARGE, sizeof *key), *identity = own(LARGE * LARGE, sizeof *identity),
           *out = own(LARGE, sizeof *out), *other = own(LARGE, sizeof *out);
    const double one = 1;
    for (int i = 0; i < LARGE; i++) identity[i * LARGE + i] = 1;
    sh_association a = {.type = SH_FLOAT64,
                        .model = {SH_SOFTMAX, 0},
                        .samples = 1,
                        .queries = 1,
                        .stored = LARGE,
                        .heads = 1,
                        .d = 1,
                        .v = LARGE,
                        .query = {query, 1, 1, 1},
                        .key = {key, LARGE, 1, 1},
                        .value = {identity, LARGE * LARGE, LARGE, LARGE},
                        .beta = &one,
                        .dropout = 0.25,
                        .seed = 9};
    int64_t unconverged;
    int dropped = 0;
    CHECK_OK(sh_association_forward(&context, &a, out, NULL, &unconverged));
    for (int i = 0; i < LARGE; i++) {
        dropped += out[i] == 0;
        if (out[i] != 0) CHECK_NEAR(out[i], 1 / (0.75 * LARGE), 1e-14);
    }
    CHECK(dropped > 60 && dropped < 140); /* 100 with a standard deviation of 8.7 */
    CHECK_OK(sh_association_forward(&context, &a, other, NULL, &unconverged));
    CHECK(!memcmp(out, other, LARGE * sizeof *out));
    a.seed = 10;
    CHECK_OK(sh_association_forward(&context, &a, other, NULL, &unconverged));
    CHECK(memcmp(out, other, LARGE * sizeof *out));
    CHECK(l.live == 0);
    free(key), free(identity), free(out), free(other);
}

/* Makes the passes of a problem. */
static sh_status call_all(sh_context *context, void *user) {
    const problem *p = user;
    arrays g = arrays_of(p, SH_FLOAT32);
    static float out[QUERIES * V], dquery[QUERIES * D], dkey[ROWS * H * D], dvalue[ROWS * H * V];
    const sh_gradients gradients = {
        .query = dquery, .key = dkey, .value = dvalue, .query_row = H * D, .key_row = H * D, .value_row = H * V};
    sh_tape *tape = NULL;
    sh_entries e = {0};
    int64_t unconverged;
    sh_status status = sh_association_forward(context, &g.a, out, &tape, &unconverged);
    if (status == SH_OK) status = sh_association_weights(context, tape, &e);
    if (status == SH_OK) sh_entries_free(context, &e);
    if (status == SH_OK) status = sh_association_backward(context, tape, out, &gradients);
    sh_tape_free(context, tape);
    free_arrays(&g);
    return status;
}

/* Checks that values which begin where the keys do, but have more features, are not taken for the keys. */
static void overlapping_values(void) {
    enum { WIDTH = D + 3 };
    const sh_structure structures[] = {{.pairs = SH_PAIRS_WINDOW, .width = 1, .dilation = 3},
                                       {.pairs = SH_PAIRS_RANDOM, .k = 4, .rows = M}};
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 2);
    double *rows = normals(SH_FLOAT64, M * WIDTH, 1, &seed), *query = normals(SH_FLOAT64, M * D, 1, &seed);
    double *copy = copied(SH_FLOAT64, rows, M * WIDTH), out[2][M * WIDTH];
    const double one = 1;
    for (int i = 0; i < 2; i++) {
        int64_t unconverged;
        sh_association a = {.type = SH_FLOAT64,
                            .model = {SH_SOFTMAX, 0},
                            .samples = 1,
                            .queries = M,
                            .stored = M,
                            .heads = 1,
                            .d = D,
                            .v = WIDTH,
                            .query = {query, 0, D, D},
                            .key = {rows, 0, WIDTH, 0},
                            .beta = &one,
                            .structure = &structures[i]};
        for (int j = 0; j < 2; j++) {
            a.value = (sh_stack){j ? copy : rows, 0, WIDTH, 0};
            CHECK_OK(sh_association_forward(&context, &a, out[j], NULL, &unconverged));
        }
        CHECK(!memcmp(out[0], out[1], sizeof out[0]));
    }
    CHECK(l.live == 0);
    free(rows), free(query), free(copy);
}

/* Checks failures without memory and of wrong arguments. */
static void failures(void) {
    const sh_structure top = {.pairs = SH_PAIRS_TOP, .k = 3},
                       window = {.pairs = SH_PAIRS_WINDOW, .width = 2, .dilation = 1};
    for (int k = 0; k < MODEL_COUNT; k++) {
        problem p = problem_of(MODELS[k]);
        p.steps = 1;
        p.structure = k == 1 ? &top : k == 3 ? &window : NULL;
        fail_in_turn("an association without memory", call_all, &p, 0);
    }
    problem p = problem_of(MODELS[0]);
    arrays g = arrays_of(&p, SH_FLOAT64);
    double out[QUERIES * V];
    sh_context context = {.threads = 1};
    int64_t unconverged;
    sh_association bad = g.a;
    bad.model = (sh_model){SH_ENTMAX, 0.5};
    CHECK_REFUSED(context, sh_association_forward(&context, &bad, out, NULL, &unconverged), SH_BAD_ARGUMENT,
                  "association");
    bad = g.a, bad.samples = -1;
    CHECK_REFUSED(context, sh_association_forward(&context, &bad, out, NULL, &unconverged), SH_BAD_ARGUMENT,
                  "association");
    const sh_structure wrong = {.pairs = SH_PAIRS_WINDOW, .width = 2, .dilation = 0};
    bad = g.a, bad.structure = &wrong;
    CHECK_REFUSED(context, sh_association_forward(&context, &bad, out, NULL, &unconverged), SH_BAD_ARGUMENT,
                  "dilation");
    bad = g.a, bad.implicit = 1, bad.steps = -1, bad.model = (sh_model){SH_POLYNOMIAL, 3};
    CHECK_REFUSED(context, sh_association_forward(&context, &bad, out, NULL, &unconverged), SH_UNDEFINED, "gradient");
    put(g.query, SH_FLOAT64, 3, NAN);
    CHECK_REFUSED(context, sh_association_forward(&context, &g.a, out, NULL, &unconverged), SH_NOT_FINITE, "queries");
    put(g.query, SH_FLOAT64, 3, 0);
    put(g.key, SH_FLOAT64, 5, INFINITY);
    CHECK(sh_association_forward(&context, &g.a, out, NULL, &unconverged) == SH_NOT_FINITE);
    free_arrays(&g);
}

/* --- dense ------------------------------------------------------------------------------------------ */

/* Checks an array against numbers, within some roundings of its size. */
static void near_all(const void *found, sh_type type, const double *want, int64_t n, double size) {
    for (int64_t i = 0; i < n; i++)
        CHECK_NEAR(get(found, type, i), want[i], size * (type == SH_FLOAT64 ? 1e-12 : 1e-4));
}

/* Checks the functions of association/dense.c on matrices of a size. */
static void dense(sh_type type, int64_t n, int64_t e, int64_t o) {
    sh_context context = {.threads = 2};
    void *x = normals(type, n * e, 1, &seed), *weight = normals(type, o * e, 1, &seed),
         *bias = normals(type, o, 1, &seed);
    void *grad = normals(type, n * o, 1, &seed), *y = own(n * o, size_of(type)), *dx = own(n * e, size_of(type));
    void *dweight = own(o * e, size_of(type)), *dbias = own(o, size_of(type)), *gain = normals(type, e, 1, &seed),
         *shift = normals(type, e, 1, &seed);
    double *want = own(n * o + n * e + o * e + o + e, sizeof *want);
    CHECK_OK(sh_linear(&context, type, n, e, o, x, weight, bias, y));
    for (int64_t i = 0; i < n * o; i++) {
        want[i] = get(bias, type, i % o);
        for (int64_t c = 0; c < e; c++) want[i] += get(x, type, i / o * e + c) * get(weight, type, i % o * e + c);
    }
    near_all(y, type, want, n * o, 10);
    CHECK_OK(sh_linear_backward(&context, type, n, e, o, x, weight, grad, dx, dweight, dbias));
    for (int64_t i = 0; i < n * e; i++) {
        want[i] = 0;
        for (int64_t r = 0; r < o; r++) want[i] += get(grad, type, i / e * o + r) * get(weight, type, r * e + i % e);
    }
    near_all(dx, type, want, n * e, 20);
    for (int64_t i = 0; i < o * e; i++) {
        want[i] = 0;
        for (int64_t r = 0; r < n; r++) want[i] += get(grad, type, r * o + i / e) * get(x, type, r * e + i % e);
    }
    near_all(dweight, type, want, o * e, 20);
    for (int64_t i = 0; i < o; i++) {
        want[i] = 0;
        for (int64_t r = 0; r < n; r++) want[i] += get(grad, type, r * o + i);
    }
    near_all(dbias, type, want, o, 20);

    /* normalisation: x to xhat, and back */
    void *xhat = own(n * e, size_of(type)), *rstd = own(n, size_of(type)), *g = normals(type, n * e, 1, &seed);
    CHECK_OK(sh_normalize(&context, type, n, e, 1e-5, x, xhat, rstd));
    for (int64_t i = 0; i < n; i++) {
        double mean = 0, variance = 0;
        for (int64_t c = 0; c < e; c++) mean += get(x, type, i * e + c) / (double)e;
        for (int64_t c = 0; c < e; c++) variance += pow(get(x, type, i * e + c) - mean, 2) / (double)e;
        const double root = 1 / sqrt(variance + 1e-5);
        CHECK_NEAR(get(rstd, type, i), root, 1e-4 * root);
        for (int64_t c = 0; c < e; c++) want[i * e + c] = (get(x, type, i * e + c) - mean) * root;
    }
    near_all(xhat, type, want, n * e, 20);
    CHECK_OK(sh_normalize_backward(&context, type, n, e, xhat, rstd, g, dx));
    for (int64_t i = 0; i < n; i++) {
        double mean = 0, along = 0;
        for (int64_t c = 0; c < e; c++) {
            mean += get(g, type, i * e + c) / (double)e;
            along += get(g, type, i * e + c) * get(xhat, type, i * e + c) / (double)e;
        }
        for (int64_t c = 0; c < e; c++)
            want[i * e + c] =
                get(rstd, type, i) * (get(g, type, i * e + c) - mean - get(xhat, type, i * e + c) * along);
    }
    near_all(dx, type, want, n * e, e > 1 ? 50 : 5000);

    /* an affine map folded into a linear one, and its gradients taken apart */
    void *folded = own(o * e, size_of(type)), *moved = own(o, size_of(type)), *dgain = own(e, size_of(type)),
         *dshift = own(e, size_of(type));
    CHECK_OK(sh_fold(&context, type, e, o, weight, bias, gain, shift, folded, moved));
    for (int64_t i = 0; i < o * e; i++) want[i] = get(weight, type, i) * get(gain, type, i % e);
    near_all(folded, type, want, o * e, 10);
    for (int64_t i = 0; i < o; i++) {
        want[i] = get(bias, type, i);
        for (int64_t c = 0; c < e; c++) want[i] += get(weight, type, i * e + c) * get(shift, type, c);
    }
    near_all(moved, type, want, o, 10);
    CHECK_OK(sh_unfold(&context, type, e, o, dweight, dbias, weight, gain, shift, folded, dgain, dshift));
    for (int64_t i = 0; i < o * e; i++)
        want[i] = get(dweight, type, i) * get(gain, type, i % e) + get(dbias, type, i / e) * get(shift, type, i % e);
    near_all(folded, type, want, o * e, 100);
    for (int64_t c = 0; c < e; c++) {
        want[c] = want[e + c] = 0;
        for (int64_t i = 0; i < o; i++) {
            want[c] += get(dweight, type, i * e + c) * get(weight, type, i * e + c);
            want[e + c] += get(dbias, type, i) * get(weight, type, i * e + c);
        }
    }
    near_all(dgain, type, want, e, 200);
    near_all(dshift, type, want + e, e, 200);

    /* AdamW, three steps */
    const sh_adamw_options options = {
        .learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6, .weight_decay = 0.05};
    void *first = own(o * e, size_of(type)), *second = own(o * e, size_of(type));
    for (int64_t i = 0; i < o * e; i++) want[i] = get(weight, type, i);
    double *m = own(2 * o * e, sizeof *m);
    for (int64_t step = 1; step <= 3; step++) {
        CHECK_OK(sh_adamw(&context, type, o * e, weight, dweight, first, second, step, options));
        for (int64_t i = 0; i < o * e; i++) {
            const double slope = get(dweight, type, i);
            m[i] = 0.9 * m[i] + 0.1 * slope;
            m[o * e + i] = 0.99 * m[o * e + i] + 0.01 * slope * slope;
            const double mean = m[i] / (1 - pow(0.9, (double)step)),
                         square = m[o * e + i] / (1 - pow(0.99, (double)step));
            want[i] -= 0.1 * (mean / (sqrt(square) + 1e-6) + 0.05 * want[i]);
        }
        near_all(weight, type, want, o * e, 10);
    }
    free(x), free(weight), free(bias), free(grad), free(y), free(dx), free(dweight), free(dbias), free(gain),
        free(shift);
    free(want), free(xhat), free(rstd), free(g), free(folded), free(moved), free(dgain), free(dshift), free(first),
        free(second), free(m);
}

static sh_status call_dense(sh_context *context, void *user) {
    static float x[2000 * 7], weight[9 * 7], grad[2000 * 9], dx[2000 * 7], dweight[9 * 7], dbias[9];
    (void)user;
    return sh_linear_backward(context, SH_FLOAT32, 2000, 7, 9, x, weight, grad, dx, dweight, dbias);
}

int main(void) {
    CHECK_OK(sh_initialise());
    associations();
    projections_and_dropout();
    overlapping_values();
    failures();
    for (int t = 0; t < 2; t++) {
        dense(t ? SH_FLOAT64 : SH_FLOAT32, 7, 5, 3);
        dense(t ? SH_FLOAT64 : SH_FLOAT32, 300, 17, 33);
        dense(t ? SH_FLOAT64 : SH_FLOAT32, 1, 40, 1);
    }
    fail_in_turn("a linear map without memory", call_dense, NULL, 0);
    return checked("association");
}
