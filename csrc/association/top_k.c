/* top_k.c: the k best scores of each query of a tile (structure TOP), ties by the row's number. */
#include "association/tape.h"
#include <math.h>
#include <string.h>

sh_status sh_keep_best(sh_context *context, const sh_trail *t, const sh_crew *crew, const sh_bench *w, int64_t rows,
                       int64_t *n) {
    const int64_t L = t->lanes->lanes, groups = t->groups;
    for (int64_t g = 0; g < groups; g++) {
        char *s = sh_at(w->s, t, g * L);
        if (t->lanes->keep_best(s, t->wide, rows, t->best, w->kept + g, groups, w->p)) continue;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t l = 0; l < L; l++)
                if (crew->head[g * L + l] >= 0 && !(sh_number(t, s, i * t->wide + l) < INFINITY))
                    return sh_fail(context, SH_OVERFLOW, "queries", crew->number[g * L + l] / t->a.heads);
    }
    *n = 0;
    for (int64_t i = 0; i < rows; i++) { /* rows that no lane keeps go; entry i is read before it is written */
        int any = 0;
        for (int64_t g = 0; g < groups; g++) any |= w->kept[i * groups + g];
        if (!any) continue;
        memmove(w->kept + *n * groups, w->kept + i * groups, (size_t)groups * sizeof *w->kept);
        memmove(sh_at(w->s, t, *n * t->wide), sh_at(w->s, t, i * t->wide), (size_t)t->wide * t->lanes->size);
        w->chosen[(*n)++] = (int32_t)i;
    }
    return SH_OK;
}
