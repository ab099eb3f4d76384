"""Scaled dot-product attention over packed documents, group by group, with a hand-written backward pass.

Paper: Attention Is All You Need (arXiv:1706.03762), equation 1: softmax(Q K^T / sqrt(K)) V, inside each document.

Without relative positions one autograd node serves all groups: in bf16 with heads of 32 on a CPU it is several times
faster than ``scaled_dot_product_attention``, and padded rows of a group never reach the result or a gradient. With
them, each group is a few nodes, so that the encoding can add to scores and values by ordinary operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F

from tunesmith.base.layout import EVERYWHERE, Group, Layout, Pairing, Reach, Side
from tunesmith.base.machine import cpu_flags
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.distances import Distances, distances_of
from tunesmith.nn.dropout import draw_kept

LONG = 1024
"""Length of bins from which on torch's own attention is faster in fp32 on a CPU."""
LONG_AMX = 256
"""The same in bf16 where the CPU has AMX: three times as fast at 512. Without AMX it never was in bf16."""

CAUSAL = Reach(None, 0)


@runtime_checkable  # beartype looks, under pytest
class Relative(Protocol):
    """What a position encoding adds to attention inside one group."""

    def scores(
        self, query: Float[Tensor, "G H T K"], key: Float[Tensor, "G H S K"], distances: Distances, group: Group
    ) -> Float[Tensor, "..."] | None:
        """Added to the scaled scores; broadcasts to (G, H, T, S)."""
        ...

    def values(self, weights: Float[Tensor, "G H T S"], distances: Distances) -> Float[Tensor, "G H T K"] | None:
        """Added to the weighted sum of the values."""
        ...


def attend(
    query: Float[Tensor, "M D"],
    key: Float[Tensor, "N E"],
    value: Float[Tensor, "N E"],
    layout: Layout | Pairing,
    *,
    num_heads: int,
    scale: float,
    num_kv_heads: int | None = None,
    reach: Reach = EVERYWHERE,
    dropout: float = 0.0,
    relative: Relative | None = None,
) -> Float[Tensor, "M D"]:
    """Attention of each query over the keys of its own document.

    Args:
        query: Packed queries, all heads side by side.
        key: Packed keys.
        value: Packed values.
        layout: Where the documents lie.
        num_heads: Number of heads, H.
        scale: Factor of the scores, usually 1 / sqrt(K).
        num_kv_heads: Heads of keys and values, each shared by H / num_kv_heads queries; H by default.
        reach: How far a token sees.
        dropout: Rate at which attention weights fall.
        relative: What relative positions add.
    """
    if num_kv_heads is not None and num_kv_heads != num_heads:
        key, value = (_repeat(x, num_kv_heads, num_heads // num_kv_heads) for x in (key, value))
    if relative is None and not takes_sdpa(query, layout, dropout=dropout):
        asks = isinstance(layout, Pairing)
        packed = torch.cat([key, value] if asks else [query, key, value], 1)  # one gather for all
        return _Attend.apply(packed, query if asks else None, layout, reach, num_heads, scale, dropout)
    found = []
    for group in layout.groups:
        q = _ToBins.apply(query, group.queries, group.size, num_heads)
        k, v = (_ToBins.apply(x, group.keys, group.size, num_heads) for x in (key, value))
        if relative is None and reach == CAUSAL and group.bias is None and group.queries is group.keys:
            found.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale))  # half the work, no mask
            continue
        bias = group.bias_within(reach, query.device)
        if relative is None:
            mask = None if bias is None else bias[:, None].to(q.dtype)
            found.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale))
            continue
        distances = distances_of(group, query.device)
        found.append(attend_bins(q, k, v, bias, scale, dropout, layout.noise, relative, distances, group))
    real = layout.num_tokens if isinstance(layout, Layout) else layout.num_queries
    return _FromBins.apply([group.queries for group in layout.groups], len(query), real, *found)


def attend_packed(
    packed: Float[Tensor, "N ..."],
    layout: Layout | Pairing,
    *,
    num_heads: int,
    scale: float,
    query: Float[Tensor, "M D"] | None = None,
    reach: Reach = EVERYWHERE,
    dropout: float = 0.0,
) -> Float[Tensor, "M D"]:
    """The same for queries, keys and values side by side, as one product gives them.

    Args:
        packed: Packed queries, keys and values; with a pairing keys and values.
        layout: Where the documents lie.
        num_heads: Number of heads, H, of all three.
        scale: Factor of the scores.
        query: Packed queries of a pairing.
        reach: How far a token sees.
        dropout: Rate at which attention weights fall.
    """
    if takes_sdpa(packed, layout, dropout=dropout):
        *own, key, value = packed.chunk(3 if query is None else 2, 1)
        asked = own[0] if query is None else query
        return attend(asked, key, value, layout, num_heads=num_heads, scale=scale, reach=reach, dropout=dropout)
    return _Attend.apply(packed, query, layout, reach, num_heads, scale, dropout)


def takes_sdpa(x: Float[Tensor, "M ..."], layout: Layout | Pairing, *, dropout: float) -> bool:
    """Whether torch's own attention is the better path: a table by measurement (docs/benchmarks/attention.md).

    It has no keyed dropout and no documents, so it serves bins with a mask, without dropout.
    """
    if dropout and layout.noise is not None:
        return False
    if x.device.type == "cuda":
        return True
    longest = max((group.keys.length for group in layout.groups), default=0)
    if x.dtype == torch.bfloat16 and "amx_bf16" in cpu_flags():
        return longest >= LONG_AMX
    return x.dtype == torch.float32 and longest >= LONG


def attend_bins(
    query: Float[Tensor, "G H T K"],
    key: Float[Tensor, "G H S K"],
    value: Float[Tensor, "G H S K"],
    bias: Float[Tensor, "G #T S"] | None,
    scale: float,
    dropout: float,
    noise: torch.Generator | None,
    relative: Relative,
    distances: Distances,
    group: Group,
) -> Float[Tensor, "G H T K"]:
    """Attention inside the bins of one group, with relative positions."""
    added = relative.scores(query, key, distances, group)
    mixed, weights = _Mix.apply(query, key, value, added, bias, scale, dropout, noise)
    more = relative.values(weights, distances)
    return mixed if more is None else mixed + more


def spread_heads(x: Float[Tensor, "N D"], side: Side, size: int, num_heads: int) -> Float[Tensor, "G H T K"]:
    """Packed rows to the bins of a group; padding holds any of the rows."""
    return _spread(x, side, size, num_heads, parts=1)[0].view(size, num_heads, side.length, -1)


def gather_heads(x: Float[Tensor, "G H T K"], side: Side) -> Float[Tensor, "N D"]:
    """The way back, padding left out."""
    rows = x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3])
    return rows if side.slots is None else rows.index_select(0, side.slots)


def _repeat(x: Tensor, heads: int, times: int) -> Tensor:
    """Each head ``times`` times, side by side."""
    return x.view(len(x), heads, 1, -1).expand(-1, -1, times, -1).reshape(len(x), -1)


@dataclass(frozen=True)
class _Kept:
    """What the backward pass of one group needs; tensors are (G * H, T, ...).

    ``used`` are the weights that dropout has left, and ``value`` holds its factor.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor
    used: Tensor
    output: Tensor
    factor: float


class _Attend(torch.autograd.Function):
    """Without a query of its own, ``packed`` holds queries, keys and values side by side; else keys and values."""

    @staticmethod
    def forward(ctx, packed, query, layout, reach, num_heads, scale, dropout):
        width = packed.shape[1] // 3 if query is None else query.shape[1]
        output = packed.new_empty(len(packed) if query is None else len(query), width)
        kept = []
        for group in layout.groups:
            if query is None:
                q, k, v = _spread(packed, group.keys, group.size, num_heads, parts=3)
            else:
                (q,) = _spread(query, group.queries, group.size, num_heads, parts=1)
                k, v = _spread(packed, group.keys, group.size, num_heads, parts=2)
            q.mul_(scale)
            scores = torch.bmm(q, k.transpose(1, 2))
            bias = group.bias_within(reach, scores.device)
            if bias is not None:
                per_head = scores.view(group.size, num_heads, *scores.shape[1:])
                per_head.add_(bias.to(scores.dtype)[:, None])
            weights = _softmax(scores)
            kept_, factor = draw_kept(weights.shape, dropout, layout.noise) or (None, 1.0)
            used = weights if kept_ is None else kept_.to(weights.dtype).mul_(weights)
            if factor != 1.0:
                v.mul_(factor)  # dropout's scale, where there are the fewest numbers
            result = torch.bmm(used, v)
            _gather(result[None], group.queries, group.size, num_heads, into=output)
            kept.append(_Kept(q, k, v, weights, used, result, factor))
        output[layout.num_tokens if query is None else layout.num_queries :].zero_()
        ctx.kept, ctx.layout, ctx.num_heads, ctx.scale = kept, layout, num_heads, scale
        ctx.packed, ctx.together = packed.shape, query is None
        return output

    @staticmethod
    def backward(ctx, *grads):
        grad = grads[0].contiguous()
        need_packed, need_query = ctx.needs_input_grad[:2]
        heads, layout, together = ctx.num_heads, ctx.layout, ctx.together
        found = grad.new_empty(ctx.packed)
        found_query = None if together else torch.zeros_like(grad)
        if not together:
            found.zero_()  # documents without a query are in no group
        for group, kept in zip(layout.groups, ctx.kept, strict=True):
            (grad_output,) = _spread(grad, group.queries, group.size, heads, parts=1, zeros=True)
            # sum_j P_ij dP_ij = dO_i . O_i, with dropout too: no (T, T) reduction is needed
            inner = (grad_output * kept.output).sum(-1, keepdim=True)
            grad_scores = torch.bmm(grad_output, kept.value.transpose(1, 2)).mul_(kept.used)
            grad_scores.addcmul_(kept.weights, inner, value=-1)
            if found_query is not None and need_query:
                grad_query = torch.bmm(grad_scores, kept.key).mul_(ctx.scale)
                _gather(grad_query[None], group.queries, group.size, heads, into=found_query)
            if not need_packed:
                continue
            parts = kept.key.new_empty(3 if together else 2, *kept.key.shape)
            torch.bmm(kept.used.transpose(1, 2), grad_output, out=parts[-1])
            if kept.factor != 1.0:
                parts[-1].mul_(kept.factor)
            torch.bmm(grad_scores.transpose(1, 2), kept.query, out=parts[-2])
            if together:
                torch.bmm(grad_scores, kept.key, out=parts[0]).mul_(ctx.scale)
            _gather(parts, group.keys, group.size, heads, into=found)
        if together:
            found[layout.num_tokens :].zero_()
        return found if need_packed else None, found_query if need_query else None, *(None,) * 5


class _Mix(torch.autograd.Function):
    """W = dropout(softmax(scale Q K^T + added + bias)) gives (W V, W); keeps the softmax and a byte a decision."""

    @staticmethod
    def forward(ctx, query, key, value, added, bias, scale, dropout, noise):
        size, heads = query.shape[:2]
        scaled = (query * scale).flatten(0, 1)
        scores = torch.bmm(scaled, key.flatten(0, 1).transpose(1, 2)).view(size, heads, query.shape[2], -1)
        if added is not None:
            scores += added
        if bias is not None:
            scores += bias.to(scores.dtype)[:, None]
        weights = _softmax(scores)
        del scores
        kept, factor = draw_kept(weights.shape, dropout, noise) or (None, 1.0)
        used = _dropped(weights, kept, factor)
        mixed = torch.bmm(used.flatten(0, 1), value.flatten(0, 1)).view(*weights.shape[:3], -1)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.scale, ctx.factor, ctx.added = scale, factor, None if added is None else added.shape
        return mixed, used.view_as(used)

    @staticmethod
    def backward(ctx, *grads):
        query, key, value, weights, kept = ctx.saved_tensors
        used = _dropped(weights, kept, ctx.factor)
        grad_value, grad = None, grads[1]
        if grads[0] is not None:
            flat = grads[0].flatten(0, 1)
            grad_value = torch.bmm(used.flatten(0, 1).transpose(1, 2), flat).view(value.shape)
            more = torch.bmm(flat, value.flatten(0, 1).transpose(1, 2)).view(weights.shape)
            grad = more if grad is None else grad + more
        if grad is None:
            return (None,) * 8
        grad = grad * used
        del used
        grad.addcmul_(weights, grad.sum(-1, keepdim=True), value=-1)
        flat = grad.flatten(0, 1)
        grad_query = torch.bmm(flat, key.flatten(0, 1)).view(query.shape).mul_(ctx.scale)
        grad_key = torch.bmm(flat.transpose(1, 2), query.flatten(0, 1)).view(key.shape).mul_(ctx.scale)
        grad_added = None
        if ctx.added is not None and ctx.needs_input_grad[3]:
            grad_added = grad.sum_to_size(ctx.added)
        return grad_query, grad_key, grad_value, grad_added, None, None, None, None


def _dropped(weights: Tensor, kept: Tensor | None, factor: float) -> Tensor:
    return weights if kept is None else kept.to(weights.dtype).mul_(factor).mul_(weights)


class _ToBins(torch.autograd.Function):
    """Packed rows (N, H * K) to the bins of a group (G, H, T, K)."""

    @staticmethod
    def forward(ctx, x, side, size, num_heads):
        ctx.place, ctx.rows = (side, size, num_heads), len(x)
        return _spread(x, side, size, num_heads, parts=1)[0].view(size, num_heads, side.length, -1)

    @staticmethod
    def backward(ctx, *grads):
        side, size, num_heads = ctx.place
        grad = grads[0]
        found = grad.new_zeros(ctx.rows, num_heads * grad.shape[-1])
        _gather(grad.flatten(0, 1)[None], side, size, num_heads, into=found)
        return found, None, None, None


class _FromBins(torch.autograd.Function):
    """The bins of all groups, (G, H, T, K) each, back to packed rows (N, H * K); spare rows are zero."""

    @staticmethod
    def forward(ctx, sides, rows, real, *bins):
        ctx.sides, ctx.shapes = sides, [x.shape for x in bins]
        output = bins[0].new_empty(rows, bins[0].shape[1] * bins[0].shape[3])
        for side, x in zip(sides, bins, strict=True):
            _gather(x.flatten(0, 1)[None], side, x.shape[0], x.shape[1], into=output)
        output[real:].zero_()
        return output

    @staticmethod
    def backward(ctx, *grads):
        grad = grads[0].contiguous()
        found = [
            _spread(grad, side, shape[0], shape[1], parts=1, zeros=True)[0].view(shape)
            for side, shape in zip(ctx.sides, ctx.shapes, strict=True)
        ]
        return None, None, None, *found


def _softmax(scores: Tensor) -> Tensor:
    """Softmax with sums in fp32 at least.

    torch's own for bf16 sums in fp32 too, but is fast only for multiples of 32 (twice as fast as by fp32 and back, and
    else two to three times slower).
    """
    if scores.dtype == torch.bfloat16 and scores.shape[-1] % 32 == 0 and scores.device.type == "cpu":
        return torch.softmax(scores, -1)
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return torch.softmax(scores, -1, dtype=wide).to(scores.dtype)


def _spread(x: Tensor, side: Side, size: int, num_heads: int, *, parts: int, zeros: bool = False) -> Sequence[Tensor]:
    """Packed rows of a group, ``parts`` side by side, as (G * H, T, K) each: fresh tensors.

    Padding is zero, or any of the rows.
    """
    rows = x[side.start : side.stop]
    if side.slots is not None and side.rows is not None:
        if zeros:
            rows = x.new_zeros(size * side.length, x.shape[1]).index_copy_(0, side.slots, rows)
        else:
            rows = rows.index_select(0, side.rows)
    heads = rows.view(size, side.length, parts, num_heads, -1).permute(2, 0, 3, 1, 4)
    return heads.clone(memory_format=torch.contiguous_format).flatten(1, 2).unbind()


def _gather(x: Tensor, side: Side, size: int, num_heads: int, *, into: Tensor) -> None:
    """Write (parts, G * H, T, K) into the group's packed rows, the parts side by side, padding left out."""
    heads = x.view(len(x), size, num_heads, side.length, -1)
    rows = heads.permute(1, 3, 0, 2, 4).reshape(size * side.length, -1)
    target = into[side.start : side.stop]
    if side.slots is None:
        target.copy_(rows)
    else:
        torch.index_select(rows, 0, side.slots, out=target)
