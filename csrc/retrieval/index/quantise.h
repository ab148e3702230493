/* retrieval/index/quantise.h: what the files that make an index share. */
#ifndef SH_QUANTISE_H
#define SH_QUANTISE_H
#include "retrieval/index/index.h"
#include <math.h>

enum {
    SH_SLAB = 256,       /* features summed in float32 */
    SH_CODED_ROWS = 256, /* patterns coded at a time: whole groups */
    SH_ASKERS = 256,     /* sampled patterns that stand for queries */
    SH_MAX_SUM = 66000   /* features whose 8-bit products fit a sum of 32 bits */
};

static inline double sh_roundoff(double n) { return n * 0x1p-24 / (1 - n * 0x1p-24); } /* g(n) of float32 */
static inline float sh_round_up(double x) {
    float f = (float)x;
    return (double)f < x ? nextafterf(f, INFINITY) : f;
}
static inline double sh_norm2(const float *a, int64_t n) { return sh_kernels_of(SH_FLOAT32)->dot(a, a, n); }
/* the euclidean bias is -|y|^2 / 2 if y has all features; else the dropped ones are in the pattern's own bias */
static inline int sh_distance_bias(const sh_index *x, const sh_memory *m) {
    return m->similarity == SH_EUCLIDEAN && !x->kept;
}

/* quantise.c */
size_t sh_row_bytes(const sh_index *x, const sh_memory *m);
const void *sh_gather_features(const sh_index *x, const sh_kernels *k, const void *row, void *work);
sh_status sh_load_pattern(sh_context *context, const sh_index *x, const sh_memory *m, int64_t i, float *y, char *work,
                          double *length2);
size_t sh_project_bytes(const sh_index *x, int64_t rows);
void sh_project(const sh_index *x, const float *y, int64_t rows, float *a, char *work);
int sh_quantiser_new(sh_context *context, sh_coding *c, int64_t columns, int rotated, double eta, int64_t d);
void sh_fit_quantiser(sh_coding *c, int coded, const float *a, int64_t stride, const double *length2, int64_t n,
                      int8_t *code);
/* codes of all patterns from the item `first` of SH_CODED_ROWS patterns */
sh_status sh_quantise_patterns(sh_context *context, sh_index *x, const sh_memory *m, int64_t first);

/* bounds.c */
void sh_pattern_terms(const sh_coding *c, const float *a, double length2, sh_coded coded, double q[4]);
void sh_query_terms(const sh_coding *c, const float *b, double length, double lost, double p[4]);
double sh_error_radius(const double part[4], const double weight[4], int of_query);
double sh_quantise_query(const sh_coding *c, const float *b, int8_t *code, float *step, int32_t *start);

/* build.c */
double sh_farthest(const sh_index *x, const sh_memory *m);
size_t sh_index_total_bytes(const sh_index *x);
#endif
