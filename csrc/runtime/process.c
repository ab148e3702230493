/* process.c: forks and the end of the process, while calls run.
 *
 * A process that ends takes the BLAS apart while other threads, of the pool or of the program, may be within a
 * product. So the end waits until none is, and from then on a thread that wants another waits for ever: it holds its
 * stack and all that others use of it, and returns to nobody.
 */
#include "runtime/runtime.h"
#include "runtime/blas.h"
#include "runtime/system.h"
#include <stdatomic.h>

static atomic_uint forks;
static atomic_int products, ending; /* products that run now; whether the process ends */
static sh_thread ender;             /* the one thread that may still begin products then */

unsigned sh_forks(void) { return atomic_load(&forks); }

static void forked(void) { /* the threads that were within products are not in the child */
    atomic_store(&products, 0);
    atomic_fetch_add(&forks, 1);
}

static void end(void) {
    enum { PATIENCE = 10000 }; /* not for ever: a signal may end the process within a product */
    ender = sh_this_thread();
    atomic_store(&ending, 1);
    for (int i = 0; i < PATIENCE && atomic_load(&products) > 0; i++) sh_sleep(1); /* ms */
}

void sh_watch_process(void) {
    sh_at_fork(forked);
    sh_at_end(end); /* runs before what the BLAS, loaded earlier, has to be done at the end */
}

void sh_product_begin(void) {
    atomic_fetch_add(&products, 1);
    if (atomic_load(&ending) && !sh_same_thread(sh_this_thread(), ender)) {
        atomic_fetch_sub(&products, 1);
        sh_sleep_for_ever();
    }
    /* A product of several threads has other bits. Another library may have raised the count of a BLAS that it
     * shares with us, at any time. */
    if (BLAS(openblas_get_num_threads)() != 1) BLAS(openblas_set_num_threads)(1);
}

void sh_product_end(void) { atomic_fetch_sub(&products, 1); }
