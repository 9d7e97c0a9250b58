"""Every exception of River's, by whose fault it is.

    RiverError
    ├── RemoteError          the task raised something that cannot be rebuilt here; says what and where
    ├── TransferError        an argument or a result could not be unpickled (also BrokenProcessPool)
    ├── TimeoutError         nothing came in time (also multiprocessing's and the builtin TimeoutError)
    │   └── TaskTimeout      a task was stopped because its own time was up
    ├── WorkerLost           a VM died while it ran the task (also BrokenProcessPool)
    │   └── MemoryLimitError     it was ended because it passed `max_memory`
    ├── PacketError          a packet's attribute cannot be sent, or could not be rebuilt (also TypeError)
    ├── VirtualResourceLost  who was waited for has ended or died: a VirtualResource, or the holder of a queue
    ├── VMsNotFound          fewer VMs than were asked for, or one that is gone
    ├── ConsumerLost         a consumer died with items of a queue that nobody will mark as done
    ├── ServerError          VMs that stay cannot be had: their server is gone, full or of another Python
    │   └── AuthenticationError  its key is not ours (also multiprocessing.AuthenticationError)
    ├── HostError            a machine cannot be used over SSH; says which, at which step, and what to do
    └── NotPrivate           the key, or the runtime directory, can be reached by others

What the standard library raises in the same case, River raises too: `MaybeEncodingError` for results that cannot be
pickled, `BrokenProcessPool` when VMs cannot be kept alive or the initializer fails, `CancelledError`, `ValueError("Pool
not running")`, `RuntimeError` on submit after shutdown.

Those that are River's alone are made in `mishaps`: what the others derive from takes longer to load than VMs to start.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import multiprocessing
import signal
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback  # type: ignore[attr-defined]
from typing import Any

from .mishaps import (
    ConsumerLost,
    HostError,
    NotPrivate,
    PacketError,
    RemoteError,
    RiverError,
    ServerError,
    VirtualResourceLost,
    VMsNotFound,
)

__all__ = [
    "AuthenticationError",
    "BrokenProcessPool",
    "ConsumerLost",
    "HostError",
    "MaybeEncodingError",
    "MemoryLimitError",
    "NotPrivate",
    "PacketError",
    "RemoteError",
    "RiverError",
    "ServerError",
    "TaskTimeout",
    "TimeoutError",
    "TransferError",
    "VMsNotFound",
    "VirtualResourceLost",
    "WorkerLost",
]

_ANY_TIMEOUT: Any = tuple(
    dict.fromkeys((multiprocessing.TimeoutError, concurrent.futures.TimeoutError, builtins.TimeoutError))
)


class TransferError(RiverError, BrokenProcessPool):
    """A function, argument or result could not be unpickled where it arrived; only this task is affected."""


class TimeoutError(RiverError, *_ANY_TIMEOUT):  # type: ignore[misc]
    """Nothing came within the time that the caller gave."""


class TaskTimeout(TimeoutError):
    """The task was stopped (its VM was ended and replaced) because it ran longer than its `timeout`."""


class WorkerLost(RiverError, BrokenProcessPool):
    """A VM died while it ran this task, and no retries are left.

    vm: name of the VM. host: its machine. pid: of its process. code: exit code, or minus the signal's number.
    peak: the most memory it occupied, in bytes. oom: whether the kernel's OOM killer did it. tail: last lines of its
    stderr. task: the call.
    """

    vm: str
    host: str
    pid: int
    code: int
    peak: int
    oom: bool
    tail: str
    task: str


class MemoryLimitError(WorkerLost):
    """A VM was ended because it and its children occupied more than `max_memory`."""


class AuthenticationError(ServerError, multiprocessing.AuthenticationError):
    """The other side does not have our cluster key, or is not River at all; nothing was told to it."""


def worker_lost(vm: str, host: str, facts: dict[str, Any], task: str, deaths: int, retries: int) -> WorkerLost:
    """The error for a task whose VM died once too often; `facts` is the supervisor's report."""
    kind = MemoryLimitError if facts.get("over") else WorkerLost
    lines = [f"{vm} on {host} (pid {facts['pid']}) {_cause(facts)} while it ran {task}{_guess(facts)}"]
    times = "once" if deaths == 1 else f"{deaths} times"
    lines.append(f"  it had died of this task {times}; retries={retries}, so the task is given up and all others go on")
    lines.append(f"  peak memory of the VM: {facts['peak'] / 2**20:.0f} MiB")
    if facts.get("tail", "").strip():
        lines.append("  its last words on stderr:")
        lines += ["    " + line for line in _last_words(facts["tail"])]
    error = kind("\n".join(lines))
    error.vm, error.host, error.task = vm, host, task
    error.pid, error.code, error.peak = facts["pid"], facts["code"], facts["peak"]
    error.oom, error.tail = facts["oom"], facts["tail"]
    return error


def _last_words(tail: str) -> list[str]:
    """The end of what a VM wrote; of a fault's stack, only the frames above River's own."""
    lines: list[str] = []
    is_ours = False
    for line in tail.strip().splitlines():
        is_frame = line.startswith('  File "')
        is_ours = is_frame and (is_ours or "/river/_core/" in line)
        if not is_ours:
            lines.append(line)
    return lines[-20:]


def _cause(facts: dict[str, Any]) -> str:
    code = facts["code"]
    if facts.get("cause"):
        return f"was lost with its machine ({facts['cause']})"
    if facts.get("over"):
        return f"occupied {facts['over'] / 2**20:.0f} MiB, more than max_memory allows, and was ended"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    text = f"was killed by signal {-code} ({name})"
    if facts["oom"]:
        return text + " by the kernel's out-of-memory killer"
    return text


def _guess(facts: dict[str, Any]) -> str:
    if facts["code"] != -signal.SIGKILL or facts["oom"] or facts.get("over") or facts.get("cause"):
        return ""
    return "; that is someone's kill -9, or a lack of memory that cannot be seen from here"


def remote(report: tuple[Any, str, str], value: BaseException | None, is_pool: bool) -> BaseException:
    """The exception of a task as its caller sees it: with the far traceback as its cause, in the face's own class."""
    _, name, text = report
    error = value if value is not None else RemoteError(f"{name}\n(the exception itself could not be sent)")
    kind: Any = RemoteTraceback if is_pool else _RemoteTraceback
    error.__cause__ = kind(f'\n"""\n{text}"""')
    return error


def unsendable(report: tuple[Any, str, str], value: BaseException | None, text: str, is_pool: bool) -> BaseException:
    """The error for a result that could not be pickled in the VM: each face has its own habit."""
    if is_pool or value is None:
        error = MaybeEncodingError(value if value is not None else RemoteError(report[1]), text)
        error.value, error.args = text, (error.exc, text)  # it is a repr already, made where the value was
        return remote(report, error, is_pool)
    return remote(report, value, is_pool)
