/* retrieval/index/build.c: patterns in 8 bits, and upper bounds on scores from them.
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
#include "retrieval/index/index.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum {
    SLAB = 256,            /* features summed in float32 */
    FIRST = SH_FIRST,      /* columns of the first line: with radius and bias 64 bytes */
    SECOND = 248,          /* columns of the second line */
    DIRECT = 120,          /* up to so many features are coded as they are */
    SAMPLE = 2048,         /* patterns that the centre and the steps are taken from */
    ROWS = 256,            /* patterns coded at a time: whole groups */
    BASIS_BYTES = 4 << 20, /* of a basis that is never too large */
    ASKERS = 256,          /* sampled patterns that stand for queries */
    MAX_SUM = 66000        /* features whose 8-bit products fit a sum of 32 bits */
};

static double roundoff(double n) { return n * 0x1p-24 / (1 - n * 0x1p-24); } /* g(n) of float32 */
static float up(double x) {
    float f = (float)x;
    return (double)f < x ? nextafterf(f, INFINITY) : f;
}

/* --- rows as the index sees them ------------------------------------------------------------------ */

static size_t row_bytes(const sh_index *x, const sh_memory *m) {
    return sh_align((size_t)m->patterns.d * m->k->size) + (x->kept ? sh_align((size_t)x->d * m->k->size) : 0);
}

static const void *kept_of(const sh_index *x, const sh_kernels *k, const void *row, void *work) {
    if (!x->kept) return row;
    if (k->size == sizeof(float))
        for (int64_t j = 0; j < x->d; j++) ((float *)work)[j] = ((const float *)row)[x->kept[j]];
    else
        for (int64_t j = 0; j < x->d; j++) ((double *)work)[j] = ((const double *)row)[x->kept[j]];
    return work;
}

/* y and |y|^2 of pattern i, which may have changed since it was checked. `work` holds row_bytes. */
static sh_status pattern_row(sh_context *context, const sh_index *x, const sh_memory *m, int64_t i, float *y,
                             char *work, double *length2) {
    const void *row = sh_row_at(m->k, &m->patterns, i, work);
    row = kept_of(x, m->k, row, work + sh_align((size_t)m->patterns.d * m->k->size));
    *length2 = m->k->centre(y, row, m->scale ? m->scale[i] : 1, x->centre, x->power, x->d);
    return *length2 - *length2 == 0 ? SH_OK : sh_fail(context, SH_NOT_FINITE, "patterns", i);
}

/* not below |xi - mu| of any pattern */
static double reach_of(const sh_index *x, const sh_memory *m) {
    double reach = m->max_norm + x->centre_norm;
    if (m->centre) reach = fmin(reach, m->max_spread * (1 + 1e-9) + x->first_apart);
    return reach;
}

/* a = y V^T of some rows; `work` holds project_bytes */
static size_t project_bytes(const sh_index *x, int64_t rows) {
    return sh_align((size_t)(rows * x->rank) * sizeof(double)) + sh_align((size_t)(rows * x->rank) * sizeof(float));
}
static void project(const sh_index *x, const float *y, int64_t rows, float *a, char *work) {
    const sh_kernels *k = sh_kernels_of(SH_FLOAT32);
    int64_t slabs = sh_ceil_div(x->d, SLAB), slab = sh_ceil_div(x->d, slabs), n = rows * x->rank;
    double *sum = (double *)(void *)work;
    float *part = (float *)(void *)(work + sh_align((size_t)n * sizeof(double)));
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (int64_t c = 0; c < x->d; c += slab) {
        k->gemm_nt(rows, x->rank, sh_min(slab, x->d - c), y + c, x->d, x->basis + c, x->d, 0, part, x->rank);
        for (int64_t j = 0; j < n; j++) sum[j] += (double)part[j];
    }
    for (int64_t j = 0; j < n; j++) a[j] = (float)sum[j];
}

static double squares(const float *a, int64_t n) { return sh_kernels_of(SH_FLOAT32)->dot(a, a, n); }

/* --- the four numbers of the bound ---------------------------------------------------------------- */

static double rest(const sh_coding *c, double length2, const float *a) {
    return c->rotated ? sqrt(fmax(0, length2 - squares(a, c->columns)) + c->phi * length2) : 0;
}

static void pattern_parts(const sh_coding *c, const float *a, double length2, sh_coded coded, double q[4]) {
    double length = sqrt(length2);
    q[0] = rest(c, length2, a);
    q[1] = sqrt(coded.error2) + c->error * length;
    q[2] = sqrt(coded.code2);
    q[3] = fmax(length, sqrt(coded.decoded2));
}

static void query_parts(const sh_coding *c, const float *b, double length, double lost, double p[4]) {
    p[0] = rest(c, length * length, b);
    p[1] = sqrt(squares(b, c->columns)) + c->error * length;
    p[2] = lost;
    p[3] = (c->error + c->eta * (1 + c->eta) * (1 + c->eta)) * length;
}

static double merged(const double part[4], const double weight[4], int of_query) {
    double sum = 0;
    for (int c = 0; c < 4; c++) sum += of_query ? part[c] * part[c] / weight[c] : part[c] * part[c] * weight[c];
    return sqrt(sum) * (1 + 0x1p-19);
}

/* p, h and |b t - h p| + 8 u h |p| of a query; the code is padded with zeros to whole quads */
static double encode_query(const sh_coding *c, const float *b, int8_t *code, float *step, int32_t *start) {
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

/* --- building ------------------------------------------------------------------------------------- */

static int coding_new(sh_context *context, sh_coding *c, int64_t columns, int rotated, double eta, int64_t d) {
    c->columns = columns;
    c->rotated = rotated;
    c->eta = rotated ? eta : 0;
    double slab = (double)sh_ceil_div(d, sh_ceil_div(d, SLAB));
    c->error = rotated ? roundoff(slab + 4) * sqrt((double)columns) * (1 + eta) + 0x1p-23 : 0x1.0001p-24;
    c->phi = 2 * c->error * (1 + eta + c->error) + eta * (1 + eta) + (double)(d + 16) * 0x1p-50;
    c->step = sh_allocate(context, 2 * columns, sizeof(float));
    if (!c->step) return 0;
    c->inverse = c->step + columns;
    return 1;
}

/* steps and weights from sampled rows: `a` (n, stride) their numbers, length2 their |y|^2; `coded`: queries are coded,
 * too, and not taken as they are */
static void tune(sh_coding *c, int coded, const float *a, int64_t stride, const double *length2, int64_t n,
                 int8_t *code) {
    /* Where queries are coded, t_j is proportional to the root of the deviation: halfway between equal errors in
     * patterns and in queries. Where they are not, patterns have the whole range in each column. */
    double largest = 0;
    for (int64_t j = 0; j < c->columns; j++) {
        double sum = 0, extreme = 0;
        for (int64_t i = 0; i < n; i++) {
            double at = (double)a[i * stride + j];
            sum += at * at;
            extreme = fmax(extreme, fabs(at));
        }
        double root = coded ? sqrt(sqrt(sum / (double)n)) : extreme;
        c->step[j] = (float)root;
        if (root > 0) largest = fmax(largest, extreme / root);
    }
    for (int64_t j = 0; j < c->columns; j++) {
        c->step[j] = fmaxf((float)((double)c->step[j] * largest * 1.05 / 127), 0x1p-100f);
        c->inverse[j] = 1 / c->step[j];
    }
    const sh_code_kernels *k = sh_code_kernels_chosen();
    double p_mean[4] = {0}, q_mean[4] = {0}, length = 0;
    int64_t askers = sh_min(n, ASKERS);
    for (int64_t i = 0; i < askers; i++) {
        int64_t at = i * n / askers;
        const float *row = a + at * stride;
        double part[4];
        float step;
        int32_t start;
        pattern_parts(c, row, length2[at], k->encode(row, c->step, c->inverse, c->columns, code), part);
        for (int l = 0; l < 4; l++) q_mean[l] += part[l];
        double lost = coded ? encode_query(c, row, code, &step, &start) : 0;
        query_parts(c, row, sqrt(length2[at]), lost, part);
        for (int l = 0; l < 4; l++) p_mean[l] += part[l];
        length += sqrt(length2[at]);
    }
    /* floors, so that queries unlike the patterns are not bounded by numbers that happen to be 0 in these */
    double unit = fmax(length / (double)askers, 0x1p-60), mean_step = 0;
    for (int64_t j = 0; j < c->columns; j++) mean_step += (double)c->step[j] / (double)c->columns;
    const double p_floor[4] = {0.01 * unit, 0.01 * unit, 1e-4 * unit * fmax(mean_step, 0x1p-60), 0x1p-40 * unit};
    const double q_floor[4] = {0.01 * unit, 1e-4 * unit, 1, 0.01 * unit};
    for (int l = 0; l < 4; l++)
        c->weight[l] = fmax(p_mean[l] / (double)askers, p_floor[l]) / fmax(q_mean[l] / (double)askers, q_floor[l]);
}

typedef struct {
    sh_index *index;
    const sh_memory *m;
    int64_t first; /* item */
} building;

static size_t code_scratch(const sh_index *x, const sh_memory *m, int64_t rows) {
    return row_bytes(x, m) + sh_align((size_t)(rows * x->d) * sizeof(float)) +
           sh_align((size_t)(rows * x->rank) * sizeof(float)) + project_bytes(x, rows) +
           sh_align((size_t)rows * sizeof(double)) + sh_align((size_t)(x->quads * 4)) +
           sh_align((size_t)x->d * sizeof(double));
}

/* the euclidean bias is -|y|^2 / 2 if y has all features; else the dropped ones are in the pattern's own bias */
static int by_distance(const sh_index *x, const sh_memory *m) { return m->similarity == SH_EUCLIDEAN && !x->kept; }

/* the bias of pattern i as stored: scaled, with room for its rounding; `wide` holds d doubles */
static float bias_of(const sh_index *x, const sh_memory *m, int64_t i, const float *y, double length2, double *wide) {
    double bias = -length2 / 2;
    if (!by_distance(x, m)) {
        sh_kernels_of(SH_FLOAT32)->to_double(wide, y, x->d);
        bias = sh_kernels_of(SH_FLOAT64)->dot(wide, x->centre, x->d) * x->power;
        if (m->bias) bias += m->bias[i] * x->power * x->power;
    }
    return up(bias + 8 * 0x1p-24 * fabs(bias));
}

static sh_status code_rows(void *pointer, int64_t item, void *scratch, sh_context *context) {
    building *b = pointer;
    item += b->first;
    sh_index *x = b->index;
    const sh_memory *m = b->m;
    const sh_code_kernels *k = sh_code_kernels_chosen();
    int64_t first = item * ROWS, rows = sh_min(ROWS, x->patterns - first);
    char *work = scratch, *at = work + row_bytes(x, m);
    float *y = (float *)(void *)at;
    at += sh_align((size_t)(ROWS * x->d) * sizeof(float));
    float *a = (float *)(void *)at;
    at += sh_align((size_t)(ROWS * x->rank) * sizeof(float));
    double *length2 = (double *)(void *)at;
    at += sh_align((size_t)ROWS * sizeof(double));
    int8_t *code = (int8_t *)at;
    at += sh_align((size_t)(x->quads * 4));
    double *wide = (double *)(void *)at;
    at += sh_align((size_t)x->d * sizeof(double));
    for (int64_t i = 0; i < rows; i++) {
        sh_status status = pattern_row(context, x, m, first + i, y + i * x->d, work, &length2[i]);
        if (status != SH_OK) return status;
    }
    if (x->basis) project(x, y, rows, a, at);

    int64_t whole = sh_ceil_div(rows, SH_GROUP) * SH_GROUP; /* what is beyond the last is never found */
    for (int64_t i = 0; i < whole; i++) {
        uint8_t *group = x->groups + (size_t)((first + i) / SH_GROUP) * sh_group_bytes(x->quads);
        int64_t l = (first + i) % SH_GROUP;
        float *side = (float *)(void *)(group + x->quads * 256);
        if (i >= rows) {
            for (int64_t z = 0; z < x->quads; z++) memset(group + z * 256 + l * 4, 128, 4);
            side[l] = 0;
            side[SH_GROUP + l] = -INFINITY;
            continue;
        }
        double part[4];
        const float *row = x->first.rotated ? a + i * x->rank : y + i * x->d;
        float bias = bias_of(x, m, first + i, y + i * x->d, length2[i], wide);
        memset(code + x->first.columns, 0, (size_t)(-x->first.columns & 3));
        sh_coded coded = k->encode(row, x->first.step, x->first.inverse, x->first.columns, code);
        pattern_parts(&x->first, row, length2[i], coded, part);
        for (int64_t z = 0; z < x->quads; z++)
            for (int c = 0; c < 4; c++) group[z * 256 + l * 4 + c] = (uint8_t)(code[z * 4 + c] + 128);
        side[l] = up(merged(part, x->first.weight, 0) + 0x1p-100);
        side[SH_GROUP + l] = bias;
        if (!x->second.columns || x->base) continue;
        char *line = x->lines + (size_t)(first + i) * x->line_bytes;
        row = x->second.rotated ? a + i * x->rank : y + i * x->d;
        coded = k->encode(row, x->second.step, x->second.inverse, x->second.columns, (int8_t *)line);
        pattern_parts(&x->second, row, length2[i], coded, part);
        side = (float *)(void *)(line + x->line_bytes - 8);
        side[0] = up(merged(part, x->second.weight, 0) + 0x1p-100);
        side[1] = bias;
    }
    return SH_OK;
}

/* centre, scale, basis, steps: all that comes from a sample */
static sh_status take_sample(sh_context *context, const sh_memory *m, sh_index *x, int want_columns) {
    int64_t n = sh_min(x->patterns, x->d <= SH_LARGEST_GRAM ? SAMPLE : SH_LARGEST_GRAM), d = x->d;
    sh_status status = SH_NO_MEMORY;
    char *work = sh_allocate(context, 1, row_bytes(x, m)), *more = NULL;
    float *y = sh_allocate(context, n * d, sizeof(float)), *a = NULL;
    double *s = sh_allocate(context, n * d, sizeof(double)), *length2 = sh_allocate(context, n, sizeof(double));
    int8_t *code = NULL;
    x->centre = sh_allocate(context, d, sizeof(double));
    if (!work || !y || !s || !length2 || !x->centre) goto done;
    memset(x->centre, 0, (size_t)d * sizeof(double));
    x->power = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i * x->patterns / n;
        const void *row = sh_row_at(m->k, &m->patterns, at, work);
        row = kept_of(x, m->k, row, work + sh_align((size_t)m->patterns.d * m->k->size));
        m->k->to_double(s, row, d);
        double scale = m->scale ? m->scale[at] : 1;
        for (int64_t j = 0; j < d; j++) x->centre[j] += s[j] * scale / (double)n;
    }
    x->centre2 = sh_kernels_of(SH_FLOAT64)->dot(x->centre, x->centre, d);
    x->centre_norm = sqrt(x->centre2) * (1 + 1e-12);
    const void *first =
        kept_of(x, m->k, sh_row_at(m->k, &m->patterns, 0, work), work + sh_align((size_t)m->patterns.d * m->k->size));
    m->k->to_double(s, first, d);
    x->first_apart = sqrt(sh_kernels_of(SH_FLOAT64)->distance2(s, x->centre, d)) * (1 + 1e-9);
    int exponent;
    frexp(reach_of(x, m) * (1 + 1e-9), &exponent);
    x->power = ldexp(1, -exponent);
    for (int64_t i = 0; i < n; i++) {
        status = pattern_row(context, x, m, i * x->patterns / n, y + i * d, work, &length2[i]);
        if (status != SH_OK) goto done;
        for (int64_t j = 0; j < d; j++) s[i * d + j] = (double)y[i * d + j];
    }
    status = SH_NO_MEMORY;
    int direct = want_columns || d <= DIRECT;
    double eta = 0, left_out = 0;
    if (!direct) {
        /* where the features are few, the second line has them all and needs no basis; where patterns are few and
         * long, a basis for it would be a large part of them */
        double most = fmax(BASIS_BYTES, 0.04 * (double)x->patterns * (double)(d * (int64_t)m->k->size));
        /* 1 - FIRST / d would be left out if all directions weighed the same */
        double unstructured = 0.7 * (double)(d - FIRST) / (double)d;
        int64_t wanted = d <= SECOND || SECOND * d * (int64_t)sizeof(float) > most ? FIRST : SECOND;
        x->basis = sh_allocate(context, wanted * d, sizeof(float));
        if (!x->basis) goto done;
        status = sh_leading_directions(context, s, n, d, wanted, x->basis, &x->rank, &left_out, &eta);
        if (status != SH_OK) goto done;
        status = SH_NO_MEMORY;
        direct = x->rank < FIRST || !(eta < 0.01) || (x->kind == SH_EITHER && left_out > unstructured && d <= MAX_SUM);
    }
    if (direct) {
        sh_release(context, x->basis);
        x->basis = NULL;
        x->rank = 0;
        if (d > MAX_SUM) {
            status = SH_UNDEFINED;
            goto done;
        }
    }
    x->kind = direct && d > DIRECT ? SH_COLUMNS : want_columns ? SH_COLUMNS : SH_LINES;
    if (!coding_new(context, &x->first, direct ? d : FIRST, !direct, eta, d)) goto done;
    int64_t second = direct ? 0 : d <= SECOND ? d : x->rank > FIRST ? x->rank : 0;
    if (second && !coding_new(context, &x->second, second, d > SECOND, eta, d)) goto done;
    x->quads = sh_ceil_div(x->first.columns, 4);
    code = sh_allocate(context, sh_max(x->quads * 4, SECOND), 1);
    if (!code) goto done;
    if (x->basis) {
        a = sh_allocate(context, n * x->rank, sizeof(float));
        more = sh_allocate(context, 1, project_bytes(x, n));
        if (!a || !more) goto done;
        project(x, y, n, a, more);
    }
    tune(&x->first, 1, direct ? y : a, direct ? d : x->rank, length2, n, code);
    if (second) tune(&x->second, 0, x->second.rotated ? a : y, x->second.rotated ? x->rank : d, length2, n, code);
    status = SH_OK;
done:
    sh_release(context, work);
    sh_release(context, y);
    sh_release(context, a);
    sh_release(context, s);
    sh_release(context, length2);
    sh_release(context, more);
    sh_release(context, code);
    return status;
}

static size_t bytes_of(const sh_index *x) {
    return (size_t)sh_ceil_div(x->patterns, SH_GROUP) * sh_group_bytes(x->quads) + (size_t)x->patterns * x->line_bytes +
           (size_t)(x->rank * x->d + 2 * (x->first.columns + x->second.columns)) * sizeof(float) +
           (size_t)x->d * sizeof(double);
}

/* Reckons what making an index will take, before anything is known of the patterns: its codes, the sample, and the
 * matrices that directions are found by. */
static double bytes_expected(const sh_memory *m, sh_index_kind kind, int64_t d) {
    double n = (double)m->patterns.n, all = (double)d, first = all + 8, sample = fmin(n, SAMPLE) * all * 12;
    if (d > DIRECT && kind != SH_COLUMNS) {
        double gram = fmin(all, SH_LARGEST_GRAM);
        first = fmin(first, SH_FIRST + 8 + fmin(all, SECOND) + 8);
        sample = fmin(n, d <= SH_LARGEST_GRAM ? SAMPLE : SH_LARGEST_GRAM) * all * 12 + 3 * 8 * gram * gram;
    }
    return n * first + sample;
}

sh_status sh_index_new(sh_context *context, const sh_memory *m, sh_index_kind kind, const int32_t *kept, int64_t d,
                       int64_t most, sh_index **index) {
    *index = NULL;
    int64_t n = m->patterns.n;
    if (!(m->max_norm > 0x1p-400 && m->max_norm < 0x1p400) || n > INT32_MAX - SH_GROUP) return SH_OK;
    if (kind == SH_COLUMNS && d > MAX_SUM) return SH_OK;
    if (bytes_expected(m, kind, d) > (double)most) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    if (!x) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    *x = (sh_index){.references = 1, .kind = kind, .patterns = n, .d = d};
    sh_status status = SH_OK;
    if (kept) {
        x->kept = sh_allocate(context, d, sizeof *kept);
        if (x->kept)
            memcpy(x->kept, kept, (size_t)d * sizeof *kept);
        else
            status = SH_NO_MEMORY;
    }
    if (status == SH_OK) status = take_sample(context, m, x, kind == SH_COLUMNS);
    if (status == SH_OK) {
        x->line_bytes = x->second.columns ? (size_t)(x->second.columns + 15) / 8 * 8 : 0;
        x->bytes = bytes_of(x);
        int fits = x->bytes <= (uint64_t)most; /* of kinds that the patterns chose */
        if (fits) x->groups = sh_allocate(context, sh_ceil_div(n, SH_GROUP), sh_group_bytes(x->quads));
        if (fits && x->line_bytes) x->lines = sh_allocate(context, n, x->line_bytes);
        if (!x->groups || (x->line_bytes && !x->lines)) status = SH_NO_MEMORY;
    }
    if (status == SH_OK) {
        building b = {x, m, 0};
        status = sh_for_each(context, sh_ceil_div(n, ROWS), code_scratch(x, m, ROWS), code_rows, &b);
        if (status == SH_OK) {
            *index = x;
            return SH_OK;
        }
    } else if (status == SH_NO_MEMORY) {
        sh_fail(context, SH_NO_MEMORY, NULL, 0);
    }
    sh_index_free(context, x);
    return status == SH_UNDEFINED ? SH_OK : status;
}

static void *copy_of(sh_context *context, const void *from, int64_t n, size_t size) {
    void *to = from ? sh_allocate(context, n, size) : NULL;
    if (to) memcpy(to, from, (size_t)n * size);
    return to;
}

sh_status sh_index_grow(sh_context *context, const sh_memory *m, const sh_index *older, int64_t most,
                        sh_index **index) {
    *index = NULL;
    int64_t n = m->patterns.n, first = older->patterns / ROWS, ready = first * ROWS;
    if (n > 2 * older->patterns || n > INT32_MAX - SH_GROUP || !(reach_of(older, m) * older->power <= 1)) return SH_OK;
    if ((double)older->bytes / (double)older->patterns * (double)n > (double)most)
        return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    if (!x) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    *x = (sh_index){.references = 1, /* others may take hold of the older one, or give it up, meanwhile */
                    .kind = older->kind,
                    .patterns = n,
                    .d = older->d,
                    .power = older->power,
                    .centre2 = older->centre2,
                    .first_apart = older->first_apart,
                    .centre_norm = older->centre_norm,
                    .rank = older->rank,
                    .first = older->first,
                    .second = older->second,
                    .quads = older->quads,
                    .line_bytes = older->line_bytes};
    x->centre = copy_of(context, older->centre, x->d, sizeof *x->centre);
    x->basis = copy_of(context, older->basis, x->rank * x->d, sizeof *x->basis);
    x->first.step = copy_of(context, older->first.step, 2 * x->first.columns, sizeof(float));
    x->second.step = copy_of(context, older->second.step, 2 * x->second.columns, sizeof(float));
    size_t group = sh_group_bytes(x->quads);
    x->groups = sh_allocate(context, sh_ceil_div(n, SH_GROUP), group);
    x->lines = older->lines ? sh_allocate(context, n, x->line_bytes) : NULL;
    x->bytes = bytes_of(x);
    sh_status status = SH_NO_MEMORY;
    if (x->centre && x->first.step && x->groups && !x->basis == !older->basis &&
        !x->second.step == !older->second.step && !x->lines == !older->lines) {
        x->first.inverse = x->first.step + x->first.columns;
        x->second.inverse = x->second.step ? x->second.step + x->second.columns : NULL;
        memcpy(x->groups, older->groups, (size_t)(ready / SH_GROUP) * group);
        if (x->lines) memcpy(x->lines, older->lines, (size_t)ready * x->line_bytes);
        building b = {x, m, first};
        status = sh_for_each(context, sh_ceil_div(n, ROWS) - first, code_scratch(x, m, ROWS), code_rows, &b);
    } else {
        sh_fail(context, SH_NO_MEMORY, NULL, 0);
    }
    if (status == SH_OK)
        *index = x;
    else
        sh_index_free(context, x);
    return status;
}

sh_status sh_index_widen(sh_context *context, const sh_memory *m, sh_index *base, int64_t most, sh_index **index) {
    *index = NULL;
    if (!base->basis || base->kept || base->rank < SH_WIDE || base->second.columns <= SH_WIDE) return SH_OK;
    if ((double)base->patterns * (SH_WIDE + 8) > (double)most) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    if (!x) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    atomic_fetch_add(&base->references, 1);
    *x = (sh_index){.references = 1,
                    .base = base,
                    .kind = base->kind,
                    .patterns = base->patterns,
                    .d = base->d,
                    .power = base->power,
                    .centre = base->centre,
                    .centre2 = base->centre2,
                    .first_apart = base->first_apart,
                    .centre_norm = base->centre_norm,
                    .rank = base->rank,
                    .basis = base->basis,
                    .second = base->second,
                    .quads = SH_WIDE / 4,
                    .line_bytes = base->line_bytes,
                    .lines = base->lines};
    int64_t n = sh_min(x->patterns, ASKERS), d = x->d;
    char *work = sh_allocate(context, 1, row_bytes(x, m)), *more = sh_allocate(context, 1, project_bytes(x, n));
    float *y = sh_allocate(context, n * d, sizeof(float)), *a = sh_allocate(context, n * x->rank, sizeof(float));
    double *length2 = sh_allocate(context, n, sizeof(double));
    int8_t *code = sh_allocate(context, SH_WIDE, 1);
    sh_status status = SH_NO_MEMORY;
    x->groups = sh_allocate(context, sh_ceil_div(x->patterns, SH_GROUP), sh_group_bytes(x->quads));
    if (!work || !more || !y || !a || !length2 || !code || !x->groups) goto done;
    if (!coding_new(context, &x->first, SH_WIDE, 1, base->first.eta, d)) goto done;
    for (int64_t i = 0; i < n; i++) {
        status = pattern_row(context, x, m, i * x->patterns / n, y + i * d, work, &length2[i]);
        if (status != SH_OK) goto done;
    }
    status = SH_NO_MEMORY;
    project(x, y, n, a, more);
    tune(&x->first, 1, a, x->rank, length2, n, code);
    x->bytes = (size_t)sh_ceil_div(x->patterns, SH_GROUP) * sh_group_bytes(x->quads) + 2 * SH_WIDE * sizeof(float);
    building b = {x, m, 0};
    status = sh_for_each(context, sh_ceil_div(x->patterns, ROWS), code_scratch(x, m, ROWS), code_rows, &b);
done:
    sh_release(context, work);
    sh_release(context, more);
    sh_release(context, y);
    sh_release(context, a);
    sh_release(context, length2);
    sh_release(context, code);
    if (status == SH_OK)
        *index = x;
    else
        sh_index_free(context, x);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

void sh_index_free(sh_context *context, sh_index *x) {
    if (!x || atomic_fetch_sub(&x->references, 1) > 1) return;
    sh_release(context, x->first.step);
    sh_release(context, x->groups);
    if (x->base) {
        sh_index_free(context, x->base);
    } else {
        sh_release(context, x->kept);
        sh_release(context, x->centre);
        sh_release(context, x->basis);
        sh_release(context, x->second.step);
        sh_release(context, x->lines);
    }
    sh_release(context, x);
}

int sh_index_may_add_columns(const sh_memory *m, const sh_index *lines) {
    int64_t d = m->patterns.d;
    double row = (double)(d * (int64_t)m->k->size);
    return lines->kind == SH_LINES && lines->basis && d <= MAX_SUM &&
           (double)lines->bytes / (double)lines->patterns + (double)(d + 8) <= 0.4 * row;
}

/* --- queries -------------------------------------------------------------------------------------- */

size_t sh_looks_bytes(const sh_index *x, const sh_memory *m, int64_t rows) {
    return sh_align((size_t)(rows * x->d) * sizeof(float)) + sh_align((size_t)(rows * x->rank) * sizeof(float)) +
           sh_align((size_t)(rows * x->quads * 4)) + sh_align((size_t)(rows * x->second.columns) * sizeof(float)) +
           sh_align((size_t)rows * sizeof(sh_look)) + sh_align((size_t)x->d * sizeof(double)) + row_bytes(x, m) +
           project_bytes(x, rows);
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
        const void *row = kept_of(x, m->k, sh_query(job, query), gathered);
        double length = sqrt(m->k->centre(looks->y + i * x->d, row, 1, x->centre, x->power, x->d));
        m->k->to_double(wide, row, x->d);
        const sh_kernels *doubles = sh_kernels_of(SH_FLOAT64);
        if (by_distance(x, m) && sh_by_distance(job)) {
            double square = doubles->distance2(wide, x->centre, x->d), reach = sqrt(square) + 1 / x->power;
            look->constant = -square / 2;
            look->slack = product * reach * reach;
        } else {
            double along = doubles->dot(wide, x->centre, x->d), raw2 = m->k->dot(row, row, x->d);
            double norm = sqrt(raw2) * (1 + 1e-9), centre2 = x->centre2, half = sh_by_distance(job) ? raw2 / 2 : 0;
            look->constant = along - (by_distance(x, m) ? centre2 / 2 : 0) - half;
            look->slack =
                product * ((norm + x->centre_norm) * (m->max_norm + x->centre_norm) + m->max_bias + centre2 + half);
        }
        int usable = length < 0x1p60 && length > 0x1p-60 && look->slack < 0x1p900;
        look->length = usable ? length : 0;
        look->second_radius = NAN;
    }
    if (x->basis) project(x, looks->y, rows, looks->a, work + row_bytes(x, m));
    for (int64_t i = 0; i < rows; i++) {
        sh_look *look = &looks->look[i];
        if (look->length == 0) continue;
        const float *b = x->first.rotated ? looks->a + i * x->rank : looks->y + i * x->d;
        double part[4], lost = encode_query(&x->first, b, looks->codes + i * x->quads * 4, &look->step, &look->start);
        query_parts(&x->first, b, look->length, lost, part);
        look->radius = up(merged(part, x->first.weight, 1));
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
    double lost = 1.1 * roundoff((double)c->columns + 8) * sqrt(squares(scaled, c->columns)), part[4];
    query_parts(c, b, look->length, lost, part);
    look->second_radius = up(merged(part, c->weight, 1));
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
