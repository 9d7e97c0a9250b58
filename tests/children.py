"""What the tests of river.multiprocessing share: processes, and how they are to end.

May not: test anything.
"""

import os
import signal

import pytest
from tasks import PATIENCE

import river.multiprocessing as mp

METHODS = ["forkserver", "spawn", "fork"]


@pytest.fixture(name="processes_end", autouse=True, scope="module")
def processes_of_a_module(by_value):
    """The clusters behind the contexts live as long as the program; here they are the module's.

    by_value: see `tools.functions_by_value`."""
    for method in METHODS[:2]:
        end(start(mp.get_context(method), os.getpid))
    yield
    for method in METHODS:
        cluster = mp.get_context(method)._cluster
        if cluster is not None:
            cluster.terminate()


def start(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    return process


def end(*processes):
    """They were to end by themselves."""
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0, process


def kill(process):
    """It was to be there still."""
    process.kill()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL, process
