"""What two posts promise each other, whatever their threads and lines are at just then."""

from posts import posts  # noqa: F401 - a fixture

from river._core.box import Box


def resident(post, kind=Box):
    one = kind(post, post.new_uuid())
    post.move_in(one._uuid if kind is not Box else one.uuid, one)
    return one


def test_drain_sends_what_another_thread_was_about_to_send(posts):  # noqa: F811
    here, there = posts
    box, line = resident(there), here.line_to(there.home)
    kept = [line.put(box.uuid, {"number": number}, now=1.0) for number in range(3)]  # as after `Outgoing.take`
    here.drain()

    assert kept == [0, 1, 2]
    assert [box.take({}, 60).value("number") for _ in range(3)] == [0, 1, 2]
