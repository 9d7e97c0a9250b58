"""One measurement, in a process of its own: `python -m benchmarks.driver PEER WORK SIZE WORKERS ANSWER`.

Writes the figures, or the error, as JSON into the file ANSWER: standard output belongs to the peer.
A process for each measurement, because a peer that crashes, hangs or leaves threads behind must not touch the
next one.

Rule: nothing more is imported before `main` runs.  Peers that start workers by spawning import this module in
each of them, and what it imports would count as their memory.
"""

import json
import sys


def main(peer_name, work_name, size, workers, answer):
    try:
        work, peers = find(work_name)
        result = measure(peers[peer_name](int(workers)), work, int(size))
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        result = {"error": f"{type(error).__name__}: {lines[0]}".rstrip(": ")}
    with open(answer, "w") as file:
        json.dump(result, file)
    return 1 if "error" in result else 0


def find(work_name):
    """The work of that name, and the peers of its kind of works, by name."""
    from . import machines, mpi, peers, processes, works

    for module in (machines, processes, mpi):
        if work_name in module.WORKS:
            return module.WORKS[work_name], module.PEERS
    return works.WORKS[work_name], peers.PEERS


def measure(peer, work, size):
    if not work.pool:
        return work.run(peer, size)
    with peer:
        return work.run(peer, size)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
