"""Packed layouts, for any lengths: every row has its place, documents are kept apart, equal lengths stay together."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.base.layout import CALL_COST, LARGEST, make_layout, spare_rows

LENGTHS = st.lists(st.one_of(st.integers(1, 12), st.integers(1, 300)), min_size=1, max_size=40)


def parts(lengths, layout):
    """The groups with the lengths of their documents."""
    row = document = 0
    found = []
    for group in layout.groups:
        assert group.keys is group.queries
        assert group.keys.start == row
        first = document
        while row < group.keys.stop:
            row += lengths[document]
            document += 1
        assert row == group.keys.stop
        found.append((group, lengths[first:document]))
    assert (row, document) == (sum(lengths), len(lengths))
    return found


def bin_length(longest):
    return 16 if longest <= 16 else -(-longest // 32) * 32


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.booleans())
def test_groups_cover_all_rows_once_and_in_order(lengths, ordered):
    lengths = sorted(lengths) if ordered else lengths
    layout = make_layout(lengths)
    assert layout.num_tokens == sum(lengths)
    for group, part in parts(lengths, layout):
        assert group.keys.length == bin_length(max(part))
        if group.keys.slots is None:
            assert group.keys.rows is group.bias is None
            assert part == [group.keys.length] * group.size
        else:
            check_bins(group, part)


def check_bins(group, part):
    rows, places = sum(part), group.size * group.keys.length
    slots = group.keys.slots.tolist()
    assert len(set(slots)) == len(slots) == rows
    assert 0 <= min(slots) <= max(slots) < places
    assert group.size % 2 == 0
    assert group.keys.rows.shape == (places,)
    assert group.keys.rows[group.keys.slots].tolist() == list(range(rows))  # reading and writing are inverse
    assert 0 <= group.keys.rows.min() <= group.keys.rows.max() < rows  # padding reads something of the group
    owner = [-1] * places
    first = 0
    for document, length in enumerate(part):  # each document lies whole in one bin
        own = slots[first : first + length]
        assert own == list(range(own[0], own[0] + length))
        assert own[0] // group.keys.length == own[-1] // group.keys.length
        for slot in own:
            owner[slot] = document
        first += length
    owner = torch.tensor(owner).view(group.size, group.keys.length)
    allowed = (owner[:, :, None] == owner[:, None]) & (owner[:, None] >= 0)
    seen = (group.bias == 0).expand(group.size, group.keys.length, group.keys.length)
    assert torch.equal(seen[owner >= 0], allowed[owner >= 0])  # of a token that is real: its own document, no more
    assert set(group.bias.unique().tolist()) <= {0.0, torch.tensor(-1e30).item()}


@settings(max_examples=100, deadline=None)
@given(LENGTHS)
def test_runs_of_equal_lengths_are_not_cut(lengths):
    if sum(lengths) * bin_length(max(lengths)) > LARGEST:
        lengths = [min(length, 16) for length in lengths]
    layout = make_layout(lengths)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    cuts = {group.keys.stop for group in layout.groups}
    for i in range(len(lengths) - 1):
        if lengths[i] == lengths[i + 1]:
            assert ends[i] not in cuts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=7, unique=True))
def test_groups_are_the_cheapest(lengths):
    """Against all ways to cut; the number of bins is estimated from below."""

    def cost(part):
        size = bin_length(max(part))
        bins = max(sum(2 * length > size for length in part), -(-sum(part) // size))
        return CALL_COST + bins * size**2

    def cheapest(rest):
        return min((cost(rest[:i]) + cheapest(rest[i:]) for i in range(1, len(rest) + 1)), default=0)

    assert sum(cost(part) for _, part in parts(lengths, make_layout(lengths))) == cheapest(lengths)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(0, 20))
def test_starts_positions_and_spare_rows(lengths, spare):
    layout = make_layout(lengths, spare=spare)
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    assert layout.starts.tolist() == starts
    assert layout.positions.tolist() == [t for length in lengths for t in range(length)] + [0] * spare
    assert layout.segments.tolist() == [0] * (sum(lengths) + spare)
    assert layout.lengths == tuple(lengths)


def test_given_positions_and_segments():
    layout = make_layout([2, 1], positions=torch.tensor([5, 6, 7]), segments=torch.tensor([0, 1, 1]), spare=1)
    assert layout.positions.tolist() == [5, 6, 7, 0]
    assert layout.segments.tolist() == [0, 1, 1, 0]


@given(st.integers(1, 100_000))
def test_few_sizes(rows):
    spare = spare_rows(rows)
    assert 0 <= spare <= max(15, rows / 16)
    assert (rows + spare) % 16 == 0
    assert spare_rows(rows + spare) == 0


def test_how_many_sizes_there_are():
    assert len({rows + spare_rows(rows) for rows in range(1, 4097)}) < 100


@given(st.integers(1, 600), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_large_groups_are_split(length, count):
    for group in make_layout([length] * count).groups:
        assert group.size <= 2 or group.size * group.keys.length**2 <= 2 * LARGEST
