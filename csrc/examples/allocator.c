/* allocator.c: gives the library memory from an arena of fixed size, and shows what a call does when there is none left: it
 * returns SH_NO_MEMORY, gives back all that it took, and the memory that it was asked of goes on working.
 *
 * With the library installed:
 *     cc -std=c11 allocator.c -o allocator $(pkg-config --cflags --libs sparsehopfield)
 */
#include <sparsehopfield.h>

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An arena: blocks are taken from its end, one after the other, and all of it is free again when the last is given back.
 * The library asks from any of its threads, hence the atomic numbers. */
typedef struct {
    char *start;
    size_t size;
    _Atomic size_t used;
    atomic_int blocks, refused;
} arena;

static void *take(void *user, size_t bytes) {
    arena *a = user;
    const size_t line = _Alignof(max_align_t), whole = (bytes + line - 1) / line * line;
    size_t used = atomic_load(&a->used);
    do
        if (whole < bytes || whole > a->size - used) {
            atomic_fetch_add(&a->refused, 1);
            return NULL;
        }
    while (!atomic_compare_exchange_weak(&a->used, &used, used + whole));
    atomic_fetch_add(&a->blocks, 1);
    return a->start + used;
}

static void give_back(void *user, void *block) {
    arena *a = user;
    (void)block;
    if (atomic_fetch_sub(&a->blocks, 1) == 1) atomic_store(&a->used, 0); /* no call is running: see main */
}

enum { PATTERNS = 500, FEATURES = 32, QUERIES = 100 };
static float patterns[PATTERNS][FEATURES], states[QUERIES][FEATURES];

/* Makes a memory over all patterns and asks for the first ones by themselves; everything is given back. */
static sh_status make_and_ask(sh_context *context) {
    const double beta = 10;
    const sh_rows rows = {
        .data = patterns, .n = PATTERNS, .d = FEATURES, .stride = sizeof patterns[0], .type = SH_FLOAT32};
    sh_memory *memory = NULL;
    sh_status status = sh_memory_new(context, &rows, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory);
    if (status == SH_OK)
        status = sh_update(context, memory, (sh_model){.separation = SH_SPARSEMAX},
                           (sh_queries){.data = patterns, .n = QUERIES, .beta = &beta}, states, NULL);
    sh_memory_free(context, memory);
    return status;
}

int main(void) {
    arena a = {.size = 16 << 20};
    sh_context context = {.allocate = take, .release = give_back, .user = &a, .threads = 1};
    uint32_t random = 1;
    for (int i = 0; i < PATTERNS; i++)
        for (int j = 0; j < FEATURES; j++)
            patterns[i][j] = (float)((random = random * 1664525u + 1013904223u) >> 8) / (1 << 24);
    if (!(a.start = malloc(a.size)) || sh_initialise() != SH_OK) return 1;

    /* too small for the call: no result, and nothing is lost */
    const size_t whole = a.size;
    a.size = 20000;
    const sh_status refused = make_and_ask(&context);
    printf("%lu bytes: %s, %d request(s) refused, %d block(s) kept\n", (unsigned long)a.size, sh_status_name(refused),
           atomic_load(&a.refused), atomic_load(&a.blocks));
    int sound = refused == SH_NO_MEMORY && atomic_load(&a.blocks) == 0 && context.argument == NULL;

    /* the same call with the same context, now that there is room */
    a.size = whole;
    const sh_status made = make_and_ask(&context);
    printf("%lu bytes: %s, %d block(s) kept\n", (unsigned long)a.size, sh_status_name(made), atomic_load(&a.blocks));
    sound &= made == SH_OK && atomic_load(&a.blocks) == 0 && memcmp(states, patterns, sizeof states) == 0;

    /* a bad argument is named, whatever memory there is */
    patterns[7][3] = 1e30f * 1e30f;
    const sh_status bad = make_and_ask(&context);
    printf("an infinite number: %s in row %lld of %s\n", sh_status_name(bad), (long long)context.row, context.argument);
    sound &= bad == SH_NOT_FINITE && context.row == 7 && strcmp(context.argument, "patterns") == 0;
    free(a.start);
    return !sound;
}
