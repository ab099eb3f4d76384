"""Learned absolute positions: one vector for each position, added to the embedding.

Paper: BERT (arXiv:1810.04805), section 3.
"""

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.position import Position, PositionConfig, PositionSizes


class LearnedConfig(PositionConfig):
    """Settings of learned positions."""

    offset: int = pydantic.Field(
        default=0, ge=0, description="Table row of position 0. RoBERTa's is 2: row 1 belongs to padding."
    )

    def build(self, sizes: PositionSizes) -> "Learned":
        """The module; its table has max_positions + offset rows."""
        return Learned(max_positions=sizes.max_positions, width=sizes.d_embedding, offset=self.offset)


class Learned(Position):
    """x + table[offset + position]."""

    def __init__(self, *, max_positions: int, width: int, offset: int = 0):
        super().__init__()
        self.offset = offset
        self.weight = torch.nn.Parameter(torch.zeros(max_positions + offset, width))

    def embed(self, x: Float[Tensor, "N E"], layout: Layout) -> Float[Tensor, "N E"]:
        """Add the vector of each token's position."""
        return x + F.embedding(layout.positions + self.offset, self.weight)
