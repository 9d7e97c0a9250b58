"""Pool with an initializer: each worker keeps what it needs in globals."""

import multiprocessing
import os

table = None
offset = None


def prepare(size, start):
    global table, offset
    table = [number**2 for number in range(size)]
    offset = start


def look_up(number):
    return table[number] + offset


def who(_):
    return os.getpid(), len(table)


if __name__ == "__main__":
    with multiprocessing.Pool(3, initializer=prepare, initargs=(100, 7)) as pool:
        print(pool.map(look_up, range(0, 100, 9)))
        seen = pool.map(who, range(30), chunksize=1)
        print("table sizes:", {size for _, size in seen}, "in this process:", table)
        print("another process:", os.getpid() not in {pid for pid, _ in seen})
    with multiprocessing.Pool(2, prepare, (10, 0), maxtasksperchild=2) as pool:
        print(pool.map(look_up, range(10), chunksize=1))
