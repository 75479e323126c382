"""The JSON files of a run, as schemas that pydantic checks: what each must hold before anything of it is used.

A run may come from anybody. Ids become names of folders that are written to and deleted, so they match a pattern;
numbers are not converted from texts; settings pass `Settings`. What a later version adds is kept as it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from chosen_one_nb.settings import Settings

FORMAT = 2
"""Of the files of a run; raised when older versions of the kit could not read them."""

NodeId = Annotated[str, Field(pattern=r"^[0-9]{1,6}[a-z]{0,6}$")]
FileName = Annotated[str, Field(pattern=r"^\w[\w-]*(\.\w+)*(/\w[\w-]*(\.\w+)*)*$")]
"""A path within a node's folder: every part begins with a letter or digit, so none is ``..`` and none the root."""

Index = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
extensible = with_config(ConfigDict(extra="allow"))


def _check_settings(values: dict[str, Any]) -> dict[str, Any]:
    Settings(**values)
    return values


SettingsRecord = Annotated[dict[str, Any], AfterValidator(_check_settings)]


class Stamp(TypedDict):
    """Checksum and size by which a damaged file is recognised."""

    sha256: str
    bytes: Index


@extensible
class StageRecord(TypedDict):
    """A stage that is done: when, how long it took, and the stamps of its files."""

    time: str
    seconds: Seconds
    files: dict[FileName, Stamp]


@extensible
class NodeRecord(TypedDict):
    """``node.json``: one iteration."""

    id: NodeId
    parent: NodeId | None
    iteration: Index
    gallery_of: NodeId
    order: Index
    made: str
    beyond: bool
    seeds: list[Annotated[int, Field(ge=-1, lt=2**63)]]  # -1: not known
    settings: SettingsRecord
    stages: dict[str, StageRecord]


@extensible
class LossRecord(TypedDict):
    """What a step of refinement reported: an entry of ``losses.json``."""

    step: Index
    loss: Finite


@extensible
class ModelsRecord(TypedDict):
    """Which models made a run: their name, fingerprint, and the arguments of `load_models` that give them again."""

    name: str
    fingerprint: str
    load: NotRequired[dict[Literal["name", "extractor", "clip", "distilled", "config"], str]]
    machine: NotRequired[dict[str, str]]


@extensible
class Manifest(TypedDict):
    """``run.json``: what a run is and with what it is made."""

    format: int
    prompt: Annotated[str, Field(min_length=1)]
    models: ModelsRecord
    settings: SettingsRecord
    versions: dict[str, str]
    made: str
    start: NotRequired[str]
    images: NotRequired[list[str]]


@extensible
class SelectionRecord(TypedDict):
    """A line of ``log.jsonl`` that gives some images of a gallery a name; no images take the name away."""

    gallery: NodeId
    name: Annotated[str, Field(min_length=1, max_length=80)]
    images: list[Annotated[int, Field(ge=0, lt=16384)]]


def _check_node(record: NodeRecord) -> NodeRecord:
    # Images and seeds are matched by place: one seed too few would give every later image a wrong one.
    own = set(record["seeds"]) == {-1}  # a person's images, as many as they are
    if not own and len(record["seeds"]) != record["settings"]["n_images"]:
        raise ValueError(f"expected {record['settings']['n_images']} seeds, got {len(record['seeds'])}")
    return record


NODE: TypeAdapter[NodeRecord] = TypeAdapter(Annotated[NodeRecord, AfterValidator(_check_node)])
MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)
BROKEN: TypeAdapter[Any] = TypeAdapter(dict[Index, Literal["latents", "pixels"]])
CLUSTERS: TypeAdapter[tuple[int | None, str]] = TypeAdapter(tuple[Index | None, str])
LOSSES: TypeAdapter[list[LossRecord]] = TypeAdapter(Annotated[list[LossRecord], Field(min_length=1)])
SEGMENTATION: TypeAdapter[Any] = TypeAdapter(
    dict[Literal["threshold", "separation"], Finite] | dict[Literal["reason"], str]
)
SELECTION: TypeAdapter[SelectionRecord] = TypeAdapter(SelectionRecord)
