"""Any number of classes for a text: the label is a list, or names joined by ``|``."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Bool, Tensor
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.tasks import Labelled, LinearTargets, TaskConfig, cell_fault, column
from tunesmith.tasks._labels import class_number, learn
from tunesmith.text.batching import Packed
from tunesmith.text.metrics import multilabel_metrics
from tunesmith.text.table import Table
from tunesmith.text.tokenizer import Encoded


class MultilabelConfig(TaskConfig):
    """Columns and classes."""

    problem = "multi_label"
    usual_metric = "micro_f1"
    metric_names = ("micro_f1", "macro_f1", "exact_match")

    def learn_labels(self, table: Table) -> "MultilabelConfig":
        """The task with the classes of a training table."""
        values = [(row, value) for row, cell in enumerate(self._lists(table)) for value in cell]
        return self.model_copy(update={"labels": learn(table, self.label, values, fewest=1)})

    def targets(self, table: Table) -> list[tuple[int, ...]]:
        """Class numbers of each row."""
        known = {label: i for i, label in enumerate(self.labels)}
        return [
            tuple(sorted({class_number(table, row, self.label, value, known) for value in cell}))
            for row, cell in enumerate(self._lists(table))
        ]

    def stratify(self, table: Table) -> list[Any]:
        """The sets of classes."""
        return self.targets(table)

    def loss(self, logits: Tensor, packed: Packed, targets: list[tuple[int, ...]]) -> Tensor:
        """Sum over examples of the mean binary cross-entropy over classes."""
        gold = torch.zeros_like(logits)
        for row, i in enumerate(packed.indices):
            gold[row, list(targets[i])] = 1
        return F.binary_cross_entropy_with_logits(logits, gold, reduction="sum") / len(self.labels)

    def count(self, packed: Packed, targets: list[tuple[int, ...]]) -> int:
        """One target an example."""
        return len(packed.indices)

    def predict(self, logits: list[Tensor], encoded: Encoded) -> list[dict[str, Any]]:
        """All classes of probability one half or more, and the probabilities."""
        found = []
        for row in logits:
            probabilities = dict(zip(self.labels, row.double().sigmoid().tolist(), strict=True))
            chosen = [label for label, p in probabilities.items() if p >= 0.5]
            found.append({"label": chosen, "probabilities": probabilities})
        return found

    def metrics(self, logits: list[Tensor], data: Labelled) -> dict[str, float]:
        """Exact match, micro F1 and macro F1."""
        return multilabel_metrics(self._matrix(data), (torch.stack(logits) >= 0).numpy())

    def linear_targets(self, data: Labelled) -> LinearTargets:
        """One column of 0 and 1 a class."""
        return LinearTargets(None, torch.from_numpy(self._matrix(data)).float(), "sigmoid")

    def shown(self, data: Labelled) -> list[str]:
        """Class names."""
        return [", ".join(self.labels[i] for i in target) or "(none)" for target in data.targets]

    def head(self, family_head: HeadConfig) -> HeadConfig:
        """The family's classification head with one output a class."""
        assert isinstance(family_head, ClassifyConfig)
        return family_head.model_copy(update={"num_labels": len(self.labels), "problem": "multi_label"})

    def _matrix(self, data: Labelled) -> Bool[np.ndarray, "B C"]:
        matrix = np.zeros((len(data), len(self.labels)), dtype=bool)
        for row, target in enumerate(data.targets):
            matrix[row, list(target)] = True
        return matrix

    def _lists(self, table: Table) -> list[list[Any]]:
        lists = []
        for row, cell in enumerate(column(table, self.label)):
            if isinstance(cell, str):
                cell = [part.strip() for part in cell.split("|") if part.strip()]
            if cell is None:
                cell = []
            if not isinstance(cell, list):
                raise cell_fault(table, row, self.label, f"must be a list of labels, got {type(cell).__name__}")
            lists.append(cell)
        return lists
