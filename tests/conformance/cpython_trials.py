"""test._test_multiprocessing, run against river.multiprocessing: which tests there are, how each is run and counted.

    python tests/conformance/cpython_trials.py            # all: how each ended, and how many pass
    python tests/conformance/cpython_trials.py Queue      # those with this word in their name

The tests run in a process of their own (cpython_trial.py), as `multiprocessing` is River there.  When a test hangs,
this process and all that it started are ended, and another one runs the rest.

Rule: no pytest in here; the command above needs none.
"""

import collections
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

SUITE = "test._test_multiprocessing"
OF_STDLIB = os.environ.get("RIVER_CONFORMANCE_OF") == "stdlib"
ON_TRIAL = "multiprocessing" if OF_STDLIB else "river.multiprocessing"

PASSED, FAILED, SKIPPED, HUNG = "passed", "failed", "skipped", "hung"

SECONDS = 60  # for one test; the longest takes about 10
HOPELESS = 15  # for one that is listed as not passing
AT_ONCE = (os.cpu_count() or 1) + 1
PATIENCE = 10  # seconds in which a process must have ended when it was asked to
MARK = "RIVER_CONFORMANCE_TRIAL"  # in the environment of every process that a trial starts


# --- what is to be run ---

@dataclass(frozen=True)
class Test:
    """One of CPython's tests, for one kind of what it tests: processes, threads or manager."""

    name: str  # WithProcessesTestQueue.test_put
    id: str  # _TestQueue.test_put, as its source has it
    kind: str


def all_tests(suite):
    """What CPython's builder makes of the suite, in the suite's order."""
    built = {"__name__": __name__}
    suite.install_tests_in_module_dict(built, "spawn")
    return [Test(f"{cls.__name__}.{name}", getattr(cls, name).__qualname__, getattr(cls, "TYPE", "processes"))
            for cls in built.values() if isinstance(cls, type)
            for name in dir(cls) if name.startswith("test") and callable(getattr(cls, name))]


# --- the process on trial ---

class Trial:
    """The process that runs the tests, while there is need of one."""

    def __init__(self):
        self.process = self._line = self._answers = self._log = None

    def run(self, name, seconds=SECONDS):
        """Runs one test.

        Returns:
            outcome, text: one of PASSED, FAILED, SKIPPED, HUNG; what is known about it.
        """
        if self.process is None:
            self.start()
        self._log.seek(0, os.SEEK_END)
        self._before = self._log.tell()
        try:
            self._line.settimeout(seconds)
            self._line.sendall(f"{name}\n".encode())
            outcome, text = json.loads(self._answers.readline())
        except TimeoutError:
            outcome, text = HUNG, f"no answer within {seconds} s"
            self._ask_where_it_hangs()
        except (ConnectionError, json.JSONDecodeError):
            outcome, text = FAILED, f"the process of the tests has died, with exit code {self.process.wait(PATIENCE)}"
        if outcome in (PASSED, SKIPPED):
            return outcome, text
        text += "\n--- it printed\n" + self._printed()
        self._kill()  # what failed here should not be heard of in the next test
        return outcome, text

    def start(self):
        self._log = tempfile.TemporaryFile("a+", encoding="utf-8", errors="replace")
        self.mark = uuid.uuid4().hex
        self._line, theirs = socket.socketpair()
        self._answers = self._line.makefile(encoding="utf-8")
        self._folder = tempfile.TemporaryDirectory(prefix="river-trial-")  # some tests write files where they are
        here = os.path.dirname(os.path.abspath(__file__))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"import sys; sys.path[0] = {here!r}\n"
                                       f"import cpython_trial; cpython_trial.serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                cwd=self._folder.name, env=dict(os.environ, **{MARK: self.mark}), start_new_session=True)
        self._line.settimeout(SECONDS)
        on_trial = json.loads(self._answers.readline() or "null")
        if on_trial != ON_TRIAL:
            self._log.seek(0)
            said = self._log.read()
            self._kill()
            raise RuntimeError(f"the process of the tests has {on_trial} on trial, not {ON_TRIAL}; it printed\n{said}")

    def _ask_where_it_hangs(self):
        """Has it print the stacks of its threads, that of the main thread last."""
        end = time.monotonic() + PATIENCE
        self.process.send_signal(signal.SIGUSR1)
        while "in <module>" not in self._printed() and time.monotonic() < end:
            time.sleep(0.02)

    def _printed(self):
        """What it has printed since it was asked for the test."""
        self._log.seek(self._before)
        return self._log.read()

    def end(self):
        """Ends the process as it would end by itself.

        Returns:
            What it has left behind, each described; processes are ended.
        """
        if self.process is None:
            return []
        self._answers.close()
        self._line.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # then it is among those found below
            self.process.wait(PATIENCE)
        left = [describe(process) for process in self._left()]
        if self.process.returncode:
            self._log.seek(0)
            left.append(f"exit code {self.process.returncode}; the tests have printed\n{self._log.read()}")
        self._kill()
        return left

    def _left(self):
        """Its processes which have not ended within PATIENCE seconds."""
        end = time.monotonic() + PATIENCE
        while (left := marked(self.mark)) and time.monotonic() < end:
            time.sleep(0.02)
        return left

    def _kill(self):
        self.process.kill()
        self.process.wait()
        while left := marked(self.mark):  # one may have started another while we looked
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself, now that its parent is gone
                    process.kill()
            psutil.wait_procs(left, PATIENCE)
        for resource in (self._answers, self._line, self._log):
            resource.close()
        self._folder.cleanup()
        self.process = None


def marked(mark):
    """The processes with the mark; one that has ended, and that nobody has waited for yet, is not one."""
    return [process for process in psutil.process_iter() if mark_of(process) == mark]


def mark_of(process):
    try:
        return process.environ().get(MARK)
    except psutil.Error:  # gone by now, or another user's
        return None


def describe(process):
    try:
        return f"process {process.pid}, {process.status()}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"process {process.pid}, which ended just now"


@contextlib.contextmanager
def several(tests, hopeless=()):
    """Runs the tests in several processes: most of them wait most of the time.

    hopeless: those of the tests that will not pass, so that nobody need wait long for one that hangs.

    Yields a dictionary from test to the future of its outcome and text.  Raises AssertionError at the end if the tests
    have left something behind.
    """
    mine, trials = threading.local(), []

    def run(test):
        if not hasattr(mine, "trial"):
            mine.trial = Trial()
            trials.append(mine.trial)
        return mine.trial.run(test.name, HOPELESS if test in hopeless else SECONDS)

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield {test: pool.submit(run, test) for test in tests}
    finally:
        pool.shutdown(cancel_futures=True)
        left = [thing for trial in trials for thing in trial.end()]
    assert not left, "these tests left behind\n" + "\n".join(left)


# --- the number ---

def number(outcomes):
    """How many of the tests that apply pass: what a test itself skips does not.

    Args:
        outcomes: of all tests.
    """
    counts = collections.Counter(outcomes)
    return f"{counts[PASSED]} of {counts.total() - counts[SKIPPED]}"


def main(words):
    from cpython_harness import cpython_modules

    modules, reason = cpython_modules(SUITE)
    if reason:
        sys.exit(f"cannot be told here: {reason}")
    tests = [test for test in all_tests(modules[0]) if all(word in test.name for word in words)]
    with several(tests) as results:
        for test, result in results.items():
            outcome, text = result.result()
            print(f"{outcome:8}{test.name}", flush=True)
            if outcome != PASSED:
                print("    " + text.strip().replace("\n", "\n    "))
        outcomes = [result.result()[0] for result in results.values()]
    print(f"{number(outcomes)} tests of CPython {sys.version.split()[0]} pass")


if __name__ == "__main__":
    main(sys.argv[1:])
