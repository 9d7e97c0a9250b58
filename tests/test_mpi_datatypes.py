"""What MPI's datatypes, buffer arguments, operations and handles promise, without any rank that is sent to."""

from __future__ import annotations

import array
import copy
import pickle
import struct
import sys

import pytest

from river.mpi import constants, datatypes, errors, group, info, op
from river.mpi.buffers import simple, vector, vector_w
from river.mpi.constants import BOTTOM, ERR_ARG, ERR_OP, ERR_TRUNCATE, ERR_TYPE, IN_PLACE, UNDEFINED
from river.mpi.datatypes import DATATYPE_NULL, Datatype
from river.mpi.memories import Get_address
from river.mpi.status import Status

BYTE, INT, DOUBLE = (datatypes.predefined[name] for name in ("BYTE", "INT", "DOUBLE"))
NUMBERS = array.array("d", range(12))


def doubles(data):
    return list(memoryview(data).cast("B").cast("d"))


# -- the buffer grammar


@pytest.mark.parametrize(
    "spec, sent",
    [
        (NUMBERS, list(range(12))),
        ([NUMBERS], list(range(12))),
        ([NUMBERS, None], list(range(12))),
        ([NUMBERS, "d"], list(range(12))),
        ((NUMBERS, DOUBLE), list(range(12))),
        ([NUMBERS, 2], [0, 1]),
        ([NUMBERS, (2, 3)], [3, 4]),
        ([NUMBERS, (None, 9)], [9, 10, 11]),
        ([NUMBERS, 2, "d"], [0, 1]),
        ([NUMBERS, (2, 3), DOUBLE], [3, 4]),
        ([NUMBERS, 2, 3, "f8"], [3, 4]),
        ([None, 0, "d"], []),
        ([BOTTOM, "d"], []),
        ([NUMBERS, 1, DOUBLE.Create_vector(3, 1, 4)], [0, 4, 8]),
        ([NUMBERS, DOUBLE.Create_vector(2, 2, 4).Create_resized(0, 48)], [0, 1, 4, 5, 6, 7, 10, 11]),
    ],
)
def test_every_form_of_a_buffer_says_which_elements_are_sent(spec, sent):
    assert doubles(simple(spec, False).bytes()) == sent


@pytest.mark.parametrize(
    "spec, error",
    [
        ([NUMBERS, 13, "d"], ValueError),
        ([NUMBERS, -1, "d"], ValueError),
        ([NUMBERS, 0, -1, "d"], ValueError),
        ([NUMBERS, 0, 13, "d"], ValueError),
        ([NUMBERS, 0, 0, "d", None], ValueError),
        ([None, 1, "d"], ValueError),
        ([NUMBERS, 0, 1, DATATYPE_NULL], ValueError),
        ([NUMBERS, None, INT.Create_resized(0, -4)], ValueError),
        ([bytearray(5), "i"], ValueError),
        ([NUMBERS, "no such code"], KeyError),
        ([[1, 2, 3], 3, "i"], TypeError),
        ({}, TypeError),
        ([NUMBERS, 2.0, "d"], TypeError),
    ],
)
def test_a_buffer_that_makes_no_sense_is_refused_before_anything_is_sent(spec, error):
    with pytest.raises(error):
        simple(spec, False)


def test_nothing_is_received_in_what_cannot_be_written_to():
    with pytest.raises(BufferError, match="bytes"):
        simple([b"abc", "c"], True)


@pytest.mark.parametrize(
    "spec, parts",
    [
        (NUMBERS, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        ([NUMBERS, 2], [[0, 1], [2, 3], [4, 5]]),
        ([NUMBERS, [1, 2, 3]], [[0], [1, 2], [3, 4, 5]]),
        ([NUMBERS, (1, 2, 3)], [[0], [1, 2], [3, 4, 5]]),
        ([NUMBERS, (1, [3, 2, 1])], [[3], [2], [1]]),
        ([NUMBERS, ([1, 2, 3], [9, 4, 0]), "d"], [[9], [4, 5], [0, 1, 2]]),
        ([NUMBERS, ([1, 2, 3], None), "d"], [[0], [1, 2], [3, 4, 5]]),
        ([NUMBERS, 1, 4, DOUBLE], [[0], [4], [8]]),
        ([NUMBERS, [1, 0, 1], [2, 0, 1], "d"], [[2], [], [1]]),
    ],
)
def test_every_form_of_a_vector_says_which_elements_go_to_each_rank(spec, parts):
    buffer = vector(spec, False, 3)

    assert [doubles(buffer.part(rank).bytes()) for rank in range(3)] == parts


def test_each_block_may_have_a_datatype_of_its_own_at_a_place_in_bytes():
    memory = struct.pack("=idi", 7, 2.5, 9)

    blocks = vector_w([memory, ([1, 1, 1], [0, 4, 12]), [INT, DOUBLE, INT]], False, 3)

    assert b"".join(bytes(block.bytes()) for block in blocks) == memory
    for spec in ([BOTTOM, None, [0], [INT]], [BOTTOM, [0], None, [INT]], [BOTTOM, [INT]]):
        with pytest.raises(ValueError):
            vector_w(spec, False, 1)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_count_takes_as_many_elements_from_the_first_one_on(count):
    buffer, into = simple([NUMBERS, count, DOUBLE], False), array.array("d", [-1] * 12)

    taken = simple([into, count, DOUBLE], True).unpack(buffer.bytes())

    assert (buffer.count, buffer.size, taken) == (count, 8 * count, 8 * count)
    assert list(into) == [*range(count), *[-1] * (12 - count)]


def test_what_is_received_goes_where_the_datatype_says_and_nowhere_else():
    target = array.array("d", [-1] * 12)
    column = simple([target, 1, 0, DOUBLE.Create_vector(3, 1, 4)], True)

    taken = column.unpack(array.array("d", [5, 6, 7]))

    assert taken == 24
    assert list(target) == [5, -1, -1, -1, 6, -1, -1, -1, 7, -1, -1, -1]


@pytest.mark.parametrize("spec", [[None, 0, "B"], [BOTTOM, "B"], bytearray(), [array.array("d", [1]), 0]])
def test_nothing_can_be_received_where_there_is_no_room(spec):
    buffer = simple(spec, True)

    assert buffer.data is not None and not buffer.data.readonly
    assert buffer.unpack(b"") == 0


class Foreign:
    """Shows its memory as a device would, though it is the processor's."""

    def __init__(self, numbers, address, **said):
        self.numbers = numbers
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "typestr": "<i4" if sys.byteorder == "little" else ">i4",
            "shape": (len(numbers),),
            **said,
        }


def test_memory_is_found_by_address_as_well():
    numbers = array.array("i", [1, 2, 3])
    foreign = Foreign(numbers, Get_address(numbers))

    assert simple(foreign, False).datatype == datatypes.predefined["INT32_T"]
    with pytest.warns(RuntimeWarning, match="description"):
        simple(Foreign(numbers, Get_address(numbers), descr=[("a", "<i2"), ("b", "<i2")]), False)
    assert simple(foreign, True).unpack(struct.pack("3i", 7, 8, 9)) == 12
    assert list(numbers) == [7, 8, 9]


@pytest.mark.parametrize(
    "said", [{"strides": (8,)}, {"mask": 1}, {"typestr": "#i4"}, {"shape": (-1,)}, {"data": (8, False)}]
)
def test_memory_that_cannot_be_reached_is_refused_and_not_touched(said):
    numbers = array.array("i", [1, 2, 3])

    with pytest.raises(BufferError):
        simple(Foreign(numbers, Get_address(numbers), **said), False)


def test_a_fortran_array_is_sent_as_it_lies_and_a_slice_with_gaps_is_refused():
    numpy = pytest.importorskip("numpy")
    matrix = numpy.arange(6.0).reshape(2, 3)

    assert doubles(simple(matrix.T, False).bytes()) == list(range(6))
    with pytest.raises(BufferError, match="side by side"):
        simple(matrix[:, 0], False)
    with pytest.raises(BufferError, match="datatype"):
        simple(matrix.astype(matrix.dtype.newbyteorder()), False)


def test_a_message_that_is_larger_than_the_buffer_is_an_error_and_a_smaller_one_is_not():
    target = array.array("d", [-1] * 2)

    assert simple(target, True).unpack(struct.pack("d", 4)) == 8
    assert list(target) == [4, -1]
    with pytest.raises(errors.Exception) as caught:
        simple(target, True).unpack(bytes(24))
    assert caught.value.Get_error_class() == ERR_TRUNCATE


def test_many_elements_with_gaps_are_moved_as_few_are():
    column = DOUBLE.Create_vector(1000, 1, 2)
    source, target = array.array("d", range(2000)), array.array("d", [-1] * 2000)

    simple([target, 1, column], True).unpack(simple([source, 1, column], False).bytes())

    assert list(target[::2]) == list(range(0, 2000, 2))
    assert set(target[1::2]) == {-1}


def test_without_a_buffer_displacements_are_addresses():
    first, second = array.array("i", [1, 2]), array.array("i", [3])
    both = Datatype.Create_struct([2, 1], [Get_address(first), Get_address(second)], [INT, INT])

    data = bytes(simple([BOTTOM, 1, both], False).bytes())
    simple([BOTTOM, 1, both], True).unpack(struct.pack("3i", 7, 8, 9))

    assert data == struct.pack("3i", 1, 2, 3)
    assert (list(first), list(second)) == ([7, 8], [9])


# -- datatypes


@pytest.mark.parametrize(
    "made, size, lb, extent, true_lb",
    [
        (DOUBLE.Create_contiguous(3), 24, 0, 24, 0),
        (DOUBLE.Create_vector(2, 1, 3), 16, 0, 32, 0),
        (DOUBLE.Create_hvector(2, 1, -16), 16, -16, 24, -16),
        (INT.Create_indexed([1, 2], [4, 0]), 12, 0, 20, 0),
        (INT.Create_resized(-4, 40), 4, -4, 40, 0),
        (INT.Create_subarray([4, 4], [2, 2], [1, 1]), 16, 0, 64, 20),
        (Datatype.Create_struct([1, 1], [0, 8], [DOUBLE, INT]), 12, 0, 16, 0),
        (INT.Create_contiguous(0), 0, 0, 0, 0),
        (BYTE.Create_contiguous(1 << 40), 1 << 40, 0, 1 << 40, 0),
    ],
)
def test_a_datatype_knows_its_size_and_its_bounds(made, size, lb, extent, true_lb):
    assert (made.size, made.lb, made.extent, made.true_lb) == (size, lb, extent, true_lb)


@pytest.mark.parametrize("order", [constants.ORDER_C, constants.ORDER_F])
@pytest.mark.parametrize("distribution", [constants.DISTRIBUTE_BLOCK, constants.DISTRIBUTE_CYCLIC])
def test_the_parts_of_a_distributed_array_are_all_of_it_and_do_not_overlap(order, distribution):
    sizes, grid = [5, 7], [2, 3]
    parts = [
        INT.Create_darray(6, rank, sizes, [distribution] * 2, [constants.DISTRIBUTE_DFLT_DARG] * 2, grid, order)
        for rank in range(6)
    ]

    bytes_of = [at for part in parts for offset, length in part.layout.runs for at in range(offset, offset + length)]

    assert sorted(bytes_of) == list(range(4 * 35))
    assert {part.extent for part in parts} == {4 * 35}


@pytest.mark.parametrize(
    "made",
    [
        DOUBLE.Create_vector(2, 1, 3),
        INT.Create_indexed_block(2, [0, 5]),
        INT.Create_subarray([4, 4], [2, 2], [1, 1], constants.ORDER_F),
        Datatype.Create_struct([1, 2], [0, 8], [INT, DOUBLE.Create_contiguous(2)]),
        Datatype.Create_f90_real(15, 300),
        INT.Dup(),
    ],
)
def test_a_datatype_arrives_by_pickle_as_it_was(made):
    arrived = pickle.loads(pickle.dumps(made))

    assert (arrived.layout.runs, arrived.Get_extent(), arrived.combiner, arrived.Get_envelope()) == (
        made.layout.runs,
        made.Get_extent(),
        made.combiner,
        made.Get_envelope(),
    )


@pytest.mark.parametrize("name", sorted(datatypes.predefined))
def test_a_predefined_datatype_that_arrives_is_the_same_object(name):
    mine = datatypes.predefined[name]

    assert pickle.loads(pickle.dumps(mine)) is mine


@pytest.mark.parametrize("code", ["?", "b", "h", "i", "l", "q", "f", "d", "F", "D", "i4", "u8", "f8", "c16"])
def test_elements_of_external32_are_big_endian_and_come_back_as_they_were(code):
    kind = Datatype.fromcode(code)
    data = bytearray(3 * kind.size)
    packed = bytearray(kind.Pack_external_size("external32", 3))
    data[0] = 1
    back = bytearray(len(data))

    kind.Pack_external("external32", data, packed, 0)
    end = kind.Unpack_external("external32", packed, 0, back)

    assert (back, end) == (data, len(packed))


def test_elements_of_several_datatypes_are_packed_one_after_the_other():
    packed, back = bytearray(INT.Pack_size(2, None) + DOUBLE.Pack_size(1, None)), array.array("d", [0])

    at = INT.Pack(array.array("i", [1, 2]), packed, 0, None)
    end = DOUBLE.Pack(array.array("d", [3]), packed, at, None)

    assert (packed, end) == (struct.pack("=iid", 1, 2, 3), 16)
    assert DOUBLE.Unpack(packed, at, back, None) == 16
    assert list(back) == [3]
    with pytest.raises(errors.Exception, match="TRUNCATE"):
        DOUBLE.Pack(back, packed, 9, None)


# -- operations


@pytest.mark.parametrize("has_numpy", [True, False])
@pytest.mark.parametrize(
    "name, code, a, b, result",
    [
        ("SUM", "d", [1, 2], [10, 20], [11, 22]),
        ("SUM", "b", [100, -128], [100, -1], [-56, 127]),
        ("PROD", "H", [300], [300], [24464]),
        ("MAX", "i", [1, 9], [5, 5], [5, 9]),
        ("MIN", "f", [1, 9], [5, 5], [1, 5]),
        ("LAND", "i", [0, 7], [3, 2], [0, 1]),
        ("LXOR", "i", [0, 7], [3, 2], [1, 0]),
        ("BOR", "B", [1, 4], [2, 4], [3, 4]),
        ("REPLACE", "i", [1], [2], [1]),
        ("NO_OP", "i", [1], [2], [2]),
    ],
)
def test_an_operation_on_memory_is_that_of_c_with_numpy_and_without(monkeypatch, has_numpy, name, code, a, b, result):
    if has_numpy:
        pytest.importorskip("numpy")
    else:
        monkeypatch.setattr(op, "_numpy", lambda: None)
    first, second = array.array(code, a), array.array(code, b)

    op.predefined[name].Reduce_local(first, second)

    assert list(second) == result


@pytest.mark.parametrize("has_numpy", [True, False])
@pytest.mark.parametrize("name, best", [("MAXLOC", [(2.0, 1), (5.0, 0)]), ("MINLOC", [(2.0, 1), (4.0, 9)])])
def test_the_place_of_the_best_is_the_first_among_equals(monkeypatch, has_numpy, name, best):
    if has_numpy:
        pytest.importorskip("numpy")
    else:
        monkeypatch.setattr(op, "_numpy", lambda: None)
    kind = datatypes.predefined["DOUBLE_INT"]
    a, b = (bytearray(struct.pack("di4xdi4x", *of)) for of in ((2.0, 3, 5.0, 0), (2.0, 1, 4.0, 9)))

    op.predefined[name].Reduce_local([a, 2, kind], [b, 2, kind])

    value, place, other, other_place = struct.unpack("di4xdi4x", b)
    assert [(value, place), (other, other_place)] == best


def test_an_operation_of_the_program_sees_elements_where_its_own_memory_has_them():
    spread, seen = DOUBLE.Create_resized(0, 16), []

    def add(a, b, kind):
        seen.append((len(a), kind))
        for at in (0, 16):
            struct.pack_into("d", b, at, struct.unpack_from("d", a, at)[0] + struct.unpack_from("d", b, at)[0])

    first, second = array.array("d", [1, 0, 2, 0]), array.array("d", [10, -1, 20, -1])
    op.Op.Create(add).Reduce_local([first, 2, spread], [second, 2, spread])

    assert list(second) == [11, -1, 22, -1]
    assert seen == [(32, spread)]


def test_an_operation_for_other_elements_is_refused_by_name():
    with pytest.raises(errors.Exception, match="BAND") as caught:
        op.predefined["BAND"].Reduce_local(NUMBERS, array.array("d", NUMBERS))
    assert caught.value == ERR_OP


# -- handles, groups, infos, errors, statuses


@pytest.mark.parametrize("handle", [INT, DATATYPE_NULL, op.SUM, group.GROUP_EMPTY, info.INFO_NULL, info.INFO_ENV])
def test_a_handle_is_equal_to_what_names_the_same_and_is_no_key(handle):
    other = type(handle)(handle)

    assert other == handle and other is not handle and bool(other) == bool(handle)
    assert copy.deepcopy(handle) is handle and copy.copy(other) == handle
    assert type(handle).fromint(handle.toint()) == handle
    with pytest.raises(TypeError):
        hash(handle)
    with pytest.raises(TypeError):
        type(handle)(1234)


def test_who_is_freed_is_null_and_what_was_made_of_it_stays():
    pair = INT.Create_contiguous(2)
    four = pair.Create_contiguous(2)
    pair.Free()

    assert (pair, four.size) == (DATATYPE_NULL, 16)
    with pytest.raises(errors.Exception) as caught:
        INT.Free()
    assert caught.value == ERR_TYPE


def test_groups_are_sets_that_keep_the_order_of_the_first():
    world = group.Group._of(group.Members(range(5), mine=3))
    even, first = world.Incl([4, 2, 0]), world.Range_incl([(0, 2, 1)])

    assert group.Group.Union(even, first).members.ranks == (4, 2, 0, 1)
    assert group.Group.Intersection(even, first).members.ranks == (2, 0)
    assert group.Group.Difference(even, first).members.ranks == (4,)
    assert (world.rank, even.rank, even.Translate_ranks([0, 2], world)) == (3, UNDEFINED, [4, 0])
    assert group.Group.Difference(first, world) == group.GROUP_EMPTY
    with pytest.raises(errors.Exception, match="RANK"):
        world.Incl([5])


def test_a_status_counts_whole_elements_or_says_that_it_cannot():
    status = Status()
    status._take(2, 7, size=16)
    both = Datatype.Create_struct([1, 1], [0, 4], [INT, DOUBLE])

    assert (status.source, status.tag) == (2, 7)
    assert (status.Get_count(INT), status.Get_count(both), status.Get_elements(both)) == (4, UNDEFINED, 3)
    assert pickle.loads(pickle.dumps(status)) == status


def test_an_error_compares_as_its_code_and_says_what_was_wrong():
    with pytest.raises(RuntimeError, match="MPI_ERR_ARG: invalid argument: .*-1") as caught:
        INT.Create_contiguous(-1)

    assert caught.value == ERR_ARG and pickle.loads(pickle.dumps(caught.value)).Get_error_code() == ERR_ARG


def test_marks_are_single_and_false():
    assert pickle.loads(pickle.dumps(IN_PLACE)) is IN_PLACE
    assert not BOTTOM and not IN_PLACE
