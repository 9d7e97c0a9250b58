"""Sweep a parameter whose values differ fifty times in cost, and show that no VM waits for another.

    python examples/sweep.py
    python examples/sweep.py --processes 8 --parameters 300

For each of many dampings, strong to weak, a pendulum is let go near its top and followed until it rests.
One fiftieth of the damping means fifty times the work, and the long tasks come last: a trap for a pool that
cuts its work into fixed chunks.  The last damping is 0: that task fails, and `on_error="return"` keeps this
from costing anything else.

You see a progress bar, a sample of the answers, what failed, who worked when, and the makespan beside the
best one possible.
"""

import argparse
import heapq
import math
import time

import river


def swing(damping, step):
    """Follow a pendulum until it rests.  Returns the seconds it took, our begin and end, and the VM."""
    begin = time.time()
    if damping <= 0:
        raise ValueError(f"a pendulum with damping {damping:g} never comes to rest")
    sin, angle, speed, steps = math.sin, 3.0, 0.0, 0
    while speed * speed / 2 + 1 - math.cos(angle) > 1e-6:
        for _ in range(100):
            speed -= (sin(angle) + damping * speed) * step
            angle += speed * step
        steps += 100
    here = river.current()
    return steps * step, begin, time.time(), (here.vm, here.pid)


def fixed_chunks(durations, workers):
    """The makespan that these tasks would have in the chunks that multiprocessing's Pool.map makes."""
    size, free = math.ceil(len(durations) / (4 * workers)), [0.0] * workers
    for i in range(0, len(durations), size):
        heapq.heapreplace(free, free[0] + sum(durations[i : i + size]))
    return max(free)


def lane(spans, makespan, width):
    """One VM's line in the chart: tasks are runs of alternating shades, a gap is idle time."""
    cells = [" "] * width
    for i, (begin, end) in enumerate(sorted(spans)):
        for cell in range(round(begin / makespan * width), round(end / makespan * width)):
            cells[min(cell, width - 1)] = "█▒"[i % 2]
    return "".join(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=river.cpu_count(), help="VMs to use")
    parser.add_argument("--parameters", type=int, default=120, help="how many dampings to try")
    parser.add_argument("--step", type=float, default=0.0002, help="seconds of one step of the simulation")
    options = parser.parse_args()
    workers, count = options.processes, options.parameters
    dampings = [50 ** (-i / max(1, count - 2)) for i in range(count - 1)] + [0.0]
    tasks = [(damping, options.step) for damping in dampings]

    with river.RiverPool(workers) as pool:
        begin = time.time()
        answers = pool.starmap(swing, tasks, progress=True, on_error="return")
        makespan = time.time() - begin

    print("damping   rests after")
    for damping, answer in list(zip(dampings, answers, strict=True))[: -1 : max(1, count // 10)]:
        print(f"{damping:7.3f} {answer[0]:11.1f} s  {'█' * max(1, round(answer[0] / 20))}")

    done = [answer for answer in answers if not isinstance(answer, Exception)]
    print(f"\n{len(done)} of {count} parameters have an answer")
    for damping, answer in zip(dampings, answers, strict=True):
        if isinstance(answer, Exception):
            print(f"failed: damping {damping:g}: {type(answer).__name__}: {answer}")

    print(f"\nVM                pid   tasks  busy  0 s{makespan:49.2f} s")
    lanes = {}
    for _, first, last, vm in done:
        lanes.setdefault(vm, []).append((first - begin, last - begin))
    for (vm, pid), spans in sorted(lanes.items()):
        busy = sum(last - first for first, last in spans) / makespan
        print(f"{vm:<12} {pid:>8} {len(spans):>7} {busy:>5.0%}  |{lane(spans, makespan, 52)}|")

    durations = [last - first for _, first, last, _ in done]
    share, longest = sum(durations) / workers, max(durations)
    best = max(share, longest)
    print(f"\nmakespan         {makespan:6.2f} s with the start of VMs: {makespan / best:.2f} times the best")
    print(
        f"best possible    {best:6.2f} s: work / {workers} is {share:.2f} s, the longest task {longest:.2f} s"
    )
    print(f"in fixed chunks  {fixed_chunks(durations, workers):6.2f} s, computed from these tasks' durations")


if __name__ == "__main__":  # River works without this guard; it is here so that others can import this file
    main()
