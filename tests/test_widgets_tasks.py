import threading

import pytest

from chosen_one_nb.steps import Cancelled
from chosen_one_nb.widgets.tasks import BackgroundCache, Busy, Progress, Task, TaskRunner


def test_work_that_ends_is_done():
    done = []
    task = Task(done.append).start().wait(5)
    assert (done, task.state, task.error) == ([task], "done", None)


def test_what_goes_wrong_is_kept_not_lost():
    def work(task):
        raise ValueError("no such cluster")

    task = Task(work).start().wait(5)
    assert task.state == "failed"
    assert str(task.error) == "no such cluster"


def test_cancel_stops_at_the_next_question():
    begun = threading.Event()

    def work(task):
        begun.set()
        while not task.stop.is_set():
            pass
        raise Cancelled("stopped")

    task = Task(work).start()
    assert begun.wait(5)
    task.stop.set()
    assert task.wait(5).state == "cancelled"


def test_every_change_is_told_from_start_to_end():
    told = []
    task = Task(
        lambda task: task.report({"stage": "embed", "done": 1, "total": 1, "unit": "images"}),
        on_change=lambda task: told.append((task.state, task.progress and task.progress.done)),
    )
    task.start().wait(5)
    assert told == [("running", None), ("running", 1), ("done", 1)]


def test_many_reports_are_thinned_but_the_last_one_comes_through():
    told = []
    task = Task(lambda task: None, on_change=lambda task: told.append(task.progress.done))
    for done in range(1000):
        task.report({"stage": "generate", "done": done + 1, "total": 1000, "unit": "images"})
    assert told[-1] == 1000
    assert len(told) < 50


def test_time_left_is_told_from_the_speed_since_the_stage_began():
    assert Progress("generate", 30, 120, "images", seconds=10, first=20).text == "30/120 images · 01:30 left"
    assert Progress("generate", 20, 120, "images", seconds=10, first=20).text == "20/120 images"
    assert Progress("generate", 5, 0).text == ""


def test_a_new_stage_begins_its_own_count():
    task = Task(lambda task: None)
    task.report({"stage": "generate", "done": 64, "total": 64, "unit": "images"})
    task.report({"stage": "refine", "done": 1, "total": 120, "unit": "steps"})
    assert (task.progress.first, task.progress.seconds) == (1, 0)


def test_a_second_job_is_refused_while_one_runs():
    runner, go = TaskRunner(), threading.Event()
    task = runner.start(lambda task: go.wait(5), name="generate")
    with pytest.raises(Busy, match="Still at work"):
        runner.start(lambda task: None)
    go.set()
    task.wait(5)
    assert runner.start(lambda task: None).wait(5).state == "done"


def test_waiting_ends_in_time():
    go = threading.Event()
    task = Task(lambda task: go.wait(5), name="slow work").start()
    with pytest.raises(TimeoutError, match="slow work is still running"):
        task.wait(0.05)
    go.set()
    task.wait(5)


# --- the cache of values ---------------------------------------------------------------------------------------


def test_a_closed_cache_has_no_thread_and_drops_what_has_not_begun():
    begun, go = threading.Event(), threading.Event()
    cache = BackgroundCache()
    cache.get("first", lambda: (begun.set(), go.wait(5)))
    cache.get("second", lambda: 2)
    assert begun.wait(5)
    closing = threading.Thread(target=cache.close)
    closing.start()
    go.set()
    closing.join(5)
    assert not closing.is_alive()
    assert cache.get("second", lambda: 2) is None


def test_what_is_asked_for_while_held_begins_afterwards():
    calls, cache = [], BackgroundCache()
    with cache.held():
        cache.get("map", lambda: calls.append(1))
        with pytest.raises(TimeoutError, match="map"):
            cache.settle(0.05)
        assert calls == []
    cache.settle(5)
    assert calls == [1]


def test_the_cache_computes_each_value_once():
    calls, ready = [], threading.Event()
    cache = BackgroundCache(ready.set)

    def compute():
        calls.append(1)
        return "map"

    assert cache.get("a", compute, default="soon") == "soon"
    cache.settle(5)
    assert cache.get("a", compute) == "map"
    assert (calls, ready.is_set()) == ([1], True)


def test_the_cache_keeps_what_failed_and_goes_on():
    cache = BackgroundCache()
    cache.get("bad", lambda: 1 / 0)
    cache.get("good", lambda: "fine")
    cache.settle(5)
    assert isinstance(cache.error("bad"), ZeroDivisionError)
    assert cache.get("bad", lambda: 1, default="none") == "none"
    assert cache.get("good", lambda: None) == "fine"
