"""A process of River's, beside its tasks: where it imports from, what it occupies and has printed, where its standard
streams lead, how a child of it ends.

May not: know tasks or lines.
May import only the standard library: a bare far interpreter starts from these files.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import Any

# Where its files are, as tracebacks have it: in the driver, if they have come from there.
_RIVER = os.path.join(os.path.dirname(os.path.dirname((lambda: None).__code__.co_filename)), "")

# Modules of which this process has called `install()`, and each VM that it starts is to do so first.
preparations: list[str] = []


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """For imports: what they bring stays as long as the process does, and looking for garbage in it, meanwhile and at
    the end, would take a quarter of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def without_us(error: BaseException) -> BaseException:
    """Leave River's own frames out of the traceback: the first line should be the user's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_RIVER):
        trace = trace.tb_next
    return error.with_traceback(trace)


def import_all(names: Iterable[str], facts: dict[str, Any], tried: set[str]) -> None:
    """Import what each child would, once for all of them; tried: those that this was asked for before."""
    river = __name__.partition(".")[0]
    for name in names:
        if name in tried:
            continue
        tried.add(name)
        if name.partition(".")[0] != river:  # River's own are found, whatever the program has where
            find_where(facts)
        with lasting(), contextlib.suppress(BaseException):  # a child imports it again, and tells what is wrong
            importlib.import_module(name)


def find_where(facts: dict[str, Any]) -> None:
    """Import from where the driver does.

    Who is told of the driver's modules is on another machine, where its places mean nothing."""
    for place_ in reversed(facts.get("path", ()) if "modules" not in facts else ()):
        if place_ not in sys.path:
            sys.path.insert(0, place_)


def learn(facts: dict[str, Any]) -> None:
    """Take over what has changed in the driver: places to import from, multiprocessing's key and resource tracker."""
    find_where(facts)
    if "authkey" in facts:
        import multiprocessing.process

        multiprocessing.process.current_process().authkey = facts["authkey"]
    if "tracker" in facts:
        _share_tracker(*facts["tracker"])


def tracker() -> tuple[int, int, int] | None:
    """Where another process of this machine finds the resource tracker that this one has; None if it has none."""
    # Another thread may be in the middle of importing it.
    found = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    number = getattr(found, "_fd", None)
    try:
        return None if number is None else (os.getpid(), number, os.fstat(number).st_ino)
    except OSError:  # it has been closed
        return None


def _share_tracker(pid: int, number: int, inode: int) -> None:
    """Tell the driver's resource tracker of shared memory that has a name.  One of this process would remove, when it
    ends, what this process has only opened."""
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    path = f"/proc/{pid}/fd/{number}"
    try:
        # A VM has it by fork, or one of its own that knows already what it has made; a pid may be another machine's.
        if tracker._fd is None and os.stat(path).st_ino == inode:
            tracker._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        pass  # the driver has ended, or its processes cannot be seen


def keep_tracker_apart() -> None:
    """In a VM: a resource tracker that it starts is not in its process group, and so not killed with it; it is there to
    remove what was left then.  It ends when nobody has its pipe any more."""
    util: Any = sys.modules.get("multiprocessing.util")
    start = getattr(util, "spawnv_passfds", None)  # another thread may be in the middle of importing it
    if start is None or start.__module__ == __name__:
        return

    def start_apart(path: Any, args: Any, descriptors: Any) -> int:
        if "multiprocessing.resource_tracker" not in str(args[-1]):
            return int(start(path, args, descriptors))
        import subprocess

        process = subprocess.Popen(
            args, executable=path, pass_fds=descriptors, restore_signals=False, start_new_session=True
        )
        process.returncode = 0  # whoever has asked for it waits for its end; Popen's finalizer must not complain
        return process.pid

    util.spawnv_passfds = start_apart


def be_worker(is_here: bool, name: str, identity: tuple[int, ...], is_daemon: bool, parent: tuple[str, int]) -> None:
    """Be a process of multiprocessing's to whoever asks for the current one, and a child of that parent.

    That it is a daemon is only said: a worker of River's may have children."""
    import multiprocessing.process

    module: Any = multiprocessing.process
    kind: Any = type("Process", (module.BaseProcess,), {"daemon": is_daemon})
    worker = kind.__new__(kind)
    facts = {"_name": name, "_identity": identity, "_parent_name": parent[0], "_parent_pid": parent[1]}
    vars(worker).update({**vars(module._current_process), **facts})
    module._current_process, module._children, module._process_counter = worker, set(), itertools.count(1)
    module._parent_process = module._ParentProcess(*parent, watch(parent[1], is_here))


def watch(pid: int, is_here: bool) -> int:
    """A descriptor that becomes readable when the parent ends."""
    try:
        if is_here:
            return os.pidfd_open(pid)
    except (AttributeError, OSError):
        pass
    # With its driver's line a VM ends; it would never see more of the parent's end.
    end, other = os.pipe()
    _kept.append(other)
    return end


_kept: list[int] = []


def occupied() -> int:
    """Memory that this process occupies, in bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def leave_twin(report: Any) -> None:
    """End a child that a task has forked and that has come back from the task's function, perhaps by `sys.exit()`.

    `report`: of the exception that it came back with; None for none."""
    flush_output()
    code = 0
    if report is not None:
        name, _, text = report[1].partition(": ")
        code = int(text) if name == "SystemExit" and text.isdigit() else int(text not in ("", "None"))
        if name != "SystemExit":
            sys.stderr.write(report[2])
    os._exit(code)


def flush_output() -> None:
    """Let go of what tasks have printed, also without the end of a line."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - closed, replaced by something odd, or nobody reads it any more
            pass


def beyond_standard(sock: socket.socket) -> socket.socket:
    """Nothing to read on descriptor 0, and something open on 1 and 2, whatever the driver had closed: else what is
    opened next would be there, and taken for stdout or stderr; the line itself may be."""
    null = os.open(os.devnull, os.O_RDWR)
    missing = {0}
    for number in (1, 2):
        try:
            os.fstat(number)
        except OSError:
            missing.add(number)
    if sock.fileno() <= 2:
        import fcntl

        missing.add(sock.fileno())
        sock = socket.socket(fileno=fcntl.fcntl(sock.detach(), fcntl.F_DUPFD_CLOEXEC, 3))
    if null <= 2:
        missing.add(null)
    for number in missing - {null}:
        os.dup2(null, number)
    if null > 2:
        os.close(null)
    return sock
