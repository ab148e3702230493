/* retrieval/index/quantise.c: rows less their centre, scaled and rotated, and 8-bit codes of them. */
#include "retrieval/index/quantise.h"
#include <assert.h>
#include <string.h>

_Static_assert(SH_ENCODED_ROWS % SH_PANEL == 0, "patterns are encoded by whole panels");

/* --- rows ----------------------------------------------------------------------------------------- */

void sh_take_rows(sh_workspace *w, const sh_index *x, const sh_memory *m, int64_t rows, sh_coding_scratch *s) {
    s->row = sh_take(w, m->patterns.d, m->k->size);
    s->gathered = sh_take(w, x->features ? x->d : 0, m->k->size);
    s->in_double = sh_take(w, x->d, sizeof *s->in_double);
    s->y = sh_take(w, rows * x->d, sizeof *s->y);
    s->norm2 = sh_take(w, rows, sizeof *s->norm2);
}

void sh_take_products(sh_workspace *w, int64_t rows, int64_t columns, sh_coding_scratch *s) {
    s->a = sh_take(w, rows * columns, sizeof *s->a);
    s->sum = sh_take(w, rows * columns, sizeof *s->sum);
    s->slab = sh_take(w, rows * columns, sizeof *s->slab);
}

const void *sh_used_features(const sh_index *x, const sh_kernels *k, const void *row, const sh_coding_scratch *s) {
    if (!x->features) return row;
    if (k->size == sizeof(float))
        for (int64_t j = 0; j < x->d; j++) ((float *)s->gathered)[j] = ((const float *)row)[x->features[j]];
    else
        for (int64_t j = 0; j < x->d; j++) ((double *)s->gathered)[j] = ((const double *)row)[x->features[j]];
    return s->gathered;
}

sh_status sh_load_pattern(sh_context *context, const sh_index *x, const sh_memory *m, int64_t pattern,
                          sh_coding_scratch *s, int64_t i) {
    s->used = sh_used_features(x, m->k, sh_row_at(m->k, &m->patterns, pattern, s->row), s);
    double scale = m->scale ? m->scale[pattern] : 1;
    s->norm2[i] = m->k->centre(s->y + i * x->d, s->used, scale, x->centre, x->scaling, x->d);
    return s->norm2[i] - s->norm2[i] == 0 ? SH_OK : sh_fail(context, SH_NOT_FINITE, "patterns", pattern);
}

void sh_project(const sh_index *x, int64_t rows, int64_t columns, sh_coding_scratch *s) {
    const sh_kernels *k = sh_kernels_of(SH_FLOAT32);
    int64_t slabs = sh_ceil_div(x->d, SH_SLAB), width = sh_ceil_div(x->d, slabs), n = rows * columns;
    memset(s->sum, 0, (size_t)n * sizeof *s->sum);
    for (int64_t j = 0; j < x->d; j += width) {
        k->gemm_nt(rows, columns, sh_min(width, x->d - j), s->y + j, x->d, x->basis + j, x->d, 0, s->slab, columns);
        for (int64_t l = 0; l < n; l++) s->sum[l] += (double)s->slab[l];
    }
    for (int64_t l = 0; l < n; l++) s->a[l] = (float)s->sum[l];
}

/* --- quantisers ----------------------------------------------------------------------------------- */

/* Returns e of so many columns (bounds.c, note 1). */
static double error_of_columns(int64_t d, int rotated, double eta, int64_t columns) {
    double slab = (double)sh_ceil_div(d, sh_ceil_div(d, SH_SLAB));
    return rotated ? sh_roundoff(slab + 4) * sqrt((double)columns) * (1 + eta) + 0x1p-23 : 0x1.0001p-24;
}

void sh_set_quantiser(sh_quantiser *c, int64_t columns, int rotated, double eta, int64_t d) {
    c->columns = columns;
    c->rotated = rotated;
    c->eta = rotated ? eta : 0;
    c->projection_error = error_of_columns(d, rotated, eta, columns);
    c->phi = 2 * c->projection_error * (1 + eta + c->projection_error) + eta * (1 + eta) + (double)(d + 16) * 0x1p-50;
}

int sh_quantiser_new(sh_context *context, sh_quantiser *c, int64_t columns, int rotated, double eta, int64_t d) {
    sh_set_quantiser(c, columns, rotated, eta, d);
    c->step = sh_allocate(context, 2 * columns, sizeof(float));
    if (!c->step) return 0;
    c->inverse = c->step + columns;
    return 1;
}

void sh_set_box_errors(sh_index *x, double eta) {
    x->box_error = error_of_columns(x->d, x->basis != NULL, eta, 1);
    double e = sqrt((double)x->box_columns) * x->box_error;
    x->box_phi = 2 * e * (1 + eta + e) + 2 * eta * (1 + eta) + (double)(x->d + 16) * 0x1p-50;
}

/* Chooses the steps. Where queries are encoded, they are proportional to the root of a column's standard deviation, halfway
 * between equal errors in patterns and in queries; where they are not, to its power 3/4, which leaves the least error in
 * codes of one scale. Their mean square is 1, for scales say how large a code is; and none is so small that a column which
 * is nearly constant in the sample could make the scale. */
static void fit_steps(const sh_index *x, sh_quantiser *c, int encoded_queries, const sh_coding_scratch *s, int64_t n) {
    static const double LEAST_STEP = 1.0 / 16;
    const float *columns = sh_columns(x, c, s, 0);
    const int64_t stride = sh_columns(x, c, s, 1) - columns;
    double total = 0; /* of the steps' squares */
    for (int64_t j = 0; j < c->columns; j++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)columns[i * stride + j] * (double)columns[i * stride + j];
        double deviation = sqrt(sum / (double)n);
        c->step[j] = (float)sqrt(encoded_queries ? deviation : deviation * sqrt(deviation));
        total += (double)c->step[j] * (double)c->step[j];
    }
    double root = sqrt(total / (double)c->columns);
    for (int64_t j = 0; j < c->columns; j++) {
        double step = root > 0 ? (double)c->step[j] / root : 1;
        c->step[j] = (float)fmax(step, LEAST_STEP);
        c->inverse[j] = 1 / c->step[j];
    }
}

/* Returns the scale of codes whose largest ratio of a column to its step is this. */
static float scale_for(float largest_ratio) { return fmaxf(largest_ratio * ((1 + 0x1p-20f) / 127), 0x1p-100f); }

/* Chooses steps and weights from n sampled rows. encoded_queries: whether queries are encoded as well, or multiply the
 * codes by their columns. */
static void fit_quantiser(const sh_index *x, sh_quantiser *c, int encoded_queries, const sh_coding_scratch *s,
                          int64_t n, int8_t *code) {
    fit_steps(x, c, encoded_queries, s, n);
    const sh_code_kernels *k = sh_code_kernels_chosen();
    double p_mean[4] = {0}, q_mean[4] = {0}, norm = 0;
    int64_t queries = sh_min(n, SH_SAMPLED_QUERIES);
    for (int64_t i = 0; i < queries; i++) {
        int64_t row = i * n / queries;
        const float *a = sh_columns(x, c, s, row);
        double term[4];
        float step;
        int32_t start;
        float scale = scale_for(k->largest_ratio(a, c->inverse, c->columns));
        sh_pattern_terms(c, a, s->norm2[row], scale, k->encode(a, c->step, c->inverse, scale, c->columns, code), term);
        for (int l = 0; l < 4; l++) q_mean[l] += term[l];
        double code_error = encoded_queries ? sh_encode_query(c, a, code, &step, &start) : 0;
        sh_query_terms(c, a, sqrt(s->norm2[row]), code_error, term);
        for (int l = 0; l < 4; l++) p_mean[l] += term[l];
        norm += sqrt(s->norm2[row]);
    }
    /* not below these: queries unlike the patterns have terms that happen to be 0 in the sample */
    double average_norm = fmax(norm / (double)queries, 0x1p-60);
    const double p_least[4] = {0.01 * average_norm, 0.01 * average_norm, 1e-4 * average_norm, 0x1p-40 * average_norm};
    const double q_least[4] = {0.01 * average_norm, 1e-4 * average_norm, 0.01 * average_norm, 0.01 * average_norm};
    for (int l = 0; l < 4; l++)
        c->weight[l] = fmax(p_mean[l] / (double)queries, p_least[l]) / fmax(q_mean[l] / (double)queries, q_least[l]);
}

/* The scratch of one worker that encodes patterns. */
typedef struct {
    sh_coding_scratch rows;
    float *bias;  /* (rows) as stored */
    int8_t *code; /* of one row */
} encoding_scratch;

static size_t lay_out(const sh_index *x, const sh_memory *m, int64_t rows, void *memory, encoding_scratch *s) {
    sh_workspace w = {memory, 0};
    sh_take_rows(&w, x, m, rows, &s->rows);
    sh_take_products(&w, rows, x->rank, &s->rows);
    s->bias = sh_take(&w, rows, sizeof *s->bias);
    s->code = sh_take(&w, sh_max(x->quads * 4, x->refinement.columns), 1);
    return w.used;
}

sh_status sh_fit_quantisers(sh_context *context, sh_index *x, const sh_memory *m, int64_t n) {
    encoding_scratch s;
    void *memory = sh_allocate(context, 1, lay_out(x, m, n, NULL, &s));
    if (!memory) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    lay_out(x, m, n, memory, &s);
    sh_status status = SH_OK;
    for (int64_t i = 0; status == SH_OK && i < n; i++)
        status = sh_load_pattern(context, x, m, i * x->patterns / n, &s.rows, i);
    if (status == SH_OK) {
        if (x->basis) sh_project(x, n, x->rank, &s.rows);
        fit_quantiser(x, &x->filter, 1, &s.rows, n, s.code);
        if (x->refinement.columns && !x->base) fit_quantiser(x, &x->refinement, 0, &s.rows, n, s.code);
    }
    sh_release(context, memory);
    return status;
}

/* --- codes of patterns ---------------------------------------------------------------------------- */

typedef struct {
    sh_index *index;
    const sh_memory *m;
    int64_t first_panel; /* those before it have their codes */
    int64_t first_item;  /* of a loop: others were before it */
} encoding;

/* Returns the bias of the pattern that was loaded last as it is stored: scaled, and rounded up by more than it may
 * lose. It is computed from the row, not from y: <y, mu> may be much smaller than the rounding of y times mu. */
static float stored_bias(const sh_index *x, const sh_memory *m, int64_t pattern, double norm2, sh_coding_scratch *s) {
    double bias = -norm2 / 2;
    if (!sh_has_distance_bias(x, m)) {
        m->k->to_double(s->in_double, s->used, x->d);
        double product = sh_kernels_of(SH_FLOAT64)->dot(s->in_double, x->centre, x->d);
        bias = (m->scale ? product * m->scale[pattern] : product) - x->centre_norm2 + (m->bias ? m->bias[pattern] : 0);
        bias *= x->scaling * x->scaling;
    }
    return sh_round_up(bias + 8 * 0x1p-24 * fabs(bias));
}

/* Returns the error radius of a pattern for its columns a, and writes its code. */
static float encode_row(const sh_quantiser *c, const float *a, double norm2, float scale, int8_t *code) {
    double term[4];
    sh_code_loss loss = sh_code_kernels_chosen()->encode(a, c->step, c->inverse, scale, c->columns, code);
    sh_pattern_terms(c, a, norm2, scale, loss, term);
    return sh_round_up(sh_error_radius(term, c->weight, 0) + 0x1p-100);
}

/* Writes the filter codes of a panel: of the n rows from `row` on, whose biases are bias[row] and so on. */
static void encode_panel(sh_index *x, const sh_coding_scratch *s, int64_t row, const float *bias, int64_t n,
                         int64_t number, int8_t *code) {
    const sh_quantiser *c = &x->filter;
    uint8_t *panel = x->panels + (size_t)number * sh_panel_bytes(x->quads);
    float *errors = sh_panel_errors(panel, x->quads), *biases = errors + SH_PANEL, largest = 0;
    for (int64_t l = 0; l < n; l++)
        largest = fmaxf(largest,
                        sh_code_kernels_chosen()->largest_ratio(sh_columns(x, c, s, row + l), c->inverse, c->columns));
    float scale = x->scales[number] = scale_for(largest);
    for (int64_t l = 0; l < SH_PANEL; l++) {
        if (l >= n) { /* an empty slot is never found */
            for (int64_t quad = 0; quad < x->quads; quad++) memset(panel + quad * 256 + l * 4, 128, 4);
            errors[l] = 0;
            biases[l] = -INFINITY;
            continue;
        }
        errors[l] = encode_row(c, sh_columns(x, c, s, row + l), s->norm2[row + l], scale, code);
        biases[l] = bias[row + l];
        for (int64_t quad = 0; quad < x->quads; quad++) {
            uint32_t four;
            memcpy(&four, code + quad * 4, sizeof four);
            four ^= 0x80808080; /* 128 added to each */
            memcpy(panel + quad * 256 + l * 4, &four, sizeof four);
        }
    }
}

/* Makes the box of a panel from n rows. */
static void make_box(sh_index *x, const sh_coding_scratch *s, int64_t row, const float *bias, int64_t n,
                     int64_t number) {
    float largest_bias = -INFINITY, *box = x->boxes + number / SH_GROUP * SH_GROUP_FLOATS + number % SH_GROUP;
    double least[SH_BOX_COLUMNS], most[SH_BOX_COLUMNS];
    for (int c = 0; c < SH_BOX_COLUMNS; c++) {
        least[c] = INFINITY;
        most[c] = -INFINITY;
    }
    for (int64_t i = row; i < row + n; i++) {
        double own_least[SH_BOX_COLUMNS], own_most[SH_BOX_COLUMNS];
        sh_box_intervals(x, s, i, own_least, own_most);
        for (int c = 0; c < SH_BOX_COLUMNS; c++) {
            least[c] = fmin(least[c], own_least[c]);
            most[c] = fmax(most[c], own_most[c]);
        }
        largest_bias = fmaxf(largest_bias, bias[i]);
    }
    for (int c = 0; c < SH_BOX_COLUMNS; c++) {
        box[2 * c * SH_GROUP] = -sh_round_up(-least[c]);
        box[(2 * c + 1) * SH_GROUP] = sh_round_up(most[c]);
    }
    box[2 * SH_BOX_COLUMNS * SH_GROUP] = x->boxes_by_distance ? 0 : largest_bias;
}

/* Writes the codes of SH_ENCODED_ROWS slots. */
static sh_status encode_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    enum { PANELS = SH_ENCODED_ROWS / SH_PANEL };
    const encoding *e = pointer;
    sh_index *x = e->index;
    const sh_memory *m = e->m;
    int64_t first_panel = e->first_panel + (e->first_item + item) * PANELS,
            panels = sh_min(PANELS, x->panel_count - first_panel);
    int64_t ahead = sh_prefetch_distance(&m->patterns), row = 0, first_row[PANELS + 1];
    encoding_scratch coding;
    lay_out(x, m, SH_ENCODED_ROWS, scratch, &coding);
    sh_coding_scratch *s = &coding.rows;
    int8_t *code = coding.code;
    const int32_t *order = x->order + first_panel * SH_PANEL;
    for (int64_t slot = 0; slot < panels * SH_PANEL; slot++)
        if (order[slot] >= 0) sh_expect_row(m, &m->patterns, order[slot]);
    for (int64_t slot = 0; slot < panels * SH_PANEL; slot++) {
        if (slot % SH_PANEL == 0) first_row[slot / SH_PANEL] = row;
        int64_t next = slot + ahead < panels * SH_PANEL ? order[slot + ahead] : -1, pattern = order[slot];
        if (next >= 0) sh_prefetch_row(&m->patterns, next);
        if (pattern < 0) continue;
        sh_status status = sh_load_pattern(context, x, m, pattern, s, row);
        if (status != SH_OK) return status;
        coding.bias[row] = stored_bias(x, m, pattern, s->norm2[row], s);
        row++;
    }
    first_row[panels] = row;
    if (x->basis) sh_project(x, row, x->rank, s);

    memset(code + x->filter.columns, 0, (size_t)(-x->filter.columns & 3));
    for (int64_t p = 0; p < panels; p++) {
        int64_t first = first_row[p], n = first_row[p + 1] - first;
        encode_panel(x, s, first, coding.bias, n, first_panel + p, code);
        if (x->base) continue;
        make_box(x, s, first, coding.bias, n, first_panel + p);
        for (int64_t i = 0; i < n && x->records; i++) {
            char *record = x->records + (size_t)((first_panel + p) * SH_PANEL + i) * x->record_bytes;
            float *end = (float *)(void *)(record + x->record_bytes - 12);
            const float *a = sh_columns(x, &x->refinement, s, first + i);
            const sh_quantiser *c = &x->refinement;
            end[0] = scale_for(sh_code_kernels_chosen()->largest_ratio(a, c->inverse, c->columns));
            end[1] = encode_row(c, a, s->norm2[first + i], end[0], (int8_t *)record);
            end[2] = coding.bias[first + i];
        }
    }
    return SH_OK;
}

/* Makes boxes of panels that there are not: all from first_panel on. */
static void clear_boxes(sh_index *x, int64_t first_panel) {
    for (int64_t panel = first_panel; panel < sh_ceil_div(x->panel_count, SH_GROUP) * SH_GROUP; panel++) {
        float *box = x->boxes + panel / SH_GROUP * SH_GROUP_FLOATS + panel % SH_GROUP;
        for (int i = 0; i < 2 * SH_BOX_COLUMNS; i++) box[i * SH_GROUP] = 0;
        box[2 * SH_BOX_COLUMNS * SH_GROUP] = -INFINITY;
    }
}

sh_status sh_encode_patterns(sh_context *context, sh_index *x, const sh_memory *m, int64_t first_panel) {
    enum { LEAST = 64 }; /* items of a loop, so that many threads share them */
    assert(x->quads * 4 >= x->filter.columns && x->quads * 4 < x->filter.columns + 4);
    assert(!x->records || x->record_bytes >= (size_t)x->refinement.columns + 3 * sizeof(float));
    encoding e = {.index = x, .m = m, .first_panel = first_panel};
    if (!x->base) clear_boxes(x, first_panel);
    size_t scratch = lay_out(x, m, SH_ENCODED_ROWS, NULL, &(encoding_scratch){0});
    int64_t items = sh_ceil_div((x->panel_count - first_panel) * SH_PANEL, SH_ENCODED_ROWS);
    const int64_t step = sh_progress_step(context, items, items, LEAST);
    sh_status status = SH_OK;
    for (; status == SH_OK && e.first_item < items; e.first_item += step) {
        const int64_t some = sh_min(step, items - e.first_item);
        status = sh_for_each(context, some, scratch, encode_item, &e);
        const int64_t slots = first_panel * SH_PANEL + (e.first_item + some) * SH_ENCODED_ROWS;
        if (status == SH_OK) status = sh_progress(context, sh_min(slots, x->patterns), x->patterns);
    }
    return status;
}
