"""Both ways of moving columns of distances to their places against loops, with first and second derivatives."""

import pytest
import torch

from tunesmith.base.layout import make_layout, pair
from tunesmith.nn.distances import Looked, Sheared, distances_of

CPU = torch.device("cpu")
PLACES = {n: torch.arange(n) - torch.arange(n)[:, None] for n in (1, 5)}
GAPS = torch.tensor([[-2, 0, 3], [4, 4, -1]])
PER_BIN = torch.stack([GAPS, GAPS.flip(0) - 1])
CASES = {
    "sheared, 1": (Sheared(1, CPU), PLACES[1]),
    "sheared, 5": (Sheared(5, CPU), PLACES[5]),
    "looked, 5": (Looked(PLACES[5]), PLACES[5]),
    "looked, gaps": (Looked(GAPS), GAPS),
    "looked, per bin": (Looked(PER_BIN), PER_BIN),
}
EVERY = pytest.mark.parametrize(("distances", "places"), CASES.values(), ids=CASES)


def draw(*shape):
    stream = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=stream, dtype=torch.float64, requires_grad=True)


def cells(places):
    """Bin, query, key and distance of all cells."""
    places = places if places.ndim == 3 else places.expand(2, -1, -1)
    return [
        (g, i, j, int(places[g, i, j]))
        for g in range(2)
        for i in range(places.shape[1])
        for j in range(places.shape[2])
    ]


@EVERY
def test_every_distance_has_a_column(distances, places):
    assert distances.values.tolist() == list(range(int(places.min()), int(places.max()) + 1))


@EVERY
def test_values(distances, places):
    count, (queries, keys) = len(distances.values), places.shape[-2:]
    first = int(distances.values[0])
    rows, x, y = draw(3, count), draw(2, 3, queries, count), draw(2, 3, keys, count)
    weights = draw(2, 3, queries, keys)
    table = distances.table(rows).expand(2, 3, queries, keys)
    by_query, by_key, sums = distances.by_query(x), distances.by_key(y), distances.sums(weights)
    assert by_query.shape == by_key.shape == (2, 3, queries, keys)
    wanted = torch.zeros_like(sums)
    for g, i, j, distance in cells(places):
        column = distance - first
        assert torch.equal(table[g, :, i, j], rows[:, column])
        assert torch.equal(by_query[g, :, i, j], x[g, :, i, column])
        assert torch.equal(by_key[g, :, i, j], y[g, :, j, column])
        wanted[g, :, i, column] += weights[g, :, i, j]
    torch.testing.assert_close(sums, wanted, rtol=0, atol=1e-15)


@EVERY
@pytest.mark.parametrize("way", ["table", "by_query", "by_key", "sums"])
def test_gradients(way, distances, places):
    count, (queries, keys) = len(distances.values), places.shape[-2:]
    shapes = {"table": (3, count), "by_query": (2, 3, queries, count), "by_key": (2, 3, keys, count)}
    x = draw(*shapes.get(way, (2, 3, queries, keys)))
    move = getattr(distances, way)
    assert torch.autograd.gradcheck(move, x)
    assert torch.autograd.gradgradcheck(lambda x: move(x) ** 2, x)


@pytest.mark.parametrize("way", ["by_query", "by_key"])
def test_inputs_that_are_views_are_read_right(way):
    x = draw(2, 3, 9, 5).transpose(2, 3)
    torch.testing.assert_close(getattr(Sheared(5, CPU), way)(x), getattr(Looked(PLACES[5]), way)(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_types_stay(dtype):
    x, weights = torch.randn(2, 3, 5, 9).to(dtype), torch.randn(2, 3, 5, 5).to(dtype)
    for distances in (Sheared(5, CPU), Looked(PLACES[5])):
        found = [distances.by_query(x), distances.by_key(x), distances.sums(weights), distances.table(x[0, :, 0])]
        assert {part.dtype for part in found} == {dtype}


def test_plain_self_attention_is_sheared():
    layout = make_layout([16, 16])
    assert isinstance(distances_of(layout.groups[0], CPU), Sheared)
    some = pair(layout, layout, rows=torch.tensor([3, 20]))
    assert isinstance(distances_of(some.groups[0], CPU), Looked)
