"""Who reads: the thread that waits for an answer reads it itself; a background thread reads while nobody waits.

Handing an answer from a reading thread to a waiting one costs about 45 us, more than all the rest of a round trip.
So there is one baton.  A waiter that finds it free takes it and reads until it has what it wants; others who wait are
told by it.  When nobody has read for a TICK, the background thread takes over, and gives way to the next waiter.

The same relay serves the driver (waiters: callers of `result()`) and a VM (waiter: the main thread, for its next task).

May not: know what is read.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

# How long a result may lie unread after the last waiter left; while there is activity the background thread looks
# once a TICK whether it is needed.  Shorter costs switches between threads, longer delays callbacks.
TICK = 0.002
# Seconds of looking before sleeping.  To be woken costs 20-60 us, more than a small task takes on another core.
SPIN = 0.0001 if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_yield") else 0.0

# The functions of `signal` without their conversions to enums, which cost more than the calls themselves.
_raw_signal: Any = sys.modules.get("_signal", signal)
_set_handler, _get_handler = _raw_signal.signal, _raw_signal.getsignal
_SIGINT = int(signal.SIGINT)


class Poller:
    """Waits for descriptors to become readable or writable, or to be rung: epoll where there is one, else poll, else
    select."""

    def __init__(self) -> None:
        self._wants: dict[int, bool] = {}
        self._lock = threading.Lock()  # any thread may say what it waits for
        self._is_brisk = True  # whether the last answer came so soon that it is worth looking for the next one
        if hasattr(select, "epoll"):
            self._poll: Any = select.epoll()
            self._in, self._out, self._scale = select.EPOLLIN, select.EPOLLOUT, 1.0
        elif hasattr(select, "poll"):
            self._poll = select.poll()
            self._in, self._out, self._scale = select.POLLIN, select.POLLOUT, 1000.0
        else:
            self._poll = None
        # Else it could ring in whatever has its number after its end; Ctrl-C may ring while it is being rung.
        self._ringing = threading.RLock()
        self._bell, self._rope = os.pipe()
        for end in (self._bell, self._rope):
            os.set_blocking(end, False)
        self.watch(self._bell)

    def ring(self) -> None:
        """Whoever waits returns at once, or does not begin to.  Any thread or handler of signals, at any time."""
        with self._ringing:
            if self._rope >= 0:
                try:
                    os.write(self._rope, b"!")
                except OSError:
                    pass  # full, so he will wake anyway

    def watch(self, descriptor: int, writing: bool = False) -> None:
        """Wait for it to be readable, and writable too if `writing`."""
        if self._wants.get(descriptor) is writing:
            return
        with self._lock:
            known = self._wants.get(descriptor)
            if self._poll is not None and known is not writing:
                events = self._in | self._out if writing else self._in
                try:
                    (self._poll.register if known is None else self._poll.modify)(descriptor, events)
                except FileNotFoundError:  # it was closed, and is another's now
                    self._poll.register(descriptor, events)
            self._wants[descriptor] = writing

    def flush(self, line: Any) -> None:
        """Send what a connection has kept, and wait for it to be writable as long as something is left."""
        if not line.waiting or line.flush():
            self.watch(line.number)
            if line.waiting:  # another thread has sent meanwhile, and its own word came too early
                self.watch(line.number, writing=True)

    def flush_later(self, line: Any) -> None:
        """The same from another thread, which has left something in a connection; that may have ended meanwhile."""
        try:
            self.watch(line.number, writing=True)
        except (OSError, ValueError):
            pass

    def forget(self, descriptor: int) -> None:
        with self._lock:
            if self._wants.pop(descriptor, None) is not None and self._poll is not None:
                try:
                    self._poll.unregister(descriptor)
                except (OSError, KeyError):
                    pass  # it was closed, and the system has forgotten it

    def wait(self, timeout: float | None, spin: float = 0.0) -> list[int]:
        """The descriptors that are ready (or have ended), after at most `timeout` seconds.

        `spin`: seconds to go on looking before sleeping, as long as that pays."""
        poll = self._poll
        if poll is None:
            writers = [d for d, writing in self._wants.items() if writing]
            readable, writable, _ = select.select(list(self._wants), writers, [], timeout)
            return self._heard(list({*readable, *writable}))
        look = poll.poll
        if spin and self._is_brisk:
            until = perf_counter() + spin
            while True:
                if ready := look(0):
                    return self._heard([descriptor for descriptor, _ in ready])
                if perf_counter() > until:
                    break
                os.sched_yield()  # whoever else has work goes first
        began = perf_counter()
        ready = look(None if timeout is None else max(0.0, timeout) * self._scale)
        self._is_brisk = perf_counter() - began < spin
        return self._heard([descriptor for descriptor, _ in ready])

    def _heard(self, ready: list[int]) -> list[int]:
        """All but the bell, which is silent again."""
        if self._bell in ready:
            ready.remove(self._bell)
            os.read(self._bell, 4096)
        return ready

    def works(self) -> bool:
        """Whether it can be asked at all: a task or the program may have closed what it waits with."""
        try:
            self.wait(0.0)
        except (OSError, ValueError):
            return False
        return True

    def close(self) -> None:
        with self._ringing:
            self.abandon()

    def abandon(self) -> None:
        """In a forked child, where another thread may have held the lock: let go of what is the parent's, too."""
        if hasattr(self._poll, "close"):
            self._poll.close()
        os.close(self._bell)
        os.close(self._rope)
        self._rope = -1


class Relay:
    """One baton for all who wait on the same lines.

    `turn(timeout, spin)` looks at the lines once, waiting up to `timeout` seconds, and handles what came;
    `interrupt()` makes a turn that waits return at once, from any thread.
    """

    def __init__(
        self,
        turn: Callable[[float | None, float], None],
        interrupt: Callable[[], None],
        name: str,
        interruptible: bool = True,
    ) -> None:
        self._interruptible = interruptible  # False where SIGINT is ignored anyway
        self._turn = turn
        self._interrupt = interrupt
        self._baton = threading.Lock()
        self._holder = 0
        self._waiters: list[tuple[threading.Lock, Callable[[], Any]]] = []
        self._bell = threading.Lock()  # locked: not rung
        self._bell.acquire()
        self._in_background = False
        self._asleep = False  # the background thread waits for the bell without a time limit
        self._changes = 0  # how often the baton was taken
        self._closed = False
        self.thread = threading.Thread(target=self._stand_by, name=name, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def wait(self, ready: Callable[[], Any], timeout: float | None = None) -> bool:
        """Wait until `ready()`; False if that took longer than `timeout` seconds, or the relay was closed."""
        deadline = deadline_of(timeout)
        if self.is_mine and not ready():
            raise RuntimeError("what is called while a result is unpickled cannot wait for another result of that pool")
        while not ready():
            if self._closed or left_of(deadline) == 0:
                return bool(ready())
            if not self._read(ready, deadline):
                self._follow(ready, deadline)
        return True

    def _read(self, ready: Callable[[], Any], deadline: float | None) -> bool:
        """Take the baton and read until `ready()`; False if another thread has it.

        Ctrl-C waits until a turn is complete, so that none is left half done.
        """
        pressed: list[Any] = []
        previous = self._hold_off(pressed)
        has_baton = self._baton.acquire(False)
        try:
            if has_baton:
                self._changes += 1
                self._holder = threading.get_ident()
                self._read_on(ready, deadline, pressed)
        finally:
            if has_baton:
                self._holder = 0
                self._baton.release()
                self._pass_on()
            if previous is not None:
                _set_handler(_SIGINT, previous)
        if pressed:
            previous(*pressed)
        return has_baton

    def _read_on(self, ready: Callable[[], Any], deadline: float | None, pressed: list[Any]) -> None:
        while not ready() and not pressed and not self._closed:
            timeout = left_of(deadline)
            if timeout == 0:
                return
            self._turn(timeout, SPIN)
            if self._waiters:
                self._tell()

    def _hold_off(self, pressed: list[Any]) -> Any:
        return _hold_off(pressed, self._interrupt) if self._interruptible else None

    def undisturbed(self) -> Undisturbed:
        """Within it, Ctrl-C waits; it is told at the end."""
        return Undisturbed(self._interrupt)

    def _follow(self, ready: Callable[[], Any], deadline: float | None) -> None:
        """Somebody else reads: wait to be told, or to be next."""
        told = threading.Lock()
        told.acquire()
        entry = (told, ready)
        self._waiters.append(entry)
        try:
            if self._in_background:
                self._interrupt()
            if not ready() and not self._closed and self._baton.locked():
                left = left_of(deadline)
                told.acquire(True, -1 if left is None else left)
        finally:
            try:
                self._waiters.remove(entry)
            except ValueError:
                pass
            if not self._baton.locked():  # it was this one's turn, but its time is up or it has what it wants
                self._pass_on()

    def _tell(self) -> None:
        for entry in list(self._waiters):
            if entry[1]():
                self._wake(entry)

    def _wake(self, entry: tuple[threading.Lock, Callable[[], Any]]) -> None:
        try:
            self._waiters.remove(entry)
        except ValueError:
            return  # it has left by itself
        entry[0].release()

    def _pass_on(self) -> None:
        """The baton is free: wake the next waiter, or the background thread if it sleeps."""
        for entry in self._waiters[:1]:
            self._wake(entry)
        if self._asleep:
            self._ring()

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            pass  # it has been rung already

    def _stand_by(self) -> None:
        seen = -1
        while not self._closed:
            changes = self._changes
            if changes == seen and self._baton.locked():
                # The same thread has been reading for a whole TICK; it will ring when it stops.
                self._asleep = True
                if self._baton.locked():
                    self._bell.acquire()
                self._asleep = False
                seen = -1
                continue
            if changes == seen and not self._waiters and self._baton.acquire(False):
                self._take_over()
                seen = -1
                continue
            seen = changes
            self._bell.acquire(True, TICK)

    def _take_over(self) -> None:
        self._holder = threading.get_ident()
        self._in_background = True
        try:
            while not self._waiters and not self._closed:
                self._turn(None, 0.0)
        finally:
            self._in_background = False
            self._holder = 0
            self._baton.release()
            self._pass_on()

    def close(self) -> None:
        """Let all waiters go and the background thread end; nobody takes a turn after this.  Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._ring()
        self._interrupt()
        for entry in list(self._waiters):
            self._wake(entry)
        if self.thread.ident is not None and threading.current_thread() is not self.thread:
            self.thread.join()
        if not self.is_mine:
            self._baton.acquire(True, 10)  # for good; whoever reads now has been interrupted

    @property
    def is_in_background(self) -> bool:
        """Whether the background thread reads, so that nobody will look at anything else until something comes."""
        return self._in_background

    @property
    def is_busy(self) -> bool:
        """Whether somebody reads."""
        return self._baton.locked()

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread holds the baton (it is inside a turn)."""
        return self._holder == threading.get_ident()


class Undisturbed:
    """Within it, Ctrl-C waits; it is told at the end.  interrupt: called at once.

    A generator would take twice as long."""

    __slots__ = ("_interrupt", "_pressed", "_previous")

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._pressed: list[Any] = []

    def __enter__(self) -> None:
        self._previous = _hold_off(self._pressed, self._interrupt)

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            _set_handler(_SIGINT, self._previous)
            if self._pressed:
                self._previous(*self._pressed)


def _hold_off(pressed: list[Any], interrupt: Callable[[], None]) -> Any:
    """Keep SIGINT until it is asked for; returns the handler to restore, None where there is nothing to do."""
    if threading.get_ident() != threading.main_thread().ident:
        return None

    def note(number: int, frame: Any) -> None:
        pressed[:] = number, frame
        interrupt()

    previous = _get_handler(_SIGINT)
    if not callable(previous):  # ignored, or set by C code, which could not be restored
        return None
    _set_handler(_SIGINT, note)
    return previous


def deadline_of(timeout: float | None) -> float | None:
    """When so many seconds will have passed; None: never."""
    return None if timeout is None else time.monotonic() + timeout


def left_of(deadline: float | None) -> float | None:
    """Seconds until then."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
