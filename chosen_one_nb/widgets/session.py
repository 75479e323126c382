"""What the screen knows of a run: the iteration shown, what is selected and pointed at, and the work under way.

A `Session` is what the panels share. They observe its traits and change it through its methods or through
`chosen_one_nb.widgets.actions`; no panel knows another one, nor the screen that lays them out.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from chosen_one_nb.run.node import compared, image_label

from .images import Thumbnails
from .states import Screen, screen_of
from .status import Status, guarded
from .still import Download
from .tasks import BackgroundCache, Progress, Task, runner_of

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Node, Run


class Session(traitlets.HasTraits):
    """A person's view of a run.

    Parameters
    ----------
    run : Run
        New, half done or finished.
    raise_errors : bool
        Raise what goes wrong in a handler after showing it in the status line (for tests).

    Attributes
    ----------
    version : int
        Counts the changes of the run and of what is shown of it: panels show themselves anew when it grows.
    selected : list of int
        Indices of the selected images of the iteration shown, ascending.
    hovered, focused : int
        Index of the image pointed at, and of the one to scroll to; -1 for none.
    pointed_cluster : int
        The cluster pointed at; -1 for none.
    ticked : list of int
        Clusters ticked for merging.
    lit : int
        Column of the attribute that map and gallery follow; -1 for none.
    phrase : str
        The phrase that map and gallery follow; empty for none.
    isolated : list of int
        Indices of the only images that map and gallery show in full; empty: all.
    lasso_mode : {"", "add", "remove"}
        Whether a lasso replaces the selection, adds to it or takes from it.
    screen : Screen
        What is on the screen: follows from the run, the work under way and the lock.
    note : str
        What is written for the next decision; empty again when that is made.
    asks : bool
        Whether work stops before every choice.
    arrived : int
        Counts the images that have arrived while they are being drawn.
    training_step : dict
        The last report of a training step.
    progress : Progress or None
        How far the work under way has come.
    status : Status
        The status line.
    tasks : TaskRunner
        Where work on the run is handed in, shared by all who look at it.
    background : BackgroundCache
        What is computed beside the work: maps, resampling.
    thumbnails : Thumbnails
        The images that have been sent to the page.
    downloads : Download
        Hands files to the browser.
    """

    version = traitlets.Int()
    selected = traitlets.List(traitlets.Int())
    hovered = traitlets.Int(-1)
    focused = traitlets.Int(-1)
    pointed_cluster = traitlets.Int(-1)
    ticked = traitlets.List(traitlets.Int())
    lit = traitlets.Int(-1)
    phrase = traitlets.Unicode()
    isolated = traitlets.List(traitlets.Int())
    lasso_mode = traitlets.Enum(["", "add", "remove"], "")
    screen = traitlets.Instance(Screen, ("new",))
    note = traitlets.Unicode()
    asks = traitlets.Bool(False)
    arrived = traitlets.Int()
    training_step = traitlets.Dict()
    progress = traitlets.Instance(Progress, allow_none=True)

    def __init__(self, run: Run, *, raise_errors: bool = False) -> None:
        super().__init__()
        self.run, self.raise_errors = run, raise_errors
        self.status, self.background = Status(), BackgroundCache(self.refresh)
        self.tasks, self.downloads = runner_of(run), Download()
        self.thumbnails = Thumbnails(sha1(f"{run.folder} {run.manifest['made']}".encode()).hexdigest()[:8])
        self.failed = False
        self._pinned: str | None = None
        self._gallery = ""
        self._drawn: dict[str, set[int]] = {}
        run.listeners.append(self.refresh)
        self.tasks.watchers.append(self._watch)
        self._said_at: tuple[str, str] = ("", "")
        self.screen = Screen("new")  # before anybody follows it: a first change has no value before it

    def close(self) -> None:
        """Stop listening to the run and its work, and forget who observes."""
        self.unobserve_all()
        self.background.close()
        self.run.listeners[:] = [heard for heard in self.run.listeners if heard != self.refresh]
        self.tasks.watchers[:] = [watch for watch in self.tasks.watchers if watch != self._watch]
        self.thumbnails.close()
        self.downloads.layout.close()
        self.downloads.close()

    # --- what is shown ---------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """The iteration that is shown: the run's current one, unless another is looked at during work."""
        return self.run.nodes[self._pinned] if self._pinned else self.run.current

    @property
    def busy(self) -> bool:
        """Whether the run is at work, here or elsewhere in this process."""
        return self.tasks.busy or self.run.busy is not None

    @property
    def can_edit(self) -> bool:
        """Whether the run can be changed now: it is not at work and not opened for looking only."""
        return not self.busy and not self.run.read_only

    @property
    def theta_node(self) -> str | None:
        """Id of the node whose Θ is shown: its own, else the one its gallery was drawn with."""
        node = self.node if self.node.refined else self.node.parent
        return node.id if node else None

    @property
    def output_folder(self) -> Path:
        """The folder that files are written to: the run's own, or one here where that can only be looked at."""
        return Path.cwd() / "runs" / self.run.folder.name if self.run.read_only else self.run.folder

    @property
    def gallery_key(self) -> str:
        """Name under which the images of the iteration shown are sent to the page."""
        return self.thumbnails.key(self.node.gallery_of)

    def line(self, node: Node) -> list[Node]:
        """Return the iterations from the root over one to where its newest line ends."""
        line = list(self.run.path(node))
        while line[-1].children:
            line.append(line[-1].children[-1])
        return line

    def labels(self) -> list[str]:
        """Alt text of every image of the iteration that is shown."""
        node, clusters = self.node, self.node.clusters
        named = [image_label(i, seed).capitalize() for i, seed in enumerate(node.seeds)]
        if clusters is None:
            return named
        dropped = ["" if kept else " (dropped)" for kept in clusters.kept]
        pairs = zip(named, clusters.labels, clusters.distances, strict=True)
        return [f"{name}, cluster {c}{dropped[c]}, {d:.2f} from its centroid" for name, c, d in pairs]

    def drawn(self) -> list[int]:
        """Images of the iteration shown that have been drawn so far in the stage under way."""
        return sorted(self._drawn.get(self.node.gallery_of, ()))

    def neighbours(self, index: int, n: int = 5) -> list[tuple[int, float]]:
        """The n images nearest to one, as the clustering sees them, with their distances, nearest first."""
        points = compared([self.node])[self.node.gallery_of]
        distances = np.linalg.norm(points - points[index], axis=1)
        order = [int(i) for i in np.argsort(distances, kind="stable") if i != index]
        return [(i, float(distances[i])) for i in order[:n]]

    @guarded
    def refresh(self, _event: Any = None) -> None:
        """Bring every panel up to the run's state; called by the run, on whatever thread, when it has changed."""
        with self.run.lock:
            if self.node.gallery_of != self._gallery:
                self._gallery, self.selected, self.hovered, self.isolated = self.node.gallery_of, [], -1, []
            self._follow()
            if len(self.node.images):
                self.thumbnails.send(self.node.gallery_of, self.node.images)
            self.version += 1

    def _follow(self) -> None:
        """Find the state of the screen; the status line belongs to it, so a new state, or another node, replaces it."""
        run, node = self.run, self.node
        working = self.progress.stage if self.progress else (run.busy or "").split(" ")[0]
        self.screen = screen_of(
            run.next_stage,
            run.outcome.state,
            working=working or ("work" if self.busy else ""),
            read_only=run.read_only,
            clustered=node.clusters is not None,
            reason=run.outcome.reason,
            branches=sum(each.gallery_of != each.id for each in run.nodes.values()),
        )
        if (node.id, self.screen.name) != self._said_at:
            self._said_at = (node.id, self.screen.name)
            if self.screen.says:
                self.status.say(self.screen.says, self.screen.kind)

    # --- looking ---------------------------------------------------------------------------------------------------

    @guarded
    def hover(self, index: int) -> None:
        """Point at an image; numbers that are none are passed over."""
        if self.node.embedding is not None and 0 <= index < len(self.node.seeds):
            self.hovered = index

    @guarded
    def look(self, index: int) -> None:
        """Point at an image and scroll to it."""
        self.hover(index)
        self.focused = -1
        self.focused = index

    @guarded
    def select(self, indices: Iterable[int]) -> None:
        """Make a selection of images; what a lasso does."""
        wanted = sorted({int(i) for i in indices})
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self.node.seeds):
            raise ValueError(f"Expected image numbers from 0 to {len(self.node.seeds) - 1}, got {wanted}.")
        if wanted == self.selected:
            return
        self.selected = wanted
        risk = self.run.selection.risk(wanted) if wanted else ""
        self.status.say(f"{len(wanted)} images selected." + (f" If chosen: {risk}" if risk else ""))

    def lasso(self, indices: Iterable[int], how: str = "") -> None:
        """Replace the selection by the images in a lasso ("add", "remove": add them to it, take them from it)."""
        before, now = set(self.selected), {int(i) for i in indices}
        self.select({"add": before | now, "remove": before - now}.get(how, now))

    def put_out(self) -> None:
        """Let map and gallery follow their menus again, no longer the attribute that is lit."""
        if self.lit >= 0:
            self.lit = -1
            self.refresh()

    @guarded
    def show_node(self, node_id: str) -> None:
        """Look at another iteration; it becomes the run's current one unless the run is at work."""
        if self.busy:
            self._pinned = self.run.node(node_id).id
            self.refresh()
        else:
            self._pinned = None
            self.run.select(node_id)

    def make_current(self) -> None:
        """Make the iteration shown the run's current one."""
        if self._pinned is not None and self.run.current.id != self._pinned:
            self.run.select(self._pinned)
        self._pinned = None

    # --- hearing ---------------------------------------------------------------------------------------------------

    @guarded
    def _watch(self, kind: str, what: Any) -> None:
        """Work is going on, on the task's thread."""
        if kind == "images":
            gallery, images = self.run.current.gallery_of, dict(what)
            self._drawn.setdefault(gallery, set()).update(images)
            self.thumbnails.send(gallery, images, images)
            self.arrived += len(images)
        elif kind == "step":
            self.training_step = what
        elif what.running and what.progress is not None:
            begins = self.progress is None or self.progress.stage != what.progress.stage
            self.progress = what.progress
            if begins:
                self._follow()
        else:
            self._begun_or_ended(what)

    def _begun_or_ended(self, task: Task) -> None:
        self.progress = None
        if task.running:
            self.failed, self._pinned = False, None
        self.failed = task.state == "failed"
        self.refresh()
        if task.running:
            self.status.say(f"At work: {task.name}…")
        elif task.state == "done":
            self.status.say(task.message or self.screen.says, "warning" if self.screen.kind == "warning" else "good")
        elif task.state == "cancelled":
            self.status.say("Cancelled. Finished stages and whole images are kept; Next goes on from there.", "warning")
        else:
            self.status.fail(task.error)
