/* lanes.h: the inner loops of the layers' association: `lanes` queries side by side, one in each lane of a vector.
 *
 * Whatever belongs to the queries lies with the lanes innermost: u[c * lanes + l] is feature c of query l, s[j *
 * stride + l] its score with row j. Stored rows are broadcast. So maxima, sums and thresholds of all queries are
 * taken at once, without a sum across a vector anywhere; a query's neighbours can change no more than the order of its
 * sums.
 *
 * Letters: n rows, d features, `rows` stored rows `ld` elements apart. `list` names rows in ascending order, NULL all
 * of 0 .. n-1; what is computed for listed rows is compact: entry i belongs to row list[i].
 */
#ifndef SH_LANES_H
#define SH_LANES_H
#include "sparsehopfield.h"

/* Hashes 32-bit numbers, or vectors of them, in place ("lowbias32"). */
#define SH_HASH(x)                                                                                                     \
    do {                                                                                                               \
        x = (x ^ (x >> 16)) * 0x7FEB352Du;                                                                             \
        x = (x ^ (x >> 15)) * 0x846CA68Bu;                                                                             \
        x = x ^ (x >> 16);                                                                                             \
    } while (0)

/* The separation maps that have loops on lanes. */
typedef enum {
    SH_LANES_NONE,
    SH_LANES_SPARSEMAX,
    SH_LANES_SOFTMAX,
    SH_LANES_ENTMAX,
    SH_LANES_POLYNOMIAL,
    SH_LANE_FORMS
} sh_lane_form;

/* One separation map on lanes. A threshold is two numbers a lane: th[l], th[lanes + l]. Masked scores are -inf; a lane
 * with nothing but masks gets weights 0. */
typedef struct {
    /* Finds thresholds of scores s[n]; returns how many rows have weight in any lane, and which (list[n]).
     * Returned  best[lanes]  the largest score of a lane, or, for maps of full support, what stands for it: infinite
     *                        or NaN if a score is
     *           s            changed by maps of full support: what `finish` begins with */
    int64_t (*threshold)(void *s, int64_t stride, int64_t n, double parameter, void *th, int32_t *list, void *best);
    /* p[i] = weight of row list[i], after `threshold` of all rows; p may be s */
    void (*finish)(const void *s, int64_t stride, const int32_t *list, int64_t n, double parameter, const void *th,
                   void *p, int64_t p_stride);
    /* p[i] = weight of s[list[i]]; p may be s */
    void (*weights)(const void *s, int64_t stride, const int32_t *list, int64_t n, double parameter, const void *th,
                    void *p, int64_t p_stride);
    /* Computes the gradient in the scores: in s[n] scores and g[n] the gradient in their weights; out s the weights, g
     * the result. What is not given (rows beyond a list) has weight 0 in every lane. */
    void (*vjp)(void *s, void *g, int64_t stride, int64_t n, double parameter, const void *th);
} sh_lane_map;

/* Powers of what the scores of a row exceed a threshold by: with z = s - top, r = a z - u, or in form SH_ROOT_POWER_1P
 * 1 + a (z - u), and v = r^power where r > 0, else 0. SH_ROOT_LINE and SH_ROOT_SQUARE are those of power 1 and 2. */
typedef enum { SH_ROOT_LINE, SH_ROOT_SQUARE, SH_ROOT_POWER, SH_ROOT_POWER_1P } sh_root_form;
typedef struct {
    double a, power;
    sh_root_form form;
    int normed; /* whether weights are v / sum v, with sum v r = 1; else they are v, with sum v = 1 */
} sh_roots;
typedef struct {
    double times_r, v, by_r; /* sums of v r, v and v / r */
} sh_root_sums;

/* Weights factor * v, whose r are known within `moved`, and all else within `relative` of each. */
typedef struct {
    double factor, moved, relative;
    double edge; /* |r| at or below which a weight is taken for unknown */
    double step; /* by which r has fallen since the sums */
} sh_root_bounds;

typedef struct {
    int lanes;
    size_t size; /* of a number */
    /* s[i] = sum over c of rows[list[i]][c] u[c] */
    void (*scores)(const void *rows, int64_t ld, const int32_t *list, int64_t n, int64_t d, const void *u, void *s,
                   int64_t stride);
    /* z[c] = sum over i of p[i] rows[list[i]][c] */
    void (*mix)(const void *rows, int64_t ld, const int32_t *list, int64_t n, int64_t d, const void *p, int64_t stride,
                void *z);
    /* rows[list[i]][c] += sum over l of g[i][l] x[l * d + c]; d a multiple of `lanes` */
    void (*spread)(const void *g, int64_t stride, const int32_t *list, int64_t n, const void *x, int64_t d, void *rows,
                   int64_t ld);
    /* The same where every lane has other rows, lane_rows[list[i] * lanes + l], -1: none, which counts as 0. What belongs
     * to queries lies in rows here, `to` or x + l * d, d a multiple of `lanes`, of which the first `width` numbers are
     * features. */
    void (*per_lane_scores)(const void *rows, int64_t ld, const int32_t *lane_rows, const int32_t *list, int64_t n,
                            int64_t width, const void *x, int64_t d, void *s, int64_t stride);
    void (*per_lane_mix)(const void *rows, int64_t ld, const int32_t *lane_rows, const int32_t *list, int64_t n,
                         int64_t width, const void *p, int64_t stride, void *to, int64_t d);
    void (*per_lane_spread)(const void *g, int64_t stride, const int32_t *lane_rows, const int32_t *list, int64_t n,
                            const void *x, int64_t d, void *rows, int64_t ld);
    /* y[r] = b[r] + sum over c of w[r * n + c] x[c], every lane its own square matrix; b NULL is 0 */
    void (*apply)(const void *w, int64_t n, const void *x, const void *b, void *y);
    /* u[c] = rows[l][c] factor[l] of every lane l, 0 where rows[l] is NULL; and back: rows[l][c] = z[c] factor[l], where
     * there is a row (factor NULL: 1) */
    void (*gather)(const void *const *rows, int64_t d, const void *factor, void *u, int64_t stride);
    void (*scatter)(const void *z, int64_t stride, int64_t d, const void *factor, void *const *rows);
    /* y[c] = where[l] > 0 ? a[c] factor[l] : b[c] */
    void (*choose)(const void *where, const void *a, const void *factor, const void *b, int64_t d, void *y,
                   int64_t stride);
    /* u[c] * v[c] summed over c */
    void (*inner)(const void *u, const void *v, int64_t stride, int64_t d, void *sum);
    /* squared distances of weights p (listed) and before (listed): d2[lanes] */
    void (*distance)(const void *p, const int32_t *list, int64_t n, const void *before, const int32_t *before_list,
                     int64_t before_n, int64_t stride, void *d2);
    /* f[i] = 0 where a counter hashed falls below `threshold`, else `scale` (reference.dropout_factors). Row i of the
     * list is row position[list[i]] (position NULL: list[i]) of the sample, or, where `per_lane`, of lane l the row
     * position[list[i] * lanes + l]; key[lanes]. */
    void (*drop)(const int32_t *list, const int32_t *position, int per_lane, int64_t n, const uint32_t *key,
                 uint32_t threshold, double scale, void *f, int64_t stride);
    void (*multiply)(void *x, const void *y, int64_t n, int64_t stride, int64_t y_stride); /* x[i] *= y[i] */
    void (*add)(void *x, const void *y, const int32_t *list, int64_t n, int64_t stride, int64_t y_stride);
    /* total[l] = sum over i of p[i][l] */
    void (*total)(const void *p, int64_t stride, int64_t n, void *total);
    /* Of n scores each lane keeps its k best, ties by row, and none that is -inf; the others become -inf. kept[i *
     * kept_stride]: bit l where lane l keeps row i. `space` of n vectors. Returns whether all scores are numbers. */
    int (*keep_best)(void *s, int64_t stride, int64_t n, int64_t k, uint16_t *kept, int64_t kept_stride, void *space);
    sh_lane_map map[SH_LANE_FORMS];

    /* Without lanes: sums over a row s of n floats, computed in this table's type. What `root_weights` uses again is left in
     * `kept`: 3 numbers for each score, n rounded up to whole vectors; NULL: nothing. */
    void (*root_sums)(const sh_roots *roots, const float *s, int64_t n, double top, double u, void *kept,
                      sh_root_sums *sums);
    /* The weights at u, a step from that of `kept`, rounded to float; and the sums of v r and v. That of double returns
     * whether `bounds` leave only one weight possible. */
    int (*root_weights)(const sh_roots *roots, const float *s, int64_t n, double top, double u,
                        const sh_root_bounds *bounds, const void *kept, float *p, sh_root_sums *sums);
    /* y[r] = b[r] + sum over c of w[r * columns + c] x[c]; x[c] = sum over r of w[r * columns + c] y[r] */
    void (*project)(const void *w, int64_t rows, int64_t columns, const void *x, const void *b, void *y);
    /* to[i] = rows[list[i]], d numbers each, one behind the other */
    void (*copy)(const void *rows, int64_t ld, const int32_t *list, int64_t n, int64_t d, void *to);
    /* xhat[i] = (x[i] - mean) rstd[i] of n rows of e numbers, rstd = 1 / sqrt(variance + eps); and back from gradients
     * in xhat: dx[i] = rstd[i] (g[i] - mean g[i] - xhat[i] mean(g[i] xhat[i])) */
    void (*normalize)(const void *x, int64_t n, int64_t e, double eps, void *xhat, void *rstd);
    void (*normalize_back)(const void *xhat, const void *rstd, const void *g, int64_t n, int64_t e, void *dx);
    /* An affine map before a linear one, n outputs of e numbers: folded = w diag(gain), moved = w shift + b (NULL: 0);
     * and from gradients in these, in dfolded and dmoved, to those in w (dw, which may be dfolded), gain and shift: of e
     * columns of rows of `row` numbers. */
    void (*fold)(const void *w, const void *b, const void *gain, const void *shift, int64_t n, int64_t e, void *folded,
                 void *moved);
    void (*unfold)(const void *dfolded, const void *dmoved, const void *w, const void *gain, const void *shift,
                   int64_t n, int64_t e, int64_t row, void *dw, void *dgain, void *dshift);
    /* One step of AdamW on n numbers: m += a (g - m), v += b (g^2 - v), p = keep p - rate m / (sqrt(v) root + eps) */
    void (*adamw)(void *p, const void *g, void *m, void *v, int64_t n, double a, double b, double keep, double rate,
                  double root, double eps);
    int (*finite)(const void *x, int64_t n); /* whether all are */
    /* sum[c] = sum over i of x[i * ld + c] */
    void (*sum_rows)(const void *x, int64_t ld, int64_t n, int64_t d, void *sum);
    void (*add_rows)(void *x, const void *y, int64_t n); /* x[i] += y[i], n a multiple of `lanes` */
    void (*project_back)(const void *w, int64_t rows, int64_t columns, const void *y, void *x);
} sh_lanes;

/* Returns the loops whose vectors hold at least `wanted` queries, or the most there are. */
const sh_lanes *sh_lanes_for(sh_type type, int64_t wanted);

/* The loops of one instruction set, of both types: by its longest vectors, and by those of half that length (or the same). */
typedef struct {
    const sh_lanes *longest[2], *shorter[2];
} sh_lane_tables;
#endif
