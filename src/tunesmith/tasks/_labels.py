"""Names of classes from whatever a file holds: strings, numbers, truth values."""

import math
import reprlib
from collections.abc import Iterable
from typing import Any

from tunesmith.base.errors import DataError
from tunesmith.tasks import cell_fault, column
from tunesmith.text.table import Table

MAX_CLASSES = 10_000


def label_name(table: Table, row: int, name: str, value: Any) -> str:
    """The class name of one cell.

    Raises:
        DataError: The cell is empty or holds something that cannot be a class.
    """
    if value is None or value == "":
        raise cell_fault(table, row, name, "is empty: give a label or remove the row")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        raise cell_fault(table, row, name, f"is {value}: give a label or remove the row")
    if isinstance(value, str | int | float):
        return str(value)
    raise cell_fault(table, row, name, f"must be a text or a number, got {type(value).__name__}")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in their order: numbers by value, else by code point."""
    names = set(names)
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(names))


def learn(table: Table, name: str, values: Iterable[tuple[int, Any]], *, fewest: int) -> tuple[str, ...]:
    """Ordered class names of all labels of a table.

    Args:
        table: Where they stand.
        name: Their column.
        values: Row and value of each.
        fewest: Fewest classes that make sense.

    Raises:
        DataError: A bad label, too few classes, or so many that they cannot be classes.
    """
    names = in_order(label_name(table, row, name, value) for row, value in values)
    if len(names) < fewest:
        found = f"only {reprlib.repr(names[0])}" if names else "none"
        raise DataError(f"{table.source}: column {name!r} must hold at least {fewest} classes, got {found}")
    if len(names) > MAX_CLASSES or (len(names) > 50 and len(names) > 0.7 * len(table)):
        raise DataError(
            f"{table.source}: column {name!r} holds {len(names)} different labels in {len(table)} rows: "
            "name the right column with data.label=..., or say data.task=regression"
        )
    return names


def indices(table: Table, name: str, labels: tuple[str, ...]) -> list[int]:
    """Class number of each row.

    Raises:
        DataError: A label is bad or not among ``labels``.
    """
    known = {label: i for i, label in enumerate(labels)}
    return [class_number(table, row, name, value, known) for row, value in enumerate(column(table, name))]


def class_number(table: Table, row: int, name: str, value: Any, known: dict[str, int]) -> int:
    """Class number of one label.

    Raises:
        DataError: It is bad or not among the known ones.
    """
    label = label_name(table, row, name, value)
    if label not in known:
        some = ", ".join(list(known)[:10]) + (", ..." if len(known) > 10 else "")
        raise cell_fault(
            table, row, name, f"holds {reprlib.repr(label)}, which the training data does not have: known are {some}"
        )
    return known[label]
