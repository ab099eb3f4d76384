import dataclasses

import pytest
import torch

from tunesmith.nn.position.alibi import ALiBi, ALiBiConfig, slopes

PLACES = torch.arange(16) - torch.arange(16)[:, None]
GOLDEN = {
    1: [-8],
    2: [-4, -8],
    3: [-4, -8, -2],
    6: [-2, -4, -6, -8, -1, -3],
    8: [-1, -2, -3, -4, -5, -6, -7, -8],
    12: [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5],
}


@pytest.mark.parametrize("num_heads", GOLDEN)
def test_slopes_of_the_paper(num_heads):
    assert slopes(num_heads) == pytest.approx([2.0**power for power in GOLDEN[num_heads]])


@pytest.mark.parametrize("num_heads", range(1, 70))
def test_slopes_of_any_number_of_heads(num_heads):
    found = slopes(num_heads)
    assert len(found) == len(set(found)) == num_heads
    assert all(2**-8 <= slope < 1 for slope in found)


def test_a_step_gives_a_geometric_series(sizes):
    """The lectures' m_i = 2^(-i * scale): 16 heads at 0.5 have 2^-0.5, ..., 2^-8, which are also the paper's."""
    found = ALiBiConfig(step=0.5).build(dataclasses.replace(sizes, num_heads=16)).slopes
    assert found == pytest.approx([2 ** (-i / 2) for i in range(1, 17)])
    assert (found[0], found[-1]) == (pytest.approx(2**-0.5), 2**-8)
    assert found == pytest.approx(slopes(16))
    assert ALiBiConfig(step=2).build(sizes).slopes == [1 / 4, 1 / 16, 1 / 64]


def test_both_directions_are_penalised_alike(heads, scores):
    found = scores(ALiBi([0.5, 0.25, 0.125]), *heads, scale=0.3)  # not scaled
    for h, slope in enumerate((0.5, 0.25, 0.125)):
        assert torch.equal(found[0, h], -slope * PLACES.abs().double())
    assert torch.equal(found, found.transpose(2, 3))


def test_causal_scores_may_as_well_grow_with_the_key(heads, scores):
    """-m (i - j) and + m j differ by what is the same for all keys of a query: the softmax does not see it."""
    query, key = heads
    hidden = torch.full((16, 16), -torch.inf, dtype=torch.float64).triu(1)
    content = query @ key.transpose(2, 3) + hidden
    other = torch.tensor([0.5, 0.25, 0.125])[:, None, None] * torch.arange(16)
    torch.testing.assert_close(
        (content + scores(ALiBi([0.5, 0.25, 0.125]), query, key)).softmax(-1), (content + other).softmax(-1)
    )


def test_nothing_is_learned(sizes):
    assert list(ALiBiConfig().build(sizes).parameters()) == []
