"""rMPI with the names of 2006: all of MPI-1.3's procedures, on lists and boxes; a class is a program.

mpi_tour.py calls all of them as 4 ranks.
"""

import textwrap
from pathlib import Path

import pytest
import tools

from river.mpi import classic, names

# How many arguments each has in C, by the chapters of the standard.
STANDARD = """
Send 6 Recv 7 Bsend 6 Ssend 6 Rsend 6 Sendrecv 12 Sendrecv_replace 9 Get_count 3 Buffer_attach 2 Buffer_detach 2
Isend 7 Ibsend 7 Issend 7 Irsend 7 Irecv 7
Wait 2 Test 3 Waitany 4 Testany 5 Waitall 3 Testall 4 Waitsome 5 Testsome 5 Request_free 1 Cancel 1 Test_cancelled 2
Iprobe 5 Probe 4
Send_init 7 Bsend_init 7 Ssend_init 7 Rsend_init 7 Recv_init 7 Start 1 Startall 2
Type_contiguous 3 Type_vector 5 Type_hvector 5 Type_indexed 5 Type_hindexed 5 Type_struct 5 Address 2 Type_extent 2
Type_size 2 Type_lb 2 Type_ub 2 Type_commit 1 Type_free 1 Get_elements 3
Pack 7 Unpack 7 Pack_size 4
Barrier 1 Bcast 5 Gather 8 Gatherv 9 Scatter 8 Scatterv 9 Allgather 7 Allgatherv 8 Alltoall 7 Alltoallv 9 Reduce 7
Allreduce 6 Reduce_scatter 6 Scan 6
Op_create 3 Op_free 1
Group_size 2 Group_rank 2 Group_translate_ranks 5 Group_compare 3 Comm_group 2 Group_union 3 Group_intersection 3
Group_difference 3 Group_incl 4 Group_excl 4 Group_range_incl 4 Group_range_excl 4 Group_free 1
Comm_size 2 Comm_rank 2 Comm_compare 3 Comm_dup 2 Comm_create 3 Comm_split 4 Comm_free 1
Comm_test_inter 2 Comm_remote_size 2 Comm_remote_group 2 Intercomm_create 6 Intercomm_merge 3
Keyval_create 4 Keyval_free 1 Attr_put 3 Attr_get 4 Attr_delete 2
Cart_create 6 Dims_create 3 Graph_create 6 Topo_test 2 Graphdims_get 3 Graph_get 5 Cartdim_get 2 Cart_get 5 Cart_rank 3
Cart_coords 4 Graph_neighbors_count 3 Graph_neighbors 4 Cart_shift 5 Cart_sub 3 Cart_map 5 Graph_map 5
Get_version 2 Get_processor_name 2 Errhandler_create 2 Errhandler_set 2 Errhandler_get 2 Errhandler_free 1
Error_string 3 Error_class 2 Wtime 0 Wtick 0 Init 2 Initialized 1 Finalize 0 Abort 2
Pcontrol 2
"""
# What C has for them.
CONSTANTS = """
SUCCESS ERR_BUFFER ERR_COUNT ERR_TYPE ERR_TAG ERR_COMM ERR_RANK ERR_REQUEST ERR_ROOT ERR_GROUP ERR_OP ERR_TOPOLOGY
ERR_DIMS ERR_ARG ERR_UNKNOWN ERR_TRUNCATE ERR_OTHER ERR_INTERN ERR_IN_STATUS ERR_PENDING ERR_LASTCODE BOTTOM PROC_NULL
ANY_SOURCE ANY_TAG UNDEFINED BSEND_OVERHEAD KEYVAL_INVALID ERRORS_ARE_FATAL ERRORS_RETURN MAX_PROCESSOR_NAME
MAX_ERROR_STRING CHAR SHORT INT LONG UNSIGNED_CHAR UNSIGNED_SHORT UNSIGNED UNSIGNED_LONG FLOAT DOUBLE LONG_DOUBLE BYTE
PACKED FLOAT_INT DOUBLE_INT LONG_INT 2INT SHORT_INT LONG_DOUBLE_INT LONG_LONG_INT UB LB COMM_WORLD COMM_SELF IDENT
CONGRUENT SIMILAR UNEQUAL TAG_UB IO HOST WTIME_IS_GLOBAL MAX MIN SUM PROD MAXLOC MINLOC BAND BOR BXOR LAND LOR LXOR
GROUP_NULL COMM_NULL DATATYPE_NULL REQUEST_NULL OP_NULL ERRHANDLER_NULL GROUP_EMPTY GRAPH CART NULL_COPY_FN
NULL_DELETE_FN DUP_FN
"""


def ran(directory, text, n=2):
    path = tools.script(directory, "from mpi import *\n" + textwrap.dedent(text))
    return sorted(tools.python("-m", "river.mpi", "-n", n, path).splitlines())


def test_all_129_procedures_of_mpi_1_3_are_there_with_the_arguments_that_c_has():
    words = STANDARD.split()
    standard = dict(zip(words[::2], map(int, words[1::2]), strict=True))

    assert len(standard) == 129
    assert {row.name: len(row.arguments) for row in names.rows()} == standard
    for name in standard:
        function = getattr(classic, f"MPI_{name}")
        assert getattr(classic.mpi, f"MPI_{name}") is function and f"MPI_{name}" in classic.__all__
        assert function.__name__ == f"MPI_{name}" and function.__doc__.startswith(f"MPI_{name}(")


def test_all_constants_of_mpi_1_3_are_there():
    assert [name for name in CONSTANTS.split() if f"MPI_{name}" not in classic.__all__] == []


def test_each_procedure_does_what_the_standard_says_on_lists_and_boxes():
    program = Path(__file__).with_name("mpi_tour.py")

    assert tools.python("-m", "river.mpi", "-n", 4, program) == "not called: MPI_Abort\n"


def test_the_names_are_those_of_river_mpi_as_well_and_functions_do_without_a_class(tmp_path):
    said = ran(
        tmp_path,
        """
        import river.mpi
        rank = [None]
        MPI_Comm_rank(MPI_COMM_WORLD, rank)
        namespace = {}
        exec("from river.mpi import *", namespace)
        assert namespace["MPI_Send"] is MPI_Send and namespace["mpi_Rank"] is mpi_Rank
        print(rank, flush=True)
    """,
    )

    assert said == ["[0]", "[1]"]


@pytest.mark.parametrize(
    ("ending", "run"),
    [("Base().main()", "Base"), ("", "Last")],
    ids=["one that the program makes itself, once", "of a class and its base, the class"],
)
def test_the_class_that_is_run_is(tmp_path, ending, run):
    said = ran(
        tmp_path,
        f"""
        class Base(mpi):
            def main(self):
                print("main of", type(self).__name__, flush=True)
        class Last(Base):
            pass
        {ending}
    """,
    )

    assert said == [f"main of {run}"] * 2


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("MPI_Comm_rank(MPI_COMM_WORLD, 3)", "MPI_Comm_rank(comm, rank) puts a result in 'rank', which is to be a box"),
        ("MPI_Comm_rank(MPI_COMM_WORLD)", "MPI_Comm_rank(comm, rank) takes 2 arguments, not 1"),
        ("MPI_Send([1.0], 1, MPI_INT, 0, 0, MPI_COMM_SELF)", "'float' object cannot be interpreted as an integer"),
        ("MPI_Send([1.0], 1, MPI_LONG_DOUBLE, 0, 0, MPI_COMM_SELF)", "a list cannot hold elements of MPI_LONG_DOUBLE"),
    ],
)
def test_what_cannot_be_meant_is_told_with_the_names_of_c(call, told):
    with pytest.raises(TypeError) as failed:
        eval(call, vars(classic))

    assert told in str(failed.value)
