"""Relative positions of Transformer-XL and XLNet: projected sinusoids, global biases, and equality of segments.

Paper: Transformer-XL (arXiv:1901.02860), section 3.3; XLNet (arXiv:1906.08237), section 2.5 for segments.
"""

from typing import ClassVar, NamedTuple

import pydantic
import torch

from tunesmith.base.layout import Group, Layout, Side
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.distances import Distances
from tunesmith.nn.linear import Linear
from tunesmith.nn.position import Layer, Position, PositionConfig, PositionSizes
from tunesmith.nn.position.sinusoidal import sinusoids


class TransformerXLConfig(PositionConfig):
    """Settings of Transformer-XL's relative positions."""

    segments: bool = pydantic.Field(default=False, description="Whether scores depend on segments being the same.")

    per_layer: ClassVar[bool] = True

    @property
    def compares_segments(self) -> bool:
        """Where it is set so."""
        return self.segments

    def build(self, sizes: PositionSizes) -> "TransformerXL":
        """The module of one layer."""
        return TransformerXL(
            d_model=sizes.d_model, num_heads=sizes.num_heads, d_head=sizes.d_head, segments=self.segments
        )

    def width(self, length: int) -> int:
        """Every distance, and two segments."""
        return 2 * length - 1 + (2 if self.segments else 0)


class _Segments(NamedTuple):
    queries: Int[Tensor, "M"]
    keys: Int[Tensor, "N"]


class TransformerXL(Position):
    """score_ij += scale (u . k_j + (q_i + v) . W_r PE(i - j) + (q_i + w) . e[segments of i and j differ])."""

    relative = True

    def __init__(self, *, d_model: int, num_heads: int, d_head: int, segments: bool):
        super().__init__()
        self.d_model, self.num_heads = d_model, num_heads
        self.project = Linear(d_model, num_heads * d_head, bias=False)
        self.content_bias = torch.nn.Parameter(torch.zeros(num_heads, d_head))
        self.position_bias = torch.nn.Parameter(torch.zeros(num_heads, d_head))
        self.segment_bias = torch.nn.Parameter(torch.zeros(num_heads, d_head)) if segments else None
        self.segment = torch.nn.Parameter(torch.zeros(2, num_heads, d_head)) if segments else None

    def prepare(self, layout: Layout, like: Tensor) -> _Segments:
        """The segments of queries and keys."""
        return _Segments(layout.segments, layout.segments)

    def take(self, state: _Segments, rows: Int[Tensor, "M"]) -> _Segments:
        """Of some queries only."""
        return _Segments(state.queries[rows], state.keys)

    def scores(
        self,
        query: Float[Tensor, "G H T K"],
        key: Float[Tensor, "G H S K"],
        distances: Distances,
        group: Group,
        layer: Layer,
        state: _Segments,
    ) -> Float[Tensor, "G H T S"]:
        """All three terms."""
        waves = sinusoids(-distances.values, self.d_model, base=10_000.0, halves=True, like=query)
        positions = self.project(waves).view(len(waves), self.num_heads, -1).permute(1, 2, 0)  # (H, K, W)
        found = distances.by_query(self._with(query, self.position_bias) @ positions)
        found = found + (key * self.content_bias.to(key.dtype)[:, None]).sum(-1)[:, :, None]
        if self.segment is not None and self.segment_bias is not None:
            vectors = self.segment.to(query.dtype).permute(1, 2, 0)  # (H, K, 2)
            same, other = (self._with(query, self.segment_bias) @ vectors).unbind(-1)
            if key.shape[2] != group.keys.length:  # a cache's keys: whoever decodes has one segment only
                return (found + same[..., None]) * layer.scale
            ours = _bins(state.queries, group.queries, group.size)
            theirs = _bins(state.keys, group.keys, group.size)
            differ = (ours[:, :, None] != theirs[:, None])[:, None]
            found = found + torch.where(differ, other[..., None], same[..., None])
        return found * layer.scale

    def _with(self, query: Tensor, bias: Tensor) -> Tensor:
        return query + bias.to(query.dtype)[:, None]


def _bins(x: Int[Tensor, "N"], side: Side, size: int) -> Int[Tensor, "G T"]:
    rows = x[side.start : side.stop]
    return (rows if side.rows is None else rows[side.rows]).view(size, side.length)
