/* machine.c: what this machine offers: instruction sets, processors, the BLAS; chosen once, then reported. */
#include "runtime/runtime.h"
#include "kernels/codes.h"
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "runtime/blas.h"
#include "runtime/system.h"
#include <ctype.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
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
static atomic_int threads;

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

/* Settings of the environment that cannot be followed */
static sh_ignored ignored[3];
static int ignored_count;

int sh_ignored_settings(const sh_ignored **list) {
    if (list) *list = ignored;
    return ignored_count;
}

static void ignore(const char *name, const char *value, const char *allowed) {
    sh_ignored *i = &ignored[ignored_count++];
    i->name = name;
    i->allowed = allowed;
    snprintf(i->value, sizeof i->value, "%s", value);
}

/* NULL where it is not set, or empty */
static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static void append(char *names, const char *name) {
    if (*names) strcat(names, " ");
    strcat(names, name);
}

static void choose_kernels(void) {
    static char built[64] = "one of:";
    const char *limit = setting("SPARSEHOPFIELD_SIMD");
    int ceiling = limit ? -1 : LEVELS - 1;
    for (int i = 0; i < LEVELS; i++) {
        append(built, levels[i].name);
        if (limit && !strcmp(limit, levels[i].name)) ceiling = i;
    }
    if (ceiling < 0) {
        ignore("SPARSEHOPFIELD_SIMD", limit, built);
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
const sh_code_kernels *sh_code_kernels_chosen(void) { return chosen->codes; }
const sh_lanes *sh_lanes_for(sh_type type, int64_t wanted) {
    int f64 = type == SH_FLOAT64;
    const sh_lanes *half = chosen->lanes->half[f64];
    return wanted <= half->lanes ? half : chosen->lanes->wide[f64];
}
const char *sh_simd_level(void) { return chosen->name; }
const char *sh_simd_available(void) { return available; }

/* The count that a variable asks for, or 0. A list, as OpenMP has them, counts by its first number. */
static int threads_asked(const char *name, int may_be_list, const char *allowed) {
    const char *value = setting(name);
    if (!value) return 0;
    char *end;
    long n = strtol(value, &end, 10);
    while (isspace((unsigned char)*end)) end++;
    if (n >= 1 && (*end == 0 || (may_be_list && *end == ',')) && (may_be_list || n <= SH_MAX_THREADS))
        return (int)sh_min(n, SH_MAX_THREADS);
    ignore(name, value, allowed);
    return 0;
}

int sh_get_num_threads(void) {
    int n = atomic_load(&threads);
    if (n == 0) atomic_store(&threads, n = (int)sh_min(sh_processors(), SH_MAX_THREADS));
    return n;
}

int sh_set_num_threads(int n) {
    int before = sh_get_num_threads();
    atomic_store(&threads, (int)sh_min(sh_max(n, 1), SH_MAX_THREADS));
    return before;
}

const char *sh_blas_core(void) { return BLAS(openblas_get_corename)(); }
const char *sh_blas_version(void) { return BLAS(openblas_get_config)(); }
int sh_blas_threads(void) { return BLAS(openblas_get_num_threads)(); }

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
    int n = threads_asked("SPARSEHOPFIELD_NUM_THREADS", 0, "a whole number from 1 to 64");
    if (n == 0) n = threads_asked("OMP_NUM_THREADS", 1, "a list of whole numbers of at least 1");
    atomic_store(&threads, n);
    initialised = products_are_float32() ? SH_OK : SH_UNDEFINED;
    sh_float_restore(before);
}

sh_status sh_initialise(void) {
    static sh_once_flag once = SH_ONCE_INIT;
    sh_once(&once, initialise);
    return initialised;
}

const char *sh_version(void) { return SH_VERSION_STRING; }
int sh_version_number(void) { return SH_VERSION_NUMBER; }

const char *sh_status_name(sh_status status) {
    static const char *const names[] = {"ok",       "no memory",    "interrupted", "not finite", "overflow",
                                        "zero row", "bad argument", "undefined",   "singular",   "forked"};
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown";
}
