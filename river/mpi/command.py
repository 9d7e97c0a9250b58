"""What the command does: run a program as ranks, here or on other machines, and tell how it ended.

May not: know what ranks do.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

from .. import exits
from .._core import cpus
from .._core.process import flush_output, lasting
from ..mishaps import RiverError
from . import native
from .job import Job, RankFailed
from .places import cluster_of
from .rank import script

# What prepares ranks: always, and by option.
_ALWAYS = "river.names"
_BY_OPTION = {"mpi4py": "river.mpi.alias", "tag_output": "river.mpi.tagged"}


def run(options: argparse.Namespace, name: str) -> int:
    """Run a program; returns the exit code, or ends this process with it.

    options: of the command line; name: of the command."""
    prepare = [_ALWAYS, *(module for option, module in _BY_OPTION.items() if getattr(options, option))]
    try:
        if options.hosts and options.engine == "native":
            raise ValueError("--hosts is for River's ranks: an MPI that is installed has its hosts from its mpiexec")
        program = (
            ("module", options.program, options.arguments)
            if options.is_module
            else script(options.program, options.arguments)
        )
        arguments = ["-m"] * options.is_module + [options.program, *options.arguments]
        code = native.main(options.engine, options.n, program, arguments, [_ALWAYS])
        if code is not None:
            return code
        code = _run_ranks(options, program, prepare)
    except (RiverError, OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    exits.end_program()
    flush_output()
    os._exit(code)  # no program has run here: to take all apart, piece by piece, would be for nobody


def _run_ranks(options: argparse.Namespace, program: Any, prepare: list[str]) -> int:
    ranks = cpus.cpu_count() if options.n is None else options.n
    is_traced = options.trace is not None
    if options.hosts is None:
        with lasting():  # ranks are forks of this process: none has to do it itself
            for module in ("river.mpi.MPI", *prepare, *["river.mpi.trace"] * is_traced):
                importlib.import_module(module)
    told = {"prepare": prepare, "trace": is_traced}
    try:
        with cluster_of(options.hosts) as cluster, Job(ranks, cluster, told, options.on_failure) as job:
            try:
                job.run(program)
            except KeyboardInterrupt:
                sys.stdout.flush()
                print(job.report("interrupted"), file=sys.stderr)
                return 130
            finally:
                job.write_trace(options.trace, options.program)
    except RankFailed as failed:
        sys.stdout.flush()
        print(failed.report, file=sys.stderr)
        return failed.code
    return 0
