"""Messages from one rank to another, in all ways that there are: the promises of `messages`, kept by 1 and 3 ranks."""

import messages
import promises
import pytest
import tools


@pytest.fixture(scope="module", params=[1, 3], ids="{} ranks".format)
def kept(request):
    return promises.kept(messages, request.param)


@pytest.mark.parametrize("promise", messages.promise)
def test_all_ranks_keep_the_promise_that(promise, kept):
    names, said = kept

    assert promise in names, said


@pytest.mark.parametrize("handler", ["ERRORS_ARE_FATAL", "ERRORS_ABORT"])
def test_an_error_that_is_fatal_ends_the_job_whatever_catches_it(handler, tmp_path):
    program = tools.script(
        tmp_path,
        f"""
from river.mpi import MPI
comm = MPI.COMM_WORLD
if comm.rank == 1:
    comm.Set_errhandler(MPI.{handler})
    try:
        comm.Send(b"", dest=5)
    except BaseException:
        print("caught")
comm.Barrier()
print("gone on")
""",
    )

    code, out, said = promises.ended(program, 2)

    assert code == 1 and out == ""
    assert said.startswith("rank 1 failed: ") and "5 is no rank" in said and handler in said
    assert 'comm.Send(b"", dest=5)' in said
