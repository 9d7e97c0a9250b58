"""An Event starts all workers at once, a Barrier keeps their phases together."""

from multiprocessing import Barrier, Event, Process, Queue

WORKERS, PHASES = 3, 4


def worker(number, start, barrier, log):
    start.wait()
    for phase in range(PHASES):
        log.put((phase, number))
        barrier.wait()
    if barrier.wait() == 0:
        log.put((PHASES, "all are done"))


if __name__ == "__main__":
    start, barrier, log = Event(), Barrier(WORKERS), Queue()
    processes = [Process(target=worker, args=(number, start, barrier, log)) for number in range(WORKERS)]
    for process in processes:
        process.start()
    print("started:", start.is_set(), log.empty())
    start.set()
    entries = [log.get(timeout=60) for _ in range(WORKERS * PHASES + 1)]
    for process in processes:
        process.join()
    for phase in range(PHASES + 1):
        print(phase, sorted(who for when, who in entries if when == phase))
