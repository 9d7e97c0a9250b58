"""Introductions: one end of a line that passes from process to process until it is with the one it is meant for.

    VM --INTRODUCE--> its driver --INTRODUCE--> VM that it asks for

Most lines are the post's.  One may be meant for somebody else there, by name: it is a stream of bytes then, which is
his (see `multiprocessing.streams`).

May not: make a line, or read one.
May import only the standard library and its neighbours: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from typing import Any

from .homes import place

# Who takes streams in this process, by name.  Called by whoever reads: with the stream, whether it is carried (to
# another machine, perhaps), and what else was said; he may not wait.
acceptors: dict[str, Callable[..., None]] = {}


def introduced(payload: bytes, descriptor: int) -> None:
    """An end of a line has come, for this process or another one; it is closed if nobody knows that one."""
    target, source, is_carried, *stream = pickle.loads(payload)
    here = place()
    way = here.way_to(target)
    if here.is_home_of(target) and stream:
        _accepted(descriptor, is_carried, *stream)
    elif here.is_home_of(target):
        from .post import the_post  # ranks and processes exchange no packets

        the_post().adopt(source, descriptor, is_carried)
    elif way is None:
        os.close(descriptor)
    else:
        way(payload, descriptor)


# What came before this process was ready for it.
_early: list[tuple[Any, ...]] = []


def _accepted(descriptor: int, is_carried: bool, name: str, *said: object) -> None:
    acceptor = acceptors.get(name)
    if acceptor is not None:
        acceptor(socket.socket(fileno=descriptor), is_carried, *said)
    elif place().attend is not None:  # it only reads while it imports what is to answer, say
        _early.append((descriptor, is_carried, name, *said))
    else:
        os.close(descriptor)


def admit() -> None:
    """This process is ready: let those in who have come."""
    while _early:
        _accepted(*_early.pop(0))


def far(payload: bytes) -> bytes:
    """The same for a line that passes between two machines, and so cannot share memory."""
    target, source, _, *stream = pickle.loads(payload)
    return pickle.dumps((target, source, True, *stream), 5)
