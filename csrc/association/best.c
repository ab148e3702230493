/* best.c: the k best scores of each query of a tile (structure TOP), ties by the row's number.
 *
 * A lane keeps a list of candidates and a bound that k of them reach; vectors of scores are compared with the bounds of
 * all lanes at once, and what passes, some k log(rows / k) of a lane where rows come in any order, goes to its list. */
#include "trail.h"
#include "../separation/separation.h"
#include <math.h>
#include <string.h>

enum { CHUNK = 64 };

sh_status sh_keep_best(sh_context *context, const sh_trail *t, const sh_crew *crew, const sh_bench *w, int64_t rows,
                       int64_t *n) {
    const int64_t L = t->lanes->lanes, groups = t->groups, k = t->best, room = 2 * k + SH_MARGIN_OF_BEST;
    memset(w->kept, 0, (size_t)(rows * groups) * sizeof *w->kept);
    for (int64_t g = 0; g < groups; g++) {
        int64_t found[SH_MOST_LANES] = {0};
        int32_t list[CHUNK];
        for (int64_t l = 0; l < L; l++) /* -inf is no score; a lane without a query looks at nothing */
            sh_put(t, w->best, l,
                   crew->head[g * L + l] < 0 ? INFINITY
                   : t->lanes->size == 4     ? -0x1.fffffep127
                                             : -0x1.fffffffffffffp1023);
        for (int64_t first = 0; first < rows; first += CHUNK) {
            const char *s = sh_at(w->s, t, first * t->wide + g * L);
            const int64_t some = t->lanes->reaching(s, t->wide, sh_min(CHUNK, rows - first), w->best, list);
            for (int64_t i = 0; i < some; i++)
                for (int64_t l = 0; l < L; l++) {
                    const double score = sh_number(t, s, list[i] * t->wide + l);
                    if (score < sh_number(t, w->best, l) || crew->head[g * L + l] < 0) continue;
                    if (!(score < INFINITY))
                        return sh_fail(context, SH_OVERFLOW, "queries", crew->number[g * L + l] / t->a.heads);
                    sh_candidate *c = w->candidates + l * room;
                    c[found[l]++] = (sh_candidate){score, first + list[i]};
                    if (found[l] < room) continue;
                    found[l] = sh_select_top(c, found[l], k);
                    double bound = INFINITY;
                    for (int64_t j = 0; j < k; j++) bound = fmin(bound, c[j].score);
                    sh_put(t, w->best, l, bound);
                }
        }
        for (int64_t l = 0; l < L; l++) {
            sh_candidate *c = w->candidates + l * room;
            const int64_t kept = sh_select_top(c, found[l], k);
            for (int64_t j = 0; j < kept; j++) w->kept[c[j].position * groups + g] |= (uint16_t)(1u << l);
        }
    }
    *n = 0;
    for (int64_t i = 0; i < rows; i++) { /* entry i is read before it is written */
        int any = 0;
        for (int64_t g = 0; g < groups; g++) any |= w->kept[i * groups + g];
        if (!any) continue;
        uint16_t *kept = w->kept + *n * groups;
        memmove(kept, w->kept + i * groups, (size_t)groups * sizeof *kept);
        memmove(sh_at(w->s, t, *n * t->wide), sh_at(w->s, t, i * t->wide), (size_t)t->wide * t->lanes->size);
        for (int64_t l = 0; l < t->wide; l++)
            if (!(kept[l / L] >> (l % L) & 1)) sh_put(t, w->s, *n * t->wide + l, -INFINITY);
        w->chosen[(*n)++] = (int32_t)i;
    }
    return SH_OK;
}
