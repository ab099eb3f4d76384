"""A number for a text or a pair of texts."""

import math
import reprlib
from typing import Any

import torch

from tunesmith.base.errors import DataError
from tunesmith.base.shapes import Tensor
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.classify import Classify, ClassifyConfig
from tunesmith.tasks import Labelled, LinearTargets, TaskConfig, cell_fault, column
from tunesmith.text.batching import Packed
from tunesmith.text.metrics import regression_metrics
from tunesmith.text.table import Table
from tunesmith.text.tokenizer import Encoded


class RegressionConfig(TaskConfig):
    """Columns."""

    problem = "regression"
    usual_metric = "pearson"
    metric_names = ("pearson", "spearman")

    def learn_labels(self, table: Table) -> "RegressionConfig":
        """The task itself: there are no classes."""
        targets = self.targets(table)
        if len(set(targets)) < 2:
            raise DataError(
                f"{table.source}: column {self.label!r} holds the same number in every row: nothing to learn"
            )
        return self

    def targets(self, table: Table) -> list[float]:
        """The number of each row."""
        return [self._number(table, row, cell) for row, cell in enumerate(column(table, self.label))]

    def loss(self, logits: Tensor, packed: Packed, targets: list[float]) -> Tensor:
        """Sum of the squared errors."""
        gold = torch.tensor([targets[i] for i in packed.indices], device=logits.device, dtype=logits.dtype)
        return (logits[:, 0] - gold).square().sum()

    def count(self, packed: Packed, targets: list[float]) -> int:
        """One target an example."""
        return len(packed.indices)

    def predict(self, logits: list[Tensor], encoded: Encoded) -> list[dict[str, Any]]:
        """The value."""
        return [{"value": float(row[0])} for row in logits]

    def metrics(self, logits: list[Tensor], data: Labelled) -> dict[str, float]:
        """Pearson and Spearman correlation, mean squared error."""
        return regression_metrics(data.targets, [float(row[0]) for row in logits])

    def linear_targets(self, data: Labelled) -> LinearTargets:
        """Numbers."""
        return LinearTargets(None, torch.tensor(data.targets), "squared")

    def shown(self, data: Labelled) -> list[str]:
        """The numbers."""
        return [f"{target:g}" for target in data.targets]

    def prepare_head(self, head: torch.nn.Module, targets: list[float]) -> None:
        """Start from the mean of the targets, where training without it would first have to go."""
        if isinstance(head, Classify):
            with torch.no_grad():
                head.output.bias.fill_(sum(targets) / len(targets))

    def head(self, family_head: HeadConfig) -> HeadConfig:
        """The family's classification head with one output."""
        assert isinstance(family_head, ClassifyConfig)
        return family_head.model_copy(update={"num_labels": 1, "problem": "regression"})

    def _number(self, table: Table, row: int, cell: Any) -> float:
        if cell is None or cell == "":
            raise cell_fault(table, row, self.label, "is empty: give a number or remove the row")
        if isinstance(cell, bool) or not isinstance(cell, str | int | float):
            raise cell_fault(table, row, self.label, f"must be a number, got {type(cell).__name__}")
        try:
            number = float(cell)
        except ValueError:
            raise cell_fault(table, row, self.label, f"must be a number, got {reprlib.repr(cell)}") from None
        except OverflowError:  # a whole number of JSON's, too large for floating point
            number = math.inf
        if not math.isfinite(number):
            raise cell_fault(table, row, self.label, f"must be a finite number, got {reprlib.repr(cell)}")
        return number
