"""The cluster key, and the private directory: what tells this user's programs from everybody else's.

The key is 32 random bytes, one line of 64 hexadecimal digits in a file that only its owner can read.  It is made when
it is first needed.  Machines whose VMs shall work together need the same key.

May not: talk to anybody, or show the key.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
import tempfile
from pathlib import Path

from .mishaps import NotPrivate

SIZE = 32
_TEXT = re.compile(r"[0-9a-fA-F]{64}")


def path() -> Path:
    """Where the key is: $RIVER_KEY_FILE, or ~/.config/river/key."""
    chosen = os.environ.get("RIVER_KEY_FILE")
    return Path(chosen) if chosen else Path.home() / ".config" / "river" / "key"


def load() -> bytes:
    """The user's key; makes one if there is none yet.

    Raises NotPrivate when others can read the file or it is another user's, ValueError when it holds no key.
    """
    file = path()
    try:
        return _read(file)
    except FileNotFoundError:
        _write(os.urandom(SIZE), file, replace=False)
        return _read(file)  # if somebody else was faster, theirs


def save(key: bytes) -> None:
    """Make this the user's key, in place of another if there is one."""
    _write(key, path(), replace=True)


def parse(text: str) -> bytes:
    """A key out of its line.  Raises ValueError (which does not repeat the text) when it is none."""
    if not _TEXT.fullmatch(text.strip()):
        raise ValueError(f"a key is one line of {2 * SIZE} hexadecimal digits; `river key --show` prints one")
    return bytes.fromhex(text.strip())


def fingerprint(key: bytes) -> str:
    """16 digits by which people and programs tell keys apart, and which do not help to guess the key."""
    return hmac.digest(key, b"river fingerprint", "sha256").hex()[:16]


def _read(file: Path) -> bytes:
    with open(file) as stream:
        found = os.fstat(stream.fileno())
        if found.st_uid != os.geteuid():
            raise NotPrivate(
                f"the cluster key {file} belongs to user {found.st_uid}, not to you; remove it, or set "
                "RIVER_KEY_FILE to a file of your own"
            )
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise NotPrivate(
                f"others can read the cluster key {file}: they may know it by now, so make another with "
                f"`river key --new`; or, if you are sure that they do not, `chmod 600 {file}`"
            )
        text = stream.read(1000)
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{file} holds no cluster key: {error}; `river key --new` makes one") from None


def _write(key: bytes, file: Path, replace: bool) -> None:
    """Put a key there, whole or not at all; without `replace`, only if there is none."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=".key-", dir=file.parent)  # O_EXCL and mode 0600
    try:
        with open(number, "w") as stream:
            stream.write(key.hex() + "\n")
        if replace:
            os.replace(name, file)
        else:
            os.link(name, file)  # unlike rename, it does not replace what another process has just made
    except FileExistsError:
        pass
    finally:
        Path(name).unlink(missing_ok=True)


def has_servers() -> bool:
    """Whether there may be servers here, or elsewhere and named; makes nothing, and costs next to nothing."""
    return bool(os.environ.get("RIVER_SERVERS")) or any(runtime_path().glob("*.sock"))


def runtime_path() -> Path:
    """Where the directory for sockets and logs is, or would be."""
    chosen, given = os.environ.get("RIVER_RUNTIME_DIR"), os.environ.get("XDG_RUNTIME_DIR")
    if chosen:
        return Path(chosen)
    return Path(given, "river") if given else Path(tempfile.gettempdir(), f"river-{os.geteuid()}")


def runtime_directory() -> Path:
    """The directory for sockets and logs, which only this user can enter; it is made if it is not there.

    $RIVER_RUNTIME_DIR, or $XDG_RUNTIME_DIR/river, or river-<uid> in the temporary directory.  Raises NotPrivate.
    """
    directory = runtime_path()
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        pass
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        problem = "is a link or a file, not a directory"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to user {found.st_uid}, not to you"
    elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        problem = f"can be entered by others (mode {found.st_mode & 0o777:o})"
    else:
        return directory
    raise NotPrivate(
        f"River's runtime directory {directory} {problem}; remove it, or set RIVER_RUNTIME_DIR to a "
        "directory that only you can enter (mode 700)"
    )
