"""A shared Value that many processes increment, with its own lock and with one beside it."""

import multiprocessing


def with_its_own(counter):
    for _ in range(200):
        with counter.get_lock():
            counter.value += 1


def with_another(counter, lock):
    for _ in range(200):
        lock.acquire()
        counter.value += 2
        lock.release()


def main():
    counter = multiprocessing.Value("i", 0)
    total = multiprocessing.Value("d", 0.5, lock=True)
    lock = multiprocessing.Lock()
    processes = [multiprocessing.Process(target=with_its_own, args=(counter,)) for _ in range(4)]
    processes += [multiprocessing.Process(target=with_another, args=(total, lock)) for _ in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
    print("counter:", counter.value)
    print("total:", total.value)
    print("exit codes:", [p.exitcode for p in processes])


if __name__ == "__main__":
    main()
