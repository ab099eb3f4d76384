"""How the documents of one batch lie: packed one behind the other, with no padding between them.

Per-token work runs on the packed rows alone. Attention runs on groups of documents of similar length: only there are
the shorter documents of a group padded, by at most what the grouping found cheaper than one more call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunesmith.base.shapes import Bool, Int, Tensor

CALL_COST = 8000
"""Cost of one more attention group, in score elements per head. Measured: docs/benchmarks/attention.md."""


@dataclass(frozen=True)
class Group:
    """Neighbouring documents whose attention is computed together.

    Attributes:
        start: First packed row of the group.
        stop: One behind its last packed row.
        size: Number of documents, G.
        length: Tokens of the longest one, T.
        slots: Place of each packed row in the padded (G * T) rows; None where all lengths are equal.
        hidden: True where a padded key stands; None where all lengths are equal.
    """

    start: int
    stop: int
    size: int
    length: int
    slots: Int[Tensor, "N"] | None
    hidden: Bool[Tensor, "G T"] | None


@dataclass(frozen=True)
class Layout:
    """Where each document of a packed batch lies, and how attention groups them.

    Attributes:
        lengths: Tokens of each document, in packed order.
        starts: First packed row of each document.
        positions: Position of each packed token inside its document.
        segments: Segment (token type) of each packed token.
        groups: Attention groups, in packed order.
        noise: Stream that dropout draws from; None switches dropout off.
    """

    lengths: tuple[int, ...]
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
    noise: torch.Generator | None = None,
) -> Layout:
    """The layout of documents packed in this order.

    Args:
        lengths: Tokens of each document, each at least 1. Sorted ones make the fewest groups.
        device: Where the batch lives.
        positions: Positions that differ from 0, 1, 2, ... in each document.
        segments: Segment of each token; 0 by default.
        noise: Stream for dropout.
    """
    counts = torch.tensor(lengths, dtype=torch.long)
    starts = counts.cumsum(0) - counts
    if positions is None:
        positions = torch.arange(int(counts.sum())) - torch.repeat_interleave(starts, counts)
    if segments is None:
        segments = torch.zeros_like(positions)
    return Layout(
        lengths=tuple(lengths),
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
        longest = max(part)
        stop = start + sum(part)
        if min(part) == longest:
            groups.append(Group(start, stop, len(part), longest, None, None))
        else:
            real = torch.arange(longest) < torch.tensor(part)[:, None]  # (G, T)
            slots = real.flatten().nonzero()[:, 0]
            groups.append(Group(start, stop, len(part), longest, slots.to(device), (~real).to(device)))
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
            cost = best[i] + CALL_COST + (end - begins[i]) * longest * longest
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
