/* retrieval/index/quantise.h: what the files that make codes share. */
#ifndef SH_QUANTISE_H
#define SH_QUANTISE_H
#include "retrieval/index/index.h"
#include <math.h>

enum {
    SH_SLAB = 256,            /* features whose products are summed in float32 */
    SH_ENCODED_ROWS = 256,    /* patterns encoded at a time: whole panels */
    SH_SAMPLED_QUERIES = 256, /* sampled patterns that stand for queries */
    SH_MOST_FEATURES = 66000, /* whose 8-bit products fit a sum of 32 bits */
    SH_ORDERED_BYTES = 44     /* of a pattern while it is ordered, its place in the order included */
};

/* Returns g(n) = n u / (1 - n u), which bounds the relative error of n roundings in float32. */
static inline double sh_roundoff(double n) { return n * 0x1p-24 / (1 - n * 0x1p-24); }
static inline float sh_round_up(double x) {
    float f = (float)x;
    return (double)f < x ? nextafterf(f, INFINITY) : f;
}
static inline double sh_norm2(const float *a, int64_t n) { return sh_kernels_of(SH_FLOAT32)->dot(a, a, n); }
/* Tells whether the bias of a pattern is -|y|^2 / 2, as of euclidean memories where y has all features; the features
 * left out are in the memory's own bias. */
static inline int sh_has_distance_bias(const sh_index *x, const sh_memory *m) {
    return m->similarity == SH_EUCLIDEAN && !x->features;
}
/* Returns the columns of row i for a quantiser. */
static inline const float *sh_columns(const sh_index *x, const sh_quantiser *c, const sh_coding_scratch *s, int64_t i) {
    return c->rotated ? s->a + i * x->rank : s->y + i * x->d;
}
/* Returns the error radii of a panel's patterns, whose biases follow. */
static inline float *sh_panel_errors(uint8_t *panel, int64_t quads) { return (float *)(void *)(panel + quads * 256); }

/* quantise.c: take, from a workspace, the scratch of so many rows, and that of their products with the basis. */
void sh_take_rows(sh_workspace *w, const sh_index *x, const sh_memory *m, int64_t rows, sh_coding_scratch *s);
void sh_take_products(sh_workspace *w, int64_t rows, int64_t columns, sh_coding_scratch *s);
/* Returns the features of a row that the index uses, in place or gathered. */
const void *sh_used_features(const sh_index *x, const sh_kernels *k, const void *row, const sh_coding_scratch *s);
/* Writes y and |y|^2 of a pattern, as row i. Fails with SH_NOT_FINITE if the pattern has become so. */
sh_status sh_load_pattern(sh_context *context, const sh_index *x, const sh_memory *m, int64_t pattern,
                          sh_coding_scratch *s, int64_t i);
/* Computes the first columns of y V^T, of so many rows: a (rows, columns). */
void sh_project(const sh_index *x, int64_t rows, int64_t columns, sh_coding_scratch *s);
/* Sets how far the columns of boxes may be off. */
void sh_set_box_errors(sh_index *x, double eta);
/* Sets the columns of a quantiser, and how far they may be off; sh_quantiser_new makes its arrays, too. */
void sh_set_quantiser(sh_quantiser *c, int64_t columns, int rotated, double eta, int64_t d);
int sh_quantiser_new(sh_context *context, sh_quantiser *c, int64_t columns, int rotated, double eta, int64_t d);
/* Chooses steps and weights of the quantisers from n sampled patterns; not of a refinement that is shared. */
sh_status sh_fit_quantisers(sh_context *context, sh_index *x, const sh_memory *m, int64_t n);
/* Encodes the patterns of all panels from first_panel on, and makes the boxes of these. */
sh_status sh_encode_patterns(sh_context *context, sh_index *x, const sh_memory *m, int64_t first_panel);

/* order.c: fills the slots of all panels from first_panel on with all patterns from first_pattern on. */
sh_status sh_order_patterns(sh_context *context, const sh_index *x, const sh_memory *m, int64_t first_pattern,
                            int64_t first_panel);

/* bounds.c: compute the terms Q of a pattern and P of a query, and the error radius that they make. */
void sh_pattern_terms(const sh_quantiser *c, const float *a, double norm2, float scale, sh_code_loss loss, double q[4]);
void sh_query_terms(const sh_quantiser *c, const float *b, double norm, double code_error, double p[4]);
double sh_error_radius(const double term[4], const double weight[4], int of_query);
/* Computes intervals [least, most] in which the exact columns of a row lie, in the order of boxes: (SH_BOX_COLUMNS). */
void sh_box_intervals(const sh_index *x, const sh_coding_scratch *s, int64_t i, double *least, double *most);
/* Encodes the columns b of a query: p, h, and -128 times the sum of p. The code is padded with zeros to whole quads.
 * Returns |b t - h p| + 8 u h |p|. */
double sh_encode_query(const sh_quantiser *c, const float *b, int8_t *code, float *step, int32_t *start);

/* Returns the bytes of a record of so many refinement codes; 0 of none. */
static inline size_t sh_record_bytes(int64_t columns) { return columns ? (size_t)(columns + 15) / 4 * 4 : 0; }

/* build.c: return a bound on |xi - mu| of all patterns, and the bytes of an index. */
double sh_largest_distance(const sh_index *x, const sh_memory *m);
size_t sh_index_total_bytes(const sh_index *x);
/* build.c: computes the norms of the centre. */
void sh_set_centre_norms(sh_index *x);
/* build.c: allocates what an index has of its slots but the order; of one with longer codes: its own arrays alone. Returns
 * whether there was memory. */
int sh_take_slots(sh_context *context, sh_index *x);
/* grow.c: returns an index of one reference that has what one with longer codes shares with its base, which gets another
 * reference; its own codes are still to be made. */
sh_index sh_share_base(sh_index *base);
#endif
