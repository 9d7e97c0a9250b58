"""The order of a run, and the command line.

    python -m benchmarks                   all works, all peers that are installed; about a quarter of an hour
    python -m benchmarks --quick           a smoke run of a few seconds: River and the standard library only
    python -m benchmarks --only submit,map --peers loky,ray
    python -m benchmarks --only machine    machines over SSH, which are measured only when they are named
    python -m benchmarks --only mp_        river.multiprocessing beside multiprocessing; only when named, too
    python -m benchmarks --only mpi_       river.mpi beside mpi4py; the first run makes an environment for each MPI
    python -m benchmarks --readme          a full run, then the table in README.md and docs/benchmarks.svg
    python -m benchmarks --from results.json --readme PATH     the same from an earlier run, of any kind of works
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

from . import driver, machines, mpi, network, picture, processes, report, turns
from .peers import PEERS, River
from .works import WORKS

EVERY_PEER = {**machines.PEERS, **processes.PEERS, **mpi.PEERS, **PEERS}
EVERY_WORK = {**WORKS, **machines.WORKS, **processes.WORKS, **mpi.WORKS}
LATEST = Path(__file__).parent / "results" / "latest.json"


def main(argv=None):
    options = parse(argv)
    data = json.loads(options.stored.read_text(encoding="utf-8")) if options.stored else measure(options)
    if options.stored:
        print(report.whole_text(data))
    if options.json:
        write(options.json, json.dumps(data, indent=1) + "\n")
    if options.svg:
        write(options.svg, picture.picture(data))
    if options.readme:
        report.rewrite_readme(options.readme, data)
        shown = data if report.kind_of(data) else report.of_pools(data)
        write(report.picture_for(options.readme, data), picture.picture(shown))
    return 0


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes, one round, River and the standard library")
    add("--only", type=names(EVERY_WORK), help=f"these works: {', '.join(EVERY_WORK)}")
    add("--peers", type=names(EVERY_PEER), help=f"River beside these: {', '.join(EVERY_PEER)} (any part of a name)")
    add("--workers", type=int, default=2, help="processes in each pool (default 2)")
    add("--rounds", type=int, help="how often the peers take turns (default 5; slow peers fewer)")
    add("--json", type=Path, help=f"where the figures go (a complete run: {LATEST.name} in results/)")
    add("--svg", type=Path, help="where the picture goes (default: beside the JSON)")
    readme = turns.ROOT / "README.md"
    add("--readme", type=Path, nargs="?", const=readme, help="rewrite the table in this file (README.md)")
    add("--from", type=Path, dest="stored", help="report on this JSON instead of measuring")
    options = parser.parse_args(argv)
    partly = options.quick or options.only or options.peers
    if options.readme and partly and not options.stored:
        parser.error("--readme needs a complete run: leave out --quick, --only and --peers")
    if options.workers < 1 or (options.rounds is not None and options.rounds < 1):
        parser.error("--workers and --rounds are at least 1")
    options.rounds = options.rounds or (1 if options.quick else 5)
    if not options.json and not partly and not options.stored:
        options.json = LATEST
    if options.json and not options.svg:
        options.svg = options.json.with_suffix(".svg")
    return options


def names(table):
    """An argument type: parts of names, with commas, to the names in `table`; an exact name wins."""

    def convert(text):
        found = []
        for part in filter(None, text.split(",")):
            hits = [part] if part in table else [name for name in table if part.lower() in name.lower()]
            if not hits:
                raise argparse.ArgumentTypeError(f"no {part!r}; there are: {', '.join(table)}")
            found += hits
        return found

    return convert


def measure(options):
    works = [work for name, work in EVERY_WORK.items() if name in (options.only or WORKS)]
    peers = choose(options, works)
    data = report.begin(workers=options.workers, rounds=options.rounds, quick=options.quick, peers=peers)
    print(report.heading(data))
    began, measured_sources = time.monotonic(), River.fingerprint()
    with contextlib.ExitStack() as stack:
        place = place_for(works, options, stack)
        for work in works:
            measured = [peer for peer in table_of(work).values() if peers.get(peer.name) and takes_part(peer, work)]
            records = turns.take_turns(work, measured, options.workers, options.rounds, options.quick, tell, place)
            tell("")
            report.add(data, work, records)
            print(report.work_text(data, work.name), flush=True)
    data["run"] |= {
        "seconds": round(time.monotonic() - began),
        "sources": measured_sources,
        "edited meanwhile": River.fingerprint() != measured_sources,
    }
    print(report.closing(data))
    return data


def place_for(works, options, stack):
    """Where they are measured: here, or for those of machines on a network of hosts, which ends with the stack."""
    if not machines.WORKS.keys() & {work.name for work in works}:
        return turns.HERE
    if reason := network.missing():
        raise SystemExit(f"machines cannot be measured here: the testbed {reason}")
    tell("starting hosts")
    return stack.enter_context(network.Network(bare=2 if options.quick else len(network.BARE)))


def table_of(work):
    """The peers of such works."""
    return driver.find(work.name)[1]


def choose(options, works):
    """The peers to measure, River first: their versions by name, None for what is not installed."""
    peers = {name: peer for work in works for name, peer in table_of(work).items()}
    wanted = options.peers or [name for name in peers if not (options.quick and peers[name].distribution)]
    for name in peers.keys() & set(wanted):
        peers[name].provide()
    return {
        name: peer.version() if peer.installed() else None
        for name, peer in peers.items()
        if name in wanted or issubclass(peer, River)
    }


def takes_part(peer, work):
    if work.only and peer.name not in work.only:
        return False
    return not peer.only or work.name in peer.only


def tell(text):
    """What is going on, on one line that the next one replaces; only where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
