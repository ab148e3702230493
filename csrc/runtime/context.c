/* context.c: memory, failures, and the loop over work items that every operation is built on. */
#include "runtime/runtime.h"
#include "runtime/system.h"
#include "runtime/team.h"
#include "runtime/workspace.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

/* The header before every block that sh_allocate returns. */
typedef struct {
    void *block; /* as the allocator gave it */
    size_t bytes;
} header;

/* Blocks of the C library that were released last, for the calls that follow. Memory that is given back and taken anew
 * costs a page fault for every 4 KiB, which is more than what is done with the scratch memory of a small layer. A slot
 * is taken and filled at once, so that threads need no lock and a forked child finds none held. */
enum { LINE = 64, LARGE = 4 << 20, SMALL = 64 << 10, KEPT = 8 };
static _Atomic(void *) kept[KEPT];

/* Returns where the memory lies that is handed out of an allocator's block, behind its header. */
static void *aligned_in(const void *block) {
    return (void *)(((uintptr_t)block + sizeof(header) + LINE - 1) & ~(uintptr_t)(LINE - 1));
}

static header *header_of(void *aligned) { return (header *)aligned - 1; }

/* Returns a kept block of at least so many bytes, and not many more; NULL where there is none. */
static void *take_kept(size_t bytes) {
    for (int i = 0; i < KEPT; i++) {
        void *block = atomic_exchange(&kept[i], NULL);
        if (!block) continue;
        const size_t has = header_of(aligned_in(block))->bytes;
        if (has >= bytes && has <= bytes + bytes / 4) return block;
        free(atomic_exchange(&kept[i], block)); /* another, if the slot was filled meanwhile */
    }
    return NULL;
}

/* Keeps a block, in place of another where there are enough. */
static void keep(void *block) {
    static atomic_uint turn;
    for (int i = 0; i < KEPT; i++) {
        void *none = NULL;
        if (atomic_compare_exchange_strong(&kept[i], &none, block)) return;
    }
    free(atomic_exchange(&kept[atomic_fetch_add(&turn, 1) % KEPT], block));
}

/* Tells whether blocks of this size are kept: not those on large pages, nor another allocator's. */
static int is_kept(const sh_context *context, size_t bytes) {
#ifdef SH_POISON
    return (void)context, (void)bytes, 0; /* so that its use after the release is seen */
#else
    return !context->release && bytes >= SMALL && bytes < LARGE;
#endif
}

void *sh_allocate(sh_context *context, int64_t count, size_t size) {
    size_t bytes;
    if (!context->allocate != !context->release) return NULL; /* no block may be given back to another allocator */
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes) || bytes > PTRDIFF_MAX - 2 * LINE) return NULL;
    bytes += LINE + sizeof(header);
    char *block = is_kept(context, bytes) ? take_kept(bytes) : NULL;
    if (block) return aligned_in(block);
    block = context->allocate ? context->allocate(context->user, bytes) : malloc(bytes);
    if (!block) return NULL;
    /* a page fault for every 4 KiB would cost more than what is done with large memory */
    if (bytes >= LARGE) sh_advise_large(block, bytes);
    void *aligned = aligned_in(block);
    *header_of(aligned) = (header){block, bytes};
    return aligned;
}

void sh_release(sh_context *context, void *aligned) {
    if (!aligned) return;
    const header h = *header_of(aligned);
    ASAN_UNPOISON_MEMORY_REGION(h.block, h.bytes);
    if (context->release)
        context->release(context->user, h.block);
    else if (is_kept(context, h.bytes))
        keep(h.block);
    else
        free(h.block);
}

sh_status sh_fail(sh_context *context, sh_status status, const char *argument, int64_t row) {
    context->argument = argument;
    context->row = row;
    return status;
}

/* One sh_for_each. */
typedef struct {
    sh_context *context;
    int64_t items;
    char *scratch;
    size_t scratch_size;
    sh_work work;
    void *job;
    sh_thread caller;
    int shared;     /* among threads */
    unsigned forks; /* when it began */
    sh_mutex lock;  /* guards the failure below */
    _Atomic int64_t next;
    atomic_int status;
    const char *argument;
    int64_t row;
} loop;

/* Keeps a failure, unless one of another kind or of a lower row is kept. */
static void note(loop *l, sh_status status, const sh_context *context) {
    sh_lock(&l->lock);
    if (atomic_load(&l->status) == SH_OK || (status == (sh_status)atomic_load(&l->status) && context->row < l->row)) {
        atomic_store(&l->status, (int)status);
        l->argument = context->argument;
        l->row = context->row;
    }
    sh_unlock(&l->lock);
}

/* A thread's share of a loop. */
typedef struct {
    sh_context context; /* what its work gets */
    loop *loop;
    int polls; /* whether it asks the program if it is interrupted */
} worker;

/* Tells whether the program forked when it was asked, and this is the child. The items of the other threads are not done
 * here, and one of them may hold the lock; a loop of one thread goes on. */
static int has_forked(loop *l) {
    if (!l->shared || sh_forks() == l->forks) return 0;
    atomic_store(&l->status, SH_FORKED);
    return 1;
}

/* The innermost loop that this thread is in; NULL while the program is asked, which may make other calls. */
static _Thread_local worker *current;

static int stopped(worker *w) {
    worker *here = current;
    current = NULL;
    const int interrupted = w->polls && w->context.interrupted(w->context.user);
    current = here;
    if (w->polls && has_forked(w->loop)) return 1;
    if (interrupted) note(w->loop, SH_INTERRUPTED, &w->context);
    return atomic_load(&w->loop->status) != SH_OK;
}

int sh_stopped(const sh_context *context) {
    (void)context;
    assert(current && context == &current->context); /* loops within this one have ended */
    return stopped(current);
}

int sh_pass_stopped(int64_t numbers) {
    enum { LONG = 1 << 16 };
    return numbers >= LONG && current && stopped(current);
}

static void run_part(void *job, int part) {
    loop *l = job;
    worker w = {.context = *l->context, .loop = l}, *outer = current;
    current = &w;
    void *scratch = l->scratch ? l->scratch + (size_t)part * l->scratch_size : NULL;
    w.polls = w.context.interrupted && sh_same_thread(sh_this_thread(), l->caller);
    do {
        int64_t item = atomic_fetch_add(&l->next, 1);
        if (item >= l->items) break;
        w.context.argument = NULL;
        w.context.row = 0;
        sh_status status = l->work(l->job, item, scratch, &w.context);
        if (status != SH_OK && !(w.polls && has_forked(l))) note(l, status, &w.context);
    } while (!stopped(&w));
    current = outer;
}

sh_status sh_progress(sh_context *context, int64_t done, int64_t total) {
    assert(!current);
    if (!context->progress) return SH_OK;
    context->progress(context->user, done, total);
    const int interrupted = context->interrupted && context->interrupted(context->user);
    return interrupted ? sh_fail(context, SH_INTERRUPTED, NULL, 0) : SH_OK;
}

int64_t sh_progress_step(const sh_context *context, int64_t most, int64_t n, int64_t least) {
    enum { TIMES = 32 };
    return context->progress ? sh_min(most, sh_max(sh_ceil_div(n, TIMES), least)) : most;
}

sh_status sh_for_each(sh_context *context, int64_t items, size_t scratch, sh_work work, void *job) {
    if (items <= 0) return SH_OK;
    int threads = (int)sh_min(items, sh_threads_for(context->threads));
    loop l = {.context = context,
              .items = items,
              .work = work,
              .job = job,
              .caller = sh_this_thread(),
              .lock = SH_MUTEX_INIT};
    l.shared = threads > 1;
    l.forks = sh_forks();
    l.scratch_size = sh_align(scratch);
    if (scratch && !(l.scratch = sh_allocate(context, threads, l.scratch_size)))
        return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    sh_parallel(run_part, &l, threads, threads);
    sh_release(context, l.scratch);
    sh_status status = (sh_status)atomic_load(&l.status);
    if (status != SH_FORKED) sh_mutex_destroy(&l.lock);
    return status == SH_OK ? SH_OK : sh_fail(context, status, l.argument, l.row);
}

sh_status sh_each(sh_context *context, int64_t items, size_t scratch, double multiplications, sh_work work, void *job) {
    static const double WAKING = 1 << 19;
    sh_context inner = *context;
    if (multiplications < WAKING) inner.threads = 1;
    sh_status status = sh_for_each(&inner, items, scratch, work, job);
    context->argument = inner.argument;
    context->row = inner.row;
    return status;
}

sh_status sh_product(sh_context *context, sh_gemm gemm, size_t size, int summed, int64_t m, int64_t n, int64_t k,
                     const void *a, int64_t lda, const void *b, int64_t ldb, int add, void *c, int64_t ldc) {
    static const double PIECE = 0x1p32, LEAST = 16; /* multiplications, a fraction of a second; rows */
    const double row = summed ? (double)m * (double)n : (double)n * (double)k;
    const int64_t all = summed ? k : m, rows = row * (double)all <= PIECE ? all : (int64_t)fmax(PIECE / row, LEAST);
    for (int64_t first = 0; first < all || first == 0; first += sh_max(rows, 1)) {
        const int64_t some = sh_min(rows, all - first);
        const char *from = (const char *)a + (size_t)(first * lda) * size;
        if (summed)
            gemm(m, n, some, from, lda, (const char *)b + (size_t)(first * ldb) * size, ldb, add || first > 0, c, ldc);
        else
            gemm(some, n, k, from, lda, b, ldb, add, (char *)c + (size_t)(first * ldc) * size, ldc);
        if (some < all && sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}
