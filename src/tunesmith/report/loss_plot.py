"""Loss curves of one run, as inline SVG: lines over tokens or minutes, and what a constant guess gets."""

from collections.abc import Mapping
from typing import Literal

from matplotlib.ticker import FuncFormatter, MaxNLocator

from tunesmith.report.figure import INK, PALETTE, Curve, blank_figure, draw_line, name_ends, svg_text, thinned
from tunesmith.report.table import count_text, number_text

CONSTANT = "constant guess"
_COLOURS = {"dev": PALETTE[0], "train": PALETTE[1], CONSTANT: INK}


def loss_curve(
    lines: Mapping[Literal["train", "dev"], Curve],
    *,
    constant: float | None,
    against: Literal["tokens", "minutes"],
    label: str,
    size: Literal["full", "small"] = "full",
) -> str:
    """Losses of a run, as SVG.

    Args:
        lines: Points (`against`, loss) of each split, all of them finite; a split may have none.
        constant: Loss of the best constant guess, drawn as a dashed line; None if it is not known.
        against: What the points are drawn over.
        label: Which loss this is.
        size: small: for one of several terms.

    Returns:
        The figure; an empty string if no split has a point.
    """
    drawn = {name: points for name, points in lines.items() if points}
    if not drawn:
        return ""
    width, height = (4.7, 3.5) if size == "full" else (4.0, 2.6)
    with blank_figure(width=width, height=height) as (figure, axes):
        for name, points in drawn.items():
            opacity = 1.0 if name == "dev" else 0.75
            draw_line(axes, thinned(points), colour=_COLOURS[name], width=1.8, opacity=opacity)
        ends = {str(name): points[-1][1] for name, points in drawn.items()}
        words = [f"{name} ends at {number_text(value)}" for name, value in ends.items()]
        if constant is not None:
            axes.axhline(constant, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
            ends[CONSTANT] = constant
            words.append(f"the best constant guess gets {number_text(constant)}")
        if furthest := max(x for points in drawn.values() for x, _ in points):
            axes.set_xlim(0, 1.02 * furthest)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if against == "tokens":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
        axes.set_xlabel(against)
        axes.set_ylabel(label)
        name_ends(figure, axes, ends, _COLOURS)
        return svg_text(figure, title=f"{label} over {against}", description=f"{', '.join(words)}.")
