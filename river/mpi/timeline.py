"""A page of HTML that shows what the ranks of a job did: who waited for whom, messages as arrows, bytes by pair.

    {rank: Trace} --page--> HTML that needs nothing else       places are percentages, so a browser can stretch the time

May not: know how events are noted.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

from .trace import Got, Sent, Trace, Waited

# What is drawn of each kind, the longest first: a browser is slow with more.
_MOST_BARS, _MOST_ARROWS, _MOST_LINES = 8000, 3000, 40
_TOP, _LANE, _BAR = 24, 48, 16  # pixels

_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 24px; color: #222; }}
h2 {{ font-size: 16px; margin: 28px 0 8px; }}
#time {{ display: flex; }} #ranks div {{ height: {lane}px; line-height: {bar}px; padding-right: 12px; }}
#ranks {{ padding-top: {top}px; white-space: nowrap; }} #scroll {{ overflow-x: auto; flex: 1; border: 1px solid #ddd; }}
svg {{ width: 100%; display: block; }} svg text {{ font-size: 11px; fill: #777; }}
.runs {{ fill: #cfe8cf; }} .message {{ fill: #e8a33d; }} .together {{ fill: #7d8fd6; }}
.arrow {{ stroke: #444; stroke-width: 1; opacity: .45; }} .arrow:hover {{ stroke: #d00; opacity: 1; }}
.tick {{ stroke: #eee; }}
table {{ border-collapse: collapse; }} td, th {{ padding: 2px 10px; text-align: right; border: 1px solid #e4e4e4; }}
td.place {{ text-align: left; font-family: monospace; }} i {{ display: inline-block; width: 12px; height: 12px; }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<p><i style="background:#cfe8cf"></i> runs &nbsp; <i style="background:#e8a33d"></i> waits for a message &nbsp;
<i style="background:#7d8fd6"></i> waits in a collective &nbsp; <b>&rarr;</b> a message, from where it was sent to where
it was received &nbsp; <button data-by="2">+</button> <button data-by="0.5">&minus;</button></p>
<div id="time"><div id="ranks">{names}</div><div id="scroll"><svg height="{height}">{drawing}</svg></div></div>
<h2>Waiting, by line</h2>
<table><tr><th>seconds</th><th>times</th><th>call</th><th>line</th><th>ranks</th></tr>{lines}</table>
<h2>Bytes (messages) from each rank, by row, to each other one</h2>
<table>{pairs}</table>
<script>
let wide = 1, svg = document.querySelector("svg"), scroll = document.getElementById("scroll");
for (const button of document.querySelectorAll("button")) button.onclick = () => {{
  const middle = (scroll.scrollLeft + scroll.clientWidth / 2) / wide;
  wide = Math.max(1, wide * Number(button.dataset.by));
  svg.style.width = 100 * wide + "%";
  scroll.scrollLeft = middle * wide - scroll.clientWidth / 2;
}};
</script>
</html>
"""


class Arrow(NamedTuple):
    """A message that has arrived."""

    source: int
    sent: Sent
    dest: int
    got: Got


def write(path: str, traces: Mapping[int, Trace], title: str) -> None:
    """The page, into this file; see `page`.  Raises OSError."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(page(traces, title))


def page(traces: Mapping[int, Trace], title: str) -> str:
    """traces: by rank, of those that could still tell."""
    ranks = sorted(traces)
    begin, end = _from_to(traces)
    span = end - begin or 1.0
    found = arrows(traces)
    scale = _Scale(begin, span, {rank: _TOP + index * _LANE for index, rank in enumerate(ranks)})
    drawing = [*scale.ticks(), *scale.bars(traces), *scale.arrows(found)]
    return _PAGE.format(
        title=escape(title),
        top=_TOP,
        lane=_LANE,
        bar=_BAR,
        summary=_summary(traces, span),
        names="".join(f"<div>rank {rank}</div>" for rank in ranks),
        height=_TOP + _LANE * len(ranks),
        drawing="".join(drawing),
        lines="".join(_lines(traces)),
        pairs="".join(_pairs(traces)),
    )


def _from_to(traces: Mapping[int, Trace]) -> tuple[float, float]:
    """When anything happened first and last: before, programs import what they need; after, they wait for the rest."""
    moments = [one.when for trace in traces.values() for events in (trace.sent, trace.got) for one in events]
    moments += [moment for trace in traces.values() for one in trace.waited for moment in (one.begin, one.end)]
    moments = moments or [moment for trace in traces.values() for moment in (trace.begin, trace.end)] or [0.0]
    return min(moments), max(moments)


def arrows(traces: Mapping[int, Trace]) -> list[Arrow]:
    """Each message with where it was received: what has the same envelope arrives in the order of sending."""
    under_way: dict[tuple[int, int, int, int], deque[Sent]] = defaultdict(deque)
    for source, trace in traces.items():
        for sent in trace.sent:
            under_way[source, sent.dest, sent.context, sent.tag].append(sent)
    found = []
    for dest, trace in traces.items():
        for got in trace.got:
            waiting = under_way[got.source, dest, got.context, got.tag]
            if waiting:
                found.append(Arrow(got.source, waiting.popleft(), dest, got))
    return found


class _Scale:
    """Where on the page a moment and a rank are."""

    def __init__(self, begin: float, span: float, lanes: Mapping[int, int]) -> None:
        self._begin, self._span, self._lanes = begin, span, lanes

    def _x(self, when: float) -> str:
        return f"{100 * (when - self._begin) / self._span:.4f}%"

    def _bar(self, rank: int, kind: str, begin: float, end: float, told: str) -> str:
        wide = f"{100 * (end - begin) / self._span:.4f}%"
        return (
            f'<rect class="{kind}" x="{self._x(begin)}" y="{self._lanes[rank]}" width="{wide}" height="{_BAR}">'
            f"<title>{escape(told)}</title></rect>"
        )

    def ticks(self) -> Iterator[str]:
        for tenth in range(10):
            x = f"{10 * tenth}%"
            yield f'<line class="tick" x1="{x}" x2="{x}" y1="0" y2="100%"/>'
            yield f'<text x="{x}" y="12">{_seconds(self._span * tenth / 10)}</text>'

    def bars(self, traces: Mapping[int, Trace]) -> Iterator[str]:
        for rank, trace in traces.items():
            begin, end = max(trace.begin, self._begin), min(trace.end, self._begin + self._span)
            yield self._bar(rank, "runs", begin, max(begin, end), f"rank {rank}: {_seconds(trace.end - trace.begin)}")
        waits = ((rank, one) for rank, trace in traces.items() for one in trace.waited)
        for rank, one in _longest(waits, lambda each: each[1].end - each[1].begin, _MOST_BARS):
            kind = "together" if one.is_together else "message"
            yield self._bar(rank, kind, one.begin, one.end, f"rank {rank} {_told(one)}")

    def arrows(self, found: Iterable[Arrow]) -> Iterator[str]:
        for one in _longest(found, lambda each: each.got.when - each.sent.when, _MOST_ARROWS):
            y1, y2 = (self._lanes[rank] + _BAR // 2 for rank in (one.source, one.dest))
            told = f"rank {one.source} to rank {one.dest}, {one.sent.size} bytes"
            told += "" if one.sent.context % 2 else f", tag {one.sent.tag}"
            took = _seconds(one.got.when - one.sent.when)
            yield (
                f'<line class="arrow" x1="{self._x(one.sent.when)}" y1="{y1}" x2="{self._x(one.got.when)}" y2="{y2}">'
                f"<title>{told}, {took} on the way</title></line>"
            )


def _longest(things: Iterable[Any], length: Any, most: int) -> list[Any]:
    return sorted(things, key=length, reverse=True)[:most]


def _told(wait: Waited) -> str:
    peers = f" for rank {', '.join(map(str, wait.peers))}" if wait.peers and min(wait.peers) >= 0 else ""
    return f"waits{peers} in {wait.call or 'the end of the program'} at {wait.place}: {_seconds(wait.end - wait.begin)}"


def _seconds(time: float) -> str:
    if time >= 1:
        return f"{time:.2f} s"
    return f"{1e3 * time:.2f} ms" if time >= 1e-3 else f"{1e6 * time:.0f} us"


def _summary(traces: Mapping[int, Trace], span: float) -> str:
    waiting = sum(one.end - one.begin for trace in traces.values() for one in trace.waited)
    sent = [one for trace in traces.values() for one in trace.sent]
    lost = sum(trace.lost for trace in traces.values())
    return (
        f"{len(traces)} ranks, {_seconds(span)}; they waited {_seconds(waiting)} in all, and sent {len(sent)} messages "
        f"with {sum(one.size for one in sent)} bytes" + (f"; {lost} later events are not shown" if lost else "")
    )


def _lines(traces: Mapping[int, Trace]) -> Iterator[str]:
    by_line: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for rank, trace in traces.items():
        for one in trace.waited:
            by_line[one.call, one.place].append((rank, one.end - one.begin))
    for (call, place), waits in _longest(by_line.items(), lambda each: sum(time for _, time in each[1]), _MOST_LINES):
        ranks = ", ".join(map(str, sorted({rank for rank, _ in waits})))
        total = sum(time for _, time in waits)
        yield (
            f"<tr><td>{total:.6f}</td><td>{len(waits)}</td><td>{escape(call)}</td>"
            f'<td class="place">{escape(place)}</td><td>{ranks}</td></tr>'
        )


def _pairs(traces: Mapping[int, Trace]) -> Iterator[str]:
    dests = sorted({*traces, *(one.dest for trace in traces.values() for one in trace.sent)})
    yield f"<tr><th></th>{''.join(f'<th>{dest}</th>' for dest in dests)}</tr>"
    for rank in sorted(traces):
        sizes: dict[int, list[int]] = defaultdict(list)
        for one in traces[rank].sent:
            sizes[one.dest].append(one.size)
        cells = (f"{sum(sizes[dest])} ({len(sizes[dest])})" if sizes[dest] else "" for dest in dests)
        yield f"<tr><th>{rank}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
