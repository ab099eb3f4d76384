import pytest
import torch

from tunesmith.base.layout import make_layout
from tunesmith.nn.position.learned import LearnedConfig


@pytest.mark.parametrize("offset", [0, 2])
def test_each_position_has_its_row(offset, sizes, randomised, draw):
    encoding = randomised(LearnedConfig(offset=offset).build(sizes))
    assert encoding.weight.shape == (16 + offset, 12)
    x = draw(7, 12)
    found = encoding.embed(x, make_layout([3, 4]))
    for row, position in enumerate((0, 1, 2, 0, 1, 2, 3)):
        assert torch.equal(found[row], x[row] + encoding.weight[position + offset])


def test_only_rows_that_occur_learn(sizes, randomised, draw):
    encoding = randomised(LearnedConfig().build(sizes))
    encoding.embed(draw(5, 12), make_layout([2, 3])).sum().backward()
    assert encoding.weight.grad.sum(1).tolist() == [24.0, 24.0, 12.0] + [0.0] * 13


def test_there_is_nothing_behind_the_table(sizes, draw):
    encoding = LearnedConfig().build(sizes).double()
    with pytest.raises(IndexError):
        encoding.embed(draw(17, 12), make_layout([17]))
