/* machine.c: settings of the environment, the number of threads, and what is reported of the BLAS and the library. */
#include "runtime/runtime.h"
#include "runtime/blas.h"
#include "runtime/system.h"
#include <ctype.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_int threads;

/* Settings of the environment that cannot be followed */
static sh_ignored ignored[3];
static int ignored_count;

int sh_ignored_settings(const sh_ignored **list) {
    if (list) *list = ignored;
    return ignored_count;
}

void sh_ignore_setting(const char *name, const char *value, const char *allowed) {
    sh_ignored *i = &ignored[ignored_count++];
    i->name = name;
    i->allowed = allowed;
    snprintf(i->value, sizeof i->value, "%s", value);
}

const char *sh_setting(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* The count that a variable asks for, or 0. A list, as OpenMP has them, counts by its first number. */
static int threads_asked(const char *name, int may_be_list, const char *allowed) {
    const char *value = sh_setting(name);
    if (!value) return 0;
    char *end;
    long n = strtol(value, &end, 10);
    while (isspace((unsigned char)*end)) end++;
    if (n >= 1 && (*end == 0 || (may_be_list && *end == ',')) && (may_be_list || n <= SH_MAX_THREADS))
        return (int)sh_min(n, SH_MAX_THREADS);
    sh_ignore_setting(name, value, allowed);
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

void sh_read_thread_settings(void) {
    int n = threads_asked("SPARSEHOPFIELD_NUM_THREADS", 0, "a whole number from 1 to 64");
    if (n == 0) n = threads_asked("OMP_NUM_THREADS", 1, "a list of whole numbers of at least 1");
    atomic_store(&threads, n);
}

const char *sh_version(void) { return SH_VERSION_STRING; }
int sh_version_number(void) { return SH_VERSION_NUMBER; }

const char *sh_status_name(sh_status status) {
    static const char *const names[] = {"ok",       "no memory",    "interrupted", "not finite", "overflow",
                                        "zero row", "bad argument", "undefined",   "singular",   "forked"};
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown";
}
