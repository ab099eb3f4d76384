"""Scaled dot-product attention over packed documents, group by group, with a hand-written backward pass.

Paper: Attention Is All You Need (arXiv:1706.03762), equation 1: softmax(Q K^T / sqrt(K)) V, inside each document.

One autograd node serves all groups: in bf16 with heads of 32 on a CPU it is several times faster than
``scaled_dot_product_attention``, and padded rows of a group never reach the result or a gradient.
"""

from dataclasses import dataclass

import torch

from tunesmith.base.layout import Group, Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.dropout import draw


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
    """What the backward pass of one group needs; tensors are (G * H, T, ...).

    ``used`` are the weights after dropout.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor
    used: Tensor
    output: Tensor


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, layout, num_heads, scale, dropout):
        packed = torch.cat([query, key, value], 1)  # one gather and one transposition for all three
        output = torch.empty_like(query)
        kept = []
        for group in layout.groups:
            q, k, v = _spread(packed, group, num_heads, parts=3)
            q.mul_(scale)
            scores = torch.bmm(q, k.transpose(1, 2))
            if group.bias is not None:
                per_head = scores.view(group.size, num_heads, group.length, group.length)
                per_head.add_(group.bias.to(scores.dtype)[:, None])
            # in fp32 and back: exact sums, and twice as fast as bf16 where T is no multiple of 32
            weights = torch.softmax(scores, -1, dtype=_wide(scores.dtype)).to(scores.dtype)
            factors = draw(weights.shape, dropout, layout.noise, weights.dtype)
            used = weights if factors is None else factors.mul_(weights)
            result = torch.bmm(used, v)
            _gather(result[None], group, num_heads, into=output)
            kept.append(_Kept(q, k, v, weights, used, result))
        output[layout.num_tokens :].zero_()
        ctx.kept, ctx.layout, ctx.num_heads, ctx.scale = kept, layout, num_heads, scale
        return output

    @staticmethod
    def backward(ctx, *grads):
        grad = grads[0].contiguous()
        need_query, need_key, need_value = ctx.needs_input_grad[:3]
        width = grad.shape[1]
        found = grad.new_empty(len(grad), 3 * width)
        for group, kept in zip(ctx.layout.groups, ctx.kept, strict=True):
            (grad_output,) = _spread(grad, group, ctx.num_heads, parts=1, zeros=True)
            # sum_j P_ij dP_ij = dO_i . O_i, with dropout too: no (T, T) reduction is needed
            inner = (grad_output * kept.output).sum(-1, keepdim=True)
            parts = grad_output.new_empty(3, *grad_output.shape)
            if need_value:
                torch.bmm(kept.used.transpose(1, 2), grad_output, out=parts[2])
            if need_query or need_key:
                grad_scores = torch.bmm(grad_output, kept.value.transpose(1, 2)).mul_(kept.used)
                grad_scores.addcmul_(kept.weights, inner, value=-1)
                torch.bmm(grad_scores, kept.key, out=parts[0]).mul_(ctx.scale)
                torch.bmm(grad_scores.transpose(1, 2), kept.query, out=parts[1])
            _gather(parts, group, ctx.num_heads, into=found)
        found[ctx.layout.num_tokens :].zero_()
        grad_query, grad_key, grad_value = found.split(width, 1)
        return (
            grad_query if need_query else None,
            grad_key if need_key else None,
            grad_value if need_value else None,
            None,
            None,
            None,
            None,
        )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _spread(x: Tensor, group: Group, num_heads: int, *, parts: int, zeros: bool = False) -> tuple[Tensor, ...]:
    """Packed rows of a group, ``parts`` side by side, as (G * H, T, K) each: fresh tensors.

    Padding is zero, or any of the rows.
    """
    rows = x[group.start : group.stop]
    if group.slots is not None and group.rows is not None:
        if zeros:
            rows = x.new_zeros(group.size * group.length, x.shape[1]).index_copy_(0, group.slots, rows)
        else:
            rows = rows.index_select(0, group.rows)
    heads = rows.view(group.size, group.length, parts, num_heads, -1).permute(2, 0, 3, 1, 4)
    return heads.clone(memory_format=torch.contiguous_format).flatten(1, 2).unbind()


def _gather(x: Tensor, group: Group, num_heads: int, *, into: Tensor) -> None:
    """Write (parts, G * H, T, K) into the group's packed rows, the parts side by side, padding left out."""
    heads = x.view(len(x), group.size, num_heads, group.length, -1)
    rows = heads.permute(1, 3, 0, 2, 4).reshape(group.size * group.length, -1)
    target = into[group.start : group.stop]
    if group.slots is None:
        target.copy_(rows)
    else:
        torch.index_select(rows, 0, group.slots, out=target)
