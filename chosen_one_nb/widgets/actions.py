"""What a person can do on the screen: functions on a session, each calls one of `Run` and says what followed."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .session import Session
from .status import counted_words, guarded
from .tasks import Task

# --- stepping ------------------------------------------------------------------------------------------------------


@guarded
def next_stage(session: Session) -> None:
    """Do the next stage, in the background."""
    _work(session, f"{session.run.next_stage}", session.run.step)


@guarded
def next_iteration(session: Session) -> None:
    """Go on until the present iteration has its Θ, in the background."""
    _work(session, "one iteration", session.run.next_iteration, ask=session.asks)


@guarded
def to_convergence(session: Session) -> None:
    """Go on until the run is finished, in the background; stops at Choose when “ask me each time” is on."""
    _work(session, "to convergence", session.run.until_converged, ask=session.asks)


@guarded
def go_on(session: Session) -> None:
    """Go on past the stop rule."""
    session.run.go_on()
    session.status.say("Going on past the stop rule; this is recorded. Press Next.", "good")


@guarded
def cancel(session: Session) -> None:
    """Ask the work to stop at its next sampler or training step."""
    if session.tasks.busy:
        session.tasks.task.stop.set()
        session.status.say("Stopping at the next sampler or training step…")
    else:
        session.status.say("Nothing is running.")


def _work(session: Session, name: str, method: Callable[..., Any], **options: Any) -> None:
    """Hand a method of the run to the task runner, with its callbacks wired to the watchers.

    While a task is running nothing happens: it was a second click on the same button.
    """
    tasks = session.tasks
    if tasks.busy:
        return

    def work(task: Task) -> Any:
        return method(
            **options,
            **task.callbacks,
            on_images=lambda pairs: tasks.tell("images", pairs),
            on_step=lambda event: tasks.tell("step", event),
        )

    tasks.start(work, name=name)


# --- deciding ------------------------------------------------------------------------------------------------------


def deciding(change: Callable[..., None]) -> Callable[..., None]:
    """Let a function decide about the iteration shown, and say what followed; nothing changes when it is refused."""

    @guarded
    @functools.wraps(change)
    def decide(session: Session, *args: Any, **kwargs: Any) -> None:
        run = session.run
        session.make_current()
        before = run.current.id
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # the risk is shown with the decision
                change(session, *args, **kwargs)
            session.note = ""  # it went with this decision, if it was not kept before
        finally:
            session.refresh()
        node = run.current
        said = f"{len(node.clusters.sizes)} clusters, nothing chosen yet."
        if node.decision is not None:
            said = f"Chosen: {counted_words(node.decision)}. Stored; Next refines on it."
        session.status.say(said + (f" This began branch {node.id}." if node.id != before else ""), "good")

    return decide


@deciding
def choose(session: Session, cluster: int | None = None, *, note: str | None = None, **choice: Any) -> None:
    """Choose a cluster (None: what the rule proposes), or what `RunSelection.choose` takes; None: the written note."""
    session.run.selection.choose(cluster, note=session.note.strip() if note is None else note, **choice)


@deciding
def leave_out(session: Session, images: Iterable[int]) -> None:
    """Leave images out of what is learnt."""
    session.run.selection.exclude([int(i) for i in images], note=session.note.strip())


@deciding
def put_back(session: Session, images: Iterable[int] | None = None) -> None:
    """Put images back; None puts all back."""
    images = session.node.excluded if images is None else images
    session.run.selection.include([int(i) for i in images], note=session.note.strip())


def set_excluded(session: Session, images: Iterable[int]) -> None:
    """Make `images` the ones left out."""
    before, now = set(session.node.excluded), set(images)
    if now - before:
        leave_out(session, sorted(now - before))
    if before - now:
        put_back(session, sorted(before - now))


@deciding
def merge(session: Session, members: Sequence[int]) -> None:
    """Make one cluster of those that some images are in."""
    for member in members[1:]:  # clusters are numbered anew by each merge: follow one image of each
        labels = session.run.current.clusters.labels
        session.run.selection.merge(int(labels[members[0]]), int(labels[member]))
    session.ticked = []


@guarded
def merge_ticked(session: Session) -> None:
    """Make one cluster of those ticked on their cards."""
    if len(session.ticked) < 2:
        session.status.say("Tick two or more clusters on their cards, then press Merge.", "warning")
    else:
        merge(session, [int(session.node.clusters.members(cluster)[0]) for cluster in session.ticked])


@deciding
def recluster(session: Session, k: int) -> None:
    """Cluster the same images again into k clusters."""
    session.run.selection.recluster(int(k))


@deciding
def undo(session: Session) -> None:
    """Take back the last decision, exclusion, merge or re-clustering."""
    session.run.selection.undo()


@deciding
def redo(session: Session) -> None:
    """Make again what was taken back."""
    session.run.selection.redo()


@guarded
def write_note(session: Session, text: str) -> None:
    """Keep a note with the decision that stands; without one it waits for the next decision."""
    session.note, decision = text, session.node.decision
    if decision is None or decision.note == text:
        return
    if session.node.refined:
        session.status.say("This decision has been refined on and stands; the note goes to the next one.")
        return
    picked = {"images": sorted({*decision.images, *decision.excluded})}  # what is left out stays so
    base = {"cluster": decision.cluster} if decision.cluster is not None else picked
    choose(session, **base, note=text, by=decision.by)


def press_key(session: Session, action: str, index: int = -1) -> None:
    """Do what a key of a gallery asks for."""
    if action in ("undo", "redo"):
        {"undo": undo, "redo": redo}[action](session)
    elif action == "choose" and session.node.clusters is not None and index >= 0:
        choose(session, int(session.node.clusters.labels[index]))
