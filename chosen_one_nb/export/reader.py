"""Read a character back: from this kit's folders and exports, and from the files of other trainers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from chosen_one_nb.character import INITIAL_FILE, LORA_FILE, NOTES_FILE, Character, CharacterError
from chosen_one_nb.export import diffusers_format, kohya, safe
from chosen_one_nb.export.embeddings import FOLDER as ROWS
from chosen_one_nb.export.embeddings import check_rows, is_rows, read_rows
from chosen_one_nb.export.layers import LoraPair, assemble, cross_attention_width

__all__ = ["read"]

TOKEN = "<v>"
"""The word for rows whose file does not name one."""

_CHECKPOINT = re.compile(r"_emb_checkpoint_\d+$")  # written by diffusers' advanced script on the way


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
    saved = next((place for place in (path, path / diffusers_format.FOLDER) if _saved_here(place)), None)
    if saved is not None and embeddings is None:
        character = _saved(saved)
        where = str(saved)
    else:
        lora, rows = _files(path, None if embeddings is None else Path(embeddings))
        character = _from_files(lora, rows)
        where = str(rows or lora)
    check_rows(character.tokens, cross_attention_width(character.lora), where)
    if token is not None:
        character.caption = character.caption.replace(character.token, token)
        character.token = token
    character.caption = character.caption if caption is None else caption
    if pipeline is not None:
        with character.on(pipeline):
            pass
    return character


def _saved_here(folder: Path) -> bool:
    """Tell a folder that `Character.save` wrote, even if its notes are lost."""
    return (folder / NOTES_FILE).is_file() or (folder / INITIAL_FILE).is_file()


def _saved(folder: Path) -> Character:
    """Read what `Character.save` wrote, and check that its LoRA is of the rank its notes say."""
    character = Character.load(folder)
    ranks = {weight.shape[0] for key, weight in character.lora.items() if key.endswith("lora_A.weight")}
    if ranks - {character.rank}:
        raise CharacterError(
            f"{folder / LORA_FILE}: expected a LoRA of rank {character.rank}, which {NOTES_FILE} says, got "
            f"rank {', '.join(map(str, sorted(ranks)))}. The files belong to different characters; take "
            "another copy of the folder."
        )
    return character


def _from_files(lora: Path, rows: Path | None) -> Character:
    """Put a LoRA file and an embeddings file together."""
    tensors, about = safe.read(lora)
    read_halves = kohya.read_halves if kohya.is_kohya(list(tensors)) else diffusers_format.read_halves
    halves: dict[str, LoraPair] = read_halves(tensors, about, lora)
    weights, rank, alpha = assemble(halves, lora)
    learned, said = (kohya.bundled_rows(tensors, lora), {}) if rows is None else read_rows(rows)
    notes: dict[str, Any] = {"token": TOKEN} | said | kohya.notes(about)
    if "alpha" in notes and float(torch.tensor(float(notes["alpha"]))) == alpha:
        alpha = notes["alpha"]  # exact, where the tensor has rounded it
    return Character(
        weights,
        learned,
        notes["token"],
        notes.get("caption", notes["token"]),
        rank,
        alpha,
        provenance=notes.get("provenance", {}),
    )


def _files(path: Path, rows: Path | None) -> tuple[Path, Path | None]:
    """Find the LoRA file and the embeddings file; None for the latter where the LoRA carries its own."""
    if path.is_dir():
        places = [path, path / diffusers_format.FOLDER, path / kohya.FOLDER, path / ROWS]
        files = [file for place in places for file in sorted(place.glob("*.safetensors"))]
        loras = [file for file in files if _is_lora(safe.names_in(file))]
        lora = _one(loras, path, "LoRA file", "pass the file's path instead of the folder's")
        return lora, rows or _rows_of(lora, [file for file in files if file not in loras])
    names = safe.names_in(path)
    if not _is_lora(names):
        raise CharacterError(
            f"{path}: expected a LoRA file, got tensors {', '.join(sorted(names)[:3])}. If it is an "
            "embeddings file, pass the LoRA's path, and this one as embeddings=."
        )
    beside = [*sorted(path.parent.glob("*.safetensors")), path.parent.parent / ROWS / path.name]
    return path, rows or _rows_of(path, [file for file in beside if file != path and file.is_file()])


def _is_lora(names: Sequence[str]) -> bool:
    return any("lora" in name for name in names)


def _rows_of(lora: Path, files: Sequence[Path]) -> Path | None:
    """Find the embeddings of a LoRA among files: of the same name, or the only ones there."""
    found = [
        file
        for file in files
        if file.name != INITIAL_FILE and not _CHECKPOINT.search(file.stem) and is_rows(safe.names_in(file))
    ]
    if not found and any(name.startswith("bundle_emb.") for name in safe.names_in(lora)):
        return None
    named = [file for file in found if file.stem == lora.stem]
    unlike = [file for file in found if file.name != diffusers_format.ROWS_FILE]
    return _one(named or unlike or found, lora, "embeddings file", "pass it as embeddings=")


def _one(files: Sequence[Path], place: Path, what: str, remedy: str) -> Path:
    if len(files) == 1:
        return files[0]
    got = ", ".join(str(file) for file in files) if files else "none"
    raise CharacterError(f"{place}: expected one {what} (.safetensors), got {got}. Where there is one, {remedy}.")
