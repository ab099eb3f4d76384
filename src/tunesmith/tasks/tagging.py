"""One tag for each word of a text; the tag sits on the word's first sub-word."""

from typing import Any

import numpy as np
import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Tensor
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.tasks import Labelled, LinearTargets, TaskConfig, Texts, cell_fault, column
from tunesmith.tasks._labels import class_number, learn
from tunesmith.text.batching import Packed
from tunesmith.text.metrics import tagging_metrics
from tunesmith.text.table import Table
from tunesmith.text.tokenizer import Encoded, Tokenizer

IGNORE = -100


class TaggingConfig(TaskConfig):
    """Columns and tags."""

    text: str = pydantic.Field(default="tokens", description="Column of the words.")
    label: str = pydantic.Field(default="tags", description="Column of the tags.")

    problem = "tags"
    usual_metric = "entity_f1"
    metric_names = ("entity_f1", "accuracy")

    def learn_labels(self, table: Table) -> "TaggingConfig":
        """The task with the tags of a training table."""
        rows = self._tags(table)
        values = [(row, tag) for row, tags in enumerate(rows) for tag in tags]
        return self.model_copy(update={"labels": learn(table, self.label, values, fewest=2)})

    def targets(self, table: Table) -> list[list[int]]:
        """Tag number of each word of each row."""
        known = {label: i for i, label in enumerate(self.labels)}
        return [
            [class_number(table, row, self.label, tag, known) for tag in tags]
            for row, tags in enumerate(self._tags(table))
        ]

    def encode(self, table: Table, tokenizer: Tokenizer, *, max_tokens: int) -> Labelled:
        """Tokens, and a target for each token: the word's tag on its first sub-word, else ``IGNORE``."""
        data = super().encode(table, tokenizer, max_tokens=max_tokens)
        by_token = [
            [words_tags[word] if first else IGNORE for word, first in _first_subwords(words)]
            for words, words_tags in zip(data.encoded.words, data.targets, strict=True)
        ]
        targets = {"words": data.targets, "tokens": by_token}
        return Labelled(data.examples, targets, data.encoded, data.texts)

    def texts_of(self, table: Table) -> tuple[Texts, None]:
        """The words of each row."""
        for row, words in enumerate(column(table, self.text)):
            if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
                raise cell_fault(table, row, self.text, "must be a list of words that is not empty")
        return column(table, self.text), None

    def loss(self, logits: Tensor, packed: Packed, targets: dict[str, Any]) -> Tensor:
        """Sum of the cross-entropies of all first sub-words."""
        gold = torch.tensor([t for i in packed.indices for t in targets["tokens"][i]], device=logits.device)
        return F.cross_entropy(logits, gold, reduction="sum", ignore_index=IGNORE)

    def count(self, packed: Packed, targets: dict[str, Any]) -> int:
        """First sub-words."""
        return sum(t != IGNORE for i in packed.indices for t in targets["tokens"][i])

    def predict(self, logits: list[Tensor], encoded: Encoded) -> list[dict[str, Any]]:
        """One tag for each word; words that were cut off, or have no sub-word, are O (or the first tag)."""
        found = []
        for rows, words in zip(logits, encoded.words, strict=True):
            best = rows.argmax(-1).tolist()
            tags = {word: self.labels[best[i]] for i, (word, first) in enumerate(_first_subwords(words)) if first}
            found.append({"tags": tags})
        return found

    def fill_words(self, predictions: list[dict[str, Any]], counts: list[int]) -> list[dict[str, Any]]:
        """Predictions with exactly one tag for each of ``counts`` words."""
        other = "O" if "O" in self.labels else self.labels[0]
        return [
            {"tags": [row["tags"].get(word, other) for word in range(count)]}
            for row, count in zip(predictions, counts, strict=True)
        ]

    def metrics(self, logits: list[Tensor], data: Labelled) -> dict[str, float]:
        """Token accuracy, and entity F1 where the tags follow the BIO scheme."""
        gold = [[self.labels[tag] for tag in tags] for tags in data.targets["words"]]
        rows = self.fill_words(self.predict(logits, data.encoded), [len(tags) for tags in gold])
        return tagging_metrics(gold, [row["tags"] for row in rows])

    def linear_targets(self, data: Labelled) -> LinearTargets:
        """Tags of the first sub-words."""
        flat = np.array([tag for tags in data.targets["tokens"] for tag in tags])
        rows = np.flatnonzero(flat != IGNORE)
        return LinearTargets(rows, torch.from_numpy(flat[rows]), "softmax")

    def shown(self, data: Labelled) -> list[str]:
        """The tags of each row."""
        return [" ".join(self.labels[tag] for tag in tags) for tags in data.targets["words"]]

    def head(self, family_head: HeadConfig) -> HeadConfig:
        """The family's tagging head with one output a tag."""
        assert isinstance(family_head, TagConfig)
        return family_head.model_copy(update={"num_labels": len(self.labels)})

    def _tags(self, table: Table) -> list[list[Any]]:
        words = self.texts_of(table)[0]
        for row, tags in enumerate(column(table, self.label)):
            if not isinstance(tags, list):
                raise cell_fault(table, row, self.label, f"must be a list of tags, got {type(tags).__name__}")
            if len(tags) != len(words[row]):
                counts = f"holds {len(tags)} tags for {len(words[row])} words"
                raise cell_fault(table, row, self.label, f"{counts}: give one tag for each word")
        return column(table, self.label)


def _first_subwords(words: list[int | None]) -> list[tuple[int, bool]]:
    return [
        (-1 if word is None else word, word is not None and (i == 0 or words[i - 1] != word))
        for i, word in enumerate(words)
    ]
