/* larger.h: a maximum for loops of tests. */
#ifndef SH_LARGER_H
#define SH_LARGER_H
/* Returns the larger of two, or NaN if either is, as an error that is NaN is one. fmax would lose that, and GCC 12 for aarch64
 * ends with an internal error where it vectorises a loop of it. */
static inline double larger(double a, double b) { return a > b || a != a ? a : b; }
#endif
