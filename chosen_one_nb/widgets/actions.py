"""What a person can do on the screen, each as one method that calls one of `Run` and says what came of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .export_panel import save_table
from .status import Status, guarded
from .tasks import Desk, Job

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Node, Run

    from .cards import ClusterPanel
    from .selection_panel import DecidePanel
    from .strength import StrengthPanel


class Actions:
    """The doing side of an `Explorer`; the showing side is there."""

    run: Run
    desk: Desk
    status: Status
    raise_errors: bool
    selected: list[int]
    failed: bool
    clusters: ClusterPanel
    decide: DecidePanel
    strength: StrengthPanel
    _pinned: str | None

    @property
    def node(self) -> Node:
        """The iteration that is shown."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Bring the screen up to the run's state."""
        raise NotImplementedError

    # --- stepping --------------------------------------------------------------------------------------------------

    @guarded
    def next(self) -> None:
        """Do the next stage, in the background."""
        self._work(f"{self.run.next_stage}", lambda calls: self.run.step(**calls))

    @guarded
    def next_iteration(self) -> None:
        """Go on until the present iteration has its Θ, in the background."""
        ask = self.asks
        self._work("one iteration", lambda calls: self.run.next_iteration(ask=ask, **calls))

    @guarded
    def to_convergence(self) -> None:
        """Go on until the run is finished, in the background; stops at Choose when “ask me each time” is on."""
        ask = self.asks
        self._work("to convergence", lambda calls: self.run.until_converged(ask=ask, **calls))

    @guarded
    def go_on(self) -> None:
        """Go on past the stop rule."""
        self.run.go_on()
        self.status.say("Going on past the stop rule; this is recorded. Press Next.", "good")

    @guarded
    def cancel(self) -> None:
        """Ask the work to stop at its next sampler or training step."""
        if self.desk.cancel():
            self.status.say("Stopping at the next sampler or training step…")
        else:
            self.status.say("Nothing is running.")

    @property
    def asks(self) -> bool:
        """Whether the work is to stop before every choice."""
        raise NotImplementedError

    def wait(self, timeout: float | None = 600.0) -> None:
        """Wait until the work is done and shown (for cells and tests).

        Raises
        ------
        TimeoutError
            When it is not after `timeout` seconds.
        """
        if self.desk.job is not None:
            self.desk.job.wait(timeout)

    def _work(self, name: str, work: Callable[[dict[str, Any]], Any]) -> None:
        """Hand work to the desk, with the run's callbacks wired to it."""
        desk = self.desk

        def calling(job: Job) -> Any:
            return work(
                {
                    "on_progress": job.report,
                    "cancelled": job.cancelled,
                    "on_images": lambda pairs: desk.tell("images", pairs),
                    "on_step": lambda event: desk.tell("step", event),
                }
            )

        desk.start(calling, name=name)

    # --- deciding --------------------------------------------------------------------------------------------------

    @guarded
    def choose(self, cluster: int | None = None) -> None:
        """Choose a cluster; None takes what the rule proposes."""
        with self._deciding():
            self.run.choose(cluster, note=self.note)

    def choose_because(self, reason: str, **choice: Any) -> None:
        """Choose, with a reason that something found; takes what `Run.choose` takes."""
        with self._deciding():
            self.run.choose(**choice, note=reason)

    @guarded
    def choose_selection(self) -> None:
        """Choose the selected images."""
        with self._deciding():
            self.run.choose(images=self.selected, note=self.note)

    @guarded
    def leave_out(self, images: Iterable[int]) -> None:
        """Leave images out of what is learnt."""
        with self._deciding():
            self.run.exclude([int(i) for i in images], note=self.note)

    @guarded
    def put_back(self, images: Iterable[int] | None = None) -> None:
        """Put images back; None puts all back."""
        with self._deciding():
            self.run.include([int(i) for i in (self.node.excluded if images is None else images)], note=self.note)

    def set_excluded(self, images: Sequence[int]) -> None:
        """Make `images` the ones left out."""
        before, now = set(self.node.excluded), set(images)
        if now - before:
            self.leave_out(sorted(now - before))
        if before - now:
            self.put_back(sorted(before - now))

    @guarded
    def merge_ticked(self) -> None:
        """Make one cluster of those ticked on their cards."""
        ticked = list(self.clusters.view.ticked)
        if len(ticked) < 2:
            self.status.say("Tick two or more clusters on their cards, then press Merge.", "warning")
            return
        members = [int(self.node.clusters.members(cluster)[0]) for cluster in ticked]
        with self._deciding():
            for member in members[1:]:  # clusters are numbered anew by each merge: follow one image of each
                labels = self.run.current.clusters.labels
                self.run.merge(int(labels[members[0]]), int(labels[member]))
        self.clusters.view.ticked = []

    @guarded
    def recluster(self, k: int) -> None:
        """Cluster the same images again into k clusters."""
        with self._deciding():
            self.run.recluster(int(k))

    @guarded
    def undo(self) -> None:
        """Take back the last decision, exclusion, merge or re-clustering."""
        with self._deciding():
            self.run.undo()

    @guarded
    def redo(self) -> None:
        """Make again what was taken back."""
        with self._deciding():
            self.run.redo()

    @guarded
    def write_note(self, text: str) -> None:
        """Keep a note with the decision that stands; without one it waits for the next decision."""
        decision = self.node.decision
        if decision is None or decision.note == text:
            return
        if self.node.refined:
            self.status.say("This decision has been refined on and stands; the note goes to the next one.")
            return
        base = {"cluster": decision.cluster} if decision.cluster is not None else {"images": decision.images}
        with self._deciding():
            self.run.choose(**base, note=text, by=decision.by)

    @property
    def note(self) -> str:
        """What is written in the note field."""
        return self.decide.note.value.strip()

    def key(self, action: str, index: int) -> None:
        """Do what a key of a gallery asks for."""
        if action == "undo":
            self.undo()
        elif action == "redo":
            self.redo()
        elif action == "choose" and self.node.clusters is not None and index >= 0:
            self.choose(int(self.node.clusters.labels[index]))

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Decide about the iteration that is shown, and say what came of it; nothing changes when it is refused."""
        if self._pinned is not None and self.run.current.id != self._pinned:
            self.run.select(self._pinned)
        self._pinned = None
        before = self.run.current.id
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # the risk is shown with the decision
                yield
        finally:
            self.refresh()
        branch = f" This began branch {self.run.current.id}." if self.run.current.id != before else ""
        self.status.say(self._came_of_it() + branch, "good")

    def _came_of_it(self) -> str:
        node = self.run.current
        decision = node.decision
        if decision is None:
            return f"{len(node.clusters.sizes)} clusters, nothing chosen yet."
        what = f"cluster {decision.cluster}" if decision.cluster is not None else "images picked by hand"
        left = f", {len(decision.excluded)} left out" if decision.excluded else ""
        return f"Chosen: {what}, {len(decision.images)} images{left}. Stored; Next refines on it."

    # --- taking away -----------------------------------------------------------------------------------------------

    @property
    def place(self) -> Path:
        """The folder that files are written to: the run's own, or one here where that can only be looked at."""
        return Path.cwd() / "runs" / self.run.folder.name if self.run.read_only else self.run.folder

    @guarded
    def export(self, folder: str | Path, formats: Sequence[str], name: str | None = None) -> None:
        """Write the Θ that the screen shows as files for other programs, in the background."""
        source = self.strength.source()

        def work(job: Job) -> None:
            path = self.run.export(folder, source, formats=formats, name=name)
            job.came_of_it = f"Exported Θ of node {source} to {path}. Its README.md has the lines to copy."

        self.desk.start(work, name="export")

    @guarded
    def draw_strength(self, strength: float) -> None:
        """Draw eight fixed seeds at a strength of Θ, in the background."""
        source = self.strength.source()

        def work(job: Job) -> None:
            images = self.run.probe(source, strength=strength, on_progress=job.report, cancelled=job.cancelled)
            self.strength.take(source, strength, images)

        self.desk.start(work, name=f"strength {strength:g}")

    @guarded
    def save_table(self, folder: str | Path | None = None) -> list[Path]:
        """Write the iteration's table as CSV and Parquet."""
        paths = save_table(self.run, self.node, folder or self.place / "tables")
        self.status.say(f"Written: {', '.join(map(str, paths))}.", "good")
        return paths

    @guarded
    def report(self) -> Path:
        """Write the whole run as one HTML page."""
        if self.run.read_only:
            self.place.mkdir(parents=True, exist_ok=True)
        path = self.run.report(self.place / "report.html")
        self.status.say(f"Written: {path}. It opens in any browser.", "good")
        return path
