/* excluded.c: queries each of which does not see one pattern: stored patterns left out one by one, without new memories.
 *
 * The pattern that a query excludes is hidden from it where scores come into being: in rows of scores right after the
 * product, and in an index's lists before anything is made of their bounds. So no threshold, no best score, no hint and no
 * size of a support comes from it, and what remains are the candidates of a memory without it. What is made of these
 * depends on nothing else of the memory than how many patterns there are (rescore.c); limits that go by that number go by
 * one less (sh_seen_count). So results have the bits of a memory without the pattern wherever they are canonical.
 *
 * Notes  1. Bounds over all patterns (max_norm and others), outliers and the centre take excluded ones in. They make slacks,
 *           which only filter: too large a slack lets more through.
 *        2. Hidden scores are -inf, which no map gives weight. The polynomial, which has no such score, gives 0 none; but of
 *           its k best ranks alone matter.
 *        3. A tile may hold no other pattern than the one that a query excludes. Such a row of scores has no best.
 */
#include "retrieval/job.h"
#include "structure/structure.h"

sh_status sh_check_exclude(sh_context *context, const sh_memory *memory, const sh_queries *queries) {
    const int64_t count = sh_count(memory), *exclude = queries->exclude;
    if (!exclude) return SH_OK;
    SH_REQUIRE(context, !sh_by_place(queries->structure), "exclude");
    for (int64_t i = 0; i < queries->n; i++)
        if (exclude[i] < -1 || exclude[i] >= count || (exclude[i] >= 0 && count == 1))
            return sh_fail(context, SH_BAD_ARGUMENT, "exclude", i);
    return SH_OK;
}

int sh_hide_excluded(const sh_job *job, int64_t query, int64_t first, int64_t n, void *scores) {
    const int64_t row = sh_excluded(job, query);
    if (row < first || row >= first + n) return 0;
    const double nothing = job->map->shift_invariant || job->plan.k_best ? -INFINITY : 0; /* note 2 */
    job->k->from_double(sh_at(job->k, scores, row - first), &nothing, 1);
    return 1;
}

int sh_sees_none(const sh_job *job, int64_t query, int64_t first, int64_t n) {
    const int64_t row = sh_excluded(job, query);
    const sh_memory *m = job->memory;
    return row >= first && row < first + n && sh_position_of(m, first + n) - sh_position_of(m, first) == 1;
}

double sh_least_score(const sh_job *job) {
    return job->memory->removed || job->plan.outliers || job->plan.excluded ? -job->k->largest : -INFINITY;
}
