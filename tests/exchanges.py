"""What VRs and tasks on different machines say to each other in the tests of clusters.

A module of its own, which travels to hosts that have nothing but a Python.

May not: assert anything.
"""

import array
import hashlib
import socket

from tasks import note

from river._core.post import the_post


def hostname(_):
    return socket.gethostname()


def count(case):
    """Notes that it ran, on the machine where it did; `case` is (file, value)."""
    note(*case)
    return case[1]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def numbers(size):
    """An array of so many bytes, all different."""
    return array.array("q", range(size // 8))


def send_numbers(vr, peer, count):
    for number in range(count):
        vr.send(dest=peer, tag="number", number=number)


def numbers_both_ways(vr, count):
    """Sends so many numbered packets to its peer while it sends as many; tells the parent what came, and where."""
    peer = vr.recv(tag="peer").peer
    send_numbers(vr, peer, count)
    came = [vr.recv(tag="number", src=peer).number for _ in range(count)]
    tell(vr, came == list(range(count)))


def arrays_both_ways(vr, size, times):
    """The same with arrays: a packet has one, its digest, and the same as bytes."""
    peer = vr.recv(tag="peer").peer
    data = numbers(size)
    for number in range(times):
        data[0] = number
        vr.send(dest=peer, tag="array", data=data, raw=data.tobytes(), digest=digest(data))
    came = [vr.recv(tag="array", src=peer) for _ in range(times)]
    is_right = all(
        digest(packet.data) == packet.digest == digest(packet.raw) and packet.data[0] == number
        for number, packet in enumerate(came)
    )
    tell(vr, is_right)


def tell(vr, is_right):
    """Its parent: whether all came as it should, where this is, and whether it shares memory with another process."""
    shares = any(line.connection.shares for line in the_post()._all.values())
    vr.send(dest=vr.parent, tag="done", host=socket.gethostname(), is_right=is_right, shares=shares)


def produce(queue, name, count):
    for number in range(count):
        queue.put((name, number))
    return socket.gethostname()


def consume(queue, count):
    return socket.gethostname(), [queue.get(timeout=60) for _ in range(count)]

