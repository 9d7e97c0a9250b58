"""Nothing is left behind: no descriptor, thread, process, memory or file; not by many pools, not by many tasks, not by
a driver that is killed, not by Ctrl-C.

What counts what a process holds runs in a process of its own, which has nothing else in it.
"""

import signal
import subprocess
import sys

import psutil
import pytest
import tasks
import tools
from tasks import Gate, wait_until

START = pytest.mark.parametrize("context", ["None", "'spawn'"], ids=["forked", "fresh"])

# What a process holds, in the words of the system.
HOLDINGS = """
import contextlib, gc, os, sys, threading, time, psutil
from pathlib import Path

def holdings():
    gc.collect()
    return {
        "descriptors": os.listdir("/proc/self/fd"),
        "threads": os.listdir("/proc/self/task"),
        "processes": psutil.Process().children(recursive=True),
        "shared memory": [f for f in os.listdir("/dev/shm") if f.startswith(("river", "psm", "sem", "mp"))],
        "mappings": [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd" in line],
    }

def leaked(before, slack=0, seconds=10):
    # What has grown since, when it had its time to shrink.
    deadline = time.monotonic() + seconds
    while True:
        now = holdings()
        grown = {kind: (before[kind], now[kind]) for kind in now if len(now[kind]) > len(before[kind]) + slack}
        if not grown or time.monotonic() > deadline:
            return grown
        time.sleep(0.02)

def shared(pid):
    # Bytes of anonymous shared memory that a process holds by descriptors.
    size = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            size += "memfd" in os.readlink(file) and file.stat().st_size
    return size

def memory(pids):
    return {pid: psutil.Process(pid).memory_info().rss for pid in pids}
"""


def run(directory, text):
    """What a script says that counts what it holds."""
    return tools.python(tools.script(directory, HOLDINGS + text))


# ------------------------------------------------------------------------------------------ many pools


@pytest.mark.parametrize("context, count", [("None", 200), ("'spawn'", 30)], ids=["forked", "fresh"])
def test_200_pools_opened_and_closed_leak_nothing(context, count, tmp_path):
    said = run(
        tmp_path,
        f"""
import array
from river import RiverExecutor, RiverPool

data = array.array("d", bytes(800_000))

def with_pool():
    with RiverPool(2, mp_context={context}) as p:
        p.map(abs, range(100))

def with_terminated_work():
    with RiverPool(2, mp_context={context}) as p:
        p.map_async(time.sleep, [60])
        p.apply(len, (data,))

def closed_and_joined():
    p = RiverPool(2, mp_context={context})
    results = [p.apply_async(len, (data,), callback=id) for _ in range(3)]
    p.close()
    p.join()
    assert [r.get() for r in results] == 3 * [100_000]

def with_executor():
    with RiverExecutor(2, mp_context={context}) as p:
        assert list(p.map(pow, range(50), range(50)))[3] == 27
        assert p.submit(bytes, 800_000).result() == bytes(800_000)

def left_in_the_middle():
    with RiverPool(1, mp_context={context}) as p:
        endless = p.imap(abs, iter(int, 1))
        assert next(endless) == 0

def forgotten_executor():
    RiverExecutor(1, mp_context={context}).submit(abs, -1).result()

WAYS = [with_pool, with_terminated_work, closed_and_joined, with_executor, left_in_the_middle, forgotten_executor]
for way in WAYS:
    way()
before = {{**holdings(), "processes": [], "threads": ["the main one"]}}
for i in range({count} - len(WAYS)):
    WAYS[i % len(WAYS)]()
print(leaked(before))
""",
    )

    assert said == "{}\n"


@START
def test_a_pool_that_failed_to_start_leaves_nothing(context, tmp_path):
    said = run(
        tmp_path,
        f"""
import threading
from river import RiverPool

RiverPool(1, mp_context={context}).terminate()
before = {{**holdings(), "processes": [], "threads": ["the main one"]}}
for i in range(10):
    for bad in (dict(initializer=3), dict(processes=0), dict(initargs=5, initializer=abs), dict(max_memory=-1)):
        try:
            RiverPool(**{{"processes": 1, "mp_context": {context}, **bad}})
        except (TypeError, ValueError) as error:
            pass
        else:
            print("no error for", bad)
print(leaked(before))
""",
    )

    assert said == "{}\n"


# ------------------------------------------------------------------------------------------ many tasks


@START
def test_100_000_tasks_leave_memory_flat(context, tmp_path):
    said = run(
        tmp_path,
        f"""
from river import RiverPool

def some(p, count):
    for _ in range(count // 2000):
        assert sum(f.result() for f in [p.submit(abs, -1) for _ in range(1000)]) == 1000
        assert sum(p.map(abs, range(500))) == 124750
        assert sum(p.imap(abs, range(400), 10)) == 79800
        for f in [p.apply_async(bytes, (300,)) for _ in range(100)]:
            f.get()

with RiverPool(2, mp_context={context}) as p:
    some(p, 20_000)
    everyone = [os.getpid(), *p.statistics().pids.values()]
    held, before = holdings(), memory(everyone)
    some(p, 100_000)
    after = memory(everyone)
    print(max(after[pid] - before[pid] for pid in everyone), leaked(held), sep="\\n")
""",
    )

    grown, left = said.splitlines()
    assert int(grown) < 4 << 20
    assert left == "{}"


@START
def test_large_arguments_and_results_leave_memory_flat(context, tmp_path):
    said = run(
        tmp_path,
        f"""
import numpy
from river import RiverPool

def some(p, count):
    for _ in range(count):
        assert p.apply(numpy.ones, (300_000,)).sum() == 300_000
        assert p.apply(len, (numpy.ones(300_000),)) == 300_000
        assert len(p.map(numpy.zeros, [200_000] * 4)) == 4
        assert p.apply(len, (p.put(numpy.ones(200_000)),)) == 200_000

with RiverPool(2, mp_context={context}) as p:
    some(p, 15)
    everyone = [os.getpid(), *p.statistics().pids.values()]
    held, before = holdings(), memory(everyone)
    some(p, 60)
    after = memory(everyone)
    print(max(after[pid] - before[pid] for pid in everyone), leaked(held, 8), sep="\\n")
    print(max(shared(pid) for pid in everyone))
""",
    )

    grown, left, lent = said.splitlines()
    assert int(grown) < 150 << 20  # VMs keep up to 64 MB for the next arrays; 60 rounds would leave over 600 MB
    assert left == "{}"
    assert int(lent) < 150 << 20  # up to 128 MB of shared memory are kept to be filled again


@START
def test_2000_different_lambdas_leave_memory_bounded(context, tmp_path):
    said = run(
        tmp_path,
        f"""
from river import RiverPool

def some(p, count):
    for i in range(count):
        ballast = bytes(20_000) + str(i).encode()
        assert p.apply(lambda: len(ballast) + i) == len(ballast) + i
        if i % 10 == 0:
            assert p.map(lambda x: x + len(ballast), [i, i]) == 2 * [i + len(ballast)]

with RiverPool(2, mp_context={context}) as p:
    some(p, 600)
    everyone = [os.getpid(), *p.statistics().pids.values()]
    before = memory(everyone)
    some(p, 2000)
    after = memory(everyone)
    print(max(after[pid] - before[pid] for pid in everyone))
""",
    )

    assert int(said) < 10 << 20  # what they carry is 40 MB


@START
def test_results_that_nobody_keeps_are_not_kept(context, tmp_path):
    said = run(
        tmp_path,
        f"""
import weakref
from river import RiverPool

class Thing:
    pass

with RiverPool(2, mp_context={context}) as p:
    value = p.apply(Thing)
    future = p.submit(Thing)
    kept = weakref.ref(value), weakref.ref(future.result()), weakref.ref(future)
    argument = Thing()
    p.apply(id, (argument,))
    p.map(id, [argument])
    kept += (weakref.ref(argument),)
    del value, future, argument
    gc.collect()
    print([k() for k in kept])
""",
    )

    assert said == "[None, None, None, None]\n"


@START
def test_whoever_takes_a_result_of_a_map_has_the_only_reference_to_it(context, tmp_path):
    said = run(
        tmp_path,
        f"""
import weakref
from river import RiverPool, RiverExecutor

class Thing:
    def __init__(self, number):
        pass

def kept(results):
    left = []
    for result in results:
        watcher = weakref.ref(result)
        del result
        left.append(watcher())
    return left

gc.disable()
with RiverPool(2, mp_context={context}) as p, RiverExecutor(2, mp_context={context}) as e:
    print(kept(p.imap(Thing, range(3))), kept(p.imap_unordered(Thing, range(3))), kept(e.map(Thing, range(3))))
""",
    )

    assert said == " ".join(3 * ["[None, None, None]"]) + "\n"


@START
def test_a_pool_that_has_ended_lets_go_of_the_arguments_of_tasks_that_ran(context, tmp_path):
    said = run(
        tmp_path,
        f"""
import weakref
from river import RiverPool

class Thing:
    def wait(self):
        Path(__file__ + ".begun").touch()
        time.sleep(600)

with RiverPool(1, mp_context={context}) as p:
    thing = Thing()
    p.map_async(Thing.wait, [thing])
    kept = weakref.ref(thing)
    del thing
    while not os.path.exists(__file__ + ".begun"):
        time.sleep(0.01)
gc.collect()
print(kept())  # p is still there
""",
    )

    assert said == "None\n"


@START
def test_a_pool_that_has_ended_lets_go_of_its_initializers_arguments_at_once(context, tmp_path):
    said = run(
        tmp_path,
        f"""
import weakref
from river import RiverPool

class Thing:
    pass

gc.disable()
thing = Thing()
kept = weakref.ref(thing)
with RiverPool(2, id, (thing,), mp_context={context}) as p:
    p.map(abs, range(3))
del thing, p
print(kept())
""",
    )

    assert said == "None\n"


# -------------------------------------------------------------------------------- the driver is killed

DRIVER = """
import signal, subprocess, sys, threading, time
from pathlib import Path
import tasks
from river import RiverPool

def with_a_child(path):
    child = subprocess.Popen(["sleep", "600"])
    tasks.note(path, child.pid)
    child.wait()

def with_a_pool(path):
    with RiverPool(1) as inner:
        inner.map(tasks.note_and_wait, [path])

def deaf(path):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    tasks.note_and_wait(path)

if {threads}:
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
pool = RiverPool(2)
futures = [pool.submit({task}, {log!r}) for _ in range(2)]
futures[0].result()
"""

WORK = {
    "in Python": "tasks.note_and_wait",
    "in C that holds the GIL": "tasks.hold_the_lock_in_c",
    "deaf to signals": "deaf",
    "in a child": "with_a_child",
    "in a nested pool": "with_a_pool",
}


@pytest.mark.parametrize("threads", [False, True], ids=["forked", "fresh because the driver has threads"])
@pytest.mark.parametrize("work", WORK)
def test_kill_9_of_the_driver_leaves_nothing_after_3_seconds(work, threads, tmp_path):
    log = tmp_path / "log"
    driver = start_driver(tmp_path, threads=threads, task=WORK[work], log=str(log))
    wait_until(lambda: len(tasks.lines(log)) == 2, what="the beginning of both tasks")
    assert len(tools.others()) >= 4  # the driver, the supervisor and two VMs
    driver.kill()
    driver.wait()

    wait_until(lambda: not tools.others(), 3, "the end of all processes")


@pytest.mark.parametrize("threads", [False, True], ids=["forked", "fresh because the driver has threads"])
def test_kill_9_of_driver_and_supervisor_at_once_leaves_nothing_after_3_seconds(threads, tmp_path):
    log = tmp_path / "log"
    driver = start_driver(tmp_path, threads=threads, task="tasks.hold_the_lock_in_c", log=str(log))
    wait_until(lambda: len(tasks.lines(log)) == 2, what="the beginning of both tasks")
    vms = [psutil.Process(int(pid)) for pid in tasks.lines(log)]
    supervisor = vms[0].parent()
    for process in (supervisor, driver):
        process.kill()
    driver.wait()

    wait_until(lambda: not tools.others(), 3, "the end of all processes")


def test_sigterm_ends_a_driver_and_all_that_is_its(tmp_path):
    log = tmp_path / "log"
    driver = start_driver(tmp_path, threads=False, task="tasks.note_and_wait", log=str(log))
    wait_until(lambda: len(tasks.lines(log)) == 2, what="the beginning of both tasks")
    driver.terminate()

    assert driver.wait(30) == -signal.SIGTERM
    wait_until(lambda: not tools.others(), 3, "the end of all processes")


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "1 / 0"], ids=["at its end", "by sys.exit", "by an exception"])
def test_a_driver_that_forgets_to_close_its_pool_still_ends_and_leaves_nothing(end, tmp_path):
    path = tools.script(
        tmp_path,
        f"""
import sys, time
from river import RiverPool
p = RiverPool(2)
print(p.map(abs, [-1]), flush=True)
waiting = p.map_async(time.sleep, [600, 600])
{end}
""",
    )
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, env=tools.surroundings(), timeout=60
    )

    assert done.stdout == "[1]\n"
    assert done.returncode == {"pass": 0, "sys.exit(3)": 3, "1 / 0": 1}[end]
    assert ("ZeroDivisionError" in done.stderr) == (end == "1 / 0")
    assert "Exception ignored" not in done.stderr
    wait_until(lambda: not tools.others(), 3, "the end of all processes")


def start_driver(directory, **facts):
    path = tools.script(directory, DRIVER.format(**facts))
    return subprocess.Popen(
        [sys.executable, path],
        env=tools.surroundings(),
        stdout=subprocess.DEVNULL,
    )


# ---------------------------------------------------------------------------------------------- Ctrl-C

PRESSED = """
import sys, threading, time
import tasks
from river import RiverExecutor, RiverPool
gate = tasks.Gate({gate!r})
if {threads}:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
{body}
"""
WAITING = {
    "map": "with RiverPool(2) as p:\n    p.map(gate, range(10), 1)",
    "map in chunks": "with RiverPool(2) as p:\n    p.map(gate, range(1000), 50)",
    "imap": "with RiverPool(2) as p:\n    for _ in p.imap(gate, range(10)):\n        pass",
    "result": "with RiverPool(2) as p:\n    [p.submit(gate) for _ in range(5)][-1].result()",
    "get with a timeout": "with RiverPool(2) as p:\n    p.map_async(gate, range(10), 1).get(600)",
    "executor's end": "with RiverExecutor(2) as p:\n    [p.submit(gate) for _ in range(5)]",
    "executor's map": "with RiverExecutor(2) as p:\n    list(p.map(gate, range(10)))",
    "pool's end": "with RiverPool(2) as p:\n    [p.submit(gate) for _ in range(5)]",
    "join": "with RiverPool(2) as p:\n    p.map_async(gate, range(5), 1)\n    p.close()\n    p.join()",
}


@pytest.mark.parametrize("threads", [False, True], ids=["forked", "fresh because the driver has threads"])
@pytest.mark.parametrize("waiting", WAITING)
def test_ctrl_c_gives_one_keyboard_interrupt_and_leaves_no_process(waiting, threads, tmp_path):
    gate = Gate(tmp_path / "gate")
    body = PRESSED.format(gate=str(gate.directory), threads=threads, body=WAITING[waiting])
    with tools.Terminal(tools.script(tmp_path, body)) as terminal:
        gate.wait_for(2)
        terminal.press_ctrl_c()
        code = terminal.end(10)

    assert code == -signal.SIGINT
    assert terminal.said.count("KeyboardInterrupt") == 1, terminal.said
    assert terminal.said.count("Traceback") == 1, terminal.said
    wait_until(lambda: not tools.others(), 3, "the end of all processes")


@pytest.mark.parametrize("threads", [False, True], ids=["forked", "fresh because the driver has threads"])
def test_after_ctrl_c_the_prompt_is_back_and_the_pool_works_on(threads, tmp_path):
    gate, closed = Gate(tmp_path / "gate"), Gate(tmp_path / "closed")
    with tools.Terminal("-i", "-q") as terminal:
        terminal.expect(">>> ")
        for line in (
            "import threading, time, tasks",
            "from river import RiverPool",
            f"{threads} and threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
            f"gate = tasks.Gate({str(gate.directory)!r})",
            "p = RiverPool(2)",
        ):
            terminal.type(line + "\n")
            terminal.expect(">>> ")
        terminal.type("p.map(gate, range(10), 1)\n")
        gate.wait_for(2)
        terminal.press_ctrl_c()
        terminal.expect("KeyboardInterrupt", 10)
        terminal.expect(">>> ", 10)
        gate.open()
        terminal.type("p.map(lambda x: x * 111, [1, 2, 3])\n")
        terminal.expect(r"\[111, 222, 333\]")
        terminal.expect(">>> ")
        # Once more, for a wait in the middle of another one's results.
        terminal.type(f"for x in p.imap(tasks.Gate({str(closed.directory)!r}), range(5)): print(x)\n\n")
        closed.wait_for(2)
        terminal.press_ctrl_c()
        terminal.expect("KeyboardInterrupt", 10)
        terminal.expect(">>> ", 10)
        closed.open()
        terminal.type("p.apply(divmod, (17, 5))\n")
        terminal.expect(r"\(3, 2\)")
        terminal.type("p.terminate()\n")
        terminal.expect(">>> ")
        terminal.type("exit()\n")
        assert terminal.end(20) == 0

    assert terminal.said.count("KeyboardInterrupt") == 2, terminal.said
    wait_until(lambda: not tools.others(), 3, "the end of all processes")
