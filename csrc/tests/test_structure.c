/* The structures: which patterns a query sees, against lists that are made one pattern at a time; and what is refused. */
#include "structure/structure.h"
#include "check.h"

enum { MOST = 130 };

/* Whether the query at a place sees a pattern, by the definition; of random subsets nothing is known. */
static int sees(const sh_structure *s, int64_t place, int64_t pattern) {
    if (s->pairs == SH_PAIRS_WINDOW) {
        const int64_t away = pattern - place;
        int inside = away % s->dilation == 0 && llabs(away / s->dilation) <= s->width;
        for (int64_t i = 0; i < s->column_n; i++) inside |= s->column[i] == pattern;
        return inside && !(s->causal && away > 0);
    }
    const int64_t row = place / s->rows;
    if (s->pairs == SH_PAIRS_DILATED_BLOCKS)
        return pattern / s->rows == row && (pattern - place) % s->dilation == 0 && !(s->causal && pattern > place);
    for (int64_t i = s->start[row]; i < s->start[row + 1]; i++)
        if (pattern / s->columns == s->column[i]) return 1;
    return 0;
}

/* Gathers what a query sees, in a mark for each pattern; returns how many, or -1 if one was named twice. */
static int64_t gather(const sh_structure *s, int64_t patterns, int64_t place, char *marks) {
    int64_t at = 0, piece[SH_PIECE], all = 0, n;
    memset(marks, 0, MOST);
    while ((n = sh_next_pairs(s, patterns, place, &at, piece)) > 0)
        for (int64_t i = 0; i < n; i++) {
            if (piece[i] < 0 || piece[i] >= patterns || marks[piece[i]]++) return -1;
            all++;
        }
    return all;
}

/* Whether stretches name what a place sees: all of it, or all but the patterns that every place sees. */
static int stretches_agree(const sh_structure *s, int64_t patterns, int64_t place, const char *marks) {
    const sh_structure_kind *kind = sh_kind_of(s);
    int64_t at = 0, first, n, begin, end;
    char left[MOST];
    memcpy(left, marks, sizeof left);
    sh_reach(s, patterns, place, place, &begin, &end);
    for (int64_t i = 0; (n = kind->next_stretch(s, patterns, place, &at, &first)) > 0; i++) {
        if (i > 0 && kind->one_stretch) return 0;
        for (int64_t j = 0; j < n; j++) {
            const int64_t pattern = first + j * sh_step(s);
            if (pattern < begin || pattern >= end || !left[pattern]--) return 0;
        }
    }
    for (int64_t j = 0; kind->one_stretch && j < s->column_n; j++) left[s->column[j]] = 0;
    for (int64_t j = 0; j < patterns; j++)
        if (left[j]) return 0;
    return 1;
}

static void pairs(uint64_t *seed) {
    for (int round = 0; round < 600; round++) {
        const int64_t m = 2 + (int64_t)((MOST - 2) * uniform(seed));
        int64_t column[8], start[MOST + 1] = {0}, n = 0;
        static const sh_pairs kinds[] = {SH_PAIRS_WINDOW, SH_PAIRS_BLOCKS, SH_PAIRS_DILATED_BLOCKS};
        sh_structure s = {.pairs = kinds[round % 3]};
        if (s.pairs == SH_PAIRS_WINDOW) {
            s.width = (int64_t)((double)(m + 1) * uniform(seed));
            s.dilation = 1 + round / 3 % 4 % m;
            s.causal = round / 3 & 1;
            for (int64_t j = 0; j < m && n < round % 5; j += 1 + m / 7) column[n++] = j;
            s.column = column;
            s.column_n = n;
        } else if (s.pairs == SH_PAIRS_DILATED_BLOCKS) {
            s.rows = 1 + (int64_t)((double)m * uniform(seed));
            s.dilation = 1 + round / 3 % 4 % m;
            s.causal = round / 3 & 1;
        } else {
            s.columns = 1 + (int64_t)(3 * uniform(seed));
            if (s.columns > m) s.columns = 1;
            s.rows = 1 + (int64_t)(5 * uniform(seed));
            s.start_n = 3;
            for (int64_t r = 0; r < s.start_n; r++) {
                for (int64_t j = r; j < m / s.columns && n < 8 && n < start[r] + 3; j += 2) column[n++] = j;
                start[r + 1] = n;
            }
            s.start = start;
            s.column = column;
            s.column_n = n;
        }
        const int64_t places = s.pairs == SH_PAIRS_BLOCKS ? s.start_n * s.rows : m;
        CHECK(sh_structure_fault(&s, places, m) == NULL);
        CHECK(!strcmp(sh_structure_fault(&s, places + 1, m), "positions"));
        for (int64_t place = 0; place < places; place++) {
            char marks[MOST];
            int64_t want = 0;
            const int64_t got = gather(&s, m, place, marks);
            int same = 1;
            for (int64_t j = 0; j < m; j++) {
                same &= marks[j] == sees(&s, place, j);
                want += sees(&s, place, j);
            }
            CHECK(same && got == want && got <= sh_most_pairs(&s));
            CHECK(stretches_agree(&s, m, place, marks));
        }
    }
}

/* Random subsets: k different patterns, the same for a block of places, others for another seed, all about as often. */
static void random_subsets(void) {
    enum { M = 100, K = 10, PLACES = 3000 };
    sh_structure s = {.pairs = SH_PAIRS_RANDOM, .k = K, .rows = 3, .seed = 7};
    int64_t often[M] = {0};
    char before[MOST], marks[MOST], other[MOST];
    CHECK(sh_structure_fault(&s, INT32_MAX, M) == NULL && sh_most_pairs(&s) == K);
    int alike = 0;
    for (int64_t place = 0; place < PLACES; place++) {
        CHECK(gather(&s, M, place, marks) == K);
        if (place % 3) CHECK(!memcmp(marks, before, M));
        if (place % 3 == 0 && place) alike += !memcmp(marks, before, M);
        memcpy(before, marks, M);
        for (int j = 0; j < M; j++) often[j] += marks[j];
    }
    CHECK(alike == 0);
    /* 1,000 draws of 10 in 100: 100 of each, with a standard deviation below 10 (each counts three times) */
    for (int j = 0; j < M; j++) CHECK(llabs(often[j] - 300) < 150);
    s.seed = 8;
    CHECK(gather(&s, M, 0, other) == K);
    s.seed = 7;
    CHECK(gather(&s, M, 0, marks) == K && memcmp(marks, other, M));
    s.k = M;
    CHECK(gather(&s, M, 5, marks) == M); /* all of them */
    s.k = 1;
    CHECK(gather(&s, 1, 5, marks) == 1);
}

static void in_order(void) {
    const int64_t position[6] = {5, 0, 3, 4, 1, 0};
    sh_structure s = {.pairs = SH_PAIRS_WINDOW, .dilation = 2, .position = position};
    sh_placed c[6];
    CHECK(!sh_in_order(&s, 2, 6, c));
    static const sh_placed want[6] = {{0, 0, 1}, {0, 0, 5}, {0, 2, 3}, {1, 0, 4}, {1, 1, 2}, {1, 2, 0}};
    for (int i = 0; i < 6; i++)
        CHECK(c[i].residue == want[i].residue && c[i].place == want[i].place && c[i].query == want[i].query);
    s.position = NULL;
    CHECK(sh_in_order(&s, 1, 6, c) && c[4].place == 4 && c[4].query == 4 && sh_place(&s, 4) == 4);
}

static void faults(void) {
    static const int64_t good[] = {0, 3}, unsorted[] = {3, 0}, far[] = {0, 10}, below[] = {-1, 3}, start[] = {0, 1, 2},
                         longer[] = {0, 1, 3}, falling[] = {0, 2, 1, 2};
    const struct {
        sh_structure s;
        const char *fault;
    } cases[] = {
        {{.pairs = SH_PAIRS_RANDOM, .k = 0, .rows = 1}, "k"},
        {{.pairs = SH_PAIRS_RANDOM, .k = 11, .rows = 1}, "k"},
        {{.pairs = SH_PAIRS_RANDOM, .k = 1, .rows = 0}, "block"},
        {{.pairs = SH_PAIRS_WINDOW, .width = -1, .dilation = 1}, "w"},
        {{.pairs = SH_PAIRS_WINDOW, .width = 11, .dilation = 1}, "w"},
        {{.pairs = SH_PAIRS_WINDOW, .width = 1, .dilation = 0}, "dilation"},
        {{.pairs = SH_PAIRS_WINDOW, .dilation = 11}, "dilation"},
        {{.pairs = SH_PAIRS_WINDOW, .dilation = 1, .column = unsorted, .column_n = 2}, "global_positions"},
        {{.pairs = SH_PAIRS_WINDOW, .dilation = 1, .column = far, .column_n = 2}, "global_positions"},
        {{.pairs = SH_PAIRS_WINDOW, .dilation = 1, .column = below, .column_n = 2}, "global_positions"},
        {{.pairs = SH_PAIRS_WINDOW, .dilation = 1, .position = far}, "positions"},
        {{.pairs = SH_PAIRS_WINDOW, .dilation = 1, .position = below}, "positions"},
        {{.pairs = SH_PAIRS_BLOCKS,
          .rows = 0,
          .columns = 1,
          .start = start,
          .start_n = 2,
          .column = good,
          .column_n = 2},
         "block"},
        {{.pairs = SH_PAIRS_BLOCKS,
          .rows = 1,
          .columns = 1,
          .start = longer,
          .start_n = 2,
          .column = good,
          .column_n = 2},
         "mask"},
        {{.pairs = SH_PAIRS_BLOCKS,
          .rows = 1,
          .columns = 1,
          .start = falling,
          .start_n = 3,
          .column = good,
          .column_n = 2},
         "mask"},
        {{.pairs = SH_PAIRS_BLOCKS,
          .rows = 1,
          .columns = 5,
          .start = start,
          .start_n = 2,
          .column = good,
          .column_n = 2},
         "mask"},
        {{.pairs = SH_PAIRS_DILATED_BLOCKS, .dilation = 1}, "block"},
        {{.pairs = SH_PAIRS_DILATED_BLOCKS, .dilation = 1, .rows = 11}, "block"},
        {{.pairs = SH_PAIRS_DILATED_BLOCKS, .rows = 2}, "dilation"},
        {{.pairs = SH_PAIRS_DILATED_BLOCKS, .rows = 2, .dilation = 1, .column = good, .column_n = 2},
         "global_positions"},
        {{.pairs = SH_PAIRS_ALL}, "structure"},
        {{.pairs = SH_PAIRS_TOP, .k = 3}, "structure"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *fault = sh_structure_fault(&cases[i].s, 2, 10);
        CHECK(fault && !strcmp(fault, cases[i].fault));
    }
    const sh_structure s = {.pairs = SH_PAIRS_RANDOM, .k = 1, .rows = 1};
    CHECK(!strcmp(sh_structure_fault(&s, 2, (int64_t)INT32_MAX + 1), "patterns"));
}

int main(void) {
    uint64_t seed = 2;
    CHECK_OK(sh_initialise());
    pairs(&seed);
    random_subsets();
    in_order();
    faults();
    return checked("structure");
}
