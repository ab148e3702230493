/* retrieval/index/build.c: an index of a memory's patterns. */
#include "retrieval/index/quantise.h"
#include <string.h>

enum {
    FIRST = SH_FIRST,      /* columns of the first line: with radius and bias 64 bytes */
    SECOND = 248,          /* columns of the second line */
    DIRECT = 120,          /* up to so many features are coded as they are */
    SAMPLE = 2048,         /* patterns that the centre and the steps are taken from */
    BASIS_BYTES = 4 << 20, /* of a basis that is never too large */
};

/* not below |xi - mu| of any pattern */
double sh_farthest(const sh_index *x, const sh_memory *m) {
    double reach = m->max_norm + x->centre_norm;
    if (m->centre) reach = fmin(reach, m->max_spread * (1 + 1e-9) + x->first_apart);
    return reach;
}

/* centre, scale, basis, steps: all that comes from a sample */
static sh_status take_sample(sh_context *context, const sh_memory *m, sh_index *x, int want_columns) {
    int64_t n = sh_min(x->patterns, x->d <= SH_LARGEST_GRAM ? SAMPLE : SH_LARGEST_GRAM), d = x->d;
    sh_status status = SH_NO_MEMORY;
    char *work = sh_allocate(context, 1, sh_row_bytes(x, m)), *more = NULL;
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
        row = sh_gather_features(x, m->k, row, work + sh_align((size_t)m->patterns.d * m->k->size));
        m->k->to_double(s, row, d);
        double scale = m->scale ? m->scale[at] : 1;
        for (int64_t j = 0; j < d; j++) x->centre[j] += s[j] * scale / (double)n;
    }
    x->centre2 = sh_kernels_of(SH_FLOAT64)->dot(x->centre, x->centre, d);
    x->centre_norm = sqrt(x->centre2) * (1 + 1e-12);
    const void *first = sh_gather_features(x, m->k, sh_row_at(m->k, &m->patterns, 0, work),
                                           work + sh_align((size_t)m->patterns.d * m->k->size));
    m->k->to_double(s, first, d);
    x->first_apart = sqrt(sh_kernels_of(SH_FLOAT64)->distance2(s, x->centre, d)) * (1 + 1e-9);
    int exponent;
    frexp(sh_farthest(x, m) * (1 + 1e-9), &exponent);
    x->power = ldexp(1, -exponent);
    for (int64_t i = 0; i < n; i++) {
        status = sh_load_pattern(context, x, m, i * x->patterns / n, y + i * d, work, &length2[i]);
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
        direct =
            x->rank < FIRST || !(eta < 0.01) || (x->kind == SH_EITHER && left_out > unstructured && d <= SH_MAX_SUM);
    }
    if (direct) {
        sh_release(context, x->basis);
        x->basis = NULL;
        x->rank = 0;
        if (d > SH_MAX_SUM) {
            status = SH_UNDEFINED;
            goto done;
        }
    }
    x->kind = direct && d > DIRECT ? SH_COLUMNS : want_columns ? SH_COLUMNS : SH_LINES;
    if (!sh_quantiser_new(context, &x->first, direct ? d : FIRST, !direct, eta, d)) goto done;
    int64_t second = direct ? 0 : d <= SECOND ? d : x->rank > FIRST ? x->rank : 0;
    if (second && !sh_quantiser_new(context, &x->second, second, d > SECOND, eta, d)) goto done;
    x->quads = sh_ceil_div(x->first.columns, 4);
    code = sh_allocate(context, sh_max(x->quads * 4, SECOND), 1);
    if (!code) goto done;
    if (x->basis) {
        a = sh_allocate(context, n * x->rank, sizeof(float));
        more = sh_allocate(context, 1, sh_project_bytes(x, n));
        if (!a || !more) goto done;
        sh_project(x, y, n, a, more);
    }
    sh_fit_quantiser(&x->first, 1, direct ? y : a, direct ? d : x->rank, length2, n, code);
    if (second)
        sh_fit_quantiser(&x->second, 0, x->second.rotated ? a : y, x->second.rotated ? x->rank : d, length2, n, code);
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

size_t sh_index_total_bytes(const sh_index *x) {
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
    if (kind == SH_COLUMNS && d > SH_MAX_SUM) return SH_OK;
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
        x->bytes = sh_index_total_bytes(x);
        int fits = x->bytes <= (uint64_t)most; /* of kinds that the patterns chose */
        if (fits) x->groups = sh_allocate(context, sh_ceil_div(n, SH_GROUP), sh_group_bytes(x->quads));
        if (fits && x->line_bytes) x->lines = sh_allocate(context, n, x->line_bytes);
        if (!x->groups || (x->line_bytes && !x->lines)) status = SH_NO_MEMORY;
    }
    if (status == SH_OK) {
        status = sh_quantise_patterns(context, x, m, 0);
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
