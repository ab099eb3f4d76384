"""Pooled vector: tanh(W first + b), what BERT's next-sentence head was trained on.

Paper: BERT (arXiv:1810.04805), section 3.1 (C in figure 1).
"""

import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.linear import Linear


class PoolConfig(HeadConfig):
    """No settings."""

    def build(self, sizes: Sizes) -> "Pool":
        """The module."""
        return Pool(d_model=sizes.d_model)


class Pool(Head):
    """tanh(dense(first token)); the site is ``dense``."""

    reads = "first"
    gives = "pooled"

    def __init__(self, *, d_model: int):
        super().__init__()
        self.dense = Linear(d_model, d_model)

    def forward(self, x: Float[Tensor, "B D"], noise: torch.Generator | None) -> Float[Tensor, "B D"]:
        """The pooled vector of each document."""
        return torch.tanh(self.dense(x.to(self.dense.weight.dtype)))
