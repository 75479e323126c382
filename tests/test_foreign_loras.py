"""LoRAs of other trainers, by their own key names, add to a UNet what those trainers' programs add."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.single_file import unet_name
from helpers.tiny_models import full_size_unet, made_for
from helpers.traces import trace
from safetensors.torch import load_file, save_file

from chosen_one_nb import export
from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.export.names import module_name
from chosen_one_nb.steps.lora import TARGETS
from chosen_one_nb.steps.prompts import condition
from chosen_one_nb.steps.refine import TrainingSet, refine

ATTENTION = TARGETS
USUAL = rf"{TARGETS}|.*\.(proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)"  # what sd-scripts adapts without being asked
LOCON = (
    rf"{USUAL}|.*\.(conv1|conv2|conv_shortcut|time_emb_proj)|.*samplers\.0\.conv|conv_in|conv_out|"
    r"(time|add)_embedding\.linear_[12]"
)
TEXT = r".*(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"

Layers = dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor, float]]  # by part and module: A, B, alpha


@pytest.fixture(scope="module")
def pipeline(models: Any) -> Any:
    """The tiny SDXL with as many layers per block as the published one, for names after the SGM code count them."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=2, block_out_channels=(8, 8, 16), norm_num_groups=4, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        transformer_layers_per_block=1, cross_attention_dim=40, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24 + 6 * 8,
    ).eval().requires_grad_(False)  # fmt: skip
    return StableDiffusionXLPipeline(**{**models.pipeline.components, "unet": unet}, add_watermarker=False)


def trained(
    pipeline: Any, targets: str, *, text: bool = False, ranks: tuple[int, ...] = (3,), alpha: float = 1.5
) -> Layers:
    """What a trainer has learned: random matrices for every module that it adapts."""
    g, layers = torch.Generator().manual_seed(7), {}
    parts = {"unet": targets} | ({"text_encoder": TEXT, "text_encoder_2": TEXT} if text else {})
    for part, pattern in parts.items():
        for name, module in getattr(pipeline, part).named_modules():
            if re.fullmatch(pattern, name) and hasattr(module, "weight"):
                rank, (wide, *rest) = ranks[len(layers) % len(ranks)], module.weight.shape
                ends = (1,) * (module.weight.ndim - 2)
                down, up = torch.randn(rank, *rest, generator=g), torch.randn(wide, rank, *ends, generator=g)
                layers[part, name] = (0.2 * down, 0.2 * up, alpha)
    return layers


def merged(pipeline: Any, layers: Layers) -> Any:
    """A copy of the pipeline with W + alpha / r * B A in place of each W: the definition."""
    whole = {part: copy.deepcopy(getattr(pipeline, part)) for part in ("unet", "text_encoder", "text_encoder_2")}
    for (part, name), (down, up, alpha) in layers.items():
        weight = whole[part].get_submodule(name).weight
        weight.data += alpha / len(down) * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    return type(pipeline)(**{**pipeline.components, **whole}, add_watermarker=False)


@torch.no_grad()
def predict(pipeline: Any, prompt: str = "a red fox") -> torch.Tensor:
    """What the UNet makes of noise and a prompt."""
    g = torch.Generator().manual_seed(1)
    text = condition(pipeline, prompt)
    added = {"text_embeds": text.pooled, "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]])}
    noisy = torch.randn(1, 4, 8, 8, generator=g)
    return pipeline.unet(noisy, 500, encoder_hidden_states=text.embeds, added_cond_kwargs=added).sample


def draws_like(character: Character, pipeline: Any, reference: Any) -> None:
    """The character on the pipeline predicts what the reference does, and something else than the base."""
    expected, base = predict(reference), predict(pipeline)
    before = trace(pipeline)
    with character.on(pipeline):
        torch.testing.assert_close(predict(pipeline), expected, atol=2e-5, rtol=1e-4)
    assert (base - expected).abs().max() > 0.02
    assert trace(pipeline) == before


# --- how each program names what it has trained


def sgm(pipeline: Any, name: str) -> str:
    return unet_name(f"{name}.weight", 2, pipeline.unet).removesuffix(".weight")


def clip(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def named(layers: Layers, spell: Callable[[str, str], str], alpha: bool = True) -> dict[str, torch.Tensor]:
    """Matrices as most trainers name them: `lora_down`, `lora_up`, `alpha`."""
    found = {}
    for (part, name), (down, up, value) in layers.items():
        found |= {f"{spell(part, name)}.lora_down.weight": down, f"{spell(part, name)}.lora_up.weight": up}
        found |= {f"{spell(part, name)}.alpha": torch.tensor(value)} if alpha else {}
    return {key: tensor.contiguous() for key, tensor in found.items()}


def sd_scripts(pipeline: Any) -> Callable[[str, str], str]:
    starts = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    return lambda part, name: (
        f"lora_unet_{sgm(pipeline, name)}" if part == "unet" else f"{starts[part]}{clip(name)}"
    ).replace(".", "_")


def onetrainer(pipeline: Any) -> Callable[[str, str], str]:
    starts = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
    return lambda part, name: f"unet.{sgm(pipeline, name)}" if part == "unet" else f"{starts[part]}.{clip(name)}"


def onetrainer_after_diffusers(pipeline: Any) -> Callable[[str, str], str]:
    starts = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    return lambda part, name: f"lora_unet.{name}" if part == "unet" else f"{starts[part]}.{clip(name)}"


def lycoris_after_diffusers(pipeline: Any) -> Callable[[str, str], str]:
    return lambda part, name: f"lora_unet_{name.replace('.', '_')}"


def comfyui(pipeline: Any) -> Callable[[str, str], str]:
    starts = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
    return lambda part, name: (
        f"diffusion_model.{sgm(pipeline, name)}"
        if part == "unet"
        else f"text_encoders.{starts[part]}.transformer.{clip(name)}"
    )


@pytest.mark.parametrize(
    ("spell", "targets", "more"),
    [
        pytest.param(sd_scripts, ATTENTION, {}, id="sd-scripts, attention only"),
        pytest.param(sd_scripts, USUAL, {}, id="sd-scripts, its usual network"),
        pytest.param(sd_scripts, USUAL, {"text": True}, id="sd-scripts with text encoders"),
        pytest.param(sd_scripts, LOCON, {"text": True}, id="LoCon"),
        pytest.param(lycoris_after_diffusers, LOCON, {}, id="LoCon after diffusers"),
        pytest.param(sd_scripts, USUAL, {"ranks": (2, 4, 3)}, id="ranks by block, or resized"),
        pytest.param(onetrainer, LOCON, {"text": True}, id="OneTrainer"),
        pytest.param(onetrainer_after_diffusers, USUAL, {"text": True}, id="OneTrainer after diffusers"),
        pytest.param(comfyui, USUAL, {"text": True, "alpha": None}, id="ComfyUI"),
    ],
)  # fmt: skip
def test_a_file_without_embeddings_adds_what_its_trainer_adds(
    spell: Any, targets: str, more: Any, pipeline: Any, tmp_path: Path
) -> None:
    own_alpha = more.get("alpha", 1.5) is not None
    layers = trained(pipeline, targets, **{**more, "alpha": 1.5 if own_alpha else 3.0})
    save_file(named(layers, spell(pipeline), alpha=own_alpha), tmp_path / "lora.safetensors")
    character = export.read(tmp_path / "lora.safetensors")
    assert (character.tokens, character.token, character.caption) == ({}, "", "")
    draws_like(character, pipeline, merged(pipeline, layers))
    # saved, and exported for others, it is the same
    draws_like(Character.load(character.save(tmp_path / "saved")), pipeline, merged(pipeline, layers))
    folder = export.write(character, tmp_path / "out", name="x")
    assert not (folder / "embeddings").exists()
    draws_like(export.read(folder / "loras" / "x.safetensors"), pipeline, merged(pipeline, layers))
    stock = merged(pipeline, {})
    stock.load_lora_weights(str(tmp_path / "saved"), weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(predict(stock), predict(merged(pipeline, layers)), atol=2e-5, rtol=1e-4)


def test_all_722_modules_of_sd_scripts_usual_network_are_known() -> None:
    unet = full_size_unet()
    names = [name for name, _ in unet.named_modules() if re.fullmatch(USUAL, name)]
    assert len(names) == 722
    for name in names:
        theirs = unet_name(f"{name}.weight", 2, unet).removesuffix(".weight")
        for spelled in (
            f"lora_unet_{theirs.replace('.', '_')}",
            f"unet.{theirs}",
            f"lora_unet_{name.replace('.', '_')}",
        ):
            assert module_name(spelled) == ("unet", name)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("targets", [ATTENTION, USUAL])
def test_a_peft_folder_loads_at_its_own_strength(pipeline: Any, targets: str, rslora: bool, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(5)
    config = LoraConfig(
        r=4, lora_alpha=10, target_modules=targets, use_rslora=rslora, init_lora_weights=False,
        rank_pattern={"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 2}, alpha_pattern={"attn2.to_k": 3},
    )  # fmt: skip
    made = get_peft_model(copy.deepcopy(pipeline.unet), config)
    for key, weight in made.named_parameters():
        weight.data *= 0.2 if "lora_B" in key else 1.0  # so that rounding stays small
    made.save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(copy.deepcopy(pipeline.unet), tmp_path).base_model.model
    reference = type(pipeline)(**{**pipeline.components, "unet": theirs}, add_watermarker=False)
    draws_like(export.read(tmp_path), pipeline, reference)


def peft_folder(pipeline: Any, folder: Path, **more: Any) -> Path:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=4, target_modules=ATTENTION, **more)
    get_peft_model(copy.deepcopy(pipeline.unet), config).save_pretrained(folder)
    return folder


def test_a_peft_folder_without_its_configuration_is_refused(pipeline: Any, tmp_path: Path) -> None:
    (peft_folder(pipeline, tmp_path) / "adapter_config.json").unlink()
    with pytest.raises(CharacterError, match=r"adapter_model.safetensors: expected JSON under adapter_config.json"):
        export.read(tmp_path)


def as_diffusers(layers: Layers) -> dict[str, torch.Tensor]:
    """A and B of layers under diffusers' own names."""
    state = {}
    for (part, name), (down, up, _) in layers.items():
        module = name if part == "unet" else clip(name)
        state |= {f"{part}.{module}.lora_A.weight": down, f"{part}.{module}.lora_B.weight": up}
    return state


def test_diffusers_scripts_metadata_and_text_encoders(pipeline: Any, tmp_path: Path) -> None:
    """As `train_dreambooth_lora_sdxl.py --train_text_encoder` saves them: PEFT's configurations in the metadata."""
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY

    layers = trained(pipeline, USUAL, text=True, alpha=6.0)
    state = as_diffusers(layers)
    own = {"r": 3, "lora_alpha": 6, "target_modules": ["to_q"], "use_rslora": False, "rank_pattern": {}}
    config = {
        f"{part}.{key}": value for part in ("unet", "text_encoder", "text_encoder_2") for key, value in own.items()
    }
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors", {LORA_ADAPTER_METADATA_KEY: json.dumps(config)})
    draws_like(export.read(tmp_path), pipeline, merged(pipeline, layers))


def test_the_folder_of_diffusers_advanced_script_holds_the_lora_twice(pipeline: Any, tmp_path: Path) -> None:
    from diffusers.utils import convert_all_state_dict_to_peft, convert_state_dict_to_kohya

    layers = trained(pipeline, ATTENTION, text=True, alpha=3.0)
    state = as_diffusers(layers)
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors")
    twin = convert_state_dict_to_kohya(
        convert_all_state_dict_to_peft(load_file(tmp_path / "pytorch_lora_weights.safetensors"))
    )
    save_file({key: tensor.contiguous() for key, tensor in twin.items()}, tmp_path / "web_y2k.safetensors")
    rows = {"clip_l": torch.randn(2, 16), "clip_g": torch.randn(2, 24)}
    save_file(rows, tmp_path / "web_y2k_emb.safetensors")
    character = export.read(tmp_path)
    assert character.tokens.keys() == rows.keys()
    draws_like(character, pipeline, merged(pipeline, layers))
    other = {key: tensor + 1 if "lora_up" in key else tensor for key, tensor in twin.items()}
    save_file(other, tmp_path / "web_y2k.safetensors")
    with pytest.raises(CharacterError, match=r"expected one LoRA file .* got .*pytorch_lora_weights.*web_y2k"):
        export.read(tmp_path)


def test_cog_sdxl(pipeline: Any, tmp_path: Path) -> None:
    """Attention processors without prefix, and rows in a file that is safetensors in all but its name."""
    layers = trained(pipeline, ATTENTION, alpha=3.0)
    state = {}
    for (_, name), (down, up, _) in layers.items():
        attention, _, to = name.removesuffix(".0").rpartition(".")
        state |= {
            f"{attention}.processor.{to}_lora.down.weight": down,
            f"{attention}.processor.{to}_lora.up.weight": up,
        }
    save_file(state, tmp_path / "lora.safetensors")
    rows = {"text_encoders_0": torch.randn(2, 16), "text_encoders_1": torch.randn(2, 24)}
    save_file(rows, tmp_path / "embeddings.pti")
    for path in (tmp_path, tmp_path / "lora.safetensors"):
        character = export.read(path)
        assert torch.equal(character.tokens["clip_g"], rows["text_encoders_1"])
        draws_like(character, pipeline, merged(pipeline, layers))


def test_onetrainers_rows_that_go_in_and_rows_added_behind_are_told_apart(pipeline: Any, tmp_path: Path) -> None:
    lora = named(trained(pipeline, ATTENTION), onetrainer(pipeline))
    rows = {"bundle_emb.fox.clip_l": torch.randn(1, 16), "bundle_emb.fox.clip_g": torch.randn(1, 24)}
    save_file(lora | rows, tmp_path / "fox.safetensors")
    tokens = export.read(tmp_path / "fox.safetensors").tokens
    assert all(torch.equal(tokens[key.rpartition(".")[2]], row) for key, row in rows.items())
    behind = {f"{key}_out": torch.full_like(row, 7.0) for key, row in rows.items()}
    save_file(lora | rows | behind, tmp_path / "fox.safetensors")
    with pytest.raises(CharacterError, match=r"got bundle_emb.fox.clip_\w_out, which is added behind one"):
        export.read(tmp_path / "fox.safetensors")
    assert export.read(tmp_path / "fox.safetensors", embeddings=False).tokens == {}


def test_a_nested_embedding_is_converted_by_the_line_that_the_error_gives(pipeline: Any, tmp_path: Path) -> None:
    """As A1111 and sd-scripts save textual inversion."""
    save_file(named(trained(pipeline, ATTENTION), sd_scripts(pipeline)), tmp_path / "x.safetensors")
    old = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(1, 40)}, "name": "x", "step": 1}
    torch.save(old, tmp_path / "rows.pt")
    with pytest.raises(CharacterError, match="got a pickle") as told:
        export.read(tmp_path / "x.safetensors", embeddings=tmp_path / "rows.pt")
    line = next(line for line in str(told.value).splitlines() if "python -c" in line)
    subprocess.run([sys.executable, *shlex.split(line)[1:]], check=True)
    character = export.read(tmp_path / "x.safetensors", embeddings=tmp_path / "rows.safetensors")
    assert character.token == "<v>"
    assert torch.equal(character.tokens["clip_l"], torch.ones(1, 40))


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("lora_unet_middle_block_1_proj_in.dora_scale", "DoRA"),
        ("unet.mid_block.attentions.0.proj_in.lora_magnitude_vector", "DoRA"),
        ("lora_unet_middle_block_1_proj_in.hada_w1_a", "LoHa"),
        ("lora_unet_middle_block_1_proj_in.lokr_w1", "LoKr"),
        ("lora_unet_middle_block_1_proj_in.oft_blocks", "OFT"),
        ("lora_unet_middle_block_0_in_layers_2.lora_mid.weight", "LoCon in Tucker form"),
        ("diffusion_model.input_blocks.4.0.in_layers.0.diff", "full differences"),
    ],
)
def test_other_adapters_are_refused_by_name(key: str, kind: str, pipeline: Any, tmp_path: Path) -> None:
    lora = named(trained(pipeline, ATTENTION), sd_scripts(pipeline))
    save_file(lora | {key: torch.ones(8)}, tmp_path / "x.safetensors")
    with pytest.raises(CharacterError, match=rf"x.safetensors: expected a plain LoRA \(or LoCon\), got {kind}"):
        export.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("more", "kind"), [({"use_dora": True}, "DoRA"), ({"init_lora_weights": "pissa"}, "weights on a changed base")]
)
def test_other_adapters_of_peft_are_refused_by_name(more: Any, kind: str, pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(CharacterError, match=rf"expected a plain LoRA \(or LoCon\), got {kind}"):
        export.read(peft_folder(pipeline, tmp_path, **more))


@pytest.mark.parametrize(
    "key", ["transformer.single_transformer_blocks.0.attn.to_q", "lora_unet_double_blocks_0_img_mod"]
)
def test_a_lora_of_another_kind_of_model_is_refused(key: str, tmp_path: Path) -> None:
    matrices = {f"{key}.lora_down.weight": torch.ones(2, 8), f"{key}.lora_up.weight": torch.ones(8, 2)}
    save_file(matrices, tmp_path / "flux.safetensors")
    with pytest.raises(CharacterError, match=rf"flux.*XL or 1.x, got also 2 other tensors, first {key}"):
        export.read(tmp_path / "flux.safetensors")


def test_a_lora_that_does_not_fit_leaves_the_pipeline_as_it_was(pipeline: Any) -> None:
    character = made_for(pipeline)
    for key, message in [("unet.conv_in", r"expected \(8, 4, 3, 3\) for unet.conv_in"), ("unet.conv_9", "unet.conv_9")]:
        character.frozen = {
            f"{key}.lora_A.weight": torch.ones(1, 9, 3, 3),
            f"{key}.lora_B.weight": torch.ones(8, 1, 1, 1),
        }
        before = trace(pipeline)
        with pytest.raises(CharacterError, match=message), character.on(pipeline):
            pass
        assert trace(pipeline) == before


def test_strength_scales_frozen_modules_too(pipeline: Any, tmp_path: Path) -> None:
    layers = trained(pipeline, LOCON, text=True)
    save_file(named(layers, sd_scripts(pipeline)), tmp_path / "x.safetensors")
    half = {name: (down, up, alpha / 2) for name, (down, up, alpha) in layers.items()}
    expected = predict(merged(pipeline, half))
    with export.read(tmp_path / "x.safetensors").on(pipeline, 0.5):
        torch.testing.assert_close(predict(pipeline), expected, atol=2e-5, rtol=1e-4)


def test_training_goes_on_through_frozen_modules_and_keeps_them(
    models: Any, pipeline: Any, quick: Any, images: Any, tmp_path: Path
) -> None:
    layers = trained(pipeline, USUAL, text=True, ranks=(2,))
    save_file(named(layers, sd_scripts(pipeline)), tmp_path / "x.safetensors")
    rows = {"clip_l": torch.randn(1, 16), "clip_g": torch.randn(1, 24)}
    save_file(rows, tmp_path / "rows.safetensors")
    start, mine = export.read(tmp_path), dataclasses.replace(models, pipeline=pipeline)
    before = trace(pipeline)
    settings = quick.replace(carry_over="warm", prior_share=0.0, scene_weight=1.0)
    learned = refine(mine, TrainingSet("a red fox", images[:2]), settings, start)
    assert trace(pipeline) == before
    assert start.frozen.keys() == learned.frozen.keys()
    assert all(torch.equal(start.frozen[key], learned.frozen[key]) for key in start.frozen)
    assert not all(torch.equal(start.lora[key], learned.lora[key]) for key in start.lora)
