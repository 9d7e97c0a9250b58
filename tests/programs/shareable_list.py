"""A ShareableList that processes change, by its name and as an argument; and one of a manager's."""

from multiprocessing import Process
from multiprocessing.managers import SharedMemoryManager
from multiprocessing.shared_memory import ShareableList


def double(name, index):
    numbers = ShareableList(name=name)
    numbers[index] *= 2
    numbers.shm.close()


def shout(words):
    words[1] = words[1].upper()
    words.shm.close()


if __name__ == "__main__":
    numbers = ShareableList([1, 2.5, 30, None, "text"])
    try:
        processes = [Process(target=double, args=(numbers.shm.name, index)) for index in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(list(numbers))
    finally:
        numbers.shm.close()
        numbers.shm.unlink()
    with SharedMemoryManager() as manager:
        words = manager.ShareableList(["the", "river", "runs"])
        process = Process(target=shout, args=(words,))
        process.start()
        process.join()
        print(*words)
