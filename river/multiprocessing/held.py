"""What threads hold for others: each serves one client, and when that has ended, what it held is let go.

    client --acquire--> its thread here --acquire--> Held: the lock, and a note in that thread's book
    client is killed --> the thread lets go of all in its book; the next one to acquire is told

Who ends in order and has not released is taken at his word, as in the standard module: another one may release it.
A semaphore that one process acquires and another one releases is a signal, and nothing of it is given back.

May not: know how a client is served.
"""

from __future__ import annotations

import contextlib
import queue
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

_ENDED = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class _Book(threading.local):
    """What the calling thread has for its client."""

    client: Any = None  # the connection to it

    def __init__(self) -> None:
        self.counts: Counter[Held] = Counter()


_book = _Book()


class Held:
    """A lock or semaphore of `threading`, or one with its face."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._is_signal = False
        self._is_abandoned = False  # who had it last has ended with it
        self._is_recovered = False

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        got = self._inner.acquire(*args, **kwargs)
        if got:
            self._is_recovered, self._is_abandoned = self._is_abandoned, False
            _book.counts[self] += 1
            if has_ended():  # while it waited; `serving` lets go of it
                raise EOFError
        return got

    def release(self, *args: Any) -> None:
        self._inner.release(*args)
        if _book.counts[self] > 0:
            _book.counts[self] -= 1
        else:
            self._is_signal = True

    def is_recovered(self) -> bool:
        return self._is_recovered

    def let_go(self, count: int) -> None:
        """Who has acquired it so many times has ended."""
        if self._is_signal and count:
            return
        for _ in range(count):
            self._is_abandoned = True
            with contextlib.suppress(RuntimeError, ValueError, AssertionError):
                self._inner.release()

    def __enter__(self) -> Any:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return repr(self._inner)


class HeldCondition(Held):
    def wait(self, timeout: float | None = None) -> bool:
        was_notified = bool(self._inner.wait(timeout))
        if was_notified and has_ended():  # it is for another one, then
            self._inner.notify()
        return was_notified


class Queue(queue.Queue[Any]):
    """A queue that loses nothing to a client that ended while it waited for something."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = super().get(block, timeout)
        if has_ended():
            with self.mutex:
                self.queue.appendleft(item)
                self.not_empty.notify()
            raise EOFError
        return item


def of(make: Callable[..., Any]) -> Callable[..., Held]:
    """What makes the same, held."""

    def made(*args: Any) -> Held:
        return Held(make(*args))

    return made


def condition(lock: Any = None) -> HeldCondition:
    return HeldCondition(threading.Condition(lock))


@contextlib.contextmanager
def serving(client: Any) -> Iterator[None]:
    """The calling thread serves this wire; if its other end was killed, what it held is let go."""
    _book.client = client
    try:
        yield
    finally:
        _book.client = None
        for one, count in (+_book.counts).items():
            if not getattr(client, "said_goodbye", False):
                one.let_go(count)


def has_ended() -> bool:
    """Whether the client of the calling thread is there no more."""
    client = _book.client
    if client is None:
        return False
    poller = select.poll()
    try:
        poller.register(client.fileno(), _ENDED)
    except OSError:  # closed
        return True
    return bool(poller.poll(0))
