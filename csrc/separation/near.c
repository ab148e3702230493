/* near.c: weights of a row of floats from a threshold near that of the map, where it leaves only one rounded weight possible.
 *
 * Given      s[n]  scores; all that can have weight among them; the lowest score that can
 * Returned   p[n], the bits of the map's own threshold and weights; or 0 where these could be others
 * Cost       some three sums in float, two in double and the weights; no sort, no allocation
 * Notes      1. With v = r^power (kernels/lanes.h) weights are v where sum v is 1, or v / sum v where sum v r is. Each sum S is
 *               one of r^e, e >= 1, whose norm S^(1/e) is convex in u, and nearly a line: Newton's steps on it from the
 *               left are few.
 *            2. S falls with u, is convex, and its slope in r is e sum r^(e-1). So u is within |S - 1| over the slope of
 *               the solution u*: where S < 1 by the tangent, and else as the slope at u* is hardly less, because no r is
 *               near 0 (`edge`; a step within `moved` changes each part by less than 1 in 1,000, to the power of e - 1; beyond
 *               e = 10 parts with less than half of a mean weight may lose more, and half of the slope remains).
 *            3. The map's own u is as near, and rounding adds to both: a sum of n parts in the order of the scores is off
 *               by n 2^-53, one by vectors by less than n / 4 of that, and powers by 2^-50 (1 + |log v|) of each, which is at
 *               most 2^-50 (1 + log n) of the sum. Scores are taken from u with an error of 2^-52 at most.
 *               Closed forms: that of entmax15 is polished by two of Newton's steps, and its support is decided
 *               by sums off by 4 n^2 tau^2 2^-53 at most, which `edge` covers; that of normmax2 is off by n 2^-53 of
 *               tau and of 1 / (2 sum r).
 *            4. Those bounds on a weight, below and above, are rounded to float; where they agree, so does all between.
 * Source     Ziv 1991, for the test
 */
#include "separation/separation.h"
#include "runtime/runtime.h"
#include <math.h>

/* The sum that is 1 at the threshold, and that of powers one less */
typedef struct {
    double s, slope;
} norm_sums;

static norm_sums sums_of(const sh_roots *roots, const sh_root_sums *sums) {
    return roots->normed ? (norm_sums){sums->times_r, sums->v} : (norm_sums){sums->v, sums->by_r};
}

/* Returns Newton's step in r (note 1). */
static double step_of(double e, norm_sums x) { return -x.s * expm1(-log(x.s) / e) / x.slope; }

int sh_near_weights(const sh_map *map, double parameter, const float *s, int64_t n, double top, double lowest,
                    double *scratch, float *p) {
    enum { ROUGH_STEPS = 12, STEPS = 4 };
    sh_roots roots;
    if (!map->roots || !map->roots(parameter, &roots)) return 0;
    const int shifted = roots.form == SH_ROOT_POWER_1P;
    const double a = roots.a, e = roots.power + roots.normed, unit = shifted ? a : 1, size = (double)n;
    const double noise = (1.25 * size + 128) * 0x1p-53;
    const sh_lanes *rough = sh_lanes_for(SH_FLOAT32, INT64_MAX), *exact = sh_lanes_for(SH_FLOAT64, INT64_MAX);
    double u = fmax(shifted ? 0 : -1, shifted ? lowest - top + 1 / a : a * (lowest - top));
    sh_root_sums sums;
    for (int step = 0; step < ROUGH_STEPS; step++) {
        rough->root_sums(&roots, s, n, top, u, NULL, &sums);
        const norm_sums x = sums_of(&roots, &sums);
        if (!(x.s > 0.5) || sh_pass_stopped(n)) return 0;
        u += step_of(e, x) / unit;
        if (fabs(x.s - 1) < 1e-4) break;
    }
    for (int step = 0; step < STEPS && !sh_pass_stopped(n); step++) {
        exact->root_sums(&roots, s, n, top, u, scratch, &sums);
        norm_sums x = sums_of(&roots, &sums);
        if (!(x.s > 0.5)) return 0;
        const double moved = step_of(e, x), best = shifted ? 1 - a * u : -u; /* the r of the best score */
        u += moved / unit;
        sh_root_bounds bounds = {.factor = 1, .relative = 0x1p-49, .step = moved};
        bounds.moved = (e > 10 ? 4.4 : 2.2) * noise / (e * x.slope) + (shifted ? 0 : 0x1p-50);
        if (roots.normed) {
            bounds.factor = 1 / (sums.v - roots.power * sums.by_r * moved);
            if (roots.form == SH_ROOT_LINE) bounds.moved += size * 0x1p-52 * (best + 0.5 / sums.v);
            bounds.relative += 3 * noise + roots.power * sums.by_r / sums.v * bounds.moved;
        }
        bounds.edge = 1000 * bounds.moved + 8 * size * size * best * best * 0x1p-53 / (e * x.slope);
        const int known = exact->root_weights(&roots, s, n, top, u, &bounds, scratch, p, &sums);
        x = sums_of(&roots, &sums);
        if (fabs(x.s - 1) <= noise && (!roots.normed || fabs(bounds.factor * sums.v - 1) <= noise)) return known;
    }
    return 0;
}
