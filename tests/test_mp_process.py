"""Process of river.multiprocessing: the standard module's, and what River adds to it.

Most run as scripts, in a process of their own, as people write them: without a guard.
"""

import re
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
import tools
from tasks import wait_until

HEAD = "import os, signal, sys, time\nimport river.multiprocessing as mp\n"


def run(directory, text, *arguments, **options):
    return tools.python(tools.script(directory, HEAD + textwrap.dedent(text)), *arguments, **options)


def started(directory, text, *command):
    """The same, going on; its stdout is read by the test."""
    path = tools.script(directory, HEAD + textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, *command, str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=tools.surroundings(),
    )  # fmt: skip


# ------------------------------------------------------------------------------------ what it runs


def test_a_script_needs_no_guard_and_may_start_lambdas_and_closures(tmp_path):
    said = run(
        tmp_path,
        """
        def adder(n):
            return lambda x: print(x + n, flush=True)
        for target in (lambda x: print(x, flush=True), adder(5)):
            process = mp.Process(target=target, args=(1,))
            process.start()
            process.join()
            print(process.exitcode)
    """,
    )

    assert said.split() == ["1", "0", "6", "0"]


def test_a_child_sees_what_globals_hold_when_it_starts(tmp_path):
    said = run(
        tmp_path,
        """
        seen = []
        for i in range(3):
            seen.append(i)
            os.environ["SEEN"] = str(i)
            process = mp.Process(target=lambda: print(seen, os.environ["SEEN"], os.getcwd() == where, flush=True))
            os.chdir(where := os.path.dirname(os.path.abspath(__file__)) if i else os.path.abspath("/"))
            process.start()
            process.join()
    """,
    )

    assert said.splitlines() == ["[0] 0 True", "[0, 1] 1 True", "[0, 1, 2] 2 True"]


def test_a_child_finds_modules_where_its_parent_does_when_it_starts(tmp_path):
    said = run(
        tmp_path,
        """
        for name in ("first", "second"):
            os.mkdir(name)
            with open(os.path.join(name, f"of_{name}.py"), "w") as file:
                file.write(f"def say(): print({name!r}, flush=True)")
            sys.path.append(os.path.abspath(name))
            for method in ("forkserver", "spawn"):
                process = mp.get_context(method).Process(target=__import__(f"of_{name}").say)
                process.start()
                process.join()
    """,
        cwd=tmp_path,
    )

    assert said.split() == ["first", "first", "second", "second"]


def test_pools_have_what_the_program_has_also_after_locks_and_queues_were_made(tmp_path):
    said = run(
        tmp_path,
        """
        import json
        json.dumps = lambda value: "patched"
        kept = mp.Queue(), mp.Lock(), mp.Pipe()
        with mp.Pool(1) as pool:
            print(pool.apply(lambda: json.dumps(1)))
        with mp.get_context("spawn").Pool(1) as pool:
            print(pool.apply(lambda: json.dumps(1)))
    """,
    )

    assert said.split() == ["patched", "1"]


def test_what_is_registered_with_the_forking_pickler_counts_for_the_results_of_a_pool(tmp_path):
    said = run(
        tmp_path,
        """
        from multiprocessing.reduction import ForkingPickler
        class Opened:
            def __init__(self, number):
                self.number, self.rest = number, (item for item in ())
        def again(number):
            return Opened(number + 100)
        ForkingPickler.register(Opened, lambda opened: (again, (opened.number,)))
        with mp.Pool(1) as pool:
            opened = pool.apply(Opened, (1,))
            print(isinstance(opened, Opened), opened.number, pool.apply(lambda opened: opened.number, (opened,)))
    """,
    )

    assert said.split() == ["True", "101", "201"]


THREADED = """
    import threading
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""


def test_what_processes_need_of_river_is_imported_once_for_all_of_them(tmp_path):
    text = THREADED + """
    def told():
        print(os.getpid(), flush=True)
    for _ in range(3):
        process = mp.Process(target=told)
        process.start()
        process.join()
    """
    told = subprocess.run(
        [sys.executable, "-X", "importtime", str(tools.script(tmp_path, HEAD + textwrap.dedent(text)))],
        capture_output=True, text=True, env=tools.surroundings(), check=True,
    )  # fmt: skip

    assert len(told.stdout.split()) == 3
    assert len(re.findall(r"river\.cluster$", told.stderr, re.MULTILINE)) == 2  # by the program; before forks


@pytest.mark.parametrize("head", ["", THREADED], ids=["forked", "fresh because the program has threads"])
def test_set_forkserver_preload_imports_modules_once_for_all_processes(head, tmp_path):
    (tmp_path / "heavy.py").write_text("import os\nPLACE = os.getpid()\n")
    (tmp_path / "wrong.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt\n")
    text = head + """
    def told():
        import heavy
        print(heavy.PLACE == os.getppid(), flush=True)
    def start():
        process = mp.Process(target=told)
        process.start()
        process.join()
        print(process.exitcode, flush=True)
    start()
    mp.set_forkserver_preload(["missing", "wrong", "interrupted", "heavy"])
    start()
    start()
    try:
        mp.set_forkserver_preload([1])
    except TypeError as error:
        print(error)
    """

    assert run(tmp_path, text).splitlines() == [
        "False", "0", "True", "0", "True", "0", "module_names must be a list of strings"
    ]  # fmt: skip


def test_what_cannot_be_sent_is_there_as_it_was_when_the_first_process_started(tmp_path):
    said = run(
        tmp_path,
        """
        numbers = (number for number in [4, 5, 6])
        next(numbers)
        for _ in range(2):
            process = mp.Process(target=lambda: print(next(numbers), flush=True))
            process.start()
            process.join()
            next(numbers)
    """,
    )

    assert said.split() == ["5", "5"]


def test_subclasses_run_their_run_and_keep_what_they_were_given(tmp_path):
    said = run(
        tmp_path,
        """
        class Plain(mp.Process):
            def __init__(self, value):
                super().__init__(name="plain")
                self.value = value
            def run(self):
                print(self.name, self.value, mp.current_process() is self, flush=True)
        class Own(Plain):
            def __getstate__(self):
                return {**self.__dict__, "value": "its own"}
        class Spawned(mp.get_context("spawn").Process):
            run = Plain.run
            value = 3
        for process in (Plain(1), Own(2), Spawned(name="spawned")):
            process.start()
            process.join()
            assert process.exitcode == 0
    """,
    )

    assert said.splitlines() == ["plain 1 True", "plain its own True", "spawned 3 True"]


def test_a_process_knows_its_parent_and_starts_processes_itself(tmp_path):
    said = run(
        tmp_path,
        """
        def child(parent):
            assert mp.parent_process().pid == parent and mp.parent_process().is_alive()
            inner = mp.Process(target=lambda: print(mp.parent_process().name, flush=True))
            inner.start()
            inner.join()
            sys.exit(inner.exitcode + 7)
        process = mp.Process(target=child, args=(os.getpid(),), name="the parent")
        process.start()
        process.join()
        print(process.exitcode)
    """,
    )

    assert said.split("\n")[:2] == ["the parent", "7"]


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_every_start_method_starts_processes(method, tmp_path):
    said = run(
        tmp_path,
        f"""
        mp.set_start_method({method!r})
        process = mp.Process(target=lambda: print(mp.get_start_method(), flush=True))
        process.start()
        process.join()
        print(mp.get_start_method(), process.exitcode)
    """,
    )

    assert said.split() == [method, method, "0"]


# ------------------------------------------------------------------------------------ how it ends


def test_the_exit_code_says_how_it_ended(tmp_path):
    said = run(
        tmp_path,
        """
        def end(how):
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            sys.exit({"nothing": None, "number": 9, "text": 1}[how])
        for how in ("nothing", "number", "text", "killed"):
            process = mp.Process(target=end, args=(how,))
            process.start()
            process.join()
            print(process.exitcode)
    """,
    )

    assert said.split() == ["0", "9", "1", "-9"]


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_process_that_becomes_another_program_ends_when_that_ends(method, tmp_path):
    text = f"""
        mp.set_start_method({method!r})
        path = os.path.abspath("pipe")
        os.mkfifo(path)
        process = mp.Process(target=os.execv, args=("/bin/sh", ["sh", "-c", f"read code <>'{{path}}'; exit $code"]))
        process.start()
        while not process._popen._vm.is_ended:  # its line: what follows from that has been done when another has ended
            process.join(0.01)
        other = mp.Process(target=abs, args=(1,))
        other.start()
        other.join()
        with open(path, "r+b", buffering=0) as file:
            file.write(b"5\\n")
            process.join()
        print(process.exitcode)
        process = mp.Process(target=os.execv, args=("/bin/sh", ["sh", "-c", "exec sleep 600"]), daemon=True)
        process.start()
    """

    assert run(tmp_path, text, cwd=tmp_path).split() == ["5"]


def test_the_traceback_of_a_child_is_shown_in_its_parent(tmp_path):
    process = started(
        tmp_path,
        """
        def divide(x):
            return 1 / x
        process = mp.Process(target=divide, args=(0,), name="Divider")
        process.start()
        process.join()
        print(process.exitcode)
    """,
    )
    out, shown = process.communicate(timeout=60)

    assert out.split() == ["1"]
    assert "Process Divider:" in shown and "in divide" in shown and "ZeroDivisionError: division by zero" in shown


def test_an_argument_that_cannot_be_unpacked_ends_only_its_process(tmp_path):
    process = started(
        tmp_path,
        """
        class Broken:
            def __reduce__(self):
                return int, ("not a number",)
        for argument in (Broken(), 1):
            process = mp.Process(target=abs, args=(argument,))
            process.start()
            process.join()
            print(process.exitcode)
    """,
    )
    out, shown = process.communicate(timeout=60)

    assert out.split() == ["1", "0"]
    assert shown.count("Traceback") == 1 and "not a number" in shown


def test_an_argument_that_cannot_be_pickled_is_an_error_of_start(tmp_path):
    said = run(
        tmp_path,
        """
        import threading
        process = mp.Process(target=abs, args=(threading.Lock(),))
        try:
            process.start()
        except TypeError as error:
            print(error)
        print(process.is_alive() if process._popen else "never started", mp.active_children())
    """,
    )

    assert "lock" in said and said.splitlines()[1] == "never started []"


def test_terminate_kill_and_interrupt_send_their_signals(tmp_path):
    said = run(
        tmp_path,
        """
        def wait(ready):
            try:
                ready.send(1)
                while True:  # Python does not see a signal that comes just before the system call of a sleep
                    time.sleep(0.01)
            except KeyboardInterrupt:
                sys.exit(3)
        for end in ("terminate", "kill", "interrupt"):
            here, there = mp.Pipe()
            process = mp.Process(target=wait, args=(there,))
            process.start()
            here.recv()
            getattr(process, end)()
            print(mp.connection.wait([process.sentinel], 60) == [process.sentinel], process.exitcode)
    """,
    )

    assert said.splitlines() == ["True -15", "True -9", "True 3"]


def test_at_the_end_daemons_are_ended_and_others_are_waited_for(tmp_path):
    said = run(
        tmp_path,
        """
        daemon = mp.Process(target=time.sleep, args=(1000,), daemon=True)
        daemon.start()
        def late(parent_is_done):
            parent_is_done.poll(None)
            print("finished", daemon.pid, flush=True)
        there, here = mp.Pipe()
        process = mp.Process(target=late, args=(there,))
        process.start()
        import atexit
        print("end of main", daemon.pid, flush=True)
        here.send(1)
    """,
    )
    lines = [line.rsplit(" ", 1) for line in said.splitlines()]

    assert [line for line, _ in lines] == ["end of main", "finished"]
    assert not psutil.pid_exists(int(lines[0][1]))


def test_processes_end_with_a_driver_that_is_killed(tmp_path):
    process = started(
        tmp_path,
        """
        process = mp.Process(target=time.sleep, args=(1000,))
        process.start()
        print(process.pid, flush=True)
        process.join()
    """,
    )
    with process:
        child = psutil.Process(int(process.stdout.readline()))
        process.kill()
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, what="the child's end")

    assert process.returncode == -signal.SIGKILL


WAITER = """
    def wait():
        try:
            print("waits", flush=True)
            while True:  # Python does not see a signal that comes just before the system call of a sleep
                time.sleep(0.01)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(3)
"""


OWN_WAKEUP = """
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    signal.set_wakeup_fd(ends[1])
"""


@pytest.mark.parametrize("head", ["", OWN_WAKEUP], ids=["at once", "at the end, as the program has its own wakeup"])
@pytest.mark.parametrize("command", [[], ["-m", "river"]], ids=["python", "river"])
def test_ctrl_c_ends_a_program_and_its_processes(command, head, tmp_path):
    text = WAITER + head + """
    process = mp.Process(target=wait)
    process.start()
    print("started", flush=True)
    time.sleep(1000)
    """
    with started(tmp_path, text, *command) as process:
        assert {process.stdout.readline() for _ in range(2)} == {"waits\n", "started\n"}
        process.send_signal(signal.SIGINT)
        out, shown = process.communicate(timeout=60)

    assert out == "interrupted\n"
    assert "KeyboardInterrupt" in shown and process.returncode == (130 if command else -signal.SIGINT)


@pytest.mark.parametrize("command", [[], ["-m", "river"]], ids=["python", "river"])
@pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGINT, lambda *_: 1 / 0)"], ids=["default", "own"])
def test_processes_hear_of_ctrl_c_when_the_program_does(handler, command, tmp_path):
    text = WAITER + f"""
    {handler}
    processes = [mp.Process(target=wait) for _ in range(2)]
    try:
        for process in processes:
            process.start()
        print("started", flush=True)
        time.sleep(1000)
    except (KeyboardInterrupt, ZeroDivisionError):
        for process in processes:
            process.join()
            print(process.exitcode)
    """
    with started(tmp_path, text, *command) as process:
        assert {process.stdout.readline() for _ in range(3)} == {"waits\n", "started\n"}
        process.send_signal(signal.SIGINT)
        out, shown = process.communicate(timeout=60)

    assert (sorted(out.split()), shown) == (["3", "3", "interrupted", "interrupted"], "")


def test_a_killed_supervisor_ends_its_processes_and_the_next_one_starts(tmp_path):
    said = run(
        tmp_path,
        """
        process = mp.Process(target=time.sleep, args=(1000,))
        process.start()
        with open(f"/proc/{process.pid}/stat") as file:
            os.kill(int(file.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
        process.join(60)
        print(process.exitcode)
        process = mp.Process(target=abs, args=(1,))
        process.start()
        process.join(60)
        print(process.exitcode)
    """,
    )

    assert said.split() == ["255", "0"]


def test_supervisors_may_be_killed_as_often_as_there_was_a_process_between(tmp_path):
    (tmp_path / "deadly.py").write_text("import os\nos._exit(1)\n")
    said = run(
        tmp_path,
        """
        def parent(pid):
            with open(f"/proc/{pid}/stat") as file:
                return int(file.read().rpartition(")")[2].split()[1])
        for target, args in [(abs, (1,)), (time.sleep, (1000,))] * 7:  # those that have ended count, and those that run
            process = mp.Process(target=target, args=args)
            process.start()
            if target is abs:
                process.join()
                continue
            os.kill(parent(process.pid), signal.SIGKILL)
            process.join(60)
            print(process.exitcode)
        mp.set_forkserver_preload(["deadly"])
        for _ in range(50):  # but not for ever if each ends before it starts one
            process = mp.Process(target=abs, args=(1,))
            try:
                process.start()
            except Exception as error:
                print(error)
                break
            process.join(60)
    """,
    )

    assert said.splitlines() == ["255"] * 7 + ["the pool is broken: the supervisor died 6 times"]


def test_a_fork_of_the_program_starts_processes_of_its_own(tmp_path):
    said = run(
        tmp_path,
        """
        process = mp.Process(target=abs, args=(1,))
        process.start()
        process.join()
        if (pid := os.fork()) == 0:
            process = mp.Process(target=lambda: print("of the fork", flush=True))
            process.start()
            process.join()
            sys.exit(process.exitcode)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """,
    )

    assert said.split("\n")[:2] == ["of the fork", "0"]


def test_processes_are_children_by_name_until_they_have_ended(tmp_path):
    said = run(
        tmp_path,
        """
        there, here = mp.Pipe()
        process = mp.Process(target=there.recv, name="child")
        process.start()
        print([child.name for child in mp.active_children()], process.is_alive(), process.exitcode)
        here.send(1)
        process.join()
        print(mp.active_children(), process.is_alive(), process.exitcode)
        process.close()
        try:
            process.is_alive()
        except ValueError as error:
            print(error)
    """,
    )

    assert said.splitlines() == ["['child'] True None", "[] False 0", "process object is closed"]
