"""The recipe of the bundled miniature: its parts on toy data, every stage in tiny, and the models that ship."""

import importlib
import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from helpers.recipe import TINY, tiny_context
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Model,
    ResNetForImageClassification,
    ViTModel,
)

from menagerie import train as command
from menagerie import world
from menagerie.labels import SIZES, targets
from menagerie.reader import Reader
from menagerie.training import controlnet, dino, dinov1, ip_adapter, reader, text, unet
from menagerie.training import vae as vae_module
from menagerie.training.clip import GROUPS, true_sayings
from menagerie.training.context import TrainingError
from menagerie.training.data import captions, draw, renders, renders_of
from menagerie.training.recipe import Recipe
from menagerie.training.saving import load_weights
from menagerie.training.text import said
from menagerie.training.tokenizer import word_tokenizer
from menagerie.training.unet import figure_shares
from menagerie.training.vae import ANCHOR, FAINT, anchor_loss, build, decode, encode, rescale

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "menagerie"


# --- every stage in tiny ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def made(request, tmp_path_factory):
    """The whole recipe of a preset, a few steps a stage: the folder of the models, and the work folder. Read only."""
    folder = tmp_path_factory.mktemp(request.param)
    out, work = folder / "menagerie", folder / "work"
    command.main(["--preset", request.param, "--device", "cpu", "--set", *TINY, "--minutes", "0.015",
                  "--out", str(out), "--work", str(work)])  # fmt: skip
    return out, work


def test_every_stage_of_both_presets_makes_a_stock_model(made, tmp_path):
    out = shutil.copytree(made[0], tmp_path / "menagerie")
    weights = out / "pipeline/unet/diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    command.main(["--preset", "cpu", "--set", *TINY, "--minutes", "0", "--out", str(out),
                  "--work", str(tmp_path / "other"), "--from-saved"])  # fmt: skip
    assert weights.read_bytes() == before, "nothing trained, nothing changed"
    pipeline = StableDiffusionXLPipeline.from_pretrained(out / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a fox and a zebra", num_inference_steps=2, height=32, width=32).images[0]
    assert image.size == (32, 32)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    CLIPModel.from_pretrained(out / "clip")
    Dinov2Model.from_pretrained(out / "dinov2")
    ViTModel.from_pretrained(out / "dinov1", add_pooling_layer=False)
    pipeline.load_lora_weights(out / "few_steps", weight_name="pytorch_lora_weights.safetensors")
    short = {"num_inference_steps": 4, "guidance_scale": 0.0}
    assert pipeline("a fox and a zebra", **short, height=32, width=32).images[0].size == (32, 32)
    found = Reader(out / "reader").probabilities([image])
    assert [p.shape for p in found.values()] == [(1, size) for size in SIZES]
    assert json.loads((out / "recipe.json").read_text())["n_renders"] == 40
    assert all(file.suffix != ".bin" for file in out.rglob("*"))


def test_the_stock_loader_takes_the_adapter_and_at_scale_0_nothing_changes(made):
    out, _ = made
    pipeline = StableDiffusionXLPipeline.from_pretrained(out / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    asked = {"num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}

    def drawn(**image):
        return pipeline("a fox", generator=torch.Generator().manual_seed(0), **asked, **image).images

    before = drawn()
    pipeline.register_modules(feature_extractor=CLIPImageProcessorPil.from_pretrained(out / "clip"))
    pipeline.load_ip_adapter(out, subfolder="ip_adapter", weight_name="ip-adapter.safetensors",
                             image_encoder_folder="./clip")  # fmt: skip
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    assert not np.array_equal(drawn(ip_adapter_image=red), drawn(ip_adapter_image=blue))
    pipeline.set_ip_adapter_scale(0.0)
    assert np.array_equal(drawn(ip_adapter_image=red), before)


def test_an_adapter_is_not_shown_one_colour_of_every_kind():
    truths = [{"kind": kind, "colour": colour}
              for kind in world.IDENTITY["kind"] for colour in world.IDENTITY["colour"]]  # fmt: skip
    assert [sum(map(ip_adapter.left_out, truths[i : i + 8])) for i in range(0, len(truths), 8)] == [1] * 14


def test_a_reference_shows_the_same_character_elsewhere():
    truth = world.sample(Random(1))
    first, again, other = (ip_adapter.in_another_scene(truth, number, 32) for number in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, world.render(truth, 32).image)


@pytest.mark.parametrize("stage", command.STAGES[1:])
def test_no_stage_begins_again_with_the_same_batches(made, tmp_path, monkeypatch, stage):
    """A stage that goes on from its checkpoint draws other batches than it began with; a beginning is repeatable."""
    out, work = made
    module = importlib.import_module(f"menagerie.training.{stage}")
    fresh = shutil.copytree(work, tmp_path / "fresh", ignore=shutil.ignore_patterns("*.pt"))
    drawn = []

    class Reached(Exception):
        pass

    def begin(name, objective, batch, schedule, context, **keys):
        drawn.append(torch.cat([part.float().flatten() for part in batch(0.0) if isinstance(part, torch.Tensor)]))
        raise Reached

    monkeypatch.setattr(dino if stage == "dinov1" else module, "fit", begin)  # both extractors train in dino
    for folder in (fresh, fresh, work):
        with pytest.raises(Reached):
            module.train(tiny_context(folder, out))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_all_models_of_a_preset_together_are_small(preset):
    """Before a long training, not after it. The first text encoder is saved twice, in the pipeline and in the CLIP."""
    recipe = Recipe.preset(preset)
    with torch.device("meta"):  # sizes only
        texts = text.build(recipe, text.world_tokenizer(recipe))
        generator = unet.build(recipe, sum(recipe.text_widths), recipe.text_widths[1])
        models = [texts.clip, texts.clip.text_model, texts.second, build(recipe), dino.build(recipe),
                  dinov1.build(recipe), reader.build(recipe), generator, controlnet.build(generator, 8)]  # fmt: skip
    assert 2 * sum(model.num_parameters() for model in models) < 56e6


def test_the_gpu_preset_trains_for_less_than_half_an_hour():
    assert sum(Recipe.preset("gpu").minutes.values()) < 30


def test_both_presets_make_models_of_the_same_sizes():
    """What learnt on a card goes on on a CPU."""
    cpu, gpu = Recipe.preset("cpu"), Recipe.preset("gpu")
    amounts = [name for name in vars(cpu) if name.startswith("n_") or name.endswith("_batch")]
    assert gpu.replace(minutes=cpu.minutes, **{name: getattr(cpu, name) for name in amounts}) == cpu


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--preset", "gpu"], "--preset gpu on a card: PyTorch sees none here"),
        (["--device", "cuda"], "PyTorch sees none here"),
        (["--set", "size=big"], "--set: expected name=number with a name out of"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_sentence(tmp_path, monkeypatch, words, sentence):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match=sentence):
        command.main([*words, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")])
    assert not (tmp_path / "out").exists()


def test_saved_models_of_other_sizes_do_not_go_on(made, tmp_path):
    words = ["--preset", "cpu", "--set", *TINY, "unet_channels=16,32,64", "--stages", "unet", "--from-saved"]
    out, work = (shutil.copytree(folder, tmp_path / folder.name) for folder in made)
    with pytest.raises(SystemExit, match="a model of other sizes cannot go on"):
        command.main([*words, "--out", str(out), "--work", str(work), "--minutes", "1"])


def test_stages_side_by_side_are_processes_of_the_same_command(monkeypatch):
    started = []

    class Process:
        def __init__(self, words):
            started.append(words[-1])
            self.words = words

        def wait(self):
            return int(self.words[-1] == "vae")

    monkeypatch.setattr(command.subprocess, "Popen", Process)
    command.run_side_by_side(["text", "dino", "clip"], ["--side-by-side", "--preset", "gpu"])
    assert started == ["text", "dino", "clip"]
    with pytest.raises(TrainingError, match="stages that failed, see above: vae"):
        command.run_side_by_side(["vae", "unet"], ["--side-by-side"])
    assert started[3:] == ["vae"], "what would have read its result is not started"


# --- words ------------------------------------------------------------------------------------------------


def test_new_words_are_learnt_and_nothing_else_of_the_text_towers_changes(tmp_path, monkeypatch):
    context = tiny_context(tmp_path / "before", tmp_path / "out", minutes=0.02)
    known = word_tokenizer(world.vocabulary()[: -len(world.late_words())], context.recipe.text_length)
    with monkeypatch.context() as early:
        early.setattr(text, "world_tokenizer", lambda recipe: known)
        text.train(context)
    folders = [tmp_path / "out" / part for part in ("clip", "pipeline/text_encoder", "pipeline/text_encoder_2")]
    before = [load_file(folder / "model.safetensors") for folder in folders]
    for work in ("after", "once more"):  # the second time all words are there already
        text.train(tiny_context(tmp_path / work, tmp_path / "out", minutes=0.02, from_saved=True))
    for folder, old in zip(folders, before, strict=True):
        new = load_file(folder / "model.safetensors")
        for name, weights in old.items():
            same = new[name][: len(weights)] if name.endswith("token_embedding.weight") else new[name]
            assert torch.equal(same, weights), name
    rows = load_file(folders[0] / "model.safetensors")["text_model.embeddings.token_embedding.weight"]
    assert len(rows) == len(text.world_tokenizer(context.recipe)) > len(known)
    assert CLIPTokenizer.from_pretrained(folders[0]).tokenize("sitting") == ["sitting</w>"]


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
    now = text.world_tokenizer(Recipe()).get_vocab()
    for place in ("clip", "pipeline/tokenizer", "pipeline/tokenizer_2"):
        assert CLIPTokenizer.from_pretrained(SHIPPED / place).get_vocab() == now


def test_the_shipped_models_are_of_the_recipe_s_sizes():
    """So that the recipe goes on from them (``--from-saved``)."""
    numbers = {name for name in vars(Recipe()) if name not in ("minutes", "n_renders", "n_trajectories")
               and not name.endswith("_batch")}  # fmt: skip
    shipped = Recipe.load(SHIPPED / "recipe.json")
    assert {name: getattr(shipped, name) for name in numbers} == {name: getattr(Recipe(), name) for name in numbers}


def test_recipe_is_changed_by_words_and_saved(tmp_path):
    recipe = Recipe().with_words(["image_size=128", "vae_channels=8,16,32,64"])
    assert (recipe.image_size, recipe.vae_channels) == (128, (8, 16, 32, 64))
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    with pytest.raises(ValueError, match=r"expected name=number .* got 'size=big'"):
        recipe.with_words(["size=big"])


def test_long_preparations_tell_of_their_progress(tmp_path, capsys):
    context = tiny_context(tmp_path, tmp_path, n_renders=3)
    data = renders_of(context)
    captions(context, data.truths, word_tokenizer(world.vocabulary(), 32))
    build(context.recipe).save_pretrained(tmp_path / "pipeline" / "vae")
    unet.cached_latents(context, data.images)
    reader.degraded(data.images, context)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name}: 1 of 1 parts, 0:00 left" for name in ("renders", "captions", "latents", "degraded")]


def test_latents_in_chunks_are_those_of_all_at_once(monkeypatch, tmp_path):
    context = tiny_context(tmp_path, tmp_path)
    vae = build(context.recipe).eval()
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    images = np.random.default_rng(0).integers(256, size=(5, 16, 16, 3), dtype=np.uint8)
    monkeypatch.setattr(unet, "in_chunks", lambda images: vae_module.in_chunks(images, 2))
    latents = unet.cached_latents(context, images)
    torch.testing.assert_close(latents, encode(vae, images, "cpu") * vae.config.scaling_factor)
    monkeypatch.setattr(unet, "encode", lambda *given: pytest.fail("encoded again"))
    assert torch.equal(unet.cached_latents(context, images), latents)


def test_renders_are_drawn_once_and_go_on_where_they_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("menagerie.training.data.CHUNK", 2)
    data = renders(tmp_path, 5, 32)
    np.testing.assert_array_equal(data.images[4], draw(4, 32).image)
    np.testing.assert_array_equal(data.masks[4], draw(4, 32).mask)
    np.testing.assert_array_equal(data.joints[4], draw(4, 32).joints)
    assert data.truths[4] == draw(4, 32).truth
    (tmp_path / "renders_32_5/truths/00000002.json").unlink()  # as if that part had never ended
    drawn = []
    monkeypatch.setattr("menagerie.training.data._parallel", lambda name, task, items: drawn.extend(items) or [
        task(item) for item in items])  # fmt: skip
    again = renders(tmp_path, 5, 32)
    assert drawn == [2]
    assert again.truths == data.truths
    renders(tmp_path, 5, 32)
    assert drawn == [2]


def test_renders_to_learn_from_have_more_poses_than_those_held_out():
    shares = [
        np.mean([draw(start + i, 16).truth["arms"] != "down" for i in range(150)]) for start in (0, 2_000_000_000)
    ]
    assert shares[0] > shares[1] + 0.08


def test_captions_to_learn_from_name_details_more_often():
    truths, rng = [draw(seed, 32).truth for seed in range(200)], Random(0)
    usual, learning = (
        sum("eyes" in world.caption(truth, rng, details=details).named for truth in truths) for details in (1.0, 2.0)
    )
    assert learning > 1.3 * usual > 0


def test_captions_are_token_ids_of_the_grammar(tmp_path):
    context = tiny_context(tmp_path, tmp_path, n_captions=2)
    truths = [draw(seed, 64).truth for seed in range(3)]
    tokenizer = text.world_tokenizer(context.recipe)
    found = captions(context, truths, tokenizer)
    assert found.shape == (3, 2, 32)
    said = tokenizer.decode(found[1, 0], skip_special_tokens=True)
    assert all(truths[1][name] == value for name, value in world.named_in(said).items())


def test_targets_name_every_attribute():
    truth = draw(5, 32).truth
    row = targets([truth])[0]
    assert [values[i] for values, i in zip(world.ATTRIBUTES.values(), row, strict=True)] == [
        truth[name] for name in world.ATTRIBUTES
    ]


def test_a_saved_autoencoder_learns_on_without_moving_its_latents(tmp_path):
    out = tmp_path / "out"
    images = renders_of(tiny_context(tmp_path, out)).images
    vae_module.train(tiny_context(tmp_path, out, minutes=0.02))
    first = AutoencoderKL.from_pretrained(out / "pipeline/vae")
    (tmp_path / "vae.pt").unlink()
    vae_module.train(tiny_context(tmp_path, out, minutes=0.02, from_saved=True))
    second = AutoencoderKL.from_pretrained(out / "pipeline/vae")
    latents = encode(first, images, "cpu")
    assert torch.equal(encode(second, images, "cpu"), latents)
    assert (decode(second, latents, "cpu") != decode(first, latents, "cpu")).any()


def test_a_saved_model_of_other_sizes_is_refused(tmp_path):
    build(Recipe(vae_channels=(4, 8))).save_pretrained(tmp_path)
    with pytest.raises(TrainingError, match="a model of other sizes cannot go on"):
        load_weights(build(Recipe(vae_channels=(8, 16))), tmp_path)


def test_a_reader_that_learnt_fewer_labels_gives_what_it_knows(tmp_path):
    recipe = Recipe().with_words(TINY)
    small, grown = reader.build(recipe), reader.build(recipe)
    small.classifier[1] = torch.nn.Linear(small.classifier[1].in_features, 91)
    small.config.id2label = {i: label for i, label in small.config.id2label.items() if i < 91}
    small.save_pretrained(tmp_path)
    assert load_weights(grown, tmp_path) == {"classifier.1.weight": 91, "classifier.1.bias": 91}
    assert torch.equal(grown.classifier[1].weight[:91], small.classifier[1].weight)


def test_a_figure_s_share_of_each_latent_pixel():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2, :2] = True  # a whole latent pixel
    masks[1, 3, 3] = True  # a quarter of one
    assert figure_shares(masks, 2)[:, 0].tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 0.25]]]


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
    image = pipeline("a sticker of a fox", num_inference_steps=2).images[0]
    side = Recipe.load(SHIPPED / "recipe.json").image_size
    assert image.size == (side, side)
    assert np.asarray(image).std() > 1, "an image, not one colour"


def test_the_shipped_files_are_half_precision_and_small():
    weights = sorted(SHIPPED.rglob("*.safetensors"))
    assert len(weights) == 10
    for file in weights:
        with safe_open(file, framework="pt") as opened:
            kinds = {key: opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118, not a dict
        other = {key: kind for key, kind in kinds.items() if kind != "F16" and not key.endswith("num_batches_tracked")}
        assert not other, file
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= 62e6
