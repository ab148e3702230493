/* jacobian.c: vector-Jacobian products of maps whose Jacobian is dp/dz = f^2 sum_i w_i (e_i - c) (e_i - c)^T (separation.h).
 *
 * Notes  1. p = entmax(z, alpha): w = p^(2 - alpha) on the support, c = w / sum w; alpha = 1 is softmax, alpha = 2
 *           sparsemax.
 *        2. Equal g give 0 whatever they are multiplied by, so means are taken of what g is above that of one pattern,
 *           the one with the least weight: its slope may be all that counts.
 * Source Martins & Astudillo 2016; Peters, Niculae & Martins 2019
 */
#include "separation/powers.h"
#include "separation/separation.h"
#include "runtime/runtime.h"
#include <math.h>

/* Returns the index of the least weight that is not 0; 0 if all are. */
static int64_t index_of_least(int64_t n, const double *p) {
    int64_t least = -1;
    for (int64_t i = 0; i < n; i++)
        if (p[i] > 0 && (least < 0 || p[i] < p[least])) least = i;
    return least < 0 ? 0 : least;
}

void sh_weight_powers(double exponent, double unit, int64_t n, const double *p, double *w) {
    enum { BLOCK = 64 };
    const sh_exponent e = exponent == 0.5 ? sh_exponent_of(1, 2) : sh_exponent_of(exponent, 1);
    double x[BLOCK], y[BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t size = sh_min(BLOCK, n - first);
        for (int64_t i = 0; i < size; i++) y[i] = x[i] = p[first + i] > 0 ? p[first + i] / unit : 1;
        if (exponent == 0 || exponent == -1)
            for (int64_t i = 0; i < size; i++) y[i] = exponent == 0 || p[first + i] <= 0 ? 1 : unit / p[first + i];
        else if (exponent != 1)
            sh_powers(y, x, size, &e, SH_NEAR);
        for (int64_t i = 0; i < size; i++) w[first + i] = p[first + i] > 0 ? y[i] : 0;
    }
}

/* Powers are in units of that of the least weight, which may leave the range where the exponent is below 0: the square root
 * of that unit is returned. */
double sh_entmax_slopes(double alpha, int64_t n, const double *p, double *w) {
    const double exponent = 2 - alpha, least = n ? p[index_of_least(n, p)] : 1;
    sh_weight_powers(exponent, least, n, p, w);
    return least > 0 ? pow(least, exponent / 2) : 1;
}

/* Beyond alpha = 2 small weights have large slopes, which may leave the range. */
int sh_entmax_row_vjp(const sh_kernels *k, double alpha, int64_t n, const void *p, const void *g, double *scratch,
                      void *dz) {
    if (alpha > 2) return 0;
    const sh_exponent e = sh_exponent_of(2 - alpha, 1);
    k->vjp(dz, p, g, n, 2 - alpha, &e, scratch);
    return 1;
}

void sh_vjp_by_slopes(const sh_map *map, double parameter, int64_t n, const double *p, const double *g, double *dz) {
    const double factor = map->slopes(parameter, n, p, dz), *centre = map->centre_is_weights ? p : dz;
    const double base = n ? g[index_of_least(n, p)] : 0;
    double sum = 0, weighted = 0, total = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += centre[i];
        weighted += centre[i] != 0 ? centre[i] * (g[i] - base) : 0;
    }
    const double mean = sum > 0 ? weighted / sum : 0;
    for (int64_t i = 0; i < n; i++) total += dz[i] = dz[i] != 0 ? dz[i] * (g[i] - base - mean) : 0;
    for (int64_t i = 0; map->centre_is_weights && i < n; i++) dz[i] -= sum > 0 ? p[i] / sum * total : 0;
    for (int64_t i = 0; i < n; i++) dz[i] = dz[i] != 0 ? dz[i] * factor * factor : 0;
}

void sh_map_vjp(const sh_map *map, double parameter, int64_t n, const double *z, const double *p, const double *g,
                double *dz) {
    if (map->vjp)
        map->vjp(parameter, n, z, p, g, dz);
    else
        sh_vjp_by_slopes(map, parameter, n, p, g, dz);
}
