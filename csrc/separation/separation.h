/* separation.h: separation maps, which turn scores into weights. All that others need to know of a map is its `sh_map`.
 *
 * A map is one file with a `const sh_map`, and a row of the table in table.c. Scores come relative to the best, z <= 0, in
 * double.
 *
 * Maps with a cutoff (sparsemax, entmax, normmax) give weight only to z > -cutoff. They are solved in two steps,
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
#include "kernels/lanes.h"

/* The threshold of a set of candidates. The weight of z depends on this and z alone. */
typedef struct {
    double parameter; /* alpha */
    double tau;       /* relative to the best score, in the units in which the map is defined: */
    double unit;      /* a score of tau / unit or less has no weight */
    /* What single maps need besides: */
    double theta;    /* tau + 1 in units of scores, which keeps its digits where tau is near -1 */
    double lowest;   /* the lowest score of the support */
    double least;    /* and its weight */
    double sum;      /* of weights that are not normalised yet */
    int64_t whole;   /* floor of tau in units of 2^-62 */
    double fraction; /* the rest, 0 <= fraction < 1 */
} sh_threshold;

/* The number that chooses one map of a family. */
typedef struct {
    const char *name;   /* "alpha"; NULL: the map takes none, and `standard` stands for it */
    double standard;    /* what it is by default */
    double least, most; /* its range */
    int above, whole;   /* whether it must exceed `least`; whether it is a whole number */
} sh_parameter;

typedef struct sh_map sh_map;
struct sh_map {
    const char *name;  /* "entmax": in names of functions, in files, on command lines */
    const char *alias; /* the name of the map with its standard parameter, "entmax15"; NULL: none */
    /* for documentation: weights from scores z; the regulariser Omega whose conjugate the map has, NULL: none; the paper */
    const char *formula, *regulariser, *source;
    sh_parameter parameter;
    const sh_map *(*special_case)(double parameter); /* returns the map that this one is there, or NULL; NULL: none */

    int has_energy;      /* the update lowers an energy, and the Jacobian is symmetric */
    int shift_invariant; /* a number added to all scores changes no weight */
    int signed_weights;  /* weights may be negative, or all 0 */

    /* --- maps with a cutoff; NULL for the others --- */
    double (*cutoff)(double parameter);
    /* Solves z[n], n >= 1, max z = 0, in any order; z is destroyed. O(n) expected (sparsemax), O(n + k log k) (others). */
    void (*threshold)(double parameter, int64_t n, double *z, sh_threshold *threshold);
    /* Turns n scores into their weights, in place; O(n). */
    void (*weights)(const sh_threshold *threshold, int64_t n, double *z);
    /* Returns a lower bound on the threshold of these scores, in units of z; cheap. z[n] stays as it is. */
    double (*bound)(double parameter, int64_t n, const double *z);
    /* Returns the share of one weight p, of score z, in the conjugate Psi*(z) = max z + sum of shares. */
    double (*conjugate_share)(const sh_threshold *threshold, double z, double p);

    /* Puts the powers that weights are; returns whether they are, for this parameter. NULL: for none. */
    int (*roots)(double parameter, sh_roots *roots);

    /* --- maps with full support; NULL for the others --- */
    /* Returns the number that a row of scores is brought to scale by: max s, or max |s|; NaN if any s is. */
    double (*row_scale)(const sh_kernels *k, const void *s, int64_t n);
    /* Turns s into unnormalised weights relative to `scale`; returns their sum. */
    double (*row_weights)(const sh_kernels *k, void *s, int64_t n, double beta, double parameter, double scale);
    /* Turns z = beta (s - scale) <= 0 into such weights in place, in double; returns their sum, in the order given. The same
     * bits everywhere. NULL: there is no such function. */
    double (*canonical_weights)(int64_t n, double *z);
    /* Turns scores, -inf among them, into weights in place, where they are solved in double; NULL: as `row_weights` does. */
    void (*weights_in_double)(double parameter, int64_t n, double *z);
    /* Returns Psi*(z) - max z. NULL: there is none. */
    double (*conjugate)(int64_t n, const double *z, double best);
    /* Returns how far below the scale a score may lie and still count, times beta: all M weights further below sum to less
     * than `unit` of the total, so leaving them out changes the weights by less than 2 unit in l1. The same bits
     * everywhere. NULL: all count. */
    double (*reach)(double unit, int64_t patterns);
    /* Returns what weights relative to `from` are multiplied by to be relative to `to`. */
    double (*rescale)(double beta, double parameter, double from, double to);

    /* --- gradients --- */
    /* The Jacobian of maps that are shift_invariant and have an energy is
     *     dp/dz = f^2 sum_i w_i (e_i - c) (e_i - c)^T,
     * w the slopes, c the centre: w / sum w, or p itself where `centre_is_weights`. Puts w[n], 0 where p is 0, and returns
     * f; slopes that may leave the range are in units of the largest one. NULL for the others. */
    double (*slopes)(double parameter, int64_t n, const double *p, double *w);
    int centre_is_weights;
    /* Puts the gradient in the scores into dz[n], from weights p and the gradient g in them; z are the scores where
     * `vjp_takes_scores`, else NULL. NULL: sh_vjp_by_slopes. */
    void (*vjp)(double parameter, int64_t n, const double *z, const double *p, const double *g, double *dz);
    int vjp_takes_scores;
    /* The same of rows in the type of the kernels, NaN where either has any; scratch[n]. Returns 0 where `parameter` is
     * left to the functions in double. NULL: all are. */
    int (*row_vjp)(const sh_kernels *k, double parameter, int64_t n, const void *p, const void *g, double *scratch,
                   void *dz);
    /* Returns the derivative of <g, p> in the parameter; scratch[n]. NULL: there is none. */
    double (*vjp_parameter)(double parameter, int64_t n, const double *p, const double *g, double *scratch);

    sh_lane_form lanes; /* the map's loops on lanes; 0: layers take it through the functions above, lane by lane */
};

/* Returns a row of the table, by its number; NULL beyond the last. */
const sh_map *sh_map_numbered(int number);
/* Returns whether a parameter is in its range. */
int sh_parameter_fits(const sh_parameter *parameter, double value);
/* Returns the map of a model, with its parameter checked; NULL if that is out of range. Of maps without a parameter it is
 * set to the standard one. */
const sh_map *sh_map_of(sh_model *model);
/* Those that other files name; table.c has all. */
extern const sh_map sh_map_sparsemax, sh_map_softmax, sh_map_entmax, sh_map_polynomial;

/* `cutoff`, `slopes` and `row_vjp` of entmax, whose slopes are p^(2 - alpha); softmax is alpha = 1, sparsemax alpha = 2. */
double sh_entmax_cutoff(double alpha);
double sh_entmax_slopes(double alpha, int64_t n, const double *p, double *w);
int sh_entmax_row_vjp(const sh_kernels *k, double alpha, int64_t n, const void *p, const void *g, double *scratch,
                      void *dz);
/* jacobian.c: puts (p[i] / unit)^exponent of weights in w[n], 0 where p is, within some 2^-50 (powers.h, SH_NEAR); */
void sh_weight_powers(double exponent, double unit, int64_t n, const double *p, double *w);
/* computes the gradient in the scores by the `slopes` of a map; */
void sh_vjp_by_slopes(const sh_map *map, double parameter, int64_t n, const double *p, const double *g, double *dz);
/* the gradient in the scores through a map, by its own function or by its slopes; z as `vjp` of a map has it. */
void sh_map_vjp(const sh_map *map, double parameter, int64_t n, const double *z, const double *p, const double *g,
                double *dz);

/* near.c: computes the weights of n >= 32 floats, the largest a finite `top`, where that can be done faster than by `threshold`
 * and `weights`, with the same bits; returns whether it could. `lowest`: a score at or below the threshold; scratch[4 n]. */
int sh_near_weights(const sh_map *map, double parameter, const float *s, int64_t n, double top, double lowest,
                    double *scratch, float *p);

/* on_lanes.c: a map on lanes, with the arguments of the loops of sh_lane_map. */
typedef struct {
    const sh_map *map;
    const sh_lanes *lanes;
    double parameter;
    double *scratch; /* sh_lane_scratch(map, n) numbers */
} sh_lane_call;
int64_t sh_lane_scratch(const sh_map *map, int64_t n);
int64_t sh_lane_threshold(const sh_lane_call *c, void *s, int64_t stride, int64_t n, void *th, int32_t *list,
                          void *best);
void sh_lane_finish(const sh_lane_call *c, const void *s, int64_t stride, const int32_t *list, int64_t n,
                    const void *th, void *p, int64_t p_stride);
void sh_lane_weights(const sh_lane_call *c, const void *s, int64_t stride, int64_t n, const void *th, void *p,
                     int64_t p_stride);
void sh_lane_vjp(const sh_lane_call *c, void *s, void *g, int64_t stride, int64_t n, const void *th);

/* Keeps the k best candidates, ties by the lower position, at the front in any order; returns min(n, k). */
int64_t sh_select_top(sh_candidate *candidates, int64_t n, int64_t k);
/* Returns the size of the support of n >= 1 sorted scores: the largest k whose k - 1 best scores leave_weight for z[k - 1],
 * as those of all smaller k do. By steps from n down that double, then by bisection: it is near n where few scores below
 * the threshold are left. */
int64_t sh_support_size(int (*leave_weight)(const void *pointer, const double *z, int64_t k), const void *pointer,
                        const double *z, int64_t n);
/* Returns the k-th largest number, 1 <= k <= n; reorders. O(n) expected. */
double sh_kth_largest(double *z, int64_t n, int64_t k);
/* Sorts numbers from the largest down. In place, O(n log n) whatever the input. */
void sh_sort_descending(double *z, int64_t n);
/* Compares two int64_t for qsort, ascending; or structs that begin with one. */
int sh_compare_numbers(const void *a, const void *b);
/* Moves the numbers above `lowest` to the front, in order; returns how many. */
static inline int64_t sh_numbers_above(double *z, int64_t n, double lowest) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) { /* without a branch, which could not be predicted */
        const double x = z[i];
        z[found] = x;
        found += x > lowest;
    }
    return found;
}
#endif
