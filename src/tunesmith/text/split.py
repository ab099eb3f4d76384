"""Holding out a dev part: the same rows for the same seed, every class in its share."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.base.errors import DataError, SettingError


@dataclass(frozen=True)
class Split:
    """Which rows train and which are held out: indices from 0, in file order, each row in one of them."""

    train: list[int]
    dev: list[int]


def split_off(labels: Sequence[Hashable] | None, *, size: int, fraction: float, seed: int) -> Split:
    r"""A random stratified dev part of `round(size * fraction)` rows, and at least 1.

    A class with $n_c$ of the $n$ rows gives $m n_c / n$ of the $m$ dev rows, rounded down; what is then
    lacking comes one by one from the classes with the largest remainders. A class of two or more rows always
    keeps one in train: only where that leaves too few rows is the dev part smaller than asked.

    Args:
        labels: The class of each row; None for a split without classes.
        size: Number of rows.
        fraction: Share of the rows to hold out, above 0 and below 1.
        seed: Key of the random stream, at least 0; the split depends on it and on the labels alone.

    Raises:
        DataError: There are fewer than 2 rows.
        SettingError: `fraction` is outside its range.
    """
    if size < 2:
        raise DataError(f"cannot hold out a dev part of {size} rows: give at least 2, or a dev file")
    if not 0 < fraction < 1:
        raise SettingError(f"fraction: must be above 0 and below 1, got {fraction}: set for example 0.1")
    assert labels is None or len(labels) == size, "one label per row"

    members: dict[Hashable, list[int]] = {}  # in order of first occurrence, so never by hash
    for row in range(size):
        members.setdefault(None if labels is None else labels[row], []).append(row)
    groups = list(members.values())

    stream = np.random.Generator(np.random.Philox(key=seed))
    counts = _dev_counts([len(group) for group in groups], round(size * fraction), stream)
    dev = {int(row) for group, count in zip(groups, counts, strict=True) for row in stream.permutation(group)[:count]}
    return Split(train=[row for row in range(size) if row not in dev], dev=sorted(dev))


def _dev_counts(sizes: list[int], wanted: int, stream: np.random.Generator) -> list[int]:
    """How many rows of each class to hold out, by largest remainders; equal remainders are drawn by lot."""
    rows = sum(sizes)
    most = [size - 1 if size > 1 else 1 for size in sizes]
    total = min(max(wanted, 1), sum(most), rows - 1)
    counts, remainders = zip(*(divmod(size * total, rows) for size in sizes), strict=True)  # whole numbers: exact
    counts = list(counts)
    lot = stream.permutation(len(sizes))
    order = sorted(range(len(sizes)), key=lambda c: (-remainders[c], sizes[c] == 1, lot[c]))
    lacking = total - sum(counts)
    while lacking:  # a second round only where classes in the first were already at their most
        for c in order:
            if lacking and counts[c] < most[c]:
                counts[c] += 1
                lacking -= 1
    return counts
