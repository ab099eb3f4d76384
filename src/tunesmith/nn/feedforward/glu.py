"""GLU feed-forward: (sigmoid(x W) * x V) W2.

Paper: GLU Variants Improve Transformer (arXiv:2002.05202), equation 6; Dauphin et al. (arXiv:1612.08083).
"""

import torch

from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.feedforward._gated import Gated


class GLUConfig(FeedForwardConfig):
    """No settings."""

    def build(self, *, d_model: int, d_ff: int, bias: bool = True, dropout: float = 0.0) -> Gated:
        """The module."""
        return Gated(torch.sigmoid, d_model=d_model, d_ff=d_ff, bias=bias, dropout=dropout)
