"""Scripts as people write them: without a guard, from stdin, in a prompt, in cells; what they know of fork holds.

Each runs in a process of its own, with warnings as errors, and must say nothing on stderr.
"""

import subprocess
import sys
import textwrap

import pytest
import tools
from tasks import wait_until

CONTEXTS = pytest.mark.parametrize("context", ["None", "'spawn'"], ids=["forked", "fresh"])

# One program, to be run in every way that there is.
PROGRAM = """
from river import RiverPool
factor = 3
def triple(x):
    return factor * x
class Point:
    def __init__(self, x):
        self.x = x
    def moved(self):
        return Point(self.x + 1)
with RiverPool(2, mp_context={context}) as p:
    print(p.map(triple, range(5)), p.apply(lambda x: triple(x) + 1, (5,)), end=" ")
    def later(x):
        return triple(triple(x))
    point = p.apply(Point.moved, (Point(6),))
    print(p.map(later, [1, 2]), isinstance(point, Point), point.x)
"""
ANSWER = "[0, 3, 6, 9, 12] 16 [9, 18] True 7\n"


def run(directory, text, *arguments, **options):
    return tools.python(tools.script(directory, textwrap.dedent(text)), *arguments, **options)


# ------------------------------------------------------------------------------------ ways to be run


@CONTEXTS
def test_a_script_needs_no_guard(context, tmp_path):
    assert run(tmp_path, PROGRAM.format(context=context)) == ANSWER


@CONTEXTS
def test_a_script_with_a_guard_works_too(context, tmp_path):
    guarded = "if __name__ == '__main__':\n" + textwrap.indent(PROGRAM.format(context=context), "    ")

    assert run(tmp_path, guarded) == ANSWER


@CONTEXTS
def test_python_c_works(context, tmp_path):
    assert tools.python("-c", PROGRAM.format(context=context)) == ANSWER


@CONTEXTS
def test_a_program_on_stdin_works(context, tmp_path):
    assert tools.python("-", input=PROGRAM.format(context=context)) == ANSWER
    assert tools.python(input=PROGRAM.format(context=context)) == ANSWER


@CONTEXTS
def test_a_module_run_by_m_works_and_reaches_its_siblings(context, tmp_path):
    package = tmp_path / "parcel"
    package.mkdir()
    tools.script(package, "", "__init__.py")
    tools.script(package, "def four(x):\n    return 4 * x\n", "sibling.py")
    tools.script(package, PROGRAM.format(context=context), "__main__.py")
    relative = """
from river import RiverPool
from .sibling import four
def five(x):
    from . import sibling
    return sibling.four(x) + x
with RiverPool(2, mp_context={context}) as p:
    print(p.map(four, [1, 2]), p.map(five, [1, 2]))
"""
    tools.script(package, relative.format(context=context), "tool.py")

    assert tools.python("-m", "parcel", cwd=tmp_path) == ANSWER
    assert tools.python("-m", "parcel.tool", cwd=tmp_path) == "[4, 8] [5, 10]\n"


@CONTEXTS
def test_a_script_reaches_the_modules_beside_it_from_any_directory(context, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    tools.script(tmp_path, "def six(x):\n    return 6 * x\n", "beside.py")
    text = f"""
    import beside
    from river import RiverPool
    with RiverPool(2, mp_context={context}) as p:
        print(p.map(beside.six, [1, 2]), p.map(lambda x: beside.six(x), [3]))
    """

    assert run(tmp_path, text, cwd=tmp_path / "elsewhere") == "[6, 12] [18]\n"


@CONTEXTS
def test_a_script_made_by_runpy_or_exec_works(context, tmp_path):
    path = tools.script(tmp_path, PROGRAM.format(context=context), "program.py")

    assert tools.python("-c", f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')") == ANSWER
    execute = f"import pathlib; exec(pathlib.Path({str(path)!r}).read_text(), {{'__name__': '__main__'}})"
    assert tools.python("-c", execute) == ANSWER


@CONTEXTS
def test_arguments_and_file_of_the_script_are_known_in_tasks(context, tmp_path):
    text = f"""
    import os, sys
    from river import RiverPool
    def told(_):
        return sys.argv[1:], os.path.basename(__file__), __name__
    with RiverPool(1, mp_context={context}) as p:
        print(p.map(told, [0]))
    """

    assert run(tmp_path, text, "-x", "1") == "[(['-x', '1'], 'script.py', '__main__')]\n"


@pytest.mark.parametrize("context", ["", ", mp_context='spawn'"], ids=["forked", "fresh"])
def test_functions_typed_into_a_prompt_work(context):
    lines = [
        "from river import RiverPool",
        f"p = RiverPool(2{context})",
        "def f(x): return x + 1000\n",
        "p.map(f, [1, 2])",
        "base = 5000",
        "def f(x): return x + base\n",
        "p.map(f, [1, 2])",
        "base = 7000",
        "p.map(f, [1, 2])",
        "p.map(lambda x: f(x) * 10, [1])",
        "p.terminate()",
        "exit()",
    ]
    with tools.Terminal("-q", "-i", "-W", "error") as terminal:
        for line in lines:
            terminal.expect(r">>> $")
            terminal.type(line + "\n")
        code = terminal.end(20)

    assert code == 0
    for answer in ("[1001, 1002]", "[5001, 5002]", "[7001, 7002]", "[70010]"):
        assert answer in terminal.said
    assert "Error" not in terminal.said and "Warning" not in terminal.said, terminal.said


@CONTEXTS
def test_cells_of_a_notebook_work(context, tmp_path):
    """The way that IPython runs them: code of a made-up file name, in the namespace of `__main__`."""
    text = f"""
    THING = (
        "class Thing:\\n    def __init__(self, n):\\n        self.n = n\\n"
        "    def grown(self):\\n        return Thing(self.n {{}} step)"
    )
    cells = [
        "from river import RiverPool\\np = RiverPool(2, mp_context={context})",
        "def f(x):\\n    return x + 1\\nprint(p.map(f, [1, 2]))",
        "step = 10\\ndef f(x):\\n    return x + step\\nprint(p.map(f, [1, 2]))",
        "step = 20\\nprint(p.map(f, [1, 2]), p.submit(lambda: f(0)).result())",
        THING.format("+"),
        "t = p.apply(Thing.grown, (Thing(1),))\\nprint(type(t) is Thing, t.n)",
        THING.format("-"),
        "t = p.apply(Thing.grown, (Thing(1),))\\nprint(type(t) is Thing, t.n)",
        "p.close(); p.join()",
    ]
    for number, cell in enumerate(cells):
        exec(compile(cell, f"<ipython-input-{{number}}-0a1b2c>", "exec"), globals())
    """

    assert run(tmp_path, text).splitlines() == [
        "[2, 3]",
        "[11, 12]",
        "[21, 22] 20",
        "True 21",
        "True -19",
    ]


@pytest.mark.parametrize("arguments", [(), ("spawn",)], ids=["forked", "fresh"])
def test_a_traceback_of_a_function_in_a_script_shows_its_line(arguments, tmp_path):
    text = """
    import sys
    from river import RiverPool
    def breaks(x):
        return 1 / x  # the line to be seen
    with RiverPool(1, mp_context=(sys.argv[1:] or [None])[0]) as p:
        try:
            p.map(breaks, [0])
        except ZeroDivisionError as error:
            print(error.__cause__)
    """

    assert "the line to be seen" in run(tmp_path, text, *arguments)


# ------------------------------------------------------------------------------------------ fork bombs


@CONTEXTS
def test_a_module_that_makes_a_pool_when_imported_is_no_fork_bomb(context, tmp_path):
    tools.script(
        tmp_path,
        f"""
import os
from river import RiverPool
with open({str(tmp_path / "imports")!r}, "a") as file:
    print(os.getpid(), file=file)
def seven(x):
    return 7 * x
with RiverPool(2, mp_context={context}) as p:
    results = p.map(seven, [1, 2, 3])
""",
        "eager.py",
    )

    assert tools.python("-c", "import eager; print(eager.results)", cwd=tmp_path) == "[7, 14, 21]\n"
    assert len((tmp_path / "imports").read_text().split()) == 1
    wait_until(lambda: not tools.others(), 3, "the end of all processes")


@CONTEXTS
def test_a_module_that_a_task_imports_may_not_make_a_pool_on_the_way(context, tmp_path):
    """Else each VM would start VMs that start VMs."""
    tools.script(
        tmp_path,
        f"""
from river import RiverPool
pool = RiverPool(2, mp_context={context})
def eight(x):
    return 8 * x
""",
        "bomb.py",
    )
    text = """
    import bomb
    from river import RiverPool
    import sys
    with RiverPool(2, mp_context='spawn') as p:
        try:
            print(p.map(bomb.eight, [1]))
        except Exception as error:
            print(type(error).__name__, "__main__" in str(error))
    bomb.pool.terminate()
    """

    # Either the task works without the import, or its error says what to do; no third generation is born.
    assert run(tmp_path, text) in ("[8]\n", "TransferError True\n")
    wait_until(lambda: not tools.others(), 3, "the end of all processes")


# ------------------------------------------------------------------------- what people know of fork


@CONTEXTS
def test_globals_set_before_the_pool_are_seen_in_tasks(context, tmp_path):
    text = f"""
    import json, os.path, threading
    from river import RiverPool
    settings = {{"scale": 2}}
    table = None
    def load():
        global table
        table = list(range(100, 110))
    def look(i):
        return table[i] * settings["scale"], json.dumps(settings), os.path.join("a", "b")
    load()
    with RiverPool(2, mp_context={context}) as p:
        print(p.map(look, [0, 1]))
        settings = {{"scale": 3}}
        print(p.map(look, [0])[0][0])
    """

    assert run(tmp_path, text) == (
        """[(200, '{"scale": 2}', 'a/b'), (202, '{"scale": 2}', 'a/b')]\n300\n"""
    )


@CONTEXTS
def test_an_initializer_and_the_tasks_share_their_globals(context, tmp_path):
    text = f"""
    from river import RiverPool
    connection, calls = None, 0
    def open_it(name):
        global connection
        connection = "open " + name
    def use(_):
        global calls
        calls += 1
        return connection, calls
    def use_too(_):
        return connection, calls
    with RiverPool(1, open_it, ("db",), mp_context={context}) as p:
        print(p.map(use, range(3), 1), p.apply(use_too, (0,)), p.apply(lambda: connection))
    print(connection, calls)
    """

    assert run(tmp_path, text) == (
        "[('open db', 1), ('open db', 2), ('open db', 3)] ('open db', 3) open db\nNone 0\n"
    )


def test_shared_arrays_locks_and_barriers_are_reached_through_globals(tmp_path):
    text = """
    import multiprocessing
    from river import RiverPool
    numbers = multiprocessing.Array("i", 4)
    total = multiprocessing.Value("d", 0.0)
    lock = multiprocessing.Lock()
    barrier = multiprocessing.Barrier(2)
    done = multiprocessing.Event()
    def work(i):
        barrier.wait(60)  # both VMs must be here
        with lock:
            numbers[i] = i + 10
        with total.get_lock():
            total.value += i
        done.set()
        return i
    with RiverPool(2) as p:
        assert sorted(p.imap_unordered(work, range(4))) == [0, 1, 2, 3]
    print(list(numbers), total.value, done.is_set())
    """

    assert run(tmp_path, text) == "[10, 11, 12, 13] 6.0 True\n"


@CONTEXTS
def test_shared_arrays_and_locks_given_to_the_initializer_work(context, tmp_path):
    """The way that multiprocessing's documentation shows."""
    text = f"""
    import multiprocessing
    from river import RiverPool
    def keep(array, a_lock):
        global shared, lock
        shared, lock = array, a_lock
    def work(i):
        with lock:
            shared[i] += i
    context = multiprocessing.get_context({context})
    array, lock = context.Array("i", 3), context.Lock()
    with RiverPool(2, keep, (array, lock), mp_context={context}) as p:
        p.map(work, [0, 1, 2])
    print(list(array))
    """

    assert run(tmp_path, text) == "[0, 1, 2]\n"


@CONTEXTS
def test_queues_and_proxies_of_a_manager_travel(context, tmp_path):
    text = f"""
    import multiprocessing
    from river import RiverPool
    def tell(pair):
        queue, x = pair
        queue.put(x * 2)
    if __name__ == "__main__":
        with multiprocessing.Manager() as manager, RiverPool(2, mp_context={context}) as p:
            queue, names = manager.Queue(), manager.dict()
            p.map(tell, [(queue, i) for i in range(3)])
            p.apply(names.__setitem__, ("a", 1))
            print(sorted(queue.get() for _ in range(3)), dict(names))
    """

    assert run(tmp_path, text) == "[0, 2, 4] {'a': 1}\n"


def test_random_numbers_differ_between_vms(tmp_path):
    text = """
    import os, random, time
    import numpy
    from river import RiverPool
    random.seed(1)
    numpy.random.seed(1)
    def draw(_):
        time.sleep(0.01)
        return os.getpid(), random.random(), numpy.random.random()
    with RiverPool(2) as p:
        drawn = p.map(draw, range(20), 1)
    print(len({a for _, a, _ in drawn}), len({b for _, _, b in drawn}))
    """

    assert run(tmp_path, text) == "20 20\n"


@pytest.mark.parametrize("context", ["None", "'spawn'", "'forkserver'"])
def test_a_driver_with_20_threads_is_no_trouble(context, tmp_path):
    text = f"""
    import threading
    from river import RiverPool
    end, lock = threading.Event(), threading.Lock()
    def hold_the_lock_now_and_then():
        while not end.wait(0.001):
            with lock:
                print("", end="", flush=True)
    threads = [threading.Thread(target=hold_the_lock_now_and_then) for _ in range(20)]
    for thread in threads:
        thread.start()
    def f(x):
        return x * x
    for _ in range(3):
        with RiverPool(2, mp_context={context}) as p:
            assert p.map(f, range(50)) == [x * x for x in range(50)]
    end.set()
    print("done")
    """

    assert run(tmp_path, text) == "done\n"


# ------------------------------------------------------------------------------------------- classes


@CONTEXTS
def test_results_are_instances_of_the_scripts_own_classes(context, tmp_path):
    text = f"""
    import dataclasses, enum
    from collections import namedtuple
    from river import RiverPool
    @dataclasses.dataclass
    class Item:
        name: str
        parts: list = dataclasses.field(default_factory=list)
    class Color(enum.Enum):
        RED = 1
        BLUE = 2
    Pair = namedtuple("Pair", "a b")
    class Trouble(Exception):
        def __init__(self, code, more):
            super().__init__(code, more)
            self.code = code
    class Base:
        def name(self):
            return "base"
    class Derived(Base):
        def name(self):
            return "derived of " + super().name()
    def make(kind):
        if kind == "trouble":
            raise Trouble(7, "more")
        return {{"item": Item("x", [Item("y")]), "color": Color.BLUE, "pair": Pair(1, 2), "derived": Derived()}}[kind]
    with RiverPool(2, mp_context={context}) as p:
        item, color, pair, derived = p.map(make, ["item", "color", "pair", "derived"])
        print(item == Item("x", [Item("y")]), color is Color.BLUE, pair == Pair(1, 2), type(pair) is Pair)
        print(isinstance(derived, Base), derived.name(), p.apply(Derived.name, (derived,)), p.apply(derived.name))
        print(p.apply(lambda x: (isinstance(x, Item), x.parts), (item,)))
        print(p.apply(lambda c: c is Color.RED, (Color.RED,)))
        try:
            p.apply(make, ("trouble",))
        except Trouble as error:
            print(error.code, error.args)
    """

    assert run(tmp_path, text).splitlines() == [
        "True True True True",
        "True derived of base derived of base derived of base",
        "(True, [Item(name='y', parts=[])])",
        "True",
        "7 (7, 'more')",
    ]


@CONTEXTS
def test_all_kinds_of_callables_work(context, tmp_path):
    text = f"""
    import functools, math, operator
    from river import RiverPool
    class Adder:
        def __init__(self, n):
            self.n = n
        def __call__(self, x):
            return x + self.n
        def method(self, x):
            return x - self.n
        @classmethod
        def of_class(cls, x):
            return cls.__name__, x
        @staticmethod
        def static(x):
            return -x
    def outer(n):
        def inner(x):
            return inner_most(x) + n
        def inner_most(x):
            return 100 if x < 1 else inner_most(x - 1)
        return inner
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)
    @functools.lru_cache
    def cached(x):
        return x * 2
    @functools.wraps(fib)
    def wrapped(x, *, more=1):
        return fib(x) + more
    with RiverPool(2, mp_context={context}) as p:
        for f in (Adder(5), Adder(5).method, Adder.of_class, Adder.static, outer(1), fib, cached, wrapped,
                  functools.partial(pow, 2), math.sqrt, str, "{{}}!".format, operator.itemgetter(slice(0, 1))):
            items = ["ab"] if isinstance(f, operator.itemgetter) else [4, 9]
            assert p.map(f, items) == [f(x) for x in items], f
            assert p.submit(f, items[0]).result() == f(items[0]), f
    print("done")
    """

    assert run(tmp_path, text) == "done\n"


@CONTEXTS
def test_an_object_that_changed_between_two_calls_is_sent_anew(context, tmp_path):
    text = f"""
    import functools
    from river import RiverPool
    class Counter:
        n = 0
        def get(self, _):
            return self.n
        __call__ = get
    c = Counter()
    box = [1]
    part = functools.partial(lambda b, _: b[0], box)
    def closure(_):
        return box[0], limit
    limit = 1
    with RiverPool(1, mp_context={context}) as p:
        def seen():
            return p.apply(c, (0,)), p.map(c.get, [0]), p.apply(part, (0,)), p.apply(closure, (0,))[1]
        first = seen()
        c.n, limit = 2, 5
        box[0] = 7
        print(first, seen())
    """

    assert run(tmp_path, text) == "(0, [0], 1, 1) (2, [2], 7, 5)\n"


# ---------------------------------------------------------------------------------------------- output


@CONTEXTS
def test_what_tasks_print_is_seen_once(context, tmp_path):
    text = f"""
    import sys
    from river import RiverPool
    print("from the driver")  # unflushed when VMs are forked
    def say(x):
        print("task", x)
        sys.stdout.flush()
    with RiverPool(2, mp_context={context}) as p:
        p.map(say, range(3), 1)
    print("at the end")
    """

    assert sorted(run(tmp_path, text).splitlines()) == ["at the end", "from the driver", "task 0", "task 1", "task 2"]


@CONTEXTS
@pytest.mark.parametrize("call", ["p.map(say, range(3), 1)", "p.submit(say, 0)", "p.apply(say, (0,))"])
def test_what_finished_tasks_have_printed_is_not_lost_though_nobody_flushed(call, context, tmp_path):
    """Into a pipe or a file, too, where Python keeps it until there is more; the end of `with` kills VMs."""
    text = f"""
    from river import RiverPool
    def say(x):
        print("task", x)
    with RiverPool(2, mp_context={context}) as p:
        {call}
    """

    assert "task 0" in run(tmp_path, text).splitlines()


@CONTEXTS
def test_exit_functions_and_unflushed_output_of_the_driver_are_not_repeated_in_vms(context, tmp_path):
    text = f"""
    import atexit
    from river import RiverPool
    atexit.register(print, "bye")
    print("hello", end=" ")
    with RiverPool(2, mp_context={context}) as p:
        p.map(abs, range(3))
    p = RiverPool(2, mp_context={context})
    p.map(abs, range(3))
    p.close()
    p.join()
    """

    assert run(tmp_path, text) == "hello bye\n"


def test_import_river_starts_nothing_and_loads_little(tmp_path):
    text = """
    import sys, threading
    before = set(sys.modules)
    import river
    assert threading.active_count() == 1
    heavy = {"numpy", "paramiko", "psutil", "cloudpickle", "asyncio", "tqdm", "multiprocessing"}
    print(sorted(heavy & (set(sys.modules) - before)))
    """

    assert run(tmp_path, text) == "[]\n"


def test_packages_of_river_need_no_import_of_their_own_and_are_loaded_when_they_are_named(tmp_path):
    text = """
    import sys
    import river
    packages = {"mpi", "multiprocessing"}
    print(sorted(name for name in packages if f"river.{name}" in sys.modules), packages <= set(dir(river)))
    print(river.multiprocessing.Queue(3).empty(), river.mpi.run.__module__)
    """

    assert run(tmp_path, text) == "[] True\nTrue river.mpi.job\n"


@pytest.mark.parametrize("flag", ["-O", "-I", "-E", "-Xutf8", "-bb"])
def test_flags_of_the_interpreter_hold_in_fresh_vms_and_harm_nobody(flag, tmp_path):
    from pathlib import Path

    import river

    text = f"""
    import sys
    sys.path.insert(0, {str(Path(river.__file__).parents[1])!r})
    from river import RiverPool
    def told(_):
        return sys.flags.optimize, sys.flags.utf8_mode, sys.flags.bytes_warning
    with RiverPool(1, mp_context="spawn") as p:
        print(p.apply(told, (0,)) == told(0))
    """
    path = tools.script(tmp_path, textwrap.dedent(text))
    done = subprocess.run([sys.executable, flag, path], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("True\n", "")
