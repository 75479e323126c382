"""Compare ways to tell words that the bundled models know from others: ``python tools/unknown_words.py``.

Known are the words of the world's captions. For each way: how many unknown words it finds where its limit is set so
that no known word is called unknown, and of how many. Takes about five minutes on one CPU core.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
UNKNOWN = [
    "bicycle", "flurble", "car", "horse", "elephant", "guitar", "pizza", "castle", "train", "rocket", "knight",
    "samurai", "vampire", "zebra", "giraffe", "octopus", "umbrella", "sword", "mountain", "river", "piano", "volcano",
    "dinosaur", "unicorn", "ancient", "steampunk", "furious", "transparent",
]  # fmt: skip
IMAGES = 4


def known_words() -> list[str]:
    """Return the telling words of the world's captions."""
    from chosen_one_nb.analysis.prompt_match import FILLERS, NEGATIONS
    from menagerie.world.captions import GLUE, vocabulary

    plain = GLUE | FILLERS | NEGATIONS
    return [word for word in vocabulary() if word.isalpha() and len(word) > 2 and word not in plain]


def similarities(models, words: list[str]) -> dict[str, np.ndarray]:
    """Return, of each word, CLIP's similarity to images of it: as it is, and less that to images of "a character"."""
    from chosen_one_nb import Settings
    from chosen_one_nb.steps.gallery import SamplingRequest, probe_seeds
    from chosen_one_nb.steps.generate import generate

    settings = Settings(sampling_steps=6, batch_size=IMAGES)
    seeds = probe_seeds(settings, n=IMAGES)

    def seen(word: str) -> np.ndarray:
        return models.clip.images(generate(models, SamplingRequest(f"a {word}", seeds, settings)).images)

    texts, plain = models.clip.texts([f"a {word}" for word in words]), seen("character")
    own = np.array([(seen(word) @ text).mean() for word, text in zip(words, texts, strict=True)])
    return {"similarity": own, "similarity less that of 'a character'": own - (plain @ texts.T).mean(0)}


def main() -> None:
    """Print a row for each way."""
    from chosen_one_nb import load_models
    from chosen_one_nb.steps.prompts import unknown_words

    models, known = load_models("menagerie"), known_words()
    scores = similarities(models, [*known, *UNKNOWN])
    scores["not spelled"] = np.array([-float(len(unknown_words(models.pipeline, word))) for word in [*known, *UNKNOWN]])
    print(f"{'way':40} known, least  unknown, most  found of {len(UNKNOWN)}")
    for way, values in scores.items():
        (yes, no) = values[: len(known)], values[len(known) :]
        print(f"{way:40} {yes.min():12.3f}  {no.max():13.3f}  {(no < yes.min()).sum()}")


if __name__ == "__main__":
    main()
