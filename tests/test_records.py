"""Records: each comes out once and in order, however the bytes are cut and however often a connection is made anew.

May not: open a socket, or wait.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from river._core.records import MOST_BYTES, WINDOW, Decoder, Flow, Kind, RecordError, gone

HEADER = 20
SIZES = [0, 1, HEADER - 1, HEADER, HEADER + 1, 65536, MOST_BYTES - 1, MOST_BYTES]

repeatable = settings(deadline=None, database=None, max_examples=60)


def plain(records):
    return [(record.kind, record.channel, record.number, bytes(record.payload)) for record in records]


def some_records(sizes):
    """Bytes, and what is in them."""
    flow = Flow(1)
    payloads = [random.Random(size).randbytes(size) for size in sizes]
    data = b"".join(flow.sent(Kind.DATA, channel, payload) for channel, payload in enumerate(payloads))
    return data, [(Kind.DATA, number, number + 1, payload) for number, payload in enumerate(payloads)]


# -------------------------------------------------------------------------------------------- decoding


def test_records_come_out_byte_by_byte():
    data, expected = some_records([0, 1, 19, 20, 21, 300])
    decoder = Decoder()

    assert [record for byte in data for record in plain(decoder.records(bytes([byte])))] == expected


@repeatable
@given(st.lists(st.sampled_from(SIZES), max_size=6), st.randoms(use_true_random=False))
def test_records_come_out_as_they_went_in_however_the_bytes_are_cut(sizes, chance):
    data, expected = some_records(sizes)
    decoder, found = Decoder(), []
    while data:
        count = chance.choice([1, 7, HEADER, 4096, MOST_BYTES, 3 * MOST_BYTES])
        found += plain(decoder.records(data[:count]))
        data = data[count:]

    assert found == expected


@repeatable
@given(st.binary(min_size=HEADER, max_size=200))
def test_garbage_is_refused_or_waits_for_more_but_harms_nothing(data):
    decoder = Decoder()
    try:
        records = plain(decoder.records(data))
    except RecordError:
        return

    assert sum(HEADER + len(payload) for *_, payload in records) <= len(data)
    assert all(kind in Kind.__members__.values() for kind, *_ in records)


def test_what_cannot_be_a_record_is_refused_by_its_first_bytes():
    with pytest.raises(RecordError, match="no record starts with b'Last login: Mon Jan "):
        list(Decoder().records(b"Last login: Mon Jan 12 from example"))


def test_a_record_longer_than_the_longest_is_refused_before_there_is_memory_for_it():
    record = bytearray(Flow(1).sent(Kind.DATA, 0, b""))
    record[16:20] = (MOST_BYTES + 1).to_bytes(4, "little")

    with pytest.raises(RecordError):
        list(Decoder().records(record))


def test_what_has_come_of_a_record_may_be_overwritten_where_it_was_read():
    decoder = Decoder()
    data, expected = some_records([40, 50])
    lent = bytearray(data[:70])
    first = plain(decoder.records(lent))
    lent[:] = bytes(len(lent))

    assert first + plain(decoder.records(data[70:])) == expected


def test_that_nobody_is_there_is_a_record_without_a_number():
    assert plain(Decoder().records(gone())) == [(Kind.GONE, 0, 0, b"")]


# ------------------------------------------------------------------------------------------------ flow


def the_record(data):
    (record,) = Decoder().records(data)
    return record


def test_what_was_acknowledged_is_not_sent_again_and_the_rest_is():
    near, far = Flow(7), Flow(7)
    records = [near.sent(Kind.DATA, 0, bytes([number])) for number in range(5)]
    for data in records[:3]:
        assert far.accepts(the_record(data))

    assert near.greeted(the_record(far.hello(1)).payload) == records[3:]
    assert near.unacknowledged == sum(map(len, records[3:]))


def test_a_greeting_that_another_one_has_overtaken_does_not_count():
    near, far = Flow(7), Flow(7)
    first, second = far.hello(1), far.hello(2)
    record = near.sent(Kind.DATA, 0, b"x")

    assert near.greeted(the_record(second).payload) == [record]
    assert near.greeted(the_record(first).payload) is None
    assert near.greeting == 2


def test_a_heartbeat_acknowledges_and_brings_what_the_other_says():
    near, far = Flow(7), Flow(7)
    far.accepts(the_record(near.sent(Kind.DATA, 0, b"x")))

    assert near.heard(the_record(far.beat(5.0, b'{"a": 1}')).payload, 1.0) == b'{"a": 1}'
    assert near.unacknowledged == 0


def test_a_heartbeat_tells_after_which_of_our_heartbeats_it_was_sent():
    near, far = Flow(7), Flow(7)
    near.heard(the_record(far.beat(50.0)).payload, 1.0)
    before = near.answered
    far.heard(the_record(near.beat(2.0)).payload, 51.0)
    near.heard(the_record(far.beat(52.0)).payload, 3.0)

    assert (before, near.answered) == (float("-inf"), 2.0)


def test_what_was_taken_before_is_dropped_and_a_gap_is_an_error():
    near, far = Flow(7), Flow(7)
    first, second, third = (the_record(near.sent(Kind.DATA, 0)) for _ in range(3))

    assert [far.accepts(record) for record in (first, second, first, second)] == [True, True, False, False]
    with pytest.raises(RecordError, match="record 3 came after 1"):
        other = Flow(7)
        other.accepts(first)
        other.accepts(third)


def test_another_incarnation_is_refused():
    with pytest.raises(RecordError, match="another incarnation"):
        Flow(7).greeted(the_record(Flow(8).hello(1)).payload)


@pytest.mark.parametrize("payload", [b"", bytes(23), bytes(25)])
def test_a_greeting_of_another_length_is_refused(payload):
    with pytest.raises(RecordError, match="another length"):
        Flow(7).greeted(payload)


def test_who_acknowledges_what_was_never_sent_is_refused():
    near, far = Flow(7), Flow(7)
    for number in range(2):
        far.accepts(the_record(near.sent(Kind.DATA, 0, bytes([number]))))

    with pytest.raises(RecordError, match="record 2 is acknowledged, of 0"):
        Flow(7).greeted(the_record(far.hello(1)).payload)
    with pytest.raises(RecordError, match="too short"):
        near.heard(b"1234567", 0.0)


def test_there_is_room_until_the_window_is_full_and_again_when_it_was_acknowledged():
    near, far = Flow(7), Flow(7)
    while near.has_room:
        far.accepts(the_record(near.sent(Kind.DATA, 0, bytes(MOST_BYTES))))

    assert WINDOW <= near.unacknowledged <= WINDOW + MOST_BYTES + HEADER
    assert far.owes
    near.heard(the_record(far.beat(0.0)).payload, 0.0)
    assert near.has_room
    assert not far.owes


class Connection:
    """Bytes on their way in one direction; it breaks after some more of them, wherever that is in a record."""

    def __init__(self):
        self.decoder = Decoder()
        self.bytes = bytearray()
        self.is_broken = False

    def take(self, count):
        """The records in the next so many bytes."""
        data = bytes(self.bytes[:count])
        del self.bytes[:count]
        return [record._replace(payload=bytes(record.payload)) for record in self.decoder.records(data)]


@repeatable
@given(st.randoms(use_true_random=False))
def test_each_record_comes_once_and_in_order_over_any_number_of_connections_that_break_anywhere(chance):
    """One direction; its acknowledgements go back by HELLO and BEAT, or are lost, too.  An old connection may still
    bring what was on its way when the next one is used already: late, and doubled."""
    near, far = Flow(7), Flow(7)
    old, current = [], Connection()
    sent, taken = 0, []
    greeting = far.hello(1)
    for _ in range(chance.randrange(200)):
        match chance.choice(["send", "send", "arrive", "arrive", "acknowledge", "break"]):
            case "send":
                current.bytes += near.sent(Kind.DATA, 0, sent.to_bytes(4, "little"), bytes(chance.randrange(60)))
                sent += 1
            case "arrive":
                connection = chance.choice([*old, current])
                for record in connection.take(chance.randrange(1, 200)):
                    if far.accepts(record):
                        taken.append(int.from_bytes(record.payload[:4], "little"))
            case "acknowledge":
                near.heard(the_record(far.beat(0.0)).payload, 0.0)
            case (
                "break"
            ):  # the new one says how far it has come when it is made, which may be long ago when it is heard
                if chance.random() < 0.5:
                    greeting = far.hello(1)
                del current.bytes[chance.randrange(len(current.bytes) + 1) :]
                old = [*old[-2:], current]
                current = Connection()
                for record in near.greeted(the_record(greeting).payload):
                    current.bytes += record
        assert taken == list(range(len(taken)))
    current = Connection()
    for data in near.greeted(the_record(far.hello(1)).payload):
        if far.accepts(the_record(data)):
            taken.append(int.from_bytes(the_record(data).payload[:4], "little"))

    assert taken == list(range(sent))
