"""The menagerie's world: characters drawn by code, every attribute of them known.

>>> import random
>>> truth = sample(random.Random(0), kind="fox", place="snow")
>>> render(truth).image.size
(128, 128)
"""

from menagerie.world.captions import CONTEXTS, Caption, caption, caption_of, late_words, named_in, vocabulary
from menagerie.world.pose import JOINTS, LIMBS
from menagerie.world.rendering import Render, render
from menagerie.world.truth import COLOUR_OF, USUAL, Truth, WorldError, check, new_scene, sample
from menagerie.world.values import ATTRIBUTES, IDENTITY, NEUTRAL, PROPORTIONS, SCENE

__all__ = [
    "ATTRIBUTES",
    "COLOUR_OF",
    "CONTEXTS",
    "IDENTITY",
    "JOINTS",
    "LIMBS",
    "NEUTRAL",
    "PROPORTIONS",
    "SCENE",
    "USUAL",
    "Caption",
    "Render",
    "Truth",
    "WorldError",
    "caption",
    "caption_of",
    "check",
    "late_words",
    "named_in",
    "new_scene",
    "render",
    "sample",
    "vocabulary",
]
