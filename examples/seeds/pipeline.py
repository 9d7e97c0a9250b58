"""Text flows through a pipeline: one VR splits lines into words, one counts them, the initiator prints.

    $ river -n 2 pipeline.py

Each stage is a VirtualResource of a class of its own.  What it hands on goes straight to the next one, VM to VM.
"""

from collections import Counter

from vr import VirtualResource

TEXT = """\
The river runs through many rooms
and through the rooms the river runs
"""


class Split(VirtualResource):
    def __init__(self, to):
        self.to = to

    def main(self):
        while (msg := self.recv()).tag == "line":
            self.send(dest=self.to, tag="words", words=msg.text.lower().split())
        self.send(dest=self.to, tag="end")


class Count(VirtualResource):
    def main(self):
        counts = Counter()
        while (msg := self.recv()).tag == "words":
            counts.update(msg.words)
        self.send(dest=self.parent, counts=counts)


class Pipeline(VirtualResource):
    def vr_init(self):
        vms = self.discover()
        self.count = self.deploy(vms[-1:], cls=Count)[0]["uuid"]
        self.split = self.deploy(vms[:1], cls=Split, args=[self.count])[0]["uuid"]
        return True

    def main(self):
        for line in TEXT.splitlines():
            self.send(dest=self.split, tag="line", text=line)
        self.send(dest=self.split, tag="end")
        for word, count in self.recv(src=self.count).counts.most_common(4):
            print(count, word)
