"""How processes end: by themselves, by sys.exit(), by an exception, by a signal; and what is known of them."""

import multiprocessing as mp
import os
import sys
import time


def leave(code):
    sys.exit(code)


def fail():
    sys.stderr = open(os.devnull, "w")  # its traceback differs between versions of Python
    raise RuntimeError("on purpose")


def wait_for_ever(ready):
    ready.set()
    time.sleep(1000)


if __name__ == "__main__":
    print(mp.current_process().name, mp.parent_process())
    for target, args in [(leave, (0,)), (leave, (7,)), (leave, ("text",)), (fail, ())]:
        process = mp.Process(target=target, args=args)
        before = process.exitcode, process.is_alive(), process.pid
        process.start()
        process.join()
        print(target.__name__, args, before, "->", process.exitcode, process.is_alive(), process.pid is not None)
        process.close()
    ready = mp.Event()
    process = mp.Process(target=wait_for_ever, args=(ready,), name="waits", daemon=True)
    process.start()
    ready.wait()
    process.join(timeout=0.01)
    print(process.name, process.daemon, process.exitcode, process.is_alive(), process in mp.active_children())
    process.terminate()
    process.join()
    print("terminated:", process.exitcode, mp.active_children())
