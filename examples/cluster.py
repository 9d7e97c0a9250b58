"""One pool on several machines, which need nothing but Python and a login over SSH.

    python examples/cluster.py                              this machine, as a cluster of one
    python examples/cluster.py "local,node1,alice@node2?n=4"
    python examples/cluster.py node1 --add node2            node2 joins while the work runs

It counts the primes below a million in 200 tasks, and prints how many tasks each machine did and how the machines are.
"""

import argparse
import socket
import threading
from collections import Counter

from river import Cluster


def primes(first, last):
    """How many there are, by trial division, which takes its time; and on which machine that was found."""
    count = sum(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(first, last))
    return count, socket.gethostname()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("hosts", nargs="?", default="local", help="commas between them (default: this machine)")
    parser.add_argument("--add", metavar="HOST", help="a machine that joins while the work runs")
    parser.add_argument("--below", type=int, default=1_000_000, help="count the primes below this (default: a million)")
    options = parser.parse_args()

    step = max(1, options.below // 200)
    ranges = [(first, min(first + step, options.below)) for first in range(0, options.below, step)]
    with Cluster(options.hosts) as cluster:
        results = cluster.pool.istarmap_unordered(primes, ranges)
        if options.add:
            threading.Thread(target=cluster.add, args=[options.add]).start()
        counts, places = zip(*results, strict=True)
        print(f"{sum(counts)} primes below {options.below}")
        for host, tasks in Counter(places).most_common():
            print(f"  {tasks} of {len(ranges)} tasks on {host}")
        for machine in cluster.machines:
            print(f"{machine.name}: {machine.state}, {len(machine.vms)} VMs, {machine.received / 1024:.0f} KiB from it")


if __name__ == "__main__":
    main()
