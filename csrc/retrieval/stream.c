/* stream.c: maps with full support (softmax, polynomial) in one pass, carrying {scale, sum, mixture}.
 *
 * A tile of scores becomes unnormalised weights in place and is multiplied with its values at once; when a
 * larger scale turns up, what was summed is brought down to it. Two products, no row of scores kept.
 *
 * Notes  1. The mixture is summed in the compute type, in the order of the tiles, the sum of weights in double.
 *           The grid follows from the shapes, so bits do not depend on the number of threads; they do on the
 *           instruction set and on the BLAS.
 *        2. A query's mixture grows in its row of `states`; only ranges beyond the first need rows of their own.
 * Source Milakov & Gimelshein 2018; Rabe & Staats 2021
 */
#include "engine.h"
#include <math.h>
#include <string.h>

enum { PARTIAL_BYTES = 16 * 1024 * 1024 };

typedef struct {
    sh_job *job;
    sh_partial *parts; /* (ranges); the first is the result */
} stream;

static sh_status stream_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    stream *s = pointer;
    const sh_job *job = s->job;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    int64_t block = item / job->ranges, range = item % job->ranges, width = job->mixed->d;
    int64_t first_query = block * job->block_rows, rows = sh_min(job->block_rows, job->queries.n - first_query);
    int64_t first_tile = job->tiles * range / job->ranges, last_tile = job->tiles * (range + 1) / job->ranges;
    sh_partial part = s->parts[range];
    void *scores = scratch, *pack = (char *)scratch + (size_t)job->block_rows * SH_TILE * k->size;
    void *mixture = part.mixture ? sh_at(k, part.mixture, first_query * width) : NULL;
    for (int64_t i = first_query; i < first_query + rows; i++) part.scale[i] = NAN, part.sum[i] = 0;

    for (int64_t tile = first_tile; tile < last_tile; tile++) {
        int64_t first = tile * SH_TILE, n = sh_min(SH_TILE, m->patterns.n - first);
        sh_tile_scores(m, sh_query(job, first_query), rows, first, n, scores, SH_TILE, pack);
        for (int64_t i = 0; i < rows; i++) {
            int64_t query = first_query + i;
            double beta = sh_beta(job, query), parameter = job->model.parameter, *scale = &part.scale[query];
            void *row = sh_at(k, scores, i * SH_TILE);
            if (m->tile_scale || m->tile_bias) k->affine_max(row, sh_tile_scale(m, first), sh_tile_bias(m, first), n);
            double here = job->map->row_scale(k, row, n);
            if (here != here) return sh_fail(context, SH_NOT_FINITE, "queries", query);
            if (tile == first_tile) {
                *scale = here;
            } else if (here > *scale) {
                double factor = job->map->rescale(beta, parameter, *scale, here);
                part.sum[query] *= factor;
                if (mixture) k->scale(sh_at(k, mixture, i * width), factor, width);
                *scale = here;
            }
            part.sum[query] += job->map->row_weights(k, row, n, beta, parameter, *scale);
            if (mixture && job->mixed_tile_scale) k->multiply(row, sh_at(k, job->mixed_tile_scale, first), n);
        }
        if (mixture)
            sh_tile_mix(job, scores, SH_TILE, rows, first, n, 0, width, tile > first_tile, mixture, width, pack);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

sh_status sh_merge(sh_model model, sh_type type, int64_t n, int64_t v, const double *beta, int64_t beta_stride,
                   sh_partial a, sh_partial b) {
    const sh_map *map = sh_map_of(&model);
    if (!map || !map->rescale || n < 0 || v < 0) return SH_BAD_ARGUMENT;
    const sh_kernels *k = sh_kernels_of(type);
    for (int64_t i = 0; i < n; i++) {
        double scale = fmax(a.scale[i], b.scale[i]), inverse = beta[i * beta_stride];
        double fa = map->rescale(inverse, model.parameter, a.scale[i], scale);
        double fb = map->rescale(inverse, model.parameter, b.scale[i], scale);
        a.scale[i] = scale;
        a.sum[i] = fa * a.sum[i] + fb * b.sum[i];
        if (!a.mixture) continue;
        enum { PIECE = 256 };
        double x[PIECE];
        for (int64_t j = 0; j < v; j += PIECE) {
            int64_t width = sh_min(PIECE, v - j);
            void *row = sh_at(k, a.mixture, i * v + j);
            k->to_double(x, row, width);
            for (int64_t l = 0; l < width; l++) x[l] *= fa;
            k->accumulate(x, fb, sh_at(k, b.mixture, i * v + j), width);
            k->from_double(row, x, width);
        }
    }
    return SH_OK;
}

static void put_results(sh_job *job, sh_partial result) {
    const sh_kernels *k = job->k;
    int64_t width = job->mixed->d;
    for (int64_t i = 0; i < job->queries.n; i++) {
        double sum = result.sum[i];
        if (job->states) k->scale(sh_at(k, job->states, i * width), sum != 0 ? 1 / sum : 0, width);
        if (job->support_size) job->support_size[i] = job->memory->patterns.n;
        if (job->energy) {
            const void *x = sh_query(job, i);
            job->energy[i] = k->dot(x, x, job->memory->patterns.d) / 2 - (result.scale[i] + log(sum) / sh_beta(job, i));
        }
    }
}

sh_status sh_stream(sh_job *job) {
    sh_context *context = job->context;
    const sh_kernels *k = job->k;
    int64_t n = job->queries.n, width = job->mixed->d;
    int64_t mixture = job->partial ? job->partial->mixture != NULL : job->states != NULL;
    int64_t part_bytes = n * (mixture ? width * (int64_t)k->size + 16 : 16);
    job->ranges = sh_min(job->ranges, 1 + PARTIAL_BYTES / part_bytes);

    stream s = {.job = job};
    sh_status status = SH_NO_MEMORY;
    double *sums = sh_allocate(context, 2 * n * job->ranges, sizeof(double));
    char *mixtures =
        mixture && job->ranges > 1 ? sh_allocate(context, (job->ranges - 1) * n, (size_t)width * k->size) : NULL;
    s.parts = sh_allocate(context, job->ranges, sizeof *s.parts);
    if (!sums || !s.parts || (mixture && job->ranges > 1 && !mixtures)) goto done;
    for (int64_t r = 0; r < job->ranges; r++) {
        s.parts[r] = (sh_partial){.scale = sums + 2 * r * n, .sum = sums + (2 * r + 1) * n};
        if (mixture) s.parts[r].mixture = r ? mixtures + (size_t)((r - 1) * n * width) * k->size : job->states;
    }
    if (job->partial) s.parts[0] = *job->partial;
    size_t scratch = (size_t)job->block_rows * SH_TILE * k->size + sh_pack_bytes(job->memory);
    status = sh_for_each(context, job->blocks * job->ranges, scratch, stream_item, &s);
    for (int64_t r = 1; status == SH_OK && r < job->ranges; r++)
        status = sh_merge(job->model, job->memory->type, n, width, job->queries.beta, job->queries.beta_stride,
                          s.parts[0], s.parts[r]);
    if (status == SH_OK && !job->partial) put_results(job, s.parts[0]);
done:
    sh_release(context, sums);
    sh_release(context, mixtures);
    sh_release(context, s.parts);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
