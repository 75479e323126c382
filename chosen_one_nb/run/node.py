"""One iteration of a run as it lies on disk (`Node`, with its `Images` and `Embedding`), and all of them (`Tree`).

Reading only looks up what is asked for and checks it; what changes a node writes the disk first and the
memory after it, so that an interruption between two lines leaves both readable. No widget and no model is
known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from chosen_one_nb.analysis.segmentation import PARTS, NotAvailable, Segmentation
from chosen_one_nb.run import store
from chosen_one_nb.run.decision import Decision, Edit, EditHistory, RunError, character_source, stop_reason
from chosen_one_nb.run.records import BROKEN, FORMAT, LOSSES, MANIFEST, NODE, SEGMENTATION
from chosen_one_nb.run.store import StageFiles, Stamp, StoreError, check_numbers
from chosen_one_nb.settings import Settings

if TYPE_CHECKING:
    from chosen_one_nb.character import Character
    from chosen_one_nb.steps.cluster import Clusters
    from chosen_one_nb.steps.converge import Convergence, GalleryMeasures, Health, Verdict

T = TypeVar("T")

STAGES = ("generate", "embed", "check", "cluster", "choose", "refine")
"""The stages of a node in order: draw its gallery, embed it, hold it against d_conv, cluster, choose, learn."""

SHARED = ("generate", "embed")
"""The stages whose files a sibling branch takes from the node whose gallery it shares."""

ASIDE = ("patches", "segmentation")
"""What is computed of a gallery only when asked for; kept beside it."""

START = "start"
"""The folder of the character that a run begins from, where it begins from one."""

UNKNOWN_SEED = -1
"""In place of the seed of an image that was not drawn here."""


@dataclass(frozen=True)
class Check:
    """What was measured of a gallery (section 3.3).

    Parameters
    ----------
    convergence : Convergence
        Its mean pairwise distance against d_conv.
    health : Health
        Whether it is sound or collapsed, and why.
    verdict : Verdict
        Both in one word and a reason.
    """

    convergence: Convergence
    health: Health
    verdict: Verdict


class Images(Sequence[Image.Image]):
    """The images of a gallery, read and checked one by one when asked for.

    Parameters
    ----------
    files : StageFiles
    n : int
        How many there are.
    """

    def __init__(self, files: StageFiles, n: int) -> None:
        self._files, self._n = files, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        # One by one: a gallery of 128 images at 1024 pixels would fill 400 MB at once.
        if isinstance(index, slice):
            return [self[i] for i in range(self._n)[index]]
        if not -self._n <= index < self._n:
            raise IndexError(f"expected an image index below {self._n}, got {index}")
        return self._files.read("generate", f"gallery/{index % self._n:03d}.png")

    def latents(self, indices: Sequence[int]) -> np.ndarray:
        """Read the latents that images were decoded from, shape (len(indices), C, h, w) float32."""
        names = [f"gallery/{index:03d}.npy" for index in indices]
        arrays = [self._files.read("generate", name) for name in names]
        with self._files.advised("generate"):
            return check_numbers("latents", np.stack(arrays))


class Embedding:
    """Features of a gallery of N images, by the extractor and by CLIP; each part is read when first asked for.

    Parameters
    ----------
    files : StageFiles
        Of the node that keeps the gallery.
    settings : Settings
        Of the node that is looked at: they say what its clusters are made of.
    """

    def __init__(self, files: StageFiles, settings: Settings) -> None:
        self._files, self._settings = files, settings

    @cached_property
    def features(self) -> np.ndarray:
        """Features of whole images, shape (N, D) float32, read-only."""
        return self._files.rows("embed", "features.npy")

    @cached_property
    def clip(self) -> np.ndarray | None:
        """CLIP embeddings, unit length, shape (N, D'); None without CLIP."""
        return self._optional("embed", "clip.npy")

    @cached_property
    def patches(self) -> np.ndarray | None:
        """Patch tokens, shape (N, P, D) float16, once `RunAttributes.patch_tokens` has made them; None before."""
        return self._optional("patches", "patches.npy")

    def _optional(self, stage: str, name: str) -> np.ndarray | None:
        return self._files.rows(stage, name) if name in self._files.stamps(stage) else None

    @cached_property
    def measures(self) -> GalleryMeasures:
        """What the health check compares of the gallery."""
        from chosen_one_nb.steps.converge import GalleryMeasures

        arrays = self._files.read("embed", "measures.npz")
        # The prefix keeps the names of statistics apart from those of the other arrays of the file.
        statistics = {name[2:]: values for name, values in arrays.items() if name.startswith("s_")}
        with self._files.advised("embed"):
            for name, values in arrays.items():
                check_numbers(name, values, self._files.images)
            return GalleryMeasures(self.features, statistics, arrays["thumbnails"], arrays.get("prompt_similarity"))

    @cached_property
    def segmentation(self) -> Segmentation | NotAvailable | None:
        """Foreground and scene of each image, once `RunAttributes.segment` has run; None before.

        NotAvailable, with the reason, where they cannot be told apart.
        """
        if not self._files.stamps("segmentation"):
            return None
        values = self._files.read("segmentation", "segmentation.json")
        with self._files.advised("segmentation"):
            values = SEGMENTATION.validate_python(values, strict=True)
            if "reason" in values:
                return NotAvailable(values["reason"])
            # The same file holds CLIP's embeddings, see `clip_alone`.
            arrays = {name: check_numbers(name, array, self._files.images) for name, array in self._segmented.items()}
            parts: dict[str, Any] = {name: arrays[name] for name in PARTS}
            return Segmentation(**values, **parts)

    @cached_property
    def _segmented(self) -> dict[str, np.ndarray]:
        return self._files.read("segmentation", "segmentation.npz")

    @property
    def clip_alone(self) -> tuple[np.ndarray, np.ndarray] | None:
        """CLIP embeddings of foregrounds and of scenes, each (N, D'), beside `segmentation`; None without."""
        if not self.segmentation or "clip_foreground" not in self._segmented:
            return None
        return self._segmented["clip_foreground"], self._segmented["clip_scene"]

    @property
    def clustered_on(self) -> np.ndarray:
        """What clusters are made of, by the setting `cluster_on`: features of images, or of foregrounds (N, D)."""
        found = self.segmentation
        if self._settings.cluster_on == "image" or found is None:
            return self.features
        if isinstance(found, NotAvailable):
            raise RunError(f"cluster_on: foregrounds cannot be compared. {found.reason} Set it to 'image'.")
        return found.foreground

    @property
    def uses_foreground(self) -> bool:
        """Whether it is the foregrounds that are compared here: the settings want it, and they have been found."""
        return self._settings.cluster_on == "foreground" and bool(self.segmentation)


class Node:
    """One iteration of a run: a gallery, its features, what was chosen, and the character learned from it.

    Its gallery is drawn with ``theta_in`` (the parent's character; at the root mostly none). Its parts (`embedding`,
    `check`, `clusters`, `theta`) are None, and sequences empty, until they are done, so that a view can show any node
    at any time.

    Parameters
    ----------
    tree : Tree
    record : dict
        The contents of ``node.json``.

    Attributes
    ----------
    id : str
        Name in the tree: the iteration, and a letter from the second branch on (``"1"``, ``"1b"``).
    iteration : int
        How many refinements lie before its gallery.
    gallery_of : str
        Id of the node whose gallery and features this one shares; its own id where it drew them itself.
    folder : Path
        Where its files lie.
    settings : Settings
        The settings its stages are done with.
    seeds : ndarray of shape (N,), int64
        Seed of each image; `UNKNOWN_SEED` for a person's own.
    files : StageFiles
    edits : EditHistory
        What was done to its clusters and choice.
    """

    def __init__(self, tree: Tree, record: dict[str, Any]) -> None:
        self._tree, self.files = tree, StageFiles(tree.folder, record)
        self.id: str = record["id"]
        self.iteration: int = record["iteration"]
        self.gallery_of: str = record["gallery_of"]
        self.folder = self.files.folder
        self.settings = Settings(**record["settings"])
        self.seeds = np.asarray(record["seeds"], dtype=np.int64)
        self.edits = EditHistory(self.files)
        self._cache: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Node {self.id}: iteration {self.iteration}, {self.state}>"

    @property
    def parent(self) -> Node | None:
        """The node whose character draws this one's gallery; None at the root."""
        name = self.files.record["parent"]
        return None if name is None else self._tree.nodes[name]

    @property
    def children(self) -> list[Node]:
        """The nodes drawn with this one's character, oldest first."""
        return [node for node in self._tree.nodes.values() if node.files.record["parent"] == self.id]

    @property
    def home(self) -> Node:
        """The node that keeps this one's gallery files."""
        return self._tree.nodes[self.gallery_of] if self.gallery_of != self.id else self

    def done(self, stage: str) -> bool:
        """Whether a stage's results are on disk."""
        # Clusters and choice live in the edits, which undo moves through; where those are gone, they are open again.
        if stage == "cluster":
            return self.edits.current is not None
        if stage == "choose":
            return self.decision is not None
        return stage in (self.home if stage in (*SHARED, *ASIDE) else self).files.record["stages"]

    @property
    def stages_done(self) -> tuple[str, ...]:
        """The finished stages, in order."""
        return tuple(stage for stage in STAGES if self.done(stage))

    @property
    def refined(self) -> bool:
        """Whether it has a character of its own."""
        return self.done("refine")

    @property
    def stopped(self) -> str | None:
        """Why the method ends here: ``"converged"``, ``"collapsed"``, ``"limit"``; None where it goes on."""
        limit, overruled = self.settings.max_iterations, self.files.record["beyond"]
        return stop_reason(self.judged, self.iteration, limit, overruled=overruled)

    @property
    def judged(self) -> str | None:
        """The verdict on its gallery, ``"not yet"``, ``"converged"`` or ``"collapsed"``; None before the check."""
        return self.check.verdict.state if self.check else None

    @property
    def state(self) -> str:
        """One word: why the method ends here (see `stopped`), else the last stage done, else ``"new"``."""
        return self.stopped or (self.stages_done[-1] if self.stages_done else "new")

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time of each stage done here, in seconds."""
        return {name: stage["seconds"] for name, stage in self.files.record["stages"].items()}

    @property
    def images(self) -> Images:
        """The gallery's images, read when asked for; empty before they are drawn."""
        return Images(self.home.files, len(self.seeds) if self.done("generate") else 0)

    @property
    def broken(self) -> dict[int, str]:
        """The images that are nothing to learn from; see `chosen_one_nb.steps.gallery.broken_images`."""
        return self._kept("broken", self._read_broken)

    def _read_broken(self) -> dict[int, str]:
        files = self.home.files
        if "broken.json" not in files.stamps("generate"):
            return {}
        found = files.read("generate", "broken.json")
        with files.advised("generate"):
            broken = BROKEN.validate_python(found)  # JSON has no numbers for keys, so texts are converted here
            if max(broken, default=-1) >= len(self.seeds) or len(broken) >= len(self.seeds):
                raise ValueError(f"broken.json: expected some of {len(self.seeds)} images, got {sorted(broken)}")
            return broken

    @property
    def intact(self) -> list[int]:
        """Indices of the images that are not broken."""
        return [i for i in range(len(self.images)) if i not in self.broken]

    @property
    def embedding(self) -> Embedding | None:
        """What the extractor and CLIP see of the gallery; None before it is embedded."""
        make = lambda: Embedding(self.home.files, self.settings)  # noqa: E731
        return self._kept("embedding", make) if self.done("embed") else None

    @property
    def check(self) -> Check | None:
        """What was measured of the gallery; None before."""
        return self._kept("check", self._read_check) if self.done("check") else None

    def _read_check(self) -> Check:
        from chosen_one_nb.steps.converge import Convergence, Health, Verdict

        values = self.files.read("check", "check.json")
        with self.files.advised("check"):
            return Check(
                TypeAdapter(Convergence).validate_python(values["convergence"]),
                TypeAdapter(Health).validate_python(values["health"]),
                TypeAdapter(Verdict).validate_python(values["verdict"]),
            )

    @property
    def clusters(self) -> Clusters | None:
        """The clusters as they are now; None before."""
        edit = self.edits.current
        return self.edits.clusters(edit) if edit else None

    @property
    def decision(self) -> Decision | None:
        """What was chosen; None before."""
        return self.edits.current.decision if self.edits.current else None

    @property
    def excluded(self) -> tuple[int, ...]:
        """Images left out at this node."""
        return self.edits.current.excluded if self.edits.current else ()

    @property
    def losses(self) -> list[dict[str, Any]]:
        """What each refinement step reported: ``step``, ``loss``, ``ema_loss``, ...; empty before."""
        return self._kept("losses", self._read_losses) if self.refined else []

    def _read_losses(self) -> list[dict[str, Any]]:
        losses = self.files.read("refine", "losses.json")
        with self.files.advised("refine"):
            return [dict(event) for event in LOSSES.validate_python(losses, strict=True)]

    @property
    def theta(self) -> Character | None:
        """The character learned here; None before."""
        return self._kept("theta", self._read_theta) if self.refined else None

    def _read_theta(self) -> Character:
        from chosen_one_nb.character import Character

        for name in self.files.stamps("refine"):
            if name.startswith("theta/"):  # loading does not check the stamps
                self.files.read("refine", name)
        return Character.load(self.folder / "theta")

    @property
    def theta_in(self) -> Character | None:
        """The character its gallery is drawn with; at the root what the run begins from, mostly None."""
        return self.parent.theta if self.parent else self._tree.start

    @property
    def theta_digest(self) -> str:
        """Checksum of its character's weights and words; empty without one."""
        stamps = self.files.stamps("refine")
        return stamps["theta.json"]["sha256"] if stamps else ""

    def _kept(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def commit(self, stage: str, files: Mapping[str, Stamp], seconds: float) -> None:
        """Record a stage as done: from now on its files count. A shared one is recorded at `home`."""
        # A sibling may be the one that is worked on when a damaged gallery is made again.
        if stage in SHARED and self.home is not self:
            self.home.commit(stage, files, seconds)
            return
        # Written after the files it names: a stage that is cut short before this line has simply not been done.
        done = {"time": store.now(), "seconds": round(seconds, 3), "files": dict(files)}
        self.write(stages={**self.files.record["stages"], stage: done})

    def write(self, **changes: Any) -> None:
        """Change entries of ``node.json`` and forget what was read."""
        record = {**self.files.record, **changes}
        store.write_json(self.folder / "node.json", record)  # the disk first: if this fails, nothing has changed
        self.files.record = record
        # Siblings read this node's gallery, so what they hold of it is out of date as well.
        for node in self._tree.nodes.values():
            if node is self or node.gallery_of == self.id:
                node._cache = {}


def image_label(index: int, seed: int) -> str:
    """Name an image: "image 3, seed 17", or "image 3, your own"."""
    return f"image {index}, " + ("your own" if seed == UNKNOWN_SEED else f"seed {seed}")


def embedded(node: Node) -> Embedding:
    """Return what was seen of a node's gallery; a `RunError` where it is not embedded yet."""
    if node.embedding is None:
        raise RunError(f"Node {node.id} is not embedded yet: run.step().")
    return node.embedding


def current_edit(node: Node) -> Edit:
    """Return the present state of a node's clusters and choice; a `RunError` where there are no clusters yet."""
    if node.edits.current is None:
        go_on = "run.go_on(), then run.step()" if node.stopped else "run.step()"
        raise RunError(f"Node {node.id} has no clusters yet, so there is nothing to choose from: {go_on}.")
    return node.edits.current


def clustered(node: Node) -> Clusters:
    """Return a node's clusters as they are now; a `RunError` where there are none yet."""
    return node.edits.clusters(current_edit(node))


def chosen(node: Node) -> Decision:
    """Return what was chosen at a node; a `RunError` where nothing is yet."""
    if node.decision is None:
        raise RunError(f"Nothing is chosen at node {node.id} yet: run.selection.choose(), or run.step().")
    return node.decision


def use_foreground(nodes: Sequence[Node]) -> bool:
    """Whether galleries can be compared by their foregrounds alone: all these nodes go by them."""
    return all(node.embedding is not None and node.embedding.uses_foreground for node in nodes)


def compared(nodes: Sequence[Node]) -> dict[str, np.ndarray]:
    """What the galleries of some embedded nodes can be compared by, as the clustering sees it.

    Returns
    -------
    dict of str to ndarray of shape (N, D)
        By the id of the node that owns the gallery: features of the foregrounds if `use_foreground`, else of whole
        images, for the two are not to be mixed.
    """
    from chosen_one_nb.steps.embed import in_space

    # All by foregrounds or none: distances between features of cut-outs and of whole images mean nothing.
    foregrounds, seen = use_foreground(nodes), [embedded(node) for node in nodes]
    return {
        node.gallery_of: in_space(each.clustered_on if foregrounds else each.features, node.settings)
        for node, each in zip(nodes, seen, strict=True)
    }


class Tree:
    """All nodes of a run and where they lie.

    Parameters
    ----------
    folder : Path
        The run's folder.
    manifest : dict
        The contents of ``run.json``.

    Attributes
    ----------
    nodes : dict of str to Node
        By id, oldest first.
    current : Node
        The node that is looked at and worked on.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.nodes: dict[str, Node] = {}
        self.current: Node

    @classmethod
    def load(cls, folder: Path) -> Tree:
        """Read a run's tree.

        Raises
        ------
        StoreError
            The folder holds no run, another format, or a damaged file.
        """
        if not (folder / "run.json").exists():
            raise StoreError(f"{folder} holds no run (no run.json). Begin one there: Run.start(prompt, folder=...).")
        advice = "Put back a sound copy of it."
        manifest = store.read_or_advise(folder / "run.json", advice)
        # Refused as a whole, rather than read half: a later version may have changed what a file means.
        if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
            raise StoreError(
                f"{folder}: expected a run of format {FORMAT}, got {manifest.get('format')!r}. "
                "Open it with the version of chosen_one_nb that made it (versions are in run.json)."
            )
        tree = cls(folder, store.read_or_advise(folder / "run.json", advice, MANIFEST))
        # A folder without node.json was cut short while it was made, and does not count.
        records = [_read_record(path) for path in (folder / "nodes").glob("*/node.json")]
        for record in sorted(records, key=lambda record: record["order"]):
            tree._check_place(record)
            tree.nodes[record["id"]] = Node(tree, record)
        if tree.nodes:
            tree.current = tree.nodes.get(_stored_current(folder), list(tree.nodes.values())[-1])
        return tree

    @cached_property
    def start(self) -> Character | None:
        """The character that the run began from; None where the first gallery is drawn by the base models."""
        from chosen_one_nb.character import Character

        return Character.load(self.folder / START) if self.manifest.get("start") else None

    def _check_place(self, record: dict[str, Any]) -> None:
        """Check that a node hangs on nodes made before it: then there is no circle, and its gallery is there."""
        name, parent, home = record["id"], record["parent"], record["gallery_of"]
        drawn = [node.id for node in self.nodes.values() if node.gallery_of == node.id]
        if parent in (None, *self.nodes) and home in (name, *drawn):
            return
        raise StoreError(
            f"{self.folder}: node {name}: expected its parent ({parent}) and the gallery's node ({home}) among those "
            f"made before it ({', '.join(self.nodes) or 'none'}). Put back what is missing, or move "
            f"{self.folder / 'nodes' / name} away too; what is left can be gone on with."
        )

    @property
    def root(self) -> Node:
        """The node of the first gallery, drawn without a character."""
        return next(iter(self.nodes.values()))

    def node(self, node: Node | str | None = None) -> Node:
        """Return a node by id (None: the current one).

        Raises
        ------
        RunError
            There is no such node.
        """
        if isinstance(node, Node):
            return node
        if node is None:
            return self.current
        if str(node) not in self.nodes:
            raise RunError(f"Expected one of the nodes {', '.join(self.nodes)}, got {node!r}.")
        return self.nodes[str(node)]

    def path(self, node: Node) -> list[Node]:
        """Return the nodes from the root to ``node``, both included."""
        nodes = [node]
        while nodes[0].parent is not None:
            nodes.insert(0, nodes[0].parent)
        return nodes

    def theta_node(self, node: Node | str | None = None) -> Node | None:
        """Return the node whose character goes with another: itself, else the one its gallery was drawn with.

        None: the node whose character is the one to use, looking back from the current (`character_source`).
        """
        if node is not None:
            node = self.node(node)
            return node if node.refined else node.parent
        # Of the current node's own branch only: what siblings found out says nothing about this character.
        path, here = self.path(self.current), self.current
        source = character_source(
            [node.judged for node in path], refined=here.refined, children=[child.judged for child in here.children]
        )
        return None if source is None else path[source]

    def add(
        self, parent: Node | None, settings: Settings, seeds: Iterable[int], like: Node | None = None,
        prepare: Callable[[Path], None] = lambda folder: None,
    ) -> Node:  # fmt: skip
        """Add a node: a child of ``parent``, or a sibling of ``like`` that shares its gallery.

        `prepare` puts into the node's folder what must be there before the node counts.
        """
        iteration = parent.iteration + 1 if parent else 0
        # The first that is free: a node in between may have been moved away.
        name = next(name for name in (f"{iteration}{_letters(n)}" for n in count()) if name not in self.nodes)
        record = {
            "id": name,
            "parent": parent.id if parent else None,
            "iteration": iteration,
            "gallery_of": like.gallery_of if like else name,
            # Neither ids ("10" before "2") nor times (to the second) sort nodes by age.
            "order": max((node.files.record["order"] for node in self.nodes.values()), default=-1) + 1,
            "made": store.now(),
            "beyond": like.files.record["beyond"] if like else False,
            "seeds": [int(seed) for seed in seeds],
            "settings": settings.model_dump(),
            "stages": {},
        }
        folder = store.make_folder(self.folder / "nodes" / name, within=self.folder)
        (folder / "edits.json").unlink(missing_ok=True)  # of a branch whose making was cut short
        prepare(folder)
        store.write_json(folder / "node.json", record)
        self.nodes[name] = Node(self, record)
        return self.nodes[name]


def _read_record(path: Path) -> dict[str, Any]:
    advice = (
        f"Put back a sound copy, or move {path.parent} out of the run, with the nodes made from it, to make the "
        "iteration again."
    )
    record = store.read_or_advise(path, advice, NODE)
    # Its files are written and deleted by the id.
    if record["id"] != path.parent.name:
        raise StoreError(f"{path}: expected the id {path.parent.name!r}, as its folder, got {record['id']!r}. {advice}")
    return record


def _stored_current(folder: Path) -> str:
    try:
        return str(store.read_json(folder / "state.json")["current"])
    except (StoreError, KeyError, TypeError):
        return ""  # the newest node is as good a place to look at


def _letters(n: int) -> str:
    """Name the n-th branch: nothing, b, c, ... z, aa, ab, ...

    Examples
    --------
    >>> [_letters(n) for n in (0, 1, 25, 26, 27)]
    ['', 'b', 'z', 'aa', 'ab']
    """
    words = ("".join(letters) for length in count(1) for letters in product(ascii_lowercase, repeat=length))
    return next(islice(words, n, None)) if n else ""
