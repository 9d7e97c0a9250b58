"""emcee's walkers on River: `python emcee_walkers.py`, or on other machines: `python emcee_walkers.py node1 node2`.

pip install "riverpool[emcee]"; numpy must be installed on the other machines, too.
"""

import sys

import emcee
import numpy

from river import RiverPool


def log_probability(x):
    return -0.5 * numpy.sum((x - 3.0) ** 2)


start = numpy.random.default_rng(1).normal(size=(32, 2))
numpy.random.seed(1)

with RiverPool(hosts=sys.argv[1:] or "local") as pool:
    sampler = emcee.EnsembleSampler(32, 2, log_probability, pool=pool)
    sampler.run_mcmc(start, 500)

print(*numpy.round(sampler.get_chain(discard=100, flat=True).mean(axis=0)))  # -> 3.0 3.0
