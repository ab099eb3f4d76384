"""Keys and values of the tokens that a decoder has seen, so that each new token costs one step.

Sequences stand in rows of their own and begin at place 0: no padding on the left, whatever their lengths.
"""

from dataclasses import dataclass, field

import torch

from tunesmith.base.layout import NEVER, Group, Layout, Reach, side_of
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.attend import Relative, gather_heads, spread_heads
from tunesmith.nn.distances import Looked


@dataclass
class LayerCache:
    """One layer's keys and values, (B, H, S, K), and those of what cross-attention reads."""

    key: Tensor | None = None
    value: Tensor | None = None
    cross_key: Tensor | None = None
    cross_value: Tensor | None = None


@dataclass
class Cache:
    """All layers of a stack.

    Attributes:
        layers: One for each block.
        lengths: Tokens held of each sequence.
        room: Tokens that each row can hold without growing.
        memory_bias: Added to scores of cross-attention, (B, 1, S): `NEVER` behind the end of each memory.
    """

    layers: list[LayerCache]
    lengths: tuple[int, ...] = ()
    room: int = 0
    memory_bias: Tensor | None = None
    _view: "CacheView | None" = field(default=None, repr=False)

    @staticmethod
    def of(num_layers: int, *, room: int = 0) -> "Cache":
        """An empty cache.

        Args:
            num_layers: Blocks of the stack.
            room: Tokens to make room for at once.
        """
        return Cache([LayerCache() for _ in range(num_layers)], room=room)

    def begin(self, layout: Layout) -> "CacheView":
        """Make room for new tokens and plan how they see what is held; once in each forward."""
        past = layout.past or (0,) * len(layout.lengths)
        assert not self.lengths or past == self.lengths, "the layout's past must be what the cache holds"
        total = tuple(a + b for a, b in zip(past, layout.lengths, strict=True))
        if max(total) > self.room:
            self.room = -(-max(total) // 64) * 64
        self.lengths = total
        self._view = CacheView(layout, past, total)
        return self._view

    def select(self, rows: Int[Tensor, "C"]) -> None:
        """Keep these sequences, in this order; one may stand there several times (beams)."""
        kept = rows.tolist()
        if kept == list(range(len(self.lengths))):
            return
        self.lengths = tuple(self.lengths[i] for i in kept)
        for layer in self.layers:
            for name, held in vars(layer).items():
                if held is not None:
                    setattr(layer, name, held.index_select(0, rows))
        if self.memory_bias is not None:
            self.memory_bias = self.memory_bias.index_select(0, rows)

    def write_memory(self, layer: LayerCache, key: Tensor, value: Tensor, layout: Layout, num_heads: int) -> None:
        """Keep the keys and values (N, H * K) of what cross-attention reads, once for all steps."""
        size, device = len(layout.lengths), key.device
        side = side_of(layout.lengths, length=-(-max(layout.lengths) // 32) * 32, start=0, device=device)
        layer.cross_key = spread_heads(key, side, size, num_heads)
        layer.cross_value = spread_heads(value, side, size, num_heads)
        if self.memory_bias is None:
            ends = torch.tensor(layout.lengths, device=device)[:, None, None]
            self.memory_bias = (torch.arange(side.length, device=device) >= ends).float() * NEVER


class CacheView:
    """How the new tokens of one forward see what the cache holds.

    Args:
        layout: The new tokens.
        past: Tokens held before, of each sequence.
        total: Tokens held after.
    """

    def __init__(self, layout: Layout, past: tuple[int, ...], total: tuple[int, ...]):
        self.layout = layout
        self.fresh = not any(past)
        device = layout.starts.device
        self.places = layout.places + torch.tensor(past, device=device)[layout.owners]  # of each new token
        self.width = -(-max(total) // 32) * 32
        self.side = side_of(layout.lengths, length=max(layout.lengths), start=0, device=device)
        rows = self.places if self.side.rows is None else self.places[self.side.rows]
        self.distance = torch.arange(self.width, device=device) - rows.view(len(past), self.side.length, 1)
        self._biases: dict[Reach, Tensor] = {}

    def bias(self, reach: Reach) -> Float[Tensor, "B T S"]:
        """What is added to scores: each token sees itself and what is before it, as far as it reaches."""
        if reach not in self._biases:
            hidden = reach.hides(self.distance)
            assert hidden is not None, "a cache is for causal attention"
            self._biases[reach] = torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, NEVER)
        return self._biases[reach]

    def write(self, cache: Cache, layer: LayerCache, key: Tensor, value: Tensor, num_heads: int) -> None:
        """Put the keys and values of the new tokens (N, H * K) where they belong."""
        rows = self.layout.num_tokens
        owners = self.layout.owners
        for name, x in (("key", key), ("value", value)):
            heads = x[:rows].view(rows, num_heads, -1)
            held = getattr(layer, name)
            if held is None or held.shape[2] < max(cache.room, self.width):
                room = max(-(-cache.room // 32) * 32, self.width)
                grown = x.new_zeros(len(self.layout.lengths), num_heads, room, heads.shape[-1])
                if held is not None:
                    grown[:, :, : held.shape[2]] = held
                setattr(layer, name, held := grown)
            held[owners, :, self.places] = heads

    def attend(
        self,
        query: Float[Tensor, "N D"],
        layer: LayerCache,
        *,
        num_heads: int,
        scale: float,
        reach: Reach,
        relative: Relative | None,
    ) -> Float[Tensor, "N D"]:
        """Attention of the new tokens over all that is held."""
        assert layer.key is not None
        assert layer.value is not None
        key, value = layer.key[:, :, : self.width], layer.value[:, :, : self.width]
        return self._attend(query, key, value, self.bias(reach), num_heads, scale, relative)

    def attend_memory(
        self, query: Float[Tensor, "N D"], cache: Cache, layer: LayerCache, *, num_heads: int, scale: float
    ) -> Float[Tensor, "N D"]:
        """Attention of the new tokens over the memory."""
        assert layer.cross_key is not None
        assert layer.cross_value is not None
        assert cache.memory_bias is not None
        return self._attend(query, layer.cross_key, layer.cross_value, cache.memory_bias, num_heads, scale, None)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        num_heads: int,
        scale: float,
        relative: Relative | None,
    ) -> Tensor:
        size, kv_heads, width = key.shape[:3]
        q = spread_heads(query, self.side, size, num_heads)  # (B, H, T, K)
        length = self.side.length
        # the queries of one key head stand together: keys are never repeated
        scores = (q * scale).view(size, kv_heads, -1, q.shape[-1]) @ key.transpose(2, 3)
        scores = scores.view(size, num_heads, length, width)
        distances = None
        if relative is not None:
            distances = Looked(self.distance)
            times = num_heads // kv_heads
            repeated = key if times == 1 else key.repeat_interleave(times, 1)
            group = Group(size, self.side, self.side, None, self.distance)
            added = relative.scores(q, repeated, distances, group)
            scores = scores if added is None else scores + added
        wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
        weights = torch.softmax(scores + bias[:, None].to(scores.dtype), -1, dtype=wide).to(scores.dtype)
        mixed = (weights.view(size, kv_heads, -1, width) @ value).view(size, num_heads, length, -1)
        if relative is not None and distances is not None:
            more = relative.values(weights, distances)
            mixed = mixed if more is None else mixed + more
        return gather_heads(mixed, self.side)
