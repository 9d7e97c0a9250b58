"""CPython's tests of ProcessPoolExecutor, run on RiverPool and RiverExecutor: test.test_concurrent_futures.

Every class there that tests ProcessPoolExecutor is run with River's classes as its executor_type; the tests
of Future are run on the class of River's futures.  What is about ThreadPoolExecutor tests another class.

Workers import this file to find the classes' methods: no pytest in here.
"""

import concurrent.futures
import gc
import inspect
import multiprocessing
import multiprocessing.util
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from unittest import mock

import cpython_harness
from cpython_harness import (
    DEFAULT,
    STDLIB,
    WHOSE,
    Bracket,
    note_use,
    on_trial,
    on_trial_once,
    scripts_use_river,
    variant,
)

SUITE = "test.test_concurrent_futures"
modules, reason = cpython_harness.cpython_modules(SUITE)
if modules:
    from test.support import threading_helper
classes = cpython_harness.cpython_classes(modules)

# What the tests ask of executors with this start method is asked of ours by default: those too start each
# worker afresh.  (ctx is the name that tests print into scripts.)
LIKE_DEFAULT = "spawn"
BY_DEFAULT = {"ctx": DEFAULT, "get_context": lambda self: multiprocessing.get_context(LIKE_DEFAULT)}

# An executor may be left open, and these tests do so; that RiverPool warns of it, it has from Pool.
LEFT_OPEN = ["ignore:unclosed running:ResourceWarning"]

STOP_HELPERS = Bracket(lambda: None, lambda: multiprocessing.util._cleanup_tests())


def process_classes(method):
    """CPython's classes that test ProcessPoolExecutor with a start method, by their names without it."""
    method = LIKE_DEFAULT if method == DEFAULT else method
    prefix = f"ProcessPool{method.capitalize()}"
    return {name.removeprefix(prefix): cls for name, cls in classes.items()
            if getattr(cls, "executor_type", None) is ProcessPoolExecutor and cls.ctx == method}


def meta_classes():
    """Those that themselves run tests of the former, which they look up in their module."""
    return {name: cls for name, cls in classes.items()
            if not hasattr(cls, "executor_type") and "ProcessPool" in inspect.getsource(cls)}


def executor_variants(subject):
    own = BY_DEFAULT if subject.method == DEFAULT else {}
    for name, base in process_classes(subject.method).items():
        yield variant(base, subject, __name__, name=name, executor_type=subject.type,
                      patches=executor_patches, allowed_warnings=LEFT_OPEN, **own)


def meta_variants(subject):
    for name, base in meta_classes().items():
        yield variant(base, subject, __name__, name=name, patches=meta_patches)


def executor_patches(cls):
    """Some tests name ProcessPoolExecutor itself, some print the executor's name into a script.

    A test that skips what hangs with ProcessPoolExecutor must see that this is not on trial, so what stands
    in for that is not our class but its function make.
    """
    stand_in = cls.subject.type if WHOSE == STDLIB else cls.subject.make
    return [STOP_HELPERS, *scripts_use_river(*modules), *fair_thread_checks(),
            mock.patch.object(concurrent.futures, "ProcessPoolExecutor", stand_in)]


def fair_thread_checks():
    """Python 3.10 alone counts a thread that has ended as left behind while its object waits for the garbage
    collector, and a pool is part of a reference cycle: collect before it counts.
    """
    if sys.version_info >= (3, 11):
        return []
    return [mock.patch.object(threading_helper, name, after_collecting(getattr(threading_helper, name)))
            for name in ("threading_setup", "threading_cleanup")]


def after_collecting(function):
    def wrapped(*args):
        gc.collect()
        return function(*args)
    return wrapped


def meta_patches(cls):
    """Puts our variants where the module has CPython's classes."""
    ours = {base: ours for ours in CLASSES for base in ours.__mro__ if ours.subject.name == cls.subject.name}
    return [STOP_HELPERS, *(mock.patch.object(module, name, ours[theirs])
                            for module in modules for name, theirs in list(vars(module).items())
                            if isinstance(theirs, type) and theirs in ours and name in classes)]


# --- the tests of Future ---

def future_variants(subject):
    for name, base in classes.items():
        if name == "FutureTests":
            yield variant(base, subject, __name__, name=name, patches=future_patches)


def future_patches(cls):
    """Puts our class where the modules have Future, and futures of our class where they have made some."""
    ours = future_class()
    return [STOP_HELPERS, *(mock.patch.object(module, name, ours if value is Future else remade(value, ours))
                            for module in modules for name, value in list(vars(module).items())
                            if value is Future or type(value) is Future)]


def future_class():
    """River's futures, counted, made without arguments, under the name that the test of repr() expects."""
    theirs, arguments = (Future, ()) if WHOSE == STDLIB else (river_future_class(), (Nobody(),))

    def __init__(self):
        note_use()
        super(type(self), self).__init__(*arguments)

    return type("Future", (theirs,), {"__init__": __init__})


def river_future_class():
    from river import futures

    return futures.Future


class Nobody:
    """Owns the futures of these tests, which have no task: does at once what a future asks of its owner."""

    def wait(self, ready, timeout):
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.001)
        return ready()

    def later(self, call, *args):
        call(*args)

    def cancel(self, number, running):
        return True

    def is_running(self, number):
        return False

    def nudge(self):
        pass


def remade(future, cls):
    new = cls()
    for attribute in ("_state", "_result", "_exception"):
        setattr(new, attribute, getattr(future, attribute))
    return new


if modules:
    CLASSES = [cls for subject in on_trial("executor") for cls in executor_variants(subject)]
    CLASSES += [cls for subject in on_trial_once("executor")
                for cls in (*meta_variants(subject), *future_variants(subject))]
else:
    CLASSES = [cpython_harness.absent(SUITE, reason)]
globals().update({cls.__name__: cls for cls in CLASSES})
