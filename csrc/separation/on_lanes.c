/* on_lanes.c: separation maps on lanes: by loops of their own where the table of kernels has them (kernels/lanes.h), else
 * lane by lane through the functions of the map, in double.
 *
 * Notes  1. Without loops of its own a map leaves nothing in the thresholds `th`: its weights are solved anew from the
 *           listed rows, as candidates outside the support change nothing.
 *        2. NaN and +inf are reported, and get weights of 0.
 */
#include "separation/separation.h"
#include <math.h>
#include <string.h>

/* Returns the loops of a map on lanes, or NULL where it has none. */
static const sh_lane_map *loops_of(const sh_lane_call *c) {
    return c->map->lanes ? &c->lanes->map[c->map->lanes] : NULL;
}

int64_t sh_lane_scratch(const sh_map *map, int64_t n) { return map->lanes ? 0 : 8 * n; }

static double get(const sh_lane_call *c, const void *x, int64_t i) {
    return c->lanes->size == sizeof(float) ? (double)((const float *)x)[i] : ((const double *)x)[i];
}
static void put(const sh_lane_call *c, void *x, int64_t i, double value) {
    if (c->lanes->size == sizeof(float))
        ((float *)x)[i] = (float)value;
    else
        ((double *)x)[i] = value;
}

/* Copies the n numbers of a lane to z; returns the largest, or NaN where any is. */
static double read_lane(const sh_lane_call *c, const void *s, int64_t stride, int64_t n, int lane, double *z) {
    double best = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        z[i] = get(c, s, i * stride + lane);
        best = best != best || z[i] <= best ? best : z[i]; /* NaN where any is */
    }
    return best;
}

/* Turns the scores of a lane of floats, the largest of which is `best`, into weights, rounded to float, where a threshold near
 * theirs tells them (near.c); returns whether it does. scratch[5 n] */
static int weigh_near(const sh_lane_call *c, int64_t n, double *z, double best, double *scratch) {
    enum { FEW = 32 };
    if (c->lanes->size != sizeof(float) || n < FEW) return 0;
    float *scores = (float *)scratch, *p = scores + n;
    for (int64_t i = 0; i < n; i++) scores[i] = (float)z[i];
    if (!sh_near_weights(c->map, c->parameter, scores, n, best, best - c->map->cutoff(c->parameter), scratch + n, p))
        return 0;
    for (int64_t i = 0; i < n; i++) z[i] = (double)p[i];
    return 1;
}

/* Turns the scores of a lane, the largest of which is `best`, into weights, in double; scratch[5 n]. */
static void weigh(const sh_lane_call *c, int64_t n, double *z, double best, double *scratch) {
    const sh_map *map = c->map;
    const sh_kernels *k = sh_kernels_of(SH_FLOAT64);
    if (!isfinite(best)) {
        memset(z, 0, (size_t)n * sizeof *z);
    } else if (map->cutoff) {
        enum { MANY = 64 };
        const double least = -map->cutoff(c->parameter);
        int64_t found = 0;
        sh_threshold t;
        for (int64_t i = 0; i < n; i++) {
            scratch[found] = z[i] - best;
            found += scratch[found] >= least;
        }
        if (found >= MANY && weigh_near(c, n, z, best, scratch)) return;
        found = 0;
        for (int64_t i = 0; i < n; i++) {
            z[i] -= best;
            scratch[found] = z[i];
            found += z[i] >= least;
        }
        map->threshold(c->parameter, found, scratch, &t);
        map->weights(&t, n, z);
    } else if (map->weights_in_double) {
        map->weights_in_double(c->parameter, n, z);
    } else {
        const double sum = map->row_weights(k, z, n, /* beta */ 1, c->parameter, map->row_scale(k, z, n));
        k->multiply_by(z, sum != 0 ? 1 / sum : 0, n);
    }
}

int64_t sh_lane_threshold(const sh_lane_call *c, void *s, int64_t stride, int64_t n, void *th, int32_t *list,
                          void *best) {
    const sh_lane_map *loops = loops_of(c);
    if (loops) return loops->threshold(s, stride, n, c->parameter, th, list, best);
    const int L = c->lanes->lanes;
    memset(th, 0, 2 * (size_t)L * c->lanes->size);
    for (int l = 0; l < L; l++) {
        double *z = c->scratch, top = read_lane(c, s, stride, n, l, z);
        put(c, best, l, top);
        weigh(c, n, z, top, z + n);
        for (int64_t i = 0; i < n; i++) put(c, s, i * stride + l, z[i]);
    }
    if (!c->map->cutoff) return n;
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        int any = 0;
        for (int l = 0; l < L; l++) any |= get(c, s, i * stride + l) > 0;
        list[found] = (int32_t)i;
        found += any;
    }
    return found;
}

void sh_lane_finish(const sh_lane_call *c, const void *s, int64_t stride, const int32_t *list, int64_t n,
                    const void *th, void *p, int64_t p_stride) {
    const sh_lane_map *loops = loops_of(c);
    if (loops) {
        loops->finish(s, stride, list, n, c->parameter, th, p, p_stride);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        memmove((char *)p + (size_t)(i * p_stride) * c->lanes->size,
                (const char *)s + (size_t)((list ? list[i] : i) * stride) * c->lanes->size,
                (size_t)c->lanes->lanes * c->lanes->size);
}

void sh_lane_weights(const sh_lane_call *c, const void *s, int64_t stride, int64_t n, const void *th, void *p,
                     int64_t p_stride) {
    const sh_lane_map *loops = loops_of(c);
    if (loops) {
        loops->weights(s, stride, NULL, n, c->parameter, th, p, p_stride);
        return;
    }
    for (int l = 0; l < c->lanes->lanes; l++) {
        double *z = c->scratch, top = read_lane(c, s, stride, n, l, z);
        weigh(c, n, z, top, z + n);
        for (int64_t i = 0; i < n; i++) put(c, p, i * p_stride + l, z[i]);
    }
}

void sh_lane_vjp(const sh_lane_call *c, void *s, void *g, int64_t stride, int64_t n, const void *th) {
    const sh_lane_map *loops = loops_of(c);
    if (loops) {
        loops->vjp(s, g, stride, n, c->parameter, th);
        return;
    }
    /* scores, weights, and gradients in them */
    double *z = c->scratch, *p = z + n, *dp = p + n, *dz = dp + n;
    for (int l = 0; l < c->lanes->lanes; l++) {
        const double best = read_lane(c, s, stride, n, l, z);
        memcpy(p, z, (size_t)n * sizeof *p);
        weigh(c, n, p, best, dz);
        read_lane(c, g, stride, n, l, dp);
        sh_map_vjp(c->map, c->parameter, n, z, p, dp, dz);
        for (int64_t i = 0; i < n; i++) {
            put(c, s, i * stride + l, p[i]);
            put(c, g, i * stride + l, dz[i]);
        }
    }
}
