/* vectors.h: what the vector extensions of GCC and of Clang need to be one language. */
#ifndef SH_VECTORS_H
#define SH_VECTORS_H
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SH_CAT_(a, b) a##b
#define SH_CAT(a, b) SH_CAT_(a, b)

/* SH_EACH: expands to f(0), f(1), ..., f(n - 1). n is 2, 4, 8 or 16, or a macro that stands for one of these. */
#define SH_EACH(n, f) SH_CAT(SH_EACH_, n)(f)
#define SH_EACH_2(f) f(0), f(1)
#define SH_EACH_4(f) SH_EACH_2(f), f(2), f(3)
#define SH_EACH_8(f) SH_EACH_4(f), f(4), f(5), f(6), f(7)
#define SH_EACH_16(f) SH_EACH_8(f), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)

/* SH_SHUFFLE: picks lanes of two vectors by their numbers, which are constants; the lanes of the second vector are counted
 * on from those of the first. `Mask` is a vector type of integers of the lanes' size. */
#if defined(__clang__) || __GNUC__ >= 12
#define SH_SHUFFLE(Mask, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SH_SHUFFLE(Mask, a, b, ...) __builtin_shuffle(a, b, (Mask){__VA_ARGS__})
#endif

/* SH_UNROLL: before a loop, has up to n of its rounds written out; only then do vectors in arrays stay in registers. */
#if defined(__clang__)
#define SH_UNROLL(n) SH_PRAGMA(unroll n)
#else
#define SH_UNROLL(n) SH_PRAGMA(GCC unroll n)
#endif
#define SH_PRAGMA(words) _Pragma(#words)
#endif
