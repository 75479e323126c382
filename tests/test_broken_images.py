"""Images that hold NaN or infinity are told where they arise, and never chosen, learned from or judged."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import fakes, runs

from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.models.features import Features
from chosen_one_nb.run.run import ChoiceError, Run, RunError
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import NumericalError
from chosen_one_nb.steps.cluster import cluster, selection_frequency
from chosen_one_nb.steps.embed import embed
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.latents import decode, encode

pytestmark = runs.SMALL_CLUSTERS
BROKEN = [1, 2, 6]


def overflowing(models: Any, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Let the VAE give NaN for every so many images, as SDXL's does in half precision."""
    inner, number = models.pipeline.vae.decode, count(1)

    def decoded(code: torch.Tensor, **more: Any) -> tuple[torch.Tensor]:
        pixels = inner(code, **more)[0].clone()
        for image in pixels:
            if next(number) % every == 0:
                image[0, 0, 0] = float("nan")
        return (pixels,)

    monkeypatch.setattr(models.pipeline.vae, "decode", decoded)


def test_decode_tells_which_images_are_broken_and_where_it_arose(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = decode(models, latents)
    overflowing(models, monkeypatch, every=3)
    latents[3] = float("inf")
    found = decode(models, latents)
    assert [image.info.get("broken") for image in found] == [None, None, "pixels", "latents", None, "pixels"]
    assert [found[i].tobytes() == plain[i].tobytes() for i in range(6)] == [True, True, False, False, True, False]


def test_a_gallery_tells_of_a_unet_that_gives_nan(models: Any, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = models.pipeline.unet.forward
    monkeypatch.setattr(models.pipeline.unet, "forward", lambda *a, **b: (inner(*a, **b)[0] * float("nan"),))
    assert generate(models, SamplingRequest("a fox", [1, 2], quick)).broken == {0: "latents", 1: "latents"}


def test_broken_images_make_a_cluster_that_is_never_kept() -> None:
    points = np.random.default_rng(0).normal(size=(12, 3))
    points[[2, 5, 7, 8]] = 0.0  # as cohesive as can be
    settings = Settings(feature_space="raw", n_images=12, target_cluster_size=4, min_cluster_size=2)
    found = cluster(points, settings, broken=[2, 5, 7, 8])
    nothing = found.labels[2]
    assert found.members(nothing).tolist() == [2, 5, 7, 8]
    assert not found.kept[nothing]
    assert f"Cluster {nothing} is of broken images, never learned from." in found.reason
    alone = cluster(np.delete(points, [2, 5, 7, 8], axis=0), settings)
    assert sorted(np.delete(found.sizes, nothing)) == sorted(alone.sizes)  # the others are as without them
    frequency = selection_frequency(points, settings, clusters=found, broken=[2, 5, 7, 8], resamples=9)
    assert frequency[nothing] == 0


def some_broken(monkeypatch: pytest.MonkeyPatch, broken: list[int], iteration: int = 0) -> None:
    """Let the fake steps draw some images of an iteration black and say so."""
    import chosen_one_nb.steps.generate

    def drawn(models: Any, request: Any, callbacks: Any = None, *, on_batch: Any = None) -> Any:
        every = run_seeds(iteration)

        def spoiled(images: Any, part: Any) -> None:
            for image, seed in zip(part.images, part.seeds, strict=True):
                if int(seed) in every and every.index(int(seed)) in broken:
                    image.paste((0, 0, 0), (0, 0, *image.size))
                    image.info["broken"] = "pixels"
            on_batch(images, part)

        return fakes.generate(models, request, on_batch=spoiled)

    monkeypatch.setattr(chosen_one_nb.steps.generate, "generate", drawn)


def run_seeds(iteration: int) -> list[int]:
    from chosen_one_nb.steps.gallery import image_seeds

    return [int(seed) for seed in image_seeds(runs.settings(), iteration)]


@pytest.fixture
def spoiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run whose first gallery has three black images, at its choice."""
    fakes.install(monkeypatch)
    some_broken(monkeypatch, BROKEN)
    with Run.start(runs.PROMPT, fakes.fake_models(), runs.settings(prior_share=0.5), tmp_path / "run") as run:
        with pytest.warns(RuntimeWarning, match=r"images 1, 2, 6: NaN or infinite pixels, the VAE made them so"):
            run.step()
        while run.next_stage != "choose":
            run.step()
        yield run


def test_broken_images_are_left_out_of_a_run(spoiled: Run) -> None:
    node, others = spoiled.root, [0, 3, 4, 5, 7, 8]
    assert node.intact == others
    clusters = node.clusters
    assert clusters.members(clusters.labels[1]).tolist() == BROKEN
    assert not clusters.kept[clusters.labels[1]]
    assert clusters.proposed != clusters.labels[1]
    for choice in ({"cluster": clusters.labels[1]}, {"images": [0, 6]}):
        with pytest.raises(ChoiceError, match=r"Images \[.*6\] are broken"):
            spoiled.selection.choose(**choice)
    with pytest.raises(ChoiceError, match="are broken"):
        spoiled.selection.merge(int(clusters.labels[0]), int(clusters.labels[1]))
    from chosen_one_nb.steps.converge import mean_pairwise_distance
    from chosen_one_nb.steps.embed import in_space

    features = in_space(node.embedding.features[others], node.settings)
    assert node.check.convergence.distance == mean_pairwise_distance(features)
    spoiled.selection.choose(images=[0, 3])
    spoiled.step()
    assert [image.info["seed"] for image in spoiled.models.refined[0]["data"].prior.images] == [
        str(node.seeds[i]) for i in others
    ]


def test_broken_images_count_in_no_statement_about_the_others(spoiled: Run) -> None:
    from chosen_one_nb.widgets.cards import compute_evidence, describe_clusters

    node, others = spoiled.root, [0, 3, 4, 5, 7, 8]
    nothing = node.clusters.labels[1]
    found = compute_evidence(node.embedding.clustered_on, node.clusters, node.settings, node.broken)
    assert np.flatnonzero(np.isnan(found.chance)).tolist() == [nothing]
    alone = cluster(node.embedding.clustered_on[others], node.settings)
    without = compute_evidence(node.embedding.clustered_on[others], alone, node.settings)
    kept = np.arange(node.clusters.k) != nothing
    np.testing.assert_allclose(sorted(found.silhouette[kept]), sorted(without.silhouette))
    np.testing.assert_allclose(sorted(found.chance[kept]), sorted(without.chance))
    cards = describe_clusters(node.clusters, node.settings, found)
    assert not [value for card in cards for value in card["facts"].values() if "nan" in value]
    from chosen_one_nb.analysis.statistics import identity_consistency

    identity = spoiled.tables.scores(node).loc["identity (features, in the loop)", "value"]
    assert identity == pytest.approx(identity_consistency(node.embedding.features[others]).value)


def test_a_run_opened_again_knows_its_broken_images(spoiled: Run) -> None:
    spoiled.close()
    again = Run.open(spoiled.folder, read_only=True)
    assert again.root.broken == dict.fromkeys(BROKEN, "pixels")
    assert [i for i, image in enumerate(again.root.images) if "broken" in image.info] == BROKEN


def test_a_gallery_done_again_draws_its_broken_images_anew(spoiled: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    some_broken(monkeypatch, [])
    spoiled.models.drawn.clear()
    spoiled.redo_stage("generate", "0")
    assert spoiled.root.broken == {}
    assert sum(n for _, n in spoiled.models.drawn) == 8  # the two blocks that hold them
    assert spoiled.next_stage == "embed"  # what came of the black ones is dropped


def test_too_few_whole_images_stop_the_run_and_its_advice_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.install(monkeypatch)
    some_broken(monkeypatch, list(range(8)))
    with Run.start(runs.PROMPT, fakes.fake_models(), runs.settings(), tmp_path / "run") as run:
        for _ in range(2):
            with pytest.raises(RunError, match=r"8 of 9 images are broken.*float32.*guidance_scale"):
                run.step()
        some_broken(monkeypatch, [])  # as other models would
        assert run.next_iteration().state == "unfinished"
        assert run.root.broken == {}


def test_features_codes_and_weights_that_are_no_numbers_are_told(models: Any, images: Any, quick: Any) -> None:
    class Blind:
        name = "blind"

        def __call__(self, images: Any, **more: Any) -> Features:
            return Features(np.array([[0.0], [np.nan]] * 4), None, (1, 1))

    with pytest.raises(
        NumericalError, match=r"extractor blind, got NaN or infinity for images \[1, 3, 5, 7\].*float32"
    ):
        embed(type("Models", (), {"extractor": Blind()}), images, quick)
    weight = models.pipeline.vae.quant_conv.weight
    before = weight.detach().clone()
    try:
        weight.data[:] = float("nan")
        with pytest.raises(NumericalError, match=r"latents of images \[0, 1\].*float32"):
            encode(models, images[:2], 32)
    finally:
        weight.data[:] = before
    with pytest.raises(CharacterError, match=r"clip_l: expected finite numbers, got NaN or infinity"):
        Character({}, {"clip_l": torch.tensor([[float("nan")]])}, "<v>", "a <v>", 1, 1.0)
