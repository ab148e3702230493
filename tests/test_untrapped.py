"""The context in which nothing is trapped: what it sets, and that it gives back what was set before."""

import threading

import numpy as np
import pytest

from sparsehopfield import checks

HUGE = np.array([1e308, -1e308, 0.0])


def overflow() -> np.ndarray:
    """Return numbers that overflow and are invalid on the way."""
    return HUGE * 10 / np.zeros(3)


@pytest.mark.parametrize("mode", ["raise", "warn", "ignore", "print"])
def test_nothing_is_trapped_within_and_all_is_as_before_after(mode):
    with np.errstate(all=mode):
        before = np.geterr()
        with checks.untrapped():
            assert np.geterr() == dict.fromkeys(before, "ignore")
            overflow()
            with checks.untrapped():
                overflow()
            assert np.geterr() == dict.fromkeys(before, "ignore")
        assert np.geterr() == before
        checks.untrapped()(overflow)()
        assert np.geterr() == before


def test_what_raises_within_leaves_all_as_before():
    @checks.untrapped()
    def fails() -> None:
        raise KeyError("within")

    with np.errstate(all="raise"):
        with pytest.raises(KeyError):
            fails()
        with pytest.raises(KeyError), checks.untrapped():
            raise KeyError("within")
        with pytest.raises(FloatingPointError):
            overflow()


def test_a_decorated_function_calls_itself_and_runs_in_threads():
    @checks.untrapped()
    def deep(n: int) -> float:
        overflow()
        return 0.0 if n == 0 else 1 + deep(n - 1)

    found: list[float] = []

    def run() -> None:
        with np.errstate(all="raise"):
            found.append(deep(20))
            with pytest.raises(FloatingPointError):
                overflow()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [20.0] * 4


def test_it_is_the_setting_of_numpy_that_was_found():
    assert isinstance(checks.untrapped, type)
    assert checks.untrapped.setting.name.startswith("numpy")
