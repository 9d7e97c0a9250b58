"""Every number and mark that MPI gives a name to.

The names are those of mpi4py's module MPI, so that a program finds whatever it looks for; the values are River's own.
Names of what River cannot do yet (files, windows) are here too: the call says so, not the import.

May not: hold handles; they stand beside their classes.
"""

from __future__ import annotations

from typing import Any

# What this claims to be: MPI 3.1, as far as River goes.
VERSION, SUBVERSION = 3, 1

ANY_SOURCE = ANY_TAG = -1
PROC_NULL = -2
ROOT = -4
UNDEFINED = -32766
KEYVAL_INVALID = 0
BSEND_OVERHEAD = 128

# What a comparison says.
IDENT, CONGRUENT, SIMILAR, UNEQUAL = range(4)

THREAD_SINGLE, THREAD_FUNNELED, THREAD_SERIALIZED, THREAD_MULTIPLE = range(4)

# Kinds of topology.
GRAPH, CART, DIST_GRAPH = range(1, 4)
# Marks for the weights of a distributed graph: numbers, as they stand in place of lists.
UNWEIGHTED, WEIGHTS_EMPTY = 101, 102

COMM_TYPE_SHARED, COMM_TYPE_HW_GUIDED, COMM_TYPE_HW_UNGUIDED, COMM_TYPE_RESOURCE_GUIDED = range(1, 5)

# Attributes that a communicator, or a window, has from the start.
TAG_UB, IO, WTIME_IS_GLOBAL, UNIVERSE_SIZE, LASTUSEDCODE, APPNUM = range(1001, 1007)
WIN_BASE, WIN_SIZE, WIN_DISP_UNIT, WIN_CREATE_FLAVOR, WIN_MODEL = range(1011, 1016)

(
    COMBINER_NAMED,
    COMBINER_DUP,
    COMBINER_CONTIGUOUS,
    COMBINER_VECTOR,
    COMBINER_HVECTOR,
    COMBINER_INDEXED,
    COMBINER_HINDEXED,
    COMBINER_INDEXED_BLOCK,
    COMBINER_HINDEXED_BLOCK,
    COMBINER_STRUCT,
    COMBINER_SUBARRAY,
    COMBINER_DARRAY,
    COMBINER_RESIZED,
    COMBINER_F90_REAL,
    COMBINER_F90_COMPLEX,
    COMBINER_F90_INTEGER,
    COMBINER_VALUE_INDEX,
) = range(1, 18)

ORDER_C, ORDER_F = 1, 2
ORDER_FORTRAN = ORDER_F
DISTRIBUTE_NONE, DISTRIBUTE_BLOCK, DISTRIBUTE_CYCLIC = range(1, 4)
DISTRIBUTE_DFLT_DARG = -1

TYPECLASS_INTEGER, TYPECLASS_REAL, TYPECLASS_COMPLEX, TYPECLASS_LOGICAL = range(1, 5)

# Files and windows.
MODE_RDONLY, MODE_RDWR, MODE_WRONLY, MODE_CREATE, MODE_EXCL = 1, 2, 4, 8, 16
MODE_DELETE_ON_CLOSE, MODE_UNIQUE_OPEN, MODE_SEQUENTIAL, MODE_APPEND = 32, 64, 128, 256
MODE_NOCHECK, MODE_NOSTORE, MODE_NOPUT, MODE_NOPRECEDE, MODE_NOSUCCEED = 1024, 2048, 4096, 8192, 16384
SEEK_SET, SEEK_CUR, SEEK_END = range(3)
DISPLACEMENT_CURRENT = DISP_CUR = -54278278
LOCK_EXCLUSIVE, LOCK_SHARED = 1, 2
WIN_FLAVOR_CREATE, WIN_FLAVOR_ALLOCATE, WIN_FLAVOR_DYNAMIC, WIN_FLAVOR_SHARED = range(1, 5)
WIN_FLAVOR = WIN_CREATE_FLAVOR
WIN_SEPARATE, WIN_UNIFIED = 1, 2

MAX_PROCESSOR_NAME = MAX_OBJECT_NAME = MAX_DATAREP_STRING = 128
MAX_PORT_NAME = MAX_INFO_KEY = 255
MAX_ERROR_STRING = MAX_INFO_VAL = 1024
MAX_LIBRARY_VERSION_STRING = 8192
MAX_PSET_NAME_LEN = MAX_STRINGTAG_LEN = 1024

# A status as Fortran has it: so many numbers, and where among them these are.
F_STATUS_SIZE = 6
F_SOURCE, F_TAG, F_ERROR = range(3)

# Classes of error; `errors` has their texts.
(
    SUCCESS,
    ERR_BUFFER,
    ERR_COUNT,
    ERR_TYPE,
    ERR_TAG,
    ERR_COMM,
    ERR_RANK,
    ERR_REQUEST,
    ERR_ROOT,
    ERR_GROUP,
    ERR_OP,
    ERR_TOPOLOGY,
    ERR_DIMS,
    ERR_ARG,
    ERR_UNKNOWN,
    ERR_TRUNCATE,
    ERR_OTHER,
    ERR_INTERN,
    ERR_PENDING,
    ERR_IN_STATUS,
    ERR_ACCESS,
    ERR_AMODE,
    ERR_ASSERT,
    ERR_BAD_FILE,
    ERR_BASE,
    ERR_CONVERSION,
    ERR_DISP,
    ERR_DUP_DATAREP,
    ERR_FILE_EXISTS,
    ERR_FILE_IN_USE,
    ERR_FILE,
    ERR_INFO_KEY,
    ERR_INFO_NOKEY,
    ERR_INFO_VALUE,
    ERR_INFO,
    ERR_IO,
    ERR_KEYVAL,
    ERR_LOCKTYPE,
    ERR_NAME,
    ERR_NO_MEM,
    ERR_NOT_SAME,
    ERR_NO_SPACE,
    ERR_NO_SUCH_FILE,
    ERR_PORT,
    ERR_QUOTA,
    ERR_READ_ONLY,
    ERR_RMA_ATTACH,
    ERR_RMA_CONFLICT,
    ERR_RMA_RANGE,
    ERR_RMA_SHARED,
    ERR_RMA_SYNC,
    ERR_RMA_FLAVOR,
    ERR_SERVICE,
    ERR_SIZE,
    ERR_SPAWN,
    ERR_UNSUPPORTED_DATAREP,
    ERR_UNSUPPORTED_OPERATION,
    ERR_WIN,
    ERR_ERRHANDLER,
    ERR_SESSION,
    ERR_PROC_ABORTED,
    ERR_VALUE_TOO_LARGE,
    ERR_ABI,
    ERR_PROC_FAILED,
    ERR_PROC_FAILED_PENDING,
    ERR_REVOKED,
) = range(66)
# Classes and codes that a program adds are numbered from here.
ERR_LASTCODE = 1 << 14


class _Mark:
    """Stands in the place of a buffer, and is only ever compared."""

    __slots__ = ()
    _name = ""
    _only: dict[type, Any] = {}

    def __new__(cls) -> Any:
        return cls._only.setdefault(cls, object.__new__(cls))

    def __repr__(self) -> str:
        return f"<MPI.{self._name}>"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> Any:
        return type(self), ()


class BottomType(_Mark):
    """Type of BOTTOM."""

    __slots__ = ()
    _name = "BOTTOM"


class InPlaceType(_Mark):
    """Type of IN_PLACE."""

    __slots__ = ()
    _name = "IN_PLACE"


class BufferAutomaticType(_Mark):
    """Type of BUFFER_AUTOMATIC."""

    __slots__ = ()
    _name = "BUFFER_AUTOMATIC"


BOTTOM, IN_PLACE, BUFFER_AUTOMATIC = BottomType(), InPlaceType(), BufferAutomaticType()
