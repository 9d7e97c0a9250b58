"""Shared memory: what is put into a segment comes out elsewhere, stays private, and vanishes with its last user.

It is lent: while a borrower has an object in it, it keeps its content; after that it is filled again.
"""

import contextlib
import gc
import mmap
import os
import resource
import subprocess
import sys
from collections import deque

import pytest

from river._core import shm
from river._core.shm import MOST_SEGMENTS, SHARE_FROM, Segment, attach, take_back

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no anonymous files")
SIZES = [SHARE_FROM, SHARE_FROM + 1, 5 * mmap.PAGESIZE * 100 - 1]


@pytest.fixture(autouse=True)
def no_memory_kept():
    """Each test begins and ends without memory that waits to be filled again."""
    gc.collect()
    shm.forget_free()
    yield
    gc.collect()
    shm.forget_free()


def pattern(size, first=0):
    return (bytes(range(first, 251)) * (size // (251 - first) + 1))[:size]


def test_memory_is_known_by_its_inode_and_its_device():
    facts = os.fstat((segment := Segment(pattern(SHARE_FROM))).descriptor)

    assert segment and shm.content_of(facts.st_ino, facts.st_dev) == shm.content_of(facts.st_ino) > 0
    assert shm.content_of(facts.st_ino, facts.st_dev + 1) == 0


def attached(segment, shared=True, number=0, released=None):
    """As another user of the segment gets it: with a descriptor of its own."""
    released = deque() if released is None else released
    return attach(os.dup(segment.descriptor), segment.size, number, released, shared)


def is_mapping(buffer):
    return isinstance(buffer, memoryview) and isinstance(buffer.obj, mmap.mmap)


def open_descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def memory(descriptor):
    """Which memory it is, whatever the descriptor's number."""
    return os.fstat(descriptor).st_ino


@contextlib.contextmanager
def limit(which, value):
    old = resource.getrlimit(which)
    resource.setrlimit(which, (value, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, old)


@pytest.mark.parametrize("shared", [True, False])
def test_what_goes_in_comes_out(shared):
    for size in SIZES:
        segment = Segment(pattern(size))
        view = attached(segment, shared)

        assert is_mapping(view) and not memoryview(view).readonly
        assert view == pattern(size) and len(view) == segment.size == size
        assert segment.content() == pattern(size)
        assert segment.content() == pattern(size)  # reading it twice is no matter


@pytest.mark.parametrize("buffer", [bytearray(pattern(SHARE_FROM)), memoryview(pattern(SHARE_FROM)).cast("Q")])
def test_any_kind_of_buffer_may_go_in(buffer):
    assert Segment(buffer).content() == pattern(SHARE_FROM)


def test_another_process_sees_the_same_bytes():
    segment = Segment(pattern(SHARE_FROM + 1))
    script = "import os, sys; sys.stdout.buffer.write(os.pread(int(sys.argv[1]), int(sys.argv[2]), 0))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(segment.descriptor), str(segment.size)],
        pass_fds=[segment.descriptor],
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert done.stdout == pattern(SHARE_FROM + 1)


def test_a_program_that_a_task_starts_does_not_inherit_a_segment():
    assert not os.get_inheritable(Segment(pattern(SHARE_FROM)).descriptor)


def test_what_one_user_of_a_shared_segment_writes_no_other_sees():
    segment = Segment(pattern(SHARE_FROM))
    first, second = attached(segment), attached(segment)
    first[:5] = b"first"
    second[:6] = b"second"
    third = attached(segment)

    assert (bytes(first[:5]), bytes(second[:6]), bytes(third[:6])) == (b"first", b"second", pattern(6))
    assert segment.content() == pattern(SHARE_FROM)


@pytest.mark.parametrize("size", [100, SHARE_FROM])
def test_a_segment_is_a_snapshot(size):
    source = bytearray(pattern(size))
    segment = Segment(source)
    source[:7] = b"changed"

    assert segment.content() == pattern(size)


def test_the_memory_outlives_its_segment_while_somebody_uses_it():
    segment = Segment(pattern(SHARE_FROM))
    view = attached(segment)
    del segment
    gc.collect()

    assert view == pattern(SHARE_FROM)


def test_all_descriptors_are_closed_with_their_last_user():
    before = open_descriptors()
    segments = [Segment(pattern(SHARE_FROM)) for _ in range(10)]
    views = [attached(segment, shared) for segment in segments for shared in (True, False)]
    during = open_descriptors()
    del segments, views
    gc.collect()
    shm.forget_free()

    assert during >= before + 10
    assert open_descriptors() == before


# ------------------------------------------------------------------------------------------------- lending


def test_memory_that_nobody_needs_is_filled_again():
    for size in (SHARE_FROM, SHARE_FROM - 1 + mmap.PAGESIZE, SHARE_FROM + 5):
        first = Segment(pattern(size))
        number = memory(first.descriptor)
        del first
        for round_ in range(3):
            segment = Segment(pattern(size, round_))

            assert memory(segment.descriptor) == number
            assert segment.content() == attached(segment) == pattern(size, round_)
            del segment


def test_memory_that_is_lent_keeps_its_content_until_it_is_taken_back():
    segment = Segment(pattern(SHARE_FROM))
    number = memory(segment.descriptor)
    one, other = segment.lend(), segment.lend()
    view = attached(segment)
    del segment
    meanwhile = [Segment(pattern(SHARE_FROM, 7))]
    take_back(one)
    take_back(one)
    meanwhile.append(Segment(pattern(SHARE_FROM, 8)))

    assert one != other
    assert number not in [memory(s.descriptor) for s in meanwhile]
    assert view == pattern(SHARE_FROM)
    del view
    take_back(other)
    assert memory(Segment(pattern(SHARE_FROM, 9)).descriptor) == number


def test_memory_that_is_taken_back_stays_its_segments():
    segment = Segment(pattern(SHARE_FROM))
    take_back(segment.lend())
    Segment(pattern(SHARE_FROM, 7))

    assert segment.content() == pattern(SHARE_FROM)


@pytest.mark.parametrize("shared", [True, False])
def test_a_loan_ends_once_with_the_last_object_in_the_memory(shared):
    released = deque()
    view = attached(Segment(pattern(SHARE_FROM)), shared, 17, released)
    part = view[100:200]
    del view
    gc.collect()
    before = list(released)
    content = bytes(part)
    del part
    gc.collect()

    assert (before, list(released)) == ([], [17])
    assert content == pattern(200)[100:]


def test_a_loan_that_had_to_be_copied_ends_at_once(monkeypatch):
    released = deque()
    segment = Segment(pattern(SHARE_FROM))
    monkeypatch.setattr(shm, "MOST_SEGMENTS", 0)
    copy = attached(segment, True, 17, released)

    assert not is_mapping(copy) and list(released) == [17]


def test_what_is_in_the_frame_is_not_lent():
    assert Segment(b"small").lend() == 0
    take_back(0)


def test_no_more_memory_is_kept_than_promised(monkeypatch):
    monkeypatch.setattr(shm, "MOST_KEPT", 2 * SHARE_FROM)
    before = open_descriptors()
    segments = [Segment(pattern(SHARE_FROM)) for _ in range(5)]
    del segments

    assert open_descriptors() == before + 2
    shm.forget_free()
    assert open_descriptors() == before


def test_a_segment_knows_whether_a_buffer_still_holds_the_same():
    for size in (SHARE_FROM, SHARE_FROM + 3):
        source = bytearray(pattern(size))
        segment = Segment(source)
        same = segment.equals(memoryview(source))
        source[-1] ^= 1

        assert same is True
        assert segment.equals(memoryview(source)) is False
        assert segment.equals(memoryview(source)[:-1]) is False


# ------------------------------------------------------------------------------------ the plain way instead


def test_small_buffers_take_no_descriptor():
    for size in (0, 1, SHARE_FROM - 1):
        segment = Segment(pattern(size))

        assert (segment.descriptor, segment.content(), segment.size) == (-1, pattern(size), size)


def test_beyond_the_limit_segments_are_plain_bytes_until_others_are_gone(monkeypatch):
    monkeypatch.setattr(shm, "MOST_SEGMENTS", 3)
    segments = [Segment(pattern(SHARE_FROM)) for _ in range(5)]
    kinds = [segment.descriptor >= 0 for segment in segments]
    contents = {bytes(segment.content()) for segment in segments}
    del segments[:3]
    again = [Segment(pattern(SHARE_FROM)) for _ in range(2)]

    assert kinds == [True, True, True, False, False]
    assert contents == {pattern(SHARE_FROM)}
    assert all(segment.descriptor >= 0 for segment in again)


def test_the_limit_holds_though_memory_of_another_size_is_free(monkeypatch):
    monkeypatch.setattr(shm, "MOST_SEGMENTS", 3)
    Segment(pattern(9 * SHARE_FROM))
    before = open_descriptors()
    segments = [Segment(pattern(SHARE_FROM + i * mmap.PAGESIZE)) for i in range(6)]

    assert open_descriptors() <= before + 3
    assert {len(segment.content()) for segment in segments} == {SHARE_FROM + i * mmap.PAGESIZE for i in range(6)}


def test_at_the_limit_memory_that_waits_to_be_filled_again_makes_room(monkeypatch):
    monkeypatch.setattr(shm, "MOST_SEGMENTS", 3)
    for i in range(3):
        Segment(pattern(SHARE_FROM + i * mmap.PAGESIZE))
    other = Segment(pattern(9 * SHARE_FROM))

    assert other.descriptor >= 0
    assert other.content() == pattern(9 * SHARE_FROM)


def test_beyond_the_limit_mappings_are_copies_until_others_are_gone(monkeypatch):
    monkeypatch.setattr(shm, "MOST_SEGMENTS", 3)
    segment = Segment(pattern(SHARE_FROM + 1))
    views = [attached(segment) for _ in range(5)]
    kinds = [is_mapping(view) for view in views]
    contents = {bytes(view) for view in views}
    del views[:3]
    again = attached(segment)

    assert kinds == [True, True, True, False, False]
    assert contents == {pattern(SHARE_FROM + 1)}
    assert is_mapping(again)


def test_the_limit_leaves_a_process_the_descriptors_it_needs():
    assert 2 * MOST_SEGMENTS < 1024


def test_a_mapping_that_fails_does_not_raise_the_limit(monkeypatch):
    monkeypatch.setattr(shm, "_live_mappings", shm._live_mappings)  # put right again after a failure
    monkeypatch.setattr(shm, "MOST_SEGMENTS", 2)
    segment = Segment(pattern(SHARE_FROM))
    for _ in range(3):
        # What is open for reading only cannot be mapped for sharing.
        read_only = os.open(f"/proc/self/fd/{segment.descriptor}", os.O_RDONLY)
        assert bytes(attach(read_only, segment.size, 0, deque(), shared=False)) == pattern(SHARE_FROM)
    views = [attached(segment) for _ in range(4)]

    assert [is_mapping(view) for view in views] == [True, True, False, False]


def test_without_anonymous_files_a_segment_is_plain_bytes(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    segment = Segment(pattern(SHARE_FROM))

    assert (segment.descriptor, segment.content()) == (-1, pattern(SHARE_FROM))


def test_without_free_descriptors_a_segment_is_plain_bytes_and_a_mapping_is_a_copy():
    before = open_descriptors()
    segment = Segment(pattern(SHARE_FROM))
    descriptor = os.dup(segment.descriptor)
    with limit(resource.RLIMIT_NOFILE, 0):
        plain = Segment(pattern(SHARE_FROM))
        copy = attach(descriptor, segment.size, 0, deque(), shared=True)

    assert (plain.descriptor, plain.content()) == (-1, pattern(SHARE_FROM))
    assert not is_mapping(copy) and copy == pattern(SHARE_FROM)
    del segment
    shm.forget_free()
    assert open_descriptors() == before


@pytest.mark.parametrize("room", [0, SHARE_FROM // 2])
def test_where_memory_for_a_segment_runs_out_it_is_plain_bytes(room):
    before = open_descriptors()
    with limit(resource.RLIMIT_FSIZE, room):
        segment = Segment(pattern(SHARE_FROM))
    later = [Segment(pattern(SHARE_FROM, i)) for i in range(2)]

    assert (segment.descriptor, segment.content()) == (-1, pattern(SHARE_FROM))
    assert [s.content() for s in later] == [pattern(SHARE_FROM, i) for i in range(2)]
    del later
    shm.forget_free()
    assert open_descriptors() == before
