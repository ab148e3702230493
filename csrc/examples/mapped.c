/* mapped.c: patterns in a file are mapped into memory and retrieved from there. The library borrows the rows: nothing is
 * copied, only pages that a call reads are loaded, and several processes share them.
 *
 * With the library installed:
 *     cc -std=c11 mapped.c -o mapped $(pkg-config --cflags --libs sparsehopfield)
 *     ./mapped [file]      makes the file, if it is not there; else one in the folder for temporary files, for this run
 *
 * The file: a header of four 32-bit numbers (a mark, the number of patterns, bytes of each, 0), then the patterns, one byte
 * a feature, as pictures have them. A byte q stands for q / 255. For POSIX and Windows.
 */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <windows.h>
#endif
#include <sparsehopfield.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MARK = 0x53485031, PATTERNS = 5000, FEATURES = 64, QUERIES = 20 };
typedef struct {
    uint32_t mark, patterns, features, unused;
} header;

/* Writes a file of patterns drawn at random; returns whether it could. */
static int write_file(const char *name) {
    FILE *file = fopen(name, "wb");
    if (!file) return 0;
    const header h = {MARK, PATTERNS, FEATURES, 0};
    size_t written = fwrite(&h, sizeof h, 1, file);
    uint32_t random = 1;
    for (int i = 0; i < PATTERNS; i++) {
        unsigned char row[FEATURES];
        for (int j = 0; j < FEATURES; j++) row[j] = (unsigned char)((random = random * 1664525u + 1013904223u) >> 24);
        written += fwrite(row, sizeof row, 1, file);
    }
    return (fclose(file) == 0) & (written == PATTERNS + 1);
}

/* Maps a whole file for reading; returns where, or NULL, and its size. */
static const void *map_file(const char *name, size_t *bytes) {
#if defined(_WIN32)
    HANDLE file = CreateFileA(name, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    LARGE_INTEGER size = {.QuadPart = 0};
    if (file == INVALID_HANDLE_VALUE || !GetFileSizeEx(file, &size)) return NULL;
    HANDLE mapping = CreateFileMappingA(file, NULL, PAGE_READONLY, 0, 0, NULL);
    const void *start = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (mapping) CloseHandle(mapping);
    CloseHandle(file);
    *bytes = (size_t)size.QuadPart;
    return start;
#else
    int file = open(name, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0) return NULL;
    void *start = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, file, 0);
    close(file); /* the mapping stays */
    *bytes = (size_t)about.st_size;
    return start == MAP_FAILED ? NULL : start;
#endif
}

static void unmap_file(const void *start, size_t bytes) {
#if defined(_WIN32)
    (void)bytes;
    UnmapViewOfFile(start);
#else
    munmap((void *)start, bytes);
#endif
}

/* Retrieves patterns from the mapped file by queries with every fourth feature lost; returns how many came back exactly, or
 * -1 with a message. */
static int retrieve(const header *h) {
    const unsigned char *patterns = (const unsigned char *)(h + 1);
    const double beta = 30;
    static float queries[QUERIES][FEATURES], states[QUERIES][FEATURES];
    int64_t steps[QUERIES], support[QUERIES];
    uint8_t converged[QUERIES];
    sh_context context = {.threads = 2};
    /* bytes are widened where they are used: no copy in float32 is made */
    const sh_rows rows = {
        .data = patterns, .n = h->patterns, .d = FEATURES, .stride = FEATURES, .type = SH_UINT8, .scale = 1 / 255.0f};
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < FEATURES; j++)
            queries[i][j] = j % 4 == 0 ? 0.5f : (float)patterns[i * 37 * FEATURES + j] * (1 / 255.0f);

    sh_memory *memory = NULL;
    sh_status status = sh_memory_new(&context, &rows, NULL, SH_EUCLIDEAN, SH_FLOAT32, &memory);
    sh_memory_use_map(memory, 1); /* of it a search by an index then reads single rows */
    if (status == SH_OK)
        status = sh_retrieve(&context, memory, (sh_model){.separation = SH_SPARSEMAX},
                             (sh_queries){.data = queries, .n = QUERIES, .beta = &beta}, 20, 0.0, states, steps,
                             converged, support, NULL);
    sh_memory_free(&context, memory);
    if (status != SH_OK) {
        fprintf(stderr, "%s: %s (row %lld)\n", context.argument ? context.argument : "memory", sh_status_name(status),
                (long long)context.row);
        return -1;
    }
    int found = 0;
    for (int i = 0; i < QUERIES; i++) {
        int same = 1;
        for (int j = 0; j < FEATURES; j++)
            same &= states[i][j] == (float)patterns[i * 37 * FEATURES + j] * (1 / 255.0f);
        found += same;
    }
    return found;
}

/* Makes the name of a file for this run alone; returns whether it could. */
static int temporary_name(char *name, size_t size) {
#if defined(_WIN32)
    return size >= L_tmpnam && tmpnam(name) != NULL;
#else
    const char *folder = getenv("TMPDIR");
    const int length = snprintf(name, size, "%s/sparsehopfield-XXXXXX", folder ? folder : "/tmp");
    const int file = length > 0 && (size_t)length < size ? mkstemp(name) : -1;
    return file >= 0 && close(file) == 0;
#endif
}

int main(int count, char **arguments) {
    char made[1024];
    const char *name = count > 1 ? arguments[1] : made;
    if (count <= 1 && !temporary_name(made, sizeof made)) return 1;
    size_t bytes = 0;
    FILE *there = count > 1 ? fopen(name, "rb") : NULL;
    if (there) fclose(there);
    if (!there && !write_file(name)) {
        fprintf(stderr, "%s: cannot be written\n", name);
        return 1;
    }
    const header *h = map_file(name, &bytes);
    int found = -1;
    if (!h)
        fprintf(stderr, "%s: cannot be mapped\n", name);
    else if (bytes < sizeof *h || h->mark != MARK || h->features != FEATURES || h->patterns < PATTERNS ||
             bytes != sizeof *h + (size_t)h->patterns * FEATURES)
        fprintf(stderr, "%s: is no file of patterns\n", name);
    else if (sh_initialise() == SH_OK && (found = retrieve(h)) >= 0)
        printf("%d of %d damaged patterns came back, from %lu mapped in a file\n", found, QUERIES,
               (unsigned long)h->patterns);
    if (h) unmap_file(h, bytes);
    if (count <= 1) remove(name);
    return found != QUERIES;
}
