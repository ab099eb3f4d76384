"""Pretraining objectives: one file each. An objective turns samples into a batch, counts its targets, sums its losses.

The loop forms sum over terms of weight * sum of losses / number of targets in the whole step, over all micro-batches
and processes, so that accumulation is exact.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from tunesmith.base.choices import Choice
from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Bool, Int, Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.text.inputs import InputConfig
from tunesmith.text.sample import Drawn, Vocabulary


@dataclass(frozen=True)
class Rows:
    """Documents packed for a stack.

    Attributes:
        token_ids: Packed token ids, spare rows behind them.
        layout: Where the documents lie.
    """

    token_ids: Int[Tensor, "N"]
    layout: Layout


@dataclass(frozen=True)
class Batch:
    """A micro-batch, ready for the model.

    Attributes:
        num_samples: Samples in it.
        num_tokens: Real tokens that the model reads, on either side.
        source: What the encoder, or the only stack, reads.
        target: What the decoder of an encoder-decoder reads; its documents stand in the order of the source's.
        rows: Packed rows (of the last stack) whose token is predicted, documents in packed order.
        labels: The token of each.
        pair: Label of each document's pair of texts; None where there is no such question.
        hidden: Where the token at one place of a document must not see that at another, in place of what a causal stack
            hides; None: as the stack is.
        more: Tensors of an objective's own.
        made: What one phase leaves for the next.
    """

    num_samples: int
    num_tokens: int
    source: Rows
    target: Rows | None = None
    rows: Int[Tensor, "P"] | None = None
    labels: Int[Tensor, "P"] | None = None
    pair: Int[Tensor, "B"] | None = None
    hidden: Bool[Tensor, "B T T"] | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)
    made: dict[str, Tensor] = field(default_factory=dict)

    def with_noise(self, noise: torch.Generator | None) -> "Batch":
        """The same batch with a stream for dropout."""

        def noisy(rows: Rows | None) -> Rows | None:
            return None if rows is None else replace(rows, layout=replace(rows.layout, noise=noise))

        source = noisy(self.source)
        assert source is not None
        return replace(self, source=source, target=noisy(self.target))


@dataclass(frozen=True)
class Piece:
    """One document of a batch, as an objective has changed it.

    Attributes:
        ids: Token ids that the stack reads, (T,).
        segments: Segment of each; 0 by default.
        positions: Position of each; 0, 1, 2, ... by default.
        places: Places of what is predicted, in any order, (P,).
        labels: What is to be predicted there, (P,).
    """

    ids: Int[np.ndarray, "T"]
    segments: Int[np.ndarray, "T"] | None = None
    positions: Int[np.ndarray, "T"] | None = None
    places: Int[np.ndarray, "P"] = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: Int[np.ndarray, "P"] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Phase:
    """One update of a step; the phases of a step follow each other, each with an optimiser of its own.

    Attributes:
        name: Its name, for the log and the checkpoint.
        terms: Loss terms that it minimises, with their weights.
        trains: Says of a parameter's name (``model.`` or ``networks.<name>.`` before it) whether this phase updates it.
    """

    name: str
    terms: Mapping[str, float]
    trains: Callable[[str], bool]


class Objective(abc.ABC):
    """An objective that runs."""

    @property
    def networks(self) -> Mapping[str, torch.nn.Module]:
        """Further networks that train beside the model, such as ELECTRA's generator; saved beside it."""
        return {}

    @property
    @abc.abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """What a step updates, in order."""

    @abc.abstractmethod
    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch. What is drawn for a sample comes from its own stream alone."""

    @abc.abstractmethod
    def targets(self, batch: Batch) -> dict[str, int]:
        """Number of targets of each loss term, known before anything runs."""

    @abc.abstractmethod
    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sum of the losses of each term of a phase, in nats."""

    def answers(self, batch: Batch) -> dict[str, Tensor]:
        """The right answers of each term, known behind `loss`; a constant guess is measured by them."""
        assert batch.labels is not None
        return {"lm": batch.labels}

    def take(self, model: Model, name: str, learnt: Model) -> None:
        """Begin with a learnt network in place of the fresh one; the model stays what it is.

        Args:
            model: The model that trains.
            name: The network's name in `networks`.
            learnt: A network of the same shapes, as a run has kept it.
        """
        self.networks[name].load_state_dict(learnt.state_dict())

    def finish(self, model: Model) -> None:
        """Give the model its plain form back, behind the last step."""
        return


class ObjectiveConfig(Choice, abc.ABC):
    """Settings of an objective."""

    @abc.abstractmethod
    def head(self, model: Model) -> HeadConfig | None:
        """The head that the model needs for it; None where the model keeps what it has.

        Raises:
            SettingError: The objective does not fit this kind of model; the line says why.
        """

    @abc.abstractmethod
    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> Objective:
        """The objective.

        Args:
            model: The model that trains, with its head.
            vocabulary: What the tokenizer knows.
            max_tokens: Longest sequence, in tokens.
            seed: Seed of fresh weights of further networks.

        Raises:
            CheckpointError: The tokenizer lacks a token that is needed.
            SettingError: A setting does not fit the model or the others.
        """

    def raw_tokens(self, max_tokens: int) -> int:
        """Tokens of a raw sequence, with special ones, that make at most ``max_tokens`` (T5: 568 and </s> for 512)."""
        return max_tokens

    def check_input(self, input: InputConfig) -> None:
        """Refuse an input format that does not give what is asked.

        Raises:
            SettingError: It does not; the line says what to set.
        """
        return

    @property
    def duplicates(self) -> int | None:
        """Frozen copies of the data that epochs go through in turn (static masking); None: each epoch is new."""
        return None
