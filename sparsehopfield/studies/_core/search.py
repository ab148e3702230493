"""The search for the inverse temperature that serves a map best."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def best_beta(loss: Callable[[float], float], first: Sequence[float], limits: tuple[float, float]) -> float:
    """Return the beta of the least loss: of some first ones, and beyond them by factors of 2 while an end is the best.

    Parameters
    ----------
    loss : callable
        Takes a beta.
    first : sequence of float
        In increasing order, at least two.
    limits : tuple of 2 float
        None is tried beyond these.

    Returns
    -------
    float
        The smallest of several with the same loss. It is one of `limits` if betas beyond them may be better.

    Examples
    --------
    >>> best_beta(lambda beta: (beta - 30) ** 2, (1.0, 2.0, 4.0), (0.5, 64.0))
    32.0
    >>> best_beta(lambda beta: -beta, (1.0, 2.0, 4.0), (0.5, 64.0))
    64.0
    """
    losses = {beta: loss(beta) for beta in first}
    while True:
        tried = sorted(losses)
        best = min(tried, key=losses.__getitem__)
        if best == tried[0] and losses[best] < losses[tried[1]] and best / 2 >= limits[0]:
            losses[best / 2] = loss(best / 2)
        elif best == tried[-1] and best * 2 <= limits[1]:
            losses[best * 2] = loss(best * 2)
        else:
            return best
