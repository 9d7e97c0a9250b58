"""One incarnation of a machine, and what all have in common: whoever turns the loop waits for nothing."""

import os
import socket
import threading
import types

import pytest
from tasks import wait_until

from river import machines
from river._core.listener import entrance
from river._core.loop import Loop
from river._core.near import Near
from river._core.way import Pipes
from river.incarnation import FarMachine, Incarnation


class Login(Pipes):
    """A connection whose end takes until it is told to be over."""

    def __init__(self, number):
        super().__init__(number, number)
        self.is_closing, self.may_close = threading.Event(), threading.Event()

    def close(self):
        self.is_closing.set()
        self.may_close.wait(60)
        super().close()


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.release()


def test_the_end_of_a_login_is_waited_for_by_who_lets_go_and_not_by_who_turns_the_loop(loop):
    ours, theirs = socket.socketpair()
    login = Login(ours.detach())
    keeper = types.SimpleNamespace(last_error="")
    now = Incarnation(keeper, loop, None, {"epoch": 7}, threading.Condition())
    line = now.begin(login)
    going = threading.Thread(target=now.let_go)
    going.start()
    wait_until(lambda: loop.turn(0.01) or login.is_closing.is_set(), what="the end of the login")
    loop.turn(0)
    waits = going.is_alive()
    login.may_close.set()
    wait_until(lambda: loop.turn(0.01) or not going.is_alive(), what="the end of all")
    line.close()

    assert waits
    assert theirs.recv(1000) and theirs.recv(1) == b""  # a greeting, and the end
    theirs.close()


def test_lines_to_a_machine_and_its_vms_take_no_socket_of_the_driver(loop):
    keeper = types.SimpleNamespace(host=types.SimpleNamespace(name="node1"))
    machine = FarMachine(keeper, Near(loop), 1, {})
    before = os.listdir("/proc/self/fd")
    line, end = machine.new_line()

    assert (line.loop, line.end) == (loop, end)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("is_late", [False, True])
def test_the_door_of_a_pool_that_ends_while_it_is_opened_is_closed(monkeypatch, is_late):
    loops, opened, failures = [], [], []
    reader = types.SimpleNamespace(turn_along=lambda loop: loops.append(loop) or True)
    all_of_them = machines.Machines(types.SimpleNamespace(reader=reader), [])

    def end():
        all_of_them.end()
        all_of_them.close()

    def entrance_of_one_that_ends():
        opened.append(entrance())
        end()
        return opened[0]

    def ask():
        try:
            all_of_them.door()
        except RuntimeError as error:
            failures.append(str(error))

    monkeypatch.setattr(machines, "entrance", entrance_of_one_that_ends)
    (loop,) = loops
    asking = threading.Thread(target=ask)
    if is_late:
        end()
    asking.start()
    wait_until(lambda: loop.turn(0.01) or not asking.is_alive(), what="the door")
    loop.turn(0)
    loop.release()

    assert [sock.fileno() for sock in opened] == [-1] * (not is_late)
    assert failures == ["the pool ends while its machines are started"] * is_late
