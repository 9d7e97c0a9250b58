"""How large a chunk of a map should be.

May not: know tasks or time; it is told what was measured.
"""

from __future__ import annotations

# Work for so many seconds goes into a chunk: a chunk costs the driver about 50 us, so this keeps it below 1%, and a
# VM that got the last one keeps the others waiting no longer than this.
CHUNK_SECONDS = 0.008
# Where each result is wanted as soon as it is there, quick items still travel together, this many seconds of them.
BUNDLE_SECONDS = 0.001
MOST_BUNDLED = 256
# A chunk is at most so many times as large as the one before: the first items may have been the quick ones.
GROWTH = 8
# A chunk's pickle should stay below this many bytes.
CHUNK_BYTES = 1 << 20


class Chunks:
    """How large the next chunk should be.

    A chunk is no more than a way to travel: its items are reported, taken back and blamed one by one.  So quick items
    are bundled even where the caller asked for small chunks, except where that could be noticed (`is_strict`).
    """

    def __init__(self, wanted: int | None, vms: int, is_strict: bool) -> None:
        self._wanted = wanted
        self._is_strict = is_strict
        self._vms = max(1, vms)
        self._size = 1
        self._items = 0
        self._seconds = 0.0
        self._bytes = 0.0  # of one item, pickled
        self.total = 0  # bytes pickled so far

    def size(self, left: int | None) -> int:
        """Items for the next chunk, when `left` are left (None: unknown)."""
        wanted = self._wanted
        if wanted is not None and (self._is_strict or not self._items):
            return wanted
        if not self._items:
            return 1
        limit = CHUNK_SECONDS if wanted is None else BUNDLE_SECONDS
        size = min(self._size * GROWTH, int(limit * self._items / max(self._seconds, 1e-9)))
        if wanted is not None:
            size = min(size, MOST_BUNDLED)
        if self._bytes:
            size = min(size, int(CHUNK_BYTES / self._bytes))
        if left is not None:  # the last chunks are small, so that all VMs end together
            size = min(size, left // (2 * self._vms))
        self._size = max(1, size)
        return max(self._size, wanted or 1)

    def rest(self, left: int) -> int:
        """The same when all that are left must go at once: a few for each VM, which can still be taken apart."""
        size = self.size(left)
        if self._is_strict:
            return size
        most = int(CHUNK_BYTES / self._bytes) if self._bytes else left
        return max(size, min(left // (4 * self._vms), most))

    def measured(self, items: int, seconds: float) -> None:
        self._items += items
        self._seconds += seconds

    def pickled(self, items: int, size: int) -> None:
        self._bytes = size / items
        self.total += size

    @property
    def is_quick(self) -> bool:
        """Whether items take so little that noting each one would be felt."""
        return self._items > 0 and self._seconds < 5e-6 * self._items
