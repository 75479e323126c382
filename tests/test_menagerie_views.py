"""Views that extractors learn from, and the objectives of both."""

import pytest
import torch
from helpers.recipe import TINY
from torch.nn import functional as F

from menagerie.training import dino, dinov1
from menagerie.training.context import TrainingError
from menagerie.training.dino import Contrast, check_spread, nt_xent
from menagerie.training.dinov1 import Distillation, check_prototypes
from menagerie.training.recipe import Recipe
from menagerie.training.views import crops, other_medium, other_surroundings, spread


def test_crops_stay_inside_the_image():
    pixels = torch.zeros(64, 3, 16, 16)
    pixels[:, 0] = 1.0
    cropped = crops(pixels, 8, 0.2, 0.6)
    assert cropped.shape == (64, 3, 8, 8)
    assert cropped[:, 0].mean() == pytest.approx(1.0, abs=0.01)


def test_crops_without_reach_are_of_the_middle():
    pixels = torch.zeros(64, 3, 16, 16)
    pixels[:, :, 4:12, 4:12] = 1.0
    torch.manual_seed(0)
    assert crops(pixels, 8, 0.1, 0.15, reach=0.0).mean((1, 2, 3)).min() > 0.9
    assert crops(pixels, 8, 0.1, 0.15).mean((1, 2, 3)).min() < 0.5


def test_other_surroundings_keep_the_middle():
    pixels = torch.linspace(-1, 1, 32)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    torch.manual_seed(0)
    mixed = other_surroundings(pixels, 0.75)
    assert torch.allclose(mixed[:, :, 8, 8], pixels[:, :, 8, 8], atol=0.01)
    changed = (mixed[:, 0, 0, 0] - pixels[:, 0, 0, 0]).abs() > 0.01
    assert 16 < changed.sum() < 32, "about three quarters of them"


def test_two_views_borrow_their_surroundings_from_different_images():
    pixels = torch.arange(32.0)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    torch.manual_seed(0)
    corners = [other_surroundings(pixels, 0.75)[:, 0, 0, 0].round() for _ in range(2)]
    borrowed = (corners[0] != pixels[:, 0, 0, 0]) & (corners[1] != pixels[:, 0, 0, 0])
    assert borrowed.sum() > 8
    assert (corners[0] != corners[1])[borrowed].all()


def test_another_medium_only_fades_or_blurs():
    pixels = torch.zeros(64, 3, 8, 8)
    pixels[:, :, :, 4:] = 0.5
    changed = other_medium(pixels)
    assert ((changed >= pixels - 0.2) & (changed <= 1)).all()
    assert 5 < (changed == pixels).flatten(1).all(1).sum() < 60, "some stay as they are"


def test_spread_of_features_by_hand():
    assert spread(torch.ones(4, 2) / 2**0.5) == 0
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert spread(opposite).item() == pytest.approx((4 / 3) ** 0.5)  # unbiased


def test_contrast_is_low_where_both_views_of_an_image_agree():
    features = F.normalize(torch.eye(8, 16), dim=-1)
    loss, right = nt_xent(features.repeat(2, 1))
    assert (right, loss.item() < 0.02) == (1, True)
    loss, right = nt_xent(torch.cat([features, features.roll(1, 0)]))
    assert (right, loss.item() > 5) == (0, True)


@pytest.fixture
def pixels():
    torch.manual_seed(0)
    return torch.rand(4, 3, 32, 32) * 2 - 1


RECIPE = Recipe().with_words(TINY)


@pytest.mark.parametrize(
    "objective",
    [lambda: Contrast(dino.build(RECIPE), 16), lambda: Distillation(dinov1.build(RECIPE), 16)],
    ids=["contrast", "distillation"],
)
def test_the_student_learns_and_the_teacher_follows(objective, pixels):
    objective = objective()
    before = [p.clone() for p in objective.teacher.parameters()]
    objective(pixels)["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad), "every weight is used"
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert objective.centre.abs().max() > 0
    with torch.no_grad():
        for p in objective.student.parameters():
            p.add_(1.0)
    objective.update(0.0)
    moved = [(now - then).mean().item() for now, then in zip(objective.teacher.parameters(), before, strict=True)]
    assert moved == pytest.approx([0.01] * len(moved), rel=1e-2)


def test_collapse_is_noticed():
    check_spread({"spread": 0.6})
    with pytest.raises(TrainingError, match=r"collapsed \(spread 0.020"):
        check_spread({"spread": 0.02})
    check_prototypes({"prototypes": 40.0, "certain": 0.5})
    for values in ({"prototypes": 1.0, "certain": 1.0}, {"prototypes": 1000.0, "certain": 0.001}):
        with pytest.raises(TrainingError, match="the teacher has collapsed"):
            check_prototypes(values)
