/* Indexes as bytes: they serve as what they were made from, bit for bit; whatever is damaged, cut, of other patterns or
 * made up is refused, or at least nothing outside of the bytes is read (under AddressSanitizer). */
#include "check.h"
#include "retrieval/index/index.h"

enum { M = 3000, N = 24, WIDEST = 300, HEADER = 128, NUMBERS = 768 };
static uint64_t seed = 11;
static float rows[M + 40][WIDEST], asked[N][WIDEST];
static double rows_in_double[M + 40][WIDEST], asked_in_double[N][WIDEST];
static const sh_model sparsemax = {SH_SPARSEMAX, 0};

/* A case to make indexes of: rows of d features, with leading directions or without, and the indexes wanted. */
typedef struct {
    int64_t n, d;
    int leading, longer, all; /* whether there are directions; which indexes are wanted besides the first */
    sh_similarity similarity;
    sh_type type;
} problem;

static const problem PROBLEMS[] = {
    {M, 40, 0, 0, 0, SH_DOT, SH_FLOAT32},     {M, 200, 1, 0, 0, SH_EUCLIDEAN, SH_FLOAT32},
    {M, 200, 0, 0, 1, SH_COSINE, SH_FLOAT64}, {M, 300, 1, 1, 0, SH_EUCLIDEAN, SH_FLOAT32},
    {M, 300, 1, 1, 1, SH_DOT, SH_FLOAT64},    {M - 41, 37, 0, 0, 0, SH_COSINE, SH_FLOAT32},
    {M, 300, 1, 1, 1, SH_COSINE, SH_FLOAT32}, {70, 130, 1, 0, 0, SH_EUCLIDEAN, SH_FLOAT32},
    {1, 3, 0, 0, 0, SH_EUCLIDEAN, SH_FLOAT64}};
enum { PROBLEM_COUNT = sizeof PROBLEMS / sizeof *PROBLEMS };

static void fill(const problem *p) {
    for (int64_t i = 0; i < M + 40; i++)
        for (int64_t j = 0; j < WIDEST; j++) {
            rows[i][j] = (float)(normal(&seed) * (p->leading ? 1 / sqrt(1 + 0.3 * (double)j) : 1) + 0.5);
            rows_in_double[i][j] = (double)rows[i][j];
        }
    for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < p->d; j++) { /* contiguous */
            (&asked[0][0])[i * p->d + j] = rows[(7 * i) % p->n][j] + (float)(0.3 * normal(&seed));
            (&asked_in_double[0][0])[i * p->d + j] = (double)(&asked[0][0])[i * p->d + j];
        }
}

static sh_rows rows_of(const problem *p, int64_t n) {
    const int wide = p->type == SH_FLOAT64;
    return (sh_rows){.data = wide ? (void *)rows_in_double : (void *)rows,
                     .n = n,
                     .d = p->d,
                     .stride = (int64_t)(wide ? sizeof rows_in_double[0] : sizeof rows[0]),
                     .type = p->type};
}

static sh_queries queries_of(const problem *p) {
    static const double beta = 2;
    return (sh_queries){.data = p->type == SH_FLOAT64 ? (void *)asked_in_double : (void *)asked, .n = N, .beta = &beta};
}

/* Makes a memory with all the indexes that are wanted. */
static sh_memory *with_indexes(sh_context *context, const problem *p) {
    sh_memory *memory = NULL;
    const sh_rows all = rows_of(p, p->n);
    static double states[N * WIDEST];
    if (!CHECK_OK(sh_memory_new(context, &all, NULL, p->similarity, p->type, &memory))) exit(1);
    context->path = SH_PATH_LINES;
    CHECK_OK(sh_update(context, memory, sparsemax, queries_of(p), states, NULL));
    context->path = SH_PATH_COLUMNS;
    if (p->all) CHECK_OK(sh_update(context, memory, sparsemax, queries_of(p), states, NULL));
    context->path = SH_PATH_AUTO;
    if (p->longer) {
        sh_index *longer = NULL;
        sh_index *base = atomic_load(&memory->indexes->index[SH_LEADING_INDEX]);
        CHECK_OK(sh_index_lengthen_codes(context, memory, base, INT64_MAX, &longer));
        CHECK(longer != NULL);
        atomic_store(&memory->indexes->index[SH_LONGER_INDEX], longer);
    }
    return memory;
}

/* Returns the bytes of a memory's indexes, at a multiple of 64 and exactly as long; to be freed. */
static void *exported(sh_context *context, const sh_memory *memory, int64_t *bytes) {
    CHECK_OK(sh_memory_index_export(context, memory, NULL, 0, bytes));
    void *file = aligned_alloc(64, (size_t)(*bytes > 0 ? *bytes : 64));
    if (!file) exit(2);
    memset(file, 0xAA, (size_t)*bytes);
    int64_t again;
    CHECK_OK(sh_memory_index_export(context, memory, file, *bytes, &again));
    CHECK(again == *bytes && *bytes % 64 == 0);
    return file;
}

/* Gives a file the checksum of what it holds. */
static void sign(char *file, int64_t bytes) {
    uint64_t sum = 0;
    for (int64_t first = 24, item = 1; first < bytes; first += 1 << 20, item++)
        sum += sh_hash(file + first, (size_t)sh_min(1 << 20, bytes - first), (uint64_t)item);
    memcpy(file + 16, &sum, sizeof sum);
}

/* Computes results by all paths that take an index: (3, N, d) states, and the bounds of one query. */
static void ask(sh_context *context, const problem *p, const sh_memory *memory, double *states, double *bounds) {
    static const sh_path paths[] = {SH_PATH_AUTO, SH_PATH_LINES, SH_PATH_COLUMNS};
    sh_queries one = queries_of(p);
    one.n = 1;
    for (int i = 0; i < 2 + p->all; i++) {
        context->path = paths[i];
        CHECK_OK(sh_update(context, memory, sparsemax, queries_of(p), states + (int64_t)i * N * WIDEST, NULL));
    }
    context->path = SH_PATH_LINES;
    CHECK_OK(sh_bounds(context, memory, one, bounds));
    context->path = SH_PATH_AUTO;
}

static void there_and_back(void) {
    static double want[3 * N * WIDEST], got[3 * N * WIDEST];
    double *bounds = own((M + 40) * 3, sizeof *bounds), *its = own((M + 40) * 3, sizeof *its);
    for (int i = 0; i < PROBLEM_COUNT; i++) {
        const problem *p = &PROBLEMS[i];
        ledger l = {.fail_at = -1};
        sh_context context = context_of(&l, 1 + i % 3);
        fill(p);
        sh_memory *memory = with_indexes(&context, p), *other = NULL, *longer = NULL;
        int64_t bytes, its_bytes;
        void *file = exported(&context, memory, &bytes);
        CHECK(bytes >= sh_memory_index_bytes(memory) && bytes <= sh_memory_index_bytes(memory) + 4096);
        ask(&context, p, memory, want, bounds);

        const sh_rows all = rows_of(p, p->n), more = rows_of(p, p->n + 40);
        CHECK_OK(sh_memory_make(&context, /* with_fingerprint */ i % 2, &all, NULL, p->similarity, p->type, &other));
        const int64_t blocks = atomic_load(&l.live);
        CHECK_OK(sh_memory_index_import(&context, other, file, bytes));
        CHECK(l.live == blocks + 1 + p->all + p->longer); /* nothing is copied */
        CHECK(sh_memory_index_bytes(other) == sh_memory_index_bytes(memory) && sh_borrows_index(other));
        CHECK_OK(sh_memory_index_import(&context, other, file, bytes)); /* what there is stays */
        ask(&context, p, other, got, its);
        CHECK(!memcmp(want, got, sizeof want));
        CHECK(!memcmp(bounds, its, (size_t)(p->n * 3) * sizeof *bounds));
        void *again = exported(&context, other, &its_bytes);
        CHECK(its_bytes == bytes && !memcmp(file, again, (size_t)bytes));
        free(again);

        /* longer codes, and a longer memory, made from an index that lies in a file */
        if (p->longer) {
            sh_index *made = NULL, *base = atomic_load(&other->indexes->index[SH_LEADING_INDEX]);
            CHECK_OK(sh_index_lengthen_codes(&context, other, base, INT64_MAX, &made));
            sh_index_free(&context, made);
        }
        CHECK_OK(sh_memory_extend(&context, other, &more, NULL, &longer));
        CHECK(sh_borrows_index(longer));
        sh_memory_free(&context, other);
        CHECK_OK(sh_memory_index(&context, longer));
        sh_memory *anew = NULL;
        CHECK_OK(sh_memory_new(&context, &more, NULL, p->similarity, p->type, &anew));
        if (p->all || p->n < 64)
            sh_memory_use_index(&context, longer, SH_INDEX_NEVER); /* two to be grown, or made anew */
        CHECK(sh_borrows_index(longer) == 0);
        memset(file, 0, (size_t)bytes);
        free(file);
        ask(&context, p, longer, got, its);
        ask(&context, p, anew, want, bounds);
        CHECK(!memcmp(want, got, sizeof want));
        sh_memory_free(&context, longer);
        sh_memory_free(&context, anew);
        sh_memory_free(&context, memory);
        CHECK(l.live == 0);
    }
    free(bounds);
    free(its);
}

/* --- fewer patterns ------------------------------------------------------------------------------- */

/* Returns a memory of the patterns that are left of another, with its indexes; the rows are in `copied`. */
static sh_memory *packed(sh_context *context, const problem *p, const sh_memory *other, void *copied) {
    const int64_t n = sh_memory_count(other), bytes = p->d * (int64_t)size_of(p->type);
    sh_rows left = {.data = copied, .n = n, .d = p->d, .stride = bytes, .type = p->type};
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)copied + i * bytes,
               (const char *)other->patterns.data + sh_row_of(other, i) * other->patterns.stride, (size_t)bytes);
    sh_memory *memory = NULL;
    CHECK_OK(sh_memory_new(context, &left, NULL, p->similarity, p->type, &memory));
    CHECK_OK(sh_memory_pack_index(context, memory, other));
    return memory;
}

/* Removes patterns in every way, has the index without them, from file and all, and asks. */
static void fewer_patterns(void) {
    static double want[3 * N * WIDEST], got[3 * N * WIDEST];
    double *bounds = own((M + 40) * 3, sizeof *bounds), *copied = own((M + 40) * WIDEST, sizeof *copied);
    for (int i = 0; i < PROBLEM_COUNT - 1; i++)
        for (int way = 0; way < 4; way++) {
            const problem *p = &PROBLEMS[i];
            ledger l = {.fail_at = -1};
            sh_context context = context_of(&l, 1 + i % 3);
            fill(p);
            sh_memory *memory = with_indexes(&context, p), *longer = NULL, *fewer = NULL, *anew = NULL;
            const sh_rows more = rows_of(p, p->n + 40);
            if (way == 3 && !p->all && p->n > 64) { /* of two segments, the second of which goes */
                CHECK_OK(sh_memory_extend(&context, memory, &more, NULL, &longer));
                CHECK_OK(sh_memory_index(&context, longer));
                sh_memory_free(&context, memory);
                memory = longer;
                CHECK(atomic_load(&memory->indexes->index[SH_LEADING_INDEX])->segments == 2);
            }
            int64_t gone[M], n = 0;
            for (int64_t j = 0; j < sh_memory_count(memory); j++)
                if (way == 0 ? j % 8 == 0 : way == 1 ? j > 5 && j < p->n / 9 : way == 2 ? j == 7 : j >= p->n || j == 9)
                    gone[n++] = j;
            CHECK_OK(sh_memory_remove(&context, memory, n, gone, &fewer));
            sh_memory *with = packed(&context, p, fewer, copied);
            const int made = sh_memory_index_bytes(with) > 0;
            CHECK(made || (way == 0 && p->similarity == SH_EUCLIDEAN)); /* of another first pattern */
            CHECK(sh_memory_index_bytes(with) <= sh_memory_index_bytes(fewer));
            CHECK_OK(sh_memory_new(&context, &with->patterns, NULL, p->similarity, p->type, &anew));
            sh_memory_use_index(&context, anew, SH_INDEX_NEVER);
            context.path = SH_PATH_SCAN;
            for (int k = 0; k < 2 + p->all; k++)
                CHECK_OK(sh_update(&context, anew, sparsemax, queries_of(p), want + (int64_t)k * N * WIDEST, NULL));
            context.path = SH_PATH_AUTO;
            ask(&context, p, with, got, bounds);
            CHECK(!memcmp(want, got, sizeof want));
            if (made) { /* as a file it is found to be sound */
                int64_t bytes;
                void *file = exported(&context, with, &bytes);
                sh_memory_use_index(&context, anew, SH_INDEX_AUTO);
                CHECK_OK(sh_memory_index_import(&context, anew, file, bytes));
                CHECK(sh_memory_index_bytes(anew) == sh_memory_index_bytes(with));
                ask(&context, p, anew, got, bounds);
                CHECK(!memcmp(want, got, sizeof want));
                sh_memory_use_index(&context, anew, SH_INDEX_NEVER);
                free(file);
            }
            for (int64_t fail = 0; way == 2 && fail < 40; fail++) { /* without memory for one there is none */
                sh_memory *without = NULL;
                CHECK_OK(sh_memory_new(&context, &with->patterns, NULL, p->similarity, p->type, &without));
                l.fail_at = atomic_load(&l.made) + fail;
                CHECK_OK(sh_memory_pack_index(&context, without, fewer));
                l.fail_at = -1;
                CHECK(sh_memory_index_bytes(without) <= sh_memory_index_bytes(with));
                CHECK(fail < 39 || sh_memory_index_bytes(without) == sh_memory_index_bytes(with));
                sh_memory_free(&context, without);
            }
            sh_memory_free(&context, anew);
            sh_memory_free(&context, with);
            sh_memory_free(&context, fewer);
            sh_memory_free(&context, memory);
            CHECK(l.live == 0);
        }
    free(bounds);
    free(copied);
}

/* Patterns are read once where their fingerprint is computed with their norms: what is written into them afterwards, which
 * nobody may do, is not told by an import. */
static void one_pass(void) {
    const problem *p = &PROBLEMS[1];
    sh_context context = {.threads = 2};
    fill(p);
    sh_memory *with = with_indexes(&context, p), *twice = NULL, *once = NULL;
    const sh_rows all = rows_of(p, p->n);
    int64_t bytes;
    void *file = exported(&context, with, &bytes);
    CHECK_OK(sh_memory_make(&context, 0, &all, NULL, p->similarity, p->type, &twice));
    CHECK_OK(sh_memory_make(&context, 1, &all, NULL, p->similarity, p->type, &once));
    rows[17][3] = -rows[17][3];
    CHECK_REFUSED(context, sh_memory_index_import(&context, twice, file, bytes), SH_BAD_ARGUMENT, "patterns");
    CHECK_OK(sh_memory_index_import(&context, once, file, bytes));
    rows[17][3] = -rows[17][3];
    CHECK_OK(sh_memory_index_import(&context, twice, file, bytes));
    sh_memory_free(&context, once);
    rows[17][3] = -rows[17][3]; /* before they are read */
    CHECK_OK(sh_memory_make(&context, 1, &all, NULL, p->similarity, p->type, &once));
    CHECK_REFUSED(context, sh_memory_index_import(&context, once, file, bytes), SH_BAD_ARGUMENT, "patterns");
    sh_memory_free(&context, once);
    sh_memory_free(&context, twice);
    sh_memory_free(&context, with);
    free(file);
}

/* --- what is refused ------------------------------------------------------------------------------ */

/* Checks that bytes are refused by this name; the memory is as it was. */
static void refuse(sh_memory *memory, const void *file, int64_t bytes, const char *name) {
    sh_context context = {.threads = 1};
    CHECK_REFUSED(context, sh_memory_index_import(&context, memory, file, bytes), SH_BAD_ARGUMENT, name);
    CHECK(sh_memory_index_bytes(memory) == 0);
}

/* Imports a copy with other bytes somewhere. */
static void refuse_with(sh_memory *memory, const char *file, int64_t bytes, int64_t at, const void *other, size_t n,
                        int is_signed, const char *name) {
    char *copy = aligned_alloc(64, (size_t)bytes);
    if (!copy) exit(2);
    memcpy(copy, file, (size_t)bytes);
    memcpy(copy + at, other, n);
    if (is_signed) sign(copy, bytes);
    refuse(memory, copy, bytes, name);
    free(copy);
}

static void damage(void) {
    static const problem few = {300, 130, 1, 0, 0, SH_EUCLIDEAN, SH_FLOAT32};
    const problem *p = &few;
    sh_context context = {.threads = 1};
    fill(p);
    sh_memory *with = with_indexes(&context, p), *memory = NULL, *others[6] = {NULL};
    int64_t bytes;
    char *file = exported(&context, with, &bytes);
    sh_rows all = rows_of(p, p->n);
    CHECK_OK(sh_memory_new(&context, &all, NULL, p->similarity, p->type, &memory));

    /* other bits, and less of it */
    for (int64_t at = 0; at < bytes; at += at < HEADER + NUMBERS ? 1 : 997) {
        const char bit = (char)(1 << (at * 3) % 8), flipped = (char)(file[at] ^ bit);
        refuse_with(memory, file, bytes, at, &flipped, 1, 0, at >= 8 && at < 16 ? "version" : "file");
    }
    for (int64_t n = 0; n < bytes; n += n < 300 ? 64 : 6400) {
        char *copy = aligned_alloc(64, (size_t)(n ? n : 64));
        if (!copy) exit(2);
        memcpy(copy, file, (size_t)n);
        refuse(memory, copy, n, "file");
        if (n >= HEADER) {
            memcpy(copy + 24, &n, sizeof n);
            sign(copy, n);
            refuse(memory, copy, n, "file");
        }
        free(copy);
    }
    refuse(memory, file, -1, "file");
    refuse(memory, file, INT64_MAX, "file");
    refuse(memory, file + 4, bytes - 4, "file"); /* not aligned */

    /* other versions, and other patterns */
    for (uint32_t version = 0; version < 4; version++)
        if (version != 2) refuse_with(memory, file, bytes, 8, &version, sizeof version, 1, "version");
    const uint32_t swapped = 0x04030201;
    refuse_with(memory, file, bytes, 12, &swapped, sizeof swapped, 1, "version");
    sh_rows changed[] = {all, all, all, all};
    changed[0].n--;
    changed[1].d--;
    changed[2].data = rows[1];
    for (int i = 0; i < 3; i++)
        CHECK_OK(sh_memory_new(&context, &changed[i], NULL, SH_EUCLIDEAN, SH_FLOAT32, &others[i]));
    CHECK_OK(sh_memory_new(&context, &all, NULL, SH_DOT, SH_FLOAT32, &others[3]));
    problem wide = few;
    wide.type = SH_FLOAT64;
    changed[3] = rows_of(&wide, p->n);
    CHECK_OK(sh_memory_new(&context, &changed[3], NULL, SH_EUCLIDEAN, SH_FLOAT64, &others[4]));
    for (int i = 0; i < 5; i++) refuse(others[i], file, bytes, "patterns");
    rows[17][3] = -rows[17][3]; /* signs: the upper bits of numbers, which others may seem to undo */
    rows[17][3 + 16] = -rows[17][3 + 16];
    CHECK_OK(sh_memory_new(&context, &all, NULL, p->similarity, p->type, &others[5]));
    refuse(others[5], file, bytes, "patterns");
    rows[17][3] = -rows[17][3];
    rows[17][3 + 16] = -rows[17][3 + 16];

    /* numbers that cannot be, under their own checksum */
    static const int64_t whole[] = {-1, 3, INT32_MAX, (int64_t)INT32_MAX + 1, INT64_MAX, INT64_MIN, (int64_t)1 << 33};
    static const double real[] = {NAN, INFINITY, -INFINITY, -1, 1e300, 0x1p-600};
    for (int64_t at = 24; at < 80;
         at += at == 40 || at == 48 ? 8 : 8) /* bytes, fingerprint, patterns, d, types, indexes */
        for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
            const char *name = at >= 32 && at < 72 ? "patterns" : "file";
            refuse_with(memory, file, bytes, at, &whole[i], 8, 1, name);
        }
    for (int64_t field = 0; field < 78; field += field == 13   ? 32
                                                 : field == 45 ? 32
                                                               : 1) { /* the only segment's alone */
        const int64_t at = HEADER + 8 * field;
        const int is_flag = field == 4, is_column = field >= 6 && field < 12;
        for (size_t i = 0; i < sizeof whole / sizeof *whole && !is_flag; i++)
            if (memcmp(file + at, &whole[i], 8) != 0 && !(is_column && whole[i] == 3))
                refuse_with(memory, file, bytes, at, &whole[i], 8, 1, "file");
    }
    for (int64_t field = 78; field < 85; field++) /* scaling, first_distance, eta, weights of the filter */
        for (size_t i = 0; i < sizeof real / sizeof *real; i++)
            if ((field != 79 && field != 80) || real[i] != 0x1p-600) /* which these may be */
                refuse_with(memory, file, bytes, HEADER + 8 * field, &real[i], 8, 1, "file");

    /* an order that is none; slots that are empty, or seem to be; numbers that are none */
    sh_index *x = atomic_load(&with->indexes->index[SH_LEADING_INDEX]);
    sh_memory *placed = NULL;
    CHECK_OK(sh_memory_new(&context, &all, NULL, p->similarity, p->type, &placed));
    CHECK_OK(sh_memory_index_import(&context, placed, file, bytes));
    const sh_index *y = atomic_load(&placed->indexes->index[SH_LEADING_INDEX]);
    const int64_t order = (char *)y->order - file, panel = (char *)y->panels - file + y->quads * 256;
    const int64_t last = order + (y->panel_count * SH_PANEL - 1) * 4;
    const int32_t wrong[] = {-1, -2, 300, INT32_MAX, INT32_MIN, y->order[1]};
    CHECK(x->panel_count == y->panel_count && y->order[y->panel_count * SH_PANEL - 1] == -1);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        refuse_with(memory, file, bytes, order, &wrong[i], 4, 1, "file");
        if (wrong[i] != -1) refuse_with(memory, file, bytes, last, &wrong[i], 4, 1, "file");
    }
    const float numbers[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f};
    const int64_t last_bias = (char *)y->panels - file + y->panel_count * (int64_t)sh_panel_bytes(y->quads) - 4;
    const int64_t places[] = {panel,                            /* an error radius */
                              panel + 256,                      /* a bias */
                              (char *)y->scales - file,         /* a scale of a panel, */
                              (char *)y->filter.step - file,    /* a step, */
                              (char *)y->filter.inverse - file, /* its inverse, */
                              (char *)y->boxes - file,          /* a box, */
                              (char *)y->boxes - file + 4 * (2 * SH_BOX_COLUMNS * SH_GROUP),
                              (char *)y->centre - file + 4, /* the upper half of a double */
                              (char *)y->basis - file,
                              (char *)y->refinement.step - file,
                              (char *)y->records - file + (int64_t)y->record_bytes - 12,
                              (char *)y->records - file + (int64_t)y->record_bytes - 8,
                              (char *)y->records - file + (int64_t)y->record_bytes - 4};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (size_t j = 0; j < sizeof numbers / sizeof *numbers; j++)
            if (places[i] != (char *)y->centre - file + 4 || j < 3)
                refuse_with(memory, file, bytes, places[i], &numbers[j], 4, 1, "file");
    const float finite = 0; /* the bias of a slot that is empty, and of a panel that there is not */
    refuse_with(memory, file, bytes, last_bias, &finite, 4, 1, "file");
    refuse_with(memory, file, bytes, (char *)y->boxes - file + 4 * (SH_GROUP_FLOATS - 1), &finite, 4, 1, "file");
    int32_t slots
        [SH_PANEL]; /* an empty slot before others of its panel; a panel that is empty, and thus another too full */
    memcpy(slots, y->order, sizeof slots);
    slots[5] = -1;
    refuse_with(memory, file, bytes, order, slots, sizeof slots, 1, "file");
    for (int i = 0; i < SH_PANEL; i++) slots[i] = -1;
    refuse_with(memory, file, bytes, order, slots, sizeof slots, 1, "file");

    CHECK_OK(sh_memory_index_import(&context, memory, file, bytes)); /* the whole file is still taken */
    sh_memory_use_index(&context, memory, SH_INDEX_NEVER);
    CHECK_OK(sh_memory_index_import(&context, memory, file, bytes));
    CHECK(sh_memory_index_bytes(memory) == 0);
    int64_t none = 1;
    CHECK_OK(sh_memory_index_export(&context, memory, NULL, 0, &none));
    CHECK(none == 0);
    for (int i = 0; i < 6; i++) sh_memory_free(&context, others[i]);
    sh_memory_free(&context, placed);
    sh_memory_free(&context, memory);
    sh_memory_free(&context, with);
    free(file);
}

/* Numbers made up by chance under a checksum of their own: refused, or, where the library has no assertions of bounds that
 * hold, searched by. */
static void made_up(void) {
    static const problem few[] = {{300, 130, 1, 0, 0, SH_EUCLIDEAN, SH_FLOAT32},
                                  {200, 20, 0, 0, 0, SH_DOT, SH_FLOAT32}};
    static double states[N * WIDEST];
    for (int i = 0; i < 400; i++) {
        const problem *p = &few[i % 2];
        sh_context context = {.threads = 1, .path = SH_PATH_LINES};
        static sh_memory *with;
        if (i < 2) fill(p);
        with = with_indexes(&context, p);
        context.path = SH_PATH_LINES;
        int64_t bytes, taken = 0;
        char *file = exported(&context, with, &bytes);
        const sh_rows all = rows_of(p, p->n);
        sh_memory *memory = NULL;
        CHECK_OK(sh_memory_new(&context, &all, NULL, p->similarity, p->type, &memory));
        for (int changes = 1 + (int)(draw(&seed) % 3); changes > 0; changes--) {
            static const float numbers[] = {0, -1, 1e-30f, 1e9f, -1e30f, 1e30f, NAN, INFINITY, 0.5f};
            const int64_t at = 32 + (int64_t)(draw(&seed) % (uint64_t)((bytes - 36) / 4)) * 4;
            const float number = numbers[draw(&seed) % 9];
            const uint32_t bits = (uint32_t)draw(&seed);
            memcpy(file + at, draw(&seed) % 2 ? (const void *)&number : &bits, 4);
        }
        sign(file, bytes);
        context.argument = NULL;
        const sh_status status = sh_memory_index_import(&context, memory, file, bytes);
        CHECK(status == SH_OK || (status == SH_BAD_ARGUMENT && context.argument));
        taken = status == SH_OK;
#ifdef NDEBUG
        if (taken) CHECK_OK(sh_update(&context, memory, sparsemax, queries_of(p), states, NULL));
        int64_t position[N * 3];
        double score[N * 3];
        if (taken) CHECK_OK(sh_nearest(&context, memory, queries_of(p), 3, position, score));
        for (int64_t j = 0; taken && j < N * 3; j++) CHECK(position[j] >= -1 && position[j] < p->n);
#else
        (void)states, (void)taken;
#endif
        sh_memory_free(&context, memory);
        sh_memory_free(&context, with);
        free(file);
    }
}

/* --- what fails ----------------------------------------------------------------------------------- */

static sh_status export_and_import(sh_context *context, void *given) {
    static const problem small = {130, 130, 1, 0, 0, SH_EUCLIDEAN, SH_FLOAT32};
    const sh_rows all = rows_of(&small, small.n);
    sh_memory *memory = NULL;
    sh_status status = sh_memory_new(context, &all, NULL, small.similarity, small.type, &memory);
    int64_t bytes, *its_bytes = given;
    static char file[1 << 20] __attribute__((aligned(64)));
    if (*its_bytes == 0 && status == SH_OK) { /* the first time */
        status = sh_memory_index(context, memory);
        if (status == SH_OK) status = sh_memory_index_export(context, memory, file, sizeof file, &bytes);
        if (status == SH_OK) *its_bytes = bytes;
    } else if (status == SH_OK) {
        status = sh_memory_index_import(context, memory, file, *its_bytes);
    }
    sh_memory_free(context, memory);
    return status;
}

static void failures(void) {
    int64_t bytes = 0;
    sh_context context = {.threads = 1};
    fill(&PROBLEMS[7]);
    CHECK_OK(export_and_import(&context, &bytes));
    CHECK(bytes > 0);
    fail_in_turn("an import without memory", export_and_import, &bytes, 0);
    sh_memory *memory = NULL;
    const sh_rows all = rows_of(&PROBLEMS[7], 20);
    CHECK_OK(sh_memory_new(&context, &all, NULL, SH_DOT, SH_FLOAT32, &memory));
    static char some[64] __attribute__((aligned(64)));
    CHECK_REFUSED(context, sh_memory_index_export(&context, NULL, some, 64, &bytes), SH_BAD_ARGUMENT, "memory");
    CHECK_REFUSED(context, sh_memory_index_export(&context, memory, some, 64, NULL), SH_BAD_ARGUMENT, "bytes");
    CHECK_REFUSED(context, sh_memory_index_export(&context, memory, some, -1, &bytes), SH_BAD_ARGUMENT, "capacity");
    CHECK_REFUSED(context, sh_memory_index_export(&context, memory, NULL, 64, &bytes), SH_BAD_ARGUMENT, "capacity");
    CHECK_REFUSED(context, sh_memory_index_import(&context, NULL, some, 64), SH_BAD_ARGUMENT, "memory");
    CHECK_REFUSED(context, sh_memory_index_import(&context, memory, NULL, 64), SH_BAD_ARGUMENT, "file");
    sh_memory_free(&context, memory);
}

int main(void) {
    CHECK_OK(sh_initialise());
    there_and_back();
    fewer_patterns();
    one_pass();
    damage();
    made_up();
    failures();
    return checked("indexes in files");
}
