"""rMPI: programs for MPI with nothing to install.

    python -m river.mpi -n 4 program.py             from river.mpi import MPI
    river.mpi.run(function, n=4)                    results by rank
    from river.mpi import *                         the names of 2006, which are C's: see `classic`
    %load_ext river.mpi                             in IPython: %%mpi -n 4

May not: import anything before it is asked for.
"""

from __future__ import annotations

from typing import Any

_OF_JOBS = dict.fromkeys(("Deadlock", "RankFailed", "run"), "job")
_PLACES = {**_OF_JOBS, "load_ipython_extension": "magic", "__all__": "classic"}


def __getattr__(name: str) -> Any:
    import importlib

    place = "classic" if name == "mpi" or name.startswith(("mpi_", "MPI_")) else _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{place}", __name__), name)
