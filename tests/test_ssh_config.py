"""What is read before a login: ssh_config, known_hosts, and the ways through other hosts."""

import base64
import contextlib
import getpass
import hashlib
import hmac
import os
import shutil
import subprocess
import sys
import tempfile

import pytest
import tasks
from sshd import Host, Sshd, needs_ssh, needs_sshd, public, start
from test_ssh_login import BOTH, PATIENCE, exchange, refusal

from river import HostError, ssh
from river.ssh import known
from river.ssh.config import route

READERS = [pytest.param("ssh -G", marks=needs_ssh), "paramiko"]


@pytest.fixture(params=READERS)
def read(request, tmp_path, monkeypatch):
    """The route to a host, given the text of a configuration; by each of its readers."""
    if request.param == "paramiko":
        monkeypatch.setattr("river.ssh.config.shutil.which", lambda name: None)

    def reader(text, **said):
        file = tmp_path / "config"
        file.write_text(text)
        return route(Host(config=str(file), **said))

    reader.is_program = request.param != "paramiko"
    return reader


def test_a_host_that_no_line_is_about(read):
    (target,) = read("", address="example.com")

    assert (target.address, target.port, target.user) == ("example.com", 22, getpass.getuser())
    assert target.trust == "refuse"
    assert any(path.endswith("/.ssh/id_ed25519") for path in target.identities)
    assert any(path.endswith("/.ssh/known_hosts") for path in target.known_hosts)
    assert target.needs_program() is None


ALIAS = """
Host h1
  HostName 10.1.2.3
  Port 2222
  User alice
  IdentityFile /keys/%h_%p_%r_%n
  IdentityFile "/keys/with space"
  IdentitiesOnly yes
  HostKeyAlias other
  ConnectTimeout 7
  UserKnownHostsFile /a/known /b/known
  StrictHostKeyChecking accept-new
"""


def test_an_alias_says_all_that_a_login_needs(read):
    (target,) = read(ALIAS)

    assert target.peer == "alice@10.1.2.3:2222"
    assert target.identities == ["/keys/10.1.2.3_2222_alice_h1", "/keys/with space"]
    assert target.is_bound_to_identities
    assert target.names == ["other"]
    assert target.says("connecttimeout", "") == "7"
    assert target.known_hosts[:2] == ["/a/known", "/b/known"]
    assert target.trust == "accept"


def test_what_the_user_says_of_a_host_wins(read):
    said = {"user": "bob", "port": 3333, "identity": "/mine", "known_hosts": "/my/known", "host_key": "SHA256:x"}

    (target,) = read(ALIAS, **said)

    assert target.peer == "bob@10.1.2.3:3333"
    assert target.identities[0] == "/mine"
    assert target.known_hosts[0] == "/my/known" and "/a/known" not in target.known_hosts
    assert target.pin == "SHA256:x"


def test_an_ipv6_address(read):
    (target,) = read("", address="fe80::1", user="alice")

    assert target.peer == "alice@[fe80::1]:22"


@needs_ssh
def test_a_file_that_is_included_counts(tmp_path):
    (tmp_path / "more").write_text("Host h1\n  HostName 10.9.9.9\n")
    (tmp_path / "config").write_text(f"Include {tmp_path / 'more'}\n")

    (target,) = route(Host(config=str(tmp_path / "config")))

    assert target.address == "10.9.9.9"


def test_jump_hosts_in_their_order_each_as_its_own_lines_say(read):
    targets = read("""
Host h1
  ProxyJump first,alice@second:2200,ssh://third:23
Host first
  HostName 10.0.0.1
  ProxyJump outer
Host outer
  User olga
""")

    assert [(t.alias, t.address, t.port) for t in targets] == [
        ("outer", "outer", 22),
        ("first", "10.0.0.1", 22),
        ("second", "second", 2200),
        ("third", "third", 23),
        ("h1", "h1", 22),
    ]
    assert [targets[0].user, targets[2].user] == ["olga", "alice"]
    assert [t.is_jump for t in targets] == [True, True, True, True, False]


def test_jump_hosts_in_a_circle_are_an_error(read):
    with pytest.raises(HostError, match="circle") as caught:
        read("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n", address="a")

    assert caught.value.step == "config"


@pytest.mark.parametrize("line", ["ProxyJump none", "ProxyCommand none", "IdentityFile none"])
def test_nothing_is_made_of_none(read, line):
    (target,) = read(f"Host h1\n  {line}\n")

    assert target.proxy_command is None and "none" not in target.identities


def test_a_proxy_command_knows_where_it_leads(read):
    (target,) = read("Host h1\n  HostName x\n  User u\n  ProxyCommand carry %h %p %r 100%%\n")

    assert target.proxy_command == "carry x 22 u 100%"


@pytest.mark.parametrize("line", ["CertificateFile /keys/c", "BindAddress 127.0.0.1", "RevokedHostKeys /r"])
def test_what_only_the_ssh_program_can_do_is_known(read, line):
    (target,) = read(f"Host h1\n  {line}\n")

    assert line.split()[0].lower() in target.needs_program()


@pytest.mark.parametrize("name", ["", "-oProxyCommand=touch x", "a b", "a\nb"])
def test_a_name_that_ssh_would_take_for_something_else(name):
    with pytest.raises(HostError) as caught:
        route(Host(address=name))

    assert caught.value.step == "config"


def test_a_configuration_that_cannot_be_read_is_named(read, tmp_path):
    with pytest.raises(HostError) as missing:
        route(Host(config=str(tmp_path / "nowhere")))

    assert missing.value.step == "config" and "nowhere" in str(missing.value)
    if read.is_program:
        with pytest.raises(HostError, match="bogus") as wrong:
            read("Bogus yes\n")
        assert "line 1" in str(wrong.value)


# known_hosts.

KEY, OTHER, THIRD = (bytes([number]) * 51 for number in (1, 2, 3))


def known_hosts(tmp_path, *lines):
    file = tmp_path / "known_hosts"
    file.write_text("\n".join([*lines, ""]))
    return known.read([str(file), str(tmp_path / "missing")])


def line(names, key, kind="ssh-ed25519", marker=""):
    return f"{marker} {names} {kind} {base64.b64encode(key).decode()} a comment".strip()


def hashed(name):
    salt = bytes(20)
    return "|1|" + "|".join(
        base64.b64encode(part).decode() for part in (salt, hmac.digest(salt, name.encode(), hashlib.sha1))
    )


@pytest.mark.parametrize(
    ("names", "name", "fits"),
    [
        ("example.com", "example.com", True),
        ("example.com", "Example.COM", True),
        ("a,example.com,b", "example.com", True),
        ("example.com", "sub.example.com", False),
        ("*.example.com", "sub.example.com", True),
        ("node?", "node7", True),
        ("node?", "node77", False),
        ("*.example.com,!bad.example.com", "bad.example.com", False),
        ("!bad.example.com,*.example.com", "good.example.com", True),
        ("!bad.example.com", "good.example.com", False),
        ("[example.com]:2222", "[example.com]:2222", True),
        ("[example.com]:2222", "example.com", False),
        ("[*.example.com]:2222", "[a.example.com]:2222", True),
        ("node[1]", "node1", False),
        (hashed("example.com"), "example.com", True),
        (hashed("[example.com]:2222"), "[example.com]:2222", True),
        (hashed("example.com"), "example.org", False),
        ("|1|nonsense", "example.com", False),
    ],
)
def test_the_names_of_a_line(names, name, fits):
    assert known.is_named(names, name) is fits


@pytest.mark.parametrize(
    ("lines", "names", "expected"),
    [
        ([], ["h"], "no"),
        ([line("h", KEY)], ["h"], "yes"),
        ([line("h", OTHER)], ["h"], "changed"),
        ([line("h", OTHER), line("h", KEY)], ["h"], "yes"),
        ([line("h", OTHER, "ssh-rsa")], ["h"], "changed"),
        ([line("x", KEY)], ["h"], "no"),
        ([line("h", KEY), line("h", KEY, marker="@revoked")], ["h"], "revoked"),
        ([line("*", KEY, marker="@revoked"), line("h", KEY)], ["h"], "revoked"),
        ([line("h", OTHER, marker="@revoked"), line("h", KEY)], ["h"], "yes"),
        ([line("*", OTHER, marker="@cert-authority"), line("h", KEY)], ["h"], "yes"),
        ([line("*", OTHER, marker="@cert-authority")], ["h"], "no"),
        (["# h ssh-ed25519 AAAA", "", "nonsense", "h ssh-ed25519 !!!", line("h", KEY)], ["h"], "yes"),
        # A name without its port counts if it confirms the key; another server may have another one.
        ([line("h", KEY)], ["[h]:2222", "h"], "yes"),
        ([line("h", OTHER)], ["[h]:2222", "h"], "no"),
        ([line("[h]:2222", OTHER), line("h", KEY)], ["[h]:2222", "h"], "yes"),
    ],
)
def test_what_known_hosts_says_of_a_key(tmp_path, lines, names, expected):
    verdict = known.judge(known_hosts(tmp_path, *lines), names, "ssh-ed25519", KEY)

    assert verdict.is_known == expected


def test_a_verdict_names_file_and_line(tmp_path):
    entries = known_hosts(tmp_path, "# a comment", line("h", OTHER))

    assert known.judge(entries, ["h"], "ssh-ed25519", KEY).entries[0].place == f"{tmp_path / 'known_hosts'}:2"


def test_an_authority_is_told(tmp_path):
    entries = known_hosts(tmp_path, line("*.lab", THIRD, marker="@cert-authority"))

    assert known.judge(entries, ["a.lab"], "ssh-ed25519", KEY).has_authority
    assert not known.judge(entries, ["a.org"], "ssh-ed25519", KEY).has_authority


def test_the_host_is_asked_for_a_key_of_a_kind_that_is_known(tmp_path):
    entries = known_hosts(tmp_path, line("h", OTHER, "ssh-rsa"), line("h", KEY, "ecdsa-sha2-nistp256"))

    assert known.kinds(entries, ["[h]:2222", "h"]) == ["ssh-rsa", "ecdsa-sha2-nistp256"]


# The same with servers.


@pytest.fixture
def server(tmp_path):
    with start(tmp_path / "server") as running:
        yield running


@needs_ssh
@BOTH
def test_an_alias_in_an_included_file_is_logged_in_to(server, transport):
    outer = server.directory / "outer"
    outer.write_text(f"Include {server.config}\n")

    login = ssh.login(server.host(config=str(outer), transport=transport), PATIENCE)

    assert exchange(login.run("echo in")) == b"in\n"
    login.close()


@BOTH
def test_known_hosts_of_the_hosts_own(server, transport):
    server.known_hosts.rename(server.directory / "mine")

    host = server.host(known_hosts=str(server.directory / "mine"), transport=transport)
    login = ssh.login(host, PATIENCE)

    assert exchange(login.run("echo in")) == b"in\n"
    login.close()


@pytest.mark.parametrize("words", ["no", "accept-new"])
def test_who_wants_no_strict_checking_gets_none_but_no_file_is_written(server, words):
    server.known_hosts.write_text("")
    server.write_config(f"StrictHostKeyChecking {words}")

    ssh.login(server.host(), PATIENCE).close()

    assert server.known_hosts.read_text() == ""


def test_a_changed_key_is_refused_even_then(server):
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public(server.make_key('old'))}")
    server.write_config("StrictHostKeyChecking no")

    assert refusal(server.host()).step == "host key"


def test_lines_of_other_kinds_do_not_hide_the_key(server):
    authority = f"@cert-authority *.lab {public(server.make_key('authority'))}"
    server.known_hosts.write_text(authority + server.known_hosts.read_text())

    with contextlib.closing(ssh.login(server.host(), PATIENCE)) as session:
        assert session.peer.endswith(f"@127.0.0.1:{server.port}")


def test_a_revoked_key_is_refused(server):
    server.known_hosts.write_text(server.known_hosts.read_text() + f"@revoked * {public(server.host_key)}")

    error = refusal(server.host())

    assert error.step == "host key"
    assert f"is revoked by {server.known_hosts}:2" in str(error)


@needs_sshd
def test_a_host_with_several_keys_is_known_by_any(tmp_path):
    with Sshd(tmp_path / "server") as server:
        rsa = server.directory / "rsa"
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", rsa], check=True, stdin=subprocess.DEVNULL)
        server.stop()
        server.options.append(f"HostKey {rsa}")
        server.start()
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public(rsa)}")

        with contextlib.closing(ssh.login(server.host(), PATIENCE)) as session:
            assert session.peer.endswith(f"@127.0.0.1:{server.port}")


@pytest.fixture
def bastion(tmp_path, server):
    """A second server; the first is behind it, as "inner" in `bastion.config`."""
    if not isinstance(server, Sshd):
        pytest.skip("the stand-in does not let anybody pass")
    with Sshd(tmp_path / "bastion") as running:
        running.write_config(name="both", alias="bastion")
        server.write_config("ProxyJump bastion", name="inner", alias="inner")
        running.both = running.directory / "all"
        running.both.write_text((running.directory / "both").read_text() + (server.directory / "inner").read_text())
        yield running


def inner(bastion, **settings):
    return Host(**{"name": "inner", "address": "inner", "config": str(bastion.both), **settings})


@BOTH
def test_a_host_behind_another(bastion, server, transport):
    login = ssh.login(inner(bastion, transport=transport), PATIENCE)
    stream = login.run("exec head -c 20000000")
    data = os.urandom(20_000_000)

    assert exchange(stream, data) == data
    assert login.peer == f"{server.user}@127.0.0.1:{server.port}"
    assert login.address is None
    login.close()


def test_a_host_behind_two_others(bastion, server, tmp_path):
    with Sshd(tmp_path / "outermost") as outermost:
        outermost.write_config(alias="outermost")
        text = bastion.both.read_text().replace("Host bastion\n", "Host bastion\n  ProxyJump outermost\n")
        bastion.both.write_text(text + outermost.config.read_text())

        login = ssh.login(inner(bastion), PATIENCE)
        data = os.urandom(5_000_000)

        assert exchange(login.run("exec head -c 5000000"), data) == data
        login.close()


def test_what_goes_wrong_at_the_bastion_is_told_of_the_bastion(bastion):
    bastion.known_hosts.write_text("")

    error = refusal(inner(bastion))

    assert (error.host, error.step) == ("inner", "host key")
    assert str(error).startswith(f"inner: jump host bastion ({bastion.user}@127.0.0.1:{bastion.port})")
    assert "bastion`" in str(error)


def test_a_host_that_the_bastion_cannot_reach(bastion, server):
    server.stop()

    error = refusal(inner(bastion))

    assert error.step == "connect"
    assert "jump host cannot reach it" in str(error)


def test_a_bastion_that_lets_nobody_pass(bastion):
    bastion.stop()
    bastion.options.append("AllowTcpForwarding no")
    bastion.start()

    error = refusal(inner(bastion))

    assert error.step == "connect"
    assert "AllowTcpForwarding" in str(error)


def test_a_bastion_that_dies_ends_the_stream(bastion):
    login = ssh.login(inner(bastion), PATIENCE)
    stream = login.run("echo there; exec cat")
    exchange(stream, until=lambda found: found == b"there\n")

    bastion.stop()

    assert exchange(stream) == b""
    login.close()


CARRY = """
import socket, sys, threading
def carry(read, write, end):
    while data := read(65536):
        write(data)
    end()
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
out, inn = open(1, "wb", 0), open(0, "rb", 0)
threading.Thread(target=carry, args=(sock.recv, out.write, out.close), daemon=True).start()
carry(inn.read, sock.sendall, lambda: sock.shutdown(socket.SHUT_WR))
"""


@BOTH
def test_a_proxy_command_carries_the_connection(server, transport):
    (server.directory / "carry.py").write_text(CARRY)
    server.write_config(f"ProxyCommand {sys.executable} {server.directory / 'carry.py'} %h %p")
    data = os.urandom(5_000_000)

    login = ssh.login(server.host(transport=transport), PATIENCE)

    assert exchange(login.run("exec head -c 5000000"), data) == data
    login.close()


def test_a_proxy_command_that_fails_is_quoted(server):
    server.write_config("ProxyCommand echo no way >&2; exit 3")

    error = refusal(server.host())

    assert error.step == "greeting"
    assert "no way" in str(error)


@needs_sshd
@needs_ssh
def test_a_connection_that_is_open_already_is_used(server):
    directory = tempfile.mkdtemp(dir="/tmp")  # short enough for a socket
    path = f"{directory}/control"
    master = subprocess.Popen(
        ["ssh", "-F", server.config, "-M", "-S", path, "-N", "-o", "BatchMode=yes", "h1"], stdin=subprocess.DEVNULL
    )
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        stack.callback(master.wait)
        stack.callback(master.terminate)
        tasks.wait_until(lambda: os.path.exists(path), what="the open connection")
        server.write_config(f"ControlPath {path}")
        server.authorized_keys.write_text("")  # nobody else gets in

        login = ssh.login(server.host(transport="auto"), PATIENCE)

        assert exchange(login.run("echo in")) == b"in\n"
        assert login.transport == "openssh" and path in login.why
        login.close()
