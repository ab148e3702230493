"""Print power_cases.h, powers and what they round to, for test_power.c: python power_cases.py > power_cases.h

Powers are taken with 200 digits, and a result that has few binary digits is exact. So the middle of two doubles is told
from what lies close to it, and goes to the even one.
"""

import math
import random
from decimal import ROUND_FLOOR, Context, Decimal, localcontext
from fractions import Fraction

WIDE = Context(prec=200, Emin=-(10**6), Emax=10**6)
LN2 = WIDE.ln(Decimal(2))
SEARCHED, KEPT = 6_000, 100  # powers of random numbers of a kind, and how many, those nearest to a middle, are cases


def power(base, over, under):
    """Return base^(over / under) and that less 1 as fractions: to 150 digits, or infinity and 0 far out of range."""
    with localcontext(WIDE):
        t = (Decimal(base.numerator) / Decimal(base.denominator)).ln() * Decimal(over) / Decimal(under)
        if abs(t) > 800:
            return (math.inf, math.inf) if t > 0 else (Fraction(0), Fraction(-1))
        k = (t / LN2).to_integral_value(ROUND_FLOOR)
        mantissa = (t - k * LN2).exp()
    value = Fraction(Context(prec=150).plus(mantissa)) * Fraction(2) ** int(k)
    small = Fraction(t)
    return value, value - 1 if abs(t) > 1e-50 else small + small * small / 2


def nearest(x):
    """Return the double nearest to a fraction, ties to even."""
    try:
        return float(x)
    except OverflowError:
        return math.inf


def from_middle(x):
    """Return how far x is from the middle of two doubles, in units in the last place."""
    if not 2.0**-1074 < x < 2.0**1023:
        return 1.0
    return abs(float(x / Fraction(math.ulp(nearest(x))) % 1 - Fraction(1, 2)))


def chosen():
    """Return (x, whether the base is 1 + x, over, under): exact powers, middles, and the ends of the range."""
    tiny, huge, unit = 2.0**-1074, float.fromhex("0x1.fffffffffffffp1023"), 2.0**-52
    cases = [(2.25, 1.5, 1), (4, 1, 2), (4, 0.5, 1), (1 + 2.0**-51 + 2.0**-102, 1, 2), (0.1, 3, 3), (0.3, 1, 1)]
    cases += [(134217727, 2, 1), (134217725, 2, 1), (100000001, 2, 1), (95000003, 2, 1)]  # 54 bits or fewer
    cases += [(200003, 3, 1), (207001, 3, 1), (200003.0**2, 3, 2), (207001.0**2, 1.5, 1), (11585, 4, 1), (1783.0, 5, 1)]
    cases += [(1783.0**2, 2.5, 1), (7.0**16, 19, 16), (3.0**32, 33, 32), (3.0, 34, 1), (3.0**4, 8.5, 1)]
    cases += [
        (0.5, 1074, 1),
        (0.5, 1075, 1),
        (0.5, 1076, 1),
        (0.5, 1074.5, 1),
        (3 * 2.0**-215, 5, 1),
        (3 * 2.0**-43, 25, 1),
    ]
    cases += [(5 * 2.0**-215, 5, 1), (0.75, 2500, 1), (0.7, 2000, 1), (0.9, 7000, 1), (1e-160, 2, 1), (1e-200, 1.6, 1)]
    cases += [(tiny, 1, 1), (tiny, 1, 2), (tiny, 1, 1e300), (3 * tiny, 1, 3), (huge, 1, 1), (huge, 1, 2), (huge, 2, 1)]
    cases += [(2, 1023, 1), (2, 1024, 1), (2, 1023.9999999, 1), (10, 308.25, 1), (huge, -1, 1), (tiny, -0.9, 1)]
    cases += [(2.0**-1022, 1, 1), (2.0**-511, 2, 1), (1.5 * 2.0**-511, 2, 1), (2.0**-537, 2, 1), (3 * 2.0**-538, 2, 1)]
    near_1 = (1 + unit, 1 - unit / 2, 1 + 3 * unit, 1 - 3 * unit, 1 + 2.0**-30, 1 - 2.0**-9, 1 + 2.0**-8)
    for x in near_1:
        cases += [(x, e, 1) for e in (2, 0.5, 3, 2.0**52, 2.0**60, 1e18, -(2.0**55), 1e-300, 1e300)]
        cases += [(x, 1, e) for e in (2, 3, 0.3, unit, 1e-17, 1e300)]
    cases += [(x, e, 1) for x in (0.5, 2) for e in (huge, tiny, -huge, 0)]
    plus_1 = [(2.0**-53, 1, 1), (3 * 2.0**-53, 1, 1), (-(2.0**-54), 1, 1), (-3 * 2.0**-54, 1, 1), (unit, 1, unit)]
    plus_1 += [(2.0**-50 + 2.0**-102, 1, 2), (1e-300, 1, unit), (-1e-18, 1, unit), (-(2.0**-60), 1, 1e-15), (1, 1, 3)]
    plus_1 += [(-1 + unit, 1, 0.06), (-1 + 2.0**-53, 1, 0.05), (-1 + 2.0**-53, 1, 0.0495), (tiny, 1, unit), (1, 1, 2)]
    plus_1 += [(-7 / 16, 1, 0.5), (-7 / 16, 1, 0.125), (1e-17, 2.0**60, 1), (-2.5e-16, 2.0**61, 1)]
    return [(x, 0, over, under) for x, over, under in cases] + [(x, 1, over, under) for x, over, under in plus_1]


def drawn(n):
    """Return n random ones of the kinds that alpha-entmax asks for."""
    draw = random.Random(1)
    cases = []
    for i in range(n):
        a = math.exp(draw.uniform(-4, 3))
        over, under = (1.0, a) if i % 4 else (a, 1.0)
        if i % 2:
            x = -draw.random() * draw.choice([1, 1, 1e-3, 1e-9])
        else:
            x = draw.choice([draw.random(), 1 + draw.uniform(-1, 1) * 2.0**-8, math.exp(draw.uniform(-30, 30))])
        cases.append((x, i % 2, over, under))
    return cases


def subnormal(n):
    """Return n random ones whose powers lie about the subnormal numbers."""
    draw = random.Random(2)
    cases = []
    for i in range(n):
        a = math.exp(draw.uniform(-12, -7.5 if i % 2 else 0))
        log = -draw.uniform(707.5, 745.5) * a
        cases.append((math.expm1(log), 1, 1.0, a) if i % 2 else (math.exp(log), 0, 1.0, a))
    return cases


def results(case):
    """Return the power of a case, and that less 1."""
    x, plus_1, over, under = case
    return power(Fraction(x) + plus_1, over, under)


def hardest(cases):
    """Return the KEPT cases whose powers are nearest to the middle of two doubles."""
    return sorted(cases, key=lambda case: from_middle(results(case)[0]))[:KEPT]


def main():
    """Print the header."""
    print("/* power_cases.h: (x + plus_1)^(over / under) and that less 1, rounded; printed by power_cases.py. */")
    print("/* clang-format off */")
    print("static const struct { double x; int plus_1; double over, under, power, less_1; } power_cases[] = {")
    for case in chosen() + hardest(drawn(SEARCHED)) + drawn(KEPT) + hardest(subnormal(SEARCHED)):
        x, plus_1, over, under = case
        numbers = [float(x).hex(), str(plus_1), float(over).hex(), float(under).hex()]
        numbers += ["INFINITY" if y == math.inf else y.hex() for y in map(nearest, results(case))]
        print(f"    {{{', '.join(numbers)}}},")
    print("};")


if __name__ == "__main__":
    main()
