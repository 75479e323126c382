"""One iteration of a run as it lies on disk: gallery, features, clusters, choice, and the Θ that came of it.

Reading only looks up what is asked for and checks it; what changes a node writes the disk first and the
memory after it, so that an interruption between two lines leaves both readable. No widget and no model is
known here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chosen_one_nb.run import policy, store
from chosen_one_nb.run.decision import Decision, Edit, RunError
from chosen_one_nb.run.reading import Advice, Images
from chosen_one_nb.run.store import Stamp, StoreError
from chosen_one_nb.settings import Settings

if TYPE_CHECKING:
    from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
    from chosen_one_nb.character import Character
    from chosen_one_nb.steps.cluster import Clusters
    from chosen_one_nb.steps.converge import Convergence, GalleryMeasures, Health, Verdict

STAGES = ("generate", "embed", "check", "cluster", "choose", "refine")
"""The stages of a node in order: draw its gallery, see it, hold it against d_conv, cluster, choose, learn."""

SHARED = ("generate", "embed")
"""The stages whose files a sibling branch takes from the node whose gallery it shares."""


ASIDE = ("patches", "segmentation")
"""What is seen of a gallery only when asked for; kept beside it."""


def use_foreground(nodes: Sequence[Node]) -> bool:
    """Whether galleries can be compared by their foregrounds alone: all these nodes go by them."""
    return all(node.uses_foreground for node in nodes)


def compared(nodes: Sequence[Node]) -> dict[str, np.ndarray]:
    """What the galleries of some embedded nodes can be compared by, as the clustering sees it.

    Returns
    -------
    dict of str to ndarray of shape (N, D)
        By the id of the node that owns the gallery: features of the foregrounds if `use_foreground`, else of whole
        images, for the two are not to be mixed.
    """
    from chosen_one_nb.steps.embed import in_space

    foregrounds = use_foreground(nodes)
    return {
        node.gallery_of: in_space(node.clustered_on if foregrounds else node.features, node.settings) for node in nodes
    }


class Node:
    """One iteration of a run: a gallery, what was seen in it, what was chosen, and the Θ that came of it.

    Its gallery is drawn with ``theta_in`` (the parent's Θ; none at the root). What has not been done yet
    reads as None (or an empty sequence), so that a view can show any node at any time.

    Parameters
    ----------
    tree : Tree
    record : dict
        The contents of ``node.json``.
    """

    def __init__(self, tree: Tree, record: dict[str, Any]) -> None:
        self._tree, self.record = tree, record
        self._edits, self._position = _read_edits(self.folder / "edits.json")
        self._cache: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Node {self.id}: iteration {self.iteration}, {self.state}>"

    # what it is

    @property
    def id(self) -> str:
        """Name in the tree: the iteration, and a letter from the second branch on (``"1"``, ``"1b"``)."""
        return self.record["id"]

    @property
    def iteration(self) -> int:
        """How many refinements lie before its gallery."""
        return self.record["iteration"]

    @property
    def parent(self) -> Node | None:
        """The node whose Θ draws this one's gallery; None at the root."""
        return None if self.record["parent"] is None else self._tree.nodes[self.record["parent"]]

    @property
    def children(self) -> list[Node]:
        """The nodes drawn with this one's Θ, oldest first."""
        return [node for node in self._tree.nodes.values() if node.record["parent"] == self.id]

    @property
    def gallery_of(self) -> str:
        """Id of the node whose gallery and features this one shares; its own id where it drew them itself."""
        return self.record["gallery_of"]

    @property
    def home(self) -> Node:
        """The node that keeps this one's gallery files."""
        return self if self.gallery_of == self.id else self._tree.nodes[self.gallery_of]

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self._tree.folder / "nodes" / self.record["id"]

    @property
    def settings(self) -> Settings:
        """The settings its stages are done with."""
        return self._kept("settings", lambda: Settings(**self.record["settings"]))

    @property
    def stages_done(self) -> tuple[str, ...]:
        """The finished stages, in order."""
        return tuple(stage for stage in STAGES if self.done(stage))

    def done(self, stage: str) -> bool:
        """Tell whether a stage's results are on disk."""
        if stage == "cluster":
            return self._position >= 0
        if stage == "choose":
            return self.decision is not None
        return stage in self._keeper(stage).record["stages"]

    @property
    def refined(self) -> bool:
        """Whether it has a Θ of its own."""
        return self.done("refine")

    @property
    def collapsed(self) -> bool:
        """Whether its gallery was found to have collapsed."""
        return self.verdict is not None and self.verdict.state == "collapsed"

    @property
    def stopped(self) -> str | None:
        """Why the method ends here: ``"converged"``, ``"collapsed"``, ``"limit"``; None where it goes on."""
        limit = self.settings.max_iterations
        return policy.stop_reason(self._judged, self.iteration, limit, overruled=self.record["beyond"])

    @property
    def _judged(self) -> str | None:
        return self.verdict.state if self.verdict else None

    @property
    def state(self) -> str:
        """One word: why the method ends here (see `stopped`), else the last stage done, else ``"new"``."""
        return self.stopped or (self.stages_done[-1] if self.stages_done else "new")

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time of each stage done here, in seconds."""
        return {name: stage["seconds"] for name, stage in self.record["stages"].items()}

    # what was drawn and seen

    @property
    def seeds(self) -> np.ndarray:
        """Seed of each image, shape (N,) int64."""
        return np.asarray(self.record["seeds"], dtype=np.int64)

    @property
    def images(self) -> Images:
        """The gallery's images, read when asked for; empty before they are drawn."""
        return Images(self.image, len(self.record["seeds"]) if self.done("generate") else 0)

    def image(self, index: int) -> Image.Image:
        """Read one image of the gallery, checked against its checksum."""
        return self._read("generate", store.read_image, f"gallery/{index:03d}.png")

    def image_path(self, index: int) -> Path:
        """Tell where image ``index`` lies."""
        return self.home.folder / "gallery" / f"{index:03d}.png"

    def latents(self, indices: Sequence[int]) -> np.ndarray:
        """Read the latents the images were decoded from, shape (len(indices), C, h, w) float32."""
        return np.stack([self._read("generate", store.read_array, f"gallery/{i:03d}.npy") for i in indices])

    @property
    def features(self) -> np.ndarray | None:
        """Features of the gallery, shape (N, D) float32, read-only."""
        return self._array("embed", "features.npy")

    @property
    def clip(self) -> np.ndarray | None:
        """CLIP embeddings of the gallery, unit length, shape (N, D'); None without CLIP."""
        return self._array("embed", "clip.npy")

    @property
    def patches(self) -> np.ndarray | None:
        """Patch tokens, shape (N, P, D) float16, once `RunAttributes.patch_tokens` has made them; None before."""
        return self._array("patches", "patches.npy")

    @property
    def segmentation(self) -> Segmentation | NotAvailable | None:
        """Foreground and scene of each image, once `RunAttributes.segment` has segmented them; None before.

        NotAvailable, with the reason, where they cannot be told apart.
        """
        return (
            self._kept("segmentation", self._read_segmentation)
            if "segmentation" in self.home.record["stages"]
            else None
        )

    def _read_segmentation(self) -> Segmentation | NotAvailable:
        from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation

        values = self._read("segmentation", store.read_json, "segmentation.json")
        if "reason" in values:
            return NotAvailable(values["reason"])
        arrays = self._read("segmentation", store.read_arrays, "segmentation.npz")
        return Segmentation(**values, **{name: arrays[name] for name in ("masks", "scores", "foreground", "scene")})

    @property
    def clip_alone(self) -> tuple[np.ndarray, np.ndarray] | None:
        """CLIP embeddings of foregrounds and of scenes, each (N, D'), beside `foreground`; None without."""
        if not self.segmentation:
            return None
        arrays = self._kept("clip_alone", lambda: self._read("segmentation", store.read_arrays, "segmentation.npz"))
        return (arrays["clip_foreground"], arrays["clip_scene"]) if "clip_foreground" in arrays else None

    @property
    def clustered_on(self) -> np.ndarray | None:
        """What its clusters are made of, by the setting `cluster_on`: features of images, or of foregrounds (N, D)."""
        if self.settings.cluster_on == "image" or self.features is None or self.segmentation is None:
            return self.features
        if not self.segmentation:
            raise RunError(f"cluster_on: foregrounds cannot be compared. {self.segmentation.reason} Set it to 'image'.")
        return self.segmentation.foreground

    @property
    def uses_foreground(self) -> bool:
        """Whether it is the foregrounds that are compared here: the settings want it, and they have been found."""
        return self.settings.cluster_on == "foreground" and bool(self.segmentation)

    @property
    def measures(self) -> GalleryMeasures | None:
        """What the health check compares of the gallery."""
        if not self.done("embed"):
            return None
        from chosen_one_nb.steps.converge import GalleryMeasures

        arrays = self._kept("measures", lambda: self._read("embed", store.read_arrays, "measures.npz"))
        statistics = {name[2:]: values for name, values in arrays.items() if name.startswith("s_")}
        return GalleryMeasures(self.features, statistics, arrays["thumbnails"], arrays.get("prompt_similarity"))

    # what was measured

    @property
    def convergence(self) -> Convergence | None:
        """The gallery's mean pairwise distance against d_conv."""
        return self._checked()[0]

    @property
    def health(self) -> Health | None:
        """Whether the gallery is sound or collapsed, and why."""
        return self._checked()[1]

    @property
    def verdict(self) -> Verdict | None:
        """Convergence and health in one word and a reason."""
        return self._checked()[2]

    def _checked(self) -> tuple[Convergence, Health, Verdict] | tuple[None, None, None]:
        return self._kept("check", self._read_check) if self.done("check") else (None, None, None)

    def _read_check(self) -> tuple[Convergence, Health, Verdict]:
        from chosen_one_nb.steps.converge import Convergence, Health, HealthCheck, Verdict

        values = self._read("check", store.read_json, "check.json")
        checks = [HealthCheck(**check) for check in values["health"]["checks"]]
        health = Health(**{**values["health"], "checks": checks})
        return Convergence(**values["convergence"]), health, Verdict(**values["verdict"])

    # what was grouped and chosen

    @property
    def edit(self) -> Edit | None:
        """The present state of clusters, exclusions and choice; None before clustering."""
        return self._edits[self._position] if self._position >= 0 else None

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All edits that undo and redo can reach, oldest first."""
        return tuple(self._edits)

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back (never below the clustering itself)."""
        return self._position > 0 and not self.refined

    @property
    def can_redo(self) -> bool:
        """Whether an edit was taken back that can be made again."""
        return self._position < len(self._edits) - 1 and not self.refined

    @property
    def clusters(self) -> Clusters | None:
        """The clusters as they are now."""
        edit = self.edit
        return self._kept(edit.clusters, lambda: self._read_clusters(edit)) if edit else None

    def _read_clusters(self, edit: Edit) -> Clusters:
        from chosen_one_nb.steps.cluster import Clusters

        values, arrays = f"{edit.clusters}.json", f"{edit.clusters}.npz"
        with self._advice("cluster"):
            plain = store.read_json(self.folder / values, edit.stamps[values])
            return Clusters(**plain, **store.read_arrays(self.folder / arrays, edit.stamps[arrays]))

    @property
    def decision(self) -> Decision | None:
        """What was chosen."""
        return self.edit.decision if self.edit else None

    @property
    def excluded(self) -> tuple[int, ...]:
        """Images left out at this node."""
        return self.edit.excluded if self.edit else ()

    # what was learnt

    @property
    def losses(self) -> list[dict[str, Any]]:
        """What each refinement step reported: ``step``, ``loss``, ``ema_loss``, ..."""
        return (
            self._kept("losses", lambda: self._read("refine", store.read_json, "losses.json")) if self.refined else []
        )

    @property
    def theta(self) -> Character | None:
        """The Θ refined here."""
        return self._kept("theta", self._read_theta) if self.refined else None

    @property
    def theta_in(self) -> Character | None:
        """The Θ its gallery is drawn with; None at the root."""
        return self.parent.theta if self.parent else None

    @property
    def theta_node(self) -> Node | None:
        """The node whose character goes with this one: itself, else the one its gallery was drawn with."""
        return self if self.refined else self.parent

    @property
    def theta_digest(self) -> str:
        """Checksum of its Θ's weights and words; empty without one."""
        files = self.record["stages"].get("refine", {}).get("files", {})
        return files["theta.json"]["sha256"] if files else ""

    def _read_theta(self) -> Character:
        from chosen_one_nb.character import Character

        for name in self.record["stages"]["refine"]["files"]:
            if name.startswith("theta/"):
                self._read("refine", store.read_bytes, name)
        return Character.load(self.folder / "theta")

    # reading, with advice

    def _kept(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def _advice(self, stage: str) -> Advice:
        return Advice(stage, self._keeper(stage).id, self._tree.folder)

    def _keeper(self, stage: str) -> Node:
        return self.home if stage in (*SHARED, *ASIDE) else self

    def _read(self, stage: str, read: Callable[[Path, Stamp | None], Any], name: str) -> Any:
        keeper = self._keeper(stage)
        stamp = keeper.record["stages"].get(stage, {}).get("files", {}).get(name)
        with self._advice(stage):
            return read(keeper.folder / name, stamp)

    def _array(self, stage: str, name: str) -> np.ndarray | None:
        if name not in self.home.record["stages"].get(stage, {}).get("files", {}):
            return None
        array = self._kept(name, lambda: self._read(stage, store.read_array, name))
        array.setflags(write=False)
        return array

    # changing: the disk first

    def commit(self, stage: str, files: Mapping[str, Stamp], seconds: float) -> None:
        """Record a stage as done: from now on its files count. A shared one is recorded at `home`."""
        if stage in SHARED and self.home is not self:
            self.home.commit(stage, files, seconds)
            return
        done = {"time": store.now(), "seconds": round(seconds, 3), "files": dict(files)}
        self.write({**self.record, "stages": {**self.record["stages"], stage: done}})

    def write(self, record: dict[str, Any]) -> None:
        """Replace ``node.json`` and forget what was read."""
        store.write_json(self.folder / "node.json", record)
        self.record, self._cache = record, {}
        for node in self._tree.nodes.values():
            if node.gallery_of == self.id:
                node._cache = {}

    def add_edit(self, edit: Edit) -> None:
        """Make ``edit`` the present state; what had been undone is dropped."""
        self._write_edits([*self._edits[: self._position + 1], edit], self._position + 1)

    def move_edit(self, by: int) -> None:
        """Go back (-1) or forth (+1) among the edits."""
        self._write_edits(self._edits, self._position + by)

    def clear_edits(self) -> None:
        """Forget clusters and choice (the log keeps what they were)."""
        (self.folder / "edits.json").unlink(missing_ok=True)
        self._edits, self._position, self._cache = [], -1, {}

    def _write_edits(self, edits: list[Edit], position: int) -> None:
        values = {"position": position, "edits": [dataclasses.asdict(edit) for edit in edits]}
        store.write_json(self.folder / "edits.json", values)
        self._edits, self._position = edits, position

    def write_clusters(self, clusters: Clusters) -> tuple[str, dict[str, Stamp]]:
        """Write clusters under a new stem and return it with the files' stamps."""
        last = max((int(edit.clusters.split("-")[1]) for edit in self._edits), default=-1)
        return self._write_clusters(clusters, f"clusters-{last + 1}")

    def mend_clusters(self, clusters: Clusters) -> None:
        """Write the first clusters again, and let edits whose own are damaged stand on them; choices are kept."""
        stem, stamps = self._write_clusters(clusters, "clusters-0")
        first = {"clusters": stem, "stamps": stamps}
        edits = [edit if self._readable(edit) else dataclasses.replace(edit, **first) for edit in self._edits]
        self._write_edits(edits, self._position)

    def _readable(self, edit: Edit) -> bool:
        try:
            self._read_clusters(edit)
        except StoreError:
            return False
        return True

    def _write_clusters(self, clusters: Clusters, stem: str) -> tuple[str, dict[str, Stamp]]:
        plain, arrays = store.split(clusters)
        stamps = {
            f"{stem}.json": store.write_json(self.folder / f"{stem}.json", plain),
            f"{stem}.npz": store.write_arrays(self.folder / f"{stem}.npz", arrays),
        }
        self._cache.pop(stem, None)
        return stem, stamps


def _read_edits(path: Path) -> tuple[list[Edit], int]:
    if not path.exists():
        return [], -1
    try:
        values = store.read_json(path)
    except StoreError as error:
        advice = "Put back a sound copy, or move it away to cluster and choose again (log.jsonl tells what was chosen)."
        raise StoreError(f"{error} {advice}", path) from error
    return [Edit.from_dict(edit) for edit in values["edits"]], values["position"]


FORMAT = 1
"""Of the files of a run; raised when older versions of the kit could not read them."""


class Tree:
    """All nodes of a run and where they lie.

    Parameters
    ----------
    folder : Path
        The run's folder.
    manifest : dict
        The contents of ``run.json``.
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
            The folder holds no run, a newer format, or a damaged file.
        """
        if not (folder / "run.json").exists():
            raise StoreError(f"{folder} holds no run (no run.json). Begin one there: Run.start(prompt, folder=...).")
        try:
            manifest = store.read_json(folder / "run.json")
        except StoreError as error:
            raise StoreError(f"{error} Put back a sound copy of it.", error.path) from error
        if manifest.get("format") != FORMAT:
            raise StoreError(
                f"{folder}: expected a run of format {FORMAT}, got {manifest.get('format')!r}. "
                "Open it with the version of chosen_one_nb that made it (versions are in run.json)."
            )
        tree = cls(folder, manifest)
        tree._read_nodes()
        return tree

    def _read_nodes(self) -> None:
        records = []
        for path in (self.folder / "nodes").glob("*/node.json"):
            try:
                records.append(store.read_json(path))
            except StoreError as error:
                advice = "Put back a sound copy, or move that folder away to make the iteration again."
                raise StoreError(f"{error} {advice}", path) from error
        for record in sorted(records, key=lambda record: record["order"]):
            self.nodes[record["id"]] = Node(self, record)
        if self.nodes:
            self.current = self.nodes.get(self._stored_current(), list(self.nodes.values())[-1])

    def _stored_current(self) -> str | None:
        try:
            return store.read_json(self.folder / "state.json")["current"]
        except (StoreError, KeyError, TypeError):
            return None  # the newest node is as good a place to look at

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

    @property
    def root(self) -> Node:
        """The node of the first gallery, drawn without a character."""
        return next(iter(self.nodes.values()))

    def theta_node(self, node: Node | str | None = None) -> Node | None:
        """Return the node whose character goes with a node; None: the one to use, looking back from the current."""
        if node is not None:
            return self.node(node).theta_node
        path, here = self.path(self.current), self.current
        source = policy.character_source(
            [n._judged for n in path], refined=here.refined, children=[child._judged for child in here.children]
        )
        return None if source is None else path[source]

    def path(self, node: Node) -> list[Node]:
        """Return the nodes from the root to ``node``, both included."""
        nodes = [node]
        while nodes[0].parent is not None:
            nodes.insert(0, nodes[0].parent)
        return nodes

    def add(self, parent: Node | None, settings: Settings, seeds: np.ndarray, like: Node | None = None) -> Node:
        """Add a node: a child of ``parent``, or a sibling of ``like`` that shares its gallery."""
        iteration = parent.iteration + 1 if parent else 0
        name = self._free_id(iteration)
        record = {
            "id": name,
            "parent": parent.id if parent else None,
            "iteration": iteration,
            "gallery_of": like.gallery_of if like else name,
            "order": max((node.record["order"] for node in self.nodes.values()), default=-1) + 1,
            "made": store.now(),
            "beyond": like.record["beyond"] if like else False,
            "seeds": [int(seed) for seed in seeds],
            "settings": settings.model_dump(),
            "stages": {},
        }
        folder = store.make_folder(self.folder / "nodes" / name, within=self.folder)
        (folder / "edits.json").unlink(missing_ok=True)  # of a branch whose making was cut short
        store.write_json(folder / "node.json", record)
        self.nodes[name] = Node(self, record)
        return self.nodes[name]

    def _free_id(self, iteration: int) -> str:
        taken = sum(node.iteration == iteration for node in self.nodes.values())
        return f"{iteration}{_letters(taken)}"


def _letters(n: int) -> str:
    """Name the n-th branch: nothing, b, c, ... z, aa, ab, ...

    Examples
    --------
    >>> [_letters(n) for n in (0, 1, 25, 26, 27)]
    ['', 'b', 'z', 'aa', 'ab']
    """
    if n == 0:
        return ""
    text, n = "", n + 1
    while n:
        n, rest = divmod(n - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
