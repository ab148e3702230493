/* team.h: threads of OpenMP that the program has beside the pool's. Nothing here is linked with OpenMP or loads it. */
#ifndef SH_TEAM_H
#define SH_TEAM_H
#include <stdatomic.h>

/* The functions of an OpenMP library that the program has loaded, by their names; NULL where it lacks one. */
typedef struct {
    void (*GOMP_parallel)(void (*part)(void *data), void *data, unsigned threads, unsigned flags);
    int (*omp_get_max_threads)(void);
    int (*omp_in_parallel)(void);
} sh_openmp;

/* sh_share_openmp: has calls use no more threads than the library gives their caller from now on, and one within its
 * parallel regions; and calls of this thread the team that the library keeps for this thread, while that is awake. All
 * NULL: as in the beginning.
 * sh_shares_openmp: tells whether calls of this thread may use a team: never in a child, as no team outlives a fork.
 * sh_threads_for: returns how many threads a call may use that asks for n: from 1 to SH_MAX_THREADS. */
void sh_share_openmp(sh_openmp library);
int sh_shares_openmp(void);
int sh_threads_for(int n);

/* The parts of a job, which threads take from one counter. */
typedef struct {
    void (*task)(void *job, int part);
    void *job;
    int count;
    atomic_int next;
} sh_parts;

/* sh_take_parts: does parts until none is left; returns 0 in a child that a part forked, where the rest is left undone. */
int sh_take_parts(sh_parts *parts);

/* sh_team_is_awake: tells whether this thread has a team whose threads are on processors now, waiting for work.
 * sh_team_take: has this thread and at most `threads` - 1 of its team take the parts; returns when all are done. */
int sh_team_is_awake(void);
void sh_team_take(sh_parts *parts, int threads);
#endif
