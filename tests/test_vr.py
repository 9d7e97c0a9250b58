"""VirtualResources: deployed, exchanging packets, ending and dying.

`program` runs a function as the main of an initiator; what it deploys is in `vrs`.
"""

import contextlib
import importlib
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import uuid as uuids

import pytest
import tasks
import tools
import vrs

import river.trickle
from river._core.connection import Connection
from river._core.homes import new_resident
from river._core.packet import ANY, any_of
from river.errors import PacketError, RemoteError, TimeoutError, VirtualResourceLost, VMsNotFound, WorkerLost
from river.session import run
from river.vr import VirtualResource

CHANCE_SEED = int.from_bytes(os.urandom(4), "big")  # reported by the test that fails


@pytest.fixture
def program():
    """program(body, vms): run `body(vr)` as the main of an initiator with so many VMs; returns what it returns."""
    yield lambda body, n=2, cls=vrs.Does: run(cls, body, n=n)
    river.trickle.disconnect()


def deploy(vr, function, *args, n=1, cls=vrs.Does):
    """VRs that call this function, each in a VM of its own; returns their mappings."""
    return vr.deploy(vr.allocate(vr.discover(), n), cls=cls, args=(function, *args))


def deployed(vr, function, *args, cls=vrs.Does):
    (entry,) = deploy(vr, function, *args, cls=cls)
    return entry["uuid"]


def kill(entry):
    os.kill(entry["pid"], signal.SIGKILL)


# ------------------------------------------------------------------------------------------------- its life


def test_the_initiator_prepares_and_then_runs_in_the_callers_thread_without_a_parent(program):
    def body(vr):
        return vr.parent, threading.get_ident(), vr.children

    assert program(body) == (None, threading.get_ident(), [])


def test_a_program_whose_vr_init_says_no_has_no_main(program):
    class Hesitant(VirtualResource):
        def vr_init(self):
            return []

        def main(self):
            raise AssertionError("main was run")

    assert run(Hesitant, n=1) is None
    assert program(lambda vr: "main") == "main"


def test_a_vr_without_a_main_says_so(program):
    with pytest.raises(NotImplementedError, match="VirtualResource has no main()"):
        run(VirtualResource, n=1)


def test_what_the_initiators_main_raises_is_raised(program):
    def body(vr):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        program(body)


def test_each_vr_has_a_thread_of_its_own_in_its_vm_and_a_uuid_and_its_arguments(program):
    def body(vr):
        entries = deploy(vr, vrs.say_hello_and_wait, 1, "two", n=2)
        hellos = [vr.recv(src=entry["uuid"]) for entry in entries]
        return entries, hellos, vr.children, vr.discover()

    entries, hellos, children, vms = program(body)

    assert [h.uuid for h in hellos] == [entry["uuid"] for entry in entries] == children
    assert [h.pid for h in hellos] == [entry["pid"] for entry in entries] == [vm["pid"] for vm in vms]
    assert [entry["vm"] for entry in entries] == [vm["uuid"] for vm in vms]
    assert {h.args for h in hellos} == {(1, "two")}
    assert os.getpid() not in {h.pid for h in hellos}


def test_several_vrs_share_a_vm_each_with_its_own_thread_and_mailbox(program):
    def body(vr):
        (vm,) = vr.discover()
        entries = vr.deploy([vm] * 3, cls=vrs.Does, args=(vrs.answer,))
        said = [entry["uuid"] for entry in vr.deploy([vm] * 2, cls=vrs.Does, args=(vrs.say_hello_and_wait,))]
        for number, entry in enumerate(entries):
            vr.send(dest=entry["uuid"], tag="n", number=number)
        numbers = [vr.recv(src=entry["uuid"]).number for entry in entries]
        return numbers, {vr.recv(src=uuid).thread for uuid in said}, {entry["pid"] for entry in entries}

    numbers, threads, pids = program(body, 1)

    assert (numbers, len(threads), len(pids)) == ([0, 1, 2], 2, 1)


SAME_CLASSES = """
import threading
import river

class Mine(Exception):
    pass

class Thing:
    pass

class Child(river.VirtualResource):
    def __init__(self, thing, function=None):
        if not isinstance(thing, Thing):
            raise Mine("no thing")
        self.value = function()

    def main(self):
        self.send(self.parent, value=self.value)

class Parent(river.VirtualResource):
    def main(self):
        vms = self.discover()[-1:]
        try:
            self.deploy(vms, cls=Child, args=(None,))
        except Mine as error:
            said = [str(error), "Mine" in str(error.__cause__)]
        self.deploy(vms, cls=Child, args=(Thing(), lambda: 7))
        said.append(self.recv(value=river.ANY).value)
        if self.parent is not None:
            return self.send(self.parent, said=said)
        self.deploy(self.discover()[:1], cls=Parent)
        return said, self.recv(said=river.ANY).said

if __name__ == "__main__":
    if START == "fresh":
        threading.Thread(target=threading.main_thread().join).start()  # with two threads there is no fork
    print(river.run(Parent, n=2))
"""


@pytest.mark.parametrize("start", ["forked", "fresh"])
def test_a_vr_in_a_vm_deploys_the_same_classes_as_the_initiator(start, tmp_path):
    path = tools.script(tmp_path, f"START = {start!r}\n{SAME_CLASSES}")

    assert tools.python(path) == "(['no thing', True, 7], ['no thing', True, 7])\n"


def test_what_a_vr_in_a_vm_cannot_deploy_is_its_error(program):
    def body(vr):
        deployed(vr, tell, deploy_a_lock)
        return vr.recv(tag="told").what

    kind, text, children = program(body)

    assert (kind, children) == ("TypeError", []) and "lock" in text


def deploy_a_lock(vr):
    try:
        vr.deploy(vr.discover(), args=(threading.Lock(),))
    except TypeError as error:
        return type(error).__name__, str(error), vr.children


def test_vrs_in_vms_find_vms_and_deploy_others_there(program):
    def body(vr):
        deployed(vr, vrs.tell_of_children, vrs.say_hello, 2)
        packet = vr.recv(tag="children")
        return packet, [vm["pid"] for vm in vr.discover()], vr.children

    packet, pids, children = program(body)

    assert packet.pids == pids and packet.own == pids[0]
    assert len(packet.children) == 2 and not set(packet.children) & set(children)


def test_what_a_vr_prints_is_seen_though_its_program_ends_at_once(tmp_path):
    path = tools.script(
        tmp_path,
        "import vrs\nfrom river.session import run\n"
        "def body(vr):\n"
        "    vr.deploy(vr.discover(), cls=vrs.Does, args=(vrs.print_and_tell, 'from afar'))\n"
        "    vr.recv(tag='printed')\n"
        "if __name__ == '__main__':\n"
        "    run(vrs.Does, body, n=1)\n",
    )

    assert tools.python(path) == "from afar\n"


def test_vrs_live_while_their_vm_runs_tasks(program):
    def body(vr):
        vm = vr.discover()[0]
        uuid = deployed(vr, vrs.answer)
        handles = [river.trickle.fork(vm, tasks.slow_square, number) for number in range(50)]
        for number in range(50):
            vr.send(dest=uuid, tag="echo", number=number)
        echoes = [vr.recv(src=uuid).number for _ in range(50)]
        return echoes, river.trickle.joinall(handles)

    assert program(body) == (list(range(50)), [n * n for n in range(50)])


def test_a_vr_answers_while_a_task_of_its_vm_does_not_end(program, tmp_path):
    gate = tasks.Gate(tmp_path / "gate")

    def body(vr):
        vm = vr.discover()[0]
        uuid = deployed(vr, vrs.answer)
        handle = river.trickle.fork(vm, gate, "task")
        gate.wait_for(1)
        vr.send(dest=uuid, tag="echo", number=1)
        number = vr.recv(src=uuid).number
        gate.open()
        return number, handle.result()

    assert program(body) == (1, "task")


# ---------------------------------------------------------------------------------- discover, allocate, deploy


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({}, 2),
        ({"pid": ANY}, 2),
        ({"load": lambda load: load >= 0, "memory": lambda free: free > 0, "cpus": lambda n: n >= 1}, 2),
        ({"memory": lambda free: free < 0}, 0),
        ({"host": "no such host"}, 0),
        ({"colour": "red"}, 0),
        ({"name": any_of("local/none")}, 0),
    ],
)
def test_discover_selects_vms_by_the_rules_of_packets(program, attributes, found):
    assert len(program(lambda vr: vr.discover(**attributes))) == found


def test_discover_finds_one_vm_by_what_it_alone_has(program):
    def body(vr):
        first, second = vr.discover()
        return first, vr.discover(pid=first["pid"]), vr.discover(uuid=any_of(first["uuid"], "x")), second

    first, by_pid, by_uuid, second = program(body)

    assert by_pid == by_uuid == [first] != [second]


def test_a_vr_in_a_vm_discovers_the_same(program):
    def body(vr):
        deployed(vr, vrs.tell_of_children, vrs.say_hello, 1)
        vr.recv(tag="children")
        return True

    assert program(body)


def test_allocate_takes_the_first_vms_and_refuses_more_than_there_are(program):
    def body(vr):
        vms = vr.discover()
        assert vr.allocate(vms) == vms and vr.allocate(vms, 1) == vms[:1] and vr.allocate(vms, 0) == []
        vr.allocate(vms, 3)

    with pytest.raises(ValueError, match="3 VMs were asked for, and 2 discovered"):
        program(body)


ONE = """
from river.vr import VirtualResource
class Base(VirtualResource): pass
class Only(Base):
    def main(self):
        self.send(dest=self.parent, tag="only", name=type(self).__name__)
"""


@pytest.mark.parametrize("by_name", [True, False])
def test_the_one_vr_of_a_module_is_deployed(program, monkeypatch, tmp_path, by_name):
    tools.script(tmp_path, ONE, "only_one.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "only_one", raising=False)
    only_one = importlib.import_module("only_one")

    def body(vr):
        vr.deploy(vr.discover(), module="only_one" if by_name else only_one)
        return [vr.recv(tag="only").name for _ in range(2)]

    assert program(body) == ["Only", "Only"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "vrs",
            r"module 'vrs' should define one VirtualResource, and has DoesWithLittleRoom, Fails; use deploy\(..., cls=",
        ),
        ("tasks", "module 'tasks' should define one VirtualResource, and has none"),
        ("no_such_module", "module 'no_such_module' is not loaded; import it, or give the class itself"),
    ],
)
def test_a_module_without_exactly_one_vr_is_refused(program, name, text):
    with pytest.raises(LookupError, match=text):
        program(lambda vr: vr.deploy(vr.discover(), module=name))


def test_without_module_or_class_a_vr_deploys_its_own_class(program):
    def body(vr):
        vr.deploy(vr.allocate(vr.discover(), 1), args=(vrs.say_hello,))
        return vr.recv().tag

    assert program(body) == "hello"


def test_to_deploy_on_a_vm_that_is_gone_or_none_of_the_programs_is_refused(program):
    def body(vr):
        first = dict(vr.discover()[0])
        os.kill(first["pid"], signal.SIGKILL)
        tasks.wait_until(lambda: first["uuid"] not in [vm["uuid"] for vm in vr.discover()])
        with pytest.raises(VMsNotFound, match=f"VM {first['uuid']} is gone"):
            vr.deploy([first], cls=vrs.Does, args=(vrs.end,))
        vr.deploy([{"uuid": str(uuids.uuid4())}], cls=vrs.Does, args=(vrs.end,))

    with pytest.raises(VMsNotFound, match="is gone, or not of this program"):
        program(body)


def test_a_vm_that_dies_while_a_vr_is_put_there_is_an_error_of_deploy(program):
    with pytest.raises(WorkerLost, match="SIGKILL"):
        program(lambda vr: vr.deploy(vr.discover(), cls=vrs.Fails, args=(vrs.die,)))


class FailsThere(vrs.Does):
    """Cannot be made in the VM with this pid."""

    def __init__(self, pid, *what):
        if os.getpid() == pid:
            vrs.fail(self)
        super().__init__(*what)


def half_deployed(vr):
    """What a VR finds when one of the two that it deploys cannot be made."""
    first, second = vr.discover()
    try:
        vr.deploy([first, second], cls=FailsThere, args=(first["pid"], vrs.answer))
    except ZeroDivisionError as error:
        (entry,) = error.deployed
        cause = str(error.__cause__)
    vr.send(dest=entry["uuid"], tag="are you there?")
    return vr.recv(src=entry["uuid"]).tag, vr.children == [entry["uuid"]], entry["vm"] == second["uuid"], cause


def tell(vr, function):
    vr.send(dest=vr.parent, tag="told", what=function(vr))


@pytest.mark.parametrize("is_far", [False, True], ids=["by the initiator", "by a VR in a VM"])
def test_where_one_cannot_be_deployed_the_others_are_children_and_named_in_the_error(program, is_far):
    def body(vr):
        if not is_far:
            return half_deployed(vr)
        deployed(vr, tell, half_deployed)
        return vr.recv(tag="told").what

    *found, cause = program(body)

    assert found == ["are you there?", True, True]
    assert "in fail" in cause


# ----------------------------------------------------------------------------------------------- exceptions


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        (vrs.fail, ZeroDivisionError, "on purpose"),
        (vrs.exit_with_reason, SystemExit, "nothing to do"),
        (vrs.fail_unsendably, RemoteError, "Unsendable: kept to itself"),
    ],
)
@pytest.mark.parametrize("where", ["init", "main"])
def test_an_exception_reaches_the_parent_with_the_far_traceback(program, where, how, kind, text):
    def body(vr):
        if where == "init":
            vr.deploy(vr.allocate(vr.discover(), 1), cls=vrs.Fails, args=(how,))
        deployed(vr, how)
        vr.recv()

    with pytest.raises(kind, match=text) as caught:
        program(body)
    assert f"in {how.__name__}" in str(caught.value.__cause__)
    assert "vrs.py" in str(caught.value.__cause__).splitlines()[3]  # the first frame is the user's


def test_a_vr_that_exits_without_a_reason_has_simply_ended(program):
    def body(vr):
        uuid = deployed(vr, vrs.exit_without_reason)
        with pytest.raises(VirtualResourceLost, match=f"VR {uuid} has ended, and no packet that matches is left"):
            vr.recv(src=uuid)
        with pytest.raises(TimeoutError):
            vr.recv(timeout=0)

    program(body)


def test_what_a_child_raised_is_told_once_and_then_that_it_is_gone(program):
    def body(vr):
        uuid = deployed(vr, vrs.fail)
        with pytest.raises(ZeroDivisionError):
            vr.recv(src=uuid)
        with pytest.raises(VirtualResourceLost, match=f"VR {uuid} failed with ZeroDivisionError: on purpose"):
            vr.recv(src=uuid)
        with pytest.raises(queue.Empty):
            vr.recv_nowait()

    program(body)


@pytest.mark.parametrize("function", [vrs.fail, vrs.fail_unsendably, vrs.exit_with_reason])
@pytest.mark.parametrize("cls", [vrs.Does, vrs.Fails])
def test_a_grandchilds_exception_reaches_the_child(program, function, cls):
    def body(vr):
        deployed(vr, vrs.tell_of_trouble, function, cls)
        return vr.recv(tag="trouble")

    told = program(body)

    assert told.kind == {"fail": "ZeroDivisionError", "exit_with_reason": "SystemExit"}.get(
        function.__name__, "RemoteError"
    )
    assert f"in {function.__name__}" in told.cause


def test_a_failure_is_told_though_packets_to_the_child_are_on_their_way(program):
    """The answer to a packet that came too late says only that the child has ended."""

    def body(vr):
        for _ in range(30):
            uuid = deployed(vr, vrs.fail_when_told)
            vr.send(dest=uuid, tag="go")
            with contextlib.suppress(VirtualResourceLost):
                for _ in range(200):
                    vr.send(dest=uuid, tag="more")
            with pytest.raises(ZeroDivisionError):
                while True:
                    with contextlib.suppress(VirtualResourceLost):
                        vr.recv()

    program(body, 1)


# ------------------------------------------------------------------------------------------------- packets


def echoed(program, **values):
    """The packet that comes back."""

    def body(vr):
        uuid = deployed(vr, vrs.answer)
        vr.send(dest=uuid, tag="echo", **values)
        packet = vr.recv(src=uuid)
        return packet, uuid

    return program(body, 1)


def test_packets_carry_values_of_any_kind_and_who_sent_them(program):
    values = {"number": 1, "list": [1, [2]], "none": None, "function": tasks.square, "big": bytes(1 << 20)}
    packet, uuid = echoed(program, **values)

    assert {name: packet[name] for name in values} == values and packet.src == uuid


def test_a_value_that_cannot_be_sent_is_named_and_nothing_is_sent(program):
    def body(vr):
        uuid = deployed(vr, vrs.answer)
        with pytest.raises(PacketError, match="attribute 'bad'"):
            vr.send(dest=uuid, tag="echo", number=0, bad=lambda: 1)
        with pytest.raises(TypeError, match="src"):
            vr.send(dest=uuid, tag="echo", src="me")
        vr.send(dest=uuid, tag="echo", number=1)
        return vr.recv(src=uuid).number

    assert program(body, 1) == 1


def test_recv_takes_the_first_that_matches_and_leaves_the_others(program):
    def body(vr):
        for number in range(6):
            vr.send(dest=vr.uuid, tag="odd" if number % 2 else "even", number=number)
        assert [p.number for p in vr.packets()] == list(range(6))
        taken = [
            vr.peek(tag="odd").number,
            vr.recv(tag="odd").number,
            vr.recv(number=any_of(4, 5)).number,
            vr.recv(number=lambda n: n > 2).number,
            vr.recv_nowait(tag=ANY).number,
        ]
        return taken, [p.number for p in vr.packets()], vr.peek(tag="none")

    assert program(body) == ([1, 1, 4, 3, 0], [2, 5], None)


def test_recv_nowait_raises_empty_and_recv_with_a_timeout_tells_what_waits(program):
    def body(vr):
        with pytest.raises(queue.Empty):
            vr.recv_nowait()
        with pytest.raises(TimeoutError, match=r"no packet came within 0\.01 s; the mailbox is empty"):
            vr.recv(timeout=0.01)
        vr.send(dest=vr.uuid, tag="other")
        with pytest.raises(
            TimeoutError, match=r"with tag='this' .* 1 that do not match wait, the first with .*'other'"
        ):
            vr.recv(timeout=0.01, tag="this")
        with pytest.raises(queue.Empty):
            vr.recv_nowait(tag="this")

    program(body)


def test_a_predicate_may_use_the_mailbox_that_it_is_asked_for(program):
    def body(vr):
        vr.send(dest=vr.uuid, tag="a", number=1)
        return vr.recv(number=lambda n: vr.peek(tag="a") is not None).number

    assert program(body) == 1


class Looks:
    """Looks into a mailbox when it is compared."""

    vr = None

    def __eq__(self, other):
        return Looks.vr.peek() is not None

    __hash__ = None


def test_a_value_that_is_unpacked_for_a_match_may_use_the_mailbox(program, monkeypatch):
    def body(vr):
        monkeypatch.setattr(Looks, "vr", vr)
        vr.send(dest=vr.uuid, tag=Looks(), number=1)
        return vr.recv(tag="anything", timeout=10).number

    assert program(body) == 1


def test_packets_between_two_vms_do_not_pass_through_the_driver(program, monkeypatch):
    frames = []
    receive = Connection.receive

    def counted(connection):
        come = receive(connection)
        frames.extend(come or ())
        return come

    def body(vr):
        (one, other) = (entry["uuid"] for entry in vr.deploy(vr.discover(), cls=vrs.Does, args=(vrs.answer,)))
        user = vr.deploy(vr.discover()[:1], cls=vrs.Does, args=(vrs.exchange_with_a_task, other, 2000))[0]["uuid"]
        monkeypatch.setattr(Connection, "receive", counted)
        return vr.recv(src=user).number, one

    number, _ = program(body)

    assert number == 2000
    assert len(frames) < 100


def test_vrs_that_know_each_other_go_on_while_their_driver_is_stopped(tmp_path):
    log = tmp_path / "log"
    path = tools.script(
        tmp_path,
        "import sys, vrs\nfrom river.session import run\n"
        "def body(vr):\n"
        "    first, second = vr.discover()\n"
        f"    (notes,) = vr.deploy([first], cls=vrs.Does, args=(vrs.note_what_comes, {str(log)!r}))\n"
        "    vr.deploy([second], cls=vrs.Does, args=(count_for_ever, notes['uuid']))\n"
        "    vr.recv(tag='never')\n"
        "def count_for_ever(vr, dest):\n"
        "    import itertools, time\n"
        "    for number in itertools.count():\n"
        "        vr.send(dest=dest, tag='n', number=number)\n"
        "        time.sleep(0.001)\n"
        "if __name__ == '__main__':\n"
        "    run(vrs.Does, body, n=2)\n",
    )
    process = subprocess.Popen([sys.executable, path], env=tools.surroundings())
    try:
        tasks.wait_until(lambda: tasks.lines(log))
        process.send_signal(signal.SIGSTOP)
        before = len(tasks.lines(log))
        tasks.wait_until(lambda: len(tasks.lines(log)) > before + 100)
    finally:
        process.kill()
        process.wait(30)


# --------------------------------------------------------------------------------------------------- deaths


@pytest.mark.parametrize("how", [vrs.end, vrs.exit_without_reason])
def test_what_a_vr_sent_before_it_ended_comes_before_the_news_of_its_end(program, how):
    def body(vr):
        uuid = deployed(vr, vrs.count, 1000, how)
        numbers = []
        with pytest.raises(VirtualResourceLost):
            while True:
                numbers.append(vr.recv(src=uuid).number)
        return numbers

    for _ in range(10):
        assert program(body, 1) == list(range(1000))


@pytest.mark.parametrize(("how", "kind"), [(vrs.fail, ZeroDivisionError), (vrs.die, VirtualResourceLost)])
def test_what_a_vr_sent_before_it_failed_or_was_killed_comes_before_the_news(program, how, kind):
    def body(vr):
        deployed(vr, vrs.count, 1000, how)
        numbers = []
        with pytest.raises(kind):
            while True:
                numbers.append(vr.recv().number)
        return numbers

    numbers = program(body, 1)

    assert numbers == list(range(len(numbers)))
    assert how is vrs.die or len(numbers) == 1000


def test_recv_from_a_vr_that_never_was_raises_at_once(program):
    def body(vr):
        vm = vr.discover()[0]["uuid"]
        for uuid in (str(uuids.uuid4()), new_resident(vm), new_resident(vr.uuid)):
            with pytest.raises(VirtualResourceLost, match=uuid):
                vr.recv(src=uuid)

    program(body, 1)


def test_recv_from_a_vr_whose_vm_is_killed_raises_though_it_is_nobodys_child(program):
    """The one that waits is not the parent of the one that dies."""

    def body(vr):
        first, second = vr.discover()
        (victim,) = vr.deploy([first], cls=vrs.Does, args=(vrs.wait,))
        (waits,) = vr.deploy([second], cls=vrs.Does, args=(tell_of_the_end_of, victim["uuid"]))
        vr.recv(src=waits["uuid"], tag="watching")
        kill(victim)
        with contextlib.suppress(VirtualResourceLost):
            vr.recv(src=victim["uuid"])
        return vr.recv(src=waits["uuid"]).text, victim["uuid"]

    text, uuid = program(body)

    assert f"VR {uuid} is gone with its VM" in text


def test_who_asks_late_is_told_how_a_vr_has_ended(program):
    def body(vr):
        failed = deployed(vr, vrs.fail)
        with pytest.raises(ZeroDivisionError):
            vr.recv()
        texts = []
        for vm in vr.discover():
            (asks,) = vr.deploy([vm], cls=vrs.Does, args=(tell_of_the_end_of, failed))
            texts.append(vr.recv(src=asks["uuid"], tag="told").text)
        return texts, failed

    texts, uuid = program(body)

    assert [f"VR {uuid} failed with ZeroDivisionError: on purpose" in text for text in texts] == [True, True]


def tell_of_the_end_of(vr, uuid):
    vr.send(dest=vr.parent, tag="watching")
    try:
        vr.recv(src=uuid)
    except VirtualResourceLost as error:
        vr.send(dest=vr.parent, tag="told", text=str(error))


def test_plain_recv_of_a_parent_raises_when_a_childs_vm_is_killed(program):
    def body(vr):
        entry = deploy(vr, vrs.wait)[0]
        threading.Timer(0.05, kill, (entry,)).start()
        with pytest.raises(VirtualResourceLost, match=f"VR {entry['uuid']}, a child of this one, is gone with its VM"):
            vr.recv()
        with pytest.raises(VirtualResourceLost):
            vr.recv_nowait(src=entry["uuid"])

    program(body)


def test_recv_from_one_of_several_raises_only_when_all_are_gone(program):
    def body(vr):
        one, other = deploy(vr, vrs.answer, n=2)
        either = any_of(one["uuid"], other["uuid"])
        kill(one)
        with pytest.raises(VirtualResourceLost, match="a child of this one"):
            vr.recv(src=either)
        vr.send(dest=other["uuid"], tag="echo")
        assert vr.recv(src=either).src == other["uuid"]
        vr.send(dest=other["uuid"], tag="end")
        with pytest.raises(VirtualResourceLost) as caught:
            vr.recv(src=either)
        return all(entry["uuid"] in str(caught.value) for entry in (one, other))

    assert program(body)


def test_to_send_to_a_vr_that_is_gone_raises_as_soon_as_that_is_known(program):
    def body(vr):
        ended, killed = deploy(vr, vrs.wait, n=2)
        vr.send(dest=ended["uuid"], tag="end")
        kill(killed)
        for entry, text in ((ended, f"{ended['uuid']} has ended"), (killed, f"process of {killed['uuid']} is gone")):
            wait_for_the_end_of(vr, entry["uuid"])
            with pytest.raises(VirtualResourceLost, match=text):
                vr.send(dest=entry["uuid"], tag="more")

    program(body)


def wait_for_the_end_of(vr, uuid):
    """Whatever else it hears meanwhile."""
    while True:
        try:
            vr.recv(src=uuid)
        except VirtualResourceLost as error:
            if "no packet that matches is left" in str(error):
                return


def test_a_vm_that_is_killed_ends_nobody_elses_conversation(program):
    def body(vr):
        one, other = deploy(vr, vrs.answer, n=2)
        kill(one)
        for number in range(200):
            vr.send(dest=other["uuid"], tag="echo", number=number)
        numbers = []
        while len(numbers) < 200:
            with contextlib.suppress(VirtualResourceLost):
                numbers.append(vr.recv(src=other["uuid"]).number)
        return numbers

    assert program(body) == list(range(200))


# ---------------------------------------------------------------------------------------------- full mailboxes


@pytest.mark.parametrize("is_local", [False, True], ids=["other VM", "same VM"])
def test_senders_to_a_full_mailbox_wait_until_there_is_room_and_nothing_is_lost(program, is_local):
    def body(vr):
        first, second = vr.discover()
        slow = vr.deploy([first], cls=vrs.DoesWithLittleRoom, args=(take_when_told,))[0]["uuid"]
        fast = vr.deploy([first if is_local else second], cls=vrs.Does, args=(fill_up, slow))[0]["uuid"]
        sent = vr.recv(src=fast, tag="full").sent
        vr.send(dest=slow, tag="go", number=sent + 1)
        return sent, vr.recv(src=slow).numbers

    sent, numbers = program(body)

    assert numbers == list(range(sent + 1))
    assert sent < 100_000


def take_when_told(vr):
    """Takes nothing before it is told; it does not wait for that in `recv`, which would make room."""
    while (told := vr.peek(tag="go")) is None:
        threading.Event().wait(0.002)
    vr.send(dest=vr.parent, tag="taken", numbers=[vr.recv(tag="fill").number for _ in range(told.number)])


def fill_up(vr, dest):
    sent = 0
    try:
        while sent < 100_000:
            vr.send(dest=dest, tag="fill", number=sent, timeout=0.5)
            sent += 1
    except TimeoutError:
        vr.send(dest=vr.parent, tag="full", sent=sent)
    vr.send(dest=dest, tag="fill", number=sent)


def test_senders_to_a_full_mailbox_go_on_when_its_owner_ends_or_dies(program):
    def body(vr):
        for how in ("end", "kill"):
            first, second = vr.discover()
            (slow,) = vr.deploy([first], cls=vrs.DoesWithLittleRoom, args=(end_when_told,))
            fast = vr.deploy([second], cls=vrs.Does, args=(fill_up_for_ever, slow["uuid"]))[0]["uuid"]
            vr.recv(src=fast, tag="full")
            kill(slow) if how == "kill" else vr.send(dest=slow["uuid"], tag="go")
            text = ""
            while not text:
                with contextlib.suppress(VirtualResourceLost):
                    text = vr.recv(src=fast, tag="lost").text
            assert slow["uuid"] in text

    program(body)


def end_when_told(vr):
    while vr.peek(tag="go") is None:
        threading.Event().wait(0.002)


def fill_up_for_ever(vr, dest):
    try:
        while True:
            try:
                vr.send(dest=dest, tag="fill", timeout=0.5)
            except TimeoutError:
                vr.send(dest=vr.parent, tag="full")
                while True:
                    vr.send(dest=dest, tag="fill")
    except VirtualResourceLost as error:
        vr.send(dest=vr.parent, tag="lost", text=str(error))


@pytest.mark.parametrize("is_local", [False, True], ids=["other VM", "same VM"])
def test_a_full_mailbox_does_not_keep_out_what_its_owner_waits_for(program, is_local):
    def body(vr):
        first, second = vr.discover()
        picky = vr.deploy([first], cls=vrs.DoesWithLittleRoom, args=(wait_for_the_last,))[0]["uuid"]
        vr.deploy([first if is_local else second], cls=vrs.Does, args=(send_the_last, picky))
        return vr.recv(src=picky).waiting

    assert program(body) == 5000


def wait_for_the_last(vr):
    vr.recv(tag="last")
    vr.send(dest=vr.parent, waiting=sum(1 for _ in vr.packets()))


def send_the_last(vr, dest):
    for number in range(5000):
        vr.send(dest=dest, tag="other", number=number)
    vr.send(dest=dest, tag="last")


@pytest.mark.parametrize("cls", [vrs.Does, vrs.DoesWithLittleRoom], ids=["unbounded", "bounded"])
@pytest.mark.parametrize("ring", [1, 2, 3, 4])
@pytest.mark.parametrize("vms", [1, 2], ids=["one VM", "two VMs"])
def test_those_that_send_round_a_ring_before_they_receive_do_not_wait_for_each_other(program, cls, ring, vms):
    def body(vr):
        where = (vr.discover() * ring)[:ring]
        return flooded(vr, vr.deploy(where, cls=cls, args=(vrs.flood, 3000, 10)))

    assert program(body, vms) == [3000] * ring


def flooded(vr, entries):
    """Let each send to the next; how many good packets each has received."""
    ring = [entry["uuid"] for entry in entries]
    for index, uuid in enumerate(ring):
        vr.send(dest=uuid, tag="peers", to=ring[(index + 1) % len(ring)], of=ring[index - 1])
    return [vr.recv(src=uuid, tag="flooded").good for uuid in ring]


@pytest.mark.parametrize("cls", [vrs.Does, vrs.DoesWithLittleRoom], ids=["unbounded", "bounded"])
def test_two_that_send_a_gigabyte_each_before_they_receive_do_not_deadlock(program, cls):
    def body(vr):
        return flooded(vr, vr.deploy(vr.discover(), cls=cls, args=(vrs.flood, 1000, 1 << 20)))

    assert program(body) == [1000, 1000]


# ------------------------------------------------------------------------------------------- the fault test


@pytest.mark.parametrize("seed", [1, 2, 3, CHANCE_SEED], ids=["1", "2", "3", "by chance"])
def test_survivors_of_any_deaths_see_no_gap_duplicate_or_reordering(program, seed):
    """Four VRs in four VMs send 100,000 numbered packets; VRs fail and VMs are killed in the middle of it."""
    chance = random.Random(seed)
    each = 100_000 // 12 + 1
    failing, killed = chance.sample(range(4), 2) if chance.random() < 0.7 else (None, chance.randrange(4))
    watched = chance.choice([index for index in range(4) if index != killed and index != failing])

    def body(vr):
        entries = []
        for index, vm in enumerate(vr.discover()):
            tell_at = chance.randrange(each) if index == watched else None
            end_at = chance.randrange(each) if index == failing else None
            entries += vr.deploy([vm], cls=vrs.Does, args=(vrs.exchange, index, each, tell_at, end_at))
        ring = [entry["uuid"] for entry in entries]
        for uuid in ring:
            vr.send(dest=uuid, tag="others", others=ring)
        reports, pending = {}, set(ring)
        while pending:
            try:
                packet = vr.recv(tag=any_of("report", "progress"), src=any_of(pending))
            except ZeroDivisionError:
                pending.discard(ring[failing])
                continue
            except VirtualResourceLost as error:
                pending = {uuid for uuid in pending if uuid not in str(error)}
                continue
            if packet.tag == "progress":
                kill(entries[killed])
            else:
                reports[packet.src] = packet
                pending.discard(packet.src)
        return ring, reports

    ring, reports = program(body, 4)
    survivors = [uuid for index, uuid in enumerate(ring) if index not in (failing, killed)]

    assert [uuid for uuid in survivors if uuid not in reports] == [], f"seed {seed}"
    assert {uuid: report.wrong for uuid, report in reports.items() if report.wrong} == {}, f"seed {seed}"
    for one in survivors:
        assert all(reports[one].came[other] == each for other in survivors if other != one), f"seed {seed}"
