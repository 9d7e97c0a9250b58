"""mpi4py's own tests, run against River: which there are, how each is run and counted.

    python tests/conformance/mpi4py_suite.py               # all, at 1 rank and at 2: each by its name, then the numbers
    python tests/conformance/mpi4py_suite.py -n 2 test_comm test_p2p_obj.TestP2PObjWorld      # some

The suite comes with mpi4py's source distribution, which is fetched for the run, and is not kept; or it is where
RIVER_MPI4PY says that such a one has been unpacked.  Its tests run in ranks (mpi4py_trial.py), all of which run the
same test; the worst of what they say is how it ended.  When a test fails or hangs all ranks are ended, and others run
the rest: what has failed is not heard of in the next test.

Rule: no pytest in here; the command above needs none.
"""

import argparse
import collections
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from pathlib import Path

import psutil
from cpython_trials import FAILED, HUNG, MARK, PASSED, SKIPPED, marked
from mpi4py_trial import FORGIVEN

VERSION = "4.1.2"
WORST_LAST = (PASSED, FORGIVEN, SKIPPED, FAILED, HUNG)
SIZES = (1, 2)

# The suite's own switch: test_util_dtlib takes 6 types instead of 40, whose combinations it tries by three.
FEWER = {"COVERAGE_RUN": "true"}
SECONDS = 120  # for one test; the longest takes about 15
GRACE = 5  # for the other ranks when one has failed: they may wait for it
PATIENCE = 10  # for processes to start, and to end
FETCHING = 300

HERE = Path(__file__).parent


class Absent(Exception):
    """The suite cannot be had here, and why."""


@contextlib.contextmanager
def suite():
    """Yields the folder of mpi4py's tests.  Raises Absent."""
    if there := os.environ.get("RIVER_MPI4PY"):
        yield Path(there) / "test"
        return
    with tempfile.TemporaryDirectory(prefix="river-mpi4py-") as folder:
        yield fetched(folder) / "test"


def fetched(folder):
    """The unpacked source distribution."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "mpi4py",
               "--disable-pip-version-check", "--dest", folder, f"mpi4py=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCHING, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Absent(f"mpi4py {VERSION} did not come within {FETCHING} s") from None
    archives = list(Path(folder).glob("mpi4py-*.tar.gz"))
    if done.returncode or not archives:
        raise Absent(f"mpi4py {VERSION} cannot be fetched: {done.stderr.strip()[-500:]}")
    with tarfile.open(archives[0]) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder, **safely)
    return Path(folder) / f"mpi4py-{VERSION}"


def modules_in(folder):
    return sorted(path.stem for path in folder.glob("test_*.py"))


# --- the ranks ---

class Ranks:
    """The ranks that run the tests, while there is need of them."""

    def __init__(self, size, folder):
        self.size, self.folder = size, folder
        self.process = None
        self._lines = {}

    def list(self, module):
        """The names of a module's tests.  Raises RuntimeError if ranks do not say the same."""
        answers = self._ask("list", module, SECONDS)
        if any(names != answers[0] for names in answers) or answers[0] is None:
            text = self._printed()
            self.kill()
            raise RuntimeError(f"the ranks do not say the same tests of {module}, or none: {answers}\n{text}")
        return answers[0]

    def run(self, name, seconds=SECONDS):
        """Runs one test.

        Returns:
            outcome, text: one of WORST_LAST; what is known about it.
        """
        answers = self._ask("run", name, seconds)
        silent = [rank for rank, answer in enumerate(answers) if answer is None]
        told = [answer for answer in answers if answer is not None]
        if silent:
            told.append(self._why_silent(silent, seconds))
        outcome = max((answer[0] for answer in told), key=WORST_LAST.index)
        text = "\n".join(dict.fromkeys(text for what, text in told if what != PASSED))
        if outcome in (FAILED, HUNG):
            text += "\n--- it printed\n" + self._printed()
            self.kill()
        return outcome, text

    def _why_silent(self, silent, seconds):
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(PATIENCE if self._ended else 0)
            return FAILED, f"the ranks have ended, with exit code {code}"
        for rank in silent:  # each prints its stacks, that of the main thread last
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pids[rank], signal.SIGUSR1)
        end = time.monotonic() + PATIENCE
        while self._printed().count("in serve") < len(silent) and time.monotonic() < end:
            time.sleep(0.02)
        return HUNG, f"no answer from rank {', '.join(map(str, silent))} within {seconds} s"

    def _ask(self, what, name, seconds):
        """The answers of all ranks; None of those that give none in time."""
        if self.process is None:
            self.start()
        self._before = self._log.seek(0, os.SEEK_END)
        question = json.dumps([what, name]).encode() + b"\n"
        for line, _ in self._lines.values():
            with contextlib.suppress(OSError):  # its end is seen below
                line.sendall(question)
        return self._answers(time.monotonic() + seconds)

    def _answers(self, end):
        answers = [None] * self.size
        self._ended = set()  # ranks that have closed their line
        with selectors.DefaultSelector() as waiting:
            for rank, (line, _) in self._lines.items():
                waiting.register(line, selectors.EVENT_READ, rank)
            while waiting.get_map() and (left := end - time.monotonic()) > 0:
                for key, _ in waiting.select(left):
                    waiting.unregister(key.fileobj)
                    answer = answers[key.data] = self._read(key.data)
                    if answer is None:
                        self._ended.add(key.data)
                    if answer is None or answer[:1] == [FAILED]:
                        end = min(end, time.monotonic() + GRACE)
        return answers

    def _read(self, rank):
        try:
            return json.loads(self._lines[rank][1].readline() or "null")
        except (OSError, ValueError):  # it has ended in the middle
            return None

    def start(self):
        self._log = tempfile.TemporaryFile("a+", encoding="utf-8", errors="replace")
        self._folder = tempfile.TemporaryDirectory(prefix="river-trial-")  # some tests write files where they are
        self.mark = uuid.uuid4().hex
        address = str(Path(self._folder.name) / "line")
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(address)
            door.listen(self.size)
            door.settimeout(PATIENCE * self.size)
            self.process = subprocess.Popen(
                [sys.executable, "-W", "default", "-m", "river.mpi", "-n", str(self.size), "--mpi4py",
                 str(HERE / "mpi4py_trial.py"), address, str(self.folder)],
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=self._folder.name,
                env=dict(os.environ, **{MARK: self.mark}, **FEWER, TMPDIR=self._folder.name), start_new_session=True)
            self._pids = {}
            try:
                self._lines = dict(self._hello(door) for _ in range(self.size))
            except (OSError, ValueError) as error:
                self._before = 0
                said = self._printed()
                self.kill()
                raise RuntimeError(f"the ranks do not start: {error}; they printed\n{said}") from error

    def _hello(self, door):
        line, _ = door.accept()
        line.settimeout(PATIENCE)
        talk = line.makefile(encoding="utf-8")
        rank, pid, vendor = json.loads(talk.readline())
        if vendor != "river":
            raise ValueError(f"what is on trial is {vendor}, not River")
        self._pids[rank] = pid
        return rank, (line, talk)

    def _printed(self):
        """What they have printed since they were asked."""
        self._log.seek(self._before)
        return self._log.read()

    def end(self):
        """Ends the ranks as they end by themselves.

        Returns:
            What they have left behind, each described; processes are ended.
        """
        if self.process is None:
            return []
        self._close_lines()
        with contextlib.suppress(subprocess.TimeoutExpired):  # then it is among those found below
            self.process.wait(PATIENCE)
        left = [f"process {process.pid}" for process in marked(self.mark)]
        if self.process.returncode:
            self._before = 0
            left.append(f"exit code {self.process.returncode}; the ranks have printed\n{self._printed()}")
        self.kill()
        return left

    def _close_lines(self):
        for line, talk in self._lines.values():
            talk.close()
            line.close()
        self._lines = {}

    def kill(self):
        self.process.kill()
        self.process.wait()
        while left := marked(self.mark):  # one may have started another while we looked
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, PATIENCE)
        self._close_lines()
        self._log.close()
        self._folder.cleanup()
        self.process = None


def results(size, folder, words=(), seconds=SECONDS):
    """Runs the tests that begin with one of the words (all, if there are none) at so many ranks.

    Yields name, outcome, text of each, as it ends.  Raises AssertionError at the end if something is left behind.
    """
    ranks = Ranks(size, folder)
    try:
        for module in modules_in(folder):
            for name in ranks.list(module) if is_wanted(module, words) else ():
                if is_wanted(name, words):
                    yield name, *ranks.run(name, seconds)
    finally:
        left = ranks.end()
    assert not left, f"the tests at {size} ranks left behind\n" + "\n".join(left)


def is_wanted(name, words):
    """Whether it begins with one of the words, or one of them may begin with it."""
    return not words or any(name.startswith(word) or word.startswith(f"{name}.") for word in words)


# --- the numbers ---

def number(outcomes):
    """How many of the tests that apply pass: what a test itself skips does not, what it forgives is not passed."""
    counts = collections.Counter(outcomes)
    return f"{counts[PASSED]} of {counts.total() - counts[SKIPPED]}"


def table(outcomes):
    """The lines of the table of numbers, by module.

    Args:
        outcomes: by number of ranks, a dictionary from test to outcome.
    """
    modules = sorted({name.partition(".")[0] for tests in outcomes.values() for name in tests})
    heads = [f"at {size} rank{'s' * (size > 1)}" for size in outcomes]
    lines = [f"| module | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for module in modules:
        numbers = [number([outcome for name, outcome in tests.items() if name.partition(".")[0] == module])
                   for tests in outcomes.values()]
        lines.append(f"| `{module}` | {' | '.join(numbers)} |")
    lines.append(f"| all | {' | '.join(number(tests.values()) for tests in outcomes.values())} |")
    return lines


def main(argv):
    parser = argparse.ArgumentParser(description="Run mpi4py's own tests against River.")
    parser.add_argument("-n", type=int, action="append", help="at so many ranks (default: at 1, then at 2)")
    parser.add_argument("-q", action="store_true", help="say only how each has ended")
    parser.add_argument("words", nargs="*", help="only tests that begin with one of these")
    options = parser.parse_args(argv)
    outcomes = {}
    try:
        with suite() as folder:
            for size in options.n or SIZES:
                tests = outcomes[size] = {}
                for name, outcome, text in results(size, folder, options.words):
                    tests[name] = outcome
                    print(f"{size} {outcome:9}{name}", flush=True)
                    if outcome != PASSED and not options.q:
                        print("    " + text.strip().replace("\n", "\n    "))
    except Absent as absent:
        sys.exit(f"cannot be told here: {absent}")
    print("\n".join(table(outcomes)))


if __name__ == "__main__":
    main(sys.argv[1:])
