"""A shared Array of rows, one of numbers that all change under its lock, and a text."""

from ctypes import c_char, c_int
from multiprocessing import Array, Process, Value

WIDTH = 6


def fill(cells, row):
    for column in range(WIDTH):
        cells[row * WIDTH + column] = row * column


def double(numbers, text, count):
    with numbers.get_lock():
        for index, number in enumerate(numbers):
            numbers[index] = 2 * number
        count.value += 1
        text.value = text.value + b"!"


if __name__ == "__main__":
    cells = Array(c_int, WIDTH * 4)
    numbers = Array("d", [0.5, 1.0, 2.25])
    text = Array(c_char, 20)
    text.value = b"twice"
    count = Value(c_int, 0)
    processes = [Process(target=fill, args=(cells, row)) for row in range(4)]
    processes += [Process(target=double, args=(numbers, text, count)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for row in range(4):
        print(cells[row * WIDTH : (row + 1) * WIDTH])
    print(numbers[:], text.value, count.value, len(cells))
