"""The wire: frames come out as they went in, however the bytes are cut; what is no frame is refused by name.

May not: open a socket.
"""

import contextlib
import functools
import itertools
import mmap
import random
import resource
import struct
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from river._core.wire import KINDS, MAGIC, MAX_DESCRIPTORS, SCRATCH, Decoder, Frame, Kind, ProtocolError, encode

HEADER = 16
# Around each size at which encoding or decoding takes another way.
FULL = SCRATCH - HEADER  # the payload of a frame that just fits
SIZES = [0, 1, 15, 16, 17, 65535, 65536, FULL - 1, FULL, FULL + 1, SCRATCH - 1, SCRATCH, 2 * SCRATCH + 3]
MOST_BUFFERS = (SCRATCH - HEADER) // 8

repeatable = settings(deadline=None, database=None, max_examples=60)


@functools.cache
def pattern(size, seed=0):
    return random.Random(seed).randbytes(size)


def frame(size=0, buffers=(), kind=Kind.CALL, descriptors=0):
    """A frame with a payload and buffers of these sizes, each with bytes of its own."""
    return Frame(int(kind), pattern(size), [pattern(n, i + 1) for i, n in enumerate(buffers)], descriptors)


def encoded(*frames):
    return b"".join(bytes(piece) for f in frames for piece in encode(*f))


def feed(decoder, data, sizes=(1 << 30,), frames=None):
    """Give `data` to a decoder in pieces of at most these sizes, over and over; returns the frames.

    Put into a list `frames`, they are there even when what follows them is refused."""
    frames, done = [] if frames is None else frames, 0
    for size in itertools.cycle(sizes):
        if done == len(data):
            return frames
        target = decoder.target()
        count = min(size, len(target), len(data) - done)
        assert count, "a decoder without room for the next byte would never get it"
        target[:count] = data[done : done + count]
        done += count
        frames += [plain(f) for f in decoder.received(count)]


def plain(f):
    return Frame(f.kind, bytes(f.payload), [bytes(b) for b in f.buffers], f.descriptors)


frames = st.builds(
    frame,
    size=st.sampled_from(SIZES) | st.integers(0, 300),
    buffers=st.lists(st.sampled_from(SIZES) | st.integers(0, 300), max_size=4),
    kind=st.sampled_from(sorted(KINDS)),
    descriptors=st.integers(0, MAX_DESCRIPTORS),
)
cuts = st.lists(st.sampled_from([1, 2, 7, 16, 1000, 65536, SCRATCH, 1 << 30]), min_size=1, max_size=6)


@given(st.lists(frames, max_size=5), cuts)
@repeatable
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(sent, sizes):
    sizes = [*sizes, SCRATCH]  # so that there is an end to it

    assert feed(Decoder(), encoded(*sent), sizes) == sent


@pytest.mark.parametrize(
    "sent",
    [
        [frame()],
        [frame(5), frame(0), frame(300)],
        [frame(3, [0, 4, 0])],
        [frame(0, [0]), frame(7)],
        [frame(SCRATCH + 100), frame(9)],
        [frame(10, [SCRATCH + 1]), frame(9)],
    ],
    ids=lambda sent: " ".join(f"{len(f.payload)}+{len(f.buffers)}" for f in sent),
)
def test_a_frame_comes_with_its_last_byte_and_not_before(sent):
    decoder = Decoder()
    got = [feed(decoder, bytes([byte])) for byte in encoded(*sent)]

    ends = [len(encoded(*sent[: i + 1])) for i in range(len(sent))]
    assert {i + 1: frames for i, frames in enumerate(got) if frames} == {ends[i]: [f] for i, f in enumerate(sent)}


@pytest.mark.parametrize("before", [0, 1, SCRATCH // 2, SCRATCH - 20, SCRATCH - 5])
def test_the_place_of_a_frame_among_what_is_read_at_once_does_not_matter(before):
    for size in SIZES:
        sent = [frame(before), frame(size), frame(size, [size]), frame(1)]

        assert feed(Decoder(), encoded(*sent)) == sent


def test_thousands_of_small_frames_in_one_read_all_come_out():
    sent = [frame(i % 20) for i in range(5000)]

    assert feed(Decoder(), encoded(*sent)) == sent


def test_a_frame_may_have_as_many_buffers_as_the_decoder_can_announce():
    sent = frame(2, [1] * MOST_BUFFERS)

    assert feed(Decoder(), encoded(sent, sent), [1000]) == [sent, sent]


def test_more_buffers_than_a_decoder_takes_are_refused_with_their_number():
    data = struct.pack("<BBHIQ", Kind.CALL, 0, MOST_BUFFERS + 1, MAGIC, 0)

    with pytest.raises(ProtocolError, match=str(MOST_BUFFERS + 1)):
        feed(Decoder(), data)


TOO_MUCH = [{"buffers": [b""] * (MOST_BUFFERS + 1)}, {"descriptors": MAX_DESCRIPTORS + 1}]


@pytest.mark.parametrize("much", TOO_MUCH, ids=min)
def test_what_no_decoder_would_take_is_not_sent(much):
    with pytest.raises(ValueError, match=f"{MOST_BUFFERS + 1} buffers|{MAX_DESCRIPTORS + 1} descriptors"):
        encode(Kind.CALL, b"", **much)


def test_the_format_is_the_documented_one():
    small = b"".join(encode(Kind.RESULT, b"ab", [b"xyz", b""], 3))

    assert small == (
        b"\x11"  # kind
        b"\x03"  # descriptors
        b"\x02\x00"  # buffers
        b"RVIR"  # magic
        b"\x02\0\0\0\0\0\0\0"  # length of the payload
        b"\x03\0\0\0\0\0\0\0"  # lengths of the buffers
        b"\0\0\0\0\0\0\0\0"
        b"abxyz"
    )


def test_lengths_have_64_bits_and_nothing_large_is_copied():
    size = (5 << 30) + 1  # of a file with nothing in it, which takes no memory
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapping, memoryview(mapping) as big:
            head, payload, buffer = encode(Kind.CALL, big, [big])

            assert struct.unpack("<QQ", head[8:]) == (size, size)
            assert payload is big and buffer is big


def test_a_large_frame_is_read_straight_into_its_final_place():
    decoder = Decoder()
    data = encoded(frame(4 * SCRATCH, [3 * SCRATCH]))
    feed(decoder, data[: HEADER + 8])
    places = []
    frames = []
    for part in (data[HEADER + 8 :][: 4 * SCRATCH], data[-3 * SCRATCH :]):
        target = decoder.target()
        places.append((target.obj, len(target)))
        target[:] = part
        frames += decoder.received(len(part))

    assert [length for _, length in places] == [4 * SCRATCH, 3 * SCRATCH]
    assert [frames[0].payload.obj, frames[0].buffers[0].obj] == [place for place, _ in places]
    assert frames[0].payload.obj is places[0][0]


# ------------------------------------------------------------------------------------------ what is no frame


@pytest.fixture
def little_memory():
    """Lets this process have no more than 256 MiB in addition to what it has."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (256 << 20), old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def read_anything(data, sizes=(1 << 30,)):
    """What a decoder makes of `data`: frames, or the ProtocolError."""
    try:
        return feed(Decoder(), data, sizes)
    except ProtocolError as error:
        return error


@given(st.binary(min_size=HEADER, max_size=400), cuts)
@repeatable
def test_garbage_is_refused_at_once(garbage, sizes):
    assert isinstance(read_anything(garbage, [*sizes, SCRATCH]), ProtocolError)


@pytest.mark.usefixtures("little_memory")
@given(st.lists(frames, min_size=1, max_size=2), st.data())
@repeatable
def test_a_damaged_stream_gives_frames_or_a_protocol_error_and_nothing_else(sent, data):
    stream = bytearray(encoded(*sent))
    # Mostly within a header, where it hurts.
    places = st.integers(0, min(40, len(stream) - 1)) | st.integers(0, len(stream) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=8)):
        stream[place] = data.draw(st.integers(0, 255))
    came = []
    with contextlib.suppress(ProtocolError):
        feed(Decoder(), bytes(stream), [*data.draw(cuts), SCRATCH], came)

    start = 0
    for f in came:  # is what has come, byte for byte, but for a number of descriptors that nobody would send
        again = encoded(f._replace(descriptors=0))
        assert (stream[start], stream[start + 2 : start + len(again)]) == (again[0], again[2:])
        start += len(again)


@pytest.mark.parametrize("lost", [1, 15, 16, 17, 40])
def test_lost_bytes_are_noticed_with_the_next_frame(lost):
    damaged = encoded(frame(100))[lost:] + encoded(frame(100)) * 3

    assert isinstance(read_anything(damaged), ProtocolError)


@pytest.mark.parametrize(
    ("head", "culprit"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH-2.0"),
        (struct.pack("<BBHIQ", 99, 0, 0, MAGIC, 0), "c"),
        (struct.pack("<BBHIQ", 0, 0, 0, MAGIC, 0), r"\\x00"),
        (struct.pack("<BBHIQ", Kind.CALL, 0, 0, MAGIC + 1, 0), "no frame"),
        (struct.pack("<BBHIQ", Kind.CALL, 251, 0, MAGIC, 0), "no frame"),
    ],
    ids=["http", "ssh", "unknown kind", "kind 0", "wrong magic", "more descriptors than one message can carry"],
)
def test_the_error_shows_what_came_instead_of_a_frame(head, culprit):
    with pytest.raises(ProtocolError, match=culprit):
        feed(Decoder(), head)


@pytest.mark.parametrize("size", [1 << 56, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_frame_larger_than_memory_is_a_protocol_error(size):
    for sizes in ([size], [10, size], [size, 10], [10, 10, size]):
        data = struct.pack(f"<BBHIQ{len(sizes) - 1}Q", Kind.CALL, 0, len(sizes) - 1, MAGIC, *sizes)

        with pytest.raises(ProtocolError, match=str(sum(sizes))):
            feed(Decoder(), data)
