/* The powers of separation/powers.h: one by one and in rows of every length against power_cases.h, and the bits of many,
 * which are the same under every compiler, on every architecture and instruction set, and whatever the C library.
 *
 * Returns 0 if all hold. */
#include "separation/powers.h"
#include "check.h"
#include "power_cases.h"

enum { CASES = sizeof power_cases / sizeof *power_cases, MANY = 20000 };
/* The digest of `many` powers; a new one is right only where power_cases.h still holds. */
static const uint64_t DIGEST = UINT64_C(0x3d1a4d04b2b8b9cb);

static int same(double a, double b) { return !memcmp(&a, &b, sizeof a); }

/* Counts a number that is not the one wanted, and say which. */
static void expect(int holds, const char *what, int at, double found, double wanted) {
    if (!check_at(holds, what, __FILE__, __LINE__) && checks_failed <= CHECKS_SHOWN)
        fprintf(stderr, "    case %d: %a instead of %a\n", at, found, wanted);
}

/* Checks one case by every function, at the end of rows of every length, among numbers whose powers are 0 and 1, and in rows
 * of it alone. */
static void one(int at) {
    const double x = power_cases[at].x, wanted = power_cases[at].power, less_1 = power_cases[at].less_1;
    const int plus_1 = power_cases[at].plus_1;
    const sh_exponent e = sh_exponent_of(power_cases[at].over, power_cases[at].under);
    const double found = plus_1 ? sh_power_1p(x, &e) : sh_power(x, &e);
    expect(same(found, wanted), "one", at, found, wanted);
    for (int n = 1; n <= 17; n++) {
        double in[17] = {0}, out[18], near[18], all[17], equal[17];
        in[n - 1] = x;
        out[n] = near[n] = -7; /* not written */
        (plus_1 ? sh_powers_1p : sh_powers)(out, in, n, &e, SH_ROUNDED);
        (plus_1 ? sh_powers_1p : sh_powers)(near, in, n, &e, SH_NEAR);
        expect(same(out[n - 1], wanted), "in a row", at, out[n - 1], wanted);
        for (int i = 0; i < n; i++) all[i] = i % 5 == 3 ? 1 : x;
        (plus_1 ? sh_powers_1p : sh_powers)(equal, all, n, &e, SH_ROUNDED);
        for (int i = 0; i < n; i++)
            if (i % 5 != 3) expect(same(equal[i], wanted), "in a row of it", at, equal[i], wanted);
        expect(out[n] == -7 && near[n] == -7, "behind the row", at, out[n], -7);
        const double size = fabs(log(wanted));
        if (size < SH_POWER_RANGE)
            expect(fabs(near[n - 1] - wanted) <= (1 + size) * 0x1p-50 * wanted, "near", at, near[n - 1], wanted);
    }
    if (plus_1) return;
    const double near = sh_power_less_1(x, &e);
    expect(near == less_1 || fabs(near - less_1) <= 0x1p-52 * fabs(less_1) + 0x1p-1074, "less 1", at, near, less_1);
}

/* Takes the bits of numbers into a digest (FNV-1a). */
static uint64_t taken(uint64_t digest, const double *x, int n) {
    for (int i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        for (int byte = 0; byte < 8; byte++) digest = (digest ^ (bits >> 8 * byte & 255)) * UINT64_C(1099511628211);
    }
    return digest;
}

/* Returns the digest of many powers of random numbers, rounded and near; those one by one are the same as those in rows. */
static uint64_t many(void) {
    enum { ROW = 50 };
    uint64_t seed = 1, digest = UINT64_C(14695981039346656037);
    for (int i = 0; i < MANY; i += ROW) {
        const double a = 0.01 + 4 * uniform(&seed) * uniform(&seed);
        const sh_exponent e = i % 200 ? sh_exponent_of(1, a) : sh_exponent_of(a, 1);
        const int plus_1 = i / ROW % 2;
        double x[ROW], rounded[ROW], near[ROW], less_1[ROW];
        for (int j = 0; j < ROW; j++) {
            x[j] = plus_1 ? -uniform(&seed) : uniform(&seed) * (1 + 3 * (j % 2));
            if (j % 5 == 0) x[j] *= 0x1p-20;
            less_1[j] = sh_power_less_1(fabs(x[j]), &e);
        }
        (plus_1 ? sh_powers_1p : sh_powers)(rounded, x, ROW, &e, SH_ROUNDED);
        (plus_1 ? sh_powers_1p : sh_powers)(near, x, ROW, &e, SH_NEAR);
        for (int j = 0; j < ROW; j++) {
            const double alone = plus_1 ? sh_power_1p(x[j], &e) : sh_power(x[j], &e);
            expect(same(alone, rounded[j]), "alone and in a row", i + j, rounded[j], alone);
        }
        digest = taken(taken(taken(digest, rounded, ROW), near, ROW), less_1, ROW);
    }
    return digest;
}

/* Checks 0, what is no number, and infinity. */
static void special(void) {
    const sh_exponent rise = sh_exponent_of(1, 3), fall = sh_exponent_of(-2, 1), none = sh_exponent_of(0, 1);
    expect(sh_power(0, &rise) == 0, "0^e", 0, sh_power(0, &rise), 0);
    expect(sh_power(-1, &rise) == 0, "negative", 0, sh_power(-1, &rise), 0);
    expect(sh_power(0, &fall) == INFINITY, "0^-e", 0, sh_power(0, &fall), INFINITY);
    expect(sh_power(0, &none) == 1, "0^0", 0, sh_power(0, &none), 1);
    expect(sh_power_1p(-1, &rise) == 0, "(1 - 1)^e", 0, sh_power_1p(-1, &rise), 0);
    expect(sh_power(INFINITY, &rise) == INFINITY, "infinity^e", 0, sh_power(INFINITY, &rise), INFINITY);
    expect(sh_power(INFINITY, &fall) == 0, "infinity^-e", 0, sh_power(INFINITY, &fall), 0);
    expect(sh_power(INFINITY, &none) == 1, "infinity^0", 0, sh_power(INFINITY, &none), 1);
    expect(isnan(sh_power(NAN, &rise)), "NaN^e", 0, sh_power(NAN, &rise), NAN);
    expect(isnan(sh_power_1p(NAN, &rise)), "(1 + NaN)^e", 0, sh_power_1p(NAN, &rise), NAN);
}

/* Checks exponentials and logarithms, which need more bits than a double to be checked by: where there are none, or
 * valgrind computes without them, to two units in the last place. */
static void exponentials(void) {
    volatile long double one = 1;
    const double units = one + 0x1p-60L != one ? 0.52 : 2;
    uint64_t state = 11;
    for (int i = 0; i < MANY; i++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        const double part = (double)(state >> 11) * 0x1p-53, x = -(i % 3 == 0 ? 700 : i % 3 == 1 ? 30 : 0x1p-20) * part;
        const double y = i % 2 ? 1 + 2000 * part : 1 + 0x1p-30 * part;
        const long double power = expl((long double)x), log = logl((long double)y);
        const double ulp = nextafter((double)power, INFINITY) - (double)power;
        const double log_ulp = nextafter((double)log, INFINITY) - (double)log;
        expect(fabsl(sh_exp(x) - power) <= units * ulp, "exp", i, sh_exp(x), (double)power);
        expect(fabsl(sh_log(y) - log) <= units * log_ulp, "log", i, sh_log(y), (double)log);
    }
    CHECK(sh_exp(0) == 1 && sh_exp(-0.0) == 1 && sh_log(1) == 0);
    CHECK(sh_exp(-709) == 0 && sh_exp(-1e300) == 0 && sh_exp(-INFINITY) == 0);
}

int main(void) {
    for (int at = 0; at < CASES; at++) one(at);
    exponentials();
    special();
    const uint64_t digest = many();
    if (!CHECK(digest == DIGEST)) fprintf(stderr, "    digest %#018llx\n", (unsigned long long)digest);
    return checked("power");
}
