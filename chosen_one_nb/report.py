"""A run as one HTML page: images inside, charts as SVG, no script, nothing fetched; opens in any browser.

Whatever came from a person (prompt, notes, file names) is escaped by `tag`, which builds all of the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from PIL import Image

from chosen_one_nb.plots import colour_of, curve_chart, loss_chart, map_chart, principal_places, svg
from chosen_one_nb.run.node import compared
from chosen_one_nb.run.tables import scores
from chosen_one_nb.settings import settings_help
from chosen_one_nb.show import or_dash, sentence

if TYPE_CHECKING:
    import numpy as np

    from chosen_one_nb.run.node import Node
    from chosen_one_nb.run.run import Run

THUMBNAIL = 80
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-top: 1px solid var(--line); padding-top: 1.5rem; }
table { border-collapse: collapse; font-size: 13px; }
td, th { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
.row { display: flex; flex-wrap: wrap; gap: .3rem; }
.side { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; }
figure { margin: 0; width: 80px; font-size: 11px; }
figure img { width: 80px; height: 80px; border-radius: 4px; border: 3px solid transparent; }
figure img { box-sizing: border-box; }
figure.chosen img { border-color: #009E73; }
figure.excluded img { opacity: .35; }
.map { max-width: 360px; font-size: 13px; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em; }
.alarm { color: #D55E00; font-weight: 600; }
svg { max-width: 100%; height: auto; }
summary { cursor: pointer; }
"""


class Markup(str):
    """Text that is HTML already; all other text is escaped."""


def tag(element: str, /, *children: Any, **attributes: Any) -> Markup:
    """Build an element; children and attribute values are escaped unless they are `Markup`.

    Examples
    --------
    >>> tag("p", "a < b", tag("br"), class_="x")
    '<p class="x">a &lt; b<br></p>'
    """
    inside = "".join(_html(child) for child in children)
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    named = "".join(f' {names[key]}="{escape(str(value))}"' for key, value in attributes.items())
    close = "" if element in ("br", "img", "meta") else f"</{element}>"
    return Markup(f"<{element}{named}>{inside}{close}")


def _html(child: Any) -> str:
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return "".join(_html(part) for part in child)
    return escape(str(child))


def page(run: Run) -> str:
    """Return the whole run as an HTML page.

    Parameters
    ----------
    run : Run
        In any state; what has not been done yet is left out.

    Returns
    -------
    str
        A complete document of about 3 kB an image.
    """
    nodes = list(run.nodes.values())
    maps = _places(nodes)
    head = tag(
        "head", tag("meta", charset="utf-8"), tag("meta", name="viewport", content="width=device-width"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", f"{run.prompt} · a run of The Chosen One"), tag("style", Markup(STYLE)),
    )  # fmt: skip
    body = tag(
        "body", _top(run), _curve(run), [_node(node, maps.get(node.gallery_of)) for node in nodes],
        _contexts(run), _made(run),
    )  # fmt: skip
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def image_tag(image: Image.Image, words: str, side: int = THUMBNAIL) -> Markup:
    """Return a small image as an ``img`` element that holds it, with alt text."""
    small = image.convert("RGB")
    small.thumbnail((2 * side, 2 * side))
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=80)
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return tag("img", src=source, alt=words, decoding="async")


def _top(run: Run) -> Markup:
    outcome = run.outcome
    models = run.manifest["models"]
    facts = f"{models['name']} · {len(run.nodes)} galleries and branches · begun {run.manifest['made']}"
    mood = {"class_": "alarm"} if outcome.state == "collapsed" else {}
    return tag("header", tag("h1", run.prompt), tag("p", facts), tag("p", str(outcome), **mood))


def _curve(run: Run) -> Markup:
    rows = run.curve().to_dict("records")
    about = (
        "Mean pairwise distance of each gallery's features (section 3.3 of the paper). The run stops when it "
        "falls to d_conv, the dashed line."
    )
    table = _table(
        ["node", "distance", "of the first", "state", "seconds"],
        [
            [
                row["node"],
                f"{row['distance']:.3f}",
                f"{row['ratio']:.0%}",
                row["state"],
                f"{row['seconds']:.0f}",
            ]
            for row in rows
        ],
    )
    chart = Markup(svg(curve_chart(rows)))
    return tag("section", tag("h2", "Distance"), tag("p", about), tag("div", chart, table, class_="side"))


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Markup:
    return tag(
        "table", tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in head])),
        tag("tbody", [tag("tr", [tag("td", cell) for cell in row]) for row in rows]),
    )  # fmt: skip


def _places(nodes: list[Node]) -> dict[str, np.ndarray]:
    """Map all galleries together, so that positions compare."""
    seen = compared([node for node in nodes if node.gallery_of == node.id and node.features is not None])
    return dict(zip(seen, principal_places(list(seen.values())), strict=True)) if seen else {}


def _node(node: Node, places: np.ndarray | None) -> Markup:
    parts: list[Any] = [tag("h2", f"Iteration {node.iteration}, node {node.id}"), tag("p", sentence(node))]
    if node.verdict:
        mood = {"class_": "alarm"} if node.collapsed else {}
        parts.append(tag("p", node.verdict.reason, **mood))
    if node.clusters is not None and places is not None:
        decision = node.decision.images if node.decision else ()
        chart = map_chart(places, node.clusters.labels, node.clusters.kept, decision)
        note = "First two principal components of all galleries; distances here are not those of the rule."
        parts.append(
            tag("div", tag("div", Markup(svg(chart)), tag("p", note), class_="map"), _clusters(node), class_="side")
        )
    parts += [_decision(node), _gallery(node), _losses(node), _scores(node)]
    return tag("section", *parts, id=f"node-{node.id}")


def _clusters(node: Node) -> Markup:
    clusters = node.clusters
    rows = []
    for cluster in clusters.order:
        swatch = tag("span", class_="swatch", style=f"background:{colour_of(int(cluster))}")
        what = "proposed" if cluster == clusters.proposed else "" if clusters.kept[cluster] else "dropped: too small"
        medoid = int(clusters.medoids[cluster])
        image = tag("figure", image_tag(node.image(medoid), f"medoid of cluster {cluster}, image {medoid}"))
        numbers = [clusters.sizes[cluster], f"{clusters.cohesion[cluster]:.3f}"]
        numbers.append(or_dash(clusters.cohesion_corrected[cluster], ".3f"))
        rows.append([[swatch, str(cluster)], *numbers, what, image])
    head = ["cluster", "images", "cohesion", "corrected n/(n-1)", "", "medoid"]
    return tag("div", _table(head, rows), tag("p", clusters.reason))


def _decision(node: Node) -> Markup:
    decision = node.decision
    if decision is None:
        return Markup("")
    taken = "images picked by hand" if decision.cluster is None else f"cluster {decision.cluster}"
    proposed = "nothing" if decision.proposed is None else f"cluster {decision.proposed}"
    left_out = f"; left out: {', '.join(map(str, decision.excluded))}" if decision.excluded else ""
    text = f"Proposed: {proposed}. Taken: {taken}, {len(decision.images)} images, by {decision.by}{left_out}."
    note = tag("blockquote", decision.note) if decision.note else Markup("")
    return tag("div", tag("h3", "Decision"), tag("p", text), note)


def _gallery(node: Node) -> Markup:
    if node.gallery_of != node.id:
        link = tag("a", f"node {node.gallery_of}", href=f"#node-{node.gallery_of}")
        chosen = node.decision.images if node.decision else ()
        return tag("div", tag("p", "Same gallery as ", link, ". Chosen here:"), _figures(node, chosen))
    return _figures(node, range(len(node.images)))


def _figures(node: Node, indices: Iterable[int]) -> Markup:
    chosen, excluded = set(node.decision.images if node.decision else ()), set(node.excluded)
    figures = []
    for i in indices:
        mark = "excluded" if i in excluded else "chosen" if i in chosen else ""
        cluster = f", cluster {node.clusters.labels[i]}" if node.clusters is not None else ""
        words = f"image {i}, seed {node.seeds[i]}{cluster}{', ' + mark if mark else ''}"
        caption = f"{i}{' ✓' if mark == 'chosen' else ' left out' if mark else ''}"
        figures.append(tag("figure", image_tag(node.image(i), words), tag("figcaption", caption), class_=mark))
    return tag("div", figures, class_="row")


def _losses(node: Node) -> Markup:
    if not node.losses:
        return Markup("")
    chart = loss_chart([event.get("ema_loss", event.get("loss")) for event in node.losses])
    return tag("div", tag("h3", "Refinement"), tag("p", chart.words), Markup(svg(chart)))


def _scores(node: Node) -> Markup:
    table = scores(node)
    if not len(table) or node.gallery_of != node.id:
        return Markup("")
    rows = [[name, f"{row.value:.3f}", f"{row.low:.3f} to {row.high:.3f}"] for name, row in table.iterrows()]
    head = ["score", "value", "95 %, bootstrap over images"]
    return tag("details", tag("summary", "Scores"), _table(head, rows))


def _contexts(run: Run) -> Markup:
    drawn = run.drawn_contexts()
    if not drawn:
        return Markup("")
    rows = []
    for context, images in drawn.items():
        figures = [tag("figure", image_tag(image, f"the character {context}, image {i}"))
                   for i, image in enumerate(images)]  # fmt: skip
        rows.append([context, tag("div", figures, class_="row")])
    return tag("section", tag("h2", "The character in contexts"), _table(["context", "images"], rows))


def _made(run: Run) -> Markup:
    about = {entry["name"]: entry for entry in settings_help()}
    rows = [
        [
            name,
            about[name]["symbol"] if name in about else "",
            value,
            about[name]["help"] if name in about else "",
        ]
        for name, value in run.root.settings.model_dump().items()
    ]
    settings = _table(["setting", "symbol", "value", "what it does"], rows)
    versions = _table(["package", "version"], run.manifest["versions"].items())
    log = _table(["time", "action", "node", "about"], run.history().itertuples(index=False))
    return tag(
        "section", tag("h2", "How it was made"),
        tag("details", tag("summary", "Settings"), settings),
        tag("details", tag("summary", "Versions"), versions), tag("details", tag("summary", "Log"), log),
    )  # fmt: skip
