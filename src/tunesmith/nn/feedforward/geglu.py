"""GEGLU feed-forward: (GELU(x W) * x V) W2, as in T5 1.1 and ModernBERT.

Paper: GLU Variants Improve Transformer (arXiv:2002.05202), equation 5.
"""

import functools
from typing import Literal

import pydantic
import torch.nn.functional as F

from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.feedforward._gated import Gated


class GEGLUConfig(FeedForwardConfig):
    """Settings of the GEGLU layer."""

    approximate: Literal["none", "tanh"] = pydantic.Field(
        default="none", description="none: exact, by erf; tanh: the approximation of T5 1.1 (gelu_new)."
    )

    def build(self, *, d_model: int, d_ff: int, bias: bool = True, dropout: float = 0.0) -> Gated:
        """The module."""
        return Gated(
            functools.partial(F.gelu, approximate=self.approximate),
            d_model=d_model,
            d_ff=d_ff,
            bias=bias,
            dropout=dropout,
        )
