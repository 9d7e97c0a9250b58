"""One incarnation of a machine: whoever turns its loop waits for nothing."""

import socket
import threading
import types

import pytest
from tasks import wait_until

from river._core.loop import Loop
from river._core.way import Pipes
from river.incarnation import Incarnation


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
