"""Ranks: they are started, reach each other, and end together; what fails first is told first.

They run as scripts, in a process of their own, as people write them.
"""

import textwrap

import tools

HEAD = """
import os, signal, sys
from river.mpi.job import RankFailed, run
from river.mpi.rank import the_world
"""


def ran(directory, text):
    return tools.python(tools.script(directory, HEAD + textwrap.dedent(text)))


def test_each_rank_runs_the_function_and_the_results_come_by_rank(tmp_path):
    said = ran(
        tmp_path,
        """
        factor = 10
        print(run(lambda x, y: (the_world().rank * factor, the_world().size, x + y), 1, y=2, n=3))
    """,
    )

    assert said == "[(0, 3, 3), (10, 3, 3), (20, 3, 3)]\n"


def test_messages_of_any_size_go_round_a_ring_and_overtake_nothing(tmp_path):
    said = ran(
        tmp_path,
        """
        SIZES = [0, 1, 8, 4000, 131072, 131073, 1 << 20, 5 << 20]
        def go_round():
            world = the_world()
            engine, after, before = world.engine, (world.rank + 1) % world.size, (world.rank - 1) % world.size
            waiting = [engine.send(after, 0, 7, (bytes([number]) * size,), size) for number, size in enumerate(SIZES)]
            for number, size in enumerate(SIZES):
                into = bytearray(size)
                receive = engine.receive(0, before, 7, memoryview(into))
                engine.wait(receive)
                assert (receive.size, receive.source, into) == (size, before, bytes([number]) * size)
            for request in waiting:
                engine.wait(request)
            return len(waiting)
        print(run(go_round, n=3))
    """,
    )

    assert said == "[8, 8, 8]\n"


def test_a_rank_ends_as_a_program_does_after_its_threads_and_what_is_registered_for_the_end(tmp_path):
    said = ran(
        tmp_path,
        """
        import atexit, threading
        def end():
            engine, rank = the_world().engine, the_world().rank
            def exchange(tag):
                engine.wait(engine.send(1 - rank, 0, tag, (b"x",), 1))
                engine.wait(engine.receive(0, 1 - rank, tag))
                print(rank, tag, flush=True)
            atexit.register(exchange, 2)
            threading.Thread(target=exchange, args=(1,)).start()
        run(end, n=2)
    """,
    )

    assert sorted(said.splitlines()) == ["0 1", "0 2", "1 1", "1 2"]


def test_the_first_failure_is_told_with_where_the_others_were(tmp_path):
    said = ran(
        tmp_path,
        """
        def fail():
            world = the_world()
            if world.rank == 1:
                raise ValueError("one")
            world.engine.wait(world.engine.receive(0, 1, 0))  # waits for it
        try:
            run(fail, n=3)
        except RankFailed as failed:
            print(failed)
            print(failed.rank, type(failed.__cause__).__name__)
    """,
    )
    lines = said.splitlines()

    assert lines[0] == "rank 1 failed: ValueError: one"
    assert [line.split()[:3] for line in lines if line.startswith("  rank")] == [
        ["rank", "0", "was"],
        ["rank", "2", "was"],
    ]
    assert lines[-1] == "1 ValueError"


def test_a_rank_that_is_killed_or_exits_ends_the_job_and_is_named(tmp_path):
    said = ran(
        tmp_path,
        """
        def end(how):
            world = the_world()
            if world.rank == 2:
                how()
            world.engine.wait(world.engine.receive(0, 2, 0))
        for how in (
            lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(4), lambda: sys.exit(5), lambda: os._exit(0)
        ):
            try:
                run(end, how, n=3)
            except RankFailed as failed:
                print(failed.rank, failed.code, str(failed).splitlines()[0])
    """,
    )

    assert said.splitlines() == [
        "2 137 rank 2 was killed by signal 9",
        "2 4 rank 2 has ended with exit code 4",
        "2 5 rank 2 has ended with exit code 5",
        "2 1 rank 2 has ended with exit code 0",
    ]
