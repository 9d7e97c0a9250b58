#!/usr/bin/env python3
"""From a checkout to a running River in one command, with nothing but Python.

    python3 dev.py demo    count the words of the standard library, on all cores
    python3 dev.py test    style (ruff), types (mypy --strict) and tests (pytest)

The tests of machines over SSH need programs of the system.  As root on Debian or Ubuntu, `test` installs those that are
missing; elsewhere it says which, and those tests are skipped.

Each makes a virtual environment in this folder (.venv-3.11 for Python 3.11), installs River and
what the command needs in it, and runs.  A second call reuses it, until setup.cfg or pyproject.toml changes.
Arguments after the command's name go on to the demo, or to pytest.

Rule: the standard library only, and no syntax newer than Python 3.6: an older Python must get as
far as being told that it is too old.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, f".venv-{sys.version_info[0]}.{sys.version_info[1]}")
PYTHON = os.path.join(VENV, "bin", "python")

EXTRAS = {"demo": "progress", "test": "progress,test,lint"}
# Programs that some tests need, and Debian's packages that have them.
PROGRAMS = {"sshd": "openssh-server", "ssh": "openssh-client", "ip": "iproute2", "nft": "nftables"}
CHECKS = {
    "style": ["ruff", "check", "--output-format=concise"],
    "types": ["mypy", "--strict", "river"],
}


def main(argv):
    if len(argv) < 2 or argv[1] not in EXTRAS:
        print(__doc__.strip())
        return 0 if argv[1:] in (["-h"], ["--help"]) else 2
    command, rest = argv[1], argv[2:]
    os.chdir(ROOT)
    prepare(command)
    # Ctrl-C reaches the children too and is theirs to answer; we only wait for them.
    signal.signal(signal.SIGINT, lambda *_: None)
    return {"demo": demo, "test": test}[command](rest)


def demo(rest):
    return run("examples/wordcount.py", *rest)


def test(rest):
    """All three, whatever the first two find; pytest last, so that its summary is the last line."""
    provide_programs()
    failed = 0
    for name, arguments in CHECKS.items():
        code = run("-m", *arguments)
        say(f"{name} FAILED; so does this command, whatever the tests say" if code else f"{name} passed")
        failed = failed or code
    return run("-m", "pytest", *rest) or failed


def provide_programs():
    """Installs what tests need of the system, where that is ours to do; else says what is missing."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
    missing = sorted(PROGRAMS[name] for name in PROGRAMS if not shutil.which(name, path=path))
    if not missing:
        return
    if os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing " + " ".join(missing) + " for the tests of machines over SSH; no service is started")
        with no_service():
            env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
            apt = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
            subprocess.call(apt + ["update"], env=env, stdout=subprocess.DEVNULL)
            install = apt + ["install", "-y", "--no-install-recommends"] + missing
            if not subprocess.call(install, env=env, stdout=subprocess.DEVNULL):
                return
    say("not here: " + ", ".join(missing) + "; tests that need them are skipped")


@contextlib.contextmanager
def no_service():
    """While packages are installed: the tests start servers of their own, and nobody has asked for another one."""
    policy = "/usr/sbin/policy-rc.d"
    is_ours = not os.path.exists(policy) and os.access(os.path.dirname(policy), os.W_OK)
    if is_ours:
        with open(policy, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(policy, 0o755)
    try:
        yield
    finally:
        if is_ours:
            os.remove(policy)


def prepare(command):
    """Makes the virtual environment and installs River with what `command` needs, unless that is done."""
    if sys.version_info < (3, 10):
        give_up(
            f"River needs Python 3.10 or newer; {sys.executable} is {sys.version.split()[0]}.",
            f"Start this script with a newer one, for example: python3.12 dev.py {command}",
        )
    wanted = fingerprint()
    ready = [name for name in EXTRAS if os.path.exists(PYTHON) and read(stamp(name)) == wanted]
    if command in ready:
        return
    if not ready:  # new, half-made, of another Python, or with other dependencies
        make_venv()
    install(EXTRAS[command])
    with open(stamp(command), "w") as file:
        file.write(wanted)


def stamp(command):
    """The file that says: this environment has what `command` needs, of these settings."""
    return os.path.join(VENV, "installed-for-" + command)


def fingerprint():
    """What an installation depends on: this folder, this Python, and the two files of settings."""
    digest = hashlib.sha256("\n".join((ROOT, sys.version, sys.base_prefix)).encode())
    for name in ("setup.cfg", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def make_venv():
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        give_up(
            f"{sys.executable} cannot make virtual environments: {error}.",
            "Install what is missing (Debian and Ubuntu: sudo apt install python3-venv) and call again.",
        )
    if os.path.realpath(sys.prefix) == os.path.realpath(VENV):
        give_up(
            f"{VENV} must be made anew, and this script is running inside it.",
            "Type 'deactivate' and call again.",
        )
    say(f"making {VENV}")
    shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.call([sys.executable, "-m", "venv", VENV]):
        give_up("python -m venv failed; its own words are above.", "Mend that and call again.")


def install(extras):
    say(f"installing River with its extras {extras}; the first time this can take a minute")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", f".[{extras}]"]
    if run(*pip):
        give_up(
            "pip could not install River; its own words are above.",
            "Most often the package index was out of reach: check the network or proxy and call again.",
        )


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def run(*arguments):
    """Runs the environment's Python; returns its exit code (a death by signal counts as one, too)."""
    return subprocess.call([PYTHON, *arguments])


def say(text):
    print("dev.py: " + text, flush=True)


def give_up(what, next_step):
    sys.exit(f"dev.py: {what}\n        {next_step}")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
