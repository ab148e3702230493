/* top_k.c: the k best scores of each query of a tile (SH_PAIRS_TOP), ties by the row's number. */
#include "association/tape.h"
#include <math.h>
#include <string.h>

sh_status sh_select_top_k(sh_context *context, const sh_tape *t, const sh_tile_queries *q, const sh_scratch *w,
                          int64_t rows, char *space, int64_t *n) {
    const int64_t L = t->lanes->lanes, vectors = t->vectors, width = t->width;
    for (int64_t g = 0; g < vectors; g++) {
        char *s = sh_at(w->s, t, g * L);
        if (t->lanes->keep_best(s, width, rows, t->top_k, w->top_lanes + g, vectors, space)) continue;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t l = 0; l < L; l++)
                if (q->head[g * L + l] >= 0 && !(sh_get(t, s, i * width + l) < INFINITY))
                    return sh_fail(context, SH_OVERFLOW, "queries", q->number[g * L + l] / t->a.heads);
    }
    *n = 0;
    for (int64_t i = 0; i < rows; i++) { /* entry i is read before it is overwritten, as *n <= i */
        int any = 0;
        for (int64_t g = 0; g < vectors; g++) any |= w->top_lanes[i * vectors + g];
        if (!any) continue;
        memmove(w->top_lanes + *n * vectors, w->top_lanes + i * vectors, (size_t)vectors * sizeof *w->top_lanes);
        memmove(sh_at(w->s, t, *n * width), sh_at(w->s, t, i * width), (size_t)width * t->lanes->size);
        w->top_rows[(*n)++] = (int32_t)i;
    }
    return SH_OK;
}
