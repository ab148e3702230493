/* retrieval/index/quantise.c: rows of numbers, and 8-bit codes of them. */
#include "retrieval/index/quantise.h"
#include <string.h>

/* --- rows as the index sees them ------------------------------------------------------------------ */

size_t sh_row_bytes(const sh_index *x, const sh_memory *m) {
    return sh_align((size_t)m->patterns.d * m->k->size) + (x->kept ? sh_align((size_t)x->d * m->k->size) : 0);
}

const void *sh_gather_features(const sh_index *x, const sh_kernels *k, const void *row, void *work) {
    if (!x->kept) return row;
    if (k->size == sizeof(float))
        for (int64_t j = 0; j < x->d; j++) ((float *)work)[j] = ((const float *)row)[x->kept[j]];
    else
        for (int64_t j = 0; j < x->d; j++) ((double *)work)[j] = ((const double *)row)[x->kept[j]];
    return work;
}

/* y and |y|^2 of pattern i, which may have changed since it was checked. `work` holds row_bytes. */
sh_status sh_load_pattern(sh_context *context, const sh_index *x, const sh_memory *m, int64_t i, float *y, char *work,
                          double *length2) {
    const void *row = sh_row_at(m->k, &m->patterns, i, work);
    row = sh_gather_features(x, m->k, row, work + sh_align((size_t)m->patterns.d * m->k->size));
    *length2 = m->k->centre(y, row, m->scale ? m->scale[i] : 1, x->centre, x->power, x->d);
    return *length2 - *length2 == 0 ? SH_OK : sh_fail(context, SH_NOT_FINITE, "patterns", i);
}

/* a = y V^T of some rows; `work` holds project_bytes */
size_t sh_project_bytes(const sh_index *x, int64_t rows) {
    return sh_align((size_t)(rows * x->rank) * sizeof(double)) + sh_align((size_t)(rows * x->rank) * sizeof(float));
}
void sh_project(const sh_index *x, const float *y, int64_t rows, float *a, char *work) {
    const sh_kernels *k = sh_kernels_of(SH_FLOAT32);
    int64_t slabs = sh_ceil_div(x->d, SH_SLAB), slab = sh_ceil_div(x->d, slabs), n = rows * x->rank;
    double *sum = (double *)(void *)work;
    float *part = (float *)(void *)(work + sh_align((size_t)n * sizeof(double)));
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (int64_t c = 0; c < x->d; c += slab) {
        k->gemm_nt(rows, x->rank, sh_min(slab, x->d - c), y + c, x->d, x->basis + c, x->d, 0, part, x->rank);
        for (int64_t j = 0; j < n; j++) sum[j] += (double)part[j];
    }
    for (int64_t j = 0; j < n; j++) a[j] = (float)sum[j];
}

/* --- building ------------------------------------------------------------------------------------- */

int sh_quantiser_new(sh_context *context, sh_coding *c, int64_t columns, int rotated, double eta, int64_t d) {
    c->columns = columns;
    c->rotated = rotated;
    c->eta = rotated ? eta : 0;
    double slab = (double)sh_ceil_div(d, sh_ceil_div(d, SH_SLAB));
    c->error = rotated ? sh_roundoff(slab + 4) * sqrt((double)columns) * (1 + eta) + 0x1p-23 : 0x1.0001p-24;
    c->phi = 2 * c->error * (1 + eta + c->error) + eta * (1 + eta) + (double)(d + 16) * 0x1p-50;
    c->step = sh_allocate(context, 2 * columns, sizeof(float));
    if (!c->step) return 0;
    c->inverse = c->step + columns;
    return 1;
}

/* steps and weights from sampled rows: `a` (n, stride) their numbers, length2 their |y|^2; `coded`: queries are coded,
 * too, and not taken as they are */
void sh_fit_quantiser(sh_coding *c, int coded, const float *a, int64_t stride, const double *length2, int64_t n,
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
    int64_t askers = sh_min(n, SH_ASKERS);
    for (int64_t i = 0; i < askers; i++) {
        int64_t at = i * n / askers;
        const float *row = a + at * stride;
        double part[4];
        float step;
        int32_t start;
        sh_pattern_terms(c, row, length2[at], k->encode(row, c->step, c->inverse, c->columns, code), part);
        for (int l = 0; l < 4; l++) q_mean[l] += part[l];
        double lost = coded ? sh_quantise_query(c, row, code, &step, &start) : 0;
        sh_query_terms(c, row, sqrt(length2[at]), lost, part);
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
    return sh_row_bytes(x, m) + sh_align((size_t)(rows * x->d) * sizeof(float)) +
           sh_align((size_t)(rows * x->rank) * sizeof(float)) + sh_project_bytes(x, rows) +
           sh_align((size_t)rows * sizeof(double)) + sh_align((size_t)(x->quads * 4)) +
           sh_align((size_t)x->d * sizeof(double));
}

/* the bias of pattern i as stored: scaled, with room for its rounding; `wide` holds d doubles */
static float bias_of(const sh_index *x, const sh_memory *m, int64_t i, const float *y, double length2, double *wide) {
    double bias = -length2 / 2;
    if (!sh_distance_bias(x, m)) {
        sh_kernels_of(SH_FLOAT32)->to_double(wide, y, x->d);
        bias = sh_kernels_of(SH_FLOAT64)->dot(wide, x->centre, x->d) * x->power;
        if (m->bias) bias += m->bias[i] * x->power * x->power;
    }
    return sh_round_up(bias + 8 * 0x1p-24 * fabs(bias));
}

static sh_status code_rows(void *pointer, int64_t item, void *scratch, sh_context *context) {
    building *b = pointer;
    item += b->first;
    sh_index *x = b->index;
    const sh_memory *m = b->m;
    const sh_code_kernels *k = sh_code_kernels_chosen();
    int64_t first = item * SH_CODED_ROWS, rows = sh_min(SH_CODED_ROWS, x->patterns - first);
    char *work = scratch, *at = work + sh_row_bytes(x, m);
    float *y = (float *)(void *)at;
    at += sh_align((size_t)(SH_CODED_ROWS * x->d) * sizeof(float));
    float *a = (float *)(void *)at;
    at += sh_align((size_t)(SH_CODED_ROWS * x->rank) * sizeof(float));
    double *length2 = (double *)(void *)at;
    at += sh_align((size_t)SH_CODED_ROWS * sizeof(double));
    int8_t *code = (int8_t *)at;
    at += sh_align((size_t)(x->quads * 4));
    double *wide = (double *)(void *)at;
    at += sh_align((size_t)x->d * sizeof(double));
    for (int64_t i = 0; i < rows; i++) {
        sh_status status = sh_load_pattern(context, x, m, first + i, y + i * x->d, work, &length2[i]);
        if (status != SH_OK) return status;
    }
    if (x->basis) sh_project(x, y, rows, a, at);

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
        sh_pattern_terms(&x->first, row, length2[i], coded, part);
        for (int64_t z = 0; z < x->quads; z++)
            for (int c = 0; c < 4; c++) group[z * 256 + l * 4 + c] = (uint8_t)(code[z * 4 + c] + 128);
        side[l] = sh_round_up(sh_error_radius(part, x->first.weight, 0) + 0x1p-100);
        side[SH_GROUP + l] = bias;
        if (!x->second.columns || x->base) continue;
        char *line = x->lines + (size_t)(first + i) * x->line_bytes;
        row = x->second.rotated ? a + i * x->rank : y + i * x->d;
        coded = k->encode(row, x->second.step, x->second.inverse, x->second.columns, (int8_t *)line);
        sh_pattern_terms(&x->second, row, length2[i], coded, part);
        side = (float *)(void *)(line + x->line_bytes - 8);
        side[0] = sh_round_up(sh_error_radius(part, x->second.weight, 0) + 0x1p-100);
        side[1] = bias;
    }
    return SH_OK;
}

sh_status sh_quantise_patterns(sh_context *context, sh_index *x, const sh_memory *m, int64_t first) {
    building b = {x, m, first};
    return sh_for_each(context, sh_ceil_div(x->patterns, SH_CODED_ROWS) - first, code_scratch(x, m, SH_CODED_ROWS),
                       code_rows, &b);
}
