"""Ranks that wait for each other for ever are told of, with who waits for whom; ranks that are slow never are."""

import textwrap

import tools

HEAD = """
import os, signal, sys, threading, time
from river.mpi.job import Deadlock, Job, RankFailed
from river.mpi.places import cluster_of
from river.mpi import rank as rank_

def tell(programs):
    # What is said of each of them; it hangs, maybe.
    with cluster_of() as cluster:
        for function, n in programs.items():
            with Job(n, cluster) as job:
                try:
                    job.run(("call", function, (), {}))
                except Deadlock as deadlock:
                    print(f"-- {function.__name__}", deadlock, sep="\\n")
                except RankFailed as failed:
                    print(f"-- {function.__name__} failed instead", failed, sep="\\n")
                else:
                    print(f"-- {function.__name__} has ended")

def looked_at(times):
    # Waits until this rank has been asked so often how it looks.
    handlers, count = rank_.the_world().line._handlers, [0]
    look = handlers["look"]
    def counted():
        count[0] += 1
        look()
    handlers["look"] = counted
    return lambda: until(lambda: count[0] >= times)

def until(ready):
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)
"""


def ran(directory, text):
    """What is said of each function, by its name."""
    said = tools.python(tools.script(directory, HEAD + textwrap.dedent(text)))
    parts = [part.splitlines() for part in said.split("-- ")[1:]]
    return {part[0]: part[1:] for part in parts}


def test_a_zoo_of_programs_that_hang_in_messages_is_told_of(tmp_path):
    said = ran(
        tmp_path,
        """
        from river.mpi import MPI

        def each_receives_first():
            comm = MPI.COMM_WORLD
            comm.recv(source=1 - comm.rank)
            comm.send(1, dest=1 - comm.rank)

        def each_sends_first():
            comm = MPI.COMM_WORLD
            comm.Send(bytearray(1 << 20), dest=(comm.rank + 1) % 3)
            comm.Recv(bytearray(1 << 20))

        def wrong_tag():
            comm = MPI.COMM_WORLD
            if comm.rank == 0:
                comm.send("here", dest=1, tag=8)
                comm.recv(source=1)
            else:
                comm.recv(source=0, tag=9)

        def from_nobody():
            if MPI.COMM_WORLD.rank == 0:
                MPI.COMM_WORLD.recv()

        def to_itself():
            comm = MPI.COMM_WORLD
            comm.ssend(1, dest=comm.rank)

        def several_requests():
            comm = MPI.COMM_WORLD
            MPI.Request.waitall([comm.irecv(source=1 - comm.rank, tag=tag) for tag in range(3)])

        def any_request():
            comm = MPI.COMM_WORLD
            MPI.Request.waitany([comm.irecv(source=1 - comm.rank, tag=tag) for tag in range(3)])

        def probe():
            MPI.COMM_WORLD.Probe(source=1 - MPI.COMM_WORLD.rank)

        def unreceived_at_the_end():
            comm = MPI.COMM_WORLD
            comm.Isend(bytearray(1 << 20), dest=1 - comm.rank)

        def two_of_three():
            comm = MPI.COMM_WORLD
            if comm.rank == 2:
                until(lambda: False)
            comm.recv(source=1 - comm.rank)

        def in_threads():
            comm = MPI.COMM_WORLD
            receive = lambda tag: comm.recv(source=1 - comm.rank, tag=tag)
            threads = [threading.Thread(target=receive, args=(tag,)) for tag in (1, 2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        tell({
            each_receives_first: 2, each_sends_first: 3, wrong_tag: 2, from_nobody: 2, to_itself: 1,
            several_requests: 2, any_request: 2, probe: 2, unreceived_at_the_end: 2, two_of_three: 3, in_threads: 2,
        })
    """,
    )

    first, *rest = said["each_receives_first"]
    assert first == "deadlock: ranks 0 and 1 wait for ever, and nothing that would end it is under way"
    assert rest[0].startswith("  rank 0 waits for a message from rank 1, any tag, in recv at script.py:")
    assert rest[0].endswith(" in each_receives_first")
    assert "  in a circle: rank 0 -> rank 1 -> rank 0" in rest
    assert "  in a circle: rank 0 -> rank 1 -> rank 2 -> rank 0" in said["each_sends_first"]
    assert any("until rank 1 receives a message of 1048576 bytes, tag 0" in line for line in said["each_sends_first"])
    assert [line for line in said["wrong_tag"] if "has not received" in line and "from rank 0, tag 8" in line]
    assert "  rank 1 had finished" in said["from_nobody"] and "from any rank" in said["from_nobody"][1]
    assert said["to_itself"][0].startswith("deadlock: rank 0 waits for ever")
    for name in ("several_requests", "any_request", "probe", "in_threads"):
        assert said[name][0].startswith("deadlock: ranks 0 and 1 wait for ever"), name
    assert "Probe at script.py" in said["probe"][1]
    assert len([line for line in said["in_threads"] if line.startswith("  rank 0 waits for")]) == 2
    assert "the end of the program" in said["unreceived_at_the_end"][1]
    assert "  rank 2 does something else, or is gone" in said["two_of_three"]


def test_a_zoo_of_programs_that_hang_in_collectives_says_who_is_not_there(tmp_path):
    said = ran(
        tmp_path,
        """
        from river.mpi import MPI

        def one_receives_instead():
            comm = MPI.COMM_WORLD
            if comm.rank == 2:
                comm.recv(source=0)
            comm.Barrier()

        def the_same_after_many_calls():
            comm = MPI.COMM_WORLD
            for _ in range(20):
                comm.allreduce(1)
            if comm.rank == 2:
                comm.recv(source=0)
            comm.Barrier()

        def one_has_ended():
            if MPI.COMM_WORLD.rank:
                MPI.COMM_WORLD.allreduce(1)

        def in_another_communicator():
            comm = MPI.COMM_WORLD
            pair = comm.Split(comm.rank == 2)
            pair.name = "the pair"
            if comm.rank == 0:
                pair.bcast(1, root=1)
            else:
                comm.Barrier()

        def one_does_not_begin():
            comm = MPI.COMM_WORLD
            if comm.rank:
                comm.Ibarrier().Wait()
            else:
                comm.recv(source=1)

        tell(dict.fromkeys((
            one_receives_instead, the_same_after_many_calls, one_has_ended, in_another_communicator, one_does_not_begin
        ), 3))
    """,
    )

    for name in ("one_receives_instead", "the_same_after_many_calls"):
        assert said[name][0].startswith("deadlock: ranks 0, 1 and 2 wait for ever"), name
        assert any("in Barrier at" in line and "rank 2 has not come to it" in line for line in said[name]), name
        assert any(line.startswith("  rank 2 waits for a message from rank 0") for line in said[name]), name
    assert "  rank 0 had finished" in said["one_has_ended"]
    assert any("allreduce" in line and "rank 0 has not come to it" in line for line in said["one_has_ended"])
    assert any("bcast" in line and "on the pair" in line for line in said["in_another_communicator"])
    assert said["one_does_not_begin"][0].startswith("deadlock: ranks 0, 1 and 2 wait for ever")


def test_programs_that_are_slow_are_left_alone(tmp_path):
    said = ran(
        tmp_path,
        """
        from concurrent.futures import ThreadPoolExecutor
        from river.mpi import MPI

        LONG = 0.8  # as what is slow, not as what is waited for: longer than it takes to prove a deadlock

        def one_sleeps():
            comm = MPI.COMM_WORLD
            if comm.rank == 0:
                time.sleep(LONG)
                comm.send(1, dest=1)
            elif comm.rank == 1:
                comm.recv(source=0)
            comm.Barrier()

        def one_tests():
            comm = MPI.COMM_WORLD
            if comm.rank:
                return comm.recv(source=0, tag=comm.rank)
            request, end = comm.irecv(source=1), time.monotonic() + LONG
            while not request.test()[0] and time.monotonic() < end:
                pass
            end = time.monotonic() + LONG
            while not comm.iprobe(source=2) and time.monotonic() < end:
                time.sleep(0.001)
            request.Cancel()
            request.Wait()
            comm.send(1, dest=1, tag=1)
            comm.send(2, dest=2, tag=2)

        def comes_back(comm):
            if comm.rank == 0:
                comm.recv(source=1)
            elif comm.rank == 1:
                comm.recv(source=0)
                comm.send(1, dest=0)
            comm.Barrier()

        def a_thread_sends_late():
            comm, watched = MPI.COMM_WORLD, looked_at(4)
            def send():
                watched()
                comm.send(1, dest=1)
            if comm.rank == 0:
                threading.Thread(target=send).start()
            comes_back(comm)

        def an_executor_sends_late():
            comm, watched = MPI.COMM_WORLD, looked_at(4)
            with ThreadPoolExecutor(2) as executor:
                if comm.rank == 0:
                    executor.submit(watched).add_done_callback(lambda _: comm.send(1, dest=1))
                comes_back(comm)

        def a_signal_sends_late():
            comm = MPI.COMM_WORLD
            if comm.rank == 0:
                signal.signal(signal.SIGALRM, lambda *_: comm.send(1, dest=1))
                signal.setitimer(signal.ITIMER_REAL, LONG)
            comes_back(comm)

        def much_goes_slowly():
            comm = MPI.COMM_WORLD
            for _ in range(3):
                if comm.rank == 0:
                    time.sleep(0.3)
                comm.alltoall([bytes(1 << 20)] * comm.size)
            if comm.rank == 0:
                time.sleep(0.3)
            comm.Sendrecv(bytearray(3 << 20), (comm.rank + 1) % 3, recvbuf=bytearray(3 << 20))

        def ends_apart():
            time.sleep(LONG * MPI.COMM_WORLD.rank / 2)

        tell(dict.fromkeys((
            one_sleeps, one_tests, a_thread_sends_late, an_executor_sends_late, a_signal_sends_late, much_goes_slowly,
            ends_apart,
        ), 3))
    """,
    )

    assert list(said) == [
        f"{name} has ended"
        for name in (
            "one_sleeps",
            "one_tests",
            "a_thread_sends_late",
            "an_executor_sends_late",
            "a_signal_sends_late",
            "much_goes_slowly",
            "ends_apart",
        )
    ]
