/* memory.c: stored patterns made ready for retrieval.
 *
 * Notes  1. A similarity is a bias and a scale per pattern: dot none; euclidean the bias -|xi|^2/2, under which
 *           argmax s is the nearest pattern; cosine the scale 1/|xi|, for scores and mixture alike.
 *           Where all patterns but outliers lie closer together than to the origin, <x, xi> - |xi|^2/2 cancels; tiles
 *           then hold <x - c, xi - c> - |xi - c|^2/2, where the centre c is the first pattern or, where that is far from
 *           most of the first few, another of these. So it is the same however a memory has grown, and as good as any
 *           centre but for a small factor.
 *        2. The norms cost one pass. They are finite only if the patterns are, so these need no check of their own. A
 *           fingerprint that is wanted costs no other.
 *        3. Biases and scales lie in arrays with space for more. A memory and those that extend it read the same
 *           arrays, each its own first rows; rows in use never change.
 */
#include "retrieval/job.h"
#include "retrieval/index/index.h"
#include <stdlib.h>

const void *sh_row_at(const sh_kernels *k, const sh_rows *rows, int64_t i, void *widened_row) {
    assert(i >= 0 && i < rows->n);
    const char *row = (const char *)rows->data + i * rows->stride;
    if (!sh_is_narrow(k, rows)) return row;
    sh_widen(k, rows, row, rows->d, widened_row);
    return widened_row;
}

void sh_prefetch_row(const sh_rows *rows, int64_t i) {
    enum { LINE = 64 };
    const char *row = (const char *)rows->data + i * rows->stride;
    size_t bytes = (size_t)(rows->d * sh_size_of(rows->type));
    for (size_t b = 0; b < bytes; b += LINE) __builtin_prefetch(row + b);
}

int64_t sh_prefetch_distance(const sh_rows *rows) {
    enum { BYTES = 4096, MAX_ROWS = 16 };
    int64_t bytes = rows->d * sh_size_of(rows->type);
    return sh_max(1, sh_min(MAX_ROWS, BYTES / sh_max(bytes, 1)));
}

/* Computes |x| from the sum of its squares. */
static double norm_of(const sh_kernels *k, const void *x, int64_t d, double squares) {
    if (squares >= 0x1p-900 && squares <= 0x1.fffffffffffffp1023) return sqrt(squares);
    double largest = k->max_abs(x, d), sum = 0; /* of the squares over largest^2 */
    if (!(largest > 0) || isinf(largest)) return largest;
    for (int64_t j = 0; j < d; j++) {
        double element;
        k->to_double(&element, sh_at(k, x, j), 1);
        sum += (element / largest) * (element / largest);
    }
    return largest * sqrt(sum);
}

double sh_norm(const sh_kernels *k, const void *x, int64_t d) { return norm_of(k, x, d, k->dot(x, x, d)); }

/* The biases or scales of patterns (note 3). */
struct sh_row_terms {
    _Atomic int64_t references, used; /* memories that read it; rows in use */
    int64_t capacity;                 /* rows that fit */
    double *exact;                    /* in double, for canonical scores */
    void *tile;                       /* in the compute type, for tiles of scores */
};

void sh_retain_terms(sh_row_terms *terms) {
    if (terms) atomic_fetch_add(&terms->references, 1);
}

/* Gives up one reference; the last frees the arrays. */
static void release_terms(sh_context *context, sh_row_terms *terms) {
    if (!terms || atomic_fetch_sub(&terms->references, 1) > 1) return;
    sh_release(context, terms->exact);
    sh_release(context, terms->tile);
    sh_release(context, terms);
}

/* Returns the terms of n rows, the first `ready` of which are those of `old` (NULL: none): the old ones, if the others fit
 * behind them and no other memory uses that part, else a copy with space for as many again. `size`: bytes of `tile`'s type. */
static sh_row_terms *extend_terms(sh_context *context, sh_row_terms *old, int64_t ready, int64_t n, size_t size) {
    int64_t free_from = ready;
    if (old && n <= old->capacity && atomic_compare_exchange_strong(&old->used, &free_from, n)) {
        sh_retain_terms(old);
        return old;
    }
    sh_row_terms *terms = sh_allocate(context, 1, sizeof *terms);
    if (!terms) return NULL;
    int64_t capacity = old ? sh_max(n, 2 * ready) : n;
    *terms = (sh_row_terms){.references = 1, .used = n, .capacity = capacity};
    terms->exact = sh_allocate(context, capacity, sizeof(double));
    terms->tile = sh_allocate(context, capacity, size);
    if (!terms->exact || !terms->tile) {
        release_terms(context, terms);
        return NULL;
    }
    if (old) {
        assert(ready <= old->capacity && ready <= n);
        memcpy(terms->exact, old->exact, (size_t)ready * sizeof(double));
        memcpy(terms->tile, old->tile, (size_t)ready * size);
    }
    return terms;
}

typedef struct {
    uint64_t a, b;
} word_pair;

/* Mixes two words by their product of 128 bits. How a changed bit of one changes it depends on all bits of the other, so
 * what is mixed in later undoes that by chance alone. By a product with a constant it would not: the upper bits of words,
 * the signs of numbers, change few bits of that, and always the same ones. */
static inline word_pair mix(uint64_t a, uint64_t b) {
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (word_pair){b ^ (uint64_t)(product >> 64), a ^ (uint64_t)product};
}

/* Mixes 16 bytes into a pair. */
static inline word_pair mix_in(word_pair p, const char *data) {
    uint64_t word[2];
    memcpy(word, data, sizeof word);
    return mix(p.a ^ word[0], p.b ^ word[1]);
}

uint64_t sh_hash(const char *data, size_t bytes, uint64_t seed) {
    enum { STEP = 64 }; /* bytes, of four pairs, none of which waits for another; they begin as the bits of pi */
    word_pair p = {0x243F6A8885A308D3, 0x13198A2E03707344}, q = {0xA4093822299F31D0, 0x082EFA98EC4E6C89};
    word_pair r = {0x452821E638D01377, 0xBE5466CF34E90C6C}, s = {0xC0AC29B7C97C50DD, 0x3F84D5B5B5470917};
    const word_pair ends = mix(0x9216D5D98979FB1B ^ bytes, 0xD1310BA698DFB5AC ^ seed);
    char rest[STEP] = {0};
    for (size_t left = bytes; left > 0; left -= left < STEP ? left : STEP, data += STEP) {
        if (left < STEP) data = memcpy(rest, data, left);
        p = mix_in(p, data);
        q = mix_in(q, data + 16);
        r = mix_in(r, data + 32);
        s = mix_in(s, data + 48);
    }
    const word_pair sum = mix(ends.a ^ p.a ^ q.a ^ r.a ^ s.a, ends.b ^ p.b ^ q.b ^ r.b ^ s.b);
    return sum.a ^ sum.b;
}

/* Returns the hash of a row of patterns or, `of_values`, of values, whose sum over all rows is their fingerprint. */
static uint64_t hash_row(const sh_rows *rows, int64_t i, int of_values) {
    return sh_hash((const char *)rows->data + i * rows->stride, (size_t)(rows->d * sh_size_of(rows->type)),
                   (uint64_t)(2 * i + of_values));
}

enum {
    CHUNK = 256, /* rows a work item */
    FAR = 8,     /* a memory is centred if its rows are so many times as far from the origin as from the centre */
    FIRST = 8,   /* patterns that the centre may be, */
    OUT = 4,     /* if it is so many times as far from most of them as another is */
};
/* The largest numbers of some rows, as sh_memory has them. */
typedef struct {
    double norm, raw_norm, bias, scale, spread;
    int64_t longest; /* a row of that norm */
} maxima;
typedef struct {
    sh_memory *m;
    int64_t first;                /* rows before it are ready */
    int check_values;             /* whether values are new and to be checked */
    int with_fingerprint;         /* whether that of the patterns is wanted: */
    _Atomic uint64_t fingerprint; /* the sum of their hashes */
    maxima *max;                  /* (chunks) */
    double centre_norm;           /* not below |centre| */
} preparation;

double sh_spread(const sh_memory *m, const void *row, double norm, double centre_norm) {
    const double far = centre_norm / FAR * (1 + 1e-6);
    return fabs(norm - centre_norm) > far ? norm + centre_norm : sqrt(m->k->distance2(row, m->centre, m->patterns.d));
}

/* Computes norms, biases and scales of a chunk of rows, and checks them. */
static sh_status prepare_rows(void *pointer, int64_t item, void *scratch, sh_context *context) {
    preparation *p = pointer;
    sh_memory *m = p->m;
    const sh_kernels *k = m->k;
    int64_t first = p->first + item * CHUNK, last = sh_min(first + CHUNK, m->patterns.n), d = m->patterns.d;
    maxima max = {.scale = 1};
    double norms[CHUNK], spreads[CHUNK];
    uint64_t hashes = 0;
    for (int64_t i = first; i < last; i++) {
        const void *x = sh_row_at(k, &m->patterns, i, scratch);
        if (p->with_fingerprint) hashes += hash_row(&m->patterns, i, 0);
        const double squares = k->dot(x, x, d);
        double length = norm_of(k, x, d, squares);
        if (!isfinite(length)) /* the norm of a finite row may overflow, too */
            return sh_fail(context, isfinite(k->max_abs(x, d)) ? SH_OVERFLOW : SH_NOT_FINITE, "patterns", i - p->first);
        max.raw_norm = fmax(max.raw_norm, length);
        if (m->bias) {
            m->bias[i] = -squares / 2;
            if (-m->bias[i] > k->largest) return sh_fail(context, SH_OVERFLOW, "patterns", i - p->first);
            k->from_double(sh_at(k, m->tile_bias, i), &m->bias[i], 1);
            max.bias = fmax(max.bias, -m->bias[i]);
            spreads[i - first] = sh_spread(m, x, length, p->centre_norm);
            max.spread = fmax(max.spread, spreads[i - first]);
        }
        norms[i - first] = length;
        if (m->scale) {
            if (length == 0) return sh_fail(context, SH_ZERO_ROW, "patterns", i - p->first);
            m->scale[i] = 1 / length;
            if (m->scale[i] > k->largest || m->scale[i] < k->smallest)
                return sh_fail(context, SH_OVERFLOW, "patterns", i - p->first);
            k->from_double(sh_at(k, m->tile_scale, i), &m->scale[i], 1);
            max.scale = fmax(max.scale, m->scale[i]);
            length = 1;
        }
        if (length > max.norm) max.norm = length, max.longest = i;
        if (p->check_values) {
            const void *value = sh_row_at(k, &m->values, i, scratch);
            if (!isfinite(k->max_abs(value, m->values.d)))
                return sh_fail(context, SH_NOT_FINITE, "values", i - p->first);
        }
    }
    if (m->outliers) sh_count_sizes(norms, last - first, m->outliers->norms);
    if (m->outliers && m->bias) sh_count_sizes(spreads, last - first, m->outliers->spreads);
    p->max[item] = max;
    atomic_fetch_add(&p->fingerprint, hashes);
    return SH_OK;
}

static void raise_maxima(sh_memory *m, maxima max) {
    if (max.norm > m->max_norm) atomic_store(&m->indexes->longest, max.longest);
    m->max_norm = fmax(m->max_norm, max.norm);
    m->max_raw_norm = fmax(m->max_raw_norm, max.raw_norm);
    m->max_bias = fmax(m->max_bias, max.bias);
    m->max_scale = fmax(m->max_scale, max.scale);
    m->max_spread = fmax(m->max_spread, max.spread);
}

/* Computes tile biases of differences from the centre (note 1) for a chunk of rows. */
static sh_status bias_differences(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)context;
    preparation *p = pointer;
    sh_memory *m = p->m;
    int64_t first = p->first + item * CHUNK, last = sh_min(first + CHUNK, m->patterns.n);
    for (int64_t i = first; i < last; i++) {
        double bias = -m->k->distance2(sh_row_at(m->k, &m->patterns, i, scratch), m->centre, m->patterns.d) / 2;
        m->k->from_double(sh_at(m->k, m->tile_bias, i), &bias, 1);
    }
    return SH_OK;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Returns the pattern that is the centre (note 1). rows: (2, d) scratch. */
static int64_t find_centre(const sh_kernels *k, const sh_rows *patterns, void *rows) {
    const int64_t n = sh_min(patterns->n, FIRST), d = patterns->d;
    double median[FIRST]; /* of the squared distances from the others */
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        double distance2[FIRST];
        const void *row = sh_row_at(k, patterns, i, rows);
        for (int64_t j = 0; j < n; j++)
            distance2[j] = k->distance2(row, sh_row_at(k, patterns, j, sh_at(k, rows, d)), d);
        qsort(distance2, (size_t)n, sizeof *distance2, compare_doubles);
        median[i] = distance2[n / 2];
        if (median[i] < median[best]) best = i;
    }
    const void *row = sh_row_at(k, patterns, best, rows);
    const int far = FAR * FAR * median[best] < k->dot(row, row, d); /* from the origin; else no centre is of use */
    return far && median[0] > OUT * OUT * median[best] ? best : 0;
}

/* Tells whether all patterns but outliers lie closer together than to the origin (note 1). */
static int is_centred(const sh_memory *m, double centre_norm) {
    const double limit = sh_outlier_limit(m->outliers->spreads, m->patterns.n, m->max_spread);
    if (isinf(limit)) return m->max_spread > 0 && FAR * m->max_spread < centre_norm;
    const int far = 16 * m->max_spread * m->max_spread > m->k->largest; /* products of differences might overflow */
    return !far && FAR * limit < centre_norm;
}

static int are_valid_rows(const sh_rows *rows, sh_type type) {
    int64_t size = sh_size_of(rows->type);
    if (size == 0 || (rows->type != type && size >= sh_size_of(type))) return 0;
    return rows->data && rows->n >= 1 && rows->stride >= 1 && sh_can_be(rows->n, rows->stride) && rows->d >= 1 &&
           rows->d <= INT32_MAX && rows->stride % size == 0 && rows->stride / size >= rows->d &&
           rows->stride / size <= INT32_MAX && rows->scale >= 0 && !isinf(rows->scale);
}

void sh_share_indexes(sh_context *context, sh_memory *m, const sh_memory *old) {
    for (int i = 0; i < SH_INDEXES; i++) {
        sh_index *index = atomic_load(&old->indexes->index[i]);
        int not_grown = !index && i < SH_LONGER_INDEX; /* the old memory's own index was never asked for */
        if (not_grown) index = atomic_exchange(&old->indexes->older[i], NULL); /* so that nobody frees it meanwhile */
        if (!index) continue;
        sh_index_retain(index);
        if (not_grown) atomic_store(&old->indexes->older[i], index);
        assert(index->patterns <= m->patterns.n);
        if (index->patterns == m->patterns.n) {
            atomic_store(&m->indexes->index[i], index); /* the same patterns have the same index */
        } else if (i < SH_LONGER_INDEX) {
            atomic_store(&m->indexes->older[i], index);
            m->indexes->older_patterns = index->patterns;
        } else {
            sh_index_free(context, index);
        }
    }
}

sh_memory *sh_allocate_memory(sh_context *context, sh_similarity similarity, int64_t d) {
    /* indexes change while calls read the memory as const, so they are a struct of their own */
    struct {
        sh_memory memory;
        sh_indexes indexes;
        double centre[];
    } *made = sh_allocate(context, 1, sizeof *made + (size_t)d * (similarity == SH_EUCLIDEAN) * sizeof(double));
    if (!made) return NULL;
    memset(made, 0, sizeof *made);
    made->memory.indexes = &made->indexes;
    atomic_init(&made->indexes.share_in_reach, NAN);
    if (similarity == SH_EUCLIDEAN) made->memory.centre = made->centre;
    return &made->memory;
}

/* Makes a memory of rows that begin with those of `older`, if that is not NULL. What was computed of these is shared,
 * or, to `rebuild`, computed again. with_fingerprint: computes that of the patterns, too, where there is no `older`. */
static sh_status make_memory(sh_context *context, const sh_memory *older, int rebuild, int with_fingerprint,
                             const sh_rows *patterns, const sh_rows *values, sh_similarity similarity, sh_type type,
                             sh_memory **memory) {
    const sh_memory *old = rebuild ? NULL : older;
    if (!are_valid_rows(patterns, type)) return sh_fail(context, SH_BAD_ARGUMENT, "patterns", 0);
    if (values && (!are_valid_rows(values, type) || values->n != patterns->n))
        return sh_fail(context, SH_BAD_ARGUMENT, "values", 0);
    sh_memory *m = sh_allocate_memory(context, similarity, patterns->d);
    if (!m) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    m->k = sh_kernels_of(type);
    m->type = type;
    m->similarity = similarity;
    m->patterns = *patterns;
    m->values = values ? *values : *patterns;
    m->has_values = values != NULL;
    m->removed = older ? older->removed : NULL;
    if (m->removed) atomic_fetch_add(&m->removed->references, 1);
    int64_t n = patterns->n, ready = old ? old->patterns.n : 0, chunks = sh_ceil_div(n - ready, CHUNK);
    preparation p = {.m = m,
                     .first = ready,
                     .check_values = values && !values->unchecked && !rebuild,
                     .with_fingerprint = with_fingerprint};
    sh_status status = SH_NO_MEMORY;
    int centre_changed =
        0; /* or the old memory is centred and this is not, or the reverse: its tile biases are others */
    p.max = sh_allocate(context, sh_max(chunks, 1), sizeof *p.max);
    if (!p.max) goto done;
    if (similarity == SH_EUCLIDEAN) {
        void *rows = sh_allocate(context, 2 * patterns->d, m->k->size);
        if (!rows) goto done;
        m->centre_row = find_centre(m->k, patterns, rows);
        sh_release(context, rows);
        centre_changed = old && m->centre_row != old->centre_row;
        if (centre_changed) {
            status = SH_OK;
            goto done;
        }
        const void *row = sh_row_at(m->k, patterns, m->centre_row, m->centre);
        if (row != m->centre) memcpy(m->centre, row, (size_t)patterns->d * m->k->size);
        p.centre_norm = sh_norm(m->k, m->centre, patterns->d) * (1 + 1e-9);
    }
    if (similarity != SH_COSINE) {
        m->outliers = sh_new_outliers(context, old ? old->outliers : NULL);
        if (!m->outliers) goto done;
    }
    if (similarity != SH_DOT) {
        m->row_terms = extend_terms(context, old ? old->row_terms : NULL, ready, n, m->k->size);
        if (!m->row_terms) goto done;
        *(similarity == SH_EUCLIDEAN ? &m->bias : &m->scale) = m->row_terms->exact;
        *(similarity == SH_EUCLIDEAN ? &m->tile_bias : &m->tile_scale) = m->row_terms->tile;
    }
    if (older) {
        m->indexes->use = older->indexes->use;
        m->values.unchecked |= older->values.unchecked; /* the old values were not, though the new ones are */
        sh_share_indexes(context, m, older);
    }
    if (old)
        raise_maxima(m, (maxima){old->max_norm, old->max_raw_norm, old->max_bias, old->max_scale, old->max_spread,
                                 atomic_load(&old->indexes->longest)});
    int64_t width = sh_max(patterns->d, values ? values->d : 0);
    status = sh_for_each(context, chunks, (size_t)width * m->k->size, prepare_rows, &p);
    for (int64_t i = 0; status == SH_OK && i < chunks; i++) raise_maxima(m, p.max[i]);
    m->has_fingerprint = with_fingerprint;
    m->fingerprint = atomic_load(&p.fingerprint);
    if (status == SH_OK && m->centre) {
        m->centred = is_centred(m, p.centre_norm);
        centre_changed = old && m->centred != old->centred;
        if (m->centred && !centre_changed)
            status = sh_for_each(context, chunks, (size_t)patterns->d * m->k->size, bias_differences, &p);
    }
    if (status == SH_OK && m->outliers && !centre_changed) status = sh_find_outliers(context, m, old, p.centre_norm);
    if ((status != SH_OK || centre_changed) && old && m->row_terms && m->row_terms == old->row_terms) {
        int64_t used = n; /* the rows behind `ready` are free again */
        atomic_compare_exchange_strong(&m->row_terms->used, &used, ready);
    }
done:
    sh_release(context, p.max);
    if (status == SH_OK && !centre_changed) {
        *memory = m;
        return SH_OK;
    }
    sh_memory_free(context, m);
    if (centre_changed) return make_memory(context, older, 1, 0, patterns, values, similarity, type, memory);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

sh_status sh_memory_make(sh_context *context, int with_fingerprint, const sh_rows *patterns, const sh_rows *values,
                         sh_similarity similarity, sh_type type, sh_memory **memory) {
    SH_REQUIRE(context, type == SH_FLOAT32 || type == SH_FLOAT64, "type");
    SH_REQUIRE(context, (unsigned)similarity <= SH_COSINE, "similarity");
    SH_REQUIRE(context, patterns, "patterns");
    SH_REQUIRE(context, memory, "memory");
    return make_memory(context, NULL, 0, with_fingerprint, patterns, values, similarity, type, memory);
}

sh_status sh_memory_new(sh_context *context, const sh_rows *patterns, const sh_rows *values, sh_similarity similarity,
                        sh_type type, sh_memory **memory) {
    return sh_memory_make(context, 0, patterns, values, similarity, type, memory);
}

/* Tells whether rows may begin with those of `old`. */
static int may_extend(const sh_rows *rows, const sh_rows *old) {
    return rows->n >= old->n && rows->d == old->d && rows->type == old->type && rows->scale == old->scale;
}

sh_status sh_memory_extend(sh_context *context, const sh_memory *old, const sh_rows *patterns, const sh_rows *values,
                           sh_memory **memory) {
    SH_REQUIRE(context, old, "old");
    SH_REQUIRE(context, memory, "memory");
    SH_REQUIRE(context, patterns, "patterns");
    if (!may_extend(patterns, &old->patterns)) return sh_fail(context, SH_BAD_ARGUMENT, "patterns", 0);
    if ((values != NULL) != old->has_values || (values && !may_extend(values, &old->values)))
        return sh_fail(context, SH_BAD_ARGUMENT, "values", 0);
    return make_memory(context, old, 0, 0, patterns, values, old->similarity, old->type, memory);
}

typedef struct {
    const sh_memory *m;
    int patterns_alone;
    _Atomic uint64_t sum;
} fingerprint_sum;

/* Adds the hashes of a chunk of rows. */
static sh_status hash_rows(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    fingerprint_sum *f = pointer;
    const int has_values = f->m->has_values && !f->patterns_alone;
    uint64_t sum = 0;
    for (int64_t i = item * CHUNK; i < sh_min((item + 1) * CHUNK, f->m->patterns.n); i++) {
        sum += hash_row(&f->m->patterns, i, 0);
        if (has_values) sum += hash_row(&f->m->values, i, 1);
    }
    atomic_fetch_add(&f->sum, sum);
    return SH_OK;
}

static sh_status compute_fingerprint(sh_context *context, fingerprint_sum *f, uint64_t *fingerprint) {
    sh_status status = sh_for_each(context, sh_ceil_div(f->m->patterns.n, CHUNK), 0, hash_rows, f);
    *fingerprint = atomic_load(&f->sum);
    return status;
}

sh_status sh_patterns_fingerprint(sh_context *context, const sh_memory *m, uint64_t *fingerprint) {
    *fingerprint = m->fingerprint;
    if (m->has_fingerprint) return SH_OK;
    return compute_fingerprint(context, &(fingerprint_sum){.m = m, .patterns_alone = 1}, fingerprint);
}

sh_status sh_memory_fingerprint(sh_context *context, const sh_memory *m, uint64_t *fingerprint) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context, fingerprint, "fingerprint");
    return compute_fingerprint(context, &(fingerprint_sum){.m = m}, fingerprint);
}

static void free_indexes(sh_context *context, sh_memory *m) {
    for (int i = 0; i < SH_INDEXES; i++) sh_index_free(context, atomic_exchange(&m->indexes->index[i], NULL));
    for (int i = 0; i < SH_LONGER_INDEX; i++) sh_index_free(context, atomic_exchange(&m->indexes->older[i], NULL));
    m->indexes->older_patterns = 0;
}

void sh_memory_use_map(sh_memory *m, int is_mapped) {
    if (m) m->mapped = is_mapped;
}

void sh_memory_use_index(sh_context *context, sh_memory *m, sh_index_use use) {
    if (!m) return;
    m->indexes->use = use;
    if (use == SH_INDEX_NEVER) free_indexes(context, m);
}

sh_status sh_memory_set_whole(sh_context *context, sh_memory *m, int64_t count, double max_norm) {
    double own = 0;
    sh_status status = sh_memory_max_norm(context, m, &own);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, count >= sh_count(m), "count");
    SH_REQUIRE(context, max_norm >= own && !isinf(max_norm), "max_norm");
    m->whole_count = count;
    m->whole_max_norm = max_norm;
    return SH_OK;
}

void sh_memory_free(sh_context *context, sh_memory *m) {
    if (!m) return;
    free_indexes(context, m);
    sh_memory_free(context, atomic_load(&m->indexes->packed));
    release_terms(context, m->row_terms);
    sh_release_outliers(context, m->outliers);
    sh_release_removed(context, m->removed);
    for (int i = 0; i < 2; i++) sh_release(context, m->packed_rows[i]);
    sh_release(context, m);
}

/* Tiles. Rows of the compute type are multiplied where they lie. Narrow rows are widened, and from rows far from the
 * origin the centre is subtracted, in a copy of a few columns at a time, which stays in the cache whatever d is. Float32
 * rows are widened whole for scores in double, a few rows at a time: a sum over columns in parts would be rounded
 * otherwise than that of a float64 memory. */

/* Returns how many columns of a tile are copied at a time. */
static int64_t copied_columns(const sh_kernels *k) {
    return sh_max(64, SH_TILE_ROW_BYTES / (int64_t)(SH_TILE * k->size));
}

/* Returns how many rows of a tile are copied whole at a time, in multiples of what kernels of a product take together;
 * 0: none, but columns of all. */
static int64_t copied_rows(const sh_kernels *k, const sh_rows *rows, const void *centre) {
    enum { TOGETHER = 64 };
    if (rows->type != SH_FLOAT32 || !sh_is_narrow(k, rows) || centre) return 0;
    return SH_TILE_ROW_BYTES / (TOGETHER * rows->d * (int64_t)k->size) * TOGETHER;
}

size_t sh_tile_row_bytes(const sh_memory *m) {
    const int64_t width = sh_max(m->patterns.d, m->values.d);
    if (!sh_is_narrow(m->k, &m->patterns) && !sh_is_narrow(m->k, &m->values) && !m->centred) return 0;
    return (size_t)sh_max(SH_TILE * copied_columns(m->k), SH_MIXED_TOGETHER * width) * m->k->size;
}

/* Copies columns of the rows [first, first + n), widened, less those of the centre (NULL: none). */
static void copy_columns(const sh_kernels *k, const sh_rows *rows, const void *centre, int64_t first, int64_t n,
                         int64_t column, int64_t columns, void *tile_rows) {
    const char *x = (const char *)rows->data + first * rows->stride + column * sh_size_of(rows->type);
    for (int64_t i = 0; i < n; i++, x += rows->stride) {
        void *row = sh_at(k, tile_rows, i * columns);
        if (sh_is_narrow(k, rows))
            sh_widen(k, rows, x, columns, row);
        else
            memcpy(row, x, (size_t)columns * k->size);
        if (centre) k->add(row, -1, sh_at(k, centre, column), columns);
    }
}

void sh_tile_scores(const sh_job *job, const sh_rows *x, const void *queries, int64_t rows, int64_t first, int64_t n,
                    void *scores, int64_t ld, void *tile_rows) {
    const sh_kernels *k = job->k;
    assert(first >= 0 && n >= 0 && n <= SH_TILE && first + n <= x->n);
    if (!sh_is_narrow(k, x) && !job->plan.centre) {
        k->gemm_nt(rows, n, x->d, queries, x->d, (const char *)x->data + first * x->stride,
                   x->stride / (int64_t)k->size, 0, scores, ld);
        sh_hide_removed(job->memory, rows, first, n, scores, ld);
        return;
    }
    const int64_t whole = copied_rows(k, x, job->plan.centre), part = whole ? whole : SH_TILE;
    const int64_t step = whole ? x->d : copied_columns(k);
    for (int64_t i = 0; i < n; i += part)
        for (int64_t c = 0; c < x->d; c += step) {
            const int64_t columns = sh_min(step, x->d - c), copied = sh_min(part, n - i);
            copy_columns(k, x, job->plan.centre, first + i, copied, c, columns, tile_rows);
            k->gemm_nt(rows, copied, columns, sh_at(k, queries, c), x->d, tile_rows, columns, c > 0,
                       sh_at(k, scores, i), ld);
        }
    sh_hide_removed(job->memory, rows, first, n, scores, ld);
}

void sh_tile_mix(const sh_job *job, const void *p, int64_t ldp, int64_t rows, int64_t first, int64_t n, int64_t column,
                 int64_t columns, int add, void *out, int64_t ldo, void *tile_rows) {
    const sh_kernels *k = job->k;
    const sh_rows *x = job->values;
    assert(first >= 0 && n >= 0 && n <= SH_TILE && first + n <= x->n && column + columns <= x->d);
    if (!sh_is_narrow(k, x) && !job->plan.value_centre) {
        const char *tile = (const char *)x->data + first * x->stride;
        k->gemm_nn(rows, columns, n, p, ldp, sh_at(k, tile, column), x->stride / (int64_t)k->size, add, out, ldo);
        return;
    }
    int64_t step = copied_columns(k);
    for (int64_t c = 0; c < columns; c += step) {
        int64_t width = sh_min(step, columns - c);
        copy_columns(k, x, job->plan.value_centre, first, n, column + c, width, tile_rows);
        k->gemm_nn(rows, width, n, p, ldp, tile_rows, width, add, sh_at(k, out, c), ldo);
    }
}

void sh_mix_selected(const sh_kernels *k, const sh_rows *x, const void *weights, const int32_t *index, int64_t n,
                     void *out, void *widened_rows) {
    if (!sh_is_narrow(k, x)) {
        k->mix(out, x->d, weights, index, n, x->data, x->stride / (int64_t)k->size);
        return;
    }
    static const int32_t in_order[SH_MIXED_TOGETHER] = {0, 1, 2, 3};
    const int64_t step = x->type == SH_FLOAT32 ? SH_MIXED_TOGETHER : 1;
    for (int64_t i = 0; i < n; i += step) {
        const int64_t rows = sh_min(step, n - i);
        for (int64_t l = 0; l < rows; l++) sh_row_at(k, x, index[i + l], sh_at(k, widened_rows, l * x->d));
        k->mix(out, x->d, sh_at(k, weights, i), in_order, rows, widened_rows, x->d);
    }
}
