"""Errors and warnings of the package."""

__all__ = ["FileFormatError", "FileFormatWarning", "RetrievalWarning"]


LONGEST = 1000  # characters of a message about a file: what damaged files hold is quoted in some


class FileFormatError(ValueError):
    """A file is cut, damaged, from elsewhere or of a later version; the message begins with its path.

    What a file holds may be quoted: of a long message the middle is left out.
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST - 200]} ... {message[-195:]}"
        super().__init__(message)


class FileFormatWarning(UserWarning):
    """A file holds an index that is not used: it is damaged, of another version, or of other patterns.

    The message begins with the file's path. Results are the same: an index is built anew, or done without.
    """


class RetrievalWarning(RuntimeWarning):
    """Some queries were still moving when `max_steps` was reached."""
