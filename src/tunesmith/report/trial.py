"""What the report knows about one training run: plain data, filled by recipes from the files of a run."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CurvePoint:
    """One line of a run's history.

    Attributes:
        step: optimiser steps taken so far.
        epoch: passes over the training data so far, with fractions.
        train_loss: mean training loss since the point before; None where it was not measured.
        dev_loss: loss on the development split; None where it was not measured.
        dev_metric: the metric that selects the checkpoint, on the development split; None where not measured.
    """

    step: int
    epoch: float
    train_loss: float | None = None
    dev_loss: float | None = None
    dev_metric: float | None = None


@dataclass(frozen=True)
class Prediction:
    """What one trial said about one example, as strings to show.

    Attributes:
        text: the input, or both inputs of a pair joined for display.
        gold: the right answer.
        predicted: the trial's answer.
        confidence: probability of the answer, 0..1; None where the task has none.
        error: absolute error, for regression only.
    """

    text: str
    gold: str
    predicted: str
    confidence: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Trial:
    """One method trained with one seed.

    Attributes:
        method: name of the tuning method.
        seed: the seed of the run.
        metrics: the parsed `metrics.json`: split name to {metric: value}, and the costs beside them.
        curve: the run's history in order of steps; empty for methods that have none.
        predictions: of the development split, in the same order in every trial of a comparison; may be empty.
    """

    method: str
    seed: int
    metrics: Mapping[str, object]
    curve: tuple[CurvePoint, ...] = ()
    predictions: tuple[Prediction, ...] = ()

    def score(self, split: str, metric: str) -> float | None:
        """The value of `metric` on `split`; None if it is absent or not finite."""
        return self.scores(split).get(metric)

    def scores(self, split: str) -> dict[str, float | None]:
        """Every metric of `split`; empty if the run was not evaluated on it."""
        values = self.metrics.get(split)
        if not isinstance(values, Mapping):
            return {}
        return {str(name): finite(value) for name, value in values.items()}

    def splits(self) -> list[str]:
        """The names of the splits that the run was evaluated on."""
        return [name for name, value in self.metrics.items() if isinstance(value, Mapping)]

    def cost(self, name: str) -> float | None:
        """A number beside the splits, such as `train_seconds`; None if it is absent or not finite."""
        return finite(self.metrics.get(name))


def plain(text: str, *, limit: int) -> str:
    """`text` on one line, cut to `limit` characters, without what no page or UTF-8 file can hold."""
    text = text[: 4 * limit].encode("utf-8", "replace").decode("utf-8")
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def finite(value: object) -> float | None:
    """`value` as a float if it is a finite number (a diverged run writes NaN), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
