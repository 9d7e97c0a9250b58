"""concurrent.futures: submit, as_completed, exceptions, callbacks, and a process that dies."""

import concurrent.futures
import os
from concurrent.futures.process import BrokenProcessPool


def divide(a, b):
    return a / b


def die(_):
    os._exit(3)


def main():
    done = []
    with concurrent.futures.ProcessPoolExecutor(max_workers=3) as executor:
        futures = {executor.submit(divide, 60, n): n for n in range(5)}
        for future in futures:
            future.add_done_callback(done.append)
        outcomes = {}
        for future in concurrent.futures.as_completed(futures, timeout=60):
            n = futures[future]
            try:
                outcomes[n] = future.result()
            except ZeroDivisionError as error:
                outcomes[n] = f"ZeroDivisionError: {error}"
        for n in sorted(outcomes):
            print(f"60 / {n} = {outcomes[n]}")
        print(list(executor.map(divide, [1, 2, 3], [2, 4, 8])))
    print("callbacks:", len(done))

    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        try:
            executor.submit(die, None).result()
        except BrokenProcessPool as error:
            print(type(error).__name__ != "", isinstance(error, concurrent.futures.BrokenExecutor))


if __name__ == "__main__":
    main()
