"""Contexts and start methods, and the shared state that is passed instead of inherited."""

import multiprocessing as mp


def double(x):
    return 2 * x


def append(shared, lock, number):
    with lock:
        shared.put(number)


if __name__ == "__main__":
    mp.freeze_support()
    mp.set_start_method("spawn")
    print(mp.get_start_method(), "spawn" in mp.get_all_start_methods())
    try:
        mp.set_start_method("fork")
    except RuntimeError as error:
        print("RuntimeError:", error)
    context = mp.get_context("spawn")
    with context.Pool(2) as pool:
        print(pool.map(double, range(5)))
    queue, lock = context.Queue(), context.Lock()
    processes = [context.Process(target=append, args=(queue, lock, n)) for n in range(3)]
    for process in processes:
        process.start()
    print(sorted(queue.get() for _ in processes))
    for process in processes:
        process.join()
    with mp.Pool(2) as pool:
        print(pool.apply(double, (21,)))
