"""Two processes that send each other messages: what each end does, and what is measured at the near one.

A link has `send(value)` and `recv()`; how it is made is its peer's business.

Rule: both ends do the same for every peer.
"""

import time

SMALL = b"x" * 100
ARRAY = 1_000_000  # numbers of 8 bytes
WARM = 50


def near(link, work, size):
    """The near end; returns the figures."""
    return NEAR[work](link, size)


def far(link, work, size):
    FAR[work](link, size)


def _roundtrip(link, size):
    took = []
    for number in range(WARM + size):
        began = time.perf_counter()
        link.send(SMALL)
        link.recv()
        if number >= WARM:
            took.append(time.perf_counter() - began)
    took.sort()
    return {"p50": took[size // 2], "p99": took[min(size - 1, size * 99 // 100)]}


def _echo(link, size):
    for _ in range(WARM + size):
        link.send(link.recv())


def _oneway(link, size):
    """The time until the far end says that it has them all."""
    link.recv()
    began = time.perf_counter()
    for _ in range(size):
        link.send(SMALL)
    if link.recv() != size:
        raise AssertionError("messages were lost")
    return {"each": (time.perf_counter() - began) / size}


def _count(link, size):
    link.send("ready")
    received = sum(link.recv() == SMALL for _ in range(size))
    link.send(received)


def _arrays(link, size):
    import numpy

    variety = [numpy.arange(ARRAY, dtype=numpy.int64) + i for i in range(4)]
    link.send(variety[0])
    link.recv()
    began = time.perf_counter()
    for number in range(size):
        link.send(variety[number % 4])
        if link.recv() != ARRAY - 1 + number % 4:
            raise AssertionError("an array has changed on its way")
    return {"each": (time.perf_counter() - began) / size}


def _last_numbers(link, size):
    for _ in range(size + 1):
        link.send(int(link.recv()[-1]))


NEAR = {"packet_roundtrip": _roundtrip, "packet_oneway": _oneway, "packet_arrays": _arrays}
FAR = {"packet_roundtrip": _echo, "packet_oneway": _count, "packet_arrays": _last_numbers}


# ---- the links of the standard library


class QueueLink:
    def __init__(self, out, into):
        self.send = out.put
        self.recv = into.get


class PipeLink:
    def __init__(self, end):
        self.send = end.send
        self.recv = end.recv


def talk(link, other, work, size):
    """Both ends: the far one in a process of multiprocessing."""
    import multiprocessing

    process = multiprocessing.Process(target=far, args=(other, work, size))
    process.start()
    try:
        return near(link, work, size)
    finally:
        process.join(30)


# ---- River's


class Box:
    """A VirtualResource's send and recv, as a link."""

    def __init__(self, vr, other):
        self._vr = vr
        self._other = other

    def send(self, value):
        self._vr.send(self._other, value=value)

    def recv(self):
        return self._vr.recv(src=self._other).value


def river_talk(work, size):
    """Both ends are VRs in VMs of their own; a third one, here, starts them and hears what was measured."""
    import river

    class Talk(river.VirtualResource):
        def main(self):
            if self.parent is None:
                return self.initiate()
            order = self.recv(src=self.parent)
            link = Box(self, order.other)
            if order.is_near:
                self.send(self.parent, figures=near(link, work, size))
            else:
                far(link, work, size)
            return None

        def initiate(self):
            one, two = (vr["uuid"] for vr in self.deploy(self.discover()[:2], cls=Talk))
            self.send(one, other=two, is_near=True)
            self.send(two, other=one, is_near=False)
            return self.recv(src=one).figures

    try:
        return river.run(Talk, n=2)
    finally:
        river.disconnect()


def matched(size):
    """Seconds for each `recv(tag=...)` of a packet that is there, by how many others wait before it."""
    import river

    class Alone(river.VirtualResource):
        def main(self):
            return {name: self.measure(count) for name, count in (("none", 0), ("few", 100), ("many", 100_000))}

        def measure(self, count):
            for number in range(count):
                self.send(self.uuid, tag="other", number=number)
            for number in range(size):
                self.send(self.uuid, tag="wanted", number=number)
            self.recv(tag="wanted")  # the first search finds out what to search by
            began = time.perf_counter()
            for _ in range(size - 1):
                self.recv(tag="wanted")
            took = (time.perf_counter() - began) / (size - 1)
            for _ in range(count):
                self.recv(tag="other")
            return took

    try:
        figures = river.run(Alone, n=1)
    finally:
        river.disconnect()
    return {"over": figures["many"] / figures["none"], **figures}
