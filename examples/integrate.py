"""Two integrals, each on one process and on River: the same answer to the last bit, only sooner.

    python examples/integrate.py
    python examples/integrate.py --processes 8 --samples 50_000_000

The first is pi by Monte Carlo: throw darts at a square, count those within the circle.  Each task has a
random generator of its own, seeded by the task's number, so that the answer does not depend on how many VMs
there are or which of them ran what.  The second is the sine integral Si(x), the area under sin(t)/t from 0
to x, by Simpson's rule: the range is cut into panels, and the panels' areas are added up in order.

You see each answer, its error, both times, and the speed-up.  The tasks are functions of this very file, and
it has no `if __name__ == "__main__"` guard: River needs none.
"""

import argparse
import math
import random
import sys
import time
from itertools import pairwise

from river import RiverPool, cpu_count

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--processes", type=int, default=cpu_count(), help="VMs to use")
parser.add_argument("--samples", type=int, default=12_000_000, help="darts, and points of Simpson's rule")
parser.add_argument("--tasks", type=int, default=96, help="parts to cut each integral into")
options = parser.parse_args()

X = 20.0
SI_OF_X = 1.5482417010434397


def darts_within(seed, darts):
    """How many of so many random darts land within the quarter circle."""
    throw = random.Random(seed).random
    return sum(throw() ** 2 + throw() ** 2 <= 1.0 for _ in range(darts))


def sinc(t):
    return math.sin(t) / t if t else 1.0


def simpson(left, right, points):
    """The area under sin(t)/t from `left` to `right`; `points` is an even number of steps."""
    step = (right - left) / points
    odd = math.fsum(sinc(left + i * step) for i in range(1, points, 2))
    even = math.fsum(sinc(left + i * step) for i in range(2, points, 2))
    return step / 3 * (sinc(left) + 4 * odd + 2 * even + sinc(right))


def race(name, function, tasks, finish, truth):
    """Run all tasks alone, then on the pool; print both, and return whether the answers are equal."""
    begin = time.perf_counter()
    alone_answer = finish([function(*task) for task in tasks])
    alone = time.perf_counter() - begin

    begin = time.perf_counter()
    river_answer = finish(pool.starmap(function, tasks, progress=True))
    together = time.perf_counter() - begin

    same = river_answer == alone_answer
    verdict = f"{alone / together:.2f} times as fast, {'the same' if same else 'a DIFFERENT'} answer"
    vms = f"{options.processes} VMs"
    print(f"\n{name}, {len(tasks)} tasks")
    for who, answer, seconds in ("1 process", alone_answer, alone), (vms, river_answer, together):
        print(f"  {who:<9}  {answer!r:<18}  error {abs(answer - truth):.1e}  {seconds:6.2f} s")
    print(f"  {verdict}")
    return same


share = max(2, options.samples // options.tasks // 2 * 2)  # even, as Simpson's rule wants
cuts = [X * i / options.tasks for i in range(options.tasks + 1)]
with RiverPool(options.processes) as pool:
    same = [
        race(
            "pi by Monte Carlo",
            darts_within,
            [(seed, share) for seed in range(options.tasks)],
            lambda hits: 4 * sum(hits) / (share * options.tasks),
            math.pi,
        ),
        race(
            f"Si({X:g}) by Simpson's rule",
            simpson,
            [(left, right, share) for left, right in pairwise(cuts)],
            math.fsum,
            SI_OF_X,
        ),
    ]
sys.exit(not all(same))
