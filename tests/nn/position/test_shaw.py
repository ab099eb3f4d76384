import pytest
import torch

from tunesmith.nn.distances import Looked, Sheared
from tunesmith.nn.position.shaw import ShawConfig

PLACES = torch.arange(16) - torch.arange(16)[:, None]


@pytest.mark.parametrize("limit", [1, 3, 15, 40])
def test_keys_by_loops(limit, sizes, randomised, heads, scores):
    """Equation 4: q_i . aK[clip(j - i)], scaled; one table for all heads."""
    encoding = randomised(ShawConfig(max_distance=limit).build(sizes))
    assert encoding.key.shape == (2 * limit + 1, 4)
    query, key = heads
    want = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    for i in range(16):
        for j in range(16):
            row = max(-limit, min(limit, j - i)) + limit
            want[:, :, i, j] = query[:, :, i] @ encoding.key[row] * 0.3
    torch.testing.assert_close(scores(encoding, query, key, scale=0.3), want)


@pytest.mark.parametrize("distances", [Sheared(16, torch.device("cpu")), Looked(PLACES)], ids=["sheared", "looked"])
@pytest.mark.parametrize("limit", [1, 3, 40])
def test_values_by_loops(limit, distances, sizes, randomised, draw):
    """Equation 3: sum_j w_ij aV[clip(j - i)]."""
    encoding = randomised(ShawConfig(max_distance=limit).build(sizes))
    weights = draw(2, 3, 16, 16)
    want = torch.zeros(2, 3, 16, 4, dtype=torch.float64)
    for i in range(16):
        for j in range(16):
            row = max(-limit, min(limit, j - i)) + limit
            want[:, :, i] += weights[:, :, i, j, None] * encoding.value[row]
    torch.testing.assert_close(encoding.values(weights, distances), want)


def test_values_can_be_left_out(sizes, draw):
    encoding = ShawConfig(values=False).build(sizes)
    assert [name for name, _ in encoding.named_parameters()] == ["key"]
    assert encoding.values(draw(2, 3, 16, 16), Looked(PLACES)) is None
