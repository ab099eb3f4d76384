"""A curve in one line of text."""

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[int | float | None], width: int) -> str:
    """Values as block characters, the smallest as the lowest block and the largest as the full one.

    Args:
        values: In order. One that is None or not finite is a space.
        width: Characters, at most; where there are more values, each character is the mean of its neighbours.

    Returns:
        One character a value, at most `width`; equal values stand at half height.
    """
    count = min(len(values), max(width, 0))
    bounds = [len(values) * i // count for i in range(count + 1)] if count else []
    means = [_mean(values[start:end]) for start, end in zip(bounds, bounds[1:], strict=False)]
    known = [mean for mean in means if mean is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(" " if mean is None else BLOCKS[_level(mean, low, high)] for mean in means)


def _mean(values: Sequence[int | float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(value / len(known) for value in known) if known else None  # divided first: a sum may overflow


def _level(value: float, low: float, high: float) -> int:
    span = high / 2 - low / 2  # halved: the difference of two finite numbers may be infinite
    if not span:
        return len(BLOCKS) // 2 - 1
    return round((value / 2 - low / 2) / span * (len(BLOCKS) - 1))
