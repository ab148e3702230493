/* codes.h: the inner loops of the screen (retrieval/index/query.c): patterns as 8-bit codes, compared with a bound.
 *
 * Codes lie in groups of SH_GROUP patterns: for every four columns ("quad") 4 bytes of each pattern in turn, 128
 * added so that they are unsigned; then SH_GROUP radii and SH_GROUP biases (float). A query's code is signed, and
 *
 *     bound of pattern i = step (code . code_i) + radius radius_i + bias_i
 *
 * One table for each instruction set; codes and bounds are the same everywhere but for the rounding of the bound,
 * which radius and bias have room for (retrieval/index/bounds.c, note 3).
 */
#ifndef SH_CODES_H
#define SH_CODES_H
#include <stddef.h>
#include <stdint.h>

enum { SH_GROUP = 64 };

/* One query of a screen, and the list of patterns whose bound is not below its threshold. */
typedef struct {
    const int8_t *code; /* (4 quads) */
    int32_t start;      /* -128 times the sum of the code */
    float step, radius, threshold;
    int64_t found; /* the list has room for all that is screened in one call */
    int32_t *position;
    float *bound;
} sh_screened;

/* What the code of one row leaves out. */
typedef struct {
    double error2;   /* |a - decoded|^2 */
    double decoded2; /* |decoded|^2 */
    double code2;    /* |code|^2 */
} sh_coded;

typedef struct {
    double cost; /* of one product of 8-bit numbers, a float32 product of the BLAS being 1 */
    /* appends to the lists of n queries what survives of the groups [first, last) */
    void (*screen)(const uint8_t *groups, int64_t quads, int64_t first, int64_t last, sh_screened *queries, int64_t n);
    /* dots[i] = sum of b[j] * code[j], float32 in any order, of the lines `position`, fetched ahead */
    void (*line_dots)(const char *lines, size_t line_bytes, const int32_t *position, int64_t count, const float *b,
                      int64_t columns, float *dots);
    /* code[j] = a[j] / step[j], rounded and clipped to -127 .. 127; inverse[j] is about 1 / step[j] */
    sh_coded (*encode)(const float *a, const float *step, const float *inverse, int64_t n, int8_t *code);
} sh_code_kernels;

static inline size_t sh_group_bytes(int64_t quads) { return (size_t)(quads * 4 + 8) * SH_GROUP; }
const sh_code_kernels *sh_code_kernels_chosen(void);
#endif
