/* kernels.h: the inner loops, one table for each instruction set and precision.
 *
 * A kernel knows no operation: it sees rows of numbers. `R` below is the row's type, float or double.
 * The tables are chosen once, by sh_initialise; SPARSEHOPFIELD_SIMD=base|avx2|avx512|vnni|neon|dotprod lowers the choice.
 */
#ifndef SH_KERNELS_H
#define SH_KERNELS_H
#include "sparsehopfield.h"

typedef struct sh_exponent sh_exponent; /* power.h */

typedef struct {
    double score;
    int64_t position;
} sh_candidate;

typedef struct {
    size_t size;              /* of R */
    double unit;              /* unit roundoff of R */
    double smallest, largest; /* normal numbers of R */

    /* s[j] = s[j] * scale[j] + bias[j] + shift (either may be NULL; no shift without a bias); returns the maximum, NaN
     * if any s[j] is NaN, -inf for n = 0. */
    double (*affine_max)(void *s, const void *scale, const void *bias, double shift, int64_t n);
    /* Returns the maximum as above, changing nothing. `best`, if not NULL, gets the maxima of `lanes` disjoint parts of
     * the row, -inf where a part is empty: the best scores, but for those that share a part with a better one. */
    int lanes;
    double (*maximum)(const void *s, int64_t n, void *best);
    /* Appends (s[j], base + j) for every s[j] >= threshold, j ascending; returns how many. `out` has space for n. */
    int64_t (*collect)(const void *s, int64_t n, double threshold, int64_t base, sh_candidate *out);
    /* Counts the s[j] >= threshold. */
    int64_t (*count)(const void *s, int64_t n, double threshold);
    /* The canonical dot product: each product in double, 32 interleaved partial sums (lane l takes features
     * l, l + 32, ...), then a pairwise tree (l += l + 16, + 8, + 4, + 2, + 1). The same bits everywhere:
     * products of two floats are exact in double, and nothing is contracted (-ffp-contract=off). */
    double (*dot)(const void *x, const void *y, int64_t n);
    /* y[j] += w * x[j] in double, product rounded before the sum */
    void (*accumulate)(double *y, double w, const void *x, int64_t n);
    void (*to_double)(double *y, const void *x, int64_t n);
    void (*from_double)(void *y, const double *x, int64_t n);
    /* y[j] = x[j] * scale as a float32 number, for either R: the same bits everywhere */
    void (*from_uint8)(void *y, const uint8_t *x, int64_t n, float scale);
    void (*from_float16)(void *y, const uint16_t *x, int64_t n, float scale);
    /* s[j] = exp(beta (s[j] - max)); returns the sum in double. -inf gives 0. Needs beta (s[j]-max) <= 0. */
    double (*exponentiate)(void *s, int64_t n, double beta, double max);
    /* Writes s[j] and j of every s[j] >= threshold, j ascending; returns how many. Both arrays have space for n. */
    int64_t (*compress)(const void *s, int64_t n, double threshold, void *values, int32_t *indices);
    /* y[width] += sum over i of w[i] * row number indices[i], rows `stride` elements apart */
    void (*mix)(void *y, int64_t width, const void *w, const int32_t *indices, int64_t n, const void *rows,
                int64_t stride);
    /* s[j] = (s[j] / scale)^order; returns the sum in double */
    double (*power)(void *s, int64_t n, int64_t order, double scale);
    double (*max_abs)(const void *s, int64_t n); /* NaN if any is */
    void (*multiply)(void *s, const void *factor, int64_t n);
    void (*multiply_by)(void *s, double factor, int64_t n);
    /* |x - y|^2: differences, squares and sums in double, the sums in the order of `dot`. The same bits everywhere. */
    double (*distance2)(const void *x, const void *y, int64_t n);
    /* y[j] = (x[j] * scale - centre[j]) * power in double, rounded to float32 once; returns the sum of squares of
     * what was rounded */
    double (*centre)(float *y, const void *x, double scale, const double *centre, double power, int64_t n);
    double (*sum)(const void *s, int64_t n);     /* in double */
    double (*squares)(const void *s, int64_t n); /* sum of s[j]^2 in R; infinite or NaN where it is */
    void (*divide)(void *s, double by, int64_t n);

    /* Features (features/features.c) of n rows of `size` numbers, y (n, size). Each is exp(exponent) * factor: of elu + 1,
     * whose rows x lie `ld` apart, exponent = min(root x, 0) in double and factor = 1 + max(root x, 0); where x is NULL
     * the exponents are e (n, size), the factor 1. All exponents are at most 0 after what is taken off. */
    /* most[f] = max over i of x[i][f], after x[i][f] -= less[i] (NULL: x stays) */
    void (*peaks)(void *x, int64_t ld, int64_t n, int64_t size, const double *less, void *most);
    /* y[i][f] = exp(exponent - less[f]) factor */
    void (*features)(void *y, const void *x, int64_t ld, double root, const double *e, int64_t n, int64_t size,
                     const double *less);
    /* y[i][f] = exp(exponent + more[f] - the row's maximum) factor, the row divided by its sum if `normed` and not 0. e is changed;
     * where there is x, it is scratch for one row. */
    void (*mixing)(void *y, const void *x, int64_t ld, double root, double *e, int64_t n, int64_t size,
                   const double *more, int normed);
    /* y[i][f] = max(x, 0) share[f] (NULL: 1) in double, the row divided by its sum if `normed` and not 0; e as above */
    void (*relu)(void *y, const void *x, int64_t ld, double *e, int64_t n, int64_t size, const double *share,
                 int normed);
    /* sum[f] += the sum over i of y[i][f] */
    void (*columns)(double *sum, const void *y, int64_t n, int64_t size);
    /* Gradients of n rows of `size`: from those in the weights of features to those in their logarithms, and in the rows.
     * y[i][f] = w[i][f] (y[i][f] + a[i] b[f]), where a or b is NULL: 1 */
    void (*slopes)(void *y, const void *w, const double *a, const void *b, int64_t n, int64_t size);
    /* y[i][f] = y[i][f] by[f] in double */
    void (*shares)(void *y, const double *by, int64_t n, int64_t size);
    /* y[i][j] -= a[i]; if `lower`, y[i][j] = 0 for j > i; y (n, m) */
    void (*less_rows)(void *y, const double *a, int64_t n, int64_t m, int lower);
    /* to[i][f] = slope[i][f] (d log feature / d x) at x[i][f]; of elu + 1, or of relu: slope / x where x > 0 */
    void (*chain)(void *to, int64_t to_ld, const void *slope, const void *x, int64_t ld, double root, int relu,
                  int64_t n, int64_t size);
    /* y[j] += a x[j], in R */
    void (*add)(void *y, double a, const void *x, int64_t n);

    /* The gradient y[n] in scores, from weights p and the gradient g in them: with w = p^exponent, 0 where p is, it is
     * w (g - sum w g / sum w), in double; all NaN where p or g has one. `e` is the exponent where that is not 0, 1/2 or 1.
     * w[n] is scratch; y may be g. The same bits everywhere, but for about one in 3,000 powers of doubles, which the C
     * library takes. */
    void (*vjp)(void *y, const void *p, const void *g, int64_t n, double exponent, const sh_exponent *e, double *w);

    /* y[i] = x[i]^e, and (1 + x[i])^e for -1 <= x[i] <= 1: by sh_power_fast, NaN where that does not know, and by
     * sh_power_near. Indexed by whether the base is 1 + x, and by whether powers are only near. y and x do not overlap.
     * The same bits everywhere. */
    void (*powers[2][2])(double *restrict y, const double *restrict x, int64_t n, const sh_exponent *e);

    /* C[m x n] = A[m x k] B[n x k]^T, A[m x k] B[k x n] and A[k x m]^T B[k x n] (+ C if add); the last argument of
     * each matrix is its row length. One thread. */
    void (*gemm_nt)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb, int add,
                    void *c, int64_t ldc);
    void (*gemm_nn)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb, int add,
                    void *c, int64_t ldc);
    void (*gemm_tn)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb, int add,
                    void *c, int64_t ldc);
} sh_kernels;

/* Returns the kernels of a compute type, SH_FLOAT32 or SH_FLOAT64. */
const sh_kernels *sh_kernels_of(sh_type type);
/* Widens n numbers of a row of a narrow type: float32 (to double), uint8 or float16. */
void sh_widen(const sh_kernels *k, const sh_rows *rows, const void *x, int64_t n, void *y);
#endif
