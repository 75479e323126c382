"""OpenCLIP's own form: the same vectors as an independent statement of its architecture gives."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import tiny_tokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from chosen_one_nb.models.features import Clip, FeatureExtractor
from chosen_one_nb.models.hub import ModelError, Source

VISION = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "mlp_ratio": 2.5, "patch_size": 8}
TEXT = {"context_length": 32, "width": 24, "heads": 3, "layers": 2}
JOINT = 12


class QuickGelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A layer of CLIP's transformers, as OpenAI's paper code and OpenCLIP name its parts."""

    def __init__(self, width: int, heads: int, inner: int, act: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        parts = [("c_fc", nn.Linear(width, inner)), ("gelu", act), ("c_proj", nn.Linear(inner, width))]
        self.mlp = nn.Sequential(OrderedDict(parts))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Layers(nn.Module):
    def __init__(self, n: int, *block: Any) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(*block) for _ in range(n))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self, v: dict[str, Any], act: nn.Module) -> None:
        super().__init__()
        width, n = v["width"], (v["image_size"] // v["patch_size"]) ** 2
        self.conv1 = nn.Conv2d(3, width, v["patch_size"], v["patch_size"], bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(n + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        inner = int(width * v["mlp_ratio"])
        self.transformer = Layers(v["layers"], width, width // v["head_width"], inner, act)
        self.proj = nn.Parameter(torch.randn(width, JOINT))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)  # (B, P, width)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Model(nn.Module):
    def __init__(self, words: int, quick: bool) -> None:
        super().__init__()
        act, width = QuickGelu() if quick else nn.GELU(), TEXT["width"]
        self.visual = Visual(VISION, act)
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.randn(TEXT["context_length"], width))
        self.transformer = Layers(TEXT["layers"], width, TEXT["heads"], 4 * width, act)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, JOINT))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(50)))

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        mask = torch.full((ids.shape[1], ids.shape[1]), -math.inf).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), ids.argmax(-1)] @ self.text_projection


@pytest.fixture(scope="module", params=[False, True], ids=["gelu", "quick gelu"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model of random weights, and its folder as OpenCLIP pushes it to the Hub."""
    torch.manual_seed(3)
    folder, tokenizer = tmp_path_factory.mktemp("open_clip"), tiny_tokenizer()
    model = Model(len(tokenizer), request.param).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3) if parameter.ndim else None
    save_file({key: value.contiguous() for key, value in model.state_dict().items()},
              folder / "open_clip_model.safetensors")  # fmt: skip
    tokenizer.save_pretrained(folder)
    config = {"embed_dim": JOINT, "vision_cfg": VISION, "text_cfg": {**TEXT, "vocab_size": len(tokenizer)}}
    config |= {"quick_gelu": True} if request.param else {}
    write(folder, config, {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.25, 0.2], "interpolation": "bicubic"})
    return model, folder


def write(folder: Path, config: dict[str, Any], asked: dict[str, Any]) -> None:
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": asked}))


def test_images_and_texts_as_openclip_sees_them(made: Any, images: list[Image.Image]) -> None:
    model, folder = made
    clip = Clip.load(folder)
    pixels = np.stack([np.asarray(image, np.float32) / 255 for image in images])
    pixels = torch.from_numpy((pixels - [0.5, 0.4, 0.3]) / [0.3, 0.25, 0.2]).float().permute(0, 3, 1, 2)
    texts = ["a fox", "a red cat in the snow", ""]
    ids = torch.tensor([clip.tokenizer(text, padding="max_length", max_length=32).input_ids for text in texts])
    with torch.no_grad():
        seen, read = model.visual(pixels).numpy(), model.read(ids).numpy()
    np.testing.assert_allclose(clip.images(images), seen / np.linalg.norm(seen, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(clip.texts(texts), read / np.linalg.norm(read, axis=1, keepdims=True), atol=1e-5)
    assert clip.logit_scale == pytest.approx(50)
    extractor = FeatureExtractor.load(folder)
    found = extractor(images, patches=True)
    np.testing.assert_allclose(found.cls, seen, atol=1e-4)
    assert (extractor.width, found.patches.shape, found.grid) == (JOINT, (8, 16, 16), (4, 4))


def test_preprocessing_is_the_configurations(made: Any, tmp_path: Path) -> None:
    from chosen_one_nb.models.open_clip import processor

    config = json.loads((made[1] / "open_clip_config.json").read_text())["model_cfg"]
    wide = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (32, 1)).astype(np.uint8)).convert("RGB")
    write(tmp_path, config, {"resize_mode": "squash", "interpolation": "bilinear"})
    squashed = processor(Source.of(tmp_path), tmp_path)(wide, return_tensors="pt")["pixel_values"]
    write(tmp_path, config, {})
    cut = processor(Source.of(tmp_path), tmp_path)(wide, return_tensors="pt")["pixel_values"]
    assert squashed.shape == cut.shape == (1, 3, 32, 32)
    assert squashed[0, 0, 0, 31] - squashed[0, 0, 0, 0] > 1.8 * (cut[0, 0, 0, 31] - cut[0, 0, 0, 0])
    write(tmp_path, config, {"resize_mode": "longest"})
    with pytest.raises(ModelError, match="resize_mode: expected shortest or squash, got 'longest'"):
        processor(Source.of(tmp_path), tmp_path)


def another_tower(folder: Path) -> None:
    values = json.loads((folder / "open_clip_config.json").read_text())
    values["model_cfg"]["vision_cfg"] = {"timm_model_name": "convnext_base", "image_size": 32}
    (folder / "open_clip_config.json").write_text(json.dumps(values))


def resnet(folder: Path) -> None:
    values = json.loads((folder / "open_clip_config.json").read_text())
    values["model_cfg"]["vision_cfg"]["layers"] = [3, 4, 6, 3]
    (folder / "open_clip_config.json").write_text(json.dumps(values))


def no_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")


def cut(folder: Path) -> None:
    file = folder / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def incomplete(folder: Path) -> None:
    file = folder / "open_clip_model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if "ln_pre" not in key}, file)


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (another_tower, "of two plain transformers, got timm_model_name='convnext_base'"),
        (resnet, "of two plain transformers, got a ResNet"),
        (no_weights, r"expected open_clip_model.safetensors, found none. Where you trust it, convert it once"),
        (cut, "expected an OpenCLIP model of CLIPModel's architecture"),
        (incomplete, r"(?s)Missing key.*pre_layrnorm"),
        (no_tokenizer, r"expected a tokenizer \(tokenizer.json or vocab.json\), found none"),
    ],
)
def test_what_is_wrong_is_told(made: Any, tmp_path: Path, damage: Any, message: str) -> None:
    for file in made[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(ModelError, match=message):
        Clip.load(tmp_path)
