"""How a rank waits: it looks a while, gives way, and then sleeps until somebody rings.

    who waits: look, give way, say that it sleeps, look once more, sleep at the bell
    who sends: write, then ring whoever says that it sleeps

A wait that takes long is put on a list, for those who ask what this process waits for.

May not: know what is waited for, or how messages come.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# What is told to others of a rank that sleeps: ring for messages; ring when there is room, too.
AWAKE, FOR_MESSAGES, FOR_ROOM = range(3)
# Turns of giving way before sleep, where ranks outnumber processors.  With one for each, who gives way gives way to
# strangers, for as long as they like; who sleeps is woken at once.
_YIELDS = 8
# A bell may be missed (a processor may hold back the news that somebody sleeps): nobody sleeps longer at first.
_NAP, _LONGEST_NAP = 0.002, 0.05
# Seconds that a wait takes before it is told of.
_LONG = 0.1


class Wait:
    """A wait that takes long.  thread: whose, by identity; about: what is waited for, as `until` was told.

    number: no other wait of this process has it; looks: how often what is waited for was not there yet."""

    __slots__ = ("about", "looks", "number", "thread")

    def __init__(self, number: int, about: Sequence[Any]) -> None:
        self.number, self.about = number, about
        self.thread = threading.get_ident()
        self.looks = 0


class Rest:
    """Of one rank.

    bell: what it polls; bells: what others write to wake one, by rank, of those on this machine.
    sleepers: a byte of shared memory for each of these, in the order of `bells`.
    turn: takes what has come, and says whether there was anything.
    needs_room: whether something waits to leave. polled: what is to be polled beside the bell, and for what.
    has_room: whether each rank on this machine has a processor for itself.
    """

    def __init__(
        self,
        rank: int,
        bell: int,
        bells: dict[int, int],
        sleepers: memoryview,
        turn: Callable[[], bool],
        needs_room: Callable[[], bool],
        polled: Callable[[], Iterable[tuple[int, int]]],
        has_room: bool,
    ) -> None:
        self._bell, self._own = bell, bells[rank]
        self._bells = bells
        self.sleepers = sleepers
        self._sleepers = {one: sleepers[index : index + 1] for index, one in enumerate(bells)}
        self._asleep = self._sleepers[rank]
        self._turn, self._needs_room, self._polled = turn, needs_room, polled
        self._yields = 0 if has_room else _YIELDS
        self._numbers = itertools.count()
        self._dozing: list[int] = []  # threads of this rank that sleep
        self.waits: list[Wait] = []  # those that take long
        self.told: Callable[[], None] | None = None  # is called when `waits` has changed

    def ring(self, dest: int, least: int) -> None:
        """Wake that rank if it sleeps for this, or for more."""
        sleeper = self._sleepers.get(dest)
        if sleeper is not None and sleeper[0] >= least:
            sleeper[0] = AWAKE
            _wake(self._bells[dest])

    def ring_here(self) -> None:
        """Wake this rank.  Any thread."""
        _wake(self._own)

    def until(self, ready: Callable[[], Any], about: Sequence[Any] = ()) -> None:
        """Wait until this is so, which turns may bring about; it is not asked again then."""
        began, nap, yields = time.monotonic(), _NAP, self._yields
        wait: Wait | None = None
        try:
            while not ready():
                if wait is not None:
                    wait.looks += 1
                if self._turn():
                    yields = self._yields
                    if self._dozing:  # what has come may be theirs
                        self.ring_here()
                elif yields:
                    yields -= 1
                    os.sched_yield()
                elif self._is_woken():
                    nap = _NAP
                elif ready():
                    self._say_awake()
                    break
                else:
                    nap = self._sleep(nap)
                    if wait is None and time.monotonic() - began > _LONG:
                        wait = Wait(next(self._numbers), about)
                        self._tell(self.waits.append, wait)
        finally:
            if wait is not None:
                self._tell(self.waits.remove, wait)

    def _tell(self, change: Callable[[Wait], None], wait: Wait) -> None:
        change(wait)
        if self.told is not None:
            self.told()

    def _is_woken(self) -> bool:
        """Say that this rank sleeps from now on; True: there was something, and it does not."""
        self._asleep[0] = FOR_ROOM if self._needs_room() else FOR_MESSAGES
        os.sched_yield()  # a call of the system's: what was stored before it is seen by others
        if self._turn():
            self._say_awake()
            return True
        return False

    def _say_awake(self) -> None:
        """This thread sleeps no more; as long as another one does, this rank is to be rung."""
        self._asleep[0] = FOR_MESSAGES if self._dozing else AWAKE

    def _sleep(self, nap: float) -> float:
        """Sleep until somebody rings, or for a while; returns how long the next time may be."""
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        for number, events in self._polled():
            poller.register(number, events)
        self._dozing.append(threading.get_ident())
        try:
            rung = poller.poll(nap * 1000)
        finally:
            self._dozing.remove(threading.get_ident())
        for number, _ in rung:
            if number == self._bell:
                with contextlib.suppress(BlockingIOError):  # another thread has slept here, too, and was quicker
                    os.read(number, 4096)
                nap = _NAP / 2
        self._say_awake()
        return min(2 * nap, _LONGEST_NAP)


def _wake(bell: int) -> None:
    try:
        os.write(bell, b"!")
    except BlockingIOError:
        pass  # it has been rung more often than anybody has looked
