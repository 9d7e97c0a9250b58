"""Communicators of all kinds, groups and topologies: the promises of two programs, kept by 1, 2 and 5 ranks."""

import communicators
import promises
import pytest
import tools
import topologies


@pytest.fixture(scope="module", params=[1, 2, 5], ids="{} ranks".format)
def ranks(request):
    return request.param


@pytest.fixture(scope="module")
def of_communicators(ranks):
    return promises.kept(communicators, ranks)


@pytest.fixture(scope="module")
def of_topologies(ranks):
    return promises.kept(topologies, ranks)


@pytest.mark.parametrize("promise", communicators.promise)
def test_all_ranks_keep_the_promise_that(promise, of_communicators):
    names, said = of_communicators

    assert promise in names, said


@pytest.mark.parametrize("promise", topologies.promise)
def test_all_neighbours_keep_the_promise_that(promise, of_topologies):
    names, said = of_topologies

    assert promise in names, said


@pytest.mark.parametrize(
    ("one", "others", "then"),
    [("comm", "comm.Dup()", "comm.bcast(1)"), ("comm.Create_cart([2])", "comm.Dup()", "made.bcast(1)")],
    ids=["none, used is the old one", "of another kind, and it is used"],
)
def test_a_rank_that_makes_another_communicator_than_the_others_is_found_out(one, others, then, tmp_path):
    text = f"comm = MPI.COMM_WORLD\nmade = {others} if comm.rank else {one}\n{then}\n"
    code, _, said = promises.ended(tools.script(tmp_path, "from river.mpi import MPI\n" + text), 2)

    assert code == 1
    assert "rank 1 and rank 0 have not made the same calls before this bcast with root 0" in said
