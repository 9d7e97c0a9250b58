"""The two commands of a newcomer: `dev.py`, in what looks like a checkout, and nothing to download."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "dev.py"
VENV = f".venv-{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "dev.py").write_text(SCRIPT.read_text())
    (tmp_path / "setup.cfg").write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def dev(checkout, *arguments, prelude="", **environment):
    """Runs dev.py as `python3 dev.py ...` does, after `prelude`."""
    program = f"import runpy, sys\n{prelude}\nrunpy.run_path('dev.py', run_name='__main__')"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=checkout,
        env={**kept, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def prepared(checkout, *commands, script='echo "ran $@"\n'):
    """An environment that looks installed; its Python is a shell script."""
    python = checkout / VENV / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n" + script)
    python.chmod(0o755)
    code = "import dev; print(dev.fingerprint(), end='')"
    fingerprint = subprocess.check_output([sys.executable, "-c", code], cwd=checkout)
    for command in commands:
        (checkout / VENV / f"installed-for-{command}").write_bytes(fingerprint)


def test_demo_runs_the_word_count_and_hands_its_arguments_on(checkout):
    prepared(checkout, "demo")

    done = dev(checkout, "demo", "--quick")

    assert (done.returncode, done.stdout) == (0, "ran examples/wordcount.py --quick\n")


def test_an_environment_is_used_again_and_gets_only_what_it_lacks(checkout):
    prepared(checkout, "demo")

    first = dev(checkout, "test").stdout.splitlines()
    second = dev(checkout, "test").stdout.splitlines()

    assert [line for line in first if "pip install" in line] == [
        "ran -m pip install --quiet --disable-pip-version-check --editable .[progress,test,lint]"
    ]
    assert not any("pip" in line or "making" in line for line in second)


def test_programs_that_tests_need_are_installed_by_root_on_debian_and_named_elsewhere(checkout):
    prepared(checkout, "test")
    tools = checkout / "tools"
    tools.mkdir()
    apt = tools / "apt-get"
    apt.write_text("#!/bin/sh\necho apt-get $@ >> apt.log\n")
    apt.chmod(0o755)
    as_root = (
        "import os, shutil\n"
        "found = shutil.which\n"
        "shutil.which = lambda name, path=None: None if name == 'sshd' else '/bin/true' if path else found(name)\n"
        "os.geteuid = lambda: {user}\n"
        "may = os.access\n"
        "os.access = lambda path, mode: path != '/usr/sbin' and may(path, mode)"  # nothing is written outside
    )
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"

    elsewhere = dev(checkout, "test", prelude=as_root.format(user=1000), PATH=path).stdout
    assert "not here: openssh-server; tests that need them are skipped" in elsewhere
    assert not (checkout / "apt.log").exists()
    dev(checkout, "test", prelude=as_root.format(user=0), PATH=path)
    assert "install -y --no-install-recommends openssh-server" in (checkout / "apt.log").read_text()


@pytest.mark.parametrize("failing", ["ruff", "mypy", "pytest"])
def test_test_runs_style_types_and_tests_whichever_fails_and_fails_itself(checkout, failing):
    prepared(checkout, "test", script=f'echo "$2"; [ "$2" != {failing} ]\n')

    done = dev(checkout, "test")

    said = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line for line in said if line in ("ruff", "mypy", "pytest")] == ["ruff", "mypy", "pytest"]
    assert said[-1] == "pytest"


def test_test_succeeds_when_all_three_do(checkout):
    prepared(checkout, "test")

    assert dev(checkout, "test").returncode == 0


def test_changed_settings_make_a_new_environment_and_a_failing_pip_is_explained(checkout):
    prepared(checkout, "demo")
    (checkout / "setup.cfg").write_text("[metadata]\nname = changed\n")

    done = dev(checkout, "demo")

    assert f"making {checkout / VENV}" in done.stdout
    assert "pip could not install River" in done.stderr
    assert "check the network or proxy" in done.stderr
    assert done.returncode == 1
    assert not (checkout / VENV / "installed-for-demo").exists()


@pytest.mark.parametrize("missing", ["ensurepip", "venv"])
def test_a_python_without_venv_is_told_what_to_install(checkout, missing):
    done = dev(checkout, "demo", prelude=f"sys.modules[{missing!r}] = None")

    assert missing in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert done.returncode == 1


def test_an_older_python_is_told_so(checkout):
    done = dev(checkout, "demo", prelude="sys.version_info = (3, 9, 0)")

    assert "River needs Python 3.10 or newer" in done.stderr
    assert done.returncode == 1
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))  # so it gets as far as saying that


@pytest.mark.parametrize("arguments", [(), ("tset",)])
def test_without_a_known_command_both_are_explained(checkout, arguments):
    done = dev(checkout, *arguments)

    assert "dev.py demo" in done.stdout and "dev.py test" in done.stdout
    assert done.returncode == 2
