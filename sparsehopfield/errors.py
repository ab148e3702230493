"""Errors and warnings of the package."""

__all__ = ["FileFormatError", "FileFormatWarning", "RetrievalWarning"]


LONGEST = 1000  # characters of a message about a file: what damaged files hold is quoted in some


class FileFormatError(ValueError):
    """A file is cut, damaged, from elsewhere or of a later version; the message begins with its path.

    What a file holds may be quoted: of a long message the middle is left out.

    Parameters
    ----------
    message : str
        What is wrong; of more than 1,000 characters the middle is left out.

    See Also
    --------
    sparsehopfield.HopfieldMemory.load : Load a memory, which may raise it.
    FileFormatWarning : Told where the file can be read without its index.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sparsehopfield import FileFormatError, HopfieldMemory
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "memory.safetensors"
    ...     _ = path.write_bytes(b"no memory")
    ...     try:
    ...         HopfieldMemory.load(path)
    ...     except FileFormatError as error:
    ...         print(str(error).removeprefix(f"{path}: "))
    is cut, or no safetensors file: 9 bytes cannot hold its header
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST - 200]} ... {message[-195:]}"
        super().__init__(message)


class FileFormatWarning(UserWarning):
    """A file holds an index that is not used: it is damaged, of another version, or of other patterns.

    The message begins with the file's path. Results are the same: an index is built anew, or done without.

    See Also
    --------
    sparsehopfield.HopfieldMemory.load : Load a memory, which may warn so.
    FileFormatError : Raised where the file cannot be read at all.

    Examples
    --------
    Load a file only if its index, too, can be used:

    >>> import tempfile
    >>> import warnings
    >>> from sparsehopfield import FileFormatWarning, HopfieldMemory
    >>> with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=FileFormatWarning)
    ...     HopfieldMemory([[1.0, 0.0], [0.0, 1.0]]).save(folder + "/memory.safetensors", index=True)
    ...     print(len(HopfieldMemory.load(folder + "/memory.safetensors")))
    2
    """


class RetrievalWarning(RuntimeWarning):
    """Some queries were still moving when `max_steps` was reached.

    See Also
    --------
    sparsehopfield.retrieve : Retrieve, with more steps or a larger `tol`.
    sparsehopfield.RetrievalInfo : Say of each query whether it has converged.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from sparsehopfield import retrieve
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     _ = retrieve([0.5, 0.4], np.eye(2), beta=4.0, max_steps=1)
    >>> print(caught[0].message)
    1 of 1 queries still moved by more than tol * max|xi| = 8.88e-16 * max|xi| after 1 steps; raise max_steps or tol
    """
