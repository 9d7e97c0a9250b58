"""Thread pools by the same face, beside processes."""

from multiprocessing import Pool
from multiprocessing.dummy import Pool as DummyPool
from multiprocessing.pool import ThreadPool

seen = []


def note(x):
    seen.append(x)
    return x + 1


def plus_two(x):
    return x + 2


if __name__ == "__main__":
    with ThreadPool(3) as threads:
        print(threads.map(note, range(5)), sorted(seen))
        with Pool(2) as pool:
            print(threads.map(lambda x: pool.apply(plus_two, (x,)), range(4)))
    with DummyPool(2) as threads:
        print(threads.map(len, ["a", "bb", "ccc"]))
