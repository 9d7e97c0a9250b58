"""Packets and how they are matched: the rules as tables, and mailboxes beside a list that is searched one by one."""

import copy
import fractions
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from river import errors
from river._core.letters import Letter, Letters, Mailbox, Search
from river._core.packet import ANY, RESERVED, Packet, any_of, check_names, selects

NAN = float("nan")
ARRAY = np.arange(3)


class Touchy:
    """What cannot be compared."""

    def __eq__(self, other):
        raise RuntimeError("leave me alone")

    __hash__ = None


TOUCHY = Touchy()


def bigger_than_three(value):
    return value > 3


# wanted, a value that matches it, a value that does not
RULES = [
    pytest.param("a", "a", "b", id="a string"),
    pytest.param("a", "a", b"a", id="a string and bytes"),
    pytest.param(1, 1, 2, id="a number"),
    pytest.param(1, True, False, id="a number and a bool"),
    pytest.param(1, 1.0, 1.5, id="a number and a float"),
    pytest.param(1, fractions.Fraction(1), fractions.Fraction(1, 2), id="a number and a fraction"),
    pytest.param(1, np.int64(1), np.int64(2), id="a number and numpy's"),
    pytest.param(None, None, 0, id="None"),
    pytest.param((1, "a"), (1.0, "a"), [1, "a"], id="a tuple, which no list equals"),
    pytest.param([1, 2], [1, 2], (1, 2), id="a list"),
    pytest.param({"a": [1]}, {"a": [1]}, {"a": [2]}, id="a dict"),
    pytest.param(int, int, str, id="a class is a value"),
    pytest.param(int, int, 3, id="a class is no predicate"),
    pytest.param(ANY, None, ..., id="ANY, even None"),
    pytest.param(ANY, NAN, ..., id="ANY, even nan"),
    pytest.param(any_of(1, 2), 2, 3, id="any_of values"),
    pytest.param(any_of([1, 2]), 2, [1, 2], id="any_of a list's elements"),
    pytest.param(any_of({1, 2}), 1, 3, id="any_of a set's elements"),
    pytest.param(any_of(range(3)), 2, 3, id="any_of a range"),
    pytest.param(any_of({"a": 1}), "a", 1, id="any_of a dict's keys"),
    pytest.param(any_of("ab"), "ab", "a", id="any_of one string, not its letters"),
    pytest.param(any_of([1], [2]), [2], [3], id="any_of lists"),
    pytest.param(any_of(1, [2]), True, 2, id="any_of what can be hashed and what cannot"),
    pytest.param(any_of(1, ARRAY), ARRAY, np.arange(3), id="any_of with an array"),
    pytest.param(any_of(), ..., 1, id="any_of nothing"),
    pytest.param(bigger_than_three, 4, 3, id="a predicate"),
    pytest.param(lambda value: value, [0], [], id="a predicate's answer counts as true or false"),
    pytest.param("abc".startswith, "a", "b", id="a method"),
    pytest.param(NAN, ..., NAN, id="nan equals nothing"),
    pytest.param(any_of(NAN, 1), 1, NAN, id="nan equals nothing, not even in any_of"),
    pytest.param(ARRAY, ARRAY, np.arange(3), id="an array is only itself"),
    pytest.param(TOUCHY, TOUCHY, 3, id="what cannot be compared is only itself"),
    pytest.param(3, 3, TOUCHY, id="what cannot be compared equals nothing"),
]


def letter(**values):
    """As it comes from elsewhere: plain values as they are, others packed."""
    kinds = (int, float, str, bytes, bool, type(None))
    plain = {name: value for name, value in values.items() if type(value) in kinds}
    return Letter(plain, {name: (lambda value=value: value) for name, value in values.items() if name not in plain})


@pytest.mark.parametrize("make", [letter, lambda **values: Letter(values)], ids=["packed", "unpacked"])
@pytest.mark.parametrize(("want", "match", "other"), RULES)
def test_a_value_is_wanted_by_equality_one_of_several_a_predicate_or_presence(want, match, other, make):
    expected = [value for value in (match,) if value is not ...]
    mailbox = Letters()
    for value in (other, match):
        if value is not ...:
            mailbox.put(make(x=value))
    mailbox.put(make(y=1))

    taken = []
    while (found := mailbox.take(x=want)) is not None:
        taken.append(found.value("x"))

    assert list(map(id, taken)) == list(map(id, expected))
    assert selects({"x": want}, {"x": match}) or match is ...
    assert not selects({"x": want}, {"x": other}) or other is ...
    assert not selects({"x": want}, {"y": match})
    assert len(mailbox) == 2 if other is not ... else 1


def test_all_that_is_wanted_has_to_match():
    mailbox = Letters()
    for tag in "ab":
        for size in range(5):
            mailbox.put(letter(tag=tag, size=size))

    assert mailbox.peek(tag="b", size=bigger_than_three).open() == Packet(tag="b", size=4)
    assert mailbox.peek(tag="b", size=any_of(7, 2)).open() == Packet(tag="b", size=2)
    assert mailbox.peek(tag=ANY, size=3).open() == Packet(tag="a", size=3)
    assert mailbox.peek(tag="c", size=ANY) is None
    assert mailbox.peek(tag="a", other=ANY) is None
    assert mailbox.peek().open() == Packet(tag="a", size=0)


def test_a_predicate_is_asked_only_about_packets_that_have_everything_else():
    mailbox, asked = Letters(), []
    for number in range(50):
        mailbox.put(letter(tag="other", size="no number"))
        mailbox.put(letter(tag="work", size=number, list=[1]))
        mailbox.put(letter(size=number))

    found = mailbox.take(size=lambda n: asked.append(n) or n > 20, tag="work", list=ANY)

    assert found.value("size") == 21
    assert asked == list(range(22))  # and about each once


def test_what_a_predicate_raises_is_raised_and_the_packet_stays():
    mailbox = Letters()
    mailbox.put(letter(size="text"))

    with pytest.raises(TypeError):
        mailbox.take(size=bigger_than_three)
    assert mailbox.take(size="text") is not None


def test_a_value_that_cannot_be_unpacked_matches_nothing_and_holds_up_nobody():
    def broken():
        raise errors.PacketError("attribute 'x' of a packet could not be rebuilt")

    mailbox = Letters()
    mailbox.put(Letter({"tag": 1}, {"x": broken}))
    mailbox.put(letter(x=[3]))

    assert mailbox.take(x=[3]) is not None
    assert mailbox.peek(x=lambda value: True) is None
    bad = mailbox.take(x=ANY, tag=1)
    with pytest.raises(errors.PacketError, match="'x'"):
        bad.open()


def test_what_is_not_looked_at_is_not_unpacked():
    mailbox, unpacked = Letters(), []
    for number in range(30):
        mailbox.put(Letter({"tag": number}, {"data": lambda: unpacked.append(1)}))

    mailbox.peek(tag=20, data=ANY)
    mailbox.peek(tag=50, data=[1])

    assert unpacked == []


# ------------------------------------------------------------------------------------------------ packets


@pytest.mark.parametrize("name", ["items", "values", "keys", "get", "pop", "name", "_", "__len__", "class", "a b", ""])
def test_an_attribute_may_have_any_name(name):
    packet = Packet(**{name: 5})

    assert (packet[name], getattr(packet, name), vars(packet), name in packet, len(packet), list(packet)) == (
        5, 5, {name: 5}, True, 1, [name]
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(packet)) == packet == copy.deepcopy(packet)
    assert "other" not in packet


def test_an_attribute_that_is_not_there_is_named_with_those_that_are():
    packet = Packet(tag="a", size=3)

    with pytest.raises(AttributeError, match="no 'colour'; it has tag, size"):
        packet.colour  # noqa: B018
    with pytest.raises(KeyError, match="colour .*tag, size"):
        packet["colour"]
    with pytest.raises(AttributeError, match="it has nothing"):
        Packet().colour  # noqa: B018
    assert getattr(packet, "colour", None) is None


def test_reprs_can_be_read():
    assert repr(Packet(tag="a", input=[1])) == "Packet(tag='a', input=[1])"
    assert repr(any_of(1, "a")) == "river.any_of(1, 'a')"
    assert repr(ANY) == "river.ANY"


def test_packets_and_wishes_can_be_pickled():
    packet = Packet(tag="a", input=[1])
    wishes = pickle.loads(pickle.dumps([ANY, any_of(1, [2])]))

    assert pickle.loads(pickle.dumps(packet)) == packet != Packet(tag="b")
    assert wishes[0] is ANY
    assert wishes[1].has([2]) and wishes[1].has(1) and not wishes[1].has(2)


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names_are_refused_by_an_error_that_lists_them(name):
    with pytest.raises(TypeError, match=f"cannot have {name}: River uses the names {', '.join(RESERVED)}"):
        check_names({"tag": 1, name: 2})


# ----------------------------------------------------------------------------------------------- mailboxes


class Broken:
    """Stands for a value that cannot be unpacked."""


ANY_OF = type(any_of())


def naive_accepts(want, value):
    if want is ANY:
        return True
    if isinstance(value, Broken):
        return False
    if isinstance(want, ANY_OF):
        return any(naive_accepts(one, value) for one in want.values)
    if callable(want) and not isinstance(want, type):
        return bool(want(value))
    try:
        return bool(want == value)
    except Exception:
        return want is value


class Naive:
    """A mailbox as one would write it first."""

    def __init__(self):
        self.letters = []  # (place, id, values), by place

    def find(self, wanted):
        for place, number, values in self.letters:
            if all(name in values and naive_accepts(want, values[name]) for name, want in wanted.items()):
                return place, number, values
        return None


VALUES = [0, 1, 2, True, False, 1.0, 0.0, NAN, "a", "b", b"a", None, (1, "a"), (1.0, "a"), (NAN,), ([1],)]
VALUES += [[1], [2], {"k": 1}, ARRAY, np.array([1.5]), fractions.Fraction(1), np.int64(1), TOUCHY, int, Broken()]
PREDICATES = [lambda v: True, lambda v: type(v) is int, lambda v: isinstance(v, str), lambda v: v is None, callable]
NAMES = ["tag", "src", "size"]


def new_letter(chance):
    values = {name: chance.choice(VALUES) for name in NAMES if chance.random() < 0.7}
    # A plain value may come packed, and in principle one that is not plain as it is.
    apart = {name for name, value in values.items() if isinstance(value, Broken) or chance.random() < 0.3}
    return values, Letter(
        {name: value for name, value in values.items() if name not in apart},
        {name: (lambda value=values[name]: unpack(value)) for name in apart},
    )


def unpack(value):
    if isinstance(value, Broken):
        raise errors.PacketError("broken")
    return value


def new_wish(chance):
    kinds = [
        lambda: chance.choice(VALUES[:-1]),
        lambda: any_of(*chance.choices(VALUES[:-1], k=chance.randrange(4))),
        lambda: ANY,
        lambda: chance.choice(PREDICATES),
    ]
    weights = [5, 3, 1, 1]
    return {name: chance.choices(kinds, weights)[0]() for name in NAMES if chance.random() < 0.5}


class Pair:
    """A mailbox and its model, to which the same is done."""

    def __init__(self, chance):
        self.chance = chance
        self.mailbox, self.model = Letters(), Naive()
        self.numbers = {}  # id of a letter: its number in the model
        self.put_count = 0
        self.taken = []  # (place, number, values, letter), which may be put back
        self.searches = []
        self.keep = []

    def put(self):
        values, letter = new_letter(self.chance)
        self.mailbox.put(letter)
        self.numbers[id(letter)] = self.put_count
        self.keep.append(letter)  # so that no id comes twice
        self.model.letters.append((letter.number, self.put_count, values))
        self.put_count += 1

    def pass_by(self):
        values, letter = new_letter(self.chance)
        letter.number = self.mailbox.pass_by()
        self.numbers[id(letter)] = self.put_count
        self.keep.append(letter)
        self.taken.append((letter.number, self.put_count, values, letter))
        self.put_count += 1

    def check(self, letter, expected):
        assert (letter is None) == (expected is None)
        assert letter is None or self.numbers[id(letter)] == expected[1]

    def peek(self):
        wanted = new_wish(self.chance)
        self.check(self.mailbox.peek(**wanted), self.model.find(wanted))

    def take(self):
        wanted = new_wish(self.chance)
        expected = self.model.find(wanted)
        letter = self.mailbox.take(**wanted)
        self.check(letter, expected)
        self.took(letter, expected)

    def took(self, letter, expected):
        if letter is not None:
            self.model.letters.remove(expected)
            self.taken.append((*expected, letter))
            assert self.mailbox.remove(letter) is None  # it is gone

    def possible(self):
        wanted = new_wish(self.chance)
        possible = self.mailbox.possible(Search(wanted))
        found = next((letter for letter, certain in possible if certain or letter.matches(wanted)), None)
        self.check(found, self.model.find(wanted))

    def put_back(self):
        self.chance.shuffle(self.taken)
        some, self.taken = self.taken[:3], self.taken[3:]
        self.mailbox.put_back([letter for *_, letter in some])
        self.model.letters += [entry[:3] for entry in some]
        self.model.letters.sort(key=lambda entry: entry[0])

    def begin(self):
        search = Search(new_wish(self.chance))
        self.mailbox.begin(search)
        self.searches.append(search)

    def look_again(self):
        if self.searches:
            search = self.chance.choice(self.searches)
            expected = self.model.find(search.wanted)
            letter = self.mailbox.remove(self.mailbox.find(search))
            self.check(letter, expected)
            self.took(letter, expected)
            if letter is not None:
                self.searches.remove(search)
                self.mailbox.end(search)

    def check_all(self):
        assert [self.numbers[id(letter)] for letter in self.mailbox] == [entry[1] for entry in self.model.letters]
        assert len(self.mailbox) == len(self.model.letters)


OPERATIONS = [Pair.put, Pair.take, Pair.peek, Pair.possible, Pair.pass_by, Pair.put_back, Pair.begin, Pair.look_again]


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(OPERATIONS), max_size=100), st.integers(0, 40))
def test_a_mailbox_does_what_a_list_would(chance, operations, letters):
    pair = Pair(chance)
    for _ in range(letters):
        pair.put()
    for operation in operations:
        operation(pair)
    pair.check_all()


@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_letters_come_and_go_and_with_them_the_indexes(seed):
    chance = random.Random(seed)
    pair = Pair(chance)
    for grows in (True, False, True, False):
        for _ in range(800):
            weights = [8, 1, 1, 1, 0.1, 0.2, 0.2, 1] if grows else [1, 5, 1, 1, 0.1, 0.2, 0.2, 1]
            chance.choices(OPERATIONS, weights)[0](pair)
        pair.check_all()
    while (letter := pair.mailbox.take()) is not None:
        pair.took(letter, pair.model.find({}))
    pair.check_all()

    assert len(pair.mailbox) == 0 and pair.mailbox._indexes == {}


class Watched(Letter):
    """A letter that counts how often one of its kind is looked at."""

    __slots__ = ()
    looks = 0

    @property
    def packed(self):
        Watched.looks += 1
        return {}

    @packed.setter
    def packed(self, packed):
        pass


COUNT = 100_000
HAYSTACKS = {
    "all alike": lambda number: {"tag": "hay", "src": "a", "size": 1},
    "no two alike": lambda number: {"tag": f"hay{number}", "src": number, "size": number},
    "half each": lambda number: {"tag": "needle", "src": "a"} if number % 2 else {"tag": "hay", "src": "needle"},
    "without what is wanted": lambda number: {"other": number},
}


@pytest.mark.parametrize("haystack", HAYSTACKS)
def test_among_100_000_unmatched_packets_a_search_by_plain_values_looks_at_few(haystack):
    mailbox = Letters()
    for number in range(COUNT):
        mailbox.put(Watched(HAYSTACKS[haystack](number)))
    needle = {"tag": "needle", "src": "needle", "size": 3}
    wishes = [
        {"tag": "needle", "src": "needle"},
        {"tag": any_of("needle", "pin"), "src": any_of("needle", "needle")},
        {"tag": "needle", "src": "needle", "size": lambda size: size == 3},
        {"size": 3, "src": "needle"},
    ]
    if haystack != "half each":
        wishes += [{"tag": "needle"}, {"src": "needle"}, {"src": "needle", "size": ANY}]

    for wanted in wishes:
        assert mailbox.peek(**wanted) is None  # makes an index
    Watched.looks = 0
    for wanted in wishes:
        assert mailbox.peek(**wanted) is None
        mailbox.put(Watched(needle))
        assert mailbox.take(**wanted).plain is needle

    assert Watched.looks < 40 * len(wishes)
    assert len(mailbox) == COUNT


def test_any_of_many_values_at_once_costs_no_more_than_looking_at_every_letter():
    mailbox = Letters()
    for number in range(100):
        mailbox.put(letter(x=number, y=number, z=number))

    assert mailbox.take(x=any_of(range(1000)), y=any_of(range(1000)), z=any_of(range(50, 1000))).value("x") == 50


def test_letters_that_one_of_several_values_finds_come_in_order():
    mailbox = Letters()
    for number in range(50):
        mailbox.put(letter(tag="abc"[number % 3], number=number))
    wanted = {"tag": any_of("c", "a", "a", "nobody")}

    taken = [mailbox.take(**wanted).value("number") for _ in range(33)]

    assert taken == [number for number in range(50) if number % 3 != 1]
    assert mailbox.take(**wanted) is None


def test_a_mailbox_of_a_programs_own_gives_packets():
    mailbox = Mailbox()
    mailbox.put(tag="a", n=1)
    mailbox.put(Packet(tag="b", items=[1, 2]))
    mailbox.put(tag="a", n=2)

    assert mailbox.take(tag="b") == Packet(tag="b", items=[1, 2])
    assert mailbox.take(tag="b") is None
    assert mailbox.peek(n=any_of(2, 3)) == Packet(tag="a", n=2)
    assert [packet.n for packet in mailbox] == [1, 2]
    assert (mailbox.take().n, len(mailbox)) == (1, 1)


@pytest.mark.parametrize(
    "wanted", [{}, {"tag": 1}, {"tag": True}, {"n": 70}, {"tag": 1, "n": 70}, {"tag": float("nan")}]
)
@pytest.mark.parametrize("is_indexed", [True, False])
def test_the_shorter_way_takes_what_the_longer_one_would_or_nothing(wanted, is_indexed):
    short, long = Letters(), Letters()
    for letters in (short, long):
        for n in range(100):
            letters.put(Letter({"tag": n % 2 if n % 7 else [n], "n": n}))
        if is_indexed:
            letters.peek(tag=2)
            letters.peek(n=-1)

    for _ in range(60):
        expected = long.peek(**wanted)
        taken = short.take_first(wanted)
        assert taken is None or taken.plain == expected.plain
        if taken is not None:
            long.remove(expected)
    assert [letter.plain for letter in short] == [letter.plain for letter in long]
