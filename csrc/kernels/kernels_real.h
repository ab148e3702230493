/* kernels_real.h: the kernels of one precision R with suffix S; included twice by kernels.c. */
#define NAME(f) SH_CAT(f##_, S)
#define V NAME(v)
#define IV NAME(i)
#define GE_MASK SH_CAT(GE_MASK_, S)
#define MAX SH_CAT(MAX_, S)
#define FMA SH_CAT(FMA_, S)
enum { NAME(LANES) = VECTOR / sizeof(R) };
#define LANES NAME(LANES)
typedef V NAME(unaligned) __attribute__((aligned(sizeof(R)), may_alias));
#define LOAD(p) (*(const NAME(unaligned) *)(p))
#define STORE(p, x) (*(NAME(unaligned) *)(p) = (x))
#define ALL SH_CAT(ALL_, S)

enum { NAME(UNROLL) = 4 };
#define UNROLL NAME(UNROLL)
/* Puts into each lane of `all` the larger of it and the lane whose number differs in `bit`. */
#define OTHER(l) (((l) ^ BIT) % LANES)
#define MAX_WITH_OTHER(bit)                                                                                            \
    if (bit < LANES) {                                                                                                 \
        enum { BIT = bit };                                                                                            \
        all = MAX(all, SH_SHUFFLE(IV, all, all, SH_EACH(SH_CAT(COUNT_, S), OTHER)));                                   \
    }
static double NAME(maximum)(const void *row, int64_t n, void *parts) {
    /* UNROLL independent maxima, or each would wait for the one before */
    const R *s = row;
    V m[UNROLL];
    IV bad[UNROLL] = {0};
    for (int u = 0; u < UNROLL; u++) m[u] = ALL((R)-INFINITY);
    int64_t j = 0;
    for (; j + UNROLL * LANES <= n; j += UNROLL * LANES)
        for (int u = 0; u < UNROLL; u++) {
            V x = LOAD(s + j + u * LANES);
            bad[u] |= x != x;
            m[u] = MAX(x, m[u]);
        }
    if (parts)
        for (int u = 0; u < UNROLL; u++) STORE((R *)parts + u * LANES, m[u]);
    V all = MAX(MAX(m[0], m[1]), MAX(m[2], m[3]));
    MAX_WITH_OTHER(8)
    MAX_WITH_OTHER(4)
    MAX_WITH_OTHER(2)
    MAX_WITH_OTHER(1)
    /* all bits set, as in a lane that saw one, is a NaN; and NaN >= 0 is false */
    V any = (V)((bad[0] | bad[1]) | (bad[2] | bad[3]));
    int nan = GE_MASK(any, ALL(0)) != (uint32_t)((UINT64_C(1) << LANES) - 1);
    R best = all[0];
    for (; j < n; j++) {
        nan |= s[j] != s[j];
        best = s[j] > best ? s[j] : best;
    }
    return nan ? (double)NAN : (double)best;
}

static double NAME(affine_max)(void *row, const void *scale_row, const void *bias_row, double shift, int64_t n) {
    R *s = row;
    if (scale_row) {
        const R *scale = scale_row;
        for (int64_t j = 0; j < n; j++) s[j] *= scale[j];
    }
    if (bias_row) {
        const R *bias = bias_row, constant = (R)shift;
        for (int64_t j = 0; j < n; j++) s[j] = s[j] + bias[j] + constant;
    }
    return NAME(maximum)(s, n, NULL);
}

/* Returns the largest R that is not above t. */
static inline R NAME(round_down)(double t) {
    R r = (R)t;
    if ((double)r > t) r = sizeof(R) == 4 ? (R)nextafterf((float)r, -INFINITY) : (R)nextafter((double)r, -INFINITY);
    return r;
}

/* Returns bits: which of 64 numbers are at or above t. */
static inline uint64_t NAME(mask)(const R *s, R t) {
    uint64_t mask = 0;
    for (int l = 0; l < 64; l += LANES) mask |= (uint64_t)GE_MASK(LOAD(s + l), ALL(t)) << l;
    return mask;
}

static int64_t NAME(collect)(const void *row, int64_t n, double threshold, int64_t base, sh_candidate *out) {
    const R *s = row, t = NAME(round_down)(threshold);
    int64_t found = 0, j = 0;
    for (; j + 64 <= n; j += 64)
        for (uint64_t mask = NAME(mask)(s + j, t); mask; mask &= mask - 1) {
            int64_t i = j + __builtin_ctzll(mask);
            out[found++] = (sh_candidate){(double)s[i], base + i};
        }
    for (; j < n; j++)
        if (s[j] >= t) out[found++] = (sh_candidate){(double)s[j], base + j};
    return found;
}

static int64_t NAME(count)(const void *row, int64_t n, double threshold) {
    const R *s = row, t = NAME(round_down)(threshold);
    int64_t found = 0, j = 0;
    for (; j + 64 <= n; j += 64) found += __builtin_popcountll(NAME(mask)(s + j, t));
    for (; j < n; j++) found += s[j] >= t;
    return found;
}

static double NAME(dot)(const void *left, const void *right, int64_t n) {
    enum { SUMS = 32 };
    const R *x = left, *y = right;
    double sum[SUMS] = {0};
    int64_t j = 0;
    for (; j + SUMS <= n; j += SUMS)
        for (int l = 0; l < SUMS; l++) sum[l] += (double)x[j + l] * (double)y[j + l];
    for (int l = 0; j < n; j++, l++) sum[l] += (double)x[j] * (double)y[j];
    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}

static void NAME(accumulate)(double *y, double w, const void *row, int64_t n) {
    const R *x = row;
    for (int64_t j = 0; j < n; j++) y[j] += w * (double)x[j];
}

static void NAME(to_double)(double *y, const void *row, int64_t n) {
    const R *x = row;
    for (int64_t j = 0; j < n; j++) y[j] = (double)x[j];
}

static void NAME(from_double)(void *row, const double *x, int64_t n) {
    R *y = row;
    for (int64_t j = 0; j < n; j++) y[j] = (R)x[j];
}

static void NAME(from_uint8)(void *row, const uint8_t *x, int64_t n, float scale) {
    R *y = row;
    for (int64_t j = 0; j < n; j++) y[j] = (R)((float)x[j] * scale);
}

static void NAME(from_float16)(void *row, const uint16_t *x, int64_t n, float scale) {
    R *y = row;
    for (int64_t j = 0; j < n; j++) y[j] = (R)(float16(x[j]) * scale);
}

static double NAME(sum)(const void *row, int64_t n) {
    const R *s = row;
    enum { SUMS = 32 };
    double sum[SUMS] = {0}, total = 0;
    int64_t j = 0;
    for (; j + SUMS <= n; j += SUMS)
        for (int l = 0; l < SUMS; l++) sum[l] += (double)s[j + l];
    for (int l = 0; j < n; j++, l++) sum[l] += (double)s[j];
    for (int l = 0; l < SUMS; l++) total += sum[l];
    return total;
}

static double NAME(exponentiate)(void *row, int64_t n, double beta, double max) {
    R *s = row, b = (R)beta, m = (R)max;
    int64_t j = 0;
    if (sizeof(R) < sizeof(double) && !(beta > 0x1p-100 && beta < 0x1p100)) { /* beta leaves the range of R */
        for (; j < n; j++) s[j] = (R)exp(beta * ((double)s[j] - max));
        return NAME(sum)(s, n);
    }
    /* beta (s - max) may pass the range of R downwards: -inf is fine, and inf * 0 cannot come, as s <= max. */
    for (; j + LANES <= n; j += LANES) STORE(s + j, NAME(exp)((LOAD(s + j) - m) * b));
    if (j < n) {
        V x = ALL((R)0);
        for (int64_t l = 0; l < n - j; l++) x[l] = (s[j + l] - m) * b;
        x = NAME(exp)(x);
        for (int64_t l = 0; l < n - j; l++) s[j + l] = x[l];
    }
    return NAME(sum)(s, n);
}

static int64_t NAME(compress)(const void *row, int64_t n, double threshold, void *value_row, int32_t *indices) {
    const R *s = row, t = NAME(round_down)(threshold);
    R *values = value_row;
    int64_t found = 0, j = 0;
    for (; j + 64 <= n; j += 64)
        for (uint64_t mask = NAME(mask)(s + j, t); mask; mask &= mask - 1) {
            int64_t i = j + __builtin_ctzll(mask);
            values[found] = s[i];
            indices[found++] = (int32_t)i;
        }
    for (; j < n; j++)
        if (s[j] >= t) {
            values[found] = s[j];
            indices[found++] = (int32_t)j;
        }
    return found;
}

static void NAME(mix)(void *out, int64_t width, const void *weights, const int32_t *indices, int64_t n,
                      const void *rows, int64_t stride) {
    enum { TOGETHER = 4 }; /* rows for each time that y is loaded and stored */
    R *y = out;
    const R *w = weights, *x = rows;
    int64_t i = 0;
    for (; i + TOGETHER <= n; i += TOGETHER) {
        const R *r[TOGETHER];
        V v[TOGETHER];
        for (int l = 0; l < TOGETHER; l++) {
            r[l] = x + indices[i + l] * stride;
            v[l] = ALL(w[i + l]);
        }
        int64_t j = 0;
        for (; j + LANES <= width; j += LANES) {
            V sum = LOAD(y + j);
            for (int l = 0; l < TOGETHER; l++) sum = FMA(v[l], LOAD(r[l] + j), sum);
            STORE(y + j, sum);
        }
        for (; j < width; j++)
            for (int l = 0; l < TOGETHER; l++) y[j] += w[i + l] * r[l][j];
    }
    for (; i < n; i++)
        for (int64_t j = 0; j < width; j++) y[j] += w[i] * x[indices[i] * stride + j];
}

static double NAME(power)(void *row, int64_t n, int64_t order, double scale) {
    enum { CHUNK = 256 };
    R *s = row, base[CHUNK], inverse = (R)(1 / scale), divisor = (R)scale;
    for (int64_t start = 0; start < n; start += CHUNK) {
        int64_t m = n - start < CHUNK ? n - start : CHUNK;
        R *r = s + start;
        if (isinf(inverse))
            for (int64_t j = 0; j < m; j++) base[j] = r[j] / divisor;
        else
            for (int64_t j = 0; j < m; j++) base[j] = r[j] * inverse;
        for (int64_t j = 0; j < m; j++) r[j] = 1;
        for (int64_t e = order; e; e >>= 1) { /* by repeated squaring */
            if (e & 1)
                for (int64_t j = 0; j < m; j++) r[j] *= base[j];
            for (int64_t j = 0; j < m; j++) base[j] *= base[j];
        }
    }
    return NAME(sum)(s, n);
}

static double NAME(max_abs)(const void *row, int64_t n) {
    const R *s = row;
    V m[UNROLL] = {ALL(0), ALL(0), ALL(0), ALL(0)};
    IV bad = {0};
    int64_t j = 0;
    for (; j + UNROLL * LANES <= n; j += UNROLL * LANES)
        for (int u = 0; u < UNROLL; u++) {
            V x = LOAD(s + j + u * LANES);
            bad |= x != x;
            m[u] = MAX(MAX(x, -x), m[u]);
        }
    V all = MAX(MAX(m[0], m[1]), MAX(m[2], m[3]));
    double largest = 0;
    for (int l = 0; l < LANES; l++) {
        if (bad[l]) return NAN;
        largest = all[l] > largest ? (double)all[l] : largest;
    }
    for (; j < n; j++) {
        double a = fabs((double)s[j]);
        if (a != a) return NAN;
        largest = a > largest ? a : largest;
    }
    return largest;
}

static void NAME(multiply)(void *row, const void *factor_row, int64_t n) {
    R *s = row;
    const R *factor = factor_row;
    for (int64_t j = 0; j < n; j++) s[j] *= factor[j];
}

static void NAME(multiply_by)(void *row, double factor, int64_t n) {
    R *s = row, f = (R)factor;
    for (int64_t j = 0; j < n; j++) s[j] *= f;
}

static double NAME(distance2)(const void *left, const void *right, int64_t n) {
    enum { SUMS = 32 };
    const R *x = left, *y = right;
    double sum[SUMS] = {0};
    int64_t j = 0;
    for (; j + SUMS <= n; j += SUMS)
        for (int l = 0; l < SUMS; l++) {
            double d = (double)x[j + l] - (double)y[j + l];
            sum[l] += d * d;
        }
    for (int l = 0; j < n; j++, l++) {
        double d = (double)x[j] - (double)y[j];
        sum[l] += d * d;
    }
    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}

static double NAME(centre)(float *y, const void *row, double scale, const double *centre, double power, int64_t n) {
    enum { SUMS = 32 };
    const R *x = row;
    double sum[SUMS] = {0}, total = 0;
    int64_t j = 0;
    for (; j + SUMS <= n; j += SUMS)
        for (int l = 0; l < SUMS; l++) {
            double d = ((double)x[j + l] * scale - centre[j + l]) * power;
            y[j + l] = (float)d;
            sum[l] += d * d;
        }
    for (int l = 0; j < n; j++, l++) {
        double d = ((double)x[j] * scale - centre[j]) * power;
        y[j] = (float)d;
        sum[l] += d * d;
    }
    for (int l = 0; l < SUMS; l++) total += sum[l];
    return total;
}

static double NAME(squares)(const void *row, int64_t n) {
    const R *s = row;
    V sum[UNROLL] = {0};
    int64_t j = 0;
    for (; j + UNROLL * LANES <= n; j += UNROLL * LANES)
        for (int u = 0; u < UNROLL; u++) {
            V x = LOAD(s + j + u * LANES);
            sum[u] = FMA(x, x, sum[u]);
        }
    V all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    R total = 0;
    for (int l = 0; l < LANES; l++) total += all[l];
    for (; j < n; j++) total += s[j] * s[j];
    return (double)total;
}

static void NAME(divide)(void *row, double by, int64_t n) {
    R *s = row, divisor = (R)by;
    for (int64_t j = 0; j < n; j++) s[j] /= divisor;
}

static void NAME(peaks)(void *rows, int64_t ld, int64_t n, int64_t size, const double *less, void *peaks) {
    R *x = rows, *most = peaks;
    for (int64_t f = 0; f < size; f++) most[f] = (R)-INFINITY;
    for (int64_t i = 0; i < n; i++, x += ld) {
        if (less) {
            const R l = (R)less[i];
            for (int64_t f = 0; f < size; f++) x[f] -= l;
        }
        for (int64_t f = 0; f < size; f++) most[f] = x[f] > most[f] ? x[f] : most[f];
    }
}

/* Computes features of one row from exponents e, less a row or a number, and factors of x (kernels.h). */
enum { NAME(CHUNK) = 64 };
static inline void NAME(powers)(R *y, const R *x, double root, const double *e, const double *less, double shift,
                                int64_t size) {
    R power[NAME(CHUNK)], factor[NAME(CHUNK)];
    for (int64_t first = 0; first < size; first += NAME(CHUNK)) {
        const int64_t n = size - first < NAME(CHUNK) ? size - first : NAME(CHUNK), full = n / LANES * LANES;
        const double *exponent = e + first;
        if (less) {
            const double *l = less + first;
            for (int64_t j = 0; j < n; j++) power[j] = (R)(exponent[j] - l[j]);
        } else
            for (int64_t j = 0; j < n; j++) power[j] = (R)(exponent[j] - shift);
        for (int64_t j = n; j < full + LANES && j < NAME(CHUNK); j++) power[j] = 0;
        for (int64_t j = 0; j < n; j += LANES) STORE(power + j, NAME(exp)(LOAD(power + j)));
        if (x) {
            for (int64_t j = 0; j < n; j++) {
                double scaled = root * (double)x[first + j];
                factor[j] = (R)(scaled > 0 ? scaled : 0) + 1;
            }
            for (int64_t j = 0; j < n; j++) y[first + j] = power[j] * factor[j];
        } else
            for (int64_t j = 0; j < n; j++) y[first + j] = power[j];
    }
}

static inline void NAME(elu)(double *e, const R *x, double root, int64_t size) {
    for (int64_t f = 0; f < size; f++) {
        double scaled = root * (double)x[f];
        e[f] = scaled < 0 ? scaled : 0;
    }
}

static void NAME(features)(void *to, const void *rows, int64_t ld, double root, const double *e, int64_t n,
                           int64_t size, const double *less) {
    R *y = to;
    const R *x = rows;
    if (!x) {
        for (int64_t i = 0; i < n; i++) NAME(powers)(y + i * size, NULL, root, e + i * size, less, 0, size);
        return;
    }
    double exponent[NAME(CHUNK)];
    for (int64_t i = 0; i < n; i++, x += ld, y += size)
        for (int64_t f = 0; f < size; f += NAME(CHUNK)) {
            const int64_t chunk = size - f < NAME(CHUNK) ? size - f : NAME(CHUNK);
            NAME(elu)(exponent, x + f, root, chunk);
            NAME(powers)(y + f, x + f, root, exponent, less + f, 0, chunk);
        }
}

static void NAME(mixing)(void *to, const void *rows, int64_t ld, double root, double *e, int64_t n, int64_t size,
                         const double *more, int normed) {
    R *y = to;
    const R *x = rows;
    for (int64_t i = 0; i < n; i++, y += size) {
        double *row = x ? e : e + i * size;
        if (x) NAME(elu)(row, x + i * ld, root, size);
        const double peak = add_and_peak(row, more, size);
        NAME(powers)(y, x ? x + i * ld : NULL, root, row, NULL, peak > -INFINITY ? peak : 0, size);
        const double total = normed ? NAME(sum)(y, size) : 1;
        if (normed) NAME(multiply_by)(y, total > 0 ? 1 / total : 0, size);
    }
}

static void NAME(relu)(void *to, const void *rows, int64_t ld, double *e, int64_t n, int64_t size, const double *share,
                       int normed) {
    enum { SUMS = 32 };
    R *y = to;
    const R *x = rows;
    for (int64_t i = 0; i < n; i++, x += ld, y += size) {
        double sum[SUMS] = {0}, total = 0;
        for (int64_t f = 0; f < size; f++) e[f] = x[f] > 0 ? (double)x[f] : 0;
        for (int64_t f = 0; share && f < size; f++) e[f] *= share[f];
        int64_t f = 0;
        for (; normed && f + SUMS <= size; f += SUMS)
            for (int l = 0; l < SUMS; l++) sum[l] += e[f + l];
        for (; normed && f < size; f++) sum[0] += e[f];
        for (int l = 0; l < SUMS; l++) total += sum[l];
        if (!(total > 0)) total = 1;
        for (f = 0; f < size; f++) y[f] = (R)(e[f] / total);
    }
}

static void NAME(columns)(double *sum, const void *rows, int64_t n, int64_t size) {
    const R *y = rows;
    for (int64_t i = 0; i < n; i++, y += size)
        for (int64_t f = 0; f < size; f++) sum[f] += (double)y[f];
}

static void NAME(slopes)(void *to, const void *weights, const double *a, const void *factors, int64_t n, int64_t size) {
    R *y = to;
    const R *w = weights, *b = factors;
    for (int64_t i = 0; i < n; i++, y += size, w += size) {
        const R by = a ? (R)a[i] : 1;
        if (b)
            for (int64_t f = 0; f < size; f++) y[f] = w[f] * (y[f] + by * b[f]);
        else
            for (int64_t f = 0; f < size; f++) y[f] = w[f] * (y[f] + by);
    }
}

static void NAME(shares)(void *to, const double *by, int64_t n, int64_t size) {
    R *y = to;
    for (int64_t i = 0; i < n; i++, y += size)
        for (int64_t f = 0; f < size; f++) y[f] = (R)((double)y[f] * by[f]);
}

static void NAME(less_rows)(void *to, const double *a, int64_t n, int64_t m, int lower) {
    R *y = to;
    for (int64_t i = 0; i < n; i++, y += m) {
        const R less = (R)a[i];
        const int64_t end = lower ? i + 1 : m;
        for (int64_t j = 0; j < end; j++) y[j] -= less;
        for (int64_t j = end; j < m; j++) y[j] = 0;
    }
}

static void NAME(chain)(void *to, int64_t to_ld, const void *slopes, const void *rows, int64_t ld, double root,
                        int relu, int64_t n, int64_t size) {
    R *y = to;
    const R *s = slopes, *x = rows;
    for (int64_t i = 0; i < n; i++, y += to_ld, s += size, x += ld) {
        if (relu)
            for (int64_t f = 0; f < size; f++) y[f] = x[f] > 0 ? s[f] / x[f] : 0;
        else
            for (int64_t f = 0; f < size; f++) {
                const double scaled = root * (double)x[f];
                y[f] = (R)((double)s[f] * (root / (1 + (scaled > 0 ? scaled : 0))));
            }
    }
}

static void NAME(add)(void *to, double a, const void *row, int64_t n) {
    R *y = to, by = (R)a;
    const R *x = row;
    for (int64_t j = 0; j < n; j++) y[j] += by * x[j];
}

/* Copies up to CHUNK numbers, 0 behind the last; returns whether any of p is not 0. */
enum { NAME(VJP_CHUNK) = 64 };
static inline int NAME(has_weight)(const R *p, int64_t n) {
    int any = 0;
    for (int64_t j = 0; j < n; j++) any |= p[j] != 0;
    return any;
}
static inline void NAME(widen)(double *x, const R *row, int64_t n) {
    if (n >= NAME(VJP_CHUNK)) {
        for (int j = 0; j < NAME(VJP_CHUNK); j++) x[j] = (double)row[j];
        return;
    }
    for (int64_t j = 0; j < NAME(VJP_CHUNK); j++) x[j] = j < n ? (double)row[j] : 0;
}

static void NAME(vjp)(void *to, const void *weights, const void *gradient, int64_t n, double exponent,
                      const sh_exponent *e, double *slopes) {
    enum { CHUNK = NAME(VJP_CHUNK), SUMS = 32 };
    const R *p = weights, *g = gradient;
    R *y = to;
    double sum[SUMS] = {0}, weighted[SUMS] = {0}, x[CHUNK], b[CHUNK], w[CHUNK];
    int nan = 0;
    for (int64_t first = 0; first < n; first += CHUNK) {
        const int64_t size = n - first < CHUNK ? n - first : CHUNK;
        for (int64_t j = 0; j < size; j++) nan |= g[first + j] != g[first + j];
        if (!NAME(has_weight)(p + first, size)) continue;
        NAME(widen)(x, p + first, size);
        NAME(widen)(b, g + first, size);
        for (int j = 0; j < CHUNK; j++) nan |= x[j] != x[j];
        if (exponent == 0)
            for (int j = 0; j < CHUNK; j++) w[j] = x[j] != 0 ? 1 : 0;
        else if (exponent == 1)
            for (int j = 0; j < CHUNK; j++) w[j] = x[j];
        else if (exponent == 0.5)
            for (int j = 0; j < CHUNK; j++) w[j] = sqrt(x[j]);
        else if (sizeof(R) < sizeof(double))
            powers_near(w, x, CHUNK, e);
        else {
            powers(w, x, CHUNK, e);
            for (int j = 0; j < CHUNK; j++)
                if (w[j] != w[j]) w[j] = pow(x[j], exponent);
        }
        if (exponent == 0 &&
            sizeof(R) == sizeof(double)) { /* sparsemax, whose bits are promised: one by one, as ever */
            for (int j = 0; j < CHUNK; j++) {
                sum[0] += w[j];
                weighted[0] += w[j] != 0 ? b[j] : 0;
            }
        } else
            for (int j = 0; j < CHUNK; j += SUMS)
                for (int l = 0; l < SUMS; l++) {
                    sum[l] += w[j + l];
                    weighted[l] += w[j + l] != 0 ? w[j + l] * b[j + l] : 0;
                }
        memcpy(slopes + first, w, (size_t)size * sizeof *w);
    }
    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) {
            sum[l] += sum[l + half];
            weighted[l] += weighted[l + half];
        }
    const double mean = nan ? NAN : sum[0] > 0 ? weighted[0] / sum[0] : 0;
    for (int64_t first = 0; first < n; first += CHUNK) {
        const int64_t size = n - first < CHUNK ? n - first : CHUNK;
        const R *above = g + first;
        const double *slope = slopes + first;
        if (nan)
            for (int64_t j = 0; j < size; j++) y[first + j] = NAN;
        else if (!NAME(has_weight)(p + first, size))
            memset(y + first, 0, (size_t)size * sizeof *y);
        else
            for (int64_t j = 0; j < size; j++)
                y[first + j] = slope[j] != 0 ? (R)(slope[j] * ((double)above[j] - mean)) : 0;
    }
}

static void NAME(gemm_nt)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb,
                          int add, void *c, int64_t ldc) {
    SH_CAT(sh_gemm_, S)(0, 1, m, n, k, 1, a, lda, b, ldb, add, c, ldc);
}

static void NAME(gemm_nn)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb,
                          int add, void *c, int64_t ldc) {
    SH_CAT(sh_gemm_, S)(0, 0, m, n, k, 1, a, lda, b, ldb, add, c, ldc);
}

static void NAME(gemm_tn)(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb,
                          int add, void *c, int64_t ldc) {
    SH_CAT(sh_gemm_, S)(1, 0, m, n, k, 1, a, lda, b, ldb, add, c, ldc);
}

#define TABLE SH_CAT(SH_CAT(SH_CAT(sh_kernels_, SH_VARIANT), _), S)
extern const sh_kernels TABLE;
const sh_kernels TABLE = {
    .size = sizeof(R),
    .unit = UNIT,
    .smallest = SMALLEST,
    .largest = LARGEST,
    .affine_max = NAME(affine_max),
    .maximum = NAME(maximum),
    .lanes = UNROLL * LANES,
    .collect = NAME(collect),
    .count = NAME(count),
    .dot = NAME(dot),
    .accumulate = NAME(accumulate),
    .to_double = NAME(to_double),
    .from_double = NAME(from_double),
    .from_uint8 = NAME(from_uint8),
    .from_float16 = NAME(from_float16),
    .exponentiate = NAME(exponentiate),
    .compress = NAME(compress),
    .mix = NAME(mix),
    .power = NAME(power),
    .max_abs = NAME(max_abs),
    .multiply = NAME(multiply),
    .multiply_by = NAME(multiply_by),
    .distance2 = NAME(distance2),
    .centre = NAME(centre),
    .sum = NAME(sum),
    .squares = NAME(squares),
    .divide = NAME(divide),
    .peaks = NAME(peaks),
    .features = NAME(features),
    .mixing = NAME(mixing),
    .relu = NAME(relu),
    .columns = NAME(columns),
    .slopes = NAME(slopes),
    .shares = NAME(shares),
    .less_rows = NAME(less_rows),
    .chain = NAME(chain),
    .add = NAME(add),
    .vjp = NAME(vjp),
    .powers = {{powers, powers_near}, {powers_1p, powers_1p_near}},
    .gemm_nt = NAME(gemm_nt),
    .gemm_nn = NAME(gemm_nn),
    .gemm_tn = NAME(gemm_tn),
};
#undef TABLE
#undef NAME
#undef V
#undef IV
#undef GE_MASK
#undef MAX
#undef FMA
#undef LANES
#undef UNROLL
#undef OTHER
#undef MAX_WITH_OTHER
#undef LOAD
#undef STORE
#undef ALL
