"""`python -m river.mpi -n 4 program.py`: run a program as so many ranks.  `river -n 4 program.py` is the same.

May not: know what ranks do.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .._core import cpus
from ..errors import RiverError
from . import native
from .job import Job, RankFailed
from .places import cluster_of
from .rank import script

# What prepares ranks: always, and by option.
_ALWAYS = "river.names"
_BY_OPTION = {"mpi4py": "river.mpi.alias", "tag_output": "river.mpi.tagged"}


def main(argv: Sequence[str] | None = None, name: str = "river.mpi") -> int:
    """Run a program; returns the exit code.  name: of the command that was given."""
    parser = _parser(name)
    options = parser.parse_args(argv)
    if options.n is not None and options.n < 1:
        parser.error(f"-n takes a number of ranks, not {options.n}")
    prepare = [_ALWAYS, *(module for option, module in _BY_OPTION.items() if getattr(options, option))]
    try:
        program = (
            ("module", options.program, options.arguments)
            if options.is_module
            else script(options.program, options.arguments)
        )
        if options.hosts and options.engine == "native":
            raise ValueError("--hosts is for River's ranks: an MPI that is installed has its hosts from its mpiexec")
        arguments = ["-m"] * options.is_module + [options.program, *options.arguments]
        code = native.main(options.engine, options.n, program, arguments, [_ALWAYS])
        if code is not None:
            return code
        ranks = cpus.cpu_count() if options.n is None else options.n
        if options.hosts is None and not native.is_meant():
            importlib.import_module(".MPI", __package__)  # ranks are forks of this process: none has to do it itself
        told = {"prepare": prepare, "trace": options.trace is not None}
        with cluster_of(options.hosts) as cluster, Job(ranks, cluster, told, options.on_failure) as job:
            try:
                job.run(program)
            except KeyboardInterrupt:
                sys.stdout.flush()
                print(job.report("interrupted"), file=sys.stderr)
                return 130
            finally:
                if options.trace is not None:
                    _write_trace(job, options.trace, options.program)
    except RankFailed as failed:
        sys.stdout.flush()
        print(failed.report, file=sys.stderr)
        return failed.code
    except (RiverError, OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


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


def _write_trace(job: Job, path: str, program: str) -> None:
    from .timeline import page  # most jobs have none

    with open(path, "w", encoding="utf-8") as file:
        file.write(page(job.traces, f"{program}, {job.ranks} ranks"))


if __name__ == "__main__":
    sys.exit(main())
