"""What all figures share: their style, lines with names at their ends, and inline SVG.

The SVG fits light and dark pages and has its text as text and a description in words. Matplotlib lays figures out; a
last step (`svg_text`) makes the markup safe to embed several times on one page.
"""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tunesmith.report.trial import plain

MAX_CURVE_POINTS = 120

Curve = list[tuple[float, float]]

# Every colour has a contrast of at least 3.6:1 against white and against the dark page.
PALETTE = (
    "#2f78d8", "#d2691e", "#1f8f5f", "#c2418f", "#8b5fe8", "#0e8c9b", "#d64545", "#8a7420", "#7a808c",
)  # fmt: skip
ACCENT = PALETTE[0]
INK = "#010203"  # a colour nobody would choose: `svg_text` turns it into the page's text colour
_WIDTH, _HEIGHT = 4.7, 3.5  # inches of 72 points; small, so that text stays readable on a phone

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tunesmith",
    "text.parse_math": False,  # a "$" in a label is a dollar
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "figure.dpi": 72,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


@contextmanager
def blank_figure(*, width: float = _WIDTH, height: float = _HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one set of axes, in our style and free of the user's; sizes in inches."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # The reader's fonts draw the text; that the one used for measuring lacks a character does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def svg_text(figure: Figure, *, title: str, description: str) -> str:
    """The figure as an SVG element: unique ids, no prolog, no outside style, described in words."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # Its <style> would apply to the whole page: the same two properties are inherited from the root instead.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<defs>\s*</defs>|<!--.*?-->", "", text, flags=re.DOTALL)
    prefix = f"f{hashlib.sha256((title + text).encode('utf-8', 'replace')).hexdigest()[:10]}-"
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))

    def mend(match: re.Match[str]) -> str:
        tag = match[0].replace("xlink:href", "href").replace(INK, "currentColor")
        tag = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", tag)
        tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
        tag = re.sub(r' id="([^"]*)"', lambda i: f' id="{prefix}{i[1]}"' if i[1] in used else "", tag)
        return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", tag)

    # Only inside tags: what a label says stays as it is ("<" is escaped there).
    body = re.sub(r"<[^>]*>", mend, text[text.index(">") + 1 :])
    wide, tall = (round(inches * 72, 2) for inches in figure.get_size_inches())
    head = (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {tall:g}" role="img" '
        f'aria-labelledby="{prefix}title {prefix}desc" stroke-linejoin="round" stroke-linecap="butt" '
        f'style="width: 100%; max-width: {wide * 1.5:.0f}px">'
    )
    head += f'<title id="{prefix}title">{_escaped(title)}</title>'
    head += f'<desc id="{prefix}desc">{_escaped(description)}</desc>'
    return head + body.strip()


def name_ends(figure: Figure, axes: Axes, ends: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Write names to the right of their lines' ends, moved apart where they would touch.

    Args:
        figure: The figure; it is laid out on the way.
        axes: Its axes, all lines drawn.
        ends: Name to the value at which its line ends; at least one.
        colours: Name to its colour.
    """
    axes.margins(x=0.02)
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(low, high)
    gap = 11.0 / max(axes.bbox.height, 1.0)
    heights = {name: (value - low) / (high - low) for name, value in ends.items()}
    order = sorted(heights, key=lambda name: heights[name])
    places: list[float] = []
    for name in order:
        places.append(max(heights[name], places[-1] + gap if places else 0.0))
    excess = max(0.0, places[-1] - 1.0)
    for index in range(len(places) - 1, -1, -1):
        ceiling = places[index + 1] - gap if index + 1 < len(places) else places[-1] - excess
        places[index] = min(places[index], ceiling)
    for name, place in zip(order, places, strict=True):
        axes.plot(
            [1.0, 1.03],
            [heights[name], place],
            transform=axes.transAxes,
            clip_on=False,
            color=colours[name],
            linewidth=1.2,
        )
        axes.text(1.04, place, plain(name, limit=26), transform=axes.transAxes, ha="left", va="center")


def is_measured(value: float | None) -> bool:
    """Whether there is a finite value to draw."""
    return value is not None and math.isfinite(value)  # a diverged run writes NaN


def thinned(curve: Curve) -> Curve:
    """At most `MAX_CURVE_POINTS` points, each the mean of its neighbours."""
    size = -(-len(curve) // MAX_CURVE_POINTS) or 1
    parts = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def draw_line(axes: Axes, curve: Curve, *, colour: str, width: float, opacity: float) -> None:
    """Draw a curve; a short one with its points marked."""
    marker = "o" if len(curve) == 1 or (len(curve) <= 12 and width > 1) else ""
    xs, ys = [x for x, _ in curve], [y for _, y in curve]
    axes.plot(xs, ys, color=colour, linewidth=width, alpha=opacity, marker=marker, markersize=2.6 * width)


def _escaped(text: str) -> str:
    text = plain(text, limit=600)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
