"""The commands `river` and `trickle`: run a script with VMs at hand.

    river -n 4 script.py args ...     the same as `python script.py args ...`, after VMs were found or started;
                                      Trickle's words need no import, and `from vr import VirtualResource` works

A class of VirtualResource that the script defines and does not run itself is its program, and is run at the end.

May not: know how VMs are started, or what a script does.
"""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_USAGE = """\
usage: {name} [-n N] [--quiet] script.py [arguments of the script ...]
       {name} [-n N] [--quiet] -m module [arguments ...]
       river vm | status | key  [--help]
       river --help | --version

Run a Python script with VMs at hand: those of `connect()` and `discover()`.  `river vm start` makes VMs that stay,
which all programs of yours find; `river status` shows them; `river key` is what they are protected by.
  -n N       so many VMs (default: one for each usable core)
  --quiet    do not say how many VMs were found
"""


class _Order(NamedTuple):
    """What the command line asks for."""

    vms: int | None
    quiet: bool
    is_module: bool
    argv: list[str]


class _Misuse(Exception):
    """The command line cannot be understood."""


def main(argv: Sequence[str] | None = None, name: str = "river") -> int:
    """`river ...`; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in ("vm", "status", "key"):
        from .commands import MAINS

        return MAINS[given[0]](given[1:])
    try:
        order = _read(given)
    except _Misuse as error:
        print(f"{name}: {error}\n{_USAGE.format(name=name)}", file=sys.stderr, end="")
        return 2
    if isinstance(order, str):
        print(order)
        return 0
    return _run(order, "discovered {}" if name == "river" else "trickle: discovered {}:")


def trickle(argv: Sequence[str] | None = None) -> int:
    """`trickle ...`; the same as `river`, with the banner that it had in 2006."""
    return main(argv, "trickle")


def _read(given: list[str]) -> _Order | str:
    """What is asked for; a string is to be printed, and that is all.  Raises _Misuse."""
    vms: int | None = None
    quiet = False
    while given and given[0].startswith("-"):
        option = given.pop(0)
        if option in ("-h", "--help"):
            return _USAGE.format(name="river").rstrip()
        if option == "--version":
            from . import __version__

            return f"river {__version__}"
        if option in ("-q", "--quiet"):
            quiet = True
        elif option == "-m":
            if not given:
                raise _Misuse("-m needs the name of a module")
            return _Order(vms, quiet, True, given)
        elif option.startswith("-n"):
            text = option[2:] or (given.pop(0) if given else "")
            if not text.isdigit() or int(text) < 1:
                raise _Misuse(f"-n takes a number of VMs, not {text!r}")
            vms = int(text)
        else:
            raise _Misuse(f"there is no option {option}")
    if given[:1] == ["run"]:
        given = given[1:]
    if not given:
        raise _Misuse("which script?")
    return _Order(vms, quiet, False, given)


def _run(order: _Order, banner: str) -> int:
    """Run the script; returns its exit code."""
    try:
        module, code = _load(order)
    except (OSError, ImportError) as error:
        print(f"river: {order.argv[0]} cannot be run: {error}", file=sys.stderr)
        return 2
    except SyntaxError as error:
        _tell(error.with_traceback(None))
        return 1
    from . import session

    sys.path.append(str(Path(__file__).with_name("names")))
    sys.argv[:] = [module.__file__ or order.argv[0], *order.argv[1:]]
    if order.is_module:
        sys.path.insert(0, "")
    else:
        sys.path[0] = str(Path(order.argv[0]).resolve().parent)
    sys.modules["__main__"] = module
    try:
        vms = session.the_session(order.vms).connect(order.vms, True, {})
        if not order.quiet:
            count = f"{len(vms)} VM{'s' * (len(vms) != 1)}"
            print(banner.format(count), file=sys.stdout if sys.stdout.isatty() else sys.stderr, flush=True)
        return _finish(lambda: _perform(module, code))
    finally:
        session.disconnect()


def _load(order: _Order) -> tuple[types.ModuleType, Any]:
    """The script as a module that has not run yet, and its code.  Raises OSError, ImportError or SyntaxError."""
    from . import trickle as words

    module = types.ModuleType("__main__")
    module.__dict__.update({name: getattr(words, name) for name in words.__all__})
    if order.is_module:
        import runpy

        sys.path.insert(0, "")
        try:
            _, spec, code = runpy._get_module_details(order.argv[0])  # type: ignore[attr-defined]
        finally:
            del sys.path[0]
        module.__spec__, module.__file__, module.__package__ = spec, spec.origin, spec.parent
        return module, code
    path = order.argv[0]
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    module.__file__, module.__package__ = path, None
    return module, code


def _perform(module: types.ModuleType, code: Any) -> None:
    from . import session

    exec(code, module.__dict__)
    kind = None if session.has_run() else _program(module)
    if kind is not None:
        session.run(kind)


def _program(module: types.ModuleType) -> Any:
    """The VirtualResource that is the program: the only one that the script defines, or the only one that has a
    `vr_init`.  None if it defines none.  Raises LookupError if there are several."""
    from .vr import VirtualResource

    classes = [value for value in module.__dict__.values() if isinstance(value, type)]
    kinds = [
        kind for kind in dict.fromkeys(classes) if issubclass(kind, VirtualResource) and kind.__module__ == "__main__"
    ]
    first = [kind for kind in kinds if "vr_init" in kind.__dict__]
    chosen = kinds if len(kinds) == 1 else first
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
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        _tell(error.with_traceback(trace))
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _tell(error: BaseException) -> None:
    sys.stdout.flush()
    sys.excepthook(type(error), error, error.__traceback__)
