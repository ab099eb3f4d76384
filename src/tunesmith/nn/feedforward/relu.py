"""ReLU feed-forward: max(0, x W1 + b1) W2 + b2.

Paper: Attention Is All You Need (arXiv:1706.03762), equation 2.
"""

import torch

from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.feedforward._two_layers import TwoLayers


class ReLUConfig(FeedForwardConfig):
    """No settings."""

    def build(self, *, d_model: int, d_ff: int, bias: bool = True, dropout: float = 0.0) -> TwoLayers:
        """The module."""
        return TwoLayers(torch.relu, d_model=d_model, d_ff=d_ff, bias=bias, dropout=dropout)
