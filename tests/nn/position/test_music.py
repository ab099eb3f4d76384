import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tunesmith.base.layout import make_layout
from tunesmith.nn.distances import Sheared
from tunesmith.nn.position import Layer
from tunesmith.nn.position.music import MusicConfig


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_skewing_is_looking_up(causal, limit, sizes, randomised, heads, scores):
    encoding = randomised(MusicConfig(max_distance=limit).build(dataclasses.replace(sizes, causal=causal)))
    query, key = heads
    want = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    longest = limit or 15
    for i in range(16):
        for j in range(16):
            row = max(-longest, min(0 if causal else longest, j - i)) + longest
            want[:, :, i, j] = (query[:, :, i] * encoding.table[:, row]).sum(-1) * 0.3
    torch.testing.assert_close(scores(encoding, query, key, scale=0.3), want)


def test_the_procedure_of_the_paper(sizes, randomised, heads, scores):
    """Section 3.4.1: pad a column on the left, reshape to (L + 1, L), drop the first row; right where j <= i."""
    encoding = randomised(MusicConfig().build(dataclasses.replace(sizes, causal=True)))
    query, key = heads
    product = query @ encoding.table.transpose(1, 2)  # distances -15, ..., 0
    skewed = torch.nn.functional.pad(product, (1, 0)).view(2, 3, 17, 16)[:, :, 1:]
    torch.testing.assert_close(scores(encoding, query, key).tril(), skewed.tril())


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that any operation makes."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, tuple | list) else (found,):
            if isinstance(x, torch.Tensor):
                # a view makes nothing, however large it looks
                self.count = max(self.count, x.untyped_storage().nbytes() // x.element_size())
        return found


def test_no_tensor_has_length_squared_times_width(sizes):
    length, width = 64, 64
    encoding = MusicConfig(max_distance=length).build(dataclasses.replace(sizes, d_head=width))
    query = torch.randn(1, 3, length, width, requires_grad=True)
    layout = make_layout([length])
    distances = Sheared(length, query.device)
    layer = Layer(torch.nn.Identity(), torch.nn.Identity(), 1.0)
    with Largest() as ours:
        found = encoding.scores(query, query, distances, layout.groups[0], layer, None)
        found.sum().backward()
    with Largest() as plain:
        rows = torch.arange(length) - torch.arange(length)[:, None] + length
        wanted = torch.einsum("ghik,hijk->ghij", query, encoding.table[:, rows])
    torch.testing.assert_close(found, wanted)
    assert ours.count <= 3 * (2 * length + 1) * max(length, width)  # products and table; heads times O(T T + T K)
    assert plain.count >= 3 * length * length * width
