/* retrieval/index/grow.c: indexes made from another: of more patterns, or with longer codes; and their release. */
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

/* Adds a segment of all patterns from older->patterns on. Segments that are not larger than all that follow join it, so
 * that there are few. Returns the first pattern of the new segment, and in *first_panel its first panel; 0: it is all. */
static int64_t add_segment(sh_index *x, const sh_index *older, int64_t *first_panel) {
    int64_t first = 0, panels = 0;
    for (x->segments = 0; x->segments < older->segments; x->segments++) {
        int64_t next = x->segments + 1, end = next < older->segments ? older->segment_start[next] : older->patterns;
        if (end - first <= x->patterns - end) break;
        x->segment_start[x->segments] = first;
        panels += sh_ceil_div(end - first, SH_PANEL);
        first = end;
    }
    assert(x->segments < SH_SEGMENTS);
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
    x->centre = copy_of(context, older->centre, x->d, sizeof *x->centre);
    x->basis = copy_of(context, older->basis, x->rank * x->d, sizeof *x->basis);
    x->filter.step = copy_of(context, older->filter.step, 2 * x->filter.columns, sizeof(float));
    x->refinement.step = copy_of(context, older->refinement.step, 2 * x->refinement.columns, sizeof(float));
    x->order = sh_allocate(context, x->panel_count * SH_PANEL, sizeof *x->order);
    sh_status status = SH_NO_MEMORY;
    if (sh_take_slots(context, x) && x->centre && x->filter.step && x->order && !x->basis == !older->basis &&
        !x->refinement.step == !older->refinement.step) {
        x->filter.inverse = x->filter.step + x->filter.columns;
        x->refinement.inverse = x->refinement.step ? x->refinement.step + x->refinement.columns : NULL;
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
