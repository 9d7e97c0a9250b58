"""The fixture that proves each test left nothing behind is itself put to the proof.

The tests below run pytest in a process of its own, on a file whose tests leak one kind of thing each.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LEAKS = '''
import os, subprocess, sys, tempfile, threading
from multiprocessing.shared_memory import SharedMemory

import pytest

kept = []
SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]

def test_leaks_a_child():
    kept.append(subprocess.Popen(SLEEP, stdin=subprocess.PIPE))

def test_leaks_an_orphan():
    start = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    orphan = [sys.executable, "-c", "import time; time.sleep(600)", "orphan"]
    subprocess.run([sys.executable, "-c", start, *orphan], check=True)

def test_leaks_a_zombie():
    child = subprocess.Popen(SLEEP, stdin=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    kept.append(child)

def test_leaks_a_thread():
    threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()

def test_leaks_a_descriptor():
    os.pipe()

def test_leaks_shared_memory():
    segment = SharedMemory(create=True, size=100, name="river_test_%d" % os.getpid())
    kept.append(segment)

def test_leaks_a_temporary_file():
    with tempfile.NamedTemporaryFile(prefix="forgotten", delete=False):
        pass

def test_leaks_nothing():
    with tempfile.TemporaryDirectory():
        segment = SharedMemory(create=True, size=100)
        threading.Thread(target=print).start()
        subprocess.run(SLEEP, stdin=subprocess.DEVNULL, check=True)
    segment.close()
    segment.unlink()

@pytest.fixture
def pool():
    child = subprocess.Popen(SLEEP, stdin=subprocess.PIPE)
    yield
    child.stdin.close()
    child.wait()

def test_what_a_fixture_ends_is_no_leak(pool):
    pass
'''

EXPECTED = {
    "a_child": r"process \d+, (running|sleeping|disk-sleep): .*sys.stdin.read",
    "an_orphan": r"process \d+, (running|sleeping|disk-sleep): .*time.sleep\(600\) orphan",
    "a_zombie": r"process \d+, which has ended, but its parent did not wait for it",
    "a_thread": r"thread 'forgotten' \(daemon\), at\n(.*\n)*.*wait",
    "a_descriptor": r"file descriptor \d+ -> pipe:",
    "shared_memory": r"shared memory /dev/shm/river_test_\d+",
    "a_temporary_file": r"forgotten\w+ in the temporary directory",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What pytest says of the file of leaks: the name of each test -> the text of its error at teardown."""
    folder = tmp_path_factory.mktemp("leaks")
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_leaks.py").write_text(LEAKS)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        env={**os.environ, "RIVER_TEST_PATIENCE": "0.5"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    headings = re.split(r"^_+ ERROR at teardown of test_(?:leaks_)?(\w+) _+$", run.stdout, flags=re.MULTILINE)
    assert re.search(r"9 passed, 7 errors", run.stdout), run.stdout + run.stderr
    return dict(zip(headings[1::2], headings[2::2], strict=True))


@pytest.mark.parametrize("leak", EXPECTED)
def test_a_test_that_leaks_fails_and_the_leak_is_named(report, leak):
    assert re.search(EXPECTED[leak], report[leak]), report[leak]


def test_a_test_that_cleans_up_passes_though_another_has_leaked_before(report):
    assert set(report) == set(EXPECTED)
