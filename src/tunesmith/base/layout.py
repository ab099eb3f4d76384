"""How the documents of one batch lie: packed one behind the other, with no padding between them.

Per-token work runs on the packed rows alone. Attention runs on groups of documents of similar length: a group is a
batch of bins of one length, each bin holds one or more whole documents, and a bias keeps them apart.

Sizes are rounded up to few different values (rows by at most 1/16, lengths of bins to a multiple of 16 or 32, their
number to an even one): matrix libraries compile and keep a kernel for each new shape, which costs a multiple of the
product itself. Measured: docs/benchmarks/attention.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunesmith.base.shapes import Float, Int, Tensor

CALL_COST = 8000
"""Cost of one more attention group, in score elements per head."""


@dataclass(frozen=True)
class Group:
    """Neighbouring documents whose attention is computed together.

    Attributes:
        start: First packed row of the group.
        stop: One behind its last packed row.
        size: Number of bins, G; the last ones may be empty.
        length: Tokens of a bin, T.
        slots: Place of each packed row in the (G * T) rows of the bins; None where the bins are the rows.
        rows: Packed row, counted from ``start``, that each row of the bins reads; any, where it is padding.
        bias: What is added to scores: 0 inside a document, -1e30 elsewhere; (G, T, T), or (G, 1, T) where each bin
            holds one document, or None where each is full of one.
    """

    start: int
    stop: int
    size: int
    length: int
    slots: Int[Tensor, "N"] | None
    rows: Int[Tensor, "GT"] | None
    bias: Float[Tensor, "G Q T"] | None


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
        length, stop = _bin_length(max(part)), start + sum(part)
        groups.append(_bins(part, start, stop, length, device))
        start, first = stop, last
    return groups


def _bins(lengths: Sequence[int], start: int, stop: int, length: int, device: torch.device | str) -> Group:
    """Put documents into bins, longest first, each into the first bin that has room."""
    rooms: list[int] = []
    places = [(0, 0)] * len(lengths)
    for document in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        count = lengths[document]
        bin_ = next((i for i, room in enumerate(rooms) if room >= count), len(rooms))
        if bin_ == len(rooms):
            rooms.append(length)
        places[document] = bin_, length - rooms[bin_]
        rooms[bin_] -= count
    if len(rooms) == len(lengths) and not any(rooms):  # each bin is one document and full
        return Group(start, stop, len(rooms), length, None, None, None)
    size = len(rooms) + len(rooms) % 2
    counts = torch.tensor(lengths)
    begins = torch.tensor([bin_ * length + offset for bin_, offset in places])
    inside = torch.arange(stop - start) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    slots = torch.repeat_interleave(begins, counts) + inside
    rows = torch.zeros(size * length, dtype=torch.long)
    rows[slots] = torch.arange(stop - start)
    owner = torch.full((size * length,), -1)
    owner[slots] = torch.repeat_interleave(torch.arange(len(lengths)), counts)
    owner = owner.view(size, length)
    alone = len(rooms) == len(lengths)
    apart = owner[:, None] < 0 if alone else owner[:, None] != owner[:, :, None]
    bias = apart.float() * -1e30  # not -inf: rows of empty bins must not become NaN
    return Group(start, stop, size, length, slots.to(device), rows.to(device), bias.to(device))


def _cuts(lengths: Sequence[int]) -> list[int]:
    """Ends of the cheapest groups, by dynamic programming: a group costs one call and G * T * T score elements.

    Runs of equal lengths are never cut, so sorted batches of hundreds of documents stay cheap to plan.
    """
    ends = [i for i in range(1, len(lengths)) if lengths[i] != lengths[i - 1]] + [len(lengths)]
    begins = [0, *ends[:-1]]
    best = [0.0]
    cut = [0]
    for j in range(len(ends)):
        cheapest, where, longest, tokens = float("inf"), j, 0, 0
        counted: list[tuple[int, int]] = []  # (length, documents) of the group so far
        for i in range(j, -1, -1):
            length, documents = lengths[begins[i]], ends[i] - begins[i]
            longest, tokens = max(longest, length), tokens + documents * length
            counted.append((length, documents))
            size = _bin_length(longest)
            wide = sum(n for width, n in counted if 2 * width > size)  # no two of them share a bin
            cost = best[i] + CALL_COST + max(wide, -(-tokens // size)) * size * size
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


def _bin_length(longest: int) -> int:
    """Length of bins for documents up to ``longest``: a multiple of 32 (vector units work best on them), or 16."""
    return 16 if longest <= 16 else _round_up(longest, 32)


def spare_rows(num_tokens: int) -> int:
    """Rows to add so that batches have few different sizes: at most 15, or a sixteenth of a large batch."""
    step = max(16, 1 << max(0, (num_tokens // 16).bit_length() - 1))
    return _round_up(num_tokens, step) - num_tokens


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
