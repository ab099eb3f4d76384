"""A listener that also writes the curves of a run where `train.track` says."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tunesmith.recipes.listener import Listener
from tunesmith.train.checkpoint import Progress
from tunesmith.train.track import Track, TrackConfig


def check_track(track: TrackConfig | None) -> None:
    """See that a track can be written, before any work.

    Raises:
        SettingError: An optional package is missing; the line says which.
    """
    if track is not None:
        track.check()


@contextlib.contextmanager
def tracked(listener: Listener, track: TrackConfig | None, run: Path) -> Iterator[Listener]:
    """The listener, with a track beside it where one is wanted.

    Args:
        listener: Hears of the progress.
        track: Where the curves go; None: nowhere.
        run: Folder of the run.
    """
    if track is None:
        yield listener
        return
    hearing = _Tracked(listener, track, run)
    try:
        yield hearing
    finally:
        hearing.close()


class _Tracked:
    """Tells a listener, and writes; the track opens with the first step, which says where a resumed run goes on."""

    def __init__(self, listener: Listener, config: TrackConfig, run: Path):
        self.listener, self.config, self.run = listener, config, run
        self.track: Track | None = None

    def note(self, text: str) -> None:
        self.listener.note(text)

    def stage(self, title: str) -> None:
        self.listener.stage(title)

    def step(self, progress: Progress, spent: float) -> None:
        if self.track is None:
            self.track = self.config.open(self.run, step=progress.step)
        self.track.write(progress.step, numbers(progress))
        self.listener.step(progress, spent)

    def close(self) -> None:
        if self.track is not None:
            self.track.close()


def numbers(progress: Progress) -> dict[str, float]:
    """What is worth a curve at a step, by the curve's name."""
    found = {"train/loss": progress.last_loss}
    if len(progress.last_terms) > 1:
        found |= {f"train/{term}_loss": value for term, value in progress.last_terms.items()}
    found["train/learning_rate"] = progress.last_rate
    for phase, norm in progress.last_norms.items():
        found["train/gradient_norm" if len(progress.last_norms) == 1 else f"train/gradient_norm_{phase}"] = norm
    found["train/tokens_per_second"] = progress.tokens / max(progress.seconds, 1e-9)
    point = progress.curve[-1] if progress.curve else {}
    if point.get("step") == progress.step:
        for name, value in (("dev/loss", point["dev_loss"]), ("dev/metric", point["dev_metric"])):
            if value is not None:
                found[name] = value
                break  # where there is a loss, the metric is the same with another sign
    return found
