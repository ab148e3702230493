"""Suggested settings: what known data give, what each line of the table says, and what is refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.metrics import accuracy_score, r2_score

import sparsehopfield as sh
from sparsehopfield import suggestion
from sparsehopfield.estimators import HopfieldClassifier, HopfieldRetriever
from sparsehopfield.structures import TopK, Window
from sparsehopfield.suggestion import _betas, best_beta, storing_beta

RNG = np.random.default_rng(0)
GAUSSIAN = RNG.standard_normal((300, 24))
UNIT = GAUSSIAN / np.linalg.norm(GAUSSIAN, axis=1, keepdims=True)
STRETCHED = GAUSSIAN * RNG.uniform(0.2, 5, (300, 1))
DIGITS = load_digits()
HALVED = DIGITS.data[:200] * (np.arange(64) < 32)


def evaluated(call, s, X, y=None, queries=None):
    """Return what the expression of a line gives a user who types it."""
    names = {name: None if a is None else np.asarray(a) for name, a in (("X", X), ("y", y), ("queries", queries))}
    return eval(call, {"np": np, "sh": sh, "s": s, **names})


def rows_of(s, setting):
    return [row for row in s.rows if row.setting == setting]


def loo_score(X, y, beta, similarity="euclidean", separation="sparsemax"):
    """Score rows each of which is predicted by a memory made without it."""
    targets = np.eye(y.max() + 1)[y] if y.dtype.kind == "i" else y.reshape(len(y), -1)
    found = []
    for i in range(len(X)):
        others = np.delete(X, i, axis=0), np.delete(targets, i, axis=0)
        memory = sh.HopfieldMemory(others[0], beta, values=others[1], similarity=similarity, separation=separation)
        found.append(memory.update(X[i]))
    if y.dtype.kind == "i":
        return accuracy_score(y, np.argmax(found, axis=1))
    return r2_score(y, np.array(found).reshape(y.shape))


# --- what known data give -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "similarity"), [(UNIT, "dot"), (7 * UNIT, "dot"), (GAUSSIAN, "euclidean"), (STRETCHED, "euclidean")]
)
def test_lengths_decide_the_similarity_of_rows_alone(X, similarity):
    s = sh.suggest(X)
    assert (s.similarity, s.separation, s.structure) == (similarity, "sparsemax", None)
    # the least beta, to four digits, that certifies 99 % of the rows
    assert s.memory(X).is_certified().mean() >= 0.99
    exact = s.memory(X).suggest_beta(0.99)
    assert exact <= s.beta <= 1.001 * exact
    assert not s.memory(X, beta=0.99 * s.beta).is_certified().mean() >= 0.99
    np.testing.assert_array_equal(s.memory(X).update(X[s.memory(X).is_certified()]), X[s.memory(X).is_certified()])


def test_queries_of_another_scale_want_cosine_similarity():
    X = DIGITS.data
    noise = 2 * np.random.default_rng(1).standard_normal((200, 64))
    assert sh.suggest(X, queries=X[:200] + noise).similarity == "euclidean"
    assert sh.suggest(X, queries=X[:200]).similarity == "euclidean"
    assert sh.suggest(X, queries=HALVED).similarity == "cosine"
    assert sh.suggest(X, queries=0.4 * X[:200] + noise / 5).similarity == "cosine"
    # a row of zeros has no cosine: "dot" where that stores the others, else distances after all
    empty = np.zeros((1, 24))
    assert sh.suggest(np.vstack([7 * UNIT, empty]), queries=2 * UNIT[:50]).similarity == "dot"
    assert sh.suggest(np.vstack([STRETCHED, empty]), queries=STRETCHED[:50] / 3).similarity == "euclidean"
    assert sh.suggest(UNIT, queries=UNIT[:50] / 3).similarity == "dot"  # the same order, and the rows themselves


@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")  # at half of beta some go on moving
@pytest.mark.parametrize("queries", [HALVED, DIGITS.data[:200] + 1.5, DIGITS.data[:3]])
def test_queries_go_to_a_row_at_the_suggested_beta_and_not_at_half_of_it(queries):
    X = DIGITS.data
    s = sh.suggest(X, queries=queries)

    def share(beta):
        return (s.memory(X, beta=beta).retrieve(queries, return_info=True, max_steps=100)[1].support_size == 1).mean()

    assert share(s.beta) >= 0.99 * share(64 * s.beta) > share(s.beta / 2)
    assert len(s.queried) == len(queries)


def test_copies_are_told():
    X = np.concatenate([GAUSSIAN, GAUSSIAN[:100]])
    s = sh.suggest(X)
    (told,) = [row for row in s.rows if "copies" in row.reason]
    assert told.evidence == 0.5  # 100 rows and their copies, of 400
    assert told.reason.startswith("50 % of the rows are copies of others, which no beta stores")
    assert [row.evidence for row in sh.suggest(GAUSSIAN).rows if row.reason == "No row is a copy of another."] == [0]
    # queries go to copies as they would go to one row
    queries = GAUSSIAN[:50] + 0.3
    twice, once = sh.suggest(np.repeat(GAUSSIAN, 2, axis=0), queries=queries), sh.suggest(GAUSSIAN, queries=queries)
    assert twice.settings() == once.settings()
    np.testing.assert_allclose(twice.memory(np.repeat(GAUSSIAN, 2, axis=0)).retrieve(queries), GAUSSIAN[:50])


def test_rows_that_are_all_equal_give_settings_that_work():
    X = np.full((20, 3), 2.5)
    s = sh.suggest(X)
    assert (s.similarity, s.beta, s.separation) == ("dot", 1.0, "sparsemax")
    np.testing.assert_allclose(s.memory(X).update(X), X)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_diabetes])
@pytest.mark.parametrize("separation", ["sparsemax", "softmax", sh.Entmax(1.5)])
def test_best_beta_is_the_best_of_a_grid(load, separation):
    X, y = load(return_X_y=True)
    X, y = X[::2] / X.std(axis=0), y[::2]
    is_class = y.dtype.kind == "i"
    memory = sh.HopfieldMemory(
        X, values=np.eye(3)[y] if is_class else y[:, None], similarity="euclidean", separation=separation
    )
    beta = best_beta(memory, y, task="classification" if is_class else "regression")
    grid = 2.0 ** np.arange(-10, 10)
    scores = [loo_score(X, y, b, separation=separation) for b in grid]
    best = max(scores)
    mine = loo_score(X, y, beta, separation=separation)
    assert mine >= best - 1e-9
    # within a step of a beta that is as good
    near = grid[np.array(scores) >= min(mine, best) - (0.02 if is_class else 1e-2)]
    assert (np.abs(np.log2(near / beta)) <= 1).any()
    assert memory.beta == 1.0


def test_best_beta_of_many_rows_is_near_the_best_of_a_grid(monkeypatch):
    monkeypatch.setattr(_betas, "PART", 500)
    rng = np.random.default_rng(3)
    X = rng.standard_normal((4000, 3)).astype(np.float32)
    y = np.sin(3 * X[:, 0]) + X[:, 1] + 0.3 * rng.standard_normal(len(X))
    memory = sh.HopfieldMemory(X, values=y[:, None].astype(np.float32), similarity="euclidean", separation="softmax")
    beta = best_beta(memory, y, task="regression")
    at = rng.choice(len(X), 1000, replace=False)
    scores = {}
    for k in range(12):
        memory.beta = 2.0**k
        scores[k] = r2_score(y[at], memory.leave_one_out(at)[:, 0])
    best = max(scores, key=scores.get)
    assert 0 < best < 11  # inside the grid
    assert abs(np.log2(beta) - best) <= 1
    assert best_beta(memory, y, task="regression", random_state=1) / beta in 2.0 ** np.array([-1, -0.5, 0, 0.5, 1])


def test_best_beta_of_images_is_that_of_rows():
    X, y = DIGITS.data[:400], DIGITS.target[:400]
    rows = sh.HopfieldMemory(X, values=np.eye(10)[y], similarity="euclidean")
    images = sh.HopfieldMemory(X, values=np.eye(10)[y], similarity="euclidean", pattern_shape=(8, 8))
    assert best_beta(images, y, task="classification") == best_beta(rows, y, task="classification")
    alone = sh.HopfieldMemory(X[:50].reshape(-1, 8, 8), similarity="euclidean", pattern_shape=(8, 8))
    assert best_beta(alone, X[:50], task="regression") > 0


def test_truth_values_are_classes():
    X, y = DIGITS.data[:100], DIGITS.target[:100] > 4
    memory = sh.HopfieldMemory(X, values=np.eye(2)[y.astype(int)], similarity="euclidean")
    assert best_beta(memory, y, task="classification") == best_beta(memory, y.astype(int), task="classification")
    with pytest.raises(ValueError, match="0 to 1, got -1"):
        best_beta(memory, y.astype(int) - 1, task="classification")


def test_few_rows_of_very_different_lengths_have_a_best_beta():
    X = np.array([[0.0625, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float16)
    assert 0 < sh.suggest(X, np.array([0, 1, 0])).beta < np.inf


def test_weights_of_rows_decide_beta():
    """Half of the rows have noise: where these count nothing, beta is much larger."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 6, 400))[:, None]
    noisy = np.arange(400) < 200
    y = np.sin(2 * x[:, 0]) + np.where(noisy, rng.standard_normal(400), 0)
    memory = sh.HopfieldMemory(x, values=y[:, None], similarity="euclidean")
    clean = best_beta(memory, y, task="regression", sample_weight=~noisy)
    assert clean > 8 * best_beta(memory, y, task="regression", sample_weight=noisy)
    assert best_beta(memory, y, task="regression", sample_weight=np.full(400, 1e-200)) == best_beta(
        memory, y, task="regression"
    )


def test_classes_and_targets():
    X, y = DIGITS.data[:600], DIGITS.target[:600]
    s = sh.suggest(X, y)
    assert (s.task, s.structure) == ("classification", None)
    assert s.similarity in ("euclidean", "cosine")  # dot products are far behind
    named = sh.suggest(X, np.array(list("abcdefghij"))[y])
    assert named.settings() == s.settings()
    model = HopfieldClassifier(**s.settings()).fit(X, y)
    assert model.score(DIGITS.data[600:], DIGITS.target[600:]) > 0.93
    X, y = load_diabetes(return_X_y=True)
    one, two = sh.suggest(X, y), sh.suggest(X, np.column_stack([y, -y]))
    assert (one.task, two.task) == ("regression", "regression")
    assert one.settings() == two.settings()
    assert sh.suggest(X[:100], y[:100].astype(int)).task == "classification"
    assert sh.suggest(X[:100], y[:100].astype(int), task="regression").task == "regression"


def test_another_similarity_must_predict_clearly_better():
    """Classes by direction, lengths that say nothing: cosine; all the same otherwise."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 8))
    y = rng.integers(0, 4, 400)
    X = centres[y] + 0.9 * rng.standard_normal((400, 8))
    assert sh.suggest(X, y).similarity == "euclidean"
    X *= np.exp(1.5 * rng.standard_normal((400, 1)))
    s = sh.suggest(X, y)
    assert s.similarity == "cosine"
    scores = {row.reason.split("'")[1]: row.evidence for row in rows_of(s, "similarity") if "leave-one" in row.reason}
    assert scores["cosine"] > scores["euclidean"] + 0.05


def test_softmax_gets_the_neighbours_that_it_needs():
    X, y = DIGITS.data[:500], DIGITS.target[:500]
    s = sh.suggest(X, y, separation="softmax", similarity="euclidean")
    assert isinstance(s.structure, TopK)
    assert s.structure.k <= 250
    full = s.memory(X, y, structure=None).leave_one_out().argmax(axis=1) == y
    few = s.memory(X, y).leave_one_out().argmax(axis=1) == y
    assert few.mean() >= full.mean()
    alone = sh.suggest(X, separation="softmax")
    weights = alone.memory(X, structure=None).associate(X, top=500).toarray()
    own = weights[np.arange(500), np.arange(500)]
    assert (own >= 0.99).mean() >= 0.99
    assert alone.structure == TopK(1) or alone.structure.k <= 16
    # where all rows count alike there are none to leave out
    spread = sh.suggest(X, np.tile([0.0, 1.0], 250), separation="softmax")
    assert spread.task == "regression"


def test_what_is_given_stays():
    s = sh.suggest(STRETCHED, similarity="cosine", separation=sh.Normmax(3.0))
    assert (s.similarity, s.separation) == ("cosine", sh.Normmax(3.0))
    assert {row.value for row in rows_of(s, "similarity")} == {"cosine (given)"}
    assert s.memory(STRETCHED).is_certified().mean() >= 0.99
    s = sh.suggest(DIGITS.data[:300], DIGITS.target[:300], similarity="dot", separation="entmax15")
    assert (s.similarity, s.separation) == ("dot", "entmax15")


# --- the table ------------------------------------------------------------------------------------------------------

MANY = np.random.default_rng(5).standard_normal((1500, 6))  # in tests: more than twice PART
CASES = {
    "rows": (GAUSSIAN,),
    "unit rows": (UNIT,),
    "many rows": (DIGITS.data,),
    "copies": (np.repeat(GAUSSIAN[:50], 2, axis=0),),
    "pixels": (DIGITS.data.astype(np.uint8),),
    "half floats": (DIGITS.data[:100].astype(np.float16),),
    "single floats": (DIGITS.data[:100].astype(np.float32),),
    "zeros": (np.zeros((5, 2)),),
    "one row": (np.ones((1, 2)),),
    "queries": (DIGITS.data, None, HALVED),
    "copies and queries": (np.repeat(GAUSSIAN[:50], 2, axis=0), None, GAUSSIAN[:9] / 2),
    "many queries": (DIGITS.data, None, DIGITS.data[:600].reshape(3, 200, 64) + 1),
    "one query": (GAUSSIAN, None, GAUSSIAN[0] + 1),
    "a row of zeros, and queries": (np.vstack([GAUSSIAN, np.zeros(24)]), None, GAUSSIAN[:9]),
    "classes": (DIGITS.data[:400], DIGITS.target[:400]),
    "classes of many": (MANY, (MANY[:, 0] > 0).astype(int)),
    "named classes": (load_iris().data, np.array(["a", "b", "c"])[load_iris().target]),
    "targets": load_diabetes(return_X_y=True),
    "two targets of many": (MANY, MANY[:, :2] ** 2),
    "classes and queries": (*load_wine(return_X_y=True), load_wine().data[::5] / 2),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("separation", [None, "softmax", sh.Entmax(1.25)], ids=str)
@pytest.mark.filterwarnings("ignore::sparsehopfield.RetrievalWarning")
def test_every_expression_gives_the_number_beside_it(case, separation, monkeypatch):
    data = CASES[case]
    if case.endswith("of many"):
        monkeypatch.setattr(_betas, "PART", 300)
        monkeypatch.setattr(_betas, "COMPARED", 200)
    s = sh.suggest(*data, separation=separation)
    assert {row.setting for row in s.rows} >= {"beta", "separation", "structure", "index"}
    for row in s.rows:
        assert evaluated(row.call, s, *data) == pytest.approx(row.evidence, rel=1e-9, abs=1e-12), row
    sizes = data[0].shape
    assert s.shape == sizes
    assert len(s.sample) <= 1024
    assert (len(s.part) < sizes[0]) == case.endswith("of many")
    assert s.memory(data[0], None if len(data) == 1 else data[1]).shape == sizes


def test_the_table_is_text_and_html():
    s = sh.suggest(DIGITS.data, queries=HALVED)
    text = str(s)
    assert text.startswith("suggested for 1797 rows of 64 features, of which 1024 were looked at\n\n")
    for row in s.rows:
        assert row.reason in text
        assert row.call in text
        assert f"{row.evidence:.4g}" in text
    assert max(map(len, text.split("\n\n")[1].splitlines())) <= 160
    page = s._repr_html_()
    assert page.count("<table") == page.count("</table>") == 2
    assert page.count("<tr>") == 2 * (len(s.rows) + 1)
    assert "&#x27;euclidean&#x27;" in page or "&#x27;cosine&#x27;" in page
    assert repr(s) == f"Suggestion(similarity='cosine', beta={s.beta}, separation='sparsemax', structure=None, " + (
        "shape=(1797, 64), task=None)"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.beta = 1.0


def test_settings_suit_every_constructor():
    s = sh.suggest(GAUSSIAN)
    assert sh.HopfieldMemory(GAUSSIAN, **s.settings()).beta == s.beta
    assert HopfieldRetriever(**s.settings()).fit(GAUSSIAN).beta_ == s.beta
    assert s.memory(GAUSSIAN, beta=3.0, index=False).beta == 3.0
    targets = GAUSSIAN[:, :2]
    s = sh.suggest(GAUSSIAN, targets)
    np.testing.assert_array_equal(s.memory(GAUSSIAN, targets).values, targets)
    np.testing.assert_array_equal(s.memory(GAUSSIAN, targets, values=GAUSSIAN).values, GAUSSIAN)


def test_the_same_number_draws_the_same_rows():
    X = np.random.default_rng(0).standard_normal((3000, 5))
    a, b, c = sh.suggest(X), sh.suggest(X), sh.suggest(X, random_state=1)
    assert a.rows == b.rows
    assert a.settings() == b.settings()
    np.testing.assert_array_equal(a.sample, b.sample)
    assert not np.array_equal(a.sample, c.sample)
    assert sh.suggest(X, random_state=np.random.default_rng(0)).rows == a.rows
    assert len(sh.suggest(X, subsample=10).sample) == 10
    assert (np.diff(a.sample) > 0).all()
    memory = sh.HopfieldMemory(X, values=X, similarity="euclidean")
    assert best_beta(memory, X, task="regression") == best_beta(memory, X, task="regression")


def test_nothing_that_is_given_is_changed():
    X, y, queries = DIGITS.data[:300].copy(), DIGITS.target[:300].copy(), HALVED.copy()
    for a in (X, y, queries):
        a.flags.writeable = False
    sh.suggest(X, y, queries)
    memory = sh.HopfieldMemory(X, 3.0, values=np.eye(10)[y], similarity="euclidean", structure=TopK(5))
    best_beta(memory, y, task="classification")
    assert (memory.beta, memory.structure, memory.separation) == (3.0, TopK(5), "sparsemax")


# --- odd data -------------------------------------------------------------------------------------------------------


def test_rows_whose_squares_underflow():
    X = np.array([[1.0, 0.0], [0.0, 2.0**-700], [-(2.0**-990), 0.0]])
    units = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    for queries in (None, units, X):
        assert np.array_equal(sh.suggest(X, queries=queries, similarity="cosine").memory(X).update(units), units)
        assert str(sh.suggest(X, queries=queries))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_numbers_give_settings_that_work(data):
    dtype = data.draw(st.sampled_from([np.float64, np.float32, np.float16, np.uint8, np.int16, np.bool_]))
    shape = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 4)))
    elements = {"min_value": -1000, "max_value": 1000} if np.dtype(dtype).kind == "f" else None
    X = data.draw(hnp.arrays(dtype, shape, elements=elements))
    if np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize > 2:
        X = X * dtype(10) ** data.draw(st.integers(-30, 12))  # below the smallest normal number, too
    queries = data.draw(st.sampled_from([None, X, X[0]]))
    y = None
    if len(X) > 1 and data.draw(st.booleans()):
        y = data.draw(st.sampled_from([np.arange(len(X)) % 2, np.arange(len(X)) / 3, np.zeros(len(X), int)]))
    s = sh.suggest(X, y, queries, separation=data.draw(st.sampled_from([None, "softmax", "entmax15"])))
    assert s.similarity in ("dot", "euclidean", "cosine")
    assert 0 < s.beta < np.inf
    assert np.isfinite(s.memory(X).update(X)).all()
    assert str(s)
    # Evidence is what plain expressions of NumPy give, where squares of smaller numbers leave the range of float64.
    if not ((X != 0) & (np.abs(X.astype(np.float64)) < 1e-100)).any():
        for row in s.rows:
            assert np.isfinite(row.evidence), row


@pytest.mark.parametrize("scale", [2.0**-400, 2.0**-30, 2.0**30, 2.0**400])
def test_beta_follows_the_scale_of_rows(scale):
    """Scores grow with the square of the scale, and beta falls with it."""
    s, scaled = sh.suggest(GAUSSIAN), sh.suggest(GAUSSIAN * scale)
    assert scaled.similarity == s.similarity
    assert scaled.beta * scale * scale == pytest.approx(s.beta, rel=2e-3)
    y = (GAUSSIAN[:, 0] > 0).astype(int)
    one, other = sh.suggest(GAUSSIAN, y), sh.suggest(GAUSSIAN * scale, y)
    assert other.similarity == one.similarity
    assert rows_of(other, "beta")[0].evidence == pytest.approx(rows_of(one, "beta")[0].evidence, abs=1e-9)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": [[np.nan, 1.0]]}, ValueError, "X: row 0 contains NaN"),
        ({"X": [1.0, 2.0]}, ValueError, "X: must be two-dimensional"),
        ({"X": np.empty((0, 3))}, ValueError, "X: needs at least one row"),
        ({"X": [["a"]]}, TypeError, "X: must be real numbers"),
        ({"X": [[1e200, 1.0]]}, OverflowError, "X: the scores of row 0"),
        ({"X": [[0.0, 0.0], [1.0, 2.0]], "similarity": "cosine"}, ValueError, "X: row 0 has length 0"),
        ({"y": [0, 1]}, ValueError, "y: must be one class for each of the 300 rows"),
        ({"y": [0.5, 1]}, ValueError, "y: must be one row of targets for each of the 300 rows"),
        ({"y": np.full(300, np.nan)}, ValueError, "y: contains NaN"),
        ({"y": [None] * 300}, ValueError, "y: must not be missing"),
        ({"y": np.ones(300)}, ValueError, "y: target 0 is the same for all rows"),
        ({"y": ["a"] * 300, "task": "regression"}, TypeError, "y: "),
        ({"X": [[1.0]], "y": [1]}, ValueError, "y: a row is predicted by others"),
        ({"y": np.arange(300), "task": "ranking"}, ValueError, "task: unknown name 'ranking'"),
        ({"task": "regression"}, ValueError, "task: says what y is"),
        ({"queries": np.ones(3)}, ValueError, "queries: "),
        ({"queries": np.full(24, np.inf)}, ValueError, "queries: "),
        ({"queries": np.empty((0, 24))}, ValueError, "queries: needs at least one"),
        ({"similarity": "euclid"}, ValueError, "similarity: unknown name 'euclid'"),
        ({"separation": "sparsmax"}, ValueError, "separation: unknown name"),
        ({"separation": sh.Polynomial(3)}, ValueError, "separation: beta cancels"),
        ({"subsample": 0}, ValueError, "subsample: must be at least 1"),
        ({"random_state": "a"}, TypeError, "random_state: "),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        sh.suggest(**{"X": GAUSSIAN, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"y": np.arange(4)}, ValueError, "y: must be whole numbers, one for each of the 6 rows"),
        ({"y": np.ones(6)}, ValueError, "y: must be whole numbers"),
        ({"y": [0, 1, 2, 0, 1, 2]}, ValueError, "y: must be columns of the memory's values, 0 to 1"),
        ({"y": [0, 1, -1, 0, 1, 0]}, ValueError, "y: must be columns"),
        ({"task": "regression"}, ValueError, "y: must be 2 numbers for each of the 6 rows"),
        ({"y": np.full((6, 2), np.nan), "task": "regression"}, ValueError, "y: contains NaN"),
        ({"task": "clustering"}, ValueError, "task: unknown name"),
        ({"task": 3}, TypeError, "task: must be one of"),
        ({"sample_weight": np.ones(5)}, ValueError, "sample_weight: must be one number for each of the 6 rows"),
        ({"sample_weight": -np.ones(6)}, ValueError, "sample_weight: must be finite and at least 0"),
        ({"sample_weight": np.zeros(6)}, ValueError, "sample_weight: must not be 0 for all rows"),
        ({"structure": Window(1)}, ValueError, "structure: rows can be left out of all pairs and of TopK"),
        ({"random_state": -1}, TypeError, "random_state: "),
    ],
)
def test_best_beta_names_bad_arguments(arguments, error, message):
    classes = np.array([0, 1, 0, 1, 0, 1])
    structure = arguments.get("structure")
    memory = sh.HopfieldMemory(GAUSSIAN[:6], values=np.eye(2)[classes], structure=structure)
    given = {"y": classes, "task": "classification", **arguments}
    given.pop("structure", None)
    with pytest.raises(error, match=f"^{message}"):
        best_beta(memory, **given)


def test_one_row_has_no_best_beta():
    memory = sh.HopfieldMemory([[1.0, 2.0]], 5.0, values=[[1.0]])
    assert best_beta(memory, [3.0], task="regression") == 1.0
    same = sh.HopfieldMemory(np.ones((4, 2)), values=np.eye(2)[[0, 1, 0, 1]])
    assert best_beta(same, [0, 1, 0, 1], task="classification") == 1.0


def test_the_beta_that_stores_rows():
    memory = sh.HopfieldMemory(GAUSSIAN, similarity="euclidean")
    margins = np.sort(memory.margin())[::-1]
    for share, last in ((0.99, int(np.ceil(0.99 * 300)) - 1), (0.5, 149)):
        beta = storing_beta(memory, share)
        assert 1 / margins[last] < beta < (1 + 1e-11) / margins[last]
        assert beta == memory.suggest_beta(share)
        assert memory.is_certified(beta).mean() >= share > memory.is_certified(np.nextafter(beta, 0)).mean()
        assert storing_beta(memory, share, margins=memory.margin()) == np.nextafter(1 / margins[last], np.inf)
    assert storing_beta(sh.HopfieldMemory(np.ones((3, 2)))) == 1.0
    memory.separation = "softmax"
    with pytest.raises(ValueError, match="beta: 'auto' needs a separation that stores patterns exactly"):
        storing_beta(memory)


def test_it_is_found_without_an_import_and_loads_little():
    assert sh.suggest is suggestion.suggest
    assert {"suggest", "Suggestion"} <= {*sh.__all__}
