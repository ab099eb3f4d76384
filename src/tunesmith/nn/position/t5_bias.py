"""T5's relative positions: a learned number for each head and bucket of distances, shared by all layers.

Paper: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (arXiv:1910.10683), section
2.1.
"""

import math
from typing import Any

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.layout import Group
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.distances import Distances
from tunesmith.nn.position import Layer, Position, PositionConfig, PositionSizes


class T5BiasConfig(PositionConfig):
    """Settings of T5's bias."""

    num_buckets: int = pydantic.Field(default=32, ge=4, le=4096, multiple_of=2, description="Buckets of distances.")
    max_distance: int = pydantic.Field(
        default=128, ge=2, le=10_000_000, description="Distance from which on all are the same."
    )

    def build(self, sizes: PositionSizes) -> "T5Bias":
        """The module."""
        return T5Bias(
            num_heads=sizes.num_heads,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
            causal=sizes.causal,
        )


class T5Bias(Position):
    """score_ij += table[bucket(j - i), h], after scaling."""

    relative = True

    def __init__(self, *, num_heads: int, num_buckets: int, max_distance: int, causal: bool):
        super().__init__()
        self.max_distance = max_distance
        self.causal = causal
        self.weight = torch.nn.Parameter(torch.zeros(num_buckets, num_heads))

    def scores(
        self,
        query: Float[Tensor, "G H T K"],
        key: Float[Tensor, "G H S K"],
        distances: Distances,
        group: Group,
        layer: Layer,
        state: Any,
    ) -> Float[Tensor, "..."]:
        """The bias."""
        rows = buckets(
            distances.values, num_buckets=len(self.weight), max_distance=self.max_distance, causal=self.causal
        )
        return distances.table(F.embedding(rows, self.weight).T.to(query.dtype))


def buckets(distance: Int[Tensor, "W"], *, num_buckets: int, max_distance: int, causal: bool) -> Int[Tensor, "W"]:
    """Bucket of each distance (key - query): exact up to a half, then logarithmic up to ``max_distance``.

    Bidirectional: the upper half of the buckets is for keys ahead. Causal: keys ahead share bucket 0. The logarithm is
    taken in fp32 as in the reference: exact powers of two sit on the edges.
    """
    start = torch.zeros_like(distance)
    if causal:
        away = (-distance).clamp(min=0)
    else:
        num_buckets //= 2
        start, away = (distance > 0).long() * num_buckets, distance.abs()
    exact = num_buckets // 2
    share = torch.log(away.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = exact + (share * (num_buckets - exact)).long()
    return start + torch.where(away < exact, away, far.clamp(max=num_buckets - 1))
