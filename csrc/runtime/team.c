/* team.c: jobs on the threads that OpenMP keeps for the program's own parallel regions.
 *
 * These threads spin for some milliseconds after each region, in the hope of another one, and a worker of the pool would
 * have to share a processor with one of them. So a job that comes while they spin is a region of OpenMP: those that are
 * on the processors do it. One that comes when they sleep is the pool's: OpenMP waits for all of its team, and a thread
 * of it that is woken on its caller's processor gets there when the caller has spun for a time slice.
 *
 * Whether they spin is told by a clock: one of them has used processor time since just now, or has not.
 */
#include "runtime/team.h"
#include "runtime/runtime.h"
#include "runtime/settings.h"
#include "runtime/system.h"
#include <setjmp.h>

/* The library that all threads share; a call may see some functions of one library and some of the next. */
static struct {
    _Atomic(void (*)(void (*)(void *), void *, unsigned, unsigned)) parallel;
    _Atomic(int (*)(void)) max_threads, in_parallel;
} openmp;

/* This thread's view of its team. */
static _Thread_local struct {
    int shared; /* whether it may be used */
    int known;  /* whether `clock` is that of one of its threads */
    sh_clock clock;
} team;

static sh_once_flag once = SH_ONCE_INIT;

/* The child may have been forked within a region. */
static void leave_in_child(void) {
    atomic_store(&openmp.parallel, NULL);
    atomic_store(&openmp.in_parallel, NULL);
}

static void register_fork(void) { sh_at_fork(leave_in_child); }

void sh_share_openmp(sh_openmp library) {
    sh_once(&once, register_fork);
    atomic_store(&openmp.max_threads, library.omp_get_max_threads);
    atomic_store(&openmp.in_parallel, library.omp_in_parallel);
    atomic_store(&openmp.parallel, library.GOMP_parallel);
    team.shared = 1;
    team.known = 0;
}

int sh_shares_openmp(void) { return team.shared && atomic_load(&openmp.parallel); }

int sh_threads_for(int n) {
    int (*in_parallel)(void) = atomic_load(&openmp.in_parallel),
        (*max_threads)(void) = atomic_load(&openmp.max_threads);
    if (in_parallel && in_parallel()) return 1;
    if (max_threads) n = (int)sh_min(n, max_threads());
    return (int)sh_min(sh_max(n, 1), SH_MAX_THREADS);
}

int sh_team_is_awake(void) {
    if (!sh_shares_openmp()) return 0;
    if (!team.known) return 1; /* the first job finds a thread to watch */
    const int running = sh_clock_runs(team.clock);
    if (running < 0) team.known = 0; /* it has ended: OpenMP has another team, or will make one */
    return running != 0;
}

/* A parallel region. */
typedef struct {
    sh_parts *parts;
    sh_thread caller;
    atomic_int places; /* threads that may still join the caller */
    int most;          /* how many could in the beginning */
    int known;
    sh_clock clock; /* of the first to join */
    jmp_buf in_child;
} region;

static void join(void *data) {
    region *r = data;
    if (!sh_same_thread(sh_this_thread(), r->caller)) {
        const int places = atomic_fetch_sub(&r->places, 1);
        if (places <= 0) return;
        if (places == r->most) r->known = sh_own_clock(&r->clock);
    }
    const sh_float_settings before = sh_float_default(); /* the program may have set others */
    const int same_process = sh_take_parts(r->parts);
    sh_float_restore(before);
    /* In a child OpenMP would wait for ever for threads that are not there. So the caller leaves a region that does not
     * end; those that it begins within have no team. */
    if (!same_process) longjmp(r->in_child, 1);
}

void sh_team_take(sh_parts *parts, int threads) {
    region r = {.parts = parts, .caller = sh_this_thread(), .most = threads - 1};
    atomic_store(&r.places, threads - 1);
    /* 0: as many as in the program's own regions, for other teams would end threads and start them again */
    if (setjmp(r.in_child)) { /* C leaves open what `r` holds after a jump */
        team.known = 0;
        return;
    }
    atomic_load (&openmp.parallel)(join, &r, 0, 0);
    team.known = r.known;
    team.clock = r.clock;
}
