"""From finished runs to what people look at: predictions, leaderboard, report."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import write_atomic
from tunesmith.base.shapes import Tensor
from tunesmith.report.html import render_report
from tunesmith.report.table import Row, csv_text, leaderboard
from tunesmith.report.trial import CurvePoint, Prediction, Trial
from tunesmith.tasks import Labelled, TaskConfig


def predictions_of(task: TaskConfig, logits: list[Tensor], data: Labelled) -> list[dict[str, Any]]:
    """One line for each example: text, gold, what was predicted, and how surely (or how wrongly)."""
    lines = []
    rows = task.predict(logits, data.encoded)
    for text, gold, row in zip(data.texts, task.shown(data), rows, strict=True):
        line: dict[str, Any] = {"text": text, "gold": gold}
        if "value" in row:
            line |= {"predicted": f"{row['value']:.4g}", "error": abs(row["value"] - float(gold))}
        elif "tags" in row:
            line |= {"predicted": " ".join(tag for _, tag in sorted(row["tags"].items()))}
        elif isinstance(row["label"], list):
            line |= {"predicted": ", ".join(row["label"]) or "(none)"}
        else:
            line |= {"predicted": row["label"], "confidence": row["probabilities"][row["label"]]}
        lines.append(line)
    return lines


def read_trial(method: str, seed: int, folder: Path, metrics: Mapping[str, Any]) -> Trial:
    """A finished run as the report takes it.

    Raises:
        CheckpointError: Its files are missing or damaged.
    """
    try:
        lines = (folder / "dev_predictions.jsonl").read_text(encoding="utf-8").splitlines()
        predictions = tuple(Prediction(**json.loads(line)) for line in lines)
        curve = tuple(CurvePoint(**point) for point in json.loads((folder / "curve.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: its predictions or curve are missing or damaged: {error}") from None
    return Trial(method=method, seed=seed, metrics=metrics, curve=curve, predictions=predictions)


def write_report(
    out: Path,
    runs: Mapping[str, Sequence[tuple[int, Path, Mapping[str, Any]]]],
    task: TaskConfig,
    *,
    facts: Mapping[str, str],
) -> list[Row]:
    """Write report.html, and leaderboard.csv where there are several runs; give back the leaderboard.

    The methods are ranked by the dev split; what is shown of them is measured on the test split where there is one.

    Args:
        out: Folder to write into.
        runs: For each method, the seed, folder and metrics of each run.
        task: The task.
        facts: For the table of facts.
    """
    trials = [read_trial(method, *run) for method, seeds in runs.items() for run in seeds]
    metric = str(trials[0].metrics.get("metric", task.usual_metric))
    split = "test" if all("test" in trial.metrics for trial in trials) else "dev"
    rows = leaderboard(trials, metric=metric, split=split, chosen_on="dev")
    single = len(trials) == 1
    best = rows[0].method
    folder = out if single else out / best / f"seed-{runs[best][0][0]}"
    page = render_report(
        title=f"{trials[0].method} on {Path(facts['Data']).name}"
        if single
        else f"Methods on {Path(facts['Data']).name}",
        trials=trials,
        metric=metric,
        split=split,
        chosen_on="dev",
        facts={**facts, **machine_facts()},
        labels=list(task.labels) if task.problem == "single_label" else None,
        next_steps=[
            f"tunesmith predict {folder} new_texts.jsonl",
            f"tunesmith evaluate {folder} {facts['Data']}",
            f"tunesmith export {folder} exported --as merged",
        ],
    )
    write_atomic(out / "report.html", page)
    if not single:
        write_atomic(out / "leaderboard.csv", csv_text(rows))
    return rows


def machine_facts() -> dict[str, str]:
    """What the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "Machine": f"{device}, {os.cpu_count()} CPU cores, torch on {torch.get_num_threads()} threads",
        "Versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }
