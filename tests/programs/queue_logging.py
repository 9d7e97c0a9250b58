"""Logging through a queue, the way of the logging cookbook: workers send records, one listener writes them."""

import logging
import logging.handlers
import multiprocessing
import sys


class Collect(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(f"{record.levelname} {record.name} {record.processName}: {record.getMessage()}")


def worker(queue, number):
    root = logging.getLogger()
    root.handlers[:] = [logging.handlers.QueueHandler(queue)]
    root.setLevel(logging.INFO)
    log = logging.getLogger(f"worker.{number}")
    log.debug("not seen")
    log.info("%d squared is %d", number, number**2)
    if number == 2:
        log.warning("two is enough")


def main():
    queue = multiprocessing.Queue()
    collect = Collect()
    listener = logging.handlers.QueueListener(queue, collect)
    listener.start()
    workers = [multiprocessing.Process(target=worker, args=(queue, n), name=f"worker-{n}") for n in range(4)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    listener.stop()
    for line in sorted(collect.lines):
        print(line)
    print(len(collect.lines), "records", file=sys.stdout)


if __name__ == "__main__":
    main()
