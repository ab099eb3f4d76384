"""Prompts from a file or a stream: JSON lines with ``text`` or ``source``, a table, or one prompt a line."""

import json
from collections.abc import Iterable
from pathlib import Path

from tunesmith.base.errors import DataError
from tunesmith.text.table import SUPPORTED, read_table

_COLUMNS = ("text", "source")


def read_prompts(source: str, lines: Iterable[str] | None = None) -> tuple[list[str], list[str]]:
    """The prompts, and what to call each in an error.

    Args:
        source: A table (by its extension), or plain text.
        lines: Lines to read in place of a file; they are JSON where the first one is an object with a prompt.

    Raises:
        DataError: It cannot be read, is empty, or holds no prompts.
    """
    endings = tuple(word for word in SUPPORTED.replace("(each also .gz)", ".gz").split())
    if lines is None and source.lower().endswith(endings):
        table = read_table(source)
        name = next((column for column in _COLUMNS if column in table.columns), None)
        if name is None:
            raise DataError(f"{source}: has no column text or source: it has {', '.join(table.columns)}")
        return _checked([(line, cell) for line, cell in zip(table.lines, table.columns[name], strict=True)], source)
    name = source if lines is None else "input"
    try:
        text = Path(source).read_text(encoding="utf-8") if lines is None else "".join(lines)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"{name}: cannot read: {reason}") from None
    rows = list(enumerate(text.removesuffix("\n").split("\n"), start=1)) if text else []
    rows = [(number, line.removesuffix("\r")) for number, line in rows]
    if rows and lines is not None and _prompt_of(rows[0][1]) is not None:
        return _checked([(number, _prompt_of(line)) for number, line in rows if line.strip()], name)
    return _checked(rows, name)


def _prompt_of(line: str) -> object:
    """The prompt in a line of JSON; None where there is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return next((found[column] for column in _COLUMNS if column in found), None) if isinstance(found, dict) else None


def _checked(rows: Iterable[tuple[int, object]], source: str) -> tuple[list[str], list[str]]:
    texts, names = [], []
    for number, text in rows:
        if not isinstance(text, str):
            raise DataError(f"{source} line {number}: has no prompt: give a string as text or source")
        texts.append(text)
        names.append(f"{source} line {number}")
    if not texts:
        raise DataError(f"{source}: holds no lines: give one prompt a line")
    return texts, names
