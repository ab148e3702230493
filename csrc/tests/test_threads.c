/* Many threads use one memory at once, each with its own context and more threads within, on all paths of the index,
 * which whoever comes first builds; meanwhile others add to that memory and take its index over; then a forked child
 * does. All must find the same bits as one thread that scans; the layers' association and sums of features, too, those
 * of one thread. A call whose own thread forks within it is refused in the child. All this holds for jobs on a team as
 * OpenMP has them, too, which gets jobs only while it is awake. Products of rows farther apart than an int can count are
 * right. In the end the process returns while threads are in calls. Windows has no forks: what is
 * asked of them is left out there.
 * `make -C csrc check` runs this, and the continuous integration runs it under ThreadSanitizer too. */
#define _GNU_SOURCE
#include "runtime/blas.h"
#include "runtime/system.h"
#include "runtime/team.h"
#include "sparsehopfield_layers.h"

#include <fenv.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <windows.h>
#undef FAR /* markers of a kind of pointer that is no more */
#undef far
#undef near
#else
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { M = 2400, MORE = 200, N = 300, D = 130, CALLERS = 8, GROWERS = 3, USERS = CALLERS + GROWERS, ROUNDS = 3 };
typedef float rows_of[D];
static const sh_path paths[] = {SH_PATH_LINES, SH_PATH_COLUMNS, SH_PATH_AUTO, SH_PATH_SCAN};
enum { PATHS = sizeof paths / sizeof *paths };

static rows_of patterns[M + MORE], queries[N], expected[N], expected_of_next[N], expected_of_all[N];
static sh_memory *forced, *chosen; /* asked on all paths; asked on the path that the engine chooses */
static pthread_barrier_t start;

typedef struct {
    int number, wrong;
    pthread_t thread;
} user;

/* The features of a row are not independent: an index has bounds that exclude. */
static void fill(rows_of *x, size_t n, unsigned seed) {
    enum { FREE = 12 };
    for (size_t i = 0; i < n; i++)
        for (int j = 0; j < D; j++) {
            float random = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / (1 << 24);
            x[i][j] = j < FREE ? random : x[i][j % FREE] + 0.25f * random;
        }
}

static sh_rows first_rows(int64_t n) {
    return (sh_rows){.data = patterns, .n = n, .d = D, .stride = sizeof patterns[0], .type = SH_FLOAT32};
}

static sh_memory *fresh(int64_t n) {
    sh_context context = {.threads = 1};
    sh_rows rows = first_rows(n);
    sh_memory *memory = NULL;
    return sh_memory_new(&context, &rows, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory) == SH_OK ? memory : NULL;
}

static sh_status retrieve(const sh_memory *from, sh_path path, int threads, rows_of *states) {
    const double beta = 0.5;
    int64_t steps[N], support_size[N];
    uint8_t converged[N];
    sh_context context = {.threads = threads, .path = path};
    return sh_retrieve(&context, from, (sh_model){.separation = SH_SPARSEMAX},
                       (sh_queries){.data = queries, .n = N, .beta = &beta}, 5, 0.0, states, steps, converged,
                       support_size, NULL);
}

static int finds(const sh_memory *from, sh_path path, int threads, rows_of *want) {
    rows_of *states = malloc(sizeof expected);
    int same = states && retrieve(from, path, threads, states) == SH_OK && memcmp(states, want, sizeof expected) == 0;
    free(states);
    return same;
}

/* The layers' association of self with self, and back, of rows as features: SAMPLES samples of ROWS rows, and of all
 * queries with shared rows, whose gradients several items of work add up. */
enum { SAMPLES = 12, ROWS = 25, HEADS = 2, WIDTH = D / HEADS, NUMBERS = SAMPLES * ROWS * D };
static float associated[2][2][NUMBERS]; /* shared or not; output, gradient of the queries */

static int associate(int shared, int threads, float *out, float *grad) {
    static const double beta[HEADS] = {0.5, 0.25};
    sh_context context = {.threads = threads};
    sh_stack own = {queries, ROWS * D, D, WIDTH}, rows = {patterns, shared ? 0 : ROWS * D, D, WIDTH};
    sh_association a = {.type = SH_FLOAT32, .model = {.separation = SH_SPARSEMAX}, .samples = SAMPLES, .queries = ROWS};
    a.stored = ROWS;
    a.heads = HEADS;
    a.d = a.v = WIDTH;
    a.query = own;
    a.key = a.value = rows;
    a.beta = beta;
    a.steps = 2;
    a.dropout = 0.1;
    sh_tape *tape = NULL;
    int64_t unconverged;
    float *rest = malloc(2 * NUMBERS * sizeof *rest);
    sh_gradients gradients = {
        .query = grad, .key = rest, .value = rest + NUMBERS, .query_row = D, .key_row = D, .value_row = D};
    int sound = rest && sh_association_forward(&context, &a, out, &tape, &unconverged) == SH_OK &&
                sh_association_backward(&context, tape, out, &gradients) == SH_OK;
    sh_tape_free(&context, tape);
    free(rest);
    return sound;
}

static int associates(int threads) {
    float *results = malloc(2 * NUMBERS * sizeof *results);
    int same = results != NULL;
    for (int shared = 0; same && shared < 2; shared++)
        same = associate(shared, threads, results, results + NUMBERS) &&
               memcmp(results, associated[shared][0], NUMBERS * sizeof *results) == 0 &&
               memcmp(results + NUMBERS, associated[shared][1], NUMBERS * sizeof *results) == 0;
    free(results);
    return same;
}

/* Sums of features of all patterns, asked, and causal: two outputs for N and for M queries. */
static rows_of mixed[N], mixed_causally[M];

static int features(int threads, rows_of *out, rows_of *causally) {
    sh_context context = {.threads = threads};
    sh_rows rows = first_rows(M), asked = {.data = queries, .n = N, .d = D, .stride = sizeof queries[0]};
    sh_features f = {.type = SH_FLOAT32, .map = SH_ELU, .d = D, .size = D, .v = D, .beta = 0.5};
    double *numbers = malloc((D + 2) * D * sizeof *numbers);
    sh_feature_state state = {numbers, numbers + D, numbers + 2 * D};
    for (int i = 0; numbers && i < (D + 2) * D; i++) numbers[i] = i < D ? -1e300 : 0; /* below every exponent */
    int sound = numbers && sh_features_add(&context, &f, &rows, NULL, state, NULL) == SH_OK &&
                sh_features_mix(&context, &f, state, &asked, out, D, NULL) == SH_OK &&
                sh_features_causal(&context, &f, &rows, &rows, NULL, 1e-20, causally, D, NULL) == SH_OK;
    free(numbers);
    return sound;
}

static int same_features(int threads) {
    rows_of *results = malloc(sizeof mixed + sizeof mixed_causally);
    int same = results && features(threads, results, results + N) && memcmp(results, mixed, sizeof mixed) == 0 &&
               memcmp(results + N, mixed_causally, sizeof mixed_causally) == 0;
    free(results);
    return same;
}

static void *caller(void *pointer) {
    user *me = pointer;
    sh_context context = {.threads = 2};
    if (me->number == 0) me->wrong |= sh_memory_index(&context, chosen) != SH_OK;
    for (int round = 0; round < ROUNDS; round++) {
        me->wrong |= !finds(forced, paths[(me->number + round) % PATHS], 1 + round, expected);
        me->wrong |= !finds(chosen, SH_PATH_AUTO, 1 + round, expected);
        me->wrong |= !associates(1 + round);
        me->wrong |= !same_features(1 + round);
    }
    me->wrong |= sh_memory_index_bytes(forced) <= 0;
    return NULL;
}

/* The next rows, one by one, in the block of norms that the callers read, and now and then a retrieval that extends
 * the index taken over; once from the memory that others use, then from what was made of it. */
static void *grower(void *pointer) {
    user *me = pointer;
    sh_context context = {.threads = 1};
    for (int round = 0; round < ROUNDS; round++) {
        sh_memory *grown = NULL;
        sh_path path = paths[(me->number + round) % PATHS];
        int sound = 1;
        for (int64_t n = M + 1; sound && n <= M + MORE; n++) {
            sh_rows rows = first_rows(n);
            sh_memory *longer = NULL;
            sound = sh_memory_extend(&context, grown ? grown : forced, &rows, NULL, &longer) == SH_OK;
            sh_memory_free(&context, grown);
            grown = longer;
            if (sound && n == M + 1) sound = finds(grown, path, 2, expected_of_next);
        }
        sound = sound && finds(grown, path, 2, expected_of_all) && finds(grown, SH_PATH_AUTO, 1, expected_of_all);
        sh_memory_free(&context, grown);
        me->wrong |= !sound;
    }
    return NULL;
}

static void *use(void *pointer) {
    user *me = pointer;
    pthread_barrier_wait(&start);
    return me->number < CALLERS ? caller(me) : grower(me);
}

#ifndef _WIN32
/* A call that forks when it is asked whether to stop: the parent's goes on, the child's is refused, and the next one is
 * right. */
typedef struct {
    int asked;
    pid_t child;
} forking;

static int fork_once(void *user) {
    forking *f = user;
    if (f->asked++ == 2) f->child = fork();
    return 0;
}

static int refuses_after_fork(void) {
    forking f = {.child = -1};
    const double beta = 0.5;
    sh_context context = {.threads = 3, .path = SH_PATH_SCAN, .interrupted = fork_once, .user = &f};
    int64_t support_size[N];
    rows_of *states = malloc(sizeof expected), *once = malloc(sizeof expected);
    sh_queries asked = {.data = queries, .n = N, .beta = &beta};
    sh_context quiet = {.threads = 1, .path = SH_PATH_SCAN};
    sh_model model = {.separation = SH_SPARSEMAX};
    int status = 0, sound = states && once && sh_update(&quiet, forced, model, asked, once, support_size) == SH_OK;
    sh_status found = sh_update(&context, forced, model, asked, states, support_size);
    if (f.child == 0) {
        sound = sound && found == SH_FORKED;
        context.interrupted = NULL;
        found = sh_update(&context, forced, model, asked, states, support_size);
    }
    sound = sound && found == SH_OK && memcmp(states, once, sizeof expected) == 0;
    free(states);
    free(once);
    if (f.child == 0) _exit(!sound);
    return sound && f.child > 0 && waitpid(f.child, &status, 0) == f.child && status == 0;
}

/* A child that was forked between calls finds the same bits as its parent. */
static int right_after_fork(void) {
    user alone = {0};
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        caller(&alone);
        _exit(alone.wrong);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static int same_when_forked(void) {
    const int right = right_after_fork(), refused = refuses_after_fork();
    if (!right) puts("a forked child got other bits");
    if (!refused) puts("a call that forked within was not refused in the child, or not right in the parent");
    return right && refused;
}

/* Address space for rows that are far apart; memory is taken where it is written. */
static void *reserve(size_t bytes) {
    void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}
static void give_back(void *block, size_t bytes) { munmap(block, bytes); }
static int prepare(void *part, size_t bytes) {
    (void)part, (void)bytes;
    return 1;
}
#else
static int same_when_forked(void) {
    puts("no forks on this system: they are not tried");
    return 1;
}

/* Address space for rows that are far apart; memory is taken for what is prepared. */
static void *reserve(size_t bytes) { return VirtualAlloc(NULL, bytes, MEM_RESERVE, PAGE_READWRITE); }
static void give_back(void *block, size_t bytes) {
    (void)bytes;
    VirtualFree(block, 0, MEM_RELEASE);
}
static int prepare(void *part, size_t bytes) { return VirtualAlloc(part, bytes, MEM_COMMIT, PAGE_READWRITE) != NULL; }
#endif

/* A team as OpenMP libraries keep one for each thread that begins parallel regions: this thread and one more, which waits
 * for the next region, spinning or asleep. */
static struct {
    sh_mutex lock;
    sh_condition wake;
    int asleep;
    atomic_int spins, begun, ended, alone; /* the member; regions, and those of one */
    atomic_int inside, most;               /* whether this thread is in one; omp_get_max_threads */
    void (*part)(void *);
    void *data;
} team = {.lock = SH_MUTEX_INIT, .wake = SH_CONDITION_INIT, .spins = 1, .most = 2};

static void *team_member(void *unused) {
    fesetround(FE_UPWARD); /* as a program may have its threads */
    for (int seen = 0;;) {
        while (atomic_load(&team.begun) == seen) {
            if (atomic_load(&team.spins)) continue;
            sh_lock(&team.lock);
            team.asleep = 1;
            while (atomic_load(&team.begun) == seen && !atomic_load(&team.spins)) sh_wait(&team.wake, &team.lock);
            team.asleep = 0;
            sh_unlock(&team.lock);
        }
        team.part(team.data);
        atomic_store(&team.ended, ++seen);
    }
    return unused;
}

static void wake_team(atomic_int *counted) {
    sh_lock(&team.lock);
    atomic_fetch_add(counted, 1);
    sh_wake_all(&team.wake);
    sh_unlock(&team.lock);
}

static void send_team_to_sleep(void) {
    atomic_store(&team.spins, 0);
    for (int asleep = 0; !asleep; sh_sleep(10)) {
        sh_lock(&team.lock);
        asleep = team.asleep;
        sh_unlock(&team.lock);
    }
}

static void team_parallel(void (*part)(void *), void *data, unsigned threads, unsigned flags) {
    if (threads != 0 || flags != 0 || atomic_exchange(&team.inside, 1)) abort();
    team.part = part;
    team.data = data;
    wake_team(&team.begun);
    part(data);
    while (atomic_load(&team.ended) != atomic_load(&team.begun)) continue;
    atomic_store(&team.inside, 0);
}

/* OpenMP may give fewer threads than were asked for: the caller alone. */
static void region_of_one(void (*part)(void *), void *data, unsigned threads, unsigned flags) {
    if (threads != 0 || flags != 0 || atomic_exchange(&team.inside, 1)) abort();
    atomic_fetch_add(&team.alone, 1);
    part(data);
    atomic_store(&team.inside, 0);
}

static int team_threads(void) { return atomic_load(&team.most); }
static int within_team(void) { return atomic_load(&team.inside); }

/* Counts the regions that some calls of two threads begin; -1 when their results are wrong. */
static int regions(void) {
    const int before = atomic_load(&team.begun) + atomic_load(&team.alone);
    const int same = associates(2) && same_features(2);
    return same ? atomic_load(&team.begun) + atomic_load(&team.alone) - before : -1;
}

static int gives_jobs_to_a_team(void) {
    user alone = {0};
    pthread_t member;
    sh_clock clock;
    if (pthread_create(&member, NULL, team_member, NULL) != 0) return 0;
    pthread_detach(member);
    sh_share_openmp((sh_openmp){team_parallel, team_threads, within_team});
    int right = sh_shares_openmp() && regions() > 0;
    caller(&alone);
    right = right && !alone.wrong && same_when_forked();
    /* one that nobody is watched of does all jobs */
    sh_share_openmp((sh_openmp){region_of_one, team_threads, within_team});
    right = right && same_when_forked() && sh_shares_openmp() && regions() > 0;
    sh_share_openmp((sh_openmp){team_parallel, team_threads, within_team});

    atomic_store(&team.most, 1);
    right = right && sh_threads_for(64) == 1 && regions() == 0;
    atomic_store(&team.most, 100);
    right = right && sh_threads_for(0) == 1 && sh_threads_for(3) == 3 && sh_threads_for(1000) == 64;
    atomic_store(&team.inside, 1);
    right = right && sh_threads_for(3) == 1 && regions() == 0;
    atomic_store(&team.inside, 0);

    right = right && regions() > 0; /* the first job of a team, from which it is watched */
    send_team_to_sleep();
    if (sh_own_clock(&clock)) { /* what sleeps is left alone; what spins is found again, when the system lets it run */
        right = right && regions() == 0;
        wake_team(&team.spins);
        int found = 0;
        for (int i = 0; right && i < 1000 && found == 0; i++) found = regions();
        right = right && found > 0;
        send_team_to_sleep();
    }
    sh_share_openmp((sh_openmp){NULL, NULL, NULL});
    return right && !sh_shares_openmp() && sh_threads_for(64) == 64 && regions() == 0;
}

/* The matrix of `rows` rows at `far`, far apart, as they are close together at `near`. */
enum { SIDE = 5 };
static const int64_t FAR = INT32_MAX + 12ll;
static void spread(float *far, const float *near, int rows) {
    for (int i = 0; i < rows; i++) memcpy(far + i * FAR, near + i * SIDE, SIDE * sizeof *far);
}

static int products_of_far_rows(void) {
    float near[3][SIDE * SIDE], *far[3];
    const size_t bytes = (size_t)FAR * SIDE * sizeof **far;
    for (int i = 0; i < 3; i++) {
        far[i] = reserve(bytes);
        for (int j = 0; far[i] && j < SIDE; j++)
            if (!prepare(far[i] + j * FAR, SIDE * sizeof **far)) return 0;
        if (!far[i]) {
            puts("no room for rows that are far apart: their products are not tried");
            return 1;
        }
        for (int j = 0; j < SIDE * SIDE; j++) near[i][j] = (float)((7 * j + 3 * i) % 11) - 4; /* exact in any order */
        spread(far[i], near[i], SIDE);
    }
    int sound = 1;
    for (int which = 1; which < 64; which++) { /* which are far, transposed, added to */
        const int f[3] = {which & 1, which >> 1 & 1, which >> 2 & 1}, ta = which >> 3 & 1, tb = which >> 4 & 1;
        const int m = 3, n = 4, k = SIDE, add = which >> 5;
        float want[SIDE * SIDE], *c = f[2] ? far[2] : near[2];
        memcpy(want, near[2], sizeof want);
        if (f[2]) spread(far[2], near[2], SIDE);
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                float sum = add ? want[i * SIDE + j] : 0;
                for (int l = 0; l < k; l++)
                    sum += near[0][ta ? l * SIDE + i : i * SIDE + l] * near[1][tb ? j * SIDE + l : l * SIDE + j];
                want[i * SIDE + j] = sum;
            }
        sh_gemm_f32(ta, tb, m, n, k, 1, f[0] ? far[0] : near[0], f[0] ? FAR : SIDE, f[1] ? far[1] : near[1],
                    f[1] ? FAR : SIDE, add, c, f[2] ? FAR : SIDE);
        for (int i = 0; i < SIDE; i++)
            sound &= memcmp(c + i * (f[2] ? FAR : SIDE), want + i * SIDE, SIDE * sizeof *want) == 0;
    }
    for (int i = 0; i < 3; i++) give_back(far[i], bytes);
    return sound;
}

static void *for_ever(void *unused) {
    for (;;) {
        finds(chosen, SH_PATH_SCAN, 2, expected);
        associates(2);
        same_features(2);
    }
    return unused;
}

int main(void) {
    sh_context context = {.threads = 1};
    sh_rows rows = first_rows(M);
    user users[USERS];
    int failures = 0;

    fill(patterns, M + MORE, 1);
    fill(queries, N, 2);
    if (sh_initialise() != SH_OK || pthread_barrier_init(&start, NULL, USERS) != 0) return 1;
    sh_memory *shorter = fresh(M - 1), *next = fresh(M + 1), *all = fresh(M + MORE);
    chosen = fresh(M);
    if (!shorter || !next || !all || !chosen) return 1;
    /* an index for whoever comes first to take over */
    if (retrieve(shorter, SH_PATH_LINES, 1, expected) != SH_OK) return 1;
    if (sh_memory_extend(&context, shorter, &rows, NULL, &forced) != SH_OK) return 1;
    sh_memory_free(&context, shorter);
    if (retrieve(forced, SH_PATH_SCAN, 1, expected) != SH_OK) return 1;
    if (retrieve(next, SH_PATH_SCAN, 1, expected_of_next) != SH_OK) return 1;
    if (retrieve(all, SH_PATH_SCAN, 1, expected_of_all) != SH_OK) return 1;
    sh_memory_free(&context, next);
    sh_memory_free(&context, all);

    for (int shared = 0; shared < 2; shared++)
        if (!associate(shared, 1, associated[shared][0], associated[shared][1])) return 1;

    if (!features(1, mixed, mixed_causally)) return 1;

    for (int i = 0; i < USERS; i++) {
        users[i] = (user){.number = i};
        if (pthread_create(&users[i].thread, NULL, use, &users[i]) != 0) return 1;
    }
    for (int i = 0; i < USERS; i++) {
        pthread_join(users[i].thread, NULL);
        failures += users[i].wrong;
    }

    const int forked = same_when_forked(), products = products_of_far_rows(), teamed = gives_jobs_to_a_team();
    if (!teamed) puts("jobs that a team may do went wrong, or to the wrong threads");
    if (!products) puts("products of rows that are far apart are wrong");
    failures += !forked + !products + !teamed;

    printf("%d callers and %d who add, forks and far rows: %d went wrong\n", CALLERS, GROWERS, failures);
    sh_memory_free(&context, forced);
    pthread_barrier_destroy(&start);
    fflush(stdout);
    for (int i = 0; i < GROWERS; i++) { /* they use `chosen` until the process has ended */
        if (pthread_create(&users[i].thread, NULL, for_ever, NULL) != 0) return 1;
        pthread_detach(users[i].thread);
    }
    sh_sleep(100);
    return failures != 0;
}
