/* removed.c: memories without some of the rows of the array that they read.
 *
 * To remove a row is to set its bit. The bits are copied with every removal, an eighth of a byte a row; the rows, their
 * biases and scales and their indexes are shared with the memory before, and nothing of them is computed again.
 *
 * Notes  1. The scan and the indexes only find candidates: the scan scores removed rows with -inf, and an index's lists
 *           drop them. What is made of the candidates depends on nothing else (rescore.c), so results have the bits of a
 *           memory made anew of the rows that are left. Bounds over all rows (max_norm and others) may be too large;
 *           then filters let more through.
 *        2. Calls whose bits depend on where rows lie take another way: maps with full support, supports beyond
 *           sh_exact_support, and structures that go by places. They are answered by a packed memory, made anew of a copy
 *           of the rows that are left; it costs what such a call costs anyway. So is a call of which the bounds over all
 *           rows say that scores may overflow.
 *        3. The tolerance of sh_retrieve is relative to the largest norm, which must be that of the rows that are left.
 *           A memory knows one row of that norm; another is looked for only where this one was removed.
 */
#include "retrieval/job.h"

enum { CHUNK = 256 }; /* rows a work item */

/* --- which rows are removed ---------------------------------------------------------------------- */

/* Lays out a set of removed rows, out of so many; returns its bytes. */
static size_t lay_out(int64_t rows, void *block, sh_removed **r) {
    sh_workspace w = {block, 0};
    *r = sh_take(&w, 1, sizeof **r);
    int64_t *before = sh_take(&w, sh_ceil_div(rows, SH_COUNTED_ROWS) + 1, sizeof *before);
    uint64_t *bits = sh_take(&w, sh_ceil_div(rows, 64), sizeof *bits);
    if (block) **r = (sh_removed){.references = 1, .rows = rows, .bits = bits, .before = before};
    return w.used;
}

/* Returns a copy of a set (NULL: of none), for so many rows; or NULL. */
static sh_removed *copy_removed(sh_context *context, const sh_removed *old, int64_t rows) {
    sh_removed *r;
    void *block = sh_allocate(context, 1, lay_out(rows, NULL, &r));
    if (!block) return NULL;
    lay_out(rows, block, &r);
    memset(r->bits, 0, (size_t)sh_ceil_div(rows, 64) * sizeof *r->bits);
    if (old) memcpy(r->bits, old->bits, (size_t)sh_ceil_div(old->rows, 64) * sizeof *r->bits);
    return r;
}

void sh_release_removed(sh_context *context, sh_removed *r) {
    if (r && atomic_fetch_sub(&r->references, 1) == 1) sh_release(context, r);
}

/* Counts the removed rows before each SH_COUNTED_ROWS. */
static void count_removed(sh_removed *r) {
    const int64_t words = sh_ceil_div(r->rows, 64);
    r->count = 0;
    for (int64_t word = 0; word < words; word++) {
        if (word % (SH_COUNTED_ROWS / 64) == 0) r->before[word / (SH_COUNTED_ROWS / 64)] = r->count;
        if (r->bits[word]) r->count += __builtin_popcountll(r->bits[word]);
    }
    r->before[sh_ceil_div(r->rows, SH_COUNTED_ROWS)] = r->count;
}

int64_t sh_row_of(const sh_memory *m, int64_t position) {
    const sh_removed *r = m->removed;
    assert(position >= 0 && position < sh_count(m));
    if (!r) return position;
    if (position >= r->rows - r->count) return position + r->count;
    int64_t low = 0,
            high = sh_ceil_div(r->rows, SH_COUNTED_ROWS); /* the position is of a row from `low` on, before `high` */
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (middle * SH_COUNTED_ROWS - r->before[middle] <= position)
            low = middle;
        else
            high = middle;
    }
    int64_t left = position - (low * SH_COUNTED_ROWS - r->before[low]), word = low * (SH_COUNTED_ROWS / 64);
    for (int64_t n; left >= (n = 64 - __builtin_popcountll(r->bits[word])); word++) left -= n;
    uint64_t bits = ~r->bits[word];
    if (!r->bits[word]) return word * 64 + left;
    for (; left > 0; left--) bits &= bits - 1;
    return word * 64 + __builtin_ctzll(bits);
}

void sh_hide_removed(const sh_memory *m, int64_t rows, int64_t first, int64_t n, void *scores, int64_t ld) {
    const sh_removed *r = m->removed;
    if (!r) return;
    const double lowest = -INFINITY;
    const int64_t end = sh_min(first + n, r->rows);
    for (int64_t word = first / 64; word * 64 < end; word++)
        for (uint64_t bits = r->bits[word]; bits; bits &= bits - 1) {
            const int64_t row = word * 64 + __builtin_ctzll(bits);
            if (row < first || row >= end) continue;
            for (int64_t i = 0; i < rows; i++) m->k->from_double(sh_at(m->k, scores, i * ld + row - first), &lowest, 1);
        }
}

/* --- the interface -------------------------------------------------------------------------------- */

int64_t sh_memory_count(const sh_memory *m) { return m ? sh_count(m) : 0; }

/* Tells whether positions (NULL: the first n) are of a memory; notes the first that is not. */
static int are_positions(sh_context *context, const sh_memory *m, int64_t n, const int64_t *positions) {
    const int64_t count = sh_count(m);
    for (int64_t i = 0; positions && i < n; i++)
        if (positions[i] < 0 || positions[i] >= count)
            return sh_fail(context, SH_BAD_ARGUMENT, "positions", i) == SH_OK;
    return positions || n <= count || sh_fail(context, SH_BAD_ARGUMENT, "positions", count) == SH_OK;
}

sh_status sh_memory_rows(sh_context *context, const sh_memory *m, int64_t n, const int64_t *positions, int64_t *row) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context, sh_can_be(n, sizeof *row), "n");
    SH_REQUIRE(context, row || n == 0, "row");
    if (!are_positions(context, m, n, positions)) return SH_BAD_ARGUMENT;
    for (int64_t i = 0, next = 0; i < n; i++, next++) {
        if (positions) {
            row[i] = sh_row_of(m, positions[i]);
            continue;
        }
        while (sh_is_removed(m, next)) next++;
        row[i] = next;
    }
    return SH_OK;
}

sh_status sh_memory_remove(sh_context *context, const sh_memory *old, int64_t n, const int64_t *positions,
                           sh_memory **memory) {
    SH_REQUIRE(context, old, "old");
    SH_REQUIRE(context, sh_can_be(n, sizeof *positions), "n");
    SH_REQUIRE(context, positions || n == 0, "positions");
    SH_REQUIRE(context, memory, "memory");
    if (!are_positions(context, old, n, positions)) return SH_BAD_ARGUMENT;
    sh_removed *removed = copy_removed(context, old->removed, old->patterns.n);
    sh_memory *m = removed ? sh_allocate_memory(context, old->similarity, old->patterns.d) : NULL;
    sh_status status = m ? SH_OK : sh_fail(context, SH_NO_MEMORY, NULL, 0);
    for (int64_t i = 0; status == SH_OK && i < n; i++) {
        const int64_t row = sh_row_of(old, positions[i]);
        removed->bits[row / 64] |= (uint64_t)1 << (row % 64);
    }
    if (status == SH_OK) {
        count_removed(removed);
        if (removed->count == removed->rows) status = sh_fail(context, SH_BAD_ARGUMENT, "positions", 0);
    }
    if (status != SH_OK) {
        sh_release_removed(context, removed);
        sh_release(context, m);
        return status;
    }
    sh_indexes *indexes = m->indexes;
    void *centre = m->centre;
    *m = *old;
    m->indexes = indexes;
    m->centre = centre;
    if (centre) memcpy(centre, old->centre, (size_t)old->patterns.d * old->k->size);
    m->removed = removed;
    m->whole_count = 0;
    sh_retain_terms(m->row_terms);
    sh_retain_outliers(m->outliers);
    indexes->use = old->indexes->use;
    indexes->older_patterns = 0;
    atomic_store(&indexes->queries_asked, atomic_load(&old->indexes->queries_asked));
    atomic_store(&indexes->longest, atomic_load(&old->indexes->longest));
    sh_share_indexes(context, m, old);
    *memory = m;
    return SH_OK;
}

/* --- the largest norm ----------------------------------------------------------------------------- */

/* A search for a row of the largest norm. */
typedef struct {
    const sh_memory *m;
    int64_t without;       /* a row that does not count; -1: there is none */
    double bound;          /* no row has a larger norm */
    _Atomic int64_t equal; /* a row of that norm; -1: none was found yet */
    double *norm;          /* (chunks) the largest of each, */
    int64_t *longest;      /* and its row; -1: all are removed */
} norm_search;

static sh_status find_longest(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)context;
    norm_search *s = pointer;
    const sh_memory *m = s->m;
    s->norm[item] = -1;
    s->longest[item] = -1;
    if (atomic_load(&s->equal) >= 0) return SH_OK;
    for (int64_t i = item * CHUNK; i < sh_min((item + 1) * CHUNK, m->patterns.n); i++) {
        if (sh_is_removed(m, i) || i == s->without) continue;
        const double norm = sh_norm(m->k, sh_row_at(m->k, &m->patterns, i, scratch), m->patterns.d);
        if (norm > s->norm[item]) s->norm[item] = norm, s->longest[item] = i;
        if (norm == s->bound) atomic_store(&s->equal, i);
    }
    return SH_OK;
}

/* Finds the largest norm of the patterns but that of the row `without` (-1: of all), none of which exceeds `bound`, and a
 * row that has it; norm and row are -1 where there is none. */
static sh_status find_max_norm(sh_context *context, const sh_memory *m, int64_t without, double bound, double *norm,
                               int64_t *row) {
    const int64_t chunks = sh_ceil_div(m->patterns.n, CHUNK);
    norm_search s = {.m = m, .without = without, .bound = bound, .equal = -1};
    s.norm = sh_allocate(context, chunks, sizeof *s.norm);
    s.longest = sh_allocate(context, chunks, sizeof *s.longest);
    sh_status status = SH_NO_MEMORY;
    if (s.norm && s.longest)
        status = sh_for_each(context, chunks, (size_t)m->patterns.d * m->k->size, find_longest, &s);
    *row = atomic_load(&s.equal);
    *norm = *row < 0 ? -1 : bound;
    for (int64_t i = 0; status == SH_OK && atomic_load(&s.equal) < 0 && i < chunks; i++)
        if (s.longest[i] >= 0 && s.norm[i] > *norm) {
            *norm = s.norm[i];
            *row = s.longest[i];
        }
    sh_release(context, s.norm);
    sh_release(context, s.longest);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

sh_status sh_max_norm_without(sh_context *context, const sh_memory *m, int64_t row, double *norm) {
    int64_t longest;
    return find_max_norm(context, m, row, m->max_norm, norm, &longest);
}

sh_status sh_memory_max_norm(sh_context *context, const sh_memory *m, double *norm) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context, norm, "norm");
    *norm = m->max_norm;
    if (!m->removed || m->similarity == SH_COSINE) return SH_OK;
    const size_t row_bytes = (size_t)m->patterns.d * m->k->size;
    void *widened_row = sh_allocate(context, 1, row_bytes);
    if (!widened_row) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    int64_t row = atomic_load(&m->indexes->longest);
    *norm = sh_norm(m->k, sh_row_at(m->k, &m->patterns, row, widened_row), m->patterns.d);
    sh_release(context, widened_row);
    if (!sh_is_removed(m, row)) return SH_OK;
    sh_status status = find_max_norm(context, m, /* without */ -1, *norm, norm, &row);
    if (status == SH_OK && row >= 0) atomic_store(&m->indexes->longest, row); /* else all have become NaN */
    return status;
}

/* --- packed memories ------------------------------------------------------------------------------ */

/* Rows without the removed ones, copied together. */
typedef struct {
    const sh_memory *m;
    const sh_rows *from[2]; /* patterns, and values or NULL */
    char *to[2];
} packing;

static size_t bytes_of_row(const sh_rows *rows) { return (size_t)(rows->d * sh_size_of(rows->type)); }

static sh_status pack_rows(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const packing *p = pointer;
    const int64_t first = item * CHUNK, end = sh_min(first + CHUNK, sh_count(p->m));
    int64_t row = sh_row_of(p->m, first);
    for (int64_t i = first; i < end; i++, row++) {
        while (sh_is_removed(p->m, row)) row++;
        for (int l = 0; l < 2 && p->from[l]; l++) {
            const size_t bytes = bytes_of_row(p->from[l]);
            memcpy(p->to[l] + (size_t)i * bytes, (const char *)p->from[l]->data + row * p->from[l]->stride, bytes);
        }
    }
    return SH_OK;
}

sh_status sh_pack(sh_context *context, const sh_memory *m, const sh_memory **packed) {
    *packed = atomic_load(&m->indexes->packed);
    if (*packed) return SH_OK;
    const int64_t n = sh_count(m);
    packing p = {.m = m, .from = {&m->patterns, m->has_values ? &m->values : NULL}};
    sh_rows rows[2];
    sh_memory *made = NULL, *expected = NULL;
    sh_status status = SH_OK;
    for (int i = 0; i < 2 && p.from[i]; i++) {
        p.to[i] = sh_allocate(context, n, bytes_of_row(p.from[i]));
        if (!p.to[i]) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
        rows[i] = *p.from[i];
        rows[i].data = p.to[i];
        rows[i].n = n;
        rows[i].stride = (int64_t)bytes_of_row(p.from[i]);
    }
    if (status == SH_OK) status = sh_for_each(context, sh_ceil_div(n, CHUNK), 0, pack_rows, &p);
    if (status == SH_OK)
        status = sh_memory_new(context, &rows[0], m->has_values ? &rows[1] : NULL, m->similarity, m->type, &made);
    if (status != SH_OK) {
        for (int i = 0; i < 2; i++) sh_release(context, p.to[i]);
        return status;
    }
    for (int i = 0; i < 2; i++) made->packed_rows[i] = p.to[i];
    made->indexes->use = m->indexes->use;
    made->whole_count = m->whole_count;
    made->whole_max_norm = m->whole_max_norm;
    *packed = made;
    if (!atomic_compare_exchange_strong(&m->indexes->packed, &expected, made)) { /* another call was faster */
        sh_memory_free(context, made);
        *packed = expected;
    }
    return SH_OK;
}
