"""`from vr import VirtualResource`, in scripts that the `river` command runs."""

from river.vr import VirtualResource

__all__ = ["VirtualResource"]
