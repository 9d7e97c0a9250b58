"""What people use already has River as its engine: each example does what it says with nothing installed but its extra.

joblib has a file of its own.
"""

import configparser
import importlib.metadata
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import tasks
import tools
from packaging.requirements import Requirement
from tools import functions_by_value  # noqa: F401

import river
import river.schwimmbad
from river import RiverPool

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples" / "ecosystem").glob("*.py"))
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = {name: text.split("\n")[1:] for name, text in SETUP["options.extras_require"].items()}
OTHERS = {"discovery", "progress", "toml", "test", "lint", "docs", "bench", "mpi"}  # extras that are no engine's


@pytest.fixture
def pool():
    with RiverPool(2, mp_context="spawn") as pool:
        yield pool


# -- examples --------------------------------------------------------------------------------------------------------


def extra(example):
    """The extra that the example says it needs, or None."""
    named = re.search(r'pip install "riverpool\[(\w+)\]"', example.read_text("utf-8"))
    return named[1] if named else None


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says_where_nothing_is_installed_but_its_extra(example, tmp_path):
    python = fresh_environment(tmp_path / "venv", extra(example))
    promised = re.findall(r"# -> (.*)$", example.read_text("utf-8"), re.MULTILINE)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-W", "error", example], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == promised
    assert done.stderr == "" or extra(example) == "tqdm"  # its bar


def test_each_extra_has_an_example_a_place_in_the_document_and_is_tested():
    named = {extra(example) for example in EXAMPLES} - {None}
    document = (ROOT / "docs" / "ecosystem.md").read_text("utf-8")

    assert named == EXTRAS.keys() - OTHERS
    assert all(f"riverpool[{name}]" in document for name in named)
    assert {example.name for example in EXAMPLES} == set(re.findall(r"examples/ecosystem/(\w+\.py)\)", document))
    assert [line for name in named for line in EXTRAS[name] if line not in EXTRAS["test"]] == []


def fresh_environment(folder, extra):
    """A virtual environment with River, what it needs and what the extra names, all of it linked from where it is
    installed: no package index is needed.  Returns its Python."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "river").symlink_to(Path(river.__file__).parent)
    for distribution in needed([*SETUP["options"]["install_requires"].split("\n")[1:], *EXTRAS.get(extra, ())]):
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(distribution.locate_file(top))
    return folder / "bin" / "python"


def needed(requirements):
    """The distributions that satisfy these requirements and their own."""
    found, left = {}, list(requirements)
    while left:
        requirement = Requirement(left.pop())
        if requirement.name in found or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            found[requirement.name] = distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f'{requirement.name} is not installed; pip install "riverpool[test]" does it')
        assert requirement.specifier.contains(distribution.version), requirement
        left += distribution.requires or []
    return list({distribution.name: distribution for distribution in found.values()}.values())


# -- dask ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["scheduler=pool", "processes", "config"])
def compute(pool, request):
    """Computes a dask graph on the pool; the ways to say so."""
    dask = pytest.importorskip("dask", reason='dask is not installed; pip install "riverpool[dask]" does it')
    if request.param == "config":
        with dask.config.set(scheduler=pool):
            yield dask.compute
    else:
        words = {"scheduler=pool": {"scheduler": pool}, "processes": {"scheduler": "processes", "pool": pool}}
        yield lambda graph: dask.compute(graph, **words[request.param])


def test_a_dask_graph_is_computed_by_the_vms(compute, pool):
    import dask

    total = dask.delayed(sum)([dask.delayed(tasks.square)(x) for x in range(50)])
    assert compute(total) == (sum(x * x for x in range(50)),)
    (pids,) = compute(dask.delayed(set)([dask.delayed(tasks.pid)(x) for x in range(20)]))

    assert pids <= {*pool.statistics().pids.values()}


def test_a_failure_in_a_dask_graph_is_raised_as_itself(compute):
    import dask

    with pytest.raises(ValueError, match="7"):
        compute(dask.delayed(sum)([dask.delayed(tasks.raising)(7), dask.delayed(tasks.square)(7)]))


def test_a_vm_that_dies_in_a_dask_graph_costs_nothing(compute, tmp_path):
    import dask

    (values,) = compute([dask.delayed(dies_once_of_two)(str(tmp_path / "log"), x) for x in range(4)])
    assert values == [0, 1, 2, 3]


def dies_once_of_two(log, value):
    if value == 2:
        tasks.note(log, "x")
        if len(tasks.lines(log)) == 1:
            tasks.kill_itself()
    return value


# -- scipy -----------------------------------------------------------------------------------------------------------


def test_scipy_takes_the_map_of_a_pool_as_workers(pool):
    optimize = pytest.importorskip(
        "scipy.optimize", reason='scipy is not installed; pip install "riverpool[scipy]" does it'
    )
    from scipy.integrate import quad_vec

    shift = 0.25
    best = optimize.brute(lambda x: (x[0] - shift) ** 2, [slice(0, 1, 0.25)], workers=pool.map, finish=None)
    assert best == shift
    area, _ = quad_vec(lambda x: x + shift, 0, 1, workers=pool.map)
    assert area == pytest.approx(0.75)


# -- emcee, and what is written for schwimmbad's pools ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [RiverPool, river.schwimmbad.RiverPool])
def test_emcees_walkers_go_the_same_way_on_a_pool(kind):
    emcee = pytest.importorskip("emcee", reason='emcee is not installed; pip install "riverpool[emcee]" does it')
    import numpy

    def chain(pool):
        numpy.random.seed(3)
        sampler = emcee.EnsembleSampler(8, 2, log_probability, pool=pool)
        sampler.run_mcmc(numpy.random.normal(size=(8, 2)), 20)
        return sampler.get_chain()

    with kind(2, mp_context="spawn") as pool:
        assert numpy.array_equal(chain(pool), chain(None))


def log_probability(x):
    return -sum(x * x)


def test_a_program_for_schwimmbad_runs_once_as_the_master():
    with river.schwimmbad.RiverPool(2, mp_context="spawn") as pool:
        if not pool.is_master():
            pool.wait()
            sys.exit(0)
        assert (pool.rank, pool.size, pool.is_worker(), pool.wait()) == (0, 2, False, None)
        assert pool.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]
        seen = []
        assert pool.map(tasks.square, iter(range(5)), callback=seen.append) == seen == [0, 1, 4, 9, 16]
        with pytest.raises(ValueError, match="1"):
            pool.map(tasks.odd_ones_raise, range(5), callback=seen.append)


# -- tqdm ------------------------------------------------------------------------------------------------------------


def test_process_map_gives_a_list_and_counts_items():
    pytest.importorskip("tqdm", reason='tqdm is not installed; pip install "riverpool[tqdm]" does it')
    from river.tqdm import process_map

    bars = []

    class Bar:
        """Takes what tqdm's own process_map takes, and keeps what it is told."""

        def __init__(self, **options):
            self.options, self.n, self.is_closed = options, 0, False
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.is_closed = True

        def update(self, n):
            assert not self.is_closed
            self.n += n

        close = refresh = lambda self: None

    words = {"max_workers": 2, "mp_context": None, "lock_name": "mp_lock", "tqdm_class": Bar, "desc": "adding"}
    assert process_map(tasks.add, range(50), range(60), chunksize=7, **words) == list(range(0, 100, 2))
    assert process_map(tasks.square, iter(range(5)), total=9, **words) == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="3"):
        process_map(tasks.raising, [3], **words)

    assert [bar.options for bar in bars] == [{"total": total, "desc": "adding"} for total in (50, 9, 1)]
    assert [bar.n for bar in bars[:2]] == [50, 5]
    assert all(bar.is_closed for bar in bars)


# -- asyncio ---------------------------------------------------------------------------------------------------------


def test_a_loop_goes_on_while_vms_compute(pool, tmp_path):
    import asyncio

    gate = tasks.Gate(tmp_path / "gate")

    async def main():
        waiting = asyncio.get_running_loop().run_in_executor(tools.warm(pool), gate, 7)
        await asyncio.to_thread(gate.wait_for, 1)
        gate.open()
        return await waiting

    assert asyncio.run(main()) == 7
