/* posix.c: the operating system, by POSIX and by what Linux has beyond it. */
#ifndef _WIN32
#define _GNU_SOURCE
#include "runtime/system.h"
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

void sh_lock(sh_mutex *mutex) { pthread_mutex_lock(mutex); }
void sh_unlock(sh_mutex *mutex) { pthread_mutex_unlock(mutex); }
void sh_mutex_destroy(sh_mutex *mutex) { pthread_mutex_destroy(mutex); }

void sh_wait(sh_condition *condition, sh_mutex *mutex) { pthread_cond_wait(condition, mutex); }
void sh_wake_one(sh_condition *condition) { pthread_cond_signal(condition); }
void sh_wake_all(sh_condition *condition) { pthread_cond_broadcast(condition); }

void sh_once(sh_once_flag *flag, void (*first)(void)) { pthread_once(flag, first); }

int sh_thread_start(sh_thread *thread, sh_thread_result (*run)(void *argument), void *argument) {
    sigset_t all, before;
    sigfillset(&all); /* signals stay with the threads of the program */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int started = pthread_create(thread, NULL, run, argument) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started) pthread_detach(*thread);
    return started;
}

sh_thread sh_this_thread(void) { return pthread_self(); }
int sh_same_thread(sh_thread a, sh_thread b) { return pthread_equal(a, b); }

int sh_processors(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 1 ? (int)online : 1;
}

#if defined(__linux__)
int sh_this_processor(void) { return sched_getcpu(); }

int sh_keep_off(int processor, const sh_thread *threads, int count) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return 0;
    CPU_CLR(processor, &allowed);
    for (int i = 0; i < count; i++) pthread_setaffinity_np(threads[i], sizeof allowed, &allowed);
    return 1;
}

_Static_assert(_Generic((clockid_t)0, sh_clock: 1, default: 0), "system.h has the type of clocks");
int sh_own_clock(sh_clock *clock) { return pthread_getcpuclockid(pthread_self(), clock) == 0; }

int sh_clock_runs(sh_clock clock) {
    struct timespec before, now; /* the clock of a thread that runs goes on while it is read */
    if (clock_gettime(clock, &before) != 0 || clock_gettime(clock, &now) != 0) return -1;
    return now.tv_nsec != before.tv_nsec || now.tv_sec != before.tv_sec;
}
#else
int sh_this_processor(void) { return -1; }

int sh_keep_off(int processor, const sh_thread *threads, int count) {
    (void)processor, (void)threads, (void)count;
    return 0;
}

int sh_own_clock(sh_clock *clock) {
    (void)clock;
    return 0;
}

int sh_clock_runs(sh_clock clock) {
    (void)clock;
    return -1;
}
#endif

int sh_has_dot_products(void) {
#if defined(__linux__) && defined(__aarch64__)
    return getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP of <asm/hwcap.h> */
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) == 0 && has;
#else
    return 0;
#endif
}

void sh_sleep(int milliseconds) {
    const struct timespec moment = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    nanosleep(&moment, NULL);
}

void sh_sleep_for_ever(void) {
    for (;;) pause();
}

void sh_at_fork(void (*in_child)(void)) { pthread_atfork(NULL, NULL, in_child); }
void sh_at_end(void (*end)(void)) { atexit(end); }

void sh_advise_large(void *block, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page = 4096, from = ((uintptr_t)block + page - 1) & ~(page - 1);
    (void)madvise((void *)from, bytes - page, MADV_HUGEPAGE); /* advice that is refused is fine */
#else
    (void)block, (void)bytes;
#endif
}

void sh_expect_read(const void *part, size_t bytes) {
    static _Atomic uintptr_t page;
    if (!page) page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = (uintptr_t)part & ~(page - 1);
    (void)posix_madvise((void *)from, (uintptr_t)part + bytes - from, POSIX_MADV_WILLNEED); /* as above */
}
#endif
