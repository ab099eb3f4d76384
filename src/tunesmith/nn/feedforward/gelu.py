"""GELU feed-forward: x Phi(x) between the two maps, exact or by the tanh approximation.

Paper: Gaussian Error Linear Units (arXiv:1606.08415).
"""

import functools
from typing import Literal

import pydantic
import torch.nn.functional as F

from tunesmith.nn.feedforward import FeedForwardConfig
from tunesmith.nn.feedforward._two_layers import TwoLayers


class GELUConfig(FeedForwardConfig):
    """Settings of the GELU layer."""

    approximate: Literal["none", "tanh"] = pydantic.Field(
        default="none", description="none: exact, by erf (hidden_act gelu); tanh: gelu_new and gelu_pytorch_tanh."
    )

    def build(self, *, d_model: int, d_ff: int, bias: bool = True, dropout: float = 0.0) -> TwoLayers:
        """The module."""
        return TwoLayers(
            functools.partial(F.gelu, approximate=self.approximate),
            d_model=d_model,
            d_ff=d_ff,
            bias=bias,
            dropout=dropout,
        )
