/* streaming.c: maps with full support (softmax, polynomial) in one pass, carrying {scale, sum, mixture}.
 *
 * A tile of scores becomes unnormalised weights in place and is multiplied with its values at once; when a
 * larger scale turns up, what was summed is brought down to it. Two products, no row of scores kept.
 *
 * Notes  1. The mixture is summed in the compute type, in the order of the tiles, the sum of weights in double.
 *           The grid follows from the shapes, so bits do not depend on the number of threads; they do on the
 *           instruction set and on the BLAS.
 *        2. The mixtures of the first range are summed in `states`; other ranges have mixtures of their own.
 *        3. Weights of softmax that all together stay below the rounding of the result are left out: scores more
 *           than ln(2 M / u)/beta below the best so far, which only rises. If few weights of a tile count, they are
 *           selected, and the second product, mostly of zeros, is not made.
 * Source Milakov & Gimelshein 2018; Rabe & Staats 2021
 */
#include "retrieval/job.h"

enum { PARTIAL_BYTES = 16 * 1024 * 1024 };

typedef struct {
    sh_job *job;
    sh_partial *parts; /* (ranges); the first is the result */
} stream;

typedef struct {
    void *scores, *tile_rows; /* (block_rows, SH_TILE); of sh_tile_scores */
    void *values;             /* (SH_TILE) selected scores, then their weights, */
    int32_t *indices;         /* and which they are of the tile */
} item_scratch;

/* Lays out the scratch of one worker; returns its bytes (memory NULL: these alone). */
static size_t lay_out(const sh_job *job, void *memory, item_scratch *s) {
    sh_workspace w = {memory, 0};
    s->scores = sh_take(&w, job->plan.block_rows * SH_TILE, job->k->size);
    s->tile_rows = sh_take(&w, 1, sh_tile_row_bytes(job->memory));
    s->values = sh_take(&w, SH_TILE, job->k->size);
    s->indices = sh_take(&w, SH_TILE, sizeof *s->indices);
    return w.used;
}

void sh_raise_scale(const sh_job *job, int64_t query, double *scale, double *sum, void *mixture, double row_scale) {
    if (*scale != *scale) *scale = row_scale;
    if (!(row_scale > *scale)) return;
    double factor = job->map->rescale(sh_beta(job, query), job->model.parameter, *scale, row_scale);
    *sum *= factor;
    if (mixture) job->k->multiply_by(mixture, factor, job->values->d);
    *scale = row_scale;
    assert(factor >= 0 && factor <= 1);
}

enum { DENSE = 8 }; /* if more than one weight in so many counts, a product is cheaper */

/* Adds the n scores of one query and tile that are at least `min_score` to its partial result, one by one (note 3). */
static void add_selected(const sh_job *job, sh_partial part, int64_t query, void *mixture, const void *row,
                         int64_t first, int64_t n, double min_score, item_scratch work) {
    const sh_kernels *k = job->k;
    int64_t found = k->compress(row, n, min_score, work.values, work.indices);
    double beta = sh_beta(job, query);
    part.sum[query] += job->map->row_weights(k, work.values, found, beta, job->model.parameter, part.scale[query]);
    if (!mixture) return;
    if (job->plan.value_scale)
        for (int64_t i = 0; i < found; i++) {
            double w;
            k->to_double(&w, sh_at(k, work.values, i), 1);
            w *= job->plan.value_scale[first + work.indices[i]];
            k->from_double(sh_at(k, work.values, i), &w, 1);
        }
    sh_rows rows = *job->values;
    rows.data = (const char *)rows.data + first * rows.stride;
    rows.n -= first;
    sh_mix_selected(k, &rows, work.values, work.indices, found, mixture, work.tile_rows);
}

/* Streams one range of tiles past one block of queries. */
static sh_status stream_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    stream *s = pointer;
    const sh_job *job = s->job;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    const sh_grid_item g = sh_item_of_grid(job, item, job->queries.n);
    const int64_t width = job->values->d, first_query = g.first_query, rows = g.rows;
    sh_partial part = s->parts[g.range];
    item_scratch work;
    lay_out(job, scratch, &work);
    void *mixture = part.mixture ? sh_at(k, part.mixture, first_query * width) : NULL;
    const int mixes_whole_tiles = job->values->type > SH_FLOAT64 || job->plan.value_centre; /* widened, or centred */
    const int may_select = job->map->reach && !(mixture && mixes_whole_tiles);
    double min_scores[SH_BLOCK];
    for (int64_t i = first_query; i < first_query + rows; i++) part.scale[i] = NAN, part.sum[i] = 0;

    for (int64_t tile = g.first_tile; tile < g.last_tile; tile++) {
        int64_t first = tile * SH_TILE, n = sh_min(SH_TILE, m->patterns.n - first), counted = 0;
        sh_tile_scores(job, &m->patterns, sh_tile_query(job, first_query), rows, first, n, work.scores, SH_TILE,
                       work.tile_rows);
        for (int64_t i = 0; i < rows; i++) {
            int64_t query = first_query + i;
            void *row = sh_at(k, work.scores, i * SH_TILE);
            if (m->tile_scale || job->plan.tile_bias)
                k->affine_max(row, sh_tile_scale(m, first), sh_tile_bias(job, first), 0, n);
            double row_scale = job->map->row_scale(k, row, n);
            if (!isfinite(row_scale)) return sh_fail(context, SH_NOT_FINITE, "queries", query);
            void *mixed = mixture ? sh_at(k, mixture, i * width) : NULL;
            sh_raise_scale(job, query, &part.scale[query], &part.sum[query], mixed, row_scale);
            if (!may_select) continue;
            min_scores[i] = part.scale[query] - job->map->reach(sh_beta(job, query), k->unit / 2, m->patterns.n);
            counted += k->count(row, n, min_scores[i]);
        }
        int sparse = may_select && counted * DENSE <= rows * n;
        if (sparse && mixture && tile == g.first_tile) memset(mixture, 0, (size_t)(rows * width) * k->size);
        for (int64_t i = 0; i < rows; i++) {
            int64_t query = first_query + i;
            void *row = sh_at(k, work.scores, i * SH_TILE), *mixed = mixture ? sh_at(k, mixture, i * width) : NULL;
            if (sparse) {
                add_selected(job, part, query, mixed, row, first, n, min_scores[i], work);
                continue;
            }
            part.sum[query] +=
                job->map->row_weights(k, row, n, sh_beta(job, query), job->model.parameter, part.scale[query]);
            if (mixture && job->plan.tile_value_scale) k->multiply(row, sh_at(k, job->plan.tile_value_scale, first), n);
        }
        if (mixture && !sparse)
            sh_tile_mix(job, work.scores, SH_TILE, rows, first, n, 0, width, tile > g.first_tile, mixture, width,
                        work.tile_rows);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

sh_status sh_merge(sh_model model, sh_type type, int64_t n, int64_t v, const double *beta, int64_t beta_stride,
                   sh_partial a, sh_partial b) {
    const sh_map *map = sh_map_of(&model);
    if (!map || !map->rescale || (type != SH_FLOAT32 && type != SH_FLOAT64)) return SH_BAD_ARGUMENT;
    if (v < 0 || !sh_can_be(n, sizeof(double)) || (beta_stride != 0 && beta_stride != 1)) return SH_BAD_ARGUMENT;
    if (n == 0) return SH_OK;
    if (!beta || !a.scale || !a.sum || !b.scale || !b.sum || !a.mixture != !b.mixture) return SH_BAD_ARGUMENT;
    const sh_kernels *k = sh_kernels_of(type);
    for (int64_t i = 0; i < n; i++) {
        double scale = fmax(a.scale[i], b.scale[i]), query_beta = beta[i * beta_stride];
        double factor_a = map->rescale(query_beta, model.parameter, a.scale[i], scale);
        double factor_b = map->rescale(query_beta, model.parameter, b.scale[i], scale);
        a.scale[i] = scale;
        a.sum[i] = factor_a * a.sum[i] + factor_b * b.sum[i];
        if (!a.mixture) continue;
        enum { PIECE = 256 };
        double mixture[PIECE];
        for (int64_t j = 0; j < v; j += PIECE) {
            int64_t width = sh_min(PIECE, v - j);
            void *row = sh_at(k, a.mixture, i * v + j);
            k->to_double(mixture, row, width);
            for (int64_t l = 0; l < width; l++) mixture[l] *= factor_a;
            k->accumulate(mixture, factor_b, sh_at(k, b.mixture, i * v + j), width);
            k->from_double(row, mixture, width);
        }
    }
    return SH_OK;
}

enum { CHECKED_NUMBERS = 2048 }; /* of states, checked together while they are in the cache */

/* Writes results from the partial results of all patterns; divides by the sums of weights. */
static void store_results(sh_job *job, sh_partial result) {
    const sh_kernels *k = job->k;
    int64_t width = job->values->d, n = job->queries.n, checked = 0;
    for (int64_t i = 0; i < n; i++) {
        double sum = result.sum[i];
        if (job->out.states) k->multiply_by(sh_at(k, job->out.states, i * width), sum != 0 ? 1 / sum : 0, width);
        if (job->out.states && job->plan.value_centre)
            k->add(sh_at(k, job->out.states, i * width), 1, job->plan.value_centre, width);
        if (job->out.support_size) job->out.support_size[i] = job->memory->patterns.n;
        if (job->out.energy) job->out.energy[i] = sh_energy_of(job, i, result.scale[i] + log(sum) / sh_beta(job, i));
        if (!job->out.states || (i + 1 < n && (i + 1 - checked) * width < CHECKED_NUMBERS)) continue;
        sh_note_states_if_not_finite(job, sh_at(k, job->out.states, checked * width), i + 1 - checked);
        checked = i + 1;
    }
}

sh_status sh_stream(sh_job *job) {
    sh_context *context = job->context;
    const sh_kernels *k = job->k;
    const int64_t n = job->queries.n, width = job->values->d;
    const int partial = job->goal == SH_GOAL_PARTIAL,
              mixture = (partial ? job->out.partial.mixture : job->out.states) != NULL;
    int64_t part_bytes = n * (mixture ? width * (int64_t)k->size + 16 : 16);
    job->plan.ranges = sh_min(job->plan.ranges, 1 + PARTIAL_BYTES / part_bytes);

    stream s = {.job = job};
    sh_status status = SH_NO_MEMORY;
    double *sums = sh_allocate(context, 2 * n * job->plan.ranges, sizeof(double));
    char *mixtures = mixture && job->plan.ranges > 1
                         ? sh_allocate(context, (job->plan.ranges - 1) * n, (size_t)width * k->size)
                         : NULL;
    s.parts = sh_allocate(context, job->plan.ranges, sizeof *s.parts);
    if (!sums || !s.parts || (mixture && job->plan.ranges > 1 && !mixtures)) goto done;
    for (int64_t r = 0; r < job->plan.ranges; r++) {
        s.parts[r] = (sh_partial){.scale = sums + 2 * r * n, .sum = sums + (2 * r + 1) * n};
        if (mixture) s.parts[r].mixture = r ? mixtures + (size_t)((r - 1) * n * width) * k->size : job->out.states;
    }
    if (partial) s.parts[0] = job->out.partial;
    status = sh_for_each(context, job->plan.blocks * job->plan.ranges, lay_out(job, NULL, &(item_scratch){0}),
                         stream_item, &s);
    for (int64_t r = 1; status == SH_OK && r < job->plan.ranges; r++)
        status = sh_merge(job->model, job->memory->type, n, width, job->queries.beta, job->queries.beta_stride,
                          s.parts[0], s.parts[r]);
    for (int64_t i = 0; status == SH_OK && job->plan.shift && i < n; i++) s.parts[0].scale[i] += job->plan.shift[i];
    for (int64_t i = 0; status == SH_OK && partial && mixture && job->plan.value_centre && i < n; i++)
        k->add(sh_at(k, s.parts[0].mixture, i * width), s.parts[0].sum[i], job->plan.value_centre, width);
    if (status == SH_OK && !partial) store_results(job, s.parts[0]);
done:
    sh_release(context, sums);
    sh_release(context, mixtures);
    sh_release(context, s.parts);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
