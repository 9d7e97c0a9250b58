"""The benchmarks run, report what they measured, and leave nothing behind.

No test here asserts a time or a ratio of times.
"""

import importlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import testbed

pytest.importorskip("numpy", reason="two of the works are about arrays")
psutil = pytest.importorskip("psutil")

ROOT = Path(__file__).parent.parent
STANDARD = {"multiprocessing.Pool", "ProcessPoolExecutor"}
MARKERS = "<!-- benchmarks:begin -->\nold\n<!-- benchmarks:end -->"


def benchmarks(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=220,
    )  # fmt: skip


@pytest.fixture
def part(monkeypatch):
    """A module of the package, which is not installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


# Smoke runs, each for all tests that use the fixture of its name.
RUNS = {"quick": [], "of_processes": ["--only", "mp_"], "of_machines": ["--only", "machine"]}


@pytest.fixture(scope="module")
def ended(request, tmp_path_factory):
    """Those runs that this session's tests need, side by side, as none of their figures is to be believed: what waits
    until all have ended, and returns the folder of one and what it printed."""
    used = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    folders = {name: tmp_path_factory.mktemp(name) for name in RUNS if name in used}
    if testbed.missing():
        folders.pop("of_machines", None)
    with ThreadPoolExecutor(len(RUNS)) as pool:
        runs = {
            name: pool.submit(benchmarks, "--quick", *RUNS[name], "--json", folder / "found.json")
            for name, folder in folders.items()
        }

    def of(name):
        done = runs[name].result()
        assert done.returncode == 0, done.stderr
        return folders[name], done.stdout

    return of


def read(folder):
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def quick(ended):
    """Its folder, and what it printed."""
    return ended("quick")


@pytest.fixture(scope="module")
def found(quick):
    return read(quick[0])


def stored(found, folder, edited):
    """The smoke run as a file, whatever happened to River's sources while it ran."""
    path = folder / "found.json"
    path.write_text(json.dumps(found | {"run": found["run"] | {"edited meanwhile": edited}}), encoding="utf-8")
    return path


# ---- a run


@pytest.mark.timeout(240)
def test_a_quick_run_measures_every_work(found, part):
    assert list(found["works"]) == list(part("works").WORKS)


@pytest.mark.timeout(240)
def test_river_and_the_standard_library_have_a_positive_figure_in_every_work(found, part):
    for name, work in found["works"].items():
        main = next(iter(work["units"]))
        expected = set(part("works").WORKS[name].only) or {"River"} | STANDARD

        assert expected <= set(work["peers"]), name
        for peer, record in work["peers"].items():
            assert "error" not in record, (name, peer, record["error"])
            assert all(sample > 0 for sample in record["figures"][main]["samples"]), (name, peer)
            assert record["ratios"][main]["min"] > 0, (name, peer)


@pytest.mark.timeout(240)
def test_no_measurement_leaves_a_process_behind(found):
    left = [(name, peer) for name, work in found["works"].items() for peer in work["peers"]
            if "left behind" in work["peers"][peer]]  # fmt: skip

    assert left == []


@pytest.mark.timeout(240)
def test_every_target_against_the_standard_library_is_judged(found):
    for name, work in found["works"].items():
        for target in work["targets"]:
            if target["peer"] in STANDARD or not target["peer"]:
                assert target["met"] in (True, False), (name, target)


@pytest.mark.timeout(240)
def test_the_text_names_every_work_and_says_of_every_target_whether_it_is_met(quick, found):
    for name, work in found["works"].items():
        assert f"{name}: {work['title']}" in quick[1]
        for target in work["targets"]:
            line = next(line for line in quick[1].splitlines() if target["text"] in line)
            assert line.endswith(("met", "MISSED", "not measured"))


@pytest.mark.timeout(240)
def test_the_picture_is_xml_and_shows_every_peer(quick, found):
    picture = ElementTree.parse(quick[0] / "found.svg")
    words = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    titles = {found["works"][name]["title"] for name in ("submit", "map", "import")}

    assert {"mp.Pool", "ProcessPoolExecutor"} | titles <= words


# ---- machines


@pytest.fixture(scope="module")
def of_machines(ended):
    """What was found of those works that need hosts."""
    if reason := testbed.missing():
        pytest.skip(f"the testbed {reason}")
    return read(ended("of_machines")[0])


@pytest.mark.timeout(240)
def test_a_quick_run_of_machines_measures_river_by_tls_and_by_its_session_in_every_work(of_machines, part):
    assert list(of_machines["works"]) == list(part("machines").WORKS)
    for name, work in of_machines["works"].items():
        for peer in ("River", "River (session)"):
            assert "error" not in work["peers"][peer], (name, peer, work["peers"][peer])
            assert all(figure["median"] > 0 for figure in work["peers"][peer]["figures"].values()), (name, peer)


@pytest.mark.timeout(240)
def test_no_measurement_leaves_a_process_behind_on_a_host(of_machines):
    assert [name for name, work in of_machines["works"].items() if "left behind" in str(work["peers"])] == []


def test_machines_that_cannot_be_measured_are_an_error_that_says_what_is_missing(part, monkeypatch):
    monkeypatch.setattr(part("network"), "missing", lambda: "needs a miracle")

    with pytest.raises(SystemExit, match="the testbed needs a miracle"):
        part("__main__").main(["--quick", "--only", "machine_boot", "--json", "nowhere.json"])


def test_a_target_of_another_way_is_judged_by_that_way_and_speed_is_shown_as_megabytes(part):
    works, report = part("works"), part("report")
    target = works.limit(1e-6 / 450, "", "River (session)")
    work = works.Work("w", "w", None, 1, 1, {"byte": "s/B"}, (target,))
    data = {"works": {}}
    records = {"River": {"samples": [{"byte": 1e-6 / 100}]}, "River (session)": {"samples": [{"byte": 1e-6 / 500}]}}
    report.add(data, work, records)
    judged = data["works"]["w"]["targets"][0]

    assert judged["met"] is True
    assert (judged["text"], judged["shown"]) == (">= 450 MB/s (session)", "500 MB/s")


# ---- river.multiprocessing


@pytest.fixture(scope="module")
def of_processes(ended):
    """Its folder, and what it found."""
    folder, _ = ended("of_processes")
    return folder, read(folder)


@pytest.mark.timeout(240)
def test_a_quick_run_of_processes_measures_every_work_for_both_modules_and_leaves_nothing(of_processes, part):
    works = part("processes").WORKS

    assert list(of_processes[1]["works"]) == list(works)
    for name, work in of_processes[1]["works"].items():
        assert set(work["peers"]) == set(works[name].only), name
        for peer, record in work["peers"].items():
            assert not {"error", "left behind"} & record.keys(), (name, peer, record)
            assert all(figure["median"] > 0 for figure in record["figures"].values()), (name, peer)
        assert all(target["met"] in (True, False) for target in work["targets"]), name


@pytest.mark.timeout(240)
def test_their_table_has_each_start_method_of_the_standard_module_and_no_column_of_pools(of_processes, part, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MARKERS)
    stored(of_processes[1], tmp_path, edited=False)
    done = benchmarks("--from", tmp_path / "found.json", "--readme", page)
    lines = page.read_text(encoding="utf-8").splitlines()
    row = next(line for line in lines if line.startswith("| Process: start and join |"))

    assert done.returncode == 0, done.stderr
    assert "| | River | multiprocessing |" in lines
    assert "(forkserver: " in row and ", spawn: " in row
    assert sum(line.startswith("| ") for line in lines) == 1 + len(list(part("report").shown_figures(of_processes[1])))
    assert "![river.multiprocessing beside multiprocessing](page.svg)" in lines and (tmp_path / "page.svg").exists()
    assert not (tmp_path / "docs").exists()


# ---- river.mpi


@pytest.mark.timeout(240)
def test_a_quick_run_of_ranks_measures_river_and_leaves_nothing(part, tmp_path):
    some = {"mpi_send_8", "mpi_send_array", "mpi_allreduce_memory_8_4", "mpi_bcast_object_2", "mpi_start"}
    done = benchmarks("--quick", "--only", ",".join(sorted(some)), "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))

    assert found["works"].keys() == some
    for name, work in found["works"].items():
        assert work["peers"].keys() == {"River"} and not {"error", "left behind"} & work["peers"]["River"].keys(), work
        assert all(figure["median"] > 0 for figure in work["peers"]["River"]["figures"].values()), name
    assert part("report").kind_of(found) == "mpi"
    assert "river.mpi beside mpi4py" in (tmp_path / "found.svg").read_text(encoding="utf-8")


# ---- the README


@pytest.mark.timeout(240)
def test_the_table_replaces_what_is_between_the_markers_and_nothing_else(found, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{MARKERS}\nafter\n")
    done = benchmarks("--from", stored(found, tmp_path, edited=False), "--readme", readme)
    text = readme.read_text(encoding="utf-8")

    assert done.returncode == 0, done.stderr
    assert text.startswith("before\n<!-- benchmarks:begin -->\n")
    assert text.endswith("<!-- benchmarks:end -->\nafter\n")
    assert "| no-op tasks, a future each |" in text and "old" not in text
    assert ElementTree.parse(tmp_path / "docs" / "benchmarks.svg").getroot().tag.endswith("svg")


@pytest.mark.timeout(240)
def test_a_readme_without_markers_is_left_alone_and_the_error_says_what_to_add(found, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    done = benchmarks("--from", stored(found, tmp_path, edited=False), "--readme", readme)

    assert done.returncode != 0 and "add the lines <!-- benchmarks:begin -->" in done.stderr
    assert readme.read_text() == "nothing here\n"


@pytest.mark.timeout(240)
def test_a_run_during_which_river_was_edited_cannot_become_the_readme(found, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKERS)
    done = benchmarks("--from", stored(found, tmp_path, edited=True), "--readme", readme)

    assert done.returncode != 0 and "measure again" in done.stderr
    assert readme.read_text() == MARKERS


def test_a_partial_run_cannot_become_the_readme():
    done = benchmarks("--quick", "--readme")

    assert done.returncode == 2 and "complete run" in done.stderr


# ---- what goes wrong


def test_a_peer_that_fails_is_reported_with_its_error_and_the_others_go_on(part):
    works, turns, peers = part("works"), part("turns"), part("peers")
    fails = type("Fails", (peers.Pool,), {"name": "no such peer"})
    records = turns.take_turns(works.WORKS["submit"], [fails, peers.Pool], 1, 2, True, lambda text: None)

    assert "KeyError" in records["no such peer"]["error"] and records["no such peer"]["samples"] == []
    assert len(records["multiprocessing.Pool"]["samples"]) == 2


def test_a_peer_that_hangs_is_ended_and_reported(part, monkeypatch):
    turns = part("turns")
    monkeypatch.setattr(turns, "TIMEOUT", 0.5)
    answer = turns.measure("multiprocessing.Pool", "skewed", 1_000_000, 1)

    assert "no answer within 0.5 s" in answer["error"]


def test_a_process_that_a_measurement_left_in_a_session_of_its_own_is_found_and_killed(part, monkeypatch):
    turns = part("turns")
    monkeypatch.setattr(turns, "GRACE", 0.1)
    command = [sys.executable, "-c", "input()"]
    env = os.environ | {turns.MARK: "left by a test"}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, start_new_session=True) as stray:
        assert turns.sweep("left by a test") == 1
        assert not psutil.pid_exists(stray.pid)
    assert turns.sweep("left by a test") == 0


@pytest.mark.parametrize(
    ("kind", "bound", "theirs", "met"),
    [
        ("speedup", 6, 6.0, True),
        ("speedup", 6, 5.9, False),
        ("share", 0.5, 2.0, True),
        ("share", 0.5, 1.9, False),
    ],
)
def test_a_target_is_met_at_its_bound_and_missed_beyond_it(part, kind, bound, theirs, met):
    works, report = part("works"), part("report")
    work = works.Work("w", "w", None, 1, 1, {"each": "s"}, (works.Target(kind, bound, "peer"),))
    data = {"works": {}}
    records = {"River": {"samples": [{"each": 1.0}]}, "peer": {"samples": [{"each": theirs}]}}
    report.add(data, work, records)

    assert data["works"]["w"]["targets"][0]["met"] is met
