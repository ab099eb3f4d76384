"""Evaluate a run on labelled data."""

from pathlib import Path

from tunesmith.base.errors import DataError
from tunesmith.recipes.run import load_run
from tunesmith.text.table import read_data


def evaluate(run: str | Path, data: str | Path, *, split: str | None = None) -> tuple[str, dict[str, float]]:
    """Name of the split, and its metrics.

    Args:
        run: Folder of the run.
        data: File, folder with splits, or hub id.
        split: ``train``, ``dev`` or ``test``; by default the first there is of test, dev and train (a single file).

    Raises:
        UserError: The run or the data cannot be read, or the data does not fit the run.
    """
    opened = load_run(run)
    tables = read_data(data)
    name = split or next(name for name in ("test", "dev", "train") if name in tables)
    if name not in tables:
        raise DataError(f"{data}: has no split {name!r}: it has {', '.join(tables)}")
    return f"{name}, {len(tables[name]):,} rows", opened.evaluate(tables[name])
