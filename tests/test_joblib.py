"""joblib on River: what `n_jobs=` promises holds on VMs, whatever becomes of them, and nothing waits for ever.

The hosts are those of the testbed: they have sshd and Python, and neither joblib nor River.
"""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import faraway
import pytest
import tasks
import tools
from tasks import Gate, lines, note, wait_until
from tools import functions_by_value  # noqa: F401

from river import BrokenProcessPool, RiverExecutor, RiverPool, TransferError
from river.hosts import Host

joblib = pytest.importorskip("joblib", reason='joblib is not installed; pip install "riverpool[joblib]" does it')

from joblib import Parallel, delayed, parallel_backend, parallel_config  # noqa: E402

from river.joblib import RiverBackend  # noqa: E402

pytest_plugins = ["testbed.fixture"]
SOON = 1.0  # seconds, as a timeout for what never ends
SQUARES = [x * x for x in range(50)]


@pytest.fixture
def pool():
    with RiverPool(4, mp_context="spawn") as pool:
        yield pool


@pytest.fixture
def river(pool):
    """All that uses joblib runs on the pool."""
    with parallel_config(RiverBackend(pool), n_jobs=-1):
        yield pool


def squares(parallel=None):
    return list((parallel or Parallel())(delayed(tasks.square)(x) for x in range(50)))


# -- how it is said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [parallel_config, parallel_backend])
def test_the_name_is_enough(config):
    with config("river", n_jobs=2):
        pids = Parallel()(delayed(tasks.pid)() for _ in range(10))
        assert squares() == SQUARES

    assert os.getpid() not in pids and len(set(pids)) <= 2


def test_one_call_alone_may_name_it():
    assert squares(Parallel(n_jobs=2, backend="river")) == SQUARES


def test_its_own_pool_is_kept_for_the_next_call_grows_with_n_jobs_and_takes_the_options_of_a_pool():
    with parallel_config("river", env={"COLOUR": "blue"}):
        first = Parallel(n_jobs=2)(delayed(tasks.pid)() for _ in range(20))
        again = Parallel(n_jobs=2)(delayed(tasks.pid)() for _ in range(20))
        assert len({*first, *again}) <= 2
        colours = Parallel(n_jobs=3)(delayed(tasks.environment)("COLOUR") for _ in range(5))

    assert colours == 5 * ["blue"]


def test_a_pool_that_is_given_is_used_and_stays_open(pool):
    with parallel_config("river", pool=pool, n_jobs=-1):
        pids = Parallel()(delayed(tasks.pid)() for _ in range(20))

    assert {*pids} <= {*pool.statistics().pids.values()}
    assert pool.map(tasks.square, range(50)) == SQUARES


def test_wrong_words_are_refused(pool):
    with pytest.raises(TypeError, match="pool must be a RiverPool or a RiverExecutor, not 4"):
        RiverBackend(4)
    with pytest.raises(ValueError, match="hosts: said when the pool is made"):
        RiverBackend(pool, hosts="node1")
    with pytest.raises(ValueError, match="n_jobs=-1 means all VMs"):
        RiverBackend(pool).effective_n_jobs(0)


# -- n_jobs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_jobs", "effective"), [(-1, 4), (-2, 3), (-9, 1), (None, 1), (1, 1), (3, 3), (9, 4)])
def test_n_jobs_counts_the_vms_of_the_pool(pool, n_jobs, effective):
    assert RiverBackend(pool).effective_n_jobs(n_jobs) == effective


def opened_at(gate, count):
    """A thread that opens the gate when so many have come."""
    thread = threading.Thread(target=lambda: gate.wait_for(count) and gate.open())
    thread.start()
    return thread


def test_with_all_vms_all_of_them_work(river, tmp_path):
    gate = Gate(tmp_path / "gate")
    opener = opened_at(gate, 4)
    assert Parallel()(delayed(gate)(x) for x in range(4)) == list(range(4))
    opener.join(60)


@pytest.mark.parametrize("pre_dispatch", ["all", "2*n_jobs"])
def test_never_more_than_n_jobs_run_at_once_however_many_vms_there_are(pool, tmp_path, pre_dispatch):
    gate, log = Gate(tmp_path / "gate"), tmp_path / "log"
    opener = opened_at(gate, 2)
    with parallel_config("river", pool=tools.warm(pool), n_jobs=2):
        Parallel(batch_size=1, pre_dispatch=pre_dispatch)(delayed(come_and_go)(gate, log) for _ in range(60))
    opener.join(60)

    running, most = 0, 0
    for line in lines(log):
        running += int(line)
        most = max(most, running)
    assert (running, most) == (0, 2)


def come_and_go(gate, log):
    note(log, "+1")
    gate()
    time.sleep(0.005)
    note(log, "-1")


def test_a_pool_of_one_vm_is_used_all_the_same():
    """joblib takes "one job" for "in this process"; who gives a pool wants its VM."""
    with RiverPool(1, mp_context="spawn") as pool, parallel_config("river", pool=pool, n_jobs=-1):
        assert os.getpid() not in Parallel()(delayed(tasks.pid)() for _ in range(4))


# -- what comes back -------------------------------------------------------------------------------------------------


def test_lambdas_closures_and_numerous_quick_calls_come_back_in_order(river):
    offset = 7
    assert Parallel()(delayed(lambda x: x + offset)(x) for x in range(5000)) == list(range(7, 5007))


@pytest.mark.parametrize("kind", ["generator", "generator_unordered"])
def test_results_may_be_read_as_they_come(river, kind):
    assert sorted(squares(Parallel(return_as=kind))) == SQUARES


@pytest.mark.filterwarnings("ignore:.*tasks which were still being processed")
@pytest.mark.filterwarnings("ignore:.*tasks have been successfully executed")
def test_who_leaves_the_results_stops_what_runs(river, tmp_path):
    log = tmp_path / "log"
    results = Parallel(return_as="generator", pre_dispatch="all", batch_size=1)(
        delayed(note_and_stick)(log, x) for x in range(4)
    )
    assert next(results) == 0
    stuck = wait_until(lambda: len(lines(log)) == 3 and lines(log))
    results.close()

    wait_until(lambda: not {*map(int, stuck)} & {p.pid for p in tools.others()}, what="the end of what was stuck")
    assert squares() == SQUARES


def note_and_stick(log, number):
    if number:
        tasks.note_and_wait(log)
    return number


@pytest.mark.parametrize(("max_nbytes", "times"), [("1M", 1), (None, 20)])
def test_a_large_array_goes_to_a_vm_once_for_all_calls_and_is_read_only_there(max_nbytes, times):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1 << 18)
    with RiverPool(1, mp_context="spawn") as pool, parallel_config("river", pool=pool, n_jobs=-1):
        parallel = Parallel(max_nbytes=max_nbytes)
        answers = parallel(delayed(look_at)(array if x % 2 else x, other=array, number=x) for x in range(20))
        array[7] = 0  # the next call gets it as it is then
        (again,) = parallel([delayed(look_at)(array, other=array, number=7)])

    assert [answer[:2] for answer in answers] == [(x, times > 1) for x in range(20)]
    arrays = len({number for *_, number in answers})
    assert arrays == 1 if times == 1 else 1 < arrays <= times  # calls that travel together have one
    assert again[0] == 0


def look_at(_, other, number):
    """The item, whether it could be changed, and which array of its kind this is here."""
    seen = sys.__dict__.setdefault("arrays", [])  # kept, so that each has an address of its own
    seen.append(other)
    return int(other[number]), other.flags.writeable, other.__array_interface__["data"][0]


# -- failures --------------------------------------------------------------------------------------------------------


def test_a_function_that_fails_raises_its_own_exception_and_the_rest_is_stopped(river, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(LookupError, match="number 3") as caught:
        Parallel(batch_size=1)(delayed(stick_or_fail)(log, x) for x in range(100))

    assert "stick_or_fail" in str(caught.value.__cause__)  # where it happened
    stuck = {*map(int, lines(log))}
    assert len(stuck) == 3
    wait_until(lambda: not stuck & {p.pid for p in tools.others()}, what="the end of what was stuck")
    assert squares() == SQUARES


def stick_or_fail(log, number):
    if number < 3:
        tasks.note_and_wait(log)
    wait_until(lambda: len(lines(log)) == 3)
    raise LookupError(f"number {number}")


def test_what_is_waiting_for_its_turn_never_begins_after_a_failure(pool, tmp_path):
    log = tmp_path / "log"
    with parallel_config("river", pool=pool, n_jobs=2), pytest.raises(ValueError):
        Parallel(batch_size=1, pre_dispatch="all")(delayed(note_and_raise)(log) for _ in range(50))
    assert pool.map(tasks.square, range(50)) == SQUARES

    assert len(lines(log)) < 50


def note_and_raise(log):
    note(log, "x")
    raise ValueError(log)


def test_joblibs_timeout_really_stops_what_takes_too_long(river, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=SOON)(delayed(tasks.note_and_wait)(log) for _ in range(2))

    stuck = {*map(int, lines(log))}
    wait_until(lambda: not stuck & {p.pid for p in tools.others()}, what="the end of what was stuck")
    assert squares() == SQUARES


def test_a_vm_that_dies_costs_nothing(river, tmp_path):
    assert Parallel()(delayed(dies_once_of_three)(tmp_path / "log", x) for x in range(8)) == list(range(8))


def dies_once_of_three(log, value):
    if value == 3:
        note(log, "x")
        if len(lines(log)) == 1:
            tasks.kill_itself()
    return value


def test_a_pool_that_was_closed_or_is_broken_is_an_error_and_no_wait():
    pool = RiverPool(2, mp_context="spawn")
    pool.terminate()
    with parallel_config("river", pool=pool, n_jobs=-1), pytest.raises(RuntimeError, match="after shutdown"):
        squares()
    with RiverExecutor(2, mp_context="spawn", initializer=tasks.leave, initargs=(3,)) as broken:
        with parallel_config("river", pool=broken, n_jobs=2), pytest.raises(BrokenProcessPool):
            squares()


def test_its_own_pool_is_made_anew_when_it_broke(tmp_path):
    log = tmp_path / "log"
    with parallel_config("river", n_jobs=2, initializer=leave_unless_there, initargs=(log,), mp_context="spawn"):
        with pytest.raises(BrokenProcessPool):
            squares()
        log.touch()
        assert squares() == SQUARES


def leave_unless_there(path):
    if not path.exists():
        os._exit(3)


def test_ctrl_c_stops_all(tmp_path):
    log = tmp_path / "log"
    text = f"""
import joblib, river.joblib, tasks
try:
    with joblib.parallel_config("river", n_jobs=2):
        joblib.Parallel()(joblib.delayed(tasks.note_and_wait)({str(log)!r}) for _ in range(10))
except KeyboardInterrupt:
    print("interrupted")
"""
    program = subprocess.Popen(
        [sys.executable, "-W", "error", tools.script(tmp_path, text)],
        env=tools.surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    wait_until(lambda: len(lines(log)) == 2, what="two tasks")
    program.send_signal(signal.SIGINT)

    assert program.communicate(timeout=60) == ("interrupted\n", "")
    assert program.returncode == 0


# -- joblib inside of joblib -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [None, 2, -1])
def test_calls_within_calls_run_in_their_own_vm_one_after_another(river, n_jobs):
    """With more outer calls than VMs, each of which waits for inner ones."""
    outer = Parallel(batch_size=1)(delayed(inner)(n_jobs) for _ in range(12))

    assert all(pids == {pid} and jobs == 1 and deep == {(pid, 1)} for pid, pids, jobs, deep in outer)
    assert os.getpid() not in {pid for pid, *_ in outer}


def inner(n_jobs):
    pids = set(Parallel(n_jobs=n_jobs)(delayed(os.getpid)() for _ in range(4)))
    deep = set(Parallel(n_jobs=n_jobs)(delayed(innermost)() for _ in range(4)))
    return os.getpid(), pids, joblib.effective_n_jobs(-1), deep


def innermost():
    return os.getpid(), len(set(Parallel(n_jobs=-1)(delayed(threading.get_ident)() for _ in range(4))))


def test_what_needs_shared_memory_runs_here(river):
    seen = []
    Parallel(require="sharedmem")(delayed(seen.append)(x) for x in range(5))

    assert sorted(seen) == list(range(5))


# -- machines --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hosts(testbed):
    testbed.nodes(2)
    slow = {"node2": "sleep 2"}  # before Python is started there
    return [Host(name, config=str(testbed.config), n=1, prelude=slow.get(name)) for name in ("node1", "node2")]


def test_hosts_that_have_nothing_but_python_take_part_in_the_first_call_already(hosts):
    with parallel_config("river", hosts=hosts, n_jobs=-1):
        assert joblib.effective_n_jobs(-1) == 2
        names = Parallel(batch_size=1)(delayed(faraway.where)() for _ in range(200))

    assert {*names} == {"node1", "node2"} != {socket.gethostname()}


def test_a_package_that_is_missing_there_is_an_error_that_names_host_and_package(hosts):
    numpy = pytest.importorskip("numpy")
    with parallel_config("river", hosts=hosts[0], n_jobs=-1), pytest.raises(TransferError, match="node1") as caught:
        Parallel()(delayed(numpy.sum)([x]) for x in range(3))

    assert "No module named 'numpy'" in str(caught.value)
