"""Errhandler: what is to happen of an error.

ERRORS_RETURN: it is raised, as in any Python program; so mpi4py has it from the start, and River.
ERRORS_ARE_FATAL, ERRORS_ABORT: the job ends.
May not: carry that out; the communicator does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .constants import ERR_ERRHANDLER
from .errors import fail
from .handles import Handle


class Way:
    """What an error handler names.  function: called with the object and the code, for one that a program made."""

    __slots__ = ("__weakref__", "function", "name")

    def __init__(self, name: str, function: Callable[[Any, int], None] | None = None) -> None:
        self.name, self.function = name, function


class Errhandler(Handle):
    """Says what is to happen of an error."""

    __slots__ = ()
    _named: Way | None

    def Free(self) -> None:
        """Name nothing from now on, unless this is predefined."""
        if self._named is None:
            raise fail(ERR_ERRHANDLER, "the null error handler cannot be freed")
        if not self._constant:
            super().Free()


ERRHANDLER_NULL: Errhandler = Errhandler._predefine("ERRHANDLER_NULL")
ERRORS_RETURN: Errhandler = Errhandler._predefine("ERRORS_RETURN", Way("ERRORS_RETURN"))
ERRORS_ABORT: Errhandler = Errhandler._predefine("ERRORS_ABORT", Way("ERRORS_ABORT"))
ERRORS_ARE_FATAL: Errhandler = Errhandler._predefine("ERRORS_ARE_FATAL", Way("ERRORS_ARE_FATAL"))
