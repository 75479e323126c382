"""Images drawn to look at a character."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import runs

from chosen_one_nb.run import store
from chosen_one_nb.run.run import CONTEXTS, Run, RunError

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run = runs.quick_steps, runs.models, runs.run


def test_the_probe_is_the_same_seeds_for_every_theta_and_kept(run: Run, models: Any):
    base = run.samples.probe()
    run.next_iteration()
    after, half = run.samples.probe(), run.samples.probe(strength=0.5)
    assert len(base) == len(after) == 8
    assert (run.folder / "probe/base/plain/000.png").exists()
    assert (run.folder / "probe/0@0.5/plain/000.png").exists()
    seeds = [store.read_image(run.folder / f"probe/{name}/plain/003.png").info["seed"] for name in ("base", "0")]
    assert seeds[0] == seeds[1]
    models.drawn.clear()
    assert [image.tobytes() for image in run.samples.probe()] == [image.tobytes() for image in after]
    assert [image.tobytes() for image in run.samples.probe(strength=0.5)] == [image.tobytes() for image in half]
    assert models.drawn == []


def test_contexts_are_drawn_with_the_character_and_kept(run: Run, models: Any):
    run.next_iteration()
    models.drawn.clear()
    found = run.samples.contexts(seeds=2)
    assert list(found) == list(CONTEXTS)
    assert all(len(images) == 2 for images in found.values())
    assert models.drawn[0] == ("a sticker of a fox <v> at the beach", 2)
    assert list(run.samples.drawn_contexts()) == list(CONTEXTS)
    models.drawn.clear()
    run.samples.contexts(seeds=2)
    assert models.drawn == []
    run.samples.contexts(contexts=["in the snow"], seeds=1, base=True)
    assert models.drawn == [("a sticker of a fox in the snow", 1)]


def test_a_context_drawn_with_another_weight_stands_beside_the_usual_one(run: Run, models: Any):
    run.next_iteration()
    run.samples.contexts(contexts=["in the snow"], seeds=2)
    models.drawn.clear()
    events: list[dict] = []
    run.samples.contexts(contexts=["in the snow"], seeds=2, weight=1, on_progress=events.append)
    assert len(models.drawn) == 1
    assert events[-1]["stage"] == "contexts"
    models.drawn.clear()
    run.samples.contexts(contexts=["in the snow"], seeds=2)
    run.samples.contexts(contexts=["in the snow"], seeds=2, weight=1)
    assert models.drawn == []
    assert len(run.samples.drawn_contexts()["in the snow"]) == 2


def test_progress_counts_over_all_contexts(run: Run):
    events = []
    run.samples.contexts(contexts=["here", "there"], seeds=3, on_progress=events.append)
    assert [event["done"] for event in events if event["stage"] == "contexts"] == sorted(
        event["done"] for event in events
    )
    assert (events[-1]["done"], events[-1]["total"]) == (6, 6)


def test_contexts_are_scored(run: Run):
    run.next_iteration()
    scores = run.samples.context_scores(contexts=["here", "there"], seeds=3)
    assert scores["n"].tolist() == [6, 6, 6]
    assert (scores["low"] <= scores["value"]).all()
    assert len(run.samples.context_scores(contexts=["here"], seeds=1, base=True)) == 3


def test_what_is_drawn_can_be_seen_during_work_but_nothing_else_drawn(run: Run):
    run.next_iteration()
    drawn, told = run.samples.contexts(contexts=["here"], seeds=1), []

    def look(event: dict[str, Any]) -> None:
        if not told:
            told.append(run.samples.contexts(contexts=["here"], seeds=1))
            with pytest.raises(RunError, match="at work"):
                run.samples.contexts(contexts=["there"], seeds=1)

    run.step(on_progress=look)
    assert told[0]["here"][0].tobytes() == drawn["here"][0].tobytes()


def test_the_contexts_are_those_the_menagerie_can_judge():
    from menagerie.world import CONTEXTS as JUDGED

    assert [text for text, _ in JUDGED] == list(CONTEXTS)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "only looked at"])
def test_images_carry_how_they_were_made(run: Run, models: Any, kept: bool):
    run.next_iteration()
    seen = run if kept else Run.open(run.folder, models, read_only=True)
    [image] = seen.samples.contexts(contexts=["in the snow"], seeds=1)["in the snow"]
    assert image.info["prompt"] == "a sticker of a fox <v> in the snow"
    assert image.info["context"] == "in the snow"
    assert image.info["theta"] == run.node("0").theta_digest
    assert (seen.folder / "contexts").exists() == kept
    assert seen.samples.drawn_contexts()["in the snow"][0].info["seed"] == image.info["seed"]


def test_a_damaged_sample_is_named_and_made_again_as_its_error_says(run: Run, models: Any):
    run.next_iteration()
    run.samples.contexts(seeds=1)
    run.samples.probe()
    damaged = [run.folder / "probe/0/plain/003.png", next(run.folder.glob("contexts/0/*/000.png"))]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:99])
    for read, path in zip((run.samples.drawn_probe, run.samples.drawn_contexts), damaged, strict=True):
        with pytest.raises(store.StoreError, match=rf"{path.name} is damaged.*Delete it: .*draws it again"):
            read()
        path.unlink()
        read()
    models.drawn.clear()
    run.samples.contexts(seeds=1)
    run.samples.probe()
    assert [n for _, n in models.drawn] == [1, 4]  # the one image, and the block that holds the other
    assert len(run.samples.drawn_probe()) == 8
    assert len(run.samples.drawn_contexts()) == len(CONTEXTS)
