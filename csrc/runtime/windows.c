/* windows.c: the operating system, by Windows: what system.h asks for, without a library of threads to ship. */
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include "runtime/system.h"
#include <windows.h>
#include <process.h>
#include <stdlib.h>

_Static_assert(sizeof(sh_mutex) == sizeof(SRWLOCK) && sizeof(sh_condition) == sizeof(CONDITION_VARIABLE) &&
                   sizeof(sh_once_flag) == sizeof(INIT_ONCE) && sizeof(sh_thread) == sizeof(DWORD),
               "system.h has the types of Windows; all begin as zero");

void sh_lock(sh_mutex *mutex) { AcquireSRWLockExclusive((SRWLOCK *)mutex); }
void sh_unlock(sh_mutex *mutex) { ReleaseSRWLockExclusive((SRWLOCK *)mutex); }
void sh_mutex_destroy(sh_mutex *mutex) { (void)mutex; }

void sh_wait(sh_condition *condition, sh_mutex *mutex) {
    SleepConditionVariableSRW((CONDITION_VARIABLE *)condition, (SRWLOCK *)mutex, INFINITE, 0);
}
void sh_wake_one(sh_condition *condition) { WakeConditionVariable((CONDITION_VARIABLE *)condition); }
void sh_wake_all(sh_condition *condition) { WakeAllConditionVariable((CONDITION_VARIABLE *)condition); }

typedef struct {
    void (*call)(void);
} function;

static BOOL CALLBACK call_first(INIT_ONCE *once, void *first, void **unused) {
    (void)once, (void)unused;
    ((function *)first)->call();
    return TRUE;
}

void sh_once(sh_once_flag *flag, void (*first)(void)) {
    function f = {first};
    InitOnceExecuteOnce((INIT_ONCE *)flag, call_first, &f, NULL);
}

/* Returns the program or DLL that this code is in. */
static HMODULE this_module(DWORD flags) {
    static const wchar_t here;
    HMODULE module = NULL;
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | flags, &here, &module);
    return module;
}

int sh_thread_start(sh_thread *thread, sh_thread_result (*run)(void *argument), void *argument) {
    this_module(
        GET_MODULE_HANDLE_EX_FLAG_PIN); /* a DLL that is taken out of memory would take the thread's code along */
    unsigned number;
    const uintptr_t handle = _beginthreadex(NULL, 0, run, argument, 0, &number);
    if (handle == 0) return 0;
    CloseHandle((HANDLE)handle);
    *thread = number;
    return 1;
}

sh_thread sh_this_thread(void) { return GetCurrentThreadId(); }
int sh_same_thread(sh_thread a, sh_thread b) { return a == b; }

int sh_processors(void) {
    DWORD_PTR allowed = 0, all = 0; /* of one group of at most 64; 0 where the process's threads are in several */
    if (GetProcessAffinityMask(GetCurrentProcess(), &allowed, &all) && allowed != 0)
        return __builtin_popcountll(allowed);
    const DWORD active = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
    return active > 1 ? (int)active : 1;
}

/* A thread that is woken gets an idle processor wherever there is one: Windows does not queue it behind its waker. */
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

int sh_has_dot_products(void) { return IsProcessorFeaturePresent(43); } /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */

void sh_sleep(int milliseconds) { Sleep((DWORD)milliseconds); }
void sh_sleep_for_ever(void) {
    for (;;) Sleep(INFINITE);
}

void sh_at_fork(void (*in_child)(void)) { (void)in_child; } /* there are no forks */

/* What a program registers with atexit() is called by exit(), before the process stops its other threads. What a DLL
 * registers, a Python extension for one, is called when the DLL is detached, after they were stopped, wherever they were
 * and whatever they held: `end` would wait for what no thread will do any more. A BLAS that is a DLL is detached then, too,
 * and only one that is linked into the program is taken apart while they run. */
void sh_at_end(void (*end)(void)) {
    if (this_module(GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT) == GetModuleHandleW(NULL)) atexit(end);
}

void sh_advise_large(void *block, size_t bytes) { (void)block, (void)bytes; } /* large pages are a privilege */
void sh_expect_read(const void *part, size_t bytes) { (void)part, (void)bytes; }
#endif
