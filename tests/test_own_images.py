"""Images that people bring are seen as a viewer shows them, wherever the kit looks at them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from chosen_one_nb.models.images import ImageError, as_rgb, find_images, read_image
from chosen_one_nb.steps.converge import image_statistics
from chosen_one_nb.steps.latents import encode
from chosen_one_nb.steps.training_set import square

SIDE = 64


def upright() -> Image.Image:
    """Blue above, red below."""
    image = Image.new("RGB", (SIDE, SIDE), (200, 30, 30))
    ImageDraw.Draw(image).rectangle([0, 0, SIDE - 1, 31], fill=(30, 30, 220))
    return image


def through(image: Image.Image, kind: str, **more: Any) -> Image.Image:
    """An image as it comes from a file."""
    held = io.BytesIO()
    image.save(held, kind, **more)
    return Image.open(io.BytesIO(held.getvalue()))


def turned(orientation: int, back: Image.Transpose) -> Image.Image:
    exif = Image.Exif()
    exif[274] = orientation
    return through(upright().transpose(back), "JPEG", exif=exif, quality=98)


def cut_out_figure(mode: str = "RGBA") -> Image.Image:
    """Half of it transparent, with junk behind."""
    pixels = np.array(upright().convert("RGBA"))
    pixels[32:, :, 3], pixels[32:, :, :3] = 0, (255, 0, 255)
    return through(Image.fromarray(pixels).convert(mode), "PNG")


def deep(mode: str) -> Image.Image:
    grey = np.asarray(upright().convert("L")).astype(np.uint16) * 257
    image = through(Image.fromarray(grey), "PNG")
    return image if mode == "I;16" else image.convert(mode)


def seen(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """A pixel from above and one from below."""
    pixels = np.asarray(as_rgb(image), dtype=int)
    assert pixels.shape == (SIDE, SIDE, 3)
    return pixels[8, 32], pixels[56, 32]


GREY = [np.asarray(upright().convert("L"), dtype=int)[row, 32] for row in (8, 56)]


@pytest.mark.parametrize(
    ("image", "above", "below"),
    [
        pytest.param(turned(6, Image.Transpose.ROTATE_90), (30, 30, 220), (200, 30, 30), id="EXIF, a quarter turn"),
        pytest.param(turned(3, Image.Transpose.ROTATE_180), (30, 30, 220), (200, 30, 30), id="EXIF, upside down"),
        pytest.param(cut_out_figure(), (30, 30, 220), (255, 255, 255), id="RGBA"),
        pytest.param(cut_out_figure("LA"), (GREY[0],) * 3, (255, 255, 255), id="grey with alpha"),
        pytest.param(
            through(cut_out_figure().quantize(4), "PNG"), (30, 30, 220), (255, 255, 255), id="palette with alpha"
        ),
        pytest.param(deep("I;16"), (GREY[0],) * 3, (GREY[1],) * 3, id="16 bits"),
        pytest.param(deep("I"), (GREY[0],) * 3, (GREY[1],) * 3, id="16 bits in 32"),
        pytest.param(
            Image.fromarray(np.asarray(upright().convert("L"), np.float32) / 255), (GREY[0],) * 3, (GREY[1],) * 3,
            id="floating point",
        ),
        pytest.param(through(upright().convert("L"), "PNG"), (GREY[0],) * 3, (GREY[1],) * 3, id="grey"),
        pytest.param(upright().quantize(8), (30, 30, 220), (200, 30, 30), id="palette"),
        pytest.param(through(upright().convert("CMYK"), "JPEG", quality=98), (30, 30, 220), (200, 30, 30), id="CMYK"),
        pytest.param(through(upright().convert("CMYK"), "TIFF"), (30, 30, 220), (200, 30, 30), id="CMYK, TIFF"),
        pytest.param(upright(), (30, 30, 220), (200, 30, 30), id="RGB"),
    ],
)  # fmt: skip
def test_an_image_is_seen_as_a_viewer_shows_it(image: Image.Image, above: Any, below: Any) -> None:
    assert np.abs(np.array(seen(image)) - np.array([above, below])).max() <= 8


def test_colours_follow_the_profile_that_an_image_carries() -> None:
    image, srgb, other = upright(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(image, srgb, other, outputMode="LAB")
    lab.info["icc_profile"] = ImageCms.ImageCmsProfile(other).tobytes()
    assert np.abs(np.array(seen(lab)) - np.array([(30, 30, 220), (200, 30, 30)])).max() <= 8
    image.info["icc_profile"] = b"damaged"
    assert np.array_equal(np.asarray(as_rgb(image)), np.asarray(image))


def test_it_is_a_copy() -> None:
    image = upright()
    as_rgb(image).thumbnail((8, 8))
    assert image.size == (SIDE, SIDE)


def test_everything_that_looks_at_images_sees_them_so(models: Any) -> None:
    printed = through(upright().convert("CMYK"), "TIFF")
    odd = [turned(6, Image.Transpose.ROTATE_90), cut_out_figure(), deep("I;16"), printed]
    plain = [as_rgb(image) for image in odd]
    for ours, theirs in zip(odd, plain, strict=True):
        assert np.array_equal(np.asarray(square(ours, 32)[0]), np.asarray(square(theirs, 32)[0]))
    statistics, expected = image_statistics(odd), image_statistics(plain)
    assert all(np.array_equal(statistics[name], expected[name]) for name in expected)
    assert np.array_equal(models.extractor(odd).cls, models.extractor(plain).cls)
    assert np.array_equal(models.clip.images(odd), models.clip.images(plain))
    assert np.array_equal(encode(models, odd, 32)[0], encode(models, plain, 32)[0])


def test_the_size_that_training_is_told_is_that_of_the_turned_image() -> None:
    exif = Image.Exif()
    exif[274] = 6
    wide = through(Image.new("RGB", (80, 40)), "JPEG", exif=exif)
    assert square(wide, 32)[1] == (80, 40)


def test_files_that_are_no_images_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    for path in (tmp_path / "a.png", tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match=r": expected an image, could not read one .* Pass PIL images"):
            read_image(path)


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg"):
        upright().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert find_images(tmp_path) == [tmp_path / "a.jpg", tmp_path / "b.PNG"]
    assert find_images([tmp_path / "x.png"]) == [tmp_path / "x.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"empty: expected images .* found none"):
        find_images(tmp_path / "empty")
    with pytest.raises(ImageError, match="expected a folder of images, or a list"):
        find_images(tmp_path / "a.jpg")
