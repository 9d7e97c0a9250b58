"""CPython's tests of multiprocessing.Pool, run on RiverPool: what test._test_multiprocessing has on pools.

CPython's own builder makes the classes, once per start method; here they are given our pool wherever they
look for one: self.Pool, multiprocessing.Pool, a manager's Pool, a script.  Its variants on threads are left
out: they test another class.

Workers import this file to find the classes' methods: no pytest in here.
"""

import functools
import inspect
import multiprocessing
import multiprocessing.pool
from multiprocessing.managers import SyncManager
from unittest import mock

import cpython_harness
from cpython_harness import DEFAULT, Bracket, names_of_tests, on_trial, scripts_use_river, variant

SUITE = "test._test_multiprocessing"
modules, reason = cpython_harness.cpython_modules(SUITE)


def pool_in_process(label):
    """The suite's function of this name, which a test runs in a process where nothing is patched yet."""
    with mock.patch.object(multiprocessing, "Pool", subjects[label].type):
        original_pool_in_process()


def suite_classes(subject):
    """What CPython's builder makes for a start method, but for threads: set-up and tear-down, and classes."""
    built = {"__name__": __name__}
    modules[0].install_tests_in_module_dict(built, None if subject.method == DEFAULT else subject.method)
    bracket = Bracket(built.pop("setUpModule"), built.pop("tearDownModule"))
    return bracket, {name: cls for name, cls in built.items() if isinstance(cls, type)
                     and getattr(cls, "TYPE", "") != "threads"}


def about_pools(cls):
    """The class's tests that have to do with pools: by their class's name, their own, or what they do."""
    return [name for name in names_of_tests(cls) if "pool" in text_of(getattr(cls, name)).lower()]


def text_of(test):
    return test.__qualname__ + inspect.getsource(test)


def patches(bracket):
    def of(cls):
        pool = cls.subject.type
        in_process = functools.partial(pool_in_process, cls.subject.label)
        return [
            bracket,
            mock.patch.object(multiprocessing, "Pool", pool),
            mock.patch.object(multiprocessing.pool, "Pool", pool),
            mock.patch.dict(SyncManager._registry, Pool=(pool, *SyncManager._registry["Pool"][1:])),
            mock.patch.object(modules[0], "pool_in_process", in_process),
            *scripts_use_river(),
        ]
    return staticmethod(of)


def variants(subject):
    bracket, classes = suite_classes(subject)
    for name, base in classes.items():
        if tests := about_pools(base):
            kind = getattr(base, "TYPE", "processes")
            own = {"Pool": subject.type} if kind == "processes" else {}
            yield variant(base, subject, __name__, name=name, only=tests, words=[kind],
                          patches=patches(bracket), **own)


subjects = {subject.label: subject for subject in on_trial("pool")}
if modules:
    original_pool_in_process = modules[0].pool_in_process
    CLASSES = [cls for subject in subjects.values() for cls in variants(subject)]
else:
    CLASSES = [cpython_harness.absent(SUITE, reason)]
globals().update({cls.__name__: cls for cls in CLASSES})
