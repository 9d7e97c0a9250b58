"""A login with paramiko, step by step, so that each failure is told by the step that it belongs to.

    resolve, connect --> greeting --> host key --> authentication --> session (run)
    `---- once for each jump host, through a channel of the one before ----'

May not: read configuration, or let an exception of paramiko's out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

import paramiko

from ..mishaps import HostError
from . import known
from .authentication import authenticate
from .channel import PACKET, WINDOW, Bell, ChannelStream, Link
from .config import Target
from .ports import Deadline, Settings, Unsupported

# At once to one server or jump host: sshd refuses some of more than 10 (MaxStartups 10:30:100), and refused ones are
# tried again.
MOST_AT_ONCE = 8
_TRIES = 4
_FAILURES = (paramiko.SSHException, OSError, EOFError)
# Seconds after which the system gives up a connection that is not answered; River's own heartbeat is sooner.
_SILENCE = 30
_OPTIONS = (
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", 10),  # the same, on macOS
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", _SILENCE * 1000),
    # Not SO_SNDBUF: Linux grows it by itself to more than it lets anybody ask for, and stops once somebody has.
)
# What newer servers say before they hang up.
_TOO_MANY = "MaxStartups|Not allowed at this time"
_LOG = "river.ssh.paramiko"

_gates: dict[tuple[str, int], threading.BoundedSemaphore] = {}
_gates_lock = threading.Lock()


class _Busy(Exception):
    """The server has hung up before it said a word: it may have too many logins at once."""

    def __init__(self, error: HostError) -> None:
        super().__init__(str(error))
        self.error = error


def login(
    host: Settings,
    targets: list[Target],
    deadline: Deadline,
    pause: Callable[[float], object] = time.sleep,
    chance: Callable[[], float] = random.random,
) -> ParamikoSession:
    """Log in to each target, the last one through those before.  Raises HostError, and Unsupported."""
    gate = _gate(targets[0])
    number = 0
    while True:
        number += 1
        with deadline.paused():  # the time of those before us is not ours
            gate.acquire()
        try:
            return _login(host, targets, deadline)
        except _Busy as busy:
            if number == _TRIES or deadline.is_over():
                raise busy.error from None
        finally:
            gate.release()
        pause(min(number * (0.2 + chance()), deadline.left()))


def _gate(target: Target) -> threading.BoundedSemaphore:
    with _gates_lock:
        return _gates.setdefault((target.address, target.port), threading.BoundedSemaphore(MOST_AT_ONCE))


def _login(host: Settings, targets: list[Target], deadline: Deadline) -> ParamikoSession:
    _hush_paramiko()
    session = ParamikoSession(targets[-1], deadline)
    try:
        for target in targets:
            link = session.link(target)
            _greet(target, link, deadline, session.proxy_words)
            _check_host_key(host, target, link)
            authenticate(host, target, link, deadline)
    except BaseException:
        session.close()
        raise
    return session


class ParamikoSession:
    """See ports.Session."""

    transport = "paramiko"
    why = "it is River's own way"

    def __init__(self, target: Target, deadline: Deadline) -> None:
        self.peer = target.peer
        self.address: str | None = None
        self._target = target
        self._deadline = deadline
        self._bell = Bell()
        self._links: list[Link] = []
        self._proxy: subprocess.Popen[bytes] | None = None
        self._proxy_stderr: IO[bytes] | None = None
        self._is_closed = False

    def link(self, target: Target) -> Link:
        """A connection to the next target, on which nothing has been said yet."""
        if self._links:
            self.address = None
            link = Link(_through(self._links[-1], target, self._deadline), self._bell, before=self._links[-1])
        elif target.proxy_command is not None:
            link = Link(self._start_proxy(target, target.proxy_command), self._bell)
        else:
            sock = _connect(target, self._deadline)
            self.address = sock.getpeername()[0]
            link = Link(sock, self._bell)
        self._links.append(link)
        return link

    def _start_proxy(self, target: Target, command: str) -> socket.socket:
        """A program's stdin and stdout as a socket, which paramiko's own ProxyCommand is not."""
        ours, theirs = socket.socketpair()
        self._proxy_stderr = tempfile.TemporaryFile()  # nobody reads it unless it fails
        try:
            self._proxy = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._proxy_stderr,
                start_new_session=True,  # Ctrl-C is not for it
            )
        except OSError as error:
            ours.close()
            raise Unsupported(
                "ProxyCommand needs /bin/sh", target.failure("connect", f"ProxyCommand does not start: {error}")
            ) from None
        finally:
            theirs.close()
        return ours

    def proxy_words(self) -> str:
        """What the ProxyCommand has written to stderr."""
        if self._proxy_stderr is None:
            return ""
        self._proxy_stderr.seek(0)
        text = self._proxy_stderr.read(4096).decode(errors="replace").strip()
        return f"ProxyCommand says: {text}" if text else ""

    def run(self, command: str) -> ChannelStream:
        target, transport = self._target, self._links[-1].transport
        try:
            channel = transport.open_session(WINDOW, PACKET, timeout=self._deadline.left())
            # exec_command has no time limit of its own.
            limit = threading.Timer(self._deadline.left(), transport.close)
            limit.start()
            try:
                channel.exec_command(command)
            finally:
                limit.cancel()
                limit.join()
        except paramiko.ChannelException as error:
            self.close()
            raise target.failure(
                "session",
                f"the server refuses a session ({error.text})",
                "MaxSessions of its sshd_config may be 0, or the account may not run commands",
            ) from None
        except _FAILURES as error:
            words = self._links[-1].packets.farewell
            self.close()
            if self._deadline.is_over():
                what = f"logged in, but the server has not started a command within {self._deadline.seconds:g} s"
            else:
                what = f"logged in, but the server does not run commands: {words or error or 'it hung up'}"
            raise target.failure("session", what, "is the account for something else only (sftp, a tunnel)?") from None
        return ChannelStream(channel, self._links, self._bell, self.close)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for link in self._links:
            link.close()
        self._bell.close()
        if self._proxy is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._proxy.pid, signal.SIGKILL)
            self._proxy.wait()
        if self._proxy_stderr is not None:
            self._proxy_stderr.close()


def _connect(target: Target, deadline: Deadline) -> socket.socket:
    """A TCP connection to the first of the host's addresses that takes one."""
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(target.says("addressfamily", "any"), 0)
    try:
        found = socket.getaddrinfo(target.address, target.port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        given = "as it was given" if target.address == target.alias else "HostName in the ssh configuration"
        raise target.failure("resolve", f"cannot resolve {target.address!r} ({given}): {_words(error)}") from None
    limit = target.limit(deadline)
    for number, (kind, _, protocol, _, address) in enumerate(found, 1):
        sock = socket.socket(kind, socket.SOCK_STREAM, protocol)
        try:
            sock.settimeout(max(0.001, limit.left() / (len(found) - number + 1)))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = _unreachable(target, str(address[0]), error, limit)
        else:
            for level, name, value in _OPTIONS:
                with contextlib.suppress(AttributeError, OSError):  # not every system has every one
                    sock.setsockopt(level, getattr(socket, name), value)
            return sock
    raise failure


def _unreachable(target: Target, address: str, error: OSError, limit: Deadline) -> HostError:
    where = f"{address}:{target.port}"
    if isinstance(error, ConnectionRefusedError):
        return target.failure(
            "connect",
            f"no SSH server at {where} (connection refused)",
            "is sshd running there, and is this its port?",
        )
    if isinstance(error, TimeoutError):
        return target.failure(
            "connect",
            f"no answer from {where} within {limit.seconds:g} s",
            "it is down, or a firewall drops the connection; does it need a ProxyJump?",
        )
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return target.failure("connect", f"{where} is unreachable ({_words(error)})", "does it need a ProxyJump?")
    return target.failure("connect", f"cannot connect to {where}: {_words(error)}")


def _through(link: Link, target: Target, deadline: Deadline) -> Any:
    """A channel of the jump host's connection that leads to the target."""
    try:
        return link.transport.open_channel(
            "direct-tcpip", (target.address, target.port), ("127.0.0.1", 0), timeout=target.limit(deadline).left()
        )
    except paramiko.ChannelException as error:
        if error.code == 1:
            raise target.failure(
                "connect",
                f"its jump host forbids to be passed ({error.text})",
                "AllowTcpForwarding and PermitOpen of the jump host's sshd_config say what it allows",
            ) from None
        raise target.failure(
            "connect", f"its jump host cannot reach it: {error.text}", "is sshd running, and is the name known there?"
        ) from None
    except _FAILURES as error:
        raise target.failure("connect", f"its jump host gives no connection: {_words(error)}") from None


def _greet(target: Target, link: Link, deadline: Deadline, proxy_words: Callable[[], str]) -> None:
    """Exchange greetings and keys; afterwards the line is encrypted, but nobody knows yet with whom."""
    transport, limit = link.transport, target.limit(deadline)
    transport.set_log_channel(_LOG)
    _prefer(transport, known.kinds(known.read(target.known_hosts), target.names))
    transport.banner_timeout = limit.left() + 60  # start_client has the limit
    try:
        transport.start_client(timeout=limit.left())
        transport.get_remote_server_key()  # start_client returns without a word when its time is over
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise Unsupported(
            f"paramiko and the server have no algorithm in common ({error})",
            target.failure("greeting", f"no algorithm in common: {error}", "transport='openssh' may know more"),
        ) from None
    except _FAILURES as error:
        raise _ungreeted(target, link, error, limit, proxy_words()) from None


def _ungreeted(target: Target, link: Link, error: Exception, limit: Deadline, proxy: str) -> Exception:
    greeting, first = link.transport.remote_version, link.packets.first
    if greeting and limit.is_over():
        return target.failure("greeting", f"the key exchange was not done in {limit.seconds:g} s", f"it is {greeting}")
    if greeting:
        return target.failure("greeting", f"the key exchange failed: {link.packets.farewell or _words(error)}")
    if first and not re.search(_TOO_MANY, first):
        return target.failure("greeting", f"no SSH server: it says {first!r}", "is this its port?")
    if limit.is_over():
        return target.failure(
            "greeting",
            f"accepted the connection but sent no SSH greeting in {limit.seconds:g} s: overloaded or hung",
            proxy,
        )
    return _Busy(
        target.failure(
            "greeting",
            f"the server hung up before it greeted, {_TRIES} times{first and f' ({first})'}",
            proxy or "it refuses more logins at once (MaxStartups), or this address",
        )
    )


def _prefer(transport: Any, kinds: list[str]) -> None:
    """Ciphers that cost least, and the host key that is known: servers have several."""
    options = transport.get_security_options()
    options.ciphers = sorted(options.ciphers, key=lambda name: "gcm" not in name)
    options.key_types = sorted(options.key_types, key=lambda name: _kind(name) not in kinds)


def _kind(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _check_host_key(host: Settings, target: Target, link: Link) -> None:
    key = link.transport.get_remote_server_key()
    kind, blob = key.get_name(), key.asbytes()
    print_ = known.fingerprint(blob)
    if target.pin is not None:
        if target.pin != print_:
            raise target.failure(
                "host key", f"its key is {print_}, not {target.pin} as host_key= says", "is this the right machine?"
            )
        return
    verdict = known.judge(known.read(target.known_hosts), target.names, kind, blob)
    if verdict.is_known == "yes" or (verdict.is_known == "no" and target.trust == "accept"):
        return
    if verdict.is_known == "revoked":
        raise target.failure("host key", f"its key {kind} {print_} is revoked by {verdict.entries[0].place}")
    if verdict.is_known == "changed":
        entry = verdict.entries[0]
        file = entry.place.rpartition(":")[0]
        raise target.failure(
            "host key",
            "its key has CHANGED: another machine answers, perhaps to listen, or this one was set up anew",
            f"it has   {kind} {print_}",
            f"known is {entry.kind} {known.fingerprint(entry.key)} ({entry.place})",
            f"if you know why, forget the old key: `ssh-keygen -f {file} -R '{target.names[0]}'`",
        )
    pin = "" if target.is_jump else f", or give host_key={print_!r}"
    error = target.failure(
        "host key",
        f"its key is unknown: {kind} {print_}",
        f"there is no line for {target.names[0]} in {', '.join(target.known_hosts) or 'any file'}",
        f"if the fingerprint is right, run `{_ssh(host, target)}` once and say yes{pin}",
    )
    raise Unsupported("its key is known by an authority only", error) if verdict.has_authority else error


def _ssh(host: Settings, target: Target) -> str:
    """A command line that logs in to the target."""
    words = ["ssh", *(("-F", host.config) if host.config else ())]
    if host.known_hosts:
        words += ["-o", f"UserKnownHostsFile={host.known_hosts}"]
    if host.port and not target.is_jump:
        words += ["-p", str(host.port)]
    return " ".join([*words, target.alias])


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _Quiet(logging.Filter):
    """What paramiko takes for an error is told by the exception; for the log it is a detail."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(_LOG).isEnabledFor(logging.DEBUG)


def _hush_paramiko() -> None:
    """Else its tracebacks go to stderr, where nobody has configured logging."""
    paramiko_log, ours = logging.getLogger("paramiko"), logging.getLogger(_LOG)
    if not any(isinstance(handler, logging.NullHandler) for handler in paramiko_log.handlers):
        paramiko_log.addHandler(logging.NullHandler())
    if not any(isinstance(quiet, _Quiet) for quiet in ours.filters):
        ours.addFilter(_Quiet())
