"""VirtualResources that the tests deploy; `Does` does what it is given.

A module of its own, so that a fresh interpreter finds it by name and need not import pytest with it.

May not: assert anything.
"""

import os
import signal
import sys
import threading
from queue import Empty

import tasks

from river.errors import VirtualResourceLost
from river.vr import VirtualResource


class Does(VirtualResource):
    """Calls a function with itself and these arguments."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def main(self):
        return self.function(self, *self.args)


class DoesWithLittleRoom(Does):
    mailbox_size = 4


class Fails(VirtualResource):
    """Before its main begins."""

    def __init__(self, how):
        how(self)


class Unsendable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


# ------------------------------------------------------------------------------------------- what they do


def say_hello(vr, *args):
    vr.send(dest=vr.parent, tag="hello", pid=os.getpid(), thread=threading.get_ident(), uuid=vr.uuid, args=args)


def say_hello_and_wait(vr, *args):
    say_hello(vr, *args)
    vr.recv(tag="end")


def wait(vr):
    vr.recv(tag="end")


def end(vr):
    pass


def answer(vr):
    """Sends back what it gets, until it is told to end."""
    while (packet := vr.recv()).tag != "end":
        vr.send(dest=packet.src, **{name: value for name, value in vars(packet).items() if name != "src"})


def count(vr, number, how):
    for i in range(number):
        vr.send(dest=vr.parent, number=i)
    how(vr)


def exit_without_reason(vr):
    sys.exit()


def exit_with_reason(vr):
    sys.exit("nothing to do")


def fail(vr):
    raise ZeroDivisionError("on purpose")


def fail_unsendably(vr):
    raise Unsendable("kept to itself")


def fail_when_told(vr):
    vr.recv(tag="go")
    fail(vr)


def die(vr):
    os.kill(os.getpid(), signal.SIGKILL)


def tell_of_children(vr, function, vms):
    """Deploys a VR on each of so many VMs and passes on what it says."""
    kind = type(vr)
    deployed = vr.deploy(vr.allocate(vr.discover(), vms), cls=kind, args=(function,))
    said = [vr.recv(src=entry["uuid"]) for entry in deployed]
    vr.send(dest=vr.parent, tag="children", children=vr.children, pids=[s.pid for s in said], own=os.getpid())


def tell_of_trouble(vr, function, cls=None):
    """Deploys one that fails, and tells of what comes of it."""
    try:
        vr.deploy(vr.allocate(vr.discover(), 1), cls=cls or Does, args=(function,))
        vr.recv()
    except BaseException as error:
        vr.send(dest=vr.parent, tag="trouble", kind=type(error).__name__, text=str(error), cause=str(error.__cause__))


def print_and_tell(vr, text):
    print(text)
    vr.send(dest=vr.parent, tag="printed")
    vr.recv(tag="end")


def flood(vr, number, size):
    """Sends all of it to the next one before it receives anything."""
    peers = vr.recv(tag="peers")
    for i in range(number):
        vr.send(dest=peers.to, tag="flood", number=i, data=bytes([i % 251]) * size)
    good = 0
    for i in range(number):
        packet = vr.recv(src=peers.of, tag="flood")
        good += packet.number == i and len(packet.data) == size and packet.data[0] == packet.data[-1] == i % 251
    vr.send(dest=vr.parent, tag="flooded", good=good)


def exchange(vr, index, number, tell_at, end_at):
    """Sends `number` packets to each of the others, and checks what they send.

    tell_at: the parent hears when so many are sent. end_at: when so many are sent it fails."""
    others = [uuid for uuid in vr.recv(tag="others").others if uuid != vr.uuid]
    came, wrong, gone = dict.fromkeys(others, 0), [], set()

    def take(packet):
        if packet.number != came[packet.src]:
            wrong.append((packet.src, came[packet.src], packet.number))
        came[packet.src] += 1

    for i in range(number):
        for uuid in others:
            if uuid not in gone:
                try:
                    vr.send(dest=uuid, tag="numbered", number=i)
                except VirtualResourceLost:
                    gone.add(uuid)
        try:
            while i % 8 == 0:
                take(vr.recv_nowait(tag="numbered"))
        except Empty:
            pass
        if i == tell_at:
            vr.send(dest=vr.parent, tag="progress", index=index)
        if i == end_at:
            fail(vr)
    for uuid in others:
        try:
            while came[uuid] < number:
                take(vr.recv(src=uuid, tag="numbered"))
        except VirtualResourceLost:
            pass
    vr.send(dest=vr.parent, tag="report", index=index, came=came, wrong=wrong)
    vr.recv(tag="end")


def exchange_with_a_task(vr, peer, number):
    for i in range(number):
        vr.send(dest=peer, tag="echo", number=i)
        if vr.recv(src=peer).number != i:
            break
    vr.send(dest=vr.parent, tag="done", number=i + 1)


def note_what_comes(vr, path):
    while (packet := vr.recv()).tag != "end":
        tasks.note(path, packet.number)
