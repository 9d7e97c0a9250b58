"""The ways by which processes find each other: a tree of places, as processes would have them, in one process.

May not: make a process or a line.
"""

import pytest

from river._core.homes import Place, home_of, new_resident


class Tree:
    """A process and its VMs."""

    def __init__(self, above=None):
        self.place = Place()
        self.above = above
        self.below = []
        if above is not None:
            home = above.place.new_vm()
            self.place.settle(home, above.place.home, lambda *_: above, above.place.level + 1)
            above.place.down[home] = lambda *_: self
            above.below.append(self)

    def grow(self, count, levels):
        for _ in range(count if levels else 0):
            Tree(self).grow(count, levels - 1)
        return self

    def all(self):
        return [self, *(one for below in self.below for one in below.all())]

    def end(self):
        del self.above.place.down[self.place.home]


def found(start, home):
    """Who an introduction comes to; None if it is closed on its way."""
    here, steps = start, 0
    while here.place.home != home:
        way = here.place.way_to(home)
        if way is None:
            return None
        here, steps = way(), steps + 1
        assert steps < 20, "it goes in circles"
    return here


def test_everybody_within_three_levels_finds_everybody():
    everybody = Tree().grow(4, 3).all()

    assert len({one.place.home for one in everybody}) == len(everybody) == 1 + 4 + 16 + 64
    for one in everybody:
        for other in everybody[::3]:
            assert found(one, other.place.home) is other
    for one in everybody:
        assert home_of(new_resident(one.place.home)) == one.place.home


def test_who_is_deeper_finds_everybody_and_is_found_by_who_is_near():
    root = Tree().grow(2, 5)
    deep = root.below[0].below[0].below[0].below[0].below[0]
    brother = deep.above.below[1]

    assert all(found(deep, other.place.home) is other for other in (root, root.below[1].below[1], deep.above, brother))
    assert found(deep.above, deep.place.home) is found(brother, deep.place.home) is deep
    assert found(root, deep.place.home) is None


@pytest.mark.parametrize("level", [1, 2, 3])
def test_who_has_ended_is_found_by_nobody(level):
    everybody = Tree().grow(3, 3).all()
    one = next(one for one in everybody if one.place.level == level)
    one.end()

    gone = one.all()
    assert all(found(other, one.place.home) is None for other in everybody if other not in gone)
    assert all(found(everybody[0], below.place.home) is None for below in gone)


def test_vms_that_live_at_the_same_time_begin_differently():
    root = Tree()
    vm = Tree(root)
    homes = [Tree(vm).place.home for _ in range(500)]

    assert len({home[:19] for home in homes}) == 500 and {home[:14] for home in homes} == {vm.place.home[:14]}
