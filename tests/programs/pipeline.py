"""A pipeline: each stage is a process, queues are between them, and a sentinel runs through to the end."""

from multiprocessing import Process, Queue

STOP = "STOP"

TEXT = """the river that can be named is not the eternal river
the name that can be named is not the eternal name"""


def split(inbox, outbox):
    for line in iter(inbox.get, STOP):
        for word in line.split():
            outbox.put(word)
    outbox.put(STOP)


def shout(inbox, outbox):
    for word in iter(inbox.get, STOP):
        outbox.put(word.upper())
    outbox.put(STOP)


def count(inbox, outbox):
    counts = {}
    for word in iter(inbox.get, STOP):
        counts[word] = counts.get(word, 0) + 1
    outbox.put(counts)


if __name__ == "__main__":
    queues = [Queue() for _ in range(4)]
    stages = [
        Process(target=stage, args=(queues[index], queues[index + 1]), name=stage.__name__)
        for index, stage in enumerate([split, shout, count])
    ]
    for stage in stages:
        stage.start()
    for line in TEXT.splitlines():
        queues[0].put(line)
    queues[0].put(STOP)
    for word, times in sorted(queues[-1].get().items()):
        print(times, word)
    for stage in stages:
        stage.join()
        print(stage.name, "ended with", stage.exitcode)
