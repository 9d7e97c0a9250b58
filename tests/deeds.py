"""What the tests of machines have done on a host: it needs no more there than a Python.

Tests have these by value, as the functions of a script travel.

May not: import anything but the standard library, or assert anything.
"""

import ctypes
import os
import subprocess
import time

FOR_EVER = 600


def note(path, value):
    """Append a line to a file, whole, whoever else does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{value}\n".encode())
    os.close(descriptor)


def note_and_wait(path, value):
    """Returns when the file of this name with "-open" at its end is there."""
    note(path, value)
    while not os.path.exists(f"{path}-open"):
        time.sleep(0.01)
    return value


def note_and_work(path, seconds, value):
    note(path, value)
    time.sleep(seconds)
    return value, os.uname().nodename


def note_and_hold_the_lock(path, seconds, value):
    """No thread of this VM's Python runs for so many seconds."""
    note(path, value)
    ctypes.PyDLL(None).sleep(seconds)
    return value


def note_and_start_child(path):
    """The first time that it runs, it does not end by itself."""
    child = subprocess.Popen(["sleep", str(FOR_EVER)])
    note(path, child.pid)
    with open(path) as file:
        if len(file.readlines()) == 1:
            child.wait()


def leave_child_behind():
    subprocess.Popen(["sleep", str(FOR_EVER)], start_new_session=True)


def wait_for_ever(*_):
    time.sleep(FOR_EVER)


def compute(value):
    """A few milliseconds of a core."""
    for _ in range(200_000):
        pass
    return value, os.uname().nodename


def where(_):
    time.sleep(0.05)
    return os.uname().nodename


def successor(value):
    return value + 1


def reverse(data):
    return bytes(data)[::-1]


def print_and_measure(data):
    print("this goes to the driver")
    return len(data)


def talk(count):
    for number in range(count):
        print(f"{number:09} " + 90 * "x")
    return count
