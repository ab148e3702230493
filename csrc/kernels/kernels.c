/* kernels.c: compiled once per instruction set, with SH_VARIANT its name; both precisions from kernels_real.h.
 * Everything but the two tables is static, so that no code of a higher instruction set leaks to the linker. */
#ifndef SH_VARIANT
#define SH_VARIANT base
#endif
#include "kernels/kernels.h"
#include "kernels/power.h"
#include "kernels/vectors.h"
#include "runtime/blas.h"
#include <math.h>
#include <string.h>

/* Bytes and numbers of a vector */
#if defined(__AVX512F__)
#define VECTOR 64
#define COUNT_f32 16
#define COUNT_f64 8
#elif defined(__AVX2__)
#define VECTOR 32
#define COUNT_f32 8
#define COUNT_f64 4
#else
#define VECTOR 16
#define COUNT_f32 4
#define COUNT_f64 2
#endif

/* Masks and maxima, for which the vector extensions of the compiler have no portable word.
 * max(a, b) returns b if either is NaN, as on x86. */
#if VECTOR == 64
#define GE_MASK_f32(a, b) ((uint32_t)_mm512_cmp_ps_mask((__m512)(a), (__m512)(b), _CMP_GE_OQ))
#define GE_MASK_f64(a, b) ((uint32_t)_mm512_cmp_pd_mask((__m512d)(a), (__m512d)(b), _CMP_GE_OQ))
#define MAX_f32(a, b) ((v_f32)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define MAX_f64(a, b) ((v_f64)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
#define FMA_f32(a, b, c) ((v_f32)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define FMA_f64(a, b, c) ((v_f64)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
#elif VECTOR == 32
#define FMA_f32(a, b, c) ((v_f32)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define FMA_f64(a, b, c) ((v_f64)_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))
#define GE_MASK_f32(a, b) ((uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)(a), (__m256)(b), _CMP_GE_OQ)))
#define GE_MASK_f64(a, b) ((uint32_t)_mm256_movemask_pd(_mm256_cmp_pd((__m256d)(a), (__m256d)(b), _CMP_GE_OQ)))
#define MAX_f32(a, b) ((v_f32)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define MAX_f64(a, b) ((v_f64)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
#elif defined(__SSE2__)
#define GE_MASK_f32(a, b) ((uint32_t)_mm_movemask_ps(_mm_cmpge_ps((__m128)(a), (__m128)(b))))
#define GE_MASK_f64(a, b) ((uint32_t)_mm_movemask_pd(_mm_cmpge_pd((__m128d)(a), (__m128d)(b))))
#define MAX_f32(a, b) ((v_f32)_mm_max_ps((__m128)(a), (__m128)(b)))
#define MAX_f64(a, b) ((v_f64)_mm_max_pd((__m128d)(a), (__m128d)(b)))
#elif defined(SH_NEON)
static inline uint32_t mask_of_f32(uint32x4_t m) { return vaddvq_u32(vandq_u32(m, (uint32x4_t){1, 2, 4, 8})); }
static inline uint32_t mask_of_f64(uint64x2_t m) { return (uint32_t)vaddvq_u64(vandq_u64(m, (uint64x2_t){1, 2})); }
#define GE_MASK_f32(a, b) mask_of_f32(vcgeq_f32((float32x4_t)(a), (float32x4_t)(b)))
#define GE_MASK_f64(a, b) mask_of_f64(vcgeq_f64((float64x2_t)(a), (float64x2_t)(b)))
#define MAX_f32(a, b)                                                                                                  \
    ((v_f32)vbslq_f32(vcgtq_f32((float32x4_t)(a), (float32x4_t)(b)), (float32x4_t)(a), (float32x4_t)(b)))
#define MAX_f64(a, b)                                                                                                  \
    ((v_f64)vbslq_f64(vcgtq_f64((float64x2_t)(a), (float64x2_t)(b)), (float64x2_t)(a), (float64x2_t)(b)))
#define FMA_f32(a, b, c) ((v_f32)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define FMA_f64(a, b, c) ((v_f64)vfmaq_f64((float64x2_t)(c), (float64x2_t)(a), (float64x2_t)(b)))
#else
#define GE_MASK_f32(a, b) ge_mask_f32((a), (b))
#define GE_MASK_f64(a, b) ge_mask_f64((a), (b))
#define MAX_f32(a, b) max_f32((a), (b))
#define MAX_f64(a, b) max_f64((a), (b))
#define GENERIC_MASKS 1
#endif

#ifndef FMA_f32 /* a * b + c, in one rounding where there is an instruction for it */
#define FMA_f32(a, b, c) ((a) * (b) + (c))
#define FMA_f64(a, b, c) ((a) * (b) + (c))
#endif

/* Vectors of R, and of doubles to sum them in. The loads are unaligned; rows may begin anywhere. */
typedef float v_f32 __attribute__((vector_size(VECTOR)));
typedef double v_f64 __attribute__((vector_size(VECTOR)));
typedef int32_t i_f32 __attribute__((vector_size(VECTOR)));
typedef int64_t i_f64 __attribute__((vector_size(VECTOR)));
#ifdef GENERIC_MASKS
#define GENERIC(T, S)                                                                                                  \
    static inline uint32_t ge_mask_##S(v_##S a, v_##S b) {                                                             \
        uint32_t mask = 0;                                                                                             \
        for (unsigned l = 0; l < VECTOR / sizeof(T); l++) mask |= (uint32_t)(a[l] >= b[l]) << l;                       \
        return mask;                                                                                                   \
    }                                                                                                                  \
    static inline v_##S max_##S(v_##S a, v_##S b) {                                                                    \
        i_##S larger = a > b;                                                                                          \
        return (v_##S)((larger & (i_##S)a) | (~larger & (i_##S)b));                                                    \
    }
GENERIC(float, f32)
GENERIC(double, f64)
#undef GENERIC
#endif

#define ALL_f32(x) ((v_f32){0} + (float)(x))
#define ALL_f64(x) ((v_f64){0} + (double)(x))

/* Returns 2^n for |n| small enough to be a normal number: the exponent field, written directly. */
static inline v_f32 exp2i_f32(i_f32 n) { return (v_f32)((n + 127) << 23); }
static inline v_f64 exp2i_f64(i_f64 n) { return (v_f64)((n + 1023) << 52); }

/* Returns exp(x) for x <= 0 after Cody and Waite: x = n ln 2 + r, |r| <= ln 2 / 2, polynomial of r. Below the last
 * normal number the result is 0: such weights are below 1e-38 of the largest. */
static inline v_f32 exp_f32(v_f32 x) {
    const float rounder = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = MAX_f32(x, ALL_f32(-88.0f));
    v_f32 t = x * 1.44269504088896341f + rounder;
    i_f32 n = (i_f32)t - 0x4B400000;
    t -= rounder;
    v_f32 r = x - t * 0.693359375f;
    r -= t * -2.12194440e-4f;
    v_f32 p = FMA_f32(r, ALL_f32(1.9875691500e-4f), ALL_f32(1.3981999507e-3f));
    p = FMA_f32(p, r, ALL_f32(8.3334519073e-3f));
    p = FMA_f32(p, r, ALL_f32(4.1665795894e-2f));
    p = FMA_f32(p, r, ALL_f32(1.6666665459e-1f));
    p = FMA_f32(p, r, ALL_f32(5.0000001201e-1f));
    p = FMA_f32(p * r, r, r) + 1.0f;
    i_f32 alive = x > -87.3f;
    return (v_f32)(alive & (i_f32)(p * exp2i_f32(n)));
}
static inline v_f64 exp_f64(v_f64 x) {
    const double rounder = 6755399441055744.0; /* 1.5 * 2^52 */
    x = MAX_f64(x, ALL_f64(-709.0));
    v_f64 t = x * 1.4426950408889634 + rounder;
    i_f64 n = (i_f64)t - 0x4338000000000000;
    t -= rounder;
    v_f64 r = x - t * 6.93147180369123816490e-01;
    r -= t * 1.90821492927058770002e-10;
    v_f64 p =
        FMA_f64(r, ALL_f64((1.0 / 6227020800.0)), ALL_f64(1.0 / 479001600.0)); /* Taylor to r^13: 4e-18 relative */
    p = FMA_f64(p, r, ALL_f64(1.0 / 39916800.0));
    p = FMA_f64(p, r, ALL_f64(1.0 / 3628800.0));
    p = FMA_f64(p, r, ALL_f64(1.0 / 362880.0));
    p = FMA_f64(p, r, ALL_f64(1.0 / 40320.0));
    p = FMA_f64(p, r, ALL_f64(1.0 / 5040.0));
    p = FMA_f64(p, r, ALL_f64(1.0 / 720.0));
    p = FMA_f64(p, r, ALL_f64(1.0 / 120.0));
    p = FMA_f64(p, r, ALL_f64(1.0 / 24.0));
    p = FMA_f64(p, r, ALL_f64(1.0 / 6.0));
    p = FMA_f64(p, r, ALL_f64(0.5));
    p = FMA_f64(p * r, r, r) + 1.0;
    i_f64 alive = x > -708.0;
    return (v_f64)(alive & (i_f64)(p * exp2i_f64(n)));
}

typedef v_f64 unaligned_f64 __attribute__((aligned(sizeof(double)), may_alias));

/* Adds y to x, n numbers each; returns the largest sum. */
static inline double add_and_peak(double *x, const double *y, int64_t n) {
    enum { LANES = VECTOR / sizeof(double) };
    v_f64 most = ALL_f64(-INFINITY);
    double best = -INFINITY;
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        v_f64 sum = *(const unaligned_f64 *)(x + j) + *(const unaligned_f64 *)(y + j);
        *(unaligned_f64 *)(x + j) = sum;
        most = MAX_f64(sum, most);
    }
    for (; j < n; j++) {
        x[j] += y[j];
        best = x[j] > best ? x[j] : best;
    }
    for (int l = 0; l < LANES; l++) best = most[l] > best ? most[l] : best;
    return best;
}

/* Returns a float16 as the float it is, by integers and without a branch: the exponent moves to its new place, and once more
 * for infinity and NaN; a subnormal gets an exponent that a subtraction takes off again. No subnormal float is made on
 * the way, so a processor set to flush those changes nothing. */
static inline float float16(uint16_t x) {
    const uint32_t top = 0x1Fu << 23, rebias = 112u << 23, one = 1u << 23;
    uint32_t bits = (uint32_t)(x & 0x7FFF) << 13, exponent = bits & top;
    uint32_t subnormal = exponent == 0 ? one : 0;
    union {
        uint32_t bits;
        float number;
    } y = {.bits = bits + rebias + (exponent == top ? rebias : subnormal)},
      less = {.bits = subnormal ? rebias + one : 0};
    y.number -= less.number;
    y.bits |= (uint32_t)(x & 0x8000) << 16;
    return y.number;
}

/* The last numbers are copied, and a whole vector of them raised: one by one they would take longer. */
#define POWERS(name, power, with_low)                                                                                  \
    static inline void name##_whole(double *restrict y, const double *restrict x, int64_t n, const sh_exponent *e) {   \
        const sh_exponent local = *e;                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const double base = (with_low) ? 1 + x[i] : x[i];                                                          \
            y[i] = power(&local, base, (with_low) ? x[i] - (base - 1) : 0, with_low);                                  \
        }                                                                                                              \
    }                                                                                                                  \
    static void name(double *restrict y, const double *restrict x, int64_t n, const sh_exponent *e) {                  \
        enum { LANES = VECTOR / sizeof(double) };                                                                      \
        const int64_t whole = n / LANES * LANES;                                                                       \
        name##_whole(y, x, whole, e);                                                                                  \
        if (whole == n) return;                                                                                        \
        double last[LANES], powers[LANES];                                                                             \
        for (int l = 0; l < LANES; l++) last[l] = whole + l < n ? x[whole + l] : 0;                                    \
        name##_whole(powers, last, LANES, e);                                                                          \
        for (int64_t l = 0; whole + l < n; l++) y[whole + l] = powers[l];                                              \
    }
POWERS(powers, sh_power_fast, 0)
POWERS(powers_near, sh_power_near, 0)
POWERS(powers_1p, sh_power_fast, 1)
POWERS(powers_1p_near, sh_power_near, 1)
#undef POWERS

#define R float
#define S f32
#define UNIT 0x1p-24
#define SMALLEST 0x1p-126
#define LARGEST 0x1.fffffep127
#include "kernels/kernels_real.h"
#undef R
#undef S
#undef UNIT
#undef SMALLEST
#undef LARGEST

#define R double
#define S f64
#define UNIT 0x1p-53
#define SMALLEST 0x1p-1022
#define LARGEST 0x1.fffffffffffffp1023
#include "kernels/kernels_real.h"
