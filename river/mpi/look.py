"""How a rank looks to those who ask whether it can go on: what its threads wait for, what has come, what is under way.

    look(engine, ...) -> Look, plain data          what follows from those of several ranks: see `watch`

A rank in which a thread may do something by itself is not `idle`: nothing follows from how it looks.

May not: wait, or change anything.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .engine.engine import Engine
from .engine.matching import ANY
from .engine.requests import Probing, Receiving, Sending
from .engine.rest import Wait as Waiting

# Threads of River's that only pass on bytes.  What they bring for a wait is news of the engine.
_OURS = ("river-mpi", "river-post", "river-reader", "river-bridge")
# Messages that nobody has received and that are told of.
_MOST = 50
_RIVER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_BOTTOM = "live", os.path.join(_RIVER, "mpi", "rank.py")
# The functions of `signal` without their conversions to enums: each rank asks for all signals before it begins.
_raw_signal: Any = sys.modules.get("_signal", signal)
_PYTHON = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")


class About(NamedTuple):
    """A message that a wait is for: from or (is_going) to this rank, which may be ANY."""

    is_going: bool
    peer: int
    context: int
    tag: int
    size: int


class Wait(NamedTuple):
    """number: no other wait of this process has it. looks: how often what it is for was not there yet.

    peers: the ranks one of which may end it; None: any.  call, place: of the program."""

    number: int
    looks: int
    peers: tuple[int, ...] | None
    call: str
    place: str
    abouts: tuple[About, ...]


class Message(NamedTuple):
    """One that has come and that nobody has received."""

    context: int
    source: int
    tag: int
    size: int


class Communicator(NamedTuple):
    """ranks: those of the job that it has, sorted. calls, rounds: of collectives that this rank has begun, by messages
    and through shared memory."""

    name: str
    ranks: tuple[int, ...]
    calls: int
    rounds: int


class Look(NamedTuple):
    """A rank at one moment.  See `Engine.traffic` for news, written, read and held_up."""

    is_idle: bool
    waits: tuple[Wait, ...]
    news: int
    written: dict[int, int]
    read: dict[int, int]
    held_up: list[int]
    unread: tuple[Message, ...]
    communicators: dict[int, Communicator]  # by number


def look(engine: Engine, grounds: Mapping[int, Any], is_over: bool, before: Mapping[int, Any]) -> Look:
    """grounds: communicators by number. is_over: the program has ended, and the main thread waits for the others.

    before: handlers of signals that were there before the program."""
    waiting = list(engine.rest.waits)
    traffic = engine.traffic()
    frames = sys._current_frames()
    return Look(
        before == handlers() and is_idle(frames, {wait.thread for wait in waiting}, is_over),
        tuple(_wait(wait, frames.get(wait.thread), grounds) for wait in waiting),
        *traffic,
        tuple(Message(one.context, one.source, one.tag, one.size) for one in engine.unread(_MOST)),
        {number: _communicator(ground) for number, ground in grounds.items()},
    )


def peers(engine: Engine, grounds: Mapping[int, Any]) -> tuple[int, ...] | None:
    """Who may end what takes long here; None: anybody; (): nothing does."""
    found: set[int] = set()
    for wait in list(engine.rest.waits):
        its = _peers(about(wait.about), grounds)
        if its is None:
            return None
        found.update(its)
    return tuple(sorted(found))


def _wait(wait: Waiting, frame: Any, grounds: Mapping[int, Any]) -> Wait:
    abouts = about(wait.about)
    return Wait(wait.number, wait.looks, _peers(abouts, grounds), *place_of(frame), abouts)


def about(things: Sequence[Any]) -> tuple[About, ...]:
    """What is known of what a wait is for: nothing, if something among it is no message."""
    found = []
    for one in things:
        while hasattr(one, "now"):  # it goes on in steps
            one = one.now
        if isinstance(one, Sending):
            found.append(About(True, one.dest, one.context, one.tag, one.size))
        elif isinstance(one, Receiving | Probing):
            found.append(About(False, one.source, one.context, one.tag, 0))
        else:
            return ()
    return tuple(found)


def _peers(abouts: tuple[About, ...], grounds: Mapping[int, Any]) -> tuple[int, ...] | None:
    found: set[int] = set()
    for about in abouts:
        if about.peer != ANY:
            found.add(about.peer)
        elif about.context // 2 in grounds:
            found.update(grounds[about.context // 2].others)
        else:
            return None
    return tuple(sorted(found)) or None


def _communicator(ground: Any) -> Communicator:
    return Communicator(ground.name, ground.everybody, ground.calls, getattr(ground.shelf, "round", 0))


# -- threads --------------------------------------------------------------------------------------------------------


def is_idle(frames: Mapping[int, Any], waiting: set[int], is_over: bool) -> bool:
    """Whether no thread but those that wait for messages can do anything before one of these does.

    frames: where each thread is; waiting: those that wait for messages."""
    main = threading.main_thread().ident
    names = {thread.ident: thread for thread in threading.enumerate()}
    for ident, frame in frames.items():
        thread = names.get(ident)
        is_known = ident in waiting or ident == threading.get_ident() or (is_over and ident == main)
        if is_known or (thread is not None and (thread.name in _OURS or type(thread).__name__ == "TMonitor")):
            continue  # a TMonitor is tqdm's, and draws bars
        if not _waits_for_another(frame, frames):
            return False
    return True


def handlers() -> dict[int, Any]:
    """What a signal would call, by its number: a program in which that changes may do something at any time."""
    found = {number: _raw_signal.getsignal(number) for number in _raw_signal.valid_signals()}
    return {number: handler for number, handler in found.items() if callable(handler)}


def _waits_for_another(frame: Any, frames: Mapping[int, Any]) -> bool:
    """Whether this thread, which is there, sleeps until another thread of this process wakes it."""
    name, function, here = os.path.basename(frame.f_code.co_filename), frame.f_code.co_name, frame.f_locals
    if name == "thread.py" and function == "_worker":  # of concurrent.futures, without work
        return "work_queue" in here and bool(here["work_queue"].empty())
    if name != "threading.py":
        return False
    if function == "wait":  # of a condition, and so of an event or a queue
        return bool(here.get("timeout", 0) is None and "waiter" in here and here["waiter"].locked())
    if function == "_wait_for_tstate_lock":
        return bool(here.get("timeout") == -1 and here["self"].ident in frames)
    if function == "join":
        return bool(here.get("timeout", 0) is None and here["self"].ident in frames)
    return bool(function == "_shutdown")  # the end of the program, for its other threads


# -- places ---------------------------------------------------------------------------------------------------------


def place_of(frame: Any) -> tuple[str, str]:
    """(the function that was called, where in the program): of a thread that is in this frame."""
    called = ""
    for one in _outwards(frame):
        name, function = one.f_code.co_filename, one.f_code.co_name
        if not _is_library(name):
            return called, f"{os.path.basename(name)}:{one.f_lineno} in {function}"
        called = called if function.startswith("_") or "<frozen" in name else function
    return called, ""


def _is_library(file: str) -> bool:
    """Whether it is River's, or of the standard library, and so nobody's program."""
    is_python = file.startswith(_PYTHON) and "site-packages" not in file[len(_PYTHON) :]
    return file.startswith(_RIVER) or is_python or "<frozen" in file


def _outwards(frame: Any) -> Iterator[Any]:
    """To where the rank begins: below is what it is a fork of."""
    while frame is not None and (frame.f_code.co_name, frame.f_code.co_filename) != _BOTTOM:
        yield frame
        frame = frame.f_back


def where_is_main() -> str:
    """Where the main thread of this process is, in the user's words: file, line, function, and what that called."""
    called, place = place_of(sys._current_frames().get(threading.main_thread().ident or 0))
    if not place:
        return "at the end of the program"
    return f"at {place}{', in ' if called else ''}{called}"
