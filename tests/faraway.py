"""What the tests run on other machines, which have no pytest: functions of a test module would bring it along."""

import logging
import os
import pickle
import socket
import sys
import time

import river
from river.queues import Queue

MEGABYTE = 1 << 20


def where():
    return socket.gethostname()


def square(x):
    return x * x


def versions():
    import cloudpickle

    return river.__version__, cloudpickle.__version__


def chatter(x):
    print(f"hello {x}")
    print("to stderr", file=sys.stderr)
    os.write(1, b"from C\n")
    logging.getLogger("mine.own").warning("logged %d", x)
    logging.getLogger("mine.own").debug("not wanted here")
    return x


def flood():
    for number in range(200_000):
        print(f"line {number} of very many")


def fails():
    raise LookupError("not there")


def total(view):
    return sum(view[:: len(view) // 10])


def ends_of(view):
    return view[0], view[-1], len(view)


def large(number):
    return pickle.PickleBuffer(bytearray([number]) * (16 * MEGABYTE))


def surroundings():
    return (*map(os.environ.get, ("COLOUR", "LOADED", "ALSO")), os.getcwd())


def send_to(pipe, number):
    pipe.send(number)


def detach(kept):
    return kept.detach()


def prefix():
    return sys.prefix


def make_queue():
    queue = Queue()
    sys.kept = [*getattr(sys, "kept", []), queue]
    return queue


def echo(queue, back, count):
    for number in range(count):
        item = queue.get(timeout=60)
        assert item == number, f"{item} came as number {number}"
        back.put(item)


def drive(queue, back, count, pause=0.0):
    """Send so many numbers, with a pause after each hundred; whether they come back in order."""
    for number in range(count):
        queue.put(number)
        if pause and number % 100 == 0:
            time.sleep(pause)
    return [back.get(timeout=60) for _ in range(count)] == list(range(count))


def wait_for(queue):
    return queue.get(timeout=60)
