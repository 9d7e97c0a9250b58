"""What MPI has and River has not: files, windows, sessions, ports, by their names.

Whoever calls something of it is told so, by NotImplementedError; until then a program that only names it runs.
May not: do anything.
"""

from __future__ import annotations

from typing import Any

from .handles import Handle

_FILE = """
Open Create_errhandler Close Set_size Preallocate Get_size Get_amode Get_group Set_info Get_info Set_view Get_view
Read_at Read_at_all Write_at Write_at_all Iread_at Iread_at_all Iwrite_at Iwrite_at_all Read Read_all Write Write_all
Iread Iread_all Iwrite Iwrite_all Seek Get_position Get_byte_offset Read_shared Write_shared Iread_shared
Iwrite_shared Read_ordered Write_ordered Seek_shared Get_position_shared Read_at_all_begin Read_at_all_end
Write_at_all_begin Write_at_all_end Read_all_begin Read_all_end Write_all_begin Write_all_end Read_ordered_begin
Read_ordered_end Write_ordered_begin Write_ordered_end Get_type_extent Set_atomicity Get_atomicity Sync
Get_errhandler Set_errhandler Call_errhandler Delete
"""
_WIN = """
Create Allocate Allocate_shared Create_dynamic Create_keyval Free_keyval Create_errhandler Shared_query Attach Detach
Set_info Get_info Get_group Get_attr Set_attr Delete_attr Put Get Accumulate Get_accumulate Fetch_and_op
Compare_and_swap Rput Rget Raccumulate Rget_accumulate Fence Start Complete Post Wait Test Lock Unlock Lock_all
Unlock_all Flush Flush_all Flush_local Flush_local_all Sync Get_errhandler Set_errhandler Call_errhandler Get_name
Set_name tomemory
"""
_SESSION = """
Init Create_errhandler Finalize Get_num_psets Get_nth_pset Get_info Get_pset_info Create_group Attach_buffer
Detach_buffer Flush_buffer Iflush_buffer Get_errhandler Set_errhandler Call_errhandler
"""
_FUNCTIONS = """
Open_port Close_port Publish_name Unpublish_name Lookup_name Register_datarep Get_hw_resource_info Get_abi_version
Get_abi_info Get_abi_fortran_info
"""


def refuse(what: str, name: str) -> Any:
    """A function of this name that says that there is no such thing."""

    def refused(*args: Any, **keywords: Any) -> Any:
        raise NotImplementedError(f"River has no {what}; {name} needs an MPI library, with mpi4py")

    refused.__name__, refused.__qualname__ = name.rpartition(".")[2], name
    refused.__doc__ = f"Raise NotImplementedError: River has no {what}."
    return refused


def _class(name: str, what: str, methods: str) -> Any:
    refusing = {method: staticmethod(refuse(what, f"{name}.{method}")) for method in methods.split()}
    document = f"Not there: River has no {what}."
    return type(name, (Handle,), {"__slots__": (), "__doc__": document, "__module__": __name__, **refusing})


File = _class("File", "files of MPI", _FILE)
Win = _class("Win", "windows on memory of other ranks", _WIN)
Session = _class("Session", "sessions of MPI", _SESSION)
FILE_NULL, WIN_NULL, SESSION_NULL = (kind._predefine(f"{kind.__name__.upper()}_NULL") for kind in (File, Win, Session))
# By name; `MPI` takes them all from here.
functions: dict[str, Any] = {name: refuse("such service", name) for name in _FUNCTIONS.split()}
