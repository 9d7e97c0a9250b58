"""This machine: a supervisor forked from this process, or started as a fresh interpreter.

Fork is chosen only while this process has a single thread, so no lock can be held by a thread that the child does not
have.  It is as fast as multiprocessing's fork, and what programs expect of fork holds: globals, locks and shared
arrays are there.  Everywhere else (threads, macOS, Windows, `mp_context` says so) the supervisor is a fresh
interpreter.  Either way VMs are forked by the supervisor, which has one thread and runs no user code.

May not: know tasks or frames.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from .._core import connection, supervisor

_MEMORY = "/proc/self/fd/"  # where River is, if this process has been started from memory (see `bootstrap`)
_BOOT = (
    "import sys; number, root = int(sys.argv[1]), sys.argv[2]; sys.path[0] = root; "
    "from river._core.supervisor import main; sys.path.pop(0); "
    f"sys.path += [root] * root.startswith('{_MEMORY}'); main(number)"
)


def may_fork() -> bool:
    """Whether forking this process is safe: Linux, and a single thread, counted by the kernel."""
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return False
    try:
        # A thread that Python has joined may need another moment to be gone for the kernel.
        for _ in range(10):
            if len(os.listdir("/proc/self/task")) == 1:
                return True
            time.sleep(0.0003)
    except OSError:
        pass
    return False


def launch(fork: bool, inherited: Any, env: dict[str, str]) -> tuple[socket.socket, Process]:
    """Start a supervisor; returns the line to it, and its process.

    `inherited` is what each VM calls first, reaching it through memory (fork only); `env` holds variables that VMs get.
    """
    ours, theirs = connection.pair()
    try:
        pid = _fork(ours, theirs, inherited, env) if fork else _execute(theirs, env)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, Process(pid)


def _fork(ours: socket.socket, theirs: socket.socket, inherited: Any, env: dict[str, str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                pass  # closed; then there is nothing to be written twice
    driver = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            os.environ.update(env)
            _forget_parent()
            supervisor.serve(theirs, driver, inherited)
        finally:
            os._exit(1)
    return pid


def _forget_parent() -> None:
    """Drop what would run or be waited for at the end of a process that is not this one."""
    import atexit

    atexit._clear()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children.clear()
    connections: Any = sys.modules.get("river.multiprocessing.connection")
    if connections is not None:
        connections.leave_to_parent()
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _execute(theirs: socket.socket, env: dict[str, str]) -> int:
    import subprocess  # who forks can do without, and starts sooner

    root = os.path.abspath(supervisor.__file__)
    for _ in range(3):
        root = os.path.dirname(root)
    passed = [theirs.fileno()]
    if root.startswith(_MEMORY):
        passed.append(int(root[len(_MEMORY) :]))
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", _BOOT, str(theirs.fileno()), root],
        pass_fds=passed,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
    )
    process.returncode = 0  # we reap it by its pid; Popen's finalizer must not complain
    return process.pid


class Process:
    """A child process of ours."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code (negative: signal); None while it runs."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._code = 0  # somebody else in this process has reaped it
            else:
                if pid:
                    self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float) -> bool:
        """Whether it ended within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while self.poll() is None:
            if time.monotonic() > deadline:
                return False
            # waitpid has no time limit; a supervisor that was told to end does so within a millisecond or two.
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return True

    def kill(self) -> None:
        if self.poll() is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
