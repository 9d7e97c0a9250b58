"""Logging in to a host, with paramiko or with the system's `ssh` program, behind one interface.

    login(host, timeout) --> Session --run(command)--> Stream

`login` raises HostError, which names the host, the step ("config", "resolve", "connect", "greeting", "host key",
"authentication", "session"), what was tried and what to do.  See river.ssh.ports for what a host, a session and a
stream are.

`transport="auto"` takes paramiko, and the `ssh` program for what paramiko cannot do: hardware keys, certificates,
Kerberos, a connection that ControlMaster holds open, algorithms of its own.  `session.why` says why.

Importing this imports no paramiko (180 ms).  May not: know what runs on the host, or what is sent to it.
"""

from __future__ import annotations

import shutil

from ..mishaps import HostError
from .config import Target, route
from .ports import Deadline, Session, Settings, Stream, Unsupported

__all__ = ["Session", "Settings", "Stream", "login"]

TRANSPORTS = ("auto", "paramiko", "openssh")


def login(host: Settings, timeout: float) -> Session:
    """Log in within `timeout` seconds, not counting those in which a human types.  Raises HostError."""
    if host.transport not in TRANSPORTS:
        raise ValueError(f"transport of {host.name} must be one of {TRANSPORTS}, not {host.transport!r}")
    targets = route(host)
    deadline = Deadline(timeout)
    if host.transport == "openssh":
        return _with_program(host, targets, deadline, "transport='openssh'")
    from . import keys, session

    may_choose = host.transport == "auto" and shutil.which("ssh") is not None
    for target in targets if may_choose else ():
        if why := target.needs_program() or keys.needs_program(target):
            return _with_program(host, targets, deadline, why)
    try:
        return session.login(host, targets, deadline)
    except Unsupported as unsupported:
        if may_choose:
            return _with_program(host, targets, deadline, unsupported.why)
        raise unsupported.error from None


def _with_program(host: Settings, targets: list[Target], deadline: Deadline, why: str) -> Session:
    from . import program

    if shutil.which("ssh") is None:
        raise HostError(host.name, "config", f"{host.name}: {why}, but there is no `ssh` program in PATH")
    return program.ProgramSession(host, targets, deadline, why)
