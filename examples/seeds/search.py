"""A master hands out stretches of numbers, workers search them for primes p where p + 2 is prime too.

    $ river -n 4 search.py

Nobody keeps a list of who is idle: a worker asks for work by a packet with tag="ready", and the master picks out what
it wants to deal with next by tag.
"""

from river import any_of
from vr import VirtualResource

STRETCH, END = 5_000, 40_000


def is_prime(n):
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


class Search(VirtualResource):
    def vr_init(self):
        self.deploy(self.allocate(self.discover()), module=self.__module__)
        return True

    def main(self):
        if self.parent is None:
            self.master()
        else:
            self.worker()

    def master(self):
        work = list(range(0, END, STRETCH))
        busy = set()
        pairs = 0
        while work or busy:
            msg = self.recv(tag=any_of("ready", "found") if work else "found")
            if msg.tag == "found":
                pairs += msg.pairs
                busy.discard(msg.src)
            else:
                busy.add(msg.src)
                self.send(dest=msg.src, tag="work", start=work.pop(0))
        for worker in self.children:
            self.send(dest=worker, tag="end")
        print(f"{pairs} pairs of twin primes below {END}")

    def worker(self):
        while True:
            self.send(dest=self.parent, tag="ready")
            msg = self.recv(src=self.parent)
            if msg.tag == "end":
                return
            found = [p for p in range(msg.start, msg.start + STRETCH) if is_prime(p) and is_prime(p + 2)]
            self.send(dest=self.parent, tag="found", pairs=len(found))
