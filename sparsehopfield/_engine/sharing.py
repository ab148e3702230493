"""Objects that threads share: values computed once and kept, and changes made one at a time.

Neither outlives a fork as a lock that nobody will give back. A value that is kept has no lock at all. A turn is renewed
in a forked child, where the thread that had it does not run; what it was changing is then as it was before the change,
or after it, since every change is made known by a single assignment.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

__all__ = ["Turn", "kept"]

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class kept(Generic[Value]):
    """Compute an attribute when it is first asked for, and keep it in the object's `__dict__`.

    `functools.cached_property` does so, but before Python 3.12 under one lock for all objects of a class: threads wait
    for each other's objects, and a child that is forked meanwhile waits for ever. Here threads that ask at the same
    time all compute the value, and all get the one that was ready first.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make, self._name = make, make.__name__
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        value: Value = instance.__dict__.setdefault(self._name, self._make(instance))  # one step, so no lock is needed
        return value


class Turn:
    """A right to change an object, had by one thread at a time.

    Others wait. The thread that has it cannot take it again, as a signal handler or a finaliser would do that runs in
    the middle of its change: that raises RuntimeError, since to wait for oneself is to wait for ever.
    """

    def __init__(self) -> None:
        self._renew()
        _turns.add(self)

    def _renew(self) -> None:
        # A lock that its thread may take twice: what runs between taking it and saying so below finds nothing begun,
        # and may change the object.
        self._lock = threading.RLock()
        self._holder: int | None = None

    def take(self, change: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """Return what `change` returns, called when no other thread changes the object.

        Raises
        ------
        RuntimeError
            If this thread is changing it already.
        """
        me = threading.get_ident()
        with self._lock:
            if self._holder == me:
                raise RuntimeError(
                    "the memory is being changed by this thread, which a signal handler, a finaliser or an argument's "
                    "own conversion has interrupted; change it after that"
                )
            self._holder = me
            try:
                return change(*args, **kwargs)
            finally:
                self._holder = None

    def forked(self) -> None:
        """Give the turn back, in a child process, for a thread that runs in the parent only."""
        if self._holder != threading.get_ident():  # a change that forks goes on in the child, too
            self._renew()


_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


def _renew_all() -> None:
    for turn in list(_turns):
        turn.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
