/* driver.c: runs cases of core.c without libFuzzer: files that are named, or N cases of random bytes from a seed.
 *
 *   core FILE ...                        each file is the bytes of a case
 *   core --cases N --seed K [--first F]  cases F to F + N - 1; of each the number is told before it runs, so that a
 *                                        crash names its case: --first X --cases 1 runs it alone
 * Ends with the bits that were promised whatever the instruction set. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern uint64_t fuzz_promised;

static uint64_t next(uint64_t *state) {
    uint64_t x = (*state += 0x9E3779B97F4A7C15u);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static int run_file(const char *path) {
    enum { LONGEST = 1 << 16 };
    static uint8_t content[LONGEST];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    const size_t size = fread(content, 1, LONGEST, file);
    fclose(file);
    LLVMFuzzerTestOneInput(content, size);
    return 0;
}

static int quiet;

static void run_case(uint64_t seed, uint64_t number) {
    if (!quiet) fprintf(stderr, "case %" PRIu64 "\n", number);
    uint64_t state = seed * 1000003 + number;
    const size_t size = 8 + (size_t)(next(&state) % 250);
    uint8_t *data = malloc(size); /* exactly so long */
    if (!data) exit(1);
    for (size_t i = 0; i < size; i++) data[i] = (uint8_t)next(&state);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

int main(int count, char **arguments) {
    uint64_t cases = 0, seed = 0, first = 0, done = 0;
    double seconds = 1e9;
    int failed = 0;
    for (int i = 1; i < count; i++) {
        const char *value = i + 1 < count ? arguments[i + 1] : "";
        if (!strcmp(arguments[i], "--cases"))
            cases = strtoull(value, NULL, 10), i++;
        else if (!strcmp(arguments[i], "--seed"))
            seed = strtoull(value, NULL, 10), i++;
        else if (!strcmp(arguments[i], "--first"))
            first = strtoull(value, NULL, 10), i++;
        else if (!strcmp(arguments[i], "--seconds"))
            seconds = strtod(value, NULL), i++;
        else if (!strcmp(arguments[i], "--quiet"))
            quiet = 1;
        else
            failed |= run_file(arguments[i]), done++;
    }
    const time_t begin = time(NULL);
    for (uint64_t i = first; i < first + cases && difftime(time(NULL), begin) < seconds; i++, done++) run_case(seed, i);
    printf("%" PRIu64 " cases, promised bits %016" PRIx64 "\n", done, fuzz_promised);
    return failed;
}
