/* available.c: the memory that this process may still take: of the machine, of its control groups or job, of its limits.
 *
 * Notes  1. A group's cache of files counts as free: it is given up before anything is killed.
 *        2. What cannot be read sets no limit: a call that asks never fails.
 */
#define _GNU_SOURCE
#include "runtime/runtime.h"
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t UNKNOWN = INT64_MAX;

#ifdef __linux__
#include <sys/resource.h>
#include <unistd.h>

enum { NAME = 4096 };

static FILE *open_under(const char *root, const char *folder, const char *name) {
    char path[3 * NAME];
    int n = snprintf(path, sizeof path, "%s%s%s", root, folder, name);
    return n > 0 && n < (int)sizeof path ? fopen(path, "re") : NULL;
}

/* Returns the number that a file begins with; UNKNOWN where there is none, as where it says "max". */
static int64_t number_in(const char *root, const char *folder, const char *name) {
    FILE *file = open_under(root, folder, name);
    long long number;
    int found = file && fscanf(file, "%lld", &number) == 1 && number >= 0;
    if (file) fclose(file);
    return found ? number : UNKNOWN;
}

/* Returns the sum of the numbers behind two words in a file of "word number" lines; `missing` where neither is there. */
static int64_t fields_in(const char *root, const char *folder, const char *name, const char *one, const char *other,
                         int64_t missing) {
    FILE *file = open_under(root, folder, name);
    char word[64];
    long long number;
    int64_t sum = 0, found = 0;
    while (file && fscanf(file, "%63s %lld%*[^\n]", word, &number) == 2)
        if (!strcmp(word, one) || (other && !strcmp(word, other))) {
            sum += number;
            found = 1;
        }
    if (file) fclose(file);
    return found ? sum : missing;
}

/* A version of control groups: how its mount is told, and the names of its files. */
typedef struct {
    const char *type, *option; /* the file system of its mount, and a word among its options */
    const char *most[2], *used, *cache[2];
} version;
static const version VERSIONS[] = {
    {"cgroup2", "", {"/memory.max", "/memory.high"}, "/memory.current", {"inactive_file", "active_file"}},
    {"cgroup",
     "memory",
     {"/memory.limit_in_bytes", "/memory.limit_in_bytes"},
     "/memory.usage_in_bytes",
     {"total_inactive_file", "total_active_file"}},
};

/* Tells whether a list of words, separated by commas, has a word; any list has the empty one. */
static int has_option(const char *options, const char *option) {
    size_t n = strlen(option);
    for (const char *at = options; n && at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, option, n) && (at[n] == ',' || at[n] == 0)) return 1;
    return n == 0;
}

/* Finds the process's group in a version's hierarchy: from a line "number:controllers:path". */
static int group_of(const char *root, const version *v, char *group) {
    FILE *file = open_under(root, "/proc/self/cgroup", "");
    char *line = NULL;
    size_t room = 0;
    int found = 0;
    while (file && !found && getline(&line, &room, file) > 0) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path || path[1] != '/') continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        controllers++;
        if (*v->option ? !has_option(controllers, v->option) : *controllers != 0) continue;
        found = snprintf(group, NAME, "%s", path) < NAME;
    }
    free(line);
    if (file) fclose(file);
    return found;
}

/* Finds where a hierarchy is mounted, and which of its groups is the root of the mount: from a line
 * "id parent device root place options ... - type source options" */
static int mount_of(const char *root, const version *v, char *place, char *top) {
    FILE *file = open_under(root, "/proc/self/mountinfo", "");
    char *line = NULL, type[64], options[NAME];
    size_t room = 0;
    int found = 0;
    while (file && !found && getline(&line, &room, file) > 0) {
        const char *rest = strstr(line, " - ");
        if (!rest || sscanf(rest, " - %63s %*s %4095s", type, options) != 2 || strcmp(type, v->type)) continue;
        found = has_option(options, v->option) && sscanf(line, "%*s %*s %*s %4095s %4095s", top, place) == 2;
    }
    free(line);
    if (file) fclose(file);
    return found;
}

/* Returns what one group may still take. */
static int64_t available_in_group(const char *root, const version *v, const char *folder) {
    int64_t most = UNKNOWN, used = number_in(root, folder, v->used);
    for (int i = 0; i < 2; i++) most = sh_min(most, number_in(root, folder, v->most[i]));
    if (most == UNKNOWN || used == UNKNOWN) return UNKNOWN;
    int64_t cache = fields_in(root, folder, "/memory.stat", v->cache[0], v->cache[1], 0);
    return sh_max(most - sh_max(used - cache, 0), 0);
}

/* Returns the least of what the process's group and the groups around it may still take. */
static int64_t available_in_groups(const char *root, const version *v) {
    char group[NAME], place[NAME], top[NAME], folder[2 * NAME];
    if (!group_of(root, v, group) || !mount_of(root, v, place, top)) return UNKNOWN;
    size_t above = strcmp(top, "/") ? strlen(top) : 0;
    int inside = !strncmp(group, top, above) && (group[above] == '/' || group[above] == 0) && !strstr(group, "/..");
    snprintf(folder, sizeof folder, "%s%s", place, inside ? group + above : "");
    int64_t available = UNKNOWN;
    for (size_t end = strlen(folder); end >= strlen(place) && end > 0; end--) {
        if (folder[end] != 0 && folder[end] != '/') continue;
        folder[end] = 0;
        available = sh_min(available, available_in_group(root, v, folder));
    }
    return available;
}

/* Returns what a limit of the process leaves. */
static int64_t available_under(int resource, int64_t used) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > INT64_MAX) return UNKNOWN;
    return sh_max((int64_t)limit.rlim_cur - used, 0);
}

static int64_t available_under_limits(void) {
    FILE *file = fopen("/proc/self/statm", "re");
    long long size, data;
    int found = file && fscanf(file, "%lld %*d %*d %*d %*d %lld", &size, &data) == 2;
    if (file) fclose(file);
    if (!found) return UNKNOWN;
    int64_t page = sysconf(_SC_PAGESIZE);
    return sh_min(available_under(RLIMIT_AS, size * page), available_under(RLIMIT_DATA, data * page));
}

static int64_t find_available(const char *root) {
    int64_t kilobytes = fields_in(root, "/proc/meminfo", "", "MemAvailable:", NULL, UNKNOWN);
    int64_t available = kilobytes < UNKNOWN / 1024 ? kilobytes * 1024 : UNKNOWN;
    for (int i = 0; i < 2; i++) available = sh_min(available, available_in_groups(root, &VERSIONS[i]));
    return sh_min(available, available_under_limits());
}
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <psapi.h>

static int64_t positive(uint64_t bytes) { return bytes < INT64_MAX ? (int64_t)bytes : UNKNOWN; }

/* Returns what the limits of the job that the process is in leave. Other processes of the job, which share one of the
 * limits, are not counted. */
static int64_t available_in_job(void) {
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION job;
    PROCESS_MEMORY_COUNTERS_EX process = {.cb = sizeof process};
    if (!QueryInformationJobObject(NULL, JobObjectExtendedLimitInformation, &job, sizeof job, NULL)) return UNKNOWN;
    if (!GetProcessMemoryInfo(GetCurrentProcess(), (PROCESS_MEMORY_COUNTERS *)&process, sizeof process)) return UNKNOWN;
    const DWORD flags = job.BasicLimitInformation.LimitFlags;
    int64_t most = UNKNOWN;
    if (flags & JOB_OBJECT_LIMIT_PROCESS_MEMORY) most = sh_min(most, positive(job.ProcessMemoryLimit));
    if (flags & JOB_OBJECT_LIMIT_JOB_MEMORY) most = sh_min(most, positive(job.JobMemoryLimit));
    return most == UNKNOWN ? UNKNOWN : sh_max(most - positive(process.PrivateUsage), 0);
}

static int64_t find_available(const char *root) {
    (void)root; /* there are no files to read */
    MEMORYSTATUSEX machine = {.dwLength = sizeof machine};
    int64_t available = available_in_job();
    if (!GlobalMemoryStatusEx(&machine)) return available;
    available = sh_min(available, positive(machine.ullAvailPhys));     /* the cache of files counts as free here, too */
    available = sh_min(available, positive(machine.ullAvailPageFile)); /* what this process may commit */
    return sh_min(available, positive(machine.ullAvailVirtual));
}
#else
static int64_t find_available(const char *root) {
    (void)root;
    return UNKNOWN;
}
#endif

#ifdef SH_TESTING
static _Atomic int64_t chosen = -1;

void sh_set_available_memory(int64_t bytes) { atomic_store(&chosen, bytes); }

int64_t sh_available_memory_under(const char *root) { return find_available(root); }

int64_t sh_available_memory(void) {
    int64_t bytes = atomic_load(&chosen);
    return bytes < 0 ? find_available("") : bytes;
}
#else
int64_t sh_available_memory(void) { return find_available(""); }
#endif
