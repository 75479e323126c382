"""What a character exports is loaded, and drawn alike, by programs that know nothing of this package."""

from __future__ import annotations

import ast
import base64
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import full_size_unet
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from chosen_one_nb import export
from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.export import a1111_prompt, comfyui_prompt
from chosen_one_nb.export.content import Base, ExportContent, ImageRecord
from chosen_one_nb.export.kohya import kohya_tensors
from chosen_one_nb.export.writer import comfyui_workflow, readme
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.lora import TARGETS, initial_lora
from chosen_one_nb.steps.prompts import condition, encoders

SEED = 20231116
NAME = "chosen_x"


def made_for(models: Any, settings: Any, *, vectors: int = 2) -> Character:
    """Random numbers large enough to be seen; alpha is not the rank, and the word has several rows."""
    g = torch.Generator().manual_seed(5)
    shapes = {key: weight.shape for key, weight in initial_lora(models.pipeline.unet, 2, g).items()}
    lora = {key: torch.randn(shape, generator=g) * 0.3 for key, shape in shapes.items()}
    widths = [(key, getattr(models.pipeline, name).config.hidden_size) for key, name, _ in encoders(models.pipeline)]
    rows = {key: torch.randn(vectors, width, generator=g) for key, width in widths}
    first = {key: torch.randn(vectors, width, generator=g) for key, width in widths}
    about = {"prompt": "a red fox", "model": models.name, "n_images": 5, "seed": 3, "settings": settings.model_dump()}
    return Character(lora, rows, "<v>", "a red fox <v> on the beach", 2, 1.0, first, about)


@pytest.fixture(scope="module")
def how() -> Any:
    """Settings of every image here."""
    return Settings.preset("quick", sampling_steps=3, guidance_scale=2.5, guidance_rescale=0.3)


@pytest.fixture(scope="module", params=["sdxl", "sd"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def exports(models: Any, sd_models: Any, how: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By kind: models, character, gallery of one image, and the folder exported to."""
    found = {}
    for kind, which in (("sdxl", models), ("sd", sd_models)):
        character = made_for(which, how)
        gallery = generate(which, SamplingRequest(character.prompt(), [SEED], how, character))
        folder = export.write(character, tmp_path_factory.mktemp("exports") / kind, images=gallery, name=NAME)
        found[kind] = (which, character, gallery, folder)
    return found


def underscored(character: Character) -> dict[str, torch.Tensor]:
    """The LoRA of any character as kohya names those of SD 1.x: after diffusers."""
    return kohya_tensors(dataclasses.replace(character, tokens={"clip_l": character.tokens["clip_l"]}))


def python_of(folder: Path) -> str:
    """The Python lines of an export's README."""
    return re.search(r"```python\n(.*?)\n```", (folder / "README.md").read_text(), re.DOTALL)[1]


# --- stock diffusers, in a process of its own

STOCK = """
import json, os, sys
import numpy as np
import transformers, diffusers
transformers.utils.logging.disable_progress_bar()
diffusers.utils.logging.disable_progress_bar()

for job in json.load(sys.stdin):
    os.chdir(job["folder"])
    space = {}
    exec(job["code"], space)
    if job["latents"]:
        np.save(job["latents"], space["image"].numpy())
assert not [name for name in sys.modules if name.startswith("chosen_one_nb")], "the kit was imported"
"""


@pytest.fixture(scope="module")
def drawn_by_stock(exports: Any) -> None:
    """Run each README's lines as they are; then again for latents, with the diffusers and the kohya files."""
    jobs = []
    for _, character, _, folder in exports.values():
        code = python_of(folder)
        latents = code.replace("\n).images[0]", "\n    output_type='latent',\n).images")
        latents = latents.replace('image.save("image.png")', "")
        assert latents.count("latent'") == 1
        save_file(underscored(character), folder / "underscored.safetensors")
        own = '"diffusers", weight_name="pytorch_lora_weights.safetensors"'
        assert own in code
        rows = f"embeddings/{NAME}.safetensors"
        as_kohya = latents.replace("diffusers/embeddings.safetensors", rows)
        as_kohya = as_kohya.replace("inversion('diffusers',", f"inversion('{rows}',")
        jobs += [
            {"folder": str(folder), "code": code, "latents": ""},
            {"folder": str(folder), "code": latents, "latents": "diffusers.npy"},
            {"folder": str(folder), "code": as_kohya.replace(own, f'"loras/{NAME}.safetensors"'),
             "latents": "kohya.npy"},
            {"folder": str(folder), "code": latents.replace(own, '"underscored.safetensors"'),
             "latents": "underscored.npy"},
            {"folder": str(folder), "code": re.sub("pipe.load_lora_weights.*", "", latents),
             "latents": "without_lora.npy"},
            {"folder": str(folder), "code": re.sub("pipe.*eos_token_id =.*", "", latents),
             "latents": "without_eos.npy"},
        ]  # fmt: skip
    told = subprocess.run(
        [sys.executable, "-I", "-c", STOCK], input=json.dumps(jobs), capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "eprecat" not in told.stderr.replace("DeprecationWarning: __array__", ""), told.stderr


@pytest.mark.parametrize("file", ["diffusers", "kohya", "underscored"])
@pytest.mark.usefixtures("drawn_by_stock")
def test_stock_diffusers_draws_the_same_latents(exports: Any, kind: str, file: str) -> None:
    """From `diffusers/`, from the kohya LoRA with SDXL's names, and from one with diffusers' names."""
    _, _, gallery, folder = exports[kind]
    np.testing.assert_allclose(np.load(folder / f"{file}.npy"), gallery.latents, atol=1e-4)


@pytest.mark.usefixtures("drawn_by_stock")
def test_the_lines_about_lora_and_end_are_needed(exports: Any, kind: str) -> None:
    """So the test above can fail; without the second one SDXL pools at the new word (pitfall 1)."""
    _, _, gallery, folder = exports[kind]
    off = {name: np.abs(np.load(folder / f"without_{name}.npy") - gallery.latents).max() for name in ("lora", "eos")}
    assert off["lora"] > 0.05
    assert off["eos"] > 0.005 if kind == "sdxl" else off["eos"] < 1e-4


@pytest.mark.usefixtures("drawn_by_stock")
def test_the_readme_draws_the_same_pixels(exports: Any, kind: str, how: Any) -> None:
    models, _, gallery, folder = exports[kind]
    theirs = np.asarray(Image.open(folder / "image.png"), dtype=int)
    assert np.abs(theirs - np.asarray(gallery.images[0], dtype=int)).max() <= 1
    base = generate(models, SamplingRequest("a red fox on the beach", [SEED], how)).images[0]
    assert np.abs(theirs - np.asarray(base, dtype=int)).max() > 20


# --- names of every layer of a full-size SDXL


@pytest.fixture(scope="module")
def sdxl_unet() -> Any:
    """SDXL's UNet without weights."""
    return full_size_unet()


@pytest.fixture(scope="module")
def full_size(sdxl_unet: Any) -> Character:
    g = torch.Generator().manual_seed(0)
    lora = {key: torch.randn(w.shape, generator=g) for key, w in initial_lora(sdxl_unet, 1, g).items()}
    rows = {"clip_l": torch.randn(1, 768, generator=g), "clip_g": torch.randn(1, 1280, generator=g)}
    return Character(lora, rows, "<v>", "a sticker of a fox <v>", 1, 0.5, provenance={"model": "sdxl"})


# Where SDXL's UNet has attention: place, channels, transformer blocks (its published sgm configuration).
SGM = (
    [(f"input_blocks_{i}", 640, 2) for i in (4, 5)]
    + [(f"input_blocks_{i}", 1280, 10) for i in (7, 8)]
    + [("middle_block", 1280, 10)]
    + [(f"output_blocks_{i}", 1280, 10) for i in (0, 1, 2)]
    + [(f"output_blocks_{i}", 640, 2) for i in (3, 4, 5)]
)


def sgm_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {}
    for place, channels, depth in SGM:
        for d in range(depth):
            for attention in ("attn1", "attn2"):
                for to in ("to_q", "to_k", "to_v", "to_out_0"):
                    key = f"lora_unet_{place}_1_transformer_blocks_{d}_{attention}_{to}"
                    text = attention == "attn2" and to in ("to_k", "to_v")
                    shapes[f"{key}.lora_down.weight"] = (1, 2048 if text else channels)
                    shapes[f"{key}.lora_up.weight"] = (channels, 1)
                    shapes[f"{key}.alpha"] = ()
    return shapes


def test_every_kohya_name_follows_the_sdxl_rules(full_size: Character) -> None:
    got = {key: tuple(tensor.shape) for key, tensor in kohya_tensors(full_size).items()}
    assert got == sgm_shapes()
    assert len(got) == 3 * 560


def test_every_underscored_name_is_the_modules(sdxl_unet: Any, full_size: Character) -> None:
    modules = [name for name, _ in sdxl_unet.named_modules() if re.fullmatch(TARGETS, name)]
    got = {key.split(".")[0] for key in underscored(full_size)}
    assert got == {"lora_unet_" + name.replace(".", "_") for name in modules}
    assert len(got) == 560


def by_a1111_rule(key: str) -> str:
    """How A1111 turns underscored names into those of the SGM code."""
    for pattern, place in (
        (r"lora_unet_down_blocks_(\d+)_attentions_(\d+)_", lambda b, i: f"input_blocks_{1 + 3 * b + i}"),
        (r"lora_unet_up_blocks_(\d+)_attentions_(\d+)_", lambda b, i: f"output_blocks_{3 * b + i}"),
        (r"lora_unet_mid_block_attentions_0_", lambda: "middle_block"),
    ):
        key = re.sub(pattern, lambda m, place=place: f"lora_unet_{place(*map(int, m.groups()))}_1_", key)
    return key


def test_both_namings_mean_the_same_layers(full_size: Character) -> None:
    sgm, plain = kohya_tensors(full_size), underscored(full_size)
    assert all(torch.equal(sgm[by_a1111_rule(key)], tensor) for key, tensor in plain.items())


def test_diffusers_puts_every_sgm_name_on_its_layer(sdxl_unet: Any, full_size: Character) -> None:
    from diffusers import StableDiffusionXLPipeline

    state, alphas = StableDiffusionXLPipeline.lora_state_dict(kohya_tensors(full_size), unet_config=sdxl_unet.config)
    assert len(state) == 2 * 560
    for key, tensor in state.items():
        name = re.sub(r"\.processor\.to_(q|k|v|out)_lora\.", r".to_\1.", key.removeprefix("unet."))
        name = name.replace("to_out.", "to_out.0.")
        name = name.replace("down.weight", "lora_A.weight").replace("up.weight", "lora_B.weight")
        assert torch.equal(tensor, full_size.lora[name])
    assert set(alphas.values()) == {0.5}
    assert len(alphas) == 560


def test_full_size_there_and_back(full_size: Character, tmp_path: Path) -> None:
    folder = export.write(full_size, tmp_path / "Jasper the fox")
    same(export.read(folder / "loras" / "chosen_jasper_the_fox.safetensors"), full_size)
    assert "cannot load it" not in (folder / "README.md").read_text()
    assert "Open RAIL++-M" in (folder / "README.md").read_text()


# --- there and back


def same(got: Character, character: Character, *, initial: bool = False, notes: bool = True) -> None:
    """Bit by bit."""
    pairs = [(got.lora, character.lora), (got.tokens, character.tokens)]
    for ours, theirs in [*pairs, (got.initial, character.initial)] if initial else pairs:
        assert ours.keys() == theirs.keys()
        assert all(ours[key].dtype == torch.float32 and torch.equal(ours[key], theirs[key]) for key in ours)
    assert (got.rank, got.alpha, got.token) == (character.rank, character.alpha, character.token)
    assert not notes or (got.caption, got.provenance) == (character.caption, character.provenance)


def test_the_whole_folder_comes_back(exports: Any, kind: str) -> None:
    _, character, _, folder = exports[kind]
    same(export.read(folder), character, initial=True)
    same(export.read(folder / "diffusers"), character, initial=True)


def test_the_kohya_files_come_back(exports: Any, kind: str, tmp_path: Path) -> None:
    models, character, _, folder = exports[kind]
    same(export.read(folder / "loras" / f"{NAME}.safetensors", pipeline=models.pipeline), character)
    for name in ("loras", "embeddings"):
        shutil.copytree(folder / name, tmp_path / name)
    same(export.read(tmp_path), character)
    rows = (tmp_path / "embeddings" / f"{NAME}.safetensors").rename(tmp_path / "other.safetensors")
    same(export.read(tmp_path / "loras" / f"{NAME}.safetensors", embeddings=rows), character)


def test_the_diffusers_files_come_back_without_the_kits_own(exports: Any, kind: str, tmp_path: Path) -> None:
    _, character, _, folder = exports[kind]
    shutil.copy(folder / "diffusers" / "pytorch_lora_weights.safetensors", tmp_path)
    name = "embeddings.safetensors" if kind == "sdxl" else "learned_embeds.safetensors"
    shutil.copy(folder / "diffusers" / name, tmp_path)
    same(export.read(tmp_path), character, notes=False)


def test_an_alpha_that_float32_rounds_comes_back(exports: Any, tmp_path: Path) -> None:
    character = exports["sdxl"][1]
    odd = Character(character.lora, character.tokens, "<v>", "<v>", 2, 0.1)
    same(export.read(export.write(odd, tmp_path, "kohya", name=NAME)), odd)


# --- files of other trainers


def test_diffusers_advanced_script(models: Any, model_folder: Path, tmp_path: Path) -> None:
    """Its LoRA is saved, and its rows are named and loaded, as the script and its model card do."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    stock = StableDiffusionXLPipeline.from_pretrained(model_folder / "pipeline", use_safetensors=True)
    stock.set_progress_bar_config(disable=True)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    torch.manual_seed(0)
    stock.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=targets))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(stock.unet))
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    rows = {"clip_l": torch.randn(2, 16), "clip_g": torch.randn(2, 24)}
    for name in ("fox_emb", "fox_emb_checkpoint_250"):
        save_file(rows, tmp_path / f"{name}.safetensors")

    token = ["<s0>", "<s1>"]
    for key, name, tokenizer in encoders(stock):
        encoder = getattr(stock, name)
        stock.load_textual_inversion(rows[key], token=token, text_encoder=encoder,
                                     tokenizer=getattr(stock, tokenizer))  # fmt: skip
    stock.text_encoder_2.text_model.eos_token_id = stock.tokenizer_2.eos_token_id
    theirs = draw(stock, "a photo of <s0><s1> on the beach")

    character = export.read(tmp_path, caption="a photo of <v>")
    assert (character.rank, character.alpha, character.token) == (4, 4, "<v>")
    with character.on(models.pipeline):
        np.testing.assert_allclose(draw(models.pipeline, character.prompt("on the beach")), theirs, atol=1e-4)


def diffusers_keys(character: Character) -> dict[str, torch.Tensor]:
    return {f"unet.{key}": weight for key, weight in character.lora.items()}


@pytest.mark.parametrize("spell", [diffusers_keys, kohya_tensors])
def test_a_lora_of_some_layers_only(spell: Any, models: Any, exports: Any, tmp_path: Path) -> None:
    """The advanced script can be told which blocks to train; what it leaves out draws as the base does."""
    character = dataclasses.replace(exports["sdxl"][1], alpha=2.0)
    some = {key: weight for key, weight in character.lora.items() if key.startswith("mid_block")}
    assert 0 < len(some) < len(character.lora)
    partial = dataclasses.replace(character, lora=some, initial={})
    save_file(spell(partial), tmp_path / "lora.safetensors")
    save_file(character.tokens, tmp_path / "rows.safetensors")
    got = export.read(tmp_path, pipeline=models.pipeline)
    zeros = {key: weight if key in some else weight * 0 for key, weight in character.lora.items()}
    images = []
    for which in (got, dataclasses.replace(character, lora=zeros, initial={})):
        with which.on(models.pipeline):
            images.append(draw(models.pipeline, "a red fox <v>"))
    assert np.array_equal(*images)


def test_a_part_of_the_layers_keeps_its_places_in_kohya_names(full_size: Character) -> None:
    one = {key: w for key, w in full_size.lora.items() if key.startswith("up_blocks.1.attentions.0.")}
    names = kohya_tensors(dataclasses.replace(full_size, lora=one))
    assert names.keys() < kohya_tensors(full_size).keys()


def draw(pipeline: Any, prompt: str) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    return pipeline(prompt, num_inference_steps=2, generator=generator, output_type="np").images


def test_sd_scripts_in_half_precision(full_size: Character, tmp_path: Path) -> None:
    """No notes of this kit: SDXL's names, alpha 1 as sd-scripts' default, rows with the name of the file."""
    state = {key: tensor.half() for key, tensor in kohya_tensors(full_size).items()}
    ones = {key: torch.tensor(1.0).half() for key in state if key.endswith("alpha")}
    save_file(state | ones, tmp_path / "jasper.safetensors", {"ss_network_dim": "1"})
    save_file(full_size.tokens, tmp_path / "jasper_ti.safetensors")
    got = export.read(tmp_path / "jasper.safetensors", token="<jasper>")
    assert (got.rank, got.alpha, got.token, got.caption) == (1, 1.0, "<jasper>", "<jasper>")
    assert got.lora.keys() == full_size.lora.keys()
    assert all(torch.equal(got.lora[key], full_size.lora[key].half().float()) for key in got.lora)


def test_layers_of_differing_alpha_keep_their_effect(exports: Any, tmp_path: Path) -> None:
    character = exports["sd"][1]
    state = kohya_tensors(character)
    alphas = {key: float(i + 1) for i, key in enumerate(key for key in state if key.endswith("alpha"))}
    save_file(state | {key: torch.tensor(alpha) for key, alpha in alphas.items()}, tmp_path / "a.safetensors")
    save_file({"emb_params": character.tokens["clip_l"]}, tmp_path / "b.safetensors")
    got = export.read(tmp_path)
    assert got.alpha == got.rank == 2
    for name, alpha in zip([key for key in character.lora if "lora_B" in key], alphas.values(), strict=True):
        torch.testing.assert_close(got.lora[name], character.lora[name] * alpha / 2)


def test_old_diffusers_keys_and_rows_inside_the_lora(exports: Any, tmp_path: Path) -> None:
    character = exports["sd"][1]
    old = {}
    for key, tensor in character.lora.items():
        key = re.sub(r"\.to_(q|k|v|out)(\.0)?\.lora_A", r".processor.to_\1_lora.down", key)
        key = re.sub(r"\.to_(q|k|v|out)(\.0)?\.lora_B", r".processor.to_\1_lora.up", key)
        old[f"unet.{key}"] = tensor
    assert any("to_out_lora" in key for key in old)
    save_file(old, tmp_path / "pytorch_lora_weights.safetensors")
    save_file({"<fox>": character.tokens["clip_l"]}, tmp_path / "learned_embeds.safetensors")
    got = export.read(tmp_path)
    assert got.token == "<fox>"
    assert all(torch.equal(got.lora[key], character.lora[key]) for key in character.lora)
    rows = {"bundle_emb.fox.string_to_param.*": character.tokens["clip_l"]}
    save_file(kohya_tensors(character) | rows, tmp_path / "bundled.safetensors")
    (tmp_path / "learned_embeds.safetensors").unlink()
    assert torch.equal(export.read(tmp_path / "bundled.safetensors").tokens["clip_l"], rows.popitem()[1])


# --- A1111 and ComfyUI: rows put in place of a word, pooled at the end


def placed_ids(tokenizer: Any, prompt: str, n: int) -> tuple[list[int], list[int]]:
    """Ids of a prompt in either program's spelling, and where its n rows go (0 stands there meanwhile)."""
    if "embedding:" in prompt:  # ComfyUI: word by word
        ids = []
        for word in prompt.split(" "):
            ids += [None] if word == f"embedding:{NAME}" else tokenizer(word, add_special_tokens=False).input_ids
    else:  # A1111: without <lora:...>, the word's ids looked for among the text's
        ids = tokenizer(re.sub(r" <lora:.*?>", "", prompt), add_special_tokens=False).input_ids
        word = tokenizer(NAME, add_special_tokens=False).input_ids
        at = next(i for i in range(len(ids)) if ids[i : i + len(word)] == word)
        ids[at : at + len(word)] = [None]
    at = ids.index(None) + 1
    ids = [tokenizer.bos_token_id, *ids[: at - 1], *[0] * n, *ids[at:], tokenizer.eos_token_id]
    ids += [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids))
    return ids, list(range(at, at + n))


def conditioned_elsewhere(pipeline: Any, prompt: str, rows: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    """Conditioning as A1111 and ComfyUI make it: rows written over the embedded words, no new ids."""
    states, pooled = [], None
    for key, name, tokenizer in encoders(pipeline):
        encoder = getattr(pipeline, name)
        ids, at = placed_ids(getattr(pipeline, tokenizer), prompt, len(rows[key]))

        def put(module: Any, given: Any, embedded: torch.Tensor, at: Any = at, key: str = key) -> torch.Tensor:
            embedded[:, at] = rows[key]
            return embedded

        hook = encoder.get_input_embeddings().register_forward_hook(put)
        out = encoder(torch.tensor([ids]), output_hidden_states=True)
        hook.remove()
        states.append(out.hidden_states[-2] if hasattr(pipeline, "text_encoder_2") else out.last_hidden_state)
        pooled = getattr(out, "text_embeds", None)
    return torch.cat(states, -1), pooled


@pytest.mark.parametrize("spell", [a1111_prompt, comfyui_prompt])
def test_rows_placed_as_elsewhere_condition_alike(exports: Any, kind: str, spell: Any) -> None:
    models, character, _, folder = exports[kind]
    pipeline, prompt = models.pipeline, spell(character, NAME)
    assert f"\n{prompt}\n" in (folder / "README.md").read_text()
    rows = load_file(folder / "embeddings" / f"{NAME}.safetensors")
    rows = rows if kind == "sdxl" else {"clip_l": rows["emb_params"]}
    with torch.no_grad():
        embeds, pooled = conditioned_elsewhere(pipeline, prompt, rows)
        plain = condition(pipeline, "a red fox on the beach")
        with character.on(pipeline):
            ours = condition(pipeline, character.prompt())
    torch.testing.assert_close(ours.embeds, embeds)
    assert not torch.allclose(plain.embeds, embeds, atol=1e-2)
    if kind == "sdxl":
        torch.testing.assert_close(ours.pooled, pooled)
    else:
        assert ours.pooled is None


# --- what the files say


def test_metadata(exports: Any, kind: str) -> None:
    _, _, gallery, folder = exports[kind]
    file = folder / "loras" / f"{NAME}.safetensors"
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    sdxl = kind == "sdxl"
    assert about["modelspec.architecture"] == f"stable-diffusion-{'xl-v1-base' if sdxl else 'v1'}/lora"
    assert about["modelspec.trigger_phrase"] == f"a red fox {NAME} on the beach"
    assert about["modelspec.resolution"] == "32x32"
    assert about["ss_base_model_version"] == ("sdxl_base_v1-0" if sdxl else "sd_v1")
    assert (about["ss_network_dim"], about["ss_network_alpha"], about["ss_v2"]) == ("2", "1.0", "False")
    assert json.loads(about["ss_tag_frequency"]) == {"character": {"a red fox <v> on the beach": 5}}
    head, data = about["modelspec.thumbnail"].split(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (head, image.format, image.size) == ("data:image/jpeg;base64", "JPEG", gallery.images[0].size)
    import hashlib

    content = file.read_bytes()
    body = content[8 + int.from_bytes(content[:8], "little") :]
    assert about["modelspec.hash_sha256"] == f"0x{hashlib.sha256(body).hexdigest()}"


# Inputs and outputs of ComfyUI's nodes: what each takes and gives, by type.
NODES = {
    "CheckpointLoaderSimple": ({"ckpt_name": str}, ["MODEL", "CLIP", "VAE"]),
    "LoraLoader": ({"model": "MODEL", "clip": "CLIP", "lora_name": str, "strength_model": float,
                    "strength_clip": float}, ["MODEL", "CLIP"]),
    "CLIPTextEncode": ({"clip": "CLIP", "text": str}, ["CONDITIONING"]),
    "ConditioningZeroOut": ({"conditioning": "CONDITIONING"}, ["CONDITIONING"]),
    "EmptyLatentImage": ({"width": int, "height": int, "batch_size": int}, ["LATENT"]),
    "RescaleCFG": ({"model": "MODEL", "multiplier": float}, ["MODEL"]),
    "KSampler": ({"model": "MODEL", "seed": int, "steps": int, "cfg": float, "sampler_name": str,
                  "scheduler": str, "positive": "CONDITIONING", "negative": "CONDITIONING",
                  "latent_image": "LATENT", "denoise": float}, ["LATENT"]),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ["IMAGE"]),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": str}, []),
}  # fmt: skip


def test_the_workflow_is_whole(exports: Any, kind: str) -> None:
    folder = exports[kind][3]
    nodes = json.loads((folder / "comfyui_workflow.json").read_text())
    for node in nodes.values():
        inputs, _ = NODES[node["class_type"]]
        assert node["inputs"].keys() == inputs.keys()
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source, output = value
                assert NODES[nodes[source]["class_type"]][1][output] == inputs[name]
            else:
                assert isinstance(value, inputs[name])
    by_class = {node["class_type"]: node["inputs"] for node in nodes.values()}
    assert (folder / "loras" / by_class["LoraLoader"]["lora_name"]).is_file()
    text = nodes[by_class["KSampler"]["positive"][0]]["inputs"]["text"]
    named = re.search(r"embedding:(\S+)", text)[1]
    assert (folder / "embeddings" / f"{named}.safetensors").is_file()
    sampler = by_class["KSampler"]
    assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (SEED, 3, 2.5)
    assert (by_class["EmptyLatentImage"]["width"], by_class["RescaleCFG"]["multiplier"]) == (32, 0.3)


def test_images_of_a_run_bring_seed_and_settings(exports: Any, how: Any, tmp_path: Path) -> None:
    from chosen_one_nb.run.store import write_image

    _, character, gallery, _ = exports["sdxl"]
    about = {
        "seed": "77",
        "prompt": "a <v>",
        "settings": how.replace(sampling_steps=9).model_dump_json(),
        "strength": "0.5",
    }
    write_image(tmp_path / "000.png", gallery.images[0], about)
    folder = export.write(character, tmp_path / "out", ("diffusers",), [tmp_path / "000.png", gallery.images[0]])
    text = (folder / "README.md").read_text()
    row = r"| ![Image 1](images/1.png) | 77 | a \<v\> | dpm++ | 9 | 2.5, rescale 0.3 | 32 x 32 | 0.5 |"
    assert row in text
    assert "| ![Image 2](images/2.png) | not recorded |" in text
    assert Image.open(folder / "images" / "1.png").text == about
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "diffusers", "images"]
    assert "ComfyUI" not in text.split("## Images")[1]
    assert "cannot load it" in text
    with pytest.raises(CharacterError, match="expected an image"):
        export.write(character, tmp_path / "out", images=[tmp_path / "none.png"])


def test_pixels_are_promised_only_of_images_that_another_program_can_draw(
    exports: Any, how: Any, tmp_path: Path
) -> None:
    """A context that counts more than it is written, as `RunSamples.contexts` draws it, is none of them."""
    _, character, gallery, _ = exports["sdxl"]
    weighed, plain = (gallery.images[0].copy() for _ in range(2))
    about = {"settings": how.replace(context_weight=1.5).model_dump_json(), "strength": "1.0"}
    weighed.info.update(about, seed="7", prompt="a <v> in the snow", context="in the snow")
    plain.info.update(about, seed="8", prompt="a <v>", context="")
    text = (export.write(character, tmp_path / "out", ("diffusers",), [weighed, plain]) / "README.md").read_text()
    assert r"| 7 | a \<v\> in the snow (context x 1.5) |" in text
    assert "the image is the one that the kit draws there (number 2 above), pixel by pixel" in text
    assert "seed, size = 8," in text
    alone = export.write(character, tmp_path / "alone", ("diffusers",), [weighed]) / "README.md"
    assert "the image is the one that the kit draws there, pixel by pixel" in alone.read_text()
    assert "seed, size = 0," in alone.read_text()


def test_bases_of_every_kind(full_size: Character) -> None:
    from chosen_one_nb.models.load import KNOWN

    pinned = {"model": KNOWN["sdxl"][0], "distilled": "owner/lightning/lora.safetensors@abc"}
    hub = Character(full_size.lora, full_size.tokens, "<v>", "a <v>", 1, 1.0, provenance=pinned)
    assert Base.of(hub).licence.startswith("CreativeML Open RAIL++-M")
    assert Base.of(hub).checkpoint == "sd_xl_base_1.0.safetensors"
    line = f"from_pretrained(base, use_safetensors=True, revision='{KNOWN['sdxl'][0].split('@')[1]}', dtype=dtype"
    assert line in readme(ExportContent(hub, NAME), ("diffusers",))
    hub.provenance = {"model": "sdxl", "load": {"name": KNOWN["sdxl"][0]}}
    assert line in readme(ExportContent(hub, NAME), ("diffusers",))
    hub.provenance = {"model": "sdxl"}
    assert "revision=" not in readme(ExportContent(hub, NAME), ("diffusers",))
    hub.provenance = pinned
    assert "Distilled to few steps with owner/lightning" in readme(ExportContent(hub, NAME), ("diffusers",))
    file = Character(full_size.lora, full_size.tokens, "<v>", "a <v>", 1, 1.0, provenance={"model": "x/my.safetensors"})
    assert Base.of(file).checkpoint == "my.safetensors"
    assert "from_single_file(base, dtype=dtype" in readme(ExportContent(file, NAME), ("diffusers",))


NASTY = "a *fox* | <img src=x> ```\n# (big) [one] {or} \"two\" 'three' \\ `x` _<v>_, $1$"


def test_user_text_is_shown_not_obeyed(full_size: Character) -> None:
    character = Character(full_size.lora, full_size.tokens, "<v>", NASTY, 1, 1.0, provenance={"prompt": NASTY})
    image = ImageRecord(NASTY, 1, Settings.preset("paper"), Image.new("RGB", (8, 8)))
    text = readme(ExportContent(character, NAME, [image]), export.FORMATS)
    blocks = re.findall(r"^(`{3,})(\w*)\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    code = next(body for _, language, body in blocks if language == "python")
    strings = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert " ".join(NASTY.split()) in strings
    prose = re.sub(r"^(`{3,})(\w*)\n(.*?)\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<img" not in prose.replace(r"\<img", "")
    assert not re.search(r"^# \(big", prose, re.MULTILINE)
    row = next(line for line in prose.splitlines() if line.startswith("| !["))
    assert len(re.findall(r"(?<!\\)\|", row)) == 9
    assert r"\(big\) \[one\] {or}" in a1111_prompt(character, NAME)
    assert r"\(big\) [one] \{or\} " in comfyui_prompt(character, NAME)
    assert f" embedding:{NAME} _, $1$" in comfyui_workflow(ExportContent(character, NAME))["3"]["inputs"]["text"]


# --- errors: expected, got, what to do


def truncated_lora(c: Character, f: Path) -> Any:
    file = f / "loras" / f"{NAME}.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    return {"path": file}


def truncated_rows(c: Character, f: Path) -> Any:
    file = f / "embeddings" / f"{NAME}.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    return {"path": f / "loras" / f"{NAME}.safetensors"}


def a_pickle(c: Character, f: Path) -> Any:
    torch.save(c.tokens, f / "rows.pt")
    return {"path": f / "loras" / f"{NAME}.safetensors", "embeddings": f / "rows.pt"}


def other_width(c: Character, f: Path) -> Any:
    save_file({"emb_params": torch.zeros(1, 768)}, f / "narrow.safetensors")
    return {"path": f / "loras" / f"{NAME}.safetensors", "embeddings": f / "narrow.safetensors"}


def unequal_rows(c: Character, f: Path) -> Any:
    save_file({"clip_l": torch.zeros(1, 16), "clip_g": torch.zeros(2, 24)}, f / "odd.safetensors")
    return {"path": f / "loras" / f"{NAME}.safetensors", "embeddings": f / "odd.safetensors"}


def other_rank(c: Character, f: Path) -> Any:
    lora = {f"unet.{key}": w.repeat(2, 1) if "_A" in key else w.repeat(1, 2) for key, w in c.lora.items()}
    save_file(lora, f / "diffusers" / "pytorch_lora_weights.safetensors")
    return {"path": f}


def half_missing(c: Character, f: Path) -> Any:
    state = kohya_tensors(c)
    state.pop(next(key for key in state if "lora_up" in key))
    save_file(state, f / "half.safetensors")
    return {"path": f / "half.safetensors", "embeddings": f / "embeddings" / f"{NAME}.safetensors"}


def another_model(c: Character, f: Path) -> Any:
    more = {"lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight": torch.zeros(1, 8)}
    save_file(kohya_tensors(c) | more, f / "other.safetensors")
    return {"path": f / "other.safetensors", "embeddings": f / "embeddings" / f"{NAME}.safetensors"}


def mixed_names(c: Character, f: Path) -> Any:
    mixed = kohya_tensors(c) | {key: tensor.clone() for key, tensor in underscored(c).items()}
    save_file(mixed, f / "mixed.safetensors")
    return {"path": f / "mixed.safetensors", "embeddings": f / "embeddings" / f"{NAME}.safetensors"}


def with_metadata(value: str) -> Any:
    def damage(c: Character, f: Path) -> Any:
        file = f / "noted.safetensors"
        save_file(diffusers_keys(c), file, {"lora_adapter_metadata": value})
        return {"path": file, "embeddings": f / "embeddings" / f"{NAME}.safetensors"}

    return damage


def two_bundles(c: Character, f: Path) -> Any:
    rows = {f"bundle_emb.{name}.string_to_param.*": c.tokens["clip_l"].clone() for name in ("fox", "cat")}
    save_file(kohya_tensors(c) | rows, f / "loras" / "bundled.safetensors")
    return {"path": f / "loras" / "bundled.safetensors"}


def rows_for_lora(c: Character, f: Path) -> Any:
    return {"path": f / "embeddings" / f"{NAME}.safetensors"}


def lora_for_rows(c: Character, f: Path) -> Any:
    file = f / "loras" / f"{NAME}.safetensors"
    return {"path": file, "embeddings": file}


def two_loras(c: Character, f: Path) -> Any:
    shutil.rmtree(f / "diffusers")
    shutil.copy(f / "loras" / f"{NAME}.safetensors", f / "second.safetensors")
    return {"path": f}


def no_rows(c: Character, f: Path) -> Any:
    shutil.rmtree(f / "embeddings")
    return {"path": f / "loras" / f"{NAME}.safetensors"}


def nothing(c: Character, f: Path) -> Any:
    return {"path": f / "nowhere.safetensors"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated_lora, r"loras.chosen_x.*expected a whole safetensors file, got .* bytes .* copy it again"),
        (truncated_rows, r"embeddings.chosen_x.*expected a whole safetensors file, got 20 bytes"),
        (a_pickle, r"(?s)rows.pt: expected a .safetensors file, got a pickle; .*save_file"),
        (other_width, r"narrow.*expected rows whose widths sum to 40, .* got 768 .*; pass"),
        (unequal_rows, r"odd.*expected rows \(n, width\) with the same n"),
        (other_rank, r"pytorch_lora_weights.*expected a LoRA of rank 2, .* got rank 4"),
        (half_missing, r"half.*expected matrices \(r, in\) and \(out, r\) for .* got \(2, \d+\) and None"),
        (another_model, r"other.safetensors: expected a LoRA of the UNet and .* got also 1 other tensors, .*lora_te3_"),
        (mixed_names, r"mixed.safetensors: expected layers named as one program names .* got .*lora_unet_"),
        (with_metadata("{"), r"noted.*expected JSON under the metadata key lora_adapter_metadata"),
        (with_metadata('{"unet.use_dora": true}'), r"noted.*expected a plain LoRA .* got DoRA"),
        (with_metadata("[]"), r"noted.*expected JSON under the metadata key lora_adapter_metadata"),
        (with_metadata('{"unet.lora_alpha": "8"}'.replace("8", "eight")), r"noted.*how strong the LoRA"),
        (two_bundles, r"bundled.*expected at most one embedding in a LoRA file, got bundle_emb.cat"),
        (rows_for_lora, r"embeddings.*: expected a LoRA file, got tensors clip_g, clip_l"),
        (lora_for_rows, r"loras.*: expected learned rows .* got tensors lora_unet"),
        (two_loras, r"expected one LoRA file .* got .*second.*chosen_x|got .*chosen_x.*second"),
        (no_rows, r"expected one embeddings file .* got none. Where there is one, pass it as embeddings="),
        (nothing, r"nowhere.*got no file that cannot be read"),
    ],
)
def test_damaged_or_foreign_files_are_told(exports: Any, tmp_path: Path, damage: Any, message: str) -> None:
    _, character, _, folder = exports["sdxl"]
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.npy", "underscored*"))
    with pytest.raises(CharacterError, match=message):
        export.read(**damage(character, copy))


def test_a_lora_of_another_base_is_told(exports: Any) -> None:
    (models, _, _, sdxl), (_, _, _, sd) = exports["sdxl"], exports["sd"]
    with pytest.raises(CharacterError, match=r"expected one entry for each of .*clip_g.* got \['clip_l'\]"):
        export.read(sd, pipeline=models.pipeline)
    with pytest.raises(CharacterError, match=r"widths sum to 16, .* got 40"):
        export.read(sd / "loras" / f"{NAME}.safetensors", embeddings=sdxl / "embeddings" / f"{NAME}.safetensors")


def test_a_folder_that_cannot_be_written(exports: Any, tmp_path: Path) -> None:
    character = exports["sd"][1]
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CharacterError, match=r"that can be written, got: .* Choose another"):
            export.write(character, folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ("onnx",)}, r"formats: expected some of diffusers, kohya, comfyui, got \('onnx',\)"),
        ({"formats": ()}, "formats: expected"),
        ({"name": "../up"}, "name: expected small letters"),
        ({"name": "Jasper"}, "name: expected small letters"),
    ],
)
def test_bad_arguments(exports: Any, tmp_path: Path, arguments: Any, message: str) -> None:
    with pytest.raises(CharacterError, match=message):
        export.write(exports["sd"][1], tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
