"""A Manager's dict and list, shared by processes and guarded by its lock: count letters."""

from multiprocessing import Manager, Process

WORDS = ["mississippi", "missouri", "ohio", "colorado", "amazon"]


def count_letters(word, counts, done, lock):
    for letter in word:
        with lock:
            counts[letter] = counts.get(letter, 0) + 1
    done.append(word)


if __name__ == "__main__":
    with Manager() as manager:
        counts, done, lock = manager.dict(), manager.list(), manager.Lock()
        settings = manager.Namespace(title="letters of rivers")
        processes = [Process(target=count_letters, args=(word, counts, done, lock)) for word in WORDS]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(settings.title)
        print(dict(sorted(counts.items())))
        print(sorted(done), len(counts), "i" in counts)
        nested = manager.dict(inner=manager.list([1, 2]))
        nested["inner"].append(3)
        print(list(nested["inner"]))
