"""The commands `river hosts`, `vm`, `status` and `key`: arguments to calls, and what comes of them to text.

`river` (see `cli`) hands them over.
May not: know how anything is done.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import keys, mdns, publish, server, servers, settings
from ._core import memory
from ._core.cpus import cpu_count
from .hosts import Host
from .mishaps import RiverError
from .specs import resolve


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


def hosts_main(argv: Sequence[str]) -> int:
    """`river hosts`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="river hosts", description=_hosts.__doc__)
    parser.add_argument("names", nargs="*", metavar="HOST", help="as for --hosts (default: all of river.toml)")
    parser.add_argument("--connect-timeout", type=_seconds, metavar="S", help="seconds that each of them has")
    parser.set_defaults(do=_hosts)
    return _run(parser, argv)


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
    """Show the servers of VMs that programs of yours can use, who uses them, and what their VMs do; and the machines
    that programs of yours use over SSH."""
    if arguments.lan and not mdns.is_available():
        print("only this machine is looked at, as zeroconf is not installed: pip install 'riverpool[discovery]'")
    found = servers.find(lan=arguments.lan)
    for one in found:
        print(_described(one, time.time()))
    programs = list(publish.programs(time.time()))
    for program in programs:
        print(_told(program, time.time()))
    if not found and not programs:
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


def _told(program: publish.Program, now: float) -> str:
    since = _duration(now - program.since)
    silent = f", silent for {_duration(program.silent)}" if program.silent > 5 * publish.EACH else ""
    rows = [
        (
            *(one["name"], one["state"], str(len(one["vms"])), str(one["tasks"]), str(one["done"])),
            *(f"{one['load']:.1f}", _memory(one["memory"], one["total_memory"])),
            *(_size(one["received"]), _size(one["sent"]), _in_one_line(one["error"])),
        )
        for one in program.machines
    ]
    head = ("machine", "state", "VMs", "tasks", "done", "load", "free memory", "received", "sent", "last error")
    title = f"{program.name} (pid {program.pid}) has machines since {since}{silent}"
    return "\n".join([title, *("  " + line for line in _table([head, *rows]))])


def _hosts(arguments: argparse.Namespace) -> int:
    """Find out whether machines can be used over SSH: start River there, and let go of it."""
    from .pool import RiverPool

    logging.getLogger("river").setLevel(logging.CRITICAL)  # what is wrong is in the table
    hosts = _named(arguments.names)
    # With this machine the pool is one whatever the others do.
    wanted = [dataclasses.replace(host, n=1) for host in hosts if not host.is_local]
    with RiverPool(hosts=["local:1", *wanted], min_hosts=0, connect_timeout=arguments.connect_timeout) as pool:
        far = pool._cluster.machines
        if far is not None:
            far.wait_for_all()
        statuses = pool.machines
    rows = [("local", "", platform.python_version(), *_resources(_this_machine()), "") for h in hosts if h.is_local]
    rows += [(one.name, one.peer, one.python, *_resources(one._asdict()), _in_one_line(one.error)) for one in statuses]
    head = ("host", "is", "Python", "cores", "load", "free memory", "problem")
    print("\n".join(_table([head, *rows])))
    return int(any(one.state != "ok" for one in statuses))


def _named(names: Sequence[str]) -> list[Host]:
    """The hosts of these names, or all that river.toml names."""
    wanted = names or list(settings.tables())
    if not wanted:
        raise ValueError("which host? `river hosts alice@node1`, say; there is no river.toml that names any")
    return list({host.name: host for name in wanted for host in resolve(name).hosts}.values())


def _this_machine() -> dict[str, Any]:
    return {"cpus": cpu_count(), **memory.of_machine()}


def _resources(facts: dict[str, Any]) -> tuple[str, str, str]:
    if not facts["cpus"]:
        return "", "", ""
    return str(facts["cpus"]), f"{facts['load']:.1f}", _memory(facts["memory"], facts["total_memory"])


def _memory(free: float, total: float) -> str:
    return f"{_size(free)} of {_size(total)}" if total else ""


def _size(count: float) -> str:
    """3 << 30 -> '3.0 GiB'."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.{int(units[0] != 'B')}f} {units[0]}"


def _in_one_line(text: str) -> str:
    """Without what a terminal would obey: much of it comes from elsewhere."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


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


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port; these are 1 to 65535, and 0 is any that is free")
    return int(text)


MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "hosts": hosts_main,
    "key": key_main,
    "status": status_main,
    "vm": vm_main,
}
