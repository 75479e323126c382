"""When a branch stops (section 3.3 of the paper, and the health of its galleries), and which character to use.

Pure functions of what was measured: nothing here knows nodes or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Where the present branch stands.

    Parameters
    ----------
    state : {"unfinished", "converged", "collapsed", "limit", "no cluster"}
        ``limit``: the iterations are used up; ``no cluster``: none was large enough, a person may choose.
    reason : str
        Why, as a sentence.
    node : str
        Id of the node it is about.
    sound_node : str or None
        The last node whose gallery is sound and drawn with a character: its ``theta_in`` is the one to use.
    """

    state: str
    reason: str
    node: str
    sound_node: str | None

    @property
    def finished(self) -> bool:
        """Whether the method has come to its end here (a person may still `Run.go_on`)."""
        return self.state in ("converged", "collapsed", "limit")

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}"


def stop_reason(verdict: str | None, iteration: int, max_iterations: int, *, overruled: bool = False) -> str | None:
    """Say why the method ends at a gallery.

    Parameters
    ----------
    verdict : {"not yet", "converged", "collapsed"} or None
        Of the check; None before it.
    iteration : int
        0 is the first gallery, which never ends a run: it is drawn without a character, so there is nothing to stop
        refining.
    max_iterations : int
        d_iter.
    overruled : bool
        Whether a person asked to go on here (`Run.go_on`).

    Returns
    -------
    {"converged", "collapsed", "limit"} or None
        None where it goes on.
    """
    if overruled or iteration == 0 or verdict is None:
        return None
    # Before the limit: a run that converges in its last iteration has converged.
    if verdict != "not yet":
        return verdict
    return "limit" if iteration >= max_iterations else None


def last_sound(verdicts: Sequence[str | None]) -> int | None:
    """Return the last gallery of a branch, drawn with a character, that was checked and has not collapsed.

    Parameters
    ----------
    verdicts : sequence of {"not yet", "converged", "collapsed", None}
        From the first gallery on.
    """
    sound = [i for i, verdict in enumerate(verdicts) if i and verdict not in (None, "collapsed")]
    return sound[-1] if sound else None


def character_source(verdicts: Sequence[str | None], *, refined: bool, children: Sequence[str | None]) -> int | None:
    """Return whose character to use: the newest that no collapsed gallery speaks against.

    Parameters
    ----------
    verdicts : sequence of {"not yet", "converged", "collapsed", None}
        Of the galleries from the first to the node in question.
    refined : bool
        Whether that node has a character of its own.
    children : sequence of {"not yet", "converged", "collapsed", None}
        Of the galleries drawn with it.

    Returns
    -------
    int or None
        Place on the way from the root; None where there is no such character.
    """
    last = len(verdicts) - 1
    # A character is spoiled when every gallery drawn with it has collapsed; branches may give it several.
    judged = [verdict for verdict in children if verdict]
    spoiled = bool(judged) and all(verdict == "collapsed" for verdict in judged)
    if refined and verdicts[last] != "collapsed" and not spoiled:
        return last
    # A gallery that has not collapsed vouches for the character it was drawn with: its parent's.
    sound = [i for i, verdict in enumerate(verdicts) if verdict != "collapsed"]
    return sound[-1] - 1 if sound and sound[-1] > 0 else None
