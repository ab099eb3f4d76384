"""What a long recipe tells whoever watches: notes, and how far it is."""

from typing import Protocol, runtime_checkable

from tunesmith.train.checkpoint import Progress


@runtime_checkable
class Listener(Protocol):
    """Hears of the progress; the command line prints it."""

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...

    def stage(self, title: str) -> None:
        """A new part of the work begins."""
        ...

    def step(self, progress: Progress, spent: float) -> None:
        """An optimiser step is done; ``spent`` is the share of the budget."""
        ...


class Silent:
    """Hears everything and says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stage(self, title: str) -> None:
        """Nothing."""

    def step(self, progress: Progress, spent: float) -> None:
        """Nothing."""
