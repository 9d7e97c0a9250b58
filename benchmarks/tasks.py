"""What the workers run.

Rule: nothing but the standard library is imported here, and little of it: every worker of every peer imports
this module, and the memory of an idle worker is one of the things measured.
"""

import os
import time


def noop(x):
    return x


def negative(array):
    return -array


def item(array, index):
    return int(array[index])


def pause(seconds):
    time.sleep(seconds)
    return seconds


def who(seconds):
    """The worker that ran this; it keeps it busy for a while, so that a second task finds another worker."""
    time.sleep(seconds)
    return os.getpid()
