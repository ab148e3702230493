/* test_interface.c: what a program may get wrong with any function of sparsehopfield.h: pointers that are not there, sizes
 * that no array has, numbers that are no type, map or path. Each must be refused by name, and nothing written. */
#include "check.h"

enum { M = 6, N = 3, D = 4 };
static float x[M][D], state[N][D];
static const double one = 1;
static const sh_model sparsemax = {SH_SPARSEMAX, 0}, softmax = {SH_SOFTMAX, 0};
static const sh_rows all = {.data = x, .n = M, .d = D, .stride = sizeof x[0], .type = SH_FLOAT32};
static const sh_queries asked = {.data = x, .n = N, .beta = &one};
static sh_context context;
static sh_memory *memory;

#define REFUSED(call, name) CHECK_REFUSED(context, call, SH_BAD_ARGUMENT, name)

static void wrong_rows(void) {
    sh_memory *made = NULL;
    const sh_rows nothing = {0};
    sh_rows wrong[12];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) wrong[i] = all;
    wrong[0] = nothing;
    wrong[1].data = NULL;
    wrong[2].n = 0;
    wrong[3].n = -1;
    wrong[4].n = INT64_MAX;
    wrong[5].d = 0;
    wrong[6].d = INT64_MAX;
    wrong[7].stride = sizeof x[0] + 1;
    wrong[8].stride = sizeof x[0] - sizeof(float);
    wrong[9].stride = -(int64_t)sizeof x[0];
    wrong[10].type = (sh_type)17;
    wrong[11].scale = -1;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        REFUSED(sh_memory_new(&context, &wrong[i], NULL, SH_DOT, SH_FLOAT32, &made), "patterns");
        REFUSED(sh_memory_new(&context, &all, &wrong[i], SH_DOT, SH_FLOAT32, &made), "values");
        REFUSED(sh_memory_extend(&context, memory, &wrong[i], NULL, &made), "patterns");
    }
    REFUSED(sh_memory_new(&context, NULL, NULL, SH_DOT, SH_FLOAT32, &made), "patterns");
    REFUSED(sh_memory_new(&context, &all, NULL, SH_DOT, SH_FLOAT32, NULL), "memory");
    REFUSED(sh_memory_new(&context, &all, NULL, (sh_similarity)3, SH_FLOAT32, &made), "similarity");
    REFUSED(sh_memory_new(&context, &all, NULL, SH_DOT, SH_UINT8, &made), "type");
    REFUSED(sh_memory_new(&context, &all, NULL, SH_DOT, (sh_type)-1, &made), "type");
    REFUSED(sh_memory_extend(&context, NULL, &all, NULL, &made), "old");
    REFUSED(sh_memory_extend(&context, memory, NULL, NULL, &made), "patterns");
    REFUSED(sh_memory_extend(&context, memory, &all, &all, &made), "values");
    REFUSED(sh_memory_extend(&context, memory, &all, NULL, NULL), "memory");
    CHECK(made == NULL);
    sh_memory *other = NULL;
    REFUSED(sh_memory_share_index(&context, NULL, memory), "memory");
    REFUSED(sh_memory_share_index(&context, memory, NULL), "other");
    sh_rows fewer = all;
    fewer.n--;
    for (int i = 0; i < 2; i++) { /* other patterns, another similarity */
        if (!CHECK_OK(sh_memory_new(&context, i ? &all : &fewer, NULL, i ? SH_EUCLIDEAN : SH_DOT, SH_FLOAT32, &other)))
            return;
        REFUSED(sh_memory_share_index(&context, memory, other), "other");
        sh_memory_free(&context, other);
    }
}

/* Asks with these queries whatever there is to ask, all of which must refuse them by this name. */
static void ask_all(const sh_memory *m, sh_queries queries, int with_beta, const char *name) {
    int64_t number[4 * N];
    uint8_t converged[N];
    double real[3 * M * N];
    sh_entries entries = {0};
    const sh_partial partial = {real, real + N, NULL};
#define ASK(call)                                                                                                      \
    do {                                                                                                               \
        context.argument = NULL;                                                                                       \
        CHECK(call == SH_BAD_ARGUMENT);                                                                                \
        CHECK(context.argument && !strcmp(context.argument, name));                                                    \
    } while (0)
    ASK(sh_update(&context, m, sparsemax, queries, state, NULL));
    ASK(sh_update(&context, m, softmax, queries, state, number));
    ASK(sh_energy(&context, m, sparsemax, queries, real));
    ASK(sh_retrieve(&context, m, sparsemax, queries, 0, 0, state, number, converged, number, NULL));
    ASK(sh_retrieve(&context, m, sparsemax, queries, 5, 0, state, number, converged, number, NULL));
    ASK(sh_associate(&context, m, sparsemax, queries, 0, 0, &entries));
    ASK(sh_candidates(&context, m, sparsemax, queries, NULL, 1, &entries, converged));
    ASK(sh_candidates(&context, m, softmax, queries, real, 1, &entries, converged));
    ASK(sh_accumulate(&context, m, softmax, queries, partial));
    ASK(sh_survey(&context, m, sparsemax, queries, number));
    if (!with_beta) return;
    ASK(sh_nearest(&context, m, queries, 2, number, real));
    ASK(sh_bounds(&context, m, queries, real));
#undef ASK
}

/* An allocator that has no more than a gigabyte for anybody, so that sanitizers see no larger wish. */
static void *modest(void *user, size_t bytes) {
    (void)user;
    return bytes < (size_t)1 << 30 ? malloc(bytes) : NULL;
}
static void give_back(void *user, void *block) {
    (void)user;
    free(block);
}

static void wrong_queries(void) {
    const sh_queries nothing = {.n = 1};
    sh_queries wrong = asked;
    ask_all(NULL, asked, 1, "memory");
    ask_all(memory, nothing, 1, "queries");
    for (int i = 0; i < 4; i++) {
        wrong.n = (const int64_t[]){-1, INT64_MIN, INT64_MAX, INT64_MAX / 16}[i];
        ask_all(memory, wrong, 1, "queries");
    }
    wrong = asked, wrong.beta = NULL;
    ask_all(memory, wrong, 0, "beta");
    for (int i = 0; i < 3; i++) {
        wrong = asked, wrong.beta_stride = (const int64_t[]){-1, 2, INT64_MAX}[i];
        ask_all(memory, wrong, 0, "beta_stride");
    }
    for (int i = 0; i < 4; i++) {
        const int64_t exclude[][N] = {{0, M, 1}, {-2, 0, 1}, {0, 1, INT64_MAX}, {INT64_MIN, 0, 1}};
        const int64_t rows[] = {1, 0, 2, 0};
        wrong = asked, wrong.exclude = exclude[i];
        ask_all(memory, wrong, 1, "exclude");
        CHECK(context.row == rows[i]);
    }
    const int64_t nobody[N] = {-1, -1, -1}, only[N] = {-1, -1, 0};
    for (sh_pairs pairs = SH_PAIRS_WINDOW; pairs <= SH_PAIRS_DILATED_BLOCKS; pairs++) {
        const sh_structure by_place = {.pairs = pairs, .width = 1, .dilation = 1, .k = 1, .rows = 1, .columns = 1};
        wrong = asked, wrong.exclude = nobody, wrong.structure = &by_place;
        REFUSED(sh_update(&context, memory, sparsemax, wrong, state, NULL), "exclude");
    }
    sh_memory *single = NULL;
    sh_rows one_row = all;
    one_row.n = 1;
    if (CHECK_OK(sh_memory_new(&context, &one_row, NULL, SH_DOT, SH_FLOAT32, &single))) {
        wrong = asked, wrong.exclude = only;
        ask_all(single, wrong, 1, "exclude");
        CHECK(context.row == 2);
        wrong.exclude = nobody;
        CHECK_OK(sh_update(&context, single, sparsemax, wrong, state, NULL));
        sh_memory_free(&context, single);
    }
    context.path = (sh_path)9;
    ask_all(memory, asked, 1, "path");
    context.path = SH_PATH_AUTO;
    /* as many as an array may have, but no allocator gives: nothing is read */
    wrong = asked, wrong.n = INT64_MAX / 1024;
    sh_context small = {.allocate = modest, .release = give_back};
    CHECK(sh_update(&small, memory, sparsemax, wrong, state, NULL) == SH_NO_MEMORY);
    /* none at all, and nowhere */
    CHECK_OK(sh_update(&context, memory, sparsemax, (sh_queries){0}, NULL, NULL));
    CHECK_OK(sh_energy(&context, memory, sparsemax, (sh_queries){0}, NULL));
    CHECK_OK(sh_nearest(&context, memory, (sh_queries){0}, 1, NULL, NULL));
    /* scores need no beta */
    int64_t position[N];
    double score[N], bounds[3 * M * N];
    const sh_queries plain = {.data = x, .n = N};
    CHECK_OK(sh_nearest(&context, memory, plain, 1, position, score));
    for (int64_t i = 0; i < N; i++) CHECK(position[i] >= 0 && position[i] < M);
    CHECK_OK(sh_bounds(&context, memory, plain, bounds));
    float odd[1][D] = {{1, NAN, 1, 1}};
    CHECK_REFUSED(context, sh_bounds(&context, memory, (sh_queries){.data = odd, .n = 1}, bounds), SH_NOT_FINITE,
                  "queries");
}

static void wrong_outputs(void) {
    int64_t number[4 * N], which = 0;
    uint8_t converged[N];
    double real[M], need = 0;
    uint64_t print;
    sh_entries entries = {0};
    REFUSED(sh_update(&context, memory, sparsemax, asked, NULL, NULL), "states");
    REFUSED(sh_energy(&context, memory, sparsemax, asked, NULL), "energy");
    for (int64_t steps = 0; steps < 2; steps++) {
        REFUSED(sh_retrieve(&context, memory, sparsemax, asked, steps, 0, NULL, number, converged, number, NULL),
                "states");
        REFUSED(sh_retrieve(&context, memory, sparsemax, asked, steps, 0, state, NULL, converged, number, NULL),
                "steps");
        REFUSED(sh_retrieve(&context, memory, sparsemax, asked, steps, 0, state, number, NULL, number, NULL),
                "converged");
        REFUSED(sh_retrieve(&context, memory, sparsemax, asked, steps, 0, state, number, converged, NULL, NULL),
                "support_size");
        REFUSED(sh_retrieve(&context, memory, (sh_model){(sh_separation)9, 0}, asked, steps, 0, state, number,
                            converged, number, NULL),
                "separation");
    }
    REFUSED(sh_associate(&context, memory, sparsemax, asked, 0, 0, NULL), "entries");
    REFUSED(sh_candidates(&context, memory, sparsemax, asked, NULL, 0, NULL, converged), "entries");
    REFUSED(sh_candidates(&context, memory, sparsemax, asked, NULL, 0, &entries, NULL), "too_many");
    REFUSED(sh_candidates(&context, memory, sparsemax, asked, NULL, INT64_MIN, &entries, converged), "most");
    REFUSED(sh_candidates(&context, memory, (sh_model){(sh_separation)9, 0}, asked, NULL, 0, &entries, converged),
            "separation");
    REFUSED(sh_candidates(&context, memory, (sh_model){SH_POLYNOMIAL, 2}, asked, NULL, 0, &entries, converged),
            "separation");
    REFUSED(sh_memory_max_norm(&context, NULL, real), "memory");
    REFUSED(sh_memory_max_norm(&context, memory, NULL), "norm");
    REFUSED(sh_memory_set_whole(&context, NULL, M, 10), "memory");
    REFUSED(sh_memory_set_whole(&context, memory, INT64_MIN, 10), "count");
    REFUSED(sh_memory_set_whole(&context, memory, M, -INFINITY), "max_norm");
    REFUSED(sh_accumulate(&context, memory, softmax, asked, (sh_partial){0}), "partial");
    REFUSED(sh_survey(&context, memory, sparsemax, asked, NULL), "counts");
    REFUSED(sh_nearest(&context, memory, asked, 1, NULL, real), "position");
    REFUSED(sh_nearest(&context, memory, asked, 1, number, NULL), "score");
    REFUSED(sh_bounds(&context, memory, asked, NULL), "bounds");
    REFUSED(sh_margins(&context, NULL, real), "memory");
    REFUSED(sh_margins(&context, memory, NULL), "margins");
    REFUSED(sh_radii(&context, NULL, 1, &which, &need, 0, real, number), "memory");
    REFUSED(sh_radii(&context, memory, -1, &which, &need, 0, real, number), "n");
    REFUSED(sh_radii(&context, memory, INT64_MAX, &which, &need, 0, real, number), "n");
    REFUSED(sh_radii(&context, memory, 1, NULL, &need, 0, real, number), "which");
    REFUSED(sh_radii(&context, memory, 1, &which, NULL, 0, real, number), "need");
    REFUSED(sh_radii(&context, memory, 1, &which, &need, 0, NULL, number), "radius");
    REFUSED(sh_radii(&context, memory, 1, &which, &need, 0, real, NULL), "rival");
    REFUSED(sh_memory_fingerprint(&context, NULL, &print), "memory");
    REFUSED(sh_memory_fingerprint(&context, memory, NULL), "fingerprint");
    REFUSED(sh_memory_index(&context, NULL), "memory");
    CHECK(sh_memory_index_bytes(NULL) == 0);
    sh_memory_use_index(&context, NULL, SH_INDEX_NEVER);
    sh_memory_use_map(NULL, 1);
    sh_memory_free(&context, NULL);
    sh_entries_free(&context, NULL);
    CHECK(sh_ignored_settings(NULL) >= 0);
}

static void wrong_structures(void) {
    const int64_t start[] = {0, 1}, column[] = {0};
    const struct {
        sh_structure s;
        const char *name;
    } wrong[] = {
        {{.pairs = (sh_pairs)9}, "structure"},
        {{.pairs = SH_PAIRS_TOP}, "k"},
        {{.pairs = SH_PAIRS_WINDOW}, "dilation"},
        {{.pairs = SH_PAIRS_WINDOW, .width = INT64_MAX, .dilation = 1}, "w"},
        {{.pairs = SH_PAIRS_WINDOW, .dilation = 1, .column_n = 1}, "global_positions"},
        {{.pairs = SH_PAIRS_WINDOW, .dilation = 1, .column = column, .column_n = -1}, "global_positions"},
        {{.pairs = SH_PAIRS_RANDOM}, "k"},
        {{.pairs = SH_PAIRS_RANDOM, .k = 1}, "block"},
        {{.pairs = SH_PAIRS_BLOCKS}, "block"},
        {{.pairs = SH_PAIRS_BLOCKS, .rows = 8, .columns = 1, .start_n = INT64_MAX, .start = start}, "block"},
        {{.pairs = SH_PAIRS_BLOCKS, .rows = 8, .columns = 1, .start_n = 1}, "mask"},
        {{.pairs = SH_PAIRS_BLOCKS, .rows = 8, .columns = 1, .start_n = 1, .start = start, .column_n = 1}, "mask"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sh_queries queries = asked;
        queries.structure = &wrong[i].s;
        context.argument = NULL;
        CHECK(sh_update(&context, memory, sparsemax, queries, state, NULL) == SH_BAD_ARGUMENT);
        CHECK(context.argument && !strcmp(context.argument, wrong[i].name));
    }
}

static void wrong_lists(void) {
    const int64_t start[] = {0, 2}, falling[] = {0, -1}, late[] = {1, 2}, position[] = {0, 1}, outside[] = {0, M};
    const double score[] = {1, 2};
    double weight[2] = {1, 0}, scale[1] = {1}, sum[1] = {1};
    REFUSED(sh_solve(&context, softmax, SH_FLOAT32, 1, &one, 0, start, score, weight), "separation");
    REFUSED(sh_solve(&context, sparsemax, SH_UINT8, 1, &one, 0, start, score, weight), "type");
    REFUSED(sh_solve(&context, sparsemax, SH_FLOAT32, -1, &one, 0, start, score, weight), "n");
    REFUSED(sh_solve(&context, sparsemax, SH_FLOAT32, 1, NULL, 0, start, score, weight), "beta");
    REFUSED(sh_solve(&context, sparsemax, SH_FLOAT32, 1, &one, 2, start, score, weight), "beta_stride");
    REFUSED(sh_solve(&context, sparsemax, SH_FLOAT32, 1, &one, 0, NULL, score, weight), "start");
    REFUSED(sh_solve(&context, sparsemax, SH_FLOAT32, 1, &one, 0, falling, score, weight), "start");
    REFUSED(sh_solve(&context, sparsemax, SH_FLOAT32, 1, &one, 0, late, score, weight), "start");
    REFUSED(sh_solve(&context, sparsemax, SH_FLOAT32, 1, &one, 0, start, NULL, weight), "score");
    REFUSED(sh_solve(&context, sparsemax, SH_FLOAT32, 1, &one, 0, start, score, NULL), "weight");
    REFUSED(sh_mix(&context, NULL, 1, start, position, weight, state), "memory");
    REFUSED(sh_mix(&context, memory, -1, start, position, weight, state), "n");
    REFUSED(sh_mix(&context, memory, INT64_MAX, start, position, weight, state), "n");
    REFUSED(sh_mix(&context, memory, 1, NULL, position, weight, state), "start");
    REFUSED(sh_mix(&context, memory, 1, falling, position, weight, state), "start");
    REFUSED(sh_mix(&context, memory, 1, start, NULL, weight, state), "positions");
    REFUSED(sh_mix(&context, memory, 1, start, outside, weight, state), "positions");
    REFUSED(sh_mix(&context, memory, 1, start, position, NULL, state), "weight");
    REFUSED(sh_mix(&context, memory, 1, start, position, weight, NULL), "states");
    const sh_partial a = {scale, sum, NULL}, none = {0};
    CHECK_OK(sh_merge(softmax, SH_FLOAT32, 1, D, &one, 0, a, a));
    CHECK_OK(sh_merge(softmax, SH_FLOAT32, 0, D, NULL, 0, none, none));
    CHECK(sh_merge(sparsemax, SH_FLOAT32, 1, D, &one, 0, a, a) == SH_BAD_ARGUMENT);
    CHECK(sh_merge(softmax, SH_UINT8, 1, D, &one, 0, a, a) == SH_BAD_ARGUMENT);
    CHECK(sh_merge(softmax, SH_FLOAT32, INT64_MAX, D, &one, 0, a, a) == SH_BAD_ARGUMENT);
    CHECK(sh_merge(softmax, SH_FLOAT32, 1, D, NULL, 0, a, a) == SH_BAD_ARGUMENT);
    CHECK(sh_merge(softmax, SH_FLOAT32, 1, D, &one, 3, a, a) == SH_BAD_ARGUMENT);
    CHECK(sh_merge(softmax, SH_FLOAT32, 1, D, &one, 0, a, none) == SH_BAD_ARGUMENT);
    CHECK(sh_merge(softmax, SH_FLOAT32, 1, D, &one, 0, a, (sh_partial){scale, sum, state}) == SH_BAD_ARGUMENT);
}

static void wrong_features(void) {
    double top[D], total[D], sum[D * D];
    const sh_feature_state sums = {top, total, sum}, none = {0};
    const sh_features sound = {.type = SH_FLOAT32, .map = SH_RELU, .d = D, .size = D, .v = D, .beta = 1}, empty = {0};
    const sh_rows nothing = {0};
    sh_features wrong[6];
    for (int i = 0; i < 6; i++) wrong[i] = sound;
    wrong[0] = empty;
    wrong[1].map = (sh_feature_map)7;
    wrong[2].beta = INFINITY;
    wrong[3].type = SH_UINT8;
    wrong[4].map = SH_RANDOM; /* without a projection */
    wrong[5].v = INT64_MAX;
    for (int i = 0; i < 6; i++) {
        REFUSED(sh_features_add(&context, &wrong[i], &all, NULL, sums, NULL), "features");
        REFUSED(sh_features_mix(&context, &wrong[i], sums, &all, x, D, NULL), "features");
        REFUSED(sh_features_causal(&context, &wrong[i], &all, &all, NULL, 0, x, D, NULL), "features");
    }
    REFUSED(sh_features_add(&context, NULL, &all, NULL, sums, NULL), "features");
    sh_rows rows[6];
    for (int i = 0; i < 6; i++) rows[i] = all;
    rows[0] = nothing;
    rows[1].data = NULL;
    rows[2].n = -1;
    rows[3].n = INT64_MAX;
    rows[4].stride = 2;
    rows[5].type = (sh_type)11;
    for (int i = 0; i < 6; i++) {
        REFUSED(sh_features_add(&context, &sound, &rows[i], NULL, sums, NULL), "patterns");
        REFUSED(sh_features_add(&context, &sound, &all, &rows[i], sums, NULL), "values");
        REFUSED(sh_features_mix(&context, &sound, sums, &rows[i], x, D, NULL), "queries");
        REFUSED(sh_features_causal(&context, &sound, &rows[i], &all, NULL, 0, x, D, NULL), "queries");
    }
    REFUSED(sh_features_add(&context, &sound, NULL, NULL, sums, NULL), "patterns");
    REFUSED(sh_features_add(&context, &sound, &all, NULL, none, NULL), "state");
    REFUSED(sh_features_mix(&context, &sound, sums, NULL, x, D, NULL), "queries");
    REFUSED(sh_features_mix(&context, &sound, none, &all, x, D, NULL), "state");
    REFUSED(sh_features_mix(&context, &sound, sums, &all, NULL, D, NULL), "out");
    REFUSED(sh_features_mix(&context, &sound, sums, &all, x, D - 1, NULL), "out");
    REFUSED(sh_features_mix(&context, &sound, sums, &all, x, INT64_MAX, NULL), "out");
    REFUSED(sh_features_causal(&context, &sound, NULL, &all, NULL, 0, x, D, NULL), "queries");
    REFUSED(sh_features_causal(&context, &sound, &all, NULL, NULL, 0, x, D, NULL), "patterns");
    REFUSED(sh_features_causal(&context, &sound, &all, &all, NULL, 0, NULL, D, NULL), "out");
}

/* Contexts: any number of threads serves, and half an allocator is none. */
static void contexts(void) {
    float wanted[N][D];
    CHECK_OK(sh_update(&context, memory, sparsemax, asked, wanted, NULL));
    for (int i = 0; i < 5; i++) {
        sh_context own = {.threads = (const int[]){0, -1, 65, INT32_MIN, INT32_MAX}[i]};
        CHECK_OK(sh_update(&own, memory, sparsemax, asked, state, NULL));
        CHECK(!memcmp(state, wanted, sizeof state));
    }
    sh_context half = {.allocate = modest};
    CHECK(sh_update(&half, memory, sparsemax, asked, state, NULL) == SH_NO_MEMORY && half.argument == NULL);
    half = (sh_context){.release = give_back};
    CHECK(sh_update(&half, memory, sparsemax, asked, state, NULL) == SH_NO_MEMORY);
}

int main(void) {
    uint64_t seed = 5;
    for (int i = 0; i < M; i++)
        for (int c = 0; c < D; c++) x[i][c] = (float)normal(&seed);
    /* before sh_initialise the kernels that every processor has are used */
    float before[N][D];
    if (!CHECK_OK(sh_memory_new(&context, &all, NULL, SH_DOT, SH_FLOAT32, &memory))) return checked("interface");
    CHECK_OK(sh_update(&context, memory, sparsemax, asked, before, NULL));
    CHECK_OK(sh_initialise());
    CHECK_OK(sh_update(&context, memory, sparsemax, asked, state, NULL));
    CHECK(!memcmp(before, state, sizeof state));
    wrong_rows();
    wrong_queries();
    wrong_outputs();
    wrong_structures();
    wrong_lists();
    wrong_features();
    contexts();
    sh_memory_free(&context, memory);
    return checked("interface");
}
