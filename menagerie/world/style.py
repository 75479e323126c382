"""How place and figure become one image in each style; textures come from the truth's seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageFilter

PAPER = np.array([250, 244, 230], dtype=np.float32)


def compose(
    truth: dict[str, Any], place: Image.Image, figure: Image.Image, size: int
) -> tuple[Image.Image, Image.Image]:
    """Lay the figure over the place and finish in the truth's style.

    Parameters
    ----------
    truth : dict
        A checked truth.
    place : PIL.Image.Image
        RGB, larger than `size` by a whole factor.
    figure : PIL.Image.Image
        RGBA, as large as `place`.
    size : int
        Width and height of the result in pixels.

    Returns
    -------
    tuple of PIL.Image.Image
        The RGB image and the figure's coverage ("L"), both `size` x `size`.
    """
    factor = place.width // size
    edge = _sticker_edge(figure, factor) if truth["style"] == "sticker" else None
    back, front = place.reduce(factor), figure.reduce(factor)
    alpha = front.getchannel("A")
    if edge is not None:
        _lay_edge(back, edge)
    layers = _FINISH[truth["style"]](_floats(back), _floats(front.convert("RGB")), alpha, truth["seed"])
    cover = np.asarray(alpha, dtype=np.float32)[..., None] / 255
    pixels = layers[0] * (1 - cover) + layers[1] * cover
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)), alpha


def _floats(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def _blur(image: Image.Image, share: float) -> Image.Image:
    """Blur by a share of the image's width."""
    return image.filter(ImageFilter.GaussianBlur(share * image.width))


def _moved(image: Image.Image, right: int, down: int) -> Image.Image:
    """Shift by whole pixels; what comes in is empty."""
    moved = Image.new(image.mode, image.size)
    moved.paste(image, (right, down))
    return moved


def _noise(seed: int, cells: int, size: int) -> np.ndarray:
    """Smooth noise in [-1, 1], shape (size, size, 1), the same at every size."""
    grid = np.random.default_rng(seed).uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))[..., None]


# --- sticker ----------------------------------------------------------------------------------------------


def _sticker_edge(figure: Image.Image, factor: int) -> Image.Image:
    """The figure's silhouette grown by some 3 % of the width, reduced to the image's size."""
    alpha = figure.getchannel("A")
    alpha = alpha.reduce(2) if factor % 2 == 0 else alpha
    grown = _blur(alpha, 0.022).point(lambda v: 255 if v > 12 else 0)
    return grown.reduce(max(1, factor // 2) if factor % 2 == 0 else factor)


def _lay_edge(back: Image.Image, edge: Image.Image) -> None:
    """Shadow, then white edge."""
    shadow = _moved(_blur(edge, 0.012), 0, max(1, round(0.012 * back.width)))
    back.paste((70, 70, 90), mask=shadow.point(lambda v: v * 0.55))
    back.paste((255, 255, 255), mask=edge)


def _flat(back: np.ndarray, front: np.ndarray, alpha: Image.Image, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return back, front


# --- the others -------------------------------------------------------------------------------------------


def _drawing(back: np.ndarray, front: np.ndarray, alpha: Image.Image, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pencil on paper: pale, hatched."""
    size = len(back)
    x, y = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
    hatch = np.sin((x + y) * 2 * np.pi * 9)[..., None]
    grain = _noise(seed, 16, size)
    paler = back + (PAPER - back) * (0.50 + 0.06 * hatch + 0.06 * grain)
    coloured = front + (PAPER - front) * np.clip(0.13 + 0.08 * hatch + 0.05 * grain, 0, 1)
    return paler, coloured


def _watercolour(back: np.ndarray, front: np.ndarray, alpha: Image.Image, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Washes that pool at edges and bleed into white paper."""
    size = len(back)
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    rim = np.maximum(np.abs(x), np.abs(y))[..., None] + 0.16 * _noise(seed, 9, size)
    wash = _noise(seed + 1, 7, size)
    bleed = np.clip((rim - 0.84) * 5, 0, 1)
    back = back + (252 - back) * np.clip(0.20 + 0.18 * wash + bleed, 0, 1)
    inside = np.asarray(_blur(alpha, 0.03), dtype=np.float32)[..., None] / 255
    pool = 1 - 0.34 * np.clip(1.6 * (0.86 - inside), 0, 1)
    front = (front + (255 - front) * np.clip(0.10 + 0.20 * _noise(seed + 2, 8, size), 0, 0.4)) * pool
    return back, front


def _photo(back: np.ndarray, front: np.ndarray, alpha: Image.Image, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Shallow depth of field, contact shadow, light from above."""
    size = len(back)
    back = _floats(_blur(Image.fromarray(back.astype(np.uint8)), 0.022))
    shadow = _moved(_blur(alpha, 0.035), round(0.03 * size), round(0.03 * size))
    back = back * (1 - 0.42 * np.asarray(shadow, dtype=np.float32)[..., None] / 255)
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    back = back * (1.04 - 0.22 * (x**2 + y**2))[..., None]
    front = _floats(_blur(Image.fromarray(front.astype(np.uint8)), 0.005))
    return back, front * (1.05 - 0.10 * y - 0.05 * x)[..., None]


_FINISH = {"sticker": _flat, "cartoon": _flat, "drawing": _drawing, "watercolour": _watercolour, "photo": _photo}
