/* memory.c: stored patterns made ready for retrieval.
 *
 * Notes  1. A similarity is a bias and a scale per pattern: dot none; euclidean the bias -|xi|^2/2, under which
 *           argmax s is the nearest pattern; cosine the scale 1/|xi|, for scores and mixture alike.
 *           Where all patterns lie closer together than to the origin, <x, xi> - |xi|^2/2 cancels; tiles then hold
 *           <x - c, xi - c> - |xi - c|^2/2 with c the first pattern: it is that of any memory of the same patterns, however
 *           they came in, and as good a centre as any but for a factor of 2.
 *        2. The norms cost one pass, and their finiteness is that of the patterns: the check is free.
 *        3. Biases and scales lie in a block with room for more. A memory and those extended from it read the same
 *           block, each its own first rows; rows in use never change.
 */
#include "retrieval/job.h"
#include "retrieval/index/index.h"
#include <math.h>
#include <string.h>

/* n elements of a narrow type, widened */
static void widen_row(const sh_kernels *k, const sh_rows *rows, const char *x, int64_t n, void *y) {
    float scale = rows->scale == 0 ? 1 : rows->scale;
    if (rows->type == SH_UINT8)
        k->from_uint8(y, (const uint8_t *)x, n, scale);
    else
        k->from_float16(y, (const uint16_t *)x, n, scale);
}

const void *sh_row_at(const sh_kernels *k, const sh_rows *rows, int64_t i, void *buffer) {
    const char *row = (const char *)rows->data + i * rows->stride;
    if (!sh_is_narrow(rows)) return row;
    widen_row(k, rows, row, rows->d, buffer);
    return buffer;
}

void sh_prefetch_row(const sh_rows *rows, int64_t i) {
    enum { LINE = 64 };
    const char *row = (const char *)rows->data + i * rows->stride;
    size_t bytes = (size_t)(rows->d * sh_size_of(rows->type));
    for (size_t b = 0; b < bytes; b += LINE) __builtin_prefetch(row + b);
}

int64_t sh_prefetch_distance(const sh_rows *rows) {
    enum { BYTES = 4096, MOST = 16 };
    int64_t bytes = rows->d * sh_size_of(rows->type);
    return sh_max(1, sh_min(MOST, BYTES / sh_max(bytes, 1)));
}

/* |x|, also where the sum of squares leaves the range of double. NaN or inf if the row has one. */
static double norm(const sh_kernels *k, const void *x, int64_t d) {
    double squares = k->dot(x, x, d);
    if (squares >= 0x1p-900 && squares <= 0x1.fffffffffffffp1023) return sqrt(squares);
    double largest = k->max_abs(x, d), sum = 0;
    if (!(largest > 0) || isinf(largest)) return largest;
    for (int64_t j = 0; j < d; j++) {
        double part;
        k->to_double(&part, sh_at(k, x, j), 1);
        sum += (part / largest) * (part / largest);
    }
    return largest * sqrt(sum);
}

/* Biases or scales (note 3). */
struct sh_norms {
    _Atomic int64_t references, used; /* memories that read it; rows in use */
    int64_t room;                     /* rows that fit */
    double *exact;
    void *tile;
};

static void leave_norms(sh_context *context, sh_norms *norms) {
    if (!norms || atomic_fetch_sub(&norms->references, 1) > 1) return;
    sh_release(context, norms->exact);
    sh_release(context, norms->tile);
    sh_release(context, norms);
}

/* Room for `n` rows whose first `kept` are those of `old` (NULL: none): the rest of its block, if nobody has taken
 * it, else a copy with as much room again. */
static sh_norms *take_norms(sh_context *context, sh_norms *old, int64_t kept, int64_t n, size_t size) {
    int64_t free_from = kept;
    if (old && n <= old->room && atomic_compare_exchange_strong(&old->used, &free_from, n)) {
        atomic_fetch_add(&old->references, 1);
        return old;
    }
    sh_norms *norms = sh_allocate(context, 1, sizeof *norms);
    if (!norms) return NULL;
    int64_t room = old ? sh_max(n, 2 * kept) : n;
    *norms = (sh_norms){.references = 1, .used = n, .room = room};
    norms->exact = sh_allocate(context, room, sizeof(double));
    norms->tile = sh_allocate(context, room, size);
    if (!norms->exact || !norms->tile) {
        leave_norms(context, norms);
        return NULL;
    }
    if (old) {
        memcpy(norms->exact, old->exact, (size_t)kept * sizeof(double));
        memcpy(norms->tile, old->tile, (size_t)kept * size);
    }
    return norms;
}

enum {
    CHUNK = 256, /* rows a work item */
    FAR = 8,     /* so many times as far from the origin as from one another, patterns are taken from a centre */
};
typedef struct {
    sh_memory *m;
    int64_t first;                              /* rows before it are ready */
    int check_values;                           /* of rows that are not checked yet */
    double *norm, *raw, *bias, *scale, *spread; /* the largest of every chunk */
    double centre_norm, apart; /* a squared distance from the centre from which on the memory is not centred */
} preparation;

static sh_status prepare(void *job, int64_t item, void *scratch, sh_context *context) {
    preparation *p = job;
    sh_memory *m = p->m;
    const sh_kernels *k = m->k;
    int64_t first = p->first + item * CHUNK, last = sh_min(first + CHUNK, m->patterns.n), d = m->patterns.d;
    double max_norm = 0, max_raw = 0, max_bias = 0, max_scale = 1, max_spread = 0;
    for (int64_t i = first; i < last; i++) {
        const void *x = sh_row_at(k, &m->patterns, i, scratch);
        double length = norm(k, x, d);
        if (length - length != 0) { /* the norm of a finite row may pass the range, too */
            double largest = k->max_abs(x, d);
            return sh_fail(context, largest - largest == 0 ? SH_OVERFLOW : SH_NOT_FINITE, "patterns", i - p->first);
        }
        max_raw = fmax(max_raw, length);
        if (m->bias) {
            m->bias[i] = -k->dot(x, x, d) / 2;
            if (-m->bias[i] > k->largest) return sh_fail(context, SH_OVERFLOW, "patterns", i - p->first);
            k->from_double(sh_at(k, m->tile_bias, i), &m->bias[i], 1);
            max_bias = fmax(max_bias, -m->bias[i]);
            if (max_spread < p->apart) max_spread = fmax(max_spread, k->distance2(x, m->centre, d));
        }
        if (m->scale) {
            if (length == 0) return sh_fail(context, SH_ZERO_ROW, "patterns", i - p->first);
            m->scale[i] = 1 / length;
            if (m->scale[i] > k->largest || m->scale[i] < k->smallest)
                return sh_fail(context, SH_OVERFLOW, "patterns", i - p->first);
            k->from_double(sh_at(k, m->tile_scale, i), &m->scale[i], 1);
            max_scale = fmax(max_scale, m->scale[i]);
            length = 1;
        }
        max_norm = fmax(max_norm, length);
        if (p->check_values) {
            const void *value = sh_row_at(k, &m->values, i, scratch);
            double largest = k->max_abs(value, m->values.d);
            if (largest - largest != 0) return sh_fail(context, SH_NOT_FINITE, "values", i - p->first);
        }
    }
    p->norm[item] = max_norm;
    p->raw[item] = max_raw;
    p->bias[item] = max_bias;
    p->scale[item] = max_scale;
    p->spread[item] = max_spread < p->apart ? sqrt(max_spread) : fmax(sqrt(max_spread), max_raw + p->centre_norm);
    return SH_OK;
}

/* biases of differences from the centre (note 1), in tiles */
static sh_status bias_differences(void *job, int64_t item, void *scratch, sh_context *context) {
    (void)context;
    preparation *p = job;
    sh_memory *m = p->m;
    int64_t first = p->first + item * CHUNK, last = sh_min(first + CHUNK, m->patterns.n);
    for (int64_t i = first; i < last; i++) {
        double bias = -m->k->distance2(sh_row_at(m->k, &m->patterns, i, scratch), m->centre, m->patterns.d) / 2;
        m->k->from_double(sh_at(m->k, m->tile_bias, i), &bias, 1);
    }
    return SH_OK;
}

static int rows_are_sound(const sh_rows *rows, sh_type type) {
    if ((unsigned)rows->type > SH_FLOAT16 || (rows->type != type && !sh_is_narrow(rows))) return 0;
    int64_t size = sh_size_of(rows->type);
    return rows->data && rows->n >= 1 && rows->stride >= 1 && sh_can_be(rows->n, rows->stride) && rows->d >= 1 &&
           rows->d <= INT32_MAX && rows->stride % size == 0 && rows->stride / size >= rows->d &&
           rows->stride / size <= INT32_MAX && rows->scale >= 0 && !isinf(rows->scale);
}

/* Holds on the indexes of another memory's patterns, which are the first of these: they do for now, or are to grow. */
static void take_indexes(sh_context *context, sh_memory *m, const sh_memory *old) {
    for (int i = 0; i < 3; i++) {
        sh_index *index = atomic_load(&old->indexes->index[i]);
        int waits = !index && i < 2; /* to be grown: growing again before the first growth was asked */
        if (waits) index = atomic_exchange(&old->indexes->older[i], NULL); /* nobody frees it meanwhile */
        if (!index) continue;
        sh_index_retain(index);
        if (waits) atomic_store(&old->indexes->older[i], index);
        if (index->patterns == m->patterns.n) {
            atomic_store(&m->indexes->index[i], index); /* the same patterns have the same index */
        } else if (i < 2) {
            atomic_store(&m->indexes->older[i], index);
            m->indexes->older_patterns = index->patterns;
        } else {
            sh_index_free(context, index);
        }
    }
}

/* A memory of these rows, which begin with those of `older`, if that is not NULL; where they are not taken `anew`, what
 * it knows of them is ready. */
static sh_status make(sh_context *context, const sh_memory *older, int anew, const sh_rows *patterns,
                      const sh_rows *values, sh_similarity similarity, sh_type type, sh_memory **memory) {
    const sh_memory *old = anew ? NULL : older;
    if (!rows_are_sound(patterns, type)) return sh_fail(context, SH_BAD_ARGUMENT, "patterns", 0);
    if (values && (!rows_are_sound(values, type) || values->n != patterns->n))
        return sh_fail(context, SH_BAD_ARGUMENT, "values", 0);
    /* the indexes changes while calls that hold the memory as const go on, so it is a thing of its own */
    struct {
        sh_memory memory;
        sh_indexes indexes;
        double centre[];
    } *both =
        sh_allocate(context, 1, sizeof *both + (size_t)patterns->d * (similarity == SH_EUCLIDEAN) * sizeof(double));
    if (!both) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    memset(both, 0, sizeof *both);
    sh_memory *m = &both->memory;
    *m = (sh_memory){.indexes = &both->indexes,
                     .k = sh_kernels_of(type),
                     .type = type,
                     .similarity = similarity,
                     .patterns = *patterns,
                     .values = values ? *values : *patterns,
                     .has_values = values != NULL};
    int64_t n = patterns->n, ready = old ? old->patterns.n : 0, chunks = sh_ceil_div(n - ready, CHUNK);
    preparation p = {.m = m, .first = ready, .check_values = values && !values->unchecked && !anew};
    sh_status status = SH_NO_MEMORY;
    int moved = 0;
    p.norm = sh_allocate(context, sh_max(5 * chunks, 1), sizeof(double));
    if (!p.norm) goto done;
    p.raw = p.norm + chunks;
    p.bias = p.raw + chunks;
    p.scale = p.bias + chunks;
    p.spread = p.scale + chunks;
    if (similarity == SH_EUCLIDEAN) {
        m->centre = both->centre;
        const void *row = sh_row_at(m->k, patterns, 0, m->centre);
        if (row != m->centre) memcpy(m->centre, row, (size_t)patterns->d * m->k->size);
        p.centre_norm = norm(m->k, m->centre, patterns->d) * (1 + 1e-9);
        p.apart = p.centre_norm * p.centre_norm / (FAR * FAR) * (1 + 1e-9);
    }
    if (similarity != SH_DOT) {
        m->norms = take_norms(context, old ? old->norms : NULL, ready, n, m->k->size);
        if (!m->norms) goto done;
        *(similarity == SH_EUCLIDEAN ? &m->bias : &m->scale) = m->norms->exact;
        *(similarity == SH_EUCLIDEAN ? &m->tile_bias : &m->tile_scale) = m->norms->tile;
    }
    if (older) {
        m->indexes->use = older->indexes->use;
        m->values.unchecked |= older->values.unchecked; /* of those values, though the others are checked now */
        take_indexes(context, m, older);
    }
    if (old) {
        m->max_norm = old->max_norm;
        m->max_raw_norm = old->max_raw_norm;
        m->max_bias = old->max_bias;
        m->max_scale = old->max_scale;
        m->max_spread = old->max_spread;
    }
    int64_t width = sh_max(patterns->d, values ? values->d : 0);
    status = sh_for_each(context, chunks, (size_t)width * m->k->size, prepare, &p);
    for (int64_t i = 0; status == SH_OK && i < chunks; i++) {
        m->max_norm = fmax(m->max_norm, p.norm[i]);
        m->max_raw_norm = fmax(m->max_raw_norm, p.raw[i]);
        m->max_bias = fmax(m->max_bias, p.bias[i]);
        m->max_scale = fmax(m->max_scale, p.scale[i]);
        m->max_spread = fmax(m->max_spread, p.spread[i]);
    }
    if (status == SH_OK && m->centre) {
        m->centred = m->max_spread > 0 && FAR * m->max_spread < p.centre_norm;
        moved = old && m->centred != old->centred; /* its biases are others */
        if (m->centred && !moved)
            status = sh_for_each(context, chunks, (size_t)patterns->d * m->k->size, bias_differences, &p);
    }
    if ((status != SH_OK || moved) && old && m->norms && m->norms == old->norms) {
        int64_t taken = n; /* give the rest of the block back */
        atomic_compare_exchange_strong(&m->norms->used, &taken, ready);
    }
done:
    sh_release(context, p.norm);
    if (status == SH_OK && !moved) {
        *memory = m;
        return SH_OK;
    }
    sh_memory_free(context, m);
    if (moved) return make(context, older, 1, patterns, values, similarity, type, memory);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

sh_status sh_memory_new(sh_context *context, const sh_rows *patterns, const sh_rows *values, sh_similarity similarity,
                        sh_type type, sh_memory **memory) {
    SH_REQUIRE(context, type == SH_FLOAT32 || type == SH_FLOAT64, "type");
    SH_REQUIRE(context, (unsigned)similarity <= SH_COSINE, "similarity");
    SH_REQUIRE(context, patterns, "patterns");
    SH_REQUIRE(context, memory, "memory");
    return make(context, NULL, 0, patterns, values, similarity, type, memory);
}

static int are_more(const sh_rows *rows, const sh_rows *old) {
    return rows->n >= old->n && rows->d == old->d && rows->type == old->type && rows->scale == old->scale;
}

sh_status sh_memory_extend(sh_context *context, const sh_memory *old, const sh_rows *patterns, const sh_rows *values,
                           sh_memory **memory) {
    SH_REQUIRE(context, old, "old");
    SH_REQUIRE(context, memory, "memory");
    SH_REQUIRE(context, patterns, "patterns");
    if (!are_more(patterns, &old->patterns)) return sh_fail(context, SH_BAD_ARGUMENT, "patterns", 0);
    if ((values != NULL) != old->has_values || (values && !are_more(values, &old->values)))
        return sh_fail(context, SH_BAD_ARGUMENT, "values", 0);
    return make(context, old, 0, patterns, values, old->similarity, old->type, memory);
}

/* Eight polynomial hashes side by side over words of a row, folded with the row's number. */
static uint64_t hash_row(const char *row, size_t bytes, uint64_t seed) {
    enum { SIDE = 8 };
    const uint64_t base = 0x9E3779B97F4A7C15; /* odd, so a changed word always changes its hash */
    uint64_t hash[SIDE], word[SIDE], sum = seed * base;
    for (int l = 0; l < SIDE; l++) hash[l] = (uint64_t)l + 1;
    size_t at = 0;
    for (; at + sizeof word <= bytes; at += sizeof word) {
        memcpy(word, row + at, sizeof word);
        for (int l = 0; l < SIDE; l++) hash[l] = hash[l] * base + word[l];
    }
    memset(word, 0, sizeof word);
    memcpy(word, row + at, bytes - at);
    for (int l = 0; l < SIDE; l++) sum = (sum ^ (sum >> 29)) * base + hash[l] * base + word[l];
    return sum ^ (sum >> 32);
}

typedef struct {
    const sh_memory *m;
    _Atomic uint64_t sum;
} fingerprinting;

static sh_status hash_item(void *job, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    fingerprinting *f = job;
    uint64_t sum = 0;
    for (int part = 0; part < 1 + f->m->has_values; part++) {
        const sh_rows *rows = part ? &f->m->values : &f->m->patterns;
        size_t bytes = (size_t)(rows->d * sh_size_of(rows->type));
        for (int64_t i = item * CHUNK; i < sh_min((item + 1) * CHUNK, rows->n); i++)
            sum += hash_row((const char *)rows->data + i * rows->stride, bytes, (uint64_t)(2 * i + part + 1));
    }
    atomic_fetch_add(&f->sum, sum);
    return SH_OK;
}

sh_status sh_memory_fingerprint(sh_context *context, const sh_memory *m, uint64_t *fingerprint) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context, fingerprint, "fingerprint");
    fingerprinting f = {.m = m};
    sh_status status = sh_for_each(context, sh_ceil_div(m->patterns.n, CHUNK), 0, hash_item, &f);
    *fingerprint = atomic_load(&f.sum);
    return status;
}

static void free_indexes(sh_context *context, sh_memory *m) {
    for (int i = 0; i < 3; i++) sh_index_free(context, atomic_exchange(&m->indexes->index[i], NULL));
    for (int i = 0; i < 2; i++) sh_index_free(context, atomic_exchange(&m->indexes->older[i], NULL));
    m->indexes->older_patterns = 0;
}

void sh_memory_use_index(sh_context *context, sh_memory *m, sh_index_use use) {
    if (!m) return;
    m->indexes->use = use;
    if (use == SH_INDEX_NEVER) free_indexes(context, m);
}

void sh_memory_free(sh_context *context, sh_memory *m) {
    if (!m) return;
    free_indexes(context, m);
    leave_norms(context, m->norms);
    sh_release(context, m);
}

/* Tiles. Rows of the compute type are multiplied where they lie; narrow rows are widened, and rows far from the origin
 * taken from the centre, a few columns at a time, so that this part of a tile stays in the cache whatever d is. */
static int64_t pack_columns(const sh_kernels *k) {
    return sh_max(64, SH_TILE_ROW_BYTES / (int64_t)(SH_TILE * k->size));
}

size_t sh_tile_row_bytes(const sh_memory *m) {
    if (!sh_is_narrow(&m->patterns) && !sh_is_narrow(&m->values) && !m->centred) return 0;
    return (size_t)(SH_TILE * pack_columns(m->k)) * m->k->size;
}

static void pack_rows(const sh_kernels *k, const sh_rows *rows, const void *centre, int64_t first, int64_t n,
                      int64_t column, int64_t columns, void *pack) {
    const char *x = (const char *)rows->data + first * rows->stride + column * sh_size_of(rows->type);
    for (int64_t i = 0; i < n; i++, x += rows->stride) {
        void *row = sh_at(k, pack, i * columns);
        if (sh_is_narrow(rows))
            widen_row(k, rows, x, columns, row);
        else
            memcpy(row, x, (size_t)columns * k->size);
        if (centre) k->add(row, -1, sh_at(k, centre, column), columns);
    }
}

void sh_tile_scores(const sh_job *job, const sh_rows *x, const void *q, int64_t rows, int64_t first, int64_t n,
                    void *scores, int64_t ld, void *pack) {
    const sh_kernels *k = job->k;
    if (!sh_is_narrow(x) && !job->plan.centre) {
        k->gemm_nt(rows, n, x->d, q, x->d, (const char *)x->data + first * x->stride, x->stride / (int64_t)k->size, 0,
                   scores, ld);
        return;
    }
    int64_t step = pack_columns(k);
    for (int64_t c = 0; c < x->d; c += step) {
        int64_t columns = sh_min(step, x->d - c);
        pack_rows(k, x, job->plan.centre, first, n, c, columns, pack);
        k->gemm_nt(rows, n, columns, sh_at(k, q, c), x->d, pack, columns, c > 0, scores, ld);
    }
}

void sh_tile_mix(const sh_job *job, const void *p, int64_t ldp, int64_t rows, int64_t first, int64_t n, int64_t column,
                 int64_t columns, int add, void *out, int64_t ldo, void *pack) {
    const sh_kernels *k = job->k;
    const sh_rows *x = job->values;
    if (!sh_is_narrow(x) && !job->plan.value_centre) {
        const char *tile = (const char *)x->data + first * x->stride;
        k->gemm_nn(rows, columns, n, p, ldp, sh_at(k, tile, column), x->stride / (int64_t)k->size, add, out, ldo);
        return;
    }
    int64_t step = pack_columns(k);
    for (int64_t c = 0; c < columns; c += step) {
        int64_t width = sh_min(step, columns - c);
        pack_rows(k, x, job->plan.value_centre, first, n, column + c, width, pack);
        k->gemm_nn(rows, width, n, p, ldp, pack, width, add, sh_at(k, out, c), ldo);
    }
}
