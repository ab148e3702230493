/* structure.h: which patterns a query sees (sh_structure), whatever their scores.
 *
 * The place of a query is position[i], or i. Patterns whose positions differ by multiples of the structure's step are a
 * residue class. A structure's row in the registry says all that the operations ask of it: they have no branch on its
 * kind. */
#ifndef SH_STRUCTURE_H
#define SH_STRUCTURE_H
#include "sparsehopfield.h"

enum {
    SH_PIECE = 64,        /* pairs named at a time */
    SH_SHARED_PLACES = 4, /* fewer places than these that see the same patterns are not worth a block of scores */
    SH_PLACES = 64        /* places whose scores are computed as one block, at most */
};

/* How much the patterns of two places have in common: too little to be scored as a block, much, or all. */
typedef enum { SH_APART, SH_OVERLAP, SH_SAME } sh_overlap;

/* A row of the registry. Functions take a structure without fault; `patterns` is how many there are, `place` lies below
 * places(), and pointers to an order count up from 0. */
typedef struct {
    const char *name; /* the class in Python */
    /* Returns the field that is wrong by its name in Python, or NULL; `position` and the order of `column` aside. */
    const char *(*fault)(const sh_structure *s, int64_t patterns);
    const char *lists; /* the name in Python of `column` */
    /* Returns the number of places there are, and the number that entries of `column` lie below. */
    int64_t (*places)(const sh_structure *s, int64_t patterns), (*columns)(const sh_structure *s, int64_t patterns);
    /* Returns the most patterns that a place may see. */
    int64_t (*most)(const sh_structure *s);
    /* Names the patterns of a place from number *at on; returns how many. Fewer than SH_PIECE, the most, are the last. */
    int64_t (*next)(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *out);
    /* Gives the next stretch of a place's patterns: *first, *first + step, ...; returns how many, 0 at the end.
     * NULL: patterns lie scattered. */
    int64_t (*next_stretch)(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *first);
    /* Whether each place has one stretch, whose ends never fall from one place of a residue class to the next; `next`
     * names its patterns first. Otherwise stretches hold all patterns, and steps are 1. */
    int one_stretch;
    /* Whether it is for one number of patterns alone; others may be fewer in some sets of a call. */
    int fixed_patterns;
    /* Compares two places, of one residue class unless they see the same patterns. */
    sh_overlap (*overlap)(const sh_structure *s, int64_t a, int64_t b);
} sh_structure_kind;

/* The rows, by number (sh_pairs). Rows without `next` are not decided by places: all pairs, and the k best. */
extern const sh_structure_kind sh_structure_kinds[];
extern const int sh_structure_count;

/* Returns the row of a structure, or NULL where there is none of its number. */
const sh_structure_kind *sh_kind_of(const sh_structure *s);

/* Tells whether places decide what queries see. A structure of an unknown kind counts as one; it has a fault. */
static inline int sh_by_place(const sh_structure *s) {
    const sh_structure_kind *kind = s ? sh_kind_of(s) : NULL;
    return s && (!kind || kind->next);
}

static inline int64_t sh_place(const sh_structure *s, int64_t query) {
    return s->position ? s->position[query] : query;
}

/* Returns the distance of neighbours in a residue class. */
static inline int64_t sh_step(const sh_structure *s) { return sh_kind_of(s)->one_stretch ? s->dilation : 1; }

/* Tells whether neighbouring places hardly share any patterns, so that each is better taken by itself. */
static inline int sh_is_per_query(const sh_structure *s) {
    return !sh_kind_of(s)->one_stretch && s->rows < SH_SHARED_PLACES;
}

/* A query's place, as the residue class that it lies in and its number there. */
typedef struct {
    int64_t residue, place, query;
} sh_placed;

/* Sorts n queries by residue class of a step, then place; returns whether they already were. */
int sh_in_order(const sh_structure *s, int64_t step, int64_t n, sh_placed *placed);

/* Names the patterns of a place from number *at on; returns how many. Fewer than SH_PIECE, the most, are the last. */
int64_t sh_next_pairs(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *out);

/* Returns the most patterns that a query may see. */
int64_t sh_most_pairs(const sh_structure *s);

/* Finds a stretch of patterns, *first .. *end - 1, that holds all that places low .. high see; all patterns where
 * no other is known. */
void sh_reach(const sh_structure *s, int64_t patterns, int64_t low, int64_t high, int64_t *first, int64_t *end);

/* Returns the argument that is wrong, or NULL. */
const char *sh_structure_fault(const sh_structure *s, int64_t queries, int64_t patterns);
#endif
