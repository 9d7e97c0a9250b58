"""Producers and consumers with one queue each way; a sentinel ends each consumer."""

import multiprocessing as mp


def producer(name, queue, count):
    for number in range(count):
        queue.put((name, number))


def consumer(queue, results):
    while True:
        item = queue.get()
        if item is None:
            break
        name, number = item
        results.put((name, number, number**2))
    results.put(None)


def main():
    queue, results = mp.Queue(maxsize=10), mp.Queue()
    producers = [mp.Process(target=producer, args=(name, queue, 20)) for name in "abc"]
    consumers = [mp.Process(target=consumer, args=(queue, results)) for _ in range(2)]
    for process in producers + consumers:
        process.start()
    for process in producers:
        process.join()
    for _ in consumers:
        queue.put(None)

    found, ended = [], 0
    while ended < len(consumers):
        result = results.get()
        if result is None:
            ended += 1
        else:
            found.append(result)
    for process in consumers:
        process.join()
    print(len(found), "results; the first and the last:", min(found), max(found))
    print("sum of squares:", sum(square for _, _, square in found))
    print("queue is empty:", queue.empty(), results.empty())


if __name__ == "__main__":
    main()
