"""Objects that are as they were where a method fails."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["Method", "restores"]

Method = TypeVar("Method", bound=Callable[..., Any])


def restores(fit: Method) -> Method:
    """Decorate a method that sets attributes: where it raises, whatever it is, the object has those from before."""

    @functools.wraps(fit)
    def fit_or_restore(self: Any, *args: Any, **options: Any) -> Any:
        before = dict(vars(self))
        try:
            return fit(self, *args, **options)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return cast(Method, fit_or_restore)
