/* The separation maps: rows of scores to weights, thresholds, conjugates and gradients, and the order of scores, against
 * their definitions (plain.h) and difference quotients. */
#include "separation/separation.h"
#include "plain.h"

enum { MOST = 400 };
static const sh_model MODELS[] = {{SH_SOFTMAX, 0},   {SH_SPARSEMAX, 0},  {SH_ENTMAX, 1},     {SH_ENTMAX, 1.05},
                                  {SH_ENTMAX, 1.25}, {SH_ENTMAX, 1.5},   {SH_ENTMAX, 2},     {SH_ENTMAX, 3},
                                  {SH_ENTMAX, 7},    {SH_POLYNOMIAL, 1}, {SH_POLYNOMIAL, 4}, {SH_POLYNOMIAL, 9}};
enum { MODEL_COUNT = sizeof MODELS / sizeof *MODELS };
static void *scratch;

static sh_row_op row_of(sh_model m) {
    static const sh_row_op rows[] = {SH_ROW_SPARSEMAX, SH_ROW_SOFTMAX, SH_ROW_ENTMAX, SH_ROW_POLYNOMIAL};
    return rows[m.separation];
}

/* Returns the weights of z, in double, by the library. */
static void weigh(sh_model m, int64_t n, const double *z, double *p) {
    const void *in[] = {z};
    void *out[] = {p};
    CHECK_OK(sh_row(row_of(m), SH_FLOAT64, n, m.parameter, in, out, scratch));
}

static void weights(uint64_t *seed) {
    for (int round = 0; round < 400; round++) {
        const sh_type type = round & 1 ? SH_FLOAT64 : SH_FLOAT32;
        const sh_model m = MODELS[round / 2 % MODEL_COUNT];
        const int64_t n = 1 + (int64_t)((round % 3 ? 20 : MOST - 1) * uniform(seed));
        const double size = pow(10, 3 * uniform(seed) - 2), unit = type == SH_FLOAT64 ? 1e-12 : 1e-6;
        void *z = normals(type, n, size, seed), *p = own(n, size_of(type));
        double exact[MOST] = {0}, want[MOST];
        for (int64_t i = 0; i < n; i++) exact[i] = get(z, type, i);
        if (round % 5 == 0) exact[n / 2] = n > 1 ? -INFINITY : exact[0]; /* a mask */
        put(z, type, n / 2, exact[n / 2]);
        const double tau = plain_weights(m, n, exact, want);
        const void *in[] = {z};
        void *out[] = {p};
        CHECK_OK(sh_row(row_of(m), type, n, m.parameter, in, out, scratch));
        double sum = 0, size_of_all = 0, least = 1;
        int64_t support = 0;
        for (int64_t i = 0; i < n; i++) {
            size_of_all += fabs(want[i]);
            if (want[i] > 0) least = fmin(least, want[i]);
            if (get(p, type, i) > 0) least = fmin(least, get(p, type, i));
        }
        /* beyond alpha = 2 the threshold's last digit moves small weights: p = b^(1 / (alpha - 1)) has the slope
         * p^(2 - alpha) / (alpha - 1) in b */
        const double alpha = plain_alpha(m),
                     wobble = alpha > 2 ? fmin(1, pow(least, 2 - alpha) * 4e-15 * (1 + alpha * size)) : 0;
        for (int64_t i = 0; i < n; i++) {
            const double got = get(p, type, i);
            sum += got;
            support += got > 0;
            CHECK_NEAR(got, want[i], (m.separation == SH_ENTMAX ? 100 : 10) * unit * (1 + size) * size_of_all + wobble);
            if (exact[i] == -INFINITY) CHECK(got == 0);
        }
        CHECK_NEAR(sum, 1, unit * (double)n * size_of_all);
        if (m.separation == SH_POLYNOMIAL) {
            free(z), free(p);
            continue;
        }
        /* thresholds: of sparsemax, else entmax at this alpha (softmax has none) */
        double number[1];
        int64_t count = -1;
        void *both[] = {number, &count};
        if (alpha > 1) {
            const sh_row_op op = m.separation == SH_SPARSEMAX ? SH_ROW_SPARSEMAX_THRESHOLD : SH_ROW_ENTMAX_THRESHOLD;
            CHECK_OK(sh_row(op, type, n, m.parameter, in, both, scratch));
            CHECK_NEAR(get(number, type, 0), tau, unit * (10 + alpha * size * 10));
            CHECK(count == support || (count > support && type == SH_FLOAT32)); /* whose weights may round to 0 */
        }
        static const sh_row_op conjugates[] = {SH_ROW_SPARSEMAX_CONJUGATE, SH_ROW_SOFTMAX_CONJUGATE,
                                               SH_ROW_ENTMAX_CONJUGATE};
        CHECK_OK(sh_row(conjugates[m.separation], type, n, m.parameter, in, both, scratch));
        CHECK_NEAR(get(number, type, 0), plain_conjugate(m, n, exact, want), 100 * unit * (1 + 4 * size));
        free(z), free(p);
    }
}

static void best_few(uint64_t *seed) {
    for (int round = 0; round < 60; round++) {
        const int64_t n = 1 + (int64_t)(50 * uniform(seed)), k = 1 + (int64_t)(10 * uniform(seed));
        double z[64], kept[64], want[64], p[64];
        for (int64_t i = 0; i < n; i++) z[i] = floor(4 * normal(seed)) / 2; /* with ties */
        for (int64_t i = 0; i < n; i++) {
            int64_t better = 0;
            for (int64_t j = 0; j < n; j++) better += z[j] > z[i] || (z[j] == z[i] && j < i);
            kept[i] = better < k ? z[i] : -INFINITY;
        }
        for (int sparse = 0; sparse < 2; sparse++) {
            const void *in[] = {z};
            void *out[] = {p};
            plain_weights((sh_model){sparse ? SH_SPARSEMAX : SH_SOFTMAX, 0}, n, kept, want);
            CHECK_OK(sh_row(sparse ? SH_ROW_TOPK_SPARSEMAX : SH_ROW_TOPK_SOFTMAX, SH_FLOAT64, n, (double)k, in, out,
                            scratch));
            for (int64_t i = 0; i < n; i++) CHECK_NEAR(p[i], want[i], 1e-12);
        }
    }
}

/* Gradients: <g, dp/dz_j> and <g, dp/dalpha> by central differences. */
static void gradients(uint64_t *seed) {
    enum { N = 12 };
    const double h = 1e-6;
    for (int round = 0; round < 5 * MODEL_COUNT; round++) {
        const sh_model m = MODELS[round % MODEL_COUNT];
        double z[N], p[N], g[N], dz[N], up[N], down[N];
        for (int i = 0; i < N; i++) {
            z[i] = normal(seed) * 0.7;
            g[i] = normal(seed);
        }
        weigh(m, N, z, p);
        int smooth = 1; /* away from where the support changes */
        for (int i = 0; i < N; i++) smooth &= p[i] == 0 || p[i] > 1e-3;
        if (!smooth) continue;
        static const sh_row_op vjps[] = {SH_ROW_SPARSEMAX_VJP, SH_ROW_SOFTMAX_VJP, SH_ROW_ENTMAX_VJP,
                                         SH_ROW_POLYNOMIAL_VJP};
        const void *in[] = {m.separation == SH_POLYNOMIAL ? z : p, m.separation == SH_POLYNOMIAL ? p : g, g};
        void *out[] = {dz};
        CHECK_OK(sh_row(vjps[m.separation], SH_FLOAT64, N, m.parameter, in, out, scratch));
        for (int j = 0; j < N; j++) {
            const double at = z[j];
            double quotient = 0;
            z[j] = at + h;
            weigh(m, N, z, up);
            z[j] = at - h;
            weigh(m, N, z, down);
            z[j] = at;
            for (int i = 0; i < N; i++) quotient += g[i] * (up[i] - down[i]) / (2 * h);
            CHECK_NEAR(dz[j], quotient, 1e-4 * (1 + fabs(quotient)));
        }
        if (m.separation != SH_ENTMAX || m.parameter <= 1) continue;
        double quotient = 0, along;
        const void *of[] = {p, g};
        void *to[] = {&along};
        weigh((sh_model){SH_ENTMAX, m.parameter + h}, N, z, up);
        weigh((sh_model){SH_ENTMAX, m.parameter - h}, N, z, down);
        for (int i = 0; i < N; i++) quotient += g[i] * (up[i] - down[i]) / (2 * h);
        CHECK_OK(sh_row(SH_ROW_ENTMAX_VJP_ALPHA, SH_FLOAT64, N, m.parameter, of, to, scratch));
        CHECK_NEAR(along, quotient, 1e-4 * (1 + fabs(quotient)));
    }
}

static void odd_rows(void) {
    for (int op = SH_ROW_SOFTMAX; op <= SH_ROW_TOPK_SPARSEMAX; op++) {
        double p[4];
        void *out[] = {p};
        const double nan[4] = {1, NAN, 0, 2}, masked[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
        const double infinite[4] = {1, INFINITY, 0, INFINITY};
        const double parameter = op == SH_ROW_ENTMAX ? 1.5 : 3;
        CHECK_OK(sh_row((sh_row_op)op, SH_FLOAT64, 4, parameter, (const void *[]){nan}, out, scratch));
        CHECK(isnan(p[0]) && isnan(p[1]) && isnan(p[2]) && isnan(p[3]));
        CHECK_OK(sh_row((sh_row_op)op, SH_FLOAT64, 4, parameter, (const void *[]){masked}, out, scratch));
        CHECK(p[0] == 0 && p[1] == 0 && p[2] == 0 && p[3] == 0);
        CHECK_OK(sh_row((sh_row_op)op, SH_FLOAT64, 4, parameter, (const void *[]){infinite}, out, scratch));
        CHECK(p[0] == 0 && p[1] == 0.5 && p[2] == 0 && p[3] == 0.5);
        CHECK_OK(sh_row((sh_row_op)op, SH_FLOAT64, 0, parameter, (const void *[]){nan}, out, scratch));
    }
    const double z[2] = {1, 2}, wrong[] = {0.99, NAN, -1};
    double p[2];
    for (int i = 0; i < 3; i++) {
        static const sh_row_op ops[] = {SH_ROW_ENTMAX,         SH_ROW_POLYNOMIAL,      SH_ROW_TOPK_SOFTMAX,
                                        SH_ROW_TOPK_SPARSEMAX, SH_ROW_ENTMAX_VJP,      SH_ROW_ENTMAX_VJP_ALPHA,
                                        SH_ROW_POLYNOMIAL_VJP, SH_ROW_ENTMAX_CONJUGATE};
        for (size_t o = 0; o < sizeof ops / sizeof *ops; o++)
            CHECK(sh_row(ops[o], SH_FLOAT64, 2, wrong[i], (const void *[]){z, z, z}, (void *[]){p}, scratch) ==
                  SH_BAD_ARGUMENT);
    }
    CHECK(sh_row(SH_ROW_MAPS, SH_FLOAT64, 2, 1, (const void *[]){z}, (void *[]){p}, scratch) == SH_BAD_ARGUMENT);
    CHECK(sh_row(SH_ROW_SOFTMAX, SH_UINT8, 2, 1, (const void *[]){z}, (void *[]){p}, scratch) == SH_BAD_ARGUMENT);
    CHECK(sh_row(SH_ROW_SOFTMAX, SH_FLOAT64, -1, 1, (const void *[]){z}, (void *[]){p}, scratch) == SH_BAD_ARGUMENT);
}

/* The table: a map with a cutoff has all that belongs to one, the others what carries partial results. */
static void table(void) {
    for (int i = 0; i < MODEL_COUNT; i++) {
        sh_model m = MODELS[i];
        const sh_map *map = sh_map_of(&m);
        if (!CHECK(map != NULL)) continue;
        const int cutoff = plain_alpha(MODELS[i]) > 1;
        CHECK(!!map->cutoff == cutoff && !!map->threshold == cutoff && !!map->weights == cutoff &&
              !!map->bound == cutoff);
        CHECK(!!map->row_scale != cutoff && !!map->row_weights != cutoff && !!map->rescale != cutoff);
        CHECK(map->has_energy == (m.separation != SH_POLYNOMIAL));
        if (cutoff) continue;
        /* weights relative to one scale, brought to another */
        const sh_kernels *k = sh_kernels_of(SH_FLOAT64);
        double a[3] = {1, 2, 3}, b[3] = {1, 2, 3};
        const double low = map->row_weights(k, a, 3, 0.5, m.parameter, 3),
                     high = map->row_weights(k, b, 3, 0.5, m.parameter, 5);
        CHECK_NEAR(low * map->rescale(0.5, m.parameter, 3, 5), high, 1e-12 * high);
    }
    static const sh_model wrong[] = {
        {SH_ENTMAX, 0.9}, {SH_ENTMAX, NAN}, {SH_POLYNOMIAL, 0}, {SH_POLYNOMIAL, 1.5}, {(sh_separation)9, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sh_model m = wrong[i];
        CHECK(sh_map_of(&m) == NULL);
    }
}

/* What holds for every map of the table, with parameters in its range. */
static void every_map(uint64_t *seed) {
    enum { N = 24 };
    static const double tried[] = {1.25, 1.5, 2, 3, 5};
    const double h = 1e-6;
    for (int number = 0; sh_map_numbered(number); number++)
        for (int round = 0; round < 60; round++) {
            sh_model m = {(sh_separation)number, tried[round % 5]};
            const sh_map *named = sh_map_numbered(number);
            if (!named->parameter.name) m.parameter = named->parameter.standard;
            if (named->parameter.whole) m.parameter = ceil(m.parameter);
            const sh_map *map = sh_map_of(&m);
            if (!CHECK(map != NULL)) continue;
            double z[N], p[N], g[N], up[N], down[N], dz[N], sum = 0, top = -INFINITY;
            for (int i = 0; i < N; i++) {
                z[i] = 0.4 * normal(seed) + (named->shift_invariant ? 0 : 2);
                g[i] = normal(seed);
                top = larger(top, z[i]);
            }
            void *out[] = {p}, *above[] = {up}, *below[] = {down}, *gradient[] = {dz};
            const void *in[] = {z}, *of[] = {named->vjp_takes_scores ? z : p, named->vjp_takes_scores ? p : g, g};
            CHECK_OK(sh_map_row(m, SH_ROW_PART_WEIGHTS, SH_FLOAT64, N, in, out, scratch));
            for (int i = 0; i < N; i++) sum += p[i];
            CHECK_NEAR(sum, 1, 1e-13);
            int smooth = 1; /* away from where the support changes */
            for (int i = 0; i < N; i++) smooth &= p[i] == 0 || p[i] > 0.01;
            CHECK_OK(sh_map_row(m, SH_ROW_PART_VJP, SH_FLOAT64, N, of, gradient, scratch));
            for (int j = 0; smooth && j < N; j++) {
                const double at = z[j];
                double quotient = 0, size = 0, psi[2];
                z[j] = at + h;
                CHECK_OK(sh_map_row(m, SH_ROW_PART_WEIGHTS, SH_FLOAT64, N, in, above, scratch));
                if (map->has_energy)
                    CHECK_OK(sh_map_row(m, SH_ROW_PART_CONJUGATE, SH_FLOAT64, N, in, (void *[]){psi}, scratch));
                z[j] = at - h;
                CHECK_OK(sh_map_row(m, SH_ROW_PART_WEIGHTS, SH_FLOAT64, N, in, below, scratch));
                if (map->has_energy)
                    CHECK_OK(sh_map_row(m, SH_ROW_PART_CONJUGATE, SH_FLOAT64, N, in, (void *[]){psi + 1}, scratch));
                z[j] = at;
                for (int i = 0; i < N; i++) {
                    quotient += g[i] * (up[i] - down[i]) / (2 * h);
                    size += fabs(up[i] - down[i]) / (2 * h);
                    smooth &= (up[i] > 0) == (down[i] > 0);
                }
                if (!smooth) break;
                CHECK_NEAR(dz[j], quotient, 1e-5 * (1 + size));
                if (map->has_energy) CHECK_NEAR((psi[0] - psi[1]) / (2 * h), p[j], 1e-6); /* its gradient is p */
            }
            if (!map->cutoff) continue;
            /* no score at the cutoff has weight; and scores outside the support change no bit */
            double shorter[N], again[N];
            int64_t support = 0;
            for (int i = 0; i < N; i++) CHECK(!(p[i] > 0 && top - z[i] >= map->cutoff(m.parameter)));
            for (int i = 0; i < N; i++)
                if (p[i] > 0) shorter[support++] = z[i];
            CHECK_OK(sh_map_row(m, SH_ROW_PART_WEIGHTS, SH_FLOAT64, support, (const void *[]){shorter},
                                (void *[]){again}, scratch));
            for (int i = 0, at = 0; i < N; i++)
                if (p[i] > 0) CHECK(again[at++] == p[i]);
            sh_threshold t;
            for (int i = 0; i < N; i++) shorter[i] = z[i] - top;
            const double bound = map->bound(m.parameter, N, shorter);
            map->threshold(m.parameter, N, shorter, &t);
            CHECK(bound <= t.tau / t.unit);
        }
}

static int compare_falling(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void order(uint64_t *seed) {
    for (int round = 0; round < 200; round++) {
        const int64_t n = 1 + (int64_t)(MOST * uniform(seed)) % MOST, k = 1 + (int64_t)((double)n * uniform(seed));
        double z[MOST], sorted[MOST], again[MOST];
        sh_candidate c[MOST];
        for (int64_t i = 0; i < n; i++) {
            z[i] = round % 3 == 0 ? floor(3 * normal(seed)) : round % 3 == 1 ? (double)i : normal(seed);
            c[i] = (sh_candidate){z[i], i};
            sorted[i] = again[i] = z[i];
        }
        qsort(sorted, (size_t)n, sizeof *sorted, compare_falling);
        sh_sort_descending(again, n);
        CHECK(!memcmp(sorted, again, (size_t)n * sizeof *sorted));
        memcpy(again, z, (size_t)n * sizeof *z);
        CHECK(sh_kth_largest(again, n, k) == sorted[k - 1]);
        CHECK(sh_select_top(c, n, k) == k);
        CHECK(sh_select_top(c, k, n + 5) == k);
        int64_t below = 0, ties = 0, first_ties = 0; /* those at the k-th score are the first in position */
        for (int64_t i = 0; i < k; i++) {
            below += c[i].score < sorted[k - 1] || c[i].score != z[c[i].position];
            ties += c[i].score == sorted[k - 1];
        }
        for (int64_t j = 0, left = ties; left > 0 && j < n; j++)
            if (z[j] == sorted[k - 1]) {
                for (int64_t i = 0; i < k; i++) first_ties += c[i].position == j;
                left--;
            }
        CHECK(below == 0 && first_ties == ties);
    }
}

/* Sorts many numbers, and few, of all kinds of spread: even, in clusters, falling by factors, beside one far off, and equal. */
static void order_many(uint64_t *seed) {
    enum { MANY = 6000 };
    double *z = own(MANY, sizeof *z), *sorted = own(MANY, sizeof *sorted);
    for (int round = 0; round < 120; round++) {
        const int64_t n = round % 4 ? 1 + (int64_t)((round % 4 == 1 ? 1100 : MANY - 1) * uniform(seed)) : MANY;
        for (int64_t i = 0; i < n; i++) {
            const double x = normal(seed);
            switch (round % 10) {
            case 0: z[i] = x; break;
            case 1: z[i] = floor(3 * x) + 1e-13 * normal(seed); break;
            case 2: z[i] = -ldexp(1, -(int)(i % 1000)); break;
            case 3: z[i] = i ? -1 + 1e-9 * x : 0; break;
            case 4: z[i] = i % 500 ? -1e300 * uniform(seed) : 0; break;
            case 5: z[i] = (double)i; break;
            case 6: z[i] = -(double)i; break;
            case 7: z[i] = 1; break;
            case 8: z[i] = x < 1 ? x : -INFINITY; break;
            default: z[i] = x * x * x * 0x1p-1070; break;
            }
            sorted[i] = z[i];
        }
        qsort(sorted, (size_t)n, sizeof *sorted, compare_falling);
        sh_sort_descending(z, n);
        int64_t equal = 0;
        for (int64_t i = 0; i < n; i++) equal += z[i] == sorted[i];
        CHECK(equal == n);
    }
    free(z);
    free(sorted);
}

int main(void) {
    uint64_t seed = 1;
    CHECK_OK(sh_initialise());
    scratch = own(1, (int64_t)sh_row_scratch(MOST));
    weights(&seed);
    best_few(&seed);
    gradients(&seed);
    odd_rows();
    table();
    every_map(&seed);
    order(&seed);
    order_many(&seed);
    free(scratch);
    return checked("separation");
}
