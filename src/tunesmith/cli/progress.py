"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.train.checkpoint import Progress


def make_listener() -> "ConsoleListener":
    """A listener that prints."""
    return ConsoleListener()


class ConsoleListener:
    """Prints notes as they come, and how far training is: ten times a second on a terminal, else now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = 0.0
        self._open = False
        self._started: tuple[int, float] | None = None

    def note(self, text: str) -> None:
        """Print a line."""
        self._close()
        print(text, file=sys.stderr, flush=True)

    def stage(self, title: str) -> None:
        """Print the title of a part."""
        self._started = None
        self.note(title)

    def step(self, progress: "Progress", total: int) -> None:
        """Print how far training is."""
        now = time.monotonic()
        if self._started is None or progress.step <= self._started[0]:
            self._started = (progress.step - 1, now)
        if now - self._last < (0.1 if self._terminal else 15) and not progress.done:
            return
        self._last = now
        speed = progress.examples / max(progress.seconds, 1e-9)
        per_step = progress.seconds / max(progress.step, 1)
        best = "" if progress.best is None else f", best dev {progress.best:.4f}"
        left = _time((total - progress.step) * per_step)
        text = f"step {progress.step}/{total}, {speed:.0f} examples/s, {left} left{best}"
        if not self._terminal:
            print(text, file=sys.stderr, flush=True)
            return
        width = 24
        filled = round(width * progress.step / total)
        print(f"\r\x1b[2K[{'#' * filled}{'.' * (width - filled)}] {text}", end="", file=sys.stderr, flush=True)
        self._open = True
        if progress.done:
            self._close()

    def _close(self) -> None:
        if self._open:
            print(file=sys.stderr)
            self._open = False


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
