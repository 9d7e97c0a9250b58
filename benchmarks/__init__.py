"""River beside its peers, on the same work in the same run: `python -m benchmarks --help`.

    tasks.py     what the workers run
    peers.py     one adapter per package, all with the same few methods
    works.py     each work, what it measures and what River is to reach
    packets.py   two ends that send each other messages
    machines.py  adapters and works of machines over SSH
    processes.py adapters and works of river.multiprocessing
    mpi.py       adapters and works of river.mpi
    exchanges.py what their ranks run
    network.py   the hosts that those are measured on
    driver.py    one measurement in one process of its own
    report.py    ratios, table and JSON
    picture.py   the picture
    __main__.py  the order of it all, and the command line

A time means little on a shared machine; a ratio of two times taken one after the other means more.
So the peers take turns (A B A B ...), and a ratio shown is the median of several, with smallest and largest.
"""
