"""What the tests of all encodings share: random queries and keys of two full documents, and a layer's scores."""

import pytest
import torch

from tunesmith.base.layout import make_layout
from tunesmith.nn.distances import Looked, Sheared
from tunesmith.nn.position import Layer, PositionSizes

DOCUMENTS, HEADS, LENGTH, WIDTH = 2, 3, 16, 4


@pytest.fixture
def draw():
    """Random numbers in fp64; each test has its own stream."""
    stream = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=stream, dtype=torch.float64)


@pytest.fixture
def heads(draw):
    """Queries and keys, (G, H, T, K)."""
    return draw(DOCUMENTS, HEADS, LENGTH, WIDTH), draw(DOCUMENTS, HEADS, LENGTH, WIDTH)


@pytest.fixture
def sizes():
    """Of the stack that the encodings are in."""
    width = HEADS * WIDTH
    return PositionSizes(
        max_positions=LENGTH, d_embedding=width, d_model=width, num_heads=HEADS, d_head=WIDTH, causal=False
    )


@pytest.fixture
def randomised(draw):
    """A module in fp64 whose weights are random."""

    def make(module):
        for parameter in module.double().parameters():
            parameter.data.copy_(draw(*parameter.shape))
        return module

    return make


@pytest.fixture(params=["sheared", "looked"])
def scores(request):
    """What a layer's attention adds to its scores, by either way of looking distances up."""

    def find(position, query, key, *, to_query=None, to_key=None, scale=1.0, segments=None):
        layout = make_layout([query.shape[2]] * len(query), segments=segments)
        (group,) = layout.groups
        places = group.distances(query.device)
        distances = Sheared(query.shape[2], query.device) if request.param == "sheared" else Looked(places)
        layer = Layer(to_query or torch.nn.Identity(), to_key or torch.nn.Identity(), scale)
        state = position.prepare(layout, query)
        found = position.scores(query, key, distances, group, layer, state)
        return found.expand(*query.shape[:3], key.shape[2])

    return find
