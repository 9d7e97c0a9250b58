"""A host of the testbed: what it is, what runs on it, and its faults.

Each fault is a method, and heal() undoes them all; only what was written to the host's files outlives it, and
that is undone by reboot().  Processes are numbered as this machine numbers them, so os.kill() reaches them.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tasks import wait_until

from . import cgroups

HERE = Path(__file__).parent
LISTENS = " 00000000:0016 00000000:0000 0A "  # of /proc/net/tcp: port 22, in the state LISTEN
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")
FILLER = "/root/.filler"
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}  # where ip and nft are
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A process that is started from outside joins the host's group first, so that its limits hold for it too.
JOIN = 'for procs in $1; do echo 0 >"$procs"; done; shift; exec "$@"'


class Process(NamedTuple):
    pid: int
    name: str
    command: str


class Host:
    """One of the machines; testbed.host(name) gives it, running."""

    def __init__(self, testbed, name, links):
        self.name = name
        self.links = links  # which switch -> the address there
        self.address = next(iter(links.values()))
        self._testbed = testbed
        self._folder = testbed.folder / name
        self._group = f"{testbed.name}/{name}"
        self._rules = []  # of the switch, about frames from and to this host
        self._wires = {}  # port of the switch -> the process that is a longer cable
        self._undo = contextlib.ExitStack()

    def __repr__(self):
        return f"<Host {self.name} {self.address}>"

    # ------------------------------------------------------------------------------- on and off

    def start(self, pythons):
        """Switches it on; wait_until_up() when all that are to start have been."""
        self._folder.joinpath("fs").mkdir(parents=True, exist_ok=True)
        self._folder.joinpath("pythons").write_text("".join(f"{v} {p}\n" for v, p in pythons.items()))
        self._pid_file.unlink(missing_ok=True)
        if not (key := self._folder / "ssh_host_ed25519_key").exists():
            command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key))
        cgroups.make(self._group)
        self._testbed.tell_switch(self.name, *cgroups.members(self._group))

    def wait_until_up(self):
        try:
            wait_until(self._pid_file.exists, 20, f"the start of {self.name}")
            self.plug(self.pid)
            wait_until(self.listens, 20, f"sshd of {self.name}")
        except (AssertionError, OSError) as error:
            said = self._folder.joinpath("console").read_text()
            raise RuntimeError(f"testbed: {self.name} did not start: {said or 'it said nothing'}") from error

    def plug(self, pid):
        """Lays its cables to the switch; `pid` is any process on it."""
        inside, outside = ["link set lo up"], []
        for number, (net, address) in enumerate(self.links.items()):
            # Its hardware address follows from the other, so that it is the same after a reboot.
            hardware = "02:79:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))
            outside += [
                f"link add {self.name}-{net} type veth peer name eth{number} netns {pid} address {hardware}",
                f"link set {self.name}-{net} up master br-{net}",
            ]
            inside += [f"address add {address}/24 brd + dev eth{number}", f"link set eth{number} up"]
        self._switch("ip", "-batch", "-", text=outside)
        command(*enter(pid, "--net"), "ip", "-batch", "-", text=inside)

    def crash(self):
        """The power goes off: all is gone at once, and nobody gets a FIN.  heal() switches it on again."""
        for port in self._ports:
            self._switch("ip", "link", "delete", port)
        self.heal()
        os.kill(self.pid, signal.SIGKILL)  # process 1, and so all
        wait_until(lambda: not self.is_on(), what=f"the end of {self.name}")
        self._undo.callback(self.boot)

    def boot(self, *pythons):
        """Switches it on, if it is off, with these versions of Python (default: the one that runs the tests)."""
        if not self.is_on():
            self.start(self._testbed.pythons(*pythons))
            self.wait_until_up()

    def reboot(self, *pythons):
        """A pristine file system, sshd and Python, under the same name, addresses and host key.

        `pythons` like "3.8" are the versions that are on it, the first as python3; "none": there is no Python.
        heal() brings back the one that runs the tests.
        """
        self.crash()
        self.boot(*pythons)
        if pythons:
            self._undo.callback(self.reboot)

    def is_on(self):
        return self._pid_file.exists() and Path(f"/proc/{self.pid}/ns/pid").exists()

    @property
    def pid(self):
        """Of its process 1."""
        return int(self._pid_file.read_text())

    # -------------------------------------------------------------------------- what is on it

    def run(self, *argv, user="root", text=None):
        """What the command prints, which is run on it without SSH, in the user's home and a clean environment."""
        home = "/root" if user == "root" else f"/home/{user}"
        settings = [f"PATH={PATH}", "LANG=C.UTF-8", f"HOME={home}", f"USER={user}"]
        become = () if user == "root" else ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        inside = enter(self.pid, "--mount", "--uts", "--ipc", "--net", "--pid")
        joined = ("sh", "-c", JOIN, "-", " ".join(cgroups.members(self._group)))
        return command(*joined, *inside, "env", "-i", "-C", home, *settings, *become, *argv, text=text)

    def path(self, path):
        """Where a file of the host is found from here: path("/tmp")."""
        return Path(f"/proc/{self.pid}/root{path}")

    def processes(self):
        """[(pid, name, command line)] of all but its process 1 and its sshd."""
        return [process for process in self._all() if not is_sshd(process)]

    def left_behind(self):
        """See below."""
        return left_behind([self])

    def listens(self):
        """Whether there is an sshd that listens."""
        return LISTENS in Path(f"/proc/{self.pid}/net/tcp").read_text()

    def _all(self):
        return [process for _, process in running([self])]

    # -------------------------------------------------------------------------------- its faults

    def heal(self):
        """Undoes the faults, the last one first."""
        self._undo.close()

    def cut(self):
        """Drops every frame from and to it, silently, as when a cable is pulled far away."""
        self._filter(f"iifname {{ {self._interfaces} }} drop", f"oifname {{ {self._interfaces} }} drop")

    def cut_from(self, other):
        """The two cannot reach each other any more, silently."""
        self._filter(
            f"iifname {{ {self._interfaces} }} oifname {{ {other._interfaces} }} drop",
            f"iifname {{ {other._interfaces} }} oifname {{ {self._interfaces} }} drop",
        )

    def loss(self, percent):
        """Loses so many of its packets, in either direction.  (Not of ARP: that costs a second, and tests nothing.)"""
        lost = f"ether type ip numgen random mod 10000 < {int(percent * 100)} drop"
        self._filter(f"iifname {{ {self._interfaces} }} {lost}", f"oifname {{ {self._interfaces} }} {lost}")

    def mend(self):
        """Undoes cut(), cut_from() and loss()."""
        self._rules.clear()
        self._filter()

    def delay(self, milliseconds):
        """Each of its packets takes so much longer, in either direction: a round trip takes twice that."""
        self._undo.callback(self._lay_short)
        self._lay_short()
        for port in self._ports:
            self._lay_long(port, milliseconds / 1000)

    def reset_connections(self):
        """Ends the connections that there are now by a reset."""
        command(*enter(self.pid, "--net"), "ss", "--kill", "--tcp", "state", "established")

    def firewall(self, *ports, outgoing=True):
        """Of its TCP ports only these are reached, the rest is silence; without `outgoing` it opens no connection."""
        known = "ct state established,related accept"
        table = ["add table inet faults", "delete table inet faults", "table inet faults {"]
        table += [f"chain in {{ type filter hook input priority 0; policy drop; {known}; iifname lo accept;"]
        table += [f"tcp dport {{ {', '.join(map(str, ports))} }} accept; }}" if ports else "}"]
        if not outgoing:
            table += [f"chain out {{ type filter hook output priority 0; policy drop; {known}; oifname lo accept; }}"]
        command(*enter(self.pid, "--net"), "nft", "-f", "-", text=[*table, "}"])
        self._undo.callback(self._lift_firewall)

    def slow(self, percent):
        """All that runs on it gets at most so much of one core."""
        cgroups.limit(self._group, percent)
        self._undo.callback(cgroups.limit, self._group, None)

    def freeze(self):
        """Stops all that runs on it; its kernel goes on to acknowledge what comes in."""
        cgroups.freeze(self._group)
        self._undo.callback(self.thaw)

    def thaw(self):
        cgroups.thaw(self._group)

    def kill_sshd(self, sessions=True):
        """Kills the sshd that listens and, unless told otherwise, all that serve a login."""
        for process in self._all():
            if is_sshd(process) and (sessions or "listener" in process.command):
                os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not self.listens(), what=f"the end of sshd of {self.name}")
        self._undo.callback(self.start_sshd)

    def start_sshd(self):
        if not self.listens():
            self.run("/usr/sbin/sshd", "-E", "/var/log/sshd.log")
            wait_until(self.listens, 20, f"sshd of {self.name}")

    def fill_disk(self, but=0):
        """Leaves so many bytes of its disk free."""
        disk = os.statvfs(self.path("/root"))
        with open(self.path(FILLER), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - but)
        self._undo.callback(self.free_disk)

    def free_disk(self):
        self.path(FILLER).unlink(missing_ok=True)

    def end_processes(self):
        """See below."""
        end_processes([self])

    # --------------------------------------------------------------------------- at the switch

    def _switch(self, *argv, text=None):
        return command(*enter(self._testbed.switch, "--net"), *argv, text=text)

    @property
    def _ports(self):
        return [f"{self.name}-{net}" for net in self.links]

    @property
    def _interfaces(self):
        """Of the switch that frames pass; which one of a port's two, a wire may change at any time."""
        return ", ".join(f'"{port}", "{port}-w"' for port in self._ports)

    def _filter(self, *rules):
        """All rules of the host in its chain, old and new."""
        if rules:
            self._undo.callback(self.mend)
        self._rules += rules
        chain = f"bridge faults {self.name}"
        lines = [f"add chain {chain}", f"flush chain {chain}", *(f"add rule {chain} {rule}" for rule in self._rules)]
        if f"jump {self.name}\n" not in self._switch("nft", "list", "chain", "bridge", "faults", "each"):
            lines.append(f"add rule bridge faults each jump {self.name}")
        self._switch("nft", "-f", "-", text=lines)

    def _lay_long(self, port, seconds):
        self._switch(
            *("ip", "-batch", "-"),
            text=[
                f"link add {port}-w type veth peer name {port}-v",
                f"link set {port}-w up master br-{port[-1]}",
                f"link set {port}-v up promisc on",
                f"link set {port} nomaster promisc on",
            ],
        )
        wire = (sys.executable, "-IS", str(HERE / "wire.py"), port, f"{port}-v", str(seconds))
        self._wires[port] = subprocess.Popen(
            [*enter(self._testbed.switch, "--net"), *wire], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if self._wires[port].stdout.readline() != b"laid\n":
            raise RuntimeError(f"testbed: wire.py did not start at {port}; its error is on stderr")

    def _lay_short(self):
        while self._wires:
            port, wire = self._wires.popitem()
            wire.stdin.close()
            wire.wait()
            wire.stdout.close()
            self._switch("ip", "link", "delete", f"{port}-w")
            if f"{port}@" in self._switch("ip", "-brief", "link"):  # else it has been unplugged
                self._switch("ip", "link", "set", port, "promisc", "off", "master", f"br-{port[-1]}")

    def _lift_firewall(self):
        command(*enter(self.pid, "--net"), "nft", "add table inet faults; delete table inet faults")

    @property
    def _pid_file(self):
        return self._folder / "pid"


def enter(pid, *namespaces):
    return ("nsenter", f"--target={pid}", *namespaces, "--")


def command(*argv, text=None):
    """What it prints; an error tells what it said."""
    lines = None if text is None else text if isinstance(text, str) else "\n".join(text)
    done = subprocess.run(argv, input=lines, text=True, capture_output=True, timeout=60, env=ENVIRONMENT)
    if done.returncode:
        failed = f"{' '.join(argv)} failed ({done.returncode})"
        raise RuntimeError(f"testbed: {failed}: {done.stderr.strip()}\n{lines or ''}")
    return done.stdout


def numbers():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def running(hosts):
    """[(host, process)] of all that runs on these, but for their processes 1, in one look at this machine's."""
    homes = {}
    for host in hosts:
        with contextlib.suppress(OSError):  # it is off
            homes[os.stat(f"/proc/{host.pid}/ns/pid").st_ino] = host
    first = {host.pid for host in homes.values()}
    return [pair for pid in numbers() if pid not in first for pair in look_at(pid, homes)]


def look_at(pid, homes):
    """[(host, Process)], or [] if it is in none of these namespaces of processes, or gone."""
    with contextlib.suppress(OSError):
        if host := homes.get(os.stat(f"/proc/{pid}/ns/pid").st_ino):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            return [(host, Process(pid, name, line.decode(errors="replace")))]
    return []


def is_sshd(process):
    return process.name.startswith("sshd")


def left_behind(hosts):
    """Descriptions of the processes, and files where temporary ones are, that a test should have ended."""
    processes = [f"  process {process.pid} on {host.name}: {process.command}"
                 for host, process in running(hosts) if not is_sshd(process)]  # fmt: skip
    files = [f"  {folder}/{file} on {host.name}"
             for host in hosts for folder in TEMPORARY for file in os.listdir(host.path(folder))]  # fmt: skip
    return processes + files


def end_processes(hosts):
    """Kills what is left of tests, logins too."""
    for _, process in running(hosts):
        if "listener" not in process.command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
