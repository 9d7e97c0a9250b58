"""The server of `river vm start`: it listens, and gives slots for VMs to programs that know the key.

    program --connect--> server --fork--> door: proof, then the question
                           ^                |
                           +----- ask ------+
                           +--- decision -->+--> supervisor of the program --fork--> VM, VM, ...
                           +--- lines of VMs, if the program is elsewhere --->+

It forks right after accept, so what a stranger sends never comes into this process; it hears only from its own
children, of the questions of those who have proven the key.  It has one thread, and so may fork; threads for the
handshakes would make every later fork a danger, and all of them in one loop would let a slow stranger be everybody's.
The price, about a millisecond for each connection, is paid once for each program.  The socket on which a program was
granted slots is from then on a supervisor's line, spoken as to any other supervisor: VMs are forked from it afresh,
so nothing of one program is left for the next.

May not: read what a stranger sends, unpickle, run user code, or wait for anything but everything at once.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import select
import signal
import socket
import stat
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import certificates, door, keys, mdns
from ._core import cpus, tls
from ._core.handshake import HandshakeError, Talk
from .errors import ServerError
from .slots import Slots
from .version import __version__

# Connections without proof at a time, from this machine, and as many from others; more are closed at once.
MOST_STRANGERS = 32
_QUEUE = 64
_ANY = "0.0.0.0"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_GRACE = 5.0  # seconds that supervisors have to end their VMs


class _Child:
    """A process that attends to one connection."""

    def __init__(self, pid: int, sock: socket.socket | None, report: socket.socket) -> None:
        self.pid = pid
        self.sock = sock  # kept to end the line with: a supervisor then ends in order, a signal would just kill it
        self.report = report
        self.is_stranger = True
        self.is_stopper = False

    def close(self) -> None:
        for end in (self.sock, self.report):
            if end is not None:
                end.close()


class Server:
    """Slots for VMs on this machine.

    name: of the server. slots: how many VMs at a time. key: the cluster key. directory: where its socket is. lan:
    the address of ours at which programs on other machines find it, and a port (0: any); None: they do not.
    Listens when it is made; raises ServerError if a server of that name is there, or the name is none.
    """

    def __init__(self, name: str, slots: int, key: bytes, directory: Path, lan: tuple[str, int] | None = None) -> None:
        check_name(name)
        if slots < 1:
            raise ValueError(f"a server has at least 1 slot, not {slots}")
        self.name = name
        self.path = directory / f"{name}.sock"
        self._key = key
        self._children: dict[int, _Child] = {}
        self._is_stopping = False
        self._identity = certificates.make(directory) if lan else None
        self._listeners = [*([_listen_lan(lan)] if lan else []), _listen(self.path)]
        self._inode = os.stat(self.path).st_ino
        self.lan = self._listeners[0].getsockname() if lan else None
        facts = {"name": name, "host": socket.gethostname(), "python": platform.python_version()}
        self.slots = Slots(slots, {**facts, "river": __version__, "cpus": cpus.cpu_count()})

    def close(self) -> None:
        """Stop listening, here; the socket file stays for whoever still does."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def run(self) -> None:
        """Serve until told to stop, by a signal or by `river vm stop`; then end all that was started."""
        self.slots.facts["server_pid"] = os.getpid()
        self._wake_in, self._wake_out = os.pipe()
        for end in (self._wake_in, self._wake_out):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        for number in (*_ENDS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the loop is told by the wake-up pipe
        door.say(f"{self.name} serves {self.slots.total} VMs, pid {os.getpid()}")
        if self.lan:
            self._advertise(*self.lan)
        try:
            while not self._is_stopping:
                self._turn(None)
        finally:
            self._end()

    # -- the loop -----------------------------------------------------------------------------------------------

    def _turn(self, seconds: float | None) -> None:
        poller = select.poll()
        poller.register(self._wake_in, select.POLLIN)
        for sock in (*self._listeners, *(child.report for child in self._children.values())):
            if sock.fileno() >= 0:
                poller.register(sock, select.POLLIN)
        ready = {number for number, _ in poller.poll(None if seconds is None else seconds * 1000)}
        if self._wake_in in ready:
            self._is_stopping |= not _ENDS.isdisjoint(os.read(self._wake_in, 4096))
        for child in list(self._children.values()):
            if child.report.fileno() in ready:
                self._answer(child)
        self._reap()
        for listener in self._listeners:
            if listener.fileno() in ready:
                self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError | ConnectionError):
                door.say(f"cannot accept a connection: {error}")
                time.sleep(0.05)  # no descriptor is free; without a pause we would be told so without end
            return
        others = (child for child in self._children.values() if child.sock and child.sock.family == sock.family)
        strangers = sum(child.is_stranger for child in others)
        if strangers >= MOST_STRANGERS:
            door.say(f"closed a connection: {strangers} others have not proven the key yet")
            sock.close()
            return
        parent, identity = os.getpid(), None
        try:
            if sock.family != socket.AF_UNIX:
                identity = self._identity
                tls.tune(sock)
            self._fork(sock, lambda report: door.attend(sock, report, self._key, parent, identity))
        except OSError as error:
            door.say(f"cannot attend to a connection: {error}")
            sock.close()

    def _advertise(self, address: str, port: int) -> None:
        """Start the process that tells the network of us: what it uses has threads, with which we could not fork."""
        interface = "" if address == _ANY else address
        if not mdns.is_available():
            door.say(
                f"not advertised, as zeroconf is not installed (pip install 'riverpool[discovery]'); programs "
                f"find it by its address, {address}:{port}"
            )
            return
        facts = {field: str(self.slots.facts[field]) for field in ("name", "host", "python", "river")}

        def advertise(report: socket.socket) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's; it then ends us in order
            record = mdns.Record(
                **facts,
                slots=str(self.slots.total),
                key=keys.fingerprint(self._key),
                addresses=mdns.addresses(interface),
                port=port,
            )
            mdns.advertise(record, interface, report)

        self._fork(None, advertise).is_stranger = False

    def _fork(self, sock: socket.socket | None, do: Callable[[socket.socket], None]) -> _Child:
        """Start a process that does this, given its line to us; `sock` is its other one."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if pid == 0:
                code = 1
                try:
                    ours.close()
                    self._forget()
                    do(theirs)
                    code = 0
                except BaseException:  # noqa: BLE001 - into the log; the server goes on
                    traceback.print_exc()
                finally:
                    os._exit(code)
        child = self._children[pid] = _Child(pid, sock, ours)
        return child

    def _forget(self) -> None:
        """In a child: everything but its own connection is the server's."""
        signal.set_wakeup_fd(-1)
        for number in (*_ENDS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._wake_in)
        os.close(self._wake_out)
        self.close()
        for child in self._children.values():
            child.close()

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._children.pop(pid).close()
                program = self.slots.programs.get(pid)
                if program is not None:
                    self.slots.left(pid)
                    how = "" if status == 0 else f"; its supervisor ended with {os.waitstatus_to_exitcode(status)}"
                    door.say(f"{program.name} (pid {program.pid}) left; {self.slots.free} slots are free{how}")

    # -- what the children ask ----------------------------------------------------------------------------------

    def _answer(self, child: _Child) -> None:
        # Our own child writes a message at once and as a whole, or dies: this does not wait for any stranger.
        talk = Talk(child.report, f"process {child.pid}", 1.0)
        try:
            ask, descriptors = talk.receive(most_descriptors=1)
            child.is_stranger = False
            try:
                reply = self._ANSWERS[ask["ask"]](self, child, ask, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            try:
                talk.send(reply)
            except ValueError as error:
                talk.send({"refused": str(error)})
        except (HandshakeError, OSError):  # it has nothing more to ask, or is gone; in any case, the others are not
            child.report.close()

    def _answer_join(self, child: _Child, ask: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        reply = self.slots.joined(child.pid, ask, time.time())
        program = self.slots.programs.get(child.pid)
        if program is None:
            door.say(f"refused a program: {reply['refused']}")
        else:
            door.say(f"{program.name} (pid {program.pid} on {program.host}) has {program.granted} VMs")
        return reply

    def _answer_vm(self, child: _Child, ask: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """The line of a VM goes to the supervisor of its program."""
        pid, name = ask.get("supervisor"), ask.get("vm")
        if type(pid) is not int or pid not in self.slots.programs or not isinstance(name, str) or not descriptors:
            return {"refused": f"no program that has slots here is known by {pid!r}; it may have ended"}
        try:
            Talk(self._children[pid].report, f"its supervisor {pid}", 1.0).send({"vm": name}, descriptors)
        except HandshakeError as error:  # it ends just now, or takes no lines: those of a program here come with START
            return {"refused": str(error)}
        return {"handed": name}

    def _answer_status(self, child: _Child, ask: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        return self.slots.status()

    def _answer_stop(self, child: _Child, ask: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        self._is_stopping = child.is_stopper = True
        return {"stopping": os.getpid()}

    _ANSWERS: dict[str, Callable[[Server, _Child, dict[str, Any], list[int]], dict[str, Any]]] = {
        "join": _answer_join,
        "vm": _answer_vm,
        "status": _answer_status,
        "stop": _answer_stop,
    }

    # -- the end ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Stop listening; end every child but those that wait for our end, and wait for them."""
        door.say(f"{self.name} stops")
        self.close()
        if _inode(self.path) == self._inode:
            self.path.unlink()
        for child in self._mine():
            if child.sock is None:
                child.report.close()  # so that it takes its advertisement back
            elif child.pid in self.slots.programs:
                _hang_up(child.sock)
            else:
                os.kill(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + _GRACE
        while self._mine():
            if time.monotonic() > deadline:
                for child in self._mine():  # its VMs have it as their parent-death signal
                    os.kill(child.pid, signal.SIGKILL)
            self._turn(0.1)

    def _mine(self) -> list[_Child]:
        return [child for child in self._children.values() if not child.is_stopper]


def default_name() -> str:
    """The machine's name, as far as it can be a server's."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0]).lstrip("-_")[:63] or "river"


def check_name(name: str) -> None:
    """Raises ServerError for what cannot be a server's name."""
    if not _NAME.fullmatch(name):
        raise ServerError(
            f"{name!r} cannot be a server's name: it is a file name, of at most 63 letters, digits, "
            "'_', '.' and '-'; give one with --name"
        )


def _listen_lan(lan: tuple[str, int]) -> socket.socket:
    try:
        listener = socket.create_server(lan, backlog=_QUEUE)
    except OSError as error:
        raise ServerError(
            f"cannot listen at {lan[0]}, port {lan[1]}: {error}; --bind takes an IPv4 address of this "
            "machine, --port one that is free (0: any)"
        ) from error
    listener.setblocking(False)
    return listener


def _listen(path: Path) -> socket.socket:
    """A listening socket at this path.  Raises ServerError when somebody listens there."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _alone(path.parent):
            if _inode(path):
                if _answers(path):
                    raise ServerError(
                        f"a server named {path.stem} is running already; `river status` shows it, "
                        f"`river vm stop {path.stem}` ends it, --name gives this one another name"
                    )
                path.unlink()
            listener.bind(str(path))
            os.chmod(path, stat.S_IRWXU)
        listener.listen(_QUEUE)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ServerError(
            f"cannot listen at {path}: {error}; RIVER_RUNTIME_DIR may name another directory, of fewer "
            "than 90 characters"
        ) from error
    except BaseException:
        listener.close()
        raise
    return listener


@contextmanager
def _alone(directory: Path) -> Any:
    """Keep other starting servers out: two may find the same stale socket, and one remove the other's new one."""
    number = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # its queue is full, but it is there
        except OSError:
            return False
    return True


def _inode(path: Path) -> int:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return 0


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # its program has just ended
