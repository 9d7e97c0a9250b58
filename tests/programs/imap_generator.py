"""imap and imap_unordered over generators, as results come."""

import multiprocessing
import time


def lines(count):
    for number in range(count):
        yield f"line {number}: " + "word " * (number % 5)


def words(line):
    return len(line.split())


def slow_first(number):
    if number == 0:
        time.sleep(0.2)
    return number * 10


def fails(number):
    if number == 3:
        raise ValueError(f"{number} is not liked")
    return number


if __name__ == "__main__":
    with multiprocessing.Pool(3) as pool:
        print("words:", sum(pool.imap(words, lines(200), chunksize=16)))
        print("in order:", list(pool.imap(slow_first, (n for n in range(6)))))
        print("in any order:", sorted(pool.imap_unordered(slow_first, range(6))))
        results = pool.imap(fails, range(5))
        while True:
            try:
                print(next(results))
            except StopIteration:
                break
            except ValueError as error:
                print("ValueError:", error)
