/* retrieval/index/bounds.c: upper bounds on scores from patterns in 8 bits.
 *
 * Patterns and queries are centred and scaled by a power of two, y = (xi - mu) 2^-e, w = (x - mu) 2^-e, so |y| <= 1:
 *
 *     score = 2^2e (<w, y> + B) + constant of the query,     B = 2^-2e (<xi - mu, mu> + b), euclidean -|y|^2 / 2
 *
 * where the constant is <x, mu>, of scores by distance -|x - mu|^2/2; with features left out, and b in B, <x, mu> - |x|^2/2.
 *
 * With V a matrix of (nearly) orthonormal rows, a = V y and b = V w, Cauchy and Schwarz give
 *
 *     <w, y>  <=  <b, a> + r_w r_y + eta |b| |a|,      r^2 = |.|^2 - |V .|^2,   eta = |V V^T - I|_F.
 *
 * a is stored as integers q, a_j ~ t_j q_j; the query as integers p, b_j t_j ~ h p_j. What this loses is bounded by
 * three more products of a number of the query and a number of the pattern, so the bound is
 *
 *     <w, y>  <=  h <p, q> + sum over c of P_c Q_c
 *
 *         c        P (query)                           Q (pattern)
 *         0        r_w                                 r_y
 *         1        |b| + e |w|                         |a - t q| + e |y|
 *         2        |b t - h p| + 8 u h |p|             |q|
 *         3        (e + eta (1 + eta)^2) |w|           max(|y|, |t q|)
 *
 * and one weighted Cauchy-Schwarz, sum P_c Q_c <= R_w R_y with R_w^2 = sum P_c^2 / weight_c and
 * R_y^2 = sum weight_c Q_c^2, leaves one number a pattern. Any weights are right; those near mean P / mean Q are tight.
 *
 * Notes  1. e: products with V are float32 sums of at most SLAB features, added in double, so each column is off by
 *           at most g(SLAB + 4) |V_j| |y| (any order; Higham 2002, section 3.1), all K together by sqrt(K) times
 *           that. Without V, the features themselves are off by u, their one rounding.
 *        2. phi: |V y|^2 is known up to 2 e, and (I - V^T V) is a projector up to eta, so r_y^2 is taken as
 *           |y|^2 - |a|^2 + phi |y|^2 with phi = 2 e (1 + eta + e) + eta (1 + eta) + rounding of the double sums.
 *           It costs a floor under r_y; exact arithmetic would not be worth its time (exactness: 61.9 -> 64.9 rows).
 *        3. The kernels' float32: h <p, q> to within 8 u h |p| |q| (c = 2), R_w R_y to 8 u of itself (R_w is
 *           inflated), B to 8 u |B| (added when it is stored, rounded up).
 *        4. Canonical scores (rescore.c) and the constants are sums in double: `slack` is four times their bound.
 *        5. Products too small for float32: all is within 2^60 of 1 after scaling, or the query is left to the scan;
 *           the threshold is lowered by (1 + |w|) 2^-90, more than all that may flush to zero.
 *        6. From below: every step bounds |<w, y> - h <p, q>|, so h <p, q> - R_w R_y + B is a bound, too; the B that
 *           is stored may be 10 u |B| above the true one, so 24 u |B| are taken off, the rounding of note 3 in them.
 */
#include "retrieval/index/quantise.h"
#include <float.h>
#include <string.h>

/* --- the four numbers of the bound ---------------------------------------------------------------- */

static double rest(const sh_coding *c, double length2, const float *a) {
    return c->rotated ? sqrt(fmax(0, length2 - sh_norm2(a, c->columns)) + c->phi * length2) : 0;
}

void sh_pattern_terms(const sh_coding *c, const float *a, double length2, sh_coded coded, double q[4]) {
    double length = sqrt(length2);
    q[0] = rest(c, length2, a);
    q[1] = sqrt(coded.error2) + c->error * length;
    q[2] = sqrt(coded.code2);
    q[3] = fmax(length, sqrt(coded.decoded2));
}

void sh_query_terms(const sh_coding *c, const float *b, double length, double lost, double p[4]) {
    p[0] = rest(c, length * length, b);
    p[1] = sqrt(sh_norm2(b, c->columns)) + c->error * length;
    p[2] = lost;
    p[3] = (c->error + c->eta * (1 + c->eta) * (1 + c->eta)) * length;
}

double sh_error_radius(const double part[4], const double weight[4], int of_query) {
    double sum = 0;
    for (int c = 0; c < 4; c++) sum += of_query ? part[c] * part[c] / weight[c] : part[c] * part[c] * weight[c];
    return sqrt(sum) * (1 + 0x1p-19);
}

/* p, h and |b t - h p| + 8 u h |p| of a query; the code is padded with zeros to whole quads */
double sh_quantise_query(const sh_coding *c, const float *b, int8_t *code, float *step, int32_t *start) {
    double largest = 0, error2 = 0, code2 = 0;
    int32_t sum = 0;
    for (int64_t j = 0; j < c->columns; j++) { /* no fmax here: GCC 12 for aarch64 fails to vectorise it, and stops */
        const double at = fabs((double)b[j] * (double)c->step[j]);
        largest = at > largest ? at : largest;
    }
    float h = (float)(largest / 127);
    if (h < 0x1p-120f) h = 0;
    double inverse = h > 0 ? 1 / (double)h : 0;
    for (int64_t j = 0; j < c->columns; j++) {
        double at = (double)b[j] * (double)c->step[j], p = rint(at * inverse);
        p = p > 127 ? 127 : p < -127 ? -127 : p;
        code[j] = (int8_t)p;
        sum += (int32_t)p;
        code2 += p * p;
        error2 += (at - (double)h * p) * (at - (double)h * p);
    }
    memset(code + c->columns, 0, (size_t)(-c->columns & 3));
    *step = h;
    *start = -128 * sum;
    return sqrt(error2) * (1 + 1e-12) + 8 * 0x1p-24 * (double)h * sqrt(code2);
}

/* --- queries -------------------------------------------------------------------------------------- */

size_t sh_looks_bytes(const sh_index *x, const sh_memory *m, int64_t rows) {
    return sh_align((size_t)(rows * x->d) * sizeof(float)) + sh_align((size_t)(rows * x->rank) * sizeof(float)) +
           sh_align((size_t)(rows * x->quads * 4)) + sh_align((size_t)(rows * x->second.columns) * sizeof(float)) +
           sh_align((size_t)rows * sizeof(sh_look)) + sh_align((size_t)x->d * sizeof(double)) + sh_row_bytes(x, m) +
           sh_project_bytes(x, rows);
}

sh_looks sh_looks_at(const sh_index *x, const sh_memory *m, int64_t rows, void *scratch) {
    (void)m;
    char *at = scratch;
    sh_looks looks = {.y = (float *)(void *)at};
    at += sh_align((size_t)(rows * x->d) * sizeof(float));
    looks.a = (float *)(void *)at;
    at += sh_align((size_t)(rows * x->rank) * sizeof(float));
    looks.codes = (int8_t *)at;
    at += sh_align((size_t)(rows * x->quads * 4));
    looks.second = (float *)(void *)at;
    at += sh_align((size_t)(rows * x->second.columns) * sizeof(float));
    looks.look = (sh_look *)(void *)at;
    at += sh_align((size_t)rows * sizeof(sh_look));
    looks.work = at;
    return looks;
}

void sh_look_at(const sh_index *x, const sh_job *job, const int64_t *order, int64_t first, int64_t rows,
                sh_looks *looks) {
    const sh_memory *m = job->memory;
    double *wide = looks->work;
    char *work = (char *)looks->work + sh_align((size_t)x->d * sizeof(double));
    char *gathered = work + sh_align((size_t)m->patterns.d * m->k->size);
    double product = (double)(m->patterns.d + 16) * 0x1p-51;
    for (int64_t i = 0; i < rows; i++) {
        sh_look *look = &looks->look[i];
        int64_t query = order ? order[i] : first + i;
        const void *row = sh_gather_features(x, m->k, sh_query(job, query), gathered);
        double length = sqrt(m->k->centre(looks->y + i * x->d, row, 1, x->centre, x->power, x->d));
        m->k->to_double(wide, row, x->d);
        const sh_kernels *doubles = sh_kernels_of(SH_FLOAT64);
        if (sh_distance_bias(x, m) && sh_by_distance(job)) {
            double square = doubles->distance2(wide, x->centre, x->d), reach = sqrt(square) + 1 / x->power;
            look->constant = -square / 2;
            look->slack = product * reach * reach;
        } else {
            double along = doubles->dot(wide, x->centre, x->d), raw2 = m->k->dot(row, row, x->d);
            double norm = sqrt(raw2) * (1 + 1e-9), centre2 = x->centre2, half = sh_by_distance(job) ? raw2 / 2 : 0;
            look->constant = along - (sh_distance_bias(x, m) ? centre2 / 2 : 0) - half;
            look->slack =
                product * ((norm + x->centre_norm) * (m->max_norm + x->centre_norm) + m->max_bias + centre2 + half);
        }
        int usable = length < 0x1p60 && length > 0x1p-60 && look->slack < 0x1p900;
        look->length = usable ? length : 0;
        look->second_radius = NAN;
    }
    if (x->basis) sh_project(x, looks->y, rows, looks->a, work + sh_row_bytes(x, m));
    for (int64_t i = 0; i < rows; i++) {
        sh_look *look = &looks->look[i];
        if (look->length == 0) continue;
        const float *b = x->first.rotated ? looks->a + i * x->rank : looks->y + i * x->d;
        double part[4],
            lost = sh_quantise_query(&x->first, b, looks->codes + i * x->quads * 4, &look->step, &look->start);
        sh_query_terms(&x->first, b, look->length, lost, part);
        look->radius = sh_round_up(sh_error_radius(part, x->first.weight, 1));
    }
}

void sh_look_closer(const sh_index *x, sh_looks *looks, int64_t i) {
    const sh_coding *c = &x->second;
    sh_look *look = &looks->look[i];
    if (look->second_radius == look->second_radius) return;
    const float *b = c->rotated ? looks->a + i * x->rank : looks->y + i * x->d;
    float *scaled = looks->second + i * c->columns;
    for (int64_t j = 0; j < c->columns; j++) scaled[j] = b[j] * c->step[j];
    /* as in note 3, but the sum of K products of an integer and a rounded number */
    double lost = 1.1 * sh_roundoff((double)c->columns + 8) * sqrt(sh_norm2(scaled, c->columns)), part[4];
    sh_query_terms(c, b, look->length, lost, part);
    look->second_radius = sh_round_up(sh_error_radius(part, c->weight, 1));
}

/* what is taken off for the bias as it is stored */
static float bias_room(float bias) { return 0x1.8p-20f * fabsf(bias); }

void sh_code_bounds_below(const sh_index *x, const sh_looks *looks, int64_t row, const int32_t *position, int64_t n,
                          const float *bound, float *below) {
    float known = looks->look[row].radius;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *group = x->groups + (size_t)(position[i] / SH_GROUP) * sh_group_bytes(x->quads);
        const float *side = (const float *)(const void *)(group + x->quads * 256) + position[i] % SH_GROUP;
        below[i] = bound[i] - (2 * known * side[0] + bias_room(side[SH_GROUP]));
    }
}

void sh_line_bounds(const sh_index *x, const sh_looks *looks, int64_t row, const int32_t *position, int64_t n,
                    float *bound, float *below) {
    float known = looks->look[row].second_radius;
    int64_t columns = x->second.columns;
    sh_code_kernels_chosen()->line_dots(x->lines, x->line_bytes, position, n, looks->second + row * columns, columns,
                                        bound);
    for (int64_t i = 0; i < n; i++) {
        const char *line = x->lines + (size_t)position[i] * x->line_bytes;
        const float *side = (const float *)(const void *)(line + x->line_bytes - 8);
        float dot = bound[i], radius = known * side[0];
        bound[i] = dot + (radius + side[1]);
        below[i] = dot - (radius - (side[1] - bias_room(side[1])));
    }
}

float sh_look_threshold(const sh_index *x, const sh_look *look, double score) {
    double scaled = ((score - look->constant) - look->slack - 0x1p-50 * (fabs(score) + fabs(look->constant)));
    scaled = scaled * x->power * x->power - (1 + look->length) * 0x1p-90;
    if (!(scaled > -FLT_MAX)) return -FLT_MAX;
    float f = (float)scaled;
    return (double)f > scaled ? nextafterf(f, -INFINITY) : f;
}

double sh_look_floor(const sh_index *x, const sh_look *look, float below) {
    double least = ((double)below - (1 + look->length) * 0x1p-90) / (x->power * x->power) + look->constant;
    return least - look->slack - 0x1p-50 * (fabs(least) + fabs(look->constant));
}
