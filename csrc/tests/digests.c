/* digests.c: results of the whole library for fixed data, as 64-bit digests, to be compared between builds and machines.
 *
 * Two kinds of lines are made:
 *   promised  What must be the same bits for any compiler, mathematics library, processor, BLAS and number of threads:
 *             weights, scores, states, support sizes and energies of maps with a cutoff, and all that is made of
 *             canonical scores alone: so of softmax, where few patterns are within reach (retrieval/rescore.c, note 2).
 *             Each is also compared with itself by other ways: through an index, by more threads, query by query, from a
 *             memory that grew, and from two parts that were merged. The weights must solve their equations.
 *   others    Softmax otherwise, the polynomial, large supports, features and layers: the same bits for any number of
 *             threads only, so besides being digested they are compared with plain loops in double.
 *
 * Usage: digests [--brief] [--list promised|others|none] [--expect FILE] [--write FILE]
 *   no option       prints all lines, and a digest of each kind at the end
 *   --brief         makes the promised lines alone, and by one way each: for emulators, which take minutes for all
 *   --list KIND     prints the lines of one kind only, or with `none` just the digests of each kind
 *   --expect FILE   compares the promised lines with those of a file, and names those that differ, or are in one only
 *   --write FILE    writes the promised lines to a file
 * Returns 0 if all comparisons hold, 1 if not, 2 if there is no memory or an option is unknown.
 *
 * digests.txt, beside this file, holds the promised lines. After a change that is meant to change bits:
 *   make -C csrc build/tests/digests && csrc/build/tests/digests --list none --write csrc/tests/digests.txt
 *
 * Notes  1. Data are integers times a power of two, each rounded once to its type: no function of a mathematics library
 *           takes part, and no sum of rounded numbers.
 *        2. Bits are digested as they are, -0.0 apart from 0.0; but all NaN are one, as processors make different ones. */
#include "separation/separation.h"
#include "plain.h"
#include "sparsehopfield_layers.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- memory, failures, digests, lines ------------------------------------------------------------- */

static int failures;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("digests: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    failures++;
}

/* FNV-1a, from the lowest byte of each number to its highest, so that the order of bytes in memory does not count. */
static const uint64_t EMPTY = 0xCBF29CE484222325;
static uint64_t add_number(uint64_t digest, uint64_t number, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) digest = (digest ^ (number >> 8 * i & 0xFF)) * 0x100000001B3;
    return digest;
}

static uint64_t add_integers(uint64_t digest, const int64_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) digest = add_number(digest, (uint64_t)x[i], sizeof *x);
    return digest;
}

static uint64_t add_doubles(uint64_t digest, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = 0x7FF8000000000000;
        if (x[i] == x[i]) memcpy(&bits, &x[i], sizeof bits);
        digest = add_number(digest, bits, sizeof bits);
    }
    return digest;
}

/* Adds n numbers of a compute type. */
static uint64_t add_reals(uint64_t digest, sh_type type, const void *numbers, int64_t n) {
    if (type == SH_FLOAT64) return add_doubles(digest, numbers, n);
    const float *x = numbers;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = 0x7FC00000;
        if (x[i] == x[i]) memcpy(&bits, &x[i], sizeof bits);
        digest = add_number(digest, bits, sizeof bits);
    }
    return digest;
}

typedef enum { PROMISED, OTHERS, KINDS } kind;
static const char *const KIND_NAMES[KINDS] = {"promised", "others"};
enum { NAME = 96 };
typedef struct {
    char name[NAME];
    kind kind;
    uint64_t digest;
    double error, limit; /* of others: the largest difference from plain loops, and what it may be */
} line;

static line *lines;
static int64_t line_count, line_room;

/* Adds a line of this name. `error` is the largest difference from plain loops, in units of what it may be. */
static void add_line(kind kind, uint64_t digest, double error, const char *format, ...) {
    if (line_count == line_room) {
        line *longer = own(line_room = 2 * line_room + 64, sizeof *longer);
        if (line_count) memcpy(longer, lines, (size_t)line_count * sizeof *longer);
        free(lines);
        lines = longer;
    }
    line *new = &lines[line_count++];
    *new = (line){.kind = kind, .digest = digest, .error = error};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(new->name, NAME, format, arguments);
    va_end(arguments);
    if (!(error <= 1)) fail("%s: off by %.3g times what it may be", new->name, error);
}

/* Notes a call that did not succeed; returns whether it did. */
static int succeeds(sh_status status, const sh_context *context, const char *what) {
    if (status != SH_OK)
        fail("%s: %s of %s, row %" PRId64, what, sh_status_name(status), context->argument ? context->argument : "?",
             context->row);
    return status == SH_OK;
}

/* --- data (note 1) -------------------------------------------------------------------------------- */

/* Draws an integer from -most to most. */
static int64_t draw_within(uint64_t *state, int64_t most) {
    return (int64_t)(draw(state) % (uint64_t)(2 * most + 1)) - most;
}

typedef enum { PLAIN, CLUSTERS, STRUCTURED, OFFSET, COUNTS, IMAGES, HALVES } pattern_kind;

/* Makes rows of integers. */
static int64_t *draw_rows(pattern_kind kind, int64_t rows, int64_t d, uint64_t seed) {
    enum { BASES = 24, FREE = 10 };
    int64_t *all = own(rows * d, sizeof *all), walk = 0;
    for (int64_t i = 0; i < rows; i++) {
        int64_t *x = all + i * d, *base = all + i % BASES * d;
        for (int64_t j = 0; j < d; j++) {
            switch (kind) {
            case PLAIN: x[j] = draw_within(&seed, (int64_t)1 << 50); break;
            case CLUSTERS: x[j] = i < BASES ? draw_within(&seed, (int64_t)1 << 23) : base[j]; break;
            case STRUCTURED: /* few directions and some noise: an index has bounds that exclude */
                x[j] = j < FREE ? draw_within(&seed, 1 << 22) : x[j % FREE] + draw_within(&seed, 1 << 19);
                break;
            case OFFSET: x[j] = ((int64_t)1000 << 40) + draw_within(&seed, (int64_t)1 << 34); break;
            case COUNTS: x[j] = (int64_t)(draw(&seed) % 4) * (int64_t)(draw(&seed) % 2); break;
            case IMAGES: /* a walk with dark parts */
                walk += draw_within(&seed, 40);
                walk = walk < -60 ? -60 : walk > 255 ? 255 : walk;
                x[j] = walk < 0 ? 0 : walk;
                break;
            case HALVES: x[j] = draw_within(&seed, 2047); break;
            }
        }
        if (kind == COUNTS) x[i % d] += 1; /* no row is zero */
        if (kind == IMAGES) x[i % d] |= 1;
        if (kind == CLUSTERS && i >= BASES && i % 3) /* every third is a copy, the others are very close */
            x[draw(&seed) % (uint64_t)d] += i % 3 == 1 ? 1 : 1 << draw(&seed) % 18;
    }
    return all;
}

/* The bits of an integer / 1024 of at most 11 bits as a float16. */
static uint16_t half_of(int64_t integer) {
    uint64_t size = (uint64_t)(integer < 0 ? -integer : integer);
    int most = 10;
    if (size == 0) return 0;
    while (!(size >> most)) most--;
    return (uint16_t)((integer < 0 ? 0x8000 : 0) | (most + 5) << 10 | (size << (10 - most) & 0x3FF));
}

/* Stores integers times `unit` (of a narrow type: the integers, or 1/1024 of them), `apart` numbers from row to row. */
static void *store(const int64_t *x, int64_t rows, int64_t d, int64_t apart, sh_type type, double unit) {
    void *out = own(rows * apart, size_of(type));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < d; j++) {
            int64_t from = x[i * d + j], to = i * apart + j;
            switch (type) {
            case SH_FLOAT32: ((float *)out)[to] = (float)from * (float)unit; break;
            case SH_FLOAT64: ((double *)out)[to] = (double)from * unit; break;
            case SH_UINT8: ((uint8_t *)out)[to] = (uint8_t)from; break;
            case SH_FLOAT16: ((uint16_t *)out)[to] = half_of(from); break;
            }
        }
    return out;
}

static double unit_of(sh_type type) { return type == SH_FLOAT32 ? 0x1p-24 : 0x1p-53; }

/* --- maps in plain loops -------------------------------------------------------------------------- */

static const double ALPHAS[] = {1.05, 1.1, 1.2, 1.25, 1.3, 1.4, 1.5, 1.6, 1.7, 1.75,
                                1.8,  1.9, 2,   2.25, 2.5, 3,   3.5, 4,   4.5, 5};
enum { ALPHA_COUNT = sizeof ALPHAS / sizeof *ALPHAS };

static int has_cutoff(sh_model m) { return sh_map_numbered((int)m.separation)->cutoff != NULL; }

/* Whether plain.h has the map. Of the others, which the table alone knows, weights must sum to 1 and rise with scores. */
static int is_plain(sh_model m) { return m.separation <= SH_POLYNOMIAL; }
static const double OTHER_ALPHAS[] = {1.25, 2, 3};
enum { OTHER_ALPHA_COUNT = sizeof OTHER_ALPHAS / sizeof *OTHER_ALPHAS };
static int other_map(int i) { return SH_POLYNOMIAL + 1 + i / OTHER_ALPHA_COUNT; }

static const char *name_of(sh_model m, char *out) {
    const sh_map *map = sh_map_numbered((int)m.separation);
    if (map->parameter.name)
        snprintf(out, NAME, "%s-%g", map->name, m.parameter);
    else
        snprintf(out, NAME, "%s", map->name);
    return out;
}

/* Tells how far weights p of n values z are from a solution of the map's equations, in units of what rounding to `unit` and an
 * error `slack` of z explain: sum p = 1; p^a = a z - tau in the support and a z <= tau outside, with a = alpha - 1. The
 * best has weight, and tells tau. */
static double support_error(sh_model m, int64_t n, const double *z, const double *p, double unit, double slack) {
    const double alpha = plain_alpha(m), a = alpha - 1;
    double best = -INFINITY, most = 0, sum = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += p[i];
        if (p[i] > most) most = p[i];
        if (z[i] > best) best = z[i];
    }
    if (!is_plain(m)) {
        for (int64_t i = 0; i < n; i++) worst = larger(worst, z[i] == best ? most - p[i] : 0);
        return larger(worst, fabs(sum - 1)) / ((double)(n + 4) * unit + 0x1p-46);
    }
    double tau = a * best - pow(most, a), allowed = 4 * (a + 1) * (unit + slack) + 0x1p-46;
    for (int64_t i = 0; i < n; i++) {
        double r = a * z[i] - tau, error;
        if (a >= 1)
            error = p[i] > 0 ? fabs(pow(p[i], a) - r) : r;
        else /* p is no steeper than r */
            error = fabs(p[i] - plain_entmax(alpha, z[i], tau)) * a;
        if (error > worst || error != error) worst = error;
    }
    worst = larger(worst, fabs(sum - 1) / 2);
    return worst / allowed;
}

/* The gradient in z from that in p. */
static void plain_weights_back(sh_model m, int64_t n, const double *z, const double *p, const double *dp, double *dz) {
    double sum = 0, mean = 0;
    if (m.separation == SH_POLYNOMIAL) {
        for (int64_t i = 0; i < n; i++) mean += p[i] * dp[i];
        for (int64_t i = 0; i < n; i++) dz[i] = z[i] != 0 ? m.parameter * p[i] / z[i] * (dp[i] - mean) : 0;
        return;
    }
    double power = 2 - plain_alpha(m);
    for (int64_t i = 0; i < n; i++) {
        dz[i] = p[i] > 0 ? pow(p[i], power) : 0;
        sum += dz[i];
        mean += dz[i] * dp[i];
    }
    for (int64_t i = 0; i < n; i++) dz[i] *= dp[i] - mean / sum;
}

/* --- retrieval: memories, and all ways to an answer ----------------------------------------------- */

enum { QUERIES = 6, GAP = 3 /* numbers between rows */ };

/* Patterns of one kind. What values and betas they have, by similarity: the first for large supports, then small ones. */
typedef struct {
    const char *name;
    pattern_kind kind;
    int64_t patterns, features, width; /* width: of values of their own, or 0 */
    sh_type stored, valued;            /* SH_FLOAT32: of the compute type */
    double unit;                       /* what the integers are multiplied by */
    int all_alphas;                    /* or a few */
    int structures;                    /* whether they are tried */
    double beta[3][2];
} family;

static const family FAMILIES[] = {
    {"plain", PLAIN, 700, 33, 5, SH_FLOAT32, SH_FLOAT32, 0x1p-50, 1, 1, {{1, 8}, {0.5, 8}, {4, 32}}},
    {"clusters", CLUSTERS, 600, 24, 0, SH_FLOAT32, SH_FLOAT32, 0x1p-23, 0, 1, {{1, 16}, {1, 4096}, {4, 256}}},
    {"structured", STRUCTURED, 1300, 96, 0, SH_FLOAT32, SH_FLOAT32, 0x1p-22, 0, 0, {{0.25, 1}, {0.25, 2}, {8, 32}}},
    {"offset",
     OFFSET,
     700,
     17,
     3,
     SH_FLOAT32,
     SH_UINT8,
     0x1p-40,
     0,
     1,
     {{0x1p-6, 0x1p-3}, {4096, 32768}, {0x1p16, 0x1p20}}},
    {"tiny",
     PLAIN,
     500,
     40,
     0,
     SH_FLOAT32,
     SH_FLOAT32,
     0x1p-105,
     0,
     0,
     {{0x1p110, 0x1p114}, {0x1p109, 0x1p113}, {0x1p56, 0x1p61}}},
    {"huge",
     PLAIN,
     400,
     9,
     0,
     SH_FLOAT32,
     SH_FLOAT32,
     0x1p4,
     0,
     0,
     {{0x1p-108, 0x1p-104}, {0x1p-108, 0x1p-104}, {0x1p-52, 0x1p-48}}},
    {"counts", COUNTS, 700, 12, 0, SH_FLOAT32, SH_FLOAT16, 1, 0, 0, {{0.125, 1}, {0.125, 2}, {4, 64}}},
    {"images", IMAGES, 1100, 100, 7, SH_UINT8, SH_FLOAT16, 1, 0, 1, {{1, 4}, {1, 4}, {16, 256}}},
    {"halves", HALVES, 500, 48, 0, SH_FLOAT16, SH_FLOAT32, 0x1p-10, 0, 0, {{0.5, 4}, {0.25, 4}, {4, 64}}},
};
enum { FAMILY_COUNT = sizeof FAMILIES / sizeof *FAMILIES };
static const char *const SIMILARITIES[] = {"dot", "euclidean", "cosine"};
static const char *type_name(sh_type type) { return type == SH_FLOAT32 ? "float32" : "float64"; }

/* One memory and its questions; beside them all numbers as doubles, for plain loops. */
typedef struct {
    const family *family;
    sh_type type;
    sh_similarity similarity;
    sh_rows patterns, values;
    int64_t width; /* of states */
    void *queries;
    double *wide_patterns, *wide_values, *wide_queries;
    double longest; /* pattern */
    sh_memory *memory, *grown;
    char name[NAME];
} setting;

/* Returns what rows of the library stand for, as doubles. */
static double *widened(const int64_t *x, int64_t n, sh_type stored, sh_type type, double unit) {
    const float scale = stored == SH_UINT8 ? 1 / 256.0f : 0x1p-10f; /* exact products */
    double *out = own(n, sizeof *out);
    for (int64_t i = 0; i < n; i++)
        out[i] = stored != SH_FLOAT32 ? (double)((float)x[i] * scale)
                 : type == SH_FLOAT32 ? (double)((float)x[i] * (float)unit)
                                      : (double)x[i] * unit;
    return out;
}

static sh_rows rows_of(const int64_t *x, int64_t n, int64_t d, sh_type stored, sh_type type, double unit) {
    sh_rows rows = {.n = n, .d = d, .type = stored == SH_FLOAT32 ? type : stored};
    rows.stride = (d + GAP) * (int64_t)size_of(rows.type);
    rows.data = store(x, n, d, d + GAP, rows.type, unit);
    rows.scale = stored == SH_UINT8 ? 1 / 256.0f : 0; /* of float16 the numbers themselves */
    return rows;
}

static double plain_dot(const double *x, const double *y, int64_t d) {
    double sum = 0;
    for (int64_t j = 0; j < d; j++) sum += x[j] * y[j];
    return sum;
}

static setting new_setting(const family *f, sh_type type) {
    setting s = {.family = f, .type = type, .width = f->width ? f->width : f->features};
    int64_t M = f->patterns, d = f->features, *x = draw_rows(f->kind, M + QUERIES, d, 1 + (uint64_t)(f - FAMILIES));
    for (int64_t i = M; i < M + QUERIES; i += 2) /* every second query is close to a pattern */
        for (int64_t j = 0; j < d; j++) x[i * d + j] = (7 * x[(i * 17 % M) * d + j] + x[i * d + j]) / 8;
    s.patterns = rows_of(x, M, d, f->stored, type, f->unit);
    s.wide_patterns = widened(x, M * d, f->stored, type, f->unit);
    double unit = f->stored == SH_UINT8 ? 0x1p-8 : f->unit;
    s.queries = store(x + M * d, QUERIES, d, d, type, unit);
    s.wide_queries = widened(x + M * d, QUERIES * d, SH_FLOAT32, type, unit);
    free(x);
    s.wide_values = s.wide_patterns;
    if (f->width) {
        pattern_kind kind = f->valued == SH_UINT8 ? IMAGES : f->valued == SH_FLOAT16 ? HALVES : PLAIN;
        x = draw_rows(kind, M, f->width, 99);
        s.values = rows_of(x, M, f->width, f->valued, type, 0x1p-50);
        s.wide_values = widened(x, M * f->width, f->valued, type, 0x1p-50);
        free(x);
    }
    for (int64_t i = 0; i < M; i++)
        s.longest = larger(s.longest, sqrt(plain_dot(s.wide_patterns + i * d, s.wide_patterns + i * d, d)));
    return s;
}

static void free_setting(setting *s) {
    free((void *)s->patterns.data);
    free((void *)s->values.data);
    free(s->queries);
    if (s->wide_values != s->wide_patterns) free(s->wide_values);
    free(s->wide_patterns);
    free(s->wide_queries);
}

static sh_queries asked(const setting *s, const double *beta, const sh_structure *structure, int64_t first, int64_t n) {
    return (sh_queries){.data = (const char *)s->queries + (size_t)(first * s->family->features) * size_of(s->type),
                        .n = n,
                        .beta = beta,
                        .structure = structure};
}

typedef struct {
    sh_path path;
    int threads, grown; /* grown: from the memory that grew */
    const char *name;
} way;
static const way SCAN = {SH_PATH_SCAN, 1, 0, "scan"};
static const way WAYS[] = {
    {SH_PATH_SCAN, 2, 0, "a scan by 2 threads"},          {SH_PATH_LINES, 1, 0, "lines"},
    {SH_PATH_COLUMNS, 2, 0, "columns and 2 threads"},     {SH_PATH_AUTO, 3, 0, "the chosen way and 3 threads"},
    {SH_PATH_SCAN, 1, 1, "a scan of a memory that grew"}, {SH_PATH_LINES, 2, 1, "lines that grew and 2 threads"}};
enum { WAY_COUNT = sizeof WAYS / sizeof *WAYS };
static int brief, ways = WAY_COUNT; /* with --brief, that no other way is tried, and nothing that is not promised */

static sh_memory *remember(const setting *s, const sh_memory *older, int64_t first, int64_t n) {
    sh_context context = {.threads = 2};
    sh_memory *memory = NULL;
    sh_rows patterns = s->patterns, values = s->values;
    patterns.data = (const char *)patterns.data + first * patterns.stride;
    patterns.n = n;
    if (values.data) values.data = (const char *)values.data + first * values.stride;
    values.n = n;
    const sh_rows *mixed = values.data ? &values : NULL;
    sh_status status = older ? sh_memory_extend(&context, older, &patterns, mixed, &memory)
                             : sh_memory_new(&context, &patterns, mixed, s->similarity, s->type, &memory);
    if (!succeeds(status, &context, s->name)) exit(1);
    return memory;
}

/* Holds what a map answers to all queries: states, support sizes, and the lists of weights. */
typedef struct {
    void *states;
    int64_t *support;
    sh_entries entries;
} answer;

static void free_answer(answer *a) {
    sh_context context = {0};
    free(a->states);
    free(a->support);
    sh_entries_free(&context, &a->entries);
}

static const sh_memory *memory_of(const setting *s, way w) { return w.grown ? s->grown : s->memory; }

/* Asks for all of an answer, of lists the `top` largest weights; or all: 0. Returns whether it was given. */
static int ask(const setting *s, const sh_memory *memory, way w, sh_model model, sh_queries queries, int64_t top,
               answer *a) {
    sh_context context = {.threads = w.threads, .path = w.path};
    *a = (answer){.states = own(queries.n * s->width, sizeof(double)), .support = own(queries.n, sizeof(int64_t))};
    return succeeds(sh_update(&context, memory, model, queries, a->states, a->support), &context, s->name) &&
           succeeds(sh_associate(&context, memory, model, queries, top, 0, &a->entries), &context, s->name);
}

/* Query by query: the state and, of all with weight, the positions, scores and weights. */
static uint64_t add_lists(uint64_t digest, const setting *s, const answer *a) {
    for (int64_t i = 0; i < a->entries.n; i++) {
        digest = add_reals(digest, s->type, (char *)a->states + (size_t)(i * s->width) * size_of(s->type), s->width);
        for (int64_t j = a->entries.start[i]; j < a->entries.start[i + 1]; j++) {
            if (!(a->entries.weight[j] != 0)) continue; /* a weight may be below the numbers of its type */
            digest = add_integers(digest, &a->entries.position[j], 1);
            digest = add_doubles(digest, &a->entries.score[j], 1);
            digest = add_doubles(digest, &a->entries.weight[j], 1);
        }
    }
    return digest;
}

static uint64_t digest_of(const setting *s, const answer *a) {
    return add_integers(add_lists(EMPTY, s, a), a->support, a->entries.n);
}

/* --- answers in plain loops ----------------------------------------------------------------------- */

static double plain_score(const setting *s, sh_model model, int64_t query, int64_t pattern) {
    const int64_t d = s->family->features;
    const double *x = s->wide_queries + query * d, *xi = s->wide_patterns + pattern * d;
    if (s->similarity == SH_COSINE) return plain_dot(x, xi, d) / sqrt(plain_dot(xi, xi, d));
    if (s->similarity == SH_DOT) return plain_dot(x, xi, d);
    if (model.separation == SH_POLYNOMIAL) return plain_dot(x, xi, d) - plain_dot(xi, xi, d) / 2;
    double sum = 0;
    for (int64_t j = 0; j < d; j++) sum += (x[j] - xi[j]) * (x[j] - xi[j]);
    return -sum / 2;
}

/* Returns what a score of query i may be off by where its products and sums are rounded to `unit`. */
static double score_error(const setting *s, int64_t query, double unit) {
    const int64_t d = s->family->features;
    const double *x = s->wide_queries + query * d, length = sqrt(plain_dot(x, x, d));
    double size = length * (s->similarity == SH_COSINE ? 1 : s->longest);
    if (s->similarity == SH_EUCLIDEAN) size += (length * length + s->longest * s->longest) / 2;
    return (2.1 * (double)d + 32) * unit * size;
}

/* Tells whether scores that would be too coarse are canonical in place of those of the compute type. */
static int spares_coarse(const setting *s, sh_model model) {
    return s->similarity == SH_EUCLIDEAN && model.separation != SH_POLYNOMIAL;
}
static const double COARSE = 0x1p-6; /* the most that weights of others may be off */

/* Marks the patterns that a query looks at. Of windows and blocks by the words of the header; the k best, and the subsets
 * that are drawn, are those that softmax gives weight. */
static void see(const setting *s, const sh_structure *l, int64_t query, const sh_entries *softmax, char *sees) {
    const int64_t M = s->family->patterns;
    int64_t place = l && l->position ? l->position[query] : query, found = 0;
    for (int64_t j = 0; j < M; j++) sees[j] = !l;
    if (!l) return;
    for (int64_t i = softmax->start[query]; i < softmax->start[query + 1]; i++) {
        found += !sees[softmax->position[i]];
        sees[softmax->position[i]] = 1;
    }
    if ((l->pairs == SH_PAIRS_TOP || l->pairs == SH_PAIRS_RANDOM) && found != l->k)
        fail("%s: query %" PRId64 " looks at %" PRId64 " patterns", s->name, query, found);
    if (l->pairs == SH_PAIRS_WINDOW || l->pairs == SH_PAIRS_BLOCKS)
        for (int64_t j = 0; j < M; j++) {
            int should = 0;
            int64_t away = j - place, row = place / l->rows * (l->pairs == SH_PAIRS_BLOCKS);
            if (l->pairs == SH_PAIRS_WINDOW) {
                should = away % l->dilation == 0 && llabs(away) <= l->width * l->dilation;
                for (int64_t c = 0; c < l->column_n; c++) should |= l->column[c] == j;
                should &= !(l->causal && away > 0);
            } else {
                for (int64_t c = l->start[row]; c < l->start[row + 1]; c++) should |= l->column[c] == j / l->columns;
            }
            if (should != sees[j]) fail("%s: query %" PRId64 " and pattern %" PRId64, s->name, query, j);
        }
}

/* The largest difference of an answer from plain loops, in units of what it may be: weights against the map's equations,
 * or against plain weights, and states against the mixture by the answer's own, or by plain weights. */
static double answer_error(const setting *s, sh_model model, double beta, const sh_structure *structure,
                           const sh_entries *softmax, const answer *a) {
    const int64_t M = s->family->patterns;
    double *z = own(M, sizeof *z), *p = own(M, sizeof *p), *state = own(s->width, sizeof *state), worst = 0;
    int64_t *at = own(M, sizeof *at);
    char *sees = own(M, 1);
    const int exact = has_cutoff(model) && a->support[0] <= SH_EXACT_SUPPORT;
    for (int64_t i = 0; i < a->entries.n; i++) {
        int64_t n = 0, next = a->entries.start[i], end = a->entries.start[i + 1];
        double best = -INFINITY, size = 0, total = 0, powers = 0;
        see(s, structure, i, softmax, sees);
        for (int64_t j = 0; j < M; j++) {
            if (!sees[j]) continue;
            at[n] = j;
            z[n] = plain_score(s, model, i, j);
            best = larger(best, model.separation == SH_POLYNOMIAL ? fabs(z[n]) : z[n]);
            p[n] = next < end && a->entries.position[next] == j ? a->entries.weight[next++] : 0;
            n++;
        }
        double slack = score_error(s, i, exact ? 0x1p-53 : unit_of(s->type)), allowed;
        if (has_cutoff(model)) {
            for (int64_t j = 0; j < n; j++) z[j] = beta * (z[j] - best);
            slack *= beta;
            if (!exact && spares_coarse(s, model)) slack = fmin(slack, COARSE);
            worst = larger(worst, support_error(model, n, z, p, unit_of(s->type), slack));
            allowed = exact ? (double)(n + 4) * unit_of(s->type) : (double)n * unit_of(s->type) + slack;
        } else {
            if (model.separation == SH_SOFTMAX)
                for (int64_t j = 0; j < n; j++) z[j] = beta * (z[j] - best);
            plain_weights(model, n, z, p);
            for (int64_t j = 0; j < n; j++) powers += fabs(p[j]); /* 1 but for odd powers that cancel */
            slack *= model.separation == SH_SOFTMAX ? beta : model.parameter / best;
            if (spares_coarse(s, model)) slack = fmin(slack, COARSE);
            allowed = powers * (2 * slack + (double)(n + 64) * unit_of(s->type));
        }
        memset(state, 0, (size_t)s->width * sizeof *state);
        for (int64_t j = 0; j < n; j++) {
            const double *value = s->wide_values + at[j] * s->width;
            double length = 1;
            if (s->similarity == SH_COSINE && !s->values.data) length = sqrt(plain_dot(value, value, s->width));
            for (int64_t c = 0; c < s->width; c++) {
                state[c] += p[j] * (value[c] / length);
                size = larger(size, fabs(value[c] / length));
            }
            total += p[j];
        }
        for (int64_t c = 0; c < s->width; c++) {
            double off = fabs(get(a->states, s->type, i * s->width + c) - state[c]);
            worst = larger(worst, off / (size * allowed + 0x1p-149));
        }
        if (n && powers > 0 && fabs(total - 1) > 1e-9) worst = INFINITY;
    }
    free(z);
    free(p);
    free(state);
    free(at);
    free(sees);
    return worst;
}

/* --- comparisons between ways --------------------------------------------------------------------- */

/* Compares an answer with that by other ways. */
static void compare_ways(const setting *s, sh_model model, double beta, const sh_structure *structure, uint64_t want,
                         const char *name) {
    answer a;
    for (int i = 0; i < ways; i++) {
        if (ask(s, memory_of(s, WAYS[i]), WAYS[i], model, asked(s, &beta, structure, 0, QUERIES), 0, &a) &&
            digest_of(s, &a) != want)
            fail("%s: other bits by %s", name, WAYS[i].name);
        free_answer(&a);
    }
}

/* Compares it with that to each query alone, by another way each. */
static void compare_single(const setting *s, sh_model model, double beta, uint64_t want, const char *name) {
    uint64_t found = EMPTY;
    if (brief) return;
    for (int64_t i = 0; i < QUERIES; i++) {
        answer a;
        way w = WAYS[i % WAY_COUNT];
        if (ask(s, memory_of(s, w), w, model, asked(s, &beta, NULL, i, 1), 0, &a)) found = add_lists(found, s, &a);
        free_answer(&a);
    }
    if (found != want) fail("%s: other bits query by query", name);
}

/* Compares it with what comes of the lists of two parts, the second first, solved again. */
static void compare_merged(const setting *s, sh_model model, double beta, uint64_t want, const char *name) {
    const int64_t M = s->family->patterns, cut = 3 * M / 7, first[] = {cut, 0}, count[] = {M - cut, cut};
    if (brief) return;
    sh_context context = {.threads = 2};
    answer part[2], merged = {.states = own(QUERIES * s->width, sizeof(double))};
    int sound = 1;
    for (int h = 0; h < 2; h++) {
        sh_memory *half = remember(s, NULL, first[h], count[h]);
        sound &= ask(s, half, SCAN, model, asked(s, &beta, NULL, 0, QUERIES), 0, &part[h]);
        sh_memory_free(&context, half);
    }
    if (sound) {
        int64_t total = part[0].entries.start[QUERIES] + part[1].entries.start[QUERIES], n = 0;
        sh_entries *all = &merged.entries;
        *all = (sh_entries){.n = QUERIES, .start = own(QUERIES + 1, 8), .position = own(total, 8)};
        all->score = own(total, 8);
        all->weight = own(total, 8);
        for (int64_t i = 0; i < QUERIES; i++) {
            for (int h = 1; h >= 0; h--) /* in order of position */
                for (int64_t j = part[h].entries.start[i]; j < part[h].entries.start[i + 1]; j++) {
                    all->position[n] = first[h] + part[h].entries.position[j];
                    all->score[n++] = part[h].entries.score[j];
                }
            all->start[i + 1] = n;
        }
        sound = succeeds(sh_solve(&context, model, s->type, QUERIES, &beta, 0, all->start, all->score, all->weight),
                         &context, name) &&
                succeeds(sh_mix(&context, s->memory, QUERIES, all->start, all->position, all->weight, merged.states),
                         &context, name);
        if (sound && add_lists(EMPTY, s, &merged) != want) fail("%s: other bits from two parts that were merged", name);
    }
    for (int h = 0; h < 2; h++) free_answer(&part[h]);
    free(merged.states);
    free(merged.entries.start); /* room of this function's own */
    free(merged.entries.position);
    free(merged.entries.score);
    free(merged.entries.weight);
}

/* --- what is digested of a memory ----------------------------------------------------------------- */

static sh_model entmax(double alpha) { return (sh_model){SH_ENTMAX, alpha}; }
static const sh_model SPARSEMAX = {SH_SPARSEMAX, 0}, SOFTMAX = {SH_SOFTMAX, 0};

/* The temperatures of a family, large supports first. Steeper maps have smaller cutoffs. */
static double beta_of(const setting *s, sh_model model, int small) {
    const double alpha = has_cutoff(model) && is_plain(model) ? plain_alpha(model) : 1.5;
    return s->family->beta[s->similarity][small] * (alpha < 1.4 ? 4 : alpha < 2 ? 1 : alpha < 3 ? 0.125 : 0.015625);
}

/* All queries at both temperatures; compared with other ways at the second, if `everywhere`, and at both if it is 2. */
static void digest_map(const setting *s, sh_model model, int everywhere) {
    char name[4 * NAME], map[NAME];
    uint64_t digest = EMPTY;
    double error = 0;
    snprintf(name, sizeof name, "%s %s", s->name, name_of(model, map));
    for (int b = 0; b < 2; b++) {
        const double beta = beta_of(s, model, b);
        answer a;
        if (!ask(s, s->memory, SCAN, model, asked(s, &beta, NULL, 0, QUERIES), 0, &a)) return free_answer(&a);
        uint64_t whole = digest_of(s, &a), listed = add_lists(EMPTY, s, &a);
        int64_t most = 0;
        for (int64_t i = 0; i < QUERIES; i++) most = a.support[i] > most ? a.support[i] : most;
        if (most > SH_EXACT_SUPPORT) fail("%s: nothing is promised of %" PRId64 " supporting patterns", name, most);
        error = larger(error, answer_error(s, model, beta, NULL, NULL, &a));
        free_answer(&a);
        digest = add_number(digest, whole, sizeof whole);
        if (everywhere <= (b == 0)) continue;
        compare_ways(s, model, beta, NULL, whole, name);
        compare_single(s, model, beta, listed, name);
        compare_merged(s, model, beta, listed, name);
    }
    add_line(PROMISED, digest, error, "%s", name);
}

/* Returns Psi*(z), by plain.h where that has the map, else by the row map. */
static double conjugate_of(sh_model m, int64_t n, const double *z, const double *p) {
    double psi;
    if (is_plain(m)) return plain_conjugate(m, n, z, p);
    void *scratch = own(1, sh_row_scratch(n));
    if (sh_map_row(m, SH_ROW_PART_CONJUGATE, SH_FLOAT64, n, (const void *[]){z}, (void *[]){&psi}, scratch)) psi = NAN;
    free(scratch);
    return psi;
}

/* Energies, which of maps with a cutoff are sums of canonical numbers. They must be those of the weights of the map, at
 * which they are stationary. */
static void digest_energies(const setting *s, sh_model model) {
    const int64_t M = s->family->patterns, d = s->family->features;
    const sh_type rounded = has_cutoff(model) ? SH_FLOAT64 : s->type; /* that of scores */
    double error = 0, *z = own(M, sizeof *z), *p = own(M, sizeof *p);
    uint64_t digest = EMPTY;
    char map[NAME];
    for (int b = 0; b < 2; b++) {
        const double beta = beta_of(s, model, b);
        double energy[QUERIES], again[QUERIES];
        sh_context context = {.threads = 1, .path = SH_PATH_SCAN}, other = {.threads = 3};
        sh_queries queries = asked(s, &beta, NULL, 0, QUERIES);
        sh_entries weights = {0};
        if (!succeeds(sh_energy(&context, s->memory, model, queries, energy), &context, s->name) ||
            !succeeds(sh_associate(&context, s->memory, model, queries, M, 0, &weights), &context, s->name))
            break;
        digest = add_doubles(digest, energy, QUERIES);
        if (succeeds(sh_energy(&other, s->grown, model, queries, again), &other, s->name) &&
            memcmp(energy, again, sizeof energy) != 0)
            fail("%s %s: other energies by other ways", s->name, name_of(model, map));
        for (int64_t i = 0; i < QUERIES; i++) {
            const double *x = s->wide_queries + i * d, half = plain_dot(x, x, d) / 2;
            double best = -INFINITY;
            int64_t n = 0;
            for (int64_t j = weights.start[i]; j < weights.start[i + 1]; j++, n++) {
                best = larger(best, z[n] = plain_score(s, model, i, weights.position[j]));
                p[n] = weights.weight[j];
            }
            for (int64_t j = 0; j < n; j++) z[j] = beta * (z[j] - best);
            double want = -best - conjugate_of(model, n, z, p) / beta;
            if (s->similarity != SH_EUCLIDEAN) want += half;
            double allowed = score_error(s, i, unit_of(rounded)) + 64 * unit_of(rounded) * (half + fabs(best));
            allowed += 64 * unit_of(s->type) / beta;
            error = larger(error, fabs(energy[i] - want) / allowed);
        }
        sh_entries_free(&context, &weights);
    }
    add_line(has_cutoff(model) ? PROMISED : OTHERS, digest, error, "%s energy %s", s->name, name_of(model, map));
    free(z);
    free(p);
}

static void digest_retrieval(const setting *s) {
    const sh_model models[] = {SPARSEMAX, entmax(1.2), entmax(1.5)};
    const int64_t d = s->family->features;
    const size_t bytes = (size_t)(QUERIES * d) * size_of(s->type);
    char *states = own(2, bytes);
    uint64_t want = 0;
    for (int i = -1; i < ways; i++) {
        way w = i < 0 ? SCAN : WAYS[i];
        sh_context context = {.threads = w.threads, .path = w.path};
        int64_t steps[QUERIES], support[QUERIES], rests[QUERIES];
        uint8_t converged[QUERIES];
        uint64_t digest = EMPTY;
        for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
            const double beta = beta_of(s, models[m], (int)m % 2);
            sh_queries queries = asked(s, &beta, NULL, 0, QUERIES);
            if (!succeeds(sh_retrieve(&context, memory_of(s, w), models[m], queries, 4, m ? 0 : 1e-4, states, steps,
                                      converged, support, states + bytes),
                          &context, s->name))
                break;
            for (int q = 0; q < QUERIES; q++) rests[q] = converged[q];
            digest = add_reals(digest, s->type, states, 2 * QUERIES * d);
            digest = add_integers(digest, steps, QUERIES);
            digest = add_integers(digest, rests, QUERIES);
            digest = add_integers(digest, support, QUERIES);
        }
        if (i < 0) want = digest;
        if (digest != want) fail("%s retrieve: other bits by %s", s->name, w.name);
    }
    add_line(PROMISED, want, 0, "%s retrieve", s->name);
    free(states);
}

/* Nearest patterns, margins and radii: canonical scores, and ratios of them. */
static uint64_t certify(const setting *s, way w, uint64_t *nearest, uint64_t *margins) {
    enum { BEST = 5, SOME = 40 };
    const int64_t M = s->family->patterns;
    const double one = 1;
    const sh_memory *memory = memory_of(s, w);
    sh_context context = {.threads = w.threads, .path = w.path};
    int64_t position[QUERIES * BEST], which[SOME], rival[SOME];
    double score[QUERIES * BEST], need[SOME], radius[SOME], *margin = own(M, sizeof *margin);
    uint64_t radii = EMPTY;
    *nearest = *margins = EMPTY;
    if (succeeds(sh_nearest(&context, memory, asked(s, &one, NULL, 0, QUERIES), BEST, position, score), &context,
                 s->name))
        *nearest = add_doubles(add_integers(EMPTY, position, QUERIES * BEST), score, QUERIES * BEST);
    if (succeeds(sh_margins(&context, memory, margin), &context, s->name)) *margins = add_doubles(EMPTY, margin, M);
    for (int64_t i = 0; i < SOME; i++) {
        which[i] = (13 * i + 5) % M;
        need[i] = i % 2 ? 1 / beta_of(s, SOFTMAX, 1) : 0;
    }
    if (succeeds(sh_radii(&context, memory, SOME, which, need, 0, radius, rival), &context, s->name))
        radii = add_doubles(add_integers(EMPTY, rival, SOME), radius, SOME);
    free(margin);
    return radii;
}

static void digest_certificates(const setting *s) {
    uint64_t nearest, margins, radii = certify(s, SCAN, &nearest, &margins);
    for (int i = 0; i < ways; i++) {
        uint64_t others[2], also = certify(s, WAYS[i], &others[0], &others[1]);
        if (others[0] != nearest) fail("%s nearest: other bits by %s", s->name, WAYS[i].name);
        if (others[1] != margins) fail("%s margins: other bits by %s", s->name, WAYS[i].name);
        if (also != radii) fail("%s radii: other bits by %s", s->name, WAYS[i].name);
    }
    add_line(PROMISED, nearest, 0, "%s nearest", s->name);
    add_line(PROMISED, margins, 0, "%s margins", s->name);
    add_line(PROMISED, radii, 0, "%s radii", s->name);
}

static void digest_fingerprint(const setting *s) {
    sh_context context = {.threads = 2};
    uint64_t fingerprint = 0;
    if (succeeds(sh_memory_fingerprint(&context, s->memory, &fingerprint), &context, s->name))
        add_line(PROMISED, fingerprint, 0, "%s fingerprint", s->name);
}

/* Softmax and polynomials: of all patterns and of two parts merged. */
static void digest_full(const setting *s, sh_model model) {
    enum { LISTED = 9 };
    const int64_t M = s->family->patterns, cut = 3 * M / 7;
    char map[NAME];
    uint64_t digest = EMPTY, merged = EMPTY;
    double error = 0, merged_error = 0;
    name_of(model, map);
    for (int b = 0; b < 2; b++) {
        const double beta = beta_of(s, model, b);
        sh_queries queries = asked(s, &beta, NULL, 0, QUERIES);
        answer a, again;
        if (!ask(s, s->memory, SCAN, model, queries, LISTED, &a)) return free_answer(&a);
        if (ask(s, s->memory, WAYS[0], model, queries, LISTED, &again) && digest_of(s, &again) != digest_of(s, &a))
            fail("%s %s: other bits by more threads", s->name, map);
        free_answer(&again);
        uint64_t whole = digest_of(s, &a);
        digest = add_number(digest, whole, sizeof whole);
        error = larger(error, answer_error(s, model, beta, NULL, NULL, &a));

        double numbers[4 * QUERIES];
        void *mixture[2] = {a.states, own(QUERIES * s->width, sizeof(double))};
        sh_context context = {.threads = 2};
        int sound = 1;
        for (int h = 0; h < 2; h++) {
            sh_memory *half = remember(s, NULL, h ? cut : 0, h ? M - cut : cut);
            sh_partial part = {numbers + 2 * h * QUERIES, numbers + (2 * h + 1) * QUERIES, mixture[h]};
            sound &= succeeds(sh_accumulate(&context, half, model, queries, part), &context, s->name);
            sh_memory_free(&context, half);
        }
        sh_partial first = {numbers, numbers + QUERIES, mixture[0]},
                   second = {numbers + 2 * QUERIES, numbers + 3 * QUERIES, mixture[1]};
        if (sound &&
            succeeds(sh_merge(model, s->type, QUERIES, s->width, &beta, 0, first, second), &context, s->name)) {
            merged = add_doubles(merged, numbers, 2 * QUERIES);
            merged = add_reals(merged, s->type, a.states, QUERIES * s->width);
            for (int64_t i = 0; i < QUERIES * s->width; i++) {
                double sum = numbers[QUERIES + i / s->width];
                if (s->type == SH_FLOAT32)
                    ((float *)a.states)[i] = (float)(get(a.states, s->type, i) / sum);
                else
                    ((double *)a.states)[i] /= sum;
            }
            merged_error = larger(merged_error, answer_error(s, model, beta, NULL, NULL, &a) / 2);
        }
        free(mixture[1]);
        free_answer(&a);
    }
    add_line(OTHERS, digest, error, "%s %s", s->name, map);
    add_line(OTHERS, merged, merged_error, "%s %s of two parts", s->name, map);
}

/* Structures of every kind; queries are spread over the places. */
static void digest_structures(const setting *s) {
    enum { ROWS = 4, IN_ROW = 5, WIDE = 16 };
    static const sh_model models[] = {{SH_SPARSEMAX, 0}, {SH_ENTMAX, 1.25}, {SH_ENTMAX, 1.5},
                                      {SH_ENTMAX, 3},    {SH_SOFTMAX, 0},   {SH_POLYNOMIAL, 4}};
    const int64_t M = s->family->patterns, seen_by_all[] = {0, M / 2};
    int64_t position[QUERIES], start[ROWS + 1], column[ROWS * IN_ROW];
    for (int64_t i = 0; i < QUERIES; i++) position[i] = i % 3 ? i * (M / QUERIES) : 2 * i;
    for (int64_t i = 0; i < ROWS * IN_ROW; i++) column[i] = i % IN_ROW * (M / WIDE / IN_ROW) + i / IN_ROW;
    for (int64_t i = 0; i <= ROWS; i++) start[i] = i * IN_ROW;
    const struct {
        const char *name;
        sh_structure l;
    } structures[] = {
        {"top-7", {.pairs = SH_PAIRS_TOP, .k = 7}},
        {"top-50", {.pairs = SH_PAIRS_TOP, .k = 50}}, /* more than lists of the scan hold */
        {"window", {.pairs = SH_PAIRS_WINDOW, .width = 9, .dilation = 1}},
        {"causal",
         {.pairs = SH_PAIRS_WINDOW, .width = 30, .dilation = 3, .causal = 1, .column = seen_by_all, .column_n = 2}},
        {"random", {.pairs = SH_PAIRS_RANDOM, .k = 40, .rows = 4, .seed = 7}},
        {"blocks", {.pairs = SH_PAIRS_BLOCKS, .rows = M / ROWS, .columns = WIDE, .start = start, .start_n = ROWS}},
    };
    for (size_t i = 0; i < sizeof structures / sizeof *structures; i++) {
        sh_structure l = structures[i].l;
        double beta = beta_of(s, SOFTMAX, 0);
        if (l.pairs != SH_PAIRS_TOP && l.rows != 4) l.position = position;
        if (l.rows == 0) l.rows = 1;
        if (l.pairs == SH_PAIRS_BLOCKS) {
            l.column = column;
            l.column_n = ROWS * IN_ROW;
        }
        answer softmax;
        uint64_t digests[KINDS] = {EMPTY, EMPTY};
        double errors[KINDS] = {0};
        char name[2 * NAME];
        snprintf(name, sizeof name, "%s %s", s->name, structures[i].name);
        int sound = ask(s, s->memory, SCAN, SOFTMAX, asked(s, &beta, &l, 0, QUERIES), 0, &softmax);
        for (size_t m = 0; sound && m < sizeof models / sizeof *models; m++) {
            answer a;
            beta = beta_of(s, models[m], 0);
            if (ask(s, s->memory, SCAN, models[m], asked(s, &beta, &l, 0, QUERIES), 0, &a)) {
                uint64_t digest = digest_of(s, &a);
                int of = has_cutoff(models[m]) ? PROMISED : OTHERS;
                compare_ways(s, models[m], beta, &l, digest, name);
                digests[of] = add_number(digests[of], digest, sizeof digest);
                errors[of] = larger(errors[of], answer_error(s, models[m], beta, &l, &softmax.entries, &a));
            }
            free_answer(&a);
        }
        for (int of = 0; of < KINDS; of++)
            add_line(of, digests[of], errors[of], "%s%s", name, of ? " full support" : "");
        free_answer(&softmax);
    }
}

/* Softmax at temperatures at which most queries have few patterns within reach: of these, states, the largest weights and
 * energies. */
static void digest_in_reach(const setting *s) {
    enum { LISTED = 9 };
    const int64_t M = s->family->patterns, few = M / 128 > 16 ? M / 128 : 16;
    uint64_t want = EMPTY;
    double error = 0;
    for (int i = -1; i < (brief ? 0 : ways); i++) {
        const way w = i < 0 ? SCAN : WAYS[i];
        uint64_t digest = EMPTY;
        for (int b = 0; b < 2; b++) {
            const double beta = beta_of(s, SOFTMAX, 1) * (b ? 1024 : 16);
            const sh_queries queries = asked(s, &beta, NULL, 0, QUERIES);
            sh_context context = {.threads = w.threads, .path = w.path};
            double energy[QUERIES];
            answer a;
            if (ask(s, memory_of(s, w), w, SOFTMAX, queries, LISTED, &a) &&
                succeeds(sh_energy(&context, memory_of(s, w), SOFTMAX, queries, energy), &context, s->name)) {
                if (i < 0) error = larger(error, answer_error(s, SOFTMAX, beta, NULL, NULL, &a));
                for (int64_t q = 0; q < QUERIES; q++) {
                    if (a.support[q] > few) continue;
                    const char *state = (char *)a.states + (size_t)(q * s->width) * size_of(s->type);
                    const int64_t first = a.entries.start[q], n = a.entries.start[q + 1] - first;
                    digest = add_integers(digest, &a.support[q], 1);
                    digest = add_reals(digest, s->type, state, s->width);
                    digest = add_integers(digest, a.entries.position + first, n);
                    digest = add_doubles(digest, a.entries.score + first, n);
                    digest = add_doubles(digest, a.entries.weight + first, n);
                    digest = add_doubles(digest, &energy[q], 1);
                }
            }
            free_answer(&a);
        }
        if (i < 0) want = digest;
        if (digest != want) fail("%s softmax within reach: other bits by %s", s->name, w.name);
    }
    add_line(PROMISED, want, error, "%s softmax within reach", s->name);
}

/* Supports of more than SH_EXACT_SUPPORT patterns, whose weights come from scores of the compute type. */
static void digest_large_supports(const setting *s) {
    const sh_model models[] = {SPARSEMAX, entmax(1.25), entmax(1.5)};
    const double beta = beta_of(s, SOFTMAX, 0) / 65536;
    uint64_t digest = EMPTY;
    double error = 0;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        answer a, again;
        sh_queries queries = asked(s, &beta, NULL, 0, QUERIES);
        if (ask(s, s->memory, SCAN, models[m], queries, 0, &a) &&
            ask(s, s->memory, WAYS[0], models[m], queries, 0, &again)) {
            if (digest_of(s, &a) != digest_of(s, &again))
                fail("%s large supports: other bits by more threads", s->name);
            digest = add_number(digest, digest_of(s, &a), sizeof digest);
            for (int64_t i = 0; i < QUERIES; i++)
                if (a.support[i] <= SH_EXACT_SUPPORT)
                    fail("%s: support %" PRId64 " is not large", s->name, a.support[i]);
            error = larger(error, answer_error(s, models[m], beta, NULL, NULL, &a));
            free_answer(&again);
        }
        free_answer(&a);
    }
    add_line(OTHERS, digest, error, "%s large supports", s->name);
}

/* So many queries that they are several blocks, and that an index and a pilot pay. */
static void digest_batch(const setting *s) {
    enum { MANY = 300 };
    const sh_model models[] = {SPARSEMAX, entmax(1.5)};
    const int64_t d = s->family->features;
    const size_t row = (size_t)d * size_of(s->type);
    char *queries = own(MANY, row), *states = own(MANY, row);
    uint64_t want = 0;
    for (int64_t i = 0; i < MANY; i++) /* the first half of a pattern's features, zeros for the others */
        memcpy(queries + (size_t)i * row, (const char *)s->patterns.data + 3 * i * s->patterns.stride, row / 2);
    for (int i = -1; i < ways; i++) {
        way w = i < 0 ? SCAN : WAYS[i];
        sh_context context = {.threads = w.threads, .path = w.path};
        uint64_t digest = EMPTY;
        for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
            int64_t support[MANY];
            const double beta = beta_of(s, models[m], 1);
            sh_queries all = {.data = queries, .n = MANY, .beta = &beta};
            if (!succeeds(sh_update(&context, memory_of(s, w), models[m], all, states, support), &context, s->name))
                break;
            digest = add_integers(add_reals(digest, s->type, states, MANY * d), support, MANY);
        }
        if (i < 0) want = digest;
        if (digest != want) fail("%s many queries: other bits by %s", s->name, w.name);
    }
    add_line(PROMISED, want, 0, "%s many queries", s->name);
    free(queries);
    free(states);
}

/* Makes the setting's memory, and one of the same rows that grew from fewer, with an index that has to grow too. */
static void make_memories(setting *s) {
    const int64_t M = s->family->patterns;
    sh_context context = {.threads = 1};
    sh_memory *few = remember(s, NULL, 0, M / 3);
    succeeds(sh_memory_index(&context, few), &context, s->name);
    sh_memory *more = remember(s, few, 0, M - 1);
    s->grown = remember(s, more, 0, M);
    s->memory = remember(s, NULL, 0, M);
    sh_memory_free(&context, few);
    sh_memory_free(&context, more);
}

/* Tells how much an entmax is compared with other ways: where many are digested, not all are. */
static int everywhere(double alpha) { return alpha == 1.5 ? 2 : alpha == 1.2 || alpha == 3; }

static void digest_memories(void) {
    for (int f = 0; f < FAMILY_COUNT; f++)
        for (int type = SH_FLOAT32; type <= SH_FLOAT64; type++) {
            setting s = new_setting(&FAMILIES[f], (sh_type)type);
            for (int similarity = 0; similarity < 3; similarity++) {
                s.similarity = (sh_similarity)similarity;
                snprintf(s.name, NAME, "%s %s %s", s.family->name, type_name(s.type), SIMILARITIES[similarity]);
                make_memories(&s);
                digest_map(&s, SPARSEMAX, 2);
                for (int i = 0; i < ALPHA_COUNT; i++)
                    if (s.family->all_alphas || everywhere(ALPHAS[i]))
                        digest_map(&s, entmax(ALPHAS[i]), everywhere(ALPHAS[i]));
                digest_energies(&s, SPARSEMAX);
                digest_energies(&s, entmax(1.2));
                digest_energies(&s, entmax(1.5));
                for (int i = 0; sh_map_numbered(other_map(i)); i++) {
                    const sh_model other = {(sh_separation)other_map(i), OTHER_ALPHAS[i % OTHER_ALPHA_COUNT]};
                    if (!has_cutoff(other)) continue;
                    digest_map(&s, other, 1);
                    digest_energies(&s, other);
                }
                digest_energies(&s, SOFTMAX);
                digest_in_reach(&s);
                digest_retrieval(&s);
                digest_certificates(&s);
                if (similarity == 0) digest_fingerprint(&s);
                if (s.family->structures) digest_structures(&s);
                if (s.family->kind == STRUCTURED && !brief) digest_large_supports(&s);
                if (s.family->kind == STRUCTURED) digest_batch(&s);
                if (!brief) digest_full(&s, SOFTMAX);
                if (!brief) digest_full(&s, (sh_model){SH_POLYNOMIAL, 4});
                sh_context context = {.threads = 1};
                sh_memory_free(&context, s.memory);
                sh_memory_free(&context, s.grown);
            }
            free_setting(&s);
        }
}

/* --- row maps ------------------------------------------------------------------------------------- */

enum { ROW = 1200, ROWS_TRIED = 12 };

/* Makes row number i of n scores: of many sizes, with ties, far from zero, masked, infinite, not a number. */
static int64_t make_row(int i, double *z) {
    static const int64_t sizes[ROWS_TRIED] = {1, 2, 7, 64, 500, ROW, 300, 300, 300, 40, 40, 40};
    uint64_t state = (uint64_t)i + 100;
    for (int64_t j = 0; j < sizes[i]; j++) {
        z[j] = (double)draw_within(&state, 1 << 20) * 0x1p-20 * (i % 3 == 0 ? 4 : i % 3 == 1 ? 0.25 : 32);
        if (i == 6) z[j] = (double)draw_within(&state, 2) * 0.5;
        if (i == 7) z[j] = (float)(z[j] + 1000);
        if (i >= 8 && j % 3 == 0) z[j] = -INFINITY;
    }
    if (i == 9) z[4] = z[7] = INFINITY;
    if (i == 10) z[5] = NAN;
    for (int64_t j = 0; i == 11 && j < sizes[i]; j++) z[j] = -INFINITY;
    return sizes[i];
}

/* Rows in, and out, of one call, of a compute type. */
typedef struct {
    sh_type type;
    int64_t n;
    double z[ROW], p[ROW], g[ROW], out[ROW]; /* scores, weights, gradients; what came out, as doubles */
    int64_t support;
    char as[4][ROW * sizeof(double)]; /* the same as they are given */
    uint64_t digest;                  /* of all that came out */
} row_call;

static void give(row_call *c, int which, const double *x) {
    for (int64_t j = 0; j < c->n; j++) {
        if (c->type == SH_FLOAT32)
            ((float *)c->as[which])[j] = (float)x[j];
        else
            ((double *)c->as[which])[j] = x[j];
    }
}

/* Calls a part of a map on one to three rows, `inputs` of z, p, g; `results` numbers come out. */
static void call_row(row_call *c, sh_model m, sh_row_part part, const char *inputs, int64_t results) {
    const void *in[3] = {0};
    void *out[2] = {c->as[3], &c->support}, *scratch = own(1, sh_row_scratch(c->n));
    for (int i = 0; inputs[i]; i++) {
        give(c, i, inputs[i] == 'z' ? c->z : inputs[i] == 'p' ? c->p : c->g);
        in[i] = c->as[i];
    }
    c->support = 0;
    sh_status status = sh_map_row(m, part, c->type, c->n, in, out, scratch);
    if (status != SH_OK) fail("part %d of map %d: %s", part, m.separation, sh_status_name(status));
    for (int64_t j = 0; j < results; j++) c->out[j] = get(c->as[3], c->type, j);
    c->digest = add_integers(add_doubles(c->digest, c->out, results), &c->support, 1);
    free(scratch);
}

/* The largest difference of two rows, in units of `allowed`. */
static double row_error(int64_t n, const double *got, const double *want, double allowed) {
    double worst = 0;
    for (int64_t j = 0; j < n; j++) worst = larger(worst, fabs(got[j] - want[j]) / allowed);
    return worst;
}

/* A map with a cutoff on rows: weights, thresholds and conjugates, which are promised; gradients, which are not but of
 * sparsemax, as others take powers of the mathematics library. */
static void digest_support_rows(row_call *c, sh_model m) {
    const double alpha = plain_alpha(m), unit = unit_of(c->type);
    uint64_t promised = EMPTY, others = EMPTY;
    double error = 0, other_error = 0, want[ROW], z[ROW];
    char map[NAME];
    for (int i = 0; i < ROWS_TRIED; i++) {
        const int ordinary = i < 9;
        double best = -INFINITY, most = 0, size = 0;
        int64_t support = 0;
        c->n = make_row(i, c->z);
        c->digest = promised;
        call_row(c, m, SH_ROW_PART_WEIGHTS, "z", c->n);
        memcpy(c->p, c->out, sizeof c->p);
        call_row(c, m, SH_ROW_PART_THRESHOLD, "z", 1);
        uint64_t state = 5;
        for (int64_t j = 0; j < c->n; j++) {
            c->g[j] = (double)draw_within(&state, 1 << 20) * 0x1p-20;
            best = larger(best, c->z[j]);
            most = larger(most, c->p[j]);
            support += c->p[j] > 0;
        }
        if (ordinary) {
            error = larger(error, support_error(m, c->n, c->z, c->p, unit, 0x1p-50 * fabs(best)));
            double tau = (alpha - 1) * best - pow(most, alpha - 1);
            if (is_plain(m)) error = larger(error, row_error(1, c->out, &tau, 8 * alpha * unit * (1 + fabs(tau))));
            if (c->support < support) error = INFINITY; /* a weight may be below the numbers of its type */
        }
        call_row(c, m, SH_ROW_PART_CONJUGATE, "z", 1);
        if (ordinary) {
            for (int64_t j = 0; j < c->n; j++) z[j] = c->p[j] > 0 ? c->z[j] - best : 0;
            double psi = best + (is_plain(m) ? plain_conjugate(m, c->n, z, c->p) : c->out[0] - best);
            error = larger(error, row_error(1, c->out, &psi, 64 * unit * (1 + fabs(psi)) / fabs(alpha - 1)));
        }
        promised = c->digest;
        c->digest = others;
        call_row(c, m, SH_ROW_PART_VJP, "pg", c->n);
        if (ordinary && is_plain(m)) {
            plain_weights_back(m, c->n, c->z, c->p, c->g, want);
            for (int64_t j = 0; j < c->n; j++) size = larger(size, fabs(want[j]));
            other_error =
                larger(other_error, row_error(c->n, c->out, want,
                                              (alpha > 2 ? 16 : 1) * (64 + (double)c->n) * unit * (size + 0x1p-99)));
        }
        others = c->digest;
    }
    name_of(m, map);
    add_line(PROMISED, promised, error, "rows %s %s", type_name(c->type), map);
    add_line(m.separation == SH_SPARSEMAX ? PROMISED : OTHERS, others, other_error, "rows %s %s gradients",
             type_name(c->type), map);
}

/* The gradient in alpha, against differences of the weights; beyond alpha = 2 these have no bound. */
static void digest_alpha_rows(row_call *c) {
    static const double alphas[] = {1, 1.1, 1.5, 1.8, 2.5, 4};
    const double step = 0x1p-17;
    double error = 0;
    c->digest = EMPTY;
    for (size_t k = 0; k < sizeof alphas / sizeof *alphas; k++)
        for (int i = 0; i < 6; i++) {
            double above[ROW], below[ROW], want = 0;
            c->n = make_row(i, c->z);
            plain_weights(entmax(alphas[k] > 1 ? alphas[k] : 1 + step), c->n, c->z, c->p);
            call_row(c, entmax(alphas[k]), SH_ROW_PART_VJP_PARAMETER, "pg", 1);
            if (alphas[k] == 1 || alphas[k] > 2) continue;
            plain_weights(entmax(alphas[k] + step), c->n, c->z, above);
            plain_weights(entmax(alphas[k] - step), c->n, c->z, below);
            for (int64_t j = 0; j < c->n; j++) want += c->g[j] * (above[j] - below[j]) / (2 * step);
            error = larger(error, row_error(1, c->out, &want, c->type == SH_FLOAT32 ? 1e-4 : 1e-5));
        }
    add_line(OTHERS, c->digest, error, "rows %s gradient in alpha", type_name(c->type));
}

/* The maps of full support, and of the k best. */
static void digest_full_rows(row_call *c) {
    const sh_model models[] = {SOFTMAX, {SH_POLYNOMIAL, 4}};
    const double unit = unit_of(c->type);
    double error = 0, want[ROW], dz[ROW];
    uint64_t sparse = EMPTY, others = EMPTY;
    for (int i = 0; i < ROWS_TRIED; i++) {
        c->n = make_row(i, c->z);
        c->digest = sparse;
        for (double k = 1; k < 99; k *= 7) call_row(c, (sh_model){SH_SPARSEMAX, k}, SH_ROW_PART_TOP, "z", c->n);
        sparse = c->digest;
        c->digest = others;
        call_row(c, (sh_model){SH_SOFTMAX, 7}, SH_ROW_PART_TOP, "z", c->n);
        for (int m = 0; m < 2; m++) {
            double allowed = 1, size = 0, best = -INFINITY;
            call_row(c, models[m], SH_ROW_PART_WEIGHTS, "z", c->n);
            memcpy(c->p, c->out, sizeof c->p);
            if (i < 8) {
                for (int64_t j = 0; j < c->n; j++) best = larger(best, c->z[j]);
                plain_weights(models[m], c->n, c->z, want);
                allowed = (64 + (double)c->n) * unit;
                error = larger(error, row_error(c->n, c->p, want, allowed));
            }
            call_row(c, models[m], SH_ROW_PART_VJP, m ? "zpg" : "pg", c->n);
            if (i < 8) {
                plain_weights_back(models[m], c->n, c->z, c->p, c->g, dz);
                /* a difference of gradients, rounded before it is multiplied */
                for (int64_t j = 0; j < c->n; j++) size = larger(size, fabs(dz[j]) + c->p[j] * fabs(c->g[j]));
                error = larger(error, row_error(c->n, c->out, dz, allowed * (size + 0x1p-99)));
            }
            if (m == 0) call_row(c, SOFTMAX, SH_ROW_PART_CONJUGATE, "z", 1);
            if (m == 0 && i < 8) {
                for (int64_t j = 0; j < c->n; j++) dz[j] = c->z[j] - best;
                double psi = best + plain_conjugate(SOFTMAX, c->n, dz, want);
                error = larger(error, row_error(1, c->out, &psi, 64 * unit * (1 + fabs(psi))));
            }
        }
        others = c->digest;
    }
    add_line(PROMISED, sparse, 0, "rows %s sparsemax of the best", type_name(c->type));
    add_line(OTHERS, others, error, "rows %s full support", type_name(c->type));
}

static void digest_row_maps(void) {
    for (int type = SH_FLOAT32; type <= SH_FLOAT64; type++) {
        row_call *c = own(1, sizeof *c);
        c->type = (sh_type)type;
        digest_support_rows(c, SPARSEMAX);
        for (int i = 0; i < ALPHA_COUNT; i++) digest_support_rows(c, entmax(ALPHAS[i]));
        for (int i = 0; sh_map_numbered(other_map(i)); i++) {
            const sh_model other = {(sh_separation)other_map(i), OTHER_ALPHAS[i % OTHER_ALPHA_COUNT]};
            if (has_cutoff(other)) digest_support_rows(c, other);
        }
        digest_alpha_rows(c);
        digest_full_rows(c);
        free(c);
    }
}

/* --- what features and layers share: differences in place of gradients ---------------------------- */

/* An array that a function of plain loops reads, in double, and its gradient by the library. */
typedef struct {
    double *numbers;
    void *given, *gradient; /* of the compute type; gradient NULL: none */
    int64_t n;
} argument;

static argument new_argument(sh_type type, int64_t n, uint64_t seed, double size) {
    argument a = {own(n, sizeof(double)), own(n, size_of(type)), own(n, size_of(type)), n};
    for (int64_t i = 0; i < n; i++) {
        int64_t integer = draw_within(&seed, 1 << 20);
        a.numbers[i] = (double)integer * 0x1p-20 * size; /* size is a power of two */
        if (type == SH_FLOAT32)
            ((float *)a.given)[i] = (float)a.numbers[i];
        else
            ((double *)a.given)[i] = a.numbers[i];
    }
    return a;
}

static void free_argument(argument *a) {
    free(a->numbers);
    free(a->given);
    free(a->gradient);
}

/* sum(grad out) of a function that writes out, n numbers, from what `problem` holds */
typedef void (*plain_function)(const void *problem, double *out);
static double plain_loss(plain_function function, const void *problem, const double *grad, double *out, int64_t n) {
    double sum = 0;
    function(problem, out);
    for (int64_t i = 0; i < n; i++) sum += grad[i] * out[i];
    return sum;
}

/* Compares a gradient with differences of the plain function along one direction, in units of `allowed` of what the sum
 * of magnitudes is. */
static double gradient_error(plain_function function, const void *problem, argument *a, sh_type type,
                             const double *grad, double *out, int64_t n, double allowed) {
    const double step = 0x1p-18;
    double *kept = own(a->n, sizeof *kept), along = 0, size = 0, loss[2];
    memcpy(kept, a->numbers, (size_t)a->n * sizeof *kept);
    for (int side = 0; side < 2; side++) {
        uint64_t seed = 77;
        for (int64_t i = 0; i < a->n; i++) {
            double direction = draw(&seed) % 2 ? 1 : -1;
            a->numbers[i] = kept[i] + (side ? step : -step) * direction;
            if (side) continue;
            double g = get(a->gradient, type, i);
            along += direction * g;
            size += fabs(g);
        }
        loss[side] = plain_loss(function, problem, grad, out, n);
    }
    memcpy(a->numbers, kept, (size_t)a->n * sizeof *kept);
    free(kept);
    return fabs((loss[1] - loss[0]) / (2 * step) - along) / (allowed * (size + 1));
}

/* What outputs and gradients of layers may be off by; where single precision is rounded often, or differences are taken. */
static double output_limit(sh_type type) { return type == SH_FLOAT32 ? 0x1p-17 : 0x1p-46; }
static double gradient_limit(sh_type type) { return type == SH_FLOAT32 ? 0x1p-15 : 0x1p-28; }

/* --- features ------------------------------------------------------------------------------------- */

enum { SETS = 3, HEADS = 2, ASKING = 9, STORED = 150, DIM = 6, VALUE = 5, RANDOMS = 20 };

/* The association by features of all sets, in plain loops over pairs. */
typedef struct {
    sh_feature_map map;
    int64_t queries, stored, size;
    int causal;
    const double *beta, *projection; /* with sqrt(beta) in it */
    argument query, key, value;
} feature_problem;

static void plain_features(const feature_problem *p, int head, const double *x, int is_key, double *phi) {
    const double beta = p->beta[head];
    for (int64_t f = 0; f < p->size; f++) {
        if (p->map == SH_RANDOM) {
            double bias = is_key ? beta * plain_dot(x, x, DIM) / 2 : 0;
            phi[f] = exp(plain_dot(p->projection + (head * p->size + f) * DIM, x, DIM) - bias);
        } else {
            double u = p->map == SH_ELU ? sqrt(beta) * x[f] : x[f];
            phi[f] = p->map == SH_RELU ? larger(u, 0) : u > 0 ? 1 + u : exp(u);
        }
    }
}

static void plain_feature_sets(const void *problem, double *out) {
    const feature_problem *p = problem;
    double *phi = own(p->stored * p->size, sizeof *phi), ask[RANDOMS];
    for (int64_t set = 0; set < SETS * HEADS; set++) {
        const int64_t b = set / HEADS, h = set % HEADS;
        for (int64_t j = 0; j < p->stored; j++)
            plain_features(p, (int)h, p->key.numbers + ((b * p->stored + j) * HEADS + h) * DIM, 1, phi + j * p->size);
        for (int64_t i = 0; i < p->queries; i++) {
            double total = 0, *mixed = out + ((b * p->queries + i) * HEADS + h) * VALUE;
            plain_features(p, (int)h, p->query.numbers + ((b * p->queries + i) * HEADS + h) * DIM, 0, ask);
            memset(mixed, 0, VALUE * sizeof *mixed);
            for (int64_t j = 0; j < (p->causal ? i + 1 : p->stored); j++) {
                double k = plain_dot(ask, phi + j * p->size, p->size);
                total += k;
                for (int64_t c = 0; c < VALUE; c++)
                    mixed[c] += k * p->value.numbers[((b * p->stored + j) * HEADS + h) * VALUE + c];
            }
            for (int64_t c = 0; c < VALUE; c++) mixed[c] = total > 0 ? mixed[c] / total : 0;
        }
    }
    free(phi);
}

static sh_stack stack(const void *data, int64_t rows, int64_t width) {
    return (sh_stack){data, rows * HEADS * width, HEADS * width, width};
}

/* Forward and backward by pairs, by sums, or causal; by one and by three threads. */
static void digest_feature_sets(sh_type type, sh_feature_map map, const char *way, const char *name) {
    enum { FEW = 0, SUM = 1, CAUSAL = 2 };
    const int by = !strcmp(way, "pairs") ? FEW : !strcmp(way, "sums") ? SUM : CAUSAL;
    const int64_t rows = by == FEW ? 40 : STORED, asking = by == CAUSAL ? rows : ASKING,
                  size = map == SH_RANDOM ? RANDOMS : DIM, n = SETS * asking * HEADS * VALUE;
    static const double beta[HEADS] = {1, 0.25};
    argument projection = new_argument(SH_FLOAT64, HEADS * size * DIM, 4, 1);
    feature_problem p = {.map = map, .queries = asking, .stored = rows, .size = size, .causal = by == CAUSAL};
    p.beta = beta;
    p.projection = projection.numbers;
    p.query = new_argument(type, SETS * asking * HEADS * DIM, 1, 1);
    p.key = new_argument(type, SETS * rows * HEADS * DIM, 2, 1);
    p.value = new_argument(type, SETS * rows * HEADS * VALUE, 3, 2);
    argument grad = new_argument(type, n, 5, 1);
    sh_feature_sets sets = {.samples = SETS, .heads = HEADS, .queries = asking, .stored = rows, .beta = beta};
    sets.features = (sh_features){.type = type, .map = map, .d = DIM, .size = size, .v = VALUE};
    sets.features.projection = projection.numbers;
    sets.query = stack(p.query.given, asking, DIM);
    sets.key = stack(p.key.given, rows, DIM);
    sets.value = stack(p.value.given, rows, VALUE);
    sets.least_normaliser = type == SH_FLOAT32 ? 0x1p-60 : 0x1p-400;
    const int64_t numbers = SETS * HEADS * size;
    void *out = own(n, size_of(type));
    double *sums = own(2 * numbers * (2 + VALUE), sizeof *sums), error = 0, *want = own(n, sizeof *want);
    uint64_t digests[2];
    for (int run = 0; run < 2; run++) {
        sh_context context = {.threads = run ? 3 : 1};
        double along[HEADS] = {0}, *back = sums + numbers * (2 + VALUE);
        sh_feature_state state = {sums, sums + numbers, sums + 2 * numbers},
                         dstate = {NULL, back + numbers, back + 2 * numbers};
        memset(sums, 0, (size_t)(2 * numbers * (2 + VALUE)) * sizeof *sums);
        sh_stack to = stack(out, asking, VALUE), from = stack(grad.given, asking, VALUE),
                 dquery = stack(p.query.gradient, asking, DIM), dkey = stack(p.key.gradient, rows, DIM),
                 dvalue = stack(p.value.gradient, rows, VALUE);
        sh_status status;
        if (by == FEW) {
            status = sh_feature_sets_pairs(&context, &sets, to);
            if (status == SH_OK)
                status = sh_feature_sets_pairs_backward(&context, &sets, from, dquery, dkey, dvalue, along);
        } else if (by == CAUSAL) {
            status = sh_feature_sets_causal(&context, &sets, to);
            if (status == SH_OK)
                status = sh_feature_sets_causal_backward(&context, &sets, from, dquery, dkey, dvalue, along);
        } else {
            status = sh_feature_sets_sum(&context, &sets, state);
            if (status == SH_OK) status = sh_feature_sets_mix(&context, &sets, state, to);
            if (status == SH_OK)
                status = sh_feature_sets_mix_backward(&context, &sets, state, from, &dstate, dquery, along);
            if (status == SH_OK)
                status = sh_feature_sets_sum_backward(&context, &sets, state, dstate, NULL, dkey, dvalue, along);
        }
        succeeds(status, &context, name);
        uint64_t digest = add_reals(EMPTY, type, out, n);
        digest = add_reals(digest, type, p.query.gradient, p.query.n);
        digest = add_reals(digest, type, p.key.gradient, p.key.n);
        digest = add_reals(digest, type, p.value.gradient, p.value.n);
        digest = add_doubles(digest, along, HEADS);
        digests[run] = add_doubles(digest, sums, by == SUM ? numbers * (2 + VALUE) : 0);
    }
    if (digests[0] != digests[1]) fail("features %s %s %s: other bits by more threads", type_name(type), name, way);
    plain_feature_sets(&p, want);
    for (int64_t i = 0; i < n; i++) error = larger(error, fabs(get(out, type, i) - want[i]) / (2 * output_limit(type)));
    argument *all[] = {&p.query, &p.key, &p.value};
    for (int i = 0; i < 3; i++)
        error = larger(
            error, gradient_error(plain_feature_sets, &p, all[i], type, grad.numbers, want, n, gradient_limit(type)));
    add_line(OTHERS, digests[0], error, "features %s %s %s of sets", type_name(type), name, way);
    for (int i = 0; i < 3; i++) free_argument(all[i]);
    free_argument(&projection);
    free_argument(&grad);
    free(out);
    free(sums);
    free(want);
}

/* Sums of one list of patterns, added to twice, and what they answer; and causal. */
static void digest_feature_sums(sh_type type, sh_feature_map map, int cosine, const char *name) {
    enum { BEFORE = 60 };
    const int64_t size = map == SH_RANDOM ? RANDOMS : DIM;
    static const double beta[] = {0.5};
    argument projection = new_argument(SH_FLOAT64, size * DIM, 4, 1);
    argument query = new_argument(type, STORED * DIM, 1, 1), key = new_argument(type, STORED * DIM, 2, 1),
             value = new_argument(type, STORED * VALUE, 3, 2);
    sh_features f = {.type = type, .map = map, .d = DIM, .size = size, .v = VALUE, .beta = beta[0]};
    f.projection = projection.numbers;
    f.bias = beta[0] / 2;
    f.cosine = cosine;
    const int64_t number = (int64_t)size_of(type);
    sh_rows queries = {.data = query.given, .n = STORED, .d = DIM, .stride = DIM * number, .type = type},
            keys = queries,
            values = {.data = value.given, .n = STORED, .d = VALUE, .stride = VALUE * number, .type = type};
    keys.data = key.given;
    double *sums = own(size * (2 + VALUE), sizeof *sums), error = 0, *wide = own(STORED * DIM, sizeof *wide);
    void *out = own(2 * STORED * VALUE, size_of(type));
    uint64_t digests[2];
    for (int run = 0; run < 2; run++) {
        sh_context context = {.threads = run ? 3 : 1};
        sh_feature_state state = {sums, sums + size, sums + 2 * size};
        int64_t products[4] = {0};
        memset(sums, 0, (size_t)(size * (2 + VALUE)) * sizeof *sums);
        for (int64_t i = 0; i < size; i++) state.top[i] = -INFINITY;
        for (int part = 0; part < 2; part++) {
            sh_rows k = keys, v = values;
            k.n = v.n = part ? STORED - BEFORE : BEFORE;
            if (part) k.data = (const char *)k.data + BEFORE * k.stride;
            if (part) v.data = (const char *)v.data + BEFORE * v.stride;
            succeeds(sh_features_add(&context, &f, &k, &v, state, &products[part]), &context, name);
        }
        succeeds(sh_features_mix(&context, &f, state, &queries, out, VALUE, &products[2]), &context, name);
        succeeds(sh_features_causal(&context, &f, &queries, &keys, &values, type == SH_FLOAT32 ? 0x1p-60 : 0x1p-400,
                                    (char *)out + STORED * VALUE * number, VALUE, &products[3]),
                 &context, name);
        digests[run] = add_integers(add_reals(EMPTY, type, out, 2 * STORED * VALUE), products, 4);
        digests[run] = add_doubles(digests[run], sums, size * (2 + VALUE));
    }
    if (digests[0] != digests[1]) fail("features %s %s: other bits by more threads", type_name(type), name);
    for (int64_t j = 0; j < STORED; j++) {
        const double *x = key.numbers + j * DIM, length = cosine ? sqrt(plain_dot(x, x, DIM)) : 1;
        for (int64_t c = 0; c < DIM; c++) wide[j * DIM + c] = x[c] / length;
    }
    feature_problem p = {.map = map, .size = size, .beta = beta, .projection = projection.numbers};
    for (int64_t i = 0; i < STORED; i++) {
        double total = 0, mixed[VALUE] = {0}, ask[RANDOMS], phi[RANDOMS];
        plain_features(&p, 0, query.numbers + i * DIM, 0, ask);
        for (int64_t j = 0; j < STORED; j++) {
            plain_features(&p, 0, wide + j * DIM, 1, phi);
            double k = plain_dot(ask, phi, size);
            total += k;
            for (int64_t c = 0; c < VALUE; c++) mixed[c] += k * value.numbers[j * VALUE + c];
            if (j != i && j != STORED - 1) continue;
            for (int64_t c = 0; c < VALUE; c++) { /* after j = i the causal answer is complete */
                double want = total > 0 ? mixed[c] / total : 0, limit = 2 * output_limit(type);
                if (j == i) error = larger(error, fabs(get(out, type, (STORED + i) * VALUE + c) - want) / limit);
                if (j == STORED - 1) error = larger(error, fabs(get(out, type, i * VALUE + c) - want) / limit);
            }
        }
    }
    add_line(OTHERS, digests[0], error, "features %s %s%s", type_name(type), name, cosine ? " cosine" : "");
    free_argument(&projection);
    free_argument(&query);
    free_argument(&key);
    free_argument(&value);
    free(sums);
    free(wide);
    free(out);
}

static void digest_features(void) {
    static const char *const names[] = {"relu", "elu", "random"};
    for (int type = SH_FLOAT32; type <= SH_FLOAT64; type++)
        for (int map = SH_RELU; map <= SH_RANDOM; map++) {
            digest_feature_sums((sh_type)type, (sh_feature_map)map, 0, names[map]);
            digest_feature_sums((sh_type)type, (sh_feature_map)map, 1, names[map]);
            digest_feature_sets((sh_type)type, (sh_feature_map)map, "pairs", names[map]);
            digest_feature_sets((sh_type)type, (sh_feature_map)map, "sums", names[map]);
            digest_feature_sets((sh_type)type, (sh_feature_map)map, "causal", names[map]);
        }
}

/* --- the layers' association ---------------------------------------------------------------------- */

/* What one association is, and the same in plain loops. */
typedef struct {
    const char *name;
    int64_t samples, queries, stored, heads, d, v, steps;
    int shared;    /* all samples have the same rows */
    int bags;      /* samples are of different numbers of rows */
    int masked;    /* some rows are padding, and numbers are added to scores */
    int implicit;  /* at rest, with the gradient of the fixed point */
    int64_t from;  /* rows are seen through linear maps of so many features; 0: as they are */
    int64_t width; /* a causal window; 0: none */
    int64_t top;   /* the best only; 0: all */
    double dropout, beta;
    sh_model model;
    int64_t offsets[8];
    uint8_t *padding;
    argument query, key, value, mask, key_weight, key_bias, value_weight, value_bias, betas;
} layer;

static const layer LAYERS[] = {
    {"self", 3, 20, 20, 2, 7, 5, .beta = 0.5},
    {"two steps", 3, 20, 20, 2, 7, 7, .steps = 2, .beta = 0.5},
    {"shared rows", 4, 9, 30, 2, 6, 5, .steps = 1, .shared = 1, .beta = 1},
    {"bags", 5, 2, 0, 2, 6, 5, .bags = 1, .beta = 1},
    {"masked", 3, 10, 25, 2, 6, 5, .masked = 1, .beta = 1},
    {"causal window", 2, 40, 40, 1, 8, 8, .width = 6, .beta = 1},
    {"best", 2, 20, 30, 1, 8, 8, .top = 5, .beta = 1},
    {"at rest", 2, 10, 12, 1, 4, 4, .steps = -1, .implicit = 1, .beta = 0.25},
    {"mapped", 3, 2, 40, 2, 6, 5, .from = 9, .beta = 0.5},
    {"many rows", 1, 80, 900, 1, 40, 40, .beta = 0.25},
    {"dropout", 3, 20, 20, 2, 7, 5, .dropout = 0.25, .beta = 0.5},
};

static int64_t first_row(const layer *l, int64_t b) { return l->bags ? l->offsets[b] : l->shared ? 0 : b * l->stored; }
static int64_t rows_of_sample(const layer *l, int64_t b) {
    return l->bags ? l->offsets[b + 1] - l->offsets[b] : l->stored;
}
static int64_t all_rows(const layer *l) {
    return l->bags ? l->offsets[l->samples] : (l->shared ? 1 : l->samples) * l->stored;
}

/* Head h of a row: its own numbers, or the row seen through a linear map. */
static void plain_row(const layer *l, const argument *rows, const argument *weight, const argument *bias, int64_t row,
                      int64_t h, int64_t width, double *out) {
    for (int64_t c = 0; c < width; c++)
        out[c] = !l->from ? rows->numbers[(row * l->heads + h) * width + c]
                          : bias->numbers[h * width + c] + plain_dot(weight->numbers + (h * width + c) * l->from,
                                                                     rows->numbers + row * l->from, l->from);
}

static void plain_layer(const void *problem, double *out) {
    enum { AT_REST = 100 };
    const layer *l = problem;
    int64_t most = l->stored;
    for (int64_t b = 0; b < l->samples; b++) most = rows_of_sample(l, b) > most ? rows_of_sample(l, b) : most;
    double *keys = own(most * l->d, sizeof *keys), *values = own(most * l->v, sizeof *values),
           *z = own(most, sizeof *z), *p = own(most, sizeof *p), *x = own(l->d, sizeof *x);
    int64_t *at = own(most, sizeof *at);
    for (int64_t b = 0; b < l->samples; b++)
        for (int64_t h = 0; h < l->heads; h++) {
            const int64_t rows = rows_of_sample(l, b), first = first_row(l, b);
            for (int64_t j = 0; j < rows; j++) {
                plain_row(l, &l->key, &l->key_weight, &l->key_bias, first + j, h, l->d, keys + j * l->d);
                plain_row(l, l->from ? &l->key : &l->value, &l->value_weight, &l->value_bias, first + j, h, l->v,
                          values + j * l->v);
            }
            for (int64_t i = 0; i < l->queries; i++) {
                const int64_t query = (b * l->queries + i) * l->heads + h;
                double *mixed = out + query * l->v;
                memcpy(x, l->query.numbers + query * l->d, (size_t)l->d * sizeof *x);
                for (int64_t step = 0; step <= (l->steps < 0 ? AT_REST : l->steps); step++) {
                    int64_t n = 0;
                    for (int64_t j = 0; j < rows; j++) {
                        if (l->masked && l->padding[b * l->stored + j]) continue;
                        if (l->width && (j > i || j < i - l->width)) continue;
                        at[n] = j;
                        z[n] = l->betas.numbers[h] * plain_dot(keys + j * l->d, x, l->d);
                        if (l->masked) z[n] += l->mask.numbers[i * l->stored + j];
                        n++;
                    }
                    while (l->top && n > l->top) { /* the worst goes, the last of equals */
                        int64_t worst = 0;
                        for (int64_t j = 1; j < n; j++) worst = z[j] <= z[worst] ? j : worst;
                        n--;
                        memmove(at + worst, at + worst + 1, (size_t)(n - worst) * sizeof *at);
                        memmove(z + worst, z + worst + 1, (size_t)(n - worst) * sizeof *z);
                    }
                    plain_weights(l->model, n, z, p);
                    memset(x, 0, (size_t)l->d * sizeof *x);
                    memset(mixed, 0, (size_t)l->v * sizeof *mixed);
                    for (int64_t j = 0; j < n; j++) {
                        for (int64_t c = 0; c < l->d; c++) x[c] += p[j] * keys[at[j] * l->d + c];
                        for (int64_t c = 0; c < l->v; c++) mixed[c] += p[j] * values[at[j] * l->v + c];
                    }
                }
            }
        }
    free(keys);
    free(values);
    free(z);
    free(p);
    free(x);
    free(at);
}

/* The association as the library takes it. */
static sh_association association_of(const layer *l, sh_type type, const sh_structure *structure) {
    const int64_t H = l->heads, apart = l->shared || l->bags ? 0 : l->stored;
    sh_association a = {.type = type, .model = l->model, .samples = l->samples, .queries = l->queries};
    a.stored = l->stored;
    a.heads = H;
    a.d = l->d;
    a.v = l->v;
    a.query = (sh_stack){l->query.given, l->queries * H * l->d, H * l->d, l->d};
    a.key = (sh_stack){l->key.given, apart * H * l->d, H * l->d, l->d};
    a.value = (sh_stack){l->value.given, apart * H * l->v, H * l->v, l->v};
    if (l->from) {
        a.key = a.value = (sh_stack){l->key.given, l->stored * l->from, l->from, 0};
        a.key_map = (sh_projection){l->key_weight.given, l->key_bias.given, l->from};
        a.value_map = (sh_projection){l->value_weight.given, l->value_bias.given, l->from};
    }
    a.offsets = l->bags ? l->offsets : NULL;
    a.beta = l->betas.numbers;
    a.padding = l->masked ? l->padding : NULL;
    a.mask = l->masked ? l->mask.given : NULL;
    a.mask_query = l->stored;
    a.structure = l->width || l->top ? structure : NULL;
    a.steps = l->steps;
    a.eps = l->steps < 0 ? (type == SH_FLOAT32 ? 0x1p-22 : 0x1p-50) : 0;
    a.dropout = l->dropout;
    a.seed = 11;
    a.implicit = l->implicit;
    return a;
}

/* One association and its gradients, by one and by three threads; returns its digest. */
static uint64_t digest_layer(layer *l, sh_type type, const char *name, double *error) {
    static const int64_t bags[] = {0, 5, 5, 18, 30, 31};
    const int64_t H = l->heads;
    memcpy(l->offsets, bags, sizeof bags);
    const int64_t rows = all_rows(l), n = l->samples * l->queries * H * l->v;
    l->query = new_argument(type, l->samples * l->queries * H * l->d, 1, 2);
    l->key = new_argument(type, rows * (l->from ? l->from : H * l->d), 2, 1);
    l->value = new_argument(type, rows * (l->from ? l->from : H * l->v), 3, 1);
    l->mask = new_argument(type, l->queries * l->stored, 4, 1);
    l->key_weight = new_argument(type, H * l->d * l->from, 5, 0.5);
    l->key_bias = new_argument(type, H * l->d, 6, 0.5);
    l->value_weight = new_argument(type, H * l->v * l->from, 7, 0.5);
    l->value_bias = new_argument(type, H * l->v, 8, 0.5);
    l->betas = new_argument(SH_FLOAT64, H, 9, 1);
    for (int64_t h = 0; h < H; h++) l->betas.numbers[h] = l->beta * (double)(h + 1);
    l->padding = own(l->samples * l->stored, 1);
    for (int64_t i = 0; i < l->samples * l->stored; i++) l->padding[i] = i % 7 == 3;
    argument grad = new_argument(type, n, 10, 1);
    void *out = own(n, size_of(type));
    double *dbeta = own(l->samples * l->queries * H, sizeof *dbeta), *want = own(n, sizeof *want);
    int64_t *steps = own(l->samples * l->queries * H, sizeof *steps);
    sh_structure structure = {.pairs = l->top ? SH_PAIRS_TOP : SH_PAIRS_WINDOW, .k = l->top, .width = l->width};
    structure.dilation = structure.causal = 1;
    sh_association a = association_of(l, type, &structure);
    uint64_t digests[2] = {0};
    for (int run = 0; run < 2; run++) {
        sh_context context = {.threads = run ? 3 : 1};
        sh_tape *tape = NULL;
        sh_entries weights = {0};
        int64_t unconverged = 0;
        sh_gradients g = {
            .query = l->query.gradient, .key = l->key.gradient, .value = l->value.gradient, .beta = dbeta};
        g.query_row = H * l->d;
        g.key_row = l->from ? l->from : H * l->d;
        g.value_row = l->from ? l->from : H * l->v;
        if (l->from) {
            g.key_weight = l->key_weight.gradient;
            g.key_bias = l->key_bias.gradient;
            g.value_weight = l->value_weight.gradient;
            g.value_bias = l->value_bias.gradient;
        }
        if (succeeds(sh_association_forward(&context, &a, out, &tape, &unconverged), &context, name) &&
            succeeds(sh_association_backward(&context, tape, grad.given, &g), &context, name) &&
            succeeds(sh_association_weights(&context, tape, &weights), &context, name)) {
            sh_association_steps(tape, steps);
            uint64_t digest = add_reals(EMPTY, type, out, n);
            const argument *all[] = {&l->query,    &l->key,          &l->value,     &l->key_weight,
                                     &l->key_bias, &l->value_weight, &l->value_bias};
            for (size_t i = 0; i < sizeof all / sizeof *all; i++)
                digest = add_reals(digest, type, all[i]->gradient, all[i]->n);
            digest = add_doubles(digest, dbeta, l->samples * l->queries * H);
            digest = add_integers(digest, steps, l->samples * l->queries * H);
            digest = add_integers(digest, weights.position, weights.start[weights.n]);
            digests[run] = add_doubles(digest, weights.weight, weights.start[weights.n]);
        }
        if (unconverged) fail("%s: %" PRId64 " queries are not at rest", name, unconverged);
        sh_entries_free(&context, &weights);
        sh_tape_free(&context, tape);
    }
    if (digests[0] != digests[1]) fail("%s: other bits by more threads", name);
    if (l->dropout == 0) {
        plain_layer(l, want);
        for (int64_t i = 0; i < n; i++) *error = larger(*error, fabs(get(out, type, i) - want[i]) / output_limit(type));
        for (int64_t h = 0; h < H; h++) {
            double sum = 0;
            for (int64_t i = h; i < l->samples * l->queries * H; i += H) sum += dbeta[i];
            ((double *)l->betas.gradient)[h] = sum;
        }
        for (int64_t i = 0; l->from && i < l->key.n; i++) { /* keys and values are the same rows */
            if (type == SH_FLOAT32)
                ((float *)l->key.gradient)[i] += ((float *)l->value.gradient)[i];
            else
                ((double *)l->key.gradient)[i] += ((double *)l->value.gradient)[i];
        }
        argument *all[] = {&l->query, &l->key, l->from ? &l->key_weight : &l->value, &l->value_weight, &l->value_bias};
        for (int i = 0; i < (l->from ? 5 : 3); i++)
            *error = larger(*error,
                            gradient_error(plain_layer, l, all[i], type, grad.numbers, want, n, gradient_limit(type)));
        double wide =
            gradient_error(plain_layer, l, &l->betas, SH_FLOAT64, grad.numbers, want, n, gradient_limit(type));
        *error = larger(*error, wide);
    }
    argument *all[] = {&l->query,    &l->key,          &l->value,      &l->mask,  &l->key_weight,
                       &l->key_bias, &l->value_weight, &l->value_bias, &l->betas, &grad};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free_argument(all[i]);
    free(l->padding);
    free(out);
    free(dbeta);
    free(want);
    free(steps);
    return digests[0];
}

static void digest_layers(void) {
    static const sh_model models[] = {
        {SH_SOFTMAX, 0}, {SH_SPARSEMAX, 0}, {SH_ENTMAX, 1.5}, {SH_ENTMAX, 1.25}, {SH_POLYNOMIAL, 4}};
    for (int type = SH_FLOAT32; type <= SH_FLOAT64; type++)
        for (size_t i = 0; i < sizeof LAYERS / sizeof *LAYERS; i++) {
            char name[NAME];
            double error = 0;
            uint64_t digest = EMPTY;
            snprintf(name, sizeof name, "layers %s %s", type_name((sh_type)type), LAYERS[i].name);
            for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
                if (models[m].separation == SH_POLYNOMIAL && (LAYERS[i].implicit || LAYERS[i].from || LAYERS[i].masked))
                    continue; /* there is no such association */
                layer l = LAYERS[i];
                l.model = models[m];
                uint64_t of_map = digest_layer(&l, (sh_type)type, name, &error);
                digest = add_number(digest, of_map, sizeof of_map);
            }
            add_line(OTHERS, digest, error, "%s", name);
        }
}

/* --- lines out, and lines expected ---------------------------------------------------------------- */

static int write_promised(const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) return fprintf(stderr, "digests: cannot write %s\n", path), 1;
    fputs("# What the same build must give anywhere: tests/digests.c, which also says how to write this anew.\n", file);
    for (int64_t i = 0; i < line_count; i++)
        if (lines[i].kind == PROMISED) fprintf(file, "%016" PRIx64 " %s\n", lines[i].digest, lines[i].name);
    return fclose(file) != 0;
}

/* Compares the promised lines with those of a file, in any order. */
static void expect_promised(const char *path) {
    FILE *file = fopen(path, "r");
    char *found = own(line_count, 1), name[NAME];
    uint64_t digest;
    if (!file) {
        fail("cannot read %s", path);
        free(found);
        return;
    }
    fscanf(file, "#%*[^\n]");
    while (fscanf(file, "%" SCNx64 " %95[^\n]", &digest, name) == 2) {
        int64_t i = 0;
        while (i < line_count && (found[i] || lines[i].kind != PROMISED || strcmp(lines[i].name, name) != 0)) i++;
        if (i == line_count) {
            fail("%s: expected, but not made", name);
            continue;
        }
        found[i] = 1;
        if (lines[i].digest != digest) fail("%s: %016" PRIx64 " instead of %016" PRIx64, name, lines[i].digest, digest);
    }
    for (int64_t i = 0; i < line_count; i++)
        if (lines[i].kind == PROMISED && !found[i]) fail("%s: not in %s", lines[i].name, path);
    fclose(file);
    free(found);
}

int main(int count, char **arguments) {
    const char *expected = NULL, *written = NULL, *list = NULL;
    for (int i = 1; i < count; i++) {
        const char **option = !strcmp(arguments[i], "--expect")  ? &expected
                              : !strcmp(arguments[i], "--write") ? &written
                              : !strcmp(arguments[i], "--list")  ? &list
                                                                 : NULL;
        if (!strcmp(arguments[i], "--brief"))
            brief = 1, ways = 0;
        else if (option && i + 1 < count)
            *option = arguments[++i];
        else
            return fputs("usage: digests [--brief] [--list promised|others|none] [--expect FILE] [--write FILE]\n",
                         stderr),
                   2;
    }
    if (sh_initialise() != SH_OK) return fputs("digests: the library does not start\n", stderr), 1;
    digest_row_maps();
    digest_memories();
    if (!brief) digest_features();
    if (!brief) digest_layers();
    uint64_t all[KINDS] = {EMPTY, EMPTY};
    int64_t counts[KINDS] = {0};
    for (int64_t i = 0; i < line_count; i++) {
        const line *l = &lines[i];
        all[l->kind] = add_number(all[l->kind], l->digest, sizeof l->digest);
        counts[l->kind]++;
        if (list && strcmp(list, KIND_NAMES[l->kind]) != 0) continue;
        printf("%016" PRIx64 " %s", l->digest, l->name);
        if (l->kind == OTHERS) printf("  (off by %.1e of what it may be)", l->error);
        puts("");
    }
    if (written) failures += write_promised(written);
    if (expected) expect_promised(expected);
    for (int k = 0; k < KINDS; k++)
        printf("%016" PRIx64 " %s: all %" PRId64 " lines\n", all[k], KIND_NAMES[k], counts[k]);
    free(lines);
    return failures != 0;
}
