/* core.c: the C core under whatever bytes say: sizes, types, maps, structures, masks, failing allocations, interrupts.
 *
 * LLVMFuzzerTestOneInput takes bytes as a call and checks what must hold of any: a status and no crash, no more blocks
 * after it than before, weights of at least 0 that sum to 1, numbers from numbers, and the same bits for any number of
 * threads, on any path, and when an allocation has failed in between and the call has succeeded all the same. libFuzzer
 * drives it, or driver.c, which needs no more than a compiler with sanitizers. `make -C csrc fuzz` builds it.
 *
 * `fuzz_promised` gathers the bits that do not depend on the instruction set: runs of the same inputs under other
 * settings of SPARSEHOPFIELD_SIMD must end with the same number. */
#include "sparsehopfield_layers.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t fuzz_promised = 14695981039346656037u;
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- what bytes say ------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *data;
    size_t left;
} bytes;

static unsigned take(bytes *b) {
    if (!b->left) return 0;
    b->left--;
    return *b->data++;
}
static int64_t upto(bytes *b, int64_t most) { return (int64_t)((take(b) | take(b) << 8) % (unsigned)(most + 1)); }
static int one_in(bytes *b, unsigned n) { return take(b) % n == n - 1; }

static uint64_t next(uint64_t *state) {
    uint64_t x = (*state += 0x9E3779B97F4A7C15u);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}
static double uniform(uint64_t *state) { return (double)(next(state) >> 11) * 0x1p-53; }

static void must(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "flaw: %s\n", what);
    abort();
}

/* Blocks of exactly so many bytes, so that whoever reads beyond is seen. */
static void *block(int64_t count, size_t size) {
    void *p = malloc(count > 0 ? (size_t)count * size : 1);
    if (!p) exit(0);
    return p;
}

static size_t width(sh_type type) {
    return type == SH_FLOAT64 ? 8 : type == SH_FLOAT32 ? 4 : type == SH_FLOAT16 ? 2 : 1;
}

static void put(void *to, sh_type type, int64_t i, double x) {
    if (type == SH_FLOAT64)
        ((double *)to)[i] = x;
    else if (type == SH_FLOAT32)
        ((float *)to)[i] = (float)x;
    else if (type == SH_UINT8)
        ((uint8_t *)to)[i] = (uint8_t)((int64_t)(fabs(x) < 1e6 ? x * 16 : 0) & 255);
    else /* some float16: sign, exponent 10 to 19, mantissa */
        ((uint16_t *)to)[i] = (uint16_t)((x < 0 ? 0x8000 : 0) | (10 + (int)(fabs(fmod(x, 8))) % 10) << 10 |
                                         ((int64_t)(fabs(x) < 1e6 ? x * 64 : 0) & 1023));
}
static double get(const void *from, sh_type type, int64_t i) {
    return type == SH_FLOAT64 ? ((const double *)from)[i] : ((const float *)from)[i];
}

/* n numbers of a kind that bytes choose; *tame: finite, and of sizes whose sums and products stay so. */
static void *numbers(bytes *b, sh_type type, int64_t n, int *tame) {
    void *a = block(n, width(type));
    uint64_t state = take(b) | take(b) << 8;
    const unsigned kind = take(b) % 12;
    for (int64_t i = 0; i < n; i++) {
        double x = (uniform(&state) + uniform(&state) + uniform(&state) - 1.5) * 2;
        if (kind == 1 || kind == 2) x = (double)((int64_t)(next(&state) % 5) - 2); /* ties */
        if (kind == 3) x = 0.75;
        if (kind == 4) x = 1000 + x * 0.01;
        if (kind == 5) x *= pow(10, (double)(int64_t)(next(&state) % 13) - 6);
        if (kind == 6) x *= 1e-40;
        if (kind == 7) x *= 1e18;
        if (kind == 8) x = 0;
        if (kind == 9) x = x > 0 ? 1 : -1;
        put(a, type, i, x);
    }
    if (kind == 7) *tame = 0;
    if (kind == 10 && n && type <= SH_FLOAT64 && one_in(b, 2)) {
        static const double odd[] = {NAN, INFINITY, -INFINITY, 1e38, -1e38, 1e308, 5e-324, -0.0};
        put(a, type, (int64_t)(next(&state) % (uint64_t)n), odd[take(b) % 8]);
        *tame = 0;
    }
    return a;
}

static int all_numbers(const void *a, sh_type type, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (isnan(get(a, type, i))) return 0;
    return 1;
}

static void promise(const void *data, size_t size) {
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++) fuzz_promised = (fuzz_promised ^ p[i]) * 1099511628211u;
}

/* --- the context: allocations that fail, interrupts ----------------------------------------------- */

typedef struct {
    _Atomic int64_t made, asked;
    int64_t fail_at, stop_at; /* < 0: never */
} ledger;
static _Atomic int64_t live; /* blocks of all calls: what one makes, as an index, another may give back */

static void *counted(void *user, size_t size) {
    ledger *l = user;
    if (atomic_fetch_add(&l->made, 1) == l->fail_at) return NULL;
    void *p = malloc(size);
    if (p) atomic_fetch_add(&live, 1);
    return p;
}
static void released(void *user, void *p) {
    (void)user;
    if (p) atomic_fetch_sub(&live, 1);
    free(p);
}
static int stopped(void *user) {
    ledger *l = user;
    return atomic_fetch_add(&l->asked, 1) == l->stop_at;
}
static sh_context with(ledger *l, int threads, sh_path path) {
    return (sh_context){counted, released, stopped, l, threads, path, NULL, 0, NULL};
}
static int gave_up(const ledger *l, sh_status status) {
    return (status == SH_NO_MEMORY && l->fail_at >= 0 && l->made > l->fail_at) ||
           (status == SH_INTERRUPTED && l->stop_at >= 0 && l->asked > l->stop_at);
}

/* The second of two calls: as the first, but with threads, on a path, with a failure, that bytes choose. */
static sh_context again(bytes *b, ledger *l, const ledger *first) {
    *l = (ledger){.fail_at = -1, .stop_at = -1};
    const unsigned how = take(b) % 4;
    if (how == 1) l->fail_at = upto(b, first->made);
    if (how == 2) l->stop_at = upto(b, first->asked);
    const int threads = 1 + (int)(take(b) % 4);
    static const sh_path paths[] = {SH_PATH_SCAN, SH_PATH_AUTO, SH_PATH_LINES, SH_PATH_COLUMNS};
    return with(l, threads, paths[take(b) % 4]);
}

static void same(const ledger *l, sh_status first, sh_status second) {
    must(second == first || gave_up(l, second), "another status for other threads, paths or failures");
}
static void same_bits(sh_status status, const void *a, const void *b, size_t size, const char *what) {
    must(status != SH_OK || memcmp(a, b, size) == 0, what);
}

static sh_model model_of(bytes *b) {
    static const double alphas[] = {1, 1.25, 1.5, 2, 3, 1.0000001, 7, 30, 1000, 0.5, NAN, INFINITY};
    sh_model m = {(sh_separation)(take(b) % (SH_NORMMAX + 1)), 0};
    if (m.separation == SH_ENTMAX || m.separation == SH_NORMMAX)
        m.parameter = alphas[take(b) % (one_in(b, 4) ? 12 : 6)];
    if (m.separation == SH_POLYNOMIAL) m.parameter = (double)(1 + take(b) % 12);
    return m;
}
static int has_cutoff(sh_model m) {
    return m.separation == SH_SPARSEMAX || (m.separation == SH_ENTMAX && m.parameter > 1) || m.separation == SH_NORMMAX;
}

/* --- structures ----------------------------------------------------------------------------------- */

typedef struct {
    sh_structure s;
    int64_t *position, *start, *column;
} own_structure;

static void structure_of(bytes *b, int64_t n, int64_t m, own_structure *o) {
    *o = (own_structure){.s = {.k = 1, .dilation = 1, .rows = 1, .columns = 1}};
    sh_structure *s = &o->s;
    s->pairs = (sh_pairs)(take(b) % 5);
    s->k = 1 + upto(b, m - 1);
    s->width = upto(b, m);
    s->dilation = 1 + upto(b, m - 1);
    s->causal = take(b) & 1;
    s->seed = take(b);
    if (s->pairs == SH_PAIRS_WINDOW && (n > m || one_in(b, 2))) {
        s->position = o->position = block(n, sizeof *o->position);
        for (int64_t i = 0; i < n; i++) o->position[i] = upto(b, m - 1);
    }
    if (s->pairs == SH_PAIRS_WINDOW && one_in(b, 2)) {
        s->column_n = m < 3 ? m : 3;
        s->column = o->column = block(s->column_n, sizeof *o->column);
        for (int64_t i = 0; i < s->column_n; i++) o->column[i] = i * (m / s->column_n);
    }
    if (s->pairs == SH_PAIRS_RANDOM) s->rows = 1 + take(b) % 8;
    if (s->pairs == SH_PAIRS_BLOCKS) {
        s->rows = 1 + take(b) % 6;
        s->columns = 1 + take(b) % 9;
        while (m % s->columns) s->columns--;
        while (n % s->rows) s->rows--;
        const int64_t across = m / s->columns;
        s->start_n = n / s->rows;
        s->start = o->start = block(s->start_n + 1, sizeof *o->start);
        s->column = o->column = block(s->start_n * across, sizeof *o->column);
        for (int64_t r = 0; r < s->start_n; r++) {
            o->start[r] = s->column_n;
            const unsigned often = 1 + take(b) % 4;
            for (int64_t c = 0; c < across; c++)
                if (take(b) % often == 0) o->column[s->column_n++] = c;
        }
        o->start[s->start_n] = s->column_n;
    }
    if (one_in(b, 24)) { /* damaged: to be refused */
        int64_t *const all[] = {o->position, o->start, o->column};
        const int64_t sizes[] = {o->position ? n : 0, o->start ? s->start_n + 1 : 0, s->column_n};
        const unsigned which = take(b) % 3;
        static const int64_t odd[] = {-1, INT64_MAX, INT64_MIN, 1 << 20, 7};
        if (all[which] && sizes[which]) all[which][upto(b, sizes[which] - 1)] = odd[take(b) % 5];
        if (one_in(b, 2)) *(which == 0 ? &s->k : which == 1 ? &s->width : &s->dilation) = odd[take(b) % 5];
    }
}
static void structure_free(own_structure *o) {
    free(o->position);
    free(o->start);
    free(o->column);
}

/* --- rows ----------------------------------------------------------------------------------------- */

static void rows(bytes *b) {
    static const double parameters[] = {1, 1.5, 2, 3, 1.25, 30, 1.0001, 0.5, NAN, 1e9};
    const sh_row_op op = (sh_row_op)(take(b) % SH_ROW_MAPS);
    const sh_type type = take(b) & 1 ? SH_FLOAT64 : SH_FLOAT32;
    const int64_t n = one_in(b, 8) ? upto(b, 3000) : upto(b, 40);
    const double parameter = parameters[take(b) % 10];
    int tame = 1;
    void *in[3], *out[2];
    for (int i = 0; i < 3; i++) in[i] = numbers(b, type, n, &tame);
    for (int i = 0; i < 2; i++) out[i] = block(n > 1 ? n : 2, 8);
    if (op >= SH_ROW_SOFTMAX_VJP && op < SH_ROW_SOFTMAX_CONJUGATE) /* weights, as the gradients take them */
        for (int64_t i = 0, at = op == SH_ROW_POLYNOMIAL_VJP; i < n; i++)
            put(in[at], type, i, fabs(get(in[at], type, i)) / (double)(n + 1));
    void *scratch = block((int64_t)sh_row_scratch(n), 1);
    const sh_status status = sh_row(op, type, n, parameter, (const void *const *)in, out, scratch);
    must(status == SH_OK || status == SH_BAD_ARGUMENT || status == SH_UNDEFINED, "status of a row");
    const int weights = op <= SH_ROW_TOPK_SPARSEMAX;
    if (status == SH_OK && weights && tame && n) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            const double p = get(out[0], type, i);
            must(!isnan(p), "NaN in a row of numbers");
            must(p >= 0 || op == SH_ROW_POLYNOMIAL, "a weight below 0");
            sum += p;
        }
        if (op != SH_ROW_POLYNOMIAL) must(fabs(sum - 1) < 1e-3, "weights that do not sum to 1");
    }
    for (int i = 0; i < 3; i++) free(in[i]);
    for (int i = 0; i < 2; i++) free(out[i]);
    free(scratch);
}

/* --- memories ------------------------------------------------------------------------------------- */

typedef struct {
    sh_type type;
    int64_t m, n, d, v, w; /* w: of results */
    sh_rows patterns, values;
    int has_values, tame;
    sh_similarity similarity;
    void *xi, *value, *query;
    double *beta;
    int64_t beta_stride;
    own_structure structure;
    int structured;
    int64_t *exclude; /* (n) or NULL */
} scene;

static sh_rows rows_of(bytes *b, sh_type type, int64_t n, int64_t d, int *tame, void **data) {
    sh_type kind = type;
    if (one_in(b, 4)) kind = take(b) & 1 ? SH_UINT8 : SH_FLOAT16;
    const int64_t gap = one_in(b, 4) ? take(b) % 5 : 0;
    sh_rows r = {.n = n, .d = d, .stride = (d + gap) * (int64_t)width(kind), .type = kind};
    *data = numbers(b, kind, n * (d + gap), tame);
    r.data = *data;
    if (kind > SH_FLOAT64 && one_in(b, 2)) r.scale = 0.5f;
    return r;
}

static void scene_of(bytes *b, scene *s) {
    memset(s, 0, sizeof *s);
    s->tame = 1;
    s->type = take(b) & 1 ? SH_FLOAT64 : SH_FLOAT32;
    const int large = one_in(b, 48);
    s->m = 1 + (large ? upto(b, 2600) : upto(b, 40));
    s->n = large ? upto(b, 40) : upto(b, 12);
    s->d = 1 + upto(b, one_in(b, 4) ? 140 : 20);
    s->similarity = (sh_similarity)(take(b) % 3);
    s->patterns = rows_of(b, s->type, s->m, s->d, &s->tame, &s->xi);
    s->has_values = one_in(b, 3);
    s->w = s->v = s->d;
    if (s->has_values) {
        s->w = s->v = 1 + upto(b, 9);
        s->values = rows_of(b, s->type, s->m, s->v, &s->tame, &s->value);
    }
    s->query = numbers(b, s->type, s->n * s->d, &s->tame);
    s->beta_stride = take(b) & 1;
    const int64_t betas = s->beta_stride ? s->n : 1;
    s->beta = block(betas, sizeof *s->beta);
    static const double choice[] = {1, 0.1, 10, 1e-6, 1e6, 3, 0.5, 30, -1, NAN, 0, INFINITY, 1e300, 1e-300};
    for (int64_t i = 0; i < betas; i++) s->beta[i] = choice[take(b) % (one_in(b, 16) ? 14 : 8)];
    s->structured = one_in(b, 2);
    if (s->structured) structure_of(b, s->n, s->m, &s->structure);
    if (one_in(b, 3)) {
        static const int64_t odd[] = {-2, INT64_MAX, INT64_MIN, 1 << 20};
        s->exclude = block(s->n, sizeof *s->exclude);
        for (int64_t i = 0; i < s->n; i++) s->exclude[i] = upto(b, s->m) - 1;
        if (s->n && one_in(b, 24)) s->exclude[upto(b, s->n - 1)] = odd[take(b) % 4]; /* to be refused */
    }
}
static void scene_free(scene *s) {
    free(s->xi);
    free(s->value);
    free(s->query);
    free(s->beta);
    free(s->exclude);
    structure_free(&s->structure);
}
/* Structures by place refuse it that queries exclude patterns: only some of those are asked so. */
static sh_queries queries_of(const scene *s, int structured) {
    const sh_structure *structure = structured && s->structured ? &s->structure.s : NULL;
    const int taken = !structure || structure->pairs <= SH_PAIRS_TOP || structure->k % 8 == 0;
    return (sh_queries){s->query, s->n, s->beta, s->beta_stride, structure, taken ? s->exclude : NULL};
}

static void check_entries(const sh_entries *e, const scene *s, int whole) {
    must(e->n == s->n && e->start[0] == 0, "entries: where they begin");
    for (int64_t i = 0; i < e->n; i++) {
        double sum = 0;
        must(e->start[i] <= e->start[i + 1], "entries: their order");
        for (int64_t j = e->start[i]; j < e->start[i + 1]; j++) {
            must(e->position[j] >= 0 && e->position[j] < s->m, "entries: a position that is none");
            must(j == e->start[i] || e->position[j] > e->position[j - 1], "entries: positions that do not ascend");
            must(!isnan(e->weight[j]) && !isnan(e->score[j]), "entries: NaN");
            sum += e->weight[j];
        }
        if (whole && e->start[i] < e->start[i + 1]) must(fabs(sum - 1) < 1e-3, "entries: weights that do not sum to 1");
    }
}

static void promise_entries(const sh_entries *e) {
    promise(e->start, (size_t)(e->n + 1) * sizeof *e->start);
    promise(e->position, (size_t)e->start[e->n] * sizeof *e->position);
    promise(e->weight, (size_t)e->start[e->n] * sizeof *e->weight);
}

static int supports_are_small(const sh_entries *e) {
    for (int64_t i = 0; i < e->n; i++)
        if (e->start[i + 1] - e->start[i] > SH_EXACT_SUPPORT) return 0;
    return 1;
}

/* Margins and radii of all patterns, twice. */
static void balls(bytes *b, const scene *of, const sh_memory *memory, const sh_memory *grown) {
    const scene s = *of;
    ledger first = {.fail_at = -1, .stop_at = -1}, second;
    sh_context one = with(&first, 1, SH_PATH_SCAN), other;
    double *margins = block(2 * s.m, sizeof *margins);
    sh_status status = sh_margins(&one, memory, margins);
    other = again(b, &second, &first);
    sh_status twice = sh_margins(&other, grown, margins + s.m);
    same(&second, status, twice);
    if (status == SH_OK) same_bits(twice, margins, margins + s.m, (size_t)s.m * 8, "margins: others");
    double *need = block(s.m, sizeof *need), *radius = block(2 * s.m, sizeof *radius);
    int64_t *which = block(s.m, sizeof *which), *rival = block(2 * s.m, sizeof *rival);
    for (int64_t i = 0; i < s.m; i++) {
        need[i] = 0.5;
        which[i] = i;
    }
    if (one_in(b, 16)) which[upto(b, s.m - 1)] = one_in(b, 2) ? -1 : s.m;
    status = sh_radii(&one, memory, s.m, which, need, 0.0, radius, rival);
    other = again(b, &second, &first);
    twice = sh_radii(&other, grown, s.m, which, need, 0.0, radius + s.m, rival + s.m);
    same(&second, status, twice);
    if (status == SH_OK) same_bits(twice, radius, radius + s.m, (size_t)s.m * 8, "radii: others");
    free(margins);
    free(need);
    free(radius);
    free(which);
    free(rival);
}

/* One memory, and one grown from a part of it; each operation twice, see `again`. */
static void memories(bytes *b) {
    scene s;
    scene_of(b, &s);
    const sh_model model = model_of(b);
    ledger first = {.fail_at = -1, .stop_at = -1}, second = first;
    sh_context one = with(&first, 1, SH_PATH_SCAN), other;
    sh_memory *memory = NULL, *grown = NULL, *part = NULL;
    sh_status status = sh_memory_new(&one, &s.patterns, s.has_values ? &s.values : NULL, s.similarity, s.type, &memory);
    if (status == SH_OK) {
        const int64_t begun = 1 + upto(b, s.m - 1);
        sh_rows p = s.patterns, v = s.values;
        p.n = v.n = begun;
        other = again(b, &second, &first);
        sh_status part_status = sh_memory_new(&other, &p, s.has_values ? &v : NULL, s.similarity, s.type, &part);
        must(part_status == SH_OK || gave_up(&second, part_status), "a part of a sound memory is refused");
        if (part_status == SH_OK) {
            if (one_in(b, 3)) (void)sh_memory_index(&other, part);
            sh_status more = sh_memory_extend(&other, part, &s.patterns, s.has_values ? &s.values : NULL, &grown);
            must(more == SH_OK || gave_up(&second, more), "a sound memory cannot be grown");
            sh_memory_free(&other, part);
        }
    }
    if (status == SH_OK && grown) {
        sh_queries q = queries_of(&s, 1), plain = queries_of(&s, 0);
        const size_t size = (size_t)(s.n * s.w) * width(s.type);
        void *a = block(s.n * s.w, width(s.type)), *c = block(s.n * s.w, width(s.type));
        int64_t *support = block(2 * s.n, sizeof *support);
        const int windowed = has_cutoff(model) || (s.structured && s.structure.s.pairs != SH_PAIRS_ALL);
        const int exact = has_cutoff(model);

        status = sh_update(&one, memory, model, q, a, support);
        other = again(b, &second, &first);
        sh_status twice = sh_update(&other, grown, model, q, c, support + s.n);
        same(&second, status, twice);
        if (status == SH_OK) {
            if (s.tame) must(all_numbers(a, s.type, s.n * s.w), "NaN in a state of numbers");
            if (exact || other.path == SH_PATH_SCAN) same_bits(twice, a, c, size, "update: other bits");
            for (int64_t i = 0; i < s.n; i++) must(support[i] >= 0 && support[i] <= s.m, "a support that is none");
        }

        sh_entries e = {0}, f = {0};
        const int64_t top = windowed ? upto(b, 3) * upto(b, s.m) : 1 + upto(b, s.m - 1);
        status = sh_associate(&one, memory, model, q, top, 0, &e);
        other = again(b, &second, &first);
        twice = sh_associate(&other, grown, model, q, top, 0, &f);
        same(&second, status, twice);
        if (status == SH_OK) {
            check_entries(&e, &s, !top && s.tame && model.separation != SH_POLYNOMIAL);
            if (exact && supports_are_small(&e)) promise_entries(&e);
            if (twice == SH_OK && exact) {
                const size_t count = (size_t)e.start[e.n];
                same_bits(SH_OK, e.start, f.start, (size_t)(e.n + 1) * 8, "associate: other entries");
                same_bits(SH_OK, e.position, f.position, count * 8, "associate: other positions");
                same_bits(SH_OK, e.weight, f.weight, count * 8, "associate: other weights");
            }
            /* what weights say, mixed, is the state of the update */
            if (exact && !top && sh_mix(&one, memory, e.n, e.start, e.position, e.weight, c) == SH_OK &&
                supports_are_small(&e))
                same_bits(SH_OK, a, c, size, "mix: not the state of the update");
            double *w = block(e.start[e.n], sizeof *w);
            if (exact && !top && !s.structured &&
                sh_solve(&one, model, s.type, e.n, s.beta, s.beta_stride, e.start, e.score, w) == SH_OK &&
                supports_are_small(&e))
                same_bits(SH_OK, w, e.weight, (size_t)e.start[e.n] * 8, "solve: not the weights of the association");
            free(w);
        }
        if (status == SH_OK) sh_entries_free(&one, &e);
        if (twice == SH_OK) sh_entries_free(&other, &f);

        double *energy = block(2 * s.n, sizeof *energy);
        status = sh_energy(&one, memory, model, q, energy);
        other = again(b, &second, &first);
        twice = sh_energy(&other, grown, model, q, energy + s.n);
        same(&second, status, twice);
        if (status == SH_OK && s.tame)
            for (int64_t i = 0; i < s.n; i++) must(!isnan(energy[i]), "an energy that is NaN");
        free(energy);

        void *before = block(s.n * s.d, width(s.type)), *state = block(s.n * s.d, width(s.type));
        int64_t *steps = block(2 * s.n, sizeof *steps);
        uint8_t *converged = block(s.n, 1);
        const int64_t most = take(b) % 9;
        status = sh_retrieve(&one, memory, model, q, most, 1e-6, state, steps, converged, support, before);
        other = again(b, &second, &first);
        void *last = block(s.n * s.d, width(s.type));
        twice = sh_retrieve(&other, grown, model, q, most, 1e-6, last, steps + s.n, converged, support + s.n, NULL);
        same(&second, status, twice);
        if (status == SH_OK && exact) {
            same_bits(twice, state, last, (size_t)(s.n * s.d) * width(s.type), "retrieve: other bits");
            if (twice == SH_OK) same_bits(SH_OK, steps, steps + s.n, (size_t)s.n * 8, "retrieve: other steps");
        }
        free(before);
        free(state);
        free(last);
        free(steps);
        free(converged);

        const int64_t count = 1 + take(b) % SH_NEAREST;
        int64_t *position = block(2 * s.n * count, sizeof *position);
        double *score = block(2 * s.n * count, sizeof *score);
        status = sh_nearest(&one, memory, plain, count, position, score);
        other = again(b, &second, &first);
        twice = sh_nearest(&other, grown, plain, count, position + s.n * count, score + s.n * count);
        same(&second, status, twice);
        if (status == SH_OK) {
            same_bits(twice, position, position + s.n * count, (size_t)(s.n * count) * 8, "nearest: others");
            same_bits(twice, score, score + s.n * count, (size_t)(s.n * count) * 8, "nearest: other scores");
            promise(score, (size_t)(s.n * count) * 8);
        }
        free(position);
        free(score);

        if (s.m <= 300) balls(b, &s, memory, grown);

        /* no score passes its bounds */
        sh_context indexed = with(&first, 1, take(b) & 1 ? SH_PATH_LINES : SH_PATH_COLUMNS);
        double *bounds = block(s.n * s.m * 3, sizeof *bounds);
        if (s.m <= 200 && sh_memory_index(&indexed, memory) == SH_OK &&
            sh_bounds(&indexed, memory, plain, bounds) == SH_OK) {
            sh_entries all = {0};
            const sh_model entmax = {SH_ENTMAX, 1.0000001};
            if (sh_associate(&one, memory, entmax, plain, 0, 0, &all) == SH_OK) {
                for (int64_t i = 0; i < all.n; i++)
                    for (int64_t j = all.start[i]; j < all.start[i + 1]; j++) {
                        const double *at = bounds + (i * s.m + all.position[j]) * 3;
                        must(all.score[j] <= at[0] && all.score[j] <= at[1], "a score above its bound");
                        must(all.score[j] >= at[2], "a score below its bound");
                    }
                sh_entries_free(&one, &all);
            }
        }
        free(bounds);
        uint64_t mark = 0, its = 0;
        if (sh_memory_fingerprint(&one, memory, &mark) == SH_OK && sh_memory_fingerprint(&one, grown, &its) == SH_OK)
            must(mark == its, "another fingerprint of the same bytes");
        int64_t *counts = block(4 * s.n, sizeof *counts);
        (void)sh_survey(&one, memory, model, plain, counts);
        free(counts);

        /* two parts merged are the whole, where sums stand for them */
        if (!exact) {
            double *scale = block(4 * s.n, sizeof *scale);
            sh_partial x = {scale, scale + s.n, a}, y = {scale + 2 * s.n, scale + 3 * s.n, c};
            if (sh_accumulate(&one, memory, model, plain, x) == SH_OK &&
                sh_accumulate(&one, grown, model, plain, y) == SH_OK)
                (void)sh_merge(model, s.type, s.n, s.w, s.beta, s.beta_stride, x, y);
            free(scale);
        }

        /* lists above a floor, which are canonical whatever the map */
        double *floor = block(s.n, sizeof *floor);
        uint8_t *too_many = block(2 * s.n, 1);
        for (int64_t i = 0; i < s.n; i++) floor[i] = i % 3 == 0 ? -INFINITY : i % 3 == 1 ? 0 : -1;
        status = sh_candidates(&one, memory, model, q, floor, 5, &e, too_many);
        other = again(b, &second, &first);
        twice = sh_candidates(&other, grown, model, q, floor, 5, &f, too_many + s.n);
        same(&second, status, twice);
        if (status == SH_OK) {
            check_entries(&e, &s, 0);
            for (int64_t i = 0; i < s.n; i++)
                for (int64_t j = e.start[i]; j < e.start[i + 1]; j++)
                    must(e.score[j] >= floor[i] && !too_many[i], "candidates: below the floor");
        }
        if (status == SH_OK && twice == SH_OK) {
            const size_t listed = (size_t)e.start[e.n];
            same_bits(SH_OK, too_many, too_many + s.n, (size_t)s.n, "candidates: too many of others");
            same_bits(SH_OK, e.start, f.start, (size_t)(e.n + 1) * 8, "candidates: other lists");
            same_bits(SH_OK, e.position, f.position, listed * 8, "candidates: other positions");
            same_bits(SH_OK, e.score, f.score, listed * 8, "candidates: other scores");
        }
        if (status == SH_OK) sh_entries_free(&one, &e);
        if (twice == SH_OK) sh_entries_free(&other, &f);
        free(floor);
        free(too_many);
        free(a);
        free(c);
        free(support);
    }
    sh_memory_free(&one, memory);
    sh_memory_free(&one, grown);
    scene_free(&s);
}

/* --- the layers' association ---------------------------------------------------------------------- */

static void associations(bytes *b) {
    int tame = 1;
    sh_association a = {.type = take(b) & 1 ? SH_FLOAT64 : SH_FLOAT32, .model = model_of(b)};
    const int large = one_in(b, 16);
    const size_t size = width(a.type);
    a.samples = upto(b, large ? 12 : 4);
    a.queries = upto(b, large ? 60 : 7);
    a.stored = upto(b, large ? 90 : 9);
    a.heads = 1 + upto(b, 3);
    a.d = 1 + upto(b, large ? 40 : 9);
    a.v = 1 + upto(b, 9);
    const int shared = one_in(b, 4), ragged = !shared && one_in(b, 3), structured = one_in(b, 3);
    int64_t rows = shared ? a.stored : a.samples * a.stored, *offsets = NULL;
    if (ragged) {
        offsets = block(a.samples + 1, sizeof *offsets);
        offsets[0] = 0;
        for (int64_t i = 0; i < a.samples; i++) offsets[i + 1] = offsets[i] + upto(b, a.stored);
        rows = offsets[a.samples];
        a.offsets = offsets;
    }
    const int64_t H = a.heads, N = a.samples * a.queries * H;
    void *query = numbers(b, a.type, N * a.d, &tame), *key = numbers(b, a.type, rows * H * a.d, &tame);
    void *value = numbers(b, a.type, rows * H * a.v, &tame);
    a.query = (sh_stack){query, a.queries * H * a.d, H * a.d, a.d};
    a.key = (sh_stack){key, shared || ragged ? 0 : a.stored * H * a.d, H * a.d, a.d};
    a.value = (sh_stack){value, shared || ragged ? 0 : a.stored * H * a.v, H * a.v, a.v};
    if (ragged) { /* rows of a sample begin at its offset: the strides of samples say that they have their own */
        a.key.sample = a.stored * H * a.d;
        a.value.sample = a.stored * H * a.v;
    }
    double beta[4];
    for (int64_t h = 0; h < H; h++) beta[h] = (double)(1 + take(b) % 40) / 8;
    a.beta = beta;
    uint8_t *padding = NULL, *mask = NULL;
    if (!ragged && !shared && one_in(b, 3)) {
        a.padding = padding = block(a.samples * a.stored, 1);
        for (int64_t i = 0; i < a.samples * a.stored; i++) padding[i] = take(b) % 3 == 0;
    }
    if (!ragged && one_in(b, 3)) {
        a.mask = mask = block(a.queries * a.stored, 1);
        for (int64_t i = 0; i < a.queries * a.stored; i++) mask[i] = take(b) % 4 == 0;
        a.mask_is_bool = 1;
        a.mask_query = a.stored;
    }
    own_structure structure = {0};
    if (structured && a.queries && a.stored) {
        structure_of(b, a.queries, a.stored, &structure);
        a.structure = &structure.s;
    }
    a.steps = (int64_t)(take(b) % 5) - 1;
    a.eps = 1e-4;
    a.dropout = one_in(b, 4) ? 0.25 : 0;
    a.seed = take(b);
    a.implicit = a.steps < 0 && one_in(b, 2);

    ledger first = {.fail_at = -1, .stop_at = -1}, second = first;
    sh_context one = with(&first, 1, SH_PATH_AUTO), other;
    sh_tape *tape = NULL, *copy = NULL;
    int64_t unconverged = 0;
    void *out = block(N * a.v, size), *again_out = block(N * a.v, size);
    sh_status status = sh_association_forward(&one, &a, out, &tape, &unconverged);
    other = again(b, &second, &first);
    sh_status twice = sh_association_forward(&other, &a, again_out, &copy, &unconverged);
    same(&second, status, twice);
    if (status == SH_OK) {
        if (tame) must(all_numbers(out, a.type, N * a.v), "association: NaN of numbers");
        same_bits(twice, out, again_out, (size_t)(N * a.v) * size, "association: other bits");
        sh_entries e = {0};
        if (sh_association_weights(&one, tape, &e) == SH_OK) {
            must(e.n == N, "association: as many lists as queries");
            for (int64_t i = 0; i < e.n; i++) {
                double sum = 0;
                for (int64_t j = e.start[i]; j < e.start[i + 1]; j++) {
                    must(a.model.separation == SH_POLYNOMIAL || e.weight[j] >= 0, "association: a weight below 0");
                    must(e.position[j] >= 0 && e.position[j] < (a.stored > 0 ? a.stored : 1),
                         "association: a row that is none");
                    sum += e.weight[j];
                }
                if (tame && a.model.separation != SH_POLYNOMIAL && e.start[i] < e.start[i + 1])
                    must(fabs(sum - 1) < 1e-3, "association: weights that do not sum to 1");
            }
            sh_entries_free(&one, &e);
        }
        void *grad = numbers(b, a.type, N * a.v, &tame), *grads[2][3];
        double *dbeta = block(2 * N, sizeof *dbeta);
        sh_status back[2] = {SH_OK, SH_OK};
        for (int i = 0; i < 2; i++) {
            const int64_t sizes[3] = {N * a.d, rows * H * a.d, rows * H * a.v};
            for (int g = 0; g < 3; g++) memset(grads[i][g] = block(sizes[g], size), 0, (size_t)sizes[g] * size);
            sh_gradients gradients = {.query = grads[i][0],
                                      .key = grads[i][1],
                                      .value = grads[i][2],
                                      .query_row = H * a.d,
                                      .key_row = H * a.d,
                                      .value_row = H * a.v,
                                      .beta = dbeta + i * N};
            if (i) other = again(b, &second, &first);
            if (i == 0 || twice == SH_OK)
                back[i] = sh_association_backward(i ? &other : &one, i ? copy : tape, grad, &gradients);
        }
        if (twice == SH_OK) {
            same(&second, back[0], back[1]);
            if (back[0] == SH_OK) {
                same_bits(back[1], grads[0][0], grads[1][0], (size_t)(N * a.d) * size,
                          "gradient of queries: other bits");
                same_bits(back[1], grads[0][1], grads[1][1], (size_t)(rows * H * a.d) * size,
                          "gradient of keys: other bits");
                same_bits(back[1], grads[0][2], grads[1][2], (size_t)(rows * H * a.v) * size,
                          "gradient of values: other bits");
            }
        }
        for (int i = 0; i < 2; i++)
            for (int g = 0; g < 3; g++) free(grads[i][g]);
        free(dbeta);
        free(grad);
    }
    if (status == SH_OK) sh_tape_free(&one, tape);
    if (twice == SH_OK) sh_tape_free(&one, copy);
    free(out);
    free(again_out);
    free(query);
    free(key);
    free(value);
    free(offsets);
    free(padding);
    free(mask);
    structure_free(&structure);
}

/* --- dense ---------------------------------------------------------------------------------------- */

static void dense(bytes *b) {
    int tame = 1;
    const sh_type type = take(b) & 1 ? SH_FLOAT64 : SH_FLOAT32;
    const size_t size = width(type);
    const int64_t n = upto(b, one_in(b, 8) ? 700 : 9), e = 1 + upto(b, 30), o = 1 + upto(b, 30);
    void *x = numbers(b, type, n * e, &tame), *w = numbers(b, type, o * e, &tame), *bias = numbers(b, type, o, &tame);
    void *g = numbers(b, type, n * o, &tame), *gain = numbers(b, type, e, &tame), *shift = numbers(b, type, e, &tame);
    void *y[2], *dx[2], *dw[2], *db[2];
    ledger ledgers[2] = {{.fail_at = -1, .stop_at = -1}, {.fail_at = -1, .stop_at = -1}};
    sh_status status[2][2];
    for (int i = 0; i < 2; i++) {
        y[i] = block(n * o, size);
        dx[i] = block(n * e, size);
        dw[i] = block(o * e, size);
        db[i] = block(o, size);
        sh_context c = i ? again(b, &ledgers[1], &ledgers[0]) : with(&ledgers[0], 1, SH_PATH_AUTO);
        status[i][0] = sh_linear(&c, type, n, e, o, x, w, one_in(b, 4) ? NULL : bias, y[i]);
        status[i][1] = sh_linear_backward(&c, type, n, e, o, x, w, g, dx[i], dw[i], db[i]);
        (void)sh_normalize(&c, type, n, e, 1e-5, x, dx[i], db[i] = realloc(db[i], (size_t)(n + o) * size));
        (void)sh_fold(&c, type, e, o, w, bias, gain, shift, dw[i], y[i] = realloc(y[i], (size_t)(n * o + o) * size));
    }
    if (tame && n) must(all_numbers(dx[0], type, n * e), "normalise: NaN of numbers");
    (void)status;
    if (n && e) {
        void *first = block(e, size), *second = block(e, size), *p = block(e, size);
        memset(first, 0, (size_t)e * size);
        memset(second, 0, (size_t)e * size);
        memcpy(p, gain, (size_t)e * size);
        sh_context c = with(&ledgers[0], 2, SH_PATH_AUTO);
        const sh_adamw_options options = {1e-3, 0.9, 0.999, 1e-8, 0.01};
        const sh_status moved = sh_adamw(&c, type, e, p, shift, first, second, 1, options);
        if (tame && moved == SH_OK) must(all_numbers(p, type, e), "adamw: NaN of numbers");
        free(first);
        free(second);
        free(p);
    }
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(dx[i]);
        free(dw[i]);
        free(db[i]);
    }
    free(x);
    free(w);
    free(bias);
    free(g);
    free(gain);
    free(shift);
}

/* --- features ------------------------------------------------------------------------------------- */

static void features(bytes *b) {
    int tame = 1;
    sh_features f = {.type = take(b) & 1 ? SH_FLOAT64 : SH_FLOAT32, .map = (sh_feature_map)(take(b) % 3)};
    const size_t size = width(f.type);
    f.d = 1 + upto(b, 12);
    f.size = f.map == SH_RANDOM ? 1 + upto(b, 20) : f.d;
    f.beta = (double)(1 + take(b) % 16) / 8;
    f.bias = 0.5;
    f.cosine = one_in(b, 4);
    double *projection = numbers(b, SH_FLOAT64, f.size * f.d, &tame);
    if (f.map == SH_RANDOM) f.projection = projection;
    const int64_t m = 1 + upto(b, one_in(b, 8) ? 700 : 12), n = 1 + upto(b, 12);
    const int has_values = one_in(b, 2);
    f.v = has_values ? 1 + upto(b, 5) : f.d;
    void *xi, *value = NULL, *query;
    sh_rows patterns = rows_of(b, f.type, m, f.d, &tame, &xi), values = {0},
            queries = {.n = n, .d = f.d, .type = f.type};
    if (has_values) values = rows_of(b, f.type, m, f.v, &tame, &value);
    query = numbers(b, f.type, n * f.d, &tame);
    queries.data = query;
    queries.stride = f.d * (int64_t)size;
    sh_feature_state state[2];
    void *out[2];
    ledger ledgers[2] = {{.fail_at = -1, .stop_at = -1}, {.fail_at = -1, .stop_at = -1}};
    sh_status status[2];
    for (int i = 0; i < 2; i++) {
        state[i].top = block(f.size, 8);
        state[i].total = block(f.size, 8);
        state[i].sum = block(f.size * f.v, 8);
        for (int64_t k = 0; k < f.size; k++) state[i].top[k] = f.map == SH_RELU ? 0 : -INFINITY;
        memset(state[i].total, 0, (size_t)f.size * 8);
        memset(state[i].sum, 0, (size_t)(f.size * f.v) * 8);
        out[i] = block(n * f.v + m * f.v, size);
        sh_context c = i ? again(b, &ledgers[1], &ledgers[0]) : with(&ledgers[0], 1, SH_PATH_AUTO);
        status[i] = sh_features_add(&c, &f, &patterns, has_values ? &values : NULL, state[i], NULL);
        if (status[i] == SH_OK) status[i] = sh_features_mix(&c, &f, state[i], &queries, out[i], f.v, NULL);
        sh_rows as_queries = patterns;
        if (status[i] == SH_OK && patterns.type == f.type)
            status[i] = sh_features_causal(&c, &f, &as_queries, &patterns, has_values ? &values : NULL, 1e-20,
                                           (char *)out[i] + (size_t)(n * f.v) * size, f.v, NULL);
        else if (status[i] == SH_OK)
            memset((char *)out[i] + (size_t)(n * f.v) * size, 0, (size_t)(m * f.v) * size);
    }
    same(&ledgers[1], status[0], status[1]);
    if (status[0] == SH_OK) {
        same_bits(status[1], out[0], out[1], (size_t)((n + m) * f.v) * size, "features: other bits");
        if (tame) must(all_numbers(out[0], f.type, (n + m) * f.v), "features: NaN of numbers");
    }
    for (int i = 0; i < 2; i++) {
        free(state[i].top);
        free(state[i].total);
        free(state[i].sum);
        free(out[i]);
    }
    free(projection);
    free(xi);
    free(value);
    free(query);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const calls[])(bytes *) = {rows,         memories,     memories, memories,
                                             associations, associations, dense,    features};
    must(sh_initialise() == SH_OK, "the core does not begin");
    bytes b = {data, size};
    calls[take(&b) % (sizeof calls / sizeof *calls)](&b);
    must(live == 0, "blocks that nobody gave back");
    return 0;
}
