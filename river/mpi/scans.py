"""Scans: reductions of the ranks up to each rank, in all forms; a communicator of two groups has none.

May not: know how bytes get to where they are needed.
"""

from __future__ import annotations

from typing import Any

from .collectives import Objects
from .heads import head
from .info import INFO_NULL, Info
from .nonblocking import Nonblocking
from .op import SUM, Op
from .pickling import pickle


class Scans(Nonblocking):
    """The part of a communicator of one group that this is about."""

    __slots__ = ()

    def scan(self, sendobj: Any, op: Any = SUM) -> Any:
        """Give each what the ranks up to it have, combined in their order."""
        return self._chained("scan", sendobj, op)[1]

    def exscan(self, sendobj: Any, op: Any = SUM) -> Any:
        """Give each what the ranks below it have, combined in their order; rank 0 has None."""
        return self._chained("exscan", sendobj, op)[0]

    def _chained(self, name: str, sendobj: Any, op: Any) -> tuple[Any, Any]:
        blob, combine = pickle.dumps(sendobj), Objects(op)
        found: tuple[Any, Any] = self._run(head(name, -1, combine.name), lambda talk: talk.chain(blob, combine))
        return found

    def Scan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Give each what the ranks up to it have, combined element by element in their order."""
        self._carry_out(self._scan("Scan", sendbuf, recvbuf, op))

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Give each what the ranks below it have, combined element by element in their order."""
        self._carry_out(self._scan("Exscan", sendbuf, recvbuf, op))

    def Iscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Any:
        """Begin a Scan."""
        return self._begin(self._scan("Scan", sendbuf, recvbuf, op))

    def Iexscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Any:
        """Begin an Exscan."""
        return self._begin(self._scan("Exscan", sendbuf, recvbuf, op))

    def Scan_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, info: Info = INFO_NULL) -> Any:
        """Prepare a Scan that is begun again and again."""
        return self._keep(self._scan("Scan", sendbuf, recvbuf, op))

    def Exscan_init(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, info: Info = INFO_NULL) -> Any:
        """Prepare an Exscan that is begun again and again."""
        return self._keep(self._scan("Exscan", sendbuf, recvbuf, op))
