"""Grequest: a request that the program itself completes, from whatever thread.

May not: call the program's functions at any other time than MPI says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import ground
from .constants import ERR_OTHER, ERR_REQUEST
from .engine.requests import Request as Work
from .errors import Exception as Error
from .errors import fail
from .request import Job, Request
from .status import Status


class _Own(Job):
    """What it names.  query: tells a status; free: nobody asks any more; cancel: is told whether it is done."""

    __slots__ = ("_arguments", "_cancel", "_free", "_is_left", "_query", "_status")

    def __init__(self, query: Any, free: Any, cancel: Any, args: Any, kwargs: Any) -> None:
        super().__init__(Work())
        self._query, self._free, self._cancel = query, free, cancel
        self._arguments: Any = tuple(args or ()), dict(kwargs or {})
        self._status = Status()
        self._is_left = False

    def _called(self, function: Any, *first: Any) -> Error | None:
        """Call a function of the program's; its error is shown, as whoever waits may be far from it."""
        args, kwargs = self._arguments
        try:
            if function is not None:
                function(*first, *args, **kwargs)
        except Exception as error:
            import traceback

            traceback.print_exc()
            return fail(error.Get_error_code() if isinstance(error, Error) else ERR_OTHER, f"{error}")
        return None

    def complete(self, obj: Any) -> None:
        if self.is_done:
            raise fail(ERR_REQUEST, "the request is complete already")
        self.result = obj
        self.work.is_done = True
        ground.engine().stir()
        if self._is_left:
            self._called(self._free)

    def finish(self) -> None:
        self._status = Status()
        self.error = self._called(self._query, self._status)
        if self._cancel is None:
            self._status.cancelled = False

    def fill(self, status: Status | None) -> None:
        if status is not None:
            status._copy(self._status)

    def leave(self) -> bool:
        self.error = self._called(self._free) or self.error
        return True

    def cancel(self) -> None:
        error = self._called(self._cancel, self.is_done)
        if error is not None:
            raise error

    def free(self) -> None:
        self._is_left = True
        if self.is_done:
            self._called(self._free)


class Grequest(Request):
    """Something of the program's that is under way."""

    __slots__ = ()

    def __new__(cls, request: Request | None = None) -> Any:
        if request and not isinstance(request, Grequest):
            raise TypeError(f"a Grequest is made from a Grequest, not from {request!r}")
        return super().__new__(cls, request)

    @classmethod
    def Start(
        cls,
        query_fn: Callable[..., None] | None = None,
        free_fn: Callable[..., None] | None = None,
        cancel_fn: Callable[..., None] | None = None,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make one that is under way.

        query_fn(status, ...) tells what has come of it, free_fn(...) is called when nobody asks any more, and
        cancel_fn(completed, ...) is to give it up.
        """
        return cls._of(_Own(query_fn, free_fn, cancel_fn, args, kwargs))

    def Complete(self) -> None:
        """Say that it is done."""
        self.complete()

    def complete(self, obj: Any = None) -> None:
        """Say that it is done, and what `wait` is to give."""
        own = self._named
        if not isinstance(own, _Own):
            raise fail(ERR_REQUEST, "the null request cannot be completed")
        own.complete(obj)
