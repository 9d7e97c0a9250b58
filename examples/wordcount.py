"""Count the words of Python's own standard library: on one process, then on all of them.

    python examples/wordcount.py                  # every .py file of the library: about 30 MB
    python examples/wordcount.py --quick          # a tenth of the files, for a first look
    python examples/wordcount.py --processes 8

You see the corpus, a progress bar, the speed-up, what ran where, that both answers are the same, which names
Python's authors use most in code, and which words in comments and strings.
"""

import argparse
import keyword
import re
import sysconfig
import time
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import river

WORD = re.compile(r"[^\W\d_]{4,}")
# Since Python 3.12 the text of an f-string is a token of its own.
PROSE = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


class Count(NamedTuple):
    """What one file holds, and which VM found it out in how many seconds."""

    names: Counter
    words: Counter
    size: int
    seconds: float
    vm: str
    pid: int


def count(path):
    """Count one file.  This is the whole task; the rest of the file is about showing it."""
    begin = time.perf_counter()
    names, words = Counter(), Counter()
    try:
        with open(path, "rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                    names[token.string] += 1
                elif token.type in PROSE:
                    words.update(WORD.findall(token.string.lower()))
    except (SyntaxError, UnicodeError, tokenize.TokenError):
        pass  # some files of Python's test suite are broken on purpose: what stands before the error counts
    here = river.current()
    vm, pid = (here.vm, here.pid) if here else ("driver", 0)
    return Count(names, words, path.stat().st_size, time.perf_counter() - begin, vm, pid)


def total(counts):
    """Add up the counts as they arrive: names, words, and each VM's part as [files, bytes, seconds]."""
    names, words, parts = Counter(), Counter(), {}
    for one in counts:
        names.update(one.names)
        words.update(one.words)
        part = parts.setdefault((one.vm, one.pid), [0, 0, 0.0])
        for i, amount in enumerate((1, one.size, one.seconds)):
            part[i] += amount
    return names, words, parts


def corpus(limit):
    """The library's source files; `limit` takes that many, evenly spread over all of them."""
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    files = [file for file in files if "site-packages" not in file.parts]
    return files[:: max(1, len(files) // limit)][:limit] if limit else files


def bars(title, counter, rows=8, width=40):
    """A bar chart in text of the most frequent words."""
    top = sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:rows]
    print(f"\n{title} ({counter.total():,} in all, {len(counter):,} different)")
    for word, times in top:
        print(f"  {word:>14} {'█' * max(1, width * times // top[0][1])} {times:,}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=river.cpu_count(), help="VMs to use")
    parser.add_argument("--files", type=int, help="count only so many files")
    parser.add_argument("--quick", action="store_true", help="count only a tenth of the files")
    options = parser.parse_args()

    files = corpus(options.files or (len(corpus(None)) // 10 if options.quick else None))
    size = sum(len(file.read_bytes()) for file in files)  # also puts all in the disk's cache, for a fair race
    print(f"corpus      {len(files):,} files, {size / 1e6:.1f} MB of {files[0].parents[0]}", flush=True)

    begin = time.perf_counter()
    names, words, _ = total(map(count, files))
    alone = time.perf_counter() - begin
    print(f"1 process   {alone:.2f} s", flush=True)

    begin = time.perf_counter()
    with river.RiverPool(options.processes) as pool:
        river_names, river_words, parts = total(pool.imap_unordered(count, files, progress=True))
    together = time.perf_counter() - begin
    vms, faster = f"{options.processes} VMs", alone / together
    print(f"{vms:<11} {together:.2f} s with the start of the VMs: {faster:.2f} times as fast")

    print("\nVM                pid   files      MB  busy s")
    for (vm, pid), (done, amount, seconds) in sorted(parts.items()):
        print(f"{vm:<12} {pid:>8} {done:>7,} {amount / 1e6:>7.1f} {seconds:>7.2f}")
    same = (names, words) == (river_names, river_words)
    print(f"\nboth answers are {'the same' if same else 'DIFFERENT'}")
    bars("names in code", names)
    bars("words in comments and strings", words)
    return 0 if same else 1


if __name__ == "__main__":  # River works without this guard; it is here so that others can import this file
    raise SystemExit(main())
