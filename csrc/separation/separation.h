/* separation.h: what the engine needs to know of a separation map, how scores become weights.
 *
 * A map is one file and one row of the table in table.c. Scores come relative to the best, z <= 0, in double.
 *
 * Maps with a window (sparsemax, entmax) give weight only to z > -window. They are solved in two steps,
 * `threshold` of a set of candidates and then `weights` of any z under it, because
 *   - adding scores never lowers the threshold, so a threshold of any subset bounds the true one from below;
 *   - candidates outside the support must not change a bit: partial results of tiles, threads and shards are
 *     merged by solving their candidates together.
 * Maps with full support (softmax, polynomial) turn a row of scores into unnormalised weights in place and
 * sum them; their partial results {scale, sum, mixture} are brought to one scale and added.
 */
#ifndef SH_SEPARATION_H
#define SH_SEPARATION_H
#include "kernels/kernels.h"

/* The threshold of a set of candidates. The weight of z depends on this and z alone. */
typedef struct {
    double parameter; /* alpha */
    double tau;       /* in units of (alpha - 1) z, relative to the best score */
    double theta;     /* entmax: (tau + 1) / (alpha - 1), kept for alpha near 1 where tau has lost its digits */
    double lowest;    /* entmax beyond alpha = 2: the lowest score of the support, */
    double least;     /* and its weight */
    int64_t whole;    /* sparsemax: floor of tau in units of 2^-62 */
    double part;      /* sparsemax: the rest, 0 <= part < 1 */
} sh_threshold;

typedef struct {
    const char *name;
    int has_energy;
    /* Maps with a window; NULL for the others. */
    double (*window)(double parameter);
    /* z[n], n >= 1, max z = 0, any order; destroyed. O(n) expected (sparsemax), O(n + k log k) (entmax). */
    void (*threshold)(double parameter, int64_t n, double *z, sh_threshold *threshold);
    /* n scores become their weights, in place; O(n) */
    void (*weights)(const sh_threshold *threshold, int64_t n, double *z);
    /* a z that the exact threshold of these scores (in units of z) cannot be below; cheap. z[n] is kept. */
    double (*bound)(double parameter, int64_t n, const double *z);
    /* omega(p) of one weight: Omega(p) = sum omega(p_i), so that Psi*(z) = z_max + sum (p z - omega(p)) */
    double (*omega)(double parameter, double p);

    /* Maps with full support; NULL for the others. */
    /* the number a row of scores is brought to scale by: max s, or max |s|; NaN if any s is */
    double (*row_scale)(const sh_kernels *k, const void *s, int64_t n);
    /* s becomes unnormalised weights relative to `scale`; returns their sum */
    double (*row_weights)(const sh_kernels *k, void *s, int64_t n, double beta, double parameter, double scale);
    /* how far below the scale a score may lie and still count: all M weights further below sum to less than
     * `unit` of the total, so leaving them out changes the weights by less than 2 unit in l1. NULL: all count. */
    double (*reach)(double beta, double unit, int64_t patterns);
    /* what weights relative to `from` are multiplied by to be relative to `to` */
    double (*rescale)(double beta, double parameter, double from, double to);
} sh_map;

/* The map of a model, with its parameter checked; NULL if the parameter is out of range. alpha = 1 is softmax,
 * alpha = 2 sparsemax. */
const sh_map *sh_map_of(sh_model *model);
extern const sh_map sh_map_sparsemax, sh_map_softmax, sh_map_entmax, sh_map_polynomial;

/* Keeps the k best candidates, ties by the lower position, at the front in any order; returns min(n, k). */
int64_t sh_select_top(sh_candidate *candidates, int64_t n, int64_t k);
/* The k-th largest number, 1 <= k <= n; reorders. O(n) expected. */
double sh_kth_largest(double *z, int64_t n, int64_t k);
/* Sorts numbers from the largest down. In place, O(n log n) whatever the input. */
void sh_sort_descending(double *z, int64_t n);
#endif
