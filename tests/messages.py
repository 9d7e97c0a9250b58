"""A program of ranks that keeps promises about messages from one rank to another; see test_mpi_messages."""

import pickle
import signal
import threading
import warnings
from array import array

from promises import Promises, error_of

promise = Promises()
SMALL, LARGE = 10, 20_000  # numbers of doubles; the large ones are asked for before they come


def neighbours(comm):
    return (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size


def doubles(count, value=0.0):
    return array("d", [value]) * count


def raised(call, *args, **keywords):
    try:
        call(*args, **keywords)
    except Exception as error:
        return type(error)
    return None


def started(request):
    request.Start()
    return request


SENDS = {
    "Isend": lambda comm, *args: comm.Isend(*args),
    "Issend": lambda comm, *args: comm.Issend(*args),
    "Irsend": lambda comm, *args: comm.Irsend(*args),
    "Ibsend": lambda comm, *args: comm.Ibsend(*args),
    "Bsend": lambda comm, *args: comm.Bsend(*args) or MPI.REQUEST_NULL,
    "Send_init": lambda comm, *args: started(comm.Send_init(*args)),
    "Ssend_init": lambda comm, *args: started(comm.Ssend_init(*args)),
    "Rsend_init": lambda comm, *args: started(comm.Rsend_init(*args)),
    "Bsend_init": lambda comm, *args: started(comm.Bsend_init(*args)),
}
RECEIVES = {
    "Recv": lambda comm, into, *args: comm.Recv(into, *args),
    "Irecv": lambda comm, into, *args: comm.Irecv(into, *args).Wait(),
    "Recv_init": lambda comm, into, *args: started(comm.Recv_init(into, *args)).Wait(),
    "Mprobe": lambda comm, into, *args: comm.Mprobe(*args).Recv(into),
    "Improbe": lambda comm, into, *args: until(lambda: comm.Improbe(*args)).Irecv(into).Wait(),
}


def flat(obj):
    """What can be compared of an object with arrays in it."""
    if isinstance(obj, (list, dict)):
        return [flat(each) for each in (obj.values() if isinstance(obj, dict) else obj)]
    return (obj.dtype, obj.shape, obj.tobytes()) if hasattr(obj, "tobytes") else obj


def until(look):
    while not (found := look()):
        pass
    return found


@promise
def what_is_sent_in_any_way_can_be_received_in_any_way(comm):
    after, before = neighbours(comm)
    comm.Attach_buffer(None)
    for number, (how, send) in enumerate(SENDS.items()):
        for tag, (way, receive) in enumerate(RECEIVES.items()):
            for count in (0, SMALL, LARGE):
                into = doubles(count, -1.0)
                going = send(comm, doubles(count, number + comm.rank / 10), after, tag)
                receive(comm, into, before, tag)
                going.Wait()
                assert set(into) <= {number + before / 10} and len(into) == count, (how, way, count)
    assert comm.Detach_buffer() is MPI.BUFFER_AUTOMATIC


@promise
def blocking_sends_end_when_somebody_receives(comm):
    if comm.size == 1:
        return
    for tag, send in enumerate((comm.Send, comm.Ssend, comm.Rsend)):
        for count in (SMALL, LARGE):
            if comm.rank == 0:
                send(doubles(count, tag), 1, tag)
            elif comm.rank == 1:
                into, status = doubles(count), MPI.Status()
                comm.Recv(into, 0, tag, status)
                assert set(into) == {tag} and (status.source, status.tag) == (0, tag)
                assert status.Get_count(MPI.DOUBLE) == count and status.count == 8 * count
    for tag, send in enumerate((comm.send, comm.ssend)):
        if comm.rank == 0:
            send({"tag": tag}, 1, tag)
        elif comm.rank == 1:
            assert comm.recv(source=MPI.ANY_SOURCE) == {"tag": tag}


@promise
def objects_go_both_ways_at_once(comm):
    after, before = neighbours(comm)
    for obj in (None, 0, "text", [1] * 100_000, b"x" * 1_000_000):
        assert comm.sendrecv((comm.rank, obj), after, source=before) == (before, obj)
        coming = comm.irecv(source=before, tag=3)
        going = [comm.isend(obj, after, 3), comm.issend(obj, after, 4)]
        assert coming.wait() == obj and comm.mprobe(before, 4).recv() == obj
        assert MPI.Request.waitall(going) == [None, None]


@promise
def memory_can_be_exchanged_for_what_comes(comm):
    after, before = neighbours(comm)
    for count in (SMALL, LARGE):
        mine = doubles(count, comm.rank)
        status = MPI.Status()
        comm.Sendrecv_replace(mine, after, 1, before, 1, status)
        assert set(mine) == {before} and (status.source, status.tag) == (before, 1)
        comm.Isendrecv_replace(mine, before, 2, after, 2).Wait(status)
        assert set(mine) == {comm.rank} and (status.source, status.count) == (after, 8 * count)
        into = doubles(count + 1)
        comm.Sendrecv(mine, after, 3, into, before, 3)
        assert into.tolist() == [before] * count + [0]
        request = comm.Isendrecv(mine, before, 4, into, after, 4)
        assert error_of(request.Cancel) == MPI.ERR_REQUEST
        request.Wait(status)
        assert into.tolist() == [after] * count + [0] and status.tag == 4
    every_second = MPI.DOUBLE.Create_vector(SMALL // 2, 1, 2).Commit()
    mine = array("d", range(SMALL))
    comm.Sendrecv_replace([mine, 1, every_second], after, 5, before, 5)
    assert mine.tolist() == list(range(SMALL))


@promise
def a_message_that_was_taken_is_nobody_elses(comm):
    after, before = neighbours(comm)
    for number in range(2):
        comm.isend(number, after, 1)
    status = MPI.Status()
    first = comm.mprobe(before, MPI.ANY_TAG, status)
    assert first and (status.source, status.tag) == (before, 1)
    assert comm.recv(source=before) == 1
    request = first.irecv()
    assert not first and first == MPI.MESSAGE_NULL and request.wait() == 0
    assert error_of(first.recv) == MPI.ERR_ARG
    assert comm.improbe() is None and MPI.Message.Iprobe(comm) is None
    comm.Barrier()


@promise
def who_is_interrupted_in_a_receive_leaves_none_behind(comm):
    after, before = neighbours(comm)

    def interrupt(*_):
        raise InterruptedError

    handler = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert raised(comm.recv, None, before) is InterruptedError
    signal.signal(signal.SIGALRM, handler)
    comm.Barrier()
    comm.isend("later", after)
    assert comm.recv(source=before) == "later"


@promise
def what_is_no_pickle_is_an_error_of_the_receive_only(comm):
    comm.Isend(b"no pickle", comm.rank, 1)
    request = comm.irecv(source=comm.rank, tag=1)
    assert raised(request.wait) is pickle.UnpicklingError and not request
    assert comm.sendrecv("right", comm.rank, source=comm.rank) == "right"


@promise
def a_probe_leaves_the_message_where_it_is(comm):
    after, before = neighbours(comm)
    request = comm.issend("here", after, 9)
    status = MPI.Status()
    assert comm.Probe(before, MPI.ANY_TAG, status) is True and status.tag == 9
    assert until(lambda: comm.iprobe(before, 9, status)) and status.source == before
    assert not comm.Iprobe(before, 8)
    assert comm.recv(source=before) == "here"
    request.Wait()


@promise
def from_nobody_nothing_comes_and_at_once(comm):
    nobody, status = MPI.PROC_NULL, MPI.Status()
    comm.Attach_buffer(bytearray(1000))
    for send in (comm.Send, comm.Ssend, comm.Rsend, comm.Bsend):
        send(None, nobody)
    for send in (comm.send, comm.ssend, comm.bsend):
        send(0, nobody)
    for request in (comm.Isend(None, nobody), comm.issend(0, nobody), comm.Irecv(None, nobody), comm.irecv(0, nobody)):
        assert request and request.wait(status) is None and not request
    assert (status.source, status.tag, status.count) == (nobody, MPI.ANY_TAG, 0)
    into = doubles(1, 5)
    comm.Recv(into, nobody, 3, status)
    comm.Sendrecv(into, nobody, 0, into, nobody)
    comm.Sendrecv_replace(into, nobody, 0, nobody)
    comm.Isendrecv_replace(into, nobody, 0, nobody).Wait()
    assert into[0] == 5 and status.source == nobody and comm.recv(source=nobody) is None
    assert comm.Probe(nobody) and comm.Iprobe(nobody, 1, status) and status.source == nobody
    message = comm.mprobe(nobody)
    assert message == MPI.MESSAGE_NO_PROC and message.recv() is None and message == MPI.MESSAGE_NULL
    assert MPI.MESSAGE_NO_PROC.recv() is None and MPI.MESSAGE_NO_PROC
    for make in (comm.Send_init, comm.Ssend_init, comm.Rsend_init, comm.Bsend_init, comm.Recv_init):
        started(make(None, nobody)).Wait()
    started(comm.Precv_init(None, 2, nobody, 1)).Wait()
    out = started(comm.Psend_init(None, 2, nobody))
    out.Pready_range(0, 1)
    out.Wait()
    comm.Detach_buffer()


@promise
def a_message_that_is_too_long_is_an_error_and_the_next_one_is_not(comm):
    after, before = neighbours(comm)
    for count in (SMALL, LARGE):
        requests = [comm.Isend(doubles(count, 3), after) for _ in range(3)]
        into, status = doubles(count - 1), MPI.Status()
        assert error_of(comm.Recv, into, before, 0, status) == MPI.ERR_TRUNCATE
        assert status.source == before
        request = comm.Irecv(into, before)
        assert error_of(request.Wait, status) == MPI.ERR_TRUNCATE == status.error and not request
        into = doubles(count)
        comm.Recv(into, before)
        assert set(into) == {3}
        MPI.Request.Waitall(requests)
    statuses = []
    requests = [comm.Isend(doubles(2), after, tag) for tag in range(3)]
    coming = [comm.Irecv(doubles(1 + tag % 2), before, tag) for tag in range(3)]
    assert error_of(MPI.Request.Waitall, coming, statuses) == MPI.ERR_IN_STATUS
    assert [status.error for status in statuses] == [MPI.ERR_TRUNCATE, MPI.SUCCESS, MPI.ERR_TRUNCATE]
    MPI.Request.Waitall(requests)


@promise
def a_persistent_request_can_be_started_again_when_it_is_done(comm):
    after, before = neighbours(comm)
    mine, into = doubles(SMALL), doubles(SMALL)
    both = [comm.Send_init(mine, after, 6), comm.Recv_init(into, before, 6)]
    status = MPI.Status()
    for number in range(3):
        assert all(both) and both[1].Test(status) and status.source == MPI.ANY_SOURCE  # there is nothing to wait for
        assert MPI.Request.Waitany(both) == MPI.UNDEFINED and MPI.Request.Waitsome(both) is None
        mine[:] = doubles(SMALL, number + comm.rank)
        MPI.Prequest.Startall(both)
        assert error_of(both[1].Start) == MPI.ERR_REQUEST
        assert sorted(MPI.Request.Waitany(both) for _ in both) == [0, 1]
        assert set(into) == {number + before}
    both[1].Start()
    both[1].Cancel()
    both[1].Wait(status)
    assert status.Is_cancelled() and both[1]
    for request in both:
        assert error_of(request.Cancel) == MPI.ERR_REQUEST
        assert MPI.Prequest(request) == MPI.Prequest.fromhandle(request.handle) == request
        assert raised(MPI.Grequest, request) is TypeError
        request.Free()
        assert request == MPI.REQUEST_NULL
    assert raised(MPI.Prequest, comm.Isend(b"", comm.rank)) is TypeError
    comm.Recv(bytearray(0), comm.rank)
    assert error_of(MPI.Prequest().Start) == MPI.ERR_REQUEST


@promise
def requests_can_be_looked_at_without_being_waited_for(comm):
    after, before = neighbours(comm)
    coming = [comm.irecv(source=before, tag=tag) for tag in range(3)]
    statuses = []
    assert not MPI.Request.Get_status_all(coming, statuses) and statuses == []
    assert MPI.Request.get_status_any(coming) == (MPI.UNDEFINED, False)
    assert MPI.Request.Get_status_some(coming) == [] and not coming[0].get_status()
    comm.Barrier()
    going = comm.issend("one", after, 1)
    status = MPI.Status()
    until(lambda: MPI.Request.get_status_any(coming, status)[1])
    assert status.tag == 1 and MPI.Request.get_status_some(coming, statuses) == [1] and statuses[0].tag == 1
    assert coming[1].Get_status(status) and status.source == before and coming[1]
    assert MPI.Request.waitany(coming) == (1, "one") and not coming[1]
    going.Wait()
    comm.Barrier()
    others = [comm.isend(str(tag), after, tag) for tag in (0, 2)]
    until(lambda: MPI.Request.get_status_all(coming, statuses))
    assert [status.tag for status in statuses] == [0, MPI.ANY_TAG, 2]
    assert MPI.Request.testall(coming) == (True, ["0", None, "2"])
    MPI.Request.Waitall(others)
    assert MPI.Request.Get_status_any(coming) == (MPI.UNDEFINED, True)
    assert MPI.Request.Get_status_some(coming) is None
    assert MPI.Request.Testall([]) and MPI.Request.Waitall([], [])
    assert raised(MPI.Request.Waitall, [comm]) is TypeError


@promise
def what_nobody_has_matched_can_be_given_up(comm):
    after, before = neighbours(comm)
    status = MPI.Status()
    coming = comm.irecv(source=before, tag=1)
    coming.cancel()
    assert coming.wait(status) is None and status.Is_cancelled()
    for count in (SMALL, LARGE):
        going = comm.Issend(doubles(count), after, 2)
        comm.Barrier()
        going.Cancel()
        going.Wait(status)
        assert status.Is_cancelled()
        comm.Barrier()
        assert not comm.Iprobe(before)
        comm.Barrier()
        going = comm.Issend(doubles(count), after, 3)
        comm.Recv(doubles(count), before)
        comm.Barrier()
        going.Cancel()
        going.Wait(status)
        assert not status.Is_cancelled()
    assert error_of(MPI.REQUEST_NULL.Cancel) == error_of(MPI.REQUEST_NULL.Free) == MPI.ERR_REQUEST
    assert error_of(MPI.Request(comm.Ibarrier()).Cancel) == MPI.ERR_REQUEST
    comm.Barrier()


@promise
def buffered_sends_take_no_more_than_is_attached(comm):
    after, before = neighbours(comm)
    assert error_of(comm.Bsend, doubles(1), after) == MPI.ERR_BUFFER == error_of(MPI.Detach_buffer)
    room = bytearray(8 * LARGE + MPI.BSEND_OVERHEAD)
    MPI.Attach_buffer(room)
    assert error_of(MPI.Attach_buffer, room) == MPI.ERR_BUFFER
    assert error_of(comm.Bsend, doubles(LARGE + 1), after) == MPI.ERR_BUFFER
    for _ in range(2):
        mine, into = doubles(LARGE, comm.rank), doubles(LARGE)
        comm.Bsend(mine, after)
        mine[:] = doubles(LARGE, -1.0)
        if comm.size > 1:
            assert error_of(comm.bsend, mine, after) == MPI.ERR_BUFFER  # the first one is there still
        comm.Barrier()
        comm.Recv(into, before)
        assert set(into) == {before}
        MPI.Flush_buffer()
    comm.bsend("object", after)
    request = MPI.Iflush_buffer()
    assert comm.recv(source=before) == "object" and request.Wait()
    assert MPI.Detach_buffer() is room
    comm.Attach_buffer(bytearray(10))  # goes before what is attached for all
    MPI.Attach_buffer(MPI.BUFFER_AUTOMATIC)
    assert error_of(comm.bsend, "object", after) == MPI.ERR_BUFFER
    comm.Flush_buffer()
    comm.Iflush_buffer().Wait()
    assert comm.Detach_buffer() == bytearray(10) and MPI.Detach_buffer() is MPI.BUFFER_AUTOMATIC


@promise
def a_program_can_complete_requests_of_its_own(comm):
    told = []
    request = MPI.Grequest.Start(
        lambda status, name: (told.append(name), status.Set_source(3), status.Set_elements(MPI.BYTE, 4)),
        lambda name: told.append("freed"),
        lambda is_complete, name: told.append(is_complete),
        ("asked",),
    )
    assert not request.Test() and told == []
    assert MPI.Grequest(request) == MPI.Grequest.fromhandle(request.handle) == MPI.Request(request) == request
    assert raised(MPI.Prequest, request) is TypeError
    request.Cancel()
    threading.Thread(target=lambda: request.complete([42])).start()
    status = MPI.Status()
    assert request.wait(status) == [42] and not request
    assert (status.source, status.count) == (3, 4) and told == [False, "asked", "freed"]
    assert error_of(request.Complete) == MPI.ERR_REQUEST
    request = MPI.Grequest.Start(free_fn=lambda: told.append("left"))
    twin = MPI.Grequest(request)
    request.Free()
    assert told[-1] != "left"
    twin.Complete()
    assert told[-1] == "left" and error_of(twin.Complete) == MPI.ERR_REQUEST
    fails = MPI.Grequest.Start(lambda status: 1 / 0)
    fails.Complete()
    with hushed():
        assert error_of(fails.Wait) == MPI.ERR_OTHER and not fails
    fails = MPI.Grequest.Start(None, lambda: 1 / 0, lambda _: 1 / 0)
    with hushed():
        assert error_of(fails.Cancel) == MPI.ERR_OTHER
    fails.Complete()
    with hushed():
        assert error_of(fails.Wait) == MPI.ERR_OTHER and not fails


class hushed:
    """Tracebacks that are meant are not shown."""

    def __enter__(self):
        import io
        import sys

        self.stderr, sys.stderr = sys.stderr, io.StringIO()

    def __exit__(self, *_):
        import sys

        shown, sys.stderr = sys.stderr.getvalue(), self.stderr
        assert "Traceback" in shown


@promise
def the_error_handler_of_a_communicator_has_its_errors_first(comm):
    had = []
    handler = MPI.Comm.Create_errhandler(lambda comm, code: had.append((comm, code)))
    assert comm.Get_errhandler() == MPI.ERRORS_RETURN
    comm.Set_errhandler(handler)
    assert comm.Get_errhandler() == handler
    handler.Free()
    assert error_of(comm.Send, b"", comm.size) == MPI.ERR_RANK
    assert error_of(comm.recv, None, 0, -5) == MPI.ERR_TAG
    comm.Isend(bytes(2), comm.rank)
    assert error_of(comm.Irecv(bytearray(1), comm.rank).Wait) == MPI.ERR_TRUNCATE
    comm.Call_errhandler(MPI.ERR_OTHER)
    assert [code for _, code in had] == [MPI.ERR_RANK, MPI.ERR_TAG, MPI.ERR_TRUNCATE, MPI.ERR_OTHER]
    assert all(each == comm for each, _ in had)
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    comm.Call_errhandler(MPI.ERR_OTHER)
    assert error_of(comm.Set_errhandler, MPI.ERRHANDLER_NULL) == MPI.ERR_ERRHANDLER
    assert raised(MPI.Comm.Create_errhandler, 5) is TypeError is raised(comm.Set_errhandler, None)
    assert error_of(MPI.COMM_NULL.Set_errhandler, MPI.ERRORS_RETURN) == MPI.ERR_COMM
    assert len(had) == 4


@promise
def what_a_call_cannot_take_is_an_error_of_the_kind_that_mpi4py_raises(comm):
    into, here = doubles(2), comm.rank
    for expected, call, *args in (
        (MPI.ERR_RANK, comm.Send, into, comm.size),
        (MPI.ERR_RANK, comm.Isend, into, -7),
        (MPI.ERR_RANK, comm.Recv, into, comm.size),
        (MPI.ERR_RANK, comm.Probe, comm.size),
        (MPI.ERR_RANK, comm.Precv_init, into, 2),
        (MPI.ERR_TAG, comm.Send, into, here, -1),
        (MPI.ERR_TAG, comm.isend, 1, here, 1 << 31),
        (MPI.ERR_TAG, comm.Irecv, into, here, -2),
        (MPI.ERR_ARG, comm.Psend_init, into, 0, here),
        (MPI.ERR_COMM, MPI.COMM_NULL.Send, into, 0),
        (MPI.ERR_TYPE, MPI.Status().Get_count, MPI.DATATYPE_NULL),
        (TypeError, comm.Send, into, "0"),
        (TypeError, comm.Send, into, None),
        (TypeError, comm.Send, into, here, 1.5),
        (TypeError, comm.Send, 5, here),
        (TypeError, comm.Recv, into, 0.5),
        (TypeError, comm.Irecv, into, here, None),
        (TypeError, comm.Send),
        (ValueError, comm.Send, [into, 3], here),
        (ValueError, comm.Send, [into, -1], here),
        (ValueError, comm.Send, [into, 1, 0, "d", None], here),
        (KeyError, comm.Send, [into, 1, "no code"], here),
        (BufferError, comm.Recv, b"cannot be written to", here),
        (TypeError, MPI.Status, 5),
        (TypeError, MPI.Request, comm),
    ):
        got = error_of(call, *args) if isinstance(expected, int) else raised(call, *args)
        assert got == expected, (call.__name__, args, got)
    assert not comm.Iprobe()
    assert MPI.Is_thread_main() and MPI.Init_thread() == MPI.THREAD_MULTIPLE and MPI.Pcontrol(1) is None
    assert error_of(MPI.Pcontrol, 3) == MPI.ERR_ARG


@promise
def a_program_can_say_how_objects_are_pickled(comm):
    import json

    after, before = neighbours(comm)
    MPI.pickle.__init__(lambda obj: json.dumps(obj).encode(), lambda data: json.loads(bytes(data)))
    try:
        assert comm.sendrecv((1, 2), after, source=before) == [1, 2]
        assert comm.bcast((3,) if comm.rank == 0 else None) == ((3,) if comm.rank == 0 else [3])
    finally:
        MPI.pickle.__init__()
    data, buffers = MPI.pickle.dumps_oob([bytearray(1 << 20), bytearray(1)])
    assert MPI.pickle.PROTOCOL == 5 and MPI.pickle.loads_oob(data, buffers)[0] == bytearray(1 << 20)


@promise
def large_memory_in_an_object_arrives_as_it_was(comm):
    import numpy

    after, before = neighbours(comm)
    fixed = numpy.arange(50_000.0)
    fixed.flags.writeable = False
    objects = [
        numpy.full((300, 301), 3.5, order="F"),
        [{"small": numpy.zeros(3)}, numpy.arange(70_001), bytearray(400_001), "x" * 400_001],
        [fixed, numpy.arange(40_001, dtype="i8"), numpy.zeros(0)],
        numpy.arange(200_000).reshape(400, 500)[::2, ::5],
    ]
    came = [comm.sendrecv(obj, after, source=before) for obj in objects]
    assert flat(came) == flat(objects)
    shape, (_, long, *_), (same, odd, _), _ = came
    assert shape.flags.f_contiguous and not same.flags.writeable
    for each in (shape, long, odd):
        assert each.flags.writeable and each.flags.aligned
        each += 1
    mine = numpy.zeros(100_000)
    request = comm.isend(mine, after)
    mine += 1  # what is sent is what it was
    assert not comm.mprobe(before).recv().any()
    request.wait()


@promise
def an_object_is_also_received_in_memory_that_the_program_says(comm):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert raised(comm.recv, bytearray(0), MPI.PROC_NULL) is UserWarning
        warnings.simplefilter("ignore")
        for room in (1000, bytearray(1000)):
            going = comm.isend("object", comm.rank)
            assert comm.recv(room, comm.rank) == "object"
            going.wait()
    comm.isend("object", comm.rank)
    assert error_of(comm.irecv(2, comm.rank).wait) == MPI.ERR_TRUNCATE
    comm.Isend([None, 0, MPI.BYTE], comm.rank)
    assert comm.recv(source=comm.rank) is None  # an empty message is no object


@promise
def partitions_leave_as_they_are_ready_and_come_one_by_one(comm):
    after, before = neighbours(comm)
    every_second = MPI.DOUBLE.Create_vector(2, 1, 2).Commit()
    for parts, size in ((1, 12), (4, 3), (6, 2), (4, 20_000), (3, 0)):
        mine, into = doubles(parts * size), doubles(parts * size)
        out = comm.Psend_init(mine, parts, after, 1)
        coming = comm.Precv_init(into, 2 if size else parts, before, 1)  # the other side's parts are its own affair
        for number in range(2):
            mine[:] = array("d", (comm.rank + number + index for index in range(len(mine))))
            MPI.Prequest.Startall([out, coming])
            assert not coming.Parrived(0)
            comm.Barrier()
            for part in reversed(range(parts)):
                assert not out.Test()
                out.Pready(part)
            assert error_of(out.Pready, 0) == MPI.ERR_ARG == error_of(out.Pready_list, [parts])
            until_come(coming, 0)
            MPI.Request.Waitall([out, coming])
            assert into.tolist() == [before + number + index for index in range(len(into))]
        assert error_of(out.Pready, 0) == error_of(coming.Pready, 0) == MPI.ERR_REQUEST
        out.Free()
        coming.Free()
    into = doubles(8, -1.0)
    coming = started(comm.Precv_init([into, 1, every_second], 2, before, 2))
    out = started(comm.Psend_init(array("d", range(4)), 2, after, 2))
    out.Pready_range(0, 1)
    MPI.Request.Waitall([out, coming])
    assert [value for value in into if value >= 0] == [0, 1, 2, 3]


def until_come(request, partition):
    until(lambda: request.Parrived(partition))


@promise
def threads_take_each_others_messages_apart_by_matched_probes(comm):
    after, before = neighbours(comm)
    got = []

    def take():
        for _ in range(25):
            got.append(comm.mprobe(before, 1).recv())

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(100):
        comm.send(number, after, 1)
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(100))


if __name__ == "__main__":
    from river.mpi import MPI

    promise.keep()
