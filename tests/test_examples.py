"""The examples, run as a user runs them: each finishes cleanly, and what it prints about its work is true.

No times are checked here; how fast River is, the benchmarks measure.
"""

import ast
import math
import os
import re
import runpy
import shutil
import struct
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

import river

EXAMPLES = Path(__file__).parents[1] / "examples"
BAR = re.compile(r"(\S+: *)?\d+%.*|.*\d+/\d+.*|\s*")


def run(name, *arguments, cwd=None):
    """Run an example in a process of its own; returns its stdout, and its stderr: only progress bars."""
    # The same River as ours, whether that is installed or the source next to these tests.
    paths = [str(Path(river.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"}
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=cwd, env=env, timeout=100)
    assert done.returncode == 0, done.stderr
    stray = [line for line in re.split(r"[\r\n]+|\x1b\[\w", done.stderr) if not BAR.fullmatch(line)]
    assert stray == []
    return done.stdout, done.stderr


def mpi_run(name, ranks, *arguments):
    """Run an example for MPI by the command; returns its stdout."""
    command = [sys.executable, "-W", "error", "-m", "river", "-n", ranks, EXAMPLES / name, *arguments]
    paths = [str(Path(river.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8", env=env, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def table(printed):
    """The rows of 'what ran where', as {(vm, pid): [the columns after that]}."""
    _, _, rest = printed.partition("\nVM ")
    rows = rest.partition("\n\n")[0].splitlines()[1:]
    return {tuple(row.split()[:2]): row.split()[2:] for row in rows}


def number(text):
    return float(text.replace(",", ""))


def png(path):
    """Decode a PNG of ours: its width, and its rows of red, green and blue bytes."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks.append((kind, body))
        at += 12 + length
    assert chunks[0][0] == b"IHDR"
    assert chunks[-1] == (b"IEND", b"")
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[0][1])
    assert kind == [8, 2, 0, 0, 0]
    pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    assert len(pixels) == height * (1 + 3 * width)
    rows = [pixels[start : start + 1 + 3 * width] for start in range(0, len(pixels), 1 + 3 * width)]
    assert {row[0] for row in rows} == {0}
    return width, [row[1:] for row in rows]


def test_every_example_is_in_the_examples_readme_and_tested_here():
    names = {path.name for path in EXAMPLES.glob("*.py")}

    assert names == set(re.findall(r"\*\*\[(\w+\.py)\]", (EXAMPLES / "README.md").read_text("utf-8")))
    assert names == set(re.findall(r'run\(\s*"(\w+\.py)"', Path(__file__).read_text("utf-8")))


@pytest.mark.parametrize("processes", [1, 2])
def test_wordcount_counts_every_file_once_and_gets_the_answer_of_one_process(processes):
    printed, bar = run("wordcount.py", "--files", 150, "--processes", processes)

    assert "both answers are the same" in printed
    assert "150/150" in bar
    ran = table(printed)
    assert len(ran) == len({pid for _, pid in ran}) == processes
    assert sum(number(files) for files, _, _ in ran.values()) == 150
    size = float(re.search(r"corpus +150 files, ([\d.]+) MB", printed)[1])
    rounding = 0.05 * (1 + processes)
    assert sum(number(amount) for _, amount, _ in ran.values()) == pytest.approx(size, abs=rounding)


def test_wordcount_charts_fall_and_their_bars_are_in_proportion():
    printed, _ = run("wordcount.py", "--files", 40, "--processes", 1)

    charts = [re.findall(r"^ +(\w+) (█+) ([\d,]+)$", part, re.M) for part in printed.split("\n\n")[-2:]]
    for chart in charts:
        assert len(chart) == 8
        times = [number(amount) for _, _, amount in chart]
        assert times == sorted(times, reverse=True)
        assert [len(bar) for _, bar, _ in chart] == [max(1, int(40 * t // times[0])) for t in times]
    assert charts[0][0][0] == "self"


def test_wordcount_tells_names_from_words_and_survives_a_broken_file(tmp_path):
    count = runpy.run_path(str(EXAMPLES / "wordcount.py"))["count"]
    good, broken = tmp_path / "good.py", tmp_path / "broken.py"
    good.write_text("# Rivers and RIVERS\nif river:\n    river = 'water, rivers'\n")
    broken.write_text("river = 1\nriver = '''never closed")

    assert count(good).names == {"river": 2}
    assert count(good).words == {"rivers": 3, "water": 1}
    assert count(broken).names["river"] >= 1


def test_mandelbrot_writes_the_picture_that_one_process_computes(tmp_path):
    printed, bar = run("mandelbrot.py", "--size", 240, "--processes", 2, cwd=tmp_path)

    width, rows = png(tmp_path / "mandelbrot.png")
    assert (width, len(rows)) == (240, 180)
    row = runpy.run_path(str(EXAMPLES / "mandelbrot.py"))["row"]
    assert rows == [row(y, 240, 180, "whole", 500) for y in range(180)]
    assert "180/180" in bar
    ran = table(printed)
    assert len(ran) == 2
    assert sum(number(rows_done) for (rows_done,) in ran.values()) == 180


def test_the_mandelbrot_set_is_where_mathematics_says(tmp_path):
    run("mandelbrot.py", "--size", 240, "--limit", 200, "--processes", 2, "--out", tmp_path / "set.png")

    _, rows = png(tmp_path / "set.png")

    def pixel(c):  # the whole view is 3.2 wide around -0.65, so that a pixel is 1/75
        x, y = round((c.real + 0.65) * 75 + 119.5), round(89.5 - c.imag * 75)
        return rows[y][3 * x : 3 * x + 3]

    inside = [0j, -1 + 0j, -0.5 + 0j, -0.5 + 0.5j, -0.5 - 0.5j, -1.3 + 0j, 0.3 + 0.4j]
    outside = [-2.2 + 1.1j, 0.9 + 1.1j, 0.9 - 1.1j, 0.5 + 0j, -1.5 + 0.5j, -0.7 + 0.9j, 0.1 - 1j]
    assert {pixel(c) for c in inside} == {b"\0\0\0"}
    assert b"\0\0\0" not in {pixel(c) for c in outside}


def test_mandelbrot_tints_each_row_by_its_vm_and_keeps_the_light(tmp_path):
    path = tmp_path / "tinted.png"
    printed, _ = run("mandelbrot.py", "--size", 240, "--processes", 2, "--colour-by-worker", "--out", path)

    _, rows = png(path)
    spaces = runpy.run_path(str(EXAMPLES / "mandelbrot.py"))
    plain = [spaces["row"](y, 240, 180, "whole", 500) for y in range(180)]
    rows_of = {}
    for row, before in zip(rows, plain, strict=True):
        tints = [n for n in range(2) if row == spaces["tint"](before, n)]
        assert len(tints) == 1
        rows_of[tints[0]] = rows_of.get(tints[0], 0) + 1
        assert lights(row) == lights(before)
    assert sorted(rows_of.values()) == sorted(int(n) for (n,) in table(printed).values())


def lights(row):
    """How bright each pixel of a row is."""
    return list(map(max, row[0::3], row[1::3], row[2::3]))


def answers(printed):
    """The answers that integrate.py printed: [pi alone, pi on River, Si alone, Si on River]."""
    return [float(text) for text in re.findall(r"^  \d+ (?:process|VMs) +([\d.]+) ", printed, re.M)]


def test_integrate_has_the_same_right_answers_for_any_number_of_vms():
    printed, bar = run("integrate.py", "--samples", 400_000, "--tasks", 24, "--processes", 1)
    again, _ = run("integrate.py", "--samples", 400_000, "--tasks", 24, "--processes", 3)

    pi, river_pi, si, river_si = answers(printed)
    assert answers(again) == [pi, pi, si, si] == [river_pi, pi, river_si, si]
    assert pi == pytest.approx(math.pi, abs=0.01)
    assert si == pytest.approx(1.5482417010434397, abs=1e-12)
    assert printed.count("the same answer") == again.count("the same answer") == 2
    assert "24/24" in bar


def test_integrate_needs_no_main_guard():
    tree = ast.parse((EXAMPLES / "integrate.py").read_text("utf-8"))

    assert not any(isinstance(node, ast.If) for node in tree.body)


@pytest.mark.skipif(
    not (shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin") and shutil.which("ssh-keygen")),
    reason="there is no sshd program (OpenSSH's server) here",
)
def test_cluster_counts_the_primes_on_servers_of_its_own_one_of_which_joins_later():
    printed, bar = run("cluster.py", "--below", 10_000_000)

    assert printed.startswith("begins with alder, birch\n")
    assert printed.endswith("664,579 primes below 10,000,000, as it should be: True\n")
    rows = [line.split() for line in printed.splitlines() if line.startswith(("alder", "birch", "cedar"))]
    assert [row[:2] for row in rows] == [["alder", "ok"], ["birch", "ok"], ["cedar", "ok"]]
    assert sum(int(row[4]) for row in rows) == 200
    assert "200/200" in bar


def test_port_finds_the_perfect_numbers_with_the_standard_module():
    """On River it is run by test_programs."""
    first, last = run("port.py")[0].splitlines()

    assert first == "of 9998 numbers these are perfect: [6, 28, 496, 8128]" and "workers of multiprocessing on" in last


def test_sweep_answers_every_parameter_but_the_one_that_fails():
    printed, bar = run("sweep.py", "--parameters", 60, "--step", 0.001, "--processes", 2)

    assert "59 of 60 parameters have an answer" in printed
    assert re.findall(r"^failed: (.*)$", printed, re.M) == [
        "damping 0: ValueError: a pendulum with damping 0 never comes to rest"
    ]
    assert "60/60" in bar
    ran = table(printed)
    assert len(ran) == 2
    assert sum(int(columns[0]) for columns in ran.values()) == 59
    sample = re.findall(r"^ +([\d.]+) +([\d.]+) s  █+$", printed, re.M)
    sample = [(float(damping), float(rest)) for damping, rest in sample]
    assert len(sample) >= 10
    assert all(weak < strong and slow > quick for (strong, quick), (weak, slow) in pairwise(sample))
    # A small swing shrinks as exp(-damping * t / 2): down to the limit of 1e-6 that takes about 15 / damping.
    assert all(13 < damping * rest < 19 for damping, rest in sample)


def test_sweep_compares_itself_with_the_chunks_that_multiprocessing_makes():
    fixed_chunks = runpy.run_path(str(EXAMPLES / "sweep.py"))["fixed_chunks"]

    assert fixed_chunks([1.0] * 16, 2) == 8.0
    assert fixed_chunks([1.0] * 15 + [20.0], 2) == 6.0 + 21.0  # chunks of two: three, then the last one
    assert fixed_chunks([5.0], 4) == 5.0


def test_sweep_draws_busy_time_as_blocks_and_idle_time_as_gaps():
    lane = runpy.run_path(str(EXAMPLES / "sweep.py"))["lane"]

    assert lane([(5, 8), (0, 2), (2, 4)], 10, 10) == "██▒▒ ███  "


def test_mpi_hello_prints_what_it_printed_in_2006():
    lines = mpi_run("mpi_hello.py", 3).splitlines()

    assert [line for line in lines if line.startswith("From")] == ["From rank 1: 100.000000", "From rank 2: 200.000000"]
    assert {"Hello from rank 0", "Hello from rank 2", "Rank 1 sending 100.000000"} < set(lines) and len(lines) == 7


@pytest.mark.parametrize("ranks", [1, 3])
def test_mpi_ring_hands_the_token_on_in_order(ranks):
    been, right = mpi_run("mpi_ring.py", ranks).splitlines()

    assert been.endswith(f"at {3 * ranks} ranks: " + " ".join(map(str, 3 * list(range(ranks)))))
    assert right == "in the right order: True"


def test_mpi_pi_is_pi_and_the_same_for_every_number_of_ranks():
    alone, three = mpi_run("mpi_pi.py", 1, 20), mpi_run("mpi_pi.py", 3, 20)

    assert alone == three
    assert float(re.search(r"about ([\d.]+)", alone)[1]) == pytest.approx(math.pi, abs=0.02)


def test_mpi_mandelbrot_is_the_same_picture_and_no_row_is_made_twice():
    (*alone, last), (*three, rows) = (mpi_run("mpi_mandelbrot.py", ranks).splitlines() for ranks in (1, 3))

    assert alone == three and len(alone) == 31
    assert alone[15][50] == "@" and alone[15][:10] == "  " + alone[15][2:10]  # the cardioid, and far outside
    assert alone == [line for line in alone[::-1]]  # it is symmetric
    assert last == "rows by rank: 31"
    assert sum(map(int, rows.partition(": ")[2].split())) == 31


def test_mpi_cannon_has_the_product_on_any_number_of_ranks():
    pytest.importorskip("numpy", reason="numpy is not installed")
    alone, five = mpi_run("mpi_cannon.py", 1, 31), mpi_run("mpi_cannon.py", 5, 31)  # 2 x 2, and one too many

    assert alone == five and alone.endswith("as numpy has it: True\n")


def test_mpi_life_lives_as_it_does_without_ranks():
    alone, four = mpi_run("mpi_life.py", 1, 40), mpi_run("mpi_life.py", 4, 40)

    alive = {(20, 32), (20, 33), (21, 31), (21, 32), (22, 32)}
    for _ in range(40):
        near = [((y + i) % 40, (x + j) % 64) for y, x in alive for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        alive = {cell for cell in near if near.count(cell) == 3 or (near.count(cell) == 2 and cell in alive)}
    assert alone == four
    assert alone.endswith(f"generation 40: {len(alive)} cells live\n")
    halves = ("\N{UPPER HALF BLOCK}\N{FULL BLOCK}", "\N{LOWER HALF BLOCK}\N{FULL BLOCK}")
    drawn = [(y, x, cell) for y, line in enumerate(alone.splitlines()[:-1]) for x, cell in enumerate(line)]
    assert alive == {(2 * y + half, x) for y, x, cell in drawn for half in (0, 1) if cell in halves[half]}


def test_mpi_cg_verifies_and_has_the_same_last_bit_for_every_number_of_ranks():
    pytest.importorskip("numpy", reason="numpy is not installed")
    alone, three = mpi_run("mpi_cg.py", 1), mpi_run("mpi_cg.py", 3)

    assert alone == three
    assert alone.endswith("zeta is 8.5971775078648; verified: True\n")
