"""Masks against outlines: on shapes that can be counted, and the stored sample as it lies there."""

import json

import numpy as np
import pytest

from chosen_one_nb.analysis.segmentation import Segmentation
from menagerie.silhouettes import best_constant, inside, overlap, read_outlined
from menagerie.spurious import mask_rows


def square(top, left, size=8, side=4):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_pixel_counts_from_half_on():
    assert inside([[0.4, 0], [2.6, 0], [2.6, 1], [0.4, 1]], (4, 1)).tolist() == [[True, True, True, False]]
    assert inside([[0.6, 0], [2.4, 0], [2.4, 1], [0.6, 1]], (4, 1)).tolist() == [[False, True, False, False]]


def test_overlap_by_hand():
    masks = np.stack([square(0, 0), square(0, 2), square(4, 4)])
    assert overlap(masks, np.stack([square(0, 0)] * 3)) == pytest.approx([1, 8 / 24, 0])
    nothing = np.zeros((1, 8, 8), bool)
    assert overlap(nothing, nothing) == 1


def test_the_best_silhouette_of_figures_that_do_not_move_is_theirs():
    assert best_constant(np.stack([square(2, 2)] * 5)) == 1


def test_the_best_silhouette_of_two_apart_by_hand():
    """All of both: 16 of 32 pixels are right each time; what both have: none."""
    assert best_constant(np.stack([square(0, 0), square(4, 4)])) == pytest.approx(0.5)
    assert best_constant(np.stack([square(0, 0), square(0, 2)])) == pytest.approx(2 / 3)


def test_the_stored_sample(request):
    folder = request.config.rootpath / "data/silhouettes"
    drawn = read_outlined(folder)
    side = drawn.images[0].width
    assert drawn.masks.shape == (16, side, side)
    assert all(image.size == (side, side) for image in drawn.images)
    assert (drawn.masks.mean(axis=(1, 2)) > 0.2).all()
    assert (drawn.masks.mean(axis=(1, 2)) < 0.8).all()
    entries = json.loads((folder / "outlines.json").read_text())["images"]
    assert {entry["file"] for entry in entries} == {path.name for path in folder.glob("*.png")}
    assert all(0 <= number <= side for entry in entries for point in entry["outline"] for number in point)


def test_the_rows_of_the_score():
    """Figures found exactly, in two places: whoever never looks is right on half."""
    masks = np.stack([square(0, 0), square(4, 4)])
    found = Segmentation(masks, np.where(masks, 1.0, -1.0), 0.0, np.zeros((2, 3)), np.zeros((2, 3)), 1.0)
    (_, figure, exact), (_, _, constant) = mask_rows(found, masks, "two squares")
    assert figure.endswith("mean IoU on two squares")
    assert (exact, constant) == (1, pytest.approx(0.5))
