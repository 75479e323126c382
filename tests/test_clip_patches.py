"""CLIP's patch tokens in the space of its texts, on a tiny model and on the shapes of the full ones."""

import numpy as np
import pytest
import torch

from chosen_one_nb.analysis.localization import cohesion_heat, phrase_heat
from chosen_one_nb.analysis.segmentation import segment
from chosen_one_nb.models.features import Clip, FeatureExtractor


def test_a_unit_vector_for_each_patch_in_the_space_of_the_texts(models, images):
    found, grid = models.clip.patches(images[:3])
    assert grid == (4, 4)
    assert found.shape == (3, 16, models.clip.width) == (3, 16, models.clip.texts(["a fox"]).shape[1])
    assert np.allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)


def test_patches_take_the_way_that_clip_takes_for_the_whole_image(models, images):
    """Where all tokens are the class token, patches say what the image says."""
    tower = models.clip.model.vision_model
    whole = models.clip.images(images[:2])
    original = tower.encoder.forward

    def every_token_is_the_first(*args, **kwargs):
        out = original(*args, **kwargs)
        out.last_hidden_state = out.last_hidden_state[:, :1].expand_as(out.last_hidden_state)
        return out

    tower.encoder.forward = every_token_is_the_first
    try:
        patches, _ = models.clip.patches(images[:2])
    finally:
        del tower.encoder.forward
    assert np.allclose(patches, whole[:, None], atol=1e-5)


def test_no_images(models):
    assert models.clip.patches([])[0].shape == (0, 16, models.clip.width)


def test_heat_of_a_phrase(models, images):
    patches, grid = models.clip.patches(images)
    texts = models.clip.texts(["a red hat", "a blue hat", "snow"])
    assert phrase_heat(patches, texts, [0], [0, 1, 2], grid).shape == (8, 4, 4)


@pytest.mark.parametrize(("patch", "grid"), [(14, (16, 16)), (32, (7, 7))])
def test_full_size_clip(models, images, patch, grid):
    """ViT-L/14 and ViT-B/32 in every shape but the number of layers; random weights."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 1,
              "image_size": 224, "patch_size": patch, "projection_dim": 768}  # fmt: skip
    text = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1,
            "projection_dim": 768, "vocab_size": len(models.clip.tokenizer), "max_position_embeddings": 32}  # fmt: skip
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=768))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    clip = Clip(model, processor, models.clip.tokenizer, "full")
    found, shape = clip.patches(images[:2])
    assert (found.shape, shape) == ((2, grid[0] * grid[1], 768), grid)
    assert phrase_heat(found, clip.texts(["a fox"]), [0], [0], shape).shape == (2, *grid)


def test_full_size_dinov2(images):
    """DINOv2-large in every shape but the number of layers; random weights."""
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    torch.manual_seed(0)
    model = Dinov2Model(Dinov2Config(hidden_size=1024, num_attention_heads=16, num_hidden_layers=1, image_size=518,
                                     patch_size=14))  # fmt: skip
    processor = BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    seen = FeatureExtractor(model, processor, "full")(images[:4], patches=True)
    assert (seen.patches.shape, seen.grid) == ((4, 256, 1024), (16, 16))
    assert segment(seen.patches, seen.grid).foreground.shape == (4, 1024)
    assert cohesion_heat(seen.patches, [0, 1], seen.grid).shape == (2, 16, 16)
