/* context.c: scratch memory, failures, and the loop over work items that every operation is built on. */
#include "runtime/runtime.h"
#include "runtime/system.h"
#include "runtime/workspace.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Lies before every block that sh_allocate returns. */
typedef struct {
    void *block; /* as the allocator gave it */
    size_t bytes;
} header;

void *sh_allocate(sh_context *context, int64_t count, size_t size) {
    enum { LINE = 64, LARGE = 4 << 20 };
    size_t bytes;
    if (!context->allocate != !context->release) return NULL; /* no block may be given back to another allocator */
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes) || bytes > PTRDIFF_MAX - 2 * LINE) return NULL;
    bytes += LINE + sizeof(header);
    char *block = context->allocate ? context->allocate(context->user, bytes) : malloc(bytes);
    if (!block) return NULL;
    /* a page fault for every 4 KiB would cost more than what is done with large memory */
    if (bytes >= LARGE) sh_advise_large(block, bytes);
    char *aligned = (char *)(((uintptr_t)block + sizeof(header) + LINE - 1) & ~(uintptr_t)(LINE - 1));
    ((header *)aligned)[-1] = (header){block, bytes};
    return aligned;
}

void sh_release(sh_context *context, void *aligned) {
    if (!aligned) return;
    const header h = ((const header *)aligned)[-1];
    void *block = h.block;
    ASAN_UNPOISON_MEMORY_REGION(block, h.bytes);
    if (context->release)
        context->release(context->user, block);
    else
        free(block);
}

sh_status sh_fail(sh_context *context, sh_status status, const char *argument, int64_t row) {
    context->argument = argument;
    context->row = row;
    return status;
}

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

static void note(loop *l, sh_status status, const sh_context *context) {
    sh_lock(&l->lock);
    if (atomic_load(&l->status) == SH_OK || (status == (sh_status)atomic_load(&l->status) && context->row < l->row)) {
        atomic_store(&l->status, (int)status);
        l->argument = context->argument;
        l->row = context->row;
    }
    sh_unlock(&l->lock);
}

/* Holds a thread's share of a loop, with the context that its work gets. */
typedef struct {
    sh_context own;
    loop *loop;
    int asks;
} worker;

/* Whoever asks the program may find itself in a child of it. What the other threads had in hand is not there, and the
 * lock may be theirs; a loop of one thread goes on. */
static int lost(loop *l) {
    if (!l->shared || sh_forks() == l->forks) return 0;
    atomic_store(&l->status, SH_FORKED);
    return 1;
}

/* of the innermost loop that this thread is in; of none while the program is asked, which may call again */
static _Thread_local worker *at_work;

static int stopped(worker *w) {
    worker *here = at_work;
    at_work = NULL;
    const int interrupted = w->asks && w->own.interrupted(w->own.user);
    at_work = here;
    if (w->asks && lost(w->loop)) return 1;
    if (interrupted) note(w->loop, SH_INTERRUPTED, &w->own);
    return atomic_load(&w->loop->status) != SH_OK;
}

int sh_stopped(const sh_context *context) {
    (void)context;
    assert(at_work && context == &at_work->own); /* loops within this one have ended */
    return stopped(at_work);
}

int sh_called_off(int64_t numbers) {
    enum { LONG = 1 << 16 };
    return numbers >= LONG && at_work && stopped(at_work);
}

static void run_part(void *job, int part) {
    loop *l = job;
    worker w = {.own = *l->context, .loop = l}, *outer = at_work;
    at_work = &w;
    void *scratch = l->scratch ? l->scratch + (size_t)part * l->scratch_size : NULL;
    w.asks = w.own.interrupted && sh_same_thread(sh_this_thread(), l->caller);
    do {
        int64_t item = atomic_fetch_add(&l->next, 1);
        if (item >= l->items) break;
        w.own.argument = NULL;
        w.own.row = 0;
        sh_status status = l->work(l->job, item, scratch, &w.own);
        if (status != SH_OK && !(w.asks && lost(l))) note(l, status, &w.own);
    } while (!stopped(&w));
    at_work = outer;
}

sh_status sh_for_each(sh_context *context, int64_t items, size_t scratch, sh_work work, void *job) {
    if (items <= 0) return SH_OK;
    int threads = (int)sh_min(items, sh_min(sh_max(context->threads, 1), SH_MAX_THREADS));
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
    sh_context own = *context;
    if (multiplications < WAKING) own.threads = 1;
    sh_status status = sh_for_each(&own, items, scratch, work, job);
    context->argument = own.argument;
    context->row = own.row;
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
