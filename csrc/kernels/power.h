/* power.h: x^e, log x and exp x in double-double arithmetic, without a branch, so that compilers vectorise loops of them.
 *
 * Everything is +, -, * and integers; no fused operation and no function of a C library. So the bits are the same under
 * every compiler, architecture and vector width (-ffp-contract=off). Pairs {high, low} stand for high + low.
 *
 * Notes  1. log x: x = 2^k m, m in [sqrt(1/2), sqrt 2). With c = 1/m to 16 bits, from a table, z = c m - 1 is exact as a
 *           pair, |z| <= 2^-8, and log x = k log 2 - log c + z - z^2/2 + z^3 (1/3 - z/4 + ... - z^7/10). The sum of the first
 *           two is exact in its leading part, a multiple of 2^-42; z^2 is split into an exact leading part and a rest;
 *           only the last term is rounded to 53 bits. Where x is within 2^-8 of 1, k = 0 and c = 1, so that the result
 *           is z and terms that are small beside it. The relative error is below 2^-67: the last term is
 *           at most z^2/3 < 2^-17.5 of the result, and its roundings and that of the sum with it at most 5 2^-53 of
 *           it; elsewhere |z| <= 2^-9, |log x| > 2^-9, and they are less. The series goes on with z^10/11 < 2^-83.
 *        2. t = e log x: e's leading 26 bits times the logarithm's are exact, and the other products are 2^-26 of t, so
 *           their roundings are 2^-78 of it.
 *        3. exp t: t = n log(2)/128 + r, |r| <= 2^-8.5, exp t = 2^(n div 128) 2^((n mod 128)/128) (1 + r + r^2/2 + ... +
 *           r^7/5040). The table's 26 leading bits times those of r are exact, and r^2/2 + ... < 2^-18 is rounded to 53
 *           bits, in at most 11 operations: the relative error is below 2^-67.
 *        4. So the pair is within (1 + |t|) 2^-67 of x^e, relatively. Where all of that interval rounds to one double, it
 *           is the correctly rounded power (Ziv 1991); about one in 3,000 is left to the caller.
 * Source Ziv 1991; Sibidanov, Zimmermann & Glondu 2022; Hubrecht, Jeannerod & Zimmermann 2023, for tables, pairs and the
 *        test; Dekker 1971
 */
#ifndef SH_POWER_H
#define SH_POWER_H
#include "kernels/power_table.h"
#include <math.h>
#include <string.h>

/* Left to themselves, some compilers call these functions in loops, which are not vectorised then. */
#define SH_INLINE static inline __attribute__((always_inline))

typedef struct {
    double high, low;
} sh_pair;

/* The exponent numerator / denominator, made by sh_exponent_of (separation/powers.h). */
typedef struct sh_exponent {
    double numerator, denominator;
    double high, low;     /* the quotient as a pair; */
    double leading, rest; /* high in two: 26 bits, and the others */
    double power_of_zero; /* 0^e */
} sh_exponent;

#define SH_POWER_RANGE 708.0 /* results between exp(-this) and exp(this) are normal numbers */

SH_INLINE uint64_t sh_bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
SH_INLINE double sh_double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Returns the leading 26 bits of x. */
SH_INLINE double sh_leading(double x) { return sh_double_of(sh_bits_of(x) & ~(uint64_t)0x7FFFFFF); }

/* Returns a + b as a pair, exactly if |a| >= |b| or a = 0 (Dekker 1971). */
SH_INLINE sh_pair sh_sum_of(double a, double b) {
    double sum = a + b;
    return (sh_pair){sum, b - (sum - a)};
}

/* Returns the number with these 11 bits for an exponent, 2^(bits - 1023); the bits above them are dropped. */
SH_INLINE double sh_power_of_2(uint64_t bits) { return sh_double_of(bits << 52); }

typedef struct {
    double mantissa, k;
    uint64_t exponent; /* k + 1024, of a normal number */
} sh_scaled;

/* Returns x = 2^k mantissa, sqrt(1/2) <= mantissa < sqrt 2 (to 7 bits), for 0 < x, not infinite. */
SH_INLINE sh_scaled sh_scaled_of(double x) {
    const double doublings = x < 0x1p-1022 ? 54 : 0, normal = x < 0x1p-1022 ? x * 0x1p54 : x;
    const uint64_t bits = sh_bits_of(normal);
    sh_scaled result = {.exponent = (bits - SH_LOG_START + ((uint64_t)1024 << 52)) >> 52};
    result.mantissa = sh_double_of(bits - ((result.exponent - 1024) << 52));
    result.k =
        sh_double_of(UINT64_C(0x4330000000000000) | result.exponent) - (0x1p52 + 1024) - doublings; /* from its bits */
    return result;
}

/* Returns log(x + x_low) (note 1), x > 0 and finite, |x_low| at most half a unit in the last place of x. Where `with_low` is
 * not set, x_low is taken for 0; where it is, x is in [2^-53, 2]. */
SH_INLINE sh_pair sh_log_pair(double x, double x_low, const int with_low) {
    const sh_scaled b = sh_scaled_of(x);
    const double m = b.mantissa;
    const uint64_t entry = (sh_bits_of(m) - SH_LOG_START) >> 44 & (SH_LOGS - 1);
    const double inverse = sh_log_table[entry].inverse;
    const double leading = sh_double_of(sh_bits_of(m) & ~(uint64_t)0x1FFFFF);  /* 32 bits */
    const double near = leading * inverse - 1, rest = (m - leading) * inverse; /* exact */
    double z = near + rest;
    const double from_rest = z - near;
    double z_low = (near - (z - from_rest)) + (rest - from_rest); /* near may be less than rest */
    if (with_low) {
        const sh_pair both = sh_sum_of(z, z_low + x_low * (sh_power_of_2(2047 - b.exponent) * inverse));
        z = both.high;
        z_low = both.low;
    }
    const double z1 = sh_leading(z), z2 = z - z1, square = z * z;
    const double tail = square * z *
                        ((1.0 / 3 - z * (1.0 / 4)) +
                         square * ((1.0 / 5 - z * (1.0 / 6)) +
                                   square * ((1.0 / 7 - z * (1.0 / 8)) + square * (1.0 / 9 - z * (1.0 / 10)))));
    const sh_pair first = sh_sum_of(b.k * SH_LN2_HIGH + sh_log_table[entry].high, z);
    const sh_pair second = sh_sum_of(first.high, z1 * z1 * -0.5);
    const double low = b.k * SH_LN2_LOW + sh_log_table[entry].low + z_low - ((z + z1) * z2 * 0.5 + z * z_low);
    return sh_sum_of(second.high, (low + first.low + second.low) + tail);
}

/* Returns t = e log x (note 2); its leading part may be infinite or NaN where that is beyond the range. */
SH_INLINE sh_pair sh_times_exponent(const sh_exponent *e, sh_pair log) {
    const double leading = sh_leading(log.high), rest = log.high - leading;
    return sh_sum_of(e->leading * leading,
                     e->leading * rest + e->rest * log.high + (e->low * log.high + e->high * log.low));
}

typedef struct {
    sh_pair value;  /* exp t = value 2^n, value about 1 to 2 */
    double steps;   /* n is this / SH_EXPS, rounded down */
    double scale;   /* 2^n, where |t| <= SH_POWER_RANGE */
    double small_1; /* exp t - 1, where |t| <= 2^-8.6 */
} sh_exp_parts;

/* Returns exp t (note 3), |t| <= 750; for any other t the result means nothing. */
SH_INLINE sh_exp_parts sh_exp_parts_of(sh_pair t) {
    const double magic = 0x1.8p52, shifted = t.high * SH_STEPS + magic, n = shifted - magic; /* rounds to an integer */
    const uint64_t bits = sh_bits_of(shifted), entry = bits & (SH_EXPS - 1);
    const double high = sh_exp_table[entry].high, low = sh_exp_table[entry].low;
    const sh_pair r = sh_sum_of(t.high - n * SH_STEP_HIGH, t.low - n * SH_STEP_LOW);
    const double x = r.high, square = x * x;
    const double tail =
        r.low + square * ((1.0 / 2 + x * (1.0 / 6)) +
                          square * ((1.0 / 24 + x * (1.0 / 120)) + square * (1.0 / 720 + x * (1.0 / 5040))));
    const double x1 = sh_leading(x), x2 = x - x1;
    const sh_pair sum = sh_sum_of(high, high * x1);
    const double rest = sum.low + (high * x2 + (low + (low * x + (high + low) * tail)));
    sh_exp_parts result = {.value = sh_sum_of(sum.high, rest), .steps = n, .small_1 = x + tail};
    result.scale = sh_power_of_2((bits + 1023 * SH_EXPS) / SH_EXPS);
    return result;
}

/* Returns how far `value` of exp t, t = e log x, may be from the exact one (note 4). */
SH_INLINE double sh_error_of(double value, double t) { return value * (0x1p-67 + fabs(t) * 0x1p-67); }

/* Returns (x + x_low)^e rounded correctly, or NaN where that is not known (note 4), or where x or the result is out of range. */
SH_INLINE double sh_power_fast(const sh_exponent *e, double x, double x_low, const int with_low) {
    const sh_pair t = sh_times_exponent(e, sh_log_pair(x, x_low, with_low));
    const sh_exp_parts p = sh_exp_parts_of(t);
    const double error = sh_error_of(p.value.high, t.high);
    const double left = p.value.high + (p.value.low - error), right = p.value.high + (p.value.low + error);
    const int known = (left == right) & (x <= 0x1.fffffffffffffp1023) & (fabs(t.high) <= SH_POWER_RANGE);
    const double result = known ? left * p.scale : NAN;
    return x <= 0 ? e->power_of_zero : result;
}

/* Returns p = (x + x_low)^e, x finite, within (1 + |log p|) 2^-50, relatively; 0 below exp(-SH_POWER_RANGE), infinity beyond
 * exp(SH_POWER_RANGE). In doubles alone, and without tables, which vectors are slow to read. log p is rounded six times at
 * most, by 2^-53 of it each, and the rest of the bound is for exp r:
 * log m = 2 (s + s^3/3 + ... + s^21/21), s = (m - 1) / (m + 1), |s| <= 0.172, and exp r by its series to r^13, |r| <= 0.347. */
SH_INLINE double sh_power_near(const sh_exponent *e, double x, double x_low, const int with_low) {
    const sh_scaled b = sh_scaled_of(x);
    const double f = with_low ? (b.mantissa - 1) + x_low * sh_power_of_2(2047 - b.exponent) : b.mantissa - 1;
    const double s = f / (2 + f), w = s * s;
    const double w2 = w * w, w4 = w2 * w2; /* short chains of operations: few numbers at a time are common */
    const double log =
        ((1.0 / 3 + w * (1.0 / 5)) + w2 * (1.0 / 7 + w * (1.0 / 9))) +
        w4 * (((1.0 / 11 + w * (1.0 / 13)) + w2 * (1.0 / 15 + w * (1.0 / 17))) + w4 * (1.0 / 19 + w * (1.0 / 21)));
    const double t = e->high * (b.k * 0x1.62e42fefa39efp-1 + (2 * s + 2 * s * (w * log)));
    const double magic = 0x1.8p52, shifted = t * 0x1.71547652b82fep+0 + magic, n = shifted - magic;
    const double r = (t - n * SH_LN2_HIGH) - n * SH_LN2_LOW;
    const double r2 = r * r, r4 = r2 * r2;
    const double series =
        ((1.0 / 2 + r * (1.0 / 6)) + r2 * (1.0 / 24 + r * (1.0 / 120))) +
        r4 * (((1.0 / 720 + r * (1.0 / 5040)) + r2 * (1.0 / 40320 + r * (1.0 / 362880))) +
              r4 * ((1.0 / 3628800 + r * (1.0 / 39916800)) + r2 * (1.0 / 479001600 + r * (1.0 / 6227020800))));
    const double p = 1 + (r + r2 * series);
    const double beyond = t > 0 ? INFINITY : 0;
    const double result = fabs(t) <= SH_POWER_RANGE ? p * sh_power_of_2(sh_bits_of(shifted) + 1023) : beyond;
    return x <= 0 ? e->power_of_zero : result;
}
#endif
