"""Modules against hflayers: random configurations, by numbers that it gave (`make_golden.py`), and live where it is.

Every configuration is computed by each route: the whole layer in the core, its parts around the core's operators, and
plain torch.
"""

from contextlib import nullcontext

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

import make_golden as golden  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import sparsehopfield.torch as sht  # noqa: E402
from sparsehopfield.torch import _layer  # noqa: E402

STRETCH = 31
stretches = pytest.mark.parametrize("first", range(0, golden.CONFIGURATIONS, STRETCH))


class Watching(TorchDispatchMode):
    """A mode that does nothing but be there, so that layers show their parts to it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


ROUTES = {"whole": ("core", nullcontext), "parts": (None, Watching), "plain": ("torch", nullcontext)}
routes = pytest.mark.parametrize("route", ROUTES)


@pytest.fixture(scope="module")
def kept():
    return golden.load()


@pytest.fixture(scope="module")
def hflayers():
    pytest.importorskip("hflayers", reason="hflayers is not on PyPI: github.com/ml-jku/hopfield-layers")
    return golden.peer()


def configurations(first):
    return [golden.configuration(number) for number in range(first, min(first + STRETCH, golden.CONFIGURATIONS))]


def test_numpy_draws_what_it_drew(kept):
    """The numbers are those of weights and inputs that NumPy draws; if it draws others, make the file anew."""
    for c in map(golden.configuration, range(golden.CONFIGURATIONS)):
        assert golden.drawn(c) == pytest.approx(kept[c.number][1]["drawn"], rel=1e-12), "run make_golden.py"


@stretches
def test_state(first, kept):
    """Names, order and shapes of the parameters, which of them learn, and what a seed gives them."""
    for c in configurations(first):
        layer = golden.make(sht, c)
        state, numbers = kept[c.number]
        assert golden.state(layer) == state, c
        for name, number in golden.projected(golden.weights(layer), c).items():
            assert number == pytest.approx(numbers[name], rel=1e-5, abs=1e-7), (name, c)


@stretches
@routes
def test_results(first, route, kept):
    """Outputs, gradients, matrices, and weights after some steps of AdamW, to 1e-8."""
    backend, mode = ROUTES[route]
    for c in configurations(first):
        if not c.forward:
            continue
        layer = golden.fill(golden.make(sht, c, backend=backend), c)
        before = _layer.counts["forward"]
        with mode():
            arrays = golden.measure(layer, c)
        assert (_layer.counts["forward"] > before) == (route == "whole"), c
        if route == "whole":
            arrays |= golden.matrices(layer, c)
        if golden.learns(layer, c):
            with mode():
                after = golden.optimised(layer, c)
            arrays |= {f"optimised {name}": a for name, a in after.items()}
        for name, number in golden.projected(arrays, c).items():
            assert number == pytest.approx(kept[c.number][1][name], rel=1e-8, abs=1e-8), (name, c)


@stretches
def test_live(first, hflayers):
    """Every number of outputs, gradients and matrices; weights go there and back by `load_state_dict`."""
    for c in configurations(first):
        theirs, ours = golden.make(hflayers, c), golden.make(sht, c)
        if c.forward:
            golden.fill(theirs, c)
            ours.double().load_state_dict(theirs.state_dict())
            back = golden.make(hflayers, c).double()
            back.load_state_dict(ours.state_dict())
            want, found = golden.measure(back, c) | golden.matrices(back, c), golden.measure(ours, c)
            found |= golden.matrices(ours, c)
            assert found.keys() == want.keys()
            for name, a in want.items():
                np.testing.assert_allclose(found[name], a, rtol=1e-8, atol=1e-8, err_msg=f"{name} {c}")
        else:
            ours.load_state_dict(theirs.state_dict())
            theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("ours_first", [True, False])
def test_training_goes_on_on_the_other_side(ours_first, hflayers):
    """Weights and the state of AdamW begun on one side, and steps on the other, give what one side gives alone."""
    for c in map(golden.configuration, range(0, golden.CONFIGURATIONS, golden.OPTIMISED)):
        begun, ended = (sht, hflayers) if ours_first else (hflayers, sht)
        first, second, alone = (golden.make(classes, c) for classes in (begun, ended, begun))
        if not golden.learns(first, c):
            continue
        golden.fill(first, c)
        alone.double().load_state_dict(first.state_dict())
        steps = {
            layer: torch.optim.AdamW(layer.parameters(), **golden.ADAMW) for layer in (first, second.double(), alone)
        }
        golden.optimised(first, c, steps[first])
        second.load_state_dict(first.state_dict())
        steps[second].load_state_dict(steps[first].state_dict())
        found = golden.optimised(second, c, steps[second])
        golden.optimised(alone, c, steps[alone])
        want = golden.optimised(alone, c, steps[alone])
        for name, a in want.items():
            np.testing.assert_allclose(found[name], a, rtol=1e-7, atol=1e-7, err_msg=f"{name} {c}")
