"""SSH servers of the tests' own: OpenSSH's sshd without privileges, on a port of 127.0.0.1.

Each has a directory with its keys, its configuration and those of a client.  Where there is no sshd, `Standin` takes
its place for what it can: paramiko's server side, which runs commands.

May not: touch a file outside its directory, or leave a process.
"""

import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import tasks

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
HAS_CLIENT = all(shutil.which(name) for name in ("ssh", "ssh-keygen"))


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


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Sshd:
    """A server, and a client's directory in which `config` says how to reach it as "h1".

    `options`: lines of sshd_config; those given here come first, and the first one counts.
    """

    def __init__(self, directory, *options, environment=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.user = getpass.getuser()
        self.port = free_port()
        self.options = list(options)
        self.environment = environment or {}
        self.key = self.make_key("id_ed25519")
        self._host_key = self.make_key("host_key")
        self.authorized_keys = self.directory / "authorized_keys"
        self.authorized_keys.write_text(public(self.key))
        self.known_hosts = self.directory / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public(self._host_key)}")
        self.config = self.write_config()
        self.log = self.directory / "log"
        self._process = None
        self.start()

    def make_key(self, name, passphrase="", kind="ed25519"):
        path = self.directory / name
        keygen("-q", "-t", kind, "-N", passphrase, "-C", name, "-f", path)
        return path

    def write_config(self, *lines, name="config", alias="h1"):
        """A client's configuration: `lines` go before what leads to this server."""
        file = self.directory / name
        ours = [
            f"Host {alias}",
            "  HostName 127.0.0.1",
            f"  Port {self.port}",
            f"  User {self.user}",
            f"  IdentityFile {self.key}",
            "  IdentityAgent none",
            f"  UserKnownHostsFile {self.known_hosts}",
            "  GlobalKnownHostsFile /dev/null",
        ]
        file.write_text("\n".join([*lines, *ours, ""]))
        return file

    def host(self, **settings):
        return Host(**{"config": str(self.config), **settings})

    @property
    def host_key_fingerprint(self):
        return keygen("-l", "-f", f"{self._host_key}.pub").split()[1]

    @property
    def pid(self):
        return self._process.pid

    def start(self):
        mark = {"RIVER_TEST_MARK": os.environ.get("RIVER_TEST_MARK", "")}  # of the test, so that it sees what is left
        variables = " ".join(f'"{name}={value}"' for name, value in {**mark, **self.environment}.items())
        lines = [
            *self.options,
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self._host_key}",
            f"AuthorizedKeysFile {self.authorized_keys}",
            f"PidFile {self.directory / 'pid'}",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UseDNS no",
            "LogLevel DEBUG1",
            f"SetEnv {variables}",
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

    def stop(self):
        """End it and all that came from it, as a machine does that is switched off."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.Error):
            whole = psutil.Process(self.pid)
            family = [whole, *whole.children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(family, timeout=10)
        self._process.wait()
        self._process = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if error is not None and self.log.exists():
            print(f"the log of {self.directory}:\n" + "\n".join(self.log.read_text().splitlines()[-60:]))
        self.stop()


def public(key):
    return pathlib.Path(f"{key}.pub").read_text()


def keygen(*arguments):
    return subprocess.run(
        ["ssh-keygen", *map(str, arguments)], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout
