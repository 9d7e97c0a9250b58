"""The tables of docs/conformance.md: which tests of CPython and mpi4py River does not pass, where, and why.

The document is the only place where such a test is named: people and the tests read it from there.
Pure: text in, rows out.
"""

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
# The sections of the document that have a table, by their titles.
POOLS = "The tests of pools and executors that River does not pass"
MULTIPROCESSING = "The tests of multiprocessing that River does not pass"
MPI4PY = "The tests of mpi4py that River does not pass"
HEADING = ("test", "applies to", "reason")
EVERYWHERE = "all"
SOMETIMES = "sometimes"  # said beside what a row applies to if its test passes now and then

# Each word that "applies to" may hold, by what it limits the row to.
WORDS = {
    "class": {"RiverPool", "RiverExecutor"},
    "start method": {"default", "fork", "spawn", "forkserver"},
    "kind": {"processes", "manager", "threads"},
    "ranks": {"1-rank", "2-ranks"},
    "Python": {"3.10", "3.11", "3.12", "3.13", "3.14"},
}


class TableError(ValueError):
    """The table cannot be read, or says what is not so."""


@dataclass(frozen=True)
class Row:
    test: str
    words: frozenset
    reason: str
    is_strict: bool = True

    def applies_to(self, words):
        """Whether a variant with these words is meant: of all that the row limits, one word is there."""
        limits = [known & self.words for known in WORDS.values() if known & self.words]
        return all(limit & words for limit in limits)

    def __str__(self):
        return f"`{self.test}` ({', '.join(sorted(self.words)) or EVERYWHERE})"


def rows_of(title):
    """The rows of the table in the section of the document with this title."""
    sections = re.split(r"^## ", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)
    found = [section for section in sections if section.startswith(title + "\n")]
    if len(found) != 1:
        raise TableError(f"{DOCUMENT.name} must have one section {title!r}, not {len(found)}")
    return read_table(found[0])


def read_table(text):
    """The rows of the one table headed by HEADING."""
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    if lines.count(HEADING) != 1:
        raise TableError(f"there must be one table headed {' | '.join(HEADING)}, not {lines.count(HEADING)}")
    return [read_row(line) for line in lines[lines.index(HEADING) + 2:]]


def cells(line):
    return tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")))


def read_row(line):
    if len(line) != len(HEADING) or not all(line):
        raise TableError(f"a row needs a test, what it applies to and a reason: {line}")
    test, words, reason = line
    words = words.replace(",", " ").split()
    return Row(test.strip("`"), read_words(set(words) - {SOMETIMES}), reason, SOMETIMES not in words)


def read_words(words):
    if words == {EVERYWHERE}:
        return frozenset()
    if unknown := words - frozenset().union(*WORDS.values()):
        raise TableError(f"{sorted(unknown)} is nothing that a row can apply to; "
                         f"known: {EVERYWHERE}, {SOMETIMES}, {', '.join(sorted(set().union(*WORDS.values())))}")
    return frozenset(words)


def row_for(rows, test, words):
    """The row that says why a variant of a test does not pass, or None."""
    return next((row for row in rows if row.test == test and row.applies_to(words)), None)


def idle_rows(rows, variants, python):
    """The rows meant for this Python that apply to none of its (test, words): they name what is not there."""
    anywhere = frozenset().union(*WORDS.values()) - WORDS["Python"]
    meant = [row for row in rows if row.applies_to(anywhere | {python})]
    return [row for row in meant if not any(row_for([row], test, words) for test, words in variants)]
