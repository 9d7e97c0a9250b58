"""The program's own modules reach VMs on other machines without being installed there.

The VM is a bare interpreter, started from River's archive, without the installed packages.  The program's folder is
below /proc/self/cwd, which is another one there: what it imports has come over the line.
"""

import importlib.metadata
import importlib.util
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import sshd
import tasks
from tools import python, script

import river
from river import parts, sources
from river._core import bootstrap, calls, homes
from river._core.connection import Connection, pair
from river._core.relay import Poller
from river._core.wire import Kind

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has folders that are another process's own")

HERE = "/proc/self/cwd"

FAR = """
import pickle, socket, sys
sys.path.insert(0, sys.argv[1])
from river._core import vm, worker
from river._core.connection import Connection
with open(sys.argv[2], "rb") as file:
    options = pickle.load(file)
line = Connection(socket.socket(fileno=int(sys.argv[3])))
sys.exit(vm.main(line, bytearray(worker.CELL_SIZE), options, None))
"""


class Far:
    """A driver's end of one VM, without the rest of the driver; what it is asked for is noted in `needs`."""

    def __init__(self, directory, found=None, also=()):
        self.sources = found or sources.Sources()
        self.needs = []
        self._outcomes = {}
        self._numbers = {}
        self._supply = sources.Supply(self.sources, also)
        ours, theirs = pair()
        self._line = Connection(ours)
        self._poller = Poller()
        self._poller.watch(self._line.number)
        archive, options = directory / "archive", directory / "options"
        archive.write_bytes(bootstrap.modules())
        options.write_bytes(pickle.dumps(self._options()))
        number = str(theirs.fileno())
        command = [sys.executable, "-I", "-S", "-c", FAR, str(archive), str(options), number]
        self._process = subprocess.Popen(command, cwd="/", pass_fds=[theirs.fileno()])
        theirs.close()

    def _options(self):
        return {
            "name": "node1/1",
            "host": "node1",
            "is_far": True,
            "facts": {"modules": self._supply.names()},
            "uuid": homes.new_home(),
            "driver": "",
            "env": {},
            "argv": ["program"],
            "is_fresh": True,
            "main_file": getattr(sys.modules["__main__"], "__file__", None),
            "main_package": None,
            "log_level": logging.WARNING,
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._line.close()
        self._poller.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()

    def call(self, name, *args, **more):
        """What the function `module:name` comes to in the VM."""
        return self.result(self.send(name, *args, **more))

    def send(self, name, *args, is_hurried=False):
        """Let the VM call it; returns the task's number."""
        self.sources.look(is_hurried)
        news = self._supply.news()
        if news is not None:
            payload, is_edited = news
            self._line.send(Kind.EDITED, payload)
            if is_edited:
                self._numbers.clear()
        if name not in self._numbers:
            self._numbers[name] = len(self._numbers) + 1
            blob = b"c%s\n%s\n." % tuple(part.encode() for part in name.split(":"))
            self._line.send(Kind.DEFINE, pickle.dumps((self._numbers[name], blob, (), {}, [])))
        number = max(self._outcomes, default=0) + 1
        self._outcomes[number] = None
        call = number, self._numbers[name], calls.APPLY, 1, pickle.dumps(args), ()
        self._line.send(Kind.CALL, pickle.dumps([call]))
        return number

    def result(self, number):
        tasks.wait_until(lambda: self._read() or self._outcomes[number], what="the result")
        _, _, status, value, _, extra = self._outcomes[number]
        if status == calls.VALUE:
            return value
        if status == calls.OK:
            return pickle.loads(value)
        raise FarError(*extra)

    def _read(self):
        self._poller.flush(self._line)
        self._poller.wait(0.1)
        for frame, _ in self._line.receive() or ():
            if frame.kind == Kind.NEED:
                need = pickle.loads(frame.payload)
                self.needs.append(need[1:])
                self._line.send(Kind.SOURCE, self._supply.answer(need))
            elif frame.kind == Kind.RESULT:
                self._outcomes.update({outcome[0]: outcome for outcome in pickle.loads(frame.payload)})


class FarError(Exception):
    """What a task has raised in the VM: its pickle, its name and words, and its traceback."""

    @property
    def error(self):
        return pickle.loads(self.args[0])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes the program's modules: {path: text}."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(f"{HERE}/project")

    def write(files):
        for path, text in files.items():
            file = tmp_path / "project" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        return tmp_path / "project"

    return write


@pytest.fixture
def far(tmp_path, project):
    """Starts a VM; its driver's modules are those that there are by then."""
    with_them = []

    def start(files=None, **more):
        project(files or {})
        with_them.append(Far(tmp_path, **more).__enter__())
        return with_them[-1]

    yield start
    for one in with_them:
        one.__exit__()


PACKAGE = {
    "shop/__init__.py": "from .cart import total",
    "shop/cart.py": """
        from . import prices
        from .deep.tax import add_tax
        def total(things):
            return add_tax(sum(map(prices.of, things)))
        """,
    "shop/prices.py": """
        import shop.cart  # which imports this one
        def of(thing):
            return {"pear": 2, "plum": 3}[thing]
        """,
    "shop/deep/__init__.py": "",
    "shop/deep/tax.py": """
        from ..rates import RATE
        def add_tax(price):
            return price * RATE
        """,
    "shop/rates.py": "RATE = 10",
}


# -- what comes --------------------------------------------------------------------------------------------------


def test_a_package_with_relative_and_circular_imports_comes_in_one_answer(far):
    vm = far(PACKAGE)

    assert vm.call("shop:total", ["pear", "plum"]) == 50
    assert vm.call("shop.deep.tax:add_tax", 1) == 10
    assert vm.needs == [("shop", None)]


def test_a_module_says_that_it_is_the_users_file(far):
    vm = far({"alone.py": "def where():\n    return __file__, __name__, __spec__.origin"})

    assert vm.call("alone:where") == (f"{HERE}/project/alone.py", "alone", f"{HERE}/project/alone.py")


def test_a_traceback_shows_the_lines_of_the_users_source(far):
    vm = far({"faulty.py": "def fail(x):\n    return 1 / x  # this very line"})

    with pytest.raises(FarError, match="this very line") as caught:
        vm.call("faulty:fail", 0)
    assert "_core" not in caught.value.args[2], "River's own frames are left out"


def test_the_programs_own_module_is_taken_though_the_machine_has_another_of_that_name(far, tmp_path):
    vm = far({"cloudpickle_of_mine.py": "", "helpers.py": "def whose(): return 'the program'"})
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "helpers.py").write_text("def whose(): return 'the machine'")
    vm.call("site:addsitedir", str(tmp_path / "there"))

    assert vm.call("helpers:whose") == "the program"


def test_further_modules_of_river_come_from_the_driver(far):
    vm = far({"uses_river.py": "def made():\n    import river.chunks\n    return river.chunks.__name__"})

    assert vm.call("uses_river:made") == "river.chunks"
    assert ("river.chunks", None) in vm.needs


def test_packages_without_a_source_have_their_parts_of_both_machines(far, tmp_path):
    there = tmp_path / "there" / "company"
    there.mkdir(parents=True)
    (there / "installed.py").write_text("NAME = 'installed'")
    vm = far({"company/ours/part.py": "def both():\n    import company.installed as i\n    return i.NAME, __name__"})
    vm.call("site:addsitedir", str(there.parent))

    assert vm.call("company.ours.part:both") == ("installed", "company.ours.part")
    assert vm.needs == [("company", None)]


def test_a_folder_without_modules_hides_nothing_of_its_name(far, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "runs.py").write_text("def where(): return 'there'")
    vm = far({"runs/one.csv": "1", "results/one.csv": "1"})
    vm.call("site:addsitedir", str(tmp_path / "there"))

    assert vm.call("runs:where") == "there"
    with pytest.raises(FarError, match="No module named 'results' on node1"):
        vm.call("results:f")


def test_modules_in_a_zip_file_come_one_by_one(far, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "application.pyz", "w") as archive:
        archive.writestr("zipped/__init__.py", "")
        archive.writestr("zipped/inner.py", "from . import other\ndef value(): return other.VALUE")
        archive.writestr("zipped/other.py", "VALUE = 42")
    monkeypatch.syspath_prepend(f"{HERE}/application.pyz")
    vm = far()

    assert vm.call("zipped.inner:value") == 42
    assert vm.needs == [("zipped", None), ("zipped.inner", None), ("zipped.other", None)]


@pytest.mark.parametrize("limit", ["_MOST_MODULES", "_MOST_BYTES", "_MOST_LOOKED_AT"])
def test_of_a_large_package_comes_what_is_imported(far, monkeypatch, limit):
    monkeypatch.setattr(parts, limit, 2)
    vm = far({"large/__init__.py": "", "large/a.py": "def f(): return 1", "large/b.py": "", "large/c.py": ""})

    assert vm.call("large.a:f") == 1
    assert vm.needs == [("large", None), ("large.a", None)]


def test_a_module_that_was_loaded_in_a_way_of_its_own_comes_as_well(far, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("def value(): return 'from elsewhere'")
    spec = importlib.util.spec_from_file_location("editable", f"{HERE}/elsewhere.py")
    monkeypatch.setitem(sys.modules, "editable", importlib.util.module_from_spec(spec))
    vm = far()

    assert vm.call("editable:value") == "from elsewhere"


def test_data_of_a_package_is_read_from_the_driver(far):
    reader = """
        import importlib.resources, pkgutil
        def read():
            folder = importlib.resources.files("with_data")
            return (
                pkgutil.get_data("with_data", "table.csv"),
                folder.joinpath("deep", "more.txt").read_text(encoding="utf-8"),
                sorted(item.name for item in folder.iterdir() if item.is_file() and item.name.endswith("csv")),
                (folder / "nothing").is_file(),
                importlib.resources.read_text("with_data", "table.csv"),
            )
        def missing():
            return pkgutil.get_data("with_data", "../secret")
        """
    vm = far({"with_data/__init__.py": reader, "with_data/table.csv": "1,2", "with_data/deep/more.txt": "more"})

    assert vm.call("with_data:read") == (b"1,2", "more", ["table.csv"], False, "1,2")
    with pytest.raises(FarError, match="FileNotFoundError"):
        vm.call("with_data:missing")


def test_a_thread_of_a_task_may_import_too(far):
    code = """
        import threading
        def in_threads():
            names = []
            def load(name):
                names.append(__import__(name).NAME)
            threads = [threading.Thread(target=load, args=(name,)) for name in ("one", "two", "three")]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            return sorted(names)
        """
    vm = far({"threaded.py": code, **{f"{name}.py": f"NAME = {name!r}" for name in ("one", "two", "three")}})

    assert vm.call("threaded:in_threads") == ["one", "three", "two"]


def test_a_child_that_a_task_has_forked_is_told_instead_of_waiting_for_ever(far):
    code = """
        import os
        def fork():
            reading, writing = os.pipe()
            if os.fork() == 0:
                try:
                    import late
                except ImportError as error:
                    os.write(writing, str(error).encode())
                os._exit(0)
            os.close(writing)
            os.wait()
            with open(reading) as file:
                return file.read()
        """
    vm = far({"forking.py": code, "late.py": ""})

    assert "import it before" in vm.call("forking:fork")


# -- what does not -----------------------------------------------------------------------------------------------


def test_what_is_installed_here_and_missing_there_is_named_with_its_machine_and_version(far):
    vm = far({"uses.py": "def psutil():\n    import psutil"})

    with pytest.raises(FarError) as caught:
        vm.call("uses:psutil")
    error = caught.value.error
    assert type(error) is ModuleNotFoundError and error.name == "psutil"
    assert str(error) == (
        f"No module named 'psutil' on node1 ({sys.executable}): install it there, or choose a Python that has it with "
        f"python= or venv= (the driver has psutil {importlib.metadata.version('psutil')})"
    )
    assert "on node1" in caught.value.args[2]


def test_so_it_is_while_a_task_is_unpickled_and_when_it_was_the_cause(far):
    code = """
        def f():
            try:
                import psutil
            except ImportError as error:
                raise KeyError from error
        """
    vm = far({"wrapping.py": code})

    with pytest.raises(FarError, match="'psutil' on node1"):
        vm.call("psutil:cpu_count")
    with pytest.raises(FarError, match="KeyError") as caught:
        vm.call("wrapping:f")
    assert "'psutil' on node1" in caught.value.args[2]


def test_a_module_that_is_optional_and_missing_on_both_costs_no_round_trip(far):
    code = "def f():\n    try:\n        import no_such_thing\n    except ImportError:\n        return 'without'"
    vm = far({"optional.py": code})

    assert vm.call("optional:f") == "without"
    assert vm.needs == [("optional", None)]


def test_a_finder_of_somebody_elses_that_fails_in_the_driver_is_an_error_of_that_import_only(far, monkeypatch):
    class Broken:
        def find_spec(self, name):
            raise OSError("the network drive is away")

    vm = far({"fine.py": "def f(): return 'fine'", "fails/a.py": ""})
    monkeypatch.setitem(sys.path_importer_cache, "/nowhere/broken", Broken())
    monkeypatch.setattr(sys, "path", ["/nowhere/broken", *sys.path])

    with pytest.raises(FarError, match=r"No module named 'fails' on node1 .*the network drive is away"):
        vm.call("fails:f")
    monkeypatch.setattr(sys, "path", sys.path[1:])
    assert vm.call("fine:f") == "fine"


def test_what_is_missing_in_the_program_itself_is_not_to_be_installed(far):
    vm = far(PACKAGE)

    with pytest.raises(FarError, match="^'?.*No module named 'shop.typo'") as caught:
        vm.call("shop.typo:f")
    assert "install" not in caught.value.args[1]
    assert vm.needs == [("shop", None)]


def test_a_compiled_module_of_the_program_has_to_be_installed(far):
    both = {"fast/_slow.py": "def f(): return 'slow'", "fast/_slow.abi3.so": ""}
    vm = far({"fast/__init__.py": "", "fast/_speed.abi3.so": "no ELF", **both})

    with pytest.raises(FarError, match=r"'fast._speed' of the driver .*_speed.abi3.so\) is compiled: install .* node1"):
        vm.call("fast._speed:f")
    assert vm.call("fast._slow:f") == "slow", "where the source is there as well, it serves"


def test_installed_packages_are_sent_only_where_the_user_says_so(far):
    names = sources.Sources().names()
    vm = far(also=["tqdm"])

    assert names.isdisjoint({"psutil", "tqdm", "json", "river", "cloudpickle"})
    assert vm.call("tqdm.utils:disp_len", "four") == 4


# -- what is edited ----------------------------------------------------------------------------------------------


def test_a_module_that_was_edited_is_new_for_the_next_call_and_so_is_what_imports_it(far, project):
    vm = far({**PACKAGE, "front.py": "from shop import total\nfrom shop.rates import RATE\ndef rate(): return RATE"})
    before = vm.call("front:rate"), vm.call("front:total", ["pear"])
    project({"shop/rates.py": "RATE = 20"})  # as long as before, perhaps in the same tick of the clock

    assert before == (10, 20)
    assert (vm.call("front:rate"), vm.call("front:total", ["pear"])) == (20, 40)


def test_edits_that_follow_each_other_at_once_are_all_seen(far, project):
    vm = far({"often.py": "def value(): return 100"})
    seen = []
    for value in range(100, 120):
        project({"often.py": f"def value(): return {value}"})
        seen.append(vm.call("often:value"))

    assert seen == list(range(100, 120))


def test_an_edit_is_seen_that_leaves_a_files_size_and_time_as_they_were(far, project):
    vm = far({"quick.py": "def value(): return 1"})
    file = project({}) / "quick.py"
    time = file.stat().st_mtime_ns
    values = [vm.call("quick:value")]
    file.write_text("def value(): return 2")
    os.utime(file, ns=(time, time))  # as if the clock had not ticked between the two
    values.append(vm.call("quick:value"))

    assert values == [1, 2]


def test_modules_that_are_added_to_a_package_or_to_the_program_are_found(far, project):
    vm = far(PACKAGE)
    vm.call("shop:total", [])
    project({"shop/added.py": "def f(): return 'added'", "new.py": "def f(): return 'new'"})

    assert (vm.call("shop.added:f"), vm.call("new:f")) == ("added", "new")


def test_nothing_is_loaded_again_when_nothing_was_edited(far, project):
    vm = far({"counting.py": "calls = []\ndef count():\n    calls.append(1)\n    return len(calls)", "a.py": "A = 1"})
    counts = [vm.call("counting:count")]
    project({"a.py": "A = 2", "b.py": "B = 1"})  # which were never sent
    os.utime(project({}) / "counting.py", (1, 1))  # another time, but no other text
    counts.append(vm.call("counting:count"))

    assert counts == [1, 2]
    assert vm.needs == [("counting", None)]


def test_tasks_that_were_sent_before_an_edit_keep_their_modules_to_the_end(far, project, tmp_path):
    code = """
        import tasks_of_mine
        def slow(path):
            tasks_of_mine.Gate(path)(0)
            import late
            return late.value(), VALUE
        def quick(thing):
            return isinstance(thing, Thing), VALUE
        class Thing: pass
        """
    gate = tasks.Gate(tmp_path / "gate")
    first = {"kept.py": textwrap.dedent(code) + "VALUE = 1", "late.py": "def value(): return 1"}
    vm = far({**first, "tasks_of_mine.py": Path(tasks.__file__).read_text()})
    slow = vm.send("kept:slow", str(tmp_path / "gate"))
    queued = vm.send("kept:quick", None)
    tasks.wait_until(lambda: vm._read() or gate.arrived())
    project({"kept.py": textwrap.dedent(code) + "VALUE = 2"})
    new = vm.send("kept:quick", None)
    gate.open()

    assert vm.result(slow) == (1, 1)
    assert vm.result(queued) == (False, 1)
    assert vm.result(new) == (False, 2)


def test_an_edit_is_seen_by_who_is_in_a_hurry_within_a_moment(far, project, monkeypatch):
    vm = far({"hurried.py": "def value(): return 1"})
    vm.call("hurried:value")
    project({"hurried.py": "def value(): return 2"})

    tasks.wait_until(lambda: vm.call("hurried:value", is_hurried=True) == 2)


def test_a_module_that_was_deleted_is_missed(far, project):
    vm = far({"brief.py": "def f(): return 1"})
    vm.call("brief:f")
    (project({}) / "brief.py").unlink()

    with pytest.raises(FarError, match="No module named 'brief'"):
        vm.call("brief:f")


# -- over SSH ----------------------------------------------------------------------------------------------------

BEGIN = """
import os, sys, river
from river.hosts import Host

host = Host("h1", config=sys.argv[1], python=sys.argv[2], n=1, direct=False)
"""


@pytest.fixture
def program(tmp_path, project, monkeypatch):
    """Runs a program beside the project's modules, whose machine is a bare Python behind sshd; returns its lines."""
    monkeypatch.undo()
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with sshd.Sshd(tmp_path / "sshd") as server:

        def run(text, files, *how):
            folder = project(files)
            script(folder, BEGIN + textwrap.dedent(text), "program.py")
            (folder / "lib").symlink_to(Path(river.__file__).parents[1])  # River itself is not there either
            how = how or [f"{HERE}/program.py"]
            return python(*how, server.config, bare, cwd=folder, PYTHONPATH=f"{HERE}/lib").splitlines()

        yield run


@sshd.needs_sshd
def test_a_program_has_its_modules_on_the_machines_also_after_an_edit_between_two_maps(program):
    text = """
        import shop
        with river.RiverPool(hosts=[host]) as pool:
            print(pool.map(shop.total, [["pear"], ["plum"]]))
            print(pool.map(lambda thing: shop.total([thing]), ["pear", "plum"]))
            with open("shop/rates.py", "w") as file:
                file.write("RATE = 20")
            print(pool.map(shop.total, [["pear"], ["plum"]]))
            print(pool.submit(lambda: shop.rates.RATE).result())
            with open("shop/rates.py", "w") as file:
                file.write("RATE = 30")
            print(pool.submit(lambda: shop.rates.RATE).result())
        """
    assert program(text, PACKAGE) == ["[20, 30]", "[20, 30]", "[40, 60]", "20", "30"]


@sshd.needs_sshd
def test_a_class_of_the_program_itself_is_derived_anew_from_one_that_was_edited(program):
    text = """
        import shop.base
        class Mine(shop.base.Base):
            def both(self):
                return self.name(), type(self).mro()[1] is shop.base.Base
        mine = Mine()
        with river.RiverPool(hosts=[host]) as pool:
            print(*pool.map(lambda _: (Mine().both(), mine.both()), [0]))
            with open("shop/base.py", "w") as file:
                file.write("class Base:\\n    def name(self): return 'new'")
            print(*pool.map(lambda _: (Mine().both(), mine.both()), [0]))
        """
    files = {"shop/__init__.py": "", "shop/base.py": "class Base:\n    def name(self): return 'old'"}
    assert program(text, files) == ["(('old', True), ('old', True))", "(('new', True), ('new', True))"]


@sshd.needs_sshd
def test_a_program_that_is_a_module_of_a_package_may_import_relatively(program):
    text = """
        def rate(_):
            from .rates import RATE
            return RATE
        with river.RiverPool(hosts=[host]) as pool:
            print(pool.map(rate, range(2)))
        """
    files = {**PACKAGE, "shop/__main__.py": BEGIN + textwrap.dedent(text)}
    assert program("", files, "-m", "shop") == ["[10, 10]"]


@sshd.needs_sshd
def test_what_is_missing_is_told_with_the_machine_and_the_line_of_the_program(program):
    text = """
        import traceback
        def f():
            import psutil  # this line
        with river.RiverPool(hosts=[host]) as pool:
            try:
                pool.submit(f).result()
            except ModuleNotFoundError as error:
                print(error.name, error)
                print("this line" in "".join(traceback.format_exception(error)))
        """
    first, second = program(text, {})
    assert first.startswith("psutil No module named 'psutil' on h1 (")
    assert second == "True"


@sshd.needs_sshd
def test_an_initializer_may_be_of_the_programs_modules(program):
    text = """
        import shop, shop.setting
        with river.RiverPool(initializer=shop.setting.set, initargs=(3,), hosts=[host]) as pool:
            print(pool.map(shop.setting.get, range(2)))
        """
    setting = "value = 0\ndef set(x):\n    global value\n    value = x\ndef get(_):\n    return value"
    assert program(text, {**PACKAGE, "shop/setting.py": setting}) == ["[3, 3]"]


@sshd.needs_sshd
def test_a_task_may_have_a_pool_of_its_own_whose_vms_have_the_programs_modules_too(program):
    text = """
        import shop
        def nested():
            with river.RiverPool(2) as pool:
                return pool.map(shop.total, [["pear"], ["plum"]]), pool.submit(lambda: shop.total([])).result()
        with river.RiverPool(hosts=[host]) as pool:
            print(pool.submit(nested).result())
        """
    assert program(text, PACKAGE) == ["([20, 30], 0)"]
