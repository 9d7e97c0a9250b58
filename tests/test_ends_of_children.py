"""How a child has ended is never lost, in whatever order the news of it come."""

import pytest

from river._core.box import KILLED, Box, ChildFailed
from river._core.homes import new_home, new_resident

PARENT, CHILD = new_resident(new_home()), new_resident(new_home())
REPORT = (None, "ValueError", "ValueError: a report")


class Quiet:
    """A post that takes what it is told, and never waits."""

    def watch(self, uuid, resident):
        pass

    def wait(self, ready, timeout):
        return ready()


def box():
    made = Box(Quiet(), PARENT)
    made.adopt(CHILD)
    return made


ANSWER = (CHILD, "", None)  # to the parent's wish to watch it: there is no such one (any more)
FAILED = (CHILD, PARENT, REPORT)
ENDED = (CHILD, PARENT, None)


@pytest.mark.parametrize("news", [[FAILED], [ANSWER, FAILED], [FAILED, ANSWER], [FAILED, ENDED]])
def test_a_failure_is_told_once(news):
    parent = box()
    for one in news:
        parent.gone(*one)

    with pytest.raises(ChildFailed) as caught:
        parent.outlived_by(0)
    assert (caught.value.uuid, caught.value.report) == (CHILD, REPORT)
    assert parent.outlived_by(0) == [] and parent.ended == {CHILD: REPORT}


@pytest.mark.parametrize("news", [[ENDED], [ANSWER, ENDED], [ENDED, ANSWER]])
def test_a_good_end_is_no_failure(news):
    parent = box()
    for one in news:
        parent.gone(*one)

    assert parent.outlived_by(0) == [] and parent.ended == {CHILD: None}


@pytest.mark.parametrize("news", [[], [ANSWER]])
def test_without_news_of_its_end_a_child_goes_on_until_its_process_is_lost(news):
    parent = box()
    for one in news:
        parent.gone(*one)
    assert parent.outlived_by(0) == [CHILD]

    parent.lost(CHILD[:-8] + "00000000")
    with pytest.raises(ChildFailed) as caught:
        parent.outlived_by(0)
    assert caught.value.report == KILLED
