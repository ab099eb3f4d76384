"""One transformer layer, post-norm as in BERT."""

import torch

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.attention import Attention
from tunesmith.nn.dropout import dropout_add
from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.norm import NormConfig


class Block(torch.nn.Module):
    """x = norm(x + attention(x)); x = norm(x + feedforward(x)).

    Paper: Attention Is All You Need (arXiv:1706.03762), section 3.1.
    """

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        d_ff: int,
        feedforward: FeedForwardConfig,
        norm: NormConfig,
        dropout: float,
        attention_dropout: float,
    ):
        super().__init__()
        self.dropout = dropout
        self.attention = Attention(d_model=d_model, num_heads=num_heads, dropout=attention_dropout)
        self.attention_norm = norm.build(width=d_model)
        self.feedforward = feedforward.build(d_model=d_model, d_ff=d_ff)
        self.feedforward_norm = norm.build(width=d_model)

    def forward(self, x: Float[Tensor, "N D"], layout: Layout, *, rows: Tensor | None = None) -> Float[Tensor, "M D"]:
        """Run the layer; ``rows`` limits its output (and its per-token work) to these packed rows."""
        mixed = self.attention(x, layout, rows=rows)
        x = x if rows is None else x.index_select(0, rows)
        x = self.attention_norm(dropout_add(mixed, x, self.dropout, layout.noise))
        return self.feedforward_norm(dropout_add(self.feedforward(x), x, self.dropout, layout.noise))
