"""The fixture `testbed`: a test module has it by `pytest_plugins = ["testbed.fixture"]`.

The hosts stay for the whole session.  After each test its faults are undone, and it fails if it left a process or a
file in /tmp or /dev/shm on a host: this is on the hosts what conftest.py does here.
"""

import os
import time

import pytest

from . import Testbed, missing
from .host import end_processes, left_behind

# A machine that was about to be reached when its driver ended hears no farewell: it ends by itself, within ten seconds.
PATIENCE = max(10.0, float(os.environ.get("RIVER_TEST_PATIENCE", 0)))


@pytest.fixture(scope="session")
def hosts_of_session():
    if reason := missing():
        pytest.skip(f"the testbed {reason}")
    bed = Testbed()
    yield bed
    bed.close()


@pytest.fixture
def testbed(hosts_of_session, monkeypatch):
    """The testbed, whole; this test is on the network of its control side."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)  # no test of ours logs in with the user's keys
    bed = hosts_of_session
    with bed.inside():
        yield bed
        bed.heal()
        left = left_in_the_end(bed.hosts())
        end_processes(bed.hosts())
    if left:
        pytest.fail("this test left behind\n" + "\n".join(left), pytrace=False)


def left_in_the_end(hosts):
    deadline = time.monotonic() + PATIENCE
    while (left := left_behind(hosts)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
