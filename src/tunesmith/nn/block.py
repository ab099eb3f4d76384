"""One transformer layer: post-norm as in BERT, or pre-norm as in GPT-2; with or without cross-attention."""

from dataclasses import replace
from typing import Any, Literal

import torch

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.attention import Attention, Cached, Memory, Rows
from tunesmith.nn.dropout import dropout_add
from tunesmith.nn.feedforward import FeedForward
from tunesmith.nn.position import Position

Order = Literal["post", "pre"]


class Block(torch.nn.Module):
    """post: x = norm(x + attention(x)), and so on; pre: x = x + attention(norm(x)), and so on.

    Papers: Attention Is All You Need (arXiv:1706.03762), section 3.1; On Layer Normalization in the Transformer
    Architecture (arXiv:2002.04745) for pre-norm.

    Args:
        order: Where the norms stand.
        attention: Self-attention.
        feedforward: Feed-forward layer.
        attention_norm: Its norm; ``Identity`` in ModernBERT's first layer.
        feedforward_norm: The norm of the feed-forward layer.
        dropout: Dropout of each sub-layer's output.
        cross_attention: Attention to the memory, in decoders of encoder-decoders.
        cross_norm: Its norm.
    """

    def __init__(
        self,
        *,
        order: Order,
        attention: Attention,
        feedforward: FeedForward,
        attention_norm: torch.nn.Module,
        feedforward_norm: torch.nn.Module,
        dropout: float,
        cross_attention: Attention | None = None,
        cross_norm: torch.nn.Module | None = None,
    ):
        super().__init__()
        self.order, self.dropout = order, dropout
        self.attention, self.attention_norm = attention, attention_norm
        self.cross_attention, self.cross_norm = cross_attention, cross_norm
        self.feedforward, self.feedforward_norm = feedforward, feedforward_norm

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
        """Run the layer; ``rows`` limits its output (and its per-token work) to these packed rows."""
        pre, noise = self.order == "pre", layout.noise
        asked = rows
        if pre and rows is not None and rows.hidden is not None:
            asked = replace(rows, hidden=self.attention_norm(rows.hidden))
        mixed = self.attention(
            self.attention_norm(x) if pre else x,
            layout,
            position=position,
            state=state,
            rows=asked,
            cached=cached,
        )
        x = dropout_add(mixed, x if rows is None else rows.of(x), self.dropout, noise)
        x = x if pre else self.attention_norm(x)
        if memory is not None and self.cross_attention is not None and self.cross_norm is not None:
            mixed = self.cross_attention(self.cross_norm(x) if pre else x, layout, memory=memory, cached=cached)
            x = dropout_add(mixed, x, self.dropout, noise)
            x = x if pre else self.cross_norm(x)
        mixed = self.feedforward(self.feedforward_norm(x) if pre else x, noise)
        x = dropout_add(mixed, x, self.dropout, noise)
        return x if pre else self.feedforward_norm(x)
