"""joblib's Parallel on River: `python joblib_calls.py`, or on other machines: `python joblib_calls.py node1 node2`.

pip install "riverpool[joblib]"; the other machines need neither River nor joblib.
"""

import sys

import joblib

import river.joblib  # noqa: F401 - from now on joblib knows "river"


def divisors(number):
    return sum(number % d == 0 for d in range(1, number + 1))


with joblib.parallel_config("river", hosts=sys.argv[1:] or None, n_jobs=-1):
    counts = joblib.Parallel()(joblib.delayed(divisors)(number) for number in range(1, 1001))

print(max(counts), 1 + counts.index(max(counts)))  # -> 32 840
