/* check.h: what the tests of the rooms share: checks that say where they failed, numbers by chance, and an allocator that
 * counts and fails on request. */
#ifndef SH_CHECK_H
#define SH_CHECK_H
#include "larger.h"
#include "sparsehopfield.h"
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks_made, checks_failed;
enum { CHECKS_SHOWN = 20 };

/* Counts a check, and says file and line where it does not hold; returns whether it does. */
static inline int check_at(int holds, const char *what, const char *file, int line) {
    checks_made++;
    if (!holds && ++checks_failed <= CHECKS_SHOWN) fprintf(stderr, "%s:%d: %s\n", file, line, what);
    return holds;
}

/* The same of two numbers that must differ by at most `most`; NaN only equals NaN, infinity itself. */
static inline int check_near_at(double found, double wanted, double most, const char *what, const char *file,
                                int line) {
    const int same = found == wanted || (isnan(found) && isnan(wanted)) || fabs(found - wanted) <= most;
    if (!check_at(same, what, file, line) && checks_failed <= CHECKS_SHOWN)
        fprintf(stderr, "    found %.17g, wanted %.17g within %g\n", found, wanted, most);
    return same;
}

/* The same of a status. */
static inline int check_status_at(sh_status found, sh_status wanted, const char *what, const char *file, int line) {
    if (!check_at(found == wanted, what, file, line) && checks_failed <= CHECKS_SHOWN)
        fprintf(stderr, "    %s instead of %s\n", sh_status_name(found), sh_status_name(wanted));
    return found == wanted;
}

#define CHECK(holds) check_at(!!(holds), #holds, __FILE__, __LINE__)
#define CHECK_NEAR(found, wanted, most) check_near_at(found, wanted, most, #found, __FILE__, __LINE__)
#define CHECK_OK(call) check_status_at(call, SH_OK, #call, __FILE__, __LINE__)
/* Checks that a call is refused with this status, and that the context names this argument. */
#define CHECK_REFUSED(context, call, status, name)                                                                     \
    do {                                                                                                               \
        (context).argument = NULL;                                                                                     \
        check_status_at(call, status, #call, __FILE__, __LINE__);                                                      \
        check_at((context).argument && !strcmp((context).argument, name), #call ": argument is not " #name, __FILE__,  \
                 __LINE__);                                                                                            \
    } while (0)

/* Ends a test: says how many checks it made, and returns what main returns. */
static inline int checked(const char *room) {
    printf("%s: %d checks, %d failed\n", room, checks_made, checks_failed);
    return checks_failed != 0;
}

/* Returns 64 random bits, by the generator splitmix64 (Steele, Lea & Flood 2014). */
static inline uint64_t draw(uint64_t *state) {
    uint64_t x = (*state += 0x9E3779B97F4A7C15u);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* Returns a number from [0, 1). */
static inline double uniform(uint64_t *state) { return (double)(draw(state) >> 11) * 0x1p-53; }

/* Returns a number about 0 with variance 1, nearly normal: a sum of 12 uniform ones. */
static inline double normal(uint64_t *state) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += uniform(state);
    return sum;
}

/* Returns zeroed memory of the test itself, or ends the program. */
static inline void *own(int64_t count, size_t size) {
    void *block = calloc(count > 0 ? (size_t)count : 1, size);
    if (block) return block;
    fputs("the test has no memory\n", stderr);
    exit(2);
}

static inline size_t size_of(sh_type type) {
    return type == SH_FLOAT64 ? sizeof(double) : type == SH_FLOAT32 ? sizeof(float) : type == SH_FLOAT16 ? 2 : 1;
}
/* Arrays of float or double by type: number i, set and got as double. */
static inline double get(const void *x, sh_type type, int64_t i) {
    return type == SH_FLOAT64 ? ((const double *)x)[i] : (double)((const float *)x)[i];
}
static inline void put(void *x, sh_type type, int64_t i, double number) {
    if (type == SH_FLOAT64)
        ((double *)x)[i] = number;
    else
        ((float *)x)[i] = (float)number;
}
/* Returns n numbers of a type, normal ones times `size`. */
static inline void *normals(sh_type type, int64_t n, double size, uint64_t *state) {
    void *x = own(n, size_of(type));
    for (int64_t i = 0; i < n; i++) put(x, type, i, size * normal(state));
    return x;
}

/* An allocator that counts, and makes allocation number `fail_at` fail (below 0: none). */
typedef struct {
    _Atomic int64_t made, live;
    int64_t fail_at;
} ledger;
static inline void *ledger_allocate(void *user, size_t bytes) {
    ledger *l = user;
    if (atomic_fetch_add(&l->made, 1) == l->fail_at) return NULL;
    void *block = malloc(bytes);
    if (block) atomic_fetch_add(&l->live, 1);
    return block;
}
static inline void ledger_release(void *user, void *block) {
    ledger *l = user;
    if (block) atomic_fetch_sub(&l->live, 1);
    free(block);
}
static inline sh_context context_of(ledger *l, int threads) {
    return (sh_context){.allocate = ledger_allocate, .release = ledger_release, .user = l, .threads = threads};
}

/* Makes each allocation of a call fail in turn: the call must then say SH_NO_MEMORY (or succeed where `may_do_without`),
 * leave no block behind, and be right when it is made again. The call frees what it returns. */
static inline void fail_in_turn(const char *name, sh_status (*call)(sh_context *context, void *given), void *given,
                                int may_do_without) {
    ledger l = {.fail_at = -1};
    sh_context context = context_of(&l, 1);
    check_status_at(call(&context, given), SH_OK, name, __FILE__, __LINE__);
    const int64_t made = l.made;
    check_at(made > 0 && l.live == 0, name, __FILE__, __LINE__);
    for (int64_t n = 0; n < made; n++) {
        l = (ledger){.fail_at = n};
        const sh_status status = call(&context, given);
        check_at(status == SH_NO_MEMORY || (may_do_without && status == SH_OK), name, __FILE__, __LINE__);
        check_at(l.live == 0, name, __FILE__, __LINE__);
    }
    l = (ledger){.fail_at = -1};
    check_status_at(call(&context, given), SH_OK, name, __FILE__, __LINE__);
}
#endif
