"""Multi-head attention: four projections, each a site of its own, around `attend`."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from tunesmith.base.layout import EVERYWHERE, Group, Layout, Pairing, Reach
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.attend import attend, attend_packed
from tunesmith.nn.cache import Cache, CacheView, LayerCache
from tunesmith.nn.distances import Distances
from tunesmith.nn.linear import Linear, side_by_side
from tunesmith.nn.norm import NormConfig
from tunesmith.nn.position import Layer, OwnMaps, Position

Biases = Literal["all", "none", "qkv"]
Ahead = Literal["as the layer", "all"]


@dataclass(frozen=True)
class Memory:
    """What cross-attention reads.

    Attributes:
        hidden: Packed hidden states of the encoder; not read where a cache holds their keys and values.
        layout: Where its documents lie, one for each of the queries'.
        pairing: Which queries go with which of them; None where a cache knows it.
    """

    hidden: Float[Tensor, "N D"]
    layout: Layout
    pairing: Pairing | None


@dataclass(frozen=True)
class Rows:
    """Queries of some packed rows only.

    Attributes:
        index: The rows.
        pairing: What each of them sees.
        hidden: What they ask with, where it is not those rows' own hidden states: XLNet's query stream.
        ahead: What they see of what stands behind them, as far as the pairing shows it.
    """

    index: Int[Tensor, "M"]
    pairing: Pairing
    hidden: Float[Tensor, "M D"] | None = None
    ahead: Ahead = "as the layer"

    def of(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "M D"]:
        """The rows' hidden states."""
        return x.index_select(0, self.index) if self.hidden is None else self.hidden


@dataclass(frozen=True)
class Cached:
    """Where self-attention finds and leaves keys and values."""

    cache: Cache
    layer: LayerCache
    view: CacheView


class Attention(torch.nn.Module):
    """Attention with the sites ``query``, ``key``, ``value`` and ``output``.

    Paper: Attention Is All You Need (arXiv:1706.03762), section 3.2.2; grouped queries: GQA (arXiv:2305.13245).

    Args:
        d_model: Width of the model, D.
        num_heads: Number of query heads, H.
        d_head: Width of a head, K.
        num_kv_heads: Heads of keys and values; divides num_heads.
        scale: Factor of the scores.
        dropout: Rate at which attention weights fall in training.
        biases: Which of the four maps have one.
        head_norm: Normalisation of each query and key head, as in Qwen3; none by default.
        reach: How far a token sees.
        position: This layer's own position encoding, if it has one.
        own_projections: Which maps positions have of their own.
    """

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        d_head: int,
        num_kv_heads: int,
        scale: float,
        dropout: float,
        biases: Biases = "all",
        head_norm: NormConfig | None = None,
        reach: Reach = EVERYWHERE,
        position: Position | None = None,
        own_projections: OwnMaps = "none",
    ):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.d_head = num_heads, num_kv_heads, d_head
        self.scale, self.dropout, self.reach = scale, dropout, reach
        inner, kv = num_heads * d_head, num_kv_heads * d_head
        self.query = Linear(d_model, inner, bias=biases != "none")
        self.key = Linear(d_model, kv, bias=biases != "none")
        self.value = Linear(d_model, kv, bias=biases != "none")
        self.output = Linear(inner, d_model, bias=biases == "all")
        self.query_norm = None if head_norm is None else head_norm.build(width=d_head)
        self.key_norm = None if head_norm is None else head_norm.build(width=d_head)
        self.position = position
        self.position_query = Linear(d_model, inner) if own_projections in ("query", "both") else None
        self.position_key = Linear(d_model, kv) if own_projections in ("key", "both") else None

    def forward(
        self,
        x: Float[Tensor, "N D"],
        layout: Layout,
        *,
        position: Position | None = None,
        state: Any = None,
        rows: Rows | None = None,
        memory: Memory | None = None,
        cached: Cached | None = None,
    ) -> Float[Tensor, "M D"]:
        """Attend within each document, or over the memory of each.

        Args:
            x: Packed tokens.
            layout: Where the documents lie.
            position: The stack's position encoding; None in cross-attention.
            state: What it has prepared.
            rows: Packed rows whose output is wanted; all by default.
            memory: What to read in place of x.
            cached: Keys and values of what came before.
        """
        if self.position is not None:
            position = self.position
            state = position.prepare(layout, x)
        asked = None if rows is None else self.query(rows.of(x))
        if memory is not None:
            return self.output(self._cross(self.query(x) if asked is None else asked, memory, cached))
        pairing = layout if rows is None else rows.pairing
        reach = self.reach if rows is None or rows.ahead == "as the layer" else Reach(self.reach.left)
        maps = [self.key, self.value] if rows is not None else [self.query, self.key, self.value]
        packed = None if cached is not None else side_by_side(maps, x)
        if packed is not None and self._takes_packed(position):
            return self.output(self._attend_packed(packed, pairing, asked, reach))
        query, key, value = self._parts(x, packed, asked)
        query, key = self._each_head(query, self.query_norm), self._each_head(key, self.key_norm)
        relative = None
        if position is not None and position.rotary:
            key = self._rotate(key, position, state)
        if position is not None and rows is not None:
            state = position.take(state, rows.index)
        if position is not None and position.rotary:
            query = self._rotate(query, position, state)
        if position is not None and position.relative:
            relative = _Bound(position, self._layer(), state)
        if cached is not None:
            cached.view.write(cached.cache, cached.layer, key, value, self.num_kv_heads)
            if not cached.view.fresh:
                assert rows is None
                mixed = cached.view.attend(
                    query,
                    cached.layer,
                    num_heads=self.num_heads,
                    scale=self.scale,
                    reach=self.reach,
                    relative=relative,
                )
                return self.output(mixed)
        mixed = attend(
            query,
            key,
            value,
            pairing,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            scale=self.scale,
            reach=reach,
            dropout=self.dropout,
            relative=relative,
        )
        return self.output(mixed)

    def _takes_packed(self, position: Position | None) -> bool:
        """Whether queries, keys and values go into attention as their maps give them."""
        plain = position is None or not (position.rotary or position.relative)
        return plain and self.query_norm is None and self.key_norm is None and self.num_kv_heads == self.num_heads

    def _attend_packed(self, packed: Tensor, pairing: Layout | Pairing, query: Tensor | None, reach: Reach) -> Tensor:
        return attend_packed(
            packed,
            pairing,
            query=query,
            num_heads=self.num_heads,
            scale=self.scale,
            reach=reach,
            dropout=self.dropout,
        )

    def _parts(self, x: Tensor, packed: Tensor | None, asked: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of rows, from what one product gave, if one did."""
        if packed is None:
            return self.query(x) if asked is None else asked, self.key(x), self.value(x)
        kv = self.num_kv_heads * self.d_head
        *own, key, value = packed.split([*([] if asked is not None else [self.num_heads * self.d_head]), kv, kv], 1)
        return own[0] if asked is None else asked, key, value

    def _cross(self, query: Tensor, memory: Memory, cached: Cached | None) -> Tensor:
        if cached is None:
            assert memory.pairing is not None
            packed = side_by_side([self.key, self.value], memory.hidden)
            if packed is not None and self._takes_packed(None):
                return self._attend_packed(packed, memory.pairing, query, EVERYWHERE)
            return attend(
                *self._parts(memory.hidden, packed, query),
                memory.pairing,
                num_heads=self.num_heads,
                num_kv_heads=self.num_kv_heads,
                scale=self.scale,
                dropout=self.dropout,
            )
        layer = cached.layer
        if layer.cross_key is None:
            key, value = self.key(memory.hidden), self.value(memory.hidden)
            cached.cache.write_memory(layer, key, value, memory.layout, self.num_kv_heads)
        return cached.view.attend_memory(query, cached.cache, layer, num_heads=self.num_heads, scale=self.scale)

    def _each_head(self, x: Tensor, norm: torch.nn.Module | None) -> Tensor:
        return x if norm is None else norm(x.view(len(x), -1, self.d_head)).flatten(1)

    def _rotate(self, x: Tensor, position: Position, state: Any) -> Tensor:
        return position.rotate(x.view(len(x), -1, self.d_head), state).flatten(1)

    def _layer(self) -> Layer:
        times = self.num_heads // self.num_kv_heads
        to_key = self.key if self.position_key is None else self.position_key
        to_query = self.query if self.position_query is None else self.position_query

        def project_key(x: Tensor) -> Tensor:
            y = to_key(x)
            return y if times == 1 else y.view(len(y), self.num_kv_heads, -1).repeat_interleave(times, 1).flatten(1)

        return Layer(to_query, project_key, self.scale)


class _Bound:
    """A position encoding in one layer."""

    def __init__(self, position: Position, layer: Layer, state: Any):
        self.position, self.layer, self.state = position, layer, state

    def scores(self, query: Tensor, key: Tensor, distances: Distances, group: Group) -> Tensor | None:
        return self.position.scores(query, key, distances, group, self.layer, self.state)

    def values(self, weights: Tensor, distances: Distances) -> Tensor | None:
        return self.position.values(weights, distances)
