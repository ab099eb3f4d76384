"""Scaled dot-product attention over packed documents, group by group, with a hand-written backward pass.

Paper: Attention Is All You Need (arXiv:1706.03762), equation 1: softmax(Q K^T / sqrt(K)) V, inside each document.

One autograd node serves all groups: in bf16 with heads of 32 on a CPU it is several times faster than
``scaled_dot_product_attention``, and padded rows of a group never reach the result or a gradient.
"""

from dataclasses import dataclass

import torch

from tunesmith.base.layout import Group, Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import Dropped, draw


def attend(
    query: Float[Tensor, "N D"],
    key: Float[Tensor, "N D"],
    value: Float[Tensor, "N D"],
    layout: Layout,
    *,
    num_heads: int,
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "N D"]:
    """Attention of each token over the tokens of its own document.

    Args:
        query: Packed queries, all heads side by side.
        key: Packed keys.
        value: Packed values.
        layout: Where the documents lie.
        num_heads: Number of heads, H.
        scale: Factor of the scores, usually 1 / sqrt(K).
        dropout: Rate at which attention weights fall.
    """
    return _Attend.apply(query, key, value, layout, num_heads, scale, dropout)


@dataclass(frozen=True)
class _Kept:
    """What the backward pass of one group needs; tensors are (G * H, T, ...)."""

    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor
    output: Tensor
    dropped: Dropped | None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, layout, num_heads, scale, dropout):  # noqa: D102
        output = torch.empty_like(query)
        kept = []
        for group in layout.groups:
            q = _spread(query, group, num_heads).mul_(scale)
            k = _spread(key, group, num_heads)
            v = _spread(value, group, num_heads)
            scores = torch.bmm(q, k.transpose(1, 2))
            if group.hidden is not None:
                square = scores.view(group.size, num_heads, group.length, group.length)
                # the least number, not -inf: rows of empty documents must not become NaN
                square.masked_fill_(group.hidden[:, None, None, :], torch.finfo(scores.dtype).min)
            # in fp32 and back: exact sums, and twice as fast as bf16 where T is no multiple of 32
            weights = torch.softmax(scores, -1, dtype=_wide(scores.dtype)).to(scores.dtype)
            dropped = draw(weights.shape, dropout, layout.noise)
            if dropped is None:
                result = torch.bmm(weights, v)
            else:
                result = torch.bmm(weights.masked_fill(dropped.mask, 0), v).mul_(dropped.scale)
            output[group.start : group.stop] = _gather(result, group, num_heads)
            kept.append(_Kept(q, k, v, weights, result, dropped))
        output[layout.num_tokens :].zero_()
        ctx.kept, ctx.layout, ctx.num_heads, ctx.scale = kept, layout, num_heads, scale
        return output

    @staticmethod
    def backward(ctx, *grads):  # noqa: D102
        grad = grads[0].contiguous()
        need_query, need_key, need_value = ctx.needs_input_grad[:3]
        grad_query = torch.empty_like(grad) if need_query else None
        grad_key = torch.empty_like(grad) if need_key else None
        grad_value = torch.empty_like(grad) if need_value else None
        for group, kept in zip(ctx.layout.groups, ctx.kept, strict=True):
            rows = slice(group.start, group.stop)
            grad_output = _spread(grad, group, ctx.num_heads)
            weights = kept.weights
            # sum_j P_ij dP_ij = dO_i . O_i, with dropout too: no (T, T) reduction is needed
            inner = (grad_output * kept.output).sum(-1, keepdim=True)
            if kept.dropped is not None:
                grad_output = grad_output.mul_(kept.dropped.scale)
            if grad_value is not None:
                used = weights if kept.dropped is None else weights.masked_fill(kept.dropped.mask, 0)
                grad_value[rows] = _gather(torch.bmm(used.transpose(1, 2), grad_output), group, ctx.num_heads)
            if grad_query is None and grad_key is None:
                continue
            grad_scores = torch.bmm(grad_output, kept.value.transpose(1, 2))
            if kept.dropped is not None:
                grad_scores.masked_fill_(kept.dropped.mask, 0)
            grad_scores.sub_(inner).mul_(weights)
            if grad_query is not None:
                grad_query[rows] = _gather(torch.bmm(grad_scores, kept.key).mul_(ctx.scale), group, ctx.num_heads)
            if grad_key is not None:
                grad_key[rows] = _gather(torch.bmm(grad_scores.transpose(1, 2), kept.query), group, ctx.num_heads)
        for found in (grad_query, grad_key, grad_value):
            if found is not None:
                found[ctx.layout.num_tokens :].zero_()
        return grad_query, grad_key, grad_value, None, None, None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _spread(x: Tensor, group: Group, num_heads: int) -> Tensor:
    """Packed rows of a group as (G * H, T, K), padded with zeros; always a fresh tensor."""
    rows = x[group.start : group.stop]
    if group.slots is not None:
        padded = x.new_zeros(group.size * group.length, x.shape[1])
        rows = padded.index_copy_(0, group.slots, rows)
    heads = rows.view(group.size, group.length, num_heads, -1).transpose(1, 2)
    return heads.clone(memory_format=torch.contiguous_format).view(group.size * num_heads, group.length, -1)


def _gather(x: Tensor, group: Group, num_heads: int) -> Tensor:
    """(G * H, T, K) as packed rows, padding left out."""
    rows = x.view(group.size, num_heads, group.length, -1).transpose(1, 2).reshape(group.size * group.length, -1)
    return rows if group.slots is None else rows.index_select(0, group.slots)
