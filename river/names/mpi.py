"""`from mpi import *`, in programs that the `river` command runs as ranks."""

from river.mpi.classic import *  # noqa: F403
from river.mpi.classic import __all__ as __all__
