"""A host: a machine to start VMs on, with all that a user may say of it, checked.

May not: read what was said (specs does), resolve a name, open a connection, or show a password.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

Ask: TypeAlias = Callable[[str], str]  # is given a prompt, returns the secret

SCHEMES = ("local", "ssh")
# Strict, because `ssh` puts both into commands of a shell (ProxyCommand, Match exec), and takes "-o..." for an option.
_NAME = re.compile(r"\w[\w.+~-]*")
_IPV6 = re.compile(r"[0-9a-fA-F:.]+(?:%[\w.-]+)?")
_USER = re.compile(r"\w[\w.+~@\\-]*")


class Kind(NamedTuple):
    """What a field may hold. allowed: in words. read: out of the text of a URL. keep: as Host has it."""

    allowed: str
    fits: Callable[[Any], bool]
    read: Callable[[str], Any] = str
    keep: Callable[[Any], Any] = lambda value: value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_variables(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _is_text(name) and "=" not in name and isinstance(text, str) and "\0" not in text
        for name, text in value.items()
    )


_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TRANSPORTS = ("auto", "paramiko", "openssh")
_TEXT = Kind("a text that is not empty", _is_text)
FILE = Kind(
    "the path of a file on this machine",
    lambda value: isinstance(value, os.PathLike) or _is_text(value),
    keep=lambda value: os.path.expanduser(os.fspath(value)),
)
_SECONDS = Kind(
    "a positive number of seconds", lambda value: type(value) in (int, float) and 0 < value < float("inf"), float
)
COUNT = Kind("a whole number of 1 or more", lambda value: type(value) is int and value >= 1, int)
_ASK = Kind("a function that is given a prompt and returns the secret", callable)

FIELDS = {
    "name": Kind("a text in one line", lambda value: _is_text(value) and value.isprintable()),
    "user": Kind("the name of a user", lambda value: isinstance(value, str) and bool(_USER.fullmatch(value))),
    "port": Kind("a number from 1 to 65535", lambda value: type(value) is int and 0 < value < 65536, int),
    "n": COUNT,
    "python": _TEXT,
    "venv": _TEXT,
    "prelude": _TEXT,
    "env": Kind("names of variables, each with a text", _is_variables, keep=dict),
    "cwd": _TEXT,
    "direct": Kind("true or false", lambda value: isinstance(value, bool), lambda text: _FLAGS[text.lower()]),
    "transport": Kind("one of " + ", ".join(_TRANSPORTS), lambda value: value in _TRANSPORTS),
    "identity": FILE,
    "password": _ASK,
    "passphrase": _ASK,
    "host_key": _TEXT,
    "config": FILE,
    "known_hosts": FILE,
    "modules": Kind(
        "a list of names", lambda value: isinstance(value, (list, tuple)) and all(map(_is_text, value)), keep=tuple
    ),
    "connect_timeout": _SECONDS,
    "lease": _SECONDS,
}
SECRET = {"password", "passphrase"}
WRITTEN = FIELDS.keys() - SECRET  # what URLs and files may say
SHARED = FIELDS.keys() - {"name"}  # what may be said of several hosts at once
LOCAL = {"name", "n"}  # what may be said of this machine


@dataclass(frozen=True, repr=False)
class Host:
    """A machine to start VMs on.

    address: a name of ~/.ssh/config, a host name or an IP address. name: what errors and status call it; by default the
    address, with the port if one is given. user, port: by default what ~/.ssh/config says. n: VMs; by default one for
    each core that may be used there.
    python: path or name. venv: path; its bin/python is used. prelude: what a shell runs before, "module load x". env:
    variables. cwd: directory. modules: pure packages to send along, besides those that River finds by itself.
    direct: False forbids connections beside the SSH session. transport: "auto", "paramiko" or "openssh".
    identity: file of a key. password, passphrase: functions that are given a prompt, and called only when needed.
    host_key: "SHA256:...", the only one that is accepted. config, known_hosts: files in place of those in ~/.ssh.
    connect_timeout: seconds until it must be up. lease: seconds after which it ends its VMs when it is cut off.
    scheme: "ssh"; or "local" for this machine, of which only name and n can be said.

    str() is the URL that says the same, without password and passphrase; repr() hides the values of env too.
    Raises ValueError for a field that cannot be.
    """

    address: str
    _: KW_ONLY
    name: str = ""
    user: str | None = None
    port: int | None = None
    n: int | None = None
    python: str | None = None
    venv: str | None = None
    prelude: str | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    cwd: str | None = None
    direct: bool = True
    transport: str = "auto"
    identity: str | None = None
    password: Ask | None = None
    passphrase: Ask | None = None
    host_key: str | None = None
    config: str | None = None
    known_hosts: str | None = None
    modules: tuple[str, ...] = ()
    connect_timeout: float | None = None
    lease: float | None = None
    scheme: str = "ssh"

    def __post_init__(self) -> None:
        check_scheme(self.scheme)
        if not (isinstance(self.address, str) and (_NAME.fullmatch(self.address) or is_ipv6(self.address))):
            raise ValueError(f"{self.address!r} is no host name or address; a host looks like alice@node1:22")
        where = f"host {self.name or self._place()!r}"
        for field, default in self._defaults().items():
            if getattr(self, field) is None or (field == "name" and not self.name):
                object.__setattr__(self, field, default)
        for field, value in checked(where, {field: getattr(self, field) for field in FIELDS}).items():
            object.__setattr__(self, field, value)
        if self.python and self.venv:
            raise ValueError(f"{where}: python and venv both say which Python to use; give one of them")
        if self.is_local and (self.address != "local" or self.said().keys() - LOCAL):
            raise ValueError(f"{where}: this machine's address is 'local', and only name and n can be said besides")

    @property
    def is_local(self) -> bool:
        return self.scheme == "local"

    def interpreters(self, version: tuple[int, int]) -> list[str]:
        """What may be its Python of this version, best first; one that the user has named is the only one."""
        if self.python:
            return [self.python]
        if self.venv:
            return [f"{self.venv.rstrip('/')}/bin/python"]
        return ["python{}.{}".format(*version), "python3", "python"]

    def said(self) -> dict[str, Any]:
        """Its fields that are not as they are by default."""
        defaults = self._defaults()
        return {field: value for field in FIELDS if (value := getattr(self, field)) != defaults[field]}

    def _defaults(self) -> dict[str, Any]:
        return {**{field.name: field.default for field in dataclasses.fields(self)}, "name": self._place(), "env": {}}

    def __str__(self) -> str:
        return self._url(self.env)

    def __repr__(self) -> str:
        return f"<Host {self._url(dict.fromkeys(self.env, '...'))}>"

    def _place(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}" if self.port else address

    def _url(self, env: Mapping[str, str]) -> str:
        said = {field: value for field, value in self.said().items() if field in WRITTEN - {"user", "port", "env"}}
        pairs = [(field, text) for field, value in said.items() for text in _texts_of(value)]
        pairs += [(f"env.{name}", text) for name, text in env.items()]
        query = "&".join(f"{quote(field)}={quote(text)}" for field, text in pairs)
        user = f"{quote(self.user)}@" if self.user else ""
        place = "" if self.is_local else quote(self._place(), safe="[:]~+")
        return f"{self.scheme}://{user}{place}" + (f"?{query}" if query else "")


def checked(where: str, said: Mapping[str, Any], known: Collection[str] = FIELDS) -> dict[str, Any]:
    """The fields as Host keeps them, without those that are None."""
    for field in said:
        if field not in known:
            raise ValueError(f"{where}: {_unknown(field, known)}")
    return {field: _kept(where, field, value) for field, value in said.items() if value is not None}


def _kept(where: str, field: str, value: Any) -> Any:
    kind = FIELDS[field]
    if not kind.fits(value):
        shown = "" if field in SECRET or field == "env" else f", not {value!r}"  # what may be secret is not repeated
        raise ValueError(f"{where}: {field} must be {kind.allowed}{shown}")
    return kind.keep(value)


def _unknown(field: Any, known: Collection[str]) -> str:
    import difflib

    if field in SECRET:
        return f"{field} cannot be written down here; give a function in the program: Host(..., {field}=...)"
    likely = difflib.get_close_matches(str(field), known, 1)
    meant = f"did you mean {likely[0]!r}?" if likely else f"known: {', '.join(sorted(known))}"
    shown = f" {field!r}" if str(field).isidentifier() else ""  # else it may be the end of a password with a "?" in it
    return f"unknown parameter{shown}; {meant}"


def _texts_of(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return list(value)
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def is_ipv6(text: str) -> bool:
    try:
        return bool(_IPV6.fullmatch(text)) and ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def check_scheme(scheme: Any) -> None:
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r} of a host; known: {', '.join(SCHEMES)}")
