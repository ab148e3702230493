/* runtime.h: threads, scratch memory and interruption, for the operations above it. */
#ifndef SH_RUNTIME_H
#define SH_RUNTIME_H
#include "sparsehopfield.h"
#include "runtime/settings.h"

enum { SH_MAX_THREADS = 64 }; /* OpenBLAS keeps a table of 64 callers */

/* sh_parallel: runs task(job, 0 .. parts-1) on at most `threads` threads, the caller one of them.
 * Never fails and never waits for another caller: with the pool busy (nested or concurrent calls) or no
 * thread to be had, the caller does it all. */
void sh_parallel(void (*task)(void *job, int part), void *job, int parts, int threads);

/* sh_watch_process: from now on forks are counted, and the end of the process waits for products (process.c). Once.
 * sh_forks: how many there were above this process, since then. */
void sh_watch_process(void);
unsigned sh_forks(void);

/* Scratch memory: 64-byte aligned, from the context's allocator; NULL when there is none. The size is
 * count * size, checked. */
void *sh_allocate(sh_context *context, int64_t count, size_t size);
void sh_release(sh_context *context, void *block);

/* sh_memory_left: bytes that this process may take before it, its control groups (version 1 or 2) or the machine are
 * out of memory; INT64_MAX where nothing says. Costs some file reads: 0.1 to 1 ms. Never fails. */
int64_t sh_memory_left(void);
#ifdef SH_TESTING
/* sh_pretend_left: what sh_memory_left says from now on; below 0 the truth again.
 * sh_memory_left_under: what it finds in the system's files below a folder, `root`. */
void sh_pretend_left(int64_t bytes);
int64_t sh_memory_left_under(const char *root);
#endif

/* sh_setting: returns a variable of the environment, NULL where it is not set, or empty.
 * sh_ignore_setting: notes one that cannot be followed, for sh_ignored_settings.
 * sh_read_thread_settings: sets the number of threads that the environment asks for. */
const char *sh_setting(const char *name);
void sh_ignore_setting(const char *name, const char *value, const char *allowed);
void sh_read_thread_settings(void);

/* sh_fail: notes what was at fault, returns the status. */
sh_status sh_fail(sh_context *context, sh_status status, const char *argument, int64_t row);
/* SH_REQUIRE: ends a function of the interface with SH_BAD_ARGUMENT, and names the argument, unless a condition holds. */
#define SH_REQUIRE(context, holds, argument)                                                                           \
    do {                                                                                                               \
        if (!(holds)) return sh_fail(context, SH_BAD_ARGUMENT, argument, 0);                                           \
    } while (0)

/* sh_for_each: work(job, item, scratch) for every item, in any order, each worker with its own scratch.
 *
 * Returns    the first failure seen, after which no new item is begun. Of several items that fail with a
 *            `row`, the lowest row is reported as far as the items begun go.
 * Notes      1. The context that work gets is the worker's own; failures are noted in it, then compared.
 *            2. sh_stopped(that context): whether to give up, because the caller was interrupted (asked in the
 *               calling thread only) or another worker failed. Ask after every tile; then return
 *               SH_INTERRUPTED. The loop asks after every item.
 *            3. Whoever is asked may fork. The child's call fails with SH_FORKED where other threads had a share.
 */
int sh_stopped(const sh_context *context);
/* sh_called_off: the same of the work that this thread is at, for passes over long rows by who knows of no context. What
 * is then returned is not looked at; it must only be a number or NaN, and soon. 0 outside a loop, and where a pass is of
 * few numbers. */
int sh_called_off(int64_t numbers);
typedef sh_status (*sh_work)(void *job, int64_t item, void *scratch, sh_context *context);
sh_status sh_for_each(sh_context *context, int64_t items, size_t scratch, sh_work work, void *job);

/* The same for items of some `multiplications` in all: what takes less than to wake a thread is done by the caller. */
sh_status sh_each(sh_context *context, int64_t items, size_t scratch, double multiplications, sh_work work, void *job);

/* sh_product: within a work item, a product by one of the kernels' gemm, some rows at a time, so that a long one can be
 * stopped: rows of C, or, where `summed` (gemm_tn), those that are summed over. `size`: of a number. Fixed by the shapes.
 * Returns    SH_OK, or SH_INTERRUPTED */
typedef void (*sh_gemm)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb,
                        int add, void *c, int64_t ldc);
sh_status sh_product(sh_context *context, sh_gemm gemm, size_t size, int summed, int64_t m, int64_t n, int64_t k,
                     const void *a, int64_t lda, const void *b, int64_t ldb, int add, void *c, int64_t ldc);

/* bytes, up to whole cache lines: parts of one scratch block begin on lines of their own */
static inline size_t sh_align(size_t bytes) { return (bytes + 63) & ~(size_t)63; }
static inline int64_t sh_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t sh_max(int64_t a, int64_t b) { return a > b ? a : b; }
/* Tells whether an array of n elements of some bytes can be: no address is further from another than PTRDIFF_MAX. */
static inline int sh_can_be(int64_t n, int64_t bytes) { return n >= 0 && n <= PTRDIFF_MAX / sh_max(bytes, 1); }
/* Returns the bytes of an element, or 0 for what is no type. */
static inline int64_t sh_size_of(sh_type type) {
    static const int64_t size[] = {[SH_FLOAT32] = 4, [SH_FLOAT64] = 8, [SH_UINT8] = 1, [SH_FLOAT16] = 2};
    return (unsigned)type < sizeof size / sizeof *size ? size[type] : 0;
}
static inline int64_t sh_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
#endif
