"""Counters, locks and the like that the ranks of a communicator share.

    counter.next() --question--> the rank that keeps it: a thread there answers, as soon as the answer is yes
                   <--answer---

Who must wait waits for the answer, and turns no wheel; they are answered in the order in which they have asked.  To
make one of these and to free it are collective calls; they are for ranks, not for the threads of one.

May not: know how anything is sent.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ..info import INFO_NULL, Info
from ..intracomm import COMM_SELF, Intracomm
from ..status import Status

__all__ = ["Condition", "Counter", "Mutex", "Semaphore", "Sequential"]

_QUESTION, _ANSWER = 1, 2
_END = "end"
Answers = Iterator[tuple[int, Any]]
_T = TypeVar("_T")


class Sequential:
    """With this, the ranks run a piece of program one after the other."""

    def __init__(self, comm: Intracomm, tag: int = 0) -> None:
        self.comm, self.tag = comm, tag

    def __enter__(self) -> Sequential:
        self.begin()
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def begin(self) -> None:
        """Wait until the rank before this one has ended its piece."""
        if self.comm.rank > 0:
            self.comm.recv(source=self.comm.rank - 1, tag=self.tag)

    def end(self) -> None:
        """Let the next rank begin."""
        if self.comm.rank < self.comm.size - 1:
            self.comm.send(None, self.comm.rank + 1, self.tag)


# -- who keeps what is shared -----------------------------------------------------------------------------------------


class _Keeper:
    """The state of one thing that is shared, with the rank that keeps it, and the way to ask that one.

    answered: called there by (rank, what it asks, arguments); yields (rank, answer), to that rank or to others."""

    def __init__(self, comm: Intracomm, root: int, answered: Callable[..., Answers]) -> None:
        self.comm: Any = Intracomm(comm.Dup())
        self._root, self._answered = root, answered
        self._is_here = self.comm.rank == root
        self._lock = threading.Lock()
        self._mine: queue.SimpleQueue[Any] = queue.SimpleQueue()  # answers for the rank that keeps it
        self._thread: threading.Thread | None = None
        if self._is_here and self.comm.size > 1:
            self._thread = threading.Thread(target=self._serve, name="river-mpi-keeper", daemon=True)
            self._thread.start()

    def ask(self, what: str, *args: Any) -> Any:
        if self._is_here:
            self._answer(self._root, what, args)
            return self._mine.get()
        self.comm.send((what, args), self._root, _QUESTION)
        return self.comm.recv(source=self._root, tag=_ANSWER)

    def _answer(self, rank: int, what: str, args: Any) -> None:
        with self._lock:
            for to, answer in self._answered(rank, what, *args):
                if to == self._root:
                    self._mine.put(answer)
                else:
                    self.comm.send(answer, to, _ANSWER)

    def _serve(self) -> None:
        status = Status()
        while True:
            what, args = self.comm.recv(tag=_QUESTION, status=status)
            if what == _END:
                return
            self._answer(status.source, what, args)

    def free(self) -> None:
        """Ask nothing more; collective."""
        self.comm.Barrier()
        if self.comm.size > 1 and self.comm.rank == (self._root + 1) % self.comm.size:
            self.comm.send((_END, ()), self._root, _QUESTION)
        if self._thread is not None:
            self._thread.join()
        self.comm.Free()


class _Shared:
    """Base of all that has a keeper."""

    _kept: _Keeper | None = None

    @property
    def _keeper(self) -> _Keeper:
        if self._kept is None:
            raise RuntimeError(f"this {type(self).__name__} has been freed, or was never made")
        return self._kept

    def free(self) -> None:
        """Let go of what is shared; all ranks do so.  Twice is fine."""
        keeper, self._kept = self._kept, None
        if keeper is not None:
            keeper.free()


# -- a counter --------------------------------------------------------------------------------------------------------


class _Count:
    """What is kept of a counter."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self, rank: int, what: str, step: Any) -> Answers:
        yield rank, self._value
        self._value += step


class Counter(_Shared):
    """Gives each number once, whichever rank asks for the next."""

    def __init__(
        self,
        start: int = 0,
        step: int = 1,
        *,
        typecode: str = "i",
        comm: Intracomm = COMM_SELF,
        info: Info = INFO_NULL,
        root: int = 0,
    ) -> None:
        kind = float if typecode in "efdg" else int
        self._step = kind(step)
        self._kept = _Keeper(comm, root, _Count(kind(start)))

    def __iter__(self) -> Counter:
        return self

    def __next__(self) -> int:
        return self.next()

    def next(self, incr: int | None = None) -> int:
        """Give the next number; the one after it is larger by `incr`, or by the step."""
        value: int = self._keeper.ask("next", self._step if incr is None else incr)
        return value


# -- a lock, and those who wait for news ------------------------------------------------------------------------------


class _Lock:
    """What is kept of a lock: who has it, who wants it, and who waits for news without it."""

    def __init__(self) -> None:
        self._holder: int | None = None
        self._wanting: deque[int] = deque()
        self._waiting: dict[int, deque[int]] = {}  # by the number of the condition

    def __call__(self, rank: int, what: str, *args: Any) -> Answers:
        yield from getattr(self, f"_{what}")(rank, *args)

    def _acquire(self, rank: int, blocking: bool) -> Answers:
        if self._holder is None or blocking:
            self._wanting.append(rank)
            yield from self._hand_on()
        else:
            yield rank, False

    def _release(self, rank: int) -> Answers:
        self._holder = None
        yield rank, None
        yield from self._hand_on()

    def _wait(self, rank: int, condition: int) -> Answers:
        self._holder = None
        self._waiting.setdefault(condition, deque()).append(rank)
        yield from self._hand_on()

    def _notify(self, rank: int, condition: int, most: int | None) -> Answers:
        waiting = self._waiting.get(condition, deque())
        count = len(waiting) if most is None else min(most, len(waiting))
        self._wanting.extend(waiting.popleft() for _ in range(count))
        yield rank, count

    def _hand_on(self) -> Answers:
        if self._holder is None and self._wanting:
            self._holder = self._wanting.popleft()
            yield self._holder, True


class Mutex(_Shared):
    """One rank at a time has it.  recursive: that one may acquire it again, and releases it as often."""

    def __init__(self, *, recursive: bool = False, comm: Intracomm = COMM_SELF, info: Info = INFO_NULL) -> None:
        self._recursive = recursive
        self._depth = 0
        self._conditions = 0  # that it has had; all ranks count the same
        self._kept = _Keeper(comm, 0, _Lock())

    def __enter__(self) -> Mutex:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def acquire(self, blocking: bool = True) -> bool:
        """Wait until this rank has it; without `blocking`, say whether it has got it at once."""
        keeper = self._keeper
        if self._depth and not self._recursive:
            raise RuntimeError("this rank has the mutex already; make one with recursive=True, or release it first")
        if self._depth or keeper.ask("acquire", blocking):
            self._depth += 1
            return True
        return False

    def release(self) -> None:
        """Let others have it."""
        keeper = self._check_held()
        self._depth -= 1
        if not self._depth:
            keeper.ask("release")

    def locked(self) -> bool:
        """Say whether this rank has it."""
        return self.count() > 0

    def count(self) -> int:
        """Give how often this rank has acquired it."""
        self._keeper  # noqa: B018 - raises when it has been freed
        return self._depth

    def free(self) -> None:
        """Release it if this rank has it, and let go of it; all ranks do so.  Twice is fine."""
        if self._kept is not None and self._depth:
            self._depth = 0
            self._kept.ask("release")
        super().free()

    def _check_held(self) -> _Keeper:
        keeper = self._keeper
        if not self._depth:
            raise RuntimeError("this rank does not have the mutex; acquire it first")
        return keeper


class Condition:
    """Ranks wait until another one has news for them.  mutex: what they have till then; several may have the same."""

    def __init__(
        self,
        mutex: Mutex | None = None,
        *,
        recursive: bool = True,
        comm: Intracomm = COMM_SELF,
        info: Info = INFO_NULL,
    ) -> None:
        self._is_mine = mutex is None
        self._had: Mutex | None = Mutex(recursive=recursive, comm=comm) if mutex is None else mutex
        self._number = self._mutex._conditions
        self._mutex._conditions += 1

    @property
    def _mutex(self) -> Mutex:
        if self._had is None:
            raise RuntimeError("this Condition has been freed")
        return self._had

    def __enter__(self) -> Condition:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def acquire(self, blocking: bool = True) -> bool:
        """Acquire the mutex."""
        return self._mutex.acquire(blocking)

    def release(self) -> None:
        """Release the mutex."""
        self._mutex.release()

    def locked(self) -> bool:
        """Say whether this rank has the mutex."""
        return self._mutex.locked()

    def wait(self) -> bool:
        """Release the mutex, however often this rank has acquired it, wait for news, and have it again."""
        mutex = self._mutex
        keeper, depth = mutex._check_held(), mutex._depth
        mutex._depth = 0
        keeper.ask("wait", self._number)
        mutex._depth = depth
        return True

    def wait_for(self, predicate: Callable[[], _T]) -> _T:
        """Wait until what is asked is true, which is looked at whenever there is news; gives what it was."""
        self._mutex._check_held()
        while not (value := predicate()):
            self.wait()
        return value

    def notify(self, n: int = 1) -> int:
        """Have news for up to `n` ranks; gives for how many."""
        return self._notify(n)

    def notify_all(self) -> int:
        """Have news for all that wait; gives for how many."""
        return self._notify(None)

    def _notify(self, most: int | None) -> int:
        count: int = self._mutex._check_held().ask("notify", self._number, most)
        return count

    def free(self) -> None:
        """Let go of the mutex, which is freed if it was made with this; all ranks do so.  Twice is fine."""
        mutex, self._had = self._had, None
        if mutex is not None and self._is_mine:
            mutex.free()


# -- a semaphore ------------------------------------------------------------------------------------------------------


class _Places:
    """What is kept of a semaphore.  most: how many there may be, if that is to be watched."""

    def __init__(self, value: int, most: int | None) -> None:
        self._value, self._most = value, most
        self._wanting: deque[int] = deque()

    def __call__(self, rank: int, what: str, *args: Any) -> Answers:
        yield from getattr(self, f"_{what}")(rank, *args)

    def _acquire(self, rank: int, blocking: bool) -> Answers:
        if self._value or blocking:
            self._wanting.append(rank)
            yield from self._hand_out()
        else:
            yield rank, False

    def _release(self, rank: int, count: int) -> Answers:
        is_right = self._most is None or self._value + count <= self._most
        yield rank, is_right
        if is_right:
            self._value += count
            yield from self._hand_out()

    def _hand_out(self) -> Answers:
        while self._value and self._wanting:
            self._value -= 1
            yield self._wanting.popleft(), True


class Semaphore(_Shared):
    """So many ranks at a time have a place.  bounded: it is an error to release more than were there at first."""

    def __init__(
        self, value: int = 1, *, bounded: bool = True, comm: Intracomm = COMM_SELF, info: Info = INFO_NULL
    ) -> None:
        if value < 0:
            raise ValueError(f"a semaphore begins with at least 0, not {value}")
        self._kept = _Keeper(comm, 0, _Places(value, value if bounded else None))

    def __enter__(self) -> Semaphore:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def acquire(self, blocking: bool = True) -> bool:
        """Wait for a place; without `blocking`, say whether there was one at once."""
        got: bool = self._keeper.ask("acquire", blocking)
        return got

    def release(self, n: int = 1) -> None:
        """Give back `n` places."""
        if n < 1:
            raise ValueError(f"at least one place is released, not {n}")
        if not self._keeper.ask("release", n):
            raise ValueError("the semaphore would have more places than it began with")
