"""Every snippet of the README runs, and prints what the README says it prints.

How to write one:
- A block marked `python` is a whole script.  It is run as one, with warnings as errors.
- What it prints is in the README too: either `# -> ...` at the end of lines, one such comment for each line
  that is printed, in order, or a block marked `text` right after it.  `...` in either stands for anything.
  A snippet without either prints nothing.
- A block marked `console` has commands of River's after `$`, to be run in a checkout, each with what it prints.
- Both may use the host `localhost`: it is an SSH server that the test starts.
- A block marked `sh` holds commands for a checkout, one a line.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import sshd
import tools
from served import own_home  # noqa: F401

import river

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Snippet(NamedTuple):
    line: int
    source: str
    output: str


def snippets(markdown):
    """The `python` blocks, with the output that the text promises."""
    block = r"^```python\n(?P<source>.*?)^```$(?:\n+```text\n(?P<text>.*?)^```$)?"
    found = []
    for match in re.finditer(block, markdown, re.MULTILINE | re.DOTALL):
        comments = re.findall(r"# -> (.*)$", match["source"], re.MULTILINE)
        output = match["text"] or "".join(comment + "\n" for comment in comments)
        found.append(Snippet(markdown[: match.start()].count("\n") + 1, match["source"], output))
    return found


@pytest.fixture
def localhost(request, tmp_path, monkeypatch):
    """`localhost` is an SSH server of the test's own, for texts that use it."""
    text = next(str(request.node.funcargs.get(name)) for name in ("snippet", "console") if name in request.fixturenames)
    if "localhost" not in text:
        yield
        return
    if sshd.SSHD is None:
        pytest.skip("there is no sshd program (OpenSSH's server) here")
    with sshd.start(tmp_path / "sshd") as server:
        settings = tmp_path / "river.toml"
        settings.write_text(f'[hosts.localhost]\nhost = "h1"\nconfig = "{server.config}"\n')
        monkeypatch.setenv("RIVER_CONFIG", str(settings))
        yield


def run(snippet, folder):
    script = folder / "snippet.py"
    script.write_text(snippet.source)
    return subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=folder,
        # The River under test, wherever it is installed.
        env={**os.environ, "PYTHONPATH": str(Path(river.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
    )


def agrees(promised, printed):
    pattern = ".*?".join(re.escape(part) for part in promised.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


@pytest.mark.parametrize("snippet", snippets(README), ids=lambda snippet: f"line {snippet.line}")
def test_a_snippet_prints_what_the_readme_says(snippet, tmp_path, localhost):
    done = run(snippet, tmp_path)

    assert done.returncode == 0, done.stderr
    assert agrees(snippet.output, done.stdout), f"it says:\n{snippet.output}and prints:\n{done.stdout}"


CONSOLES = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("console", CONSOLES)
def test_commands_print_what_the_readme_says(console, home, localhost):
    for command, promised in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", console, re.MULTILINE):
        name, *arguments = command.split()
        done = subprocess.run(
            [sys.executable, "-W", "error", *tools.command(name), *arguments],
            cwd=ROOT, env=tools.surroundings(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100,
        )
        assert done.returncode == 0, done.stdout
        assert agrees(promised, done.stdout), f"$ {command}\nit says:\n{promised}and prints:\n{done.stdout}"


def test_every_console_is_found():
    assert len(CONSOLES) == README.count("```console") > 0


def test_every_python_block_is_found():
    assert len(snippets(README)) == README.count("```python") > 0


@pytest.mark.parametrize(
    ("markdown", "right"),
    [
        ("```python\nprint(1)  # -> 1\nprint(2)  # -> 2\n```\n", True),
        ("```python\nprint(1)  # -> 1\nprint(3)  # -> 2\n```\n", False),
        ("```python\nprint(1)\n```\n", False),
        ("```python\nprint('pid', 7)\n```\n\n```text\npid ...\n```\n", True),
        ("```python\nprint('pid', 7)\n```\n```text\nvm ...\n```\n", False),
        ("```python\nx = 1\n```\n", True),
    ],
)
def test_a_wrong_promise_is_seen(markdown, right, tmp_path):
    (snippet,) = snippets(markdown)

    assert agrees(snippet.output, run(snippet, tmp_path).stdout) == right


def test_every_link_into_the_checkout_leads_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)

    assert [link for link in links if not (ROOT / link).exists()] == []
    assert len(links) > 3


def test_every_link_within_the_readme_leads_to_a_heading():
    headings = {re.sub(r"[^\w -]", "", words).lower().replace(" ", "-") for words in HEADING.findall(README)}

    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


# --- the two commands of a newcomer -------------------------------------------------------------------------

COMMANDS = ["python3 dev.py demo", "python3 dev.py test"]


def test_the_readme_names_the_two_commands():
    blocks = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]

    assert [line for line in lines if "dev.py" in line] == COMMANDS


def test_ci_runs_exactly_the_test_command():
    lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    commands = [line for line in lines if line and not line.startswith("#")]

    assert commands == ['cd "$(dirname "$0")/.." || exit', f"exec {COMMANDS[1]}"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
