"""Floating-point traps: `np.seterr(all="raise")` is for the caller's arithmetic, and changes nothing that we return."""

import contextlib
import warnings

import numpy as np
import pytest
from helpers import undrawn
from public_calls import calls, flattened

import sparsehopfield as sh
from sparsehopfield import layers, optim, studies, theory
from sparsehopfield.estimators import HopfieldClassifier, HopfieldMILClassifier, HopfieldRetriever
from sparsehopfield.inspect import plotting

# sizes at which exponentials, squares or products leave the dtype, and some where nothing does
SIZES = [
    (1.0, np.float64),
    (1.0, np.float32),
    (40.0, np.float64),
    pytest.param(1e3, np.float32, marks=pytest.mark.depth),
    (1e15, np.float32),
    (1e-30, np.float32),
    (1e100, np.float64),
    pytest.param(1e-160, np.float64, marks=pytest.mark.depth),
    (1e-300, np.float64),
]


def outcome(function, arguments):
    """Give what a call returns, or the exception that it raises, in comparable parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return flattened(function(**arguments))
        except Exception as error:
            return [type(error).__name__, str(error)]


@pytest.mark.parametrize(("scale", "dtype"), SIZES)
def test_all_functions_return_the_same_under_traps(scale, dtype):
    plain, trapped = calls(scale, dtype), calls(scale, dtype)
    for name, (function, arguments) in plain.items():
        expected = outcome(function, arguments)
        with np.errstate(all="raise"):
            found = outcome(*trapped[name])
        np.testing.assert_equal(found, expected, err_msg=name)


def test_the_table_has_calls_that_work():
    """Nothing of the sweep above compares two refusals at ordinary sizes."""
    for dtype in (np.float64, np.float32):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, (function, arguments) in calls(1.0, dtype).items():
                try:
                    function(**arguments)
                except Exception as error:
                    pytest.fail(f"{name}: {error!r}")


@pytest.mark.parametrize("x", [-40.0, -39.0, 1e10, -1e300, 5e-324])
def test_gelu(x):
    with np.errstate(all="raise"):
        layer = layers.GELU()
        out = layer.forward(np.array([x]))
        slope = layer.backward(np.ones(1))
    assert out[0] == (0.0 if x < 0 else x if x > 1 else 0.0)
    assert slope[0] == (0.0 if x < 0 else 1.0 if x > 1 else 0.5)


@pytest.mark.parametrize("logit", [200.0, -200.0, 800.0, 1e30, -1e30])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_cross_entropy(logit, target):
    with np.errstate(all="raise"):
        loss, grad = layers.binary_cross_entropy_with_logits([logit], [target])
    assert loss == pytest.approx(abs(logit) if (logit > 0) != (target > 0) else 0.0, abs=1e-80)
    assert grad[0] == pytest.approx((logit > 0) - target, abs=1e-80)


def test_mil_fit_and_critical_beta():
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(5, 4)) * 30 for _ in range(12)]
    y = np.arange(12) % 2
    with np.errstate(all="raise"):
        model = HopfieldMILClassifier(epochs=5, random_state=0).fit(bags, y)
        assert np.isfinite(model.predict_proba(bags)).all()
        betas = sh.HopfieldMemory(np.eye(3, dtype=np.float32)).critical_beta()
        assert np.array_equal(theory.critical_beta(np.array([[1.0], [1.0], [3.0]])), [np.inf, np.inf, 1 / 6])
    np.testing.assert_allclose(betas, 1.0)


@pytest.mark.parametrize("X", [np.full((20, 4), 3e38, np.float32), np.full((20, 4), 1e308), -np.full((9, 3), 1e308)])
def test_estimators_of_the_largest_numbers(X):
    """Sums of what is finite are not: scikit-learn's own looks make them, too."""
    with np.errstate(all="raise"):
        for call in (
            lambda: HopfieldRetriever(1.0).fit(X),
            lambda: HopfieldClassifier(1.0).fit(X, np.arange(len(X)) % 2),
            lambda: HopfieldRetriever(1.0).fit(X / 1e38 / 1e290 if X.dtype == float else X / 1e38).transform(X),
        ):
            with contextlib.suppress(OverflowError):  # by name, of scores
                call()


def test_the_ends_of_float64():
    """What overflows on the way is met at its end, or refused by name, with traps and without."""
    with np.errstate(all="raise"):
        memory = sh.HopfieldMemory(np.eye(3), beta=1.7e308)
        assert memory.stored_fraction().shape == (9,)
        annealing = optim.Annealing(layers.HopfieldPooling(4, dtype="float64"), "beta", 1e-300, 1e300, epochs=2)
        annealing.step()
        assert annealing.value == pytest.approx(1.0)
        with pytest.raises(OverflowError, match=r"^beta:"):
            sh.energy(np.ones(3, np.float32), np.eye(3, dtype=np.float32), 1e-300)


@pytest.mark.parametrize("kind", ["divide", "over", "under", "invalid"])
def test_callers_traps_stay_the_callers(kind):
    """Afterwards the caller's settings are what they were, also behind an exception."""
    with np.errstate(**{kind: "raise"}):
        before = np.geterr()
        layers.GELU().forward([-40.0])
        with pytest.raises(ValueError, match=r"^targets:"):
            layers.binary_cross_entropy_with_logits([1.0], [2.0])
        with pytest.raises(ValueError, match=r"^patterns:"):
            theory.margin([[np.nan]])
        assert np.geterr() == before


@pytest.mark.parametrize(
    ("study", "options"),
    [
        (studies.capacity, {"dataset": "digits", "sizes": 5, "runs": 1}),
        pytest.param(
            studies.correlated,
            {"weights": (0.0, 0.9), "betas": (0.1, 4.0, 20.0), "patterns": 8, "d": 6},
            marks=pytest.mark.depth,
        ),
        (studies.theory_ledger, {"families": "sphere", "betas": (1.0, 200.0), "patterns": 8, "d": 4, "trials": 5}),
    ],
    ids=["capacity", "correlated", "theory_ledger"],
)
def test_studies(study, options, tmp_path, monkeypatch):
    """Tables and reports alike, and the figures are drawn."""
    with monkeypatch.context() as patch:
        patch.setattr(plotting, "save", undrawn)
        expected = study.run(tmp_path / "plain", **options, progress=False)
    with np.errstate(all="raise"):
        found = study.run(tmp_path / "trapped", **options, progress=False)
    assert found.rows == expected.rows
    assert found.report == expected.report
