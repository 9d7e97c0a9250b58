"""What the tasks of a machine have started, and left behind when their VM ended: the agent adopts it, and ends it.

Else a task's child that has left its VM's process group, or whose supervisor was killed, would stay on the machine.
Only Linux gives orphans to another process than the first one.

May import only the standard library: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 2.0  # seconds that they may take to end; one that waits for a dead file server does not end at all


def adopt() -> None:
    """From now on, what our children's children leave behind is our child."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap(but: int) -> None:
    """Forget those that have ended, up to our own child `but`, whose end somebody else waits for."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != but:
            os.waitpid(ended.si_pid, 0)


def end() -> None:
    """End all children, and what they leave behind in their turn."""
    deadline = time.monotonic() + _PATIENCE
    while (pids := _children()) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        reap(0)
        time.sleep(0.001)


def _children() -> list[int]:
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc") if sys.platform.startswith("linux") else ()):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(name))
    return found
