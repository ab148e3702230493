"""Powers of our own: alpha-entmax has the same bits whatever the C library, and its powers are rounded correctly."""

import subprocess
import sys
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import run_python
from hypothesis import given
from hypothesis import strategies as st

import sparsehopfield as sh

CSRC = Path(__file__).parents[2] / "csrc"
GENERATED = {
    "kernels/power_table.py": "kernels/power_table.h",
    "tests/power_cases.py": "tests/power_cases.h",
}
WIDE = Context(prec=120)


@pytest.mark.depth
@pytest.mark.parametrize("script", GENERATED)
def test_committed_tables_are_what_their_scripts_print(script):
    printed = subprocess.run([sys.executable, CSRC / script], capture_output=True, text=True, check=True).stdout
    assert printed == (CSRC / GENERATED[script]).read_text()


# What alpha-entmax promises the same bits of, as one digest for each alpha and dtype.
DIGESTS = """
import hashlib, json
import numpy as np
import sparsehopfield as sh

ALPHAS = [1 + 2**-52, 1 + 1e-9, 1.01, 1.1, 1.2, 1.25, 1.3, 1.4, 1.49, 1.5, 1.51, 1.6, 1.7, 1.9, 2.0001, 2.2, 2.5]
ALPHAS += [3, 7, 60]
found = {}
for dtype in ("float32", "float64"):
    rng = np.random.default_rng(4)
    patterns = rng.standard_normal((600, 24)).astype(dtype)
    queries = rng.standard_normal((12, 24)).astype(dtype)
    rows = [(s * rng.standard_normal((6, n))).astype(dtype) for s in (0.1, 1, 4) for n in (2, 9, 200, 900)]
    for alpha in ALPHAS:
        memory = sh.HopfieldMemory(patterns, 1.0, separation=sh.Entmax(alpha))
        results = [memory.retrieve(queries, max_steps=3, tol=100.0), memory.energy(queries)]
        weights = memory.associate(queries)
        results += [weights.data, weights.indices, weights.indptr]
        for z in rows:
            results += [sh.entmax(z, alpha), *sh.entmax_threshold(z, alpha), sh.entmax_conjugate(z, alpha)]
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(r).tobytes() for r in results)).hexdigest()
        found[f"{dtype} {alpha!r}"] = digest
print(json.dumps(found))
"""
SETTINGS = {
    "libm without FMA": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA"},
    "base": {"SPARSEHOPFIELD_SIMD": "base"},
    "avx2": {"SPARSEHOPFIELD_SIMD": "avx2"},
    "avx512": {"SPARSEHOPFIELD_SIMD": "avx512"},
}


@pytest.fixture(scope="module")
def digests():
    """Return the digests as this machine takes them."""
    return run_python(DIGESTS)


@pytest.mark.parametrize(
    "setting", [pytest.param(s, marks=pytest.mark.depth if s.startswith("avx") else ()) for s in SETTINGS]
)
def test_bits_are_the_same_under_every_libm_and_instruction_set(setting, digests):
    assert len(digests) == 40
    assert run_python(DIGESTS, **SETTINGS[setting]) == digests


def power(base, exponent):
    """Return base^exponent of fractions, rounded to the nearest double."""
    ratio = WIDE.divide(Decimal(base.numerator), Decimal(base.denominator))
    t = WIDE.divide(WIDE.multiply(WIDE.ln(ratio), Decimal(exponent.numerator)), Decimal(exponent.denominator))
    return float(Context(prec=100).plus(WIDE.exp(t)))


@given(
    st.floats(1.5, 2, exclude_min=True, exclude_max=True),
    st.lists(st.floats(-3, 0, width=32), min_size=1, max_size=12),
)
def test_weights_are_powers_rounded_correctly(alpha, scores):
    # Of a best score of 0 the threshold is what the weights are made from: r^(1/a), r = a z - tau.
    z = np.array([0.0, *scores])
    a = alpha - 1
    tau, _ = sh.entmax_threshold(z, alpha)
    r = a * z - tau
    expected = [power(Fraction(float(x)), 1 / Fraction(a)) if x > 0 else 0.0 for x in r]
    assert sh.entmax(z, alpha).tolist() == expected


@pytest.mark.parametrize("alpha", [1 + 2**-52, 1 + 1e-6, 1.1, 1.2, 1.3, 1.49, 1.51, 1.7, 2.5, 3, 4, 40])
@pytest.mark.parametrize("n", [1, 2, 7, 63, 64, 65, 129, 700])
def test_ties_share_the_mass_in_rows_of_every_length(alpha, n):
    # Blocks of powers end within the row, at its end, and beyond it.
    for z in np.full(n, 0.3), np.r_[np.full(n, 0.3), -1e9]:
        np.testing.assert_allclose(sh.entmax(z, alpha)[:n], 1 / n, rtol=(n + 2) * 2.0**-52)


@pytest.mark.parametrize("alpha", [1 + 1e-9, 1.2, 1.7, 2.5, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_and_energies_of_large_supports(alpha, dtype):
    z = np.random.default_rng(0).standard_normal((4, 3000)).astype(dtype) * 0.01
    p = sh.entmax(z, alpha)
    np.testing.assert_allclose(p.sum(-1, dtype="float64"), 1, atol=3000 * np.finfo(dtype).eps)
    wide, exact = z.astype("float64"), sh.reference.entmax(z.astype("float64"), alpha)
    np.testing.assert_allclose(p, exact, atol=4 * np.finfo(dtype).eps)
    lost = (exact**alpha - exact).sum(-1) / (alpha * (alpha - 1)) if alpha > 1.01 else (exact * np.log(exact)).sum(-1)
    np.testing.assert_allclose(sh.entmax_conjugate(wide, alpha), (exact * wide).sum(-1) - lost, rtol=1e-7)
