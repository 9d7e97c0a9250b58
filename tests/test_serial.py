"""Serialisation: what a driver pickles means the same in another interpreter, and what comes back is the driver's own.

The far side is a real interpreter that knows River's `_core` only.  It is told of functions and calls as a VM is: of
a function once, and again when something that went into it has changed.
"""

import gc
import io
import multiprocessing
import os
import pickle
import re
import struct
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import river
from river._core import serial, shm
from river._core.reference import Context, by_reference, global_names, is_findable
from river._core.serial import Handle, dump_exception, dump_result, dumps, is_plain, loads
from river._core.shm import SHARE_FROM

LARGE = SHARE_FROM // 8  # so many numbers of 8 bytes leave the pickle

FAR = """
import pickle, struct, sys, types
sys.path.insert(0, sys.argv[1])
from river._core import namespaces, serial
sys.path.pop(0)
source, answers = sys.stdin.buffer, sys.stdout.buffer
sys.stdout = sys.stderr
sys.modules["__main__"] = types.ModuleType("__main__")
functions = {}

def answer(kind, number, blob, buffers):
    if kind == "inherit":
        exec(compile(blob, "script.py", "exec"), sys.modules["__main__"].__dict__)
    elif kind == "hold":
        namespaces.hold(number, blob, buffers)
    elif kind == "release":
        namespaces.release(number)
    elif kind == "define":
        functions[number] = serial.loads(blob, buffers=buffers)
    else:
        arguments, keywords = serial.loads(blob, buffers=buffers)
        return functions[number](*arguments, **keywords)

while head := source.read(8):
    try:
        done = answer(*pickle.loads(source.read(struct.unpack("<Q", head)[0])))
        out = []
        blob = serial.dump_result(done, lambda buffer: out.append(bytes(buffer)))
        result = True, blob, out
    except BaseException as error:
        result = False, serial.dump_exception(error), []
    data = pickle.dumps(result)
    answers.write(struct.pack("<Q", len(data)) + data)
    answers.flush()
"""


class FarError(Exception):
    """What was raised on the far side: its name and message."""


class Far:
    """Another interpreter, and what it has been told."""

    def __init__(self, inherited=None):
        root = str(Path(river.__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-c", FAR, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.context = Context(inherited)
        self._known = {}
        self.told = 0  # how often it was told of a function

    def __call__(self, function, *arguments, **keywords):
        """Call a function of ours over there."""
        known = self._known.get(id(function))
        if known is None or not known[1].is_fresh():
            self.told += 1
            known = self.told, dumps(function, self.context), function
            self._known[id(function)] = known
            self.tell("define", known[0], known[1])
        return self.tell("call", known[0], dumps((arguments, keywords), self.context))

    def tell(self, kind, number, pickled):
        data = pickle.dumps((kind, number, pickled.blob, [bytearray(s.content()) for s in pickled.segments]))
        self._process.stdin.write(struct.pack("<Q", len(data)) + data)
        self._process.stdin.flush()
        (length,) = struct.unpack("<Q", self._process.stdout.read(8))
        is_good, what, buffers = pickle.loads(self._process.stdout.read(length))
        if not is_good:
            raise FarError(what[1])
        return loads(what, buffers=buffers)

    def close(self):
        self._known.clear()  # and the shared memory in it
        with self._process:
            self._process.stdin.close()


class Main(types.ModuleType):
    """A `__main__` that the test writes, piece by piece."""

    def __call__(self, source):
        exec(compile(textwrap.dedent(source), "script.py", "exec"), self.__dict__)


@pytest.fixture(autouse=True)
def no_memory_kept():
    """Shared memory is kept to be filled again, which is no leak."""
    yield
    gc.collect()
    shm.forget_free()


@pytest.fixture
def main(monkeypatch):
    module = Main("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


@pytest.fixture
def far():
    """A fresh interpreter."""
    far = Far()
    yield far
    far.close()


@pytest.fixture
def inherit(main):
    """Makes an interpreter that has all of `main` as it is now, as if it had been forked from here."""
    made = []

    def make(source):
        main(source)
        far = Far(inherited=dict(main.__dict__))
        made.append(far)
        far.tell("inherit", 0, serial.Pickled(textwrap.dedent(source).encode()))
        return far

    yield make
    for far in made:
        far.close()


def here(obj, context=None):
    """Pickle and unpickle in this process."""
    pickled = dumps(obj, context or Context())
    return loads(pickled.blob, buffers=[segment.content() for segment in pickled.segments])


# ------------------------------------------------------------------------------- functions mean the same there

PROGRAMS = {
    "a lambda": "f = lambda x: x * 3",
    "a global": """
        factor = 3
        def f(x): return x * factor
        """,
    "positional, keyword-only and variable arguments": """
        def g(a, b=2, *rest, c, d=4, **more): return a, b, rest, c, d, more
        def f(x): return g(x, c=1), g(x, 5, 6, 7, c=8, d=9, e=10)
        """,
    "defaults that are objects": """
        def f(x, table={1: "one", 3: "three"}, *, pair=(1, 2)): return table.get(x), pair
        """,
    "a closure": """
        def outer(n):
            def inner(x): return x + n
            return inner
        f = outer(10)
        """,
    "a closure in a closure": """
        def outer(a):
            def middle(b):
                def inner(x): return a, b, x
                return inner
            return middle
        f = outer(1)(2)
        """,
    "closures that share a variable": """
        def counter():
            n = 0
            def up():
                nonlocal n
                n += 1
            def read(): return n
            return up, read
        up, read = counter()
        def f(x):
            for _ in range(x): up()
            return read()
        """,
    "a variable that is not set yet": """
        def outer():
            def f(x):
                try:
                    return late
                except NameError:
                    return "not yet"
            return f
            late = 1
        f = outer()
        """,
    "recursion": """
        def f(n): return 1 if n < 2 else n * f(n - 1)
        """,
    "recursion of an inner function": """
        def outer():
            def fac(n): return 1 if n < 2 else n * fac(n - 1)
            return fac
        f = outer()
        """,
    "mutual recursion": """
        def f(n): return True if n == 0 else odd(n - 1)
        def odd(n): return False if n == 0 else f(n - 1)
        """,
    "mutual recursion in a closure": """
        def outer():
            def even(n): return True if n == 0 else odd(n - 1)
            def odd(n): return False if n == 0 else even(n - 1)
            return even
        f = outer()
        """,
    "a function in a data structure": """
        def double(x): return 2 * x
        table = {"double": double, "self": lambda x: table["double"](x)}
        def f(x): return table["self"](x)
        """,
    "globals of a nested function, a comprehension and a class body": """
        a, b, c = 1, 2, 3
        def f(x):
            def inner(): return a
            class Local: attribute = c
            return inner(), [b + i for i in range(x)], Local.attribute
        """,
    "a global that only a task sets": """
        def put(x):
            global later
            later = x
        def f(x):
            put(x)
            return later
        """,
    "a decorated function": """
        import functools
        def twice(g):
            @functools.wraps(g)
            def wrapper(*args): return g(*args), g(*args)
            return wrapper
        @twice
        def f(x): return x
        """,
    "attributes, name and documentation": """
        def f(x): 'says what it does'; return f.__name__, f.__qualname__, f.__doc__, f.mark, f.__module__
        f.mark = ["a", 1]
        """,
    "a generator": """
        def numbers(n):
            for i in range(n): yield i * step
        step = 2
        def f(n): return list(numbers(n))
        """,
    "a coroutine": """
        import asyncio
        async def work(x): return x + 1
        def f(x): return asyncio.run(work(x))
        """,
    "a partial": """
        import functools
        def add(a, b): return a + b
        f = functools.partial(add, 5)
        """,
    "a cached function": """
        import functools
        @functools.lru_cache(maxsize=None)
        def f(n): return n if n < 2 else f(n - 1) + f(n - 2)
        """,
    "a class with methods": """
        base = 100
        class Thing:
            count = 0
            def __init__(self, x): self.x = x
            def value(self): return self.x + base
            @classmethod
            def make(cls, x): return cls(x)
            @staticmethod
            def half(x): return x / 2
            @property
            def twice(self): return 2 * self.x
        def f(x):
            thing = Thing.make(x)
            return thing.value(), Thing.half(x), thing.twice, isinstance(thing, Thing)
        """,
    "inheritance and super": """
        class Base:
            def hello(self): return "base"
        class Derived(Base):
            def hello(self): return "derived of " + super().hello()
        def f(x): return Derived().hello(), issubclass(Derived, Base)
        """,
    "a bound method": """
        class Adder:
            def __init__(self, n): self.n = n
            def add(self, x): return self.n + x
        f = Adder(7).add
        """,
    "a callable object": """
        class Adder:
            def __init__(self, n): self.n = n
            def __call__(self, x): return self.n + x
        f = Adder(8)
        """,
    "a dataclass, an enum and a named tuple": """
        import collections, dataclasses, enum
        @dataclasses.dataclass
        class Point:
            x: int
            y: int = 2
        class Colour(enum.Enum):
            RED = 1
        Pair = collections.namedtuple("Pair", "a b")
        def f(x): return Point(x).y, Colour(1) is Colour.RED, Pair(x, 2)._asdict()
        """,
    "an exception of one's own": """
        class Trouble(Exception): pass
        def g(x): raise Trouble(x)
        def f(x):
            try:
                g(x)
            except Trouble as error:
                return error.args
        """,
    "hundreds of globals": "\n".join(f"v{i} = {i}" for i in range(400))
    + "\ndef f(x): return ["
    + ", ".join(f"v{i}" for i in range(400))
    + "]",
    "a module": """
        import math, os.path as path
        def f(x): return math.sqrt(x), path.join("a", "b")
        """,
    "submodules that are reached as attributes": """
        import xml.dom.minidom, concurrent.futures.thread, email.mime.text
        def f(x):
            executor = concurrent.futures.thread.ThreadPoolExecutor.__name__
            return executor, xml.dom.minidom.parseString("<a/>").documentElement.tagName, email.mime.text.__name__
        """,
    "submodules that a helper reaches": """
        import xml.dom.minidom, xml.etree.ElementTree
        def helper(text): return xml.dom.minidom.parseString(text).documentElement.tagName
        def f(x): return helper("<a/>"), xml.etree.ElementTree.fromstring("<b/>").tag
        """,
    "the file it is in": """
        __file__ = "/somewhere/script.py"
        def f(x): return __file__, __name__
        """,
    "annotations that no task needs": """
        import threading
        def f(x: threading.Lock(), y: "int" = 0) -> int: return f.__annotations__.get("y")
        """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_function_does_the_same_on_the_far_side(main, far, name):
    main(PROGRAMS[name])
    there = far(main.f, 4)  # first, because some keep count of their calls

    assert there == main.f(4)


def test_several_functions_in_one_pickle_share_their_variables(main):
    main("""
        def counter():
            n = 0
            def up():
                nonlocal n
                n += 1
            def read(): return n
            return up, read
        both = counter()
        """)
    up, read = here(main.both)
    up()

    assert (read(), main.both[1]()) == (1, 0)


def test_a_recursive_inner_function_calls_itself_and_no_copy(main):
    main("""
        def outer():
            def f(stop): return f if stop else f(True)
            return f
        """)
    f = here(main.outer())

    assert f(False) is f


def test_a_function_of_a_module_that_nobody_can_import_has_a_namespace_of_that_name(far, monkeypatch):
    module = types.ModuleType("typed_in")
    monkeypatch.setitem(sys.modules, "typed_in", module)
    exec("count = 0\ndef up():\n    global count\n    count += 1\n    return count, __name__", module.__dict__)
    exec("def read(): return count", module.__dict__)

    assert [far(module.up), far(module.up), far(module.read)] == [(1, "typed_in"), (2, "typed_in"), 2]


def test_a_function_that_only_says_it_is_of_an_importable_module_finds_its_own_globals(far):
    """As in a doctest, whose functions have a copy of the module's namespace."""
    namespace = {"__name__": "json"}
    exec("def helper(): return 42\ndef f(): return helper()", namespace)

    assert far(namespace["f"]) == 42


def test_a_task_may_import_from_c_as_numpy_does(main, far):
    """C's PyImport_Import looks for __builtins__ in the globals of the function that called it."""
    main("def f(array): return int(array.sum()), float(array.mean())")

    assert far(main.f, np.arange(5)) == (10, 2.0)


def test_namespaces_of_the_same_name_keep_their_own_globals(far):
    """As with two scripts that one program runs with exec()."""
    one, two = ({"__name__": "__main__", "x": x} for x in (1, 2))
    for namespace in (one, two):
        exec("def f(): return x", namespace)

    assert [far(one["f"]), far(two["f"]), far(one["f"])] == [1, 2, 1]


# ------------------------------------------------------------------------------- one namespace for each module


def test_what_an_initializer_sets_all_tasks_see(main, far):
    main("""
        resource = None
        def initialize(value):
            global resource, more
            resource, more = value, [value]
        def one(): return resource
        def two(): return resource, more
        """)
    far(main.initialize, "ready")

    assert (far(main.one), far(main.two)) == ("ready", ("ready", ["ready"]))
    assert main.resource is None


def test_a_counter_goes_on_whatever_function_counts(main, far):
    main("""
        count, log = 10, []
        def up():
            global count
            count += 1
            log.append(count)
            return count
        def by_two():
            global count
            count += 2
            return count
        def read(): return count, log
        """)

    assert [far(main.up), far(main.by_two), far(main.up)] == [11, 13, 14]
    assert far(main.read) == (14, [11, 14])


def test_what_a_task_made_of_a_global_stays_when_a_function_is_typed_in_again(main, far):
    main("count = 0")
    for expected in (1, 2, 3):
        main("""
            def up():
                global count
                count += 1
                return count
            """)

        assert far(main.up) == expected
    assert far.told == 3


def test_a_new_value_in_the_driver_replaces_the_vms(main, far):
    main("""
        limit, other = 1, 5
        def f(): return limit, other
        def change():
            global limit, other
            limit, other = "task's", "task's"
        """)
    before = far(main.f)
    far(main.change)
    changed = far(main.f)
    main.limit = 2

    assert (before, changed) == ((1, 5), ("task's", "task's"))
    assert far(main.f) == (2, "task's")


@pytest.mark.parametrize("values", [[1, 2, 1], [False, True, False, True], [[1], [2], [1]], [None, "a", None]], ids=str)
def test_a_value_that_comes_back_in_the_driver_comes_back_in_the_vm(main, far, inherit, values):
    source = f"""
        x = {values[0]!r}
        def f(): return x
        """
    for side in (far, inherit(source)):
        main.x = values[0]
        seen = [side(main.f)]
        for value in values[1:]:
            main.x = value
            seen.append(side(main.f))

        assert seen == values


def test_a_change_inside_of_a_global_reaches_functions_that_are_new_to_the_vm(main, far):
    main("""
        settings = {"a": 1}
        def one(): return settings
        def two(): return settings
        """)
    first = far(main.one)
    main.settings["b"] = 2

    assert (first, far(main.two), far(main.one)) == ({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2})


def test_a_function_that_is_defined_anew_is_used_from_then_on_by_those_that_call_it(main, far):
    main("""
        def helper(): return 1
        def caller(): return helper()
        def deep(): return caller()
        """)
    before = far(main.deep), far(main.caller)
    main("def helper(): return 2")

    assert before == (1, 1)
    assert (far(main.caller), far(main.deep)) == (2, 2)


def test_a_class_that_is_defined_anew_is_used_from_then_on(main, far):
    main("""
        class Thing: kind = "old"
        def f(): return Thing.kind
        """)
    before = far(main.f)
    main("class Thing: kind = 'new'")

    assert (before, far(main.f)) == ("old", "new")


def test_a_vm_is_told_of_a_function_once_while_nothing_changes(main, far):
    main("""
        x = 1
        def helper(): return x
        def f(): return helper()
        """)
    for _ in range(3):
        far(main.f)

    assert far.told == 1


def test_a_large_global_is_not_unpacked_again_while_it_is_the_same(main, far):
    main("""
        table = {"seen": 0}
        def one():
            table["seen"] += 1
            return table["seen"]
        def two():
            table["seen"] += 1
            return table["seen"]
        """)

    assert [far(main.one), far(main.two), far(main.one)] == [1, 2, 3]


# ------------------------------------------------------------------------------------- what a VM has inherited


def test_an_inherited_function_goes_by_name_and_keeps_its_globals(main, inherit):
    far = inherit("""
        count = 0
        class Thing: pass
        def up():
            global count
            count += 1
            return count
        """)
    pickled = dumps((main.up, main.Thing, main.Thing()), far.context)

    assert b"__main__" in pickled.blob and len(pickled.blob) < 200
    assert [far(main.up), far(main.up)] == [1, 2]


def test_what_cannot_be_pickled_is_there_if_it_was_inherited(main, inherit):
    far = inherit("""
        import threading
        lock = threading.Lock()
        x = 1
        def f():
            with lock: return x
        """)
    before = far(main.f)
    main.x = 2

    assert (before, far(main.f)) == (1, 2)


def test_functions_that_are_defined_later_see_what_was_inherited_and_what_is_new(main, inherit):
    far = inherit("""
        import threading
        lock, count = threading.Lock(), 5
        def helper(): return count
        """)
    main("""
        more = 10
        def f():
            with lock: return helper() + more
        """)

    assert far(main.f) == 15


def test_an_inherited_function_that_is_defined_anew_is_replaced(main, inherit):
    far = inherit("""
        def helper(): return "old"
        def f(): return helper()
        def deep(): return f()
        """)
    before = far(main.deep)
    main("def helper(): return 'new'")

    assert (before, far(main.deep), far(main.f)) == ("old", "new", "new")


def test_a_changed_global_reaches_a_vm_that_has_inherited_the_old_one(main, inherit):
    far = inherit("""
        x = 1
        def helper(): return x
        def f(): return helper()
        """)
    before = far(main.f)
    main.x = 2

    assert (before, far(main.f), far(main.helper)) == (1, 2, 2)


# ---------------------------------------------------------------------------------------------- is it fresh?

CHANGES = {
    # what happens: (source, whether the pickle of f may still be used)
    "nothing": ("", True),
    "another global": ("unread = 2", True),
    "a change inside": ("items.append(1)", True),
    "the same object again": ("items = items", True),
    "a global bound anew": ("x = 1000", False),
    "an equal but other object": ("items = [0]", False),
    "a helper's global": ("y = 1000", False),
    "a helper defined anew": ("def helper(): return 2", False),
    "a class defined anew": ("class Thing: pass", False),
    "a global that is gone": ("del x", False),
    "a global that is there at last": ("late = 1", False),
    "a closure's variable": ("set_hidden(2)", False),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("has_inherited", [False, True], ids=["fresh VM", "forked VM"])
def test_a_pickled_function_is_fresh_until_something_that_went_into_it_is_bound_anew(main, change, has_inherited):
    main("""
        x, y, unread, items = 500, 600, 700, [0]
        class Thing: pass
        def outer():
            hidden = 1
            def hide(): return hidden
            def set_hidden(value):
                nonlocal hidden
                hidden = value
            return hide, set_hidden
        hide, set_hidden = outer()
        def helper(): return y
        def f():
            if x: return helper, Thing, items, hide()
            return late
        """)
    pickled = dumps(main.f, Context(dict(main.__dict__) if has_inherited else None))
    source, expected = CHANGES[change]
    before = pickled.is_fresh()
    main(source)

    assert (before, pickled.is_fresh()) == (True, expected)


# ----------------------------------------------------------------------- results are of the driver's own classes


def test_a_result_is_an_instance_of_the_drivers_own_class(main, far):
    main("""
        import dataclasses, enum
        class Plain:
            def __init__(self, x): self.x = x
        @dataclasses.dataclass(frozen=True)
        class Point:
            x: int
        class Colour(enum.Enum):
            RED = 1
        class Trouble(Exception): pass
        def f(x):
            return [Plain(x), Point(x), Colour.RED, Trouble(x), Plain, {"nested": (Point(x),)}]
        """)
    plain, point, colour, trouble, cls, nested = far(main.f, 3)

    assert type(plain) is main.Plain and plain.x == 3 and point == main.Point(3)
    assert colour is main.Colour.RED and cls is main.Plain
    assert type(trouble) is main.Trouble and trouble.args == (3,)
    assert nested == {"nested": (main.Point(3),)}


def test_an_object_with_slots_goes_there_and_comes_back(main, far):
    main("""
        import dataclasses
        class Slotted:
            __slots__ = ("x",)
            def __init__(self, x): self.x = x
        @dataclasses.dataclass(slots=True)
        class Point:
            x: int
        def f(first, second): return Slotted(first.x + 1), Point(second.x + 1)
        """)
    slotted, point = far(main.f, main.Slotted(1), main.Point(2))

    assert type(slotted) is main.Slotted and slotted.x == 2
    assert point == main.Point(3)


def test_a_class_made_in_a_function_comes_back_as_itself(main, far):
    main("""
        def make():
            class Local:
                def __init__(self, x): self.x = x
            return Local
        First, Second = make(), make()
        def f(x): return First(x), Second(x)
        def g(thing): return thing
        """)
    first, second = far(main.f, 1)
    sent = main.First(5)

    assert type(first) is main.First and type(second) is main.Second
    assert type(far(main.g, sent)) is main.First


def test_an_argument_is_an_instance_of_the_class_that_tasks_know(main, far):
    main("""
        class Thing: pass
        def f(thing): return isinstance(thing, Thing), type(thing) is Thing
        """)

    assert far(main.f, main.Thing()) == (True, True)


def test_a_class_that_is_gone_from_the_driver_is_an_error_with_its_name():
    with pytest.raises(pickle.UnpicklingError, match="class Lost is gone"):
        serial.driver_class("no such number", "Lost")


@pytest.mark.parametrize("kind", ["inherited", "by value"])
def test_a_function_is_a_result_like_any_other_if_the_driver_has_it(main, far, inherit, kind):
    source = """
        def helper(): return 1
        def f(): return helper
        """
    side = inherit(source) if kind == "inherited" else far
    main(source)

    assert side(main.f) is main.helper


@pytest.mark.parametrize("value", [lambda: 1, (x for x in "ab"), sys], ids=["lambda", "generator", "module"])
def test_a_result_that_the_driver_could_not_rebuild_cannot_be_pickled(value):
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        dump_result([value])


# ---------------------------------------------------------------------------------------------- large buffers


def pieces(obj, shared=None):
    pickled = dumps(obj, Context(), shared)
    return pickled, loads(pickled.blob, buffers=[segment.content() for segment in pickled.segments])


@pytest.mark.parametrize(
    ("array", "outside"),
    [
        (np.arange(LARGE), 1),
        (np.arange(LARGE - 1), 0),
        (np.arange(2 * LARGE).reshape(2, -1), 1),
        (np.asfortranarray(np.arange(2 * LARGE).reshape(2, -1)), 1),
        (np.arange(2 * LARGE)[::2], 1),
        (np.arange(LARGE).astype(">i8"), 1),
        (np.zeros((0, 3)), 0),
    ],
    ids=["large", "small", "2-d", "by columns", "every other", "big-endian", "empty"],
)
def test_an_array_arrives_as_it_is_and_a_large_one_outside_of_the_pickle(array, outside):
    pickled, copy = pieces(array)

    assert (copy == array).all() and (copy.dtype, copy.shape) == (array.dtype, array.shape)
    assert len(pickled.segments) <= 1
    if not array.flags.c_contiguous and not array.flags.f_contiguous:
        return  # numpy may copy it into the pickle
    assert len(pickled.segments) == outside
    assert len(pickled.blob) < 1000 or not outside


def test_an_array_that_is_twice_in_one_object_is_one_array_there():
    array = np.arange(LARGE)
    pickled, (first, second) = pieces([array, array])

    assert len(pickled.segments) == 1 and first is second


def test_more_arrays_than_descriptors_are_worth_go_inside():
    arrays = [np.full(LARGE, i) for i in range(30)]
    pickled, copies = pieces(arrays)

    assert len(pickled.segments) == 16
    assert [copy[0] for copy in copies] == list(range(30))


def test_an_array_in_a_global_goes_outside_as_well(main, far):
    main("import numpy as np")
    main.table = np.arange(LARGE)
    main("def f(): return int(table.sum()), table.flags.writeable")
    pickled = dumps(main.f, Context())

    assert len(pickled.segments) == 1 and len(pickled.blob) < 2000
    assert far(main.f) == (int(main.table.sum()), True)


def test_arrays_go_there_and_come_back(main, far):
    main("def f(a, b): return a + 1, b[:3]")
    first, second = far(main.f, np.arange(LARGE), np.arange(10.0))

    assert (first == np.arange(LARGE) + 1).all() and (second == [0, 1, 2]).all()


def test_one_array_in_many_calls_is_copied_once():
    array, shared = np.arange(LARGE), {}
    calls = [pieces((array, i), shared) for i in range(5)]

    assert len({id(pickled.segments[0]) for pickled, _ in calls}) == 1
    assert all((copy == array).all() and number == i for i, (_, (copy, number)) in enumerate(calls))


def test_an_array_that_has_changed_between_two_calls_arrives_changed():
    """As from a generator that fills one array again and again."""
    array, shared = np.zeros(LARGE), {}
    copies = []
    for value in range(3):
        array[:] = value
        copies.append(pieces(array, shared)[1])

    assert [(copy.min(), copy.max()) for copy in copies] == [(0, 0), (1, 1), (2, 2)]


def test_an_array_that_is_gone_is_not_taken_for_a_new_one_at_its_place():
    shared = {}
    for value in range(20):
        assert (pieces(np.full(LARGE, value), shared)[1] == value).all()


def test_what_is_remembered_for_many_calls_is_little():
    shared = {}
    for value in range(40):
        pieces(np.full(LARGE, value), shared)

    assert len(shared) <= 8


def test_large_results_leave_their_pickle_too():
    outside = []
    array = np.arange(LARGE)
    blob = dump_result({"a": array}, lambda buffer: outside.append(buffer))

    assert len(outside) == 1 and len(blob) < 1000
    assert (loads(blob, buffers=[bytes(b) for b in outside])["a"] == array).all()


# -------------------------------------------------------------------------------------------- objects of put()


def test_a_handle_stands_for_the_object_itself_which_is_unpacked_once(main, far):
    main("""
        def f(x, again): return x is again, x
        def g(nested): return [id(x) for x in nested["list"]]
        """)
    handle = Handle(7)
    far.tell("hold", 7, dumps({"big": 1}, far.context))

    assert far(main.f, handle, handle) == (True, {"big": 1})
    assert len({*far(main.g, {"list": [handle, handle]}), *far(main.g, {"list": [handle]})}) == 1


def test_the_driver_knows_which_handles_are_in_a_pickle():
    one, two = Handle(1), Handle(2)

    assert dumps([one, {"x": two}, one], Context()).handles == [one, two]
    assert list(dumps([1], Context()).handles) == []


def test_a_handle_whose_object_is_gone_is_an_error(main, far):
    main("def f(x): return x")
    far.tell("hold", 7, dumps([1], far.context))
    far.tell("release", 7, dumps(None, far.context))

    with pytest.raises(FarError, match="KeyError: 7"):
        far(main.f, Handle(7))


# ----------------------------------------------------------------------------------------------------- errors


class Stubborn:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


def nested(depth):
    deep = []
    for _ in range(depth):
        deep = [deep]
    return deep


BAD = {
    "a generator": (lambda: (x for x in "ab"), TypeError, "generator"),
    "a lock": (threading.Lock, TypeError, "lock"),
    "a lock without a name": (multiprocessing.get_context("fork").Lock, RuntimeError, "fork context has no name"),
    "its own error": (lambda: Stubborn(ZeroDivisionError("mine")), ZeroDivisionError, "mine"),
    "deep nesting": (lambda: nested(100_000), pickle.PicklingError, "nested too deeply|deep recursion"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["itself", "among arguments", "in a closure"])
def test_what_cannot_be_pickled_is_an_error_that_says_what(bad, where):
    make, error, culprit = BAD[bad]
    obj = make()
    wrapped = {"itself": obj, "among arguments": ((1, obj), {}), "in a closure": lambda: obj}[where]

    with pytest.raises(error, match=culprit):
        dumps(wrapped, Context())
    while type(obj) is list and obj:  # take it apart: to free it at once would need a deep C stack
        obj = obj.pop()


def test_a_global_that_cannot_be_pickled_is_an_error_that_names_it_and_who_reads_it(main):
    main("""
        import threading
        lock = threading.Lock()
        def f():
            with lock: return 1
        def g(): return f()
        """)

    with pytest.raises(TypeError, match="lock") as caught:
        dumps(main.g, Context())
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["while sending the global 'lock', which f() reads"]


def test_an_attempt_that_fails_leaves_nothing_open():
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TypeError):
        dumps([np.arange(LARGE), (x for x in "ab")], Context())
    gc.collect()
    shm.forget_free()

    assert len(os.listdir("/proc/self/fd")) == before


# ------------------------------------------------------------------------------------- exceptions always arrive


class NeedsTwo(Exception):
    """Cannot be rebuilt: its constructor wants more than `args` holds."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unprintable(Exception):
    def __str__(self):
        raise LookupError("no text")


class Leaver(Exception):
    def __reduce__(self):
        raise SystemExit(3)


class Disguised(Exception):
    """Comes back as something else."""

    def __reduce__(self):
        return LookupError, ("disguised",)


def with_generator():
    error = ValueError("with a generator")
    error.generator = (x for x in "ab")
    return error


EXCEPTIONS = {
    "a usual one": (lambda: ValueError("a", 1), True, "ValueError: "),
    "one that ends a program": (lambda: SystemExit(3), True, "SystemExit: 3"),
    "Ctrl-C": (KeyboardInterrupt, True, "KeyboardInterrupt"),
    "a file's": (lambda: FileNotFoundError(2, "not there", "/x"), True, "FileNotFoundError: .*/x"),
    "one that cannot be rebuilt": (lambda: NeedsTwo(1, 2), False, "NeedsTwo: 1 and 2"),
    "one that holds what cannot be pickled": (with_generator, False, "ValueError: with a generator"),
    "one without a text": (lambda: Unprintable(), True, "Unprintable"),
    "one that leaves when it is pickled": (lambda: Leaver("x"), False, "Leaver: x"),
    "one that comes back as another": (lambda: Disguised("x"), False, "Disguised: x"),
}


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_an_exception_always_arrives_with_name_and_traceback_and_itself_if_it_can(kind):
    make, can_be_rebuilt, expected = EXCEPTIONS[kind]
    try:
        raise make()
    except BaseException as error:
        original = error
        blob, name, text = dump_exception(error)

    assert re.match(expected, name)
    assert "Traceback" in text and "raise make()" in text
    assert (blob is not None) is can_be_rebuilt
    if blob is not None:
        copy = loads(blob)
        assert type(copy) is type(original) and copy.args == original.args


def test_a_traceback_tells_the_cause_as_well():
    try:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        _, _, text = dump_exception(error)

    assert "KeyError: 'missing'" in text and "direct cause" in text and text.rstrip().endswith("ValueError: outer")


# --------------------------------------------------------------------------------------------- by name, by value


def test_what_can_be_imported_goes_by_name(main):
    main("class Mine: pass")
    by_name = [textwrap.dedent, io.BytesIO, len, np.sum, np.ndarray, Path, wait_here, Stubborn, types]

    assert all(len(dumps(x, Context()).blob) < 150 for x in by_name)
    assert all(here(x) is x for x in by_name)


def wait_here():
    pass


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda main: textwrap.dedent, True),
        (lambda main: dict, True),
        (lambda main: wait_here, True),
        (lambda main: Stubborn.__reduce__, True),
        (lambda main: lambda: 1, False),
        (lambda main: main.f, False),
        (lambda main: main.Thing, False),
        (lambda main: main.Thing.method, False),
        (lambda main: main.borrowed, False),
    ],
)
def test_only_what_a_vm_finds_under_its_name_goes_by_name(main, make, expected):
    main("""
        def f(): pass
        class Thing:
            def method(self): pass
        def borrowed(): pass
        borrowed.__module__, borrowed.__qualname__ = "textwrap", "dedent"
        """)

    assert by_reference(make(main), Context()) is expected


def test_a_module_that_only_this_process_has_cannot_be_found(monkeypatch):
    made = types.ModuleType("made_here")
    monkeypatch.setitem(sys.modules, "made_here", made)

    assert [is_findable(name) for name in ("json", "os.path", "builtins", "made_here", "__main__", "nowhere")] == [
        *[True] * 3,
        *[False] * 3,
    ]


def test_a_module_that_is_being_imported_right_now_cannot_be_found(monkeypatch):
    monkeypatch.setattr(textwrap.__spec__, "_initializing", True, raising=False)

    assert not is_findable("textwrap")


def test_functions_need_no_cloudpickle():
    """Importing it costs more than starting a VM."""
    script = """
import sys
from river._core import reference, serial
x = 1
def f(y=2): return lambda: x + y
serial.dumps((f, f(), [1, "a"]), reference.Context())
print("cloudpickle" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("False\n", "")


GLOBALS = {
    "reads": ("def f(): return a + b.c", {"a", "b"}),
    "writes": ("def f():\n global a\n a = 1", {"a"}),
    "deletes": ("def f():\n global a\n del a", {"a"}),
    "nested": ("def f():\n def g(): return a\n return [b for _ in c]", {"a", "b", "c"}),
    "class body": ("def f():\n class C:\n  x = a\n  def m(self): return b\n return C", {"a", "b", "__name__"}),
    "locals": ("def f(a):\n b = a\n return b", set()),
    "calls": ("def f(): return a(b=c)", {"a", "c"}),
    "attributes": ("def f(a): return a.b.c", set()),
}


@pytest.mark.parametrize("kind", GLOBALS)
def test_the_globals_of_a_function_are_those_it_names(kind):
    source, expected = GLOBALS[kind]
    namespace = {}
    exec(source, namespace)

    assert global_names(namespace["f"].__code__) - {"__module__", "__qualname__"} == expected


# ----------------------------------------------------------------------------------------------- plain data


@pytest.mark.parametrize("values", [[], [1, 2.5, "a", b"b", True, None, 1j], list(range(1000)), ("a", 1)], ids=len)
def test_plain_data_arrives_without_any_of_this(values):
    assert is_plain(values)
    assert loads(dumps(values, Context()).blob) == values
    assert here(values) == values


@pytest.mark.parametrize(
    "values", [[[]], [object()], [1, (2,)], [type("Int", (int,), {})(1)]], ids=["list", "object", "tuple", "Int"]
)
def test_what_could_hold_something_is_not_plain(values):
    assert not is_plain(values)
