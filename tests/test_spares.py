"""A process that is there before it is wanted (`_core/child.py`): who gets it, and what becomes of it."""

import os
import signal

import psutil
import pytest
from tasks import wait_until

from river import multiprocessing as mp
from river.mpi import MPI, run

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="spares are Linux's")


@pytest.fixture
def context():
    """A context of its own: its supervisor has started nothing yet."""
    context = mp.context.ForkServerContext(hosts="local")
    yield context
    context._cluster.terminate()


def ran(context, argument=b""):
    """A process that has run: its pid, and its supervisor."""
    one, other = context.Pipe()
    process = context.Process(target=lambda: one.send((len(argument), os.getppid(), psutil.Process().name())))
    process.start()
    size, supervisor, name = other.recv()
    process.join()
    assert (process.exitcode, size) == (0, len(argument))
    assert name == psutil.Process(supervisor).name()  # whatever it was called while it was a spare
    return process.pid, psutil.Process(supervisor)


def spare_of(supervisor):
    """Once it waits, it has a name of its own."""
    wait_until(lambda: [child.name() for child in supervisor.children()] == ["river-spare"], what="one spare")
    return supervisor.children()[0].pid


def test_a_program_that_starts_one_process_has_no_spare(context):
    _, supervisor = ran(context)

    assert supervisor.children() == []


def test_from_the_third_process_on_each_is_the_spare_of_before(context):
    for _ in range(2):
        _, supervisor = ran(context)
    for _ in range(3):
        spare = spare_of(supervisor)

        assert ran(context)[0] == spare


def test_a_spare_that_is_killed_costs_nobody_anything(context):
    for _ in range(2):
        _, supervisor = ran(context)
    os.kill(spare_of(supervisor), signal.SIGKILL)
    ran(context)

    assert ran(context)[1] == supervisor
    assert len([child for child in supervisor.children() if child.status() == psutil.STATUS_ZOMBIE]) == 0


def test_what_is_too_large_for_a_spare_goes_by_fork_and_the_spare_stays(context):
    for _ in range(2):
        _, supervisor = ran(context)
    spare = spare_of(supervisor)

    assert ran(context, os.urandom(200_000))[0] != spare
    assert ran(context)[0] == spare


def test_a_spare_ends_with_its_supervisor(context):
    for _ in range(2):
        _, supervisor = ran(context)
    spare = spare_of(supervisor)
    supervisor.kill()
    wait_until(lambda: not psutil.pid_exists(spare), what="the end of the spare")

    assert ran(context)[1] != supervisor


def test_tasks_of_pools_get_no_spare():
    with mp.Pool(1) as pool:
        pool.apply(abs, (1,))
        supervisor = psutil.Process(pool.apply(os.getppid))

        assert len(supervisor.children()) == 1


def test_ranks_which_are_all_started_at_once_get_none():
    def neighbours():
        MPI.COMM_WORLD.Barrier()
        return [child.name() for child in psutil.Process().parent().children()]

    for names in run(neighbours, n=3):
        assert len(names) == 3 and "river-spare" not in names
