/* retrieval/index/bounds.c: bounds on scores from 8-bit codes, with their proofs.
 *
 * Rows are shifted by a centre and scaled by a power of two: y = (xi - mu) 2^-e of a pattern, w = (x - mu) 2^-e of a
 * query, |y| <= 1. Then
 *
 *     score = 2^2e (<w, y> + B) + C,     B = 2^-2e (<xi - mu, mu> + b), the bias; of euclidean scores -|y|^2 / 2
 *                                        C = <x, mu>, the query's constant; of scores by distance -|x - mu|^2 / 2
 *
 * where b is the memory's own bias. B is computed from rows in double: it may be much smaller than what rounding y
 * changes it by. With features left out, euclidean ones have b in B too, and C = <x, mu> - |x|^2 / 2.
 *
 * What is to be bounded is <w, y>. Let the rows of V be (nearly) orthonormal, a = V y and b = V w.
 *
 *   Rotation           <w, y> <= <b, a> + r_w r_y + eta |b| |a|, r^2 = |.|^2 - |V .|^2 and eta = |V V^T - I|_F, by
 *                      Cauchy and Schwarz for what lies outside of V's rows
 *   Codes of patterns  a_j is stored as an integer q_j, a_j ~ s t_j q_j, which changes <b, a> by at most
 *                      |b| |a - s t q|; s is the scale that the patterns of a panel share, or that of a record
 *   Codes of queries   b_j t_j is rounded to h p_j, p_j an integer, which changes it by at most |b t - h p| |s q|
 *   Rounding           computed columns are off by at most e |y| or e |w| (note 1), sums in float32 as in note 3
 *
 * So <w, y> <= h s <p, q> + sum over c of P_c Q_c, each term a number of the query times a number of the pattern:
 *
 *         c        P (query)                           Q (pattern)
 *         0        r_w                                 r_y
 *         1        |b| + e |w|                         |a - s t q| + e |y|
 *         2        |b t - h p| + 8 u h |p|             |s q|
 *         3        (e + eta (1 + eta)^2) |w|           max(|y|, |s t q|)
 *
 * By Cauchy and Schwarz once more, weighted, sum P_c Q_c <= R_w R_y with R_w^2 = sum P_c^2 / weight_c and R_y^2 = sum
 * weight_c Q_c^2: one number a pattern and a query, their error radii. Any weights are right; those near mean P / mean
 * Q are tight.
 *
 * Refinement codes are multiplied by b t itself: then p = b t, h = 1, and P_2 is the rounding of that sum alone.
 *
 * Notes  1. e: products with V are float32 sums of at most SH_SLAB features, added in double, so each column is off by
 *           at most g(SH_SLAB + 4) |V_j| |y| (any order; Higham 2002, section 3.1), all K together by sqrt(K) times
 *           that. Without V, the features themselves are off by u, their one rounding.
 *        2. phi: |V y|^2 is known up to 2 e, and (I - V^T V) is a projector up to eta, so r_y^2 is taken as
 *           |y|^2 - |a|^2 + phi |y|^2 with phi = 2 e (1 + eta + e) + eta (1 + eta) + rounding of the double sums.
 *           So r_y is never near 0. Exact arithmetic is not worth its time: 61.9 rows are scored in place of 64.9.
 *        3. The kernels' float32: h s <p, q> to within 8 u h |p| |s q| (c = 2), R_w R_y to 8 u of itself (error radii
 *           are made larger by 2^-19), B to 8 u |B| (added when it is stored, rounded up). The double s t q is off by
 *           2^-52 of itself, which is added to |a - s t q|.
 *        4. Canonical scores (rescore.c), biases and constants are sums in double: slack is four times their bound.
 *        5. Products too small for float32: |w| is below 2^60, or the query is left to the scan; below 2^-60 it is taken
 *           as that much, which is an upper bound, and all that follows is within 2^60 of 1; the threshold is lowered by
 *           (1 + |w|) 2^-90, more than all that may flush to zero.
 *        6. Lower bounds: every step bounds |<w, y> - h s <p, q>|, so h s <p, q> - R_w R_y + B is a bound, too. The B that
 *           is stored may be 10 u |B| above the true one; 24 u |B| are taken off, which covers the rounding of note 3.
 *
 * Boxes bound all patterns of a panel at once, by a few columns a = V y (here V is those rows alone, or of the unit
 * matrix) and what lies outside of them. The exact columns A and B of a pattern and a query are within e of computed ones
 * (note 1), and |(I - P) y|^2, P the projector on V's rows, is within phi |y|^2 of |y|^2 - |a|^2, with phi as in note 2
 * but twice eta (1 + eta): |A|^2 is |P y|^2 up to a factor between 1 - eta and 1 + eta. So each of the 7 numbers lies in an
 * interval, and a box is what holds those of all its patterns.
 *
 *   By distance        <w, y> - |y|^2 / 2 = |w|^2 / 2 - |w - y|^2 / 2, and with z = w - y
 *                      |z|^2 = |P z|^2 + |(I - P) z|^2 >= |V z|^2 / (1 + eta) + (|(I - P) w| - |(I - P) y|)^2,
 *                      each square at least that of how far the query's interval and the box are apart
 *   By products        <w, y> + B <= <B, A> + r_w r_y + eta |B| |A| + B, as for codes; <B, A> <= <b, A> + e' |w| |A|, where
 *                      e' = sqrt(6) e; and b_j A_j is at most that of the end of the box on b_j's side. |y| <= 1
 *
 * Notes  7. The kernel takes 1 - 2^-12 of half the squares. That covers 1 + eta (no basis of eta >= 2^-14 is used) and its
 *           rounding, which is relative to them, and to |w|^2 / 2, which is taken 2^-20 larger.
 *        8. By products: at most 9 u for each of 7 products, whose sum is below 3.6 |w| in size: 64 u |w| are added; 2 u |B|
 *           are in the bias as it is stored (note 3), and what the largest bias of a panel bounds, it bounds with them.
 */
#include "retrieval/index/quantise.h"
#include <assert.h>
#include <float.h>
#include <string.h>

/* --- the terms and the error radii ---------------------------------------------------------------- */

/* Returns r (note 2), not below the norm of what lies outside of the basis' rows; 0 of features themselves. */
static double residual_norm(const sh_quantiser *c, double norm2, const float *a) {
    return c->rotated ? sqrt(fmax(0, norm2 - sh_norm2(a, c->columns)) + c->phi * norm2) : 0;
}

void sh_pattern_terms(const sh_quantiser *c, const float *a, double norm2, float scale, sh_code_loss loss,
                      double q[4]) {
    double norm = sqrt(norm2), decoded = sqrt(loss.decoded2);
    q[0] = residual_norm(c, norm2, a);
    q[1] = sqrt(loss.error2) + 0x1p-50 * decoded + c->projection_error * norm;
    q[2] = (double)scale * sqrt(loss.code2);
    q[3] = fmax(norm, decoded);
}

void sh_query_terms(const sh_quantiser *c, const float *b, double norm, double code_error, double p[4]) {
    p[0] = residual_norm(c, norm * norm, b);
    p[1] = sqrt(sh_norm2(b, c->columns)) + c->projection_error * norm;
    p[2] = code_error;
    p[3] = (c->projection_error + c->eta * (1 + c->eta) * (1 + c->eta)) * norm;
}

double sh_error_radius(const double term[4], const double weight[4], int of_query) {
    double sum = 0;
    for (int c = 0; c < 4; c++) sum += of_query ? term[c] * term[c] / weight[c] : term[c] * term[c] * weight[c];
    return sqrt(sum) * (1 + 0x1p-19);
}

double sh_encode_query(const sh_quantiser *c, const float *b, int8_t *code, float *step, int32_t *start) {
    double largest = 0, error2 = 0, code2 = 0;
    int32_t sum = 0;
    for (int64_t j = 0; j < c->columns; j++) { /* no fmax here: GCC 12 for aarch64 fails to vectorise it, and stops */
        const double scaled = fabs((double)b[j] * (double)c->step[j]);
        largest = scaled > largest ? scaled : largest;
    }
    float h = (float)(largest / 127);
    if (h < 0x1p-120f) h = 0;
    double inverse = h > 0 ? 1 / (double)h : 0;
    for (int64_t j = 0; j < c->columns; j++) {
        double scaled = (double)b[j] * (double)c->step[j], p = rint(scaled * inverse);
        p = p > 127 ? 127 : p < -127 ? -127 : p;
        code[j] = (int8_t)p;
        sum += (int32_t)p;
        code2 += p * p;
        error2 += (scaled - (double)h * p) * (scaled - (double)h * p);
    }
    memset(code + c->columns, 0, (size_t)(-c->columns & 3));
    *step = h;
    *start = -128 * sum;
    return sqrt(error2) * (1 + 1e-12) + 8 * 0x1p-24 * (double)h * sqrt(code2);
}

/* --- boxes ---------------------------------------------------------------------------------------- */

void sh_box_intervals(const sh_index *x, const sh_coding_scratch *s, int64_t i, double *least, double *most) {
    const float *a = x->basis ? s->a + i * x->rank : s->y + i * x->d;
    double norm2 = s->norm2[i], error = x->box_error * sqrt(norm2), outside2 = norm2;
    for (int c = 0; c < SH_BOX_COLUMNS - 1; c++) {
        double column = c < x->box_columns ? (double)a[x->box_column[c]] : 0,
               own_error = c < x->box_columns ? error : 0;
        least[c] = column - own_error;
        most[c] = column + own_error;
        outside2 -= column * column;
    }
    least[SH_BOX_COLUMNS - 1] = sqrt(fmax(outside2 - x->box_phi * norm2, 0));
    most[SH_BOX_COLUMNS - 1] = sqrt(fmax(outside2, 0) + x->box_phi * norm2);
}

/* --- queries -------------------------------------------------------------------------------------- */

void sh_take_query_codes(sh_workspace *w, const sh_index *x, const sh_memory *m, int64_t rows, sh_query_codes *codes) {
    sh_take_rows(w, x, m, rows, &codes->scratch);
    sh_take_products(w, rows, x->rank, &codes->scratch);
    codes->filter = sh_take(w, rows * x->quads * 4, 1);
    codes->scaled = sh_take(w, rows * x->refinement.columns, sizeof *codes->scaled);
    codes->query = sh_take(w, rows, sizeof *codes->query);
}

/* Computes the constant of a query, whose row is in the compute type, and its slack. */
static void set_constant(const sh_index *x, const sh_job *job, const void *row, double *in_double, sh_query_code *q) {
    const sh_memory *m = job->memory;
    const sh_kernels *doubles = sh_kernels_of(SH_FLOAT64);
    double relative = (double)(m->patterns.d + 16) * 0x1p-51;
    m->k->to_double(in_double, row, x->d);
    if (sh_has_distance_bias(x, m) && sh_by_distance(job)) {
        double distance2 = doubles->distance2(in_double, x->centre, x->d), distance = sqrt(distance2) + 1 / x->scaling;
        q->constant = -distance2 / 2;
        q->slack = relative * distance * distance;
    } else {
        double dot = doubles->dot(in_double, x->centre, x->d), raw2 = m->k->dot(row, row, x->d);
        double norm = sqrt(raw2) * (1 + 1e-9), centre_norm2 = x->centre_norm2,
               half = sh_by_distance(job) ? raw2 / 2 : 0;
        q->constant = dot - (sh_has_distance_bias(x, m) ? centre_norm2 / 2 : 0) - half;
        q->slack =
            relative * ((norm + x->centre_norm) * (m->max_norm + x->centre_norm) + m->max_bias + centre_norm2 + half);
    }
}

/* Computes a query as boxes take it. */
static void set_box(const sh_index *x, const sh_coding_scratch *s, int64_t i, sh_box_query *q) {
    double least[SH_BOX_COLUMNS], most[SH_BOX_COLUMNS], norm2 = s->norm2[i], start = norm2 / 2 * (1 + 0x1p-20);
    sh_box_intervals(x, s, i, least, most);
    if (!x->boxes_by_distance) {
        const float *b = x->basis ? s->a + i * x->rank : s->y + i * x->d;
        for (int64_t c = 0; c < x->box_columns; c++) least[c] = most[c] = (double)b[x->box_column[c]];
        double eta = x->filter.eta;
        start = ((2.5 * x->box_error + eta) * (1 + eta) * (1 + eta) + 64 * 0x1p-24) * sqrt(norm2);
    }
    for (int c = 0; c < SH_BOX_COLUMNS; c++) {
        q->least[c] = -sh_round_up(-least[c]);
        q->most[c] = sh_round_up(most[c]);
    }
    q->start = sh_round_up(start);
}

void sh_encode_queries(const sh_index *x, const sh_job *job, const int64_t *queries, int64_t first, int64_t rows,
                       sh_query_codes *codes) {
    const sh_memory *m = job->memory;
    sh_coding_scratch *s = &codes->scratch;
    for (int64_t i = 0; i < rows; i++) {
        sh_query_code *q = &codes->query[i];
        const void *row = sh_used_features(x, m->k, sh_query(job, queries ? queries[i] : first + i), s);
        s->norm2[i] = m->k->centre(s->y + i * x->d, row, 1, x->centre, x->scaling, x->d);
        set_constant(x, job, row, s->in_double, q);
        double norm = fmax(sqrt(s->norm2[i]), 0x1p-60); /* note 5 */
        int usable = norm < 0x1p60 && q->slack < 0x1p900;
        q->norm = usable ? norm : 0;
        q->refined_error = NAN;
    }
    if (x->basis) sh_project(x, rows, x->rank, s);
    for (int64_t i = 0; i < rows; i++) {
        sh_query_code *q = &codes->query[i];
        if (q->norm == 0) continue;
        const float *b = sh_columns(x, &x->filter, s, i);
        double term[4], error = sh_encode_query(&x->filter, b, codes->filter + i * x->quads * 4, &q->step, &q->start);
        sh_query_terms(&x->filter, b, q->norm, error, term);
        q->error_radius = sh_round_up(sh_error_radius(term, x->filter.weight, 1));
        set_box(x, s, i, &q->box);
    }
}

void sh_refine_query(const sh_index *x, sh_query_codes *codes, int64_t i) {
    const sh_quantiser *c = &x->refinement;
    sh_query_code *q = &codes->query[i];
    if (q->refined_error == q->refined_error) return;
    const float *b = sh_columns(x, c, &codes->scratch, i);
    float *scaled = codes->scaled + i * c->columns;
    for (int64_t j = 0; j < c->columns; j++) scaled[j] = b[j] * c->step[j];
    /* as in note 3, but for the sum of K products of an integer and a rounded number */
    double error = 1.1 * sh_roundoff((double)c->columns + 8) * sqrt(sh_norm2(scaled, c->columns)), term[4];
    sh_query_terms(c, b, q->norm, error, term);
    q->refined_error = sh_round_up(sh_error_radius(term, c->weight, 1));
}

/* --- bounds --------------------------------------------------------------------------------------- */

/* Returns what is taken off for the bias as it is stored (note 6). */
static float bias_error(float bias) { return 0x1.8p-20f * fabsf(bias); }

void sh_filter_lower_bounds(const sh_index *x, const sh_query_codes *codes, int64_t row, const int32_t *slot, int64_t n,
                            const float *upper, float *lower) {
    float query_error = codes->query[row].error_radius;
    for (int64_t i = 0; i < n; i++) {
        uint8_t *panel = x->panels + (size_t)(slot[i] / SH_PANEL) * sh_panel_bytes(x->quads);
        const float *error = sh_panel_errors(panel, x->quads) + slot[i] % SH_PANEL, *bias = error + SH_PANEL;
        lower[i] = upper[i] - (2 * query_error * *error + bias_error(*bias));
    }
}

void sh_refined_bounds(const sh_index *x, const sh_query_codes *codes, int64_t row, const int32_t *slot, int64_t n,
                       float *upper, float *lower) {
    float query_error = codes->query[row].refined_error;
    int64_t columns = x->refinement.columns;
    assert(query_error == query_error); /* sh_refine_query was here */
    sh_code_kernels_chosen()->record_dots(x->records, x->record_bytes, slot, n, codes->scaled + row * columns, columns,
                                          upper);
    for (int64_t i = 0; i < n; i++) {
        const char *record = x->records + (size_t)slot[i] * x->record_bytes;
        const float *end = (const float *)(const void *)(record + x->record_bytes - 12);
        float dot = upper[i] * end[0], error = query_error * end[1], bias = end[2];
        upper[i] = dot + (error + bias);
        lower[i] = dot - (error - (bias - bias_error(bias)));
    }
}

float sh_bound_threshold(const sh_index *x, const sh_query_code *q, double score) {
    double scaled = ((score - q->constant) - q->slack - 0x1p-50 * (fabs(score) + fabs(q->constant)));
    scaled = scaled * x->scaling * x->scaling - (1 + q->norm) * 0x1p-90;
    if (!(scaled > -FLT_MAX)) return -FLT_MAX;
    float f = (float)scaled;
    return (double)f > scaled ? nextafterf(f, -INFINITY) : f;
}

double sh_score_lower_bound(const sh_index *x, const sh_query_code *q, float lower) {
    double least = ((double)lower - (1 + q->norm) * 0x1p-90) / (x->scaling * x->scaling) + q->constant;
    return least - q->slack - 0x1p-50 * (fabs(least) + fabs(q->constant));
}

/* Returns the upper bound of a panel's box for a query. */
static float box_bound(const sh_index *x, const sh_box_query *q, int64_t panel) {
    float bounds[SH_GROUP];
    int32_t best[SH_GROUP]; /* of one group: each panel is the best at its place */
    sh_code_kernels_chosen()->best_panels(sh_group(x, panel / SH_GROUP), 1, x->boxes_by_distance, q, bounds, best);
    return bounds[panel % SH_GROUP];
}

/* Returns the canonical score that a pattern of this upper bound cannot exceed. */
static double score_upper_bound(const sh_index *x, const sh_query_code *q, float upper) {
    return ((double)upper + (1 + q->norm) * 0x1p-90) / (x->scaling * x->scaling) + q->slack + q->constant;
}

sh_filter_query sh_start_list(const sh_index *x, const sh_query_codes *codes, int64_t row, float threshold,
                              int32_t *slot, float *bound) {
    const sh_query_code *q = &codes->query[row];
    return (sh_filter_query){.code = codes->filter + row * x->quads * 4,
                             .start = q->start,
                             .step = q->step,
                             .error_radius = q->error_radius,
                             .box = q->box,
                             .threshold = threshold,
                             .slot = slot,
                             .bound = bound};
}

typedef struct {
    sh_query_codes codes;
    int32_t *slot;
    float *bound;
} item_scratch;

static size_t lay_out(const sh_index *x, const sh_memory *m, void *memory, item_scratch *s) {
    sh_workspace w = {memory, 0};
    sh_take_query_codes(&w, x, m, 1, &s->codes);
    s->slot = sh_take(&w, x->panel_count * SH_PANEL, sizeof *s->slot);
    s->bound = sh_take(&w, x->panel_count * SH_PANEL, sizeof *s->bound);
    return w.used;
}

sh_status sh_index_bounds(const sh_job *job, const sh_index *x, double *bounds) {
    item_scratch s;
    void *memory = sh_allocate(job->context, 1, lay_out(x, job->memory, NULL, &s));
    if (!memory) return sh_fail(job->context, SH_NO_MEMORY, NULL, 0);
    lay_out(x, job->memory, memory, &s);
    for (int64_t i = 0; i < job->queries.n; i++) {
        double *out = bounds + i * 3 * x->patterns;
        for (int64_t j = 0; j < 3 * x->patterns; j++) out[j] = j % 3 == 2 ? -INFINITY : INFINITY;
        sh_encode_queries(x, job, NULL, i, 1, &s.codes);
        const sh_query_code *q = s.codes.query;
        if (q->norm == 0) continue;
        sh_filter_query list = sh_start_list(x, &s.codes, 0, -FLT_MAX, s.slot, s.bound), *listed = &list;
        sh_code_kernels_chosen()->filter(x->panels, x->scales, x->quads, 0, x->panel_count, &listed, 1);
        if (x->records) sh_refine_query(x, &s.codes, 0);
        for (int64_t j = 0; j < list.found; j++) {
            float refined = list.bound[j], lower;
            if (x->records)
                sh_refined_bounds(x, &s.codes, 0, &list.slot[j], 1, &refined, &lower);
            else
                sh_filter_lower_bounds(x, &s.codes, 0, &list.slot[j], 1, &list.bound[j], &lower);
            if (x->order[list.slot[j]] < 0) continue;
            double *pattern = out + 3 * (int64_t)x->order[list.slot[j]];
            float box = box_bound(x, &q->box, list.slot[j] / SH_PANEL);
            pattern[0] = score_upper_bound(x, q, list.bound[j] < box ? list.bound[j] : box);
            pattern[1] = score_upper_bound(x, q, refined);
            pattern[2] = sh_score_lower_bound(x, q, lower);
        }
    }
    sh_release(job->context, memory);
    return SH_OK;
}
