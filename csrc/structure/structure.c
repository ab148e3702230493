/* structure.c: windows, random subsets and blocks, pattern by pattern.
 *
 * A random subset is the first k of a permutation of the patterns, a Feistel network of SplitMix64's mixing function that
 * is walked until it is within range; so any of its members costs O(1), and none is stored.
 *
 * Source Beltagy, Peters & Cohan 2020 (windows); Black & Rogaway 2002 (walking)
 */
#include "structure/structure.h"
#include "runtime/runtime.h"
#include <stddef.h>
#include <stdlib.h>

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

static int by_place(const void *a, const void *b) {
    const sh_caller *x = a, *y = b;
    if (x->lane != y->lane) return (x->lane > y->lane) - (x->lane < y->lane);
    if (x->place != y->place) return (x->place > y->place) - (x->place < y->place);
    return (x->query > y->query) - (x->query < y->query);
}

int sh_in_order(const sh_structure *s, int64_t apart, int64_t n, sh_caller *callers) {
    int sorted = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t place = sh_place(s, i);
        callers[i] = (sh_caller){place % apart, place / apart, i};
        sorted &= i == 0 || by_place(&callers[i - 1], &callers[i]) < 0;
    }
    if (!sorted) qsort(callers, (size_t)n, sizeof *callers, by_place);
    return sorted;
}

void sh_window_steps(const sh_structure *s, int64_t patterns, int64_t place, int64_t *least, int64_t *most) {
    *least = -sh_min(s->width, place / s->dilation);
    *most = s->causal ? 0 : sh_min(s->width, (patterns - 1 - place) / s->dilation);
}

int64_t sh_next_pairs(const sh_structure *s, int64_t patterns, int64_t place, int64_t *at, int64_t *out) {
    int64_t n = 0;
    if (s->pairs == SH_PAIRS_RANDOM) {
        permutation p = permutation_of(s, patterns, place);
        for (; *at < s->k && n < SH_PIECE; (*at)++) out[n++] = permuted(&p, *at, patterns);
    } else if (s->pairs == SH_PAIRS_WINDOW) {
        int64_t least, most, inside;
        sh_window_steps(s, patterns, place, &least, &most);
        inside = most - least + 1;
        for (; *at < inside && n < SH_PIECE; (*at)++) out[n++] = place + (least + *at) * s->dilation;
        for (; *at >= inside && *at < inside + s->column_n && n < SH_PIECE; (*at)++) {
            int64_t away = s->column[*at - inside] - place, steps = away / s->dilation;
            int in_window = away % s->dilation == 0 && steps >= least && steps <= most;
            if (!in_window && !(s->causal && away > 0)) out[n++] = place + away;
        }
    } else {
        int64_t row = place / s->rows, end = (s->start[row + 1] - s->start[row]) * s->columns;
        for (; *at < end && n < SH_PIECE; (*at)++)
            out[n++] = s->column[s->start[row] + *at / s->columns] * s->columns + *at % s->columns;
    }
    return n;
}

int64_t sh_most_pairs(const sh_structure *s) {
    if (s->pairs == SH_PAIRS_RANDOM) return s->k;
    if (s->pairs == SH_PAIRS_WINDOW) return 2 * s->width + 1 + s->column_n;
    int64_t most = 0;
    for (int64_t i = 0; i < s->start_n; i++) most = sh_max(most, s->start[i + 1] - s->start[i]);
    return most * s->columns;
}

const char *sh_structure_fault(const sh_structure *s, int64_t queries, int64_t patterns) {
    int64_t places = s->pairs == SH_PAIRS_RANDOM ? INT64_MAX : s->pairs == SH_PAIRS_WINDOW ? patterns : 0, columns = 0;
    if (patterns > INT32_MAX) return "patterns";
    if (s->column_n < 0 || (s->column_n > 0 && !s->column))
        return s->pairs == SH_PAIRS_BLOCKS ? "mask" : "global_positions";
    if (s->pairs == SH_PAIRS_RANDOM) {
        if (s->k < 1 || s->k > patterns) return "k";
        if (s->rows < 1) return "block";
    } else if (s->pairs == SH_PAIRS_WINDOW) {
        if (s->width < 0 || s->width > patterns) return "w";
        if (s->dilation < 1 || s->dilation > patterns) return "dilation";
        columns = patterns;
        for (int64_t i = 1; i < s->column_n; i++)
            if (s->column[i - 1] >= s->column[i]) return "global_positions";
    } else if (s->pairs == SH_PAIRS_BLOCKS) {
        if (s->rows < 1 || s->columns < 1 || s->start_n < 0 || s->start_n > INT64_MAX / s->rows) return "block";
        places = s->start_n * s->rows;
        columns = patterns / s->columns;
        if (!s->start || s->start[0] != 0 || s->start[s->start_n] != s->column_n) return "mask";
        for (int64_t i = 0; i < s->start_n; i++) {
            if (s->start[i] > s->start[i + 1]) return "mask";
            for (int64_t j = s->start[i] + 1; j < s->start[i + 1]; j++)
                if (s->column[j - 1] >= s->column[j]) return "mask";
        }
    } else {
        return "structure";
    }
    for (int64_t i = 0; i < s->column_n; i++)
        if (s->column[i] < 0 || s->column[i] >= columns)
            return s->pairs == SH_PAIRS_BLOCKS ? "mask" : "global_positions";
    if (!s->position) return queries <= places ? NULL : "positions";
    for (int64_t i = 0; i < queries; i++)
        if (s->position[i] < 0 || s->position[i] >= places) return "positions";
    return NULL;
}
