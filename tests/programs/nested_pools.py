"""Pools inside of processes of a pool: an executor's processes may have children."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool, Process, Queue


def cube(x):
    return x**3


def row(n):
    with ProcessPoolExecutor(max_workers=2) as inner:
        return list(inner.map(cube, range(n)))


def in_process(queue):
    with Pool(2) as pool:
        queue.put(pool.map(cube, [10, 20]))


if __name__ == "__main__":
    with ProcessPoolExecutor(max_workers=2) as outer:
        for line in outer.map(row, range(1, 6)):
            print(line)
    queue = Queue()
    process = Process(target=in_process, args=(queue,))
    process.start()
    print("in a process:", queue.get())
    process.join()
