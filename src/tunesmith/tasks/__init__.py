"""Kinds of labelled data: one file each. A task knows its columns, how a row becomes targets, its loss and metrics."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pydantic
import torch

from tunesmith.base.choices import Choice
from tunesmith.base.errors import DataError
from tunesmith.base.shapes import Int, Tensor
from tunesmith.nn.head import HeadConfig
from tunesmith.text.batching import Examples, Packed
from tunesmith.text.table import Table
from tunesmith.text.tokenizer import Encoded, Tokenizer

Texts = Sequence[str] | Sequence[Sequence[str]]
Problem = Literal["single_label", "multi_label", "regression", "tags"]


@dataclass(frozen=True)
class Labelled:
    """Encoded examples with their targets.

    Attributes:
        examples: The tokens.
        targets: One entry for each example; what it is, is the task's matter.
        encoded: What the tokenizer made (the words of tokens, for tagging).
        texts: The texts, for display.
    """

    examples: Examples
    targets: Any
    encoded: Encoded
    texts: list[str]

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(frozen=True)
class LinearTargets:
    """Targets for a linear model on fixed features.

    Attributes:
        rows: Which features have a target (of tokens, for tagging); all if None.
        values: Classes, 0/1 columns, or numbers.
        loss: What to minimise.
    """

    rows: Int[np.ndarray, "M"] | None
    values: Tensor
    loss: Literal["softmax", "sigmoid", "squared"]


class TaskConfig(Choice, abc.ABC):
    """A kind of labelled data: its columns and its label names."""

    text: str = pydantic.Field(default="text", description="Column of the text (or of the words, for tagging).")
    pair: str | None = pydantic.Field(default=None, description="Column of the second text.")
    label: str = pydantic.Field(default="label", description="Column of the label.")
    labels: tuple[str, ...] = pydantic.Field(default=(), description="Names of the classes, in order.")
    metric: str | None = pydantic.Field(default=None, description="Metric that models are chosen and ranked by.")

    problem: ClassVar[Problem]
    """What the model's outputs mean."""
    usual_metric: ClassVar[str]
    """The metric that models are chosen by where none is set."""
    metric_names: ClassVar[tuple[str, ...]]
    """The metrics that a model can be chosen by."""

    @property
    def num_outputs(self) -> int:
        """Outputs of the head."""
        return max(1, len(self.labels))

    def score(self, metrics: Mapping[str, float]) -> tuple[str, float]:
        """Name and value of the metric that models are chosen by (accuracy, where the usual one is not defined)."""
        name = self.metric or self.usual_metric
        name = name if name in metrics else "accuracy"
        return name, metrics[name]

    @pydantic.field_validator("metric")
    @classmethod
    def _metric_is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in cls.metric_names:
            raise ValueError(f"must be one of {', '.join(cls.metric_names)}")
        return name

    @abc.abstractmethod
    def learn_labels(self, table: Table) -> "TaskConfig":
        """The task with the label names of a training table.

        Raises:
            DataError: A label is missing or of a wrong kind, or there are too few classes.
        """

    @abc.abstractmethod
    def targets(self, table: Table) -> Any:
        """Targets of a table's rows.

        Raises:
            DataError: A label is missing, of a wrong kind, or not known from training; the line names the row.
        """

    @abc.abstractmethod
    def loss(self, logits: Tensor, packed: Packed, targets: Any) -> Tensor:
        """Sum of the losses of a packed batch."""

    @abc.abstractmethod
    def count(self, packed: Packed, targets: Any) -> int:
        """Number of targets that `loss` sums over."""

    @abc.abstractmethod
    def predict(self, logits: list[Tensor], encoded: Encoded) -> list[dict[str, Any]]:
        """What the user sees for the logits of each example."""

    @abc.abstractmethod
    def metrics(self, logits: list[Tensor], data: Labelled) -> dict[str, float]:
        """Metrics of the logits of each example against its targets."""

    @abc.abstractmethod
    def shown(self, data: Labelled) -> list[str]:
        """Each example's target, for display."""

    @abc.abstractmethod
    def linear_targets(self, data: "Labelled") -> LinearTargets:
        """The targets as a linear model on fixed features takes them."""

    def stratify(self, table: Table) -> list[Any] | None:
        """What a dev split is stratified by; None: nothing."""
        return None

    def prepare_head(self, head: torch.nn.Module, targets: Any) -> None:
        """Set what the head should know of the training targets before it is trained; nothing, in most tasks."""
        return

    def texts_of(self, table: Table) -> tuple[Texts, list[str] | None]:
        """Texts (or words) and second texts of a table.

        Raises:
            DataError: A column or a cell is missing.
        """
        texts = _texts(table, self.text)
        return texts, None if self.pair is None else _texts(table, self.pair)

    def encode(self, table: Table, tokenizer: Tokenizer, *, max_tokens: int) -> Labelled:
        """Tokens and targets of a table.

        Raises:
            DataError: As for `targets` and `texts_of`.
        """
        targets = self.targets(table)
        texts, pairs = self.texts_of(table)
        encoded = tokenizer.encode(texts, pairs, max_tokens=max_tokens)
        shown = [text if isinstance(text, str) else " ".join(text) for text in texts]
        if pairs is not None:
            shown = [f"{a} ⏐ {b}" for a, b in zip(shown, pairs, strict=True)]
        return Labelled(Examples(encoded), targets, encoded, shown)

    def head(self, family_head: HeadConfig) -> HeadConfig:
        """The head for this task, from the one that the family's architecture has for it."""
        return family_head


def column(table: Table, name: str) -> list[Any]:
    """A column of a table.

    Raises:
        DataError: There is no such column.
    """
    if name not in table.columns:
        raise DataError(f"{table.source}: has no column {name!r}: it has {', '.join(table.columns)}")
    return table.columns[name]


def cell_fault(table: Table, row: int, name: str, what: str) -> DataError:
    """The one-line error for a cell."""
    return DataError(f"{table.where(row)}: column {name!r} {what}")


def _texts(table: Table, name: str) -> list[str]:
    cells = column(table, name)
    for row, cell in enumerate(cells):
        if not isinstance(cell, str):
            what = "is empty" if cell is None else f"must be a text, got {type(cell).__name__}"
            raise cell_fault(table, row, name, f"{what}: give a text or remove the row")
    return cells
