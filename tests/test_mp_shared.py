"""Values, arrays and memory of river.multiprocessing: shared by the processes of a machine, and nothing is left of it.

What a process does is said here by functions of this module, which travel by value.
"""

import contextlib
import ctypes
import fcntl
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest
import tools
from children import METHODS, end, kill, processes_of_a_module, start  # noqa: F401
from tasks import PATIENCE, forever, wait_until
from tools import functions_by_value  # noqa: F401

import river.multiprocessing as mp
from river import RiverPool
from river.multiprocessing import far, heap, home, sharedctypes, synchronize
from river.multiprocessing.shared_memory import ShareableList, SharedMemory

pytestmark = tools.forking_is_meant


@pytest.fixture(params=METHODS)
def context(request):
    return mp.get_context(request.param)


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


def double(things):
    number, array, text, point, raw = things
    number.value *= 2
    array[:] = [2 * item for item in array]
    text.value *= 2
    point.x, point.y = 2 * point.x, 2 * point.y
    raw.value *= 2


def test_what_a_process_writes_is_read_in_the_other_one(context):
    things = (
        *(context.Value("i", 7), context.Array("d", [1.0, 2.0])),
        *(context.Array("c", 20), context.Value(Point, 1, 2.5), context.RawValue("l", 4)),
    )
    things[2].value = b"ab"
    end(start(context, double, things))
    number, array, text, point, raw = things

    assert (number.value, array[:], text.value, raw.value) == (14, [2.0, 4.0], b"abab", 8)
    assert (point.x, point.y) == (2, 5.0)
    assert point.get_obj().x == 2


def test_nothing_that_is_shared_has_a_name():
    before = set(os.listdir("/dev/shm"))
    kept = [mp.Value("i"), mp.Array("d", 1 << 16), mp.Lock(), mp.Condition(), mp.Event(), mp.Barrier(2)]

    assert set(os.listdir("/dev/shm")) == before
    assert all(kept)


def test_memory_goes_with_the_last_object_that_is_in_it():
    before = arenas()
    kept = [mp.Value("i", 1), mp.Array("d", 1 << 20)]
    assert arenas() == before + 2
    view = memoryview(kept[1].get_obj()).cast("B")
    del kept

    assert len(view) == 8 << 20
    del view
    wait_until(lambda: arenas() == before)


def arenas():
    """How many this process has; each is known by its descriptors."""
    gc.collect()
    found = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if is_open(number)]
    return sum(1 for name in found if name.startswith("/memfd:river")) // 2


def is_open(number):
    return os.path.exists(f"/proc/self/fd/{number}") or os.path.islink(f"/proc/self/fd/{number}")


def check_later(array, pipe):
    pipe.recv()
    pipe.send(list(array))


def test_what_its_maker_has_let_go_of_is_not_given_to_others_while_one_still_has_it():
    context = mp.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = start(context, check_later, context.RawArray("i", [5] * 100), theirs)
    others = [context.RawArray("i", [6] * 100) for _ in range(50)]
    ours.send("now")

    assert ours.recv() == [5] * 100
    assert others
    end(process)
    ours.close()
    theirs.close()


def make_and_end(pipe):
    value = mp.Value("i", 3)
    pipe.send(value)
    pipe.recv()


def test_a_value_survives_who_made_it(context):
    ours, theirs = context.Pipe()
    process = start(context, make_and_end, theirs)
    value = ours.recv()
    ours.send("thanks")
    end(process)

    with value.get_lock():
        value.value += 1
    assert value.value == 4
    assert home.address(value)[0] != home.address(mp.Value("i"))[0]
    ours.close()
    theirs.close()


def test_what_is_gone_before_it_is_received_is_an_error_that_says_so():
    context = mp.get_context("fork")
    ours, theirs = context.Pipe(False)
    end(start(context, send_pickled, theirs))
    data = ours.recv_bytes()

    with pytest.raises(FileNotFoundError, match="has ended or closed it before it was received"):
        pickle.loads(data)
    ours.close()
    theirs.close()


def send_pickled(pipe):
    value = mp.RawValue("i")
    pipe.send_bytes(pickle.dumps(value))


def test_a_forked_process_makes_its_own_beside_its_parents():
    context = mp.get_context("fork")
    before = context.RawValue("i", 1)
    ours, theirs = context.Pipe()
    process = start(context, make_two, theirs)
    theirs_made = ours.recv()
    made_here = [context.RawValue("i", 2) for _ in range(10)]

    assert [value.value for value in (before, *theirs_made, *made_here)] == [1, 7, 7] + [2] * 10
    ours.send("thanks")
    end(process)
    ours.close()
    theirs.close()


def make_two(pipe):
    made = [mp.RawValue("i", 7), mp.RawValue("i", 7)]
    pipe.send(made)
    pipe.recv()


def test_a_guard_ends_with_its_holder_though_another_thread_has_forked_meanwhile():
    arena = heap.allocate(16).arena
    ours, theirs = mp.Pipe()
    holder = os.fork()
    if not holder:
        fork_while_guarded(arena, theirs)
    assert ours.recv() == "forked"
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)

    door = os.open(f"/proc/self/fd/{arena._descriptor}", os.O_RDWR)
    try:
        fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(door)
        ours.send("the fork may end")
        ours.close()
        theirs.close()


def fork_while_guarded(arena, pipe):
    try:
        inside = threading.Event()
        threading.Thread(target=stay_in_guard, args=(arena, inside), daemon=True).start()
        inside.wait()
        if os.fork():
            forever()
        pipe.send("forked")
        pipe.recv()
    finally:
        os._exit(0)


def stay_in_guard(arena, inside):
    with arena.guard():
        inside.set()
        forever()


def hold(value, pipe):
    with value.get_lock():
        pipe.send("held")
        forever()


def test_a_value_whose_user_is_killed_is_usable_and_tells(context):
    value = context.Value("i", 0)
    ours, theirs = context.Pipe(False)
    process = start(context, hold, value, theirs)
    assert ours.recv() == "held"
    kill(process)

    with value.get_lock() as got:
        assert got
        assert value.get_lock().recovered
        value.value += 1
    assert value.value == 1
    ours.close()
    theirs.close()


def test_a_value_is_read_and_written_by_a_thread_that_has_its_lock_and_waits_for_one_that_has():
    value = mp.Value("i", 1)
    seen = []
    with value.get_lock():
        value.value += 1
        thread = threading.Thread(target=lambda: seen.append(value.value))
        thread.start()
        value.value += 1
    thread.join()

    assert seen == [3]


@pytest.mark.parametrize("lock", [None, synchronize.Lock, threading.RLock, mp.Manager])
def test_a_value_takes_any_lock(lock):
    with contextlib.ExitStack() as stack:
        if lock is mp.Manager:
            lock = stack.enter_context(mp.get_context("fork").Manager()).RLock
        value = mp.Value("i", 5, lock=lock and lock())
        value.value += 1
        array = mp.Array("i", 3, lock=lock and lock())
        array[1] = value.value

        assert array[:] == [0, 6, 0]


def test_what_is_no_lock_is_refused_and_false_is_none_at_all():
    with pytest.raises(AttributeError, match="has no method 'acquire'"):
        mp.Value("i", lock="no lock")
    assert type(mp.Value("i", lock=False)) is ctypes.c_int
    assert not hasattr(mp.Array("i", 2, lock=False), "get_lock")


def test_a_copy_is_shared_as_well_and_its_own():
    first = mp.RawValue(Point, 1, 2.0)
    second = sharedctypes.copy(first)
    second.x = 5

    assert (first.x, second.x, second.y) == (1, 5, 2.0)
    assert pickle.loads(pickle.dumps(second)).x == 5
    pickle.loads(pickle.dumps(second)).x = 6
    assert second.x == 6


def test_an_object_of_the_same_type_that_is_not_shared_is_pickled_as_ever():
    mp.RawValue("i")
    mine = ctypes.c_int(4)
    copied = pickle.loads(pickle.dumps(mine))
    copied.value = 5

    assert mine.value == 4


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="out of range"):
        heap.BufferWrapper(-1)
    with pytest.raises(OverflowError):
        heap.BufferWrapper(1 << 63)
    assert len(heap.BufferWrapper(0).create_memoryview()) == 0
    assert mp.Array("i", 0)[:] == []


def test_raw_memory_is_not_sent_to_another_machine_and_says_so(monkeypatch):
    data = pickle.dumps(mp.RawArray("i", 3))
    monkeypatch.setattr(home, "here", lambda: "elsewhere")
    monkeypatch.setattr(heap, "here", lambda: "elsewhere")

    with pytest.raises(OSError, match="cannot be sent to another machine"):
        pickle.loads(data)


@pytest.mark.parametrize(
    "name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Value", "Array"]
)
def test_what_is_shared_with_a_lock_is_asked_for_at_home_by_another_machine(monkeypatch, name):
    thing = getattr(mp, name)(*{"Value": ["i"], "Array": ["i", 3]}.get(name, []))
    data = pickle.dumps(thing)
    monkeypatch.setattr(home, "here", lambda: "elsewhere")
    monkeypatch.setattr(heap, "here", lambda: "elsewhere")
    monkeypatch.setattr(far, "reach", lambda address, kind: (address, kind))

    assert pickle.loads(data) == (home.address(thing), type(thing))


# ---------------------------------------------------------------------------------------------- memory with a name


def names():
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_")}


def open_and_end(name):
    memory = SharedMemory(name)
    memory.buf[0] += 1
    memory.close()


def make_and_return(pipe):
    memory = SharedMemory(create=True, size=16)
    memory.buf[0] = 41
    memory.close()
    pipe.send(memory.name)


def test_memory_is_there_when_a_process_has_ended_that_opened_it(context):
    memory = SharedMemory(create=True, size=16)
    for _ in range(2):
        end(start(context, open_and_end, memory.name))
    with RiverPool(1) as pool:
        pool.apply(open_and_end, (memory.name,))

    assert memory.buf[0] == 3
    assert memory.name in names()
    memory.close()
    memory.unlink()
    assert memory.name not in names()


def test_memory_is_there_when_the_process_has_ended_that_made_it(context):
    ours, theirs = context.Pipe(False)
    end(start(context, make_and_return, theirs))
    memory = SharedMemory(ours.recv())

    assert memory.buf[0] == 41
    memory.close()
    memory.unlink()
    assert memory.name not in names()
    ours.close()
    theirs.close()


OPENED_IN_A_POOL = """
import os, sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from river import RiverPool

def tracker():
    return os.fstat(resource_tracker._resource_tracker._fd).st_ino

def add_one(name):
    memory = SharedMemory(name)
    memory.buf[0] += 1
    memory.close()
    return tracker()

def make():
    made.append(SharedMemory(create=True, size=16))

made = []
start, is_first = sys.argv[1], sys.argv[2] == "True"
if is_first:
    make()
with RiverPool(1, mp_context=start) as pool:
    pool.apply(os.getpid)
    if not is_first:
        make()
    theirs = pool.apply(add_one, (made[0].name,))
    pool.close()
    pool.join()  # each VM ends by itself, and so would a tracker of its own, a little later
SharedMemory(made[0].name).close()
print(made[0].buf[0], theirs == tracker())
made[0].close()
made[0].unlink()
"""


@pytest.mark.parametrize("is_first", [True, False], ids=["made before the pool", "made after it"])
@tools.both_starts
def test_the_standard_modules_memory_is_there_when_a_pool_has_ended_that_opened_it(start, is_first, tmp_path):
    assert tools.python(tools.script(tmp_path, OPENED_IN_A_POOL), start, is_first) == "1 True\n"


SCRIPT = """
import os, signal, sys
import river.multiprocessing as mp
from river.multiprocessing.shared_memory import SharedMemory, ShareableList

def make(pipe, track):
    memory = SharedMemory(create=True, size=16, track=track)
    pipe.send(memory.name)
    pipe.recv()

how, track = sys.argv[1], sys.argv[2] == "True"
ours, theirs = mp.Pipe()
process = mp.Process(target=make, args=(theirs, track))
process.start()
name = ours.recv()
print(name, flush=True)
if how == "opened":
    SharedMemory(name).close()
    ours.send("")
if how == "unlinked":
    memory = SharedMemory(name)
    memory.close()
    memory.unlink()
    ours.send("")
if how == "maker is killed":
    process.kill()
    process.join()
if how == "all are killed":
    process.kill()
    process.join()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("how", ["opened", "unlinked", "maker is killed", "all are killed"])
def test_memory_that_nobody_has_removed_goes_with_the_program(how, track, tmp_path):
    program = [sys.executable, str(tools.script(tmp_path, SCRIPT)), how, str(track)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, env=tools.surroundings())
    name = done.stdout.strip()

    if how == "unlinked":
        assert done.stderr == ""
    if track or how == "unlinked":
        wait_until(lambda: name not in names())
    else:
        assert name in names()
        SharedMemory(name, track=False).unlink()


ONLY_THERE = """
import importlib, os, signal, sys
import river.multiprocessing as mp
from river import RiverPool

def make(pipe):
    memory = importlib.import_module(module).SharedMemory(create=True, size=16)
    pipe.send((memory.name, os.getpid()))
    pipe.recv()

where, module, who = sys.argv[1:]
ours, theirs = mp.Pipe()
if where == "pool":
    pool = RiverPool(1, mp_context="spawn")
    pool.options(retries=0).submit(make, theirs)
else:
    mp.get_context(where).Process(target=make, args=(theirs,), daemon=True).start()
name, pid = ours.recv()
print(name, flush=True)
os.kill(pid if who == "maker" else os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("who", ["maker", "driver"])
@pytest.mark.parametrize(
    ("where", "module"),
    [
        ("forkserver", "multiprocessing.shared_memory"),
        ("spawn", "river.multiprocessing.shared_memory"),
        ("pool", "river.multiprocessing.shared_memory"),
    ],
)
def test_memory_of_a_process_that_is_killed_is_removed_though_only_it_knows_of_it(where, module, who, tmp_path):
    program = [sys.executable, str(tools.script(tmp_path, ONLY_THERE)), where, module, who]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, env=tools.surroundings())
    name = done.stdout.strip()

    assert name
    wait_until(lambda: name not in names(), 5, "the end of the memory")


def test_memory_of_another_program_is_there_when_one_has_ended_that_opened_it():
    memory = SharedMemory(create=True, size=16)
    text = f"from river.multiprocessing.shared_memory import *; m = SharedMemory({memory.name!r}); m.buf[0] = 5"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, timeout=PATIENCE, env=tools.surroundings())

    assert (done.returncode, done.stderr) == (0, b"")
    assert memory.buf[0] == 5
    assert memory.name in names()
    memory.close()
    memory.unlink()


def add_one(items):
    items[1] += 1


def test_a_list_is_there_when_a_process_has_ended_that_opened_it(context):
    items = ShareableList(["a", 1, 2.5, None])
    for _ in range(2):
        end(start(context, add_one, items))
    with RiverPool(1) as pool:
        pool.apply(add_one, (items,))

    assert list(items) == ["a", 4, 2.5, None]
    assert items.shm.name in names()
    items.shm.close()
    items.shm.unlink()


def test_what_is_not_there_is_an_error_and_nothing_is_left():
    with pytest.raises(FileNotFoundError, match="no shared memory of this name"):
        SharedMemory("psm_that_never_was")
    with pytest.raises(FileNotFoundError):
        ShareableList(name="psm_that_never_was")
    with pytest.raises(ValueError, match="can only be None"):
        SharedMemory()
    with pytest.raises(ValueError, match="positive"):
        SharedMemory("psm_that_never_was", size=-1)
