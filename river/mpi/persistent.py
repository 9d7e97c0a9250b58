"""Prequest: a request for something that is done again and again.

    Send_init, Recv_init ... --> inactive --Start--> active --Wait, Test ...--> inactive ...

May not: know what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .constants import ERR_REQUEST
from .errors import fail
from .request import DONE, Job, Request
from .status import Status

_INACTIVE = Job(None)


class Persistent(Job):
    """What it names.  begin: begins a round, and gives the Job of it."""

    __slots__ = ("begin", "now")

    def __init__(self, begin: Callable[[], Job]) -> None:
        super().__init__(DONE)
        self.begin = begin
        self.now = _INACTIVE

    @property
    def is_active(self) -> bool:  # type: ignore[override]  # for a Job it never changes
        return self.now is not _INACTIVE

    def start(self) -> None:
        if self.is_active:
            raise fail(ERR_REQUEST, "the request was started already; wait for it first")
        self.now = self.begin()

    @property
    def is_done(self) -> bool:
        return self.now.is_done

    @property
    def works(self) -> Sequence[Any]:
        return self.now.works

    def finish(self) -> None:  # the error and the result stay when the round is left
        self.now.finish()
        self.error, self.result = self.now.error, self.now.result

    def fill(self, status: Status | None) -> None:
        self.now.fill(status)

    def leave(self) -> bool:
        self.now = _INACTIVE
        return False

    def cancel(self) -> None:
        if not self.is_active:
            raise fail(ERR_REQUEST, "the request was not started, so there is nothing to cancel")
        self.now.cancel()

    def ready(self, partitions: Iterable[int]) -> None:
        """These may be sent."""
        raise fail(ERR_REQUEST, "the request has no partitions that could be sent one by one")

    def has_come(self, partition: int) -> bool:
        raise fail(ERR_REQUEST, "the request has no partitions that could come one by one")


class Prequest(Request):
    """Something that is done again and again."""

    __slots__ = ()

    def __new__(cls, request: Request | None = None) -> Any:
        if request and not isinstance(request, Prequest):
            raise TypeError(f"a Prequest is made from a Prequest, not from {request!r}")
        return super().__new__(cls, request)

    @property
    def _persistent(self) -> Any:
        if self._named is None:
            raise fail(ERR_REQUEST, "the null request cannot be started")
        return self._named

    def Start(self) -> None:
        """Begin once more."""
        self._persistent.start()

    @classmethod
    def Startall(cls, requests: Sequence[Prequest]) -> None:
        """Begin all of them once more."""
        for request in requests:
            if not isinstance(request, Prequest):
                raise TypeError(f"a Prequest is expected, not {request!r}")
        for request in requests:
            request.Start()

    def Pready(self, partition: int) -> None:
        """Say that a partition may be sent."""
        self._persistent.ready([partition])

    def Pready_range(self, partition_low: int, partition_high: int) -> None:
        """Say that the partitions from the one to the other may be sent."""
        self._persistent.ready(range(partition_low, partition_high + 1))

    def Pready_list(self, partitions: Sequence[int]) -> None:
        """Say that these partitions may be sent."""
        self._persistent.ready(partitions)

    def Parrived(self, partition: int) -> bool:
        """Say whether a partition has come."""
        has_come: bool = self._persistent.has_come(partition)
        return has_come
