"""What is counted of a queue that has a bound, or whose items are to be marked as done: a page that its users share.

    page: [sums of the past] [process A: backlog, put, got, done, ...] [process B: ...] ...

Each process writes its own line only, so what one leaves behind when it is killed in the middle is off by one at most,
and can be told from what the others have: the sums say how many items are unfinished, and the lines of those who live
whether anybody is left to finish them.  How many items wait is not counted here at all; the socket knows (see `chute`).

A lock on the page (the kernel's, which ends with its process) keeps together what is looked at and what is done then.
Bells wake those who wait; who should have rung one may have been killed, so whoever waits looks for himself at times.

Called under the chute's lock.
May not: know items.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select

from .seats import is_alive, me

_SIZE = 1 << 16
# Words of a line; the first line, of the sums, has the number of lines in place of a process.
_PROCESS, _BACKLOG, _BUSY, PUT, GOT, DONE, LOST, _ = range(8)
_WORDS = 8
_MOST = _SIZE // (8 * _WORDS) - 1


class Bell:
    """Wakes who waits.  It may have been rung for nothing, so he looks whether it was for him."""

    def __init__(self, descriptor: int = -1) -> None:
        self.descriptor = descriptor if descriptor >= 0 else os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def wait(self, timeout: float) -> None:
        """At most so many seconds."""
        poller = select.poll()
        poller.register(self.descriptor, select.POLLIN)
        if poller.poll(timeout * 1000):
            self.hush()

    def hush(self) -> None:
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            pass  # another one has been quicker

    def close(self) -> None:
        os.close(self.descriptor)


class Ledger:
    """One queue's page, its lock and its bells.  Descriptors: of those, if another process has made them."""

    def __init__(self, page: int = -1, taken: int = -1, finished: int = -1) -> None:
        if page < 0:
            page = os.memfd_create("river", os.MFD_CLOEXEC)
            os.ftruncate(page, _SIZE)
        self._page = page
        self._cells = memoryview(mmap.mmap(page, _SIZE)).cast("q")
        self.taken = Bell(taken)  # there is room
        self.finished = Bell(finished)  # nothing is unfinished
        self._begin()

    def _begin(self) -> None:
        self._line = 0  # where this process's begins; 0: it has none yet
        self._depth = 0
        self._door = -1  # the page opened by this process, as a lock belongs to who has opened what is locked

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self._page, self.taken.descriptor, self.finished.descriptor

    def __enter__(self) -> None:
        """No other process enters."""
        if not self._depth:
            if self._door < 0:
                self._door = os.open(f"/proc/self/fd/{self._page}", os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._door, fcntl.LOCK_EX)
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            fcntl.flock(self._door, fcntl.LOCK_UN)

    # -- this process's line ------------------------------------------------------------------------------------

    def _mine(self) -> int:
        return self._line or self._enlist()

    def _enlist(self) -> int:
        with self:
            used = self._cells[_PROCESS]
            if used < _MOST:
                line = (used + 1) * _WORDS
                self._cells[_PROCESS] = used + 1
            else:
                line = self._of_a_dead()
            self._cells[line + _PROCESS] = me()
        self._line = line
        return line

    def _of_a_dead(self) -> int:
        """A line that nobody needs any more; what matters of it goes into the sums."""
        cells = self._cells
        for line in self._lines():
            if not is_alive(cells[line + _PROCESS]):
                for word in (PUT, DONE):
                    cells[word] += cells[line + word]
                cells[line : line + _WORDS] = memoryview(bytes(8 * _WORDS)).cast("q")
                return line
        raise OSError(f"more than {_MOST} processes use this queue at once")

    def _lines(self) -> range:
        return range(_WORDS, (self._cells[_PROCESS] + 1) * _WORDS, _WORDS)

    def add(self, word: int, count: int = 1) -> None:
        self._cells[self._mine() + word] += count

    def set_backlog(self, count: int) -> None:
        """So many items wait in this process until the socket takes them."""
        self._cells[self._mine() + _BACKLOG] = count
        self._cells[_BACKLOG] = 1

    def begin(self, word: int) -> None:
        """An item is about to be put or got: until `end` it may be nowhere else."""
        line = self._mine()
        self._cells[line + _BUSY] = 1
        self._cells[line + word] += 1

    def end(self, word: int, has_happened: bool = True) -> None:
        line = self._line
        if not has_happened:
            self._cells[line + word] -= 1
        self._cells[line + _BUSY] = 0

    # -- all together -------------------------------------------------------------------------------------------

    def backlogs(self) -> int:
        """Items that wait in processes that live."""
        cells = self._cells
        if not cells[_BACKLOG]:  # nobody ever had one: the common case
            return 0
        return sum(
            cells[line + _BACKLOG]
            for line in self._lines()
            if cells[line + _BACKLOG] and is_alive(cells[line + _PROCESS])
        )

    def unfinished(self) -> int:
        """Items that were put and not marked as done."""
        cells = self._cells
        return sum(cells[line + PUT] - cells[line + DONE] for line in (0, *self._lines()))

    def is_hopeless(self) -> bool:
        """Whether nobody who lives has an item, or is about to have one, so that what is not in the socket is lost."""
        cells = self._cells
        return not any(
            cells[line + _BACKLOG] or cells[line + _BUSY] or cells[line + GOT] > cells[line + DONE] + cells[line + LOST]
            for line in self._lines()
            if is_alive(cells[line + _PROCESS])
        )

    def forked(self) -> None:
        """In a child: the line is the parent's, and so is the lock."""
        if self._door >= 0:
            os.close(self._door)
        self._begin()

    def close(self) -> None:
        for descriptor in (*self.descriptors, *([self._door] if self._door >= 0 else [])):
            os.close(descriptor)

