"""What every test is held to: it leaves nothing behind.

After each test no process, thread, file descriptor, file in /dev/shm or temporary file may be there that was
not there before.  What is on its way out gets PATIENCE seconds; what stays is named, with its command line,
stack or target, and processes are killed, so that the next test starts clean.  Orphans are found too: each test
has a mark of its own in the environment, which every process started from it inherits and keeps.

What a fixture of a module or session has made is older than the test and not looked at, so long as the test does
not change it: a test that kills workers makes its own pool.  Only Linux shows descriptors and /dev/shm.
"""

import contextlib
import gc
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from pathlib import Path

import psutil
import pytest
import tqdm

from river._core import shm

PATIENCE = float(os.environ.get("RIVER_TEST_PATIENCE", 5.0))
MARK = "RIVER_TEST_MARK"


def pytest_collection_finish():
    """What all tests are made of is a great many objects, which no collection of garbage need look at after each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def warmed_up(tmp_path_factory):
    """Brings into being what a Python process makes once and keeps, so that no test is blamed for it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    tmp_path_factory.getbasetemp()  # in the real temporary directory, not in the first test's
    multiprocessing.util.get_temp_dir()
    multiprocessing.resource_tracker.ensure_running()
    tqdm.tqdm.monitor_interval = 0  # else the first bar starts a thread that never ends


@pytest.fixture(autouse=True)
def nothing_left_behind(warmed_up):
    """Fails the test that leaves something behind; meanwhile gives it an empty temporary directory."""
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        # Made here and not by tmp_path, because the path of a Unix socket may not exceed 107 characters.
        temporary = tempfile.mkdtemp(prefix="river-")
        patch.setattr(tempfile, "tempdir", temporary)
        patch.setenv("TMPDIR", temporary)
        patch.setenv(MARK, mark)
        others = frozenset(psutil.pids())
        before = everything(mark, temporary, others)
        yield
        left = left_in_the_end(before, mark, temporary, others)
        shutil.rmtree(temporary, ignore_errors=True)
    if left:
        pytest.fail("this test left behind\n" + "\n".join(left), pytrace=False)


def left_in_the_end(before, mark, temporary, others):
    """Descriptions of what was not there `before` and still is when patience has run out."""
    deadline = time.monotonic() + PATIENCE
    while left := {
        pair
        for pair in everything(mark, temporary, others) - before
        if is_of_test(*pair, mark) and not is_spare(*pair, before)
    }:
        if time.monotonic() > deadline:
            return sorted(DESCRIBE[kind](thing) for kind, thing in left)
        shm.forget_free()  # memory kept to be filled again is no leak
        gc.collect()  # what hangs on a cycle only is not left; if it should have been closed, it warns
        time.sleep(0.02)
    return []


def everything(mark, temporary, others):
    """All there is now, as pairs of kind and thing.  others: processes that cannot bear the mark."""
    kinds = {
        "process": processes(mark, others),
        "thread": threads(),
        "descriptor": descriptors(),
        "shared memory": shared_memory(),
        "temporary file": os.listdir(temporary),
    }
    return {(kind, thing) for kind, things in kinds.items() for thing in things}


def processes(mark, others):
    """Children, theirs, and orphans; a child that has ended and that nobody waited for is one as well.

    To look at all processes of the machine before and after each test would cost minutes, of all tests together."""
    marked = (process for pid in psutil.pids() if pid not in others for process in with_number(pid))
    return {*descendants(os.getpid()), *(process for process in marked if is_ours(process, mark))}


def descendants(pid):
    """[process] for the children of a process, and theirs."""
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return psutil.Process(pid).children(recursive=True)  # which looks at all processes of the machine
    numbers = []
    with contextlib.suppress(OSError):  # it is gone by now
        for thread in os.listdir(f"/proc/{pid}/task"):
            numbers += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return [process for child in numbers for process in [*with_number(child), *descendants(child)]]


def with_number(pid):
    """[its process], or [] if it is gone by now."""
    try:
        return [psutil.Process(pid)]
    except psutil.Error:
        return []


def is_ours(process, mark):
    try:
        return process.pid != os.getpid() and process.environ().get(MARK) == mark
    except psutil.Error:  # gone by now, or another user's
        return False


def threads():
    """Those that run: a foreign thread once seen by Python stays in enumerate() after its end."""
    return {thread for thread in threading.enumerate() if thread.ident in sys._current_frames()}


def descriptors():
    found = set()
    for number in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):  # the one that listed the folder is closed by now
            found.add((int(number), os.readlink(f"/proc/self/fd/{number}")))
    return found


def shared_memory():
    """Files (a folder is joblib's) and their inodes: names do not tell who maps one, glibc renames semaphores."""
    entries = os.scandir("/dev/shm") if os.path.isdir("/dev/shm") else ()
    return [(entry.path, entry.inode()) for entry in entries if entry.is_file()]


def is_of_test(kind, thing, mark):
    """False for a file of /dev/shm that a process of somebody else has mapped: we are not alone here."""
    for process in psutil.process_iter() if kind == "shared memory" else ():
        with contextlib.suppress(OSError):
            mapped = f" {thing[1]} " in Path(f"/proc/{process.pid}/maps").read_text()
            if mapped and process.pid != os.getpid():
                return is_ours(process, mark)
    return True


def is_spare(kind, thing, before):
    """True for a process that waits to be a VM of a supervisor that was there before, with which it ends."""
    with contextlib.suppress(psutil.Error):  # gone by now
        return kind == "process" and thing.name() == "river-spare" and ("process", thing.parent()) in before
    return False


def describe_process(process):
    """Names the process and ends it."""
    try:
        text = f"{process.status()}: {' '.join(process.cmdline())}"
        process.kill()
    except psutil.ZombieProcess:
        text = "which has ended, but its parent did not wait for it"
    except psutil.Error:
        text = "which ended just now"
    return f"  process {process.pid}, {text}"


def describe_thread(thread):
    frame = sys._current_frames().get(thread.ident)
    stack = "".join(traceback.format_stack(frame)[-6:]) if frame else "    ended just now\n"
    return f"  thread {thread.name!r}{' (daemon)' if thread.daemon else ''}, at\n{stack.rstrip()}"


DESCRIBE = {
    "process": describe_process,
    "thread": describe_thread,
    "descriptor": lambda pair: f"  file descriptor {pair[0]} -> {pair[1]}",
    "shared memory": lambda file: f"  shared memory {file[0]}",
    "temporary file": lambda name: f"  {name} in the temporary directory",
}
