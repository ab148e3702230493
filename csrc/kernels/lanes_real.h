/* lanes_real.h: the loops of lanes.h for numbers R, integers I of the same size, vectors of WIDTH bytes, COUNT of R, with
 * suffix S. Included once for each by lanes.c. */
#define N(f) SH_CAT(f##_, S)
typedef R N(v) __attribute__((vector_size(WIDTH)));
typedef I N(i) __attribute__((vector_size(WIDTH)));
typedef __typeof__(_Generic((R)0, float: (uint32_t)0, double: (uint64_t)0)) N(wrapping)
    __attribute__((vector_size(WIDTH)));
typedef N(v) N(v_at) __attribute__((aligned(sizeof(R)), may_alias));
typedef uint32_t N(u32) __attribute__((vector_size(WIDTH / sizeof(R) * 4)));
typedef int32_t N(i32) __attribute__((vector_size(WIDTH / sizeof(R) * 4)));
typedef N(u32) N(u32_at) __attribute__((aligned(4), may_alias));
#define V N(v)
#define IV N(i)
#define L COUNT
#define LOAD(p) ((V) * (const N(v_at) *)(p))
#define STORE(p, x) (*(N(v_at) *)(p) = (x))
#define ALL(x) ((R)(x) - (V){0}) /* x - 0 is x, x + 0 is not if x is -0: this is a broadcast, no sum */
#define INLINE static inline __attribute__((always_inline))

/* a * b + c, the larger and the smaller of two (b if either is NaN), comparisons, and what is done where they hold. */
#if WIDTH == 64
#define MM(f) _mm512_##f
#define FLOATS __m512
#define DOUBLES __m512d
#define BITS __mmask16
#elif WIDTH == 32
#define MM(f) _mm256_##f
#define FLOATS __m256
#define DOUBLES __m256d
#define BITS __mmask8
#endif

#ifdef MM
INLINE V N(fma)(V a, V b, V c) {
    return sizeof(R) == 4 ? (V)MM(fmadd_ps)((FLOATS)a, (FLOATS)b, (FLOATS)c)
                          : (V)MM(fmadd_pd)((DOUBLES)a, (DOUBLES)b, (DOUBLES)c);
}
INLINE V N(max)(V a, V b) {
    return sizeof(R) == 4 ? (V)MM(max_ps)((FLOATS)a, (FLOATS)b) : (V)MM(max_pd)((DOUBLES)a, (DOUBLES)b);
}
INLINE V N(min)(V a, V b) {
    return sizeof(R) == 4 ? (V)MM(min_ps)((FLOATS)a, (FLOATS)b) : (V)MM(min_pd)((DOUBLES)a, (DOUBLES)b);
}
#else
#ifdef SH_NEON
INLINE V N(fma)(V a, V b, V c) {
    return sizeof(R) == 4 ? (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b)
                          : (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
INLINE V N(fma)(V a, V b, V c) { return a * b + c; }
#endif
INLINE V N(max)(V a, V b) {
    IV larger = a > b;
    return (V)((larger & (IV)a) | (~larger & (IV)b));
}
INLINE V N(min)(V a, V b) {
    IV smaller = a < b;
    return (V)((smaller & (IV)a) | (~smaller & (IV)b));
}
#endif

#if defined(MM) && defined(__AVX512VL__)
#define MASK uint32_t
INLINE MASK N(above)(V a, V b) {
    return sizeof(R) == 4 ? (MASK)MM(cmp_ps_mask)((FLOATS)a, (FLOATS)b, _CMP_GT_OQ)
                          : (MASK)MM(cmp_pd_mask)((DOUBLES)a, (DOUBLES)b, _CMP_GT_OQ);
}
INLINE MASK N(not_below)(V a, V b) { /* true also where either is NaN */
    return sizeof(R) == 4 ? (MASK)MM(cmp_ps_mask)((FLOATS)a, (FLOATS)b, _CMP_NLT_UQ)
                          : (MASK)MM(cmp_pd_mask)((DOUBLES)a, (DOUBLES)b, _CMP_NLT_UQ);
}
INLINE V N(where)(MASK m, V x) {
    return sizeof(R) == 4 ? (V)MM(maskz_mov_ps)((BITS)m, (FLOATS)x) : (V)MM(maskz_mov_pd)((__mmask8)m, (DOUBLES)x);
}
INLINE V N(add_where)(MASK m, V a, V b) {
    return sizeof(R) == 4 ? (V)MM(mask_add_ps)((FLOATS)a, (BITS)m, (FLOATS)a, (FLOATS)b)
                          : (V)MM(mask_add_pd)((DOUBLES)a, (__mmask8)m, (DOUBLES)a, (DOUBLES)b);
}
#define ANY(m) ((m) != 0)
#else
#define MASK IV
INLINE MASK N(above)(V a, V b) { return a > b; }
INLINE MASK N(not_below)(V a, V b) { return ~(a < b); }
INLINE V N(where)(MASK m, V x) { return (V)(m & (IV)x); }
INLINE V N(add_where)(MASK m, V a, V b) { return a + (V)(m & (IV)b); }
#if WIDTH == 32
#define ANY(m) (_mm256_movemask_epi8((__m256i)(m)) != 0)
#elif defined(SH_NEON)
#define ANY(m) (vmaxvq_u32((uint32x4_t)(m)) != 0)
#else
INLINE int N(any)(IV m) {
    I any = 0;
    for (int l = 0; l < L; l++) any |= m[l];
    return any != 0;
}
#define ANY(m) N(any)(m)
#endif
#endif
INLINE V N(pick)(IV m, V a, V b) { return (V)((m & (IV)a) | (~m & (IV)b)); }

/* 1.5 2^23 or 2^52: what is added to it is rounded to whole numbers, which are then its last bits. */
#define ROUNDER (sizeof(R) == 4 ? (R)12582912.0 : (R)6755399441055744.0)

/* Returns x 2^n, n whole numbers; x near 1 and 2^n normal, or the lane is not used: unsigned sums may wrap */
INLINE V N(scaled)(V x, V n) {
#if defined(MM) && defined(__AVX512VL__)
    return sizeof(R) == 4 ? (V)MM(scalef_ps)((FLOATS)x, (FLOATS)n) : (V)MM(scalef_pd)((DOUBLES)x, (DOUBLES)n);
#else
    return (V)((N(wrapping))x + ((N(wrapping))(n + ROUNDER) << (sizeof(R) == 4 ? 23 : 52)));
#endif
}

/* Returns the nearest whole numbers. */
INLINE V N(rounded)(V x) {
#if defined(MM) && defined(__AVX512VL__)
    return sizeof(R) == 4 ? (V)MM(roundscale_ps)((FLOATS)x, 0) : (V)MM(roundscale_pd)((DOUBLES)x, 0);
#else
    return (x + ROUNDER) - ROUNDER;
#endif
}

/* Returns exp(x) for x at most some 80: x = n ln 2 + r after Cody and Waite; 0 where the result would not be normal, -inf among
 * it, and NaN of NaN. The float polynomial is minimax on |r| <= ln 2 / 2: 2e-9 relative, 1.1 ulp after rounding. */
INLINE V N(exp)(V x) {
    const V least = ALL(sizeof(R) == 4 ? -87.3 : -708.0);
    V n = N(rounded)(x * ALL(1.4426950408889634)), r, p;
    if (sizeof(R) == 4) {
        r = N(fma)(n, ALL(-0.693359375), x);
        r = N(fma)(n, ALL(2.12194440e-4), r);
        p = N(fma)(r, ALL(1.3843653723597527e-3), ALL(8.37415549904108e-3));
        p = N(fma)(p, r, ALL(4.166800156235695e-2));
        p = N(fma)(p, r, ALL(1.6666431725025177e-1));
        p = N(fma)(p, r, ALL(4.999999403953552e-1));
    } else {
        r = N(fma)(n, ALL(-6.93147180369123816490e-01), x);
        r = N(fma)(n, ALL(-1.90821492927058770002e-10), r);
        p = ALL(1.0 / 6227020800.0); /* Taylor to r^13: 4e-18 relative */
        p = N(fma)(p, r, ALL(1.0 / 479001600.0));
        p = N(fma)(p, r, ALL(1.0 / 39916800.0));
        p = N(fma)(p, r, ALL(1.0 / 3628800.0));
        p = N(fma)(p, r, ALL(1.0 / 362880.0));
        p = N(fma)(p, r, ALL(1.0 / 40320.0));
        p = N(fma)(p, r, ALL(1.0 / 5040.0));
        p = N(fma)(p, r, ALL(1.0 / 720.0));
        p = N(fma)(p, r, ALL(1.0 / 120.0));
        p = N(fma)(p, r, ALL(1.0 / 24.0));
        p = N(fma)(p, r, ALL(1.0 / 6.0));
        p = N(fma)(p, r, ALL(0.5));
    }
    p = N(fma)(p, r, ALL(1));
    p = N(fma)(p, r, ALL(1));
    return N(where)(N(not_below)(x, least), N(scaled)(p, n));
}

/* Returns log(x) for normal x > 0: x = 2^e m, sqrt(1/2) < m <= sqrt(2); the series of log m in y = (m - 1) / (m + 1). Gives
 * 1 / x, too, where that is wanted (else NULL): by the same division. */
INLINE V N(log_and_inverse)(V x, V *inverse) {
    const int bits = sizeof(R) == 4 ? 23 : 52, middle = sizeof(R) == 4 ? 127 : 1023;
    IV raw = (IV)x;
    IV one = (IV)ALL(1.0);
    IV fraction = ((IV){0} + (I)(((uint64_t)1 << bits) - 1));
    V m = (V)((raw & fraction) | one);
    IV e = ((raw >> bits) & ((IV){0} + (I)(2 * middle + 1))) - (I)middle;
    IV big = m > ALL(1.4142135623730951);
    m = N(pick)(big, m * (R)0.5, m);
    e -= big; /* true is -1 */
    const V exponent = __builtin_convertvector(e, V);
    V y;
    if (inverse) {
        const V both = (R)1 / ((m + (R)1) * m);
        y = (m - (R)1) * (m * both);
        *inverse = N(scaled)((m + (R)1) * both, -exponent);
    } else {
        y = (m - (R)1) / (m + (R)1);
    }
    V y2 = y * y, p;
    if (sizeof(R) == 4) {
        p = ALL(2.0 / 9);
    } else {
        p = ALL(2.0 / 21);
        p = N(fma)(p, y2, ALL(2.0 / 19));
        p = N(fma)(p, y2, ALL(2.0 / 17));
        p = N(fma)(p, y2, ALL(2.0 / 15));
        p = N(fma)(p, y2, ALL(2.0 / 13));
        p = N(fma)(p, y2, ALL(2.0 / 11));
        p = N(fma)(p, y2, ALL(2.0 / 9));
    }
    p = N(fma)(p, y2, ALL(2.0 / 7));
    p = N(fma)(p, y2, ALL(2.0 / 5));
    p = N(fma)(p, y2, ALL(2.0 / 3));
    p = N(fma)(p, y2, ALL(2.0));
    return N(fma)(exponent, ALL(0.6931471805599453), y * p);
}
INLINE V N(log)(V x) { return N(log_and_inverse)(x, NULL); }

/* Returns log(1 + x) for 1 + x normal: the rounding of 1 + x is put right again (Kahan). */
INLINE V N(log1p)(V x) {
    V u = x + (R)1;
    return N(log)(u) + (x - (u - (R)1)) / u;
}

/* --- products ------------------------------------------------------------------------------------- */

#define ROW(i) (list ? (int64_t)list[i] : (i))

/* Scores `together` rows from entry i on, each sum in the order of the features, so that lists and rows beside change no bit. */
INLINE void N(score_rows)(const R *rows, int64_t ld, const int32_t *list, int64_t i, int64_t d, const R *u, R *s,
                          int64_t stride, const int together) {
    const R *r[8];
    V sum[8];
    SH_UNROLL(8)
    for (int k = 0; k < together; k++) {
        r[k] = rows + ROW(i + k) * ld;
        sum[k] = ALL(0);
    }
    for (int64_t c = 0; c < d; c++) {
        V x = LOAD(u + c * L);
        SH_UNROLL(8)
        for (int k = 0; k < together; k++) sum[k] = N(fma)(ALL(r[k][c]), x, sum[k]);
    }
    SH_UNROLL(8)
    for (int k = 0; k < together; k++) STORE(s + (i + k) * stride, sum[k]);
}

INLINE void N(scores_of)(const R *rows, int64_t ld, const int32_t *list, int64_t n, int64_t d, const R *u, R *s,
                         int64_t stride) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) N(score_rows)(rows, ld, list, i, d, u, s, stride, 8);
    if (i < n && n >= 8) { /* some of the last ones again: alone, a row waits for each of its products */
        N(score_rows)(rows, ld, list, n - 8, d, u, s, stride, 8);
        return;
    }
    for (; i + 2 <= n; i += 2) N(score_rows)(rows, ld, list, i, d, u, s, stride, 2);
    if (i < n) N(score_rows)(rows, ld, list, i, d, u, s, stride, 1);
}

/* Scores rows of few features that lie side by side, d known when compiled: the queries stay in registers. */
INLINE void N(short_scores)(const R *rows, int64_t n, const int d, const R *queries, R *s, int64_t stride) {
    enum { TOGETHER = 8, MOST = 16 };
    V u[MOST];
    SH_UNROLL(16)
    for (int c = 0; c < d; c++) u[c] = LOAD(queries + c * L);
    int64_t i = 0;
    for (; i + TOGETHER <= n; i += TOGETHER) {
        const R *r = rows + i * d;
        V sum[TOGETHER];
        SH_UNROLL(8)
        for (int k = 0; k < TOGETHER; k++) sum[k] = ALL(r[k * d]) * u[0];
        SH_UNROLL(16)
        for (int c = 1; c < d; c++) {
            SH_UNROLL(8)
            for (int k = 0; k < TOGETHER; k++) sum[k] = N(fma)(ALL(r[k * d + c]), u[c], sum[k]);
        }
        SH_UNROLL(8)
        for (int k = 0; k < TOGETHER; k++) STORE(s + (i + k) * stride, sum[k]);
    }
    for (; i < n; i++) {
        V sum = ALL(rows[i * d]) * u[0];
        SH_UNROLL(16)
        for (int c = 1; c < d; c++) sum = N(fma)(ALL(rows[i * d + c]), u[c], sum);
        STORE(s + i * stride, sum);
    }
}

static void N(scores)(const void *rows, int64_t ld, const int32_t *list, int64_t n, int64_t d, const void *u, void *s,
                      int64_t stride) {
    if (list && d == 4) /* the shape of the bit patterns; the compiler unrolls it */
        N(scores_of)(rows, ld, list, n, 4, u, s, stride);
    else if (list)
        N(scores_of)(rows, ld, list, n, d, u, s, stride);
    else if (ld == d && d == 4)
        N(short_scores)(rows, n, 4, u, s, stride);
    else if (ld == d && d == 8 && REGISTERS == 32)
        N(short_scores)(rows, n, 8, u, s, stride);
    else if (ld == d && d == 16 && REGISTERS == 32)
        N(short_scores)(rows, n, 16, u, s, stride);
    else
        N(scores_of)(rows, ld, NULL, n, d, u, s, stride);
}

/* Mixes `columns` features, the rows in `together` independent sums. */
INLINE void N(mix_columns)(const R *rows, int64_t ld, const int32_t *list, int64_t n, const R *p, int64_t stride, R *z,
                           const int columns, const int together) {
    V sum[16];
    SH_UNROLL(16)
    for (int k = 0; k < columns * together; k++) sum[k] = ALL(0);
    int64_t i = 0;
    for (; i + together <= n; i += together) {
        SH_UNROLL(8)
        for (int q = 0; q < together; q++) {
            const R *r = rows + ROW(i + q) * ld;
            V weight = LOAD(p + (i + q) * stride);
            SH_UNROLL(16)
            for (int k = 0; k < columns; k++) sum[q * columns + k] = N(fma)(ALL(r[k]), weight, sum[q * columns + k]);
        }
    }
    for (; i < n; i++) {
        const R *r = rows + ROW(i) * ld;
        V weight = LOAD(p + i * stride);
        SH_UNROLL(16)
        for (int k = 0; k < columns; k++) sum[k] = N(fma)(ALL(r[k]), weight, sum[k]);
    }
    SH_UNROLL(16)
    for (int k = 0; k < columns; k++) {
        V total = sum[k];
        SH_UNROLL(8)
        for (int q = 1; q < together; q++) total += sum[q * columns + k];
        STORE(z + k * L, total);
    }
}

INLINE void N(mix_of)(const R *rows, int64_t ld, const int32_t *list, int64_t n, int64_t d, const R *p, int64_t stride,
                      R *z) {
    int64_t c = 0;
#if REGISTERS == 32
    for (; c + 16 <= d; c += 16) N(mix_columns)(rows + c, ld, list, n, p, stride, z + c * L, 16, 1);
#endif
    for (; c + 8 <= d; c += 8) N(mix_columns)(rows + c, ld, list, n, p, stride, z + c * L, 8, REGISTERS / 16);
    for (; c + 4 <= d; c += 4) N(mix_columns)(rows + c, ld, list, n, p, stride, z + c * L, 4, REGISTERS / 8);
    for (; c < d; c++) N(mix_columns)(rows + c, ld, list, n, p, stride, z + c * L, 1, 8);
}

static void N(mix)(const void *rows, int64_t ld, const int32_t *list, int64_t n, int64_t d, const void *p,
                   int64_t stride, void *z) {
    if (list)
        N(mix_of)(rows, ld, list, n, d, p, stride, z);
    else
        N(mix_of)(rows, ld, NULL, n, d, p, stride, z);
}

/* Adds to one vector of columns of `together` rows: their sums do not wait for one another. */
INLINE void N(spread_rows)(const R *g, int64_t stride, const int32_t *list, int64_t i, const V query[L], R *rows,
                           int64_t ld, const int together) {
    V sum[4];
    SH_UNROLL(4)
    for (int k = 0; k < together; k++) sum[k] = LOAD(rows + ROW(i + k) * ld);
    SH_UNROLL(16)
    for (int l = 0; l < L; l++) {
        SH_UNROLL(4)
        for (int k = 0; k < together; k++) sum[k] = N(fma)(ALL(g[(i + k) * stride + l]), query[l], sum[k]);
    }
    SH_UNROLL(4)
    for (int k = 0; k < together; k++) STORE(rows + ROW(i + k) * ld, sum[k]);
}

INLINE void N(spread_of)(const R *g, int64_t stride, const int32_t *list, int64_t n, const R *x, int64_t d, R *rows,
                         int64_t ld) {
    for (int64_t c = 0; c < d; c += L) {
        V query[L];
        SH_UNROLL(16)
        for (int l = 0; l < L; l++) query[l] = LOAD(x + l * d + c);
        int64_t i = 0;
        for (; i + 4 <= n; i += 4) N(spread_rows)(g, stride, list, i, query, rows + c, ld, 4);
        for (; i < n; i++) N(spread_rows)(g, stride, list, i, query, rows + c, ld, 1);
    }
}

static void N(spread)(const void *g, int64_t stride, const int32_t *list, int64_t n, const void *x, int64_t d,
                      void *rows, int64_t ld) {
    if (list)
        N(spread_of)(g, stride, list, n, x, d, rows, ld);
    else
        N(spread_of)(g, stride, NULL, n, x, d, rows, ld);
}

static void N(apply)(const void *matrices, int64_t n, const void *in, const void *bias, void *out) {
    const R *w = matrices, *x = in, *b = bias;
    R *y = out;
    for (int64_t r = 0; r < n; r++) {
        V sum[2] = {ALL(0), ALL(0)};
        if (b) sum[0] = LOAD(b + r * L);
        int64_t c = 0;
        for (; c + 2 <= n; c += 2) {
            sum[0] = N(fma)(LOAD(w + (r * n + c) * L), LOAD(x + c * L), sum[0]);
            sum[1] = N(fma)(LOAD(w + (r * n + c + 1) * L), LOAD(x + (c + 1) * L), sum[1]);
        }
        if (c < n) sum[0] = N(fma)(LOAD(w + (r * n + c) * L), LOAD(x + c * L), sum[0]);
        STORE(y + r * L, sum[0] + sum[1]);
    }
}

/* Returns the sums over groups of `e` neighbouring lanes, e a power of 2, in each of the lanes. */
#define OTHER(l) (((l) ^ BIT) % COUNT)
#define ADD_OTHER(x, bit, e)                                                                                           \
    if (bit < COUNT && bit < e) {                                                                                      \
        enum { BIT = bit };                                                                                            \
        x += SH_SHUFFLE(IV, x, x, SH_EACH(COUNT, OTHER));                                                              \
    }
INLINE V N(sum_of_groups)(V x, int64_t e) {
    ADD_OTHER(x, 1, e)
    ADD_OTHER(x, 2, e)
    ADD_OTHER(x, 4, e)
    ADD_OTHER(x, 8, e)
    return x;
}

/* Projects `together` rows, whose sums do not wait for one another. `end`: the last vector of x, with zeros where whole
 * vectors were taken; NULL where these are all. */
INLINE void N(project_rows)(const R *w, int64_t columns, const R *x, const R *end, R *y, const int together) {
    V sum[4];
    int64_t c = 0;
    SH_UNROLL(4)
    for (int k = 0; k < together; k++) sum[k] = ALL(0);
    for (; c + L <= columns; c += L) {
        V here = LOAD(x + c);
        SH_UNROLL(4)
        for (int k = 0; k < together; k++) sum[k] = N(fma)(LOAD(w + k * columns + c), here, sum[k]);
    }
    SH_UNROLL(4)
    for (int k = 0; end && k < together; k++) sum[k] = N(fma)(LOAD(w + k * columns + columns - L), LOAD(end), sum[k]);
    SH_UNROLL(4)
    for (int k = 0; k < together; k++) y[k] = N(sum_of_groups)(sum[k], L)[0];
}

static void N(project)(const void *matrix, int64_t rows, int64_t columns, const void *in, const void *bias, void *out) {
    const R *w = matrix, *x = in, *b = bias;
    R *y = out, end[L] = {0};
    int64_t r = 0;
    for (int64_t c = columns / L * L; c < columns && columns > L; c++) end[c - (columns - L)] = x[c];
    const R *ends = columns > L && columns % L ? end : NULL;
    if (columns >= L) {
        for (; r + 4 <= rows; r += 4) N(project_rows)(w + r * columns, columns, x, ends, y + r, 4);
        for (; r < rows; r++) N(project_rows)(w + r * columns, columns, x, ends, y + r, 1);
    }
    for (; r < rows; r++) {
        y[r] = 0;
        for (int64_t c = 0; c < columns; c++) y[r] += w[r * columns + c] * x[c];
    }
    for (r = 0; b && r < rows; r++) y[r] += b[r];
}

/* Projects so many vectors of columns back. */
INLINE void N(project_columns_back)(const R *w, int64_t rows, int64_t columns, const R *y, R *x, const int vectors) {
    V sum[8];
    SH_UNROLL(8)
    for (int k = 0; k < vectors; k++) sum[k] = ALL(0);
    for (int64_t r = 0; r < rows; r++) {
        V here = ALL(y[r]);
        SH_UNROLL(8)
        for (int k = 0; k < vectors; k++) sum[k] = N(fma)(LOAD(w + r * columns + k * L), here, sum[k]);
    }
    SH_UNROLL(8)
    for (int k = 0; k < vectors; k++) STORE(x + k * L, sum[k]);
}

static void N(project_back)(const void *matrix, int64_t rows, int64_t columns, const void *in, void *out) {
    const R *w = matrix, *y = in;
    R *x = out;
    int64_t c = 0;
    for (; c + 8 * L <= columns; c += 8 * L) N(project_columns_back)(w + c, rows, columns, y, x + c, 8);
    for (; c + 4 * L <= columns; c += 4 * L) N(project_columns_back)(w + c, rows, columns, y, x + c, 4);
    for (; c + L <= columns; c += L) N(project_columns_back)(w + c, rows, columns, y, x + c, 1);
    if (c < columns && columns >= L) { /* some of the last ones again: alone, a column takes as long as a vector */
        N(project_columns_back)(w + columns - L, rows, columns, y, x + columns - L, 1);
        return;
    }
    for (; c < columns; c++) {
        R sum = 0;
        for (int64_t r = 0; r < rows; r++) sum += w[r * columns + c] * y[r];
        x[c] = sum;
    }
}

/* Transposes L x L numbers: exchanges bit after bit of the row number with the column number. */
#define LOW(l) ((l) & BIT ? COUNT + ((l) ^ BIT) : (l))
#define HIGH(l) ((l) & BIT ? COUNT + (l) : ((l) | BIT) % COUNT)
#define EXCHANGE(r, bit)                                                                                               \
    if (bit < COUNT) {                                                                                                 \
        enum { BIT = bit };                                                                                            \
        for (int i = 0; i < COUNT; i++)                                                                                \
            if (!(i & BIT)) {                                                                                          \
                V a = r[i], b = r[(i | BIT) % COUNT];                                                                  \
                r[i] = SH_SHUFFLE(IV, a, b, SH_EACH(COUNT, LOW));                                                      \
                r[(i | BIT) % COUNT] = SH_SHUFFLE(IV, a, b, SH_EACH(COUNT, HIGH));                                     \
            }                                                                                                          \
    }
INLINE void N(transpose)(V r[COUNT]) {
    EXCHANGE(r, 1)
    EXCHANGE(r, 2)
    EXCHANGE(r, 4)
    EXCHANGE(r, 8)
}

static void N(gather)(const void *const *rows, int64_t d, const void *factors, void *lanes, int64_t stride) {
    const R *factor = factors;
    R *u = lanes;
    int64_t c = 0;
    int all = 1;
    for (int l = 0; l < L; l++) all &= rows[l] != NULL;
    for (; all && c + L <= d; c += L) {
        V block[L];
        SH_UNROLL(16)
        for (int l = 0; l < L; l++) block[l] = LOAD((const R *)rows[l] + c);
        N(transpose)(block);
        V f = factor ? LOAD(factor) : ALL(1);
        SH_UNROLL(16)
        for (int k = 0; k < L; k++) STORE(u + (c + k) * stride, block[k] * f);
    }
    for (int l = 0; l < L; l++) {
        const R *row = rows[l];
        const R f = factor ? factor[l] : 1;
        for (int64_t k = c; k < d; k++) u[k * stride + l] = row ? row[k] * f : 0;
    }
}

static void N(scatter)(const void *lanes, int64_t stride, int64_t d, const void *factors, void *const *rows) {
    const R *factor = factors, *z = lanes;
    int64_t c = 0;
    int all = 1;
    for (int l = 0; l < L; l++) all &= rows[l] != NULL;
    for (; all && c + L <= d; c += L) {
        V block[L], f = factor ? LOAD(factor) : ALL(1);
        SH_UNROLL(16)
        for (int k = 0; k < L; k++) block[k] = LOAD(z + (c + k) * stride) * f;
        N(transpose)(block);
        SH_UNROLL(16)
        for (int l = 0; l < L; l++) STORE((R *)rows[l] + c, block[l]);
    }
    for (int l = 0; l < L; l++) {
        R *row = rows[l];
        const R f = factor ? factor[l] : 1;
        for (int64_t k = c; row && k < d; k++) row[k] = z[k * stride + l] * f;
    }
}

/* --- other rows for every lane -------------------------------------------------------------- */

/* Fetches the rows of all lanes of one entry into the cache, as they lie apart. */
INLINE void N(fetch)(const R *rows, int64_t ld, const int32_t *row_of, int64_t width) {
    for (int l = 0; l < L; l++)
        for (int64_t c = 0; row_of[l] >= 0 && c < width; c += 64 / (int64_t)sizeof(R))
            __builtin_prefetch(rows + row_of[l] * ld + c);
}

static void N(per_lane_scores)(const void *stored, int64_t ld, const int32_t *lane_rows, const int32_t *list, int64_t n,
                               int64_t width, const void *queries, int64_t d, void *scores, int64_t stride) {
    enum { AHEAD = 2 };
    const R *rows = stored, *x = queries;
    R *s = scores;
    int64_t whole = width / L * L;
    for (int64_t i = 0; i < n; i++) {
        const int32_t *row_of = lane_rows + ROW(i) * L;
        V part[L];
        R rest[L];
        if (i + AHEAD < n) N(fetch)(rows, ld, lane_rows + ROW(i + AHEAD) * L, width);
        for (int l = 0; l < L; l++) {
            const R *row = rows + (row_of[l] < 0 ? 0 : row_of[l]) * ld, *query = x + l * d;
            int64_t features = row_of[l] < 0 ? 0 : whole;
            V sum = ALL(0), sum2 = ALL(0);
            int64_t c = 0;
            for (; c + 2 * L <= features; c += 2 * L) {
                sum = N(fma)(LOAD(row + c), LOAD(query + c), sum);
                sum2 = N(fma)(LOAD(row + c + L), LOAD(query + c + L), sum2);
            }
            if (c < features) sum = N(fma)(LOAD(row + c), LOAD(query + c), sum);
            part[l] = sum + sum2;
            rest[l] = 0;
            for (c = whole; row_of[l] >= 0 && c < width; c++) rest[l] += row[c] * query[c];
        }
        N(transpose)(part);
        V total = LOAD(rest);
        for (int l = 0; l < L; l++) total += part[l];
        STORE(s + i * stride, total);
    }
}

static void N(per_lane_mix)(const void *stored, int64_t ld, const int32_t *lane_rows, const int32_t *list, int64_t n,
                            int64_t width, const void *weights, int64_t stride, void *to, int64_t d) {
    const R *rows = stored, *p = weights;
    enum { SIDE = 4 };
    for (int l = 0; l < L; l++) {
        R *z = (R *)to + l * d;
        int64_t c = 0;
        for (; c + SIDE * L <= width; c += SIDE * L) {
            V sum[SIDE] = {ALL(0), ALL(0), ALL(0), ALL(0)};
            for (int64_t i = 0; i < n; i++) {
                const int64_t row = lane_rows[ROW(i) * L + l];
                if (row < 0) continue;
                SH_UNROLL(4)
                for (int k = 0; k < SIDE; k++)
                    sum[k] = N(fma)(LOAD(rows + row * ld + c + k * L), ALL(p[i * stride + l]), sum[k]);
            }
            for (int k = 0; k < SIDE; k++) STORE(z + c + k * L, sum[k]);
        }
        for (; c + L <= width; c += L) {
            V sum = ALL(0);
            for (int64_t i = 0; i < n; i++) {
                const int64_t row = lane_rows[ROW(i) * L + l];
                if (row >= 0) sum = N(fma)(LOAD(rows + row * ld + c), ALL(p[i * stride + l]), sum);
            }
            STORE(z + c, sum);
        }
        for (; c < width; c++) {
            R sum = 0;
            for (int64_t i = 0; i < n; i++) {
                const int64_t row = lane_rows[ROW(i) * L + l];
                if (row >= 0) sum += rows[row * ld + c] * p[i * stride + l];
            }
            z[c] = sum;
        }
        for (; c < d; c++) z[c] = 0;
    }
}

static void N(per_lane_spread)(const void *gradient, int64_t stride, const int32_t *lane_rows, const int32_t *list,
                               int64_t n, const void *queries, int64_t d, void *stored, int64_t ld) {
    enum { AHEAD = 2 };
    const R *g = gradient, *x = queries;
    R *rows = stored;
    for (int64_t i = 0; i < n; i++) {
        const int32_t *row_of = lane_rows + ROW(i) * L;
        if (i + AHEAD < n) N(fetch)(rows, ld, lane_rows + ROW(i + AHEAD) * L, d);
        for (int l = 0; l < L; l++) {
            R *row = rows + (row_of[l] < 0 ? 0 : row_of[l]) * ld;
            V factor = ALL(g[i * stride + l]);
            for (int64_t c = 0; row_of[l] >= 0 && c < d; c += L)
                STORE(row + c, N(fma)(factor, LOAD(x + l * d + c), LOAD(row + c)));
        }
    }
}

static void N(copy)(const void *from, int64_t ld, const int32_t *list, int64_t n, int64_t d, void *to) {
    const R *rows = from;
    R *copies = to;
    for (int64_t i = 0; i < n; i++) {
        const R *row = rows + ROW(i) * ld;
        R *copy = copies + i * d;
        int64_t c = 0;
        for (; c + L <= d; c += L) STORE(copy + c, LOAD(row + c));
        for (; c < d; c++) copy[c] = row[c];
    }
}

static void N(choose)(const void *where, const void *then, const void *factor, const void *otherwise, int64_t d,
                      void *out, int64_t stride) {
    const R *a = then, *b = otherwise;
    R *y = out;
    IV yes = LOAD((const R *)where) > ALL(0);
    V f = LOAD((const R *)factor);
    for (int64_t c = 0; c < d; c++) STORE(y + c * stride, N(pick)(yes, LOAD(a + c * stride) * f, LOAD(b + c * stride)));
}

static void N(inner_product)(const void *left, const void *right, int64_t stride, int64_t d, void *sum) {
    const R *u = left, *v = right;
    V total = ALL(0);
    for (int64_t c = 0; c < d; c++) total = N(fma)(LOAD(u + c * stride), LOAD(v + c * stride), total);
    STORE((R *)sum, total);
}

/* --- small things --------------------------------------------------------------------------------- */

static void N(distance)(const void *weights, const int32_t *list, int64_t n, const void *before,
                        const int32_t *before_list, int64_t before_n, int64_t stride, void *d2) {
    const R *p = weights, *q = before;
    V sum = ALL(0);
    const int same =
        n == before_n &&
        (list == before_list || (list && before_list && memcmp(list, before_list, (size_t)n * sizeof *list) == 0));
    if (same) {
        V parts[4] = {sum, sum, sum, sum};
        int64_t i = 0;
        for (; i + 4 <= n; i += 4) {
            SH_UNROLL(4)
            for (int k = 0; k < 4; k++) {
                V moved = LOAD(p + (i + k) * stride) - LOAD(q + (i + k) * stride);
                parts[k] = N(fma)(moved, moved, parts[k]);
            }
        }
        for (; i < n; i++) {
            V moved = LOAD(p + i * stride) - LOAD(q + i * stride);
            sum = N(fma)(moved, moved, sum);
        }
        sum += (parts[0] + parts[1]) + (parts[2] + parts[3]);
    } else {
        for (int64_t i = 0, k = 0; i < n || k < before_n;) {
            int64_t a = i < n ? (list ? list[i] : i) : INT64_MAX,
                    b = k < before_n ? (before_list ? before_list[k] : k) : INT64_MAX;
            V moved = ALL(0);
            if (a <= b) moved += LOAD(p + i++ * stride);
            if (b <= a) moved -= LOAD(q + k++ * stride);
            sum = N(fma)(moved, moved, sum);
        }
    }
    STORE((R *)d2, sum);
}

static void N(drop)(const int32_t *list, const int32_t *position, int per_lane, int64_t n, const uint32_t *key,
                    uint32_t threshold, double scale, void *factors, int64_t stride) {
    R *f = factors;
    N(u32) keys = *(const N(u32_at) *)key, least = (N(u32)){0} + threshold;
    for (int64_t i = 0; i < n; i++) {
        int64_t j = ROW(i);
        const uint32_t golden = 0x9E3779B9u;
        N(u32) drawn = keys ^ ((uint32_t)(position && !per_lane ? position[j] : j) * golden);
        if (per_lane) drawn = keys ^ (*(const N(u32_at) *)(position + j * L) * golden);
        SH_HASH(drawn);
        N(i32) kept = (N(i32))(drawn >= least); /* true is -1 */
        STORE(f + i * stride, __builtin_convertvector(kept, V) * (R)-scale);
    }
}

static void N(multiply)(void *to, const void *by, int64_t n, int64_t stride, int64_t by_stride) {
    R *x = to;
    const R *y = by;
    for (int64_t i = 0; i < n; i++) STORE(x + i * stride, LOAD(x + i * stride) * LOAD(y + i * by_stride));
}

static void N(add)(void *to, const void *from, const int32_t *list, int64_t n, int64_t stride, int64_t from_stride) {
    R *x = to;
    const R *y = from;
    for (int64_t i = 0; i < n; i++) STORE(x + i * stride, LOAD(x + i * stride) + LOAD(y + ROW(i) * from_stride));
}

static int N(finite)(const void *numbers, int64_t n) {
    const R *x = numbers;
    V zero[4] = {ALL(0), ALL(0), ALL(0), ALL(0)}; /* x - x is 0, or NaN */
    R rest = 0;
    int64_t i = 0;
    for (; i + 4 * L <= n; i += 4 * L)
        for (int k = 0; k < 4; k++) zero[k] += LOAD(x + i + k * L) - LOAD(x + i + k * L);
    for (; i < n; i++) rest += x[i] - x[i];
    V total = (zero[0] + zero[1]) + (zero[2] + zero[3]);
    for (int l = 0; l < L; l++) rest += total[l];
    return rest == 0;
}

/* Sums so many vectors of columns. */
INLINE void N(sum_columns)(const R *x, int64_t ld, int64_t n, R *sum, const int vectors) {
    V sums[4];
    for (int k = 0; k < vectors; k++) sums[k] = ALL(0);
    for (int64_t i = 0; i < n; i++, x += ld) {
        SH_UNROLL(4)
        for (int k = 0; k < vectors; k++) sums[k] += LOAD(x + k * L);
    }
    for (int k = 0; k < vectors; k++) STORE(sum + k * L, sums[k]);
}

static void N(sum_rows)(const void *rows, int64_t ld, int64_t n, int64_t d, void *to) {
    const R *x = rows;
    R *sum = to;
    int64_t c = 0;
    for (; c + 4 * L <= d; c += 4 * L) N(sum_columns)(x + c, ld, n, sum + c, 4);
    for (; c + L <= d; c += L) N(sum_columns)(x + c, ld, n, sum + c, 1);
    for (; c < d; c++) {
        R total = 0;
        for (int64_t i = 0; i < n; i++) total += x[i * ld + c];
        sum[c] = total;
    }
}

static void N(add_rows)(void *to, const void *from, int64_t n) {
    R *x = to;
    const R *y = from;
    for (int64_t i = 0; i < n; i += L) STORE(x + i, LOAD(x + i) + LOAD(y + i));
}

INLINE R N(sum_of_lanes)(V x) { return N(sum_of_groups)(x, L)[0]; }

static void N(normalize)(const void *from, int64_t n, int64_t e, double eps, void *to, void *roots) {
    const R *x = from;
    R *xhat = to, *rstd = roots;
    const R inverse = (R)1 / (R)e;
    int64_t i = 0;
    if (e <= L && (e & (e - 1)) == 0) /* short rows: several in one vector */
        for (; (i + L / e) * e <= n * e; i += L / e) {
            V row = LOAD(x + i * e);
            row -= N(sum_of_groups)(row, e) * inverse;
            R roots_of[L];
            STORE(roots_of, N(sum_of_groups)(row * row, e) * inverse + (R)eps);
            for (int l = 0; l < L; l++)
                roots_of[l] = (R)1 / (sizeof(R) == 4 ? (R)sqrtf((float)roots_of[l]) : (R)sqrt((double)roots_of[l]));
            V root = LOAD(roots_of);
            STORE(xhat + i * e, row * root);
            for (int64_t r = 0; r < L / e; r++) rstd[i + r] = root[r * e];
        }
    for (; i < n; i++) {
        const R *row = x + i * e;
        R *out = xhat + i * e, mean = 0, variance = 0;
        V sum[2] = {ALL(0), ALL(0)};
        int64_t c = 0;
        for (; c + 2 * L <= e; c += 2 * L) {
            sum[0] += LOAD(row + c);
            sum[1] += LOAD(row + c + L);
        }
        for (; c < e; c++) mean += row[c];
        mean = (mean + N(sum_of_lanes)(sum[0] + sum[1])) * inverse;
        sum[0] = sum[1] = ALL(0);
        for (c = 0; c + 2 * L <= e; c += 2 * L) {
            V a = LOAD(row + c) - mean, b = LOAD(row + c + L) - mean;
            sum[0] = N(fma)(a, a, sum[0]);
            sum[1] = N(fma)(b, b, sum[1]);
        }
        for (; c < e; c++) variance += (row[c] - mean) * (row[c] - mean);
        variance = (variance + N(sum_of_lanes)(sum[0] + sum[1])) * inverse + (R)eps;
        const R root = (R)1 / (sizeof(R) == 4 ? (R)sqrtf((float)variance) : (R)sqrt((double)variance));
        for (c = 0; c < e; c++) out[c] = (row[c] - mean) * root;
        rstd[i] = root;
    }
}

static void N(normalize_back)(const void *hats, const void *roots, const void *grads, int64_t n, int64_t e, void *to) {
    const R inverse = (R)1 / (R)e;
    for (int64_t i = 0; i < n; i++) {
        const R *xhat = (const R *)hats + i * e, *g = (const R *)grads + i * e, root = ((const R *)roots)[i];
        R *dx = (R *)to + i * e, mean = 0, along = 0;
        V sum = ALL(0), dot = ALL(0);
        int64_t c = 0;
        for (; c + L <= e; c += L) {
            V a = LOAD(g + c);
            sum += a;
            dot = N(fma)(a, LOAD(xhat + c), dot);
        }
        for (; c < e; c++) {
            mean += g[c];
            along += g[c] * xhat[c];
        }
        mean = (mean + N(sum_of_lanes)(sum)) * inverse;
        along = (along + N(sum_of_lanes)(dot)) * inverse;
        for (c = 0; c < e; c++) dx[c] = (g[c] - mean - xhat[c] * along) * root;
    }
}

static void N(fold)(const void *weight, const void *bias, const void *gains, const void *shifts, int64_t n, int64_t e,
                    void *folds, void *moves) {
    const R *w = weight, *b = bias, *gain = gains, *shift = shifts;
    R *folded = folds, *moved = moves;
    for (int64_t i = 0; i < n; i++, w += e, folded += e) {
        V sum[2] = {ALL(0), ALL(0)};
        R rest = b ? b[i] : 0;
        int64_t c = 0;
        for (; c + 2 * L <= e; c += 2 * L) {
            SH_UNROLL(2)
            for (int k = 0; k < 2; k++) {
                V x = LOAD(w + c + k * L);
                sum[k] = N(fma)(x, LOAD(shift + c + k * L), sum[k]);
                STORE(folded + c + k * L, x * LOAD(gain + c + k * L));
            }
        }
        for (; c < e; c++) {
            rest += w[c] * shift[c];
            folded[c] = w[c] * gain[c];
        }
        moved[i] = rest + N(sum_of_lanes)(sum[0] + sum[1]);
    }
}

/* Unfolds so many vectors of columns: their sums stay in registers. */
INLINE void N(unfold_columns)(const R *dfolded, const R *moved, const R *w, const R *gains, const R *shifts, int64_t n,
                              int64_t row, R *dw, R *dgain, R *dshift, const int vectors) {
    V gain[4], shift[4], to_gain[4], to_shift[4];
    for (int k = 0; k < vectors; k++) {
        gain[k] = LOAD(gains + k * L);
        shift[k] = LOAD(shifts + k * L);
        to_gain[k] = to_shift[k] = ALL(0);
    }
    for (int64_t i = 0; i < n; i++, w += row, dfolded += row, dw += row) {
        SH_UNROLL(4)
        for (int k = 0; k < vectors; k++) {
            V d = LOAD(dfolded + k * L), weight = LOAD(w + k * L);
            to_gain[k] = N(fma)(d, weight, to_gain[k]);
            to_shift[k] = N(fma)(ALL(moved[i]), weight, to_shift[k]);
            STORE(dw + k * L, N(fma)(ALL(moved[i]), shift[k], d * gain[k]));
        }
    }
    for (int k = 0; k < vectors; k++) {
        STORE(dgain + k * L, to_gain[k]);
        STORE(dshift + k * L, to_shift[k]);
    }
}

static void N(unfold)(const void *dfolds, const void *dmoves, const void *weights, const void *gains,
                      const void *shifts, int64_t n, int64_t e, int64_t row, void *dweights, void *dgains,
                      void *dshifts) {
    const R *dfolded = dfolds, *moved = dmoves, *w = weights, *gain = gains, *shift = shifts;
    R *dw = dweights, *dgain = dgains, *dshift = dshifts;
    int64_t c = 0;
    for (; c + 4 * L <= e; c += 4 * L)
        N(unfold_columns)(dfolded + c, moved, w + c, gain + c, shift + c, n, row, dw + c, dgain + c, dshift + c, 4);
    for (; c + L <= e; c += L)
        N(unfold_columns)(dfolded + c, moved, w + c, gain + c, shift + c, n, row, dw + c, dgain + c, dshift + c, 1);
    for (; c < e; c++) {
        R to_gain = 0, to_shift = 0;
        for (int64_t i = 0; i < n; i++) {
            const R d = dfolded[i * row + c];
            to_gain += d * w[i * row + c];
            to_shift += moved[i] * w[i * row + c];
            dw[i * row + c] = d * gain[c] + moved[i] * shift[c];
        }
        dgain[c] = to_gain;
        dshift[c] = to_shift;
    }
}

static void N(adamw)(void *parameters, const void *grads, void *first, void *second, int64_t n, double a, double b,
                     double keep, double rate, double root, double eps) {
    R *restrict p = parameters, *restrict m = first, *restrict v = second;
    const R *restrict g = grads;
    const R share = (R)a, share2 = (R)b, kept = (R)keep, step = (R)rate, factor = (R)root, least = (R)eps;
    for (int64_t i = 0; i < n; i++) {
        m[i] += share * (g[i] - m[i]);
        v[i] += share2 * (g[i] * g[i] - v[i]);
        const R size = sizeof(R) == 4 ? (R)sqrtf((float)v[i]) : (R)sqrt((double)v[i]);
        p[i] = kept * p[i] - step * m[i] / (size * factor + least);
    }
}

static void N(total)(const void *weights, int64_t stride, int64_t n, void *total) {
    const R *p = weights;
    V sum[4] = {ALL(0), ALL(0), ALL(0), ALL(0)};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        SH_UNROLL(4)
        for (int k = 0; k < 4; k++) sum[k] += LOAD(p + (i + k) * stride);
    }
    for (; i < n; i++) sum[0] += LOAD(p + i * stride);
    STORE((R *)total, (sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* Returns numbers as integers in the same order; -NaN is the least of all, NaN the largest. */
INLINE IV N(ordered)(V x) {
    IV bits = (IV)x;
    return bits ^ ((bits >> (8 * sizeof(R) - 1)) & (sizeof(R) == 4 ? (I)INT32_MAX : (I)INT64_MAX));
}

INLINE IV N(among)(IV m, IV a, IV b) { return (m & a) | (~m & b); }

/* Returns bits: bit l tells whether m holds in lane l. */
INLINE uint32_t N(bits)(IV m) {
#if defined(MM) && defined(__AVX512VL__)
    return N(above)((V)(m & (IV)ALL(1)), ALL(0));
#elif WIDTH == 32
    return (uint32_t)(sizeof(R) == 4 ? MM(movemask_ps)((FLOATS)m) : MM(movemask_pd)((DOUBLES)m));
#else
    uint32_t bits = 0;
    for (int l = 0; l < L; l++) bits |= (uint32_t)(m[l] != 0) << l;
    return bits;
#endif
}

/* Finds the k-th best by bisection, in all lanes at once: at most as many passes as a number has bits, and fewer as soon as
 * exactly k are above. */
static int N(keep_best)(void *scores, int64_t stride, int64_t n, int64_t k, uint16_t *kept, int64_t kept_stride,
                        void *space) {
    R *s = scores;
    N(v_at) *order = space;
    const IV zero = {0}, least = zero + N(ordered)(ALL(sizeof(R) == 4 ? -FLT_MAX : -DBL_MAX))[0];
    const IV masked = N(ordered)(ALL(-INFINITY)), infinite = N(ordered)(ALL(INFINITY));
    IV top = least, not_a_number = zero;
    for (int64_t i = 0; i < n; i++) {
        IV x = N(ordered)(LOAD(s + i * stride) + ALL(0)); /* -0 + 0 is 0 */
        order[i] = (V)x;
        not_a_number |= (x >= infinite) | (x < masked);
        top = N(among)(x > top, x, top);
    }
    if (N(bits)(not_a_number)) return 0;
    IV low = least, high = top;
    while (N(bits)(low < high)) {
        IV middle = (low | high) - ((low ^ high) >> 1), count[2] = {zero, zero};
        int64_t i = 0;
        for (; i + 2 <= n; i += 2) {
            count[0] -= (IV)order[i] >= middle;
            count[1] -= (IV)order[i + 1] >= middle;
        }
        if (i < n) count[0] -= (IV)order[i] >= middle;
        count[0] += count[1];
        IV enough = count[0] >= (I)k;
        low = N(among)(enough, middle, low);
        high = N(among)(count[0] == (I)k, middle, N(among)(enough, high, middle - 1));
    }
    IV ties = zero + (I)k; /* how many of those that equal the k-th best are kept */
    for (int64_t i = 0; i < n; i++) ties += (IV)order[i] > low;
    for (int64_t i = 0; i < n; i++) {
        IV x = (IV)order[i], tie = (x == low) & (ties > 0), keep = (x > low) | tie;
        ties += tie;
        STORE(s + i * stride, N(pick)(keep, LOAD(s + i * stride), ALL(-INFINITY)));
        kept[i * kept_stride] = (uint16_t)N(bits)(keep);
    }
    return 1;
}

/* --- the maps ------------------------------------------------------------------------------------- */

/* Returns the largest score; gives what is reported of it (infinite or NaN where a score is); the smallest; and the sum
 * of the scores relative to the first. */
INLINE V N(largest)(const R *s, int64_t stride, int64_t n, V *reported, V *first, V *sum, V *smallest) {
    V base = n ? LOAD(s) : ALL(-INFINITY), best[4], sums[4], least[2] = {ALL(INFINITY), ALL(INFINITY)};
    base = N(pick)(base > ALL(-INFINITY), base, ALL(0));
    for (int k = 0; k < 4; k++) {
        best[k] = ALL(-INFINITY);
        sums[k] = ALL(0);
    }
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
        SH_UNROLL(4)
        for (int k = 0; k < 4; k++) {
            V x = LOAD(s + (j + k) * stride);
            best[k] = N(max)(x, best[k]); /* skips NaN, which the sum shows */
            least[k & 1] = N(min)(x, least[k & 1]);
            sums[k] += x - base;
        }
    }
    for (; j < n; j++) {
        V x = LOAD(s + j * stride);
        best[0] = N(max)(x, best[0]);
        least[0] = N(min)(x, least[0]);
        sums[0] += x - base;
    }
    *smallest = N(min)(least[0], least[1]);
    V top = N(max)(N(max)(best[0], best[1]), N(max)(best[2], best[3]));
    *sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    *first = base;
    *reported = N(pick)(*sum == *sum, top, *sum);
    return N(pick)(top > ALL(-INFINITY), top, ALL(0)); /* nothing but masks: -inf - 0 has no weight, and is no NaN */
}

/* softmax: th = (largest score, 1 / sum of exp); the threshold leaves exp(s - largest) */
static int64_t N(softmax_threshold)(void *scores, int64_t stride, int64_t n, double parameter, void *th, int32_t *list,
                                    void *best) {
    (void)parameter, (void)list;
    R *s = scores;
    V most[4] = {ALL(-INFINITY), ALL(-INFINITY), ALL(-INFINITY), ALL(-INFINITY)}, sums[2] = {ALL(0), ALL(0)};
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
        SH_UNROLL(4)
        for (int k = 0; k < 4; k++) most[k] = N(max)(LOAD(s + (j + k) * stride), most[k]); /* skips NaN */
    }
    for (; j < n; j++) most[0] = N(max)(LOAD(s + j * stride), most[0]);
    V found = N(max)(N(max)(most[0], most[1]), N(max)(most[2], most[3]));
    V top =
        N(pick)(found > ALL(-INFINITY), found, ALL(0)); /* nothing but masks: -inf - 0 has no weight, and is no NaN */
    for (j = 0; j + 2 <= n; j += 2) {
        V a = N(exp)(LOAD(s + j * stride) - top), b = N(exp)(LOAD(s + (j + 1) * stride) - top);
        sums[0] += a;
        sums[1] += b;
        STORE(s + j * stride, a);
        STORE(s + (j + 1) * stride, b);
    }
    if (j < n) {
        V a = N(exp)(LOAD(s + j * stride) - top);
        sums[0] += a;
        STORE(s + j * stride, a);
    }
    V total = sums[0] + sums[1];
    STORE((R *)best, N(pick)(total == total, found, total)); /* the sum shows NaN */
    STORE((R *)th, top);
    STORE((R *)th + L, N(pick)(total > ALL(0), ALL(1) / total, ALL(0)));
    return n;
}

static void N(softmax_finish)(const void *scores, int64_t stride, const int32_t *list, int64_t n, double parameter,
                              const void *th, void *weights, int64_t p_stride) {
    (void)parameter;
    const R *s = scores;
    R *p = weights;
    V inverse = LOAD((const R *)th + L);
    for (int64_t i = 0; i < n; i++) STORE(p + i * p_stride, LOAD(s + ROW(i) * stride) * inverse);
}

static void N(softmax_weights)(const void *scores, int64_t stride, const int32_t *list, int64_t n, double parameter,
                               const void *th, void *weights, int64_t p_stride) {
    (void)parameter;
    const R *s = scores;
    R *p = weights;
    V top = LOAD((const R *)th), inverse = LOAD((const R *)th + L);
    for (int64_t i = 0; i < n; i++) STORE(p + i * p_stride, N(exp)(LOAD(s + ROW(i) * stride) - top) * inverse);
}

static void N(softmax_vjp)(void *s, void *gradient, int64_t stride, int64_t n, double parameter, const void *th) {
    (void)parameter;
    R *p = s, *g = gradient;
    V top = LOAD((const R *)th), inverse = LOAD((const R *)th + L), dot[2] = {ALL(0), ALL(0)};
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        SH_UNROLL(2)
        for (int k = 0; k < 2; k++) {
            V weight = N(exp)(LOAD(p + (i + k) * stride) - top) * inverse;
            dot[k] = N(fma)(weight, LOAD(g + (i + k) * stride), dot[k]);
            STORE(p + (i + k) * stride, weight);
        }
    }
    if (i < n) {
        V weight = N(exp)(LOAD(p + i * stride) - top) * inverse;
        dot[0] = N(fma)(weight, LOAD(g + i * stride), dot[0]);
        STORE(p + i * stride, weight);
    }
    V mean = dot[0] + dot[1];
    for (i = 0; i < n; i++) STORE(g + i * stride, LOAD(p + i * stride) * (LOAD(g + i * stride) - mean));
}

/* sparsemax: th = (largest score, tau relative to it), p = max(s - top - tau, 0). Newton's method on sum p = 1 from
 * below: tau only grows, so a row that has left a support stays out, and tau is right once no support changes. It
 * starts from the larger of two bounds: no weight is above 1; and the threshold if all rows had weight. Where in every
 * lane they all have, as flat scores do, one more sum puts its rounding right, and that is all. */
INLINE void N(count_above)(V a, V *total, V *count, int32_t row, int32_t *list, int64_t *found) {
    MASK in = N(above)(a, ALL(0));
    *total = N(add_where)(in, *total, a);
    *count = N(add_where)(in, *count, ALL(1));
    list[*found] = row;
    *found += ANY(in);
}

static int64_t N(sparsemax_threshold)(void *scores, int64_t stride, int64_t n, double parameter, void *th,
                                      int32_t *list, void *best) {
    (void)parameter;
    const R *s = scores;
    const V one = ALL(1), zero = ALL(0);
    const R rows = (R)(n ? n : 1);
    V reported, first, sum, least, top = N(largest)(s, stride, n, &reported, &first, &sum, &least);
    V mean = (sum - one) / rows + (first - top); /* -inf with masks, and where it does not hold it is below -1 */
    if (!ANY(N(not_below)(mean, least - top))) {
        V excess[2] = {-one, zero};
        int64_t i = 0;
        for (; i + 2 <= n; i += 2) {
            excess[0] += (LOAD(s + i * stride) - top) - mean;
            excess[1] += (LOAD(s + (i + 1) * stride) - top) - mean;
        }
        if (i < n) excess[0] += (LOAD(s + i * stride) - top) - mean;
        for (i = 0; i < n; i++) list[i] = (int32_t)i;
        STORE((R *)best, reported);
        STORE((R *)th, top);
        STORE((R *)th + L, mean + (excess[0] + excess[1]) / rows);
        return n;
    }
    V tau = N(max)(mean, -one), before = N(pick)(mean > -one, ALL(rows), ALL(rows) + one);
    V total[2] = {zero, zero}, count[2] = {zero, zero};
    int64_t found = 0, j = 0;
    for (; j + 2 <= n; j += 2) {
        N(count_above)((LOAD(s + j * stride) - top) - tau, &total[0], &count[0], (int32_t)j, list, &found);
        N(count_above)((LOAD(s + (j + 1) * stride) - top) - tau, &total[1], &count[1], (int32_t)j + 1, list, &found);
    }
    if (j < n) N(count_above)((LOAD(s + j * stride) - top) - tau, &total[0], &count[0], (int32_t)j, list, &found);
    for (;;) {
        V sizes = count[0] + count[1];
        tau = N(max)(tau + (total[0] + total[1] - one) / N(max)(sizes, one), tau);
        if (!ANY(N(above)(before, sizes))) break;
        before = sizes;
        total[0] = total[1] = count[0] = count[1] = zero;
        int64_t kept = 0, i = 0;
        for (; i + 2 <= found; i += 2) {
            int32_t a = list[i], b = list[i + 1];
            N(count_above)((LOAD(s + a * stride) - top) - tau, &total[0], &count[0], a, list, &kept);
            N(count_above)((LOAD(s + b * stride) - top) - tau, &total[1], &count[1], b, list, &kept);
        }
        if (i < found) {
            int32_t a = list[i];
            N(count_above)((LOAD(s + a * stride) - top) - tau, &total[0], &count[0], a, list, &kept);
        }
        found = kept;
    }
    STORE((R *)best, reported);
    STORE((R *)th, top);
    STORE((R *)th + L, tau);
    return found;
}

static void N(sparsemax_weights)(const void *scores, int64_t stride, const int32_t *list, int64_t n, double parameter,
                                 const void *th, void *weights, int64_t p_stride) {
    (void)parameter;
    const R *s = scores;
    R *p = weights;
    V top = LOAD((const R *)th), tau = LOAD((const R *)th + L);
    for (int64_t i = 0; i < n; i++) STORE(p + i * p_stride, N(max)((LOAD(s + ROW(i) * stride) - top) - tau, ALL(0)));
}

static void N(sparsemax_vjp)(void *scores, void *gradient, int64_t stride, int64_t n, double parameter,
                             const void *th) {
    (void)parameter;
    R *p = scores, *g = gradient;
    const V zero = ALL(0), one = ALL(1), top = LOAD((const R *)th), tau = LOAD((const R *)th + L);
    V sum[2] = {zero, zero}, count[2] = {zero, zero};
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        SH_UNROLL(2)
        for (int k = 0; k < 2; k++) {
            V weight = N(max)((LOAD(p + (i + k) * stride) - top) - tau, zero);
            MASK in = N(above)(weight, zero);
            sum[k] = N(add_where)(in, sum[k], LOAD(g + (i + k) * stride));
            count[k] = N(add_where)(in, count[k], one);
            STORE(p + (i + k) * stride, weight);
        }
    }
    if (i < n) {
        V weight = N(max)((LOAD(p + i * stride) - top) - tau, zero);
        MASK in = N(above)(weight, zero);
        sum[0] = N(add_where)(in, sum[0], LOAD(g + i * stride));
        count[0] = N(add_where)(in, count[0], one);
        STORE(p + i * stride, weight);
    }
    V mean = (sum[0] + sum[1]) / N(max)(count[0] + count[1], one);
    for (i = 0; i < n; i++)
        STORE(g + i * stride, N(where)(N(above)(LOAD(p + i * stride), zero), LOAD(g + i * stride) - mean));
}

/* entmax: th = (largest score, u). For a = alpha - 1 <= 1/2, u is theta >= 0 relative to the largest score, p = [1 + a (s -
 * top - theta)]_+^(1/a): the form that has a limit at a = 0. For a = 1/2 (`half`) the power is a square. Above (`by_gap`),
 * where the sum loses digits that count, u = 1 - a theta, and p = [a (s - top) + u]_+^(1/a). `slope` is p^(1 - a) =
 * -dp/dtheta. */
INLINE V N(entmax_weight)(V x, V u, R a, const int half, const int by_gap, V *slope) {
    V base = by_gap ? x * a + u : (x - u) * a + (R)1;
    IV in = base > ALL(0);
    if (half) {
        V root = (V)(in & (IV)base);
        *slope = root;
        return root * root;
    }
    V least = ALL(sizeof(R) == 4 ? 1e-30 : 1e-290), power; /* log p */
    if (by_gap)
        power = N(log)(N(max)(base, least)) / a;
    else
        power = N(log1p)(N(pick)(base > least, x - u, (least - (R)1) / a) * a) / a;
    *slope = (V)(in & (IV)N(exp)(power * ((R)1 - a)));
    return (V)(in & (IV)N(exp)(power));
}

/* Beyond alpha = 2 theta loses the digits that count (entmax.c, note 1): th = (lowest score of the support, its weight
 * q), p = (a (s - lowest) + q^a)^(1/a). Powers lie on the scale of logarithms, where nothing leaves the range. */
typedef struct {
    R a;                        /* alpha - 1; where it is larger than this, weights are the same */
    V lowest, least, log_power; /* log_power = log q^a */
} N(steep);

/* Returns log(x) of any x >= 0, subnormal numbers among them; of 0 it is small enough to do no harm */
INLINE V N(log_of_any)(V x) {
    IV tiny = x < ALL(sizeof(R) == 4 ? 0x1p-126 : 0x1p-1022);
    return N(log)(N(pick)(tiny, x * (R)0x1p64, x)) - (V)(tiny & (IV)ALL(44.3614195558365));
}

INLINE R N(steep_a)(double parameter) {
    const double most = sizeof(R) == 4 ? 1e10 : 1e20;
    return (R)(parameter - 1 < most ? parameter - 1 : most);
}
INLINE N(steep) N(steep_at)(R a, V lowest, V least) { return (N(steep)){a, lowest, least, N(log_of_any)(least) * a}; }

/* Returns a weight, and gives its slope (q / p)^(a - 1) = dp/dq, at most 1: the gradient in units of that of the lowest. */
INLINE V N(steep_weight)(const N(steep) * t, V score, V *slope) {
    V above = score - t->lowest, log_part = N(log_of_any)(above * t->a);
    IV in = above >= ALL(0), edge = above == ALL(0), under = log_part < t->log_power;
    V log_ratio = log_part - t->log_power, ratio = N(exp)(N(min)(log_ratio, -log_ratio));
    V p = N(exp)((N(max)(log_part, t->log_power) + N(log1p)(ratio)) / t->a), numerator = N(pick)(under, ALL(1), ratio);
    *slope = (V)(in & (IV)N(pick)(edge, ALL(1), numerator / (ratio + (R)1) * (p / t->least)));
    return (V)(in & (IV)N(pick)(edge, t->least, p));
}

/* The support is decided by the sum of the weights of larger scores at the threshold that gives a score weight 0: the
 * distance below the largest score at which it reaches 1 is bisected by its bits, until all scores are decided. */
static int64_t N(steep_threshold)(const R *s, int64_t stride, int64_t n, double parameter, void *th, int32_t *list,
                                  void *best) {
    const R a = N(steep_a)(parameter);
    V reported, first, sum, least, top = N(largest)(s, stride, n, &reported, &first, &sum, &least);
    IV inside = {0}, outside = (IV)ALL((R)1 / a); /* the bits of distances in the support, and outside */
    for (int64_t j = 0; j < n; j++) list[j] = (int32_t)j;
    int64_t found = n, kept = 0;
    for (int pass = 0; pass < 64; pass++) {
        IV middle = inside + ((outside - inside) >> 1);
        IV undecided = {0};
        V total = ALL(0);
        kept = 0;
        for (int64_t i = 0; i < found; i++) {
            V distance = top - LOAD(s + list[i] * stride), above = (V)middle - distance;
            IV in = distance < (V)outside;
            undecided |= in & (distance > (V)inside);
            total += (V)((above > ALL(0)) & (IV)N(exp)(N(log_of_any)(above * a) / a));
            list[kept] = list[i];
            kept += ANY(N(above)((V)outside, distance));
        }
        found = kept;
        if (!ANY(N(above)((V)(undecided & (IV)ALL(1)), ALL(0)))) break;
        IV below = total < ALL(1);
        inside = (below & middle) | (~below & inside);
        outside = (below & outside) | (~below & middle);
    }
    V lowest = ALL(INFINITY), count = ALL(0);
    kept = 0;
    for (int64_t i = 0; i < found; i++) {
        V x = LOAD(s + list[i] * stride);
        IV in = top - x <= (V)inside;
        lowest = N(pick)(in, N(min)(x, lowest), lowest);
        count += (V)(in & (IV)ALL(1));
        list[kept] = list[i];
        kept += ANY(N(above)((V)(in & (IV)ALL(1)), ALL(0)));
    }
    found = kept;
    /* as in entmax.c: from 1/k Newton's steps come down to q, and end where rounding turns them */
    V q = ALL(1) / N(max)(count, ALL(1));
    for (int pass = 0; pass < 100; pass++) {
        const N(steep) t = N(steep_at)(a, lowest, q);
        V total = ALL(-1), slopes = ALL(0), slope;
        for (int64_t i = 0; i < found; i++) {
            total += N(steep_weight)(&t, LOAD(s + list[i] * stride), &slope);
            slopes += slope;
        }
        V next = N(max)(q - total / N(max)(slopes, ALL(1)), ALL(0));
        IV down = next < q;
        q = N(pick)(down, next, q);
        if (!ANY(N(above)((V)(down & (IV)ALL(1)), ALL(0)))) break;
    }
    STORE((R *)best, reported);
    STORE((R *)th, lowest);
    STORE((R *)th + L, q);
    return found;
}

static void N(steep_weights)(const R *s, int64_t stride, const int32_t *list, int64_t n, double parameter,
                             const void *th, R *p, int64_t p_stride) {
    const N(steep) t = N(steep_at)(N(steep_a)(parameter), LOAD((const R *)th), LOAD((const R *)th + L));
    V slope;
    for (int64_t i = 0; i < n; i++) STORE(p + i * p_stride, N(steep_weight)(&t, LOAD(s + ROW(i) * stride), &slope));
}

/* Gradients grow without bound as the least weight falls: beyond exp(`most`) of a slope they keep their direction. Where
 * all of g are equal they are 0, whatever that is multiplied by: means are taken above the g of the lowest score. */
static void N(steep_vjp)(R *s, R *g, int64_t stride, int64_t n, double parameter, const void *th) {
    const R a = N(steep_a)(parameter), most = sizeof(R) == 4 ? 80 : 700;
    V lowest = LOAD((const R *)th), q = N(max)(LOAD((const R *)th + L), ALL(sizeof(R) == 4 ? 1e-30 : 1e-290));
    const N(steep) t = N(steep_at)(a, lowest, q);
    V slope, sum = ALL(0), total = ALL(0), from = ALL(0);
    for (int64_t i = 0; i < n; i++) from = N(pick)(LOAD(s + i * stride) == lowest, LOAD(g + i * stride), from);
    for (int64_t i = 0; i < n; i++) {
        N(steep_weight)(&t, LOAD(s + i * stride), &slope);
        sum = N(fma)(slope, LOAD(g + i * stride) - from, sum);
        total += slope;
    }
    V mean = from + sum / N(max)(total, ALL(1)), factor = N(exp)(N(min)(N(log)(q) * ((R)1 - a), ALL(most)));
    for (int64_t i = 0; i < n; i++) {
        V p = N(steep_weight)(&t, LOAD(s + i * stride), &slope);
        STORE(g + i * stride, slope * (LOAD(g + i * stride) - mean) * factor);
        STORE(s + i * stride, p);
    }
}

INLINE int64_t N(entmax_threshold_of)(const R *s, int64_t stride, int64_t n, double parameter, void *th, int32_t *list,
                                      void *best, const int half, const int by_gap) {
    const double exact = parameter - 1;
    const R a = (R)exact;
    const V zero = ALL(0), one = ALL(1);
    V reported, first, sum, least, top = N(largest)(s, stride, n, &reported, &first, &sum, &least);
    /* theta is 0 if one row has all weight, and largest if all have the same: 0 <= theta <= (1 - n^-a) / a */
    const double log_power = -exact * log((double)(n ? n : 1)); /* log n^-a */
    V above_1 = by_gap ? one : zero, below_1 = ALL(by_gap ? exp(log_power) : -expm1(log_power) / exact), u = above_1;
    /* sum p is convex in u: Newton's method from where it is above 1 stays there */
    for (int64_t j = 0; j < n; j++) list[j] = (int32_t)j;
    int64_t found = n;
    for (int pass = 0; pass < 100; pass++) {
        V total = -one, slopes = zero;
        int64_t kept = 0;
        for (int64_t i = 0; i < found; i++) {
            int32_t row = list[i];
            V slope, p = N(entmax_weight)(LOAD(s + row * stride) - top, u, a, half, by_gap, &slope);
            total += p;
            slopes += slope;
            list[kept] = row; /* what has no weight where the sum is above 1 never has */
            kept += ANY(N(above)(p, zero));
        }
        found = kept;
        IV above = total > zero;
        above_1 = N(pick)(above, u, above_1);
        below_1 = N(pick)(above, below_1, u);
        slopes = N(max)(slopes, ALL(sizeof(R) == 4 ? 1e-30 : 1e-290));
        V step = total / slopes;
        if (!half) { /* far away, Newton's step on (sum p)^a: the norm of what p are powers of, which is nearly a line */
            /* (1 - sum^-a) / a of y = a log sum: where y is small the difference is all rounding, and the series is good */
            const V sum = total + one, log_sum = N(log)(N(max)(sum, one)), y = log_sum * a;
            const V series = log_sum * ((R)1 - y * ((R)0.5 - y * (R)(1.0 / 6)));
            const V far = sum * N(pick)(y > ALL(0.1), (one - N(exp)(-y)) / a, series) / slopes;
            step = N(pick)(total > ALL(0.1), far, step);
        }
        V next = by_gap ? u - step * a : u + step;
        IV outside = (next > N(max)(above_1, below_1)) | (next < N(min)(above_1, below_1));
        next = N(pick)(outside, (above_1 + below_1) * (R)0.5, next);
        V moved = N(max)(next - u, u - next);
        u = next;
        V size = by_gap ? u : N(max)(u, ALL(0.01));
        /* from above, a sum below 1 is one within rounding of it */
        if (!half) moved = (V)((total > zero) & (IV)moved);
        if (!ANY(N(above)(moved, ALL(sizeof(R) == 4 ? 1.2e-7 : 2.3e-16) * size))) break;
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < found; i++) {
        V slope, p = N(entmax_weight)(LOAD(s + list[i] * stride) - top, u, a, half, by_gap, &slope);
        list[kept] = list[i];
        kept += ANY(N(above)(p, zero));
    }
    STORE((R *)best, reported);
    STORE((R *)th, top);
    STORE((R *)th + L, u);
    return kept;
}

INLINE void N(entmax_weights_of)(const R *s, int64_t stride, const int32_t *list, int64_t n, R a, const void *th, R *p,
                                 int64_t p_stride, const int half, const int by_gap) {
    V slope, top = LOAD((const R *)th), u = LOAD((const R *)th + L);
    for (int64_t i = 0; i < n; i++)
        STORE(p + i * p_stride, N(entmax_weight)(LOAD(s + ROW(i) * stride) - top, u, a, half, by_gap, &slope));
}

INLINE void N(entmax_vjp_of)(R *s, R *g, int64_t stride, int64_t n, R a, const void *th, const int half,
                             const int by_gap) {
    V top = LOAD((const R *)th), u = LOAD((const R *)th + L), slope, sum = ALL(0), total = ALL(0);
    for (int64_t i = 0; i < n; i++) {
        N(entmax_weight)(LOAD(s + i * stride) - top, u, a, half, by_gap, &slope);
        sum = N(fma)(slope, LOAD(g + i * stride), sum);
        total += slope;
    }
    V mean = N(pick)(total > ALL(0), sum / total, ALL(0));
    for (int64_t i = 0; i < n; i++) {
        V p = N(entmax_weight)(LOAD(s + i * stride) - top, u, a, half, by_gap, &slope);
        STORE(g + i * stride, slope * (LOAD(g + i * stride) - mean));
        STORE(s + i * stride, p);
    }
}

/* One of the forms, which the loops are compiled for. */
#define FORM(of, ...)                                                                                                  \
    (parameter == 1.5  ? N(of)(__VA_ARGS__, 1, 0)                                                                      \
     : parameter < 1.5 ? N(of)(__VA_ARGS__, 0, 0)                                                                      \
                       : N(of)(__VA_ARGS__, 0, 1))

static int64_t N(entmax_threshold)(void *scores, int64_t stride, int64_t n, double parameter, void *th, int32_t *list,
                                   void *best) {
    return parameter > 2 ? N(steep_threshold)(scores, stride, n, parameter, th, list, best)
                         : FORM(entmax_threshold_of, scores, stride, n, parameter, th, list, best);
}
static void N(entmax_weights)(const void *scores, int64_t stride, const int32_t *list, int64_t n, double parameter,
                              const void *th, void *weights, int64_t p_stride) {
    parameter > 2 ? N(steep_weights)(scores, stride, list, n, parameter, th, weights, p_stride)
                  : FORM(entmax_weights_of, scores, stride, list, n, (R)(parameter - 1), th, weights, p_stride);
}
static void N(entmax_vjp)(void *scores, void *gradient, int64_t stride, int64_t n, double parameter, const void *th) {
    parameter > 2 ? N(steep_vjp)(scores, gradient, stride, n, parameter, th)
                  : FORM(entmax_vjp_of, scores, gradient, stride, n, (R)(parameter - 1), th);
}
#undef FORM

/* polynomial: th = (largest |score|, 1 / sum of (s / largest)^order); masks count as 0 */
INLINE V N(ratio)(V s, V scale) {
    V r = (V)((s > ALL(-INFINITY)) & (IV)s) / scale;
    return (V)((scale > ALL(0)) & (IV)r);
}
INLINE V N(power)(V x, int64_t order) {
    V p = ALL(1);
    for (; order; order >>= 1, x *= x)
        if (order & 1) p *= x;
    return p;
}

static int64_t N(polynomial_threshold)(void *scores, int64_t stride, int64_t n, double parameter, void *th,
                                       int32_t *list, void *best) {
    (void)list;
    const R *s = scores;
    V scale = ALL(0), sum = ALL(0), check = ALL(0);
    for (int64_t i = 0; i < n; i++) {
        V x = LOAD(s + i * stride);
        x = (V)((IV)x & ~(IV)(x == ALL(-INFINITY)));
        scale = N(max)(N(max)(x, -x), scale);
        check += x;
    }
    for (int64_t i = 0; i < n; i++) sum += N(power)(N(ratio)(LOAD(s + i * stride), scale), (int64_t)parameter);
    STORE((R *)best, N(pick)(check == check, scale, check));
    STORE((R *)th, scale);
    STORE((R *)th + L, N(pick)(sum == ALL(0), ALL(0), ALL(1) / sum));
    return n;
}

static void N(polynomial_weights)(const void *scores, int64_t stride, const int32_t *list, int64_t n, double parameter,
                                  const void *th, void *weights, int64_t p_stride) {
    const R *s = scores;
    R *p = weights;
    V scale = LOAD((const R *)th), inverse = LOAD((const R *)th + L);
    for (int64_t i = 0; i < n; i++)
        STORE(p + i * p_stride, N(power)(N(ratio)(LOAD(s + ROW(i) * stride), scale), (int64_t)parameter) * inverse);
}

static void N(polynomial_vjp)(void *scores, void *gradient, int64_t stride, int64_t n, double parameter,
                              const void *th) {
    R *s = scores, *g = gradient;
    int64_t order = (int64_t)parameter;
    V scale = LOAD((const R *)th), inverse = LOAD((const R *)th + L), mean = ALL(0);
    for (int64_t i = 0; i < n; i++)
        mean = N(fma)(N(power)(N(ratio)(LOAD(s + i * stride), scale), order) * inverse, LOAD(g + i * stride), mean);
    for (int64_t i = 0; i < n; i++) {
        V x = LOAD(s + i * stride), r = N(ratio)(x, scale), p_by_r = N(power)(r, order - 1) * inverse;
        V slope = p_by_r * (R)order / N(pick)(scale > ALL(0), scale, ALL(1));
        STORE(s + i * stride, p_by_r * r);
        STORE(g + i * stride, (V)((x > ALL(-INFINITY)) & (IV)(slope * (LOAD(g + i * stride) - mean))));
    }
}

/* --- one row ---------------------------------------------------------------------------------------- */

typedef float N(floats) __attribute__((vector_size(WIDTH / sizeof(R) * sizeof(float))));
typedef N(floats) N(floats_at) __attribute__((aligned(sizeof(float)), may_alias));
typedef int32_t N(float_bits) __attribute__((vector_size(WIDTH / sizeof(R) * sizeof(float))));

/* A base r of a weight, v = r^power, and v / r, which are 0 where r is not above 0; of general powers log v and 1 / r, too. */
typedef struct {
    V r, v, by_r, log_v, inverse;
} N(root);

INLINE V N(excess)(V z, V u, R a, const int form) { return form == SH_ROOT_POWER_1P ? (z - u) * a + (R)1 : z * a - u; }
INLINE N(root) N(root_of)(V z, V u, R a, R power, const int form) {
    const V r = N(excess)(z, u, a, form);
    const IV in = r > ALL(0);
    N(root) x = {.r = (V)(in & (IV)r)};
    if (form == SH_ROOT_LINE) {
        x.v = x.r;
        x.by_r = (V)(in & (IV)ALL(1));
    } else if (form == SH_ROOT_SQUARE) {
        x.v = x.r * x.r;
        x.by_r = x.r;
    } else {
        V log_r = N(log_and_inverse)(N(max)(r, ALL(sizeof(R) == 4 ? 1e-30 : 1e-290)), &x.inverse);
        if (form == SH_ROOT_POWER_1P)
            log_r += ((z - u) * a - (r - (R)1)) * x.inverse; /* what r lost to rounding (Kahan) */
        x.log_v = (V)(in & (IV)(log_r * power));
        x.v = (V)(in & (IV)N(exp)(x.log_v));
        x.inverse = (V)(in & (IV)x.inverse);
        x.by_r = x.v * x.inverse;
    }
    return x;
}

/* Reads up to L scores as z; -inf stands behind the last. */
INLINE V N(scores_at)(const float *s, int64_t n, R top) {
    N(floats) x;
    if (n >= L) {
        x = *(const N(floats_at) *)s;
    } else {
        for (int l = 0; l < L; l++) x[l] = l < n ? s[l] : -INFINITY;
    }
    return __builtin_convertvector(x, V) - top;
}

INLINE double N(sum_of)(V x) {
    double sum = 0;
    for (int l = 0; l < L; l++) sum += (double)x[l];
    return sum;
}

enum { N(KEPT) = 3 }; /* vectors of v, 1 / r and log v */

INLINE void N(root_sums_of)(const sh_roots *roots, const float *s, int64_t n, double top, double u, R *kept,
                            sh_root_sums *sums, const int form) {
    const R a = (R)roots->a, power = (R)roots->power;
    V times_r = ALL(0), total = ALL(0), slope = ALL(0);
    for (int64_t i = 0; i < n; i += L) {
        const N(root) x = N(root_of)(N(scores_at)(s + i, n - i, (R)top), ALL(u), a, power, form);
        times_r += x.v * x.r;
        total += x.v;
        slope += x.by_r;
        if (!kept || form == SH_ROOT_LINE || form == SH_ROOT_SQUARE) continue;
        STORE(kept + N(KEPT) * i, x.v);
        STORE(kept + N(KEPT) * i + L, x.inverse);
        STORE(kept + N(KEPT) * i + 2 * L, x.log_v);
    }
    *sums = (sh_root_sums){N(sum_of)(times_r), N(sum_of)(total), N(sum_of)(slope)};
}

/* Rounding of a (z - u) moves r by less than 2^-51 of it; other roundings of r are part of bounds->moved. General powers are
 * those before the step times (1 - step / r)^power, by its series, which leaves less than 2^-50
 * of them; where r is not large enough beside the step, they are taken anew. */
INLINE int N(root_weights_of)(const sh_roots *roots, const float *s, int64_t n, double top, double u,
                              const sh_root_bounds *bounds, const R *kept, float *p, sh_root_sums *sums,
                              const int form) {
    const int general = form == SH_ROOT_POWER || form == SH_ROOT_POWER_1P;
    const R a = (R)roots->a, power = (R)roots->power, factor = (R)bounds->factor, relative = (R)bounds->relative;
    const R by_moved = (R)(bounds->factor * roots->power * bounds->moved), by_log = general ? (R)0x1p-49 : 0;
    const R by_y = form == SH_ROOT_POWER_1P ? factor * power * (R)0x1p-51 : 0; /* 1 + y = r */
    const R step = (R)-bounds->step, large = (step < 0 ? -step : step) * 1000 * (power > 1 ? power : 1);
    const R second = (power - 1) / 2, third = (power - 2) / 3, fourth = (power - 3) / 4;
    V times_r = ALL(0), total = ALL(0), closest = ALL(INFINITY);
    N(float_bits) differ = {0};
    for (int64_t i = 0; i < n; i += L) {
        const V z = N(scores_at)(s + i, n - i, (R)top), r = N(excess)(z, ALL(u), a, form), distance = N(max)(r, -r);
        N(root) x;
        if (!general || ANY(N(above)(ALL(large), distance))) {
            x = N(root_of)(z, ALL(u), a, power, form);
        } else {
            const V y = LOAD(kept + N(KEPT) * i + L) * step;
            V series = N(fma)(y, ALL(fourth), ALL(1));
            series = N(fma)(y * third, series, ALL(1));
            series = N(fma)(y * second, series, ALL(1));
            series = N(fma)(y * power, series, ALL(1));
            x.r = N(max)(r, ALL(0));
            x.v = LOAD(kept + N(KEPT) * i) * series;
            x.by_r = x.v * LOAD(kept + N(KEPT) * i + L);
            x.log_v = LOAD(kept + N(KEPT) * i + 2 * L);
        }
        times_r += x.v * x.r;
        total += x.v;
        closest = N(min)(distance, closest);
        const V weight = x.v * factor;
        V error = weight * relative + x.by_r * by_moved;
        if (general) error -= weight * (x.log_v * by_log);
        if (form == SH_ROOT_POWER_1P) error += x.by_r * (((R)1 - x.r) * by_y);
        const N(floats) low = __builtin_convertvector(weight - error, N(floats));
        const N(floats) high = __builtin_convertvector(weight + error, N(floats));
        differ |= (N(float_bits))low ^ (N(float_bits))high;
        if (n - i >= L)
            *(N(floats_at) *)(p + i) = low;
        else
            for (int64_t l = 0; l < n - i; l++) p[i + l] = low[l];
    }
    *sums = (sh_root_sums){.times_r = N(sum_of)(times_r), .v = N(sum_of)(total)};
    int unknown = 0;
    for (int l = 0; l < L; l++) unknown |= differ[l] != 0 || !(closest[l] > (R)bounds->edge);
    return !unknown;
}

/* One of the forms, which the loops are compiled for. */
#define FORM(of, ...)                                                                                                  \
    (roots->form == SH_ROOT_LINE     ? N(of)(__VA_ARGS__, SH_ROOT_LINE)                                                \
     : roots->form == SH_ROOT_SQUARE ? N(of)(__VA_ARGS__, SH_ROOT_SQUARE)                                              \
     : roots->form == SH_ROOT_POWER  ? N(of)(__VA_ARGS__, SH_ROOT_POWER)                                               \
                                     : N(of)(__VA_ARGS__, SH_ROOT_POWER_1P))
static void N(root_sums)(const sh_roots *roots, const float *s, int64_t n, double top, double u, void *kept,
                         sh_root_sums *sums) {
    FORM(root_sums_of, roots, s, n, top, u, kept, sums);
}
static int N(root_weights)(const sh_roots *roots, const float *s, int64_t n, double top, double u,
                           const sh_root_bounds *bounds, const void *kept, float *p, sh_root_sums *sums) {
    return FORM(root_weights_of, roots, s, n, top, u, bounds, kept, p, sums);
}
#undef FORM

static const sh_lanes N(sh_lanes) = {
    .lanes = L,
    .size = sizeof(R),
    .scores = N(scores),
    .mix = N(mix),
    .spread = N(spread),
    .per_lane_scores = N(per_lane_scores),
    .per_lane_mix = N(per_lane_mix),
    .per_lane_spread = N(per_lane_spread),
    .apply = N(apply),
    .gather = N(gather),
    .scatter = N(scatter),
    .choose = N(choose),
    .inner = N(inner_product),
    .project = N(project),
    .project_back = N(project_back),
    .distance = N(distance),
    .drop = N(drop),
    .multiply = N(multiply),
    .add = N(add),
    .total = N(total),
    .keep_best = N(keep_best),
    .normalize = N(normalize),
    .normalize_back = N(normalize_back),
    .fold = N(fold),
    .unfold = N(unfold),
    .adamw = N(adamw),
    .sum_rows = N(sum_rows),
    .add_rows = N(add_rows),
    .finite = N(finite),
    .copy = N(copy),
    .root_sums = N(root_sums),
    .root_weights = N(root_weights),
    .map =
        {
            [SH_LANES_SPARSEMAX] = {N(sparsemax_threshold), N(sparsemax_weights), N(sparsemax_weights),
                                    N(sparsemax_vjp)},
            [SH_LANES_SOFTMAX] = {N(softmax_threshold), N(softmax_finish), N(softmax_weights), N(softmax_vjp)},
            [SH_LANES_ENTMAX] = {N(entmax_threshold), N(entmax_weights), N(entmax_weights), N(entmax_vjp)},
            [SH_LANES_POLYNOMIAL] = {N(polynomial_threshold), N(polynomial_weights), N(polynomial_weights),
                                     N(polynomial_vjp)},
        },
};
#undef N
#undef V
#undef LOW
#undef ROUNDER
#undef HIGH
#undef EXCHANGE
#undef OTHER
#undef ADD_OTHER
#undef COUNT
#undef IV
#undef L
#undef LOAD
#undef STORE
#undef ALL
#undef INLINE
#undef MM
#undef FLOATS
#undef DOUBLES
#undef BITS
#undef MASK
#undef ANY
#undef ROW
#undef R
#undef I
#undef S
