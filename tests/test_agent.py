"""The agent of a machine: what it does not wait for."""

import subprocess
import sys
import types

from river._core import agent
from river._core.agent import Agent


def test_an_agent_begins_without_tls():
    program = "import sys, river._core.agent; sys.exit('ssl' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_the_door_for_direct_connections_is_opened_once_and_when_the_first_tasks_have_most_likely_begun():
    one = Agent.__new__(Agent)  # whose supervisor is not started
    one._settings = {"direct": {"port": 1}, "grace": 6.0, "lease": 60.0}
    one._link = types.SimpleNamespace(heard_at=0.0)
    one._loop = types.SimpleNamespace(clock=lambda: 10.0)
    one._cut_at = one._begun_at = None
    opened = []
    one._open_door = opened.append
    one._see_to_time(10.0)
    one.greeted()
    one._see_to_time(10.0 + agent._SETTLED / 2)
    early = list(opened)
    for _ in range(2):
        one._see_to_time(10.0 + agent._SETTLED * 2)

    assert (early, opened) == ([], [{"port": 1}])
