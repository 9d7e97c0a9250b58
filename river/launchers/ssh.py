"""Machines over SSH: log in, find a Python, and make it River's agent (see `_core.bootstrap`).

    login --run--> stream: noise, mark, facts --versions agree--> archive and settings --> the agent's records

Each failure says which host, at which step, and what to do; the steps of the login are those of `river.ssh`, then come
"python" (found one?), "version" and "boot".

May not: know what a record is, or keep a connection.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import ssh
from .._core import bootstrap
from ..hosts import Host
from ..mishaps import HostError

_MOST_NOISE = 1 << 20  # bytes that start-up files may print before the mark
_SHOWN = 600  # of that, in an error


class Booted(NamedTuple):
    """A connection to a machine's agent; facts: what its Python says of itself. peer: user@address:port."""

    session: ssh.Session
    stream: ssh.Stream
    facts: dict[str, Any]
    peer: str


def boot(host: Host, settings: Callable[[ssh.Session], dict[str, Any]], seconds: float) -> Booted:
    """Start the agent, or a messenger to it, with the settings for this login.  Takes at most so many seconds, not
    counting those in which a human types.  Raises HostError."""
    session = ssh.login(host, seconds)
    deadline = time.monotonic() + seconds
    try:
        mark = os.urandom(12).hex()
        command = bootstrap.command(mark, host.interpreters(bootstrap.VERSION), host.prelude or "")
        stream = session.run(command)
        facts = _hear(host, session.peer, stream, mark, deadline, seconds)
        if why := bootstrap.differs(facts):
            raise _error(host, session.peer, "version", f"{why}; name another one with python= or venv=")
        _say(host, session.peer, stream, bootstrap.payload(settings(session)), deadline)
    except BaseException:
        session.close()
        raise
    return Booted(session, stream, facts, session.peer)


def _hear(host: Host, peer: str, stream: ssh.Stream, mark: str, deadline: float, seconds: float) -> dict[str, Any]:
    """What Python says of itself, once it runs there."""
    heard, sign = b"", b"\0" + mark.encode() + b"\0"
    while sign not in heard or b"\n" not in heard.partition(sign)[2]:
        data = stream.receive(65536)
        if data == b"":
            raise _ended(host, peer, stream, heard)
        if data is None and not _poll(stream, False, deadline):
            raise _error(
                host,
                peer,
                "boot",
                f"no word from Python within {seconds:g} s; does a start-up file of the login shell read input, or "
                f"start another program? It said {_shown(heard)}",
            )
        heard += data or b""
        if len(heard) > _MOST_NOISE and sign not in heard:
            raise _error(host, peer, "boot", f"the login shell prints without end: {_shown(heard)}")
    facts: dict[str, Any] = json.loads(heard.partition(sign)[2].partition(b"\n")[0])
    return facts


def _ended(host: Host, peer: str, stream: ssh.Stream, heard: bytes) -> HostError:
    """The command ended before Python said anything: what that means depends on what was said instead."""
    deadline = time.monotonic() + 0.5
    while stream.exit_status() is None and _poll(stream, False, deadline):
        if stream.receive(65536) == b"":
            time.sleep(0.01)  # its end has come, and its exit code comes next
    words = f"{heard.decode(errors='replace')}\n{stream.error()}".strip()
    if "no Python: " in words:
        line = next(line for line in words.splitlines() if "no Python: " in line)
        return _error(host, peer, "python", f"{line}; name one with python= or venv=, or load one with prelude=")
    code = stream.exit_status()
    if not words:
        what = "the login shell ended before Python was started; does a start-up file exit?"
    else:
        what = f"the login works, but Python was not started (exit code {code}); it said {_shown(words.encode())}"
    return _error(host, peer, "python", what)


def _say(host: Host, peer: str, stream: ssh.Stream, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        count = stream.send(view)
        view = view[count:]
        if not count and not _poll(stream, True, deadline):
            raise _error(host, peer, "boot", f"it did not take River's modules in time; {stream.error().strip()}")


def _poll(stream: ssh.Stream, wants_write: bool, deadline: float) -> bool:
    """Wait until the stream may have more to give or take; False when the time is over."""
    left = deadline - time.monotonic()
    poller = select.poll()
    for number, events in stream.watch(wants_write):
        poller.register(number, events)
    return left > 0 and bool(poller.poll(1000 * left))


def _error(host: Host, peer: str, step: str, what: str) -> HostError:
    return HostError(host.name, step, f"{host.name} ({peer}): {what}")


def _shown(noise: bytes) -> str:
    text = noise.decode(errors="replace").strip()
    return repr(text if len(text) <= _SHOWN else "..." + text[-_SHOWN:]) if text else "nothing"
