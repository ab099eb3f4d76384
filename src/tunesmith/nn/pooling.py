"""One vector for each document: its first or last token's, or the mean of all its tokens'."""

from typing import Literal

import torch

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor

Pooling = Literal["first", "last", "mean"]


def pool(hidden: Float[Tensor, "N D"], layout: Layout, pooling: Pooling) -> Float[Tensor, "B D"]:
    """Pool packed hidden states; sums are taken in fp32 (or fp64 for fp64 input).

    Args:
        hidden: Packed hidden states of all tokens.
        layout: Where the documents lie.
        pooling: ``first`` ([CLS] in BERT), ``last`` or ``mean`` over all tokens, special ones included.
    """
    if pooling == "first":
        return hidden.index_select(0, layout.starts)
    if pooling == "last":
        return hidden.index_select(0, layout.ends)
    hidden = hidden[: layout.num_tokens]
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    counts = torch.tensor(layout.lengths, device=hidden.device)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=hidden.device), counts)
    sums = wide.new_zeros(len(counts), hidden.shape[1]).index_add_(0, owner, wide)
    return sums / counts[:, None]
