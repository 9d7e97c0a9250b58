"""Conjugate gradients: the kernel CG of the NAS Parallel Benchmarks, class S, which has a value to verify.

    river -n 4 examples/mpi_cg.py                       needs numpy

It estimates the largest eigenvalue of a sparse matrix by inverse iteration: each step solves a system by conjugate
gradients.  A rank has some rows of the matrix, and all of the vectors, so that a sum is made in the same order by all,
and the answer is the same, to the last bit, for every number of ranks.
"""

import math

import numpy

from river.mpi import MPI

# Class S: the order of the matrix, random elements in each vector that it is made of, steps, and the shift.
N, NONZEROS, STEPS, SHIFT = 1400, 7, 15, 10.0
CONDITION = 0.1  # reciprocal
TURNS = 25  # of conjugate gradients, in a step
VERIFIED = 8.5971775078648


def random_numbers():
    """The benchmark's own: x = a x mod 2^46."""
    x = 314159265
    while True:
        x = 1220703125 * x % (1 << 46)
        yield x / (1 << 46)


def sparse_vectors():
    """N vectors with a few random elements each, as {index: element}; that of its own index is 1/2."""
    draw = random_numbers()
    next(draw)
    above = 1 << (N - 1).bit_length()
    for number in range(N):
        vector = {}
        while len(vector) < NONZEROS:
            element, index = next(draw), int(next(draw) * above)
            if index < N and index not in vector:
                vector[index] = element
        vector[number] = 0.5
        yield vector


def rows_of_matrix(rows):
    """Some rows of the sum of the vectors' outer products: values, their columns, and where each row begins."""
    found = [{} for _ in rows]
    size, ratio = 1.0, CONDITION ** (1.0 / N)
    for number, vector in enumerate(sparse_vectors()):
        for i, left in vector.items():
            if i in rows:
                row = found[i - rows.start]
                for j, right in vector.items():
                    value = right * (size * left) + (CONDITION - SHIFT if i == j == number else 0.0)
                    row[j] = row.get(j, 0.0) + value
        size *= ratio
    columns = [sorted(row) for row in found]
    values = [row[j] for row, js in zip(found, columns, strict=True) for j in js]
    begins = numpy.cumsum([0, *map(len, columns)])[:-1]
    return numpy.array(values), numpy.concatenate(columns), begins


class Matrix:
    """The matrix, of which this rank has some rows."""

    def __init__(self, comm):
        self.comm = comm
        bounds = [N * rank // comm.size for rank in range(comm.size + 1)]
        self.counts = [end - start for start, end in zip(bounds, bounds[1:], strict=False)]
        self.values, self.columns, self.begins = rows_of_matrix(range(bounds[comm.rank], bounds[comm.rank + 1]))

    def __matmul__(self, vector):
        mine = numpy.add.reduceat(self.values * vector[self.columns], self.begins)
        product = numpy.empty(N)
        self.comm.Allgatherv(mine, [product, self.counts])
        return product


def solve(matrix, x):
    """Solve matrix z = x, about; returns z and the norm of what is left."""
    z, r, p = numpy.zeros(N), x.copy(), x.copy()
    rho = r @ r
    for _ in range(TURNS):
        q = matrix @ p
        alpha = rho / (p @ q)
        z += alpha * p
        r -= alpha * q
        before, rho = rho, r @ r
        p = r + rho / before * p
    return z, math.sqrt(((x - matrix @ z) ** 2).sum())


def main():
    matrix = Matrix(MPI.COMM_WORLD)
    is_first = MPI.COMM_WORLD.rank == 0
    x = numpy.ones(N)
    for step in range(1, STEPS + 1):
        z, rest = solve(matrix, x)
        zeta = SHIFT + 1.0 / (x @ z)
        x = z / math.sqrt(z @ z)
        if is_first:
            print(f"{step:2}  {rest:.8e}  {zeta:.13f}")
    if is_first:
        print(f"zeta is {zeta:.13f}; verified: {abs(zeta - VERIFIED) < 1e-10}")


main()
