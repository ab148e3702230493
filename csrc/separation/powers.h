/* powers.h: powers, rounded correctly, without a C library's functions: the same bits under every compiler and library and
 * on every architecture. All are O(1) a number and allocate nothing. */
#ifndef SH_POWERS_H
#define SH_POWERS_H
#include "kernels/kernels.h"
#include "kernels/power.h"

/* Returns the exponent numerator / denominator, finite, denominator > 0. It is kept as the pair of numbers, so the
 * power is that of the exact quotient. */
sh_exponent sh_exponent_of(double numerator, double denominator);

/* Returns x^e for x >= 0, e the exact quotient: the double nearest to it, ties to even, subnormal results among them; 0^e
 * is 0, 1 or infinity. A negative x counts as 0. */
double sh_power(double x, const sh_exponent *e);
/* Returns (1 + y)^e, rounded in the same way from the exact sum, for -1 <= y <= 1 and |e| < 2^64. */
double sh_power_1p(double y, const sh_exponent *e);

typedef enum { SH_ROUNDED, SH_NEAR } sh_rounding;
/* Puts x[i]^e in y[i], x[i] >= 0: all rounded correctly, or (SH_NEAR, x[i] finite) within (1 + |log y|) 2^-50 of it,
 * relatively, and 0 or infinity beyond exp(-708) and exp(708). That is for sums of powers below 1, which it changes by
 * 2^-50 at most, and is three times as fast. y and x do not overlap. */
void sh_powers(double *y, const double *x, int64_t n, const sh_exponent *e, sh_rounding rounding);
/* Puts (1 + x[i])^e in y[i] in the same way. */
void sh_powers_1p(double *y, const double *x, int64_t n, const sh_exponent *e, sh_rounding rounding);

/* Returns exp x for x <= 0, and log x for x > 0 and finite, within 0.51 units in the last place; exp x is 0 below
 * -SH_POWER_RANGE. */
double sh_exp(double x);
double sh_log(double x);

/* Returns x^e - 1, x > 0, off by at most some 1 unit in the last place: 0.51 where that is small. */
double sh_power_less_1(double x, const sh_exponent *e);
#endif
