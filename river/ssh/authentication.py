"""Who we are, said to a server: keys first, then what a human knows; each attempt is recorded for the error.

May not: show a password or a passphrase, or try one twice: servers lock accounts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import paramiko

from . import keys
from .channel import Link
from .config import Target
from .ports import Deadline, Settings, Unsupported

_HUMAN = ("password", "keyboard-interactive")


def authenticate(host: Settings, target: Target, link: Link, deadline: Deadline) -> None:
    """Log in, or raise HostError with all that was tried; Unsupported if a ticket of Kerberos may do."""
    agent = keys.Agent(target.agent)
    try:
        _Login(host, target, link, deadline).run(agent)
    finally:
        agent.close()


class _Login:
    def __init__(self, host: Settings, target: Target, link: Link, deadline: Deadline) -> None:
        self._host = host
        self._target = target
        self._link = link
        self._deadline = deadline
        self._tried: list[str] = []
        self._allowed: list[str] = []  # by the server, as far as it has said
        self._was_partial = False

    def run(self, agent: keys.Agent) -> None:
        if self._with_keys(agent) or self._with_words():
            return
        if not self._allowed and self._is_alive() and self._ask_what_is_allowed():
            return
        raise self._failure()

    def _with_keys(self, agent: keys.Agent) -> bool:
        for key in keys.candidates(self._target, agent, self._host.passphrase):
            if not self._is_alive() or (self._allowed and "publickey" not in self._allowed):
                break
            try:
                with self._deadline.paused():  # somebody may type a passphrase
                    opened = key.open()
            except keys.Refused as error:
                self._tried.append(f"{key.source}: not usable: {error}")
                continue
            if self._attempt(key.source, functools.partial(self._transport.auth_publickey, self._user, opened)):
                return True
        return False

    def _with_words(self) -> bool:
        """Password and the like, if there is somebody to ask; as many of them as the server wants, each once."""
        if self._host.password is None:
            return False
        if not self._allowed and self._is_alive() and self._ask_what_is_allowed():
            return True
        for method in _HUMAN:
            if method not in self._allowed or not self._is_alive():
                continue
            if self._attempt(method, {"password": self._password, "keyboard-interactive": self._answers}[method]):
                return True
            if not self._was_partial:
                break
        return False

    def _ask_what_is_allowed(self) -> bool:
        """True if the server wants nothing at all."""
        return self._attempt("", lambda: self._transport.auth_none(self._user))

    def _password(self) -> Any:
        secret = self._ask(f"{self._target.peer}'s password: ")
        return self._transport.auth_password(self._user, secret, fallback=False)

    def _answers(self) -> Any:
        def handler(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            return [self._ask(f"{self._target.peer}: {text}") for text, _ in prompts]

        return self._transport.auth_interactive(self._user, handler)

    def _ask(self, prompt: str) -> str:
        assert self._host.password is not None
        with self._deadline.paused():
            return self._host.password(prompt)

    def _attempt(self, what: str, call: Callable[[], Any]) -> bool:
        """Whether that was all the server wanted.  `what`: for people; "" is not worth telling."""
        self._was_partial = False
        self._transport.auth_timeout = self._deadline.left()
        outcome = "refused"
        try:
            self._allowed = call() or []
            if self._transport.is_authenticated():
                return True
            self._was_partial = True
            outcome = "accepted"
        except paramiko.BadAuthenticationType as error:
            self._allowed = error.allowed_types
        except paramiko.AuthenticationException as error:
            if self._deadline.is_over():
                raise self._silence() from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            outcome = f"failed ({error})"
        if what:
            self._tried.append(f"{what}: {outcome}")
        return False

    def _silence(self) -> Exception:
        return self._target.failure(
            "authentication",
            f"no answer to the login within {self._deadline.seconds:g} s",
            "the host is overloaded, or looks up names or users for too long",
            *self._attempts(),
        )

    def _failure(self) -> Exception:
        advice: list[str] = []
        refused = [line for line in self._tried if line.endswith(": refused")]
        if self._link.packets.farewell and not self._is_alive():
            what = f"the server has ended the login: {self._link.packets.farewell}"
        elif any(line.endswith(": accepted") for line in self._tried):
            what = f"that was not enough: the server also wants: {', '.join(self._allowed)}"
        else:
            what = "the server does not let us in" if refused else "there is nothing to log in with"
            advice = [f"the server takes: {', '.join(self._allowed)}"] if self._allowed else []
        lines = [*self._attempts(), *advice, *self._advice(len(refused))]
        error = self._target.failure("authentication", what, *lines)
        if "gssapi-with-mic" in self._allowed and _has_ticket(self._target):
            return Unsupported("the server takes Kerberos (GSSAPI), and there is a ticket", error)
        return error

    def _attempts(self) -> list[str]:
        if not self._tried:
            return ["no key was found, in files or in an agent"]
        return [f"tried {line}" for line in self._tried]

    def _advice(self, refused: int) -> list[str]:
        if not self._is_alive() and refused > 1:
            return [
                f"it gave up after {refused} keys: `IdentitiesOnly yes` with `IdentityFile` (or identity=) tries only "
                "the right one"
            ]
        lines = []
        if "publickey" in self._allowed and refused:
            lines.append(
                f"does {self._user!r} exist there, and is one of these keys in its ~/.ssh/authorized_keys? "
                f"`ssh-copy-id` puts it there"
            )
        if "publickey" in self._allowed:
            lines.append("identity= or IdentityFile names another key")
        if self._host.password is None and set(_HUMAN) & set(self._allowed):
            lines.append("password= (a function that is given a prompt) is called where a password is wanted")
        return lines

    def _is_alive(self) -> bool:
        return bool(self._transport.is_active())

    @property
    def _transport(self) -> Any:
        return self._link.transport

    @property
    def _user(self) -> str:
        return self._target.user


def _has_ticket(target: Target) -> bool:
    if target.says("gssapiauthentication", "no") != "yes" or not hasattr(os, "getuid"):
        return False
    return "KRB5CCNAME" in os.environ or os.path.exists(f"/tmp/krb5cc_{os.getuid()}")
