"""The live line of a terminal: a bar, how far training is, and the dev losses so far as a curve."""

from collections.abc import Sequence

from tunesmith.report.sparkline import sparkline

BAR = 24
CURVE = 12


def progress_line(text: str, *, spent: float, losses: Sequence[float | None], columns: int) -> str:
    """What fits into one line: the text first (cut if need be), then the curve, then the bar.

    Args:
        text: How far training is, in words.
        spent: Share of the budget, 0..1.
        losses: Dev losses seen so far; fewer than two make no curve.
        columns: Width of the terminal. A line that fills it would wrap, and could not be overwritten.
    """
    text = text[: max(columns - 1, 0)]
    room = columns - 1 - len(text)
    curve = sparkline(losses, min(CURVE, room - 1)) if len(losses) > 1 else ""
    curve = f" {curve}" if len(curve) > 1 else ""
    width = min(BAR, room - len(curve) - len("[] "))
    filled = round(width * spent)
    bar = f"[{'#' * filled}{'.' * (width - filled)}] " if width >= 4 else ""
    return f"{bar}{text}{curve}"
