"""Servers of VMs on the local network: advertised and looked for by multicast DNS, with the library zeroconf.

Whatever is heard comes from strangers.  It is a hint where a server may be, and no more: the proof of the key follows.

May not: connect to what it finds, or run threads in a server (it advertises from a process of its own).
"""

from __future__ import annotations

import functools
import importlib.util
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

SERVICE = "_river._tcp.local."
_FIELDS = ("name", "host", "slots", "python", "river", "key")
_MOST_TEXT = 100
_MOST_NAMES = 64  # of services that are asked what they are, each in a thread; a stranger may make up any number


class Record(NamedTuple):
    """What a server says of itself to everybody; key: the fingerprint of its cluster key."""

    name: str
    host: str
    slots: str
    python: str
    river: str
    key: str
    addresses: tuple[str, ...]
    port: int


def is_available() -> bool:
    """Whether zeroconf is installed."""
    return importlib.util.find_spec("zeroconf") is not None


def advertise(record: Record, interface: str, until: socket.socket) -> None:
    """Tell the network of a server until the other end of `until` is closed.

    interface: address of the one network interface to use, or "" for all.  Raises OSError if multicast does not work.
    """
    import zeroconf

    network = zeroconf.Zeroconf(interfaces=[interface] if interface else zeroconf.InterfaceChoice.All)
    try:
        info = zeroconf.ServiceInfo(
            SERVICE,
            f"{record.name}.{SERVICE}",
            port=record.port,
            parsed_addresses=list(record.addresses),
            properties={field: getattr(record, field) for field in _FIELDS},
            server=f"{record.host.partition('.')[0]}-{record.port}.local.",
        )
        network.register_service(info, allow_name_change=True)
        until.recv(1)
        network.unregister_service(info)
    finally:
        network.close()


def browse(seconds: float, interface: str) -> list[Record]:
    """Servers that make themselves heard within so many seconds, and then answer within as many; none if multicast does
    not work here."""
    import zeroconf

    try:
        network = zeroconf.Zeroconf(interfaces=[interface] if interface else zeroconf.InterfaceChoice.All)
    except OSError:  # no interface that can, or may, multicast
        return []
    found: dict[str, None] = {}  # in the order in which they were heard
    try:
        # Asked for a unicast answer, as is zeroconf's way, a server's answer may end up with another program of this
        # machine that listens for mDNS: they all have the same port.
        multicast = zeroconf.DNSQuestionType.QM
        handlers = [lambda name, **_: found.update({name: None})]
        browser = zeroconf.ServiceBrowser(network, SERVICE, handlers=handlers, question_type=multicast)
        # There is no last answer to wait for.
        browser.join(seconds)
        browser.cancel()
        wait = round(seconds * 1000)
        # All at once: names are shouted by anybody, and one that does not answer must not take the time of others.
        with ThreadPoolExecutor(_MOST_NAMES) as threads:
            ask = functools.partial(network.get_service_info, SERVICE, timeout=wait, question_type=multicast)
            infos = list(threads.map(ask, list(found)[:_MOST_NAMES]))
    finally:
        network.close()
    return [_record(info) for info in infos if info is not None]


def addresses(interface: str) -> tuple[str, ...]:
    """Under which this machine can be reached, as far as it knows."""
    if interface:
        return (interface,)
    import ifaddr  # zeroconf needs it, so it is there

    known = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)]
    return tuple(ip for ip in known if not ip.startswith("127."))


def _record(info: Any) -> Record:
    texts = info.decoded_properties
    fields = {field: _printable(texts.get(field) or "") for field in _FIELDS}
    return Record(**fields, addresses=_ipv4(info.parsed_addresses()), port=info.port or 0)


def _printable(text: str) -> str:
    """A stranger's text must not play with the terminal on which it is shown."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MOST_TEXT])


def _ipv4(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in texts if ":" not in text)
