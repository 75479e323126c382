"""A run's tree: all its nodes, read from the run's folder, and new ones added to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from chosen_one_nb.run import store
from chosen_one_nb.run.node import Node
from chosen_one_nb.run.store import StoreError
from chosen_one_nb.settings import Settings

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
