"""Draw the Mandelbrot set as a PNG: each row is a task, and the picture is written while its rows arrive.

    python examples/mandelbrot.py                          # the whole set, 900 x 675, into mandelbrot.png
    python examples/mandelbrot.py --view seahorses --size 1600 --out seahorses.png
    python examples/mandelbrot.py --colour-by-worker       # tint each row by the VM that computed it

You see a progress bar, how many rows each VM computed, and the name of the picture.
"""

import argparse
import colorsys
import math
import struct
import time
import zlib
from collections import Counter
from functools import partial
from itertools import pairwise

import river

VIEWS = {  # centre, and width of the view in the complex plane
    "whole": (-0.65 + 0j, 3.2),
    "seahorses": (-0.7463 + 0.1105j, 0.013),
    "elephants": (0.2925 + 0.0149j, 0.022),
    "spiral": (-0.761574 - 0.0847596j, 0.0012),
}
GRADIENT = [  # place, red, green, blue; the end meets the beginning
    (0, 4, 10, 70), (164, 32, 107, 203), (430, 237, 255, 255),
    (656, 255, 170, 0), (880, 60, 8, 20), (1024, 4, 10, 70),
]  # fmt: skip
PALETTE = [
    bytes(a + (b - a) * (i - left) // (right - left) for a, b in zip(dark, light, strict=True))
    for (left, *dark), (right, *light) in pairwise(GRADIENT)
    for i in range(left, right)
]


def colour(c, limit):
    """The colour of point `c`: black if it does not escape within `limit` steps, else by how fast it does."""
    z = 0j
    for step in range(limit):
        z = z * z + c
        if abs(z) > 100:  # 2 would do, but then the bands of colour have edges
            smooth = step + 1 - math.log2(math.log(abs(z)))
            return PALETTE[int(180 * math.sqrt(max(0.0, smooth)) - 180) % len(PALETTE)]
    return b"\0\0\0"


def row(y, width, height, view, limit):
    """The pixels of one row: red, green and blue of each."""
    centre, step = VIEWS[view][0], VIEWS[view][1] / width
    left = centre + complex((1 - width) * step / 2, ((height - 1) / 2 - y) * step)
    return b"".join(colour(left + x * step, limit) for x in range(width))


def task(y, **picture):
    """Compute a row, and say who did: the name and pid of the VM."""
    here = river.current()
    return (here.vm, here.pid), row(y, **picture)


def tint(pixels, number):
    """Give a row the hue of VM `number` and keep its light; the golden ratio keeps hues apart."""
    share = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 1)
    lights = map(max, pixels[0::3], pixels[1::3], pixels[2::3])
    return bytes(round(light * part) for light in lights for part in share)


def write_png(path, width, height, rows):
    """Write 8-bit red, green, blue `rows` as a PNG, each row as it arrives."""

    def chunk(kind, data):
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    packer = zlib.compressobj(9)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        for pixels in rows:  # each begins with 0: stored as it is, not as a difference to the row above
            if packed := packer.compress(b"\0" + pixels):
                chunk(b"IDAT", packed)
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=river.cpu_count(), help="VMs to use")
    parser.add_argument("--size", type=int, default=900, help="width in pixels, 4/3 of the height")
    parser.add_argument("--limit", type=int, default=500, help="steps after which a point counts as inside")
    parser.add_argument("--view", choices=VIEWS, default="whole")
    parser.add_argument("--out", default="mandelbrot.png")
    parser.add_argument("--colour-by-worker", action="store_true", help="tint each row by its VM")
    options = parser.parse_args()
    width, height = options.size, options.size * 3 // 4
    rows_of = Counter()

    def arriving(results):
        for vm, pixels in results:
            rows_of[vm] += 1
            yield tint(pixels, list(rows_of).index(vm)) if options.colour_by_worker else pixels

    begin = time.perf_counter()
    picture = partial(task, width=width, height=height, view=options.view, limit=options.limit)
    with river.RiverPool(options.processes) as pool:
        write_png(options.out, width, height, arriving(pool.imap(picture, range(height), progress=True)))
    print(f"{width} x {height} pixels in {time.perf_counter() - begin:.2f} s")

    print("\nVM                pid    rows")
    for (vm, pid), rows in sorted(rows_of.items()):
        print(f"{vm:<12} {pid:>8} {rows:>7,}")
    print(f"\nsaved {options.out}")


if __name__ == "__main__":  # River works without this guard; it is here so that others can import this file
    main()
