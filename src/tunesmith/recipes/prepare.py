"""Read labelled data, recognise its task, and make a dev split where there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.base.errors import DataError
from tunesmith.recipes.settings import TuneSettings
from tunesmith.tasks import TaskConfig
from tunesmith.tasks._recognise import recognise
from tunesmith.text.split import split_off
from tunesmith.text.table import Table, read_data


@dataclass
class Prepared:
    """Data ready for tuning, shared by all runs of a comparison.

    Attributes:
        source: Path or hub id of the data, for the record.
        task: The task with its labels.
        tables: train, dev and maybe test.
        notes: What was found and decided, for the log.
        facts: For the report.
    """

    source: str
    task: TaskConfig
    tables: dict[str, Table]
    notes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


def prepare(data: str | Path, settings: TuneSettings) -> Prepared:
    """Read the data, recognise the task, and make a dev split where there is none.

    Raises:
        DataError: The data cannot be read or does not fit a task.
    """
    tables = read_data(data)
    if "train" not in tables:
        raise DataError(f"{data}: has no train split: it has {', '.join(tables)}")
    task = recognise(tables["train"], settings.data).learn_labels(tables["train"])
    for table in tables.values():  # every fault of the data comes up here, before anything is done with it
        task.targets(table)
        task.texts_of(table)
    notes = [_describe(task, tables)]
    if "dev" not in tables:
        whole = tables["train"]
        if len(whole) < 2:
            raise DataError(f"{whole.source}: at least 2 rows are needed to train and to choose, got {len(whole)}")
        strata = task.stratify(whole)
        split = split_off(strata, size=len(whole), fraction=settings.data.dev_fraction, seed=settings.train.seed)
        tables["train"], tables["dev"] = whole.select(split.train), whole.select(split.dev)
        how = "stratified by label" if strata is not None else "at random"
        notes.append(f"no dev split: took {len(split.dev)} of {len(whole)} rows, {how}")
    tables = {name: tables[name] for name in ("train", "dev", "test") if name in tables}
    facts = {
        "Data": str(data),
        "Task": task.choice_name(),
        "Rows": ", ".join(f"{name} {len(table):,}" for name, table in tables.items()),
        "Classes": f"{len(task.labels)}" if task.labels else "numbers",
    }
    return Prepared(str(data), task, tables, notes, facts)


def _describe(task: TaskConfig, tables: Mapping[str, Table]) -> str:
    columns = " + ".join(name for name in (task.text, task.pair) if name)
    classes = f", {len(task.labels)} classes" if task.labels else ""
    rows = ", ".join(f"{name} {len(table):,}" for name, table in tables.items())
    metric = task.metric or task.usual_metric
    return f"{task.choice_name()}: {columns} -> {task.label}{classes}; chosen by {metric}; rows: {rows}"
