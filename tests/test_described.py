"""What the chosen images show beside the character goes into their captions in training."""

import dataclasses

import pytest

from chosen_one_nb.run.run import Run, RunError


def test_a_run_describes_the_chosen_images(models, quick, tmp_path):
    settings = quick.replace(n_images=6, describe_scene=True)
    with Run.start("a sticker of a fox", models, settings, tmp_path / "run") as run:
        run.next_iteration()
        captions = run.root.theta.provenance["captions"]
    assert len(captions) == len(run.root.decision.images)
    assert all(caption.startswith("a sticker of a fox <v>") for caption in captions)


def test_images_of_the_first_gallery_are_described_too(models, quick, tmp_path, monkeypatch):
    from chosen_one_nb.steps import refine as step

    heard = []

    def listening(models, data, *given, real=step.refine, **more):
        heard.append(data)
        return real(models, data, *given, **more)

    monkeypatch.setattr(step, "refine", listening)
    settings = quick.replace(n_images=6, describe_scene=True, prior_share=0.5)
    with Run.start("a sticker of a fox", models, settings, tmp_path / "run") as run:
        run.next_iteration()
        chosen = list(run.root.decision.images)
    [data] = heard
    assert len(data.prior.descriptions) == 6
    assert [data.prior.descriptions[i] for i in chosen] == data.descriptions


def test_without_clip_it_says_what_to_do(models, quick, tmp_path):
    blind = dataclasses.replace(models, clip=None)
    settings = quick.replace(n_images=6, describe_scene=True)
    with (
        Run.start("a fox", blind, settings, tmp_path / "run") as run,
        pytest.raises(RunError, match="describe_scene: expected models with CLIP"),
    ):
        run.next_iteration()
