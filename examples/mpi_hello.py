"""rMPI's first program, of the talk of 2006, as it was but for `print`: a class, C's names, boxes for results.

    river -n 4 examples/mpi_hello.py
"""

from mpi import *


class Hello(mpi):
    def main(self):
        self.MPI_Init()
        rank = mpi_Rank()
        np = mpi_Size()
        self.MPI_Comm_rank(MPI_COMM_WORLD, rank)
        self.MPI_Comm_size(MPI_COMM_WORLD, np)
        status = MPI_Status()
        recvbuf = [0.0]
        sendbuf = [rank.value * 100.0]
        print("Hello from rank %d" % (rank.value))
        if rank.value == 0:
            for i in range(1, np.value):
                self.MPI_Recv(recvbuf, 1, MPI_FLOAT, i, 0, MPI_COMM_WORLD, status)
                print("From rank %d: %f" % (i, recvbuf[0]))
        else:
            print("Rank %d sending %f" % (rank.value, sendbuf[0]))
            self.MPI_Send(sendbuf, 1, MPI_FLOAT, 0, 0, MPI_COMM_WORLD)
        self.MPI_Finalize()
