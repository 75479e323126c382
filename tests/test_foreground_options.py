"""Clustering on foregrounds and a loss that looks at foregrounds: two settings that the paper does not have."""

import numpy as np
import pytest
import torch

from chosen_one_nb.run.node import compared
from chosen_one_nb.run.run import Run, RunError
from chosen_one_nb.settings import Settings, settings_help
from chosen_one_nb.widgets.map_panel import Layouts
from chosen_one_nb.widgets.tasks import BackgroundCache

PROMPT = "a sticker of a fox"


def test_the_papers_preset_has_neither_and_both_are_explained():
    settings = Settings.preset("paper")
    assert (settings.cluster_on, settings.scene_weight) == ("image", 1.0)
    told = {row["name"]: row for row in settings_help()}
    assert told["cluster_on"]["allowed"] == ("image", "foreground")
    assert told["scene_weight"]["symbol"] == "M"
    assert all(told[name]["source"] for name in ("cluster_on", "scene_weight"))


@pytest.fixture
def run(models, quick, tmp_path):
    with Run.start(PROMPT, models, quick.replace(n_images=6), tmp_path / "run") as run:
        while run.next_stage != "choose":
            run.step()
        yield run


def test_a_branch_clusters_the_same_gallery_on_its_foregrounds(run):
    assert run.current.embedding.segmentation is None  # nobody asked
    branch = run.branch("0", cluster_on="foreground")
    while run.next_stage != "choose":
        run.step()
    assert branch.gallery_of == "0"
    assert branch.embedding.segmentation.masks.shape[0] == 6
    assert np.array_equal(branch.embedding.clustered_on, branch.embedding.segmentation.foreground)
    assert np.array_equal(run.node("0").embedding.clustered_on, run.node("0").embedding.features)
    assert len(run.selection.recluster(2).sizes) == 2
    assert branch.embedding.clip_alone[0].shape == run.root.embedding.clip.shape


def test_galleries_are_compared_by_foregrounds_where_all_have_them(run):
    images = compared([run.root])["0"]
    branch = run.branch("0", cluster_on="foreground")
    while run.next_stage != "choose":
        run.step()
    assert np.allclose(compared([branch])["0"], branch.embedding.segmentation.foreground)
    assert np.array_equal(compared([run.root, branch])["0"], images), "not mixed with whole images"


@pytest.mark.filterwarnings("ignore:.*d_min-c:RuntimeWarning")
def test_the_map_says_and_shows_what_is_compared(run):
    layouts = Layouts(BackgroundCache())
    images = layouts.get([run.root], "pca")
    branch = run.branch("0", cluster_on="foreground")
    while run.next_stage != "choose":
        run.step()
    foreground = layouts.get([branch], "pca")
    assert ("foregrounds alone" in foreground.words, "foregrounds alone" in images.words) == (True, False)
    assert (images.foreground, foreground.foreground) == (False, True)
    assert not np.allclose(images.projection.of("0"), foreground.projection.of("0"))


@pytest.mark.filterwarnings("ignore:.*d_min-c:RuntimeWarning")
def test_foregrounds_are_looked_for_before_the_check(models, quick, tmp_path):
    with Run.start(PROMPT, models, quick.replace(n_images=6, cluster_on="foreground"), tmp_path / "foregrounds") as run:
        while run.next_stage != "cluster":
            assert run.root.embedding is None or not run.root.embedding.uses_foreground
            run.step()
        assert run.root.embedding.uses_foreground


@pytest.mark.filterwarnings("ignore:.*d_min-c:RuntimeWarning")
def test_a_branch_refines_on_foregrounds_alone(run):
    run.selection.choose(images=[0, 1])
    run.step()
    plain = run.current.theta
    run.branch("0", scene_weight=0.0)
    while run.next_stage != "choose":
        run.step()
    run.selection.choose(images=[0, 1])
    run.step()
    name = next(name for name in plain.lora if "lora_B" in name)
    assert not torch.equal(run.current.theta.lora[name], plain.lora[name])


def test_foregrounds_are_kept_and_read_back(run, models):
    made = run.attributes.segment("0")
    run.close()
    again = Run.open(run.folder, models, read_only=True).root.embedding.segmentation
    assert np.array_equal(made.masks, again.masks)
    assert np.array_equal(made.foreground, again.foreground)
    assert made.threshold == again.threshold


def test_an_extractor_without_patches_says_so(run, models, monkeypatch):
    from chosen_one_nb.models.load import Features

    class Blind:
        name = "blind"

        def __call__(self, images, **more):
            return Features(run.root.embedding.features, None, (0, 0))

    monkeypatch.setattr(models, "extractor", Blind())
    assert "gives no patch tokens" in run.attributes.segment().reason
    assert "gives no patch tokens" in Run.open(run.folder).root.embedding.segmentation.reason
    run.branch("0", cluster_on="foreground")
    run.step()
    with pytest.raises(RunError, match="Set it to 'image'"):
        run.step()
