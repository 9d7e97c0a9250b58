"""scipy's `workers=` on River: `python scipy_minimum.py`, or on other machines: `python scipy_minimum.py node1 node2`.

pip install "riverpool[scipy]"; whatever the function imports must be installed on the other machines, too.
"""

import sys

from scipy.optimize import differential_evolution

from river import RiverPool


def valley(point):
    x, y = point
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


with RiverPool(hosts=sys.argv[1:] or "local") as pool:
    found = differential_evolution(valley, [(-3, 3), (-3, 3)], workers=pool.map, updating="deferred")

print(f"{found.x[0]:.3f} {found.x[1]:.3f}")  # -> 1.000 1.000
