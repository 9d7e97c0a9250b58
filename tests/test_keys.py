"""The cluster key is one user's, whole, and made once; the runtime directory is nobody else's."""

import multiprocessing.pool
import os
import stat
import subprocess
import sys

import pytest
from tools import surroundings

from river import keys
from river.errors import NotPrivate


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where the key will be."""
    path = tmp_path / "config" / "key"
    monkeypatch.setenv("RIVER_KEY_FILE", str(path))
    return path


def river(*arguments, input=""):
    """Run a command of River's; returns (exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "river", *arguments],
        input=input, capture_output=True, text=True, env=surroundings(), timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_key_is_made_when_it_is_first_needed_and_then_stays(file):
    first = keys.load()

    assert len(first) == keys.SIZE and keys.load() == first
    assert file.read_text() == first.hex() + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert os.listdir(file.parent) == ["key"]


def test_without_a_variable_the_key_is_in_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("RIVER_KEY_FILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert keys.path() == tmp_path / ".config" / "river" / "key"


def test_many_who_need_the_first_key_at_once_get_the_same(file):
    with multiprocessing.pool.ThreadPool(8) as threads:
        found = threads.map(lambda _: keys.load(), range(8))

    assert len(set(found)) == 1
    assert os.listdir(file.parent) == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(file, mode):
    keys.load()
    file.chmod(mode)

    with pytest.raises(NotPrivate, match="river key --new"):
        keys.load()


def test_a_key_of_another_user_is_refused(file, monkeypatch):
    keys.load()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(NotPrivate, match="belongs to user"):
        keys.load()


@pytest.mark.parametrize("text", ["", "secret", "ab" * 31, "ab" * 33, "zz" * 32])
def test_what_is_no_key_is_refused_and_not_repeated(file, text):
    keys.load()
    file.write_text(text)

    with pytest.raises(ValueError, match="holds no cluster key") as caught:
        keys.load()
    assert not text or text not in str(caught.value)


def test_fingerprints_tell_keys_apart_and_do_not_show_them():
    one, other = bytes(32), bytes(31) + b"\1"

    assert keys.fingerprint(one) == keys.fingerprint(one) != keys.fingerprint(other)
    assert len(keys.fingerprint(one)) == 16 and keys.fingerprint(one) not in one.hex()


# ---------------------------------------------------------------------------------------------- the command


def test_river_key_prints_where_the_key_is_and_its_fingerprint_but_never_the_key(file):
    code, said, _ = river("key")
    key = keys.load()

    assert (code, said) == (0, f"{file}: fingerprint {keys.fingerprint(key)}\n")
    assert key.hex() not in said


def test_a_key_is_carried_from_one_machine_to_another(file, monkeypatch):
    _, shown, _ = river("key", "--show")
    monkeypatch.setenv("RIVER_KEY_FILE", str(file) + "-elsewhere")
    _, before, _ = river("key")
    code, after, _ = river("key", "--set", input=shown)

    assert shown == file.read_text()
    assert code == 0 and keys.load().hex() + "\n" == shown
    assert before.split()[-1] != after.split()[-1] == keys.fingerprint(keys.parse(shown))


def test_river_key_set_keeps_the_old_key_when_it_is_given_none(file):
    before = keys.load()
    code, said, error = river("key", "--set", input="not a key\n")

    assert (code, said) == (1, "") and "64 hexadecimal digits" in error
    assert keys.load() == before


def test_river_key_new_replaces_even_a_key_that_others_could_read(file):
    before = keys.load()
    file.chmod(0o644)
    code, _, _ = river("key", "--new")

    assert code == 0 and keys.load() != before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# ------------------------------------------------------------------------------------ the runtime directory


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RIVER_RUNTIME_DIR": "{tmp}/mine", "XDG_RUNTIME_DIR": "{tmp}"}, "mine"),
        ({"XDG_RUNTIME_DIR": "{tmp}"}, "river"),
        ({"TMPDIR": "{tmp}"}, f"river-{os.geteuid()}"),
    ],
)
def test_the_runtime_directory_is_made_for_its_owner_only(monkeypatch, tmp_path, variables, expected):
    for name in ("RIVER_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    directory = keys.runtime_directory()

    assert directory == tmp_path / expected == keys.runtime_directory()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def open_to_all(path):
    path.mkdir()
    path.chmod(0o755)


def link(path):
    (path.parent / "target").mkdir(mode=0o700)
    path.symlink_to(path.parent / "target")


@pytest.mark.parametrize(
    ("make", "problem"),
    [(open_to_all, "can be entered by others"), (link, "is a link"), (lambda path: path.touch(0o700), "or a file")],
)
def test_a_runtime_directory_that_is_not_private_is_refused(monkeypatch, tmp_path, make, problem):
    monkeypatch.setenv("RIVER_RUNTIME_DIR", str(tmp_path / "run"))
    make(tmp_path / "run")

    with pytest.raises(NotPrivate, match=problem):
        keys.runtime_directory()


def test_a_runtime_directory_of_another_user_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("RIVER_RUNTIME_DIR", str(tmp_path / "run"))
    keys.runtime_directory()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(NotPrivate, match="belongs to user"):
        keys.runtime_directory()
