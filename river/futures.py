"""The caller's handle: a `concurrent.futures.Future` that is also an `AsyncResult` and can be awaited.

A future costs little until somebody waits: its condition is made then.  Who waits for it reads the line (see `relay`).

May not: know how tasks are sent or where they run.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Generator
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import Any, Protocol

# Guards the birth of conditions and the change of state of those futures that have none.  One for all: it is held for
# a few bytecodes, in which nothing is allocated.
_birth = threading.Lock()
_OVER = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))


class Owner(Protocol):
    """What a future asks of the cluster that its task belongs to."""

    def wait(self, ready: Callable[[], Any], timeout: float | None) -> bool: ...

    def later(self, call: Callable[..., Any], *args: Any) -> None: ...

    def cancel(self, number: int, running: bool) -> bool: ...

    def is_running(self, number: int) -> bool: ...

    def nudge(self) -> None: ...


class Future(concurrent.futures.Future[Any]):
    """The result of a task to come.

    Besides what `concurrent.futures.Future` has: `get`, `wait`, `ready`, `successful` of
    `multiprocessing.pool.AsyncResult`, `await`, and `cancel(running=True)`.
    """

    _made: threading.Condition | None = None
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _waiters: Any = ()
    _done_callbacks: Any = ()
    number = -1  # of its task

    def __init__(self, owner: Owner) -> None:  # the base class's would make a condition
        self._owner = owner

    def __reduce__(self) -> Any:
        raise TypeError("a future cannot be sent to a VM: it is this program's; send its result()")

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        if self._made is None:
            condition = threading.Condition()
            waiters: list[Any] = []
            with _birth:
                if self._made is None:
                    self._waiters = waiters
                    self._made = condition
        return self._made

    # -- concurrent.futures.Future ------------------------------------------------------------------------------

    def done(self) -> bool:
        return self._state in _OVER

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        return self._state == RUNNING or (self._state == PENDING and self._owner.is_running(self.number))

    def cancel(self, running: bool = False) -> bool:
        """Cancel the task if it has not been sent to a VM; with `running`, stop it even if it runs.

        A running task is stopped for good: its VM is ended and replaced.  False if it is too late.
        """
        if self._state in _OVER:
            return self.cancelled()
        if not self._owner.cancel(self.number, running):
            return False
        is_cancelled = self.finish_cancelled() or self.cancelled()
        self._owner.nudge()  # only now: who waits looks at our state
        return is_cancelled

    def result(self, timeout: float | None = None) -> Any:
        """The task's value, after waiting for it up to `timeout` seconds.

        Raises what the task raised; TimeoutError; CancelledError; WorkerLost.
        """
        if self._state != FINISHED:
            self._await(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # breaks the cycle of exception, traceback and frame
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None; waits like `result`."""
        self._await(timeout)
        return self._exception

    def _await(self, timeout: float | None) -> None:
        if self._state not in _OVER and not self._owner.wait(self.done, timeout) and not self.done():
            from .errors import TimeoutError

            raise TimeoutError(f"no result within {timeout} s")
        if self._state != FINISHED:
            raise concurrent.futures.CancelledError()

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call `fn(self)` when it is done, in a thread of River's; at once if it is done already."""
        with _birth:
            if self._state not in _OVER:
                if not self._done_callbacks:
                    self._done_callbacks = []
                self._done_callbacks.append(fn)
                return
        _call(fn, self)

    def set_result(self, result: Any) -> None:
        if not self.finish(result, None):
            raise concurrent.futures.InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception: BaseException | None) -> None:
        if not self.finish(None, exception):
            raise concurrent.futures.InvalidStateError(f"{self._state}: {self!r}")

    # -- multiprocessing.pool.AsyncResult -----------------------------------------------------------------------

    def get(self, timeout: float | None = None) -> Any:
        """As `result`."""
        return self.result(timeout)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is done, or `timeout` seconds; returns nothing, as AsyncResult's does."""
        if self._state not in _OVER:
            self._owner.wait(self.done, timeout)

    def ready(self) -> bool:
        """Whether it is done."""
        return self.done()

    def successful(self) -> bool:
        """Whether it is done without an exception.  Raises ValueError if it is not done."""
        if not self.done():
            raise ValueError(f"{self!r} not ready")
        return self._state == FINISHED and self._exception is None

    # -- asyncio ------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    # -- for River ----------------------------------------------------------------------------------------------

    def finish(self, result: Any, exception: BaseException | None, state: str = FINISHED) -> bool:
        """It is done; False if it was before."""
        with _birth:
            condition = self._made
            if condition is None:
                if self._state in _OVER:
                    return False
                self._result, self._exception, self._state = result, exception, state
        if condition is not None:
            with condition:
                with _birth:
                    if self._state in _OVER:
                        return False
                    self._result, self._exception, self._state = result, exception, state
                for waiter in self._waiters:
                    if state != FINISHED:
                        waiter.add_cancelled(self)
                    elif exception is not None:
                        waiter.add_exception(self)
                    else:
                        waiter.add_result(self)
                condition.notify_all()
        if self._done_callbacks:
            for fn in self._done_callbacks:
                self._owner.later(_call, fn, self)
            self._done_callbacks = ()
        return True

    def finish_cancelled(self) -> bool:
        return self.finish(None, None, CANCELLED_AND_NOTIFIED)


def _call(fn: Callable[[Any], Any], future: Future) -> None:
    try:
        fn(future)
    except Exception:  # noqa: BLE001 - the standard library's contract: log it, and go on
        logging.getLogger("concurrent.futures").exception("exception calling callback for %r", future)
