"""The peers take turns: each measurement is one process, and when it is over nothing of it is left.

Rule: nothing here knows what a work does or how a peer is used.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
MARK = "RIVER_BENCHMARK"  # in the environment of each measurement, and so of every process it starts
TIMEOUT = 180.0  # seconds a measurement may take; the slowest peer needs about 30 on two cores
GRACE = 5.0  # seconds its processes have to end by themselves


class Here:
    """Where measurements run: on this machine alone.  Others have the same methods."""

    def command(self, argv):
        """How a command is run there."""
        return argv

    def sweep(self):
        """Ends what the measurement's processes have left where `marked` does not see it; how many that were."""
        return 0


HERE = Here()


def take_turns(work, peers, workers, rounds, quick, tell, place=HERE):
    """Measures `work` for each peer in turn, `rounds` times; {peer name: {samples, tasks, ...}}.

    A peer that fails is out for the rest of this work, with its error in place of later samples.
    """
    records = {peer.name: {"tasks": size_for(work, peer, quick), "samples": []} for peer in peers}
    for turn in range(min(rounds, work.rounds)):
        for peer in peers:
            record = records[peer.name]
            if "error" in record or turn >= peer.rounds:
                continue
            tell(f"{work.name}: round {turn + 1} of {rounds}, {peer.name}")
            answer = measure(peer.name, work.name, record["tasks"], workers, place)
            note_down(record, answer)
    return records


def size_for(work, peer, quick):
    return min(work.quick if quick else work.size, peer.at_most.get(work.name, work.size))


def note_down(record, answer):
    left, note, error = answer.pop("left", 0), answer.pop("note", ""), answer.pop("error", "")
    if left:
        record["left behind"] = record.get("left behind", 0) + left
    if note:
        record["note"] = note
    if error:
        record["error"] = error
    else:
        record["samples"].append(answer)


def measure(peer, work, size, workers, place=HERE):
    """One measurement; its figures, or {"error": ...}; "left" counts processes that had to be killed."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="bench", ignore_cleanup_errors=True) as folder:
        answer, output = Path(folder, "answer.json"), Path(folder, "output.txt")
        command = [sys.executable, "-m", "benchmarks.driver"]
        command += [peer, work, str(size), str(workers), str(answer)]
        try:
            with output.open("w") as sink:
                code = run(place.command(command), sink, environment(mark, folder))
        finally:
            left = sweep(mark) + place.sweep()
        result = json.loads(answer.read_text()) if answer.exists() else {"error": explain(code, output)}
    return result | ({"left": left} if left else {})


def run(command, sink, env):
    """The exit code of `command`; None if it took too long."""
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
    ) as process:
        try:
            return process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()


def environment(mark, folder):
    """This checkout is importable, and temporary files go where they are removed afterwards.

    Its modules are compiled once, like those that were installed."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return inherited | {MARK: mark, "PYTHONPATH": path, "TMPDIR": folder, "RAY_TMPDIR": folder}


def explain(code, output):
    if code is None:
        return f"no answer within {TIMEOUT:g} s"
    last = output.read_text(errors="replace").strip().splitlines()[-1:]
    return f"ended with exit code {code} and no answer; its last words: {''.join(last) or 'none'}"


def sweep(mark):
    """Waits for the measurement's processes to end, then kills what is left; how many that were."""
    deadline = time.monotonic() + GRACE
    while (family := marked(mark)) and time.monotonic() < deadline:
        psutil.wait_procs(family, timeout=0.1)
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(family, timeout=GRACE)
    return len(family)


def marked(mark):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
