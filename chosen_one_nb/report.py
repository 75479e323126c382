"""A run as one HTML page: images inside, figures as SVG, no script, nothing fetched; opens in any browser.

`report.html.j2` is the page; whatever came from a person (prompt, notes, file names) is escaped by Jinja.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from chosen_one_nb import plots
from chosen_one_nb.analysis.projection import project
from chosen_one_nb.applications.kept import kept
from chosen_one_nb.models.images import data_uri
from chosen_one_nb.run import store
from chosen_one_nb.run.node import compared, image_label
from chosen_one_nb.settings import settings_help

__all__ = ["page", "template", "thumbnail", "write_all"]

THUMBNAIL = 80  # pixels; stored twice as large, for fine screens


def page(run: Any) -> str:
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
    curve = run.tables.curve()
    return template("report.html.j2").render(
        run=run, nodes=nodes, outcome=run.outcome, plots=plots, curve=curve.to_dict("records"),
        distance=_svg(plots.distance_plot(curve)), maps=_maps(nodes), losses=_losses, tiles=_tiles,
        uses=kept(run.folder), about={entry["name"]: entry for entry in settings_help()},
    )  # fmt: skip


def template(name: str) -> Template:
    """Return a page's template; what it is given is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"thumbnail": thumbnail, "or_dash": plots.or_dash}
    return environment.get_template(name)


def thumbnail(image: Image.Image, side: int = THUMBNAIL) -> str:
    """Return a small image as a data URI."""
    return data_uri(image, 2 * side, "webp", 80)


def _svg(figure: Any) -> Markup:
    return Markup(plots.to_svg(figure))  # Matplotlib escapes what it writes


def _maps(nodes: Sequence[Any]) -> dict[str, Markup]:
    """Plot the galleries of all clustered nodes on one map, so that positions compare, by node."""
    features = compared([node for node in nodes if node.gallery_of == node.id and node.embedding is not None])
    if not features:
        return {}
    projection = project(features, method="pca", quality=False)
    return {
        node.id: _svg(plots.projection_plot(
            projection.of(node.gallery_of), node.clusters.labels, node.clusters.kept,
            node.decision.images if node.decision else (),
        ))
        for node in nodes if node.clusters is not None
    }  # fmt: skip


def _losses(node: Any) -> tuple[str, Markup]:
    """What the loss did while refining, in words and as a figure."""
    figure = plots.loss_plot([event.get("ema_loss", event.get("loss")) for event in node.losses])
    return str(figure.get_label()), _svg(figure)


def _tiles(node: Any) -> Iterator[dict[str, Any]]:
    """Images of a node with their words; of a branch that shares another node's gallery, only the chosen ones."""
    chosen, excluded = node.decision.images if node.decision else (), set(node.excluded)
    for i in range(len(node.images)) if node.gallery_of == node.id else chosen:
        mark = "excluded" if i in excluded else "chosen" if i in chosen else ""
        cluster = f", cluster {node.clusters.labels[i]}" if node.clusters is not None else ""
        yield {
            "image": node.images[i], "mark": mark,
            "alt": f"{image_label(i, node.seeds[i])}{cluster}{mark and f', {mark}'}",
            "caption": f"{i}{' ✓' if mark == 'chosen' else ' left out' if mark else ''}",
        }  # fmt: skip


def write_all(run: Any, folder: Path, *, tile: int = 96) -> list[Path]:
    """Write what a run shows into a folder: sheets, the curve, contexts drawn so far, the HTML page.

    Parameters
    ----------
    run : Run
    folder : Path
        Made if need be.
    tile : int
        Side of the images on the sheets, in pixels.

    Returns
    -------
    list of Path
        ``gallery-0.png``, ..., ``distance.png``, ``contexts.png`` (if drawn), ``report.html``.
    """
    sheets = {
        f"gallery-{node.id}.png": plots.gallery_sheet(node, tile=tile) for node in run.nodes.values() if node.images
    }
    sheets["distance.png"] = plots.to_image(plots.distance_plot(run.tables.curve()))
    if drawn := run.samples.drawn_contexts():
        sheets["contexts.png"] = plots.context_sheet(drawn, title=run.prompt)
    store.make_folder(folder)
    for name, sheet in sheets.items():
        store.write_image(folder / name, sheet, {"run": run.prompt})
    return [*(folder / name for name in sheets), run.report(folder / "report.html")]
