"""Read a character from the files of this kit, of diffusers' training scripts, and of kohya's.

LoRA        diffusers: `unet.<layer>.lora_A.weight` and `.lora_B.weight` (peft's), `.lora.down.weight` and
            `.lora.up.weight`, or in old files `unet.<attention>.processor.to_q_lora.down.weight`; alpha stands as
            JSON in the metadata `lora_adapter_metadata`, and equals the rank without that. kohya: see `kohya`.
embeddings  SDXL: `{"clip_l": (n, 768), "clip_g": (n, 1280)}` of sd-scripts and diffusers' advanced script; cog-sdxl
            calls them `text_encoders_0` and `_1`. SD 1.x: one tensor (n, 768), whose name diffusers takes for the
            token. OneTrainer: within the LoRA's file, as `bundle_emb.<name>.clip_l`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from chosen_one_nb.character import INITIAL_FILE, NOTES_FILE, Character, CharacterError
from chosen_one_nb.export.kohya import LAYERS_PER_BLOCK, KohyaNotes
from chosen_one_nb.models.hub import LORA_FILE, refuse_pickle

__all__ = ["ONE_ENCODER", "check_rows", "read"]

ONE_ENCODER = "emb_params"
"""Name of the single tensor in A1111's safetensors embeddings."""

TOKEN = "<v>"
"""The word for rows whose file does not name one."""

ALIASES = {"text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}
CHECKPOINT = re.compile(r"_emb_checkpoint_\d+$")  # written by diffusers' advanced script on the way
KEY = re.compile(
    r"(?P<layer>(?:lora_unet_|unet\.|base_model\.model\.)?"
    r"(?:(?:down|up|input|output)_blocks[._]\d+|mid_block|middle_block)[._](?:attentions[._]\d+|1)"
    r"[._]transformer_blocks[._]\d+[._]attn[12](?:\.processor)?[._]to_(?:[qkv]|out[._]0|[qkv]_lora|out_lora))"
    r"\.(?:(?P<alpha>alpha)|(?P<down>lora_A|(?:lora[_.])?down)\.weight|(?P<up>lora_B|(?:lora[_.])?up)\.weight)"
)

Layers = dict[str, dict[str, str]]  # key of "alpha", "down" and "up" by layer, as the file spells it


def read(
    path: str | Path,
    *,
    embeddings: str | Path | None = None,
    token: str | None = None,
    caption: str | None = None,
    pipeline: Any = None,
) -> Character:
    """Read a character: what `Character.save` or `export.write` wrote, or other trainers' LoRA and embeddings.

    Parameters
    ----------
    path : str or Path
        A folder of any of these, or a LoRA file of diffusers' or kohya's trainers, beside which its embeddings are
        looked for.
    embeddings : str or Path, optional
        The embeddings file, where it cannot be found so.
    token, caption : str, optional
        Instead of what the files say; files of other programs say neither: "<v>", and the token alone.
    pipeline : DiffusionPipeline, optional
        Checks that the character fits it, by putting it on and taking it off.

    Returns
    -------
    Character

    Raises
    ------
    CharacterError
        If a file is missing, damaged, of another base or rank, or written by a later version; the message names it
        and says what was expected.
    """
    path = Path(path)
    saved = next((place for place in (path, path / "diffusers") if (place / NOTES_FILE).is_file()), None)
    if saved is not None and embeddings is None:
        character, where = _load_saved(saved), str(saved)
    else:
        lora, rows = _find_files(path, None if embeddings is None else Path(embeddings))
        character, where = _combine(lora, rows), str(rows or lora)
    check_rows(character, where)
    if token is not None:
        character.caption = character.caption.replace(character.token, token)
        character.token = token
    character.caption = character.caption if caption is None else caption
    if pipeline is not None:
        with character.on(pipeline):
            pass
    return character


def check_rows(character: Character, where: str) -> None:
    """Check that token rows agree with each other, and with the text width that the LoRA's cross-attention takes.

    Parameters
    ----------
    character : Character
    where : str
        The file, for the message.

    Raises
    ------
    CharacterError
        With the numbers expected and found.
    """
    shapes = {key: tuple(row.shape) for key, row in character.tokens.items()}
    if any(len(shape) != 2 for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) != 1:
        raise CharacterError(
            f"{where}: expected rows (n, width) with the same n for every text encoder, got {shapes}. The "
            "file is damaged or of another kind; take another copy."
        )
    total = sum(shape[1] for shape in shapes.values())
    widths = [weight.shape[1] for key, weight in character.lora.items() if key.endswith("attn2.to_k.lora_A.weight")]
    if widths and total != widths[0]:
        raise CharacterError(
            f"{where}: expected rows whose widths sum to {widths[0]}, which the LoRA's cross-attention takes "
            f"(2048 = 768 + 1280 in SDXL, 768 in SD 1.x), got {total} from {shapes}. LoRA and embeddings "
            "belong to different base models; pass the embeddings file that was made with this LoRA."
        )


def _load_saved(folder: Path) -> Character:
    character = Character.load(folder)
    ranks = {weight.shape[0] for key, weight in character.lora.items() if key.endswith("lora_A.weight")}
    if ranks - {character.rank}:
        raise CharacterError(
            f"{folder / LORA_FILE}: expected a LoRA of rank {character.rank}, which {NOTES_FILE} says, got "
            f"rank {', '.join(map(str, sorted(ranks)))}. The files belong to different characters; take "
            "another copy of the folder."
        )
    return character


# --- which files


def _find_files(path: Path, rows: Path | None) -> tuple[Path, Path | None]:
    """Find the LoRA file and the embeddings file; None for the latter where the LoRA carries its own."""
    if path.is_dir():
        places = [path, *(path / name for name in ("diffusers", "loras", "embeddings"))]
        files = [file for place in places for file in sorted(place.glob("*.safetensors"))]
        loras = [file for file in files if _is_lora(_names(file))]
        lora = _one(loras, path, "LoRA file", "pass the file's path instead of the folder's")
        return lora, rows or _rows_of(lora, [file for file in files if file not in loras])
    names = _names(path)
    if not _is_lora(names):
        raise CharacterError(
            f"{path}: expected a LoRA file, got tensors {', '.join(sorted(names)[:3])}. If it is an "
            "embeddings file, pass the LoRA's path, and this one as embeddings=."
        )
    beside = [*sorted(path.parent.glob("*.safetensors")), path.parent.parent / "embeddings" / path.name]
    return path, rows or _rows_of(path, [file for file in beside if file != path and file.is_file()])


def _rows_of(lora: Path, files: Sequence[Path]) -> Path | None:
    """Find the embeddings of a LoRA among files: of the same name, or the only ones there."""
    found = [
        file
        for file in files
        if file.name != INITIAL_FILE and not CHECKPOINT.search(file.stem) and _is_rows(_names(file))
    ]
    if not found and any(name.startswith("bundle_emb.") for name in _names(lora)):
        return None
    named = [file for file in found if file.stem == lora.stem]
    unlike = [file for file in found if file.name != "learned_embeds.safetensors"]
    return _one(named or unlike or found, lora, "embeddings file", "pass it as embeddings=")


def _one(files: Sequence[Path], place: Path, what: str, remedy: str) -> Path:
    if len(files) == 1:
        return files[0]
    got = ", ".join(str(file) for file in files) if files else "none"
    raise CharacterError(f"{place}: expected one {what} (.safetensors), got {got}. Where there is one, {remedy}.")


def _is_lora(names: Sequence[str]) -> bool:
    return any("lora" in name for name in names)


def _is_rows(names: Sequence[str]) -> bool:
    if {ALIASES.get(name, name) for name in names} <= {"clip_l", "clip_g"}:
        return bool(names)
    return len(names) == 1 and "lora" not in names[0]


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file, with errors that say what to do."""
    from safetensors import SafetensorError, safe_open

    refuse_pickle(file, CharacterError)
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (OSError, SafetensorError, ValueError) as error:
        size = f"{file.stat().st_size:,} bytes" if file.is_file() else "no file"
        raise CharacterError(
            f"{file}: expected a whole safetensors file, got {size} that cannot be read ({error}). It is "
            "missing, truncated or of another kind: download or copy it again."
        ) from error


def _names(file: Path) -> list[str]:
    with _opened(file) as opened:
        return list(opened.keys())


def _contents(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with _opened(file) as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118


# --- what is in them


def _combine(lora: Path, rows: Path | None) -> Character:
    """Put a LoRA file and an embeddings file together."""
    tensors, metadata = _contents(lora)
    notes = KohyaNotes.of(metadata)
    per_block = notes.layers_per_block if notes else LAYERS_PER_BLOCK
    weights, rank, alpha = _read_lora(tensors, metadata, per_block, lora)
    learned, stated = (_bundled_rows(tensors, lora), {}) if rows is None else _read_rows(rows)
    token = stated.get("token", TOKEN)
    caption, provenance = stated.get("caption", token), {}
    if notes:
        token, caption, provenance = notes.token, notes.caption, notes.provenance
        if float(torch.tensor(notes.alpha)) == alpha:
            alpha = notes.alpha  # exact, where the tensor has rounded it
    return Character(weights, learned, token, caption, rank, alpha, provenance=provenance)


def _read_lora(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], per_block: int, file: Path
) -> tuple[dict[str, torch.Tensor], int, float]:
    """Return a LoRA with peft's keys in float32, its rank and alpha.

    Where layers differ in alpha, it is folded into the upper matrices and alpha becomes the rank.
    """
    layers = _layers(tensors, file)
    rank = _rank(layers, tensors, file)
    stated = _stated_alphas(list(layers), metadata, file)
    alphas = {
        name: float(tensors[keys["alpha"]]) if "alpha" in keys else stated.get(name, rank)
        for name, keys in layers.items()
    }
    alike = len(set(alphas.values())) == 1
    matrices = {}
    for name, keys in layers.items():
        matrices[keys["down"]] = tensors[keys["down"]].float()
        matrices[keys["up"]] = tensors[keys["up"]].float() * (1 if alike else alphas[name] / rank)
    weights = _renamed(matrices, per_block, file)
    return weights, rank, next(iter(alphas.values())) if alike else float(rank)


def _layers(tensors: Mapping[str, torch.Tensor], file: Path) -> Layers:
    """Group a file's keys by layer; refuse those of other layers than the UNet's attention projections."""
    layers: Layers = {}
    strange = []
    for key in tensors:
        if found := KEY.fullmatch(key):
            layers.setdefault(found["layer"], {})[str(found.lastgroup)] = key
        elif not key.startswith("bundle_emb."):
            strange.append(key)
    if strange:
        raise CharacterError(
            f"{file}: expected a LoRA of the UNet's attention projections only (to_q, to_k, to_v, to_out of "
            f"attn1 and attn2), got also {len(strange)} others, first {strange[0]}. This kit's characters do not hold "
            "text encoder, convolution, feed-forward or DoRA weights; use the file in diffusers or A1111 directly."
        )
    return layers


def _rank(layers: Layers, tensors: Mapping[str, torch.Tensor], file: Path) -> int:
    """Check that each layer has two matrices that fit, and all layers one rank."""
    ranks = []
    for name, keys in layers.items():
        down, up = (tuple(tensors[keys[part]].shape) if part in keys else None for part in ("down", "up"))
        if down is None or up is None or len(down) != 2 or len(up) != 2 or down[0] != up[1]:
            raise CharacterError(
                f"{file}: expected matrices (r, in) and (out, r) for {name}, got {down} and {up}. The file is "
                "incomplete or not a plain LoRA; take another copy."
            )
        ranks.append(down[0])
    if len(set(ranks)) != 1:
        counts = {rank: ranks.count(rank) for rank in sorted(set(ranks))}
        raise CharacterError(
            f"{file}: expected a LoRA of one rank, got layers by rank {counts or 'none'}. A character holds "
            "one rank for all layers; resize the LoRA to one, or use the file in diffusers directly."
        )
    return ranks[0]


def _stated_alphas(names: Sequence[str], metadata: Mapping[str, str], file: Path) -> dict[str, float]:
    """Return what a diffusers file's metadata says about alpha, by layer; nothing where it is silent."""
    from peft.utils.other import get_pattern_key

    try:
        config: dict[str, Any] = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError as error:
        raise CharacterError(
            f"{file}: expected JSON under the metadata key lora_adapter_metadata, got something else "
            f"({error}). Take another copy of the file."
        ) from error
    config = {key.removeprefix("unet."): value for key, value in config.items()}
    if variant := [name for name in ("use_dora", "use_rslora") if config.get(name)]:
        raise CharacterError(
            f"{file}: expected a plain LoRA, got one with {variant[0]}. Use the file in diffusers directly."
        )
    if config.get("lora_alpha") is None:
        return {}
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    return {name: patterns.get(get_pattern_key(list(patterns), name), config["lora_alpha"]) for name in names}


def _renamed(matrices: Mapping[str, torch.Tensor], per_block: int, file: Path) -> dict[str, torch.Tensor]:
    """Give matrices peft's names, whichever of the spellings they have; SGM names need the layers per block."""
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    unet = SimpleNamespace(layers_per_block=per_block)
    try:
        state, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(dict(matrices), unet_config=unet)
    except (KeyError, ValueError):
        state = {}
    if len(state) != len(matrices):  # of a file that mixes SGM names with others, diffusers drops the former
        raise CharacterError(
            f"{file}: expected layers named as one program names those of one UNet, got names that diffusers cannot "
            f"place, such as {next(iter(matrices))}. Use the file in the program that it was made for."
        )
    prefix = re.compile(r"^(unet|base_model\.model)\.")
    return {prefix.sub("", key): tensor for key, tensor in convert_unet_state_dict_to_peft(state).items()}


def _read_rows(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return rows (n, D) in float32 by encoder, and what the file says about token and caption."""
    tensors, metadata = _contents(file)
    if not _is_rows(list(tensors)):
        raise CharacterError(
            f"{file}: expected learned rows (clip_l and clip_g for SDXL, one tensor for SD 1.x), got tensors "
            f"{', '.join(sorted(tensors)[:3]) or 'none'}. Pass the embeddings file that belongs to the LoRA."
        )
    stated: dict[str, str] = {key: metadata[key] for key in ("token", "caption") if key in metadata}
    name = next(iter(tensors))
    if len(tensors) == 1 and ALIASES.get(name, name) not in ("clip_l", "clip_g"):
        tensors = {"clip_l": tensors[name]}
        stated = ({} if name == ONE_ENCODER else {"token": name}) | stated
    return {ALIASES.get(key, key): torch.atleast_2d(rows).float() for key, rows in tensors.items()}, stated


def _bundled_rows(tensors: Mapping[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """Return the rows that a LoRA file carries itself."""
    keys = [key for key in tensors if key.startswith("bundle_emb.")]
    if len({key.split(".")[1] for key in keys}) > 1:
        raise CharacterError(
            f"{file}: expected at most one embedding in a LoRA file, got {', '.join(sorted(keys))}. "
            "Pass the one that is meant as embeddings=."
        )
    return {"clip_g" if key.endswith(".clip_g") else "clip_l": torch.atleast_2d(tensors[key]).float() for key in keys}
