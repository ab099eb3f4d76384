"""Multi-head attention: four projections, each a site of its own, around `attend`."""

import torch

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.attend import attend
from tunesmith.nn.linear import Linear


class Attention(torch.nn.Module):
    """Self-attention with the sites ``query``, ``key``, ``value`` and ``output``.

    Paper: Attention Is All You Need (arXiv:1706.03762), section 3.2.2.

    Args:
        d_model: Width of the model, D.
        num_heads: Number of heads, H; divides d_model.
        dropout: Rate at which attention weights fall in training.
    """

    def __init__(self, *, d_model: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (d_model // num_heads) ** -0.5
        self.dropout = dropout
        self.query = Linear(d_model, d_model)
        self.key = Linear(d_model, d_model)
        self.value = Linear(d_model, d_model)
        self.output = Linear(d_model, d_model)

    def forward(self, x: Float[Tensor, "N D"], layout: Layout, *, rows: Tensor | None = None) -> Float[Tensor, "M D"]:
        """Attend within each document.

        Args:
            x: Packed tokens.
            layout: Where the documents lie.
            rows: Packed rows whose output is wanted; all by default.
        """
        mixed = attend(
            self.query(x),
            self.key(x),
            self.value(x),
            layout,
            num_heads=self.num_heads,
            scale=self.scale,
            dropout=self.dropout,
        )
        return self.output(mixed if rows is None else mixed.index_select(0, rows))
