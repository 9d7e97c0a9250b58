"""python tests/testbed [HOSTS] [COMMAND...]: run a command (a shell) on the control side of so many hosts (4)."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import testbed  # noqa: E402


def main(count="4", *argv):
    if reason := testbed.missing():
        raise SystemExit(f"the testbed {reason}")
    bed = testbed.Testbed()
    try:
        bed.nodes(int(count))
        bed.hosts("bastion", "inner")
        with bed.inside():
            return subprocess.run(bed.as_user(*(argv or ["bash"]))).returncode
    finally:
        bed.close()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
