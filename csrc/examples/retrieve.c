/* retrieve.c: stores four patterns, damages one of them and retrieves it.
 *
 * With the library installed:
 *     cc -std=c11 retrieve.c -o retrieve $(pkg-config --cflags --libs sparsehopfield)
 * or, linked with the static library:
 *     cc -std=c11 retrieve.c -o retrieve $(pkg-config --cflags --libs --static sparsehopfield)
 */
#include <sparsehopfield.h>

#include <stdio.h>
#include <string.h>

int main(void) {
    const float patterns[4][8] = {
        {1, 1, 0, 0, 1, 0, 1, 0}, {0, 1, 1, 0, 0, 1, 0, 1}, {1, 0, 1, 1, 0, 0, 1, 1}, {0, 0, 0, 1, 1, 1, 1, 0}};
    const float query[8] = {1, 0, 1, 1}; /* the third one, its second half set to zero */
    const double beta = 1.0;
    float state[8];
    int64_t steps, support_size;
    uint8_t converged;

    sh_context context = {.threads = 2};
    sh_rows rows = {.data = patterns, .n = 4, .d = 8, .stride = sizeof patterns[0], .type = SH_FLOAT32};
    sh_memory *memory = NULL;
    sh_status status = sh_initialise();
    if (status == SH_OK) status = sh_memory_new(&context, &rows, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory);
    if (status == SH_OK)
        status = sh_retrieve(&context, memory, (sh_model){.separation = SH_SPARSEMAX},
                             (sh_queries){.data = query, .n = 1, .beta = &beta}, 100, 0.0, state, &steps, &converged,
                             &support_size, NULL);
    if (status == SH_OK) {
        printf("%s after %d steps, from %d pattern(s):", converged ? "at rest" : "moving", (int)steps,
               (int)support_size);
        for (int i = 0; i < 8; i++) printf(" %g", state[i]);
        printf("\n");
    } else
        fprintf(stderr, "%s: %s\n", context.argument ? context.argument : "start", sh_status_name(status));
    sh_memory_free(&context, memory);
    return status != SH_OK || memcmp(state, patterns[2], sizeof state) != 0;
}
