"""Print power_table.h, the constants of power.h, from their definitions: python power_table.py > power_table.h

Logarithms and exponentials are taken with 150 digits, and rounded once.
"""

import struct
from decimal import Decimal, getcontext

getcontext().prec = 150
LOGS, EXPS = 256, 128  # entries of each table
GRID = 2**42  # the leading part of a logarithm is a multiple of 1 / GRID
START = 0x3FE6A00000000000  # the bits of the smallest mantissa, a little above sqrt(1/2)
WORDS = 5  # of the accurate phase's fractions, 64 bits each


def number(bits):
    """Return the double that has these bits."""
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def parts(x, grid):
    """Return x as a multiple of 1 / grid and the double nearest to the rest."""
    high = (x * grid).to_integral_value() / grid
    return float(high), float(x - high)


def logs():
    """Return (inverse, high, low) of every stretch of mantissas: 16 bits of 1 / its middle, and -log of that.

    The two stretches that meet in 1 have the inverse 1, so that logarithms near 0 keep their digits.
    """
    step = 2**52 // LOGS
    one = (0x3FF0000000000000 - START) // step
    found = []
    for i in range(LOGS):
        middle = Decimal(number(START + i * step + step // 2))
        inverse = Decimal(1) if i in (one - 1, one) else (2**16 / middle).to_integral_value() / 2**16
        found.append((float(inverse), *parts(-inverse.ln(), GRID)))
    return found


def exps():
    """Return (high, low) of 2^(j / EXPS): 26 bits, and the rest."""
    ln2 = Decimal(2).ln()
    return [parts((ln2 * j / EXPS).exp(), 2**25) for j in range(EXPS)]


def words(x, n):
    """Return the first n words of 64 bits of a fraction, the highest first."""
    whole = int((x * 2 ** (64 * n)).to_integral_value())
    return [whole >> 64 * i & (2**64 - 1) for i in reversed(range(n))]


def table(kind, name, size, rows):
    """Return the lines of one array."""
    lines = [f"    {{{', '.join(x.hex() for x in row)}}}," for row in rows]
    return [f"static const {kind} {name}[{size}] = {{", *lines, "};"]


def main():
    """Print the header."""
    ln2 = Decimal(2).ln()
    log_high, log_low = parts(ln2, GRID)
    step_high, step_low = parts(ln2 / EXPS, GRID)
    lines = [
        "/* power_table.h: the constants of power.h, printed by power_table.py. */",
        "#ifndef SH_POWER_TABLE_H",
        "#define SH_POWER_TABLE_H",
        "#include <stdint.h>",
        "/* clang-format off */",
        f"enum {{ SH_LOGS = {LOGS}, SH_EXPS = {EXPS} }};",
        f"#define SH_LOG_START UINT64_C({START:#x}) /* the bits of the smallest mantissa */",
        f"#define SH_LN2_HIGH {log_high.hex()} /* log 2 = high + low, high in 42 bits */",
        f"#define SH_LN2_LOW {log_low.hex()}",
        f"#define SH_STEP_HIGH {step_high.hex()} /* log(2) / {EXPS} = high + low, high in 35 bits */",
        f"#define SH_STEP_LOW {step_low.hex()}",
        f"#define SH_STEPS {float(EXPS / ln2).hex()} /* {EXPS} / log 2 */",
        "/* 1 / the middle of a stretch of mantissas, and -log of that */",
        *table("struct { double inverse, high, low; }", "sh_log_table", "SH_LOGS", logs()),
        f"/* 2^(j/{EXPS}) = high + low, high in 26 bits */",
        *table("struct { double high, low; }", "sh_exp_table", "SH_EXPS", exps()),
        f"/* the first {64 * WORDS} bits of log 2, the highest word first */",
        f"#define SH_LN2_WORDS {', '.join(f'UINT64_C({word:#018x})' for word in words(ln2, WORDS))}",
        "#endif",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
