/* retrieval/index/grow.c: indexes made from others, and their release. */
#include "retrieval/index/quantise.h"
#include <string.h>

static void *copy_of(sh_context *context, const void *from, int64_t n, size_t size) {
    void *to = from ? sh_allocate(context, n, size) : NULL;
    if (to) memcpy(to, from, (size_t)n * size);
    return to;
}

sh_status sh_index_grow(sh_context *context, const sh_memory *m, const sh_index *older, int64_t most,
                        sh_index **index) {
    *index = NULL;
    int64_t n = m->patterns.n, first = older->patterns / SH_CODED_ROWS, ready = first * SH_CODED_ROWS;
    if (n > 2 * older->patterns || n > INT32_MAX - SH_GROUP || !(sh_farthest(older, m) * older->power <= 1))
        return SH_OK;
    if ((double)older->bytes / (double)older->patterns * (double)n > (double)most)
        return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    if (!x) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    *x = (sh_index){.references = 1, /* others may take hold of the older one, or give it up, meanwhile */
                    .kind = older->kind,
                    .patterns = n,
                    .d = older->d,
                    .power = older->power,
                    .centre2 = older->centre2,
                    .first_apart = older->first_apart,
                    .centre_norm = older->centre_norm,
                    .rank = older->rank,
                    .first = older->first,
                    .second = older->second,
                    .quads = older->quads,
                    .line_bytes = older->line_bytes};
    x->centre = copy_of(context, older->centre, x->d, sizeof *x->centre);
    x->basis = copy_of(context, older->basis, x->rank * x->d, sizeof *x->basis);
    x->first.step = copy_of(context, older->first.step, 2 * x->first.columns, sizeof(float));
    x->second.step = copy_of(context, older->second.step, 2 * x->second.columns, sizeof(float));
    size_t group = sh_group_bytes(x->quads);
    x->groups = sh_allocate(context, sh_ceil_div(n, SH_GROUP), group);
    x->lines = older->lines ? sh_allocate(context, n, x->line_bytes) : NULL;
    x->bytes = sh_index_total_bytes(x);
    sh_status status = SH_NO_MEMORY;
    if (x->centre && x->first.step && x->groups && !x->basis == !older->basis &&
        !x->second.step == !older->second.step && !x->lines == !older->lines) {
        x->first.inverse = x->first.step + x->first.columns;
        x->second.inverse = x->second.step ? x->second.step + x->second.columns : NULL;
        memcpy(x->groups, older->groups, (size_t)(ready / SH_GROUP) * group);
        if (x->lines) memcpy(x->lines, older->lines, (size_t)ready * x->line_bytes);
        status = sh_quantise_patterns(context, x, m, first);
    } else {
        sh_fail(context, SH_NO_MEMORY, NULL, 0);
    }
    if (status == SH_OK)
        *index = x;
    else
        sh_index_free(context, x);
    return status;
}

sh_status sh_index_widen(sh_context *context, const sh_memory *m, sh_index *base, int64_t most, sh_index **index) {
    *index = NULL;
    if (!base->basis || base->kept || base->rank < SH_WIDE || base->second.columns <= SH_WIDE) return SH_OK;
    if ((double)base->patterns * (SH_WIDE + 8) > (double)most) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    if (!x) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    atomic_fetch_add(&base->references, 1);
    *x = (sh_index){.references = 1,
                    .base = base,
                    .kind = base->kind,
                    .patterns = base->patterns,
                    .d = base->d,
                    .power = base->power,
                    .centre = base->centre,
                    .centre2 = base->centre2,
                    .first_apart = base->first_apart,
                    .centre_norm = base->centre_norm,
                    .rank = base->rank,
                    .basis = base->basis,
                    .second = base->second,
                    .quads = SH_WIDE / 4,
                    .line_bytes = base->line_bytes,
                    .lines = base->lines};
    int64_t n = sh_min(x->patterns, SH_ASKERS), d = x->d;
    char *work = sh_allocate(context, 1, sh_row_bytes(x, m)), *more = sh_allocate(context, 1, sh_project_bytes(x, n));
    float *y = sh_allocate(context, n * d, sizeof(float)), *a = sh_allocate(context, n * x->rank, sizeof(float));
    double *length2 = sh_allocate(context, n, sizeof(double));
    int8_t *code = sh_allocate(context, SH_WIDE, 1);
    sh_status status = SH_NO_MEMORY;
    x->groups = sh_allocate(context, sh_ceil_div(x->patterns, SH_GROUP), sh_group_bytes(x->quads));
    if (!work || !more || !y || !a || !length2 || !code || !x->groups) goto done;
    if (!sh_quantiser_new(context, &x->first, SH_WIDE, 1, base->first.eta, d)) goto done;
    for (int64_t i = 0; i < n; i++) {
        status = sh_load_pattern(context, x, m, i * x->patterns / n, y + i * d, work, &length2[i]);
        if (status != SH_OK) goto done;
    }
    status = SH_NO_MEMORY;
    sh_project(x, y, n, a, more);
    sh_fit_quantiser(&x->first, 1, a, x->rank, length2, n, code);
    x->bytes = (size_t)sh_ceil_div(x->patterns, SH_GROUP) * sh_group_bytes(x->quads) + 2 * SH_WIDE * sizeof(float);
    status = sh_quantise_patterns(context, x, m, 0);
done:
    sh_release(context, work);
    sh_release(context, more);
    sh_release(context, y);
    sh_release(context, a);
    sh_release(context, length2);
    sh_release(context, code);
    if (status == SH_OK)
        *index = x;
    else
        sh_index_free(context, x);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

void sh_index_free(sh_context *context, sh_index *x) {
    if (!x || atomic_fetch_sub(&x->references, 1) > 1) return;
    sh_release(context, x->first.step);
    sh_release(context, x->groups);
    if (x->base) {
        sh_index_free(context, x->base);
    } else {
        sh_release(context, x->kept);
        sh_release(context, x->centre);
        sh_release(context, x->basis);
        sh_release(context, x->second.step);
        sh_release(context, x->lines);
    }
    sh_release(context, x);
}

int sh_index_may_add_columns(const sh_memory *m, const sh_index *lines) {
    int64_t d = m->patterns.d;
    double row = (double)(d * (int64_t)m->k->size);
    return lines->kind == SH_LINES && lines->basis && d <= SH_MAX_SUM &&
           (double)lines->bytes / (double)lines->patterns + (double)(d + 8) <= 0.4 * row;
}
