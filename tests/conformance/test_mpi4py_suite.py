"""mpi4py's own tests on River's ranks.  Those which River does not pass are listed in docs/conformance.md.

Here they run at one rank, but for the modules of which the document says that River has nothing; at two ranks they run
by the command that stands there.
"""

import re
import sys
import textwrap
from contextlib import ExitStack
from fnmatch import fnmatchcase

import mpi4py_suite
import pytest
from conformance_table import DOCUMENT, MPI4PY, row_for, rows_of
from mpi4py_suite import FAILED, FORGIVEN, HUNG, PASSED, SKIPPED

ALL_OF_A_MODULE = re.compile(r"(test_\w+)\.\*")
WORDS = {"1-rank", "{}.{}".format(*sys.version_info)}
NUMBERS = re.compile(r"^\| `(test_\w+)` \| (\d+) of \d+ \|", re.MULTILINE)


@pytest.fixture(scope="module")
def folder():
    with ExitStack() as stack:
        try:
            found = stack.enter_context(mpi4py_suite.suite())
        except mpi4py_suite.Absent as absent:
            pytest.skip(str(absent))
        yield found


@pytest.mark.timeout(600)
def test_river_passes_what_mpi4py_asks_of_one_rank(folder):
    rows = [row for row in rows_of(MPI4PY) if row.applies_to(WORDS)]
    left_out = {found[1] for row in rows if (found := ALL_OF_A_MODULE.fullmatch(row.test))}
    modules = [f"{module}." for module in mpi4py_suite.modules_in(folder) if module not in left_out]

    outcomes = {name: (outcome, text) for name, outcome, text in mpi4py_suite.results(1, folder, modules)}

    listed = {name: named_by(rows, name) for name in outcomes}
    wrong = [f"{name} {outcome}\n{text}" for name, (outcome, text) in outcomes.items()
             if outcome in (FORGIVEN, FAILED, HUNG) and not listed[name]]
    assert not wrong, f"{len(wrong)} tests do not pass and are not listed\n" + "\n".join(wrong)
    better = [name for name, (outcome, _) in outcomes.items()
              if outcome == PASSED and listed[name] and listed[name].is_strict]
    assert not better, "these tests pass, and are listed as not passing"
    idle = [row.test for row in rows if not any(fnmatchcase(name, row.test) for name in outcomes)
            and row.test.partition(".")[0] not in left_out & set(mpi4py_suite.modules_in(folder))]
    assert not idle, "these rows of the document name no test"
    passed = [name.partition(".")[0] for name, (outcome, _) in outcomes.items() if outcome == PASSED]
    said = {module: int(count) for module, count in NUMBERS.findall(DOCUMENT.read_text("utf-8"))}
    fewer = {module: (passed.count(module), count) for module, count in said.items()
             if module not in left_out and passed.count(module) < count}
    assert not fewer, "fewer tests of these modules pass than the document says"


def named_by(rows, name):
    """The row that says why a test does not pass, or None."""
    matching = [row for row in rows if fnmatchcase(name, row.test)]
    return row_for(matching, matching[0].test, WORDS) if matching else None


SMALL = """
import os, threading, unittest
from mpi4py import MPI

rank = MPI.COMM_WORLD.rank

class Test(unittest.TestCase):
    def test_1_right(self):
        self.assertEqual(MPI.COMM_WORLD.allreduce(1), 2)
    def test_2_wrong_at_one_rank(self):
        self.assertEqual(rank, 0)
    def test_3_hangs_at_one_rank(self):
        if rank == 1:
            threading.Event().wait()
    def test_4_what_is_not_there_is_forgiven(self):
        with self.assertRaises(NotImplementedError):
            MPI.Win.Create(None)
    def test_5_skips_itself(self):
        self.skipTest("there is no need")
    def test_6_ends_its_process(self):
        if rank == 1:
            os._exit(3)
        MPI.COMM_WORLD.barrier()
    def test_7_right_again(self):
        self.assertEqual(MPI.COMM_WORLD.bcast(rank), 0)
"""


def test_the_worst_rank_counts_and_what_fails_or_hangs_costs_nothing_but_itself(tmp_path):
    (tmp_path / "test_small.py").write_text(textwrap.dedent(SMALL))
    (tmp_path / "test_broken.py").write_text("raise RuntimeError('broken')")

    found = list(mpi4py_suite.results(2, tmp_path, seconds=3))

    assert [(name.rpartition(".")[2], outcome) for name, outcome, _ in found] == [
        ("test_broken", FAILED),
        ("test_1_right", PASSED),
        ("test_2_wrong_at_one_rank", FAILED),
        ("test_3_hangs_at_one_rank", HUNG),
        ("test_4_what_is_not_there_is_forgiven", FORGIVEN),
        ("test_5_skips_itself", SKIPPED),
        ("test_6_ends_its_process", FAILED),
        ("test_7_right_again", PASSED),
    ]
    texts = {name.rpartition(".")[2]: text for name, _, text in found}
    assert "RuntimeError: broken" in texts["test_broken"]
    assert "AssertionError: 1 != 0" in texts["test_2_wrong_at_one_rank"]
    assert "in test_3_hangs_at_one_rank" in texts["test_3_hangs_at_one_rank"]
    assert "exit code 3" in texts["test_6_ends_its_process"]


def test_what_is_forgiven_is_not_counted_as_passed():
    outcomes = {1: {"test_a.T.x": PASSED, "test_a.T.y": FORGIVEN, "test_b.T.z": SKIPPED, "test_b.T.u": HUNG}}

    assert mpi4py_suite.table(outcomes) == [
        "| module | at 1 rank |",
        "|---|---|",
        "| `test_a` | 1 of 2 |",
        "| `test_b` | 0 of 1 |",
        "| all | 1 of 3 |",
    ]
