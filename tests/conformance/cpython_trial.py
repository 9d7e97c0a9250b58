"""A process on trial: runs tests of test._test_multiprocessing, each when it is asked for, and tells what came of it.

What it says is one line of JSON for each line with the name of a test; cpython_trials.py starts it and asks.

River takes the place of `multiprocessing` before CPython's suite is imported, so all that the suite imports is River's;
and so it is in each script that a test starts.  The processes of the tests import this module to find the classes: the
first thing that it does is to put River there.

Rule: no pytest in here, and nothing of CPython's is stored or edited; its own builder makes the classes.
"""

import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

OF_STDLIB = os.environ.get("RIVER_CONFORMANCE_OF") == "stdlib"
METHOD = os.environ.get("RIVER_CONFORMANCE_START", "spawn")

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
LONG = 30  # seconds, less than the test is given; CPython has 5 minutes
PATIENCE = 10  # seconds for what River starts once


def put_river_there():
    from river.multiprocessing import alias

    alias.install()


if not OF_STDLIB:
    put_river_there()

from test import _test_multiprocessing as suite  # noqa: E402 - it imports multiprocessing
from test import support  # noqa: E402
from test.support import script_helper  # noqa: E402

suite.install_tests_in_module_dict(globals(), METHOD)
set_up, tear_down = globals().pop("setUpModule"), globals().pop("tearDownModule")  # once, and not for each test


# --- scripts ---

class Scripts:
    """Stands in for the module subprocess where tests start scripts: River is there too."""

    def __getattr__(self, name):
        return getattr(subprocess, name)

    def Popen(self, command, **options):
        return subprocess.Popen(on_river(command), **options)

    def check_output(self, command, **options):
        return subprocess.check_output(on_river(command), **options)


def on_river(command):
    """A command line of this Python, with River in the script; the flags stay as they are."""
    program, *rest = command
    if program != sys.executable:
        return command
    if "-c" in rest:
        code = rest.index("-c") + 1
        put_there = "from river.multiprocessing import alias; alias.install()\n"
        return [program, *rest[:code], find_river() + put_there + rest[code], *rest[code + 1:]]
    script = next(number for number, word in enumerate(rest) if os.path.isfile(word))
    run_it = "from river.cli import main; sys.exit(main())"
    return [program, *rest[:script], "-c", find_river() + run_it, "run", *rest[script:]]


def find_river():
    """For scripts that do not see what is installed, or where River is not."""
    import river

    return f"import sys; sys.path.append({str(Path(river.__file__).parents[1])!r})\n"


# --- one test ---

def run(name):
    """Runs a test as CPython does, with the set-up and tear-down of its class.

    Returns:
        outcome, text: one of PASSED, FAILED, SKIPPED; a traceback or reason.
    """
    cls, method = name.split(".")
    support.environment_altered = False
    result = unittest.TestResult()
    unittest.TestSuite([globals()[cls](method)]).run(result)
    if bad := [*result.failures, *result.errors]:
        return FAILED, "\n".join(text for _, text in bad)
    if result.unexpectedSuccesses:
        return FAILED, "it was expected to fail, and passed"
    if result.skipped:
        return SKIPPED, result.skipped[0][1]
    if support.environment_altered:
        return FAILED, "it left a thread, a child or a shared object behind: see the warnings"
    return PASSED, ""


def serve(descriptor):
    """Answers until the other side closes.  Exits with 1 if the tests have left something behind."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # whoever finds that we hang asks where
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it runs in the background
    support.LONG_TIMEOUT = LONG  # a test of Python 3.11 hangs for so long if a thread has begun something in time
    os.set_inheritable(descriptor, False)
    if not OF_STDLIB:
        suite.subprocess = script_helper.subprocess = Scripts()
        warm_up()
    set_up()
    with socket.socket(fileno=descriptor) as line, line.makefile("rw", encoding="utf-8") as talk:
        say(talk, suite.multiprocessing.__name__)
        for name in talk:
            say(talk, run(name.strip()))
    support.environment_altered = False
    tear_down()
    sys.exit(support.environment_altered)


def warm_up():
    """Brings into being what River starts once and keeps, so that no test is blamed for it."""
    methods = ("forkserver", "spawn")
    for method in methods:
        process = suite.multiprocessing.get_context(method).Process()
        process.start()
        process.join()
        process.close()
    end = time.monotonic() + PATIENCE
    while sum(thread.name == "river-reader" for thread in threading.enumerate()) < len(methods):
        if time.monotonic() > end:
            raise TimeoutError(f"River's threads do not start: {threading.enumerate()}")
        time.sleep(0.01)


def say(talk, answer):
    print(json.dumps(answer), file=talk, flush=True)
