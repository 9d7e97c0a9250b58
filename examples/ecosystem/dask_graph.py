"""A dask graph on River: `python dask_graph.py`, or on other machines: `python dask_graph.py node1 node2`.

pip install "riverpool[dask]"; dask must be installed on the other machines, too.
"""

import sys

import dask

from river import RiverPool


@dask.delayed
def count(start):
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(start, 2), start + 1000))


total = dask.delayed(sum)([count(start) for start in range(0, 20_000, 1000)])

with RiverPool(hosts=sys.argv[1:] or "local") as pool:
    print(total.compute(scheduler=pool))  # -> 2262
    with dask.config.set(scheduler=pool):  # for all that is computed here, arrays and bags, too
        print(dask.compute(total, count(0)))  # -> (2262, 168)
