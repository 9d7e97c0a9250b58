"""What the tests send to VMs.

A module of its own, so that a fresh interpreter finds it by name and need not import pytest with it.

May not: assert anything.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

PATIENCE = 60.0


def wait_until(ready, seconds=PATIENCE, what="what the test waits for"):
    """Wait until `ready()` is true, and return what it said.  Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {seconds} s")
        time.sleep(0.005)
    return value


class Gate:
    """Tasks stop here until the test lets them through; the test sees who has come.  Works through a directory."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def __call__(self, value=None):
        """In the task: say that it is here, wait, return `value`."""
        self.arrive(value)
        wait_until((self.directory / "open").exists, what="the opening of the gate")
        return value

    def arrive(self, value=None):
        note(self.directory / "arrived", f"{os.getpid()} {value}")

    def open(self):
        (self.directory / "open").touch()

    def arrived(self):
        """[(pid, value)] of who has come so far, in order; values are strings."""
        return [(int(pid), value) for pid, value in (line.split(" ", 1) for line in lines(self.directory / "arrived"))]

    def wait_for(self, count):
        """In the test: wait until `count` tasks have come; returns them."""
        return wait_until(lambda: len(self.arrived()) >= count and self.arrived(), what=f"{count} tasks at the gate")


def note(path, text):
    """Append a line to a file, whole, whoever else does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def lines(path):
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def nothing(*_):
    pass


def identity(x):
    return x


def square(x):
    return x * x


def add(x, y=0):
    return x + y


def pid(*_):
    return os.getpid()


def slow_square(x):
    """Takes a moment, so that other things may happen meanwhile."""
    time.sleep(0.0005)
    return x * x


def raising(x):
    raise ValueError(x)


def odd_ones_raise(x):
    if x % 2:
        raise ValueError(x)
    return x


def kill_itself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_its_supervisor(*_):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(PATIENCE)


def crash(*_):
    print("on the brink", file=sys.stderr, flush=True)
    ctypes.string_at(0)


def leave(code):
    os._exit(code)


def exit_politely(code):
    sys.exit(code)


def noted_unless_poisoned(case):
    """`case` is (file, value, poisoned): notes that it ran, then dies of it if it is poisoned."""
    path, value, poisoned = case
    note(path, value)
    if poisoned:
        kill_itself()
    return value * value


def environment(name):
    return os.environ.get(name)


def forever(*_):
    threading.Event().wait()


def stuck_if_seven(x):
    if x == 7:
        forever()
    return x


def note_and_wait(path):
    """Says that it runs, and goes on for ever."""
    note(path, os.getpid())
    forever()


def note_and_close_descriptors(path):
    note(path, os.getpid())
    os.closerange(3, 1000)


def hold_the_lock_in_c(path):
    """A C function that never gives the GIL back, and so no Python thread of this VM runs any more."""
    note(path, os.getpid())
    ctypes.PyDLL(None).sleep(600)


# --------------------------------------------------------------------------------- trouble on the way


def error():
    raise LookupError("trouble")


def leave_politely():
    raise SystemExit(3)


TROUBLES = {"error": error, "exit": leave_politely, "death": kill_itself}


class Troubled:
    """Makes trouble when it is pickled or unpickled, but not in the process `spared`."""

    def __init__(self, kind, when, spared=None):
        self.kind, self.when, self.spared = kind, when, spared

    def __reduce__(self):
        if self.when == "pickled" and os.getpid() != self.spared:
            TROUBLES[self.kind]()
        return rebuild_troubled, (type(self), self.kind, self.when, self.spared)


class TroubledError(Troubled, Exception):
    pass


def rebuild_troubled(cls, kind, when, spared):
    if when == "unpickled" and os.getpid() != spared:
        TROUBLES[kind]()
    return cls(kind, when, spared)


class Counted:
    """Notes each time it is pickled or unpickled."""

    def __init__(self, log, content):
        self.log, self.content = log, content

    def __getstate__(self):
        note(self.log, "pickled")
        return self.__dict__

    def __setstate__(self, state):
        self.__dict__.update(state)
        note(self.log, f"unpickled in {os.getpid()}")


def take(x):
    return type(x).__name__


def give(case):
    """A result that makes trouble, if `case` is its arguments; else just the case."""
    return Troubled(*case) if isinstance(case, tuple) else case


def throw(case):
    if isinstance(case, tuple):
        raise TroubledError(*case)
    return case


def stop_if_seventh(x):
    if x % 7 == 0:
        raise StopIteration(x)
    return x


def put_slowly(queue, value):
    time.sleep(0.01)
    queue.put(value)


def sum_of(queue, count):
    return sum(queue.get(timeout=30) for _ in range(count))


def signal_and_sleep(case):
    process, number, seconds = case
    time.sleep(seconds)
    os.kill(process, number)
    time.sleep(seconds)
