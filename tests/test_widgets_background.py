import threading

import pytest

from chosen_one_nb.widgets.background import BackgroundCache


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
    assert not cache.waiting("bad")
