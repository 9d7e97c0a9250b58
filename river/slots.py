"""The books of a server of VMs: who has how many of its slots, and what it answers.

Pure: it is told what programs ask and when, and says what to answer.  No socket, process or clock in here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_MOST_TEXT = 4096


class Program(NamedTuple):
    """A program that has slots."""

    name: str
    pid: int
    host: str
    granted: int
    since: float


class Slots:
    """A number of slots, and the programs that have them; each by a number that is the caller's to choose.

    total: how many. facts: what every program is told of the server: name, host, pid, python, river, cpus.
    """

    def __init__(self, total: int, facts: dict[str, Any]) -> None:
        self.total = total
        self.facts = facts
        self.programs: dict[int, Program] = {}

    @property
    def free(self) -> int:
        return self.total - sum(program.granted for program in self.programs.values())

    def joined(self, number: int, ask: dict[str, Any], now: float) -> dict[str, Any]:
        """A program asks for slots: grants as many of them as are free, or says why not."""
        problem = self._problem(ask)
        if problem:
            return {"refused": problem}
        granted = min(ask["want"], self.free)
        self.programs[number] = Program(ask["program"], ask["pid"], ask["host"], granted, now)
        return {**self.facts, "slots": self.total, "granted": granted}

    def left(self, number: int) -> None:
        """A program is gone; its slots are free."""
        self.programs.pop(number, None)

    def status(self) -> dict[str, Any]:
        """What is told to whoever asks how things are."""
        programs = [{"supervisor": number, **program._asdict()} for number, program in self.programs.items()]
        return {**self.facts, "slots": self.total, "free": self.free, "programs": programs}

    def _problem(self, ask: dict[str, Any]) -> str:
        texts = [ask.get(field) for field in ("program", "host", "python", "river")]
        numbers = [ask.get(field) for field in ("want", "pid")]
        if not all(isinstance(t, str) and len(t) <= _MOST_TEXT for t in texts):
            return "program, host, python and river must be texts"
        if not all(type(n) is int and n > 0 for n in numbers):
            return "want and pid must be positive numbers"
        here = f"{self.facts['name']} on {self.facts['host']}"
        for what, field in {"Python": "python", "River": "river"}.items():
            if _minor(ask[field]) != _minor(self.facts[field]):
                return (
                    f"{here} runs {what} {self.facts[field]}, this program {ask[field]}, and their pickles may "
                    f"differ; start one there with {what} {_minor(ask[field])}"
                )
        if not self.free:
            holders = ", ".join(f"{p.name} (pid {p.pid} on {p.host}) has {p.granted}" for p in self.programs.values())
            return f"{here} has no free slot: {holders}; wait, or start more with `river vm start --name ...`"
        return ""


def _minor(version: str) -> str:
    """3.11.7 -> 3.11; that much must agree."""
    return ".".join(version.split(".")[:2])
