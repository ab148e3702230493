"""Progress of what takes long: a bar, or a function that is told how much is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sparsehopfield._engine.optional import require
from sparsehopfield._engine.text import short

__all__ = ["Passes", "Progress", "progress_bar", "telling"]

Tell = Callable[[int, int], Any]
Progress = bool | Tell  # what users give: whether to show a bar, or a function of what is done and the total


def progress_bar(
    total: int, title: str, unit: str, *, purpose: str, initial: int = 0, disable: bool | None = False
) -> Any:
    """Return a bar of tqdm, which is a context.

    Parameters
    ----------
    total, initial : int
        Units in all, and those that are done.
    title, unit : str
        What is done, and what of.
    purpose : str
        What the bar is for, as the error says it where tqdm is missing.
    disable : bool or None
        None shows the bar on terminals only.
    """
    tqdm = require("tqdm", purpose=purpose).tqdm
    return tqdm(total=total, initial=initial, desc=title, unit=f" {unit}", disable=disable)


class Passes:
    """Passes over m patterns, of which a function is told how many patterns are done in all passes together.

    Parameters
    ----------
    tell : callable or None
        Told what is done, ascending, and the total, passes * m.
    passes, m : int
    """

    def __init__(self, tell: Tell | None, passes: int, m: int) -> None:
        self._tell, self._total, self._m = tell, passes * m, m
        self._before = -m  # patterns in the passes before this one
        self._told = -1

    def _reach(self, done: int) -> None:
        """Tell the function what is done, unless it knows."""
        if self._tell is not None and done > self._told:
            self._told = done
            self._tell(done, self._total)

    def begin(self) -> Tell | None:
        """Begin the next pass; return the function that it tells how many of how many are done, None for nobody."""
        self._before += self._m
        if self._tell is None:
            return None
        self._reach(self._before)
        before = self._before
        return lambda done, total: self._reach(before + (self._m * done // total if total else self._m))

    def end(self) -> None:
        """Tell that all passes are done, those among them that were not needed."""
        self._reach(self._total)


def _check_takes_two(function: Any) -> None:
    """Raise unless a function can be called with two numbers, as far as it says."""
    what = f"progress: must be True, False or a function of what is done and the total, got {short(function)}"
    if not callable(function):
        raise TypeError(what)
    try:
        inspect.signature(function).bind(0, 1)
    except TypeError as error:
        raise TypeError(f"{what}: {error}") from None
    except ValueError:  # some that are written in C do not say
        pass


@contextmanager
def telling(progress: Any, title: str, passes: int, m: int) -> Iterator[Passes]:
    """Check the argument `progress`, and let passes over m patterns tell whom it names.

    Parameters
    ----------
    progress : bool or callable
        True: a bar. False: nobody. Else the function.
    title : str
        Of the bar.
    passes, m : int

    Raises
    ------
    TypeError
        If `progress` is neither.
    ImportError
        If there is no tqdm for a bar.
    """
    if progress is None or isinstance(progress, (bool, np.bool_)):
        if not progress:
            yield Passes(None, passes, m)
            return
        with progress_bar(passes * m, title, "patterns", purpose=f"the progress bar of {title}") as bar:
            told = Passes(lambda done, total: bar.update(done - bar.n), passes, m)
            yield told
            told.end()
        return
    _check_takes_two(progress)
    told = Passes(progress, passes, m)
    yield told
    told.end()
