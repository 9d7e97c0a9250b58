"""A token goes round a ring of ranks, three times, and each adds its name to it.

    river -n 4 examples/mpi_ring.py
"""

from river.mpi import MPI

ROUNDS = 3

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
after, before = (rank + 1) % size, (rank - 1) % size

token = []
for _ in range(ROUNDS):
    if rank == 0:
        # A rank alone sends to itself, and must not wait for itself to receive it.
        going = comm.isend([*token, rank], dest=after)
        token = comm.recv(source=before)
        going.wait()
    else:
        comm.send([*comm.recv(source=before), rank], dest=after)

if rank == 0:
    print(f"after {ROUNDS} rounds the token has been at {len(token)} ranks:", *token)
    print("in the right order:", token == ROUNDS * list(range(size)))
