"""Where the curves of a run are written while it goes on: one file each.

``open`` gives something that takes numbers step by step; nothing in the loop knows of it.
"""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from tunesmith.base.choices import Choice


@runtime_checkable
class Track(Protocol):
    """Takes the numbers of a run."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Put the numbers of a step on the disk."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class TrackConfig(Choice, abc.ABC):
    """Settings of a track."""

    @abc.abstractmethod
    def check(self) -> None:
        """See that it can be written here, before any work.

        Raises:
            SettingError: An optional package is missing; the line says which.
        """

    @abc.abstractmethod
    def open(self, run: Path, *, step: int) -> Track:
        """A track in the folder of a run.

        Args:
            run: The folder.
            step: First step that is written; what an interrupted run has written of it and later counts no more.
        """
