"""Programs that say nothing of River, in tests/programs/: run by `river run` they print what they print on the standard
module, here and on two machines.

May not: look into River.
"""

import importlib
import os
import pkgutil
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import sshd
import testbed as beds
from tools import command, script, surroundings

import river.multiprocessing

pytest_plugins = ["testbed.fixture"]

FOLDER = Path(__file__).parent / "programs"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py"))
# What cannot cross to another machine, and what is said when it is tried.
REFUSED = {
    "shareable_list": "there is no shared memory of this name on node",
    "shared_memory_numpy": "No module named 'numpy' on node",  # they have nothing but Python
    "shared_structures": "shared memory cannot be sent to another machine",
}
# What processes on other machines print has their names before it, and comes when it comes.
PREFIX = re.compile(r"\[[\w.-]+/\d+\] ")

HOSTS = """
[hosts.{a}]
config = "{config}"
{more}
[hosts.{b}]
config = "{config}"
{more}
"""


def run(*arguments, seconds=100, **env):
    """Run Python as a user does; returns what it writes to stdout and to stderr.  It must end well."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=FOLDER, env=surroundings(**env), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def on_river(text, directory, *options, **env):
    """What a program writes to stdout when it is run by `river run`."""
    return run(*command("river"), "run", *options, script(directory, textwrap.dedent(text)), **env)[0]


@pytest.fixture(scope="module")
def by_python():
    """What a program prints on the standard module."""
    known = {}

    def printed(program):
        if program not in known:
            known[program] = run(f"{program}.py")
        return known[program]

    return printed


@pytest.fixture(scope="module")
def network(request, tmp_path_factory):
    """Two names, what river.toml says of each, and the client's ssh_config: machines of the testbed or, where there can
    be none, this one twice over SSH."""
    if beds.missing() is None:
        bed = request.getfixturevalue("hosts_of_session")
        yield [node.name for node in bed.nodes(2)], "", bed.config
        return
    with sshd.start(tmp_path_factory.mktemp("sshd")) as server:
        yield ["a", "b"], 'host = "h1"', server.config


@pytest.fixture
def machines(network, request, tmp_path, monkeypatch):
    """Two names for --hosts."""
    if beds.missing() is None:
        request.getfixturevalue("testbed")
    (a, b), more, config = network
    text = HOSTS.format(a=a, b=b, config=config, more=more)
    monkeypatch.setenv("RIVER_CONFIG", str(script(tmp_path, text, "river.toml")))
    return f"{a},{b}"


# --------------------------------------------------------------------------------------------- the same program


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_does_on_river_what_it_does_on_the_standard_module(program, by_python):
    assert run(*command("river"), "run", f"{program}.py") == by_python(program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_on_two_machines_what_it_prints_on_one(program, machines, by_python):
    printed, complaints = run(*command("river"), "run", "--hosts", machines, f"{program}.py")
    is_apart = beds.missing() is None

    if program in REFUSED and is_apart:
        assert REFUSED[program] in complaints
    elif PREFIX.search(printed):
        # Even in the middle of a line: `print` writes the end of one by itself.
        assert sorted(PREFIX.sub("", printed)) == sorted(by_python(program)[0])
    else:
        assert printed == by_python(program)[0]


def example(*options):
    """What the example says of its answer, and of who has found it."""
    path = FOLDER.parents[1] / "examples" / "port.py"
    return run(*command("river"), "run", *options, path)[0].splitlines()


def test_the_example_is_served_by_river_as_it_is():
    first, last = example()

    assert first == "of 9998 numbers these are perfect: [6, 28, 496, 8128]"
    assert "workers of river.multiprocessing on" in last


def test_the_example_is_served_on_two_machines_by_both(machines):
    first, last = example("--hosts", machines)
    names = [socket.gethostname()] if beds.missing() else machines.split(",")

    assert first == "of 9998 numbers these are perfect: [6, 28, 496, 8128]"
    assert last == f"{2 * len(os.sched_getaffinity(0))} workers of river.multiprocessing on {', '.join(names)}"


def test_there_are_at_least_a_dozen_of_them_and_none_says_river():
    assert len(PROGRAMS) >= 12
    for program in PROGRAMS:
        text = (FOLDER / f"{program}.py").read_text()
        assert not re.search(r"import river|from river", text) and re.search(r"multiprocessing|futures", text)


# ------------------------------------------------------------------------------------------- who gets which module

WHO = """
    import concurrent.futures
    import multiprocessing as mp

    def names():
        import multiprocessing.pool
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import Process
        return {multiprocessing.__name__, multiprocessing.pool.__name__, Process.__module__,
                ProcessPoolExecutor.__module__}

    def nested():
        with mp.Pool(1) as pool:
            return pool.apply(names)

    def tell(connection):
        connection.send((names(), nested()))

    if __name__ == "__main__":
        seen = [names()]
        for method in (None, "spawn", "fork"):
            context = mp.get_context(method)
            with context.Pool(1) as pool, concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
                seen += [pool.apply(names), pool.apply(nested), executor.submit(nested).result()]
            ours, theirs = mp.Pipe()
            process = context.Process(target=tell, args=(theirs,))
            process.start()
            seen += ours.recv()
            process.join()
        print(len(seen), sorted(set.union(*seen)))
"""
THEIRS = "['river.multiprocessing', 'river.multiprocessing.pool', 'river.multiprocessing.process']"


def test_the_program_and_all_its_processes_have_rivers_module(tmp_path):
    assert on_river(WHO, tmp_path) == f"16 {THEIRS}\n"


def test_its_processes_on_other_machines_have_it_too(tmp_path, machines):
    assert on_river(WHO, tmp_path, "--hosts", machines) == f"16 {THEIRS}\n"


def test_a_program_may_import_it_in_any_way(tmp_path):
    text = """
        import multiprocessing
        import multiprocessing as mp, multiprocessing.pool as mpp, multiprocessing.dummy.connection
        from multiprocessing import pool, util, Process, current_process
        from multiprocessing.queues import Empty
        from multiprocessing.synchronize import *
        from multiprocessing import *
        print(mp is multiprocessing, mpp is pool is multiprocessing.pool, Process is mp.Process, callable(Lock))
        print(mp.__name__, multiprocessing.util is util, multiprocessing.reduction.__name__)
        try:
            from multiprocessing import nothing
        except ImportError as error:
            print(error)
        try:
            import multiprocessing.nothing
        except ImportError as error:
            print(error)
    """
    *said, last, last_of_all = on_river(text, tmp_path).splitlines()

    assert said == [
        "True True True True",
        "river.multiprocessing True multiprocessing.reduction",
    ]
    assert last.startswith("cannot import name 'nothing' from 'river.multiprocessing'")
    assert last_of_all == "No module named 'river.multiprocessing.nothing'"


def test_what_the_standard_library_imports_is_its_own(tmp_path):
    text = """
        import logging, sys
        from multiprocessing import current_process
        current_process().name = "it"
        logging.basicConfig(stream=sys.stdout, format="%(processName)s %(message)s")
        logging.warning("logs")
        import multiprocessing.reduction
        print(multiprocessing.reduction.context.__name__, sys.modules["multiprocessing.context"].__name__)
    """

    assert on_river(text, tmp_path) == "it logs\nmultiprocessing.context multiprocessing.context\n"


def test_libraries_with_processes_of_their_own_keep_them(tmp_path):
    pytest.importorskip("joblib")
    text = """
        from joblib import Parallel, delayed
        if __name__ == "__main__":
            for backend in ("loky", "multiprocessing", "threading"):
                print(Parallel(n_jobs=2, backend=backend)(delayed(pow)(2, n) for n in range(4)))
    """

    assert on_river(text, tmp_path) == "[1, 2, 4, 8]\n" * 3


def test_a_structure_of_the_script_itself_goes_to_fresh_processes_and_comes_back(tmp_path):
    text = """
        import ctypes, multiprocessing

        class Point(ctypes.Structure):
            _pack_ = 1
            _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_byte)]

        def move(point):
            return Point(point.x + 1, point.y)

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for moved in pool.map(move, [Point(1, 2), Point(3, 4)], chunksize=1):
                print(type(moved) is Point, moved.x, moved.y, ctypes.sizeof(moved))
    """

    assert on_river(text, tmp_path) == "True 2.0 2 9\nTrue 4.0 4 9\n"


def test_a_script_run_by_python_has_the_standard_module(tmp_path):
    path = script(tmp_path, "import multiprocessing, river.multiprocessing\nprint(multiprocessing.__name__)")

    assert run(path) == ("multiprocessing\n", "")


def test_an_import_that_fails_is_shown_as_python_shows_it(tmp_path):
    script(tmp_path, "def f():\n    import inner\nf()", "outer.py")
    script(tmp_path, "import no_such_module", "inner.py")
    path = script(tmp_path, "import outer")
    by_python, by_river = (
        subprocess.run([sys.executable, *how, path], env=surroundings(), capture_output=True, text=True)
        for how in ([], [*command("river"), "run"])
    )

    assert "no_such_module" in by_python.stderr
    assert (by_river.returncode, by_river.stderr) == (by_python.returncode, by_python.stderr)


def test_a_warning_of_a_module_is_of_the_line_that_imports_it(tmp_path):
    script(tmp_path, "import warnings\nwarnings.warn('old', DeprecationWarning, stacklevel=2)", "old.py")
    text = """
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import old
        print(caught[0].filename == __file__)
    """

    assert on_river(text, tmp_path) == "True\n"


# ------------------------------------------------------------------------------------------------- what it costs


def test_a_program_that_asks_for_no_vms_has_none(tmp_path):
    text = "import multiprocessing, os\nprint(multiprocessing.active_children(), os.listdir('/proc/self/task')[1:])"
    printed, complaints = run(*command("river"), script(tmp_path, text))

    assert (printed, complaints) == ("[] []\n", "")


def test_vms_that_only_a_module_of_the_program_asks_for_are_there_and_as_many_as_the_command_says(tmp_path):
    script(tmp_path, "from river import connect\ndef count(): return len(connect())", "helper.py")
    path = script(tmp_path, "import helper\nprint(helper.count())")

    assert run(*command("river"), "-n", "3", path) == ("3\n", "discovered 3 VMs\n")


# ------------------------------------------------------------------------------------------------------- --hosts


def test_cpu_count_is_that_of_all_hosts_and_the_start_method_is_still_free(tmp_path, machines):
    text = """
        import multiprocessing as mp
        print(mp.cpu_count())
        mp.set_start_method("spawn")
        print(mp.cpu_count(), mp.get_context("fork").cpu_count())
    """
    total = 2 * len(os.sched_getaffinity(0))

    assert on_river(text, tmp_path, "--hosts", machines) == f"{total}\n{total} {total}\n"


def test_a_cluster_called_default_in_river_toml_is_where_programs_are(tmp_path, machines):
    a, b = machines.split(",")
    with open(os.environ["RIVER_CONFIG"], "a") as file:
        file.write(f'[clusters.default]\nhosts = ["{a}?n=2", "{b}?n=3"]\n')
    path = script(tmp_path, "import multiprocessing\nprint(multiprocessing.cpu_count())")

    assert run(*command("river"), path)[0] == "5\n"
    assert run(*command("river"), "--hosts", "local", path)[0] == f"{os.cpu_count()}\n"


def test_pools_of_any_size_are_on_as_many_hosts_as_they_have_processes(tmp_path, machines):
    text = """
        import os, multiprocessing as mp, river
        def where(_):
            return river.current().vm.partition("/")[0]
        for size in (1, 2, 5, None):
            with mp.Pool(size) as pool:
                if pool._cluster.machines is not None:
                    pool._cluster.machines.wait_for_all()
                print(size, pool._max_workers, len(pool.machines))
    """
    total = 2 * len(os.sched_getaffinity(0))

    assert on_river(text, tmp_path, "--quiet", "--hosts", machines).splitlines() == [
        "1 1 1", "2 2 2", "5 5 2", f"None {total} 2",
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------- all the names

STANDARD = [f"multiprocessing.{name}" for name in (
    "connection", "context", "dummy", "dummy.connection", "forkserver", "heap", "managers", "pool", "popen_fork",
    "popen_forkserver", "popen_spawn_posix", "process", "queues", "reduction", "resource_sharer", "resource_tracker",
    "shared_memory", "sharedctypes", "spawn", "synchronize", "util",
)]  # fmt: skip


def test_the_table_has_all_submodules_of_the_standard_module():
    found = pkgutil.walk_packages(importlib.import_module("multiprocessing").__path__, "multiprocessing.")

    assert sorted(STANDARD) == sorted(module.name for module in found if "win32" not in module.name)


@pytest.mark.parametrize("name", STANDARD)
def test_each_submodule_is_there_under_rivers_name_with_all_its_names(name):
    standard, rivers = importlib.import_module(name), importlib.import_module(f"river.{name}")

    assert rivers is standard or rivers.__name__ == f"river.{name}"
    assert [public for public in vars(standard) if not public.startswith("__") and not hasattr(rivers, public)] == []
    assert set(getattr(standard, "__all__", ())) <= set(getattr(rivers, "__all__", ()))


def test_the_package_has_all_public_names_of_the_standard_module():
    standard = importlib.import_module("multiprocessing")

    assert set(standard.__all__) <= set(river.multiprocessing.__all__) <= set(dir(river.multiprocessing))
    assert all(hasattr(river.multiprocessing, name) for name in standard.__all__)
