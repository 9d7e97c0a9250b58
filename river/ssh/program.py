"""A login with the system's `ssh` program: its pipes are the stream, its stderr tells what went wrong.

It does what the user's configuration says, and what paramiko cannot.  It logs in when a command is run, not before.

May not: ask a human anything (BatchMode), or write known_hosts unless the configuration says so.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import select
import signal
import subprocess
import time
import weakref
from collections.abc import Callable
from typing import NamedTuple

from .._core.connection import forget
from ..mishaps import HostError
from .config import Target, arguments
from .ports import Deadline, Settings, Tail

_TRIES = 4
# ssh counts whole seconds until it says where it waited in vain.
_GRACE = 1.5
_PIPE = 2**20  # Linux gives 64 KiB unless it is asked
# At this level ssh says that it is in, and where; what else it says then is not for people.
_OURS = re.compile(r"^(Authenticated to |Transferred: sent |Bytes per second: sent )")
_IN = re.compile(r"^Authenticated to \S+ \((?:\[([^]]+)\]:\d+|via proxy)\)", re.MULTILINE)
_SETTINGS = (
    "BatchMode=yes",
    "LogLevel=VERBOSE",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "ControlMaster=no",  # one that is open is used; ours would go on after us
    "RemoteCommand=none",
    "RequestTTY=no",
    "PermitLocalCommand=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
)


class _Reason(NamedTuple):
    """What ssh says, which step that is, and what we say."""

    pattern: str
    step: str
    what: str
    advice: str = ""


_BUSY = "the server hung up before it greeted"
_REASONS = (
    _Reason("Could not resolve hostname", "resolve", "cannot resolve the name"),
    _Reason("Connection refused", "connect", "no SSH server there (connection refused)", "is this its port?"),
    _Reason("during banner exchange", "greeting", "accepted the connection but sent no SSH greeting in time"),
    _Reason("timed out", "connect", "no answer in time", "down, or a firewall; does it need a ProxyJump?"),
    _Reason("No route to host|Network is unreachable", "connect", "unreachable", "does it need a ProxyJump?"),
    _Reason("IDENTIFICATION HAS CHANGED", "host key", "its key has CHANGED", "`ssh-keygen -R` forgets the old one"),
    _Reason(
        "No .* host key is known|Host key verification failed",
        "host key",
        "its key is unknown, or not the one that it should be",
        "run `ssh` once and say yes, or give host_key='SHA256:...'",
    ),
    _Reason("Too many authentication failures", "authentication", "gave up after too many keys", "IdentitiesOnly yes?"),
    _Reason(
        "Permission denied",
        "authentication",
        "the server does not let us in",
        "is the key in ~/.ssh/authorized_keys there? The ssh program asks for no password or passphrase here: "
        "use an agent, or transport='paramiko'",
    ),
    _Reason("Unable to negotiate", "greeting", "no algorithm in common"),
    _Reason("Bad configuration option|terminating, ", "config", "the ssh configuration cannot be read"),
    _Reason("open failed|refused by|prohibited", "session", "the server refuses a session", "MaxSessions may be 0"),
    _Reason("kex_exchange_identification|Connection (reset|closed)", "greeting", _BUSY, "MaxStartups may be too low"),
)


class ProgramSession:
    """See ports.Session."""

    transport = "openssh"

    def __init__(self, host: Settings, targets: list[Target], deadline: Deadline, why: str) -> None:
        self.why = why
        self.peer = targets[-1].peer
        self.address: str | None = None
        self._host = host
        self._target = targets[-1]
        self._deadline = deadline
        self._stream: ProgramStream | None = None

    def run(
        self,
        command: str,
        pause: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> ProgramStream:
        number = 0
        while True:
            number += 1
            self._stream = stream = self._start(command)
            try:
                self._wait(stream)
                return stream
            except HostError as error:
                stream.close()
                if _BUSY not in error.text or number == _TRIES or self._deadline.is_over():
                    raise
            except BaseException:
                stream.close()
                raise
            pause(min(number * (0.2 + chance()), self._deadline.left()))

    def _start(self, command: str) -> ProgramStream:
        seconds = math.ceil(self._target.limit(self._deadline).left())
        settings = [f"ConnectTimeout={seconds}", *_SETTINGS, *self._trust()]
        options = [word for setting in settings for word in ("-o", setting)]
        try:
            return ProgramStream(["ssh", "-T", *options, *arguments(self._host), "--", self._target.alias, command])
        except OSError as error:
            raise self._target.failure("config", f"the ssh program does not start: {error}") from None

    def _trust(self) -> list[str]:
        """How a host key is judged: a pin by a command that prints the key only if it is the right one."""
        if self._host.host_key is None:
            return ["StrictHostKeyChecking=yes"] if self._target.trust == "refuse" else []
        return [
            "StrictHostKeyChecking=yes",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            f"KnownHostsCommand=/bin/sh -c \"test '%f' != '{self._host.host_key}' || echo '%H %t %K'\"",
        ]

    def _wait(self, stream: ProgramStream) -> None:
        """Until it is in; raises HostError if it does not get in."""
        if self._target.control_socket:
            return  # it is in, and says nothing
        limit = Deadline(self._deadline.left() + _GRACE)
        while not (found := _IN.search(stream.said())) and not stream.is_readable():
            if stream.exit_status() is not None:
                break
            if limit.is_over():
                what = f"no answer to the login within {self._deadline.seconds:g} s"
                raise self._target.failure("authentication", what, *_quoted(stream))
            stream.wait(min(0.1, limit.left()))
        found = found or _IN.search(stream.said())
        if found:
            self.address = found[1]
        elif stream.exit_status() == 255:
            raise self._failure(stream)

    def _failure(self, stream: ProgramStream) -> HostError:
        said = stream.said()
        for reason in _REASONS:
            if re.search(reason.pattern, said):
                return self._target.failure(reason.step, reason.what, reason.advice, *_quoted(stream))
        return self._target.failure("session", "the ssh program failed", *_quoted(stream))

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _quoted(stream: ProgramStream) -> list[str]:
    return [f"ssh says: {line}" for line in stream.error().splitlines() if line.strip("@ ")]


_streams: weakref.WeakSet[ProgramStream] = weakref.WeakSet()


def _forget_in_child() -> None:
    """After a fork of this process: the program must notice the end of the parent, whoever has its pipes too."""
    forget(number for stream in _streams for number in (stream._in, stream._out, stream._err))
    _streams.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


class ProgramStream:
    """stdin and stdout of a command, as those of the program."""

    tells_again = False

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is not for it
        )
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._pipes = [pipe for pipe in pipes if pipe is not None]
        self._in, self._out, self._err = (pipe.fileno() for pipe in self._pipes)
        self._tail = Tail()
        self._hears = True  # whether stderr is open
        self._takes = True  # whether stdin is
        self._is_closed = False
        for descriptor in (self._in, self._out, self._err):
            os.set_blocking(descriptor, False)
            _widen(descriptor)
        _streams.add(self)

    def watch(self, wants_write: bool) -> list[tuple[int, int]]:
        found = [(self._out, select.POLLIN)]
        if self._hears:
            found.append((self._err, select.POLLIN))
        if wants_write and self._takes:
            found.append((self._in, select.POLLOUT))
        return found

    def receive(self, most: int) -> bytes | None:
        self._listen()
        return _read(self._out, most)

    def send(self, data: memoryview) -> int:
        taken = 0
        while self._takes and taken < len(data):
            try:
                taken += os.write(self._in, data[taken:])
            except BlockingIOError:
                break
            except OSError:
                self._takes = False
        return taken

    def said(self) -> str:
        """All of stderr that is kept, with what only this file is to know."""
        self._listen()
        return self._tail.text()

    def error(self) -> str:
        return "".join(line for line in self.said().splitlines(keepends=True) if not _OURS.match(line))

    def _listen(self) -> None:
        while self._hears and (data := _read(self._err, 65536)) is not None:
            self._tail.add(data)
            self._hears = bool(data)

    def wait(self, timeout: float) -> None:
        """Until it says something."""
        poll = select.poll()
        for descriptor, events in self.watch(False):
            poll.register(descriptor, events)
        poll.poll(timeout * 1000)

    def is_readable(self) -> bool:
        """Whether the command has written something."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(0))

    def exit_status(self) -> int | None:
        code = self._process.poll()
        return code if code is None or code >= 0 else -1

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        _streams.discard(self)
        self._hears = self._takes = False
        for pipe in self._pipes:
            pipe.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)  # with the jump hosts' and the proxy's
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
                return


def _read(descriptor: int, most: int) -> bytes | None:
    try:
        return os.read(descriptor, most)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _widen(descriptor: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
