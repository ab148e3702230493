/* jacobian.c: vector-Jacobian products of maps whose Jacobian is dp/dz = f^2 sum_i w_i (e_i - c) (e_i - c)^T (separation.h).
 *
 * Notes  1. p = entmax(z, alpha): w = p^(2 - alpha) on the support, c = w / sum w; alpha = 1 is softmax, alpha = 2
 *           sparsemax.
 *        2. Equal g give 0 whatever they are multiplied by, so means are taken of what g is above that of one pattern,
 *           the one with the least weight: its slope may be all that counts.
 * Source Martins & Astudillo 2016; Peters, Niculae & Martins 2019
 */
#include "separation/separation.h"
#include <math.h>

/* Returns the index of the least weight that is not 0; 0 if all are. */
static int64_t index_of_least(int64_t n, const double *p) {
    int64_t least = -1;
    for (int64_t i = 0; i < n; i++)
        if (p[i] > 0 && (least < 0 || p[i] < p[least])) least = i;
    return least < 0 ? 0 : least;
}

/* Powers are in units of that of the least weight, which may leave the range where the exponent is below 0: the square root
 * of that unit is returned. */
double sh_entmax_slopes(double alpha, int64_t n, const double *p, double *w) {
    const double exponent = 2 - alpha, least = n ? p[index_of_least(n, p)] : 1;
    for (int64_t i = 0; i < n; i++) w[i] = p[i] > 0 ? pow(p[i] / least, exponent) : 0;
    return least > 0 ? pow(least, exponent / 2) : 1;
}

/* Beyond alpha = 2 small weights have large slopes, which may leave the range. */
void sh_entmax_vjp(double alpha, int64_t n, const double *z, const double *p, const double *g, double *dz) {
    const double exponent = 2 - alpha;
    double sum = 0, weighted = 0;
    (void)z;
    if (alpha > 2) {
        sh_vjp_by_slopes(&sh_map_entmax, alpha, n, p, g, dz);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const double x = p[i];
        const double w = x == 0          ? 0
                         : exponent == 0 ? 1
                         : exponent == 1 ? x
                                         : (exponent == 0.5 ? sqrt(x) : pow(x, exponent));
        sum += w;
        weighted += w != 0 ? w * g[i] : 0;
        dz[i] = w;
    }
    const double mean = sum > 0 ? weighted / sum : 0;
    for (int64_t i = 0; i < n; i++) dz[i] = dz[i] != 0 ? dz[i] * (g[i] - mean) : 0;
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
