/* workspace.h: scratch memory as a list of arrays, each on cache lines of its own.
 *
 * An operation has one function that takes its arrays one after the other. Run without memory it counts the bytes; run on
 * a block of so many bytes it says where the arrays lie. So size and layout cannot contradict each other:
 *
 *     static size_t lay_out(const sh_job *job, void *block, space *s) {
 *         sh_workspace w = {block, 0};
 *         s->scores = sh_take(&w, SH_TILE, job->k->size);
 *         s->sum = sh_take(&w, job->width, sizeof(double));
 *         return w.used;
 *     }
 *
 * Under AddressSanitizer a poisoned line follows each array; sh_release lifts the poison.
 */
#ifndef SH_WORKSPACE_H
#define SH_WORKSPACE_H
#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#define SH_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SH_POISON 1
#endif
#endif
#ifdef SH_POISON
#include <sanitizer/asan_interface.h>
enum { SH_RED_ZONE = 64 };
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
enum { SH_RED_ZONE = 0 };
#endif

typedef struct {
    void *block; /* aligned to 64 bytes, as sh_allocate gives it; or NULL: only count */
    size_t used; /* bytes of the arrays so far; PTRDIFF_MAX, which no allocation gives, where they are too many */
} sh_workspace;

/* Takes an array of `count` elements, none or more. Returns NULL where there is no block. O(1). */
static inline void *sh_take(sh_workspace *w, int64_t count, size_t size) {
    size_t bytes = (size_t)count * size, end = w->used + bytes;
    if (!w->block) { /* the bytes are counted before there is a block: they are checked once */
        if (__builtin_mul_overflow((size_t)count, size, &bytes) || __builtin_add_overflow(w->used, bytes, &end) ||
            end > PTRDIFF_MAX - 64 - SH_RED_ZONE)
            w->used = PTRDIFF_MAX;
        else
            w->used = ((end + 63) & ~(size_t)63) + SH_RED_ZONE;
        return NULL;
    }
    char *array = (char *)w->block + w->used;
    w->used = ((end + 63) & ~(size_t)63) + SH_RED_ZONE;
    ASAN_UNPOISON_MEMORY_REGION(array, bytes);
    ASAN_POISON_MEMORY_REGION(array + bytes, (size_t)((char *)w->block + w->used - (array + bytes)));
    return array;
}
#endif
