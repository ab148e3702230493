/* blas.h: the BLAS that was linked: its names, and products of any size. The bundled OpenBLAS carries a prefix, the
 * system's none. */
#ifndef SH_BLAS_H
#define SH_BLAS_H
#include <cblas.h>
#include <stdint.h>
#define SH_JOIN_(a, b) a##b
#define SH_JOIN(a, b) SH_JOIN_(a, b)
#ifdef SH_BLAS_PREFIX
#define BLAS(f) SH_JOIN(SH_BLAS_PREFIX, f)
#else
#define BLAS(f) f
#endif

/* sh_product_begin, sh_product_end: stand around every call of the BLAS or LAPACK, as in SH_BLAS_CALL(f, arguments), so that
 * a product has one thread, and none begins when the process has begun to end (process.c). */
void sh_product_begin(void);
void sh_product_end(void);
#define SH_BLAS_CALL(f, ...) (sh_product_begin(), BLAS(f)(__VA_ARGS__), sh_product_end())

/* sh_gemm_f32, sh_gemm_f64: compute C = factor A B, or C += factor A B where `add`; row major, A (m, k) and B (k, n), or their
 * transposes where that is said, C (m, n). Rows lie lda, ldb and ldc numbers apart, in any number: what is more than
 * the BLAS can count is cut into products that it can. */
void sh_gemm_f32(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, double factor, const float *a,
                 int64_t lda, const float *b, int64_t ldb, int add, float *c, int64_t ldc);
void sh_gemm_f64(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, double factor, const double *a,
                 int64_t lda, const double *b, int64_t ldb, int add, double *c, int64_t ldc);
#endif
