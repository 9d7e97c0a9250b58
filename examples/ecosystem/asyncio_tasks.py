"""asyncio with River: `python asyncio_tasks.py`, or on other machines: `python asyncio_tasks.py node1 node2`.

The loop goes on while VMs compute.
"""

import asyncio
import math
import sys

from river import RiverPool


async def main(pool):
    loop = asyncio.get_running_loop()
    lengths = [loop.run_in_executor(pool, digits, n) for n in (10, 100, 1000)]
    print(await asyncio.gather(*lengths))  # -> [7, 158, 2568]
    print(await pool.submit(digits, 10_000))  # -> 35660
    print([n async for n in pool.imap(digits, range(5))])  # -> [1, 1, 1, 1, 2]


def digits(n):
    return 1 + int(math.lgamma(n + 1) / math.log(10))


with RiverPool(hosts=sys.argv[1:] or "local") as pool:
    asyncio.run(main(pool))
