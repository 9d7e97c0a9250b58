"""MPI as mpi4py has it, by the same names: `from river.mpi import MPI`.

May not: do anything itself.
"""

from __future__ import annotations

# ruff: noqa: E402, F401 - the names are what it is for
from .native import stand_in as _stand_in

_stand_in(__name__)  # what an mpiexec has started means mpi4py: what follows is nobody's there

from .absent import FILE_NULL, SESSION_NULL, WIN_NULL, File, Session, Win
from .absent import functions as _functions
from .buffered import Attach_buffer, Detach_buffer, Flush_buffer, Iflush_buffer
from .comm import COMM_NULL, Comm
from .constants import *  # noqa: F403
from .datatypes import DATATYPE_NULL, Datatype, _typealign
from .datatypes import predefined as _datatypes
from .environment import (
    Finalize,
    Get_library_version,
    Get_processor_name,
    Get_version,
    Init,
    Init_thread,
    Is_finalized,
    Is_initialized,
    Is_thread_main,
    Pcontrol,
    Query_thread,
    Wtick,
    Wtime,
    get_vendor,
)
from .errhandler import ERRHANDLER_NULL, ERRORS_ABORT, ERRORS_ARE_FATAL, ERRORS_RETURN, Errhandler
from .errors import (
    Add_error_class,
    Add_error_code,
    Add_error_string,
    Get_error_class,
    Get_error_string,
    Remove_error_class,
    Remove_error_code,
    Remove_error_string,
)
from .errors import Exception as Exception  # noqa: A004, PLC0414 - MPI's name for it
from .grequest import Grequest
from .grids import Compute_dims
from .group import GROUP_EMPTY, GROUP_NULL, Group
from .info import INFO_ENV, INFO_NULL, Info
from .intercomm import Intercomm
from .intracomm import COMM_SELF, COMM_WORLD, Intracomm
from .memories import Get_address
from .message import MESSAGE_NO_PROC, MESSAGE_NULL, Message
from .op import OP_NULL, Op
from .op import predefined as _operations
from .persistent import Prequest
from .pickling import Pickle, pickle
from .raw import Aint_add, Aint_diff, Alloc_mem, Free_mem, buffer
from .raw import buffer as memory
from .request import REQUEST_NULL, Request
from .status import Status
from .topology import Cartcomm, Distgraphcomm, Graphcomm, Topocomm

globals().update({**_datatypes, **_operations, **_functions})
