"""A longer cable between two network interfaces: wire.py ONE OTHER SECONDS

Every frame comes out at the other end SECONDS later, in order.  For kernels without sch_netem, which many are.
Says when it is laid, by a line on stdout; ends with its stdin, and so with whoever started it.

Rule: the standard library only, run as a program.
"""

import collections
import contextlib
import os
import select
import socket
import sys
import time

# Of linux/if_packet.h and asm/socket.h; the module socket does not name them.
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
ETH_P_ALL = 3
LONGEST = 1 << 17  # bytes of a frame: segmentation is left to the interface, so that they are up to 64 KiB
HELD = 20_000  # frames on the way at most in one direction; more are dropped, as by a router


def main(one, other, seconds):
    ends = {end: collections.deque() for end in (interface(one), interface(other))}  # what is to come out there
    first, second = ends
    opposite = {first: ends[second], second: ends[first]}
    print("laid", flush=True)
    while True:
        # (select, as the timeout of poll is rounded up to whole milliseconds)
        ready = select.select([*ends, sys.stdin], [], [], pause(ends.values()))[0]
        if sys.stdin in ready:
            return
        for end in ready:
            take_in(end, opposite[end], time.monotonic() + seconds)
        for end, frames in ends.items():
            give_out(end, frames, time.monotonic())


def interface(name):
    """With PACKET_VNET_HDR each frame carries along what is left to do of checksum and segmentation."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
        end.setsockopt(socket.SOL_SOCKET, option, 32 << 20)
    end.bind((name, 0))
    end.setblocking(False)
    return end


def pause(queues):
    dues = [frames[0][0] for frames in queues if frames]
    return max(0.0, min(dues) - time.monotonic()) if dues else None


def take_in(end, frames, due):
    with contextlib.suppress(OSError):  # none left; or the interface is down
        for _ in range(64):
            frame = end.recv(LONGEST)
            if len(frames) < HELD:
                frames.append((due, frame))


def give_out(end, frames, now):
    while frames and frames[0][0] <= now:
        try:
            end.send(frames[0][1])
        except BlockingIOError:
            return  # the interface is full: on the next turn
        except OSError:
            pass  # too long, or the interface is down: lost
        frames.popleft()


if __name__ == "__main__":
    os.nice(-5)
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
