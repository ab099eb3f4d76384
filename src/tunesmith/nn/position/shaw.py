"""Relative positions of Shaw: a vector for each clipped distance, added to keys and to values.

Paper: Self-Attention with Relative Position Representations (arXiv:1803.02155), equations 3 to 5.
"""

from typing import Any, ClassVar

import pydantic
import torch

from tunesmith.base.layout import Group
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.distances import Distances
from tunesmith.nn.position import Layer, Position, PositionConfig, PositionSizes


class ShawConfig(PositionConfig):
    """Settings of Shaw's relative positions."""

    max_distance: int = pydantic.Field(
        default=16, ge=1, description="Distance from which on all are the same ($k$ in the paper)."
    )
    values: bool = pydantic.Field(default=True, description="Also add vectors to the values ($a^V$ in the paper).")

    per_layer: ClassVar[bool] = True

    def build(self, sizes: PositionSizes) -> "Shaw":
        """The module of one layer."""
        return Shaw(d_head=sizes.d_head, max_distance=self.max_distance, values=self.values)

    def width(self, length: int) -> int:
        """Every distance, for keys and for values."""
        return (2 if self.values else 1) * (2 * length - 1)


class Shaw(Position):
    """score_ij += scale q_i . aK[j - i]; out_i += sum_j w_ij aV[j - i]; the vectors are shared by the heads."""

    relative = True

    def __init__(self, *, d_head: int, max_distance: int, values: bool = True):
        super().__init__()
        self.max_distance = max_distance
        self.key = torch.nn.Parameter(torch.zeros(2 * max_distance + 1, d_head))
        self.value = torch.nn.Parameter(torch.zeros(2 * max_distance + 1, d_head)) if values else None

    def scores(
        self,
        query: Float[Tensor, "G H T K"],
        key: Float[Tensor, "G H S K"],
        distances: Distances,
        group: Group,
        layer: Layer,
        state: Any,
    ) -> Float[Tensor, "G H T S"]:
        """Of the keys' vectors."""
        return distances.by_query(query @ (self._rows(self.key, distances) * layer.scale).to(query.dtype).T)

    def values(self, weights: Float[Tensor, "G H T S"], distances: Distances) -> Float[Tensor, "G H T K"] | None:
        """Of the values' vectors."""
        if self.value is None:
            return None
        return distances.sums(weights) @ self._rows(self.value, distances).to(weights.dtype)

    def _rows(self, table: Tensor, distances: Distances) -> Float[Tensor, "W K"]:
        limit = self.max_distance
        return torch.nn.functional.embedding(distances.values.clamp(-limit, limit) + limit, table)
