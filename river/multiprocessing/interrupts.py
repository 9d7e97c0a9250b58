"""Ctrl-C for processes: a terminal sends it to the group of processes in front, which VMs are not of.

    SIGINT --the program's handler runs; its number--> descriptor --> a thread of ours --SIGINT--> each process

So processes hear of it when the program does, whatever that makes of it, as those of `multiprocessing` do.  A program
that ignores SIGINT sends nothing.  Where the descriptor is another one's (asyncio's, say), or the program's main thread
has started no process, they hear of it at the end of the program, if that ends by it.

May not: know how a process is started, or handle a signal.
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import multiprocessing.util
import os
import signal
import sys
import threading
from typing import Any

_writing = -1  # the descriptor that numbers of signals are written to
_is_watching = 0  # the process in which all this is


def pass_on_interrupts() -> None:
    """From now on, if it is not so already.  Processes are those of `multiprocessing.active_children`."""
    global _is_watching
    if _is_watching != os.getpid():
        _is_watching = os.getpid()
        # Before the processes are waited for.
        multiprocessing.util.Finalize(None, _pass_on_at_exit, exitpriority=1000)
    if _writing < 0 and threading.current_thread() is threading.main_thread():
        _listen()


def _listen() -> None:
    global _writing
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if before >= 0:  # another one's, who needs it
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
        return
    _writing = writing
    threading.Thread(target=_hear, args=(reading,), name="river-interrupts", daemon=True).start()


def _hear(reading: int) -> None:
    while numbers := os.read(reading, 1):
        if numbers[0] == signal.SIGINT:
            _interrupt_all()


def _interrupt_all() -> None:
    children: set[Any] = multiprocessing.process._children  # type: ignore[attr-defined]  # it has more than its types
    for process in list(children):
        popen: Any = getattr(process, "_popen", None)
        if getattr(popen, "is_apart", False):
            with contextlib.suppress(OSError, RuntimeError):  # it ends just now, or all do
                popen.interrupt()


def _pass_on_at_exit() -> None:
    if getattr(sys, "last_type", None) is not KeyboardInterrupt:
        return
    with contextlib.suppress(ValueError):  # at the end of another thread
        if _writing >= 0 and signal.set_wakeup_fd(-1) == _writing:
            return  # they have heard of it when it came
    _interrupt_all()


def _forked() -> None:
    """In a child: a signal that it gets is not its parent's."""
    global _writing
    if _writing >= 0:
        with contextlib.suppress(ValueError):  # it was forked in another thread
            if (other := signal.set_wakeup_fd(-1)) != _writing:
                signal.set_wakeup_fd(other)
        _writing = -1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
