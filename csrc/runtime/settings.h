/* settings.h: a thread's floating-point settings: rounding, subnormal numbers, traps, and the flags raised so far.
 * Other libraries change them, and new threads inherit them. What is computed here is computed with the settings of C:
 * round to nearest, keep subnormals, no traps. */
#ifndef SH_SETTINGS_H
#define SH_SETTINGS_H
#include <stdint.h>
#if defined(__x86_64__) && defined(_WIN32)
/* The x87, too: exp() and others of mingw-w64 use it, and Windows begins threads with another precision than mingw-w64
 * begins programs with, which is that of long double. */
#include <xmmintrin.h>
typedef struct {
    unsigned sse;
    uint16_t x87;
} sh_float_settings;
static inline void sh_float_restore(sh_float_settings before) {
    _mm_setcsr(before.sse);
    __asm__ __volatile__("fldcw %0" ::"m"(before.x87));
}
static inline sh_float_settings sh_float_default(void) {
    sh_float_settings before = {.sse = _mm_getcsr()};
    __asm__ __volatile__("fnstcw %0" : "=m"(before.x87));
    sh_float_restore((sh_float_settings){.sse = 0x1F80, .x87 = 0x037F}); /* all exceptions masked, nothing else */
    return before;
}
#elif defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned sh_float_settings;
static inline sh_float_settings sh_float_default(void) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(0x1F80); /* all exceptions masked, nothing else */
    return before;
}
static inline void sh_float_restore(sh_float_settings before) { _mm_setcsr(before); }
#elif defined(__aarch64__)
typedef struct {
    uint64_t control, flags;
} sh_float_settings;
static inline sh_float_settings sh_float_default(void) {
    sh_float_settings before;
    __asm__ __volatile__("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(before.control), "=r"(before.flags)::"memory");
    __asm__ __volatile__("msr fpcr, %0" ::"r"((uint64_t)0) : "memory");
    return before;
}
static inline void sh_float_restore(sh_float_settings before) {
    __asm__ __volatile__("msr fpcr, %0\n\tmsr fpsr, %1" ::"r"(before.control), "r"(before.flags) : "memory");
}
#else
#include <fenv.h>
typedef fenv_t sh_float_settings;
static inline sh_float_settings sh_float_default(void) {
    fenv_t before;
    fegetenv(&before);
    fesetenv(FE_DFL_ENV);
    return before;
}
static inline void sh_float_restore(sh_float_settings before) { fesetenv(&before); }
#endif
/* sh_float_default: sets these in this thread; returns the settings before, for sh_float_restore. */
#endif
