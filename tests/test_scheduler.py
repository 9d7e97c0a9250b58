"""The scheduler: each event by example, and all of them in random histories of a simulated cluster.

The simulated VMs answer late, in order, and die at any moment, as real ones do.  Each promise of the scheduler is
checked after each event.  May not: start a process, a thread, or look at a clock.
"""

import itertools
import random
import sys
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from river._core import crew, waiting
from river._core import scheduler as module
from river._core.scheduler import (
    AHEAD,
    FEW,
    MOST_CREDIT,
    NOBODY,
    PATIENCE,
    End,
    Fail,
    GiveUp,
    Resolve,
    Revoke,
    Scheduler,
    Send,
    Split,
    Start,
    Stop,
    Task,
)

OF_THE_SCHEDULER = {file.__file__ for file in (module, crew, waiting)}
LONG = 1.0  # seconds; for a task that takes so long nothing should wait

TEXT = {
    Send: lambda i: f"{i.vm} gets {' '.join(str(t.number) for t in i.tasks)}",
    Resolve: lambda i: f"results of {' '.join(str(t.number) if t else '-' for t in i.tasks)}",
    Fail: lambda i: f"{i.task.number} fails: {i.reason}",
    Split: lambda i: f"{i.task.number} is split at {i.item}",
    Start: lambda i: f"start {i.vms}",
    Stop: lambda i: f"stop {i.vm}",
    End: lambda i: f"end {i.vm}",
    Revoke: lambda i: f"revoke {i.vm}",
    GiveUp: lambda i: "give up",
}


def said(todo):
    """Instructions as one can read them."""
    return [TEXT[type(instruction)](instruction) for instruction in todo]


def but_for_starts(todo):
    """The replacement of a VM may be started when it is told to end, or when it has ended."""
    return [text for text in said(todo) if not text.startswith("start ")]


def running(names, wanted=None, lifetime=None, ready=True):
    """A scheduler with these VMs up (one letter each); the first is the last to come, and so the next to be used."""
    scheduler = Scheduler(wanted or len(names), lifetime)
    scheduler.opened()
    for name in reversed(names):
        scheduler.started(name)
        if ready:
            scheduler.readied(name)
    return scheduler


def submit(scheduler, *numbers, now=0.0, **options):
    """Submit tasks of these numbers; what is to be done about all of them."""
    return said(itertools.chain.from_iterable(scheduler.submitted(make(n, **options), now) for n in numbers))


def make(number, where=None, **options):
    """A task, bound to the VMs of these letters."""
    task = Task(number, **options)
    if where is not None:
        task.where = frozenset(where)
    return task


def is_queued(scheduler, number):
    return number in scheduler.tasks and scheduler.tasks[number].sent_to is None


def part(number, of, offset, where=None):
    """A part of a chunk that was submitted as task `of`."""
    task = make(number, where)
    task.origin, task.offset = of, offset
    return task


def finish(scheduler, name, *numbers, seconds=LONG, now=0.0):
    return said(scheduler.finished(name, [(number, seconds) for number in numbers], now))


# -------------------------------------------------------------------------------------------- VMs come and go


def test_opening_starts_as_many_vms_as_wanted():
    assert said(Scheduler(3).opened()) == ["start 3"]


def test_a_vm_gets_what_waits_as_soon_as_it_is_started():
    scheduler = Scheduler(1)
    before = submit(scheduler, 1)

    assert (before, said(scheduler.started("a")), said(scheduler.readied("a"))) == ([], ["a gets 1"], [])


def test_few_tasks_are_shared_by_all_vms():
    scheduler = running("abcd")

    assert submit(scheduler, 1, 2, 3, 4) == ["a gets 1", "b gets 2", "c gets 3", "d gets 4"]


def test_events_of_a_vm_that_is_gone_are_no_matter():
    scheduler = running("a")
    scheduler.lost("a", None)

    assert said(scheduler.readied("a")) == []
    assert said(scheduler.returned("a", [1])) == []
    assert said(scheduler.retired("a")) == []
    assert said(scheduler.lost("a", 1)) == []
    assert finish(scheduler, "a", 1) == ["results of -"]


def test_a_lost_vm_is_replaced_and_counted():
    scheduler = running("ab")

    assert said(scheduler.lost("a", None)) == ["start 1"]
    assert scheduler.lost_vms == 1


def test_two_initializers_that_fail_in_a_row_are_no_accident():
    scheduler = running("a", wanted=2)
    scheduler.started("b")
    submit(scheduler, 1)

    assert said(scheduler.unfit("b")) == []
    scheduler.lost("b", None)
    scheduler.started("c")
    assert said(scheduler.unfit("c")) == ["give up", "1 fails: broken"]


def test_an_initializer_that_fails_once_in_a_while_is_an_accident():
    scheduler = running("a", wanted=2)
    for name in "bcdefgh":
        scheduler.started(name)
        assert said(scheduler.unfit(name)) == []
        assert said(scheduler.lost(name, None)) == ["start 1"]
        scheduler.started(name.upper())
        scheduler.readied(name.upper())
        assert said(scheduler.lost(name.upper(), None, blame=False)) == ["start 1"]


def test_a_vm_whose_initializer_failed_gets_nothing():
    scheduler = running("a", wanted=2)
    scheduler.started("b")
    scheduler.unfit("b")

    assert submit(scheduler, 1, 2, 3, 4) == ["a gets 1", "a gets 2"]


@pytest.mark.parametrize("wanted", [1, 2, 10])
def test_vms_that_end_in_a_row_without_having_done_anything_break_it(wanted):
    scheduler = running([str(i) for i in range(wanted)])
    submit(scheduler, 1, timeout=None)
    said_last = []
    for number in itertools.count():
        name = next(iter(scheduler.vms))
        said_last = said(scheduler.lost(name, None))
        if "give up" in said_last:
            break
        scheduler.started(f"replacement {number}")

    assert number + 1 > max(PATIENCE, 2 * wanted)
    assert said_last == ["give up", "1 fails: broken"]
    assert "ended without having done anything" in scheduler.broken


def test_work_that_is_done_in_between_keeps_it_going():
    scheduler = running("a")
    for number in range(100):
        submit(scheduler, number)
        name = next(iter(scheduler.vms))
        finish(scheduler, name, number)
        assert said(scheduler.lost(name, None)) == ["start 1"]
        scheduler.started(f"replacement {number}")


def test_after_giving_up_every_task_fails_and_no_vm_is_started():
    scheduler = running("a")
    submit(scheduler, 1, 2, 3)

    assert sorted(said(scheduler.gave_up("it is over"))) == [*(f"{n} fails: broken" for n in (1, 2, 3)), "give up"]
    assert submit(scheduler, 4) == ["4 fails: broken"]
    assert said(scheduler.resubmitted([Task(5), Task(6)])) == ["5 fails: broken", "6 fails: broken"]
    assert finish(scheduler, "a", 1) == ["results of -"]
    assert said(scheduler.lost("a", 2)) == []
    assert scheduler.broken == "it is over"


# -------------------------------------------------------------------------------------- sending and finishing


def test_a_task_goes_to_an_idle_vm_at_once():
    assert submit(running("ab"), 1, 2) == ["a gets 1", "b gets 2"]


def test_a_task_goes_to_the_vm_that_is_idle_though_another_has_room_too():
    scheduler = running("ab")
    submit(scheduler, 1, 2)  # 1 to a, which keeps it
    finish(scheduler, "b", 2)

    assert submit(scheduler, 3) == ["b gets 3"]


def test_a_returned_task_goes_to_the_vm_that_is_idle_though_others_have_room_too():
    scheduler = running("abc")
    submit(scheduler, 1, 2, 3, 4)
    (holder,) = [name for name, vm in scheduler.vms.items() if len(vm.tasks) == 2]
    _, idle = [name for name in "abc" if name != holder]
    finish(scheduler, idle, *scheduler.vms[idle].tasks.copy())

    assert said(scheduler.returned(holder, [4])) == [f"{idle} gets 4"]


def test_only_few_are_sent_ahead_and_the_rest_is_kept():
    scheduler = running("ab")
    sent = submit(scheduler, *range(1, 10))

    assert len(sent) == 2 * FEW
    assert [is_queued(scheduler, n) for n in range(1, 10)] == [False] * 2 * FEW + [True] * (9 - 2 * FEW)


def test_results_come_to_their_tasks_in_order_and_the_next_tasks_go_out():
    scheduler = running("a")
    submit(scheduler, 1, 2, 3, 4)

    assert finish(scheduler, "a", 1, 2) == ["results of 1 2", "a gets 3"]
    assert scheduler.done == 2


def test_a_result_nobody_waits_for_stands_for_none():
    scheduler = running("ab")
    submit(scheduler, 1)
    scheduler.cancelled(1, running=True)

    assert finish(scheduler, "a", 1) == ["results of -"]
    assert finish(scheduler, "b", 77) == ["results of -"]
    assert finish(scheduler, "nobody", 1) == ["results of -"]


def test_a_task_that_was_begun_elsewhere_since_is_not_finished_by_a_late_word():
    scheduler = running("ab")
    submit(scheduler, 1)
    scheduler.lost("a", None)  # b gets 1

    assert finish(scheduler, "a", 1) == ["results of -"]
    assert finish(scheduler, "b", 1) == ["results of 1"]


@pytest.mark.parametrize(
    ("seconds", "credit"),
    [(LONG, 1), (AHEAD * 1.01, 1), (AHEAD / 2, 3), (AHEAD / 10.01, 11), (AHEAD / 1e6, MOST_CREDIT), (0.0, MOST_CREDIT)],
)
def test_the_shorter_tasks_are_the_more_are_sent_ahead(seconds, credit):
    scheduler = running("a")
    submit(scheduler, *range(1000))
    finish(scheduler, "a", 0, 1, seconds=seconds)

    assert len(scheduler.vms["a"].tasks) == credit


def test_the_farther_a_vm_is_the_more_it_is_sent_ahead():
    scheduler = running("ab")
    scheduler.moved("b", 0.05)
    submit(scheduler, 1, 2)
    finish(scheduler, "a", 1, seconds=0.01)
    finish(scheduler, "b", 2, seconds=0.01)

    assert scheduler.vms["a"].credit == 1
    assert 1 + 5 <= scheduler.vms["b"].credit <= 1 + 10


def test_what_is_queued_when_there_is_too_little_for_all_is_shared():
    scheduler = running("abcd")
    submit(scheduler, *range(12))
    (_, sent) = scheduler.finished("a", [(n, 0.0) for n in list(scheduler.vms["a"].tasks)])

    assert len(sent.tasks) == 1  # of 4, though it could take 128


def test_it_says_how_many_more_tasks_it_would_like():
    scheduler = running("ab")
    room = [scheduler.room()]
    for number in range(20):
        submit(scheduler, number)
        room.append(scheduler.room())

    assert room[0] == 2 * FEW and room[-1] == 0
    assert all(before >= after for before, after in itertools.pairwise(room))
    assert not scheduler.is_low()
    for name in "ab":
        finish(scheduler, name, *list(scheduler.vms[name].tasks), seconds=0.0)
    assert scheduler.is_low() and scheduler.room() > 0


def test_tasks_that_come_again_go_before_all_others_in_order():
    scheduler = running("a")
    submit(scheduler, 1, 2, 3, 4)
    scheduler.resubmitted([Task(7), Task(8)])

    assert finish(scheduler, "a", 1, 2)[1:] == ["a gets 7"]
    assert finish(scheduler, "a", 7)[1:] == ["a gets 8"]
    assert finish(scheduler, "a", 8)[1:] == ["a gets 3"]


def test_tasks_that_come_again_go_out_at_once_where_there_is_room():
    assert said(running("ab").resubmitted([Task(1), Task(2)])) == ["a gets 1", "b gets 2"]


# ------------------------------------------------------------------------------------------- taking back


def test_an_idle_vm_lets_others_give_back_what_they_have_not_begun():
    scheduler = running("ab")
    submit(scheduler, 1, 2, 3, 4)
    finish(scheduler, "b", *list(scheduler.vms["b"].tasks)[:1])
    (other,) = scheduler.vms["b"].tasks

    assert finish(scheduler, "b", other) == [f"results of {other}", "revoke a"]
    waiting = list(scheduler.vms["a"].tasks)[1]
    assert said(scheduler.returned("a", [waiting])) == [f"b gets {waiting}"]


def test_a_vm_is_asked_once_at_a_time():
    scheduler = running("abc")
    submit(scheduler, *range(6))
    first, second = (finish(scheduler, name, *scheduler.vms[name].tasks.copy()) for name in "ab")

    assert "revoke c" in first and "revoke c" not in second


def test_when_one_has_nothing_to_give_back_the_next_is_asked():
    scheduler = running("abc")
    submit(scheduler, *range(6))
    asked = finish(scheduler, "c", *scheduler.vms["c"].tasks.copy())[-1].removeprefix("revoke ")
    other = "b" if asked == "a" else "a"
    finish(scheduler, asked, *list(scheduler.vms[asked].tasks)[:1])  # so that nothing waits there any more

    assert said(scheduler.returned(asked, [])) == [f"revoke {other}"]


def test_a_chunk_that_has_not_begun_is_not_handed_to_and_fro():
    scheduler = running("ab")
    submit(scheduler, 1, size=9)
    submit(scheduler, 2)
    asked = finish(scheduler, "b", 2)
    moves = 0
    while asked[-1:] and asked[-1].startswith("revoke ") and moves < 5:
        moves += 1
        asked = said(scheduler.returned(asked[-1].removeprefix("revoke "), [1]))

    assert moves < 3


def test_a_task_with_a_timeout_that_is_given_back_keeps_no_vm_waiting():
    """Its VM was asked before it got the task, and answered after that."""
    scheduler = running("ab")
    submit(scheduler, 1, 2, 3, 4)
    (asked,) = (text.removeprefix("revoke ") for text in finish(scheduler, "b", *scheduler.vms["b"].tasks.copy())[1:])
    finish(scheduler, asked, *scheduler.vms[asked].tasks.copy())
    submit(scheduler, 5, 6, timeout=5)
    (number,) = scheduler.vms[asked].tasks

    assert said(scheduler.returned(asked, [number])) == [f"{asked} gets {number}"]


def test_what_is_given_back_keeps_its_order_and_goes_before_all_others():
    scheduler = running("a")
    submit(scheduler, *range(1, 8))
    sent = finish(scheduler, "a", 1, 2, seconds=AHEAD / 2.5)
    submit(scheduler, 8)

    assert sent == ["results of 1 2", "a gets 3 4 5"]
    assert said(scheduler.returned("a", [4, 5])) == ["a gets 4"]
    assert finish(scheduler, "a", 3, 4, seconds=0.0)[1:] == ["a gets 5 6 7 8"]


def test_a_task_that_was_cancelled_while_it_was_given_back_is_gone():
    scheduler = running("ab")
    submit(scheduler, 1, 2, 3, 4)
    waiting = list(scheduler.vms["a"].tasks)[1]
    scheduler.cancelled(waiting, running=True)

    assert said(scheduler.returned("a", [waiting])) == []
    assert waiting not in scheduler.tasks


# --------------------------------------------------------------------------------------------------- deaths


def test_what_a_lost_vm_had_not_begun_goes_elsewhere_and_the_task_that_ran_is_tried_again():
    scheduler = running("ab")
    submit(scheduler, 1, 2, 3, 4)
    begun, waiting = scheduler.vms["a"].tasks
    tasks = dict(scheduler.tasks)
    scheduler.lost("a", begun)

    assert (tasks[begun].deaths, tasks[begun].attempt) == (1, 2)
    assert (tasks[waiting].deaths, tasks[waiting].attempt) == (0, 1)
    assert is_queued(scheduler, begun) and is_queued(scheduler, waiting)
    assert said(scheduler.started("c")) == []
    assert said(scheduler.readied("c")) == [f"c gets {begun}"]


def test_tasks_go_out_before_a_replacement_is_started():
    """The new VM is idle at once and asks others, which must have been sent by then what is in the books."""
    scheduler = running("ab")
    submit(scheduler, 1, 2)

    assert said(scheduler.lost("b", None)) == ["a gets 2", "start 1"]


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_a_task_is_given_up_when_its_vm_died_once_more_than_it_may(retries):
    scheduler = running("a")
    submit(scheduler, 1, retries=retries)
    for death in range(retries + 1):
        name = next(iter(scheduler.vms))
        todo = said(scheduler.lost(name, 1))
        assert ("1 fails: lost" in todo) == (death == retries)
        assert "start 1" in todo
        scheduler.started(f"replacement {death}")

    assert 1 not in scheduler.tasks


def test_a_task_only_pays_for_deaths_while_it_ran():
    scheduler = running("a")
    submit(scheduler, 1, retries=0)
    for death in range(PATIENCE):
        assert said(scheduler.lost(next(iter(scheduler.vms)), None)) == ["start 1"]
        assert said(scheduler.started(f"replacement {death}")) == [f"replacement {death} gets 1"]


def test_a_task_does_not_pay_for_the_death_of_its_machine():
    scheduler = running("a")
    submit(scheduler, 1, retries=1)
    for death in range(10):
        assert said(scheduler.lost(next(iter(scheduler.vms)), 1, blame=False)) == ["start 1"]
        assert said(scheduler.started(f"replacement {death}")) == [f"replacement {death} gets 1"]


def test_a_task_that_may_run_once_is_not_begun_again_whoever_is_to_blame():
    scheduler = running("a")
    submit(scheduler, 1, retries=0)

    assert "1 fails: lost" in said(scheduler.lost("a", 1, blame=False))


def test_a_chunk_whose_vm_died_is_split_at_the_item_that_ran():
    scheduler = running("a")
    submit(scheduler, 1, size=10)
    task = scheduler.tasks[1]

    assert said(scheduler.lost("a", 1, index=4)) == ["1 is split at 4", "start 1"]
    assert task.deaths == 1 and 1 not in scheduler.tasks


@pytest.mark.parametrize(("blame", "item"), [(True, 0), (False, NOBODY)])
def test_what_is_left_of_a_chunk_is_not_sent_again_as_the_whole(blame, item):
    """What was given back of it runs elsewhere by now."""
    scheduler = running("a")
    submit(scheduler, 1, size=10)
    task = scheduler.tasks[1]
    task.size, task.is_cut = 1, True

    assert said(scheduler.lost("a", 1, blame=blame)) == [f"1 is split at {item}", "start 1"]


def test_a_task_that_nobody_wants_any_more_is_not_tried_again():
    scheduler = running("a")
    submit(scheduler, 1, 2)
    scheduler.cancelled(1, running=True)

    assert but_for_starts(scheduler.lost("a", 1)) == []
    assert said(scheduler.started("b")) == ["b gets 2"]


# ---------------------------------------------------------------------------------------------- cancelling


def test_a_queued_task_is_cancelled_without_further_ado():
    scheduler = running("a")
    submit(scheduler, 1, 2, 3, 4)

    assert scheduler.cancelled(3, running=False) == (True, [])
    assert scheduler.cancelled(3, running=False) == (False, [])
    assert finish(scheduler, "a", 1, 2)[1:] == ["a gets 4"]


def test_a_task_that_was_sent_is_only_stopped_on_request():
    scheduler = running("a")
    submit(scheduler, 1)

    assert scheduler.cancelled(1, running=False) == (False, [])
    stopped, todo = scheduler.cancelled(1, running=True)
    assert stopped and but_for_starts(todo) == ["end a"]
    assert scheduler.cancelled(1, running=True) == (False, [])


def test_a_task_that_waits_on_a_vm_is_asked_back_and_the_vm_ended_only_if_it_has_begun():
    for is_given_back in (True, False):
        scheduler = running("a")
        submit(scheduler, 1, 2)
        stopped, todo = scheduler.cancelled(2, running=True)
        if not is_given_back:
            finish(scheduler, "a", 1)

        assert stopped and said(todo) == ["revoke a"]
        todo = scheduler.returned("a", [2] if is_given_back else [])
        assert but_for_starts(todo) == ([] if is_given_back else ["end a"])


def test_the_rest_of_a_chunk_goes_before_what_was_sent_behind_it():
    """The later one may wait for something that happens in the rest of the chunk."""
    scheduler = running("ab")
    scheduler.submitted(Task(1, 10))
    submit(scheduler, 2, 3, 4)
    assert list(scheduler.vms["a"].tasks) == [1, 4]

    assert "revoke a" in said(scheduler.finished("b", [(2, 1.0), (3, 1.0)]))
    assert said(scheduler.returned("a", [4], parts=[part(5, of=1, offset=1), part(6, of=1, offset=5)])) == [
        "b gets 5 6",
        "a gets 4",
    ]


@pytest.mark.parametrize("where", [None, "a"])
def test_what_several_vms_give_back_goes_out_in_the_order_in_which_it_was_submitted(where):
    """Else an item could wait, on every VM, behind one that waits for it."""
    scheduler = running("a")
    submit(scheduler, 1, 2, 3, 4, where=where)
    for number, of, offset in (7, 2, 2), (8, 2, 1), (9, 1, 3), (10, 1, 1):
        scheduler.resubmitted([part(number, of=of, offset=offset, where=where)])

    assert said(scheduler.returned("a", [2])) == ["a gets 10"]
    assert finish(scheduler, "a", 1, 10, seconds=0.0)[1:] == ["a gets 9 2 8 7 3 4"]


def test_what_comes_back_goes_to_no_vm_that_has_something_later():
    """The later one may wait for it, for ever."""
    scheduler = running("ab")
    submit(scheduler, 1, 2, 3, 4)
    assert list(scheduler.vms["a"].tasks) == [1, 4]
    finish(scheduler, "a", 1, seconds=AHEAD)

    assert said(scheduler.lost("b", 2)) == ["start 1"]
    assert finish(scheduler, "a", 4, seconds=AHEAD / 2)[1:] == ["a gets 2 3"]


def test_a_task_that_may_run_once_never_waits_behind_another():
    """It could begin just when the VM is ended for the other one's sake, and would be lost with it."""
    scheduler = running("ab")

    assert submit(scheduler, 1, 2, 3, 4, retries=0) == ["a gets 1", "b gets 2"]
    assert submit(scheduler, 5) == []
    assert scheduler.cancelled(1, running=True)[0]
    assert list(scheduler.vms["a"].tasks) == [1]
    assert finish(scheduler, "b", 2) == ["results of 2", "b gets 3"]


def test_a_task_that_may_run_again_may_wait_behind_one_that_may_not():
    scheduler = running("a")
    submit(scheduler, 1, retries=0)

    assert submit(scheduler, 2) == ["a gets 2"]
    assert submit(scheduler, 3, retries=0) == []
    assert finish(scheduler, "a", 1) == ["results of 1"]
    assert finish(scheduler, "a", 2) == ["results of 2", "a gets 3"]


def test_an_unknown_or_finished_task_cannot_be_cancelled():
    scheduler = running("a")
    submit(scheduler, 1)
    finish(scheduler, "a", 1)

    assert scheduler.cancelled(1, running=True) == scheduler.cancelled(99, running=False) == (False, [])


def test_a_vm_that_was_asked_to_give_back_gets_no_more_until_it_has_answered():
    """What it gives back would come to stand behind that."""
    scheduler = running("ab")
    submit(scheduler, 1, 2, 3, 4)
    first, waiting = scheduler.vms["a"].tasks
    assert "revoke a" in finish(scheduler, "b", *scheduler.vms["b"].tasks.copy())  # its answer is on its way
    finish(scheduler, "a", first)
    submit(scheduler, 5, 6, 7)
    assert list(scheduler.vms["a"].tasks) == [waiting]
    finish(scheduler, "a", waiting)  # now there is nothing that it could give back
    assert list(scheduler.vms["a"].tasks) == [7]

    assert said(scheduler.returned("a", [])) == []
    assert submit(scheduler, 8) == ["a gets 8"]


# -------------------------------------------------------------------------------------------------- timeouts


def test_a_task_with_a_timeout_is_sent_to_a_vm_that_is_up_and_has_nothing_else():
    scheduler = running("a", ready=False)

    assert submit(scheduler, 1, timeout=5) == []
    assert said(scheduler.readied("a", now=100.0)) == ["a gets 1"]
    assert scheduler.next_deadline() == 105.0
    assert submit(scheduler, 2) == []
    assert finish(scheduler, "a", 1) == ["results of 1", "a gets 2"]
    assert scheduler.next_deadline() is None
    assert submit(scheduler, 3, timeout=5) == []
    assert finish(scheduler, "a", 2, now=200.0) == ["results of 2", "a gets 3"]
    assert scheduler.next_deadline() == 205.0


def test_a_task_whose_time_is_up_fails_and_its_vm_is_ended():
    scheduler = running("abc")
    for number, timeout in {1: 5, 2: 9, 3: 2}.items():
        submit(scheduler, number, timeout=timeout)

    assert scheduler.next_deadline() == 2
    assert said(scheduler.expired(1.9)) == []
    assert but_for_starts(scheduler.expired(5)) == ["1 fails: timeout", "end a", "3 fails: timeout", "end c"]
    assert scheduler.next_deadline() == 9
    assert said(scheduler.expired(5)) == []
    assert but_for_starts(scheduler.lost("a", 1)) == []
    assert finish(scheduler, "c", 3) == ["results of -"]


def test_the_time_of_a_task_that_is_tried_again_begins_anew():
    scheduler = running("a")
    submit(scheduler, 1, timeout=5)
    scheduler.lost("a", 1, now=3.0)
    scheduler.started("b", now=4.0)

    assert scheduler.next_deadline() is None
    assert said(scheduler.readied("b", now=10.0)) == ["b gets 1"]
    assert scheduler.next_deadline() == 15.0


# ---------------------------------------------------------------------------------------- tasks for certain VMs


def test_a_bound_task_goes_to_a_vm_of_its_set_however_many_others_idle():
    assert submit(running("abcdef"), 1, 2, where="e") == ["e gets 1", "e gets 2"]


def test_a_bound_task_waits_for_its_vm_while_others_idle_and_what_comes_later_passes_it():
    scheduler = running("ab")
    before = submit(scheduler, 1, 2, 3, where="b")

    assert before == ["b gets 1", "b gets 2"]
    assert submit(scheduler, 4) == ["a gets 4"]
    assert finish(scheduler, "b", 1, 2) == ["results of 1 2", "b gets 3"]


def test_tasks_bound_to_several_vms_go_to_whichever_has_done_its_own():
    scheduler = running("abc")
    before = submit(scheduler, 1, 2, 3, 4, 5, where="bc")

    assert Counter(text[0] for text in before) == {"b": 2, "c": 2}
    assert finish(scheduler, "c", *scheduler.vms["c"].tasks.copy())[1:] == ["c gets 5"]


@pytest.mark.parametrize("bound", [{2}, {3}, {3, 5}, {4}, {2, 4, 5}, {5, 6}])
def test_a_vm_begins_what_it_may_run_in_the_order_in_which_it_was_submitted_bound_or_not(bound):
    """What came later may wait for something that is done earlier: a consumer, say, for its producers."""
    scheduler = running("a")
    for number in range(1, 7):
        submit(scheduler, number, where="a" if number in bound else None)
    begun = []
    while scheduler.vms["a"].tasks:
        begun.append(next(iter(scheduler.vms["a"].tasks)))
        finish(scheduler, "a", begun[-1])

    assert begun == [1, 2, 3, 4, 5, 6]


def test_a_vm_that_is_not_up_yet_gets_nothing_while_another_one_is():
    """What it has it would keep from the others until its initializer has run."""
    scheduler = running("ab")
    submit(scheduler, 1)
    scheduler.lost("b", None)
    assert said(scheduler.started("c")) == []

    assert submit(scheduler, 2, 3) == ["a gets 2"]
    assert said(scheduler.readied("c")) == ["c gets 3"]


def test_bound_tasks_keep_their_order_each_set_by_itself():
    scheduler = running("a")
    submit(scheduler, *range(1, 8), where="a", retries=0)
    order = [next(iter(scheduler.vms["a"].tasks))]
    for _ in range(6):
        finish(scheduler, "a", order[-1], seconds=0.0)
        order.append(next(iter(scheduler.vms["a"].tasks)))

    assert order == list(range(1, 8))


@pytest.mark.parametrize("where", ["x", "xyz", ""])
def test_a_task_bound_to_vms_none_of_which_lives_fails_at_once(where):
    assert submit(running("ab"), 1, where=where) == ["1 fails: gone"]


def test_a_task_that_waits_for_a_vm_fails_when_that_dies_and_one_that_waits_for_two_does_not():
    scheduler = running("abc")
    submit(scheduler, 1, 2, 3, where="a")
    submit(scheduler, 4, 5, where="b")
    submit(scheduler, 6, where="ab")

    assert sorted(but_for_starts(scheduler.lost("a", None))) == [f"{n} fails: gone" for n in (1, 2, 3)]
    assert sorted(but_for_starts(scheduler.lost("b", None))) == [f"{n} fails: gone" for n in (4, 5, 6)]
    assert not scheduler.tasks


def test_a_bound_task_that_ran_when_its_vm_died_is_tried_again_where_it_may_and_else_fails():
    scheduler = running("abc")
    (sent,) = submit(scheduler, 1, where="ab")
    other = "b" if sent == "a gets 1" else "a"

    assert but_for_starts(scheduler.lost(sent[0], 1)) == [f"{other} gets 1"]
    assert but_for_starts(scheduler.lost(other, 1)) == ["1 fails: lost"]


def test_parts_of_a_bound_chunk_whose_last_vm_has_died_fail():
    """They are submitted again after the death, when nobody would tell them of it any more."""
    scheduler = running("ab")
    submit(scheduler, 1, size=9, where="a")

    assert said(scheduler.lost("a", 1, index=4)) == ["1 is split at 4", "start 1"]
    assert said(scheduler.resubmitted([make(n, where="a") for n in (2, 3)])) == ["2 fails: gone", "3 fails: gone"]


def test_a_bound_task_that_waits_behind_a_slow_one_is_given_to_another_vm_of_its_set():
    scheduler = running("abc")
    before = submit(scheduler, 1, 2, 3, 4, where="ab")
    finish(scheduler, "b", *list(scheduler.vms["b"].tasks)[:1])
    (last,) = scheduler.vms["b"].tasks
    waits = list(scheduler.vms["a"].tasks)[1]

    assert len(before) == 4
    assert finish(scheduler, "b", last) == [f"results of {last}", "revoke a"]
    assert said(scheduler.returned("a", [waits])) == [f"b gets {waits}"]


def test_a_vm_is_not_asked_for_what_no_idle_vm_may_do():
    scheduler = running("abc")
    submit(scheduler, 1, 2, where="a")
    submit(scheduler, 3, 4, 5, 6, where="ab")
    submit(scheduler, 7)

    assert {name: len(vm.tasks) for name, vm in scheduler.vms.items()} == {"a": 2, "b": 2, "c": 1}
    assert finish(scheduler, "c", 7) == ["results of 7"]


def test_a_task_bound_to_one_vm_that_comes_back_goes_there_again_and_nobody_is_asked():
    scheduler = running("ab")
    submit(scheduler, 1, 2, where="a")

    assert said(scheduler.returned("a", [2])) == ["a gets 2"]


def test_a_vm_that_has_given_something_back_gets_what_waits_for_it_alone():
    scheduler = running("ab")
    submit(scheduler, 1, 2, 3, 4)
    submit(scheduler, 5, where="a")
    asked = finish(scheduler, "b", *scheduler.vms["b"].tasks.copy())

    assert asked[-1] == "revoke a"
    assert said(scheduler.returned("a", list(scheduler.vms["a"].tasks)[1:])) == ["b gets 4", "a gets 5"]


def test_a_chunk_that_was_kept_when_its_vm_was_asked_is_not_asked_for_again():
    scheduler = running("ab")
    submit(scheduler, 1, size=9)
    submit(scheduler, 2)
    asked = finish(scheduler, "b", 2)
    answered = said(scheduler.returned("a", []))
    submit(scheduler, 3)

    assert asked == ["results of 2", "revoke a"] and answered == []
    assert finish(scheduler, "b", 3) == ["results of 3"]


def test_a_vm_that_is_to_go_finishes_what_runs_gives_back_the_rest_and_is_not_replaced():
    scheduler = running("ab")
    assert submit(scheduler, 1, 2, 3, 4) == ["a gets 1", "b gets 2", "b gets 3", "a gets 4"]

    assert said(scheduler.drained(["b"], 1)) == ["revoke b"]
    assert said(scheduler.returned("b", [3])) == []
    submit(scheduler, 5)
    assert finish(scheduler, "b", 2) == ["results of 2", "stop b"]
    assert said(scheduler.lost("b", None)) == []
    assert finish(scheduler, "a", 1, 4) == ["results of 1 4", "a gets 3"]


def test_of_a_machine_that_is_to_go_the_vms_that_it_lacks_are_not_started_either():
    scheduler = running("abc", wanted=4)

    assert said(scheduler.drained(["b", "c"], 3)) == ["stop b", "stop c"]
    assert [said(scheduler.lost(name, None)) for name in "bc"] == [[], []]
    assert said(scheduler.lost("a", None)) == ["start 1"]


def test_a_vm_that_is_not_heard_of_gets_nothing_until_it_is_and_keeps_what_it_has():
    scheduler = running("ab")
    submit(scheduler, 1)

    assert said(scheduler.suspected(["a"], True)) == []
    assert submit(scheduler, 2, 3, 4) == ["b gets 2", "b gets 3"]
    assert finish(scheduler, "a", 1) == ["results of 1"]
    assert said(scheduler.suspected(["a"], False)) == ["a gets 4"]


def test_more_vms_are_started_when_more_are_wanted_and_take_part():
    scheduler = running("a")
    submit(scheduler, 1, 2, 3)

    assert said(scheduler.grown(2)) == ["start 2"]
    scheduler.started("b")
    assert said(scheduler.readied("b")) == ["b gets 3"]
    assert said(scheduler.lost("b", None)) == ["start 2"]


@pytest.mark.parametrize("seed", range(40))
def test_questions_and_answers_come_to_an_end_without_any_task_being_done(seed):
    """VMs that give back all but what they have begun: nothing goes to and fro for ever."""
    chance = random.Random(seed)
    names = "abcd"[: chance.randint(2, 4)]
    scheduler = running(names)
    begun, todo, moves = {}, deque(), Counter()

    def carry_out(instructions):
        for instruction in instructions:
            if isinstance(instruction, Send):
                moves["sent"] += len(instruction.tasks)
                begun.setdefault(instruction.vm, instruction.tasks[0].number)
            elif isinstance(instruction, Revoke):
                todo.append(instruction.vm)

    for number in range(1, 20):
        where = chance.choice([None, None, *itertools.combinations(names, 1), *itertools.combinations(names, 2)])
        carry_out(scheduler.submitted(make(number, where, size=chance.choice([1, 1, 4]))))
        if chance.random() < 0.4 and begun:
            name, running_ = begun.popitem()
            carry_out(scheduler.finished(name, [(running_, chance.choice([0.0, LONG]))]))
            if scheduler.vms[name].tasks:
                begun[name] = next(iter(scheduler.vms[name].tasks))
    moves.clear()
    while todo and moves["answers"] < 1000:
        name = todo.popleft()
        moves["answers"] += 1
        carry_out(scheduler.returned(name, [n for n in scheduler.vms[name].tasks if n != begun.get(name)]))

    assert moves["answers"] <= 3 * len(names)
    assert moves["sent"] <= 3 * FEW * len(names)


# --------------------------------------------------------------------------------------------- replacement


def test_a_vm_is_replaced_after_its_lifetime_in_tasks():
    scheduler = running("a", lifetime=3)
    submit(scheduler, 1, 2, 3, 4)

    assert finish(scheduler, "a", 1, 2) == ["results of 1 2", "a gets 3"]
    assert finish(scheduler, "a", 3) == ["results of 3", "stop a", "start 1"]
    assert said(scheduler.started("b")) == ["b gets 4"]
    assert said(scheduler.lost("a", None)) == []
    assert scheduler.lost_vms == 0


def test_tasks_that_were_given_back_do_not_count_for_the_lifetime():
    scheduler = running("a", lifetime=2)
    submit(scheduler, 1, 2, 3)
    scheduler.cancelled(2, running=True)
    scheduler.returned("a", [2])

    assert 3 in scheduler.vms["a"].tasks or "a gets 3" in finish(scheduler, "a", 1)


def test_a_vm_that_has_grown_too_large_is_replaced_when_it_has_nothing_left():
    scheduler = running("ab")
    submit(scheduler, 1)
    busy = said(scheduler.retired("a"))
    idle = said(scheduler.retired("b"))

    assert busy == []
    assert idle == ["stop b", "start 1"]
    scheduler.started("c")
    assert finish(scheduler, "a", 1) == ["results of 1", "stop a", "start 1"]
    assert said(scheduler.retired("a")) == []


# ---------------------------------------------------------------------------------------------------- cost


def lines_run(act):
    """How many lines of the scheduler `act` runs through."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code.co_filename not in OF_THE_SCHEDULER:
            return None
        count += event == "line"
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(old)
    return count


def steady_work(vms, queued):
    """How many lines it takes to submit, finish and send tasks in a cluster of this size."""
    scheduler = running([f"vm{i}" for i in range(vms)])
    submit(scheduler, *range(2 * vms + queued))

    def work():
        for number in range(vms // 2 - 5, vms // 2 + 5):
            vm = scheduler.vms[f"vm{number}"]
            scheduler.finished(vm.name, [(next(iter(vm.tasks)), LONG)])
            scheduler.submitted(Task(10**9 + number))

    return lines_run(work)


def test_the_cost_of_an_event_does_not_grow_with_the_number_of_vms_and_tasks():
    assert steady_work(vms=1000, queued=5000) == steady_work(vms=20, queued=100)


def test_finding_a_vm_with_room_does_not_grow_with_the_number_of_vms():
    def idle_work(vms):
        scheduler = running([f"vm{i}" for i in range(vms)])
        return lines_run(lambda: [submit(scheduler, number) for number in range(10)])

    assert idle_work(1000) == idle_work(20)


def bound_work(vms, queued, of_each):
    """The same when each VM has tasks of its own waiting, or all wait for any of a dozen."""
    scheduler = running([f"vm{i}" for i in range(vms)])
    some = [f"vm{i}" for i in range(vms // 2 - 6, vms // 2 + 6)]
    for number in range(vms if of_each else 12):
        where = [f"vm{number}"] if of_each else some
        submit(scheduler, *range(number * queued, (number + 1) * queued), where=where)

    def work():
        for name in some:
            vm = scheduler.vms[name]
            scheduler.finished(name, [(next(iter(vm.tasks)), LONG)])
            scheduler.submitted(make(10**9 + int(name[2:]), [name] if of_each else some))
            scheduler.returned(name, list(vm.tasks)[1:])

    return lines_run(work)


@pytest.mark.parametrize("of_each", [True, False])
def test_the_cost_of_bound_tasks_does_not_grow_with_the_number_of_vms_and_tasks(of_each):
    assert bound_work(1000, 5, of_each) == bound_work(20, 5, of_each)


def test_the_death_of_a_vm_costs_nothing_for_what_waits_for_others():
    def death(vms):
        scheduler = running([f"vm{i}" for i in range(vms)])
        for number in range(vms):
            submit(scheduler, *range(number * 5, number * 5 + 5), where=[f"vm{number}"])
        return lines_run(lambda: scheduler.waiting.stranded("vm7", scheduler._is_living))

    assert death(1000) == death(20)


# ------------------------------------------------------------------------------------------ random histories


class FarVM:
    """A VM: reads what it was sent some time later, and is heard some time after it has said something."""

    def __init__(self, name):
        self.name = name
        self.inbox, self.outbox = deque(), deque()
        self.queue = deque()  # tasks that it has read and not begun
        self.held = []  # outcomes that are not sent yet
        self.running, self.item, self.end = None, 0, 0
        self.begun = 0
        self.is_ready = self.is_stopping = False
        self.death = None  # (running task, item, whether it is to blame)

    def read(self):
        kind, tasks = self.inbox.popleft()
        if kind == "call":
            self.queue.extend(tasks)
        elif kind == "revoke":
            self.give_back(False)
        else:
            self.is_stopping = True

    def give_back(self, wants_to_retire):
        self.flush()
        numbers = [task.number for task in self.queue]
        self.queue.clear()
        cut = None
        if self.running is not None and self.item + 1 < self.end:
            self.end = self.item + 1
            cut = self.running.number, self.end
        self.outbox.append(("returned", numbers, cut, wants_to_retire))

    def begin(self):
        task = self.queue.popleft()
        if task.retries == 0:
            self.flush()
        self.running, self.item, self.end = task, 0, task.size
        self.begun += 1
        return task

    def step(self, seconds):
        """Do an item of the running task."""
        self.item += 1
        if self.item >= self.end:
            self.held.append((self.running.number, seconds))
            # What may not run again is reported before anything else happens.
            if self.running.retries == 0 or not self.queue:
                self.flush()
            self.running = None

    def flush(self):
        if self.held:
            self.outbox.append(("finished", self.held))
            self.held = []

    def die(self, is_to_blame=True):
        self.death = self.running and self.running.number, self.item, is_to_blame


class Record:
    """What the world knows of a task."""

    def __init__(self, task, deaths=0):
        self.task = task
        self.ends = []
        self.begun = 0
        self.deaths = deaths  # of its VM, by its own doing
        self.is_excused = False  # its machine was lost, and nobody knows whether it had begun


class World:
    """A program, its scheduler and its VMs.  `violations`: promise -> what was seen."""

    def __init__(self, wanted, lifetime):
        self.scheduler = Scheduler(wanted, lifetime)
        self.wanted, self.lifetime = wanted, lifetime
        self.now = 0.0
        self.numbers = itertools.count(1)
        self.vms, self.records = {}, {}
        self.sent = {}  # VM -> tasks that it was sent and has not reported, as far as the driver has heard
        self.used = {}  # VM -> how many tasks of its lifetime
        self.ready, self.leaving, self.condemned, self.retired = (set() for _ in range(4))
        self.draining, self.suspect = set(), set()
        self.asked = Counter()  # VM -> questions that it has not answered
        self.names = []  # of all VMs there ever were
        self.broken = False
        self.violations = {}
        self.seen = set()  # kinds of instructions
        self.happened = self.depth = 0  # things that VMs did; how deep in instructions of instructions
        self.act(self.scheduler.opened())

    def expect(self, is_so, promise, seen=""):
        if not is_so:
            self.violations.setdefault(promise, seen)

    # -- what the scheduler says

    def act(self, todo):
        self.depth += 1  # to start a VM is an event itself
        counts = Counter(map(type, todo))
        few = counts[Revoke] <= 1 and counts[Send] <= len(self.vms) and counts[Start] <= 2
        self.expect(few, "few instructions", f"{said(todo)}")
        for instruction in todo:
            self.seen.add(type(instruction))
            getattr(self, "do_" + type(instruction).__name__.lower())(instruction)
        self.depth -= 1
        if not self.depth:
            self.check()

    def do_send(self, send):
        name = send.vm
        alive = name in self.sent and name not in self.leaving | self.condemned | self.draining | self.suspect
        self.expect(alive, "only to live VMs", f"{name} was sent {send.tasks}")
        if name not in self.sent:
            return
        before = self.sent[name]
        has_timed = any(t.timeout is not None for t in before.values() if not self.records[t.number].ends)
        comes_timed = any(task.timeout is not None for task in send.tasks)
        alone = not has_timed and (not comes_timed or (not before and len(send.tasks) == 1 and name in self.ready))
        self.expect(alone, "a timeout is alone", f"{name} has {list(before)} and gets {send.tasks}")
        for task in send.tasks:
            record = self.records[task.number]
            self.expect(task.where is None or name in task.where, "bound tasks to their VMs", f"{task} to {name}")
            self.expect(not record.ends, "settled once", f"{task} was sent after {record.ends}")
            before[task.number] = task
            self.used[name] += 1
        credit = max(FEW, self.scheduler.vms[name].credit)
        self.expect(len(before) <= min(credit, MOST_CREDIT), "within credit", f"{name}: {len(before)} of {credit}")
        self.vms[name].inbox.append(("call", send.tasks))

    def do_start(self, start):
        self.expect(not self.broken, "staffed", "started a VM after giving up")
        for _ in range(start.vms):
            name = f"vm{next(self.numbers)}"
            self.vms[name] = FarVM(name)
            self.names.append(name)
            self.sent[name], self.used[name] = {}, 0
            self.act(self.scheduler.started(name, self.now))

    def do_stop(self, stop):
        self.leaving.add(stop.vm)
        self.vms[stop.vm].inbox.append(("stop", ()))

    def do_end(self, end):
        self.condemned.add(end.vm)

    def do_revoke(self, revoke):
        self.asked[revoke.vm] += 1
        self.vms[revoke.vm].inbox.append(("revoke", ()))

    def do_resolve(self, resolve):
        for task in resolve.tasks:
            if task is not None:
                self.settle(task, "resolved")

    def do_fail(self, fail):
        record = self.records[fail.task.number]
        if fail.reason == "gone":
            left = [name for name in fail.task.where if name in self.sent and name not in self.leaving | self.condemned]
            self.expect(not left, "gone when none of its VMs is left", f"{fail.task}: {left} live")
        if fail.reason == "lost":
            enough = record.deaths > fail.task.retries
            self.expect(enough, "lost by its own deaths", f"{fail.task}: {record.deaths} of {fail.task.retries}")
        self.settle(fail.task, fail.reason)

    def do_split(self, split):
        task, record = split.task, self.records[split.task.number]
        self.settle(task, "split")
        parts = []
        for index in range(task.size):
            part = self.new_task(1, task.retries, None, record.deaths if index == split.item else 0, task.where)
            if index == split.item:
                part.deaths = task.deaths
                if part.deaths > part.retries:
                    enough = record.deaths > task.retries
                    self.expect(enough, "lost by its own deaths", f"an item of {task}")
                    self.settle(part, "lost")
                    continue
            parts.append(part)
        self.act(self.scheduler.resubmitted(parts, self.now))

    def do_giveup(self, give_up):
        self.broken = True

    def settle(self, task, how):
        record = self.records[task.number]
        self.expect(not record.ends, "settled once", f"{task}: {record.ends}, then {how}")
        record.ends.append(how)

    def new_task(self, size, retries, timeout, deaths=0, where=None):
        task = make(next(self.numbers), where, size=size, retries=retries, timeout=timeout)
        self.records[task.number] = Record(task, deaths)
        return task

    # -- what happens

    def pick(self, choice, vms):
        vms = [vm for vm in self.vms.values() if vms(vm)]
        self.happened += bool(vms)
        return vms[choice % len(vms)] if vms else None

    def submit(self, a, b):
        size = (1, 1, 1, 1, 3, 6)[a % 6]
        timeout = 5.0 if a % 7 == 0 and size == 1 else None
        self.act(self.scheduler.submitted(self.new_task(size, b % 3, timeout), self.now))

    def submit_bound(self, a, b):
        """For one, two or three VMs, which may be dead."""
        size = (1, 1, 1, 4)[a % 4]
        timeout = 5.0 if a % 11 == 0 and size == 1 else None
        where = {self.names[-1 - (a + step) % min(6, len(self.names))] for step in range(b % 3 + 1)}
        self.act(self.scheduler.submitted(self.new_task(size, b % 2, timeout, where=where), self.now))

    def grow(self, a, b):
        if a % 5 == 0 and self.wanted < 6:
            self.wanted += 1
            self.act(self.scheduler.grown(1))

    def up(self, a, b):
        if vm := self.pick(a, lambda vm: not vm.is_ready and not vm.death):
            vm.is_ready = True
            vm.outbox.append(("ready",))

    def fall_ill(self, a, b):
        vm = self.pick(a, lambda vm: not vm.is_ready and not vm.death)
        if vm and b % 4 == 0:
            vm.outbox.append(("unfit",))
            vm.die()

    def read(self, a, b):
        if vm := self.pick(a, lambda vm: vm.inbox and vm.is_ready and not vm.death):
            vm.read()

    def begin(self, a, b):
        if vm := self.pick(a, lambda vm: vm.queue and not vm.running and not vm.death):
            record = self.records[vm.begin().number]
            record.begun += 1
            once = record.task.retries > 0 or record.task.size > 1 or record.begun == 1 or record.is_excused
            self.expect(once, "at most once", f"{record.task} was begun {record.begun} times")
            within = self.lifetime is None or vm.begun <= self.lifetime
            self.expect(within, "within its lifetime", f"{vm.name} began {vm.begun}")

    def step(self, a, b):
        if vm := self.pick(a, lambda vm: vm.running and not vm.death):
            vm.step((0.0, 1e-6, 3e-4, 1.0)[b % 4])

    def flush(self, a, b):
        if vm := self.pick(a, lambda vm: vm.held and not vm.death):
            vm.flush()

    def hear(self, a, b):
        if vm := self.pick(a, lambda vm: vm.outbox):
            self.take(vm)

    def take(self, vm):
        name = vm.name
        kind, *what = vm.outbox.popleft()
        if kind == "ready":
            self.ready.add(name)
            self.act(self.scheduler.readied(name, self.now))
        elif kind == "unfit":
            self.leaving.add(name)
            self.act(self.scheduler.unfit(name))
        elif kind == "finished":
            for number, _ in what[0]:
                self.sent[name].pop(number, None)
            self.act(self.scheduler.finished(name, what[0], self.now))
        else:
            self.take_back(name, *what)

    def take_back(self, name, numbers, cut, wants_to_retire):
        if cut is not None:
            task = self.records[cut[0]].task
            if not self.records[cut[0]].ends and task.sent_to == name:
                rest, task.size = task.size - cut[1], cut[1]
                rest_of_it = self.new_task(rest, task.retries, None, where=task.where)
                self.act(self.scheduler.resubmitted([rest_of_it], self.now))
        was_asked = not wants_to_retire
        self.asked[name] -= was_asked
        for number in numbers:
            if self.sent[name].pop(number, None):
                self.used[name] -= 1
        self.act(self.scheduler.returned(name, numbers, self.now, was_asked))
        if wants_to_retire:
            self.retired.add(name)
            self.act(self.scheduler.retired(name, self.now))

    def kill(self, a, b):
        if vm := self.pick(a, lambda vm: not vm.death):
            self.end(vm)

    def strike(self, a, b):
        """What the scheduler wanted to end is ended."""
        if vm := self.pick(a, lambda vm: vm.name in self.condemned and not vm.death):
            self.end(vm)

    def end(self, vm):
        if vm.running and vm.name not in self.condemned:
            self.records[vm.running.number].deaths += 1
        vm.die()

    def leave(self, a, b):
        if vm := self.pick(a, lambda vm: vm.is_stopping and not vm.queue and not vm.running and not vm.death):
            vm.flush()
            vm.die()

    def report(self, a, b):
        """A death becomes known, after all that was said before it."""
        if vm := self.pick(a, lambda vm: vm.death):
            self.bury(vm, *vm.death)

    def bury(self, vm, number, item, is_to_blame):
        while vm.outbox:
            self.take(vm)
        del self.vms[vm.name], self.sent[vm.name]
        for group in (self.ready, self.leaving, self.condemned, self.retired, self.draining, self.suspect):
            group.discard(vm.name)
        del self.asked[vm.name]
        self.act(self.scheduler.lost(vm.name, number, item, is_to_blame, self.now))

    def lose_machine(self, a, b):
        if a % 5 == 0:
            for vm in list(self.vms.values()):
                for number in self.sent[vm.name]:
                    self.records[number].is_excused = True
            for vm in list(self.vms.values()):
                self.bury(vm, None, 0, False)

    def drain(self, a, b):
        """A VM's machine is to go."""
        names = sorted(self.sent.keys() - self.draining)
        if names and self.wanted > 1 and a % 3 == 0:
            name = names[a % len(names)]
            self.draining.add(name)
            self.wanted -= 1
            self.act(self.scheduler.drained([name], 1, self.now))

    def doubt(self, a, b):
        """A VM's machine is not heard of, or is again."""
        if names := sorted(self.suspect if b % 2 else self.sent.keys()):
            name = names[a % len(names)]
            (self.suspect.discard if b % 2 else self.suspect.add)(name)
            self.act(self.scheduler.suspected([name], not b % 2, self.now))

    def cancel(self, a, b):
        if open_ := [record for record in self.records.values() if not record.ends]:
            record = open_[a % len(open_)]
            stopped, todo = self.scheduler.cancelled(record.task.number, running=b % 2 == 0)
            if stopped:
                self.settle(record.task, "cancelled")
            self.act(todo)

    def pass_time(self, a, b):
        self.now += (0.1, 2.0, 6.0)[a % 3]
        self.act(self.scheduler.expired(self.now))

    def retire(self, a, b):
        if vm := self.pick(a, lambda vm: vm.is_ready and not vm.running and not vm.death and not vm.is_stopping):
            vm.give_back(True)

    # -- promises

    def check(self):
        idle = [
            name
            for name, tasks in self.sent.items()
            if not tasks
            and name in self.ready
            and name not in self.leaving | self.condemned | self.retired | self.draining | self.suspect
            and (self.lifetime is None or self.used[name] < self.lifetime)
        ]
        queued = [r.task for n, r in self.records.items() if not r.ends and is_queued(self.scheduler, n)]
        for name in idle:
            waits = [task for task in queued if task.where is None or name in task.where]
            self.expect(not waits, "none idle while a task is queued", f"{name} is idle, {waits} are queued")
            if not +self.asked:
                self.check_waiting(name)
        stranded = [task for task in queued if task.where is not None and task.where.isdisjoint(self.sent)]
        self.expect(not stranded, "gone when none of its VMs is left", f"{stranded} are queued")

    def check_waiting(self, idle):
        for name, tasks in self.sent.items():
            waiting = [
                number
                for number, task in list(tasks.items())[1:]
                if not self.records[number].ends and (task.where is None or idle in task.where)
            ]
            none = not waiting or name in self.condemned
            self.expect(none, "none idle while a task waits elsewhere", f"{idle} is idle, {waiting} wait on {name}")

    def settle_down(self):
        """Let everything that has begun come to its end, with no more trouble."""
        for name in sorted(self.suspect):
            self.suspect.discard(name)
            self.act(self.scheduler.suspected([name], False, self.now))
        acts = [self.up, self.read, self.begin, self.step, self.flush, self.strike, self.leave, self.hear, self.report]
        happened, most = None, self.happened + 500 + 30 * len(self.records)
        while happened != self.happened and self.happened < most:
            happened = self.happened
            for act in acts:
                for choice in range(len(self.vms)):
                    act(choice, 0)
        unsettled = [record.task for record in self.records.values() if not record.ends]
        self.expect(not unsettled, "settled once", f"never settled: {unsettled}")
        self.expect(not self.scheduler.tasks, "settled once", f"still on record: {self.scheduler.tasks}")
        staying = len(self.sent.keys() - self.leaving - self.draining)
        self.expect(staying == self.wanted or self.broken, "staffed", f"{staying} VMs of {self.wanted}")


EVENTS = {
    # how often: which
    8: ["submit", "read", "begin", "step", "hear"],
    5: ["up", "submit_bound"],
    3: ["report", "strike", "leave", "flush", "cancel"],
    1: ["kill", "pass_time", "retire", "fall_ill", "lose_machine", "grow", "drain", "doubt"],
}
NAMES = [name for weight, names in EVENTS.items() for name in names for _ in range(weight)]
histories = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 41), st.integers(0, 11)), min_size=20, max_size=150
)

PROMISES = [
    "settled once",
    "only to live VMs",
    "none idle while a task is queued",
    "none idle while a task waits elsewhere",
    "within credit",
    "within its lifetime",
    "a timeout is alone",
    "bound tasks to their VMs",
    "gone when none of its VMs is left",
    "few instructions",
    "lost by its own deaths",
    "at most once",
    "staffed",
]


@pytest.mark.parametrize("promise", PROMISES)
@given(wanted=st.integers(1, 4), lifetime=st.sampled_from([None, 1, 3]), history=histories)
@settings(deadline=None, database=None, derandomize=True, max_examples=60)
def test_whatever_happens(promise, wanted, lifetime, history):
    world = World(wanted, lifetime)
    for event, a, b in history:
        getattr(world, event)(a, b)
    world.settle_down()

    assert promise not in world.violations, world.violations[promise]


def long_history(seed):
    """A history that is too long to be shrunk, but comes to places where a short one does not."""
    chance = random.Random(seed)
    world = World(chance.randint(1, 5), chance.choice([None, None, 1, 3]))
    # Now many tasks and few troubles, now the other way round.
    weights = [chance.choice([0.1, 1, 1, 3]) for _ in NAMES]
    for event in chance.choices(NAMES, weights, k=400):
        getattr(world, event)(chance.randrange(42), chance.randrange(12))
    world.settle_down()
    return world


@pytest.fixture(scope="module")
def long_histories():
    """Seed -> what its world has seen."""
    return {seed: long_history(seed) for seed in range(150)}


@pytest.mark.parametrize("promise", PROMISES)
def test_however_long_it_goes_on(promise, long_histories):
    seen = {seed: world.violations[promise] for seed, world in long_histories.items() if promise in world.violations}

    assert not seen


def test_the_histories_bring_about_every_instruction_and_every_end(long_histories):
    """A simulation in which nothing happens would keep all promises."""
    worlds = long_histories.values()
    ends = {end for world in worlds for record in world.records.values() for end in record.ends}

    assert set().union(*(world.seen for world in worlds)) == set(TEXT)
    assert ends == {"resolved", "lost", "gone", "timeout", "broken", "split", "cancelled"}
    assert sum(world.broken for world in worlds) < len(worlds) / 2
    assert sum(len(world.records) for world in worlds) > 5000
