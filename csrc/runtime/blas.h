/* blas.h: the names of the BLAS that was linked. The bundled OpenBLAS carries a prefix, the system's none. */
#ifndef SH_BLAS_H
#define SH_BLAS_H
#include <cblas.h>
#define SH_JOIN_(a, b) a##b
#define SH_JOIN(a, b) SH_JOIN_(a, b)
#ifdef SH_BLAS_PREFIX
#define BLAS(f) SH_JOIN(SH_BLAS_PREFIX, f)
#else
#define BLAS(f) f
#endif
#endif
