"""Errors and warnings of the package."""

__all__ = ["FileFormatError", "RetrievalWarning"]


class FileFormatError(ValueError):
    """A file is cut, damaged, from elsewhere or of a later version; the message begins with its path.

    What a file holds may be quoted: of a long message the middle is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 1000 else f"{message[:700]} ... {message[-250:]}")


class RetrievalWarning(RuntimeWarning):
    """Some queries were still moving when `max_steps` was reached."""
