"""Images to latents and back: in float32, a few at a time, scaled as the UNet sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.traces import half
from PIL import Image

from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.latents import decode, encode


def test_pitfall_8_coding_in_float32(models: Any, images: list[Image.Image]) -> None:
    halved = half(models, torch.float16)
    mean, _ = encode(halved, images[:1], 32)
    assert mean.dtype == torch.float32
    assert halved.pipeline.vae.dtype == torch.float16
    torch.testing.assert_close(mean, encode(models, images[:1], 32)[0], atol=2e-2, rtol=2e-2)


def test_latents_from_images_and_from_the_gallery_are_scaled_alike(models: Any) -> None:
    """A VAE with given mean and spread of its code, as some models have: decode undoes encode's scaling."""
    pipeline = models.pipeline
    latents = torch.randn(2, 4, 8, 8)
    plain = decode(models, latents)
    vae = pipeline.vae
    own = dict(vae.config)
    try:
        vae.register_to_config(latents_mean=[0.5] * 4, latents_std=[2.0] * 4)
        shifted = (latents / own["scaling_factor"] - 0.5) * own["scaling_factor"] / 2.0
        for a, b in zip(decode(models, shifted), plain, strict=True):
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
        code = encode(models, plain, 32)[0]
    finally:
        vae.register_to_config(latents_mean=None, latents_std=None)
    unscaled = encode(models, plain, 32)[0]
    torch.testing.assert_close(code, (unscaled / own["scaling_factor"] - 0.5) * own["scaling_factor"] / 2.0)


def test_pitfall_17_images_are_decoded_in_small_chunks(
    models: Any, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, inner = [], models.pipeline.vae.decode
    monkeypatch.setattr(models.pipeline.vae, "decode", lambda z, **more: sizes.append(len(z)) or inner(z, **more))
    generate(models, SamplingRequest("a fox", [1, 2, 3, 4, 5, 6], quick.replace(batch_size=6)))
    assert sizes == [4, 2]


def test_pitfall_8_a_half_precision_vae_decodes_in_float32(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, seen = models.pipeline.vae, []
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    inner = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z, **more: seen.append((z.dtype, vae.dtype)) or inner(z, **more))
    try:
        vae.half()
        decode(models, torch.randn(1, 4, 8, 8))
        assert seen == [(torch.float32, torch.float32)]
        assert vae.dtype == torch.float16
    finally:
        vae.float().load_state_dict(before)
