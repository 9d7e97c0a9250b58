"""Which word of four letters has this fingerprint?  A master hands out first letters, workers try the rest.

    $ river -n 4 search.py

Nobody keeps a list of who is idle: whoever is says so by a packet, and the master takes the packets it wants by tag.
"""

from hashlib import sha256
from itertools import product
from string import ascii_lowercase

from vr import VirtualResource

FINGERPRINT = "19b25856e1c150ca834cffc8b59b23adbd0ec0389e58eb22b3b64768098d002b"


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
        for letter in ascii_lowercase:
            idle = self.recv(tag="idle")
            if self.peek(tag="found"):
                break
            self.send(dest=idle.src, tag="try", letter=letter)
        print(f"the word is {self.recv(tag='found').word!r}")
        for worker in self.children:
            self.send(dest=worker, tag="end")

    def worker(self):
        self.send(dest=self.parent, tag="idle")
        while (msg := self.recv(src=self.parent)).tag == "try":
            for rest in product(ascii_lowercase, repeat=3):
                word = msg.letter + "".join(rest)
                if sha256(word.encode()).hexdigest() == FINGERPRINT:
                    self.send(dest=self.parent, tag="found", word=word)
            self.send(dest=self.parent, tag="idle")
