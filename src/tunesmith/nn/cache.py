"""Keys and values of the tokens that a decoder has seen, so that each new token costs one step.

Sequences stand in rows of their own and begin at place 0: no padding on the left, whatever their lengths.
"""

from dataclasses import dataclass, field

import torch

from tunesmith.base.layout import NEVER, Group, Layout, Reach, side_of
from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.nn.attend import Relative, gather_heads, spread_heads
from tunesmith.nn.distances import Looked

CHUNK = 8
"""Sequences that are read together."""


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
            self.room = _up(max(total), 64)
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
        side = side_of(layout.lengths, length=_up(max(layout.lengths), 32), start=0, device=device)
        layer.cross_key = spread_heads(key, side, size, num_heads).to(_kept_in(key))
        layer.cross_value = spread_heads(value, side, size, num_heads).to(_kept_in(value))
        if self.memory_bias is None:
            ends = torch.tensor(layout.lengths, device=device)[:, None, None]
            self.memory_bias = (torch.arange(side.length, device=device) >= ends).float() * NEVER


class CacheView:
    """How the new tokens of one forward see what the cache holds.

    Sequences are read in chunks of neighbours, each up to the length of its longest: where they are sorted by length,
    as `generate` sorts them, little is read that no sequence holds.

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
        self.width = _up(max(total), 32)
        self.side = side_of(layout.lengths, length=max(layout.lengths), start=0, device=device)
        rows = self.places if self.side.rows is None else self.places[self.side.rows]
        places = rows.view(len(past), self.side.length, 1)
        size = CHUNK if len(past) >= 2 * CHUNK else len(past)
        starts = range(0, len(past), size)
        self.chunks = [
            _Chunk(slice(i, i + size), _up(max(total[i : i + size]), 32), places[i : i + size]) for i in starts
        ]
        self._rows: Tensor | None = None

    def write(self, cache: Cache, layer: LayerCache, key: Tensor, value: Tensor, num_heads: int) -> None:
        """Put the keys and values of the new tokens (N, H * K) where they belong."""
        for name, x in (("key", key), ("value", value)):
            heads = x[: self.layout.num_tokens].view(self.layout.num_tokens * num_heads, -1)
            held = getattr(layer, name)
            if held is None or held.shape[2] < max(cache.room, self.width):
                room = max(_up(cache.room, 32), self.width)
                size = len(self.layout.lengths)
                grown = torch.zeros(size, num_heads, room, heads.shape[-1], dtype=_kept_in(x), device=x.device)
                if held is not None:
                    grown[:, :, : held.shape[2]] = held
                setattr(layer, name, held := grown)
                self._rows = None
            rows = self._rows
            if rows is None:
                places = (torch.arange(num_heads, device=x.device) * held.shape[2] + self.places[:, None]).flatten()
                first = self.layout.owners * (num_heads * held.shape[2])
                self._rows = rows = places + first.repeat_interleave(num_heads)
            held.view(-1, heads.shape[-1]).index_copy_(0, rows, heads.to(held.dtype))

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
        q = spread_heads(query, self.side, len(self.layout.lengths), num_heads).to(layer.key.dtype)  # (B, H, T, K)
        found = []
        for chunk in self.chunks:
            key, value = (x[chunk.rows, :, : chunk.width] for x in (layer.key, layer.value))
            scores = _scores(q[chunk.rows] * scale, key)
            if relative is None:
                found.append(_mix(scores, value, chunk.bias(reach)))
                continue
            distances, times = Looked(chunk.distance), num_heads // key.shape[1]
            repeated = key if times == 1 else key.repeat_interleave(times, 1)
            group = Group(len(key), self.side, self.side, None, chunk.distance)
            added = relative.scores(q[chunk.rows], repeated, distances, group)
            weights = _softmax(scores if added is None else scores + added, chunk.bias(reach))
            more = relative.values(weights, distances)
            mixed = _weigh(weights, value)
            found.append(mixed if more is None else mixed + more)
        mixed = found[0] if len(found) == 1 else torch.cat(found)
        return gather_heads(mixed, self.side).to(query.dtype)

    def attend_memory(
        self, query: Float[Tensor, "N D"], cache: Cache, layer: LayerCache, *, num_heads: int, scale: float
    ) -> Float[Tensor, "N D"]:
        """Attention of the new tokens over the memory."""
        assert layer.cross_key is not None
        assert layer.cross_value is not None
        assert cache.memory_bias is not None
        q = spread_heads(query, self.side, len(self.layout.lengths), num_heads).to(layer.cross_key.dtype)
        mixed = _mix(_scores(q * scale, layer.cross_key), layer.cross_value, cache.memory_bias)
        return gather_heads(mixed, self.side).to(query.dtype)


class _Chunk:
    """Neighbouring sequences.

    Args:
        rows: Which.
        width: Tokens that are read of each.
        places: Places of their new tokens, (B, T, 1).
    """

    def __init__(self, rows: slice, width: int, places: Int[Tensor, "B T 1"]):
        self.rows, self.width = rows, width
        self.distance = torch.arange(width, device=places.device) - places
        self._biases: dict[Reach, Tensor] = {}

    def bias(self, reach: Reach) -> Float[Tensor, "B T S"]:
        """What is added to scores: each token sees itself and what is before it, as far as it reaches."""
        if reach not in self._biases:
            hidden = reach.hides(self.distance)
            assert hidden is not None, "a cache is for causal attention"
            self._biases[reach] = torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, NEVER)
        return self._biases[reach]


def _scores(query: Float[Tensor, "B H T K"], key: Float[Tensor, "B G S K"]) -> Float[Tensor, "B H T S"]:
    """The queries of one key head stand together: keys are neither repeated nor copied."""
    size, heads, length, width = query.shape
    flat = query.reshape(size * key.shape[1], -1, width)
    return torch.bmm(flat, key.flatten(0, 1).transpose(1, 2)).view(size, heads, length, -1)


def _softmax(scores: Float[Tensor, "B H T S"], bias: Float[Tensor, "B #T S"]) -> Float[Tensor, "B H T S"]:
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return torch.softmax(scores + bias[:, None].to(scores.dtype), -1, dtype=wide).to(scores.dtype)


def _weigh(weights: Float[Tensor, "B H T S"], value: Float[Tensor, "B G S K"]) -> Float[Tensor, "B H T K"]:
    size, heads, length, width = weights.shape
    flat = weights.reshape(size * value.shape[1], -1, width)
    return torch.bmm(flat, value.flatten(0, 1)).view(size, heads, length, -1)


def _mix(scores: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return _weigh(_softmax(scores, bias), value)


def _kept_in(x: Tensor) -> torch.dtype:
    """fp32 in place of bf16 on a CPU: products of one row are three times as fast there, for twice the memory."""
    return torch.float32 if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x.dtype


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
