"""A chunk in a VM: to give its rest back while it runs neither loses an item nor gives back one that has begun."""

import random
import sys
import threading

import pytest

from river._core.answers import Run


@pytest.fixture
def restless():
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_what_has_not_begun_is_given_back_and_only_that():
    run = Run(1, list("abcde"))
    begun = [next(run.source), next(run.source)]

    assert (begun, run.give_back(), run.size) == (["a", "b"], 2, 2)
    assert run.give_back() == 2
    assert list(run.source) == []


def test_nothing_is_given_back_of_a_chunk_that_is_through():
    run = Run(1, list("abc"))
    run.values.extend(run.source)

    assert (run.give_back(), run.size) == (3, 3)


def test_all_but_the_first_item_can_be_given_back_before_it_begins():
    run = Run(1, list("abc"))

    assert (run.keep_first(), list(run.source)) == (1, ["a"])


def test_each_item_is_either_run_or_given_back(restless):
    chance = random.Random(2006)
    for _ in range(2000):
        size = chance.randrange(1, 40)
        run, begun, back = Run(1, list(range(size))), [], []

        def work(item, begun=begun):
            begun.append(item)

        def give_back(run=run, back=back):
            for _ in range(3):
                before = run.size
                back.extend(range(run.give_back(), before))

        other = threading.Thread(target=give_back)
        other.start()
        run.values.extend(map(work, run.source))
        other.join()

        assert sorted(begun + back) == list(range(size))
        assert run.size == len(begun)
