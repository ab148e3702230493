/* retrieval/index/order.c: an order of patterns in which those that are close together share panels.
 *
 * A kd-tree: patterns are divided at the median of the column that varies most among them, then each half again, down to
 * the 64 of a panel. The columns are those of boxes (index.h). Ties are decided by position, so that the order depends
 * on the patterns alone, however many threads there are, and halves are halves where all patterns are equal.
 *
 * Cost: 6 products with a direction a pattern, and some 10 ns for each of log2(M / 64) divisions.
 */
#include "retrieval/index/quantise.h"
#include <assert.h>
#include <string.h>

enum {
    CHUNK = 256,    /* patterns whose columns are computed at a time */
    SUBTREES = 64,  /* nodes from which on each is divided to its panels by one thread */
    SAMPLED = 1024, /* patterns of a node that its variances are taken from */
    SORTED = 24,    /* keys that are sorted to select one */
    DIGIT_BITS = 8, /* of the keys' numbers that are counted in one pass */
};

typedef struct {
    float column[SH_BOX_COLUMNS];
    int32_t pattern;
} point;

_Static_assert(sizeof(point) + sizeof(uint64_t) + sizeof(int32_t) == SH_ORDERED_BYTES, "as memory is estimated");

typedef struct {
    int64_t first, n; /* its points */
} node;

typedef struct {
    const sh_index *x;
    const sh_memory *m;
    int64_t first_pattern, n;
    point *points;  /* (n) */
    uint64_t *keys; /* (n) scratch of the node that has these points */
    node *nodes;    /* (level's) */
    node *halves;   /* (2 of each) */
} ordering;

static size_t lay_out(void *memory, ordering *o) {
    sh_workspace w = {memory, 0};
    o->points = sh_take(&w, o->n, sizeof *o->points);
    o->keys = sh_take(&w, o->n, sizeof *o->keys);
    o->nodes = sh_take(&w, 2 * SUBTREES, sizeof *o->nodes);
    o->halves = sh_take(&w, 2 * SUBTREES, sizeof *o->halves);
    return w.used;
}

/* --- columns -------------------------------------------------------------------------------------- */

static size_t lay_out_rows(const ordering *o, void *memory, sh_coding_scratch *s) {
    sh_workspace w = {memory, 0};
    sh_take_rows(&w, o->x, o->m, CHUNK, s);
    sh_take_products(&w, CHUNK, o->x->basis ? o->x->box_columns : 0, s);
    return w.used;
}

/* Computes the columns of a chunk of patterns. */
static sh_status columns_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    ordering *o = pointer;
    const sh_index *x = o->x;
    int64_t first = item * CHUNK, rows = sh_min(CHUNK, o->n - first);
    sh_coding_scratch s;
    lay_out_rows(o, scratch, &s);
    for (int64_t i = 0; i < rows; i++) {
        sh_status status = sh_load_pattern(context, x, o->m, o->first_pattern + first + i, &s, i);
        if (status != SH_OK) return status;
    }
    if (x->basis) sh_project(x, rows, x->box_columns, &s);
    for (int64_t i = 0; i < rows; i++) {
        const float *a = x->basis ? s.a + i * x->box_columns : s.y + i * x->d;
        double outside2 = s.norm2[i];
        point *p = &o->points[first + i];
        *p = (point){.pattern = (int32_t)(o->first_pattern + first + i)};
        for (int64_t c = 0; c < x->box_columns; c++) {
            p->column[c] = a[x->box_column[c]];
            outside2 -= (double)p->column[c] * (double)p->column[c];
        }
        p->column[SH_BOX_COLUMNS - 1] = (float)sqrt(fmax(outside2, 0));
    }
    return SH_OK;
}

/* --- the tree ------------------------------------------------------------------------------------- */

/* Returns the key of a point: larger where the column is, then where the position is. All differ. */
static uint64_t key_of(const point *p, int column) {
    uint32_t bits;
    memcpy(&bits, &p->column[column], sizeof bits);
    bits ^= bits >> 31 ? 0xffffffff : 0x80000000; /* ascending, as the numbers are */
    return (uint64_t)bits << 32 | (uint32_t)p->pattern;
}

/* Returns number `rank` of the ascending keys, which all differ and are destroyed. In each pass the keys are counted by
 * their leading digits above the least, and those of the digit in question stay. */
static uint64_t select_key(uint64_t *key, int64_t n, int64_t rank) {
    while (n > SORTED) {
        uint64_t least = key[0], most = key[0];
        for (int64_t i = 1; i < n; i++) {
            least = key[i] < least ? key[i] : least;
            most = key[i] > most ? key[i] : most;
        }
        const int bits = 64 - __builtin_clzll(most - least), shift = bits > DIGIT_BITS ? bits - DIGIT_BITS : 0;
        uint32_t count[1 << DIGIT_BITS] = {0};
        for (int64_t i = 0; i < n; i++) count[(key[i] - least) >> shift]++;
        uint64_t digit = 0;
        for (; rank >= count[digit]; digit++) rank -= count[digit];
        int64_t kept = 0;
        for (int64_t i = 0; i < n; i++) {
            const uint64_t k = key[i];
            key[kept] = k;
            kept += (k - least) >> shift == digit;
        }
        n = kept;
    }
    for (int64_t i = 1; i < n; i++) {
        const uint64_t k = key[i];
        int64_t j = i;
        for (; j > 0 && key[j - 1] > k; j--) key[j] = key[j - 1];
        key[j] = k;
    }
    return key[rank];
}

/* Returns the column of the largest variance. */
static int widest_column(const point *p, int64_t n) {
    const int64_t sampled = sh_min(n, SAMPLED);
    double sum[SH_BOX_COLUMNS] = {0}, square[SH_BOX_COLUMNS] = {0}, largest = -1;
    for (int64_t i = 0; i < sampled; i++)
        for (int c = 0; c < SH_BOX_COLUMNS; c++) {
            const double a = (double)p[i * n / sampled].column[c] - (double)p[0].column[c];
            sum[c] += a;
            square[c] += a * a;
        }
    int widest = 0;
    for (int c = 0; c < SH_BOX_COLUMNS; c++) {
        const double variance = square[c] - sum[c] * sum[c] / (double)sampled;
        if (variance > largest) {
            largest = variance;
            widest = c;
        }
    }
    return widest;
}

/* Divides a node of more than a panel's points in two, of which the first is of whole panels; returns its length. */
static int64_t divide(const ordering *o, int64_t first, int64_t n) {
    const int64_t half = sh_max(n / (2 * SH_PANEL), 1) * SH_PANEL;
    point *p = o->points + first;
    uint64_t *key = o->keys + first;
    const int column = widest_column(p, n);
    assert(half < n);
    for (int64_t i = 0; i < n; i++) key[i] = key_of(&p[i], column);
    const uint64_t border = select_key(key, n, half); /* the least of the second half */
    for (int64_t i = 0, j = n;;) {
        while (i < half && key_of(&p[i], column) < border) i++;
        if (i == half) break;
        do j--;
        while (!(key_of(&p[j], column) < border));
        const point moved = p[i];
        p[i] = p[j];
        p[j] = moved;
    }
    return half;
}

/* Divides one node of a level. */
static sh_status divide_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const ordering *o = pointer;
    const node whole = o->nodes[item];
    const int64_t half = whole.n > SH_PANEL ? divide(o, whole.first, whole.n) : whole.n;
    o->halves[2 * item] = (node){whole.first, half};
    o->halves[2 * item + 1] = (node){whole.first + half, whole.n - half};
    return SH_OK;
}

/* Divides points until they are panels. The recursion is as deep as halves can be halved. */
static void divide_to_panels(const ordering *o, int64_t first, int64_t n) {
    while (n > SH_PANEL) {
        const int64_t half = divide(o, first, n);
        divide_to_panels(o, first, half);
        first += half;
        n -= half;
    }
}

static sh_status subtree_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const ordering *o = pointer;
    divide_to_panels(o, o->nodes[item].first, o->nodes[item].n);
    return SH_OK;
}

sh_status sh_order_patterns(sh_context *context, const sh_index *x, const sh_memory *m, int64_t first_pattern,
                            int64_t first_panel) {
    ordering o = {.x = x, .m = m, .first_pattern = first_pattern, .n = x->patterns - first_pattern};
    void *memory = sh_allocate(context, 1, lay_out(NULL, &o));
    if (!memory) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    lay_out(memory, &o);
    sh_coding_scratch rows;
    sh_status status = sh_for_each(context, sh_ceil_div(o.n, CHUNK), lay_out_rows(&o, NULL, &rows), columns_item, &o);
    int64_t nodes = 1;
    o.nodes[0] = (node){0, o.n};
    while (status == SH_OK && nodes < SUBTREES && o.n > nodes * SH_PANEL) {
        status = sh_for_each(context, nodes, 0, divide_item, &o);
        nodes *= 2;
        memcpy(o.nodes, o.halves, (size_t)nodes * sizeof *o.nodes);
    }
    if (status == SH_OK) status = sh_for_each(context, nodes, 0, subtree_item, &o);
    int32_t *order = x->order + first_panel * SH_PANEL;
    int64_t slots = (x->panel_count - first_panel) * SH_PANEL;
    assert(slots >= o.n && slots < o.n + SH_PANEL);
    for (int64_t i = 0; i < slots; i++) order[i] = i < o.n ? o.points[i].pattern : -1;
    sh_release(context, memory);
    return status;
}
