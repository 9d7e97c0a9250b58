"""How CPython's tests are run here: what is asked of them beside passing, and what is not.

They were not written for the rules of this project's own tests (see ../conftest.py).  In place of those:
  * a test leaves no thread and no unreaped child, by CPython's own checks;
  * a class of tests leaves no process; multiprocessing's forkserver and resource tracker live on by design
    and are stopped after each class;
  * a test that passes has made a River pool, or its class has one: else it has proved nothing;
  * a test that the table in docs/conformance.md lists must fail.
"""

import multiprocessing.util
import os
import sys
import tempfile
import time
from multiprocessing import resource_tracker

import psutil
import pytest
from conformance_table import POOLS, row_for, rows_of

sys.path.insert(0, os.path.dirname(__file__))  # workers that start afresh import the test modules by name
_ledger, os.environ["RIVER_CONFORMANCE_LEDGER"] = tempfile.mkstemp(prefix="river-ledger-")
os.close(_ledger)

from cpython_harness import STDLIB, WHOSE, OnTrial, alive, end_pools, id_of_test, uses  # noqa: E402 - it needs the ledger

SECONDS = 60  # for one test, set-up and tear-down included; CPython's longest takes about 10
PATIENCE = 5.0  # seconds until a process must be gone

PASSED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items):
    rows = [] if WHOSE == STDLIB else rows_of(POOLS)
    for item in items:
        if on_trial(item):
            item.add_marker(pytest.mark.timeout(SECONDS))
            for warning in item.cls.allowed_warnings:
                item.add_marker(pytest.mark.filterwarnings(warning))
            if row := row_for(rows, id_of_test(item.cls, item.originalname), item.cls.words):
                item.add_marker(pytest.mark.xfail(reason=row.reason, strict=row.is_strict))


def on_trial(item):
    return isinstance(getattr(item, "cls", None), type) and issubclass(item.cls, OnTrial)


def pytest_unconfigure():
    os.unlink(os.environ.pop("RIVER_CONFORMANCE_LEDGER"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if call.when == "call":
        item.stash[PASSED] = report.passed


@pytest.fixture(scope="session", autouse=True)
def warmed_up():
    """Stands in for the fixture of this name in ../conftest.py, which serves nothing_left_behind."""


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """Stands in for the fixture of this name in ../conftest.py: asks what CPython's own checks have found."""
    if not on_trial(request.node):
        yield
        return
    from test import support

    support.environment_altered = False
    before, older = uses(), set(alive)
    yield
    if not request.node.stash.get(PASSED, False):
        end_pools(set(alive) - older)  # what failed here should not be heard of in the next test
    else:
        assert request.cls.shares_a_pool or uses() > before, "this test made no pool: it proves nothing"
        assert not support.environment_altered, "this test left a thread or a child: see its warnings"


@pytest.fixture(scope="class", autouse=True)
def no_process_left_behind(request, tmp_path_factory):
    """Runs a class of CPython's tests in a directory of its own, as they write files; then looks around."""
    if not on_trial(request):
        yield
        return
    here = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("conformance"))
    before = children()
    yield
    os.chdir(here)
    multiprocessing.util._cleanup_tests()
    left = wait_until_gone(before)
    resource_tracker.ensure_running()  # as it was before: the project's own tests expect it
    assert not left, f"this class left processes behind: {left}"


def children():
    return set(psutil.Process().children(recursive=True))


def wait_until_gone(before):
    deadline = time.monotonic() + PATIENCE
    while left := children() - before:
        if time.monotonic() > deadline:
            return [described(process) for process in left]
        time.sleep(0.02)
    return []


def described(process):
    """What a leftover is; it is ended, so that it does not disturb the next class."""
    try:
        text = f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}"
        process.kill()
    except psutil.NoSuchProcess:
        return f"{process.pid} (ended meanwhile)"
    return text
