"""A folder that is there as long as somebody holds it, in whichever process."""

import contextlib
import fcntl
import os

MARK = ".river-testbed"  # a file in it that says that it was made by one of them


class Held:
    """The folder stays if it was there before, or if somebody else has put something there.

    Each holder has a lock of the folder above it, which ends with the holder's process, whatever that dies of."""

    def __init__(self, folder):
        self.folder = folder
        self._lock = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def make(self):
        """Have it there."""
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
            self.folder.joinpath(MARK).touch()

    def let_go(self):
        """The last one removes it."""
        with contextlib.suppress(BlockingIOError):  # not the last one
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mark = self.folder / MARK
            if mark.exists():
                mark.unlink()
                with contextlib.suppress(OSError):  # somebody has put something there
                    self.folder.rmdir()
        os.close(self._lock)
