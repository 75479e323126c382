import threading

import pytest

from chosen_one_nb.steps import Cancelled
from chosen_one_nb.widgets.background import BackgroundCache
from chosen_one_nb.widgets.tasks import Busy, Progress, Task, TaskRunner


def test_the_result_of_the_work_is_kept():
    job = Task(lambda job: 6 * 7).start().wait(5)
    assert (job.state, job.result, job.error) == ("done", 42, None)


def test_what_goes_wrong_is_kept_not_lost():
    def work(job):
        raise ValueError("no such cluster")

    job = Task(work).start().wait(5)
    assert job.state == "failed"
    assert str(job.error) == "no such cluster"


def test_cancel_stops_at_the_next_question():
    begun = threading.Event()

    def work(job):
        begun.set()
        while not job.cancelled():
            pass
        raise Cancelled("stopped")

    job = Task(work).start()
    assert begun.wait(5)
    job.cancel()
    assert job.wait(5).state == "cancelled"


def test_every_change_is_told_from_start_to_end():
    told = []
    job = Task(
        lambda job: job.report({"stage": "embed", "done": 1, "total": 1, "unit": "images"}),
        on_change=lambda job: told.append((job.state, job.progress and job.progress.done)),
    )
    job.start().wait(5)
    assert told == [("running", None), ("running", 1), ("done", 1)]


def test_many_reports_are_thinned_but_the_last_one_comes_through():
    told = []
    job = Task(lambda job: None, on_change=lambda job: told.append(job.progress.done))
    for done in range(1000):
        job.report({"stage": "generate", "done": done + 1, "total": 1000, "unit": "images"})
    assert told[-1] == 1000
    assert len(told) < 50


def test_time_left_is_told_from_the_speed_since_the_stage_began():
    assert Progress("generate", 30, 120, "images", seconds=10, first=20).seconds_left == pytest.approx(90)
    assert Progress("generate", 20, 120, "images", seconds=10, first=20).seconds_left is None
    assert Progress("generate", 5, 0).text == ""


def test_a_new_stage_begins_its_own_count():
    job = Task(lambda job: None)
    job.report({"stage": "generate", "done": 64, "total": 64, "unit": "images"})
    job.report({"stage": "refine", "done": 1, "total": 120, "unit": "steps"})
    assert (job.progress.first, job.progress.seconds) == (1, 0)


def test_a_second_job_is_refused_while_one_runs():
    desk, go = TaskRunner(), threading.Event()
    job = desk.start(lambda job: go.wait(5), name="generate")
    with pytest.raises(Busy, match="Still at work"):
        desk.start(lambda job: None)
    go.set()
    job.wait(5)
    assert desk.start(lambda job: "next").wait(5).result == "next"


def test_cancel_without_work_says_so():
    assert TaskRunner().cancel() is False


def test_waiting_ends_in_time():
    go = threading.Event()
    job = Task(lambda job: go.wait(5), name="slow work").start()
    with pytest.raises(TimeoutError, match="slow work is still running"):
        job.wait(0.05)
    go.set()
    job.wait(5)


def test_later_computes_each_value_once():
    calls, ready = [], threading.Event()
    later = BackgroundCache(ready.set)

    def compute():
        calls.append(1)
        return "map"

    assert later.get("a", compute, default="soon") == "soon"
    later.settle(5)
    assert later.get("a", compute) == "map"
    assert (calls, ready.is_set()) == ([1], True)


def test_later_keeps_what_failed_and_goes_on():
    later = BackgroundCache()
    later.get("bad", lambda: 1 / 0)
    later.get("good", lambda: "fine")
    later.settle(5)
    assert isinstance(later.error("bad"), ZeroDivisionError)
    assert later.get("bad", lambda: 1, default="none") == "none"
    assert later.get("good", lambda: None) == "fine"
    assert not later.waiting("bad")
