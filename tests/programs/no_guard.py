# A script without functions for the main part and without a guard, as notebooks and quick scripts have it.
from multiprocessing import Pool, Process, Queue

FACTOR = 3


def scale(x):
    return x * FACTOR


def tell(queue, name):
    queue.put(f"hello from {name}")


pool = Pool(2)
print(pool.map(scale, [1, 2, 3]))
print(pool.apply(scale, (4,)))
pool.close()
pool.join()

queue = Queue()
p = Process(target=tell, args=(queue, "a process"))
p.start()
print(queue.get())
p.join()
print(p.exitcode)
