"""How a VR has ended is never lost, in whatever order the news of it come, and never overtakes its last packets."""

import pytest
from posts import posts  # noqa: F401 - a fixture
from tasks import wait_until

from river._core.box import KILLED, Box, ChildFailed
from river._core.homes import new_home, new_resident
from river.errors import VirtualResourceLost

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


# ------------------------------------------------------------------------------------ behind the last packet


@pytest.fixture(params=[True, False], ids=["it was watched", "it is asked for afterwards"])
def is_watched(request):
    return request.param


@pytest.mark.parametrize("report", [None, REPORT], ids=["ended", "failed"])
@pytest.mark.parametrize("is_child", [True, False], ids=["a child", "another one"])
def test_the_end_of_a_vr_is_told_behind_its_last_packets(is_watched, is_child, report, posts):  # noqa: F811
    here, there = posts
    receiver, sender = Box(here, here.new_uuid()), Box(there, there.new_uuid())
    here.move_in(receiver.uuid, receiver)
    there.move_in(sender.uuid, sender)
    watch = receiver.adopt if is_child else receiver._watch
    if is_watched:
        watch(sender.uuid)
        wait_until(lambda: sender.uuid in there._residents._watchers, what="the wish to watch it")
    for number in range(10):
        there.send(sender.uuid, receiver.uuid, {"number": number})
    there.move_out(sender.uuid, receiver.uuid if is_child else "", report)
    if not is_watched:
        watch(sender.uuid)

    assert [receiver.take({"src": sender.uuid}, 60).value("number") for _ in range(10)] == list(range(10))
    if is_child and report:
        with pytest.raises(ChildFailed) as caught:
            receiver.take({"src": sender.uuid}, 60)
        assert (caught.value.uuid, caught.value.report) == (sender.uuid, report)
    with pytest.raises(VirtualResourceLost, match="failed with ValueError" if report else "has ended"):
        receiver.take({"src": sender.uuid}, 60)
