"""The commands `river` and `trickle`, as a user meets them: a script runs as with `python script.py`, with VMs at hand.

Each runs in a process of its own, with warnings as errors; `served` gives each test a key and a runtime directory.
"""

import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from served import own_home  # noqa: F401
from tasks import wait_until
from tools import Terminal, command, others, script, surroundings

import river


def run(*arguments, name="river", code=0, cwd=None, input=None, **env):
    """Run the command; returns what it writes to stdout and to stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command(name), *map(str, arguments)],
        stdin=subprocess.DEVNULL if input is None else None, input=input,
        capture_output=True, text=True, cwd=cwd, env=surroundings(**env), timeout=100,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def write(directory, text, name="script.py"):
    return script(directory, textwrap.dedent(text), name)


@pytest.fixture
def said(tmp_path):
    """What a script says to stdout and to stderr when it is run quietly with 2 VMs."""

    def run_script(text, *arguments, vms=2, **options):
        return run("--quiet", "-n", vms, write(tmp_path, text), *arguments, **options)

    return run_script


# ------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize("name", ["river", "trickle"])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_the_usage(name, option):
    printed, complaints = run(option, name=name)

    assert printed.startswith(f"usage: {name} [-n N] [--hosts A,B | --lan] [--quiet] script.py") and complaints == ""


def test_the_version_is_told():
    assert run("--version") == (f"river {river.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "which script?"),
        (["run"], "which script?"),
        (["-n", "2"], "which script?"),
        (["--cores", "4", "script.py"], "there is no option --cores"),
        (["-n"], "-n takes a number of VMs, not ''"),
        (["-n", "0", "script.py"], "-n takes a number of VMs, not '0'"),
        (["-n", "-2", "script.py"], "-n takes a number of VMs, not '-2'"),
        (["-nfour", "script.py"], "-n takes a number of VMs, not 'four'"),
        (["-n", "\N{SUPERSCRIPT TWO}", "script.py"], "-n takes a number of VMs, not '\N{SUPERSCRIPT TWO}'"),
        (["-m"], "-m needs the name of a module"),
    ],
)
def test_misuse_is_told_with_the_usage(arguments, complaint):
    printed, complaints = run(*arguments, code=2)

    assert printed == "" and complaints.startswith(f"river: {complaint}\nusage: river ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing.py"], "No such file or directory"),
        (["."], "Is a directory"),
        (["-m", "no_such_module"], "No module named no_such_module"),
    ],
)
def test_what_cannot_be_run_is_named_with_the_reason(arguments, reason, tmp_path):
    assert run(*arguments, code=2, cwd=tmp_path) == ("", f"river: {arguments[-1]} cannot be run: {reason}\n")


def test_a_syntax_error_is_shown_as_python_shows_it(tmp_path):
    path = write(tmp_path, "x = (\n")
    by_python = subprocess.run([sys.executable, path], capture_output=True, text=True)

    assert run(path, code=1) == ("", by_python.stderr)


@pytest.mark.parametrize(
    ("options", "count"),
    [(["-n", "3"], "3 VMs"), (["-n3"], "3 VMs"), (["-n", "1"], "1 VM"), (["run", "-n", "2"], "2 VMs")],
)
def test_so_many_vms_are_started_as_asked_for(options, count, tmp_path):
    path = write(tmp_path, "print(len(connect()))")

    assert run(*options, path) == (f"{count.split()[0]}\n", f"discovered {count}\n")


def test_without_n_there_is_one_vm_for_each_usable_core(tmp_path):
    assert run("--quiet", write(tmp_path, "print(len(connect()))"))[0] == f"{river.cpu_count()}\n"


ATTRIBUTES = """
    import sqlite3
    sqlite3.connect(":memory:").close()

    class A:
        river = vr = trickle = 1

    river = vr = trickle = A.river + A.vr + A.trickle
    print(river, vr, trickle)
"""
ITS_OWN = """
    from sqlite3 import connect
    connect(":memory:").close()

    def use():
        from sqlite3 import connect
        return [connect(":memory:").close() for _ in "a"]
    use()
"""
OURS = [
    "print('first'); connect()",
    "print('first')\ndef use(): connect()\nuse()",
    "print('first')\ndef use():\n    from river import connect\n    connect()\nuse()",
    "import river.trickle as words; print('first'); words.connect()",
]


@pytest.mark.parametrize("text", [ATTRIBUTES, ITS_OWN])
def test_names_and_attributes_of_other_things_start_no_vms(text, tmp_path):
    assert run("-n1", write(tmp_path, text))[1] == ""


@pytest.mark.parametrize("text", OURS)
def test_a_script_that_says_connect_or_imports_river_has_vms_before_it_begins(text, tmp_path):
    with Terminal("-W", "error", *command("river"), "-n1", write(tmp_path, text)) as terminal:
        assert terminal.end() == 0
        assert terminal.said == "discovered 1 VM\nfirst\n"


@pytest.mark.parametrize("name", ["river", "trickle"])
def test_a_script_that_asks_for_vms_on_the_network_is_run_with_lan(name, tmp_path):
    path = write(tmp_path, "print(len(connect(1, lan=True)))")

    assert run("--lan", "-q", "-n1", path, name=name)[0] == "1\n"  # others on this network may be complained of
    _, complaints = run("-q", "-n1", path, name=name, code=1)
    assert "or run it by `river --lan`, or disconnect() before" in complaints


def test_a_script_may_be_called_like_a_command(tmp_path):
    write(tmp_path, "print('a script')", "status")

    assert run("run", "--quiet", "-n1", "status", cwd=tmp_path) == ("a script\n", "")


# ------------------------------------------------------------------------------- as under `python script.py`

FACTS = """
    import sys
    import neighbour
    print(sys.argv, sys.path[0], __file__, __name__, __package__, __spec__ and __spec__.name, neighbour.__file__)
    print(__import__("__main__").__dict__ is globals(), sys.stdin.read())
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a script, a module beside it, a package, and links to the script and to the folder."""
    (tmp_path / "there" / "package").mkdir(parents=True)
    write(tmp_path / "there", FACTS)
    write(tmp_path / "there", "", "neighbour.py")
    write(tmp_path / "there" / "package", "", "__init__.py")
    write(tmp_path / "there" / "package", FACTS, "__main__.py")
    (tmp_path / "link.py").symlink_to("there/script.py")
    (tmp_path / "folder").symlink_to("there")
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "arguments"),
    [
        (".", ["there/script.py"]),
        (".", ["there/script.py", "--quiet", "-n", "7", "-m", "--"]),
        ("there", ["script.py", "x"]),
        ("there", ["./script.py", "x"]),
        (".", ["link.py"]),
        (".", ["folder/script.py"]),
        ("there", ["-m", "package", "-x", "--help"]),
        ("there", ["-m", "script", "y"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_script_finds_its_arguments_its_file_and_its_neighbours_as_under_python(folder, arguments, project):
    by_python = subprocess.run(
        [sys.executable, *arguments],
        cwd=project / folder, env=surroundings(), input="typed in", capture_output=True, text=True, check=True,
    )

    by_river = run("-q", "-n1", *arguments, cwd=project / folder, input="typed in")

    assert by_river == (by_python.stdout, "")


def test_where_python_keeps_the_scripts_folder_out_of_the_path_so_does_river(project):
    if sys.version_info < (3, 11):
        pytest.skip("PYTHONSAFEPATH is new in Python 3.11")
    _, complaints = run("-q", "-n1", "there/script.py", cwd=project, code=1, PYTHONSAFEPATH="1")

    assert "No module named 'neighbour'" in complaints


@pytest.mark.parametrize(
    ("text", "code", "printed", "complaints"),
    [
        ("import sys; sys.exit(3)", 3, "", ""),
        ("import sys; sys.exit('no luck')", 1, "", "no luck\n"),
        ("import sys; sys.exit()", 0, "", ""),
        ("import sys; sys.exit(True)", 1, "", ""),
        ("raise SystemExit", 0, "", ""),
        ("import atexit; atexit.register(print, 'later'); print('now')", 0, "now\nlater\n", ""),
        ("import os; os._exit(7)", 7, "", ""),
    ],
)
def test_a_script_ends_as_under_python(text, code, printed, complaints, said):
    assert said(text, code=code) == (printed, complaints)


FAILING = """
    def fail():
        raise KeyError("nothing")

    try:
        fail()
    except KeyError:
        fail()
"""


@pytest.mark.parametrize("arguments", [["script.py"], ["-m", "script"]], ids=" ".join)
def test_a_traceback_has_the_scripts_frames_only(arguments, tmp_path):
    path = write(tmp_path, FAILING)
    by_python = subprocess.run([sys.executable, path], capture_output=True, text=True)

    assert run("-q", "-n1", *arguments, code=1, cwd=tmp_path) == ("", by_python.stderr)


def test_an_error_in_the_program_that_a_script_defines_has_the_scripts_frames_only(said):
    text = """
    from vr import VirtualResource

    class Program(VirtualResource):
        def main(self):
            1 / 0
    """
    _, complaints = said(text, code=1)

    assert complaints.count("File") == 1 and "in main" in complaints and "ZeroDivisionError" in complaints


def test_a_hook_for_exceptions_is_called(said):
    text = """
    import sys
    sys.excepthook = lambda kind, error, trace: print(kind.__name__, error, trace.tb_frame.f_code.co_name)
    1 / 0
    """
    assert said(text, code=1) == ("ZeroDivisionError division by zero <module>\n", "")


# ------------------------------------------------------------------------------------------------- in VMs


START_AGAIN = """
import threading
disconnect()  # and with two threads there is no fork: the next VMs are fresh interpreters
threading.Thread(target=threading.main_thread().join).start()
"""


@pytest.fixture(params=["forked", "fresh"])
def start(request):
    """What a script begins with, to have VMs that are forked from it, or fresh ones."""
    return "" if request.param == "forked" else START_AGAIN


def test_vms_are_started_in_the_way_that_these_tests_say(start, said):
    text = "import sys; print(forkjoin(connect(2), lambda _: 'river.cli' in sys.modules, range(2)))"

    assert said(f"{start}\n{text}") == (f"{[not start] * 2}\n", "")


def test_functions_and_classes_of_the_script_work_in_vms(start, said):
    text = start + textwrap.dedent("""
    class Point:
        def __init__(self, x):
            self.x = x

    factor = 10

    def moved(point):
        return Point(point.x * factor), isinstance(point, Point), __name__

    vms = connect(2)
    point, was_one, name = join(fork(vms[0], moved, Point(7)))
    print(isinstance(point, Point), point.x, was_one, name)
    print(forkjoin(vms, lambda point: point.x + factor, [Point(1), Point(2)]))
    inject(vms, Point)
    print(vms[1].Point(3).x())
    """)
    assert said(text) == ("True 70 True __main__\n[11, 12]\n3\n", "")


def test_vr_can_be_imported_in_vms_and_is_one_class(start, said):
    text = start + textwrap.dedent("""
    from vr import VirtualResource

    def check(_):
        import vr
        from river import VirtualResource as same
        return vr.VirtualResource is same is VirtualResource

    print(forkjoin(connect(2), check, range(2)))
    """)
    assert said(text) == ("[True, True]\n", "")


def test_a_module_of_the_users_called_vr_is_theirs(said, tmp_path):
    write(tmp_path, "name = 'virtual reality'", "vr.py")

    assert said("import vr; print(vr.name)") == ("virtual reality\n", "")


def test_arguments_and_file_of_the_script_are_known_in_vms(start, said, tmp_path):
    text = start + textwrap.dedent("""
    import sys
    print(forkjoin(connect(1), lambda _: (sys.argv[1:], __file__), [0]))
    """)
    assert said(text, "a", "-n") == (f"[(['a', '-n'], {str(tmp_path / 'script.py')!r})]\n", "")


# ---------------------------------------------------------------------------- the program that a script defines


HELLO = """
    from {module} import VirtualResource

    class Hello(VirtualResource):
        def vr_init(self):
            self.deploy(self.allocate(self.discover()), module=self.__module__)
            return {begins}

        def main(self):
            if self.parent is None:
                print(sum(self.recv().number for _ in self.children))
            else:
                print("here is one")
                self.send(dest=self.parent, number=len(self.discover()))
"""
RUN_ITSELF = """
    import river

    if __name__ == "__main__":
        river.run(Hello, n=2)
"""


def test_the_virtual_resource_that_a_script_defines_is_run(said):
    printed, complaints = said(HELLO.format(module="vr", begins=True))

    assert sorted(printed.splitlines()) == ["4", "here is one", "here is one"] and complaints == ""


def test_a_program_that_runs_itself_is_not_run_twice_and_runs_under_python_as_well(said, tmp_path):
    text = HELLO.format(module="river", begins=True) + RUN_ITSELF
    path = write(tmp_path, text)
    by_python = subprocess.run([sys.executable, path], capture_output=True, text=True, env=surroundings())

    for printed, complaints in said(text), (by_python.stdout, by_python.stderr):
        assert sorted(printed.splitlines()) == ["4", "here is one", "here is one"] and complaints == ""


def test_when_vr_init_says_no_main_is_not_run(said):
    printed, complaints = said(HELLO.format(module="vr", begins=False))

    assert printed == "here is one\n" * 2 and complaints == ""


SEVERAL = {
    "two without vr_init": ("class A(VirtualResource): pass\nclass B(VirtualResource): pass", None),
    "two with vr_init": (
        "class A(VirtualResource):\n  def vr_init(self): pass\nclass B(A): pass\nclass C(A): pass",
        None,
    ),
    "one with vr_init": (
        "class A(VirtualResource):\n  def main(self): pass\n"
        "class B(VirtualResource):\n  def vr_init(self): return True\n  def main(self): print('B')",
        "B",
    ),
    "a class and its base": (
        "class A(VirtualResource):\n  def vr_init(self): return True\nclass B(A):\n  def main(self): print('B')",
        "B",
    ),
    "one with two names": ("class A(VirtualResource):\n  def main(self): print('A')\nB = A", "A"),
    "one that is imported": ("from elsewhere import A", ""),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_which_class_is_the_program_is_clear_or_asked_for(case, said, tmp_path):
    write(tmp_path, "from river import VirtualResource\nclass A(VirtualResource): pass", "elsewhere.py")
    text, printed = SEVERAL[case]
    text = f"from vr import VirtualResource\n{text}"

    if printed is not None:
        assert said(text) == (f"{printed}\n" * bool(printed), "")
    else:
        _, complaints = said(text, code=1)
        assert complaints.startswith("LookupError: which one is the program, of ")
        assert complaints.endswith("? Give vr_init() to one of them, or call river.run(...) yourself\n")


AFTERMATH = """
    import sys, time
    from vr import VirtualResource

    class Program(VirtualResource):
        def vr_init(self):
            return self.deploy(self.discover(), module=self.__module__)

        def main(self):
            if self.parent is None:
                for child in self.children:
                    self.send(dest=child, tag="go")
            else:
                self.recv(tag="go")
                self.afterwards()

        def afterwards(self):
            {afterwards}
"""


@pytest.mark.parametrize(
    ("afterwards", "complaint"),
    [
        ("pass", ""),
        ("time.sleep(0.05); print('last words')", ""),
        ("sys.exit()", ""),
        ("self.recv()", "river: main has returned; 2 VRs that still ran came to an end with it\n"),
        ("time.sleep(1000)", "river: main has returned; 2 VRs that still ran came to an end with it\n"),
    ],
)
def test_vrs_that_outlive_the_program_are_ended_and_told_of(afterwards, complaint, said):
    printed, complaints = said(AFTERMATH.format(afterwards=afterwards))

    assert complaints == complaint
    assert printed == "last words\n" * (2 * ("print" in afterwards))


@pytest.mark.parametrize(
    ("afterwards", "complaint"),
    [
        ("raise KeyError('unheard')", "KeyError: 'unheard'"),
        ("sys.exit('no luck')", "no luck"),
        ("import os; os.kill(os.getpid(), 9)", "is gone with its VM, which has died"),
    ],
)
def test_an_end_of_a_vr_that_the_program_has_not_heard_of_fails_it(afterwards, complaint, said):
    _, complaints = said(AFTERMATH.format(afterwards=afterwards), vms=1, code=1)

    assert complaint in complaints.splitlines()[-1]
    assert "river/" not in complaints


# ------------------------------------------------------------------------------------------------- the end


ENDLESS = """
    import time
    from pathlib import Path

    def begun(path, number):
        Path(path, str(number)).touch()
        time.sleep(1000)

    handles = [fork(vm, begun, {path!r}, number) for number, vm in enumerate(connect())]
    {wait}
"""


def test_ctrl_c_ends_the_script_and_its_vms(tmp_path):
    path = write(tmp_path, ENDLESS.format(path=str(tmp_path), wait="joinall(handles)"))
    with Terminal("-W", "error", *command("river"), "-n", "2", path) as terminal:
        terminal.expect("discovered 2 VMs")
        wait_until(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists(), what="the work")
        terminal.press_ctrl_c()

        assert terminal.end() == 130
        assert terminal.said.count("Traceback") == 1 and terminal.said.endswith("KeyboardInterrupt\n")
        assert "river/cli.py" not in terminal.said
        wait_until(lambda: others() == [], what="the end of all processes")


def test_ctrl_c_while_virtual_resources_run_ends_them(tmp_path):
    text = """
    import time
    from vr import VirtualResource

    class Program(VirtualResource):
        def vr_init(self):
            return self.deploy(self.discover(), module=self.__module__)

        def main(self):
            if self.parent is None:
                print("all are there", flush=True)
                self.recv()
            else:
                time.sleep(1000)
    """
    with Terminal("-W", "error", *command("river"), "-n", "2", write(tmp_path, text)) as terminal:
        terminal.expect("all are there")
        terminal.press_ctrl_c()

        assert terminal.end() == 130
        assert terminal.said.endswith("KeyboardInterrupt\n") and "main has returned" not in terminal.said
        wait_until(lambda: others() == [], what="the end of all processes")


THREADS = """
    import threading
    from concurrent.futures import ThreadPoolExecutor
    from river import RiverPool

    vms, pool, idle = connect(2), {pool}, ThreadPoolExecutor(1)

    def work():
        threading.main_thread().join()
        {work}

    idle.submit(threading.Thread(target=work).start).result()
    {end}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("import sys; sys.exit(3)", 3), ("1 / 0", 1)])
def test_vms_are_there_until_the_scripts_own_threads_have_ended(end, code, said):
    work = "print(forkjoin(vms, abs, [-1, -2]), pool.submit(abs, -3).result())"

    assert said(THREADS.format(pool="RiverPool(1)", work=work, end=end), code=code)[0] == "[1, 2] 3\n"


def is_asleep(pid):
    """Whether no thread of this process has anything to do."""
    stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "S" for stat in stats)


def test_ctrl_c_while_the_scripts_own_threads_run_ends_it(tmp_path):
    work = "print('at work', flush=True); threading.Event().wait()"
    path = write(tmp_path, THREADS.format(pool=None, work=work, end=""))
    with Terminal("-W", "error", *command("river"), "-q", "-n", "2", path) as terminal:
        terminal.expect("at work")
        wait_until(lambda: is_asleep(terminal.pid), what="it to wait")  # before, Python may miss the signal
        terminal.press_ctrl_c()

        assert terminal.end() == (130 if sys.version_info < (3, 13) else 0)  # 3.13 tells of it, but not the program
        assert terminal.said.count("KeyboardInterrupt") == 1
        wait_until(lambda: others() == [], what="the end of all processes")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_killed_leaves_no_process(number, tmp_path):
    path = write(tmp_path, ENDLESS.format(path=str(tmp_path), wait="joinall(handles)"))
    with subprocess.Popen([sys.executable, *command("river"), "-q", "-n2", path], env=surroundings()) as process:
        wait_until(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists(), what="the work")
        process.send_signal(number)

        assert process.wait(60) == -number
        wait_until(lambda: others() == [], what="the end of all processes")


def test_a_script_that_ends_while_calls_run_leaves_no_process(tmp_path):
    path = write(tmp_path, ENDLESS.format(path=str(tmp_path), wait="print('enough')"))

    assert run("-q", "-n2", path) == ("enough\n", "")
    assert others() == []


# ------------------------------------------------------------------------------------------ VMs that stay


@pytest.fixture
def staying():
    """Servers of VMs, started and stopped by the command."""
    started = []

    def start(name, vms, **env):
        started.append((name, env))
        return run("vm", "start", "-n", vms, "--name", name, **env)

    yield start
    for name, env in started:
        run("vm", "stop", name, **env)


def test_vms_that_stay_are_started_shown_and_stopped(home):
    assert run("vm", "start", "-n", "2", "--name", "node7")[0].startswith("river: 2 VMs on ")
    assert "node7" in run("status")[0] and "2 VMs, 2 free" in run("status")[0]
    assert run("key")[0].startswith(f"{home / 'key'}: fingerprint ")
    assert "node7" in run("vm", "stop")[0]
    assert "no VMs stay here" in run("status")[0]


@pytest.mark.parametrize("wrong", [["vm"], ["vm", "begin"], ["status", "now"], ["key", "--shown"]], ids=" ".join)
def test_misuse_of_a_command_is_told(wrong):
    _, complaints = run(*wrong, code=2)

    assert complaints.startswith(f"usage: river {wrong[0]}")


@pytest.mark.parametrize("command_name", ["vm", "status", "key"])
def test_each_command_has_help(command_name):
    assert run(command_name, "--help")[0].startswith(f"usage: river {command_name}")


def test_two_programs_find_the_vms_that_stay(staying, tmp_path):
    staying("node7", 3)
    text = """
    import sys
    vms = connect(int(sys.argv[1]), local=False)
    print(len(vms), {vm["host"] for vm in vms}, {vm["name"].split("/")[0] for vm in vms}, flush=True)
    input()
    """
    path = write(tmp_path, text)
    first = subprocess.Popen(
        [sys.executable, *command("river"), "-n2", path, "2"], text=True, env=surroundings(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    with first:
        found = first.stdout.readline()
        second = run(path, "1", input="\n")
        third = run("-q", "-n1", write(tmp_path, "connect(2, local=False)", "greedy.py"), code=1)
        first.communicate("\n")

    assert found == f"2 {{{socket.gethostname()!r}}} {{'node7'}}\n"
    assert second == (f"1 {{{socket.gethostname()!r}}} {{'node7'}}\n", "discovered 1 VM\n")
    assert "VMsNotFound: 2 VMs were asked for, and 1 found; all there are: <VM " in third[1]


def test_what_is_missing_is_started_here(staying, tmp_path):
    staying("node7", 1)
    text = 'print(sorted(vm["name"].split("/")[0] for vm in connect(2)))'

    assert run("-q", "-n2", write(tmp_path, text)) == ("['local', 'node7']\n", "")


def test_virtual_resources_are_deployed_on_vms_that_stay(staying, tmp_path):
    staying("node7", 2)
    printed, complaints = run(write(tmp_path, HELLO.format(module="vr", begins=True)))

    assert sorted(printed.splitlines()) == ["4", "here is one", "here is one"]
    assert complaints == "discovered 2 VMs\n"


def test_vms_of_a_server_with_another_key_are_not_used_and_that_is_told(staying, home, tmp_path):
    staying("node7", 2, RIVER_KEY_FILE=str(home / "another"))
    run("key")
    printed, complaints = run("-n2", write(tmp_path, 'print({vm["name"].split("/")[0] for vm in connect()})'))

    assert printed == "{'local'}\n"
    assert "node7" in complaints and "key" in complaints and complaints.endswith("discovered 2 VMs\n")
