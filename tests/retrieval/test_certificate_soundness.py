"""Soundness: no query inside a certified radius ever retrieves anything else, in a million trials and more.

Every case (family, dtype, similarity, map) makes at least TRIALS queries inside balls, and with --depth there are so
many cases that these are more than 10^6 (`test_there_are_a_million_trials`): random directions, and the worst,
towards the other patterns, at the radius itself, each number rounded towards the pattern's. Each query is asked in
the memory's dtype and, where that is float32, again in float64; what comes back must be the pattern bit for bit. A
thousandth further out in the worst direction it must not be: under all similarities the ball is the largest there is,
less what rounding may do, which is more than that only for unit rows of float32 and for lengths from 1e-3 to 1e3.
"""

import numpy as np
import pytest
from helpers import FLOATS, SIMILARITIES, TABLE_MAPS, cutoff, name_of

import sparsehopfield as sh
from sparsehopfield.data import datasets
from sparsehopfield.studies._core import families

SEED = 20
TRIALS = 20_000
SIZES = [(40, 3), (60, 24)]  # patterns, features
#: Maps whose weights grow fast enough beyond the cutoff to be seen at once.
MAPS = ["sparsemax", sh.Entmax(1.5), *(m for m in TABLE_MAPS if m.alpha >= 2)]
UNIT = 2.0**-53


def _clustered(rng, m, d):
    return rng.standard_normal((5, d))[rng.integers(5, size=m)] + 0.02 * rng.standard_normal((m, d))


def _duplicated(rng, m, d):
    rows = rng.standard_normal((m, d))
    rows[: m // 3] = rows[m // 3 : 2 * (m // 3)]
    return rows


def _unequal(rng, m, d):
    return rng.standard_normal((m, d)) * 10.0 ** rng.uniform(-3, 3, size=(m, 1))


MIXED = "lengths from 1e-3 to 1e3"  # where scores of 1e6 round by more than short patterns lie apart
MADE = {
    "clustered": _clustered,
    "duplicated": _duplicated,
    "whole numbers": lambda rng, m, d: rng.integers(-3, 4, size=(m, d)) + 0.0,
    "bytes": lambda rng, m, d: rng.integers(0, 256, size=(m, d)) + 0.0,
    "30 +- 0.3": lambda rng, m, d: 30 + 0.3 * rng.standard_normal((m, d)),
    MIXED: _unequal,
}
FAMILIES = [*(name for name in families.FAMILIES if name != families.IMAGES), *MADE]


def of_every_case(test):
    """Ask a test of every family, dtype, similarity and map."""
    for name, values, ids in (
        ("separation", MAPS, name_of),
        ("similarity", SIMILARITIES, None),
        ("dtype", FLOATS, lambda t: t.__name__),
        ("family", FAMILIES, None),
    ):
        test = pytest.mark.parametrize(name, values, ids=ids)(test)
    return pytest.mark.covering(1)(test)


def test_there_are_a_million_trials():
    assert len(FAMILIES) * len(FLOATS) * len(SIMILARITIES) * len(MAPS) * TRIALS >= 1_000_000


def memories(family, dtype, similarity, separation, rng):
    """Memories of both sizes, each at inverse temperatures that certify few, half and all that can be."""
    for m, d in SIZES:
        patterns = MADE[family](rng, m, d) if family in MADE else families.draw(family, rng, m, d)
        patterns = patterns[patterns.any(axis=1)].astype(dtype)
        memory = sh.HopfieldMemory(patterns, similarity=similarity, separation=separation)
        yield from at_betas(memory)


def at_betas(memory):
    """The same memory at several inverse temperatures, two of them just beyond some pattern's critical one."""
    critical = np.sort(memory.critical_beta())
    critical = critical[critical < np.inf]
    for beta in (1.001 * critical[len(critical) // 2], 3 * critical[len(critical) // 2], 1.001 * critical[-1]):
        memory.beta = float(beta)
        yield memory


def rows_of(memory):
    """The patterns as a step returns them."""
    return memory._snapshot.certificates.rows()


def inside(centre, direction, radius, dtype):
    """Queries at the radius, each number rounded towards the centre's, so that none is outside."""
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    step = direction / np.where(length > 0, length, 1) * radius[:, None] * (1 - (direction.shape[1] + 16) * UNIT)
    x = (centre + step).astype(dtype)
    beyond = np.abs(x.astype(np.float64) - centre) > np.abs(step)
    x = np.where(beyond, np.nextafter(x, centre.astype(dtype)), x)
    assert (np.linalg.norm(x - centre, axis=1) <= radius).all()
    return x


def wrong(memory, x, index):
    """Which queries do not come out as the pattern, bit for bit."""
    want = rows_of(memory)[index]
    got = memory.update(x).astype(memory.dtype)
    as_bits = np.uint32 if memory.dtype == np.float32 else np.uint64
    return (got.view(as_bits) != want.view(as_bits)).any(axis=1)


def query_dtypes(memory):
    return [memory.dtype] if memory.dtype == np.float64 else [memory.dtype, np.dtype(np.float64)]


def quotients(memory, some):
    """(n, M): how far patterns may go towards each other one: lead less the window over the distance."""
    rows = rows_of(memory).astype(np.float64)
    scores = rows[some] @ rows.T
    if memory.similarity != "dot":
        scores = scores - (rows**2).sum(axis=1) / 2
    lead = scores[np.arange(len(some)), some][:, None] - scores - cutoff(memory.separation) / memory.beta
    apart = np.stack([np.linalg.norm(rows - row, axis=1) for row in rows[some]])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(apart > 0, lead / apart, np.inf)


def attack(memory, rng, count, most_rivals, some=None):
    """Ask at least `count` queries from inside the balls; the number of trials, and a sentence on every failure."""
    rows, radius = rows_of(memory).astype(np.float64), memory.exact_radius()
    some = np.flatnonzero(radius >= 0) if some is None else some[radius[some] >= 0]
    assert len(some) > 0
    rivals = np.argsort(quotients(memory, some), axis=1, kind="stable")[:, : min(most_rivals, len(rows) - 1)]
    mu = np.repeat(some, rivals.shape[1])
    towards = rows[rivals.ravel()] - rows[mu]
    more = np.repeat(some, max(1, -(-count // len(some)) - rivals.shape[1]))
    aside = rng.standard_normal((len(more), rows.shape[1]))
    trials, failures = 0, []
    for dtype in query_dtypes(memory):
        for way, index, direction, share in (("worst", mu, towards, 1.0), ("random", more, aside, 1 - 1e-12)):
            x = inside(rows[index], direction, radius[index] * share, dtype)
            bad = wrong(memory, x, index)
            trials += len(x)
            if bad.any():
                failures.append(f"seed {SEED}: {np.count_nonzero(bad)} {way} {dtype} queries, {memory}")
    assert trials >= count
    return trials, failures


@of_every_case
def test_nothing_inside_a_radius_goes_elsewhere(family, dtype, similarity, separation):
    rng, trials = np.random.default_rng(SEED), 0
    for memory in memories(family, dtype, similarity, separation, rng):
        made, failures = attack(memory, rng, TRIALS // (3 * len(SIZES)) + 1, most_rivals=1000)
        assert not failures
        trials += made
    assert trials >= TRIALS


@of_every_case
def test_just_outside_they_do(family, dtype, similarity, separation):
    if dtype == np.float32 and similarity == "cosine":
        pytest.skip("the rounding of unit rows to float32 is more than what is just outside")
    rng, elsewhere = np.random.default_rng(SEED), []
    for memory in memories(family, dtype, similarity, separation, rng):
        rows, radius = rows_of(memory).astype(np.float64), memory.exact_radius()
        some = np.flatnonzero(radius >= 0)
        towards = rows[quotients(memory, some).argmin(axis=1)] - rows[some]
        towards /= np.linalg.norm(towards, axis=1, keepdims=True)
        x = rows[some] + 1.001 * radius[some, None] * towards
        elsewhere.append((memory.update(x) != rows[some]).any(axis=1))  # in float64, where little weight shows
    assert np.mean(np.concatenate(elsewhere)) >= (0.5 if family == MIXED else 1.0)


@of_every_case
def test_certified_queries_go_where_it_says(family, dtype, similarity, separation):
    rng, trials = np.random.default_rng(SEED), 0
    for memory in memories(family, dtype, similarity, separation, rng):
        rows = rows_of(memory).astype(np.float64)
        n, far = len(rows), quotients(memory, np.arange(len(rows)))
        spread = rows.mean(axis=0) + rows.std() * rng.standard_normal((200, rows.shape[1]))
        near = rows[rng.integers(n, size=200)] * (1 + rng.choice([1e-9, 1e-3, 0.1], (200, 1)) * rng.standard_normal(1))
        mu, nu = np.nonzero(np.isfinite(far) & (far > 0))
        take = rng.integers(len(mu), size=400)  # from a pattern towards another to where its lead is just the window
        mu, nu = mu[take], nu[take]
        towards = (rows[nu] - rows[mu]) / np.linalg.norm(rows[nu] - rows[mu], axis=1, keepdims=True)
        off = rng.choice([-1e-3, -1e-8, -1e-13, 0, 1e-13, 1e-8], len(mu))
        edge = rows[mu] + (far[mu, nu] * (1 + off))[:, None] * towards
        for asked in query_dtypes(memory):
            x = np.concatenate([spread, near, edge]).astype(asked)
            found = memory.certify(x).index
            sure = found >= 0
            assert not wrong(memory, x[sure], found[sure]).any(), f"seed {SEED}: {asked} queries, {memory}"
            trials += np.count_nonzero(sure)
    assert trials > 500


@pytest.fixture(scope="module")
def images(data_folder):
    try:
        return datasets.load("mnist", data_folder).pixels(slice(1000))
    except FileNotFoundError as absent:
        pytest.skip(f"real data: {absent}")


@pytest.mark.covering(1)
@pytest.mark.slow
@pytest.mark.parametrize("separation", MAPS, ids=name_of)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_raw_images(dtype, similarity, separation, images):
    rng = np.random.default_rng(SEED)
    memory = sh.HopfieldMemory(images.astype(dtype), similarity=similarity, separation=separation)
    for _ in at_betas(memory):
        some = np.sort(rng.permutation(np.flatnonzero(memory.exact_radius() >= 0))[:50])
        _, failures = attack(memory, rng, 1000, most_rivals=10, some=some)
        assert not failures
