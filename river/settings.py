"""river.toml: the tables that the project's file and the user's own give a name to.

    $RIVER_CONFIG alone, if it is set; else both of
    river.toml in the current directory, or in the nearest parent that has one     (the project's)
    $XDG_CONFIG_HOME/river/river.toml, by default ~/.config/river/river.toml       (the user's)

What the project's file gives a name to takes the place, whole, of what the user's file gives that name to.

May not: know what is in a table, or import TOML when there is no file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .mishaps import NotPrivate

if TYPE_CHECKING:
    from pathlib import Path

HOSTS, CLUSTERS = "hosts", "clusters"
ROOT = 0  # whose files are as good as our own


class Table(NamedTuple):
    """One table. kind: HOSTS or CLUSTERS. where: file and table, for errors. directory: of the file."""

    kind: str
    where: str
    directory: Path
    values: dict[str, Any]


def tables() -> dict[str, Table]:
    """All tables by their names.

    Raises ValueError for what is no such file, FileNotFoundError when $RIVER_CONFIG names none, NotPrivate for a
    project's file of another user, and ImportError when this Python cannot read TOML.
    """
    found: dict[str, Table] = {}
    for file in _files():
        found |= _read(file)
    return found


def _files() -> Iterator[str]:
    """The files that there are; a later one goes before an earlier one."""
    chosen = os.environ.get("RIVER_CONFIG")
    if chosen:
        file = os.path.expanduser(chosen)
        if not os.path.isfile(file):
            raise FileNotFoundError(f"$RIVER_CONFIG names {file}, and there is no such file; correct or unset it")
        yield file
        return
    own = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "river", "river.toml")
    if os.path.isfile(own):
        yield own
    project = next(filter(os.path.isfile, _upwards(os.getcwd())), None)
    if project is not None and project != own:
        _check_owner(project)
        yield project


def _upwards(directory: str) -> Iterator[str]:
    """Where the project's file may be, from this directory on."""
    above = ""
    while directory != above:
        yield os.path.join(directory, "river.toml")
        above, directory = directory, os.path.dirname(directory)


def _check_owner(file: str) -> None:
    """A file can make ssh run commands here, and /tmp is a parent directory in which everybody may put one."""
    owner = os.stat(file).st_uid
    if hasattr(os, "geteuid") and owner not in (os.geteuid(), ROOT):
        raise NotPrivate(
            f"{file} belongs to user {owner}, not to you; if you trust it, set RIVER_CONFIG={file}, "
            "otherwise set RIVER_CONFIG to a file of your own"
        )


def _read(name: str) -> dict[str, Table]:
    from pathlib import Path  # it takes longer than all of this where there is no file

    file = Path(name)
    found: dict[str, Table] = {}
    for kind, named in _parsed(file).items():
        if kind not in (HOSTS, CLUSTERS) or not isinstance(named, dict):
            raise ValueError(f"{file}: [{kind}] is not known; its tables are [{HOSTS}.NAME] and [{CLUSTERS}.NAME]")
        for name, values in named.items():
            where = f"{file}, [{kind}.{name}]"
            if not isinstance(values, dict):
                raise ValueError(f"{where} must be a table, not {values!r}")
            if name in found:
                raise ValueError(f"{where}: {found[name].kind} has the name {name!r} too; give one of them another")
            found[name] = Table(kind, where, file.parent, values)
    return found


def _parsed(file: Path) -> dict[str, Any]:
    try:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
    except ImportError:
        raise ImportError(f'this Python needs tomli to read {file}: pip install "riverpool[toml]"') from None
    try:
        found: dict[str, Any] = tomllib.loads(file.read_bytes().decode())
        return found
    except ValueError as error:
        raise ValueError(f"{file} is not TOML: {error}") from None
