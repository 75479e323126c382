"""Read a character from the files of this kit, or a LoRA with or without embeddings from those of other trainers.

LoRA        One of diffusers, PEFT, sd-scripts, OneTrainer, ComfyUI or cog-sdxl, by the names in `names`. Its strength
            stands beside each layer (`alpha`), as JSON in the metadata `lora_adapter_metadata` (diffusers) or in
            `adapter_config.json` (PEFT); in files of diffusers without either, alpha is the rank. What it has beside
            the UNet's attention projections becomes the character's `frozen` part. DoRA, LoHa, LoKr and others are
            refused by name.
embeddings  SDXL: `{"clip_l": (n, 768), "clip_g": (n, 1280)}` of sd-scripts and diffusers' advanced script; cog-sdxl
            calls them `text_encoders_0` and `_1`, in a file `.pti`. SD 1.x: one tensor (n, 768), whose name diffusers
            takes for the token. OneTrainer: within the LoRA's file, as `bundle_emb.<name>.clip_l`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch.nn.functional import pad

from chosen_one_nb.character import INITIAL_FILE, NOTES_FILE, Character, CharacterError
from chosen_one_nb.export.kohya import KohyaNotes
from chosen_one_nb.export.names import LAYERS_PER_BLOCK, layer_and_part, module_name, other_kind
from chosen_one_nb.models.hub import LORA_FILE, refuse_pickle
from chosen_one_nb.settings import user_path
from chosen_one_nb.steps.lora import TARGETS

__all__ = ["ONE_ENCODER", "check_rows", "read"]

ONE_ENCODER = "emb_params"
"""Name of the single tensor in A1111's safetensors embeddings."""

TOKEN = "<v>"
"""The word for rows whose file does not name one."""

ALONE = "pass it as embeddings=, or embeddings=False for the LoRA alone"
UNNAMED = (ONE_ENCODER, "*")
ALIASES = {"text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}
CHECKPOINT = re.compile(r"_emb_checkpoint_\d+$")  # written by diffusers' advanced script on the way
ENDINGS = ("*.safetensors", "*.pti")  # the latter is cog-sdxl's, and safetensors by its contents
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"

Module = tuple[str, str]  # part of the pipeline, and module in it
Layers = dict[Module, dict[str, torch.Tensor]]  # "down", "up" and perhaps "alpha" of each module


def read(
    path: str | Path,
    *,
    embeddings: str | Path | Literal[False] | None = None,
    token: str | None = None,
    caption: str | None = None,
    pipeline: Any = None,
) -> Character:
    """Read a character: what `Character.save` or `export.write` wrote, or other trainers' LoRA, with or without rows.

    Parameters
    ----------
    path : str or Path
        A folder of any of these, or a LoRA file of diffusers, PEFT, sd-scripts, OneTrainer, ComfyUI or cog-sdxl,
        beside which its embeddings are looked for.
    embeddings : str, Path or False, optional
        The embeddings file, where it cannot be found so; False reads the LoRA alone.
    token, caption : str, optional
        Instead of what the files say; files of other programs say neither: `<v>`, and the token alone. A LoRA that
        comes without rows has neither, and is drawn with by prompts that are none of its own.
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
    path = user_path("path", path, CharacterError)
    saved = next((place for place in (path, path / "diffusers") if (place / NOTES_FILE).is_file()), None)
    if saved is not None and embeddings is None:
        character, where = _load_saved(saved), str(saved)
    else:
        given: Any = embeddings if embeddings in (None, False) else user_path("embeddings", embeddings, CharacterError)
        lora, rows = _find_files(path, given)
        character, where = _combine(lora, rows), str(rows or lora)
    check_rows(character, where)
    if token is not None and character.tokens:
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
    if not shapes:
        return
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


def _find_files(path: Path, rows: Path | Literal[False] | None) -> tuple[Path, Path | Literal[False] | None]:
    """Find the LoRA file and the embeddings file; None for the latter where there is none, or the LoRA carries it."""
    if path.is_dir():
        places = [path, *(path / name for name in ("diffusers", "loras", "embeddings"))]
        files = [file for place in places for ending in ENDINGS for file in sorted(place.glob(ending))]
        loras = [file for file in files if _is_lora(_names(file))]
        lora, beside = _lora_of(loras, path), [file for file in files if file not in loras]
    else:
        names = _names(path)
        if not _is_lora(names):
            raise CharacterError(
                f"{path}: expected a LoRA file, got tensors {', '.join(sorted(names)[:3])}. If it is an "
                "embeddings file, pass the LoRA's path, and this one as embeddings=."
            )
        files = [file for ending in ENDINGS for file in sorted(path.parent.glob(ending))]
        files.append(path.parent.parent / "embeddings" / path.name)
        lora, beside = path, [file for file in files if file != path and file.is_file()]
    if rows is None:
        rows = _rows_of(lora, beside)
    return lora, rows


def _lora_of(loras: Sequence[Path], folder: Path) -> Path:
    """Find the one LoRA of a folder. diffusers' advanced script leaves it twice: under its own names and kohya's."""
    own = [file for file in loras if file.name == LORA_FILE]
    if len(own) == 1 and all(file in own or _same_weights(own[0], file) for file in loras):
        return own[0]
    return _one(loras, folder, "LoRA file", "pass the file's path instead of the folder's")


def _same_weights(a: Path, b: Path) -> bool:
    """Whether two files hold the same matrices, whatever their names and alpha."""
    ours, theirs = (_layers(_contents(file)[0], LAYERS_PER_BLOCK, file) for file in (a, b))
    parts = ("down", "up")
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name][part], theirs[name][part]) for name in ours for part in parts if part in ours[name]
    )


def _rows_of(lora: Path, files: Sequence[Path]) -> Path | None:
    """Find the embeddings of a LoRA among files: of the same name, or the only ones there; None without any."""
    found = [
        file
        for file in files
        if file.name != INITIAL_FILE and not CHECKPOINT.search(file.stem) and _is_rows(_names(file))
    ]
    if not found:
        return None
    named = [file for file in found if file.stem == lora.stem]
    unlike = [file for file in found if file.name != "learned_embeds.safetensors"]
    return _one(named or unlike or found, lora, "embeddings file", ALONE)


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


@dataclass(frozen=True)
class _Lora:
    """A LoRA as a character holds it; see `Character`."""

    lora: dict[str, torch.Tensor]
    frozen: dict[str, torch.Tensor]
    rank: int
    alpha: float


class _AdapterConfig(BaseModel):
    """What PEFT's configuration of an adapter says about its strength, and about what it is."""

    model_config = ConfigDict(allow_inf_nan=False)

    peft_type: str | None = None
    lora_alpha: float | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = False
    use_dora: bool | None = False
    init_lora_weights: Any = True

    def alpha(self, module: str, rank: int) -> float:
        """Return a module's alpha; `use_rslora` divides it by the square root of the rank, not by the rank."""
        from peft.utils.other import get_pattern_key

        patterns, alpha = self.alpha_pattern or {}, rank if self.lora_alpha is None else self.lora_alpha
        alpha = patterns.get(get_pattern_key(list(patterns), module), alpha)
        return alpha * rank**0.5 if self.use_rslora else alpha

    def check(self, file: Path) -> None:
        """Refuse kinds of adapters whose matrices mean something else than B A added to the base."""
        kinds = {str(self.peft_type): self.peft_type not in (None, "LORA"), "DoRA (use_dora)": self.use_dora}
        start = self.init_lora_weights
        changed = isinstance(start, str) and start.lower().startswith(("pissa", "olora", "corda", "loftq", "lora_ga"))
        kinds[f"weights on a changed base (init_lora_weights {start!r})"] = changed
        if kind := next((kind for kind, found in kinds.items() if found), None):
            raise _not_held(file, kind)


def _not_held(file: Path, got: str) -> CharacterError:
    return CharacterError(
        f"{file}: expected a plain LoRA (or LoCon), got {got}. The kit does not load such adapters; make a LoRA of it "
        "with the trainer's tools, or use the file in the program that it was made for."
    )


def _combine(file: Path, rows: Path | Literal[False] | None) -> Character:
    """Put a LoRA file and an embeddings file together; None looks in the LoRA file, False leaves rows out."""
    tensors, metadata = _contents(file)
    notes = KohyaNotes.of(metadata)
    lora = _read_lora(tensors, metadata, notes.layers_per_block if notes else LAYERS_PER_BLOCK, file)
    learned, stated = _read_rows(rows) if rows else ({} if rows is False else _bundled_rows(tensors, file), {})
    token = stated.get("token", TOKEN) if learned else ""
    caption, provenance, alpha = stated.get("caption", token), {}, lora.alpha
    if notes:
        if notes.token and rows is None and not learned:
            _one([], file, "embeddings file", ALONE)
        token, caption, provenance = notes.token, notes.caption, notes.provenance
        if float(torch.tensor(notes.alpha)) == alpha:
            alpha = notes.alpha  # exact, where the tensor has rounded it
    if token and not learned:
        token, caption = "", " ".join(caption.replace(token, "").split())
    return Character(lora.lora, learned, token, caption, lora.rank, alpha, provenance=provenance, frozen=lora.frozen)


def _read_lora(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], per_block: int, file: Path) -> _Lora:
    """Read a LoRA in float32.

    Where attention layers differ in rank they are filled up with zeros to the largest, and where they differ in alpha
    it is folded into the upper matrices and alpha becomes the rank. Other modules keep their rank, with alpha folded.
    """
    layers = _layers(tensors, per_block, file)
    configs = _configs(tensors, metadata, file)
    ranks = {module: _rank(module, parts, file) for module, parts in layers.items()}
    alphas = {}
    for (part, name), parts in layers.items():
        stated, rank = configs.get(part, _AdapterConfig()), ranks[part, name]
        alphas[part, name] = float(parts["alpha"]) if "alpha" in parts else float(stated.alpha(name, rank))
    attention = [module for module in layers if module[0] == "unet" and re.fullmatch(TARGETS, module[1])]
    if not attention:
        raise CharacterError(
            f"{file}: expected a LoRA of the UNet's attention projections, perhaps with more, got one of "
            f"{len(layers)} other modules, first {'.'.join(next(iter(layers)))}. Use it in diffusers or A1111 directly."
        )
    rank = max(ranks[module] for module in attention)
    alike = len({(ranks[module], alphas[module]) for module in attention}) == 1
    lora: dict[str, torch.Tensor] = {}
    frozen: dict[str, torch.Tensor] = {}
    for module, parts in layers.items():
        down, up, own = parts["down"].float(), parts["up"].float(), ranks[module]
        if module not in attention:
            name = ".".join(module)
            frozen |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up * (alphas[module] / own)}
            continue
        if not alike:
            down, up = pad(down, (0, 0, 0, rank - own)), pad(up * (alphas[module] / own), (0, rank - own))
        lora |= {f"{module[1]}.lora_A.weight": down, f"{module[1]}.lora_B.weight": up}
    return _Lora(lora, frozen, rank, alphas[attention[0]] if alike else float(rank))


def _layers(tensors: Mapping[str, torch.Tensor], per_block: int, file: Path) -> Layers:
    """Group a file's tensors by the module that they are for; refuse what is none of a UNet or text encoder."""
    layers: Layers = {}
    strange = []
    for key, tensor in tensors.items():
        if key.startswith("bundle_emb."):
            continue
        if kind := other_kind(key):
            raise _not_held(file, f"{kind} ({key})")
        split = layer_and_part(key)
        module = module_name(split[0], per_block) if split else None
        if split is None or module is None:
            strange.append(key)
            continue
        if split[1] in layers.setdefault(module, {}):
            raise CharacterError(
                f"{file}: expected layers named as one program names those of one UNet, got two names of "
                f"{'.'.join(module)}, one of them {key}. Use the file in the program that it was made for."
            )
        layers[module][split[1]] = tensor
    if strange:
        raise CharacterError(
            f"{file}: expected a LoRA of the UNet and text encoders of Stable Diffusion XL or 1.x, got also "
            f"{len(strange)} other tensors, first {strange[0]}. It is for another kind of model, or of a kind that the "
            "kit does not know; use it in the program that it was made for."
        )
    return layers


def _rank(module: Module, parts: Mapping[str, torch.Tensor], file: Path) -> int:
    """Return a module's rank, after checking that its two matrices fit."""
    down, up = (tuple(parts[part].shape) if part in parts else None for part in ("down", "up"))
    if down is None or up is None or {len(down), len(up)} - {2, 4} or down[0] != up[1] or set(up[2:]) - {1}:
        raise CharacterError(
            f"{file}: expected matrices (r, in) and (out, r) for {'.'.join(module)}, got {down} and {up}. The file is "
            "incomplete or not a plain LoRA; take another copy."
        )
    return down[0]


def _configs(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], file: Path) -> dict[str, _AdapterConfig]:
    """Return what is said about a LoRA's strength, by part of the pipeline: by diffusers or by PEFT beside the file."""
    parts = ("unet", "text_encoder", "text_encoder_2")
    place, text = "the metadata key lora_adapter_metadata", metadata.get("lora_adapter_metadata", "{}")
    of_peft = file.name == PEFT_FILE or all(key.startswith("base_model.model.") for key in tensors)
    try:
        if of_peft:
            place = f"{PEFT_CONFIG} beside it"
            text = (file.parent / PEFT_CONFIG).read_text(encoding="utf-8")
        values = json.loads(text)
        own = {
            part: {key.removeprefix(f"{part}."): value for key, value in values.items() if key.startswith(f"{part}.")}
            for part in parts
        }
        configs = {part: _AdapterConfig.model_validate(values if of_peft else own[part]) for part in parts}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CharacterError(
            f"{file}: expected JSON under {place}, which says how strong the LoRA is, could not read it ({reason}). "
            "Copy the whole folder that the trainer wrote."
        ) from error
    for config in configs.values():
        config.check(file)
    return configs


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
        stated = ({} if name in UNNAMED else {"token": name}) | stated
    return {ALIASES.get(key, key): torch.atleast_2d(rows).float() for key, rows in tensors.items()}, stated


def _bundled_rows(tensors: Mapping[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """Return the rows that a LoRA file carries itself."""
    keys = [key for key in tensors if key.startswith("bundle_emb.")]
    if len({key.split(".")[1] for key in keys}) > 1:
        raise CharacterError(
            f"{file}: expected at most one embedding in a LoRA file, got {', '.join(sorted(keys))}. "
            "Pass the one that is meant as embeddings=."
        )
    if added := [key for key in keys if key.endswith("_out")]:
        raise CharacterError(
            f"{file}: expected rows that go into the text encoders, got {added[0]}, which is added behind one. The kit "
            "does not draw with such rows; train without OneTrainer's output embedding, or pass embeddings=False."
        )
    return {"clip_g" if key.endswith(".clip_g") else "clip_l": torch.atleast_2d(tensors[key]).float() for key in keys}
