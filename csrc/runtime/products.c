/* products.c: matrix products of any size, by a BLAS that counts in int.
 *
 * Where a dimension or the distance between rows is too large, the longer way is cut in two until it is not. A matrix
 * of one row has no distance between rows.
 */
#include "runtime/blas.h"
#include <limits.h>

static int too_many(int64_t n) { return n > INT_MAX; }
static int64_t at_least_1(int64_t n) { return n > 1 ? n : 1; }

#define PRODUCT(name, R, gemm)                                                                                         \
    void name(int ta, int tb, int64_t m, int64_t n, int64_t k, double factor, const R *a, int64_t lda, const R *b,     \
              int64_t ldb, int add, R *c, int64_t ldc) {                                                               \
        if ((ta ? k : m) <= 1) lda = at_least_1(ta ? m : k);                                                           \
        if ((tb ? n : k) <= 1) ldb = at_least_1(tb ? k : n);                                                           \
        if (m <= 1) ldc = at_least_1(n);                                                                               \
        if (too_many(m) || (m > 1 && too_many(ldc)) || (!ta && m > 1 && too_many(lda))) {                              \
            const int64_t half = m / 2;                                                                                \
            name(ta, tb, half, n, k, factor, a, lda, b, ldb, add, c, ldc);                                             \
            name(ta, tb, m - half, n, k, factor, a + (ta ? half : half * lda), lda, b, ldb, add, c + half * ldc, ldc); \
        } else if (too_many(n) || (tb && n > 1 && too_many(ldb))) {                                                    \
            const int64_t half = n / 2;                                                                                \
            name(ta, tb, m, half, k, factor, a, lda, b, ldb, add, c, ldc);                                             \
            name(ta, tb, m, n - half, k, factor, a, lda, b + (tb ? half * ldb : half), ldb, add, c + half, ldc);       \
        } else if (too_many(k) || too_many(lda) || too_many(ldb)) {                                                    \
            const int64_t half = k / 2;                                                                                \
            name(ta, tb, m, n, half, factor, a, lda, b, ldb, add, c, ldc);                                             \
            name(ta, tb, m, n, k - half, factor, a + (ta ? half * lda : half), lda, b + (tb ? half : half * ldb), ldb, \
                 1, c, ldc);                                                                                           \
        } else {                                                                                                       \
            SH_BLAS_CALL(gemm, CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)m,  \
                         (int)n, (int)k, (R)factor, a, (int)lda, b, (int)ldb, (R)(add != 0), c, (int)ldc);             \
        }                                                                                                              \
    }

PRODUCT(sh_gemm_f32, float, cblas_sgemm)
PRODUCT(sh_gemm_f64, double, cblas_dgemm)
