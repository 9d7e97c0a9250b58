"""How many processors: what is there, less what affinity and cgroups withhold, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from river._core import cpus

HALF = {"cpu.max": "50000 100000\n"}


def tree(root, files):
    """Write {directory: {file: text}} below `root`."""
    for directory, texts in files.items():
        (root / directory).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (root / directory / name).write_text(text)


def v1(quota, period=100000):
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}


NO_LIMIT = {"cpu.max": "max 100000\n"}
V1 = "12:cpuset:/job\n5:cpu,cpuacct:/job/7\n1:name=systemd:/job/7\n"

TREES = {
    "v2, its own group": ("0::/job/7\n", {"job/7": {"cpu.max": "150000 100000\n"}}, 1.5),
    "v2, no limit": ("0::/job/7\n", {"job/7": NO_LIMIT, "job": NO_LIMIT}, None),
    "v2, the group above": ("0::/job/7\n", {"job/7": NO_LIMIT, "job": HALF}, 0.5),
    "v2, the least of all": ("0::/job/7\n", {"job/7": {"cpu.max": "400000 100000\n"}, "job": HALF, "": NO_LIMIT}, 0.5),
    "v2, a container's root": ("0::/\n", {"": {"cpu.max": "200000 100000\n"}}, 2.0),
    "v2, another group's": ("0::/job/7\n", {"job/8": HALF}, None),
    "v1, its own group": (V1, {"cpu,cpuacct/job/7": v1(250000)}, 2.5),
    "v1, no limit": (V1, {"cpu,cpuacct/job/7": v1(-1)}, None),
    "v1, the group above": (V1, {"cpu,cpuacct/job/7": v1(-1), "cpu,cpuacct/job": v1(100000)}, 1.0),
    "v1, another period": (V1, {"cpu,cpuacct/job/7": v1(30000, 10000)}, 3.0),
    "v1, cpu alone": ("3:cpu:/job\n", {"cpu/job": v1(100000)}, 1.0),
    "v1, a container's root": ("3:cpu,cpuacct:/docker/7\n", {"cpu": v1(150000)}, 1.5),
    "v1, other controllers": ("3:cpuset:/job\n2:memory:/job\n", {"cpuset/job": v1(50000), "memory/job": v1(5)}, None),
    "both": ("1:cpu:/job\n0::/job\n", {"cpu/job": v1(300000), "job": {"cpu.max": "200000 100000\n"}}, 2.0),
    "nothing": ("", {}, None),
    "nonsense": ("0::/job\n", {"job": {"cpu.max": "a lot\n"}, "": {"cpu.max": "1 0\n"}}, None),
    "half of v1": (V1, {"cpu,cpuacct/job/7": {"cpu.cfs_quota_us": "100000\n"}}, None),
}


@pytest.mark.parametrize("name", TREES)
def test_the_quota_is_the_least_of_a_group_and_all_above_it(tmp_path, name):
    own, files, expected = TREES[name]
    tree(tmp_path / "cgroup", files)
    (tmp_path / "own").write_text(own)

    assert cpus.cgroup_quota(str(tmp_path / "cgroup"), str(tmp_path / "own")) == expected


def test_where_there_are_no_cgroups_there_is_no_quota(tmp_path):
    assert cpus.cgroup_quota(str(tmp_path / "none"), str(tmp_path / "none either")) is None


def test_the_quota_of_this_machine_can_be_asked_for():
    quota = cpus.cgroup_quota()

    assert quota is None or quota > 0


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many processors, affinity to so many of them, and a quota."""

    def make(present, affine, quota):
        monkeypatch.delenv("RIVER_NUM_WORKERS", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: present)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affine)), raising=False)
        monkeypatch.setattr(cpus, "cgroup_quota", lambda: quota)

    return make


@pytest.mark.parametrize(
    ("present", "affine", "quota", "expected"),
    [
        (8, 8, None, 8),
        (8, 3, None, 3),
        (8, 8, 2.0, 2),
        (8, 8, 1.5, 2),  # rounded up: half a processor is better used than left
        (8, 8, 0.2, 1),
        (8, 3, 6.0, 3),
        (8, 8, 64.0, 8),
        (None, 4, None, 1),
    ],
)
def test_the_count_is_the_least_of_what_is_there_affinity_and_quota(machine, present, affine, quota, expected):
    machine(present, affine, quota)

    assert cpus.cpu_count() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no processor affinity")
def test_a_process_bound_to_one_processor_counts_one():
    bind = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    script = f"{bind}; import river; print(river.cpu_count())"
    environment = {name: value for name, value in os.environ.items() if name != "RIVER_NUM_WORKERS"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("1\n", "")


def test_the_user_overrides_all(machine, monkeypatch):
    machine(2, 2, 1.0)
    monkeypatch.setenv("RIVER_NUM_WORKERS", "12")

    assert cpus.cpu_count() == 12


def test_an_empty_variable_is_none(machine, monkeypatch):
    machine(2, 2, None)
    monkeypatch.setenv("RIVER_NUM_WORKERS", "")

    assert cpus.cpu_count() == 2


@pytest.mark.parametrize("value", ["0", "-2", "many", "1.5", " "])
def test_a_number_that_is_none_is_refused_with_the_name_of_the_variable(monkeypatch, value):
    monkeypatch.setenv("RIVER_NUM_WORKERS", value)

    with pytest.raises(ValueError, match=f"RIVER_NUM_WORKERS must be a positive number, not '{value}'"):
        cpus.cpu_count()


@pytest.mark.parametrize(
    ("vms", "threads", "expected"), [(1, None, "8"), (3, None, "2"), (4, None, "2"), (16, None, "1"), (4, 3, "3")]
)
def test_each_vm_gets_its_share_of_threads_for_numerical_libraries(machine, monkeypatch, vms, threads, expected):
    machine(8, 8, None)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    limits = cpus.thread_limits(vms, threads)

    assert {limits[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {expected}


def test_what_the_user_has_set_stays_unless_he_asks_for_threads_per_vm(machine, monkeypatch):
    machine(8, 8, None)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")

    assert "OMP_NUM_THREADS" not in cpus.thread_limits(4)
    assert cpus.thread_limits(4, threads=2)["OMP_NUM_THREADS"] == "2"
