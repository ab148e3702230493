/* codes.h: the inner loops of an index (retrieval/index/index.h): making 8-bit codes, comparing bounds with thresholds.
 *
 * Filter codes lie in panels of SH_PANEL patterns. A panel is
 *
 *     quads x SH_PANEL x 4 bytes   for every four columns (a "quad") 4 bytes of each pattern in turn: codes + 128
 *     SH_PANEL floats              error radii
 *     SH_PANEL floats              biases
 *
 * and each has a scale. A query's code is signed, and
 *
 *     bound of pattern i = step scale (code . code_i) + error_radius error_radius_i + bias_i.
 *
 * A pattern is told by its slot: 64 times its panel, plus its place there.
 *
 * Boxes hold SH_GROUP panels together, a group. Of each panel they have the least and the most of SH_BOX_COLUMNS columns
 * of its patterns, and a bias; a query has as many columns, each between a least and a most. A group is
 *
 *     SH_BOX_COLUMNS x 2 x SH_GROUP floats   for every column the least of each panel in turn, then the most
 *     SH_GROUP floats                        biases; -INFINITY where there is no such panel
 *
 * and no pattern of the panel has more than
 *
 *     bound of a box = start + bias - (1 - 2^-12) / 2 sum of d^2   by distance; d: how far both are apart
 *     or               start + bias + sum of m                     by products; m: the larger of the query's most times
 *                                                                  the box's least and times its most
 *
 * There is one table for each instruction set. Codes are the same everywhere; bounds differ in their rounding alone,
 * which error radii and biases allow for (retrieval/index/bounds.c, note 3).
 */
#ifndef SH_CODES_H
#define SH_CODES_H
#include <stddef.h>
#include <stdint.h>

enum {
    SH_PANEL = 64,      /* patterns of a panel */
    SH_GROUP = 16,      /* panels of a group */
    SH_BOX_COLUMNS = 7, /* columns of a box */
    SH_GROUP_FLOATS = (2 * SH_BOX_COLUMNS + 1) * SH_GROUP
};

/* One query as boxes take it. */
typedef struct {
    float least[SH_BOX_COLUMNS], most[SH_BOX_COLUMNS], start;
} sh_box_query;

/* One query, and the list of patterns whose bound is not below its threshold. */
typedef struct {
    const int8_t *code; /* (4 quads) */
    int32_t start;      /* -128 times the sum of the code, which makes up for what was added to the patterns' */
    float step, error_radius, threshold;
    sh_box_query box;
    int64_t found; /* entries of the list, */
    int32_t *slot; /* which has space for all patterns that one call compares */
    float *bound;
} sh_filter_query;

/* The loss of one row by its code; decoded: scale step[j] code[j]. */
typedef struct {
    double error2;   /* |a - decoded|^2 */
    double decoded2; /* |decoded|^2 */
    double code2;    /* |code|^2 */
} sh_code_loss;

typedef struct {
    double cost; /* of one product of 8-bit numbers, a float32 product of the BLAS being 1 */
    /* Appends to the lists of n queries the patterns of the panels [first, last) whose bounds are not below the
     * threshold; NaN is not. */
    void (*filter)(const uint8_t *panels, const float *scales, int64_t quads, int64_t first, int64_t last,
                   sh_filter_query *const *queries, int64_t n);
    /* Writes, of the panels at each of the SH_GROUP places of a group, the largest bound of their boxes for one query, and
     * which panel has it; -1 where none has more than -INFINITY. */
    void (*best_panels)(const float *boxes, int64_t groups, int by_distance, const sh_box_query *query, float *best,
                        int32_t *panel);
    /* Writes for each of n queries the panels of a group, a bit each, whose bounds are not below its threshold. */
    void (*open_panels)(const float *group, int by_distance, sh_filter_query *const *queries, int64_t n,
                        uint16_t *open);
    /* Computes dots[i] = sum of b[j] * code[j], in float32 in any order, of the records of these slots, fetched
     * ahead. */
    void (*record_dots)(const char *records, size_t record_bytes, const int32_t *slot, int64_t count, const float *b,
                        int64_t columns, float *dots);
    /* Returns the largest |a[j] * inverse[j]|. */
    float (*largest_ratio)(const float *a, const float *inverse, int64_t n);
    /* Writes code[j] = a[j] / (scale step[j]), rounded and clipped to -127 .. 127; inverse[j] is about 1 / step[j]. */
    sh_code_loss (*encode)(const float *a, const float *step, const float *inverse, float scale, int64_t n,
                           int8_t *code);
} sh_code_kernels;

static inline size_t sh_panel_bytes(int64_t quads) { return (size_t)(quads * 4 + 8) * SH_PANEL; }
const sh_code_kernels *sh_code_kernels_chosen(void);
#endif
