"""How the documents of one batch lie: packed one behind the other, with no padding between them.

Per-token work runs on the packed rows alone. Attention runs on groups of documents of similar length: only there are
the shorter documents of a group padded, by at most what the grouping found cheaper than one more call.

Sizes are rounded up to few different values (rows by at most 1/16, lengths of a group to a multiple of 16, documents
of a group to a multiple of 4): matrix libraries compile and keep a kernel for each new shape, which costs a multiple
of the product itself. Measured: docs/benchmarks/attention.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunesmith.base.shapes import Bool, Int, Tensor

CALL_COST = 8000
"""Cost of one more attention group, in score elements per head."""
LENGTH_STEP = 16
SIZE_STEP = 4


@dataclass(frozen=True)
class Group:
    """Neighbouring documents whose attention is computed together.

    Attributes:
        start: First packed row of the group.
        stop: One behind its last packed row.
        size: Number of documents, G, rounded up: the last ones may be empty.
        length: Tokens of the longest one, T, rounded up.
        slots: Place of each packed row in the padded (G * T) rows; None where nothing is padded.
        rows: Packed row, counted from ``start``, that each padded row reads: padding repeats its document's last token.
        hidden: True where a padded key stands; None where nothing is padded.
    """

    start: int
    stop: int
    size: int
    length: int
    slots: Int[Tensor, "N"] | None
    rows: Int[Tensor, "GT"] | None
    hidden: Bool[Tensor, "G T"] | None


@dataclass(frozen=True)
class Layout:
    """Where each document of a packed batch lies, and how attention groups them.

    Attributes:
        lengths: Tokens of each document, in packed order.
        num_tokens: Their sum; rows behind it belong to no document.
        starts: First packed row of each document.
        positions: Position of each packed token inside its document.
        segments: Segment (token type) of each packed token.
        groups: Attention groups, in packed order.
        noise: Stream that dropout draws from; None switches dropout off.
    """

    lengths: tuple[int, ...]
    num_tokens: int
    starts: Int[Tensor, "B"]
    positions: Int[Tensor, "N"]
    segments: Int[Tensor, "N"]
    groups: tuple[Group, ...]
    noise: torch.Generator | None = None


def make_layout(
    lengths: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    positions: Int[Tensor, "N"] | None = None,
    segments: Int[Tensor, "N"] | None = None,
    spare: int = 0,
    noise: torch.Generator | None = None,
) -> Layout:
    """The layout of documents packed in this order.

    Args:
        lengths: Tokens of each document, each at least 1. Sorted ones make the fewest groups.
        device: Where the batch lives.
        positions: Positions that differ from 0, 1, 2, ... in each document.
        segments: Segment of each token; 0 by default.
        spare: Rows behind the last document, to reach a rounded number of rows.
        noise: Stream for dropout.
    """
    counts = torch.tensor(lengths, dtype=torch.long)
    starts = counts.cumsum(0) - counts
    if positions is None:
        positions = torch.arange(int(counts.sum())) - torch.repeat_interleave(starts, counts)
    if segments is None:
        segments = torch.zeros_like(positions)
    if spare:
        positions = torch.cat([positions, positions.new_zeros(spare)])
        segments = torch.cat([segments, segments.new_zeros(spare)])
    return Layout(
        lengths=tuple(lengths),
        num_tokens=int(counts.sum()),
        starts=starts.to(device),
        positions=positions.to(device),
        segments=segments.to(device),
        groups=tuple(_group(lengths, device)),
        noise=noise,
    )


def _group(lengths: Sequence[int], device: torch.device | str) -> list[Group]:
    groups = []
    start = first = 0
    for last in _cuts(lengths):
        part = lengths[first:last]
        length, size = _round_up(max(part), LENGTH_STEP), _round_up(len(part), SIZE_STEP)
        stop = start + sum(part)
        if min(part) == length and len(part) == size:
            groups.append(Group(start, stop, size, length, None, None, None))
        else:
            counts = torch.tensor([*part, *[0] * (size - len(part))])
            real = torch.arange(length) < counts[:, None]  # (G, T)
            slots = real.flatten().nonzero()[:, 0]
            # padding reads its own document, so that not even a NaN crosses from one document to another
            inside = torch.arange(length).minimum((counts[:, None] - 1).clamp_min(0))
            rows = (counts.cumsum(0) - counts).clamp_max(stop - start - 1)[:, None] + inside
            groups.append(
                Group(start, stop, size, length, slots.to(device), rows.flatten().to(device), (~real).to(device))
            )
        start, first = stop, last
    return groups


def _cuts(lengths: Sequence[int]) -> list[int]:
    """Ends of the cheapest groups, by dynamic programming: a group costs one call and G * T * T score elements.

    Runs of equal lengths are never cut, so sorted batches of hundreds of documents stay cheap to plan.
    """
    ends = [i for i in range(1, len(lengths)) if lengths[i] != lengths[i - 1]] + [len(lengths)]
    begins = [0, *ends[:-1]]
    best = [0.0]
    cut = [0]
    for j, end in enumerate(ends):
        cheapest, where, longest = float("inf"), j, 0
        for i in range(j, -1, -1):
            longest = max(longest, lengths[begins[i]])
            size = _round_up(end - begins[i], SIZE_STEP)
            cost = best[i] + CALL_COST + size * _round_up(longest, LENGTH_STEP) ** 2
            if cost < cheapest:
                cheapest, where = cost, i
        best.append(cheapest)
        cut.append(where)
    found = []
    j = len(ends)
    while j:
        found.append(ends[j - 1])
        j = cut[j]
    return found[::-1]


def spare_rows(num_tokens: int) -> int:
    """Rows to add so that batches have few different sizes: at most 15, or a sixteenth of a large batch."""
    step = max(16, 1 << max(0, (num_tokens // 16).bit_length() - 1))
    return _round_up(num_tokens, step) - num_tokens


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
