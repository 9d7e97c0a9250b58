"""A program of ranks that keeps promises about communicators and groups; see test_mpi_communicators."""

import contextlib
import io
import pickle
import threading

from promises import Promises, error_of

promise = Promises()


def halves(comm):
    """For two ranks and more: whether this rank is in the upper half, this half, and both halves connected."""
    is_upper = comm.rank >= comm.size // 2
    half = comm.Split(int(is_upper), comm.rank)
    return is_upper, half, half.Create_intercomm(0, comm, 0 if is_upper else comm.size // 2, 5)


@promise
def a_copy_has_the_same_ranks_and_hears_nothing_else(comm):
    twin, (other, request) = comm.Dup(), comm.Idup()
    request.Wait()
    assert MPI.Comm.Compare(comm, twin) == twin.Compare(other) == MPI.CONGRUENT
    assert comm.Compare(comm) == MPI.Intracomm(comm).Compare(comm) == MPI.IDENT
    mark = (comm.rank + 1) % comm.size
    requests = [each.isend(name, mark, 1) for each, name in ((comm, "comm"), (twin, "twin"), (other, "other"))]
    assert other.recv(tag=1) == "other" and twin.recv(tag=1) == "twin" and comm.recv(tag=1) == "comm"
    MPI.Request.Waitall(requests)
    twin.Free()
    other.Free()
    assert twin == MPI.COMM_NULL and not other


@promise
def many_threads_make_communicators_at_the_same_time(comm):
    made = {}

    def make(number, parent):
        made[number] = [parent.Dup() for _ in range(20)]

    parents = [comm.Dup() for _ in range(4)]
    threads = [threading.Thread(target=make, args=each) for each in enumerate(parents)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(len(parents)):
        for index, each in enumerate(made[number]):
            assert each.allgather((number, index)) == [(number, index)] * comm.size


@promise
def ranks_are_split_by_color_in_the_order_of_their_keys(comm):
    part = comm.Split(comm.rank % 2, -comm.rank)
    assert part.allgather(comm.rank) == [rank for rank in reversed(range(comm.size)) if rank % 2 == comm.rank % 2]
    assert not comm.Split(MPI.UNDEFINED if comm.rank else 3) or comm.rank == 0
    same = comm.Split(1, -comm.rank)
    assert same.Compare(comm) == (MPI.SIMILAR if comm.size > 1 else MPI.CONGRUENT)
    assert same.Compare(part) == (MPI.UNEQUAL if comm.size > 1 else MPI.CONGRUENT)
    assert error_of(comm.Split, -3) == MPI.ERR_ARG


@promise
def ranks_are_split_by_machine(comm):
    shared = comm.Split_type(MPI.COMM_TYPE_SHARED, key=-comm.rank)
    assert shared.size == comm.size and shared.rank == comm.size - 1 - comm.rank
    assert comm.Split_type(MPI.UNDEFINED) == MPI.COMM_NULL
    mine = comm.Split_type(MPI.COMM_TYPE_SHARED if comm.rank == 0 else MPI.UNDEFINED)
    assert (mine.size == 1) if comm.rank == 0 else not mine
    for kind in (MPI.COMM_TYPE_HW_GUIDED, MPI.COMM_TYPE_RESOURCE_GUIDED):
        assert not comm.Split_type(kind)
        hint = MPI.Info.Create({"mpi_hw_resource_type": "mpi_shared_memory"})
        assert comm.Split_type(kind, info=hint).size == comm.size
    assert not comm.Split_type(MPI.COMM_TYPE_HW_UNGUIDED)  # it would be no smaller
    assert error_of(comm.Split_type, 999) == MPI.ERR_ARG


@promise
def a_group_makes_a_communicator_with_all_or_by_itself(comm):
    everyone = comm.Get_group()
    some = everyone.Range_incl([(comm.size - 1, 0, -2)])
    made = comm.Create(some)
    if some.rank == MPI.UNDEFINED:
        assert made == MPI.COMM_NULL and type(made) is MPI.Intracomm
    else:
        assert made.rank == some.rank and made.group.Compare(some) == MPI.IDENT
        first, second = comm.Create_group(some, tag=1), comm.Create_group(some, tag=1)
        tagged = MPI.Intracomm.Create_from_group(some, "a tag")
        for number, each in enumerate((first, second, tagged)):
            assert each.Compare(made) == MPI.CONGRUENT
            assert each.allgather(number) == [number] * some.size
    assert not comm.Create(MPI.GROUP_EMPTY)
    if comm.size > 1:
        assert error_of(MPI.COMM_SELF.Create, everyone) == MPI.ERR_GROUP


@promise
def groups_that_share_ranks_make_communicators_in_any_order(comm):
    pairs = [(low, high) for low in range(comm.size) for high in range(low + 1, comm.size) if comm.rank in (low, high)]
    made = {pair: comm.Create_group(comm.group.Incl(pair), tag=7) for pair in pairs}
    requests = [made[pair].isend(pair, 1 - made[pair].rank) for pair in pairs]
    for pair in reversed(pairs):
        assert made[pair].recv(source=MPI.ANY_SOURCE) == pair
    MPI.Request.Waitall(requests)


@promise
def names_and_hints_stay_with_their_communicator(comm):
    assert (MPI.COMM_WORLD.name, MPI.COMM_SELF.name, MPI.COMM_NULL.name) == (
        "MPI_COMM_WORLD",
        "MPI_COMM_SELF",
        "MPI_COMM_NULL",
    )
    twin = comm.Dup()
    assert twin.name == ""
    twin.name = "twin"
    assert MPI.Comm(twin).Get_name() == "twin"
    twin.info = MPI.Info.Create({"a": "1"})
    twin.Set_info(MPI.Info.Create({"b": "2"}))
    assert twin.Get_info().items() == twin.Dup().info.items() == [("a", "1"), ("b", "2")]
    assert twin.Dup_with_info(MPI.Info.Create({"c": "3"})).info.items() == [("c", "3")]
    assert twin.Dup_with_info(MPI.INFO_NULL).info.items() == []
    twin.Get_info().Set("a", "9")
    assert twin.info["a"] == "1"


@promise
def attributes_are_there_from_the_start_and_cannot_be_set(comm):
    most = comm.Get_attr(MPI.TAG_UB)
    assert comm.sendrecv("last", comm.rank, most, None, comm.rank, most) == "last"
    assert error_of(comm.isend, "beyond", comm.rank, most + 1) == MPI.ERR_TAG
    assert comm.Get_attr(MPI.IO) == MPI.ANY_SOURCE
    assert comm.Get_attr(MPI.WTIME_IS_GLOBAL) == 1
    assert comm.Get_attr(MPI.UNIVERSE_SIZE) == MPI.COMM_WORLD.size
    assert comm.Get_attr(MPI.APPNUM) == 0
    before = comm.Get_attr(MPI.LASTUSEDCODE)
    added = MPI.Add_error_class()
    assert comm.Get_attr(MPI.LASTUSEDCODE) == added > before >= 0
    MPI.Remove_error_class(added)
    assert error_of(comm.Set_attr, MPI.TAG_UB, 7) == error_of(comm.Delete_attr, MPI.IO) == MPI.ERR_KEYVAL
    assert error_of(MPI.COMM_NULL.Get_attr, MPI.TAG_UB) == MPI.ERR_COMM


@promise
def attributes_are_copied_as_their_key_says_and_deleted_with_their_communicator(comm):
    deleted = []
    copied = MPI.Comm.Create_keyval(lambda comm, key, value: value + 1, lambda comm, key, value: deleted.append(value))
    kept, alone = MPI.Comm.Create_keyval(True), MPI.Comm.Create_keyval()
    one = comm.Dup()
    for key in (copied, kept, alone):
        one.Set_attr(key, 5)
    two = one.Dup()
    assert [two.Get_attr(key) for key in (copied, kept, alone)] == [6, 5, None]
    two.Free()
    assert deleted == [6]
    one.Set_attr(copied, 8)
    assert deleted == [6, 5]
    one.Free()
    assert deleted == [6, 5, 8]
    assert MPI.Comm.Free_keyval(copied) == MPI.KEYVAL_INVALID


@promise
def a_function_of_a_key_that_raises_is_an_error_of_the_call(comm):
    def fail(comm, key, value):
        raise ValueError("not this one")

    shown, one = io.StringIO(), comm.Dup()
    copied, deleted = MPI.Comm.Create_keyval(fail), MPI.Comm.Create_keyval(None, fail)
    with contextlib.redirect_stderr(shown):
        one.Set_attr(copied, 1)
        assert error_of(one.Dup) == MPI.ERR_OTHER
        one.Delete_attr(copied)
        one.Set_attr(deleted, 1)
        assert error_of(one.Delete_attr, deleted) == MPI.ERR_OTHER
        one.Free()
    assert shown.getvalue().count("ValueError: not this one") == 2


@promise
def predefined_communicators_are_pickled_and_others_are_not(comm):
    for each in (MPI.COMM_WORLD, MPI.COMM_SELF, MPI.COMM_NULL):
        assert pickle.loads(pickle.dumps(each)) is each
    again = pickle.loads(pickle.dumps(MPI.Intracomm(MPI.COMM_WORLD)))
    assert again == MPI.COMM_WORLD and again is not MPI.COMM_WORLD
    try:
        pickle.dumps(comm.Dup())
    except ValueError as error:
        assert "only if it is predefined" in str(error)
    else:
        raise AssertionError("it was pickled")


@promise
def a_number_stands_for_a_communicator_and_gives_its_class_back(comm):
    grid = comm.Create_cart([comm.size])
    graph = comm.Create_graph(range(1, comm.size + 1), [0] * comm.size)
    for each in (comm, grid, graph, comm.Create_dist_graph_adjacent([], [])):
        for again in (MPI.Comm.fromint(each.toint()), MPI.Comm.f2py(each.py2f()), MPI.Comm.fromhandle(each.handle)):
            assert again == each and type(again) is type(each)
    assert MPI.Comm.f2py(MPI.COMM_NULL.py2f()) == MPI.COMM_NULL
    assert MPI.Intracomm(grid) == grid
    for cls, other in ((MPI.Topocomm, comm), (MPI.Graphcomm, grid), (MPI.Intercomm, comm), (MPI.Comm, 5)):
        try:
            cls(other)
        except TypeError:
            continue
        raise AssertionError(f"{other!r} is a {cls}")


@promise
def classes_of_a_program_stay_when_they_are_copied(comm):
    class Mine(MPI.Cartcomm):
        pass

    mine = Mine(comm.Create_cart([comm.size], [True]))
    assert type(mine.Dup()) is type(mine.Clone()) is type(mine.Idup()[0]) is Mine
    assert mine.Dup().dims == [comm.size]


@promise
def predefined_communicators_are_not_freed(comm):
    assert error_of(MPI.COMM_WORLD.Free) == error_of(MPI.COMM_SELF.Free) == MPI.ERR_COMM
    assert error_of(MPI.COMM_NULL.Free) == error_of(MPI.COMM_NULL.Get_rank) == MPI.ERR_COMM
    MPI.COMM_WORLD.free()
    assert MPI.COMM_WORLD
    twin = comm.Dup()
    twin.Disconnect()
    assert not twin
    assert not MPI.Comm.Get_parent() and type(MPI.Comm.Get_parent()) is MPI.Intercomm


@promise
def a_communicator_is_disconnected_when_its_own_messages_have_left(comm):
    before, after = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    twin, large = comm.Dup(), bytes(1 << 20)
    late = comm.isend(large, after)  # nobody receives it yet
    sent = twin.isend(large, after)
    assert twin.recv(source=before) == large
    twin.Disconnect()
    comm.Barrier()
    assert sent.test()[0] and comm.recv(source=before) == large
    late.wait()


@promise
def what_is_prepared_is_started_in_any_order(comm):
    one, two = bytearray([comm.rank]), bytearray([comm.rank])
    prepared = [comm.Bcast_init(one, 0), comm.Bcast_init(two, comm.size - 1)]
    for turn in range(3):
        one[0] = two[0] = 10 * turn + comm.rank
        first, second = prepared[:: -1 if comm.rank % 2 else 1]
        first.Start()
        assert comm.allgather(turn) == [turn] * comm.size and comm.Dup()
        second.Start()
        MPI.Request.Waitall(prepared)
        assert (one[0], two[0]) == (10 * turn, 10 * turn + comm.size - 1)
    for request in prepared:
        request.Free()


@promise
def what_is_prepared_is_revoked_with_its_communicator(comm):
    prepared = comm.Barrier_init()
    if comm.rank:
        prepared.Start()
    MPI.COMM_WORLD.Barrier()
    if comm.rank == 0:
        comm.Revoke()
    assert error_of(prepared.Wait if comm.rank else prepared.Start) == MPI.ERR_REVOKED


@promise
def what_river_has_not_says_so(comm):
    for call in (comm.Spawn, comm.Spawn_multiple, comm.Accept, comm.Connect, MPI.Comm.Join):
        try:
            call("program")
        except NotImplementedError as error:
            assert "needs an MPI library" in str(error)
        else:
            raise AssertionError(call)


@promise
def groups_are_made_of_each_other(comm):
    everyone, size = comm.Get_group(), comm.size
    assert MPI.Group.Union(MPI.GROUP_EMPTY, everyone).rank == comm.rank
    first, rest = everyone.Incl([0]), everyone.Excl([0])
    assert MPI.Group.Union(rest, first).Translate_ranks(group=everyone) == [*range(1, size), 0]
    assert MPI.Group.Difference(everyone, rest).Compare(first) == MPI.IDENT
    assert MPI.Group.Intersection(rest, first).Compare(MPI.GROUP_EMPTY) == MPI.IDENT
    MPI.GROUP_EMPTY.Free()
    assert MPI.GROUP_EMPTY
    assert error_of(everyone.Incl, [0, 0]) == error_of(everyone.Incl, [size]) == MPI.ERR_RANK


# -- two groups ------------------------------------------------------------------------------------------------------


@promise
def two_groups_are_connected_and_know_each_other(comm):
    if comm.size < 2:
        return
    is_upper, half, both = halves(comm)
    assert (both.rank, both.size, both.remote_size) == (half.rank, half.size, comm.size - half.size)
    assert both.is_inter and not both.is_intra and type(both) is MPI.Intercomm
    lower, upper = range(comm.size // 2), range(comm.size // 2, comm.size)
    world = MPI.COMM_WORLD.group
    assert both.group.Translate_ranks(group=world) == list(upper if is_upper else lower)
    assert both.remote_group.Translate_ranks(group=world) == list(lower if is_upper else upper)
    if both.rank < both.remote_size:
        status = MPI.Status()
        assert both.sendrecv(is_upper, both.rank, 3, None, MPI.ANY_SOURCE, 3, status) is not is_upper
        assert status.source == both.rank
    assert both.Compare(both) == MPI.IDENT
    assert both.Compare(both.Dup()) == both.Compare(both.Idup()[0]) == MPI.CONGRUENT
    assert both.Compare(half) == MPI.UNEQUAL
    assert both.Dup().Get_topology() == MPI.UNDEFINED


@promise
def two_groups_become_one_in_the_order_that_they_say(comm):
    if comm.size < 2:
        return
    is_upper, half, both = halves(comm)
    assert both.Merge(is_upper).Compare(comm) == MPI.CONGRUENT
    assert both.Merge().Compare(comm) == both.Merge(True).Compare(comm) == MPI.CONGRUENT
    turned = both.Merge(not is_upper)
    assert turned.allgather(comm.rank) == [*range(comm.size // 2, comm.size), *range(comm.size // 2)]


@promise
def two_groups_are_split_together(comm):
    if comm.size < 2:
        return
    is_upper, half, both = halves(comm)
    all_ = both.Split(42, -both.rank)
    assert (all_.rank, all_.size, all_.remote_size) == (both.size - 1 - both.rank, both.size, both.remote_size)
    pair = both.Split(both.rank, 0)
    if both.rank < both.remote_size:
        assert (pair.size, pair.remote_size) == (1, 1)
        assert pair.sendrecv(comm.rank, 0) == (comm.rank - comm.size // 2 if is_upper else comm.rank + comm.size // 2)
    else:
        assert not pair  # there is nobody on the other side
    leaders = both.Create(both.group.Incl([0]))
    assert (leaders.remote_size == 1) if both.rank == 0 else not leaders
    assert both.Split_type(MPI.COMM_TYPE_SHARED).remote_size == both.remote_size
    assert not both.Split_type(MPI.UNDEFINED)


@promise
def two_groups_are_connected_without_another_communicator(comm):
    if comm.size < 2:
        return
    is_upper, half, both = halves(comm)
    made = MPI.Intercomm.Create_from_groups(both.group, 0, both.remote_group, 0)
    assert made.Compare(both) == MPI.CONGRUENT
    if made.rank < made.remote_size:
        assert made.sendrecv(1, made.rank) == 1
    assert error_of(MPI.Intercomm.Create_from_groups, both.group, 0, comm.group, 0) == MPI.ERR_COMM
    assert error_of(half.Create_intercomm, half.size, comm, 0) == MPI.ERR_RANK


if __name__ == "__main__":
    from river.mpi import MPI

    promise.keep()
