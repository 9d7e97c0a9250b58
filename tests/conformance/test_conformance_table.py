"""The tables in docs/conformance.md name only what exists, and say no more than they should."""

import pytest
import test_cpython_executors
import test_cpython_main
import test_cpython_multiprocessing
import test_cpython_pool
from conformance_table import MULTIPROCESSING, POOLS, TableError, idle_rows, read_table, row_for, rows_of
from cpython_harness import ALL_METHODS, METHODS, PYTHON, STDLIB, WHOSE, OnTrial, id_of_test, names_of_tests

SUITES = [test_cpython_pool, test_cpython_executors, test_cpython_main]

TABLE = """
Words, then a table, then words.

| test | applies to | reason |
|---|---|---|
| `Some.test_one` | all | it reads a private attribute |
| `Some.test_two` | RiverPool, fork spawn | the `a \\| b` of it |
| `Some.test_three` | all, sometimes | it is a race |
"""


def variants():
    classes = [cls for suite in SUITES for cls in suite.CLASSES if issubclass(cls, OnTrial)]
    return [(id_of_test(cls, name), cls.words) for cls in classes for name in names_of_tests(cls)]


def test_every_row_names_a_test_that_this_python_has():
    missing = [suite.reason for suite in SUITES if suite.reason]
    if missing:
        pytest.skip(f"cannot be told here: {'; '.join(missing)}")
    if WHOSE == STDLIB or METHODS != ALL_METHODS:
        pytest.skip("the table is about River with all start methods")

    idle = idle_rows(rows_of(POOLS), variants(), PYTHON)

    assert not idle, f"no test of Python {PYTHON} fits: {', '.join(map(str, idle))}"


@pytest.mark.skipif(bool(test_cpython_multiprocessing.reason), reason=test_cpython_multiprocessing.reason)
def test_every_row_of_multiprocessing_names_a_test_that_this_python_has():
    there = [(test.id, test_cpython_multiprocessing.words(test)) for test in test_cpython_multiprocessing.TESTS]

    idle = idle_rows(rows_of(MULTIPROCESSING), there, PYTHON)

    assert not idle, f"no test of Python {PYTHON} fits: {', '.join(map(str, idle))}"


def test_a_section_that_is_not_there_once_is_refused():
    with pytest.raises(TableError, match="one section 'Nobody', not 0"):
        rows_of("Nobody")


def test_a_row_holds_for_what_it_names_and_for_nothing_else():
    rows = read_table(TABLE)

    assert [row.test for row in rows] == ["Some.test_one", "Some.test_two", "Some.test_three"]
    assert [row.is_strict for row in rows] == [True, True, False]
    assert row_for(rows, "Some.test_one", {"RiverExecutor", "spawn"}) == rows[0]
    assert row_for(rows, "Some.test_two", {"RiverPool", "spawn", "3.13"}) == rows[1]
    assert row_for(rows, "Some.test_two", {"RiverPool", "default"}) is None
    assert row_for(rows, "Some.test_two", {"RiverExecutor", "fork"}) is None
    assert row_for(rows, "Some.test_three", {"RiverPool", "fork"}) == rows[2]
    assert row_for(rows, "Some.test_four", {"RiverPool", "fork"}) is None


@pytest.mark.parametrize("python, idle", [("3.10", []), ("3.13", ["Some.test_new"])])
def test_a_row_for_a_test_that_does_not_exist_is_found_in_the_python_it_is_for(python, idle):
    rows = read_table("| test | applies to | reason |\n|---|---|---|\n| `Some.test_new` | 3.13 fork | - |")

    there = [("Some.test_old", {"fork", python}), ("Some.test_new", {"spawn", python})]

    found = idle_rows(rows, there, python)

    assert [row.test for row in found] == idle


@pytest.mark.parametrize("text, complaint", [
    ("no table at all", "not 0"),
    (TABLE + TABLE, "not 2"),
    (TABLE + "| `Some.test_four` | RiverPool | |", "a row needs"),
    (TABLE + "| `Some.test_four` | Fork | why |", r"\['Fork'\] is nothing that a row can apply to"),
])
def test_a_table_that_cannot_be_meant_is_refused(text, complaint):
    with pytest.raises(TableError, match=complaint):
        read_table(text)
