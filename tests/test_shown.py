"""What VMs on other machines print, as it is shown here: a stream that takes nothing, or not all, does no harm."""

import contextlib
import io
import os
import re
import threading

from river import shown
from river.shown import Screen

LINE = b"x" * 99 + b"\n"


def test_lines_are_shown_in_order_each_with_the_name_of_its_vm():
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.closing(Screen()) as screen:
        for number in range(100):
            screen.lines(f"node{number % 2}/1", 1, b"%d\n" % number, 0)

    assert out.getvalue().splitlines() == [f"[node{number % 2}/1] {number}" for number in range(100)]


def test_while_nobody_reads_nothing_waits_for_it_and_what_is_left_out_is_counted():
    reader, writer = os.pipe()
    screen, stream = Screen(), os.fdopen(writer, "w")

    def end():
        screen.close()
        stream.close()

    with os.fdopen(reader, "rb") as pipe, contextlib.redirect_stdout(stream):
        for _ in range(5 * shown.MOST // len(LINE)):
            screen.lines("node1/1", 1, LINE, 0)  # returns
        waiting = screen._waiting
        ending = threading.Thread(target=end)
        ending.start()
        text = pipe.read().decode()
        ending.join()

    assert waiting <= shown.MOST
    left_out = sum(map(int, re.findall(r"^\[node1/1\] \.\.\. (\d+) lines were left out", text, flags=re.MULTILINE)))
    assert left_out > 3 * shown.MOST // len(LINE)
    assert text.count("x" * 99) + left_out == 5 * shown.MOST // len(LINE)


def test_what_a_stream_cannot_show_is_shown_as_escapes():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(stream), contextlib.closing(Screen()) as screen:
        screen.lines("node1/1", 1, "Größe\n".encode(), 0)

    assert stream.buffer.getvalue() == b"[node1/1] Gr\\xf6\\xdfe\n"


def test_a_stream_that_is_closed_is_no_error(caplog):
    stream = io.StringIO()
    stream.close()
    with contextlib.redirect_stdout(stream), contextlib.closing(Screen()) as screen:
        screen.lines("node1/1", 1, b"hello\n", 0)

    assert not caplog.records
