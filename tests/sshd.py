"""SSH servers of the tests' own: OpenSSH's sshd without privileges, on a port of 127.0.0.1.

Each has a directory with its keys, its configuration and those of a client.  Where there is no sshd, `Standin` takes
its place for what it can: paramiko's server side, which runs commands.

May not: touch a file outside its directory, or leave a process.
"""

import base64
import contextlib
import getpass
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import pytest
import tasks
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(SSHD is None, reason="there is no sshd program (OpenSSH's server) here")
needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh program here")
needs_agent = pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="there is no ssh-agent program here")


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a login is told of a host; the defaults are those of a user who says nothing."""

    name: str = "h1"
    address: str = "h1"
    user: str | None = None
    port: int | None = None
    transport: str = "paramiko"
    identity: str | None = None
    password: Callable[[str], str] | None = None
    passphrase: Callable[[str], str] | None = None
    host_key: str | None = None
    config: str | None = None
    known_hosts: str | None = None


class Server:
    """A directory in which a client finds what it needs to reach a server as "h1": `config`, `key`, `known_hosts`."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.user = getpass.getuser()
        self.port = free_port()
        self.key = self.make_key("id_ed25519")
        self.host_key = self.make_key("host_key")
        self.authorized_keys = self.directory / "authorized_keys"
        self.authorized_keys.write_text(public(self.key))
        self.known_hosts = self.directory / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public(self.host_key)}")
        self.config = self.write_config()

    def make_key(self, name, passphrase=""):
        """A key file, and its public half beside it."""
        key = ed25519.Ed25519PrivateKey.generate()
        lock = (
            serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
        )
        path = self.directory / name
        path.touch(0o600)
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, lock))
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        path.with_name(f"{name}.pub").write_bytes(line + b" " + name.encode() + b"\n")
        return path

    def write_config(self, *lines, name="config", alias="h1"):
        """A client's configuration: `lines` are said of this host first, and what is said first counts."""
        file = self.directory / name
        ours = [
            f"Host {alias}",
            *(f"  {line}" for line in lines),
            "  HostName 127.0.0.1",
            f"  Port {self.port}",
            f"  User {self.user}",
            f"  IdentityFile {self.key}",
            "  IdentityAgent none",
            f"  UserKnownHostsFile {self.known_hosts}",
            "  GlobalKnownHostsFile /dev/null",
        ]
        file.write_text("\n".join([*ours, ""]))
        return file

    def host(self, **settings):
        """What a user says who says no more than these."""
        return Host(**{"config": str(self.config), **settings})

    @property
    def host_key_fingerprint(self):
        return fingerprint(self.host_key)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Sshd(Server):
    """OpenSSH's server.  `options`: lines of sshd_config; the first that says a thing counts, so they win."""

    def __init__(self, directory, *options):
        super().__init__(directory)
        self.options = list(options)
        self.log = self.directory / "log"
        self._process = None
        self.start()

    @property
    def pid(self):
        return self._process.pid

    def start(self):
        lines = [
            *self.options,
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.authorized_keys}",
            f"PidFile {self.directory / 'pid'}",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UseDNS no",
            "LogLevel DEBUG1",
            # The mark of the test, by which it sees what is left.
            f"SetEnv RIVER_TEST_MARK={os.environ.get('RIVER_TEST_MARK', '')}",
        ]
        file = self.directory / "sshd_config"
        file.write_text("\n".join([*lines, ""]))
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # for its privilege separation
        self._process = subprocess.Popen([SSHD, "-D", "-f", file, "-E", self.log], stdin=subprocess.DEVNULL)
        tasks.wait_until(self._is_up, what=f"the sshd of {file}")

    def _is_up(self):
        if self._process.poll() is not None:
            raise AssertionError(f"sshd ended: {self.log.read_text()}")
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def sessions(self):
        """The processes that serve connections, of which the last ones of each run commands."""
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(self.pid).children()]
        return []

    def family(self):
        """All its processes: those that serve connections, and what they run."""
        with contextlib.suppress(psutil.Error):
            return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]
        return [self.pid]

    def stop(self):
        """End it and all that came from it, as a machine does that is switched off."""
        if self._process is None:
            return
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def __exit__(self, kind, error, _):
        if error is not None and self.log.exists():
            print(f"the log of {self.directory}:\n" + "\n".join(self.log.read_text().splitlines()[-60:]))
        self.stop()


def start(directory, *options):
    """A server: OpenSSH's if there is one and else a stand-in, which knows no options."""
    if SSHD is not None:
        return Sshd(directory, *options)
    from standin import Standin

    return Standin(directory)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def public(key):
    return pathlib.Path(f"{key}.pub").read_text()


def fingerprint(key):
    blob = base64.b64decode(public(key).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
