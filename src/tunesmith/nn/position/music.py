"""Relative positions of Music Transformer: a vector for each distance and head, found by skewing in O(T D) memory.

Paper: Music Transformer (arXiv:1809.04281), section 3.4. Differs: also for keys ahead, so that encoders may use it.
"""

from typing import Any, ClassVar

import pydantic
import torch

from tunesmith.base.layout import Group
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.distances import Distances
from tunesmith.nn.position import Layer, Position, PositionConfig, PositionSizes


class MusicConfig(PositionConfig):
    """Settings of Music Transformer's relative positions."""

    max_distance: int | None = pydantic.Field(
        default=None, ge=1, description="Distance from which on all are the same; the longest document by default."
    )

    per_layer: ClassVar[bool] = True

    def build(self, sizes: PositionSizes) -> "Music":
        """The module of one layer."""
        return Music(
            num_heads=sizes.num_heads,
            d_head=sizes.d_head,
            max_distance=self.max_distance or max(1, sizes.max_positions - 1),
            causal=sizes.causal,
        )

    def width(self, length: int) -> int:
        """Every distance."""
        return 2 * length - 1


class Music(Position):
    """score_ij += scale q_i . E[h, j - i]; a causal one has no rows for keys ahead."""

    relative = True

    def __init__(self, *, num_heads: int, d_head: int, max_distance: int, causal: bool):
        super().__init__()
        self.max_distance = max_distance
        self.ahead = 0 if causal else max_distance
        self.table = torch.nn.Parameter(torch.zeros(num_heads, max_distance + 1 + self.ahead, d_head))

    def scores(
        self,
        query: Float[Tensor, "G H T K"],
        key: Float[Tensor, "G H S K"],
        distances: Distances,
        group: Group,
        layer: Layer,
        state: Any,
    ) -> Float[Tensor, "G H T S"]:
        """Of the vectors of all distances."""
        rows = distances.values.clamp(-self.max_distance, self.ahead) + self.max_distance
        table = (self.table[:, rows] * layer.scale).to(query.dtype)  # (H, W, K)
        return distances.by_query(query @ table.transpose(1, 2))
