"""CPython's tests of how a script is started, with RiverPool in it: test.test_multiprocessing_main_handling.

They start a script that makes a pool: a file, compiled, a directory, a zip file, in a package, with -m.
"""

from unittest import mock

import cpython_harness
from cpython_harness import as_river, on_trial_once, scripts_use_river, variant

SUITE = "test.test_multiprocessing_main_handling"
modules, reason = cpython_harness.cpython_modules(SUITE)


def patches(cls):
    """The scripts are made from texts that are default arguments; they are changed as they are written."""
    module = modules[0]
    return [*scripts_use_river(module),
            *(mock.patch.object(module, name, writes_river(getattr(module, name)))
              for name in ("make_script", "make_zip_pkg"))]


def writes_river(make):
    def wrapped(*args, **kwargs):
        return make(*map(script_as_river, args), **kwargs)
    return wrapped


def script_as_river(arg):
    return as_river(arg) if isinstance(arg, str) and "\n" in arg else arg


if modules:
    CLASSES = [variant(base, subject, __name__, name=name, patches=patches)
               for subject in on_trial_once("pool")
               for name, base in cpython_harness.cpython_classes(modules).items()]
else:
    CLASSES = [cpython_harness.absent(SUITE, reason)]
globals().update({cls.__name__: cls for cls in CLASSES})
