"""What programs of ranks that keep promises share: each promise is a function of a communicator, in a table by name.

    promise = Promises()
    @promise
    def it_is_so(comm): ...              promise.keep() at the end of the program: rank 0 prints what all have kept

May not: import River at the top; the ranks do that.
"""

import subprocess
import sys

import tools


class Promises(dict):
    def __call__(self, function):
        self[function.__name__] = function
        return function

    def keep(self):
        """In a rank: keep all of them, one after the other, each on a communicator of its own."""
        from river.mpi import MPI

        for name, function in self.items():
            function(MPI.COMM_WORLD.Dup())
            MPI.COMM_WORLD.Barrier()
            if MPI.COMM_WORLD.rank == 0:
                print(name, flush=True)


def kept(program, ranks):
    """In a test: the names of the promises that all ranks have kept, and what was said of one that they have not."""
    _, out, said = ended(program.__file__, ranks)
    return out.splitlines(), said


def ended(path, ranks, *options):
    """In a test: run a program; its exit code, and what it has printed and said."""
    done = subprocess.run(
        [sys.executable, "-m", "river.mpi", "-n", str(ranks), *options, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        env=tools.surroundings(),
    )
    return done.returncode, done.stdout, done.stderr


def error_of(call, *args, **keywords):
    """The class of the error that it raises."""
    from river.mpi import MPI

    try:
        call(*args, **keywords)
    except MPI.Exception as error:
        return error.Get_error_class()
    raise AssertionError("it raises nothing")
