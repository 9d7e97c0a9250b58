"""A job that goes on when ranks fail: what the others see of it, and what they can do then."""

import subprocess
import sys
import textwrap

import pytest
import tools

from river.mpi.agreements import Agreed, Agreements
from river.mpi.job import Job

HEAD = """
import os, signal, sys
from river.mpi import MPI
from river.mpi.job import RankFailed, run

def error(function, *args, **keywords):
    # The class of the error that it raises.
    try:
        function(*args, **keywords)
    except MPI.Exception as error:
        return MPI.Get_error_string(error.Get_error_class()).partition(":")[0]
    return "none"
"""


def ran(directory, text):
    done = subprocess.run(
        [sys.executable, tools.script(directory, HEAD + textwrap.dedent(text))],
        capture_output=True,
        text=True,
        timeout=100,
        env=tools.surroundings(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_what_waits_for_a_rank_that_has_failed_is_an_error_and_the_others_go_on_without_it(tmp_path):
    said, complaint = ran(
        tmp_path,
        """
        def go_on():
            comm = MPI.COMM_WORLD
            if comm.rank == 2:
                comm.send("before", dest=0, tag=1)
                comm.recv(source=0, tag=2)
                os.kill(os.getpid(), signal.SIGKILL)
            found = []
            if comm.rank != 2:
                near = comm.Create_group(comm.group.Excl([2]))
                near.allreduce(1), near.Ibarrier().Wait()  # others are nothing to it
            if comm.rank == 0:
                comm.send("go", dest=2, tag=2)
                found.append(error(comm.recv, source=2, tag=3))
                found.append(comm.recv(source=2, tag=1))  # what it has sent before counts
            found.append(error(comm.Barrier))
            found.append(error(comm.recv))
            found.append(comm.Get_failed().Get_size())
            found.append(comm.Ack_failed())
            rest = comm.Shrink()
            if comm.rank == 0:
                comm.send("from 0", dest=1)
            elif comm.rank == 1:
                found.append(comm.recv())  # from any rank: the failure is known by now
            found += [rest.size, rest.allreduce(comm.rank + 1), comm.Agree(0b110 | comm.rank)]
            return found
        results = run(go_on, n=4, on_failure="return")
        for result in results:
            print(result if isinstance(result, list) else f"{type(result).__name__}: {result}")
    """,
    )

    failed, rest = "MPI_ERR_PROC_FAILED", [3, 1 + 2 + 4, 0b110]
    assert said == [
        str([failed, "before", failed, failed, 1, 1, *rest]),
        str([failed, failed, 1, 1, "from 0", *rest]),
        "RankFailed: rank 2 was killed by signal 9",
        str([failed, failed, 1, 1, *rest]),
    ]
    assert complaint == "rank 2 was killed by signal 9\n"


def test_a_collective_is_an_error_in_every_way_that_it_may_be_carried_out(tmp_path):
    said, _ = ran(
        tmp_path,
        """
        def fail_late(how_often):
            comm, twin = MPI.COMM_WORLD, MPI.COMM_WORLD.Dup()
            for _ in range(how_often):
                comm.allreduce(1)  # later ones go through shared memory
            if comm.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            request = twin.Ibarrier()
            return error(comm.allreduce, 1), error(request.Wait), error(comm.Dup().Barrier)
        for how_often in (0, 10):
            print(*run(fail_late, how_often, n=3, on_failure="return"), sep="; ")
    """,
    )

    each = str(("MPI_ERR_PROC_FAILED",) * 3)
    assert said == [f"{each}; rank 1 was killed by signal 9; {each}"] * 2


def test_revoke_ends_what_the_others_wait_for_and_all_can_shrink_then(tmp_path):
    said, _ = ran(
        tmp_path,
        """
        def leave():
            comm = MPI.COMM_WORLD.Dup()
            if comm.rank == 2:
                raise ValueError("enough")
            if comm.rank == 1:
                seen = error(comm.recv, source=2)
                comm.Revoke()
            else:
                seen = error(comm.recv, source=1, tag=5)
            rest = comm.Shrink()
            after = [error(comm.send, 1, dest=0), error(comm.Barrier)]
            return [seen, comm.Is_revoked(), *after, rest.allgather(comm.rank)]
        for result in run(leave, n=4, on_failure="return"):
            print(result if isinstance(result, list) else str(result).splitlines()[0])
    """,
    )

    revoked = "MPI_ERR_REVOKED"
    others = str([revoked, True, revoked, revoked, [0, 1, 3]])
    assert said == [
        others,
        str(["MPI_ERR_PROC_FAILED", True, revoked, revoked, [0, 1, 3]]),
        "rank 2 failed: ValueError: enough",
        others,
    ]


def test_an_error_handler_that_returns_lets_the_job_go_on_too_and_else_it_ends_with_the_cause(tmp_path):
    said, _ = ran(
        tmp_path,
        """
        def fail(is_handled):
            comm = MPI.COMM_WORLD
            if is_handled and comm.rank == 0:
                comm.Set_errhandler(MPI.ERRORS_RETURN)
                comm.send("ready", dest=1)
            if comm.rank == 1:
                is_handled and comm.recv(source=0)
                os._exit(3)
            return error(comm.recv, source=1)
        print(run(fail, True, n=2)[0])
        try:
            run(fail, False, n=2)
        except RankFailed as failed:
            print(failed.code, str(failed).splitlines()[0])
    """,
    )

    assert said == ["MPI_ERR_PROC_FAILED", "3 rank 1 has ended with exit code 3"]


def test_ranks_agree_also_where_nobody_fails_and_do_something_else_meanwhile(tmp_path):
    said, _ = ran(
        tmp_path,
        """
        from array import array
        def agree():
            comm, flag = MPI.COMM_WORLD, array("i", [0b1101])
            if comm.rank == 1:
                flag[0] = 0b1011
                comm.Barrier()  # the others have said theirs, and wait for this one only
            request = comm.Iagree(flag)
            if comm.rank != 1:
                is_done = request.Test()
                comm.Barrier()
                assert not is_done and flag[0] == 0b1101
            request.Wait()
            twin, request = comm.Split(comm.rank == 0).Ishrink()
            request.Wait()
            return flag[0], twin.allgather(comm.rank), comm.Get_failed().Get_size(), comm.Ack_failed(2)
        for result in run(agree, n=3):
            print(result)
    """,
    )

    assert said == ["(9, [0], 0, 0)", "(9, [1, 2], 0, 0)", "(9, [1, 2], 0, 0)"]


def test_the_command_goes_on_as_well(tmp_path):
    path = tools.script(
        tmp_path,
        """
from river.mpi import MPI
if MPI.COMM_WORLD.rank == 1:
    raise SystemError("broken")
try:
    MPI.COMM_WORLD.recv(source=1)
except MPI.Exception as error:
    print(error.Get_error_class() == MPI.ERR_PROC_FAILED, flush=True)
""",
    )
    done = subprocess.run(
        [sys.executable, "-m", "river.mpi", "-n", "2", "--on-failure", "return", str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        env=tools.surroundings(),
    )

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.startswith("rank 1 failed: SystemError: broken\n")


def test_what_is_agreed_on_is_what_all_have_said_who_have_not_failed():
    agreements = Agreements()

    assert agreements.says(0, "key", (0, 1, 2), 0b111) == []
    assert agreements.says(1, "key", (0, 1, 2), 0b101) == []
    assert agreements.lost(2) == [Agreed("key", (0, 1), 0b101, (2,))]
    assert agreements.says(0, "key", (0, 2), 1) == [Agreed("key", (0,), 1, (2,))]


def test_on_failure_is_one_of_two_words():
    with pytest.raises(ValueError, match="'end' or 'return', not 'abort'"):
        Job(1, None, on_failure="abort")
