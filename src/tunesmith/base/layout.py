"""How the documents of one batch lie: packed one behind the other, with no padding between them.

Per-token work runs on the packed rows alone. Attention runs on groups of documents of similar length: a group is a
batch of bins of one length, each bin holds one or more whole documents, and a bias keeps them apart. Sizes are rounded up to few different values (rows by at most 1/16, lengths of bins to a multiple of 16 or 32, their
number to an even one): matrix libraries compile and keep a kernel for each new shape, which costs a multiple of the
product itself. Measured: docs/benchmarks/attention.md.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tunesmith.base.shapes import Bool, Float, Int, Tensor

CALL_COST = 8000
"""Cost of one more attention group, in score elements per head."""
LARGEST = 1 << 19
"""Score elements per head of one group with several bins: what is held only for a moment stays small."""
NEVER = -1e30
"""Added to the score of what must not be seen. Not -inf: rows of empty bins must not become NaN."""


@dataclass(frozen=True)
class Reach:
    """How far a token sees inside its document; None is without limit.

    Attributes:
        left: Tokens back.
        right: Tokens ahead; 0 is causal.
    """

    left: int | None = None
    right: int | None = None

    def hides(self, distance: Int[Tensor, "..."]) -> Tensor | None:
        """Where keys at these distances (key position - query position) are out of reach; None if none can be."""
        hidden = None
        if self.left is not None:
            hidden = distance < -self.left
        if self.right is not None:
            ahead = distance > self.right
            hidden = ahead if hidden is None else hidden | ahead
        return hidden


EVERYWHERE = Reach()


@dataclass(frozen=True)
class Side:
    """How packed rows, of queries or of keys and values, lie in the bins of a group.

    Attributes:
        start: First packed row of the group.
        stop: One behind its last packed row.
        length: Tokens of a bin, T.
        slots: Place of each packed row in the (G * T) rows of the bins; None where the bins are the rows.
        rows: Packed row, counted from ``start``, that each row of the bins reads; any, where it is padding.
    """

    start: int
    stop: int
    length: int
    slots: Int[Tensor, "N"] | None
    rows: Int[Tensor, "GT"] | None


@dataclass(frozen=True)
class Group:
    """Neighbouring documents whose attention is computed together.

    Attributes:
        size: Number of bins, G; the last ones may be empty.
        queries: Where the queries lie.
        keys: Where keys and values lie; the same object in plain self-attention.
        bias: What is added to scores: 0 inside a document, `NEVER` elsewhere; (G, T, T), or (G, 1, T) where each bin
            holds one document, or None where each is full of one.
        distance: Key position - query position, (T, S) or (G, T, S); None where it is that of the places in a bin.
    """

    size: int
    queries: Side
    keys: Side
    bias: Float[Tensor, "G Q S"] | None
    distance: Int[Tensor, "... T S"] | None = None
    _biases: dict[Reach, Tensor | None] = field(default_factory=dict, compare=False, repr=False)

    def distances(self, device: torch.device) -> Int[Tensor, "... T S"]:
        """Key position - query position; what it says across documents means nothing."""
        if self.distance is not None:
            return self.distance
        places = torch.arange(self.keys.length, device=device)
        return places - places[:, None]

    def bias_within(self, reach: Reach, device: torch.device) -> Float[Tensor, "..."] | None:
        """The bias with what is out of reach hidden too; None where all is seen."""
        if reach not in self._biases:
            hidden = reach.hides(self.distances(device)) if reach != EVERYWHERE else None
            bias = self.bias
            if hidden is not None and bool(hidden.any()):
                far = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, NEVER)
                far = far if far.ndim == 3 else far[None]
                bias = far if bias is None else (bias + far).clamp_(min=NEVER)
            self._biases[reach] = bias
        return self._biases[reach]


@dataclass(frozen=True)
class Layout:
    """Where each document of a packed batch lies.

    Attributes:
        lengths: Tokens of each document, in packed order.
        num_tokens: Their sum; rows behind it belong to no document.
        starts: First packed row of each document.
        positions: Position of each packed token inside its document.
        segments: Segment (token type) of each packed token.
        noise: Stream that dropout draws from; None switches dropout off.
        past: Tokens of each document that a cache already holds; None without a cache.
    """

    lengths: tuple[int, ...]
    num_tokens: int
    starts: Int[Tensor, "B"]
    positions: Int[Tensor, "N"]
    segments: Int[Tensor, "N"]
    noise: torch.Generator | None = None
    past: tuple[int, ...] | None = None

    @functools.cached_property
    def groups(self) -> tuple[Group, ...]:
        """Groups of self-attention, in packed order."""
        return tuple(_group(self.lengths, self.positions.device))

    @functools.cached_property
    def ends(self) -> Int[Tensor, "B"]:
        """Last packed row of each document."""
        return self.starts + torch.tensor(self.lengths, device=self.starts.device) - 1

    @functools.cached_property
    def owners(self) -> Int[Tensor, "N"]:
        """Document of each packed token, without the spare rows."""
        device = self.starts.device
        counts = torch.tensor(self.lengths, device=device)
        return torch.repeat_interleave(torch.arange(len(counts), device=device), counts)

    @functools.cached_property
    def places(self) -> Int[Tensor, "N"]:
        """Place of each packed token in its document, 0, 1, 2, ..., whatever its position is; no spare rows."""
        return torch.arange(self.num_tokens, device=self.starts.device) - self.starts[self.owners]


@dataclass(frozen=True)
class Pairing:
    """Queries of one packed batch over the keys of another, document by document.

    Attributes:
        groups: Attention groups; each bin holds one document of either side.
        num_queries: Packed rows of queries that belong to a document.
        noise: Stream for dropout.
    """

    groups: tuple[Group, ...]
    num_queries: int
    noise: torch.Generator | None = None


def make_layout(
    lengths: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    positions: Int[Tensor, "N"] | None = None,
    segments: Int[Tensor, "N"] | None = None,
    spare: int = 0,
    noise: torch.Generator | None = None,
    past: Sequence[int] | None = None,
) -> Layout:
    """The layout of documents packed in this order.

    Args:
        lengths: Tokens of each document, each at least 1. Sorted ones make the fewest groups.
        device: Where the batch lives.
        positions: Positions that differ from 0, 1, 2, ... (behind the past) in each document.
        segments: Segment of each token; 0 by default.
        spare: Rows behind the last document, to reach a rounded number of rows.
        noise: Stream for dropout.
        past: Tokens of each document that a cache already holds.
    """
    counts = torch.tensor(lengths, dtype=torch.long)
    starts = counts.cumsum(0) - counts
    if positions is None:
        first = starts if past is None else starts - torch.tensor(past)
        positions = torch.arange(int(counts.sum())) - torch.repeat_interleave(first, counts)
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
        noise=noise,
        past=None if past is None else tuple(past),
    )


def pair(
    queries: Layout,
    keys: Layout,
    *,
    rows: Int[Tensor, "M"] | None = None,
    hidden: Bool[Tensor, "B T S"] | None = None,
) -> Pairing:
    """Tokens of document i of the queries over all tokens of document i of the keys.

    Args:
        queries: Where the queries' documents lie.
        keys: Where the keys' documents lie; the same layout for self-attention of some rows only. Between different
            layouts the groups' distances mean nothing.
        rows: Packed rows of the queries that are wanted, documents in packed order; all by default.
        hidden: Where the query at one place of a document must not see the key at another; nowhere by default.

    Raises:
        ValueError: Different numbers of documents.
    """
    if len(queries.lengths) != len(keys.lengths):
        raise ValueError(f"{len(queries.lengths)} documents cannot attend to {len(keys.lengths)}")
    counts, places = queries.lengths, queries.places
    if rows is not None:
        counts = torch.bincount(queries.owners[rows], minlength=len(counts)).tolist()
        places = places[rows]
    groups = _pairs(counts, keys.lengths, places, keys.starts.device, hidden)
    return Pairing(tuple(groups), len(places), queries.noise)


def side_of(lengths: Sequence[int], *, length: int, start: int, device: torch.device) -> Side:
    """Documents as bins of one length, one in each."""
    stop = start + sum(lengths)
    if all(count == length for count in lengths):
        return Side(start, stop, length, None, None)
    counts = torch.tensor(lengths)
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    inside = torch.arange(stop - start) - (counts.cumsum(0) - counts)[owner]
    slots = owner * length + inside
    rows = torch.zeros(len(lengths) * length, dtype=torch.long)
    rows[slots] = torch.arange(stop - start)
    return Side(start, stop, length, slots.to(device), rows.to(device))


def _pairs(
    counts: Sequence[int],
    lengths: Sequence[int],
    places: Int[Tensor, "M"],
    device: torch.device,
    hidden: Bool[Tensor, "B T S"] | None,
) -> list[Group]:
    groups = []
    first = query = key = 0
    # few queries, as one of each document, cost nothing: one group keeps the number of shapes small
    together = len(counts) * _query_length(max(counts)) * _bin_length(max(lengths)) <= 2 * CALL_COST
    for last in [len(lengths)] if together else _cuts(lengths):
        q, k = counts[first:last], lengths[first:last]
        size, stop = len(k), query + sum(q)
        if stop > query:
            keys = side_of(k, length=_bin_length(max(k)), start=key, device=device)
            queries = side_of(q, length=_query_length(max(q)), start=query, device=device)
            ends = torch.tensor(k, device=device)[:, None, None]
            bias = None
            if keys.slots is not None:
                behind = torch.arange(keys.length, device=device) >= ends
                bias = behind.float() * NEVER
            place = places.new_zeros(size * queries.length)
            if queries.slots is None:
                place = places[query:stop]
            else:
                place[queries.slots] = places[query:stop]
            place = place.view(size, queries.length, 1)
            distance = torch.arange(keys.length, device=device) - place
            if hidden is not None:
                far = hidden[first:last].gather(1, place.expand(-1, -1, hidden.shape[2]))[..., : keys.length]
                far = torch.nn.functional.pad(far.float() * NEVER, (0, keys.length - far.shape[2]))
                bias = far if bias is None else (far + bias).clamp_(min=NEVER)
            groups.append(Group(size, queries, keys, bias, distance))
        first, query, key = last, stop, key + sum(k)
    return groups


def _group(lengths: Sequence[int], device: torch.device) -> list[Group]:
    groups = []
    start = first = 0
    for last in _cuts(lengths):
        part = lengths[first:last]
        length, stop = _bin_length(max(part)), start + sum(part)
        groups.append(_bins(part, start, stop, length, device))
        start, first = stop, last
    return groups


def _bins(lengths: Sequence[int], start: int, stop: int, length: int, device: torch.device) -> Group:
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
        full = Side(start, stop, length, None, None)
        return Group(len(rooms), full, full, None)
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
    side = Side(start, stop, length, slots.to(device), rows.to(device))
    return Group(size, side, side, (apart.float() * NEVER).to(device))


def _cuts(lengths: Sequence[int]) -> list[int]:
    """Ends of the cheapest groups, by dynamic programming: a group costs one call and G * T * T score elements.

    Runs of equal lengths are cut only where a group would be too large, so sorted batches of hundreds of documents stay
    cheap to plan.
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
    return _split(lengths, found[::-1])


def _split(lengths: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Ends of groups of at most `LARGEST`."""
    found: list[int] = []
    first = filled = 0
    for last in ends:
        size = _bin_length(max(lengths[first:last]))
        most = max(1, LARGEST // size**2) * size  # tokens
        for i in range(first, last):
            if filled and filled + lengths[i] > most:
                found.append(i)
                filled = 0
            filled += lengths[i]
        found.append(last)
        first, filled = last, 0
    return found


def _bin_length(longest: int) -> int:
    """Length of bins for documents up to ``longest``: a multiple of 32 (vector units work best on them), or 16."""
    return 16 if longest <= 16 else _round_up(longest, 32)


def _query_length(longest: int) -> int:
    """Length of bins of queries alone: a power of 2 up to 16, then as for keys."""
    return 1 << (longest - 1).bit_length() if longest <= 16 else _bin_length(longest)


def spare_rows(num_tokens: int) -> int:
    """Rows to add so that batches have few different sizes: at most 15, or a sixteenth of a large batch."""
    step = max(16, 1 << max(0, (num_tokens // 16).bit_length() - 1))
    return _round_up(num_tokens, step) - num_tokens


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
