"""CPython's own tests, turned on River: finds them where the running Python has them and inherits from them.

Rule 1: nothing of CPython's is stored or edited here; its test modules are imported, their classes inherited.
Rule 2: no list of its tests is kept either; what is about pools and process executors is found by looking, so
        that a test which a later Python adds is run on the day it appears.
Rule 3: no pytest in here.  Workers import the test modules, and through them this one, to find what they run.

    on_trial(face) --> Subject: RiverPool, started by fork  --+
                                                              +--> variant: RiverPool_fork_WaitTest
    cpython_classes() --> ProcessPoolForkWaitTest           --+    our class where CPython's had its own

A test proves something only if it used what is on trial.  Every pool made on trial, in whatever process, adds
a byte to the *ledger*, a file that the environment names; conftest.py fails a test that passed without.

RIVER_CONFORMANCE_OF=stdlib puts the standard library's own classes on trial: that tests this harness.
RIVER_CONFORMANCE_METHODS="default fork" limits the start methods, for those in a hurry.
"""

import concurrent.futures
import concurrent.futures.process
import functools
import importlib
import logging
import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import os
import pkgutil
import signal
import sys
import unittest
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

STDLIB = "stdlib"
WHOSE = os.environ.get("RIVER_CONFORMANCE_OF", "river")
LEDGER = "RIVER_CONFORMANCE_LEDGER"

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

# No start method is named, as most people do.  The standard library's default is one of the others.
DEFAULT = "default"
ALL_METHODS = (*([DEFAULT] if WHOSE != STDLIB else []), *multiprocessing.get_all_start_methods())
METHODS = tuple(os.environ.get("RIVER_CONFORMANCE_METHODS", "").split()) or ALL_METHODS

# What becomes of the scripts inside CPython's tests, which name what they test by where it is imported from.
IN_SCRIPTS = {
    "from concurrent.futures import River": "from river import River",
    "from multiprocessing import Pool, set_start_method":
        "from multiprocessing import set_start_method; from river import RiverPool as Pool",
    "from multiprocessing import Pool": "from river import RiverPool as Pool",
    "multiprocessing.Pool(": "__import__('river').RiverPool(",
    # How a script is told the default; the words are those of the variant's base.
    "context = 'default'": "context = ''",
    # test_hang_gh83386 forgets this import; nobody noticed, as it is skipped for CPython's own process pools.
    "if 'default': multiprocessing.set_start_method(": "if None: (",
    "multiprocessing.set_start_method(": "__import__('multiprocessing').set_start_method(",
}


# --- what is on trial ---

@dataclass(frozen=True)
class Subject:
    """One class on trial, with one start method."""

    name: str
    method: str
    type: type

    @property
    def label(self):
        return f"{self.name}_{self.method}"

    def make(self, *args, **kwargs):
        return self.type(*args, **kwargs)


def on_trial(face, methods=METHODS):
    """The subjects for a face, "pool" or "executor": each class with each start method."""
    return [Subject(base.__name__, method, globals()[f"{face}_{base.__name__}_{method}"])
            for base in CLASSES[face] for method in methods]


def on_trial_once(face):
    """The subjects for tests that have start methods of their own, or none."""
    return on_trial(face, METHODS[:1])


def classes_on_trial():
    if WHOSE == STDLIB:
        return {"pool": [multiprocessing.pool.Pool], "executor": [concurrent.futures.ProcessPoolExecutor]}
    from river import RiverExecutor, RiverPool

    return {"pool": [RiverPool], "executor": [RiverPool, RiverExecutor]}


def counted_pool(base, method):
    """The class, counted, and with its start method as multiprocessing.get_context(method).Pool has it."""

    class Counted(base):
        def __init__(self, *args, **kwargs):
            note_use()
            if method != DEFAULT and len(args) < 5:  # the fifth is the context
                kwargs.setdefault("context", multiprocessing.get_context(method))
            super().__init__(*args, **kwargs)
            alive.add(self)

    return Counted


def counted_executor(base, method):
    """The class, counted; the tests name the start method themselves, and for DEFAULT that goes unheard."""

    class Counted(base):
        def __init__(self, *args, **kwargs):
            note_use()
            if method == DEFAULT:
                kwargs.pop("mp_context", None)
            super().__init__(*args, **kwargs)
            alive.add(self)

    return Counted


COUNTED = {"pool": counted_pool, "executor": counted_executor}


alive = weakref.WeakSet()  # the pools made, while anything holds them


def publish(face, base, method):
    """Makes the counted class findable by name, for pickle; __name__ stays, as tests print it in scripts."""
    counted = COUNTED[face](base, method)
    counted.__name__, counted.__qualname__ = base.__name__, f"{face}_{base.__name__}_{method}"
    globals()[counted.__qualname__] = counted


def end_pools(pools):
    for pool in pools:
        end = getattr(pool, "terminate", None) or functools.partial(pool.shutdown, False, cancel_futures=True)
        end()


# --- the ledger ---

def note_use():
    with open(os.environ[LEDGER], "ab") as ledger:
        ledger.write(b".")


def uses():
    return os.path.getsize(os.environ[LEDGER])


# --- CPython's suites ---

def cpython_modules(name):
    """The modules of a suite of CPython's, e.g. "test.test_concurrent_futures", and why there are none.

    Returns:
        modules, reason: a package is given as its modules; one of the two is empty.
    """
    try:
        top = importlib.import_module(name)
        names = [found.name for found in pkgutil.iter_modules(getattr(top, "__path__", ()))]
        return [top, *(importlib.import_module(f"{name}.{each}") for each in names)], ""
    except ModuleNotFoundError as missing:
        return [], f"this Python ({sys.version.split()[0]}) ships without {missing.name}"
    except unittest.SkipTest as unable:
        return [], f"{name} cannot run on this machine: {unable}"


def cpython_classes(modules):
    """Every test class that is defined in the modules, by name."""
    return {name: found for module in modules for name, found in vars(module).items()
            if isinstance(found, type) and issubclass(found, unittest.TestCase)
            and found.__module__ == module.__name__}


def absent(name, reason):
    """A class with one test, which says that a suite is missing and why."""

    def test_suite_is_here(self):
        self.skipTest(reason)

    tests = {"test_suite_is_here": test_suite_is_here}
    return type(f"Missing_{name.replace('.', '_')}", (unittest.TestCase,), tests)


def names_of_tests(cls):
    return [name for name in dir(cls) if name.startswith("test") and callable(getattr(cls, name))]


# --- variants ---

class OnTrial:
    """Goes before a class of CPython's: while its tests run, River is where the standard library was."""

    subject: Subject
    words: frozenset  # what the table in docs/conformance.md may limit a row to
    patches = staticmethod(lambda cls: ())
    allowed_warnings = ()  # that the suite brings about on purpose; all others are errors
    shares_a_pool = False

    @classmethod
    def setUpClass(cls):
        started = uses()
        for patch in cls.patches(cls):
            patch.start()
            cls.addClassCleanup(patch.stop)
        super().setUpClass()
        cls.shares_a_pool = uses() > started

    def setUp(self):
        """Without pytest's handlers: some tests look for what logging prints when nobody listens."""
        silence = mock.patch.object(logging.getLogger(), "handlers", [])
        silence.start()
        self.addCleanup(silence.stop)
        super().setUp()

    def tearDown(self):
        restart_timer()
        super().tearDown()


def variant(base, subject, module, *, name, only=None, **attributes):
    """CPython's class with a subject in it, as a class of the given module.

    Args:
        only: the tests to keep; None keeps all.
        attributes: what the class has of its own; "patches" is a function from the class to its patches.
    """
    dropped = set() if only is None else set(names_of_tests(base)) - set(only)
    words = frozenset({subject.name, subject.method, PYTHON, *attributes.pop("words", ())})
    namespace = {"__module__": module, "subject": subject, "words": words, **dict.fromkeys(dropped)}
    return type(f"{subject.label}_{name}", (OnTrial, base), {**namespace, **attributes})


@dataclass(frozen=True)
class Bracket:
    """Two calls that belong around a class, in the shape of a patch."""

    start: Callable
    stop: Callable


def id_of_test(cls, name):
    """How the table in docs/conformance.md names a test: the class that defines it, and its name."""
    return getattr(cls, name).__qualname__


def restart_timer(seconds=30):
    """Gives what is left of the test its own time, again and again.

    pytest-timeout's alarm rings once: what hangs in a test then hangs in tearDown for ever.  And the tests
    that use signal.alarm() themselves have switched it off.
    """
    if callable(signal.getsignal(signal.SIGALRM)):
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


# --- scripts ---

def as_river(script):
    """A script that uses the standard library's pools, made to use River's; noted in the ledger if so."""
    if WHOSE == STDLIB:
        note_use()
        return script
    changed = script
    for theirs, ours in IN_SCRIPTS.items():
        changed = changed.replace(theirs, ours)
    if "from river import" in changed or "__import__('river')" in changed:
        note_use()
    return changed


def scripts_use_river(*modules):
    """The patches under which every script that a test starts uses River."""
    from test.support import script_helper

    original = script_helper.assert_python_ok

    def assert_python_ok(*args, **env):
        return original(*map(script_or_file_as_river, args), **with_river_on_path(env))

    return [mock.patch.object(module, "assert_python_ok", assert_python_ok)
            for module in {script_helper, *modules} if hasattr(module, "assert_python_ok")]


def script_or_file_as_river(arg):
    if "\n" in arg:
        return as_river(arg)
    if os.path.isfile(arg):
        file_as_river(Path(arg))
    return arg


def file_as_river(path):
    try:
        script = path.read_text("utf-8")
    except UnicodeDecodeError:  # compiled, or a zip file
        return
    changed = as_river(script)
    if changed != script:
        path.write_text(changed, "utf-8")


def with_river_on_path(env):
    """assert_python_ok isolates the script from the environment unless some of it is given."""
    if WHOSE == STDLIB:
        return env
    import river

    return {"PYTHONPATH": str(Path(river.__file__).parents[1]), **env}


CLASSES = classes_on_trial()
for _face, _bases in CLASSES.items():
    for _base in _bases:
        for _method in METHODS:
            publish(_face, _base, _method)
