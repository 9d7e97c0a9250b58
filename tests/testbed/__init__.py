"""A network of machines with sshd inside this one: what tests of machines over SSH run on.

    control ----+---- switch ----+---- node1 ... node20        10.79.0.11 ... 10.79.0.30
    10.79.0.1                    |
                                 +---- bastion ---- inner      10.79.0.50 and 10.80.0.50, 10.80.0.51

A host is a set of namespaces: it has its own network, processes, hostname, file system (64 MB, /root, /home, /tmp,
/opt and /usr/local of its own), /dev/shm, users root and river, sshd as Debian ships it, and a Python without
packages, of the version that runs the tests.  A host starts when it is first asked for, in a quarter of a second.
No packet can leave: nothing of it is connected to this machine's network.

Tests have it by the fixture `testbed` (see testbed/fixture.py), and run in the network namespace `control` then:

    def test_...(testbed):
        node1, node2 = testbed.nodes(2)
        login(Host("node1", config=testbed.config))
        node1.cut()              # all faults: testbed/host.py
        node1.processes()

By hand: `python tests/testbed 4 bash` starts four hosts and a shell on the control side.

Any number of testbeds may be there at once.  Whatever its process dies of, switch.sh removes the testbed.
Needs root on Linux, with PROGRAMS; fixture.py skips where they are not.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import cgroups
from .held import Held
from .host import ENVIRONMENT, HERE, Host, command

PROGRAMS = {  # and the package of Debian and Ubuntu that brings it
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "ss": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
LINKS = {f"node{number}": {"a": f"10.79.0.{10 + number}"} for number in range(1, 21)}
LINKS |= {"bastion": {"a": "10.79.0.50", "b": "10.80.0.50"}, "inner": {"b": "10.80.0.51"}}
CONTROL = {"a": "10.79.0.1"}
CLONE_NEWNET = 0x40000000
MINE = f"{sys.version_info[0]}.{sys.version_info[1]}"
# The user's own folder and names, as seen by one command only.
AS_USER = 'mount --bind "$1" "$2"; mount --bind "$3" /etc/hosts; shift 3; exec "$@"'

CONFIG = """\
Host *
  User root
  IdentityFile {folder}/ssh/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/ssh/known_hosts
  GlobalKnownHostsFile /dev/null
"""


def missing():
    """Why there can be no testbed here, or None."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root, who may make network namespaces"
    for program, package in PROGRAMS.items():
        if not shutil.which(program, path=ENVIRONMENT["PATH"]):
            return f"needs {program} (apt-get install {package})"
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode:
        return "needs to be allowed to make namespaces (a container needs --privileged)"
    return None


class Testbed:
    """Whoever makes it calls close() in the end; `config` is the client's ssh_config."""

    __test__ = False  # pytest takes it for tests else

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="river-testbed-", dir="/run"))
        self.name = self.folder.name
        self.config = str(self.folder / "ssh/config")
        self.known_hosts = str(self.folder / "ssh/known_hosts")
        self.key = str(self.folder / "ssh/id_ed25519")
        self._hosts = {}
        self._home = Held(Path("~root/.ssh").expanduser())  # where ssh looks, whatever HOME is
        self._write_files()
        self._start_switch()

    def _write_files(self):
        ssh = self.folder / "ssh"
        ssh.mkdir(mode=0o700)
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "testbed", "-f", self.key)
        Path(self.known_hosts).touch()
        jump = {"inner": "  ProxyJump bastion\n"}
        hosts = [
            f"Host {name}\n  HostName {address}\n{jump.get(name, '')}"
            for name, links in LINKS.items()
            for address in list(links.values())[:1]
        ]
        Path(self.config).write_text("".join(hosts) + CONFIG.format(folder=self.folder))
        names = [f"{address} {name}" for name, links in LINKS.items() for address in links.values()]
        self.folder.joinpath("hosts").write_text("\n".join(["127.0.0.1 localhost", "10.79.0.1 control", *names, ""]))

    def _start_switch(self):
        """Not as a child: what a test finds among its own children is what it has left behind."""
        script = ["bash", str(HERE / "switch.sh"), str(self.folder), *map(str, cgroups.folders(self.name))]
        process = subprocess.Popen(
            ["setsid", "--fork", *script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": ENVIRONMENT["PATH"]},
        )
        process.wait()
        self._lines, self._answers = process.stdin, process.stdout
        numbers = self._answers.readline().split()
        if len(numbers) != 2:
            raise RuntimeError("testbed: the switch did not start; its error is on stderr")
        self.switch = int(numbers[0])
        self.control = Host(self, "control", CONTROL)
        self.folder.joinpath("control").mkdir()
        self.folder.joinpath("control/pid").write_text(numbers[1])
        self.control.plug(self.control.pid)

    def tell_switch(self, *words):
        self._lines.write(" ".join(words) + "\n")
        self._lines.flush()

    # --------------------------------------------------------------------------------- its hosts

    def host(self, name):
        """The host of that name, running."""
        return self.hosts(name)[0]

    def nodes(self, count=4):
        """[node1, node2, ...], running; up to 20."""
        return self.hosts(*(f"node{number}" for number in range(1, count + 1)))

    def hosts(self, *names):
        """Those of these names, running; without names, all that have been started so far."""
        new = [name for name in names if name not in self._hosts]
        for name in new:
            self._hosts[name] = Host(self, name, LINKS[name])
            self._hosts[name].start(self.pythons())
        for name in new:
            self._hosts[name].wait_until_up()
            self._trust(self._hosts[name])
        return [self._hosts[name] for name in names or self._hosts]

    def heal(self):
        """Undoes the faults of all."""
        with contextlib.ExitStack() as every:
            for host in (self.control, *self._hosts.values()):
                every.callback(host.heal)

    def _trust(self, host):
        kind, key, _ = self.folder.joinpath(host.name, "ssh_host_ed25519_key.pub").read_text().split()
        with open(self.known_hosts, "a") as file:
            file.write(f"{','.join([host.name, *host.links.values()])} {kind} {key}\n")

    def pythons(self, *versions):
        """{version: where it is installed here}; LookupError names those that are."""
        known = installed_pythons()
        if unknown := {*versions} - {*known, "none"}:
            raise LookupError(f"testbed: no Python {', '.join(unknown)} on this machine; there are {', '.join(known)}")
        return {version: known[version] for version in versions or (MINE,) if version != "none"}

    # --------------------------------------------------------------------------- the control side

    @contextlib.contextmanager
    def inside(self):
        """This thread, and all threads and processes that it starts, are on the network of the control side."""
        with open("/proc/thread-self/ns/net") as before, open(f"/proc/{self.control.pid}/ns/net") as control:
            set_network(control)
            try:
                yield
            finally:
                set_network(before)

    def as_user(self, *argv):
        """The command that runs `argv` with ~/.ssh and /etc/hosts of the control side; call it inside()."""
        self._home.make()
        return ["unshare", "--mount", "sh", "-ec", AS_USER, "-", str(self.folder / "ssh"), str(self._home.folder),
                str(self.folder / "hosts"), *argv]  # fmt: skip

    def close(self):
        """Ends all that runs on it and removes it.  Twice is fine."""
        if not self._lines.closed:
            self.tell_switch("end")  # said, as a forked child may hold the line open
            self._lines.close()
            self._answers.read()  # ends with the guardian, who removes everything
            self._answers.close()
            self._home.let_go()


def set_network(file):
    """Of this thread; os.setns() is new in Python 3.12."""
    if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "testbed: this thread could not change its network")


def installed_pythons():
    """{version: folder} of pyenv's, the system's, and the one that runs this."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {".".join(folder.name.split(".")[:2]): str(folder) for folder in sorted(versions.glob("[23].*.*"))}
    for program in Path("/usr/bin").glob("python3.*[0-9]"):
        found.setdefault(program.name.removeprefix("python"), "/usr")
    return {**found, MINE: sys.base_prefix}
