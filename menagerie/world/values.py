"""Every attribute of the world and its values, and the colours behind the colour names."""

from __future__ import annotations

RGB = tuple[int, int, int]

PARTS = ("red", "yellow", "green", "blue", "purple", "pink")  # colours of clothes and accessories

IDENTITY: dict[str, tuple[str, ...]] = {
    "kind": (
        "fox",
        "cat",
        "dog",
        "rabbit",
        "bear",
        "mouse",
        "pig",
        "frog",
        "owl",
        "penguin",
        "dragon",
        "robot",
        "astronaut",
        "wizard",
    ),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "grey"),
    "second": ("white", "yellow", "pink", "black"),
    "pattern": ("plain", "spots", "stripes", "patch"),
    "eyes": ("black", "blue", "green", "amber"),
    "garment": ("none", "scarf", "jumper", "cape", "overalls"),
    "garment_colour": ("none", *PARTS),
    "accessory": ("none", "hat", "glasses", "bow", "crown", "flower"),
    "accessory_colour": ("none", *PARTS),
}
SCENE: dict[str, tuple[str, ...]] = {
    "place": ("plain", "beach", "snow", "forest", "city", "night", "room", "desert", "underwater"),
    "style": ("sticker", "drawing", "cartoon", "watercolour", "photo"),
    "action": ("standing", "book", "avocado", "ball", "ice cream", "balloon", "gift", "waving"),
    "expression": ("smiling", "surprised", "sad"),
    "framing": ("close", "medium", "far"),
    "extra": ("none", "leaves", "stars", "hearts"),
    "arms": ("down", "up", "out", "raised"),
    "legs": ("together", "apart", "sitting"),
    "lean": ("upright", "left", "right"),
}
NEUTRAL = {"arms": "down", "legs": "together", "lean": "upright"}  # the pose that nobody asks for
ATTRIBUTES: dict[str, tuple[str, ...]] = IDENTITY | SCENE
PROPORTIONS: tuple[str, ...] = ("head_width", "ear_size", "eye_size", "eye_spacing", "muzzle_size", "body_width")
MAX_TILT = 12.0  # degrees

BODY: dict[str, RGB] = {
    "red": (214, 48, 44),
    "orange": (246, 138, 30),
    "yellow": (250, 208, 44),
    "green": (76, 176, 72),
    "blue": (52, 122, 224),
    "purple": (138, 78, 200),
    "pink": (247, 142, 186),
    "grey": (142, 148, 158),
}
SECOND: dict[str, RGB] = {
    "white": (252, 250, 246),
    "yellow": (255, 226, 96),
    "pink": (252, 176, 194),
    "black": (52, 48, 60),
}
PART: dict[str, RGB] = {
    "red": (226, 30, 40),
    "yellow": (255, 214, 20),
    "green": (36, 160, 64),
    "blue": (30, 92, 220),
    "purple": (126, 48, 190),
    "pink": (255, 120, 184),
}
IRIS: dict[str, RGB] = {
    "black": (24, 22, 28),
    "blue": (40, 140, 255),
    "green": (40, 190, 70),
    "amber": (255, 168, 0),
}
INK: RGB = (44, 36, 48)
WHITE: RGB = (255, 255, 255)


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """Return colour `a` moved by `share` in [0, 1] towards `b`."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def dark(colour: RGB, share: float = 0.45) -> RGB:
    """Return a darker shade: `share` of the way to the ink."""
    return mix(colour, INK, share)
