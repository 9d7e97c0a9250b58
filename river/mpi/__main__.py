"""`python -m river.mpi -n 4 program.py`: run a program as so many ranks.  `river -n 4 program.py` is the same.

May not: know what ranks do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .._core.process import lasting


def main(argv: Sequence[str] | None = None, name: str = "river.mpi") -> int:
    """Run a program; returns the exit code.  name: of the command that was given."""
    parser = _parser(name)
    options = parser.parse_args(argv)
    if options.n is not None and options.n < 1:
        parser.error(f"-n takes a number of ranks, not {options.n}")
    with lasting():
        from .command import run  # nearly all that ranks need
    return run(options, name)


def _parser(name: str) -> argparse.ArgumentParser:
    command = "python -m river.mpi" if name == "river.mpi" else name
    parser = argparse.ArgumentParser(command, description="Run a Python program as ranks of MPI.", allow_abbrev=False)
    add = parser.add_argument
    add("-n", type=int, metavar="N", help="so many ranks (default: one for each core)")
    add("--engine", metavar="native", help="on the MPI that is installed, by its mpiexec and mpi4py; or river")
    add("--hosts", metavar="A,B", help="on these machines, over SSH: see `river hosts --help`")
    add("--mpi4py", action="store_true", help="`from mpi4py import MPI` means River in the program")
    add("--tag-output", action="store_true", help="each line that a rank prints begins with its number: [2] ...")
    how = "of a rank: the job ends, or others get an error"
    add("--on-failure", choices=("end", "return"), default="end", help=how)
    add("--trace", metavar="OUT.HTML", help="write a picture of who waited for whom, with all messages")
    add("-m", action="store_true", dest="is_module", help="the program is the name of a module")
    add("program", help="a file")
    add("arguments", nargs=argparse.REMAINDER, help="of the program")
    return parser


if __name__ == "__main__":
    sys.exit(main())
