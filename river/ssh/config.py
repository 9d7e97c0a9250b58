"""What the user's ssh configuration says of a host: where it is, through which others, and with which keys.

The `ssh` program is asked (`ssh -G`, 5 ms, no connection), because nobody else knows Include, Match and the
distribution's defaults.  Where there is none, paramiko's parser reads ~/.ssh/config.

May not: connect to anything, or decide what a key or a host key is worth.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..mishaps import HostError
from .ports import Deadline, Settings

# Jump hosts that lead to each other in a circle are noticed here.
MOST_HOPS = 8
_KEYS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss", "id_dsa")
# What only the `ssh` program can do, unless the value is one of these.
_PROGRAM_ONLY = {
    "certificatefile": ("none",),
    "bindaddress": ("none",),
    "bindinterface": ("none",),
    "pkcs11provider": ("none",),
    "knownhostscommand": ("none",),
    "revokedhostkeys": ("none",),
    "hostbasedauthentication": ("no",),
    "proxyusefdpass": ("no",),
}

Options = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Target:
    """One login, as configured.  name: the host that it is for. alias: what was looked up, which may be a jump host."""

    name: str
    alias: str
    address: str
    port: int
    user: str
    options: Options = field(repr=False)
    pin: str | None = None
    is_jump: bool = False

    def failure(self, step: str, what: str, *lines: str) -> HostError:
        """The error that names host and place, says what happened, and then what to do."""
        place = f"{self.name}: jump host {self.alias}" if self.is_jump else self.name
        return HostError(self.name, step, "\n  ".join((f"{place} ({self.peer}): {what}", *filter(None, lines))))

    @property
    def peer(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{address}:{self.port}"

    @property
    def identities(self) -> list[str]:
        return [self._path(text) for text in self.options.get("identityfile", ()) if text != "none"]

    def is_default(self, identity: str) -> bool:
        """Whether this is one of the files that are tried if nobody names any."""
        return identity in [f"{_home()}/.ssh/{name}" for name in _KEYS]

    @property
    def is_bound_to_identities(self) -> bool:
        return self.says("identitiesonly", "no") == "yes"

    @property
    def agent(self) -> str | None:
        """The socket of the agent to ask."""
        chosen = self.says("identityagent", "SSH_AUTH_SOCK")
        if chosen in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK"):
            return os.environ.get("SSH_AUTH_SOCK")
        if chosen.startswith("$"):
            return os.environ.get(chosen[1:].strip("{}"))
        return None if chosen == "none" else self._path(chosen)

    @property
    def known_hosts(self) -> list[str]:
        names = " ".join((self.says("userknownhostsfile", ""), self.says("globalknownhostsfile", "")))
        return [self._path(name) for name in names.split() if name not in ("none", os.devnull)]

    @property
    def names(self) -> list[str]:
        """What the host is called in known_hosts; the second name counts if the first is not there."""
        alias = self.says("hostkeyalias", "")
        if alias:
            return [alias]
        return [self.address] if self.port == 22 else [f"[{self.address}]:{self.port}", self.address]

    @property
    def trust(self) -> str:
        """What to do with a host whose key is unknown: "refuse", unless the configuration says "accept"."""
        chosen = self.says("stricthostkeychecking", "ask")
        return "accept" if chosen in ("no", "off", "false", "accept-new") else "refuse"

    @property
    def proxy_command(self) -> str | None:
        command = self.says("proxycommand", "none")
        return None if command == "none" else self._expand(command)

    @property
    def control_socket(self) -> str | None:
        """That of an `ssh` which has logged in already, if there is one."""
        path = self.says("controlpath", "none")
        full = self._path(path)
        return full if path != "none" and Path(full).is_socket() else None

    def says(self, option: str, default: str) -> str:
        values = self.options.get(option)
        return values[0] if values else default

    def limit(self, deadline: Deadline) -> Deadline:
        """Until the greeting: ConnectTimeout, if that is less."""
        configured = self.says("connecttimeout", "none")
        return Deadline(min(float(configured), deadline.left())) if configured.isdecimal() else deadline

    def needs_program(self) -> str | None:
        """What of this only the `ssh` program can do, and why."""
        if self.control_socket:
            return f"a connection is open already (ControlPath {self.control_socket})"
        for option, harmless in _PROGRAM_ONLY.items():
            if self.says(option, harmless[0]) not in harmless:
                return f"the configuration says {option} {self.says(option, '')}"
        for file in self.identities:
            if os.path.exists(f"{file}-cert.pub"):
                return f"{file} has a certificate"
        return None

    def _path(self, text: str) -> str:
        text = self._expand(text)
        return _home() + text[1:] if text.startswith("~/") else text

    def _expand(self, text: str) -> str:
        """The %-tokens of ssh_config; those that are none stay."""
        here = socket.gethostname()
        tokens = {
            "%": "%",
            "d": _home(),
            "h": self.address,
            "i": str(os.getuid()) if hasattr(os, "getuid") else "",
            "k": self.says("hostkeyalias", self.alias),
            "L": here.split(".")[0],
            "l": here,
            "n": self.alias,
            "p": str(self.port),
            "r": self.user,
            "u": getpass.getuser(),
        }
        return re.sub("%(.)", lambda found: tokens.get(found[1], found[0]), text)


def route(host: Settings) -> list[Target]:
    """The logins that lead to the host: jump hosts first, the host last.  Raises HostError (step "config")."""
    alias = host.address
    if not alias or alias.startswith("-") or any(c.isspace() for c in alias):
        raise HostError(host.name, "config", f"{host.name}: {alias!r} is no name of a host")
    last = replace(_target(host, alias, arguments(host)), pin=host.host_key)
    return [*_jumps(host, last, MOST_HOPS), last]


def _jumps(host: Settings, target: Target, most: int) -> list[Target]:
    """The logins before `target`: only the first of a chain is reached as its own configuration says."""
    chain = [hop for hop in target.says("proxyjump", "none").split(",") if hop not in ("", "none")]
    if not chain:
        return []
    if len(chain) > most:
        raise HostError(
            host.name, "config", f"{host.name}: more than {MOST_HOPS} jump hosts: ProxyJump leads in a circle"
        )
    hops = [replace(_target(host, *_split(hop, host)), is_jump=True) for hop in chain]
    return [*_jumps(host, hops[0], most - len(hops)), *hops]


def _split(hop: str, host: Settings) -> tuple[str, list[str]]:
    """A jump host, [user@]host[:port] or as a URL, as its name and the arguments of ssh that say the rest."""
    found = re.fullmatch(r"(?:ssh://)?(?:(.+)@)?(\[[^]]+\]|[^:@]+|[^@]*:[^@]*:[^@]*?)(?::(\d+))?/?", hop)
    if found is None:
        raise HostError(host.name, "config", f"{host.name}: {hop!r} is no jump host ([user@]host[:port])")
    user, name, port = found.groups()
    arguments = ["-l", user] if user else []
    return name.strip("[]"), arguments + (["-p", port] if port else []) + _common(host)


def _common(host: Settings) -> list[str]:
    """What the user has said of this host and that holds for those before it."""
    arguments = ["-F", host.config] if host.config else []
    return arguments + (["-o", f"UserKnownHostsFile={_quoted(host.known_hosts)}"] if host.known_hosts else [])


def arguments(host: Settings) -> list[str]:
    """The arguments of `ssh` that say what the user has said of this host."""
    arguments = ["-l", host.user] if host.user else []
    arguments += ["-p", str(host.port)] if host.port else []
    # Not -i, which drops a file that is not there without a word.
    arguments += ["-o", f"IdentityFile={_quoted(host.identity)}"] if host.identity else []
    return arguments + _common(host)


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path


def _target(host: Settings, alias: str, arguments: list[str]) -> Target:
    options = _ask_ssh(host, alias, arguments) if shutil.which("ssh") else _ask_paramiko(host, alias, arguments)
    return Target(
        host.name, alias, options["hostname"][0], int(options["port"][0]), options["user"][0], options
    )


def _ask_ssh(host: Settings, alias: str, arguments: list[str]) -> Options:
    """As the `ssh` program understands it."""
    try:
        answer = subprocess.run(
            ["ssh", "-G", "-T", *arguments, "--", alias], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(host.name, "config", f"{host.name}: `ssh -G {alias}` failed: {error}") from None
    if answer.returncode != 0:
        text = answer.stderr.decode(errors="replace").strip() or f"exit status {answer.returncode}"
        raise HostError(
            host.name, "config", f"{host.name}: the ssh configuration cannot be read (`ssh -G {alias}`):\n  {text}"
        )
    return _table(answer.stdout.decode(errors="replace"))


def _table(text: str) -> Options:
    """The lines of `ssh -G`: option -> its values, in order."""
    options: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        option, _, value = line.partition(" ")
        if option:
            options[option.lower()] = (*options.get(option.lower(), ()), value)
    return options


def _ask_paramiko(host: Settings, alias: str, arguments: list[str]) -> Options:
    """The same without the program: no Include, and few defaults."""
    from paramiko import SSHConfig
    from paramiko.ssh_exception import SSHException

    file = host.config or f"{_home()}/.ssh/config"
    try:
        parsed = SSHConfig.from_path(file) if host.config or os.path.exists(file) else SSHConfig()
        found = parsed.lookup(alias)
    except (OSError, SSHException, UnicodeDecodeError) as error:
        raise HostError(
            host.name, "config", f"{host.name}: the ssh configuration {file} cannot be read: {error}"
        ) from None
    options = {
        "user": (getpass.getuser(),),
        "port": ("22",),
        "identityfile": tuple(f"~/.ssh/{name}" for name in _KEYS),
        "userknownhostsfile": ("~/.ssh/known_hosts ~/.ssh/known_hosts2",),
        "globalknownhostsfile": ("/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",),
        **{option: (value,) if isinstance(value, str) else tuple(value or ()) for option, value in found.items()},
    }
    return {**options, **_said(arguments, options)}


def _said(arguments: list[str], options: Options) -> Options:
    """What arguments of `ssh` say, as options; they win."""
    said: dict[str, tuple[str, ...]] = {}
    for flag, value in zip(arguments[::2], arguments[1::2], strict=True):
        if flag == "-o":
            name, _, setting = value.partition("=")
            more = options["identityfile"] if name == "IdentityFile" else ()
            said[name.lower()] = (setting.strip('"'), *more)
        elif flag in ("-l", "-p"):
            said["user" if flag == "-l" else "port"] = (value,)
    return said


def _home() -> str:
    """As ssh finds it: not by $HOME."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):
        return str(Path.home())
