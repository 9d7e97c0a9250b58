"""Request: something that is under way, and the ways to wait for it.

    isend, irecv, Isend, Irecv ... --> Request --wait, test, Waitall, ...--> done; an object, or a Status

    Request --names--> Job --has--> work: a message of the engine, or anything that has `is_done` and `error`

May not: send or receive itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import ground
from .constants import ANY_SOURCE, ANY_TAG, ERR_IN_STATUS, ERR_REQUEST, PROC_NULL, SUCCESS, UNDEFINED
from .engine.requests import Receiving, Sending
from .engine.requests import Request as Work
from .errors import Exception as Error
from .errors import as_error, fail
from .handles import Handle
from .status import Status

# Work that is done as soon as it begins.
DONE = Work()
DONE.is_done = True


class All:
    """Works that are done when each of them is."""

    __slots__ = ("works",)

    def __init__(self, works: Iterable[Any]) -> None:
        self.works = list(works)

    @property
    def is_done(self) -> bool:
        return all(work.is_done for work in self.works)

    @property
    def error(self) -> BaseException | None:
        return next((work.error for work in self.works if work.error is not None), None)


class Job:
    """What a request names.

    work: see above; None for what is done at once.  ended: called with it, once; gives the result that `wait` returns,
    and may raise.  comm: whose it is.  coming: what the status is about, if that is not the work itself.
    """

    __slots__ = ("__weakref__", "comm", "coming", "ended", "error", "is_ended", "result", "work")
    is_active = True  # whether there is anything to wait for

    def __init__(
        self, work: Any, ended: Callable[[Any], Any] | None = None, comm: Any = None, coming: Receiving | None = None
    ) -> None:
        self.work = DONE if work is None else work
        self.ended, self.comm = ended, comm
        self.coming = coming
        self.is_ended = False
        self.result: Any = None
        self.error: Error | None = None

    @property
    def is_done(self) -> bool:
        return bool(self.work.is_done)

    @property
    def works(self) -> Sequence[Any]:
        """What it is done with."""
        return self.work.works if isinstance(self.work, All) else (self.work,)

    def wait(self) -> None:
        for work in self.works:
            if not work.is_done:
                ground.engine().wait(work)

    def finish(self) -> None:
        """It is done: take what has come, once."""
        if self.is_ended:
            return
        self.is_ended = True
        if self.work.error is not None:
            self.error = as_error(self.work.error)
        elif self.ended is not None and not self._is_cancelled:
            try:
                self.result = self.ended(self.work)
            except Error as error:
                self.error = error
        if self.error is not None and self.comm is not None:
            self.error = self.comm._handled(self.error)

    def fill(self, status: Status | None) -> None:
        """Let a status tell of it."""
        if status is None:
            return
        code = SUCCESS if self.error is None else self.error.Get_error_code()
        coming = self.work if self.coming is None else self.coming
        if isinstance(coming, Receiving) and coming.is_matched:
            describe(status, self.comm, coming, code)
        else:
            status._take(ANY_SOURCE, ANY_TAG, code, 0, self._is_cancelled)

    @property
    def _is_cancelled(self) -> bool:
        return getattr(self.work, "is_cancelled", False)

    def leave(self) -> bool:
        """It has been waited for; whether nothing is left of it."""
        return True

    def cancel(self) -> None:
        if isinstance(self.work, (Sending, Receiving)):
            ground.engine().cancel(self.work)
        elif self.work is not DONE:
            raise fail(ERR_REQUEST, "only a message can be cancelled")

    def free(self) -> None:
        """Nobody will wait for it."""


class Request(Handle):
    """Something under way."""

    __slots__ = ()
    _named: Job | None

    # -- one ----------------------------------------------------------------------------------------------------

    def _complete(self, status: Status | None) -> Any:
        job = self._named
        assert job is not None
        try:
            job.finish()
            job.fill(status)
        finally:  # what came may be no pickle
            if job.leave():
                self._named = None
        if job.error is not None:
            raise job.error
        return job.result

    def Wait(self, status: Status | None = None) -> bool:
        """Wait until it is done."""
        Request.wait(self, status)  # and not that of a subclass, which may call this
        return True

    def wait(self, status: Status | None = None) -> Any:
        """Wait until it is done, and give the object that came."""
        if self._named is None:
            _empty(status)
            return None
        self._named.wait()
        return self._complete(status)

    def Test(self, status: Status | None = None) -> bool:
        """Say whether it is done."""
        return Request.test(self, status)[0]

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
        return type(self).Get_status_all([self], None if status is None else [status])

    def get_status(self, status: Status | None = None) -> bool:
        """Say whether it is done; it stays."""
        return self.Get_status(status)

    def Cancel(self) -> None:
        """Give up a message that nobody has matched; it is to be waited for all the same."""
        if self._named is None:
            raise fail(ERR_REQUEST, "the null request cannot be cancelled")
        self._named.cancel()

    cancel = Cancel

    def Free(self) -> None:
        """Forget it; what is under way goes on."""
        if self._named is None:
            raise fail(ERR_REQUEST, "the null request cannot be freed")
        job, self._named = self._named, None
        job.free()

    # -- several ------------------------------------------------------------------------------------------------

    @classmethod
    def Waitall(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> bool:
        """Wait until all are done."""
        cls.waitall(requests, statuses)
        return True

    @classmethod
    def waitall(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> list[Any]:
        """Wait until all are done, and give the objects that came."""
        for job in _jobs(requests):
            if job is not None:
                job.wait()
        return _all(requests, statuses)

    @classmethod
    def Testall(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> bool:
        """Say whether all are done."""
        return cls.testall(requests, statuses)[0]

    @classmethod
    def testall(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> tuple[bool, list[Any] | None]:
        """Say whether all are done, and give the objects that came."""
        ground.engine().progress()
        if not all(job is None or job.is_done for job in _jobs(requests)):
            return False, None
        return True, _all(requests, statuses)

    @classmethod
    def Waitany(cls, requests: Sequence[Any], status: Status | None = None) -> int:
        """Wait until one is done, and give its index."""
        return cls.waitany(requests, status)[0]

    @classmethod
    def waitany(cls, requests: Sequence[Any], status: Status | None = None) -> tuple[int, Any]:
        """Wait until one is done, and give its index and the object that came."""
        _wait_for_one(requests)
        index, _, obj = cls.testany(requests, status)
        return index, obj

    @classmethod
    def Testany(cls, requests: Sequence[Any], status: Status | None = None) -> tuple[int, bool]:
        """Give the index of one that is done, and whether there is one."""
        index, flag, _ = cls.testany(requests, status)
        return index, flag

    @classmethod
    def testany(cls, requests: Sequence[Any], status: Status | None = None) -> tuple[int, bool, Any]:
        """Give the index of one that is done, whether there is one, and the object that came."""
        done = _done(requests)
        if done:
            return done[0], True, requests[done[0]]._complete(status)
        if done is None:
            _empty(status)
        return UNDEFINED, done is None, None

    @classmethod
    def Waitsome(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> list[int] | None:
        """Wait until some are done, and give their indices."""
        return cls.waitsome(requests, statuses)[0]

    @classmethod
    def waitsome(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> tuple[list[int] | None, Any]:
        """Wait until some are done, and give their indices and the objects that came."""
        _wait_for_one(requests)
        return cls.testsome(requests, statuses)

    @classmethod
    def Testsome(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> list[int] | None:
        """Give the indices of those that are done."""
        return cls.testsome(requests, statuses)[0]

    @classmethod
    def testsome(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> tuple[list[int] | None, Any]:
        """Give the indices of those that are done, and the objects that came."""
        done = _done(requests)
        if done is None:
            return None, None
        return done, _all([requests[index] for index in done], statuses)

    # -- several, which stay ------------------------------------------------------------------------------------

    @classmethod
    def Get_status_all(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> bool:
        """Say whether all are done; they stay."""
        ground.engine().progress()
        jobs = _jobs(requests)
        if not all(job is None or job.is_done for job in jobs):
            return False
        _look(jobs, statuses)
        return True

    @classmethod
    def Get_status_any(cls, requests: Sequence[Any], status: Status | None = None) -> tuple[int, bool]:
        """Give the index of one that is done, and whether there is one; it stays."""
        done = _done(requests)
        if done == []:
            return UNDEFINED, False
        index = done[0] if done else UNDEFINED
        _look([requests[index]._named if done else None], None if status is None else [status])
        return index, True

    @classmethod
    def Get_status_some(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> list[int] | None:
        """Give the indices of those that are done; they stay."""
        done = _done(requests)
        if done is not None:
            _look([requests[index]._named for index in done], statuses)
        return done

    @classmethod
    def get_status_all(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> bool:
        """Say whether all are done; they stay."""
        return cls.Get_status_all(requests, statuses)

    @classmethod
    def get_status_any(cls, requests: Sequence[Any], status: Status | None = None) -> tuple[int, bool]:
        """Give the index of one that is done, and whether there is one; it stays."""
        return cls.Get_status_any(requests, status)

    @classmethod
    def get_status_some(cls, requests: Sequence[Any], statuses: list[Status] | None = None) -> list[int] | None:
        """Give the indices of those that are done; they stay."""
        return cls.Get_status_some(requests, statuses)


def _jobs(requests: Sequence[Any]) -> list[Job | None]:
    for request in requests:
        if not isinstance(request, Request):
            raise TypeError(f"a Request is expected, not {request!r}")
    return [request._named for request in requests]


def _active(requests: Sequence[Any]) -> list[tuple[int, Job]]:
    return [(index, job) for index, job in enumerate(_jobs(requests)) if job is not None and job.is_active]


def _done(requests: Sequence[Any]) -> list[int] | None:
    """The indices of those that are done; None if there is nothing to wait for."""
    ground.engine().progress()
    active = _active(requests)
    return [index for index, job in active if job.is_done] if active else None


def _wait_for_one(requests: Sequence[Any]) -> None:
    jobs = [job for _, job in _active(requests)]
    if jobs:
        works = [work for job in jobs for work in job.works]
        ground.engine().wait_until(lambda: any(job.is_done for job in jobs), works)


def _all(requests: Sequence[Any], statuses: list[Status] | None) -> list[Any]:
    """What has come of requests that are done.  Raises ERR_IN_STATUS, or the error of the only one."""
    results, errors = [], []
    for request, status in zip(requests, _each(statuses, len(requests)), strict=True):
        try:
            results.append(request.wait(status))
        except Error as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 or statuses is None else fail(ERR_IN_STATUS, "see the statuses")
    return results


def _look(jobs: Sequence[Job | None], statuses: Any) -> None:
    """Let statuses tell of jobs that are done, and which stay."""
    for job, status in zip(jobs, _each(statuses, len(jobs)), strict=True):
        if job is None:
            _empty(status)
        else:
            job.finish()
            job.fill(status)


def _each(statuses: Any, count: int) -> list[Status | None]:
    """A status for each, as far as there are any; a list is made as long as is needed."""
    if isinstance(statuses, list):
        statuses += [Status() for _ in range(count - len(statuses))]
    return [*(statuses or ()), *[None] * count][:count]


def _empty(status: Status | None) -> None:
    if status is not None:
        status._take(ANY_SOURCE, ANY_TAG)


def describe(status: Status, comm: Any, message: Any, code: int = SUCCESS) -> None:
    """Let a status tell of a message: a Receiving, or an Envelope."""
    source = message.source
    status._take(source if source == PROC_NULL else comm._source(source), message.tag, code, message.size)


REQUEST_NULL: Request = Request._predefine("REQUEST_NULL")
