"""What the tests of promises share: pools for both ways in which VMs start, scripts run as users run them.

May not: look into River.
"""

import contextlib
import fcntl
import os
import pty
import queue
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import psutil
import pytest
from tasks import wait_until

import river

HERE = str(Path(__file__).parent)
MARK = "RIVER_TEST_MARK"  # conftest gives each test its own, and all processes inherit it
# What would change the ways of the scripts' interpreters, and is the user's to set.
SWITCHES = {f"PYTHON{name}" for name in ("UNBUFFERED", "INSPECT", "WARNINGS", "OPTIMIZE", "FAULTHANDLER", "STARTUP")}

# VMs that are forked from this process, and VMs that are fresh interpreters.
STARTS = [pytest.param("fork", id="forked"), pytest.param("spawn", id="fresh")]
both_starts = pytest.mark.parametrize("start", STARTS)
# pytest has threads (its fault handler, numpy's), so 'fork' is what the test asks for and CPython 3.12 warns of.
forking_is_meant = pytest.mark.filterwarnings("ignore:.*fork.. may lead to deadlocks:DeprecationWarning")


@pytest.fixture(name="by_value", autouse=True, scope="module")
def functions_by_value(request):
    """Those of the module travel as a script's do: to import it, and pytest with it, takes a VM half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request.module, "__spec__", None)
        yield


def warm(pool):
    """Bring into being what a pool makes once and keeps, so that no test is blamed for it; returns the pool."""
    wait_until(lambda: len(pids(pool)) == pool._max_workers, what="the start of all VMs")
    callers = queue.SimpleQueue()
    while True:  # until the task was slower than we: only then is its callback called in a thread of River's
        pool.submit(time.sleep, 0.01).add_done_callback(lambda _: callers.put(threading.current_thread()))
        if callers.get(timeout=60) is not threading.current_thread():
            return pool


def pids(pool):
    """Of the VMs that live now."""
    known = pool.statistics()
    return [known.pids[name] for name in known.vms if known.pids.get(name)]


def supervisor(pool):
    """The process that is the parent of the pool's VMs."""

    def parent():
        with contextlib.suppress(psutil.Error):
            return next(filter(None, (psutil.Process(pid).parent() for pid in pids(pool))), None)

    return wait_until(parent, what="a VM and its supervisor")


def is_marked(process, mark=None):
    try:
        return process.environ().get(MARK) == (mark or os.environ[MARK])
    except psutil.Error:
        return False


def others():
    """All processes that were started from this test, whoever is their parent by now."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and is_marked(p)]


def kill(number, with_signal=signal.SIGKILL):
    """Send a signal to a process of ours that may have ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, with_signal)


def surroundings(**more):
    """The environment for a script: it imports the same River as we do, and `tasks`."""
    paths = [str(Path(river.__file__).parents[1]), HERE, os.environ.get("PYTHONPATH")]
    ours = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    return {**ours, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1", **more}


def python(*arguments, input=None, cwd=None, code=0, **env):
    """Run Python as a user does, warnings being errors; returns its stdout.  It must say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=surroundings(**env),
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (code, ""), f"{done.stdout}\n{done.stderr}"
    return done.stdout


def command(name):
    """What to give to Python for the command `river` or `trickle`, as this environment has it."""
    installed = Path(sys.executable).with_name(name)
    if installed.exists():
        return [installed]
    return ["-m", "river"] if name == "river" else ["-c", f"import sys, river.cli; sys.exit(river.cli.{name}())"]


def script(directory, text, name="script.py"):
    """Write a script; returns its path."""
    path = Path(directory) / name
    path.write_text(text)
    return path


class Terminal:
    """A program with a terminal of its own, which the test types into."""

    # The program must own the terminal for Ctrl-C to mean anything.
    _OWN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"

    def __init__(self, *arguments, cwd=None):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 50, 500, 0, 0))  # else long lines are broken
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._OWN, sys.executable, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            cwd=cwd,
            # The new prompt of 3.13 paints; the plain one can be read.
            env=surroundings(TERM="dumb", PYTHON_BASIC_REPL="1"),
        )
        os.close(slave)
        self._heard = ""
        self.said = ""  # all it has ever said

    @property
    def pid(self):
        return self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(30)
        os.close(self._master)

    def type(self, text):
        os.write(self._master, text.encode())

    def press_ctrl_c(self):
        os.write(self._master, b"\x03")

    def expect(self, pattern, seconds=60):
        """Wait for a regular expression in what it says after the last expected one; returns what came before."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self._heard)):
            if not self._listen(deadline - time.monotonic()):
                raise AssertionError(f"no {pattern!r} in what the program said:\n{self.said}")
        before, self._heard = self._heard[: match.start()], self._heard[match.end() :]
        return before

    def end(self, seconds=60):
        """Wait for its end; returns its exit code."""
        deadline = time.monotonic() + seconds
        while self._listen(deadline - time.monotonic()):
            pass
        return self._process.wait(max(1, deadline - time.monotonic()))

    def _listen(self, seconds):
        if not select.select([self._master], [], [], max(0, seconds))[0]:
            return False
        try:
            text = os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # nobody has the other end open
            return False
        self._heard += text.replace("\r", "")
        self.said += text.replace("\r", "")
        return bool(text)
