"""What may be said of hosts means the same in every way of saying it, and what cannot be is named with its place."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from river.hosts import FIELDS, Host
from river.specs import parse, resolve

SECRET = "hunter2"


def ask(prompt):
    return SECRET


@pytest.fixture(autouse=True)
def no_files(tmp_path, monkeypatch):
    """There is no river.toml; those of who runs the tests do not matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RIVER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


def texts(found):
    return [str(host) for host in found.hosts]


# --------------------------------------------------------------------------------------------------- one host


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("node1", Host("node1")),
        (" node1 ", Host("node1")),
        ("ssh://node1", Host("node1")),
        ("SSH://node1/", Host("node1")),
        ("alice@node2:2222", Host("node2", user="alice", port=2222)),
        ("alice@corp@node2", Host("node2", user="alice@corp")),
        (r"CORP\alice@node2", Host("node2", user=r"CORP\alice")),
        ("ssh://alice%40corp@node2", Host("node2", user="alice@corp")),
        ("10.0.0.7:22", Host("10.0.0.7", port=22)),
        ("::1", Host("::1")),
        ("[::1]", Host("::1")),
        ("[::1]:2222", Host("::1", port=2222)),
        ("alice@[fe80::1%eth0]:2222", Host("fe80::1%eth0", user="alice", port=2222)),
        ("ssh://[fe80::1%25eth0]", Host("fe80::1%eth0")),
        ("ssh://alice@node3:22?n=8&python=python3.12", Host("node3", user="alice", port=22, n=8, python="python3.12")),
        ("node1?n=8", Host("node1", n=8)),
        ("node1?prelude=module load c++&direct=no", Host("node1", prelude="module load c++", direct=False)),
        ("node1?env.A=1&env.B=x%2Cy%26z=&env.C=", Host("node1", env={"A": "1", "B": "x,y&z=", "C": ""})),
        ("node1?modules=one&modules=two", Host("node1", modules=("one", "two"))),
        ("node1?connect_timeout=2.5&lease=60", Host("node1", connect_timeout=2.5, lease=60)),
        ("node1?prelude=a@b:c://d?", Host("node1", prelude="a@b:c://d?")),
        ("node1?name=second", Host("node1", name="second")),
        ("local", Host("local", scheme="local")),
        ("local:4", Host("local", scheme="local", n=4)),
        ("local://?n=4", Host("local", scheme="local", n=4)),
        ("ssh://local:4", Host("local", port=4)),
        ({"host": "node1", "n": 4}, Host("node1", n=4)),
        ({"host": "alice@node1?n=2", "n": 4, "env": {"A": "1"}}, Host("node1", user="alice", n=4, env={"A": "1"})),
        ({"host": "node1", "n": None, "direct": None, "name": None}, Host("node1")),
        ({"host": "node1", "modules": ["one"], "password": ask}, Host("node1", modules=("one",), password=ask)),
        (Host("node1", n=4), Host("node1", n=4)),
    ],
)
def test_a_host_can_be_said_in_many_ways(spec, expected):
    assert parse(spec) == expected
    assert resolve(spec).hosts == [expected]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("alice@node1", "node1"),
        ("alice@node1:2222", "node1:2222"),
        ("::1", "[::1]"),
        ("[::1]:2222", "[::1]:2222"),
        ("node1?name=big", "big"),
        ("local:4", "local"),
    ],
)
def test_a_host_is_called_as_it_was_given(spec, name):
    assert parse(spec).name == name


one_line = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.isprintable)
some_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
seconds = st.floats(min_value=0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**9)
some_names = st.from_regex(r"\w[\w.+~-]*", fullmatch=True)
addresses = some_names | st.ip_addresses(v=6).map(str) | st.just("fe80::1%eth0")
written = {
    "name": one_line,
    "user": st.from_regex(r"\w[\w.+~@\\-]*", fullmatch=True),
    "port": st.integers(1, 65535),
    "n": st.integers(1, 10**6),
    "env": st.dictionaries(some_text.filter(lambda name: "=" not in name), st.just("") | some_text),
    "direct": st.booleans(),
    "transport": st.sampled_from(["auto", "paramiko", "openssh"]),
    "modules": st.lists(some_text).map(tuple),
    **dict.fromkeys(["python", "prelude", "cwd", "identity", "host_key", "config", "known_hosts"], some_text),
    **dict.fromkeys(["connect_timeout", "lease"], seconds),
}


@given(st.builds(Host, addresses, **{field: st.none() | some for field, some in written.items()}))
@example(Host("local"))
@example(Host("local", scheme="local", name="here", n=4))
@example(Host("node1", venv="~/venv"))
def test_the_url_of_a_host_means_this_host(host):
    assert parse(str(host)) == host
    assert resolve(str(host)).hosts == [host]
    assert hash(parse(str(host))) == hash(host)


def test_every_field_can_be_written_or_is_a_secret():
    assert FIELDS.keys() - written == {"password", "passphrase", "venv"}


def test_no_text_of_a_host_shows_a_password_and_its_repr_no_value_of_a_variable():
    host = Host("node1", user="alice", n=8, password=ask, passphrase=ask, env={"TOKEN": SECRET})

    assert repr(host) == "<Host ssh://alice@node1?n=8&env.TOKEN=...>"
    assert "ask" not in repr(host) + str(host) and "pass" not in repr(host) + str(host)


@pytest.mark.parametrize(
    "spec",
    [
        f"ssh://alice:{SECRET}@node1",
        f"alice:{SECRET}@node1",
        f"alice:{SECRET}@[::1]:22",
        f"ssh://alice:{SECRET}@bob@node1",
        f"ssh://alice:x@{SECRET}?y@node1",
        f"ssh://alice:{SECRET}?x@node1",
        f"ssh://alice:1?{SECRET}#@node1",
        f"ssh://alice:{SECRET}/x@node1",
        f"ssh://alice:{SECRET},x@node1",
        f"local:{SECRET}@node1",
        f"node1?password={SECRET}",
        f"node1?passwd={SECRET}",
        {"host": "node1", "password": SECRET},
        {"host": "node1", "env": {"TOKEN": SECRET, "N": 1}},
    ],
)
def test_a_password_in_words_is_refused_and_not_repeated(spec):
    with pytest.raises(ValueError) as caught:
        resolve(spec)

    assert SECRET not in str(caught.value)


def test_who_gives_a_password_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"'alice'.*use a key, or give a function: Host\(\.\.\., password="):
        parse(f"ssh://alice:{SECRET}@node1")


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("", ValueError, "'' is no host name or address"),
        ("node 1", ValueError, "'node 1' is no host name"),
        ("-oProxyCommand=x", ValueError, "is no host name"),
        ("-node1", ValueError, "'-node1' is no host name"),
        ("$(id)", ValueError, "is no host name"),
        ("fe80::1%;id", ValueError, "must be a port"),
        ("[fe80::1%;id]", ValueError, "is no host name"),
        ("node1/work", ValueError, "'node1/work' is no host name"),
        ("-l@node1", ValueError, "host 'node1': user must be the name of a user, not '-l'"),
        ("node1:ssh", ValueError, "host 'node1': what follows the colon must be a port, a number from 1 to 65535"),
        ("node1:", ValueError, "host 'node1': what follows the colon must be a port"),
        ("node1:65536", ValueError, "port must be a number from 1 to 65535, not 65536"),
        ("mpi://node1", ValueError, "unknown scheme 'mpi' of a host; known: local, ssh"),
        ("node1?n=0", ValueError, "host 'node1': n must be a whole number of 1 or more, not 0"),
        ("node1?n=four", ValueError, "host 'node1': n must be a whole number of 1 or more, not 'four'"),
        ("node1?n=1&n=2", ValueError, "host 'node1': n is given twice"),
        ("node1?pyhton=x", ValueError, "host 'node1': unknown parameter 'pyhton'; did you mean 'python'?"),
        ("node1?zzz=x", ValueError, "unknown parameter 'zzz'; known: config, connect_timeout"),
        ("node1?direct=maybe", ValueError, "direct must be true or false, not 'maybe'"),
        ("node1?transport=telnet", ValueError, "transport must be one of auto, paramiko, openssh, not 'telnet'"),
        ("node1?lease=-1", ValueError, "lease must be a positive number of seconds, not -1.0"),
        ("node1?connect_timeout=nan", ValueError, "connect_timeout must be a positive number"),
        ("node1?python=", ValueError, "python must be a text that is not empty, not ''"),
        ("node1?env.=x", ValueError, "env must be names of variables, each with a text"),
        ("node1?python=a&venv=b", ValueError, "host 'node1': python and venv both say which Python"),
        ("local:many", ValueError, "local:4 for so many VMs"),
        ("local://node1", ValueError, "local:4 for so many VMs"),
        ("local:0", ValueError, "host 'local': n must be"),
        ("local?python=x", ValueError, "host 'local': .* only name and n can be said"),
        ({"host": "node1", "n": "4"}, ValueError, "n must be a whole number of 1 or more, not '4'"),
        ({"host": "node1", "n": True}, ValueError, "n must be a whole number of 1 or more, not True"),
        ({"host": "node1", "modules": "one"}, ValueError, "modules must be a list of names, not 'one'"),
        ({"host": "node1", "nn": 4}, ValueError, "unknown parameter 'nn'; did you mean 'n'"),
        ({"hots": "node1"}, ValueError, "host must be a text like alice@node1:22, not None"),
        ({"host": "node1", "password": 5}, ValueError, "password must be a function that is given a prompt"),
        (5, TypeError, "a host is a text, a mapping or a Host, not int"),
        (["node1", None], TypeError, "a host is a text, a mapping or a Host, not NoneType"),
        ([], ValueError, "no host is given"),
        ("node1,,node2", ValueError, "'' is no host name"),
        ("node[3-1]", ValueError, r"\[3-1\] is no range of hosts"),
        ("node[1-99999]", ValueError, "is no range of hosts"),
    ],
)
def test_what_cannot_be_is_named_with_its_host_and_with_what_can(spec, error, says):
    with pytest.raises(error, match=says):
        resolve(spec)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["python3.11", "python3", "python"]),
        ({"python": "python3.12"}, ["python3.12"]),
        ({"venv": "~/venv/"}, ["~/venv/bin/python"]),
    ],
)
def test_the_python_that_is_asked_for_is_the_only_one_tried(fields, expected):
    assert Host("node1", **fields).interpreters((3, 11)) == expected


def test_the_home_directory_is_meant_for_files_of_this_machine_only(tmp_path):
    host = Host("node1", identity="~/key", config=tmp_path / "config", cwd="~/work", python="~/bin/python")

    assert (host.identity, host.config) == (str(tmp_path / "key"), str(tmp_path / "config"))
    assert (host.cwd, host.python) == ("~/work", "~/bin/python")


# --------------------------------------------------------------------------------------------------- several


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("a,b", ["ssh://a", "ssh://b"]),
        ("a?n=2, alice@b:22 ,local:3", ["ssh://a?n=2", "ssh://alice@b:22", "local://?n=3"]),
        ("[::1],[::2]:22", ["ssh://[::1]", "ssh://[::2]:22"]),
        (["a", {"host": "b", "n": 1}, Host("c")], ["ssh://a", "ssh://b?n=1", "ssh://c"]),
        (["a,b", "c"], ["ssh://a", "ssh://b", "ssh://c"]),
        (iter(("a", "b")), ["ssh://a", "ssh://b"]),
        ("a[1-3]", ["ssh://a1", "ssh://a2", "ssh://a3"]),
        ("a[08-10,12]?n=2", ["ssh://a08?n=2", "ssh://a09?n=2", "ssh://a10?n=2", "ssh://a12?n=2"]),
        ("r[1-2]n[1,3]", ["ssh://r1n1", "ssh://r1n3", "ssh://r2n1", "ssh://r2n3"]),
        ("localhost:[2201-2202]", ["ssh://localhost:2201", "ssh://localhost:2202"]),
        ({"host": "a[1-2],b", "n": 4}, ["ssh://a1?n=4", "ssh://a2?n=4", "ssh://b?n=4"]),
        ("a,a?name=again", ["ssh://a", "ssh://a?name=again"]),
        ("a?env.X=1%2C2,b", ["ssh://a?env.X=1%2C2", "ssh://b"]),
    ],
)
def test_several_hosts_can_be_said_in_many_ways(hosts, expected):
    assert texts(resolve(hosts)) == expected


@pytest.mark.parametrize("hosts", ["a,a", "a,alice@a", ["a", Host("a", n=2)], "local:2,local:3", "a[1-2],a2"])
def test_the_same_host_twice_is_an_error_that_names_it(hosts):
    with pytest.raises(ValueError, match=r"host '(a|a2|local)' is given twice.*\?name="):
        resolve(hosts)


def test_defaults_are_for_hosts_that_do_not_say_otherwise():
    defaults = {"n": 2, "python": "python3.12", "direct": False, "env": {"A": "1", "B": "1"}, "password": ask}
    hosts = resolve(["a", "b?n=4&env.B=2", "c?venv=/v", Host("d", n=5), "local"], defaults).hosts

    assert [host.n for host in hosts] == [2, 4, 2, 5, 2]
    assert [host.python for host in hosts] == ["python3.12", "python3.12", None, "python3.12", None]
    assert [host.env.get("B") for host in hosts] == ["1", "2", "1", "1", None]
    assert [host.direct for host in hosts] == [False, False, False, False, True]
    assert [host.password for host in hosts] == [ask, ask, ask, ask, None]


@pytest.mark.parametrize("defaults", [{"nn": 2}, {"name": "a"}, {"n": 0}])
def test_defaults_are_checked_as_well(defaults):
    with pytest.raises(ValueError, match="defaults of hosts: .*n"):
        resolve("a", defaults)
