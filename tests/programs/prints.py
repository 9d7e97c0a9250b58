"""Processes that print: what they say comes out where their parent's output goes."""

from multiprocessing import Pool, Process, current_process


def greet(name):
    print("hello", name, "from", current_process().name, flush=True)


def shout(word):
    print(word.upper())
    return len(word)


if __name__ == "__main__":
    for name in ("bob", "alice"):
        process = Process(target=greet, args=(name,), name=f"greeter of {name}")
        process.start()
        process.join()
    with Pool(1) as pool:
        print(pool.map(shout, ["one", "two"]))
        pool.close()
        pool.join()
    print("parent says goodbye")
