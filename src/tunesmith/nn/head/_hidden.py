"""A hidden layer before an output: dense, activation, norm."""

import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.nn.head import Sizes
from tunesmith.nn.head._activation import ACTIVATIONS, Activation
from tunesmith.nn.linear import Linear


class Hidden(torch.nn.Module):
    """norm(activation(dense(x))); the site is ``dense``."""

    def __init__(self, sizes: Sizes, *, activation: Activation, bias: bool):
        super().__init__()
        self.dense = Linear(sizes.d_model, sizes.d_model, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.norm = sizes.norm.build(width=sizes.d_model)

    def forward(self, x: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        """Apply the layer."""
        return self.norm(self.activation(self.dense(x)))
