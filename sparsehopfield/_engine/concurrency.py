"""Objects that threads share: attributes computed once, and changes made by one thread at a time.

Neither deadlocks in a forked child, where a thread that held a lock does not run. Cached attributes need no lock. A
ChangeLock is made anew in the child: what its holder was changing is then as before the change, or as after it, since
every change ends with a single assignment.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

__all__ = ["ChangeLock", "cached"]

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class cached(Generic[Value]):
    """An attribute that is computed when it is first read, and stored in the object's `__dict__`.

    `functools.cached_property` does so, but before Python 3.12 under one lock for all objects of a class: threads wait
    for each other's objects, and a child that is forked meanwhile waits for ever. Here threads that read at the
    same time all compute the value, and all get the one that was ready first.
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


class ChangeLock:
    """A lock that one thread at a time holds while it changes an object; others wait.

    Its holder cannot take it again, as a signal handler or a finaliser would that runs in the middle of the change:
    that raises RuntimeError, since a thread that waits for itself waits for ever.
    """

    def __init__(self) -> None:
        self._reset()
        _locks.add(self)

    def _reset(self) -> None:
        """Make a new lock, which no thread holds."""
        # Reentrant: a handler that runs after the lock is taken and before the holder is set below finds no change
        # begun, and may change the object.
        self._lock = threading.RLock()
        self._holder: int | None = None

    def run(self, change: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """Call `change` while no other thread changes the object, and return what it returns.

        Raises
        ------
        RuntimeError
            If this thread is changing it already.
        """
        this_thread = threading.get_ident()
        with self._lock:
            if self._holder == this_thread:
                raise RuntimeError(
                    "the memory is being changed by this thread, which a signal handler, a finaliser or an argument's "
                    "own conversion has interrupted; change it after that"
                )
            self._holder = this_thread
            try:
                return change(*args, **kwargs)
            finally:
                self._holder = None

    def reset_after_fork(self) -> None:
        """Release the lock, in a child process, if its holder runs in the parent only."""
        if self._holder != threading.get_ident():  # a change that forks goes on in the child, too
            self._reset()


_locks: weakref.WeakSet[ChangeLock] = weakref.WeakSet()


def _reset_all() -> None:
    """Release in a child process the locks of threads that run in the parent only."""
    for lock in list(_locks):
        lock.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
