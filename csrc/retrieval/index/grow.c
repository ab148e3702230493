/* retrieval/index/grow.c: indexes made from another: of more patterns, of fewer, or with longer codes; and their release. */
#include "retrieval/index/quantise.h"
#include <assert.h>
#include <string.h>

/* Returns an index of one reference with what indexes made from another have in common with it: its numbers, and its
 * quantiser of refinement codes, whose arrays still belong to `other`. */
static sh_index new_from(const sh_index *other) {
    /* field by field: other threads may change the references meanwhile */
    sh_index x = {.references = 1,
                  .kind = other->kind,
                  .patterns = other->patterns,
                  .d = other->d,
                  .scaling = other->scaling,
                  .centre_norm2 = other->centre_norm2,
                  .centre_norm = other->centre_norm,
                  .first_distance = other->first_distance,
                  .rank = other->rank,
                  .boxes_by_distance = other->boxes_by_distance,
                  .refinement = other->refinement,
                  .box_columns = other->box_columns,
                  .box_error = other->box_error,
                  .box_phi = other->box_phi,
                  .record_bytes = other->record_bytes};
    memcpy(x.box_column, other->box_column, sizeof x.box_column);
    return x;
}

/* Returns a copy of an array, or NULL where there is none, or no memory for it. */
static void *copy_of(sh_context *context, const void *from, int64_t n, size_t size) {
    void *to = from ? sh_allocate(context, n, size) : NULL;
    if (to) memcpy(to, from, (size_t)n * size);
    return to;
}

/* Copies what no pattern decides, and allocates the slots. Returns whether there was memory. */
static int copy_quantisers(sh_context *context, sh_index *x, const sh_index *older) {
    x->centre = copy_of(context, older->centre, x->d, sizeof *x->centre);
    x->basis = copy_of(context, older->basis, x->rank * x->d, sizeof *x->basis);
    x->filter.step = copy_of(context, older->filter.step, 2 * x->filter.columns, sizeof(float));
    x->refinement.step = copy_of(context, older->refinement.step, 2 * x->refinement.columns, sizeof(float));
    x->order = sh_allocate(context, x->panel_count * SH_PANEL, sizeof *x->order);
    if (!sh_take_slots(context, x) || !x->centre || !x->filter.step || !x->order || !x->basis != !older->basis ||
        !x->refinement.step != !older->refinement.step)
        return 0;
    x->filter.inverse = x->filter.step + x->filter.columns;
    x->refinement.inverse = x->refinement.step ? x->refinement.step + x->refinement.columns : NULL;
    return 1;
}

/* Adds a segment of all patterns from older->patterns on. Segments that are not larger than all that follow join it, so
 * that there are few. Returns the first pattern of the new segment, and in *first_panel its first panel; 0: it is all. */
static int64_t add_segment(sh_index *x, const sh_index *older, int64_t *first_panel) {
    int64_t first = 0, panels = 0;
    for (x->segments = 0; x->segments < older->segments; x->segments++) {
        int64_t next = x->segments + 1, end = next < older->segments ? older->segment_start[next] : older->patterns;
        if (end - first <= x->patterns - end) break;
        x->segment_start[x->segments] = first;
        x->segment_panel[x->segments] = panels;
        panels = next < older->segments ? older->segment_panel[next] : older->panel_count;
        first = end;
    }
    assert(x->segments < SH_SEGMENTS);
    x->segment_panel[x->segments] = panels;
    x->segment_start[x->segments++] = first;
    x->panel_count = panels + sh_ceil_div(x->patterns - first, SH_PANEL);
    *first_panel = panels;
    return first;
}

sh_status sh_index_grow(sh_context *context, const sh_memory *m, const sh_index *older, int64_t most_bytes,
                        sh_index **index) {
    *index = NULL;
    assert(!older->base && !older->features && older->patterns <= m->patterns.n);
    int64_t n = m->patterns.n, kept;
    if (n > INT32_MAX - SH_PANEL * SH_SEGMENTS || !(sh_largest_distance(older, m) * older->scaling <= 1)) return SH_OK;
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    if (!x) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    *x = new_from(older);
    x->patterns = n;
    x->filter = older->filter;
    x->quads = older->quads;
    int64_t first = add_segment(x, older, &kept);
    x->bytes = sh_index_total_bytes(x);
    if (first == 0 || x->bytes > (uint64_t)most_bytes) {
        sh_release(context, x);
        return first == 0 ? SH_OK : sh_fail(context, SH_NO_MEMORY, NULL, 0);
    }
    sh_status status = SH_NO_MEMORY;
    if (copy_quantisers(context, x, older)) {
        memcpy(x->panels, older->panels, (size_t)kept * sh_panel_bytes(x->quads));
        memcpy(x->scales, older->scales, (size_t)kept * sizeof *x->scales);
        memcpy(x->order, older->order, (size_t)(kept * SH_PANEL) * sizeof *x->order);
        memcpy(x->boxes, older->boxes, (size_t)(sh_ceil_div(kept, SH_GROUP) * SH_GROUP_FLOATS) * sizeof *x->boxes);
        if (x->records) memcpy(x->records, older->records, (size_t)(kept * SH_PANEL) * x->record_bytes);
        status = sh_order_patterns(context, x, m, first, kept);
        if (status == SH_OK) status = sh_encode_patterns(context, x, m, kept);
    } else {
        sh_fail(context, SH_NO_MEMORY, NULL, 0);
    }
    if (status == SH_OK)
        *index = x;
    else
        sh_index_free(context, x);
    return status;
}

/* --- fewer patterns ------------------------------------------------------------------------------- */

enum { PACKED_PANELS = 256 }; /* of an item of work */

/* A copy of an index without the patterns that are removed from a memory. */
typedef struct {
    const sh_memory *other;
    const sh_index *older;
    sh_index *x;
    int64_t *panel; /* (the older one's panels) the first of x that is not of an earlier one of these */
} packing;

/* Lists the slots of a panel whose patterns are left; returns how many. */
static int left_slots(const packing *p, int64_t panel, int slot[SH_PANEL]) {
    const int32_t *order = p->older->order + panel * SH_PANEL;
    int n = 0;
    for (int i = 0; i < SH_PANEL; i++)
        if (order[i] >= 0 && !sh_is_removed(p->other, order[i])) slot[n++] = i;
    return n;
}

/* Copies the filter codes of n slots, with error radii and biases, to the first slots of a panel. */
static void pack_codes(const sh_index *older, int64_t from_panel, const int *slot, int n, sh_index *x, int64_t panel) {
    const uint8_t *from = older->panels + (size_t)from_panel * sh_panel_bytes(x->quads);
    uint8_t *to = x->panels + (size_t)panel * sh_panel_bytes(x->quads);
    const float lowest = -INFINITY;
    memset(to, 128, (size_t)x->quads * 4 * SH_PANEL); /* the code of zeros in empty slots, */
    memset(to + x->quads * 4 * SH_PANEL, 0, 4 * SH_PANEL);
    for (int i = n; i < SH_PANEL; i++) memcpy(to + ((x->quads + 1) * SH_PANEL + i) * 4, &lowest, 4); /* never found */
    for (int64_t row = 0; row < x->quads + 2; row++)
        for (int i = 0; i < n; i++) memcpy(to + (row * SH_PANEL + i) * 4, from + (row * SH_PANEL + slot[i]) * 4, 4);
    x->scales[panel] = older->scales[from_panel];
}

/* Copies the box of a panel, or, of one that there is not, makes it. */
static void pack_box(const float *from, int64_t from_panel, sh_index *x, int64_t panel) {
    float *to = x->boxes + panel / SH_GROUP * SH_GROUP_FLOATS + panel % SH_GROUP;
    if (from) from += from_panel / SH_GROUP * SH_GROUP_FLOATS + from_panel % SH_GROUP;
    for (int i = 0; i < 2 * SH_BOX_COLUMNS + 1; i++)
        to[i * SH_GROUP] = from ? from[i * SH_GROUP] : i < 2 * SH_BOX_COLUMNS ? 0 : -INFINITY;
}

/* Copies some panels. */
static sh_status pack_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const packing *p = pointer;
    const sh_index *older = p->older;
    sh_index *x = p->x;
    for (int64_t from = item * PACKED_PANELS; from < sh_min((item + 1) * PACKED_PANELS, older->panel_count); from++) {
        int slot[SH_PANEL];
        const int n = left_slots(p, from, slot);
        const int64_t panel = p->panel[from];
        if (n == 0) continue;
        pack_codes(older, from, slot, n, x, panel);
        if (x->base) continue;
        pack_box(older->boxes, from, x, panel);
        for (int i = 0; i < SH_PANEL; i++)
            x->order[panel * SH_PANEL + i] =
                i < n ? (int32_t)sh_position_of(p->other, older->order[from * SH_PANEL + slot[i]]) : -1;
        for (int i = 0; x->records && i < n; i++)
            memcpy(x->records + (size_t)(panel * SH_PANEL + i) * x->record_bytes,
                   older->records + (size_t)(from * SH_PANEL + slot[i]) * x->record_bytes, x->record_bytes);
    }
    return SH_OK;
}

/* Sets segments and panels. */
static void pack_segments(packing *p) {
    const sh_index *older = p->older;
    sh_index *x = p->x;
    int slot[SH_PANEL];
    x->panel_count = 0;
    for (int64_t i = 0; i < older->panel_count; i++) {
        p->panel[i] = x->panel_count;
        x->panel_count += left_slots(p, i, slot) > 0;
    }
    x->segments = 0;
    for (int64_t i = 0; i < older->segments; i++) {
        const int64_t next = i + 1 < older->segments ? older->segment_start[i + 1] : older->patterns;
        const int64_t start = sh_position_of(p->other, older->segment_start[i]);
        if (start == sh_position_of(p->other, next)) continue; /* none of its patterns is left */
        x->segment_start[x->segments] = start;
        x->segment_panel[x->segments++] = p->panel[older->segment_panel[i]];
    }
}

/* Sets what depends on which pattern is the first. Returns whether the patterns of a memory fit the scaling. */
static int fits(sh_index *x, const sh_index *older, const sh_memory *m) {
    if (m->centre) { /* which is the first pattern, of the compute type */
        double distance2 = 0, element;
        for (int64_t j = 0; j < x->d; j++) {
            m->k->to_double(&element, sh_at(m->k, m->centre, j), 1);
            distance2 += (element - older->centre[j]) * (element - older->centre[j]);
        }
        x->first_distance = sqrt(distance2) * (1 + 1e-9);
    }
    return sh_largest_distance(x, m) * x->scaling <= 1;
}

sh_status sh_index_pack(sh_context *context, const sh_memory *m, const sh_memory *other, const sh_index *older,
                        sh_index *base, int64_t most_bytes, sh_index **index) {
    *index = NULL;
    assert(!older->features && !older->base == !base && m->patterns.n == sh_count(other));
    assert(older->patterns == other->patterns.n);
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    packing p = {.other = other, .older = older, .x = x};
    p.panel = sh_allocate(context, older->panel_count, sizeof *p.panel);
    sh_status status = SH_OK;
    if (!x || !p.panel) {
        sh_release(context, x);
        x = NULL;
        status = SH_NO_MEMORY;
    } else {
        *x = base ? sh_share_base(base) : new_from(older);
        x->patterns = m->patterns.n;
        x->filter = older->filter;
        x->quads = older->quads;
        pack_segments(&p);
        x->bytes = sh_index_total_bytes(x);
        const int is_loose = 3 * (x->panel_count - x->segments) > 4 * sh_ceil_div(x->patterns, SH_PANEL);
        if (x->bytes > (uint64_t)most_bytes)
            status = SH_NO_MEMORY;
        else if (!base && (is_loose || !fits(x, older, m)))
            status = SH_UNDEFINED;
        if (status != SH_OK) {
            sh_index_free(context, base);
            sh_release(context, x);
            x = NULL;
        }
    }
    if (status == SH_OK && base) {
        x->filter.step = copy_of(context, older->filter.step, 2 * x->filter.columns, sizeof(float));
        if (!sh_take_slots(context, x) || !x->filter.step) status = SH_NO_MEMORY;
        x->filter.inverse = x->filter.step ? x->filter.step + x->filter.columns : NULL;
    } else if (status == SH_OK && !copy_quantisers(context, x, older)) {
        status = SH_NO_MEMORY;
    }
    if (status == SH_OK)
        status = sh_for_each(context, sh_ceil_div(older->panel_count, PACKED_PANELS), 0, pack_item, &p);
    for (int64_t i = status == SH_OK && !base ? x->panel_count : 0; i % SH_GROUP; i++) pack_box(NULL, 0, x, i);
    sh_release(context, p.panel);
    if (status == SH_OK)
        *index = x;
    else
        sh_index_free(context, x);
    if (status == SH_NO_MEMORY) return sh_fail(context, status, NULL, 0);
    return status == SH_UNDEFINED ? SH_OK : status;
}

sh_status sh_memory_pack_index(sh_context *context, const sh_memory *m, const sh_memory *other) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context,
               other && m->patterns.n == sh_count(other) && m->patterns.d == other->patterns.d && !m->removed &&
                   m->type == other->type && m->similarity == other->similarity,
               "other");
    sh_index *packed[SH_INDEXES] = {NULL};
    sh_status status = SH_OK;
    for (int i = 0; i < SH_INDEXES && status == SH_OK && m->indexes->use != SH_INDEX_NEVER; i++) {
        const sh_index *older = atomic_load(&other->indexes->index[i]);
        sh_index *base = i == SH_LONGER_INDEX ? packed[SH_LEADING_INDEX] : NULL;
        if (!older || atomic_load(&m->indexes->index[i]) || !older->base != !base) continue;
        if (base && older->base != atomic_load(&other->indexes->index[SH_LEADING_INDEX])) continue;
        status = sh_index_pack(context, m, other, older, base, sh_index_budget(m->indexes->use), &packed[i]);
        if (status == SH_NO_MEMORY) status = SH_OK; /* then it is built when it pays */
    }
    for (int i = 0; i < SH_INDEXES; i++) {
        sh_index *none = NULL;
        if (status == SH_OK && packed[i] && atomic_compare_exchange_strong(&m->indexes->index[i], &none, packed[i]))
            continue;
        sh_index_free(context, packed[i]);
    }
    return status;
}

/* --- longer codes --------------------------------------------------------------------------------- */

sh_index sh_share_base(sh_index *base) {
    sh_index_retain(base);
    sh_index x = new_from(base);
    x.base = base;
    x.centre = base->centre;
    x.basis = base->basis;
    x.records = base->records;
    x.order = base->order;
    x.boxes = base->boxes;
    x.panel_count = base->panel_count;
    return x;
}

sh_status sh_index_lengthen_codes(sh_context *context, const sh_memory *m, sh_index *base, int64_t most_bytes,
                                  sh_index **index) {
    *index = NULL;
    if (!base->basis || base->features || base->rank < SH_LONG_CODE || base->refinement.columns <= SH_LONG_CODE)
        return SH_OK;
    if ((double)base->patterns * (SH_LONG_CODE + 8) > (double)most_bytes)
        return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    if (!x) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    *x = sh_share_base(base);
    x->quads = SH_LONG_CODE / 4;
    sh_status status = SH_OK;
    if (!sh_take_slots(context, x) || !sh_quantiser_new(context, &x->filter, SH_LONG_CODE, 1, base->filter.eta, x->d))
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    if (status == SH_OK) status = sh_fit_quantisers(context, x, m, sh_min(x->patterns, SH_SAMPLED_QUERIES));
    if (status == SH_OK) status = sh_encode_patterns(context, x, m, 0);
    x->bytes = sh_index_total_bytes(x);
    if (status == SH_OK)
        *index = x;
    else
        sh_index_free(context, x);
    return status;
}

void sh_index_free(sh_context *context, sh_index *x) {
    if (!x || atomic_fetch_sub(&x->references, 1) > 1) return;
    if (!x->borrowed) {
        sh_release(context, x->filter.step);
        sh_release(context, x->panels);
        sh_release(context, x->scales);
    }
    if (x->base) {
        sh_index_free(context, x->base);
    } else if (!x->borrowed) {
        sh_release(context, x->features);
        sh_release(context, x->centre);
        sh_release(context, x->basis);
        sh_release(context, x->refinement.step);
        sh_release(context, x->order);
        sh_release(context, x->boxes);
        sh_release(context, x->records);
    }
    sh_release(context, x);
}

int sh_may_add_all_columns(const sh_memory *m, const sh_index *leading) {
    int64_t d = m->patterns.d;
    double row_bytes = (double)(d * (int64_t)m->k->size);
    return leading->kind == SH_LEADING_COLUMNS && leading->basis && d <= SH_MOST_FEATURES &&
           (double)leading->bytes / (double)leading->patterns + (double)(d + 8) <= 0.4 * row_bytes;
}
