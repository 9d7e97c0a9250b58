"""Workers of pools are processes with a number of their own, by which programs choose a device, and with a parent."""

import concurrent.futures
import multiprocessing as mp


def who(_):
    me, parent = mp.current_process(), mp.parent_process()
    return me._identity, int(me.name.split("-")[-1]), me.daemon, parent.name, parent.is_alive()


if __name__ == "__main__":
    with mp.Pool(1) as pool:
        print(pool.map(who, range(2)))
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        print(list(executor.map(who, range(2))))
    with mp.get_context("spawn").Pool(1) as pool:
        print(pool.apply(who, [0]), pool.apply(who, [0]))
    print(mp.Process(target=who)._identity)
    with mp.Pool(1, maxtasksperchild=1) as pool:
        print(pool.map(who, range(3), chunksize=1))
