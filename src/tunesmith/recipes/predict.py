"""Predict with a run: a table of texts, a plain text file, or lines from a stream."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunesmith.base.errors import DataError
from tunesmith.recipes.run import load_run
from tunesmith.text.table import Table, read_table


def predict(run: str | Path, source: str, *, lines: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Predictions for each row or line, in order.

    Args:
        run: Folder of the run.
        source: A table (CSV, TSV, JSON Lines, Parquet), or a .txt file with one text a line.
        lines: Lines to read in place of a file; for pairs, a tab stands between the texts.

    Raises:
        UserError: The run or the texts cannot be read.
    """
    opened = load_run(run)
    if lines is None and Path(source).suffix != ".txt":
        return opened.predict_table(read_table(source))
    name = source if lines is None else "input"
    try:
        read = Path(source).read_text(encoding="utf-8").splitlines() if lines is None else list(lines)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"{name}: cannot read: {reason}") from None
    return opened.predict_table(_table(read, name, opened.task.text, opened.task.pair, problem=opened.task.problem))


def _table(lines: Iterable[str], source: str, text: str, pair: str | None, *, problem: str) -> Table:
    texts: list[Any] = []
    seconds: list[str] = []
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if pair is not None:
            first, tab, second = line.partition("\t")
            if not tab:
                raise DataError(f"{source} line {number}: this run reads pairs: put a tab between the two texts")
            texts.append(first)
            seconds.append(second)
        else:
            texts.append(line.split() if problem == "tags" else line)
    if not texts:
        raise DataError(f"{source}: holds no lines: give one text a line")
    columns = {text: texts} | ({} if pair is None else {pair: seconds})
    return Table(columns=columns, source=source, lines=list(range(1, len(texts) + 1)))
