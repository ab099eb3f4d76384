"""Replaced token detection: was this token put in by a generator?

Paper: ELECTRA (arXiv:2003.10555), section 2.
"""

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.head import Head, HeadConfig, Sizes
from tunesmith.nn.head._activation import ACTIVATIONS, Activation
from tunesmith.nn.linear import Linear


class RTDConfig(HeadConfig):
    """Settings of the head of replaced token detection."""

    activation: Activation = pydantic.Field(default="gelu", description="Activation of the hidden layer.")

    def build(self, sizes: Sizes) -> "RTD":
        """The module."""
        return RTD(d_model=sizes.d_model, activation=self.activation)


class RTD(Head):
    """output(activation(dense(x))), one number for each token; the sites are ``dense`` and ``output``."""

    gives = "numbers"

    def __init__(self, *, d_model: int, activation: Activation):
        super().__init__()
        self.dense = Linear(d_model, d_model)
        self.activation = ACTIVATIONS[activation]
        self.output = Linear(d_model, 1)

    def forward(self, x: Float[Tensor, "M D"], noise: torch.Generator | None) -> Float[Tensor, "M 1"]:
        """Logit of "replaced" of each token."""
        return self.output(self.activation(self.dense(x.to(self.output.weight.dtype))))
