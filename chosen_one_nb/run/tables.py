"""A run as tables: images of a gallery, the distance curve, two nodes side by side, scores, the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from chosen_one_nb.analysis import statistics as scoring
from chosen_one_nb.run import store
from chosen_one_nb.run.node import Node, Tree
from chosen_one_nb.run.selection import saved_selections

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.models.load import Models
    from chosen_one_nb.settings import Settings

CURVE = ["node", "parent", "iteration", "distance", "ratio", "threshold", "state", "seconds"]


class RunTables:
    """A run as DataFrames.

    Parameters
    ----------
    tree : Tree
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def gallery(self, node: Node | str | None = None) -> pd.DataFrame:
        """Return a node's gallery (None: the current one), a row per image.

        Returns
        -------
        DataFrame
            Columns ``image_id`` (iteration, index), ``iteration``, ``index``, ``seed``, ``cluster``,
            ``distance`` (to the own centroid), ``kept``, ``chosen``, ``excluded``; empty (NA) where not
            known yet. ``selections``: the names given to selections the image is in, parted by "; ".
        """
        node = self._tree.node(node)
        n, clusters, decision = len(node.seeds), node.clusters, node.decision
        index, named = np.arange(n), saved_selections(self._tree.folder, node.gallery_of, n)
        # Nullable types: not known yet is neither cluster 0 nor False.
        columns: dict[str, Any] = {
            # After the node that drew it: on a branch that shares a gallery an image keeps its name.
            "image_id": [f"{node.gallery_of}/{i:03d}" for i in index],
            "iteration": node.iteration,
            "index": index,
            "seed": node.seeds,
            "cluster": pd.array(clusters.labels if clusters else [pd.NA] * n, dtype="Int64"),
            "distance": clusters.distances if clusters else np.full(n, np.nan),
            "kept": pd.array(clusters.kept[clusters.labels] if clusters else [pd.NA] * n, dtype="boolean"),
            "chosen": pd.array(np.isin(index, decision.images) if decision else [pd.NA] * n, dtype="boolean"),
            "excluded": np.isin(index, node.excluded),
            "selections": ["; ".join(name for name, images in named.items() if i in images) for i in index],
        }
        return pd.DataFrame(columns, index=pd.RangeIndex(n))

    def curve(self, node: Node | str | None = None) -> pd.DataFrame:
        """Return the distance of each checked node, of all nodes or of those on the way to one.

        Returns
        -------
        DataFrame
            Columns ``node``, ``parent``, ``iteration``, ``distance``, ``ratio``, ``threshold``,
            ``state``, ``seconds``.
        """
        rows = []
        for n in self._tree.path(self._tree.node(node)) if node is not None else list(self._tree.nodes.values()):
            if n.check is not None:
                parent, found = n.parent.id if n.parent else None, n.check.convergence
                numbers = (found.distance, found.ratio, found.threshold)
                rows.append((n.id, parent, n.iteration, *numbers, n.state, sum(n.seconds.values())))
        return pd.DataFrame(rows, columns=CURVE)

    def scores(self, node: Node | str | None = None) -> pd.DataFrame:
        """Score a gallery: prompt similarity and identity, with 95 % bootstrap intervals over images.

        Returns
        -------
        DataFrame
            A row per score with ``value``, ``low``, ``high``, ``n`` (images).
        """
        return _rows(identity(self._tree.node(node)))

    def compare(self, a: Node | str, b: Node | str) -> pd.DataFrame:
        """Set two nodes side by side, choices and what followed: a row per fact, a column per node."""
        columns = {node.id: _facts(node) | _followed(node) for node in map(self._tree.node, (a, b))}
        rows = list(dict.fromkeys(name for facts in columns.values() for name in facts))
        # As objects: a row holds numbers, words and gaps, which pandas would otherwise turn into floats.
        values = {name: [facts.get(row) for row in rows] for name, facts in columns.items()}
        return pd.DataFrame(values, index=rows, dtype=object)

    def history(self) -> pd.DataFrame:
        """Return the log: a row per action with ``time``, ``action``, ``node`` and its particulars (``about``)."""
        rows = []
        for line in store.read_lines(self._tree.folder / "log.jsonl"):
            about = {key: value for key, value in line.items() if key not in ("time", "action", "node")}
            rows.append((line.get("time"), line.get("action"), line.get("node"), about))
        return pd.DataFrame(rows, columns=["time", "action", "node", "about"])


def identity(node: Node) -> dict[str, scoring.Interval]:
    """Score a node's gallery with intervals; a score that needs CLIP is left out where there is none."""
    if node.embedding is None:
        return {}
    seen, clip = node.embedding.measures.rows(node.intact), node.embedding.clip
    return _intervals(seen.features, None if clip is None else clip[node.intact], seen.prompt_similarity)


def context_scores(
    models: Models, prompt: str, by_context: Mapping[str, Sequence[Image.Image]], settings: Settings
) -> pd.DataFrame:
    """Score images by context, each against its own prompt; see `RunSamples.context_scores`."""
    from chosen_one_nb.steps.embed import embed, unit

    images = [image for row in by_context.values() for image in row]
    clip = similarity = None
    if models.clip is not None:
        clip = models.clip.images(images)
        texts = models.clip.texts([f"{prompt} {context}".strip() for context in by_context])
        asked = np.repeat(texts, [len(row) for row in by_context.values()], axis=0)
        similarity = (unit(clip) * unit(asked)).sum(1)
    return _rows(_intervals(embed(models, images, settings).cls, clip, similarity))


def _intervals(
    features: np.ndarray, clip: np.ndarray | None, prompt_similarity: np.ndarray | None
) -> dict[str, scoring.Interval]:
    found = {}
    if prompt_similarity is not None:
        found["prompt similarity (CLIP)"] = scoring.bootstrap(prompt_similarity)
    if clip is not None:
        found["identity (CLIP)"] = scoring.identity_consistency(clip)
    # In the loop: the clusters were chosen by these very features, so that this is no independent evidence.
    return found | {"identity (features, in the loop)": scoring.identity_consistency(features)}


def _rows(found: Mapping[str, scoring.Interval]) -> pd.DataFrame:
    rows = [(score.value, score.low, score.high, score.n) for score in found.values()]
    return pd.DataFrame(rows, index=list(found), columns=["value", "low", "high", "n"])


def _facts(node: Node) -> dict[str, Any]:
    """What is compared of a node itself; None where it is not known yet."""
    decision, clusters = node.decision, node.clusters
    facts: dict[str, Any] = {
        "iteration": node.iteration,
        "distance": node.check and node.check.convergence.distance,
        "images chosen": decision and len(decision.images),
        "cluster": decision and decision.cluster,
        "proposed by the rule": decision and decision.proposed,
        "chosen by": decision and decision.by,
        "note": decision and decision.note,
        "left out": len(node.excluded),
        "cohesion of the cluster": None,
    }
    if decision is not None and decision.cluster is not None and clusters is not None:
        facts["cohesion of the cluster"] = float(clusters.cohesion[decision.cluster])
    return facts


def _followed(node: Node) -> dict[str, Any]:
    """What followed from a node: the gallery of its newest child, and where that line ended."""
    if not node.children:
        return {}
    child = last = node.children[-1]
    while last.children:
        last = last.children[-1]
    facts: dict[str, Any] = {"next node": child.id}
    if child.check:
        found = child.check.convergence
        facts |= {"next distance": found.distance, "next ratio": found.ratio, "next state": child.judged}
    facts |= {f"next {name}": score.value for name, score in identity(child).items()}
    end = {"last node": last.id, "last state": last.state}
    return facts | end | ({"last ratio": last.check.convergence.ratio} if last.check else {})
