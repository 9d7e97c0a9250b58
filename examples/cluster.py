"""Count primes on several machines over SSH; with none at hand, on this one, as if it were three.

    python examples/cluster.py                         three SSH servers of its own, on this machine
    python examples/cluster.py node1 alice@node2:2222  hosts that you can `ssh` to

The machines need sshd and the same minor version of Python, and nothing else: River travels along.  Half way through
the work, the last machine joins.

You see who does what, a progress bar, a table of the machines, and whether the number of primes is right.
"""

import argparse
import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import river
from river import RiverPool

# How many primes there are below these numbers (of powers of ten: https://oeis.org/A006880).
KNOWN = {100_000: 9592, 1_000_000: 78498, 10_000_000: 664579, 50_000_000: 3001134, 100_000_000: 5761455}


def primes_between(low, high):
    """How many primes there are from `low` up to, not including, `high`; and on which VM they were counted."""
    sieve = bytearray([1]) * (high - low)
    for divisor in range(2, int(high**0.5) + 1):
        first = max(divisor * divisor, -(-low // divisor) * divisor)
        sieve[first - low :: divisor] = bytes(len(range(first, high, divisor)))
    return sum(sieve[max(0, 2 - low) :]), river.current().vm


class Servers:
    """SSH servers on loopback, without privileges, with keys and a configuration of their own."""

    def __init__(self, names):
        self.folder = Path(tempfile.mkdtemp(prefix="river-cluster-"))
        self.config = self.folder / "config"
        self.running = {}
        for key in ("user", "server"):
            self.call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key)
        for name in names:
            self.start(name)

    def start(self, name):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = (
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/server\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/user.pub\nStrictModes no\nPasswordAuthentication no\n"
        )
        (self.folder / f"sshd-{name}").write_text(settings)
        with open(self.folder / f"log-{name}", "w") as log:
            command = [find_sshd(), "-D", "-e", "-f", self.folder / f"sshd-{name}"]
            self.running[name] = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        with open(self.folder / "known_hosts", "a") as known:
            known.write(f"[127.0.0.1]:{port} {(self.folder / 'server.pub').read_text()}")
        with open(self.config, "a") as config:
            config.write(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n  IdentitiesOnly yes\n"
                f"  IdentityFile {self.folder}/user\n  UserKnownHostsFile {self.folder}/known_hosts\n"
            )

    def call(self, *command):
        subprocess.run(list(map(str, command)), check=True)

    def close(self):
        for server in self.running.values():
            server.terminate()
            server.wait()
        shutil.rmtree(self.folder)


def find_sshd():
    """sshd wants to be called by its whole path."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def machines(names):
    """The hosts to use: those that were named, or three of our own."""
    if names:
        yield [river.Host(name) if isinstance(name, str) else name for name in names]
        return
    if find_sshd() is None or shutil.which("ssh-keygen") is None:
        sys.exit("There is no sshd here; install openssh-server, or name hosts: examples/cluster.py node1 node2")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # sshd wants an empty folder
    servers = Servers(["alder", "birch", "cedar"])
    try:
        yield [river.Host(name, config=str(servers.config), n=1) for name in servers.running]
    finally:
        servers.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hosts", nargs="*", help="hosts that you can `ssh` to")
    parser.add_argument("--below", type=int, default=50_000_000, help="count the primes below this")
    options = parser.parse_args()
    step = max(1, options.below // 200)
    ranges = [(low, min(low + step, options.below)) for low in range(0, options.below, step)]

    with machines(options.hosts) as hosts:
        first, late = (hosts[:-1], hosts[-1]) if len(hosts) > 1 else (hosts, None)
        with RiverPool(hosts=first) as pool:
            print("begins with", ", ".join(machine.name for machine in pool.machines))
            found, by_vm = 0, {}
            for done, (count, vm) in enumerate(pool.istarmap_unordered(primes_between, ranges, progress=True), 1):
                found += count
                by_vm[vm] = by_vm.get(vm, 0) + 1
                if late is not None and done == len(ranges) // 2:
                    pool.cluster.add(late)
            table(pool, by_vm)
    print(f"{found:,} primes below {options.below:,}", end="")
    print(f", as it should be: {found == KNOWN[options.below]}" if options.below in KNOWN else "")


def table(pool, by_vm):
    print(f"\n{'machine':10} {'state':8} {'way':6} {'VMs':>3} {'ranges':>6} {'in':>9} {'out':>9}")
    for machine in pool.machines:
        ranges = sum(count for vm, count in by_vm.items() if vm.rpartition("/")[0] == machine.name)
        way = "TLS" if machine.is_direct else "SSH"
        received, sent = (f"{size / 1024:,.0f} KiB" for size in (machine.received, machine.sent))
        print(f"{machine.name:10} {machine.state:8} {way:6} {len(machine.vms):3} {ranges:6} {received:>9} {sent:>9}")
    print()


if __name__ == "__main__":
    main()
