"""The process that CPython's tests of multiprocessing run in: a test that hangs or fails costs nothing but itself."""

import subprocess

import cpython_trials
import psutil
import pytest
from cpython_harness import cpython_modules
from cpython_trials import FAILED, HUNG, PASSED, SKIPPED, Trial

_, reason = cpython_modules(cpython_trials.SUITE)
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)

# Tests of the suite that say what we need: one waits for a second in a child, one takes no time.
SLOW, QUICK = "TestTimeouts.test_timeout", "WithThreadsTestLock.test_lock"


@pytest.fixture
def trial(monkeypatch):
    monkeypatch.setattr(cpython_trials, "ON_TRIAL", "multiprocessing")
    monkeypatch.setenv("RIVER_CONFORMANCE_OF", "stdlib")
    trial = Trial()
    yield trial
    assert trial.end() == []


def test_a_test_that_does_not_answer_hangs_and_shows_where_and_the_next_one_runs(trial):
    assert trial.run(QUICK)[0] == PASSED
    mark = trial.mark

    outcome, text = trial.run(SLOW, seconds=0.5)

    assert outcome == HUNG
    assert "in test_timeout" in text
    assert cpython_trials.marked(mark) == []
    assert trial.run(QUICK)[0] == PASSED


def test_the_end_of_its_process_is_the_failure_of_a_test(trial):
    trial.start()
    trial.process.kill()

    outcome, text = trial.run(QUICK)

    assert (outcome, "has died" in text) == (FAILED, True)
    assert trial.run(QUICK)[0] == PASSED


def test_what_ends_by_itself_while_it_is_to_be_killed_does_not_stop_the_tests(trial, monkeypatch):
    with subprocess.Popen(["true"]) as ended:
        gone = psutil.Process(ended.pid)
    found = iter([[gone]])
    monkeypatch.setattr(cpython_trials, "marked", lambda mark: next(found, []))
    trial.start()
    trial.process.kill()

    assert trial.run(QUICK)[0] == FAILED
    assert trial.run(QUICK)[0] == PASSED


def test_only_what_did_not_skip_itself_is_counted():
    assert cpython_trials.number([PASSED, PASSED, FAILED, HUNG, SKIPPED]) == "2 of 4"
