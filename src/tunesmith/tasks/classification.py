"""One class for a text or a pair of texts."""

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Tensor
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.tasks import Labelled, LinearTargets, TaskConfig, column
from tunesmith.tasks._labels import indices, learn
from tunesmith.text.batching import Packed
from tunesmith.text.metrics import classification_metrics
from tunesmith.text.table import Table
from tunesmith.text.tokenizer import Encoded

UNBALANCED = 0.65
"""Share of the larger of two classes from which accuracy says little, and Matthews' correlation is taken instead."""


class ClassificationConfig(TaskConfig):
    """Columns and classes."""

    problem = "single_label"
    usual_metric = "accuracy"
    metric_names = ("accuracy", "macro_f1", "matthews", "f1")

    def learn_labels(self, table: Table) -> "ClassificationConfig":
        """The task with the classes of a training table."""
        names = learn(table, self.label, enumerate(column(table, self.label)), fewest=2)
        task = self.model_copy(update={"labels": names})
        counts = Counter(task.targets(table))
        if self.metric is None and len(names) == 2 and max(counts.values()) > UNBALANCED * len(table):
            task = task.model_copy(update={"metric": "matthews"})
        return task

    def targets(self, table: Table) -> list[int]:
        """Class number of each row."""
        return indices(table, self.label, self.labels)

    def stratify(self, table: Table) -> list[Any]:
        """The classes."""
        return self.targets(table)

    def loss(self, logits: Tensor, packed: Packed, targets: list[int]) -> Tensor:
        """Sum of the cross-entropies."""
        gold = torch.tensor([targets[i] for i in packed.indices], device=logits.device)
        return F.cross_entropy(logits, gold, reduction="sum")

    def count(self, packed: Packed, targets: list[int]) -> int:
        """One target an example."""
        return len(packed.indices)

    def predict(self, logits: list[Tensor], encoded: Encoded) -> list[dict[str, Any]]:
        """Label and probabilities."""
        found = []
        for row in logits:
            probabilities = row.double().softmax(-1).tolist()
            best = int(row.argmax())
            found.append(
                {"label": self.labels[best], "probabilities": dict(zip(self.labels, probabilities, strict=True))}
            )
        return found

    def metrics(self, logits: list[Tensor], data: Labelled) -> dict[str, float]:
        """Accuracy, macro F1, Matthews correlation, and F1 of the second class where there are two."""
        predicted = [int(row.argmax()) for row in logits]
        return classification_metrics(data.targets, predicted, num_labels=len(self.labels))

    def linear_targets(self, data: Labelled) -> LinearTargets:
        """Classes."""
        return LinearTargets(None, torch.tensor(data.targets), "softmax")

    def shown(self, data: Labelled) -> list[str]:
        """Class names."""
        return [self.labels[target] for target in data.targets]

    def head(self, family_head: HeadConfig) -> HeadConfig:
        """The family's classification head with this many outputs."""
        assert isinstance(family_head, ClassifyConfig)
        return family_head.model_copy(update={"num_labels": len(self.labels), "problem": "single_label"})
