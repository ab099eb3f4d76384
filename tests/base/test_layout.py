"""Packed layouts, for any lengths: every row has its place, padding is hidden, equal lengths stay together."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.base.layout import CALL_COST, LENGTH_STEP, SIZE_STEP, make_layout, spare_rows

LENGTHS = st.lists(st.one_of(st.integers(1, 12), st.integers(1, 300)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.booleans())
def test_groups_cover_all_rows_once_and_in_order(lengths, ordered):
    lengths = sorted(lengths) if ordered else lengths
    layout = make_layout(lengths)
    assert layout.num_tokens == sum(lengths)
    row = document = 0
    for group in layout.groups:
        assert group.start == row
        count = 0
        while row < group.stop:
            row += lengths[document + count]
            count += 1
        assert row == group.stop
        part = lengths[document : document + count]
        assert count <= group.size < count + SIZE_STEP
        assert max(part) <= group.length < max(part) + LENGTH_STEP
        if group.slots is None:
            assert group.hidden is group.rows is None
            assert part == [group.length] * group.size
        else:
            check_padding(group, part)
        document += count
    assert (row, document) == (sum(lengths), len(lengths))


def check_padding(group, part):
    counts = [*part, *[0] * (group.size - len(part))]
    slots = [i * group.length + t for i, length in enumerate(part) for t in range(length)]
    assert group.slots.tolist() == slots
    assert group.hidden.shape == (group.size, group.length)
    for hidden, length in zip(group.hidden.tolist(), counts, strict=True):
        assert hidden == [False] * length + [True] * (group.length - length)
    rows = group.rows.view(group.size, group.length).tolist()
    first = 0
    for read, length in zip(rows, part, strict=False):  # empty documents at the end read anything of the group
        assert read[:length] == list(range(first, first + length))
        assert set(read[length:]) <= {first + length - 1}
        first += length
    assert 0 <= group.rows.min() <= group.rows.max() < group.stop - group.start


@settings(max_examples=100, deadline=None)
@given(LENGTHS)
def test_runs_of_equal_lengths_are_not_cut(lengths):
    layout = make_layout(lengths)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    cuts = {group.stop for group in layout.groups}
    for i in range(len(lengths) - 1):
        if lengths[i] == lengths[i + 1]:
            assert ends[i] not in cuts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=7))
def test_groups_are_the_cheapest(lengths):
    """Against all ways to cut."""

    def cost(part):
        size, length = -(-len(part) // SIZE_STEP) * SIZE_STEP, -(-max(part) // LENGTH_STEP) * LENGTH_STEP
        return CALL_COST + size * length**2

    def cheapest(rest):
        return min((cost(rest[:i]) + cheapest(rest[i:]) for i in range(1, len(rest) + 1)), default=0)

    found, first = 0, 0
    for group in make_layout(lengths).groups:
        last, rows = first, group.stop - group.start
        while rows:
            rows -= lengths[last]
            last += 1
        found += cost(lengths[first:last])
        first = last
    runs = len(lengths) != len({*lengths})  # runs of equal lengths are kept whole, even where a cut were cheaper
    assert found == cheapest(lengths) or (runs and found > cheapest(lengths))


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
