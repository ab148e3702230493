"""Warnings of the package."""

__all__ = ["RetrievalWarning"]


class RetrievalWarning(RuntimeWarning):
    """Some queries were still moving when `max_steps` was reached."""
