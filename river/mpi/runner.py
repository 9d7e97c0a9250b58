"""`python -m mpi4py program.py`: run a program so that an exception in one rank ends the job.

    program.py | -m module | -c command | -          and the program's arguments

With River any program of ranks does so; this is here for the commands that people have.
May not: know ranks.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_USAGE = "python -m mpi4py [-m module | -c command | program.py | -] [arguments]"


def set_abort_status(status: Any) -> None:
    """Do nothing: the code with which a rank exits is the job's."""


def run_command_line(args: Sequence[str] | None = None) -> None:
    """Run what the words of a command line say, as `__main__`; by default those of this process."""
    words = list(sys.argv[1:] if args is None else args)
    if not words or (words[0] in ("-m", "-c") and len(words) < 2):
        sys.exit(f"usage: {_USAGE}")
    how, *rest = words
    if how == "-m":
        sys.argv[:] = rest
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        _run_text(rest[0], "<string>", ["-c", *rest[1:]])
    elif how == "-":
        _run_text(sys.stdin.read(), "<stdin>", words)
    elif how.startswith("-"):
        sys.exit(f"unknown option {how}; usage: {_USAGE}")
    else:
        sys.argv[:] = words
        if not os.path.isdir(how):  # else its own folder is the path, as for Python itself
            sys.path.insert(0, os.path.dirname(os.path.abspath(how)))
        runpy.run_path(how, run_name="__main__")


def _run_text(text: str, name: str, argv: list[str]) -> None:
    sys.argv[:] = argv
    sys.path.insert(0, "")
    sys.modules["__main__"] = program = ModuleType("__main__")
    exec(compile(text, name, "exec", dont_inherit=True), program.__dict__)


def main() -> None:
    """Run what the command line says."""
    run_command_line()


if __name__ == "__main__":
    main()
