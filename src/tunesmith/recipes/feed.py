"""Which sequences each step of pretraining sees: keyed by seed, stage, epoch and place; any point can be sought.

The cursor in the progress says where the data stand; nothing else does. A stage is a length of sequences.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tunesmith.base.errors import DataError, SettingError
from tunesmith.base.random import numpy_stream
from tunesmith.base.shapes import Int
from tunesmith.objectives import ObjectiveConfig
from tunesmith.recipes.pretrain_settings import PretrainSettings
from tunesmith.text.inputs import InputConfig, Samples
from tunesmith.text.sample import Drawn, Frame
from tunesmith.text.tokens import Tokens
from tunesmith.train.checkpoint import Progress

NEIGHBOURS = 50
"""Steps whose sequences are sorted together where those of one step shall be of similar length."""


_Order = Int[np.ndarray, "N"]


@dataclass(frozen=True)
class Place:
    """One sequence of the endless row of all: stage, epoch, and its number in the epoch's samples."""

    stage: int
    epoch: int
    number: int


class Feed:
    """Sequences, step by step.

    Args:
        tokens: The documents.
        frame: Special tokens around texts.
        settings: All settings.
    """

    def __init__(self, tokens: Tokens, frame: Frame, settings: PretrainSettings):
        self.tokens, self.frame, self.settings = tokens, frame, settings
        self._samples: dict[tuple[int, int], Samples] = {}
        self._order: tuple[tuple[int, int, int], _Order] | None = None

    def batch_size(self, spent: float) -> int:
        """Sequences of the step that begins when this share of the budget is spent."""
        train = self.settings.train
        if train.batch_start is None or spent >= train.batch_warmup:
            return train.batch_size
        return round(train.batch_start + (train.batch_size - train.batch_start) * spent / train.batch_warmup)

    def stage(self, spent: float) -> int:
        """Stage of the step that begins when this share of the budget is spent."""
        data = self.settings.data
        return 0 if data.short_tokens is not None and spent < data.short_share else 1

    def step(self, progress: Progress, spent: float) -> list[Place]:
        """The sequences of the step that comes; the cursor moves on behind them."""
        stage = self.stage(spent)
        cursor = progress.cursor
        if cursor.get("stage") != stage:
            cursor.update(stage=stage, epoch=0, offset=0, lead=0)
        found: list[Place] = []
        while len(found) < self.batch_size(spent):
            order = self._order_of(stage, cursor["epoch"], cursor.get("lead", 0))
            taken = order[cursor["offset"] : cursor["offset"] + self.batch_size(spent) - len(found)]
            found += [Place(stage, cursor["epoch"], int(number)) for number in taken]
            cursor["offset"] += len(taken)
            if cursor["offset"] >= len(order):
                missing = self.batch_size(spent) - len(found)  # the next epoch leads with them
                cursor.update(epoch=cursor["epoch"] + 1, offset=0, lead=missing)
        return found

    def draw(self, place: Place) -> Drawn:
        """A sequence, with a stream of its own for what an objective draws."""
        samples, epoch = self.samples(place.stage, place.epoch), self._frozen(place.epoch)
        stream = numpy_stream("mask", self.settings.train.seed, place.stage, epoch, place.number)
        return Drawn(samples[place.number], stream)

    def samples(self, stage: int, epoch: int) -> Samples:
        """The sequences of an epoch.

        Raises:
            DataError: There is none.
            SettingError: So few tokens leave no room beside the special ones.
        """
        key = (stage, self._frozen(epoch))
        made = self._samples.get(key)  # looked up once: the thread that works ahead may put others in its place
        if made is None:
            seed = self.settings.train.seed
            try:
                made = cut(
                    self.tokens,
                    self.frame,
                    self.settings.input,
                    self.settings.objective,
                    max_tokens=self.max_tokens(stage),
                    stream=lambda *parts: numpy_stream("input", seed, *key, *parts),
                )
            except SettingError as error:  # inputs know of one length only
                raise SettingError(str(error).replace("data.max_tokens", self._name_of(stage))) from None
            last = dict(list(self._samples.items())[-1:])  # a step may end one epoch and begin the next
            self._samples = last | {key: made}
        return made

    def max_tokens(self, stage: int) -> int:
        """Longest sequence of a stage."""
        data = self.settings.data
        return data.short_tokens if stage == 0 and data.short_tokens is not None else data.max_tokens

    def _name_of(self, stage: int) -> str:
        """The setting that says how long the sequences of a stage are."""
        return "data.short_tokens" if stage == 0 and self.settings.data.short_tokens is not None else "data.max_tokens"

    def _frozen(self, epoch: int) -> int:
        """The epoch whose data and masks are used: one of a few where those are static."""
        duplicates = self.settings.objective.duplicates
        return epoch if duplicates is None else epoch % duplicates

    def _order_of(self, stage: int, epoch: int, lead: int) -> Int[np.ndarray, "N"]:
        """Numbers of an epoch's samples, of which the first ``lead`` fill the step that the epoch before began."""
        if self._order is None or self._order[0] != (stage, epoch, lead):
            samples = self.samples(stage, epoch)
            stream = numpy_stream("order", self.settings.train.seed, stage, epoch)
            order = stream.permutation(len(samples))
            if self.settings.data.grouping == "length":
                batch_size = self.settings.train.batch_size
                rest = _grouped(order[lead:], samples.lengths, batch_size, stream)
                order = np.concatenate([order[:lead], rest])
            self._order = (stage, epoch, lead), order
        return self._order[1]


def cut(
    tokens: Tokens,
    frame: Frame,
    input: InputConfig,
    objective: ObjectiveConfig,
    *,
    max_tokens: int,
    stream: Callable[..., np.random.Generator],
) -> Samples:
    """The sequences of one epoch.

    Raises:
        DataError: There is none.
    """
    raw = objective.raw_tokens(max_tokens)
    samples = input.samples(tokens, frame, max_tokens=raw, stream=stream)
    if not len(samples):
        raise DataError(
            f"corpus: gives no sequence of at most {raw} tokens by input={input.choice_name()}: is it empty?"
        )
    return samples


def _grouped(
    order: Int[np.ndarray, "M"], lengths: Int[np.ndarray, "N"], batch_size: int, stream: np.random.Generator
) -> Int[np.ndarray, "M"]:
    """Sort within stretches of some steps, then shuffle the steps of each stretch; what fills no step comes last."""
    parts, full = [], len(order) // batch_size * batch_size
    for start in range(0, full, NEIGHBOURS * batch_size):
        part = order[start : min(start + NEIGHBOURS * batch_size, full)]
        steps = part[np.argsort(lengths[part], kind="stable")].reshape(-1, batch_size)
        parts.append(steps[stream.permutation(len(steps))].reshape(-1))
    return np.concatenate([*parts, order[full:]])
