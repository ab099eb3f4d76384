"""The figures of a comparison, as inline SVG."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tunesmith.report.figure import (
    ACCENT,
    INK,
    PALETTE,
    Curve,
    blank_figure,
    draw_line,
    is_measured,
    name_ends,
    svg_text,
    thinned,
)
from tunesmith.report.table import Row, count_text, metric_name, number_text, seconds_text
from tunesmith.report.trial import CurvePoint, Prediction, Trial, plain

MAX_CONFUSION_LABELS = 30
MAX_SCATTER_POINTS = 1000

_MARKERS = "osD^vPX"
_Box = tuple[float, float, float, float]


def quality_against_parameters(rows: Sequence[Row]) -> str:
    """The metric against the number of trainable parameters (log scale, zero set apart), as SVG."""
    return _tradeoff(
        rows,
        cost=lambda row: row.trainable_parameters,
        ticks=[10.0**power for power in range(13)],
        finer=[step * 10.0**power for power in range(13) for step in (2, 5)],
        words=count_text,
        label="trainable parameters",
    )


def quality_against_time(rows: Sequence[Row]) -> str:
    """The metric against the mean training time (log scale), as SVG."""
    return _tradeoff(
        rows,
        cost=lambda row: row.train_seconds,
        ticks=[0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 360_000],
        finer=[0.2, 0.5, 2, 5, 20, 30, 120, 180, 300, 1200, 1800, 7200, 14_400, 86_400],
        words=lambda value: seconds_text(value).removesuffix(" 00 s").removesuffix(" 00 min"),
        label="training time",
    )


def metric_range(rows: Sequence[Row]) -> tuple[float, float]:
    """The range of values that shows every mean and, unless they dwarf the differences, every interval."""
    means = [row.mean for row in rows if row.mean is not None] or [0.0, 1.0]
    spread = max(max(means) - min(means), *(2 * (row.std or 0.0) for row in rows), 0.01)
    low = min([min(means)] + [max(row.ci95_low, min(means) - spread) for row in rows if row.ci95_low is not None])
    high = max([max(means)] + [min(row.ci95_high, max(means) + spread) for row in rows if row.ci95_high is not None])
    return low - 0.08 * spread, high + 0.08 * spread


def learning_curve(
    trials: Sequence[Trial], *, quantity: Literal["train_loss", "dev_loss", "dev_metric"], label: str
) -> str:
    """One line per method over epochs: the mean over seeds, each seed as a thin line behind it. As SVG.

    Returns:
        The figure; an empty string if no trial measured `quantity`.
    """
    curves: dict[str, list[tuple[CurvePoint, ...]]] = {}
    for trial in trials:
        points = tuple(point for point in trial.curve if is_measured(getattr(point, quantity)))
        if points:
            curves.setdefault(trial.method, []).append(points)
    if not curves:
        return ""
    colours = _colours([trial.method for trial in trials])
    with blank_figure() as (figure, axes):
        ends: dict[str, float] = {}
        for method, seeds in curves.items():
            mean = thinned(_mean_curve(seeds, quantity))
            lines = [thinned([(point.epoch, getattr(point, quantity)) for point in points]) for points in seeds]
            if len(lines) > 1:
                for line in lines:
                    draw_line(axes, line, colour=colours[method], width=0.7, opacity=0.45 if mean else 0.9)
            if mean:
                draw_line(axes, mean, colour=colours[method], width=1.8, opacity=1.0)
            ends[method] = (mean or lines[0])[-1][1]
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        name_ends(figure, axes, ends, colours)
        words = ", ".join(f"{method} ends at {number_text(value)}" for method, value in ends.items())
        return svg_text(figure, title=f"{label} over epochs", description=f"Mean over seeds: {words}.")


def confusion_matrix(predictions: Sequence[Prediction], *, labels: Sequence[str], method: str) -> str:
    """How often each gold label was predicted as each label, as SVG; a cell's shade is its share of the row.

    Beyond `MAX_CONFUSION_LABELS` labels only those with the most mistakes are shown.
    """
    counts = Counter((item.gold, item.predicted) for item in predictions)
    seen = {label for pair in counts for label in pair}
    names = list(dict.fromkeys([*labels, *sorted(seen - set(labels))]))
    mistakes: Counter[str] = Counter()
    for (gold, predicted), count in counts.items():
        if gold != predicted:
            mistakes.update({gold: count, predicted: count})
    if len(names) > MAX_CONFUSION_LABELS:
        worst = {label for label, _ in mistakes.most_common(MAX_CONFUSION_LABELS)}
        names = [label for label in names if label in worst]
    totals = Counter(item.gold for item in predictions)
    width = min(max(1.6 + 0.44 * len(names), 3.6), 10.0)
    with blank_figure(width=width, height=width * 0.94) as (figure, axes):
        size = min(9.0, max(4.5, 260 / max(len(names), 1) / 4))
        for y, gold in enumerate(names):
            for x, predicted in enumerate(names):
                if count := counts[gold, predicted]:
                    share = count / totals[gold]
                    corner = (x - 0.5, y - 0.5)
                    cell = Rectangle(corner, 1, 1, facecolor=ACCENT, alpha=0.08 + 0.72 * share, linewidth=0)
                    axes.add_patch(cell).set_clip_on(False)
                    axes.text(x, y, str(count), ha="center", va="center", fontsize=size)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        shown = [plain(label, limit=22) for label in names]
        axes.set_xticks(range(len(names)), shown, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), shown)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("gold")
        confused = [(count, pair) for pair, count in counts.items() if pair[0] != pair[1]]
        worst_pairs = sorted(confused, key=lambda item: (-item[0], item[1]))[:5]
        words = "; ".join(f"{gold} as {guess} {count} times" for count, (gold, guess) in worst_pairs)
        description = f"Most frequent mistakes: {words}." if words else "No mistakes."
        return svg_text(figure, title=f"Confusion matrix of {method}", description=description)


def gold_against_predicted(predictions: Sequence[Prediction], *, method: str) -> str:
    """Predicted against gold values of a regression, as SVG; at most `MAX_SCATTER_POINTS`, evenly picked."""
    stride = -(-len(predictions) // MAX_SCATTER_POINTS) or 1
    pairs = [(float(item.gold), float(item.predicted)) for item in predictions[::stride]]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    errors = [item.error for item in predictions if item.error is not None]
    with blank_figure(height=4.4) as (figure, axes):
        low = min((min(pair) for pair in pairs), default=0.0)
        high = max((max(pair) for pair in pairs), default=1.0)
        pad = 0.05 * (high - low) or 0.5
        axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
        axes.plot(*zip(*pairs, strict=True), "o", color=ACCENT, markersize=3, alpha=0.45, markeredgewidth=0)
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(low - pad, high + pad)
        axes.set_aspect("equal")
        axes.set_xlabel("gold")
        axes.set_ylabel("predicted")
        words = f"{len(errors)} predictions"
        if errors:
            words += f", mean absolute error {number_text(sum(errors) / len(errors))}"
        return svg_text(figure, title=f"Gold and predicted values of {method}", description=f"{words}.")


def _tradeoff(
    rows: Sequence[Row],
    *,
    cost: Callable[[Row], float | None],
    ticks: Sequence[float],
    finer: Sequence[float],
    words: Callable[[float], str],
    label: str,
) -> str:
    """The metric with its interval against a cost; empty if no row has both."""
    points = [(value, row) for row in rows if row.mean is not None and (value := cost(row)) is not None]
    if not points:
        return ""
    colours = _colours([row.method for row in rows])
    positive = [math.log10(value) for value, _ in points if value > 0]
    low, high = (min(positive), max(positive)) if positive else (1.0, 1.0)
    pad = max(0.12 * (high - low), 0.3)
    zero = low - max(0.25 * (high - low), 0.8)  # where a cost of nothing stands on a logarithmic axis
    has_zero = len(positive) < len(points)
    left = (zero if has_zero else low) - pad
    with blank_figure() as (figure, axes):
        name = metric_name(points[0][1].split, points[0][1].metric)
        axes.set_xlim(left, high + pad)
        axes.set_ylim(*metric_range(rows))
        start = (zero + low) / 2 if has_zero else left
        shown = [tick for tick in ticks if start < math.log10(tick) < high + pad]
        if len(shown) < 3:
            shown = [tick for tick in sorted([*ticks, *finer]) if start < math.log10(tick) < high + pad]
        shown = shown[:: -(-len(shown) // 6) or 1]
        marks = [(math.log10(tick), words(tick)) for tick in shown]
        if has_zero:
            axes.axvline(start, color=INK, linewidth=0.6, linestyle=(0, (2, 3)), alpha=0.5)
            marks.insert(0, (zero, "0"))
        axes.set_xticks([place for place, _ in marks], [text for _, text in marks])
        axes.set_xlabel(f"{label}, log scale")
        axes.set_ylabel(name)
        places: list[tuple[float, float, Row]] = []
        for value, row in points:
            assert row.mean is not None
            x = math.log10(value) if value > 0 else zero
            colour = colours[row.method]
            if row.ci95_low is not None and row.ci95_high is not None:
                axes.vlines(x, row.ci95_low, row.ci95_high, color=colour, linewidth=1.2, alpha=0.7)
            marker = _MARKERS[list(colours).index(row.method) % len(_MARKERS)]
            axes.plot([x], [row.mean], marker, color=colour, markersize=6.5, markeredgewidth=0)
            places.append((x, row.mean, row))
        _name_points(figure, axes, places)
        told = "; ".join(f"{row.method}: {words(value)}, {number_text(row.mean)}" for value, row in points)
        return svg_text(figure, title=f"{name} against {label}", description=f"{told}.")


def _name_points(figure: Figure, axes: Axes, places: Sequence[tuple[float, float, Row]]) -> None:
    """Write each method beside its point, on the side where it covers least."""
    figure.draw_without_rendering()  # settles the layout, so that data can be turned into points
    pixels = axes.transData.transform
    frame = axes.bbox
    taken: list[_Box] = []
    for x, y, row in places:
        px, py = pixels((x, y))
        taken.append((px - 4, py - 4, px + 4, py + 4))
        if row.ci95_low is not None and row.ci95_high is not None:
            taken.append((px - 1, pixels((x, row.ci95_low))[1], px + 1, pixels((x, row.ci95_high))[1]))
    for x, y, row in places:
        text = plain(row.method, limit=26)
        px, py = pixels((x, y))
        wide, tall = 5.4 * len(text), 9.0
        choices: list[tuple[float, _Box, int, int]] = []
        for side, rise in ((1, 0), (-1, 0), (1, 8), (1, -8), (-1, 8), (-1, -8), (0, 11), (0, -11)):
            left, low = px + (side - 1) * wide / 2 + 7 * side, py + rise - tall / 2
            box = (left, low, left + wide, low + tall)
            # Leaving the frame is worse than covering something: the page would cut the name off.
            outside = wide * tall - _overlap(box, (frame.x0, frame.y0, frame.x1, frame.y1))
            harm = sum(_overlap(box, other) for other in taken) + 40 * outside
            choices.append((harm, box, side, rise))
        _, box, side, rise = min(choices, key=lambda choice: choice[0])
        taken.append(box)
        offset, anchor = (7 * side, rise), ("center", "left", "right")[side]
        name = axes.annotate(text, (x, y), offset, textcoords="offset points", ha=anchor, va="center")
        name.set_in_layout(False)


def _overlap(one: _Box, other: _Box) -> float:
    """The area that two boxes (left, low, right, high) share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, tall)


def _mean_curve(seeds: Sequence[tuple[CurvePoint, ...]], quantity: str) -> Curve:
    """The mean over seeds at the steps that all of them share; empty if they share none."""
    shared = set.intersection(*({point.step for point in points} for points in seeds))
    sums: dict[int, tuple[float, float]] = dict.fromkeys(sorted(shared), (0.0, 0.0))
    for points in seeds:
        for point in {point.step: point for point in points if point.step in shared}.values():
            epoch, value = sums[point.step]
            sums[point.step] = (epoch + point.epoch, value + getattr(point, quantity))
    return [(epoch / len(seeds), value / len(seeds)) for epoch, value in sums.values()]


def _colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour per method that is the same in every figure of one comparison, whatever its order."""
    return {method: PALETTE[i % len(PALETTE)] for i, method in enumerate(sorted(set(methods)))}
