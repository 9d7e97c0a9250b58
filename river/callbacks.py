"""A thread for the user's callbacks, so that none of them can hold up the results of others.

May not: know what a callback is for.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class Callbacks:
    """A thread for callbacks of the user's, started when the first one comes."""

    def __init__(self, name: str = "river-callbacks") -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()
        self._queue.put((call, args))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            call, args = item
            try:
                call(*args)
            except BaseException:  # noqa: BLE001 - one callback's fault must not keep the others from running
                import logging  # few need it

                # The user's own, which is an argument of what calls it.
                logging.getLogger("river").exception("a callback raised: %r", next(filter(callable, (*args, call))))
            del item, call, args

    @property
    def is_mine(self) -> bool:
        """Whether the calling code is a callback."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Run what is queued, then end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            if not self.is_mine:
                self._thread.join()
