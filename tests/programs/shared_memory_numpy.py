"""Numerical integration: each process fills its part of a numpy array in shared memory."""

from multiprocessing import Process
from multiprocessing.shared_memory import SharedMemory

import numpy as np

STEPS, WORKERS = 40_000, 4


def integrate(name, part):
    memory = SharedMemory(name=name)
    values = np.ndarray((STEPS,), dtype=np.float64, buffer=memory.buf)
    mine = slice(part * STEPS // WORKERS, (part + 1) * STEPS // WORKERS)
    x = (np.arange(STEPS)[mine] + 0.5) / STEPS
    values[mine] = 4 / (1 + x**2) / STEPS
    del values
    memory.close()


if __name__ == "__main__":
    memory = SharedMemory(create=True, size=STEPS * 8)
    try:
        processes = [Process(target=integrate, args=(memory.name, part)) for part in range(WORKERS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        values = np.ndarray((STEPS,), dtype=np.float64, buffer=memory.buf)
        print(f"pi is about {values.sum():.8f}")
        del values
    finally:
        memory.close()
        memory.unlink()
