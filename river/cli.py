"""The commands `river` and `trickle`: run a script with VMs at hand.

    river -n 4 script.py args ...     the same as `python script.py args ...`, after VMs were found or started;
                                      Trickle's words need no import, and `from vr import VirtualResource` works

A script that names no VMs gets them when it, or what it imports, asks for some.  `multiprocessing` is River's, on the
hosts that are named.

A class of VirtualResource that the script defines and does not run itself is its program, and is run at the end.

A script that is for MPI (it imports MPI from `river.mpi`, or `mpi`; with --mpi4py, any) is run as so many ranks.

May not: know how VMs are started, or what a script or a rank does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

# The cluster that is meant if no host is named.
_DEFAULT = "default"
# Where modules are by the names that they had in 2006.
_NAMES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "names")
# Seconds that VRs get to end by themselves when their program's `main` has returned.
_PATIENCE = 1.0

_USAGE = """\
usage: {name} [-n N] [--hosts A,B | --lan] [--quiet] script.py [arguments of the script ...]
       {name} [-n N] [--hosts A,B | --lan] [--quiet] -m module [arguments ...]
       {name} [-n N] [--hosts A,B] [--mpi4py] [--tag-output] program.py      for a program that is for MPI
       {name} run ...            the same, for a script called hosts, vm, status, key or run
       river hosts | vm | status | key  [--help]
       river --help | --version

Run a Python script with VMs at hand: those of `connect()` and `discover()`; its `multiprocessing` is River's.
`river vm start` makes VMs that stay, which all programs of yours find; `river status` shows them; `river key` is what
they are protected by.  `river hosts` says whether machines can be used over SSH.
A script that imports MPI from river.mpi, or mpi, is run as so many ranks.
  -n N       so many VMs, or ranks (default: those that stay, or else one for each usable core)
  --hosts H  VMs and processes on these machines, over SSH: node1,alice@node2,lab (a name of river.toml), local (this
             one); default: [clusters.default] of river.toml, or this one
  --min-hosts K           how many of them must come up (default: all)
  --connect-timeout S     seconds that each of them has for it
  --lan      look for VMs that stay on other machines of the local network, too
  --quiet    do not say how many VMs were found
  --mpi4py   run the script as ranks, and `from mpi4py import MPI` means River in it
  --tag-output, --trace FILE, --on-failure return, --engine native     see `python -m river.mpi --help`
"""


class _Order(NamedTuple):
    """What the command line asks for."""

    vms: int | None
    hosts: str | None
    min_hosts: int | None
    connect_timeout: float | None
    lan: bool
    quiet: bool
    ranks: list[str]  # what is said of these
    is_module: bool
    argv: list[str]


class _Misuse(Exception):
    """The command line cannot be understood."""


def main(argv: Sequence[str] | None = None, name: str = "river") -> int:
    """`river ...`; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in ("hosts", "vm", "status", "key"):
        from .commands import MAINS

        return MAINS[given[0]](given[1:])
    try:
        order = _read(given)
    except _Misuse as error:
        print(f"{name}: {error}\n{_USAGE.format(name=name)}", file=sys.stderr, end="")
        return 2
    if isinstance(order, str):
        print(order.format(name=name))
        return 0
    with _one_message(name, True):
        if order.hosts is None and not order.lan and _has_default():
            order = order._replace(hosts=_DEFAULT)
    return _run(order, name)


def trickle(argv: Sequence[str] | None = None) -> int:
    """`trickle ...`; the same as `river`, with the banner that it had in 2006."""
    return main(argv, "trickle")


def _read(given: list[str]) -> _Order | str:
    """What is asked for; a string is to be printed, and that is all.  Raises _Misuse."""
    said: dict[str, Any] = {}
    if given[:1] == ["run"]:
        given = given[1:]
    while given and given[0].startswith("-"):
        option = given.pop(0)
        if option in ("-h", "--help"):
            return _USAGE.rstrip()
        if option == "--version":
            from . import __version__

            return f"river {__version__}"
        if option in _FLAGS:
            said[_FLAGS[option]] = True
        elif (word := option.partition("=")[0]) in _OF_RANKS:
            said.setdefault("ranks", []).append(option)
            if _OF_RANKS[word] and word == option and given:
                said["ranks"].append(given.pop(0))
        elif option == "-m":
            if not given:
                raise _Misuse("-m needs the name of a module")
            return _ordered(said, True, given)
        else:
            name, value = _parted(option)
            if name not in _VALUES:
                raise _Misuse(f"there is no option {option}")
            field, read = _VALUES[name]
            if value is None:
                value = given.pop(0) if given else ""
            said[field] = read(name, value)
    if not given:
        raise _Misuse("which script?")
    return _ordered(said, False, given)


def _parted(option: str) -> tuple[str, str | None]:
    """An option, and the value that is written in one word with it, if there is one: -n4, --hosts=node1."""
    if option.startswith("--"):
        name, sign, value = option.partition("=")
        return name, value if sign else None
    return option[:2], option[2:] or None


def _ordered(said: dict[str, Any], is_module: bool, argv: list[str]) -> _Order:
    if "hosts" not in said and (said.keys() & {"min_hosts", "connect_timeout"}):
        raise _Misuse("--min-hosts and --connect-timeout are about --hosts, and there is none")
    if "hosts" in said and "lan" in said:
        raise _Misuse("--lan looks for VMs on the network, and --hosts says where to start some; give one of them")
    nothing = dict.fromkeys(("vms", "hosts", "min_hosts", "connect_timeout"))
    return _Order(**{**nothing, "lan": False, "quiet": False, "ranks": [], **said}, is_module=is_module, argv=argv)


def _count(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise _Misuse(f"{option} takes a number of {'VMs' if option == '-n' else 'hosts'}, not {text!r}")
    return int(text)


def _seconds(option: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise _Misuse(f"{option} takes a number of seconds, not {text!r}")
    return seconds


def _names(option: str, text: str) -> str:
    if not text or text.startswith("-"):
        raise _Misuse(f"{option} takes names of hosts, with commas between them, not {text!r}")
    return text


_FLAGS = {"--lan": "lan", "-q": "quiet", "--quiet": "quiet"}
# What goes on to `python -m river.mpi` as it is, and whether a value belongs to it.
_OF_RANKS = {"--mpi4py": False, "--tag-output": False, "--on-failure": True, "--trace": True, "--engine": True}
_VALUES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "-n": ("vms", _count),
    "--hosts": ("hosts", _names),
    "--min-hosts": ("min_hosts", _count),
    "--connect-timeout": ("connect_timeout", _seconds),
}


def _run(order: _Order, name: str) -> int:
    """Run the script; returns its exit code."""
    if not getattr(sys.flags, "safe_path", False):  # as `python` does, in the place of River's own
        sys.path[0] = os.getcwd() if order.is_module else os.path.dirname(os.path.realpath(order.argv[0]))
    if order.ranks or (order.is_module and order.argv[0].startswith("river.mpi.")):
        # They see for themselves what they can run: a module may need what only they have.
        return _run_ranks(order, name)
    try:
        module, code = _load(order)
    except (OSError, ImportError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(f"{name}: {order.argv[0]} cannot be run: {reason}", file=sys.stderr)
        return 2
    except SyntaxError as error:
        _tell(error.with_traceback(None))
        return 1
    sys.path.append(_NAMES)
    if _is_for_ranks(code):
        return _run_ranks(order, name)
    from . import exits, session
    from . import trickle as words
    from .multiprocessing import alias

    module.__dict__.update({name: getattr(words, name) for name in words.__all__})
    alias.hosts, alias.terms = order.hosts, (order.min_hosts, order.connect_timeout)
    alias.install()
    sys.argv[:] = [module.__file__ or "" if order.is_module else order.argv[0], *order.argv[1:]]
    sys.modules["__main__"] = module
    try:
        ended = _finish(lambda: _perform(order, name, module, code))
        return _finish(exits.wait_for_threads) or ended
    finally:
        session.disconnect()
        exits.run()


def _is_for_ranks(code: Any) -> bool:
    """Whether a script imports MPI, or `mpi` as it was in 2006; what a function of it imports does not count."""
    if {"mpi", "river.mpi", "river.mpi.MPI"}.isdisjoint(code.co_names):
        return False
    import dis  # few scripts need it

    imported, asked = set(), ""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            asked = step.argval
            imported.add(asked)
        elif step.opname == "IMPORT_FROM":
            imported.add(f"{asked}.{step.argval}")
        elif step.opname == "IMPORT_STAR" or step.argrepr == "INTRINSIC_IMPORT_STAR":
            imported.add(f"{asked}.*")
    if "river.mpi.run" in imported:  # it starts its ranks itself
        return False
    return not imported.isdisjoint({"river.mpi.MPI", "river.mpi.*"}) or ("mpi" in imported and _is_ours("mpi"))


def _is_ours(name: str) -> bool:
    """Whether a module of this name is the one of 2006, and not one of the program's."""
    found = importlib.util.find_spec(name)
    return found is not None and found.origin == os.path.join(_NAMES, f"{name}.py")


def _run_ranks(order: _Order, name: str) -> int:
    """Run the script as ranks; returns its exit code."""
    from .mpi.__main__ import main as run

    if order.lan or order.min_hosts is not None or order.connect_timeout is not None:
        what = "--lan is" if order.lan else "--min-hosts and --connect-timeout are"
        print(f"{name}: {what} not for ranks: they start on all of the hosts that --hosts names", file=sys.stderr)
        return 2
    words = list(order.ranks)
    words += [] if order.vms is None else ["-n", str(order.vms)]
    words += [] if order.hosts is None else ["--hosts", order.hosts]
    return run([*words, *(["-m"] if order.is_module else []), *order.argv], name)


def _load(order: _Order) -> tuple[types.ModuleType, Any]:
    """The script as a module that has not run yet, and its code.  Raises OSError, ImportError or SyntaxError."""
    module = types.ModuleType("__main__")
    if order.is_module:
        import runpy

        _, spec, code = runpy._get_module_details(order.argv[0])  # type: ignore[attr-defined]
        module.__spec__, module.__file__, module.__package__ = spec, spec.origin, spec.parent
        return module, code
    path = os.path.join(os.getcwd(), order.argv[0])
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    module.__file__, module.__package__ = path, None
    return module, code


def _perform(order: _Order, name: str, module: types.ModuleType, code: Any) -> None:
    """Do what the script does; then what its program does.  VMs are found before, if it is about them."""
    from . import session

    session.propose(lambda: _find(order, name))
    if _is_about_vms(code):
        session.the_session()
    elif order.hosts is not None:
        _reach(name)
    exec(code, module.__dict__)
    kind = None if session.has_run() else _program(module)
    if kind is not None:
        _, running = session.perform(kind, patience=_PATIENCE)
        if running:
            vrs = f"{running} VR{'s' * (running != 1)}"
            print(f"{name}: main has returned; {vrs} that still ran came to an end with it", file=sys.stderr)


# A script that is about VMs imports one of these, or says `connect`, which needs no import; what else it may say of
# VMs, it says to what it has from here.
_HOMES = {"river", "river.trickle", "river.vr", "vr"}


def _is_about_vms(code: Any) -> bool:
    """Whether a script or a function of it imports from River, or says `connect` and has no `connect` of its own.

    An attribute does not count: sockets and databases have a `connect`, too."""
    steps = _steps(code)
    imported = {name for step, name in steps if step == "IMPORT_NAME"} & _HOMES
    if imported - {"vr"} or ("vr" in imported and _is_ours("vr")):
        return True
    done = {step for step, name in steps if name == "connect"}
    return not done.isdisjoint({"LOAD_NAME", "LOAD_GLOBAL"}) and done.isdisjoint({"STORE_NAME", "STORE_GLOBAL"})


def _steps(code: Any) -> set[tuple[str, str]]:
    """What a script and its functions do with names, where one of those is among them that are asked about."""
    found = set()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _steps(constant)
    if not _HOMES.union({"connect"}).isdisjoint(code.co_names):
        import dis  # few scripts need it

        found |= {(step.opname, step.argval) for step in dis.get_instructions(code) if isinstance(step.argval, str)}
    return found


def _find(order: _Order, name: str) -> Any:
    """The session with the VMs that are asked for; says how many there are."""
    from . import session

    far = None
    if order.hosts is not None:
        far = session.Far(order.hosts, order.min_hosts, order.connect_timeout)
    with _one_message(name, far is not None):
        found = session.Session(order.vms, True, order.lan, far)
        vms = found.connect(order.vms, True, {})
    if not order.quiet:
        told = f"discovered {len(vms)} VM{'s' * (len(vms) != 1)}"
        is_seen = sys.stdout is not None and sys.stdout.isatty()
        banner = told if name == "river" else f"{name}: {told}:"
        print(banner, file=sys.stdout if is_seen else sys.stderr, flush=True)
    return found


def _has_default() -> bool:
    """Whether river.toml says which hosts programs are on."""
    from . import mishaps, settings

    try:
        found = settings.tables().get(_DEFAULT)
    except mishaps.NotPrivate:  # nobody has asked for that file
        return False
    return found is not None and found.kind == settings.CLUSTERS


def _reach(name: str) -> None:
    """Reach the hosts that the processes of the program are to be on."""
    with _one_message(name, True):
        from .multiprocessing import cpu_count

        cpu_count()


@contextlib.contextmanager
def _one_message(name: str, is_far: bool) -> Iterator[None]:
    """A host that cannot be used ends the command, with one message."""
    from . import mishaps

    try:
        yield
    except (mishaps.RiverError, ImportError, OSError, ValueError) as error:
        if not is_far:
            raise
        raise SystemExit(f"{name}: {error}") from None


def _program(module: types.ModuleType) -> Any:
    """The VirtualResource that is the program: the only one that the script defines (of a class and its base, the
    class), or the only one of them with a `vr_init`.  None if it defines none.  Raises LookupError if it is not clear.
    """
    from .vr import VirtualResource, vrs_of

    kinds = vrs_of(module)
    chosen = kinds if len(kinds) == 1 else [kind for kind in kinds if kind.vr_init is not VirtualResource.vr_init]
    if kinds and len(chosen) != 1:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise LookupError(
            f"which one is the program, of {names}? Give vr_init() to one of them, or call river.run(...) yourself"
        )
    return chosen[0] if chosen else None


def _finish(perform: Callable[[], None]) -> int:
    """Perform the script as the interpreter does; returns its exit code."""
    try:
        perform()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 - as the interpreter does: told on stderr, with the script's frames
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals.get("__name__") in _AROUND:
            trace = trace.tb_next
        from .multiprocessing import alias

        _tell(error.with_traceback(alias.without_us(trace)))
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


# What is around a script's own frames.
_AROUND = (__name__, "river.exits", "river.session", "river.vr")


def _tell(error: BaseException) -> None:
    sys.stdout.flush()
    # Where the interpreter keeps what has ended a program.
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    sys.excepthook(type(error), error, error.__traceback__)
