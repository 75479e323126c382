"""The recipe of the bundled miniature, in sizes that train in seconds, and its helpers on toy data."""

import importlib
import inspect
import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer, Dinov2Model, ResNetForImageClassification

from menagerie import train as command
from menagerie import world
from menagerie.evaluate import agreement, context_present, interval, table
from menagerie.labels import SIZES, targets
from menagerie.measure import entropy, prompts
from menagerie.reader import Reader
from menagerie.training import dino, reader, text, unet
from menagerie.training import vae as vae_module
from menagerie.training.clip import GROUPS, true_sayings
from menagerie.training.data import captions, draw, renders
from menagerie.training.dino import crops, crowding, other_medium, other_surroundings
from menagerie.training.loop import fit, learning_rate, seed_at, with_progress
from menagerie.training.recipe import Recipe
from menagerie.training.saving import load_weights
from menagerie.training.text import said
from menagerie.training.tokenizer import word_tokenizer
from menagerie.training.unet import figure_shares
from menagerie.training.vae import ANCHOR, FAINT, anchor_loss, build, decode, encode, rescale

TINY = ["n_renders=40", "latent_channels=2", "vae_channels=4,8,8", "vae_batch=4", "text_widths=32,64",
        "text_depth=2", "text_batch=8", "vision_width=32", "vision_depth=1", "clip_batch=8", "dino_width=32",
        "dino_depth=1", "dino_prototypes=16", "dino_batch=4", "reader_size=32", "reader_channels=8,16,16,16",
        "reader_batch=4", "unet_channels=8,16,32", "unet_batch=4"]  # fmt: skip
SHIPPED = Path(__file__).resolve().parent.parent / "data" / "menagerie"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The whole recipe in tiny: the folder of the models, and the work folder. Read only."""
    folder = tmp_path_factory.mktemp("made")
    out, work = folder / "menagerie", folder / "work"
    command.main(["--set", *TINY, "--minutes", "0.02", "--out", str(out), "--work", str(work), "--device", "cpu"])
    return out, work


def test_tokenizer_knows_its_words_and_survives_others():
    words = ["eating", "tea", "wearing", "ear", "a", "fox", ","]
    tokenizer = word_tokenizer(words, 12)
    assert [tokenizer.tokenize(word) for word in words] == [[word + "</w>"] for word in words]
    strange = tokenizer("a zebra in Tōkyō 日本 🦊").input_ids
    assert strange[0] == tokenizer.bos_token_id
    assert strange.index(tokenizer.eos_token_id) == len(strange) - 1, "only the end is the end mark"


def test_tokenizer_gives_every_word_of_the_world_one_token():
    tokenizer = word_tokenizer(world.vocabulary(), 32)
    assert all(len(tokenizer.tokenize(word)) == 1 for word in world.vocabulary())


def test_later_words_leave_the_numbers_of_the_others_alone():
    words, later = ["fox", "a", "arm", ","], ["arms", "sitting"]
    first, grown = word_tokenizer(words, 12), word_tokenizer(words, 12, later=later)
    assert first.get_vocab().items() <= grown.get_vocab().items()
    assert [grown.tokenize(word) for word in (*words, *later)] == [[f"{word}</w>"] for word in (*words, *later)]
    assert first("a fox, arm").input_ids == grown("a fox, arm").input_ids
    assert min(grown("arms").input_ids[1:-1]) >= len(first)


def test_the_shipped_text_towers_know_the_words_of_the_world_by_the_same_numbers():
    shipped, now = CLIPTokenizer.from_pretrained(SHIPPED / "clip"), text.world_tokenizer(Recipe())
    assert shipped.get_vocab().items() <= now.get_vocab().items()


def test_new_words_are_learnt_and_nothing_else_of_the_text_towers_changes(tmp_path, monkeypatch):
    recipe = Recipe().with_words(TINY).replace(minutes={"text": 0.02})
    late = world.late_words()
    for work in ("before", "after"):
        (tmp_path / work).mkdir()
    known = word_tokenizer(world.vocabulary()[: -len(late)], recipe.text_length)
    with monkeypatch.context() as early:
        early.setattr(text, "world_tokenizer", lambda recipe: known)
        text.train(recipe, tmp_path / "before", tmp_path / "out", "cpu")
    folders = [tmp_path / "out" / part for part in ("clip", "pipeline/text_encoder", "pipeline/text_encoder_2")]
    before = [load_file(folder / "model.safetensors") for folder in folders]
    text.train(recipe, tmp_path / "after", tmp_path / "out", "cpu", from_saved=True)
    for folder, old in zip(folders, before, strict=True):
        new = load_file(folder / "model.safetensors")
        for name, weights in old.items():
            same = new[name][: len(weights)] if name.endswith("token_embedding.weight") else new[name]
            assert torch.equal(same, weights), name
    rows = load_file(folders[0] / "model.safetensors")["text_model.embeddings.token_embedding.weight"]
    assert len(rows) == len(text.world_tokenizer(recipe)) > len(known)
    assert CLIPTokenizer.from_pretrained(folders[0]).tokenize("sitting") == ["sitting</w>"]


def test_recipe_is_changed_by_words_and_saved(tmp_path):
    recipe = Recipe().with_words(["image_size=128", "vae_channels=8,16,32,64"])
    assert (recipe.image_size, recipe.vae_channels) == (128, (8, 16, 32, 64))
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    with pytest.raises(ValueError, match=r"expected name=number .* got 'size=big'"):
        recipe.with_words(["size=big"])


def test_learning_rate_warms_up_and_falls():
    assert learning_rate(1.0, 0.0, 0) == pytest.approx(0.01)
    assert learning_rate(1.0, 0.0, 200) == 1.0
    assert learning_rate(1.0, 1.0, 200) == pytest.approx(0.02)


def test_training_goes_on_from_its_checkpoint(tmp_path):
    wanted = torch.tensor([[3.0]])

    def train(minutes):
        model = torch.nn.Linear(1, 1, bias=False)
        steps = []

        def loss(step, progress):
            steps.append(step)
            return {"loss": (model(torch.ones(1, 1)) - wanted).square().sum()}

        return fit("line", model, loss, minutes=minutes, work=tmp_path, rate=0.2, weight_decay=0.0), steps

    _, first = train(0.01)
    best, second = train(0.02)
    assert second[0] == first[-1] + 1
    assert best.weight.item() == pytest.approx(3, abs=1)
    _, third = train(0.02)
    assert third == [], "the budget is spent"


def test_a_checkpoint_keeps_what_else_it_is_given(tmp_path):
    def train(minutes, centre):
        model = torch.nn.Linear(1, 1)

        def loss(step, progress):
            centre.add_(1)
            return {"loss": model(torch.ones(1, 1)).sum()}

        fit("line", model, loss, minutes=minutes, work=tmp_path, rate=0.1, also={"centre": centre})
        return centre

    reached = train(0.002, torch.zeros(2)).clone()
    assert reached[0] > 0
    assert torch.equal(train(0.002, torch.zeros(2)), reached)


def test_a_stage_that_goes_on_has_another_seed(tmp_path):
    fresh = seed_at(0, "line", tmp_path)
    torch.save({"step": 0}, tmp_path / "line.pt")
    assert seed_at(0, "line", tmp_path) == fresh
    torch.save({"step": 7}, tmp_path / "line.pt")
    assert len({fresh, seed_at(0, "line", tmp_path), seed_at(7, "line", tmp_path), seed_at(7, "other", tmp_path)}) == 4


class Reached(Exception):
    """Ends a stage where its training would begin."""


@pytest.mark.parametrize("stage", command.STAGES[1:])
def test_no_stage_begins_again_with_the_same_batches(made, tmp_path, monkeypatch, stage):
    """What a stage draws its batches by is left in another state by a checkpoint than by none."""
    out, work = made
    module = importlib.import_module(f"menagerie.training.{stage}")
    shutil.copytree(work, tmp_path / "fresh", ignore=shutil.ignore_patterns("*.pt"))
    drawn = []

    def begin(name, model, loss, **keys):
        drawn.append((torch.rand(()).item(), inspect.getclosurevars(loss).nonlocals["rng"].random()))
        raise Reached

    monkeypatch.setattr(module, "fit", begin)
    for folder in (tmp_path / "fresh", tmp_path / "fresh", work):
        with pytest.raises(Reached):
            module.train(Recipe().with_words(TINY), folder, out, "cpu")
    assert drawn[0] == drawn[1], "a beginning is repeatable"
    assert drawn[0][0] != drawn[2][0]
    assert drawn[0][1] != drawn[2][1]


def test_the_extractor_goes_on_from_its_centres(made, tmp_path, monkeypatch):
    out, work = made[0], shutil.copytree(made[1], tmp_path / "work")
    found = []

    def centres(name, model, loss, *, also, **keys):
        fit(name, model, loss, also=also, **{**keys, "minutes": 0})
        found.append({key: value.clone() for key, value in also.items()})
        raise Reached

    monkeypatch.setattr(dino, "fit", centres)
    with pytest.raises(Reached):
        dino.train(Recipe().with_words(TINY), work, out, "cpu")
    assert found[0].keys() == {"centre", "patch_centre"}
    assert all(value.abs().max() > 0 for value in found[0].values())


def test_progress_says_how_much_is_left(monkeypatch, capsys):
    clock = iter([0.0, 30.0, 60.0, 90.0])
    monkeypatch.setattr("menagerie.training.loop.time.monotonic", lambda: next(clock))
    assert list(with_progress("renders", iter("abc"), 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == [
        "renders: 1 of 3 parts, 1:00 left",
        "renders: 2 of 3 parts, 0:30 left",
        "renders: 3 of 3 parts, 0:00 left",
    ]


def test_long_preparations_tell_of_their_progress(tmp_path, capsys):
    truths, images, _ = renders(tmp_path, 3, 32, workers=1)
    captions(tmp_path, truths, word_tokenizer(world.vocabulary(), 32), 1, workers=1)
    build(Recipe(vae_channels=(4, 8))).save_pretrained(tmp_path / "vae")
    unet.cached_latents(tmp_path / "vae", images, tmp_path, "cpu")
    reader.degraded(images, tmp_path / "vae", "cpu")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name}: 1 of 1 parts, 0:00 left" for name in ("renders", "captions", "latents", "degraded")]


def test_latents_in_chunks_are_those_of_all_at_once(monkeypatch, tmp_path):
    vae = build(Recipe(vae_channels=(4, 8))).eval()
    vae.save_pretrained(tmp_path / "vae")
    images = np.random.default_rng(0).integers(256, size=(5, 16, 16, 3), dtype=np.uint8)
    monkeypatch.setattr(unet, "in_chunks", lambda images: vae_module.in_chunks(images, 2))
    torch.testing.assert_close(
        unet.cached_latents(tmp_path / "vae", images, tmp_path, "cpu"),
        encode(vae, images, "cpu") * vae.config.scaling_factor,
    )


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_all_models_of_a_preset_together_are_small(preset):
    """Before a long training, not after it. The first text encoder is saved twice, in the pipeline and in the CLIP."""
    recipe = Recipe.preset(preset)
    with torch.device("meta"):  # sizes only
        texts = text.build(recipe, word_tokenizer(world.vocabulary(), recipe.text_length))
        generator = unet.build(recipe, sum(recipe.text_widths), recipe.text_widths[1])
        models = [texts.clip, texts.clip.text_model, texts.second, build(recipe), dino.build(recipe),
                  reader.build(recipe), generator]  # fmt: skip
    assert 2 * sum(model.num_parameters() for model in models) < 40e6


def test_the_gpu_preset_trains_for_less_than_half_an_hour():
    assert sum(Recipe.preset("gpu").minutes.values()) <= 24


def test_a_saved_model_of_other_sizes_is_refused(tmp_path):
    build(Recipe(vae_channels=(4, 8))).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a model of other sizes cannot go on"):
        load_weights(build(Recipe(vae_channels=(8, 16))), tmp_path)


def test_a_reader_that_learnt_fewer_labels_gives_what_it_knows(tmp_path):
    recipe = Recipe().with_words(TINY)
    small, grown = reader.build(recipe), reader.build(recipe)
    small.classifier[1] = torch.nn.Linear(small.classifier[1].in_features, 91)
    small.config.id2label = {i: label for i, label in small.config.id2label.items() if i < 91}
    small.save_pretrained(tmp_path)
    assert load_weights(grown, tmp_path) == {"classifier.1.weight": 91, "classifier.1.bias": 91}
    assert torch.equal(grown.classifier[1].weight[:91], small.classifier[1].weight)


def test_renders_are_drawn_once(tmp_path):
    truths, images, masks = renders(tmp_path, 3, 32, workers=1)
    again, same, outlines = renders(tmp_path, 3, 32)
    assert truths == again
    np.testing.assert_array_equal(images, same)
    np.testing.assert_array_equal(masks, outlines)
    np.testing.assert_array_equal(images[1], draw(1, 32)[1])
    np.testing.assert_array_equal(masks[1], draw(1, 32)[2])


def test_captions_to_learn_from_name_details_more_often():
    truths, rng = [draw(seed, 32)[0] for seed in range(200)], Random(0)
    usual, learning = (
        sum("eyes" in world.caption(truth, rng, details=details).named for truth in truths) for details in (1.0, 2.0)
    )
    assert learning > 1.3 * usual > 0


def test_a_figure_s_share_of_each_latent_pixel():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2, :2] = True  # a whole latent pixel
    masks[1, 3, 3] = True  # a quarter of one
    assert figure_shares(masks, 2)[:, 0].tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 0.25]]]


def test_captions_are_token_ids_of_the_grammar(tmp_path):
    truths = [draw(seed, 64)[0] for seed in range(3)]
    tokenizer = word_tokenizer(world.vocabulary(), 32)
    found = captions(tmp_path, truths, tokenizer, 2, workers=1)
    assert found.shape == (3, 2, 32)
    text = tokenizer.decode(found[1, 0], skip_special_tokens=True)
    assert all(truths[1][name] == value for name, value in world.named_in(text).items())


def test_targets_name_every_attribute():
    truth = draw(5, 32)[0]
    row = targets([truth])[0]
    assert [values[i] for values, i in zip(world.ATTRIBUTES.values(), row, strict=True)] == [
        truth[name] for name in world.ATTRIBUTES
    ]


def test_anchor_is_met_by_the_image_made_small():
    pixels = torch.rand(2, 3, 16, 16)
    small = torch.nn.functional.avg_pool2d(pixels, 4)
    latents = torch.cat([ANCHOR * small, torch.randn(2, 3, 4, 4)], dim=1)
    assert anchor_loss(pixels, latents).item() == pytest.approx(0)
    assert anchor_loss(pixels, latents.flip(1)).item() > 0.1


def test_rescaled_latents_decode_as_before():
    vae = build(Recipe(vae_channels=(4, 8), latent_channels=4)).eval()
    images = np.random.default_rng(0).integers(256, size=(6, 16, 16, 3), dtype=np.uint8)
    before = decode(vae, encode(vae, images, "cpu"), "cpu")
    rescale(vae, encode(vae, images, "cpu"))
    latents = encode(vae, images, "cpu")
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.tensor([1.0, 1.0, 1.0, FAINT]))
    assert np.abs(decode(vae, latents, "cpu").astype(int) - before).max() <= 1


def test_what_a_caption_says_is_read_as_classes():
    names = list(world.ATTRIBUTES)
    classes = said({"style": "drawing"})
    assert classes[names.index("style")] == 2, "one after sticker, which comes after 'open'"
    assert sum(classes) == 2, "everything else is left open"


def test_of_each_group_of_things_to_say_a_image_holds_one():
    rng = Random(0)
    truths = [world.sample(rng) for _ in range(20)]
    for truth, places in zip(truths, true_sayings(truths).tolist(), strict=True):
        said = [group[place] for group, place in zip(GROUPS, places, strict=True)]
        assert {name for one in said for name in one} == set(world.ATTRIBUTES)
        assert all(truth[name] == value for one in said for name, value in one.items())
        assert all(sum(one.items() <= truth.items() for one in group) == 1 for group in GROUPS)


def test_things_are_said_as_captions_say_them():
    text = world.caption_of({"garment": "scarf", "garment_colour": "red"}, Random(0))
    assert world.named_in(text) == {"garment": "scarf", "garment_colour": "red"}


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    fit("line", torch.nn.Linear(2, 1), lambda step, progress: {}, minutes=0, work=tmp_path, rate=0.1)
    with pytest.raises(ValueError, match="of another recipe; move it away"):
        fit("line", torch.nn.Linear(3, 1), lambda step, progress: {}, minutes=0, work=tmp_path, rate=0.1)


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
    mixed = other_surroundings(pixels)
    assert torch.allclose(mixed[:, :, 8, 8], pixels[:, :, 8, 8], atol=0.01)
    changed = (mixed[:, 0, 0, 0] - pixels[:, 0, 0, 0]).abs() > 0.01
    assert 16 < changed.sum() < 32, "about three quarters of them"


def test_two_views_borrow_their_surroundings_from_different_images():
    pixels = torch.arange(32.0)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    torch.manual_seed(0)
    corners = [other_surroundings(pixels)[:, 0, 0, 0].round() for _ in range(2)]
    borrowed = (corners[0] != pixels[:, 0, 0, 0]) & (corners[1] != pixels[:, 0, 0, 0])
    assert borrowed.sum() > 8
    assert (corners[0] != corners[1])[borrowed].all()


def test_another_medium_only_fades_or_blurs():
    pixels = torch.zeros(64, 3, 8, 8)
    pixels[:, :, :, 4:] = 0.5
    changed = other_medium(pixels)
    assert ((changed >= pixels - 0.2) & (changed <= 1)).all()
    assert 5 < (changed == pixels).flatten(1).all(1).sum() < 60, "some stay as they are"


def test_crowding_falls_as_features_spread():
    close = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.01, 1.0], [0.0, 1.0]])
    spread = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert crowding(spread).item() == pytest.approx(-np.log(np.sqrt(2)), abs=1e-4)
    assert crowding(close) > crowding(spread)


def test_agreement_and_entropy_by_hand():
    assert agreement(["red", "red", "blue"]) == pytest.approx(1 / 3)
    assert agreement(["red"] * 4) == 1
    assert entropy(pd.Series(["a", "b"])) == pytest.approx(np.log(2))


def test_context_is_present_when_all_of_it_is():
    read = pd.DataFrame({"place": ["snow", "snow"], "action": ["book", "ball"]})
    asked = [{"place": "snow", "action": "book"}] * 2
    assert context_present(read, asked) == 0.5


def test_interval_holds_the_mean():
    value, low, high = interval([0.0, 1.0] * 20)
    assert low < value == 0.5 < high
    assert interval([2.0] * 5) == (2.0, 2.0, 2.0)


def test_table_of_one_prompt():
    numbers = ["ratio", "seconds", "identity_first", "identity_final"]
    numbers += [f"identity_contexts{base}{way}" for base in ("", "_base") for way in ("", "_plain")]
    row = dict.fromkeys(numbers, 0.5) | {"outcome": "converged", "context_base": 0.8, "context": 0.6}
    row |= {"context_base_plain": 0.5, "context_plain": 0.2}
    row["fell"] = True
    found = table(pd.DataFrame([row])).set_index("figure")["value"]
    assert found["prompts that converged"] == 1
    assert found["galleries that fall to 0.8 of the first distance"] == 1
    assert found["asked context present, relative to the base model"] == pytest.approx(0.75)
    assert found["asked context present, plain, relative to the base model"] == pytest.approx(0.4)


def test_held_out_prompts_ask_for_something():
    assert all(len(caption.named) >= 4 for caption in prompts(20))


def test_a_saved_autoencoder_learns_on_without_moving_its_latents(tmp_path):
    recipe = Recipe(minutes={"vae": 0.02}).with_words(TINY)
    out, images = tmp_path / "out", renders(tmp_path, recipe.n_renders, recipe.image_size)[1]
    vae_module.train(recipe, tmp_path, out, "cpu")
    first = AutoencoderKL.from_pretrained(out / "pipeline/vae", torch_dtype=torch.float32)
    (tmp_path / "vae.pt").unlink()
    vae_module.train(recipe, tmp_path, out, "cpu", from_saved=True)
    second = AutoencoderKL.from_pretrained(out / "pipeline/vae", torch_dtype=torch.float32)
    latents = encode(first, images, "cpu")
    assert torch.equal(encode(second, images, "cpu"), latents)
    assert (decode(second, latents, "cpu") != decode(first, latents, "cpu")).any()


def test_the_whole_recipe_makes_stock_models(made, tmp_path):
    out = shutil.copytree(made[0], tmp_path / "menagerie")
    before = (out / "pipeline/unet/diffusion_pytorch_model.safetensors").read_bytes()
    command.main(["--set", *TINY, "--minutes", "0", "--out", str(out), "--work", str(tmp_path / "other"), "--device",
                  "cpu", "--from-saved", "--stages", "renders", "text", "vae", "dino", "unet"])  # fmt: skip
    assert (out / "pipeline/unet/diffusion_pytorch_model.safetensors").read_bytes() == before, (
        "nothing trained, nothing changed"
    )
    pipeline = StableDiffusionXLPipeline.from_pretrained(out / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a fox and a zebra", num_inference_steps=2, height=64, width=64).images[0]
    assert image.size == (64, 64)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    CLIPModel.from_pretrained(out / "clip")
    Dinov2Model.from_pretrained(out / "dinov2")
    found = Reader(out / "reader").probabilities([image])
    assert [p.shape for p in found.values()] == [(1, size) for size in SIZES]
    assert json.loads((out / "recipe.json").read_text())["n_renders"] == 40
    assert all(file.suffix != ".bin" for file in out.rglob("*"))


# --- the models that ship


@pytest.mark.parametrize(
    ("kind", "part"),
    [(CLIPModel, "clip"), (Dinov2Model, "dinov2"), (ResNetForImageClassification, "reader")],
)
def test_the_shipped_encoders_load_in_stock_classes(kind, part):
    model, info = kind.from_pretrained(SHIPPED / part, output_loading_info=True)
    assert model.dtype == torch.float32
    assert not any(info.values()), "neither missing nor unexpected weights, nor any of another shape"


def test_the_shipped_pipeline_draws_in_the_stock_class_without_a_dtype():
    pipeline = StableDiffusionXLPipeline.from_pretrained(SHIPPED / "pipeline")
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    assert {part.dtype for part in parts} == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    side = Recipe.load(SHIPPED / "recipe.json").image_size
    image = pipeline("a sticker of a fox", num_inference_steps=2, height=side, width=side).images[0]
    assert np.asarray(image).std() > 1, "an image, not one colour"


def test_the_shipped_files_are_half_precision_and_small():
    weights = sorted(SHIPPED.rglob("*.safetensors"))
    assert len(weights) == 7
    for file in weights:
        with safe_open(file, framework="pt") as opened:
            kinds = {key: opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118, not a dict
        other = {key: kind for key, kind in kinds.items() if kind != "F16" and not key.endswith("num_batches_tracked")}
        assert not other, file
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= 45e6
