"""Run: a tuned model with its task; it predicts, evaluates, saves itself and exports."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.base.errors import CheckpointError, DataError
from tunesmith.recipes.open import need_tokenizer
from tunesmith.recipes.output import need_finished
from tunesmith.recipes.saved import Opened, open_adapter, open_run
from tunesmith.tasks import Labelled, TaskConfig
from tunesmith.tasks.tagging import TaggingConfig
from tunesmith.text.batching import Examples
from tunesmith.text.table import Table
from tunesmith.train.evaluate import logits_of

Text = str | tuple[str, str] | Sequence[str]


class Run:
    """A tuned model and the task it was tuned for.

    Attributes:
        model: The model, its method attached, in evaluation mode.
        task: The task.
        metrics: What metrics.json holds.
        folder: Where it is saved, None if nowhere.
        max_tokens: Longest text, in tokens.
        opened: The parts it was made of.
    """

    def __init__(
        self,
        opened: Opened,
        *,
        task: TaskConfig,
        metrics: Mapping[str, Any],
        folder: Path | None,
        max_tokens: int,
    ):
        self.opened = opened
        self.model = opened.model
        self.task = task
        self.metrics = metrics
        self.folder = folder
        self.max_tokens = max_tokens

    def predict(self, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """Predictions, in order: ``label`` and ``probabilities``; ``value``; or ``tags``.

        Args:
            texts: Texts, (text, second text) pairs, or lists of words, as the task has them.

        Raises:
            DataError: A text is not of the task's kind.
        """
        if isinstance(texts, str):
            raise DataError("predict: give a list of texts, not one text")
        if not len(texts):
            return []
        columns = self._columns(texts)
        table = Table(columns=columns, source="predict", lines=list(range(1, len(texts) + 1)))
        return self.predict_table(table)

    def predict_table(self, table: Table) -> list[dict[str, Any]]:
        """Predictions for the rows of a table; labels are not needed.

        Raises:
            DataError: A column or cell is missing.
        """
        tokenizer = need_tokenizer(self.model)
        texts, pairs = self.task.texts_of(table)
        encoded = tokenizer.encode(texts, pairs, max_tokens=self.max_tokens)
        logits = logits_of(self.model.eval(), Examples(encoded))
        rows = self.task.predict(logits, encoded)
        if isinstance(self.task, TaggingConfig):
            rows = self.task.fill_words(rows, [len(words) for words in texts])
        return rows

    def evaluate(self, table: Table) -> dict[str, float]:
        """Metrics on a labelled table.

        Raises:
            DataError: A column, cell or label does not fit.
        """
        return self.evaluate_labelled(self.task.encode(table, need_tokenizer(self.model), max_tokens=self.max_tokens))

    def evaluate_labelled(self, data: Labelled) -> dict[str, float]:
        """Metrics on encoded examples."""
        return self.task.metrics(logits_of(self.model.eval(), data.examples), data)

    def save(self, folder: str | Path) -> None:
        """Copy the run's files into a new folder.

        Raises:
            CheckpointError: The run was never saved, or the folder is not empty.
        """
        target = Path(folder)
        if self.folder is None or not (self.folder / "metrics.json").is_file():
            raise CheckpointError("save: this run has no files")
        if target.exists() and any(target.iterdir()):
            raise CheckpointError(f"{folder}: is not empty: choose another folder")
        shutil.copytree(self.folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint"))

    def _columns(self, texts: Sequence[Text]) -> dict[str, list[Any]]:
        if isinstance(self.task, TaggingConfig):
            return {self.task.text: [list(words) if not isinstance(words, str) else words.split() for words in texts]}
        if self.task.pair is None:
            return {self.task.text: list(texts)}
        for number, text in enumerate(texts, start=1):
            if isinstance(text, str) or len(text) != 2:
                raise DataError(f"predict line {number}: this run reads pairs of texts: give (text, second text)")
        return {self.task.text: [text[0] for text in texts], self.task.pair: [text[1] for text in texts]}


def load_run(folder: str | Path) -> Run:
    """Open a finished run.

    Raises:
        CheckpointError: There is none, it is unfinished or damaged, or its base model has changed.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise CheckpointError(f"{folder}: no such folder")
    opened = open_run(folder) if (folder / "tunesmith.json").is_file() else _foreign(folder)
    task = opened.task
    if task is None or opened.record is None:
        raise CheckpointError(
            f"{folder}: an adapter made elsewhere says nothing of its task: use ts.load and its logits"
        )
    return Run(
        opened,
        task=task,
        metrics=need_finished(folder),
        folder=folder,
        max_tokens=opened.record.max_tokens,
    )


def _foreign(folder: Path) -> Opened:
    if (folder / "adapter_config.json").is_file():
        return open_adapter(folder)
    one = next((path.parent for path in sorted(folder.glob("*/*/tunesmith.json"))), None)
    if (folder / "leaderboard.csv").is_file() and one is not None:
        raise CheckpointError(f"{folder}: a comparison: name one of its runs, such as {one}")
    if (folder / "run.toml").is_file() and not (folder / "metrics.json").is_file():
        raise CheckpointError(f"{folder}: this run is unfinished: the same command with --resume goes on with it")
    if (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: a model without a task: tune it first: tunesmith tune {folder} DATA --out RUN"
        )
    raise CheckpointError(f"{folder}: not a run: it has no tunesmith.json")
