"""TensorBoard: curves in ``RUN/tensorboard``, by the SummaryWriter of torch."""

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path

import pydantic

from tunesmith.base.errors import SettingError
from tunesmith.train.track import Track, TrackConfig

FOLDER = "tensorboard"


class TensorBoardConfig(TrackConfig):
    """Settings of TensorBoard."""

    every_steps: int = pydantic.Field(
        default=1, ge=1, description="Steps from one point of a curve to the next; looks at the dev split are all kept."
    )

    def check(self) -> None:
        """See that the package is there: torch has the writer, and takes the file format from it.

        Raises:
            SettingError: It is not.
        """
        if importlib.util.find_spec("tensorboard") is None:
            raise SettingError("train.track: tensorboard is not installed: pip install 'tunesmith[track]'")

    def open(self, run: Path, *, step: int) -> Track:
        """Curves in a folder of the run; those of an earlier process end before the step."""
        return TensorBoard(run / FOLDER, step=step, every_steps=self.every_steps)


class TensorBoard:
    """Writes event files.

    Args:
        folder: Where.
        step: First step; TensorBoard forgets what earlier files in the folder hold of it and later.
        every_steps: Steps from point to point.
    """

    def __init__(self, folder: Path, *, step: int, every_steps: int):
        from torch.utils.tensorboard import SummaryWriter  # the optional extra `track`

        if list(folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
            time.sleep(1)  # files are read in the order of their names, which tell seconds
        self.every_steps = every_steps
        self._writer = SummaryWriter(str(folder), purge_step=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write and flush: a checkpoint that is saved next must find its own past."""
        due = step % self.every_steps == 0
        kept = {name: value for name, value in values.items() if due or name.startswith("dev/")}
        for name, value in kept.items():
            self._writer.add_scalar(name, value, step)
        if kept:
            self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
