"""What the tests of the post share: the posts of two processes, both in this one.

May not: test anything.
"""

import socket

import pytest

from river._core.connection import Connection, pair
from river._core.homes import new_home
from river._core.post import Post


def connect(maker, other):
    """`maker` makes a line to the other one, which adopts it."""
    ours, theirs = pair()
    with maker._lock:
        maker._take_in(other.home, Connection(ours))
    return lambda: other.adopt(maker.home, theirs.detach(), False)


@pytest.fixture
def posts():
    """The posts of two processes, each of which has made a line to the other at the same moment."""
    here, there = Post(new_home()), Post(new_home())
    for adopt in [connect(here, there), connect(there, here)]:
        adopt()
    yield here, there
    for post in (here, there):
        post._residents.forget()
        post._rest_if_unused()
    for line in list(here._all.values()):  # whoever reads finds the ends
        line.connection._sock.shutdown(socket.SHUT_RDWR)
