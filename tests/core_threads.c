/* Many threads use one memory at once, each with its own context and more threads within; then a forked
 * child does. All must find the same bits as one thread alone. `make -C csrc check` runs this, and the
 * continuous integration runs it under ThreadSanitizer too. */
#define _GNU_SOURCE
#include "sparsehopfield.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { M = 3000, N = 700, D = 48, CALLERS = 8, ROUNDS = 3 };
static float patterns[M][D], queries[N][D], expected[N][D];
static sh_memory *memory;

static void fill(float *x, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) x[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / (1 << 24);
}

static int retrieve(int threads, float states[N][D]) {
    const double beta = 2.0;
    int64_t steps[N], support_size[N];
    uint8_t converged[N];
    sh_context context = {.threads = threads};
    return sh_retrieve(&context, memory, (sh_model){.separation = SH_SPARSEMAX},
                       (sh_queries){.data = queries, .n = N, .beta = &beta}, 5, 0.0, states, steps, converged,
                       support_size, NULL);
}

static void *caller(void *wrong) {
    float (*states)[D] = malloc(sizeof expected);
    for (int round = 0; round < ROUNDS; round++)
        if (!states || retrieve(1 + round, states) != SH_OK || memcmp(states, expected, sizeof expected) != 0)
            *(int *)wrong = 1;
    free(states);
    return NULL;
}

int main(void) {
    sh_context context = {.threads = 1};
    sh_rows rows = {patterns, M, D, sizeof patterns[0], SH_FLOAT32};
    pthread_t threads[CALLERS];
    int wrong[CALLERS + 1] = {0}, failures = 0, status = 0;

    fill(patterns[0], M * D, 1);
    fill(queries[0], N * D, 2);
    if (sh_initialise() != SH_OK) return 1;
    if (sh_memory_new(&context, &rows, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory) != SH_OK) return 1;
    if (retrieve(1, expected) != SH_OK) return 1;

    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&threads[i], NULL, caller, &wrong[i]) != 0) return 1;
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);

    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        caller(&wrong[CALLERS]);
        _exit(wrong[CALLERS]);
    }
    wrong[CALLERS] = child < 0 || waitpid(child, &status, 0) != child || status != 0;

    for (int i = 0; i <= CALLERS; i++) failures += wrong[i];
    printf("%d callers and a forked child: %d of them got other bits\n", CALLERS, failures);
    sh_memory_free(&context, memory);
    return failures != 0;
}
