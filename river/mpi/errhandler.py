"""Errhandler: what is to happen of an error, and the part of a communicator that sees to it.

ERRORS_RETURN: it is raised, as in any Python program; so mpi4py has it from the start, and River.
ERRORS_ARE_FATAL, ERRORS_ABORT: the job ends as if nothing had caught it, with its traceback.
a function of the program: it is called with the communicator and the code, then the error is raised.

May not: make errors.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from . import ground
from .constants import ERR_ARG, ERR_ERRHANDLER, SUCCESS
from .errors import Exception as Error
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


class Handled:
    """To be mixed into a communicator."""

    __slots__ = ()

    @property
    def ground(self) -> Any:
        """What this names."""
        raise NotImplementedError

    @classmethod
    def Create_errhandler(cls, errhandler_fn: Callable[[Any, int], None]) -> Errhandler:
        """Make an error handler of a function of the communicator and the code."""
        if not callable(errhandler_fn):
            raise TypeError(f"an error handler is a function, not {errhandler_fn!r}")
        made: Errhandler = Errhandler._of(Way(getattr(errhandler_fn, "__name__", "function"), errhandler_fn))
        return made

    def Get_errhandler(self) -> Errhandler:
        """Give the error handler."""
        return Errhandler(self.ground.errhandler or ERRORS_RETURN)  # type: ignore[no-any-return]

    def Set_errhandler(self, errhandler: Errhandler) -> None:
        """Set the error handler."""
        if not isinstance(errhandler, Errhandler):
            raise TypeError(f"an Errhandler is expected, not {errhandler!r}")
        if not errhandler:
            raise fail(ERR_ERRHANDLER, "the null error handler handles nothing")
        self.ground.errhandler = Errhandler(errhandler)  # which stays when the caller frees his
        if self.ground.number == ground.WORLD:
            ground.go_on(errhandler == ERRORS_RETURN)

    def Call_errhandler(self, errorcode: int) -> None:
        """Let the error handler have an error, which is not raised."""
        if errorcode < 0:
            raise fail(ERR_ARG, f"{errorcode} is no code of an error")
        if errorcode != SUCCESS:
            self._handled(Error(errorcode))

    def _failed(self, code: int, why: str) -> Error:
        """An error of this communicator, to be raised; its handler has had it."""
        return self._handled(fail(code, why))

    def _handled(self, error: Error) -> Error:
        """The same, of an error that somebody else has made."""
        handler = self.ground.errhandler
        if handler is None or handler == ERRORS_RETURN:
            return error
        way: Way = handler._named
        if way.function is None:
            ground.fail(_from_here(error, f"{way.name} is the error handler of {self!r}, so the job ends"))
        way.function(self, error.Get_error_code())
        return error


def _from_here(error: Error, note: str) -> Error:
    """The same error as it would be if it had been raised here and nobody had caught it."""
    frame: Any = sys._getframe(2)
    trace = None
    while frame is not None:
        trace = types.TracebackType(trace, frame, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return fail(error.Get_error_code(), f"{error.why}; {note}" if error.why else note).with_traceback(trace)
