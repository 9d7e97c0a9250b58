"""Perfect numbers, by workers fed through a queue: a program for `multiprocessing` that has never heard of River.

    python examples/port.py                                the standard module
    river run examples/port.py                             the same on River
    river run --hosts node1,node2 examples/port.py         ... on these machines
"""

import multiprocessing
import socket

LIMIT, STEP = 10_000, 500


def sum_of_divisors(n):
    found = 1
    for divisor in range(2, int(n**0.5) + 1):
        if n % divisor == 0:
            found += divisor + (n // divisor if divisor * divisor != n else 0)
    return found


def work(tasks, results, checked):
    for start in iter(tasks.get, None):
        numbers = range(max(2, start), start + STEP)
        results.put([n for n in numbers if sum_of_divisors(n) == n])
        with checked.get_lock():
            checked.value += len(numbers)
    results.put(socket.gethostname())


def main():
    tasks, results = multiprocessing.Queue(), multiprocessing.Queue()
    checked = multiprocessing.Value("i", 0)
    workers = [
        multiprocessing.Process(target=work, args=(tasks, results, checked))
        for _ in range(multiprocessing.cpu_count())
    ]
    for worker in workers:
        worker.start()
    for start in range(0, LIMIT, STEP):
        tasks.put(start)
    for _ in workers:
        tasks.put(None)

    perfect, hosts = [], []
    while len(hosts) < len(workers):
        result = results.get()
        if isinstance(result, str):
            hosts.append(result)
        else:
            perfect += result
    for worker in workers:
        worker.join()
    print(f"of {checked.value} numbers these are perfect: {sorted(perfect)}")
    print(f"{len(workers)} workers of {multiprocessing.__name__} on {', '.join(sorted(set(hosts)))}")


if __name__ == "__main__":
    main()
