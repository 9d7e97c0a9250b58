"""Keys to log in with: those of the agent, those in files, and the passphrases that files may need.

What is tried goes from what asks nobody to what asks a human: files that an agent holds, files that are not encrypted,
the agent's other keys, encrypted files.

A passphrase is asked for once per file and process, whatever the number of hosts; it is never shown or kept, the opened
key is.  May not: talk to a host.
"""

from __future__ import annotations

import base64
import functools
import getpass
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import paramiko
from paramiko.agent import AgentSSH

from .config import Target
from .known import fingerprint

Ask = Callable[[str], str]

_MAGIC = b"openssh-key-v1\0"
_opened: dict[str, Any] = {}  # path of an encrypted file -> its key, or why it stays closed
_asking = threading.Lock()


class Refused(Exception):
    """A key cannot be used, and why."""


class Key(NamedTuple):
    """source: where it is from, for people. open: gives paramiko's key, or raises Refused."""

    source: str
    open: Callable[[], Any]


class Agent(AgentSSH):  # type: ignore[misc]
    """An ssh-agent at a socket of our choice; paramiko's own class knows only $SSH_AUTH_SOCK."""

    def __init__(self, path: str | None) -> None:
        super().__init__()
        if path is None or not hasattr(socket, "AF_UNIX"):
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(10)
            sock.connect(path)
            self._connect(sock)
        except (OSError, paramiko.SSHException):
            sock.close()  # a dangling variable: no agent is the same as one without keys
            self._conn = None

    def close(self) -> None:
        self._close()


def candidates(target: Target, agent: Agent, ask: Ask | None) -> Iterator[Key]:
    """The keys to try, in order.  `ask`: what asks for passphrases; None: nobody but a terminal."""
    held = {key.asbytes(): key for key in agent.get_keys()}
    closed = []
    files = [(path, *_look_at(path)) for path in target.identities]
    for path, public, _ in files:
        if public in held:
            yield _of_agent(held[public], f"{path} (from the agent)")
    for path, public, is_encrypted in files:
        if public in held or (not os.path.exists(path) and target.is_default(path)):
            continue
        if is_encrypted:
            closed.append(path)
        else:
            yield Key(path, functools.partial(_load, path, None))
    named = {public for _, public, _ in files}
    if not target.is_bound_to_identities:
        for public, key in held.items():
            if public not in named:
                yield _of_agent(key, f"{getattr(key, 'comment', '') or key.get_name()} (from the agent)")
    for path in closed:
        yield Key(path, functools.partial(_unlock, path, ask))


def needs_program(target: Target) -> str | None:
    """A key that only the `ssh` program can use: one that lives in hardware."""
    for path in target.identities:
        public = _look_at(path)[0]
        if public is not None and b"sk-" in public[:8]:
            return f"{path} is a hardware key"
    return None


def _of_agent(key: Any, source: str) -> Key:
    return Key(f"{source}, {fingerprint(key.asbytes())}", lambda: key)


def _look_at(path: str) -> tuple[bytes | None, bool]:
    """A file's public half, if that can be had without its passphrase, and whether it needs one."""
    data = _read(path)
    if data.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        return _blob(data), False
    lines = data.strip().splitlines()
    if lines and lines[0] == b"-----BEGIN OPENSSH PRIVATE KEY-----":
        try:
            return _public_of(base64.b64decode(b"".join(lines[1:-1])))
        except (ValueError, struct.error):
            return None, False
    return _blob(_read(f"{path}.pub")), b"ENCRYPTED" in data


def _read(path: str) -> bytes:
    """The file, or nothing."""
    try:
        with open(path, "rb") as stream:
            return stream.read(65536)
    except OSError:
        return b""


def _blob(line: bytes) -> bytes | None:
    try:
        return base64.b64decode(line.split()[1])
    except (ValueError, IndexError):
        return None


def _public_of(data: bytes) -> tuple[bytes, bool]:
    """Out of OpenSSH's format: magic, cipher, kdf, its options, number of keys, public key; each with its length."""
    offset = len(_MAGIC)
    fields = []
    for number in range(5):
        if number == 3:
            offset += 4
            continue
        (size,) = struct.unpack_from(">I", data, offset)
        fields.append(data[offset + 4 : offset + 4 + size])
        offset += 4 + size
    return fields[3], fields[0] != b"none"


def _load(path: str, passphrase: str | None) -> Any:
    try:
        return paramiko.PKey.from_path(path, passphrase.encode() if passphrase is not None else None)
    except OSError as error:
        raise Refused(error.strerror or str(error)) from None
    except Exception as error:  # paramiko and cryptography raise what they like: ValueError, TypeError, their own
        raise Refused(str(error) or type(error).__name__) from None


def _unlock(path: str, ask: Ask | None) -> Any:
    """The key of an encrypted file.  One at a time asks: the other logins need the same answer."""
    with _asking:
        if path not in _opened:
            prompt = f"Passphrase for {path}: "
            try:
                _opened[path] = _load(path, ask(prompt) if ask else _ask_terminal(prompt))
            except Refused as error:
                if ask is not None:
                    raise Refused("the passphrase does not open it") from None
                _opened[path] = error  # a terminal is asked once
        if isinstance(_opened[path], Refused):
            raise _opened[path]
        return _opened[path]


def _ask_terminal(prompt: str) -> str:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise Refused("it is encrypted: add it to an agent (ssh-add), or give passphrase=") from None
    return getpass.getpass(prompt)
