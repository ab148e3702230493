/* process.c: what a process does while calls run: it forks, and it ends.
 *
 * A process that ends takes the BLAS apart while other threads, of the pool or of the program, may be within a
 * product. So the end waits until none is, and from then on a thread that wants another waits for ever: it holds its
 * stack and all that others use of it, and returns to nobody.
 */
#define _GNU_SOURCE
#include "runtime.h"
#include "blas.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static atomic_uint forks;
static atomic_int products, ending;
static pthread_t ender;

unsigned sh_forks(void) { return atomic_load(&forks); }

static void forked(void) { /* the threads that were within products are not in the child */
    atomic_store(&products, 0);
    atomic_fetch_add(&forks, 1);
}

static void end(void) {
    enum { MILLISECOND = 1000000, PATIENCE = 10000 }; /* not for ever: a signal may end the process within a product */
    ender = pthread_self();
    atomic_store(&ending, 1);
    const struct timespec moment = {.tv_nsec = MILLISECOND};
    for (int i = 0; i < PATIENCE && atomic_load(&products) > 0; i++) nanosleep(&moment, NULL);
}

void sh_watch_process(void) {
    pthread_atfork(NULL, NULL, forked);
    atexit(end); /* runs before what the BLAS, loaded earlier, has to be done at the end */
}

void sh_product_begin(void) {
    atomic_fetch_add(&products, 1);
    if (atomic_load(&ending) && !pthread_equal(pthread_self(), ender)) {
        atomic_fetch_sub(&products, 1);
        for (;;) pause();
    }
    /* A product of several threads has other bits. Another library may have raised the count of a BLAS that it
     * shares with us, at any time. */
    if (BLAS(openblas_get_num_threads)() != 1) BLAS(openblas_set_num_threads)(1);
}

void sh_product_end(void) { atomic_fetch_sub(&products, 1); }
