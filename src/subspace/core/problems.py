"""Errors gathered, so that a user is told of all that is wrong at once. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from subspace.core.errors import ConfigError, SubspaceError, UsageError

__all__ = ["Problems"]


class Problems:
    """Errors on recipes and on the command line, in the order in which they were found.

    >>> from subspace.core.errors import ConfigError
    >>> problems = Problems()
    >>> for name in ("a", "b"):
    ...     with problems.heard():
    ...         raise ConfigError("E-CFG-001", where=name, found="no such file")
    >>> print(problems.first)
    E-CFG-001 a: no such file. (and 1 more)
    """

    def __init__(self) -> None:
        self.found: list[SubspaceError] = []

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Keep an error on recipes or on the command line, and what it brings; any other one goes on."""
        try:
            yield
        except (ConfigError, UsageError) as error:
            others, error.others = error.others, ()
            self.found += (error, *others)

    @property
    def first(self) -> SubspaceError:
        """The first error, which tells of the others."""
        first, *others = self.found
        first.others = tuple(others)
        return first

    def tell(self) -> None:
        """Raise the first error, if there is any."""
        if self.found:
            raise self.first
