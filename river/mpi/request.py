"""Request: something that is under way, and the ways to wait for it.

    isend, irecv, Isend, Irecv ... --> Request --wait, test, Waitall, ...--> done; an object, or a Status

May not: send or receive itself.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from . import ground
from .constants import (
    ANY_SOURCE,
    ANY_TAG,
    ERR_IN_STATUS,
    ERR_PROC_FAILED,
    ERR_REQUEST,
    ERR_TRUNCATE,
    SUCCESS,
    UNDEFINED,
)
from .engine.requests import Receiving
from .engine.requests import Request as Work
from .errors import Exception as Error
from .errors import fail
from .handles import Handle
from .status import Status


class Job:
    """What a request names.  work: of the engine, None for what is done at once; ended: called once, gives the result
    that `wait` returns, and may raise.  source: makes a rank of the communicator of one of the job."""

    __slots__ = ("__weakref__", "comm", "ended", "error", "is_ended", "is_persistent", "result", "source", "work")

    def __init__(self, work: Work | None, ended: Callable[[Any], Any] | None = None, source: Any = None) -> None:
        self.work, self.ended, self.source = work, ended, source
        self.is_ended = False
        self.result: Any = None
        self.error: Error | None = None
        self.is_persistent = False

    @property
    def is_done(self) -> bool:
        return self.work is None or self.work.is_done

    def finish(self) -> None:
        """It is done: take what has come, once."""
        if self.is_ended:
            return
        self.is_ended = True
        work = self.work
        if work is not None and work.error is not None:
            self.error = fail(ERR_PROC_FAILED, str(work.error))
        elif self.ended is not None:
            try:
                self.result = self.ended(work)
            except Error as error:
                self.error = error

    def fill(self, status: Status | None) -> None:
        if status is None:
            return
        work = self.work
        code = SUCCESS if self.error is None else self.error.Get_error_code()
        if isinstance(work, Receiving) and work.is_matched:
            status._take(self.source(work.source), work.tag, code, work.size)
        elif isinstance(work, Receiving) and work.is_cancelled:
            status._take(ANY_SOURCE, ANY_TAG, code, 0, True)
        else:
            status._take(ANY_SOURCE, ANY_TAG, code)


class Request(Handle):
    """Something under way."""

    __slots__ = ()
    _named: Job | None

    # -- one ----------------------------------------------------------------------------------------------------

    def _complete(self, status: Status | None) -> Any:
        job = self._named
        assert job is not None
        job.finish()
        job.fill(status)
        self._named = None
        if job.error is not None:
            raise job.error
        return job.result

    def _await(self) -> None:
        job = self._named
        if job is not None and job.work is not None:
            ground.engine().wait(job.work)

    def Wait(self, status: Status | None = None) -> bool:
        """Wait until it is done."""
        self.wait(status)
        return True

    def wait(self, status: Status | None = None) -> Any:
        """Wait until it is done, and give the object that came."""
        if self._named is None:
            _empty(status)
            return None
        self._await()
        return self._complete(status)

    def Test(self, status: Status | None = None) -> bool:
        """Say whether it is done."""
        return self.test(status)[0]

    def test(self, status: Status | None = None) -> tuple[bool, Any]:
        """Say whether it is done, and give the object that came."""
        if self._named is None:
            _empty(status)
            return True, None
        ground.engine().progress()
        if not self._named.is_done:
            return False, None
        return True, self._complete(status)

    def Get_status(self, status: Status | None = None) -> bool:
        """Say whether it is done; it stays."""
        if self._named is None:
            _empty(status)
            return True
        ground.engine().progress()
        if not self._named.is_done:
            return False
        self._named.finish()
        self._named.fill(status)
        return True

    def Cancel(self) -> None:
        """Give up a receive for which nothing has come; it is to be waited for all the same."""
        if self._named is None:
            raise fail(ERR_REQUEST, "the null request cannot be cancelled")
        work = self._named.work
        if isinstance(work, Receiving) and ground.engine().cancel(work):
            self._named.ended = None

    cancel = Cancel

    def Free(self) -> None:
        """Forget it; what is under way goes on."""
        if self._named is None:
            raise fail(ERR_REQUEST, "the null request cannot be freed")
        super().Free()

    # -- several ------------------------------------------------------------------------------------------------

    @classmethod
    def Waitall(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> bool:
        """Wait until all are done."""
        cls.waitall(requests, statuses)
        return True

    @classmethod
    def waitall(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> list[Any]:
        """Wait until all are done, and give the objects that came."""
        for request in requests:
            request._await()
        return _all(requests, statuses)

    @classmethod
    def Testall(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> bool:
        """Say whether all are done."""
        return cls.testall(requests, statuses)[0]

    @classmethod
    def testall(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> tuple[bool, list[Any] | None]:
        """Say whether all are done, and give the objects that came."""
        ground.engine().progress()
        if not all(_is_done(request) for request in requests):
            return False, None
        return True, _all(requests, statuses)

    @classmethod
    def Waitany(cls, requests: Sequence[Any], status: Status | None = None) -> int:
        """Wait until one is done, and give its index."""
        return cls.waitany(requests, status)[0]

    @classmethod
    def waitany(cls, requests: Sequence[Any], status: Status | None = None) -> tuple[int, Any]:
        """Wait until one is done, and give its index and the object that came."""
        index = _wait_for_one(requests)
        if index == UNDEFINED:
            _empty(status)
            return index, None
        return index, requests[index]._complete(status)

    @classmethod
    def Testany(cls, requests: Sequence[Any], status: Status | None = None) -> tuple[int, bool]:
        """Give the index of one that is done, and whether there is one."""
        index, flag, _ = cls.testany(requests, status)
        return index, flag

    @classmethod
    def testany(cls, requests: Sequence[Any], status: Status | None = None) -> tuple[int, bool, Any]:
        """Give the index of one that is done, whether there is one, and the object that came."""
        ground.engine().progress()
        active = [index for index, request in enumerate(requests) if request]
        if not active:
            _empty(status)
            return UNDEFINED, True, None
        for index in active:
            if requests[index]._named.is_done:
                return index, True, requests[index]._complete(status)
        return UNDEFINED, False, None

    @classmethod
    def Waitsome(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> list[int] | None:
        """Wait until some are done, and give their indices."""
        return cls.waitsome(requests, statuses)[0]

    @classmethod
    def waitsome(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> tuple[list[int] | None, Any]:
        """Wait until some are done, and give their indices and the objects that came."""
        if _wait_for_one(requests) == UNDEFINED:
            return None, None
        return cls.testsome(requests, statuses)

    @classmethod
    def Testsome(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> list[int] | None:
        """Give the indices of those that are done."""
        return cls.testsome(requests, statuses)[0]

    @classmethod
    def testsome(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> tuple[list[int] | None, Any]:
        """Give the indices of those that are done, and the objects that came."""
        ground.engine().progress()
        if not any(requests):
            return None, None
        done = [index for index, request in enumerate(requests) if request and request._named.is_done]
        return done, _all([requests[index] for index in done], statuses)


def _is_done(request: Any) -> bool:
    return request._named is None or request._named.is_done


def _wait_for_one(requests: Sequence[Any]) -> int:
    active = [index for index, request in enumerate(requests) if request]
    if not active:
        return UNDEFINED
    found: list[int] = []

    def look() -> bool:
        found[:] = [index for index in active if requests[index]._named.is_done][:1]
        return bool(found)

    ground.engine().wait_until(look)
    return found[0]


def _all(requests: Sequence[Any], statuses: list[Status] | None) -> list[Any]:
    """What has come of requests that are done.  Raises ERR_IN_STATUS, or the error of the only one."""
    if statuses is not None:
        statuses += [Status() for _ in range(len(requests) - len(statuses))]
    results, errors = [], []
    for index, request in enumerate(requests):
        try:
            results.append(request.wait(None if statuses is None else statuses[index]))
        except Error as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 or statuses is None else fail(ERR_IN_STATUS, "see the statuses")
    return results


def _empty(status: Status | None) -> None:
    if status is not None:
        status._take(ANY_SOURCE, ANY_TAG)


def loads(work: Receiving) -> Any:
    """The object that came."""
    return pickle.loads(work.data)


def check_room(work: Receiving, room: int) -> None:
    if work.size > room:
        raise fail(ERR_TRUNCATE, f"{work.size} bytes came, but there is room for {room} only")


REQUEST_NULL: Request = Request._predefine("REQUEST_NULL")
