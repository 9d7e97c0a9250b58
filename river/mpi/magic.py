"""`%%mpi -n 4` in IPython: a cell that is a program of ranks.

    %load_ext river.mpi                     %%mpi -n 4 --out parts
                                            from river.mpi import MPI
                                            MPI.COMM_WORLD.allreduce(len(words))

Each rank runs the cell, with what it uses of the notebook's variables and functions as they are now.  The cell's value
is the list of what its last expression comes to, by rank.

May not: import IPython, which is there if this is asked for.
"""

from __future__ import annotations

import argparse
import ast
import linecache
import shlex
import sys
from types import ModuleType
from typing import Any, NoReturn

from .job import run

_NAME = "<cell of ranks>"


class _Parser(argparse.ArgumentParser):
    """Raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"%%mpi: {message}; {self.format_usage().strip()}")


def _parser() -> _Parser:
    parser = _Parser(prog="%%mpi", add_help=False, allow_abbrev=False)
    parser.add_argument("-n", type=int, default=2, metavar="N", help="so many ranks")
    parser.add_argument("--hosts", metavar="A,B", help="on these machines")
    parser.add_argument("--out", metavar="NAME", help="a variable for the results, by rank, instead of showing them")
    return parser


def load_ipython_extension(shell: Any) -> None:
    """For `%load_ext`."""

    def mpi(line: str, cell: str) -> list[Any] | None:
        options = _parser().parse_args(shlex.split(line))
        results = run(perform, cell, _used(cell, _own(shell)), n=options.n, hosts=options.hosts)
        if options.out:
            shell.user_ns[options.out] = results
            return None
        return results if any(result is not None for result in results) else None

    mpi.__doc__ = _parser().format_help()
    shell.register_magic_function(mpi, "cell", "mpi")


def _own(shell: Any) -> dict[str, Any]:
    """The notebook's variables, without those of IPython."""
    hidden = shell.user_ns_hidden
    return {name: value for name, value in shell.user_ns.items() if hidden.get(name) is not value}


def _used(cell: str, known: dict[str, Any]) -> dict[str, Any]:
    """What a cell uses of what is known.  Raises SyntaxError."""
    nodes = ast.walk(ast.parse(cell, _NAME))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return {name: known[name] for name in sorted(names & known.keys())}


def perform(cell: str, known: dict[str, Any]) -> Any:
    """In a rank: run the cell; returns what its last line is, if that is an expression."""
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__dict__.update(known)
    lines = cell.splitlines(keepends=True)
    linecache.cache[_NAME] = len(cell), None, lines, _NAME  # so that tracebacks have them
    tree = ast.parse(cell, _NAME)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, _NAME, "exec", dont_inherit=True), main.__dict__)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), _NAME, "eval", dont_inherit=True), main.__dict__)
