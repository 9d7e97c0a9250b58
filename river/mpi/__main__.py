"""`python -m river.mpi -n 4 program.py`: run a program as so many ranks.

May not: know what ranks do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .._core import cpus
from ..errors import RiverError
from .job import Job, RankFailed
from .places import cluster_of
from .rank import script


def main(argv: Sequence[str] | None = None) -> int:
    """Run a program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m river.mpi", description="Run a Python program as ranks of MPI.")
    add = parser.add_argument
    add("-n", type=int, default=cpus.cpu_count(), metavar="N", help="so many ranks (default: one for each core)")
    add("--hosts", metavar="A,B", help="on these machines, over SSH: see `river hosts --help`")
    add("--mpi4py", action="store_true", help="`from mpi4py import MPI` means River in the program")
    add("-m", action="store_true", dest="is_module", help="the program is the name of a module")
    add("program", help="a file")
    add("arguments", nargs=argparse.REMAINDER, help="of the program")
    options = parser.parse_args(argv)
    if options.n < 1:
        parser.error(f"-n takes a number of ranks, not {options.n}")
    try:
        program = (
            ("module", options.program, options.arguments)
            if options.is_module
            else script(options.program, options.arguments)
        )
        with (
            cluster_of(options.hosts) as cluster,
            Job(options.n, cluster, {"prepare": ["river.mpi.alias"] * options.mpi4py}) as job,
        ):
            job.run(program)
    except RankFailed as failed:
        sys.stdout.flush()
        print(failed.report, file=sys.stderr)
        return failed.code
    except (RiverError, OSError, ValueError) as error:
        print(f"river.mpi: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
