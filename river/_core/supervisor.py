"""The supervisor: a small process on each machine that starts its VMs, sees them end, and outlives them.

    driver --START, SIGNAL--> supervisor --fork--> VM, VM, ...
           <--STARTED, EXITED--

It has one thread and runs no user code, so it may fork, and a busy VM cannot keep it from anything.  When the driver
is gone it kills what it started and ends: no orphans, ever.  A VM's stderr passes through it, so that the last lines
before a death can be told.

May import only the standard library and its neighbours; may not block, except while it waits for everything at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from . import memory, output
from . import vm as vm_
from .child import Child, Spare, Start
from .connection import Connection
from .process import beyond_standard, import_all
from .wire import Kind

_MEMORY_PERIOD = 0.1  # seconds between two looks at VMs with a hard memory limit
_PR_SET_PDEATHSIG = 1
# By default glibc returns an array's memory to the system at once, and the next array pays for new pages, which takes
# longer than most things done with it.  M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: keep up to 64 MiB in a VM.
_MALLOC = {-3: 32 << 20, -1: 64 << 20}

_PATIENCE = 5.0  # seconds that what VMs have printed may take to leave, at the end

# What is reported of a VM that ended before it began.
_NEVER_RAN = {"pid": 0, "running": None, "index": 0, "peak": 0, "oom": False, "over": None, "tail": ""}


class Lines(Protocol):
    """Where a supervisor gets the lines of VMs from whose driver is on another machine."""

    number: int  # a descriptor, readable when there is one to take

    def take(self) -> tuple[str, int]:
        """A VM's name and the descriptor of its socket; does not wait.  Raises EOFError when no more will come."""

    def open(self, name: str, number: int) -> Connection:
        """In the VM: make that socket its line.  May take a while."""

    def close(self) -> None:
        """In the VM: this is its supervisor's."""


class Supervisor:
    """All VMs of one driver on one machine.

    driver: pid of the parent; when it ends, so does all this. limit: the most VMs at a time. owner: pid of another
    process whose end is the end, too. lines: where VMs' lines come from, if they cannot come with START. is_far: the
    driver is on another machine: what VMs print goes to it with the line.
    """

    def __init__(
        self,
        connection: Connection,
        driver: int,
        inherited: Any = None,
        limit: int | None = None,
        owner: int = 0,
        lines: Lines | None = None,
        is_far: bool = False,
    ) -> None:
        self._is_far = is_far
        self._streams_read = (1, 2) if is_far else (2,)
        self._is_closing = False
        self._line = connection
        self._driver = driver
        self._inherited = inherited
        self._limit = limit
        self._lines = lines
        self._handed: dict[str, int] = {}  # what came from `lines`, by VM; perhaps before its START
        self._forgotten: set[str] = set()  # VMs that were given up before their lines had come
        self._wanted: deque[Start] = deque()  # STARTs that wait for room or for a line
        self._vms: dict[int, Child] = {}  # by pid
        self._spare: Spare | None = None
        self._has_hired = False  # a VM for one call
        self._imported: set[str] = set()  # modules that VMs have from here
        self._sink = output.Sink()
        self._ooms = memory.oom_kills()
        self._wake_in, self._wake_out = os.pipe()
        for end in (self._wake_in, self._wake_out):
            os.set_blocking(end, False)
        self._handles = [h for h in (_open_process(driver), _open_process(owner) if owner else -1) if h >= 0]
        self._libc = _libc()

    def run(self) -> None:
        """Serve until the driver is gone or has closed the line, then end all VMs."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the driver
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        if self._libc is not None:  # here, not in each VM: it walks the heap, whose pages a VM would have to copy
            for parameter, value in _MALLOC.items():
                getattr(self._libc, "mallopt", lambda *_: 0)(parameter, value)
        gc.freeze()  # what is here now is shared with the VMs as long as nobody touches it
        try:
            while self._serve():
                pass
        finally:
            for child in self._children():
                child.kill()
            for child in self._children():  # whoever waits for our end may rely on theirs
                child.end()
                self._read_all(child)
                child.close()
            if self._is_closing:
                self._line.finish(_PATIENCE)

    def _serve(self) -> bool:
        poller = select.poll()
        poller.register(self._line.number, select.POLLIN | (select.POLLOUT if self._line.waiting else 0))
        poller.register(self._wake_in, select.POLLIN)
        for handle in self._handles:
            poller.register(handle, select.POLLIN)
        if self._lines is not None:
            poller.register(self._lines.number, select.POLLIN)
        if self._sink.unwritten:
            poller.register(2, select.POLLOUT)
        if len(self._sink.unwritten) < output.MOST and (not self._is_far or self._line.waiting < output.MOST):
            for stream in self._streams():
                poller.register(stream.number, select.POLLIN)
        has_limits = any(vm.limit for vm in self._vms.values())
        ready = {number for number, _ in poller.poll(_MEMORY_PERIOD * 1000 if has_limits else None)}
        if not ready.isdisjoint(self._handles) or os.getppid() != self._driver:
            return False
        if 2 in ready:
            self._sink.write()
        for vm in list(self._vms.values()):
            for stream in vm.streams:
                if stream.number in ready:
                    self._read_output(vm, stream)
        if has_limits:
            self._check_memory()
        if self._line.number in ready and not self._listen():
            return False
        if self._wake_in in ready:
            os.read(self._wake_in, 4096)
        if self._lines is not None and self._lines.number in ready and not self._take_line(self._lines):
            return False
        self._reap()
        self._start_wanted()
        return not self._is_closing

    def _children(self) -> list[Child]:
        return [*self._vms.values(), *filter(None, [self._spare])]

    def _streams(self) -> list[output.Stream]:
        """Those that VMs may still write to."""
        return [stream for vm in self._vms.values() for stream in vm.streams if stream.number >= 0]

    def _take_line(self, lines: Lines) -> bool:
        try:
            name, number = lines.take()
        except EOFError:
            return False
        if name in self._handed:
            os.close(self._handed.pop(name))
        if name in self._forgotten:
            self._forgotten.remove(name)
            os.close(number)
        else:
            self._handed[name] = number
        return True

    def _listen(self) -> bool:
        self._line.flush()
        try:
            frames = self._line.receive()
        except EOFError:
            return False
        for frame, descriptors in frames or ():
            message = pickle.loads(frame.payload)
            if frame.kind == Kind.START:
                # Beyond the limit it waits: a VM's replacement is asked for while the VM is still leaving.
                self._wanted.append((message[0], message[1], frame.buffers, descriptors))
            elif frame.kind == Kind.SIGNAL:
                for vm in self._vms.values():
                    if vm.name == message[0]:
                        vm.kill(message[1])
                self._forget_wanted(*message)
            elif frame.kind == Kind.CLOSE:
                self._is_closing = True
        return True

    def _forget_wanted(self, name: str, number: int) -> None:
        """A VM that has not been started yet ends by any signal."""
        for start in [s for s in self._wanted if s[0] == name]:
            self._wanted.remove(start)
            for descriptor in start[3]:
                os.close(descriptor)
            if name in self._handed:
                os.close(self._handed.pop(name))
            elif self._lines is not None:
                self._forgotten.add(name)
            self._send(Kind.EXITED, (name, {**_NEVER_RAN, "code": -number}))

    # -- starting and ending VMs --------------------------------------------------------------------------------

    def _start_wanted(self) -> None:
        for start in list(self._wanted):
            if self._limit is not None and len(self._vms) >= self._limit:
                return
            name, _, _, descriptors = start
            if name in self._handed:
                descriptors.append(self._handed.pop(name))
            if descriptors:
                self._wanted.remove(start)
                self._start(start)

    def _start(self, start: Start) -> None:
        name, options, _, descriptors = start
        if not self._is_far:  # there, modules come over the lines of VMs
            import_all(options.get("imports", ()), options["facts"], self._imported)
        vm = self._told_spare(start) if options.get("is_hired") else None
        if vm is None:
            vm = Child(self._streams_read)
            self._fork(vm, lambda: start)
        for number in descriptors:
            os.close(number)
        vm.name, vm.limit = name, options.get("hard_memory")
        self._vms[vm.pid] = vm
        self._send(Kind.STARTED, (name, vm.pid))
        if not options.get("is_hired") or options.get("is_one_of_many"):
            return
        # Who has started two processes, one after the other or not, will start more; many programs start one.
        if self._has_hired and self._spare is None and Spare.is_possible:
            self._prepare_spare()
        self._has_hired = True

    def _told_spare(self, start: Start) -> Child | None:
        """The spare, if there is one and it can be that VM."""
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        try:
            if spare.tell(start):
                return spare
            self._spare = spare
        except OSError:  # it has been killed
            spare.end()
            spare.close()
        return None

    def _prepare_spare(self) -> None:
        with contextlib.suppress(OSError):  # no room for another process: one that is wanted has its own error
            spare = Spare(self._streams_read)
            self._fork(spare, spare.wait)
            self._spare = spare

    def _fork(self, vm: Child, told: Callable[[], Start | None]) -> None:
        """`told`, in the child, says which VM it is; or None: none at all."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            vm.let_go()
            vm.close()
            raise
        if pid == 0:
            code = 1
            try:
                self._become_vm(parent, vm)
                start = told()
                code = self._be(vm.cell, start) if start is not None else 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except BaseException:  # noqa: BLE001 - a fault in River; the driver gets these lines with WorkerLost
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        vm.forked(pid)

    def _be(self, cell: Any, start: Start) -> int:
        """In the child: be that VM; returns its exit code."""
        name, options, buffers, (line, *others) = start
        initialize = self._inherited or vm_.load_initializer(options, buffers, others)
        opened = self._lines.open(name, line) if self._lines else Connection(socket.socket(fileno=line))
        return vm_.main(opened, cell, options, initialize)

    def _become_vm(self, parent: int, vm: Child) -> None:
        os.setpgid(0, 0)
        if self._libc is not None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (self._wake_in, self._wake_out, *self._handles):
            os.close(number)
        for number in (*self._handed.values(), *(number for start in self._wanted for number in start[3])):
            os.close(number)
        if self._lines is not None:
            self._lines.close()
        for child in self._children():
            child.close()
        self._line.close()
        vm.become()

    def _reap(self) -> None:
        """Report every VM that has ended."""
        for pid in list(self._vms):
            try:
                seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                seen = None
                self._vms.pop(pid)
                continue
            if seen is None:
                continue
            if seen.si_code != os.CLD_EXITED or seen.si_status:
                self._vms[pid].kill()  # what its task had started; the zombie still guards the number
            _, status, usage = os.wait4(pid, 0)
            self._report(self._vms.pop(pid), os.waitstatus_to_exitcode(status), usage.ru_maxrss)

    def _report(self, vm: Child, code: int, peak: int) -> None:
        self._read_all(vm)
        may_be_oom = code == -signal.SIGKILL and vm.over is None
        ooms = memory.oom_kills() if may_be_oom else self._ooms
        facts = vm.facts(code, peak) | {"oom": ooms > self._ooms}
        self._ooms = ooms
        self._send(Kind.EXITED, (vm.name, facts))

    def _send(self, kind: int, message: Any) -> None:
        self._line.send(kind, pickle.dumps(message, 5))

    # -- output and memory --------------------------------------------------------------------------------------

    def _read_output(self, vm: Child, stream: output.Stream) -> bool:
        """Pass on what has come; False when there was nothing."""
        data = stream.read()
        if data is None:
            return False
        if self._is_far:
            self._forward(vm, stream, data, is_last=not data)
        elif data:
            self._sink.write(data)
        return bool(data)

    def _forward(self, vm: Child, stream: output.Stream, data: bytes, is_last: bool) -> None:
        lines, dropped = stream.lines.take(data, time.monotonic(), is_last)
        if lines or dropped:
            self._send(Kind.OUTPUT, (vm.name, (stream.which, lines, dropped)))

    def _read_all(self, vm: Child) -> None:
        """It has ended: pass on the rest; what its children may write yet is nobody's."""
        for stream in vm.streams:
            while self._read_output(vm, stream):
                pass
            if self._is_far and stream.number >= 0:
                self._forward(vm, stream, b"", is_last=True)
            stream.close()

    def _check_memory(self) -> None:
        for vm in self._vms.values():
            if vm.limit and vm.over is None:
                used = memory.of_tree(vm.pid)
                if used > vm.limit:
                    vm.over = used
                    vm.kill()


def _open_process(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; -1 where there is no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        return ctypes.CDLL(None)
    except (ImportError, OSError):
        return None


def serve(sock: socket.socket, driver: int, inherited: Any = None) -> None:
    """Be a supervisor on this line until the driver is gone; does not return."""
    run(lambda: Supervisor(Connection(beyond_standard(sock)), driver, inherited))


def serve_far(sock: socket.socket, agent: int) -> None:
    """The same for a driver on another machine, whose lines the agent, our parent, carries."""
    run(lambda: Supervisor(Connection(beyond_standard(sock)), agent, is_far=True))


def run(make: Callable[[], Supervisor]) -> NoReturn:
    """Be the supervisor that `make` returns until its end, and the process's."""
    code = 1
    try:
        os.setsid()
        make().run()
        code = 0
    except BaseException:  # noqa: BLE001 - tell, then end in any case
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def main(number: int) -> None:
    """Entry of a fresh interpreter: the line to the driver is descriptor `number`."""
    serve(socket.socket(fileno=number), os.getppid())
