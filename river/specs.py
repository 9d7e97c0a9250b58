"""What may be said of hosts: of one, of several, and of those that river.toml has a name for.

    "node1"    "alice@node2:2222"    "[::1]:2222"    "node[1-4]?n=8"    "ssh://alice@node3:22?n=8&python=python3.12"
    {"host": "node1", "n": 4}        Host("node1", n=4)
    "local"    "local:4"             VMs on this machine, beside those on others
    "lab"                            all hosts of [clusters.lab]

What is said closest to a host wins: the words above, then [hosts.NAME], then [clusters.NAME], then the defaults.

May not: know what a field may hold (hosts does), or where river.toml is (settings does).
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

from . import settings
from .hosts import COUNT, FIELDS, FILE, LOCAL, SHARED, WRITTEN, Host, check_scheme, checked, is_ipv6
from .settings import CLUSTERS, Table

Spec: TypeAlias = "str | Mapping[str, Any] | Host"

_MOST = 10_000  # hosts of one range; a typing error shall not fill the memory
_URL = re.compile(r"(?:([A-Za-z][\w+.-]*)://)?([^?]*)(?:\?(.*))?", re.DOTALL)
_PLACE = re.compile(r"(\[[^\[\]]*\]|[^:]*)(?::(.*))?", re.DOTALL)
_RANGE = re.compile(r"\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\]")
_COMMA = re.compile(r",(?![^\[\]]*\])")  # not one of a range


class Hosts(NamedTuple):
    """Hosts that were asked for.

    min_hosts: how many of them must come up at least, or None: all. connect_timeout: the longest that one of them has,
    or None: none says.
    """

    hosts: list[Host]
    min_hosts: int | None
    connect_timeout: float | None


def parse(spec: Spec) -> Host:
    """The host that these words mean by themselves, whatever river.toml says.

    Raises ValueError, which repeats no password, for what is none; TypeError for other objects.
    """
    if isinstance(spec, Host):
        return spec
    scheme, address, own = _understood(spec)
    return Host(address, scheme=scheme, **own)


def resolve(hosts: Spec | Iterable[Spec], defaults: Mapping[str, Any] | None = None) -> Hosts:
    """The hosts that are meant; a text may name several, with commas between them.

    defaults: fields for those of which nobody says otherwise.  A Host is not looked up in river.toml.
    Raises ValueError for what is no host, or the same one twice, TypeError for other objects, and as `settings.tables`.
    """
    common = checked("defaults of hosts", defaults or {}, SHARED)
    found, least = _gathered(hosts, common, settings.tables(), ())
    for name, times in Counter(host.name for host in found).items():
        if times > 1:
            raise ValueError(
                f"host {name!r} is given twice; name it once with the n it shall have, or give one of the two "
                f"another name, as in {name}?name=other"
            )
    longest = max((host.connect_timeout for host in found if host.connect_timeout), default=None)
    return Hosts(found, least, longest)


# ---------------------------------------------------------------------------------------------- lists and tables


def _gathered(
    hosts: Any, common: dict[str, Any], tables: dict[str, Table], within: tuple[str, ...]
) -> tuple[list[Host], int | None]:
    """The hosts, and how many of them must come up. within: the clusters that the list is in."""
    parts: list[tuple[list[Host], int | None]] = []
    for spec in _each(hosts):
        table = tables.get(spec) if isinstance(spec, str) else None
        if table and table.kind == CLUSTERS:
            parts.append(_of_cluster(str(spec), table, common, tables, within))
        else:
            parts.append(([_one(spec, common, tables)], None))
    if not parts:
        raise ValueError("no host is given; a host looks like alice@node1:22, and this machine is local")
    found = [host for part, _ in parts for host in part]
    if all(least is None for _, least in parts):
        return found, None
    return found, sum(len(part) if least is None else least for part, least in parts)


def _of_cluster(
    name: str, table: Table, common: dict[str, Any], tables: dict[str, Table], within: tuple[str, ...]
) -> tuple[list[Host], int | None]:
    if name in within:
        raise ValueError(f"{table.where} is part of itself: {' > '.join((*within, name))}")
    values = dict(table.values)
    hosts, least = values.pop("hosts", None), values.pop("min_hosts", None)
    if not isinstance(hosts, list) or not hosts:
        raise ValueError(f'{table.where}: hosts must be a list, like ["node1", "alice@node2"], not {hosts!r}')
    common = _merged(common, _layer(table, values, SHARED))
    with _inside(f"{table.where}, hosts"):
        found, inner = _gathered(hosts, common, tables, (*within, name))
    if least is None:
        return found, inner
    if not COUNT.fits(least) or least > len(found):
        raise ValueError(f"{table.where}: min_hosts must be a whole number from 1 to {len(found)}, not {least!r}")
    return found, least


def _one(spec: Spec, common: dict[str, Any], tables: dict[str, Table]) -> Host:
    if isinstance(spec, Host):
        own, scheme, address = spec.said(), spec.scheme, spec.address
    else:
        scheme, address, own = _understood(spec)
        table = tables.get(address)
        if table and table.kind == CLUSTERS:
            raise ValueError(f"{table.where} is a cluster; ask for {address!r} alone, and say there what is to be said")
        if table:
            scheme, address, layer = _of_host(address, table)
            own = _merged(layer, own)
    if scheme == "local":  # where the rest of what is said of all has no meaning
        common = {field: value for field, value in common.items() if field in LOCAL}
    return Host(address, scheme=scheme, **_merged(common, own))


def _of_host(name: str, table: Table) -> tuple[str, str, dict[str, Any]]:
    values = {"host": name, **table.values}
    with _inside(table.where):
        scheme, address, own = _text_understood(values.pop("host"))
    return scheme, address, {"name": name, **_merged(own, _layer(table, values, FIELDS.keys()))}


def _layer(table: Table, values: dict[str, Any], known: Set[str]) -> dict[str, Any]:
    """The fields that a table says; files are found beside the one that names them."""
    said = checked(table.where, values, WRITTEN & known)
    return {field: str(table.directory / value) if FIELDS[field] is FILE else value for field, value in said.items()}


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Of several layers the closest, which comes last; variables are merged one by one."""
    merged: dict[str, Any] = {}
    for layer in layers:
        env = {**merged.get("env", {}), **layer.get("env", {})}
        if layer.get("python") or layer.get("venv"):  # two ways to say one thing
            merged = {field: value for field, value in merged.items() if field not in ("python", "venv")}
        merged = {**merged, **layer, "env": env}
    return merged


@contextlib.contextmanager
def _inside(where: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


# -------------------------------------------------------------------------------------------------------- texts


def _each(hosts: Any) -> Iterator[Spec]:
    """The specs of a list one by one, with what commas and ranges mean written out."""
    if isinstance(hosts, (str, Mapping, Host)) or not isinstance(hosts, Iterable):
        hosts = [hosts]
    for spec in hosts:
        if isinstance(spec, str):
            yield from _written_out(spec)
        elif isinstance(spec, Mapping) and isinstance(spec.get("host"), str):
            yield from ({**spec, "host": text} for text in _written_out(spec["host"]))
        else:
            yield spec


def _written_out(text: str) -> list[str]:
    return [one for part in _COMMA.split(text) for one in _spread(part.strip())]


def _spread(text: str) -> list[str]:
    """node[08-10,12] -> node08, node09, node10, node12."""
    found = _RANGE.search(text.partition("?")[0])
    if not found:
        return [text]
    numbers: list[str] = []
    for part in found[1].split(","):
        first, _, last = part.partition("-")
        if not 0 <= int(last or first) - int(first) < _MOST:
            raise ValueError(f"[{part}] is no range of hosts; it goes up, as in node[1-4], by less than {_MOST}")
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return [one for number in numbers for one in _spread(text[: found.start()] + number + text[found.end() :])]


def _understood(spec: Any) -> tuple[str, str, dict[str, Any]]:
    """Scheme, address, and the fields that the words themselves say."""
    if isinstance(spec, str):
        return _text_understood(spec)
    if not isinstance(spec, Mapping):
        raise TypeError(f"a host is a text, a mapping or a Host, not {type(spec).__name__}")
    said = dict(spec)
    scheme, address, own = _text_understood(said.pop("host", None))
    return scheme, address, _merged(own, checked(f"host {address!r}", said))


def _text_understood(text: Any) -> tuple[str, str, dict[str, Any]]:
    if not isinstance(text, str):
        raise ValueError(f"host must be a text like alice@node1:22, not {text!r}")
    scheme, head, query = _URL.fullmatch(text.strip()).groups("")  # type: ignore[union-attr]  # it fits everything
    scheme = scheme.lower() or ("local" if head.partition(":")[0] == "local" else "ssh")
    check_scheme(scheme)
    address, own = SCHEMES[scheme](head.removesuffix("/"))
    where = f"host {address!r}"
    return scheme, address, _merged(own, checked(where, _asked(where, query), WRITTEN))


def _ssh(head: str) -> tuple[str, dict[str, Any]]:
    user, at, place = head.rpartition("@")
    if ":" in user:
        raise ValueError(
            f"a password was given with the user {user.partition(':')[0]!r} of a host, where everybody can read it; "
            "leave it out and use a key, or give a function: Host(..., password=getpass.getpass)"
        )
    found = None if is_ipv6(place) else _PLACE.fullmatch(place)
    address, port = found.groups() if found else (f"[{place}]", None)
    address = unquote(address[1:-1] if address.startswith("[") else address)
    if port is not None and not port.isdecimal():  # which is not repeated: it may be part of a password
        raise ValueError(f"host {address!r}: what follows the colon must be a port, {FIELDS['port'].allowed}")
    return address, {**({"user": unquote(user)} if at else {}), **({"port": int(port)} if port else {})}


def _local(head: str) -> tuple[str, dict[str, Any]]:
    word, _, n = head.partition(":")
    if word not in ("", "local") or not (n or "1").isdecimal():
        raise ValueError("this machine is local, or local:4 for so many VMs; nothing else can follow the colon")
    return "local", {"n": int(n)} if n else {}


# How the part of a URL before the question mark is read.
SCHEMES: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {"ssh": _ssh, "local": _local}


def _asked(where: str, query: str) -> dict[str, Any]:
    """n=8&env.A=1&modules=x&modules=y -> what a mapping would say."""
    said: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        field, _, text = map(unquote, pair.partition("="))
        if field.startswith("env."):
            said.setdefault("env", {})[field.removeprefix("env.")] = text
        elif field == "modules":
            said.setdefault("modules", []).append(text)
        elif field in said:
            raise ValueError(f"{where}: {field} is given twice")
        else:
            said[field] = _read(where, field, text)
    return said


def _read(where: str, field: str, text: str) -> Any:
    if field not in WRITTEN:
        return text  # `checked` says what is wrong with it
    try:
        return FIELDS[field].read(text)
    except (KeyError, ValueError):
        raise ValueError(f"{where}: {field} must be {FIELDS[field].allowed}, not {text!r}") from None
