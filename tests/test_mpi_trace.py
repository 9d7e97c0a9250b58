"""A trace: what is noted of a job, and the page that shows it."""

import os
import re
import subprocess
import sys

import tools

from river.mpi.timeline import arrows, page
from river.mpi.trace import Got, Sent, Trace, Waited

RING = """
import sys
from river.mpi import MPI
comm = MPI.COMM_WORLD
after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
for step in range(5):
    comm.sendrecv(bytes(1000), dest=after, sendtag=step, source=before)
comm.Barrier()
if len(sys.argv) > 1:
    comm.recv(source=before)
"""


def traced(directory, *arguments):
    """The exit code, and the page."""
    out = directory / "out.html"
    done = subprocess.run(
        [sys.executable, "-m", "river.mpi", "-n", "3", "--trace", out, tools.script(directory, RING), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=tools.surroundings(),
    )
    return done, out.read_text()


def test_the_page_of_a_program_has_its_ranks_messages_bytes_and_waits(tmp_path):
    done, html = traced(tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"<div>(rank \d)</div>", html) == ["rank 0", "rank 1", "rank 2"]
    for source in range(3):
        arrow = f"rank {source} to rank {(source + 1) % 3}, "
        assert len(re.findall(rf"<title>{arrow}\d+ bytes, tag \d, [^<]* on the way</title>", html)) == 5
    assert re.search(r"script.py:[78] in &lt;module&gt;", html)


def test_a_program_that_hangs_has_a_page_as_well(tmp_path):
    done, html = traced(tmp_path, "hang")

    assert done.returncode == 1 and "deadlock: ranks 0, 1 and 2 wait for ever" in done.stderr
    assert re.search(r"rank 0 waits for rank 2 in recv at script.py:10 in &lt;module&gt;", html)


FUNCTION = """
import sys
from river.mpi import run

def exchange():
    from river.mpi import MPI
    MPI.COMM_WORLD.sendrecv(bytes(1000), dest=1 - MPI.COMM_WORLD.rank)

run(exchange, n=2, trace=sys.argv[1])
"""


def test_a_function_that_is_run_has_a_page_if_that_is_asked_for(tmp_path):
    out = tmp_path / "out.html"
    tools.python(tools.script(tmp_path, FUNCTION), out)

    assert len(re.findall(r"<title>rank \d to rank \d, 10\d\d bytes", out.read_text())) == 2


def test_messages_with_one_envelope_arrive_in_the_order_in_which_they_were_sent():
    sent = [Sent(float(when), 1, 0, tag, size) for when, (tag, size) in enumerate([(7, 10), (8, 20), (7, 30)])]
    got = [Got(float(when), 0, 0, tag, size) for when, (tag, size) in enumerate([(8, 20), (7, 10), (7, 30)], 5)]
    traces = {0: Trace(0.0, 9.0, sent, [], [], 0), 1: Trace(0.0, 9.0, [], got, [], 0)}

    assert [(one.sent.when, one.got.when, one.got.size) for one in arrows(traces)] == [
        (1.0, 5.0, 20),
        (0.0, 6.0, 10),
        (2.0, 7.0, 30),
    ]


def test_what_programs_are_called_cannot_become_a_part_of_the_page():
    wait = Waited(0.0, 1.0, "recv", "<script>.py:1 in <b>", (1,), False)

    html = page({0: Trace(0.0, 1.0, [], [], [wait], 3)}, "<title>")

    assert "<script>.py" not in html and "&lt;script&gt;.py:1" in html
    assert "3 later events are not shown" in html


def test_a_page_without_ranks_is_a_page():
    assert page({}, os.fspath("nothing")).startswith("<!DOCTYPE html>")
