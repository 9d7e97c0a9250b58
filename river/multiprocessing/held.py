"""What threads hold for others: each serves one client, and when that has ended, what it held is let go.

    client --acquire--> its thread here --acquire--> Held: the lock, and a note in that thread's book
    client is killed --> the thread lets go of all in its book; the next one to acquire is told

Who ends in order and has not released is taken at his word, as in the standard module: another one may release it.
A semaphore that one process acquires and another one releases is a signal, and nothing of it is given back.

May not: know how a client is served.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

_ENDED = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class _Book(threading.local):
    """What the calling thread has for its client."""

    client: Any = None  # the wire to it

    def __init__(self) -> None:
        self.counts: Counter[Held] = Counter()


_book = _Book()


class Held:
    """A lock or semaphore, or what has the face of one.  root: the lock that is meant, if others have it, too."""

    def __init__(self, inner: Any, root: Held | None = None) -> None:
        self._inner = inner
        self._root = root or self
        self._is_signal = False
        self._is_abandoned = False  # who had it last has ended with it
        self._is_recovered = False

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        got = self._inner.acquire(*args, **kwargs)
        if got:
            root = self._root
            root._is_recovered, root._is_abandoned = root._is_abandoned, False
            _book.counts[root] += 1
            if has_ended():  # while it waited; `serving` lets go of it
                raise EOFError
        return got

    def release(self, *args: Any) -> None:
        self._inner.release(*args)
        if _book.counts[self._root] > 0:
            _book.counts[self._root] -= 1
        else:
            self._root._is_signal = True

    def is_recovered(self) -> bool:
        return self._root._is_recovered

    def let_go(self, count: int) -> None:
        """Who has acquired it so many times was killed."""
        for _ in range(0 if self._is_signal else count):
            self._is_abandoned = True
            with contextlib.suppress(RuntimeError, ValueError, AssertionError):
                getattr(self._inner, "abandon", self._inner.release)()

    def __enter__(self) -> Any:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return repr(self._inner)


class HeldCondition(Held):
    """A condition that wastes no news on the dead."""

    def wait(self, timeout: float | None = None) -> bool:
        was_notified = bool(self._inner.wait(timeout))
        if was_notified and has_ended():  # it is for another one, then
            self._inner.notify()
        return was_notified


class HeldBarrier:
    """A barrier that breaks when one who waits is killed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def wait(self, timeout: float | None = None) -> Any:
        return _come_to(self._inner, self._inner.wait, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Barrier(threading.Barrier):
    """The same, made here."""

    def wait(self, timeout: float | None = None) -> int:
        return int(_come_to(self, super().wait, timeout))


def _come_to(barrier: Any, wait: Callable[[Any], Any], timeout: float | None) -> Any:
    """Wait in another thread, and see meanwhile whether the client of this one is still there."""
    client = _book.client
    if client is None:
        return wait(timeout)
    seen, done = os.pipe()
    results: list[tuple[bool, Any]] = []

    def come() -> None:
        try:
            results.append((True, wait(timeout)))
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            results.append((False, error))
        finally:
            os.close(done)

    thread = threading.Thread(target=come, name="river-barrier", daemon=True)
    thread.start()
    poller = select.poll()
    poller.register(seen, select.POLLIN)
    poller.register(client.fileno(), _ENDED)
    poller.poll()
    os.close(seen)
    if not results and has_ended():
        barrier.abort()
    thread.join()
    is_well, result = results[0]
    if not is_well:
        raise result
    return result


class Queue(queue.Queue[Any]):
    """A queue that loses nothing to a client that was killed while it waited for something."""

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

    def made(*args: Any, **kwargs: Any) -> Held:
        return Held(make(*args, **kwargs))

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
