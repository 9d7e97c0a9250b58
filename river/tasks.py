"""Single tasks: their options, their futures, and outcomes turned into what the caller sees.

May not: know maps or pools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import failures
from ._core import calls
from ._core.instructions import Task
from .cluster import Cluster
from .futures import Future


class Options(NamedTuple):
    """How tasks are to be treated: seconds each may run, deaths of a VM and exceptions after which it runs again, and
    the names of the VMs that they may be sent to (None: any)."""

    timeout: float | None = None
    retries: int = 1
    retry_on: tuple[type[BaseException], ...] = ()
    where: frozenset[str] | None = None

    def retries_exception(self, error: BaseException | None, attempt: int) -> bool:
        return bool(self.retry_on) and attempt <= self.retries and isinstance(error, self.retry_on)


class TaskFuture(Future, Task):
    """What `submit` and `apply_async` return: the task itself.

    Making one is much of what a small task costs, so what most of them have in common stays in the classes.
    """

    def __init__(
        self, cluster: Cluster, options: Options, call: tuple[Any, Any, Any], is_pool: bool, callbacks: Any = None
    ) -> None:
        self._owner = cluster
        self.number = cluster.number()
        self.is_pool = is_pool
        self._call: Any = call  # function, args, keywords
        self._options = options
        self._callbacks = callbacks
        if options.timeout is not None:
            self.timeout = options.timeout
        if options.retries != 1:
            self.retries = options.retries
        if options.where is not None:
            self.where = options.where

    def settle(self, outcome: Sequence[Any], value: Any, error: BaseException | None) -> None:
        status = outcome[2]
        if status in _GOOD and error is None:
            if self._callbacks is None:
                self._call = self.argument = None
                self.finish(value, None)
            else:
                self._end(value, None)
        elif error is not None or status == calls.UNREADABLE:
            self._end(None, transfer_error(self.describe(), outcome[5], error, self.is_pool))
        else:
            report = outcome[5] if status == calls.ERROR else (*outcome[5][0], outcome[5][1])
            caught = failures.of_report(report, self.is_pool)
            if self._options.retries_exception(caught, self.attempt):
                self.attempt += 1
                self._owner.resubmit([self])  # type: ignore[attr-defined]
            else:
                self._end(None, caught)

    def _end(self, value: Any, error: BaseException | None) -> None:
        self._call = self.argument = None  # who keeps the future need not keep what went into it
        finish(self._owner, self, value, error, self._callbacks)

    def fail(self, error: BaseException) -> None:
        self._end(None, error)

    def dropped(self) -> None:
        self.finish_cancelled()

    def finish_cancelled(self) -> bool:
        self._call = self.argument = None
        return super().finish_cancelled()

    def describe(self) -> str:
        function, args, keywords = self._call
        name = getattr(function, "__qualname__", None) or repr(function)
        parts = [short(a) for a in args] + [f"{k}={short(v)}" for k, v in keywords.items()]
        return f"{name}({', '.join(parts)})"


_GOOD = frozenset((calls.VALUE, calls.OK))


def finish(owner: Any, future: Future, value: Any, error: BaseException | None, callbacks: Any) -> None:
    """Resolve a future; with multiprocessing's callbacks, only after they have run, as its users rely on."""
    callback = (callbacks[1] if error is not None else callbacks[0]) if callbacks else None
    if callback is None:
        future.finish(value, error)
    else:
        owner.later(_call_then_finish, callback, future, value, error)


def _call_then_finish(callback: Callable[[Any], Any], future: Future, value: Any, error: BaseException | None) -> None:
    try:
        callback(value if error is None else error)
    finally:
        future.finish(value, error)
        future._owner.nudge()


def transfer_error(call: str, report: Any, error: BaseException | None, is_pool: bool) -> BaseException:
    """The error for what could not be unpickled: in the VM (report) or here (error)."""
    from . import errors

    if error is not None:
        failure = errors.TransferError(f"the result of {call} could not be unpickled: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    failure = errors.TransferError(f"the function or arguments of {call} could not be unpickled in the VM: {report[1]}")
    return errors.remote(report, failure, is_pool)


def short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a __repr__ that raises
        text = f"<{type(value).__qualname__} object>"
    return text if len(text) <= 120 else text[:100] + "..." + text[-15:]
