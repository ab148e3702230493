/* powers.c: powers rounded correctly: first by pairs of doubles (kernels/power.h), and where those leave the rounding
 * open, by integers of 320 bits behind the point.
 *
 * Notes  1. A fixed-point number has one word before the point and five behind it. Products and quotients are cut off,
 *           so each is off by at most 6 2^-320.
 *        2. log b = k log 2 + 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1), b = 2^k m, |s| <= 0.172; m is exact.
 *           t = log b times the exponent, |t| < 750. exp t = 2^n exp r, 0 <= r < log 2, exp r = (exp(r / 256))^256 by its series.
 *           The exponent is below 2^64: the least |log b| of a double b is 2^-53, and that of 1 + y may be less, but
 *           there sh_power_1p asks for it. So t is off by less than 2^-245, and the result by as much, relatively.
 *        3. What lies within 2^-213 of the middle between two doubles is taken for the middle, and rounded to even. Some
 *           powers are middles, as 134217727^2 and 207001^3. There are at most 2^128 others, as many as pairs of
 *           doubles. As their bits look random, the chance that one of them at all lies so near to a middle is 2^-31.
 * Source Ziv 1991; Sibidanov, Zimmermann & Glondu 2022
 */
#include "separation/powers.h"
#include <float.h>

enum { WORDS = 6 };
typedef struct {
    uint64_t word[WORDS]; /* the highest first */
} fixed;

static const fixed ONE = {{1}};
static const fixed LN2 = {{0, SH_LN2_WORDS}};

/* Returns a + b. */
static fixed sum(fixed a, fixed b) {
    unsigned __int128 carry = 0;
    for (int i = WORDS; i-- > 0; carry >>= 64) {
        carry += (unsigned __int128)a.word[i] + b.word[i];
        a.word[i] = (uint64_t)carry;
    }
    return a;
}

/* Returns a - b, with its top bit set if that is negative. */
static fixed difference(fixed a, fixed b) {
    for (int i = 0; i < WORDS; i++) b.word[i] = ~b.word[i];
    return sum(sum(a, b), (fixed){.word[WORDS - 1] = 1});
}
static int negative(fixed a) { return a.word[0] >> 63; }
static int less(fixed a, fixed b) { return negative(difference(a, b)); }
static int zero(fixed a) {
    uint64_t bits = 0;
    for (int i = 0; i < WORDS; i++) bits |= a.word[i];
    return !bits;
}

/* Returns a b (note 1). */
static fixed product(fixed a, fixed b) {
    fixed result = {{0}};
    for (int i = WORDS; i-- > 0;) {
        uint64_t carry = 0;
        if (!a.word[i]) continue;
        for (int j = WORDS - i; j-- > 0;) {
            unsigned __int128 x = (unsigned __int128)a.word[i] * b.word[j] + result.word[i + j] + carry;
            result.word[i + j] = (uint64_t)x;
            carry = (uint64_t)(x >> 64);
        }
        if (i > 0) result.word[i - 1] = carry;
    }
    return result;
}

/* Returns a times a factor. */
static fixed multiple(fixed a, uint64_t factor) {
    unsigned __int128 carry = 0;
    for (int i = WORDS; i-- > 0; carry >>= 64) {
        carry += (unsigned __int128)a.word[i] * factor;
        a.word[i] = (uint64_t)carry;
    }
    return a;
}

/* Returns a / by; divisors below 2^32 are faster. */
static fixed quotient(fixed a, uint64_t by) {
    uint64_t remainder = 0;
    for (int i = 0; i < WORDS; i++) {
        if (!(remainder | a.word[i])) continue;
        if (by >> 32) {
            unsigned __int128 x = (unsigned __int128)remainder << 64 | a.word[i];
            a.word[i] = (uint64_t)(x / by);
            remainder = (uint64_t)(x % by);
        } else {
            uint64_t upper = remainder << 32 | a.word[i] >> 32, lower = (upper % by) << 32 | (uint32_t)a.word[i];
            a.word[i] = (upper / by) << 32 | lower / by;
            remainder = lower % by;
        }
    }
    return a;
}

/* Returns a 2^n. */
static fixed shifted(fixed a, int n) {
    const int up = n >= 0, words = (up ? n : -n) / 64, bits = (up ? n : -n) % 64;
    fixed result = {{0}};
    for (int i = 0; i < WORDS; i++) {
        const int from = up ? i + words : i - words, next = up ? from + 1 : from - 1;
        if (from < 0 || from >= WORDS) continue;
        result.word[i] = up ? a.word[from] << bits : a.word[from] >> bits;
        if (bits && next >= 0 && next < WORDS)
            result.word[i] |= up ? a.word[next] >> (64 - bits) : a.word[next] << (64 - bits);
    }
    return result;
}

/* Returns a to some 2^-64, and to 53 bits. */
static double approximate(fixed a) { return (double)a.word[0] + (double)a.word[1] * 0x1p-64; }

/* Returns x, 0 <= x < 2^63, without the bits that lie too low. */
static fixed fixed_of(double x) {
    int exponent;
    const uint64_t bits = (uint64_t)(frexp(x, &exponent) * 0x1p53);
    return shifted((fixed){{0, bits << 11}}, exponent);
}

/* Returns |log m| for sqrt(1/2) <= m <= sqrt 2 (note 2). */
static fixed log_near_1(fixed m) {
    const fixed below = difference(ONE, m), least = negative(below) ? difference(m, ONE) : below, most = sum(m, ONE);
    fixed inverse = fixed_of(1 / approximate(most));
    for (int step = 0; step < 3; step++) /* Newton's, from 53 bits on */
        inverse = product(inverse, difference(shifted(ONE, 1), product(most, inverse)));
    const fixed s = product(least, inverse), square = product(s, s);
    fixed term = ONE, series = ONE;
    for (uint64_t j = 3; !zero(term = product(term, square)); j += 2) series = sum(series, quotient(term, j));
    return shifted(product(s, series), 1);
}

/* Returns exp r for 0 <= r < log 2 (note 2). */
static fixed exp_of(fixed r) {
    fixed x = shifted(r, -8), term = x, result = ONE;
    for (uint64_t j = 2; !zero(term); j++) {
        result = sum(result, term);
        term = quotient(product(term, x), j);
    }
    for (int i = 0; i < 8; i++) result = product(result, result);
    return result;
}

/* Returns 2^n times 1 <= m < 2 rounded to nearest, ties to even (note 3). */
static double rounded(fixed m, int n) {
    const int places = n < -1022 ? n + 1074 : 52; /* behind the point */
    if (places < -1) return 0;
    m = shifted(m, places);
    const uint64_t half = UINT64_C(1) << 63, first = m.word[1] + 1, last = m.word[3] >> 32;
    const int above = first - 1 == half && !m.word[2] && !last;
    const int below = first == half && m.word[2] == UINT64_MAX && last == UINT32_MAX;
    const int up = above || below ? m.word[0] & 1 : m.word[1] >> 63;
    return ldexp((double)(m.word[0] + (uint64_t)up), n - places);
}

/* Returns (base + low)^e by integers, for 0 < base, not infinite, and a power within exp(-750) and exp(750). */
static double power_by_integers(double base, double low, const sh_exponent *e) {
    int k = 0, times_exponent, by_exponent;
    fixed m, log;
    if (low == 0)
        m = fixed_of(frexp(base, &k));
    else
        m = low < 0 ? difference(fixed_of(base), fixed_of(-low)) : sum(fixed_of(base), fixed_of(low));
    int position;
    const double mantissa = frexp(approximate(m), &position);
    position -= mantissa < 0x1.6a09e667f3bcdp-1; /* sqrt(1/2) */
    m = shifted(m, -position);
    k += position;
    /* |log b|, and its sign */
    const int above_1 = !less(m, ONE);
    log = log_near_1(m);
    const fixed whole = multiple(LN2, (uint64_t)(k < 0 ? -k : k));
    log = k == 0 || above_1 == (k > 0) ? sum(whole, log) : difference(whole, log);
    /* |t| and its sign; numerator and denominator with 53 bits each */
    const uint64_t times = (uint64_t)(frexp(fabs(e->numerator), &times_exponent) * 0x1p53);
    const uint64_t by = (uint64_t)(frexp(e->denominator, &by_exponent) * 0x1p53);
    const fixed t = shifted(quotient(multiple(log, times), by), times_exponent - by_exponent);
    const int falls = (k == 0 ? above_1 : k > 0) != (e->numerator > 0);
    /* exp t = 2^n exp r */
    int n = (int)(approximate(t) * 0x1.71547652b82fep0) + falls;
    fixed r = multiple(LN2, (uint64_t)n);
    r = falls ? difference(r, t) : difference(t, r);
    const int step = negative(r) ? 1 : less(r, LN2) ? 0 : -1;
    r = step > 0 ? sum(r, LN2) : step < 0 ? difference(r, LN2) : r;
    n = falls ? -(n + step) : n - step;
    return rounded(exp_of(r), n);
}

/* Returns numerator - high denominator, high the rounded quotient, to some 2^-78 of the numerator. */
static double remainder_of(double numerator, double denominator, double high) {
    const double a = sh_leading(high), b = high - a, c = sh_leading(denominator), d = denominator - c;
    return (((numerator - a * c) - a * d) - b * c) - b * d;
}

sh_exponent sh_exponent_of(double numerator, double denominator) {
    sh_exponent e = {.numerator = numerator, .denominator = denominator, .high = numerator};
    e.power_of_zero = numerator > 0 ? 0 : numerator < 0 ? INFINITY : 1;
    if (denominator != 1) {
        e.high = numerator / denominator;
        if (fabs(e.high) > 0x1p-900)
            e.low = remainder_of(numerator, denominator, e.high) / denominator; /* below, powers are 1 */
    }
    e.leading = sh_leading(e.high);
    e.rest = e.high - e.leading;
    return e;
}

/* Returns exp t rounded to a multiple of 2^-1074, as results are below exp(-SH_POWER_RANGE), or NaN where that is not known
 * (kernels/power.h, note 4); -750 < t < -SH_POWER_RANGE. */
static double subnormal(sh_pair t) {
    const sh_exp_parts p = sh_exp_parts_of(t);
    const int n = (int)floor(p.steps / SH_EXPS);
    /* adding `grid` rounds to units of the last place of the result; values beyond it, of normal numbers, have these units */
    const double unit = ldexp(1, -1074 - n), value = p.value.high, grid = value < unit * 0x1p52 ? unit * 0x1p52 : 0;
    const double whole = grid + value, rest = value - (whole - grid);
    const double error = sh_error_of(value, t.high) + unit * 0x1p-52; /* and of rounding the sums with `rest` */
    const double left = whole + (rest + (p.value.low - error)), right = whole + (rest + (p.value.low + error));
    return left == right ? ldexp(left - grid, n) : NAN;
}

/* Returns (base + low)^e where sh_power_fast does not know it. */
static double slow_power(double base, double low, const sh_exponent *e) {
    if (base != base) return base;
    if (base > DBL_MAX) return e->numerator > 0 ? base : e->numerator < 0 ? 0 : 1;
    const sh_pair log = sh_log_pair(base, low, low != 0);
    if (!(fabs(e->high * log.high) < 750)) return (e->numerator > 0) == (log.high > 0) ? INFINITY : 0;
    const sh_pair t = sh_times_exponent(e, log);
    const double p = t.high < -SH_POWER_RANGE ? subnormal(t) : NAN;
    return p == p ? p : power_by_integers(base, low, e);
}

static double power(double base, double low, const sh_exponent *e, const int with_low) {
    const double p = sh_power_fast(e, base, low, with_low);
    return p == p ? p : slow_power(base, low, e);
}
double sh_power(double x, const sh_exponent *e) { return power(x, 0, e, 0); }
double sh_power_1p(double y, const sh_exponent *e) {
    const double base = 1 + y;
    return power(base, y - (base - 1), e, 1);
}

/* Puts x[i]^e, or (1 + x[i])^e, in y[i]. */
static void powers(double *y, const double *x, int64_t n, const sh_exponent *e, sh_rounding rounding, int with_1) {
    if (e->numerator == 1 && e->denominator == 2 && !(with_1 && rounding == SH_ROUNDED)) { /* rounded correctly, too */
        for (int64_t i = 0; i < n; i++) y[i] = sqrt(x[i] + with_1 > 0 ? x[i] + with_1 : 0);
        return;
    }
    sh_kernels_of(SH_FLOAT64)->powers[with_1][rounding](y, x, n, e);
    int64_t last = 0; /* the number that slow_power took last: equal ones are common */
    for (int64_t i = 0; rounding == SH_ROUNDED && i < n; i++) {
        if (y[i] == y[i]) continue;
        const double base = with_1 ? 1 + x[i] : x[i];
        y[i] = last < i && x[last] == x[i] ? y[last] : slow_power(base, with_1 ? x[i] - (base - 1) : 0, e);
        last = i;
    }
}
void sh_powers(double *y, const double *x, int64_t n, const sh_exponent *e, sh_rounding rounding) {
    if (e->numerator == 2 && e->denominator == 1)
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * x[i];
    else
        powers(y, x, n, e, rounding, 0);
}
void sh_powers_1p(double *y, const double *x, int64_t n, const sh_exponent *e, sh_rounding rounding) {
    powers(y, x, n, e, rounding, 1);
}

double sh_power_less_1(double x, const sh_exponent *e) {
    const sh_pair t = sh_times_exponent(e, sh_log_pair(x, 0, 0));
    if (!(fabs(t.high) <= SH_POWER_RANGE)) return sh_power(x, e) - 1;
    const sh_exp_parts p = sh_exp_parts_of(t);
    if (fabs(t.high) < 0x1p-9) return p.small_1;
    return (p.value.high * p.scale - 1) + p.value.low * p.scale;
}

double sh_exp(double x) {
    const sh_exp_parts parts = sh_exp_parts_of((sh_pair){x, 0});
    return x >= -SH_POWER_RANGE ? parts.value.high * parts.scale : 0;
}

double sh_log(double x) { return sh_log_pair(x, /* x_low */ 0, /* with_low */ 0).high; }
