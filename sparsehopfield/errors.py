"""Errors and warnings of the package."""

__all__ = ["FileFormatError", "RetrievalWarning"]


class FileFormatError(ValueError):
    """A file is cut, damaged, from elsewhere or of a later version; the message begins with its path."""


class RetrievalWarning(RuntimeWarning):
    """Some queries were still moving when `max_steps` was reached."""
