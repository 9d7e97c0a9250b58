"""rMPI: programs for MPI with nothing to install.

    python -m river.mpi -n 4 program.py             from river.mpi import MPI
    river.mpi.run(function, n=4)                    results by rank

May not: import anything before it is asked for.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RankFailed", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import job

    return getattr(job, name)
