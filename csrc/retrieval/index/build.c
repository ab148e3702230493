/* retrieval/index/build.c: an index of a memory's patterns: what a sample of them decides, then the codes of all. */
#include "retrieval/index/quantise.h"
#include <assert.h>
#include <string.h>

enum {
    FILTER_COLUMNS = SH_SHORT_CODE, /* leading columns of a filter code */
    REFINEMENT_COLUMNS = 244,       /* of a refinement code, at most */
    DIRECT_FEATURES = 120,          /* so few are encoded as they are */
    SAMPLE = 2048,                  /* patterns that the centre, the basis and the quantisers are taken from */
    BASIS_BYTES = 4 << 20,          /* of a basis that is never too large */
};

double sh_largest_distance(const sh_index *x, const sh_memory *m) {
    double distance = m->max_norm + x->centre_norm;
    if (m->centre && m->centre_row == 0) distance = fmin(distance, m->max_spread * (1 + 1e-9) + x->first_distance);
    return distance;
}

void sh_set_centre_norms(sh_index *x) {
    x->centre_norm2 = sh_kernels_of(SH_FLOAT64)->dot(x->centre, x->centre, x->d);
    x->centre_norm = sqrt(x->centre_norm2) * (1 + 1e-12);
}

/* --- the sample ----------------------------------------------------------------------------------- */

typedef struct {
    int64_t n;
    sh_coding_scratch rows;
    double *y; /* (n, d) rows.y in double */
} sample;

static size_t lay_out(const sh_index *x, const sh_memory *m, void *memory, sample *s) {
    sh_workspace w = {memory, 0};
    sh_take_rows(&w, x, m, s->n, &s->rows);
    s->y = sh_take(&w, s->n * x->d, sizeof *s->y);
    return w.used;
}

/* Writes the used features of a pattern in double, scaled. */
static void load_in_double(const sh_index *x, const sh_memory *m, int64_t pattern, sample *s) {
    m->k->to_double(s->rows.in_double,
                    sh_used_features(x, m->k, sh_row_at(m->k, &m->patterns, pattern, s->rows.row), &s->rows), x->d);
    for (int64_t j = 0; m->scale && j < x->d; j++) s->rows.in_double[j] *= m->scale[pattern];
}

/* Takes the centre from the sample: its mean, or zero where the mean is hardly nearer to the patterns. For then small ones
 * crowd at zero, and codes are the finer the nearer a pattern is to the centre. */
static void choose_centre(const sh_memory *m, sh_index *x, sample *s) {
    const sh_kernels *doubles = sh_kernels_of(SH_FLOAT64);
    double from_zero = 0, from_mean = 0;
    int64_t n = s->n, d = x->d;
    memset(x->centre, 0, (size_t)d * sizeof(double));
    for (int64_t i = 0; i < n; i++) {
        load_in_double(x, m, i * x->patterns / n, s);
        for (int64_t j = 0; j < d; j++) x->centre[j] += s->rows.in_double[j] / (double)n;
        from_zero += sqrt(doubles->dot(s->rows.in_double, s->rows.in_double, d));
    }
    for (int64_t i = 0; i < n; i++) {
        load_in_double(x, m, i * x->patterns / n, s);
        from_mean += sqrt(doubles->distance2(s->rows.in_double, x->centre, d));
    }
    if (from_zero <= 1.1 * from_mean) memset(x->centre, 0, (size_t)d * sizeof(double));
    sh_set_centre_norms(x);
}

/* Takes centre and scaling from the sample, then its rows. */
static sh_status load_sample(sh_context *context, const sh_memory *m, sh_index *x, sample *s) {
    int64_t n = s->n, d = x->d;
    choose_centre(m, x, s);
    load_in_double(x, m, 0, s);
    x->first_distance = sqrt(sh_kernels_of(SH_FLOAT64)->distance2(s->rows.in_double, x->centre, d)) * (1 + 1e-9);
    int exponent;
    frexp(sh_largest_distance(x, m) * (1 + 1e-9), &exponent);
    x->scaling = ldexp(1, -exponent);
    for (int64_t i = 0; i < n; i++) {
        sh_status status = sh_load_pattern(context, x, m, i * x->patterns / n, &s->rows, i);
        if (status != SH_OK) return status;
    }
    for (int64_t j = 0; j < n * d; j++) s->y[j] = (double)s->rows.y[j];
    return SH_OK;
}

/* Finds the basis, if leading columns serve; else there is none. Returns SH_UNDEFINED if no codes are possible. */
static sh_status find_basis(sh_context *context, const sh_memory *m, sh_index *x, const sample *s, double *eta) {
    int64_t d = x->d;
    if (x->kind != SH_ALL_COLUMNS && d > DIRECT_FEATURES) {
        /* refinement codes of few features have them all and need no basis; where patterns are few and long, a basis
         * for refinement codes would be a large part of them */
        double most_bytes = fmax(BASIS_BYTES, 0.04 * (double)x->patterns * (double)(d * (int64_t)m->k->size));
        int64_t wanted = d <= REFINEMENT_COLUMNS || REFINEMENT_COLUMNS * d * (int64_t)sizeof(float) > most_bytes
                             ? FILTER_COLUMNS
                             : REFINEMENT_COLUMNS;
        /* 1 - FILTER_COLUMNS / d of the squares would be left out if all directions weighed the same */
        double left_out = 0, unstructured = 0.7 * (double)(d - FILTER_COLUMNS) / (double)d;
        x->basis = sh_allocate(context, wanted * d, sizeof(float));
        if (!x->basis) return SH_NO_MEMORY;
        sh_status status = sh_principal_directions(context, s->y, s->n, d, wanted, x->basis, &x->rank, &left_out, eta);
        if (status != SH_OK) return status;
        int too_few = x->rank < FILTER_COLUMNS || !(*eta < 0x1p-14);
        if (!too_few && !(x->kind == SH_EITHER_COLUMNS && left_out > unstructured && d <= SH_MOST_FEATURES))
            return SH_OK;
    }
    sh_release(context, x->basis);
    x->basis = NULL;
    x->rank = 0;
    return d > SH_MOST_FEATURES ? SH_UNDEFINED : SH_OK;
}

/* Chooses the columns of boxes: the leading ones, or those of the largest variance. */
static void choose_box_columns(sh_index *x, const sample *s, double eta) {
    int64_t most = SH_BOX_COLUMNS - 1, d = x->d;
    double variance[SH_BOX_COLUMNS];
    x->box_columns = 0;
    for (int64_t j = 0; j < (x->basis ? sh_min(x->rank, most) : d); j++) {
        double sum = 0, sum2 = 0;
        for (int64_t i = 0; i < s->n && !x->basis; i++) {
            sum += s->y[i * d + j];
            sum2 += s->y[i * d + j] * s->y[i * d + j];
        }
        double own = x->basis ? 0 : sum2 - sum * sum / (double)s->n;
        int64_t place = sh_min(x->box_columns, most);
        for (; place > 0 && own > variance[place - 1]; place--) {
            variance[place] = variance[place - 1];
            if (place < most) x->box_column[place] = x->box_column[place - 1];
        }
        if (place == most) continue;
        variance[place] = own;
        x->box_column[place] = (int32_t)j;
        x->box_columns = sh_min(x->box_columns + 1, most);
    }
    sh_set_box_errors(x, eta);
}

/* Takes centre, scaling, basis, kind and quantisers from a sample. */
static sh_status fit_to_sample(sh_context *context, const sh_memory *m, sh_index *x) {
    sample s = {.n = sh_min(x->patterns, x->d <= SH_LARGEST_GRAM ? SAMPLE : SH_LARGEST_GRAM)};
    double eta = 0;
    int64_t d = x->d;
    x->centre = sh_allocate(context, d, sizeof(double));
    void *memory = sh_allocate(context, 1, lay_out(x, m, NULL, &s));
    sh_status status = x->centre && memory ? SH_OK : SH_NO_MEMORY;
    if (status == SH_OK) {
        lay_out(x, m, memory, &s);
        status = load_sample(context, m, x, &s);
    }
    if (status == SH_OK) status = find_basis(context, m, x, &s, &eta);
    if (status == SH_OK) choose_box_columns(x, &s, eta);
    sh_release(context, memory);
    if (status != SH_OK) return status;
    int rotated = x->basis != NULL;
    int64_t refinement = !rotated ? 0 : d <= REFINEMENT_COLUMNS ? d : x->rank > FILTER_COLUMNS ? x->rank : 0;
    if (x->kind != SH_ALL_COLUMNS) x->kind = rotated || d <= DIRECT_FEATURES ? SH_LEADING_COLUMNS : SH_ALL_COLUMNS;
    if (!sh_quantiser_new(context, &x->filter, rotated ? FILTER_COLUMNS : d, rotated, eta, d)) return SH_NO_MEMORY;
    if (refinement && !sh_quantiser_new(context, &x->refinement, refinement, d > REFINEMENT_COLUMNS, eta, d))
        return SH_NO_MEMORY;
    x->quads = sh_ceil_div(x->filter.columns, 4);
    return sh_fit_quantisers(context, x, m, s.n);
}

/* --- the index ------------------------------------------------------------------------------------ */

size_t sh_index_total_bytes(const sh_index *x) {
    if (x->base)
        return (size_t)x->panel_count * (sh_panel_bytes(x->quads) + sizeof *x->scales) +
               (size_t)(2 * x->filter.columns) * sizeof *x->filter.step;
    size_t slot_bytes = sh_panel_bytes(x->quads) / SH_PANEL + sizeof *x->order + x->record_bytes;
    int64_t steps = 2 * (x->filter.columns + x->refinement.columns), groups = sh_ceil_div(x->panel_count, SH_GROUP);
    int64_t floats = x->rank * x->d + steps + x->panel_count + groups * SH_GROUP_FLOATS;
    return (size_t)(x->panel_count * SH_PANEL) * slot_bytes + (size_t)floats * sizeof(float) +
           (size_t)x->d * sizeof(double);
}

int sh_take_slots(sh_context *context, sh_index *x) {
    x->panels = sh_allocate(context, x->panel_count, sh_panel_bytes(x->quads));
    x->scales = sh_allocate(context, x->panel_count, sizeof *x->scales);
    if (x->base) return x->panels && x->scales;
    x->boxes = sh_allocate(context, sh_ceil_div(x->panel_count, SH_GROUP) * SH_GROUP_FLOATS, sizeof *x->boxes);
    if (x->record_bytes) x->records = sh_allocate(context, x->panel_count * SH_PANEL, x->record_bytes);
    return x->panels && x->scales && x->boxes && !x->records == !x->record_bytes;
}

/* Estimates the bytes that making an index takes, before anything is known of the patterns: its codes, the sample, and
 * the matrices that directions are found by. */
static double estimate_bytes(const sh_memory *m, sh_index_kind kind, int64_t d) {
    double n = (double)m->patterns.n, features = (double)d, code_bytes = features + 8, slot_bytes = 6;
    double sample_bytes = fmin(n, SAMPLE) * features * 12;
    if (d > DIRECT_FEATURES && kind != SH_ALL_COLUMNS) {
        double gram_rows = fmin(features, SH_LARGEST_GRAM);
        code_bytes = fmin(code_bytes, FILTER_COLUMNS + 8 + fmin(features, REFINEMENT_COLUMNS) + 12);
        sample_bytes =
            fmin(n, d <= SH_LARGEST_GRAM ? SAMPLE : SH_LARGEST_GRAM) * features * 12 + 3 * 8 * gram_rows * gram_rows;
    }
    return n * fmax(code_bytes + slot_bytes, SH_ORDERED_BYTES) + sample_bytes;
}

sh_status sh_index_new(sh_context *context, const sh_memory *m, sh_index_kind kind, const int32_t *features, int64_t d,
                       int64_t most_bytes, sh_index **index) {
    *index = NULL;
    int64_t n = m->patterns.n;
    if (!(m->max_norm > 0x1p-400 && m->max_norm < 0x1p400) || n > INT32_MAX - SH_PANEL) return SH_OK;
    if (kind == SH_ALL_COLUMNS && d > SH_MOST_FEATURES) return SH_OK;
    for (int64_t j = 1; features && j < d; j++) assert(features[j - 1] < features[j]);
    if (estimate_bytes(m, kind, d) > (double)most_bytes) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    sh_index *x = sh_allocate(context, 1, sizeof *x);
    if (!x) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    *x = (sh_index){.references = 1, .kind = kind, .patterns = n, .d = d};
    sh_status status = SH_OK;
    if (features) {
        x->features = sh_allocate(context, d, sizeof *features);
        if (x->features)
            memcpy(x->features, features, (size_t)d * sizeof *features);
        else
            status = SH_NO_MEMORY;
    }
    if (status == SH_OK) status = fit_to_sample(context, m, x);
    if (status == SH_OK) {
        x->record_bytes = sh_record_bytes(x->refinement.columns);
        x->panel_count = sh_ceil_div(n, SH_PANEL);
        x->segments = 1;
        x->boxes_by_distance = sh_has_distance_bias(x, m);
        x->bytes = sh_index_total_bytes(x); /* of the kind that the patterns chose */
        if (x->bytes <= (uint64_t)most_bytes)
            x->order = sh_allocate(context, x->panel_count * SH_PANEL, sizeof *x->order);
        if (!x->order) status = SH_NO_MEMORY;
    }
    if (status == SH_OK) status = sh_order_patterns(context, x, m, 0, 0);
    if (status == SH_OK && !sh_take_slots(context, x)) status = SH_NO_MEMORY;
    if (status == SH_NO_MEMORY)
        sh_fail(context, SH_NO_MEMORY, NULL, 0);
    else if (status == SH_OK)
        status = sh_encode_patterns(context, x, m, 0);
    if (status == SH_OK)
        *index = x;
    else
        sh_index_free(context, x);
    return status == SH_UNDEFINED ? SH_OK : status;
}
