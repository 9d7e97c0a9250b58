"""A shared Array of rows, an Array of structures, and a RawArray that is only read."""

from ctypes import Structure, c_double, c_int
from multiprocessing import Array, Process, Value

WIDTH = 6


class Point(Structure):
    _fields_ = [("x", c_double), ("y", c_double)]


def fill(cells, row):
    for column in range(WIDTH):
        cells[row * WIDTH + column] = row * column


def move(points, count):
    with points.get_lock():
        for point in points:
            point.x += 1
            point.y *= 2
        count.value += 1


if __name__ == "__main__":
    cells = Array(c_int, WIDTH * 4)
    points = Array(Point, [(0.0, 1.0), (2.5, -3.0)])
    count = Value(c_int, 0)
    processes = [Process(target=fill, args=(cells, row)) for row in range(4)]
    processes += [Process(target=move, args=(points, count)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for row in range(4):
        print(cells[row * WIDTH : (row + 1) * WIDTH])
    print([(point.x, point.y) for point in points], count.value, len(cells))
