"""What the screen says: the status line, errors as sentences, where a run stands, what a decision takes."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

import ipywidgets

from .states import Kind

if TYPE_CHECKING:
    from chosen_one_nb.run.decision import Decision

Handler = TypeVar("Handler", bound=Callable[..., Any])

SIGNS: dict[str, str] = {"quiet": "", "good": "✓ ", "warning": "⚠ ", "error": "✕ "}
"""A sign besides the colour, so that the kind of message does not hang on colour alone."""


class Status(ipywidgets.HTML):
    """One line of text for the person at the screen, read out by screen readers."""

    def __init__(self) -> None:
        self.kind: Kind = "quiet"
        self.text = ""
        super().__init__()
        self.add_class("chosen-status")
        self.say("")

    def say(self, text: str, kind: Kind = "quiet", details: str = "") -> None:
        """Show `text`, always as text: markup in it is shown, not obeyed."""
        self.text, self.kind = text, kind
        more = f"<details><summary>details</summary><pre>{escape(details)}</pre></details>" if details else ""
        said = f"{SIGNS[kind]}{escape(text)}{more}"
        self.value = f'<div role="status" aria-live="polite" class="chosen-{kind}">{said}</div>'

    def fail(self, error: BaseException) -> None:
        """Show what went wrong as a sentence, the traceback behind *details*."""
        self.say(sentence(error), "error", "".join(traceback.format_exception(error)))


def sentence(error: BaseException) -> str:
    """Turn an exception into a sentence that says what to do.

    Examples
    --------
    >>> sentence(ValueError("Expected k ≥ 2, got 1."))
    'Expected k ≥ 2, got 1.'
    >>> sentence(KeyError("x"))
    "KeyError: 'x'. Press details for the full text; the last finished stage is safe, try again."
    """
    text = str(error).strip()
    if text and _raised_by_the_kit(error):
        return text
    name = type(error).__name__
    reason = f"{name}: {text}" if text else name
    return f"{reason}. Press details for the full text; the last finished stage is safe, try again."


def _raised_by_the_kit(error: BaseException) -> bool:
    """Whether the message was written for people: raised in this package (or here, in an example)."""
    trace = error.__traceback__
    if trace is None:
        return type(error).__module__.startswith("chosen_one_nb") or isinstance(error, ValueError)
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")).startswith("chosen_one_nb")


def guarded(handler: Handler) -> Handler:
    """Make a handler show its errors: what it raises goes to the session's status line, never silently away.

    The handler's first argument is a `chosen_one_nb.widgets.session.Session` or has one as ``session``; with its flag
    `raise_errors` set the error is raised again, which is what tests want.
    """

    @functools.wraps(handler)
    def guard(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return handler(self, *args, **kwargs)
        except Exception as error:
            session = getattr(self, "session", self)
            session.status.fail(error)
            if session.raise_errors:
                raise
            return None

    return guard  # type: ignore[return-value]


def chosen_words(decision: Decision, by_hand: str = "images picked by hand") -> str:
    """Name what a decision takes: a cluster, or images picked by a person."""
    return f"cluster {decision.cluster}" if decision.cluster is not None else by_hand


def counted_words(decision: Decision) -> str:
    """Say what a decision takes, how many images, and how many are left out."""
    left = f", {len(decision.excluded)} left out" if decision.excluded else ""
    return f"{chosen_words(decision)}, {len(decision.images)} images{left}"
