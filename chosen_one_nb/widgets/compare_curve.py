"""The way of two branches against d_conv, as one small drawing that suits both themes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Node

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 190, 44, 64, 12, 30
STYLES = (("#0072B2", "", "●"), ("#E69F00", "6 4", "■"))
"""Of A and B: colour, dashes and the sign at its points, so that no distinction hangs on hue alone."""

LINE = 12.0  # least distance of two labels, in pixels


def way(node: Node) -> list[Node]:
    """Return the checked nodes from the root over a node to where its newest line ends."""
    nodes = [node]
    while nodes[0].parent is not None:
        nodes.insert(0, nodes[0].parent)
    while nodes[-1].children:
        nodes.append(nodes[-1].children[-1])
    return [one for one in nodes if one.convergence is not None]


def curves_svg(a: Node, b: Node) -> str:
    """Draw the mean pairwise distances on the way of two nodes; empty where nothing has been checked.

    Parameters
    ----------
    a, b : Node

    Returns
    -------
    str
        HTML.
    """
    ways = [way(a), way(b)]
    if not all(ways):
        return ""
    limit = ways[0][0].convergence.threshold
    last = max(1, *(node.iteration for nodes in ways for node in nodes))
    high = 1.1 * max(limit, *(node.convergence.distance for nodes in ways for node in nodes))

    def at(iteration: float, distance: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * iteration / last,
            TOP + (HEIGHT - TOP - BOTTOM) * (1 - distance / high),
        )

    parts = [_axes(last, high, at), _line([at(0, limit), at(last, limit)], "#D55E00", "4 3")]
    ends = [(*at(last, limit), "d_conv")]
    for nodes, (colour, dashes, sign), name in zip(ways, STYLES, "AB", strict=True):
        spots = [at(node.iteration, node.convergence.distance) for node in nodes]
        parts.append(_line(spots, colour, dashes))
        parts += [_text(x, y, sign, colour=colour, anchor="middle", dy=4) for x, y in spots]
        ends.append((*spots[-1], f"{name} · {nodes[-1].id}"))
    heights = apart([y for _, y, _ in ends])
    parts += [_text(x, y, words, dx=9, dy=4) for (x, _, words), y in zip(ends, heights, strict=True)]
    said = escape(f"Mean pairwise distance of {a.id} and {b.id} by iteration against d_conv {limit:.3f}", quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{said}">'
        f"<title>{said}</title>{''.join(parts)}</svg>"
    )


def apart(heights: Sequence[float], least: float = LINE) -> list[float]:
    """Move heights down, no more than need be, until each is `least` below the one above it; in the order given.

    >>> apart([10.0, 40.0, 12.0], least=12)
    [10.0, 40.0, 22.0]
    """
    found, above = list(heights), float("-inf")
    for i in sorted(range(len(found)), key=found.__getitem__):
        above = found[i] = max(found[i], above + least)
    return found


def _axes(last: int, high: float, at: Callable[[float, float], tuple[float, float]]) -> str:
    marks = [_text(*at(i, 0), str(i), anchor="middle", dy=15) for i in range(last + 1)]
    for value in (0, high / 2.2, high / 1.1):
        (x0, y), (x1, _) = at(0, value), at(last, value)
        ends = f'x1="{x0:.1f}" y1="{y:.1f}" x2="{x1:.1f}" y2="{y:.1f}"'
        marks.append(f'<line {ends} stroke="currentColor" opacity=".15"/>')
        marks.append(_text(x0, y, f"{value:.2f}", anchor="end", dx=-7, dy=4))
    marks.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "iteration", anchor="middle"))
    return "".join(marks)


def _line(spots: Sequence[tuple[float, float]], colour: str, dashes: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = "currentColor", dx: float = 0, dy: float = 0
) -> str:
    return (
        f'<text x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="11">'
        f"{escape(words)}</text>"
    )
