"""Swish feed-forward: x sigmoid(x) between the two maps.

Paper: Swish (arXiv:1710.05941).
"""

import torch.nn.functional as F

from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.feedforward._two_layers import TwoLayers


class SwishConfig(FeedForwardConfig):
    """No settings."""

    def build(self, *, d_model: int, d_ff: int, bias: bool = True, dropout: float = 0.0) -> TwoLayers:
        """The module."""
        return TwoLayers(F.silu, d_model=d_model, d_ff=d_ff, bias=bias, dropout=dropout)
