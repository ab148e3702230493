/* Many threads use one memory at once, each with its own context and more threads within, while one more adds to
 * it; then a forked child does. All must find the same bits as one thread alone. `make -C csrc check` runs this, and the
 * continuous integration runs it under ThreadSanitizer too. */
#define _GNU_SOURCE
#include "sparsehopfield.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { M = 3000, MORE = 300, N = 700, D = 48, CALLERS = 8, ROUNDS = 3 };
static float patterns[M + MORE][D], queries[N][D], expected[N][D];
static sh_memory *memory;

static void fill(float *x, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) x[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / (1 << 24);
}

static int retrieve(const sh_memory *from, int threads, float states[N][D]) {
    const double beta = 2.0;
    int64_t steps[N], support_size[N];
    uint8_t converged[N];
    sh_context context = {.threads = threads};
    return sh_retrieve(&context, from, (sh_model){.separation = SH_SPARSEMAX},
                       (sh_queries){.data = queries, .n = N, .beta = &beta}, 5, 0.0, states, steps, converged,
                       support_size, NULL);
}

static void *caller(void *wrong) {
    float (*states)[D] = malloc(sizeof expected);
    for (int round = 0; round < ROUNDS; round++)
        if (!states || retrieve(memory, 1 + round, states) != SH_OK || memcmp(states, expected, sizeof expected) != 0)
            *(int *)wrong = 1;
    free(states);
    return NULL;
}

static sh_rows first_rows(int64_t n) {
    return (sh_rows){.data = patterns, .n = n, .d = D, .stride = sizeof patterns[0], .type = SH_FLOAT32};
}

/* The next rows, one by one, in the block of norms that the callers read; then compared with a memory made anew. */
static void *grower(void *wrong) {
    sh_context context = {.threads = 1};
    sh_memory *grown = NULL, *fresh = NULL;
    float (*states)[D] = malloc(2 * sizeof expected);
    int sound = states != NULL;
    for (int64_t n = M + 1; sound && n <= M + MORE; n++) {
        sh_rows rows = first_rows(n);
        sh_memory *longer = NULL;
        sound = sh_memory_extend(&context, grown ? grown : memory, &rows, NULL, &longer) == SH_OK;
        sh_memory_free(&context, grown);
        grown = longer;
    }
    sh_rows rows = first_rows(M + MORE);
    sound = sound && sh_memory_new(&context, &rows, NULL, SH_EUCLIDEAN, SH_FLOAT32, &fresh) == SH_OK &&
            retrieve(grown, 2, states) == SH_OK && retrieve(fresh, 1, states + N) == SH_OK &&
            memcmp(states, states + N, sizeof expected) == 0;
    sh_memory_free(&context, grown);
    sh_memory_free(&context, fresh);
    free(states);
    *(int *)wrong = !sound;
    return NULL;
}

int main(void) {
    sh_context context = {.threads = 1};
    sh_rows most = first_rows(M - 1), rows = first_rows(M);
    sh_memory *shorter;
    pthread_t threads[CALLERS + 1];
    int wrong[CALLERS + 2] = {0}, failures = 0, status = 0;

    fill(patterns[0], (M + MORE) * D, 1);
    fill(queries[0], N * D, 2);
    if (sh_initialise() != SH_OK) return 1;
    if (sh_memory_new(&context, &most, NULL, SH_EUCLIDEAN, SH_FLOAT32, &shorter) != SH_OK) return 1;
    if (sh_memory_extend(&context, shorter, &rows, NULL, &memory) != SH_OK) return 1;
    sh_memory_free(&context, shorter);
    if (retrieve(memory, 1, expected) != SH_OK) return 1;

    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&threads[i], NULL, caller, &wrong[i]) != 0) return 1;
    if (pthread_create(&threads[CALLERS], NULL, grower, &wrong[CALLERS + 1]) != 0) return 1;
    for (int i = 0; i <= CALLERS; i++) pthread_join(threads[i], NULL);

    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        caller(&wrong[CALLERS]);
        _exit(wrong[CALLERS]);
    }
    wrong[CALLERS] = child < 0 || waitpid(child, &status, 0) != child || status != 0;

    for (int i = 0; i < CALLERS + 2; i++) failures += wrong[i];
    printf("%d callers, one who adds and a forked child: %d of them got other bits\n", CALLERS, failures);
    sh_memory_free(&context, memory);
    return failures != 0;
}
