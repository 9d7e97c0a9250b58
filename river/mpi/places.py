"""Where ranks are: the cluster whose VMs they are.

May not: know what a rank does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..cluster import Cluster
from ..multiprocessing.home import here


@contextlib.contextmanager
def cluster_of(hosts: Any = None) -> Iterator[Cluster]:
    """A cluster for ranks, on these machines (None: this one); it ends with the `with`."""
    if hosts is None:
        here()  # ranks are forks of this process: none has to find it out again
        cluster = Cluster(0, is_current=True)
    else:
        from ..machines import chosen  # most programs have one machine

        vms, far = chosen(hosts, None, None, None, None, is_staffed=False)
        cluster = Cluster(0, start="exec", local=vms > 0, hosts=far)
        if cluster.machines is not None:
            cluster.machines.wait_for_all()
    try:
        yield cluster
    finally:
        cluster.terminate()
