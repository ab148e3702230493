/* dispatch.c: the tables of kernels of all instruction sets; one is chosen, once, by sh_initialise. Compiled once. */
#include "kernels/codes.h"
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "runtime/runtime.h"
#include "runtime/system.h"
#include <string.h>

typedef struct {
    const char *name;
    const sh_kernels *f32, *f64;
    const sh_code_kernels *codes;
    const sh_lane_tables *lanes;
} level;

#define LEVEL(name) {#name, &sh_kernels_##name##_f32, &sh_kernels_##name##_f64, &sh_codes_##name, &sh_lanes_##name}
#define DECLARE(name)                                                                                                  \
    extern const sh_kernels sh_kernels_##name##_f32, sh_kernels_##name##_f64;                                          \
    extern const sh_code_kernels sh_codes_##name;                                                                      \
    extern const sh_lane_tables sh_lanes_##name
DECLARE(base);
#ifdef SH_HAVE_AVX2
DECLARE(avx2);
#endif
#ifdef SH_HAVE_AVX512
DECLARE(avx512);
#endif
#ifdef SH_HAVE_VNNI
DECLARE(vnni);
#endif
#ifdef SH_HAVE_NEON
DECLARE(neon);
#endif
#ifdef SH_HAVE_DOTPROD
DECLARE(dotprod);
#endif

static const level levels[] = {
    /* from the lowest to the highest */
    LEVEL(base),
#ifdef SH_HAVE_AVX2
    LEVEL(avx2),
#endif
#ifdef SH_HAVE_AVX512
    LEVEL(avx512),
#endif
#ifdef SH_HAVE_VNNI
    LEVEL(vnni),
#endif
#ifdef SH_HAVE_NEON
    LEVEL(neon),
#endif
#ifdef SH_HAVE_DOTPROD
    LEVEL(dotprod),
#endif
};
enum { LEVELS = sizeof levels / sizeof *levels };

static const level *chosen = &levels[0];
static char available[64] = "base";

static int runs(const char *name) {
#if defined(__x86_64__)
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (!strcmp(name, "vnni")) return runs("avx512") && __builtin_cpu_supports("avx512vnni");
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512cd");
#elif defined(__aarch64__)
    if (!strcmp(name, "neon")) return 1; /* every processor of 64 bits has it */
    if (!strcmp(name, "dotprod")) return sh_has_dot_products();
#endif
    return !strcmp(name, "base");
}

static void append(char *names, const char *name) {
    if (*names) strcat(names, " ");
    strcat(names, name);
}

static void choose_kernels(void) {
    static char built[64] = "one of:";
    const char *limit = sh_setting("SPARSEHOPFIELD_SIMD");
    int ceiling = limit ? -1 : LEVELS - 1;
    for (int i = 0; i < LEVELS; i++) {
        append(built, levels[i].name);
        if (limit && !strcmp(limit, levels[i].name)) ceiling = i;
    }
    if (ceiling < 0) {
        sh_ignore_setting("SPARSEHOPFIELD_SIMD", limit, built);
        ceiling = LEVELS - 1;
    }
    available[0] = 0;
    for (int i = 0; i < LEVELS; i++) {
        if (!runs(levels[i].name)) continue;
        append(available, levels[i].name);
        if (i <= ceiling) chosen = &levels[i];
    }
}

const sh_kernels *sh_kernels_of(sh_type type) { return type == SH_FLOAT64 ? chosen->f64 : chosen->f32; }

void sh_widen(const sh_kernels *k, const sh_rows *rows, const void *x, int64_t n, void *y) {
    const float scale = rows->scale == 0 ? 1 : rows->scale;
    if (rows->type == SH_UINT8)
        k->from_uint8(y, x, n, scale);
    else if (rows->type == SH_FLOAT16)
        k->from_float16(y, x, n, scale);
    else
        chosen->f32->to_double(y, x, n);
}
const sh_code_kernels *sh_code_kernels_chosen(void) { return chosen->codes; }
const sh_lanes *sh_lanes_for(sh_type type, int64_t wanted) {
    int f64 = type == SH_FLOAT64;
    const sh_lanes *shorter = chosen->lanes->shorter[f64];
    return wanted <= shorter->lanes ? shorter : chosen->lanes->longest[f64];
}
const char *sh_simd_level(void) { return chosen->name; }
const char *sh_simd_available(void) { return available; }

/* The slack of the scan (retrieval/scan.c) assumes float32 products with unit roundoff 2^-24. A BLAS that
 * computes them in bf16 or TF32 would break it: (1 + 2^-20) * 1 must come out exact. */
static int products_are_float32(void) {
    enum { K = 32, N = 16 };
    float a[N * K], b[N * K], c[N * N];
    for (int i = 0; i < N * K; i++) {
        a[i] = 1 + 0x1p-20f;
        b[i] = i % K == 0;
    }
    sh_kernels_of(SH_FLOAT32)->gemm_nt(N, N, K, a, K, b, K, 0, c, N);
    for (int i = 0; i < N * N; i++)
        if (c[i] != 1 + 0x1p-20f) return 0;
    return 1;
}

static sh_status initialised;
static void initialise(void) {
    const sh_float_settings before = sh_float_default();
    sh_watch_process();
    choose_kernels();
    sh_read_thread_settings();
    initialised = products_are_float32() ? SH_OK : SH_UNDEFINED;
    sh_float_restore(before);
}

sh_status sh_initialise(void) {
    static sh_once_flag once = SH_ONCE_INIT;
    sh_once(&once, initialise);
    return initialised;
}
