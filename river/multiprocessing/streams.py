"""Streams: a socket between any two processes of a program, wherever they are.

    dial(home, name) --one end of a pair, by introductions--> answer(name, ...) in the process of that home
        the other end is the caller's at once; it ends if there is no such process, or nobody there answers to the name

On one machine it is a pair of sockets; between two machines River carries its bytes.  Over such a stream a descriptor
is fetched that was pickled (`offer`): as it is on the same machine, and bridged on another one.

May not: know what goes over a stream.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import itertools
import multiprocessing.process
import os
import pickle
import socket
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from .._core import bridge, introductions
from .._core.connection import pair
from .._core.homes import place

_CMSG = socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 0
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# What the other side says first.
_HERE, _CARRIED = b"h", b"c"
# The longest path that a Unix socket has everywhere.
_LONGEST = 103
_numbers = itertools.count()


def dial(home: str, name: str, *said: Any) -> socket.socket:
    """A stream to whoever answers to this name in the process of that UUID.  `said` is told there, and plain."""
    ours, theirs = pair()
    payload = pickle.dumps((home, place().home, False, name, *said), 5)
    introductions.introduced(payload, theirs.detach())
    return ours


def answer(name: str, acceptor: Callable[..., None]) -> None:
    """Let it have the streams for this name, and whether they are carried, and what was said.

    It is called by whoever reads, and may not wait."""
    introductions.acceptors[name] = acceptor


def answer_in_thread(name: str, module: str) -> None:
    """Let `serve` of this module have each of them, in a thread of its own; it is imported when it is needed."""

    def accept(stream: socket.socket, is_carried: bool) -> None:
        threading.Thread(target=serve, args=(stream,), name=f"river-{name}", daemon=True).start()

    def serve(stream: socket.socket) -> None:
        importlib.import_module(module).serve(stream)

    answer(name, accept)


def is_reachable() -> bool:
    """Whether others of the program find this process: not if it is a fork of one, nor do forks of this one."""
    is_known = not _is_fork or place().up is not None or bool(place().down)
    children = list(multiprocessing.process._children)  # type: ignore[attr-defined]  # its types do not tell of it
    return is_known and not any(child._popen.method == "fork" for child in children)


_is_fork = False


# -- descriptors that were pickled ----------------------------------------------------------------------------------


class Offer(NamedTuple):
    """A descriptor that is kept by the process of that home until somebody detaches it; once."""

    home: str
    number: int

    def detach(self) -> int:
        """The descriptor, or one that leads to it.  Raises OSError if there is none any more."""
        if place().is_home_of(self.home):
            found = _offered.pop(self.number, None)
        else:
            found = fetch(self.home, "descriptor", self.number)
        if found is None:
            raise OSError(
                "a pipe's end that was sent cannot be had: the process that sent it has ended or cannot be reached, "
                "or another one has unpickled it before"
            )
        return found


_offered: dict[int, int] = {}


def offer(descriptor: int) -> Offer:
    """Keep a descriptor for whoever unpickles what this returns; the caller keeps his own."""
    number = next(_numbers)
    _offered[number] = os.dup(descriptor)
    return Offer(place().home, number)


def fetch(home: str, name: str, number: int) -> int | None:
    """A descriptor that whoever answers to this name hands over, or one that leads to it; None if he has none."""
    with dial(home, name, number) as stream:
        said, ancillary, _, _ = stream.recvmsg(1, _CMSG, _CLOEXEC)
        if said == _CARRIED:
            return stream.detach()
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                return array.array("i", data)[0]
    return None


def hand_over(stream: socket.socket, is_carried: bool, descriptor: int | None) -> None:
    """The answer to `fetch`; the descriptor is closed here."""
    if descriptor is None:
        stream.close()
    elif is_carried:
        stream.send(_CARRIED)
        bridge.begin(descriptor, stream)
    else:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        with stream, contextlib.suppress(OSError):  # whoever asked may have ended
            stream.sendmsg([_HERE], rights)
        os.close(descriptor)


def _hand_over_offered(stream: socket.socket, is_carried: bool, number: int) -> None:
    hand_over(stream, is_carried, _offered.pop(number, None))


# -- addresses ------------------------------------------------------------------------------------------------------


def new_address(directory: str) -> str | None:
    """A path for a Unix socket of this process, by which others find it; None if it would be too long."""
    home = place().home[:28].replace("-", "")
    path = os.path.join(directory, f"listener-{home}-{next(_numbers)}")
    return path if len(os.fsencode(path)) <= _LONGEST else None


def home_of(path: Any) -> str | None:
    """The UUID of the process that has made this address; None if it is another kind of address."""
    name = os.path.basename(path) if isinstance(path, str) else ""
    digits = name.removeprefix("listener-").partition("-")[0]
    if not name.startswith("listener-") or len(digits) != 24:
        return None
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:] + "00000000"))


def reach(path: str) -> socket.socket | None:
    """A stream to whoever listens at this path in the process that made it; None if that cannot be had."""
    home = home_of(path)
    if home is None or place().is_home_of(home):
        return None
    stream = dial(home, "listener", path)
    if stream.recv(1) == _CARRIED:
        return stream
    stream.close()
    return None


def _connect(stream: socket.socket, is_carried: bool, path: str) -> None:
    home = home_of(path)
    if home is None or not place().is_home_of(home):
        stream.close()
    else:  # connecting may take a while
        threading.Thread(target=_pass_on, args=(stream, path), name="river-listener", daemon=True).start()


def _pass_on(stream: socket.socket, path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.connect(path)
        stream.send(_CARRIED)
    except OSError:
        listener.close()
        stream.close()
        return
    bridge.begin(listener.detach(), stream)


answer("descriptor", _hand_over_offered)
answer("listener", _connect)


def _forked() -> None:
    """In a child: what is offered is the parent's."""
    global _is_fork
    _is_fork = True
    for descriptor in _offered.values():
        os.close(descriptor)
    _offered.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
