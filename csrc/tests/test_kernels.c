/* The inner loops of the instruction set that is chosen, in both precisions, against plain loops: bit for bit where that is
 * promised (canonical products, conversions, lists), else within the rounding of a sum. `make check` runs it once for
 * each instruction set. */
#include "kernels/kernels.h"
#include "kernels/codes.h"
#include "kernels/lanes.h"
#include "plain.h"
#include "runtime/runtime.h"
#include "separation/separation.h"

enum { MOST = 300 };
static uint64_t seed = 3;
static sh_context context = {.threads = 1};
static const sh_type TYPES[] = {SH_FLOAT32, SH_FLOAT64};

static double unit_of(sh_type type) { return type == SH_FLOAT64 ? 0x1p-53 : 0x1p-24; }

/* Returns n numbers on a line of the cache, for the life of the test. */
static void *numbers(sh_type type, int64_t n, double size) {
    void *x = sh_allocate(&context, n + 64, size_of(type));
    if (!x) exit(2);
    for (int64_t i = 0; i < n + 64; i++) put(x, type, i, i < n ? size * normal(&seed) : 0);
    return x;
}

/* The canonical sum: 32 interleaved partial sums, then a tree. */
static double canonical(const double *terms, int64_t n) {
    double sum[32] = {0};
    for (int64_t i = 0; i < n; i++) sum[i % 32] += terms[i];
    for (int half = 16; half; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}

static void canonical_sums(const sh_kernels *k, sh_type type, int64_t n) {
    void *x = numbers(type, n, 1), *y = numbers(type, n, 1e3);
    double terms[MOST];
    for (int64_t i = 0; i < n; i++) terms[i] = get(x, type, i) * get(y, type, i);
    CHECK(k->dot(x, y, n) == canonical(terms, n));
    for (int64_t i = 0; i < n; i++) {
        const double d = get(x, type, i) - get(y, type, i);
        terms[i] = d * d;
    }
    CHECK(k->distance2(x, y, n) == canonical(terms, n));
    sh_release(&context, x), sh_release(&context, y);
}

static void maxima_and_lists(const sh_kernels *k, sh_type type, int64_t n) {
    void *s = numbers(type, n, 1), *scale = numbers(type, n, 1), *bias = numbers(type, n, 1), *t = numbers(type, n, 1);
    double top = -INFINITY, largest = 0, sum = 0, size = 0, squares = 0, best[64];
    for (int64_t i = 0; i < n; i++) {
        const double x = get(s, type, i);
        top = larger(top, x), largest = larger(largest, fabs(x)), sum += x, size += fabs(x), squares += x * x;
    }
    CHECK(k->maximum(s, n, NULL) == top && k->maximum(s, n, best) == top);
    double best_of_parts = -INFINITY;
    for (int l = 0; l < k->lanes; l++) best_of_parts = larger(best_of_parts, get(best, type, l));
    CHECK(k->lanes <= 64 && best_of_parts <= top);
    if (n % k->lanes == 0) CHECK(best_of_parts == top); /* else the last few are in no part */
    if (n) CHECK(k->max_abs(s, n) == largest);
    CHECK_NEAR(k->sum(s, n), sum, (double)n * 0x1p-53 * size);
    CHECK_NEAR(k->squares(s, n), squares, (double)(n + 2) * unit_of(type) * squares);

    const double threshold = n ? get(s, type, n / 2) : 0; /* one score lies on it */
    sh_candidate list[MOST];
    double values[MOST];
    int32_t indices[MOST];
    const int64_t found = k->collect(s, n, threshold, 1000, list), kept = k->compress(s, n, threshold, values, indices);
    int64_t want = 0;
    for (int64_t i = 0; i < n; i++) {
        if (get(s, type, i) < threshold) continue;
        CHECK(want < found && list[want].position == 1000 + i && list[want].score == get(s, type, i));
        CHECK(want < kept && indices[want] == i && get(values, type, want) == get(s, type, i));
        want++;
    }
    CHECK(found == want && kept == want && k->count(s, n, threshold) == want);

    for (int which = 0; which < 4; which++) { /* with a scale, with a bias */
        memcpy(t, s, (size_t)n * k->size);
        const double got = k->affine_max(t, which & 1 ? scale : NULL, which & 2 ? bias : NULL, 0.5, n);
        double most = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            double x = get(s, type, i) * (which & 1 ? get(scale, type, i) : 1);
            if (which & 2) x += get(bias, type, i) + 0.5;
            CHECK_NEAR(get(t, type, i), x, 4 * unit_of(type) * 20);
            most = larger(most, get(t, type, i));
        }
        CHECK(got == most);
    }
    if (n) {
        put(s, type, n - 1, NAN);
        CHECK(isnan(k->maximum(s, n, NULL)) && isnan(k->max_abs(s, n)) && isnan(k->affine_max(s, NULL, NULL, 0, n)));
    }
    sh_release(&context, s), sh_release(&context, scale), sh_release(&context, bias), sh_release(&context, t);
}

static void conversions(const sh_kernels *k, sh_type type, int64_t n) {
    void *x = numbers(type, n, 1);
    double y[MOST], before[MOST];
    k->to_double(y, x, n);
    for (int64_t i = 0; i < n; i++) CHECK(y[i] == get(x, type, i));
    for (int64_t i = 0; i < n; i++) y[i] = before[i] = normal(&seed);
    k->accumulate(y, 0.3, x, n);
    for (int64_t i = 0; i < n; i++) {
        volatile double product = 0.3 * get(x, type, i);
        CHECK(y[i] == before[i] + product);
    }
    k->from_double(x, before, n);
    for (int64_t i = 0; i < n; i++)
        CHECK(get(x, type, i) == (type == SH_FLOAT64 ? before[i] : (double)(float)before[i]));
    uint8_t bytes[MOST];
    uint16_t halves[MOST];
    for (int64_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)(256 * uniform(&seed));
        halves[i] = (uint16_t)(65536 * uniform(&seed));
        if ((halves[i] & 0x7C00) == 0x7C00) halves[i] = 0x3C00; /* infinities and NaN: 1 */
    }
    k->from_uint8(x, bytes, n, 0.1f);
    for (int64_t i = 0; i < n; i++) CHECK(get(x, type, i) == (double)((float)bytes[i] * 0.1f));
    k->from_float16(x, halves, n, 3);
    for (int64_t i = 0; i < n; i++) {
        const int exponent = halves[i] >> 10 & 31, mantissa = halves[i] & 1023;
        const double half = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        CHECK(get(x, type, i) == (double)((float)(halves[i] & 0x8000 ? -half : half) * 3));
    }
    double centre[MOST];
    float centred[MOST];
    for (int64_t i = 0; i < n; i++) {
        put(x, type, i, normal(&seed));
        centre[i] = normal(&seed);
    }
    double squares = 0;
    const double sum = k->centre(centred, x, 1.5, centre, 0.25, n);
    for (int64_t i = 0; i < n; i++) {
        CHECK_NEAR(centred[i], (get(x, type, i) * 1.5 - centre[i]) * 0.25, 0x1p-23);
        squares += (double)centred[i] * (double)centred[i];
    }
    CHECK_NEAR(sum, squares, 0x1p-22 * squares); /* of the numbers before they were rounded */
    sh_release(&context, x);
}

static void maps_of_rows(const sh_kernels *k, sh_type type, int64_t n) {
    void *s = numbers(type, n, 2), *t = numbers(type, n, 1), *f = numbers(type, n, 1);
    const double unit = unit_of(type), top = n ? k->maximum(s, n, NULL) : 0;
    double sum = 0, size = 0;
    memcpy(t, s, (size_t)n * k->size);
    double got = k->exponentiate(t, n, 1.5, top);
    for (int64_t i = 0; i < n; i++) {
        const double e = exp(1.5 * (get(s, type, i) - top));
        CHECK_NEAR(get(t, type, i), e, 40 * unit * e + 1e-300);
        sum += get(t, type, i);
    }
    CHECK_NEAR(got, sum, (double)(n + 1) * 0x1p-53 * sum);
    memcpy(t, s, (size_t)n * k->size);
    sum = 0;
    got = k->power(t, n, 5, 3);
    for (int64_t i = 0; i < n; i++) {
        const double p = pow(get(s, type, i) / 3, 5);
        CHECK_NEAR(get(t, type, i), p, 20 * unit * fabs(p));
        sum += get(t, type, i), size += fabs(get(t, type, i));
    }
    CHECK_NEAR(got, sum, (double)(n + 1) * 0x1p-53 * size);
    memcpy(t, s, (size_t)n * k->size);
    k->multiply(t, f, n);
    for (int64_t i = 0; i < n; i++)
        CHECK_NEAR(get(t, type, i), get(s, type, i) * get(f, type, i), unit * fabs(get(t, type, i)));
    memcpy(t, s, (size_t)n * k->size);
    k->multiply_by(t, 0.3, n);
    for (int64_t i = 0; i < n; i++)
        CHECK_NEAR(get(t, type, i), get(s, type, i) * 0.3, 3 * unit * fabs(get(s, type, i)));
    memcpy(t, s, (size_t)n * k->size);
    k->divide(t, 0.3, n);
    for (int64_t i = 0; i < n; i++)
        CHECK_NEAR(get(t, type, i), get(s, type, i) / 0.3, 9 * unit * fabs(get(s, type, i)));
    memcpy(t, s, (size_t)n * k->size);
    k->add(t, -0.5, f, n);
    for (int64_t i = 0; i < n; i++)
        CHECK_NEAR(get(t, type, i), get(s, type, i) - 0.5 * get(f, type, i), 3 * unit * (8 + fabs(get(s, type, i))));
    sh_release(&context, s), sh_release(&context, t), sh_release(&context, f);
}

static void mixtures(const sh_kernels *k, sh_type type, int64_t n) {
    enum { WIDTH = 21, STRIDE = 23, ROWS = 40 };
    void *rows = numbers(type, ROWS * STRIDE, 1), *w = numbers(type, n, 1), *y = numbers(type, WIDTH, 1);
    int32_t indices[MOST];
    double want[WIDTH], size[WIDTH];
    for (int c = 0; c < WIDTH; c++) want[c] = get(y, type, c), size[c] = fabs(want[c]);
    for (int64_t i = 0; i < n; i++) {
        indices[i] = (int32_t)(ROWS * uniform(&seed));
        for (int c = 0; c < WIDTH; c++) {
            const double term = get(w, type, i) * get(rows, type, indices[i] * STRIDE + c);
            want[c] += term, size[c] += fabs(term);
        }
    }
    k->mix(y, WIDTH, w, indices, n, rows, STRIDE);
    for (int c = 0; c < WIDTH; c++) CHECK_NEAR(get(y, type, c), want[c], (double)(n + 2) * unit_of(type) * size[c]);
    double column[WIDTH] = {0};
    k->columns(column, rows, ROWS, WIDTH);
    for (int c = 0; c < WIDTH; c++) {
        double sum = 0;
        for (int i = 0; i < ROWS; i++) sum += get(rows, type, i * WIDTH + c);
        CHECK_NEAR(column[c], sum, 200 * unit_of(type));
    }
    sh_release(&context, rows), sh_release(&context, w), sh_release(&context, y);
}

/* Features of elu + 1: phi(u) = exp(min(u, 0)) (1 + max(u, 0)), less the largest exponents. */
static void features(const sh_kernels *k, sh_type type, int64_t size) {
    enum { N = 7 };
    if (size == 0) return;
    const double root = 0.7, unit = unit_of(type);
    void *x = numbers(type, N * size, 1), *y = numbers(type, N * size, 0), *most = numbers(type, size, 0);
    double less[MOST], *e = own(N * size, sizeof *e), row_less[N];
    memcpy(y, x, (size_t)(N * size) * k->size);
    for (int i = 0; i < N; i++) row_less[i] = normal(&seed);
    k->peaks(y, size, N, size, row_less, most);
    for (int64_t f = 0; f < size; f++) {
        double top = -INFINITY;
        for (int i = 0; i < N; i++) top = larger(top, get(x, type, i * size + f) - row_less[i]);
        CHECK_NEAR(get(most, type, f), top, 16 * unit);
        less[f] = -0.2 + 0.2 * uniform(&seed);
    }
    for (int64_t f = 0; f < size; f++) less[f] = 0.1; /* above every exponent, as those of relu's sums are */
    k->features(y, x, size, root, NULL, N, size, less);
    for (int64_t i = 0; i < N * size; i++) {
        const double u = root * get(x, type, i), phi = exp(fmin(u, 0) - 0.1) * (1 + larger(u, 0));
        CHECK_NEAR(get(y, type, i), phi, 40 * unit * phi);
    }
    k->mixing(y, x, size, root, e, N, size, less, 1);
    for (int i = 0; i < N; i++) {
        double sum = 0, want = 0;
        for (int64_t f = 0; f < size; f++) {
            const double u = root * get(x, type, i * size + f);
            want += exp(fmin(u, 0) + less[f]) * (1 + larger(u, 0));
            sum += get(y, type, i * size + f);
        }
        CHECK_NEAR(sum, 1, 100 * unit);
        const double u = root * get(x, type, i * size), first = exp(fmin(u, 0) + less[0]) * (1 + larger(u, 0)) / want;
        CHECK_NEAR(get(y, type, i * size), first, 100 * unit);
    }
    k->relu(y, x, size, e, N, size, NULL, 0);
    for (int64_t i = 0; i < N * size; i++) CHECK(get(y, type, i) == larger(get(x, type, i), 0));
    sh_release(&context, x), sh_release(&context, y), sh_release(&context, most);
    free(e);
}

/* --- codes ------------------------------------------------------------------------------------------ */

static void codes(void) {
    enum { PANELS = 3, QUADS = 5, COLUMNS = 4 * QUADS, QUERIES = 6, ALL = PANELS * SH_PANEL };
    const sh_code_kernels *k = sh_code_kernels_chosen();
    const size_t bytes = sh_panel_bytes(QUADS);
    uint8_t *panels = sh_allocate(&context, PANELS, bytes);
    static int8_t code[QUERIES][COLUMNS], own_code[ALL][COLUMNS];
    static float radius[ALL], bias[ALL], bound[QUERIES][ALL];
    static int32_t slot[QUERIES][ALL];
    static const float scales[PANELS] = {1, 0.5f, 3};
    sh_filter_query q[QUERIES], *list[QUERIES];
    if (!panels) exit(2);
    for (int i = 0; i < ALL; i++) {
        uint8_t *panel = panels + (size_t)(i / SH_PANEL) * bytes;
        float *error = (float *)(void *)(panel + QUADS * 4 * SH_PANEL);
        for (int c = 0; c < COLUMNS; c++) {
            own_code[i][c] = (int8_t)(255 * uniform(&seed) - 127);
            panel[c / 4 * 4 * SH_PANEL + i % SH_PANEL * 4 + c % 4] = (uint8_t)(own_code[i][c] + 128);
        }
        error[i % SH_PANEL] = radius[i] = (float)uniform(&seed);
        error[SH_PANEL + i % SH_PANEL] = bias[i] = (float)normal(&seed);
    }
    for (int n = 0; n < QUERIES; n++) {
        int32_t sum = 0;
        for (int c = 0; c < COLUMNS; c++) sum += code[n][c] = (int8_t)(255 * uniform(&seed) - 127);
        q[n] = (sh_filter_query){.code = code[n],
                                 .start = -128 * sum,
                                 .step = 1e-5f,
                                 .error_radius = 0.5f,
                                 .threshold = 0.4f,
                                 .slot = slot[n],
                                 .bound = bound[n]};
        list[n] = &q[n];
    }
    k->filter(panels, scales, QUADS, 0, PANELS, list, QUERIES);
    for (int n = 0; n < QUERIES; n++) {
        int64_t at = 0, sure = 0;
        for (int i = 0; i < ALL; i++) {
            double product = 0;
            for (int c = 0; c < COLUMNS; c++) product += code[n][c] * own_code[i][c];
            const double want =
                1e-5f * (double)scales[i / SH_PANEL] * product + 0.5 * (double)radius[i] + (double)bias[i];
            if (at < q[n].found && slot[n][at] == i)
                CHECK_NEAR(bound[n][at++], want, 1e-5);
            else
                CHECK(want < (double)0.4f + 1e-5);
            sure += want > (double)0.4f + 1e-5;
        }
        CHECK(at == q[n].found && sure <= q[n].found && sure > 0 && q[n].found < ALL);
    }
    sh_release(&context, panels);

    float a[COLUMNS], step[COLUMNS], inverse[COLUMNS], dots[ALL], b[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) {
        a[c] = (float)normal(&seed);
        b[c] = (float)normal(&seed);
        step[c] = 0.01f;
        inverse[c] = 1 / step[c];
    }
    const float scale = 2;
    a[COLUMNS - 1] = -90;
    CHECK(k->largest_ratio(a, inverse, COLUMNS) == 90 * inverse[0]);
    CHECK(k->largest_ratio(a, inverse, COLUMNS - 1) < 10 * inverse[0]);
    a[3] = 100; /* is clipped */
    CHECK(k->largest_ratio(a, inverse, COLUMNS) == 100 * inverse[0]);
    int8_t coded[COLUMNS];
    const sh_code_loss left = k->encode(a, step, inverse, scale, COLUMNS, coded);
    double error2 = 0, decoded2 = 0, code2 = 0;
    for (int c = 0; c < COLUMNS; c++) {
        const double decoded = coded[c] * (double)scale * (double)step[c];
        CHECK(fabsf(a[c]) > 10 ? coded[c] == (a[c] > 0 ? 127 : -127)
                               : fabs((double)a[c] - decoded) <= 0.0101 || abs(coded[c]) == 127);
        error2 += ((double)a[c] - decoded) * ((double)a[c] - decoded);
        decoded2 += decoded * decoded;
        code2 += coded[c] * coded[c];
    }
    CHECK_NEAR(left.error2, error2, 1e-6 * error2);
    CHECK_NEAR(left.decoded2, decoded2, 1e-6 * decoded2);
    CHECK(left.code2 == code2);

    enum { RECORD = 64 };
    char *records = sh_allocate(&context, ALL, RECORD);
    int32_t order[ALL];
    if (!records) exit(2);
    memset(records, 0, (size_t)ALL * RECORD);
    for (int i = 0; i < ALL; i++) {
        memcpy(records + i * RECORD, own_code[i], COLUMNS);
        order[i] = (i * 7) % ALL;
    }
    k->record_dots(records, RECORD, order, ALL, b, COLUMNS, dots);
    for (int i = 0; i < ALL; i++) {
        double sum = 0, size = 0;
        for (int c = 0; c < COLUMNS; c++) {
            const double term = (double)b[c] * own_code[order[i]][c];
            sum += term, size += fabs(term);
        }
        CHECK_NEAR(dots[i], sum, 30 * 0x1p-24 * size);
    }
    sh_release(&context, records);
}

/* Bounds of boxes, some of which hold the query, and of panels that there are not. */
static void boxes(void) {
    enum { TRIALS = 20, GROUPS = 3, QUERIES = 3, COLUMNS = SH_BOX_COLUMNS, MISSING = 7 };
    const sh_code_kernels *k = sh_code_kernels_chosen();
    for (int t = 0; t < 2 * TRIALS; t++) {
        const int by_distance = t % 2;
        float group[GROUPS][2 * COLUMNS + 1][SH_GROUP];
        for (int g = 0; g < GROUPS; g++)
            for (int l = 0; l < SH_GROUP; l++) {
                for (int c = 0; c < COLUMNS; c++) {
                    group[g][2 * c][l] = (float)normal(&seed) - (float)(l % 3);
                    group[g][2 * c + 1][l] = group[g][2 * c][l] + (float)(l % 3 * 2 * uniform(&seed));
                }
                const int missing = l == MISSING && (g == 1 || t > TRIALS);
                group[g][2 * COLUMNS][l] = missing ? -INFINITY : (float)normal(&seed);
            }
        sh_filter_query q[QUERIES], *list[QUERIES];
        for (int n = 0; n < QUERIES; n++) {
            list[n] = &q[n];
            q[n] = (sh_filter_query){.threshold = (float)normal(&seed)};
            q[n].box.start = (float)normal(&seed);
            for (int c = 0; c < COLUMNS; c++) {
                q[n].box.least[c] = (float)normal(&seed);
                q[n].box.most[c] = q[n].box.least[c] + (by_distance ? (float)uniform(&seed) : 0);
            }
        }
        uint16_t open[GROUPS][QUERIES];
        for (int g = 0; g < GROUPS; g++) k->open_panels(&group[g][0][0], by_distance, list, QUERIES, open[g]);
        for (int n = 0; n < QUERIES; n++) {
            const sh_box_query *b = &q[n].box;
            float best[SH_GROUP];
            int32_t panel[SH_GROUP];
            k->best_panels(&group[0][0][0], GROUPS, by_distance, b, best, panel);
            for (int l = 0; l < SH_GROUP; l++) {
                double most = -INFINITY;
                for (int g = 0; g < GROUPS; g++) {
                    double want = (double)b->start + (double)group[g][2 * COLUMNS][l];
                    for (int c = 0; c < COLUMNS; c++) {
                        const double from = (double)group[g][2 * c][l], to = (double)group[g][2 * c + 1][l];
                        const double below = from - (double)b->most[c], above = (double)b->least[c] - to;
                        const double apart = larger(larger(below, above), 0);
                        want += by_distance ? -(0.5 - 0x1p-13) * apart * apart
                                            : larger((double)b->most[c] * from, (double)b->most[c] * to);
                    }
                    const double over = want - (double)q[n].threshold;
                    CHECK(fabs(over) < 1e-5 || (open[g][n] >> l & 1) == (over > 0));
                    CHECK(panel[l] != g * SH_GROUP + l || fabs((double)best[l] - want) < 1e-5);
                    most = larger(most, want);
                }
                if (isinf(most))
                    CHECK(panel[l] == -1 && isinf(best[l]));
                else
                    CHECK(panel[l] % SH_GROUP == l && panel[l] < GROUPS * SH_GROUP), CHECK_NEAR(best[l], most, 1e-5);
            }
        }
    }
}

/* --- lanes ------------------------------------------------------------------------------------------ */

static void lane_products(const sh_lanes *k, sh_type type) {
    enum { ROWS = 30, D = 32, LD = 35, LISTED = 11 };
    const int64_t L = k->lanes;
    const double unit = 50 * unit_of(type);
    int32_t list[LISTED];
    for (int i = 0; i < LISTED; i++) list[i] = 1 + 2 * i;
    void *rows = numbers(type, ROWS * LD, 1), *u = numbers(type, D * L, 1), *s = numbers(type, ROWS * L, 1),
         *z = numbers(type, D * L, 1), *before = numbers(type, ROWS * LD, 0), *x = numbers(type, L * D, 1);
    for (int listed = 0; listed < 2; listed++) {
        const int64_t n = listed ? LISTED : ROWS;
        const int32_t *which = listed ? list : NULL;
        k->scores(rows, LD, which, n, D, u, s, L);
        for (int64_t i = 0; i < n; i++)
            for (int64_t l = 0; l < L; l++) {
                double sum = 0;
                for (int c = 0; c < D; c++)
                    sum += get(rows, type, (listed ? list[i] : i) * LD + c) * get(u, type, c * L + l);
                CHECK_NEAR(get(s, type, i * L + l), sum, unit * D);
            }
        k->mix(rows, LD, which, n, D, s, L, z);
        for (int c = 0; c < D; c++)
            for (int64_t l = 0; l < L; l++) {
                double sum = 0, size = 0;
                for (int64_t i = 0; i < n; i++) {
                    const double term = get(s, type, i * L + l) * get(rows, type, (listed ? list[i] : i) * LD + c);
                    sum += term, size += fabs(term);
                }
                CHECK_NEAR(get(z, type, c * L + l), sum, unit * size);
            }
        memcpy(before, rows, (size_t)(ROWS * LD) * k->size);
        k->spread(s, L, which, n, x, D, rows, LD);
        for (int64_t i = 0; i < n; i++)
            for (int c = 0; c < D; c++) {
                const int64_t at = (listed ? list[i] : i) * LD + c;
                double sum = get(before, type, at), size = fabs(sum);
                for (int64_t l = 0; l < L; l++) {
                    const double term = get(s, type, i * L + l) * get(x, type, l * D + c);
                    sum += term, size += fabs(term);
                }
                CHECK_NEAR(get(rows, type, at), sum, unit * size);
            }
    }
    sh_release(&context, rows), sh_release(&context, u), sh_release(&context, s), sh_release(&context, z);
    sh_release(&context, before), sh_release(&context, x);
}

/* Each map's weights of every lane, by `finish` and by `weights` of the rows that it lists. */
static void lane_maps(const sh_lanes *k, sh_type type) {
    enum { N = 40 };
    static const struct {
        sh_model model;
        sh_lane_form form;
    } maps[] = {{{SH_SPARSEMAX, 2}, SH_LANES_SPARSEMAX},
                {{SH_SOFTMAX, 1}, SH_LANES_SOFTMAX},
                {{SH_ENTMAX, 1.5}, SH_LANES_ENTMAX},
                {{SH_ENTMAX, 1.25}, SH_LANES_ENTMAX},
                {{SH_POLYNOMIAL, 3}, SH_LANES_POLYNOMIAL}};
    const int64_t L = k->lanes;
    void *s = numbers(type, N * L, 1), *changed = numbers(type, N * L, 0), *p = numbers(type, N * L, 0);
    void *th = numbers(type, 2 * L, 0), *best = numbers(type, L, 0), *few = numbers(type, N * L, 0);
    int32_t list[N + 16];
    for (int64_t l = 0; l < L; l += 3) put(s, type, 5 * L + l, -INFINITY); /* a mask */
    for (size_t which = 0; which < sizeof maps / sizeof *maps; which++) {
        const sh_model m = maps[which].model;
        const sh_lane_map *map = &k->map[maps[which].form];
        const int full = plain_alpha(m) <= 1; /* all rows have weight, and none are listed */
        memcpy(changed, s, (size_t)(N * L) * k->size);
        const int64_t n = map->threshold(changed, L, N, m.parameter, th, list, best);
        CHECK(n > 0 && n <= N && (!full || n == N));
        map->finish(changed, L, full ? NULL : list, full ? N : n, m.parameter, th, p, L);
        if (!full) map->weights(s, L, list, n, m.parameter, th, few, L);
        for (int64_t l = 0; l < L; l++) {
            double z[N], want[N], found[N] = {0}, again[N] = {0};
            for (int i = 0; i < N; i++) z[i] = get(s, type, i * L + l);
            plain_weights(m, N, z, want);
            for (int64_t i = 0; i < (full ? N : n); i++) {
                found[full ? i : list[i]] = get(p, type, i * L + l);
                if (!full) again[list[i]] = get(few, type, i * L + l);
            }
            for (int i = 0; i < N; i++) {
                CHECK_NEAR(found[i], want[i], 1e3 * unit_of(type));
                if (!full) CHECK_NEAR(again[i], want[i], 1e3 * unit_of(type));
            }
        }
    }
    sh_release(&context, s), sh_release(&context, changed), sh_release(&context, p), sh_release(&context, th);
    sh_release(&context, best), sh_release(&context, few);
}

int main(void) {
    CHECK_OK(sh_initialise());
    for (int t = 0; t < 2; t++) {
        const sh_kernels *k = sh_kernels_of(TYPES[t]);
        CHECK(k->size == size_of(TYPES[t]) && k->unit == unit_of(TYPES[t]));
        static const int64_t sizes[] = {0, 1, 3, 7, 8, 15, 16, 31, 32, 33, 64, 100, 257, MOST};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            canonical_sums(k, TYPES[t], sizes[i]);
            maxima_and_lists(k, TYPES[t], sizes[i]);
            conversions(k, TYPES[t], sizes[i]);
            maps_of_rows(k, TYPES[t], sizes[i]);
            mixtures(k, TYPES[t], sizes[i]);
            features(k, TYPES[t], sizes[i]);
        }
        for (int wide = 0; wide < 2; wide++) {
            const sh_lanes *lanes = sh_lanes_for(TYPES[t], wide ? 16 : 1);
            CHECK(lanes->size == size_of(TYPES[t]));
            lane_products(lanes, TYPES[t]);
            lane_maps(lanes, TYPES[t]);
        }
    }
    codes();
    boxes();
    printf("%s: ", sh_simd_level());
    return checked("kernels");
}
