"""Trickle: connect, inject, fork and join, remote calls and objects; with VMs that are killed in the middle of it."""

import gc
import os
import pickle
import queue
import signal
import threading
import time
import types
import weakref

import numpy
import pytest
import tasks
import tools
from tools import functions_by_value  # noqa: F401

from river import trickle
from river._core import remote
from river._core.packet import any_of
from river.errors import TimeoutError, VMsNotFound, WorkerLost
from river.trickle import connect, disconnect, fork, forkall, forkgen, forkjoin, forkwork, inject, join, joinall


@pytest.fixture(autouse=True)
def session():
    """Each test has its own, made when it first connects."""
    yield
    disconnect()


def kill(vm):
    os.kill(vm["pid"], signal.SIGKILL)


def pids(vms):
    return {vm["pid"] for vm in vms}


# ------------------------------------------------------------------------------------------------- connect


def test_connect_returns_exactly_n_vms_and_starts_those_that_are_missing():
    two = connect(2)
    four = connect(4)

    assert (len(two), len(four)) == (2, 4)
    assert four[:2] == two and connect(3) == four[:3] and connect() == four
    assert os.getpid() not in pids(four)


def test_connect_without_a_number_starts_one_vm_for_each_usable_core():
    assert len(connect()) == len(os.sched_getaffinity(0))


def test_a_vm_is_a_mapping_of_what_is_known_of_it():
    (vm,) = connect(1)

    assert {"uuid", "host", "pid", "python", "cpus", "load", "memory", "total_memory", "name", "machine"} == set(vm)
    assert vm["pid"] == join(fork(vm, os.getpid)) and len(vm["uuid"]) == 36
    assert {vm: 1}[connect(1)[0]] == 1


@pytest.mark.parametrize("n", [0, -1])
def test_less_than_one_vm_is_refused(n):
    with pytest.raises(ValueError, match=f"1 VM or more, not {n}"):
        connect(n)


def test_without_local_vms_only_those_that_are_there_are_found():
    with pytest.raises(VMsNotFound, match="all there are: none"):
        connect(1, local=False)
    two = connect(2)

    assert connect(2, local=False) == connect(local=False) == two
    with pytest.raises(
        VMsNotFound, match=f"3 VMs were asked for, and 2 found; all there are: <VM .* pid {two[0]['pid']}>"
    ):
        connect(3, local=False)


def test_attributes_select_vms_and_an_error_lists_what_was_found_and_starts_none():
    two = connect(2, memory=lambda free: free > 0)

    assert connect(1, pid=two[1]["pid"]) == [two[1]] == connect(pid=any_of(two[1]["pid"]))
    assert connect(3, cpus=two[0]["cpus"])[:2] == two
    with pytest.raises(
        VMsNotFound, match="1 VMs with host='elsewhere' were asked for, and 0 found; all there are: <VM"
    ):
        connect(1, host="elsewhere")
    assert connect(host="elsewhere") == []
    assert len(connect()) == 3


def test_to_look_on_the_network_when_there_are_vms_already_is_refused():
    first = connect(1)

    with pytest.raises(RuntimeError, match=r"give lan=True to its first connect\(\), .* or disconnect\(\) before"):
        connect(2, lan=True)
    assert connect() == first


def test_a_vm_that_died_is_not_found_again_and_another_one_takes_its_place():
    two = connect(2)
    kill(two[0])
    tasks.wait_until(lambda: two[0] not in connect())

    again = connect(2)
    assert len(again) == 2 and two[0] not in again and two[1] in again
    assert forkjoin(again, tasks.square, [2, 3]) == [4, 9]


def test_a_vm_that_died_is_not_kept():
    two = connect(2)
    died = weakref.ref(two[0])
    kill(two[0])
    tasks.wait_until(lambda: two[0] not in connect())
    del two[0]

    tasks.wait_until(lambda: gc.collect() >= 0 and died() is None)


def test_a_session_that_was_ended_is_made_again_and_its_old_vms_say_so():
    old = connect(1)
    handle = fork(old[0], tasks.square, 3)
    assert join(handle) == 9
    obj = old[0].list([1])
    disconnect()
    disconnect()
    new = connect(2)

    assert join(handle) == 9 and len(new) == 2 and old[0] not in new
    for call in (
        lambda: fork(old[0], tasks.square, 3),
        lambda: forkjoin(old, tasks.square, [3]),
        lambda: old[0].len([]),
        lambda: obj.count(1),
        lambda: inject(old, tasks.square),
    ):
        with pytest.raises(VMsNotFound, match="ended, by disconnect.* connect.. "):
            call()


def test_a_task_may_connect_to_vms_of_its_own():
    def nested(n):
        from river.trickle import connect, disconnect, forkjoin

        try:
            vms = connect(n)
            return forkjoin(vms, tasks.square, range(4)), len({vm["pid"] for vm in vms})
        finally:
            disconnect()

    assert join(fork(connect(1)[0], nested, 2)) == ([0, 1, 4, 9], 2)


# -------------------------------------------------------------------------------------------------- inject


def doubled(x):
    return 2 * x


def doubled_twice(x):
    return doubled(doubled(x))


class Counter:
    start = 10

    def __init__(self, value=0):
        self.value = value
        self.log = []

    def add(self, n=1):
        self.value += n
        self.log.append(n)
        return self.value

    def fail(self):
        raise KeyError("on purpose")

    def die(self):
        tasks.kill_itself()


def test_functions_and_classes_are_injected_by_their_own_name_or_another():
    one, other = connect(2)
    inject([one, other], doubled)
    inject(one, Counter, name="Tally")
    inject(other, lambda x, y=1: x + y, name="plus")

    assert (one.doubled(4), other.doubled(5)) == (8, 10)
    assert one.Tally(5).add(2) == 7
    assert (other.plus(1), other.plus(1, y=5)) == (2, 6)
    with pytest.raises(NameError, match=r"'plus' is not known in this VM; inject\(vm, plus\) makes it known"):
        one.plus(1)


def test_data_is_injected_under_a_name_and_read_by_calling_it():
    (vm,) = connect(1)
    inject(vm, {"a": [1, 2]}, name="table")
    inject(vm, numpy.arange(100_000), name="array")

    assert vm.table() == {"a": [1, 2]} and vm.table.get("a") == [1, 2]
    assert vm.array.sum() == sum(range(100_000)) and vm.array.shape() == (100_000,)
    with pytest.raises(TypeError, match=r"a list has no name of its own: inject\(vm, obj, name='...'\)"):
        inject(vm, [1])
    with pytest.raises(TypeError, match="a function has no name of its own"):
        inject(vm, lambda: 1)


def test_modules_are_injected_also_those_that_the_vm_cannot_import(tmp_path):
    path = tools.script(tmp_path, "SIZE = 3\ndef cube(x):\n    return x ** SIZE\n", "not_on_the_path.py")
    module = types.ModuleType("not_on_the_path")
    module.__file__ = str(path)
    exec(compile(path.read_text(), path, "exec"), vars(module))
    (vm,) = connect(1)
    inject(vm, module)
    inject(vm, os.path)

    assert (vm.not_on_the_path.cube(2), vm.not_on_the_path.SIZE()) == (8, 3)
    assert vm.posixpath.join("a", "b") == "a/b"
    with pytest.raises(ModuleNotFoundError, match="made_of_nothing"):
        inject(vm, types.ModuleType("made_of_nothing"))


def test_what_a_vm_can_import_and_builtins_need_no_injection():
    (vm,) = connect(1)

    assert vm.os.getpid() == vm["pid"] and vm.math.sqrt(16) == 4.0 and vm.len([1, 2]) == 2
    with pytest.raises(AttributeError, match="no_such_thing"):
        vm.os.no_such_thing()


def test_what_cannot_be_pickled_is_an_error_of_inject():
    (vm,) = connect(1)

    with pytest.raises(TypeError, match="lock"):
        inject(vm, threading.Lock(), name="lock")


# ------------------------------------------------------------------------------------------- remote objects


def test_an_object_lives_in_its_vm_and_is_called_with_or_without_waiting():
    (vm,) = connect(1)
    inject(vm, Counter)
    counter = vm.Counter(5)
    handle = fork(counter.add, 3)

    assert (handle.result(), counter.add(), counter.value(), counter.start()) == (8, 9, 9, 10)
    assert handle.vm is handle.vr is vm
    assert "Counter in <VM" in repr(counter)


def test_a_method_of_an_object_is_forked_on_its_own_vm_only():
    one, other = connect(2)
    items = one.list([3])

    assert join(fork(one, items.count, 3)) == 1
    with pytest.raises(TypeError, match=rf"<count of <list in {one!r}>> runs there only, not on {other!r}: fork"):
        fork(other, items.count, 3)


@pytest.mark.parametrize("what", [lambda vm: vm.list([1]), lambda vm: vm.list([1]).count, lambda vm: vm.os.getpid])
def test_what_stands_for_something_in_a_vm_is_not_sent_and_says_what_to_do(what):
    one, other = connect(2)
    stands = what(one)

    for send in (
        lambda: pickle.dumps(stands),
        lambda: join(fork(other, repr, stands)),
        lambda: forkjoin([one, other], repr, [stands]),
        lambda: forkjoin([one, other], lambda _: stands, [1]),
    ):
        with pytest.raises(TypeError, match=f"{stands!r} cannot be sent: .*; call it here, and send what it returns"):
            send()


def test_none_is_an_argument_like_any_other():
    (vm,) = connect(1)
    items = vm.list()
    join(fork(items.append, None))

    assert (items.count(None), join(fork(vm, repr, None))) == (1, "None")


def test_calls_on_one_object_run_in_the_order_of_their_making():
    (vm,) = connect(1)
    inject(vm, Counter)
    counter = vm.Counter()
    handles = [fork(counter.add, n) for n in range(200)]
    joinall(handles)

    assert counter.log() == list(range(200))


def test_an_object_is_released_in_its_vm_when_it_is_not_here():
    (vm,) = connect(1)
    objects = [vm.list([n]) for n in range(3)]
    count = fork(vm, objects_there)
    del objects[1:]

    assert join(count) == 3
    tasks.wait_until(lambda: join(fork(vm, objects_there)) == 1)
    assert objects[0].count(0) == 1


def objects_there():
    return len(remote._objects)


def test_an_exception_of_a_method_has_the_far_traceback_as_its_cause():
    (vm,) = connect(1)
    inject(vm, Counter)

    with pytest.raises(KeyError, match="on purpose") as caught:
        vm.Counter().fail()
    assert "in fail" in str(caught.value.__cause__)


def test_calls_to_an_object_whose_vm_is_dead_fail_at_once():
    one, other = connect(2)
    inject([one, other], Counter)
    counter, survivor = one.Counter(), other.Counter()
    with pytest.raises(WorkerLost, match="SIGKILL"):
        counter.die()

    for call in (counter.add, counter.value, lambda: join(fork(counter.add, 1)), lambda: one.doubled(1)):
        with pytest.raises(
            WorkerLost, match=r"was to run on .*, which is gone; discover\(\) or connect\(\) finds others"
        ):
            call()
    assert survivor.add() == 1


# ------------------------------------------------------------------------------------------- fork and join


def test_a_fork_runs_on_its_vm_and_knows_it():
    vms = connect(2)
    handles = [fork(vm, os.getpid) for vm in vms]

    assert [join(handle) for handle in handles] == [vm["pid"] for vm in vms]
    assert all(handle.vm is vm and handle.vr is vm for handle, vm in zip(handles, vms, strict=True))


def test_lambdas_closures_keywords_partials_and_names_can_be_forked():
    (vm,) = connect(1)
    inject(vm, doubled)
    offset = 5

    assert join(fork(vm, lambda x: x + offset, 1)) == 6
    assert join(fork(vm, tasks.add, 1, y=2)) == 3
    assert join(fork(vm, doubled_twice, 3)) == 12
    assert join(fork(vm, "doubled", 3)) == join(fork(vm, vm.doubled, 3)) == join(fork(vm.doubled, 3)) == 6


@pytest.mark.parametrize("arguments", [(), (None,), (3,), ([1],)])
def test_what_cannot_be_forked_is_refused(arguments):
    (vm,) = connect(1)

    with pytest.raises(TypeError, match=r"fork\(\) takes a function, or the name of one that was injected"):
        fork(vm, *arguments)
    with pytest.raises(TypeError, match=r"fork\(\) takes a VM of connect\(\)"):
        fork(tasks.square, 3)


def test_join_of_a_list_takes_out_the_first_that_finishes(tmp_path):
    slow, quick = connect(2)
    gate = tasks.Gate(tmp_path / "gate")
    handles = [fork(slow, gate, "slow"), fork(quick, tasks.square, 3)]
    first, value = join(handles)

    assert (value, first.vm, len(handles)) == (9, quick, 1)
    with pytest.raises(TimeoutError, match="none of 1 handles was finished within 0.01 s"):
        join(handles, timeout=0.01)
    gate.open()
    assert join(handles)[1] == "slow" and handles == []
    with pytest.raises(ValueError, match="no handle to wait for"):
        join(handles)
    with pytest.raises(TypeError, match=r"join\(\) takes a handle, or a list of handles"):
        join((first,))


def test_what_a_call_raised_is_raised_by_join_with_the_far_traceback():
    (vm,) = connect(1)
    handles = [fork(vm, tasks.raising, "oops")]

    with pytest.raises(ValueError, match="oops") as caught:
        join(handles[0])
    assert "in raising" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="oops") as caught:
        join(handles)
    assert handles == [] and caught.value.handle.vm is vm
    with pytest.raises(ValueError, match="oops"):
        joinall([fork(vm, tasks.square, 1), fork(vm, tasks.raising, "oops")])


def test_the_self_scheduled_loop_of_the_talk_ends():
    vms, work, results, handles = connect(2), list(range(20)), [], []
    while True:
        while work and vms:
            handles.append(fork(vms.pop(), tasks.square, work.pop()))
        if not handles:
            break
        handle, value = join(handles)
        results.append(value)
        vms.append(handle.vr)

    assert sorted(results) == [n * n for n in range(20)] and len(vms) == 2


def test_forkall_starts_the_same_call_on_each_vm():
    vms = connect(3)

    assert joinall(forkall(vms, os.getpid)) == [vm["pid"] for vm in vms]
    assert joinall(forkall(vms, tasks.add, 1, y=2)) == [3, 3, 3]


def test_joinall_has_one_timeout_for_all_handles_together():
    (vm,) = connect(1)
    handles = [fork(vm, time.sleep, 0.1) for _ in range(30)]  # each ends in time, all of them cannot

    with pytest.raises(TimeoutError, match="not all of 30 handles were finished within 1.0 s"):
        joinall(handles, timeout=1.0)
    assert joinall(handles[:2], timeout=60) == [None, None]


def test_calls_may_come_from_any_thread():
    vms = connect(2)
    inject(vms, doubled)
    results = queue.SimpleQueue()

    def call(number):
        vm = vms[number % 2]
        results.put((number, vm.doubled(number), join(fork(vm, tasks.square, number)), forkjoin(vms, abs, [-number])))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(results.get() for _ in threads) == [(n, 2 * n, n * n, [n]) for n in range(16)]


# ---------------------------------------------------------------------------------- forkjoin, forkwork, forkgen


def one(x):
    return x


def two(x, y):
    return x, y


def one_or_two(x, y=0):
    return x, y


def any_number(*args):
    return args


def keyword_only(x, *, y=0):
    return x, y


class TakesTwo:
    def __init__(self, x, y):
        pass

    def __reduce__(self):
        return tuple, ((1, 2),)


STAR = [
    # function, item, star, result
    (one, [1, 2], None, [1, 2]),
    (one, (1, 2), None, (1, 2)),
    (two, [1, 2], None, (1, 2)),
    (two, (1, 2), None, (1, 2)),
    (one_or_two, [1, 2], None, ([1, 2], 0)),
    (one_or_two, (1, 2), None, ((1, 2), 0)),
    (any_number, (1, 2), None, ((1, 2),)),
    (keyword_only, (1, 2), None, ((1, 2), 0)),
    (sum, range(4), None, 6),
    (sum, [1, 2], None, 3),
    (pow, [2, 3], None, 8),
    (pow, (2, 3), None, 8),
    (max, (2, 3), None, 3),  # it has no signature that can be read
    (max, [2, 3], None, 3),
    (one_or_two, [1, 2], True, (1, 2)),
    (any_number, "ab", True, ("a", "b")),
    (one, (7,), True, 7),
    (any_number, (1, 2), False, ((1, 2),)),
    (max, (2, 3), False, 3),
]


@pytest.mark.parametrize("call", [forkjoin, forkwork, forkgen], ids=lambda call: call.__name__)
def test_an_item_is_unpacked_where_the_function_needs_more_than_one_argument_or_as_star_says(call):
    vms = connect(2)

    for function, item, star, result in STAR:
        assert list(call(vms, function, [item], star=star)) == [result], f"{function.__name__}, {item}, star={star}"


def test_a_function_that_lacks_arguments_raises_what_it_would_here():
    vms = connect(1)

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        forkjoin(vms, two, [1])
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        forkjoin(vms, two, [(1, 2)], star=False)


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("chunksize", [1, 7])
def test_results_come_in_order_from_exactly_these_vms(subset, chunksize):
    vms = connect(3)
    where = vms[1:] if subset else vms
    noted = forkwork(where, with_pid, range(300), chunksize=chunksize)

    assert [number for number, _ in noted] == list(range(300))
    assert {pid for _, pid in noted} == pids(where)
    assert sorted(number for number, _ in forkgen(where, with_pid, range(300), chunksize)) == list(range(300))
    assert {pid for _, pid in forkgen(where, with_pid, range(300), chunksize)} <= pids(where)
    assert {pid for _, pid in forkjoin(where, with_pid, range(300))} <= pids(where)


def with_pid(number):
    tasks.slow_square(number)
    return number, os.getpid()


def test_a_slow_item_holds_up_nothing_behind_it_on_some_of_the_vms(tmp_path):
    """The slow one ends only when all others are done, which one of the two VMs must do alone."""
    vms = connect(3)[:2]
    log = str(tmp_path / "log")

    assert forkjoin(vms, wait_for_the_others, [(log, n, 12) for n in range(12)]) == list(range(12))


def wait_for_the_others(log, number, count):
    if number == 0:
        tasks.wait_until(lambda: len(tasks.lines(log)) == count - 1)
    else:
        tasks.note(log, number)
    return number


def test_forkgen_gives_results_as_they_come(tmp_path):
    vms = connect(2)
    gate = tasks.Gate(tmp_path / "gate")
    results = forkgen(vms, only_zero_waits, [(gate, n) for n in range(6)])
    first = [next(results) for _ in range(5)]
    gate.open()

    assert (sorted(first), list(results)) == ([1, 2, 3, 4, 5], [0])


def only_zero_waits(gate, number):
    return number if number else gate(number)


def test_no_vms_or_no_items():
    assert forkjoin(connect(1), abs, []) == []
    with pytest.raises(ValueError, match="no VM to run on"):
        forkjoin([], abs, [1])


def test_what_an_item_raises_is_raised():
    with pytest.raises(ValueError, match="3") as caught:
        forkjoin(connect(2), tasks.odd_ones_raise, [0, 2, 3])
    assert "in odd_ones_raise" in str(caught.value.__cause__)


# --------------------------------------------------------------------------------------------------- deaths


def test_a_fork_whose_vm_is_killed_fails_and_the_others_go_on(tmp_path):
    vms = connect(2)
    gate = tasks.Gate(tmp_path / "gate")
    handles = forkall(vms, gate, "through")
    behind = fork(vms[0], tasks.square, 3)
    gate.wait_for(2)
    kill(vms[0])

    with pytest.raises(WorkerLost, match="SIGKILL"):
        join(handles[0])
    with pytest.raises(WorkerLost, match="which is gone"):
        join(behind)
    gate.open()
    assert join(handles[1]) == "through"


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("chunksize", [1, 5])
def test_forkjoin_goes_on_elsewhere_when_a_vm_is_killed(tmp_path, subset, chunksize):
    vms = connect(3)
    where = vms[:2] if subset else vms
    path = str(tmp_path / "died")
    results = forkwork(where, die_on, [(path, vms[0]["pid"], n) for n in range(60)], chunksize=chunksize)

    assert [number for number, _ in results] == list(range(60))
    if subset:
        assert {pid for _, pid in results} == {vms[1]["pid"]}
    assert tasks.lines(path) == ["died"]


def die_on(path, victim, number):
    """Nobody else does anything before the victim has died of its first item."""
    if os.getpid() == victim:
        tasks.note(path, "died")
        tasks.kill_itself()
    tasks.wait_until(lambda: tasks.lines(path))
    return number, os.getpid()


@pytest.mark.parametrize("subset", [False, True])
def test_what_was_given_back_of_a_chunk_does_not_run_again_when_its_vm_dies(tmp_path, subset):
    """The first item waits until all others are done, by the other VM, and then kills its own."""
    vms = connect(2 + subset)
    log = str(tmp_path / "log")

    assert forkwork(vms[:2], die_when_others_are_done, [(log, n) for n in range(12)], chunksize=6) == list(range(12))
    assert sorted(map(int, tasks.lines(log))) == sorted([*range(1, 12), 0, 0])


def die_when_others_are_done(log, number):
    if number == 0:
        tasks.wait_until(lambda: len(tasks.lines(log)) >= 11)
    tasks.note(log, number)
    if number == 0 and tasks.lines(log).count("0") == 1:
        tasks.kill_itself()
    return number


@pytest.mark.parametrize("chunksize", [1, 5])
def test_forkjoin_fails_when_none_of_its_vms_is_left(chunksize):
    vms = connect(2)

    with pytest.raises(WorkerLost):
        forkwork(vms[:1], tasks.kill_itself, range(20), chunksize=chunksize)
    assert forkjoin(vms[1:], tasks.square, [3]) == [9]


# ----------------------------------------------------------------------------------------------- as a script


def test_a_script_that_forgets_to_disconnect_ends_all_the_same(tmp_path):
    path = tools.script(
        tmp_path,
        "from river.trickle import *\n"
        "from river.session import run\nimport vrs\n"
        "if __name__ == '__main__':\n"
        "    vms = connect(2)\n"
        "    print(sum(forkjoin(vms, sum, [range(i, i + 250) for i in range(0, 1000, 250)])))\n"
        "    obj = vms[0].list([1])\n"
        "    run(vrs.Does, lambda vr: vr.deploy(vms, cls=vrs.Does, args=(vrs.wait,)))\n",
    )

    assert tools.python(path) == "499500\n"


def test_the_names_of_trickle_are_the_talks():
    talk = {"connect", "inject", "fork", "join", "forkall", "joinall", "forkjoin"}

    assert talk <= set(trickle.__all__) and all(hasattr(trickle, name) for name in trickle.__all__)
