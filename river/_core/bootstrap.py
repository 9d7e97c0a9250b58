"""Turns a bare Python on another machine into River's agent, from memory: nothing is written there, or installed.

    driver                                                              machine
    login, then: sh -c '<which Python?>' '<first lines>'   --------->   sh, then the first lines in Python
                                                           <---------   mark, facts (JSON): version, path, host
    checks that the versions agree
    lengths, archive of River's modules, settings          --------->   archive into memory, `agent.main(settings)`

The first lines have to be read by any Python since 2.7, so that an old one can be named; they hold no character that
some login shell treats in a way of its own.  Nothing is sent before the mark has been seen: what start-up files print
or read disturbs nothing.

May not: log in anywhere, or wait.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import marshal
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Sequence
from types import CodeType
from typing import Any

# What the agent, supervisors and VMs consist of (`tests/test_layers.py` holds the same list: BOOT).
MODULES = (
    "river._core",
    *(f"river._core.{name}" for name in ("wire", "shm", "calls", "namespaces", "connection", "relay", "reference")),
    *(f"river._core.{name}" for name in ("serial", "structures", "answers", "process", "worker", "vm", "supervisor")),
    *(f"river._core.{name}" for name in ("homes", "packet", "letters", "remote", "envelope", "post", "box", "store")),
    *(f"river._core.{name}" for name in ("lines", "questions", "residents", "introductions", "bridge", "child")),
    "river._core.supplier",
    "river.errors",
    "river.mishaps",
    *(f"river._core.{name}" for name in ("handshake", "memory", "orphans", "tls", "carrier", "cpus")),
    *(f"river._core.{name}" for name in ("direct", "logs", "modules", "output", "records", "loop", "listener", "way")),
    *(f"river._core.{name}" for name in ("memories", "channel", "ends", "channels", "link", "peers", "agent")),
)
_CLOUDPICKLE = ("cloudpickle", "cloudpickle.cloudpickle", "cloudpickle.cloudpickle_fast")  # the last is not in all
VERSION = sys.version_info[:2]
_USUAL = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
_LENGTHS = struct.Struct("<QQ")

_FIRST = """
import os, sys, json, platform, struct, socket
if sys.path and sys.path[0] == '': del sys.path[0]
def read(size):
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part: os._exit(3)
        parts.append(part)
        size -= len(part)
    return b''.join(parts)
facts = {'python': platform.python_version(), 'implementation': platform.python_implementation(),
    'executable': sys.executable, 'host': socket.gethostname(), 'pid': os.getpid(), 'system': sys.platform}
os.write(1, ('\\0' + 'MARK' + '\\0' + json.dumps(facts) + '\\n').encode())
archive, settings = struct.unpack('<QQ', read(16))
archive, settings = read(archive), read(settings)
incoming, outgoing, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
os.dup2(null, 0)
os.dup2(2, 1)
os.close(null)
kept = []
if hasattr(os, 'memfd_create'):
    number = os.memfd_create('river')
    os.write(number, archive)
    kept.append(number)
    sys.path.insert(0, '/proc/self/fd/%d' % number)
else:
    import importlib.abc, importlib.util, io, marshal, zipfile
    class Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
        files = zipfile.ZipFile(io.BytesIO(archive))
        def where(self, name):
            base = name.replace('.', '/')
            return [f for f in (base + '/__init__.pyc', base + '.pyc') if f in self.files.namelist()]
        def find_spec(self, name, path, target=None):
            if self.where(name): return importlib.util.spec_from_loader(name, self)
        def is_package(self, name): return self.where(name)[0].endswith('/__init__.pyc')
        def get_source(self, name): return None
        def get_code(self, name): return marshal.loads(self.files.read(self.where(name)[0])[16:])
    sys.meta_path.insert(0, Finder())
import pickle
from river._core.agent import main
settings = pickle.loads(settings)
settings['kept'] = kept
main(settings, incoming, outgoing)
"""


def command(mark: str, interpreters: Sequence[str], prelude: str = "") -> str:
    """What a login shell is to run: the first of these Pythons that is there, on the first lines.

    prelude: shell text that is run before, for `module load` and the like.
    """
    text = zlib.compress(_FIRST.replace("MARK", mark).encode(), 9)
    lines = f'import base64,zlib;exec(zlib.decompress(base64.b64decode("{base64.b64encode(text).decode()}")))'
    # printf makes it of octal digits, which no shell touches.
    before = f'eval "$(printf %b "{_octal(prelude)}")"; ' if prelude else ""
    names = " ".join(map(_word, interpreters))
    # Where a start-up file has narrowed the search, Python is still looked for where it usually is.
    before += f"PATH=$PATH:{_USUAL}; "
    # What pyenv and asdf have in PATH for a version may say only that this version is not to be used here.
    usable = 'case "$w" in */shims/*) "$p" -c "" </dev/null >/dev/null 2>&1 || continue;; esac'
    search = f'for p in {names}; do w=$(command -v "$p" 2>/dev/null) || continue; {usable}; exec "$p" -c "$0"; done'
    missing = f'echo "no Python: none of {" ".join(filter(_is_simple, interpreters))} in PATH=$PATH" >&2; exit 127'
    return f"exec /bin/sh -c '{before}{search}; {missing}' '{lines}'"


def _word(name: str) -> str:
    """A path as a word of the shell."""
    if name.startswith("~/"):
        return f'"$HOME"/{_word(name[2:])}'
    return name if _is_simple(name) else f'"$(printf %b "{_octal(name)}")"'


def _is_simple(text: str) -> bool:
    return all(c.isalnum() or c in "._/-+" for c in text)


def _octal(text: str) -> str:
    return "".join(f"\\0{byte:03o}" for byte in text.encode())


def payload(settings: dict[str, Any]) -> bytes:
    """What is sent when the mark has been seen, and the versions agree."""
    archive, packed = modules(), pickle.dumps(settings, 4)
    return _LENGTHS.pack(len(archive), len(packed)) + archive + packed


@functools.lru_cache(1)
def modules() -> bytes:
    """A zip archive of River's modules and cloudpickle, compiled: both sides run the driver's."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("river", "river.version", *MODULES, *_CLOUDPICKLE):
            spec = importlib.util.find_spec(name)
            if spec is None:
                continue
            code = spec.loader.get_code(name)  # type: ignore[union-attr]
            path = name.replace(".", "/") + ("/__init__" if spec.submodule_search_locations else "")
            archive.writestr(path + ".pyc", _compiled(code))
    return out.getvalue()


def _compiled(code: CodeType) -> bytes:
    # The flags say that no source is to be compared with it.
    return importlib.util.MAGIC_NUMBER + struct.pack("<I", 1) + bytes(8) + marshal.dumps(code)


def differs(facts: dict[str, Any]) -> str:
    """Why a Python that says this of itself cannot be used; "" if it can."""
    ours = "{}.{}".format(*VERSION)
    theirs = ".".join(str(facts.get("python", "")).split(".")[:2])
    kind = facts.get("implementation", "")
    if theirs == ours and kind == "CPython":
        return ""
    return (
        f"{facts.get('executable')} is {kind} {facts.get('python')}, and this program runs CPython {ours}: functions "
        f"cannot travel between the two"
    )
