"""apply_async with callbacks, errors and timeouts."""

import multiprocessing
import time


def parse(text):
    return int(text)


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def main():
    results, errors = [], []
    with multiprocessing.Pool(2) as pool:
        jobs = [
            pool.apply_async(parse, (text,), callback=results.append, error_callback=lambda e: errors.append(str(e)))
            for text in ("1", "two", "3", "4", "five")
        ]
        pool.close()
        pool.join()
    print(sorted(results), sorted(errors))
    print([job.ready() and job.successful() for job in jobs])

    with multiprocessing.Pool(1) as pool:
        job = pool.apply_async(sleep, (60,))
        try:
            job.get(timeout=0.2)
        except multiprocessing.TimeoutError:
            print("timed out, ready:", job.ready())
        try:
            job.successful()
        except ValueError as error:
            print("ValueError:", "not ready" in str(error))
        pool.terminate()
    print(pool.map.__name__)


if __name__ == "__main__":
    main()
