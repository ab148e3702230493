"""Which pairs of queries and patterns are looked at: the third choice beside `similarity` and `separation`."""

from ._base import Full, Structure

__all__ = ["Full", "Structure"]
