"""The commands `river vm`, `river status` and `river key`: arguments to calls, and what comes of them to text.

`river` (see `cli`) hands them over.
May not: know how anything is done.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from . import keys, mdns, server, servers
from ._core.cpus import cpu_count
from .errors import RiverError


def vm_main(argv: Sequence[str]) -> int:
    """`river vm start|stop|list`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="river vm", description="VMs that stay, for other programs of yours to use.")
    commands = parser.add_subparsers(required=True, metavar="start | stop | list")

    start = commands.add_parser("start", help="start a server of VMs on this machine", description=_start.__doc__)
    start.add_argument("-n", type=_positive, default=None, metavar="N", help="how many VMs (default: by processors)")
    start.add_argument("--name", default=None, help="of the server (default: the machine's name)")
    start.add_argument("--lan", action="store_true", help="let your programs on other machines use them, too")
    start.add_argument("--bind", metavar="ADDRESS", help="the one address to be found at (default: all); means --lan")
    start.add_argument("--port", type=_port, help="the TCP port (default: any that is free); means --lan")
    start.add_argument("--foreground", action="store_true", help="stay in this terminal; Ctrl-C ends it")
    start.set_defaults(do=_start)

    stop = commands.add_parser("stop", help="end a server, and all VMs that it has", description=_stop.__doc__)
    stop.add_argument("name", nargs="?", default=None, help="of the server, or host:port (default: the only one)")
    stop.set_defaults(do=_stop)

    listing = commands.add_parser("list", help="the same as `river status`", description=_status.__doc__)
    _add_status(listing)
    return _run(parser, argv)


def status_main(argv: Sequence[str]) -> int:
    """`river status`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="river status", description=_status.__doc__)
    _add_status(parser)
    return _run(parser, argv)


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lan", action="store_true", help="look on the local network, too")
    parser.set_defaults(do=_status)


def key_main(argv: Sequence[str]) -> int:
    """`river key`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="river key", description=_key.__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--show", action="store_true", help="print the key itself; keep it secret")
    which.add_argument("--new", action="store_true", help="make another key; servers that run keep the old one")
    which.add_argument("--set", action="store_true", help="read a key from standard input, as --show prints it")
    parser.set_defaults(do=_key)
    return _run(parser, argv)


def _run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.do(arguments) or 0)
    except (RiverError, ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


def _start(arguments: argparse.Namespace) -> None:
    """Start a server of VMs.  Any program of yours on this machine can then use them; each gets fresh ones.
    With --lan, so can programs on other machines that have the same key (see `river key`)."""
    _fill_standard()
    directory = keys.runtime_directory()
    count = arguments.n or cpu_count()
    name = server.default_name() if arguments.name is None else arguments.name
    is_lan = arguments.lan or arguments.bind is not None or arguments.port is not None
    lan = (arguments.bind or "0.0.0.0", arguments.port or 0) if is_lan else None
    serving = server.Server(name, count, keys.load(), directory, lan)
    if arguments.foreground:
        print(_greeting(serving, os.getpid()), flush=True)
        serving.run()
        return
    pid = os.fork()  # it listens already: who is told that it runs can connect
    if pid:
        serving.close()
        print(_greeting(serving, pid))
        return
    try:
        _detach(directory / f"{serving.name}.log")
        serving.run()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - into the log; nobody else would hear of it
        traceback.print_exc()
    finally:
        os._exit(1)


def _greeting(serving: server.Server, pid: int) -> str:
    count = serving.slots.total
    where = f", address {serving.lan[0]}:{serving.lan[1]}" if serving.lan else ""
    return f"river: {count} VM{'s' * (count > 1)} on {socket.gethostname()}, name {serving.name}, pid {pid}{where}"


def _fill_standard() -> None:
    """Have something open on 0, 1 and 2, or sockets would be there, and taken for input and output."""
    number = 0
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)


def _detach(log: Path) -> None:
    """Leave the terminal: no input, and a log in place of output."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number, target in ((0, null), (1, file), (2, file)):
        os.dup2(target, number)
    for number in {null, file} - {0, 1, 2}:
        os.close(number)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)


def _stop(arguments: argparse.Namespace) -> None:
    """End a server, the VMs that it has, and what their tasks have started."""
    name = arguments.name
    if name is None:
        server = _only_one()
    else:
        server = servers.at(name) if ":" in name else servers.named(name)
    pid = servers.stop(server)
    print(f"river: {server.name} (pid {pid}) has ended")


def _only_one() -> servers.Server:
    """The server that is meant when none is named."""
    running = servers.find(lan=False)
    if len(running) != 1:
        there = ", ".join(server.name for server in running)
        raise ValueError(f"which one? running: {there}" if running else "no server runs here")
    return running[0]


def _status(arguments: argparse.Namespace) -> None:
    """Show the servers of VMs that programs of yours can use, who uses them, and what their VMs do."""
    if arguments.lan and not mdns.is_available():
        print("only this machine is looked at, as zeroconf is not installed: pip install 'riverpool[discovery]'")
    found = servers.find(lan=arguments.lan)
    for one in found:
        print(_described(one, time.time()))
    if not found:
        print("no VMs stay here" + " or nearby" * arguments.lan + "; `river vm start` starts some")


def _described(one: servers.Server, now: float) -> str:
    where = "" if one.where == servers.HERE else f" ({one.address})"
    if one.problem:
        return f"{one.name}{f' on {one.host}' if one.host else ''}{where} cannot be used: {one.problem}"
    lines = [f"{one.name} on {one.host}{where}: {one.slots} VMs, {one.free} free, Python {one.python}, pid {one.pid}"]
    for program in one.programs:
        since = _duration(now - program["since"])
        lines.append(
            f"  {program['name']} (pid {program['pid']} on {program['host']}) has {program['granted']} since {since}"
        )
        for vm in program.get("vms", ()):
            lines.append(f"    VM {vm['pid']}: {vm['cpu']:.0f}% of a processor, {vm['memory'] / 2**20:.0f} MiB")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """3725 -> '1 h 2 min'."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{max(0, int(seconds))} s"


def _key(arguments: argparse.Namespace) -> None:
    """Show where the cluster key is, and its fingerprint.  Machines whose VMs shall work together need the same key:
    on one `river key --show`, on the other `river key --set`."""
    if arguments.set:
        keys.save(keys.parse(sys.stdin.readline()))
    elif arguments.new:
        keys.save(os.urandom(keys.SIZE))
    key = keys.load()
    print(key.hex() if arguments.show else f"{keys.path()}: fingerprint {keys.fingerprint(key)}")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port; these are 1 to 65535, and 0 is any that is free")
    return int(text)


MAINS: dict[str, Callable[[Sequence[str]], int]] = {"vm": vm_main, "status": status_main, "key": key_main}
