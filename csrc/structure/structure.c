/* structure.c: the kinds of structure, one section each, and the registry of them.
 *
 * To add one: its functions, a row at the end of the registry, and its number in sh_pairs.
 */
#include "structure/structure.h"
#include "runtime/runtime.h"
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

static int64_t places_of_patterns(const sh_structure *s, int64_t patterns) {
    (void)s;
    return patterns;
}

/* --- stretches: one for each place, then the patterns that all see -------------------------------------------------- */

/* Names the patterns of the place's stretch, then those of `column` beyond it. */
static int64_t next_of_stretch(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *out) {
    int64_t first, begun = 0, n = 0;
    const int64_t length = sh_kind_of(s)->next_stretch(s, patterns, place, &begun, &first);
    for (; *at < length && n < SH_PIECE; (*at)++) out[n++] = first + *at * s->dilation;
    for (; *at >= length && *at < length + s->column_n && n < SH_PIECE; (*at)++) {
        const int64_t pattern = s->column[*at - length], away = pattern - first;
        const int inside = away >= 0 && away % s->dilation == 0 && away / s->dilation < length;
        if (!inside && !(s->causal && pattern > place)) out[n++] = pattern;
    }
    return n;
}

/* --- windows (Beltagy, Peters & Cohan 2020): place + t dilation, |t| <= width --------------------------------------- */

static const char *window_fault(const sh_structure *s, int64_t patterns) {
    if (s->width < 0 || s->width > patterns) return "w";
    if (s->dilation < 1 || s->dilation > patterns) return "dilation";
    for (int64_t i = 1; i < s->column_n; i++)
        if (s->column[i - 1] >= s->column[i]) return "global_positions";
    return NULL;
}

static int64_t window_most(const sh_structure *s) { return 2 * s->width + 1 + s->column_n; }

static int64_t window_stretch(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *first) {
    const int64_t reach = s->width * s->dilation, behind = patterns - 1 - place; /* at most patterns squared */
    const int64_t before = place >= reach ? s->width : place / s->dilation;
    const int64_t after = s->causal ? 0 : behind >= reach ? s->width : behind / s->dilation;
    *first = place - before * s->dilation;
    return (*at)++ ? 0 : before + 1 + after;
}

static sh_overlap window_overlap(const sh_structure *s, int64_t a, int64_t b) {
    const int64_t most = sh_max(8, sh_min(s->width / 2, SH_PLACES));
    return a == b ? SH_SAME : (b > a ? b - a : a - b) / s->dilation < most ? SH_OVERLAP : SH_APART;
}

/* --- random subsets: k patterns for every `rows` places -------------------------------------------------------------
 * A subset is the first k of a permutation of the patterns: a Feistel network of SplitMix64's mixing function, which is
 * walked until it is within range (Black & Rogaway 2002). So any of its members costs O(1), and none is stored. */

static uint64_t mixed(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

typedef struct {
    uint64_t key;
    int low; /* bits of the lower half */
    uint64_t low_mask, high_mask;
} permutation;

static const uint64_t GOLDEN = 0x9E3779B97F4A7C15u;

static permutation permutation_of(const sh_structure *s, int64_t patterns, int64_t place) {
    int bits = 0;
    while (bits < 62 && ((int64_t)1 << bits) < patterns) bits++;
    permutation p = {.key = mixed(s->seed + GOLDEN * (uint64_t)(place / s->rows + 1)), .low = bits - bits / 2};
    p.low_mask = ((uint64_t)1 << p.low) - 1;
    p.high_mask = ((uint64_t)1 << bits / 2) - 1;
    return p;
}

static int64_t permuted(const permutation *p, int64_t at, int64_t patterns) {
    enum { ROUNDS = 6 };
    uint64_t x = (uint64_t)at;
    do {
        uint64_t low = x & p->low_mask, high = x >> p->low, key = p->key;
        for (int i = 0; i < ROUNDS; i += 2) {
            low ^= mixed(high + (key += GOLDEN)) & p->low_mask;
            high ^= mixed(low + (key += GOLDEN)) & p->high_mask;
        }
        x = high << p->low | low;
    } while (x >= (uint64_t)patterns);
    return (int64_t)x;
}

static const char *random_fault(const sh_structure *s, int64_t patterns) {
    return s->k < 1 || s->k > patterns ? "k" : s->rows < 1 ? "block" : NULL;
}

static int64_t random_places(const sh_structure *s, int64_t patterns) {
    (void)s, (void)patterns;
    return INT64_MAX;
}

static int64_t random_most(const sh_structure *s) { return s->k; }

static int64_t random_next(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *out) {
    const permutation p = permutation_of(s, patterns, place);
    int64_t n = 0;
    for (; *at < s->k && n < SH_PIECE; (*at)++) out[n++] = permuted(&p, *at, patterns);
    return n;
}

static sh_overlap same_row(const sh_structure *s, int64_t a, int64_t b) {
    return a / s->rows == b / s->rows ? SH_SAME : SH_APART;
}

/* --- blocks: of block row r = place / rows the blocks column[start[r]] .. column[start[r + 1] - 1] ------------------- */

static const char *blocks_fault(const sh_structure *s, int64_t patterns) {
    (void)patterns;
    if (s->rows < 1 || s->columns < 1 || s->start_n < 0 || s->start_n > INT64_MAX / s->rows) return "block";
    if (!s->start || s->start[0] != 0 || s->start[s->start_n] != s->column_n) return "mask";
    for (int64_t i = 0; i < s->start_n; i++) {
        if (s->start[i] > s->start[i + 1]) return "mask";
        for (int64_t j = s->start[i] + 1; j < s->start[i + 1]; j++)
            if (s->column[j - 1] >= s->column[j]) return "mask";
    }
    return NULL;
}

static int64_t blocks_places(const sh_structure *s, int64_t patterns) {
    (void)patterns;
    return s->start_n * s->rows;
}

static int64_t blocks_columns(const sh_structure *s, int64_t patterns) { return patterns / s->columns; }

static int64_t blocks_most(const sh_structure *s) {
    int64_t most = 0;
    for (int64_t i = 0; i < s->start_n; i++) most = sh_max(most, s->start[i + 1] - s->start[i]);
    return most * s->columns;
}

static int64_t blocks_next(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *out) {
    (void)patterns;
    const int64_t row = place / s->rows, end = (s->start[row + 1] - s->start[row]) * s->columns;
    int64_t n = 0;
    for (; *at < end && n < SH_PIECE; (*at)++)
        out[n++] = s->column[s->start[row] + *at / s->columns] * s->columns + *at % s->columns;
    return n;
}

/* Gives a run of neighbouring blocks; *at counts blocks. */
static int64_t blocks_stretch(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *first) {
    (void)patterns;
    const int64_t row = place / s->rows, *column = s->column + s->start[row], n = s->start[row + 1] - s->start[row];
    if (*at >= n) return 0;
    const int64_t begin = column[*at], begun = *at;
    while (++*at < n && column[*at] == column[*at - 1] + 1) continue;
    *first = begin * s->columns;
    return (*at - begun) * s->columns;
}

/* --- dilated blocks (Ding et al. 2023, LongNet): every dilation-th pattern of the place's block of `rows` ------------ */

static const char *dilated_fault(const sh_structure *s, int64_t patterns) {
    if (s->rows < 1 || s->rows > patterns) return "block";
    return s->dilation < 1 || s->dilation > patterns ? "dilation" : NULL;
}

static int64_t dilated_most(const sh_structure *s) { return (s->rows - 1) / s->dilation + 1; }

static int64_t dilated_stretch(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *first) {
    const int64_t begin = place / s->rows * s->rows;
    const int64_t end = s->causal ? place + 1 : begin + sh_min(s->rows, patterns - begin);
    *first = begin + (place - begin) % s->dilation;
    return (*at)++ ? 0 : (end - 1 - *first) / s->dilation + 1;
}

static sh_overlap dilated_overlap(const sh_structure *s, int64_t a, int64_t b) {
    if (a == b) return SH_SAME;
    if (a / s->rows != b / s->rows) return SH_APART;
    return s->causal || (a - b) % s->dilation != 0 ? SH_OVERLAP : SH_SAME;
}

/* --- the registry --------------------------------------------------------------------------------------------------- */

const sh_structure_kind sh_structure_kinds[] = {
    [SH_PAIRS_ALL] = {.name = "Full"},
    [SH_PAIRS_TOP] = {.name = "TopK"},
    [SH_PAIRS_WINDOW] = {.name = "Window",
                         .lists = "global_positions",
                         .fault = window_fault,
                         .places = places_of_patterns,
                         .columns = places_of_patterns,
                         .most = window_most,
                         .next = next_of_stretch,
                         .next_stretch = window_stretch,
                         .one_stretch = 1,
                         .overlap = window_overlap},
    [SH_PAIRS_RANDOM] = {.name = "RandomMask",
                         .lists = "global_positions",
                         .fault = random_fault,
                         .places = random_places,
                         .most = random_most,
                         .next = random_next,
                         .overlap = same_row},
    [SH_PAIRS_BLOCKS] = {.name = "BlockSparse",
                         .lists = "mask",
                         .fault = blocks_fault,
                         .places = blocks_places,
                         .columns = blocks_columns,
                         .most = blocks_most,
                         .next = blocks_next,
                         .next_stretch = blocks_stretch,
                         .fixed_patterns = 1,
                         .overlap = same_row},
    [SH_PAIRS_DILATED_BLOCKS] = {.name = "DilatedBlocks",
                                 .lists = "global_positions",
                                 .fault = dilated_fault,
                                 .places = places_of_patterns,
                                 .most = dilated_most,
                                 .next = next_of_stretch,
                                 .next_stretch = dilated_stretch,
                                 .one_stretch = 1,
                                 .overlap = dilated_overlap},
};
const int sh_structure_count = sizeof sh_structure_kinds / sizeof *sh_structure_kinds;

const sh_structure_kind *sh_kind_of(const sh_structure *s) {
    return (unsigned)s->pairs < (unsigned)sh_structure_count ? &sh_structure_kinds[s->pairs] : NULL;
}

int64_t sh_next_pairs(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *out) {
    assert(place >= 0 && place < sh_kind_of(s)->places(s, patterns));
    return sh_kind_of(s)->next(s, patterns, place, at, out);
}

int64_t sh_most_pairs(const sh_structure *s) { return sh_kind_of(s)->most(s); }

static int by_place(const void *a, const void *b) {
    const sh_placed *x = a, *y = b;
    if (x->residue != y->residue) return (x->residue > y->residue) - (x->residue < y->residue);
    if (x->place != y->place) return (x->place > y->place) - (x->place < y->place);
    return (x->query > y->query) - (x->query < y->query);
}

int sh_in_order(const sh_structure *s, int64_t step, int64_t n, sh_placed *placed) {
    int sorted = 1;
    for (int64_t i = 0; i < n; i++) {
        const int64_t place = sh_place(s, i);
        placed[i] = (sh_placed){place % step, place / step, i};
        sorted &= i == 0 || by_place(&placed[i - 1], &placed[i]) < 0;
    }
    if (!sorted) qsort(placed, (size_t)n, sizeof *placed, by_place);
    return sorted;
}

void sh_reach(const sh_structure *s, int64_t patterns, int64_t low, int64_t high, int64_t *first, int64_t *end) {
    const sh_structure_kind *kind = sh_kind_of(s);
    const int all = !kind->next_stretch || (kind->one_stretch && (s->dilation > 1 || s->column_n > 0));
    *first = all ? 0 : patterns;
    *end = all ? patterns : 0;
    for (int64_t place = low, at = 0, begin, n; !all && place <= high; at = 0) {
        while ((n = kind->next_stretch(s, patterns, place, &at, &begin)) > 0) {
            *first = sh_min(*first, begin);
            *end = sh_max(*end, begin + n);
        }
        /* the first and the last of single stretches hold those between them; a block row is of `rows` places */
        place += kind->one_stretch ? sh_max(high - place, 1) : s->rows - place % s->rows;
    }
    *first = sh_min(*first, *end);
}

const char *sh_structure_fault(const sh_structure *s, int64_t queries, int64_t patterns) {
    const sh_structure_kind *kind = sh_kind_of(s);
    if (!kind || !kind->next) return "structure";
    if (patterns > INT32_MAX) return "patterns";
    if (s->column_n < 0 || (s->column_n > 0 && !s->column)) return kind->lists;
    const char *wrong = kind->fault(s, patterns);
    if (wrong) return wrong;
    const int64_t places = kind->places(s, patterns), columns = kind->columns ? kind->columns(s, patterns) : 0;
    for (int64_t i = 0; i < s->column_n; i++)
        if (s->column[i] < 0 || s->column[i] >= columns) return kind->lists;
    if (!s->position) return queries <= places ? NULL : "positions";
    for (int64_t i = 0; i < queries; i++)
        if (s->position[i] < 0 || s->position[i] >= places) return "positions";
    return NULL;
}
