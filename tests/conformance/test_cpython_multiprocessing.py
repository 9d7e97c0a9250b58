"""CPython's tests of multiprocessing, all of them, run on river.multiprocessing: test._test_multiprocessing.

They run in a process of their own, in which `multiprocessing` is River: see cpython_trials.py and cpython_trial.py.
Each is a test here; those which River does not pass are listed in docs/conformance.md, and must fail.
"""

import re
from pathlib import Path

import cpython_trials
import pytest
from conformance_table import MULTIPROCESSING, row_for, rows_of
from cpython_harness import PYTHON, STDLIB, WHOSE, cpython_modules
from cpython_trials import FAILED, PASSED, SECONDS, SKIPPED

modules, reason = cpython_modules(cpython_trials.SUITE)
TESTS = cpython_trials.all_tests(modules[0]) if modules else []
ROWS = [] if WHOSE == STDLIB else rows_of(MULTIPROCESSING)

README = Path(__file__).parents[2] / "README.md"

outcomes = {}  # of the tests that have run


@pytest.fixture(scope="module")
def results(request):
    """The tests that this session has picked begin at once, and several of them run side by side."""
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    tests = [item.callspec.params["test"] for item in here]
    with cpython_trials.several(tests, hopeless=[test for test in tests if row_of(test)]) as results:
        yield results


def words(test):
    return {test.kind, PYTHON}


def row_of(test):
    return row_for(ROWS, test.id, words(test))


def as_item(test):
    row = row_of(test)
    marks = [pytest.mark.xfail(reason=row.reason, strict=row.is_strict)] if row else []
    return pytest.param(test, id=test.name, marks=marks)


@pytest.mark.skipif(not TESTS, reason=reason)
@pytest.mark.timeout(SECONDS * 3)  # those that hang are given up sooner
@pytest.mark.parametrize("test", [as_item(test) for test in TESTS])
def test_river_passes_what_cpython_asks_of_multiprocessing(results, test):
    outcome, text = results[test].result()

    # One that passes sometimes does not count.
    outcomes[test] = FAILED if row_of(test) and outcome == PASSED else outcome
    if outcome == SKIPPED:
        pytest.skip(text)
    assert outcome == PASSED, text


def test_the_readme_says_how_many_pass():
    said = re.search(r"(\d+ of \d+) tests of CPython (3\.\d+)", " ".join(README.read_text("utf-8").split()))
    if len(outcomes) < len(TESTS) or not TESTS:
        pytest.skip(f"{len(outcomes)} of {len(TESTS)} tests have run, so their number cannot be told")
    if WHOSE == STDLIB or said[2] != PYTHON:
        pytest.skip(f"the README has the number of River and CPython {said[2]}")

    assert said[1] == cpython_trials.number(outcomes.values())
