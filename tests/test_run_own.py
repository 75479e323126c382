"""A run that begins from what a person brings: images of their own, a character, or another trainer's LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import made_for
from PIL import Image

from chosen_one_nb.cli import main
from chosen_one_nb.models.images import ImageError, as_rgb, read_image
from chosen_one_nb.run.node import UNKNOWN_SEED
from chosen_one_nb.run.run import Run, RunError
from chosen_one_nb.run.store import StoreError
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.latents import encode
from chosen_one_nb.steps.training_set import square

PROMPT = "a sticker of a fox"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images of many kinds, one of them on its side by EXIF."""
    folder, rng = tmp_path / "photos", np.random.default_rng(4)
    folder.mkdir()
    colours = rng.integers(0, 255, (6, 1, 1, 3)) + rng.integers(-20, 20, (6, 48, 40, 3))
    images = [Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)) for pixels in colours]
    turned = Image.Exif()
    turned[274] = 6
    images[0].save(folder / "0.jpg", exif=turned)
    images[1].convert("CMYK").save(folder / "1.tif")
    images[2].convert("L").save(folder / "2.png")
    Image.fromarray(np.asarray(images[3].convert("L")).astype(np.uint16) * 257).save(folder / "3.png")
    cut = images[4].convert("RGBA")
    cut.putalpha(Image.linear_gradient("L").resize(cut.size))
    cut.save(folder / "4.webp", lossless=True)
    images[5].save(folder / "5.PNG")
    return folder


def test_own_images_are_the_first_gallery_to_the_end_of_a_run(
    photos: Path, models: Any, quick: Any, tmp_path: Path
) -> None:
    settings = quick.replace(max_iterations=1, prior_share=0.5, carry_over="warm")
    with Run.start(PROMPT, models, settings, tmp_path / "run", images=photos) as run:
        assert run.step() == "generate"
        root = run.root
        assert root.seeds.tolist() == [UNKNOWN_SEED] * 6
        assert {image.size for image in root.images} == {(32, 32)}
        assert [image.info["own"] for image in root.images] == sorted(path.name for path in photos.iterdir())
        expected, _ = encode(models, list(root.images), 32)
        np.testing.assert_allclose(root.images.latents(range(6)), expected, atol=1e-5)
        run.step()
        run.step()
        run.step()
        run.selection.choose(images=range(6))
        outcome = run.until_converged()
        assert outcome.finished
        assert len(run.node("1").images) == settings.n_images, "later galleries are drawn"
        assert run.tables.gallery("0")["seed"].tolist() == [UNKNOWN_SEED] * 6
        assert "image 0, your own" in run.report().read_text()


def test_own_images_go_on_after_a_stop_and_are_never_drawn_again(
    photos: Path, models: Any, quick: Any, tmp_path: Path
) -> None:
    with Run.start(
        PROMPT, models, quick, tmp_path / "run", images=[photos / "5.PNG", as_rgb(Image.open(photos / "2.png"))]
    ):
        pass
    with Run.open(tmp_path / "run", models) as run:
        run.step()
        assert [image.info["own"] for image in run.root.images] == ["5.PNG", "image 1"]
        latents = run.root.images.latents([0, 1])
        (run.root.folder / "gallery" / "000.npy").unlink()
        run.redo_stage("generate")
        assert np.array_equal(run.root.images.latents([0, 1]), latents)
        (run.root.folder / "gallery" / "001.png").write_bytes(b"")
        with pytest.raises(StoreError, match=r"001.png is damaged.*is your own and cannot be drawn again"):
            run.redo_stage("generate")


def test_own_images_are_the_chosen_set_on_a_branch_of_their_own(
    photos: Path, models: Any, quick: Any, tmp_path: Path
) -> None:
    settings = quick.replace(max_iterations=1, prior_share=0.5, carry_over="warm")
    with Run.start(PROMPT, models, settings, tmp_path / "run") as run:
        for _ in range(4):
            run.step()
        before = run.root.stages_done, run.root.decision
        (photos / "6.png").write_bytes(b"no image")
        for wrong, error in (([*photos.iterdir()], ImageError), (photos, ImageError), ([photos / "5.PNG"], RunError)):
            with pytest.raises(error, match="expected"):
                run.selection.choose(images=wrong)
        assert list(run.nodes) == ["0"], "what is refused leaves no branch"
        (photos / "6.png").unlink()
        made = run.selection.choose(images=[photos / "0.jpg", Image.open(photos / "1.tif")], note="mine")
        assert (run.current.id, run.current.gallery_of, made.images, made.note) == ("0b", "0b", (0, 1), "mine")
        node = run.current
        for image, name in zip(node.images, ("0.jpg", "1.tif"), strict=True):
            shown = square(read_image(photos / name), 32)[0]
            assert np.array_equal(np.asarray(image), np.asarray(shown))
        assert node.seeds.tolist() == [UNKNOWN_SEED] * 2
        assert (run.root.stages_done, run.root.decision) == before
        run.step()
        assert run.current.theta.provenance["images"] == [[0, 0], [0, 1]]
        assert run.until_converged().finished
        assert len(run.node("1").images) == settings.n_images, "the next gallery is drawn"
    assert Run.open(tmp_path / "run", read_only=True).node("0b").decision.images == (0, 1)


def test_what_cannot_begin_a_run_is_told_before_anything_is_written(
    photos: Path, models: Any, quick: Any, tmp_path: Path
) -> None:
    (photos / "6.png").write_bytes(b"no image")
    for more, error, message in [
        ({"images": photos}, ImageError, r"6.png: expected an image"),
        ({"images": photos / "none"}, ImageError, "expected a folder of images"),
        ({"images": [photos / "5.PNG"]}, RunError, "expected 2 to 16384 of them, got 1"),
        ({"images": photos, "character": photos}, RunError, "Expected images or a character"),
    ]:
        with pytest.raises(error, match=message):
            Run.start(PROMPT, models, quick, tmp_path / "run", **more)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rows", [True, False])
def test_a_run_begins_from_a_character_or_lora(rows: bool, models: Any, quick: Any, tmp_path: Path) -> None:
    character = made_for(models.pipeline, vectors=2, token="<w>")
    name = "down_blocks.1.attentions.0.proj_in"
    width = models.pipeline.unet.get_submodule(name).weight.shape[0]
    g = torch.Generator().manual_seed(2)
    character.frozen = {
        f"unet.{name}.lora_A.weight": torch.randn(3, width, generator=g),
        f"unet.{name}.lora_B.weight": torch.randn(width, 3, generator=g),
    }
    if not rows:
        character.tokens, character.initial, character.token = {}, {}, ""
    settings = quick.replace(max_iterations=1, prior_share=0.5, carry_over="reinit")
    place = tmp_path / "run"
    with Run.start(PROMPT, models, settings, place, character=character.save(tmp_path / "start")) as run:
        token = "<w>" if rows else settings.token
        assert (run.root.settings.token, run.root.settings.carry_over) == (token, "warm")
        assert '"frozen_modules": 1' in (place / "log.jsonl").read_text()
        assert run.character.caption == run.root.settings.caption(PROMPT)
        run.step()
        drawn = np.asarray(run.root.images[0])
    with Run.open(place, models) as run:
        run.next_iteration(ask=True)
        run.selection.choose(images=[0, 1])
        run.step()
        learned = run.character
        assert learned.frozen.keys() == character.frozen.keys()
        assert all(torch.equal(learned.frozen[key], character.frozen[key]) for key in character.frozen)
        assert not all(torch.equal(learned.lora[key], character.lora[key]) for key in character.lora)
    with Run.start(PROMPT, models, settings, tmp_path / "other") as plain:
        plain.step()
        assert not np.array_equal(np.asarray(plain.root.images[0]), drawn)


def test_in_the_shell(photos: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    few = ["--preset", "quick", "--set", "refine_steps=2", "sampling_steps=2", "n_images=4", "min_cluster_size=1",
           "target_cluster_size=3", "--ask", "--quiet"]  # fmt: skip
    begin = ["run", PROMPT, "--models", str(model_folder), "--folder", folder, "--images", str(photos), *few]
    assert main(begin) == 4, capsys.readouterr().err  # waits for a choice
    with Run.open(folder, read_only=True) as run:
        assert len(run.root.images) == 6
    assert main(begin) == 4, "the same command goes on"
    assert main(["run", "--folder", folder, "--character", str(photos)]) == 1
    assert "was not begun with --character" in capsys.readouterr().err


def of_every_kind(folder: Path) -> list[np.ndarray]:
    """24 files, four each of six kinds; returns what a viewer shows: two colours, the blue one above."""
    folder.mkdir()
    shown = []
    for i in range(24):
        above, below = np.array([40, 60, 200 - 3 * i]), np.array([200 - 3 * i, 60, 40])
        pixels = np.concatenate([np.full((16, 32, 3), above), np.full((16, 32, 3), below)]).astype(np.uint8)
        image, kind = Image.fromarray(pixels), i % 6
        grey = np.asarray(image.convert("L"))
        if kind == 0:  # the lower half transparent, over junk
            alpha = np.repeat(np.uint8([255, 0]), 16)[:, None].repeat(32, 1)
            Image.fromarray(np.dstack([np.where(alpha[..., None], pixels, np.uint8(77)), alpha])).save(
                folder / f"{i:02}.png"
            )
            pixels = np.where(alpha[..., None], pixels, np.uint8(255))
        elif kind == 1:  # on its side
            exif = Image.Exif()
            exif[274] = 6
            image.transpose(Image.Transpose.ROTATE_90).save(folder / f"{i:02}.jpg", exif=exif, quality=98)
        elif kind == 2:
            Image.fromarray(grey.astype(np.uint16) * 257).save(folder / f"{i:02}.png")
        elif kind == 3:
            image.convert("L").save(folder / f"{i:02}.tif")
        else:
            image.convert("CMYK" if kind == 4 else "RGB").save(folder / f"{i:02}.{'tif' if kind == 4 else 'png'}")
        shown.append(grey[..., None].repeat(3, 2) if kind in (2, 3) else pixels)
    return shown


def test_24_images_of_every_kind_go_to_the_end_of_a_run_by_the_bundled_models(tmp_path: Path) -> None:
    shown = of_every_kind(tmp_path / "photos")
    few = {"n_images": 8, "sampling_steps": 2, "refine_steps": 2, "refine_batch_size": 2, "max_iterations": 1}
    settings = Settings.preset("quick", **few, min_cluster_size=1, target_cluster_size=6)
    with Run.start(PROMPT, "menagerie", settings, tmp_path / "run", images=tmp_path / "photos") as run:
        assert run.until_converged().finished
        assert run.manifest["images"] == [path.name for path in sorted((tmp_path / "photos").iterdir())]
        for image, pixels in zip(run.root.images, shown, strict=True):
            got = np.asarray(image, dtype=int)[[image.height // 4, 3 * image.height // 4], image.width // 2]
            np.testing.assert_allclose(got, pixels[[8, 24], 16], atol=8)
        assert run.root.theta is not None
        assert len(run.node("1").images) == 8
