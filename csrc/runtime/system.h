/* system.h: what the core asks of the operating system: threads, locks, processors, forks and the end of the process.
 * posix.c and windows.c are the two that answer, one of which is empty; nothing here allocates, and only sh_thread_start fails. */
#ifndef SH_SYSTEM_H
#define SH_SYSTEM_H
#include <stddef.h>

#ifdef _WIN32
/* As SRWLOCK, CONDITION_VARIABLE, INIT_ONCE and a thread's number, without <windows.h> and its macros. */
typedef struct {
    void *state;
} sh_mutex, sh_condition, sh_once_flag;
typedef unsigned long sh_thread;
typedef unsigned sh_thread_result;
#define SH_MUTEX_INIT {NULL}
#define SH_CONDITION_INIT {NULL}
#define SH_ONCE_INIT {NULL}
#else
#include <pthread.h>
typedef pthread_mutex_t sh_mutex;
typedef pthread_cond_t sh_condition;
typedef pthread_once_t sh_once_flag;
typedef pthread_t sh_thread;
typedef void *sh_thread_result;
#define SH_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#define SH_CONDITION_INIT PTHREAD_COND_INITIALIZER
#define SH_ONCE_INIT PTHREAD_ONCE_INIT
#endif
typedef int sh_clock; /* as clockid_t of Linux */

/* Locks begin as SH_MUTEX_INIT, and are taken by one thread once. sh_mutex_destroy: for one that nobody holds. */
void sh_lock(sh_mutex *mutex);
void sh_unlock(sh_mutex *mutex);
void sh_mutex_destroy(sh_mutex *mutex);

/* Conditions begin as SH_CONDITION_INIT. sh_wait: gives the lock up, sleeps until woken, or for no reason, and takes the
 * lock again. */
void sh_wait(sh_condition *condition, sh_mutex *mutex);
void sh_wake_one(sh_condition *condition);
void sh_wake_all(sh_condition *condition);

/* sh_once: calls `first` unless some thread has for this flag, which begins as SH_ONCE_INIT; returns when it is done. */
void sh_once(sh_once_flag *flag, void (*first)(void));

/* sh_thread_start: starts a thread that lasts as long as the process, and takes none of the program's signals.
 * Returns    1, or 0 when there is none to be had */
int sh_thread_start(sh_thread *thread, sh_thread_result (*run)(void *argument), void *argument);
sh_thread sh_this_thread(void);
int sh_same_thread(sh_thread a, sh_thread b);

/* sh_processors: returns how many this process may use, at least 1.
 * sh_this_processor: returns the one that the caller is on; -1 where nothing says, or where sh_keep_off would be of no use.
 * sh_keep_off: keeps `count` threads off one processor; returns 0 where they are left as they are, as there is no other. */
int sh_processors(void);
int sh_this_processor(void);
int sh_keep_off(int processor, const sh_thread *threads, int count);

/* sh_own_clock: finds the clock of the processor time that this thread uses; returns 0 where there is none.
 * sh_clock_runs: tells whether the thread of a clock is on a processor now; returns -1 when the thread has ended. */
int sh_own_clock(sh_clock *clock);
int sh_clock_runs(sh_clock clock);

/* sh_has_dot_products: tells whether an ARM processor has instructions for dot products of bytes. */
int sh_has_dot_products(void);

/* sh_sleep: sleeps some milliseconds. sh_sleep_for_ever: sleeps until the process ends. */
void sh_sleep(int milliseconds);
_Noreturn void sh_sleep_for_ever(void);

/* sh_at_fork: has `in_child` called in every child of this process, before anything else runs there.
 * sh_at_end: has `end` called when the process ends, while its other threads still run; never, where they are gone by then. */
void sh_at_fork(void (*in_child)(void));
void sh_at_end(void (*end)(void));

/* sh_advise_large: tells the system that a new block is of many pages, all soon written; of no effect on what it holds. */
void sh_advise_large(void *block, size_t bytes);

/* sh_expect_read: has the system read a part of a mapped file that is used soon, and nothing around it. */
void sh_expect_read(const void *part, size_t bytes);
#endif
