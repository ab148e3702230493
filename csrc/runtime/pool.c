/* pool.c: a small thread pool that survives fork.
 *
 * Workers spin a few microseconds for the next job, then sleep. A job is a number of parts taken from one
 * counter; the caller takes parts too. One caller owns the pool at a time; any other runs its parts itself.
 * After fork the child has no workers, so it forgets the pool and starts its own when needed.
 */
#define _GNU_SOURCE
#include "runtime.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ __volatile__("yield")
#else
#define RELAX() ((void)0)
#endif

enum { SPIN = 2000 }; /* some 10 to 50 microseconds */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    int started;           /* workers alive; only the owner of the pool reads or writes it */
    int sleeping, waiting; /* under the lock */
    atomic_uint epoch;     /* number of the job */
    atomic_int free_seats; /* workers still welcome to this job */
    atomic_int next;       /* part to take */
    atomic_int active;     /* workers that have not yet acknowledged this job */
    void (*task)(void *, int);
    void *job;
    int parts;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
static atomic_flag busy = ATOMIC_FLAG_INIT;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void forget(void) {
    memset(&pool, 0, sizeof pool);
    pool.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    pool.wake = pool.done = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    atomic_flag_clear(&busy);
}

static void register_fork(void) { pthread_atfork(NULL, NULL, forget); }

static void take_parts(void) {
    for (int i; (i = atomic_fetch_add(&pool.next, 1)) < pool.parts;) pool.task(pool.job, i);
}

static void *worker(void *first_epoch) {
    unsigned seen = (unsigned)(size_t)first_epoch;
    for (;;) {
        for (int s = 0; s < SPIN && atomic_load(&pool.epoch) == seen; s++) RELAX();
        if (atomic_load(&pool.epoch) == seen) {
            pthread_mutex_lock(&pool.lock);
            pool.sleeping++;
            while (atomic_load(&pool.epoch) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
            pool.sleeping--;
            pthread_mutex_unlock(&pool.lock);
        }
        seen = atomic_load(&pool.epoch);
        if (atomic_fetch_sub(&pool.free_seats, 1) > 0) take_parts();
        if (atomic_fetch_sub(&pool.active, 1) == 1) {
            pthread_mutex_lock(&pool.lock);
            if (pool.waiting) pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.lock);
        }
    }
    return NULL;
}

static void start_workers(int wanted) {
    sigset_t all, before;
    sigfillset(&all); /* signals stay with the threads of the program */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.started < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(size_t)atomic_load(&pool.epoch)) != 0) break;
        pthread_detach(thread);
        pool.started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void sh_parallel(void (*task)(void *, int), void *job, int parts, int threads) {
    if (threads > parts) threads = parts;
    if (threads > SH_MAX_THREADS) threads = SH_MAX_THREADS;
    if (threads <= 1 || atomic_flag_test_and_set(&busy)) {
        for (int i = 0; i < parts; i++) task(job, i);
        return;
    }
    pthread_once(&once, register_fork);
    start_workers(threads - 1);
    pool.task = task;
    pool.job = job;
    pool.parts = parts;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.free_seats, threads - 1);
    atomic_store(&pool.active, pool.started); /* every worker acknowledges every job */
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.epoch, 1);
    if (pool.sleeping) pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    take_parts();
    for (int s = 0; s < SPIN && atomic_load(&pool.active); s++) RELAX();
    if (atomic_load(&pool.active)) {
        pthread_mutex_lock(&pool.lock);
        pool.waiting = 1;
        while (atomic_load(&pool.active)) pthread_cond_wait(&pool.done, &pool.lock);
        pool.waiting = 0;
        pthread_mutex_unlock(&pool.lock);
    }
    atomic_flag_clear(&busy);
}
