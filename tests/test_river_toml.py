"""river.toml gives hosts and clusters names; the closest word wins, and what is wrong is named with its place."""

import subprocess
import sys

import pytest

from river.errors import NotPrivate
from river.hosts import Host
from river.specs import resolve

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Writes the project's file, in whose directory the test runs, and the user's, in a home of its own."""
    (tmp_path / "project" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RIVER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)

    def write(project="", user=""):
        for file, text in ((tmp_path / "project/river.toml", project), (tmp_path / ".config/river/river.toml", user)):
            file.parent.mkdir(parents=True, exist_ok=True)
            if text:
                file.write_text(text)

    return write


def texts(found):
    return [str(host) for host in found.hosts]


LAB = """
[hosts.big]
host = "alice@node1:2222"
n = 32
env = { A = "host" }

[hosts.node2]
venv = "/opt/venv"
identity = "keys/id"

[hosts.local]
n = 3

[clusters.lab]
hosts = ["big", "node2", { host = "node3", n = 1 }, "node[4-5]?n=2"]
n = 16
python = "python3.12"
connect_timeout = 20
min_hosts = 2
env = { A = "cluster", B = "cluster" }

[clusters.all]
hosts = ["lab", "node9"]
prelude = "module load python"
"""


def test_the_closest_word_wins(files, tmp_path):
    files(LAB)
    lab = {host.name: host for host in resolve("lab", {"n": 1, "cwd": "/work"}).hosts}

    assert list(lab) == ["big", "node2", "node3", "node4", "node5"]
    assert {name: host.n for name, host in lab.items()} == {"big": 32, "node2": 16, "node3": 1, "node4": 2, "node5": 2}
    assert str(lab["big"]).startswith("ssh://alice@node1:2222?name=big&n=32&python=python3.12&cwd=/work")
    assert lab["big"].env == {"A": "host", "B": "cluster"} and lab["node3"].env == {"A": "cluster", "B": "cluster"}
    assert (lab["node2"].python, lab["node2"].venv) == (None, "/opt/venv")
    assert lab["node2"].identity == str(tmp_path / "project/keys/id")


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("big", "ssh://alice@node1:2222?name=big&n=32&env.A=host"),
        ("ssh://big?n=4&env.A=word", "ssh://alice@node1:2222?name=big&n=4&env.A=word"),
        ("bob@big", "ssh://bob@node1:2222?name=big&n=32&env.A=host"),
        ({"host": "big", "n": 5}, "ssh://alice@node1:2222?name=big&n=5&env.A=host"),
        ("local", "local://?n=3"),
        ("local:5", "local://?n=5"),
        (Host("big"), "ssh://big"),
    ],
)
def test_a_name_of_river_toml_goes_before_one_of_ssh(files, hosts, expected):
    files(LAB)

    assert texts(resolve(hosts)) == [expected]


@pytest.mark.parametrize(
    ("hosts", "min_hosts", "connect_timeout"),
    [
        ("big", None, None),
        ("lab", 2, 20),
        ("lab,node8?connect_timeout=30", 3, 30),
        ("all", 3, 20),
    ],
)
def test_a_cluster_says_how_many_of_its_hosts_must_come_up_and_the_others_all_must(
    files, hosts, min_hosts, connect_timeout
):
    files(LAB)
    found = resolve(hosts)

    assert (found.min_hosts, found.connect_timeout) == (min_hosts, connect_timeout)


def test_clusters_can_be_made_of_clusters(files):
    files(LAB)
    hosts = resolve(["all", "local"]).hosts

    assert [host.name for host in hosts] == ["big", "node2", "node3", "node4", "node5", "node9", "local"]
    assert {host.prelude for host in hosts[:-1]} == {"module load python"}
    assert [host.python for host in hosts] == ["python3.12", None, *["python3.12"] * 3, None, None]


def test_the_file_of_the_project_goes_before_the_users_table_by_table(files, tmp_path, monkeypatch):
    files("[hosts.a]\nn = 1\n[hosts.c]\nhost = 'd'", "[hosts.a]\nn = 2\ncwd = '/'\n[hosts.b]\nn = 2\n[clusters.c]\n")
    monkeypatch.chdir(tmp_path / "project/deep")  # it is in the parent directory

    assert texts(resolve("a,b,c")) == ["ssh://a?n=1", "ssh://b?n=2", "ssh://d?name=c"]


def test_a_variable_moves_the_users_file_or_names_one_file_in_place_of_all(files, tmp_path, monkeypatch):
    files("[hosts.a]\nn = 1", "[hosts.b]\nn = 2")
    (tmp_path / "river").mkdir()
    (tmp_path / "river/river.toml").write_text("[hosts.b]\nn = 3")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    moved = texts(resolve("a,b"))
    monkeypatch.setenv("RIVER_CONFIG", "~/river/river.toml")

    assert moved == ["ssh://a?n=1", "ssh://b?n=3"]
    assert texts(resolve("a,b")) == ["ssh://a", "ssh://b?n=3"]


def test_a_chosen_file_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("RIVER_CONFIG", "/nowhere/river.toml")

    with pytest.raises(FileNotFoundError, match="RIVER_CONFIG names /nowhere/river.toml"):
        resolve("a")


def test_the_file_of_another_user_is_not_obeyed(files, tmp_path, monkeypatch):
    files("[hosts.a]\nn = 1", "[hosts.b]\nn = 2")
    monkeypatch.setattr("os.geteuid", lambda: (tmp_path / "project").stat().st_uid + 1)
    monkeypatch.setattr("river.settings.ROOT", -1)  # who runs the tests may be root

    with pytest.raises(NotPrivate, match=r"project/river.toml belongs to user \d+, not to you; .*RIVER_CONFIG="):
        resolve("a")
    monkeypatch.setenv("RIVER_CONFIG", str(tmp_path / "project/river.toml"))
    assert texts(resolve("a")) == ["ssh://a?n=1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[hosts.a]\nn == 1", r"project/river.toml is not TOML: .*line 2"),
        ("[host.a]\nn = 1", r"project/river.toml: \[host\] is not known; its tables are \[hosts.NAME\]"),
        ("hosts = 5", r"project/river.toml: \[hosts\] is not known"),
        ("[hosts]\na = 5", r"project/river.toml, \[hosts.a\] must be a table, not 5"),
        ("[hosts.a]\n[clusters.a]\n", r"\[clusters.a\]: hosts has the name 'a' too"),
        ("[hosts.a]\nn = 0", r"project/river.toml, \[hosts.a\]: n must be a whole number of 1 or more, not 0"),
        ("[hosts.a]\nn = true", r"\[hosts.a\]: n must be a whole number of 1 or more, not True"),
        ("[hosts.a]\npyton = 'x'", r"\[hosts.a\]: unknown parameter 'pyton'; did you mean 'python'\?"),
        ("[hosts.a]\npassword = 'hunter2'", r"\[hosts.a\]: password cannot be written down here; give a function"),
        ("[hosts.a]\nhost = 'x:y'", r"\[hosts.a\]: host 'x': what follows the colon must be a port"),
        ("[hosts.a]\nhost = 5", r"\[hosts.a\]: host must be a text"),
        ("[clusters.a]\n", r"\[clusters.a\]: hosts must be a list, .*, not None"),
        ("[clusters.a]\nhosts = 'b'", r"\[clusters.a\]: hosts must be a list, .*, not 'b'"),
        ("[clusters.a]\nhosts = [5]", r"\[clusters.a\], hosts: a host is a text, a mapping or a Host, not int"),
        ("[clusters.a]\nhosts = ['b?n=0']", r"\[clusters.a\], hosts: host 'b': n must be"),
        ("[clusters.a]\nhosts = ['b']\nhots = 1", r"\[clusters.a\]: unknown parameter 'hots'; known"),
        ("[clusters.a]\nhosts = ['b']\nmin_hosts = 2", r"\[clusters.a\]: min_hosts must be .* from 1 to 1, not 2"),
        ("[clusters.a]\nhosts = ['b']\nmin_hosts = 0", r"\[clusters.a\]: min_hosts must be .* from 1 to 1, not 0"),
        ("[clusters.a]\nhosts = ['c']\n[clusters.c]\nhosts = ['a']", r"\[clusters.a\] is part of itself: a > c > a"),
    ],
)
def test_what_is_wrong_in_river_toml_is_named_with_its_place(files, text, says):
    files(text)

    with pytest.raises(ValueError, match=says) as caught:
        resolve("a")
    assert SECRET not in str(caught.value)


def test_a_cluster_is_asked_for_by_its_name_alone(files):
    files(LAB)

    with pytest.raises(ValueError, match=r"\[clusters.lab\] is a cluster; ask for 'lab' alone"):
        resolve("lab?n=2")


CHEAP = """
import sys
{before}
from river.specs import resolve
try:
    print(resolve("a").hosts)
except ImportError as error:
    print(error)
print({{"tomllib", "tomli"}} & {{name for name, module in sys.modules.items() if module}})
"""


def run(before=""):
    program = CHEAP.format(before=before)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60).stdout


def test_without_a_file_no_toml_is_imported():
    assert run() == "[<Host ssh://a>]\nset()\n"


def test_a_python_that_cannot_read_toml_says_what_to_install(files):
    files("[hosts.a]\nn = 1")
    said = run("sys.modules['tomllib'] = sys.modules['tomli'] = None")

    assert "project/river.toml" in said and 'pip install "riverpool[toml]"' in said
