"""What the tests of servers of VMs share: servers as users start them, and a program that has joined one.

May not: look into a server.
"""

import contextlib
import os
import pickle
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from tools import surroundings

from river import servers
from river._core import calls, connection, homes, serial
from river._core.connection import Connection
from river._core.reference import Context
from river._core.wire import Kind
from river.machine import facts_of_driver

COMMAND = [sys.executable, "-m", "river"]


@pytest.fixture(name="home", autouse=True)
def own_home(monkeypatch):
    """A runtime directory and a key of the test's own."""
    directory = tempfile.mkdtemp(prefix="s")
    monkeypatch.setenv("RIVER_RUNTIME_DIR", os.path.join(directory, "run"))
    monkeypatch.setenv("RIVER_KEY_FILE", os.path.join(directory, "key"))
    yield Path(directory)
    shutil.rmtree(directory)


@contextlib.contextmanager
def serving(*arguments, command=COMMAND, name="one", **env):
    """A server in the foreground, as a user starts it; what is given is its process."""
    process = subprocess.Popen(
        [*command, "vm", "start", "--foreground", "--name", name, *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings(**env),
    )
    with process:
        try:
            process.greeting = process.stdout.readline()
            assert process.greeting, process.stderr.read()
            process.address = process.greeting.split()[-1]  # with --lan
            yield process
        finally:
            process.terminate()


def river(*arguments, code=0):
    """Run a command of River's; returns what it says."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=surroundings(), timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def stranger(home):
    """A connection to the server "one" of which nothing is known yet."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(home / "run" / "one.sock"))
    sock.settimeout(60)
    return sock


class Driver:
    """This process, joined to a server: it starts VMs as a pool does."""

    def __init__(self, want, initializer=None, server=None, env=(), **more):
        self.joined = servers.join(server or servers.find(lan=False)[0], want, "test", **more)
        self.line = self.joined.line
        self.vms = {}  # their lines
        self._env = dict(env)  # variables for VMs
        self._initialize = serial.dumps((initializer, ()), Context(None)) if initializer else None

    def send_start(self, name):
        buffers, descriptors, packed = [], [], None
        if self.line.can_pass:
            ours, theirs = connection.pair()
            descriptors.append(theirs.detach())
            self.vms[name] = Connection(ours)
        if self._initialize:
            segments = calls.specify(self._initialize.segments, buffers, descriptors, self.line.can_pass)
            packed = self._initialize.blob, segments
        options = {"argv": [""], "is_fresh": True, "main_file": None, "main_package": None, "facts": facts_of_driver(),
                   "name": name, "initialize": packed, "uuid": homes.new_home(), "driver": homes.place().home,
                   "env": self._env}
        self.line.send(Kind.START, pickle.dumps((name, options)), buffers, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def start(self, name):
        self.send_start(name)
        if not self.line.can_pass:
            self.vms[name] = self.joined.open(name, 60)

    def heard(self):
        """The next things that the supervisor says: [(kind, name, what)]."""
        frames = next_frames(self.line)
        return [(frame.kind, *pickle.loads(frame.payload)) for frame, _ in frames]

    def heard_until(self, kind):
        """The same until there is one of this kind."""
        events = []
        while not events or events[-1][0] != Kind[kind]:
            events += self.heard()
        return events

    def started(self, name):
        """Start a VM; returns its pid when it is ready."""
        self.start(name)
        ((kind, who, pid),) = self.heard()
        assert (kind, who) == (Kind.STARTED, name)
        ((frame, _),) = next_frames(self.vms[name])
        assert frame.kind == Kind.READY
        return pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.line.close()
        for vm in self.vms.values():
            vm.close()


def next_frames(line):
    while True:
        assert select.select([line], [], [], 60)[0], "nothing came"
        frames = line.receive()
        if frames:
            return frames


def ended(pid):
    """True when a process is gone (a zombie is)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def free():
    (server,) = servers.find(lan=False)
    return server.free
