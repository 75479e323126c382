"""The clusters as cards, most cohesive first: judge them, choose one, tick some to merge."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray

from chosen_one_nb.analysis.statistics import interval, resampled
from chosen_one_nb.plots import or_dash

from . import actions
from .attribute_findings import AttributeFindings
from .figures import marker_of, ranked_clusters, ranked_members
from .images import script, style
from .panel import Panel, on_change, update
from .session import Session
from .status import guarded

if TYPE_CHECKING:
    from chosen_one_nb.settings import Settings
    from chosen_one_nb.steps.cluster import Clusters


RESAMPLES = 50
SURE = 0.6
"""Below this selection frequency the proposal is called uncertain (shared figure of the kit's cards and tests)."""
CHANCE = 0.05
"""A cluster is no better than chance when at least this share of random groups of its size is as cohesive."""


class CardsView(anywidget.AnyWidget):
    """Cards in the browser.

    Parameters
    ----------
    thumbnails : str
        Where the images are.
    cards : list of dict
        As `describe_clusters` gives them.
    labels : list of str
        Alt text of each image.
    excluded : list of int
        Images left out; shown faint.
    hovered, pointed : int
        Cluster and image under the pointer, -1 for none.
    ticked : list of int
        Clusters ticked for merging.
    can_choose : bool
        Whether the Choose buttons work.
    empty : str
        What is written when there are no clusters.
    """

    _esm = script("cards.js")
    _css = style("cards.css")
    thumbnails = traitlets.Unicode().tag(sync=True)
    cards = traitlets.List(traitlets.Dict()).tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    excluded = traitlets.List(traitlets.Int()).tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)
    pointed = traitlets.Int(-1).tag(sync=True)
    ticked = traitlets.List(traitlets.Int()).tag(sync=True)
    can_choose = traitlets.Bool(True).tag(sync=True)
    empty = traitlets.Unicode("No clusters yet.").tag(sync=True)


@dataclass(frozen=True)
class ClusterEvidence:
    """What is known of K clusters beyond their cohesion.

    Parameters
    ----------
    selected : ndarray of shape (K,)
        Selection frequency: share of resamples in which the rule proposes the cluster, in [0, 1].
    silhouette : ndarray of shape (K,)
        Mean silhouette of the members, in [-1, 1]; NaN for broken images.
    chance : ndarray of shape (K,)
        Share of random groups of the same size that are at least as cohesive (p of the null), in [0, 1]; NaN for
        broken images.
    """

    selected: NDArray[np.floating]
    silhouette: NDArray[np.floating]
    chance: NDArray[np.floating]


def compute_evidence(
    features: NDArray[np.floating], clusters: Clusters, settings: Settings, broken: Collection[int] = ()
) -> ClusterEvidence:
    """Resample, compare and draw lots: takes a second or so for 128 images.

    Parameters
    ----------
    features : ndarray of shape (N, D)
    clusters : Clusters
        Of those features.
    settings : Settings
    broken : collection of int
        Images that show nothing (`Node.broken`).
    """
    from chosen_one_nb.steps.cluster import random_group_cohesion, selection_frequency, silhouettes

    # Broken images are all alike: among the others they would make every random group look loose.
    intact = np.setdiff1d(np.arange(len(features)), list(broken))
    labels, seen = clusters.labels[intact], features[intact]
    each = silhouettes(seen, labels, settings)
    found = np.full((2, clusters.k), np.nan)
    for c in np.unique(labels):
        null = random_group_cohesion(seen, int((labels == c).sum()), settings)
        found[:, c] = each[labels == c].mean(), (null <= clusters.cohesion[c]).mean()
    selected = selection_frequency(features, settings, clusters=clusters, resamples=RESAMPLES, broken=broken)
    return ClusterEvidence(selected, *found)


def half_width(clusters: Clusters, cluster: int, settings: Settings) -> float:
    """Half of the 95 % bootstrap interval of a cluster's cohesion, drawing its members with replacement."""
    distances = clusters.distances[clusters.labels == cluster]
    values = distances**2 if settings.cohesion == "squared" else distances
    low, high = interval(resampled(values, repeats=400))
    return float(high - low) / 2


def doubt(clusters: Clusters, found: ClusterEvidence | None, settings: Settings, cluster: int) -> str:
    """Say why a proposed cluster should not be trusted blindly; empty when nothing speaks against it."""
    said = []
    if found is not None and found.chance[cluster] >= CHANCE:
        said.append(
            f"it is no tighter than random groups of {clusters.sizes[cluster]} images "
            f"({found.chance[cluster]:.0%} of them are as tight)"
        )
    if found is not None and found.selected[cluster] < SURE:
        said.append(f"resampling picks it in only {found.selected[cluster]:.0%} of the draws")
    rest = [c for c in ranked_clusters(clusters) if clusters.kept[c] and c != cluster]
    if rest and clusters.cohesion[rest[0]] - clusters.cohesion[cluster] < half_width(clusters, cluster, settings):
        said.append(f"its lead over cluster {rest[0]} is within its uncertainty")
    return f"Doubtful: {'; '.join(said)}." if said else ""


def describe_clusters(
    clusters: Clusters, settings: Settings, found: ClusterEvidence | None = None, chosen: int | None = None
) -> list[dict[str, Any]]:
    """Describe the clusters for the cards: those kept first, most cohesive first, then the dropped ones.

    Parameters
    ----------
    clusters : Clusters
    settings : Settings
        Of the iteration.
    found : ClusterEvidence, optional
        None while it is being computed: the figures then read "…".
    chosen : int, optional
        The cluster that was chosen.
    """
    return [_card(clusters, settings, found, c) | {"chosen": chosen == c} for c in ranked_clusters(clusters)]


def _card(clusters: Clusters, settings: Settings, found: ClusterEvidence | None, c: int) -> dict[str, Any]:
    marker, members, proposed = marker_of(clusters, c), ranked_members(clusters, c), clusters.proposed == c
    medoid = int(clusters.medoids[c])
    others = [i for i in members if i != medoid]
    odd = others[-2:][::-1] if len(others) > 3 else []
    return {
        "cluster": c,
        "title": f"Cluster {c}",
        "sign": marker.glyph,
        "colour": marker.colour,
        "size": len(members),
        "kept": bool(clusters.kept[c]),
        "proposed": proposed,
        "medoid": medoid,
        "typical": [i for i in others if i not in odd][:4],
        "odd": odd,
        "facts": _facts(clusters, settings, found, c),
        "reason": clusters.reason if proposed else "",
        "warning": doubt(clusters, found, settings, c) if proposed else "",
        "dropped_tip": f"Not more than d_min-c = {settings.min_cluster_size} images: not for the rule, but for you",
    }


def _facts(clusters: Clusters, settings: Settings, found: ClusterEvidence | None, c: int) -> dict[str, str]:
    return {
        "cohesion": f"{clusters.cohesion[c]:.3f} ± {half_width(clusters, c, settings):.3f}",
        "corrected": or_dash(clusters.cohesion_corrected[c], ".3f"),
        "picked": f"{found.selected[c]:.0%}" if found else "…",
        "silhouette": or_dash(found.silhouette[c], ".2f") if found else "…",
        "chance": or_dash(found.chance[c], ".0%") if found else "…",
    }


class ClusterPanel(Panel):
    """The cards of the iteration shown, and what is done on them."""

    def __init__(self, session: Session, findings: AttributeFindings) -> None:
        super().__init__(session)
        self.findings = findings
        self.ui = self.view = CardsView()
        traitlets.link((session, "ticked"), (self.view, "ticked"))
        traitlets.dlink((self.view, "hovered"), (session, "pointed_cluster"))
        on_change(self.view, "pointed", session.hover)
        self.listen(self.view)

    def evidence(self) -> ClusterEvidence | None:
        """What speaks for the clusters shown; None until it is computed in the background."""
        node, features, clusters = self.node, self.node.embedding.clustered_on, self.node.clusters
        key = ("evidence", node.id, node.edits.current.clusters)
        return self.session.background.get(
            key, lambda: compute_evidence(features, clusters, node.settings, node.broken)
        )

    def show(self) -> None:
        """Show the clusters as they are now."""
        session, node, decision = self.session, self.node, self.node.decision
        if node.clusters is None:
            stopped = "This gallery was not clustered: the method stopped here. “Go on all the same” clusters it."
            waiting = "Clusters appear here once the features have been clustered."
            update(self.view, cards=[], ticked=[], empty=stopped if node.stopped else waiting)
            return
        chosen = decision.cluster if decision else None
        shown = describe_clusters(node.clusters, node.settings, self.evidence(), chosen)
        self.fill(
            self.view,
            excluded=list(node.excluded),
            can_choose=session.can_edit,
            ticked=[c for c in session.ticked if c < len(shown)],
            cards=[card | self.findings.on_card(card["cluster"], card["warning"]) for card in shown],
        )

    @guarded
    def act(self, content: dict[str, Any]) -> None:
        """Do what was pressed on a card.

        ``{"do": "choose", "cluster": 3}``, ``{"do": "look", "index": 7}`` or
        ``{"do": "tick", "cluster": 3, "on": true}``.
        """
        match content:
            case {"do": "choose", "cluster": cluster}:
                actions.choose(self.session, int(cluster))
            case {"do": "look", "index": index}:
                self.session.look(int(index))
            case {"do": "tick", "cluster": cluster, "on": on}:
                others = set(self.session.ticked) - {int(cluster)}
                self.session.ticked = sorted(others | {int(cluster)} if on else others)
