"""What mpi4py has beside MPI itself, by the same names.

May not: import anything.
"""
