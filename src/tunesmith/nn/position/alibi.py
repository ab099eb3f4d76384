"""ALiBi: attention scores fall linearly with distance, steeper in some heads than in others; nothing is learned.

Paper: Train Short, Test Long (arXiv:2108.12409), section 3.
"""

import math
from typing import Any

import pydantic
import torch

from tunesmith.base.layout import Group
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.distances import Distances
from tunesmith.nn.position import Layer, Position, PositionConfig, PositionSizes


class ALiBiConfig(PositionConfig):
    """Settings of ALiBi."""

    step: float | None = pydantic.Field(
        default=None,
        gt=0,
        description="Slopes 2^(-step i) for heads i = 1, 2, ... (step 0.5 gives 2^-0.5 ... 2^-8 for 16 heads); by "
        "default the paper's slopes for the number of heads.",
    )

    def build(self, sizes: PositionSizes) -> "ALiBi":
        """The module."""
        if self.step is None:
            return ALiBi(slopes(sizes.num_heads))
        return ALiBi([2 ** (-self.step * (i + 1)) for i in range(sizes.num_heads)])


class ALiBi(Position):
    """score_ij += -m_h |j - i|, after scaling.

    Args:
        slopes: m of each head.
    """

    relative = True

    def __init__(self, slopes: list[float]):
        super().__init__()
        self.slopes = slopes

    def scores(
        self,
        query: Float[Tensor, "G H T K"],
        key: Float[Tensor, "G H S K"],
        distances: Distances,
        group: Group,
        layer: Layer,
        state: Any,
    ) -> Float[Tensor, "..."]:
        """The penalty."""
        slopes = torch.tensor(self.slopes, dtype=torch.float64, device=query.device)
        return distances.table((-slopes[:, None] * distances.values.abs()).to(query.dtype))


def slopes(num_heads: int) -> list[float]:
    """2^(-8 i / n) for n heads; where n is no power of 2, those of the power below and every other of the next."""
    below = 2 ** math.floor(math.log2(num_heads))
    found = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    return found + [2 ** (-4 * (i + 1) / below) for i in range(0, 2 * (num_heads - below), 2)]
