"""An Array of structures, as in the documentation of multiprocessing: processes change their fields in place."""

from ctypes import Structure, c_double
from multiprocessing import Array, Lock, Process, Value


class Point(Structure):
    _fields_ = [("x", c_double), ("y", c_double)]


def modify(n, x, s, points):
    n.value **= 2
    x.value **= 2
    s.value = s.value.upper()
    for point in points:
        point.x **= 2
        point.y **= 2


if __name__ == "__main__":
    lock = Lock()
    n = Value("i", 7)
    x = Value(c_double, 1.0 / 3.0, lock=False)
    s = Array("c", b"hello world", lock=lock)
    points = Array(Point, [(1.875, -6.25), (-5.75, 2.0), (2.375, 9.5)], lock=lock)
    process = Process(target=modify, args=(n, x, s, points))
    process.start()
    process.join()
    print(n.value)
    print(x.value)
    print(s.value)
    print([(point.x, point.y) for point in points])
