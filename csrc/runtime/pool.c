/* pool.c: a small thread pool that survives fork.
 *
 * Workers spin a few microseconds for the next job, then sleep. A job is a number of parts taken from one
 * counter; the caller takes parts too, and waits only for workers that have joined: one that wakes too late
 * finds the job closed. One caller owns the pool at a time; any other runs its parts itself. After fork the
 * child has no workers, so it resets the pool and starts its own when needed; a caller that forked within a part (a
 * signal handler may) leaves the job as it is.
 *
 * A worker that is woken on its caller's processor would wait there for a time slice, longer than most jobs
 * last. So on Linux workers are kept off the processor their caller is on.
 *
 * A job that finds threads of OpenMP awake is given to them instead (team.c).
 */
#include "runtime/runtime.h"
#include "runtime/system.h"
#include "runtime/team.h"
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ __volatile__("yield")
#else
#define RELAX() ((void)0)
#endif

enum { SPIN = 10000 }; /* some 50 to 250 microseconds: as long as Python needs between two operations of a layer */

static struct {
    sh_mutex lock; /* guards seats, joined, sleeping and waiting */
    sh_condition wake, done;
    int seats;              /* workers that may still join the job; 0 when it is closed */
    int joined;             /* workers at work on it */
    int sleeping, waiting;  /* workers; the caller */
    atomic_uint epoch;      /* number of the job */
    atomic_int spin_joined; /* copy of `joined`, to spin on */
    /* used by the pool's owner alone, or set before the job opens */
    int started;
    sh_thread threads[SH_MAX_THREADS];
    int processor; /* 1 + the one that workers were last kept off; 0: none */
    sh_parts parts;
} pool = {.lock = SH_MUTEX_INIT, .wake = SH_CONDITION_INIT, .done = SH_CONDITION_INIT};
static atomic_flag owned = ATOMIC_FLAG_INIT;
static sh_once_flag once = SH_ONCE_INIT;

static void reset_in_child(void) {
    memset(&pool, 0, sizeof pool);
    pool.lock = (sh_mutex)SH_MUTEX_INIT;
    pool.wake = pool.done = (sh_condition)SH_CONDITION_INIT;
    atomic_flag_clear(&owned);
}

static void register_fork(void) { sh_at_fork(reset_in_child); }

int sh_take_parts(sh_parts *parts) {
    const unsigned before = sh_forks();
    for (int i; sh_forks() == before && (i = atomic_fetch_add(&parts->next, 1)) < parts->count;)
        parts->task(parts->job, i);
    return sh_forks() == before;
}

static sh_thread_result worker(void *first_epoch) {
    unsigned seen = (unsigned)(size_t)first_epoch;
    sh_float_default(); /* not what the thread that made this one had set */
    for (;;) {
        for (int s = 0; s < SPIN && atomic_load(&pool.epoch) == seen; s++) RELAX();
        sh_lock(&pool.lock);
        pool.sleeping++;
        while (atomic_load(&pool.epoch) == seen) sh_wait(&pool.wake, &pool.lock);
        pool.sleeping--;
        seen = atomic_load(&pool.epoch);
        int join = pool.seats > 0;
        if (join) {
            pool.seats--;
            atomic_store(&pool.spin_joined, ++pool.joined);
        }
        sh_unlock(&pool.lock);
        if (!join) continue;
        sh_take_parts(&pool.parts);
        sh_lock(&pool.lock);
        atomic_store(&pool.spin_joined, --pool.joined);
        if (pool.joined == 0 && pool.waiting) sh_wake_one(&pool.done);
        sh_unlock(&pool.lock);
    }
    return (sh_thread_result)0;
}

static void start_workers(int wanted) {
    while (pool.started < wanted) {
        void *epoch = (void *)(size_t)atomic_load(&pool.epoch);
        if (!sh_thread_start(&pool.threads[pool.started], worker, epoch)) break;
        pool.started++;
        pool.processor = 0; /* the new one may run anywhere yet */
    }
}

static void keep_off_this_processor(void) {
    const int here = sh_this_processor();
    if (here < 0 || here + 1 == pool.processor) return;
    if (sh_keep_off(here, pool.threads, pool.started)) pool.processor = here + 1;
}

void sh_parallel(void (*task)(void *, int), void *job, int parts, int threads) {
    if (threads > parts) threads = parts;
    if (threads > SH_MAX_THREADS) threads = SH_MAX_THREADS;
    if (threads <= 1 || atomic_flag_test_and_set(&owned)) {
        for (int i = 0; i < parts; i++) task(job, i);
        return;
    }
    sh_once(&once, register_fork);
    if (sh_team_is_awake()) {
        sh_parts all = {.task = task, .job = job, .count = parts};
        sh_team_take(&all, threads);
        atomic_flag_clear(&owned);
        return;
    }
    start_workers(threads - 1);
    keep_off_this_processor();
    sh_lock(&pool.lock);
    pool.parts.task = task;
    pool.parts.job = job;
    pool.parts.count = parts;
    pool.seats = threads - 1;
    atomic_store(&pool.parts.next, 0);
    atomic_fetch_add(&pool.epoch, 1);
    if (pool.sleeping) sh_wake_all(&pool.wake);
    sh_unlock(&pool.lock);
    if (!sh_take_parts(&pool.parts)) return;
    sh_lock(&pool.lock);
    pool.seats = 0; /* closed */
    sh_unlock(&pool.lock);
    for (int s = 0; s < SPIN && atomic_load(&pool.spin_joined); s++) RELAX();
    sh_lock(&pool.lock);
    pool.waiting = 1;
    while (pool.joined) sh_wait(&pool.done, &pool.lock);
    pool.waiting = 0;
    sh_unlock(&pool.lock);
    atomic_flag_clear(&owned);
}
