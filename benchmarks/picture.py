"""The picture of a run: cards with bars on one logarithmic scale, River at 1x.

Rule: nothing is computed here that is not a position; figures, ratios and words are `report`'s.
"""

import math
import re
from html import escape

from .report import KINDS, ME, kind_of, machine_text, quantity, shown_figures, times, title

WIDTH, GAP, LABEL, VALUE = 960, 20, 152, 66
ROW, HEAD, FOOT = 17, 48, 22
CARD = (WIDTH - GAP) / 2
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #57606a }
  .title { font-size: 14px; font-weight: 600; fill: #1f2328 } .big { font-size: 20px }
  .end { text-anchor: end } .mid { text-anchor: middle } .small { font-size: 10.5px }
  .card { fill: #818b98; fill-opacity: .1; stroke: #818b98; stroke-opacity: .25 }
  .grid { stroke: #818b98; stroke-opacity: .2 }
  .one { stroke: #0a7d8c; stroke-width: 1.5 }
  .ahead { fill: #14919f } .behind { fill: #d9822b } .whisker { stroke: #1f2328; opacity: .55 }
  .goal { stroke: #8250df; stroke-width: 2 } .good { fill: #14919f } .bad { fill: #d9822b; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .title { fill: #f0f6fc } .whisker { stroke: #f0f6fc } .goal { stroke: #ab7df8 }
    .one { stroke: #39c5cf } .ahead { fill: #1b9aa8 } .good { fill: #39c5cf }
  }"""


def picture(data):
    """An SVG that reads on light and on dark ground; no script, no font, no library needed."""
    cards = [card for name, figure in shown_figures(data) if (card := card_of(data, name, figure))["rows"]]
    scale = Scale([row["ratio"] for card in cards for row in card["rows"]])
    parts, bottoms = [], [84.0, 84.0]
    for card in cards:
        column = bottoms.index(min(bottoms))
        parts.append(draw_card(card, scale, column * (CARD + GAP), bottoms[column]))
        bottoms[column] += height(card) + GAP
    total = max(bottoms) + 4
    heading = KINDS.get(kind_of(data), "River beside its peers")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total:.0f}" width="{WIDTH}"'
            f' height="{total:.0f}" role="img" aria-label="{heading}">',
            f"<style>{STYLE}\n</style>",
            label(0, 24, heading, "title big"),
            label(0, 45, "How many times as long as River each takes (bar: median; line: smallest, largest)"),
            label(0, 62, machine_text(data), "small"),
            *legend(),
            *parts,
            "</svg>\n",
        ]
    )


def legend():
    x = WIDTH - 330
    yield f'<rect class="ahead" x="{x}" y="14" width="14" height="9" rx="2"/>'
    yield label(x + 19, 22, "River needs less", "small")
    yield f'<rect class="behind" x="{x + 112}" y="14" width="14" height="9" rx="2"/>'
    yield label(x + 131, 22, "more", "small")
    yield upright("goal", x + 174, 12, 25)
    yield label(x + 180, 22, "goal", "small")
    yield label(x + 216, 22, "✓ ✗ reached or not", "small")


# Behind a figure that has a goal: whether it is reached.
MARKS = {"": "", "good": " \u2713", "bad": " \u2717"}


class Scale:
    """Positions of ratios between `left` and `right` of a card, logarithmic, powers of ten marked."""

    left, right = LABEL, CARD - VALUE

    def __init__(self, ratios):
        finite = [value for ratio in ratios for value in (ratio["min"], ratio["max"]) if value > 0] or [1]
        self.low = min(-0.3, math.log10(min(finite)))
        self.high = max(1.0, math.log10(max(finite)))

    def __call__(self, value):
        part = (math.log10(value) - self.low) / (self.high - self.low) if value > 0 else 0
        return self.left + (self.right - self.left) * min(max(part, 0), 1)

    def marks(self):
        return [10.0**power for power in range(math.ceil(self.low), math.floor(self.high) + 1)]


def card_of(data, name, figure):
    work = data["works"][name]
    own = work["peers"].get(ME, {"figures": {}})["figures"].get(figure)
    rows = [
        {"peer": peer, "ratio": record["ratios"][figure], "goal": goal(work, peer, figure)}
        for peer, record in work["peers"].items()
        if peer != ME and record["ratios"].get(figure)
    ]
    limits = [
        target
        for target in work["targets"]
        if target["kind"] == "limit" and target["met"] is not None and target["figure"] == figure
    ]
    value = quantity(own["median"], work["units"][figure]) if own else ""
    return {"title": title(work, figure), "own": f"River: {value}", "rows": rows, "limits": limits}


def goal(work, peer, figure):
    """Where the bar must end for the target against this peer: (ratio, is it met); None without a target."""
    for target in work["targets"]:
        if (target["peer"], target["figure"]) == (peer, figure) and target["kind"] != "limit":
            return target["bound"] if target["kind"] == "speedup" else 1 / target["bound"], target["met"]
    return None


def height(card):
    return HEAD + ROW * len(card["rows"]) + FOOT


def draw_card(card, scale, x, y):
    base = HEAD + ROW * len(card["rows"])
    parts = [f'<g transform="translate({x:.0f} {y:.0f})">']
    parts.append(f'<rect class="card" width="{CARD:.0f}" height="{height(card)}" rx="8"/>')
    parts.append(label(14, 23, card["title"], "title"))
    parts.append(label(14, 39, card["own"], "small"))
    if card["limits"]:
        good = all(target["met"] for target in card["limits"])
        words = "goal for River: " + ", ".join(t["text"] for t in card["limits"]) + MARKS["good" if good else "bad"]
        parts.append(label(CARD - 14, 39, words, f"small end {'good' if good else 'bad'}"))
    for mark in scale.marks():
        parts.append(upright("one" if mark == 1 else "grid", scale(mark), HEAD, base))
        parts.append(label(scale(mark), base + 14, power_of_ten(mark), "small mid"))
    for number, row in enumerate(card["rows"]):
        parts += draw_row(row, scale, HEAD + ROW * number)
    return "\n".join([*parts, "</g>"])


def draw_row(row, scale, y):
    ratio, one = row["ratio"], scale(1)
    end, middle = scale(ratio["median"]), y + ROW / 2
    yield label(LABEL - 10, y + 12.5, short(row["peer"]), "end")
    yield (
        f'<rect class="{"ahead" if end >= one else "behind"}" x="{min(one, end):.1f}" y="{y + 3}"'
        f' width="{max(abs(end - one), 1):.1f}" height="{ROW - 6}" rx="2"/>'
    )
    low, high = scale(ratio["min"]), scale(ratio["max"])
    yield f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    kind = ""
    if row["goal"]:
        bound, met = row["goal"]
        kind = "good" if met else "bad"
        yield upright("goal", scale(bound), y + 1, y + ROW - 1)
    yield label(CARD - 10, y + 12.5, times(ratio["median"]) + MARKS[kind], f"end {kind}")


def upright(kind, x, top, bottom):
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'


def power_of_ten(value):
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}x"


def short(name):
    """Fits into the margin of a card."""
    return re.sub("multiprocessing(?=[. ])", "mp", name).replace("ProcessPoolExecutor (", "Executor (")


def label(x, y, text, kind=""):
    attribute = f' class="{kind.strip()}"' if kind.strip() else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attribute}>{escape(text)}</text>'
