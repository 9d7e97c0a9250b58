"""The line between a rank and the one who has started it: small pickles, both ways.

    rank -> starter    result, exit, failed, where        starter -> rank    where, end

May not: decide anything.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from ..multiprocessing import streams

Connection = multiprocessing.connection.Connection
_NAME = "mpi"
_jobs: dict[str, Callable[[int, Connection], None]] = {}


def expect(job: str, accept: Callable[[int, Connection], None]) -> None:
    """Let `accept` have the lines of the ranks of that job, as they come; it may not wait."""
    _jobs[job] = accept
    streams.answer(_NAME, _arrived)


def forget(job: str) -> None:
    _jobs.pop(job, None)


def _arrived(sock: Any, is_carried: bool, job: str, rank: int) -> None:
    accept = _jobs.get(job)
    if accept is None:
        sock.close()
    else:
        accept(rank, Connection(sock.detach()))


class Line:
    """A rank's end.  What is said is answered by `handlers`, in a thread of its own."""

    def __init__(self, home: str, job: str, rank: int, handlers: dict[str, Callable[..., None]]) -> None:
        self._connection = Connection(streams.dial(home, _NAME, job, rank).detach())
        self._lock = threading.Lock()
        self._handlers = handlers
        self._thread = threading.Thread(target=self._listen, name="river-mpi", daemon=True)

    def start(self) -> None:
        """Begin to listen; the handlers may be called from now on."""
        self._thread.start()

    def tell(self, what: str, *values: Any) -> None:
        with self._lock:
            try:
                self._connection.send((what, *values))
            except OSError:
                pass  # whoever has started us is gone, and so are we soon

    def wait_for_end(self) -> NoReturn:
        """Wait until the starter ends this process."""
        while True:
            self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                what, *values = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # whoever has started us is gone, or has ended the job
            if what == "end":
                os._exit(0)
            try:
                self._handlers[what](*values)
            except Exception:  # noqa: BLE001 - a fault in River, or in what a program has combined: still it can be ended
                traceback.print_exc()
