/* runtime.h: threads, memory and interruption, for the operations of the other rooms. */
#ifndef SH_RUNTIME_H
#define SH_RUNTIME_H
#include "sparsehopfield.h"
#include "runtime/settings.h"
#include <string.h>

enum { SH_MAX_THREADS = 64 }; /* OpenBLAS keeps a table of 64 callers */

/* sh_parallel: runs task(job, 0 .. parts-1) on at most `threads` threads, the caller one of them.
 * Never fails and never waits for another caller: with the pool busy (nested or concurrent calls) or no
 * thread to be had, the caller does it all. */
void sh_parallel(void (*task)(void *job, int part), void *job, int parts, int threads);

/* sh_watch_process: begins to count forks, and to have the end of the process wait for products (process.c). Once.
 * sh_forks: returns how many forks lead from the process that began to this one. */
void sh_watch_process(void);
unsigned sh_forks(void);

/* sh_allocate: returns count * size bytes, checked, aligned to 64, from the context's allocator; NULL when there are none.
 * sh_release: gives them back; NULL is left alone. Some blocks of the C library's allocator, less than 32 MiB in all, are kept
 * for calls that follow. */
void *sh_allocate(sh_context *context, int64_t count, size_t size);
void sh_release(sh_context *context, void *block);

/* sh_available_memory: returns the bytes that this process may take before it, its control groups (version 1 or 2) or the
 * machine are out of memory; INT64_MAX where nothing says. Costs some file reads: 0.1 to 1 ms. Never fails. */
int64_t sh_available_memory(void);
#ifdef SH_TESTING
/* sh_set_available_memory: has sh_available_memory return a number from now on; below 0 the truth again.
 * sh_available_memory_under: returns what it finds in the system's files below a folder, `root`. */
void sh_set_available_memory(int64_t bytes);
int64_t sh_available_memory_under(const char *root);
#endif

/* sh_setting: returns a variable of the environment, NULL where it is not set, or empty.
 * sh_ignore_setting: notes one that cannot be followed, for sh_ignored_settings.
 * sh_read_thread_settings: sets the number of threads that the environment asks for. */
const char *sh_setting(const char *name);
void sh_ignore_setting(const char *name, const char *value, const char *allowed);
void sh_read_thread_settings(void);

/* sh_fail: notes the argument and the row at fault in the context; returns the status. */
sh_status sh_fail(sh_context *context, sh_status status, const char *argument, int64_t row);
/* SH_REQUIRE: ends a function of the interface with SH_BAD_ARGUMENT, and names the argument, unless a condition holds. */
#define SH_REQUIRE(context, holds, argument)                                                                           \
    do {                                                                                                               \
        if (!(holds)) return sh_fail(context, SH_BAD_ARGUMENT, argument, 0);                                           \
    } while (0)

/* sh_for_each: calls work(job, item, scratch) for every item, in any order, each worker with scratch memory of its own.
 *
 * Returns    the first failure seen, after which no new item is begun. Of several items that fail with a
 *            `row`, the lowest row is reported as far as the items begun go.
 * Notes      1. The context that work gets is the worker's own; failures are noted in it, then compared.
 *            2. sh_stopped(that context): tells whether to give up, because the caller was interrupted (its `interrupted`
 *               is called in the calling thread only) or another worker failed. Work calls it after every tile, and then
 *               returns SH_INTERRUPTED; the loop calls it after every item.
 *            3. `interrupted` may fork. The child's call fails with SH_FORKED where other threads had a share of it.
 */
int sh_stopped(const sh_context *context);
/* sh_pass_stopped: tells the same of the innermost loop that this thread is in, for functions that get no context, before a
 * pass over so many numbers. They then return any number or NaN, which is not used. Returns 0 outside a loop, and where
 * the numbers are few. */
int sh_pass_stopped(int64_t numbers);
typedef sh_status (*sh_work)(void *job, int64_t item, void *scratch, sh_context *context);
sh_status sh_for_each(sh_context *context, int64_t items, size_t scratch, sh_work work, void *job);

/* sh_progress: between loops, tells the program how far a call has come, if it wants to know; SH_INTERRUPTED where it then
 * asks to stop. sh_progress_step: returns how many of n items are done at a time, `most`, or fewer where the program is
 * told, but at least `least`. */
sh_status sh_progress(sh_context *context, int64_t done, int64_t total);
int64_t sh_progress_step(const sh_context *context, int64_t most, int64_t n, int64_t least);

/* sh_each: does the same for items of some `multiplications` in all; the caller does alone what takes less than to wake a
 * thread. */
sh_status sh_each(sh_context *context, int64_t items, size_t scratch, double multiplications, sh_work work, void *job);

/* sh_product: computes a product by one of the kernels' gemm within a work item, some rows at a time, so that a long one can
 * be stopped: rows of C, or, where `summed` (gemm_tn), those that are summed over; how many follows from the shapes.
 * size: bytes of a number
 * Returns    SH_OK, or SH_INTERRUPTED */
typedef void (*sh_gemm)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb,
                        int add, void *c, int64_t ldc);
sh_status sh_product(sh_context *context, sh_gemm gemm, size_t size, int summed, int64_t m, int64_t n, int64_t k,
                     const void *a, int64_t lda, const void *b, int64_t ldb, int add, void *c, int64_t ldc);

/* Rounds bytes up to whole cache lines. */
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
/* Sets the first `width` numbers of `size` bytes of n rows, ld numbers apart, to 0: rows without a gap in one go. */
static inline void sh_clear_rows(void *rows, int64_t ld, int64_t n, int64_t width, size_t size) {
    const int64_t pieces = ld == width ? sh_min(n, 1) : n, numbers = ld == width ? n * width : width;
    for (int64_t i = 0; i < pieces; i++) memset((char *)rows + (size_t)(i * ld) * size, 0, (size_t)numbers * size);
}
static inline int64_t sh_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
#endif
