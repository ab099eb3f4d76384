"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

import shutil
import sys
import time
from typing import TYPE_CHECKING

from tunesmith.cli.progress_line import progress_line

if TYPE_CHECKING:
    from tunesmith.train.checkpoint import Progress


def make_listener() -> "ConsoleListener":
    """A listener that prints."""
    return ConsoleListener()


class ConsoleListener:
    """Prints notes as they come, and how far training is: ten times a second on a terminal, else now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._draws = (sys.stderr.encoding or "").lower().startswith("utf")  # else a curve would print as escapes
        self._last = 0.0
        self._open = False

    def note(self, text: str) -> None:
        """Print a line."""
        self._close()
        print(text, file=sys.stderr, flush=True)

    def stage(self, title: str) -> None:
        """Print the title of a part."""
        self.note(title)

    def step(self, progress: "Progress", spent: float) -> None:
        """Print how far training is; ``spent`` is the share of the budget."""
        now = time.monotonic()
        if now - self._last < (0.1 if self._terminal else 15) and not progress.done:
            return
        self._last = now
        speed = progress.tokens / max(progress.seconds, 1e-9)
        left = _time(progress.seconds * (1 - spent) / max(spent, 1e-9))
        point = progress.curve[-1] if progress.curve else {}
        dev = ""
        if point.get("dev_loss") is not None:
            dev = f", dev loss {point['dev_loss']:.4f}"
        elif progress.best is not None:
            dev = f", best dev {progress.best:.4f}"
        text = (
            f"step {progress.step}, {spent:.0%}, loss {progress.last_loss:.4f}, {speed:.0f} tokens/s, {left} left{dev}"
        )
        if not self._terminal:
            print(text, file=sys.stderr, flush=True)
            return
        losses = [seen.get("dev_loss") for seen in progress.curve] if self._draws else []
        line = progress_line(text, spent=spent, losses=losses, columns=shutil.get_terminal_size().columns)
        print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)
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
