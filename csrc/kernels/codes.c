/* codes.c: the inner loops of codes.h; compiled once per instruction set, as kernels.c. */
#ifndef SH_VARIANT
#define SH_VARIANT base
#endif
#include "kernels/codes.h"
#include "kernels/vectors.h"
#include <math.h>
#include <string.h>

#if defined(__AVX512VNNI__)
#define COST 0.35
/* Appends those of 16 patterns whose bit is set in `mask`. */
static inline void append(sh_filter_query *q, __m512i bounds, __mmask16 mask, int64_t first) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i slots = _mm512_add_epi32(lanes, _mm512_set1_epi32((int32_t)first));
    const int n = __builtin_popcount(mask);
    const __mmask16 whole = (__mmask16)((1u << n) - 1);
    _mm512_mask_storeu_epi32(q->bound + q->found, whole, _mm512_maskz_compress_epi32(mask, bounds));
    _mm512_mask_storeu_epi32(q->slot + q->found, whole, _mm512_maskz_compress_epi32(mask, slots));
    q->found += n;
}

/* Q queries and 64 patterns at a time stay in registers: sums, bounds and comparison. Left to itself, GCC copies every
 * sum before each instruction that adds to it. */
#define UNROLL SH_UNROLL(4)
#define ADD_PRODUCTS(sum, x, p) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(p))
#define FILTER(Q)                                                                                                      \
    static inline void filter_##Q(const uint8_t *panel, float scale, int64_t quads, int64_t first,                     \
                                  sh_filter_query *const *q) {                                                         \
        __m512i sum[Q][4];                                                                                             \
        UNROLL for (int i = 0; i < Q; i++) UNROLL for (int j = 0; j < 4; j++) sum[i][j] =                              \
            _mm512_set1_epi32(q[i]->start);                                                                            \
        for (int64_t z = 0; z < quads; z++) {                                                                          \
            __m512i x[4];                                                                                              \
            UNROLL for (int j = 0; j < 4; j++) x[j] = _mm512_load_si512(panel + z * 256 + j * 64);                     \
            UNROLL for (int i = 0; i < Q; i++) {                                                                       \
                __m512i p = _mm512_set1_epi32(*(const int32_t *)(const void *)(q[i]->code + z * 4));                   \
                UNROLL for (int j = 0; j < 4; j++) ADD_PRODUCTS(sum[i][j], x[j], p);                                   \
            }                                                                                                          \
        }                                                                                                              \
        const float *error = (const float *)(const void *)(panel + quads * 256);                                       \
        __mmask16 mask[Q][4];                                                                                          \
        unsigned found = 0;                                                                                            \
        UNROLL for (int i = 0; i < Q; i++) {                                                                           \
            __m512 h = _mm512_set1_ps(q[i]->step * scale), r = _mm512_set1_ps(q[i]->error_radius),                     \
                   t = _mm512_set1_ps(q[i]->threshold);                                                                \
            UNROLL for (int j = 0; j < 4; j++) {                                                                       \
                __m512 added =                                                                                         \
                    _mm512_fmadd_ps(r, _mm512_load_ps(error + j * 16), _mm512_load_ps(error + 64 + j * 16));           \
                __m512 u = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][j]), h, added);                                   \
                sum[i][j] = _mm512_castps_si512(u);                                                                    \
                mask[i][j] = _mm512_cmp_ps_mask(u, t, _CMP_NLT_UQ);                                                    \
                found |= mask[i][j];                                                                                   \
            }                                                                                                          \
        }                                                                                                              \
        if (!found) return;                                                                                            \
        UNROLL for (int i = 0; i < Q; i++) UNROLL for (int j = 0; j < 4; j++) {                                        \
            if (!mask[i][j]) continue;                                                                                 \
            append(q[i], sum[i][j], mask[i][j], first + j * 16);                                                       \
        }                                                                                                              \
    }
FILTER(4)
FILTER(1)

static void filter(const uint8_t *panels, const float *scales, int64_t quads, int64_t first, int64_t last,
                   sh_filter_query *const *q, int64_t n) {
    size_t bytes = sh_panel_bytes(quads);
    for (int64_t g = first; g < last; g++) {
        const uint8_t *panel = panels + (size_t)g * bytes;
        int64_t i = 0;
        for (; i + 4 <= n; i += 4) filter_4(panel, scales[g], quads, g * SH_PANEL, q + i);
        for (; i < n; i++) filter_1(panel, scales[g], quads, g * SH_PANEL, q + i);
    }
}

#else
/* Without an instruction for sums of four products: bytes widened to 16 bits, products added in pairs. The sums of
 * 16 patterns come as 32 halves, each two columns of every quad. */
#if defined(__AVX512BW__)
#define COST 0.5
#define VECTOR __m512i
#define WIDEN(p) _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define PAIRS(a, b) _mm512_madd_epi16(a, b)
#define ADD(a, b) _mm512_add_epi32(a, b)
#define FOUR(x) _mm512_set1_epi64(x)
#define STORE(p, a) _mm512_storeu_si512(p, a)
#elif defined(__AVX2__)
#define COST 0.6
#define VECTOR __m256i
#define WIDEN(p) _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define PAIRS(a, b) _mm256_madd_epi16(a, b)
#define ADD(a, b) _mm256_add_epi32(a, b)
#define FOUR(x) _mm256_set1_epi64x(x)
#define STORE(p, a) _mm256_storeu_si256((__m256i *)(void *)(p), a)
#elif defined(__SSE2__)
#define COST 2.0
#define VECTOR __m128i
#define WIDEN(p) _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)(p)), _mm_setzero_si128())
#define PAIRS(a, b) _mm_madd_epi16(a, b)
#define ADD(a, b) _mm_add_epi32(a, b)
#define FOUR(x) _mm_set1_epi64x(x)
#define STORE(p, a) _mm_storeu_si128((__m128i *)(void *)(p), a)
#elif defined(__ARM_FEATURE_DOTPROD)
#define COST 0.5
#elif defined(SH_NEON)
#define COST 1.0
#else
#define COST 2.0
#endif

/* Computes sums[l] = start + the dot product of a query's code with that of pattern l, of 16 */
#ifdef VECTOR
static inline void sums_of(const uint8_t *codes, int64_t quads, const int8_t *code, int32_t start, int32_t *sums) {
    enum { BYTES = sizeof(VECTOR) / 2, PARTS = 64 / BYTES };
    VECTOR sum[PARTS];
    int32_t halves[32];
    for (int j = 0; j < PARTS; j++) sum[j] = FOUR(0);
    for (int64_t z = 0; z < quads; z++) {
        const int8_t *c = code + z * 4;
        uint64_t four = (uint16_t)c[0] | (uint64_t)(uint16_t)c[1] << 16 | (uint64_t)(uint16_t)c[2] << 32 |
                        (uint64_t)(uint16_t)c[3] << 48;
        VECTOR p = FOUR((int64_t)four);
        for (int j = 0; j < PARTS; j++) sum[j] = ADD(sum[j], PAIRS(WIDEN(codes + z * 256 + j * BYTES), p));
    }
    for (int j = 0; j < PARTS; j++) STORE(halves + j * (int)(sizeof(VECTOR) / 4), sum[j]);
    for (int l = 0; l < 16; l++) sums[l] = start + halves[2 * l] + halves[2 * l + 1];
}
#elif defined(SH_NEON)
/* Codes are made signed again, so that `start`, which makes up for what was added to them, is not needed. */
static inline void sums_of(const uint8_t *codes, int64_t quads, const int8_t *code, int32_t start, int32_t *sums) {
    const uint8x16_t added = vdupq_n_u8(128);
    (void)start;
#ifdef __ARM_FEATURE_DOTPROD
    int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int64_t z = 0; z < quads; z++) {
        int32_t four;
        memcpy(&four, code + z * 4, sizeof four);
        const int8x16_t p = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (int j = 0; j < 4; j++)
            sum[j] = vdotq_s32(sum[j], vreinterpretq_s8_u8(veorq_u8(vld1q_u8(codes + z * 256 + j * 16), added)), p);
    }
    for (int j = 0; j < 4; j++) vst1q_s32(sums + j * 4, sum[j]);
#else
    int32x4_t sum[8]; /* of two columns of a quad each */
    for (int j = 0; j < 8; j++) sum[j] = vdupq_n_s32(0);
    for (int64_t z = 0; z < quads; z++) {
        int32_t four;
        memcpy(&four, code + z * 4, sizeof four);
        const int8x16_t p = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (int j = 0; j < 4; j++) {
            const int8x16_t x = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(codes + z * 256 + j * 16), added));
            sum[2 * j] = vpadalq_s16(sum[2 * j], vmull_s8(vget_low_s8(x), vget_low_s8(p)));
            sum[2 * j + 1] = vpadalq_s16(sum[2 * j + 1], vmull_high_s8(x, p));
        }
    }
    for (int j = 0; j < 4; j++) vst1q_s32(sums + j * 4, vpaddq_s32(sum[2 * j], sum[2 * j + 1]));
#endif
}
#else
static inline void sums_of(const uint8_t *codes, int64_t quads, const int8_t *code, int32_t start, int32_t *sums) {
    for (int l = 0; l < 16; l++) sums[l] = start;
    for (int64_t z = 0; z < quads; z++)
        for (int l = 0; l < 16; l++)
            for (int c = 0; c < 4; c++) sums[l] += (int32_t)codes[z * 256 + l * 4 + c] * code[z * 4 + c];
}
#endif

/* Appends those of 16 patterns whose bit is set in `mask`. */
static inline void append(sh_filter_query *q, const float *bounds, unsigned mask, int64_t first) {
    for (; mask; mask &= mask - 1) {
        int l = __builtin_ctz(mask);
        q->slot[q->found] = (int32_t)(first + l);
        q->bound[q->found++] = bounds[l];
    }
}

static void filter(const uint8_t *panels, const float *scales, int64_t quads, int64_t first, int64_t last,
                   sh_filter_query *const *q, int64_t n) {
    size_t bytes = sh_panel_bytes(quads);
    for (int64_t g = first; g < last; g++) {
        const uint8_t *panel = panels + (size_t)g * bytes;
        const float *error = (const float *)(const void *)(panel + quads * 256), *bias = error + SH_PANEL;
        for (int64_t i = 0; i < n; i++) {
            const float step = q[i]->step * scales[g];
            for (int j = 0; j < SH_PANEL; j += 16) {
                int32_t sums[16];
                float bounds[16];
                unsigned mask = 0;
                sums_of(panel + j * 4, quads, q[i]->code, q[i]->start, sums);
                for (int l = 0; l < 16; l++)
                    bounds[l] = (float)sums[l] * step + (q[i]->error_radius * error[j + l] + bias[j + l]);
                for (int l = 0; l < 16; l++) mask |= (unsigned)!(bounds[l] < q[i]->threshold) << l;
                append(q[i], bounds, mask, g * SH_PANEL + j);
            }
        }
    }
}
#endif

/* --- boxes ------------------------------------------------------------------------------------------ */

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t lane_bits __attribute__((vector_size(4 * LANES)));

static inline lanes load(const float *p) {
    lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline lanes larger(lanes a, lanes b) {
#if defined(__AVX512F__)
    return (lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (lanes)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (lanes)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(SH_NEON)
    return (lanes)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
    const lane_bits more = a > b;
    return (lanes)((more & (lane_bits)a) | (~more & (lane_bits)b));
#endif
}

/* Computes the bounds of LANES boxes of a group; `group` points to the first of them. */
static inline lanes bounds_by_distance(const float *group, const sh_box_query *q) {
    lanes sum = {0};
    for (int c = 0; c < SH_BOX_COLUMNS; c++) {
        const lanes below = load(group + 2 * c * SH_GROUP) - q->most[c],
                    above = q->least[c] - load(group + (2 * c + 1) * SH_GROUP),
                    apart = larger(larger(below, above), (lanes){0});
        sum += apart * apart;
    }
    return q->start + (load(group + 2 * SH_BOX_COLUMNS * SH_GROUP) - (0.5f - 0x1p-13f) * sum);
}
static inline lanes bounds_by_products(const float *group, const sh_box_query *q) {
    lanes sum = {0};
    for (int c = 0; c < SH_BOX_COLUMNS; c++) /* the larger product is that of the end on the query's side */
        sum += q->most[c] * load(group + (2 * c + (q->most[c] > 0)) * SH_GROUP);
    return q->start + (load(group + 2 * SH_BOX_COLUMNS * SH_GROUP) + sum);
}
static inline lanes bounds_of_boxes(const float *group, int by_distance, const sh_box_query *q) {
    return by_distance ? bounds_by_distance(group, q) : bounds_by_products(group, q);
}

static void best_panels(const float *boxes, int64_t groups, int by_distance, const sh_box_query *q, float *best,
                        int32_t *panel) {
    for (int first = 0; first < SH_GROUP; first += LANES) {
        lanes most = {0};
        lane_bits group = {0};
        most -= INFINITY;
        group -= 1;
        for (int64_t g = 0; g < groups; g++) {
            const lanes bounds = bounds_of_boxes(boxes + g * SH_GROUP_FLOATS + first, by_distance, q);
            const lane_bits more = bounds > most;
            group = (more & (int32_t)g) | (~more & group);
            most = larger(bounds, most);
        }
        for (int l = 0; l < LANES; l++) {
            best[first + l] = most[l];
            panel[first + l] = group[l] < 0 ? -1 : group[l] * SH_GROUP + first + l;
        }
    }
}

/* Returns a bit for each lane that is not below a threshold. */
static inline unsigned not_below(lanes v, float threshold) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(threshold), _CMP_NLT_UQ);
#elif defined(__AVX2__)
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_set1_ps(threshold), _CMP_NLT_UQ));
#else
    unsigned mask = 0;
    for (int l = 0; l < LANES; l++) mask |= (unsigned)!(v[l] < threshold) << l;
    return mask;
#endif
}

static void open_panels(const float *group, int by_distance, sh_filter_query *const *q, int64_t n, uint16_t *open) {
    for (int64_t i = 0; i < n; i++) {
        unsigned mask = 0;
        for (int l = 0; l < SH_GROUP; l += LANES)
            mask |= not_below(bounds_of_boxes(group + l, by_distance, &q[i]->box), q[i]->threshold) << l;
        open[i] = (uint16_t)mask;
    }
}

/* --- records ---------------------------------------------------------------------------------------- */

#if defined(__AVX512BW__)
static inline float record_dot(const int8_t *code, const float *b, int64_t n) {
    __m512 sum[4];
    int64_t j = 0;
    for (int l = 0; l < 4; l++) sum[l] = _mm512_setzero_ps();
#define CODES(p) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(p))
    for (; j + 64 <= n; j += 64)
        for (int l = 0; l < 4; l++)
            sum[l] = _mm512_fmadd_ps(CODES(_mm_loadu_si128((const __m128i *)(const void *)(code + j + l * 16))),
                                     _mm512_loadu_ps(b + j + l * 16), sum[l]);
    for (int l = 0; j < n; j += 16, l++) {
        __mmask16 mask = n - j < 16 ? (__mmask16)((1u << (n - j)) - 1) : 0xffff;
        sum[l] =
            _mm512_fmadd_ps(CODES(_mm_maskz_loadu_epi8(mask, code + j)), _mm512_maskz_loadu_ps(mask, b + j), sum[l]);
    }
#undef CODES
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}
#else
static inline float record_dot(const int8_t *code, const float *b, int64_t n) {
    enum { SUMS = 32, TAIL = 8 };
    float sum[SUMS] = {0};
    int64_t j = 0;
    for (; j + SUMS <= n; j += SUMS)
        for (int l = 0; l < SUMS; l++) sum[l] += b[j + l] * (float)code[j + l];
    for (int l = 0; j + TAIL <= n; j += TAIL, l += TAIL)
        for (int m = 0; m < TAIL; m++) sum[l + m] += b[j + m] * (float)code[j + m];
    for (int l = 0; j < n; j++, l++) sum[l] += b[j] * (float)code[j];
    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}
#endif

static void record_dots(const char *records, size_t record_bytes, const int32_t *slot, int64_t count, const float *b,
                        int64_t columns, float *dots) {
    enum { AHEAD = 8, LINE = 64 };
    for (int64_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            for (size_t offset = 0; offset < record_bytes; offset += LINE)
                __builtin_prefetch(records + (size_t)slot[i + AHEAD] * record_bytes + offset);
        dots[i] = record_dot((const int8_t *)records + (size_t)slot[i] * record_bytes, b, columns);
    }
}

static float largest_ratio(const float *a, const float *inverse, int64_t n) {
    enum { LANES = 16 };
    float largest[LANES] = {0};
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES)
        for (int l = 0; l < LANES; l++) {
            float ratio = fabsf(a[j + l] * inverse[j + l]);
            largest[l] = ratio > largest[l] ? ratio : largest[l];
        }
    for (int l = 0; j < n; j++, l++) {
        float ratio = fabsf(a[j] * inverse[j]);
        largest[l] = ratio > largest[l] ? ratio : largest[l];
    }
    for (int l = 1; l < LANES; l++) largest[0] = largest[l] > largest[0] ? largest[l] : largest[0];
    return largest[0];
}

static sh_code_loss encode(const float *a, const float *step, const float *inverse, float scale, int64_t n,
                           int8_t *code) {
    const float inverse_scale = 1 / scale;
    const double wide_scale = (double)scale;
    enum { SUMS = 16 };
    double error2[SUMS] = {0}, decoded2[SUMS] = {0};
    int32_t code2 = 0; /* at most 127^2 a column: 133,000 columns fit */
    sh_code_loss result = {0};
    int64_t j = 0;
    for (; j < n; j++) { /* adding 1.5 * 2^23 rounds to an integer */
        float scaled = a[j] * inverse[j] * inverse_scale;
        scaled = scaled > 127 ? 127 : scaled < -127 ? -127 : scaled;
        code[j] = (int8_t)((scaled + 12582912.0f) - 12582912.0f);
    }
    for (j = 0; j < n; j++) code2 += (int32_t)code[j] * code[j];
    for (j = 0; j + SUMS <= n; j += SUMS)
        for (int l = 0; l < SUMS; l++) {
            double decoded = wide_scale * (double)step[j + l] * (double)code[j + l], error = (double)a[j + l] - decoded;
            error2[l] += error * error;
            decoded2[l] += decoded * decoded;
        }
    for (int l = 0; j < n; j++, l++) {
        double decoded = wide_scale * (double)step[j] * (double)code[j], error = (double)a[j] - decoded;
        error2[l] += error * error;
        decoded2[l] += decoded * decoded;
    }
    for (int l = 0; l < SUMS; l++) {
        result.error2 += error2[l];
        result.decoded2 += decoded2[l];
    }
    result.code2 = code2;
    return result;
}

#define TABLE SH_CAT(sh_codes_, SH_VARIANT)
extern const sh_code_kernels TABLE;
const sh_code_kernels TABLE = {.cost = COST,
                               .filter = filter,
                               .best_panels = best_panels,
                               .open_panels = open_panels,
                               .record_dots = record_dots,
                               .largest_ratio = largest_ratio,
                               .encode = encode};
