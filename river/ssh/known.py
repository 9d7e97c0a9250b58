"""known_hosts: whether a host's key is the one that is known.

Each line is looked at on its own, so that one which is not understood hides no other: `markers names kind key comment`.

May not: write such a file, or decide what to do with a host that is not in it.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Entry(NamedTuple):
    """A line.  marker: "", "@revoked" or "@cert-authority"."""

    place: str
    marker: str
    names: str
    kind: str
    key: bytes


class Verdict(NamedTuple):
    """is_known: "yes"; "changed": another key of this kind is known; "no"; "revoked". entries: the lines that say so.

    has_authority: whether a certificate would be accepted, which paramiko cannot ask for."""

    is_known: str
    entries: list[Entry]
    has_authority: bool


def read(files: Iterable[str]) -> list[Entry]:
    """All lines of those files that exist and can be read."""
    return [entry for file in files for entry in _read(file)]


def kinds(entries: list[Entry], names: Sequence[str]) -> list[str]:
    """Of which kinds keys are known, to ask the host for one of those."""
    for name in names:
        if found := [entry.kind for entry in entries if not entry.marker and is_named(entry.names, name)]:
            return found
    return []


def judge(entries: list[Entry], names: Sequence[str], kind: str, key: bytes) -> Verdict:
    """What the entries say of a host of these names (the others count if the first is unknown) that has this key."""
    mine = [entry for entry in entries if any(is_named(entry.names, name) for name in names)]
    has_authority = any(entry.marker == "@cert-authority" for entry in mine)
    if revoked := [entry for entry in mine if entry.marker == "@revoked" and entry.key == key]:
        return Verdict("revoked", revoked, has_authority)
    plain = [entry for entry in mine if not entry.marker]
    if same := [entry for entry in plain if entry.key == key]:
        return Verdict("yes", same, has_authority)
    # Another key under the name without port is another server's.
    named = [entry for entry in plain if is_named(entry.names, names[0])]
    if others := [entry for entry in named if entry.kind == kind] or named:
        return Verdict("changed", others, has_authority)
    return Verdict("no", [], has_authority)


def is_named(patterns: str, name: str) -> bool:
    """Whether the names of a line fit: hashed, or a list with * and ?, of which those with ! must not."""
    if patterns.startswith("|1|"):
        return _is_hash_of(patterns, name)
    fits = False
    for pattern in patterns.lower().split(","):
        is_exception = pattern.startswith("!")
        if fnmatch.fnmatchcase(name.lower(), _literal(pattern.lstrip("!"))):
            if is_exception:
                return False
            fits = True
    return fits


def fingerprint(key: bytes) -> str:
    """As `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _literal(pattern: str) -> str:
    """[ means itself in a list of names, as in [host]:port."""
    return pattern.replace("[", "[[]")


def _is_hash_of(text: str, name: str) -> bool:
    try:
        salt, expected = (base64.b64decode(part) for part in text[3:].split("|"))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.lower().encode(), "sha1"), expected)


def _read(file: str) -> Iterator[Entry]:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            lines = stream.readlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        if entry := _parse(line, f"{file}:{number}"):
            yield entry


def _parse(line: str, place: str) -> Entry | None:
    found = re.match(r"\s*(@\S+)?\s*([^\s#@]\S*)\s+(\S+)\s+(\S+)", line)
    if found is None:
        return None
    marker, names, kind, text = found.groups(default="")
    try:
        return Entry(place, marker, names, kind, base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        return None
