"""mpi4py's own tests on River's ranks.  Those which River does not pass are listed in docs/conformance.md.

Here they run at one rank, but for modules of which the document says that River has nothing, and some that take long;
those, and all at two ranks, run by the command that stands there.
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

WORDS = {"1-rank", "{}.{}".format(*sys.version_info)}
ROWS = [row for row in rows_of(MPI4PY) if row.applies_to(WORDS)]
LEFT_OUT = {row.test.removesuffix(".*") for row in ROWS if re.fullmatch(r"test_\w+\.\*", row.test)}
LONG = {"test_cco_ngh_buf", "test_cco_pr_ngh_buf", "test_pack", "test_util_pool"}
# By module: how many tests pass at one rank, as the document says.
SAID = {
    module: int(count)
    for module, count in re.findall(r"^\| `(test_\w+)` \| (\d+) of \d+ \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
}


@pytest.fixture(scope="module")
def ranks():
    with ExitStack() as stack:
        try:
            ranks = mpi4py_suite.Ranks(1, stack.enter_context(mpi4py_suite.suite()))
        except mpi4py_suite.Absent as absent:
            pytest.skip(str(absent))
        yield ranks
        left = ranks.end()
    assert not left, "the tests left behind\n" + "\n".join(left)


@pytest.mark.timeout(400)  # the first one waits for the suite
@pytest.mark.parametrize("module", sorted(SAID.keys() - LEFT_OUT - LONG))
def test_river_passes_what_mpi4py_asks_of_one_rank(ranks, module):
    outcomes = {name: ranks.run(name) for name in ranks.list(module)}

    listed = {name: named_by(name) for name in outcomes}
    wrong = [f"{name} {outcome}\n{text}" for name, (outcome, text) in outcomes.items()
             if outcome in (FORGIVEN, FAILED, HUNG) and not listed[name]]
    assert not wrong, f"{len(wrong)} tests do not pass and are not listed\n" + "\n".join(wrong)
    passed = [name for name, (outcome, _) in outcomes.items() if outcome == PASSED]
    assert not [name for name in passed if listed[name] and listed[name].is_strict], "these are listed as not passing"
    skipped = [name for name, (outcome, _) in outcomes.items() if outcome == SKIPPED]  # a package is not here, say
    assert len(passed) >= SAID[module] - len(skipped)
    idle = [row.test for row in ROWS if row.test.startswith(f"{module}.") and row not in listed.values()]
    assert not idle, "these rows of the document name no test"


def test_the_document_has_the_number_of_each_module(ranks):
    assert set(mpi4py_suite.modules_in(ranks.folder)) == set(SAID)


def named_by(name):
    """The row that says why a test does not pass, or None."""
    matching = [row for row in ROWS if fnmatchcase(name, row.test)]
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
