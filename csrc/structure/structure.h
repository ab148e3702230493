/* structure.h: which patterns a query looks at (sh_structure). Knows nothing of scores.
 *
 * The place of a query is position[i], or i. Patterns beyond a place's reach are never named. */
#ifndef SH_STRUCTURE_H
#define SH_STRUCTURE_H
#include "sparsehopfield.h"

enum { SH_PIECE = 64 }; /* pairs named at a time */

static inline int64_t sh_place(const sh_structure *s, int64_t query) {
    return s->position ? s->position[query] : query;
}

/* A window that steps over `apart` patterns looks at one lane of them, those of the same remainder; places are counted
 * along the lane. */
typedef struct {
    int64_t lane, place, query;
} sh_caller;

/* n queries in order of lane and place, neighbours side by side; returns whether they already were. */
int sh_in_order(const sh_structure *s, int64_t apart, int64_t n, sh_caller *callers);

/* Steps of `dilation` from a place to the first and the last pattern of its window. */
void sh_window_steps(const sh_structure *s, int64_t patterns, int64_t place, int64_t *least, int64_t *most);

/* The patterns of one query from number *at on, at most SH_PIECE; returns how many, 0 at the end. */
int64_t sh_next_pairs(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *out);

/* The most patterns that a query may look at. */
int64_t sh_most_pairs(const sh_structure *s);

/* The argument that is wrong, or NULL. */
const char *sh_structure_fault(const sh_structure *s, int64_t queries, int64_t patterns);
#endif
