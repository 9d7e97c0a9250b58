"""From samples to ratios, and from ratios to text and README table; pictures are in `picture`.

    samples --add--> data (what the JSON holds) --work_text, table, picture--> what people read

Rule 1: nothing is measured here, and whatever is shown comes from `data`: an old JSON gives the same report.
Rule 2: a ratio compares two samples of the same round; it is shown as median (smallest-largest).
"""

import datetime
import os
import platform
import re
import statistics
from pathlib import Path

import psutil

from .peers import River

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
ME = River.name
# Works with peers, tables and pictures of their own: what the names begin with, and the title.
KINDS = {
    "packet": "River's packets beside its peers",
    "machine": "River's machines over SSH beside its peers",
    "mp": "river.multiprocessing beside multiprocessing",
    "mpi": "river.mpi beside mpi4py",
}


# ---- samples to data


def begin(workers, rounds, quick, peers):
    now = datetime.datetime.now(datetime.timezone.utc)
    run = {"workers": workers, "rounds": rounds, "quick": quick, "began": now.isoformat(timespec="seconds")}
    return {"machine": machine(), "run": run, "peers": peers, "works": {}}


def machine():
    """What the figures depend on, and nothing that tells whose machine it is."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "system": system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cpu_model():
    try:
        return re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def system():
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def add(data, work, records):
    """Puts the records of one work (see turns.take_turns) into `data`, with medians, ratios and targets."""
    mine = records.get(ME, {}).get("samples", [])
    peers = {}
    for name, record in records.items():
        samples = record.pop("samples")
        peers[name] = record | {
            "figures": {figure: summary([s[figure] for s in samples]) for figure in work.figures if samples},
            "ratios": {figure: ratios(samples, mine, figure) for figure in work.figures if samples and mine},
        }
    results = {"title": work.title, "peers": peers, "units": work.figures}
    data["works"][work.name] = results | {"targets": [judge(target, work, peers) for target in work.targets]}


def ratios(samples, mine, figure):
    """How many times the peer's figure is River's, round by round."""
    pairs = zip(samples, mine, strict=False)  # slow peers take part in fewer rounds
    quotients = [theirs[figure] / ours[figure] for theirs, ours in pairs if ours[figure]]
    return summary(quotients) if quotients else None


def summary(samples):
    return {
        "median": statistics.median(samples), "min": min(samples), "max": max(samples), "samples": samples
    }  # fmt: skip


def judge(target, work, peers):
    """Whether River reached the target; `met` is None when it was not measured."""
    figure = target.figure or work.main
    which = f" ({figure})" if figure != work.main or target.kind == "share" and len(work.figures) > 1 else ""
    peer = target.peer or ME
    if target.kind == "limit":
        found = peers.get(peer, {}).get("figures", {}).get(figure)
        sign = ">=" if work.figures[figure] == "s/B" else "<="  # shown as what it is one over
        text = f"{sign} {quantity(target.bound, work.figures[figure])}{which}{peer.removeprefix(ME)}"
        shown = found and spread(found, work.figures[figure])
    else:
        found = peers.get(peer, {}).get("ratios", {}).get(figure)
        if found and target.kind == "share":
            found = {"median": 1 / found["median"], "min": 1 / found["max"], "max": 1 / found["min"]}
        text = f"{'>=' if target.kind == 'speedup' else '<='} {target.bound:g}x {peer}{which}"
        shown = found and spread(found)
    met = None
    if found:
        met = found["median"] >= target.bound if target.kind == "speedup" else found["median"] <= target.bound
    return {
        "text": text, "kind": target.kind, "bound": target.bound, "peer": target.peer, "figure": figure,
        "value": found and found["median"], "shown": shown or "", "met": met,
    }  # fmt: skip


# ---- figures to words


def quantity(value, unit):
    """A figure with its unit, three digits."""
    if unit == "s":
        return scaled(value, (("s", 1), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))
    if unit == "B":
        return scaled(value, (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)))
    if unit == "x":
        return times(value)
    if unit == "s/B":
        return f"{digits(1e-6 / value)} MB/s"
    return f"{value:g} {unit}"


def scaled(value, steps):
    name, step = next(((name, step) for name, step in steps if value >= step), steps[-1])
    return f"{digits(value / step)} {name}"


def times(value):
    return f"{digits(value)}x"


def digits(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(found, unit="x"):
    low, high = (quantity(found[key], unit) for key in (("max", "min") if unit == "s/B" else ("min", "max")))
    middle = quantity(found["median"], unit)
    return middle if low == high else f"{middle} ({low.split(' ')[0].rstrip('x')}-{high.rstrip('x')})"


def verdict(target):
    word = {True: "met", False: "MISSED", None: "not measured"}[target["met"]]
    return f"{target['shown']} {word}".strip()


# ---- text


def heading(data):
    found, run = data["machine"], data["run"]
    absent = [name for name, version in data["peers"].items() if version is None]
    lines = [machine_text(data), f"{run['workers']} workers, {run['rounds']} rounds in turn"]
    lines += [f"  {name} {version}" for name, version in data["peers"].items() if version is not None]
    lines += [f"not installed: {', '.join(absent)}"] if absent else []
    if found["load before"] and found["load before"] > 0.5:
        lines.append(f"other work runs on this machine (load {found['load before']}): expect a wide spread")
    return "\n".join(lines) + "\n"


def machine_text(data):
    found = data["machine"]
    memory = quantity(found["memory"], "B")
    return f"{found['cpu']}, {found['cores']} cores, {memory}; {found['system']}; {found['python']}"


def work_text(data, name):
    """One work: a line per peer and figure, then the targets."""
    work = data["works"][name]
    lines = [f"{name}: {work['title']}"]
    for peer, record in work["peers"].items():
        lines += [peer_text(work, peer, record, figure) for figure in record["figures"]]
        if "error" in record:
            lines.append(f"  {peer:<30} failed: {record['error']}")
        if "left behind" in record:
            lines.append(f"  {'':<30} left {record['left behind']} processes behind")
    lines += [f"  {t['text']}: {verdict(t)}" for t in work["targets"]]
    return "\n".join(lines) + "\n"


def peer_text(work, peer, record, figure):
    main = next(iter(work["units"]))
    label = peer if figure == main else ""
    value = quantity(record["figures"][figure]["median"], work["units"][figure])
    ratio = record["ratios"].get(figure)
    against = "" if peer == ME or not ratio else f"{spread(ratio)} River's"
    note = record.get("note", "") if figure != main else ""
    count = f"{record['tasks']:,}" if figure == main else ""
    return f"  {label:<30} {count:>9} {figure:>8} {value:>12}  {against}{note}".rstrip()


def closing(data):
    """The targets in one line, and those that were missed in full."""
    judged = [(name, target) for name, work in data["works"].items() for target in work["targets"]]
    missed = [(name, target) for name, target in judged if target["met"] is False]
    met = sum(target["met"] is True for _, target in judged)
    lines = [f"targets: {met} met, {len(missed)} missed, {len(judged) - met - len(missed)} not measured"]
    if data["run"].get("edited meanwhile"):
        lines.append("River's sources were edited during this run: measure again before believing a figure")
    return "\n".join(lines + [f"  missed: {name} {t['text']}: {t['shown']}" for name, t in missed])


def whole_text(data):
    return "\n".join([heading(data), *(work_text(data, name) for name in data["works"]), closing(data)])


# ---- README


def rewrite_readme(path, data):
    """Puts the table between the two markers of the file; ValueError if they, or consistent figures, are missing."""
    if data["run"].get("edited meanwhile"):
        raise ValueError("River's sources were edited during this run, so its rounds do not compare: measure again")
    text = path.read_text(encoding="utf-8")
    start, end = text.find(BEGIN), text.find(END)
    if start < 0 or end < start:
        raise ValueError(f"{path} has no place for the table: add the lines {BEGIN} and {END} to it")
    part = readme_part(data, picture_for(path, data).relative_to(path.parent).as_posix())
    path.write_text(f"{text[:start]}{BEGIN}\n{part}\n{text[end:]}", encoding="utf-8")


def picture_for(path, data):
    """Where the picture is that this file shows."""
    return path.with_suffix(".svg") if kind_of(data) else path.parent / "docs" / "benchmarks.svg"


def kind_of(data):
    """What all its works have in common; an empty string for a run with works of pools."""
    kinds = {name.partition("_")[0] for name in data["works"]}
    kind = kinds.pop() if len(kinds) == 1 else ""
    return kind if kind in KINDS else ""


def of_pools(data):
    """The same without the works of other kinds."""
    return {**data, "works": {name: work for name, work in data["works"].items() if name.split("_")[0] not in KINDS}}


def readme_part(data, picture):
    kind = kind_of(data)
    data = data if kind else of_pools(data)
    run = data["run"]
    missed = [
        f"{data['works'][name]['title']} ({target['text']}: {target['shown']})"
        for name in data["works"]
        for target in data["works"][name]["targets"]
        if target["met"] is False
    ]
    memory = "" if kind else " (for memory: how many times as much it needs)"
    workers = "" if kind else f", {run['workers']} workers each"
    parts = [
        f"![{KINDS.get(kind, 'River beside its peers')}]({picture})",
        table(data),
        f"How many times as long as River each package takes{memory}:"
        f" the median of up to {run['rounds']} rounds in which all took turns{workers}."
        f" Measured {run['began'][:10]} on: {machine_text(data)}.",
        "Not as good as we want it: " + "; ".join(missed) + "." if missed else "",
    ]
    return "\n\n".join(part for part in parts if part)


def table(data):
    """Markdown: a row for each work, a column for River's own figure and one for each peer."""
    rows = [(name, figure) for name, figure in shown_figures(data) if name != "scheduler"]
    # A variant of a peer, "Pool (spawn)", takes part in one work only: it shares the peer's column.
    measured = {peer for work in data["works"].values() for peer in work["peers"]}
    columns = [peer for peer in data["peers"] if peer in measured and peer != ME and " (" not in peer]
    names = [re.sub(r"(?=[.]|Executor)", "<br>", peer) for peer in columns]
    lines = ["| | River | " + " | ".join(names) + " |", "|---|" + "---:|" * (len(columns) + 1)]
    for name, figure in rows:
        work = data["works"][name]
        own = work["peers"].get(ME, {"figures": {}})["figures"].get(figure)
        cells = [quantity(own["median"], work["units"][figure]) if own else "-"]
        cells += [cell(work, peer, figure) for peer in columns]
        lines.append(f"| {title(work, figure)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(work, peer, figure):
    """Of the peer, and of its variants: "0.70x (spawn: 1.45x)"."""
    record = work["peers"].get(peer, {})
    found = {name: work["peers"][name]["ratios"].get(figure) for name in work["peers"] if is_of(name, peer)}
    shown = {name: times(ratio["median"]) for name, ratio in found.items() if ratio}
    own = shown.pop(peer, "failed" if "error" in record else "-")
    variants = ", ".join(f"{name.partition('(')[2].rstrip(')')}: {value}" for name, value in shown.items())
    return f"{own} ({variants})" if variants else own


def is_of(name, peer):
    return name == peer or name.startswith(f"{peer} (")


def title(work, figure):
    return f"{work['title']}, {figure}" if figure in ("p50", "p99") else work["title"]


def shown_figures(data):
    """The (work, figure) pairs worth a row: each work's main one, and the tail of the round trip."""
    for name, work in data["works"].items():
        main = next(iter(work["units"]))
        yield name, main
        if "p99" in work["units"]:
            yield name, "p99"
