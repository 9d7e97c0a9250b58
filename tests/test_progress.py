"""Progress: what a user may give for `progress=`, and what the plain bar says when."""

import builtins
import functools
import io
import itertools
import sys

import pytest
import tqdm

from river.progress import Bar, make


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


# ------------------------------------------------------------------------------------------------ the bar


@pytest.mark.parametrize(
    ("total", "done", "seconds", "text"),
    [
        (1000, 620, 12, " 62% |##################............| 620/1000 [0:12, 51.7/s, 0:07 left]"),
        (1000, 0, 0, "  0% |..............................| 0/1000 [0:00, 0.0/s]"),
        (1000, 0, 30, "  0% |..............................| 0/1000 [0:30, 0.0/s]"),
        (1000, 1000, 20, "100% |##############################| 1000/1000 [0:20, 50.0/s]"),
        (3, 1, 3700, " 33% |##########....................| 1/3 [1:01:40, 0.0/s, 2:03:20 left]"),
        (10, 5, 0, " 50% |###############...............| 5/10 [0:00, 0.0/s]"),
        (10, 12, 4, "100% |##############################| 12/10 [0:04, 3.0/s]"),
        (None, 300, 60, "300 items [1:00, 5.0/s]"),
        (0, 0, 1, "0 items [0:01, 0.0/s]"),
    ],
)
def test_the_bar_says_how_far_it_is_how_fast_and_how_long_it_takes(clock, total, done, seconds, text):
    bar = Bar(total, io.StringIO(), clock)
    bar.update(done)
    clock.now += seconds

    assert bar.text() == text


def test_on_a_terminal_the_bar_is_drawn_over_itself_and_ends_with_its_line(clock):
    stream = Terminal()
    bar = Bar(4, stream, clock)
    for _ in range(4):
        clock.now += 1
        bar.update(1)
    bar.close()
    drawn = stream.getvalue().split("\r\x1b[K")

    assert [text[:4] for text in drawn] == ["", " 25%", " 50%", " 75%", "100%", "100%"]
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")


@pytest.mark.parametrize(("stream", "period"), [(Terminal, 0.1), (io.StringIO, 10)], ids=["terminal", "file"])
def test_the_bar_is_shown_now_and_then_however_often_it_is_told(clock, stream, period):
    stream = stream()
    bar = Bar(None, stream, clock)
    lengths = []
    for part in (0, 0.5, 0.49, 0.02, 0.5, 0.49, 0.02):
        clock.now += part * period
        bar.update(1)
        lengths.append(len(stream.getvalue()))

    grew = [after > before for before, after in itertools.pairwise([0, *lengths])]
    assert grew == [False, False, False, True, False, False, True]


def test_in_a_file_each_report_is_a_line_and_the_last_one_comes_with_the_end(clock):
    stream = io.StringIO()
    bar = Bar(2, stream, clock)
    bar.update(1)
    clock.now += 10
    bar.update(1)
    bar.close()
    bar.close()

    assert stream.getvalue().splitlines() == [bar.text(), bar.text()]


def test_the_bar_is_on_stderr(clock, capsys):
    Bar(1, clock=clock).close()
    said = capsys.readouterr()

    assert said.out == "" and said.err.startswith("  0%")


# ------------------------------------------------------------------------------------ what a user may give


@pytest.mark.parametrize("nothing", [None, False])
def test_no_progress_is_none(nothing):
    assert make(nothing, 10) is None


def test_true_is_tqdm_with_the_total():
    bar = make(True, 10)
    bar.update(3)
    bar.close()

    assert isinstance(bar, tqdm.tqdm) and (bar.total, bar.n) == (10, 3)


def test_true_is_the_plain_bar_where_tqdm_is_not_installed(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    find = builtins.__import__

    def without_tqdm(name, *rest):
        if name.partition(".")[0] == "tqdm":
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_tqdm)

    assert isinstance(make(True, 10), Bar)


class Tqdmlike:
    """What River may rely on in a bar."""

    def __init__(self, total=None):
        self.total, self.n, self.is_closed = total, 0, False

    def update(self, n):
        self.n += n

    def close(self):
        self.is_closed = True


def test_a_class_is_called_with_the_total_and_its_bar_is_closed_at_the_end():
    bar = make(Tqdmlike, 7)
    bar.update(2)
    bar.update(3)
    bar.close()

    assert (bar.total, bar.n, bar.is_closed) == (7, 5, True)


def test_a_bar_of_the_users_is_updated_and_left_open():
    mine = Tqdmlike(100)
    bar = make(mine, 7)
    bar.update(2)
    bar.update(3)
    bar.close()

    assert (mine.total, mine.n, mine.is_closed) == (100, 5, False)


def test_a_tqdm_of_the_users_can_count_several_maps():
    with tqdm.tqdm(total=4, file=io.StringIO()) as mine:
        for _ in range(2):
            bar = make(mine, 2)
            bar.update(2)
            bar.close()

        assert mine.n == 4 and not mine.disable


class Calls(list):
    """Notes the calls that it gets, as several kinds of callable."""

    def note(self, done, total):
        self.append((done, total))

    def with_name(self, name, done, total):
        self.append((done, total))

    def callable(self):
        class Noted:
            __call__ = staticmethod(self.note)

        return Noted()


CALLABLES = {
    "function": lambda calls: lambda done, total: calls.note(done, total),
    "method": lambda calls: calls.note,
    "any arguments": lambda calls: lambda *both: calls.note(*both),
    "partial": lambda calls: functools.partial(calls.with_name, "me"),
    "object": lambda calls: calls.callable(),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_a_function_is_called_with_items_done_and_total(kind):
    calls = Calls()
    bar = make(CALLABLES[kind](calls), 7)
    bar.update(2)
    bar.update(4)
    bar.close()

    assert calls == [(2, 7), (6, 7)]


BAD = [1, "yes", 2.5, object(), [print], {}, set(), lambda: None, lambda done: None]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad).partition(" at 0x")[0])
def test_anything_else_is_a_type_error_that_names_it(bad):
    with pytest.raises(TypeError, match="progress must be .*, not ") as caught:
        make(bad, 10)
    assert repr(bad) in str(caught.value)
