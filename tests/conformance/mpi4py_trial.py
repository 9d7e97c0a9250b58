"""A rank on trial: runs tests of mpi4py's own suite, each when it is asked for, and tells what came of it.

    python -m river.mpi -n 2 --mpi4py mpi4py_trial.py ADDRESS FOLDER

Each line that comes is a question, ["list", module] or ["run", test]; each line that goes is the answer, both as JSON.
All ranks are asked the same at the same time, as most tests are collective; mpi4py_suite.py asks.

Rule: nothing of mpi4py's is stored or edited; the suite imports mpi4py, and finds River.
"""

import faulthandler
import importlib
import json
import os
import signal
import socket
import sys
import traceback
import unittest

PASSED, FORGIVEN, SKIPPED, FAILED = "passed", "forgiven", "skipped", "failed"


class Refusal(NotImplementedError):
    """What River raises for NotImplementedError while it is on trial.

    Many tests forgive that what a library of MPI need not have is not there.  They pass then, and prove nothing."""

    count = 0

    def __init__(self, *args):
        Refusal.count += 1
        super().__init__(*args)


def count_refusals():
    """Let River's modules find this class by the name of the built-in one; `raw` refuses only what mpi4py does."""
    for name, module in list(sys.modules.items()):
        if name.startswith("river.mpi") and name != "river.mpi.raw":
            vars(module)["NotImplementedError"] = Refusal


def names_in(module):
    """The tests in a module; the module itself, if it cannot be imported or skips itself: to run it says why."""
    try:
        importlib.import_module(module)
    except BaseException:  # noqa: BLE001 - whatever it is, `run` tells it
        return [module]
    return [test.id() for test in flat(unittest.defaultTestLoader.loadTestsFromName(module))]


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def run(name):
    """Runs a test with the set-up and tear-down of its class.

    Returns:
        outcome, text: one of PASSED, FORGIVEN, SKIPPED, FAILED; a traceback or reason.
    """
    try:
        importlib.import_module(name.partition(".")[0])
    except unittest.SkipTest as skip:
        return SKIPPED, str(skip)
    except BaseException:  # noqa: BLE001 - the module has failed, whatever it raises
        return FAILED, traceback.format_exc()
    count_refusals()
    before = Refusal.count
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromName(name).run(result)
    if bad := [*result.failures, *result.errors]:
        return FAILED, "\n".join(text for _, text in bad)
    if result.unexpectedSuccesses:
        return FAILED, "it was expected to fail, and passed"
    if result.skipped:
        return SKIPPED, result.skipped[0][1]
    return (FORGIVEN, "River has not all of it") if Refusal.count > before else (PASSED, "")


ANSWERS = {"list": names_in, "run": run}


def serve(address, folder):
    """Answers until the other side closes."""
    from mpi4py import MPI

    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # whoever finds that we hang asks where
    sys.path.insert(0, folder)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        with line.makefile("rw", encoding="utf-8") as talk:
            say(talk, [MPI.COMM_WORLD.rank, os.getpid(), MPI.get_vendor()[0]])
            for question in talk:
                what, name = json.loads(question)
                say(talk, ANSWERS[what](name))


def say(talk, answer):
    print(json.dumps(answer), file=talk, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
