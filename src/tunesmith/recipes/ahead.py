"""Micro-batches made in a thread of their own while the step before them is computed."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tunesmith.objectives import Batch
from tunesmith.recipes.feed import Place

Parts = Sequence[Sequence[Place]]
"""The sequences of each micro-batch of a step."""


class Ahead:
    """Makes the micro-batches of the step that is likely to come.

    What is made follows from the places alone, so a wrong guess costs its work and changes no result.

    Args:
        make: Makes the micro-batches of a step.
    """

    def __init__(self, make: Callable[[Parts], list[Batch]]):
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="micro-batches")
        self._begun: tuple[Parts, Future[list[Batch]]] | None = None

    def begin(self, parts: Parts) -> None:
        """Begin to make these."""
        self._begun = parts, self._pool.submit(self._make, parts)

    def take(self, parts: Parts) -> list[Batch]:
        """These micro-batches: those that were begun, if they are the same."""
        begun, self._begun = self._begun, None
        if begun is None:
            return self._make(parts)
        guess, made = begun
        if guess == parts:
            return made.result()
        made.cancel()
        return self._make(parts)
