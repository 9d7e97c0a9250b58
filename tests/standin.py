"""paramiko's server side as an SSH server: for where there is no sshd, and for what an sshd without privileges cannot
do (passwords, questions, second factors), or would not (ask for a password and be told a wrong one at once).

May not: be more than the tests need.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading

import paramiko
from sshd import Server


class Standin(Server):
    """password: what lets one in. asks: by keyboard-interactive. both: only key and password together do.
    answers: False if it never says whether a command has started. hangs_up: on so many that come first.
    heard: which methods were tried."""

    def __init__(self, directory, password=None, asks=False, both=False, answers=True, hangs_up=0):
        super().__init__(directory)
        self.password, self.asks, self.both, self.answers = password, asks, both, answers
        self.hangs_up = hangs_up
        self.is_over = threading.Event()
        self.heard = []
        self.transports = []
        self.processes = []
        self.threads = []
        self.start()

    def start(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.spawn(self._accept)

    def spawn(self, run, *arguments):
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def _accept(self):
        key = paramiko.Ed25519Key.from_private_key_file(str(self.host_key))
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self.hangs_up:
                self.hangs_up -= 1
                sock.close()
                continue
            transport = paramiko.Transport(sock)
            transport.add_server_key(key)
            self.transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=_Rules(self), event=threading.Event())

    def stop(self):
        self.is_over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self.transports:
            with contextlib.suppress(OSError):
                transport.sock.shutdown(socket.SHUT_RDWR)
            transport.close()
            transport.join(10)
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for thread in self.threads:
            thread.join(10)
        for process in self.processes:
            process.wait(10)


class _Rules(paramiko.ServerInterface):
    def __init__(self, server):
        self.server = server
        self._has_shown_key = False

    def get_allowed_auths(self, username):
        word = "keyboard-interactive" if self.server.asks else "password"
        if self._has_shown_key:
            return word
        return "publickey" if self.server.both or not self.server.password else f"publickey,{word}"

    def check_auth_publickey(self, username, key):
        self.server.heard.append("publickey")
        known = [line.split()[1] for line in self.server.authorized_keys.read_text().splitlines()]
        if key.get_base64() not in known:
            return paramiko.AUTH_FAILED
        self._has_shown_key = self.server.both
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.server.both else paramiko.AUTH_SUCCESSFUL

    def check_auth_password(self, username, password):
        self.server.heard.append("password")
        is_right = password == self.server.password and self._has_shown_key == self.server.both
        return paramiko.AUTH_SUCCESSFUL if is_right else paramiko.AUTH_FAILED

    def check_auth_interactive(self, username, submethods):
        self.server.heard.append("keyboard-interactive")
        return paramiko.InteractiveQuery("", "", ("Token: ", False))

    def check_auth_interactive_response(self, responses):
        return paramiko.AUTH_SUCCESSFUL if responses == [self.server.password] else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        if self.server.answers:
            self.server.spawn(self._run, channel, command)
            return True
        self.server.is_over.wait()
        return False

    def _run(self, channel, command):
        """Run a command; this thread carries stdout, two others stdin and stderr."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.server.processes.append(process)
        self.server.spawn(_carry, lambda: channel.recv(65536), _writer(process.stdin), process.stdin.close)
        out, err = process.stdout, process.stderr
        errors = self.server.spawn(_carry, lambda: err.read(65536), channel.sendall_stderr, err.close)
        _carry(lambda: out.read(65536), channel.sendall, out.close)
        errors.join()
        code = process.wait()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if code >= 0:
                channel.send_exit_status(code)
            channel.close()


def _writer(pipe):
    def write(data):
        view = memoryview(data)
        while view:
            view = view[pipe.write(view) :]

    return write


def _carry(read, write, close):
    with contextlib.suppress(OSError, EOFError, ValueError, paramiko.SSHException):  # closed by another thread
        while data := read():
            write(data)
    with contextlib.suppress(OSError):
        close()
