"""tqdm's process_map on River: `python tqdm_map.py`, or on other machines: `python tqdm_map.py node1 node2`.

pip install "riverpool[tqdm]"
"""

import sys

from river.tqdm import process_map  # before: from tqdm.contrib.concurrent import process_map


def steps(number):
    """How many steps it takes to come to 1."""
    count = 0
    while number > 1:
        number = 3 * number + 1 if number % 2 else number // 2
        count += 1
    return count


longest = max(process_map(steps, range(1, 10_000), hosts=sys.argv[1:] or None, desc="collatz"))

print(longest)  # -> 261
