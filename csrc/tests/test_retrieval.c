/* Retrieval: every call to a memory, on every path, by every similarity and map, against plain loops in double; that
 * the paths agree bit for bit; what is refused; allocations that fail. */
#include "plain.h"
#include "retrieval/index/index.h"

enum { M = 90, N = 12, D = 10, V = 4 };
static uint64_t seed = 4;
static ledger blocks = {.fail_at = -1}; /* of all calls to a memory, which may store what one of them makes */
static const sh_path PATHS[] = {SH_PATH_AUTO, SH_PATH_SCAN, SH_PATH_LINES, SH_PATH_COLUMNS};
static const sh_model MODELS[] = {
    {SH_SPARSEMAX, 0}, {SH_SOFTMAX, 0}, {SH_ENTMAX, 1.5}, {SH_ENTMAX, 1.2}, {SH_POLYNOMIAL, 3}};
enum { MODEL_COUNT = sizeof MODELS / sizeof *MODELS };

/* A problem: stored patterns and values, queries with a beta of their own. */
typedef struct {
    sh_type type, stored; /* of the computation, of the rows */
    sh_similarity similarity;
    sh_rows patterns, values;
    void *x;
    double beta[N];
    float scale;
} problem;

static double element(const sh_rows *r, int64_t i, int64_t j) {
    const char *row = (const char *)r->data + i * r->stride;
    if (r->type == SH_UINT8) return (double)((float)((const uint8_t *)row)[j] * (r->scale ? r->scale : 1));
    return get(row, r->type, j);
}

static problem problem_of(sh_type type, sh_type stored, sh_similarity similarity) {
    problem p = {.type = type, .stored = stored, .similarity = similarity};
    p.patterns = (sh_rows){.n = M, .d = D, .type = stored};
    if (stored == SH_UINT8) {
        uint8_t *bytes = own(M * D, 1);
        for (int i = 0; i < M * D; i++) bytes[i] = (uint8_t)(1 + 255 * uniform(&seed));
        p.patterns.data = bytes;
        p.patterns.stride = D;
        p.patterns.scale = 1 / 64.0f;
    } else {
        p.patterns.data = normals(stored, M * (D + 1), 1, &seed); /* rows lie apart */
        p.patterns.stride = (int64_t)((D + 1) * size_of(stored));
    }
    const sh_type valued = stored == SH_UINT8 ? type : stored;
    p.values = (sh_rows){.data = normals(valued, M * V, 1, &seed),
                         .n = M,
                         .d = V,
                         .stride = (int64_t)(V * size_of(valued)),
                         .type = valued};
    p.x = own(N * D, size_of(type));
    for (int i = 0; i < N; i++) {
        p.beta[i] = 0.5 + 3 * uniform(&seed);
        for (int j = 0; j < D; j++) put(p.x, type, i * D + j, element(&p.patterns, 7 * i, j) + 0.3 * normal(&seed));
    }
    return p;
}

/* Returns the problem's queries; the pointer to beta is to this copy of the problem. */
static sh_queries queries_of(const problem *p) {
    return (sh_queries){.data = p->x, .n = N, .beta = p->beta, .beta_stride = 1};
}

static void free_problem(problem *p) {
    free((void *)p->patterns.data);
    free((void *)p->values.data);
    free(p->x);
}

/* Computes the score of pattern j at x. */
static double score(const problem *p, sh_model m, const double *x, int64_t j) {
    double dot = 0, pattern2 = 0, distance2 = 0;
    for (int c = 0; c < D; c++) {
        const double y = element(&p->patterns, j, c);
        dot += x[c] * y, pattern2 += y * y, distance2 += (x[c] - y) * (x[c] - y);
    }
    if (p->similarity == SH_DOT) return dot;
    if (p->similarity == SH_COSINE) return dot / sqrt(pattern2);
    return m.separation == SH_POLYNOMIAL ? dot - pattern2 / 2 : -distance2 / 2;
}

static void query_of(const problem *p, int64_t i, double *x) {
    for (int c = 0; c < D; c++) x[c] = get(p->x, p->type, i * D + c);
}

/* Returns how far the library's numbers may be from those of the loops: weights of float32 maps follow from scores. */
static double tolerance(const problem *p) { return p->type == SH_FLOAT64 ? 1e-9 : 2e-4; }

/* Tells whether a query sees a pattern under a structure of the tests. */
static int is_visible(const sh_structure *s, int64_t i, int64_t j) {
    if (!s) return 1;
    if (s->pairs == SH_PAIRS_WINDOW) {
        const int64_t place = s->position[i];
        return llabs(j - place) <= s->width;
    }
    for (int64_t at = s->start[i / s->rows]; at < s->start[i / s->rows + 1]; at++)
        if (j / s->columns == s->column[at]) return 1;
    return 0;
}

/* Computes the scores of query i and its weights. */
static void weigh(const problem *p, sh_model m, const sh_structure *s, int64_t i, double *scores, double *w) {
    double x[D], z[M], visible[M];
    query_of(p, i, x);
    for (int64_t j = 0; j < M; j++) {
        scores[j] = score(p, m, x, j);
        visible[j] = scores[j];
    }
    for (int64_t j = 0; j < M; j++) {
        int64_t better = 0;
        for (int64_t l = 0; s && s->pairs == SH_PAIRS_TOP && l < M; l++)
            better += scores[l] > scores[j] || (scores[l] == scores[j] && l < j);
        if (s && (s->pairs == SH_PAIRS_TOP ? better >= s->k : !is_visible(s, i, j))) visible[j] = -INFINITY;
        z[j] = p->beta[i] * visible[j];
    }
    plain_weights(m, M, z, w);
}

/* --- what calls return -------------------------------------------------------------------------------------------- */

static void updates(const problem *p, const sh_memory *memory, sh_model m, const sh_structure *s, int with_values) {
    const int64_t v = with_values ? V : D;
    const sh_rows *mixed = with_values ? &p->values : &p->patterns;
    void *first = NULL;
    int64_t support[N];
    double energy[N], unit[M]; /* by cosine similarity patterns are taken at length 1 */
    for (int j = 0; j < M; j++) {
        double length2 = 0;
        for (int c = 0; c < D; c++) length2 += element(&p->patterns, j, c) * element(&p->patterns, j, c);
        unit[j] = p->similarity == SH_COSINE ? sqrt(length2) : 1;
    }
    sh_queries queries = queries_of(p);
    queries.structure = s;
    for (size_t path = 0; path < sizeof PATHS / sizeof *PATHS; path++) {
        sh_context context = context_of(&blocks, 1 + (int)path % 2);
        context.path = PATHS[path];
        void *states = own(N * v, size_of(p->type));
        CHECK_OK(sh_update(&context, memory, m, queries, states, support));
        if (m.separation == SH_POLYNOMIAL)
            CHECK_REFUSED(context, sh_energy(&context, memory, m, queries, energy), SH_UNDEFINED, "separation");
        else
            CHECK_OK(sh_energy(&context, memory, m, queries, energy));
        if (path > 0) { /* the same bits */
            CHECK(plain_alpha(m) <= 1 || !memcmp(states, first, (size_t)(N * v) * size_of(p->type)));
            free(states);
            continue;
        }
        first = states;
        for (int64_t i = 0; i < N; i++) {
            double scores[M], w[M], x[D], z[M], length2 = 0, size = 1e-30;
            int64_t weights = 0;
            weigh(p, m, s, i, scores, w);
            for (int j = 0; j < M; j++) weights += w[j] != 0, size += fabs(w[j]);
            for (int64_t c = 0; c < v; c++) {
                double sum = 0;
                for (int j = 0; j < M; j++) sum += w[j] * element(mixed, j, c) / (with_values ? 1 : unit[j]);
                CHECK_NEAR(get(states, p->type, i * v + c), sum, 10 * tolerance(p) * size);
            }
            if (plain_alpha(m) > 1 && p->type == SH_FLOAT64) CHECK(llabs(support[i] - weights) <= 1);
            if (m.separation == SH_POLYNOMIAL) continue;
            query_of(p, i, x);
            for (int c = 0; c < D; c++) length2 += x[c] * x[c];
            for (int j = 0; j < M; j++) z[j] = w[j] > 0 ? p->beta[i] * scores[j] : 0;
            double want = length2 / 2;
            /* euclidean scores have -|x|^2/2 in them, which the energy gives back */
            want -= plain_conjugate(m, M, z, w) / p->beta[i] + (p->similarity == SH_EUCLIDEAN ? length2 / 2 : 0);
            CHECK_NEAR(energy[i], want, 10 * tolerance(p) * (1 + length2 + fabs(want)));
        }
    }
    free(first);
}

static void lists(const problem *p, const sh_memory *memory, sh_model m) {
    const sh_queries queries = queries_of(p);
    sh_context context = context_of(&blocks, 2);
    sh_entries e;
    const int64_t top = plain_alpha(m) > 1 ? 0 : 5;
    if (top) CHECK_REFUSED(context, sh_associate(&context, memory, m, queries, 0, 0, &e), SH_BAD_ARGUMENT, "top");
    if (!CHECK_OK(sh_associate(&context, memory, m, queries, top, 0, &e))) return;
    CHECK(e.n == N && e.start[0] == 0);
    void *states = own(N * V, size_of(p->type));
    for (int64_t i = 0; i < N; i++) {
        double scores[M], w[M];
        weigh(p, m, NULL, i, scores, w);
        int64_t last = -1;
        for (int64_t at = e.start[i]; at < e.start[i + 1]; at++) {
            const int64_t j = e.position[at];
            CHECK(j > last && j < M);
            CHECK_NEAR(e.score[at], scores[j], tolerance(p) * (1 + fabs(scores[j])));
            CHECK_NEAR(e.weight[at], w[j], 10 * tolerance(p) * (1 + w[j])); /* more than 1 by the polynomial */
            last = j;
        }
        CHECK(!top || e.start[i + 1] - e.start[i] <= top);
    }
    /* the weights again, from the scores alone; and the states, from the weights */
    double *weight = own(e.start[N], sizeof *weight);
    if (plain_alpha(m) > 1) {
        CHECK_OK(sh_solve(&context, m, p->type, N, p->beta, 1, e.start, e.score, weight));
        for (int64_t at = 0; at < e.start[N]; at++) CHECK(weight[at] == e.weight[at]);
    } else
        CHECK_REFUSED(context, sh_solve(&context, m, p->type, N, p->beta, 1, e.start, e.score, weight), SH_BAD_ARGUMENT,
                      "separation");
    CHECK_OK(sh_mix(&context, memory, N, e.start, e.position, e.weight, states));
    for (int64_t i = 0; i < N; i++)
        for (int c = 0; c < V; c++) {
            double sum = 0;
            for (int64_t at = e.start[i]; at < e.start[i + 1]; at++)
                sum += e.weight[at] * element(&p->values, e.position[at], c);
            CHECK_NEAR(get(states, p->type, i * V + c), sum, tolerance(p) * 10);
        }
    if (e.start[N] > 0) {
        e.position[0] = M;
        CHECK_REFUSED(context, sh_mix(&context, memory, N, e.start, e.position, e.weight, states), SH_BAD_ARGUMENT,
                      "positions");
    }
    free(weight), free(states);
    sh_entries_free(&context, &e);
}

/* Checks that candidates are the patterns with weight, of maps with full support the k best, from a floor on: none, a
 * score of the list, or more than the best. */
static void candidates(const problem *p, const sh_memory *memory, sh_model m) {
    const sh_structure best = {.pairs = SH_PAIRS_TOP, .k = 9}, window = {.pairs = SH_PAIRS_WINDOW, .dilation = 1};
    sh_queries queries = queries_of(p);
    sh_context context = context_of(&blocks, 2);
    sh_entries all, e;
    uint8_t too_many[N];
    double floor[N];
    if (plain_alpha(m) <= 1) queries.structure = &best;
    if (!CHECK_OK(sh_associate(&context, memory, m, queries, 0, 0, &all))) return;
    for (int step = 0; step < 12; step++) {
        context.path = PATHS[step % 4];
        for (int64_t i = 0; i < N; i++) {
            const int64_t first = all.start[i], n = all.start[i + 1] - first;
            double top = -INFINITY;
            for (int64_t at = first; at < first + n; at++) top = larger(top, all.score[at]);
            floor[i] = step < 4 ? -INFINITY : step < 8 ? all.score[first + i % n] : nextafter(top, INFINITY);
        }
        if (!CHECK_OK(sh_candidates(&context, memory, m, queries, step == 3 ? NULL : floor, 0, &e, too_many))) break;
        CHECK(e.n == N && e.start[0] == 0);
        for (int64_t i = 0; i < N; i++) {
            int64_t found = e.start[i];
            for (int64_t at = all.start[i]; at < all.start[i + 1]; at++) {
                if (all.score[at] < floor[i]) continue;
                if (!CHECK(found < e.start[i + 1])) break;
                CHECK(e.position[found] == all.position[at] && e.score[found] == all.score[at]);
                found++;
            }
            CHECK(found == e.start[i + 1] && !too_many[i]);
            CHECK(step < 8 || e.start[i] == found);
        }
        sh_entries_free(&context, &e);
    }
    sh_entries_free(&context, &all);
    for (int i = 0; i < 2; i++) {
        floor[N - 1] = i ? INFINITY : NAN;
        CHECK_REFUSED(context, sh_candidates(&context, memory, m, queries, floor, 0, &e, too_many), SH_BAD_ARGUMENT,
                      "floor");
        CHECK(context.row == N - 1);
    }
    CHECK_REFUSED(context, sh_candidates(&context, memory, m, queries, NULL, -1, &e, too_many), SH_BAD_ARGUMENT,
                  "most");
    queries.structure = NULL;
    if (m.separation == SH_POLYNOMIAL)
        CHECK_REFUSED(context, sh_candidates(&context, memory, m, queries, NULL, M, &e, too_many), SH_BAD_ARGUMENT,
                      "separation");
    queries.structure = &window;
    if (m.separation != SH_POLYNOMIAL)
        CHECK_REFUSED(context, sh_candidates(&context, memory, m, queries, NULL, M, &e, too_many), SH_BAD_ARGUMENT,
                      "structure");
}

/* Checks the best patterns, margins and radii. */
static void nearest(const problem *p, const sh_memory *memory) {
    enum { COUNT = 6 };
    const sh_queries queries = queries_of(p);
    const sh_model m = {SH_SPARSEMAX, 0};
    sh_context context = context_of(&blocks, 2);
    int64_t position[N * COUNT], which[N], rival[N];
    double found[N * COUNT], margin[M], need[N], radius[N];
    CHECK_OK(sh_nearest(&context, memory, queries, COUNT, position, found));
    for (int64_t i = 0; i < N; i++) {
        double x[D], scores[M];
        query_of(p, i, x);
        for (int64_t j = 0; j < M; j++) scores[j] = score(p, m, x, j);
        for (int64_t k = 0; k < COUNT; k++) {
            const double got = found[i * COUNT + k];
            CHECK_NEAR(got, scores[position[i * COUNT + k]], tolerance(p) * (1 + fabs(got)));
            CHECK(k == 0 || got <= found[i * COUNT + k - 1]);
            int64_t above = 0;
            for (int64_t j = 0; j < M; j++) above += scores[j] > got + tolerance(p) * (1 + fabs(got));
            CHECK(above <= k);
        }
    }
    CHECK_OK(sh_margins(&context, memory, margin));
    for (int64_t i = 0; i < N; i++) {
        which[i] = (5 * i) % M;
        need[i] = 0.1 * (double)i;
    }
    CHECK_OK(sh_radii(&context, memory, N, which, need, 0, radius, rival));
    for (int64_t i = 0; i < M; i++) {
        double x[D], length = 0, scores[M], best = -INFINITY;
        for (int c = 0; c < D; c++) {
            x[c] = element(&p->patterns, i, c);
            length += x[c] * x[c];
        }
        for (int c = 0; c < D && p->similarity == SH_COSINE; c++) x[c] /= sqrt(length);
        for (int64_t j = 0; j < M; j++) {
            scores[j] = score(p, m, x, j);
            if (j != i) best = larger(best, scores[j]);
        }
        CHECK_NEAR(margin[i], scores[i] - best, 10 * tolerance(p) * (1 + fabs(scores[i])));
        for (int64_t n = 0; n < N; n++) {
            if (which[n] != i) continue;
            double least = INFINITY;
            for (int64_t j = 0; j < M; j++) {
                double distance2 = 0, other = 0;
                for (int c = 0; c < D; c++) other += element(&p->patterns, j, c) * element(&p->patterns, j, c);
                for (int c = 0; c < D; c++) {
                    const double y = element(&p->patterns, j, c) / (p->similarity == SH_COSINE ? sqrt(other) : 1);
                    distance2 += (x[c] - y) * (x[c] - y);
                }
                if (j != i) least = fmin(least, (scores[i] - scores[j] - need[n]) / sqrt(distance2));
            }
            CHECK_NEAR(radius[n], least, 20 * tolerance(p) * (1 + fabs(least)));
            CHECK(rival[n] >= 0 && rival[n] != i);
        }
    }
    CHECK_REFUSED(context, sh_nearest(&context, memory, queries, 0, position, found), SH_BAD_ARGUMENT, "count");
    CHECK_REFUSED(context, sh_nearest(&context, memory, queries, SH_NEAREST + 1, position, found), SH_BAD_ARGUMENT,
                  "count");
    CHECK_REFUSED(context, sh_radii(&context, memory, N, which, need, -1, radius, rival), SH_BAD_ARGUMENT, "slack");
    which[2] = M;
    CHECK_REFUSED(context, sh_radii(&context, memory, N, which, need, 0, radius, rival), SH_BAD_ARGUMENT, "which");
    CHECK(context.row == 2);
    which[2] = 0;
    need[3] = NAN;
    CHECK_REFUSED(context, sh_radii(&context, memory, N, which, need, 0, radius, rival), SH_NOT_FINITE, "need");
}

/* Checks repeated updates by single ones. */
static void retrievals(const problem *p, const sh_memory *memory, sh_model m) {
    enum { STEPS = 4 };
    const sh_queries queries = queries_of(p);
    sh_context context = context_of(&blocks, 2);
    void *last = own(N * D, size_of(p->type)), *before = own(N * D, size_of(p->type)),
         *one = own(N * D, size_of(p->type));
    int64_t steps[N], support[N], once[N];
    uint8_t converged[N];
    CHECK_OK(sh_retrieve(&context, memory, m, queries, STEPS, 0, last, steps, converged, support, before));
    sh_queries next = queries;
    next.data = before;
    CHECK_OK(sh_update(&context, memory, m, next, one, once));
    for (int64_t i = 0; i < N * D;
         i++) /* the last update, of what it began from; by the BLAS, of other queries beside it */
        CHECK_NEAR(get(one, p->type, i), get(last, p->type, i),
                   plain_alpha(m) > 1 ? 0 : tolerance(p) * (1 + fabs(get(last, p->type, i))));
    for (int64_t i = 0; i < N; i++) {
        CHECK(steps[i] >= 0 && steps[i] <= STEPS && support[i] == once[i]);
        if (converged[i]) {
            const size_t row = (size_t)D * size_of(p->type);
            CHECK(!memcmp((char *)before + i * (int64_t)row, (char *)last + i * (int64_t)row, row));
        } else
            CHECK(steps[i] == STEPS);
    }
    CHECK_OK(sh_retrieve(&context, memory, m, queries, 0, 0, last, steps, converged, support, NULL));
    CHECK(!memcmp(last, p->x, (size_t)(N * D) * size_of(p->type)) && steps[0] == 0);
    CHECK_OK(sh_retrieve(&context, memory, m, queries, 50, 1e3, last, steps, converged, support, NULL));
    for (int64_t i = 0; i < N; i++) CHECK(steps[i] == 1 && converged[i] == 1); /* no step is so long */
    CHECK_REFUSED(context, sh_retrieve(&context, memory, m, queries, -1, 0, last, steps, converged, support, NULL),
                  SH_BAD_ARGUMENT, "max_steps");
    CHECK_REFUSED(context, sh_retrieve(&context, memory, m, queries, 1, NAN, last, steps, converged, support, NULL),
                  SH_BAD_ARGUMENT, "tol");
    free(last), free(before), free(one);
}

/* Checks that the merged partial results of two parts of the patterns are those of all. */
static void partial_results(const problem *p, sh_model m) {
    if (plain_alpha(m) > 1) return;
    sh_context context = context_of(&blocks, 2);
    double scale[3][N], sum[3][N];
    void *mixture[3];
    for (int part = 0; part < 3; part++) { /* all, the first, the others */
        const int64_t first = part == 2 ? M / 3 : 0, end = part == 1 ? M / 3 : M;
        sh_rows patterns = p->patterns, values = p->values;
        patterns.data = (const char *)patterns.data + first * patterns.stride;
        values.data = (const char *)values.data + first * values.stride;
        patterns.n = values.n = end - first;
        sh_memory *memory = NULL;
        mixture[part] = own(N * V, size_of(p->type));
        if (CHECK_OK(sh_memory_new(&context, &patterns, &values, p->similarity, p->type, &memory)))
            CHECK_OK(
                sh_accumulate(&context, memory, m, queries_of(p), (sh_partial){scale[part], sum[part], mixture[part]}));
        sh_memory_free(&context, memory);
    }
    CHECK_OK(sh_merge(m, p->type, N, V, p->beta, 1, (sh_partial){scale[1], sum[1], mixture[1]},
                      (sh_partial){scale[2], sum[2], mixture[2]}));
    for (int64_t i = 0; i < N; i++) {
        CHECK_NEAR(scale[1][i], scale[0][i], tolerance(p) * (1 + fabs(scale[0][i])));
        CHECK_NEAR(sum[1][i], sum[0][i], 50 * tolerance(p) * (1 + fabs(sum[0][i])));
        for (int c = 0; c < V; c++)
            CHECK_NEAR(get(mixture[1], p->type, i * V + c), get(mixture[0], p->type, i * V + c),
                       100 * tolerance(p) * (1 + fabs(sum[0][i])));
    }
    for (int part = 0; part < 3; part++) free(mixture[part]);
}

static void all_calls(void) {
    static const sh_type types[][2] = {{SH_FLOAT32, SH_FLOAT32},
                                       {SH_FLOAT64, SH_FLOAT64},
                                       {SH_FLOAT32, SH_UINT8},
                                       {SH_FLOAT64, SH_UINT8},
                                       {SH_FLOAT64, SH_FLOAT32}};
    enum { TYPES = sizeof types / sizeof *types };
    for (int round = 0; round < 3 * TYPES; round++) {
        problem p = problem_of(types[round % TYPES][0], types[round % TYPES][1], (sh_similarity)(round / TYPES));
        sh_context context = context_of(&blocks, 1);
        sh_memory *memory = NULL, *mixing = NULL;
        if (!CHECK_OK(sh_memory_new(&context, &p.patterns, NULL, p.similarity, p.type, &memory))) return;
        if (!CHECK_OK(sh_memory_new(&context, &p.patterns, &p.values, p.similarity, p.type, &mixing))) return;
        int64_t position[N];
        const int64_t start[] = {0, 2, 3}, column[] = {0, 4, 2};
        for (int64_t i = 0; i < N; i++) position[i] = (i * 11) % M;
        const sh_structure structures[] = {{.pairs = SH_PAIRS_TOP, .k = 7},
                                           {.pairs = SH_PAIRS_WINDOW, .width = 9, .dilation = 1, .position = position},
                                           {.pairs = SH_PAIRS_BLOCKS,
                                            .rows = N / 2,
                                            .columns = 15,
                                            .start = start,
                                            .start_n = 2,
                                            .column = column,
                                            .column_n = 3}};
        for (int k = 0; k < MODEL_COUNT; k++) {
            updates(&p, memory, MODELS[k], NULL, 0);
            updates(&p, mixing, MODELS[k], NULL, 1);
            updates(&p, mixing, MODELS[k], &structures[(round + k) % 3], 1);
            lists(&p, mixing, MODELS[k]);
            candidates(&p, memory, MODELS[k]);
            retrievals(&p, memory, MODELS[k]);
            partial_results(&p, MODELS[k]);
        }
        nearest(&p, memory);
        sh_memory_free(&context, memory);
        sh_memory_free(&context, mixing);
        CHECK(blocks.live == 0);
        free_problem(&p);
    }
}

/* --- indexes ------------------------------------------------------------------------------------------ */

enum { LARGE = 3000, QUERIES = 400, FEW = 80, WIDTH = 40 };
static int64_t asked = QUERIES; /* of indexes; few where time is short */
static float rows[LARGE][WIDTH], query_rows[QUERIES][WIDTH];

static void make_rows(void) {
    for (int i = 0; i < LARGE; i++)
        for (int c = 0; c < WIDTH; c++)
            rows[i][c] = (float)(c < 8 ? normal(&seed) : (double)rows[i][c % 8] + 0.3 * normal(&seed));
    for (int i = 0; i < QUERIES; i++)
        for (int c = 0; c < WIDTH; c++) query_rows[i][c] = rows[5 * i][c] + (float)(0.2 * normal(&seed));
}

static sh_rows rows_of(int64_t n) {
    return (sh_rows){.data = rows, .n = n, .d = WIDTH, .stride = sizeof rows[0], .type = SH_FLOAT32};
}

static void indexes(void) {
    static float want[QUERIES][WIDTH], got[QUERIES][WIDTH];
    const double beta = 2;
    const sh_model m = {SH_SPARSEMAX, 0};
    const sh_queries queries = {.data = query_rows, .n = asked, .beta = &beta};
    const sh_rows all = rows_of(LARGE), most = rows_of(LARGE - 500);
    for (int s = 0; s < 3; s++)
        for (size_t path = 1; path < sizeof PATHS / sizeof *PATHS; path++) {
            ledger l = {.fail_at = -1};
            sh_context context = context_of(&l, 2);
            context.path = PATHS[path];
            sh_memory *memory = NULL, *first = NULL;
            int64_t counts[QUERIES][4];
            /* an index taken over from a memory that grows */
            if (!CHECK_OK(sh_memory_new(&context, &most, NULL, (sh_similarity)s, SH_FLOAT32, &first))) return;
            CHECK_OK(sh_update(&context, first, m, queries, got, NULL));
            if (!CHECK_OK(sh_memory_extend(&context, first, &all, NULL, &memory))) return;
            sh_memory_free(&context, first);
            CHECK_OK(sh_update(&context, memory, m, queries, got, NULL));
            CHECK((sh_memory_index_bytes(memory) > 0) == (PATHS[path] != SH_PATH_SCAN));
            if (path == 1)
                memcpy(want, got, sizeof got);
            else
                CHECK(!memcmp(want, got, sizeof got));
            CHECK_OK(sh_survey(&context, memory, m, queries, &counts[0][0]));
            for (int i = 0; i < asked; i++) {
                CHECK(counts[i][3] >= 1);
                /* listed, still there after closer bounds, scored, with weight; the scan knows the last two */
                const int64_t *c = counts[i];
                CHECK(c[3] <= c[2]);
                CHECK(path == 1 ? c[0] == -1 && c[1] == -1 : c[0] >= 1 && c[0] <= LARGE && c[1] <= c[0]);
            }
            sh_queries five = queries;
            five.n = 5;
            double *bounds = own(5 * LARGE * 3, sizeof *bounds);
            if (path > 1) {
                CHECK_OK(sh_bounds(&context, memory, five, bounds));
                for (int64_t i = 0; i < 5; i++)
                    for (int64_t j = 0; j < LARGE; j++) {
                        double dot = 0, length2 = 0, distance2 = 0;
                        for (int c = 0; c < WIDTH; c++) {
                            const double x = (double)query_rows[i][c], y = (double)rows[j][c];
                            dot += x * y, length2 += y * y, distance2 += (x - y) * (x - y);
                        }
                        const double exact = s == SH_DOT ? dot : s == SH_COSINE ? dot / sqrt(length2) : -distance2 / 2;
                        const double *b = bounds + (i * LARGE + j) * 3, slack = 1e-12 * (1 + fabs(exact));
                        CHECK(b[0] >= exact - slack && b[1] >= exact - slack && b[2] <= exact + slack);
                    }
            }
            free(bounds);
            uint64_t print[3];
            CHECK_OK(sh_memory_fingerprint(&context, memory, &print[0]));
            CHECK_OK(sh_memory_fingerprint(&context, memory, &print[1]));
            rows[17][3] += 1;
            CHECK_OK(sh_memory_fingerprint(&context, memory, &print[2]));
            rows[17][3] -= 1;
            CHECK(print[0] == print[1] && print[0] != print[2]);
            sh_memory_free(&context, memory);
            CHECK(l.live == 0);
        }
}

/* --- fingerprints ------------------------------------------------------------------------------------- */

/* Patterns of 70 numbers, in steps of 16 by which a row is hashed and a rest, and values, all in one array. */
enum { PRINTED = 5, PRINTED_WIDTH = 70, PRINTED_VALUES = 24, FLIPPED = 16 };
typedef struct {
    float pattern[PRINTED][PRINTED_WIDTH], value[PRINTED][PRINTED_VALUES];
} printed_rows;

static sh_rows printed(const float *data, int64_t d, int64_t stride) {
    return (sh_rows){.data = data, .n = PRINTED, .d = d, .stride = stride, .type = SH_FLOAT32};
}

static uint64_t fingerprint_of(const sh_memory *memory) {
    sh_context context = {.threads = 1};
    uint64_t print = 0;
    CHECK_OK(sh_memory_fingerprint(&context, memory, &print));
    return print;
}

static int compare_prints(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Checks that no two of n fingerprints are equal; sorts them. */
static void check_distinct(uint64_t *print, int64_t n) {
    int64_t equal = 0;
    qsort(print, (size_t)n, sizeof *print, compare_prints);
    for (int64_t i = 1; i < n; i++) equal += print[i] == print[i - 1];
    CHECK(equal == 0);
}

static void flip(printed_rows *r, int64_t bit) { ((uint8_t *)r)[bit / 8] ^= (uint8_t)(1 << bit % 8); }

/* Bit number i of those that family number `family` flips: signs, where nothing else is said. */
static int64_t bit_of(int family, int i) {
    const int64_t row = PRINTED_WIDTH, sign = 31, values = PRINTED * row;
    switch (family) {
    case 0: return 32 * (16 * (i / 4) + i % 4) + sign;                   /* of a pair of words, in all steps */
    case 1: return 32 * (row * (i / 4) + 16 * (i % 4) + 5) + sign;       /* of one place in steps and rows */
    case 2: return 32 * (2 * (i / 4) + 1) + sign - i % 4;                /* upper bits of words */
    case 3: return 32 * (row - FLIPPED + i) + sign;                      /* at the end of a row */
    case 4: return i % 2 ? 32 * (values + i / 2) + sign : 16 * i + sign; /* of a pattern and its value */
    case 5: return 32 * (16 * (i / 4) + 1 - i % 2) + sign - i % 4 / 2;   /* both halves of a word, two bits each */
    default: return i * 547 % (8 * (int64_t)sizeof(printed_rows));       /* anywhere */
    }
}

static void fingerprints(void) {
    enum { FAMILIES = 7, SUBSETS = 1 << FLIPPED };
    uint64_t *print = own(SUBSETS, sizeof *print);
    sh_context context = {.threads = 1};
    for (int zeros = 0; zeros < 2; zeros++) {
        printed_rows r = {0}, kept;
        for (size_t i = 0; !zeros && i < sizeof r / sizeof(float); i++) ((float *)&r)[i] = (float)normal(&seed);
        kept = r;
        const sh_rows patterns = printed(r.pattern[0], PRINTED_WIDTH, sizeof r.pattern[0]);
        const sh_rows values = printed(r.value[0], PRINTED_VALUES, sizeof r.value[0]);
        sh_memory *memory = NULL;
        if (!CHECK_OK(sh_memory_new(&context, &patterns, &values, SH_DOT, SH_FLOAT32, &memory))) return;
        const uint64_t begun = fingerprint_of(memory);
        /* every set of flipped bits, the empty one among them: each differs from the one before by one bit */
        for (int family = 0; family < FAMILIES; family++) {
            for (int64_t set = 0; set < SUBSETS; set++) {
                if (set) flip(&r, bit_of(family, __builtin_ctzll((uint64_t)set)));
                print[set] = fingerprint_of(memory);
            }
            CHECK(print[0] == begun);
            check_distinct(print, SUBSETS);
            r = kept;
        }
        /* rows and columns that change places, rows that move up, patterns in the places of values */
        int64_t n = 0;
        print[n++] = begun;
        for (int i = 0; i < PRINTED && !zeros; i++)
            for (int j = 0; j < i; j++, r = kept) {
                memcpy(r.pattern[i], kept.pattern[j], sizeof r.pattern[j]);
                memcpy(r.pattern[j], kept.pattern[i], sizeof r.pattern[i]);
                print[n++] = fingerprint_of(memory);
            }
        for (int i = 0; i < PRINTED_WIDTH && !zeros; i++)
            for (int j = 0; j < i; j++, r = kept) {
                for (int row = 0; row < PRINTED; row++) {
                    r.pattern[row][i] = kept.pattern[row][j];
                    r.pattern[row][j] = kept.pattern[row][i];
                }
                print[n++] = fingerprint_of(memory);
            }
        for (int by = 1; by < PRINTED && !zeros; by++, r = kept) {
            for (int i = 0; i < PRINTED; i++)
                memcpy(r.pattern[i], kept.pattern[(i + by) % PRINTED], sizeof r.pattern[i]);
            print[n++] = fingerprint_of(memory);
        }
        for (int i = 0; i < PRINTED && !zeros; i++, r = kept) {
            memcpy(r.pattern[i], kept.value[i], sizeof r.value[i]);
            memcpy(r.value[i], kept.pattern[i], sizeof r.value[i]);
            print[n++] = fingerprint_of(memory);
        }
        check_distinct(print, n);
        /* the same rows elsewhere, farther apart, grown, by more threads */
        float apart[PRINTED][PRINTED_WIDTH + 3] = {{0}};
        for (int i = 0; i < PRINTED; i++) memcpy(apart[i], r.pattern[i], sizeof r.pattern[i]);
        sh_rows far = printed(apart[0], PRINTED_WIDTH, sizeof apart[0]), first = far, its_values = values;
        first.n = its_values.n = 2;
        sh_memory *other = NULL, *grown = NULL;
        CHECK_OK(sh_memory_new(&context, &first, &its_values, SH_DOT, SH_FLOAT32, &other));
        CHECK_OK(sh_memory_extend(&context, other, &far, &values, &grown));
        CHECK(fingerprint_of(grown) == begun && fingerprint_of(other) != begun);
        for (int threads = 2; threads < 4; threads++) {
            sh_context more = {.threads = threads};
            uint64_t again = 0;
            CHECK_OK(sh_memory_fingerprint(&more, grown, &again));
            CHECK(again == begun);
        }
        sh_memory_free(&context, grown);
        sh_memory_free(&context, other);
        sh_memory_free(&context, memory);
    }
    /* zeros, as long as rows may be that end anywhere in a step */
    static const uint8_t nothing[200];
    for (int64_t bytes = 1; bytes <= 200; bytes++) {
        const sh_rows row = {.data = nothing, .n = 1, .d = bytes, .stride = bytes, .type = SH_UINT8, .scale = 1};
        sh_memory *memory = NULL;
        CHECK_OK(sh_memory_new(&context, &row, NULL, SH_DOT, SH_FLOAT32, &memory));
        print[bytes - 1] = fingerprint_of(memory);
        sh_memory_free(&context, memory);
    }
    check_distinct(print, 200);
    free(print);
}

/* Writes n rows of d numbers that an order may stumble over. */
static void make_crowd(int family, float *x, int64_t n, int64_t d) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) {
            const int64_t copied = family == 1 ? i % 3 : family == 2 ? 0 : family == 3 && i % 10 ? 0 : i;
            const double own = normal(&seed), line = 1 - (double)i / (double)n;
            x[i * d + j] = copied < i          ? x[copied * d + j]
                           : family == 4       ? (float)((double)(1 + j) * line)
                           : family == 5       ? (float)(own * exp2((double)(i % 60) - 40))
                           : family == 3 && !i ? 0
                                               : (float)own;
        }
}

/* Checks an index of all rows of a memory: every pattern has one slot, in panels that are full but for the last of each
 * segment, and both its box and its code reach the bound threshold of its score. */
static void check_slots(const sh_index *index, const sh_job *job) {
    const int64_t n = job->memory->patterns.n, slots = index->panel_count * SH_PANEL;
    uint8_t *seen = own(n, 1);
    int64_t empty = 0;
    for (int64_t i = 0; i < slots; i++) {
        const int32_t pattern = index->order[i];
        if (!CHECK(pattern >= -1 && pattern < n)) return;
        if (pattern < 0) {
            empty++;
            CHECK(i + 1 == slots || (i + 1) % SH_PANEL == 0 || index->order[i + 1] < 0);
        } else {
            CHECK(!seen[pattern]++);
        }
    }
    CHECK(index->patterns == n && slots - empty == n && empty < SH_PANEL * index->segments);
    for (int64_t i = 0; i < index->segments; i++) {
        const int64_t start = index->segment_start[i];
        const int64_t end = i + 1 < index->segments ? index->segment_start[i + 1] : n;
        CHECK((i > 0) == (start > 0) && end - start > n - end);
    }
    sh_query_codes codes;
    sh_workspace w = {0};
    const int64_t queries = job->queries.n;
    sh_take_query_codes(&w, index, job->memory, queries, &codes);
    void *memory = sh_allocate(job->context, 1, w.used);
    w = (sh_workspace){memory, 0};
    sh_take_query_codes(&w, index, job->memory, queries, &codes);
    sh_encode_queries(index, job, NULL, 0, queries, &codes);
    const sh_code_kernels *k = sh_code_kernels_chosen();
    for (int64_t i = 0; i < queries && codes.query[i].norm > 0; i++)
        for (int64_t slot = i; slot < slots; slot += 7) {
            if (index->order[slot] < 0) continue;
            sh_candidate c = {.position = index->order[slot]};
            sh_score_canonically(job, i, &c, 1, NULL);
            int32_t found[SH_PANEL];
            float bound[SH_PANEL];
            uint16_t open;
            const int64_t panel = slot / SH_PANEL;
            sh_filter_query l =
                sh_start_list(index, &codes, i, sh_bound_threshold(index, &codes.query[i], c.score), found, bound);
            sh_filter_query *list = &l;
            k->open_panels(sh_group(index, panel / SH_GROUP), index->boxes_by_distance, &list, 1, &open);
            k->filter(index->panels, index->scales, index->quads, panel, panel + 1, &list, 1);
            int listed = 0;
            for (int64_t j = 0; j < l.found; j++) listed |= found[j] == slot;
            CHECK(open >> panel % SH_GROUP & 1);
            CHECK(listed);
        }
    sh_release(job->context, memory);
    free(seen);
}

/* Orders of patterns, many of them equal: the same for any number of threads, and those of indexes that grow. */
static void orders(void) {
    enum { ROWS = 5000, STEPS = 6 };
    static const int64_t LENGTHS[STEPS] = {3000, 3001, 3050, 3500, 4500, ROWS};
    const double beta = 1;
    for (int t = 0; t < 12; t++) {
        const int64_t d = t % 2 ? 130 : 5;
        const int family = t / 2;
        ledger l = {.fail_at = -1};
        float *x = own(ROWS * d, sizeof *x);
        make_crowd(family, x, ROWS, d);
        sh_index *grown = NULL, *whole[2] = {0};
        for (int step = 0; step < STEPS; step++) {
            sh_context context = context_of(&l, 3), alone = context_of(&l, 1);
            const sh_rows rows = {.data = x, .n = LENGTHS[step], .d = d, .stride = d * 4, .type = SH_FLOAT32};
            sh_memory *memory = NULL;
            const sh_similarity similarity = family == 4 ? SH_DOT : SH_EUCLIDEAN;
            if (!CHECK_OK(sh_memory_new(&context, &rows, NULL, similarity, SH_FLOAT32, &memory))) return;
            sh_job job = {.context = &alone, .memory = memory, .k = memory->k, .map = &sh_map_sparsemax};
            job.queries = (sh_queries){.data = x + d, .n = 3, .beta = &beta};
            sh_index *older = grown;
            if (!older)
                CHECK_OK(sh_index_new(&context, memory, SH_LEADING_COLUMNS, NULL, d, INT64_MAX, &grown));
            else
                CHECK_OK(sh_index_grow(&context, memory, older, INT64_MAX, &grown));
            if (older) sh_index_free(&context, older);
            if (family == 5 && !grown) { /* a larger pattern came: no room in its scaling */
                sh_memory_free(&context, memory);
                continue;
            }
            if (!CHECK(grown)) return;
            check_slots(grown, &job);
            if (step + 1 == STEPS) {
                for (int i = 0; i < 2; i++)
                    CHECK_OK(
                        sh_index_new(i ? &context : &alone, memory, SH_LEADING_COLUMNS, NULL, d, INT64_MAX, &whole[i]));
                if (!CHECK(whole[0] && whole[1])) return;
                const int64_t panels = whole[0]->panel_count;
                check_slots(whole[0], &job);
                CHECK(!memcmp(whole[0]->order, whole[1]->order, (size_t)panels * SH_PANEL * 4));
                CHECK(!memcmp(whole[0]->scales, whole[1]->scales, (size_t)panels * 4));
                CHECK(!memcmp(whole[0]->boxes, whole[1]->boxes,
                              (size_t)(panels + SH_GROUP - 1) / SH_GROUP * SH_GROUP_FLOATS * 4));
                sh_index_free(&context, whole[0]), sh_index_free(&context, whole[1]);
            }
            sh_memory_free(&context, memory);
        }
        sh_context context = context_of(&l, 1);
        sh_index_free(&context, grown);
        free(x);
        CHECK(l.live == 0);
    }
}

/* Checks that float64 and float32 memories of the same rows use one index, and answer by it as memories of their own do. */
static void shared_indexes(void) {
    static double query[QUERIES][WIDTH], want[QUERIES][WIDTH], got[QUERIES][WIDTH];
    const double beta = 2;
    const sh_rows all = rows_of(LARGE);
    for (int i = 0; i < QUERIES; i++)
        for (int c = 0; c < WIDTH; c++) query[i][c] = (double)query_rows[i][c] + 1e-9 * normal(&seed);
    const sh_queries queries = {.data = query, .n = asked, .beta = &beta};
    for (int s = 0; s < 3; s++)
        for (int which = 0; which < 2; which++) { /* of the two, which builds the index */
            ledger l = {.fail_at = -1};
            sh_context context = context_of(&l, 2);
            sh_memory *memory[2] = {NULL, NULL};
            for (int i = 0; i < 2; i++)
                if (!CHECK_OK(
                        sh_memory_new(&context, &all, NULL, (sh_similarity)s, i ? SH_FLOAT64 : SH_FLOAT32, &memory[i])))
                    return;
            context.path = SH_PATH_SCAN;
            CHECK_OK(sh_update(&context, memory[1], (sh_model){SH_SPARSEMAX, 0}, queries, want, NULL));
            CHECK_OK(sh_memory_share_index(&context, memory[0], memory[1]));
            CHECK(sh_memory_index_bytes(memory[0]) == 0); /* there is none yet */
            CHECK_OK(sh_memory_index(&context, memory[which]));
            const int64_t live = l.live;
            CHECK_OK(sh_memory_share_index(&context, memory[!which], memory[which]));
            CHECK_OK(sh_memory_share_index(&context, memory[which], memory[!which]));
            CHECK(l.live == live && sh_memory_index_bytes(memory[!which]) == sh_memory_index_bytes(memory[which]));
            sh_memory_free(&context, memory[0]);
            context.path = SH_PATH_LINES;
            CHECK_OK(sh_update(&context, memory[1], (sh_model){SH_SPARSEMAX, 0}, queries, got, NULL));
            CHECK(!memcmp(want, got, sizeof got));
            sh_memory_free(&context, memory[1]);
            CHECK(l.live == 0);
        }
}

/* Checks that calls build an index where memory is available, or where they are told to. */
static void use_of_indexes(void) {
    static float got[QUERIES][WIDTH];
    static const struct {
        sh_index_use use;
        int64_t available;
        int built;
    } cases[] = {{SH_INDEX_AUTO, (int64_t)1 << 40, 1},
                 {SH_INDEX_AUTO, 1 << 16, 0},
                 {SH_INDEX_AUTO, 0, 0},
                 {SH_INDEX_ALWAYS, 0, 1},
                 {SH_INDEX_NEVER, (int64_t)1 << 40, 0}};
    const double beta = 2;
    const sh_queries queries = {.data = query_rows, .n = asked, .beta = &beta};
    const sh_rows all = rows_of(LARGE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sh_context context = {.threads = 2};
        sh_memory *memory = NULL;
        sh_set_available_memory(cases[i].available);
        if (!CHECK_OK(sh_memory_new(&context, &all, NULL, SH_DOT, SH_FLOAT32, &memory))) return;
        sh_memory_use_index(&context, memory, cases[i].use);
        for (int call = 0; call < 6; call++)
            CHECK_OK(sh_update(&context, memory, (sh_model){SH_SPARSEMAX, 0}, queries, got, NULL));
        CHECK((sh_memory_index_bytes(memory) > 0) == cases[i].built);
        sh_set_available_memory(0); /* asked for by name it is built however little is left */
        if (cases[i].use != SH_INDEX_NEVER) {
            CHECK_OK(sh_memory_index(&context, memory));
            CHECK(sh_memory_index_bytes(memory) > 0);
        }
        sh_memory_use_index(&context, memory, SH_INDEX_NEVER);
        CHECK(sh_memory_index_bytes(memory) == 0);
        sh_memory_free(&context, memory);
        sh_set_available_memory(-1);
    }
}

/* --- progress ---------------------------------------------------------------------------------------- */

/* Records what was told, and has when to stop. */
typedef struct {
    int64_t calls, done, total, stop_at;
    int wrong;
} told;

static void note_progress(void *user, int64_t done, int64_t total) {
    told *t = user;
    t->wrong |= done <= t->done || done > total || (t->calls && total != t->total);
    t->calls++;
    t->done = done;
    t->total = total;
}

static int stops(void *user) {
    const told *t = user;
    return t->stop_at && t->done >= t->stop_at;
}

/* Checks that progress is told step by step to the end, that results are those of a call that tells nobody, and that a
 * call ends where it is asked to, and leaves nothing behind. */
static void progress(void) {
    enum { ALL = 40000, D = 8 };
    static float patterns[ALL][D];
    static double want[ALL], got[ALL], need[ALL], want_radius[ALL], radius[ALL];
    static int64_t which[ALL], want_rival[ALL], rival[ALL];
    for (int64_t i = 0; i < ALL; i++) {
        for (int64_t j = 0; j < D; j++) patterns[i][j] = (float)normal(&seed);
        which[i] = i;
    }
    const sh_rows stored = {.data = patterns, .n = ALL, .d = D, .stride = sizeof patterns[0], .type = SH_FLOAT32};
    for (int threads = 1; threads <= 2; threads++) {
        sh_context quiet = {.threads = threads};
        sh_memory *memory[2] = {NULL, NULL};
        for (int i = 0; i < 2; i++)
            if (!CHECK_OK(sh_memory_new(&quiet, &stored, NULL, SH_DOT, SH_FLOAT32, &memory[i]))) return;
        CHECK_OK(sh_memory_index(&quiet, memory[0]));
        told t = {.stop_at = 20000};
        sh_context context = {.threads = threads, .progress = note_progress, .interrupted = stops, .user = &t};
        CHECK(sh_memory_index(&context, memory[1]) == SH_INTERRUPTED && sh_memory_index_bytes(memory[1]) == 0);
        CHECK(t.done >= 20000 && t.done < ALL && !t.wrong);
        t = (told){0};
        CHECK_OK(sh_memory_index(&context, memory[1]));
        CHECK(t.calls > 1 && t.done == ALL && t.total == ALL && !t.wrong);
        CHECK(sh_memory_index_bytes(memory[1]) == sh_memory_index_bytes(memory[0]));

        CHECK_OK(sh_margins(&quiet, memory[0], want));
        t = (told){.stop_at = 1};
        CHECK(sh_margins(&context, memory[1], got) == SH_INTERRUPTED && t.calls == 1);
        t = (told){.stop_at = ALL}; /* when all is done */
        CHECK(sh_margins(&context, memory[1], got) == SH_INTERRUPTED && t.done == ALL);
        t = (told){0};
        CHECK_OK(sh_margins(&context, memory[1], got));
        CHECK(t.calls > 8 && t.done == ALL && t.total == ALL && !t.wrong);
        CHECK(!memcmp(want, got, sizeof got));

        CHECK_OK(sh_radii(&quiet, memory[0], ALL, which, need, 0, want_radius, want_rival));
        t = (told){0};
        CHECK_OK(sh_radii(&context, memory[1], ALL, which, need, 0, radius, rival));
        CHECK(t.calls > 8 && t.done == ALL && t.total == ALL && !t.wrong);
        CHECK(!memcmp(want_radius, radius, sizeof radius) && !memcmp(want_rival, rival, sizeof rival));
        for (int i = 0; i < 2; i++) sh_memory_free(&quiet, memory[i]);
    }
}

/* --- removed rows ------------------------------------------------------------------------------------ */

enum { ASKED = 12, LISTS = ASKED * LARGE }; /* queries; entries of all their lists, at most */

/* What all calls to a memory return: of equal memories, the same bytes. */
typedef struct {
    float states[ASKED][WIDTH], before[ASKED][WIDTH], mixed[ASKED][V], listed[ASKED][V], mixture[ASKED][V];
    double energy[ASKED], list_score[LISTS], list_weight[LISTS], best[ASKED * 5], margin[LARGE], radius[ASKED],
        scale[ASKED], sum[ASKED], candidate_score[LISTS];
    int64_t support[ASKED], start[ASKED + 1], list_position[LISTS], nearest[ASKED * 5], rival[ASKED], steps[ASKED],
        counted[ASKED], candidate_start[ASKED + 1], candidate[LISTS];
    uint8_t converged[ASKED], too_many[ASKED];
} answers;

static int has_cutoff(sh_model m) { return m.separation == SH_NORMMAX || plain_alpha(m) > 1; }

/* Asks a memory with values all that it can be asked with a map and perhaps a structure, by queries that perhaps exclude
 * patterns. */
static void ask(sh_context *context, const sh_memory *memory, sh_model m, double beta, const sh_structure *s,
                const int64_t *exclude, answers *a) {
    const sh_queries queries = {.data = query_rows, .n = ASKED, .beta = &beta, .structure = s, .exclude = exclude};
    sh_entries e = {0};
    memset(a, 0, sizeof *a);
    CHECK_OK(sh_update(context, memory, m, queries, a->mixed, a->support));
    CHECK_OK(
        sh_retrieve(context, memory, m, queries, 4, 0.003, a->states, a->steps, a->converged, a->support, a->before));
    if (m.separation != SH_POLYNOMIAL) CHECK_OK(sh_energy(context, memory, m, queries, a->energy));
    if (CHECK_OK(sh_associate(context, memory, m, queries, has_cutoff(m) || s ? 0 : 9, 0, &e))) {
        const size_t n = (size_t)e.start[ASKED];
        memcpy(a->start, e.start, sizeof a->start);
        memcpy(a->list_position, e.position, n * sizeof(int64_t));
        memcpy(a->list_score, e.score, n * sizeof(double));
        memcpy(a->list_weight, e.weight, n * sizeof(double));
        CHECK_OK(sh_mix(context, memory, ASKED, e.start, e.position, e.weight, a->listed));
        sh_entries_free(context, &e);
    }
    const int by_place = s && s->pairs != SH_PAIRS_TOP, ranked = s && s->k < sh_memory_count(memory);
    if (!by_place && (m.separation != SH_POLYNOMIAL || ranked)) {
        double floor[ASKED];
        for (int i = 0; i < ASKED; i++) floor[i] = i % 3 == 0 ? -INFINITY : i % 3 == 1 ? 3 : 1e3;
        if (CHECK_OK(sh_candidates(context, memory, m, queries, floor, 300, &e, a->too_many))) {
            const size_t n = (size_t)e.start[ASKED];
            memcpy(a->candidate_start, e.start, sizeof a->candidate_start);
            memcpy(a->candidate, e.position, n * sizeof(int64_t));
            memcpy(a->candidate_score, e.score, n * sizeof(double));
            sh_entries_free(context, &e);
        }
    }
    if (s) return;
    if (has_cutoff(m)) {
        int64_t counts[ASKED][4];
        CHECK_OK(sh_survey(context, memory, m, queries, &counts[0][0]));
        for (int i = 0; i < ASKED; i++) a->counted[i] = counts[i][3];
    } else {
        CHECK_OK(sh_accumulate(context, memory, m, queries, (sh_partial){a->scale, a->sum, a->mixture}));
    }
}

/* Asks what does not depend on a map. */
static void ask_of_patterns(sh_context *context, const sh_memory *memory, answers *a) {
    int64_t which[ASKED];
    double need[ASKED];
    const sh_queries queries = {.data = query_rows, .n = ASKED};
    memset(a, 0, sizeof *a);
    for (int64_t i = 0; i < ASKED; i++) {
        which[i] = sh_memory_count(memory) * i / ASKED;
        need[i] = 0.5 * (double)(i % 5) - 0.5;
    }
    CHECK_OK(sh_nearest(context, memory, queries, 5, a->nearest, a->best));
    CHECK_OK(sh_margins(context, memory, a->margin));
    CHECK_OK(sh_radii(context, memory, ASKED, which, need, 1e-9, a->radius, a->rival));
}

/* Removes rows of which `gone` says so from a memory with `removed` and others, some positions twice, and frees it. */
static sh_memory *without(sh_context *context, sh_memory *old, const uint8_t *gone, uint8_t *removed) {
    static int64_t position[2 * LARGE];
    int64_t n = 0, left = 0;
    sh_memory *memory = NULL;
    for (int64_t i = 0; i < LARGE; i++) {
        if (removed[i]) continue;
        if (gone[i]) position[n++] = left;
        if (gone[i] && i % 7 == 0) position[n++] = left;
        removed[i] = gone[i];
        left++;
    }
    CHECK_OK(sh_memory_remove(context, old, n, position, &memory));
    sh_memory_free(context, old);
    return memory;
}

/* Compares a memory whose removed rows are `removed` with one made anew of the others, by every path and map. */
static void compare_with_new(const sh_memory *memory, const uint8_t *removed, sh_similarity similarity,
                             const float (*values)[V]) {
    static float left[LARGE][WIDTH], left_values[LARGE][V];
    static answers got, want;
    static const sh_model models[] = {
        {SH_SPARSEMAX, 0}, {SH_ENTMAX, 1.5}, {SH_SOFTMAX, 0}, {SH_POLYNOMIAL, 3}, {SH_NORMMAX, 2}};
    static const double betas[] = {3, 1e-4};
    int64_t n = 0, position[ASKED], row[LARGE];
    for (int64_t i = 0; i < LARGE; i++)
        if (!removed[i]) {
            memcpy(left[n], rows[i], sizeof left[n]);
            memcpy(left_values[n++], values[i], sizeof left_values[0]);
        }
    CHECK(sh_memory_count(memory) == n);
    const sh_rows patterns = {.data = left, .n = n, .d = WIDTH, .stride = sizeof left[0], .type = SH_FLOAT32};
    const sh_rows mixed = {.data = left_values, .n = n, .d = V, .stride = sizeof left_values[0], .type = SH_FLOAT32};
    const sh_structure structures[] = {{.pairs = SH_PAIRS_TOP, .k = sh_min(n, 7)},
                                       {.pairs = SH_PAIRS_TOP, .k = sh_min(n, 1500)},
                                       {.pairs = SH_PAIRS_WINDOW, .width = n / 3, .dilation = 1, .position = position}};
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 2);
    CHECK_OK(sh_memory_rows(&context, memory, n, NULL, row));
    for (int64_t i = 0; i < n; i++) CHECK(!memcmp(rows[row[i]], left[i], sizeof left[i]));
    for (int64_t i = 0; i < n; i++)
        CHECK_OK(sh_memory_rows(&context, memory, 1, &i, &position[0])), CHECK(position[0] == row[i]);
    for (int64_t i = 0; i < ASKED; i++) position[i] = (i * 101) % n;
    sh_memory *anew = NULL;
    if (!CHECK_OK(sh_memory_new(&context, &patterns, &mixed, similarity, SH_FLOAT32, &anew))) return;
    sh_context of_path = context_of(&blocks, 2);
    for (size_t k = 0; k < sizeof models / sizeof *models; k++)
        for (size_t b = 0; b < 2; b++) {
            const sh_structure *s = k > 2 ? NULL : &structures[(k + b) % 3];
            for (int with_structure = 0; with_structure <= (s != NULL); with_structure++) {
                ask(&context, anew, models[k], betas[b], with_structure ? s : NULL, NULL, &want);
                for (size_t path = 0; path < sizeof PATHS / sizeof *PATHS; path++) {
                    if (path > 0 && (!has_cutoff(models[k]) || b == 1)) continue;
                    of_path.path = PATHS[path];
                    ask(&of_path, memory, models[k], betas[b], with_structure ? s : NULL, NULL, &got);
                    CHECK(!memcmp(&got, &want, sizeof got));
                }
            }
        }
    ask_of_patterns(&context, anew, &want);
    for (size_t path = 0; path < sizeof PATHS / sizeof *PATHS; path++) {
        of_path.path = PATHS[path];
        ask_of_patterns(&of_path, memory, &got);
        CHECK(!memcmp(&got, &want, sizeof got));
    }
    sh_memory_free(&context, anew);
    CHECK(l.live == 0);
}

/* Memories from which rows are removed, and to which others are added, answer as one made anew, under so many
 * similarities. */
static void removals(int similarities) {
    static float values[LARGE][V];
    static uint8_t removed[LARGE], gone[LARGE];
    for (int i = 0; i < LARGE; i++)
        for (int c = 0; c < V; c++) values[i][c] = (float)normal(&seed);
    for (int s = 0; s < similarities; s++) {
        sh_context context = context_of(&blocks, 2);
        sh_rows first = rows_of(LARGE - 400), all = rows_of(LARGE);
        sh_rows mixed = {.data = values, .n = first.n, .d = V, .stride = sizeof values[0], .type = SH_FLOAT32};
        sh_memory *memory = NULL, *longer = NULL;
        if (!CHECK_OK(sh_memory_new(&context, &first, &mixed, (sh_similarity)s, SH_FLOAT32, &memory))) return;
        if (s != SH_COSINE) CHECK_OK(sh_memory_index(&context, memory)); /* which the others take over */
        memset(removed, 0, sizeof removed);
        for (int i = (int)first.n; i < LARGE; i++) removed[i] = 1;
        for (int round = 0; round < 5; round++) {
            if (round == 2) { /* rows are added, of the second half of what there is */
                mixed.n = all.n;
                if (!CHECK_OK(sh_memory_extend(&context, memory, &all, &mixed, &longer))) return;
                sh_memory_free(&context, memory);
                memory = longer;
                memset(removed + first.n, 0, (size_t)(LARGE - first.n));
            }
            for (int i = 0; i < LARGE; i++)
                gone[i] = round == 0   ? i == 0 || i == 77 || i == first.n - 1 /* few, the first and the last */
                          : round == 1 ? i >= 1000 && i < 2100                 /* a whole tile */
                          : round == 2 ? i % 64 == 5 || i == LARGE - 1
                          : round == 3 ? i < 1024 && i % 9 != 0
                                       : i % 211 != 3; /* almost all */
            memory = without(&context, memory, gone, removed);
            if (!memory) return;
            compare_with_new(memory, removed, (sh_similarity)s, (const float (*)[V])values);
        }
        sh_memory_free(&context, memory);
        CHECK(blocks.live == 0);
    }
}

/* The same where some rows are much larger than the others, at the origin and far from it. */
static void removals_among_outliers(void) {
    static float before[LARGE][WIDTH];
    memcpy(before, rows, sizeof rows);
    for (int far = 0; far < 2; far++) {
        for (int i = 0; i < LARGE; i++)
            for (int c = 0; c < WIDTH; c++)
                rows[i][c] = before[i][c] * (i % 77 == 0 ? (i % 2 ? 1e3F : 1e5F) : 1) + (float)(200 * far);
        removals(2); /* scores by cosine have no outliers */
    }
    memcpy(rows, before, sizeof rows);
}

/* Checks what is refused, and that bounds over removed rows do no harm. */
static void refused_removals(void) {
    float x[4][3] = {{1, 2, 3}, {3e38f, 3e38f, 3e38f}, {1, 0, 0}, {0, 1, 0}}, state[4][3], want[4][3];
    const double beta = 1;
    const sh_rows four = {.data = x, .n = 4, .d = 3, .stride = sizeof x[0], .type = SH_FLOAT32};
    const float asked[2][3] = {{0.25F, 0, 0}, {0, 0.25F, 0}};
    const sh_queries queries = {.data = asked, .n = 2, .beta = &beta};
    sh_context context = context_of(&blocks, 1);
    sh_memory *memory = NULL, *less = NULL;
    const int64_t all[] = {0, 1, 2, 3}, outside[] = {1, 4}, negative[] = {-1};
    if (!CHECK_OK(sh_memory_new(&context, &four, NULL, SH_DOT, SH_FLOAT32, &memory))) return;
    CHECK_REFUSED(context, sh_memory_remove(&context, NULL, 1, all, &less), SH_BAD_ARGUMENT, "old");
    CHECK_REFUSED(context, sh_memory_remove(&context, memory, -1, all, &less), SH_BAD_ARGUMENT, "n");
    CHECK_REFUSED(context, sh_memory_remove(&context, memory, 1, NULL, &less), SH_BAD_ARGUMENT, "positions");
    CHECK_REFUSED(context, sh_memory_remove(&context, memory, 1, all, NULL), SH_BAD_ARGUMENT, "memory");
    CHECK_REFUSED(context, sh_memory_remove(&context, memory, 4, all, &less), SH_BAD_ARGUMENT, "positions");
    CHECK_REFUSED(context, sh_memory_remove(&context, memory, 2, outside, &less), SH_BAD_ARGUMENT, "positions");
    CHECK(context.row == 1);
    CHECK_REFUSED(context, sh_memory_remove(&context, memory, 1, negative, &less), SH_BAD_ARGUMENT, "positions");
    int64_t row[4];
    CHECK_REFUSED(context, sh_memory_rows(&context, NULL, 1, NULL, row), SH_BAD_ARGUMENT, "memory");
    CHECK_REFUSED(context, sh_memory_rows(&context, memory, -1, NULL, row), SH_BAD_ARGUMENT, "n");
    CHECK_REFUSED(context, sh_memory_rows(&context, memory, 1, NULL, NULL), SH_BAD_ARGUMENT, "row");
    CHECK_REFUSED(context, sh_memory_rows(&context, memory, 5, NULL, row), SH_BAD_ARGUMENT, "positions");
    CHECK_REFUSED(context, sh_memory_rows(&context, memory, 2, outside, row), SH_BAD_ARGUMENT, "positions");
    CHECK(less == NULL && sh_memory_count(memory) == 4 && sh_memory_count(NULL) == 0);
    /* scores of the long pattern may overflow; without it, those of the others do not */
    sh_queries large = queries;
    float far[3] = {4, 4, 4};
    large.data = far, large.n = 1;
    CHECK_REFUSED(context, sh_update(&context, memory, (sh_model){SH_SPARSEMAX, 0}, large, state, NULL), SH_OVERFLOW,
                  "queries");
    if (!CHECK_OK(sh_memory_remove(&context, memory, 1, all + 1, &less))) return;
    CHECK_OK(sh_update(&context, less, (sh_model){SH_SPARSEMAX, 0}, large, state, NULL));
    CHECK(!memcmp(state[0], x[0], sizeof x[0]));
    /* what the owner writes into removed rows is not seen; a row that is left is named by its position */
    CHECK_OK(sh_update(&context, less, (sh_model){SH_SPARSEMAX, 0}, queries, want, NULL));
    x[1][0] = NAN;
    CHECK_OK(sh_update(&context, less, (sh_model){SH_SPARSEMAX, 0}, queries, state, NULL));
    CHECK(!memcmp(state, want, 2 * sizeof x[0]));
    x[3][1] = INFINITY;
    CHECK_REFUSED(context, sh_update(&context, less, (sh_model){SH_SPARSEMAX, 0}, queries, state, NULL), SH_NOT_FINITE,
                  "patterns");
    CHECK(context.row == 2);
    sh_memory_free(&context, memory);
    sh_memory_free(&context, less);
    CHECK(blocks.live == 0);
}

/* --- excluded patterns -------------------------------------------------------------------------------- */

/* Turns positions among all patterns into those among all but one. */
static void leave_out(int64_t *position, int64_t n, int64_t excluded) {
    for (int64_t i = 0; i < n; i++) {
        CHECK(position[i] != excluded);
        position[i] -= position[i] > excluded;
    }
}

/* Compares queries that exclude a pattern with the same queries to a memory from which it was removed, by every path and
 * map whose bits are promised; all at once, and each beside others that exclude other patterns or none. */
static void compare_with_fewer(const sh_memory *memory, int64_t excluded, int64_t longest) {
    static answers got, want;
    static float mixed[ASKED][V];
    static const struct {
        sh_model model;
        double beta;
    } cases[] = {{{SH_SPARSEMAX, 0}, 3}, {{SH_ENTMAX, 1.5}, 3}, {{SH_NORMMAX, 2}, 3}, {{SH_SOFTMAX, 0}, 400}};
    const int64_t count = sh_memory_count(memory);
    const sh_structure structures[] = {{.pairs = SH_PAIRS_TOP, .k = 7},
                                       {.pairs = SH_PAIRS_TOP, .k = count - 2},
                                       {.pairs = SH_PAIRS_TOP, .k = count - 1},
                                       {.pairs = SH_PAIRS_TOP, .k = count}};
    sh_context context = context_of(&blocks, 2);
    sh_memory *fewer = NULL;
    int64_t all[ASKED], each[ASKED];
    for (int i = 0; i < ASKED; i++) {
        all[i] = excluded;
        each[i] = i % 3 == 0 ? excluded : i % 3 == 1 ? -1 : longest;
    }
    if (!CHECK_OK(sh_memory_remove(&context, memory, 1, &excluded, &fewer))) return;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int k = -1; k < (int)(sizeof structures / sizeof *structures); k++) {
            const sh_structure *s = k < 0 ? NULL : &structures[k];
            sh_structure of_fewer = structures[k < 0 ? 0 : k];
            if (of_fewer.k == count) of_fewer.k--;
            context.path = SH_PATH_AUTO;
            ask(&context, fewer, cases[c].model, cases[c].beta, s ? &of_fewer : NULL, NULL, &want);
            memset(want.mixture, 0, sizeof want.mixture); /* of sums over all patterns bits are not promised */
            memset(want.scale, 0, sizeof want.scale), memset(want.sum, 0, sizeof want.sum);
            for (size_t path = 0; path < sizeof PATHS / sizeof *PATHS; path++) {
                if (k > 0 && path > 0) continue;
                context.path = PATHS[path];
                ask(&context, memory, cases[c].model, cases[c].beta, s, all, &got);
                leave_out(got.list_position, got.start[ASKED], excluded);
                leave_out(got.candidate, got.candidate_start[ASKED], excluded);
                memset(got.mixture, 0, sizeof got.mixture);
                memset(got.scale, 0, sizeof got.scale), memset(got.sum, 0, sizeof got.sum);
                CHECK(!memcmp(&got, &want, sizeof got));
                const sh_queries queries = {
                    .data = query_rows, .n = ASKED, .beta = &cases[c].beta, .structure = s, .exclude = each};
                CHECK_OK(sh_update(&context, memory, cases[c].model, queries, mixed, NULL));
                for (int i = 0; i < ASKED; i += 3) CHECK(!memcmp(mixed[i], want.mixed[i], sizeof mixed[i]));
            }
        }
    const sh_queries queries = {.data = query_rows, .n = ASKED, .exclude = all},
                     plain = {.data = query_rows, .n = ASKED};
    for (size_t path = 0; path < sizeof PATHS / sizeof *PATHS; path++) {
        context.path = PATHS[path];
        CHECK_OK(sh_nearest(&context, fewer, plain, 5, want.nearest, want.best));
        CHECK_OK(sh_nearest(&context, memory, queries, 5, got.nearest, got.best));
        leave_out(got.nearest, ASKED * 5, excluded);
        CHECK(!memcmp(got.nearest, want.nearest, sizeof got.nearest));
        CHECK(!memcmp(got.best, want.best, sizeof got.best));
    }
    sh_memory_free(&context, fewer);
}

/* Queries that exclude patterns, of memories as they were made, and with rows removed, under so many similarities. */
static void exclusions(int similarities) {
    static float values[LARGE][V];
    for (int i = 0; i < LARGE; i++)
        for (int c = 0; c < V; c++) values[i][c] = (float)normal(&seed);
    for (int s = 0; s < similarities; s++) {
        sh_context context = context_of(&blocks, 2);
        const sh_rows all = rows_of(LARGE);
        const sh_rows mixed = {.data = values, .n = LARGE, .d = V, .stride = sizeof values[0], .type = SH_FLOAT32};
        const sh_queries queries = {.data = query_rows, .n = ASKED};
        sh_memory *memory = NULL, *less = NULL;
        int64_t nearest[ASKED], longest = 0, some[300];
        double best[ASKED], norm;
        if (!CHECK_OK(sh_memory_new(&context, &all, &mixed, (sh_similarity)s, SH_FLOAT32, &memory))) return;
        CHECK_OK(sh_nearest(&context, memory, queries, 1, nearest, best));
        CHECK_OK(sh_memory_max_norm(&context, memory, &norm));
        for (int64_t i = 0; i < LARGE; i++) {
            double squares = 0;
            for (int c = 0; c < WIDTH; c++) squares += (double)rows[i][c] * rows[i][c];
            if (sqrt(squares) > norm * (1 - 1e-12)) longest = i;
        }
        compare_with_fewer(memory, nearest[0], longest);
        compare_with_fewer(memory, longest, 0);
        compare_with_fewer(memory, LARGE - 1, longest);
        for (int64_t i = 0; i < 300; i++)
            some[i] = i < 200 ? 7 * i + (i > 100) : LARGE - 600 + i; /* near the end, too */
        CHECK_OK(sh_memory_remove(&context, memory, 300, some, &less));
        compare_with_fewer(less, 17, 0);
        sh_memory_free(&context, less);
        sh_memory_free(&context, memory);
        CHECK(blocks.live == 0);
    }
}

/* --- parts of a whole -------------------------------------------------------------------------------- */

/* Limits go by the whole that a memory is told of, and by its own patterns again in memories made from it. */
static void wholes(void) {
    enum { PART = 700 };
    static float states[2][QUERIES][WIDTH];
    const double beta = 0.4;
    const sh_rows all = rows_of(LARGE), part = rows_of(PART);
    const sh_queries queries = {.data = query_rows, .n = QUERIES, .beta = &beta};
    const sh_model softmax = {SH_SOFTMAX, 0}, sparsemax = {SH_SPARSEMAX, 0};
    const int64_t first = 0;
    for (int s = 0; s < 3; s++) {
        sh_context context = context_of(&blocks, 2);
        sh_memory *memory = NULL, *some = NULL, *made[2] = {NULL, NULL};
        double norm, own_norm;
        int64_t steps[QUERIES], support[QUERIES], position[4];
        uint8_t converged[QUERIES];
        if (!CHECK_OK(sh_memory_new(&context, &all, NULL, (sh_similarity)s, SH_FLOAT32, &memory))) return;
        if (!CHECK_OK(sh_memory_new(&context, &part, NULL, (sh_similarity)s, SH_FLOAT32, &some))) return;
        CHECK_OK(sh_memory_max_norm(&context, memory, &norm));
        CHECK_OK(sh_memory_max_norm(&context, some, &own_norm));
        CHECK(s == SH_COSINE ? norm == 1 && own_norm == 1 : own_norm > 0 && own_norm <= norm);
        CHECK_REFUSED(context, sh_memory_set_whole(&context, some, PART - 1, norm), SH_BAD_ARGUMENT, "count");
        for (int i = 0; i < 3; i++)
            CHECK_REFUSED(context,
                          sh_memory_set_whole(&context, some, LARGE,
                                              i == 0   ? nextafter(own_norm, 0)
                                              : i == 1 ? INFINITY
                                                       : NAN),
                          SH_BAD_ARGUMENT, "max_norm");
        CHECK_REFUSED(context, sh_memory_set_whole(&context, NULL, LARGE, norm), SH_BAD_ARGUMENT, "memory");
        CHECK_REFUSED(context, sh_memory_max_norm(&context, NULL, &norm), SH_BAD_ARGUMENT, "memory");
        CHECK_REFUSED(context, sh_memory_max_norm(&context, some, NULL), SH_BAD_ARGUMENT, "norm");
        CHECK_OK(sh_memory_set_whole(&context, some, LARGE, 1e9));
        /* the support of maps with full support; the tolerance, within which every move is now */
        CHECK_OK(sh_update(&context, some, softmax, queries, states[0], support));
        for (int i = 0; i < QUERIES; i++) CHECK(support[i] == LARGE);
        CHECK_OK(sh_retrieve(&context, some, sparsemax, queries, 9, 1e-3, states[0], steps, converged, support, NULL));
        for (int i = 0; i < QUERIES; i++) CHECK(steps[i] == 1 && converged[i]);
        /* more than the part has: all that it has; as many as the whole: every pattern */
        for (int i = 0; i < 3; i++) {
            const sh_structure best = {.pairs = SH_PAIRS_TOP, .k = i == 0 ? PART + 1 : LARGE - 1 + i};
            sh_queries ranked = queries;
            ranked.structure = &best;
            if (i == 2) {
                CHECK_REFUSED(context, sh_update(&context, some, softmax, ranked, states[0], NULL), SH_BAD_ARGUMENT,
                              "k");
                continue;
            }
            CHECK_OK(sh_update(&context, some, softmax, ranked, states[0], support));
            for (int j = 0; j < QUERIES; j++) CHECK(support[j] == (i == 0 ? PART : LARGE));
        }
        const sh_structure window = {.pairs = SH_PAIRS_WINDOW, .width = 2, .dilation = 1, .position = position};
        sh_queries four = queries;
        four.n = 4, four.structure = &window;
        for (int64_t i = 0; i < 4; i++) position[i] = i;
        CHECK_REFUSED(context, sh_update(&context, some, softmax, four, states[0], NULL), SH_BAD_ARGUMENT, "structure");
        /* memories made of it are parts of nothing */
        CHECK_OK(sh_memory_extend(&context, some, &part, NULL, &made[0]));
        CHECK_OK(sh_memory_remove(&context, some, 1, &first, &made[1]));
        for (int i = 0; i < 2; i++) {
            CHECK_OK(sh_update(&context, made[i], softmax, queries, states[i], support));
            for (int j = 0; j < QUERIES; j++) CHECK(support[j] == PART - i);
            CHECK_OK(sh_update(&context, made[i], softmax, four, states[i], NULL));
            sh_memory_free(&context, made[i]);
        }
        CHECK_OK(sh_memory_remove(&context, some, 1, &first, &made[0]));
        CHECK_OK(sh_memory_set_whole(&context, made[0], LARGE, norm)); /* and so of the copy that it makes */
        CHECK_OK(sh_update(&context, made[0], softmax, queries, states[0], support));
        for (int j = 0; j < QUERIES; j++) CHECK(support[j] == LARGE);
        sh_memory_free(&context, made[0]);
        sh_memory_free(&context, memory);
        sh_memory_free(&context, some);
        CHECK(blocks.live == 0);
    }
}

/* --- what is refused, and what fails ---------------------------------------------------------------- */

static void refusals(void) {
    float x[4][3] = {{1, 2, 3}, {0, 0, 0}, {1, 0, 0}, {0, 1, 0}}, state[4][3];
    const double good = 1, wrong[] = {0, -1, NAN, INFINITY};
    const sh_rows four = {.data = x, .n = 4, .d = 3, .stride = sizeof x[0], .type = SH_FLOAT32};
    sh_context context = {.threads = 1};
    sh_memory *memory = NULL, *longer = NULL;
    sh_rows bad = four;
    bad.n = 0;
    CHECK_REFUSED(context, sh_memory_new(&context, &bad, NULL, SH_DOT, SH_FLOAT32, &memory), SH_BAD_ARGUMENT,
                  "patterns");
    bad = four, bad.type = SH_FLOAT64;
    CHECK_REFUSED(context, sh_memory_new(&context, &bad, NULL, SH_DOT, SH_FLOAT32, &memory), SH_BAD_ARGUMENT,
                  "patterns");
    bad = four, bad.n = 3;
    CHECK_REFUSED(context, sh_memory_new(&context, &four, &bad, SH_DOT, SH_FLOAT32, &memory), SH_BAD_ARGUMENT,
                  "values");
    CHECK_REFUSED(context, sh_memory_new(&context, &four, NULL, SH_DOT, SH_UINT8, &memory), SH_BAD_ARGUMENT, "type");
    CHECK_REFUSED(context, sh_memory_new(&context, &four, NULL, SH_COSINE, SH_FLOAT32, &memory), SH_ZERO_ROW,
                  "patterns");
    CHECK(context.row == 1);
    x[2][1] = NAN;
    CHECK_REFUSED(context, sh_memory_new(&context, &four, NULL, SH_DOT, SH_FLOAT32, &memory), SH_NOT_FINITE,
                  "patterns");
    CHECK(context.row == 2);
    x[2][1] = 3e38f;
    CHECK_REFUSED(context, sh_memory_new(&context, &four, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory), SH_OVERFLOW,
                  "patterns");
    x[2][1] = 0;
    CHECK(memory == NULL);
    if (!CHECK_OK(sh_memory_new(&context, &four, NULL, SH_DOT, SH_FLOAT32, &memory))) return;
    bad = four, bad.n = 2;
    CHECK_REFUSED(context, sh_memory_extend(&context, memory, &bad, NULL, &longer), SH_BAD_ARGUMENT, "patterns");
    const sh_model m = {SH_SPARSEMAX, 0};
    sh_queries queries = {.data = x, .n = 4, .beta = &good};
    for (int i = 0; i < 4; i++) {
        queries.beta = &wrong[i];
        CHECK_REFUSED(context, sh_update(&context, memory, m, queries, state, NULL), SH_BAD_ARGUMENT, "beta");
    }
    queries.beta = &good;
    CHECK_REFUSED(context, sh_update(&context, memory, (sh_model){SH_ENTMAX, 0.5}, queries, state, NULL),
                  SH_BAD_ARGUMENT, "separation");
    queries.n = -1;
    CHECK_REFUSED(context, sh_update(&context, memory, m, queries, state, NULL), SH_BAD_ARGUMENT, "queries");
    queries.n = 0;
    CHECK_OK(sh_update(&context, memory, m, queries, state, NULL));
    queries.n = 4;
    const sh_structure none = {.pairs = SH_PAIRS_TOP, .k = 5};
    queries.structure = &none;
    CHECK_REFUSED(context, sh_update(&context, memory, m, queries, state, NULL), SH_BAD_ARGUMENT, "k");
    queries.structure = NULL;
    float infinite[4][3] = {{1, 1, 1}, {1, 1, 1}, {INFINITY, 1, 1}, {1, 1, 1}};
    queries.data = infinite;
    memset(state, 7, sizeof state);
    const float untouched = state[0][0];
    CHECK_REFUSED(context, sh_update(&context, memory, m, queries, state, NULL), SH_NOT_FINITE, "queries");
    CHECK(context.row == 2 && state[0][0] == untouched);
    infinite[2][0] = 3e38f;
    CHECK_REFUSED(context, sh_update(&context, memory, m, queries, state, NULL), SH_OVERFLOW, "queries");
    CHECK(context.row == 2);
    sh_memory_free(&context, memory);
    sh_memory_free(&context, NULL);
}

/* What call_all needs. */
typedef struct {
    sh_path path;
    sh_model model;
    float states[QUERIES][WIDTH], before[QUERIES][WIDTH];
} calls;

/* Calls every function once, and frees all that it returns. */
static sh_status call_all(sh_context *context, void *given) {
    calls *c = given;
    const double beta = 0.7, need[2] = {0, 0};
    const sh_rows patterns = rows_of(100), more = rows_of(104);
    const sh_queries queries = {.data = query_rows, .n = 10, .beta = &beta};
    const int64_t which[2] = {1, 2};
    sh_memory *memory = NULL, *longer = NULL, *less = NULL;
    sh_entries entries = {0};
    int64_t steps[10], support[10], position[20], rival[2];
    uint8_t converged[10];
    double energy[10], score[20], margin[100], radius[2];
    uint64_t print;
    context->path = c->path;
    sh_status status = sh_memory_new(context, &patterns, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory);
    if (status == SH_OK) status = sh_update(context, memory, c->model, queries, c->states, support);
    if (status == SH_OK) status = sh_energy(context, memory, c->model, queries, energy);
    if (status == SH_OK)
        status = sh_retrieve(context, memory, c->model, queries, 3, 0, c->states, steps, converged, support, c->before);
    if (status == SH_OK) status = sh_associate(context, memory, c->model, queries, 4, 0, &entries);
    if (status == SH_OK) {
        status = sh_mix(context, memory, 10, entries.start, entries.position, entries.weight, c->states);
        sh_entries_free(context, &entries);
    }
    if (status == SH_OK) status = sh_candidates(context, memory, c->model, queries, NULL, 40, &entries, converged);
    if (status == SH_OK) sh_entries_free(context, &entries);
    if (status == SH_OK) status = sh_nearest(context, memory, queries, 2, position, score);
    if (status == SH_OK) status = sh_margins(context, memory, margin);
    if (status == SH_OK) status = sh_radii(context, memory, 2, which, need, 0, radius, rival);
    if (status == SH_OK) status = sh_memory_fingerprint(context, memory, &print);
    if (status == SH_OK) status = sh_memory_extend(context, memory, &more, NULL, &longer);
    if (status == SH_OK) status = sh_update(context, longer, c->model, queries, c->states, support);
    if (status == SH_OK) status = sh_memory_remove(context, longer, 2, which, &less);
    if (status == SH_OK) /* of the largest norm, which another has now */
        status = sh_retrieve(context, less, c->model, queries, 3, 0, c->states, steps, converged, support, c->before);
    if (status == SH_OK) { /* without the longest pattern in turn, so that a pass finds the next */
        sh_queries excluding = queries;
        int64_t exclude[10];
        for (int64_t first = 0; status == SH_OK && first < 102; first += 10) {
            for (int64_t i = 0; i < 10; i++) exclude[i] = sh_min(first + i, 101);
            excluding.exclude = exclude;
            status = sh_retrieve(context, less, c->model, excluding, 1, 0, c->states, steps, converged, support, NULL);
        }
    }
    if (status == SH_OK) status = sh_candidates(context, less, c->model, queries, score, 40, &entries, converged);
    if (status == SH_OK) sh_entries_free(context, &entries);
    sh_memory_free(context, memory);
    sh_memory_free(context, longer);
    sh_memory_free(context, less);
    return status;
}

static int at_once(void *user) {
    (void)user;
    return 1;
}

static void failures(void) {
    static calls c;
    static const sh_model models[] = {{SH_SPARSEMAX, 0}, {SH_SOFTMAX, 0}, {SH_ENTMAX, 1.5}};
    for (size_t path = 0; path < sizeof PATHS / sizeof *PATHS; path++)
        for (int k = 0; k < (path == 0 ? 3 : 1); k++) {
            c.path = PATHS[path];
            c.model = models[k];
            fail_in_turn("a call without memory", call_all, &c, PATHS[path] != SH_PATH_SCAN);
        }
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 3);
    context.interrupted = at_once;
    CHECK(call_all(&context, &c) == SH_INTERRUPTED && l.live == 0);
}

/* --- supports of thousands ---------------------------------------------------------------------------- */

/* An allocator that counts bytes, which stand before each block. */
typedef struct {
    ledger blocks;
    _Atomic int64_t bytes, most;
} meter;
static void *meter_allocate(void *user, size_t bytes) {
    meter *m = user;
    size_t *block = ledger_allocate(&m->blocks, bytes + 64);
    if (!block) return NULL;
    *block = bytes;
    const int64_t all = atomic_fetch_add(&m->bytes, (int64_t)bytes) + (int64_t)bytes;
    if (all > atomic_load(&m->most)) atomic_store(&m->most, all);
    return block + 8;
}
static void meter_release(void *user, void *block) {
    meter *m = user;
    if (!block) return;
    atomic_fetch_sub(&m->bytes, (int64_t)*((size_t *)block - 8));
    ledger_release(&m->blocks, (size_t *)block - 8);
}

/* Updates n queries that 4,096 of the 65,536 patterns are equal to, so that weights are exact; all others are far.
 * Checks states and supports. */
static sh_status update_of_thousands(sh_context *context, int64_t n, int *right) {
    enum { ALL = 65536, SAME = 4096, MOST = 768 };
    static float patterns[ALL][2], states[MOST][2], x[MOST][2];
    static int64_t support[MOST];
    const double beta = 3;
    const sh_rows stored = {.data = patterns, .n = ALL, .d = 2, .stride = sizeof patterns[0], .type = SH_FLOAT32};
    const sh_queries queries = {.data = x, .n = n, .beta = &beta};
    for (int64_t i = 0; i < ALL; i++)
        patterns[i][0] = patterns[i][1] = i * SAME / ALL < (i + 1) * SAME / ALL ? 0.7F : 4.0F + (float)(i % 100) / 64;
    for (int64_t i = 0; i < n; i++) x[i][0] = x[i][1] = 0.7F;
    sh_memory *memory = NULL;
    sh_status status = sh_memory_new(context, &stored, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory);
    if (status == SH_OK) status = sh_update(context, memory, (sh_model){SH_SPARSEMAX, 0}, queries, states, support);
    sh_memory_free(context, memory);
    *right = status != SH_OK || !memcmp(states, x, (size_t)n * sizeof x[0]);
    for (int64_t i = 0; status == SH_OK && i < n; i++) *right &= support[i] == SAME;
    return status;
}

/* The lists of a block grow, but not all of them; without memory for them, queries are answered all the same. */
static void supports_of_thousands(int fewest_threads) {
    int right;
    for (int threads = fewest_threads; threads <= 2; threads++) {
        meter m = {.blocks = {.fail_at = -1}};
        sh_context context = {.allocate = meter_allocate, .release = meter_release, .user = &m, .threads = threads};
        context.path = SH_PATH_SCAN;
        CHECK_OK(update_of_thousands(&context, 768, &right));
        CHECK(right && m.blocks.live == 0 && m.bytes == 0);
        if (threads == 1) CHECK(m.most > (30 << 20) && m.most < (48 << 20));
        CHECK(m.most < (192 << 20)); /* with what ranges hand over */
        m.blocks.made = 0;
        CHECK_OK(update_of_thousands(&context, 2, &right));
        const int64_t made = m.blocks.made;
        int answered = 0;
        for (int64_t n = 0; n < made; n++) {
            m.blocks = (ledger){.fail_at = n};
            const sh_status status = update_of_thousands(&context, 2, &right);
            CHECK(status == SH_NO_MEMORY || status == SH_OK);
            CHECK(right && m.blocks.live == 0 && m.bytes == 0);
            answered += status == SH_OK;
        }
        CHECK(made > 10 && answered > 4 && answered < made);
    }
}

/* Updates 250 queries by an index, each of which lists the 4,096 of 65,536 patterns that it is equal to: too many for the
 * memory of a block's lists, so that some queries wait for others. Checks states, supports and that none was scanned. */
static void lists_of_thousands(void) {
    enum { ALL = 65536, SAME = 4096, D = 160, N = 250 };
    static uint8_t patterns[ALL][D];
    static float states[N][D], x[N][D];
    static int64_t support[N], counts[N][4];
    const double beta = 3;
    const sh_rows stored = {.data = patterns, .n = ALL, .d = D, .stride = sizeof patterns[0], .type = SH_UINT8};
    const sh_queries queries = {.data = x, .n = N, .beta = &beta};
    uint32_t random = 1;
    for (int64_t i = 0; i < ALL; i++)
        for (int64_t j = 0; j < D; j++) {
            random = random * 1664525 + 1013904223;
            patterns[i][j] = i % (ALL / SAME) == 0 ? 100 : (uint8_t)(150 + (random >> 16) % 100);
        }
    for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < D; j++) x[i][j] = 100;
    meter m = {.blocks = {.fail_at = -1}};
    sh_context context = {.allocate = meter_allocate, .release = meter_release, .user = &m, .threads = 1};
    context.path = SH_PATH_LINES;
    sh_memory *memory = NULL;
    CHECK_OK(sh_memory_new(&context, &stored, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory));
    CHECK_OK(sh_memory_index(&context, memory));
    const int64_t before = m.bytes;
    m.most = before;
    CHECK_OK(sh_update(&context, memory, (sh_model){SH_SPARSEMAX, 0}, queries, states, support));
    CHECK(m.most - before > (6 << 20) && m.most - before < (12 << 20));
    CHECK(!memcmp(states, x, sizeof x));
    CHECK_OK(sh_survey(&context, memory, (sh_model){SH_SPARSEMAX, 0}, queries, &counts[0][0]));
    for (int64_t i = 0; i < N; i++) CHECK(support[i] == SAME && counts[i][0] >= SAME);
    sh_memory_free(&context, memory);
    CHECK(m.bytes == 0);
}

int main(void) {
    const char *brief = getenv("BRIEF");
    const int threads_alone = brief && !strcmp(brief, "threads"); /* without what one thread does, or does as before */
    const int all = !brief, slow = all || threads_alone;          /* else without what valgrind takes minutes for */
    if (!slow) asked = FEW;
    CHECK_OK(sh_initialise());
    all_calls();
    make_rows();
    indexes();
    if (slow) fingerprints();
    if (slow) orders();
    shared_indexes();
    use_of_indexes();
    if (slow) progress();
    if (slow) removals(all ? 3 : 1);
    if (all) removals_among_outliers();
    refused_removals();
    if (slow) exclusions(all ? 3 : 1);
    wholes();
    refusals();
    if (!threads_alone) failures();
    if (slow) supports_of_thousands(all ? 1 : 2);
    if (all) lists_of_thousands();
    return checked("retrieval");
}
