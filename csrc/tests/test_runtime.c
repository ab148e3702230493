/* The runtime: scratch memory, loops over work items and their failures, products of any shape, threads, settings, and how
 * much memory is left. */
#define _GNU_SOURCE
#include "runtime/runtime.h"
#include "check.h"
#include "runtime/blas.h"
#include "runtime/workspace.h"

#include <fenv.h>
#ifdef __linux__
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

static void names_and_versions(void) {
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", SH_VERSION_MAJOR, SH_VERSION_MINOR, SH_VERSION_PATCH);
    CHECK(!strcmp(text, SH_VERSION_STRING) && !strcmp(text, sh_version()));
    CHECK(sh_version_number() == SH_VERSION_NUMBER);
    for (int s = SH_OK; s <= SH_FORKED; s++) {
        CHECK(strcmp(sh_status_name((sh_status)s), "unknown"));
        for (int t = SH_OK; t < s; t++) CHECK(strcmp(sh_status_name((sh_status)s), sh_status_name((sh_status)t)));
    }
    CHECK(!strcmp(sh_status_name((sh_status)99), "unknown") && !strcmp(sh_status_name((sh_status)-1), "unknown"));
    CHECK(strstr(sh_simd_available(), sh_simd_level()) != NULL);
    CHECK(*sh_blas_core() && *sh_blas_version());
}

/* The environment of this test has one setting that cannot be followed (main). */
static void configuration(void) {
    const sh_ignored *ignored;
    CHECK(sh_ignored_settings(&ignored) == 1);
    CHECK(!strcmp(ignored[0].name, "SPARSEHOPFIELD_NUM_THREADS") && !strcmp(ignored[0].value, "many"));
    CHECK(sh_get_num_threads() == 3); /* OMP_NUM_THREADS=3,2 */
    CHECK(sh_set_num_threads(5) == 3 && sh_get_num_threads() == 5);
    CHECK(sh_set_num_threads(0) == 5 && sh_get_num_threads() == 1);
    CHECK(sh_set_num_threads(1000) == 1 && sh_get_num_threads() == SH_MAX_THREADS);
    CHECK(sh_initialise() == SH_OK && sh_get_num_threads() == SH_MAX_THREADS); /* the second time it does nothing */
}

static void scratch_memory(void) {
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 1);
    for (int64_t n = 1; n < 300; n += 7) {
        char *block = sh_allocate(&context, n, 3);
        if (!CHECK(block && (uintptr_t)block % 64 == 0)) return;
        memset(block, 1, (size_t)(3 * n));
        sh_release(&context, block);
    }
    CHECK(l.live == 0 && l.made == 43);
    CHECK(sh_allocate(&context, -1, 8) == NULL && sh_allocate(&context, INT64_MAX, 8) == NULL);
    CHECK(sh_allocate(&context, INT64_MAX, 1) == NULL && l.made == 43); /* nobody was asked */
    sh_release(&context, NULL);
    l.fail_at = l.made;
    CHECK(sh_allocate(&context, 1, 1) == NULL);
    sh_context plain = {.threads = 1}; /* malloc and free */
    char *large = sh_allocate(&plain, 8 << 20, 1);
    CHECK(large != NULL && (uintptr_t)large % 64 == 0);
    if (large) large[(8 << 20) - 1] = 1;
    sh_release(&plain, large);
    /* blocks of a middling size are kept for the next call, of that size or a little less */
    enum { MIDDLING = 256 << 10, BLOCKS = 20 };
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        if (!CHECK((blocks[i] = sh_allocate(&plain, MIDDLING, 1)) != NULL)) return;
        memset(blocks[i], i, MIDDLING);
        for (int j = 0; j < i; j++) CHECK(blocks[j] != blocks[i] && blocks[j][MIDDLING - 1] == j);
    }
    for (int i = 0; i < BLOCKS; i++) sh_release(&plain, blocks[i]);
    char *half = sh_allocate(&plain, MIDDLING / 2, 1), *same = sh_allocate(&plain, MIDDLING - 100, 1);
    int among = 0;
    for (int i = 0; i < BLOCKS; i++) among |= same == blocks[i];
#ifndef SH_POISON
    CHECK(among);
#endif
    CHECK(half && same && half != same && (uintptr_t)same % 64 == 0);
    sh_release(&plain, same);
    char *more = sh_allocate(&plain, MIDDLING + 1, 1);
    if (CHECK(more != NULL)) memset(more, 1, MIDDLING + 1);
    sh_release(&plain, more);
    sh_release(&plain, half);
}

/* --- loops ------------------------------------------------------------------------------------------ */

enum { ITEMS = 300 };
typedef struct {
    atomic_int seen[ITEMS], began;
    int64_t fails, also_fails; /* items; < 0: none */
    int inner;                 /* whether every item is a loop */
    size_t scratch;
} looping;

static void workspaces(void) {
    enum { ARRAYS = 3 };
    static const int64_t count[ARRAYS] = {5, 0, 16};
    char *at[ARRAYS];
    sh_context context = {0};
    sh_workspace counted = {NULL, 0};
    for (int i = 0; i < ARRAYS; i++) CHECK(!sh_take(&counted, count[i], sizeof(double)));
    sh_workspace w = {sh_allocate(&context, 1, counted.used), 0};
    CHECK(w.block != NULL);
    for (int i = 0; i < ARRAYS; i++) {
        at[i] = sh_take(&w, count[i], sizeof(double));
        CHECK((uintptr_t)at[i] % 64 == 0);
        memset(at[i], i, (size_t)count[i] * sizeof(double));
        if (i > 0) CHECK(at[i] - at[i - 1] >= count[i - 1] * (int64_t)sizeof(double) + SH_RED_ZONE);
    }
    CHECK(w.used == counted.used);
    CHECK(at[2][0] == 2 && at[0][0] == 0);
#ifdef SH_POISON
    CHECK(__asan_address_is_poisoned(at[0] + 5 * sizeof(double)) && __asan_address_is_poisoned(at[1]));
#endif
    sh_release(&context, w.block);
    /* sizes beyond all memory are refused by the allocation, however often more is added */
    static const int64_t many[] = {INT64_MAX, PTRDIFF_MAX / 8, 1, -1};
    for (int i = 0; i < 4; i++) {
        sh_workspace beyond = {NULL, PTRDIFF_MAX / 2};
        sh_take(&beyond, many[i], sizeof(double));
        if (i != 2) CHECK(beyond.used == PTRDIFF_MAX && !sh_allocate(&context, 1, beyond.used));
        sh_take(&beyond, PTRDIFF_MAX / 2 - 128, 1);
        if (i != 2) CHECK(beyond.used == PTRDIFF_MAX);
    }
}

static sh_status count_inner(void *job, int64_t item, void *scratch, sh_context *context) {
    looping *j = job;
    (void)item, (void)scratch;
    atomic_fetch_add(&j->seen[0], 1);
    return sh_stopped(context) ? SH_INTERRUPTED : SH_OK;
}

static sh_status count_item(void *job, int64_t item, void *scratch, sh_context *context) {
    looping *j = job;
    atomic_fetch_add(&j->began, 1);
    if (j->inner) {
        sh_status status = sh_for_each(context, 3, 0, count_inner, j);
        return status != SH_OK ? status : sh_stopped(context) ? SH_INTERRUPTED : SH_OK; /* of the outer loop again */
    }
    atomic_fetch_add(&j->seen[item], 1);
    if (j->scratch) { /* nobody else writes there meanwhile */
        volatile char *own_scratch = scratch;
        const char mark = (char)item;
        for (size_t i = 0; i < j->scratch; i++) own_scratch[i] = mark;
        for (size_t i = 0; i < j->scratch; i++)
            if (own_scratch[i] != mark || (uintptr_t)scratch % 64)
                return sh_fail(context, SH_UNDEFINED, "scratch", item);
    }
    if (item == j->fails || item == j->also_fails) return sh_fail(context, SH_NOT_FINITE, "numbers", 1000 + item);
    return SH_OK;
}

static int stops_at_third(void *user) { return ++*(int *)user >= 3; }

static void loops(void) {
    static const int threads[] = {-1, 1, 2, 5, 64, 1000};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        ledger l = {.fail_at = -1};
        sh_context context = context_of(&l, threads[t]);
        looping j = {.fails = -1, .also_fails = -1, .scratch = 100};
        CHECK_OK(sh_for_each(&context, ITEMS, j.scratch, count_item, &j));
        int once = 1;
        for (int i = 0; i < ITEMS; i++) once &= j.seen[i] == 1;
        CHECK(once && l.live == 0);
        CHECK_OK(sh_for_each(&context, 0, 64, count_item, NULL));
        CHECK_OK(sh_for_each(&context, -5, 64, count_item, NULL));

        looping failing = {.fails = 0, .also_fails = 1};
        CHECK_REFUSED(context, sh_for_each(&context, ITEMS, 0, count_item, &failing), SH_NOT_FINITE, "numbers");
        CHECK(context.row == 1000 || (threads[t] > 1 && context.row == 1001));
        CHECK(threads[t] > 1 || failing.began == 1);

        looping nested = {.inner = 1};
        CHECK_OK(sh_for_each(&context, 50, 0, count_item, &nested));
        CHECK(nested.began == 50 && nested.seen[0] == 150);

        int asked = 0;
        sh_context stopping = {.threads = threads[t], .interrupted = stops_at_third, .user = &asked};
        looping stopped = {.fails = -1, .also_fails = -1};
        const sh_status status = sh_for_each(&stopping, ITEMS, 0, count_item, &stopped);
        if (threads[t] <= 1) CHECK(status == SH_INTERRUPTED && asked == 3 && stopped.began == 3);
        CHECK(status == SH_INTERRUPTED || status == SH_OK); /* others may have done it all meanwhile */
    }
    ledger l = {.fail_at = 0};
    sh_context context = context_of(&l, 4);
    looping j = {.fails = -1, .also_fails = -1};
    CHECK(sh_for_each(&context, ITEMS, 10, count_item, &j) == SH_NO_MEMORY && j.began == 0 && l.live == 0);
    l.fail_at = -1;
    CHECK_OK(sh_each(&context, 5, 0, 1.0, count_item, &j));
    CHECK(j.began == 5);
}

static void count_part(void *job, int part) { atomic_fetch_add((atomic_int *)job + part, 1); }

static void parts(void) {
    for (int round = 0; round < 200; round++) {
        atomic_int seen[40] = {0};
        const int n = 1 + round % 40;
        sh_parallel(count_part, seen, n, 1 + round % 7);
        int once = 1;
        for (int i = 0; i < 40; i++) once &= seen[i] == (i < n);
        CHECK(once);
    }
}

/* --- products ------------------------------------------------------------------------------------------ */

static void products(void) {
    uint64_t seed = 1;
    for (int round = 0; round < 200; round++) {
        const sh_type type = round & 1 ? SH_FLOAT64 : SH_FLOAT32;
        const int ta = round >> 1 & 1, tb = round >> 2 & 1, add = round >> 3 & 1;
        const int64_t m = 1 + (int64_t)(9 * uniform(&seed)), n = 1 + (int64_t)(9 * uniform(&seed)),
                      k = 1 + (int64_t)(40 * uniform(&seed));
        const int64_t lda = (ta ? m : k) + round % 3, ldb = (tb ? k : n) + round % 2, ldc = n + round % 4;
        const double factor = round % 5 ? 1 : -0.5;
        void *a = normals(type, (ta ? k : m) * lda, 1, &seed), *b = normals(type, (tb ? n : k) * ldb, 1, &seed);
        void *c = normals(type, m * ldc, 1, &seed), *before = own(m * ldc, size_of(type));
        memcpy(before, c, (size_t)(m * ldc) * size_of(type));
        if (type == SH_FLOAT64)
            sh_gemm_f64(ta, tb, m, n, k, factor, a, lda, b, ldb, add, c, ldc);
        else
            sh_gemm_f32(ta, tb, m, n, k, factor, a, lda, b, ldb, add, c, ldc);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < ldc; j++) {
                double sum = 0, size = 0;
                for (int64_t l = 0; j < n && l < k; l++) {
                    const double product =
                        get(a, type, ta ? l * lda + i : i * lda + l) * get(b, type, tb ? j * ldb + l : l * ldb + j);
                    sum += factor * product;
                    size += fabs(product);
                }
                const double old = get(before, type, i * ldc + j);
                if (j >= n || add) sum += old; /* beyond a row nothing changes */
                const double unit = type == SH_FLOAT64 ? 0x1p-53 : 0x1p-24;
                CHECK_NEAR(get(c, type, i * ldc + j), sum, j < n ? (double)(k + 2) * unit * (size + fabs(old)) : 0);
            }
        free(a), free(b), free(c), free(before);
    }
}

/* --- settings ------------------------------------------------------------------------------------------ */

/* Returns a third, rounded here and now. */
static double third(void) {
    volatile double one = 1, three = 3, quotient = one / three;
    return quotient;
}

static void settings(void) {
    const double nearest = third();
    if (fesetround(FE_UPWARD) != 0 || third() == nearest) {
        puts("only one way of rounding here (as under valgrind): settings are not tried");
        fesetround(FE_TONEAREST);
        return;
    }
    const sh_float_settings before = sh_float_default();
    CHECK(third() == nearest);
    sh_float_restore(before);
    CHECK(third() > nearest);
    fesetround(FE_TONEAREST);
}

/* --- memory that is left -------------------------------------------------------------------------------- */

#ifdef __linux__
static char root[] = "/tmp/sh-runtime-XXXXXX";

/* Writes a file of the pretended system, and the folders above it. */
static void write_file(const char *name, const char *content) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *at = path + strlen(root); (at = strchr(at, '/')); *at++ = '/') {
        *at = 0;
        mkdir(path, 0700);
    }
    FILE *file = fopen(path, "w");
    if (!CHECK(file != NULL)) return;
    fputs(content, file);
    fclose(file);
}

static void forget_files(void) {
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", root);
    CHECK(system(command) == 0);
}

/* Checks what is found in the files of a system: this process's own limits, which are none, aside. */
static void memory_of_systems(void) {
    static const struct {
        const char *file[4], *content[4];
        int64_t left;
    } systems[] = {
        {{"proc/cpuinfo"}, {""}, INT64_MAX},
        {{"proc/meminfo"}, {"MemTotal: 9 kB\nMemAvailable:   4096 kB\n"}, 4096 << 10},
        {{"proc/meminfo", "proc/self/cgroup", "proc/self/mountinfo"},
         {"?", "::::\n\n", "- cgroup2\n - cgroup2\n"},
         INT64_MAX},
        {{"proc/self/cgroup", "proc/self/mountinfo", "cg/a/memory.max", "cg/a/memory.current"},
         {"0::/a\n", "30 23 0:27 / /cg rw shared:9 - cgroup2 cgroup2 rw\n", "1000000\n", "400000\n"},
         600000},
        {{"proc/self/cgroup", "proc/self/mountinfo", "cg/a/memory.max", "cg/a/memory.current"},
         {"0::/a/b\n", "30 23 0:27 / /cg rw - cgroup2 cgroup2 rw\n", "1000000\n", "2000000\n"},
         0},
        {{"proc/self/cgroup", "proc/self/mountinfo", "cg/a/memory.max", "cg/a/memory.current"},
         {"0::/a\n", "30 23 0:27 / /cg rw - cgroup2 cgroup2 rw\n", "max\n", "2000000\n"},
         INT64_MAX},
        {{"proc/self/cgroup", "proc/self/mountinfo", "cg/m/p/memory.limit_in_bytes", "cg/m/p/memory.usage_in_bytes"},
         {"4:memory:/p\n0::/\n", "35 31 0:32 / /cg/m rw - cgroup cgroup rw,memory\n", "700000\n", "200000\n"},
         500000},
    };
    const int64_t limits = sh_available_memory_under("/nowhere");
    for (size_t i = 0; i < sizeof systems / sizeof *systems; i++) {
        for (int f = 0; f < 4 && systems[i].file[f]; f++) write_file(systems[i].file[f], systems[i].content[f]);
        CHECK(sh_available_memory_under(root) == sh_min(systems[i].left, limits));
        forget_files();
    }
}

static void memory_of_limits(void) {
    enum { ROOM = 300 << 20, NEAR = 64 << 20 };
    struct rlimit before, less, now;
    long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    const int read = file && fscanf(file, "%lld", &pages) == 1;
    if (file) fclose(file);
    if (!CHECK(read && getrlimit(RLIMIT_AS, &before) == 0)) return;
    less = before;
    less.rlim_cur = (rlim_t)(pages * sysconf(_SC_PAGESIZE) + ROOM);
    const int64_t all = sh_available_memory();
    if (less.rlim_cur > before.rlim_max || setrlimit(RLIMIT_AS, &less) != 0) return; /* there is a hard limit below */
    const int64_t left = sh_available_memory();
    if (getrlimit(RLIMIT_AS, &now) != 0 || now.rlim_cur != less.rlim_cur) return; /* emulators keep no such limit */
    setrlimit(RLIMIT_AS, &before);
    CHECK(llabs(left - sh_min(all, ROOM)) < NEAR);
}

static void available_memory(void) {
    CHECK(mkdtemp(root) != NULL);
    memory_of_systems();
    memory_of_limits();
    CHECK(sh_available_memory() > 0);
    sh_set_available_memory(12345);
    CHECK(sh_available_memory() == 12345);
    sh_set_available_memory(-1);
    CHECK(sh_available_memory() != 12345);
}
#else
static void available_memory(void) { CHECK(sh_available_memory() > 0); }
#endif

int main(void) {
#ifdef _WIN32
    _putenv("SPARSEHOPFIELD_NUM_THREADS=many");
    _putenv("OMP_NUM_THREADS=3,2");
#else
    setenv("SPARSEHOPFIELD_NUM_THREADS", "many", 1);
    setenv("OMP_NUM_THREADS", "3,2", 1);
#endif
    CHECK_OK(sh_initialise());
    names_and_versions();
    configuration();
    scratch_memory();
    workspaces();
    loops();
    parts();
    products();
    settings();
    available_memory();
    return checked("runtime");
}
